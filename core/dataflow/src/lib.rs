//! Records, operators, chains, exchange, keyed state, sources, sinks, and the step-able task.
//!
//! The rule: per record no allocation, no dynamic call, no lock and no future. Per batch all of them are allowed.
//! A job author sees this crate through `thalweg-api`; a task host runs a [`Plan`] with an [`Engine`].

pub mod asynchronous;
pub mod batch;
pub mod broadcast;
pub mod build;
mod byte_str;
mod codec;
pub mod detach;
pub mod either;
pub mod engine;
pub mod event_time;
pub mod exchange;
mod filter;
pub mod fold;
pub mod formats;
pub mod gate_task;
pub mod interval;
pub mod key;
pub mod keyed;
pub mod keyed_broadcast;
mod latency;
pub mod metrics;
pub mod ops;
pub mod panics;
pub mod pipe;
pub mod plan;
pub mod process;
pub mod push;
pub mod routes;
pub mod side;
pub mod sink;
pub mod source;
pub mod state;
#[cfg(test)]
#[cfg(not(thalweg_loom))]
mod stepped_tests;
mod sync;
pub mod task;

pub mod testing;
mod times;
pub mod top;
pub mod window;

pub use batch::{Batch, NO_TIME, Time};
pub use build::{BuildCx, OpCx};
pub use byte_str::ByteStr;
pub use either::Either;
pub use engine::{Engine, EngineSetup, TaskListener};
pub use key::{Data, Key, OwnedKey, Str, key_group, subtask_of};
pub use panics::capture_backtraces;
pub use plan::{Freeze, OpId, Plan, PlanBuilder, ProgramMark};
pub use push::{Control, Flow, Mark, Operator, Push, Ready};
pub use side::OutputTag;
pub use task::{SlotCx, Step, Task};
pub use thalweg_derive::Key;
pub use thalweg_model::TaskFailure;
