//! A real etcd for a test, started by `tests/real/etcd.sh`. Where it is not offered the test is skipped, visibly.

use crate::{Place, http, run, thalweg};
use serde_json::Value;
use std::{
    collections::BTreeMap,
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
        Self::start_with(place, members, "")
    }

    /// The same, each with these flags too.
    pub fn start_with(place: &Place, members: u32, flags: &str) -> Option<Self> {
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
        command
            .arg("hold")
            .arg(&dir)
            .arg(members.to_string())
            .env("ETCD_FLAGS", flags)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
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

    /// What `etcdctl` answers, as JSON.
    fn ctl(&self, args: &[&str]) -> Value {
        let mut command = Command::new(script());
        let output = command.arg("ctl").arg(&self.dir).args(args).args(["-w", "json"]).output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("etcdctl {args:?}: {e}: {output:?}"))
    }

    /// The lease that a key is bound to.
    pub fn lease_of(&self, key: &str) -> i64 {
        self.ctl(&["get", key])["kvs"][0]["lease"].as_i64().unwrap_or_else(|| panic!("{key} has no lease"))
    }

    /// Whole seconds that are left of a lease; `None` when it is no more. Quick: it can be asked often.
    pub fn left_of(&self, lease: i64) -> Option<i64> {
        let at = self.endpoints[0].trim_start_matches("http://");
        let question = format!("{{\"ID\": \"{lease}\"}}");
        let (_, answer) = http(at, "POST", "/v3/lease/timetolive", &[], question.as_bytes());
        let answer: Value = serde_json::from_str(&answer).unwrap_or_default();
        // Nothing is as good as zero in etcd's JSON.
        answer.get("grantedTTL")?;
        Some(answer["TTL"].as_str().and_then(|ttl| ttl.parse().ok()).unwrap_or(0))
    }

    /// Writes records of somebody else until there is no room: `NOSPACE`.
    pub fn fill(&self) {
        let value = self.dir.join("value");
        std::fs::write(&value, vec![b'x'; 1_000_000]).unwrap();
        for n in 0..200 {
            let mut command = Command::new(script());
            command.arg("ctl").arg(&self.dir).args(["put", &format!("/fill/{n}")]);
            let output = command.stdin(std::fs::File::open(&value).unwrap()).output().unwrap();
            if !output.status.success() {
                let said = String::from_utf8_lossy(&output.stderr);
                assert!(said.contains("database space exceeded"), "{said}");
                return;
            }
        }
        panic!("200 MB did not fill etcd");
    }

    /// Takes what [`fill`](Self::fill) wrote away again, as an operator would: removed, compacted, defragmented, disarmed.
    pub fn make_room(&self) {
        let removed = self.ctl(&["del", "--prefix", "/fill/"]);
        let revision = removed["header"]["revision"].as_u64().unwrap();
        for step in [&["compact", "--physical", &revision.to_string()][..], &["defrag"], &["alarm", "disarm"]] {
            let output = Command::new(script()).arg("ctl").arg(&self.dir).args(step).output().unwrap();
            assert!(output.status.success(), "etcdctl {step:?}: {output:?}");
        }
    }

    /// How many requests the members have taken since they started, by method. Each message of a stream counts.
    pub fn requests(&self) -> BTreeMap<String, u64> {
        let mut requests = BTreeMap::new();
        for endpoint in &self.endpoints {
            let (_, text) = http(endpoint.trim_start_matches("http://"), "GET", "/metrics", &[], b"");
            for line in text.lines().filter(|l| l.starts_with("grpc_server_msg_received_total{")) {
                let method = line.split("grpc_method=\"").nth(1).and_then(|rest| rest.split('"').next());
                let count = line.rsplit(' ').next().and_then(|n| n.parse::<f64>().ok());
                if let (Some(method), Some(count)) = (method, count) {
                    *requests.entry(method.to_owned()).or_default() += count as u64;
                }
            }
        }
        requests
    }

    /// The member that leads etcd, from 1.
    pub fn leader(&self) -> usize {
        let all = self.ctl(&["endpoint", "status"]);
        let all = all.as_array().unwrap();
        let leads = |s: &&Value| s["Status"]["leader"] == s["Status"]["header"]["member_id"];
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
