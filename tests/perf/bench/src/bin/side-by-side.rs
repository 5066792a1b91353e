//! `side-by-side ROUNDS NAME=COMMAND…`: runs each command in turn, ROUNDS times, and prints medians and what the last one's is of
//! each. On a machine whose speed drifts this is the way to compare: runs that follow each other share its mood.
//!
//! Commands are split at spaces; their output is dropped. An example, with a peer that takes the same arguments:
//!
//! ```sh
//! side-by-side 7 "own=target/release/thalweg-bench b2 40000000 /tmp/own" "peer=peers/timely-bench b2 40000000 /tmp/peer"
//! ```

#![allow(unsafe_code, clippy::disallowed_methods, reason = "a measurement: the system's clock is what is measured by")]

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// User and system time of all children that have ended.
fn children_cpu() -> Duration {
    // SAFETY: a plain system call that fills a structure of ours.
    let usage = unsafe {
        let mut usage = std::mem::zeroed::<libc::rusage>();
        libc::getrusage(libc::RUSAGE_CHILDREN, &mut usage);
        usage
    };
    let of = |t: libc::timeval| Duration::from_secs(t.tv_sec as u64) + Duration::from_micros(t.tv_usec as u64);
    of(usage.ru_utime) + of(usage.ru_stime)
}

struct Candidate {
    name: String,
    argv: Vec<String>,
    wall: Vec<Duration>,
    cpu: Vec<Duration>,
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let usage = "side-by-side ROUNDS NAME=COMMAND…";
    let rounds: usize = args.next().ok_or(usage)?.parse().map_err(|e| format!("{usage}: {e}"))?;
    let candidate = |arg: String| {
        let (name, command) = arg.split_once('=').ok_or(usage)?;
        let argv: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
        Ok::<_, String>(Candidate { name: name.to_owned(), argv, wall: Vec::new(), cpu: Vec::new() })
    };
    let mut candidates = args.map(candidate).collect::<Result<Vec<_>, _>>()?;
    for _ in 0..rounds {
        for c in &mut candidates {
            let [program, rest @ ..] = &c.argv[..] else { return Err(usage.into()) };
            let (began, cpu) = (Instant::now(), children_cpu());
            let status = Command::new(program).args(rest).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
            if !status.success() {
                return Err(format!("{}: {status}", c.name).into());
            }
            c.wall.push(began.elapsed());
            c.cpu.push(children_cpu().saturating_sub(cpu));
        }
    }
    let last = candidates.last_mut().map_or(Duration::ZERO, |c| median(&mut c.wall));
    for c in &mut candidates {
        let (wall, cpu) = (median(&mut c.wall), median(&mut c.cpu));
        let ratio = last.as_secs_f64() / wall.as_secs_f64().max(1e-9);
        println!("{:16} {:>8.3} s  {:>8.2} CPU s  {ratio:.2}×", c.name, wall.as_secs_f64(), cpu.as_secs_f64());
    }
    Ok(())
}
