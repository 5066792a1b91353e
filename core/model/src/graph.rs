//! The job graph: what runs, how parallel, and along which edges. Plain data, without a closure in it.
//!
//! The client builds it, the control plane schedules it, and the task host compares it with the graph that its own
//! run of `main` built ([`JobGraph::diff`]).

use crate::VertexId;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

/// How records choose their consumer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Partitioner {
    /// Subtask i to subtask i; both sides have one parallelism.
    Forward,
    /// A batch to each consumer in turn.
    Rebalance,
    /// By key group.
    Hash,
    /// Every record to every consumer.
    Broadcast,
    /// A batch to a consumer by chance.
    Shuffle,
    /// All to the first consumer.
    Global,
    /// As a function of the program says.
    Custom,
    /// The producer names the consumer of each record (coordinators do).
    Direct,
    /// A batch in turn to each of a few consumers: a producer has its share of them, or consumers their share of producers.
    Rescale,
}

impl Partitioner {
    /// The consumers that a producer sends to.
    pub fn consumers_of(self, producer: u32, producers: u32, consumers: u32) -> Range<u32> {
        match self {
            Self::Forward => producer..producer + 1,
            Self::Rescale => share(producer, producers, consumers),
            _ => 0..consumers,
        }
    }

    /// The producers that a consumer hears of.
    pub fn producers_of(self, consumer: u32, producers: u32, consumers: u32) -> Range<u32> {
        match self {
            Self::Forward => consumer..consumer + 1,
            Self::Rescale => share(consumer, consumers, producers),
            _ => 0..producers,
        }
    }
}

/// Which of `others` belong to `one` of `ones`, where each of the many belongs to one of the few.
fn share(one: u32, ones: u32, others: u32) -> Range<u32> {
    let (one, ones, others) = (u64::from(one), u64::from(ones.max(1)), u64::from(others));
    let range = if others >= ones {
        (one * others).div_ceil(ones)..((one + 1) * others).div_ceil(ones)
    } else {
        one * others / ones..one * others / ones + 1
    };
    range.start as u32..range.end as u32
}

/// What a vertex is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum VertexRole {
    /// An ordinary chain of operators.
    #[default]
    Task,
    /// A source's split enumerator, or what keeps several sources' watermarks together: parallelism 1, in the slot of a
    /// source's subtask 0.
    Coordinator,
    /// A sink's global committer: parallelism 1. It publishes output when the JobMaster says so, and only then.
    Committer,
}

/// One operator of a chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorInfo {
    /// Addresses the operator's state. Unique in the graph.
    pub uid: String,
    /// What users see.
    pub name: String,
    /// `map`, `key_by`, `text-source`…
    pub kind: String,
    /// Names of the states that it keeps.
    #[serde(default)]
    pub states: Vec<String>,
}

/// A chain of operators that runs as one task for each subtask.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vertex {
    /// From the head operator's uid.
    pub id: VertexId,
    /// The chain's operators, head first; never empty.
    pub operators: Vec<OperatorInfo>,
    /// At least 1.
    pub parallelism: u32,
    /// Number of key groups; at least `parallelism`.
    pub max_parallelism: u32,
    /// What the vertex is for.
    #[serde(default)]
    pub role: VertexRole,
    /// It waits for the outside world, so it runs on a thread of its own and not on its slot's.
    #[serde(default)]
    pub own_thread: bool,
    /// Vertices of one group share slots; those of different groups never do. `None` is the default group.
    #[serde(default)]
    pub slot_sharing_group: Option<String>,
}

impl Vertex {
    /// `words -> count`: the operators' names.
    pub fn name(&self) -> String {
        self.operators.iter().map(|o| o.name.as_str()).collect::<Vec<_>>().join(" -> ")
    }
}

/// A stream of records between two vertices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edge {
    /// Index of the producer in [`JobGraph::vertices`].
    pub from: u32,
    /// Index of the consumer.
    pub to: u32,
    /// How records choose their consumer.
    pub partitioner: Partitioner,
    /// The item's type name, for people; it is no part of the fingerprint, since compilers may change it.
    pub item: String,
    /// Runs against the direction of the stream, or between coordinators, and carries neither records nor barriers,
    /// only what readers and coordinators ask and tell. It is not looked at when the graph is ordered, and never
    /// delays an end.
    #[serde(default)]
    pub feedback: bool,
}

/// The whole of one job's dataflow.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobGraph {
    /// In the order in which the program named them.
    pub vertices: Vec<Vertex>,
    /// Between indices of `vertices`.
    pub edges: Vec<Edge>,
    /// Every source ends by itself.
    #[serde(default)]
    pub bounded: bool,
}

/// Number of key groups when the program does not say: 128, or 1.5 × parallelism rounded up to a power of two if
/// that is more, at most 32768.
pub fn default_max_parallelism(parallelism: u32) -> u32 {
    let wanted = parallelism.saturating_add(parallelism.div_ceil(2));
    wanted.checked_next_power_of_two().unwrap_or(MAX_MAX_PARALLELISM).clamp(128, MAX_MAX_PARALLELISM)
}

/// The largest number of key groups.
pub const MAX_MAX_PARALLELISM: u32 = 32768;

impl JobGraph {
    /// How many slots the job needs: vertices of one slot-sharing group share slots, and a group has as many as its widest
    /// vertex has subtasks.
    pub fn slots(&self) -> u32 {
        self.groups().values().sum()
    }

    /// Number of the slot, of those that the job has, that each vertex's subtask 0 is in; its subtask i is in the i-th behind
    /// that one.
    pub fn first_slots(&self) -> Vec<u32> {
        let mut next = 0;
        let mut first = BTreeMap::new();
        for (group, slots) in self.groups() {
            first.insert(group, next);
            next += slots;
        }
        self.vertices.iter().map(|v| first.get(&v.slot_sharing_group).copied().unwrap_or(0)).collect()
    }

    /// The slots of each group; the default one comes first.
    fn groups(&self) -> BTreeMap<&Option<String>, u32> {
        let mut groups = BTreeMap::new();
        for v in &self.vertices {
            let slots: &mut u32 = groups.entry(&v.slot_sharing_group).or_default();
            *slots = v.parallelism.max(*slots);
        }
        groups
    }

    /// Indices of the vertices that bring records in: those that only a coordinator feeds.
    pub fn sources(&self) -> Vec<usize> {
        let fed = |index: usize| {
            self.edges.iter().any(|e| {
                let from = self.vertices.get(e.from as usize);
                e.to as usize == index && !e.feedback && from.is_some_and(|v| v.role != VertexRole::Coordinator)
            })
        };
        let tasks = self.vertices.iter().enumerate().filter(|(_, v)| v.role == VertexRole::Task);
        tasks.map(|(index, _)| index).filter(|index| !fed(*index)).collect()
    }

    /// How many subtasks there are in all.
    pub fn subtasks(&self) -> u64 {
        self.vertices.iter().map(|v| u64::from(v.parallelism)).sum()
    }

    /// How many channels there are between subtasks in all.
    pub fn channels(&self) -> u64 {
        let parallelism = |vertex: u32| self.vertices.get(vertex as usize).map_or(0, |v| v.parallelism);
        let of = |e: &Edge| match (e.partitioner, parallelism(e.from), parallelism(e.to)) {
            (Partitioner::Forward | Partitioner::Rescale, from, to) => u64::from(from.max(to)),
            (_, from, to) => u64::from(from) * u64::from(to),
        };
        self.edges.iter().map(of).sum()
    }

    /// Is this a graph that can run? Answers all that is wrong, a line each.
    pub fn validate(&self) -> Result<(), String> {
        let mut wrong = Vec::new();
        if self.vertices.is_empty() {
            wrong.push("the job has no operators: add a source and a sink before execute()".to_owned());
        }
        let mut uids = BTreeSet::new();
        for (i, v) in self.vertices.iter().enumerate() {
            if v.operators.is_empty() {
                wrong.push(format!("vertex {i} has no operator"));
            }
            if v.parallelism == 0 || v.parallelism > v.max_parallelism || v.max_parallelism > MAX_MAX_PARALLELISM {
                wrong.push(format!(
                    "{:?}: parallelism {} must be at least 1 and at most max_parallelism {} (which is at most {MAX_MAX_PARALLELISM})",
                    v.name(), v.parallelism, v.max_parallelism
                ));
            }
            for o in &v.operators {
                if !uids.insert(o.uid.as_str()) {
                    wrong.push(format!("uid {:?} is used twice: give each operator its own .uid()", o.uid));
                }
            }
        }
        let n = self.vertices.len();
        for (i, e) in self.edges.iter().enumerate() {
            let (Some(from), Some(to)) = (self.vertices.get(e.from as usize), self.vertices.get(e.to as usize)) else {
                wrong.push(format!("edge {i} names vertex {} or {}, but there are {n}", e.from, e.to));
                continue;
            };
            if e.partitioner == Partitioner::Forward && from.parallelism != to.parallelism {
                wrong.push(format!(
                    "edge {i} is forward, but {:?} and {:?} differ in parallelism",
                    from.name(),
                    to.name()
                ));
            }
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
    }

    /// A hash over what must be equal on client and worker: uids, operator kinds, edges and state names.
    pub fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        for line in self.shape().values().flatten() {
            hash.update(line.as_bytes());
            hash.update([b'\n']);
        }
        hex::encode(&hash.finalize()[..16])
    }

    /// The lines that make up the fingerprint, by what they are about.
    fn shape(&self) -> BTreeMap<&'static str, BTreeSet<String>> {
        let mut shape: BTreeMap<_, BTreeSet<String>> = BTreeMap::new();
        let uid = |v: u32| {
            let head = self.vertices.get(v as usize).and_then(|v| v.operators.first());
            head.map_or_else(|| format!("#{v}"), |o| o.uid.clone())
        };
        for v in &self.vertices {
            for (at, o) in v.operators.iter().enumerate() {
                let place = if at == 0 { String::new() } else { format!(" after {:?}", v.operators[at - 1].uid) };
                let states = if o.states.is_empty() { String::new() } else { format!(" states {:?}", o.states) };
                let parallel = format!(" parallelism {}/{}", v.parallelism, v.max_parallelism);
                shape
                    .entry("operator")
                    .or_default()
                    .insert(format!("operator {:?} kind {}{place}{states}{parallel}", o.uid, o.kind));
            }
        }
        for e in &self.edges {
            let arrow = if e.feedback { "feedback" } else { "edge" };
            shape.entry("edge").or_default().insert(format!(
                "{arrow} {:?} to {:?} {:?}",
                uid(e.from),
                uid(e.to),
                e.partitioner
            ));
        }
        shape
    }

    /// What `built` has that `self` has not, and the other way round: `None` when their fingerprints are equal.
    ///
    /// `self` is the submitted graph, `built` the one that `main` built on the worker.
    pub fn diff(&self, built: &JobGraph) -> Option<String> {
        let (submitted, built) = (self.shape(), built.shape());
        if submitted == built {
            return None;
        }
        let lines =
            |s: &BTreeMap<&'static str, BTreeSet<String>>| s.values().flatten().cloned().collect::<BTreeSet<_>>();
        let (submitted, built) = (lines(&submitted), lines(&built));
        let mut out = vec![
            "main() built another graph on the worker than on the client. It may depend on only its arguments, the \
             chosen environment variables and results of earlier executes."
                .to_owned(),
        ];
        out.extend(submitted.difference(&built).map(|l| format!("- submitted: {l}")));
        out.extend(built.difference(&submitted).map(|l| format!("+ worker:    {l}")));
        Some(out.join("\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vertex(uid: &str, parallelism: u32) -> Vertex {
        let operator = OperatorInfo { uid: uid.into(), name: uid.into(), kind: "map".into(), states: vec![] };
        Vertex {
            id: VertexId::from_uid(uid),
            operators: vec![operator],
            parallelism,
            max_parallelism: 128,
            role: VertexRole::Task,
            own_thread: false,
            slot_sharing_group: None,
        }
    }

    fn edge(from: u32, to: u32, partitioner: Partitioner) -> Edge {
        Edge { from, to, partitioner, item: "u64".into(), feedback: false }
    }

    fn graph() -> JobGraph {
        JobGraph {
            vertices: vec![vertex("a", 2), vertex("b", 4)],
            edges: vec![edge(0, 1, Partitioner::Hash)],
            bounded: true,
        }
    }

    #[test]
    fn default_max_parallelism_is_a_power_of_two_with_head_room() {
        for (p, max) in [(1, 128), (85, 128), (86, 256), (128, 256), (30_000, 32768), (u32::MAX, 32768)] {
            assert_eq!(default_max_parallelism(p), max, "parallelism {p}");
        }
    }

    #[test]
    fn a_group_of_vertices_has_slots_of_its_own() {
        let mut g = graph();
        g.vertices[1].slot_sharing_group = Some("apart".into());
        assert_eq!((g.slots(), g.first_slots()), (6, vec![0, 2]));
        g.vertices[0].slot_sharing_group = Some("apart".into());
        assert_eq!((g.slots(), g.first_slots()), (4, vec![0, 0]));
    }

    #[test]
    fn rescaling_gives_each_pair_to_both_of_its_sides_and_leaves_nobody_out() {
        for (producers, consumers) in (1..9).flat_map(|p| (1..9).map(move |c| (p, c))) {
            let mut pairs = 0;
            for producer in 0..producers {
                let reached = Partitioner::Rescale.consumers_of(producer, producers, consumers);
                pairs += reached.len() as u32;
                for consumer in 0..consumers {
                    let heard = Partitioner::Rescale.producers_of(consumer, producers, consumers);
                    assert!(!heard.is_empty() && heard.end <= producers);
                    assert_eq!(reached.contains(&consumer), heard.contains(&producer), "{producers} to {consumers}");
                }
                assert!(!reached.is_empty() && reached.end <= consumers);
            }
            assert_eq!(pairs, producers.max(consumers), "each of the many has one of the few");
        }
    }

    #[test]
    fn a_good_graph_is_valid_and_needs_as_many_slots_as_its_widest_vertex() {
        assert_eq!(graph().validate(), Ok(()));
        assert_eq!((graph().slots(), graph().subtasks(), graph().channels()), (4, 6, 8));
    }

    #[test]
    fn everything_that_is_wrong_is_said_at_once() {
        let mut g = graph();
        g.vertices[1].operators[0].uid = "a".into();
        g.vertices[0].parallelism = 0;
        g.edges.push(edge(0, 7, Partitioner::Hash));
        g.edges.push(edge(0, 1, Partitioner::Forward));
        let wrong = g.validate().unwrap_err();
        for part in ["uid \"a\" is used twice", "parallelism 0", "names vertex 0 or 7", "is forward"] {
            assert!(wrong.contains(part), "{part} not in {wrong}");
        }
    }

    #[test]
    fn the_fingerprint_sees_kinds_and_edges_and_not_names() {
        let (a, mut b) = (graph(), graph());
        b.vertices[0].operators[0].name = "other".into();
        b.edges[0].item = "other".into();
        assert_eq!((a.fingerprint(), a.diff(&b)), (b.fingerprint(), None));
        b.vertices[0].operators[0].kind = "filter".into();
        assert_ne!(a.fingerprint(), b.fingerprint());
        let diff = a.diff(&b).unwrap();
        assert!(
            diff.contains("- submitted: operator \"a\" kind map")
                && diff.contains("+ worker:    operator \"a\" kind filter")
        );
    }
}
