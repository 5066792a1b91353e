//! Finishes the files of a job that has ended, all at once, and takes away what attempts that failed left behind.

use super::part::{Part, broken, sync_folder};
use crate::{
    codec,
    sink::{
        Committable, Committer, Manifest,
        hidden::{is_unfinished_of, sweep},
    },
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Write},
    path::PathBuf,
    sync::Arc,
};
use thalweg_model::{FailureKind, TaskFailure};

/// Longest list of names that goes into the cluster's records, which some stores bound at a megabyte. A longer one is
/// put beside the files.
const INLINE: usize = 256 << 10;

#[derive(Serialize, Deserialize)]
enum Listed {
    Here(Vec<Part>),
    /// In this file of the sink's folder.
    In(String),
}

/// Of one file sink.
pub(super) struct FileCommitter {
    pub(super) root: PathBuf,
    /// Stands in the hidden names of this sink in this job.
    pub(super) marker: Arc<str>,
    /// Of this attempt alone.
    pub(super) list: String,
    pub(super) parts: Vec<Part>,
}

fn storage(message: impl Into<String>) -> TaskFailure {
    TaskFailure::new(FailureKind::Storage, message)
}

impl FileCommitter {
    fn is_list(&self, name: &str) -> bool {
        is_unfinished_of(name, &self.marker) && !name.contains('/')
    }

    fn write_list(&self, bytes: &[u8]) -> Result<(), TaskFailure> {
        let path = self.root.join(&self.list);
        let write = || {
            let mut file = File::create(&path)?;
            file.write_all(bytes)?;
            file.sync_all()
        };
        write().map_err(|e| broken(&path, &e))?;
        sync_folder(&self.root)
    }

    /// The parts of a manifest; `None` when they were published before.
    fn listed(&self, manifest: &[u8]) -> Result<Option<Vec<Part>>, TaskFailure> {
        let damaged = |e: String| storage(format!("the manifest is damaged: {e}"));
        let parts = match codec::decode(manifest).map_err(damaged)? {
            Listed::Here(parts) => parts,
            Listed::In(name) if self.is_list(&name) => {
                let path = self.root.join(name);
                match fs::read(&path) {
                    Ok(bytes) => codec::decode(&bytes).map_err(damaged)?,
                    // It goes when all else is done.
                    Err(e) if e.kind() == io::ErrorKind::NotFound && self.root.is_dir() => return Ok(None),
                    Err(e) => return Err(broken(&path, &e)),
                }
            }
            Listed::In(name) => return Err(damaged(format!("it names the list {name:?}"))),
        };
        match parts.iter().find(|p| !p.is_plain()) {
            Some(part) => Err(damaged(format!("it names the file {:?} of {:?}", part.name, part.bucket))),
            None => Ok(Some(parts)),
        }
    }

    /// Removes this job's hidden files from the folder and those within.
    fn sweep(&self) {
        let mut folders = vec![self.root.clone()];
        while let Some(folder) = folders.pop() {
            folders.extend(sweep(&folder, &self.marker));
        }
    }
}

impl Committer for FileCommitter {
    fn add(&mut self, part: Committable) -> Result<(), TaskFailure> {
        let part = codec::decode(&part.body)
            .map_err(|e| TaskFailure::new(FailureKind::Lost, format!("a writer's names are damaged: {e}")))?;
        self.parts.push(part);
        Ok(())
    }

    fn prepare(&mut self) -> Result<Manifest, TaskFailure> {
        let encoded = |e| TaskFailure::new(FailureKind::User, e);
        self.parts.sort();
        let parts = std::mem::take(&mut self.parts);
        let bytes = codec::encode(&parts).map_err(encoded)?;
        let listed = if bytes.len() <= INLINE {
            Listed::Here(parts)
        } else {
            self.write_list(&bytes)?;
            Listed::In(self.list.clone())
        };
        let bytes = codec::encode(&listed).map_err(encoded)?;
        Ok(Manifest { bytes: bytes.into(), collected: None })
    }

    fn publish(&mut self, manifest: &[u8]) -> Result<(), TaskFailure> {
        let Some(parts) = self.listed(manifest)? else { return Ok(()) };
        for part in &parts {
            part.finish(&self.root)?;
        }
        let buckets: BTreeSet<&str> = parts.iter().map(|p| p.bucket.as_str()).collect();
        buckets.into_iter().try_for_each(|bucket| sync_folder(&self.root.join(bucket)))?;
        self.sweep();
        Ok(())
    }
}
