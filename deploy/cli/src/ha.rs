//! `thalweg ha`: looks at what high availability keeps, through the configured plugin, without standing for office. It
//! changes nothing.
//!
//! Arguments, environment and options of a job may hold secrets: `inspect` shows none of them. `export` writes whole
//! records, into a file that only its owner can read.

use crate::{
    common::{Global, read_secret, runtime},
    exit::{Coded, Exit, wrong_use},
};
use anyhow::Context;
use clap::Subcommand;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::{
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use thalweg_config::Configuration;
use thalweg_env::{Env, Shutdown};
use thalweg_spi::{
    ErrorKind, HighAvailabilityServices, LeaderInfo, PluginContext, Secret, ServiceError, Versioned, kind,
};
use thalweg_wire::{CommitRecord, DeploymentRecord, JobRecord, ResultRecord, decode};

/// Longest record that is decoded.
const MAX_RECORD: usize = 64 << 20;
/// How long the plugin may take to find the leader.
const FIND_LEADER: Duration = Duration::from_secs(2);

/// Sub-commands.
#[derive(Subcommand)]
pub enum HaCommand {
    /// Says who leads, what the plugin can do, and how much is stored.
    Status {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Lists the records, with what they say.
    Inspect {
        /// Only those whose key begins so, like `jobs/` or `results/`.
        #[arg(value_name = "KEY-PREFIX", default_value = "")]
        prefix: String,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Writes all records into a file: a backup.
    Export {
        /// A new file.
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

/// Runs one.
pub fn run(global: &Global, command: HaCommand) -> anyhow::Result<Exit> {
    let dir = match (&global.dir, global.existing_dir()) {
        (_, Some(dir)) => dir.canonicalize()?,
        (Some(dir), None) => return Err(wrong_use(format!("there is no folder {}", dir.display()))),
        (None, None) => global.cluster_dir()?,
    };
    let configuration = configuration(global, &dir)?;
    let runtime = runtime()?;
    runtime.block_on(async {
        let env = Env::system(runtime.handle().clone());
        let shutdown = Shutdown::new();
        let secret_file = configuration.security.secret_file.clone().unwrap_or_else(|| dir.join("secret"));
        let context = PluginContext {
            env: env.clone(),
            cluster: configuration.cluster.name.id(),
            cluster_dir: dir.clone(),
            working_dir: dir.clone(),
            // A plugin that needs one says so; a look makes none.
            secret: read_secret(&secret_file).unwrap_or_else(|_| Secret::new(Vec::new())),
            configuration: configuration.effective_toml(),
            shutdown: shutdown.clone(),
        };
        let services = configuration.open::<kind::HighAvailability>(context).await?;
        let looked = Look { configuration: &configuration, services: services.clone(), env };
        let outcome = match command {
            HaCommand::Status { json } => looked.status(json).await,
            HaCommand::Inspect { prefix, json } => looked.inspect(&prefix, json).await,
            HaCommand::Export { file } => looked.export(&file).await,
        };
        // Nothing was written, so nothing is lost when it does not close.
        let _ = services.close().await;
        shutdown.trigger();
        outcome
    })
}

/// What the cluster was started with, where nothing else is named: its plugin is the one that has the records.
fn configuration(global: &Global, dir: &Path) -> anyhow::Result<Configuration> {
    Global { dir: Some(dir.to_owned()), ..global.clone() }.as_started().configuration()
}

struct Look<'a> {
    configuration: &'a Configuration,
    services: Arc<dyn HighAvailabilityServices>,
    env: Env,
}

impl Look<'_> {
    fn plugin(&self) -> &str {
        self.configuration.plugin_name("high-availability")
    }

    async fn leader(&self) -> Option<LeaderInfo> {
        let mut leader = self.services.leader_retrieval().leader();
        // A plugin looks when it is asked, so that the first answer may be that nobody is known yet.
        let found = thalweg_env::timeout(&*self.env.clock, FIND_LEADER, leader.wait_for(Option::is_some)).await;
        found.ok()?.ok()?.clone()
    }

    /// The records, or why they cannot be read and what to do.
    async fn records(&self, prefix: &str) -> anyhow::Result<Vec<(String, Versioned)>> {
        if !self.services.capabilities().durable {
            let text = format!(
                "high-availability {:?} keeps records in the JobManager's memory alone: `thalweg list` asks it",
                self.plugin()
            );
            return Err(Coded(Exit::Failed, text).into());
        }
        self.services.metadata().list(prefix).await.map_err(|e| unreadable(&e))
    }

    async fn status(&self, as_json: bool) -> anyhow::Result<Exit> {
        let can = self.services.capabilities();
        let (leader, records) = (self.leader().await, self.records("").await);
        let count = |records: &[(String, Versioned)]| {
            let of = |is: fn(&str) -> bool| records.iter().filter(|(key, _)| is(key)).count();
            (of(|key| key.starts_with("jobs/") && key.ends_with("/record")), of(|key| key.starts_with("results/")))
        };
        let counted = records.as_ref().map(|records| count(records));
        // As of `cluster status`: is there one?
        let exit = if leader.is_some() { Exit::Ok } else { Exit::Failed };
        if as_json {
            let shown = json!({
                "plugin": self.plugin(),
                "cluster": self.configuration.cluster.name.id(),
                "capabilities": { "durable": can.durable, "shared": can.shared, "standby": can.standby },
                "leader": leader.map(|l| json!({ "epoch": l.epoch, "rest": l.rest, "rpc": l.rpc })),
                "jobs": counted.as_ref().ok().map(|c| c.0),
                "results": counted.as_ref().ok().map(|c| c.1),
                "unreadable": counted.as_ref().err().map(ToString::to_string),
            });
            println!("{}", serde_json::to_string_pretty(&shown)?);
            return Ok(exit);
        }
        let is = |can: bool, what: &str| if can { what.to_owned() } else { format!("not {what}") };
        let standby = if can.standby { "with standbys" } else { "without standby" };
        println!(
            "plugin   {} ({}, {}, {standby})",
            self.plugin(),
            is(can.durable, "durable"),
            is(can.shared, "shared")
        );
        match &leader {
            Some(leader) => {
                let epoch = leader.epoch.map(|e| format!("epoch {e}, ")).unwrap_or_default();
                println!("leader   {epoch}REST {}, RPC {}", leader.rest, leader.rpc);
            }
            None => println!("leader   none"),
        }
        match &counted {
            Ok((jobs, results)) => println!("records  {jobs} jobs, {results} results"),
            Err(e) if leader.is_some() => println!("records  to be asked of the leader: thalweg list ({e:#})"),
            Err(e) => println!("records  {e:#}"),
        }
        Ok(exit)
    }

    async fn inspect(&self, prefix: &str, as_json: bool) -> anyhow::Result<Exit> {
        let records = self.records(prefix).await?;
        let mut damaged = 0;
        let mut shown = Vec::new();
        for (key, found) in &records {
            let described = describe(key, &found.value);
            damaged += usize::from(described.is_err());
            if as_json {
                shown.push(json!({
                    "key": key, "version": found.version, "size": found.value.len(),
                    "says": described.as_ref().ok(), "damaged": described.as_ref().err(),
                }));
            } else {
                let says = described.unwrap_or_else(|e| format!("DAMAGED: {e}"));
                println!("{key}  version {}  {} bytes  {says}", found.version, found.value.len());
            }
        }
        if as_json {
            println!("{}", serde_json::to_string_pretty(&Value::Array(shown))?);
        } else if records.is_empty() {
            println!("no records{}", if prefix.is_empty() { String::new() } else { format!(" below {prefix:?}") });
        }
        if damaged > 0 {
            let text =
                format!("{damaged} of {} records are damaged: `ha export` keeps them as they are", records.len());
            return Err(Coded(Exit::Failed, text).into());
        }
        Ok(Exit::Ok)
    }

    async fn export(&self, file: &Path) -> anyhow::Result<Exit> {
        let records = self.records("").await?;
        let shown = file.display();
        let failed = || format!("{shown} cannot be written");
        let partial = {
            let mut name = file.file_name().ok_or_else(|| wrong_use(format!("{shown} is no file name")))?.to_owned();
            name.push(".partial");
            file.with_file_name(name)
        };
        if file.exists() {
            return Err(wrong_use(format!("{shown} is there already: choose another name, or move it away")));
        }
        // For its owner alone from the first byte on: records hold arguments and environment of jobs.
        let _ = std::fs::remove_file(&partial);
        let made = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial);
        let mut out = std::io::BufWriter::new(made.with_context(failed)?);
        let head = json!({
            "thalweg-high-availability-export": 1, "cluster": self.configuration.cluster.name.id(),
            "plugin": self.plugin(), "records": records.len(),
        });
        let written = (|| {
            writeln!(out, "{head}")?;
            for (key, found) in &records {
                let line = json!({ "key": key, "version": found.version, "value": hex::encode(&found.value) });
                writeln!(out, "{line}")?;
            }
            out.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()?;
            std::fs::rename(&partial, file)
        })();
        if written.is_err() {
            let _ = std::fs::remove_file(&partial);
        }
        written.with_context(failed)?;
        println!("{} records written to {shown}; jobs' arguments are among them: keep it private", records.len());
        Ok(Exit::Ok)
    }
}

/// What to do about records that cannot be read.
fn unreadable(error: &ServiceError) -> anyhow::Error {
    let text = match error.kind() {
        ErrorKind::Unavailable => format!("{error}: `thalweg list` and `thalweg result` ask a JobManager that runs"),
        _ => error.to_string(),
    };
    Coded(Exit::Failed, text).into()
}

fn read<T: DeserializeOwned>(value: &[u8]) -> Result<T, String> {
    decode(value, MAX_RECORD).map_err(|e| e.to_string())
}

/// What a record says, for people; the keys are those of `thalweg_control::stores`.
fn describe(key: &str, value: &[u8]) -> Result<String, String> {
    let parts: Vec<&str> = key.split('/').collect();
    match parts[..] {
        ["jobs", _, "record"] => {
            let record: JobRecord = read(value)?;
            let (name, slots) = (&record.spec.name, record.spec.graph.slots());
            Ok(format!("job {name:?}, needs {slots} slots, submitted {} (Unix ms)", record.submitted.0))
        }
        ["jobs", _, "deployment"] => {
            let record: DeploymentRecord = read(value)?;
            let on: Vec<String> = record.task_managers.iter().map(|t| format!("{} at {}", t.id, t.rpc)).collect();
            Ok(format!("attempt {} on {}", record.attempt, if on.is_empty() { "nobody".into() } else { on.join(", ") }))
        }
        ["jobs", _, "commit"] => {
            let record: CommitRecord = read(value)?;
            Ok(format!("attempt {} is complete, {} sinks to publish", record.attempt, record.manifests.len()))
        }
        ["jobs", _, "cancel"] => {
            read::<bool>(value)?;
            Ok("is to be cancelled".into())
        }
        ["results", _] => {
            let record: ResultRecord = read(value)?;
            let clean = if record.dirty { "dirty: clean-up is still to be done" } else { "clean" };
            let (name, status, attempt) = (&record.result.name, record.result.status, record.result.attempt);
            Ok(format!("job {name:?} {status}, attempt {attempt}, {clean}"))
        }
        _ => Ok("not known to this version".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use thalweg_model::{JobId, JobStatus, UnixMillis};
    use thalweg_wire::{JobResult, encode};

    #[test]
    fn a_record_is_told_in_words_and_a_damaged_one_is_told_to_be_so() {
        let result = JobResult {
            job: JobId::from_bytes([1; 16]),
            name: "words".into(),
            status: JobStatus::Finished,
            failure: None,
            started: UnixMillis(1),
            ended: UnixMillis(2),
            attempt: 3,
            collected: Default::default(),
            source_records: Default::default(),
        };
        let value = encode(&ResultRecord { result, dirty: true });
        let told = describe("results/01", &value).unwrap();
        assert!(told.contains("\"words\" FINISHED") && told.contains("attempt 3") && told.contains("dirty"), "{told}");
        assert!(describe("results/01", &value[..value.len() / 2]).is_err());
        for key in ["jobs/1/record", "jobs/1/deployment", "jobs/1/commit", "jobs/1/cancel", "results/1"] {
            assert!(describe(key, b"\xc1 no record").is_err(), "{key}");
        }
        assert_eq!(describe("jobs/1/cancel", &encode(&true)).unwrap(), "is to be cancelled");
        assert_eq!(describe("something/newer", b"?").unwrap(), "not known to this version");
    }
}
