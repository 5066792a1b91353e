//! expects: `Duration` is no kind of windows
//! expects: TumblingEventTimeWindows::of(Duration::from_secs(10))
use std::time::Duration;
use thalweg_api::prelude::*;

fn program(env: &Environment) {
    env.sequence(0..10).key_by(|n| n % 2).window(Duration::from_secs(10)).count().discard();
}
