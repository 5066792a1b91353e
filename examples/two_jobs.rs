//! Two executes in one `main`, where the second depends on the first's result: `two_jobs [N]`.
//!
//! The first adds up 1 to N; the second counts, up to that sum, the multiples of 3.

use thalweg::prelude::*;

fn main() -> Result<(), JobError> {
    thalweg::init();
    let n: u64 = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(1000);
    let env = Environment::new();

    let sum = env.sequence(1..n + 1).uid("numbers").key_by(|_| 0u8).sum(|n| n).uid("sum").collect();
    let first = env.execute("sum")?;
    let sum: u64 = first.collected(&sum)?.iter().map(|(_, s)| s).sum();
    println!("1 to {n} is {sum}");

    let threes = env
        .sequence(1..sum + 1)
        .uid("up-to-sum")
        .filter(|n| n % 3 == 0)
        .key_by(|_| 0u8)
        .count()
        .uid("threes")
        .collect();
    let second = env.execute("threes")?;
    let threes: u64 = second.collected(&threes)?.iter().map(|(_, n)| n).sum();
    println!("{threes} of them are multiples of 3");
    Ok(())
}
