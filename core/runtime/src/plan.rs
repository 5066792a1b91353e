//! The plan role: tells the graph of the program's first execute, and ends. Nothing runs.

use crate::{blocking::Blocking, role::Parent};
use futures::future::BoxFuture;
use std::sync::Arc;
use thalweg_api::{
    JobError,
    executor::{Executor, Ordinals, Program, ProgramDefaults, RunningJob},
};
use thalweg_wire::{ExecutionMode, role::FromClient};

/// See the module.
pub struct PlanExecutor {
    parallelism: u32,
    parent: Parent,
    ordinals: Ordinals,
    blocking: Blocking,
}

impl PlanExecutor {
    /// Tells this parent.
    pub fn new(parallelism: u32, parent: Parent) -> Self {
        Self { parallelism, parent, ordinals: Ordinals::new(), blocking: Blocking::new() }
    }
}

impl Executor for PlanExecutor {
    fn defaults(&self) -> ProgramDefaults {
        ProgramDefaults {
            parallelism: self.parallelism,
            mode: ExecutionMode::Automatic,
            client_dir: std::env::current_dir().unwrap_or_default(),
            files: None,
            // Whether inputs are there is no question of the plan.
            is_client: false,
        }
    }

    fn ordinals(&self) -> &Ordinals {
        &self.ordinals
    }

    fn submit(&self, program: Program) -> BoxFuture<'static, Result<Arc<dyn RunningJob>, JobError>> {
        let graph = Box::new(program.plan.graph().clone());
        self.parent.tell(&FromClient::Plan { name: program.name, graph });
        std::process::exit(0)
    }

    fn block_on(&self, future: BoxFuture<'static, ()>) {
        self.blocking.block_on(future);
    }
}
