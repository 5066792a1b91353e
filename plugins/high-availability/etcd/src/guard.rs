//! Writes of a leader: each one transaction that compares office, stamp and expectation.
//!
//! ```text
//!  if   create_revision(@leader) = epoch      nobody else was granted office since
//!  and  mod_revision(@leader) = stamp         this is not a write that was given up
//!  and  what is expected of the key
//!  then put or delete
//!  else look at @leader and the key           to tell Fenced, an old stamp and Conflict apart
//! ```
//!
//! When an answer is lost the write may have happened, or happen any time later: it may lie in a member that hangs.
//! [`Guard::settle`] then writes `@leader` anew, as it is, and looks at the key in the same transaction. From there on the
//! lost write compares a stamp that is over. So nearly every doubt ends as a yes or a no, and one that cannot be ended
//! (etcd is away) is ended before the next read or write of this process.

use crate::{
    connect::Settings,
    failure::Failure,
    members::Members,
    record::{self, LeaderRecord, Mark},
    standing::Standing,
};
use etcd_client::{
    Client, Compare, CompareOp, GetOptions, KeyValue, PutOptions, Txn, TxnOp, TxnOpResponse, TxnResponse,
};
use std::sync::Arc;
use thalweg_env::{Clock, Entropy};
use thalweg_model::{Epoch, Moment};
use thalweg_spi::{ErrorKind, Expect, Happened, LeaderInfo, Result, ServiceError};

/// What a write does to its key.
enum Change<'a> {
    Put(&'a [u8]),
    Delete,
}

/// What a look at the leader's key and at a record found.
struct Looked {
    /// Revisions that created and last wrote the leader's key.
    leader: Option<(i64, i64)>,
    record: Option<KeyValue>,
}

/// See the head of the file.
pub(crate) struct Guard {
    settings: Settings,
    members: Arc<Members>,
    standing: Arc<Standing>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
}

impl Guard {
    pub(crate) fn new(
        settings: Settings,
        members: Arc<Members>,
        standing: Arc<Standing>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Self {
        Self { settings, members, standing, clock, entropy }
    }

    /// Writes a record; answers its version.
    pub(crate) async fn put(&self, epoch: Epoch, key: &str, value: &[u8], expect: Expect) -> Result<u64> {
        let mark: Mark = self.entropy.id();
        let record = record::encode(mark, value);
        let done = self.write("put record", epoch, key, Change::Put(&record), expect, Some(mark)).await;
        done.map(i64::unsigned_abs).map_err(|e| e.with("key", key))
    }

    /// Removes a record.
    pub(crate) async fn delete(&self, epoch: Epoch, key: &str, expect: Expect) -> Result<()> {
        let done = self.write("delete record", epoch, key, Change::Delete, expect, None).await;
        done.map(drop).map_err(|e| e.with("key", key))
    }

    async fn write(
        &self,
        operation: &'static str,
        epoch: Epoch,
        key: &str,
        change: Change<'_>,
        expect: Expect,
        mark: Option<Mark>,
    ) -> Result<i64> {
        let until = self.members.until();
        let full = self.settings.keys.record(key);
        let mut tried = 0;
        loop {
            self.clear_doubts(epoch, operation, until).await?;
            // Before each try: a process that was stopped finds out here.
            let stamp = self.standing.check(epoch, operation)?;
            let write = self.standing.write(stamp);
            let txn = self.guarded(epoch, stamp, &full, &change, expect);
            let failure = match self.members.once(|c| async move { c.kv_client().txn(txn).await }).await {
                Ok(answer) => {
                    write.settled();
                    if answer.succeeded() {
                        return Ok(revision(&answer));
                    }
                    let looked = looked(&answer);
                    if !self.still_leads(epoch, stamp, &looked, operation)? {
                        continue;
                    }
                    return Err(conflict(operation, expect, looked.record.as_ref()));
                }
                Err(failure) => failure,
            };
            if failure.happened == Happened::Maybe {
                drop(write);
                tracing::debug!(key, "a write without an answer: {}", failure.message);
                let Ok(record) = self.settle(epoch, Some(&full), operation, until).await else {
                    return Err(failure.error(operation));
                };
                if let Some(outcome) = outcome(operation, &change, expect, mark, record.as_ref()) {
                    return outcome;
                }
                // It did not happen and never will.
            } else {
                write.settled();
            }
            if !failure.elsewhere() || self.clock.now() >= until {
                return Err(Failure { happened: Happened::No, ..failure }.error(operation));
            }
            tried += 1;
            self.members.pause(tried).await;
        }
    }

    /// Says where the leader is.
    pub(crate) async fn announce(&self, epoch: Epoch, candidacy: u64, leader: LeaderInfo) -> Result<()> {
        const OPERATION: &str = "announce leader";
        let until = self.members.until();
        let value = LeaderRecord { candidacy, leader: Some(leader) }.encode();
        let key = self.settings.keys.leader();
        let mut tried = 0;
        loop {
            let stamp = self.standing.check(epoch, OPERATION)?;
            let (value, name) = (value.clone(), key.clone());
            let txn = Txn::new()
                .when(vec![
                    Compare::create_revision(name.clone(), CompareOp::Equal, as_revision(epoch)),
                    Compare::mod_revision(name.clone(), CompareOp::Equal, stamp),
                ])
                .and_then(vec![TxnOp::put(name.clone(), value, Some(PutOptions::new().with_ignore_lease()))])
                .or_else(vec![TxnOp::get(name, Some(GetOptions::new().with_keys_only()))]);
            let write = self.standing.write(stamp);
            match self.members.once(|c| async move { c.kv_client().txn(txn).await }).await {
                Ok(answer) => {
                    write.settled();
                    if answer.succeeded() {
                        self.standing.stamped(revision(&answer));
                        return Ok(());
                    }
                    // Its own lost write, or the settling of another one, moved the stamp: once more is right for both.
                    self.still_leads(epoch, stamp, &looked(&answer), OPERATION)?;
                }
                Err(failure) => {
                    if failure.happened == Happened::No {
                        write.settled();
                    }
                    if !failure.elsewhere() || self.clock.now() >= until {
                        return Err(failure.error(OPERATION));
                    }
                    tried += 1;
                    self.members.pause(tried).await;
                }
            }
        }
    }

    /// Ends doubts of earlier writes, so that what is read or written now is final.
    pub(crate) async fn clear_doubts(&self, epoch: Epoch, operation: &'static str, until: Moment) -> Result<()> {
        if self.standing.in_doubt() && self.standing.epoch() == Some(epoch) {
            self.settle(epoch, None, operation, until).await?;
        }
        Ok(())
    }

    /// The same, for a read.
    pub(crate) async fn clear_own_doubts(&self, operation: &'static str) -> Result<()> {
        match self.standing.epoch() {
            Some(epoch) => match self.clear_doubts(epoch, operation, self.members.until()).await {
                // Whoever leads now, what is read is not of this process.
                Err(e) if e.kind() == ErrorKind::Fenced => Ok(()),
                // The doubt is about a write; the read did not happen.
                other => other,
            },
            None => Ok(()),
        }
    }

    /// Makes that no write under way can happen any more, and reads a key after that.
    async fn settle(
        &self,
        epoch: Epoch,
        key: Option<&str>,
        operation: &'static str,
        until: Moment,
    ) -> Result<Option<KeyValue>> {
        let leader = self.settings.keys.leader();
        let settle = |client: Client| {
            let as_it_is = PutOptions::new().with_ignore_value().with_ignore_lease();
            let mut then = vec![TxnOp::put(leader.clone(), "", Some(as_it_is))];
            then.extend(key.map(|key| TxnOp::get(key, None)));
            let txn = Txn::new()
                .when(vec![Compare::create_revision(leader.clone(), CompareOp::Equal, as_revision(epoch))])
                .and_then(then);
            async move { client.kv_client().txn(txn).await }
        };
        self.standing.check(epoch, operation)?;
        let answer = self
            .members
            .call(until, settle)
            .await
            .map_err(|f| Failure { happened: Happened::No, ..f }.error(operation))?;
        if !answer.succeeded() {
            self.standing.lose(epoch, "somebody else was granted office");
            return Err(fenced(epoch, operation));
        }
        self.standing.stamped(revision(&answer));
        Ok(looked(&answer).record)
    }

    fn guarded(&self, epoch: Epoch, stamp: i64, key: &str, change: &Change<'_>, expect: Expect) -> Txn {
        let leader = self.settings.keys.leader();
        let mut when = vec![
            Compare::create_revision(leader.clone(), CompareOp::Equal, as_revision(epoch)),
            Compare::mod_revision(leader.clone(), CompareOp::Equal, stamp),
        ];
        match expect {
            Expect::Any => {}
            Expect::Absent => when.push(Compare::create_revision(key, CompareOp::Equal, 0)),
            // A version that no revision can have is refused like any other that is not there.
            Expect::Version(v) => {
                let version = i64::try_from(v).ok().filter(|v| *v > 0).unwrap_or(i64::MAX);
                when.push(Compare::mod_revision(key, CompareOp::Equal, version));
            }
        }
        let then = match change {
            Change::Put(record) => TxnOp::put(key, *record, None),
            Change::Delete => TxnOp::delete(key, None),
        };
        let look = |key: &str| TxnOp::get(key, Some(GetOptions::new().with_keys_only()));
        Txn::new().when(when).and_then(vec![then]).or_else(vec![look(&leader), look(key)])
    }

    /// Does this process lead, by what was found? `Ok(false)`: it does, and the stamp that was compared was old.
    fn still_leads(&self, epoch: Epoch, stamp: i64, looked: &Looked, operation: &'static str) -> Result<bool> {
        match looked.leader {
            Some((created, written)) if created == as_revision(epoch) => {
                self.standing.stamped(written);
                Ok(stamp == written)
            }
            _ => {
                self.standing.lose(epoch, "somebody else was granted office");
                Err(fenced(epoch, operation))
            }
        }
    }
}

fn fenced(epoch: Epoch, operation: &'static str) -> ServiceError {
    ServiceError::new(ErrorKind::Fenced, operation, format!("epoch {epoch} is over: etcd has another leader or none"))
}

fn as_revision(epoch: Epoch) -> i64 {
    i64::try_from(epoch.0).unwrap_or(i64::MAX)
}

pub(crate) fn revision(answer: &TxnResponse) -> i64 {
    answer.header().map_or(0, etcd_client::ResponseHeader::revision)
}

/// The gets of a transaction, in their order: `@leader` first where it was asked for.
fn looked(answer: &TxnResponse) -> Looked {
    let mut found = answer.op_responses().into_iter().filter_map(|op| match op {
        TxnOpResponse::Get(get) => Some(get.kvs().first().cloned()),
        _ => None,
    });
    if answer.succeeded() {
        return Looked { leader: None, record: found.next().flatten() };
    }
    let leader = found.next().flatten().map(|kv| (kv.create_revision(), kv.mod_revision()));
    Looked { leader, record: found.next().flatten() }
}

/// What a write whose answer was lost came to, by the record as it is now that nothing is under way; `None`: it did not
/// happen, and may be tried again.
fn outcome(
    operation: &'static str,
    change: &Change<'_>,
    expect: Expect,
    mark: Option<Mark>,
    record: Option<&KeyValue>,
) -> Option<Result<i64>> {
    let found = record.and_then(|kv| record::decode(kv.value()).ok()).map(|(mark, _)| mark);
    let version = record.map(KeyValue::mod_revision);
    let as_expected = match expect {
        Expect::Any => true,
        Expect::Absent => version.is_none(),
        Expect::Version(v) => version.map(i64::unsigned_abs) == Some(v),
    };
    match change {
        Change::Put(_) if found.is_some() && found == mark => Some(Ok(version.unwrap_or(0))),
        // Gone, by this one or another: what was asked for is so.
        Change::Delete if version.is_none() => Some(Ok(0)),
        _ if as_expected => None,
        // Another write of this leader came in between, before or after this one.
        _ => Some(Err(conflict(operation, expect, record).maybe_happened())),
    }
}

fn conflict(operation: &'static str, expect: Expect, record: Option<&KeyValue>) -> ServiceError {
    let found =
        record.map_or_else(|| "it is not there".to_owned(), |kv| format!("it has version {}", kv.mod_revision()));
    let expected = match expect {
        Expect::Any => "anything".to_owned(),
        Expect::Absent => "nothing".to_owned(),
        Expect::Version(v) => format!("version {v}"),
    };
    ServiceError::new(ErrorKind::Conflict, operation, format!("{expected} was expected, but {found}"))
}
