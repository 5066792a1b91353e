//! Files with patterns, compression and formats, in whole jobs, against naive models. `THALWEG_CASES=n` for more cases,
//! `THALWEG_SEED=n` replays one.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, reason = "tests")]

use rand::{Rng, SeedableRng, rngs::SmallRng};
use serde::{Deserialize, Serialize};
use std::{io::Write, path::Path, time::Duration};
use thalweg_api::{AsyncOptions, BadRecord, CsvOptions, ErrorPolicy, InvalidUtf8, TextLines, prelude::*, testing};

fn each(default: u64, case: impl Fn(&Environment, &Path, &mut SmallRng)) {
    let seed = std::env::var("THALWEG_SEED").ok().map(|s| s.parse::<u64>().unwrap());
    let n = std::env::var("THALWEG_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(default);
    for seed in seed.map_or(0..n, |s| s..s + 1) {
        let mut random = SmallRng::seed_from_u64(seed);
        let dir = tempfile::tempdir().unwrap();
        let env = testing::environment(random.random_range(1..4), dir.path()).unwrap();
        let run = std::panic::AssertUnwindSafe(|| case(&env, dir.path(), &mut random));
        assert!(std::panic::catch_unwind(run).is_ok(), "THALWEG_SEED={seed}");
    }
}

fn write(path: &Path, text: &str, random: &mut SmallRng) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let bytes = match path.extension().and_then(|e| e.to_str()) {
        Some("gz") => {
            let mut to = flate2::write::GzEncoder::new(vec![], flate2::Compression::new(random.random_range(0..10)));
            to.write_all(text.as_bytes()).unwrap();
            to.finish().unwrap()
        }
        Some("zst") => zstd::encode_all(text.as_bytes(), random.random_range(1..10)).unwrap(),
        _ => text.as_bytes().to_vec(),
    };
    std::fs::write(path, bytes).unwrap();
}

fn any_text(random: &mut SmallRng) -> String {
    const SIGNS: [char; 10] = ['a', 'b', '"', ',', '{', '\\', 'ö', '€', ' ', '\t'];
    (0..random.random_range(0..12)).map(|_| SIGNS[random.random_range(0..SIGNS.len())]).collect()
}

fn sorted<T: Ord>(mut all: Vec<T>) -> Vec<T> {
    all.sort();
    all
}

#[test]
fn files_that_a_pattern_matches_are_read_once_however_they_are_compressed() {
    each(40, |env, dir, random| {
        let (mut all, mut matched) = (vec![], vec![]);
        for i in 0..random.random_range(1..12) {
            let folder = ["a", "b", "c/d"][random.random_range(0..3)];
            let ending = ["log", "log.gz", "log.zst", "txt"][random.random_range(0..4)];
            let lines: Vec<_> =
                (0..random.random_range(1..200)).map(|n| format!("{i} {n} {}", any_text(random))).collect();
            write(&dir.join(format!("in/{folder}/{i}.{ending}")), &format!("{}\n", lines.join("\n")), random);
            if folder == "a" && ending.starts_with("log") {
                matched.extend(lines.clone());
            }
            all.extend(lines);
        }
        let folder = env.read_text("in").collect();
        let none = matched.is_empty();
        let pattern = (!none).then(|| env.read_text("in/[ax]/*.log*").collect());
        let deep = env
            .read_blocks(["in/**/[0-9]*.*"])
            .flat_map(|b| b.lines().map(<[u8]>::to_vec).collect::<Vec<_>>())
            .collect();
        let result = env.execute("patterns").unwrap();
        assert_eq!(sorted(result.collected(&folder).unwrap()), sorted(all.clone()));
        if let Some(pattern) = pattern {
            assert_eq!(sorted(result.collected(&pattern).unwrap()), sorted(matched));
        }
        let all = all.into_iter().map(String::into_bytes).collect();
        assert_eq!(sorted(result.collected(&deep).unwrap()), sorted::<Vec<u8>>(all));
    });
}

#[test]
fn a_pattern_is_a_shells_and_a_name_with_its_signs_is_that_file() {
    let dir = tempfile::tempdir().unwrap();
    // The folder of the client is no part of a pattern.
    let dir = dir.path().join("[x]*");
    let mut random = SmallRng::seed_from_u64(0);
    for (name, text) in
        [("*.log", "star"), ("a.log", "a"), ("b.log", "b"), (".c.log", "c"), ("[a].txt", "brackets"), ("a.txt", "no")]
    {
        write(&dir.join(name), text, &mut random);
    }
    let env = testing::environment(1, &dir).unwrap();
    for (pattern, expected) in [
        ("*.log", &["star"][..]),
        ("?.log", &["a", "b", "star"]),
        ("*.lo?", &["a", "b", "star"]),
        (".*.log", &["c"]),
        ("[a].txt", &["brackets"]),
        ("[!b].log", &["a", "star"]),
    ] {
        let lines = env.read_text(pattern).collect();
        let result = env.execute("pattern").unwrap();
        assert_eq!(sorted(result.collected(&lines).unwrap()), expected, "{pattern}");
    }
    for (pattern, expected) in [
        ("*.csv", "*.csv matches no file"),
        ("no", "does not exist (relative paths start in the client's folder): check the path"),
        // Counted in what was written here, also where the pattern is looked for again and again.
        ("ab[", "input pattern ab[: Pattern syntax error near position 2"),
        ("", "an input path is empty"),
        ("file:///data/in", "does not exist (paths are no URLs: write /data/in): check the path"),
        ("s3://bucket/*.csv", "(paths are no URLs: name files of this machine"),
        ("~/data", "(`~` is known to shells alone: write the whole path)"),
        ("{a,b}.log", "does not exist (patterns have no braces: give read_texts a path for each)"),
        ("{a,b}.l?g", "(patterns have no braces"),
    ] {
        let error = |lines: DataStream<String, _>| {
            lines.discard();
            env.execute("none").unwrap_err().to_string()
        };
        let once = error(env.read_text(pattern));
        assert!(once.contains(expected), "{once}");
        // A pattern may match later.
        if !["*.csv", "{a,b}.l?g"].contains(&pattern) {
            let again = error(env.monitor_text(pattern, Duration::from_secs(1)));
            assert!(again.contains(expected), "{again}");
        }
    }
}

#[test]
fn a_file_is_read_once_however_often_it_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let mut random = SmallRng::seed_from_u64(0);
    for (name, text) in
        [("top", "1"), ("clicks/a", "2"), ("clicks/b/c.gz", "3"), (".hidden", "no"), ("clicks/b/.hidden", "no")]
    {
        write(&dir.path().join("in").join(name), text, &mut random);
    }
    std::fs::create_dir(dir.path().join("links")).unwrap();
    std::os::unix::fs::symlink("../in/clicks", dir.path().join("links/clicks")).unwrap();
    std::os::unix::fs::symlink(".", dir.path().join("links/circle")).unwrap();
    write(&dir.path().join("links/own"), "4", &mut random);
    let env = testing::environment(1, dir.path()).unwrap();
    for (paths, expected) in [
        // It matches the folders, whose files are read, and the files.
        (&["in/**/*"][..], &["2", "3", "1"][..]),
        (&["in/**"], &["2", "3", "1"]),
        // A link that the pattern names is followed, one that lies in a folder is not.
        (&["links/c*s"], &["2", "3"]),
        (&["links/**"], &["4"]),
        (&["links"], &["4"]),
        (&["**"], &["2", "3", "1", "4"]),
        (&["**/**"], &["2", "3", "1", "4"]),
        (&["in/*"], &["2", "3", "1"]),
        (&["in/clicks/**"], &["2", "3"]),
        (&["in/**/b/**"], &["3"]),
        (&["in/top", "in", "./in//top"], &["1", "no", "2", "no", "3"]),
        (&["in/clicks/b", "in/**"], &["no", "3", "2", "1"]),
    ] {
        let lines = env.read_texts(paths).collect();
        let result = env.execute("once").unwrap();
        assert_eq!(result.collected(&lines).unwrap(), expected, "{paths:?}");
    }
}

#[test]
fn an_empty_file_gives_nothing_be_its_name_that_of_a_compressed_one() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["a", "b.gz", "c.zst"] {
        std::fs::write(dir.path().join(name), "").unwrap();
    }
    let env = testing::environment(2, dir.path()).unwrap();
    let lines = env.read_texts(["a", "b.gz", "c.zst"]).collect();
    assert_eq!(env.execute("empty").unwrap().collected(&lines).unwrap(), [""; 0]);
}

#[test]
fn options_of_csv_that_cannot_be_are_told_before_the_job_begins() {
    let dir = tempfile::tempdir().unwrap();
    let env = testing::environment(1, dir.path()).unwrap();
    env.from_collection(["1".to_owned()]).parse_csv::<(u8,)>(CsvOptions::new().skip_headers()).discard();
    match env.execute("headers").map(|_| ()).unwrap_err() {
        JobError::Program(wrong) => {
            assert!(wrong[0].contains("tests/formats.rs:") && wrong[0].contains("give columns([…]) too"), "{wrong:?}");
        }
        other => panic!("{other}"),
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Order {
    id: u64,
    name: String,
    note: Option<i8>,
}

fn orders(random: &mut SmallRng) -> Vec<Order> {
    let n = random.random_range(0..150);
    let one = |id| {
        let note = if random.random() { Some(random.random()) } else { None };
        Order { id, name: any_text(random), note }
    };
    (0..n).map(one).collect()
}

fn csv_line(order: &Order, delimiter: char) -> String {
    let note = order.note.map_or_else(String::new, |n| n.to_string());
    format!("{}{delimiter}\"{}\"{delimiter}{note}", order.id, order.name.replace('"', "\"\""))
}

#[test]
fn records_come_out_as_they_were_written_and_bad_lines_do_what_the_policy_says() {
    each(60, |env, dir, random| {
        let (orders, csv) = (orders(random), random.random());
        let delimiter = if random.random() { b',' } else { b';' };
        let (mut text, mut good, mut bad) = (String::new(), vec![], vec![]);
        // Some have no bad line at all, or hardly one.
        let often = [10, 300][random.random_range(0..2)];
        if csv {
            text.push_str(&["id", "name", "note"].join(&char::from(delimiter).to_string()));
            text.push('\n');
        }
        for order in orders {
            let line = if csv { csv_line(&order, delimiter.into()) } else { serde_json::to_string(&order).unwrap() };
            let half: String = line.chars().take(line.chars().count() / 2).collect();
            let broken = match random.random_range(0..often) {
                0 => half + "\"",
                1 => line.replacen(&order.id.to_string(), "-7", 1),
                2 => {
                    text.push_str(["\n", "  \r\n"][random.random_range(0..2)]);
                    continue;
                }
                _ => {
                    text.push_str(&format!("{line}\n"));
                    good.push(order);
                    continue;
                }
            };
            bad.push((broken.clone(), text.len()));
            text.push_str(&format!("{broken}\n"));
        }
        let ending = ["", ".gz", ".zst"][random.random_range(0..3)];
        let path = dir.join(format!("in{ending}"));
        write(&path, &text, random);
        let of = if ending.is_empty() { "" } else { "the text of " };
        let place = |at: usize| format!("{of}{} at byte {at}", path.display());
        let tag = OutputTag::<BadRecord>::new("bad");
        let policy = random.random_range(0..3);
        let policy = || match policy {
            0 => ErrorPolicy::Fail,
            1 => ErrorPolicy::Skip,
            _ => (&tag).into(),
        };
        let lines = env.read_text(format!("in{ending}"));
        let options = CsvOptions::new().delimiter(delimiter).columns(["id", "name", "note"]).skip_headers();
        let (records, side) = if csv {
            let s = lines.parse_csv::<Order>(options).on_error(policy());
            let side = matches!(policy(), ErrorPolicy::Side(_)).then(|| s.side_output(&tag).collect());
            (s.collect(), side)
        } else {
            let s = lines.parse_json::<Order>().on_error(policy());
            let side = matches!(policy(), ErrorPolicy::Side(_)).then(|| s.side_output(&tag).collect());
            (s.collect(), side)
        };
        let result = match env.execute("orders") {
            Ok(result) => result,
            Err(e) => {
                assert!(matches!(policy(), ErrorPolicy::Fail) && !bad.is_empty(), "{e}");
                assert!(e.to_string().contains("a line cannot be read: "), "{e}");
                assert!(bad.iter().any(|(b, at)| e.to_string().contains(&format!("{b:?} ({})", place(*at)))), "{e}");
                return;
            }
        };
        assert!(!matches!(policy(), ErrorPolicy::Fail) || bad.is_empty());
        assert_eq!(sorted(result.collected(&records).unwrap()), sorted(good));
        if let Some(side) = side {
            let side: Vec<BadRecord> = result.collected(&side).unwrap();
            assert!(side.iter().all(|b| !b.error.is_empty()));
            let bad = bad.into_iter().map(|(line, at)| (line, Some(place(at))));
            assert_eq!(sorted(side.into_iter().map(|b| (b.line, b.place)).collect()), sorted(bad.collect()));
        }
    });
}

#[test]
fn csv_says_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let of = |line: &str, options: CsvOptions| {
        let env = testing::environment(1, dir.path()).unwrap();
        let tag = OutputTag::new("bad");
        let s = env.from_collection([line.to_owned()]).parse_csv::<(u8, String)>(options).on_error(&tag);
        let bad = s.side_output(&tag).map(|b: BadRecord| b.error).collect();
        let good = s.collect();
        let result = env.execute("csv").map_err(|e| e.to_string())?;
        match result.collected(&bad).unwrap().pop() {
            Some(error) => Err(error),
            None => Ok(result.collected(&good).unwrap().pop().unwrap()),
        }
    };
    let plain = CsvOptions::new;
    assert_eq!(of("1,a b", plain()), Ok((1, "a b".into())));
    assert_eq!(of("\u{feff}1,\"a \"\"b\"\", \n c\"", plain()), Ok((1, "a \"b\", \n c".into())));
    assert_eq!(of(&format!("1,{}", "x".repeat(100_000)), plain()), Ok((1, "x".repeat(100_000))));
    for (line, options, expected) in [
        ("1,\"a", plain(), "a quoted field does not end"),
        ("1,a\n2,b", plain(), "a line break within"),
        ("x,a", plain(), "field 1: invalid digit"),
        ("a,x", plain().columns(["name", "n"]), "column \"name\": invalid digit"),
        ("1", plain(), "invalid length 1"),
        ("1,2,3", plain().columns(["a", "b"]), "fields: 3, columns: 2"),
        ("1;a", plain().columns(["a", "b"]), "fields: 1, columns: 2"),
        ("1,a", plain().delimiter(200), "delimited by byte 200"),
        ("1,a", plain().skip_headers(), "columns([…])"),
    ] {
        let error = of(line, options).unwrap_err();
        assert!(error.contains(expected), "{line:?}: {error}");
    }

    #[derive(Debug, serde::Serialize, serde::Deserialize)]
    struct Place {
        city: String,
    }
    let env = testing::environment(1, dir.path()).unwrap();
    env.from_collection(["1,Linz".to_owned()]).parse_csv::<Place>(plain().columns(["id", "town"])).discard();
    let error = env.execute("csv").unwrap_err().to_string();
    assert!(error.contains("missing field `city`, and the columns are id, town"), "{error}");
}

#[test]
fn a_line_of_delimiters_has_fields_that_are_empty() {
    type Row = (Option<u32>, Option<u32>);
    for delimiter in [b'\t', b' ', b','] {
        let env = testing::environment(1, std::env::temp_dir()).unwrap();
        let d = char::from(delimiter);
        let lines = [format!("1{d}2"), d.into(), String::new(), format!("3{d}")];
        let rows = env.from_collection(lines).parse_csv::<Row>(CsvOptions::new().delimiter(delimiter)).collect();
        let rows = env.execute("tsv").unwrap().collected(&rows).unwrap();
        assert_eq!(rows, [(Some(1), Some(2)), (None, None), (Some(3), None)], "{d:?}");
    }
}

#[test]
fn a_long_bad_line_is_named_by_its_beginning() {
    let env = testing::environment(2, std::env::temp_dir()).unwrap();
    let line = format!("{}END", "ö".repeat(150));
    env.from_collection([line]).parse_with(|line| line.parse::<u64>()).uid("numbers").discard();
    let error = env.execute("long").unwrap_err().to_string();
    assert!(error.contains(&format!("{:?}… (303 bytes)", "ö".repeat(100))) && error.contains("numbers"), "{error}");
    assert!(!error.contains("END"), "{error}");
}

#[test]
fn a_file_that_changes_while_the_job_reads_fails_the_job() {
    for (name, change, expected) in [
        ("b", "remove", "b was there when the job listed its input, and is gone"),
        ("b.gz", "remove", "b.gz was there when the job listed its input, and is gone"),
        ("b", "cut", "b ends at or before byte 9 and went on to byte "),
        ("b.gz", "cut", "b.gz ends at or before byte 9 and went on to byte "),
        ("b.gz", "damage", "b.gz is damaged or not complete: "),
        ("b.zst", "damage", "b.zst is damaged or not complete: "),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let env = testing::environment(1, dir.path()).unwrap();
        let mut random = SmallRng::seed_from_u64(1);
        write(&dir.path().join("in/a"), "begin\n", &mut random);
        write(&dir.path().join("in").join(name), &"line\n".repeat(100_000), &mut random);
        let path = dir.path().join("in").join(name);
        let lines = env.read_text("in");
        let changed = lines.inspect(move |line: &String| {
            // The one reader has this file first.
            if line == "begin" {
                let mut bytes = std::fs::read(&path).unwrap();
                match change {
                    "remove" => return std::fs::remove_file(&path).unwrap(),
                    "cut" => bytes.truncate(9),
                    _ => bytes[..20].iter_mut().for_each(|b| *b ^= 0x55),
                }
                std::fs::write(&path, bytes).unwrap();
            }
        });
        changed.discard();
        let error = env.execute("changes").map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(expected), "{name} {change}: {error}");
    }
}

#[test]
fn options_of_lines_reach_the_readers() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("f"), b"short\nno\xff\nlong line\n").unwrap();
    let env = testing::environment(2, dir.path()).unwrap();
    let lines = env.source(TextLines::new(["f"]).max_line(9).invalid_utf8(InvalidUtf8::Skip)).collect();
    assert_eq!(env.execute("fits").unwrap().collected(&lines).unwrap(), ["short", "long line"]);
    env.source(TextLines::new(["f"]).max_line(8)).discard();
    let error = env.execute("long").unwrap_err().to_string();
    assert!(
        error.contains("f has a line of more than 8 bytes at byte 10: TextLines::max_line is 8; raise it"),
        "{error}"
    );
}

#[test]
fn a_bad_line_has_a_place_where_it_can_be_known_and_no_wrong_one() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("in"), "1\nx\n2\ny\n").unwrap();
    let number = |line: &str| line.parse::<u32>();
    let options = || AsyncOptions::ordered().capacity(2);
    for (kept, case) in [(false, 0), (false, 1), (true, 2), (true, 3)] {
        let env = testing::environment(1, dir.path()).unwrap();
        let tag = OutputTag::<BadRecord>::new("bad");
        let lines = env.read_text("in");
        let parsed = match case {
            0 => lines.parse_with(number).on_error(&tag).boxed(),
            1 => lines.filter(|line| line != "1").map(|line| line + " ").parse_with(number).on_error(&tag).boxed(),
            2 => lines
                .map_async(options(), |line| async { Ok::<_, String>(line) })
                .parse_with(number)
                .on_error(&tag)
                .boxed(),
            _ => lines.rebalance().parse_with(number).on_error(&tag).boxed(),
        };
        let bad = parsed.side_output(&tag).map(|b: BadRecord| (b.line, b.place)).collect();
        parsed.discard();
        let result = env.execute("places").unwrap();
        let place = |at: u32| (!kept).then(|| format!("{} at byte {at}", dir.path().join("in").display()));
        let end = if case == 1 { " " } else { "" };
        let expected = if case == 1 {
            vec![(format!("x{end}"), place(2)), (format!("2{end}"), place(4)), (format!("y{end}"), place(6))]
        } else {
            vec![("x".to_owned(), place(2)), ("y".to_owned(), place(6))]
        };
        assert_eq!(result.collected(&bad).unwrap(), expected, "{case}");
    }
}

#[test]
fn records_that_a_filter_has_kept_are_given_no_place_of_another() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("in"), "x\n".repeat(500)).unwrap();
    let env = testing::environment(1, dir.path()).unwrap();
    let tag = OutputTag::<BadRecord>::new("bad");
    let lengths = env.read_text("in").map(|line| line.len() as u64).filter(|n| *n > 0);
    let parsed = lengths.map(|n| format!("{n}x")).parse_with(|line: &str| line.parse::<u32>()).on_error(&tag);
    let bad = parsed.side_output(&tag).map(|b: BadRecord| b.place).collect();
    parsed.discard();
    assert_eq!(env.execute("kept").unwrap().collected(&bad).unwrap(), vec![None; 500]);
}
