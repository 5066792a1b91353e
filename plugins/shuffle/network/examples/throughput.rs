//! Measures what one pair of hosts moves over loopback: `cargo run --release -p thalweg-shuffle-network --example
//! throughput -- [channels] [parcel bytes] [MiB] [rounds] [lz4]`. Slot threads are real threads that park, as the
//! core's do. Beside it, the same bytes through one plain TCP connection, written and read by two threads that do
//! nothing else. The ratio of processor time holds on a machine that has other work, too.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a measurement at the edge, with real threads and time"
)]

use bytes::Bytes;
use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Barrier},
    task::{Wake, Waker},
    thread::{self, Thread},
    time::Instant,
};
use thalweg_env::{Env, usage::cpu_nanos};
use thalweg_model::{Attempt, JobId};
use thalweg_shuffle_network::{Compression, NetworkConfig};
use thalweg_spi::{
    ChannelId, EnvironmentSetup, Parcel, ParcelKind, PartitionId, PluginConfig, ShuffleDescriptor, ShuffleEnvironment,
    kind,
};
use thalweg_testkit::Place;

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn waker() -> Waker {
    Waker::from(Arc::new(Unpark(thread::current())))
}

fn channel(n: u32) -> ChannelId {
    let partition =
        PartitionId { job: JobId::from_bytes([1; 16]), region: 0, attempt: Attempt::default(), edge: 0, producer: n };
    ChannelId { partition, consumer: 0 }
}

/// Bytes as records of words have them: lz4 makes about a third of them.
fn records(length: usize) -> Bytes {
    let mut body = Vec::with_capacity(length + 32);
    let mut random = 1u64;
    while body.len() < length {
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let word = format!("word number {}", (random >> 40) % 5000);
        body.push(word.len() as u8);
        body.extend(word.as_bytes());
        body.extend((random >> 56).to_le_bytes());
    }
    body.truncate(length);
    body.into()
}

/// A plain copy.
fn raw(body: &Bytes, times: usize) -> Took {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    let reader = thread::spawn(move || {
        let (mut from, _) = listener.accept().unwrap();
        let mut buffer = vec![0; 256 * 1024];
        while from.read(&mut buffer).unwrap() > 0 {}
    });
    let mut to = TcpStream::connect(at).unwrap();
    let (start, cpu) = (Instant::now(), cpu_nanos());
    (0..times).for_each(|_| to.write_all(body).unwrap());
    drop(to);
    reader.join().unwrap();
    Took {
        seconds: start.elapsed().as_secs_f64(),
        cpu: (cpu_nanos() - cpu) as f64 / 1e9,
        wire: (body.len() * times) as u64,
    }
}

/// What one copy took.
struct Took {
    seconds: f64,
    cpu: f64,
    wire: u64,
}

/// The same bytes through two hosts of ours.
fn ours(length: usize, channels: usize, parcels: usize, compression: Compression) -> Took {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let place = Place::new();
    let open = || {
        let _guard = runtime.enter();
        let config = NetworkConfig { compression, ..NetworkConfig::default() };
        let context = place.context_with(Env::system(runtime.handle().clone()));
        let shuffle = runtime.block_on(PluginConfig::<kind::ShuffleKind>::open(config, context));
        let (job, bind, secret) = (JobId::from_bytes([1; 16]), "tcp://127.0.0.1:0".into(), Bytes::from_static(b"s"));
        let setup = EnvironmentSetup { job, bind, secret, memory: 64 << 20, max_parcel: 16 << 20 };
        shuffle.unwrap().environment(setup).unwrap()
    };
    let (a, b): (Arc<dyn ShuffleEnvironment>, Arc<dyn ShuffleEnvironment>) = (open(), open());
    let descriptor = ShuffleDescriptor(Bytes::from(a.data_address().unwrap().into_bytes()));
    let ready = Arc::new(Barrier::new(2 * channels + 1));
    let mut threads = Vec::new();
    for n in 0..channels as u32 {
        let (a, ready_to_write) = (a.clone(), ready.clone());
        threads.push(thread::spawn(move || {
            let mut writer = a.open_writer(channel(n), waker()).unwrap();
            let body = records(length);
            ready_to_write.wait();
            let kinds = std::iter::repeat_n(ParcelKind::Batch, parcels).chain([ParcelKind::End]);
            for kind in kinds {
                let mut parcel =
                    Parcel { kind, body: if kind == ParcelKind::End { Bytes::new() } else { body.clone() } };
                while let Some(back) = writer.try_send(parcel).unwrap() {
                    parcel = back;
                    thread::park();
                }
            }
            while !writer.is_drained().unwrap() {
                thread::park();
            }
        }));
        let (b, ready_to_read, descriptor) = (b.clone(), ready.clone(), descriptor.clone());
        threads.push(thread::spawn(move || {
            let mut reader = b.open_reader(channel(n), &descriptor, waker()).unwrap();
            ready_to_read.wait();
            loop {
                match reader.try_recv().unwrap() {
                    Some(parcel) if parcel.kind == ParcelKind::End => return,
                    Some(parcel) => assert_eq!(parcel.body.len(), length),
                    None => thread::park(),
                }
            }
        }));
    }
    ready.wait();
    let (start, cpu) = (Instant::now(), cpu_nanos());
    threads.into_iter().for_each(|t| t.join().unwrap());
    Took { seconds: start.elapsed().as_secs_f64(), cpu: (cpu_nanos() - cpu) as f64 / 1e9, wire: a.traffic().0 }
}

fn median(of: impl Iterator<Item = f64>) -> f64 {
    let mut all: Vec<f64> = of.collect();
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

fn main() {
    let compression = if std::env::args().any(|a| a == "lz4") { Compression::Lz4 } else { Compression::None };
    let arguments: Vec<usize> = std::env::args().skip(1).filter(|a| a != "lz4").map(|a| a.parse().unwrap()).collect();
    let argument = |i: usize, default| arguments.get(i).copied().unwrap_or(default);
    let (channels, length, mib, rounds) =
        (argument(0, 2), argument(1, 32 * 1024), argument(2, 2048), argument(3, 9).max(1));
    let parcels = (mib << 20) / length / channels;
    let body = records(length);
    // In turns: what else the machine does meets both.
    let pairs: Vec<(Took, Took)> =
        (0..rounds).map(|_| (ours(length, channels, parcels, compression), raw(&body, parcels * channels))).collect();
    let rate = |seconds: f64| (parcels * channels * length) as f64 / seconds / 1048576.0;
    println!(
        "{channels} channels, parcels of {length} bytes, {compression:?}, medians of {rounds} rounds of {mib} MiB: {:.0} MiB/s, \
         plain copy {:.0} MiB/s, ratio {:.2}; processor {:.2} s and {:.2} s, ratio {:.2}; {:.2} bytes on the wire for each",
        rate(median(pairs.iter().map(|p| p.0.seconds))),
        rate(median(pairs.iter().map(|p| p.1.seconds))),
        median(pairs.iter().map(|p| p.1.seconds / p.0.seconds)),
        median(pairs.iter().map(|p| p.0.cpu)),
        median(pairs.iter().map(|p| p.1.cpu)),
        median(pairs.iter().map(|p| p.1.cpu / p.0.cpu)),
        pairs[0].0.wire as f64 / (parcels * channels * length) as f64,
    );
}
