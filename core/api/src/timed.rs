//! What the times of a stream's records are.

use thalweg_dataflow::window::WindowTime;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Timed {
    /// They have none.
    Not,
    /// They have times that the watermark knows nothing of: the ends of windows that are not of event time.
    Apart,
    /// Event time, which the watermark follows.
    Event,
}

impl Timed {
    /// Of what such windows give out.
    pub(crate) fn of_windows(time: WindowTime) -> Self {
        if time == WindowTime::Event { Self::Event } else { Self::Apart }
    }

    /// Do records travel with their times?
    pub(crate) fn travels(self) -> bool {
        self != Self::Not
    }

    pub(crate) fn is_event(self) -> bool {
        self == Self::Event
    }

    /// Why it is no event time, where that may surprise, for the middle of a sentence.
    pub(crate) fn why_not(self) -> &'static str {
        match self {
            Self::Apart => ", and what windows of the machine's clock, of counts or for all time give out has none",
            Self::Not | Self::Event => "",
        }
    }
}
