//! Counts words that a server sends, and prints every update: `socket_wordcount [HOST:PORT]`.
//!
//! Try it with `nc -lk 9999` in another terminal.

use thalweg::prelude::*;

fn main() -> Result<(), JobError> {
    thalweg::init();
    let address = std::env::args().nth(1).unwrap_or_else(|| "localhost:9999".to_owned());
    let env = Environment::new();
    env.socket_text(address)
        .uid("lines")
        .flat_map(|line: String| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
        .uid("words")
        .key_by_ref(|word| word.as_str())
        .count()
        .uid("count")
        .map(|(word, count)| format!("{word} {count}"))
        .print();
    env.execute("socket word count")?;
    Ok(())
}
