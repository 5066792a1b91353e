//! A job for tests: `misbehaves panic|error|abort|other-graph|slow-main|hoard|gulp|stuck|collects|no-execute`.

#![allow(clippy::panic)]

use thalweg::prelude::*;

fn main() -> Result<(), JobError> {
    thalweg::init();
    let how = std::env::args().nth(1).unwrap_or_default();
    let env = Environment::new();
    match how.as_str() {
        "panic" => {
            let numbers = env.sequence(0..100).uid("numbers");
            numbers.map(|n| if n == 42 { panic!("no answer is wanted") } else { n }).uid("picky").discard();
        }
        "error" => {
            let numbers = env.sequence(0..100).uid("numbers");
            numbers.try_map(|n| if n == 42 { Err("not this one") } else { Ok(n) }).uid("picky").discard();
        }
        "abort" => {
            let numbers = env.sequence(0..100).uid("numbers");
            numbers.map(|n| if n == 42 { std::process::abort() } else { n }).uid("picky").discard();
        }
        "other-graph" => {
            let numbers = env.sequence(0..100).uid("numbers");
            // A `main` that builds another graph on the worker: there the client part does not run.
            if env.on_client(|| ()).is_some() {
                numbers.map(|n| n + 1).uid("on-the-client-only").discard();
            } else {
                numbers.discard();
            }
        }
        "hoard" => {
            let mut kept: Vec<Vec<u8>> = Vec::new();
            let numbers = env.sequence(0..10_000).uid("numbers");
            let hoarded = numbers.map(move |n| {
                kept.push(vec![n as u8; 1 << 20]);
                std::thread::sleep(std::time::Duration::from_millis(2));
                kept.len()
            });
            hoarded.uid("hoard").discard();
        }
        "gulp" => {
            let numbers = env.sequence(0..100).uid("numbers");
            let gulped = numbers.map(|n| if n == 42 { std::hint::black_box(vec![n as u8; 2 << 30]).len() } else { 0 });
            gulped.uid("gulp").discard();
        }
        "stuck" => {
            let numbers = env.sequence(0..100).uid("numbers");
            let stuck = numbers.inspect(|n| {
                if *n == 42 {
                    loop {
                        std::hint::spin_loop();
                    }
                }
            });
            stuck.uid("stuck").discard();
        }
        "collects" => {
            // 3 MiB.
            let numbers = env.sequence(0..3 << 10).uid("numbers");
            let lines = numbers.map(|n| format!("{n:01024}")).uid("lines").collect().with_uid("answer");
            return env.execute(&how)?.collected(&lines).map(drop);
        }
        "slow-main" => {
            if env.on_client(|| ()).is_none() {
                // Longer than any host.start-timeout that the tests set.
                loop {
                    std::thread::park();
                }
            }
            env.sequence(0..10).uid("numbers").discard();
        }
        _ => return Ok(()),
    }
    env.execute(&how).map(drop)
}
