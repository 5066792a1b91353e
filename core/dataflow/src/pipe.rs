//! Pipes: the typed recipe of a chain, built from its end towards its head by continuation; and inlets, where a type is
//! erased at the price of one dynamic call a batch.

use crate::{
    batch::{Batch, Time},
    build::{BuildCx, OpCx},
    plan::PlanBuilder,
    push::{Barrier, Chained, Control, Flow, Mark, Operator, Push, Ready, STRIDE},
};
use parking_lot::Mutex;
use std::sync::{Arc, OnceLock};
use thalweg_model::TaskFailure;

/// Builds something for one attempt of one subtask, on its slot's thread.
pub type Recipe<B> = Box<dyn FnOnce(&BuildCx) -> Result<B, TaskFailure>>;

/// Gives a recipe to each attempt of each subtask. They take turns here, as a plan's functions are `Send` alone; they build at
/// the same time, as opening a function may take long, or wait for another subtask's.
pub type Make<B> = Box<dyn Fn() -> Recipe<B> + Send>;

/// What the plan holds of an operator: the operator before it is opened. Each attempt of each subtask opens a clone.
pub trait Transform<T>: Clone + Send + 'static {
    /// What comes out.
    type Out: 'static;
    /// The live operator; it need not be `Send`.
    type Op: Operator<T, Out = Self::Out>;
    /// Is all that it makes of a record given out by the time its `ready` says yes? Records of one split of a source stay
    /// apart from the next one's then.
    const IN_STEP: bool = false;
    /// Why it must be in the chain of what is in front of it, where it must.
    fn stays(&self) -> Option<&'static str> {
        None
    }
    /// Opens the live one, on the slot's thread.
    fn open(self, cx: &OpCx) -> Result<Self::Op, TaskFailure>;
}

/// The recipe of a chain that is still open at its end.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a pipe of a stream",
    note = "`.boxed()` gives the nameable type `DataStream<Item>`"
)]
pub trait Pipe: Clone + Send + 'static {
    /// What flows out of it.
    type Item: 'static;
    /// What the closed chain is: a task, or something that an inlet feeds.
    type Built: 'static;
    /// Builds the chain before `next`.
    fn build<N: Push<Self::Item> + 'static>(self, cx: &BuildCx, next: N) -> Result<Self::Built, TaskFailure>;
    /// Hands the closed recipe to whatever feeds this pipe.
    fn install(&self, plan: &PlanBuilder, vertex: usize, make: Make<Self::Built>);
    /// Does it begin with a source of the same task, and is every operator since then [in step](Transform::IN_STEP)?
    fn in_step(&self) -> bool {
        false
    }
    /// Where nothing is in it yet, it begins behind what `exchange` makes of its inlet.
    fn behind(self, exchange: impl FnOnce(Inlet<Self::Item>) -> Inlet<Self::Item>) -> Self {
        let _ = exchange;
        self
    }
}

/// A pipe and one more operator.
#[derive(Clone)]
pub struct Then<P, O> {
    up: P,
    op: O,
    index: usize,
}

impl<P, O> Then<P, O> {
    /// `op`, the operator of this index in its vertex, after `up`.
    pub fn new(up: P, op: O, index: usize) -> Self {
        Self { up, op, index }
    }

    pub(crate) fn op(&self) -> &O {
        &self.op
    }

    pub(crate) fn into_parts(self) -> (P, O) {
        (self.up, self.op)
    }

    /// The operator, for options that are given after it.
    pub fn op_mut(&mut self) -> &mut O {
        &mut self.op
    }
}

impl<P: Pipe, O: Transform<P::Item>> Pipe for Then<P, O> {
    type Item = O::Out;
    type Built = P::Built;
    fn build<N: Push<O::Out> + 'static>(self, cx: &BuildCx, next: N) -> Result<P::Built, TaskFailure> {
        let open = cx.op(self.index)?;
        let op = self.op.open(&open)?;
        self.up.build(cx, Chained::new(op, open.uid, next))
    }
    fn install(&self, plan: &PlanBuilder, vertex: usize, make: Make<P::Built>) {
        self.up.install(plan, vertex, make);
    }
    fn in_step(&self) -> bool {
        O::IN_STEP && self.up.in_step()
    }
}

/// The end of a chain: an exchange, an outlet or a sink.
pub trait Terminal<T>: Clone + Send + 'static {
    /// The live end.
    type End: Push<T> + 'static;
    /// Opens it, on the slot's thread.
    fn open(self, cx: &BuildCx) -> Result<Self::End, TaskFailure>;
}

/// Closes a chain with an end.
pub fn close<P: Pipe, K: Terminal<P::Item>>(plan: &PlanBuilder, vertex: usize, pipe: P, end: K) {
    let recipe = pipe.clone();
    let make = move || -> Recipe<P::Built> {
        let (recipe, end) = (recipe.clone(), end.clone());
        Box::new(move |cx| recipe.build(cx, end.open(cx)?))
    };
    pipe.install(plan, vertex, Box::new(make));
}

/// The nameable head of a chain: takes batches through one dynamic call each. An input gate, a split or a box feeds it.
pub struct Inlet<T> {
    takers: Arc<Mutex<Vec<Make<Box<dyn Push<T>>>>>>,
    copy: Arc<OnceLock<fn(&T) -> T>>,
    in_step: bool,
}

impl<T> Clone for Inlet<T> {
    fn clone(&self) -> Self {
        Self { takers: self.takers.clone(), copy: self.copy.clone(), in_step: self.in_step }
    }
}

impl<T: 'static> Default for Inlet<T> {
    fn default() -> Self {
        Self { takers: Arc::default(), copy: Arc::default(), in_step: false }
    }
}

impl<T: 'static> Inlet<T> {
    /// One that a chain of the same task will feed.
    pub fn behind(pipe: &impl Pipe<Item = T>) -> Self {
        Self { in_step: pipe.in_step(), ..Self::default() }
    }

    /// Several chains take from it: each but the last gets copies.
    pub fn share(&self)
    where
        T: Clone,
    {
        let _ = self.copy.set(T::clone);
    }

    /// Does a chain take from it?
    pub fn is_taken(&self) -> bool {
        !self.takers.lock().is_empty()
    }

    /// The feeding end.
    pub fn open(&self, cx: &BuildCx) -> Result<Box<dyn Push<T>>, TaskFailure> {
        let recipes: Vec<_> = self.takers.lock().iter().map(|make| make()).collect();
        let mut takers = recipes.into_iter().map(|recipe| recipe(cx)).collect::<Result<Vec<_>, _>>()?;
        if takers.len() == 1
            && let Some(only) = takers.pop()
        {
            return Ok(only);
        }
        Ok(Box::new(Outlet::new(takers, self.copy.get().copied())))
    }
}

impl<T: 'static> Pipe for Inlet<T> {
    type Item = T;
    type Built = Box<dyn Push<T>>;
    fn build<N: Push<T> + 'static>(self, _: &BuildCx, next: N) -> Result<Box<dyn Push<T>>, TaskFailure> {
        Ok(Box::new(next))
    }
    fn install(&self, _: &PlanBuilder, _: usize, make: Make<Box<dyn Push<T>>>) {
        self.takers.lock().push(make);
    }
    fn in_step(&self) -> bool {
        self.in_step
    }
    fn behind(self, exchange: impl FnOnce(Inlet<T>) -> Inlet<T>) -> Self {
        exchange(self)
    }
}

/// Ends a chain in an inlet of the same task.
pub struct ToInlet<T>(pub Inlet<T>);

impl<T> Clone for ToInlet<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: 'static> Terminal<T> for ToInlet<T> {
    type End = Outlet<T>;
    fn open(self, cx: &BuildCx) -> Result<Outlet<T>, TaskFailure> {
        Outlet::feeding(&self.0, cx)
    }
}

/// Feeds inlets from within a chain. It gathers a small batch, so that the dynamic call is paid once a batch.
pub struct Outlet<T> {
    takers: Vec<Box<dyn Push<T>>>,
    // Which takers are done with the mark or end that is on its way.
    passed: Vec<bool>,
    gathered: Batch<T>,
    copy: Option<fn(&T) -> T>,
}

impl<T: 'static> Outlet<T> {
    /// Feeds this inlet: a side output.
    pub(crate) fn feeding(inlet: &Inlet<T>, cx: &BuildCx) -> Result<Self, TaskFailure> {
        Ok(Self::new(vec![inlet.open(cx)?], None))
    }

    fn new(takers: Vec<Box<dyn Push<T>>>, copy: Option<fn(&T) -> T>) -> Self {
        Self { passed: vec![false; takers.len()], takers, gathered: Batch::with_capacity(STRIDE), copy }
    }

    #[inline(never)]
    fn drain(&mut self) {
        if self.gathered.is_empty() {
            return;
        }
        let Some((last, others)) = self.takers.split_last_mut() else { return self.gathered.clear() };
        if let Some(copy) = self.copy {
            for taker in others {
                let mut copied = Batch::of(self.gathered.items().iter().map(copy).collect());
                copied.set_times(self.gathered.times().to_vec());
                taker.push_batch(&mut copied, usize::MAX);
            }
        }
        last.push_batch(&mut self.gathered, usize::MAX);
        self.gathered.clear();
    }

    fn each(&mut self, mut say: impl FnMut(&mut dyn Push<T>) -> Flow) -> Flow {
        self.drain();
        for (taker, passed) in self.takers.iter_mut().zip(&mut self.passed) {
            if !*passed {
                *passed = say(&mut **taker) == Flow::Done;
            }
        }
        if self.passed.iter().all(|p| *p) {
            self.passed.fill(false);
            Flow::Done
        } else {
            Flow::More
        }
    }
}

impl<T: 'static> Control for Outlet<T> {
    fn ready(&mut self) -> Ready {
        // Now, and not when a barrier comes: what a taker makes of a record may need more than one turn.
        self.drain();
        let mut all = Ready::Yes;
        for taker in &mut self.takers {
            match (taker.ready(), all) {
                // One that is busy can go on by itself, so the slot must not park.
                (Ready::Busy, _) => all = Ready::Busy,
                (Ready::Blocked, Ready::Yes) => all = Ready::Blocked,
                _ => {}
            }
        }
        all
    }
    fn mark(&mut self, mark: Mark, budget: &mut usize) -> Flow {
        self.each(|t| t.mark(mark, budget))
    }
    fn barrier(&mut self, barrier: &mut Barrier) {
        self.drain();
        self.takers.iter_mut().for_each(|t| t.barrier(barrier));
    }
    fn latency(&mut self, marker: Time) {
        self.drain();
        self.takers.iter_mut().for_each(|t| t.latency(marker));
    }
    fn flush(&mut self) {
        self.drain();
        self.takers.iter_mut().for_each(|t| t.flush());
    }
    fn end(&mut self, budget: &mut usize) -> Flow {
        self.each(|t| t.end(budget))
    }
    fn drained(&mut self) -> bool {
        self.takers.iter_mut().all(|t| t.drained())
    }
}

impl<T: 'static> Push<T> for Outlet<T> {
    #[inline(always)]
    fn push(&mut self, at: Time, item: T) {
        self.gathered.push_any_time(at);
        self.gathered.push(item);
        if self.gathered.len() == STRIDE {
            self.drain();
        }
    }
    fn push_batch(&mut self, batch: &mut Batch<T>, limit: usize) {
        if let [only] = &mut self.takers[..]
            && self.gathered.is_empty()
        {
            return only.push_batch(batch, limit);
        }
        batch.each(limit, |_, at, item| self.push(at, item));
    }
}
