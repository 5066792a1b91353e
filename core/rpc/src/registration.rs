//! When to try a registration again. Pure: it is told how the last try ended and answers how long to wait.

use std::time::Duration;

/// How patient a registration is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetrySettings {
    /// First time-out of a call; doubles with each one.
    pub initial_timeout: Duration,
    /// Longest time-out of a call, and longest wait.
    pub max_timeout: Duration,
    /// First wait after a refused connection; doubles with each one.
    pub refused_delay: Duration,
    /// Longest wait after a refused connection.
    pub refused_max: Duration,
}

impl Default for RetrySettings {
    fn default() -> Self {
        Self {
            initial_timeout: Duration::from_millis(100),
            max_timeout: Duration::from_secs(30),
            refused_delay: Duration::from_millis(10),
            refused_max: Duration::from_secs(1),
        }
    }
}

/// How a try ended without success.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// No answer in time.
    TimedOut,
    /// Nobody listens there (yet).
    Refused,
    /// Something else went wrong.
    Failed,
}

/// The state of one registration. A new leader gets a new one.
#[derive(Debug, Clone)]
pub struct RegistrationRetry {
    settings: RetrySettings,
    timeout: Duration,
    refused: Duration,
}

impl RegistrationRetry {
    /// Before the first try.
    pub fn new(settings: RetrySettings) -> Self {
        Self { settings, timeout: settings.initial_timeout, refused: settings.refused_delay }
    }

    /// How long the next call may take.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// How long to wait before the next try.
    pub fn after(&mut self, outcome: Outcome) -> Duration {
        match outcome {
            // The wait was in the call itself.
            Outcome::TimedOut => {
                self.timeout = (self.timeout * 2).min(self.settings.max_timeout);
                Duration::ZERO
            }
            Outcome::Refused => {
                let wait = self.refused;
                self.refused = (self.refused * 2).min(self.settings.refused_max);
                wait
            }
            Outcome::Failed => {
                let wait = self.timeout;
                self.timeout = (self.timeout * 2).min(self.settings.max_timeout);
                wait
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_connections_are_tried_fast_and_then_slower() {
        let mut retry = RegistrationRetry::new(RetrySettings::default());
        let waits: Vec<_> = (0..9).map(|_| retry.after(Outcome::Refused).as_millis()).collect();
        assert_eq!(waits, [10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
        assert_eq!(retry.timeout(), Duration::from_millis(100), "the calls' time-out is another matter");
    }

    #[test]
    fn timeouts_double_up_to_the_longest() {
        let mut retry = RegistrationRetry::new(RetrySettings::default());
        for _ in 0..20 {
            assert_eq!(retry.after(Outcome::TimedOut), Duration::ZERO);
        }
        assert_eq!(retry.timeout(), Duration::from_secs(30));
    }
}
