//! The high-availability suite: elections, and the records that a leader leaves to the next one.

pub mod election;
pub mod metadata;

pub use election::*;
pub use metadata::*;

use crate::run::eventually;
use async_trait::async_trait;
use bytes::Bytes;
use std::{sync::Arc, time::Duration};
use thalweg_model::{Epoch, UnixMillis};
use thalweg_spi::{ErrorKind, Expect, Happened, HighAvailabilityServices, LeaderInfo, MetadataStore, Office, Result};

/// One cluster's high availability, opened by as many processes as asked.
#[async_trait]
pub trait HighAvailabilityFixture: Send + Sync {
    /// A process of this cluster opens its services.
    async fn open(&self) -> Result<Arc<dyn HighAvailabilityServices>>;

    /// The process that holds these services dies without a word.
    async fn crash(&self, services: Arc<dyn HighAvailabilityServices>);

    /// Cuts the process off from everybody else; `false` when this cannot be done.
    async fn cut_off(&self, _services: &Arc<dyn HighAvailabilityServices>) -> bool {
        false
    }

    /// Ends [`HighAvailabilityFixture::cut_off`].
    async fn reconnect(&self, _services: &Arc<dyn HighAvailabilityServices>) {}

    /// Processes opened from now on see this wall-clock time; `false` when this cannot be done.
    async fn clock_is_at(&self, _wall: UnixMillis) -> bool {
        false
    }

    /// The longest time to the next grant where nobody has to be waited for: less than a lease.
    fn at_once(&self) -> Duration {
        Duration::from_secs(5)
    }

    /// The longest time from a crash to the next grant.
    fn takeover(&self) -> Duration {
        Duration::from_secs(5)
    }
}

/// What a leader with this epoch announces in the cases.
fn info(epoch: Epoch) -> LeaderInfo {
    let at = epoch.0 % 10_000;
    LeaderInfo { epoch: Some(epoch), rpc: format!("tcp://127.0.0.1:{at}"), rest: format!("http://127.0.0.1:{at}") }
}

async fn campaign(services: &Arc<dyn HighAvailabilityServices>, within: Duration) -> Epoch {
    let clock = thalweg_env::SystemClock::new();
    let election = services.leader_election();
    let granted = eventually("a grant", within, || async {
        match thalweg_env::timeout(&clock, within, election.campaign()).await {
            Ok(Ok(epoch)) => Some(epoch),
            // Refused while another still holds office: without standbys the operator starts it again.
            Ok(Err(e)) if e.kind() == ErrorKind::AlreadyExists || e.may_retry() => None,
            Ok(Err(e)) => panic!("campaign: {e}"),
            Err(_) => None,
        }
    });
    let epoch = granted.await;
    assert_eq!(*election.office().borrow(), Office::Leader(epoch));
    epoch
}

/// Writes until it is certain: an error that may have happened anyway is looked at, one that did not is tried again.
async fn write(store: &dyn MetadataStore, epoch: Epoch, key: &str, value: &[u8]) -> u64 {
    for _ in 0..100 {
        match store.put(epoch, key, Bytes::copy_from_slice(value), Expect::Any).await {
            Ok(version) => return version,
            Err(e) if e.happened() == Happened::Maybe => match store.get(key).await {
                Ok(Some(found)) if found.value == value => return found.version,
                _ => {}
            },
            Err(e) if e.may_retry() => {}
            Err(e) => panic!("put {key}: {e}"),
        }
    }
    panic!("put {key}: a hundred errors in a row");
}

async fn read(store: &dyn MetadataStore, key: &str) -> Option<Bytes> {
    eventually("a read", Duration::from_secs(5), || async { store.get(key).await.ok() }).await.map(|v| v.value)
}

/// The kind of a write's error, tried again while it says that it did not happen and may be retried.
async fn refusal(mut write: impl AsyncFnMut() -> Result<()>) -> Option<ErrorKind> {
    for _ in 0..100 {
        match write().await {
            Ok(()) => return None,
            Err(e) if e.may_retry() => {}
            Err(e) => return Some(e.kind()),
        }
    }
    panic!("a hundred retryable errors in a row");
}

/// Makes each case of the high-availability suite a test: `high_availability_suite!(async || fixture)`, or
/// `high_availability_suite!(external "name", async || Option<fixture>)` where the service may not be offered.
#[macro_export]
macro_rules! high_availability_suite {
    ($open:expr) => { $crate::high_availability_suite!(external "", async || Some(($open)().await)); };
    (external $service:expr, $open:expr) => {
        $crate::high_availability_election_cases!($service, $open);
        $crate::high_availability_metadata_cases!($service, $open);
    };
}
