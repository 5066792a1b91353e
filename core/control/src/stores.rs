//! What a leader writes down, over the metadata seam: accepted jobs, deployments, commits, results.
//!
//! Keys: `jobs/<id>/record`, `jobs/<id>/deployment`, `jobs/<id>/commit`, `jobs/<id>/cancel`, `results/<id>`.

use crate::job_master::Left;
use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use std::{collections::BTreeMap, sync::Arc};
use thalweg_model::{Epoch, JobId};
use thalweg_spi::{ErrorKind, Expect, Happened, MetadataStore, Result, ServiceError};
use thalweg_wire::{CommitRecord, DeploymentRecord, JobRecord, ResultRecord, decode, encode};

/// Longest record that is read back.
const MAX_RECORD: usize = 64 << 20;

/// The stores of one leader: every write carries its epoch.
#[derive(Clone)]
pub struct Stores {
    metadata: Arc<dyn MetadataStore>,
    epoch: Epoch,
}

/// Is it known whether a write happened?
#[derive(Debug)]
pub enum Written {
    /// It happened.
    Yes,
    /// It did not.
    No(ServiceError),
    /// Nobody knows: write again.
    Unknown(ServiceError),
}

impl From<Result<u64>> for Written {
    fn from(outcome: Result<u64>) -> Self {
        match outcome {
            Ok(_) => Self::Yes,
            Err(e) if e.happened() == Happened::Maybe || e.may_retry() => Self::Unknown(e),
            Err(e) => Self::No(e),
        }
    }
}

impl Written {
    /// As who submits a job is answered: accepted or refused; `Err` when it is written again. A full store takes no job until
    /// somebody has made room, which the client should not wait for in silence. What runs already is tried until there is.
    pub fn for_submission(self) -> Result<std::result::Result<(), ServiceError>, ServiceError> {
        match self {
            Self::Yes => Ok(Ok(())),
            Self::No(e) => Ok(Err(e)),
            Self::Unknown(e) if e.happened() == Happened::No && e.kind() == ErrorKind::QuotaExceeded => Ok(Err(e)),
            Self::Unknown(e) => Err(e),
        }
    }
}

impl Stores {
    /// The stores of the leader of this epoch.
    pub fn new(metadata: Arc<dyn MetadataStore>, epoch: Epoch) -> Self {
        Self { metadata, epoch }
    }

    async fn put<T: Serialize>(&self, key: &str, value: &T) -> Written {
        self.metadata.put(self.epoch, key, Bytes::from(encode(value)), Expect::Any).await.into()
    }

    /// An accepted job.
    pub async fn put_job(&self, record: &JobRecord) -> Written {
        self.put(&format!("jobs/{}/record", record.job), record).await
    }

    /// What is deployed.
    pub async fn put_deployment(&self, job: JobId, record: &DeploymentRecord) -> Written {
        self.put(&format!("jobs/{job}/deployment"), record).await
    }

    /// That the output is complete.
    pub async fn put_commit(&self, job: JobId, record: &CommitRecord) -> Written {
        self.put(&format!("jobs/{job}/commit"), record).await
    }

    /// That it shall be cancelled.
    pub async fn put_cancel(&self, job: JobId) -> Written {
        self.put(&format!("jobs/{job}/cancel"), &true).await
    }

    /// How it ended.
    pub async fn put_result(&self, record: &ResultRecord) -> Written {
        self.put(&format!("results/{}", record.result.job), record).await
    }

    /// Forgets a result.
    pub async fn delete_result(&self, job: JobId) -> Result<()> {
        self.metadata.delete(self.epoch, &format!("results/{job}"), Expect::Any).await
    }

    /// Removes all that is kept for a job but its result.
    pub async fn delete_job(&self, job: JobId) -> Result<()> {
        for (key, _) in self.metadata.list(&format!("jobs/{job}/")).await? {
            self.metadata.delete(self.epoch, &key, Expect::Any).await?;
        }
        Ok(())
    }

    fn read<T: DeserializeOwned>(key: &str, value: &[u8]) -> Result<T> {
        decode(value, MAX_RECORD)
            .map_err(|e| ServiceError::new(ErrorKind::Damaged, "read record", e.to_string()).with("key", key))
    }

    /// All that is kept of jobs that were accepted, in order of submission; and the keys of what is left of jobs that
    /// nobody knows: a write that came after their clean-up.
    pub async fn jobs(&self) -> Result<(Vec<(JobRecord, Left)>, Vec<String>)> {
        // One look at everything: a thousand jobs are not a thousand questions.
        let mut by_job: BTreeMap<String, (Option<JobRecord>, Left, Vec<String>)> = BTreeMap::new();
        for (key, found) in self.metadata.list("jobs/").await? {
            let Some((job, what)) = key.strip_prefix("jobs/").and_then(|rest| rest.split_once('/')) else { continue };
            let (record, left, keys) = by_job.entry(job.to_owned()).or_default();
            match what {
                "record" => *record = Some(Self::read(&key, &found.value)?),
                "deployment" => left.deployment = Some(Self::read(&key, &found.value)?),
                "commit" => left.commit = Some(Self::read(&key, &found.value)?),
                "cancel" => left.cancelled = true,
                // Of a newer version.
                _ => {}
            }
            keys.push(key);
        }
        let (mut jobs, mut unknown) = (Vec::new(), Vec::new());
        for (record, left, keys) in by_job.into_values() {
            match record {
                Some(record) => jobs.push((record, left)),
                None => unknown.extend(keys),
            }
        }
        jobs.sort_by_key(|(record, _)| record.submitted);
        Ok((jobs, unknown))
    }

    /// Removes records by key.
    pub async fn forget(&self, keys: Vec<String>) -> Result<()> {
        for key in keys {
            self.metadata.delete(self.epoch, &key, Expect::Any).await?;
        }
        Ok(())
    }

    /// Results.
    pub async fn results(&self) -> Result<Vec<ResultRecord>> {
        let all = self.metadata.list("results/").await?;
        all.iter().map(|(key, v)| Self::read(key, &v.value)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_store_refuses_a_job_and_an_absent_one_is_tried_again() {
        let answered = |kind, maybe: bool| {
            let error = ServiceError::new(kind, "put record", "as the test wants it");
            let error = if maybe { error.maybe_happened() } else { error };
            Written::from(Err(error)).for_submission().map(|known| known.is_ok()).map_err(|e| e.kind())
        };
        assert!(matches!(Written::Yes.for_submission(), Ok(Ok(()))));
        assert_eq!(answered(ErrorKind::QuotaExceeded, false), Ok(false), "somebody has to make room");
        assert_eq!(answered(ErrorKind::QuotaExceeded, true), Err(ErrorKind::QuotaExceeded), "it may be written");
        assert_eq!(answered(ErrorKind::Unavailable, false), Err(ErrorKind::Unavailable));
        assert_eq!(answered(ErrorKind::PermissionDenied, false), Ok(false));
    }
}
