//! The shuffle suite: parcels between two hosts of one job.

pub mod cases;
pub mod failures;

pub use cases::*;
pub use failures::*;

use async_trait::async_trait;
use bytes::Bytes;
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Wake, Waker},
    time::Duration,
};
use thalweg_env::{SystemClock, timeout};
use thalweg_model::{Attempt, Epoch, HostPlace, JobId, TaskManagerId};
use thalweg_spi::{
    ChannelId, ChannelReader, ChannelWriter, EnvironmentSetup, Parcel, ParcelKind, PartitionId, Result, Shuffle,
    ShuffleDescriptor, ShuffleEnvironment,
};
use tokio::sync::Notify;

/// One job's shuffle, opened by as many hosts as asked.
#[async_trait]
pub trait ShuffleFixture: Send + Sync {
    /// A process opens the plugin.
    async fn open(&self) -> Result<Arc<dyn Shuffle>>;

    /// What its host starts with: free address, this job, a secret, these bytes of memory.
    fn setup(&self, memory: usize) -> EnvironmentSetup;

    /// The process of this environment dies; `false` when this cannot be done.
    async fn crash(&self, environment: Arc<dyn ShuffleEnvironment>) -> bool;

    /// Writes bytes that are no frame into a connection that the environment at this address has agreed to; `false` when
    /// this cannot be done.
    async fn damage(&self, _environment: &Arc<dyn ShuffleEnvironment>) -> bool {
        false
    }

    /// Does the plugin count what waits in its ends?
    fn counts(&self) -> bool {
        false
    }

    /// How long a reader waits for a writer that does not come.
    fn patience(&self) -> Duration {
        Duration::from_secs(1)
    }
}

/// Longest wait for anything.
const SOON: Duration = Duration::from_secs(20);
/// What the environments of most cases may hold.
const MEMORY: usize = 1 << 20;

/// One host.
struct Host {
    shuffle: Arc<dyn Shuffle>,
    environment: Arc<dyn ShuffleEnvironment>,
    max_parcel: usize,
    job: JobId,
}

impl Host {
    async fn new(fixture: &impl ShuffleFixture, memory: usize) -> Self {
        Self::with(fixture, fixture.setup(memory)).await
    }

    async fn with(fixture: &impl ShuffleFixture, setup: EnvironmentSetup) -> Self {
        let shuffle = fixture.open().await.unwrap();
        let (max_parcel, job) = (setup.max_parcel, setup.job);
        let environment = shuffle.environment(setup).unwrap();
        Self { shuffle, environment, max_parcel, job }
    }

    async fn descriptor(&self, channel: ChannelId) -> ShuffleDescriptor {
        let task_manager = TaskManagerId::new("producer");
        let place = HostPlace { task_manager, data_address: self.environment.data_address() };
        self.shuffle.master().register(channel.partition, &place).await.unwrap()
    }

    fn write(&self, channel: ChannelId) -> Sender {
        let signal = Signal::new();
        Sender { end: self.environment.open_writer(channel, signal.waker()).unwrap(), signal }
    }

    fn read(&self, channel: ChannelId, descriptor: &ShuffleDescriptor) -> Receiver {
        let signal = Signal::new();
        Receiver { end: self.environment.open_reader(channel, descriptor, signal.waker()).unwrap(), signal }
    }

    /// The channel's two ends: from this host to the other.
    async fn pipe(&self, to: &Host, channel: ChannelId) -> (Sender, Receiver) {
        let descriptor = self.descriptor(channel).await;
        (self.write(channel), to.read(channel, &descriptor))
    }
}

/// Does the fixture's plugin carry anything? Opens two hosts where it does.
async fn two_hosts(fixture: &impl ShuffleFixture, memory: usize) -> Option<(Host, Host)> {
    if !fixture.open().await.unwrap().capabilities().between_processes {
        return None;
    }
    Some((Host::new(fixture, memory).await, Host::new(fixture, memory).await))
}

fn channel(job: JobId, n: u32, attempt: u32) -> ChannelId {
    let attempt = Attempt { epoch: Epoch(1), n: attempt };
    ChannelId { partition: PartitionId { job, region: 0, attempt, edge: 0, producer: n }, consumer: n }
}

fn batch(body: impl Into<Bytes>) -> Parcel {
    Parcel { kind: ParcelKind::Batch, body: body.into() }
}

/// A quarter of it is one byte again and again and the rest is noise: a plugin that compresses has something to do, and
/// not so much that it holds nothing.
fn numbered(n: u32, len: usize) -> Parcel {
    let mut body = vec![n as u8; len.max(4)];
    let mut noise = u64::from(n) + 1;
    for byte in body.iter_mut().skip(len / 4) {
        noise ^= noise << 13;
        noise ^= noise >> 7;
        noise ^= noise << 17;
        *byte = noise as u8;
    }
    body[..4].copy_from_slice(&n.to_le_bytes());
    batch(body)
}

fn number(parcel: &Parcel) -> u32 {
    u32::from_le_bytes(*parcel.body.first_chunk().expect("a numbered parcel"))
}

fn end() -> Parcel {
    Parcel { kind: ParcelKind::End, body: Bytes::new() }
}

/// A slot thread's stand-in: counts wakes and lets a test wait for the next.
struct Signal {
    wakes: AtomicUsize,
    notify: Notify,
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.wakes.fetch_add(1, Ordering::SeqCst);
        self.notify.notify_one();
    }
}

impl Signal {
    fn new() -> Arc<Self> {
        Arc::new(Self { wakes: AtomicUsize::new(0), notify: Notify::new() })
    }

    fn waker(self: &Arc<Self>) -> Waker {
        Waker::from(self.clone())
    }

    /// Waits for a wake. Only a wake counts: an end that says *not yet* and never wakes is a stall.
    async fn woken(&self, what: &str) {
        let arrived = timeout(&SystemClock::new(), SOON, self.notify.notified()).await;
        assert!(arrived.is_ok(), "{what}: no wake within {SOON:?}");
    }
}

struct Sender {
    end: Box<dyn ChannelWriter>,
    signal: Arc<Signal>,
}

impl Sender {
    async fn send(&mut self, mut parcel: Parcel) -> Result<()> {
        loop {
            match self.end.try_send(parcel)? {
                None => return Ok(()),
                Some(back) => {
                    parcel = back;
                    self.signal.woken("the writer has no room").await;
                }
            }
        }
    }

    async fn drained(&mut self) -> Result<()> {
        while !self.end.is_drained()? {
            self.signal.woken("the writer is not drained").await;
        }
        Ok(())
    }

    /// Sends until it is refused, at most so many; answers how many were taken.
    async fn fill(&mut self, len: usize, most: u32) -> u32 {
        let clock = SystemClock::new();
        let mut taken = 0;
        while taken < most {
            match self.end.try_send(numbered(taken, len)).unwrap() {
                None => taken += 1,
                Some(_) => {
                    let more = timeout(&clock, Duration::from_millis(300), self.signal.notify.notified()).await;
                    if more.is_err() {
                        return taken;
                    }
                }
            }
        }
        taken
    }

    /// The error that it ends with, without anything being sent.
    async fn failure(&mut self) -> thalweg_spi::ServiceError {
        loop {
            match self.end.try_send(batch(&b"x"[..])) {
                Err(e) => return e,
                Ok(_) => self.signal.woken("the writer is told").await,
            }
        }
    }
}

struct Receiver {
    end: Box<dyn ChannelReader>,
    signal: Arc<Signal>,
}

impl Receiver {
    async fn recv(&mut self) -> Result<Parcel> {
        loop {
            match self.end.try_recv()? {
                Some(parcel) => return Ok(parcel),
                None => self.signal.woken("the reader has nothing").await,
            }
        }
    }

    /// All parcels up to the end, which is the last.
    async fn all(&mut self) -> Result<Vec<Parcel>> {
        let mut all = Vec::new();
        loop {
            let parcel = self.recv().await?;
            let last = parcel.kind == ParcelKind::End;
            all.push(parcel);
            if last {
                return Ok(all);
            }
        }
    }

    /// What arrives before the error, and the error. An end is a failed case.
    async fn failure(&mut self) -> (Vec<Parcel>, thalweg_spi::ServiceError) {
        let mut before = Vec::new();
        loop {
            match self.recv().await {
                Ok(parcel) => {
                    assert_ne!(parcel.kind, ParcelKind::End, "a loss must not look like an end");
                    before.push(parcel);
                }
                Err(e) => return (before, e),
            }
        }
    }
}

/// Makes each case of the shuffle suite a test: `shuffle_suite!(async || fixture)`, or
/// `shuffle_suite!(external "name", async || Option<fixture>)` where the service may not be offered.
#[macro_export]
macro_rules! shuffle_suite {
    ($open:expr) => { $crate::shuffle_suite!(external "", async || Some(($open)().await)); };
    (external $service:expr, $open:expr) => {
        $crate::shuffle_transport_cases!($service, $open);
        $crate::shuffle_failure_cases!($service, $open);
    };
}
