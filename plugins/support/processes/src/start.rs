//! Starts a process of ours: in a group of its own, so that a Ctrl-C of its starter does not reach it, without input,
//! and with its output in a file.

use crate::{Identity, private};
use std::{
    ffi::OsString,
    fs::{File, OpenOptions},
    io::{Read, Seek, SeekFrom},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::Stdio,
};
use thalweg_spi::{ErrorKind, Result, ServiceError};
use tokio::process::{Child, Command};

/// What to start.
#[derive(Debug, Clone)]
pub struct Start {
    /// The executable.
    pub program: PathBuf,
    /// Its arguments. No secret in them: everybody on the host can read them.
    pub arguments: Vec<OsString>,
    /// Its working directory.
    pub dir: PathBuf,
    /// File that its output and errors are added to.
    pub output: PathBuf,
}

/// A started process.
#[derive(Debug)]
pub struct Started {
    /// To wait for it. Dropping it does not end the process.
    pub child: Child,
    /// Which one it is.
    pub identity: Identity,
    /// File of its output.
    pub output: PathBuf,
}

impl Start {
    /// Starts it. Needs a tokio runtime.
    pub fn start(self) -> Result<Started> {
        let error = |e: std::io::Error| {
            ServiceError::io("start process", e).with("program", self.program.display()).with("dir", self.dir.display())
        };
        if let Some(folder) = self.output.parent() {
            private::create_dir(folder).map_err(error)?;
        }
        let output = open_output(&self.output).map_err(error)?;
        let errors = output.try_clone().map_err(error)?;
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).current_dir(&self.dir).process_group(0);
        command.stdin(Stdio::null()).stdout(output).stderr(errors);
        let child = command.spawn().map_err(error)?;
        // Not yet waited for, so it has its number even where it has ended already.
        let identity = child.id().and_then(Identity::of);
        let gone = || ServiceError::new(ErrorKind::Internal, "start process", "it has no entry in /proc");
        Ok(Started { child, identity: identity.ok_or_else(gone)?, output: self.output })
    }
}

fn open_output(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

/// How a process ended, for people: *exit code 1*, *signal 9*.
pub fn ending(status: std::io::Result<std::process::ExitStatus>) -> String {
    use std::os::unix::process::ExitStatusExt;
    match status {
        Ok(status) => match (status.code(), status.signal()) {
            (Some(code), _) => format!("exit code {code}"),
            (None, Some(signal)) => format!("signal {signal}"),
            (None, None) => status.to_string(),
        },
        Err(e) => format!("it could not be waited for: {e}"),
    }
}

/// The last lines of a file, for a message; empty where there is none.
pub fn tail(path: &Path, lines: usize) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(16 * 1024)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<_> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
