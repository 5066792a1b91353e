//! What a job wrote: the standard output and error of its task hosts, from every TaskManager, by REST.

use crate::{common::Global, exit::Exit, rest::Rest};
use std::{collections::BTreeMap, io::Write};
use thalweg_model::JobId;

#[derive(serde::Deserialize)]
struct Listed {
    logs: Vec<Log>,
}

#[derive(serde::Deserialize)]
struct Log {
    taskmanager: String,
    name: String,
    size: u64,
}

/// How far each file was read.
#[derive(Default)]
pub struct Follow(BTreeMap<(String, String), u64>);

impl Follow {
    /// What was written since the last time, of files with this ending.
    pub async fn more(&mut self, rest: &Rest, job: JobId, ending: &str) -> anyhow::Result<Vec<u8>> {
        let listed: Listed = rest.json(&format!("/api/jobs/{job}/logs")).await?;
        let mut out = Vec::new();
        for log in listed.logs.iter().filter(|l| l.name.ends_with(ending)) {
            let at = self.0.entry((log.taskmanager.clone(), log.name.clone())).or_default();
            while *at < log.size {
                let route = format!("/api/taskmanagers/{}/logs/{}?offset={at}", log.taskmanager, log.name);
                let piece = rest.send(reqwest::Method::GET, &route).await?;
                if piece.is_empty() {
                    break;
                }
                *at += piece.len() as u64;
                out.extend_from_slice(&piece);
            }
        }
        Ok(out)
    }
}

/// `thalweg logs`.
pub fn run(global: &Global, job: &str, follow: bool) -> anyhow::Result<Exit> {
    let (addresses, secret) = global.cluster()?;
    let rest = Rest::new(addresses, secret.as_ref());
    let rest = if follow { rest.patient() } else { rest };
    crate::common::runtime()?.block_on(async {
        let job = rest.job(job).await?;
        let (mut out, mut err) = (Follow::default(), Follow::default());
        loop {
            // Asked before the logs are read, so that the last lines of a job that ends meanwhile are not missed.
            let status = rest.result(job, 0).await?.status;
            let (written, complained) = (out.more(&rest, job, ".out").await?, err.more(&rest, job, ".err").await?);
            std::io::stdout().write_all(&written)?;
            std::io::stdout().flush()?;
            std::io::stderr().write_all(&complained)?;
            if !follow || status.is_terminal() {
                return Ok(Exit::Ok);
            }
            rest.result(job, 200).await?;
        }
    })
}
