//! Exchange: records from the subtasks of one vertex to those of another, by distance.
//!
//! Same slot: a plain queue. Same process: a ring of typed batches, moved and not serialised. Another process: encoded
//! batches through the shuffle plugin. What does not fit goes to the writer's overdraft, so a push never waits.

pub(crate) mod align;
pub(crate) mod channel;
pub(crate) mod gate;
pub(crate) mod out;
pub(crate) mod ring;
pub(crate) mod route;
pub mod signal;
pub(crate) mod waiting;
pub(crate) mod wiring;

pub use signal::Signal;

/// Sizes of one host's exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExchangeSizes {
    /// Bytes of a batch, by the size of its items alone.
    pub batch: usize,
    /// Batches that a queue or a ring holds.
    pub depth: usize,
    /// Longest encoded record.
    pub max_record: usize,
}

impl ExchangeSizes {
    /// From `exchange.memory` and the number of channels that begin or end in this host: batch = memory / (4 × channels),
    /// 256 B to 32 KiB, and as many of them in flight as memory is left for.
    pub fn of(memory: usize, channels: usize, max_record: usize) -> Self {
        let channels = channels.max(1);
        let batch = (memory / (4 * channels)).clamp(256, 32 << 10);
        let depth = (memory / (channels * batch)).clamp(4, 16);
        Self { batch, depth, max_record }
    }

    /// Records of a batch.
    pub(crate) fn records<T>(&self) -> usize {
        (self.batch / size_of::<T>().max(1)).clamp(1, 4096)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_bounds_what_all_channels_hold() {
        for (memory, channels) in [(64 << 20, 4), (64 << 20, 1000), (1 << 20, 64), (1 << 20, 1)] {
            let s = ExchangeSizes::of(memory, channels, 1);
            assert!(s.batch * s.depth * channels <= memory, "{s:?}");
            assert!((256..=32 << 10).contains(&s.batch) && (4..=16).contains(&s.depth));
        }
        assert_eq!(ExchangeSizes::of(0, 0, 1).batch, 256, "the floor holds however small the budget");
    }
}
