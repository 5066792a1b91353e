//! Who was not heard of for too long. Pure: it is told when somebody was heard and what time it is.

use std::{collections::BTreeMap, time::Duration};
use thalweg_model::Moment;

/// How often, and how long a silence may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeartbeatSettings {
    /// Time between two heartbeats.
    pub interval: Duration,
    /// Silence after which a peer is lost; longer than the interval.
    pub timeout: Duration,
}

impl Default for HeartbeatSettings {
    fn default() -> Self {
        Self { interval: Duration::from_secs(10), timeout: Duration::from_secs(50) }
    }
}

/// The peers that are watched.
#[derive(Debug, Clone)]
pub struct HeartbeatMonitor<P: Ord> {
    timeout: Duration,
    heard: BTreeMap<P, Moment>,
}

impl<P: Ord + Clone> HeartbeatMonitor<P> {
    /// Nobody is watched.
    pub fn new(settings: HeartbeatSettings) -> Self {
        Self { timeout: settings.timeout, heard: BTreeMap::new() }
    }

    /// Begins to watch, as if the peer was heard now.
    pub fn watch(&mut self, peer: P, now: Moment) {
        self.heard.insert(peer, now);
    }

    /// The peer was heard. One that is not watched (any more) is ignored.
    pub fn heard(&mut self, peer: &P, now: Moment) {
        if let Some(at) = self.heard.get_mut(peer) {
            *at = (*at).max(now);
        }
    }

    /// No longer watched.
    pub fn forget(&mut self, peer: &P) {
        self.heard.remove(peer);
    }

    /// Takes out those that were silent for too long.
    pub fn expired(&mut self, now: Moment) -> Vec<P> {
        let timeout = self.timeout;
        let lost: Vec<P> =
            self.heard.iter().filter(|(_, at)| now.since(**at) >= timeout).map(|(peer, _)| peer.clone()).collect();
        for peer in &lost {
            self.heard.remove(peer);
        }
        lost
    }

    /// When to look again; `None` while nobody is watched.
    pub fn next_deadline(&self) -> Option<Moment> {
        self.heard.values().min().map(|at| *at + self.timeout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_loss_and_is_told_once() {
        let at = |s| Moment::from_start(Duration::from_secs(s));
        let mut monitor = HeartbeatMonitor::new(HeartbeatSettings::default());
        monitor.watch("a", at(0));
        monitor.watch("b", at(0));
        monitor.heard(&"a", at(30));
        monitor.heard(&"c", at(30));
        assert_eq!(monitor.next_deadline(), Some(at(50)));
        assert_eq!(monitor.expired(at(49)), Vec::<&str>::new());
        assert_eq!(monitor.expired(at(50)), ["b"]);
        assert_eq!(monitor.expired(at(79)), Vec::<&str>::new());
        assert_eq!(monitor.expired(at(80)), ["a"]);
        assert_eq!(monitor.next_deadline(), None);
    }
}
