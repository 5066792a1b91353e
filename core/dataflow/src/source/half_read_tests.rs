//! Half-read files of one reader that are turned to by chance: each line once, in the order of its file, with few
//! files open.

use super::*;
use crate::source::{Place, half_read::OPEN};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use std::{collections::BTreeMap, io::Write};

/// `FILE LINE PADDING`, some of them longer than a block.
fn write(dir: &Path, random: &mut SmallRng, files: usize, packed: usize) -> Vec<FileSplit> {
    (0..files)
        .flat_map(|n| {
            let (lines, longest) = match n {
                // Long enough that many are open at once.
                _ if n < packed => (300, 30),
                _ if n % 9 == 0 => (60, 30_000),
                _ => (random.random_range(1..60), 30),
            };
            let line = |i| format!("{n} {i} {}\n", "x".repeat(random.random_range(0..longest)));
            let text: String = (0..lines).map(line).collect();
            let length = text.len() as u64;
            if n >= packed {
                let path = dir.join(format!("{n}"));
                std::fs::write(&path, text).unwrap();
                return cut(&path, length, random.random_range(0..length));
            }
            let path = dir.join(format!("{n}.gz"));
            let mut to = flate2::write::GzEncoder::new(File::create(&path).unwrap(), flate2::Compression::fast());
            to.write_all(text.as_bytes()).unwrap();
            let length = to.finish().unwrap().metadata().unwrap().len();
            crate::source::files::cut(vec![(path, length)], 1)
        })
        .collect()
}

/// Reads all in turns. `open` says how many files are open; answers the most of that, and how often a turn was refused.
fn turned<R: Reader<Split = FileSplit>>(
    seed: u64,
    make: impl Fn() -> R,
    splits: Vec<FileSplit>,
    open: impl Fn(&R) -> usize,
) -> (Vec<R::Item>, usize, usize) {
    let mut random = SmallRng::seed_from_u64(seed);
    let (mut out, metrics) = (Into_(Vec::new()), TaskMetrics::default());
    let mut slot = SlotCx::new(Arc::new(SystemClock::new()));
    let (mut reader, mut most, mut refused) = (make(), 0, 0);
    splits.into_iter().for_each(|s| reader.add(s));
    loop {
        let left = reader.unfinished();
        if random.random_range(0..100) == 0 {
            reader = make();
            left.into_iter().for_each(|s| reader.add(s));
        } else if random.random() {
            let place = random.random_range(0..left.len());
            let before = reader.reading();
            let turned = reader.turn_to(place);
            refused += usize::from(!turned);
            assert_eq!(reader.reading(), if turned { Some(place) } else { before });
        }
        let (count, given) = (reader.unfinished().len(), out.0.len());
        let mut cx = ReaderCx { slot: &mut slot, metrics: &metrics, place: &Place::default(), one_split: true };
        let polled = reader.poll(random.random_range(1..5), &mut out, &mut cx).unwrap();
        most = most.max(open(&reader));
        let ended = usize::from(polled != Polled::Progress);
        assert_eq!(reader.unfinished().len(), count - ended);
        assert!(out.0.len() - given < 5);
        if polled == Polled::Done {
            return (out.0, most, refused);
        }
    }
}

#[test]
fn half_read_files_that_are_turned_to_by_chance_give_each_line_once_and_few_are_open() {
    let dir = tempfile::tempdir().unwrap();
    let number = |text: &str| text.parse::<usize>().unwrap();
    let mut refused = 0;
    for seed in 0..12 {
        let mut random = SmallRng::seed_from_u64(seed);
        // With so many compressed ones there is none that could be closed.
        let packed = [0, 5, OPEN + 3][seed as usize % 3];
        let splits = write(dir.path(), &mut random, 30, packed);
        let mut naive = BTreeMap::<usize, Vec<String>>::new();
        for split in &splits {
            let path = &split.path;
            naive.entry(number(path.file_stem().unwrap().to_str().unwrap())).or_insert_with(|| {
                if split.packed.is_none() {
                    return std::fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect();
                }
                std::io::read_to_string(flate2::read::GzDecoder::new(File::open(path).unwrap()))
                    .unwrap()
                    .lines()
                    .map(str::to_owned)
                    .collect()
            });
        }
        // A file that was cut has two splits, and each gives its lines in order.
        let sorted = |mut lines: Vec<String>| {
            lines.sort_by_key(|line| number(line.split(' ').nth(1).unwrap()));
            lines
        };
        let of_files = |lines: Vec<String>| {
            let mut all = BTreeMap::<usize, Vec<String>>::new();
            for line in lines {
                all.entry(number(line.split(' ').next().unwrap())).or_default().push(line);
            }
            all.into_iter().map(|(file, lines)| (file, sorted(lines))).collect::<BTreeMap<_, _>>()
        };
        let (read, most, no) = turned(seed, || lines(1 << 20), splits.clone(), |reader| reader.splits.open());
        assert!(of_files(read) == naive, "seed {seed}: lines");
        assert!(most <= OPEN, "seed {seed}: {most} files are open");
        assert!(packed > OPEN || no == 0, "seed {seed}: {no} turns were refused");
        refused += no;
        let (read, most, _) = turned(seed, || blocks_of(1 << 20), splits, |reader| reader.splits.open());
        let lines = read
            .iter()
            .flat_map(|block| block.lines().map(|l| String::from_utf8_lossy(l).into_owned()).collect::<Vec<_>>());
        assert!(of_files(lines.collect()) == naive, "seed {seed}: blocks");
        assert!(most <= OPEN, "seed {seed}: {most} files are open");
    }
    assert!(refused > 0, "compressed files stay open");
}
