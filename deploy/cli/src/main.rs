//! The `thalweg` command. Each sub-command is a file; this one only reads the arguments.

mod cluster;
mod cluster_files;
mod common;
mod config;
mod exit;
mod ha;
mod job_manager;
mod jobs;
mod logging;
mod logs;
mod new;
mod per_job;
mod plugins;
mod progress;
mod rest;
mod run;
mod task_manager;

use clap::{
    CommandFactory, Parser, Subcommand,
    error::{ContextKind, ContextValue},
};
use common::Global;
use exit::Exit;
use std::{path::PathBuf, process::ExitCode};
// Every plugin of this build.
use thalweg_bundle as _;

#[cfg(not(feature = "etcd"))]
thalweg_spi::inventory::submit! { thalweg_spi::LeftOut {
    kind: "high-availability",
    name: "etcd",
    remedy: "etcd is left out of it: cargo install --path deploy/cli --features etcd, which needs protobuf-compiler and libprotobuf-dev",
} }

/// Runs Thalweg: clusters, their processes, and jobs on them.
#[derive(Parser)]
#[command(name = "thalweg", version, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs a JobManager in the foreground.
    #[command(name = "jobmanager")]
    JobManager {
        /// File with the cluster's secret; made in the cluster's folder when absent.
        #[arg(long, value_name = "FILE")]
        secret_file: Option<PathBuf>,
        /// Its name among the cluster's JobManagers; its pid when absent.
        #[arg(long, value_name = "ID")]
        id: Option<String>,
        /// Per job: the job's executable, which this JobManager runs as a client of itself.
        #[arg(long, value_name = "JOB")]
        job: Option<PathBuf>,
        /// Where the client stood: relative paths of the job begin there.
        #[arg(long, value_name = "DIR")]
        client_dir: Option<PathBuf>,
        /// The job's arguments.
        #[arg(last = true)]
        args: Vec<String>,
    },
    /// Runs a TaskManager in the foreground.
    #[command(name = "taskmanager")]
    TaskManager {
        /// File with the cluster's secret; looked for in the cluster's folder when absent.
        #[arg(long, value_name = "FILE")]
        secret_file: Option<PathBuf>,
    },
    /// Starts, looks at and stops a cluster on this machine.
    Cluster {
        #[command(subcommand)]
        command: cluster::ClusterCommand,
    },
    /// Looks at what high availability keeps; changes nothing.
    Ha {
        #[command(subcommand)]
        command: ha::HaCommand,
    },
    /// Submits a job: on a session cluster, or on a cluster of its own with --deployment per-job.
    Run(run::RunArgs),
    /// Lists the jobs of a cluster.
    List {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Prints a job's plan; runs nothing.
    Info {
        /// Parallelism of what the program leaves open.
        #[arg(short, long, value_name = "N")]
        parallelism: Option<u32>,
        /// The job's executable.
        job: PathBuf,
        /// Its arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Cancels a job.
    Cancel {
        /// The job's id, or as much of its beginning as no other job has.
        job: String,
    },
    /// Waits for a job's end and prints its result.
    Result {
        /// The job's id, or as much of its beginning as no other job has.
        job: String,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Prints what a job wrote.
    Logs {
        /// Goes on until the job has ended.
        #[arg(short, long)]
        follow: bool,
        /// The job's id, or as much of its beginning as no other job has.
        job: String,
    },
    /// Lists the plugins of this build.
    Plugins {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Shows and checks the configuration.
    Config {
        #[command(subcommand)]
        command: config::ConfigCommand,
    },
    /// Makes a job project.
    New {
        /// Its name, and the folder's.
        name: String,
        /// A checkout of Thalweg to build against; else the one that this command was built in, if it is still there.
        #[arg(long, value_name = "CHECKOUT")]
        path: Option<PathBuf>,
    },
    /// Prints completions for a shell.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            let _ = e.print();
            if let Some(hint) = flinks(&e) {
                eprintln!("\n{hint}");
            }
            return if e.use_stderr() { Exit::WrongUse.into() } else { Exit::Ok.into() };
        }
    };
    // A reader that has seen enough (`thalweg plugins | head`) ends a command in silence, as it does with any other. What
    // serves goes on.
    if !matches!(cli.command, Command::JobManager { .. } | Command::TaskManager { .. }) {
        default_sigpipe();
    }
    let outcome = run(cli);
    match outcome {
        Ok(exit) => exit.into(),
        Err(e) => {
            eprintln!("thalweg: {e:#}");
            exit::of(&e).into()
        }
    }
}

/// What to do instead of a sub-command that Flink has.
fn flinks(error: &clap::Error) -> Option<&'static str> {
    let Some(ContextValue::String(command)) = error.get(ContextKind::InvalidSubcommand) else { return None };
    Some(match command.as_str() {
        "stop" => {
            "`thalweg cancel JOB` ends a job without a savepoint, which are not there yet; `thalweg cluster stop` ends a cluster"
        }
        "savepoint" | "checkpoint" => "savepoints and checkpoints are not there yet: see README.md",
        "run-application" => "`thalweg run --deployment per-job JOB` gives a job a cluster of its own",
        "start" | "start-cluster" => "`thalweg cluster start` starts a cluster on this machine",
        _ => return None,
    })
}

#[allow(unsafe_code)]
fn default_sigpipe() {
    use nix::sys::signal::{SigHandler, Signal, signal};
    // SAFETY: no handler is installed, so none can be called.
    let _ = unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) };
}

fn run(cli: Cli) -> anyhow::Result<Exit> {
    let global = cli.global;
    match cli.command {
        Command::JobManager { secret_file, id, job, client_dir, args } => job_manager::run(
            &global.as_started(),
            job_manager::JobManagerArgs { secret_file, id, job, client_dir, args },
        ),
        Command::TaskManager { secret_file } => task_manager::run(&global.as_started(), secret_file),
        Command::Cluster { command } => cluster::run(&global, command),
        Command::Ha { command } => ha::run(&global, command),
        Command::Run(args) => run::run(&global, args),
        Command::List { json } => jobs::list(&global, json),
        Command::Info { parallelism, job, args } => jobs::info(&global, parallelism, job, args),
        Command::Cancel { job } => jobs::cancel(&global, &job),
        Command::Result { job, json } => jobs::result(&global, &job, json),
        Command::Logs { follow, job } => logs::run(&global, &job, follow),
        Command::Plugins { json } => plugins::run(json),
        Command::Config { command } => config::run(&global, command),
        Command::New { name, path } => new::run(&name, path),
        Command::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "thalweg", &mut text);
            // Whoever reads it may have seen enough.
            let _ = std::io::Write::write_all(&mut std::io::stdout(), &text);
            Ok(Exit::Ok)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_of_flink_are_told_what_to_do_instead() {
        let told = |args: &[&str]| Cli::try_parse_from(args).err().and_then(|e| flinks(&e)).unwrap_or_default();
        assert!(told(&["thalweg", "stop", "4f"]).contains("thalweg cancel JOB"));
        assert!(told(&["thalweg", "savepoint", "4f"]).contains("not there yet"));
        assert!(told(&["thalweg", "run-application", "x"]).contains("per-job"));
        assert_eq!(told(&["thalweg", "nonsense"]), "");
    }
}
