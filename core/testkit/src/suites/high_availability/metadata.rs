//! Metadata: small records, written as a whole or not at all, under an epoch and an expectation.

use super::{HighAvailabilityFixture, campaign, read, refusal, write};
use crate::run::eventually;
use bytes::Bytes;
use std::{sync::Arc, time::Duration};
use thalweg_model::{Epoch, JobId};
use thalweg_spi::{ErrorKind, Expect, Happened, HighAvailabilityServices, MetadataStore, Versioned};

const SOON: Duration = Duration::from_secs(5);

async fn leader(fixture: &impl HighAvailabilityFixture) -> (Arc<dyn HighAvailabilityServices>, Epoch) {
    let services = fixture.open().await.unwrap();
    let epoch = campaign(&services, fixture.takeover().max(SOON)).await;
    (services, epoch)
}

async fn version(store: &dyn MetadataStore, key: &str) -> Option<Versioned> {
    eventually("a read", SOON, || async { store.get(key).await.ok() }).await
}

async fn list(store: &dyn MetadataStore, prefix: &str) -> Vec<(String, Versioned)> {
    eventually("a list", SOON, || async { store.list(prefix).await.ok() }).await
}

async fn keys(store: &dyn MetadataStore, prefix: &str) -> Vec<String> {
    list(store, prefix).await.into_iter().map(|(key, _)| key).collect()
}

pub async fn what_was_put_is_read_with_its_version(fixture: &impl HighAvailabilityFixture) {
    let (services, epoch) = leader(fixture).await;
    let store = services.metadata();
    assert_eq!(version(&*store, "jobs/1").await, None);
    let first = write(&*store, epoch, "jobs/1", b"one").await;
    assert_eq!(version(&*store, "jobs/1").await, Some(Versioned { value: Bytes::from_static(b"one"), version: first }));
    let second = write(&*store, epoch, "jobs/1", b"two").await;
    assert_ne!(first, second, "a write changes the version");
    assert_eq!(
        version(&*store, "jobs/1").await,
        Some(Versioned { value: Bytes::from_static(b"two"), version: second })
    );
}

pub async fn a_compare_and_set_on_a_stale_version_fails(fixture: &impl HighAvailabilityFixture) {
    let (services, epoch) = leader(fixture).await;
    let store = services.metadata();
    let stale = write(&*store, epoch, "k", b"one").await;
    let now = write(&*store, epoch, "k", b"two").await;
    let put = async |expect| store.put(epoch, "k", Bytes::from_static(b"three"), expect).await.map(drop);
    assert_eq!(refusal(async || put(Expect::Version(stale)).await).await, Some(ErrorKind::Conflict));
    assert_eq!(refusal(async || put(Expect::Absent).await).await, Some(ErrorKind::Conflict));
    let delete = async |key, expect| store.delete(epoch, key, expect).await;
    assert_eq!(refusal(async || delete("k", Expect::Version(stale)).await).await, Some(ErrorKind::Conflict));
    assert_eq!(refusal(async || delete("none", Expect::Version(stale)).await).await, Some(ErrorKind::Conflict));
    assert_eq!(read(&*store, "k").await.as_deref(), Some(&b"two"[..]));
    // With the right version it works; an error that may have happened anyway shows when it is read.
    match store.put(epoch, "k", Bytes::from_static(b"three"), Expect::Version(now)).await {
        Ok(_) => assert_eq!(read(&*store, "k").await.as_deref(), Some(&b"three"[..])),
        Err(e) => assert!(e.may_retry(), "{e}"),
    }
}

pub async fn a_version_is_not_used_again_after_a_delete(fixture: &impl HighAvailabilityFixture) {
    let (services, epoch) = leader(fixture).await;
    let store = services.metadata();
    let old = write(&*store, epoch, "k", b"one").await;
    assert_eq!(refusal(async || store.delete(epoch, "k", Expect::Any).await).await, None);
    let new = write(&*store, epoch, "k", b"one").await;
    assert_ne!(old, new, "who holds the old version would overwrite the new record");
}

pub async fn of_writers_that_expect_absence_one_wins(fixture: &impl HighAvailabilityFixture) {
    let (services, epoch) = leader(fixture).await;
    let store = services.metadata();
    let write = async |n: u8| store.put(epoch, "k", Bytes::copy_from_slice(&[n]), Expect::Absent).await;
    let results = futures::future::join_all((0..8).map(write)).await;
    let value = read(&*store, "k").await;
    let won: Vec<_> = results.iter().enumerate().filter(|(_, r)| r.is_ok()).map(|(n, _)| n as u8).collect();
    assert!(won.len() <= 1, "{won:?} all won");
    if let [winner] = won[..] {
        assert_eq!(value.as_deref(), Some(&[winner][..]));
    }
    for error in results.into_iter().filter_map(Result::err) {
        assert!(error.kind() == ErrorKind::Conflict || error.may_retry(), "{error}");
    }
}

pub async fn an_indeterminate_write_is_done_or_not_and_never_half(fixture: &impl HighAvailabilityFixture) {
    let (services, epoch) = leader(fixture).await;
    let store = services.metadata();
    let mut old: Option<Bytes> = None;
    for n in 0..60u8 {
        let new = Bytes::from(vec![n; 5000]);
        let result = store.put(epoch, "k", new.clone(), Expect::Any).await;
        let now = read(&*store, "k").await;
        match result {
            Ok(_) => assert!(now.as_ref() == Some(&new), "it said that it was done"),
            Err(e) if e.happened() == Happened::No => assert!(now == old, "it said that it did not happen: {e}"),
            Err(_) => assert!(now.as_ref() == Some(&new) || now == old, "neither the old value nor the new one"),
        }
        old = now;
    }
}

pub async fn the_list_is_whole_after_a_restart(fixture: &impl HighAvailabilityFixture) {
    let (services, epoch) = leader(fixture).await;
    if !services.capabilities().durable {
        return;
    }
    for n in 0..20 {
        write(&*services.metadata(), epoch, &format!("jobs/{n:02}"), &[n]).await;
    }
    fixture.crash(services).await;
    let services = fixture.open().await.unwrap();
    let found = list(&*services.metadata(), "jobs/").await;
    assert_eq!(found.len(), 20);
    for (n, (key, value)) in found.iter().enumerate() {
        assert_eq!((key.as_str(), &value.value[..]), (format!("jobs/{n:02}").as_str(), &[n as u8][..]));
    }
}

pub async fn a_version_is_not_used_again_after_a_restart(fixture: &impl HighAvailabilityFixture) {
    let (services, epoch) = leader(fixture).await;
    if !services.capabilities().durable {
        return;
    }
    let old = write(&*services.metadata(), epoch, "k", b"one").await;
    let delete = async || services.metadata().delete(epoch, "k", Expect::Any).await;
    assert_eq!(refusal(delete).await, None);
    fixture.crash(services).await;
    let (services, epoch) = leader(fixture).await;
    assert_eq!(read(&*services.metadata(), "k").await, None);
    let new = write(&*services.metadata(), epoch, "k", b"one").await;
    assert_ne!(old, new, "who read it before the restart would overwrite the new record");
}

pub async fn a_write_that_was_cut_off_is_done_or_not_for_the_next_leader(fixture: &impl HighAvailabilityFixture) {
    let (services, epoch) = leader(fixture).await;
    let store = services.metadata();
    write(&*store, epoch, "k", b"old").await;
    let new = Bytes::from(vec![7; 300_000]);
    // The cut comes when the write has begun.
    let put = store.put(epoch, "k", new.clone(), Expect::Any);
    let (result, cut) = futures::join!(put, fixture.cut_off(&services));
    if !cut {
        return;
    }
    fixture.reconnect(&services).await;
    let next = fixture.open().await.unwrap();
    campaign(&next, fixture.takeover()).await;
    let found = read(&*next.metadata(), "k").await;
    match result {
        Ok(_) => assert!(found == Some(new), "it said that it was done"),
        Err(e) if e.happened() == Happened::No => {
            assert!(found.as_deref() == Some(b"old"), "it said that it did not happen: {e}");
        }
        Err(_) => assert!(found.as_deref() == Some(b"old") || found == Some(new), "half of it"),
    }
    // What is still on its way comes too late.
    thalweg_env::Clock::sleep(&thalweg_env::SystemClock::new(), Duration::from_millis(300)).await;
    assert!(read(&*next.metadata(), "k").await == found, "it happened after the next leader read");
}

pub async fn deleting_twice_is_fine(fixture: &impl HighAvailabilityFixture) {
    let (services, epoch) = leader(fixture).await;
    let store = services.metadata();
    write(&*store, epoch, "k", b"v").await;
    for _ in 0..2 {
        assert_eq!(refusal(async || store.delete(epoch, "k", Expect::Any).await).await, None);
        assert_eq!(read(&*store, "k").await, None);
    }
    assert_eq!(keys(&*store, "").await, Vec::<String>::new());
}

pub async fn two_jobs_do_not_see_each_other(fixture: &impl HighAvailabilityFixture) {
    let (services, epoch) = leader(fixture).await;
    let store = services.metadata();
    for key in ["jobs/1/graph", "jobs/10/graph", "jobs/1/result", "jobs/2/graph", "jobs/1"] {
        write(&*store, epoch, key, key.as_bytes()).await;
    }
    assert_eq!(keys(&*store, "jobs/1/").await, ["jobs/1/graph", "jobs/1/result"]);
    assert_eq!(keys(&*store, "jobs/10/").await, ["jobs/10/graph"]);
    assert_eq!(keys(&*store, "jobs/3/").await, Vec::<String>::new());
    services.clean_up(JobId::from_bytes([1; 16])).await.unwrap();
    services.clean_up(JobId::from_bytes([1; 16])).await.unwrap();
    assert_eq!(keys(&*store, "jobs/1/").await.len(), 2, "clean_up is about what is outside the metadata");
}

pub async fn keys_are_listed_in_order(fixture: &impl HighAvailabilityFixture) {
    let (services, epoch) = leader(fixture).await;
    let store = services.metadata();
    for key in ["b", "a/2", "a/10", "a/1", "c"] {
        write(&*store, epoch, key, b"").await;
    }
    assert_eq!(keys(&*store, "").await, ["a/1", "a/10", "a/2", "b", "c"]);
    assert_eq!(keys(&*store, "a/").await, ["a/1", "a/10", "a/2"]);
}

pub async fn a_value_of_a_megabyte_works_or_is_refused_by_name(fixture: &impl HighAvailabilityFixture) {
    let (services, epoch) = leader(fixture).await;
    let store = services.metadata();
    let large = Bytes::from(vec![7; 1_000_000]);
    let mut last = None;
    for _ in 0..50 {
        match store.put(epoch, "large", large.clone(), Expect::Any).await {
            Ok(_) => {
                assert!(read(&*store, "large").await == Some(large));
                return;
            }
            Err(e) if e.kind() == ErrorKind::TooLarge => return,
            Err(e) => last = Some(e),
        }
    }
    panic!("neither taken nor refused as too large: {last:?}");
}

/// See [`crate::high_availability_suite`].
#[macro_export]
#[doc(hidden)]
macro_rules! high_availability_metadata_cases {
    ($service:expr, $open:expr) => { $crate::conformance_cases!($service, $open, high_availability,
        what_was_put_is_read_with_its_version
        a_compare_and_set_on_a_stale_version_fails
        a_version_is_not_used_again_after_a_delete
        of_writers_that_expect_absence_one_wins
        an_indeterminate_write_is_done_or_not_and_never_half
        the_list_is_whole_after_a_restart
        a_version_is_not_used_again_after_a_restart
        a_write_that_was_cut_off_is_done_or_not_for_the_next_leader
        deleting_twice_is_fine
        two_jobs_do_not_see_each_other
        keys_are_listed_in_order
        a_value_of_a_megabyte_works_or_is_refused_by_name
    ); };
}
