//! Writers and committers that share a folder: of several jobs, and of several attempts of one.

use super::*;

fn writer(folder: &Path, subtask: u32, marker: &str) -> TextWriter<Display> {
    TextWriter {
        folder: folder.to_owned(),
        name: format!("part-{subtask}-1-0"),
        marker: marker.into(),
        last: format!("part-{subtask}"),
        file: None,
        kept: false,
        written: Written { temporary: String::new(), length: 0 },
        earlier: Vec::new(),
        buffer: Vec::new(),
        format: Display,
    }
}

fn write(writer: &mut TextWriter<Display>, line: &'static str, times: usize) {
    (0..times).for_each(|_| SinkWriter::<&str>::write(writer, 0, line).unwrap());
}

/// What the committer of a job does once these writers have ended.
fn publish(folder: &Path, marker: &str, writers: &mut [TextWriter<Display>]) -> Result<(), TaskFailure> {
    let mut committer =
        TextCommitter { folder: folder.to_owned(), overwrite: false, marker: marker.into(), names: Vec::new() };
    for (subtask, writer) in (0..).zip(writers) {
        for (n, body) in (0..).zip(SinkWriter::<&str>::end(writer)?) {
            committer.add(Committable { subtask, n, body })?;
        }
    }
    let manifest = committer.prepare()?;
    committer.publish(&manifest.bytes)?;
    // Again, as after a restart.
    committer.publish(&manifest.bytes)
}

fn names(folder: &Path) -> Vec<String> {
    let mut names = entries(folder).unwrap();
    names.sort();
    names
}

const SNAPSHOT: fn(&mut TextWriter<Display>) -> Result<Option<Vec<u8>>, TaskFailure> = SinkWriter::<&str>::snapshot;

#[test]
fn of_two_jobs_in_one_folder_the_first_is_whole_and_the_second_is_told_and_shows_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = [writer(dir.path(), 0, "00")];
    let mut second = [writer(dir.path(), 0, "11"), writer(dir.path(), 1, "11")];
    for _ in 0..3 {
        write(&mut second[0], "of the second", BUFFER / 10);
        write(&mut first[0], "of the first", BUFFER / 10);
        write(&mut second[1], "of the second", 1);
    }
    publish(dir.path(), "00", &mut first).unwrap();
    let whole = "of the first\n".repeat(3 * (BUFFER / 10));
    assert!(std::fs::read_to_string(dir.path().join("part-0")).unwrap() == whole);
    let error = publish(dir.path(), "11", &mut second).unwrap_err().message;
    assert!(error.contains("from another job or sink that writes to the same folder"), "{error}");
    assert!(std::fs::read_to_string(dir.path().join("part-0")).unwrap() == whole);
    let shown: Vec<_> = names(dir.path()).into_iter().filter(|n| !n.starts_with('.')).collect();
    assert_eq!(shown, ["part-0"]);
}

#[test]
fn what_earlier_attempts_of_a_job_left_behind_goes_when_it_publishes_and_nobody_elses() {
    let dir = tempfile::tempdir().unwrap();
    for (marker, n) in [("00", 3), ("11", 1)] {
        for _ in 0..n {
            let mut killed = writer(dir.path(), 0, marker);
            write(&mut killed, "x", BUFFER);
            std::mem::forget(killed);
        }
    }
    let mut last = [writer(dir.path(), 0, "00")];
    write(&mut last[0], "y", 1);
    publish(dir.path(), "00", &mut last).unwrap();
    assert_eq!(names(dir.path()), [".part-0-1-0.inprogress-11", "part-0"]);
    assert_eq!(std::fs::read(dir.path().join("part-0")).unwrap(), b"y\n");
}

#[test]
fn a_writer_that_fails_removes_what_no_snapshot_names() {
    let dir = tempfile::tempdir().unwrap();
    let mut one = writer(dir.path(), 0, "00");
    SNAPSHOT(&mut one).unwrap();
    write(&mut one, "x", BUFFER);
    assert_eq!(names(dir.path()).len(), 1);
    drop(one);
    assert_eq!(names(dir.path()).len(), 0);

    let mut one = writer(dir.path(), 0, "00");
    write(&mut one, "x", 1);
    SNAPSHOT(&mut one).unwrap();
    drop(one);
    assert_eq!(names(dir.path()).len(), 1);

    // One that has ended is the committer's, and still in the state.
    let mut one = writer(dir.path(), 1, "00");
    write(&mut one, "x", 1);
    SinkWriter::<&str>::end(&mut one).unwrap();
    let state: Vec<Written> = codec::decode(&SNAPSHOT(&mut one).unwrap().unwrap()).unwrap();
    assert_eq!(state, [Written { temporary: ".part-1-1-0.inprogress-00".into(), length: 2 }]);
    drop(one);
    assert_eq!(names(dir.path()).len(), 2);
}

#[test]
fn a_folder_where_a_file_is_to_be_is_told_before_the_job_runs() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("part-2024")).unwrap();
    fs::write(dir.path().join("part-0"), "of yesterday\n").unwrap();
    let sink = TextSink::new(dir.path()).overwrite(true);
    let told = Sink::<&str>::check(&sink, Path::new("/")).unwrap_err();
    assert!(told.contains("has a folder part-2024, which no file can replace"), "{told}");
    fs::remove_dir(dir.path().join("part-2024")).unwrap();
    Sink::<&str>::check(&sink, Path::new("/")).unwrap();
}
