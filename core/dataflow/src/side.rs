//! Side outputs: further kinds of records that an operator gives out, each on a stream of its own.
//!
//! A tag names one. The program makes it, hands a clone to the function that writes to it, and asks the stream for what
//! comes out of it. What is written to a tag that nobody asked for is dropped; but where somebody asked with another tag
//! of that name, the two were meant to be one, and that is an error.

use crate::{
    batch::Time,
    build::OpCx,
    pipe::{Inlet, Make, Outlet, Recipe},
    push::{Barrier, Control, Flow, Mark, Push, Ready},
    task::TaskCell,
};
use parking_lot::Mutex;
use std::{
    any::{Any, type_name},
    cell::RefCell,
    marker::PhantomData,
    rc::Rc,
    sync::Arc,
};
use thalweg_model::{FailureKind, TaskFailure};

/// Names a side output and knows the type of its records.
pub struct OutputTag<T> {
    identity: Arc<str>,
    _t: PhantomData<fn() -> T>,
}

impl<T> OutputTag<T> {
    /// A new one; each is of its own, whatever its name, and clones are the same one. The name is for messages.
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
    /// The type of its records.
    fn item(&self) -> &'static str;
}

impl<T: 'static> SideOut for Outlet<T> {
    fn any(&mut self) -> &mut dyn Any {
        self
    }
    fn item(&self) -> &'static str {
        type_name::<T>()
    }
}

/// A tag and the type of its records, when they are not known to the compiler.
struct Tag {
    identity: Arc<str>,
    item: &'static str,
}

impl Tag {
    fn of<T>(tag: &OutputTag<T>) -> Self {
        Self { identity: tag.identity.clone(), item: type_name::<T>() }
    }

    /// Why what is written to `other` does not come out of this one, which was asked for, though their names are equal.
    fn differs(&self, other: &Self) -> Option<String> {
        let same = Arc::ptr_eq(&self.identity, &other.identity) && self.item == other.item;
        (self.identity == other.identity && !same).then(|| two_tags(&self.identity, self.item, other.item))
    }
}

fn two_tags(name: &str, asked: &str, written: &str) -> String {
    let how = if asked == written {
        format!("is asked for with another tag than the operator writes to, both of {asked}")
    } else {
        format!("is asked for with a tag of {asked}, and the operator writes {written} to it")
    };
    format!("side output {name:?} {how}: make the tag once, and give the operator and side_output() clones of it")
}

#[derive(Default)]
struct Drafted {
    asked: Vec<(Tag, Make<Box<dyn SideOut>>)>,
    /// Of which the plan knows that the operator writes to them.
    written: Vec<Tag>,
    /// There is no function that could write to others.
    only_these: bool,
}

/// The side outputs of one operator, as the plan has them.
#[derive(Clone, Default)]
pub struct Sides(Arc<Mutex<Drafted>>);

impl Sides {
    /// Of windows that write late records to this tag, if they have one, and whose function writes to others perhaps.
    pub fn of_late<T>(tag: Option<&OutputTag<T>>, function_writes: bool) -> Self {
        let sides = Self::default();
        sides.0.lock().only_these = !function_writes;
        if let Some(tag) = tag {
            sides.writes(tag);
        }
        sides
    }

    /// Did the program ask for one?
    pub fn is_asked_for(&self) -> bool {
        !self.0.lock().asked.is_empty()
    }

    /// The operator writes to this tag. Those of functions become known when they write.
    pub fn writes<T>(&self, tag: &OutputTag<T>) {
        self.0.lock().written.push(Tag::of(tag));
    }

    /// The stream of a tag begins in this inlet. A tag is taken once; the error says what to do for more.
    pub fn add<T: 'static>(&self, tag: &OutputTag<T>, inlet: &Inlet<T>) -> Result<(), String> {
        let mut all = self.0.lock();
        let asked = Tag::of(tag);
        if let Some(differs) = all.written.iter().find_map(|written| asked.differs(written)) {
            return Err(differs);
        }
        if all.asked.iter().any(|(other, _)| Arc::ptr_eq(&other.identity, &tag.identity)) {
            return Err(format!(
                "side output {:?} is taken twice: split() the stream that the first one gives",
                tag.name()
            ));
        }
        if all.only_these && !all.written.iter().any(|written| Arc::ptr_eq(&written.identity, &tag.identity)) {
            return Err(format!(
                "side output {:?}: nothing is written to it; have late records written to it by side_output_late_data(&tag) in \
                 front of what the windows give, or give them a function by process()",
                tag.name()
            ));
        }
        let inlet = inlet.clone();
        let make = move || -> Recipe<Box<dyn SideOut>> {
            let inlet = inlet.clone();
            Box::new(move |cx| Ok(Box::new(Outlet::feeding(&inlet, cx)?)))
        };
        all.asked.push((asked, Box::new(make)));
        Ok(())
    }

    /// Opens all that were asked for.
    pub fn open(&self, cx: &OpCx) -> Result<LiveSides, TaskFailure> {
        let asked: Vec<_> = self.0.lock().asked.iter().map(|(tag, make)| (tag.identity.clone(), make())).collect();
        let open = asked.into_iter().map(|(identity, recipe)| Ok((identity, recipe(cx.build)?)));
        let outs = open.collect::<Result<_, TaskFailure>>()?;
        let task = (cx.cell(), cx.uid.clone());
        Ok(LiveSides { outs, passed: Vec::new(), gathered: cx.build.sides.clone(), task })
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
pub struct LiveSides {
    outs: Vec<(Arc<str>, Box<dyn SideOut>)>,
    // Only in tests of one operator: where what goes to no stream is gathered.
    gathered: Option<GatheredSides>,
    // Which are done with the mark or end that is on its way.
    passed: Vec<bool>,
    task: (Rc<TaskCell>, Arc<str>),
}

impl LiveSides {
    /// Gives a record out. Dropped where nobody asked for it; where somebody asked with another tag of this name, the task
    /// fails.
    #[inline]
    pub fn emit<T: 'static>(&mut self, tag: &OutputTag<T>, at: Time, item: T) {
        for (identity, out) in &mut self.outs {
            if Arc::ptr_eq(identity, &tag.identity)
                && let Some(out) = out.any().downcast_mut::<Outlet<T>>()
            {
                return out.push(at, item);
            }
        }
        if let Some((_, asked)) = self.outs.iter().find(|(name, _)| *name == tag.identity) {
            return self.refuse(tag.name(), asked.item(), type_name::<T>());
        }
        if let Some(gathered) = &self.gathered {
            gathered.0.borrow_mut().push((tag.identity.clone(), at, Box::new(item)));
        }
    }

    /// A user's error that no restart mends.
    #[cold]
    fn refuse(&self, name: &str, asked: &str, written: &str) {
        let (cell, uid) = &self.task;
        cell.fail_in(uid, FailureKind::Incompatible, two_tags(name, asked, written));
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
