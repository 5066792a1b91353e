//! The n greatest of a bounded stream: of each subtask first, then of all.

use crate::{
    batch::Time,
    build::OpCx,
    codec,
    key::Data,
    keyed::keep,
    ops::ClonedToSubtasks,
    pipe::Transform,
    push::{Flow, Operator, Push},
    task::TaskCell,
};
use std::{cmp::Ordering, marker::PhantomData, rc::Rc, sync::Arc};
use thalweg_model::{FailureKind, TaskFailure};

/// Keeps the `n` greatest and emits them at the end, greatest first.
pub struct Top<T, C> {
    n: usize,
    compare: C,
    _t: PhantomData<fn(T)>,
}

impl<T, C> Top<T, C> {
    /// The `n` greatest by this order.
    pub fn new(n: usize, compare: C) -> Self {
        Self { n, compare, _t: PhantomData }
    }
}

impl<T, C: Clone> Clone for Top<T, C> {
    fn clone(&self) -> Self {
        Self::new(self.n, self.compare.clone())
    }
}

/// A live [`Top`].
pub struct TopOp<T, C> {
    n: usize,
    compare: C,
    kept: Vec<T>,
    leaving: Option<std::vec::IntoIter<T>>,
    uid: Arc<str>,
    cell: Rc<TaskCell>,
}

impl<T: Data, C: FnMut(&T, &T) -> Ordering + ClonedToSubtasks> Transform<T> for Top<T, C> {
    type Out = T;
    type Op = TopOp<T, C>;
    fn open(self, cx: &OpCx) -> Result<Self::Op, TaskFailure> {
        let mut kept = Vec::new();
        for (_, part) in cx.restored().filter(|(writer, _)| writer % cx.parallelism == cx.subtask) {
            let part: Vec<T> = codec::decode(part)
                .map_err(|e| cx.failure(FailureKind::Storage, format!("the state cannot be read: {e}")))?;
            kept.extend(part);
        }
        let (uid, cell) = (cx.uid.clone(), cx.cell());
        Ok(TopOp { n: self.n, compare: self.compare, kept, leaving: None, uid, cell })
    }
}

impl<T, C: FnMut(&T, &T) -> Ordering> TopOp<T, C> {
    fn cut(&mut self) {
        self.kept.sort_by(|a, b| (self.compare)(b, a));
        self.kept.truncate(self.n);
    }
}

impl<T: Data, C: FnMut(&T, &T) -> Ordering + 'static> Operator<T> for TopOp<T, C> {
    type Out = T;
    #[inline(always)]
    fn item(&mut self, _: Time, item: T, _: &mut impl Push<T>) {
        self.kept.push(item);
        // Cut when twice as many are there: sorting costs a constant a record.
        if self.kept.len() >= self.n.max(32).saturating_mul(2) {
            self.cut();
        }
    }
    fn end(&mut self, budget: &mut usize, out: &mut impl Push<T>) -> Flow {
        if self.leaving.is_none() {
            self.cut();
        }
        let leaving = self.leaving.get_or_insert_with(|| std::mem::take(&mut self.kept).into_iter());
        while *budget > 0 {
            let Some(item) = leaving.next() else { return Flow::Done };
            *budget -= 1;
            out.emit(item);
        }
        if leaving.len() == 0 { Flow::Done } else { Flow::More }
    }
    fn snapshot(&mut self) -> Option<Vec<u8>> {
        keep(codec::encode(&self.kept), &self.cell, &self.uid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{OperatorTester, TestRuntime};

    #[test]
    fn any_number_of_the_greatest_can_be_asked_for() {
        let rt = TestRuntime::new().unwrap();
        for (n, expected) in [(0, 0), (1, 1), (40, 40), (usize::MAX / 2 + 1, 100), (usize::MAX, 100)] {
            let mut tester = OperatorTester::new(&rt.env, Top::new(n, u64::cmp)).unwrap();
            for item in 0..100 {
                tester.push_untimed(item * 37 % 100).unwrap();
            }
            tester.end().unwrap();
            let got: Vec<u64> = tester.take().into_iter().map(|(_, item)| item).collect();
            assert_eq!(got, (0..100).rev().take(expected).collect::<Vec<_>>(), "{n}");
        }
    }
}
