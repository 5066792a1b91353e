//! Splits of files at every boundary give every line once.

use super::*;
use crate::{
    batch::{Batch, Time},
    push::{Control, no_control},
    source::Place,
    task::{SlotCx, TaskMetrics},
};
use std::{fs::File, sync::Arc};
use thalweg_env::SystemClock;

#[path = "half_read_tests.rs"]
mod half_read;
#[path = "packed_tests.rs"]
mod packed;

struct Into_<T>(Vec<T>);
impl<T> Control for Into_<T> {
    no_control!();
}
impl<T> Push<T> for Into_<T> {
    fn push(&mut self, _: Time, item: T) {
        self.0.push(item);
    }
    fn push_batch(&mut self, batch: &mut Batch<T>, limit: usize) {
        batch.each(limit, |_, at, item| self.push(at, item));
    }
}

/// Reads splits one after the other, and is opened again with what is left after every `restart` polls.
fn read<R: Reader<Split = FileSplit>>(make: impl Fn() -> R, splits: Vec<FileSplit>, restart: usize) -> Vec<R::Item> {
    try_read(make, splits, restart, |_| {}).unwrap_or_else(|e| panic!("{e}"))
}

/// The same, and `before` each poll, which is numbered, something may happen.
fn try_read<R: Reader<Split = FileSplit>>(
    make: impl Fn() -> R,
    splits: Vec<FileSplit>,
    restart: usize,
    before: impl Fn(usize),
) -> Result<Vec<R::Item>, TaskFailure> {
    let (mut out, metrics) = (Into_(Vec::new()), TaskMetrics::default());
    let mut slot = SlotCx::new(Arc::new(SystemClock::new()));
    for split in splits {
        let mut reader = make();
        reader.add(split);
        for polls in 1.. {
            assert!(restart == usize::MAX || polls < 5_000, "it comes to no end");
            let mut cx = ReaderCx { slot: &mut slot, metrics: &metrics, place: &Place::default(), one_split: false };
            before(polls);
            match reader.poll(2, &mut out, &mut cx)? {
                Polled::Done => break,
                _ if polls % restart == 0 => {
                    let left = reader.unfinished();
                    reader = make();
                    left.into_iter().for_each(|s| reader.add(s));
                }
                _ => {}
            }
        }
    }
    Ok(out.0)
}

fn lines(max: usize) -> LinesReader {
    LinesReader::new(Options::default(), Limit { bytes: max, own: false })
}

fn blocks_of(max: usize) -> BlocksReader {
    BlocksReader::new(Options::default(), Limit { bytes: max, own: false })
}

fn cut(path: &Path, length: u64, at: u64) -> Vec<FileSplit> {
    let split = |start, end| FileSplit { path: path.to_owned(), start, end, exact: false, packed: None };
    if at == 0 || at >= length { vec![split(0, length)] } else { vec![split(0, at), split(at, length)] }
}

#[test]
fn every_line_is_read_once_wherever_the_file_is_cut_and_however_often_it_is_restored() {
    let dir = tempfile::tempdir().unwrap();
    for text in ["one\ntwo\n\nthree\r\nfour", "\n\n\n", "x", "last\n", "a\nbb\nccc\ndddd\neeeee\n"] {
        let path = dir.path().join("f");
        std::fs::write(&path, text).unwrap();
        let naive: Vec<String> = text.lines().map(str::to_owned).collect();
        for at in 0..=text.len() as u64 {
            for restart in [1, 2, 1000] {
                let splits = cut(&path, text.len() as u64, at);
                assert_eq!(read(|| lines(1 << 20), splits.clone(), restart), naive, "{text:?} at {at}");
                let blocks = read(|| blocks_of(1 << 20), splits, restart);
                let joined: Vec<u8> = blocks.iter().flat_map(|b| b.bytes().to_vec()).collect();
                assert_eq!(joined, text.as_bytes(), "{text:?} at {at}");
            }
        }
    }
}

#[test]
fn of_a_file_that_grows_the_lines_are_read_that_began_when_it_was_listed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    let listed = "one\ntw".len() as u64;
    for (now, expected) in
        [("one\ntw", &["one", "tw"][..]), ("one\ntwo", &["one", "two"]), ("one\ntwo\nthree\n", &["one", "two"])]
    {
        std::fs::write(&path, now).unwrap();
        assert_eq!(read(|| lines(1 << 20), cut(&path, listed, 0), 1), expected);
    }
}

#[test]
fn a_file_that_is_opened_again_must_be_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    let text = "line\n".repeat(200_000);
    std::fs::write(&path, &text).unwrap();
    let (mut slot, metrics) = (SlotCx::new(Arc::new(SystemClock::new())), TaskMetrics::default());
    let cx = ReaderCx { slot: &mut slot, metrics: &metrics, place: &Place::default(), one_split: false };
    let limit = Limit { bytes: 1 << 20, own: false };
    let [split] = cut(&path, text.len() as u64, 0).try_into().unwrap_or_else(|_| panic!("one split"));
    let mut reader = BlockReader::new(split, true, limit);
    let first = reader.next(&cx).unwrap();
    reader.close_file();
    let again = reader.next(&cx).unwrap();
    assert!(text.as_bytes().starts_with(&[first, again].concat()), "it goes on where it was");
    reader.close_file();
    std::fs::write(dir.path().join("new"), &text).unwrap();
    std::fs::rename(dir.path().join("new"), &path).unwrap();
    let failure = reader.next(&cx).unwrap_err();
    assert!(failure.message.contains("is another file than"), "{failure}");
}

#[test]
fn long_lines_are_cut_at_white_space_in_blocks_and_refused_as_lines() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    let text = "word ".repeat(900_000);
    std::fs::write(&path, &text).unwrap();
    for (at, restart) in [(0, 1000), (2_000_001, 1)] {
        let splits = cut(&path, text.len() as u64, at);
        let blocks = read(|| blocks_of(16 << 20), splits, restart);
        assert!(blocks.len() > 1);
        assert_eq!(blocks.iter().map(|b| b.words().count()).sum::<usize>(), 900_000);
        assert!(blocks.iter().flat_map(TextBlock::words).all(|w| w == b"word"));
    }
    let mut reader = lines(1 << 20);
    cut(&path, text.len() as u64, 0).into_iter().for_each(|s| reader.add(s));
    let (mut slot, metrics) = (SlotCx::new(Arc::new(SystemClock::new())), TaskMetrics::default());
    let failure = reader
        .poll(
            1,
            &mut Into_(vec![]),
            &mut ReaderCx { slot: &mut slot, metrics: &metrics, place: &Place::default(), one_split: false },
        )
        .unwrap_err();
    assert!(failure.message.contains("exchange.max-record is 1048576"), "{failure}");
}

#[test]
fn words_are_what_stands_between_ascii_white_space() {
    let block = TextBlock::new(b" a\tb\x0bc\x0cd\r\ne \xff ".to_vec());
    assert_eq!(block.words().collect::<Vec<_>>(), [&b"a"[..], b"b", b"c", b"d", b"e", b"\xff"]);
    assert_eq!(block.lines().count(), 2);
}
