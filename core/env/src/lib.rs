//! The seams to the outside world: time, randomness, threads and tasks, sockets, shutdown.
//!
//! Everything in Thalweg that needs one of them takes an [`Env`] (or a part of it) as an argument; clippy refuses the
//! raw calls elsewhere. There is no global: two clusters with two clocks fit into one test. Pure cores do not even see
//! this crate: they are told the time and random bits as arguments.

pub mod address;
pub mod clock;
pub mod entropy;
pub mod network;
pub mod shutdown;
pub mod spawner;
pub mod usage;

pub use address::{Address, ParseAddressError};
pub use clock::{Clock, Elapsed, ManualClock, SystemClock, timeout};
pub use entropy::{Entropy, SeededEntropy, SystemEntropy};
pub use network::{BoxStream, Listener, MemoryNetwork, Network, PeerInfo, SystemNetwork};
pub use shutdown::Shutdown;
pub use spawner::{Spawner, SystemSpawner, Task};

use std::sync::Arc;

/// All seams together. Cheap to clone.
#[derive(Clone)]
pub struct Env {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// Tasks and threads.
    pub spawner: Arc<dyn Spawner>,
    /// Sockets between the cluster's own processes.
    pub network: Arc<dyn Network>,
    /// Sockets to anybody else, for sources and sinks. Real also where the cluster is one process without sockets.
    pub outside: Arc<dyn Network>,
}

impl Env {
    /// The real world, with tasks on the given runtime.
    pub fn system(runtime: tokio::runtime::Handle) -> Self {
        Self {
            clock: Arc::new(SystemClock::new()),
            entropy: Arc::new(SystemEntropy),
            spawner: Arc::new(SystemSpawner::new(runtime)),
            network: Arc::new(SystemNetwork),
            outside: Arc::new(SystemNetwork),
        }
    }

    /// The real world, but with a network that stays within this process.
    pub fn in_process(runtime: tokio::runtime::Handle) -> Self {
        Self { network: Arc::new(MemoryNetwork::default()), ..Self::system(runtime) }
    }
}
