//! Elections: one leader at a time as seen through fenced writes, and watchers that learn of it.

use super::{HighAvailabilityFixture, campaign, info, refusal, write};
use bytes::Bytes;
use std::{sync::Arc, time::Duration};
use thalweg_env::{SystemClock, timeout};
use thalweg_model::{Epoch, UnixMillis};
use thalweg_spi::{ErrorKind, Expect, HighAvailabilityServices, LeaderInfo, Office};
use tokio::sync::watch;

const SOON: Duration = Duration::from_secs(5);

/// Waits until the receiver shows `wanted`.
async fn arrives(watch: &mut watch::Receiver<Option<LeaderInfo>>, wanted: Option<LeaderInfo>) {
    let what = format!("the watcher sees {wanted:?}");
    let arrived = timeout(&SystemClock::new(), SOON, watch.wait_for(|now| *now == wanted)).await;
    assert!(matches!(arrived, Ok(Ok(_))), "{what} within {SOON:?}");
}

/// Waits until this process sees `wanted`.
async fn sees(services: &Arc<dyn HighAvailabilityServices>, wanted: Option<LeaderInfo>) {
    arrives(&mut services.leader_retrieval().leader(), wanted).await;
}

pub async fn only_one_leads_at_a_time(fixture: &impl HighAvailabilityFixture) {
    let (a, b) = (fixture.open().await.unwrap(), fixture.open().await.unwrap());
    let first = campaign(&a, SOON).await;
    let second = timeout(&SystemClock::new(), Duration::from_millis(300), b.leader_election().campaign()).await;
    if b.capabilities().standby {
        assert!(second.is_err(), "a standby waits: {second:?}");
    } else {
        let error = second.expect("a candidate that cannot wait is told at once").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
    }
    assert_eq!(*b.leader_election().office().borrow(), Office::None);
    write(&*a.metadata(), first, "x", b"of the leader").await;
}

pub async fn an_old_epochs_write_is_refused_after_a_new_grant(fixture: &impl HighAvailabilityFixture) {
    let a = fixture.open().await.unwrap();
    let old = campaign(&a, SOON).await;
    write(&*a.metadata(), old, "x", b"old").await;
    a.leader_election().resign(old).await.unwrap();
    let b = fixture.open().await.unwrap();
    let new = campaign(&b, fixture.takeover()).await;
    for services in [&a, &b] {
        let (store, election) = (services.metadata(), services.leader_election());
        let put = async || store.put(old, "x", Bytes::from_static(b"late"), Expect::Any).await.map(drop);
        assert_eq!(refusal(put).await, Some(ErrorKind::Fenced));
        assert_eq!(refusal(async || store.delete(old, "x", Expect::Any).await).await, Some(ErrorKind::Fenced));
        assert_eq!(refusal(async || election.announce(old, info(old)).await).await, Some(ErrorKind::Fenced));
    }
    write(&*b.metadata(), new, "x", b"new").await;
}

pub async fn epochs_grow_strictly_over_restarts_too(fixture: &impl HighAvailabilityFixture) {
    let mut last = Epoch(0);
    for round in 0..6 {
        let services = fixture.open().await.unwrap();
        let epoch = campaign(&services, fixture.takeover()).await;
        assert!(epoch > last, "round {round}: {epoch} after {last}");
        last = epoch;
        match round % 3 {
            0 => fixture.crash(services).await,
            1 => services.close().await.unwrap(),
            _ => services.leader_election().resign(epoch).await.unwrap(),
        }
    }
}

pub async fn a_clock_that_moves_back_does_not_make_epochs_fall(fixture: &impl HighAvailabilityFixture) {
    let mut last = Epoch(0);
    for wall in [2_000_000, 2_000_000, 1_000_000, 0, 1_000_000, 3_000_000] {
        if !fixture.clock_is_at(UnixMillis(wall)).await {
            return;
        }
        let services = fixture.open().await.unwrap();
        let epoch = campaign(&services, fixture.takeover()).await;
        assert!(epoch > last, "at {wall} ms: {epoch} after {last}");
        last = epoch;
        fixture.crash(services).await;
    }
}

pub async fn loss_is_told_before_the_same_candidate_is_granted_again(fixture: &impl HighAvailabilityFixture) {
    let services = fixture.open().await.unwrap();
    let epoch = campaign(&services, SOON).await;
    let election = services.leader_election();
    election.resign(epoch).await.unwrap();
    assert_eq!(*election.office().borrow(), Office::Lost(epoch));
    // Whether it may stand again is the plugin's choice; under its old epoch it may not.
    if let Ok(Ok(again)) = timeout(&SystemClock::new(), Duration::from_millis(500), election.campaign()).await {
        assert!(again > epoch, "{again} after {epoch}");
    }
}

pub async fn resigning_passes_office_at_once(fixture: &impl HighAvailabilityFixture) {
    let (a, b) = (fixture.open().await.unwrap(), fixture.open().await.unwrap());
    let old = campaign(&a, SOON).await;
    let clock = SystemClock::new();
    if b.capabilities().standby {
        let election = b.leader_election();
        let waiting = election.campaign();
        tokio::pin!(waiting);
        assert!(timeout(&clock, Duration::from_millis(100), &mut waiting).await.is_err());
        a.leader_election().resign(old).await.unwrap();
        let new = timeout(&clock, fixture.at_once(), waiting).await.expect("office at once").unwrap();
        assert!(new > old);
    } else {
        a.leader_election().resign(old).await.unwrap();
        assert!(b.leader_election().campaign().await.unwrap() > old);
    }
}

pub async fn a_crash_passes_office_within_the_takeover_time(fixture: &impl HighAvailabilityFixture) {
    let (a, b) = (fixture.open().await.unwrap(), fixture.open().await.unwrap());
    let old = campaign(&a, SOON).await;
    fixture.crash(a).await;
    assert!(campaign(&b, fixture.takeover()).await > old);
}

pub async fn closing_leaves_office(fixture: &impl HighAvailabilityFixture) {
    let a = fixture.open().await.unwrap();
    let old = campaign(&a, SOON).await;
    a.close().await.unwrap();
    a.close().await.unwrap();
    let b = fixture.open().await.unwrap();
    assert!(campaign(&b, fixture.at_once()).await > old);
}

pub async fn a_dropped_campaign_does_not_stand(fixture: &impl HighAvailabilityFixture) {
    let (a, b) = (fixture.open().await.unwrap(), fixture.open().await.unwrap());
    let c = fixture.open().await.unwrap();
    let old = campaign(&a, SOON).await;
    let _ = timeout(&SystemClock::new(), Duration::from_millis(100), b.leader_election().campaign()).await;
    a.leader_election().resign(old).await.unwrap();
    assert!(campaign(&c, fixture.at_once()).await > old);
    assert_eq!(*b.leader_election().office().borrow(), Office::None);
}

pub async fn leaving_an_office_that_one_does_not_hold_is_fine(fixture: &impl HighAvailabilityFixture) {
    let (a, b) = (fixture.open().await.unwrap(), fixture.open().await.unwrap());
    let epoch = campaign(&a, SOON).await;
    b.leader_election().resign(epoch).await.unwrap();
    b.leader_election().resign(Epoch(1)).await.unwrap();
    assert_eq!(*a.leader_election().office().borrow(), Office::Leader(epoch));
    write(&*a.metadata(), epoch, "x", b"still").await;
}

pub async fn watchers_see_the_leader_and_its_end(fixture: &impl HighAvailabilityFixture) {
    let (a, b) = (fixture.open().await.unwrap(), fixture.open().await.unwrap());
    // One receiver each for the whole case: what changes must come to it by itself.
    let (mut at_a, mut at_b) = (a.leader_retrieval().leader(), b.leader_retrieval().leader());
    arrives(&mut at_b, None).await;
    let epoch = campaign(&a, SOON).await;
    a.leader_election().announce(epoch, info(epoch)).await.unwrap();
    arrives(&mut at_a, Some(info(epoch))).await;
    arrives(&mut at_b, Some(info(epoch))).await;
    a.leader_election().resign(epoch).await.unwrap();
    arrives(&mut at_b, None).await;
    let new = campaign(&b, fixture.takeover()).await;
    b.leader_election().announce(new, info(new)).await.unwrap();
    arrives(&mut at_a, Some(info(new))).await;
}

pub async fn a_late_watcher_learns_the_present_leader(fixture: &impl HighAvailabilityFixture) {
    let a = fixture.open().await.unwrap();
    let epoch = campaign(&a, SOON).await;
    a.leader_election().announce(epoch, info(epoch)).await.unwrap();
    sees(&fixture.open().await.unwrap(), Some(info(epoch))).await;
}

pub async fn a_watcher_sees_the_last_state_after_a_disconnection(fixture: &impl HighAvailabilityFixture) {
    let (a, b) = (fixture.open().await.unwrap(), fixture.open().await.unwrap());
    let watcher = fixture.open().await.unwrap();
    let old = campaign(&a, SOON).await;
    a.leader_election().announce(old, info(old)).await.unwrap();
    sees(&watcher, Some(info(old))).await;
    if !fixture.cut_off(&watcher).await {
        return;
    }
    a.leader_election().resign(old).await.unwrap();
    let new = campaign(&b, fixture.takeover()).await;
    b.leader_election().announce(new, info(new)).await.unwrap();
    fixture.reconnect(&watcher).await;
    sees(&watcher, Some(info(new))).await;
}

pub async fn a_leader_that_is_cut_off_is_told_its_loss_before_another_is_granted(
    fixture: &impl HighAvailabilityFixture,
) {
    let (a, b) = (fixture.open().await.unwrap(), fixture.open().await.unwrap());
    let old = campaign(&a, SOON).await;
    let office = a.leader_election().office();
    if !fixture.cut_off(&a).await {
        return;
    }
    let new = campaign(&b, fixture.takeover()).await;
    assert!(new > old);
    assert_eq!(*office.borrow(), Office::Lost(old), "before, so it is told by now");
    fixture.reconnect(&a).await;
    let store = a.metadata();
    let put = async || store.put(old, "x", Bytes::from_static(b"late"), Expect::Any).await.map(drop);
    assert_eq!(refusal(put).await, Some(ErrorKind::Fenced));
}

/// See [`crate::high_availability_suite`].
#[macro_export]
#[doc(hidden)]
macro_rules! high_availability_election_cases {
    ($service:expr, $open:expr) => { $crate::conformance_cases!($service, $open, high_availability,
        only_one_leads_at_a_time
        an_old_epochs_write_is_refused_after_a_new_grant
        epochs_grow_strictly_over_restarts_too
        a_clock_that_moves_back_does_not_make_epochs_fall
        loss_is_told_before_the_same_candidate_is_granted_again
        resigning_passes_office_at_once
        a_crash_passes_office_within_the_takeover_time
        closing_leaves_office
        a_dropped_campaign_does_not_stand
        leaving_an_office_that_one_does_not_hold_is_fine
        watchers_see_the_leader_and_its_end
        a_late_watcher_learns_the_present_leader
        a_watcher_sees_the_last_state_after_a_disconnection
        a_leader_that_is_cut_off_is_told_its_loss_before_another_is_granted
    ); };
}
