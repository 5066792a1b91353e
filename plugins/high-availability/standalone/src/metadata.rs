//! Records in memory, fenced by the stored epoch. They end with the process.

use crate::epoch::EpochFile;
use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use std::{collections::BTreeMap, sync::Arc};
use thalweg_model::Epoch;
use thalweg_spi::{ErrorKind, Expect, MetadataStore, Result, ServiceError, Versioned};
use thalweg_support_cluster_folder::{Desk, Keep, blocking};

/// The records of this process.
pub(crate) struct Metadata {
    desk: Desk<EpochFile>,
    records: Arc<Mutex<Records>>,
}

#[derive(Default)]
struct Records {
    by_key: BTreeMap<String, Versioned>,
    /// Of all keys together, so that a key that is deleted and written again has a version of its own.
    last_version: u64,
}

impl Metadata {
    pub(crate) fn new(desk: Desk<EpochFile>) -> Self {
        Self { desk, records: Arc::default() }
    }

    /// Changes the records under this office. The stored epoch is asked for each time: another process may have been
    /// granted one in a folder that was replaced, and a small file is cheap.
    async fn write<T: Send + 'static>(
        &self,
        epoch: Epoch,
        operation: &'static str,
        write: impl FnOnce(&mut Records) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (desk, records) = (self.desk.clone(), self.records.clone());
        blocking(operation, move || {
            desk.under(epoch, operation, |open| {
                let highest = desk.keep().highest(desk.folder(), open)?;
                if epoch < highest {
                    let text = format!("epoch {epoch} is over; the highest that was granted is {highest}");
                    return Err(ServiceError::new(ErrorKind::Fenced, operation, text));
                }
                write(&mut records.lock())
            })
        })
        .await
    }
}

impl Records {
    fn expect(&self, key: &str, expect: Expect, operation: &'static str) -> Result<()> {
        let found = self.by_key.get(key).map(|r| r.version);
        let text = match expect {
            Expect::Any => return Ok(()),
            Expect::Absent if found.is_none() => return Ok(()),
            Expect::Version(wanted) if found == Some(wanted) => return Ok(()),
            Expect::Absent => "it is there already".to_owned(),
            Expect::Version(wanted) => match found {
                Some(found) => format!("it has version {found}, not {wanted}"),
                None => format!("it is not there, and version {wanted} was expected"),
            },
        };
        Err(ServiceError::new(ErrorKind::Conflict, operation, text).with("key", key))
    }
}

#[async_trait]
impl MetadataStore for Metadata {
    async fn get(&self, key: &str) -> Result<Option<Versioned>> {
        Ok(self.records.lock().by_key.get(key).cloned())
    }

    async fn put(&self, epoch: Epoch, key: &str, value: Bytes, expect: Expect) -> Result<u64> {
        let key = key.to_owned();
        let put = move |records: &mut Records| {
            records.expect(&key, expect, "put record")?;
            records.last_version += 1;
            let version = records.last_version;
            records.by_key.insert(key, Versioned { value, version });
            Ok(version)
        };
        self.write(epoch, "put record", put).await
    }

    async fn delete(&self, epoch: Epoch, key: &str, expect: Expect) -> Result<()> {
        let key = key.to_owned();
        let delete = move |records: &mut Records| {
            records.expect(&key, expect, "delete record")?;
            records.by_key.remove(&key);
            Ok(())
        };
        self.write(epoch, "delete record", delete).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<(String, Versioned)>> {
        let records = self.records.lock();
        let from = records.by_key.range(prefix.to_owned()..);
        Ok(from.take_while(|(key, _)| key.starts_with(prefix)).map(|(k, v)| (k.clone(), v.clone())).collect())
    }
}
