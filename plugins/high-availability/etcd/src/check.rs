//! The first look at etcd, when a process starts: does anybody answer, is it new enough, may this user read?
//!
//! Each member is asked until one answers. When none does, the error says of each what is wrong with it.

use crate::{
    connect::Settings,
    failure::{Cause, Failure, at_first},
    leader_watch::View,
    members::{Member, Members},
};
use thalweg_env::Clock;
use thalweg_spi::{ErrorKind, Happened, Result, ServiceError};

/// The oldest etcd whose transactions, leases and watches do what is needed here.
const OLDEST: (u32, u32) = (3, 4);
const OPERATION: &str = "open etcd";
/// So often all members are asked, where one of them lives.
const ROUNDS: u32 = 5;
/// Between two rounds.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(500);

/// Who leads, from the first member that answers.
pub(crate) async fn first_look(settings: &Settings, members: &Members, clock: &dyn Clock) -> Result<View> {
    let user = settings.config.user.is_some();
    if user && settings.config.endpoints.iter().any(|e| e.starts_with("http://")) {
        tracing::warn!("etcd's password travels unprotected: use https:// and ca-file");
    }
    let mut failures: Vec<Failure> = Vec::new();
    for round in 1..=ROUNDS {
        failures.clear();
        for at in 0..members.count() {
            match look_at(settings, members, at).await {
                Ok(view) => {
                    for failure in failures {
                        tracing::warn!(endpoint = failure.endpoint, "etcd member left alone: {}", failure.message);
                    }
                    return Ok(view);
                }
                Err(Looked::Final(e)) => return Err(e),
                Err(Looked::Failed(f)) => failures.push(Failure { happened: Happened::No, ..at_first(f, settings) }),
            }
        }
        // A member that lives and says "not now", as when etcd's own leader changes, is asked again.
        if round == ROUNDS || !failures.iter().any(Failure::is_not_now) {
            break;
        }
        clock.sleep(PAUSE).await;
    }
    // What an operator must change says more than what is away.
    failures.sort_by_key(|f| f.elsewhere() && f.cause != Cause::Certificate);
    let others: Vec<_> = failures.iter().skip(1).map(|f| format!("; {}: {}", f.endpoint, f.message)).collect();
    let Some(mut first) = failures.into_iter().next() else {
        return Err(ServiceError::new(ErrorKind::InvalidConfig, OPERATION, "no endpoints"));
    };
    first.message.extend(others);
    if first.cause == Cause::Unreachable {
        first.message.push_str(": is etcd running, and is high-availability.etcd.endpoints right?");
    }
    Err(first.error(OPERATION))
}

enum Looked {
    Failed(Failure),
    Final(ServiceError),
}

async fn look_at(settings: &Settings, members: &Members, at: usize) -> Result<View, Looked> {
    let member = members.connected(at).await.map_err(Looked::Failed)?;
    let again = Member { at, endpoint: member.endpoint.clone(), client: member.client.clone() };
    let endpoint = member.endpoint.clone();
    let key = settings.keys.leader();
    let look = members.at(member, |client| async move { client.kv_client().get(key, None).await });
    let view = View::of(&look.await.map_err(Looked::Failed)?);
    // Some versions keep the status from users; then the version stays unknown.
    match members.at(again, |client| async move { client.maintenance_client().status().await }).await {
        Ok(status) => {
            if is_older(status.version()) {
                let text =
                    format!("etcd {} is too old: {}.{} or newer is needed", status.version(), OLDEST.0, OLDEST.1);
                let error = ServiceError::new(ErrorKind::Unsupported, OPERATION, text).with("endpoint", endpoint);
                return Err(Looked::Final(error));
            }
            for alarm in status.errors() {
                tracing::warn!(endpoint, "etcd has an alarm: {alarm}");
            }
        }
        Err(failure) => tracing::debug!(endpoint, "etcd does not tell its version: {}", failure.message),
    }
    Ok(view)
}

fn is_older(version: &str) -> bool {
    let mut parts = version.split('.').map(str::parse::<u32>);
    match (parts.next(), parts.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) < OLDEST,
        // Not a release: whoever built it knows.
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::is_older;

    #[test]
    fn versions_before_three_four_are_too_old() {
        for old in ["3.3.27", "3.0.0", "2.3.8"] {
            assert!(is_older(old), "{old}");
        }
        for good in ["3.4.0", "3.4.23", "3.6.16", "3.10.1", "4.0.0", "3.7.0-rc.1", "main", ""] {
            assert!(!is_older(good), "{good}");
        }
    }
}
