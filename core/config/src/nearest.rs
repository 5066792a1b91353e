//! The known name that somebody most likely meant.

/// The known name nearest to `wrong`; `None` when none is near enough to be a help.
///
/// Two keys whose last parts are equal are near even when their sections are not: *jobmanager.rpc-port* is meant to be
/// *job-manager.rpc-port* rather than *rest.port*.
pub(crate) fn nearest<'a>(wrong: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let (first, last) = (
        |key: &str| key.split('.').next() == wrong.split('.').next(),
        |key: &str| key.contains('.') && key.rsplit('.').next() == wrong.rsplit('.').next(),
    );
    let distance = |key: &str| match (first(key), last(key)) {
        // Only what stands between is wrong or missing.
        (true, true) => 1,
        (false, true) => edits(wrong, key).div_ceil(2),
        (_, false) => edits(wrong, key),
    };
    let best = known.map(|key| (distance(key), key)).min()?;
    let limit = (wrong.chars().count() / 3).max(3);
    (best.0 <= limit).then_some(best.1)
}

/// How many letters must be put in, taken out, changed or swapped with their neighbour.
fn edits(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    for (j, cell) in rows[0].iter_mut().enumerate() {
        *cell = j;
    }
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let change = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = change.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_found_and_a_far_one_is_not() {
        let known = ["rest.port", "rest.bind", "job-manager.rpc-port", "heartbeat.interval"];
        let near = |wrong| nearest(wrong, known.into_iter());
        assert_eq!(near("rest.prt"), Some("rest.port"));
        assert_eq!(near("rest.prot"), Some("rest.port"));
        assert_eq!(near("jobmanager.rpc-port"), Some("job-manager.rpc-port"));
        assert_eq!(near("heartbeats.interval"), Some("heartbeat.interval"));
        assert_eq!(near("colour"), None);
        assert_eq!(nearest("x", [].into_iter()), None);
    }
}
