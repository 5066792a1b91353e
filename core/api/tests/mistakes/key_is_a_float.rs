//! expects: `f64` cannot be a key
//! expects: floating-point numbers cannot be keys
use thalweg_api::prelude::*;

fn program(env: &Environment) {
    env.sequence(0..10).key_by(|n| *n as f64).count().discard();
}
