//! A server's lines: pieces that are cut anywhere, a server that goes within a line, cuts the connection off, says
//! nothing for long or was never there, lines that are too long and bytes that are no text.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, reason = "tests")]

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    time::{Duration, Instant},
};
use thalweg_api::{JobError, testing};

/// The lines that a job reads of a server that does this, or why it failed.
fn lines(server: impl FnOnce(TcpStream) + Send + 'static) -> Result<Vec<String>, String> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = std::thread::spawn(move || server(listener.accept().unwrap().0));
    let dir = tempfile::tempdir().unwrap();
    let env = testing::environment(2, dir.path()).unwrap();
    let lines = env.socket_text(address.clone()).collect();
    let result = env.execute("lines");
    // A job that failed before it connected leaves nobody waiting.
    let _ = TcpStream::connect(&address);
    server.join().unwrap();
    result.and_then(|r| r.collected(&lines)).map_err(|e| e.to_string())
}

#[test]
fn lines_are_whole_however_the_network_cuts_them() {
    let text: String = (0..2000).map(|i| format!("line {i} ä{}\n", "x".repeat(i % 70))).collect();
    let expected: Vec<_> = text.lines().map(str::to_owned).collect();
    for step in [1, 7, 1000] {
        let text = text.clone();
        let got = lines(move |mut to| {
            to.set_nodelay(true).unwrap();
            text.as_bytes().chunks(step).for_each(|piece| to.write_all(piece).unwrap());
        });
        assert_eq!(got.unwrap(), expected, "pieces of {step} bytes");
    }
}

#[test]
fn what_a_server_said_before_it_closed_is_a_line_also_without_its_end() {
    let said = |text: &'static str| lines(move |mut to| to.write_all(text.as_bytes()).unwrap()).unwrap();
    assert_eq!(said("one\r\ntwo\n\nthr"), ["one", "two", "", "thr"]);
    assert_eq!(said("one\n"), ["one"]);
    assert_eq!(said(""), [""; 0]);
}

#[test]
fn what_is_no_address_is_refused_before_the_job_begins() {
    for address in ["localhost", "127.0.0.1:99999", ":9999", "localhost:", "localhost:0", "tcp://localhost:9999"] {
        let env = testing::environment(1, std::env::temp_dir()).unwrap();
        env.socket_text(address).discard();
        match env.execute("nowhere").map(|_| ()).unwrap_err() {
            JobError::Program(wrong) => {
                let expected = format!("{address:?} is no address to read from: name host:port, as localhost:9999");
                assert_eq!(wrong, [expected]);
            }
            other => panic!("{address}: {other}"),
        }
    }
}

#[test]
fn a_connection_that_is_cut_off_fails_the_job_and_says_which() {
    let error = lines(|mut to| {
        to.write_all(b"one\ntw").unwrap();
        std::thread::sleep(Duration::from_millis(100));
        to.set_nonblocking(true).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        runtime.block_on(async { tokio::net::TcpStream::from_std(to).unwrap().set_zero_linger().unwrap() });
    })
    .unwrap_err();
    assert!(error.contains("socket 127.0.0.1:") && error.contains("reset"), "{error}");
}

#[test]
fn a_server_that_is_not_there_is_named() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let dir = tempfile::tempdir().unwrap();
    let env = testing::environment(2, dir.path()).unwrap();
    env.socket_text(address.clone()).discard();
    let error = env.execute("nobody").unwrap_err().to_string();
    assert!(error.contains(&address) && error.contains("refused"), "{error}");
}

#[test]
fn a_server_that_says_nothing_for_long_is_waited_for() {
    let began = Instant::now();
    let got = lines(|mut to| {
        to.write_all(b"one\n").unwrap();
        std::thread::sleep(Duration::from_millis(700));
        to.write_all(b"two\n").unwrap();
    });
    assert_eq!(got.unwrap(), ["one", "two"]);
    assert!(began.elapsed() >= Duration::from_millis(700));
}

#[test]
fn a_line_without_an_end_fails_the_job_at_its_limit_and_not_at_the_memorys() {
    let error = lines(|mut to| {
        // As long as it is read: the job's end closes the connection.
        while to.write_all(&[b'x'; 64 << 10]).is_ok() {}
        let _ = to.read(&mut [0]);
    })
    .unwrap_err();
    assert!(error.contains("a line of more than") && error.contains("exchange.max-record"), "{error}");
}

#[test]
fn bytes_that_are_no_text_become_the_sign_for_that() {
    let got = lines(|mut to| to.write_all(b"a\xffb\n\xc3\n").unwrap());
    assert_eq!(got.unwrap(), ["a\u{fffd}b", "\u{fffd}"]);
}
