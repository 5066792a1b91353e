//! Metrics of user functions: counters, gauges, histograms and meters by name.
//!
//! A function has a typed handle for each as a field, and adds it when a subtask begins; from then on the handle is the
//! number itself, so that nothing is looked up and nothing is allocated for a record: a load and a store. Other threads
//! read it; only the subtask's thread writes.

mod handles;
mod registry;

pub(crate) use handles::Values;
pub use handles::{Counter, Gauge, GaugeValue, Histogram, Meter, Metric};
pub(crate) use registry::Registry;
pub use registry::{MAX_METRICS, MAX_NAME, Metrics};
