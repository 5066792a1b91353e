//! What remains in the program's hand when a stream has ended in a sink.

use std::{
    marker::PhantomData,
    path::PathBuf,
    sync::{Arc, OnceLock},
};
use thalweg_dataflow::{OpId, PlanBuilder, ProgramMark, sink::TextSink};

/// A sink, to be named.
pub struct SinkRef {
    pub(crate) plan: PlanBuilder,
    pub(crate) op: OpId,
}

impl SinkRef {
    /// Addresses its state, and names it in messages.
    pub fn uid(self, uid: impl Into<String>) -> Self {
        self.plan.set_uid(self.op, uid.into());
        self
    }

    /// What users see of it.
    pub fn name(self, name: impl Into<String>) -> Self {
        self.plan.set_name(self.op, name.into());
        self
    }
}

/// What `collect` gathered can be asked of the job's result with this.
pub struct Collected<T> {
    plan: PlanBuilder,
    op: OpId,
    uid: Arc<OnceLock<String>>,
    program: ProgramMark,
    _t: PhantomData<fn() -> T>,
}

impl<T> Collected<T> {
    pub(crate) fn new(plan: PlanBuilder, op: OpId) -> Self {
        let (uid, program) = (plan.watch_uid(op), plan.program());
        Self { plan, op, uid, program, _t: PhantomData }
    }

    /// Names it. Before the program is executed.
    pub fn with_uid(self, uid: impl Into<String>) -> Self {
        self.plan.set_uid(self.op, uid.into());
        self
    }

    /// The program whose job gathers it.
    pub(crate) fn program(&self) -> &ProgramMark {
        &self.program
    }

    /// Its uid, once the program was executed.
    pub fn uid(&self) -> Option<&str> {
        self.uid.get().map(String::as_str)
    }
}

/// A folder for output.
#[derive(Clone, Debug)]
pub struct TextOutput {
    folder: PathBuf,
    overwrite: bool,
}

impl TextOutput {
    /// This folder. Relative ones begin where the client was started.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), overwrite: false }
    }

    /// Earlier output in it is replaced when the new one is complete.
    pub fn overwrite(mut self) -> Self {
        self.overwrite = true;
        self
    }

    pub(crate) fn sink(self) -> TextSink {
        TextSink::new(self.folder).overwrite(self.overwrite)
    }
}

impl<P: Into<PathBuf>> From<P> for TextOutput {
    fn from(folder: P) -> Self {
        Self::new(folder)
    }
}
