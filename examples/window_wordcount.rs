//! Counts words that a server sends, in windows of some seconds by the machine's clock: `window_wordcount HOST:PORT [--seconds N]`.
//! It ends when the server closes; then the last window is told too.

use clap::Parser;
use std::time::Duration;
use thalweg::{TumblingProcessingTimeWindows, prelude::*};
use thalweg_examples::Common;

#[derive(Parser)]
struct Args {
    /// A server that sends lines: `nc -lk 9999`.
    address: String,
    /// Length of a window.
    #[arg(long, default_value_t = 5, value_name = "N")]
    seconds: u64,
    #[command(flatten)]
    common: Common,
}

fn main() -> Result<(), JobError> {
    let args = Args::parse();
    let env = args.common.environment();
    env.socket_text(args.address)
        .uid("lines")
        .flat_map(|line| line.split_whitespace().map(Str::from).collect::<Vec<_>>())
        .key_by(Str::clone)
        .window(TumblingProcessingTimeWindows::of(Duration::from_secs(args.seconds)))
        .count()
        .uid("counts")
        .map(|w| format!("{} {}", w.key, w.value))
        .print()
        .uid("out");
    env.execute("window word count")?;
    Ok(())
}
