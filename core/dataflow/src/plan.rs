//! The plan: plain data for the cluster, factories for the task host.
//!
//! A [`PlanBuilder`] is what a program writes into. Frozen it is a [`Plan`], `Send + Sync`; its factories keep the
//! pristine recipes, and each attempt of each subtask is built from clones on its slot's thread.

use crate::{
    build::BuildCx,
    pipe::Make,
    source::{GroupDraft, Link, connect_groups},
    task::Task,
};
use parking_lot::Mutex;
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    panic::Location,
    path::{Path, PathBuf},
    rc::Rc,
    sync::{Arc, OnceLock},
};
use thalweg_model::{
    Edge, JobGraph, OperatorInfo, Partitioner, TaskFailure, Vertex, VertexId, VertexRole,
    graph::{MAX_MAX_PARALLELISM, default_max_parallelism},
};
use thalweg_wire::ExecutionMode;

type Check = Box<dyn Fn(&Path) -> Result<(), String> + Send>;

/// What runs: the graph, and how each vertex is made.
pub struct Plan {
    graph: JobGraph,
    factories: Vec<Mutex<Make<Box<dyn Task>>>>,
    checks: Vec<Mutex<Check>>,
    batch: bool,
    warnings: Vec<String>,
    program: ProgramMark,
}

/// Tells one program from another within this process; of another process nothing is known. What a program hands out for
/// its results has a copy of it.
#[derive(Clone, Debug, Default)]
pub struct ProgramMark(Arc<()>);

impl PartialEq for ProgramMark {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for ProgramMark {}

impl Plan {
    /// What runs, but will be regretted: a line each.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Which program it is of.
    pub fn program(&self) -> &ProgramMark {
        &self.program
    }

    /// The plain data.
    pub fn graph(&self) -> &JobGraph {
        &self.graph
    }

    /// Final results only?
    pub fn is_batch(&self) -> bool {
        self.batch
    }

    /// Looks at what only the client can see before a job is submitted: inputs are there, outputs can be written and
    /// are empty. Answers all that is wrong, a line each, and what to do about it.
    pub fn check_on_client(&self, client_dir: &Path) -> Result<(), String> {
        let wrong: Vec<String> = self.checks.iter().filter_map(|check| (check.lock())(client_dir).err()).collect();
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
    }

    pub(crate) fn build(&self, cx: &BuildCx) -> Result<Box<dyn Task>, TaskFailure> {
        match self.factories.get(cx.subtask.vertex as usize) {
            Some(make) => {
                let recipe = (make.lock())();
                recipe(cx)
            }
            None => Err(TaskFailure::new(
                thalweg_model::FailureKind::Incompatible,
                format!("the graph has no vertex {}", cx.subtask.vertex),
            )),
        }
    }
}

/// An operator of a plan that is being written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpId {
    /// Index of its vertex.
    pub vertex: usize,
    /// Index within the vertex.
    pub op: usize,
}

enum Uid {
    Given(String),
    /// Kind and running number.
    Counted(u32),
    /// Another operator's uid and a suffix.
    Of(OpId, &'static str),
}

struct DraftOperator {
    uid: Uid,
    name: Option<String>,
    kind: &'static str,
    states: Vec<String>,
    at: &'static Location<'static>,
    /// It does nothing but read its edges.
    is_gate: bool,
}

#[derive(Default)]
struct DraftVertex {
    operators: Vec<DraftOperator>,
    parallelism: Option<u32>,
    /// It makes one answer of the whole stream.
    alone: bool,
    max_parallelism: Option<u32>,
    role: VertexRole,
    own_thread: bool,
    slot_sharing_group: Option<String>,
    /// In the slot-sharing group of this vertex.
    beside: Option<usize>,
    /// A source, and whether it ends.
    bounded: Option<bool>,
    make: Option<Make<Box<dyn Task>>>,
}

struct OpenEnd {
    after: OpId,
    is_taken: Box<dyn Fn() -> bool>,
}

#[derive(Default)]
struct Draft {
    vertices: Vec<DraftVertex>,
    edges: Vec<Edge>,
    open: Vec<OpenEnd>,
    checks: Vec<Check>,
    errors: Vec<String>,
    kinds: BTreeMap<&'static str, u32>,
    watched: Vec<(OpId, Arc<OnceLock<String>>)>,
    /// By the vertex of the readers.
    sources: BTreeMap<usize, GroupDraft>,
    /// Groups of watermark alignment, and the vertices of the readers in each.
    aligned: BTreeMap<String, Vec<usize>>,
    /// Output folders that one sink has for itself, and where that is written.
    folders: Vec<(PathBuf, Location<'static>)>,
    program: ProgramMark,
    /// It was frozen: where what is written from now on is told of.
    next: Option<PlanBuilder>,
}

/// What a plan is frozen with.
pub struct Freeze {
    /// Parallelism of what the program left open.
    pub parallelism: u32,
    /// Number of key groups where the program left it open.
    pub max_parallelism: Option<u32>,
    /// Batch or streaming.
    pub mode: ExecutionMode,
}

/// A plan that is being written. Clones write into the same one. Two of them are told apart by where they write.
#[derive(Clone, Default)]
pub struct PlanBuilder(Rc<RefCell<Draft>>);

impl PlanBuilder {
    /// A vertex without operators yet.
    pub fn vertex(&self, role: VertexRole, parallelism: Option<u32>) -> usize {
        let mut d = self.0.borrow_mut();
        d.vertices.push(DraftVertex { role, parallelism, ..DraftVertex::default() });
        d.vertices.len() - 1
    }

    /// One answer of the whole stream is made in this vertex: it has one subtask.
    pub fn vertex_alone(&self) -> usize {
        let vertex = self.vertex(VertexRole::Task, Some(1));
        self.0.borrow_mut().vertices[vertex].alone = true;
        vertex
    }

    /// The vertex is a source.
    pub fn mark_source(&self, vertex: usize, bounded: bool) {
        self.0.borrow_mut().vertices[vertex].bounded = Some(bounded);
    }

    /// How the vertex's tasks are made.
    pub fn install(&self, vertex: usize, make: Make<Box<dyn Task>>) {
        self.0.borrow_mut().vertices[vertex].make = Some(make);
    }

    /// One more operator of a vertex. Without a given uid it is named by its kind and a running number.
    #[track_caller]
    pub fn operator(&self, vertex: usize, kind: &'static str, states: &[&str]) -> OpId {
        let at = Location::caller();
        let mut d = self.0.borrow_mut();
        if let Some(next) = &d.next {
            next.newest().error(format!("{kind} at {}:{}: {OF_BEFORE}", at.file(), at.line()));
        }
        let number = d.kinds.entry(kind).or_default();
        *number += 1;
        let uid = Uid::Counted(*number);
        self.add(&mut d, vertex, uid, kind, states, at)
    }

    /// An operator that belongs to another one, and shares its uid with a suffix and its place in the program.
    pub fn companion(
        &self,
        vertex: usize,
        of: OpId,
        suffix: &'static str,
        kind: &'static str,
        states: &[&str],
    ) -> OpId {
        let mut d = self.0.borrow_mut();
        let at = d.vertices[of.vertex].operators[of.op].at;
        self.add(&mut d, vertex, Uid::Of(of, suffix), kind, states, at)
    }

    fn add(
        &self,
        d: &mut Draft,
        vertex: usize,
        uid: Uid,
        kind: &'static str,
        states: &[&str],
        at: &'static Location<'static>,
    ) -> OpId {
        let operators = &mut d.vertices[vertex].operators;
        let states = states.iter().map(|s| (*s).to_owned()).collect();
        operators.push(DraftOperator { uid, name: None, kind, states, at, is_gate: false });
        OpId { vertex, op: operators.len() - 1 }
    }

    /// Tells the operator's uid when the plan is frozen.
    pub fn watch_uid(&self, operator: OpId) -> Arc<OnceLock<String>> {
        let uid = Arc::new(OnceLock::new());
        self.0.borrow_mut().watched.push((operator, uid.clone()));
        uid
    }

    /// The operator, the first of its vertex, does nothing but read its edges.
    pub fn set_gate(&self, operator: OpId) {
        self.0.borrow_mut().vertices[operator.vertex].operators[operator.op].is_gate = true;
    }

    /// Is there nothing that works on records in front of it in its vertex?
    pub(crate) fn begins_its_chain(&self, operator: OpId) -> bool {
        let d = self.0.borrow();
        d.vertices[operator.vertex].operators[..operator.op].iter().all(|before| before.is_gate)
    }

    /// Makes the operator the only one of a vertex of its own, which is otherwise as its vertex was. `None`, and nothing
    /// is changed, where other operators stand behind it.
    pub(crate) fn move_out(&self, operator: OpId) -> Option<OpId> {
        let mut d = self.0.borrow_mut();
        let to = OpId { vertex: d.vertices.len(), op: 0 };
        let from = &mut d.vertices[operator.vertex];
        if operator.op + 1 != from.operators.len() {
            return None;
        }
        let vertex = DraftVertex {
            operators: from.operators.split_off(operator.op),
            parallelism: from.parallelism,
            max_parallelism: from.max_parallelism,
            own_thread: from.own_thread,
            ..DraftVertex::default()
        };
        d.vertices.push(vertex);
        for other in d.vertices.iter_mut().flat_map(|v| &mut v.operators) {
            if let Uid::Of(of, _) = &mut other.uid
                && *of == operator
            {
                *of = to;
            }
        }
        d.watched.iter_mut().filter(|(of, _)| *of == operator).for_each(|(of, _)| *of = to);
        d.open.iter_mut().filter(|end| end.after == operator).for_each(|end| end.after = to);
        Some(to)
    }

    /// Belongs to this other operator, known only now.
    pub fn set_companion(&self, operator: OpId, of: OpId, suffix: &'static str) {
        self.0.borrow_mut().vertices[operator.vertex].operators[operator.op].uid = Uid::Of(of, suffix);
    }

    /// What is said of an operator when its program has been executed does nothing, and is an error of the next one.
    fn must_be_written(&self, operator: OpId, what: &str, said: &str) {
        let d = self.0.borrow();
        let Some(next) = &d.next else { return };
        let Some(DraftOperator { kind, at, .. }) = d.vertices[operator.vertex].operators.get(operator.op) else {
            return;
        };
        next.newest().error(format!(
            "{what} {said:?} is given to {kind} ({}:{}) when its program was executed already: give it before",
            at.file(),
            at.line()
        ));
    }

    /// Addresses the operator's state.
    pub fn set_uid(&self, operator: OpId, uid: String) {
        self.must_be_written(operator, "uid", &uid);
        let mut d = self.0.borrow_mut();
        // It was moved out, and the stream that is asked is of what stands before it.
        let Some(of) = d.vertices[operator.vertex].operators.get_mut(operator.op) else { return };
        if let Uid::Given(before) = &of.uid
            && *before != uid
        {
            let DraftOperator { kind, at, .. } = of;
            let error = format!(
                "{kind} ({}:{}) is given the uid {uid:?} and has the uid {before:?}: an operator has one, and its side outputs and \
                 the branches of its split() are not operators of their own",
                at.file(),
                at.line()
            );
            d.errors.push(error);
            return;
        }
        of.uid = Uid::Given(uid);
    }

    /// What users see.
    pub fn set_name(&self, operator: OpId, name: String) {
        self.must_be_written(operator, "name", &name);
        if let Some(of) = self.0.borrow_mut().vertices[operator.vertex].operators.get_mut(operator.op) {
            of.name = Some(name);
        }
    }

    /// Subtasks of a vertex.
    pub fn set_parallelism(&self, vertex: usize, parallelism: u32) {
        self.0.borrow_mut().vertices[vertex].parallelism = Some(parallelism);
    }

    /// Key groups of a vertex.
    pub fn set_max_parallelism(&self, vertex: usize, max_parallelism: u32) {
        self.0.borrow_mut().vertices[vertex].max_parallelism = Some(max_parallelism);
    }

    /// The vertex's tasks wait for the outside world.
    pub fn set_own_thread(&self, vertex: usize) {
        self.0.borrow_mut().vertices[vertex].own_thread = true;
    }

    /// The slot-sharing group of a vertex. Where none is set, it is that of all that flows into it, if they agree.
    pub fn set_slot_sharing_group(&self, vertex: usize, group: String) {
        self.0.borrow_mut().vertices[vertex].slot_sharing_group = Some(group);
    }

    /// The vertex is in the slot-sharing group of this other one, whichever that is.
    pub(crate) fn set_beside(&self, vertex: usize, other: usize) {
        self.0.borrow_mut().vertices[vertex].beside = Some(other);
    }

    /// An edge. A forward edge between vertices that turn out to differ in parallelism becomes a rebalancing one.
    pub fn edge<T>(&self, from: usize, to: usize, partitioner: Partitioner, feedback: bool) -> u32 {
        let mut d = self.0.borrow_mut();
        let item = std::any::type_name::<T>().to_owned();
        d.edges.push(Edge { from: from as u32, to: to as u32, partitioner, item, feedback });
        (d.edges.len() - 1) as u32
    }

    /// A stream that begins in an inlet after this operator must be taken by somebody.
    pub fn open_end(&self, after: OpId, is_taken: impl Fn() -> bool + 'static) {
        self.0.borrow_mut().open.push(OpenEnd { after, is_taken: Box::new(is_taken) });
    }

    /// The source has this coordinator. Answers where the edges to its alignment group will be found.
    pub(crate) fn coordinated(&self, source: OpId, coordinator: usize) -> Arc<OnceLock<Link>> {
        let link = Arc::default();
        let draft = GroupDraft { source, coordinator, link: Arc::clone(&link) };
        self.0.borrow_mut().sources.insert(source.vertex, draft);
        link
    }

    /// The readers of this vertex wait for each other, and for those of other vertices under this name.
    pub fn align(&self, vertex: usize, group: &str) -> Result<(), String> {
        let mut d = self.0.borrow_mut();
        if let Some((other, _)) = d.aligned.iter().find(|(name, all)| *name != group && all.contains(&vertex)) {
            return Err(format!(
                "the readers of this source are in watermark alignment group {other:?}, and are to be in {group:?} too: \
                 give all strategies of one source the same group"
            ));
        }
        let members = d.aligned.entry(group.to_owned()).or_default();
        if !members.contains(&vertex) {
            members.push(vertex);
        }
        Ok(())
    }

    /// A stream of this plan and one of another meet. Where they are two, that is an error of both.
    #[track_caller]
    pub fn meets(&self, other: &Self, how: &str) {
        if Rc::ptr_eq(&self.0, &other.0) {
            return;
        }
        let at = Location::caller();
        let is_over = [self, other].iter().any(|plan| plan.0.borrow().next.is_some());
        let why = if is_over { OF_BEFORE } else { OF_TWO };
        let error = format!("{how} at {}:{}: {why}", at.file(), at.line());
        for plan in [self, other] {
            plan.newest().error(error.clone());
        }
    }

    /// The one in which a program can still be executed.
    fn newest(&self) -> Self {
        self.0.borrow().next.as_ref().map_or_else(|| self.clone(), Self::newest)
    }

    /// Ends the writing for all clones; it goes on in the one that is given. Streams that are still held write where nothing
    /// is executed, and `next` tells of it.
    pub fn succeeded_by(&self, next: &Self) {
        self.0.borrow_mut().next = Some(next.clone());
    }

    /// Something that only the client can see.
    pub fn check(&self, check: impl Fn(&Path) -> Result<(), String> + Send + 'static) {
        self.0.borrow_mut().checks.push(Box::new(check));
    }

    /// The sink of the caller's caller has this folder for itself.
    #[track_caller]
    pub fn owns(&self, folder: &Path) {
        // As it is from here: `out` and `./out` are one.
        let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
        self.0.borrow_mut().folders.push((folder, *Location::caller()));
    }

    /// Something is wrong with the program.
    pub fn error(&self, error: String) {
        self.0.borrow_mut().errors.push(error);
    }

    /// What the caller of the caller gave is wrong, if it is: told with that line.
    #[track_caller]
    pub fn checked(&self, right: Result<(), String>) {
        if let Err(e) = right {
            self.error(format!("{}: {e}", Location::caller()));
        }
    }

    /// Was anything written?
    pub fn is_empty(&self) -> bool {
        self.0.borrow().vertices.is_empty()
    }

    /// Which program is being written.
    pub fn program(&self) -> ProgramMark {
        self.0.borrow().program.clone()
    }

    /// Ends the writing: what was written is taken out. Answers all that is wrong with the program at once.
    pub fn freeze(&self, with: &Freeze) -> Result<Plan, Vec<String>> {
        let batch = with.mode != ExecutionMode::Streaming && self.0.borrow().is_bounded();
        if !batch {
            let groups = self.0.borrow().shared_groups();
            connect_groups(self, groups);
        }
        let left = self.0.borrow().shells();
        let mut d = self.0.replace(left);
        let mut errors = std::mem::take(&mut d.errors);
        let name = |o: &DraftOperator| format!("{} ({}:{})", o.kind, o.at.file(), o.at.line());
        if d.vertices.is_empty() {
            errors.push("the program has no stream: begin with a source, end in a sink, then execute".to_owned());
        }
        for end in d.open.iter().filter(|o| !(o.is_taken)()) {
            let operator = &d.vertices[end.after.vertex].operators[end.after.op];
            errors.push(format!("a stream has no sink: what comes out of {} goes nowhere", name(operator)));
        }
        for v in d.vertices.iter().filter(|v| v.make.is_none()) {
            if let Some(last) = v.operators.last() {
                errors.push(format!("a stream has no sink: what comes out of {} goes nowhere", name(last)));
            }
        }
        let bounded = d.is_bounded();
        if with.mode == ExecutionMode::Batch && !bounded {
            let sources = d.vertices.iter().filter(|v| v.bounded == Some(false)).filter_map(|v| v.operators.first());
            let names: Vec<_> = sources.map(name).collect();
            errors
                .push(format!("batch mode needs sources that end; {} does not: use streaming mode", names.join(", ")));
        }
        let uids = d.uids();
        for (operator, watch) in &d.watched {
            let _ = watch.set(d.uid(*operator));
        }
        for vertex in d.vertices.iter().filter(|v| v.alone) {
            if let (Some(n @ 2..), Some(first)) = (vertex.parallelism, vertex.operators.first()) {
                errors.push(format!(
                    "{}: what is one answer of the whole stream is made by one subtask, and so is what follows in its chain: call \
                     start_new_chain() before parallelism({n})",
                    name(first)
                ));
            }
        }
        for (n, (folder, at)) in d.folders.iter().enumerate() {
            if d.folders[..n].iter().any(|(other, _)| other == folder) {
                errors.push(format!(
                    "{at}: {} is the output folder of another sink of this program too: name one for each, or unite the streams \
                     before",
                    folder.display()
                ));
            }
        }
        let mut seen: BTreeMap<&str, &DraftOperator> = BTreeMap::new();
        for operator in d.vertices.iter().flat_map(|v| &v.operators) {
            if operator.name.as_ref().is_some_and(|name| name.trim().is_empty()) {
                errors.push(format!("{}: its name is empty", name(operator)));
            }
            if matches!(&operator.uid, Uid::Given(uid) if uid.trim().is_empty()) {
                errors.push(format!("{}: its uid is empty: its state is addressed by it", name(operator)));
            }
        }
        for (operator, uid) in d.vertices.iter().flat_map(|v| &v.operators).zip(uids.iter().flatten()) {
            if uid.trim().is_empty() {
                continue;
            }
            if let Some(other) = seen.insert(uid, operator) {
                errors.push(format!(
                    "uid {uid:?} is used twice, by {} and {}: give each operator its own .uid()",
                    name(other),
                    name(operator)
                ));
            }
        }
        let of_all = wrong_parallelism(Some(with.parallelism), with.max_parallelism);
        let is_right = of_all.is_none();
        errors.extend(of_all);
        let mut graph = JobGraph { vertices: Vec::new(), edges: d.edges, bounded };
        for (v, uids) in d.vertices.iter().zip(&uids) {
            let parallelism = v.parallelism.unwrap_or(with.parallelism);
            let wanted = v.max_parallelism.or(with.max_parallelism);
            let max_parallelism = wanted.unwrap_or_else(|| default_max_parallelism(parallelism));
            // What holds for the whole program is told once, and what runs once needs no check.
            let (of_vertex, most) = (v.parallelism, v.max_parallelism);
            let wrong = if is_right && v.role == VertexRole::Task {
                wrong_parallelism(Some(parallelism), Some(max_parallelism))
            } else if v.role == VertexRole::Task {
                wrong_parallelism(of_vertex, most)
            } else {
                None
            };
            errors.extend(wrong.map(|wrong| {
                let at = v.operators.first().map_or_else(String::new, name);
                format!("{at}: {wrong}")
            }));
            let operators = v.operators.iter().zip(uids).map(|(o, uid)| OperatorInfo {
                uid: uid.clone(),
                // A coordinator or committer is told from others by whose it is.
                name: o.name.clone().unwrap_or_else(|| match o.uid {
                    Uid::Of(..) if v.role != VertexRole::Task => uid.clone(),
                    _ => o.kind.to_owned(),
                }),
                kind: o.kind.to_owned(),
                states: o.states.clone(),
            });
            graph.vertices.push(Vertex {
                id: VertexId::from_uid(uids.first().map_or("", String::as_str)),
                operators: operators.collect(),
                parallelism,
                max_parallelism,
                role: v.role,
                own_thread: v.own_thread,
                slot_sharing_group: v.slot_sharing_group.clone(),
            });
        }
        if !errors.is_empty() {
            // Edges of streams that must not meet lead nowhere.
            return Err(once(errors));
        }
        share(&mut graph, &d.vertices.iter().map(|v| v.beside).collect::<Vec<_>>());
        settle(&mut graph, &d.vertices.iter().map(|v| v.bounded.is_some()).collect::<Vec<_>>());
        let operators = d.vertices.iter().flat_map(|v| &v.operators).zip(uids.iter().flatten());
        let derived = operators.filter(|(o, _)| !o.states.is_empty() && matches!(o.uid, Uid::Counted(_)));
        let warnings = derived.map(|(o, uid)| {
            format!(
                "{} keeps state under the derived uid {uid:?}, which changes with the program: give it a .uid()",
                name(o)
            )
        });
        let warnings = warnings.collect();
        let factories = d.vertices.into_iter().filter_map(|v| v.make).map(Mutex::new).collect::<Vec<_>>();
        graph.validate().map_err(|e| vec![e])?;
        let (checks, program) = (d.checks.into_iter().map(Mutex::new).collect(), d.program);
        Ok(Plan { graph, factories, checks, batch, warnings, program })
    }
}

/// Each error once.
fn once(mut errors: Vec<String>) -> Vec<String> {
    let mut told = BTreeSet::new();
    errors.retain(|e| told.insert(e.clone()));
    errors
}

/// What is wrong with these two, as far as they are said.
fn wrong_parallelism(parallelism: Option<u32>, max: Option<u32>) -> Option<String> {
    match (parallelism, max) {
        (_, Some(0)) => Some("max_parallelism 0 must be at least 1".to_owned()),
        (_, Some(max)) if max > MAX_MAX_PARALLELISM => {
            Some(format!("max_parallelism {max} is more than {MAX_MAX_PARALLELISM}, the most that there can be"))
        }
        (Some(0), _) => Some("parallelism 0 must be at least 1".to_owned()),
        (Some(parallelism), Some(max)) if parallelism > max => {
            Some(format!("parallelism {parallelism} is more than max_parallelism, which is {max}"))
        }
        (Some(parallelism), None) if parallelism > MAX_MAX_PARALLELISM => {
            Some(format!("parallelism {parallelism} is more than {MAX_MAX_PARALLELISM}, the most that there can be"))
        }
        _ => None,
    }
}

/// Why streams of two environments cannot meet.
const OF_TWO: &str = "both streams must come from one Environment: make it once, in main, and pass `&env` to functions \
                      that make streams";
/// Why a stream of a program that has been executed cannot be used.
const OF_BEFORE: &str = "its stream is of a program that was executed before: each execute() ends the program that was \
                         written so far, so make the source again for the next one";

/// The name of the group that vertices are in when nothing else is said.
const DEFAULT_GROUP: &str = "default";

/// Slot-sharing groups of the vertices that were given none: a coordinator is with its readers, what is beside another
/// vertex with that one, all others with what flows into them, if that agrees.
fn share(graph: &mut JobGraph, beside: &[Option<usize>]) {
    let is_coordinator = |graph: &JobGraph, v: u32| graph.vertices[v as usize].role == VertexRole::Coordinator;
    let of = |graph: &JobGraph, v: u32| {
        graph.vertices[v as usize].slot_sharing_group.clone().unwrap_or_else(|| DEFAULT_GROUP.to_owned())
    };
    // What flows into a vertex was written down before it.
    for v in 0..graph.vertices.len() {
        let inputs = graph.edges.iter().filter(|e| e.to == v as u32 && !e.feedback && !is_coordinator(graph, e.from));
        let groups: BTreeSet<_> = inputs.map(|e| of(graph, e.from)).collect();
        if graph.vertices[v].slot_sharing_group.is_none() && groups.len() == 1 {
            graph.vertices[v].slot_sharing_group = groups.into_iter().next();
        }
    }
    for e in graph.edges.iter().filter(|e| !e.feedback) {
        if graph.vertices[e.from as usize].role == VertexRole::Coordinator {
            graph.vertices[e.from as usize].slot_sharing_group =
                graph.vertices[e.to as usize].slot_sharing_group.clone();
        }
    }
    for (v, other) in beside.iter().enumerate().filter_map(|(v, other)| Some((v, (*other)?))) {
        graph.vertices[v].slot_sharing_group = graph.vertices[other].slot_sharing_group.clone();
    }
    for v in &mut graph.vertices {
        v.slot_sharing_group = v.slot_sharing_group.take().filter(|group| group != DEFAULT_GROUP);
    }
}

/// What is known only when every parallelism is.
fn settle(graph: &mut JobGraph, sources: &[bool]) {
    let parallelism: Vec<u32> = graph.vertices.iter().map(|v| v.parallelism).collect();
    for e in &mut graph.edges {
        let (from, to) = (parallelism[e.from as usize], parallelism[e.to as usize]);
        if e.partitioner == Partitioner::Forward && from != to {
            e.partitioner = Partitioner::Rebalance;
        }
        // A source that is narrower than what it feeds shares no slot with most of it: it would starve those slots
        // while its own slot's other tasks take turns with it.
        if sources[e.from as usize] && !e.feedback && from < to {
            graph.vertices[e.from as usize].own_thread = true;
        }
    }
}

impl Draft {
    /// Vertices and operators without what they do: streams that are still held name them.
    fn shells(&self) -> Self {
        let operator = |o: &DraftOperator| DraftOperator {
            uid: Uid::Given(String::new()),
            name: None,
            kind: o.kind,
            states: Vec::new(),
            at: o.at,
            is_gate: o.is_gate,
        };
        let vertex = |v: &DraftVertex| DraftVertex {
            operators: v.operators.iter().map(operator).collect(),
            ..DraftVertex::default()
        };
        Self { vertices: self.vertices.iter().map(vertex).collect(), ..Self::default() }
    }

    /// Does every source end?
    fn is_bounded(&self) -> bool {
        self.vertices.iter().all(|v| v.bounded != Some(false))
    }

    /// Alignment groups of more than one source.
    fn shared_groups(&self) -> Vec<(String, Vec<GroupDraft>)> {
        let of =
            |vertices: &Vec<usize>| vertices.iter().filter_map(|v| self.sources.get(v).cloned()).collect::<Vec<_>>();
        let all = self.aligned.iter().map(|(name, vertices)| (name.clone(), of(vertices)));
        all.filter(|(_, sources)| sources.len() > 1).collect()
    }

    fn uid(&self, id: OpId) -> String {
        let operator = &self.vertices[id.vertex].operators[id.op];
        match &operator.uid {
            Uid::Given(uid) => uid.clone(),
            Uid::Counted(n) => format!("{}-{n}", operator.kind),
            Uid::Of(of, suffix) => format!("{}{suffix}", self.uid(*of)),
        }
    }

    fn uids(&self) -> Vec<Vec<String>> {
        let of = |vertex: usize| {
            let operators = 0..self.vertices[vertex].operators.len();
            operators.map(|op| self.uid(OpId { vertex, op })).collect()
        };
        (0..self.vertices.len()).map(of).collect()
    }
}
