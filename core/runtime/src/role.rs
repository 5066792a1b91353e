//! Finds out what this executable is: see [`thalweg_wire::role`].
//!
//! The socket is read with blocking calls, since this happens before there is a runtime.

use std::{
    io::{self, Read, Write},
    os::{
        fd::{AsRawFd, FromRawFd, RawFd},
        unix::net::UnixStream,
    },
};
use thalweg_task::host::side::{Start, hello};
use thalweg_wire::{
    FromHost, ToHost, decode, encode,
    host::MAX_HOST_FRAME,
    role::{ClientRole, FromClient, MAX_ROLE_FRAME, ROLE_VARIABLE, Role},
};

/// What this executable is.
pub enum Found {
    /// Started by hand.
    Embedded,
    /// It submits.
    Client(Box<ClientRole>, Parent),
    /// It tells its graph.
    Plan {
        /// Parallelism of what the program leaves open.
        parallelism: u32,
        /// Whom it tells.
        parent: Parent,
    },
    /// It serves tasks.
    Host(Box<Start>, UnixStream),
}

/// Who started this client. It may not listen; nothing depends on it.
pub struct Parent(pub(crate) parking_lot::Mutex<UnixStream>);

impl Parent {
    /// Tells.
    pub fn tell(&self, message: &FromClient) {
        let _ = write_frame(&mut self.0.lock(), &encode(message));
    }
}

/// Looks for the socket. A variable that names none (a grandchild's) means embedded; one that does but cannot be
/// understood is an error, since running embedded then would surprise everybody.
pub fn find() -> Result<Found, String> {
    let Some(socket) = inherited() else { return Ok(Found::Embedded) };
    let mut socket = socket;
    let broken = |e: io::Error| format!("the process that started this job does not speak to it: {e}");
    let frame = read_frame(&mut socket, MAX_ROLE_FRAME).map_err(broken)?;
    match decode::<Role>(&frame, MAX_ROLE_FRAME).map_err(|e| e.to_string())? {
        Role::Client(client) => Ok(Found::Client(client, Parent(parking_lot::Mutex::new(socket)))),
        Role::Plan { parallelism } => {
            Ok(Found::Plan { parallelism, parent: Parent(parking_lot::Mutex::new(socket)) })
        }
        Role::Host => {
            write_frame(&mut socket, &encode(&hello())).map_err(broken)?;
            let frame = read_frame(&mut socket, MAX_HOST_FRAME).map_err(broken)?;
            let message = decode::<ToHost>(&frame, MAX_HOST_FRAME).map_err(|e| e.to_string())?;
            let start = Start::of(message).ok_or("the TaskManager's first message is not a start")?;
            Ok(Found::Host(Box::new(start), socket))
        }
        Role::Unknown => Err("this cluster is newer than the job and wants something that the job cannot do: build it with a newer thalweg crate".into()),
    }
}

/// A host that cannot go on says why before it ends.
pub fn refuse(socket: &mut UnixStream, failure: thalweg_model::TaskFailure) {
    let _ = write_frame(socket, &encode(&FromHost::Refused { failure }));
}

/// The inherited socket, if there is one that the named process made. From now on it is not inherited any further.
#[allow(unsafe_code)]
fn inherited() -> Option<UnixStream> {
    let named = std::env::var(ROLE_VARIABLE).ok()?;
    let (fd, pid) = named.split_once(':')?;
    let (fd, pid): (RawFd, i32) = (fd.parse().ok()?, pid.parse().ok()?);
    // SAFETY: plain system calls on a number; the buffers are as long as is said.
    unsafe {
        let mut peer = libc::ucred { pid: 0, uid: 0, gid: 0 };
        let mut length = size_of::<libc::ucred>() as libc::socklen_t;
        let asked = libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_PEERCRED, (&raw mut peer).cast(), &raw mut length);
        if asked != 0 || peer.pid != pid || libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) != 0 {
            return None;
        }
        // SAFETY: it is a socket, inherited for this, and nobody else in this process knows its number. A second call
        // would take it twice: `Environment::new` makes sure that there is one.
        Some(UnixStream::from_raw_fd(fd))
    }
}

fn read_frame(socket: &mut UnixStream, limit: usize) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    socket.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length) as usize;
    if length > limit {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a frame over the limit"));
    }
    let mut frame = vec![0; length];
    socket.read_exact(&mut frame)?;
    Ok(frame)
}

fn write_frame(socket: &mut UnixStream, frame: &[u8]) -> io::Result<()> {
    socket.write_all(&(frame.len() as u32).to_be_bytes())?;
    socket.write_all(frame)
}

/// For whoever starts a job's executable: the parent's and the child's end of a role socket.
pub fn pair() -> io::Result<(UnixStream, UnixStream)> {
    UnixStream::pair()
}

/// Sends the role down a socket of [`pair`].
pub fn assign(socket: &mut UnixStream, role: &Role) -> io::Result<()> {
    write_frame(socket, &encode(role))
}

/// The next message of a client; `None` when it has ended.
pub fn next_message(socket: &mut UnixStream) -> io::Result<Option<FromClient>> {
    match read_frame(socket, MAX_ROLE_FRAME) {
        Ok(frame) => Ok(Some(decode(&frame, MAX_ROLE_FRAME).map_err(io::Error::other)?)),
        Err(e) if matches!(e.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Makes `command` inherit the socket and know of it, and end with this thread: a client whose starter is gone is gone.
#[allow(unsafe_code)]
pub fn hand_over(command: &mut std::process::Command, socket: UnixStream) {
    use std::os::unix::process::CommandExt;
    const FD: RawFd = 3;
    command.env(ROLE_VARIABLE, format!("{FD}:{}", std::process::id()));
    let in_child = move || {
        let fd = socket.as_raw_fd();
        // SAFETY: allowed between fork and exec; allocates nothing.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        let outcome = unsafe { if fd == FD { libc::fcntl(fd, libc::F_SETFD, 0) } else { libc::dup2(fd, FD) } };
        if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    };
    // SAFETY: see above.
    unsafe {
        command.pre_exec(in_child);
    }
}
