//! Ends of chains that are exchanges: which subtask of the next vertex gets a record.

use crate::{
    build::BuildCx,
    either::Either,
    exchange::{
        out::{BroadcastOut, ExchangeOut},
        route::{
            Addressed, CustomRouter, DirectRouter, GlobalRouter, KeyRouter, LeftRouter, ShuffleRouter, TurnRouter, head,
        },
    },
    key::{Data, KeySelect},
    ops::ClonedToSubtasks,
    pipe::Terminal,
};
use thalweg_model::TaskFailure;

/// Ends a chain in an exchange by key.
#[derive(Clone)]
pub struct KeyRoute<S> {
    /// Index of the edge.
    pub edge: u32,
    /// Do records travel with their times?
    pub timed: bool,
    /// Finds the key.
    pub key: S,
}

impl<T: Data, S: KeySelect<T>> Terminal<T> for KeyRoute<S> {
    type End = ExchangeOut<T, KeyRouter<S>>;
    fn open(self, cx: &BuildCx) -> Result<Self::End, TaskFailure> {
        let to = &cx.attempt.plan.graph().vertices[cx.edge(self.edge)?.to as usize];
        let router = KeyRouter::new(self.key, to);
        Ok(ExchangeOut::new(cx.senders(self.edge)?, router, cx.attempt.sizes, self.timed, cx.cell.clone()))
    }
}

/// Ends the keyed one of two streams in an exchange by key, where the other one is broadcast.
#[derive(Clone)]
pub struct LeftRoute<S> {
    /// Index of the edge.
    pub edge: u32,
    /// Do records travel with their times?
    pub timed: bool,
    /// Finds the key.
    pub key: S,
}

impl<A: Data, B: Data, S: KeySelect<A>> Terminal<Either<A, B>> for LeftRoute<S> {
    type End = ExchangeOut<Either<A, B>, LeftRouter<S>>;
    fn open(self, cx: &BuildCx) -> Result<Self::End, TaskFailure> {
        let to = &cx.attempt.plan.graph().vertices[cx.edge(self.edge)?.to as usize];
        let router = LeftRouter(KeyRouter::new(self.key, to));
        Ok(ExchangeOut::new(cx.senders(self.edge)?, router, cx.attempt.sizes, self.timed, cx.cell.clone()))
    }
}

/// Ends a chain in an exchange that serves its consumers in turn; on a forward edge there is one.
#[derive(Clone)]
pub struct TurnRoute {
    /// Index of the edge.
    pub edge: u32,
    /// Do records travel with their times?
    pub timed: bool,
}

impl<T: Data> Terminal<T> for TurnRoute {
    type End = ExchangeOut<T, TurnRouter>;
    fn open(self, cx: &BuildCx) -> Result<Self::End, TaskFailure> {
        let senders = cx.senders(self.edge)?;
        let channels = senders.len();
        // Producers begin at different consumers.
        let at = if channels == 0 { 0 } else { cx.subtask.index as usize % channels };
        Ok(ExchangeOut::new(senders, TurnRouter { at, channels }, cx.attempt.sizes, self.timed, cx.cell.clone()))
    }
}

/// Ends a chain in an exchange that picks a consumer by chance.
#[derive(Clone)]
pub struct ShuffleRoute {
    /// Index of the edge.
    pub edge: u32,
    /// Do records travel with their times?
    pub timed: bool,
}

impl<T: Data> Terminal<T> for ShuffleRoute {
    type End = ExchangeOut<T, ShuffleRouter>;
    fn open(self, cx: &BuildCx) -> Result<Self::End, TaskFailure> {
        let senders = cx.senders(self.edge)?;
        let router = ShuffleRouter::new(senders.len(), u64::from(cx.subtask.index));
        Ok(ExchangeOut::new(senders, router, cx.attempt.sizes, self.timed, cx.cell.clone()))
    }
}

/// Ends a chain in an exchange whose first consumer gets all.
#[derive(Clone)]
pub struct GlobalRoute {
    /// Index of the edge.
    pub edge: u32,
    /// Do records travel with their times?
    pub timed: bool,
}

impl<T: Data> Terminal<T> for GlobalRoute {
    type End = ExchangeOut<T, GlobalRouter>;
    fn open(self, cx: &BuildCx) -> Result<Self::End, TaskFailure> {
        Ok(ExchangeOut::new(cx.senders(self.edge)?, GlobalRouter, cx.attempt.sizes, self.timed, cx.cell.clone()))
    }
}

/// Ends a chain in an exchange as a function says.
#[derive(Clone)]
pub struct CustomRoute<F> {
    /// Index of the edge.
    pub edge: u32,
    /// Do records travel with their times?
    pub timed: bool,
    /// Of a record and the number of consumers, the index of one.
    pub f: F,
}

impl<T: Data, F: FnMut(&T, usize) -> usize + ClonedToSubtasks> Terminal<T> for CustomRoute<F> {
    type End = ExchangeOut<T, CustomRouter<F>>;
    fn open(self, cx: &BuildCx) -> Result<Self::End, TaskFailure> {
        let senders = cx.senders(self.edge)?;
        let to = &cx.attempt.plan.graph().vertices[cx.edge(self.edge)?.to as usize];
        let router = CustomRouter { f: self.f, channels: senders.len(), uid: head(to) };
        Ok(ExchangeOut::new(senders, router, cx.attempt.sizes, self.timed, cx.cell.clone()))
    }
}

/// Ends a chain in an exchange all of whose consumers get all.
#[derive(Clone)]
pub struct BroadcastRoute {
    /// Index of the edge.
    pub edge: u32,
    /// Do records travel with their times?
    pub timed: bool,
}

impl<T: Data + Clone> Terminal<T> for BroadcastRoute {
    type End = BroadcastOut<T>;
    fn open(self, cx: &BuildCx) -> Result<Self::End, TaskFailure> {
        Ok(BroadcastOut::new(cx.senders(self.edge)?, cx.attempt.sizes, self.timed, cx.cell.clone()))
    }
}

/// The sending side of an edge whose records name their consumer.
pub(crate) fn direct<T: Data + Addressed>(
    cx: &BuildCx,
    edge: u32,
) -> Result<ExchangeOut<T, DirectRouter>, TaskFailure> {
    Ok(ExchangeOut::one_by_one(cx.senders(edge)?, DirectRouter, cx.cell.clone()))
}
