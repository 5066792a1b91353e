//! Windows of one length, kept by panes.
//!
//! A pane is a table of what was gathered of each key in a stretch of time that no window divides. When the watermark
//! passes a window's end, its panes are put together key by key, within the budget; panes that no window needs any more
//! are dropped whole. No timer is kept and no key is looked for twice.

use super::{
    TimeWindow, TimeWindows, UNTIMED, WindowContext, WindowFunction,
    context::{Around, SavedAround, restored_watermark},
};
use crate::{
    batch::{Batch, NO_TIME, Time},
    build::OpCx,
    codec,
    fold::Fold,
    key::{Data, Key, KeySelect, OwnedKey},
    keyed::keep,
    pipe::Transform,
    push::{Control, Flow, Mark, Operator, Push, Ready, STRIDE},
    side::{OutputTag, Sides},
    state::{IntoEntries, Place, RowTable, Rows, TILE},
    task::TaskCell,
};
use serde::{Serialize, de::DeserializeOwned};
use std::{collections::VecDeque, marker::PhantomData, rc::Rc, sync::Arc};
use thalweg_model::{FailureKind, TaskFailure};

/// One pane.
struct Pane<R> {
    start: Time,
    rows: R,
}

/// The panes of one subtask, by time.
pub(super) struct Panes<K, A, R = Rows<K, A>> {
    windows: TimeWindows,
    /// Length of a pane.
    length: Time,
    list: Vec<Pane<R>>,
    /// The one that was used last: most records follow others of their time.
    last: usize,
    _t: PhantomData<fn() -> (K, A)>,
}

impl<K: OwnedKey, A: Data, R: RowTable<K, A>> Panes<K, A, R> {
    pub(super) fn new(windows: TimeWindows) -> Self {
        Self { windows, length: windows.pane(), list: Vec::new(), last: 0, _t: PhantomData }
    }

    /// The table of a time.
    #[inline(always)]
    pub(super) fn rows(&mut self, at: Time) -> &mut R {
        // Between the ends of time lies more than a `Time` can say.
        let within = |p: &Pane<R>| at >= p.start && (at.wrapping_sub(p.start) as u64) < self.length as u64;
        let hit = self.list.get(self.last).is_some_and(within);
        if !hit {
            self.turn_to(at);
        }
        &mut self.list[self.last].rows
    }

    #[cold]
    #[inline(never)]
    fn turn_to(&mut self, at: Time) {
        let start = self.windows.pane_start(at);
        self.last = match self.list.binary_search_by_key(&start, |p| p.start) {
            Ok(i) => i,
            Err(i) => {
                // Likely to become as large as the one before.
                let rows = self.list[..i].last().map_or_else(R::new, |before| before.rows.like());
                self.list.insert(i, Pane { start, rows });
                i
            }
        };
    }

    /// Index of the first pane from `at` on.
    fn from(&self, at: Time) -> usize {
        self.list.partition_point(|p| p.start < at)
    }

    /// All panes that no window ending after `at` needs are taken out, with their starts.
    pub(super) fn take_until(&mut self, at: Time) -> impl Iterator<Item = (Time, R)> {
        let windows = self.windows;
        let keep = self.list.partition_point(|p| windows.last_window(p.start).max_timestamp() <= at);
        self.last = 0;
        self.list.drain(..keep).map(|p| (p.start, p.rows))
    }

    /// All panes that end by `at`, out of the table.
    pub(super) fn take_ended(&mut self, at: Time) -> impl Iterator<Item = (Time, R)> {
        let length = self.length;
        let ended = self.list.partition_point(|p| p.start.saturating_add(length - 1) <= at);
        self.last = 0;
        self.list.drain(..ended).map(|p| (p.start, p.rows))
    }

    pub(super) fn len(&self) -> usize {
        self.list.iter().map(|p| p.rows.len()).sum()
    }

    pub(super) fn snapshot(&self, watermark: Time, beside: impl Serialize) -> Result<Vec<u8>, String> {
        let panes: Vec<(Time, Vec<&(K, A)>)> = self.list.iter().map(|p| (p.start, p.rows.iter().collect())).collect();
        codec::encode(&(watermark, panes, beside))
    }

    /// Adds what a snapshot has of the keys that `mine` says yes to; answers the watermark it was made at, and what was
    /// put beside it.
    pub(super) fn restore<B: DeserializeOwned>(
        &mut self,
        cx: &OpCx,
        writer: u32,
        part: &[u8],
        mine: impl Fn(u64) -> bool,
        mut merge: impl FnMut(&mut A, A),
    ) -> Result<(Time, B), TaskFailure> {
        let (watermark, panes, beside): (Time, Vec<(Time, Vec<(K, A)>)>, B) = codec::decode(part).map_err(|e| {
            cx.failure(FailureKind::Storage, format!("the windows that subtask {writer} wrote cannot be read: {e}"))
        })?;
        for (start, rows) in panes {
            for (key, acc) in rows {
                let hash = key.stable_hash();
                if mine(hash) {
                    let rows = self.rows(start);
                    rows.upsert(hash, (key, acc), &mut merge, |i, k| i.0 == *k, |m, a, i| m(a, i.1), |_, i| i);
                }
            }
        }
        Ok((watermark, beside))
    }
}

impl<K: OwnedKey, A: Data> Panes<K, A> {
    /// Brings the rows of some keys near in the table that was used last, which is likely to be used again.
    #[inline(always)]
    fn near(&self, hashes: &[u64]) {
        if let Some(pane) = self.list.get(self.last) {
            pane.rows.near(hashes);
        }
    }

    /// What was gathered of a key in a window, put together.
    fn of_key(&self, window: &TimeWindow, hash: u64, key: &K, mut merge: impl FnMut(&mut A, A)) -> Option<A>
    where
        A: Clone,
    {
        let mut all = None;
        for pane in &self.list[self.from(window.start)..self.from(window.end)] {
            match (pane.rows.get(hash, key), &mut all) {
                (Some(acc), None) => all = Some(acc.clone()),
                (Some(acc), Some(all)) => merge(all, acc.clone()),
                (None, _) => {}
            }
        }
        all
    }
}

/// Windows of one length over a keyed stream, with one aggregate.
pub struct WindowSpec<T, F, S, R> {
    /// Which.
    pub windows: TimeWindows,
    /// What comes so much later than a window's end still changes its result, ms.
    pub lateness: Time,
    /// What is gathered.
    pub fold: F,
    /// Finds the key.
    pub key: S,
    /// Makes results.
    pub result: R,
    /// Where records go that come too late for each of their windows.
    pub late: Option<OutputTag<T>>,
    /// Who asked for that.
    pub sides: Sides,
}

impl<T, F: Clone, S: Clone, R: Clone> Clone for WindowSpec<T, F, S, R> {
    fn clone(&self) -> Self {
        Self {
            windows: self.windows,
            lateness: self.lateness,
            fold: self.fold.clone(),
            key: self.key.clone(),
            result: self.result.clone(),
            late: self.late.clone(),
            sides: self.sides.clone(),
        }
    }
}

/// A window that gives its results out.
struct Firing<K, A, I> {
    window: TimeWindow,
    rows: Leaving<K, A>,
    results: Option<I>,
}

/// How its rows are found.
enum Leaving<K, A> {
    /// In a table that nobody needs any more.
    Taken(IntoEntries<(K, A)>),
    /// In a pane that stays: at this place.
    Walk { pane: usize, place: Place },
    /// In several panes: what those before this place have is in a table of their own.
    Gather { pane: usize, place: Place, rows: Rows<K, A> },
}

/// A live [`WindowSpec`].
pub struct WindowOp<T, F: Fold<T>, S: KeySelect<T>, R: WindowFunction<S::Key, F::Acc>> {
    lateness: Time,
    fold: F,
    key: S,
    result: R,
    panes: Panes<S::Key, F::Acc>,
    watermark: Time,
    /// Windows that end by then have fired, or fire again with each record that is late for them.
    fired: Time,
    firing: Option<Firing<S::Key, F::Acc, R::Results>>,
    /// Results of windows that fire again, for one key.
    again: VecDeque<(Time, R::Results)>,
    late: Option<OutputTag<T>>,
    around: Around<S::Key>,
    uid: Arc<str>,
    cell: Rc<TaskCell>,
    _t: PhantomData<fn(T)>,
}

impl<T, F, S, R> Transform<T> for WindowSpec<T, F, S, R>
where
    T: 'static,
    F: Fold<T>,
    S: KeySelect<T>,
    R: WindowFunction<S::Key, F::Acc>,
{
    type Out = R::Out;
    type Op = WindowOp<T, F, S, R>;
    fn open(mut self, cx: &OpCx) -> Result<Self::Op, TaskFailure> {
        let mut around = Around::open(cx, &mut self.result, false, &self.sides)?;
        let mut panes = Panes::new(self.windows);
        let mut watermarks = Vec::new();
        for (writer, part) in cx.restored() {
            let (at, beside): (Time, SavedAround) =
                panes.restore(cx, writer, part, |hash| cx.owns(hash), |a, b| self.fold.merge(a, b))?;
            around.restore(cx, beside)?;
            watermarks.push((writer, at));
        }
        let watermark = restored_watermark(cx, &watermarks);
        Ok(WindowOp {
            lateness: self.lateness,
            fold: self.fold,
            key: self.key,
            result: self.result,
            panes,
            watermark,
            fired: if watermark == NO_TIME { NO_TIME } else { watermark.saturating_add(1) },
            firing: None,
            again: VecDeque::new(),
            late: self.late,
            around,
            uid: cx.uid.clone(),
            cell: cx.cell(),
            _t: PhantomData,
        })
    }
}

impl<T, F, S, R> WindowOp<T, F, S, R>
where
    T: 'static,
    F: Fold<T>,
    S: KeySelect<T>,
    R: WindowFunction<S::Key, F::Acc>,
{
    #[inline(always)]
    fn one(&mut self, hash: u64, at: Time, item: T) {
        // Windows that have fired may be among its own. One without a time is behind every watermark.
        if at <= self.watermark {
            return self.behind(hash, at, item);
        }
        self.gather(hash, at, item);
    }

    #[inline(always)]
    fn gather(&mut self, hash: u64, at: Time, item: T) {
        let select = &self.key;
        let make = |fold: &mut F, item| (select.own(&item), fold.lift(item));
        self.panes.rows(at).upsert(hash, item, &mut self.fold, |item, k| select.same(item, k), F::add, make);
    }

    #[cold]
    #[inline(never)]
    fn behind(&mut self, hash: u64, at: Time, item: T) {
        if at == NO_TIME {
            return self.cell.fail_in(&self.uid, FailureKind::User, UNTIMED);
        }
        let windows = self.panes.windows;
        let last = windows.last_window(at);
        if last.end <= at {
            // Between windows.
            return;
        }
        if last.max_timestamp().saturating_add(self.lateness) <= self.watermark {
            match &self.late {
                Some(late) => self.around.sides.emit(late, at, item),
                None => self.cell.drops_late(&self.uid, 1),
            }
            return;
        }
        let key = self.key.own(&item);
        self.gather(hash, at, item);
        // Windows that have fired and are still kept fire again.
        let mut window = windows.first_window(at);
        while window.start <= at && window.max_timestamp() <= self.watermark {
            if window.max_timestamp().saturating_add(self.lateness) > self.watermark {
                let fold = &mut self.fold;
                let acc = self.panes.of_key(&window, hash, &key, |a, b| fold.merge(a, b));
                if let Some(acc) = acc {
                    let (key, watermark) = (key.clone(), self.watermark);
                    let ctx = WindowContext { key, window, watermark, around: &mut self.around };
                    self.again.push_back((window.max_timestamp(), self.result.apply(acc, ctx)));
                }
            }
            window = windows.window_from(window.start.saturating_add(windows.slide()));
        }
    }

    /// The next window whose end the watermark has passed, and that has something.
    fn next_due(&mut self, watermark: Time) -> Option<Firing<S::Key, F::Acc, R::Results>> {
        let windows = self.panes.windows;
        // One after another from the last one on; where panes are far apart, the first of the next pane.
        let mut after = self.fired;
        loop {
            let over = self.panes.list.partition_point(|p| windows.last_window(p.start).end <= after);
            let first = self.panes.list.get(over)?;
            let mut window = windows.first_window(first.start);
            if window.end <= after {
                // The first window that ends after `after`.
                window = windows.first_window(after);
            }
            if window.max_timestamp() > watermark {
                return None;
            }
            after = window.end;
            let panes = self.panes.from(window.start)..self.panes.from(window.end);
            if panes.is_empty() {
                continue;
            }
            self.fired = window.end;
            // The oldest pane goes with the window, unless late records may still fire it again.
            let oldest = &mut self.panes.list[panes.start];
            let is_last = windows.last_window(oldest.start).start <= window.start;
            let taken = (self.lateness == 0 && is_last).then(|| oldest.rows.take());
            let pane = panes.start;
            let rows = match taken {
                Some(rows) if panes.len() == 1 => Leaving::Taken(rows.into_iter()),
                Some(rows) => Leaving::Gather { pane: pane + 1, place: Place::default(), rows },
                None if panes.len() == 1 => Leaving::Walk { pane, place: Place::default() },
                None => Leaving::Gather { pane, place: Place::default(), rows: Rows::new() },
            };
            return Some(Firing { window, rows, results: None });
        }
    }

    /// Puts what several panes have of a window together, as far as the budget allows.
    fn gather_panes(&mut self, window: &TimeWindow, firing: &mut Leaving<S::Key, F::Acc>, budget: &mut usize) -> Flow {
        let Leaving::Gather { pane, place, rows } = firing else { return Flow::Done };
        let end = self.panes.from(window.end);
        while *pane < end {
            let from = &self.panes.list[*pane].rows;
            while let Some((row, next)) = from.at_or_after(*place) {
                if *budget == 0 {
                    return Flow::More;
                }
                *budget -= 1;
                *place = next;
                let same = |row: &&(S::Key, F::Acc), key: &S::Key| row.0 == *key;
                let merge = |fold: &mut F, acc: &mut F::Acc, row: &(S::Key, F::Acc)| fold.merge(acc, row.1.clone());
                rows.upsert(row.0.stable_hash(), row, &mut self.fold, same, merge, |_, row| row.clone());
            }
            (*pane, *place) = (*pane + 1, Place::default());
        }
        *firing = Leaving::Taken(rows.take().into_iter());
        Flow::Done
    }

    /// The next key of a window, and all that was gathered of it.
    fn next_row(&self, rows: &mut Leaving<S::Key, F::Acc>) -> Option<(S::Key, F::Acc)> {
        match rows {
            Leaving::Taken(rows) => rows.next(),
            Leaving::Walk { pane, place } => {
                let (row, next) = self.panes.list[*pane].rows.at_or_after(*place)?;
                *place = next;
                Some(row.clone())
            }
            Leaving::Gather { .. } => None,
        }
    }

    /// Gives out of a window what the budget allows.
    fn fire(
        &mut self,
        firing: &mut Firing<S::Key, F::Acc, R::Results>,
        watermark: Time,
        budget: &mut usize,
        out: &mut impl Push<R::Out>,
    ) -> Flow {
        let at = firing.window.max_timestamp();
        if self.gather_panes(&firing.window, &mut firing.rows, budget) == Flow::More {
            return Flow::More;
        }
        loop {
            if let Some(results) = &mut firing.results {
                loop {
                    if *budget == 0 {
                        return Flow::More;
                    }
                    let Some(result) = results.next() else { break };
                    *budget -= 1;
                    out.push(at, result);
                }
                firing.results = None;
            }
            if *budget == 0 {
                return Flow::More;
            }
            match self.next_row(&mut firing.rows) {
                Some((key, acc)) => {
                    let ctx = WindowContext { key, window: firing.window, watermark, around: &mut self.around };
                    firing.results = Some(self.result.apply(acc, ctx));
                }
                None => return Flow::Done,
            }
        }
    }
}

impl<T, F, S, R> Operator<T> for WindowOp<T, F, S, R>
where
    T: 'static,
    F: Fold<T>,
    S: KeySelect<T>,
    R: WindowFunction<S::Key, F::Acc>,
{
    type Out = R::Out;

    #[inline(always)]
    fn item(&mut self, at: Time, item: T, _: &mut impl Push<R::Out>) {
        self.one(self.key.hash(&item), at, item);
    }

    fn batch(&mut self, batch: &mut Batch<T>, mut limit: usize, _: &mut impl Push<R::Out>) {
        let mut hashes = [0; TILE];
        while let n @ 1.. = batch.hashes(&self.key, &mut limit, &mut hashes) {
            self.panes.near(&hashes[..n]);
            let mut hash = hashes.iter();
            batch.each(n, |_, at, item| self.one(hash.next().copied().unwrap_or(0), at, item));
        }
    }

    fn ready(&mut self, out: &mut impl Push<R::Out>) -> Ready {
        let mut left = STRIDE;
        while let Some((at, results)) = self.again.front_mut() {
            for result in results.by_ref().take(left) {
                left -= 1;
                out.push(*at, result);
            }
            if left == 0 {
                return Ready::Busy;
            }
            self.again.pop_front();
        }
        // What was emitted just now may have used the room downstream up.
        if left < STRIDE { Ready::Busy } else { Ready::Yes }
    }

    fn mark(&mut self, mark: Mark, budget: &mut usize, out: &mut impl Push<R::Out>) -> Flow {
        let Mark::At(at) = mark else { return Flow::Done };
        while let Some(mut firing) = self.firing.take().or_else(|| self.next_due(at)) {
            if self.fire(&mut firing, at, budget, out) == Flow::More {
                self.firing = Some(firing);
                return Flow::More;
            }
        }
        self.watermark = self.watermark.max(at);
        self.fired = self.fired.max(self.watermark.saturating_add(1));
        let over = self.watermark.saturating_sub(self.lateness);
        drop(self.panes.take_until(over));
        self.around.forget_until(over);
        Flow::Done
    }

    fn side(&mut self) -> Option<&mut dyn Control> {
        self.around.sides.control()
    }

    fn snapshot(&mut self) -> Option<Vec<u8>> {
        let all = self.around.snapshot().and_then(|around| self.panes.snapshot(self.watermark, around));
        keep(all, &self.cell, &self.uid)
    }
}
