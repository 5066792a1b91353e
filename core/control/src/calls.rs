//! Replies that a driver keeps while its core decides: the core sees a number.

use std::collections::HashMap;
use thalweg_rpc::{Fault, Reply};

/// Replies by number. One table for each type of answer; the numbers are unique over all tables of one [`CallIds`].
#[derive(Default)]
pub struct Calls<T>(HashMap<u64, Reply<T>>);

/// Gives numbers.
#[derive(Default)]
pub struct CallIds(u64);

impl CallIds {
    /// A number that was not given before.
    pub fn give(&mut self) -> u64 {
        self.0 += 1;
        self.0
    }
}

impl<T> Calls<T> {
    /// None waits.
    pub fn new() -> Self {
        Self(HashMap::new())
    }

    /// Keeps a reply.
    pub fn keep(&mut self, ids: &mut CallIds, reply: Reply<T>) -> u64 {
        let id = ids.give();
        self.0.insert(id, reply);
        id
    }

    /// Answers.
    pub fn answer(&mut self, id: u64, answer: Result<T, Fault>) {
        if let Some(reply) = self.0.remove(&id) {
            reply.send(answer);
        }
    }
}
