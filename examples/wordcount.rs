//! Counts the words of files and folders: `wordcount --input PATH… [--output DIR] [--mode batch|streaming] [-p N] [--top N]`.
//!
//! Words are what stands between ASCII white space, whatever bytes they are. With an output, each counter writes a part
//! file of lines `word count`, which gets its final name when it is complete; without one the most frequent are printed.

use clap::{Parser, ValueEnum};
use std::{io::Write, path::PathBuf};
use thalweg::prelude::*;

#[derive(Parser)]
struct Args {
    /// Files, or folders that are read recursively; links are not followed.
    #[arg(long, required = true, num_args = 1.., value_name = "PATH")]
    input: Vec<PathBuf>,
    /// Folder for the counts; without it the most frequent words are printed.
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Final counts only, or every update.
    #[arg(long, value_enum)]
    mode: Option<Mode>,
    /// Parallelism.
    #[arg(short, long, value_name = "N")]
    parallelism: Option<u32>,
    /// How many words to print.
    #[arg(long, default_value_t = 20, value_name = "N")]
    top: usize,
}

#[derive(Clone, Copy, ValueEnum)]
enum Mode {
    Batch,
    Streaming,
}

fn main() -> Result<(), JobError> {
    thalweg::init();
    let args = Args::parse();
    let env = Environment::new();
    if let Some(parallelism) = args.parallelism {
        env.parallelism(parallelism);
    }
    match args.mode {
        Some(Mode::Batch) => drop(env.mode(ExecutionMode::Batch)),
        Some(Mode::Streaming) => drop(env.mode(ExecutionMode::Streaming)),
        None => {}
    }
    let counts = env.read_blocks(&args.input).uid("lines").key_each(TextBlock::words).count().uid("count");
    match args.output {
        Some(output) => {
            let line = |(word, count): &(Vec<u8>, u64), line: &mut Vec<u8>| {
                line.extend_from_slice(word);
                // A vector takes every byte.
                let _ = write!(line, " {count}");
            };
            counts.write_lines(output.clone(), line).uid("parts");
            let result = env.execute("wordcount")?;
            println!("counted in {:.3} s; the counts are in {}", result.duration().as_secs_f64(), output.display());
        }
        None if matches!(args.mode, Some(Mode::Streaming)) => {
            counts.map(|(word, count)| format!("{} {count}", String::from_utf8_lossy(&word))).print().uid("updates");
            let result = env.execute("wordcount")?;
            println!("counted in {:.3} s; --output DIR writes the updates", result.duration().as_secs_f64());
        }
        None => {
            let [counts, all] = counts.split();
            let top = counts
                .top(args.top, |a, b| a.1.cmp(&b.1).then_with(|| b.0.cmp(&a.0)))
                .uid("top")
                .collect()
                .with_uid("most-frequent");
            let words = all.map(|(_, n)| n).key_by(|_| 0u8).sum(|n| n).uid("words").collect().with_uid("total");
            let result = env.execute("wordcount")?;
            for (word, count) in result.collected(&top)? {
                println!("{count:>10} {}", String::from_utf8_lossy(&word));
            }
            let words: u64 = result.collected(&words)?.iter().map(|(_, n)| n).sum();
            println!(
                "{words} words in {:.3} s; --top N shows more, --output DIR writes all",
                result.duration().as_secs_f64()
            );
        }
    }
    Ok(())
}
