//! Who leads, as etcd says it: one watch of the leader's key for this process, for all who ask.
//!
//! Only the last state counts, so every (re-)connection begins with a look at the key and watches from there on. This is
//! right after a compaction too, and after the store was made anew with lower revisions. A member that lost its leader
//! ends the watch, one that hangs is found by pings, and after a minute without a word there is a look anyway.

use crate::{
    connect::Settings,
    failure::{Cause, Failure, classify},
    members::Members,
    record::LeaderRecord,
    standing::Standing,
};
use etcd_client::{EventType, GetResponse, KeyValue, WatchOptions, WatchResponse};
use std::{sync::Arc, time::Duration};
use thalweg_env::{Clock, Env, Shutdown, timeout};
use thalweg_spi::{LeaderInfo, LeaderRetrieval};
use tokio::sync::watch;

/// After so long without a word from a watch there is a look.
const SILENCE: Duration = Duration::from_secs(60);

/// The leader's key at a revision.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct View {
    pub revision: i64,
    /// The revision that created the key, and what it says; `None` while nobody leads.
    pub leader: Option<(i64, Option<LeaderInfo>)>,
}

impl View {
    /// What a look found.
    pub(crate) fn of(answer: &GetResponse) -> Self {
        let revision = answer.header().map_or(0, etcd_client::ResponseHeader::revision);
        Self { revision, leader: answer.kvs().first().map(seen) }
    }
}

fn seen(kv: &KeyValue) -> (i64, Option<LeaderInfo>) {
    let record = LeaderRecord::decode(kv.value());
    if record.is_none() {
        tracing::warn!("the leader's key holds what this version of Thalweg cannot read");
    }
    (kv.create_revision(), record.and_then(|r| r.leader))
}

/// The watch, for all who ask.
pub(crate) struct LeaderWatch {
    view: watch::Sender<View>,
    leader: watch::Sender<Option<LeaderInfo>>,
    standing: Arc<Standing>,
    shutdown: Shutdown,
}

impl LeaderWatch {
    /// Begins with what the look at start-up found; ends with `shutdown` or when it is dropped.
    pub(crate) fn start(
        settings: Settings,
        env: &Env,
        members: Arc<Members>,
        standing: Arc<Standing>,
        first: View,
        shutdown: Shutdown,
    ) -> Arc<Self> {
        let leader = watch::Sender::new(first.leader.clone().and_then(|(_, info)| info));
        let view = watch::Sender::new(first);
        let this = Arc::new(Self { view, leader, standing, shutdown: shutdown.clone() });
        let (weak, clock) = (Arc::downgrade(&this), env.clock.clone());
        env.spawner.spawn("etcd-leader-watch", async move {
            let publish = |view: View| weak.upgrade().map(|this| this.publish(view));
            let mut tried = 0;
            loop {
                let follow = follow(&settings, &*clock, &members, &publish, &mut tried);
                let failure = tokio::select! {
                    biased;
                    () = shutdown.triggered() => return,
                    failure = follow => failure,
                };
                if weak.strong_count() == 0 {
                    return;
                }
                if let Some(failure) = failure {
                    tracing::debug!(endpoint = failure.endpoint, "leader watch: {}", failure.message);
                    tried += 1;
                    members.pause(tried).await;
                }
            }
        });
        this
    }

    fn publish(&self, view: View) {
        // A leader whose key is gone, or somebody else's, leads no more: an operator may have removed it.
        if let Some(epoch) = self.standing.epoch()
            && let Ok(mine) = i64::try_from(epoch.0)
            && view.revision >= mine
            && view.leader.as_ref().map(|(created, _)| *created) != Some(mine)
        {
            self.standing.lose(epoch, "its key in etcd is gone");
        }
        let info = view.leader.clone().and_then(|(_, info)| info);
        self.leader.send_if_modified(|known| {
            let changed = *known != info;
            *known = info;
            changed
        });
        self.view.send_replace(view);
    }

    /// The key, as it changes.
    pub(crate) fn view(&self) -> watch::Receiver<View> {
        self.view.subscribe()
    }

    /// Ends the watch.
    pub(crate) fn stop(&self) {
        self.shutdown.trigger();
    }
}

impl Drop for LeaderWatch {
    fn drop(&mut self) {
        self.stop();
    }
}

impl LeaderRetrieval for LeaderWatch {
    fn leader(&self) -> watch::Receiver<Option<LeaderInfo>> {
        self.leader.subscribe()
    }
}

/// Looks, and watches from there until the watch ends; `None` when there is no more to it than that.
async fn follow(
    settings: &Settings,
    clock: &dyn Clock,
    members: &Members,
    publish: &impl Fn(View) -> Option<()>,
    tried: &mut usize,
) -> Option<Failure> {
    let member = match members.member().await {
        Ok(member) => member,
        Err(failure) => return Some(failure),
    };
    let (at, endpoint, client) = (member.at, member.endpoint.clone(), member.client.clone());
    let key = settings.keys.leader();
    let look = members.at(member, |client| {
        let key = key.clone();
        async move { client.kv_client().get(key, None).await }
    });
    let view = match look.await {
        Ok(answer) => View::of(&answer),
        Err(failure) => return Some(failure),
    };
    let from = view.revision + 1;
    publish(view)?;
    let options = WatchOptions::new().with_start_revision(from).with_progress_notify();
    let limit = settings.config.request_timeout.get();
    let failed = |failure: Failure| {
        if failure.elsewhere() {
            members.failed(at, &failure);
        }
        Some(failure)
    };
    let mut watcher = client.watch_client();
    let mut stream = match timeout(clock, limit, watcher.watch(key, Some(options))).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(e)) => return failed(classify(&e, &endpoint, settings)),
        Err(_) => return failed(Failure::silent(&endpoint, limit)),
    };
    *tried = 0;
    loop {
        match timeout(clock, SILENCE, stream.message()).await {
            Ok(Ok(Some(answer))) => {
                if answer.canceled() {
                    // Compacted, mostly, and then the reason is empty: look again.
                    let why = format!("canceled at {}: {}", answer.compact_revision(), answer.cancel_reason());
                    return Some(Failure::new(Cause::Compacted, &endpoint, why));
                }
                for view in views(&answer) {
                    publish(view)?;
                }
            }
            Ok(Ok(None)) => return failed(Failure::new(Cause::Broken, &endpoint, "the watch ended")),
            Ok(Err(e)) => return failed(classify(&e, &endpoint, settings)),
            Err(_) => return None,
        }
    }
}

fn views(answer: &WatchResponse) -> impl Iterator<Item = View> + '_ {
    answer.events().iter().filter_map(|event| {
        let kv = event.kv()?;
        let leader = (event.event_type() == EventType::Put).then(|| seen(kv));
        Some(View { revision: kv.mod_revision(), leader })
    })
}
