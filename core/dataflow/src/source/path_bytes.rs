//! How paths stand in splits and snapshots, for `#[serde(with)]`: as their bytes, since names of files need not be UTF-8,
//! and serde's own form of a path has no others.

use crate::byte_str::ByteStr;
use serde::{Deserialize, Deserializer, Serializer};
use std::{
    ffi::OsString,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
};

pub(super) fn serialize<S: Serializer>(path: &Path, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_bytes(path.as_os_str().as_bytes())
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<PathBuf, D::Error> {
    ByteStr::deserialize(from).map(path)
}

fn path(bytes: ByteStr) -> PathBuf {
    OsString::from_vec(bytes.into_vec()).into()
}

/// A map whose keys are paths.
pub(super) mod keys {
    use super::path;
    use crate::byte_str::ByteStr;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use std::{collections::BTreeMap, os::unix::ffi::OsStrExt, path::PathBuf};

    pub(in crate::source) fn serialize<S: Serializer, V: Serialize>(
        map: &BTreeMap<PathBuf, V>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.collect_map(map.iter().map(|(path, value)| (ByteStr::new(path.as_os_str().as_bytes()), value)))
    }

    pub(in crate::source) fn deserialize<'de, D: Deserializer<'de>, V: Deserialize<'de>>(
        from: D,
    ) -> Result<BTreeMap<PathBuf, V>, D::Error> {
        let map = BTreeMap::<ByteStr, V>::deserialize(from)?;
        Ok(map.into_iter().map(|(bytes, value)| (path(bytes), value)).collect())
    }
}
