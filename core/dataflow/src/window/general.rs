//! Windows of any kind: assigned by a function of the time, merged where they overlap, fired by a trigger, thinned by
//! an evictor. Each key keeps its open windows in order, and each timer says whose it is: a key may have thousands, as in
//! batch mode, where all stay open until the end.

use super::{
    TimeWindow, UNTIMED, WindowFunction,
    assigner::WindowTime,
    context::{Around, SavedAround, restored_watermark},
    evictor::Evictor,
    gaps::RecordAssigner,
    gather::Gather,
    trigger::{Asked, Trigger, TriggerResult},
    turn::{Open, Turn, Windows, are_sound, keeps_nothing, overlapping, place, timer_hash},
};
use crate::{
    batch::{NO_TIME, Time},
    build::OpCx,
    codec,
    event_time::{Due, Timers},
    key::{Key, KeySelect, OwnedKey},
    keyed::keep,
    pipe::Transform,
    push::{Control, Flow, Mark, Operator, Push, Ready, STRIDE},
    side::{OutputTag, Sides},
    state::{RowTable, Rows},
    task::TaskCell,
};
use std::{collections::VecDeque, marker::PhantomData, rc::Rc, sync::Arc, time::Duration};
use thalweg_model::{FailureKind, TaskFailure};

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

impl<T, W, G, V, F, S, R> TriggeredSpec<T, W, G, V, F, S, R>
where
    W: RecordAssigner<T>,
    G: Trigger<T>,
    F: Gather<T>,
{
    /// Windows by the machine's clock have none.
    fn lateness(&self) -> Time {
        if self.assigner.time() == WindowTime::Event { self.lateness } else { 0 }
    }

    /// A window becomes part of one that covers it. Whatever it has asked for it asks on, but for its end, which is none any
    /// more: a session that grows with each record would else wait for each of these.
    fn merge<K: OwnedKey, I>(
        &mut self,
        open: &mut Open<F::Acc, G::State>,
        other: Open<F::Acc, G::State>,
        turn: &mut Turn<'_, K, F::Acc, I>,
    ) {
        match (&mut open.contents, other.contents) {
            (Some(contents), Some(more)) => self.fold.merge(contents, more),
            (contents, more @ Some(_)) => *contents = more,
            (_, None) => {}
        }
        let end = other.window.max_timestamp();
        let still_ends = end == open.window.max_timestamp();
        let time = self.assigner.time();
        let asks_on = |by: WindowTime| move |at: &Time| *at != end || still_ends || by != time;
        let trigger = &mut self.trigger;
        let _ = turn.ask(open, |window, state, cx| {
            let Asked { event, processing } = other.asked;
            event.into_iter().filter(asks_on(WindowTime::Event)).for_each(|at| cx.register_event_time_timer(at));
            processing
                .into_iter()
                .filter(asks_on(WindowTime::Processing))
                .for_each(|at| cx.register_processing_time_timer(at));
            trigger.on_merge(window, state, other.trigger, cx);
            TriggerResult::Continue
        });
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
    rows: Rows<S::Key, Windows<F::Acc, G::State>>,
    event: Timers<(S::Key, TimeWindow)>,
    processing: Timers<(S::Key, TimeWindow)>,
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

/// Timers are those that the windows have asked for.
type Saved<K, A, G> = (Vec<(K, Windows<A, G>)>, Time, SavedAround);

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
        let (mut rows, mut watermarks) = (Rows::new(), Vec::new());
        for (writer, part) in cx.restored() {
            let (part, at, beside): Saved<S::Key, F::Acc, G::State> = codec::decode(part).map_err(|e| {
                cx.failure(FailureKind::Storage, format!("the windows that subtask {writer} wrote cannot be read: {e}"))
            })?;
            if !part.iter().all(|(_, list)| are_sound(list, self.assigner.merges())) {
                let message = format!("the windows that subtask {writer} wrote are damaged: a key's are not in order");
                return Err(cx.failure(FailureKind::Storage, message));
            }
            rows.restore(cx, part);
            around.restore(cx, beside)?;
            watermarks.push((writer, at));
        }
        let time = self.assigner.time();
        let (mut event, mut processing) = (Timers::default(), Timers::default());
        for (key, open) in rows.iter().flat_map(|(key, list)| list.iter().map(move |open| (key, open))) {
            let (hash, whose) = (timer_hash(key.stable_hash(), &open.window), (key.clone(), open.window));
            open.asked.event.iter().for_each(|at| event.add(*at, hash, &whose));
            open.asked.processing.iter().for_each(|at| processing.add(*at, hash, &whose));
            let over = open.window.over_at(self.lateness());
            match time {
                WindowTime::Event => event.add(over, hash, &whose),
                WindowTime::Processing => processing.add(over, hash, &whose),
                WindowTime::Never => {}
            }
        }
        Ok(TriggeredOp {
            spec: self,
            rows,
            event,
            processing,
            watermark: restored_watermark(cx, &watermarks),
            results: VecDeque::new(),
            assigned: Vec::new(),
            around,
            uid: cx.uid.clone(),
            cell: cx.cell(),
            _t: PhantomData,
        })
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

    fn is_late(&self, window: &TimeWindow) -> bool {
        self.spec.assigner.time() == WindowTime::Event && window.over_at(self.spec.lateness) <= self.watermark
    }

    fn one(&mut self, hash: u64, at: Time, item: T) {
        let time = self.spec.assigner.time();
        if time == WindowTime::Event && at == NO_TIME {
            return self.cell.fail_in(&self.uid, FailureKind::User, UNTIMED);
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
        let merges = self.spec.assigner.merges();
        if merges && let Some(list) = self.rows.find(hash, |k| select.same(&item, k)) {
            window = list.range(overlapping(list, &window)).fold(window, |w, o| w.cover(&o.window));
        }
        if self.is_late(&window) {
            return Err(item);
        }
        let lateness = self.spec.lateness();
        let spec = &mut self.spec;
        let select = &spec.key;
        let (key, list) = self.rows.row(hash, |k| select.same(&item, k), || (select.own(&item), Windows::new()));
        let mut turn = Turn {
            around: &mut self.around,
            key,
            hash,
            time: spec.assigner.time(),
            lateness,
            watermark: self.watermark,
            wall,
            comes: None,
            event: &mut self.event,
            processing: &mut self.processing,
            results: &mut self.results,
            _a: PhantomData,
        };
        let place = match place(list, &window) {
            Ok(place) => place,
            Err(place) => {
                turn.begin(window);
                let (trigger, asked) = (G::State::default(), Asked::default());
                let mut open = Open { window, contents: None, trigger, asked };
                // What it covers becomes part of it.
                let covered = if merges { overlapping(list, &window) } else { place..place };
                let place = covered.start;
                for other in list.drain(covered) {
                    turn.forget(&other);
                    spec.merge(&mut open, other, &mut turn);
                }
                list.insert(place, open);
                place
            }
        };
        let Some(open) = list.get_mut(place) else { return Ok(()) };
        // The trigger does not see the contents: it is asked first, so that the record need not be cloned for it.
        let trigger = &mut spec.trigger;
        let wish = turn.ask(open, |window, state, cx| trigger.on_element(&item, at, window, state, cx));
        match &mut open.contents {
            Some(contents) => spec.fold.add(contents, at, item),
            contents @ None => *contents = Some(spec.fold.lift(at, item)),
        }
        turn.obey(open, wish, &mut spec.result, &mut spec.evictor);
        if spec.assigner.time() == WindowTime::Never && keeps_nothing(open, &spec.trigger) {
            list.remove(place);
            if list.is_empty() {
                let key = key.clone();
                self.rows.remove(hash, &key);
            }
        }
        Ok(())
    }

    /// A time has come for a window of a key.
    fn timer(&mut self, by_event: bool, watermark: Time, wall: Option<Time>, due: Due<(S::Key, TimeWindow)>) {
        let Due { at, hash, key: (key, window) } = due;
        let hash = timer_hash(hash, &window);
        let time = self.spec.assigner.time();
        let lateness = self.spec.lateness();
        let spec = &mut self.spec;
        let Some(list) = self.rows.get_mut(hash, &key) else { return };
        let Ok(place) = place(list, &window) else { return };
        let Some(open) = list.get_mut(place) else { return };
        let mut turn = Turn {
            around: &mut self.around,
            key: &key,
            hash,
            time,
            lateness,
            watermark,
            wall,
            comes: Some((by_event, at)),
            event: &mut self.event,
            processing: &mut self.processing,
            results: &mut self.results,
            _a: PhantomData,
        };
        let asked = if by_event { &mut open.asked.event } else { &mut open.asked.processing };
        if let Some(wish) = asked.iter().position(|t| *t == at) {
            asked.swap_remove(wish);
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
        let is_over = match time {
            WindowTime::Event => by_event && window.over_at(lateness) <= at,
            WindowTime::Processing => !by_event && window.over_at(lateness) <= at,
            WindowTime::Never => keeps_nothing(open, &spec.trigger),
        };
        if is_over {
            turn.forget(open);
            list.remove(place);
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
        let rows: Vec<_> = self.rows.iter().collect();
        let all = self.around.snapshot();
        let all = all.and_then(|around| codec::encode(&(rows, self.watermark, around)));
        keep(all, &self.cell, &self.uid)
    }
}
