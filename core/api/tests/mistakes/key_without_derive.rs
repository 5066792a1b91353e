//! expects: `User` cannot be a key
//! expects: derive `Key, PartialEq, Eq, Clone, Serialize, Deserialize` for your own type
use thalweg_api::prelude::*;

struct User(u64);

fn program(env: &Environment) {
    env.sequence(0..10).key_by(|n| User(*n)).count().discard();
}
