//! [`Environment`]: a program's environment, connected to whatever this executable is.

use crate::{
    client::ClientExecutor,
    embedded::EmbeddedExecutor,
    host::HostExecutor,
    plan::PlanExecutor,
    role::{self, Found},
};
use std::{
    ops::Deref,
    sync::{Arc, OnceLock},
};
use thalweg_api::executor::Executor;

/// Where a program begins. See [`thalweg_api::Environment`] for what it can do.
///
/// ```no_run
/// # use thalweg_runtime::Environment;
/// let env = Environment::new();
/// env.sequence(0..10).print();
/// env.execute("ten numbers")?;
/// # Ok::<(), thalweg_api::JobError>(())
/// ```
pub struct Environment(thalweg_api::Environment);

impl Environment {
    /// The environment of this executable, in the role that it was started in.
    pub fn new() -> Self {
        Self(thalweg_api::Environment::with_executor(executor()))
    }
}

/// One whose programs are run by whatever that one has behind it: in tests.
impl From<thalweg_api::Environment> for Environment {
    fn from(env: thalweg_api::Environment) -> Self {
        Self(env)
    }
}

impl Default for Environment {
    fn default() -> Self {
        Self::new()
    }
}

impl Deref for Environment {
    type Target = thalweg_api::Environment;

    fn deref(&self) -> &thalweg_api::Environment {
        &self.0
    }
}

/// One for the process, since the inherited socket is one, and so is the count of executes.
fn executor() -> Arc<dyn Executor> {
    static EXECUTOR: OnceLock<Arc<dyn Executor>> = OnceLock::new();
    let made = EXECUTOR.get_or_init(|| match role::find() {
        Ok(Found::Embedded) => Arc::new(EmbeddedExecutor::new()),
        Ok(Found::Client(role, parent)) => Arc::new(ClientExecutor::new(*role, parent)),
        Ok(Found::Plan { parallelism, parent }) => Arc::new(PlanExecutor::new(parallelism, parent)),
        Ok(Found::Host(start, socket)) => Arc::new(HostExecutor::new(*start, socket)),
        Err(e) => {
            // There is no result to give it in, and going on in the wrong role would be worse.
            eprintln!("thalweg: {e}");
            std::process::exit(2);
        }
    });
    made.clone()
}
