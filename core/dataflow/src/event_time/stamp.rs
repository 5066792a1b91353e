//! The operator from which on a stream has event time.

use super::{WatermarkGenerator, WatermarkStrategy, splits::Splits};
use crate::{
    batch::{NO_TIME, Time},
    build::OpCx,
    codec,
    keyed::keep,
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
pub(crate) const LIMIT: Time = 1 << 62;

/// Gives each record its time, and the stream its watermarks.
#[derive(Clone)]
pub struct Stamp<F, G> {
    time: F,
    strategy: WatermarkStrategy<G>,
    by_split: bool,
}

impl<F, G> Stamp<F, G> {
    /// Times by this function, watermarks by this strategy.
    pub fn new(time: F, strategy: WatermarkStrategy<G>) -> Self {
        Self { time, strategy, by_split: false }
    }

    /// Each split of the source that the chain begins with has watermarks of its own, and the lowest counts. Only where the
    /// pipe before is [in step](crate::pipe::Pipe::in_step).
    pub fn by_split(self, by_split: bool) -> Self {
        Self { by_split, ..self }
    }
}

/// A live [`Stamp`].
pub struct StampOp<T, F, G> {
    time: F,
    /// Of the split that is being read.
    generator: G,
    splits: Option<BySplit<T, G>>,
    /// The last watermark that was made.
    told: Time,
    /// Batch: nothing is final before the end.
    silent: bool,
    seen: bool,
    /// A split has become idle.
    aged: bool,
    /// The reader waits for others by what it is told here.
    aligned: bool,
    idle: Option<Idle>,
    uid: Arc<str>,
    cell: Rc<TaskCell>,
}

/// What the source's task tells of its splits.
struct BySplit<T, G> {
    splits: Splits<T, G>,
    /// Of the board; 0 for a reader that does not tell splits apart.
    version: u64,
}

/// So many looks more: what was read may be with filters in front, which let go of it when they are asked next, all at once.
pub(crate) const LOOKS: u64 = 1;

/// Looks whether records have stopped coming.
struct Idle {
    after: Duration,
    since: Moment,
    told: bool,
    /// For how long the task had been held when it was looked at last.
    held: Duration,
    /// It is time, and so often the task had looked for something to read when that was found: what it finds when it looks
    /// again may be what ends the waiting.
    due: Option<u64>,
    clock: Arc<dyn Clock>,
}

impl<T: 'static, F: FnMut(&T) -> Time + ClonedToSubtasks, G: WatermarkGenerator<T>> Transform<T> for Stamp<F, G> {
    type Out = T;
    type Op = StampOp<T, F, G>;
    const IN_STEP: bool = true;
    fn stays(&self) -> Option<&'static str> {
        self.by_split.then_some(
            "watermarks by split are made in the chain of their source: put start_new_chain() behind it instead, or in \
             front of it for watermarks of the whole stream",
        )
    }
    fn open(self, cx: &OpCx) -> Result<Self::Op, TaskFailure> {
        let clock = cx.env().clock.clone();
        let idle = |after| {
            let (since, held, clock) = (clock.now(), Duration::ZERO, clock.clone());
            Idle { after, since, told: false, held, due: None, clock }
        };
        let by_split = (self.by_split && !cx.is_batch()).then(|| {
            cx.cell().splits.watch();
            // Of all readers: who goes on with which split is the source's to say.
            let saved = cx.saved::<Vec<Time>>()?.into_iter().collect();
            Ok(BySplit { splits: Splits::new(self.strategy.generator.clone(), saved), version: 0 })
        });
        let alignment = self.strategy.alignment.filter(|_| self.by_split && !cx.is_batch());
        let aligned = alignment.is_some_and(|alignment| cx.cell().splits.align(alignment));
        Ok(StampOp {
            time: self.time,
            splits: by_split.transpose()?,
            generator: self.strategy.generator,
            told: NO_TIME,
            silent: cx.is_batch(),
            seen: false,
            aged: false,
            aligned,
            idle: self.strategy.idleness.filter(|_| !cx.is_batch()).map(idle),
            uid: cx.uid.clone(),
            cell: cx.cell(),
        })
    }
}

impl<T, F, G> StampOp<T, F, G> {
    #[cold]
    fn out_of_range(&self, at: Time) {
        let message = format!(
            "a record's time is {at} ms since 1970, and times are from -2^62 up to and without 2^62 (146 million years): \
             filter such records out before they are given their times, or give them others"
        );
        self.cell.fail_in(&self.uid, FailureKind::User, message);
    }
}

impl<T: 'static, F, G: WatermarkGenerator<T>> StampOp<T, F, G> {
    /// The splits are others than before, or another one's turn has come.
    #[cold]
    #[inline(never)]
    fn follow(&mut self) {
        let Some(by) = &mut self.splits else { return };
        by.version = self.cell.splits.version();
        // The clock is asked for only where idleness counts.
        let (since, now) = self.idle.as_ref().map_or_else(Default::default, |idle| (idle.since, idle.clock.now()));
        self.seen |= by.splits.follow(&self.cell.splits.told(), &mut self.generator, since, now);
        if self.aligned {
            self.cell.splits.lowest.set(by.splits.lowest());
            self.cell.splits.live.set(by.splits.reading(self.generator.watermark()));
        }
    }

    /// How far the reader is, for the others to know.
    fn tell(&mut self, at: Time) {
        let (board, live) = (&self.cell.splits, self.generator.watermark());
        board.reached.set(self.told.max(at));
        board.idle.set(self.idle.as_ref().is_some_and(|idle| idle.told));
        match &self.splits {
            Some(by) if by.version > 0 => {
                board.live.set(by.splits.reading(live));
                board.lowest.set(by.splits.lowest());
            }
            _ => board.live.set(live),
        }
    }

    fn watermark(&mut self) -> Time {
        let live = self.generator.watermark();
        match &self.splits {
            // While no split is open the watermark stays where it is.
            Some(by) if by.version > 0 => by.splits.watermark(live).unwrap_or(NO_TIME),
            _ => live,
        }
    }
}

impl<T: 'static, F: FnMut(&T) -> Time + 'static, G: WatermarkGenerator<T>> Operator<T> for StampOp<T, F, G> {
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
        if let Some(by) = &self.splits
            && by.version != self.cell.splits.version()
        {
            self.follow();
        }
        if let Some(idle) = &mut self.idle {
            let now = idle.clock.now();
            // While it was held nothing could be read, whatever there was.
            let held = self.cell.held_for(now);
            let more = held.saturating_sub(std::mem::replace(&mut idle.held, held));
            if !more.is_zero() {
                idle.since = idle.since + more;
                self.splits.iter_mut().for_each(|by| by.splits.held(more));
            }
            if self.seen {
                (idle.since, idle.told) = (now, false);
            }
            if self.aligned && self.cell.splits.waits.get() {
                idle.since = now;
                self.splits.iter_mut().for_each(|by| by.splits.wait(now));
                return Ready::Yes;
            }
            let due = idle.since + idle.after;
            if idle.told || now < due {
                idle.due = None;
            } else {
                idle.due.get_or_insert(self.cell.looks());
            }
            if !idle.told {
                self.cell.wake_at(due);
            }
            if let Some(by) = &mut self.splits {
                let (aged, next) = by.splits.age(now, idle.after);
                self.aged |= aged;
                next.into_iter().for_each(|at| self.cell.wake_at(at));
            }
        }
        Ready::Yes
    }

    fn passes(&mut self, mark: Mark) -> Option<Mark> {
        // The end of all time is not this stream's own to tell. Other watermarks belong to the times that were replaced.
        (mark == Mark::At(Time::MAX)).then_some(mark)
    }

    fn makes(&mut self) -> Option<Mark> {
        let (seen, aged) = (std::mem::take(&mut self.seen), std::mem::take(&mut self.aged));
        if self.silent {
            return None;
        }
        if seen || aged {
            // The end of all time is told by the end of the input alone.
            let at = self.watermark().min(Time::MAX - 1);
            if self.aligned {
                self.tell(at);
            }
            // Awake again: its clock counts once more, also when it has not moved.
            let woke = seen && self.idle.is_some();
            if at > self.told || woke && self.told.max(at) != NO_TIME {
                self.told = self.told.max(at);
                self.cell.goes_on();
                return Some(Mark::At(self.told));
            }
            return None;
        }
        let idle = self.idle.as_mut()?;
        if idle.due.is_some_and(|looks| self.cell.looks() > looks + LOOKS) {
            idle.due = None;
            idle.told = true;
            self.cell.splits.idle.set(true);
            return Some(Mark::Idle);
        }
        None
    }
    fn snapshot(&mut self) -> Option<Vec<u8>> {
        let by = self.splits.as_ref().filter(|by| by.version > 0)?;
        let all = by.splits.snapshot(self.generator.watermark());
        keep(codec::encode(&all), &self.cell, &self.uid)
    }
}
