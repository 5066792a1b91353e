//! Sinks: writers at the ends of chains, and for output that becomes visible at once a committer behind them.
//!
//! Writers leave their output where nobody sees it and send its names to the committer, a vertex of parallelism 1 on an
//! ordinary edge. When its whole input has ended it reports what it will publish, waits until the JobMaster has recorded
//! that, and publishes. A restart after the record publishes again, which must change nothing.

mod collect;
mod committer;
mod end;
mod files;
mod hidden;
mod simple;
mod socket;
mod text;

pub use collect::{Collect, MAX_COLLECTED, decode_collected};
pub use end::SinkTerminal;
pub use files::{BucketAssigner, ByFn, FileSink, FileWriter, NoBuckets, RollingPolicy, TimeBuckets};
pub(crate) use hidden::is_unfinished;
pub use simple::{Discard, ForEach, Print};
pub use socket::SocketSink;
pub(crate) use socket::is_address;
pub use text::{Display, LineFormat, TextSink, With};

use crate::{
    batch::Time,
    build::OpCx,
    pipe::{Pipe, Recipe, close},
    plan::{OpId, PlanBuilder},
    push::Ready,
    task::Task,
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use thalweg_model::{Partitioner, TaskFailure, VertexRole};

/// Where records go.
pub trait Sink<T>: Clone + Send + 'static {
    /// Writes the records of one subtask.
    type Writer: SinkWriter<T>;
    /// `text-sink`…
    fn kind(&self) -> &'static str;
    /// Looks at what only the client can see, before the job is submitted. The error says what to do.
    fn check(&self, _client_dir: &Path) -> Result<(), String> {
        Ok(())
    }
    /// The folder that no other sink may write to.
    fn folder(&self) -> Option<&Path> {
        None
    }
    /// Opens a writer. `cx` has the subtask's index, the clock and paths.
    fn writer(&self, cx: &OpCx) -> Result<Self::Writer, TaskFailure>;
    /// Does its output become visible only when a committer publishes it?
    fn commits(&self) -> bool {
        false
    }
    /// Opens the committer, if it commits.
    fn committer(&self, cx: &OpCx) -> Result<Box<dyn Committer>, TaskFailure> {
        Err(cx.failure(thalweg_model::FailureKind::Incompatible, "this sink has no committer"))
    }
}

/// Writes the records of one subtask.
pub trait SinkWriter<T>: 'static {
    /// One record.
    fn write(&mut self, at: Time, item: T) -> Result<(), TaskFailure>;
    /// Is there room? Asked before records, at least every [`STRIDE`](crate::push::STRIDE), and in every step of the
    /// task, also when no record comes: what has a time to keep looks at the clock here, and asks to be woken by
    /// [`TaskCell::wake_at`](crate::task::TaskCell::wake_at). `Blocked` holds records back until the task's waker is
    /// called, and after `end` holds the task back. Not asked any more after a failure.
    #[inline(always)]
    fn ready(&mut self) -> Result<Ready, TaskFailure> {
        Ok(Ready::Yes)
    }
    /// The input pauses, or `buffer-timeout` is over.
    fn flush(&mut self) -> Result<(), TaskFailure> {
        Ok(())
    }
    /// No record follows, and `flush` was called behind the last one: everything is made durable. What the committer must know
    /// of it. Nothing is called behind it but `ready` and `snapshot`.
    fn end(&mut self) -> Result<Vec<Vec<u8>>, TaskFailure> {
        Ok(Vec::new())
    }
    /// State for a restore.
    fn snapshot(&mut self) -> Result<Option<Vec<u8>>, TaskFailure> {
        Ok(None)
    }
}

/// One thing that a writer prepared.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Committable {
    /// Which writer.
    pub subtask: u32,
    /// The how-manieth of this writer.
    pub n: u32,
    /// What its `end` gave.
    pub body: Vec<u8>,
}

/// What a committer has prepared.
#[derive(Debug, Default)]
pub struct Manifest {
    /// All that `publish` needs, also in another process.
    pub bytes: Bytes,
    /// A value for the job's result.
    pub collected: Option<Bytes>,
}

/// Publishes what the writers of a sink prepared. There is one for each sink.
pub trait Committer: 'static {
    /// One thing more.
    fn add(&mut self, part: Committable) -> Result<(), TaskFailure>;
    /// There is nothing more. Must change nothing that is visible.
    fn prepare(&mut self) -> Result<Manifest, TaskFailure>;
    /// Makes it visible. Must be idempotent: it may have been published before, in part or whole.
    fn publish(&mut self, manifest: &[u8]) -> Result<(), TaskFailure>;
}

/// The folder without links: what two links lead to is one. As much of it as is there.
fn real(folder: &Path) -> PathBuf {
    let full = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    let above = full.ancestors().find_map(|above| Some((above, above.canonicalize().ok()?)));
    let Some((above, real)) = above else { return full };
    real.iter().chain(full.strip_prefix(above).unwrap_or(&full).iter()).collect()
}

/// Ends a chain in a sink, with its committer if it has one.
#[track_caller]
pub fn add_sink<P: Pipe, K: Sink<P::Item>>(plan: &PlanBuilder, vertex: usize, pipe: P, sink: K) -> OpId
where
    P::Item: 'static,
{
    let op = plan.operator(vertex, sink.kind(), &[]);
    let mine = sink.clone();
    plan.check(move |dir| mine.check(dir));
    if let Some(folder) = sink.folder() {
        plan.owns(&real(folder));
    }
    let mut edge = None;
    if sink.commits() {
        let committer = plan.vertex(VertexRole::Committer, Some(1));
        plan.companion(committer, op, "/committer", "committer", &[]);
        let to = plan.edge::<Committable>(vertex, committer, Partitioner::Rebalance, false);
        edge = Some(to);
        let mine = sink.clone();
        let make = move || -> Recipe<Box<dyn Task>> {
            let sink = mine.clone();
            Box::new(move |cx| committer::make::<P::Item, K>(cx, &sink, to))
        };
        plan.install(committer, Box::new(make));
    }
    close(plan, vertex, pipe, SinkTerminal { sink, index: op.op, edge });
    op
}
