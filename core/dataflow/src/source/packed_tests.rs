//! Compressed, damaged, shrinking and vanishing files. Patterns and whole jobs are tested from the API.

use super::*;
use crate::source::{Place, files};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use std::io::Write;

fn gzip(text: &[u8], level: u32) -> Vec<u8> {
    let mut to = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(level));
    to.write_all(text).unwrap();
    to.finish().unwrap()
}

fn zstd_with_sum(text: &[u8], level: i32) -> Vec<u8> {
    let mut to = zstd::Encoder::new(Vec::new(), level).unwrap();
    to.include_checksum(true).unwrap();
    to.write_all(text).unwrap();
    to.finish().unwrap()
}

/// In one member or frame, or in several.
fn pack(text: &[u8], gz: bool, random: &mut SmallRng) -> Vec<u8> {
    let mut packed = Vec::new();
    let mut rest = text;
    loop {
        let (part, behind) =
            rest.split_at(if random.random() { rest.len() } else { random.random_range(0..=rest.len()) });
        packed.extend(match gz {
            true => gzip(part, random.random_range(0..10)),
            false => zstd_with_sum(part, random.random_range(-3..10)),
        });
        rest = behind;
        if rest.is_empty() {
            return packed;
        }
    }
}

fn splits(path: &Path) -> Vec<FileSplit> {
    files::cut(vec![(path.to_owned(), std::fs::metadata(path).unwrap().len())], 3)
}

fn text(random: &mut SmallRng, longest: usize) -> String {
    let mut text = String::new();
    for _ in 0..random.random_range(0..60) {
        for _ in 0..random.random_range(0..longest) {
            text.push(char::from(random.random_range(b' '..b'~')));
        }
        text.push_str(if random.random_range(0..5) == 0 { "\r\n" } else { "\n" });
    }
    if random.random() {
        text.push_str("no end");
    }
    text
}

#[test]
fn compressed_files_have_the_lines_that_were_put_in_also_after_restores() {
    let dir = tempfile::tempdir().unwrap();
    for seed in 0..120 {
        let mut random = SmallRng::seed_from_u64(seed);
        // Some are longer than a few blocks.
        let text = text(&mut random, if seed % 20 == 0 { 30_000 } else { 40 });
        let gz = random.random();
        let path = dir.path().join(if gz { "f.gz" } else { "f.ZST" });
        std::fs::write(&path, pack(text.as_bytes(), gz, &mut random)).unwrap();
        assert_eq!(splits(&path).len(), 1);
        let naive: Vec<String> = text.lines().map(str::to_owned).collect();
        // A restore passes over a block a poll, and must come to something new.
        for restart in [text.len() / (256 << 10) + 3, 17, 1000] {
            assert_eq!(read(|| lines(1 << 20), splits(&path), restart), naive, "seed {seed}, restart {restart}");
            let blocks = read(|| blocks_of(1 << 20), splits(&path), restart);
            let joined: Vec<u8> = blocks.iter().flat_map(|b| b.bytes().to_vec()).collect();
            assert_eq!(joined, text.as_bytes(), "seed {seed}, restart {restart}");
        }
    }
}

#[test]
fn bytes_of_a_compressed_file_are_counted_as_it_lies_there() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f.gz");
    std::fs::write(&path, gzip("some line\n".repeat(1 << 16).as_bytes(), 6)).unwrap();
    let (mut out, metrics, mut reader) = (Into_(Vec::new()), TaskMetrics::default(), lines(1 << 20));
    let mut slot = SlotCx::new(Arc::new(SystemClock::new()));
    splits(&path).into_iter().for_each(|s| reader.add(s));
    while reader
        .poll(
            256,
            &mut out,
            &mut ReaderCx { slot: &mut slot, metrics: &metrics, place: &Place::default(), one_split: false },
        )
        .unwrap()
        != Polled::Done
    {}
    let read = metrics.source_bytes.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(read, std::fs::metadata(&path).unwrap().len());
}

#[test]
fn a_file_that_was_damaged_is_refused_or_gives_all_lines() {
    let dir = tempfile::tempdir().unwrap();
    let mut random = SmallRng::seed_from_u64(7);
    let text: String = (0..300).map(|i| format!("line {i} {}\n", random.random::<u32>())).collect();
    let naive: Vec<String> = text.lines().map(str::to_owned).collect();
    for (name, whole) in [("f.gz", gzip(text.as_bytes(), 6)), ("f.zst", zstd_with_sum(text.as_bytes(), 3))] {
        let path = dir.path().join(name);
        let refused = |what: &str, bytes: &[u8], must: bool| {
            std::fs::write(&path, bytes).unwrap();
            match try_read(|| lines(1 << 20), splits(&path), 1000, |_| {}) {
                Err(e) => {
                    assert_eq!(e.kind, FailureKind::User);
                    assert!(e.message.contains(name) && e.message.contains("damaged"), "{what}: {e}");
                    true
                }
                Ok(read) => {
                    assert!(!must && read == naive, "{what} of {name} went unseen");
                    false
                }
            }
        };
        // Nothing of it is an empty file, and has no lines.
        for at in (1..whole.len()).step_by(7).chain([2, 3, whole.len() - 1]) {
            refused(&format!("cut at {at}"), &whole[..at], true);
        }
        let mut seen = 0;
        for at in (0..whole.len()).step_by(11) {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << random.random_range(0..8);
            // A few bytes of a header say nothing about the text.
            seen += usize::from(refused(&format!("flip at {at}"), &bytes, false));
        }
        assert!(seen + 3 > whole.len() / 11, "{seen} of {} flips were seen", whole.len() / 11);
        // Shorter and longer than a header.
        for behind in [&b"behind"[..], b"something else behind it"] {
            let bytes = [&whole[..], behind].concat();
            refused("something behind", &bytes, true);
            let failure = try_read(|| lines(1 << 20), splits(&path), 1000, |_| {}).unwrap_err().message;
            let expected = "what follows the end of its gzip is none, or not complete";
            assert_eq!(failure.contains(expected), name == "f.gz", "{failure}");
        }
        refused("no such file", text.as_bytes(), true);
    }
}

fn failure(splits: Vec<FileSplit>, before: impl Fn(usize)) -> String {
    let failure = try_read(|| lines(1 << 20), splits, usize::MAX, before).map(|lines| lines.len()).unwrap_err();
    assert_eq!(failure.kind, FailureKind::User, "{failure}");
    failure.message
}

#[test]
fn files_that_vanish_or_shrink_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    let text = "0123456789\n".repeat(100_000);
    std::fs::write(&path, &text).unwrap();
    let all = splits(&path);
    assert!(all.len() > 2);
    // While it is read; 512 KiB were read by then.
    let whole = cut(&path, text.len() as u64, 0);
    let message = failure(whole, |poll| {
        if poll == 30_000 {
            File::options().write(true).open(&path).unwrap().set_len(900_000).unwrap();
        }
    });
    assert!(message.contains("ends at or before byte 900000 and went on to byte 1100000 when"), "{message}");
    // Before it is read, within each of the splits and at their borders.
    for length in [0, 1, 11, 300_000, all[1].start, all[1].start + 5, text.len() as u64 - 1] {
        std::fs::write(&path, &text.as_bytes()[..length as usize]).unwrap();
        let message = failure(all.clone(), |_| {});
        assert!(
            message.contains(&format!("ends at or before byte {length} and went on to byte ")),
            "{length}: {message}"
        );
    }
    std::fs::remove_file(&path).unwrap();
    let message = failure(all, |_| {});
    assert!(message.contains("/f was there when the job listed its input, and is gone"), "{message}");

    // A file of several members is one without the last, too.
    let path = dir.path().join("f.gz");
    let member = gzip(b"line\n", 6);
    std::fs::write(&path, member.repeat(3)).unwrap();
    let all = splits(&path);
    std::fs::write(&path, member.repeat(2)).unwrap();
    let message = failure(all.clone(), |_| {});
    assert!(
        message.contains(&format!(
            "ends at or before byte {} and went on to byte {}",
            member.len() * 2,
            member.len() * 3
        )),
        "{message}"
    );
    std::fs::remove_file(&path).unwrap();
    assert!(failure(all, |_| {}).contains("is gone"));
    // The same while it is read: what is left is a whole file by itself.
    let member = gzip("0123456789\n".repeat(60_000).as_bytes(), 0);
    std::fs::write(&path, member.repeat(2)).unwrap();
    let message = failure(splits(&path), |poll| {
        if poll == 2 {
            File::options().write(true).open(&path).unwrap().set_len(member.len() as u64).unwrap();
        }
    });
    assert!(message.contains(&format!("byte {} and went on to byte {}", member.len(), member.len() * 2)), "{message}");
    let member = gzip(b"line\n", 6);
    // The text ends before the place that a restore begins at.
    std::fs::write(&path, &member).unwrap();
    let mut all = splits(&path);
    all[0].start = 6;
    let message = failure(all, |_| {});
    assert!(message.contains("ends at or before byte 5 and went on to byte 6"), "{message}");
}

#[test]
fn a_line_is_as_long_as_the_option_lets_it() {
    let dir = tempfile::tempdir().unwrap();
    let own = |bytes| LinesReader::new(Options::default(), Limit { bytes, own: true });
    for name in ["f", "f.gz", "f.zst"] {
        let path = dir.path().join(name);
        let text = format!("{}\n{}\n{}\n", "a".repeat(999), "b".repeat(1000), "c".repeat(1001)).into_bytes();
        let text = match name {
            "f" => text,
            "f.gz" => gzip(&text, 6),
            _ => zstd_with_sum(&text, 3),
        };
        std::fs::write(&path, text).unwrap();
        assert_eq!(read(|| own(1001), splits(&path), 1000).len(), 3);
        let failure = try_read(|| own(1000), splits(&path), 1000, |_| {}).unwrap_err();
        assert!(failure.message.contains("more than 1000 bytes at byte 2001"), "{failure}");
        assert!(failure.message.contains("TextLines::max_line is 1000; raise it"), "{failure}");
    }
    // A line of 1 GiB takes neither memory nor time. The file is a hole.
    let path = dir.path().join("hole");
    File::create(&path).unwrap().set_len(1 << 30).unwrap();
    for split in splits(&path) {
        let start = split.start;
        let failure = try_read(|| own(1 << 20), vec![split], 1000, |_| {}).unwrap_err();
        assert!(failure.message.contains("max_line is 1048576"), "{failure}");
        // A reader that begins within a line knows no more of its beginning.
        let place = match start {
            0 => "bytes at byte 0:".to_owned(),
            _ => format!("bytes that begins before byte {start}:"),
        };
        assert!(failure.message.contains(&place), "{failure}");
    }
    let path = dir.path().join("bomb.gz");
    std::fs::write(&path, gzip(&vec![b'x'; 64 << 20], 1)).unwrap();
    for reader in [true, false] {
        let (mut out, metrics, mut slot) =
            (Into_(Vec::new()), TaskMetrics::default(), SlotCx::new(Arc::new(SystemClock::new())));
        let mut cx = ReaderCx { slot: &mut slot, metrics: &metrics, place: &Place::default(), one_split: false };
        let failure = if reader {
            let mut lines = own(1 << 20);
            splits(&path).into_iter().for_each(|s| lines.add(s));
            lines.poll(1, &mut out, &mut cx).unwrap_err()
        } else {
            let mut blocks = blocks_of(1 << 20);
            splits(&path).into_iter().for_each(|s| blocks.add(s));
            blocks.poll(1, &mut Into_(Vec::new()), &mut cx).unwrap_err()
        };
        assert!(failure.message.contains("more than 1048576 bytes at byte 0 of its text"), "{failure}");
        let option =
            if reader { "TextLines::max_line is 1048576; raise it" } else { "with TextBlocks::max_line(bytes)" };
        assert!(failure.message.ends_with(option), "{failure}");
    }
}

#[test]
fn what_is_not_utf8_is_replaced_refused_or_skipped() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    std::fs::write(&path, b"one\ntw\xffo\nthree\n").unwrap();
    let of = |invalid_utf8| {
        let options = Options { invalid_utf8, ..Options::default() };
        try_read(|| LinesReader::new(options, Limit { bytes: 100, own: false }), splits(&path), 1000, |_| {})
    };
    assert_eq!(of(InvalidUtf8::Replace).unwrap(), ["one", "tw\u{fffd}o", "three"]);
    assert_eq!(of(InvalidUtf8::Skip).unwrap(), ["one", "three"]);
    let (metrics, mut slot) = (TaskMetrics::default(), SlotCx::new(Arc::new(SystemClock::new())));
    let options = Options { invalid_utf8: InvalidUtf8::Skip, ..Options::default() };
    let mut reader = LinesReader::new(options, Limit { bytes: 100, own: false });
    splits(&path).into_iter().for_each(|s| reader.add(s));
    reader
        .poll(
            3,
            &mut Into_(Vec::new()),
            &mut ReaderCx { slot: &mut slot, metrics: &metrics, place: &Place::default(), one_split: false },
        )
        .unwrap();
    assert_eq!(metrics.skipped.load(std::sync::atomic::Ordering::Relaxed), 1);
    let failure = of(InvalidUtf8::Fail).unwrap_err();
    assert!(failure.message.contains("is not UTF-8 at byte 6"), "{failure}");
}
