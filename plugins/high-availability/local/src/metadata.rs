//! The records of the cluster, as this process may see them: all of them while it leads, and to read while nobody does.

use crate::{
    services::Office,
    store::{FILE, Question, Store, ask_without_office},
};
use async_trait::async_trait;
use bytes::Bytes;
use thalweg_model::Epoch;
use thalweg_spi::{ErrorKind, Expect, MetadataStore, Result, ServiceError, Versioned};
use thalweg_support_cluster_folder::{Desk, blocking};

/// The records of this process.
pub(crate) struct Metadata {
    desk: Desk<Office>,
}

impl Metadata {
    pub(crate) fn new(desk: Desk<Office>) -> Self {
        Self { desk }
    }

    async fn ask(&self, question: Question) -> Result<Vec<(String, Versioned)>> {
        let desk = self.desk.clone();
        blocking(question.operation(), move || match desk.if_open(|store| store.ask(&question)) {
            Some(answer) => answer,
            None => ask_without_office(desk.folder(), &question),
        })
        .await
    }

    async fn write<T: Send + 'static>(
        &self,
        epoch: Epoch,
        operation: &'static str,
        write: impl FnOnce(&Store) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let desk = self.desk.clone();
        blocking(operation, move || {
            desk.under(epoch, operation, |store| {
                if store.is_in_place() {
                    return write(store);
                }
                // What was written here would be acknowledged and not be there for the next leader.
                desk.lose(epoch);
                let file = desk.folder().file(FILE);
                let text = format!("{} was removed or replaced: this process leads no longer", file.display());
                Err(ServiceError::new(ErrorKind::Fenced, operation, text))
            })
        })
        .await
    }
}

#[async_trait]
impl MetadataStore for Metadata {
    async fn get(&self, key: &str) -> Result<Option<Versioned>> {
        Ok(self.ask(Question::Get(key.to_owned())).await?.pop().map(|(_, found)| found))
    }

    async fn put(&self, epoch: Epoch, key: &str, value: Bytes, expect: Expect) -> Result<u64> {
        let key = key.to_owned();
        self.write(epoch, "put record", move |store| store.put(epoch, &key, &value, expect)).await
    }

    async fn delete(&self, epoch: Epoch, key: &str, expect: Expect) -> Result<()> {
        let key = key.to_owned();
        self.write(epoch, "delete record", move |store| store.delete(epoch, &key, expect)).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<(String, Versioned)>> {
        self.ask(Question::List(prefix.to_owned())).await
    }
}
