//! The half of a window aggregation that lies before the exchange: records of one key and pane are gathered until the
//! watermark passes the pane's end, and travel as one.
//!
//! A window's result waits for the watermark anyway, so this costs no time. Where keys hardly repeat it would be work for
//! nothing: it looks now and then, and lets records pass one by one.

use super::{TimeWindows, panes::Panes};
use crate::{
    batch::{NO_TIME, Time},
    build::OpCx,
    fold::Fold,
    key::KeySelect,
    keyed::keep,
    pipe::Transform,
    push::{Flow, Mark, Operator, Push, Ready, STRIDE},
    state::{Flat, FlatIter, RowTable},
    task::TaskCell,
};
use std::{collections::VecDeque, marker::PhantomData, rc::Rc, sync::Arc};
use thalweg_model::TaskFailure;

/// Rows that are gathered: beyond these all go, so that memory is bounded.
const GATHERED: usize = 1 << 17;
/// Records between two looks at how many keys there are.
const LOOK: u32 = 1 << 13;
/// Records that pass one by one where keys hardly repeat.
const PASS: u32 = 1 << 18;

/// Gathers by key and pane.
pub struct WindowCombine<F, S> {
    /// The windows that are made of it.
    pub windows: TimeWindows,
    /// What is gathered.
    pub fold: F,
    /// Finds the key.
    pub key: S,
    /// Else each record passes by itself.
    pub gathers: bool,
}

impl<F: Clone, S: Clone> Clone for WindowCombine<F, S> {
    fn clone(&self) -> Self {
        Self { windows: self.windows, fold: self.fold.clone(), key: self.key.clone(), gathers: self.gathers }
    }
}

/// A live [`WindowCombine`].
pub struct WindowCombineOp<T, F: Fold<T>, S: KeySelect<T>> {
    fold: F,
    key: S,
    panes: Panes<S::Key, F::Acc, Flat<S::Key, F::Acc>>,
    pane: Time,
    /// Records up to it pass at once: what they change may be waited for, and no watermark may come for long.
    watermark: Time,
    /// Rows on their way out, and the time that they travel with.
    leaving: VecDeque<(Time, FlatIter<S::Key, F::Acc>)>,
    /// Records until the next look.
    look: u32,
    /// Rows at the last look.
    had: usize,
    /// Records that still pass one by one.
    pass: u32,
    /// Its input has been idle, so that others may be ahead of it: they do not wait for what is gathered here.
    alone: bool,
    uid: Arc<str>,
    cell: Rc<TaskCell>,
    _t: PhantomData<fn(T)>,
}

impl<T: 'static, F: Fold<T>, S: KeySelect<T>> Transform<T> for WindowCombine<F, S> {
    type Out = (S::Key, F::Acc);
    type Op = WindowCombineOp<T, F, S>;
    fn open(mut self, cx: &OpCx) -> Result<Self::Op, TaskFailure> {
        let mut panes = Panes::new(self.windows);
        // Any subtask may gather any key: parts are dealt out by who wrote them.
        for (writer, part) in cx.restored().filter(|(writer, _)| writer % cx.parallelism == cx.subtask) {
            let _: (Time, ()) = panes.restore(cx, writer, part, |_| true, |a, b| self.fold.merge(a, b))?;
        }
        Ok(WindowCombineOp {
            fold: self.fold,
            key: self.key,
            had: panes.len(),
            panes,
            pane: self.windows.pane(),
            watermark: if self.gathers { NO_TIME } else { Time::MAX },
            leaving: VecDeque::new(),
            look: LOOK,
            pass: 0,
            alone: false,
            uid: cx.uid.clone(),
            cell: cx.cell(),
            _t: PhantomData,
        })
    }
}

impl<T: 'static, F: Fold<T>, S: KeySelect<T>> WindowCombineOp<T, F, S> {
    /// Panes that end by then go. What travels of a pane has its last moment as its time: so it is not behind a watermark
    /// that the pane is not behind.
    fn leave(&mut self, until: Time) {
        let pane = self.pane;
        let ended =
            self.panes.take_ended(until).map(|(start, rows)| (start.saturating_add(pane - 1), rows.into_iter()));
        self.leaving.extend(ended);
        self.had = self.panes.len();
    }

    #[cold]
    #[inline(never)]
    fn look(&mut self) {
        let (rows, gathered) = (self.panes.len(), LOOK as usize);
        let new = rows.saturating_sub(self.had);
        (self.look, self.had) = (LOOK, rows);
        if new > gathered / 2 {
            self.pass = PASS;
            self.leave(Time::MAX);
        } else if rows > GATHERED {
            self.leave(Time::MAX);
        }
    }

    fn drain(&mut self, budget: &mut usize, out: &mut impl Push<(S::Key, F::Acc)>) -> Flow {
        while let Some((at, rows)) = self.leaving.front_mut() {
            for row in rows.by_ref() {
                out.push(*at, row);
                *budget -= 1;
                if *budget == 0 {
                    return Flow::More;
                }
            }
            self.leaving.pop_front();
        }
        Flow::Done
    }
}

impl<T: 'static, F: Fold<T>, S: KeySelect<T>> Operator<T> for WindowCombineOp<T, F, S> {
    type Out = (S::Key, F::Acc);

    #[inline(always)]
    fn item(&mut self, at: Time, item: T, out: &mut impl Push<Self::Out>) {
        // So does what has no time: it is refused behind the exchange.
        if self.pass > 0 || at <= self.watermark {
            self.pass = self.pass.saturating_sub(1);
            let key = self.key.own(&item);
            return out.push(at, (key, self.fold.lift(item)));
        }
        let (select, hash) = (&self.key, self.key.hash(&item));
        let make = |fold: &mut F, item| (select.own(&item), fold.lift(item));
        self.panes.rows(at).upsert(hash, item, &mut self.fold, |item, k| select.same(item, k), F::add, make);
        self.look -= 1;
        if self.look == 0 {
            self.look();
        }
    }

    fn ready(&mut self, out: &mut impl Push<Self::Out>) -> Ready {
        if self.leaving.is_empty() {
            return Ready::Yes;
        }
        // What was emitted just now may have used the room downstream up.
        let _ = self.drain(&mut STRIDE.clone(), out);
        Ready::Busy
    }

    fn mark(&mut self, mark: Mark, budget: &mut usize, out: &mut impl Push<Self::Out>) -> Flow {
        match mark {
            Mark::At(at) => {
                self.leave(at);
                self.watermark = self.watermark.max(at);
            }
            // From now on others alone say how late it is, and what is gathered here would come too late for them.
            Mark::Idle => {
                self.leave(Time::MAX);
                self.alone = true;
            }
        }
        if *budget == 0 { Flow::More } else { self.drain(budget, out) }
    }

    /// Whether its own watermark holds up those behind the exchange, once it was idle, only they know: so nothing waits for
    /// that for longer than it would in the exchange.
    fn flush(&mut self, out: &mut impl Push<Self::Out>) {
        if self.alone {
            self.leave(Time::MAX);
            if self.drain(&mut STRIDE.clone(), out) == Flow::More {
                self.cell.goes_on();
            }
        }
    }

    fn snapshot(&mut self) -> Option<Vec<u8>> {
        keep(self.panes.snapshot(NO_TIME, ()), &self.cell, &self.uid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        fold::Count,
        key::ByValue,
        testing::{OperatorTester, TestRuntime},
        window::TumblingEventTimeWindows,
    };
    use std::time::Duration;

    #[test]
    fn what_is_gathered_goes_before_the_stream_is_idle_and_what_is_late_goes_at_once() {
        let rt = TestRuntime::new().unwrap();
        let windows = TumblingEventTimeWindows::of(Duration::from_millis(10));
        let combine = WindowCombine { windows, fold: Count, key: ByValue(|i: &u64| *i), gathers: true };
        let mut tester = OperatorTester::new(&rt.env, combine).unwrap();
        tester.push(7, 1).unwrap();
        tester.push(8, 1).unwrap();
        tester.watermark(6).unwrap();
        assert_eq!(tester.take(), [], "it waits for the watermark");
        tester.idle().unwrap();
        assert_eq!(tester.take(), [(9, (1, 2))]);
        tester.watermark(9).unwrap();
        tester.push(5, 1).unwrap();
        assert_eq!(tester.take(), [(5, (1, 1))]);
        tester.push(12, 1).unwrap();
        assert_eq!(tester.take(), []);
        tester.end().unwrap();
        assert_eq!(tester.take(), [(19, (1, 1))]);
        let apart = WindowCombine { windows, fold: Count, key: ByValue(|i: &u64| *i), gathers: false };
        let mut tester = OperatorTester::new(&rt.env, apart).unwrap();
        tester.push(7, 1).unwrap();
        tester.push(8, 1).unwrap();
        assert_eq!(tester.take(), [(7, (1, 1)), (8, (1, 1))]);
    }

    #[test]
    fn once_its_input_was_idle_nothing_is_kept_for_longer_than_the_exchange_would() {
        let rt = TestRuntime::new().unwrap();
        let windows = TumblingEventTimeWindows::of(Duration::from_millis(10));
        let combine = WindowCombine { windows, fold: Count, key: ByValue(|i: &u64| *i), gathers: true };
        let mut tester = OperatorTester::new(&rt.env, combine).unwrap();
        tester.push(7, 1).unwrap();
        tester.flush().unwrap();
        assert_eq!(tester.take(), [], "its watermark holds those behind the exchange up");
        tester.idle().unwrap();
        assert_eq!(tester.take(), [(9, (1, 1))]);
        // It is back, and behind what the others have told.
        tester.watermark(3).unwrap();
        (0..3).for_each(|_| tester.push(12, 1).unwrap());
        assert_eq!(tester.take(), [], "gathered until the input pauses");
        tester.flush().unwrap();
        assert_eq!(tester.take(), [(19, (1, 3))]);
        let keys = 3 * STRIDE as u64;
        (0..keys).for_each(|key| tester.push(12, key).unwrap());
        tester.flush().unwrap();
        assert_eq!(tester.take().len(), STRIDE, "in pieces");
        tester.advance(Duration::ZERO).unwrap();
        assert_eq!(tester.take().len(), 2 * STRIDE);
    }
}
