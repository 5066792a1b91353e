//! A bounded queue from one thread to one other, without a lock.
#![allow(unsafe_code)]

use crate::sync::{AtomicUsize, Ordering, UnsafeCell};
use std::{mem::MaybeUninit, sync::Arc};

/// Positions on lines of their own: producer and consumer must not invalidate each other's.
#[repr(align(128))]
struct Padded(AtomicUsize);

struct Ring<T> {
    slots: Box<[UnsafeCell<MaybeUninit<T>>]>,
    mask: usize,
    /// Next to be taken; written by the consumer alone.
    head: Padded,
    /// Next to be filled; written by the producer alone.
    tail: Padded,
}

// SAFETY: a slot is written by the producer alone while it is outside head..tail and read by the consumer alone while
// it is inside; the Release stores and Acquire loads of head and tail hand it over. There is one handle of each kind.
unsafe impl<T: Send> Sync for Ring<T> {}
// SAFETY: as above; the ring owns its values.
unsafe impl<T: Send> Send for Ring<T> {}

/// The filling end. There is exactly one.
pub(crate) struct Producer<T>(Arc<Ring<T>>);
/// The emptying end. There is exactly one.
pub(crate) struct Consumer<T>(Arc<Ring<T>>);

/// A ring with room for `capacity` values, rounded up to a power of two.
pub(crate) fn ring<T>(capacity: usize) -> (Producer<T>, Consumer<T>) {
    let capacity = capacity.max(1).next_power_of_two();
    let slots = (0..capacity).map(|_| UnsafeCell::new(MaybeUninit::uninit())).collect();
    let ring = Arc::new(Ring {
        slots,
        mask: capacity - 1,
        head: Padded(AtomicUsize::new(0)),
        tail: Padded(AtomicUsize::new(0)),
    });
    (Producer(ring.clone()), Consumer(ring))
}

impl<T> Producer<T> {
    /// Puts a value in, or gives it back when there is no room.
    pub(crate) fn push(&mut self, value: T) -> Result<(), T> {
        let ring = &*self.0;
        let tail = ring.tail.0.load(Ordering::Relaxed);
        if tail.wrapping_sub(ring.head.0.load(Ordering::Acquire)) > ring.mask {
            return Err(value);
        }
        // SAFETY: the slot is outside head..tail, so the consumer does not touch it, and `&mut self` is the only producer.
        ring.slots[tail & ring.mask].with_mut(|slot| unsafe {
            (*slot).write(value);
        });
        ring.tail.0.store(tail.wrapping_add(1), Ordering::Release);
        Ok(())
    }
}

impl<T> Consumer<T> {
    /// Takes the oldest value.
    pub(crate) fn pop(&mut self) -> Option<T> {
        let ring = &*self.0;
        let head = ring.head.0.load(Ordering::Relaxed);
        if head == ring.tail.0.load(Ordering::Acquire) {
            return None;
        }
        // SAFETY: the slot is inside head..tail, so it is initialised and the producer does not touch it; it is read
        // once, since head moves on.
        let value = ring.slots[head & ring.mask].with(|slot| unsafe { (*slot).assume_init_read() });
        ring.head.0.store(head.wrapping_add(1), Ordering::Release);
        Some(value)
    }
}

impl<T> Drop for Ring<T> {
    fn drop(&mut self) {
        // Both ends are gone: nobody else looks.
        let (mut head, tail) = (self.head.0.load(Ordering::Relaxed), self.tail.0.load(Ordering::Relaxed));
        while head != tail {
            // SAFETY: slots in head..tail are initialised, and `&mut self` is the only access.
            self.slots[head & self.mask].with_mut(|slot| unsafe { (*slot).assume_init_drop() });
            head = head.wrapping_add(1);
        }
    }
}

#[cfg(test)]
#[path = "ring_tests.rs"]
mod tests;
