//! How fast the plane is: `cargo test --release -p thalweg-api --test speed -- --ignored --nocapture --test-threads 1`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::time::Duration;
use thalweg_api::{prelude::*, testing};
use thalweg_env::{Clock, SystemClock};

fn timed(name: &str, records: u64, run: impl FnOnce()) {
    let clock = SystemClock::new();
    run();
    let took = clock.now().since_start();
    let rate = records as f64 / took.max(Duration::from_micros(1)).as_secs_f64() / 1e6;
    println!("{name}: {records} records in {:.3} s, {rate:.1} M/s", took.as_secs_f64());
}

fn mix(x: u64) -> u64 {
    let z = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[test]
#[ignore = "a measurement"]
fn chains_and_keyed_sums() {
    let dir = tempfile::tempdir().unwrap();
    let env = testing::environment(2, dir.path()).unwrap();
    let n = 300_000_000;
    timed("map, filter, map", n, || {
        env.sequence(0..n)
            .map(mix)
            .filter(|x| x & 3 != 0)
            .map(|x| x ^ (x >> 7))
            .key_by(|_| 0u8)
            .reduce(|a, b| *a ^= b)
            .discard();
        env.execute("chain").unwrap();
    });
    let n = 40_000_000;
    for (name, mode) in [("batch", ExecutionMode::Batch), ("streaming", ExecutionMode::Streaming)] {
        env.mode(mode);
        timed(&format!("keyed sum by u64 (1024 keys), {name}"), n, || {
            env.sequence(0..n).map(|x| (mix(x) & 1023, 1u64)).key_by(|p| p.0).sum(|p| p.1).discard();
            env.execute("sum").unwrap();
        });
    }
    timed("stateful_map by u64 (1024 keys)", n, || {
        let keyed = env.sequence(0..n).map(|x| (mix(x) & 1023, 1u64)).key_by(|p| p.0);
        keyed
            .stateful_map(|s: &mut u64, p| {
                *s += p.1;
                *s
            })
            .discard();
        env.execute("stateful").unwrap();
    });
}

#[test]
#[ignore = "a measurement"]
fn words() {
    let dir = tempfile::tempdir().unwrap();
    let mut text = Vec::new();
    let mut i = 0u64;
    while text.len() < 500_000_000 {
        i += 1;
        // Few words often, many seldom.
        let r = mix(i);
        let word = (r >> 32) % (1 + (r & 0xffff));
        text.extend_from_slice(format!("word{word}").as_bytes());
        text.push(if i.is_multiple_of(12) { b'\n' } else { b' ' });
    }
    std::fs::write(dir.path().join("text"), &text).unwrap();
    drop(text);
    let env = testing::environment(2, dir.path()).unwrap();
    timed("words of 500 MB, key_each", i, || {
        let counts = env
            .read_blocks(["text"])
            .key_each(TextBlock::words)
            .count()
            .map(|(_, n)| n)
            .key_by(|_| 0u8)
            .sum(|n| n)
            .collect();
        let result = env.execute("words").unwrap();
        assert_eq!(result.collected(&counts).unwrap()[0].1, i);
    });
    timed("read 500 MB", i, || {
        let sum = env.read_blocks(["text"]).map(|b| b.bytes().len()).key_by(|_| 0u8).sum(|n| n).collect();
        let result = env.execute("reads").unwrap();
        assert!(result.collected(&sum).unwrap()[0].1 >= 500_000_000);
    });
    timed("split 500 MB into words", i, || {
        env.read_blocks(["text"])
            .map(|b| b.words().map(<[u8]>::len).sum::<usize>())
            .key_by(|_| 0u8)
            .sum(|n| n)
            .discard();
        env.execute("splits").unwrap();
    });
    timed("hash the words of 500 MB", i, || {
        use thalweg_api::Key;
        env.read_blocks(["text"])
            .map(|b| b.words().fold(0u64, |h, w| h ^ w.stable_hash()))
            .key_by(|_| 0u8)
            .reduce(|a, b| *a ^= b)
            .discard();
        env.execute("hashes").unwrap();
    });
    timed("words of 500 MB, a String each", i, || {
        let lines = env.read_text("text");
        let words = lines.flat_map(|l| l.split_ascii_whitespace().map(str::to_owned).collect::<Vec<_>>());
        words.key_by_ref(|w| w.as_str()).count().discard();
        env.execute("strings").unwrap();
    });
}
