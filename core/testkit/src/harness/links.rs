//! Links: connections between two nodes, in order each way, that break.

use super::sim::NodeId;
use thalweg_model::Moment;

/// One connection. A reconnection is another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub(super) u32);

impl LinkId {
    /// Its place among all links, in the order in which they were made, from 1.
    pub fn number(self) -> u64 {
        u64::from(self.0) + 1
    }
}

/// A call as the callee sees it: what it answers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId {
    pub(super) link: LinkId,
    pub(super) ask: u64,
}

impl CallId {
    /// The link that it came on.
    pub fn link(&self) -> LinkId {
        self.link
    }
}

/// One way of a link, from one end to the other.
#[derive(Debug, Clone, Default)]
pub(super) struct Way {
    /// Frames that were sent.
    pub sent: u64,
    /// Frames that arrived.
    pub arrived: u64,
    /// When the last one arrives: the next cannot arrive before.
    pub last: Moment,
    /// From this frame on all are lost.
    pub cut: Option<u64>,
    /// Nothing passes before this moment.
    pub jam: Moment,
}

/// One end of a link.
#[derive(Debug, Clone)]
pub(super) struct End {
    pub node: NodeId,
    /// When it noticed that the link is closed.
    pub noticed: Option<Moment>,
}

#[derive(Debug, Clone)]
pub(super) struct Link {
    pub ends: [End; 2],
    /// `ways[i]` leads away from `ends[i]`.
    pub ways: [Way; 2],
    pub broken: bool,
}

impl Link {
    pub fn new(a: NodeId, b: NodeId) -> Self {
        let end = |node| End { node, noticed: None };
        Self { ends: [end(a), end(b)], ways: Default::default(), broken: false }
    }

    /// Which end is this node?
    pub fn end_of(&self, node: NodeId) -> usize {
        usize::from(self.ends[0].node != node)
    }
}
