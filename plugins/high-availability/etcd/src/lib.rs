//! High availability `etcd`: standby JobManagers on any host, and records that outlive all of them.
//!
//! ```text
//!  <prefix>/<cluster>/@leader       who leads; bound to the leader's lease, so it goes when the leader stops renewing
//!  <prefix>/<cluster>/@data/<key>   the records of `metadata`
//! ```
//!
//! No name of a cluster and no part of a prefix may begin with `@`, so no cluster can lie inside another one's records.
//!
//! **Office.** Who creates `@leader` leads, and the revision that created it is the epoch. Every write is one etcd
//! transaction that compares this revision, so a leader that was replaced cannot write, whatever it believes. Beside
//! that it believes nothing for long: its lease is renewed by a thread of its own, and a lease that could not be renewed
//! for its time-to-live minus a tenth is over, without anybody being asked ([`lease`]).
//!
//! **Writes without an answer.** A request that timed out may still be lying in a member that hangs, and take effect
//! later. Each write therefore also compares when `@leader` was last written. After a doubt the leader writes that key
//! anew: then whatever is under way can never happen, and one look tells what did ([`guard`]).
//!
//! **Epochs and the store's life.** Revisions grow as long as etcd keeps its data, over restarts of any or all members.
//! Where it is wiped, or an old snapshot is restored, they fall back: the records are gone or old as well, and
//! TaskManagers that have seen a higher epoch refuse the new leader. Restart them then, or restore with
//! `etcdutl snapshot restore --bump-revision` (etcd 3.6), which makes revisions go on above the old ones.

mod check;
mod config;
mod connect;
mod election;
mod failure;
mod guard;
mod keys;
mod leader_watch;
mod lease;
mod members;
mod metadata;
mod record;
mod services;
mod standing;

pub use config::EtcdConfig;

use async_trait::async_trait;
use std::sync::Arc;
use thalweg_spi::{HighAvailabilityServices, Plugin, PluginConfig, PluginContext, Result, inventory, kind};

#[async_trait]
impl PluginConfig<kind::HighAvailability> for EtcdConfig {
    const NAME: &'static str = "etcd";
    const SUMMARY: &'static str = "Standby JobManagers, and records that outlive them, in etcd 3.4 or newer.";

    fn validate(&self) -> Result<(), String> {
        self.check()
    }

    async fn open(self, context: PluginContext) -> Result<Arc<dyn HighAvailabilityServices>> {
        Ok(services::Etcd::open(self, context).await? as Arc<dyn HighAvailabilityServices>)
    }
}

inventory::submit! { Plugin::<kind::HighAvailability>::of::<EtcdConfig>() }
