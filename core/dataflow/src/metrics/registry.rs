//! Which metrics the functions of a task have added, and how all of them are read.

use super::{
    Metric,
    handles::{Number, Read},
};
use crate::build::OpCx;
use parking_lot::Mutex;
use thalweg_model::{FailureKind, Moment, TaskFailure, UserMetric};

/// Metrics of one task, of all its operators together.
pub const MAX_METRICS: usize = 100;
/// Bytes of a metric's name.
pub const MAX_NAME: usize = 80;

struct Added {
    operator: u32,
    name: String,
    read: Box<dyn Read>,
}

/// All of one task.
#[derive(Default)]
pub(crate) struct Registry(Mutex<Vec<Added>>);

impl Registry {
    pub(crate) fn read(&self, now: Moment) -> Vec<UserMetric> {
        let mut all = Vec::new();
        for Added { operator, name, read } in self.0.lock().iter() {
            read.read(now, &mut |suffix, number| {
                let (value, is_rate) = match number {
                    Number::Whole(n) => (n, false),
                    Number::Rate(n) => (i64::try_from(n).unwrap_or(i64::MAX), true),
                };
                all.push(UserMetric { operator: *operator, name: format!("{name}{suffix}"), value, is_rate });
            });
        }
        all
    }
}

/// Where a function adds its metrics when a subtask begins.
pub struct Metrics<'a> {
    of: &'a Registry,
    operator: u32,
    error: Option<String>,
}

impl Metrics<'_> {
    /// The function has this metric. What is wrong with it fails the task, with what to do about it.
    pub fn add(&mut self, metric: &mut impl Metric) {
        let mut all = self.of.0.lock();
        let wrong = self.wrong(&all, metric.name());
        if let Some(wrong) = wrong {
            self.error.get_or_insert(wrong);
            return;
        }
        let (operator, name) = (self.operator, metric.name().to_owned());
        all.push(Added { operator, name, read: metric.begin() });
    }

    fn wrong(&self, all: &[Added], name: &str) -> Option<String> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        if all.len() >= MAX_METRICS {
            return Some(format!(
                "the metric {name:?} is one more than the {MAX_METRICS} that a task may have: add fewer, or \
                 start_new_chain() before one of its operators"
            ));
        }
        if name.len() > MAX_NAME {
            let len = name.len();
            return Some(format!(
                "the name of the metric {name:?} has {len} bytes, at most {MAX_NAME} are allowed: shorten it"
            ));
        }
        if name.is_empty() || !name.chars().all(plain) {
            return Some(format!(
                "{name:?} cannot name a metric: take ASCII letters, digits, '_', '-' and '.', and at least one"
            ));
        }
        let twice = all.iter().any(|m| m.operator == self.operator && m.name == name);
        twice.then(|| format!("two metrics are named {name:?}: give each a name of its own"))
    }
}

impl OpCx<'_> {
    /// Adds metrics of this operator: `cx.metrics(|metrics| metrics.add(&mut self.seen))?`.
    pub fn metrics(&self, add: impl FnOnce(&mut Metrics<'_>)) -> Result<(), TaskFailure> {
        let mut metrics = Metrics { of: &self.build.cell.metrics().user, operator: self.index, error: None };
        add(&mut metrics);
        metrics.error.map_or(Ok(()), |e| Err(self.failure(FailureKind::User, e)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Counter, Meter};

    fn add(of: &Registry, operator: u32, names: &[&str]) -> Option<String> {
        let mut metrics = Metrics { of, operator, error: None };
        names.iter().for_each(|name| metrics.add(&mut Counter::new(name.to_string())));
        metrics.error
    }

    #[test]
    fn names_are_an_operators_own_and_mistakes_say_what_to_do() {
        let all = Registry::default();
        assert_eq!(add(&all, 0, &["seen", "bad.lines"]), None);
        assert_eq!(add(&all, 1, &["seen"]), None);
        assert!(add(&all, 1, &["seen"]).unwrap().contains("two metrics are named \"seen\""));
        assert!(add(&all, 2, &["a,b"]).unwrap().contains("ASCII"), "a comma parts names in a request");
        assert!(add(&all, 2, &[""]).unwrap().contains("ASCII"));
        assert!(add(&all, 2, &[&"x".repeat(MAX_NAME + 1)]).unwrap().contains("shorten it"));
        assert_eq!(add(&all, 2, &[&"x".repeat(MAX_NAME)]), None);
        let seen: Vec<_> = all.read(Moment::default()).into_iter().map(|m| (m.operator, m.name)).collect();
        assert_eq!(seen[..3], [(0, "seen".into()), (0, "bad.lines".into()), (1, "seen".into())]);
    }

    #[test]
    fn a_task_has_so_many_and_no_more() {
        let all = Registry::default();
        let names: Vec<String> = (0..MAX_METRICS).map(|i| format!("m{i}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert_eq!(add(&all, 0, &names), None);
        assert!(add(&all, 1, &["more"]).unwrap().contains("start_new_chain"));
        assert_eq!(all.read(Moment::default()).len(), MAX_METRICS);
    }

    #[test]
    fn rates_are_told_as_such() {
        let all = Registry::default();
        let mut meter = Meter::new("bad");
        Metrics { of: &all, operator: 3, error: None }.add(&mut meter);
        let at = |s| Moment::from_start(std::time::Duration::from_secs(s));
        all.read(at(1));
        meter.mark_many(3);
        let rate = UserMetric { operator: 3, name: "bad".into(), value: 1500, is_rate: true };
        assert!(all.read(at(3)).contains(&rate));
    }
}
