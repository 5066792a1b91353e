//! Where a cluster's keys are. Every range ends in `/`, so that cluster `a` does not see those of `ab` or `a/b`.

use std::sync::Arc;
use thalweg_model::ClusterId;

/// The keys of one cluster. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    root: Arc<str>,
}

impl Keys {
    pub(crate) fn new(prefix: &str, cluster: &ClusterId) -> Self {
        let prefix = prefix.trim_matches('/');
        let root = if prefix.is_empty() { format!("/{cluster}/") } else { format!("/{prefix}/{cluster}/") };
        Self { root: root.into() }
    }

    /// What all of them begin with.
    pub(crate) fn root(&self) -> &str {
        &self.root
    }

    /// Who leads.
    pub(crate) fn leader(&self) -> String {
        format!("{}@leader", self.root)
    }

    /// A record; with a prefix of keys, what they begin with.
    pub(crate) fn record(&self, key: &str) -> String {
        format!("{}@data/{key}", self.root)
    }

    /// The record's own key.
    pub(crate) fn key_of<'a>(&self, full: &'a [u8]) -> Option<&'a str> {
        std::str::from_utf8(full).ok()?.strip_prefix(&*self.root)?.strip_prefix("@data/")
    }
}

/// The end of the range of all keys that begin with `prefix`: the next text of no greater length.
pub(crate) fn range_end(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    // "\0" is etcd's word for "to the last key".
    vec![0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cluster_lies_in_another_ones_records() {
        let data = |prefix: &str, cluster: &str| Keys::new(prefix, &ClusterId::new(cluster)).record("");
        assert_eq!(data("/thalweg", "a"), "/thalweg/a/@data/");
        assert_eq!(data("/", "a"), "/a/@data/");
        let all = [data("/t", "a"), data("/t", "ab"), data("/t/a", "b"), data("/t/a", "data"), data("/t/a/", "a")];
        for (i, one) in all.iter().enumerate() {
            for (j, other) in all.iter().enumerate() {
                assert!(i == j || !other.starts_with(one), "{one} sees {other}");
            }
        }
        let keys = Keys::new("/t", &ClusterId::new("a"));
        assert_eq!(keys.key_of(b"/t/a/@data/jobs/1"), Some("jobs/1"));
        assert_eq!(keys.key_of(b"/t/ab/@data/jobs/1"), None);
    }

    #[test]
    fn a_range_ends_before_the_next_prefix() {
        assert_eq!(range_end("jobs/1/"), b"jobs/10");
        assert_eq!(range_end(""), [0]);
    }
}
