//! Records in memory, fenced by the stored epoch. They end with the process.

use crate::election::Election;
use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use std::{collections::BTreeMap, sync::Arc};
use thalweg_model::Epoch;
use thalweg_spi::{ErrorKind, Expect, MetadataStore, Result, ServiceError, Versioned};

/// The records of this process.
pub(crate) struct Metadata {
    election: Arc<Election>,
    records: Mutex<Records>,
}

#[derive(Default)]
struct Records {
    by_key: BTreeMap<String, Versioned>,
    /// Of all keys together, so that a key that is deleted and written again has a version of its own.
    last_version: u64,
}

impl Metadata {
    pub(crate) fn new(election: Arc<Election>) -> Self {
        Self { election, records: Mutex::default() }
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
        self.election.check(epoch, "put record")?;
        let mut records = self.records.lock();
        records.expect(key, expect, "put record")?;
        records.last_version += 1;
        let version = records.last_version;
        records.by_key.insert(key.to_owned(), Versioned { value, version });
        Ok(version)
    }

    async fn delete(&self, epoch: Epoch, key: &str, expect: Expect) -> Result<()> {
        self.election.check(epoch, "delete record")?;
        let mut records = self.records.lock();
        records.expect(key, expect, "delete record")?;
        records.by_key.remove(key);
        Ok(())
    }

    async fn list(&self, prefix: &str) -> Result<Vec<(String, Versioned)>> {
        let records = self.records.lock();
        let from = records.by_key.range(prefix.to_owned()..);
        Ok(from.take_while(|(key, _)| key.starts_with(prefix)).map(|(k, v)| (k.clone(), v.clone())).collect())
    }
}
