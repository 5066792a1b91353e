//! Names of files that a sink has not finished: hidden ones, which sources leave out, and which tell whose they are. So
//! each sink of each job knows what its attempts have left behind, and lets be what others write into the same folder.

use crate::build::OpCx;
use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Stands in the hidden name of every file that is not finished.
const IN_PROGRESS: &str = ".inprogress-";

/// Stands in the hidden names of one sink in one job.
pub(super) fn marker(cx: &OpCx) -> Arc<str> {
    let mut of = cx.job().to_string().into_bytes();
    of.extend_from_slice(cx.uid.strip_suffix("/committer").unwrap_or(&cx.uid).as_bytes());
    format!("{:016x}", xxhash_rust::xxh3::xxh3_64(&of)).into()
}

/// The hidden name of a file. The marker tells whose it is.
pub(super) fn hidden_name(name: &str, marker: &str) -> String {
    format!(".{name}{IN_PROGRESS}{marker}")
}

/// Is this the name of a file that a sink has not finished?
pub(crate) fn is_unfinished(name: &[u8]) -> bool {
    name.starts_with(b".") && memchr::memmem::find(name, IN_PROGRESS.as_bytes()).is_some()
}

/// The same, of the sink with this marker.
pub(super) fn is_unfinished_of(name: &str, marker: &str) -> bool {
    name.starts_with('.') && name.strip_suffix(marker).is_some_and(|rest| rest.ends_with(IN_PROGRESS))
}

/// Nobody wants this file any more.
pub(super) fn discard(path: &Path) {
    if let Err(e) = fs::remove_file(path)
        && e.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!("output {} is no part of any result and cannot be removed: {e}", path.display());
    }
}

/// Removes those files that the sink with this marker has left in a folder and whose names are among the unwanted ones.
/// Answers the folders in it.
pub(super) fn clear(folder: &Path, marker: &str, unwanted: impl Fn(&str) -> bool) -> io::Result<Vec<PathBuf>> {
    let mut within = Vec::new();
    for entry in fs::read_dir(folder)?.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => within.push(entry.path()),
            Ok(kind) if kind.is_file() && is_unfinished_of(&name, marker) && unwanted(&name) => discard(&entry.path()),
            _ => {}
        }
    }
    Ok(within)
}

/// Removes all that the sink with this marker has left in a folder. Answers the folders in it. It is called when the output
/// is whole: what cannot be removed is no reason to fail.
pub(super) fn sweep(folder: &Path, marker: &str) -> Vec<PathBuf> {
    clear(folder, marker, |_| true).unwrap_or_else(|e| {
        tracing::warn!("output folder {} cannot be looked through: {e}", folder.display());
        Vec::new()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_names_tell_whose_they_are() {
        let hidden = hidden_name("part-0-1a-3.csv", "00ff");
        assert!(is_unfinished(hidden.as_bytes()) && is_unfinished_of(&hidden, "00ff"));
        assert!(!is_unfinished_of(&hidden, "0ff") && !is_unfinished_of(&hidden, "11ff"));
        assert!(!is_unfinished(b"part-0-1a-3.csv") && !is_unfinished(b"x.inprogress-00ff"));
    }
}
