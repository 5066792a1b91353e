//! Sessions of visitors: `sessions [--clicks N]`.
//!
//! Clicks come a little out of order. A visitor's session ends when they are silent for 30 s of event time; it is told with its
//! length and its number of clicks.

use clap::Parser;
use std::time::Duration;
use thalweg::prelude::*;
use thalweg_examples::{Common, nexmark::splitmix64, print_sorted};

#[derive(Parser)]
struct Args {
    /// Clicks of 50 visitors, about one a second of event time.
    #[arg(long, default_value_t = 2_000, value_name = "N")]
    clicks: u64,
    #[command(flatten)]
    common: Common,
}

/// Visitor and time of click number `i`.
fn click(i: u64) -> (u64, i64) {
    let chance = splitmix64(i);
    // Visitors come in waves, so that there are pauses.
    ((i / 40 * 7 + chance % 5) % 50, i as i64 * 1000 - (chance >> 8) as i64 % 3000)
}

fn main() -> Result<(), JobError> {
    let args = Args::parse();
    let env = args.common.environment();
    let sessions = env
        .source(thalweg::Sequence::new(0..args.clicks).interleaved())
        .uid("clicks")
        .map(click)
        .assign_timestamps_and_watermarks(
            |click| click.1,
            WatermarkStrategy::for_bounded_out_of_orderness(Duration::from_secs(5)),
        )
        .key_by(|click| click.0)
        .window(EventTimeSessionWindows::with_gap(Duration::from_secs(30)))
        .count()
        .uid("sessions")
        .collect()
        .with_uid("out");
    let result = env.execute("sessions")?;
    let sessions = result.collected(&sessions)?;
    let line = |s: &Windowed<u64, u64>| {
        let seconds = (s.window.end - s.window.start) as f64 / 1000.0 - 30.0;
        format!("visitor {:>2} from {:>8} ms for {seconds:>6.1} s: {} clicks", s.key, s.window.start, s.value)
    };
    print_sorted(sessions.iter().map(line).collect());
    Ok(())
}
