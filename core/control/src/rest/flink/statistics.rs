//! What Flink tells of many numbers at once: `min max avg sum median p25 p75 p95`, and how uneven they are.

use serde_json::{Value, json};

/// Of whole numbers; all zero when there are none.
pub fn summary(mut values: Vec<i64>) -> Value {
    values.sort_unstable();
    let sum: i64 = values.iter().fold(0, |sum, v| sum.saturating_add(*v));
    let average = if values.is_empty() { 0 } else { sum / values.len() as i64 };
    json!({
        "min": values.first().copied().unwrap_or(0),
        "max": values.last().copied().unwrap_or(0),
        "avg": average,
        "sum": sum,
        "median": percentile(&values, 50.0),
        "p25": percentile(&values, 25.0),
        "p75": percentile(&values, 75.0),
        "p95": percentile(&values, 95.0),
    })
}

/// Between its two neighbours, at `share × (n + 1)`: the rule that Flink's statistics follow.
fn percentile(sorted: &[i64], percent: f64) -> i64 {
    let at = percent / 100.0 * (sorted.len() as f64 + 1.0);
    let lower = at.floor() as usize;
    match (lower.checked_sub(1).and_then(|i| sorted.get(i)), sorted.get(lower)) {
        (Some(low), Some(high)) => low + ((at - at.floor()) * (high - low) as f64) as i64,
        (None, _) => sorted.first().copied().unwrap_or(0),
        (Some(last), None) => *last,
    }
    .min(sorted.last().copied().unwrap_or(0))
}

/// 100 × mean absolute deviation ÷ average, at most 100; 0 when the average is 0.
pub fn skew(values: &[f64]) -> f64 {
    let n = values.len().max(1) as f64;
    let average = values.iter().sum::<f64>() / n;
    if average == 0.0 {
        return 0.0;
    }
    let deviation = values.iter().map(|v| (v - average).abs()).sum::<f64>() / n;
    (100.0 * deviation / average).min(100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_of_some_of_one_and_of_none() {
        let some = summary(vec![4, 1, 3, 2]);
        assert_eq!(some, json!({"min":1,"max":4,"avg":2,"sum":10,"median":2,"p25":1,"p75":3,"p95":4}));
        assert_eq!(summary(vec![7])["p95"], 7);
        assert_eq!(summary(vec![7])["p25"], 7);
        assert_eq!(summary(vec![])["median"], 0);
    }

    #[test]
    fn skew_is_zero_when_all_are_equal_and_bounded_when_one_has_all() {
        assert_eq!((skew(&[5.0, 5.0]), skew(&[0.0, 0.0]), skew(&[])), (0.0, 0.0, 0.0));
        assert_eq!(skew(&[0.0, 0.0, 0.0, 9.0]), 100.0);
        assert_eq!(skew(&[1.0, 3.0]), 50.0);
    }
}
