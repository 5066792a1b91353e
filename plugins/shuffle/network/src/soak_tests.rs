//! Many channels between two hosts through a proxy that cuts connections, changes bits, drops bytes or falls silent, at
//! moments drawn from a seed. Each round ends with the same questions: was the reader of each channel told why, did it get
//! what was sent up to there and nothing behind it, was the writer told, is anything held or granted that nobody has, and
//! do new channels work?
//!
//! `THALWEG_CASES=n` for more rounds, `THALWEG_SEED=n` replays one.

#![allow(clippy::unwrap_used, reason = "test code")]

mod proxy;

use crate::{Compression, NetworkConfig, environment::NetworkEnvironment};
use bytes::Bytes;
use proxy::{Fault, Plan, Proxy};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Wake, Waker},
    time::Duration,
};
use thalweg_env::{Clock, Env, Shutdown, SystemClock, timeout};
use thalweg_model::{Attempt, Epoch, JobId, RegionAttempt};
use thalweg_spi::{
    ChannelId, ChannelReader, ChannelWriter, EnvironmentSetup, ErrorKind, Parcel, ParcelKind, PartitionId, Result,
    ServiceError, ShuffleDescriptor, ShuffleEnvironment, TimeSpan,
};
use thalweg_testkit::eventually;
use tokio::sync::Notify;

const JOB: JobId = JobId::from_bytes([5; 16]);
const MAX_PARCEL: usize = 200_000;
/// Silence that is believed.
const SILENCE: Duration = Duration::from_millis(400);
/// Everybody must know by then.
const BOUND: Duration = Duration::from_secs(10);
/// Both first frames together are not longer: a fault behind them meets frames with checksums.
const HANDSHAKE: usize = 400;

/// A slot thread's stand-in.
#[derive(Default)]
struct Signal(Notify);

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.0.notify_one();
    }
}

impl Signal {
    fn waker(self: &Arc<Self>) -> Waker {
        self.clone().into()
    }

    async fn woken(&self, who: &str) {
        let woken = timeout(&SystemClock::new(), BOUND, self.0.notified()).await;
        assert!(woken.is_ok(), "{who} hangs: no wake within {BOUND:?}");
    }
}

/// What one channel is to carry.
#[derive(Clone, Copy)]
struct Load {
    seed: u64,
    id: ChannelId,
    parcels: u32,
    longest: usize,
    slow: bool,
    /// Its reader takes no more than so many, as one whose task was cancelled.
    takes: u32,
}

impl Load {
    /// The n-th parcel: from the seed, so that the reader knows it too.
    fn parcel(&self, n: u32) -> Parcel {
        if n == self.parcels {
            return Parcel { kind: ParcelKind::End, body: Bytes::new() };
        }
        let mut random = SmallRng::seed_from_u64(self.seed ^ (u64::from(self.id.consumer) << 32) ^ u64::from(n));
        let shorter = random.random_range(0..8);
        let length = random.random_range(0..=self.longest >> shorter);
        let mut body = vec![n as u8; length];
        random.fill(&mut body[length / 2..]);
        let kind = if n % 10 == 9 { ParcelKind::Mark } else { ParcelKind::Batch };
        Parcel { kind, body: body.into() }
    }
}

/// How an end of a channel ended. It is kept open: nobody must be told by its going.
struct Reading {
    _end: Box<dyn ChannelReader>,
    got: u32,
    error: Option<ServiceError>,
}

async fn read(load: Load, mut end: Box<dyn ChannelReader>, signal: Arc<Signal>) -> Reading {
    let mut got = 0;
    loop {
        if got == load.takes {
            return Reading { _end: end, got, error: None };
        }
        match end.try_recv() {
            Ok(Some(parcel)) => {
                assert!(parcel == load.parcel(got), "parcel {got} of {:?} is another", load.id);
                if parcel.kind == ParcelKind::End {
                    return Reading { _end: end, got, error: None };
                }
                got += 1;
                if load.slow && got % 4 == 0 {
                    SystemClock::new().sleep(Duration::from_millis(1)).await;
                }
            }
            Ok(None) => {
                signal.woken(&format!("the reader of {} behind {got} of {}", load.id.consumer, load.parcels)).await
            }
            Err(error) => {
                assert_eq!(end.try_recv().map_err(|e| e.to_string()), Err(error.to_string()), "it says so for ever");
                return Reading { _end: end, got, error: Some(error) };
            }
        }
    }
}

struct Writing {
    _end: Box<dyn ChannelWriter>,
    error: Option<ServiceError>,
    /// Nobody read it, and then all was over.
    unread: bool,
}

async fn write(load: Load, mut end: Box<dyn ChannelWriter>, signal: Arc<Signal>, over: Shutdown) -> Writing {
    let mut sent = 0;
    let end_of = |end: &mut Box<dyn ChannelWriter>, sent: &mut u32| -> Result<bool> {
        while *sent <= load.parcels {
            if end.try_send(load.parcel(*sent))?.is_some() {
                return Ok(false);
            }
            *sent += 1;
        }
        end.is_drained()
    };
    loop {
        match end_of(&mut end, &mut sent) {
            Ok(true) => return Writing { _end: end, error: None, unread: false },
            Ok(false) if sent == 0 || load.takes < load.parcels => tokio::select! {
                () = over.triggered() => return Writing { _end: end, error: None, unread: true },
                () = signal.0.notified() => {}
            },
            Ok(false) => {
                let who = format!("the writer of {} behind {sent} of {}", load.id.consumer, load.parcels);
                signal.woken(&who).await;
            }
            Err(error) => return Writing { _end: end, error: Some(error), unread: false },
        }
    }
}

struct Host(NetworkEnvironment);

impl Host {
    fn new(proxy: Arc<Proxy>, memory: usize, compression: Compression) -> Self {
        let config = NetworkConfig {
            compression,
            silence_timeout: TimeSpan::from_millis(SILENCE.as_millis() as u64),
            connect_timeout: TimeSpan::from_millis(1000),
            partition_timeout: TimeSpan::from_millis(2000),
            ..NetworkConfig::default()
        };
        let env = Env { network: proxy, ..Env::system(tokio::runtime::Handle::current()) };
        let (bind, secret) = ("tcp://127.0.0.1:0".to_owned(), Bytes::from_static(b"secret"));
        let setup = EnvironmentSetup { job: JOB, bind, secret, memory, max_parcel: MAX_PARCEL };
        Self(NetworkEnvironment::open(&config, env, Shutdown::new(), setup).unwrap())
    }

    fn address(&self) -> String {
        self.0.data_address().unwrap()
    }

    /// All that there is to hold is held by nobody.
    fn is_clean(&self) -> std::result::Result<(), String> {
        let shared = &self.0.shared;
        let accounts = shared.budget.in_use();
        let tables = shared.state.lock().sizes();
        let memory = self.0.memory_in_use();
        if accounts == (0, 0) && tables == [0; 4] && memory == 0 {
            return Ok(());
        }
        Err(format!("granted and readers {accounts:?}, tables {tables:?}, {memory} bytes held"))
    }
}

fn channel(n: u32, attempt: u32) -> ChannelId {
    let attempt = Attempt { epoch: Epoch(1), n: attempt };
    ChannelId { partition: PartitionId { job: JOB, region: 0, attempt, edge: 3, producer: n }, consumer: n }
}

/// Channels from one host to the other and back, until each end has ended.
async fn carry(hosts: &[Host; 2], loads: &[Load]) -> Vec<(Reading, Writing)> {
    let over = Shutdown::new();
    let (mut readers, mut writers) = (Vec::new(), Vec::new());
    for load in loads {
        let from = load.id.consumer as usize % 2;
        let (to_read, to_write) = (Arc::new(Signal::default()), Arc::new(Signal::default()));
        let descriptor = ShuffleDescriptor(hosts[from].address().into_bytes().into());
        let writer = hosts[from].0.open_writer(load.id, to_write.waker()).unwrap();
        let reader = hosts[1 - from].0.open_reader(load.id, &descriptor, to_read.waker()).unwrap();
        readers.push(read(*load, reader, to_read));
        writers.push(write(*load, writer, to_write, over.clone()));
    }
    let all_read = async {
        let readings = futures::future::join_all(readers).await;
        // Who has not been asked by now will not be.
        over.trigger();
        readings
    };
    let (readings, writings) = tokio::join!(all_read, futures::future::join_all(writers));
    readings.into_iter().zip(writings).collect()
}

fn plan(random: &mut SmallRng) -> Plan {
    let fault = match random.random_range(0..12) {
        0..2 => Fault::Close,
        2 => Fault::Reset,
        3 => Fault::HalfClose,
        4..8 => Fault::Flip,
        8 => Fault::Drop(random.random_range(1..2000)),
        9 => Fault::Double(random.random_range(1..2000)),
        10 => Fault::Silence { both: random.random() },
        _ => Fault::None,
    };
    // Early ones are as frequent as late ones: the first bytes are the most particular.
    let size = random.random_range(5..20);
    Plan { fault, forth: random.random(), at: random.random_range(0..1 << size) }
}

/// Answers what happened, for the count.
async fn round(seed: u64) -> String {
    let mut random = SmallRng::seed_from_u64(seed);
    let plan = plan(&mut random);
    let proxy = Arc::new(Proxy::new(plan));
    let memory = [128 << 10, 512 << 10, 4 << 20][random.random_range(0..3)];
    let compression = if random.random() { Compression::Lz4 } else { Compression::None };
    let hosts = [(); 2].map(|()| Host::new(proxy.clone(), memory, compression));
    let longest = if random.random_range(0..4) == 0 { MAX_PARCEL } else { 32 * 1024 };
    let loads: Vec<Load> = (0..random.random_range(4..32))
        .map(|n| {
            let (parcels, slow) = (random.random_range(1..60), random.random_range(0..3) == 0);
            let takes = if random.random_range(0..8) == 0 { random.random_range(0..parcels) } else { u32::MAX };
            Load { seed, id: channel(n, 0), parcels, longest, slow, takes }
        })
        .collect();
    println!("seed {seed}: {plan:?}, memory {memory}, {compression:?}, {} channels up to {longest} bytes", loads.len());
    let ends = carry(&hosts, &loads).await;
    let mut failed = 0;
    for (load, (reading, writing)) in loads.iter().zip(&ends) {
        let (from, to) = (load.id.consumer as usize % 2, 1 - load.id.consumer as usize % 2);
        match &reading.error {
            None => assert_eq!(reading.got, load.parcels.min(load.takes), "an end before the end"),
            Some(error) => {
                failed += 1;
                is_defined(error, &hosts[from], plan);
            }
        }
        if let Some(error) = &writing.error {
            is_defined(error, &hosts[to], plan);
        }
        let why = load.takes < load.parcels || (reading.error.is_some() && reading.got == 0);
        assert!(!writing.unread || why, "{:?}", load.id);
    }
    let harmless = plan.fault == Fault::None || !proxy.has_struck();
    assert!(!harmless || failed == 0, "{failed} channels failed and nothing was done to them");
    drop(ends);
    let first = RegionAttempt { region: 0, attempt: channel(0, 0).partition.attempt };
    hosts.iter().for_each(|host| host.0.release(JOB, first));
    for host in &hosts {
        eventually("nothing is held or granted", BOUND, || async { host.is_clean().ok() }).await;
    }
    proxy.over();
    // What came too late to matter is seen, too, before the next attempt would meet it. (Two hosts that dialed each other
    // may have a second connection by now, and that one stays.)
    let clock = SystemClock::new();
    let until = clock.now() + 4 * SILENCE;
    let connected = |host: &Host| !host.0.shared.state.lock().peers.is_empty();
    while !harmless && clock.now() < until && hosts.iter().any(connected) {
        clock.sleep(Duration::from_millis(5)).await;
    }
    let again: Vec<Load> =
        (0..6).map(|n| Load { id: channel(n, 1), parcels: 20, takes: u32::MAX, ..loads[0] }).collect();
    for (reading, writing) in carry(&hosts, &again).await {
        let errors = (reading.error.map(|e| e.to_string()), writing.error.map(|e| e.to_string()));
        assert_eq!((errors, reading.got), ((None, None), 20), "the next attempt does not work");
    }
    let what = if harmless { "none".to_owned() } else { format!("{:?}", plan.fault) };
    what.split(['(', ' ']).next().unwrap_or_default().to_owned()
        + if harmless {
            ""
        } else if failed > 0 {
            ", told"
        } else {
            ", too late to matter"
        }
}

/// Does the error name the other host, the channel, and what was done?
fn is_defined(error: &ServiceError, other: &Host, plan: Plan) {
    let text = error.to_string();
    let kinds = [ErrorKind::Closed, ErrorKind::Damaged, ErrorKind::Timeout, ErrorKind::Unavailable];
    assert!(kinds.contains(&error.kind()), "{text}");
    assert!(text.contains(&other.address()), "it does not name {}: {text}", other.address());
    assert!(text.contains("edge=3") && text.contains("channel="), "{text}");
    if plan.at < HANDSHAKE {
        return;
    }
    let causes: &[&str] = match plan.fault {
        Fault::Flip | Fault::Drop(_) | Fault::Double(_) => &["was damaged on its way"],
        Fault::Silence { .. } => &["nothing was heard of host"],
        // What a reset overtakes is lost, and that may be the first frame.
        Fault::Reset => &["has closed the connection", "was lost", "broke off within", "or the connection was cut"],
        Fault::Close | Fault::HalfClose => &["has closed the connection", "was lost", "broke off within"],
        Fault::None => &[],
    };
    // A host that knows already may be back before the other one knows.
    let causes = [causes, &["has lost this connection and made another"]].concat();
    assert!(causes.iter().any(|cause| text.contains(cause)), "{:?} is not told: {text}", plan.fault);
}

#[test]
fn a_cut_a_changed_bit_and_silence_are_told_at_both_ends_and_nothing_leaks() {
    let seed = std::env::var("THALWEG_SEED").ok().map(|s| s.parse::<u64>().unwrap());
    let cases = std::env::var("THALWEG_CASES").ok().map_or(60, |n| n.parse().unwrap());
    let seeds: Vec<u64> = seed.map_or_else(|| (0..cases).collect(), |seed| vec![seed]);
    let next = AtomicUsize::new(0);
    let counts = parking_lot::Mutex::new(BTreeMap::<String, usize>::new());
    let failed = AtomicBool::new(false);
    let work = || {
        while let Some(&seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) {
            let run = || {
                let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
                let runtime = runtime.unwrap();
                let what = runtime.block_on(round(seed));
                runtime.shutdown_background();
                *counts.lock().entry(what).or_default() += 1;
            };
            if std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err() {
                eprintln!("THALWEG_SEED={seed}");
                failed.store(true, Ordering::Relaxed);
                return;
            }
        }
    };
    std::thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(work))));
    println!("{} rounds: {:?}", seeds.len(), counts.lock());
    assert!(!failed.load(Ordering::Relaxed), "see above for the seed");
}
