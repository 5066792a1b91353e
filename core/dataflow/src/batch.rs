//! A batch of records: the unit of exchange, built by one task, moved, consumed in slices by another, and recycled.
#![allow(unsafe_code)]

use crate::key::KeySelect;
use std::ptr;

/// Event time, ms since 1970 UTC.
pub type Time = i64;
/// Of a record without event time.
pub const NO_TIME: Time = i64::MIN;

/// Records, and beside them their times where the edge is timed and their keys' hashes where those are dear.
///
/// It is either being filled (`push`) or being consumed (`each`, from the front); what is left of a batch that is
/// dropped half-way is dropped with it.
pub struct Batch<T> {
    // Being filled: `items[..len]` are live and start = end = 0.
    // Being consumed: `items.len()` is 0 and the live ones are those of the buffer in start..end.
    items: Vec<T>,
    times: Vec<Time>,
    hashes: Vec<u64>,
    start: usize,
    end: usize,
}

impl<T> Default for Batch<T> {
    fn default() -> Self {
        Self::with_capacity(0)
    }
}

impl<T> Batch<T> {
    /// An empty one with room for `n`.
    pub fn with_capacity(n: usize) -> Self {
        Self { items: Vec::with_capacity(n), times: Vec::new(), hashes: Vec::new(), start: 0, end: 0 }
    }

    /// A batch of these records, without times.
    pub fn of(items: Vec<T>) -> Self {
        Self { items, times: Vec::new(), hashes: Vec::new(), start: 0, end: 0 }
    }

    /// Records left.
    #[inline]
    pub fn len(&self) -> usize {
        self.items.len() + self.end - self.start
    }

    /// No record left?
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Room for this many records in all is made, if the batch is empty.
    pub fn reserve_total(&mut self, n: usize) {
        if self.items.capacity() < n && self.is_empty() {
            self.items.reserve(n);
        }
    }

    /// Would one more record make it grow?
    #[inline(always)]
    pub fn is_full(&self) -> bool {
        self.items.len() == self.items.capacity()
    }

    /// Adds a record. Only before the first `each`.
    #[inline(always)]
    pub fn push(&mut self, item: T) {
        debug_assert!(self.end == 0);
        self.items.push(item);
    }

    /// The time of the record that is pushed with it; for all records of a batch or none.
    #[inline(always)]
    pub fn push_time(&mut self, at: Time) {
        self.times.push(at);
    }

    /// The time of the record that is pushed next, where only some have one.
    #[inline(always)]
    pub fn push_any_time(&mut self, at: Time) {
        if at != NO_TIME || !self.times.is_empty() {
            if self.times.len() != self.items.len() {
                self.times.resize(self.items.len(), NO_TIME);
            }
            self.times.push(at);
        }
    }

    /// The hash of the record that is pushed with it; for all records of a batch or none.
    #[inline(always)]
    pub fn push_hash(&mut self, hash: u64) {
        self.hashes.push(hash);
    }

    /// The records that were pushed, before the first `each`.
    pub fn items(&self) -> &[T] {
        &self.items
    }

    /// Their times; empty when untimed.
    pub fn times(&self) -> &[Time] {
        &self.times
    }

    /// Sets the times of a decoded batch.
    pub fn set_times(&mut self, times: Vec<Time>) {
        self.times = times;
    }

    /// Hashes of the records that come next, at most as many as there is room for and as `limit` allows, which goes down by
    /// their number: those that travelled with them where they are dear, else made here.
    #[inline(always)]
    pub fn hashes<S: KeySelect<T>>(&self, key: &S, limit: &mut usize, to: &mut [u64]) -> usize {
        let n = self.len().min(*limit).min(to.len());
        *limit -= n;
        if S::DEAR && !self.hashes.is_empty() {
            to[..n].copy_from_slice(&self.hashes[self.start..self.start + n]);
            return n;
        }
        // SAFETY: the live records are those of the buffer from `start` on, also before the first `each`; `n` is at most their
        // number.
        let next = unsafe { std::slice::from_raw_parts(self.items.as_ptr().add(self.start), n) };
        for (to, item) in to.iter_mut().zip(next) {
            *to = key.hash(item);
        }
        n
    }

    /// Drops what is left and is ready to be filled again.
    pub fn clear(&mut self) {
        self.each(usize::MAX, |_, _, _| {});
        self.items.clear();
        self.times.clear();
        self.hashes.clear();
    }

    /// Takes up to `limit` records from the front, each with its time and, where it was shipped, its hash.
    ///
    /// One loop for timed and untimed batches: two loops would put the whole chain into the binary twice.
    #[inline(always)]
    pub fn each(&mut self, limit: usize, mut f: impl FnMut(Option<u64>, Time, T)) {
        if self.end == 0 {
            self.end = self.items.len();
            // SAFETY: 0 ≤ capacity; the first `end` elements stay initialised and are owned by start..end from here on.
            unsafe { self.items.set_len(0) };
        }
        let stop = self.end.min(self.start.saturating_add(limit));
        let mut cursor = Cursor { start: &mut self.start, at: 0 };
        cursor.at = *cursor.start;
        let (items, times, hashes) = (self.items.as_ptr(), &self.times[..], &self.hashes[..]);
        while cursor.at < stop {
            let i = cursor.at;
            // Moved on before `f` runs: a panic in `f` must not leave a record that is dropped twice.
            cursor.at = i + 1;
            // SAFETY: start ≤ i < end, so the element is initialised, and it is read once since `at` has moved on.
            let item = unsafe { ptr::read(items.add(i)) };
            f(hashes.get(i).copied(), times.get(i).copied().unwrap_or(NO_TIME), item);
        }
        drop(cursor);
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            self.times.clear();
            self.hashes.clear();
        }
    }
}

/// Writes the position back also when the consumer unwinds; within the loop it lives in a register.
struct Cursor<'a> {
    start: &'a mut usize,
    at: usize,
}

impl Drop for Cursor<'_> {
    fn drop(&mut self) {
        *self.start = self.at;
    }
}

impl<T> Drop for Batch<T> {
    fn drop(&mut self) {
        for i in self.start..self.end {
            // SAFETY: while a batch is being consumed exactly start..end are initialised and owned by nobody else.
            unsafe { ptr::drop_in_place(self.items.as_mut_ptr().add(i)) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{panic::AssertUnwindSafe, rc::Rc};

    #[test]
    fn slices_give_every_record_once_with_its_time() {
        let mut b = Batch::with_capacity(4);
        for i in 0..10 {
            b.push(i);
            b.push_time(i * 10);
        }
        let mut got = Vec::new();
        while !b.is_empty() {
            b.each(3, |h, at, t| got.push((h, at, t)));
        }
        assert_eq!(got, (0..10).map(|i| (None, i * 10, i)).collect::<Vec<_>>());
        b.push(1);
        assert_eq!(b.len(), 1, "it can be filled again");
    }

    #[test]
    fn a_dropped_or_unwound_batch_drops_each_record_once() {
        let live = Rc::new(());
        let mut b = Batch::of(vec![live.clone(), live.clone(), live.clone()]);
        b.each(1, |_, _, t| drop(t));
        assert_eq!(Rc::strong_count(&live), 3);
        let panicked =
            std::panic::catch_unwind(AssertUnwindSafe(|| b.each(1, |_, _, _| std::panic::resume_unwind(Box::new(1)))));
        assert!(panicked.is_err());
        assert_eq!(Rc::strong_count(&live), 2);
        drop(b);
        assert_eq!(Rc::strong_count(&live), 1);
    }
}
