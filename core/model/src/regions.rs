//! Which subtasks restart together: those between which records flow without being kept anywhere on the way.
//!
//! Every edge is pipelined, so a region is a connected part of the graph of subtasks. A keyed edge joins all subtasks
//! on both of its sides; a forward edge only pairs, so a job of p independent pipelines has p regions, and the loss of
//! one is no affair of the others. Feedback edges join too: a coordinator belongs to its readers, and sources whose
//! watermarks are kept together belong to each other, since a lost one would leave the rest waiting for what it told
//! last.

use crate::{Attempt, JobGraph, Partitioner, SubtaskId};
use serde::{Deserialize, Serialize};

/// One region under one attempt.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RegionAttempt {
    /// Index, as [`Regions`] numbers them.
    pub region: u32,
    /// Numbers are unique in a job: every restart, of whatever regions, takes the next.
    pub attempt: Attempt,
}

/// The regions of a graph. Client, JobMaster and hosts number them alike: in the order of their first subtask.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Regions {
    /// By vertex and subtask.
    of: Vec<Vec<u32>>,
    count: u32,
}

impl Regions {
    /// Finds them.
    pub fn of(graph: &JobGraph) -> Self {
        let mut first = Vec::with_capacity(graph.vertices.len());
        let mut all = 0usize;
        for vertex in &graph.vertices {
            first.push(all);
            all += vertex.parallelism as usize;
        }
        let mut parent: Vec<usize> = (0..all).collect();
        let range = |v: u32| {
            let (first, vertex) = (first.get(v as usize)?, graph.vertices.get(v as usize)?);
            Some(*first..*first + vertex.parallelism as usize)
        };
        for edge in &graph.edges {
            let (Some(from), Some(to)) = (range(edge.from), range(edge.to)) else { continue };
            if matches!(edge.partitioner, Partitioner::Forward | Partitioner::Rescale) {
                let (producers, consumers) = (from.len() as u32, to.len() as u32);
                for producer in 0..producers {
                    let reached = edge.partitioner.consumers_of(producer, producers, consumers);
                    for consumer in reached.filter(|c| *c < consumers) {
                        join(&mut parent, from.start + producer as usize, to.start + consumer as usize);
                    }
                }
            } else if let Some(one) = from.clone().next() {
                from.chain(to).for_each(|other| join(&mut parent, one, other));
            }
        }
        let mut number = vec![None; all];
        let mut count = 0;
        let mut region_of = |node: usize| {
            let root = find(&mut parent, node);
            *number[root].get_or_insert_with(|| {
                count += 1;
                count - 1
            })
        };
        let of = first.iter().zip(&graph.vertices);
        let of = of.map(|(first, v)| (0..v.parallelism as usize).map(|i| region_of(first + i)).collect()).collect();
        Self { of, count }
    }

    /// How many there are.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The subtask's region; a number that no region has when the graph has no such subtask.
    pub fn region(&self, subtask: SubtaskId) -> u32 {
        let region = self.of.get(subtask.vertex as usize).and_then(|v| v.get(subtask.index as usize));
        region.copied().unwrap_or(u32::MAX)
    }
}

fn find(parent: &mut [usize], mut node: usize) -> usize {
    while parent[node] != node {
        // Halves the path, so that the next one who asks has less to go.
        parent[node] = parent[parent[node]];
        node = parent[node];
    }
    node
}

fn join(parent: &mut [usize], a: usize, b: usize) {
    let (a, b) = (find(parent, a), find(parent, b));
    // The lower one stays the root.
    parent[a.max(b)] = a.min(b);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Edge, OperatorInfo, Vertex, VertexId, VertexRole};

    fn graph(parallelism: &[u32], edges: &[(u32, u32, Partitioner)]) -> JobGraph {
        let vertex = |(n, p): (usize, &u32)| {
            let uid = format!("v{n}");
            Vertex {
                id: VertexId::from_uid(&uid),
                operators: vec![OperatorInfo { name: uid.clone(), uid, kind: "map".into(), states: Vec::new() }],
                parallelism: *p,
                max_parallelism: 128,
                role: VertexRole::Task,
                own_thread: false,
                slot_sharing_group: None,
            }
        };
        let edge = |&(from, to, partitioner): &(u32, u32, Partitioner)| Edge {
            from,
            to,
            partitioner,
            item: "u64".into(),
            feedback: false,
        };
        JobGraph {
            vertices: parallelism.iter().enumerate().map(vertex).collect(),
            edges: edges.iter().map(edge).collect(),
            bounded: false,
        }
    }

    fn of(regions: &Regions, vertex: u32, count: u32) -> Vec<u32> {
        (0..count).map(|index| regions.region(SubtaskId { vertex, index })).collect()
    }

    #[test]
    fn forward_edges_keep_pipelines_apart_and_keyed_ones_join_them() {
        let apart = Regions::of(&graph(&[3, 3], &[(0, 1, Partitioner::Forward)]));
        assert_eq!((apart.count(), of(&apart, 0, 3), of(&apart, 1, 3)), (3, vec![0, 1, 2], vec![0, 1, 2]));
        let few = Regions::of(&graph(&[2, 4], &[(0, 1, Partitioner::Rescale)]));
        assert_eq!((few.count(), few.region(SubtaskId { vertex: 1, index: 1 })), (2, 0));
        let joined = Regions::of(&graph(&[3, 2], &[(0, 1, Partitioner::Hash)]));
        assert_eq!((joined.count(), of(&joined, 0, 3), of(&joined, 1, 2)), (1, vec![0; 3], vec![0; 2]));
    }

    #[test]
    fn parts_of_a_graph_without_an_edge_between_them_are_regions() {
        let forward_then_keyed = [(0, 1, Partitioner::Forward), (2, 3, Partitioner::Rebalance)];
        let regions = Regions::of(&graph(&[2, 2, 1, 2], &forward_then_keyed));
        assert_eq!(regions.count(), 3);
        assert_eq!((of(&regions, 1, 2), of(&regions, 2, 1), of(&regions, 3, 2)), (vec![0, 1], vec![2], vec![2, 2]));
        // A later edge joins what was apart.
        let all = [(0, 1, Partitioner::Forward), (2, 3, Partitioner::Rebalance), (1, 3, Partitioner::Hash)];
        assert_eq!(Regions::of(&graph(&[2, 2, 1, 2], &all)).count(), 1);
    }

    #[test]
    fn what_the_graph_has_not_is_in_no_region() {
        let regions = Regions::of(&graph(&[1], &[(0, 7, Partitioner::Hash)]));
        assert_eq!(regions.count(), 1);
        assert_eq!(regions.region(SubtaskId { vertex: 0, index: 1 }), u32::MAX);
        assert_eq!(regions.region(SubtaskId { vertex: 9, index: 0 }), u32::MAX);
        assert_eq!(Regions::of(&JobGraph::default()).count(), 0);
    }
}
