//! `[restart]`: when a failed job starts again.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thalweg_spi::{RestartStrategy, TimeSpan};

/// Which strategy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RestartType {
    /// What was lost starts again with growing delays, what the user's code did fails the job.
    ByKind,
    /// Never.
    None,
    /// After a fixed delay, some number of times.
    FixedDelay,
    /// After a fixed delay, unless there were too many failures lately.
    FailureRate,
    /// After a delay that grows with each failure.
    ExponentialDelay,
}

/// When a failed job starts again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Restart {
    /// Which strategy.
    pub r#type: RestartType,
    /// Options of `fixed-delay`.
    pub fixed_delay: FixedDelay,
    /// Options of `failure-rate`.
    pub failure_rate: FailureRate,
    /// Options of `exponential-delay`.
    pub exponential_delay: ExponentialDelay,
}

/// Options of `fixed-delay`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct FixedDelay {
    /// How often the job starts again.
    pub attempts: u32,
    /// How long after the failure.
    pub delay: TimeSpan,
}

/// Options of `failure-rate`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct FailureRate {
    /// More failures than this within the interval end the job.
    pub max_failures: u32,
    /// Length of the interval.
    pub interval: TimeSpan,
    /// How long after the failure.
    pub delay: TimeSpan,
}

/// Options of `exponential-delay`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ExponentialDelay {
    /// The first delay.
    pub initial: TimeSpan,
    /// The longest delay.
    pub max: TimeSpan,
    /// Growth from one delay to the next.
    #[schemars(range(min = 1.0, max = 100.0))]
    pub multiplier: f64,
    /// A job that ran for so long has its first delay again.
    pub reset_after: TimeSpan,
    /// Share of the delay by which it varies.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub jitter: f64,
    /// How often the job starts again; left out: for ever.
    pub attempts: Option<u32>,
}

impl Restart {
    /// Tells of strategies whose options somebody changed without choosing them.
    pub(crate) fn advice(&self) -> Vec<String> {
        let defaults = toml::from_str::<toml::Table>(crate::DEFAULTS).ok();
        let restart = defaults.and_then(|mut all| all.remove("restart")).map(toml::Value::try_into::<Self>);
        let Some(Ok(default)) = restart else { return Vec::new() };
        let changed = [
            (RestartType::FixedDelay, "fixed-delay", self.fixed_delay != default.fixed_delay),
            (RestartType::FailureRate, "failure-rate", self.failure_rate != default.failure_rate),
            (RestartType::ExponentialDelay, "exponential-delay", self.exponential_delay != default.exponential_delay),
        ];
        let idle = changed.into_iter().filter(|(strategy, _, changed)| *changed && *strategy != self.r#type);
        idle.map(|(_, name, _)| {
            format!(
                "restart.{name}.* has no effect while restart.type is another strategy: set restart.type = \"{name}\" too"
            )
        })
        .collect()
    }

    /// The chosen strategy with its options.
    pub fn strategy(&self) -> RestartStrategy {
        match self.r#type {
            RestartType::ByKind => RestartStrategy::ByKind,
            RestartType::None => RestartStrategy::None,
            RestartType::FixedDelay => {
                RestartStrategy::FixedDelay { attempts: self.fixed_delay.attempts, delay: self.fixed_delay.delay.get() }
            }
            RestartType::FailureRate => RestartStrategy::FailureRate {
                max_failures: self.failure_rate.max_failures,
                interval: self.failure_rate.interval.get(),
                delay: self.failure_rate.delay.get(),
            },
            RestartType::ExponentialDelay => {
                let o = &self.exponential_delay;
                RestartStrategy::ExponentialDelay {
                    initial: o.initial.get(),
                    max: o.max.get(),
                    multiplier: o.multiplier,
                    reset_after: o.reset_after.get(),
                    jitter: o.jitter,
                    attempts: o.attempts,
                }
            }
        }
    }
}
