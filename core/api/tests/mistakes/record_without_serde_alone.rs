//! expects: `Order` cannot leave its task
//! expects: add `#[derive(Serialize, Deserialize)]`
use thalweg_api::prelude::*;

struct Order(u64);

fn program(env: &Environment) {
    env.sequence(0..10).map(Order).map(|order| order.0).disable_chaining().discard();
}
