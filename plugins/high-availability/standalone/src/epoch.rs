//! Where the highest epoch is kept: a file with a number, replaced and synced before the epoch is used.

use std::io;
use thalweg_model::{Epoch, UnixMillis};
use thalweg_spi::{ErrorKind, Result, ServiceError};
use thalweg_support_cluster_folder::{Folder, Keep, next_epoch};

const EPOCH: &str = "epoch";

/// The epoch file. Nothing else is open while this process leads.
pub(crate) struct EpochFile;

fn stored(folder: &Folder) -> Result<Epoch> {
    let path = folder.file(EPOCH);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Epoch(0)),
        Err(e) => return Err(folder.error("read epoch", e)),
    };
    text.trim().parse().map(Epoch).map_err(|_| {
        let text =
            format!("{} does not hold a number; remove it: the next epoch is taken from the time", path.display());
        ServiceError::new(ErrorKind::Damaged, "read epoch", text)
    })
}

impl Keep for EpochFile {
    type Open = ();

    fn take_office(&self, folder: &Folder, now: UnixMillis) -> Result<(Epoch, ())> {
        let epoch = next_epoch(stored(folder)?, now);
        let written = folder.replace(EPOCH, format!("{epoch}\n").as_bytes());
        written.map_err(|e| folder.error("store epoch", e))?;
        Ok((epoch, ()))
    }

    fn highest(&self, folder: &Folder, (): &()) -> Result<Epoch> {
        stored(folder)
    }
}
