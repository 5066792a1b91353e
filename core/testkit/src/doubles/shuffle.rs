//! A shuffle between hosts of one process: bounded queues in one table, without a byte on a wire.

use crate::suites::shuffle::ShuffleFixture;
use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    task::Waker,
    time::Duration,
};
use thalweg_env::Env;
use thalweg_model::{Attempt, HostPlace, JobId, RegionAttempt};
use thalweg_spi::{
    ChannelId, ChannelReader, ChannelWriter, EnvironmentSetup, ErrorKind, Parcel, ParcelKind, PartitionId, Result,
    ServiceError, Shuffle, ShuffleCapabilities, ShuffleDescriptor, ShuffleEnvironment, ShuffleMaster,
};

/// Bytes that one channel holds before its writer waits; one parcel is always taken.
const WINDOW: usize = 64 * 1024;
/// Counted for each parcel beside its body.
const OVERHEAD: usize = 16;
/// How long a reader waits for its writer.
const PATIENCE: Duration = Duration::from_millis(500);

/// All hosts and channels; each clone is another process's handle.
#[derive(Clone, Default)]
pub struct MemoryShuffle {
    table: Arc<Mutex<Table>>,
}

#[derive(Default)]
struct Table {
    hosts: BTreeMap<String, HostEntry>,
    channels: BTreeMap<ChannelId, Channel>,
    counter: u64,
}

struct HostEntry {
    secret: Bytes,
    max_parcel: usize,
    /// By region: this attempt and lower ones.
    released: BTreeMap<u32, Attempt>,
    out: u64,
    into: u64,
}

/// One end of a channel.
#[derive(Default)]
struct End {
    host: String,
    waker: Option<Waker>,
    failure: Option<(ErrorKind, String)>,
}

impl End {
    fn wake(&self) {
        self.waker.iter().for_each(Waker::wake_by_ref);
    }

    fn fail(&mut self, kind: ErrorKind, text: &str) {
        self.failure.get_or_insert_with(|| (kind, text.to_owned()));
        self.wake();
    }

    fn check(&self, operation: &'static str) -> Result<()> {
        match &self.failure {
            Some((kind, text)) => Err(ServiceError::new(*kind, operation, text.clone())),
            None => Ok(()),
        }
    }
}

#[derive(Default)]
struct Channel {
    queue: VecDeque<Parcel>,
    bytes: usize,
    writer: Option<End>,
    reader: Option<End>,
    /// `End` was sent: the writer may go.
    ended: bool,
    /// A writer that went before its reader came.
    gone: Option<String>,
}

fn cost(parcel: &Parcel) -> usize {
    parcel.body.len() + OVERHEAD
}

/// One host's side.
struct MemoryEnvironment {
    shuffle: MemoryShuffle,
    env: Env,
    address: String,
    job: JobId,
}

impl MemoryEnvironment {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.shuffle.table.lock()
    }

    fn refuse(&self, table: &Table, channel: ChannelId, operation: &'static str) -> Result<()> {
        let PartitionId { region, attempt, .. } = channel.partition;
        match table.hosts.get(&self.address) {
            Some(host) if host.released.get(&region).is_none_or(|r| attempt > *r) => Ok(()),
            _ => Err(ServiceError::new(ErrorKind::Closed, operation, "the attempt was released")),
        }
    }

    /// This host's process is gone, or has only released an attempt.
    fn close(table: &mut Table, address: &str, over: impl Fn(&ChannelId) -> bool, text: &str, dead: bool) {
        for (_, channel) in table.channels.iter_mut().filter(|(id, _)| over(id)) {
            let (ours_reads, ours_writes) = (
                channel.reader.as_ref().is_some_and(|e| e.host == address),
                channel.writer.as_ref().is_some_and(|e| e.host == address),
            );
            if ours_reads && !dead {
                channel.queue.clear();
                channel.bytes = 0;
            }
            if let Some(reader) = channel.reader.as_mut().filter(|_| ours_reads || (ours_writes && !channel.ended)) {
                reader.fail(ErrorKind::Closed, text);
            }
            if let Some(writer) = channel.writer.as_mut().filter(|_| ours_reads || ours_writes) {
                writer.fail(ErrorKind::Closed, text);
            }
        }
    }
}

impl Shuffle for MemoryShuffle {
    fn capabilities(&self) -> ShuffleCapabilities {
        ShuffleCapabilities { between_processes: true, between_hosts: false }
    }

    fn master(&self) -> Arc<dyn ShuffleMaster> {
        Arc::new(self.clone())
    }

    fn environment(&self, setup: EnvironmentSetup) -> Result<Arc<dyn ShuffleEnvironment>> {
        let mut table = self.table.lock();
        table.counter += 1;
        let address = format!("memory:host-{}", table.counter);
        let EnvironmentSetup { secret, max_parcel, job, .. } = setup;
        let entry = HostEntry { secret, max_parcel, released: BTreeMap::new(), out: 0, into: 0 };
        table.hosts.insert(address.clone(), entry);
        let env = Env::in_process(tokio::runtime::Handle::current());
        Ok(Arc::new(MemoryEnvironment { shuffle: self.clone(), env, address, job }))
    }
}

#[async_trait]
impl ShuffleMaster for MemoryShuffle {
    async fn register(&self, _: PartitionId, producer: &HostPlace) -> Result<ShuffleDescriptor> {
        let nowhere = "the in-memory shuffle cannot carry the edge: the producer's host is nowhere";
        let error = || ServiceError::new(ErrorKind::Unsupported, "register partition", nowhere);
        let address = producer.data_address.as_ref().ok_or_else(error)?;
        Ok(ShuffleDescriptor(Bytes::copy_from_slice(address.as_bytes())))
    }

    async fn release(&self, _: JobId, _: RegionAttempt) -> Result<()> {
        Ok(())
    }
}

impl ShuffleEnvironment for MemoryEnvironment {
    fn data_address(&self) -> Option<String> {
        Some(self.address.clone())
    }

    fn open_writer(&self, id: ChannelId, waker: Waker) -> Result<Box<dyn ChannelWriter>> {
        let mut table = self.table();
        self.refuse(&table, id, "open writer")?;
        let channel = table.channels.entry(id).or_default();
        if channel.writer.is_some() {
            return Err(ServiceError::new(ErrorKind::AlreadyExists, "open writer", "the channel has a writer"));
        }
        channel.writer = Some(End { host: self.address.clone(), waker: Some(waker), failure: None });
        channel.reader.iter().for_each(End::wake);
        Ok(Box::new(Writer { shuffle: self.shuffle.clone(), host: self.address.clone(), id }))
    }

    fn open_reader(&self, id: ChannelId, at: &ShuffleDescriptor, waker: Waker) -> Result<Box<dyn ChannelReader>> {
        let mut table = self.table();
        self.refuse(&table, id, "open reader")?;
        let producer = String::from_utf8_lossy(&at.0).into_owned();
        let own = table.hosts.get(&self.address).map(|h| h.secret.clone());
        let there = table.hosts.get(&producer).map(|h| h.secret.clone());
        let channel = table.channels.entry(id).or_default();
        // A reader that is refused keeps its refusal to itself: the channel may have another.
        let refusal = if there.is_none() {
            Some((ErrorKind::Unavailable, format!("host {producer} cannot be reached")))
        } else if there != own {
            Some((ErrorKind::PermissionDenied, format!("host {producer} was not shown its secret")))
        } else if channel.reader.is_some() {
            Some((ErrorKind::Closed, "the channel has a reader already".to_owned()))
        } else {
            None
        };
        let accepted = refusal.is_none();
        if accepted {
            channel.reader = Some(End { host: self.address.clone(), waker: Some(waker.clone()), failure: None });
            channel.writer.iter().for_each(End::wake);
            let (clock, shuffle) = (self.env.clock.clone(), self.shuffle.clone());
            self.env.spawner.spawn("memory-shuffle", async move {
                clock.sleep(PATIENCE).await;
                let mut table = shuffle.table.lock();
                let Some(channel) = table.channels.get_mut(&id) else { return };
                if let (None, false, Some(reader)) = (&channel.writer, channel.ended, &mut channel.reader) {
                    reader.fail(ErrorKind::Closed, "the producer did not offer the channel");
                }
            });
        }
        Ok(Box::new(Reader { shuffle: self.shuffle.clone(), host: self.address.clone(), id, refusal, finished: false }))
    }

    fn release(&self, job: JobId, RegionAttempt { region, attempt }: RegionAttempt) {
        if job != self.job {
            return;
        }
        let mut table = self.table();
        if let Some(host) = table.hosts.get_mut(&self.address) {
            let released = host.released.entry(region).or_insert(attempt);
            *released = attempt.max(*released);
        }
        let over = |id: &ChannelId| id.partition.region == region && id.partition.attempt <= attempt;
        Self::close(&mut table, &self.address, over, "the attempt was released", false);
    }

    fn traffic(&self) -> (u64, u64) {
        self.table().hosts.get(&self.address).map_or((0, 0), |h| (h.out, h.into))
    }

    fn memory_in_use(&self) -> usize {
        let table = self.table();
        let ours = |c: &&Channel| c.reader.as_ref().is_some_and(|r| r.host == self.address);
        table.channels.values().filter(ours).map(|c| c.bytes).sum()
    }
}

struct Writer {
    shuffle: MemoryShuffle,
    host: String,
    id: ChannelId,
}

impl ChannelWriter for Writer {
    fn try_send(&mut self, parcel: Parcel) -> Result<Option<Parcel>> {
        let mut table = self.shuffle.table.lock();
        let longest = table.hosts.get(&self.host).map_or(0, |h| h.max_parcel);
        let Some(channel) = table.channels.get_mut(&self.id) else { return Ok(Some(parcel)) };
        channel.writer.as_ref().map_or(Ok(()), |end| end.check("send parcel"))?;
        if parcel.body.len() > longest {
            return Err(ServiceError::new(ErrorKind::TooLarge, "send parcel", format!("longer than {longest}")));
        }
        if channel.reader.is_none() || (channel.bytes > 0 && channel.bytes + cost(&parcel) > WINDOW) {
            return Ok(Some(parcel));
        }
        let bytes = cost(&parcel) as u64;
        channel.bytes += cost(&parcel);
        channel.ended |= parcel.kind == ParcelKind::End;
        channel.queue.push_back(parcel);
        channel.reader.iter().for_each(End::wake);
        let to = channel.reader.as_ref().map(|r| r.host.clone()).unwrap_or_default();
        table.hosts.entry(self.host.clone()).and_modify(|h| h.out += bytes);
        table.hosts.entry(to).and_modify(|h| h.into += bytes);
        Ok(None)
    }

    fn is_drained(&mut self) -> Result<bool> {
        let table = self.shuffle.table.lock();
        let end = table.channels.get(&self.id).and_then(|c| c.writer.as_ref());
        end.map_or(Ok(()), |end| end.check("drain channel"))?;
        // What was taken is in the reader's process.
        Ok(true)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let mut table = self.shuffle.table.lock();
        let Some(channel) = table.channels.get_mut(&self.id) else { return };
        channel.writer = None;
        if !channel.ended {
            let cause = "the writer ended without an end of its data";
            match &mut channel.reader {
                Some(reader) => reader.fail(ErrorKind::Closed, cause),
                None => channel.gone = Some(cause.into()),
            }
        }
    }
}

struct Reader {
    shuffle: MemoryShuffle,
    host: String,
    id: ChannelId,
    refusal: Option<(ErrorKind, String)>,
    finished: bool,
}

impl ChannelReader for Reader {
    fn try_recv(&mut self) -> Result<Option<Parcel>> {
        if let Some((kind, text)) = &self.refusal {
            return Err(ServiceError::new(*kind, "receive parcel", text.clone()));
        }
        let mut table = self.shuffle.table.lock();
        let Some(channel) = table.channels.get_mut(&self.id).filter(|_| !self.finished) else { return Ok(None) };
        if let Some(parcel) = channel.queue.pop_front() {
            channel.bytes -= cost(&parcel);
            self.finished = parcel.kind == ParcelKind::End;
            channel.writer.iter().for_each(End::wake);
            return Ok(Some(parcel));
        }
        if let Some(cause) = &channel.gone {
            return Err(ServiceError::new(ErrorKind::Closed, "receive parcel", cause.clone()));
        }
        channel.reader.as_ref().map_or(Ok(None), |end| end.check("receive parcel").map(|()| None))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut table = self.shuffle.table.lock();
        let Some(channel) = table.channels.get_mut(&self.id) else { return };
        if self.refusal.is_some() || channel.reader.as_ref().is_none_or(|r| r.host != self.host) {
            return;
        }
        channel.reader = None;
        (channel.queue, channel.bytes) = (VecDeque::new(), 0);
        if let (false, Some(writer)) = (self.finished, &mut channel.writer) {
            writer.fail(ErrorKind::Closed, "the reader is gone");
        }
    }
}

/// The double as a fixture.
#[derive(Default)]
pub struct MemoryShuffleFixture {
    shuffle: MemoryShuffle,
}

#[async_trait]
impl ShuffleFixture for MemoryShuffleFixture {
    async fn open(&self) -> Result<Arc<dyn Shuffle>> {
        Ok(Arc::new(self.shuffle.clone()))
    }

    fn setup(&self, memory: usize) -> EnvironmentSetup {
        let (job, bind, secret) = (JobId::from_bytes([3; 16]), "memory:any".to_owned(), Bytes::from_static(b"secret"));
        EnvironmentSetup { job, bind, secret, memory, max_parcel: 150_000 }
    }

    async fn crash(&self, environment: Arc<dyn ShuffleEnvironment>) -> bool {
        let address = environment.data_address().unwrap_or_default();
        let mut table = self.shuffle.table.lock();
        table.hosts.remove(&address);
        let text = format!("host {address} has died");
        MemoryEnvironment::close(&mut table, &address, |_| true, &text, true);
        true
    }

    fn patience(&self) -> Duration {
        PATIENCE
    }
}
