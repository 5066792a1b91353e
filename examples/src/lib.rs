//! What the example jobs share.

use clap::Parser;
pub use thalweg::nexmark;
use thalweg::prelude::*;

/// What every example takes.
#[derive(Parser, Clone, Copy)]
pub struct Common {
    /// Parallelism.
    #[arg(short, long, value_name = "N")]
    pub parallelism: Option<u32>,
}

impl Common {
    /// An environment with it.
    pub fn environment(self) -> Environment {
        thalweg::init();
        let env = Environment::new();
        if let Some(parallelism) = self.parallelism {
            env.parallelism(parallelism);
        }
        env
    }
}

/// Prints lines in order: subtasks give theirs in none.
pub fn print_sorted(mut lines: Vec<String>) {
    lines.sort();
    lines.iter().for_each(|line| println!("{line}"));
}
