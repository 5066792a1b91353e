//! What a shuffle carries, in which order, and how much it holds meanwhile.

use super::{Host, MEMORY, SOON, ShuffleFixture, Signal, batch, channel, end, number, numbered, two_hosts};
use crate::run::eventually;
use bytes::Bytes;
use std::time::Duration;
use thalweg_model::{HostPlace, TaskManagerId};
use thalweg_spi::{ErrorKind, Parcel, ParcelKind};

pub async fn an_edge_that_it_cannot_carry_is_refused_by_name(fixture: &impl ShuffleFixture) {
    let shuffle = fixture.open().await.unwrap();
    let setup = fixture.setup(MEMORY);
    let nowhere = HostPlace { task_manager: TaskManagerId::new("a"), data_address: None };
    let partition = channel(setup.job, 0, 0).partition;
    let error = shuffle.master().register(partition, &nowhere).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("shuffle"), "{error}");
    if !shuffle.capabilities().between_processes {
        let environment = shuffle.environment(setup.clone()).unwrap();
        assert_eq!(environment.data_address(), None);
        let waker = Signal::new().waker();
        let error = environment.open_writer(channel(setup.job, 0, 0), waker).err().expect("it carries nothing");
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        environment.release(setup.job, channel(setup.job, 0, 0).partition.region_attempt());
        assert_eq!((environment.traffic(), environment.memory_in_use()), ((0, 0), 0));
    }
}

pub async fn registering_is_idempotent(fixture: &impl ShuffleFixture) {
    let Some((a, _)) = two_hosts(fixture, MEMORY).await else { return };
    let channel = channel(a.job, 0, 0);
    assert_eq!(a.descriptor(channel).await, a.descriptor(channel).await);
    let master = a.shuffle.master();
    for _ in 0..2 {
        master.release(a.job, channel.partition.region_attempt()).await.unwrap();
    }
}

pub async fn order_is_kept_in_each_channel(fixture: &impl ShuffleFixture) {
    let Some((a, b)) = two_hosts(fixture, MEMORY).await else { return };
    let mut work = Vec::new();
    for n in 0..6 {
        // Some one way and some the other.
        let (from, to) = if n % 2 == 0 { (&a, &b) } else { (&b, &a) };
        let (mut sender, mut receiver) = from.pipe(to, channel(a.job, n, 0)).await;
        work.push(async move {
            let send = async {
                for i in 0..2000u32 {
                    sender.send(numbered(i, (i as usize * 37 + n as usize) % 3000)).await.unwrap();
                }
                sender.send(end()).await.unwrap();
                sender.drained().await.unwrap();
            };
            let ((), all) = tokio::join!(send, receiver.all());
            let all = all.unwrap();
            assert_eq!(all.len(), 2001);
            for (i, parcel) in all[..2000].iter().enumerate() {
                assert_eq!(*parcel, numbered(i as u32, (i * 37 + n as usize) % 3000), "channel {n}, parcel {i}");
            }
        });
    }
    futures::future::join_all(work).await;
    let ((out, into), (b_out, b_into)) = (a.environment.traffic(), b.environment.traffic());
    assert!(out > 2_000_000 && into > 2_000_000, "{out} out, {into} in");
    assert!(b_out > 2_000_000 && b_into > 2_000_000);
}

pub async fn a_barrier_keeps_its_place(fixture: &impl ShuffleFixture) {
    let Some((a, b)) = two_hosts(fixture, MEMORY).await else { return };
    let (mut sender, mut receiver) = a.pipe(&b, channel(a.job, 0, 0)).await;
    let kinds = [ParcelKind::Batch, ParcelKind::Barrier, ParcelKind::Mark, ParcelKind::Request];
    let sent: Vec<_> = (0..400u32)
        .map(|i| Parcel { kind: kinds[i as usize % 4], body: numbered(i, if i % 4 == 0 { 9000 } else { 8 }).body })
        .collect();
    let expected = sent.clone();
    let send = async {
        for parcel in sent {
            sender.send(parcel).await.unwrap();
        }
        sender.send(end()).await.unwrap();
    };
    let ((), got) = tokio::join!(send, receiver.all());
    let got = got.unwrap();
    assert!(got[..400] == expected[..], "kinds or bodies have changed places");
}

pub async fn after_the_end_there_is_nothing_for_ever(fixture: &impl ShuffleFixture) {
    let Some((a, b)) = two_hosts(fixture, MEMORY).await else { return };
    let (mut sender, mut receiver) = a.pipe(&b, channel(a.job, 0, 0)).await;
    sender.send(batch(&b"one"[..])).await.unwrap();
    sender.send(end()).await.unwrap();
    sender.drained().await.unwrap();
    drop(sender);
    assert_eq!(receiver.all().await.unwrap().len(), 2);
    fixture.crash(a.environment).await;
    for _ in 0..3 {
        assert_eq!(receiver.end.try_recv().unwrap(), None);
        thalweg_env::Clock::sleep(&thalweg_env::SystemClock::new(), Duration::from_millis(20)).await;
    }
}

pub async fn a_reader_may_come_before_its_writer(fixture: &impl ShuffleFixture) {
    let Some((a, b)) = two_hosts(fixture, MEMORY).await else { return };
    let channel = channel(a.job, 0, 0);
    let descriptor = a.descriptor(channel).await;
    let mut receiver = b.read(channel, &descriptor);
    assert_eq!(receiver.end.try_recv().unwrap(), None);
    thalweg_env::Clock::sleep(&thalweg_env::SystemClock::new(), fixture.patience() / 4).await;
    let mut sender = a.write(channel);
    sender.send(end()).await.unwrap();
    assert_eq!(receiver.all().await.unwrap(), [end()]);
}

pub async fn a_writer_may_come_before_its_reader(fixture: &impl ShuffleFixture) {
    let Some((a, b)) = two_hosts(fixture, MEMORY).await else { return };
    let channel = channel(a.job, 0, 0);
    let descriptor = a.descriptor(channel).await;
    let mut sender = a.write(channel);
    let mut parcels = 0;
    // It may take some, or none, but not without bound.
    while sender.end.try_send(numbered(parcels, 10_000)).unwrap().is_none() {
        parcels += 1;
        assert!((parcels as usize) * 10_000 < 4 * MEMORY, "it holds all that it is given");
    }
    let mut receiver = b.read(channel, &descriptor);
    let send = async {
        for n in parcels..parcels + 10 {
            sender.send(numbered(n, 10_000)).await.unwrap();
        }
        sender.send(end()).await.unwrap();
    };
    let ((), all) = tokio::join!(send, receiver.all());
    let numbers: Vec<_> = all.unwrap().iter().filter(|p| p.kind == ParcelKind::Batch).map(number).collect();
    assert_eq!(numbers, (0..parcels + 10).collect::<Vec<_>>());
}

pub async fn a_slow_reader_slows_the_writer_and_not_memory(fixture: &impl ShuffleFixture) {
    let Some((a, b)) = two_hosts(fixture, MEMORY).await else { return };
    let (mut sender, mut receiver) = a.pipe(&b, channel(a.job, 0, 0)).await;
    let (mut other, mut beside) = a.pipe(&b, channel(a.job, 1, 0)).await;
    let taken = sender.fill(10_000, 10_000).await;
    let held = (a.environment.memory_in_use(), b.environment.memory_in_use());
    println!("{taken} parcels of 10 kB taken; held {held:?}");
    assert!(taken as usize * 10_000 <= 3 * MEMORY, "{taken} parcels were taken without a reader");
    assert!(held.0 <= MEMORY && held.1 <= MEMORY, "{held:?} bytes are held, more than {MEMORY}");
    // The others of the connection go on.
    let ((), got) = tokio::join!(
        async {
            for n in 0..100 {
                other.send(numbered(n, 20_000)).await.unwrap();
            }
            other.send(end()).await.unwrap();
        },
        beside.all()
    );
    assert_eq!(got.unwrap().len(), 101);
    // And nothing was lost.
    let send = async {
        for n in taken..taken + 100 {
            sender.send(numbered(n, 10_000)).await.unwrap();
        }
        sender.send(end()).await.unwrap();
    };
    let ((), all) = tokio::join!(send, receiver.all());
    let numbers: Vec<_> = all.unwrap().iter().filter(|p| p.kind == ParcelKind::Batch).map(number).collect();
    assert_eq!(numbers, (0..taken + 100).collect::<Vec<_>>());
}

pub async fn there_is_no_stall_whatever_the_sizes(fixture: &impl ShuffleFixture) {
    let Some((a, b)) = two_hosts(fixture, 300_000).await else { return };
    let mut work = Vec::new();
    for n in 0..5 {
        let (mut sender, mut receiver) = a.pipe(&b, channel(a.job, n, 0)).await;
        let longest = a.max_parcel;
        // Empty ones, ones that nearly fill a window, and the longest that there may be.
        let sizes = [4, 60_000, 4, 65_000, 33_000, longest, 36_000, 4, 70_000, 5, longest];
        work.push(async move {
            let send = async {
                for (i, size) in sizes.iter().cycle().take(sizes.len() * 4).enumerate() {
                    sender.send(numbered(i as u32, *size)).await.unwrap();
                }
                sender.send(end()).await.unwrap();
                sender.drained().await.unwrap();
            };
            let ((), all) = tokio::join!(send, receiver.all());
            let lengths: Vec<_> = all.unwrap().iter().map(|p| p.body.len()).collect();
            let expected: Vec<_> = sizes.iter().cycle().take(sizes.len() * 4).copied().chain([0]).collect();
            assert_eq!(lengths, expected);
        });
    }
    futures::future::join_all(work).await;
}

pub async fn a_parcel_that_is_too_long_is_refused_by_its_writer(fixture: &impl ShuffleFixture) {
    let Some((a, b)) = two_hosts(fixture, MEMORY).await else { return };
    let (mut sender, _receiver) = a.pipe(&b, channel(a.job, 0, 0)).await;
    let error = sender.send(batch(vec![0; a.max_parcel + 1])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge, "{error}");
}

pub async fn what_was_taken_is_not_held_any_more(fixture: &impl ShuffleFixture) {
    let Some((a, b)) = two_hosts(fixture, MEMORY).await else { return };
    let (mut sender, mut receiver) = a.pipe(&b, channel(a.job, 0, 0)).await;
    for n in 0..20 {
        sender.send(numbered(n, 1000)).await.unwrap();
        receiver.recv().await.unwrap();
    }
    sender.drained().await.unwrap();
    eventually("nothing is held", SOON, || async {
        (a.environment.memory_in_use() == 0 && b.environment.memory_in_use() == 0).then_some(())
    })
    .await;
}

pub async fn what_waits_in_an_end_is_counted(fixture: &impl ShuffleFixture) {
    let Some((a, b)) = two_hosts(fixture, MEMORY).await else { return };
    if !fixture.counts() {
        return;
    }
    let (mut sender, mut receiver) = a.pipe(&b, channel(a.job, 0, 0)).await;
    let (sending, arrived) = (sender.end.waiting(), receiver.end.waiting());
    assert_eq!((sending.get(), arrived.get()), (0, 0));
    for n in 0..5 {
        sender.send(numbered(n, 1000)).await.unwrap();
    }
    sender.drained().await.unwrap();
    assert_eq!(sending.get(), 0, "all of them have left");
    eventually("all of them have arrived", SOON, || async { (arrived.get() == 5).then_some(()) }).await;
    for left in (0..5).rev() {
        receiver.recv().await.unwrap();
        assert_eq!(arrived.get(), left);
    }
    // The reader does not read: what it has no room for waits here or is refused, and what it has waits there.
    let taken = sender.fill(10_000, 10_000).await;
    assert!(arrived.get() >= 1 && sending.get() + arrived.get() <= u64::from(taken), "{sending:?} {arrived:?} {taken}");
    drop(receiver);
    eventually("nothing waits where nobody reads", SOON, || async { (arrived.get() == 0).then_some(()) }).await;
}

pub async fn many_hosts_dial_each_other_at_once(fixture: &impl ShuffleFixture) {
    let Some((a, b)) = two_hosts(fixture, MEMORY).await else { return };
    let hosts = [a, b, Host::new(fixture, MEMORY).await, Host::new(fixture, MEMORY).await];
    let job = hosts[0].job;
    let pairs = (0..4u32).flat_map(|from| (0..4u32).map(move |to| (from, to))).filter(|(from, to)| from != to);
    let work = pairs.map(|(from, to)| {
        let hosts = &hosts;
        async move {
            let (mut sender, mut receiver) =
                hosts[from as usize].pipe(&hosts[to as usize], channel(job, from * 4 + to, 0)).await;
            let send = async {
                for n in 0..50 {
                    sender.send(numbered(n, 1000)).await.unwrap();
                }
                sender.send(Parcel { kind: ParcelKind::End, body: Bytes::new() }).await.unwrap();
            };
            let ((), all) = tokio::join!(send, receiver.all());
            assert_eq!(all.unwrap().len(), 51, "from {from} to {to}");
        }
    });
    futures::future::join_all(work).await;
}

/// See [`crate::shuffle_suite`].
#[macro_export]
#[doc(hidden)]
macro_rules! shuffle_transport_cases {
    ($service:expr, $open:expr) => { $crate::conformance_cases!($service, $open, shuffle,
        an_edge_that_it_cannot_carry_is_refused_by_name
        registering_is_idempotent
        order_is_kept_in_each_channel
        a_barrier_keeps_its_place
        after_the_end_there_is_nothing_for_ever
        a_reader_may_come_before_its_writer
        a_writer_may_come_before_its_reader
        a_slow_reader_slows_the_writer_and_not_memory
        there_is_no_stall_whatever_the_sizes
        a_parcel_that_is_too_long_is_refused_by_its_writer
        what_waits_in_an_end_is_counted
        what_was_taken_is_not_held_any_more
        many_hosts_dial_each_other_at_once
    ); };
}
