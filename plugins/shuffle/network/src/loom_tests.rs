//! Models under loom of what a slot thread and an I/O task share: credit, room, the end, the readers' budget. Each asks that
//! no wake-up is lost (a thread that waits for ever is a failed model), that parcels keep their order, and that the
//! counts come out even.
//!
//! `tests/loom` runs them.

#![allow(clippy::unwrap_used, reason = "test code")]

use crate::{
    budget::{Account, Budget, MIN_WINDOW},
    connection::Connection,
    outbox::Batch,
    packing::{Compression, Packed},
    reader::{Failure, ReaderShared},
    writer::{Limits, WriterShared},
};
use bytes::Bytes;
use std::{
    sync::Arc,
    task::{Wake, Waker},
};
use thalweg_env::Shutdown;
use thalweg_model::{Attempt, JobId};
use thalweg_spi::{ChannelId, ErrorKind, Parcel, ParcelKind, PartitionId};

const LIMITS: Limits = Limits { max_parcel: 1 << 20, compression: Compression::None };
/// What a parcel of [`parcel`] costs.
const COST: usize = 26;

/// A slot thread's park: a wake-up that comes before it is not lost, one that never comes is.
struct Park(loom::sync::Notify);

impl Wake for Park {
    fn wake(self: Arc<Self>) {
        self.0.notify();
    }
}

fn park() -> (Arc<Park>, Waker) {
    let park = Arc::new(Park(loom::sync::Notify::new()));
    (park.clone(), park.into())
}

fn channel() -> ChannelId {
    let job = JobId::from_bytes([1; 16]);
    ChannelId {
        partition: PartitionId { job, region: 0, attempt: Attempt::default(), edge: 0, producer: 0 },
        consumer: 0,
    }
}

fn parcel(n: u8) -> Parcel {
    Parcel { kind: ParcelKind::Batch, body: Bytes::copy_from_slice(&[n; 10]) }
}

fn connection(limit: usize) -> Arc<Connection> {
    Connection::new("tcp://there:1".into(), [0; 16], limit, Shutdown::new())
}

fn lost() -> Failure {
    Failure::new(ErrorKind::Closed, "cut")
}

/// Sends as a slot thread does: what is given back is offered again after a wake-up.
fn send(me: &Arc<WriterShared>, park: &Park, n: u8) -> Result<(), Failure> {
    let mut parcel = parcel(n);
    while let Some(back) = me.send(parcel, LIMITS)? {
        parcel = back;
        park.0.wait();
    }
    Ok(())
}

fn drain(me: &Arc<WriterShared>, park: &Park) -> Result<(), Failure> {
    while !me.is_drained()? {
        park.0.wait();
    }
    Ok(())
}

fn receive(me: &ReaderShared, park: &Park, budget: &Budget) -> Result<Parcel, Failure> {
    loop {
        match me.recv(budget)? {
            Some(packed) => return Ok(packed.unpack().unwrap()),
            None => park.0.wait(),
        }
    }
}

/// What the I/O task does when it is notified: all that is there, in one batch. Answers what that was.
fn flush(connection: &Connection) -> usize {
    let mut batch = Batch::default();
    connection.outbox.fill(&mut batch);
    let bytes = batch.cost();
    connection.outbox.written(&mut batch);
    bytes
}

#[test]
fn loom_credit_that_comes_while_the_writer_parks_wakes_it() {
    loom::model(|| {
        let (park, waker) = park();
        let (connection, me) = (connection(1000), Arc::new(WriterShared::new(channel(), waker)));
        let slot = me.clone();
        let writer = loom::thread::spawn(move || {
            send(&slot, &park, 0).and_then(|()| send(&slot, &park, 1)).map_err(|f| f.text).unwrap();
        });
        // Its reader comes with credit for one, and grants the other in two pieces.
        assert!(me.attach(&connection, 1, COST));
        me.grant(COST - 1);
        me.grant(1);
        writer.join().unwrap();
        assert_eq!(connection.outbox.bytes(), 2 * COST);
    });
}

#[test]
fn loom_room_in_the_queue_wakes_who_found_none_and_an_empty_queue_who_drains() {
    loom::model(|| {
        let (park, waker) = park();
        let (connection, me) = (connection(1), Arc::new(WriterShared::new(channel(), waker)));
        assert!(me.attach(&connection, 1, 1000));
        let slot = me.clone();
        let writer = loom::thread::spawn(move || {
            // There is room for one at a time.
            (0..3).try_for_each(|n| send(&slot, &park, n)).map_err(|f| f.text).unwrap();
            drain(&slot, &park).map_err(|f| f.text).unwrap();
        });
        // As the I/O task: it looks again until all were written.
        let mut written = 0;
        while written < 3 * COST {
            written += flush(&connection);
            loom::thread::yield_now();
        }
        writer.join().unwrap();
        assert_eq!(connection.outbox.bytes(), 0);
    });
}

#[test]
fn loom_a_writer_that_is_joined_while_its_connection_ends_is_told() {
    loom::model(|| {
        let (park, waker) = park();
        let (connection, me) = (connection(1000), Arc::new(WriterShared::new(channel(), waker)));
        let slot = me.clone();
        let writer = loom::thread::spawn(move || {
            // Nothing is ever written, so that the end is the only way out.
            let told = send(&slot, &park, 0).and_then(|()| drain(&slot, &park));
            assert_eq!(told.map_err(|f| f.text), Err("cut".to_owned()));
        });
        let reading = (connection.clone(), me.clone());
        let io = loom::thread::spawn(move || reading.0.attach_writer(&reading.1, 1, 1000));
        assert!(connection.end(lost()));
        io.join().unwrap();
        writer.join().unwrap();
        assert_eq!(connection.outbox.bytes(), 0);
    });
}

#[test]
fn loom_a_reader_gets_what_arrives_in_order() {
    loom::model(|| {
        let (park, waker) = park();
        let budget = Arc::new(Budget::new(1 << 20, 1 << 20));
        let (connection, me) = (connection(1000), Arc::new(ReaderShared::new(channel(), waker)));
        connection.open_stream(&me, &budget);
        let (slot, books) = (me.clone(), budget.clone());
        let reader = loom::thread::spawn(move || {
            for n in 0..2 {
                assert_eq!(receive(&slot, &park, &books).map_err(|f| f.text), Ok(parcel(n)));
            }
            slot.close(None, &books);
        });
        // Read at once, and so woken once.
        let told = [0, 1].map(|n| me.deliver(Packed::new(parcel(n), Compression::None), &budget));
        if told.contains(&Ok(true)) {
            me.wake();
        }
        assert!(!told.contains(&Err(())));
        reader.join().unwrap();
        assert_eq!((budget.in_use(), budget.held()), ((0, 0), 0));
    });
}

#[test]
fn loom_a_reader_that_is_joined_while_its_connection_ends_is_told() {
    loom::model(|| {
        let (park, waker) = park();
        let budget = Arc::new(Budget::new(1 << 20, 1 << 20));
        let (connection, me) = (connection(1000), Arc::new(ReaderShared::new(channel(), waker)));
        let (slot, books) = (me.clone(), budget.clone());
        let reader = loom::thread::spawn(move || {
            assert_eq!(receive(&slot, &park, &books).map_err(|f| f.text), Err("cut".to_owned()));
            slot.close(None, &books);
        });
        let reading = (connection.clone(), me.clone(), budget.clone());
        let io = loom::thread::spawn(move || reading.0.open_stream(&reading.1, &reading.2));
        assert!(connection.end(lost()));
        io.join().unwrap();
        reader.join().unwrap();
        assert_eq!((budget.in_use(), budget.held()), ((0, 0), 0));
    });
}

#[test]
fn loom_a_reader_that_is_closed_while_parcels_arrive_leaves_nothing_behind() {
    loom::model(|| {
        let (_, waker) = park();
        let budget = Arc::new(Budget::new(1 << 20, 1 << 20));
        let (connection, me) = (connection(1000), Arc::new(ReaderShared::new(channel(), waker)));
        connection.open_stream(&me, &budget);
        let (slot, books) = (me.clone(), budget.clone());
        let reader = loom::thread::spawn(move || {
            let _ = slot.recv(&books);
            slot.close(None, &books);
        });
        me.need(100_000, &budget);
        assert!(me.deliver(Packed::new(parcel(0), Compression::None), &budget).is_ok());
        reader.join().unwrap();
        assert_eq!((budget.in_use(), budget.held()), ((0, 0), 0));
    });
}

#[test]
fn loom_a_reader_that_leaves_while_its_writer_goes_waits_for_nobody() {
    loom::model(|| {
        let (_, waker) = park();
        let budget = Arc::new(Budget::new(1 << 20, 1 << 20));
        let (connection, me) = (connection(1000), Arc::new(ReaderShared::new(channel(), waker)));
        connection.open_stream(&me, &budget);
        let (slot, books) = (me.clone(), budget.clone());
        let reader = loom::thread::spawn(move || slot.leave(&books));
        connection.writer_gone(1, "failed");
        reader.join().unwrap();
        assert_eq!((budget.in_use(), budget.held()), ((0, 0), 0));
    });
}

#[test]
fn loom_a_writer_that_fails_while_its_reader_leaves_waits_for_nobody() {
    loom::model(|| {
        let (park, waker) = park();
        let (connection, me) = (connection(1000), Arc::new(WriterShared::new(channel(), waker)));
        connection.attach_writer(&me, 1, 0);
        let slot = me.clone();
        let writer = loom::thread::spawn(move || {
            // Nothing is granted, so that its reader's leave is the only way out.
            assert_eq!(
                send(&slot, &park, 0).map_err(|f| f.text),
                Err("host tcp://there:1: the reader is gone".to_owned())
            );
        });
        connection.reader_gone(1);
        writer.join().unwrap();
    });
}

#[test]
fn loom_grants_of_two_threads_stay_within_the_budget_and_come_back() {
    loom::model(|| {
        let total = 2 * MIN_WINDOW;
        let budget = Arc::new(Budget::new(total, 1 << 20));
        let work = move |budget: &Budget| {
            let mut account = Account::default();
            let granted = account.open(budget);
            assert!(granted >= MIN_WINDOW, "{granted}: every channel has its least");
            assert!(account.arrived(1000));
            let more = account.taken(budget, 1000);
            // The other may have its least beyond what is left.
            assert!(granted - 1000 + more <= total);
            let (held, _) = budget.in_use();
            assert!(held <= total + MIN_WINDOW, "{held}");
            account.close(budget);
        };
        let (one, two) = (budget.clone(), budget.clone());
        let threads = [loom::thread::spawn(move || work(&one)), loom::thread::spawn(move || work(&two))];
        threads.into_iter().for_each(|t| t.join().unwrap());
        assert_eq!(budget.in_use(), (0, 0));
    });
}
