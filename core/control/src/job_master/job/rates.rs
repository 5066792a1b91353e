//! What a task does in a second, from two samples of what it has done. A pure function of samples: their times are those of the
//! process that counted, and no clock is read here.

use std::time::Duration;
use thalweg_model::{Moment, SubtaskMetrics};

/// Samples that are closer together say more of when they were taken than of the task: who looks often does not get
/// another rate each time. Hosts tell their counters four times a second, so this is a second with room for lateness.
const SPAN: Duration = Duration::from_millis(900);

/// Of one task, per second, over a second or more that was over at the last sample but few.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Rates {
    /// Records taken from inputs.
    pub records_in: f64,
    /// Records given to outputs.
    pub records_out: f64,
    /// Bytes taken from other hosts.
    pub bytes_in: f64,
    /// Bytes given to other hosts.
    pub bytes_out: f64,
    /// Milliseconds of a second in which it worked.
    pub busy_ms: f64,
    /// Milliseconds of a second in which it had nothing to do.
    pub idle_ms: f64,
    /// Milliseconds of a second in which there was no room behind it.
    pub back_pressured_ms: f64,
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    at: Moment,
    counts: [u64; 4],
    times_ms: [u64; 3],
}

impl Sample {
    fn of(m: &SubtaskMetrics) -> Option<Self> {
        let counts = [m.records_in, m.records_out, m.bytes_in, m.bytes_out];
        Some(Self { at: m.read_at?, counts, times_ms: [m.busy_ms, m.idle_ms, m.back_pressured_ms] })
    }
}

/// Of one task under one attempt.
#[derive(Debug, Clone, Default)]
pub(super) struct Meter {
    // The end of the span that was measured last, and the beginning of the next one.
    begin: Option<Sample>,
    rates: Option<Rates>,
}

impl Meter {
    /// A sample, later than those before. It makes a rate when it is far enough from the one that made the last.
    pub(super) fn sample(&mut self, metrics: &SubtaskMetrics) {
        let Some(new) = Sample::of(metrics) else { return };
        let Some(begin) = self.begin else {
            self.begin = Some(new);
            return;
        };
        let span = new.at.since(begin.at);
        if span < SPAN {
            return;
        }
        let seconds = span.as_secs_f64();
        let rate = |before: u64, after: u64| after.saturating_sub(before) as f64 / seconds;
        let [records_in, records_out, bytes_in, bytes_out] =
            std::array::from_fn(|i| rate(begin.counts[i], new.counts[i]));
        // No second has more than 1000; whole milliseconds may add one.
        let [busy_ms, idle_ms, back_pressured_ms] =
            std::array::from_fn(|i| rate(begin.times_ms[i], new.times_ms[i]).min(1000.0));
        self.rates = Some(Rates { records_in, records_out, bytes_in, bytes_out, busy_ms, idle_ms, back_pressured_ms });
        self.begin = Some(new);
    }

    /// Of lately; none before there were two samples.
    pub(super) fn rates(&self) -> Option<Rates> {
        self.rates
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at_ms: u64, records_in: u64, busy_ms: u64) -> SubtaskMetrics {
        let read_at = Some(Moment::from_start(Duration::from_millis(at_ms)));
        SubtaskMetrics { records_in, records_out: records_in * 2, busy_ms, read_at, ..SubtaskMetrics::default() }
    }

    #[test]
    fn two_samples_make_a_rate_and_one_makes_none() {
        let mut meter = Meter::default();
        assert_eq!(meter.rates(), None);
        meter.sample(&sample(5000, 1_000_000, 4000));
        assert_eq!(meter.rates(), None, "what it did since the beginning is no rate of lately");
        meter.sample(&sample(7000, 1_000_500, 4600));
        let rates = Rates { records_in: 250.0, records_out: 500.0, busy_ms: 300.0, ..Rates::default() };
        assert_eq!(meter.rates(), Some(rates));
        meter.sample(&sample(17_000, 1_000_500, 4600));
        assert_eq!(meter.rates(), Some(Rates::default()), "it has stopped, and what was before is forgotten");
    }

    #[test]
    fn who_looks_often_gets_rates_of_a_second_all_the_same() {
        let mut meter = Meter::default();
        let mut seen = Vec::new();
        // It becomes faster all the time: each rate that is made is another one.
        for tenth in 0..50 {
            meter.sample(&sample(tenth * 100, tenth * tenth, 0));
            seen.extend(meter.rates().map(|r| r.records_in));
        }
        seen.dedup();
        assert_eq!(seen.len(), 5, "{seen:?}");
        // From 0.9 s to 1.8 s: 18² - 9² records.
        assert_eq!(seen[1], (18.0 * 18.0 - 9.0 * 9.0) / 0.9);
    }

    #[test]
    fn a_sample_that_comes_late_or_tells_no_time_changes_nothing() {
        let mut meter = Meter::default();
        meter.sample(&sample(1000, 0, 0));
        meter.sample(&sample(2000, 100, 1001));
        let told = meter.rates();
        assert_eq!(told.map(|r| (r.records_in, r.busy_ms)), Some((100.0, 1000.0)), "no second has 1001 ms");
        meter.sample(&sample(500, 0, 0));
        meter.sample(&SubtaskMetrics { records_in: 7, ..SubtaskMetrics::default() });
        assert_eq!(meter.rates(), told);
    }
}
