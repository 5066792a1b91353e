//! The numbers that one process counts of itself, by name: kept here, read by whoever shows them. Not the counters of
//! tasks, which travel with task reports.

use parking_lot::Mutex;
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

type Read = Arc<dyn Fn() -> u64 + Send + Sync>;

/// All metrics of a process. Names are Flink's where the number means the same.
#[derive(Clone, Default)]
pub struct MetricRegistry(Arc<Mutex<BTreeMap<String, Read>>>);

/// A number that goes up and down; cheap to set.
#[derive(Debug, Clone, Default)]
pub struct Gauge(Arc<AtomicU64>);

impl Gauge {
    /// What it is now.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// So much more.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }
}

impl MetricRegistry {
    /// Empty.
    pub fn new() -> Self {
        Self::default()
    }

    /// A number that its owner sets. The same name again takes the place of the earlier one.
    pub fn gauge(&self, name: impl Into<String>) -> Gauge {
        let gauge = Gauge::default();
        let read = gauge.clone();
        self.register(name, move || read.0.load(Ordering::Relaxed));
        gauge
    }

    /// A number that is looked up when somebody asks. The function must not wait, nor ask this registry.
    pub fn register(&self, name: impl Into<String>, read: impl Fn() -> u64 + Send + Sync + 'static) {
        self.0.lock().insert(name.into(), Arc::new(read));
    }

    /// What this process uses: processor time in nanoseconds, memory in bytes.
    pub fn register_process(&self) {
        self.register("Status.Process.CPU.Time", thalweg_env::usage::cpu_nanos);
        self.register("Status.Process.Memory.Resident", thalweg_env::usage::resident_bytes);
    }

    /// Every metric, by name.
    pub fn read(&self) -> Vec<(String, u64)> {
        let all: Vec<_> = self.0.lock().iter().map(|(name, read)| (name.clone(), read.clone())).collect();
        all.into_iter().map(|(name, read)| (name, read())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_read_by_name_and_the_last_of_a_name_counts() {
        let registry = MetricRegistry::new();
        let (old, new) = (registry.gauge("b"), registry.gauge("b"));
        old.set(1);
        new.set(2);
        new.add(3);
        registry.register("a", || 7);
        assert_eq!(registry.read(), [("a".to_owned(), 7), ("b".to_owned(), 5)]);
    }
}
