//! A sink that counts and sums: each writer leaves one line `sum COUNT SUM` in a file of its own.

use std::path::PathBuf;
use thalweg::{FailureKind, OpCx, Sink, SinkWriter, TaskFailure, Time};

/// Sums what a function gives of each record into `OUT.<subtask>`.
#[derive(Clone)]
pub struct SumSink<F> {
    /// `OUT`.
    pub out: PathBuf,
    /// What is summed, modulo 2^64.
    pub value: F,
}

/// One subtask's.
pub struct SumWriter<F> {
    file: PathBuf,
    value: F,
    count: u64,
    sum: u64,
}

impl<T: 'static, F: FnMut(T) -> u64 + Clone + Send + 'static> Sink<T> for SumSink<F> {
    type Writer = SumWriter<F>;
    fn kind(&self) -> &'static str {
        "sum-sink"
    }
    fn writer(&self, cx: &OpCx) -> Result<SumWriter<F>, TaskFailure> {
        let file = PathBuf::from(format!("{}.{}", self.out.display(), cx.subtask));
        Ok(SumWriter { file, value: self.value.clone(), count: 0, sum: 0 })
    }
}

impl<T: 'static, F: FnMut(T) -> u64 + 'static> SinkWriter<T> for SumWriter<F> {
    #[inline(always)]
    fn write(&mut self, _: Time, item: T) -> Result<(), TaskFailure> {
        self.count += 1;
        self.sum = self.sum.wrapping_add((self.value)(item));
        Ok(())
    }
    fn end(&mut self) -> Result<Vec<Vec<u8>>, TaskFailure> {
        std::fs::write(&self.file, format!("sum {} {}\n", self.count, self.sum))
            .map_err(|e| TaskFailure::new(FailureKind::Storage, format!("{}: {e}", self.file.display())))?;
        Ok(Vec::new())
    }
}
