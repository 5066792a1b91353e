//! Read buffers that are used again. What is read lies in blocks, and parcels share theirs; a block whose parcels are all
//! gone is read into again, because a fresh one costs the system more than the copy that fills it (a page is cleared
//! and mapped for every 4 KiB). How much a channel may have in them is its credit's matter.

use crate::sync::Mutex;
use bytes::BytesMut;
use std::{collections::VecDeque, sync::Arc};

/// Size of a block, and the most that is read at once, in bytes.
pub(crate) const BLOCK: usize = 256 * 1024;
/// Blocks that are kept for all connections of a host, at most.
const KEPT: usize = 16;

/// The blocks of one host that are full, or not needed now.
#[derive(Default)]
pub(crate) struct Blocks(Mutex<VecDeque<BytesMut>>);

impl Blocks {
    /// The one that has waited longest of those whose parcels are gone, else a new one.
    fn take(&self) -> BytesMut {
        let mut kept = self.0.lock();
        for _ in 0..kept.len() {
            let Some(mut oldest) = kept.pop_front() else { break };
            if oldest.try_reclaim(BLOCK) {
                return oldest;
            }
            kept.push_back(oldest);
        }
        drop(kept);
        BytesMut::with_capacity(BLOCK)
    }

    /// Parcels may be left of it.
    fn give_back(&self, mut block: BytesMut) {
        block.clear();
        let mut kept = self.0.lock();
        if kept.len() < KEPT {
            kept.push_back(block);
        }
    }
}

/// What a connection has read and not taken apart yet, with room behind it.
pub(crate) struct ReadBuffer {
    pub(crate) bytes: BytesMut,
    blocks: Arc<Blocks>,
    /// It was made for a frame that is longer than a block.
    is_long: bool,
}

impl ReadBuffer {
    pub(crate) fn new(blocks: &Arc<Blocks>) -> Self {
        Self { bytes: BytesMut::new(), blocks: blocks.clone(), is_long: true }
    }

    /// Makes room for what is missing of a frame, and for much more where that is less than a block.
    pub(crate) fn make_room(&mut self, missing: usize) {
        let wanted = missing.max(BLOCK / 4);
        if self.bytes.capacity() - self.bytes.len() >= wanted {
            return;
        }
        let needed = self.bytes.len() + missing;
        let is_long = needed > BLOCK;
        if !is_long && !self.is_long && self.bytes.try_reclaim(wanted) {
            return;
        }
        let mut next = if is_long { BytesMut::with_capacity(needed) } else { self.blocks.take() };
        next.extend_from_slice(&self.bytes);
        let spent = std::mem::replace(&mut self.bytes, next);
        if !std::mem::replace(&mut self.is_long, is_long) {
            self.blocks.give_back(spent);
        }
    }
}

impl Drop for ReadBuffer {
    fn drop(&mut self) {
        if !self.is_long {
            self.blocks.give_back(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(all(test, not(thalweg_loom)))]
mod tests {
    use super::*;

    fn read(buffer: &mut ReadBuffer, missing: usize, length: usize) -> bytes::Bytes {
        buffer.make_room(missing);
        assert!(buffer.bytes.capacity() >= length);
        buffer.bytes.resize(length, 7);
        buffer.bytes.split().freeze()
    }

    #[test]
    fn a_block_is_read_into_again_when_its_parcels_are_gone_and_not_before() {
        let blocks = Arc::new(Blocks::default());
        let mut buffer = ReadBuffer::new(&blocks);
        let held = read(&mut buffer, 0, BLOCK - 10);
        let first = held.as_ptr();
        buffer.bytes.extend_from_slice(b"tail");
        let second = read(&mut buffer, 0, BLOCK / 2);
        assert_eq!(&second[..4], b"tail", "what was read is there still");
        assert!(second.as_ptr() != first && held[..] == vec![7; BLOCK - 10]);
        drop(held);
        let third = read(&mut buffer, BLOCK, BLOCK);
        assert_eq!(third.as_ptr(), first);
    }

    #[test]
    fn a_long_frame_has_a_buffer_of_its_own_that_is_not_kept() {
        let blocks = Arc::new(Blocks::default());
        let mut buffer = ReadBuffer::new(&blocks);
        drop(read(&mut buffer, 0, 100));
        drop(read(&mut buffer, 3 * BLOCK, 3 * BLOCK));
        drop(read(&mut buffer, 0, 100));
        drop(buffer);
        let kept = blocks.0.lock();
        assert_eq!(kept.len(), 1, "the first is the one that was read into last");
        assert!(kept.iter().all(|b| b.capacity() <= BLOCK));
    }

    #[test]
    fn so_many_are_kept_and_no_more() {
        let blocks = Arc::new(Blocks::default());
        let mut buffer = ReadBuffer::new(&blocks);
        let held: Vec<_> = (0..2 * KEPT).map(|_| read(&mut buffer, BLOCK, BLOCK)).collect();
        drop((buffer, held));
        assert_eq!(blocks.0.lock().len(), KEPT);
    }
}
