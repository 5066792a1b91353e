//! The table of keyed rows: a directory of segments, in the order of key groups.
//!
//! The bits of a hash that choose the key group choose the place in the directory, so that a key group is a run of segments;
//! other bits choose the chunk in a segment, and others again are the tag by which an entry is found in its chunk. A full
//! segment is split in two: growing never moves the whole table. What is known of many keys at once is brought near at once
//! ([`Table::near`]). It does not know what rows mean, and takes no snapshot.
#![allow(unsafe_code)]

use std::{
    alloc::{Layout, alloc, dealloc, handle_alloc_error},
    marker::PhantomData,
    mem::needs_drop,
    ptr::NonNull,
    sync::atomic::{AtomicUsize, Ordering},
};

/// Entries of a chunk.
const SLOTS: usize = 14;
/// About the bytes of the largest segment.
const SEGMENT: usize = 16 << 10;
/// Most chunks of a segment.
const CHUNKS: usize = 63;
/// Chunks without an entry that a walk passes in one go.
const FAR: usize = 8;
/// Above this many bytes entries are brought near before they are used: less lies in a core's own cache anyway.
const LARGE: usize = 256 << 10;

/// Bytes of all segments of this process. One count for all tables: a host has one job, and it changes once in a
/// segment.
static ALLOCATED: AtomicUsize = AtomicUsize::new(0);

/// Bytes that all tables of this process take, without what their entries own elsewhere.
pub(super) fn allocated() -> usize {
    ALLOCATED.load(Ordering::Relaxed)
}

/// What is known of a chunk's entries: their tags (0: free, else the top bit and 7 bits of the hash); in the next byte how
/// many entries went past this chunk since it was full, which sticks at 255; the last byte is free.
#[repr(C, align(16))]
struct Tags([u8; 16]);

const OVER: usize = SLOTS;
const ALL: u32 = (1 << SLOTS) - 1;

impl Tags {
    /// A bit for each entry with this tag.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn find(&self, tag: u8) -> u32 {
        use std::arch::x86_64::{_mm_cmpeq_epi8, _mm_load_si128, _mm_movemask_epi8, _mm_set1_epi8};
        // SAFETY: every x86-64 has SSE2, and the type is 16 bytes long and aligned to them.
        let found = unsafe {
            let tags = _mm_load_si128(self.0.as_ptr().cast());
            _mm_movemask_epi8(_mm_cmpeq_epi8(tags, _mm_set1_epi8(tag as i8)))
        };
        found as u32 & ALL
    }

    #[cfg(not(target_arch = "x86_64"))]
    #[inline(always)]
    fn find(&self, tag: u8) -> u32 {
        (0..SLOTS).fold(0, |found, i| found | u32::from(self.0[i] == tag) << i)
    }

    #[inline(always)]
    fn used(&self) -> u32 {
        !self.find(0) & ALL
    }
}

#[inline(always)]
fn tag(hash: u64) -> u8 {
    (hash >> 57) as u8 | 0x80
}

#[inline(always)]
fn prefetch<T>(at: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint, which reads nothing: any address will do.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch(at.cast(), _MM_HINT_T0);
    }
    let _ = at;
}

/// The head of a segment's one allocation; behind it are its chunks' tags, and from a new line on its entries. Tags apart
/// from entries are a fifteenth of them, and stay in the cache.
#[repr(C, align(64))]
struct Head {
    len: usize,
    /// How many bits of the directory's place all its keys have alike.
    depth: u32,
}

/// A segment and the shape that all have.
struct Segment<E> {
    head: NonNull<Head>,
    chunks: usize,
    /// Where its entries begin: what `Segment::entries` has for these chunks.
    entries: usize,
    _e: PhantomData<E>,
}

impl<E> Clone for Segment<E> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}
impl<E> Copy for Segment<E> {}

impl<E> Segment<E> {
    /// Where the entries begin.
    #[inline(always)]
    const fn entries(chunks: usize) -> usize {
        let align = if align_of::<E>() > 64 { align_of::<E>() } else { 64 };
        (size_of::<Head>() + size_of::<Tags>() * chunks).next_multiple_of(align)
    }

    fn layout(chunks: usize) -> Option<Layout> {
        let size = Self::entries(chunks).checked_add(size_of::<E>().checked_mul(chunks * SLOTS)?)?;
        Layout::from_size_align(size, align_of::<E>().max(64)).ok()
    }

    /// An empty one.
    fn new(chunks: usize, depth: u32) -> Self {
        let Some(layout) = Self::layout(chunks) else { handle_alloc_error(Layout::new::<E>()) };
        // SAFETY: the head makes the size greater than zero.
        let head = unsafe { alloc(layout) }.cast::<Head>();
        let Some(head) = NonNull::new(head) else { handle_alloc_error(layout) };
        ALLOCATED.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: it was just allocated for a head and what follows; zeroed tags are those of free entries.
        unsafe {
            head.write(Head { len: 0, depth });
            head.add(1).cast::<Tags>().write_bytes(0, chunks);
        }
        Self { head, chunks, entries: Self::entries(chunks), _e: PhantomData }
    }

    /// Gives the memory back, not what the entries own.
    ///
    /// # Safety
    /// Nothing uses the segment afterwards.
    unsafe fn free(self) {
        if let Some(layout) = Self::layout(self.chunks) {
            ALLOCATED.fetch_sub(layout.size(), Ordering::Relaxed);
            // SAFETY: it was allocated with this layout.
            unsafe { dealloc(self.head.as_ptr().cast(), layout) };
        }
    }

    /// The tags of a chunk.
    ///
    /// # Safety
    /// `chunk` is less than `chunks`; nothing changes the segment meanwhile.
    #[inline(always)]
    unsafe fn tags(&self, chunk: usize) -> *mut Tags {
        // SAFETY: within the allocation, as `entries` has it.
        unsafe { self.head.as_ptr().cast::<u8>().add(size_of::<Head>()).cast::<Tags>().add(chunk) }
    }

    /// An entry's place.
    ///
    /// # Safety
    /// `chunk` is less than `chunks`, and `slot` less than `SLOTS`.
    #[inline(always)]
    unsafe fn entry(&self, chunk: usize, slot: usize) -> *mut E {
        // SAFETY: within the allocation, as `layout` has it.
        unsafe { self.head.as_ptr().cast::<u8>().add(self.entries).cast::<E>().add(chunk * SLOTS + slot) }
    }

    #[inline(always)]
    fn head(&self) -> &Head {
        // SAFETY: segments live as long as the table that has them, and heads are changed through the table alone.
        unsafe { self.head.as_ref() }
    }

    /// The chunk that a search for this hash begins at.
    #[inline(always)]
    fn home(&self, hash: u64) -> usize {
        ((hash & 0xff_ffff) as usize * self.chunks) >> 24
    }

    /// The slot of an entry in this chunk; `Err` when it may have gone past it.
    #[inline(always)]
    fn find_in(&self, chunk: usize, hash: u64, same: &mut impl FnMut(&E) -> bool) -> Result<Option<usize>, ()> {
        // SAFETY: `chunk` is less than `chunks`, and nothing else uses the table while it is borrowed.
        let tags = unsafe { &*self.tags(chunk) };
        let mut found = tags.find(tag(hash));
        while found != 0 {
            let slot = found.trailing_zeros() as usize;
            // SAFETY: an entry with a tag is there.
            if same(unsafe { &*self.entry(chunk, slot) }) {
                return Ok(Some(slot));
            }
            found &= found - 1;
        }
        if tags.0[OVER] == 0 { Ok(None) } else { Err(()) }
    }

    /// Goes on behind this chunk, and once round. Apart, since most entries are where a search begins.
    #[inline(never)]
    fn find_behind(&self, mut chunk: usize, hash: u64, mut same: impl FnMut(&E) -> bool) -> Option<(usize, usize)> {
        for _ in 1..self.chunks {
            chunk = if chunk + 1 == self.chunks { 0 } else { chunk + 1 };
            if let Ok(found) = self.find_in(chunk, hash, &mut same) {
                return found.map(|slot| (chunk, slot));
            }
        }
        None
    }

    /// Is there room for one more, and one free place besides, by which each search ends?
    fn has_room(&self) -> bool {
        self.head().len * 8 < self.chunks * SLOTS * 7
    }

    /// Puts a new entry in.
    ///
    /// # Safety
    /// There is room, and no entry with its key.
    unsafe fn store(&mut self, hash: u64, entry: E) -> *mut E {
        let mut chunk = self.home(hash);
        loop {
            // SAFETY: `chunk` is less than `chunks`, and `&mut self` of the table that has it stands behind this call.
            let tags = unsafe { &mut *self.tags(chunk) };
            let free = tags.find(0);
            if free != 0 {
                let slot = free.trailing_zeros() as usize;
                tags.0[slot] = tag(hash);
                // SAFETY: the slot is free, so that nothing is overwritten that had to be dropped.
                unsafe {
                    self.head.as_mut().len += 1;
                    let at = self.entry(chunk, slot);
                    at.write(entry);
                    return at;
                }
            }
            tags.0[OVER] = tags.0[OVER].saturating_add(1);
            chunk = if chunk + 1 == self.chunks { 0 } else { chunk + 1 };
        }
    }

    /// Calls the function for each entry that is there.
    ///
    /// # Safety
    /// The function changes nothing of the segment but the entry.
    unsafe fn each(&self, mut f: impl FnMut(*mut E)) {
        for chunk in 0..self.chunks {
            // SAFETY: `chunk` is less than `chunks`, slots of used tags are less than `SLOTS`.
            unsafe {
                let mut used = (*self.tags(chunk)).used();
                while used != 0 {
                    f(self.entry(chunk, used.trailing_zeros() as usize));
                    used &= used - 1;
                }
            }
        }
    }
}

/// Segments that no directory has yet: given back when something unwinds before it has.
struct Fresh<E>(Vec<Segment<E>>);

impl<E> Drop for Fresh<E> {
    fn drop(&mut self) {
        for segment in self.0.drain(..) {
            // SAFETY: nobody else knows it; what was copied into it is still where it was.
            unsafe { segment.free() };
        }
    }
}

/// Rows by key. What hashes a key, and tells two of them apart, is handed to each call.
pub(super) struct Table<E> {
    /// A segment may have several places, in a row.
    directory: Vec<NonNull<Head>>,
    /// How far the 32 bits that choose a place are shifted.
    shift: u32,
    /// Of each segment.
    chunks: usize,
    /// Where the entries of each segment begin.
    entries: usize,
    segments: usize,
    len: usize,
    _e: PhantomData<E>,
}

/// Where a walk over a table is; it begins at the default.
///
/// Bits, so that no step divides: the place in the directory, the chunk, the slot of 16.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(crate) struct Place(u64);

/// Bits for chunk and slot.
const PLACES: u32 = 30;

impl Place {
    #[inline(always)]
    fn next(self) -> Self {
        // The 14 slots leave room for one behind them.
        Self(self.0 + 1)
    }
}

/// Where an entry is.
struct At<E> {
    segment: Segment<E>,
    chunk: usize,
    slot: usize,
}

impl<E> Table<E> {
    /// Chunks of a segment as soon as there are two.
    const CHUNKS: usize = {
        let fit = (SEGMENT - size_of::<Head>()) / (size_of::<Tags>() + SLOTS * size_of::<E>());
        if fit > CHUNKS {
            CHUNKS
        } else if fit == 0 {
            1
        } else {
            fit
        }
    };

    pub(super) fn new() -> Self {
        Self {
            directory: Vec::new(),
            shift: 32,
            chunks: 1,
            entries: Segment::<E>::entries(1),
            segments: 0,
            len: 0,
            _e: PhantomData,
        }
    }

    /// One that takes about so many entries without growing.
    pub(super) fn with_capacity(entries: usize) -> Self {
        let mut new = Self::new();
        if entries == 0 {
            return new;
        }
        // About three quarters full: hashes fill segments unevenly.
        let chunks = (entries * 4).div_ceil(SLOTS * 3);
        new.chunks = chunks.min(Self::CHUNKS);
        new.entries = Segment::<E>::entries(new.chunks);
        let depth = chunks.div_ceil(Self::CHUNKS).next_power_of_two().trailing_zeros().min(20);
        new.directory = (0..1_usize << depth).map(|_| Segment::<E>::new(new.chunks, depth).head).collect();
        (new.shift, new.segments) = (32 - depth, new.directory.len());
        new
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    #[inline(always)]
    fn place(&self, hash: u64) -> usize {
        (u64::from((hash >> 24) as u32) >> self.shift) as usize
    }

    #[inline(always)]
    fn segment_at(&self, place: usize) -> Segment<E> {
        // SAFETY: the directory has 2^(32 - shift) places, and `place` is below that; or it is empty, which callers look at.
        let head = unsafe { *self.directory.get_unchecked(place) };
        Segment { head, chunks: self.chunks, entries: self.entries, _e: PhantomData }
    }

    /// Where an entry is. A pointer and no more: what is found for each record must not travel through memory.
    #[inline(always)]
    fn find(&self, hash: u64, mut same: impl FnMut(&E) -> bool) -> Option<NonNull<E>> {
        if self.len == 0 {
            return None;
        }
        let segment = self.segment_at(self.place(hash));
        let chunk = segment.home(hash);
        let (chunk, slot) = match segment.find_in(chunk, hash, &mut same) {
            Ok(slot) => (chunk, slot?),
            Err(()) => segment.find_behind(chunk, hash, same)?,
        };
        // SAFETY: a place that was found.
        NonNull::new(unsafe { segment.entry(chunk, slot) })
    }

    #[inline(always)]
    pub(super) fn get(&self, hash: u64, same: impl FnMut(&E) -> bool) -> Option<&E> {
        // SAFETY: the entry is there for as long as the table is not changed, and `self` is borrowed for that long.
        self.find(hash, same).map(|at| unsafe { at.as_ref() })
    }

    #[inline(always)]
    pub(super) fn get_mut(&mut self, hash: u64, same: impl FnMut(&E) -> bool) -> Option<&mut E> {
        // SAFETY: as in `get`, and `self` is borrowed for it alone.
        self.find(hash, same).map(|mut at| unsafe { at.as_mut() })
    }

    /// Merges the item into its entry, or makes one of it.
    ///
    /// The item is looked at to find its entry and then used up, and both ways need `with`: hence the arguments.
    #[inline(always)]
    pub(super) fn upsert<T, C>(
        &mut self,
        hash: u64,
        item: T,
        with: &mut C,
        same: impl Fn(&T, &E) -> bool,
        merge: impl FnOnce(&mut C, &mut E, T),
        make: impl FnOnce(&mut C, T) -> E,
        hash_of: impl Fn(&E) -> u64,
    ) -> &mut E {
        match self.find(hash, |entry| same(&item, entry)) {
            Some(mut at) => {
                // SAFETY: the entry is there, and `self` is borrowed for it alone.
                let entry = unsafe { at.as_mut() };
                merge(with, entry, item);
                entry
            }
            None => {
                let entry = make(with, item);
                self.insert(hash, entry, hash_of)
            }
        }
    }

    /// Adds an entry whose key is not there. `hash_of` is that of entries that must move.
    #[inline(never)]
    pub(super) fn insert(&mut self, hash: u64, entry: E, hash_of: impl Fn(&E) -> u64) -> &mut E {
        if self.directory.is_empty() {
            self.directory.push(Segment::<E>::new(self.chunks, 0).head);
            self.segments = 1;
        }
        loop {
            let mut segment = self.segment_at(self.place(hash));
            if segment.has_room() {
                self.len += 1;
                // SAFETY: there is room, and the caller says that the key is new.
                return unsafe { &mut *segment.store(hash, entry) };
            }
            self.grow(hash, &hash_of);
        }
    }

    /// Makes room where this hash belongs.
    #[cold]
    fn grow(&mut self, hash: u64, hash_of: &impl Fn(&E) -> u64) {
        if self.chunks < Self::CHUNKS {
            return self.reshape((self.chunks * 2 + 1).min(Self::CHUNKS), hash_of);
        }
        let old = self.segment_at(self.place(hash));
        let depth = old.head().depth;
        if self.directory.len() >> depth == 1 {
            // Keys that all have the same hash are not parted by a longer directory.
            if self.shift == 0 || self.directory.len() > 1024.max(64 * self.segments) {
                return self.reshape(self.chunks * 2, hash_of);
            }
            self.directory = self.directory.iter().flat_map(|s| [*s, *s]).collect();
            self.shift -= 1;
        }
        let span = self.directory.len() >> depth;
        let first = self.place(hash) / span * span;
        let mut halves = Fresh((0..2).map(|_| Segment::<E>::new(old.chunks, depth + 1)).collect());
        // SAFETY: entries are copied, and count as moved once the directory has the new segments; when `hash_of` unwinds before
        // that they still are the old one's, and the copies are never dropped. Each half has room for all.
        unsafe {
            old.each(|entry| {
                let hash = hash_of(&*entry);
                let half = usize::from(self.place(hash) >= first + span / 2);
                halves.0[half].store(hash, entry.read());
            });
            for (half, places) in halves.0.drain(..).zip(self.directory[first..first + span].chunks_mut(span / 2)) {
                places.fill(half.head);
            }
            old.free();
        }
        self.segments += 1;
    }

    /// Gives all segments another number of chunks.
    fn reshape(&mut self, chunks: usize, hash_of: &impl Fn(&E) -> u64) {
        let mut directory = self.directory.clone();
        let (mut olds, mut news) = (Vec::new(), Fresh(Vec::new()));
        let mut first = 0;
        while first < directory.len() {
            let old = self.segment_at(first);
            let span = directory.len() >> old.head().depth;
            let mut new = Segment::<E>::new(chunks, old.head().depth);
            news.0.push(new);
            // SAFETY: as in `grow`; the new segment is larger.
            unsafe {
                old.each(|entry| {
                    let hash = hash_of(&*entry);
                    new.store(hash, entry.read());
                });
            }
            directory[first..first + span].fill(new.head);
            olds.push(old);
            first += span;
        }
        news.0.clear();
        (self.directory, self.chunks, self.entries) = (directory, chunks, Segment::<E>::entries(chunks));
        // SAFETY: the directory has them no more, and what they owned has moved.
        olds.into_iter().for_each(|old| unsafe { old.free() });
    }

    /// Takes an entry out.
    pub(super) fn remove(&mut self, hash: u64, mut same: impl FnMut(&E) -> bool) -> Option<E> {
        if self.len == 0 {
            return None;
        }
        let mut segment = self.segment_at(self.place(hash));
        let home = segment.home(hash);
        let (mut chunk, slot) = match segment.find_in(home, hash, &mut same) {
            Ok(slot) => (home, slot?),
            Err(()) => segment.find_behind(home, hash, same)?,
        };
        // SAFETY: the entry is there and read once, since its tag says free from here on; chunks are less than `chunks`.
        unsafe {
            (*segment.tags(chunk)).0[slot] = 0;
            segment.head.as_mut().len -= 1;
            self.len -= 1;
            let entry = segment.entry(chunk, slot).read();
            while chunk != home {
                chunk = if chunk == 0 { segment.chunks - 1 } else { chunk - 1 };
                let over = &mut (*segment.tags(chunk)).0[OVER];
                // One that stuck has lost count.
                *over -= u8::from(*over < u8::MAX);
            }
            Some(entry)
        }
    }

    /// The first entry at or behind a place, if no more chunks without one are in between; else the place behind those,
    /// and none behind the last entry.
    #[inline]
    fn from(&self, place: Place, mut chunks: usize) -> Result<(At<E>, Place), Option<Place>> {
        let at = |d: usize, chunk: usize, slot: usize| Place((d as u64) << PLACES | (chunk as u64) << 4 | slot as u64);
        let mut d = (place.0 >> PLACES) as usize;
        let mut chunk = ((place.0 & ((1 << PLACES) - 1)) >> 4) as usize;
        // Of the first chunk's entries, those from the place on.
        let mut rest = ALL << (place.0 & 0xf) & ALL;
        while d < self.directory.len() {
            let segment = self.segment_at(d);
            let span = self.directory.len() >> segment.head().depth;
            // A segment's entries are at the first of its places.
            if d & (span - 1) == 0 {
                while chunk < self.chunks {
                    // SAFETY: `chunk` is less than `chunks`.
                    let used = unsafe { (*segment.tags(chunk)).used() } & rest;
                    if used != 0 {
                        let slot = used.trailing_zeros() as usize;
                        return Ok((At { segment, chunk, slot }, at(d, chunk, slot)));
                    }
                    (chunk, rest) = (chunk + 1, ALL);
                    if chunks == 0 {
                        return Err(Some(at(d, chunk, 0)));
                    }
                    chunks -= 1;
                }
            }
            (d, chunk, rest) = ((d & !(span - 1)) + span, 0, ALL);
        }
        Err(None)
    }

    /// The entry at a place or the nearest one behind it, and the place after it. A walk may go on as long as no entry is
    /// added.
    pub(super) fn at_or_after(&self, place: Place) -> Option<(&E, Place)> {
        let (at, place) = self.from(place, usize::MAX).ok()?;
        // SAFETY: the entry is there for as long as the table is not changed, and `self` is borrowed for that long.
        Some((unsafe { &*at.segment.entry(at.chunk, at.slot) }, place.next()))
    }

    /// The entry at a place or not far behind it, to be changed, if there is one, and the place to go on at: behind the
    /// last entry the first place. A table that was large once is empty for long stretches, and no call goes through all
    /// of them.
    pub(super) fn near_mut(&mut self, place: Place) -> (Option<&mut E>, Place) {
        match self.from(place, FAR) {
            // SAFETY: as above, and `self` is borrowed for it alone.
            Ok((at, place)) => (Some(unsafe { &mut *at.segment.entry(at.chunk, at.slot) }), place.next()),
            Err(next) => (None, next.unwrap_or_default()),
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &E> {
        let mut place = Place::default();
        std::iter::from_fn(move || {
            let (entry, next) = self.at_or_after(place)?;
            place = next;
            Some(entry)
        })
    }

    /// Is there more than lies in a core's own cache?
    #[inline(always)]
    pub(super) fn is_large(&self) -> bool {
        self.segments * self.chunks * SLOTS * size_of::<E>() > LARGE
    }

    /// Brings near what these hashes' entries are: first all their tags, then all entries that may be theirs.
    #[inline(always)]
    pub(super) fn near(&self, hashes: &[u64]) {
        if self.len == 0 {
            return;
        }
        for hash in hashes {
            let segment = self.segment_at(self.place(*hash));
            // SAFETY: a chunk that a search begins at is less than `chunks`.
            prefetch(unsafe { segment.tags(segment.home(*hash)) });
        }
        for hash in hashes {
            let segment = self.segment_at(self.place(*hash));
            let chunk = segment.home(*hash);
            // SAFETY: as above; the slot is at most `SLOTS`, one behind the chunk's, which is no access yet.
            unsafe {
                let slot = ((*segment.tags(chunk)).find(tag(*hash)) | 1 << (SLOTS - 1)).trailing_zeros() as usize;
                prefetch(segment.entry(chunk, slot));
            }
        }
    }
}

impl<E> Drop for Table<E> {
    fn drop(&mut self) {
        let mut d = 0;
        while d < self.directory.len() {
            let segment = self.segment_at(d);
            d += self.directory.len() >> segment.head().depth;
            // SAFETY: what is there is dropped once, and the segment not used again.
            unsafe {
                if needs_drop::<E>() {
                    segment.each(|entry| entry.drop_in_place());
                }
                segment.free();
            }
        }
    }
}

/// All entries of a table, leaving none.
pub(crate) struct IntoEntries<E> {
    table: Table<E>,
    /// Those of this chunk's entries that are still to come; the table has none of them any more.
    segment: Option<Segment<E>>,
    chunk: usize,
    left: u32,
    place: usize,
}

impl<E> IntoIterator for Table<E> {
    type Item = E;
    type IntoIter = IntoEntries<E>;
    fn into_iter(self) -> IntoEntries<E> {
        IntoEntries { table: self, segment: None, chunk: 0, left: 0, place: 0 }
    }
}

impl<E> IntoEntries<E> {
    /// Takes the next chunk's entries out of the table. Answers whether there was one.
    fn next_chunk(&mut self) -> bool {
        loop {
            self.chunk += 1;
            if self.segment.is_none_or(|s| self.chunk == s.chunks) {
                if self.place >= self.table.directory.len() {
                    return false;
                }
                let segment = self.table.segment_at(self.place);
                self.place += self.table.directory.len() >> segment.head().depth;
                (self.segment, self.chunk) = (Some(segment), 0);
            }
            let Some(mut segment) = self.segment else { return false };
            // SAFETY: `chunk` is less than `chunks`; with free tags the table neither finds nor drops these entries.
            unsafe {
                let tags = &mut *segment.tags(self.chunk);
                self.left = tags.used();
                tags.0 = [0; 16];
                segment.head.as_mut().len -= self.left.count_ones() as usize;
            }
            if self.left != 0 {
                return true;
            }
        }
    }
}

impl<E> Iterator for IntoEntries<E> {
    type Item = E;
    #[inline]
    fn next(&mut self) -> Option<E> {
        if self.left == 0 && !self.next_chunk() {
            return None;
        }
        let slot = self.left.trailing_zeros() as usize;
        self.left &= self.left - 1;
        self.table.len -= 1;
        // SAFETY: the entry is there, and read once, since its bit is gone.
        self.segment.map(|segment| unsafe { segment.entry(self.chunk, slot).read() })
    }
    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.table.len, Some(self.table.len))
    }
}
impl<E> ExactSizeIterator for IntoEntries<E> {}

impl<E> Drop for IntoEntries<E> {
    fn drop(&mut self) {
        // What the table still has it drops itself.
        while self.left != 0 {
            drop(self.next());
        }
    }
}
