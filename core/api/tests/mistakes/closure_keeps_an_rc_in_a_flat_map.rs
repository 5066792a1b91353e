//! expects: cannot be sent between threads safely
//! expects: ClonedToSubtasks
use std::rc::Rc;
use thalweg_api::prelude::*;

pub fn program(env: &Environment, names: Rc<Vec<String>>) {
    env.sequence(0..10).flat_map(move |n| names.get(n as usize).cloned()).discard();
}
