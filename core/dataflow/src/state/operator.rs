//! Lists of an operator without keys: what a function has gathered, dealt out anew when the parallelism changes.

use crate::{build::OpCx, codec, key::Data};
use std::{any::Any, borrow::Cow, marker::PhantomData};
use thalweg_model::{FailureKind, TaskFailure};

use super::named::SavedStates;

/// A typed handle of a list that a function without keys has in each subtask.
pub struct OperatorListState<V> {
    name: Cow<'static, str>,
    union: bool,
    index: usize,
    _t: PhantomData<fn() -> V>,
}

impl<V> Clone for OperatorListState<V> {
    fn clone(&self) -> Self {
        Self { name: self.name.clone(), union: self.union, index: self.index, _t: PhantomData }
    }
}

impl<V> OperatorListState<V> {
    /// By this name, which is its own within the function. After a restore at another parallelism the elements of all
    /// subtasks are dealt out to the new ones, each to one.
    pub fn new(name: impl Into<Cow<'static, str>>) -> Self {
        Self { name: name.into(), union: false, index: usize::MAX, _t: PhantomData }
    }

    /// The same, but after a restore each subtask has the elements of all, to choose from.
    pub fn union(name: impl Into<Cow<'static, str>>) -> Self {
        Self { union: true, ..Self::new(name) }
    }
}

/// Where a function without keys adds its states when a subtask begins.
pub struct OperatorStates {
    lists: Vec<NamedList>,
    error: Option<String>,
}

struct NamedList {
    name: Cow<'static, str>,
    union: bool,
    items: Box<dyn AnyList>,
}

trait AnyList: Any {
    /// Adds those elements of a part that `mine` names by their number.
    fn restore(&mut self, part: &[u8], mine: &mut dyn FnMut() -> bool) -> Result<(), String>;
    fn snapshot(&self) -> Result<Vec<u8>, String>;
}

impl<V: Data> AnyList for Vec<V> {
    fn restore(&mut self, part: &[u8], mine: &mut dyn FnMut() -> bool) -> Result<(), String> {
        self.extend(codec::decode::<Vec<V>>(part)?.into_iter().filter(|_| mine()));
        Ok(())
    }
    fn snapshot(&self) -> Result<Vec<u8>, String> {
        codec::encode(self)
    }
}

/// Are the subtasks that wrote a snapshot those that there are now? Each wrote, if only that it had nothing, but for those
/// that had ended.
fn are_these(writers: impl ExactSizeIterator<Item = u32>, parallelism: u32) -> bool {
    writers.len() == parallelism as usize && writers.max().is_none_or(|last| last < parallelism)
}

impl OperatorStates {
    pub(crate) fn new() -> Self {
        Self { lists: Vec::new(), error: None }
    }

    /// The function has this state.
    pub fn add<V: Data>(&mut self, state: &mut OperatorListState<V>) {
        state.index = self.lists.len();
        if self.lists.iter().any(|l| l.name == state.name) {
            let name = &state.name;
            self.error.get_or_insert_with(|| format!("two states are named {name:?}: give each a name of its own"));
        }
        self.lists.push(NamedList { name: state.name.clone(), union: state.union, items: Box::new(Vec::<V>::new()) });
    }

    /// Takes this subtask's part of what all subtasks saved.
    pub(crate) fn restore(&mut self, cx: &OpCx, parts: Vec<(u32, SavedStates)>) -> Result<(), TaskFailure> {
        if let Some(e) = self.error.take() {
            return Err(cx.failure(FailureKind::User, e));
        }
        let same = are_these(parts.iter().map(|(writer, _)| *writer), cx.parallelism);
        let mut dealt = vec![0_u32; self.lists.len()];
        for (writer, (name, part)) in parts.into_iter().flat_map(|(w, part)| part.into_iter().map(move |p| (w, p))) {
            let Some(at) = self.lists.iter().position(|l| l.name == name) else {
                let message = format!(
                    "the snapshot has a state {name:?} that the function does not add: add it, also where it is not used"
                );
                return Err(cx.failure(FailureKind::Incompatible, message));
            };
            let (union, next) = (self.lists[at].union, &mut dealt[at]);
            let mut mine = || {
                let to = std::mem::replace(next, (*next + 1) % cx.parallelism.max(1));
                union || if same { writer == cx.subtask } else { to == cx.subtask }
            };
            self.lists[at].items.restore(&part, &mut mine).map_err(|e| {
                cx.failure(FailureKind::Storage, format!("the snapshot's state {name:?} cannot be read: {e}"))
            })?;
        }
        Ok(())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lists.is_empty()
    }

    pub(crate) fn snapshot(&self) -> Result<SavedStates, String> {
        self.lists.iter().map(|l| Ok((l.name.to_string(), l.items.snapshot()?))).collect()
    }

    /// The elements.
    #[inline]
    pub(crate) fn list<V: Data>(&mut self, state: &OperatorListState<V>) -> &mut Vec<V> {
        let list = self.lists.get_mut(state.index).map(|l| &mut *l.items as &mut dyn Any);
        match list.and_then(|l| l.downcast_mut()) {
            Some(list) => list,
            None => super::named::unknown(&state.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subtasks_keep_their_own_only_where_all_of_them_are_there_again() {
        assert!(are_these([0, 1, 2].into_iter(), 3));
        assert!(!are_these([0, 1].into_iter(), 3));
        assert!(!are_these([0, 1, 2, 3].into_iter(), 3));
        assert!(!are_these([0, 1, 3].into_iter(), 3), "one of four had ended, and nobody is the fourth now");
    }
}
