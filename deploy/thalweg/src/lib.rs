//! What `cargo add thalweg` gives a job author: the DataStream API, and the runtime of a job's executable in all its
//! roles. No cluster command and no plugin of an outside service is in it.
//!
//! ```no_run
//! use thalweg::prelude::*;
//!
//! fn main() -> Result<(), JobError> {
//!     let env = Environment::new();
//!     let lines = env.read_text("/usr/share/common-licenses").uid("lines");
//!     let words = lines.flat_map(|line: String| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
//!     let counts = words.key_by(|word: &String| word.clone()).count().uid("count");
//!     counts.map(|(word, n)| format!("{word} {n}")).print();
//!     env.execute("word count")?;
//!     Ok(())
//! }
//! ```

pub use thalweg_api::*;
pub use thalweg_dataflow::{OpCx, Push, capture_backtraces, key, sink, source};
pub use thalweg_env::Env;
pub use thalweg_model as model;
pub use thalweg_runtime::Environment;

// The embedded plugins, and what a host needs on a cluster. A crate that nobody names may vanish when linked.
use thalweg_blob_local as _;
use thalweg_deployment_session as _;
use thalweg_high_availability_standalone as _;
use thalweg_shuffle_local as _;
use thalweg_shuffle_network as _;

/// Runs programs and functions in tests: a cluster within the process, one engine, steps in a seeded order, one
/// operator.
pub mod testing {
    pub use thalweg_api::testing::*;
    // Two of these take the place of the API's own: what they answer is this crate's `Environment`.
    pub use thalweg_runtime::testing::{ClusterError, InProcessCluster, InProcessClusterBuilder, environment, stepped};
}

/// What most programs need.
pub mod prelude {
    pub use crate::{Environment, JobResult, RestartStrategy};
    pub use thalweg_api::prelude::*;
}

/// Writes the library's log to standard error, at the levels of `RUST_LOG` (`info`, or `warn,thalweg_runtime=debug`; `warn` when
/// it is not set or cannot be read). For programs that have no logger of their own; the library never does this by itself.
pub fn init() {
    use tracing_subscriber::{filter::Targets, prelude::*};
    let wanted = std::env::var("RUST_LOG").unwrap_or_default();
    // An empty list of levels would switch everything off.
    let levels = wanted.parse::<Targets>().ok().filter(|_| !wanted.is_empty());
    let levels = levels.unwrap_or_else(|| Targets::new().with_default(tracing_subscriber::filter::LevelFilter::WARN));
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()));
    // Somebody else may have been first, which is theirs to decide.
    let _ = tracing_subscriber::registry().with(lines.with_filter(levels)).try_init();
}

/// Compiles and runs the samples of the README and of the job author's guide.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
#[doc = include_str!("../../../docs/job-authors-guide.md")]
struct Documents;
