//! A job for tests: `cached FILE OUTPUT` writes those of the numbers below 1,000 that a cached file names.

use std::{
    collections::BTreeSet,
    sync::{Arc, OnceLock},
};
use thalweg::prelude::*;

fn main() -> Result<(), JobError> {
    let mut args = std::env::args().skip(1);
    let (file, output) = (args.next().unwrap_or_default(), args.next().unwrap_or_default());
    let env = Environment::new();
    let named = env.cached_file("named.txt", file);
    let read = Arc::new(OnceLock::new());
    let numbers = env.sequence(0..1_000).uid("numbers").rebalance();
    let wanted = numbers.try_map(move |n| {
        let text = read.get_or_init(|| std::fs::read_to_string(named.path()).map_err(|e| e.to_string()));
        let text = text.as_ref().map_err(|e| format!("{}: {e}", named.path().display()))?;
        let set: BTreeSet<u64> = text.split_whitespace().filter_map(|t| t.parse().ok()).collect();
        Ok::<_, String>(set.contains(&n).then(|| n.to_string()))
    });
    wanted.uid("wanted").filter_map(|n| n).uid("there").write_text(output).uid("output");
    env.execute("cached").map(drop)
}
