//! Side outputs: further kinds of records that an operator gives out, each on a stream of its own.
//!
//! A tag names one. The program makes it, hands a clone to the function that writes to it, and asks the stream for what
//! comes out of it. What is written to a tag that nobody asked for is dropped.

use crate::{
    batch::Time,
    build::BuildCx,
    pipe::{Inlet, Outlet},
    push::{Barrier, Control, Flow, Mark, Push, Ready},
};
use parking_lot::Mutex;
use std::{any::Any, cell::RefCell, marker::PhantomData, rc::Rc, sync::Arc};
use thalweg_model::TaskFailure;

/// Names a side output and knows the type of its records.
pub struct OutputTag<T> {
    identity: Arc<str>,
    _t: PhantomData<fn() -> T>,
}

impl<T> OutputTag<T> {
    /// A new one; each is of its own, whatever its name. The name is for messages.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self { identity: name.into(), _t: PhantomData }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.identity
    }
}

impl<T> Clone for OutputTag<T> {
    fn clone(&self) -> Self {
        Self { identity: self.identity.clone(), _t: PhantomData }
    }
}

/// What a side output leads to, whatever its type.
trait SideOut: Control {
    fn any(&mut self) -> &mut dyn Any;
}

impl<T: 'static> SideOut for Outlet<T> {
    fn any(&mut self) -> &mut dyn Any {
        self
    }
}

type Open = Box<dyn Fn(&BuildCx) -> Result<Box<dyn SideOut>, TaskFailure> + Send>;

/// The side outputs of one operator, as the plan has them.
#[derive(Clone, Default)]
pub struct Sides(Arc<Mutex<Vec<(Arc<str>, Open)>>>);

impl Sides {
    /// Did the program ask for one?
    pub fn is_asked_for(&self) -> bool {
        !self.0.lock().is_empty()
    }

    /// The stream of a tag begins in this inlet. A tag is taken once; the error says what to do for more.
    pub fn add<T: 'static>(&self, tag: &OutputTag<T>, inlet: &Inlet<T>) -> Result<(), String> {
        let mut all = self.0.lock();
        if all.iter().any(|(tag_, _)| Arc::ptr_eq(tag_, &tag.identity)) {
            return Err(format!(
                "side output {:?} is taken twice: split() the stream that the first one gives",
                tag.name()
            ));
        }
        let inlet = inlet.clone();
        all.push((tag.identity.clone(), Box::new(move |cx| Ok(Box::new(Outlet::feeding(&inlet, cx)?)))));
        Ok(())
    }

    /// Opens all that were asked for.
    pub fn open(&self, cx: &BuildCx) -> Result<LiveSides, TaskFailure> {
        let all = self.0.lock();
        let open = all.iter().map(|(tag, open)| Ok((tag.clone(), open(cx)?)));
        let outs = open.collect::<Result<_, TaskFailure>>()?;
        Ok(LiveSides { outs, passed: Vec::new(), gathered: cx.sides.clone() })
    }
}

/// What an operator under test has written to any tag, in order.
#[derive(Clone, Default)]
pub(crate) struct GatheredSides(Rc<RefCell<Vec<(Arc<str>, Time, Box<dyn Any>)>>>);

impl GatheredSides {
    /// What was written to this tag since the last call, each with its time.
    pub(crate) fn take<T: 'static>(&self, tag: &OutputTag<T>) -> Vec<(Time, T)> {
        let mut all = self.0.borrow_mut();
        let mine = all.extract_if(.., |(of, _, item)| Arc::ptr_eq(of, &tag.identity) && item.is::<T>());
        mine.filter_map(|(_, at, item)| Some((at, *item.downcast::<T>().ok()?))).collect()
    }
}

/// Side outputs of a live operator.
#[derive(Default)]
pub struct LiveSides {
    outs: Vec<(Arc<str>, Box<dyn SideOut>)>,
    // Only in tests of one operator: where what goes to no stream is gathered.
    gathered: Option<GatheredSides>,
    // Which are done with the mark or end that is on its way.
    passed: Vec<bool>,
}

impl LiveSides {
    /// Gives a record out. Dropped where nobody asked for it.
    #[inline]
    pub fn emit<T: 'static>(&mut self, tag: &OutputTag<T>, at: Time, item: T) {
        for (identity, out) in &mut self.outs {
            if Arc::ptr_eq(identity, &tag.identity)
                && let Some(out) = out.any().downcast_mut::<Outlet<T>>()
            {
                return out.push(at, item);
            }
        }
        if let Some(gathered) = &self.gathered {
            gathered.0.borrow_mut().push((tag.identity.clone(), at, Box::new(item)));
        }
    }

    /// What [`Operator::side`](crate::Operator::side) answers.
    #[inline]
    pub fn control(&mut self) -> Option<&mut dyn Control> {
        if self.outs.is_empty() { None } else { Some(self) }
    }

    fn each(&mut self, mut say: impl FnMut(&mut dyn SideOut) -> Flow) -> Flow {
        self.passed.resize(self.outs.len(), false);
        for ((_, out), passed) in self.outs.iter_mut().zip(&mut self.passed) {
            if !*passed {
                *passed = say(&mut **out) == Flow::Done;
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

impl Control for LiveSides {
    fn ready(&mut self) -> Ready {
        let mut all = Ready::Yes;
        for (_, out) in &mut self.outs {
            match (out.ready(), all) {
                (Ready::Busy, _) => all = Ready::Busy,
                (Ready::Blocked, Ready::Yes) => all = Ready::Blocked,
                _ => {}
            }
        }
        all
    }
    fn mark(&mut self, mark: Mark, budget: &mut usize) -> Flow {
        self.each(|out| out.mark(mark, budget))
    }
    fn barrier(&mut self, barrier: &mut Barrier) {
        self.outs.iter_mut().for_each(|(_, out)| out.barrier(barrier));
    }
    fn latency(&mut self, marker: Time) {
        self.outs.iter_mut().for_each(|(_, out)| out.latency(marker));
    }
    fn flush(&mut self) {
        self.outs.iter_mut().for_each(|(_, out)| out.flush());
    }
    fn end(&mut self, budget: &mut usize) -> Flow {
        self.each(|out| out.end(budget))
    }
    fn drained(&mut self) -> bool {
        self.outs.iter_mut().all(|(_, out)| out.drained())
    }
}
