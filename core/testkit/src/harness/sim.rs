//! The engine: one queue of what will happen, and the only source of time and chance.

use super::links::{CallId, Link, LinkId};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use std::{
    cmp::{Ordering, Reverse},
    collections::{BTreeMap, BinaryHeap},
    fmt::Debug,
    time::Duration,
};
use thalweg_model::Moment;

/// What travels in one world.
pub trait Kinds: Debug {
    /// What is told and asked.
    type Message: Debug;
    /// What is answered.
    type Answer: Debug;
    /// What a caller remembers about its call.
    type Ticket: Debug;
    /// What a node tells itself: timers, finished work, posts within its process.
    type Local: Debug;
}

/// One life of one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub(super) u32);

/// How a call ended for its caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome<A> {
    /// Answered.
    Answer(A),
    /// The link closed first.
    Closed,
    /// No answer in time.
    TimedOut,
}

/// What happens to a node.
#[derive(Debug)]
pub enum Happening<K: Kinds> {
    /// What it told itself.
    Local(K::Local),
    /// A message that wants no answer.
    Told {
        /// On which link.
        link: LinkId,
        /// What.
        message: K::Message,
    },
    /// A message that wants an answer.
    Asked {
        /// To answer.
        call: CallId,
        /// What.
        message: K::Message,
    },
    /// The end of a call of its own.
    Answered {
        /// What it remembered.
        ticket: K::Ticket,
        /// How it ended.
        outcome: Outcome<K::Answer>,
    },
    /// It notices that a link is closed.
    Closed {
        /// Which.
        link: LinkId,
    },
}

/// How bad the network is. Chances are in thousandths.
#[derive(Debug, Clone, Copy)]
pub struct Weather {
    /// Shortest and longest ordinary delay of a frame.
    pub delay: (Duration, Duration),
    /// Chance that a frame finds a jam, in which its way carries nothing for up to `jam_for`.
    pub jam: u32,
    /// Longest jam.
    pub jam_for: Duration,
    /// Longest time between an answer's arrival and the moment its caller goes on.
    pub hesitation: Duration,
    /// Chance that an end notices a broken link late.
    pub late_notice: u32,
    /// Longest such lateness.
    pub notice_after: Duration,
    /// How long after it noticed an end may still handle what it had read before.
    pub grace: Duration,
}

impl Weather {
    /// Nothing goes wrong, and everything is fast.
    pub fn calm() -> Self {
        Self {
            delay: (Duration::from_micros(50), Duration::from_micros(500)),
            jam: 0,
            jam_for: Duration::ZERO,
            hesitation: Duration::from_micros(50),
            late_notice: 0,
            notice_after: Duration::ZERO,
            grace: Duration::ZERO,
        }
    }
}

enum Wire<K: Kinds> {
    Tell(K::Message),
    Call { ask: u64, message: K::Message },
    Answer { ask: u64, answer: K::Answer },
}

enum What<K: Kinds> {
    Local(K::Local),
    Frame { link: LinkId, index: u64, wire: Wire<K> },
    Deadline { ask: u64 },
    Resolved { ticket: K::Ticket, outcome: Outcome<K::Answer> },
    Closed { link: LinkId },
    Wake,
}

struct Entry<K: Kinds> {
    at: Moment,
    number: u64,
    node: NodeId,
    what: What<K>,
}

impl<K: Kinds> PartialEq for Entry<K> {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl<K: Kinds> Eq for Entry<K> {}

impl<K: Kinds> PartialOrd for Entry<K> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<K: Kinds> Ord for Entry<K> {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

struct Node<K: Kinds> {
    name: String,
    alive: bool,
    stopped_until: Option<Moment>,
    /// What came while it was stopped.
    waiting: Vec<Entry<K>>,
}

struct Ask<K: Kinds> {
    caller: NodeId,
    link: LinkId,
    ticket: K::Ticket,
}

/// The engine of one schedule.
pub struct Sim<K: Kinds> {
    now: Moment,
    rng: SmallRng,
    queue: BinaryHeap<Reverse<Entry<K>>>,
    numbers: u64,
    nodes: Vec<Node<K>>,
    links: Vec<Link>,
    asks: BTreeMap<u64, Ask<K>>,
    lanes: BTreeMap<(NodeId, u64), Moment>,
    happened: u64,
    trace: Option<String>,
    /// Changed by the world as it likes.
    pub weather: Weather,
}

impl<K: Kinds> Sim<K> {
    /// An empty world at time zero. With `traced`, all that happens is written down.
    pub fn new(seed: u64, traced: bool) -> Self {
        Self {
            now: Moment::default(),
            rng: SmallRng::seed_from_u64(seed),
            queue: BinaryHeap::new(),
            numbers: 0,
            nodes: Vec::new(),
            links: Vec::new(),
            asks: BTreeMap::new(),
            lanes: BTreeMap::new(),
            happened: 0,
            trace: traced.then(String::new),
            weather: Weather::calm(),
        }
    }

    /// The time.
    pub fn now(&self) -> Moment {
        self.now
    }

    /// The only source of chance.
    pub fn rng(&mut self) -> &mut SmallRng {
        &mut self.rng
    }

    /// True with so many thousandths.
    pub fn chance(&mut self, thousandths: u32) -> bool {
        self.rng.random_range(0..1000) < thousandths
    }

    /// A duration between two others.
    pub fn between(&mut self, least: Duration, most: Duration) -> Duration {
        let (least, most) = (least.as_micros() as u64, most.as_micros() as u64);
        Duration::from_micros(self.rng.random_range(least..=most.max(least)))
    }

    /// How many things have happened to nodes.
    pub fn happened(&self) -> u64 {
        self.happened
    }

    /// Writes a line of the trace, when there is one.
    pub fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push_str(&format!("{:>14.6} ", self.now.since_start().as_secs_f64()));
            trace.push_str(&line());
            trace.push('\n');
        }
    }

    /// The trace so far.
    pub fn trace(&self) -> &str {
        self.trace.as_deref().unwrap_or_default()
    }

    fn push(&mut self, at: Moment, node: NodeId, what: What<K>) {
        self.numbers += 1;
        self.queue.push(Reverse(Entry { at, number: self.numbers, node, what }));
    }

    // ---- nodes ----

    /// A process is born.
    pub fn node(&mut self, name: impl Into<String>) -> NodeId {
        self.nodes.push(Node { name: name.into(), alive: true, stopped_until: None, waiting: Vec::new() });
        NodeId(self.nodes.len() as u32 - 1)
    }

    /// Its name, for people.
    pub fn name(&self, node: NodeId) -> &str {
        &self.nodes[node.0 as usize].name
    }

    /// Does it live? A stopped one does.
    pub fn is_alive(&self, node: NodeId) -> bool {
        self.nodes[node.0 as usize].alive
    }

    /// Is it stopped?
    pub fn is_stopped(&self, node: NodeId) -> bool {
        self.nodes[node.0 as usize].stopped_until.is_some()
    }

    /// It dies: it handles nothing any more, and its links break.
    pub fn kill(&mut self, node: NodeId) {
        if !self.is_alive(node) {
            return;
        }
        self.note_node(node, "dies");
        let it = &mut self.nodes[node.0 as usize];
        it.alive = false;
        it.waiting.clear();
        for link in self.links_of(node) {
            self.break_link(link);
        }
    }

    /// It handles nothing for so long.
    pub fn stop(&mut self, node: NodeId, length: Duration) {
        if !self.is_alive(node) || self.is_stopped(node) {
            return;
        }
        self.note_node(node, "is stopped");
        let until = self.now + length;
        self.nodes[node.0 as usize].stopped_until = Some(until);
        self.push(until, node, What::Wake);
    }

    /// It goes on at once.
    pub fn go_on(&mut self, node: NodeId) {
        self.nodes[node.0 as usize].stopped_until = None;
        let (mut first, mut second) = (Vec::new(), Vec::new());
        for entry in std::mem::take(&mut self.nodes[node.0 as usize].waiting) {
            match entry.what {
                What::Frame { .. } | What::Closed { .. } => first.push(entry),
                _ => second.push(entry),
            }
        }
        // Its timers are due and its mail is there: which it looks at first, nobody knows.
        if self.chance(500) {
            std::mem::swap(&mut first, &mut second);
        }
        for entry in first.into_iter().chain(second) {
            self.push(self.now, node, entry.what);
        }
        self.note_node(node, "goes on");
    }

    fn note_node(&mut self, node: NodeId, what: &str) {
        if self.trace.is_some() {
            let line = format!("{} {what}", self.name(node));
            self.note(|| line);
        }
    }

    /// The node tells itself something, after a while.
    pub fn post(&mut self, node: NodeId, after: Duration, local: K::Local) {
        self.push(self.now + after, node, What::Local(local));
    }

    /// As [`Sim::post`], soon, behind all that was posted to this lane before: a channel within the process.
    pub fn post_in_order(&mut self, node: NodeId, lane: u64, local: K::Local) {
        let soon = self.hesitation();
        let last = self.lanes.entry((node, lane)).or_default();
        *last = (*last).max(self.now + soon);
        let at = *last;
        self.push(at, node, What::Local(local));
    }

    /// How long a task of a process waits for its turn: mostly no time.
    pub fn hesitation(&mut self) -> Duration {
        if self.chance(800) {
            return Duration::from_micros(1);
        }
        let most = self.weather.hesitation;
        self.between(Duration::from_micros(1), most)
    }

    // ---- links ----

    /// A new link between two living nodes.
    pub fn link(&mut self, a: NodeId, b: NodeId) -> LinkId {
        self.links.push(Link::new(a, b));
        LinkId(self.links.len() as u32 - 1)
    }

    fn links_of(&self, node: NodeId) -> Vec<LinkId> {
        let mine = |l: &Link| !l.broken && l.ends.iter().any(|e| e.node == node);
        self.links.iter().enumerate().filter(|(_, l)| mine(l)).map(|(i, _)| LinkId(i as u32)).collect()
    }

    /// The links that are whole.
    pub fn open_links(&self) -> Vec<LinkId> {
        let open = self.links.iter().enumerate().filter(|(_, l)| !l.broken);
        open.map(|(i, _)| LinkId(i as u32)).collect()
    }

    /// The node at the other end.
    pub fn peer(&self, link: LinkId, of: NodeId) -> NodeId {
        let link = &self.links[link.0 as usize];
        link.ends[1 - link.end_of(of)].node
    }

    /// The nodes at both ends.
    pub fn ends(&self, link: LinkId) -> (NodeId, NodeId) {
        let [a, b] = &self.links[link.0 as usize].ends;
        (a.node, b.node)
    }

    /// Has this node noticed that the link is closed?
    pub fn is_closed(&self, link: LinkId, at: NodeId) -> bool {
        let link = &self.links[link.0 as usize];
        link.ends[link.end_of(at)].noticed.is_some()
    }

    /// The link breaks: from some frame on, each way by itself, all is lost, and both ends notice by themselves.
    pub fn break_link(&mut self, id: LinkId) {
        if std::mem::replace(&mut self.links[id.0 as usize].broken, true) {
            return;
        }
        for way in 0..2 {
            let (sent, arrived) = {
                let w = &self.links[id.0 as usize].ways[way];
                (w.sent, w.arrived)
            };
            let cut = match self.rng.random_range(0..4) {
                0 => arrived,
                1 => self.rng.random_range(arrived..=sent),
                _ => sent,
            };
            self.links[id.0 as usize].ways[way].cut = Some(cut);
        }
        for end in 0..2 {
            self.will_notice(id, end);
        }
    }

    /// The end will notice that the link is broken.
    fn will_notice(&mut self, id: LinkId, end: usize) {
        let mut after = self.between(self.weather.delay.0, self.weather.delay.1);
        if self.chance(self.weather.late_notice) {
            after += self.between(Duration::ZERO, self.weather.notice_after);
        }
        let link = &self.links[id.0 as usize];
        let (node, last) = (link.ends[end].node, link.ways[1 - end].last);
        let mut at = self.now + after;
        // Mostly the end of a stream is read behind what it carried.
        if self.chance(750) {
            at = at.max(last);
        }
        self.push(at, node, What::Closed { link: id });
    }

    /// A node closes a link. It notices at once; what it sent before may still arrive.
    pub fn close(&mut self, id: LinkId, by: NodeId) {
        let link = &mut self.links[id.0 as usize];
        let end = link.end_of(by);
        if link.ends[end].noticed.is_some() {
            return;
        }
        if !std::mem::replace(&mut link.broken, true) {
            for way in &mut link.ways {
                way.cut = Some(way.sent);
            }
            self.will_notice(id, 1 - end);
        }
        self.push(self.now, by, What::Closed { link: id });
        self.notice(id, end);
    }

    /// The end knows. Its calls end.
    fn notice(&mut self, id: LinkId, end: usize) {
        let now = self.now;
        let node = self.links[id.0 as usize].ends[end].node;
        self.links[id.0 as usize].ends[end].noticed = Some(now);
        let mine: Vec<u64> =
            self.asks.iter().filter(|(_, a)| a.link == id && a.caller == node).map(|(ask, _)| *ask).collect();
        for ask in mine {
            self.resolve(ask, Outcome::Closed);
        }
    }

    fn resolve(&mut self, ask: u64, outcome: Outcome<K::Answer>) {
        // Nobody waits: the caller gave up.
        let Some(Ask { caller, ticket, .. }) = self.asks.remove(&ask) else { return };
        let after = self.hesitation();
        self.push(self.now + after, caller, What::Resolved { ticket, outcome });
    }

    fn transmit(&mut self, id: LinkId, from: NodeId, wire: Wire<K>) {
        let jam = self.chance(self.weather.jam);
        let mut delay = self.between(self.weather.delay.0, self.weather.delay.1);
        let jam_for = if jam { self.between(Duration::ZERO, self.weather.jam_for) } else { Duration::ZERO };
        let now = self.now;
        let link = &mut self.links[id.0 as usize];
        let end = link.end_of(from);
        if link.ends[end].noticed.is_some() {
            return;
        }
        let to = link.ends[1 - end].node;
        let way = &mut link.ways[end];
        if jam {
            way.jam = way.jam.max(now + jam_for);
        }
        delay += way.jam.since(now);
        let at = way.last.max(now + delay);
        way.last = at;
        let index = way.sent;
        way.sent += 1;
        // A broken link takes what is sent and carries it nowhere.
        if way.cut.is_none() {
            self.push(at, to, What::Frame { link: id, index, wire });
        }
    }

    /// Sends a message that wants no answer. What is sent into a broken link is lost.
    pub fn tell(&mut self, link: LinkId, from: NodeId, message: K::Message) {
        self.transmit(link, from, Wire::Tell(message));
    }

    /// Asks. The caller gets its ticket back, once, with how it ended.
    pub fn ask(&mut self, link: LinkId, from: NodeId, limit: Duration, ticket: K::Ticket, message: K::Message) {
        self.numbers += 1;
        let ask = self.numbers;
        self.asks.insert(ask, Ask { caller: from, link, ticket });
        if self.is_closed(link, from) {
            self.resolve(ask, Outcome::Closed);
            return;
        }
        self.push(self.now + limit, from, What::Deadline { ask });
        self.transmit(link, from, Wire::Call { ask, message });
    }

    /// Answers a call.
    pub fn answer(&mut self, call: CallId, from: NodeId, answer: K::Answer) {
        self.transmit(call.link, from, Wire::Answer { ask: call.ask, answer });
    }

    // ---- what happens ----

    /// When the next thing happens.
    pub fn next_at(&self) -> Option<Moment> {
        self.queue.peek().map(|Reverse(entry)| entry.at)
    }

    /// The next thing that happens to a node. `None` when nothing ever will.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Option<(NodeId, Happening<K>)> {
        loop {
            let Reverse(entry) = self.queue.pop()?;
            self.now = entry.at;
            let node = entry.node;
            let it = &mut self.nodes[node.0 as usize];
            if !it.alive {
                continue;
            }
            if let Some(until) = it.stopped_until {
                match entry.what {
                    What::Wake if until <= self.now => self.go_on(node),
                    What::Wake => {}
                    _ => it.waiting.push(entry),
                }
                continue;
            }
            let Some(happening) = self.arrive(node, entry.what) else { continue };
            self.happened += 1;
            if self.trace.is_some() {
                let line = format!("{} ← {happening:?}", self.name(node));
                self.note(|| line);
            }
            return Some((node, happening));
        }
    }

    fn arrive(&mut self, node: NodeId, what: What<K>) -> Option<Happening<K>> {
        match what {
            What::Wake => None,
            What::Local(local) => Some(Happening::Local(local)),
            What::Deadline { ask } => {
                self.resolve(ask, Outcome::TimedOut);
                None
            }
            What::Resolved { ticket, outcome } => Some(Happening::Answered { ticket, outcome }),
            What::Closed { link } => {
                let end = self.links[link.0 as usize].end_of(node);
                if self.links[link.0 as usize].ends[end].noticed.is_none() {
                    self.notice(link, end);
                }
                Some(Happening::Closed { link })
            }
            What::Frame { link: id, index, wire } => {
                let (now, grace) = (self.now, self.weather.grace);
                let link = &mut self.links[id.0 as usize];
                let end = link.end_of(node);
                let too_late = link.ends[end].noticed.is_some_and(|at| now > at + grace);
                let way = &mut link.ways[1 - end];
                if too_late || way.cut.is_some_and(|cut| index >= cut) {
                    return None;
                }
                way.arrived = index + 1;
                match wire {
                    Wire::Tell(message) => Some(Happening::Told { link: id, message }),
                    Wire::Call { ask, message } => Some(Happening::Asked { call: CallId { link: id, ask }, message }),
                    Wire::Answer { ask, answer } => {
                        self.resolve(ask, Outcome::Answer(answer));
                        None
                    }
                }
            }
        }
    }
}
