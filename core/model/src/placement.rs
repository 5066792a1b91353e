//! Where each subtask of one attempt runs. Every host of the job gets the whole of it and builds its own part.

use crate::{SubtaskId, TaskManagerId};
use serde::{Deserialize, Serialize};

/// One task host, named by its TaskManager: a TaskManager has one host for each job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostPlace {
    /// The TaskManager that supervises the host.
    pub task_manager: TaskManagerId,
    /// Where the host's shuffle environment listens; `None` when it takes no data from other hosts.
    pub data_address: Option<String>,
}

/// One subtask's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SubtaskPlace {
    /// Index into [`Placement::hosts`].
    pub host: u32,
    /// Index of the slot in its TaskManager. Subtasks with one (host, slot) share one thread.
    pub slot: u32,
}

/// The places of all subtasks of one attempt.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// The hosts that take part.
    pub hosts: Vec<HostPlace>,
    /// By vertex index, then by subtask index.
    pub subtasks: Vec<Vec<SubtaskPlace>>,
}

impl Placement {
    /// The place of one subtask; `None` when the graph has no such subtask.
    pub fn of(&self, subtask: SubtaskId) -> Option<SubtaskPlace> {
        self.subtasks.get(subtask.vertex as usize)?.get(subtask.index as usize).copied()
    }

    /// Index of a TaskManager's host.
    pub fn host(&self, task_manager: &TaskManagerId) -> Option<u32> {
        self.hosts.iter().position(|h| h.task_manager == *task_manager).map(|i| i as u32)
    }

    /// All subtasks of one host, by vertex and index.
    pub fn subtasks_of(&self, host: u32) -> impl Iterator<Item = (SubtaskId, SubtaskPlace)> + '_ {
        self.subtasks.iter().enumerate().flat_map(move |(vertex, places)| {
            places
                .iter()
                .enumerate()
                .filter(move |(_, p)| p.host == host)
                .map(move |(index, p)| (SubtaskId { vertex: vertex as u32, index: index as u32 }, *p))
        })
    }
}
