//! `list`, `info`, `cancel`, `result`: what a cluster knows of jobs.

use crate::{
    common::Global,
    exit::{Exit, wrong_use},
    rest::Rest,
    run::check_job,
};
use std::{path::PathBuf, process::Command};
use thalweg_model::{JobGraph, JobId, JobStatus};
use thalweg_runtime::role;
use thalweg_wire::role::{FromClient, Role};

#[derive(serde::Deserialize, serde::Serialize)]
pub struct Overview {
    pub cluster: String,
    pub epoch: u64,
    #[serde(default)]
    pub pid: u32,
    pub taskmanagers: Vec<Worker>,
    pub jobs: Vec<Listed>,
}

#[derive(serde::Deserialize, serde::Serialize)]
pub struct Worker {
    pub id: String,
    pub pid: u32,
    pub rpc: String,
    pub slots: u32,
    pub free: u32,
}

#[derive(serde::Deserialize, serde::Serialize)]
pub struct Listed {
    pub id: JobId,
    pub name: String,
    pub status: JobStatus,
    pub submitted: u64,
    pub waiting: Option<String>,
    pub attempt: u32,
}

fn rest(global: &Global) -> anyhow::Result<Rest> {
    let (addresses, secret) = global.cluster()?;
    Ok(Rest::new(addresses, secret.as_ref()))
}

/// `thalweg list`.
pub fn list(global: &Global, json: bool) -> anyhow::Result<Exit> {
    let rest = rest(global)?;
    let overview: Overview = crate::common::runtime()?.block_on(rest.json("/api/overview"))?;
    if json {
        println!("{}", serde_json::to_string_pretty(&overview.jobs)?);
        return Ok(Exit::Ok);
    }
    if overview.jobs.is_empty() {
        println!("no jobs; submit one with `thalweg run JOB`");
    }
    for job in overview.jobs {
        let restarts = if job.attempt > 0 { format!("  attempt {}", job.attempt) } else { String::new() };
        let waiting = job.waiting.map(|w| format!("  {w}")).unwrap_or_default();
        println!("{}  {:<10}  {}{restarts}{waiting}", job.id, job.status.to_string(), job.name);
    }
    Ok(Exit::Ok)
}

/// `thalweg cancel`.
pub fn cancel(global: &Global, job: &str) -> anyhow::Result<Exit> {
    let rest = rest(global)?.patient();
    crate::common::runtime()?.block_on(async {
        let job = rest.job(job).await?;
        rest.send(reqwest::Method::PATCH, &format!("/jobs/{job}?mode=cancel")).await?;
        loop {
            let answer = rest.result(job, 1000).await?;
            if answer.result.is_some() {
                println!("job {job} {}", answer.status);
                return Ok(if answer.status == JobStatus::Canceled { Exit::Ok } else { Exit::of(answer.status) });
            }
        }
    })
}

/// `thalweg result`.
pub fn result(global: &Global, job: &str, json: bool) -> anyhow::Result<Exit> {
    let rest = rest(global)?.patient();
    crate::common::runtime()?.block_on(async {
        let job = rest.job(job).await?;
        loop {
            let answer = rest.result(job, 5000).await?;
            let Some(result) = answer.result else { continue };
            if json {
                let shown = serde_json::json!({
                    "job": result.job, "name": result.name, "status": result.status, "started": result.started,
                    "ended": result.ended, "attempt": result.attempt, "source-records": result.source_records,
                    "failure": result.failure.as_ref().map(ToString::to_string),
                });
                println!("{}", serde_json::to_string_pretty(&shown)?);
            } else {
                let seconds = result.ended.0.saturating_sub(result.started.0) as f64 / 1e3;
                let records: u64 = result.source_records.values().sum();
                println!(
                    "job {} ({}) {} after {seconds:.3} s, {records} records from sources, attempt {}",
                    result.job, result.name, result.status, result.attempt
                );
                if let Some(failure) = &result.failure {
                    println!("{failure}");
                }
            }
            return Ok(Exit::of(result.status));
        }
    })
}

/// `thalweg info`: the plan of a job's first execute.
pub fn info(global: &Global, parallelism: Option<u32>, job: PathBuf, args: Vec<String>) -> anyhow::Result<Exit> {
    let job = check_job(&job)?;
    let configured = global.configuration()?.pipeline.parallelism.max(1);
    let (mut ours, theirs) = role::pair()?;
    let mut command = Command::new(&job);
    command.args(&args);
    role::hand_over(&mut command, theirs);
    let mut child = command.spawn().map_err(|e| wrong_use(format!("{} cannot be started: {e}", job.display())))?;
    drop(command);
    // What is no Thalweg job ends without listening, and is told so below.
    let _ = role::assign(&mut ours, &Role::Plan { parallelism: parallelism.unwrap_or(configured) });
    let said = role::next_message(&mut ours).ok().flatten();
    let status = child.wait()?;
    match said {
        Some(FromClient::Plan { name, graph }) => {
            print_plan(&name, &graph);
            Ok(Exit::Ok)
        }
        _ => Err(wrong_use(format!(
            "{} ended ({status}) without an execute(): is it a Thalweg job, and are its arguments right?",
            job.display()
        ))),
    }
}

fn print_plan(name: &str, graph: &JobGraph) {
    println!("{name}: {} slots, {}", graph.slots(), if graph.bounded { "bounded" } else { "unbounded" });
    for (i, vertex) in graph.vertices.iter().enumerate() {
        println!("  {i:>3}  {} × {}", vertex.name(), vertex.parallelism);
        for operator in &vertex.operators {
            println!("         {} [{}]", operator.uid, operator.kind);
        }
        for edge in graph.edges.iter().filter(|e| e.from as usize == i && !e.feedback) {
            println!("         └▶ {}  {:?}", edge.to, edge.partitioner);
        }
    }
}
