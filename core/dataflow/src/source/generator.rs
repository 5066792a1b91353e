//! Records that a function makes of numbers, as fast as they go or at a rate. Which numbers, and when, is the
//! sequence's business.

use super::{
    Polled, Reader, ReaderCx, Source,
    sequence::{Numbers, Sequence, SequenceReader},
    splits::Known,
};
use crate::{
    batch::{Batch, Time},
    build::OpCx,
    ops::ClonedToSubtasks,
    push::{Control, Push, forward_control},
};
use std::path::Path;
use thalweg_model::TaskFailure;

/// A source of what a function makes of each number of a sequence. Its state is the position in the sequence, so what
/// comes after a restore is what would have come, if the function looks at nothing but the number.
#[derive(Clone)]
pub struct Generator<F> {
    numbers: Sequence,
    make: F,
}

impl<F> Generator<F> {
    /// Of these numbers, by this function.
    pub fn new<T>(numbers: Sequence, make: F) -> Self
    where
        F: FnMut(u64) -> T + ClonedToSubtasks,
    {
        Self { numbers, make }
    }
}

impl<T: 'static, F: FnMut(u64) -> T + ClonedToSubtasks> Source for Generator<F> {
    type Item = T;
    type Split = Numbers;
    type Enumerator = Known<Numbers>;
    type Reader = GeneratorReader<F>;
    fn kind(&self) -> &'static str {
        "generator-source"
    }
    fn is_bounded(&self) -> bool {
        self.numbers.is_bounded()
    }
    fn check(&self, client_dir: &Path) -> Result<(), String> {
        self.numbers.check(client_dir)
    }
    fn enumerator(&self, cx: &OpCx) -> Result<Self::Enumerator, TaskFailure> {
        self.numbers.enumerator(cx)
    }
    fn reader(&self, cx: &OpCx) -> Result<Self::Reader, TaskFailure> {
        Ok(GeneratorReader { numbers: self.numbers.reader(cx)?, make: self.make.clone() })
    }
}

/// Makes records of the numbers that are its own.
pub struct GeneratorReader<F> {
    numbers: SequenceReader,
    make: F,
}

impl<T: 'static, F: FnMut(u64) -> T + ClonedToSubtasks> Reader for GeneratorReader<F> {
    type Item = T;
    type Split = Numbers;
    fn add(&mut self, split: Numbers) {
        self.numbers.add(split);
    }
    fn poll(&mut self, budget: usize, out: &mut impl Push<T>, cx: &mut ReaderCx) -> Result<Polled, TaskFailure> {
        self.numbers.poll(budget, &mut Made { make: &mut self.make, out }, cx)
    }
    fn unfinished(&self) -> Vec<Numbers> {
        self.numbers.unfinished()
    }
    fn reading(&self) -> Option<usize> {
        self.numbers.reading()
    }
    fn at_once(&self) -> bool {
        self.numbers.at_once()
    }
}

/// Takes numbers, and gives records on.
struct Made<'a, F, N> {
    make: &'a mut F,
    out: &'a mut N,
}

impl<F, N: Control> Control for Made<'_, F, N> {
    forward_control!(out);
}

impl<T, F: FnMut(u64) -> T, N: Push<T>> Push<u64> for Made<'_, F, N> {
    #[inline(always)]
    fn push(&mut self, at: Time, number: u64) {
        self.out.push(at, (self.make)(number));
    }
    fn push_batch(&mut self, batch: &mut Batch<u64>, limit: usize) {
        batch.each(limit, |_, at, number| self.push(at, number));
    }
}
