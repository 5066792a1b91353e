//! Tests of ring and signal: a stress on real threads, and models of both under loom.

use super::*;
use crate::exchange::signal::Signal;

#[cfg(not(thalweg_loom))]
#[test]
fn what_is_left_in_a_ring_is_dropped_once() {
    let live = std::rc::Rc::new(());
    let (mut tx, mut rx) = ring(2);
    assert!(tx.push(live.clone()).is_ok() && tx.push(live.clone()).is_ok() && tx.push(live.clone()).is_err());
    drop(rx.pop());
    assert!(tx.push(live.clone()).is_ok());
    drop((tx, rx));
    assert_eq!(std::rc::Rc::strong_count(&live), 1);
}

#[cfg(not(thalweg_loom))]
#[test]
fn two_threads_that_park_on_each_other_lose_neither_values_nor_wake_ups() {
    const N: u64 = 200_000;
    let (mut tx, mut rx) = ring::<u64>(2);
    let (to_reader, to_writer) = (Arc::new(Signal::default()), Arc::new(Signal::default()));
    let (r, w) = (to_reader.clone(), to_writer.clone());
    let writer = std::thread::Builder::new()
        .spawn(move || {
            w.adopt();
            for i in 0..N {
                let mut value = i;
                let mut armed = false;
                while let Err(back) = tx.push(value) {
                    value = back;
                    if armed {
                        w.park(None);
                    } else {
                        w.arm();
                    }
                    armed = !armed;
                }
                w.disarm();
                r.wake();
            }
        })
        .unwrap();
    to_reader.adopt();
    let (mut next, mut armed) = (0, false);
    while next < N {
        match rx.pop() {
            Some(v) => {
                assert_eq!(v, next);
                next += 1;
                to_writer.wake();
            }
            None if armed => {
                to_reader.park(None);
                armed = false;
            }
            None => {
                to_reader.arm();
                armed = true;
            }
        }
    }
    writer.join().unwrap();
}

// In the models the thread that parks is not the one that joins: loom's `join` takes a late wake-up for its own.

/// `tests/loom` runs them.
#[cfg(thalweg_loom)]
#[test]
fn loom_a_value_pushed_while_the_slot_parks_is_seen() {
    loom::model(|| {
        let (mut tx, mut rx) = ring::<u64>(2);
        let signal = Arc::new(Signal::default());
        let waker = signal.clone();
        let reader = loom::thread::spawn(move || {
            signal.adopt();
            let (mut got, mut armed) = (0, false);
            while got < 2 {
                match rx.pop() {
                    Some(v) => {
                        assert_eq!(v, got);
                        got += 1;
                        signal.disarm();
                        armed = false;
                    }
                    None if armed => {
                        signal.park(None);
                        armed = false;
                    }
                    None => {
                        signal.arm();
                        armed = true;
                    }
                }
            }
        });
        for i in 0..2 {
            assert!(tx.push(i).is_ok());
            waker.wake();
        }
        reader.join().unwrap();
    });
}

#[cfg(thalweg_loom)]
#[test]
fn loom_a_full_ring_wakes_its_writer() {
    loom::model(|| {
        let (mut tx, mut rx) = ring::<u64>(1);
        let signal = Arc::new(Signal::default());
        let waker = signal.clone();
        assert!(tx.push(0).is_ok());
        let writer = loom::thread::spawn(move || {
            signal.adopt();
            let mut armed = false;
            while tx.push(1).is_err() {
                if armed {
                    signal.park(None);
                } else {
                    signal.arm();
                }
                armed = !armed;
            }
        });
        assert_eq!(rx.pop(), Some(0));
        waker.wake();
        writer.join().unwrap();
        assert_eq!(rx.pop(), Some(1));
    });
}

/// A slot waits for two at once: a ring of its neighbour's, and a waker that tokio calls on a thread of its own.
#[cfg(thalweg_loom)]
#[test]
fn loom_a_waker_and_a_ring_wake_one_slot() {
    use crate::sync::{AtomicBool, Ordering};
    loom::model(|| {
        let (mut tx, mut rx) = ring::<u64>(1);
        let (signal, arrived) = (Arc::new(Signal::default()), Arc::new(AtomicBool::new(false)));
        let (by_ring, by_waker) = (signal.clone(), std::task::Waker::from(signal.clone()));
        let outside = arrived.clone();
        let slot = loom::thread::spawn(move || {
            signal.adopt();
            let (mut from_ring, mut from_outside, mut armed) = (false, false, false);
            while !(from_ring && from_outside) {
                let ring = !from_ring && rx.pop().is_some();
                let outside = !from_outside && outside.load(Ordering::Acquire);
                from_ring |= ring;
                from_outside |= outside;
                if ring || outside {
                    signal.disarm();
                    armed = false;
                } else if armed {
                    signal.park(None);
                    armed = false;
                } else {
                    signal.arm();
                    armed = true;
                }
            }
        });
        let io = loom::thread::spawn(move || {
            arrived.store(true, Ordering::Release);
            by_waker.wake();
        });
        assert!(tx.push(7).is_ok());
        by_ring.wake();
        io.join().unwrap();
        slot.join().unwrap();
    });
}
