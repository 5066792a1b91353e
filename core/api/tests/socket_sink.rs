//! Lines to a server: all of them in order, one that reads slowly, one that goes, one that was never there, and
//! checkpoints in steps drawn from a seed. `THALWEG_CASES=n` for more cases, `THALWEG_SEED=n` replays one.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, reason = "tests")]

use rand::{Rng, SeedableRng, rngs::SmallRng};
use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader, Read},
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::Duration,
};
use thalweg_api::{
    Sequence, SocketSink,
    prelude::*,
    testing::{self, Stepped},
};

fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

/// Takes the lines of so many connections.
fn serve(listener: TcpListener, connections: usize) -> JoinHandle<Vec<Vec<String>>> {
    std::thread::spawn(move || {
        let streams: Vec<_> = (0..connections).map(|_| listener.accept().unwrap().0).collect();
        let read = |stream| BufReader::new(stream).lines().map_while(Result::ok).collect();
        streams.into_iter().map(read).collect()
    })
}

#[test]
fn every_line_comes_in_order_over_one_connection() {
    let (listener, address) = listen();
    let server = serve(listener, 1);
    let dir = tempfile::tempdir().unwrap();
    let env = testing::environment(3, dir.path()).unwrap();
    env.source(Sequence::new(0..300_000)).parallelism(1).write_socket(address).uid("socket");
    env.execute("lines").unwrap();
    let lines = server.join().unwrap().remove(0);
    assert_eq!(lines, (0..300_000).map(|i: u64| i.to_string()).collect::<Vec<_>>());
}

#[test]
fn each_subtask_may_have_a_connection_and_a_form_of_its_own() {
    let (listener, address) = listen();
    let server = serve(listener, 2);
    let dir = tempfile::tempdir().unwrap();
    let env = testing::environment(2, dir.path()).unwrap();
    let sink = SocketSink::new(address).lines(|n: &u64, line| line.extend(format!("<{n}>").bytes()));
    env.source(Sequence::new(0..1000).interleaved()).sink(sink);
    env.execute("lines").unwrap();
    let lines: BTreeSet<String> = server.join().unwrap().into_iter().flatten().collect();
    assert_eq!(lines, (0..1000).map(|n| format!("<{n}>")).collect());
}

#[test]
fn a_server_that_does_not_read_holds_back_its_records_and_no_other_task() {
    let (listener, address) = listen();
    let (made, others) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (making, other) = (made.clone(), others.clone());
    let server = std::thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        // Kernel buffers and queue fill up; a while after that nothing is made any more, by the same thread that goes on with
        // the other numbers: these are its clock.
        let (mut last, mut since) = (0, 0);
        for _ in 0..1000 {
            std::thread::sleep(Duration::from_millis(20));
            let (now, others) = (making.load(Relaxed), other.load(Relaxed));
            if now != last || now == 0 {
                (last, since) = (now, others);
            } else if others >= since + 300 {
                break;
            }
        }
        let (stuck, others_then) = (making.load(Relaxed), other.load(Relaxed));
        for _ in 0..1000 {
            if other.load(Relaxed) > others_then + 300 {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let seen = (stuck, making.load(Relaxed) - stuck, other.load(Relaxed) - others_then);
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        (seen, bytes.iter().filter(|b| **b == b'\n').count())
    });
    let dir = tempfile::tempdir().unwrap();
    let env = testing::environment(1, dir.path()).unwrap();
    let (making, other) = (made.clone(), others.clone());
    let counted = move |_: &u64| {
        making.fetch_add(1, Relaxed);
    };
    // The same slot's thread makes the numbers, writes the lines and does something else.
    let filler = "x".repeat(1000);
    let lines = env.sequence(0..50_000).inspect(counted).map(move |n| format!("{n} {filler}"));
    lines.write_socket(address);
    env.source(Sequence::new(0..8000).rate(1000.0)).for_each(move |_| {
        other.fetch_add(1, Relaxed);
    });
    env.execute("stuck").unwrap();
    let ((stuck, more, others), lines) = server.join().unwrap();
    assert!(stuck < 50_000 && more == 0, "{stuck} and {more} more were made with nobody to read them");
    assert!(others > 50, "{others} of another task");
    assert_eq!(lines, 50_000);
}

#[test]
fn what_goes_wrong_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let env = testing::environment(1, dir.path()).unwrap();
    for address in ["localhost", "localhost:", ":99", "localhost:99999", "localhost:0", "localhost:http"] {
        env.sequence(0..1).write_socket(address);
        let error = env.execute("address").unwrap_err().to_string();
        assert!(error.contains("name host:port"), "{address}: {error}");
    }
    let (listener, address) = listen();
    drop(listener);
    env.sequence(0..1).write_socket(&*address);
    let error = env.execute("nobody").unwrap_err().to_string();
    assert!(error.contains(&address) && error.contains("start the server before the job"), "{error}");

    // It goes in the middle; also while no line is sent.
    for silent in [true, false] {
        let (listener, address) = listen();
        let server = std::thread::spawn(move || {
            let stream = listener.accept().unwrap().0;
            // Closed with lines that were not read, which the other side is told.
            std::thread::sleep(Duration::from_millis(100));
            drop(stream);
        });
        let rate = if silent { 0.01 } else { 1e6 };
        env.source(Sequence::new(0..100_000_000).rate(rate)).write_socket(&*address);
        let error = env.execute("goes").unwrap_err().to_string();
        assert!(error.contains(&address) && error.contains("the connection was lost"), "{error}");
        server.join().unwrap();
    }
}

#[test]
fn a_checkpoint_at_any_moment_loses_no_line() {
    let seed = std::env::var("THALWEG_SEED").ok().map(|s| s.parse::<u64>().unwrap());
    let n = std::env::var("THALWEG_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(40);
    for seed in seed.map_or(0..n, |s| s..s + 1) {
        let mut random = SmallRng::seed_from_u64(seed);
        let count = random.random_range(1..2000u64);
        let dir = tempfile::tempdir().unwrap();
        let mut from = Default::default();
        let mut got = BTreeSet::new();
        for attempt in 0..2 {
            let (listener, address) = listen();
            let parallelism = random.random_range(1..4);
            let server = serve(listener, parallelism as usize);
            let taken = Arc::default();
            let checkpoint_at = (attempt == 0).then(|| random.random_range(1..40));
            let steps = Stepped { seed, from, checkpoint_at, taken: Arc::clone(&taken) };
            let env = steps.environment(parallelism, dir.path()).unwrap();
            env.mode(ExecutionMode::Streaming);
            env.sequence(0..count).uid("numbers").sink(SocketSink::new(&*address)).uid("socket");
            let ended = env.execute("lines");
            drop(env);
            // An attempt that ended soon may not have dialled yet.
            (0..parallelism).for_each(|_| drop(std::net::TcpStream::connect(&*address)));
            // A cut connection may end in half a line, as an aborted attempt does.
            let lines = server.join().unwrap().into_iter().flatten().filter_map(|l| l.parse::<u64>().ok());
            got.extend(lines.filter(|n| *n < count));
            match taken.lock().unwrap().take() {
                Some(snapshot) => from = snapshot,
                None => {
                    ended.unwrap_or_else(|e| panic!("THALWEG_SEED={seed}: {e}"));
                    break;
                }
            }
        }
        assert_eq!(got.len() as u64, count, "THALWEG_SEED={seed}");
    }
}
