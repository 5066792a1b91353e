//! The operator from which on a stream has event time.

use super::{WatermarkGenerator, WatermarkStrategy};
use crate::{
    batch::{NO_TIME, Time},
    build::OpCx,
    ops::ClonedToSubtasks,
    pipe::Transform,
    push::{Mark, Operator, Push, Ready},
    task::TaskCell,
};
use std::{rc::Rc, sync::Arc, time::Duration};
use thalweg_env::Clock;
use thalweg_model::{FailureKind, Moment, TaskFailure};

/// Times are from -`LIMIT` up to and without it, ms since 1970: 146 million years each way, so that no sum of a time and the
/// length of a window overflows.
const LIMIT: Time = 1 << 62;

/// Gives each record its time, and the stream its watermarks.
#[derive(Clone)]
pub struct Stamp<F, G> {
    time: F,
    strategy: WatermarkStrategy<G>,
}

impl<F, G> Stamp<F, G> {
    /// Times by this function, watermarks by this strategy.
    pub fn new(time: F, strategy: WatermarkStrategy<G>) -> Self {
        Self { time, strategy }
    }
}

/// A live [`Stamp`].
pub struct StampOp<F, G> {
    time: F,
    generator: G,
    /// The last watermark that was made.
    told: Time,
    /// Batch: nothing is final before the end.
    silent: bool,
    seen: bool,
    idle: Option<Idle>,
    uid: Arc<str>,
    cell: Rc<TaskCell>,
}

/// Looks whether records have stopped coming.
struct Idle {
    after: Duration,
    since: Moment,
    told: bool,
    clock: Arc<dyn Clock>,
}

impl<T: 'static, F: FnMut(&T) -> Time + ClonedToSubtasks, G: WatermarkGenerator<T>> Transform<T> for Stamp<F, G> {
    type Out = T;
    type Op = StampOp<F, G>;
    fn open(self, cx: &OpCx) -> Result<Self::Op, TaskFailure> {
        let clock = cx.env().clock.clone();
        let idle = |after| Idle { after, since: clock.now(), told: false, clock: clock.clone() };
        Ok(StampOp {
            time: self.time,
            generator: self.strategy.generator,
            told: NO_TIME,
            silent: cx.is_batch(),
            seen: false,
            idle: self.strategy.idleness.filter(|_| !cx.is_batch()).map(idle),
            uid: cx.uid.clone(),
            cell: cx.cell(),
        })
    }
}

impl<F, G> StampOp<F, G> {
    #[cold]
    fn out_of_range(&self, at: Time) {
        let message = format!(
            "a record's time is {at} ms since 1970, and times are from -2^62 up to and without 2^62 (146 million years): \
             filter such records out before they are given their times, or give them others"
        );
        self.cell.fail_in(&self.uid, FailureKind::User, message);
    }
}

impl<T: 'static, F: FnMut(&T) -> Time + 'static, G: WatermarkGenerator<T>> Operator<T> for StampOp<F, G> {
    type Out = T;

    #[inline(always)]
    fn item(&mut self, _: Time, item: T, out: &mut impl Push<T>) {
        let at = (self.time)(&item);
        if !(-LIMIT..LIMIT).contains(&at) {
            return self.out_of_range(at);
        }
        self.generator.on_event(at, &item);
        self.seen = true;
        out.push(at, item);
    }

    fn ready(&mut self, _: &mut impl Push<T>) -> Ready {
        if let Some(idle) = &mut self.idle {
            let now = idle.clock.now();
            if self.seen {
                (idle.since, idle.told) = (now, false);
            }
            let due = idle.since + idle.after;
            if !idle.told && now < due {
                self.cell.wake_at(due);
            }
        }
        Ready::Yes
    }

    fn passes(&mut self, mark: Mark) -> Option<Mark> {
        // The end of all time is not this stream's own to tell. Other watermarks belong to the times that were replaced.
        (mark == Mark::At(Time::MAX)).then_some(mark)
    }

    fn makes(&mut self) -> Option<Mark> {
        let seen = std::mem::take(&mut self.seen);
        if self.silent {
            return None;
        }
        if seen {
            // The end of all time is told by the end of the input alone.
            let at = self.generator.watermark().min(Time::MAX - 1);
            // Awake again: its clock counts once more, also when it has not moved.
            let woke = self.idle.is_some();
            if at > self.told || woke && at != NO_TIME {
                self.told = self.told.max(at);
                return Some(Mark::At(self.told));
            }
            return None;
        }
        let idle = self.idle.as_mut()?;
        if !idle.told && idle.clock.now() >= idle.since + idle.after {
            idle.told = true;
            return Some(Mark::Idle);
        }
        None
    }
}
