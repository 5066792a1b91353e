//! Refuses combinations of plugins that lose data, before anything starts.

use crate::{BlobCapabilities, HighAvailabilityCapabilities, ProviderCapabilities, ShuffleCapabilities};

/// What was chosen, by what it can do. Names are for the message.
#[derive(Debug, Clone, Copy)]
pub struct Chosen<'a> {
    /// High availability.
    pub high_availability: (&'a str, HighAvailabilityCapabilities),
    /// Blobs.
    pub blob: (&'a str, BlobCapabilities),
    /// Shuffle.
    pub shuffle: (&'a str, ShuffleCapabilities),
    /// Resource provider; `None` when all is in one process.
    pub resource_provider: Option<(&'a str, ProviderCapabilities)>,
    /// `cluster.single-host`.
    pub single_host: bool,
}

/// All that is wrong with the combination, a line each.
pub fn check(chosen: &Chosen<'_>) -> Result<(), Vec<String>> {
    let mut wrong = Vec::new();
    let ((ha_name, ha), (blob_name, blob)) = (chosen.high_availability, chosen.blob);
    if ha.durable && !blob.durable {
        wrong.push(format!(
            "high-availability {ha_name:?} keeps jobs over restarts, but blob {blob_name:?} does not keep their executables: choose a durable blob plugin"
        ));
    }
    if ha.durable && ha.shared && !blob.shared && !chosen.single_host {
        wrong.push(format!(
            "high-availability {ha_name:?} lets another host take over, but it could not read the blobs of {blob_name:?}: choose a shared blob plugin, or set cluster.single-host = true when all processes run on this host"
        ));
    }
    let (shuffle_name, shuffle) = chosen.shuffle;
    if chosen.resource_provider.is_some() && !shuffle.between_processes {
        wrong.push(format!(
            "shuffle {shuffle_name:?} carries nothing between processes, and this cluster has several: choose shuffle \"network\""
        ));
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen() -> Chosen<'static> {
        Chosen {
            high_availability: ("h", HighAvailabilityCapabilities { durable: true, shared: true, standby: true }),
            blob: ("b", BlobCapabilities { durable: true, shared: true }),
            shuffle: ("s", ShuffleCapabilities { between_processes: true, between_hosts: true }),
            resource_provider: Some(("r", ProviderCapabilities { passive: false, quota: false, recovers: false })),
            single_host: false,
        }
    }

    #[test]
    fn combinations_that_lose_data_are_refused() {
        assert_eq!(check(&chosen()), Ok(()));
        let mut c = chosen();
        c.blob.1.shared = false;
        assert!(check(&c).unwrap_err()[0].contains("cluster.single-host"));
        c.single_host = true;
        assert_eq!(check(&c), Ok(()));
        c.blob.1.durable = false;
        assert!(check(&c).unwrap_err()[0].contains("durable blob"));
        let mut c = chosen();
        c.shuffle.1.between_processes = false;
        assert!(check(&c).unwrap_err()[0].contains("choose shuffle \"network\""));
        c.resource_provider = None;
        assert_eq!(check(&c), Ok(()));
    }
}
