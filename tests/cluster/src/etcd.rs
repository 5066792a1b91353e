//! A real etcd for a test, started by `tests/real/etcd.sh`. Where it is not offered the test is skipped, visibly.

use crate::{Place, run, thalweg};
use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// Some members on this host, which end with the test, also when it dies.
pub struct Etcd {
    child: Child,
    dir: PathBuf,
    /// `http://…`, one for each member.
    pub endpoints: Vec<String>,
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../real/etcd.sh")
}

impl Etcd {
    /// So many members; `None`, visibly, where etcd or its plugin is missing.
    pub fn start(place: &Place, members: u32) -> Option<Self> {
        let linked = run(Command::new(thalweg()).args(["plugins"])).out.contains("high-availability \"etcd\"");
        let there = Command::new("etcd").arg("--version").output().is_ok() && linked;
        let required = std::env::var("THALWEG_TEST_REQUIRE").unwrap_or_default();
        if !there {
            assert!(!required.split(',').any(|r| r == "etcd" || r == "all"), "etcd is required and not offered");
            println!("SKIPPED: etcd is not offered");
            return None;
        }
        let dir = place.path().join("etcd");
        let mut command = Command::new(script());
        command.arg("hold").arg(&dir).arg(members.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let endpoints = line.trim().strip_prefix("ready ").unwrap_or_else(|| panic!("etcd: {line}"));
        let endpoints = endpoints.split(',').map(str::to_owned).collect();
        Some(Self { child, dir, endpoints })
    }

    /// `key=value` of a cluster that uses these members.
    pub fn option(&self) -> String {
        let all: Vec<_> = self.endpoints.iter().map(|e| format!("{e:?}")).collect();
        format!("high-availability.etcd.endpoints=[{}]", all.join(","))
    }

    /// Kills, freezes or thaws a member (from 1), or starts it `again`.
    pub fn does(&self, what: &str, member: usize) {
        let status = Command::new(script()).arg(what).arg(&self.dir).arg(member.to_string()).status().unwrap();
        assert!(status.success(), "etcd.sh {what} {member}");
    }

    /// The member that leads etcd, from 1.
    pub fn leader(&self) -> usize {
        let mut command = Command::new(script());
        command.arg("ctl").arg(&self.dir).args(["endpoint", "status", "-w", "json"]);
        let output = command.output().unwrap();
        let all: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).unwrap();
        let leads = |s: &&serde_json::Value| s["Status"]["leader"] == s["Status"]["header"]["member_id"];
        let endpoint = all.iter().find(leads).unwrap()["Endpoint"].as_str().unwrap();
        1 + self.endpoints.iter().position(|e| e == endpoint).unwrap()
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}
