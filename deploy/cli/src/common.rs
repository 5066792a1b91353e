//! What every sub-command shares: the global options, the configuration, the cluster's folder, its secret.

use crate::{
    cluster_files::addresses_in,
    exit::{Coded, Exit, wrong_use},
};
use anyhow::Context;
use std::{
    io::{Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};
use thalweg_config::{Configuration, Sources};
use thalweg_spi::Secret;

/// Options of every sub-command.
#[derive(clap::Args, Debug, Clone, Default)]
pub struct Global {
    /// Configuration file; else $THALWEG_CONF, else ./conf/thalweg.toml.
    #[arg(short = 'c', long = "config", value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
    /// Sets an option, over file and environment: -Dtask-manager.slots=4.
    #[arg(short = 'D', value_name = "KEY=VALUE", global = true)]
    pub overrides: Vec<String>,
    /// The cluster's REST address; of several JobManagers, those that are known.
    #[arg(short = 'm', long = "jobmanager", value_name = "HOST:PORT[,…]", global = true)]
    pub master: Option<String>,
    /// The cluster's folder; else $XDG_STATE_HOME/thalweg/default.
    #[arg(long, value_name = "DIR", global = true)]
    pub dir: Option<PathBuf>,
}

impl Global {
    /// Loads the configuration: defaults < file < environment < -D.
    pub fn configuration(&self) -> anyhow::Result<Configuration> {
        self.configuration_with(&[])
    }

    /// The same, with more options that win.
    pub fn configuration_with(&self, more: &[String]) -> anyhow::Result<Configuration> {
        let sources = Sources {
            file: self.file(),
            environment: std::env::vars(),
            overrides: self.overrides.iter().chain(more).cloned().collect(),
        };
        let configuration = Configuration::load(sources).map_err(|e| Coded(Exit::WrongUse, e.to_string()))?;
        configuration.advice().iter().for_each(|advice| eprintln!("thalweg: {advice}"));
        Ok(configuration)
    }

    /// The same with the file that the cluster of this folder was started with, where nothing else is named: what is started
    /// again in a folder is what was there before.
    pub fn as_started(&self) -> Self {
        let own = self.existing_dir().map(|dir| dir.join("thalweg.toml")).filter(|file| file.exists());
        let named = self.config.is_some() || std::env::var_os("THALWEG_CONF").is_some();
        Self { config: if named { self.config.clone() } else { own }, ..self.clone() }
    }

    fn file(&self) -> Option<PathBuf> {
        let usual = || Some(PathBuf::from("conf/thalweg.toml")).filter(|p| p.exists());
        self.config.clone().or_else(|| std::env::var_os("THALWEG_CONF").map(PathBuf::from)).or_else(usual)
    }

    /// The cluster's folder, absolute; made when it is not there.
    pub fn cluster_dir(&self) -> anyhow::Result<PathBuf> {
        let dir = match &self.dir {
            Some(dir) => dir.clone(),
            None => state_home()?.join("thalweg").join("default"),
        };
        private_dir(&dir)?;
        dir.canonicalize().with_context(|| format!("{} cannot be used", dir.display()))
    }

    /// The cluster's folder, when it is there.
    pub fn existing_dir(&self) -> Option<PathBuf> {
        match &self.dir {
            Some(dir) => Some(dir.clone()),
            None => Some(state_home().ok()?.join("thalweg").join("default")),
        }
        .filter(|dir| dir.exists())
    }

    /// Where the cluster's REST is, at each of its JobManagers, and its secret if it is to be had.
    pub fn cluster(&self) -> anyhow::Result<(Vec<String>, Option<Secret>)> {
        let dir = self.existing_dir();
        let secret = dir.as_ref().and_then(|dir| read_secret(&dir.join("secret")).ok());
        if let Some(masters) = &self.master {
            return Ok((masters.split(',').map(address).collect::<anyhow::Result<_>>()?, secret));
        }
        let Some(dir) = dir else {
            return Err(wrong_use(
                "no cluster: start one with `thalweg cluster start`, or name one with -m HOST:PORT or --dir DIR",
            ));
        };
        let addresses = addresses_in(&dir);
        if addresses.is_empty() {
            return Err(wrong_use(format!(
                "no cluster runs in {}: start one with `thalweg cluster start`, or name one with -m HOST:PORT or --dir DIR",
                dir.display()
            )));
        }
        Ok((addresses, secret))
    }
}

/// One of the addresses behind `-m`.
fn address(text: &str) -> anyhow::Result<String> {
    let at = text.trim().trim_start_matches("http://").trim_end_matches('/');
    let wrong = |(host, port): (&str, &str)| {
        host.is_empty()
            || host.contains(|c: char| c.is_whitespace() || "/@?#".contains(c))
            || port.parse::<u16>().is_err()
    };
    if at.rsplit_once(':').is_none_or(wrong) {
        return Err(wrong_use(format!(
            "-m: {text:?} is not HOST:PORT of a JobManager's REST; several are separated by commas"
        )));
    }
    Ok(format!("http://{at}"))
}

fn state_home() -> anyhow::Result<PathBuf> {
    if let Some(dir) = std::env::var_os("XDG_STATE_HOME").filter(|d| !d.is_empty()) {
        return Ok(dir.into());
    }
    match std::env::var_os("HOME") {
        Some(home) => Ok(PathBuf::from(home).join(".local/state")),
        None => Err(wrong_use("neither XDG_STATE_HOME nor HOME is set: name the cluster's folder with --dir")),
    }
}

/// A folder that only this user can read.
pub fn private_dir(dir: &Path) -> anyhow::Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .with_context(|| format!("the folder {} cannot be made", dir.display()))
}

/// Longest secret file.
const MAX_SECRET: u64 = 4096;

/// Reads a secret, and refuses one that others can read.
pub fn read_secret(path: &Path) -> anyhow::Result<Secret> {
    let file = std::fs::File::open(path).with_context(|| format!("the secret {} cannot be read", path.display()))?;
    let mode = file.metadata()?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(wrong_use(format!(
            "the secret {} can be read by others (mode {:o}): chmod 600 it, and make a new one if others may have read it",
            path.display(),
            mode & 0o777
        )));
    }
    let mut text = String::new();
    file.take(MAX_SECRET).read_to_string(&mut text)?;
    Secret::from_file_text(&text).map_err(|e| wrong_use(format!("the secret file {}: {e}", path.display())))
}

/// The secret of the cluster in this folder; made when there is none.
pub fn secret_of(dir: &Path, named: Option<&Path>) -> anyhow::Result<(Secret, PathBuf)> {
    if let Some(path) = named {
        return Ok((read_secret(path)?, path.to_owned()));
    }
    let path = dir.join("secret");
    if !path.exists() {
        let entropy = thalweg_env::SystemEntropy;
        let mut bytes = [0; 32];
        thalweg_env::Entropy::fill(&entropy, &mut bytes);
        let made = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        match made {
            Ok(mut file) => {
                file.write_all(Secret::new(bytes.to_vec()).to_file_text().as_bytes())?;
                file.sync_all()?;
            }
            // Another process of the same start was faster.
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e).with_context(|| format!("{} cannot be made", path.display())),
        }
    }
    Ok((read_secret(&path)?, path))
}

/// For processes that live long and idle most of the time: what was allocated for an executable that went through is
/// given back to the system, instead of being kept for the next one (42 MiB of RSS after a job became 18 and 11).
#[allow(unsafe_code)]
pub fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: sets numbers of the allocator, before other threads are started.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 128 << 10);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 128 << 10);
        libc::mallopt(libc::M_ARENA_MAX, 2);
    }
}

/// A runtime for commands.
pub fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("the runtime cannot be started")
}

/// SIGTERM, SIGINT or SIGHUP.
pub async fn signal() -> anyhow::Result<&'static str> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut term, mut int, mut hup) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?, signal(SignalKind::hangup())?);
    Ok(tokio::select! {
        _ = term.recv() => "SIGTERM",
        _ = int.recv() => "SIGINT",
        _ = hup.recv() => "SIGHUP",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_addresses_are_taken_and_a_bad_one_is_named() {
        let of = |text: &str| Global { master: Some(text.into()), ..Global::default() }.cluster().map(|(all, _)| all);
        assert_eq!(of("a:1, http://b:2/,[::1]:3").unwrap(), ["http://a:1", "http://b:2", "http://[::1]:3"]);
        for (text, bad) in
            [("a:1,b", "\"b\""), ("a:1,", "\"\""), ("a:70000", "a:70000"), (":1", ":1"), ("a b:1", "a b:1")]
        {
            let refused = of(text).unwrap_err().to_string();
            assert!(refused.contains(bad) && refused.contains("separated by commas"), "{refused}");
        }
    }

    #[test]
    fn a_secret_is_made_once_private_and_refused_when_others_can_read_it() {
        let dir = std::env::temp_dir().join(format!("thalweg-secret-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let (first, path) = secret_of(&dir, None).unwrap();
        let (again, _) = secret_of(&dir, None).unwrap();
        assert!(first.matches(again.expose()));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(read_secret(&path).unwrap_err().to_string().contains("chmod 600"));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
