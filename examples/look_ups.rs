//! Asks a service for each record, many at a time: `look_ups [--users N]`.
//!
//! The service is a server that this program starts on loopback, one for each process, so that the example needs nothing else. It
//! takes a moment for each answer, and is busy now and then: calls are tried again.

#![allow(clippy::disallowed_methods, reason = "it plays a service of somebody else's, and its client")]

use clap::Parser;
use std::{
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    sync::OnceLock,
    time::Duration,
};
use thalweg::{AsyncOptions, prelude::*};
use thalweg_examples::{Common, print_sorted};

#[derive(Parser)]
struct Args {
    /// Users to ask for.
    #[arg(long, default_value_t = 200, value_name = "N")]
    users: u64,
    #[command(flatten)]
    common: Common,
}

/// Where this process's server listens.
fn service() -> std::io::Result<u16> {
    static PORT: OnceLock<Result<u16, String>> = OnceLock::new();
    let start = || -> std::io::Result<u16> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        std::thread::Builder::new().name("service".into()).spawn(move || {
            for (n, stream) in listener.incoming().flatten().enumerate() {
                let _ = std::thread::Builder::new().spawn(move || answer(&stream, n));
            }
        })?;
        Ok(port)
    };
    PORT.get_or_init(|| start().map_err(|e| e.to_string())).clone().map_err(std::io::Error::other)
}

/// One question a connection.
fn answer(mut stream: &std::net::TcpStream, n: usize) -> std::io::Result<()> {
    let mut question = String::new();
    BufReader::new(stream).read_line(&mut question)?;
    std::thread::sleep(Duration::from_millis(2));
    if n % 10 == 9 {
        return writeln!(stream, "busy");
    }
    writeln!(stream, "user-{}", question.trim())
}

/// Asks for one user.
fn ask(user: u64) -> Result<String, String> {
    let ask = || -> std::io::Result<String> {
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", service()?))?;
        writeln!(stream, "{user}")?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        Ok(line.trim().to_owned())
    };
    match ask() {
        Ok(name) if name == "busy" => Err("the service is busy".into()),
        Ok(name) => Ok(name),
        Err(e) => Err(e.to_string()),
    }
}

fn main() -> Result<(), JobError> {
    let args = Args::parse();
    let env = args.common.environment();
    let options =
        AsyncOptions::unordered().capacity(20).timeout(Duration::from_secs(5)).retries(5, Duration::from_millis(10));
    let names =
        env.sequence(0..args.users).uid("users").map_blocking(options, ask).uid("names").collect().with_uid("out");
    let result = env.execute("look-ups")?;
    print_sorted(result.collected(&names)?);
    Ok(())
}
