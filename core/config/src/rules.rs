//! Rules between options, which no single option's form can tell.

use crate::{ConfigProblem, Configuration, Source};
use std::{net::IpAddr, time::Duration};
use thalweg_spi::{ByteSize, TimeSpan};

/// Does only this host reach what listens on `host`?
pub fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// All that is wrong.
pub(crate) fn check(c: &Configuration) -> Vec<ConfigProblem> {
    let mut problems = Vec::new();
    let mut wrong = |key: &str, message: String| {
        let source = c.source_of(key).filter(|s| **s != Source::Default).cloned();
        problems.push(ConfigProblem { key: key.into(), source, message });
    };

    let name = &c.cluster.name.0;
    if name.is_empty() || name.len() > 63 || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
        let rule = "must be 1 to 63 letters, digits, `-`, `_` or `.`: it becomes part of paths and object names";
        wrong("cluster.name", format!("{name:?} {rule}"));
    }
    if let Some(id) = &c.task_manager.id
        && (id.is_empty() || id.len() > 128 || !id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(&b)))
    {
        wrong("task-manager.id", format!("{id:?} must be 1 to 128 letters, digits, `-`, `_`, `.` or `:`"));
    }

    for (key, host) in [
        ("job-manager.bind", &c.job_manager.bind),
        ("rest.bind", &c.rest.bind),
        ("task-manager.bind", &c.task_manager.bind),
    ] {
        if host.is_empty() || host.contains(char::is_whitespace) {
            wrong(key, format!("{host:?} is not a host: write an address or a name, like \"127.0.0.1\""));
        } else if !is_loopback(host) && !c.security.insecure {
            wrong(
                key,
                format!(
                    "{host:?} can be reached from other hosts, and there is no encryption yet: keep \"127.0.0.1\", or set \
                     security.insecure = true when everybody on that network may run code as this user"
                ),
            );
        }
    }

    let mut order = |low: (&str, TimeSpan), high: (&str, TimeSpan), strict: bool| {
        if high.1 < low.1 || (strict && high.1 == low.1) {
            let at_least = if strict { "more than" } else { "at least" };
            wrong(high.0, format!("{} must be {at_least} {}, which is {}", high.1, low.0, low.1));
        }
    };
    order(("heartbeat.interval", c.heartbeat.interval), ("heartbeat.timeout", c.heartbeat.timeout), true);
    order(
        ("registration.initial-timeout", c.registration.initial_timeout),
        ("registration.max-timeout", c.registration.max_timeout),
        false,
    );
    order(
        ("registration.refused-delay", c.registration.refused_delay),
        ("registration.refused-max-delay", c.registration.refused_max_delay),
        false,
    );
    let growing = &c.restart.exponential_delay;
    order(
        ("restart.exponential-delay.initial", growing.initial),
        ("restart.exponential-delay.max", growing.max),
        false,
    );

    for (key, span) in [
        ("heartbeat.interval", c.heartbeat.interval),
        ("rpc.timeout", c.rpc.timeout),
        ("registration.initial-timeout", c.registration.initial_timeout),
        ("registration.refused-delay", c.registration.refused_delay),
        ("task-manager.registration-timeout", c.task_manager.registration_timeout),
        ("task-manager.slot-timeout", c.task_manager.slot_timeout),
        ("slot.request-timeout", c.slot.request_timeout),
        ("host.start-timeout", c.host.start_timeout),
        ("host.stop-timeout", c.host.stop_timeout),
        ("client.timeout", c.client.timeout),
    ] {
        if span.get() < Duration::from_millis(1) {
            wrong(key, "must be at least 1ms".into());
        }
    }

    let interval = c.metrics.latency_interval.get();
    if !interval.is_zero() && interval < Duration::from_millis(1) {
        wrong("metrics.latency-interval", "must be 0s, for no markers, or at least 1ms".into());
    }

    // A frame's length is 32 bits; below the lower bounds nothing real would fit.
    for (key, size, low, high) in [
        // Pieces of logs have 1 MiB.
        ("rpc.max-frame", c.rpc.max_frame, 2 << 20, 1 << 30),
        ("rest.max-body", c.rest.max_body, 64 << 10, 4 << 30),
        ("exchange.memory", c.exchange.memory, 1 << 20, 1 << 40),
        ("exchange.max-record", c.exchange.max_record, 4 << 10, 1 << 30),
        ("task-manager.memory", c.task_manager.memory, 16 << 20, 1 << 50),
    ] {
        if size.get() < low || size.get() > high {
            let (low, high) = (ByteSize::from_bytes(low), ByteSize::from_bytes(high));
            wrong(key, format!("{size} is out of range: it is a size from {low} to {high}"));
        }
    }
    problems
}
