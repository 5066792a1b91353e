//! Two hosts in one process: a shuffle in memory with little credit, and a driver of several engines.

use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    path::PathBuf,
    sync::Arc,
    task::Waker,
    time::Duration,
};
use thalweg_dataflow::{
    Engine, EngineSetup, Plan,
    testing::{FIRST, Reports, TestRuntime},
};
use thalweg_model::{
    Attempt, ExecutionState, HostPlace, JobId, Placement, RegionAttempt, Regions, SubtaskId, SubtaskPlace,
    TaskManagerId, VertexRole,
};
use thalweg_spi::{
    ChannelId, ChannelReader, ChannelWriter, ErrorKind, Parcel, ParcelKind, Result, ServiceError, ShuffleDescriptor,
    ShuffleEnvironment,
};
use thalweg_wire::{Deploy, Descriptor, TaskDeployment};

#[derive(Default)]
struct Pipe {
    parcels: VecDeque<Parcel>,
    bytes: usize,
    ended: bool,
    writer_gone: bool,
    reader_gone: bool,
    released: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// A shuffle whose channels hold at most `credit` bytes, or one parcel.
#[derive(Clone)]
pub(crate) struct MemoryShuffle {
    pipes: Arc<Mutex<HashMap<ChannelId, Arc<Mutex<Pipe>>>>>,
    credit: usize,
    bytes: Arc<Mutex<u64>>,
    hesitates: bool,
}

impl MemoryShuffle {
    pub(crate) fn new(credit: usize) -> Self {
        Self { pipes: Arc::default(), credit, bytes: Arc::default(), hesitates: false }
    }
    /// One that has room for a request only when it was given some times.
    pub(crate) fn hesitant(credit: usize) -> Self {
        Self { hesitates: true, ..Self::new(credit) }
    }
    /// Writers of this edge that have been opened.
    pub(crate) fn offered(&self, edge: u32) -> usize {
        let pipes = self.pipes.lock();
        pipes.iter().filter(|(id, pipe)| id.partition.edge == edge && pipe.lock().writer.is_some()).count()
    }
    fn pipe(&self, id: ChannelId) -> Arc<Mutex<Pipe>> {
        self.pipes.lock().entry(id).or_default().clone()
    }
}

struct Writer {
    pipe: Arc<Mutex<Pipe>>,
    shuffle: MemoryShuffle,
    refused: u32,
}
struct Reader {
    pipe: Arc<Mutex<Pipe>>,
}

fn closed(what: &str) -> ServiceError {
    ServiceError::new(ErrorKind::Closed, "channel", what)
}

fn wake(waker: &Option<Waker>) {
    if let Some(w) = waker {
        w.wake_by_ref();
    }
}

impl ChannelWriter for Writer {
    fn try_send(&mut self, parcel: Parcel) -> Result<Option<Parcel>> {
        let mut p = self.pipe.lock();
        if p.released || p.reader_gone {
            return Err(closed("the reader is gone"));
        }
        if self.shuffle.hesitates && parcel.kind == ParcelKind::Request && self.refused < 4 {
            self.refused += 1;
            wake(&p.writer);
            return Ok(Some(parcel));
        }
        self.refused = 0;
        if p.bytes > 0 && p.bytes + parcel.body.len() > self.shuffle.credit {
            return Ok(Some(parcel));
        }
        p.bytes += parcel.body.len();
        *self.shuffle.bytes.lock() += parcel.body.len() as u64;
        p.ended |= parcel.kind == ParcelKind::End;
        p.parcels.push_back(parcel);
        wake(&p.reader);
        Ok(None)
    }
    fn is_drained(&mut self) -> Result<bool> {
        let p = self.pipe.lock();
        Ok(p.parcels.is_empty() || p.reader_gone)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let mut p = self.pipe.lock();
        p.writer_gone = true;
        wake(&p.reader);
    }
}

impl ChannelReader for Reader {
    fn try_recv(&mut self) -> Result<Option<Parcel>> {
        let mut p = self.pipe.lock();
        if p.released {
            return Err(closed("released"));
        }
        let parcel = p.parcels.pop_front();
        match &parcel {
            Some(parcel) => p.bytes -= parcel.body.len(),
            None if p.writer_gone && !p.ended => return Err(closed("the writer is gone")),
            None => {}
        }
        wake(&p.writer);
        Ok(parcel)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut p = self.pipe.lock();
        p.reader_gone = true;
        wake(&p.writer);
    }
}

impl ShuffleEnvironment for MemoryShuffle {
    fn data_address(&self) -> Option<String> {
        Some("memory:test".to_owned())
    }
    fn open_writer(&self, channel: ChannelId, waker: Waker) -> Result<Box<dyn ChannelWriter>> {
        let pipe = self.pipe(channel);
        pipe.lock().writer = Some(waker);
        Ok(Box::new(Writer { pipe, shuffle: self.clone(), refused: 0 }))
    }
    fn open_reader(&self, channel: ChannelId, _: &ShuffleDescriptor, waker: Waker) -> Result<Box<dyn ChannelReader>> {
        let pipe = self.pipe(channel);
        pipe.lock().reader = Some(waker);
        Ok(Box::new(Reader { pipe }))
    }
    fn release(&self, _: JobId, RegionAttempt { region, attempt }: RegionAttempt) {
        for (id, pipe) in &*self.pipes.lock() {
            if id.partition.region == region && id.partition.attempt <= attempt {
                let mut p = pipe.lock();
                p.released = true;
                wake(&p.reader);
                wake(&p.writer);
            }
        }
    }
    fn traffic(&self) -> (u64, u64) {
        (*self.bytes.lock(), *self.bytes.lock())
    }
    fn memory_in_use(&self) -> usize {
        self.pipes.lock().values().map(|p| p.lock().bytes).sum()
    }
}

/// A plan on several hosts, subtask i in slot i / hosts of host i % hosts.
pub(crate) struct Cluster {
    pub(crate) plan: Arc<Plan>,
    pub(crate) engines: Vec<Engine>,
    pub(crate) reports: Arc<Reports>,
    pub(crate) runtime: TestRuntime,
}

impl Cluster {
    pub(crate) fn new(plan: Plan, hosts: u32, dir: PathBuf) -> Self {
        Self::with(plan, hosts, dir, 2000, 1 << 20, 1 << 20)
    }

    pub(crate) fn with(plan: Plan, hosts: u32, dir: PathBuf, credit: usize, memory: usize, max_record: usize) -> Self {
        Self::changed(plan, hosts, dir, MemoryShuffle::new(credit), |setup| {
            (setup.exchange_memory, setup.max_record) = (memory, max_record);
        })
    }

    /// Hosts that something is special of.
    pub(crate) fn changed(
        plan: Plan,
        hosts: u32,
        dir: PathBuf,
        shuffle: MemoryShuffle,
        change: impl Fn(&mut EngineSetup),
    ) -> Self {
        let (plan, reports) = (Arc::new(plan), Arc::new(Reports::default()));
        let runtime = TestRuntime::new().unwrap();
        let engine = |host| {
            let mut setup = EngineSetup {
                job: JobId::from_bytes([3; 16]),
                task_manager: name(host),
                plan: plan.clone(),
                env: runtime.env.clone(),
                shuffle: Arc::new(shuffle.clone()),
                listener: reports.clone(),
                exchange_memory: 1 << 20,
                max_record: 1 << 20,
                buffer_timeout: Duration::from_millis(50),
                latency_interval: None,
                client_dir: dir.clone(),
                scratch: dir.clone(),
            };
            change(&mut setup);
            Engine::new(setup)
        };
        let engines = (0..hosts).map(engine).collect();
        Self { plan, engines, reports, runtime }
    }

    pub(crate) fn placement(&self) -> Placement {
        let hosts = self.engines.len() as u32;
        let place = |i| SubtaskPlace { host: i % hosts, slot: i / hosts };
        Placement {
            hosts: (0..hosts).map(|h| HostPlace { task_manager: name(h), data_address: None }).collect(),
            subtasks: self.plan.graph().vertices.iter().map(|v| (0..v.parallelism).map(place).collect()).collect(),
        }
    }

    pub(crate) fn deploy_to(&self, host: u32, attempt: Attempt, publish: &BTreeMap<SubtaskId, bytes::Bytes>) {
        let wanted = |s| publish.is_empty() || publish.contains_key(&s);
        self.deploy_some(host, attempt, wanted, publish);
    }

    /// Those subtasks of all hosts.
    pub(crate) fn deploy_if(&self, attempt: Attempt, wanted: impl Fn(SubtaskId) -> bool) {
        (0..self.engines.len() as u32).for_each(|h| self.deploy_some(h, attempt, &wanted, &BTreeMap::new()));
    }

    fn deploy_some(
        &self,
        host: u32,
        attempt: Attempt,
        wanted: impl Fn(SubtaskId) -> bool,
        publish: &BTreeMap<SubtaskId, bytes::Bytes>,
    ) {
        let placement = self.placement();
        let tasks = placement
            .subtasks_of(host)
            .filter(|(s, _)| wanted(*s))
            .map(|(subtask, _)| TaskDeployment { subtask, publish: publish.get(&subtask).cloned() })
            .collect();
        let descriptors = (0u32..)
            .zip(&self.plan.graph().edges)
            .flat_map(|(edge, e)| {
                let producers = 0..self.plan.graph().vertices[e.from as usize].parallelism;
                producers.map(move |producer| Descriptor { edge, producer, bytes: bytes::Bytes::new() })
            })
            .collect();
        self.engines[host as usize].deploy(Deploy { attempt, tasks, placement, descriptors });
    }

    pub(crate) fn deploy(&self, attempt: Attempt) {
        (0..self.engines.len() as u32).for_each(|h| self.deploy_to(h, attempt, &BTreeMap::new()));
    }

    pub(crate) fn committers(&self) -> Vec<SubtaskId> {
        let all = (0u32..).zip(&self.plan.graph().vertices).filter(|(_, v)| v.role == VertexRole::Committer);
        all.map(|(vertex, _)| SubtaskId { vertex, index: 0 }).collect()
    }

    pub(crate) fn count(&self, attempt: Attempt, state: ExecutionState) -> usize {
        self.reports.all().iter().filter(|r| r.attempt == attempt && r.state == state).count()
    }

    /// Waits until the committers have prepared and everything else is finished.
    pub(crate) fn wait_prepared(&self, attempt: Attempt) {
        let (subtasks, committers) = (self.plan.graph().subtasks() as usize, self.committers().len());
        assert!(self.reports.wait(|all| {
            let mine = || all.iter().filter(|r| r.attempt == attempt);
            let failed = mine().find(|r| r.state == ExecutionState::Failed);
            assert!(failed.is_none(), "{failed:?}");
            mine().filter(|r| r.prepared.is_some()).count() == committers
                && mine().filter(|r| r.state == ExecutionState::Finished).count() == subtasks - committers
        }));
    }

    pub(crate) fn wait_finished(&self, attempt: Attempt, n: usize) {
        assert!(self.reports.wait(|all| {
            let failed = all.iter().find(|r| r.state == ExecutionState::Failed && r.attempt == attempt);
            assert!(failed.is_none(), "{failed:?}");
            all.iter().filter(|r| r.attempt == attempt && r.state == ExecutionState::Finished).count() == n
        }));
    }

    /// Cancels everything on this host.
    pub(crate) fn cancel(&self, host: usize, attempt: Attempt) {
        let regions = Regions::of(self.plan.graph()).count();
        let all: Vec<_> = (0..regions).map(|region| RegionAttempt { region, attempt }).collect();
        self.engines[host].cancel(&all);
    }

    pub(crate) fn commit(&self, attempt: Attempt) {
        for c in self.committers() {
            self.engines.iter().for_each(|e| e.commit(c, attempt));
        }
    }

    pub(crate) fn stop(&self) {
        self.engines.iter().for_each(Engine::stop);
    }
}

pub(crate) fn name(host: u32) -> TaskManagerId {
    TaskManagerId::new(format!("host-{host}"))
}

pub(crate) fn attempt(n: u32) -> Attempt {
    Attempt { n, ..FIRST }
}
