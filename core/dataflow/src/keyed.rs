//! Keyed functions: one value of state a key, handed over as an argument, and timers of keys.

use crate::{
    batch::{Batch, NO_TIME, Time},
    build::OpCx,
    codec,
    event_time::{Due, LIMIT, Timers},
    key::{Data, KeySelect, OwnedKey},
    metrics::Metrics,
    ops::ClonedToSubtasks,
    pipe::Transform,
    push::{Control, Flow, Mark, Operator, Push, Ready, STRIDE},
    side::{LiveSides, OutputTag, Sides},
    state::{
        KeyedState, KeyedStates, RowTable, Rows, TILE,
        named::{Named, SavedStates},
    },
    task::TaskCell,
};
use std::{collections::VecDeque, fmt::Display, marker::PhantomData, rc::Rc, sync::Arc, time::Duration};
use thalweg_env::Clock;
use thalweg_model::{FailureKind, TaskFailure};

/// Which clock a time or a timer is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TimeDomain {
    /// The records' own times, and the watermark.
    EventTime,
    /// The machine's clock.
    ProcessingTime,
}

/// What a keyed function may ask and do beside its state.
pub trait KeyedContext<K, O> {
    /// The key.
    fn key(&self) -> &K;
    /// The record's event time, or `NO_TIME`. In a timer, the time that was asked for.
    fn time(&self) -> Time;
    /// No record with this time or an earlier one is expected any more; `NO_TIME` before the first watermark.
    fn watermark(&self) -> Time;
    /// The machine's clock, ms since 1970 UTC.
    fn processing_time(&self) -> Time;
    /// Gives a record out. Its time is the one of the record that came in, or of the timer; for a timer beyond all time
    /// (`Time::MAX`), which asks for the end, the latest one that the subtask has seen.
    fn emit(&mut self, item: O);
    /// The same with another time.
    #[doc(hidden)]
    fn emit_at(&mut self, at: Time, item: O);
    /// Gives a record out by the side.
    fn output<U: 'static>(&mut self, tag: &OutputTag<U>, item: U);
    /// Calls `on_timer` for this key when the watermark has reached `at`: at the end of the input at the latest. Asked for
    /// again, it changes nothing.
    fn register_event_time_timer(&mut self, at: Time);
    /// Takes that back.
    fn delete_event_time_timer(&mut self, at: Time);
    /// Calls `on_timer` for this key when the machine's clock has reached `at`. What is not due when the input ends is
    /// dropped.
    fn register_processing_time_timer(&mut self, at: Time);
    /// Takes that back.
    fn delete_processing_time_timer(&mut self, at: Time);
    /// Counts the record as one that came too late and was dropped.
    fn drop_late(&mut self);
    /// A named state of this key. The view borrows the context: take one, and use it for reading and writing.
    #[track_caller]
    fn state<'a, S: KeyedState<K>>(&'a mut self, state: &'a S) -> S::View<'a>;
    /// Forgets this key's state and named states when the function returns: it begins as its default again. Timers stay.
    fn clear_state(&mut self);
    /// Fails the job with this error once the function returns: the record cannot be handled. It says what to do, for
    /// whoever reads it at night.
    fn fail(&mut self, why: impl Display);
    /// The function has more to give out for this record than it should at once: it is [`resumed`](KeyedProcess::resume)
    /// when there is room, and before anything else comes.
    #[doc(hidden)]
    fn resume_later(&mut self);
}

/// A function over a keyed stream. The state of one key is one value of a plain type; it begins as its default.
pub trait KeyedProcess<T>: Clone + Send + 'static {
    /// The stream's key.
    type Key: OwnedKey;
    /// One value for each key; `()` takes no room.
    type State: Default + Data;
    /// What comes out.
    type Out: 'static;
    /// Forgets the state of a key that has had no record for so long, by the machine's clock; ms precision, at least 1 ms.
    /// Asked once, when a subtask begins. It costs a second look-up for each record. Timers of the key stay.
    fn state_ttl(&self) -> Option<Duration> {
        None
    }
    /// A subtask begins, on the thread that it will run on: connections are opened here.
    fn open(&mut self, _cx: &OpCx) -> Result<(), TaskFailure> {
        Ok(())
    }
    /// A subtask begins: a function that has named states adds each of them.
    fn states(&mut self, _states: &mut KeyedStates<'_, Self::Key>) {}
    /// A subtask begins: a function that has metrics adds each of them.
    fn metrics(&mut self, _metrics: &mut Metrics<'_>) {}
    /// One record.
    fn process(&mut self, item: T, state: &mut Self::State, ctx: &mut impl KeyedContext<Self::Key, Self::Out>);
    /// Goes on with what a record began.
    #[doc(hidden)]
    fn resume(&mut self, _state: &mut Self::State, _ctx: &mut impl KeyedContext<Self::Key, Self::Out>) {}
    /// A time that was asked for has come. `ctx.time()` is the time.
    fn on_timer(
        &mut self,
        _domain: TimeDomain,
        _state: &mut Self::State,
        _ctx: &mut impl KeyedContext<Self::Key, Self::Out>,
    ) {
    }
}

/// Time as a keyed operator has it.
pub(crate) struct Times<K> {
    event: Timers<K>,
    processing: Timers<K>,
    watermark: Time,
    // Of all records, and not behind the watermark as long as that is a time.
    latest: Time,
    clock: Arc<dyn Clock>,
}

impl<K> Times<K> {
    /// The watermark, and the machine's clock.
    pub(crate) fn now(&self) -> (Time, &dyn Clock) {
        (self.watermark, &*self.clock)
    }

    fn wall(&self) -> Time {
        Time::try_from(self.clock.wall().0).unwrap_or(Time::MAX)
    }

    /// The watermark is this now.
    fn passed(&mut self, at: Time) {
        if at < LIMIT {
            self.latest = self.latest.max(at.saturating_add(1));
        }
        self.watermark = self.watermark.max(at);
    }

    /// The time of what a timer gives out. No record can have that of one that asks for the end.
    fn of_timer(&self, domain: TimeDomain, at: Time) -> Time {
        let at_the_end = domain == TimeDomain::EventTime && at >= LIMIT && self.latest != NO_TIME;
        if at_the_end { self.latest } else { at }
    }
}

struct RowCx<'a, K, N> {
    key: &'a K,
    hash: u64,
    at: Time,
    // Of what is given out.
    gives: Time,
    times: &'a mut Times<K>,
    sides: &'a mut LiveSides,
    named: &'a mut Named<K>,
    // The key whose state is forgotten.
    cleared: &'a mut Option<K>,
    late: &'a mut u64,
    more: &'a mut bool,
    task: (&'a TaskCell, &'a str),
    out: &'a mut N,
}

impl<K: OwnedKey, O, N: Push<O>> KeyedContext<K, O> for RowCx<'_, K, N> {
    #[inline(always)]
    fn key(&self) -> &K {
        self.key
    }
    #[inline(always)]
    fn time(&self) -> Time {
        self.at
    }
    fn watermark(&self) -> Time {
        self.times.watermark
    }
    fn processing_time(&self) -> Time {
        self.times.wall()
    }
    #[inline(always)]
    fn emit(&mut self, item: O) {
        self.out.push(self.gives, item);
    }
    fn emit_at(&mut self, at: Time, item: O) {
        self.out.push(at, item);
    }
    fn output<U: 'static>(&mut self, tag: &OutputTag<U>, item: U) {
        self.sides.emit(tag, self.gives, item);
    }
    fn register_event_time_timer(&mut self, at: Time) {
        self.times.event.add(at, self.hash, self.key);
    }
    fn delete_event_time_timer(&mut self, at: Time) {
        self.times.event.remove(at, self.hash, self.key);
    }
    fn register_processing_time_timer(&mut self, at: Time) {
        self.times.processing.add(at, self.hash, self.key);
    }
    fn delete_processing_time_timer(&mut self, at: Time) {
        self.times.processing.remove(at, self.hash, self.key);
    }
    fn drop_late(&mut self) {
        *self.late += 1;
    }
    #[inline]
    #[track_caller]
    fn state<'a, S: KeyedState<K>>(&'a mut self, state: &'a S) -> S::View<'a> {
        self.named.at(state, self.hash, self.key)
    }
    fn clear_state(&mut self) {
        *self.cleared = Some(self.key.clone());
    }
    #[cold]
    fn fail(&mut self, why: impl Display) {
        let (cell, uid) = self.task;
        cell.fail_in(uid, FailureKind::User, why.to_string());
    }
    fn resume_later(&mut self) {
        *self.more = true;
    }
}

/// A [`KeyedProcess`] and how its key is found.
#[derive(Clone)]
pub struct ProcessSpec<F, S> {
    /// The function.
    pub f: F,
    /// Finds the key.
    pub key: S,
    /// Who asked for side outputs.
    pub sides: Sides,
}

/// When each key was last used, and when that is looked at next.
struct Ttl<K> {
    after: Time,
    used: Rows<K, Time>,
    due: Timers<K>,
}

impl<K: OwnedKey> Ttl<K> {
    fn new(after: Duration) -> Self {
        let after = Time::try_from(after.as_millis()).unwrap_or(Time::MAX);
        Self { after, used: Rows::new(), due: Timers::default() }
    }

    /// The key is used; answers whether what it had is too old.
    fn touch(&mut self, hash: u64, key: &K, now: Time) -> bool {
        match self.used.get_mut(hash, key) {
            Some(last) => now.saturating_sub(std::mem::replace(last, now)) >= self.after,
            None => {
                self.used.row(hash, |k| k == key, || (key.clone(), now));
                self.due.add(now.saturating_add(self.after), hash, key);
                false
            }
        }
    }

    /// Forgets keys that nobody has used for too long: looks at a stride of those whose turn it is.
    fn expire(&mut self, now: Time, mut forget: impl FnMut(&Due<K>)) {
        for _ in 0..STRIDE {
            let Some(due) = self.due.pop(now) else { return };
            let last = self.used.get(due.hash, &due.key).copied().unwrap_or(NO_TIME);
            let until = last.saturating_add(self.after);
            if until <= now {
                self.used.remove(due.hash, &due.key);
                forget(&due);
            } else {
                // Used since: looked at again when that is too long ago.
                self.due.add(until, due.hash, &due.key);
            }
        }
    }
}

/// A record whose function has more to give out, and what came behind it meanwhile: at most a stride.
struct Unfinished<T, K> {
    at: Time,
    hash: u64,
    key: K,
    waiting: VecDeque<(u64, Time, T)>,
}

/// A live one.
pub struct ProcessOp<F, S, K, V, T> {
    f: F,
    unfinished: Option<Box<Unfinished<T, K>>>,
    key: S,
    rows: Rows<K, V>,
    named: Named<K>,
    ttl: Option<Ttl<K>>,
    times: Times<K>,
    sides: LiveSides,
    uid: Arc<str>,
    cell: Rc<TaskCell>,
}

/// Rows, timers of both clocks, when keys were used, named states, and the latest time.
type Saved<K, V> = (Vec<(K, V)>, Vec<(Time, K)>, Vec<(Time, K)>, Vec<(K, Time)>, SavedStates, Time);

impl<F, S> ProcessSpec<F, S> {
    /// The live one, out of these parts of a snapshot.
    pub(crate) fn open_from<'a, T>(
        mut self,
        cx: &OpCx,
        parts: impl Iterator<Item = (u32, &'a [u8])>,
    ) -> Result<ProcessOp<F, S, F::Key, F::State, T>, TaskFailure>
    where
        F: KeyedProcess<T>,
    {
        self.f.open(cx)?;
        let mut rows = Rows::new();
        let clock = cx.env().clock.clone();
        let mut named = Named::new(clock.clone());
        self.f.states(&mut KeyedStates { of: &mut named });
        named.check(cx)?;
        cx.metrics(|metrics| self.f.metrics(metrics))?;
        let (event, processing) = (Timers::default(), Timers::default());
        let mut times = Times { event, processing, watermark: NO_TIME, latest: NO_TIME, clock };
        let after = self.f.state_ttl();
        if after.is_some_and(|after| after.as_millis() == 0) {
            let why = "state_ttl is less than 1 ms: answer None for state that is kept, or a longer time";
            return Err(cx.failure(FailureKind::User, why));
        }
        let mut ttl = after.map(Ttl::new);
        for (writer, part) in parts {
            let (part, event, processing, used, states, latest): Saved<F::Key, F::State> = codec::decode(part)
                .map_err(|e| {
                    cx.failure(
                        FailureKind::Storage,
                        format!("the state that subtask {writer} wrote cannot be read: {e}"),
                    )
                })?;
            rows.restore(cx, part);
            named.restore(cx, states)?;
            times.latest = times.latest.max(latest);
            times.event.restore(cx, event);
            times.processing.restore(cx, processing);
            if let Some(ttl) = &mut ttl {
                ttl.due.restore(cx, used.iter().map(|(k, at)| (at.saturating_add(ttl.after), k.clone())).collect());
                ttl.used.restore(cx, used);
            }
        }
        let sides = self.sides.open(cx)?;
        Ok(ProcessOp {
            f: self.f,
            unfinished: None,
            key: self.key,
            rows,
            named,
            ttl,
            times,
            sides,
            uid: cx.uid.clone(),
            cell: cx.cell(),
        })
    }
}

impl<T: 'static, F: KeyedProcess<T>, S: KeySelect<T, Key = F::Key>> Transform<T> for ProcessSpec<F, S> {
    type Out = F::Out;
    type Op = ProcessOp<F, S, F::Key, F::State, T>;
    fn open(self, cx: &OpCx) -> Result<Self::Op, TaskFailure> {
        self.open_from(cx, cx.restored())
    }
}

impl<F, S, K, V, T> ProcessOp<F, S, K, V, T> {
    /// The function, the times that it sees, its side outputs, and the task with the operator's uid.
    pub(crate) fn parts(&mut self) -> (&mut F, &Times<K>, &mut LiveSides, (&TaskCell, &str)) {
        (&mut self.f, &self.times, &mut self.sides, (&self.cell, &self.uid))
    }

    /// A record of this time that goes to no key.
    pub(crate) fn saw(&mut self, at: Time) {
        self.times.latest = self.times.latest.max(at);
    }

    /// The task and the operator's uid.
    pub(crate) fn task(&self) -> (Rc<TaskCell>, Arc<str>) {
        (self.cell.clone(), self.uid.clone())
    }
}

impl<F, S, K: OwnedKey, V: Default + Data, T> ProcessOp<F, S, K, V, T> {
    #[inline(always)]
    fn one(&mut self, hash: u64, at: Time, item: T, out: &mut impl Push<F::Out>)
    where
        F: KeyedProcess<T, Key = K, State = V>,
        S: KeySelect<T, Key = K>,
    {
        if let Some(unfinished) = &mut self.unfinished {
            unfinished.waiting.push_back((hash, at, item));
            return;
        }
        let select = &self.key;
        if let Some(ttl) = &mut self.ttl {
            let key = select.own(&item);
            if ttl.touch(hash, &key, self.times.wall()) {
                self.rows.remove(hash, &key);
            }
        }
        // A state without a size has no rows.
        let mut apart = None;
        let (key, state) = if size_of::<V>() == 0 {
            apart.insert((select.own(&item), V::default()))
        } else {
            self.rows.row(hash, |k| select.same(&item, k), || (select.own(&item), V::default()))
        };
        let (mut cleared, mut late, mut more) = (None, 0, false);
        let (times, sides, named, gives) = (&mut self.times, &mut self.sides, &mut self.named, at);
        let task = (&*self.cell, &*self.uid);
        let (cleared_, late_, more_) = (&mut cleared, &mut late, &mut more);
        let cx = &mut RowCx {
            key,
            hash,
            at,
            gives,
            times,
            sides,
            named,
            cleared: cleared_,
            late: late_,
            more: more_,
            task,
            out,
        };
        self.f.process(item, state, cx);
        if late > 0 {
            self.cell.drops_late(&self.uid, late);
        }
        if more {
            self.unfinished = Some(Box::new(Unfinished { at, hash, key: key.clone(), waiting: VecDeque::new() }));
        }
        if let Some(key) = cleared {
            self.rows.remove(hash, &key);
            self.named.remove(hash, &key);
        }
    }

    /// Goes on with the record that has more to give out, and then with what came behind it; answers whether there was
    /// anything.
    #[cold]
    fn go_on(&mut self, out: &mut impl Push<F::Out>) -> bool
    where
        F: KeyedProcess<T, Key = K, State = V>,
        S: KeySelect<T, Key = K>,
    {
        let Some(mut unfinished) = self.unfinished.take() else { return false };
        let Unfinished { at, hash, ref key, .. } = *unfinished;
        let mut more = false;
        let mut apart = None;
        let (key, state) = match self.rows.row_mut(hash, key) {
            Some((key, state)) => (&*key, state),
            None => (key, apart.insert(V::default())),
        };
        let (times, sides, named, gives) = (&mut self.times, &mut self.sides, &mut self.named, at);
        let task = (&*self.cell, &*self.uid);
        let (cleared, late) = (&mut None, &mut 0);
        let cx = &mut RowCx { key, hash, at, gives, times, sides, named, cleared, late, more: &mut more, task, out };
        self.f.resume(state, cx);
        if more {
            self.unfinished = Some(unfinished);
            return true;
        }
        while let Some((hash, at, item)) = unfinished.waiting.pop_front() {
            self.one(hash, at, item, out);
            if let Some(next) = &mut self.unfinished {
                next.waiting = std::mem::take(&mut unfinished.waiting);
                break;
            }
        }
        true
    }

    fn timer(&mut self, domain: TimeDomain, due: Due<K>, out: &mut impl Push<F::Out>)
    where
        F: KeyedProcess<T, Key = K, State = V>,
    {
        let Due { at, hash, key: owner } = due;
        let mut apart = None;
        // A key whose state was cleared, or forgotten, has no row, and gets one only if there is something to keep.
        let (key, state) = match self.rows.row_mut(hash, &owner) {
            Some(row) => row,
            None => apart.insert((owner, V::default())),
        };
        let (mut cleared, mut late, mut more) = (None, 0, false);
        let gives = self.times.of_timer(domain, at);
        let (times, sides, named) = (&mut self.times, &mut self.sides, &mut self.named);
        let task = (&*self.cell, &*self.uid);
        let (cleared_, late_, more_) = (&mut cleared, &mut late, &mut more);
        let cx = &mut RowCx {
            key,
            hash,
            at,
            gives,
            times,
            sides,
            named,
            cleared: cleared_,
            late: late_,
            more: more_,
            task,
            out,
        };
        self.f.on_timer(domain, state, cx);
        debug_assert!(!more, "only records are resumed");
        if late > 0 {
            self.cell.drops_late(&self.uid, late);
        }
        if let Some(key) = cleared {
            self.rows.remove(hash, &key);
            self.named.remove(hash, &key);
        } else if let Some((key, state)) = apart
            && size_of::<V>() > 0
            // Both fail for a state that cannot be encoded, which the next snapshot tells.
            && codec::encode(&state).ok() != codec::encode(&V::default()).ok()
        {
            if let Some(ttl) = &mut self.ttl {
                ttl.touch(hash, &key, self.times.wall());
            }
            let (_, row) = self.rows.row(hash, |k| *k == key, || (key.clone(), V::default()));
            *row = state;
        }
    }
}

impl<T: 'static, F: KeyedProcess<T>, S: KeySelect<T, Key = F::Key>> Operator<T>
    for ProcessOp<F, S, F::Key, F::State, T>
{
    type Out = F::Out;
    #[inline(always)]
    fn item(&mut self, at: Time, item: T, out: &mut impl Push<F::Out>) {
        self.times.latest = self.times.latest.max(at);
        self.one(self.key.hash(&item), at, item, out);
    }
    fn batch(&mut self, batch: &mut Batch<T>, mut limit: usize, out: &mut impl Push<F::Out>) {
        // Asked for at the end alone: which records of the batch come now does not matter.
        self.times.latest = batch.times().iter().fold(self.times.latest, |latest, at| latest.max(*at));
        let mut hashes = [0; TILE];
        while let n @ 1.. = batch.hashes(&self.key, &mut limit, &mut hashes) {
            self.rows.near(&hashes[..n]);
            let mut hash = hashes.iter();
            batch.each(n, |_, at, item| self.one(hash.next().copied().unwrap_or(0), at, item, out));
        }
    }
    fn ready(&mut self, out: &mut impl Push<F::Out>) -> Ready {
        if self.unfinished.is_some() && self.go_on(out) {
            return Ready::Busy;
        }
        let forgets = self.ttl.as_ref().and_then(|ttl| ttl.due.next());
        let Some(next) = self.times.processing.next().into_iter().chain(forgets).min() else { return Ready::Yes };
        let now = self.times.wall();
        if next > now {
            let left = Duration::from_millis(next.abs_diff(now));
            self.cell.wake_at(self.times.clock.now() + left);
            return Ready::Yes;
        }
        for _ in 0..STRIDE {
            let Some(due) = self.times.processing.pop(now) else { break };
            self.timer(TimeDomain::ProcessingTime, due, out);
        }
        if let Some(ttl) = &mut self.ttl {
            ttl.expire(now, |due| self.rows.remove(due.hash, &due.key));
        }
        // What was emitted just now may have used the room downstream up.
        Ready::Busy
    }
    fn mark(&mut self, mark: Mark, budget: &mut usize, out: &mut impl Push<F::Out>) -> Flow {
        let Mark::At(at) = mark else { return Flow::Done };
        self.times.passed(at);
        while *budget > 0 {
            let Some(due) = self.times.event.pop(at) else { return Flow::Done };
            *budget -= 1;
            self.timer(TimeDomain::EventTime, due, out);
        }
        Flow::More
    }
    fn side(&mut self) -> Option<&mut dyn Control> {
        self.sides.control()
    }
    fn snapshot(&mut self) -> Option<Vec<u8>> {
        let (event, processing): (Vec<_>, Vec<_>) =
            (self.times.event.iter().collect(), self.times.processing.iter().collect());
        let rows: Vec<_> = self.rows.iter().collect();
        let used: Vec<_> = self.ttl.iter().flat_map(|ttl| ttl.used.iter()).collect();
        let latest = self.times.latest;
        let all =
            self.named.snapshot().and_then(|named| codec::encode(&(rows, event, processing, used, named, latest)));
        keep(all, &self.cell, &self.uid)
    }
}

/// State that cannot be encoded fails the task: a checkpoint without it would be a lie.
pub(crate) fn keep(state: Result<Vec<u8>, String>, cell: &TaskCell, uid: &str) -> Option<Vec<u8>> {
    match state {
        Ok(state) => Some(state),
        Err(e) => {
            cell.fail_in(uid, FailureKind::User, format!("the state cannot be encoded: {e}"));
            None
        }
    }
}

/// State and item in, one item out: the short form of [`KeyedProcess`].
pub struct StatefulMap<F, V, K>(F, PhantomData<fn() -> (V, K)>);

impl<F, V, K> StatefulMap<F, V, K> {
    /// Of this function.
    pub fn new(f: F) -> Self {
        Self(f, PhantomData)
    }
}

impl<F: Clone, V, K> Clone for StatefulMap<F, V, K> {
    fn clone(&self) -> Self {
        Self(self.0.clone(), PhantomData)
    }
}

impl<T, V: Default + Data, U: 'static, K: OwnedKey, F: FnMut(&mut V, T) -> U + ClonedToSubtasks> KeyedProcess<T>
    for StatefulMap<F, V, K>
{
    type Key = K;
    type State = V;
    type Out = U;
    #[inline(always)]
    fn process(&mut self, item: T, state: &mut V, ctx: &mut impl KeyedContext<K, U>) {
        let u = (self.0)(state, item);
        ctx.emit(u);
    }
}

/// The first record of each key.
pub struct First<K>(PhantomData<fn() -> K>);

impl<K> First<K> {
    /// A new one.
    pub fn new() -> Self {
        Self(PhantomData)
    }
}

impl<K> Default for First<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K> Clone for First<K> {
    fn clone(&self) -> Self {
        Self::new()
    }
}

impl<T: 'static, K: OwnedKey> KeyedProcess<T> for First<K> {
    type Key = K;
    type State = bool;
    type Out = T;
    #[inline(always)]
    fn process(&mut self, item: T, seen: &mut bool, ctx: &mut impl KeyedContext<K, T>) {
        if !std::mem::replace(seen, true) {
            ctx.emit(item);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Key;

    #[test]
    fn keys_that_were_used_meanwhile_are_looked_at_a_stride_at_a_time() {
        let keys = STRIDE as u64 * 3;
        let mut ttl = Ttl::new(Duration::from_millis(10));
        for now in [0, 5] {
            (0..keys).for_each(|key| assert!(!ttl.touch(key.stable_hash(), &key, now)));
        }
        let mut forgotten = 0;
        for _ in 0..3 {
            assert_eq!(ttl.due.next(), Some(10));
            ttl.expire(10, |_| forgotten += 1);
        }
        assert_eq!((ttl.due.next(), forgotten), (Some(15), 0));
        (0..4).for_each(|_| ttl.expire(15, |_| forgotten += 1));
        assert_eq!((ttl.due.next(), forgotten, ttl.used.len()), (None, keys, 0));
    }
}
