//! Streams that are being written down.

use crate::{
    Environment, JobError, Windows,
    connected::{BroadcastConnectedStreams, ConnectedStreams},
    keyed::{KeyedKeys, KeyedStream},
    sinks::{Collected, SinkRef, TextOutput},
    timed::Timed,
};
use std::{cmp::Ordering, fmt::Display, marker::PhantomData, panic::Location};
use thalweg_dataflow::{
    Data, Key, OpId, OutputTag, OwnedKey, PlanBuilder, Time,
    asynchronous::{AsyncMap, AsyncOptions, Blocking, blocking},
    event_time::{Stamp, WatermarkGenerator, WatermarkStrategy},
    fold::Keys,
    gate_task::add_gate,
    key::{ByRef, ByValue},
    ops::{ClonedToSubtasks, Filter, FilterMap, FlatMap, Inspect, Map, TryMap},
    pipe::{Inlet, Pipe, Terminal, Then, ToInlet, Transform, close},
    process::{ProcessFunction, ProcessSpec},
    routes::{BroadcastRoute, CustomRoute, GlobalRoute, ShuffleRoute, TurnRoute},
    side::Sides,
    sink::{BucketAssigner, Collect, Discard, FileSink, ForEach, LineFormat, Print, Sink, SocketSink, add_sink},
    top::Top,
};
use thalweg_model::{Partitioner, VertexRole};

fn no_key<T>(_: &T) {}

/// A stream of records. `DataStream<Order>` names one that came out of an exchange, `split()`, `union()` or `boxed()`;
/// the second parameter is left to inference everywhere else.
///
/// A stream is used once. For several consumers write `let [a, b] = s.split();`, or `.boxed()` it and clone that.
#[must_use = "a stream does nothing until it ends in a sink"]
pub struct DataStream<T, P = Inlet<T>> {
    pub(crate) plan: PlanBuilder,
    pub(crate) op: OpId,
    pub(crate) pipe: P,
    /// Have its records times, and which?
    pub(crate) timed: Timed,
    /// Side outputs of the last operator, if it has any.
    pub(crate) sides: Option<Sides>,
    /// How the next chain begins, where the last operator stands alone.
    pub(crate) next_chain: Option<fn(DataStream<T>) -> DataStream<T>>,
    _t: PhantomData<fn() -> T>,
}

impl<T: Clone + 'static> Clone for DataStream<T> {
    fn clone(&self) -> Self {
        self.pipe.share();
        Self {
            sides: self.sides.clone(),
            next_chain: self.next_chain,
            ..Self::new(self.plan.clone(), self.op, self.pipe.clone(), self.timed)
        }
    }
}

impl<T, P> DataStream<T, P> {
    pub(crate) fn new(plan: PlanBuilder, op: OpId, pipe: P, timed: Timed) -> Self {
        Self { plan, op, pipe, timed, sides: None, next_chain: None, _t: PhantomData }
    }

    /// Its last operator has side outputs.
    pub(crate) fn with_sides(self, sides: Sides) -> Self {
        Self { sides: Some(sides), ..self }
    }

    /// Addresses the last operator's state, and names it in messages. Keep it stable between releases.
    pub fn uid(self, uid: impl Into<String>) -> Self {
        self.plan.set_uid(self.op, uid.into());
        self
    }

    /// What users see of the last operator.
    pub fn name(self, name: impl Into<String>) -> Self {
        self.plan.set_name(self.op, name.into());
        self
    }

    /// Number of subtasks of the chain that the last operator is in.
    pub fn parallelism(self, parallelism: u32) -> Self {
        self.plan.set_parallelism(self.op.vertex, parallelism);
        self
    }

    /// Number of key groups of the chain that the last operator is in.
    pub fn max_parallelism(self, max_parallelism: u32) -> Self {
        self.plan.set_max_parallelism(self.op.vertex, max_parallelism);
        self
    }
}

impl<T: 'static, P: Pipe<Item = T>> DataStream<T, P> {
    /// One record for each.
    #[track_caller]
    pub fn map<U: 'static, F: FnMut(T) -> U + ClonedToSubtasks>(self, f: F) -> DataStream<U, Then<P, Map<F>>> {
        self.apply("map", Map(f))
    }

    /// The records for which the function says yes.
    #[track_caller]
    pub fn filter<F: FnMut(&T) -> bool + ClonedToSubtasks>(self, f: F) -> DataStream<T, Then<P, Filter<F>>> {
        self.apply("filter", Filter(f))
    }

    /// One record or none for each.
    #[track_caller]
    pub fn filter_map<U: 'static, F: FnMut(T) -> Option<U> + ClonedToSubtasks>(
        self,
        f: F,
    ) -> DataStream<U, Then<P, FilterMap<F>>> {
        self.apply("filter-map", FilterMap(f))
    }

    /// Any number of records for each. A long iterator is left where it is while others get their turn.
    #[track_caller]
    pub fn flat_map<I: IntoIterator<Item: 'static> + 'static, F: FnMut(T) -> I + ClonedToSubtasks>(
        self,
        f: F,
    ) -> DataStream<I::Item, Then<P, FlatMap<F>>> {
        self.apply("flat-map", FlatMap(f))
    }

    /// Looks at each record.
    #[track_caller]
    pub fn inspect<F: FnMut(&T) + ClonedToSubtasks>(self, f: F) -> DataStream<T, Then<P, Inspect<F>>> {
        self.apply("inspect", Inspect(f))
    }

    /// One record for each; an error fails the job.
    #[track_caller]
    pub fn try_map<U: 'static, E: Display, F: FnMut(T) -> Result<U, E> + ClonedToSubtasks>(
        self,
        f: F,
    ) -> DataStream<U, Then<P, TryMap<F>>> {
        self.apply("try-map", TryMap(f))
    }

    /// Event time begins here: the function gives a record's time, in ms since 1970 UTC, and the strategy says how the
    /// watermark follows. Times and watermarks that the stream had before are replaced.
    ///
    /// Where nothing but functions of single records (`map`, `filter`, `flat_map`, `parse_json`…) is between a source and
    /// this, each split of the source has watermarks of its own, and the lowest of a subtask's counts; see
    /// [`WatermarkStrategy`].
    #[track_caller]
    pub fn assign_timestamps_and_watermarks<F: FnMut(&T) -> Time + ClonedToSubtasks, G: WatermarkGenerator<T>>(
        self,
        time: F,
        strategy: WatermarkStrategy<G>,
    ) -> DataStream<T, Then<P, Stamp<F, G>>> {
        let this = self.open();
        let by_split = this.pipe.in_step();
        this.plan.checked(strategy.check());
        if let Some(group) = strategy.alignment_group() {
            if !by_split {
                this.plan.error(format!(
                    "{}: watermark alignment (group {group:?}) needs its strategy right behind a source, with nothing but \
                     functions of single records between: assign the times there",
                    Location::caller()
                ));
            } else {
                this.plan.checked(this.plan.align(this.op.vertex, group));
            }
        }
        let stamp = Stamp::new(time, strategy).by_split(by_split);
        DataStream { timed: Timed::Event, ..this.apply("timestamps", stamp) }
    }

    /// What the last operator writes to this tag. Each tag is taken once.
    #[track_caller]
    pub fn side_output<U: 'static>(&self, tag: &OutputTag<U>) -> DataStream<U> {
        let inlet = Inlet::default();
        let added = match &self.sides {
            Some(sides) => sides.add(tag, &inlet),
            None => {
                let why = "what comes before has no side outputs: ask the stream that the operator itself gives, before \
                           anything else follows";
                Err(why.to_owned())
            }
        };
        if let Err(e) = added {
            self.plan.error(format!("side_output at {}: {e}", Location::caller()));
        }
        let watch = inlet.clone();
        self.plan.open_end(self.op, move || watch.is_taken());
        DataStream::new(self.plan.clone(), self.op, inlet, self.timed)
    }

    /// Any operator of your own.
    #[track_caller]
    pub fn apply<O: Transform<T>>(self, kind: &'static str, op: O) -> DataStream<O::Out, Then<P, O>> {
        let this = self.open();
        let id = this.plan.operator(this.op.vertex, kind, &[]);
        DataStream::new(this.plan, id, Then::new(this.pipe, op, id.op), this.timed)
    }

    /// Groups by a key that is computed, or `Copy`.
    pub fn key_by<K: OwnedKey, F: Fn(&T) -> K + ClonedToSubtasks>(self, f: F) -> KeyedStream<T, ByValue<F>, P> {
        KeyedStream::new(self, ByValue(f))
    }

    /// Groups by a key that lies in the record: nothing is cloned but for a key that is new.
    pub fn key_by_ref<Q, F>(self, f: F) -> KeyedStream<T, ByRef<F>, P>
    where
        Q: ?Sized + Key + Eq + ToOwned<Owned: OwnedKey> + 'static,
        F: Fn(&T) -> &Q + ClonedToSubtasks,
    {
        KeyedStream::new(self, ByRef(f))
    }

    /// Groups all records by windows, without keys. One subtask has them all.
    #[track_caller]
    pub fn window_all<W: Windows>(self, windows: W) -> W::Of<T, ByValue<fn(&T)>, P> {
        self.key_by(no_key as fn(&T)).window(windows)
    }

    /// Groups by each of the keys that lie in a record, without making one of them: the words of a block of text.
    ///
    /// Pass a `fn` or a method by its path; a closure cannot say that the keys borrow from the record.
    ///
    /// ```
    /// # let env = thalweg_api::testing::environment(1, std::env::temp_dir())?;
    /// # use thalweg_api::prelude::*;
    /// let blocks = env.from_collection([TextBlock::new(b"a b a".to_vec())]);
    /// let counts = blocks.key_each(TextBlock::words).count().collect();
    /// # let result = env.execute("words")?;
    /// # assert_eq!(result.collected(&counts)?.len(), 2);
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn key_each<Q, F>(self, keys: F) -> KeyedKeys<T, Q, F, P>
    where
        Q: ?Sized + Key + Eq + ToOwned<Owned: OwnedKey> + 'static,
        F: for<'a> Keys<'a, T, Q> + ClonedToSubtasks,
    {
        KeyedKeys::new(self, keys)
    }

    /// Erases the type of the chain so far, at the price of one dynamic call a batch. Box chains of more than twenty
    /// operators: the time to compile one grows with the cube of its length.
    pub fn boxed(self) -> DataStream<T> {
        let inlet = Inlet::behind(&self.pipe);
        close(&self.plan, self.op.vertex, self.pipe, ToInlet(inlet.clone()));
        let watch = inlet.clone();
        self.plan.open_end(self.op, move || watch.is_taken());
        let next_chain = self.next_chain;
        DataStream { sides: self.sides, next_chain, ..DataStream::new(self.plan, self.op, inlet, self.timed) }
    }

    /// `let [a, b] = s.split();` Each branch gets every record, in the same task.
    pub fn split<const N: usize>(self) -> [DataStream<T>; N]
    where
        T: Clone,
    {
        let stream = self.boxed();
        std::array::from_fn(|_| stream.clone())
    }

    /// The records of both, in no order between them.
    #[track_caller]
    pub fn union<Q: Pipe<Item = T>>(self, other: DataStream<T, Q>) -> DataStream<T>
    where
        T: Data,
    {
        self.plan.meets(&other.plan, "union");
        self.met(other)
    }

    /// Of two streams of which it is known whether they may meet.
    #[track_caller]
    pub(crate) fn met<Q: Pipe<Item = T>>(self, other: DataStream<T, Q>) -> DataStream<T>
    where
        T: Data,
    {
        let plan = self.plan.clone();
        let to = plan.vertex(VertexRole::Task, None);
        let op = plan.operator(to, "union", &[]);
        plan.set_gate(op);
        // Times only where all have them: a window behind it is refused then, with its place.
        let timed = self.timed.min(other.timed);
        let edges = vec![self.turn(to, Partitioner::Forward), other.turn(to, Partitioner::Forward)];
        DataStream::new(plan.clone(), op, add_gate(&plan, to, edges, op), timed)
    }

    /// Deals the records out to all subtasks of what follows, one to each in turn.
    #[track_caller]
    pub fn rebalance(self) -> DataStream<T>
    where
        T: Data,
    {
        let timed = self.timed.travels();
        self.exchange("rebalance", Partitioner::Rebalance, |edge| TurnRoute { edge, timed })
    }

    /// Deals the records out to a few subtasks of what follows: each subtask feeds its share of them, or several feed one. It
    /// has fewer channels than [`rebalance`](DataStream::rebalance), and evens nothing out between subtasks that feed others.
    #[track_caller]
    pub fn rescale(self) -> DataStream<T>
    where
        T: Data,
    {
        let timed = self.timed.travels();
        self.exchange("rescale", Partitioner::Rescale, |edge| TurnRoute { edge, timed })
    }

    /// Deals the records out to all subtasks of what follows by chance.
    #[track_caller]
    pub fn shuffle(self) -> DataStream<T>
    where
        T: Data,
    {
        let timed = self.timed.travels();
        self.exchange("shuffle", Partitioner::Shuffle, |edge| ShuffleRoute { edge, timed })
    }

    /// Gives every record to all subtasks of what follows.
    #[track_caller]
    pub fn broadcast(self) -> DataStream<T>
    where
        T: Data + Clone,
    {
        let timed = self.timed.travels();
        self.exchange("broadcast", Partitioner::Broadcast, |edge| BroadcastRoute { edge, timed })
    }

    /// Gives all records to the first subtask of what follows.
    #[track_caller]
    pub fn global(self) -> DataStream<T>
    where
        T: Data,
    {
        let timed = self.timed.travels();
        self.exchange("global", Partitioner::Global, |edge| GlobalRoute { edge, timed })
    }

    /// Gives each record to the subtask of what follows that the function names: it is told the record and how many there
    /// are, and its answer is taken modulo that.
    #[track_caller]
    pub fn partition_custom<F: FnMut(&T, usize) -> usize + ClonedToSubtasks>(self, f: F) -> DataStream<T>
    where
        T: Data,
    {
        let timed = self.timed.travels();
        self.exchange("partition-custom", Partitioner::Custom, |edge| CustomRoute { edge, timed, f })
    }

    #[track_caller]
    pub(crate) fn exchange<K: Terminal<T>>(
        self,
        kind: &'static str,
        how: Partitioner,
        route: impl FnOnce(u32) -> K,
    ) -> DataStream<T>
    where
        T: Data,
    {
        let (plan, timed) = (self.plan.clone(), self.timed);
        let to = plan.vertex(VertexRole::Task, None);
        let op = plan.operator(to, kind, &[]);
        plan.set_gate(op);
        let edge = plan.edge::<T>(self.op.vertex, to, how, false);
        close(&plan, self.op.vertex, self.pipe, route(edge));
        DataStream::new(plan.clone(), op, add_gate(&plan, to, vec![edge], op), timed)
    }

    /// One record for each, made by a future on the runtime's threads, while other records go on. The record is kept until
    /// then, and a failure fails the job; see [`AsyncOptions`].
    ///
    /// ```
    /// # let env = thalweg_api::testing::environment(1, std::env::temp_dir())?;
    /// # use thalweg_api::{AsyncOptions, prelude::*};
    /// # use std::time::Duration;
    /// let options = AsyncOptions::unordered().capacity(50).timeout(Duration::from_secs(2)).retries(3, Duration::from_millis(50));
    /// let answers = env.sequence(0..10).map_async(options, |i| async move { Ok::<_, std::io::Error>(i * i) }).collect();
    /// # let result = env.execute("asks")?;
    /// # assert_eq!(result.collected(&answers)?.len(), 10);
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn map_async<U, E, F, Fut>(self, options: AsyncOptions, f: F) -> DataStream<U, Then<P, AsyncMap<F, Fut>>>
    where
        T: Data + Clone,
        U: Send + 'static,
        E: Display + 'static,
        F: FnMut(T) -> Fut + ClonedToSubtasks,
        Fut: Future<Output = Result<U, E>> + Send + 'static,
    {
        self.plan.checked(options.check());
        self.apply("async-map", AsyncMap::new(options, f))
    }

    /// The same with a function that blocks: each call has a thread for itself, as many as the options' capacity. A call that
    /// has taken too long cannot be ended: its thread goes on beside those of the calls that follow.
    #[track_caller]
    pub fn map_blocking<U, E, F>(
        self,
        options: AsyncOptions,
        f: F,
    ) -> DataStream<U, Then<P, AsyncMap<impl FnMut(T) -> Blocking<U> + ClonedToSubtasks, Blocking<U>>>>
    where
        T: Data + Clone,
        U: Send + 'static,
        E: Display + 'static,
        F: FnMut(T) -> Result<U, E> + ClonedToSubtasks,
    {
        self.plan.checked(options.check());
        self.apply("blocking-map", AsyncMap::new(options, blocking(f)))
    }

    /// A function that sees time, and has side outputs.
    #[track_caller]
    pub fn process<F: ProcessFunction<T>>(self, f: F) -> DataStream<F::Out, Then<P, ProcessSpec<F>>> {
        let sides = Sides::default();
        self.apply("process", ProcessSpec { f, sides: sides.clone() }).with_sides(sides)
    }

    /// Two streams of different types, to be handled together.
    #[track_caller]
    pub fn connect<U, Q: Pipe<Item = U>>(self, other: DataStream<U, Q>) -> ConnectedStreams<T, U, P, Q> {
        self.plan.meets(&other.plan, "connect");
        ConnectedStreams { left: self, right: other }
    }

    /// The same, where every subtask gets all records of the other stream: rules, rates, anything that all must know.
    #[track_caller]
    pub fn connect_broadcast<U: Data + Clone, Q: Pipe<Item = U>>(
        self,
        other: DataStream<U, Q>,
    ) -> BroadcastConnectedStreams<T, U, P, Q> {
        self.plan.meets(&other.plan, "connect_broadcast");
        BroadcastConnectedStreams { stream: self, broadcast: other }
    }

    pub(crate) fn turn(self, to: usize, how: Partitioner) -> u32
    where
        T: Data,
    {
        let edge = self.plan.edge::<T>(self.op.vertex, to, how, false);
        close(&self.plan, self.op.vertex, self.pipe, TurnRoute { edge, timed: self.timed.travels() });
        edge
    }

    /// The `n` greatest records of the whole stream, greatest first, when the stream has ended. What follows runs in
    /// one subtask.
    #[track_caller]
    pub fn top<C: FnMut(&T, &T) -> Ordering + ClonedToSubtasks>(
        self,
        n: usize,
        compare: C,
    ) -> DataStream<T, Then<Inlet<T>, Top<T, C>>>
    where
        T: Data,
    {
        let this = self.open();
        let plan = this.plan.clone();
        let local = plan.operator(this.op.vertex, "top", &["kept"]);
        let pipe = Then::new(this.pipe, Top::new(n, compare.clone()), local.op);
        let to = plan.vertex_alone();
        let op = plan.operator(to, "top", &["kept"]);
        plan.set_companion(local, op, "/local");
        let edge = DataStream::<T, _>::new(plan.clone(), local, pipe, Timed::Not).turn(to, Partitioner::Rebalance);
        let inlet = add_gate(&plan, to, vec![edge], op);
        DataStream::new(plan, op, Then::new(inlet, Top::new(n, compare), op.op), Timed::Not)
    }

    /// A line for each record on standard output. In a cluster that is the job's log.
    #[track_caller]
    pub fn print(self) -> SinkRef
    where
        T: Display,
    {
        self.sink(Print)
    }

    /// A line for each record, in the files of a folder. They appear when the whole output is complete.
    ///
    /// The folder must be empty or not be there, unless `TextOutput::new(path).overwrite()` is passed.
    #[track_caller]
    pub fn write_text(self, to: impl Into<TextOutput>) -> SinkRef
    where
        T: Display,
    {
        self.sink(to.into().sink())
    }

    /// The same, with lines made by a function: for bytes that are no text.
    #[track_caller]
    pub fn write_lines<F: FnMut(&T, &mut Vec<u8>) + ClonedToSubtasks>(
        self,
        to: impl Into<TextOutput>,
        line: F,
    ) -> SinkRef {
        self.sink(to.into().sink().format(thalweg_dataflow::sink::With(line)))
    }

    /// A line for each record, in files that are closed by size and age, in sub-folders if the sink says so. In a job
    /// that ends they appear together at its end, once, whatever fails; in a job without an end as they are closed,
    /// and a restart may repeat records.
    ///
    /// ```
    /// # let dir = std::env::temp_dir().join(format!("thalweg-write-files-{}", std::process::id()));
    /// # let env = thalweg_api::testing::environment(1, std::env::temp_dir())?;
    /// # use thalweg_api::{FileSink, RollingPolicy, prelude::*};
    /// let sink = FileSink::new(&dir).suffix(".txt").rolling(RollingPolicy::default().max_bytes(64 << 20));
    /// let sink = sink.buckets_by(|n: &u64, _time, folder| folder.push_str(if n % 2 == 0 { "even" } else { "odd" }));
    /// env.sequence(0..10).write_files(sink).uid("numbers");
    /// env.execute("files")?;
    /// # assert_eq!(std::fs::read_dir(dir.join("odd"))?.count(), 1);
    /// # std::fs::remove_dir_all(dir)?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn write_files<F: LineFormat<T>, B: BucketAssigner<T>>(self, to: FileSink<F, B>) -> SinkRef {
        if to.needs_event_time::<T>() && !self.timed.is_event() {
            self.plan.error(format!(
                "write_files at {} has buckets by event time, and the stream has none{}: call \
                 assign_timestamps_and_watermarks before, or take TimeBuckets::by_processing_time()",
                Location::caller(),
                self.timed.why_not()
            ));
        }
        self.sink(to)
    }

    /// A line for each record to the server at `host:port`, over one connection: all records go to one subtask for it.
    /// For trying things out. A connection that is lost fails the job, and a restart may repeat records. For a
    /// connection of each subtask, or another form of lines, use `sink(SocketSink::new(address))`.
    #[track_caller]
    pub fn write_socket(self, address: impl Into<String>) -> SinkRef
    where
        T: Display + Data,
    {
        self.global().parallelism(1).sink(SocketSink::new(address))
    }

    /// Brings the records back in the job's result; at most 15 MiB of them.
    #[track_caller]
    pub fn collect(self) -> Collected<T>
    where
        T: Data,
    {
        let plan = self.plan.clone();
        let op = self.sink(Collect::new()).op;
        Collected::new(plan, op)
    }

    /// Runs the program that was written so far, and brings these records back; at most 15 MiB of them.
    ///
    /// ```
    /// # let env = thalweg_api::testing::environment(1, std::env::temp_dir())?;
    /// let squares = env.sequence(0..4).map(|i| i * i).execute_and_collect(&env, "squares")?;
    /// assert_eq!(squares, [0, 1, 4, 9]);
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn execute_and_collect(self, env: &Environment, name: &str) -> Result<Vec<T>, JobError>
    where
        T: Data,
    {
        self.plan.meets(&env.plan(), "execute_and_collect");
        let collected = self.collect();
        env.execute(name)?.collected(&collected)
    }

    /// Drops the records.
    #[track_caller]
    pub fn discard(self) -> SinkRef {
        self.sink(Discard)
    }

    /// Calls a function for each record, in the subtask that has it.
    #[track_caller]
    pub fn for_each<F: FnMut(T) + ClonedToSubtasks>(self, f: F) -> SinkRef {
        self.sink(ForEach(f))
    }

    /// Any sink.
    #[track_caller]
    pub fn sink<K: Sink<T>>(self, sink: K) -> SinkRef {
        let this = self.open();
        let op = add_sink(&this.plan, this.op.vertex, this.pipe, sink);
        SinkRef { plan: this.plan, op }
    }
}
