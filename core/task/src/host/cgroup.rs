//! A control group for each host, where this process may make one: the kernel keeps the host and what it starts
//! within its share at once. Elsewhere hosts are only watched (`memory.rs`), which goes on beside it.
//!
//! A share that shrinks is left to the watch: the kernel has no patience with who is about to give memory back, and the
//! writer of a lower limit waits for it.
//!
//! Written by hand and not by a library: what there is prepares groups from the root down, which is not ours to do.
//! Facts are the kernel's (`cgroup-v2.rst`, `cgroup-v1/memory.rst`): a group of version 2 whose children have limits
//! holds no process itself, so this one moves into a child, and does so only where it is alone.

use nix::{sys::signal, unistd::Pid};
use std::{
    convert::Infallible,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::sync::watch;

/// Which interface the memory controller has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// Where groups of hosts are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Groups {
    dir: PathBuf,
    version: Version,
    pid: u32,
}

/// This process's own group, once limits are below it.
const OWN: &str = "taskmanager";
/// Groups of hosts begin so.
const PREFIX: &str = "thalweg-host-";

impl Groups {
    /// The group that this process is in, where groups with limits can be made below it. Called once, before hosts are
    /// started.
    pub fn find() -> Option<Self> {
        let read = |path| fs::read_to_string(path).ok();
        let (version, dir) = place(&read("/proc/self/cgroup")?, &read("/proc/self/mountinfo")?)?;
        let groups = Self { dir, version, pid: std::process::id() };
        match groups.prepare() {
            Ok(()) => {
                tracing::info!("hosts get their share of memory by control groups below {}", groups.dir.display());
                Some(groups)
            }
            Err(e) => {
                tracing::debug!("no control groups for hosts below {}: {e}", groups.dir.display());
                None
            }
        }
    }

    fn prepare(&self) -> io::Result<()> {
        let path = |name: &str| self.dir.join(name);
        if self.version == Version::Two && !has_word(&fs::read_to_string(path("cgroup.subtree_control"))?, "memory") {
            if !has_word(&fs::read_to_string(path("cgroup.controllers"))?, "memory") {
                return Err(io::Error::other("the memory controller is not there"));
            }
            let own = self.pid.to_string();
            if fs::read_to_string(path("cgroup.procs"))?.split_whitespace().any(|pid| pid != own) {
                return Err(io::Error::other("other processes are in the group"));
            }
            fs::create_dir_all(path(OWN))?;
            let moved = fs::write(path(OWN).join("cgroup.procs"), &own);
            moved.and_then(|()| fs::write(path("cgroup.subtree_control"), "+memory")).inspect_err(|_| {
                let _ = fs::write(path("cgroup.procs"), &own);
                let _ = fs::remove_dir(path(OWN));
            })?;
        }
        // What TaskManagers that are no more left behind, perhaps one of this number. What is in use cannot be removed.
        for entry in fs::read_dir(&self.dir)?.flatten() {
            let name = entry.file_name();
            let pid = name.to_str().and_then(|n| n.strip_prefix(PREFIX)?.split_once('-')).map(|(pid, _)| pid);
            let is_gone = |pid: &str| pid == self.pid.to_string() || !Path::new("/proc").join(pid).exists();
            if pid.is_some_and(is_gone) {
                let _ = fs::remove_dir(entry.path());
            }
        }
        // One shows whether it can be done.
        self.make("trial", 1 << 30).map(drop)
    }

    /// A group with this limit, in bytes. It goes when it is dropped.
    pub(super) fn make(&self, name: &str, limit: u64) -> io::Result<Group> {
        let dir = self.dir.join(format!("{PREFIX}{}-{name}", self.pid));
        fs::create_dir(&dir)?;
        let group = Group { dir, version: self.version };
        let file = |name: &str| group.dir.join(name);
        match group.version {
            Version::One => {
                fs::write(file("memory.limit_in_bytes"), limit.to_string())?;
                // What is swapped out counts. Not every kernel has this, nor every machine swap.
                let _ = fs::write(file("memory.memsw.limit_in_bytes"), limit.to_string());
            }
            Version::Two => {
                fs::write(file("memory.max"), limit.to_string())?;
                let _ = fs::write(file("memory.swap.max"), "0");
                // What user code started goes with the host, where the kernel can do that.
                let _ = fs::write(file("memory.oom.group"), "1");
            }
        }
        Ok(group)
    }
}

/// One host's group.
pub(super) struct Group {
    dir: PathBuf,
    version: Version,
}

impl Group {
    /// Takes a process in.
    pub(super) fn take(&self, pid: u32) -> io::Result<()> {
        fs::write(self.dir.join("cgroup.procs"), pid.to_string())
    }

    /// It may have so many bytes from now on, more than before.
    fn raise(&self, bytes: u64) -> io::Result<()> {
        match self.version {
            Version::One => {
                let _ = fs::write(self.dir.join("memory.memsw.limit_in_bytes"), bytes.to_string());
                fs::write(self.dir.join("memory.limit_in_bytes"), bytes.to_string())
            }
            Version::Two => fs::write(self.dir.join("memory.max"), bytes.to_string()),
        }
    }

    /// Raises the limit when more is told. It goes on until it is dropped.
    pub(super) async fn follow(&self, mut limit: u64, limits: &mut watch::Receiver<u64>) -> Infallible {
        while limits.changed().await.is_ok() {
            let told = *limits.borrow_and_update();
            if told > limit {
                match self.raise(told) {
                    Ok(()) => limit = told,
                    Err(e) => tracing::warn!("{}: a limit of {told} bytes was refused: {e}", self.dir.display()),
                }
            }
        }
        std::future::pending().await
    }

    /// The most that it had, in bytes, when the kernel has ended something of it since it wanted more: the host, or
    /// before only what the host had started.
    pub(super) fn overrun(&self) -> Option<u64> {
        let (events, peak) = match self.version {
            Version::One => ("memory.oom_control", "memory.max_usage_in_bytes"),
            Version::Two => ("memory.events", "memory.peak"),
        };
        let read = |name: &str| fs::read_to_string(self.dir.join(name)).unwrap_or_default();
        let kills = read(events).lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse::<u64>().ok());
        kills.filter(|kills| *kills > 0).map(|_| read(peak).trim().parse().unwrap_or(0))
    }
}

/// Ends what is left in it and removes it, which may take a moment: not for a thread of the runtime.
impl Drop for Group {
    fn drop(&mut self) {
        // What is in it yet was started by user code and left the host's process group; or it ends at this moment.
        for _ in 0..50 {
            match fs::remove_dir(&self.dir) {
                Err(e) if e.raw_os_error() == Some(libc::EBUSY) => {}
                _ => return,
            }
            let left = fs::read_to_string(self.dir.join("cgroup.procs")).unwrap_or_default();
            for pid in left.split_whitespace().filter_map(|pid| pid.parse().ok()) {
                let _ = signal::kill(Pid::from_raw(pid), signal::Signal::SIGKILL);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        tracing::warn!("the control group {} could not be removed: what is in it does not end", self.dir.display());
    }
}

fn has_word(text: &str, word: &str) -> bool {
    text.split_whitespace().any(|w| w == word)
}

/// The folder of this process's group that has the memory controller, out of `/proc/self/cgroup` and
/// `/proc/self/mountinfo`.
fn place(groups: &str, mounts: &str) -> Option<(Version, PathBuf)> {
    let of = |line: &str| {
        let mut parts = line.splitn(3, ':').map(str::to_owned);
        Some((parts.next()?, parts.next()?, parts.next()?))
    };
    let mine: Vec<_> = groups.lines().filter_map(of).collect();
    let one = mine.iter().find(|(_, controllers, _)| controllers.split(',').any(|c| c == "memory"));
    let (version, path) = match one {
        Some((_, _, path)) => (Version::One, path),
        None => {
            (Version::Two, &mine.iter().find(|(number, controllers, _)| number == "0" && controllers.is_empty())?.2)
        }
    };
    mounts.lines().find_map(|line| {
        let (mount, system) = line.split_once(" - ")?;
        let (mount, system): (Vec<_>, Vec<_>) = (mount.split(' ').collect(), system.split(' ').collect());
        let wanted = match version {
            Version::One => *system.first()? == "cgroup" && system.get(2)?.split(',').any(|o| o == "memory"),
            Version::Two => *system.first()? == "cgroup2",
        };
        let (root, at) = (Path::new(mount.get(3)?), Path::new(mount.get(4)?));
        // What is mounted may be a part of the whole, as in a container.
        let below = Path::new(path).strip_prefix(root).ok()?;
        wanted.then(|| (version, at.join(below)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_group_is_found_on_systems_of_each_kind() {
        let two = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
        let service = "0::/system.slice/thalweg.service\n";
        let at = |s: &str| PathBuf::from(s);
        assert_eq!(place(service, two), Some((Version::Two, at("/sys/fs/cgroup/system.slice/thalweg.service"))));
        assert_eq!(place("0::/\n", two), Some((Version::Two, at("/sys/fs/cgroup/"))), "a container");
        let hybrid = "3:cpu,cpuacct:/a\n4:memory:/user.slice\n0::/user.slice/x\n";
        let mounts = "33 31 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
                      35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
        assert_eq!(place(hybrid, mounts), Some((Version::One, at("/sys/fs/cgroup/memory/user.slice"))));
        let part = "35 31 0:32 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n";
        assert_eq!(place("4:memory:/docker/abc\n", part), Some((Version::One, at("/sys/fs/cgroup/memory/"))));
        assert_eq!(place("4:memory:/elsewhere\n", part), None, "it is not to be seen from here");
        assert_eq!((place("", two), place(service, ""), place("junk", "junk - ")), (None, None, None));
    }

    /// A folder with the files of a group of version 2, which do nothing by themselves.
    fn two(procs: &str) -> (tempfile::TempDir, Groups) {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in
            [("cgroup.controllers", "cpu memory pids"), ("cgroup.subtree_control", ""), ("cgroup.procs", procs)]
        {
            fs::write(dir.path().join(name), text).unwrap();
        }
        let groups = Groups { dir: dir.path().to_owned(), version: Version::Two, pid: 7 };
        (dir, groups)
    }

    #[test]
    fn a_process_that_is_alone_in_its_group_moves_below_and_one_that_is_not_leaves_all_as_it_was() {
        let (dir, groups) = two("7\n");
        // Real groups make their files by themselves; here the trial leaves its own behind.
        groups.prepare().unwrap();
        let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
        assert_eq!(
            (read("taskmanager/cgroup.procs").as_str(), read("cgroup.subtree_control").as_str()),
            ("7", "+memory")
        );
        let (dir, groups) = two("7\n12\n");
        assert!(groups.prepare().unwrap_err().to_string().contains("other processes"));
        assert!(!dir.path().join(OWN).exists());
        let (dir, groups) = two("7\n");
        fs::write(dir.path().join("cgroup.controllers"), "cpu").unwrap();
        assert!(groups.prepare().unwrap_err().to_string().contains("memory controller"));
    }

    #[test]
    fn what_the_kernel_says_of_an_overrun_is_understood() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        let group = |version| Group { dir: dir.path().to_owned(), version };
        write("memory.events", "low 0\nhigh 0\nmax 12\noom 1\noom_kill 0\n");
        write("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n");
        write("memory.peak", "4096\n");
        write("memory.max_usage_in_bytes", "8192\n");
        assert_eq!((group(Version::Two).overrun(), group(Version::One).overrun()), (None, Some(8192)));
        write("memory.events", "oom 1\noom_kill 1\noom_group_kill 1\n");
        assert_eq!(group(Version::Two).overrun(), Some(4096));
    }

    /// With the kernel's own groups, where this machine lets us make some.
    #[test]
    fn the_kernel_ends_what_takes_more_than_its_group_may() {
        let Some(groups) = thalweg_testkit::or_skip("cgroup", Groups::find()) else { return };
        let group = groups.make("test", 32 << 20).unwrap();
        let script = "read go; x=$(head -c 100000000 /dev/zero | tr '\\0' x); echo ${#x}";
        let mut child = std::process::Command::new("bash")
            .args(["-c", script])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        group.take(child.id()).unwrap();
        assert_eq!(group.overrun(), None);
        drop(child.stdin.take());
        let out = child.wait_with_output().unwrap();
        let peak = group.overrun().unwrap_or_else(|| panic!("{out:?}"));
        assert!((16 << 20..=32 << 20).contains(&peak), "{peak}");
        let dir = group.dir.clone();
        assert!(dir.exists());
        drop(group);
        assert!(!dir.exists());
    }
}
