//! The filter. It keeps small records back for a moment, so that no branch depends on what the function answers.
//!
//! A branch that is taken by chance is guessed wrong about as often as it is taken the rarer way, and what follows it in
//! the chain starts over each time. Here each record is written behind the kept ones, and stays if it is to be kept;
//! those go on together. Not for records that are dear to copy or to drop: for these there is a branch.
#![allow(unsafe_code)]

use crate::{
    batch::Time,
    build::OpCx,
    ops::ClonedToSubtasks,
    pipe::Transform,
    push::{Operator, Push, Ready},
    task::TaskCell,
};
use std::{
    mem::{MaybeUninit, needs_drop},
    rc::Rc,
};
use thalweg_model::TaskFailure;

/// Kept records that go on together.
const KEPT: usize = 64;
/// Longest record that is copied rather than branched on, bytes.
const SMALL: usize = 16;

/// Those for which the function says yes.
#[derive(Clone)]
pub struct Filter<F>(pub F);

/// A live [`Filter`].
pub struct FilterOp<F, T> {
    f: F,
    kept: Kept<T>,
    cell: Rc<TaskCell>,
}

/// The first `len` are live, and none of them needs to be dropped.
struct Kept<T> {
    records: [MaybeUninit<(Time, T)>; KEPT],
    len: usize,
}

impl<T> Kept<T> {
    const FITS: bool = !needs_drop::<T>() && size_of::<T>() <= SMALL;

    /// Takes the record if it is kept. There must be room.
    #[inline(always)]
    fn add(&mut self, at: Time, item: T, keep: bool) {
        self.records[self.len].write((at, item));
        self.len += usize::from(keep);
    }

    /// All records go on. Apart, so that the chain behind is compiled once.
    #[inline(never)]
    fn leave(&mut self, out: &mut impl Push<T>) {
        // None is live any more, also when what follows unwinds.
        let len = std::mem::take(&mut self.len);
        for record in &self.records[..len] {
            // SAFETY: the first `len` were written, and each is read once, since `len` is zero now.
            let (at, item) = unsafe { record.assume_init_read() };
            out.push(at, item);
        }
    }
}

impl<T: 'static, F: FnMut(&T) -> bool + ClonedToSubtasks> Transform<T> for Filter<F> {
    type Out = T;
    type Op = FilterOp<F, T>;
    const IN_STEP: bool = true;
    fn open(self, cx: &OpCx) -> Result<Self::Op, TaskFailure> {
        let kept = Kept { records: [const { MaybeUninit::uninit() }; KEPT], len: 0 };
        Ok(FilterOp { f: self.0, kept, cell: cx.cell() })
    }
}

impl<T: 'static, F: FnMut(&T) -> bool + 'static> Operator<T> for FilterOp<F, T> {
    type Out = T;
    #[inline(always)]
    fn item(&mut self, at: Time, item: T, out: &mut impl Push<T>) {
        let keep = (self.f)(&item);
        if Kept::<T>::FITS {
            self.kept.add(at, item, keep);
            if self.kept.len == KEPT {
                // Most of them came before the one that is known where it stands.
                self.cell.place.forget();
                self.kept.leave(out);
            }
        } else if keep {
            out.push(at, item);
        }
    }
    #[inline(always)]
    fn ready(&mut self, out: &mut impl Push<T>) -> Ready {
        if !Kept::<T>::FITS || self.kept.len == 0 {
            return Ready::Yes;
        }
        self.kept.leave(out);
        // They may have used the room up.
        out.ready()
    }
    fn flush(&mut self, out: &mut impl Push<T>) {
        if Kept::<T>::FITS {
            self.kept.leave(out);
        }
    }
}
