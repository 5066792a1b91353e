//! Where a program begins and ends.

use crate::{
    DataStream, JobError, JobHandle, JobResult,
    executor::{Executor, Program},
    timed::Timed,
};
use futures::future::BoxFuture;
use std::{
    cell::RefCell,
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use thalweg_dataflow::{
    Freeze, PlanBuilder,
    ops::ClonedToSubtasks,
    source::{Collection, Generator, Sequence, SocketText, Source, SourceHead, TextBlocks, TextLines, add_source},
};
use thalweg_wire::{ExecutionMode, RestartStrategy};

#[derive(Clone, Default)]
struct Settings {
    parallelism: Option<u32>,
    max_parallelism: Option<u32>,
    mode: Option<ExecutionMode>,
    restart: RestartStrategy,
    forward_env: Vec<String>,
    files: BTreeMap<String, PathBuf>,
}

/// A file that travels with the job. Move it into a closure and ask it there where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachedFile {
    name: String,
    path: PathBuf,
}

impl CachedFile {
    /// Its name in the program.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it is in this process: in the client its own path, in a task host the worker's copy, which is for reading
    /// only and goes with the host.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The program that is being written, and who runs it. After an `execute` it is empty again, and the next program of
/// the same `main` begins; settings stay.
pub struct Environment {
    executor: Arc<dyn Executor>,
    plan: RefCell<PlanBuilder>,
    settings: RefCell<Settings>,
}

/// A program that is forgotten is told of: it may be missed for long.
impl Drop for Environment {
    fn drop(&mut self) {
        // A panic in the middle of the program is told already.
        let forgotten = !std::thread::panicking() && !self.plan.get_mut().is_empty();
        if forgotten && self.executor.defaults().is_client {
            tracing::warn!(
                "a program was written and not executed: call execute(), or execute_async(), on its environment"
            );
        }
    }
}

impl Environment {
    /// An environment whose programs this executor runs.
    pub fn with_executor(executor: Arc<dyn Executor>) -> Self {
        Self { executor, plan: RefCell::default(), settings: RefCell::default() }
    }

    /// Number of subtasks of what does not say otherwise.
    pub fn parallelism(&self, parallelism: u32) -> &Self {
        self.settings.borrow_mut().parallelism = Some(parallelism);
        self
    }

    /// Number of key groups of what does not say otherwise: the highest parallelism that state can be rescaled to.
    pub fn max_parallelism(&self, max_parallelism: u32) -> &Self {
        self.settings.borrow_mut().max_parallelism = Some(max_parallelism);
        self
    }

    /// Final results only, or updates as they come. Automatic is batch when every source ends.
    pub fn mode(&self, mode: ExecutionMode) -> &Self {
        self.settings.borrow_mut().mode = Some(mode);
        self
    }

    /// When a failed job starts again.
    pub fn restart_strategy(&self, restart: RestartStrategy) -> &Self {
        self.settings.borrow_mut().restart = restart;
        self
    }

    /// The job sees this environment variable of the client, wherever it runs.
    pub fn forward_env(&self, name: impl Into<String>) -> &Self {
        self.settings.borrow_mut().forward_env.push(name.into());
        self
    }

    /// Sends a file of the client along with the job: each worker fetches it once, before the job's tasks start there. The
    /// name is a plain file name. A file that is not there, or a folder, is an error of `execute`.
    ///
    /// ```no_run
    /// # fn program(env: &thalweg_api::Environment) -> Result<(), thalweg_api::JobError> {
    /// let stop_words = env.cached_file("stop-words", "conf/stop.txt");
    /// env.read_text("input").filter(move |line| !std::fs::read_to_string(stop_words.path()).is_ok_and(|s| s.contains(line))).print();
    /// # env.execute("filtered")?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn cached_file(&self, name: impl Into<String>, path: impl Into<PathBuf>) -> CachedFile {
        let (name, path) = (name.into(), path.into());
        let defaults = self.executor.defaults();
        let here = match &defaults.files {
            // The worker's copy. What a `main` asks for here and not in the client fails when it is opened.
            Some(folder) => folder.join(&name),
            None => defaults.client_dir.join(path),
        };
        self.settings.borrow_mut().files.insert(name.clone(), here.clone());
        CachedFile { name, path: here }
    }

    /// Runs the function in the client alone: neither where the job's `main` runs again in its hosts, nor where that of a
    /// per-job cluster does since its JobManager was replaced, in front of a job that was submitted before.
    pub fn on_client<R>(&self, run: impl FnOnce() -> R) -> Option<R> {
        let executor = &self.executor;
        let here = executor.defaults().is_client && !executor.has_taken(executor.ordinals().coming());
        here.then(run)
    }

    /// The items of a collection.
    #[track_caller]
    pub fn from_collection<T: Clone + Send + Sync + 'static>(
        &self,
        items: impl IntoIterator<Item = T>,
    ) -> DataStream<T, SourceHead<Collection<T>>> {
        self.source(Collection::new(items.into_iter().collect()))
    }

    /// The numbers of a range. For a rate use `env.source(Sequence::new(range).rate(n))`.
    #[track_caller]
    pub fn sequence(&self, range: std::ops::Range<u64>) -> DataStream<u64, SourceHead<Sequence>> {
        self.source(Sequence::new(range))
    }

    /// What a function makes of each number of a sequence, at the sequence's rate if it has one.
    ///
    /// ```
    /// # let env = thalweg_api::testing::environment(1, std::env::temp_dir())?;
    /// # use thalweg_api::Sequence;
    /// // Without an end: Sequence::endless().
    /// let names = env.generate(Sequence::new(0..3).rate(100.0), |i| format!("user {i}")).uid("users").collect();
    /// # let result = env.execute("generated")?;
    /// # assert_eq!(result.collected(&names)?, ["user 0", "user 1", "user 2"]);
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn generate<T: 'static, F: FnMut(u64) -> T + ClonedToSubtasks>(
        &self,
        numbers: Sequence,
        make: F,
    ) -> DataStream<T, SourceHead<Generator<F>>> {
        self.source(Generator::new(numbers, make))
    }

    /// The lines of a file, of all files in a folder, or of what a pattern such as `logs/*.log.gz` matches. Names that end in
    /// `.gz` or `.zst` are decompressed.
    #[track_caller]
    pub fn read_text(&self, path: impl Into<PathBuf>) -> DataStream<String, SourceHead<TextLines>> {
        self.read_texts([path])
    }

    /// The lines of several files, folders and patterns. A file that several of them find is read once.
    #[track_caller]
    pub fn read_texts<P: Into<PathBuf>>(
        &self,
        paths: impl IntoIterator<Item = P>,
    ) -> DataStream<String, SourceHead<TextLines>> {
        self.source(TextLines::new(paths))
    }

    /// The lines of files that are there or will come: `path`, as in [`Environment::read_text`], is looked at so
    /// often, for ever. Each file is read once, when it rests.
    ///
    /// ```no_run
    /// # fn program(env: &thalweg_api::Environment) -> Result<(), thalweg_api::JobError> {
    /// # use std::time::Duration;
    /// env.monitor_text("inbox/*.csv.gz", Duration::from_secs(10)).uid("inbox").print();
    /// # env.execute("inbox")?;
    /// # Ok(())
    /// # }
    /// ```
    #[track_caller]
    pub fn monitor_text(&self, path: impl Into<PathBuf>, every: Duration) -> DataStream<String, SourceHead<TextLines>> {
        self.source(TextLines::new([path]).monitor(every))
    }

    /// Files and folders in blocks of whole lines, any bytes: nothing is allocated for each line. Lines of more than
    /// 1 MiB are cut at white space. See [`DataStream::key_each`].
    #[track_caller]
    pub fn read_blocks<P: Into<PathBuf>>(
        &self,
        paths: impl IntoIterator<Item = P>,
    ) -> DataStream<thalweg_dataflow::source::TextBlock, SourceHead<TextBlocks>> {
        self.source(TextBlocks::new(paths))
    }

    /// The lines that a server at `host:port` sends, until it closes.
    #[track_caller]
    pub fn socket_text(&self, address: impl Into<String>) -> DataStream<String, SourceHead<SocketText>> {
        self.source(SocketText::new(address))
    }

    /// Any source.
    #[track_caller]
    pub fn source<S: Source>(&self, source: S) -> DataStream<S::Item, SourceHead<S>> {
        let plan = self.plan();
        let (op, head) = add_source(&plan, source);
        DataStream::new(plan, op, head, Timed::Not)
    }

    /// Where the program that comes next is written.
    pub(crate) fn plan(&self) -> PlanBuilder {
        self.plan.borrow().clone()
    }

    /// Ends the program that was written so far and numbers it.
    fn program(&self, name: &str) -> Result<Program, JobError> {
        let defaults = self.executor.defaults();
        let settings = self.settings.borrow().clone();
        let freeze = Freeze {
            parallelism: settings.parallelism.unwrap_or(defaults.parallelism),
            max_parallelism: settings.max_parallelism,
            mode: settings.mode.unwrap_or(defaults.mode),
        };
        let ordinal = self.executor.ordinals().next();
        let next = PlanBuilder::default();
        let written = self.plan.replace(next.clone());
        let plan = written.freeze(&freeze);
        written.succeeded_by(&next);
        let plan = plan.map_err(JobError::Program)?;
        let ordinal = ordinal?;
        if defaults.is_client {
            plan.warnings().iter().for_each(|warning| tracing::warn!("{warning}"));
        }
        // What a job that runs or has ended has written is no reason to refuse it.
        if defaults.is_client && !self.executor.has_taken(ordinal) {
            let checked = plan.check_on_client(&defaults.client_dir);
            checked.map_err(|wrong| JobError::Program(wrong.lines().map(str::to_owned).collect()))?;
            let wrong: Vec<_> = settings.files.iter().filter_map(|(name, path)| wrong_file(name, path)).collect();
            if !wrong.is_empty() {
                return Err(JobError::Program(wrong));
            }
        }
        Ok(Program {
            name: name.to_owned(),
            ordinal,
            mode: if plan.is_batch() { ExecutionMode::Batch } else { ExecutionMode::Streaming },
            plan: Arc::new(plan),
            default_parallelism: freeze.parallelism,
            restart: settings.restart,
            forward_env: settings.forward_env,
            files: settings.files,
        })
    }

    /// Runs the program and waits for its end. A job that failed or was cancelled is an error.
    ///
    /// It blocks the calling thread, inside or outside of a tokio runtime.
    pub fn execute(&self, name: &str) -> Result<JobResult, JobError> {
        let started = self.execute_async(name);
        let answer = Arc::new(Mutex::new(None));
        let slot = answer.clone();
        self.executor.block_on(Box::pin(async move {
            let result = async { started.await?.wait().await }.await;
            *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
        }));
        let result = answer.lock().unwrap_or_else(PoisonError::into_inner).take();
        result.unwrap_or_else(|| Err(JobError::Unknown("the runtime ended before the job".to_owned())))
    }

    /// Submits the program. Resolves when the job was accepted.
    pub fn execute_async(&self, name: &str) -> BoxFuture<'static, Result<JobHandle, JobError>> {
        match self.program(name) {
            Ok(program) => {
                let of = program.plan.program().clone();
                let submitted = self.executor.submit(program);
                Box::pin(async move { submitted.await.map(|job| JobHandle::new(job, of)) })
            }
            Err(e) => Box::pin(async move { Err(e) }),
        }
    }
}

/// What is wrong with a cached file.
fn wrong_file(name: &str, path: &Path) -> Option<String> {
    let plain = Path::new(name).file_name().is_some_and(|n| n == name);
    if !plain || name.contains('\0') || name.len() > 255 {
        return Some(format!("cached file {name:?}: the name must be a plain file name, without folders"));
    }
    match std::fs::metadata(path) {
        Err(e) => Some(format!("cached file {name:?}: {}: {e}", path.display())),
        Ok(found) if found.is_dir() => {
            Some(format!("cached file {name:?}: {} is a folder: pack it into one file", path.display()))
        }
        Ok(_) => None,
    }
}
