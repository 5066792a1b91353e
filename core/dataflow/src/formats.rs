//! Lines that become records: JSON, CSV, and functions of your own, with a choice of what a bad line does. One line is one
//! record; who cuts bytes into lines is the source.

mod csv_lines;

pub use csv_lines::{Csv, CsvOptions};

use crate::{
    batch::Time,
    build::OpCx,
    ops::ClonedToSubtasks,
    pipe::Transform,
    push::{Control, Operator, Push},
    side::{LiveSides, OutputTag, Sides},
    task::{TaskCell, add},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{borrow::Cow, fmt::Display, marker::PhantomData, rc::Rc, sync::Arc, sync::atomic::Ordering::Relaxed};
use thalweg_model::{FailureKind, TaskFailure};

/// How a line becomes a record.
pub trait Format: Clone + Send + 'static {
    /// The record.
    type Out: 'static;
    /// A subtask begins. The error says what is wrong with the options.
    fn open(&mut self) -> Result<(), String> {
        Ok(())
    }
    /// One line; `None` where it is no record, such as an empty one. The error says what is wrong with the line.
    fn parse(&mut self, line: &str) -> Result<Option<Self::Out>, String>;
}

/// A line that could not be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BadRecord {
    /// The line.
    pub line: String,
    /// What is wrong with it.
    pub error: String,
    /// Where it was read, as `orders.csv at byte 1200`: what the source tells. `None` for sources that tell nothing, and
    /// behind an exchange or an operator that keeps records, such as `map_async`.
    pub place: Option<String>,
}

/// What a line does that cannot be read.
#[derive(Clone, Default)]
pub enum ErrorPolicy {
    /// It fails the job.
    #[default]
    Fail,
    /// It is left out, counted, and a warning now and then.
    Skip,
    /// It goes out by the side.
    Side(OutputTag<BadRecord>),
}

impl From<&OutputTag<BadRecord>> for ErrorPolicy {
    fn from(tag: &OutputTag<BadRecord>) -> Self {
        Self::Side(tag.clone())
    }
}

/// Each line is a JSON value.
pub struct Json<T>(PhantomData<fn() -> T>);

impl<T> Default for Json<T> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T> Clone for Json<T> {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl<T: DeserializeOwned + 'static> Format for Json<T> {
    type Out = T;
    fn parse(&mut self, line: &str) -> Result<Option<T>, String> {
        if line.trim_ascii().is_empty() {
            return Ok(None);
        }
        serde_json::from_str(line).map(Some).map_err(|e| e.to_string())
    }
}

/// A function reads each line.
#[derive(Clone)]
pub struct LineFn<F>(pub F);

impl<U: 'static, E: Display, F: FnMut(&str) -> Result<U, E> + ClonedToSubtasks> Format for LineFn<F> {
    type Out = U;
    fn parse(&mut self, line: &str) -> Result<Option<U>, String> {
        (self.0)(line).map(Some).map_err(|e| e.to_string())
    }
}

/// A [`Format`] in a plan.
#[derive(Clone)]
pub struct Parse<X> {
    format: X,
    policy: ErrorPolicy,
    sides: Sides,
}

impl<X> Parse<X> {
    /// A bad line fails the job.
    pub fn new(format: X, sides: Sides) -> Self {
        Self { format, policy: ErrorPolicy::Fail, sides }
    }

    /// A bad line does this.
    pub fn on_error(&mut self, policy: ErrorPolicy) {
        if let ErrorPolicy::Side(tag) = &policy {
            self.sides.writes(tag);
        }
        self.policy = policy;
    }
}

/// A live one.
pub struct ParseOp<X> {
    format: X,
    policy: ErrorPolicy,
    sides: LiveSides,
    uid: Arc<str>,
    cell: Rc<TaskCell>,
}

impl<X: Format> Transform<String> for Parse<X> {
    type Out = X::Out;
    type Op = ParseOp<X>;
    const IN_STEP: bool = true;
    fn open(mut self, cx: &OpCx) -> Result<ParseOp<X>, TaskFailure> {
        self.format.open().map_err(|e| cx.failure(FailureKind::User, e))?;
        let (sides, uid, cell) = (self.sides.open(cx)?, cx.uid.clone(), cx.cell());
        Ok(ParseOp { format: self.format, policy: self.policy, sides, uid, cell })
    }
}

impl<X: Format> ParseOp<X> {
    #[cold]
    fn bad(&mut self, at: Time, line: String, error: String) {
        let place = self.cell.place.told();
        // As an end of what is said of it.
        let of = || place.as_ref().map_or_else(String::new, |place| format!(" ({place})"));
        match &self.policy {
            ErrorPolicy::Fail => {
                let message = format!("a line cannot be read: {error}: {}{}", beginning(&line), of());
                self.cell.fail_in(&self.uid, FailureKind::User, message);
            }
            ErrorPolicy::Skip => {
                let skipped = &self.cell.metrics().skipped;
                add(skipped, 1);
                let n = skipped.load(Relaxed);
                // Often enough to be seen, and not a line of the log for each of a million.
                if n.is_power_of_two() {
                    let (line, of) = (beginning(&line), of());
                    tracing::warn!(uid = %self.uid, skipped = n, "a line is skipped: {error}: {line}{of}");
                }
            }
            ErrorPolicy::Side(tag) => self.sides.emit(tag, at, BadRecord { line, error, place }),
        }
    }
}

/// Enough of a line to find it again.
fn beginning(line: &str) -> Cow<'_, str> {
    match line.char_indices().nth(100) {
        Some((end, _)) => format!("{:?}… ({} bytes)", &line[..end], line.len()).into(),
        None => format!("{line:?}").into(),
    }
}

impl<X: Format> Operator<String> for ParseOp<X> {
    type Out = X::Out;
    #[inline(always)]
    fn item(&mut self, at: Time, line: String, out: &mut impl Push<X::Out>) {
        // After a failure the head stops within a stride; what it still pushes must have no effect.
        if self.cell.has_failed() {
            return;
        }
        // Some editors begin a file with this mark.
        match self.format.parse(line.strip_prefix('\u{feff}').unwrap_or(&line)) {
            Ok(Some(record)) => out.push(at, record),
            Ok(None) => {}
            Err(error) => self.bad(at, line, error),
        }
    }
    fn side(&mut self) -> Option<&mut dyn Control> {
        self.sides.control()
    }
}
