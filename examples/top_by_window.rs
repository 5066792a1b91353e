//! The auctions with most bids in each window of ten seconds of event time: `top_by_window [--events N] [--top N]`.
//!
//! Two windows, one behind the other: the first counts bids by auction, the second has all counts of one window together. Results
//! of a window carry its last moment as their time, so that they fall into the same window again.

use clap::Parser;
use std::{cmp::Reverse, time::Duration};
use thalweg::{Sequence, prelude::*};
use thalweg_examples::{
    Common,
    nexmark::{Event, event},
    print_sorted,
};

#[derive(Parser)]
struct Args {
    /// Events of the auction house; 100 a millisecond.
    #[arg(long, default_value_t = 3_000_000, value_name = "N")]
    events: u64,
    /// Auctions for each window.
    #[arg(long, default_value_t = 3, value_name = "N")]
    top: usize,
    #[command(flatten)]
    common: Common,
}

fn main() -> Result<(), JobError> {
    let Args { events, top, common } = Args::parse();
    let env = common.environment();
    let ten_seconds = TumblingEventTimeWindows::of(Duration::from_secs(10));
    let best = env
        .source(Sequence::new(0..events).interleaved())
        .uid("events")
        .map(event)
        .assign_timestamps_and_watermarks(Event::time, WatermarkStrategy::for_monotonous_timestamps())
        .filter_map(|e| if let Event::Bid(bid) = e { Some(bid.auction) } else { None })
        .key_by(|auction| *auction)
        .window(ten_seconds)
        .count()
        .uid("bids")
        .map(|w| (w.key, w.value))
        .window_all(ten_seconds)
        .apply(move |(), window: TimeWindow, mut counts: Vec<(u64, u64)>| {
            counts.sort_unstable_by_key(|(auction, n)| (Reverse(*n), *auction));
            counts.truncate(top);
            (1u64..).zip(counts).map(move |(rank, (auction, n))| (window.end, rank, auction, n))
        })
        .uid("best")
        .collect()
        .with_uid("out");
    let result = env.execute("top by window")?;
    let best = result.collected(&best)?;
    print_sorted(
        best.iter().map(|(end, rank, auction, n)| format!("{end:>8} {rank} auction {auction} {n} bids")).collect(),
    );
    Ok(())
}
