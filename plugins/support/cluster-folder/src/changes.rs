//! Waits for something to happen in a folder. It may be woken for nothing, and on some file systems it is never woken:
//! who waits here looks by itself now and then.

use nix::{
    errno::Errno,
    sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent},
};
use std::{
    io,
    os::fd::{AsFd, AsRawFd, RawFd},
    path::Path,
};
use tokio::io::unix::AsyncFd;

/// Events of one folder.
pub(crate) struct Changes {
    inotify: AsyncFd<Descriptor>,
}

struct Descriptor(Inotify);

impl AsRawFd for Descriptor {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

fn mask() -> AddWatchFlags {
    // A file that was replaced is moved in. A process that dies closes its lock file, which it has open for writing.
    AddWatchFlags::IN_MOVED_TO
        | AddWatchFlags::IN_CLOSE_WRITE
        | AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_DELETE_SELF
        | AddWatchFlags::IN_MOVE_SELF
        | AddWatchFlags::IN_ONLYDIR
}

impl Changes {
    /// Nothing is watched yet.
    #[allow(unsafe_code, reason = "tokio cannot see that a descriptor stays open")]
    pub(crate) fn new() -> io::Result<Self> {
        let inotify = Descriptor(Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?);
        // SAFETY: the descriptor is owned by what is registered, always the same, and closed when that is dropped.
        let inotify = unsafe { AsyncFd::register_with_interest(inotify, tokio::io::Interest::READABLE) }?;
        Ok(Self { inotify })
    }

    /// Watches the folder that has this name now. Asking again costs little and is how a folder that was made or replaced
    /// since is found.
    pub(crate) fn watch(&self, dir: &Path) -> io::Result<()> {
        self.inotify.get_ref().0.add_watch(dir, mask())?;
        Ok(())
    }

    /// Resolves when one of these names, or the folder itself, may have changed. May be dropped at any time.
    pub(crate) async fn of(&self, names: &[&str]) {
        let concerns = |event: &InotifyEvent| match &event.name {
            Some(name) => names.iter().any(|n| name == n),
            // The folder itself, or events that were lost.
            None => true,
        };
        loop {
            // Fails only while the runtime ends.
            let Ok(mut ready) = self.inotify.readable().await else { return std::future::pending().await };
            match ready.get_inner().0.read_events() {
                Ok(events) if events.iter().any(concerns) => return,
                Ok(_) | Err(Errno::EINTR) => {}
                // All was read.
                Err(Errno::EAGAIN) => ready.clear_ready(),
                Err(_) => return std::future::pending().await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::folder::{Folder, LEADER, LOCK};
    use std::time::Duration;
    use thalweg_env::{SystemClock, timeout};

    async fn woken(changes: &Changes) -> bool {
        timeout(&SystemClock::new(), Duration::from_millis(200), changes.of(&[LEADER, LOCK])).await.is_ok()
    }

    #[test]
    fn the_lock_and_the_leader_file_wake_and_a_look_does_not() {
        thalweg_testkit::run("wakes", async {
            let place = thalweg_testkit::Place::new();
            let (folder, changes) = (Folder::new(place.dir()), Changes::new().unwrap());
            changes.watch(place.dir()).unwrap();
            let lock = folder.lock().unwrap();
            std::fs::write(folder.file("another"), "x").unwrap();
            assert!(!woken(&changes).await, "nothing was announced");
            folder.replace(LEADER, br#"{"rpc":"","rest":""}"#).unwrap();
            assert!(woken(&changes).await);
            assert!(folder.leader().is_some());
            assert!(!woken(&changes).await, "who looks wakes nobody");
            drop(lock);
            assert!(woken(&changes).await, "the lock's end is an event");
            std::fs::remove_dir_all(place.dir()).unwrap();
            assert!(woken(&changes).await);
            assert!(changes.watch(place.dir()).is_err(), "there is nothing to watch");
        });
    }
}
