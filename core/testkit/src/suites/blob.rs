//! The blob suite: one case for each MUST of [`BlobService`].

use async_trait::async_trait;
use rand::{RngCore, SeedableRng, rngs::SmallRng};
use sha2::{Digest, Sha256};
use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use thalweg_env::{Clock, SystemClock};
use thalweg_model::BlobKey;
use thalweg_spi::{BlobReader, BlobService, ErrorKind, Result};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

/// One store, opened as often as asked.
#[async_trait]
pub trait BlobFixture: Send + Sync {
    /// Opens the store as another process would.
    async fn open(&self) -> Result<Arc<dyn BlobService>>;

    /// Leaves behind what a process leaves that is killed in the middle of a put; `false` when this cannot be done.
    async fn abandon_an_upload(&self) -> bool {
        false
    }

    /// How many things the store holds that are no whole blob; `None` when this cannot be seen.
    async fn leftovers(&self) -> Option<usize> {
        None
    }
}

fn reader(content: &[u8]) -> BlobReader {
    Box::pin(io::Cursor::new(content.to_vec()))
}

fn content(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    SmallRng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

async fn read(store: &dyn BlobService, key: BlobKey) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut reader = store.get(key, 0..u64::MAX).await?;
    reader.read_to_end(&mut bytes).await.map_err(|e| thalweg_spi::ServiceError::io("read blob", e))?;
    Ok(bytes)
}

/// Gives `first`, and then waits for ever or fails.
struct Broken {
    first: io::Cursor<Vec<u8>>,
    fails: bool,
}

impl AsyncRead for Broken {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        match Pin::new(&mut self.first).poll_read(cx, buf) {
            Poll::Ready(Ok(())) if buf.filled().len() == before => {
                if self.fails {
                    Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
                } else {
                    Poll::Pending
                }
            }
            other => other,
        }
    }
}

fn stalls(first: &[u8]) -> BlobReader {
    Box::pin(Broken { first: io::Cursor::new(first.to_vec()), fails: false })
}

/// Polls a put far enough that it has taken what its reader gave.
async fn start(put: &mut (impl Future<Output = Result<()>> + Unpin)) {
    let limit = Duration::from_millis(100);
    let early = thalweg_env::timeout(&SystemClock::new(), limit, put).await;
    assert!(early.is_err(), "a put must not end before its content does");
}

pub async fn a_partial_put_is_invisible(fixture: &impl BlobFixture) {
    let (a, b) = (fixture.open().await.unwrap(), fixture.open().await.unwrap());
    let whole = content(1, 700_000);
    let key = BlobKey::of(&whole);
    let mut put = Box::pin(a.put(key, stalls(&whole[..500_000])));
    start(&mut put).await;
    for store in [&a, &b] {
        assert_eq!(store.head(key).await.unwrap(), None);
        assert_eq!(store.list().await.unwrap(), vec![]);
        assert_eq!(store.get(key, 0..10).await.err().map(|e| e.kind()), Some(ErrorKind::NotFound));
    }
}

pub async fn a_dropped_put_puts_nothing(fixture: &impl BlobFixture) {
    let store = fixture.open().await.unwrap();
    let whole = content(2, 300_000);
    let key = BlobKey::of(&whole);
    let mut put = Box::pin(store.put(key, stalls(&whole[..200_000])));
    start(&mut put).await;
    drop(put);
    assert_eq!(store.head(key).await.unwrap(), None);
    store.put(key, reader(&whole)).await.unwrap();
    assert_eq!(read(&*store, key).await.unwrap(), whole);
}

pub async fn content_that_breaks_off_is_an_error_and_nothing_is_put(fixture: &impl BlobFixture) {
    let store = fixture.open().await.unwrap();
    let whole = content(3, 300_000);
    let key = BlobKey::of(&whole);
    let broken = Broken { first: io::Cursor::new(whole[..200_000].to_vec()), fails: true };
    assert!(store.put(key, Box::pin(broken)).await.is_err());
    assert_eq!(store.head(key).await.unwrap(), None);
}

pub async fn two_puts_of_one_key_both_succeed_and_leave_one_whole_blob(fixture: &impl BlobFixture) {
    let (a, b) = (fixture.open().await.unwrap(), fixture.open().await.unwrap());
    let whole = content(4, 2_000_000);
    let key = BlobKey::of(&whole);
    let (one, other) = tokio::join!(a.put(key, reader(&whole)), b.put(key, reader(&whole)));
    one.unwrap();
    other.unwrap();
    for store in [&a, &b] {
        assert_eq!(store.list().await.unwrap(), vec![key]);
        assert_eq!(read(&**store, key).await.unwrap(), whole);
    }
}

pub async fn putting_a_key_that_is_there_succeeds(fixture: &impl BlobFixture) {
    let store = fixture.open().await.unwrap();
    let key = BlobKey::of(b"twice");
    for _ in 0..2 {
        store.put(key, reader(b"twice")).await.unwrap();
    }
    assert_eq!(read(&*store, key).await.unwrap(), b"twice");
}

pub async fn content_that_is_not_the_keys_is_damaged_and_invisible(fixture: &impl BlobFixture) {
    let store = fixture.open().await.unwrap();
    for (key, wrong) in [(BlobKey::of(b"right"), &b"wrong"[..]), (BlobKey::of(b"x"), b""), (BlobKey::of(b""), b"x")] {
        let error = store.put(key, reader(wrong)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
        assert_eq!(store.head(key).await.unwrap(), None);
    }
    assert_eq!(store.list().await.unwrap(), vec![]);
}

pub async fn a_missing_blob_is_not_found(fixture: &impl BlobFixture) {
    let store = fixture.open().await.unwrap();
    let key = BlobKey::of(b"nowhere");
    assert_eq!(store.get(key, 0..1).await.err().map(|e| e.kind()), Some(ErrorKind::NotFound));
    assert_eq!(store.get(key, 0..0).await.err().map(|e| e.kind()), Some(ErrorKind::NotFound));
    assert_eq!(store.head(key).await.unwrap(), None);
}

pub async fn a_blob_that_is_deleted_while_it_is_read_finishes_or_fails(fixture: &impl BlobFixture) {
    let store = fixture.open().await.unwrap();
    let whole = content(5, 3_000_000);
    let key = BlobKey::of(&whole);
    store.put(key, reader(&whole)).await.unwrap();
    let mut open = store.get(key, 0..u64::MAX).await.unwrap();
    let mut got = vec![0; 1000];
    open.read_exact(&mut got).await.unwrap();
    store.delete(key).await.unwrap();
    match open.read_to_end(&mut got).await {
        Ok(_) => assert!(got == whole, "it ended early, as if it were whole: {} of {} bytes", got.len(), whole.len()),
        Err(error) => println!("failed cleanly: {error}"),
    }
    assert_eq!(store.head(key).await.unwrap(), None);
}

pub async fn deleting_what_is_not_there_succeeds(fixture: &impl BlobFixture) {
    let store = fixture.open().await.unwrap();
    let key = BlobKey::of(b"a");
    store.delete(key).await.unwrap();
    store.put(key, reader(b"a")).await.unwrap();
    store.delete(key).await.unwrap();
    store.delete(key).await.unwrap();
    assert_eq!(store.list().await.unwrap(), vec![]);
}

pub async fn an_empty_blob_is_a_blob(fixture: &impl BlobFixture) {
    let store = fixture.open().await.unwrap();
    let key = BlobKey::of(b"");
    store.put(key, reader(b"")).await.unwrap();
    assert_eq!(store.head(key).await.unwrap().map(|i| i.size), Some(0));
    assert_eq!(read(&*store, key).await.unwrap(), b"");
}

pub async fn a_range_is_cut_to_the_blobs_length(fixture: &impl BlobFixture) {
    let store = fixture.open().await.unwrap();
    let whole = content(6, 100_000);
    let key = BlobKey::of(&whole);
    store.put(key, reader(&whole)).await.unwrap();
    assert_eq!(store.head(key).await.unwrap().map(|i| i.size), Some(100_000));
    #[expect(clippy::reversed_empty_ranges, reason = "a caller may get it wrong; it is an empty range")]
    let backwards = 9..3;
    for range in [0..10, 99_990..200_000, 50..50, 100_000..u64::MAX, 5_000_000..6_000_000, 70_000..80_000, backwards] {
        let mut got = Vec::new();
        store.get(key, range.clone()).await.unwrap().read_to_end(&mut got).await.unwrap();
        let cut = |n: u64| (n as usize).min(whole.len());
        let expected = whole.get(cut(range.start)..cut(range.end)).unwrap_or_default();
        assert!(got == expected, "range {range:?} gave {} bytes instead of {}", got.len(), expected.len());
    }
}

pub async fn the_list_is_whole_and_in_order(fixture: &impl BlobFixture) {
    let (a, b) = (fixture.open().await.unwrap(), fixture.open().await.unwrap());
    let mut keys = Vec::new();
    for n in 0..50u8 {
        keys.push(BlobKey::of(&[n]));
        a.put(BlobKey::of(&[n]), reader(&[n])).await.unwrap();
    }
    keys.sort();
    assert_eq!(b.list().await.unwrap(), keys);
}

pub async fn what_was_put_is_there_after_a_restart(fixture: &impl BlobFixture) {
    let store = fixture.open().await.unwrap();
    if !store.capabilities().durable {
        return;
    }
    let whole = content(7, 1_000_000);
    let key = BlobKey::of(&whole);
    store.put(key, reader(&whole)).await.unwrap();
    drop(store);
    assert_eq!(read(&*fixture.open().await.unwrap(), key).await.unwrap(), whole);
}

pub async fn abandoned_uploads_are_gone_when_the_store_is_opened_again(fixture: &impl BlobFixture) {
    let store = fixture.open().await.unwrap();
    let key = BlobKey::of(b"whole");
    store.put(key, reader(b"whole")).await.unwrap();
    let mut put = Box::pin(store.put(BlobKey::of(&content(8, 300_000)), stalls(&content(8, 200_000))));
    start(&mut put).await;
    drop(put);
    drop(store);
    if fixture.abandon_an_upload().await {
        assert_ne!(fixture.leftovers().await, Some(0), "the fixture must leave something");
    }
    let store = fixture.open().await.unwrap();
    if let Some(left) = fixture.leftovers().await {
        assert_eq!(left, 0);
    }
    assert_eq!(store.list().await.unwrap(), vec![key]);
}

pub async fn opening_the_store_does_not_disturb_an_upload(fixture: &impl BlobFixture) {
    let a = fixture.open().await.unwrap();
    let whole = content(9, 600_000);
    let key = BlobKey::of(&whole);
    let (mut feed, content) = tokio::io::duplex(64 * 1024);
    let upload = a.put(key, Box::pin(content));
    let feeder = async {
        use tokio::io::AsyncWriteExt;
        feed.write_all(&whole[..400_000]).await.unwrap();
        let b = fixture.open().await.unwrap();
        feed.write_all(&whole[400_000..]).await.unwrap();
        drop(feed);
        b
    };
    let (put, b) = tokio::join!(upload, feeder);
    put.unwrap();
    assert_eq!(read(&*b, key).await.unwrap(), whole);
}

/// Length of the blob that must not be held in memory.
const LARGE: u64 = 64 << 20;
/// How much more memory the process may take meanwhile.
const CAP: u64 = 16 << 20;

/// `LARGE` bytes that are made as they are read.
struct Generated {
    rng: SmallRng,
    left: u64,
}

impl Generated {
    fn new() -> Self {
        Self { rng: SmallRng::seed_from_u64(10), left: LARGE }
    }
}

impl AsyncRead for Generated {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        // Blocks of one fixed length, so that the bytes do not depend on how much is asked for at once.
        let mut block = [0; 8];
        while self.left > 0 && buf.remaining() >= block.len() {
            self.rng.fill_bytes(&mut block);
            buf.put_slice(&block);
            self.left -= block.len() as u64;
        }
        Poll::Ready(Ok(()))
    }
}

/// Anonymous memory of this process, in bytes: the page cache is not counted.
fn memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("RssAnon:"))?;
    Some(line.trim().trim_end_matches(" kB").trim().parse::<u64>().ok()? << 10)
}

pub async fn a_large_blob_takes_little_memory(fixture: &impl BlobFixture) {
    let store = fixture.open().await.unwrap();
    if !store.capabilities().durable {
        // What is not durable may be memory itself.
        return;
    }
    let mut hash = Sha256::new();
    let mut chunk = vec![0; 64 * 1024];
    let mut source = Generated::new();
    loop {
        let n = source.read(&mut chunk).await.unwrap();
        if n == 0 {
            break;
        }
        hash.update(&chunk[..n]);
    }
    let key = BlobKey::from_bytes(hash.finalize().into());
    let before = memory();
    let worst = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let sampler = {
        let worst = worst.clone();
        async move {
            loop {
                worst.fetch_max(memory().unwrap_or(0), std::sync::atomic::Ordering::Relaxed);
                SystemClock::new().sleep(Duration::from_millis(2)).await;
            }
        }
    };
    let work = async {
        store.put(key, Box::pin(Generated::new())).await.unwrap();
        let mut back = store.get(key, 0..u64::MAX).await.unwrap();
        let mut length = 0;
        loop {
            let n = back.read(&mut chunk).await.unwrap();
            if n == 0 {
                break length;
            }
            length += n as u64;
        }
    };
    let length = tokio::select! { length = work => length, () = sampler => unreachable!("the sampler never ends") };
    assert_eq!(length, LARGE);
    if let Some(before) = before {
        let grown = worst.load(std::sync::atomic::Ordering::Relaxed).saturating_sub(before);
        println!("a blob of {LARGE} bytes took {grown} bytes of memory");
        assert!(grown < CAP, "a blob of {LARGE} bytes took {grown} bytes of memory; the cap is {CAP}");
    }
}

/// Makes each case of the blob suite a test: `blob_suite!(async || fixture)`, or
/// `blob_suite!(external "name", async || Option<fixture>)` where the service may not be offered.
#[macro_export]
macro_rules! blob_suite {
    ($open:expr) => { $crate::blob_suite!(external "", async || Some(($open)().await)); };
    (external $service:expr, $open:expr) => { $crate::conformance_cases!($service, $open, blob,
        a_partial_put_is_invisible
        a_dropped_put_puts_nothing
        content_that_breaks_off_is_an_error_and_nothing_is_put
        two_puts_of_one_key_both_succeed_and_leave_one_whole_blob
        putting_a_key_that_is_there_succeeds
        content_that_is_not_the_keys_is_damaged_and_invisible
        a_missing_blob_is_not_found
        a_blob_that_is_deleted_while_it_is_read_finishes_or_fails
        deleting_what_is_not_there_succeeds
        an_empty_blob_is_a_blob
        a_range_is_cut_to_the_blobs_length
        the_list_is_whole_and_in_order
        what_was_put_is_there_after_a_restart
        abandoned_uploads_are_gone_when_the_store_is_opened_again
        opening_the_store_does_not_disturb_an_upload
        a_large_blob_takes_little_memory
    ); };
}
