//! Functions that wait for the outside world while other records go on: look-ups in stores, calls of services.
//!
//! Their work is done on the runtime's threads; the task's own thread begins it, and gives out what has come back.
//! Watermarks keep their place: none passes a record that is under way.

use crate::{
    batch::Time,
    build::OpCx,
    codec,
    key::Data,
    keyed::keep,
    ops::ClonedToSubtasks,
    pipe::Transform,
    push::{Flow, Mark, Operator, Push, Ready, STRIDE},
    task::TaskCell,
};
use futures::{FutureExt, future::BoxFuture};
use std::{
    collections::{BTreeMap, HashMap},
    fmt::Display,
    marker::PhantomData,
    panic::AssertUnwindSafe,
    rc::Rc,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
    task::Waker,
    time::Duration,
};
use thalweg_env::{Env, Task, spawner::panic_message};
use thalweg_model::{FailureKind, Moment, TaskFailure};

/// How a function that waits is called.
#[derive(Clone, Copy, Debug)]
pub struct AsyncOptions {
    ordered: bool,
    capacity: usize,
    timeout: Option<Duration>,
    retries: u32,
    pause: Duration,
}

impl AsyncOptions {
    fn new(ordered: bool) -> Self {
        Self { ordered, capacity: 100, timeout: None, retries: 0, pause: Duration::from_millis(100) }
    }

    /// Results come in the order of their records. At most 100 calls are under way at a time.
    pub fn ordered() -> Self {
        Self::new(true)
    }

    /// Results come as they are ready, though not across a watermark. At most 100 calls are under way at a time.
    pub fn unordered() -> Self {
        Self::new(false)
    }

    /// So many calls may be under way at a time in each subtask; at least 1. More records wait.
    pub fn capacity(self, calls: usize) -> Self {
        Self { capacity: calls, ..self }
    }

    /// A call that takes longer has failed.
    pub fn timeout(self, after: Duration) -> Self {
        Self { timeout: Some(after), ..self }
    }

    /// A call that has failed, panicked or taken too long is made so many times again, after a pause that doubles each
    /// time. Without it one failure fails the job.
    pub fn retries(self, times: u32, pause: Duration) -> Self {
        Self { retries: times, pause, ..self }
    }

    /// What is wrong with them, if something is: the program is refused.
    pub fn check(&self) -> Result<(), String> {
        if self.capacity == 0 {
            return Err("a capacity of 0 calls lets none begin: it is at least 1".to_owned());
        }
        if self.timeout == Some(Duration::ZERO) {
            return Err(
                "a timeout of 0 lets no call end: leave it out for calls that may take as long as they do".to_owned()
            );
        }
        Ok(())
    }
}

/// One record for each, made by a future.
pub struct AsyncMap<F, Fut> {
    f: F,
    options: AsyncOptions,
    _t: PhantomData<fn() -> Fut>,
}

impl<F, Fut> AsyncMap<F, Fut> {
    /// By this function.
    pub fn new(options: AsyncOptions, f: F) -> Self {
        Self { f, options, _t: PhantomData }
    }
}

impl<F: Clone, Fut> Clone for AsyncMap<F, Fut> {
    fn clone(&self) -> Self {
        Self::new(self.options, self.f.clone())
    }
}

/// What is under way.
enum Entry<T, U> {
    /// It is kept until its result has left: after a restore it is called for again.
    Called { at: Time, item: T, result: Option<U> },
    /// A watermark that came behind what stands before it.
    Mark(Mark),
}

/// What a call says of itself.
enum Says<U> {
    /// It is tried again then.
    Again(Moment),
    Done(Result<U, TaskFailure>),
}

type Answer<U> = (u64, Says<U>);

/// A live [`AsyncMap`].
pub struct AsyncMapOp<T, U, F> {
    f: F,
    options: AsyncOptions,
    /// By number, in the order in which they came.
    entries: BTreeMap<u64, Entry<T, U>>,
    /// Entries that are records: at most the capacity.
    records: usize,
    /// Number of the next entry.
    next: u64,
    /// Number of the first entry that was not called for yet.
    next_call: u64,
    calls: HashMap<u64, Task>,
    /// Calls that have failed and pause, and until when.
    pauses: BTreeMap<u64, Moment>,
    answers: Receiver<Answer<U>>,
    answer: Sender<Answer<U>>,
    ending: bool,
    /// The input's last watermark, and whether it is idle since.
    told: Option<Time>,
    idle: bool,
    env: Env,
    waker: Waker,
    uid: Arc<str>,
    cell: Rc<TaskCell>,
}

impl<T, U, E, F, Fut> Transform<T> for AsyncMap<F, Fut>
where
    T: Data + Clone,
    U: Send + 'static,
    E: Display + 'static,
    F: FnMut(T) -> Fut + ClonedToSubtasks,
    Fut: Future<Output = Result<U, E>> + Send + 'static,
{
    type Out = U;
    type Op = AsyncMapOp<T, U, F>;
    fn open(self, cx: &OpCx) -> Result<Self::Op, TaskFailure> {
        let (mut entries, mut next) = (BTreeMap::new(), 0);
        for (writer, part) in cx.restored().filter(|(writer, _)| writer % cx.parallelism == cx.subtask) {
            let part: Vec<(Time, T)> = codec::decode(part).map_err(|e| {
                cx.failure(FailureKind::Storage, format!("the records that subtask {writer} had cannot be read: {e}"))
            })?;
            let part = part.into_iter().map(|(at, item)| Entry::Called { at, item, result: None });
            entries.extend((next..).zip(part));
            next = entries.len() as u64;
        }
        let (answer, answers) = channel();
        Ok(AsyncMapOp {
            f: self.f,
            options: self.options,
            records: entries.len(),
            entries,
            next,
            next_call: 0,
            calls: HashMap::new(),
            pauses: BTreeMap::new(),
            answers,
            answer,
            ending: false,
            told: None,
            idle: false,
            env: cx.env().clone(),
            waker: cx.waker(),
            uid: cx.uid.clone(),
            cell: cx.cell(),
        })
    }
}

impl<T, U, E, F, Fut> AsyncMapOp<T, U, F>
where
    T: Data + Clone,
    U: Send + 'static,
    E: Display + 'static,
    F: FnMut(T) -> Fut + ClonedToSubtasks,
    Fut: Future<Output = Result<U, E>> + Send + 'static,
{
    fn add(&mut self, entry: Entry<T, U>) {
        self.entries.insert(self.next, entry);
        self.next += 1;
    }

    /// The input is idle no more: its watermark holds the others up while this record is under way, and is told before it,
    /// where it comes behind it.
    fn wake(&mut self) {
        if let Some(last) = self.entries.last_entry().filter(|last| matches!(last.get(), Entry::Mark(Mark::Idle))) {
            last.remove();
        }
        let waits = self.entries.last_key_value().is_some_and(|(_, last)| matches!(last, Entry::Mark(_)));
        if let Some(at) = self.told.filter(|_| !waits) {
            self.add(Entry::Mark(Mark::At(at)));
        }
    }

    /// Calls for as many as may be under way.
    fn call(&mut self) {
        while self.calls.len() < self.options.capacity {
            let Some((number, entry)) = self.entries.range(self.next_call..).next() else { return };
            let number = *number;
            self.next_call = number + 1;
            let Entry::Called { item, .. } = entry else { continue };
            // A future is used up by one call: the next one is made of another clone of function and record.
            let (f, item, options) = (self.f.clone(), item.clone(), self.options);
            let (answer, waker, clock) = (self.answer.clone(), self.waker.clone(), self.env.clock.clone());
            let uid = self.uid.clone();
            let task = self.env.spawner.spawn("async-map", async move {
                let mut pause = options.pause;
                let mut left = options.retries;
                let result = loop {
                    let (mut f, item) = (f.clone(), item.clone());
                    let one = async move { f(item).await.map_err(|e| e.to_string()) };
                    let one = AssertUnwindSafe(one).catch_unwind();
                    let one = async {
                        match options.timeout {
                            None => Some(one.await),
                            Some(limit) => {
                                let over = clock.sleep_until(clock.now() + limit);
                                futures::pin_mut!(one);
                                match futures::future::select(one, over).await {
                                    futures::future::Either::Left((done, _)) => Some(done),
                                    futures::future::Either::Right(_) => None,
                                }
                            }
                        }
                    };
                    let (kind, why) = match one.await {
                        Some(Ok(Ok(value))) => break Ok(value),
                        Some(Ok(Err(e))) => (FailureKind::User, e),
                        Some(Err(panic)) => (FailureKind::UserPanic, panic_message(&*panic)),
                        None => {
                            let limit = options.timeout.unwrap_or_default();
                            (FailureKind::User, format!("no answer within {limit:?}"))
                        }
                    };
                    if left == 0 {
                        let tries = u64::from(options.retries) + 1;
                        let why = if tries > 1 { format!("{why} (tried {tries} times)") } else { why };
                        break Err(TaskFailure::new(kind, why));
                    }
                    left -= 1;
                    let again = clock.now() + pause;
                    let _ = answer.send((number, Says::Again(again)));
                    waker.wake_by_ref();
                    clock.sleep_until(again).await;
                    pause = pause.saturating_mul(2);
                };
                let result = result.map_err(|f| TaskFailure { uid: Some(uid.to_string()), ..f });
                // The operator may be gone.
                let _ = answer.send((number, Says::Done(result)));
                waker.wake();
            });
            self.calls.insert(number, task);
        }
    }

    /// Takes what has come back.
    fn hear(&mut self) {
        while let Ok((number, says)) = self.answers.try_recv() {
            let result = match says {
                Says::Done(result) => result,
                Says::Again(at) => {
                    self.pauses.insert(number, at);
                    continue;
                }
            };
            self.calls.remove(&number);
            self.pauses.remove(&number);
            match result {
                Err(failure) => self.cell.fail(failure),
                Ok(value) => {
                    if let Some(Entry::Called { result, .. }) = self.entries.get_mut(&number) {
                        *result = Some(value);
                    }
                }
            }
        }
    }

    /// Gives out what may leave; answers whether more may.
    fn give(&mut self, out: &mut impl Push<U>) -> bool {
        let ordered = self.options.ordered;
        // Nothing passes a watermark, and in order nothing passes what is still under way.
        let may_leave = self.entries.iter().take_while(|(_, entry)| match entry {
            Entry::Called { result, .. } => result.is_some() || !ordered,
            Entry::Mark(_) => false,
        });
        let back = may_leave.filter(|(_, entry)| matches!(entry, Entry::Called { result: Some(_), .. }));
        let back: Vec<u64> = back.map(|(number, _)| *number).take(STRIDE).collect();
        for number in &back {
            if let Some(Entry::Called { at, result: Some(value), .. }) = self.entries.remove(number) {
                self.records -= 1;
                out.push(at, value);
            }
        }
        !back.is_empty()
    }
}

impl<T, U, E, F, Fut> Operator<T> for AsyncMapOp<T, U, F>
where
    T: Data + Clone,
    U: Send + 'static,
    E: Display + 'static,
    F: FnMut(T) -> Fut + ClonedToSubtasks,
    Fut: Future<Output = Result<U, E>> + Send + 'static,
{
    type Out = U;

    fn item(&mut self, at: Time, item: T, _: &mut impl Push<U>) {
        if std::mem::take(&mut self.idle) {
            self.wake();
        }
        self.add(Entry::Called { at, item, result: None });
        self.records += 1;
        self.call();
    }

    fn ready(&mut self, out: &mut impl Push<U>) -> Ready {
        self.hear();
        self.call();
        if !self.pauses.is_empty() {
            // Where time jumps it jumps to what somebody waits for.
            let now = self.env.clock.now();
            self.pauses.retain(|_, at| *at > now);
            self.pauses.values().for_each(|at| self.cell.wake_at(*at));
        }
        if self.give(out) {
            // What was emitted just now may have used the room downstream up.
            return Ready::Busy;
        }
        // A watermark whose turn has come is told before anything else.
        if let Some((_, Entry::Mark(_))) = self.entries.first_key_value() {
            return Ready::Yes;
        }
        let full = self.records >= self.options.capacity;
        if full || self.ending && !self.entries.is_empty() { Ready::Blocked } else { Ready::Yes }
    }

    fn mark(&mut self, mark: Mark, _: &mut usize, _: &mut impl Push<U>) -> Flow {
        // The last one is told when all is over.
        if mark == Mark::At(Time::MAX) {
            self.ending = true;
            return if self.entries.is_empty() { Flow::Done } else { Flow::More };
        }
        self.idle = mark == Mark::Idle;
        if let Mark::At(at) = mark {
            self.told = Some(at);
            // The newest time counts alone, and idleness only if it lasts until its turn has come.
            while self.entries.last_entry().is_some_and(|entry| matches!(entry.get(), Entry::Mark(_))) {
                self.entries.pop_last();
            }
            self.add(Entry::Mark(mark));
        } else if !self.entries.last_entry().is_some_and(|entry| matches!(entry.get(), Entry::Mark(Mark::Idle))) {
            self.add(Entry::Mark(mark));
        }
        Flow::Done
    }

    fn passes(&mut self, mark: Mark) -> Option<Mark> {
        (mark == Mark::At(Time::MAX)).then_some(mark)
    }

    fn makes(&mut self) -> Option<Mark> {
        let first = self.entries.first_entry()?;
        let Entry::Mark(mark) = *first.get() else { return None };
        first.remove();
        self.cell.goes_on();
        Some(mark)
    }

    fn end(&mut self, _: &mut usize, _: &mut impl Push<U>) -> Flow {
        self.ending = true;
        if self.entries.is_empty() { Flow::Done } else { Flow::More }
    }

    fn snapshot(&mut self) -> Option<Vec<u8>> {
        let of = |entry: &Entry<T, U>| match entry {
            Entry::Called { at, item, .. } => Some((*at, item.clone())),
            Entry::Mark(_) => None,
        };
        let entries: Vec<_> = self.entries.values().filter_map(of).collect();
        keep(codec::encode(&entries), &self.cell, &self.uid)
    }
}

impl<T, U, F> Drop for AsyncMapOp<T, U, F> {
    fn drop(&mut self) {
        self.calls.values().for_each(Task::abort);
    }
}

/// The future of a call on a thread for calls that block.
pub type Blocking<U> = BoxFuture<'static, Result<U, String>>;

/// Makes a function that blocks into one that waits.
pub fn blocking<T, U, E, F>(f: F) -> impl FnMut(T) -> Blocking<U> + ClonedToSubtasks
where
    T: Send + 'static,
    U: Send + 'static,
    E: Display + 'static,
    F: FnMut(T) -> Result<U, E> + ClonedToSubtasks,
{
    move |item| {
        let mut f = f.clone();
        let call = tokio::task::spawn_blocking(move || f(item).map_err(|e| e.to_string()));
        Box::pin(async move {
            match call.await {
                Ok(result) => result,
                Err(e) if e.is_panic() => std::panic::resume_unwind(e.into_panic()),
                Err(e) => Err(e.to_string()),
            }
        })
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "what is waited for is not the tester's clock's")]
mod tests {
    use super::*;
    use crate::testing::{OperatorTester, TestRuntime};
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// What is under way now, and was at most.
    #[derive(Clone, Default)]
    struct Under(Arc<(AtomicUsize, AtomicUsize)>);

    impl Under {
        fn enter(&self) -> Self {
            let now = self.0.0.fetch_add(1, Ordering::SeqCst) + 1;
            self.0.1.fetch_max(now, Ordering::SeqCst);
            self.clone()
        }
    }

    fn out<T, X: Transform<T>>(tester: &mut OperatorTester<T, X>) -> Vec<X::Out> {
        tester.take().into_iter().map(|(_, item)| item).collect()
    }

    #[test]
    fn a_watermark_that_waits_is_told_before_the_idleness_behind_it_and_few_wait() {
        let rt = TestRuntime::new().unwrap();
        let gate = Arc::new(tokio::sync::Semaphore::new(0));
        let opens = gate.clone();
        let f = move |i: u64| {
            let gate = opens.clone();
            async move { gate.acquire().await.map(|_| i).map_err(|e| e.to_string()) }
        };
        let mut tester = OperatorTester::new(&rt.env, AsyncMap::new(AsyncOptions::ordered(), f)).unwrap();
        tester.push(1, 1).unwrap();
        for at in 2..9 {
            tester.watermark(at).unwrap();
            tester.idle().unwrap();
            tester.idle().unwrap();
        }
        assert_eq!(tester.all_passed(), [], "one call is under way");
        gate.add_permits(1);
        while tester.all_passed().len() < 2 {
            tester.advance(Duration::ZERO).unwrap();
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(tester.all_passed(), [Mark::At(8), Mark::Idle], "the newest of each");
    }

    #[test]
    fn an_input_that_is_back_holds_the_others_up_while_its_first_record_is_under_way() {
        let rt = TestRuntime::new().unwrap();
        let gate = Arc::new(tokio::sync::Semaphore::new(0));
        let opens = gate.clone();
        let f = move |i: u64| {
            let gate = opens.clone();
            async move { gate.acquire().await.map(|_| i).map_err(|e| e.to_string()) }
        };
        for options in [AsyncOptions::ordered(), AsyncOptions::unordered()] {
            let mut tester = OperatorTester::new(&rt.env, AsyncMap::new(options, f.clone())).unwrap();
            tester.idle().unwrap();
            tester.push(3, 1).unwrap();
            assert_eq!(tester.all_passed(), [Mark::Idle], "there is no watermark yet");
            gate.add_permits(1);
            tester.watermark(8).unwrap();
            tester.idle().unwrap();
            while tester.all_passed().len() < 3 {
                tester.advance(Duration::ZERO).unwrap();
                std::thread::sleep(Duration::from_millis(1));
            }
            gate.forget_permits(1);
            tester.push(9, 2).unwrap();
            let told = [Mark::Idle, Mark::At(8), Mark::Idle, Mark::At(8)];
            assert_eq!(tester.all_passed(), told, "what its source says now comes behind the record");
            // Idle and back behind a record that is under way: nobody need know.
            tester.watermark(9).unwrap();
            tester.idle().unwrap();
            tester.push(11, 3).unwrap();
            gate.add_permits(2);
            tester.end().unwrap();
            assert_eq!(tester.all_passed(), [&told[..], &[Mark::At(9), Mark::At(Time::MAX)]].concat());
            gate.forget_permits(2);
        }
    }

    #[test]
    fn one_call_that_hangs_holds_nobody_up_where_no_order_is_asked_for() {
        let rt = TestRuntime::new().unwrap();
        let others = Arc::new(tokio::sync::Semaphore::new(0));
        let hangs = others.clone();
        let f = move |i: u64| {
            let others = hangs.clone();
            async move {
                // The first waits for all that come behind it.
                if i == 0 {
                    others.acquire_many(40).await.map_err(|e| e.to_string())?.forget();
                }
                others.add_permits(usize::from(i != 0));
                Ok::<_, String>(i)
            }
        };
        let mut tester = OperatorTester::new(&rt.env, AsyncMap::new(AsyncOptions::unordered().capacity(3), f)).unwrap();
        (0..41).for_each(|i| tester.push(i, i as u64).unwrap());
        tester.watermark(41).unwrap();
        tester.end().unwrap();
        let all = out(&mut tester);
        let first = all.iter().position(|i| *i == 0);
        assert!(all.len() == 41 && first >= Some(37), "with the last three at most: {all:?}");
    }

    #[test]
    fn as_many_calls_are_under_way_as_the_capacity_says_and_order_is_kept_on_request() {
        let rt = TestRuntime::new().unwrap();
        for options in [AsyncOptions::ordered(), AsyncOptions::unordered()] {
            let under = Under::default();
            let counted = under.clone();
            let f = move |i: u64| {
                let under = counted.clone();
                async move {
                    let mine = under.enter();
                    // Neighbours end in the wrong order.
                    tokio::time::sleep(Duration::from_millis(if i.is_multiple_of(2) { 12 } else { 2 })).await;
                    mine.0.0.fetch_sub(1, Ordering::SeqCst);
                    Ok::<_, String>(i)
                }
            };
            let mut tester = OperatorTester::new(&rt.env, AsyncMap::new(options.capacity(4), f)).unwrap();
            (0..40).for_each(|i| tester.push(i, i as u64).unwrap());
            tester.end().unwrap();
            let all = out(&mut tester);
            assert_eq!(under.0.1.load(Ordering::SeqCst), 4);
            let mut sorted = all.clone();
            sorted.sort_unstable();
            assert!(sorted.iter().copied().eq(0..40), "{all:?}");
            assert_eq!(all == sorted, options.ordered, "{all:?}");
        }
    }

    #[test]
    fn a_call_that_panics_is_made_again() {
        let rt = TestRuntime::new().unwrap();
        let tries = Arc::new(AtomicUsize::new(0));
        let counted = tries.clone();
        let f = move |i: u64| {
            let n = counted.fetch_add(1, Ordering::SeqCst);
            async move {
                assert!(n >= 2, "not yet");
                Ok::<_, String>(i)
            }
        };
        let options = AsyncOptions::ordered().retries(2, Duration::ZERO);
        let mut tester = OperatorTester::new(&rt.env, AsyncMap::new(options, f.clone())).unwrap();
        tester.push(1, 7).unwrap();
        tester.end().unwrap();
        assert_eq!((out(&mut tester), tries.load(Ordering::SeqCst)), (vec![7], 3));

        tries.store(0, Ordering::SeqCst);
        let options = AsyncOptions::ordered().retries(1, Duration::ZERO);
        let mut tester = OperatorTester::new(&rt.env, AsyncMap::new(options, f)).unwrap();
        tester.push(1, 7).unwrap();
        let failure = tester.end().unwrap_err();
        assert_eq!(failure.kind, FailureKind::UserPanic);
        assert!(failure.message.contains("not yet (tried 2 times)"), "{failure:?}");
    }
}
