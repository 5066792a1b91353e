//! expects: expected `DataStream<u64>`, found `DataStream<u64, Then<
use thalweg_api::prelude::*;

fn program(env: &Environment) -> DataStream<u64> {
    env.sequence(0..10).map(|n| n + 1)
}
