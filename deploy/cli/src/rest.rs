//! A small client of the cluster's REST.

use crate::exit::{Coded, Exit};
use serde::de::DeserializeOwned;
use std::time::Duration;
use thalweg_control::{job_manager::bearer, rest::api::ResultAnswer};
use thalweg_model::JobId;
use thalweg_spi::Secret;

/// A cluster's REST.
pub struct Rest {
    base: String,
    secret: Option<Secret>,
    http: reqwest::Client,
}

#[derive(serde::Deserialize)]
struct Errors {
    errors: Vec<String>,
}

impl Rest {
    /// The REST at this address.
    pub fn new(base: impl Into<String>, secret: Option<Secret>) -> Self {
        Self { base: base.into(), secret, http: reqwest::Client::new() }
    }

    /// Sends; a refusal becomes an error in the cluster's words.
    pub async fn send(&self, method: reqwest::Method, route: &str) -> anyhow::Result<reqwest::Response> {
        let mut request = self.http.request(method, format!("{}{route}", self.base)).timeout(Duration::from_secs(30));
        if let Some(secret) = &self.secret {
            request = request.bearer_auth(bearer(secret));
        }
        let response = request.send().await.map_err(|e| {
            let what = if e.is_connect() {
                format!("no cluster answers at {}: is it running?", self.base)
            } else {
                format!("{}: {e}", self.base)
            };
            Coded(Exit::Unknown, what)
        })?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let said = response.json::<Errors>().await.ok().and_then(|e| e.errors.into_iter().next());
        let exit = if status.as_u16() == 404 || status.as_u16() == 400 { Exit::WrongUse } else { Exit::Failed };
        Err(Coded(exit, said.unwrap_or_else(|| format!("the cluster answered {status}"))).into())
    }

    /// Reads JSON.
    pub async fn json<T: DeserializeOwned>(&self, route: &str) -> anyhow::Result<T> {
        let response = self.send(reqwest::Method::GET, route).await?;
        Ok(response.json().await?)
    }

    /// How a job is doing; waits for its end for `wait` milliseconds.
    pub async fn result(&self, job: JobId, wait: u64) -> anyhow::Result<ResultAnswer> {
        self.result_as(job, wait, false).await
    }

    /// The same; `attached` counts as a sign of life of the job's client.
    pub async fn result_as(&self, job: JobId, wait: u64, attached: bool) -> anyhow::Result<ResultAnswer> {
        let route = format!("/api/jobs/{job}/result?wait={wait}&attached={attached}");
        let bytes = self.send(reqwest::Method::GET, &route).await?.bytes().await?;
        Ok(thalweg_wire::decode(&bytes, 256 << 20)?)
    }
}
