//! Starts etcd with `tests/real/etcd.sh`, and does to its members what a bad day does.

use std::{
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Output, Stdio},
    sync::OnceLock,
};
use tempfile::TempDir;
use thalweg_testkit::or_skip;

/// A running etcd. It ends when this is dropped, and also when the test process dies.
pub struct Server {
    dir: TempDir,
    endpoints: Vec<String>,
    child: Child,
    /// Open as long as the members are to run.
    input: Option<ChildStdin>,
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../tests/real/etcd.sh")
}

fn is_installed() -> bool {
    let finds =
        |program: &str| Command::new(program).arg("--help").stdout(Stdio::null()).stderr(Stdio::null()).status();
    ["etcd", "etcdctl"].iter().all(|program| finds(program).is_ok())
}

impl Server {
    /// With these words of the script; `None`, visibly, where etcd is not installed.
    pub fn start(words: &[&str]) -> Option<Self> {
        Self::start_with(words, &[])
    }

    /// The same, with variables of the script.
    pub fn start_with(words: &[&str], variables: &[(&str, &str)]) -> Option<Self> {
        or_skip("etcd", is_installed().then_some(()))?;
        let dir = TempDir::new().unwrap();
        let mut command = Command::new(script());
        command.arg("hold").arg(dir.path()).args(words).envs(variables.iter().copied());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let Some(endpoints) = line.trim().strip_prefix("ready ") else {
            let mut text = String::new();
            child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
            panic!("etcd does not start: {text}");
        };
        let endpoints = endpoints.split(',').map(str::to_owned).collect();
        let input = child.stdin.take();
        Some(Self { dir, endpoints, child, input })
    }

    /// One node, for all tests of this process that do it no harm.
    pub fn shared() -> Option<&'static Self> {
        static SHARED: OnceLock<Option<Server>> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(&["1"])).as_ref()
    }

    /// Three nodes, for all tests of this process that do them no harm.
    pub fn shared_three() -> Option<&'static Self> {
        static SHARED: OnceLock<Option<Server>> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(&["3"])).as_ref()
    }

    pub fn endpoints(&self) -> &[String] {
        &self.endpoints
    }

    fn run(&self, command: &str, arguments: &[&str]) -> Output {
        Command::new(script()).arg(command).arg(self.dir.path()).args(arguments).output().unwrap()
    }

    fn must(&self, command: &str, arguments: &[&str]) -> String {
        let output = self.run(command, arguments);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{command} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        text
    }

    /// `etcdctl`.
    pub fn ctl(&self, arguments: &[&str]) -> String {
        self.must("ctl", arguments)
    }

    /// Kills, freezes, thaws a member (from 1), or starts it `again`.
    pub fn does(&self, what: &str, member: usize) {
        self.must(what, &[&member.to_string()]);
    }

    /// The member that leads etcd.
    pub fn leader(&self) -> usize {
        let text = self.ctl(&["endpoint", "status", "-w", "simple"]);
        // `endpoint, id, version, size, is leader, …`
        let leads = |line: &&str| line.split(", ").nth(4) == Some("true");
        let line = text.lines().find(leads).unwrap();
        1 + self.endpoints.iter().position(|e| line.starts_with(e.as_str())).unwrap()
    }

    /// A file of the script's certificates.
    pub fn pki(&self, name: &str) -> PathBuf {
        self.dir.path().join("pki").join(name)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.child.wait();
    }
}
