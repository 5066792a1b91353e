//! Three etcd members, two JobManagers, two TaskManagers: whoever leads is killed, stopped or cut off from etcd, members come
//! and go, and no task notices.
//!
//! `THALWEG_KILLS`, `THALWEG_STOPS`, `THALWEG_RESIGNS` (5, 2 and 2 by default) and `THALWEG_CUTS` (1, of each kind) say how
//! often; `THALWEG_QUORUM_LOSS` for how many seconds etcd has no quorum (8).

#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

use std::{
    io::{Read, Write},
    net::TcpStream,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};
use thalweg_cluster_tests::*;
use thalweg_recovery_tests::*;

/// Beyond what a busy machine does to a run without kills; what is promised is measured offline.
const PAUSE: u64 = 1000;

/// A site with a job that is watched. In the order in which they end.
struct World {
    site: Site,
    job: String,
    output: PathBuf,
    epoch: u64,
}

impl World {
    fn start(lease: Duration, job_managers: u32) -> Option<Self> {
        Self::start_as(Plan { members: 3, lease, job_managers, task_managers: 2, slots: 2, etcd_flags: "" })
    }

    fn start_as(plan: Plan) -> Option<Self> {
        let site = Site::start(plan)?;
        let (job, output) = start_unbounded(&site.cluster, &site.place, 4, 2000);
        let mut world = Self { site, job, output, epoch: 0 };
        world.goes_on("the start");
        Some(world)
    }

    /// The job runs under a leader of a higher (or the same) epoch, in its first attempt, and numbers come.
    fn goes_on(&mut self, what: &str) {
        let mut seen = serde_json::Value::Null;
        let job = self.job.clone();
        eventually(&format!("{what}: the job runs"), TAKEOVER, || {
            seen = self.site.cluster.try_get("/api/overview").unwrap_or_default();
            let jobs = seen["jobs"].as_array().map(Vec::as_slice).unwrap_or_default();
            jobs.iter().any(|j| j["id"] == job.as_str() && j["status"] == "RUNNING")
        });
        let attempt =
            seen["jobs"].as_array().unwrap().iter().find(|j| j["id"] == job.as_str()).unwrap()["attempt"].clone();
        assert_eq!(attempt, 0, "{what}: nothing started again");
        let epoch = seen["epoch"].as_u64().unwrap();
        assert!(epoch >= self.epoch, "{what}: epochs grow: {epoch} after {}", self.epoch);
        self.epoch = epoch;
        let before = Numbers::read(&self.output).count;
        eventually("numbers come", Duration::from_secs(5), || Numbers::read(&self.output).count > before);
    }

    /// Tells whoever leads to cancel the job, and does not wait for what it says.
    fn ask_to_cancel(&self) -> TcpStream {
        let secret = std::fs::read_to_string(self.site.cluster.dir().join("secret")).unwrap();
        let mut stream = TcpStream::connect(self.site.cluster.rest()).unwrap();
        let (job, secret) = (&self.job, secret.trim());
        let head = format!("PATCH /jobs/{job}?mode=cancel HTTP/1.1\r\nHost: leader\r\nContent-Length: 0\r\n");
        stream.write_all(format!("{head}Authorization: Bearer {secret}\r\n\r\n").as_bytes()).unwrap();
        stream
    }

    /// Cuts the leader off from etcd, but not from its TaskManagers, and tells it to cancel the job. It cannot write that
    /// down, so that nobody may ever obey. `stopped`: it does not even see its clock before the next one leads.
    ///
    /// Answers when it had ended, and when `next` led.
    fn cut_off(&mut self, mut it: BehindProxies, next: &BehindProxies, way: Way, stopped: bool) -> [Duration; 2] {
        let (pid, epoch, cut) = (it.process.pid(), self.epoch, Instant::now());
        it.ways(way);
        if stopped {
            kill(pid, 19);
        }
        let mut asked = self.ask_to_cancel();
        if stopped {
            self.site.another_leads(pid);
            kill(pid, 18);
        }
        let mut code = None;
        eventually("whoever is cut off ends by its own clock", SHORT, || {
            code = it.process.ended();
            code.is_some()
        });
        let ended = cut.elapsed();
        self.site.another_leads(pid);
        let led = cut.elapsed();
        let (old, new) = (self.site.log(&it.name), self.site.log(&next.name));
        let (lost, granted) = (stamp(&old, "could not be renewed in time"), stamp(&new, "leadership granted"));
        assert_eq!(code, Some(2), "lost office: {old}");
        assert!(stamp(&old, "leadership is lost: ending at once").is_some(), "it says so: {old}");
        assert!(lost.is_some() && granted.is_some(), "it says why: {old}\n{new}");
        assert!(stopped || lost < granted, "it went before etcd gave its office away: {old}\n{new}");
        let mut answer = Vec::new();
        let _ = (asked.set_read_timeout(Some(SHORT)), asked.read_to_end(&mut answer));
        let answer = String::from_utf8_lossy(&answer);
        assert!(!answer.contains(" 202 "), "nothing that is not written down is acknowledged: {answer}");
        self.goes_on("the leader was cut off");
        assert!(self.epoch > epoch, "the next one has an epoch of its own");
        // What it sent to etcd arrives only now.
        it.ways(Way::Open);
        std::thread::sleep(Duration::from_secs(1));
        let kept = run(self.site.cluster.command(&["ha", "inspect", "jobs/"]));
        assert!(kept.code == 0 && kept.out.contains(&self.job), "{kept:?}");
        assert!(!kept.out.contains("/cancel"), "what an old leader writes is refused: {kept:?}");
        self.goes_on("the cut is over");
        [ended, led]
    }

    fn end(mut self, unharmed: &Numbers) {
        let cluster = &self.site.cluster;
        let done = run(cluster.command(&["cancel"]).arg(&self.job));
        assert_eq!(done.code, 0, "{done:?}");
        cluster.wait_for(&self.job, "CANCELED", Duration::from_secs(10));
        let numbers = Numbers::read(&self.output);
        numbers.assert_whole();
        println!(
            "{} numbers; output gaps: p99.9 {} ms, worst {} ms; before the first fault {} and {} ms",
            numbers.count,
            numbers.gap(999),
            numbers.worst(),
            unharmed.gap(999),
            unharmed.worst()
        );
        assert!(numbers.worst() < PAUSE, "the data plane paused for {} ms", numbers.worst());
        eventually("etcd has nothing of the job but its end", Duration::from_secs(10), || {
            run(cluster.command(&["ha", "inspect", "jobs/"])).out.contains("no records")
        });
        assert_eq!(run(cluster.command(&["cluster", "stop"])).code, 0);
        self.site.again.clear();
        let left = processes_with(&self.site.place.path().join("cluster").to_string_lossy());
        assert_eq!(left, Vec::<u32>::new(), "processes are left");
    }
}

/// When a log says this for the first time; times of one machine's logs compare as text.
fn stamp<'a>(log: &'a str, what: &str) -> Option<&'a str> {
    log.lines().find(|line| line.contains(what))?.split_whitespace().next()
}

#[test]
fn no_task_notices_that_the_leader_is_killed_or_stopped_or_resigns() {
    let Some(mut world) = World::start(SHORT, 2) else { return };
    let unharmed = Numbers::read(&world.output);
    let (mut kills, mut stops, mut resigned) = (Vec::new(), Vec::new(), Vec::new());
    for n in 0..times("THALWEG_KILLS", 5) {
        // Leases are renewed each third of theirs: not always just before the end.
        std::thread::sleep(Duration::from_millis(n * 772 % (SHORT.as_millis() as u64 / 3)));
        kills.push(world.site.takeover(1));
        world.goes_on("a kill");
        world.site.replace(&format!("kill-{n}"));
    }
    for n in 0..times("THALWEG_STOPS", 2) {
        let leader = world.site.cluster.job_manager();
        kill(leader, 19);
        stops.push(world.site.another_leads(leader));
        world.goes_on("a stop");
        kill(leader, 18);
        eventually("whoever has lost office ends", Duration::from_secs(5), || !is_alive(leader));
        world.goes_on("the old leader woke");
        world.site.replace(&format!("stop-{n}"));
    }
    for n in 0..times("THALWEG_RESIGNS", 2) {
        let leader = world.site.cluster.job_manager();
        kill(leader, 15);
        resigned.push(world.site.another_leads(leader));
        world.goes_on("a leader resigned");
        eventually("it has ended", Duration::from_secs(5), || !is_alive(leader));
        world.site.replace(&format!("resign-{n}"));
    }
    println!("lease {} s, etcd's three members on one machine", SHORT.as_secs());
    told_in_parts(&kills);
    told("stopped leader to the next one's word", stops);
    told("resigning leader to the next one's word", resigned);
    world.end(&unharmed);
}

#[test]
fn no_task_notices_that_the_leader_is_cut_off_from_etcd_alone() {
    let Some(mut world) = World::start(SHORT, 1) else { return };
    let unharmed = Numbers::read(&world.output);
    // The first one has no ways that can be cut, and makes room for one that has.
    let first = world.site.cluster.job_manager();
    let mut leader = world.site.replace_behind_proxies("cut-0");
    kill(first, 15);
    world.site.another_leads(first);
    world.goes_on("the first leader resigned");
    let (mut ended, mut led) = (Vec::new(), Vec::new());
    let kinds = [(Way::Silent, false), (Way::Refusing, false), (Way::Silent, true)];
    for n in 0..times("THALWEG_CUTS", 1) as usize * kinds.len() {
        let (way, stopped) = kinds[n % kinds.len()];
        let next = world.site.replace_behind_proxies(&format!("cut-{}", n + 1));
        let [down, up] = world.cut_off(leader, &next, way, stopped);
        if !stopped {
            ended.push(down);
            led.push(up);
        }
        leader = next;
    }
    println!("lease {} s, etcd's three members on one machine", SHORT.as_secs());
    told("cut to the end of the leader", ended);
    told("cut to the next one's word", led);
    world.site.again.push(leader.process);
    world.end(&unharmed);
}

#[test]
fn no_task_notices_what_happens_to_etcd() {
    let Some(mut world) = World::start(SHIPPED, 2) else { return };
    let unharmed = Numbers::read(&world.output);
    for (what, back) in [("kill", "again"), ("freeze", "thaw")] {
        let member = world.site.etcd.leader();
        world.site.etcd.does(what, member);
        std::thread::sleep(Duration::from_secs(4));
        world.goes_on(what);
        world.site.etcd.does(back, member);
        std::thread::sleep(Duration::from_secs(2));
    }
    // Without a quorum nobody leads, and nobody is needed.
    let lost = times("THALWEG_QUORUM_LOSS", 8);
    let leader = world.site.cluster.job_manager();
    for member in [1, 2] {
        world.site.etcd.does("freeze", member);
    }
    let before = Numbers::read(&world.output).count;
    eventually("the leader ends by its own clock", Duration::from_secs(15), || !is_alive(leader));
    std::thread::sleep(Duration::from_secs(lost));
    assert!(Numbers::read(&world.output).count > before + lost * 1000, "tasks go on without a leader");
    for member in [1, 2] {
        world.site.etcd.does("thaw", member);
    }
    // The lease that is over begins anew with etcd's own leader.
    eventually("another JobManager leads", TAKEOVER * 2, || {
        world.site.cluster.try_get("/api/overview").is_some() && world.site.cluster.job_manager() != leader
    });
    world.goes_on("the quorum is back");
    world.end(&unharmed);
}

#[test]
fn a_full_etcd_stops_no_task_and_loses_no_request() {
    let etcd_flags = "--quota-backend-bytes 16777216";
    let plan = Plan { members: 1, lease: SHORT, job_managers: 1, task_managers: 2, slots: 3, etcd_flags };
    let Some(mut world) = World::start_as(plan) else { return };
    let unharmed = Numbers::read(&world.output);
    world.site.etcd.fill();
    // Nothing that is acknowledged may be lost, so that nothing is.
    let other = world.site.place.path().join("other");
    let mut submit = world.site.cluster.command(&["run", "-d", "-p", "1"]);
    submit = submit.arg(example("unbounded")).args(["--", "--rate", "10", "--output", other.to_str().unwrap()]);
    let refused = run(submit);
    assert_ne!(refused.code, 0, "{refused:?}");
    assert!(refused.err.contains("etcdctl alarm disarm"), "it says what to do: {refused:?}");
    assert!(refused.took < Duration::from_secs(10), "it says so at once: {refused:?}");
    // Office does not need room.
    std::thread::sleep(SHORT);
    world.goes_on("etcd is full");
    let mut asked = world.ask_to_cancel();
    std::thread::sleep(Duration::from_secs(2));
    world.goes_on("a cancel cannot be written down");
    world.site.etcd.make_room();
    let mut answer = Vec::new();
    let _ = (asked.set_read_timeout(Some(TAKEOVER)), asked.read_to_end(&mut answer));
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.contains(" 202 "), "written down at last: {answer}");
    world.site.cluster.wait_for(&world.job, "CANCELED", TAKEOVER);
    let again = run(submit);
    assert_eq!(again.code, 0, "there is room again: {again:?}");
    world.site.cluster.wait_for(again.out.trim(), "RUNNING", TAKEOVER);
    assert_eq!(run(world.site.cluster.command(&["cancel", again.out.trim()])).code, 0);
    world.end(&unharmed);
}

#[test]
fn a_bounded_job_is_exact_when_leader_and_task_manager_are_lost_together() {
    let place = Place::new();
    let Some(etcd) = Etcd::start(&place, 1) else { return };
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/../../conf/etcd-ha.toml");
    let mut flags: Vec<String> = vec!["-c".into(), shipped.into()];
    let options = [&*etcd.option(), "high-availability.etcd.lease=2s", "cluster.name=both", "rest.port=0"];
    flags.extend(options.iter().map(|o| format!("-D{o}")));
    flags.push("-Djob-manager.rpc-port=0".into());
    let dir = place.path().join("cluster");
    let mut start = Command::new(thalweg());
    start.args(&flags).arg("--dir").arg(&dir).args(["cluster", "start", "--jobmanagers", "2"]);
    let done = run(start.args(["--taskmanagers", "3", "--slots", "2"]));
    assert_eq!(done.code, 0, "{done:?}");
    let cluster = Cluster::at(&dir, &flags);
    let input = place.path().join("words.txt");
    words_file(&input, 120 << 20, 9);
    let expected = counts_by_shell(&input);
    let output = place.path().join("out");
    let args = ["--input", input.to_str().unwrap(), "--output", output.to_str().unwrap()];
    let job = cluster.submit(&["-p", "4"], &example("wordcount"), &args);
    eventually("it reads", Duration::from_secs(20), || cluster.progress(&job).0 > 0);
    let victim = cluster.task_managers().into_iter().find(|tm| !hosts_of(*tm).is_empty()).unwrap();
    kill(victim, 9);
    let leader = kill_leader(&cluster);
    eventually("another JobManager leads", TAKEOVER, || {
        let file = std::fs::read_to_string(cluster.dir().join("cluster.json")).unwrap_or_default();
        !file.is_empty() && !file.contains(&format!("\"pid\": {leader}"))
    });
    cluster.wait_for(&job, "FINISHED", Duration::from_secs(60));
    assert!(attempt(&cluster, &job) >= 1, "what was lost started again");
    assert!(counts_in(&output) == expected, "the answer is not exact");
    assert_eq!(run(cluster.command(&["cluster", "stop"])).code, 0);
}
