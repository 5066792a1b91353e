//! Who goes on with which split after a restore: a rule that each reader works out alone, from what all of them wrote.
//!
//! Nothing is sent for it, and nothing is read before it is known. A reader of the same number goes on with what it read,
//! as far as that is not more than its share; what others had too much of, or whoever is there no longer, goes to those
//! that have less. So more readers than before have something to read at once, although no split was left to deal out.

use std::cmp::Reverse;

/// Where a split of a snapshot stood there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Origin {
    /// The reader that wrote it.
    pub(crate) writer: u32,
    /// Its place among `of` that this reader wrote.
    pub(crate) place: usize,
    pub(crate) of: usize,
}

/// What reader `me` of `readers` goes on with. `written` has how many splits each reader wrote, by its number. Shares
/// differ by one at most.
pub(super) fn share(written: &[(u32, usize)], readers: u32, me: u32) -> Vec<Origin> {
    let mut own = vec![0_usize; readers as usize];
    for (writer, n) in written {
        if let Some(own) = own.get_mut(*writer as usize) {
            *own += n;
        }
    }
    let all: usize = written.iter().map(|(_, n)| n).sum();
    // Whoever has most may keep the one more that not all can have.
    let mut by_own: Vec<usize> = (0..own.len()).collect();
    by_own.sort_by_key(|reader| Reverse(own[*reader]));
    let mut quota = vec![all / own.len(); own.len()];
    by_own.iter().take(all % own.len()).for_each(|reader| quota[*reader] += 1);

    let room = |reader: usize| quota[reader].saturating_sub(own[reader]);
    let (mut keep, mut moved) = (Vec::new(), Vec::new());
    for (writer, of) in written.iter().copied() {
        let kept = quota.get(writer as usize).map_or(0, |quota| of.min(*quota));
        let origin = |place| Origin { writer, place, of };
        if writer == me {
            keep.extend((0..kept).map(origin));
        }
        moved.extend((kept..of).map(origin));
    }
    let before: usize = (0..me as usize).map(room).sum();
    keep.extend(moved.into_iter().skip(before).take(room(me as usize)));
    keep
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng, rngs::SmallRng};

    #[test]
    fn what_nobody_else_needs_stays() {
        let at = |writer, place, of| Origin { writer, place, of };
        let written = [(0, 1), (1, 1), (3, 1)];
        let of = |me| share(&written, 4, me);
        assert_eq!([of(0), of(1), of(2), of(3)], [vec![at(0, 0, 1)], vec![at(1, 0, 1)], vec![], vec![at(3, 0, 1)]]);
        // The ones that wait for their turn go.
        assert_eq!(share(&[(0, 3)], 3, 0), [at(0, 0, 3)]);
        assert_eq!(share(&[(0, 3)], 3, 1), [at(0, 1, 3)]);
        assert_eq!(share(&[(0, 3)], 3, 2), [at(0, 2, 3)]);
        assert_eq!(share(&[(0, 1), (1, 2), (2, 1)], 1, 0).len(), 4);
        assert_eq!(share(&[], 2, 1), []);
    }

    #[test]
    fn each_split_goes_to_one_reader_and_all_have_as_many() {
        let mut random = SmallRng::seed_from_u64(7);
        for _ in 0..2_000 {
            let writers = random.random_range(0..9);
            let written: Vec<(u32, usize)> = (0..writers).map(|w| (w, random.random_range(0..7))).collect();
            let readers = random.random_range(1..12);
            let shares: Vec<_> = (0..readers).map(|me| share(&written, readers, me)).collect();
            let mut all: Vec<_> = shares.concat();
            all.sort_unstable();
            let wrote = |(writer, of): &(u32, usize)| {
                let (writer, of) = (*writer, *of);
                (0..of).map(move |place| Origin { writer, place, of })
            };
            assert_eq!(all, written.iter().flat_map(wrote).collect::<Vec<_>>());
            let (least, most) = (shares.iter().map(Vec::len).min(), shares.iter().map(Vec::len).max());
            assert!(most <= least.map(|n| n + 1), "{written:?} to {readers}: {shares:?}");
            for (me, share) in shares.iter().enumerate() {
                let had = written.get(me).map_or(0, |(_, n)| *n);
                let kept = share.iter().filter(|origin| origin.writer as usize == me).count();
                assert!(kept == had || kept == share.len(), "{written:?} to {readers}: {me} gave away and got");
            }
        }
    }
}
