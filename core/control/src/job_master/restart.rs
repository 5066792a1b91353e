//! Restart strategies: does a failed job start again, and when? Pure.

use std::{collections::VecDeque, time::Duration};
use thalweg_model::{FailureKind, Moment};
use thalweg_wire::RestartStrategy;

/// What was decided about one failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Start again at this moment.
    RestartAt(Moment),
    /// Fail the job; the text says why it does not start again.
    Fail(String),
}

/// What a strategy remembers of one job.
#[derive(Debug, Clone)]
pub struct RestartPolicy {
    strategy: RestartStrategy,
    /// When failures happened, newest last; as many as the strategy looks at.
    failures: VecDeque<Moment>,
    count: u32,
    delay: Duration,
    /// When the last restart was planned for: failures before it belong to the same attempt.
    planned: Option<Moment>,
}

/// The delays of [`RestartStrategy::ByKind`]: 100 ms to 10 s, 10 attempts.
const BY_KIND: RestartStrategy = RestartStrategy::ExponentialDelay {
    initial: Duration::from_millis(100),
    max: Duration::from_secs(10),
    multiplier: 2.0,
    reset_after: Duration::from_secs(600),
    jitter: 0.0,
    attempts: Some(10),
};

impl RestartPolicy {
    /// No failure yet.
    pub fn new(strategy: RestartStrategy) -> Self {
        Self { strategy, failures: VecDeque::new(), count: 0, delay: Duration::ZERO, planned: None }
    }

    /// Decides about a failure. `random` is any number; it varies a delay that has jitter.
    pub fn on_failure(&mut self, now: Moment, kind: FailureKind, random: u64) -> Verdict {
        if !kind.may_restart() {
            return Verdict::Fail(format!("a failure of kind {kind} does not go away by starting again"));
        }
        match self.strategy.clone() {
            RestartStrategy::ByKind if !kind.restarts_by_default() => Verdict::Fail(format!(
                "a failure of kind {kind} fails the job at once; set a restart strategy to try again"
            )),
            RestartStrategy::ByKind => self.exponential(now, &BY_KIND, random),
            RestartStrategy::None => Verdict::Fail("the restart strategy is none".into()),
            RestartStrategy::FixedDelay { attempts, delay } => {
                if self.count >= attempts {
                    return Verdict::Fail(format!("started again {attempts} times, which is the limit"));
                }
                self.count += 1;
                Verdict::RestartAt(now + delay)
            }
            RestartStrategy::FailureRate { max_failures, interval, delay } => {
                self.failures.push_back(now);
                self.failures.retain(|at| now.since(*at) < interval);
                if self.failures.len() as u32 > max_failures {
                    let within = interval.as_secs_f64();
                    return Verdict::Fail(format!("more than {max_failures} failures within {within}s"));
                }
                Verdict::RestartAt(now + delay)
            }
            strategy @ RestartStrategy::ExponentialDelay { .. } => self.exponential(now, &strategy, random),
        }
    }

    fn exponential(&mut self, now: Moment, strategy: &RestartStrategy, random: u64) -> Verdict {
        let RestartStrategy::ExponentialDelay { initial, max, multiplier, reset_after, jitter, attempts } = strategy
        else {
            return Verdict::Fail("not an exponential strategy".into());
        };
        if let Some(planned) = self.planned {
            if now < planned {
                return Verdict::RestartAt(planned);
            }
            if now.since(planned) >= *reset_after {
                (self.count, self.delay) = (0, Duration::ZERO);
            }
        }
        if attempts.is_some_and(|limit| self.count >= limit) {
            return Verdict::Fail(format!("started again {} times, which is the limit", self.count));
        }
        self.count += 1;
        let grown = self.delay.mul_f64(multiplier.max(1.0));
        self.delay = grown.clamp(*initial, (*max).max(*initial));
        // -1…1 by the random number.
        let swing = (random % 2001) as f64 / 1000.0 - 1.0;
        let wait = self.delay.mul_f64((1.0 + jitter.clamp(0.0, 1.0) * swing).max(0.0));
        let at = now + wait;
        self.planned = Some(at);
        Verdict::RestartAt(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Moment {
        Moment::from_start(Duration::from_millis(millis))
    }

    fn wait(verdict: Verdict, now: Moment) -> Option<u128> {
        match verdict {
            Verdict::RestartAt(at) => Some(at.since(now).as_millis()),
            Verdict::Fail(_) => None,
        }
    }

    #[test]
    fn by_kind_what_was_lost_starts_again_and_what_the_user_did_fails() {
        let mut policy = RestartPolicy::new(RestartStrategy::ByKind);
        for kind in [FailureKind::User, FailureKind::UserPanic, FailureKind::Incompatible] {
            assert!(matches!(policy.on_failure(at(0), kind, 0), Verdict::Fail(_)), "{kind}");
        }
        let mut now = at(0);
        let mut waits = Vec::new();
        while let Some(w) = wait(policy.on_failure(now, FailureKind::Lost, 0), now) {
            waits.push(w);
            now = now + Duration::from_millis(w as u64 + 1);
        }
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 6400, 10000, 10000, 10000]);
    }

    #[test]
    fn failures_before_the_planned_restart_belong_to_it() {
        let mut policy = RestartPolicy::new(RestartStrategy::ByKind);
        assert_eq!(policy.on_failure(at(0), FailureKind::Lost, 0), Verdict::RestartAt(at(100)));
        assert_eq!(policy.on_failure(at(50), FailureKind::Lost, 0), Verdict::RestartAt(at(100)));
        assert_eq!(policy.on_failure(at(150), FailureKind::Lost, 0), Verdict::RestartAt(at(350)));
        let stable = at(150 + 700_000);
        assert_eq!(wait(policy.on_failure(stable, FailureKind::Lost, 0), stable), Some(100));
    }

    #[test]
    fn fixed_delay_counts_attempts() {
        let strategy = RestartStrategy::FixedDelay { attempts: 2, delay: Duration::from_millis(5) };
        let mut policy = RestartPolicy::new(strategy);
        let waits: Vec<_> = (0..3).map(|_| wait(policy.on_failure(at(0), FailureKind::User, 0), at(0))).collect();
        assert_eq!(waits, [Some(5), Some(5), None]);
    }

    #[test]
    fn failure_rate_looks_at_one_interval() {
        let (interval, delay) = (Duration::from_millis(100), Duration::ZERO);
        let mut policy = RestartPolicy::new(RestartStrategy::FailureRate { max_failures: 2, interval, delay });
        let fails = |p: &mut RestartPolicy, t| wait(p.on_failure(at(t), FailureKind::Lost, 0), at(t)).is_none();
        assert_eq!([0, 10, 150, 160, 170].map(|t| fails(&mut policy, t)), [false, false, false, false, true]);
    }

    #[test]
    fn none_never_restarts_and_incompatible_never_does() {
        let fail = |s, kind| matches!(RestartPolicy::new(s).on_failure(at(0), kind, 0), Verdict::Fail(_));
        assert!(fail(RestartStrategy::None, FailureKind::Lost));
        let always = RestartStrategy::FixedDelay { attempts: 9, delay: Duration::ZERO };
        assert!(fail(always, FailureKind::Incompatible));
    }

    #[test]
    fn jitter_stays_within_its_share() {
        let strategy = RestartStrategy::ExponentialDelay {
            initial: Duration::from_millis(100),
            max: Duration::from_secs(1),
            multiplier: 2.0,
            reset_after: Duration::from_secs(60),
            jitter: 0.1,
            attempts: None,
        };
        for random in [0, 1000, 2000, u64::MAX] {
            let w = wait(RestartPolicy::new(strategy.clone()).on_failure(at(0), FailureKind::Lost, random), at(0));
            assert!((90..=110).contains(&w.unwrap()), "{w:?}");
        }
    }
}
