//! Where a task is built: on its slot's thread, from the pristine plan, so that nothing alive in a task must be `Send`.

use crate::{
    codec,
    exchange::{
        ExchangeSizes, Signal,
        channel::{Receiver, Sender},
        wiring::{LocalWiring, Wiring},
    },
    key::{Data, key_group, subtask_of},
    plan::Plan,
    side::GatheredSides,
    task::{Checkpoints, Snapshot, TaskCell},
};
use bytes::Bytes;
use parking_lot::Mutex;
use std::{
    cell::RefCell,
    collections::HashMap,
    path::{Path, PathBuf},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Waker,
    time::Duration,
};
use thalweg_env::Env;
use thalweg_model::{Attempt, Edge, FailureKind, JobId, Placement, SubtaskId, TaskFailure, Vertex};
use thalweg_spi::{
    self as spi, ChannelId, ChannelWriter, PartitionId, ServiceError, ShuffleDescriptor, ShuffleEnvironment,
};

/// What all tasks of one region share in this host under one attempt.
pub(crate) struct AttemptCx {
    pub(crate) job: JobId,
    pub(crate) region: u32,
    pub(crate) attempt: Attempt,
    pub(crate) plan: Arc<Plan>,
    pub(crate) placement: Arc<Placement>,
    pub(crate) host: u32,
    pub(crate) env: Env,
    pub(crate) shuffle: Arc<dyn ShuffleEnvironment>,
    pub(crate) sizes: ExchangeSizes,
    pub(crate) buffer_timeout: Duration,
    pub(crate) latency_interval: Option<Duration>,
    pub(crate) client_dir: PathBuf,
    pub(crate) scratch: PathBuf,
    /// By edge and producer.
    pub(crate) descriptors: Mutex<HashMap<(u32, u32), Bytes>>,
    pub(crate) wiring: Wiring,
    pub(crate) checkpoints: Arc<Checkpoints>,
    pub(crate) restore: Arc<Snapshot>,
    pub(crate) cancelled: AtomicBool,
}

/// What all tasks of one region share in one slot.
pub(crate) struct SlotLocal {
    pub(crate) signal: Arc<Signal>,
    pub(crate) queues: LocalWiring,
    /// Channels that begin in tasks which have yet to be built.
    offered: RefCell<HashMap<ChannelId, spi::Result<Box<dyn ChannelWriter>>>>,
}

impl SlotLocal {
    pub(crate) fn new(signal: Arc<Signal>) -> Rc<Self> {
        Rc::new(Self { signal, queues: LocalWiring::default(), offered: RefCell::default() })
    }
}

/// One task that is being built.
pub struct BuildCx {
    pub(crate) attempt: Arc<AttemptCx>,
    pub(crate) slot: Rc<SlotLocal>,
    pub(crate) subtask: SubtaskId,
    pub(crate) cell: Rc<TaskCell>,
    pub(crate) publish: Option<Bytes>,
    /// Only in tests of one operator: what it writes to side outputs.
    pub(crate) sides: Option<GatheredSides>,
}

enum Distance {
    Slot,
    Process,
    Remote,
}

fn wrong(message: impl Into<String>) -> TaskFailure {
    TaskFailure::new(FailureKind::Incompatible, message)
}

fn unopened(error: &ServiceError) -> TaskFailure {
    TaskFailure::new(FailureKind::Lost, format!("exchange: {error}"))
}

impl BuildCx {
    pub(crate) fn vertex(&self) -> Result<&Vertex, TaskFailure> {
        let vertices = &self.attempt.plan.graph().vertices;
        vertices.get(self.subtask.vertex as usize).ok_or_else(|| wrong(format!("no vertex {}", self.subtask.vertex)))
    }

    pub(crate) fn edge(&self, edge: u32) -> Result<&Edge, TaskFailure> {
        self.attempt.plan.graph().edges.get(edge as usize).ok_or_else(|| wrong(format!("no edge {edge}")))
    }

    pub(crate) fn parallelism_of(&self, vertex: u32) -> u32 {
        self.attempt.plan.graph().vertices.get(vertex as usize).map_or(0, |v| v.parallelism)
    }

    /// Does the job give final results only?
    pub fn is_batch(&self) -> bool {
        self.attempt.plan.is_batch()
    }

    pub(crate) fn waker(&self) -> Waker {
        Waker::from(self.slot.signal.clone())
    }

    /// What the operator at this place of the vertex is opened with.
    pub(crate) fn op(&self, index: usize) -> Result<OpCx<'_>, TaskFailure> {
        let vertex = self.vertex()?;
        let info =
            vertex.operators.get(index).ok_or_else(|| wrong(format!("no operator {index} in {}", vertex.name())))?;
        Ok(OpCx {
            uid: info.uid.as_str().into(),
            index: u32::try_from(index).unwrap_or(u32::MAX),
            subtask: self.subtask.index,
            parallelism: vertex.parallelism,
            max_parallelism: vertex.max_parallelism,
            build: self,
        })
    }

    fn distance(&self, from: SubtaskId, to: SubtaskId) -> Result<Distance, TaskFailure> {
        let place = |s: SubtaskId| {
            self.attempt.placement.of(s).ok_or_else(|| wrong(format!("the placement has no place for subtask {s}")))
        };
        let (a, b) = (place(from)?, place(to)?);
        let own = |v: u32| self.attempt.plan.graph().vertices.get(v as usize).is_some_and(|v| v.own_thread);
        Ok(if a.host != b.host {
            Distance::Remote
        } else if a.slot != b.slot || own(from.vertex) || own(to.vertex) {
            Distance::Process
        } else {
            Distance::Slot
        })
    }

    fn channel_id(&self, edge: u32, producer: u32, consumer: u32) -> ChannelId {
        let AttemptCx { job, region, attempt, .. } = *self.attempt;
        let partition = PartitionId { job, region, attempt, edge, producer };
        ChannelId { partition, consumer }
    }

    /// Opens the channels that begin here and lead to other hosts. Who is to read them does not wait for long, and opening
    /// what the user wrote, or listing files, may take long: so this comes first.
    pub(crate) fn offer(&self) -> Result<(), TaskFailure> {
        let me = self.subtask;
        let edges = &self.attempt.plan.graph().edges;
        for (edge, info) in (0..).zip(edges).filter(|(_, info)| info.from == me.vertex) {
            let (producers, consumers) = (self.parallelism_of(info.from), self.parallelism_of(info.to));
            for index in info.partitioner.consumers_of(me.index, producers, consumers) {
                if let Distance::Remote = self.distance(me, SubtaskId { vertex: info.to, index })? {
                    let id = self.channel_id(edge, me.index, index);
                    let writer = self.attempt.shuffle.open_writer(id, self.waker());
                    self.slot.offered.borrow_mut().insert(id, writer);
                }
            }
        }
        Ok(())
    }

    /// The sending ends of an edge that begins in this vertex: one for each consumer that this subtask reaches.
    pub(crate) fn senders<T: Data>(&self, edge: u32) -> Result<Vec<Sender<T>>, TaskFailure> {
        let info = self.edge(edge)?;
        let me = self.subtask.index;
        let (producers, consumers) = (self.parallelism_of(info.from), self.parallelism_of(info.to));
        let to = info.partitioner.consumers_of(me, producers, consumers);
        let uid: Arc<str> = self.vertex()?.operators.last().map_or("", |o| o.uid.as_str()).into();
        let sizes = self.attempt.sizes;
        to.map(|index| {
            let key = (edge, me, index);
            Ok(match self.distance(self.subtask, SubtaskId { vertex: info.to, index })? {
                Distance::Slot => {
                    let queue = self.slot.queues.queue(key, sizes.depth).map_err(wrong)?;
                    Sender::queue(queue, sizes, self.cell.clone(), uid.clone())
                }
                Distance::Process => {
                    let (w, signals) = self.attempt.wiring.writer(key, sizes.depth).map_err(wrong)?;
                    let _ = signals.writer.set(self.slot.signal.clone());
                    Sender::ring(w.data, w.spare, signals, sizes, self.cell.clone(), uid.clone())
                }
                Distance::Remote => {
                    let id = self.channel_id(edge, me, index);
                    let offered = self.slot.offered.borrow_mut().remove(&id);
                    let writer = offered.unwrap_or_else(|| self.attempt.shuffle.open_writer(id, self.waker()));
                    let writer = writer.map_err(|e| unopened(&e))?;
                    self.cell.metrics().outputs.other(writer.waiting());
                    Sender::remote(writer, sizes, self.cell.clone(), uid.clone(), info.feedback)
                }
            })
        })
        .collect()
    }

    /// The receiving ends of an edge that ends in this vertex: one for each producer that reaches it.
    pub(crate) fn receivers<T: Data>(&self, edge: u32) -> Result<Vec<Receiver<T>>, TaskFailure> {
        let info = self.edge(edge)?;
        let me = self.subtask.index;
        let (producers, consumers) = (self.parallelism_of(info.from), self.parallelism_of(info.to));
        let from = info.partitioner.producers_of(me, producers, consumers);
        let (sizes, inputs) = (self.attempt.sizes, &self.cell.metrics().inputs);
        from.map(|index| {
            let key = (edge, index, me);
            Ok(match self.distance(SubtaskId { vertex: info.from, index }, self.subtask)? {
                Distance::Slot => {
                    let queue = self.slot.queues.queue(key, sizes.depth).map_err(wrong)?;
                    inputs.other(queue.borrow().waiting.clone());
                    Receiver::queue(queue)
                }
                Distance::Process => {
                    let (r, signals) = self.attempt.wiring.reader(key, sizes.depth).map_err(wrong)?;
                    let _ = signals.reader.set(self.slot.signal.clone());
                    inputs.ring(signals.passed.clone());
                    Receiver::ring(r.data, r.spare, signals)
                }
                Distance::Remote => {
                    let descriptor = self.attempt.descriptors.lock().get(&(edge, index)).cloned().ok_or_else(|| {
                        wrong(format!("the deployment has no descriptor for edge {edge}, producer {index}"))
                    })?;
                    let id = self.channel_id(edge, index, me);
                    let reader = self.attempt.shuffle.open_reader(id, &ShuffleDescriptor(descriptor), self.waker());
                    let reader = reader.map_err(|e| unopened(&e))?;
                    inputs.other(reader.waiting());
                    Receiver::remote(reader, self.cell.clone())
                }
            })
        })
        .collect()
    }
}

/// What an operator, a source or a sink is opened with.
pub struct OpCx<'a> {
    /// The operator's uid.
    pub uid: Arc<str>,
    /// Index of this subtask.
    pub subtask: u32,
    /// Number of subtasks.
    pub parallelism: u32,
    /// Number of key groups.
    pub max_parallelism: u32,
    /// Its place in the vertex.
    pub(crate) index: u32,
    pub(crate) build: &'a BuildCx,
}

impl OpCx<'_> {
    /// All parts of this operator's state with the subtask that wrote each: a keyed operator takes its key groups from
    /// all of them, so that rescaling is nothing special.
    pub fn restored(&self) -> impl Iterator<Item = (u32, &[u8])> {
        let all = self.build.attempt.restore.iter();
        all.filter(|((uid, _), _)| **uid == *self.uid).map(|((_, i), state)| (*i, &state[..]))
    }

    /// The same, decoded.
    pub(crate) fn saved<S: Data>(&self) -> Result<Vec<(u32, S)>, TaskFailure> {
        let one = |(writer, part)| {
            let failure = |e| {
                self.failure(FailureKind::Storage, format!("the state that subtask {writer} wrote cannot be read: {e}"))
            };
            Ok((writer, codec::decode(part).map_err(failure)?))
        };
        self.restored().map(one).collect()
    }

    /// Does this attempt begin with a snapshot?
    pub fn is_restored(&self) -> bool {
        !self.build.attempt.restore.is_empty()
    }

    /// Is this subtask the owner of keys with this hash?
    pub fn owns(&self, hash: u64) -> bool {
        subtask_of(key_group(hash, self.max_parallelism), self.parallelism, self.max_parallelism) == self.subtask
    }

    /// In a coordinator: number of its readers.
    pub fn readers(&self) -> u32 {
        let edges = &self.build.attempt.plan.graph().edges;
        let mut mine = edges.iter().filter(|e| e.from == self.build.subtask.vertex && !e.feedback);
        mine.next().map_or(1, |e| self.build.parallelism_of(e.to))
    }

    /// Does the job give final results only?
    pub fn is_batch(&self) -> bool {
        self.build.is_batch()
    }

    /// Does every source of the job end?
    pub fn is_bounded(&self) -> bool {
        self.build.attempt.plan.graph().bounded
    }

    /// Of which job.
    pub fn job(&self) -> JobId {
        self.build.attempt.job
    }

    /// Under which attempt.
    pub fn attempt(&self) -> Attempt {
        self.build.attempt.attempt
    }

    /// Clock, tasks and sockets.
    pub fn env(&self) -> &Env {
        &self.build.attempt.env
    }

    /// A path of the program: relative ones start in the folder that the client was started in.
    pub fn path(&self, path: &Path) -> PathBuf {
        self.build.attempt.client_dir.join(path)
    }

    /// A folder for files that may go when the host ends.
    pub fn scratch(&self) -> &Path {
        &self.build.attempt.scratch
    }

    /// Longest record that may be sent.
    pub fn max_record(&self) -> usize {
        self.build.attempt.sizes.max_record
    }

    /// Wakes this task's slot; for work that arrives from elsewhere.
    pub fn waker(&self) -> Waker {
        self.build.waker()
    }

    /// Has the attempt been cancelled?
    pub fn is_cancelled(&self) -> bool {
        self.build.attempt.cancelled.load(Ordering::Relaxed)
    }

    /// Where failures go that have no `Result` to go by.
    pub fn cell(&self) -> Rc<TaskCell> {
        self.build.cell.clone()
    }

    /// A failure of this operator.
    pub fn failure(&self, kind: FailureKind, message: impl Into<String>) -> TaskFailure {
        TaskFailure { uid: Some(self.uid.to_string()), ..TaskFailure::new(kind, message) }
    }
}
