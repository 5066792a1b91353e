//! Sinks that commit nothing: standard output, a function, nothing at all.

use super::{Sink, SinkWriter};
use crate::{batch::Time, build::OpCx, ops::ClonedToSubtasks};
use std::io::Write;
use thalweg_model::{FailureKind, TaskFailure};

/// A line for each record on standard output, which is the job's log.
#[derive(Clone, Copy)]
pub struct Print;

/// Writes lines to standard output.
pub struct PrintWriter(Vec<u8>);

impl<T: std::fmt::Display> Sink<T> for Print {
    type Writer = PrintWriter;
    fn kind(&self) -> &'static str {
        "print-sink"
    }
    fn writer(&self, _: &OpCx) -> Result<PrintWriter, TaskFailure> {
        Ok(PrintWriter(Vec::new()))
    }
}

impl PrintWriter {
    fn send(&mut self) -> Result<(), TaskFailure> {
        if self.0.is_empty() {
            return Ok(());
        }
        // Whole lines under one lock: subtasks do not write into each other's.
        let mut out = std::io::stdout().lock();
        let result = out.write_all(&self.0).and_then(|()| out.flush());
        self.0.clear();
        result.map_err(|e| match e.kind() {
            // Trying again would find the same.
            std::io::ErrorKind::BrokenPipe => TaskFailure::new(
                FailureKind::User,
                "who read the standard output has closed it: nobody reads what is printed",
            ),
            _ => TaskFailure::new(FailureKind::Storage, format!("standard output: {e}")),
        })
    }
}

impl<T: std::fmt::Display> SinkWriter<T> for PrintWriter {
    fn write(&mut self, _: Time, item: T) -> Result<(), TaskFailure> {
        let written = writeln!(self.0, "{item}");
        written.map_err(|e| TaskFailure::new(FailureKind::User, format!("a record's Display failed: {e}")))?;
        if self.0.len() > 16 << 10 { self.send() } else { Ok(()) }
    }
    fn flush(&mut self) -> Result<(), TaskFailure> {
        self.send()
    }
    fn end(&mut self) -> Result<Vec<Vec<u8>>, TaskFailure> {
        self.send().map(|()| Vec::new())
    }
}

/// Calls a function for each record.
#[derive(Clone)]
pub struct ForEach<F>(pub F);

impl<T: 'static, F: FnMut(T) + ClonedToSubtasks> Sink<T> for ForEach<F> {
    type Writer = Self;
    fn kind(&self) -> &'static str {
        "for-each-sink"
    }
    fn writer(&self, _: &OpCx) -> Result<Self, TaskFailure> {
        Ok(self.clone())
    }
}

impl<T: 'static, F: FnMut(T) + 'static> SinkWriter<T> for ForEach<F> {
    #[inline(always)]
    fn write(&mut self, _: Time, item: T) -> Result<(), TaskFailure> {
        (self.0)(item);
        Ok(())
    }
}

/// Drops each record.
#[derive(Clone, Copy)]
pub struct Discard;

impl<T: 'static> Sink<T> for Discard {
    type Writer = Self;
    fn kind(&self) -> &'static str {
        "discard-sink"
    }
    fn writer(&self, _: &OpCx) -> Result<Self, TaskFailure> {
        Ok(Self)
    }
}

impl<T: 'static> SinkWriter<T> for Discard {
    #[inline(always)]
    fn write(&mut self, _: Time, _: T) -> Result<(), TaskFailure> {
        Ok(())
    }
}
