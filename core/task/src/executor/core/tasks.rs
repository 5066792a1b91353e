//! Tasks: handed to the host, told to stop, and what is told of them until a leader has acknowledged it.

use super::{Effect, Host, HostId, Job, Slot, Task, TaskExecutor};
use std::collections::{BTreeMap, BTreeSet};
use thalweg_model::{
    ExecutionState, FailureKind, JobId, Moment, RegionAttempt, SubtaskId, SubtaskMetrics, TaskFailure,
};
use thalweg_rpc::{Fence, gateways::AllocatedSlotReport};
use thalweg_wire::{Deploy, TaskDeployment, TaskReport, ToHost};

impl TaskExecutor {
    pub(super) fn deploy(&mut self, job: JobId, deploy: Deploy) -> Result<(), String> {
        let Some(j) = self.jobs.get_mut(&job) else { return Err("the job has no slot here".into()) };
        let Host::Ready { host, .. } = j.host else { return Err("the job's host is not ready".into()) };
        if j.reset.is_some_and(|reset| deploy.attempt <= reset) {
            return Err(format!("attempt {} was given up", deploy.attempt));
        }
        let regions: BTreeSet<u32> = deploy.tasks.iter().map(|t| j.regions.region(t.subtask)).collect();
        for region in &regions {
            if j.cancelled.get(region).is_some_and(|cancelled| deploy.attempt <= *cancelled) {
                return Err(format!("attempt {} was cancelled", deploy.attempt));
            }
            if let Some(later) = j.deployed.get(region).filter(|deployed| deploy.attempt < **deployed) {
                return Err(format!("attempt {} is older than {later}", deploy.attempt));
            }
        }
        let slots: BTreeSet<u32> =
            deploy.tasks.iter().filter_map(|t| deploy.placement.of(t.subtask)).map(|p| p.slot).collect();
        for index in &slots {
            match self.slots.get(*index as usize) {
                Some(Slot::Allocated { job: of, .. } | Slot::Active { job: of, .. }) if *of == job => {}
                _ => return Err(format!("slot {index} is not the job's")),
            }
        }
        for index in slots {
            // Tasks may arrive before the answer to the offer.
            if let Some(slot) = self.slots.get_mut(index as usize)
                && let Slot::Allocated { job, allocation, .. } = *slot
            {
                *slot = Slot::Active { job, allocation };
            }
        }
        let same = |t: &TaskDeployment| j.tasks.get(&t.subtask).is_some_and(|task| task.attempt == deploy.attempt);
        if !deploy.tasks.is_empty() && deploy.tasks.iter().all(same) {
            return Ok(());
        }
        j.attempt = j.attempt.max(deploy.attempt);
        let Job { regions: all, tasks, deployed, .. } = j;
        tasks.retain(|subtask, task| task.attempt == deploy.attempt || !regions.contains(&all.region(*subtask)));
        deployed.extend(regions.into_iter().map(|region| (region, deploy.attempt)));
        for task in &deploy.tasks {
            let new = Task {
                attempt: deploy.attempt,
                slot: deploy.placement.of(task.subtask).map_or(0, |p| p.slot),
                state: ExecutionState::Deploying,
                metrics: SubtaskMetrics::default(),
                report: None,
                acknowledged: false,
            };
            tasks.insert(task.subtask, new);
        }
        self.effects.push(Effect::SendHost { job, host, message: Box::new(ToHost::Deploy(Box::new(deploy))) });
        Ok(())
    }

    /// Answers what is there of these regions and has yet to end. What of them is still sent is refused from here on.
    pub(super) fn cancel(&mut self, job: JobId, regions: Vec<RegionAttempt>) -> Vec<SubtaskId> {
        let Some(j) = self.jobs.get_mut(&job) else { return Vec::new() };
        for RegionAttempt { region, attempt } in &regions {
            let cancelled = j.cancelled.entry(*region).or_insert(*attempt);
            *cancelled = *attempt.max(cancelled);
        }
        let ending = |subtask: &SubtaskId, task: &Task| {
            let region = j.regions.region(*subtask);
            let of_it = |r: &RegionAttempt| r.region == region && task.attempt <= r.attempt;
            !task.state.is_terminal() && regions.iter().any(of_it)
        };
        let ending = j.tasks.iter().filter(|(subtask, task)| ending(subtask, task)).map(|(s, _)| *s).collect();
        self.send_host(job, ToHost::Cancel { regions });
        ending
    }

    pub(super) fn task_reported(&mut self, now: Moment, job: JobId, host: HostId, report: Box<TaskReport>) {
        let Some(j) = self.jobs.get_mut(&job) else { return };
        let Host::Ready { host: h, heard, .. } = &mut j.host else { return };
        if *h != host {
            return;
        }
        *heard = now;
        let Some(task) = j.tasks.get_mut(&report.subtask) else { return };
        if task.attempt != report.attempt || task.state.is_terminal() {
            return;
        }
        task.state = report.state;
        task.metrics = report.metrics.clone();
        if report.state.is_terminal() || report.prepared.is_some() {
            (task.report, task.acknowledged) = (Some(report.clone()), false);
        }
        let ended = report.state.is_terminal();
        self.effects.push(Effect::Report { job, report });
        if ended {
            self.free_emptied(job);
        }
    }

    /// What cannot be told as it is fails its task, in few words. The task itself goes on here until the JobMaster, which is
    /// told that it has failed, ends it.
    pub(super) fn report_too_large(&mut self, job: JobId, report: &TaskReport, size: usize, limit: usize) {
        let Some(j) = self.jobs.get_mut(&job) else { return };
        let Some(task) = j.tasks.get_mut(&report.subtask).filter(|task| task.attempt == report.attempt) else { return };
        if task.state.is_terminal() && !report.state.is_terminal() {
            return;
        }
        let failure = match &report.failure {
            // A failure keeps its kind, and as many of its words as can be read.
            Some(failure) => TaskFailure { message: beginning(&failure.message), detail: None, ..failure.clone() },
            None => TaskFailure {
                uid: report.collected.keys().next().cloned(),
                subtask: Some(report.subtask),
                ..TaskFailure::new(FailureKind::User, too_large(report, size, limit))
            },
        };
        let report = TaskReport {
            subtask: report.subtask,
            attempt: report.attempt,
            state: if report.failure.is_some() { report.state } else { ExecutionState::Failed },
            failure: Some(failure),
            prepared: None,
            collected: BTreeMap::new(),
            metrics: SubtaskMetrics { user: Vec::new(), ..report.metrics.clone() },
        };
        (task.report, task.acknowledged) = (Some(Box::new(report.clone())), false);
        self.effects.push(Effect::Report { job, report: Box::new(report) });
    }

    pub(super) fn job_master_heartbeat(&mut self, now: Moment, fence: Fence, job: JobId, report: &AllocatedSlotReport) {
        if self.admit(fence).is_err() {
            return;
        }
        let Some(j) = self.jobs.get_mut(&job) else { return };
        j.heard = now;
        let active: Vec<_> = self
            .slots
            .iter()
            .filter_map(|s| match s {
                Slot::Active { job: of, allocation } if *of == job => Some(*allocation),
                _ => None,
            })
            .collect();
        // What is only allocated may be on its way to the JobMaster in an offer.
        self.free(job, |a| active.contains(&a) && !report.allocations.contains(&a));
        let status = self.status(job);
        self.effects.push(Effect::SendStatus { job, status });
    }
}

fn too_large(report: &TaskReport, size: usize, limit: usize) -> String {
    let (what, less) = if !report.collected.is_empty() {
        ("what collect() has gathered", "collect less, or write_text() to a folder")
    } else if report.prepared.is_some() {
        ("what the sink is to publish", "write fewer and larger files")
    } else {
        ("what the task tells of itself", "add fewer metrics")
    };
    format!(
        "{what} makes a message of {size} bytes, and one between processes may have {limit}: {less}, or set rpc.max-frame \
         higher in the cluster's configuration"
    )
}

/// As much of a text as somebody may want to read.
fn beginning(text: &str) -> String {
    const MOST: usize = 2000;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}… ({} bytes in all)", &text[..end], text.len()),
        None => text.to_owned(),
    }
}
