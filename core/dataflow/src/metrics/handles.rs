//! The four kinds of metrics as a function holds them.

use crate::task::add;
use parking_lot::Mutex;
use std::{
    borrow::Cow,
    marker::PhantomData,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use thalweg_model::Moment;

/// Something with a name that a function adds to its [`Metrics`](super::Metrics) when a subtask begins. What is written to
/// one that was not added is seen by nobody.
pub trait Metric {
    /// Its name within the function.
    fn name(&self) -> &str;
    /// Begins anew for one subtask, and answers how it is read.
    #[doc(hidden)]
    fn begin(&mut self) -> Box<dyn Read>;
}

/// One number of a metric, as it is shown.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Number {
    Whole(i64),
    /// A rate, in events of a thousand seconds.
    Rate(u64),
}

/// Reads a metric from another thread.
#[doc(hidden)]
pub trait Read: Send + Sync {
    /// Tells each of its numbers, with what follows the metric's name.
    fn read(&self, now: Moment, tell: &mut dyn FnMut(&'static str, Number));
}

fn whole(n: u64) -> Number {
    Number::Whole(i64::try_from(n).unwrap_or(i64::MAX))
}

/// How often something happened; begins at 0 with each attempt.
#[derive(Debug, Clone)]
pub struct Counter {
    name: Cow<'static, str>,
    n: Arc<AtomicU64>,
}

impl Counter {
    /// By this name, which is its own within the function.
    pub fn new(name: impl Into<Cow<'static, str>>) -> Self {
        Self { name: name.into(), n: Arc::default() }
    }

    /// Once more.
    #[inline]
    pub fn inc(&self) {
        self.add(1);
    }

    /// So many times more.
    #[inline]
    pub fn add(&self, n: u64) {
        add(&self.n, n);
    }

    /// How often until now, in this subtask.
    pub fn get(&self) -> u64 {
        self.n.load(Relaxed)
    }
}

impl Metric for Counter {
    fn name(&self) -> &str {
        &self.name
    }
    fn begin(&mut self) -> Box<dyn Read> {
        self.n = Arc::default();
        Box::new(Count(self.n.clone()))
    }
}

struct Count(Arc<AtomicU64>);

impl Read for Count {
    fn read(&self, _: Moment, tell: &mut dyn FnMut(&'static str, Number)) {
        tell("", whole(self.0.load(Relaxed)));
    }
}

/// What a [`Gauge`] may show: `i64` or `u64`; of a `u64` what is more than the greatest `i64` is shown as that.
pub trait GaugeValue: Copy + Send + Sync + 'static {
    #[doc(hidden)]
    fn to_bits(self) -> u64;
    #[doc(hidden)]
    fn shown(bits: u64) -> i64;
}

impl GaugeValue for i64 {
    fn to_bits(self) -> u64 {
        self.cast_unsigned()
    }
    fn shown(bits: u64) -> i64 {
        bits.cast_signed()
    }
}

impl GaugeValue for u64 {
    fn to_bits(self) -> u64 {
        self
    }
    fn shown(bits: u64) -> i64 {
        i64::try_from(bits).unwrap_or(i64::MAX)
    }
}

/// A value that goes up and down; 0 until it is set.
#[derive(Debug)]
pub struct Gauge<V = i64> {
    name: Cow<'static, str>,
    bits: Arc<AtomicU64>,
    _t: PhantomData<fn(V)>,
}

impl<V> Clone for Gauge<V> {
    fn clone(&self) -> Self {
        Self { name: self.name.clone(), bits: self.bits.clone(), _t: PhantomData }
    }
}

impl<V: GaugeValue> Gauge<V> {
    /// By this name, which is its own within the function.
    pub fn new(name: impl Into<Cow<'static, str>>) -> Self {
        Self { name: name.into(), bits: Arc::default(), _t: PhantomData }
    }

    /// It is this now.
    #[inline]
    pub fn set(&self, value: V) {
        self.bits.store(value.to_bits(), Relaxed);
    }
}

impl<V: GaugeValue> Metric for Gauge<V> {
    fn name(&self) -> &str {
        &self.name
    }
    fn begin(&mut self) -> Box<dyn Read> {
        self.bits = Arc::default();
        Box::new(Level { bits: self.bits.clone(), shown: V::shown })
    }
}

struct Level {
    bits: Arc<AtomicU64>,
    shown: fn(u64) -> i64,
}

impl Read for Level {
    fn read(&self, _: Moment, tell: &mut dyn FnMut(&'static str, Number)) {
        tell("", Number::Whole((self.shown)(self.bits.load(Relaxed))));
    }
}

/// Values that a histogram keeps: the last ones.
const KEPT: usize = 1024;

pub(crate) struct Values {
    last: [AtomicU64; KEPT],
    count: AtomicU64,
}

/// Of the values that are kept.
pub(crate) struct Told {
    pub(crate) max: u64,
    pub(crate) median: u64,
    pub(crate) p95: u64,
    pub(crate) p99: u64,
}

impl Values {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { last: [const { AtomicU64::new(0) }; KEPT], count: AtomicU64::new(0) })
    }

    /// Called by one thread alone.
    #[inline]
    pub(crate) fn record(&self, value: u64) {
        let n = self.count.load(Relaxed);
        self.last[n as usize % KEPT].store(value, Relaxed);
        self.count.store(n + 1, Relaxed);
    }

    /// `None` when nothing was recorded.
    pub(crate) fn told(&self) -> Option<Told> {
        let kept = usize::try_from(self.count.load(Relaxed)).unwrap_or(KEPT).min(KEPT);
        let mut sorted: Vec<u64> = self.last[..kept].iter().map(|v| v.load(Relaxed)).collect();
        sorted.sort_unstable();
        let max = *sorted.last()?;
        // The least of them that so many hundredths do not exceed.
        let quantile = |percent: usize| sorted[(kept * percent).div_ceil(100).max(1) - 1];
        Some(Told { max, median: quantile(50), p95: quantile(95), p99: quantile(99) })
    }
}

/// How values are distributed: how many there were in all, and of the last 1024 the greatest (`_max`) and those that a half
/// (`_median`), 95 % (`_p95`) and 99 % (`_p99`) do not exceed. It takes 8 KiB, whatever is recorded.
#[derive(Clone)]
pub struct Histogram {
    name: Cow<'static, str>,
    values: Option<Arc<Values>>,
}

impl Histogram {
    /// By this name, which is its own within the function.
    pub fn new(name: impl Into<Cow<'static, str>>) -> Self {
        Self { name: name.into(), values: None }
    }

    /// One more value.
    #[inline]
    pub fn record(&self, value: u64) {
        if let Some(values) = &self.values {
            values.record(value);
        }
    }
}

impl Metric for Histogram {
    fn name(&self) -> &str {
        &self.name
    }
    fn begin(&mut self) -> Box<dyn Read> {
        let values = Values::new();
        self.values = Some(values.clone());
        Box::new(Distribution(values))
    }
}

struct Distribution(Arc<Values>);

impl Read for Distribution {
    fn read(&self, _: Moment, tell: &mut dyn FnMut(&'static str, Number)) {
        tell("_count", whole(self.0.count.load(Relaxed)));
        let Some(Told { max, median, p95, p99 }) = self.0.told() else { return };
        for (name, value) in [("_max", max), ("_median", median), ("_p95", p95), ("_p99", p99)] {
            tell(name, whole(value));
        }
    }
}

/// How often something happens in a second: measured over about the last second, also while nothing happens.
#[derive(Debug, Clone)]
pub struct Meter {
    name: Cow<'static, str>,
    n: Arc<AtomicU64>,
}

impl Meter {
    /// By this name, which is its own within the function.
    pub fn new(name: impl Into<Cow<'static, str>>) -> Self {
        Self { name: name.into(), n: Arc::default() }
    }

    /// It happened.
    #[inline]
    pub fn mark(&self) {
        self.mark_many(1);
    }

    /// It happened so many times.
    #[inline]
    pub fn mark_many(&self, n: u64) {
        add(&self.n, n);
    }
}

impl Metric for Meter {
    fn name(&self) -> &str {
        &self.name
    }
    fn begin(&mut self) -> Box<dyn Read> {
        self.n = Arc::default();
        Box::new(Speed { n: self.n.clone(), span: Mutex::default() })
    }
}

/// Shorter spans say more of when somebody looked. Who looks four times a second finds a new rate in each.
const SPAN: Duration = Duration::from_millis(900);

#[derive(Default)]
struct Span {
    begin: Option<(Moment, u64)>,
    rate: Option<u64>,
}

struct Speed {
    n: Arc<AtomicU64>,
    // Readers' alone.
    span: Mutex<Span>,
}

impl Read for Speed {
    fn read(&self, now: Moment, tell: &mut dyn FnMut(&'static str, Number)) {
        let n = self.n.load(Relaxed);
        tell("_count", whole(n));
        let mut span = self.span.lock();
        match span.begin {
            None => span.begin = Some((now, n)),
            Some((begin, before)) if now.since(begin) >= SPAN => {
                let happened = n.saturating_sub(before) as f64;
                span.rate = Some((1000.0 * happened / now.since(begin).as_secs_f64()).round() as u64);
                span.begin = Some((now, n));
            }
            Some(_) => {}
        }
        if let Some(rate) = span.rate {
            tell("", Number::Rate(rate));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(of: &dyn Read, ms: u64) -> Vec<(&'static str, Number)> {
        let mut all = Vec::new();
        of.read(Moment::from_start(Duration::from_millis(ms)), &mut |name, n| all.push((name, n)));
        all
    }

    #[test]
    fn a_handle_counts_for_the_subtask_that_added_it() {
        let plan = Counter::new("seen");
        let (mut a, mut b) = (plan.clone(), plan.clone());
        let (read_a, read_b) = (a.begin(), b.begin());
        a.add(3);
        b.inc();
        plan.add(100);
        assert_eq!(numbers(&*read_a, 0), [("", Number::Whole(3))]);
        assert_eq!(numbers(&*read_b, 0), [("", Number::Whole(1))]);
        assert_eq!((a.get(), b.get()), (3, 1));
    }

    #[test]
    fn gauges_go_below_zero_and_do_not_overflow() {
        let (mut signed, mut unsigned) = (Gauge::<i64>::new("a"), Gauge::<u64>::new("b"));
        let (a, b) = (signed.begin(), unsigned.begin());
        assert_eq!(numbers(&*a, 0), [("", Number::Whole(0))]);
        signed.set(-7);
        unsigned.set(u64::MAX);
        assert_eq!(numbers(&*a, 0), [("", Number::Whole(-7))]);
        assert_eq!(numbers(&*b, 0), [("", Number::Whole(i64::MAX))]);
    }

    #[test]
    fn a_histogram_is_of_the_last_values() {
        let mut histogram = Histogram::new("ms");
        histogram.record(5);
        let read = histogram.begin();
        assert_eq!(numbers(&*read, 0), [("_count", Number::Whole(0))], "there is no quantile of nothing");
        let told = |count, max, median, p95, p99| {
            [("_count", count), ("_max", max), ("_median", median), ("_p95", p95), ("_p99", p99)]
                .map(|(name, n)| (name, Number::Whole(n)))
        };
        histogram.record(7);
        assert_eq!(numbers(&*read, 0), told(1, 7, 7, 7, 7));
        for value in (1..=1000).rev() {
            histogram.record(value);
        }
        assert_eq!(numbers(&*read, 0), told(1001, 1000, 500, 950, 990));
        for _ in 0..KEPT {
            histogram.record(3);
        }
        assert_eq!(numbers(&*read, 0), told(1001 + KEPT as i64, 3, 3, 3, 3), "what was before is forgotten");
    }

    #[test]
    fn a_meter_is_of_the_last_second() {
        let mut meter = Meter::new("bad");
        let read = meter.begin();
        meter.mark_many(1000);
        assert_eq!(numbers(&*read, 10_000), [("_count", Number::Whole(1000))], "no rate before there are two looks");
        meter.mark_many(10);
        meter.mark();
        assert_eq!(numbers(&*read, 10_250), [("_count", Number::Whole(1011))], "too soon");
        assert_eq!(numbers(&*read, 11_000), [("_count", Number::Whole(1011)), ("", Number::Rate(11_000))]);
        assert_eq!(numbers(&*read, 13_000), [("_count", Number::Whole(1011)), ("", Number::Rate(0))]);
    }
}
