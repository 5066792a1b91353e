//! Windows of any kind: assigned by a function of the time, merged where they overlap, fired by a trigger, thinned by
//! an evictor. Each key keeps a short list of its open windows.

use super::{
    TimeWindow, WindowContext, WindowFunction,
    assigner::WindowTime,
    context::{Around, SavedAround},
    evictor::Evictor,
    gaps::RecordAssigner,
    gather::Gather,
    trigger::{Asked, Trigger, TriggerContext, TriggerResult, Wishes},
};
use crate::{
    batch::{NO_TIME, Time},
    build::OpCx,
    codec,
    event_time::{Due, Timers},
    key::KeySelect,
    keyed::keep,
    pipe::Transform,
    push::{Control, Flow, Mark, Operator, Push, Ready, STRIDE},
    side::{OutputTag, Sides},
    state::{RowTable, Rows},
    task::TaskCell,
};
use serde::{Deserialize, Serialize};
use std::{collections::VecDeque, marker::PhantomData, rc::Rc, sync::Arc, time::Duration};
use thalweg_model::{FailureKind, TaskFailure};

/// An open window of a key.
#[derive(Serialize, Deserialize)]
pub struct Open<A, G> {
    window: TimeWindow,
    contents: Option<A>,
    trigger: G,
    asked: Asked,
}

/// Windows over a keyed stream.
pub struct TriggeredSpec<T, W, G, V, F, S, R> {
    /// Which windows a record belongs to.
    pub assigner: W,
    /// When they fire.
    pub trigger: G,
    /// What is dropped before.
    pub evictor: V,
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

impl<T, W: Clone, G: Clone, V: Clone, F: Clone, S: Clone, R: Clone> Clone for TriggeredSpec<T, W, G, V, F, S, R> {
    fn clone(&self) -> Self {
        Self {
            assigner: self.assigner.clone(),
            trigger: self.trigger.clone(),
            evictor: self.evictor.clone(),
            lateness: self.lateness,
            fold: self.fold.clone(),
            key: self.key.clone(),
            result: self.result.clone(),
            late: self.late.clone(),
            sides: self.sides.clone(),
        }
    }
}

/// A live [`TriggeredSpec`].
pub struct TriggeredOp<T, W, G, V, F, S, R>
where
    G: Trigger<T>,
    F: Gather<T>,
    S: KeySelect<T>,
    R: WindowFunction<S::Key, F::Acc>,
{
    spec: TriggeredSpec<T, W, G, V, F, S, R>,
    rows: Rows<S::Key, Vec<Open<F::Acc, G::State>>>,
    event: Timers<S::Key>,
    processing: Timers<S::Key>,
    watermark: Time,
    /// Results that wait for room, and their time.
    results: VecDeque<(Time, R::Results)>,
    /// Windows that a record belongs to, gathered here.
    assigned: Vec<TimeWindow>,
    around: Around<S::Key>,
    uid: Arc<str>,
    cell: Rc<TaskCell>,
    _t: PhantomData<fn(T)>,
}

type Saved<K, A, G> = (Vec<(K, Vec<Open<A, G>>)>, Vec<(Time, K)>, Vec<(Time, K)>, Time, SavedAround);

impl<T, W, G, V, F, S, R> Transform<T> for TriggeredSpec<T, W, G, V, F, S, R>
where
    T: Clone + 'static,
    W: RecordAssigner<T>,
    G: Trigger<T>,
    V: Evictor<F::Acc>,
    F: Gather<T>,
    S: KeySelect<T>,
    R: WindowFunction<S::Key, F::Acc>,
{
    type Out = R::Out;
    type Op = TriggeredOp<T, W, G, V, F, S, R>;
    fn open(mut self, cx: &OpCx) -> Result<Self::Op, TaskFailure> {
        let mut around = Around::open(cx, &mut self.result, self.assigner.merges(), &self.sides)?;
        let mut rows = Rows::new();
        let (mut event, mut processing, mut watermark) = (Timers::default(), Timers::default(), NO_TIME);
        for (writer, part) in cx.restored() {
            let (part, by_event, by_wall, at, beside): Saved<S::Key, F::Acc, G::State> =
                codec::decode(part).map_err(|e| {
                    cx.failure(
                        FailureKind::Storage,
                        format!("the windows that subtask {writer} wrote cannot be read: {e}"),
                    )
                })?;
            rows.restore(cx, part);
            around.restore(cx, beside)?;
            event.restore(cx, by_event);
            processing.restore(cx, by_wall);
            // All subtasks had heard the same watermarks when the barrier came.
            watermark = watermark.max(at);
        }
        Ok(TriggeredOp {
            spec: self,
            rows,
            event,
            processing,
            watermark,
            results: VecDeque::new(),
            assigned: Vec::new(),
            around,
            uid: cx.uid.clone(),
            cell: cx.cell(),
            _t: PhantomData,
        })
    }
}

/// Asks a trigger, and has its window fire as it says.
struct Turn<'a, K, A, I> {
    around: &'a mut Around<K>,
    key: &'a K,
    hash: u64,
    time: WindowTime,
    watermark: Time,
    /// What the clock shows, where it has been looked at.
    wall: Option<Time>,
    event: &'a mut Timers<K>,
    processing: &'a mut Timers<K>,
    results: &'a mut VecDeque<(Time, I)>,
    _a: PhantomData<A>,
}

impl<K: crate::key::OwnedKey, A: Clone, I> Turn<'_, K, A, I> {
    fn ask<G>(
        &mut self,
        open: &mut Open<A, G>,
        ask: impl FnOnce(&TimeWindow, &mut G, &mut TriggerContext) -> TriggerResult,
    ) -> TriggerResult {
        let (event, processing) = (Wishes::of(&mut open.asked.event), Wishes::of(&mut open.asked.processing));
        let (time, watermark, wall, clock) = (self.time, self.watermark, self.wall, self.around.clock());
        let mut cx = TriggerContext { time, watermark, wall, clock, event, processing };
        let result = ask(&open.window, &mut open.trigger, &mut cx);
        for at in cx.event.new_ones() {
            self.event.add(*at, self.hash, self.key);
        }
        for at in cx.processing.new_ones() {
            self.processing.add(*at, self.hash, self.key);
        }
        result
    }

    fn obey<G, R, V>(&mut self, open: &mut Open<A, G>, wish: TriggerResult, result: &mut R, evictor: &mut V)
    where
        R: WindowFunction<K, A, Results = I>,
        V: Evictor<A>,
    {
        if wish.fires()
            && let Some(contents) = &mut open.contents
        {
            evictor.evict(contents, &open.window);
            let (key, window, watermark) = (self.key.clone(), open.window, self.watermark);
            let ctx = WindowContext { key, window, watermark, around: self.around };
            let results = result.apply(contents.clone(), ctx);
            evictor.evict_after(contents, &open.window);
            self.results.push_back((open.window.max_timestamp(), results));
        }
        if wish.purges() {
            open.contents = None;
        }
    }
}

impl<T, W, G, V, F, S, R> TriggeredOp<T, W, G, V, F, S, R>
where
    T: Clone + 'static,
    W: RecordAssigner<T>,
    G: Trigger<T>,
    V: Evictor<F::Acc>,
    F: Gather<T>,
    S: KeySelect<T>,
    R: WindowFunction<S::Key, F::Acc>,
{
    fn wall(&self) -> Time {
        self.around.wall()
    }

    /// When a window's contents are no longer needed; windows by the machine's clock have no lateness.
    fn cleanup(&self, window: &TimeWindow) -> Time {
        let lateness = if self.spec.assigner.time() == WindowTime::Event { self.spec.lateness } else { 0 };
        window.max_timestamp().saturating_add(lateness)
    }

    fn is_late(&self, window: &TimeWindow) -> bool {
        self.spec.assigner.time() == WindowTime::Event && self.cleanup(window) <= self.watermark
    }

    fn one(&mut self, hash: u64, at: Time, item: T) {
        let time = self.spec.assigner.time();
        if time == WindowTime::Event && at == NO_TIME {
            let message = "a record without a time came to a window: give the stream its event time before, with \
                           assign_timestamps_and_watermarks";
            return self.cell.fail_in(&self.uid, FailureKind::User, message);
        }
        let mut assigned = std::mem::take(&mut self.assigned);
        // Windows of event time do not look at the clock for each record.
        let wall = (time == WindowTime::Processing).then(|| self.wall());
        let of = wall.unwrap_or(at);
        if let Err(e) = self.spec.assigner.assign_record(&item, of, &mut assigned) {
            self.assigned = assigned;
            return self.cell.fail_in(&self.uid, FailureKind::User, e);
        }
        if let Some(wrong) = assigned.iter().find(|window| window.end <= window.start) {
            let message = format!("the windows' assigner gave {wrong}: a window ends after it begins");
            self.assigned = assigned;
            return self.cell.fail_in(&self.uid, FailureKind::User, message);
        }
        let last = assigned.pop();
        let mut all_late = true;
        for window in assigned.drain(..) {
            all_late &= self.add_to(hash, at, wall, window, item.clone()).is_err();
        }
        self.assigned = assigned;
        let Some(last) = last else { return };
        if let Err(item) = self.add_to(hash, at, wall, last, item)
            && all_late
        {
            match &self.spec.late {
                Some(late) => self.around.sides.emit(late, at, item),
                None => self.cell.drops_late(&self.uid, 1),
            }
        }
    }

    /// Adds the record to one of its windows; gives it back if it is too late for that.
    fn add_to(&mut self, hash: u64, at: Time, wall: Option<Time>, mut window: TimeWindow, item: T) -> Result<(), T> {
        let select = &self.spec.key;
        if self.spec.assigner.merges() {
            let open = self.rows.find(hash, |k| select.same(&item, k)).map(Vec::as_slice).unwrap_or_default();
            window = open.iter().filter(|o| o.window.overlaps(&window)).fold(window, |w, o| w.cover(&o.window));
        }
        if self.is_late(&window) {
            return Err(item);
        }
        let cleanup = self.cleanup(&window);
        let spec = &mut self.spec;
        let select = &spec.key;
        let (key, list) = self.rows.row(hash, |k| select.same(&item, k), || (select.own(&item), Vec::new()));
        let mut turn = Turn {
            around: &mut self.around,
            key,
            hash,
            time: spec.assigner.time(),
            watermark: self.watermark,
            wall,
            event: &mut self.event,
            processing: &mut self.processing,
            results: &mut self.results,
            _a: PhantomData,
        };
        let begun = list.len();
        let place = match list.iter().position(|o| o.window == window) {
            Some(place) => place,
            None => {
                list.push(Open { window, contents: None, trigger: G::State::default(), asked: Asked::default() });
                list.len() - 1
            }
        };
        if spec.assigner.merges() {
            // Windows that the new one covers become part of it.
            let mut i = 0;
            let mut place = place;
            while i < list.len() {
                if i == place || !list[i].window.overlaps(&window) {
                    i += 1;
                    continue;
                }
                let other = list.remove(i);
                place -= usize::from(i < place);
                let open = &mut list[place];
                match (&mut open.contents, other.contents) {
                    (Some(contents), Some(more)) => spec.fold.merge(contents, more),
                    (contents, more @ Some(_)) => *contents = more,
                    (_, None) => {}
                }
                // Whoever asked for these times asks on.
                for at in other.asked.event {
                    if !open.asked.event.contains(&at) {
                        open.asked.event.push(at);
                    }
                }
                for at in other.asked.processing {
                    if !open.asked.processing.contains(&at) {
                        open.asked.processing.push(at);
                    }
                }
                let trigger = &mut spec.trigger;
                let _ = turn.ask(open, |window, state, cx| {
                    trigger.on_merge(window, state, other.trigger, cx);
                    TriggerResult::Continue
                });
            }
        }
        let Some(open) = list.iter_mut().find(|o| o.window == window) else { return Ok(()) };
        if list_grew(begun, place) || spec.assigner.merges() {
            match spec.assigner.time() {
                WindowTime::Event => turn.event.add(cleanup, hash, key),
                WindowTime::Processing => turn.processing.add(cleanup, hash, key),
                WindowTime::Never => {}
            }
        }
        // The trigger does not see the contents: it is asked first, so that the record need not be cloned for it.
        let trigger = &mut spec.trigger;
        let wish = turn.ask(open, |window, state, cx| trigger.on_element(&item, at, window, state, cx));
        match &mut open.contents {
            Some(contents) => spec.fold.add(contents, at, item),
            contents @ None => *contents = Some(spec.fold.lift(at, item)),
        }
        turn.obey(open, wish, &mut spec.result, &mut spec.evictor);
        if spec.assigner.time() == WindowTime::Never && keeps_nothing(open, &spec.trigger) {
            list.retain(|open| !keeps_nothing(open, &spec.trigger));
            if list.is_empty() {
                let key = key.clone();
                self.rows.remove(hash, &key);
            }
        }
        Ok(())
    }

    /// A time has come for a key.
    fn timer(&mut self, by_event: bool, watermark: Time, wall: Option<Time>, due: Due<S::Key>) {
        let Due { at, hash, key } = due;
        let cleanup_of = |lateness: Time, window: &TimeWindow| window.max_timestamp().saturating_add(lateness);
        let time = self.spec.assigner.time();
        let lateness = if time == WindowTime::Event { self.spec.lateness } else { 0 };
        let cleans = time == if by_event { WindowTime::Event } else { WindowTime::Processing };
        let spec = &mut self.spec;
        let Some(list) = self.rows.get_mut(hash, &key) else { return };
        let mut turn = Turn {
            around: &mut self.around,
            key: &key,
            hash,
            time,
            watermark,
            wall,
            event: &mut self.event,
            processing: &mut self.processing,
            results: &mut self.results,
            _a: PhantomData,
        };
        for open in list.iter_mut() {
            let asked = if by_event { &mut open.asked.event } else { &mut open.asked.processing };
            let Some(place) = asked.iter().position(|t| *t == at) else { continue };
            asked.swap_remove(place);
            let trigger = &mut spec.trigger;
            let wish = turn.ask(open, |window, state, cx| {
                if by_event {
                    trigger.on_event_time(at, window, state, cx)
                } else {
                    trigger.on_processing_time(at, window, state, cx)
                }
            });
            turn.obey(open, wish, &mut spec.result, &mut spec.evictor);
        }
        if cleans {
            let stays = |open: &Open<F::Acc, G::State>| cleanup_of(lateness, &open.window) > at;
            while let Some(i) = list.iter().position(|open| !stays(open)) {
                let Asked { event, processing } = list.remove(i).asked;
                // What it asked for is no longer waited for, unless another of the key's windows waits for it too.
                for t in event {
                    if !list.iter().any(|o| o.asked.event.contains(&t) || cleanup_of(lateness, &o.window) == t) {
                        turn.event.remove(t, hash, &key);
                    }
                }
                for t in processing {
                    if !list.iter().any(|o| o.asked.processing.contains(&t) || cleanup_of(lateness, &o.window) == t) {
                        turn.processing.remove(t, hash, &key);
                    }
                }
            }
        }
        if time == WindowTime::Never {
            list.retain(|open| !keeps_nothing(open, &spec.trigger));
        }
        if list.is_empty() {
            self.rows.remove(hash, &key);
        }
    }

    fn drain(&mut self, budget: &mut usize, out: &mut impl Push<R::Out>) -> Flow {
        while let Some((at, results)) = self.results.front_mut() {
            while *budget > 0 {
                let Some(result) = results.next() else { break };
                *budget -= 1;
                out.push(*at, result);
            }
            if *budget == 0 {
                return Flow::More;
            }
            self.results.pop_front();
        }
        Flow::Done
    }
}

/// Is a window as if it had never been? No time comes at which one for all time would be dropped.
fn keeps_nothing<T, A, G: Trigger<T>>(open: &Open<A, G::State>, trigger: &G) -> bool {
    let Asked { event, processing } = &open.asked;
    open.contents.is_none() && event.is_empty() && processing.is_empty() && trigger.is_fresh(&open.trigger)
}

/// Was the window put to the end of the list?
fn list_grew(begun: usize, place: usize) -> bool {
    place >= begun
}

impl<T, W, G, V, F, S, R> Operator<T> for TriggeredOp<T, W, G, V, F, S, R>
where
    T: Clone + 'static,
    W: RecordAssigner<T>,
    G: Trigger<T>,
    V: Evictor<F::Acc>,
    F: Gather<T>,
    S: KeySelect<T>,
    R: WindowFunction<S::Key, F::Acc>,
{
    type Out = R::Out;

    fn item(&mut self, at: Time, item: T, _: &mut impl Push<R::Out>) {
        self.one(self.spec.key.hash(&item), at, item);
    }

    fn ready(&mut self, out: &mut impl Push<R::Out>) -> Ready {
        let mut busy = false;
        if let Some(next) = self.processing.next() {
            let now = self.wall();
            // A moment is over when the next one has begun: until then records come that belong to it.
            let over = now.saturating_sub(1);
            if next <= over {
                for _ in 0..STRIDE {
                    let Some(due) = self.processing.pop(over) else { break };
                    self.timer(false, self.watermark, Some(now), due);
                }
                busy = true;
            } else {
                self.cell.wake_at(self.around.clock().now() + Duration::from_millis(next.abs_diff(over)));
            }
            if self.spec.assigner.time() == WindowTime::Processing && self.processing.next().is_none_or(|at| at > over)
            {
                self.around.forget_until(over);
            }
        }
        if !self.results.is_empty() {
            let _ = self.drain(&mut STRIDE.clone(), out);
            busy = true;
        }
        // What was emitted just now may have used the room downstream up.
        if busy { Ready::Busy } else { Ready::Yes }
    }

    fn mark(&mut self, mark: Mark, budget: &mut usize, out: &mut impl Push<R::Out>) -> Flow {
        let Mark::At(at) = mark else { return Flow::Done };
        loop {
            if *budget == 0 || self.drain(budget, out) == Flow::More {
                return Flow::More;
            }
            let Some(due) = self.event.pop(at) else { break };
            *budget -= 1;
            self.timer(true, at, None, due);
        }
        self.watermark = self.watermark.max(at);
        if self.spec.assigner.time() == WindowTime::Event {
            self.around.forget_until(self.watermark.saturating_sub(self.spec.lateness));
        }
        Flow::Done
    }

    fn end(&mut self, budget: &mut usize, out: &mut impl Push<R::Out>) -> Flow {
        // Windows by the machine's clock: nothing comes any more that could belong to them. Each time is asked for
        // once.
        let until = if self.spec.assigner.time() == WindowTime::Processing { Time::MAX } else { NO_TIME };
        loop {
            if *budget == 0 || self.drain(budget, out) == Flow::More {
                return Flow::More;
            }
            let Some(due) = self.processing.pop(until) else { return Flow::Done };
            *budget -= 1;
            self.timer(false, self.watermark, Some(Time::MAX), due);
        }
    }

    fn side(&mut self) -> Option<&mut dyn Control> {
        self.around.sides.control()
    }

    fn snapshot(&mut self) -> Option<Vec<u8>> {
        let (event, processing): (Vec<_>, Vec<_>) = (self.event.iter().collect(), self.processing.iter().collect());
        let rows: Vec<_> = self.rows.iter().collect();
        let all = self.around.snapshot();
        let all = all.and_then(|around| codec::encode(&(rows, event, processing, self.watermark, around)));
        keep(all, &self.cell, &self.uid)
    }
}
