//! What is written down of a started process, so that whoever comes later finds it: `<folder>/<role>-<id>.json`.

use crate::{Identity, private};
use serde::{Deserialize, Serialize};
use std::{
    io,
    path::{Path, PathBuf},
};
use thalweg_spi::WorkerProfile;

/// One started process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// `jobmanager` or `taskmanager`.
    pub role: String,
    /// Its name among those of its role.
    pub id: String,
    /// Which process.
    #[serde(flatten)]
    pub identity: Identity,
    /// For workers: what they were started for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<WorkerProfile>,
}

impl Record {
    fn path(&self, folder: &Path) -> PathBuf {
        folder.join(format!("{}-{}.json", self.role, self.id))
    }

    /// Writes it, as a whole.
    pub fn write(&self, folder: &Path) -> io::Result<()> {
        private::create_dir(folder)?;
        private::write(&self.path(folder), &serde_json::to_vec_pretty(self)?)
    }

    /// Removes it. What is not there is fine.
    pub fn remove(&self, folder: &Path) -> io::Result<()> {
        private::remove(&self.path(folder))
    }

    /// All that are in the folder, by name; none where there is no folder. A file that is no record is left alone.
    pub fn read_all(folder: &Path) -> io::Result<Vec<Self>> {
        let entries = match std::fs::read_dir(folder) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let mut records = Vec::new();
        for entry in entries {
            let path = entry?.path();
            if path.extension().is_some_and(|e| e == "json") {
                match std::fs::read(&path).and_then(|text| Ok(serde_json::from_slice::<Self>(&text)?)) {
                    Ok(record) => records.push(record),
                    Err(e) => tracing::warn!(file = %path.display(), "is no record of a process: {e}"),
                }
            }
        }
        records.sort_by(|a, b| (&a.role, &a.id).cmp(&(&b.role, &b.id)));
        Ok(records)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_found_again_and_other_files_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("processes");
        assert_eq!(Record::read_all(&folder).unwrap(), []);
        let identity = Identity { pid: 7, start_time: 9 };
        let record = Record { role: "taskmanager".into(), id: "a".into(), identity, profile: None };
        record.write(&folder).unwrap();
        std::fs::write(folder.join("x.json"), "soup").unwrap();
        assert_eq!(Record::read_all(&folder).unwrap(), std::slice::from_ref(&record));
        let text = std::fs::read_to_string(folder.join("taskmanager-a.json")).unwrap();
        assert!(text.contains("\"pid\": 7") && text.contains("\"start_time\": 9"), "{text}");
        record.remove(&folder).unwrap();
        record.remove(&folder).unwrap();
        assert_eq!(Record::read_all(&folder).unwrap(), []);
        assert!(folder.join("x.json").exists());
    }
}
