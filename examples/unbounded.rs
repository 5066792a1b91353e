//! A numbered sequence without an end: `unbounded [--rate N] [--output DIR]`.
//!
//! With an output each subtask appends lines `subtask number unix-millis` to its own file, flushed within 10 ms and
//! readable while it grows; without one the numbers are dropped.

use clap::Parser;
use std::{
    fs::File,
    io::{BufWriter, Write},
    path::PathBuf,
    time::Duration,
};
use thalweg::{FailureKind, OpCx, Sequence, Sink, SinkWriter, TaskFailure, model::Moment, prelude::*};

#[derive(Parser)]
struct Args {
    /// Numbers a second.
    #[arg(long, default_value_t = 1000.0, value_name = "N")]
    rate: f64,
    /// Folder for the files.
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Parallelism.
    #[arg(short, long, value_name = "N")]
    parallelism: Option<u32>,
}

fn main() -> Result<(), JobError> {
    thalweg::init();
    let args = Args::parse();
    let env = Environment::new();
    if let Some(parallelism) = args.parallelism {
        env.parallelism(parallelism);
    }
    let numbers = env.source(Sequence::new(0..u64::MAX).rate(args.rate)).uid("numbers");
    match args.output {
        Some(folder) => drop(numbers.rebalance().sink(Stamped { folder }).uid("stamped")),
        None => drop(numbers.discard().uid("dropped")),
    }
    env.execute("unbounded")?;
    Ok(())
}

/// A sink that job authors write themselves: here one that is read while it grows.
#[derive(Clone)]
struct Stamped {
    folder: PathBuf,
}

struct StampedFile {
    subtask: u32,
    file: BufWriter<File>,
    env: thalweg::Env,
    flushed: Moment,
}

/// The longest that a line may stay in the buffer.
const FLUSH: Duration = Duration::from_millis(10);

fn storage(e: std::io::Error) -> TaskFailure {
    TaskFailure::new(FailureKind::Storage, e.to_string())
}

impl Sink<u64> for Stamped {
    type Writer = StampedFile;

    fn kind(&self) -> &'static str {
        "stamped-files"
    }

    fn writer(&self, cx: &OpCx) -> Result<StampedFile, TaskFailure> {
        let folder = cx.path(&self.folder);
        std::fs::create_dir_all(&folder).map_err(storage)?;
        let file = File::options().create(true).append(true).open(folder.join(format!("subtask-{}", cx.subtask)));
        let env = cx.env().clone();
        let flushed = env.clock.now();
        Ok(StampedFile { subtask: cx.subtask, file: BufWriter::new(file.map_err(storage)?), env, flushed })
    }
}

impl SinkWriter<u64> for StampedFile {
    fn write(&mut self, _: i64, number: u64) -> Result<(), TaskFailure> {
        writeln!(self.file, "{} {number} {}", self.subtask, self.env.clock.wall().0).map_err(storage)?;
        if self.env.clock.now().since(self.flushed) >= FLUSH { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), TaskFailure> {
        self.flushed = self.env.clock.now();
        self.file.flush().map_err(storage)
    }
}
