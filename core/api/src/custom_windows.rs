//! Windows of one's own: what an assigner of the program says. The kinds that there are need none of this.

use crate::{DefaultTrigger, JoinWindows, JoinedStreams, JoinedTriggered, KeyedStream, TriggeredStream, Windows};
use thalweg_dataflow::window::{RecordAssigner, WindowAssigner, WindowTime};

/// Windows that an assigner of your own finds, for [`KeyedStream::window`]. They fire at their end, unless a trigger says
/// otherwise.
///
/// ```
/// # let env = thalweg_api::testing::environment(2, std::env::temp_dir())?;
/// use thalweg_api::{CustomWindows, Time, TimeWindow, WindowAssigner, WindowTime, prelude::*};
///
/// /// Eight hours of day and sixteen of night, ms since 1970 UTC.
/// #[derive(Clone)]
/// struct Shifts;
///
/// const HOUR: Time = 3_600_000;
///
/// impl WindowAssigner for Shifts {
///     fn time(&self) -> WindowTime {
///         WindowTime::Event
///     }
///     fn assign(&self, at: Time, to: &mut Vec<TimeWindow>) {
///         let day = at.div_euclid(24 * HOUR) * 24 * HOUR;
///         let night = day + 8 * HOUR;
///         let (start, end) = if at < night { (day, night) } else { (night, day + 24 * HOUR) };
///         to.push(TimeWindow { start, end });
///     }
/// }
///
/// let hours = env.sequence(0..48).assign_timestamps_and_watermarks(
///     |hour| *hour as Time * HOUR,
///     WatermarkStrategy::for_monotonous_timestamps(),
/// );
/// let counts = hours.key_by(|_| 0u8).window(CustomWindows::of(Shifts)).count().map(|w| w.value).collect();
/// # let result = env.execute("shifts")?;
/// let mut counts: Vec<u64> = result.collected(&counts)?;
/// # counts.sort();
/// assert_eq!(counts, [8, 8, 16, 16]);
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct CustomWindows<W> {
    assigner: W,
    time: WindowTime,
    wrong: Option<String>,
}

impl<W> CustomWindows<W> {
    /// By an assigner that looks at times alone.
    pub fn of(assigner: W) -> Self
    where
        W: WindowAssigner,
    {
        let (time, wrong) = (WindowAssigner::time(&assigner), WindowAssigner::check(&assigner).err());
        Self { assigner, time, wrong }
    }

    /// By one that looks at the records.
    pub fn of_records<T>(assigner: W) -> Self
    where
        W: RecordAssigner<T>,
    {
        let time = assigner.time();
        Self { assigner, time, wrong: None }
    }
}

impl<W: Clone + Send + 'static> Windows for CustomWindows<W> {
    type Of<T, S, P> = TriggeredStream<T, S, P, W, DefaultTrigger>;
    fn time(&self) -> WindowTime {
        self.time
    }
    fn check(&self) -> Result<(), String> {
        self.wrong.clone().map_or(Ok(()), Err)
    }
    fn group<T, S, P>(self, keyed: KeyedStream<T, S, P>) -> Self::Of<T, S, P> {
        TriggeredStream::new(keyed, self.assigner, DefaultTrigger::of(self.time))
    }
}

impl<W: WindowAssigner> JoinWindows for CustomWindows<W> {
    type Joined<A, B, S, R, P, Q> = JoinedTriggered<A, B, S, R, P, Q, W, DefaultTrigger>;
    fn join<A, B, S, R, P, Q>(self, streams: JoinedStreams<A, B, S, R, P, Q>) -> Self::Joined<A, B, S, R, P, Q> {
        JoinedTriggered::new(streams, self.assigner, DefaultTrigger::of(self.time))
    }
}
