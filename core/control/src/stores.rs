//! What a leader writes down, over the metadata seam: accepted jobs, deployments, commits, results.
//!
//! Keys: `jobs/<id>/record`, `jobs/<id>/deployment`, `jobs/<id>/commit`, `jobs/<id>/cancel`, `results/<id>`.

use crate::job_master::Left;
use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use std::{collections::BTreeMap, sync::Arc};
use thalweg_model::{Epoch, FailureKind, JobId, TaskFailure};
use thalweg_spi::{ErrorKind, Expect, Happened, MetadataStore, Result, ServiceError};
use thalweg_wire::{CommitRecord, DeploymentRecord, JobRecord, JobResult, ResultRecord, decode, encode};

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

/// What becomes of an attempt whose deployment is not written down.
pub fn deployment_refused(e: &ServiceError) -> TaskFailure {
    let kind = if e.kind() == ErrorKind::TooLarge { FailureKind::Incompatible } else { FailureKind::Storage };
    TaskFailure::new(kind, e.to_string())
}

/// What becomes of a job whose output is complete and cannot be written down as that. One that is too large is so again.
pub fn commit_refused(record: &CommitRecord, e: &ServiceError) -> TaskFailure {
    if e.kind() != ErrorKind::TooLarge {
        return TaskFailure::new(FailureKind::Storage, e.to_string());
    }
    let bytes = |of: &BTreeMap<String, Bytes>| of.values().map(Bytes::len).sum::<usize>();
    let (collected, published) = (bytes(&record.collected), bytes(&record.manifests));
    let message = if collected >= published {
        format!(
            "collect() has gathered {collected} bytes, more than the cluster's metadata store takes: collect less, or \
             write_text() to a folder ({e})"
        )
    } else {
        format!(
            "what the sinks are to publish is told in {published} bytes, more than the cluster's metadata store takes: write \
             fewer and larger files ({e})"
        )
    };
    let of = if collected >= published { &record.collected } else { &record.manifests };
    let largest = of.iter().max_by_key(|(_, bytes)| bytes.len()).map(|(uid, _)| uid.clone());
    TaskFailure { uid: largest, ..TaskFailure::new(FailureKind::User, message) }
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

    /// How it ended. It says a little more than the commit did, whose size was taken: where that is too much, only who asks
    /// this leader has what was collected.
    pub async fn put_result(&self, record: &ResultRecord) -> Written {
        let job = record.result.job;
        let key = format!("results/{job}");
        match self.put(&key, record).await {
            Written::No(e) if e.kind() == ErrorKind::TooLarge && !record.result.collected.is_empty() => {
                tracing::warn!(%job, "the job's result is kept without what was collected: {e}");
                let result = JobResult { collected: BTreeMap::new(), ..record.result.clone() };
                self.put(&key, &ResultRecord { result, dirty: record.dirty }).await
            }
            written => written,
        }
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
    use async_trait::async_trait;
    use parking_lot::Mutex;
    use thalweg_model::{Attempt, JobStatus, UnixMillis};
    use thalweg_spi::Versioned;

    /// Takes records of at most so many bytes.
    struct Narrow(usize, Mutex<BTreeMap<String, Bytes>>);

    #[async_trait]
    impl MetadataStore for Narrow {
        async fn get(&self, key: &str) -> Result<Option<Versioned>> {
            Ok(self.1.lock().get(key).map(|value| Versioned { value: value.clone(), version: 1 }))
        }
        async fn put(&self, _: Epoch, key: &str, value: Bytes, _: Expect) -> Result<u64> {
            if value.len() > self.0 {
                return Err(ServiceError::new(ErrorKind::TooLarge, "put record", "it is narrow here"));
            }
            self.1.lock().insert(key.to_owned(), value);
            Ok(1)
        }
        async fn delete(&self, _: Epoch, key: &str, _: Expect) -> Result<()> {
            self.1.lock().remove(key);
            Ok(())
        }
        async fn list(&self, prefix: &str) -> Result<Vec<(String, Versioned)>> {
            let all = self.1.lock();
            let found = all.iter().filter(|(key, _)| key.starts_with(prefix));
            Ok(found.map(|(key, value)| (key.clone(), Versioned { value: value.clone(), version: 1 })).collect())
        }
    }

    fn narrow() -> Stores {
        Stores::new(Arc::new(Narrow(1000, Mutex::default())), Epoch(1))
    }

    #[tokio::test]
    async fn an_output_that_is_too_large_to_be_written_down_is_the_programs() {
        let job = JobId::from_bytes([1; 16]);
        let of = |uid: &str, n: usize| BTreeMap::from([(uid.to_owned(), Bytes::from(vec![0; n]))]);
        for (collected, published, told) in [(2000, 10, "collect less"), (10, 2000, "fewer and larger files")] {
            let attempt = Attempt { epoch: Epoch(1), n: 0 };
            let (collected, manifests) = (of("answers", collected), of("files", published));
            let record = CommitRecord { attempt, manifests, collected };
            let Written::No(e) = narrow().put_commit(job, &record).await else { panic!() };
            let failure = commit_refused(&record, &e);
            let uid = if told == "collect less" { "answers" } else { "files" };
            assert_eq!((failure.kind, failure.uid.as_deref()), (FailureKind::User, Some(uid)));
            assert!(failure.message.contains(told) && failure.message.contains("2000 bytes"), "{failure}");
            let down = ServiceError::new(ErrorKind::PermissionDenied, "put record", "as the test wants it");
            assert_eq!(commit_refused(&record, &down).kind, FailureKind::Storage);
        }
    }

    #[tokio::test]
    async fn a_result_that_is_too_large_is_kept_without_what_was_collected() {
        let result = |bytes| JobResult {
            job: JobId::from_bytes([1; 16]),
            name: "wide".into(),
            status: JobStatus::Finished,
            failure: None,
            started: UnixMillis(1),
            ended: UnixMillis(2),
            attempt: 0,
            collected: BTreeMap::from([("answers".to_owned(), Bytes::from(vec![0; bytes]))]),
            source_records: BTreeMap::new(),
        };
        for (bytes, kept) in [(100, 1), (2000, 0)] {
            let stores = narrow();
            let written = stores.put_result(&ResultRecord { result: result(bytes), dirty: true }).await;
            assert!(matches!(written, Written::Yes), "{written:?}");
            let all = stores.results().await.unwrap();
            assert_eq!((all.len(), all[0].result.collected.len(), all[0].dirty), (1, kept, true));
        }
    }

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
