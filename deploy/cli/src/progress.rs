//! Shows how a job is doing while a client waits: one moving line on a terminal, plain lines elsewhere. On standard
//! error, so that a program's own output stays clean.

use indicatif::{ProgressBar, ProgressStyle};
use std::{io::IsTerminal, time::Duration};
use thalweg_model::{JobId, JobStatus};

/// One job's progress.
pub struct Progress {
    bar: Option<ProgressBar>,
    last: String,
}

/// What there is to show.
pub struct Shown<'a> {
    /// Its status.
    pub status: JobStatus,
    /// Tasks that run, of all.
    pub tasks: (u32, u32),
    /// Records so far.
    pub records: u64,
    /// Bytes that sources read, of all.
    pub source_bytes: (u64, u64),
    /// Why it waits.
    pub waiting: Option<&'a str>,
}

impl Progress {
    /// Nothing is shown yet.
    pub fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        Self { bar, last: String::new() }
    }

    /// A job was submitted.
    pub fn submitted(&mut self, job: JobId, name: &str) {
        self.line(&format!("job {job} ({name}) submitted"));
    }

    /// It goes on.
    pub fn show(&mut self, shown: &Shown<'_>) {
        let mut text = shown.status.to_string();
        if let Some(why) = shown.waiting {
            text.push_str(&format!(": waits: {why}"));
        }
        if let Some(bar) = &self.bar {
            if shown.tasks.1 > 0 {
                text.push_str(&format!("  tasks {}/{}", shown.tasks.0, shown.tasks.1));
            }
            text.push_str(&format!("  records {}", shown.records));
            let (read, all) = shown.source_bytes;
            if all > 0 {
                text.push_str(&format!("  read {:.0} %", 100.0 * read as f64 / all as f64));
            }
            bar.set_message(text);
        } else if text != self.last {
            // Elsewhere a line for each change is enough.
            eprintln!("{text}");
            self.last = text;
        }
    }

    /// A line that stays.
    pub fn line(&mut self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{text}")),
            None => eprintln!("{text}"),
        }
    }

    /// Lets something else write.
    pub fn suspend(&mut self, write: impl FnOnce()) {
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    /// Takes the moving line away.
    pub fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}
