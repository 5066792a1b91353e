//! Starts hosts as processes: the job's executable, in its task-host role.
//!
//! A host dies with its TaskManager: one thread that lives as long as the process forks all of them, each asks the kernel
//! to be killed when that thread's process ends, checks that its parent still lives, and has its own process group, so
//! that what user code started goes with it. It also ends by itself when its socket closes.

use super::{
    HostEvent, HostEvents, HostHandle, HostLauncher, HostRequest,
    cgroup::{Group, Groups},
    memory, supervisor,
};
use crate::{blob_cache::BlobCache, file_cache::FileCache, host::supervisor::Supervision, logs::Logs};
use bytes::Bytes;
use sha2::{Digest, Sha256};
use std::{
    convert::Infallible,
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::process::{CommandExt, ExitStatusExt},
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, mpsc as std_mpsc},
    time::Duration,
};
use thalweg_env::{BoxStream, Env, Shutdown};
use thalweg_model::{BlobKey, FailureKind, JobId, TaskFailure, TaskManagerId};
use thalweg_spi::Secret;
use thalweg_wire::{
    ToHost, encode,
    role::{ROLE_VARIABLE, Role},
};
use tokio::sync::{mpsc, oneshot, watch};

/// What every host of a TaskManager is started with.
#[derive(Clone)]
pub struct ProcessHosts {
    /// Seams.
    pub env: Env,
    /// Executables.
    pub cache: Arc<BlobCache>,
    /// Cached files of jobs.
    pub files: FileCache,
    /// Where hosts write.
    pub logs: Arc<Logs>,
    /// This TaskManager.
    pub id: TaskManagerId,
    /// Folder for working directories and pid files.
    pub dir: PathBuf,
    /// The cluster's secret; hosts get one derived for their job.
    pub secret: Secret,
    /// Where hosts listen for data.
    pub data_bind: String,
    /// `[shuffle]` section, TOML.
    pub shuffle: String,
    /// `main` must reach its execute within this.
    pub start_timeout: Duration,
    /// Forks.
    pub forker: Forker,
    /// Where the kernel limits hosts' memory, if it can.
    pub groups: Option<Groups>,
}

/// The descriptor at which a host finds its socket.
const ROLE_FD: i32 = 3;

/// A host whose socket closed has this long to end before it is killed.
const ENDING: Duration = Duration::from_millis(50);

type Fork = (Command, oneshot::Sender<io::Result<Child>>);

/// The thread that forks.
#[derive(Clone)]
pub struct Forker(std_mpsc::Sender<Fork>);

impl Forker {
    /// Starts the thread. It lives until the process ends, which is what its children wait for.
    pub fn start(env: &Env) -> io::Result<Self> {
        let (send, forks) = std_mpsc::channel::<Fork>();
        let run = move || {
            for (mut command, reply) in forks {
                let _ = reply.send(command.spawn());
            }
        };
        env.spawner.thread("forker".into(), Box::new(run))?;
        Ok(Self(send))
    }

    async fn fork(&self, command: Command) -> io::Result<Child> {
        let (send, receive) = oneshot::channel();
        let gone = || io::Error::other("the forking thread is gone");
        self.0.send((command, send)).map_err(|_| gone())?;
        receive.await.map_err(|_| gone())?
    }
}

impl HostLauncher for ProcessHosts {
    fn launch(&self, request: HostRequest, events: HostEvents) -> HostHandle {
        let (messages, queue) = mpsc::unbounded_channel();
        let kill = Shutdown::new();
        let (hosts, killed) = (self.clone(), kill.clone());
        let (memory, limits) = watch::channel(0);
        self.env.spawner.spawn("task-host", async move {
            let failure = hosts.run(request, queue, limits, &killed, &events).await;
            events(HostEvent::Gone(failure));
        });
        HostHandle { messages, kill, memory }
    }
}

impl ProcessHosts {
    async fn run(
        &self,
        request: HostRequest,
        queue: mpsc::UnboundedReceiver<ToHost>,
        mut limits: watch::Receiver<u64>,
        kill: &Shutdown,
        events: &HostEvents,
    ) -> TaskFailure {
        let began = self.env.clock.now();
        let (job, key) = (request.job, request.spec.executable);
        let fetched = tokio::select! {
            fetched = self.cache.get(job, key, request.leader.as_ref()) => fetched,
            () = kill.triggered() => return TaskFailure::new(FailureKind::Lost, "ended while the executable was fetched"),
        };
        let executable = match fetched {
            Ok(path) => path,
            Err(e) => return TaskFailure::new(FailureKind::Lost, format!("the executable could not be fetched: {e}")),
        };
        let scratch = self.dir.join("hosts").join(format!("{job}-{}", request.host));
        let leader = request.leader.as_ref();
        let provided = tokio::select! {
            provided = self.files.provide(job, &request.spec.files, &scratch, leader) => provided,
            () = kill.triggered() => Err("ended while cached files were fetched".into()),
        };
        let files = match provided {
            Ok(files) => files,
            Err(e) => {
                self.cache.release(job, key);
                let _ = tokio::fs::remove_dir_all(&scratch).await;
                return TaskFailure::new(FailureKind::Lost, e);
            }
        };
        let started = self.start(&request, &executable, &scratch).await;
        let (mut child, stream) = match started {
            Ok(started) => started,
            Err(e) => {
                self.cache.release(job, key);
                let kind = match e.raw_os_error() {
                    Some(libc::ENOEXEC | libc::EACCES | libc::ENOENT) => FailureKind::Incompatible,
                    _ => FailureKind::Lost,
                };
                return TaskFailure::new(kind, format!("the executable could not be started: {e}"));
            }
        };
        let pid = child.id();
        let limit = *limits.borrow_and_update();
        let group = self.group(&request, pid, limit);
        let ms = self.env.clock.now().since(began).as_secs_f64() * 1e3;
        tracing::info!(%job, host = request.host, pid, "task host started in {ms:.1} ms");
        let supervision =
            Supervision { start: self.start_message(&request, &scratch), start_timeout: self.start_timeout };
        let talk = supervisor::supervise(&self.env, stream, supervision, queue, kill, events);
        let mut failure = tokio::select! {
            failure = talk => failure,
            never = memory::watch(&self.env, pid, events) => match never {},
            never = follow(group.as_ref(), limit, &mut limits) => match never {},
        };
        // Its socket is closed, so it is ending. How it ended says more than the socket, so it has a moment for that.
        let by_itself = !kill.is_triggered() && self.ends_by_itself(&mut child).await;
        kill_group(pid);
        let ended = tokio::task::spawn_blocking(move || child.wait()).await;
        if let Ok(Ok(status)) = ended
            && !kill.is_triggered()
        {
            explain(&mut failure, status, by_itself);
            if status.signal() == Some(libc::SIGKILL)
                && by_itself
                && let Some(peak) = group.as_ref().and_then(Group::overrun)
            {
                // It had less by what it wanted last, or its share is less by now.
                events(HostEvent::Memory(peak.max(*limits.borrow() + 1)));
            }
        }
        let _ = tokio::task::spawn_blocking(move || drop(group)).await;
        self.cache.release(job, key);
        drop(files);
        let _ = tokio::fs::remove_dir_all(&scratch).await;
        failure
    }

    /// A group for a host that does nothing yet.
    fn group(&self, request: &HostRequest, pid: u32, limit: u64) -> Option<Group> {
        let groups = self.groups.as_ref().filter(|_| limit > 0)?;
        let made = groups.make(&format!("{}-{}", request.job, request.host), limit);
        match made.and_then(|group| group.take(pid).map(|()| group)) {
            Ok(group) => Some(group),
            Err(e) => {
                let (job, host) = (request.job, request.host);
                tracing::warn!(%job, host, "the host has no control group, its memory is only watched: {e}");
                None
            }
        }
    }

    async fn ends_by_itself(&self, child: &mut Child) -> bool {
        let began = self.env.clock.now();
        while self.env.clock.now().since(began) < ENDING {
            match child.try_wait() {
                Ok(None) => self.env.clock.sleep(Duration::from_millis(1)).await,
                Ok(Some(_)) => return true,
                Err(_) => return false,
            }
        }
        false
    }

    async fn start(&self, request: &HostRequest, executable: &Path, scratch: &Path) -> io::Result<(Child, BoxStream)> {
        tokio::fs::create_dir_all(scratch).await?;
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        let log = |ending: &str| -> io::Result<Stdio> {
            let Some(path) = self.logs.job_file(request.job, ending) else { return Ok(Stdio::null()) };
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder)?;
            }
            Ok(std::fs::OpenOptions::new().create(true).append(true).open(path)?.into())
        };
        let parent = std::process::id();
        let mut command = Command::new(executable);
        command
            .args(&request.spec.args)
            .env_clear()
            .envs(["PATH", "HOME", "LANG", "TZ"].into_iter().filter_map(|n| Some((n, std::env::var_os(n)?))))
            .env("RUST_BACKTRACE", "1")
            .envs(&request.spec.env)
            .env(ROLE_VARIABLE, format!("{ROLE_FD}:{parent}"))
            .current_dir(scratch)
            .stdin(Stdio::null())
            .stdout(log("log")?)
            .stderr(log("err")?)
            .process_group(0);
        die_with_parent(&mut command, parent, theirs.into());
        let child = self.forker.fork(command).await?;
        let pid_file = serde_pid(child.id());
        let _ = tokio::fs::write(scratch.with_extension("pid"), pid_file).await;
        ours.set_nonblocking(true)?;
        let mut stream = BoxStream::Unix(tokio::net::UnixStream::from_std(ours)?);
        let role = encode(&Role::Host);
        let mut frame = (role.len() as u32).to_be_bytes().to_vec();
        frame.extend(role);
        tokio::io::AsyncWriteExt::write_all(&mut stream, &frame).await?;
        Ok((child, stream))
    }

    fn start_message(&self, request: &HostRequest, scratch: &Path) -> Box<dyn FnOnce(u32) -> ToHost + Send> {
        let (job, spec) = (request.job, request.spec.clone());
        let (id, data_bind, shuffle) = (self.id.clone(), self.data_bind.clone(), self.shuffle.clone());
        let scratch = scratch.to_string_lossy().into_owned();
        let data_secret = job_secret(&self.secret, job);
        let output = self.logs.job_file(job, "out").map(|path| path.to_string_lossy().into_owned());
        Box::new(move |protocol| ToHost::Start {
            job,
            spec,
            task_manager: id,
            data_bind,
            shuffle,
            scratch,
            output,
            data_secret,
            protocol,
        })
    }
}

/// A secret that only the hosts of one job can show each other.
pub fn job_secret(cluster: &Secret, job: JobId) -> Bytes {
    let mut hash = Sha256::new();
    hash.update(b"thalweg data connections of job ");
    hash.update(job.as_bytes());
    hash.update(cluster.expose());
    Bytes::copy_from_slice(&hash.finalize())
}

fn serde_pid(pid: u32) -> String {
    format!("{pid} {}\n", start_time(pid).unwrap_or(0))
}

/// When a process started, in clock ticks since boot: with the pid it names one process for ever.
pub fn start_time(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything; the fields behind it are counted from its end.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

/// Ends what the pid files of an earlier life of this TaskManager still name.
pub fn reap_leftovers(dir: &Path) {
    let Ok(entries) = std::fs::read_dir(dir.join("hosts")) else { return };
    for entry in entries.flatten().filter(|e| e.path().extension().is_some_and(|x| x == "pid")) {
        let named = std::fs::read_to_string(entry.path()).ok();
        let named = named.as_deref().and_then(|t| t.trim().split_once(' '));
        if let Some((pid, started)) = named.and_then(|(p, s)| Some((p.parse().ok()?, s.parse::<u64>().ok()?)))
            && start_time(pid) == Some(started)
        {
            tracing::warn!(pid, "ending a task host of an earlier life of this TaskManager");
            kill_group(pid);
        }
        let _ = std::fs::remove_file(entry.path());
    }
}

async fn follow(group: Option<&Group>, limit: u64, limits: &mut watch::Receiver<u64>) -> Infallible {
    match group {
        Some(group) => group.follow(limit, limits).await,
        None => std::future::pending().await,
    }
}

fn kill_group(pid: u32) {
    use nix::{sys::signal, unistd::Pid};
    let pid = Pid::from_raw(pid as i32);
    // Either may be gone already, which is what is wanted.
    let _ = signal::killpg(pid, signal::Signal::SIGKILL);
    let _ = signal::kill(pid, signal::Signal::SIGKILL);
}

/// The child gets `socket` at [`ROLE_FD`] and dies with this process.
#[allow(unsafe_code)]
fn die_with_parent(command: &mut Command, parent: u32, socket: OwnedFd) {
    let in_child = move || {
        // SAFETY: only calls that are allowed between fork and exec.
        unsafe {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                return Err(io::Error::last_os_error());
            }
            // The parent may have ended before the line above.
            if libc::getppid() as u32 != parent {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            let fd = socket.as_raw_fd();
            if fd == ROLE_FD {
                libc::fcntl(fd, libc::F_SETFD, 0);
            } else if libc::dup2(fd, ROLE_FD) < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: `in_child` allocates nothing and takes no lock.
    unsafe {
        command.pre_exec(in_child);
    }
}

/// Adds how the process ended, where that says more than its socket. Unless it ended by itself, a SIGKILL was ours.
fn explain(failure: &mut TaskFailure, status: ExitStatus, by_itself: bool) {
    match (status.signal(), status.code()) {
        // Whoever kills a host while it starts (the kernel for want of memory, an operator) says nothing about the job.
        (Some(signal), _) if by_itself && !is_crash(signal) && failure.kind != FailureKind::Lost => {
            *failure = TaskFailure::new(
                FailureKind::Lost,
                format!("the job's host was ended by signal {signal} while it started"),
            );
        }
        (Some(libc::SIGKILL), _) if failure.kind == FailureKind::Lost => {
            failure.message.push_str("; it was killed (SIGKILL), as the kernel does when memory runs out");
        }
        // Our own, after it was refused.
        (Some(libc::SIGKILL), _) => {}
        (Some(signal), _) => {
            failure.message.push_str(&format!("; signal {signal} ended it"));
            if is_crash(signal) {
                failure.kind = FailureKind::UserPanic;
            }
        }
        (None, Some(code)) => failure.message.push_str(&format!("; it ended with exit code {code}")),
        (None, None) => {}
    }
}

/// Do processes end themselves by this signal when they go wrong?
fn is_crash(signal: i32) -> bool {
    matches!(signal, libc::SIGSEGV | libc::SIGABRT | libc::SIGBUS | libc::SIGILL)
}

/// The key of an embedded job's executable: there is none.
pub const NO_EXECUTABLE: BlobKey = BlobKey::from_bytes([0; 32]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_named_by_pid_and_start_time() {
        let mine = start_time(std::process::id()).unwrap();
        assert!(mine > 0);
        assert_eq!(start_time(std::process::id()), Some(mine));
        assert_eq!(start_time(u32::MAX - 1), None);
    }

    #[test]
    fn a_host_killed_while_it_starts_is_a_loss_and_one_that_ends_is_not() {
        let refused = || TaskFailure::new(FailureKind::Incompatible, "it ended before execute");
        let kind = |status: i32, by_itself| {
            let mut failure = refused();
            explain(&mut failure, ExitStatus::from_raw(status), by_itself);
            failure.kind
        };
        assert_eq!(kind(libc::SIGKILL, true), FailureKind::Lost);
        assert_eq!(kind(libc::SIGTERM, true), FailureKind::Lost);
        assert_eq!(kind(libc::SIGKILL, false), FailureKind::Incompatible, "ours");
        assert_eq!(kind(libc::SIGSEGV, true), FailureKind::UserPanic);
        assert_eq!(kind(0, true), FailureKind::Incompatible);
    }

    #[test]
    fn job_secrets_differ_by_job_and_cluster() {
        let (a, b) = (JobId::from_bytes([1; 16]), JobId::from_bytes([2; 16]));
        let (x, y) = (Secret::new("x"), Secret::new("y"));
        assert_eq!(job_secret(&x, a), job_secret(&x, a));
        assert_ne!(job_secret(&x, a), job_secret(&x, b));
        assert_ne!(job_secret(&x, a), job_secret(&y, a));
    }

    #[test]
    fn leftovers_are_ended_and_strangers_with_a_recycled_pid_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let hosts = dir.path().join("hosts");
        std::fs::create_dir_all(&hosts).unwrap();
        let spawn = || Command::new("sleep").arg("60").process_group(0).spawn().unwrap();
        let (mut ours, mut stranger) = (spawn(), spawn());
        std::fs::write(hosts.join("a.pid"), serde_pid(ours.id())).unwrap();
        std::fs::write(hosts.join("b.pid"), format!("{} 1\n", stranger.id())).unwrap();
        reap_leftovers(dir.path());
        assert_eq!(ours.wait().unwrap().signal(), Some(libc::SIGKILL));
        assert_eq!(stranger.try_wait().unwrap(), None);
        stranger.kill().unwrap();
        stranger.wait().unwrap();
        assert_eq!(std::fs::read_dir(&hosts).unwrap().count(), 0);
    }
}
