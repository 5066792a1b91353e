//! Shuffle `network`: parcels between task hosts, over one TCP connection for each pair of hosts, both ways.
//!
//! ```text
//!   slot thread                      I/O tasks                             slot thread
//!   writer.try_send ─▶ out queue ─▶ write ═══ one connection ═══▶ read ─▶ queue ─▶ reader.try_recv
//!        ▲                                                                             │
//!        └────────────── credit in bytes, one count for each channel ◀─────────────────┘
//! ```
//!
//! A reader grants bytes, a writer spends them, and nothing is sent without: so what a slow reader holds is bounded by
//! what it granted, and one slow channel does not hold up the others of its connection. A parcel that is larger than
//! what is granted is asked for by its size (`Need`), so that credit never goes below zero.
//!
//! Every frame has a checksum and a number, so what is damaged, missing or out of its place ends the connection, and both
//! ends of each of its channels are told why. Batches are compressed where `compression` asks for it.
//!
//! Slot threads only take short locks. Sockets, time-outs and the accept loop run as tasks.

mod budget;
mod buffers;
mod connection;
mod environment;
mod frame;
mod handshake;
mod master;
mod outbox;
mod packing;
mod peers;
mod reader;
mod sync;
mod writer;

#[cfg(all(test, thalweg_loom))]
mod loom_tests;
#[cfg(all(test, not(thalweg_loom)))]
mod soak_tests;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use thalweg_env::{Env, Shutdown};
use thalweg_spi::{
    ByteSize, EnvironmentSetup, Plugin, PluginConfig, PluginContext, Result, Shuffle, ShuffleCapabilities,
    ShuffleEnvironment, ShuffleMaster, TimeSpan, inventory, kind,
};

pub use packing::Compression;

/// `[shuffle.network]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct NetworkConfig {
    /// The most that one channel's reader grants to its writer; less when many channels share `exchange.memory`.
    pub max_window: ByteSize,
    /// A connection that is not made within this time has failed.
    pub connect_timeout: TimeSpan,
    /// A reader waits so long for a writer that has not been opened yet.
    pub partition_timeout: TimeSpan,
    /// A connection on which nothing comes for so long, not even the other host's signs of life, is lost.
    pub silence_timeout: TimeSpan,
    /// How batches are compressed on their way: `"none"`, or `"lz4"` where the network is slower than about 4 Gbit/s.
    pub compression: Compression,
}

impl Default for NetworkConfig {
    fn default() -> Self {
        Self {
            max_window: ByteSize::from_mib(1),
            connect_timeout: TimeSpan::from_secs(10),
            partition_timeout: TimeSpan::from_secs(10),
            silence_timeout: TimeSpan::from_secs(50),
            compression: Compression::None,
        }
    }
}

#[async_trait]
impl PluginConfig<kind::ShuffleKind> for NetworkConfig {
    const NAME: &'static str = "network";
    const SUMMARY: &'static str = "One TCP connection for each pair of task hosts, with credit.";

    fn validate(&self) -> Result<(), String> {
        let (low, high) = (ByteSize::from_bytes(4096), ByteSize::from_mib(1024));
        if self.max_window < low || self.max_window > high {
            return Err(format!("max-window is a size from {low} to {high}, and not {}", self.max_window));
        }
        for (name, span) in [
            ("connect-timeout", self.connect_timeout),
            ("partition-timeout", self.partition_timeout),
            ("silence-timeout", self.silence_timeout),
        ] {
            if span.get().is_zero() {
                return Err(format!("{name} must be at least 1ms"));
            }
        }
        Ok(())
    }

    async fn open(self, context: PluginContext) -> Result<Arc<dyn Shuffle>> {
        Ok(Arc::new(NetworkShuffle { config: self, env: context.env, shutdown: context.shutdown }))
    }
}

inventory::submit! { Plugin::<kind::ShuffleKind>::of::<NetworkConfig>() }

struct NetworkShuffle {
    config: NetworkConfig,
    env: Env,
    shutdown: Shutdown,
}

impl Shuffle for NetworkShuffle {
    fn capabilities(&self) -> ShuffleCapabilities {
        ShuffleCapabilities { between_processes: true, between_hosts: true }
    }

    fn master(&self) -> Arc<dyn ShuffleMaster> {
        Arc::new(master::Master)
    }

    fn environment(&self, setup: EnvironmentSetup) -> Result<Arc<dyn ShuffleEnvironment>> {
        Ok(Arc::new(environment::NetworkEnvironment::open(
            &self.config,
            self.env.clone(),
            self.shutdown.child(),
            setup,
        )?))
    }
}
