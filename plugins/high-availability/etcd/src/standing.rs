//! This process's standing: under which epoch it leads, until when at most, and which writes are in doubt.
//!
//! It is asked before each privileged action and answers by the clock alone. A process that was stopped and wakes thinks
//! that it leads; here it learns that its time is over before it has asked or told anybody anything.

use parking_lot::Mutex;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};
use thalweg_env::Clock;
use thalweg_model::{Epoch, Moment};
use thalweg_spi::{ErrorKind, Office, Result, ServiceError};
use tokio::sync::watch;

/// How long a lease is good, as its holder sees it. Times are [`Clock::since_boot`], which goes on while the machine is
/// suspended: etcd counts meanwhile too.
pub(crate) struct Term {
    clock: Arc<dyn Clock>,
    until: AtomicU64,
    ended: AtomicBool,
}

impl Term {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self { clock, until: AtomicU64::new(0), ended: AtomicBool::new(false) })
    }

    /// etcd renewed it for `ttl`, upon a request that left at `sent`: it cannot end there before `sent` + `ttl`. A tenth
    /// is kept back, for those who must act on the loss.
    pub(crate) fn renew(&self, sent: Moment, ttl: Duration) {
        let until = (sent + ttl).since_start() - ttl / 10;
        self.until.fetch_max(u64::try_from(until.as_nanos()).unwrap_or(u64::MAX), Ordering::SeqCst);
    }

    /// What is left of it.
    pub(crate) fn left(&self) -> Duration {
        if self.ended.load(Ordering::SeqCst) {
            return Duration::ZERO;
        }
        let until = Moment::from_start(Duration::from_nanos(self.until.load(Ordering::SeqCst)));
        until.since(self.clock.since_boot())
    }

    /// It is over for good, whatever was promised or will be.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::SeqCst);
    }
}

/// See the head of the file.
pub(crate) struct Standing {
    office: watch::Sender<Office>,
    held: Mutex<Option<(Epoch, Arc<Term>)>>,
    /// When the leader's key was last written, as far as this process knows.
    stamp: AtomicI64,
    /// The latest stamp of a write whose end nobody knows.
    doubt: AtomicI64,
}

impl Standing {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            office: watch::Sender::new(Office::None),
            held: Mutex::new(None),
            stamp: AtomicI64::new(0),
            doubt: AtomicI64::new(0),
        })
    }

    pub(crate) fn office(&self) -> watch::Receiver<Office> {
        self.office.subscribe()
    }

    /// Takes office, unless the term is over already.
    pub(crate) fn grant(&self, epoch: Epoch, stamp: i64, term: &Arc<Term>) -> bool {
        let mut held = self.held.lock();
        if term.left().is_zero() {
            return false;
        }
        self.stamp.store(stamp, Ordering::SeqCst);
        self.doubt.store(0, Ordering::SeqCst);
        *held = Some((epoch, term.clone()));
        self.office.send_replace(Office::Leader(epoch));
        true
    }

    /// The epoch under which this process leads now.
    pub(crate) fn epoch(&self) -> Option<Epoch> {
        let held = self.held.lock().as_ref().map(|(epoch, term)| (*epoch, term.left()));
        match held {
            Some((epoch, left)) if left.is_zero() => {
                self.lose(epoch, "its lease could not be renewed in time");
                None
            }
            Some((epoch, _)) => Some(epoch),
            None => None,
        }
    }

    /// May this process write under this epoch? Answers the stamp to write with.
    pub(crate) fn check(&self, epoch: Epoch, operation: &'static str) -> Result<i64> {
        if self.epoch() == Some(epoch) {
            return Ok(self.stamp.load(Ordering::SeqCst));
        }
        let now = match *self.office.borrow() {
            Office::None => "this process does not lead".to_owned(),
            Office::Leader(now) => format!("this process leads under epoch {now}"),
            Office::Lost(lost) => format!("this process lost office of epoch {lost}"),
        };
        Err(ServiceError::new(ErrorKind::Fenced, operation, format!("epoch {epoch} is over: {now}")))
    }

    /// The office of this epoch is over. Told once.
    pub(crate) fn lose(&self, epoch: Epoch, why: &str) {
        let mut held = self.held.lock();
        let Some((_, term)) = held.take_if(|(now, _)| *now == epoch) else { return };
        // The lease's thread sees it and gives the lease back, also where this process is slow to exit.
        term.end();
        self.office.send_replace(Office::Lost(epoch));
        tracing::warn!(%epoch, "office is over: {why}");
    }

    /// The office of this term, if there is one, is over.
    pub(crate) fn lose_term(&self, term: &Arc<Term>, why: &str) {
        let epoch = self.held.lock().as_ref().and_then(|(epoch, held)| Arc::ptr_eq(held, term).then_some(*epoch));
        if let Some(epoch) = epoch {
            self.lose(epoch, why);
        }
    }

    /// The leader's key was written at this revision.
    pub(crate) fn stamped(&self, stamp: i64) {
        self.stamp.fetch_max(stamp, Ordering::SeqCst);
    }

    /// Is there a write that may still take effect?
    pub(crate) fn in_doubt(&self) -> bool {
        self.doubt.load(Ordering::SeqCst) >= self.stamp.load(Ordering::SeqCst)
    }

    /// Begins a write. Unless it is settled, it is in doubt from the moment this is dropped.
    pub(crate) fn write(self: &Arc<Self>, stamp: i64) -> Write {
        Write { standing: self.clone(), stamp: Some(stamp) }
    }
}

/// A write under way, with the stamp that it compares.
pub(crate) struct Write {
    standing: Arc<Standing>,
    stamp: Option<i64>,
}

impl Write {
    /// It is known what came of it.
    pub(crate) fn settled(mut self) {
        self.stamp = None;
    }
}

impl Drop for Write {
    fn drop(&mut self) {
        if let Some(stamp) = self.stamp {
            self.standing.doubt.fetch_max(stamp, Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use thalweg_env::ManualClock;

    const TTL: Duration = Duration::from_secs(10);

    fn leading() -> (ManualClock, Arc<Term>, Arc<Standing>) {
        let clock = ManualClock::default();
        clock.advance(TTL);
        let term = Term::new(Arc::new(clock.clone()));
        term.renew(clock.now(), TTL);
        let standing = Standing::new();
        assert!(standing.grant(Epoch(5), 5, &term));
        (clock, term, standing)
    }

    #[test]
    fn past_its_time_a_leader_is_none_without_asking_anybody() {
        let (clock, term, standing) = leading();
        clock.advance(Duration::from_millis(8_999));
        assert_eq!(standing.check(Epoch(5), "put").unwrap(), 5);
        clock.advance(Duration::from_millis(1));
        let error = standing.check(Epoch(5), "put").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Fenced);
        assert_eq!(*standing.office().borrow(), Office::Lost(Epoch(5)), "told by the very question");
        // A late answer gives nothing back.
        term.renew(clock.now(), TTL);
        assert_eq!(standing.check(Epoch(5), "put").unwrap_err().kind(), ErrorKind::Fenced);
    }

    #[test]
    fn a_renewal_counts_from_when_it_was_asked_for_and_none_shortens() {
        let (clock, term, _) = leading();
        let sent = clock.now();
        clock.advance(Duration::from_secs(3));
        term.renew(sent, TTL);
        assert_eq!(term.left(), Duration::from_secs(6));
        term.renew(sent, Duration::from_secs(1));
        assert_eq!(term.left(), Duration::from_secs(6));
        term.end();
        assert_eq!(term.left(), Duration::ZERO);
    }

    #[test]
    fn other_epochs_and_terms_that_are_over_have_no_office() {
        let (clock, _, standing) = leading();
        for epoch in [4, 6] {
            assert_eq!(standing.check(Epoch(epoch), "put").unwrap_err().kind(), ErrorKind::Fenced);
        }
        let late = Term::new(Arc::new(clock));
        assert!(!standing.grant(Epoch(7), 7, &late));
        assert_eq!(standing.epoch(), Some(Epoch(5)));
    }

    #[test]
    fn a_write_that_is_dropped_is_in_doubt_until_the_key_is_written_anew() {
        let (_, _, standing) = leading();
        standing.write(5).settled();
        assert!(!standing.in_doubt());
        drop(standing.write(5));
        assert!(standing.in_doubt());
        standing.stamped(8);
        assert!(!standing.in_doubt());
        drop(standing.write(5));
        assert!(!standing.in_doubt(), "it compared the old stamp, so it can no longer happen");
    }
}
