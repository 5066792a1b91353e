//! Shuffle: bytes between task hosts. Queues and rings within a process are the core's own and never come here.
//!
//! ```text
//!  JobMaster                         producer's host                     consumer's host
//!  ShuffleMaster                     ShuffleEnvironment                  ShuffleEnvironment
//!    register(partition) ── descriptor, by way of the deployment ───────▶ open_reader(channel, descriptor)
//!                                    open_writer(channel) ═══ parcels ══▶   try_recv
//!                                      try_send            ◀── credit ═══
//! ```
//!
//! A *channel* goes from one producing to one consuming subtask under one attempt. One call moves one *parcel*: a batch
//! of records, a watermark, a barrier, the end, or a request on a feedback edge. The plugin never looks into it.
//!
//! The callers are slot threads, which must never wait: `try_send` and `try_recv` answer at once, and the plugin wakes
//! the given [`Waker`] when the answer may have changed.

use crate::Result;
use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::Waker,
};
use thalweg_model::{Attempt, HostPlace, JobId, RegionAttempt};

/// What a parcel is. The numbers are on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ParcelKind {
    /// Encoded records.
    Batch = 1,
    /// A watermark or idleness.
    Mark = 2,
    /// A checkpoint barrier.
    Barrier = 3,
    /// No more parcels follow. It is a parcel so that it keeps its place.
    End = 4,
    /// A request on a feedback edge.
    Request = 5,
}

impl ParcelKind {
    /// The kind with this number.
    pub fn from_u8(n: u8) -> Option<Self> {
        [Self::Batch, Self::Mark, Self::Barrier, Self::End, Self::Request].into_iter().find(|k| *k as u8 == n)
    }
}

/// One unit of transport.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parcel {
    /// What it is.
    pub kind: ParcelKind,
    /// Its content; at most `exchange.max-record` plus one batch.
    pub body: Bytes,
}

/// All that one subtask produces for one edge under one attempt of its region.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PartitionId {
    /// The job.
    pub job: JobId,
    /// The part of the job that the edge is in. Parts restart each for itself, and no channel leads from one to another.
    pub region: u32,
    /// A reader of one attempt MUST never get a parcel of another.
    pub attempt: Attempt,
    /// Index of the edge in the job graph.
    pub edge: u32,
    /// Index of the producing subtask.
    pub producer: u32,
}

impl PartitionId {
    /// Its region under its attempt: what [`ShuffleEnvironment::release`] ends.
    pub fn region_attempt(&self) -> RegionAttempt {
        RegionAttempt { region: self.region, attempt: self.attempt }
    }
}

/// The part of a partition that one subtask consumes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ChannelId {
    /// Of which partition.
    pub partition: PartitionId,
    /// Index of the consuming subtask.
    pub consumer: u32,
}

/// How a consumer finds a partition: the plugin's own bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShuffleDescriptor(pub Bytes);

/// What a shuffle plugin can do. The conformance suite chooses its optional cases by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShuffleCapabilities {
    /// It carries edges that leave a process. Without this `register` MUST refuse them by name.
    pub between_processes: bool,
    /// It carries edges that leave a machine.
    pub between_hosts: bool,
}

/// What the kind's configuration opens: both sides.
pub trait Shuffle: Send + Sync {
    /// What it can do.
    fn capabilities(&self) -> ShuffleCapabilities;
    /// The JobMaster's side.
    fn master(&self) -> Arc<dyn ShuffleMaster>;
    /// The host's side. Called at most once in a process; `setup` is what the TaskManager chose for this host.
    fn environment(&self, setup: EnvironmentSetup) -> Result<Arc<dyn ShuffleEnvironment>>;
}

/// What a host's shuffle environment starts with.
#[derive(Clone)]
pub struct EnvironmentSetup {
    /// The job of this host.
    pub job: JobId,
    /// Where to listen, as `thalweg_env::Address` text.
    pub bind: String,
    /// Known to the job's hosts alone. A connection that cannot show it MUST be closed before a parcel is read.
    pub secret: Bytes,
    /// Bytes that all channels together may hold in this process.
    pub memory: usize,
    /// Longest parcel. A longer one on the wire is damage.
    pub max_parcel: usize,
}

/// The JobMaster's side: registers partitions.
#[async_trait]
pub trait ShuffleMaster: Send + Sync {
    /// A producer will be at `producer`, and at least one of its consumers in another process.
    ///
    /// MUST be idempotent: the same partition at the same place has the same descriptor.
    /// MUST refuse, by the plugin's name, an edge that it cannot carry. May be dropped.
    async fn register(&self, partition: PartitionId, producer: &HostPlace) -> Result<ShuffleDescriptor>;
    /// Nothing of the region is needed any more under this attempt and lower ones. MUST be idempotent.
    async fn release(&self, job: JobId, region: RegionAttempt) -> Result<()>;
}

/// How many parcels wait in one end of a channel: who holds them writes it, anybody reads it at any time. It is a number to
/// look at, and nothing is decided by it.
#[derive(Debug, Clone, Default)]
pub struct Waiting(Arc<AtomicU64>);

impl Waiting {
    /// There are so many now.
    #[inline]
    pub fn set(&self, parcels: usize) {
        self.0.store(parcels as u64, Ordering::Relaxed);
    }

    /// How many there were lately.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The sending end of a channel. Dropping it without [`ParcelKind::End`] tells the reader that the writer is gone.
pub trait ChannelWriter: Send {
    /// Takes the parcel, or gives it back when there is no room; then the waker is woken when there may be.
    ///
    /// MUST NOT wait. MUST keep the order. An error is final: the reader or the connection is gone, and the error
    /// says which.
    fn try_send(&mut self, parcel: Parcel) -> Result<Option<Parcel>>;
    /// Have all parcels left this process? A task is finished only then. MUST wake the waker when this becomes true.
    fn is_drained(&mut self) -> Result<bool>;
    /// Parcels that were taken and have yet to leave this process. One that stays 0 where the plugin does not count.
    fn waiting(&self) -> Waiting {
        Waiting::default()
    }
}

/// The receiving end of a channel. Dropping it tells the writer that the reader is gone.
pub trait ChannelReader: Send {
    /// The next parcel, or `None` when there is none yet; then the waker is woken when there may be.
    ///
    /// MUST NOT wait. MUST keep the order. After [`ParcelKind::End`] it answers `None` for ever. When the writer goes
    /// without an end it MUST answer an error that names the cause, and never an end. A parcel MUST be as it was sent:
    /// what was damaged on its way is an error, since one that cannot be read is taken for a fault of the record's type.
    fn try_recv(&mut self) -> Result<Option<Parcel>>;
    /// Parcels that have arrived in this process and were not yet asked for. One that stays 0 where the plugin does not
    /// count.
    fn waiting(&self) -> Waiting {
        Waiting::default()
    }
}

/// A host's side: carries parcels between this process and others.
pub trait ShuffleEnvironment: Send + Sync {
    /// Where other hosts reach this one; `None` when the plugin carries nothing between processes.
    fn data_address(&self) -> Option<String>;

    /// The sending end of a channel that begins here. A reader may ask for it before or after.
    ///
    /// MUST bound what it holds in memory, however slow the reader is. There is one writer for each channel.
    fn open_writer(&self, channel: ChannelId, waker: Waker) -> Result<Box<dyn ChannelWriter>>;

    /// The receiving end of a channel that ends here. Never waits; a producer that cannot be reached is an error of
    /// `try_recv`, and so is one that does not offer the channel within the plugin's time-out.
    fn open_reader(
        &self,
        channel: ChannelId,
        descriptor: &ShuffleDescriptor,
        waker: Waker,
    ) -> Result<Box<dyn ChannelReader>>;

    /// Ends all channels of the region under this attempt and lower ones and frees what they hold; readers and writers
    /// that are still open get [`crate::ErrorKind::Closed`]. MUST leave other regions alone. MUST be idempotent.
    fn release(&self, job: JobId, region: RegionAttempt);

    /// Bytes (out, in) that crossed this process's border so far.
    fn traffic(&self) -> (u64, u64);

    /// Bytes that the channels hold now.
    fn memory_in_use(&self) -> usize;
}
