//! Sources: a coordinator that deals out splits, and readers that read them.
//!
//! The coordinator is a vertex of its own, of parallelism 1, in the slot of reader 0. Splits go to readers on an
//! ordinary edge, in order with barriers, so a barrier begins at the coordinator. Readers ask on a feedback edge when
//! they have nothing left, or would read one more.

mod blocks;
mod board;
mod collection;
mod coordinator;
mod drift;
mod files;
mod generator;
mod group;
mod half_read;
mod path_bytes;
mod patterns;
mod place;
mod reader;
mod sequence;
mod share;
mod socket;
mod splits;
mod text;
mod unpack;
mod watch;
mod words;

pub(crate) use board::{SplitBoard, Told};
pub use collection::Collection;
pub use generator::Generator;
pub(crate) use group::{Draft as GroupDraft, Link, connect as connect_groups};
pub(crate) use place::Place;
pub use reader::SourceHead;
pub use sequence::Sequence;
pub(crate) use share::Origin;
pub use socket::SocketText;
pub use text::{InvalidUtf8, TextBlocks, TextLines};
pub use words::{IntoWords, TextBlock, Words};

use crate::{
    batch::Time,
    build::OpCx,
    exchange::route::Addressed,
    key::Data,
    pipe::Recipe,
    plan::{OpId, PlanBuilder},
    push::Push,
    task::{SlotCx, Task, TaskMetrics, add},
};
use serde::{Deserialize, Serialize};
use std::{fmt::Display, path::Path};
use thalweg_model::{Moment, Partitioner, TaskFailure, UnixMillis, VertexRole};

/// Where records come from.
pub trait Source: Clone + Send + 'static {
    /// The records.
    type Item: 'static;
    /// What one reader reads at a time: a range of a file, a partition…
    type Split: Data;
    /// Deals splits out.
    type Enumerator: Enumerator<Split = Self::Split>;
    /// Reads them.
    type Reader: Reader<Item = Self::Item, Split = Self::Split>;
    /// `text-source`…
    fn kind(&self) -> &'static str;
    /// Does it end by itself?
    fn is_bounded(&self) -> bool;
    /// Looks at what only the client can see, before the job is submitted. The error says what to do.
    fn check(&self, _client_dir: &Path) -> Result<(), String> {
        Ok(())
    }
    /// Opens the enumerator, in the coordinator. After a restore `cx.restored()` has what it snapshot.
    fn enumerator(&self, cx: &OpCx) -> Result<Self::Enumerator, TaskFailure>;
    /// Opens a reader. Its share of the splits that were unfinished at the snapshot is added to it by its head.
    fn reader(&self, cx: &OpCx) -> Result<Self::Reader, TaskFailure>;
}

/// What a reader that asks is told.
pub enum Assignment<S> {
    /// Read this.
    Split(S),
    /// There is nothing now; it is asked again when the coordinator is woken.
    Wait,
    /// There will be nothing more.
    NoMore,
}

/// Deals splits out. It runs on the slot's thread of the coordinator and must not wait long.
pub trait Enumerator: 'static {
    /// What is dealt.
    type Split;
    /// Reader `reader` asks for a split: it has nothing left, or [would read one more](Reader::wants_more). Which of the
    /// two is not told: who reads on and is answered [`Assignment::NoMore`] hears of it once it has nothing left, and is
    /// asked for again then.
    fn next(&mut self, reader: u32) -> Result<Assignment<Self::Split>, TaskFailure>;
    /// Bytes of all splits together, where that is known.
    fn total_bytes(&self) -> u64 {
        0
    }
    /// What was not dealt yet.
    fn snapshot(&self) -> Result<Vec<u8>, String>;
}

/// What one call of [`Reader::poll`] did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Polled {
    /// It gave records, or may give some if asked at once.
    Progress,
    /// It waits for the outside; the slot's waker or a wish for a time tells when.
    Idle,
    /// The split that [`Reader::reading`] named before the call has nothing left; others have.
    Ended,
    /// It has nothing left to read.
    Done,
}

/// Reads splits.
pub trait Reader: 'static {
    /// The records.
    type Item: 'static;
    /// What it reads.
    type Split;
    /// One more to read.
    fn add(&mut self, split: Self::Split);
    /// Gives about `budget` records out, fewer if they are large, and never waits.
    fn poll(
        &mut self,
        budget: usize,
        out: &mut impl Push<Self::Item>,
        cx: &mut ReaderCx,
    ) -> Result<Polled, TaskFailure>;
    /// What is left to read of the splits that were added, in the order in which they were.
    fn unfinished(&self) -> Vec<Self::Split>;
    /// Place among [`unfinished`](Reader::unfinished) of the split whose records the next call of [`poll`](Reader::poll)
    /// gives. A reader that tells its splits apart answers it whenever it has one; where
    /// [`ReaderCx::one_split`] says so a call gives records of that split alone, and says [`Polled::Ended`] when it has
    /// nothing left. Each split has a watermark of its own then. `None`: all that is read counts as one split.
    fn reading(&self) -> Option<usize> {
        None
    }
    /// Would it read one more beside those that it has? Asked between two calls of [`poll`](Reader::poll), and while it is
    /// yes nothing is read before the enumerator has answered: so a reader begins with all the splits that it gets at that
    /// time, and none of them is late for what another has told of event time. Splits that never end, such as the partitions
    /// of a log, need a yes: a reader of one has never nothing left, and would get no other. By default the next one comes
    /// when there is nothing left.
    fn wants_more(&self) -> bool {
        false
    }
    /// Are all splits read at once? Else one is read after the other, and those whose turn has not come are not idle,
    /// however long they wait.
    fn at_once(&self) -> bool {
        true
    }
    /// The next call reads the split at this place among [`unfinished`](Reader::unfinished): the one before is too far
    /// ahead of others. Answers whether it will, and so will [`reading`](Reader::reading).
    fn turn_to(&mut self, _place: usize) -> bool {
        false
    }
}

/// What a reader may ask and tell.
pub struct ReaderCx<'a> {
    pub(crate) slot: &'a mut SlotCx,
    pub(crate) metrics: &'a TaskMetrics,
    pub(crate) place: &'a Place,
    pub(crate) one_split: bool,
}

impl ReaderCx<'_> {
    /// What this call gives out is read from here: a file, with what tells it from others. With [`ReaderCx::at`] for each
    /// record it is what errors say of a bad one, and [`BadRecord::place`](crate::formats::BadRecord).
    pub fn reads(&self, input: impl Display) {
        self.place.input(input);
    }
    /// The next record begins at this byte of the input.
    #[inline(always)]
    pub fn at(&self, byte: u64) {
        self.place.at(byte);
    }
    /// Must this call give records of the split alone that [`Reader::reading`] named? Only jobs whose watermarks go by
    /// split ask for it.
    pub fn one_split(&self) -> bool {
        self.one_split
    }
    /// So many bytes were read.
    pub fn read_bytes(&self, bytes: u64) {
        add(&self.metrics.source_bytes, bytes);
    }
    /// So many records were left out because they could not be read.
    pub fn skipped(&self, records: u64) {
        add(&self.metrics.skipped, records);
    }
    /// Poll again at this time.
    pub fn wake_at(&mut self, at: Moment) {
        self.slot.wake_at(at);
    }
    /// When this step began.
    pub fn now(&self) -> Moment {
        self.slot.now
    }
    /// Wall-clock time.
    pub fn wall(&self) -> UnixMillis {
        self.slot.clock().wall()
    }
}

/// Something for one reader.
#[derive(Serialize, Deserialize)]
pub(crate) struct Assign<S> {
    to: u32,
    what: What<S>,
}

#[derive(Serialize, Deserialize)]
enum What<S> {
    Split(S),
    /// There are no more.
    NoMore,
    /// Who asked for one beside those that it reads gets none now; one may come later.
    Later,
    /// The lowest watermark of the other readers.
    Lowest(Time),
}

impl<S> Addressed for Assign<S> {
    fn to(&self) -> u32 {
        self.to
    }
}

/// What a reader tells the coordinator.
#[derive(Serialize, Deserialize)]
pub(crate) enum Request {
    /// A split, to read now, or beside those that it has.
    Split { idle: bool },
    /// It has nothing left meanwhile. What was sent already counts as the answer.
    Idle,
    /// Its watermark, `None` when it is idle, and how often it wants to hear of others, ms.
    At(Option<Time>, u64),
}

/// Writes coordinator and readers into a plan. The chain behind the head is closed by whoever goes on.
#[track_caller]
pub fn add_source<S: Source>(plan: &PlanBuilder, source: S) -> (OpId, SourceHead<S>) {
    let vertex = plan.vertex(VertexRole::Task, None);
    plan.mark_source(vertex, source.is_bounded());
    let op = plan.operator(vertex, source.kind(), &["splits"]);
    let coordinator = plan.vertex(VertexRole::Coordinator, Some(1));
    plan.companion(coordinator, op, "/coordinator", "coordinator", &["splits"]);
    let assignments = plan.edge::<Assign<S::Split>>(coordinator, vertex, Partitioner::Direct, false);
    let requests = plan.edge::<Request>(vertex, coordinator, Partitioner::Rebalance, true);
    let (mine, link) = (source.clone(), plan.coordinated(op, coordinator));
    let make = move || -> Recipe<Box<dyn Task>> {
        let (source, link) = (mine.clone(), link.get().copied());
        Box::new(move |cx| coordinator::make(cx, &source, assignments, requests, link.as_ref()))
    };
    plan.install(coordinator, Box::new(make));
    let mine = source.clone();
    plan.check(move |dir| mine.check(dir));
    (op, SourceHead::new(source, assignments, requests))
}
