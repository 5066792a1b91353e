//! Which process it is: its number, and when it started, since numbers are used again.

use nix::{
    errno::Errno,
    sys::signal::{self, Signal},
    unistd::Pid,
};
use serde::{Deserialize, Serialize};

/// One life of one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Identity {
    /// Its number.
    pub pid: u32,
    /// When it started, in the kernel's ticks since boot.
    pub start_time: u64,
}

/// State and start time of whatever has this number now.
fn look(pid: u32) -> Option<(char, u64)> {
    parse(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Fields 3 and 22. The second is the executable's name in parentheses, and a name may hold blanks and parentheses too.
fn parse(stat: &str) -> Option<(char, u64)> {
    let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

impl Identity {
    /// The process that has this number now.
    pub fn of(pid: u32) -> Option<Self> {
        look(pid).map(|(_, start_time)| Self { pid, start_time })
    }

    /// This process.
    pub fn own() -> Option<Self> {
        Self::of(std::process::id())
    }

    /// Does it still run? One that has ended and was not waited for does not.
    pub fn is_alive(&self) -> bool {
        look(self.pid).is_some_and(|(state, start_time)| start_time == self.start_time && !"ZX".contains(state))
    }

    /// Asks it to end. What is gone already is fine.
    pub fn terminate(&self) -> std::io::Result<()> {
        self.send(Signal::SIGTERM, self.pid as i32)
    }

    /// Ends it and what is in its group, at once. What is gone already is fine.
    pub fn kill(&self) -> std::io::Result<()> {
        // All that we start lead a group of their own; should this one not, it alone is meant.
        match self.send(Signal::SIGKILL, -(self.pid as i32)) {
            Ok(()) if !self.is_alive() => Ok(()),
            _ => self.send(Signal::SIGKILL, self.pid as i32),
        }
    }

    fn send(&self, signal: Signal, to: i32) -> std::io::Result<()> {
        // Looked at last thing before the signal: the number could be another's by now. What remains is the time of two
        // system calls, in which the numbers would have to go round once.
        if self.pid <= 1 || !self.is_alive() {
            return Ok(());
        }
        match signal::kill(Pid::from_raw(to), signal) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let rest = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 777 20";
        assert_eq!(parse(&format!("42 (a) b (c)) {rest}")), Some(('S', 777)));
        assert_eq!(parse("42 (a"), None);
        assert_eq!(parse("42 (a) S 1"), None);
    }

    #[test]
    fn this_process_lives_and_one_with_its_number_and_another_start_does_not() {
        let own = Identity::own().unwrap();
        assert!(own.is_alive());
        let other = Identity { start_time: own.start_time + 1, ..own };
        assert!(!other.is_alive());
        // It would end this test if it did more than look.
        other.terminate().unwrap();
        other.kill().unwrap();
        Identity { pid: 1, start_time: 0 }.kill().unwrap();
        assert!(!Identity { pid: 0, start_time: 0 }.is_alive());
    }
}
