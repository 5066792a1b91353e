//! The plugin passes the shuffle suite over TCP, over TCP with LZ4, and over pipes within a process.

#![allow(clippy::unwrap_used, reason = "test code")]

use bytes::Bytes;
use std::{sync::Arc, time::Duration};
use thalweg_env::{Address, Env, Network};
use thalweg_model::JobId;
use thalweg_shuffle_network::{Compression, NetworkConfig};
use thalweg_spi::{EnvironmentSetup, PluginConfig, Result, Shuffle, ShuffleEnvironment, TimeSpan, kind};
use thalweg_testkit::{Place, suites::shuffle::ShuffleFixture};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

struct Fixture {
    place: Place,
    env: Env,
    compression: Compression,
}

const SECRET: &[u8] = b"the job's secret";
const JOB: JobId = JobId::from_bytes([7; 16]);

impl Fixture {
    fn tcp() -> Self {
        let env = Env::system(tokio::runtime::Handle::current());
        Self { place: Place::new(), env, compression: Compression::None }
    }

    fn compressed() -> Self {
        Self { compression: Compression::Lz4, ..Self::tcp() }
    }

    fn memory() -> Self {
        Self { env: Env::in_process(tokio::runtime::Handle::current()), ..Self::tcp() }
    }
}

/// A host's first frame, written by hand: the test must not share the code that it tests.
fn hello(secret: &[u8]) -> Vec<u8> {
    let mut body = 2u32.to_le_bytes().to_vec();
    body.extend((secret.len() as u16).to_le_bytes());
    body.extend(secret);
    body.extend(JOB.as_bytes());
    body.extend([0xaa; 16]);
    let address = b"tcp://10.9.8.7:1";
    body.extend((address.len() as u16).to_le_bytes());
    body.extend(address);
    let mut frame = b"thalshuf".to_vec();
    frame.extend((body.len() as u32).to_le_bytes());
    frame.extend(&body);
    frame.extend(xxhash_rust::xxh3::xxh3_64(&body).to_le_bytes());
    frame
}

/// The first frame on a connection, signed as it should be.
fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut frame = (body.len() as u32).to_le_bytes().to_vec();
    frame.extend([kind, 0, 0, 0, 0, 0, 0, 0]);
    frame.extend((body.len() as u32).to_le_bytes());
    frame.extend(crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, body).to_le_bytes());
    let sign = xxhash_rust::xxh3::xxh3_64_with_seed(&frame, 0) as u32;
    frame.extend(sign.to_le_bytes());
    frame.extend(body);
    frame
}

#[async_trait::async_trait]
impl ShuffleFixture for Fixture {
    async fn open(&self) -> Result<Arc<dyn Shuffle>> {
        let (partition_timeout, compression) = (TimeSpan::from_millis(1000), self.compression);
        let config = NetworkConfig { partition_timeout, compression, ..NetworkConfig::default() };
        PluginConfig::<kind::ShuffleKind>::open(config, self.place.context_with(self.env.clone())).await
    }

    fn setup(&self, memory: usize) -> EnvironmentSetup {
        let bind = "tcp://127.0.0.1:0".to_owned();
        EnvironmentSetup { job: JOB, bind, secret: Bytes::from_static(SECRET), memory, max_parcel: 200_000 }
    }

    fn counts(&self) -> bool {
        true
    }

    async fn crash(&self, environment: Arc<dyn ShuffleEnvironment>) -> bool {
        let at: Address = environment.data_address().unwrap().parse().unwrap();
        drop(environment);
        // Its tasks end at their next await.
        while self.env.network.connect(&at).await.is_ok() {
            self.env.clock.sleep(Duration::from_millis(1)).await;
        }
        true
    }

    async fn damage(&self, environment: &Arc<dyn ShuffleEnvironment>) -> bool {
        let at: Address = environment.data_address().unwrap().parse().unwrap();
        let odd = frame(99, b"what is it");
        let mut changed = frame(8, b"");
        changed[8] ^= 1;
        let mut body = frame(7, b"it ends");
        *body.last_mut().unwrap() ^= 1;
        for bytes in [&[0xff; 64][..], &[0; 28], &odd, &changed, &body] {
            let mut stream = self.env.network.connect(&at).await.unwrap();
            stream.write_all(&hello(SECRET)).await.unwrap();
            let mut answer = [0; 12];
            stream.read_exact(&mut answer).await.unwrap();
            stream.write_all(bytes).await.unwrap();
            // It is closed, with the reason as the last word.
            let mut last = Vec::new();
            stream.read_to_end(&mut last).await.unwrap();
            let last = String::from_utf8_lossy(&last);
            assert!(last.contains("tcp://10.9.8.7:1") && last.contains("damaged"), "{last}");
        }
        true
    }
}

mod over_tcp {
    thalweg_testkit::shuffle_suite!(async || super::Fixture::tcp());
}

mod over_tcp_with_lz4 {
    thalweg_testkit::shuffle_suite!(async || super::Fixture::compressed());
}

mod over_pipes {
    thalweg_testkit::shuffle_suite!(async || super::Fixture::memory());
}

/// Does the host close the connection upon these first bytes, without a word?
async fn is_closed_upon(network: &dyn Network, at: &Address, bytes: &[u8]) -> bool {
    let mut stream = network.connect(at).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    answer.is_empty()
}

#[test]
fn a_stranger_learns_nothing() {
    thalweg_testkit::run("stranger", async {
        let fixture = Fixture::tcp();
        let environment = fixture.open().await.unwrap().environment(fixture.setup(1 << 20)).unwrap();
        let at: Address = environment.data_address().unwrap().parse().unwrap();
        for first in [hello(b"wrong"), hello(b""), b"GET / HTTP/1.1\r\n\r\n".to_vec(), vec![0; 100]] {
            assert!(is_closed_upon(&*fixture.env.network, &at, &first).await);
        }
    });
}

#[test]
fn a_pair_of_hosts_has_one_connection() {
    thalweg_testkit::run("one connection", async {
        let fixture = Fixture::tcp();
        let shuffle = fixture.open().await.unwrap();
        let (a, b) = (fixture.setup(1 << 20), fixture.setup(1 << 20));
        let (a, b) = (shuffle.environment(a).unwrap(), shuffle.environment(b).unwrap());
        let descriptor = |e: &Arc<dyn ShuffleEnvironment>| {
            thalweg_spi::ShuffleDescriptor(Bytes::from(e.data_address().unwrap().into_bytes()))
        };
        let mut ends = Vec::new();
        for n in 0..50 {
            let (from, to) = if n % 2 == 0 { (&a, &b) } else { (&b, &a) };
            let attempt = thalweg_model::Attempt::default();
            let partition = thalweg_spi::PartitionId { job: JOB, region: 0, attempt, edge: 0, producer: n };
            let channel = thalweg_spi::ChannelId { partition, consumer: 0 };
            let waker = std::task::Waker::noop();
            ends.push((
                from.open_writer(channel, waker.clone()).unwrap(),
                to.open_reader(channel, &descriptor(from), waker.clone()).unwrap(),
            ));
        }
        for (writer, reader) in &mut ends {
            let parcel = thalweg_spi::Parcel { kind: thalweg_spi::ParcelKind::End, body: Bytes::new() };
            while writer.try_send(parcel.clone()).unwrap().is_some() {
                fixture.env.clock.sleep(Duration::from_millis(1)).await;
            }
            while reader.try_recv().unwrap().is_none() {
                fixture.env.clock.sleep(Duration::from_millis(1)).await;
            }
        }
        let port = |e: &Arc<dyn ShuffleEnvironment>| {
            e.data_address().unwrap().rsplit(':').next().unwrap().parse::<u16>().unwrap()
        };
        let sockets = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let established = sockets.lines().filter(|l| l.split_whitespace().nth(3) == Some("01"));
        let local = |line: &str, p: u16| line.split_whitespace().nth(1).unwrap().ends_with(&format!(":{p:04X}"));
        let accepted = established.filter(|l| local(l, port(&a)) || local(l, port(&b))).count();
        assert_eq!(accepted, 1, "sockets that were accepted by one of the two");
    });
}

#[test]
fn a_wildcard_address_is_refused() {
    thalweg_testkit::run("wildcard", async {
        let fixture = Fixture::tcp();
        let shuffle = fixture.open().await.unwrap();
        let mut setup = fixture.setup(1 << 20);
        setup.bind = "tcp://0.0.0.0:0".into();
        let error = shuffle.environment(setup.clone()).err().unwrap();
        assert!(error.to_string().contains("set task-manager.bind"), "{error}");
        setup.bind = "tcp://localhost:0".into();
        assert!(shuffle.environment(setup).is_ok(), "a name is looked up");
    });
}

#[test]
fn it_is_opened_from_a_plain_thread_too() {
    thalweg_testkit::run("thread", async {
        let fixture = Fixture::tcp();
        let shuffle = fixture.open().await.unwrap();
        let setup = fixture.setup(1 << 20);
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let open = move || {
            let _ = sender.send(shuffle.environment(setup).is_ok());
        };
        fixture.env.spawner.thread("slot".into(), Box::new(open)).unwrap();
        assert!(receiver.await.unwrap());
    });
}
