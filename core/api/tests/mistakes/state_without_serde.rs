//! expects: `Seen` cannot leave its task
//! expects: add `#[derive(Serialize, Deserialize)]`
use thalweg_api::prelude::*;

#[derive(Default)]
struct Seen(u64);

fn program(env: &Environment) {
    let numbers = env.sequence(0..10).key_by(|n| n % 2);
    numbers.stateful_map(|seen: &mut Seen, n| seen.0 + n).discard();
}
