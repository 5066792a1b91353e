//! A job for tests: `misbehaves panic|error|abort|sleep|other-graph|no-execute`.

#![allow(clippy::panic)]

use thalweg::prelude::*;

fn main() -> Result<(), JobError> {
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
