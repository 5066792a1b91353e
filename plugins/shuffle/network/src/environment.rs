//! A host's side: which channels begin and end here, and what they hold.
//!
//! Locks are taken in this order: the table below, a connection's streams, a channel, a connection's queue.

use crate::{
    NetworkConfig,
    budget::Budget,
    buffers::Blocks,
    connection::Connection,
    frame::Frame,
    master,
    packing::{Compression, cost_of},
    peers::Peer,
    reader::{Failure, Reader, ReaderShared},
    writer::{Writer, WriterShared},
};
use futures::FutureExt;
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    io,
    net::ToSocketAddrs,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::Waker,
    time::Duration,
};
use thalweg_env::{Address, Env, Listener, Shutdown};
use thalweg_model::{Attempt, JobId, RegionAttempt};
use thalweg_spi::{
    ChannelId, ChannelReader, ChannelWriter, EnvironmentSetup, ErrorKind, PartitionId, Result, Secret, ServiceError,
    ShuffleDescriptor, ShuffleEnvironment,
};

/// What the environment, its channels and its tasks share.
pub(crate) struct Shared {
    pub(crate) env: Env,
    pub(crate) job: JobId,
    pub(crate) secret: Secret,
    pub(crate) incarnation: [u8; 16],
    pub(crate) address: String,
    pub(crate) max_parcel: usize,
    /// Bytes that the queue of one connection takes.
    pub(crate) out_limit: usize,
    pub(crate) connect_timeout: Duration,
    partition_timeout: Duration,
    pub(crate) silence_timeout: Duration,
    pub(crate) compression: Compression,
    pub(crate) budget: Budget,
    pub(crate) blocks: Arc<Blocks>,
    pub(crate) state: Mutex<State>,
    pub(crate) shutdown: Shutdown,
    pub(crate) bytes_in: AtomicU64,
    pub(crate) bytes_out: AtomicU64,
}

/// The table.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) peers: HashMap<String, Peer>,
    readers: HashMap<ChannelId, Arc<ReaderShared>>,
    writers: HashMap<ChannelId, Arc<WriterShared>>,
    /// Writers that went without an end before a reader asked for them.
    gone: HashMap<ChannelId, String>,
    /// Readers of other hosts that came before their writer.
    early: HashMap<ChannelId, Early>,
    /// By region: this attempt and lower ones are over.
    released: HashMap<u32, Attempt>,
}

#[derive(Clone)]
struct Early {
    connection: Arc<Connection>,
    stream: u32,
    credit: usize,
}

impl Early {
    fn refuse(&self, cause: String) {
        self.connection.outbox.control(&Frame::WriterGone { stream: self.stream, cause });
    }
}

impl State {
    /// Readers, writers, writers that are gone, readers that are early.
    #[cfg(test)]
    pub(crate) fn sizes(&self) -> [usize; 4] {
        [self.readers.len(), self.writers.len(), self.gone.len(), self.early.len()]
    }

    fn is_released(&self, partition: &PartitionId) -> bool {
        self.released.get(&partition.region).is_some_and(|released| partition.attempt <= *released)
    }
}

const RELEASED: &str = "the attempt was released";

impl Shared {
    /// The most that one parcel may cost.
    pub(crate) fn longest_cost(&self) -> usize {
        cost_of(self.max_parcel)
    }

    /// A reader on another host asks for a channel.
    pub(crate) fn opened(
        self: &Arc<Self>,
        connection: &Arc<Connection>,
        stream: u32,
        channel: ChannelId,
        credit: usize,
    ) {
        let early = Early { connection: connection.clone(), stream, credit };
        let mut state = self.state.lock();
        if channel.partition.job != self.job {
            drop(state);
            early.refuse(format!("it is a host of job {}", self.job));
        } else if state.is_released(&channel.partition) {
            drop(state);
            early.refuse(RELEASED.into());
        } else if let Some(cause) = state.gone.get(&channel).cloned() {
            drop(state);
            early.refuse(cause);
        } else if let Some(writer) = state.writers.get(&channel).cloned() {
            drop(state);
            connection.attach_writer(&writer, stream, credit);
        } else {
            state.early.insert(channel, early.clone());
            drop(state);
            let shared = self.clone();
            self.env.spawner.spawn("shuffle-early", async move {
                tokio::select! {
                    () = shared.shutdown.triggered() => {}
                    () = shared.env.clock.sleep(shared.partition_timeout) => shared.too_early(channel, &early),
                }
            });
        }
    }

    /// The writer of an early reader did not come in time.
    fn too_early(&self, channel: ChannelId, early: &Early) {
        let mut state = self.state.lock();
        let still = |e: &Early| Arc::ptr_eq(&e.connection, &early.connection) && e.stream == early.stream;
        if state.early.get(&channel).is_some_and(still) {
            state.early.remove(&channel);
            drop(state);
            early.refuse(format!("the producer did not offer the channel within {:?}", self.partition_timeout));
        }
    }

    /// A reader on another host does not want its channel any more.
    pub(crate) fn withdrawn(&self, connection: &Arc<Connection>, stream: u32) {
        let same = |e: &Early| Arc::ptr_eq(&e.connection, connection) && e.stream == stream;
        self.state.lock().early.retain(|_, early| !same(early));
    }

    pub(crate) fn forget_reader(&self, reader: &Arc<ReaderShared>) {
        let mut state = self.state.lock();
        if state.readers.get(&reader.channel).is_some_and(|r| Arc::ptr_eq(r, reader)) {
            state.readers.remove(&reader.channel);
        }
        for peer in state.peers.values_mut() {
            if let Peer::Coming { waiting, .. } = peer {
                waiting.retain(|r| !Arc::ptr_eq(r, reader));
            }
        }
    }

    pub(crate) fn forget_writer(&self, writer: &Arc<WriterShared>, cause: Option<String>) {
        let mut state = self.state.lock();
        if state.writers.get(&writer.channel).is_some_and(|w| Arc::ptr_eq(w, writer)) {
            state.writers.remove(&writer.channel);
            if let (Some(cause), false) = (cause, state.is_released(&writer.channel.partition)) {
                state.gone.insert(writer.channel, cause);
            }
        }
    }

    pub(crate) fn forget_connection(&self, connection: &Arc<Connection>) {
        let mut state = self.state.lock();
        if matches!(state.peers.get(&connection.peer), Some(Peer::Connected(c)) if Arc::ptr_eq(c, connection)) {
            state.peers.remove(&connection.peer);
        }
        state.early.retain(|_, early| !Arc::ptr_eq(&early.connection, connection));
    }
}

/// One host's environment. Dropping it ends its connections.
pub(crate) struct NetworkEnvironment {
    pub(crate) shared: Arc<Shared>,
}

impl NetworkEnvironment {
    pub(crate) fn open(config: &NetworkConfig, env: Env, shutdown: Shutdown, setup: EnvironmentSetup) -> Result<Self> {
        let invalid = |text: String| ServiceError::new(ErrorKind::InvalidConfig, "open shuffle", text);
        let bind: Address = setup.bind.parse().map_err(|e| invalid(format!("{e}")))?;
        let listener = listen(&env, bind).map_err(|e| ServiceError::io("open shuffle", e).with("bind", &setup.bind))?;
        let address = listener.address();
        if let Address::Tcp(at) = &address
            && at.parse::<std::net::SocketAddr>().is_ok_and(|a| a.ip().is_unspecified())
        {
            let text = format!("{at} is no address that others can dial: set task-manager.bind to one of this host's");
            return Err(invalid(text));
        }
        let shared = Arc::new(Shared {
            incarnation: env.entropy.id(),
            env,
            job: setup.job,
            secret: Secret::new(setup.secret),
            address: address.to_string(),
            max_parcel: setup.max_parcel,
            // A quarter for what waits to be sent, the rest for readers; a connection needs no more than keeps it busy.
            out_limit: (setup.memory / 4).clamp(64 * 1024, 4 << 20),
            connect_timeout: config.connect_timeout.get(),
            partition_timeout: config.partition_timeout.get(),
            silence_timeout: config.silence_timeout.get(),
            compression: config.compression,
            budget: Budget::new(setup.memory / 4 * 3, config.max_window.as_usize()),
            blocks: Arc::default(),
            state: Mutex::default(),
            shutdown,
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
        });
        shared.env.spawner.spawn("shuffle-listen", shared.clone().accept_all(listener));
        Ok(Self { shared })
    }

    fn refuse(&self, state: &State, channel: &ChannelId, operation: &'static str) -> Result<()> {
        let error = |kind, text: String| Err(Failure::new(kind, text).error(operation, channel));
        if channel.partition.job != self.shared.job {
            return error(ErrorKind::InvalidConfig, format!("this is a host of job {}", self.shared.job));
        }
        if state.is_released(&channel.partition) {
            return error(ErrorKind::Closed, RELEASED.into());
        }
        Ok(())
    }
}

/// Starts to listen, although the caller cannot wait as a task does.
fn listen(env: &Env, bind: Address) -> io::Result<Box<dyn Listener>> {
    if tokio::runtime::Handle::try_current().is_err() {
        // A plain thread may block for an answer from the runtime.
        let (sender, receiver) = std::sync::mpsc::channel();
        let network = env.network.clone();
        env.spawner.spawn("shuffle-bind", async move {
            let _ = sender.send(network.listen(&bind).await);
        });
        return receiver.recv().unwrap_or_else(|_| Err(io::Error::other("the runtime has ended")));
    }
    // A task must not block; but to bind an address takes no waiting, only to look up a name does.
    if let Some(listening) = env.network.listen(&bind).now_or_never() {
        return listening;
    }
    let Address::Tcp(name) = &bind else { return Err(io::ErrorKind::WouldBlock.into()) };
    let found = name.to_socket_addrs()?.next().ok_or(io::ErrorKind::NotFound)?;
    let listening = env.network.listen(&Address::Tcp(found.to_string())).now_or_never();
    listening.unwrap_or_else(|| Err(io::ErrorKind::WouldBlock.into()))
}

impl ShuffleEnvironment for NetworkEnvironment {
    fn data_address(&self) -> Option<String> {
        Some(self.shared.address.clone())
    }

    fn open_writer(&self, channel: ChannelId, waker: Waker) -> Result<Box<dyn ChannelWriter>> {
        let me = Arc::new(WriterShared::new(channel, waker));
        let mut state = self.shared.state.lock();
        self.refuse(&state, &channel, "open writer")?;
        if state.writers.contains_key(&channel) {
            return Err(
                Failure::new(ErrorKind::AlreadyExists, "the channel has a writer").error("open writer", &channel)
            );
        }
        state.gone.remove(&channel);
        state.writers.insert(channel, me.clone());
        let early = state.early.remove(&channel);
        drop(state);
        if let Some(Early { connection, stream, credit }) = early {
            connection.attach_writer(&me, stream, credit);
        }
        Ok(Box::new(Writer { me, shared: self.shared.clone() }))
    }

    fn open_reader(
        &self,
        channel: ChannelId,
        descriptor: &ShuffleDescriptor,
        waker: Waker,
    ) -> Result<Box<dyn ChannelReader>> {
        let peer = master::address_of(descriptor)?;
        if peer.to_string() == self.shared.address {
            let text = "the channel does not leave this process: it is the core's own";
            return Err(Failure::new(ErrorKind::Unsupported, text).error("open reader", &channel));
        }
        let me = Arc::new(ReaderShared::new(channel, waker));
        let mut state = self.shared.state.lock();
        self.refuse(&state, &channel, "open reader")?;
        if state.readers.contains_key(&channel) {
            return Err(
                Failure::new(ErrorKind::AlreadyExists, "the channel has a reader").error("open reader", &channel)
            );
        }
        state.readers.insert(channel, me.clone());
        drop(state);
        self.shared.connect_reader(peer, me.clone());
        Ok(Box::new(Reader { me, shared: self.shared.clone() }))
    }

    fn release(&self, job: JobId, RegionAttempt { region, attempt }: RegionAttempt) {
        if job != self.shared.job {
            return;
        }
        let mut state = self.shared.state.lock();
        let released = state.released.entry(region).or_insert(attempt);
        *released = attempt.max(*released);
        let over = |channel: &ChannelId| channel.partition.region == region && channel.partition.attempt <= attempt;
        let readers: Vec<_> = state.readers.extract_if(|channel, _| over(channel)).map(|(_, r)| r).collect();
        let writers: Vec<_> = state.writers.extract_if(|channel, _| over(channel)).map(|(_, w)| w).collect();
        let early: Vec<_> = state.early.extract_if(|channel, _| over(channel)).map(|(_, e)| e).collect();
        state.gone.retain(|channel, _| !over(channel));
        drop(state);
        for reader in readers {
            self.shared.forget_reader(&reader);
            let failure = Failure::new(ErrorKind::Closed, RELEASED);
            if let Some((connection, stream)) = reader.close(Some(failure), &self.shared.budget) {
                connection.end_reading(stream, true);
            }
        }
        for writer in writers {
            writer.fail(Failure::new(ErrorKind::Closed, RELEASED));
            if let Some((connection, stream)) = writer.place() {
                connection.end_writing(stream, Some(RELEASED.into()));
            }
        }
        for early in early {
            early.refuse(RELEASED.into());
        }
    }

    fn traffic(&self) -> (u64, u64) {
        (self.shared.bytes_out.load(Ordering::Relaxed), self.shared.bytes_in.load(Ordering::Relaxed))
    }

    fn memory_in_use(&self) -> usize {
        let state = self.shared.state.lock();
        let queued = state.peers.values().map(|peer| match peer {
            Peer::Connected(connection) => connection.outbox.bytes(),
            Peer::Coming { .. } => 0,
        });
        self.shared.budget.held() + queued.sum::<usize>()
    }
}

impl Drop for NetworkEnvironment {
    fn drop(&mut self) {
        self.shared.shutdown.trigger();
    }
}
