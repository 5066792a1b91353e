//! The jobs' hosts: started with the first slot of a job, ended with the last, or when they hang, take too much or are to be
//! replaced.

use super::{CallId, Effect, Host, HostId, Job, TaskExecutor};
use thalweg_model::{Attempt, FailureKind, JobId, Moment, TaskFailure};
use thalweg_rpc::gateways::HostFailure;
use thalweg_wire::{HostMemory, ToHost};

impl TaskExecutor {
    pub(super) fn start_host(&mut self, job: JobId) {
        let host = self.next + 1;
        let Some(j) = self.jobs.get_mut(&job) else { return };
        if let (Host::None, Some(spec)) = (&j.host, &j.spec) {
            let spec = spec.clone();
            j.host = Host::Starting { host };
            j.host_failure = None;
            self.next = host;
            self.effects.push(Effect::StartHost { job, host, spec });
        }
    }

    pub(super) fn send_host(&mut self, job: JobId, message: ToHost) {
        if let Some(Job { host: Host::Ready { host, .. }, .. }) = self.jobs.get(&job) {
            self.effects.push(Effect::SendHost { job, host: *host, message: Box::new(message) });
        }
    }

    pub(super) fn kill_host(&mut self, job: JobId, host: HostId, again: bool, call: Option<CallId>) {
        let Some(j) = self.jobs.get_mut(&job) else { return };
        match &mut j.host {
            Host::Ending { again: a, calls, .. } => {
                *a = again;
                calls.extend(call);
            }
            other => {
                *other = Host::Ending { host, again, calls: call.into_iter().collect() };
                j.tasks.retain(|_, t| t.state.is_terminal());
                self.effects.push(Effect::KillHost { job, host });
            }
        }
    }

    /// Slots, those that the job holds, and their share of the memory in bytes.
    fn share(&self, job: JobId) -> (u64, u64, u64) {
        let (slots, held) = (self.slots.len().max(1) as u64, self.allocations(job).len() as u64);
        (slots, held, self.settings.memory / slots * held)
    }

    /// Tells each host what it may have, where that has changed. One whose job holds nothing is about to end.
    pub(super) fn limit_hosts(&mut self) {
        let live = |(job, j): (&JobId, &Job)| match j.host {
            Host::Starting { host } | Host::Ready { host, .. } => Some((*job, host)),
            Host::None | Host::Ending { .. } => None,
        };
        for (job, host) in self.jobs.iter().filter_map(live).collect::<Vec<_>>() {
            let (_, held, bytes) = self.share(job);
            if let Some(j) = self.jobs.get_mut(&job).filter(|j| held > 0 && j.limited != (host, bytes)) {
                j.limited = (host, bytes);
                self.effects.push(Effect::LimitHost { job, host, bytes });
            }
        }
    }

    /// Ends a host that takes more than the share of its job's slots: its neighbours have a right to theirs.
    pub(super) fn look_at_memory(&mut self, job: JobId, host: HostId, bytes: u64) {
        let (slots, held, share) = self.share(job);
        let theirs = |h: &Host| matches!(h, Host::Starting { host: h } | Host::Ready { host: h, .. } if *h == host);
        let Some(j) = self.jobs.get(&job).filter(|j| bytes > share && held > 0 && theirs(&j.host)) else { return };
        let HostMemory { state, exchange } = if j.told.0 == host { j.told.1 } else { HostMemory::default() };
        // Tables are what was allocated; some of it may not have been touched yet.
        let state = state.min(bytes);
        let mib = |bytes: u64| bytes >> 20;
        let message = format!(
            "the job's host on {} took {} MiB of memory or wanted more, and its share is {} MiB: {held} of {slots} slots of \
             task-manager.memory ({} MiB). Of it are tables of keyed state {} MiB, records between hosts {} MiB \
             (exchange.memory at most), and other {} MiB: what keys and values own beside their rows, what user code \
             keeps, and records within the process. Raise task-manager.memory, or spread the job over more slots",
            self.settings.id,
            mib(bytes),
            mib(share),
            mib(self.settings.memory),
            mib(state),
            mib(exchange),
            mib(bytes.saturating_sub(state + exchange)),
        );
        self.end_host(job, host, TaskFailure::new(FailureKind::OutOfMemory, message));
    }

    /// Ends a host by force, and tells why.
    pub(super) fn end_host(&mut self, job: JobId, host: HostId, failure: TaskFailure) {
        self.kill_host(job, host, false, None);
        let failed = HostFailure { host, failure };
        if let Some(j) = self.jobs.get_mut(&job) {
            j.host_failure = Some(failed.clone());
        }
        self.effects.push(Effect::ReportHostFailed { job, failed });
    }

    pub(super) fn reset_host(&mut self, call: CallId, job: JobId, attempt: Attempt) {
        let Some(j) = self.jobs.get_mut(&job) else { return self.answer(call, Ok(Ok(()))) };
        j.reset = j.reset.max(Some(attempt));
        // A late or doubled call must not end what was deployed since.
        if j.attempt > attempt {
            return self.answer(call, Ok(Ok(())));
        }
        match j.host {
            Host::Starting { host } | Host::Ready { host, .. } | Host::Ending { host, .. } => {
                self.kill_host(job, host, true, Some(call));
            }
            Host::None => {
                self.answer(call, Ok(Ok(())));
                if let Some(j) = self.jobs.get_mut(&job) {
                    j.host_failure = None;
                }
                self.start_host(job);
            }
        }
    }

    pub(super) fn host_gone(&mut self, now: Moment, job: JobId, gone: HostId, failure: TaskFailure) {
        let Some(j) = self.jobs.get_mut(&job) else { return };
        match &mut j.host {
            Host::Starting { host } | Host::Ready { host, .. } if *host == gone => {
                j.host = Host::None;
                j.tasks.retain(|_, t| t.state.is_terminal());
                let failed = HostFailure { host: gone, failure };
                j.host_failure = Some(failed.clone());
                self.effects.push(Effect::ReportHostFailed { job, failed });
                self.free_released(job, |_| true);
                self.withdraw(now, job);
            }
            Host::Ending { host, again, calls } if *host == gone => {
                let (again, calls) = (*again, std::mem::take(calls));
                j.host = Host::None;
                for call in calls {
                    self.answer(call, Ok(Ok(())));
                }
                self.withdraw(now, job);
                self.free_released(job, |_| true);
                if self.allocations(job).is_empty() {
                    self.forget(job);
                } else if again {
                    self.start_host(job);
                }
            }
            _ => {}
        }
    }
}
