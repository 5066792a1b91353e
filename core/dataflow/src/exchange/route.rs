//! Which channel a record takes.

use crate::key::{KeySelect, key_group, subtask_of};

/// Chooses the channel of a record.
pub trait Router<T>: 'static {
    /// Does the hash travel with the record?
    const SHIP: bool;
    /// Index of the channel, and the key's hash where there is one.
    fn route(&mut self, item: &T) -> (usize, u64);
    /// A batch was sent.
    fn shipped(&mut self) {}
}

/// By key group.
pub struct KeyRouter<S> {
    key: S,
    max_parallelism: u32,
    owners: Vec<u16>,
}

impl<S> KeyRouter<S> {
    pub(crate) fn new(key: S, parallelism: u32, max_parallelism: u32) -> Self {
        let owners = (0..max_parallelism).map(|g| subtask_of(g, parallelism, max_parallelism) as u16).collect();
        Self { key, max_parallelism, owners }
    }
}

impl<T: 'static, S: KeySelect<T>> Router<T> for KeyRouter<S> {
    const SHIP: bool = S::DEAR;
    #[inline(always)]
    fn route(&mut self, item: &T) -> (usize, u64) {
        let hash = self.key.hash(item);
        (self.owners[key_group(hash, self.max_parallelism) as usize] as usize, hash)
    }
}

/// A batch to each channel in turn; with one channel it is a forward edge.
pub struct TurnRouter {
    pub(crate) at: usize,
    pub(crate) channels: usize,
}

impl<T: 'static> Router<T> for TurnRouter {
    const SHIP: bool = false;
    #[inline(always)]
    fn route(&mut self, _: &T) -> (usize, u64) {
        (self.at, 0)
    }
    fn shipped(&mut self) {
        self.at = (self.at + 1) % self.channels.max(1);
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
