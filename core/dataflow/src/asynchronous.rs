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
    collections::{HashMap, VecDeque},
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
use thalweg_model::{FailureKind, TaskFailure};

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
        Self { capacity: calls.max(1), ..self }
    }

    /// A call that takes longer has failed.
    pub fn timeout(self, after: Duration) -> Self {
        Self { timeout: Some(after), ..self }
    }

    /// A call that has failed is made so many times again, after a pause that doubles each time. Without it one failure
    /// fails the job.
    pub fn retries(self, times: u32, pause: Duration) -> Self {
        Self { retries: times, pause, ..self }
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

/// What is under way, in the order in which it came.
enum Entry<T, U> {
    /// It is kept until its result has left: after a restore it is called for again.
    Called { at: Time, item: T, result: Option<U> },
    /// Its result has left.
    Left,
    /// A watermark that came behind what stands before it.
    Mark(Mark),
}

type Answer<U> = (u64, Result<U, TaskFailure>);

/// A live [`AsyncMap`].
pub struct AsyncMapOp<T, U, F> {
    f: F,
    options: AsyncOptions,
    entries: VecDeque<Entry<T, U>>,
    /// Number of the first entry.
    first: u64,
    /// Number of the first entry that was not called for yet.
    next_call: u64,
    calls: HashMap<u64, Task>,
    answers: Receiver<Answer<U>>,
    answer: Sender<Answer<U>>,
    ending: bool,
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
        let mut entries = VecDeque::new();
        for (writer, part) in cx.restored().filter(|(writer, _)| writer % cx.parallelism == cx.subtask) {
            let part: Vec<(Time, T)> = codec::decode(part).map_err(|e| {
                cx.failure(FailureKind::Storage, format!("the records that subtask {writer} had cannot be read: {e}"))
            })?;
            entries.extend(part.into_iter().map(|(at, item)| Entry::Called { at, item, result: None }));
        }
        let (answer, answers) = channel();
        Ok(AsyncMapOp {
            f: self.f,
            options: self.options,
            entries,
            first: 0,
            next_call: 0,
            calls: HashMap::new(),
            answers,
            answer,
            ending: false,
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
    /// Calls for as many as may be under way.
    fn call(&mut self) {
        while self.calls.len() < self.options.capacity {
            let Some(entry) = self.entries.get((self.next_call - self.first) as usize) else { return };
            let number = self.next_call;
            self.next_call += 1;
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
                    let why = match one.await {
                        Some(Ok(Ok(value))) => break Ok(value),
                        Some(Ok(Err(e))) => e,
                        Some(Err(panic)) => {
                            break Err(TaskFailure::new(FailureKind::UserPanic, panic_message(&*panic)));
                        }
                        None => format!("no answer within {:?}", options.timeout.unwrap_or_default()),
                    };
                    if left == 0 {
                        let tries = options.retries + 1;
                        let why = if tries > 1 { format!("{why} (tried {tries} times)") } else { why };
                        break Err(TaskFailure::new(FailureKind::User, why));
                    }
                    left -= 1;
                    clock.sleep_until(clock.now() + pause).await;
                    pause = pause.saturating_mul(2);
                };
                let result = result.map_err(|f| TaskFailure { uid: Some(uid.to_string()), ..f });
                // The operator may be gone.
                let _ = answer.send((number, result));
                waker.wake();
            });
            self.calls.insert(number, task);
        }
    }

    /// Takes what has come back.
    fn hear(&mut self) {
        while let Ok((number, result)) = self.answers.try_recv() {
            self.calls.remove(&number);
            match result {
                Err(failure) => self.cell.fail(failure),
                Ok(value) => {
                    let entry = number.checked_sub(self.first).and_then(|i| self.entries.get_mut(i as usize));
                    if let Some(Entry::Called { result, .. }) = entry {
                        *result = Some(value);
                    }
                }
            }
        }
    }

    /// Gives out what may leave; answers whether more may.
    fn give(&mut self, out: &mut impl Push<U>) -> bool {
        let mut left = STRIDE;
        while let Some(Entry::Called { result: Some(_), .. } | Entry::Left) = self.entries.front() {
            if left == 0 {
                return true;
            }
            if let Some(Entry::Called { at, result: Some(value), .. }) = self.entries.pop_front() {
                left -= 1;
                out.push(at, value);
            }
            self.first += 1;
        }
        if self.options.ordered {
            return left < STRIDE;
        }
        for entry in &mut self.entries {
            match entry {
                Entry::Mark(_) => break,
                Entry::Called { result: Some(_), .. } if left == 0 => return true,
                Entry::Called { result: Some(_), .. } => {
                    if let Entry::Called { at, result: Some(value), .. } = std::mem::replace(entry, Entry::Left) {
                        left -= 1;
                        out.push(at, value);
                    }
                }
                _ => {}
            }
        }
        left < STRIDE
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
        self.entries.push_back(Entry::Called { at, item, result: None });
        self.call();
    }

    fn ready(&mut self, out: &mut impl Push<U>) -> Ready {
        self.hear();
        self.call();
        if self.give(out) {
            // What was emitted just now may have used the room downstream up.
            return Ready::Busy;
        }
        // A watermark whose turn has come is told before anything else.
        if matches!(self.entries.front(), Some(Entry::Mark(_))) {
            return Ready::Yes;
        }
        let full = self.entries.len() >= self.options.capacity;
        if full || self.ending && !self.entries.is_empty() { Ready::Blocked } else { Ready::Yes }
    }

    fn mark(&mut self, mark: Mark, _: &mut usize, _: &mut impl Push<U>) -> Flow {
        // The last one is told when all is over.
        if mark == Mark::At(Time::MAX) {
            self.ending = true;
            return if self.entries.is_empty() { Flow::Done } else { Flow::More };
        }
        if let Some(Entry::Mark(last)) = self.entries.back_mut() {
            *last = mark;
        } else {
            self.entries.push_back(Entry::Mark(mark));
        }
        Flow::Done
    }

    fn passes(&mut self, mark: Mark) -> Option<Mark> {
        (mark == Mark::At(Time::MAX)).then_some(mark)
    }

    fn makes(&mut self) -> Option<Mark> {
        let Some(Entry::Mark(mark)) = self.entries.front() else { return None };
        let mark = *mark;
        self.entries.pop_front();
        self.first += 1;
        self.next_call = self.next_call.max(self.first);
        Some(mark)
    }

    fn end(&mut self, _: &mut usize, _: &mut impl Push<U>) -> Flow {
        self.ending = true;
        if self.entries.is_empty() { Flow::Done } else { Flow::More }
    }

    fn snapshot(&mut self) -> Option<Vec<u8>> {
        let of = |entry: &Entry<T, U>| match entry {
            Entry::Called { at, item, .. } => Some((*at, item.clone())),
            Entry::Left | Entry::Mark(_) => None,
        };
        let entries: Vec<_> = self.entries.iter().filter_map(of).collect();
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
