//! The resource-provider suite: declared workers come, ended ones go, and each is told exactly once.

use crate::run::eventually;
use async_trait::async_trait;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use thalweg_env::{SystemClock, timeout};
use thalweg_model::TaskManagerId;
use thalweg_spi::{ApplicationStatus, ProviderEvent, ResourceProvider, Result, WorkerProfile};
use tokio::sync::mpsc;

/// One cluster's provider.
#[async_trait]
pub trait ResourceProviderFixture: Send + Sync {
    /// A JobManager opens the provider; at most one is open at a time.
    async fn open(&self) -> Result<Arc<dyn ResourceProvider>>;

    /// The JobManager that holds it ends without deregistering.
    async fn shut_down(&self, provider: Arc<dyn ResourceProvider>);

    /// This worker dies by itself; `false` when this cannot be done.
    async fn kill(&self, _worker: &TaskManagerId) -> bool {
        false
    }

    /// The workers of this cluster that live, as they are seen from outside.
    async fn alive(&self) -> BTreeSet<TaskManagerId>;

    /// A worker that can never be.
    fn impossible(&self) -> Option<WorkerProfile> {
        None
    }

    /// How many workers there may be at most, where that is limited.
    fn quota(&self) -> Option<u32> {
        None
    }

    /// The cluster's secret, and all that others can see of its workers: arguments, environments, public objects.
    async fn secret_and_public(&self) -> Option<(Vec<u8>, Vec<Vec<u8>>)> {
        None
    }

    /// Within this time a declared worker is started or refused, and an ended one is gone.
    fn deadline(&self) -> Duration {
        Duration::from_secs(10)
    }
}

/// A provider with its events.
struct Open {
    provider: Arc<dyn ResourceProvider>,
    events: mpsc::UnboundedReceiver<ProviderEvent>,
    deadline: Duration,
}

fn profile() -> WorkerProfile {
    WorkerProfile { slots: 2, memory: None }
}

impl Open {
    async fn new(fixture: &impl ResourceProviderFixture) -> Self {
        let provider = fixture.open().await.unwrap();
        let events = provider.events().expect("the events, the first time");
        Self { provider, events, deadline: fixture.deadline() }
    }

    /// An active provider, or `None` when there is nothing to test.
    async fn active(fixture: &impl ResourceProviderFixture) -> Option<Self> {
        let open = Self::new(fixture).await;
        (!open.provider.capabilities().passive).then_some(open)
    }

    async fn declare(&self, workers: u32) {
        self.provider.declare(BTreeMap::from([(profile(), workers)])).await.unwrap();
    }

    async fn next(&mut self) -> ProviderEvent {
        let event = timeout(&SystemClock::new(), self.deadline, self.events.recv()).await;
        event.unwrap_or_else(|_| panic!("no event within {:?}", self.deadline)).expect("events do not end")
    }

    /// Nothing is told for a while.
    async fn quiet(&mut self) {
        let event = timeout(&SystemClock::new(), Duration::from_millis(200), self.events.recv()).await;
        assert!(event.is_err(), "nothing should be told: {event:?}");
    }

    async fn started(&mut self) -> TaskManagerId {
        match self.next().await {
            ProviderEvent::Started { worker, profile: served } => {
                assert_eq!(served, profile());
                worker
            }
            other => panic!("a start was expected: {other:?}"),
        }
    }

    async fn started_all(&mut self, n: u32) -> BTreeSet<TaskManagerId> {
        let mut all = BTreeSet::new();
        for _ in 0..n {
            assert!(all.insert(self.started().await), "two workers with one identity");
        }
        all
    }

    async fn lost(&mut self) -> TaskManagerId {
        match self.next().await {
            ProviderEvent::Lost { worker, cause } => {
                assert!(!cause.is_empty());
                worker
            }
            other => panic!("a loss was expected: {other:?}"),
        }
    }

    async fn end(&self) {
        self.provider.deregister(ApplicationStatus::Succeeded, "the case is over").await.unwrap();
    }
}

async fn only(fixture: &impl ResourceProviderFixture, workers: &BTreeSet<TaskManagerId>) {
    let what = format!("exactly {workers:?} live");
    eventually(&what, fixture.deadline(), || async { (fixture.alive().await == *workers).then_some(()) }).await;
}

pub async fn the_events_are_given_once(fixture: &impl ResourceProviderFixture) {
    let open = Open::new(fixture).await;
    assert!(open.provider.events().is_none());
    open.end().await;
}

pub async fn a_passive_provider_changes_nothing(fixture: &impl ResourceProviderFixture) {
    let mut open = Open::new(fixture).await;
    if open.provider.capabilities().passive {
        open.declare(3).await;
        open.provider.registered(&TaskManagerId::new("came-by-itself")).await;
        open.provider.release(&TaskManagerId::new("came-by-itself")).await.unwrap();
        open.quiet().await;
        assert_eq!(fixture.alive().await, BTreeSet::new());
    }
    open.end().await;
}

pub async fn declared_workers_are_started(fixture: &impl ResourceProviderFixture) {
    let Some(mut open) = Open::active(fixture).await else { return };
    open.declare(3).await;
    let workers = open.started_all(3).await;
    only(fixture, &workers).await;
    open.quiet().await;
    open.end().await;
}

pub async fn declaring_is_absolute_and_idempotent(fixture: &impl ResourceProviderFixture) {
    let Some(mut open) = Open::active(fixture).await else { return };
    open.declare(2).await;
    let mut workers = open.started_all(2).await;
    open.declare(2).await;
    open.quiet().await;
    open.declare(3).await;
    workers.extend(open.started_all(1).await);
    only(fixture, &workers).await;
    open.end().await;
}

pub async fn declaring_less_ends_those_that_have_not_registered(fixture: &impl ResourceProviderFixture) {
    let Some(mut open) = Open::active(fixture).await else { return };
    open.declare(3).await;
    let workers = open.started_all(3).await;
    let busy = workers.iter().next_back().expect("three").clone();
    open.provider.registered(&busy).await;
    open.declare(1).await;
    let gone = BTreeSet::from([open.lost().await, open.lost().await]);
    assert_eq!(gone, workers.iter().filter(|w| **w != busy).cloned().collect());
    only(fixture, &BTreeSet::from([busy.clone()])).await;
    // The registered one is ended by nothing but a release.
    open.declare(0).await;
    open.quiet().await;
    only(fixture, &BTreeSet::from([busy.clone()])).await;
    open.provider.release(&busy).await.unwrap();
    assert_eq!(open.lost().await, busy);
    open.end().await;
}

pub async fn releasing_is_idempotent_and_told_once(fixture: &impl ResourceProviderFixture) {
    let Some(mut open) = Open::active(fixture).await else { return };
    open.declare(1).await;
    let worker = open.started().await;
    open.declare(0).await;
    for _ in 0..3 {
        open.provider.release(&worker).await.unwrap();
    }
    assert_eq!(open.lost().await, worker);
    open.provider.release(&worker).await.unwrap();
    open.provider.release(&TaskManagerId::new("never-was")).await.unwrap();
    open.quiet().await;
    only(fixture, &BTreeSet::new()).await;
    open.end().await;
}

pub async fn a_released_worker_is_replaced_while_the_declaration_stands(fixture: &impl ResourceProviderFixture) {
    let Some(mut open) = Open::active(fixture).await else { return };
    open.declare(1).await;
    let first = open.started().await;
    open.provider.registered(&first).await;
    open.provider.release(&first).await.unwrap();
    let mut second = None;
    let mut lost = false;
    while second.is_none() || !lost {
        match open.next().await {
            ProviderEvent::Started { worker, .. } => second = Some(worker),
            ProviderEvent::Lost { worker, .. } => lost = worker == first,
            other => panic!("{other:?}"),
        }
    }
    only(fixture, &second.into_iter().collect()).await;
    open.end().await;
}

pub async fn a_dead_worker_is_told_once_and_replaced(fixture: &impl ResourceProviderFixture) {
    let Some(mut open) = Open::active(fixture).await else { return };
    open.declare(2).await;
    let workers = open.started_all(2).await;
    let dead = workers.first().expect("two").clone();
    if fixture.kill(&dead).await {
        assert_eq!(open.lost().await, dead);
        let replacement = open.started().await;
        assert!(!workers.contains(&replacement));
        open.quiet().await;
    }
    open.end().await;
}

pub async fn workers_are_recovered_or_reaped_after_a_restart(fixture: &impl ResourceProviderFixture) {
    let Some(mut open) = Open::active(fixture).await else { return };
    open.declare(2).await;
    let workers = open.started_all(2).await;
    let recovers = open.provider.capabilities().recovers;
    fixture.shut_down(open.provider).await;
    let mut open = Open::new(fixture).await;
    if recovers {
        let mut recovered = BTreeSet::new();
        for _ in 0..2 {
            match open.next().await {
                ProviderEvent::Recovered { worker, profile: p } => {
                    assert_eq!(p, profile());
                    recovered.insert(worker);
                }
                other => panic!("recovered workers are told first: {other:?}"),
            }
        }
        assert_eq!(recovered, workers);
        // They count.
        open.declare(2).await;
        open.quiet().await;
        let dead = workers.first().expect("two");
        open.declare(1).await;
        if fixture.kill(dead).await {
            assert_eq!(open.lost().await, *dead);
        }
        open.quiet().await;
    } else {
        only(fixture, &BTreeSet::new()).await;
    }
    open.end().await;
    only(fixture, &BTreeSet::new()).await;
}

pub async fn a_worker_that_died_while_nobody_looked_is_not_recovered(fixture: &impl ResourceProviderFixture) {
    let Some(mut open) = Open::active(fixture).await else { return };
    open.declare(1).await;
    let worker = open.started().await;
    fixture.shut_down(open.provider).await;
    if fixture.kill(&worker).await {
        only(fixture, &BTreeSet::new()).await;
        let mut open = Open::new(fixture).await;
        open.quiet().await;
        open.end().await;
    }
}

pub async fn an_impossible_size_is_refused_by_name(fixture: &impl ResourceProviderFixture) {
    let Some(mut open) = Open::active(fixture).await else { return };
    if let Some(impossible) = fixture.impossible() {
        open.provider.declare(BTreeMap::from([(impossible.clone(), 1)])).await.unwrap();
        match open.next().await {
            ProviderEvent::Refused { profile, cause, retry } => {
                assert_eq!((profile, retry), (impossible, false));
                assert!(cause.len() > 10, "a cause for people: {cause:?}");
            }
            other => panic!("a refusal was expected: {other:?}"),
        }
        open.quiet().await;
    }
    open.end().await;
}

pub async fn an_exhausted_quota_is_retryable_and_used_again_when_there_is_room(fixture: &impl ResourceProviderFixture) {
    let Some(mut open) = Open::active(fixture).await else { return };
    if let (true, Some(quota)) = (open.provider.capabilities().quota, fixture.quota()) {
        open.declare(quota + 1).await;
        let (mut started, mut refused) = (Vec::new(), 0);
        for _ in 0..=quota {
            match open.next().await {
                ProviderEvent::Started { worker, .. } => started.push(worker),
                ProviderEvent::Refused { retry: true, .. } => refused += 1,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((started.len() as u32, refused), (quota, 1));
        // Once one is gone the one that was refused is started, without being declared again.
        open.provider.registered(&started[0]).await;
        open.provider.release(&started[0]).await.unwrap();
        let (clock, deadline) = (SystemClock::new(), open.deadline);
        let more = timeout(&clock, deadline, async {
            loop {
                if let ProviderEvent::Started { .. } = open.next().await {
                    return;
                }
            }
        });
        assert!(more.await.is_ok(), "a worker is started when there is room");
    }
    open.end().await;
}

pub async fn deregistering_leaves_nothing_behind(fixture: &impl ResourceProviderFixture) {
    let mut open = Open::new(fixture).await;
    let active = !open.provider.capabilities().passive;
    open.declare(2).await;
    let workers = if active { open.started_all(2).await } else { BTreeSet::new() };
    for _ in 0..2 {
        open.end().await;
    }
    assert_eq!(fixture.alive().await, BTreeSet::new());
    let mut told = BTreeSet::new();
    for _ in &workers {
        told.insert(open.lost().await);
    }
    assert_eq!(told, workers);
    if active {
        assert!(open.provider.declare(BTreeMap::from([(profile(), 1)])).await.is_err(), "it is over");
    }
    open.quiet().await;
}

pub async fn the_secret_stands_nowhere_in_public(fixture: &impl ResourceProviderFixture) {
    let mut open = Open::new(fixture).await;
    open.declare(1).await;
    if !open.provider.capabilities().passive {
        open.started().await;
    }
    if let Some((secret, public)) = fixture.secret_and_public().await {
        let hex: String = secret.iter().map(|b| format!("{b:02x}")).collect();
        for text in public {
            let holds = |part: &[u8]| text.windows(part.len()).any(|w| w.eq_ignore_ascii_case(part));
            assert!(!holds(&secret) && !holds(hex.as_bytes()), "{}", String::from_utf8_lossy(&text));
        }
    }
    open.end().await;
}

/// Makes each case of the resource-provider suite a test: `resource_provider_suite!(async || fixture)`, or
/// `resource_provider_suite!(external "name", async || Option<fixture>)` where the service may not be offered.
#[macro_export]
macro_rules! resource_provider_suite {
    ($open:expr) => { $crate::resource_provider_suite!(external "", async || Some(($open)().await)); };
    (external $service:expr, $open:expr) => { $crate::conformance_cases!($service, $open, resource_provider,
        the_events_are_given_once
        a_passive_provider_changes_nothing
        declared_workers_are_started
        declaring_is_absolute_and_idempotent
        declaring_less_ends_those_that_have_not_registered
        releasing_is_idempotent_and_told_once
        a_released_worker_is_replaced_while_the_declaration_stands
        a_dead_worker_is_told_once_and_replaced
        workers_are_recovered_or_reaped_after_a_restart
        a_worker_that_died_while_nobody_looked_is_not_recovered
        an_impossible_size_is_refused_by_name
        an_exhausted_quota_is_retryable_and_used_again_when_there_is_room
        deregistering_leaves_nothing_behind
        the_secret_stands_nowhere_in_public
    ); };
}
