//! The items of a collection that the program holds.

use super::{Polled, Reader, ReaderCx, Source, splits::Known};
use crate::{build::OpCx, push::Push};
use std::{ops::Range, sync::Arc};
use thalweg_model::TaskFailure;

/// A source over items in memory. They are part of the program, so every process has them and splits are ranges.
pub struct Collection<T>(Arc<Vec<T>>);

impl<T> Collection<T> {
    /// Of these items.
    pub fn new(items: Vec<T>) -> Self {
        Self(Arc::new(items))
    }
}

impl<T> Clone for Collection<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Clone + Send + Sync + 'static> Source for Collection<T> {
    type Item = T;
    type Split = Range<u64>;
    type Enumerator = Known<Range<u64>>;
    type Reader = CollectionReader<T>;
    fn kind(&self) -> &'static str {
        "collection-source"
    }
    fn is_bounded(&self) -> bool {
        true
    }
    fn enumerator(&self, cx: &OpCx) -> Result<Self::Enumerator, TaskFailure> {
        let readers = cx.readers();
        Known::open(cx, || Ok(super::sequence::parts(0..self.0.len() as u64, readers)), |_| 0)
    }
    fn reader(&self, _: &OpCx) -> Result<Self::Reader, TaskFailure> {
        Ok(CollectionReader { items: self.0.clone(), ranges: Vec::new() })
    }
}

/// Reads ranges of the items.
pub struct CollectionReader<T> {
    items: Arc<Vec<T>>,
    ranges: Vec<Range<u64>>,
}

impl<T: Clone + Send + Sync + 'static> Reader for CollectionReader<T> {
    type Item = T;
    type Split = Range<u64>;
    fn add(&mut self, split: Range<u64>) {
        self.ranges.push(split);
    }
    fn poll(&mut self, budget: usize, out: &mut impl Push<T>, _: &mut ReaderCx) -> Result<Polled, TaskFailure> {
        let open = self.ranges.len();
        let Some(range) = self.ranges.last_mut() else { return Ok(Polled::Done) };
        for i in range.by_ref().take(budget) {
            if let Some(item) = self.items.get(i as usize) {
                out.emit(item.clone());
            }
        }
        if range.is_empty() {
            self.ranges.pop();
        }
        Ok(match self.ranges.len() {
            0 => Polled::Done,
            n if n < open => Polled::Ended,
            _ => Polled::Progress,
        })
    }
    fn reading(&self) -> Option<usize> {
        self.ranges.len().checked_sub(1)
    }
    fn at_once(&self) -> bool {
        false
    }
    fn unfinished(&self) -> Vec<Range<u64>> {
        self.ranges.clone()
    }
}
