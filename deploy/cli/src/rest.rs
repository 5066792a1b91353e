//! A small client of the cluster's REST.

use crate::{
    exit::{Coded, Exit, wrong_use},
    jobs::Overview,
};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use std::time::Duration;
use thalweg_control::{job_manager::bearer, submission::ResultAnswer};
use thalweg_model::JobId;
use thalweg_runtime::cluster_rest::{ClusterRest, Failure};
use thalweg_spi::Secret;

/// A request is answered within this, beside what it asks to wait.
const LIMIT: Duration = Duration::from_secs(20);

/// A cluster's REST, at any of its JobManagers.
pub struct Rest {
    cluster: ClusterRest,
    patient: bool,
}

impl Rest {
    /// The REST at these addresses.
    pub fn new(addresses: Vec<String>, secret: Option<&Secret>) -> Self {
        Self { cluster: ClusterRest::new(addresses, secret.map(bearer)), patient: false }
    }

    /// For commands that wait: a cluster that has answered once may be away for a minute.
    pub fn patient(mut self) -> Self {
        self.patient = true;
        self
    }

    /// Sends; a refusal becomes an error in the cluster's words.
    pub async fn send(&self, method: reqwest::Method, route: &str) -> anyhow::Result<Bytes> {
        self.send_and_wait(method, route, Duration::ZERO).await
    }

    async fn send_and_wait(&self, method: reqwest::Method, route: &str, wait: Duration) -> anyhow::Result<Bytes> {
        let build = |http: &reqwest::Client, at: &str| Ok(http.request(method.clone(), format!("{at}{route}")));
        let limit = wait + LIMIT;
        let answer = if self.patient {
            self.cluster.ask_patiently(build, limit, &|message| eprintln!("{message}")).await
        } else {
            self.cluster.ask(build, limit).await
        };
        answer.map_err(|failure| {
            let exit = match &failure {
                Failure::Away { .. } => Exit::Unknown,
                Failure::Refused { status: 400 | 404, .. } | Failure::Unsent(_) => Exit::WrongUse,
                Failure::Refused { .. } => Exit::Failed,
            };
            Coded(exit, failure.to_string()).into()
        })
    }

    /// Reads JSON.
    pub async fn json<T: DeserializeOwned>(&self, route: &str) -> anyhow::Result<T> {
        Ok(serde_json::from_slice(&self.send(reqwest::Method::GET, route).await?)?)
    }

    /// The job of this id, or of the one whose id begins so.
    pub async fn job(&self, text: &str) -> anyhow::Result<JobId> {
        let wrong = match text.parse() {
            Ok(job) => return Ok(job),
            Err(e) => e,
        };
        let begins = text.to_ascii_lowercase();
        if begins.is_empty() || begins.len() > 31 || !begins.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(wrong_use(format!("{wrong}")));
        }
        let overview: Overview = self.json("/api/overview").await?;
        beginning(&begins, overview.jobs.iter().map(|job| job.id))
    }

    /// How a job is doing; waits for its end for `wait` milliseconds.
    pub async fn result(&self, job: JobId, wait: u64) -> anyhow::Result<ResultAnswer> {
        self.result_as(job, wait, false).await
    }

    /// The same; `attached` counts as a sign of life of the job's client.
    pub async fn result_as(&self, job: JobId, wait: u64, attached: bool) -> anyhow::Result<ResultAnswer> {
        let route = format!("/api/jobs/{job}/result?wait={wait}&attached={attached}");
        let bytes = self.send_and_wait(reqwest::Method::GET, &route, Duration::from_millis(wait)).await?;
        let answer: ResultAnswer = thalweg_wire::decode(&bytes, 256 << 20)?;
        match &answer.result {
            Some(result) if result.job != job => {
                let text = format!("asked for job {job}, the cluster told of job {}", result.job);
                Err(Coded(Exit::Unknown, text).into())
            }
            _ => Ok(answer),
        }
    }
}

/// The one id that begins so.
fn beginning(begins: &str, ids: impl Iterator<Item = JobId>) -> anyhow::Result<JobId> {
    let found: Vec<JobId> = ids.filter(|id| id.to_string().starts_with(begins)).collect();
    match found[..] {
        [one] => Ok(one),
        [] => Err(wrong_use(format!("no job's id begins with {begins}: `thalweg list` shows all"))),
        _ => {
            let all: Vec<_> = found.iter().map(ToString::to_string).collect();
            Err(wrong_use(format!("{} jobs' ids begin with {begins}: {}", found.len(), all.join(", "))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_of_an_id_is_enough_where_one_job_has_it() {
        let id = |first: u8, second: u8| JobId::from_bytes([first, second, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let of = |begins: &str| {
            beginning(begins, [id(0xab, 0x10), id(0xab, 0x2f), id(0xcd, 0)].into_iter()).map_err(|e| e.to_string())
        };
        assert_eq!((of("c"), of("ab2")), (Ok(id(0xcd, 0)), Ok(id(0xab, 0x2f))));
        assert!(of("e").unwrap_err().contains("thalweg list"));
        let several = of("ab").unwrap_err();
        assert!(several.contains("2 jobs'") && several.contains("ab10") && several.contains("ab2f"), "{several}");
    }
}
