//! expects: `Rc<u64>` cannot be sent between threads safely
//! expects: ClonedToSubtasks
use std::rc::Rc;
use thalweg_api::prelude::*;

fn program(env: &Environment) {
    let offset = Rc::new(1);
    env.sequence(0..10).map(move |n| n + *offset).discard();
}
