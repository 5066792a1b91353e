//! Waiting in a test for what other threads or processes do.

use std::time::Duration;

/// Waits until it holds, at most for 30 s.
pub fn eventually(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..3000 {
        if holds() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("not within 30 s: {what}");
}
