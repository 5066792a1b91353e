//! Named states of a keyed function, for when one plain value a key is not enough: values, lists, maps, and values that
//! take records by a function. What a function does with them is in `views`.
//!
//! A function has a typed handle for each as a field, and adds it when a subtask begins; from then on the handle is an
//! index, so that no name is looked up for a record. Each use is a look-up of the key in that state's own table.

use super::{
    Place, RowTable, Rows,
    cells::{Aged, Cell, Elements, Entries, Live, Old},
    rows::Look,
    views::*,
};
use crate::{
    batch::Time,
    build::OpCx,
    codec,
    fold::AggregateFunction,
    key::{Data, OwnedKey},
};
use std::{any::Any, borrow::Cow, cell::RefCell, marker::PhantomData, sync::Arc, time::Duration};
use thalweg_env::Clock;
use thalweg_model::{FailureKind, TaskFailure};

/// How long a state is kept that is not used, by the machine's clock, ms precision: each value, each element of a list, each
/// entry of a map by itself. What is too old is not given out any more and in no snapshot, and makes room as others are
/// written, a few with each write.
#[derive(Clone, Copy, Debug)]
pub struct StateTtl {
    pub(super) after: Time,
    pub(super) on_read: bool,
}

impl StateTtl {
    /// So long after it was written. At least 1 ms: a state without it fails the job.
    pub fn of(after: Duration) -> Self {
        Self { after: Time::try_from(after.as_millis()).unwrap_or(Time::MAX), on_read: false }
    }

    /// Reading counts as using too.
    pub fn updated_on_read(self) -> Self {
        Self { on_read: true, ..self }
    }

    fn old(self, now: Time) -> Time {
        now.saturating_sub(self.after)
    }
}

/// What all handles have.
#[derive(Clone)]
pub struct Handle {
    pub(super) name: Cow<'static, str>,
    ttl: Option<StateTtl>,
    index: usize,
}

impl Handle {
    fn new(name: impl Into<Cow<'static, str>>) -> Self {
        Self { name: name.into(), ttl: None, index: usize::MAX }
    }
}

/// A typed handle of a named state of a function whose key is `K`.
pub trait KeyedState<K> {
    /// What the state's table has for one key.
    type Cell: Cell;
    /// The state of one key.
    type View<'a>
    where
        Self: 'a,
        K: 'a;
    /// Name and options.
    fn handle(&self) -> &Handle;
    /// The same, to be changed.
    fn handle_mut(&mut self) -> &mut Handle;
    /// The state of the key at hand.
    fn view<'a>(&'a self, at: StateAt<'a, K, Self::Cell>) -> Self::View<'a>
    where
        K: 'a;
}

macro_rules! handles { ($($(#[$doc:meta])* $name:ident<$($t:ident $(: $bound:path)?),*>, $cell:ty, $view:ident {$($field:ident),*};)*) => { $(
    impl<K: OwnedKey, $($t $(: $bound)?),*> KeyedState<K> for $name<$($t),*>
    where $cell: Cell, Self: 'static {
        type Cell = $cell;
        type View<'a> = $view<'a, K, $($t),*> where K: 'a;
        fn handle(&self) -> &Handle {
            &self.handle
        }
        fn handle_mut(&mut self) -> &mut Handle {
            &mut self.handle
        }
        #[inline]
        fn view<'a>(&'a self, at: StateAt<'a, K, Self::Cell>) -> Self::View<'a> where K: 'a {
            $view { at, $($field: &self.$field),* }
        }
    }
    impl<$($t),*> $name<$($t),*> {
        /// What is not used for so long is dropped.
        pub fn ttl(mut self, ttl: StateTtl) -> Self {
            self.handle.ttl = Some(ttl);
            self
        }
    }
)* } }

/// One value a key, or none.
pub struct ValueState<V> {
    handle: Handle,
    _t: PhantomData<fn() -> V>,
}

/// A list a key.
pub struct ListState<V> {
    handle: Handle,
    _t: PhantomData<fn() -> V>,
}

/// A map a key.
pub struct MapState<M, V> {
    handle: Handle,
    _t: PhantomData<fn() -> (M, V)>,
}

/// One value a key, into which a function merges others of its kind.
pub struct ReducingState<V> {
    handle: Handle,
    merge: fn(&mut V, V),
}

/// One value a key of what an [`AggregateFunction`] gathers.
pub struct AggregatingState<A, T> {
    handle: Handle,
    function: RefCell<A>,
    _t: PhantomData<fn(T)>,
}

// Not derived: records need no clones.
impl<A: Clone, T> Clone for AggregatingState<A, T> {
    fn clone(&self) -> Self {
        Self { handle: self.handle.clone(), function: self.function.clone(), _t: PhantomData }
    }
}

handles! {
    ValueState<V: Data>, Aged<V>, ValueView {};
    ListState<V: Data>, Elements<V>, ListView {};
    MapState<M: OwnedKey, V: Data>, Entries<M, V>, MapView {};
    ReducingState<V: Data>, Aged<V>, ReducingView { merge };
}

impl<K: OwnedKey, T: 'static, A: AggregateFunction<T>> KeyedState<K> for AggregatingState<A, T> {
    type Cell = Aged<A::Acc>;
    type View<'a>
        = AggregatingView<'a, K, A, T>
    where
        K: 'a;
    fn handle(&self) -> &Handle {
        &self.handle
    }
    fn handle_mut(&mut self) -> &mut Handle {
        &mut self.handle
    }
    fn view<'a>(&'a self, at: StateAt<'a, K, Self::Cell>) -> Self::View<'a>
    where
        K: 'a,
    {
        AggregatingView { at, function: &self.function }
    }
}

impl<V> Clone for ValueState<V> {
    fn clone(&self) -> Self {
        Self { handle: self.handle.clone(), _t: PhantomData }
    }
}
impl<V> Clone for ListState<V> {
    fn clone(&self) -> Self {
        Self { handle: self.handle.clone(), _t: PhantomData }
    }
}
impl<M, V> Clone for MapState<M, V> {
    fn clone(&self) -> Self {
        Self { handle: self.handle.clone(), _t: PhantomData }
    }
}
impl<V> Clone for ReducingState<V> {
    fn clone(&self) -> Self {
        Self { handle: self.handle.clone(), merge: self.merge }
    }
}

impl<V> ValueState<V> {
    /// By this name, which is its own within the function.
    pub fn new(name: impl Into<Cow<'static, str>>) -> Self {
        Self { handle: Handle::new(name), _t: PhantomData }
    }
}
impl<V> ListState<V> {
    /// By this name, which is its own within the function.
    pub fn new(name: impl Into<Cow<'static, str>>) -> Self {
        Self { handle: Handle::new(name), _t: PhantomData }
    }
}
impl<M, V> MapState<M, V> {
    /// By this name, which is its own within the function.
    pub fn new(name: impl Into<Cow<'static, str>>) -> Self {
        Self { handle: Handle::new(name), _t: PhantomData }
    }
}
impl<V> ReducingState<V> {
    /// By this name, which is its own within the function; `merge` adds its second argument to the first.
    pub fn new(name: impl Into<Cow<'static, str>>, merge: fn(&mut V, V)) -> Self {
        Self { handle: Handle::new(name), merge }
    }
}
impl<A, T> AggregatingState<A, T> {
    /// By this name, which is its own within the function.
    pub fn new(name: impl Into<Cow<'static, str>>, function: A) -> Self {
        Self { handle: Handle::new(name), function: RefCell::new(function), _t: PhantomData }
    }

    /// What is not used for so long is dropped.
    pub fn ttl(mut self, ttl: StateTtl) -> Self {
        self.handle.ttl = Some(ttl);
        self
    }
}

/// Where a function adds its states when a subtask begins.
pub struct KeyedStates<'a, K> {
    pub(crate) of: &'a mut Named<K>,
}

impl<K: OwnedKey> KeyedStates<'_, K> {
    /// The function has this state.
    pub fn add<S: KeyedState<K>>(&mut self, state: &mut S) {
        let handle = state.handle_mut();
        handle.index = self.of.tables.len();
        if self.of.tables.iter().any(|t| t.name == handle.name) {
            let name = &handle.name;
            self.of.error.get_or_insert_with(|| format!("two states are named {name:?}: give each a name of its own"));
        }
        if handle.ttl.is_some_and(|ttl| ttl.after < 1) {
            let name = &handle.name;
            let why =
                || format!("the time to live of state {name:?} is less than 1 ms: leave it out, or make it longer");
            self.of.error.get_or_insert_with(why);
        }
        let rows = Box::new(StateTable::<K, S::Cell>::new(handle.ttl));
        self.of.tables.push(NamedTable { name: handle.name.clone(), ages: handle.ttl.is_some(), rows });
    }
}

/// The named states of one function in one subtask.
pub(crate) struct Named<K> {
    tables: Vec<NamedTable<K>>,
    error: Option<String>,
    clock: Arc<dyn Clock>,
}

struct NamedTable<K> {
    name: Cow<'static, str>,
    ages: bool,
    rows: Box<dyn AnyTable<K>>,
}

pub(super) struct StateTable<K, C> {
    pub(super) rows: Rows<K, C>,
    pub(super) ttl: Option<StateTtl>,
    /// Where the next look for what is too old begins: a row, and a place in what the row has.
    place: (Place, usize),
}

/// Looks for what is too old, with each write.
const SWEPT: usize = 4;

impl<K: OwnedKey, C: Cell> StateTable<K, C> {
    fn new(ttl: Option<StateTtl>) -> Self {
        Self { rows: Rows::new(), ttl, place: Default::default() }
    }

    pub(super) fn old(&self, now: Time) -> Old {
        Old(self.ttl.map(|ttl| ttl.old(now)))
    }

    /// Drops some of what is too old, of any key. So many writes, at most, as there are keys and places of their lists
    /// and maps drop all of it.
    pub(super) fn sweep(&mut self, now: Time) {
        let old = self.old(now);
        if old.0.is_none() {
            return;
        }
        let (place, within) = &mut self.place;
        *place = self.rows.prune(*place, SWEPT, |cell| match cell.sweep(within, old) {
            true if *within > 0 => Look::Again,
            true => Look::Keep,
            false => {
                *within = 0;
                Look::Drop
            }
        });
    }
}

/// A table whose values' type is forgotten.
trait AnyTable<K>: Any {
    fn restore(&mut self, cx: &OpCx, part: &[u8]) -> Result<(), String>;
    /// Without what is too old by now. None where the state is kept elsewhere.
    fn snapshot(&self, now: Time) -> Option<Result<Vec<u8>, String>>;
    fn remove(&mut self, hash: u64, key: &K);
    /// An empty one of the same kind.
    fn blank(&self) -> Box<dyn AnyTable<K>>;
}

impl<K: OwnedKey, C: Cell> AnyTable<K> for StateTable<K, C> {
    fn restore(&mut self, cx: &OpCx, part: &[u8]) -> Result<(), String> {
        self.rows.restore(cx, codec::decode(part)?);
        Ok(())
    }
    fn snapshot(&self, now: Time) -> Option<Result<Vec<u8>, String>> {
        let old = self.old(now);
        if old.0.is_none() {
            return Some(self.rows.snapshot());
        }
        let live = self.rows.iter().filter(|row| row.1.is_live(old)).map(|row| (&row.0, Live(&row.1, old)));
        Some(codec::encode(&live.collect::<Vec<_>>()))
    }
    fn remove(&mut self, hash: u64, key: &K) {
        self.rows.remove(hash, key);
    }
    fn blank(&self) -> Box<dyn AnyTable<K>> {
        Box::new(Self::new(self.ttl))
    }
}

/// Holds the place of a state that another [`Named`] of the same function keeps: handles are indices, and one that is used
/// in the wrong place must find nothing.
struct Elsewhere;

impl<K> AnyTable<K> for Elsewhere {
    fn restore(&mut self, _: &OpCx, _: &[u8]) -> Result<(), String> {
        Err("the function keeps it elsewhere now".to_owned())
    }
    fn snapshot(&self, _: Time) -> Option<Result<Vec<u8>, String>> {
        None
    }
    fn remove(&mut self, _: u64, _: &K) {}
    fn blank(&self) -> Box<dyn AnyTable<K>> {
        Box::new(Self)
    }
}

/// Named states by their names, as bytes.
pub(crate) type SavedStates = Vec<(String, Vec<u8>)>;

impl<K: OwnedKey> Named<K> {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { tables: Vec::new(), error: None, clock }
    }

    /// Was something wrong with what the function added?
    pub(crate) fn check(&mut self, cx: &OpCx) -> Result<(), TaskFailure> {
        self.error.take().map_or(Ok(()), |e| Err(cx.failure(FailureKind::User, e)))
    }

    /// One part of a snapshot.
    pub(crate) fn restore(&mut self, cx: &OpCx, parts: SavedStates) -> Result<(), TaskFailure> {
        for (name, part) in parts {
            let Some(table) = self.tables.iter_mut().find(|t| t.name == name) else {
                let message = format!(
                    "the snapshot has a state {name:?} that the function does not add: add it, also where it is not used"
                );
                return Err(cx.failure(FailureKind::Incompatible, message));
            };
            table.rows.restore(cx, &part).map_err(|e| {
                cx.failure(FailureKind::Storage, format!("the snapshot's state {name:?} cannot be read: {e}"))
            })?;
        }
        Ok(())
    }

    pub(crate) fn snapshot(&self) -> Result<SavedStates, String> {
        let one = |t: &NamedTable<K>| Some(t.rows.snapshot(self.now())?.map(|rows| (t.name.to_string(), rows)));
        self.tables.iter().filter_map(one).collect()
    }

    /// The names of the states that are kept here.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        let is_here = |t: &&NamedTable<K>| !(&*t.rows as &dyn Any).is::<Elsewhere>();
        self.tables.iter().filter(is_here).map(|t| &*t.name)
    }

    /// The function has this state, and it is kept elsewhere.
    pub(crate) fn keeps_elsewhere<S: KeyedState<K>>(&mut self, state: &S) {
        let name = state.handle().name.clone();
        self.tables.push(NamedTable { name, ages: false, rows: Box::new(Elsewhere) });
    }

    /// The same states, empty.
    pub(crate) fn blank(&self) -> Self {
        let one = |t: &NamedTable<K>| NamedTable { name: t.name.clone(), ages: t.ages, rows: t.rows.blank() };
        Self { tables: self.tables.iter().map(one).collect(), error: None, clock: self.clock.clone() }
    }

    /// Forgets all states of a key.
    pub(crate) fn remove(&mut self, hash: u64, key: &K) {
        self.tables.iter_mut().for_each(|t| t.rows.remove(hash, key));
    }

    fn now(&self) -> Time {
        Time::try_from(self.clock.wall().0).unwrap_or(Time::MAX)
    }

    /// The state of a key.
    #[inline]
    #[track_caller]
    pub(crate) fn at<'a, S: KeyedState<K>>(&'a mut self, state: &'a S, hash: u64, key: &'a K) -> S::View<'a> {
        let handle = state.handle();
        let now = match self.tables.get(handle.index) {
            Some(table) if table.ages => self.now(),
            _ => 0,
        };
        let table = self.tables.get_mut(handle.index).map(|t| &mut *t.rows as &mut dyn Any);
        match table.and_then(|t| t.downcast_mut::<StateTable<K, S::Cell>>()) {
            Some(table) => state.view(StateAt { table, hash, key, now }),
            None => unknown(&handle.name),
        }
    }
}

/// A mistake in the function, told as its panic: there is no state that could be given.
#[cold]
#[track_caller]
#[expect(clippy::panic, reason = "within a call of the user's function, whose panics are the task's failures")]
pub(super) fn unknown(name: &str) -> ! {
    panic!(
        "the state {name:?} was not added: the function's `states` must add each of its states, and a window function's as \
            one of keys or of windows, whichever it asks for"
    )
}
