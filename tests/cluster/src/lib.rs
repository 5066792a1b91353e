//! What the end-to-end tests share: a cluster in a folder of its own, commands with time limits, and a look at processes
//! and REST. The executables are the release ones; they are built once if they are not there.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "tests: the system's clock and sockets are what is tested"
)]

mod etcd;

pub use etcd::Etcd;

use serde_json::Value;
use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};

/// Where the release executables are.
pub fn bin_dir() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        if let Some(dir) = std::env::var_os("THALWEG_BIN_DIR") {
            return dir.into();
        }
        // target/debug/deps/this-test → target
        let target = std::env::current_exe().unwrap();
        let target = target.parent().and_then(Path::parent).and_then(Path::parent).unwrap();
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../Cargo.toml");
        let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        build.args(["build", "--release", "--quiet", "--target-dir"]).arg(target).arg("--manifest-path").arg(manifest);
        for package in ["thalweg-cli", "thalweg-examples", "thalweg-cluster-tests"] {
            build.args(["-p", package]);
        }
        assert!(build.args(["--bins", "--examples"]).status().unwrap().success(), "the release build failed");
        target.join("release")
    })
}

/// The `thalweg` command.
pub fn thalweg() -> PathBuf {
    bin_dir().join("thalweg")
}

/// An example job.
pub fn example(name: &str) -> PathBuf {
    bin_dir().join("examples").join(name)
}

/// The job that misbehaves.
pub fn misbehaves() -> PathBuf {
    bin_dir().join("misbehaves")
}

/// The job that counts what a cached file names: `cached FILE OUTPUT`.
pub fn cached() -> PathBuf {
    bin_dir().join("cached")
}

/// The job of which one half fails when it is told to: `two_pipelines DIR`.
pub fn two_pipelines() -> PathBuf {
    bin_dir().join("two_pipelines")
}

/// How a command ended.
#[derive(Debug)]
pub struct Done {
    /// Its exit code; -1 when a signal ended it.
    pub code: i32,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
    /// How long it took.
    pub took: Duration,
}

/// Runs a command to its end, at most a minute.
pub fn run(command: &mut Command) -> Done {
    run_for(command, Duration::from_secs(60))
}

/// Runs a command to its end, at most for so long.
pub fn run_for(command: &mut Command, limit: Duration) -> Done {
    let began = Instant::now();
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let pid = child.id();
    let (send, timed) = std::sync::mpsc::channel::<()>();
    let killer = std::thread::spawn(move || {
        if timed.recv_timeout(limit).is_err() {
            kill(pid, libc::SIGKILL);
            return true;
        }
        false
    });
    let (mut out, mut err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        err.read_to_end(&mut text).unwrap();
        text
    });
    let mut stdout = Vec::new();
    out.read_to_end(&mut stdout).unwrap();
    let stderr = reader.join().unwrap();
    let status = child.wait().unwrap();
    let _ = send.send(());
    let output = Output { status, stdout, stderr };
    let done = Done {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
        took: began.elapsed(),
    };
    assert!(!killer.join().unwrap(), "{command:?} did not end within {limit:?}: {done:?}");
    done
}

/// Sends a signal.
#[allow(unsafe_code)]
pub fn kill(pid: u32, signal: i32) {
    // SAFETY: a plain system call.
    unsafe { libc::kill(pid as i32, signal) };
}

/// Is there a process of this pid that is not just waiting to be collected?
pub fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

/// The pids of all processes whose command line has this text.
pub fn processes_with(text: &str) -> Vec<u32> {
    let mut pids = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if String::from_utf8_lossy(&line).contains(text) && is_alive(pid) && pid != std::process::id() {
            pids.push(pid);
        }
    }
    pids
}

/// The task hosts of a TaskManager: its children.
pub fn hosts_of(task_manager: u32) -> Vec<u32> {
    let mut hosts = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let parent = stat.rsplit_once(')').and_then(|(_, r)| r.split_whitespace().nth(1)?.parse::<u32>().ok());
        if parent == Some(task_manager) && is_alive(pid) {
            hosts.push(pid);
        }
    }
    hosts
}

/// Waits until it is so, at most for so long.
pub fn eventually(what: &str, limit: Duration, mut is_so: impl FnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < limit, "{what}: not within {limit:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
    began.elapsed()
}

/// A folder that stays when the test fails.
pub struct Place(Option<tempfile::TempDir>);

impl Place {
    /// A fresh one.
    pub fn new() -> Self {
        Self(Some(tempfile::Builder::new().prefix("thalweg-test-").tempdir().unwrap()))
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        self.0.as_ref().unwrap().path()
    }
}

impl Default for Place {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(dir) = self.0.take()
        {
            eprintln!("kept: {}", dir.keep().display());
        }
    }
}

/// A session cluster in a folder of its own, on free ports.
pub struct Cluster {
    dir: PathBuf,
    more: Vec<String>,
}

impl Cluster {
    /// Starts one.
    pub fn start(place: &Place, task_managers: u32, slots: u32, more: &[&str]) -> Self {
        let mut options: Vec<String> = ["-Drest.port=0", "-Djob-manager.rpc-port=0"].map(str::to_owned).to_vec();
        options.extend(more.iter().map(|m| format!("-D{m}")));
        let cluster = Self { dir: place.path().join("cluster"), more: options };
        let numbers = [task_managers.to_string(), slots.to_string()];
        let done = run(cluster.command(&["cluster", "start", "--taskmanagers", &numbers[0], "--slots", &numbers[1]]));
        assert_eq!(done.code, 0, "{done:?}");
        cluster
    }

    /// One that runs already, with the flags that belong on each command.
    pub fn at(dir: &Path, flags: &[String]) -> Self {
        Self { dir: dir.to_owned(), more: flags.to_vec() }
    }

    /// A command on this cluster.
    pub fn command(&self, args: &[&str]) -> &'static mut Command {
        // Leaked, so that call sites can chain; a test makes a handful.
        let command = Box::leak(Box::new(Command::new(thalweg())));
        command.args(&self.more).arg("--dir").arg(&self.dir).args(args)
    }

    /// Its folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Submits a job and leaves it; answers its id.
    pub fn submit(&self, flags: &[&str], job: &Path, args: &[&str]) -> String {
        let done = run(self.command(&["run", "-d"]).args(flags).arg(job).arg("--").args(args));
        assert_eq!(done.code, 0, "{done:?}");
        done.out.trim().to_owned()
    }

    /// `cluster status --json`: pids by role.
    pub fn processes(&self) -> Vec<Value> {
        let done = run(self.command(&["cluster", "status", "--json"]));
        let status: Value = serde_json::from_str(&done.out).unwrap_or_else(|e| panic!("{e}: {done:?}"));
        status["processes"].as_array().unwrap().clone()
    }

    /// Pids of the TaskManagers.
    pub fn task_managers(&self) -> Vec<u32> {
        let of = |p: &Value| (p["role"] == "taskmanager").then(|| p["pid"].as_u64().unwrap() as u32);
        self.processes().iter().filter_map(of).collect()
    }

    /// Pid of the JobManager.
    pub fn job_manager(&self) -> u32 {
        let file = std::fs::read(self.dir.join("cluster.json")).unwrap();
        serde_json::from_slice::<Value>(&file).unwrap()["pid"].as_u64().unwrap() as u32
    }

    /// Where REST is: `host:port`.
    pub fn rest(&self) -> String {
        let file = std::fs::read(self.dir.join("cluster.json")).unwrap();
        let file: Value = serde_json::from_slice(&file).unwrap();
        file["rest"].as_str().unwrap().trim_start_matches("http://").to_owned()
    }

    /// Reads JSON from REST.
    pub fn get(&self, route: &str) -> Value {
        let (status, body) = http(&self.rest(), "GET", route, &[], b"");
        assert_eq!(status, 200, "{route}: {body}");
        serde_json::from_str(&body).unwrap_or_else(|e| panic!("{route}: {e}: {body}"))
    }

    /// The same where perhaps nobody leads at the moment: then `None`.
    pub fn try_get(&self, route: &str) -> Option<Value> {
        let file: Value = serde_json::from_slice(&std::fs::read(self.dir.join("cluster.json")).ok()?).ok()?;
        let stream = TcpStream::connect(file["rest"].as_str()?.trim_start_matches("http://")).ok()?;
        let (status, body) = http_on(stream, "GET", route, &[], b"");
        (status == 200).then(|| serde_json::from_str(&body).ok())?
    }

    /// A job's state, as `list` tells it; empty while it is not known, or nobody leads.
    pub fn state(&self, job: &str) -> String {
        let Some(jobs) = self.try_get("/api/overview") else { return String::new() };
        let job = jobs["jobs"].as_array().unwrap().iter().find(|j| j["id"] == job).cloned();
        job.map(|j| j["status"].as_str().unwrap().to_owned()).unwrap_or_default()
    }

    /// Waits until the job is in this state.
    pub fn wait_for(&self, job: &str, state: &str, limit: Duration) {
        eventually(&format!("job {job} {state}"), limit, || {
            let now = self.state(job);
            if now != state && ["FINISHED", "FAILED", "CANCELED"].contains(&&*now) {
                panic!("job {job} is {now}, not {state}: {}", self.get(&format!("/jobs/{job}/exceptions")));
            }
            now == state
        });
    }

    /// Do all its tasks run? A job is RUNNING as soon as it is being deployed.
    pub fn tasks_run(&self, job: &str) -> bool {
        let details = self.get(&format!("/jobs/{job}"));
        let vertices = details["vertices"].as_array().map(Vec::as_slice).unwrap_or_default();
        !vertices.is_empty() && vertices.iter().all(|v| v["tasks"]["RUNNING"] == v["parallelism"])
    }

    /// Bytes that the job's sources have read, of all.
    pub fn progress(&self, job: &str) -> (u64, u64) {
        let details = self.get(&format!("/api/jobs/{job}/progress"));
        (details["read"].as_u64().unwrap(), details["all"].as_u64().unwrap())
    }

    /// Stops it; nothing may be left.
    pub fn stop(self) {
        let done = run(self.command(&["cluster", "stop"]));
        assert_eq!(done.code, 0, "{done:?}");
        self.nothing_left();
    }

    fn nothing_left(&self) {
        let dir = self.dir.to_string_lossy().into_owned();
        assert_eq!(processes_with(&dir), Vec::<u32>::new(), "processes are left");
        for entry in std::fs::read_dir(&self.dir).unwrap().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let socket = std::os::unix::fs::FileTypeExt::is_socket(&entry.file_type().unwrap());
            assert!(!socket && !name.ends_with(".lock") && name != "cluster.json", "{name} is left");
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Whatever is stopped cannot end by itself.
            for pid in processes_with(&self.dir.to_string_lossy()) {
                kill(pid, libc::SIGCONT);
            }
            let _ = self.command(&["cluster", "stop"]).output();
        }
    }
}

/// One request; answers status and body.
pub fn http(at: &str, method: &str, route: &str, headers: &[(&str, &str)], body: &[u8]) -> (u16, String) {
    http_on(TcpStream::connect(at).unwrap(), method, route, headers, body)
}

fn http_on(mut stream: TcpStream, method: &str, route: &str, headers: &[(&str, &str)], body: &[u8]) -> (u16, String) {
    let at = stream.peer_addr().map(|a| a.to_string()).unwrap_or_default();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut head =
        format!("{method} {route} HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    stream.write_all(format!("{head}\r\n").as_bytes()).unwrap();
    // A server that refuses early may not read it all.
    let _ = stream.write_all(body);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let text = String::from_utf8_lossy(&answer).into_owned();
    let status = text.split_whitespace().nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    if head.to_lowercase().contains("transfer-encoding: chunked") {
        return (status, unchunk(body));
    }
    (status, body.to_owned())
}

fn unchunk(mut body: &str) -> String {
    let mut out = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let Ok(size) = usize::from_str_radix(size.trim(), 16) else { break };
        if size == 0 || size > rest.len() {
            break;
        }
        out.push_str(&rest[..size]);
        body = rest[size..].trim_start_matches("\r\n");
    }
    out
}

/// The counts that a `wordcount --output` wrote: by word.
pub fn counts_in(dir: &Path) -> BTreeMap<Vec<u8>, u64> {
    let mut counts = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        assert!(name.starts_with("part-"), "{name} is no part file");
        for line in std::fs::read(entry.path()).unwrap().split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
            let at = line.iter().rposition(|b| *b == b' ').unwrap();
            let count = std::str::from_utf8(&line[at + 1..]).unwrap().parse::<u64>().unwrap();
            assert_eq!(counts.insert(line[..at].to_vec(), count), None, "a word stands twice");
        }
    }
    counts
}

/// The same by the shell's tools, as everybody can check.
pub fn counts_by_shell(path: &Path) -> BTreeMap<Vec<u8>, u64> {
    let script = r#"find "$0" -type f -print0 | xargs -0 awk 1 | LC_ALL=C tr -s '[:space:]' '\n' | grep . | LC_ALL=C sort | uniq -c | awk '{print $2,$1}'"#;
    let output = Command::new("sh").arg("-c").arg(script).arg(path).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut counts = BTreeMap::new();
    for line in output.stdout.split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
        let at = line.iter().rposition(|b| *b == b' ').unwrap();
        counts.insert(line[..at].to_vec(), std::str::from_utf8(&line[at + 1..]).unwrap().parse().unwrap());
    }
    counts
}

/// A file of about so many bytes of made-up words, the same for the same seed.
pub fn words_file(path: &Path, bytes: usize, seed: u64) {
    let mut file = std::io::BufWriter::new(std::fs::File::create(path).unwrap());
    let (mut written, mut state) = (0, seed.wrapping_mul(2).wrapping_add(1));
    while written < bytes {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        // Frequent words are short numbers, rare ones long.
        let word = (state >> 33) % (1 << (4 + (state >> 60)));
        let end = if state & 0xf00 == 0 { '\n' } else { ' ' };
        let text = format!("w{word}{end}");
        written += text.len();
        file.write_all(text.as_bytes()).unwrap();
    }
    file.write_all(b"\n").unwrap();
}

/// A client that is attached to its job.
pub fn attach(command: &mut Command) -> Child {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Seeds of this run: `THALWEG_SEED=n` for one, else 0 to `THALWEG_SEEDS` (a few by default).
pub fn seeds(default: u64) -> Vec<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|n| n.parse::<u64>().ok());
    match number("THALWEG_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("THALWEG_SEEDS").unwrap_or(default)).collect(),
    }
}
