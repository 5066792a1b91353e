//! What a shuffle tells when one end, a process or the bytes go wrong.

use super::{Host, MEMORY, SOON, ShuffleFixture, Signal, channel, end, number, numbered, two_hosts};
use crate::run::eventually;
use bytes::Bytes;
use std::time::Duration;
use thalweg_spi::{ChannelId, ErrorKind, ParcelKind, PartitionId};

pub async fn when_the_reader_goes_the_writer_is_told(fixture: &impl ShuffleFixture) {
    let Some((a, b)) = two_hosts(fixture, MEMORY).await else { return };
    let (mut sender, mut receiver) = a.pipe(&b, channel(a.job, 0, 0)).await;
    sender.send(numbered(0, 100)).await.unwrap();
    receiver.recv().await.unwrap();
    drop(receiver);
    let error = sender.failure().await;
    assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
    assert!(error.to_string().contains("reader"), "it says which end: {error}");
}

pub async fn when_the_writer_goes_the_reader_is_told_the_cause(fixture: &impl ShuffleFixture) {
    let Some((a, b)) = two_hosts(fixture, MEMORY).await else { return };
    let (mut sender, mut receiver) = a.pipe(&b, channel(a.job, 0, 0)).await;
    for n in 0..5 {
        sender.send(numbered(n, 100)).await.unwrap();
    }
    drop(sender);
    let (before, error) = receiver.failure().await;
    assert_eq!(before.iter().map(number).collect::<Vec<_>>(), [0, 1, 2, 3, 4], "what came before is still there");
    assert!(error.to_string().contains("writer"), "it says which end: {error}");
}

pub async fn a_writer_that_went_before_its_reader_came_is_told(fixture: &impl ShuffleFixture) {
    let Some((a, b)) = two_hosts(fixture, MEMORY).await else { return };
    let channel = channel(a.job, 0, 0);
    let descriptor = a.descriptor(channel).await;
    drop(a.write(channel));
    let (before, error) = b.read(channel, &descriptor).failure().await;
    assert!(before.is_empty() && error.to_string().contains("writer"), "{error}");
}

pub async fn when_a_process_dies_both_ends_are_told_and_it_is_no_end(fixture: &impl ShuffleFixture) {
    let Some((a, b)) = two_hosts(fixture, MEMORY).await else { return };
    let (mut sender, mut receiver) = a.pipe(&b, channel(a.job, 0, 0)).await;
    let (mut back, mut reader_at_a) = b.pipe(&a, channel(a.job, 1, 0)).await;
    sender.send(numbered(7, 100)).await.unwrap();
    back.send(numbered(8, 100)).await.unwrap();
    sender.drained().await.unwrap();
    reader_at_a.recv().await.unwrap();
    eventually("the parcel is there", SOON, || async { (b.environment.memory_in_use() > 0).then_some(()) }).await;
    if !fixture.crash(a.environment).await {
        return;
    }
    let (before, error) = receiver.failure().await;
    assert_eq!(before.iter().map(number).collect::<Vec<_>>(), [7]);
    assert!(error.to_string().contains("host"), "it says who is gone: {error}");
    back.failure().await;
}

pub async fn a_producer_that_cannot_be_reached_is_an_error_of_the_reader(fixture: &impl ShuffleFixture) {
    let Some((a, b)) = two_hosts(fixture, MEMORY).await else { return };
    let channel = channel(a.job, 0, 0);
    let descriptor = a.descriptor(channel).await;
    if !fixture.crash(a.environment).await {
        return;
    }
    let (before, error) = b.read(channel, &descriptor).failure().await;
    assert!(before.is_empty(), "{error}");
}

pub async fn a_writer_that_never_comes_is_an_error_in_time(fixture: &impl ShuffleFixture) {
    let Some((a, b)) = two_hosts(fixture, MEMORY).await else { return };
    let channel = channel(a.job, 0, 0);
    let descriptor = a.descriptor(channel).await;
    let clock = thalweg_env::SystemClock::new();
    let mut receiver = b.read(channel, &descriptor);
    let told = thalweg_env::timeout(&clock, fixture.patience() * 3, receiver.failure()).await;
    let (_, error) = told.expect("in time");
    assert!(error.to_string().contains("did not offer"), "{error}");
}

pub async fn a_released_attempt_frees_its_buffers_and_closes_its_ends(fixture: &impl ShuffleFixture) {
    let Some((a, b)) = two_hosts(fixture, MEMORY).await else { return };
    let old = channel(a.job, 0, 3);
    let (mut sender, mut receiver) = a.pipe(&b, old).await;
    sender.fill(10_000, 10_000).await;
    assert!(b.environment.memory_in_use() > 0);
    let unread = b.read(channel(a.job, 1, 3), &a.descriptor(channel(a.job, 1, 3)).await);
    for host in [&a, &b, &a, &b] {
        host.environment.release(a.job, old.partition.region_attempt());
    }
    assert_eq!(receiver.end.try_recv().unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(sender.failure().await.kind(), ErrorKind::Closed);
    let held = || async { (a.environment.memory_in_use() + b.environment.memory_in_use() == 0).then_some(()) };
    eventually("the buffers are free", SOON, held).await;
    // Nothing of it can be opened any more, nor of an attempt before it; of the next one it can.
    for attempt in [2, 3] {
        let late = a.environment.open_writer(channel(a.job, 9, attempt), Signal::new().waker());
        assert_eq!(late.err().map(|e| e.kind()), Some(ErrorKind::Closed));
    }
    drop((sender, receiver, unread));
    let (mut sender, mut receiver) = a.pipe(&b, channel(a.job, 0, 4)).await;
    sender.send(end()).await.unwrap();
    assert_eq!(receiver.all().await.unwrap(), [end()]);
}

pub async fn releasing_a_region_leaves_the_others_alone(fixture: &impl ShuffleFixture) {
    let Some((a, b)) = two_hosts(fixture, MEMORY).await else { return };
    let one = channel(a.job, 0, 3);
    let other = ChannelId { partition: PartitionId { region: 1, ..one.partition }, ..one };
    let (mut over, _reader) = a.pipe(&b, one).await;
    let (mut sender, mut receiver) = a.pipe(&b, other).await;
    sender.send(numbered(1, 100)).await.unwrap();
    for host in [&a, &b] {
        host.environment.release(a.job, one.partition.region_attempt());
    }
    assert_eq!(over.failure().await.kind(), ErrorKind::Closed);
    sender.send(end()).await.unwrap();
    assert_eq!(receiver.all().await.unwrap(), [numbered(1, 100), end()]);
    // Nor does it end what the other region had before.
    let lower = channel(a.job, 1, 2);
    let lower = ChannelId { partition: PartitionId { region: 1, ..lower.partition }, ..lower };
    let (mut sender, mut receiver) = a.pipe(&b, lower).await;
    sender.send(end()).await.unwrap();
    assert_eq!(receiver.all().await.unwrap(), [end()]);
}

pub async fn a_reader_of_one_attempt_never_gets_a_parcel_of_another(fixture: &impl ShuffleFixture) {
    let Some((a, b)) = two_hosts(fixture, MEMORY).await else { return };
    let (mut old, mut old_reader) = a.pipe(&b, channel(a.job, 0, 0)).await;
    let (mut new, mut new_reader) = a.pipe(&b, channel(a.job, 0, 1)).await;
    for n in 0..20 {
        old.send(numbered(n, 100)).await.unwrap();
        new.send(numbered(1000 + n, 100)).await.unwrap();
    }
    new.send(end()).await.unwrap();
    let got = new_reader.all().await.unwrap();
    assert!(got.iter().filter(|p| p.kind == ParcelKind::Batch).all(|p| number(p) >= 1000));
    assert_eq!(number(&old_reader.recv().await.unwrap()), 0);
    // A reader that comes again under a further attempt reads that one, over the same or a new connection.
    drop((old, old_reader));
    let (mut again, mut again_reader) = a.pipe(&b, channel(a.job, 0, 2)).await;
    again.send(numbered(2000, 100)).await.unwrap();
    assert_eq!(number(&again_reader.recv().await.unwrap()), 2000);
}

pub async fn a_producer_that_came_back_elsewhere_is_read_under_its_new_attempt(fixture: &impl ShuffleFixture) {
    let Some((a, b)) = two_hosts(fixture, MEMORY).await else { return };
    let (mut sender, mut receiver) = a.pipe(&b, channel(a.job, 0, 0)).await;
    sender.send(numbered(1, 100)).await.unwrap();
    receiver.recv().await.unwrap();
    if !fixture.crash(a.environment).await {
        return;
    }
    receiver.failure().await;
    let again = Host::new(fixture, MEMORY).await;
    let (mut sender, mut receiver) = again.pipe(&b, channel(again.job, 0, 1)).await;
    sender.send(numbered(2, 100)).await.unwrap();
    assert_eq!(number(&receiver.recv().await.unwrap()), 2);
}

pub async fn a_host_without_the_secret_reads_nothing(fixture: &impl ShuffleFixture) {
    let Some((a, _)) = two_hosts(fixture, MEMORY).await else { return };
    let mut setup = fixture.setup(MEMORY);
    setup.secret = Bytes::from_static(b"guessed");
    let stranger = Host::with(fixture, setup).await;
    let (mut sender, mut receiver) = a.pipe(&stranger, channel(a.job, 0, 0)).await;
    let (before, error) = receiver.failure().await;
    assert!(before.is_empty(), "{error}");
    assert!(sender.end.try_send(numbered(0, 10)).unwrap().is_some(), "nobody has asked for it");
}

pub async fn a_damaged_frame_is_an_error_and_never_data(fixture: &impl ShuffleFixture) {
    let Some((a, b)) = two_hosts(fixture, MEMORY).await else { return };
    let (mut sender, mut receiver) = a.pipe(&b, channel(a.job, 0, 0)).await;
    sender.send(numbered(1, 100)).await.unwrap();
    assert_eq!(number(&receiver.recv().await.unwrap()), 1);
    if !fixture.damage(&b.environment).await {
        return;
    }
    // Whoever sent it is cut off; the others are not.
    sender.send(numbered(2, 100)).await.unwrap();
    assert_eq!(number(&receiver.recv().await.unwrap()), 2);
    assert!(receiver.end.try_recv().unwrap().is_none());
}

pub async fn one_channel_has_one_writer_and_one_reader(fixture: &impl ShuffleFixture) {
    let Some((a, b)) = two_hosts(fixture, MEMORY).await else { return };
    let channel = channel(a.job, 0, 0);
    let (mut sender, mut receiver) = a.pipe(&b, channel).await;
    let second = a.environment.open_writer(channel, Signal::new().waker());
    assert_eq!(second.err().map(|e| e.kind()), Some(ErrorKind::AlreadyExists));
    sender.send(numbered(1, 100)).await.unwrap();
    receiver.recv().await.unwrap();
    let other = Host::new(fixture, MEMORY).await;
    let mut thief = other.read(channel, &a.descriptor(channel).await);
    let told = thalweg_env::timeout(&thalweg_env::SystemClock::new(), Duration::from_secs(5), thief.failure()).await;
    assert!(told.expect("it is told").0.is_empty());
    sender.send(numbered(2, 100)).await.unwrap();
    assert_eq!(number(&receiver.recv().await.unwrap()), 2);
}

/// See [`crate::shuffle_suite`].
#[macro_export]
#[doc(hidden)]
macro_rules! shuffle_failure_cases {
    ($service:expr, $open:expr) => { $crate::conformance_cases!($service, $open, shuffle,
        when_the_reader_goes_the_writer_is_told
        when_the_writer_goes_the_reader_is_told_the_cause
        a_writer_that_went_before_its_reader_came_is_told
        when_a_process_dies_both_ends_are_told_and_it_is_no_end
        a_producer_that_cannot_be_reached_is_an_error_of_the_reader
        a_writer_that_never_comes_is_an_error_in_time
        a_released_attempt_frees_its_buffers_and_closes_its_ends
        releasing_a_region_leaves_the_others_alone
        a_reader_of_one_attempt_never_gets_a_parcel_of_another
        a_producer_that_came_back_elsewhere_is_read_under_its_new_attempt
        a_host_without_the_secret_reads_nothing
        a_damaged_frame_is_an_error_and_never_data
        one_channel_has_one_writer_and_one_reader
    ); };
}
