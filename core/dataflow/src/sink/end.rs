//! The end of a chain that is a sink.

use super::{Committable, Sink, SinkWriter};
use crate::{
    batch::{Batch, Time},
    build::BuildCx,
    exchange::{out::ExchangeOut, route::TurnRouter},
    panics::Guard,
    pipe::Terminal,
    push::{Barrier, Control, Flow, Mark, Push, Ready},
    routes::TurnRoute,
    task::TaskCell,
};
use std::{marker::PhantomData, rc::Rc, sync::Arc};
use thalweg_model::TaskFailure;

/// Ends a chain in a sink.
#[derive(Clone)]
pub struct SinkTerminal<K> {
    pub(super) sink: K,
    pub(super) index: usize,
    pub(super) edge: Option<u32>,
}

/// A live one.
pub struct SinkEnd<T, W> {
    writer: W,
    uid: Arc<str>,
    subtask: u32,
    ended: bool,
    /// The task has failed, as far as was known when room was asked for.
    muted: bool,
    committer: Option<ExchangeOut<Committable, TurnRouter>>,
    cell: Rc<TaskCell>,
    _t: PhantomData<fn(T)>,
}

impl<T: 'static, K: Sink<T>> Terminal<T> for SinkTerminal<K> {
    type End = SinkEnd<T, K::Writer>;
    fn open(self, cx: &BuildCx) -> Result<Self::End, TaskFailure> {
        let op = cx.op(self.index)?;
        let guard = Guard::new(&op.uid);
        let writer = self.sink.writer(&op);
        guard.leave();
        let writer = writer.map_err(|f| named(f, &op.uid))?;
        let committer = match self.edge {
            Some(edge) => Some(Terminal::<Committable>::open(TurnRoute { edge, timed: false }, cx)?),
            None => None,
        };
        let subtask = op.subtask;
        let (uid, cell) = (op.uid, cx.cell.clone());
        Ok(SinkEnd { writer, uid, subtask, ended: false, muted: false, committer, cell, _t: PhantomData })
    }
}

fn named(failure: TaskFailure, uid: &str) -> TaskFailure {
    TaskFailure { uid: failure.uid.or_else(|| Some(uid.to_owned())), ..failure }
}

impl<T, W> SinkEnd<T, W> {
    #[inline(always)]
    fn try_to<R>(&mut self, call: impl FnOnce(&mut W) -> Result<R, TaskFailure>) -> Option<R> {
        let guard = Guard::new(&self.uid);
        let result = call(&mut self.writer);
        guard.leave();
        match result {
            Ok(value) => Some(value),
            Err(failure) => {
                self.muted = true;
                self.cell.fail(named(failure, &self.uid));
                None
            }
        }
    }
}

impl<T: 'static, W: SinkWriter<T>> Control for SinkEnd<T, W> {
    fn ready(&mut self) -> Ready {
        self.muted = self.cell.has_failed();
        let writer = if self.muted { Ready::Yes } else { self.try_to(W::ready).unwrap_or(Ready::Yes) };
        match (writer, self.committer.as_mut().map_or(Ready::Yes, Control::ready)) {
            // One that is busy can go on by itself, so the slot must not park.
            (Ready::Busy, _) | (_, Ready::Busy) => Ready::Busy,
            (Ready::Yes, committer) => committer,
            (writer, _) => writer,
        }
    }
    fn mark(&mut self, _: Mark, _: &mut usize) -> Flow {
        Flow::Done
    }
    fn barrier(&mut self, barrier: &mut Barrier) {
        if let Some(Some(state)) = self.try_to(W::snapshot) {
            barrier.states.push((self.uid.clone(), state));
        }
        if let Some(committer) = &mut self.committer {
            committer.barrier(barrier);
        }
    }
    fn latency(&mut self, _: Time) {}
    fn flush(&mut self) {
        // One that has ended may have closed what it wrote to.
        if !self.ended && !self.muted {
            self.try_to(W::flush);
        }
    }
    fn end(&mut self, budget: &mut usize) -> Flow {
        if !self.ended {
            // A writer that ends by its flush alone has that called for its last records.
            self.try_to(W::flush);
            self.ended = true;
            let parts = self.try_to(W::end).unwrap_or_default();
            if let Some(committer) = &mut self.committer {
                for (n, body) in parts.into_iter().enumerate() {
                    committer.emit(Committable { subtask: self.subtask, n: n as u32, body });
                }
            }
        }
        self.committer.as_mut().map_or(Flow::Done, |c| c.end(budget))
    }
    fn drained(&mut self) -> bool {
        self.committer.as_mut().is_none_or(Control::drained)
    }
}

impl<T: 'static, W: SinkWriter<T>> Push<T> for SinkEnd<T, W> {
    #[inline(always)]
    fn push(&mut self, at: Time, item: T) {
        // After a failure of its own the head stops within a stride, and what it still pushes must have no effect. The flag
        // is a field, and not the cell's: a loop over records keeps it, and what the writer counts, in registers.
        if !self.muted {
            self.try_to(|w| w.write(at, item));
        }
    }
    fn push_batch(&mut self, batch: &mut Batch<T>, limit: usize) {
        batch.each(limit, |_, at, item| self.push(at, item));
    }
}
