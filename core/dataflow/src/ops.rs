//! Operators made of closures.

pub use crate::filter::Filter;
use crate::{
    batch::Time,
    build::OpCx,
    pipe::Transform,
    push::{Flow, Operator, Push, Ready, STRIDE},
    task::TaskCell,
};
use std::{collections::VecDeque, fmt::Display, ops::ControlFlow, rc::Rc, sync::Arc};
use thalweg_model::{FailureKind, TaskFailure};

/// A function of the user, of which every subtask gets a clone: what it captures must be `Clone + Send + 'static`. Capture an
/// `Arc` where a value is neither.
///
/// The compiler answers a mistake with what a closure captured, and with the name of this trait: hence the name.
pub trait ClonedToSubtasks: Clone + Send + 'static {}
impl<F: Clone + Send + 'static> ClonedToSubtasks for F {}

macro_rules! closures { ($($(#[$doc:meta])* $name:ident),*) => { $(
    $(#[$doc])*
    #[derive(Clone)]
    pub struct $name<F>(pub F);
    impl<T, F: ClonedToSubtasks> Transform<T> for $name<F>
    where
        Self: Operator<T>,
    {
        type Out = <Self as Operator<T>>::Out;
        type Op = Self;
        const IN_STEP: bool = true;
        fn open(self, _: &OpCx) -> Result<Self, TaskFailure> {
            Ok(self)
        }
    }
)* } }
closures!(
    /// One for one.
    Map,
    /// One or none for one.
    FilterMap,
    /// Looks at each.
    Inspect
);

impl<T: 'static, U: 'static, F: FnMut(T) -> U + 'static> Operator<T> for Map<F> {
    type Out = U;
    #[inline(always)]
    fn item(&mut self, at: Time, item: T, out: &mut impl Push<U>) {
        out.push(at, (self.0)(item));
    }
}

impl<T: 'static, U: 'static, F: FnMut(T) -> Option<U> + 'static> Operator<T> for FilterMap<F> {
    type Out = U;
    #[inline(always)]
    fn item(&mut self, at: Time, item: T, out: &mut impl Push<U>) {
        if let Some(u) = (self.0)(item) {
            out.push(at, u);
        }
    }
}

impl<T: 'static, F: FnMut(&T) + 'static> Operator<T> for Inspect<F> {
    type Out = T;
    #[inline(always)]
    fn item(&mut self, at: Time, item: T, out: &mut impl Push<T>) {
        (self.0)(&item);
        out.push(at, item);
    }
}

/// One for one, or the task fails.
#[derive(Clone)]
pub struct TryMap<F>(pub F);

/// A live [`TryMap`].
pub struct TryMapOp<F> {
    f: F,
    uid: Arc<str>,
    cell: Rc<TaskCell>,
}

impl<T: 'static, U: 'static, E: Display, F: FnMut(T) -> Result<U, E> + ClonedToSubtasks> Transform<T> for TryMap<F> {
    type Out = U;
    type Op = TryMapOp<F>;
    const IN_STEP: bool = true;
    fn open(self, cx: &OpCx) -> Result<TryMapOp<F>, TaskFailure> {
        Ok(TryMapOp { f: self.0, uid: cx.uid.clone(), cell: cx.cell() })
    }
}

impl<T: 'static, U: 'static, E: Display, F: FnMut(T) -> Result<U, E> + 'static> Operator<T> for TryMapOp<F> {
    type Out = U;
    #[inline(always)]
    fn item(&mut self, at: Time, item: T, out: &mut impl Push<U>) {
        // After a failure the head stops within a stride; what it still pushes must have no effect.
        if self.cell.has_failed() {
            return;
        }
        match (self.f)(item) {
            Ok(u) => out.push(at, u),
            Err(e) => self.cell.fail_in(&self.uid, FailureKind::User, e.to_string()),
        }
    }
}

/// Any number for one.
#[derive(Clone)]
pub struct FlatMap<F>(pub F);

/// A live [`FlatMap`]: a long iterator is left where it is and goes on in `ready`.
pub struct FlatMapOp<T, I: IntoIterator, F> {
    f: F,
    cursor: Option<(Time, I::IntoIter)>,
    // What was pushed while the cursor was open: at most a stride.
    waiting: VecDeque<(Time, T)>,
}

impl<T: 'static, I: IntoIterator<Item: 'static> + 'static, F: FnMut(T) -> I + ClonedToSubtasks> Transform<T>
    for FlatMap<F>
{
    type Out = I::Item;
    type Op = FlatMapOp<T, I, F>;
    const IN_STEP: bool = true;
    fn open(self, _: &OpCx) -> Result<Self::Op, TaskFailure> {
        Ok(FlatMapOp { f: self.0, cursor: None, waiting: VecDeque::new() })
    }
}

impl<T: 'static, I: IntoIterator<Item: 'static> + 'static, F: FnMut(T) -> I + 'static> FlatMapOp<T, I, F> {
    /// What the function makes of one record goes on until `left` is used up; the rest waits under the cursor.
    #[inline(always)]
    fn begin(&mut self, at: Time, item: T, left: &mut usize, out: &mut impl Push<I::Item>) {
        let items = (self.f)(item).into_iter();
        self.go_on(at, items, left, out);
    }

    /// The only place where an iterator is asked, so that the compiler puts what it does into the loop however long that is,
    /// and the chain behind is compiled into one loop.
    #[inline(never)]
    fn go_on(&mut self, at: Time, mut items: I::IntoIter, left: &mut usize, out: &mut impl Push<I::Item>) {
        let mut n = *left;
        let whole = items.try_for_each(|u| {
            out.push(at, u);
            n -= 1;
            if n == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        *left = n;
        if whole.is_break() {
            self.cursor = Some((at, items));
        }
    }
}

impl<T: 'static, I: IntoIterator<Item: 'static> + 'static, F: FnMut(T) -> I + 'static> Operator<T>
    for FlatMapOp<T, I, F>
{
    type Out = I::Item;
    #[inline(always)]
    fn item(&mut self, at: Time, item: T, out: &mut impl Push<I::Item>) {
        if self.cursor.is_some() {
            self.waiting.push_back((at, item));
            return;
        }
        self.begin(at, item, &mut STRIDE.clone(), out);
    }

    fn ready(&mut self, out: &mut impl Push<I::Item>) -> Ready {
        if self.cursor.is_none() && self.waiting.is_empty() {
            return Ready::Yes;
        }
        let mut left = STRIDE;
        if let Some((at, items)) = self.cursor.take() {
            self.go_on(at, items, &mut left, out);
            if self.cursor.is_some() {
                return Ready::Busy;
            }
        }
        while let Some((at, item)) = self.waiting.pop_front() {
            self.begin(at, item, &mut left, out);
            if self.cursor.is_some() {
                return Ready::Busy;
            }
        }
        // What was emitted just now may have used the room downstream up.
        Ready::Busy
    }

    fn end(&mut self, _: &mut usize, _: &mut impl Push<I::Item>) -> Flow {
        Flow::Done
    }
}
