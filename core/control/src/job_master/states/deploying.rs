//! Every slot is there: partitions are registered and the deployment is written down before the first task is sent.

use super::{Executing, Input, State, cancelled, failed, go, suspended};
use crate::{
    Now,
    job_master::{core::Effect, job::Job},
};
use thalweg_wire::Descriptor;

/// See the module.
#[derive(Debug, Clone)]
pub struct Deploying {
    descriptors: Option<Vec<Descriptor>>,
    recorded: bool,
}

impl Deploying {
    pub(super) fn begin(job: &mut Job, now: Now) -> Self {
        job.place(now);
        let partitions = job.partitions();
        let none_leaves = partitions.is_empty();
        if !none_leaves {
            job.effects.push(Effect::RegisterPartitions { attempt: job.attempt });
        }
        job.effects.push(Effect::RecordDeployment(job.deployment_record()));
        Self { descriptors: none_leaves.then(Vec::new), recorded: false }
    }

    pub(super) fn on_input(mut self, job: &mut Job, now: Now, input: Input) -> State {
        match input {
            Input::PartitionsRegistered(Ok(descriptors)) => self.descriptors = Some(descriptors),
            Input::DeploymentRecorded(Ok(())) => self.recorded = true,
            Input::PartitionsRegistered(Err(failure)) | Input::DeploymentRecorded(Err(failure)) => {
                return failed(job, now, self, failure, None);
            }
            Input::TaskFailed { failure, id } => return failed(job, now, self, failure, id),
            Input::HostFailed { failure, id } => return failed(job, now, self, failure, Some(id)),
            Input::Cancel => return cancelled(job, now, self),
            Input::Suspend => return suspended(job, self),
            _ => {}
        }
        if !self.recorded {
            return self.into();
        }
        match self.descriptors.take() {
            None => self.into(),
            Some(descriptors) => {
                job.deploy(now, descriptors);
                go(job, self, Executing)
            }
        }
    }
}
