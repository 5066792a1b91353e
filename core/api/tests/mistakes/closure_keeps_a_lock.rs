//! expects: the trait bound `std::sync::Mutex<u64>: Clone` is not satisfied
//! expects: ClonedToSubtasks
use std::sync::Mutex;
use thalweg_api::prelude::*;

fn program(env: &Environment) {
    let seen = Mutex::new(0);
    env.sequence(0..10).inspect(move |n| *seen.lock().unwrap() += n).discard();
}
