//! Flink's names of states, and how many states of subtasks make the state of a vertex.

use super::super::super::job_master::view::SubtaskView;
use serde_json::{Map, Value};
use thalweg_model::{ExecutionState, JobStatus, UnixMillis};

/// Flink's states of a task that we never enter, so that its maps are whole.
const NEVER_ENTERED: &str = "RECONCILING";
/// Flink's state of a job that we never enter: a job is accepted in one step.
const NEVER_ENTERED_BY_JOBS: &str = "INITIALIZING";

/// How many subtasks are in each state, under names that `spell` makes.
pub fn counts<'a>(
    states: impl IntoIterator<Item = &'a ExecutionState>,
    spell: impl Fn(&str) -> String,
) -> Map<String, Value> {
    let mut counts = [0u64; ExecutionState::ALL.len()];
    for state in states {
        if let Some(i) = ExecutionState::ALL.iter().position(|s| s == state) {
            counts[i] += 1;
        }
    }
    let named = ExecutionState::ALL.iter().zip(counts).map(|(s, n)| (spell(s.as_str()), n.into()));
    named.chain([(spell(NEVER_ENTERED), 0.into())]).collect()
}

/// When each state was entered, 0 where it was not.
pub fn timestamps(subtask: &SubtaskView) -> Map<String, Value> {
    let entered = ExecutionState::ALL.iter().zip(subtask.since);
    let named = entered.map(|(s, at)| (s.as_str().to_owned(), at.map_or(0, |at| at.0).into()));
    named.chain([(NEVER_ENTERED.to_owned(), 0.into())]).collect()
}

/// When the job entered each status last, 0 where it never did.
pub fn job_timestamps(statuses: &[(JobStatus, UnixMillis)]) -> Map<String, Value> {
    let last = |status| statuses.iter().rev().find(|(s, _)| *s == status).map_or(0, |(_, at)| at.0);
    let named = JobStatus::ALL.iter().map(|s| (s.as_str().to_owned(), last(*s).into()));
    named.chain([(NEVER_ENTERED_BY_JOBS.to_owned(), 0.into())]).collect()
}

/// When the subtask entered a state.
pub fn entered(subtask: &SubtaskView, state: ExecutionState) -> Option<u64> {
    let i = ExecutionState::ALL.iter().position(|s| *s == state)?;
    subtask.since.get(i).copied().flatten().map(|at| at.0)
}

/// The state of a vertex: the first of these that fits.
pub fn aggregated<'a>(states: impl Iterator<Item = &'a ExecutionState> + Clone) -> ExecutionState {
    use ExecutionState as S;
    let any = |state| states.clone().any(|s| *s == state);
    let first = [S::Failed, S::Canceling, S::Canceled, S::Initializing, S::Running];
    if let Some(found) = first.into_iter().find(|s| any(*s)) {
        return found;
    }
    if any(S::Finished) {
        return if states.clone().all(|s| *s == S::Finished) { S::Finished } else { S::Running };
    }
    S::Created
}

#[cfg(test)]
mod tests {
    use super::*;
    use ExecutionState as S;

    #[test]
    fn one_failed_subtask_fails_the_vertex_and_one_finished_does_not_finish_it() {
        for (states, vertex) in [
            (vec![S::Running, S::Failed, S::Canceled], S::Failed),
            (vec![S::Canceling, S::Canceled], S::Canceling),
            (vec![S::Finished, S::Initializing], S::Initializing),
            (vec![S::Finished, S::Deploying], S::Running),
            (vec![S::Finished, S::Finished], S::Finished),
            (vec![S::Scheduled, S::Deploying], S::Created),
            (vec![], S::Created),
        ] {
            assert_eq!(aggregated(states.iter()), vertex, "{states:?}");
        }
    }

    #[test]
    fn all_ten_states_are_counted() {
        let counted = counts(&[S::Running, S::Running, S::Failed], str::to_lowercase);
        assert_eq!((counted.len(), &counted["running"], &counted["failed"]), (10, &2.into(), &1.into()));
        assert_eq!(counted["reconciling"], 0);
    }

    #[test]
    fn a_status_that_was_entered_twice_has_its_last_time() {
        let at = |s, ms| (s, UnixMillis(ms));
        let times =
            job_timestamps(&[at(JobStatus::Running, 1), at(JobStatus::Restarting, 2), at(JobStatus::Running, 3)]);
        assert_eq!((&times["RUNNING"], &times["FAILED"], times.len()), (&3.into(), &0.into(), 11));
    }
}
