//! Which channel a record takes.

use crate::{
    either::Either,
    key::{KeySelect, key_group, subtask_of},
    panics::Guard,
};
use std::sync::Arc;
use thalweg_model::Vertex;

/// Chooses the channel of a record.
pub trait Router<T>: 'static {
    /// Does the hash travel with the record?
    const SHIP: bool;
    /// Index of the channel, and the key's hash where there is one.
    fn route(&mut self, item: &T) -> (usize, u64);
}

/// The uid of the operator that records come to.
pub(crate) fn head(to: &Vertex) -> Arc<str> {
    to.operators.first().map_or("", |o| o.uid.as_str()).into()
}

/// By key group.
pub struct KeyRouter<S> {
    key: S,
    max_parallelism: u32,
    owners: Vec<u16>,
    /// Of the operator whose key it is.
    uid: Arc<str>,
}

impl<S> KeyRouter<S> {
    pub(crate) fn new(key: S, to: &Vertex) -> Self {
        let (parallelism, max_parallelism) = (to.parallelism, to.max_parallelism);
        let owners = (0..max_parallelism).map(|g| subtask_of(g, parallelism, max_parallelism) as u16).collect();
        Self { key, max_parallelism, owners, uid: head(to) }
    }
}

impl<T: 'static, S: KeySelect<T>> Router<T> for KeyRouter<S> {
    const SHIP: bool = S::DEAR;
    #[inline(always)]
    fn route(&mut self, item: &T) -> (usize, u64) {
        let guard = Guard::new(&self.uid);
        let hash = self.key.hash(item);
        guard.leave();
        (self.owners[key_group(hash, self.max_parallelism) as usize] as usize, hash)
    }
}

/// By the key group of what comes first of two; of the other nothing comes here.
pub struct LeftRouter<S>(pub(crate) KeyRouter<S>);

impl<A: 'static, B: 'static, S: KeySelect<A>> Router<Either<A, B>> for LeftRouter<S> {
    const SHIP: bool = false;
    #[inline(always)]
    fn route(&mut self, item: &Either<A, B>) -> (usize, u64) {
        match item {
            Either::Left(item) => self.0.route(item),
            Either::Right(_) => (0, 0),
        }
    }
}

/// A record to each channel in turn: a few dear ones are spread too. With one channel it is a forward edge.
pub struct TurnRouter {
    pub(crate) at: usize,
    pub(crate) channels: usize,
}

impl<T: 'static> Router<T> for TurnRouter {
    const SHIP: bool = false;
    #[inline(always)]
    fn route(&mut self, _: &T) -> (usize, u64) {
        let at = self.at;
        self.at = if at + 1 < self.channels { at + 1 } else { 0 };
        (at, 0)
    }
}

/// A record to a channel by chance, which evens out what taking turns would keep in step.
pub struct ShuffleRouter {
    channels: usize,
    state: u64,
}

impl ShuffleRouter {
    /// The same seed gives the same choices.
    pub(crate) fn new(channels: usize, seed: u64) -> Self {
        Self { channels, state: seed }
    }
}

impl<T: 'static> Router<T> for ShuffleRouter {
    const SHIP: bool = false;
    #[inline(always)]
    fn route(&mut self, _: &T) -> (usize, u64) {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let word = crate::key::hash_word(self.state);
        (((u128::from(word) * self.channels as u128) >> 64) as usize, 0)
    }
}

/// All to the first channel.
pub struct GlobalRouter;

impl<T: 'static> Router<T> for GlobalRouter {
    const SHIP: bool = false;
    #[inline(always)]
    fn route(&mut self, _: &T) -> (usize, u64) {
        (0, 0)
    }
}

/// As a function of the program says: it is told how many channels there are, and its answer is taken modulo that.
pub struct CustomRouter<F> {
    pub(crate) f: F,
    pub(crate) channels: usize,
    /// Of the operator that the function belongs to.
    pub(crate) uid: Arc<str>,
}

impl<T: 'static, F: FnMut(&T, usize) -> usize + 'static> Router<T> for CustomRouter<F> {
    const SHIP: bool = false;
    #[inline(always)]
    fn route(&mut self, item: &T) -> (usize, u64) {
        let guard = Guard::new(&self.uid);
        let channel = (self.f)(item, self.channels);
        guard.leave();
        (channel % self.channels.max(1), 0)
    }
}

/// The record says whom it is for.
pub(crate) trait Addressed {
    /// Index of the subtask.
    fn to(&self) -> u32;
}

/// By the record's own word.
pub(crate) struct DirectRouter;

impl<T: Addressed + 'static> Router<T> for DirectRouter {
    const SHIP: bool = false;
    #[inline(always)]
    fn route(&mut self, item: &T) -> (usize, u64) {
        (item.to() as usize, 0)
    }
}
