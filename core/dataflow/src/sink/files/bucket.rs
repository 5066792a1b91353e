//! Which sub-folder of a file sink a record belongs to: none, by time, or by a function. It makes no folders.

use crate::{
    batch::{NO_TIME, Time},
    ops::ClonedToSubtasks,
};
use std::fmt::Write;

/// Chooses the sub-folder of each record.
pub trait BucketAssigner<T>: Clone + Send + 'static {
    /// Looks at the options, before the job is submitted. The error says what to do.
    fn check(&self) -> Result<(), String> {
        Ok(())
    }
    /// Must records have an event time? Then a stream without one is refused before the job is submitted.
    fn needs_event_time(&self) -> bool {
        false
    }
    /// Appends the sub-folder's path to `to`, which is empty; `/` begins a folder within it. `at` is the record's
    /// event time, or [`NO_TIME`], and `now` the machine's clock, some hundred records old at most; both in ms since
    /// 1970 UTC.
    fn bucket(&mut self, item: &T, at: Time, now: Time, to: &mut String) -> Result<(), String>;
}

/// All records in the sink's folder itself.
#[derive(Clone, Copy, Debug)]
pub struct NoBuckets;

impl<T> BucketAssigner<T> for NoBuckets {
    #[inline(always)]
    fn bucket(&mut self, _: &T, _: Time, _: Time, _: &mut String) -> Result<(), String> {
        Ok(())
    }
}

/// As a function says: it is told the record and its event time, and appends the sub-folder's path to the string.
#[derive(Clone)]
pub struct ByFn<F>(pub F);

impl<T, F: FnMut(&T, Time, &mut String) + ClonedToSubtasks> BucketAssigner<T> for ByFn<F> {
    #[inline(always)]
    fn bucket(&mut self, item: &T, at: Time, _: Time, to: &mut String) -> Result<(), String> {
        (self.0)(item, at, to);
        Ok(())
    }
}

/// Sub-folders by time, in UTC.
#[derive(Clone, Debug)]
pub struct TimeBuckets {
    pattern: String,
    event: bool,
    pieces: Vec<Piece>,
    /// The name that was made last, and the times that it is right for.
    name: String,
    from: Time,
    to: Time,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Unit {
    Year,
    Month,
    Day,
    Hour,
    Minute,
    Second,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Piece {
    Text(String),
    Unit(Unit),
}

const DAY: Time = 86_400_000;
const HOURLY: &str = "yyyy-MM-dd--HH";

impl TimeBuckets {
    /// By the records' event times, `yyyy-MM-dd--HH`: a folder an hour.
    pub fn by_event_time() -> Self {
        Self { event: true, ..Self::by_processing_time() }
    }

    /// By the time at which records are written, `yyyy-MM-dd--HH`: a folder an hour.
    pub fn by_processing_time() -> Self {
        let new = Self { pattern: String::new(), event: false, pieces: vec![], name: String::new(), from: 1, to: 0 };
        new.pattern(HOURLY)
    }

    /// Folders of this form: `yyyy`, `MM`, `dd`, `HH`, `mm`, `ss`, other letters in quotes, `/` for folders in
    /// folders, as in `'day='yyyy-MM-dd/'hour='HH`.
    pub fn pattern(self, pattern: &str) -> Self {
        // What is wrong with it `check` tells.
        let pieces = parse(pattern).unwrap_or_default();
        Self { pattern: pattern.to_owned(), pieces, from: 1, to: 0, ..self }
    }

    fn name_of(&mut self, at: Time) {
        let (days, in_day) = (at.div_euclid(DAY), at.rem_euclid(DAY));
        let (year, month, day) = civil(days);
        self.name.clear();
        let mut length = DAY;
        for piece in &self.pieces {
            let (digits, value) = match piece {
                Piece::Text(text) => {
                    self.name.push_str(text);
                    continue;
                }
                Piece::Unit(Unit::Year) => (4, year),
                Piece::Unit(Unit::Month) => (2, month),
                Piece::Unit(Unit::Day) => (2, day),
                Piece::Unit(Unit::Hour) => {
                    length = length.min(3_600_000);
                    (2, in_day / 3_600_000)
                }
                Piece::Unit(Unit::Minute) => {
                    length = length.min(60_000);
                    (2, in_day / 60_000 % 60)
                }
                Piece::Unit(Unit::Second) => {
                    length = length.min(1_000);
                    (2, in_day / 1_000 % 60)
                }
            };
            // Writing to a string does not fail.
            let _ = write!(self.name, "{value:0digits$}");
        }
        self.from = at.saturating_sub(at.rem_euclid(length));
        self.to = self.from.saturating_add(length);
    }
}

/// Year, month and day of a day counted from 1970-01-01, in the Gregorian calendar.
fn civil(days: i64) -> (i64, i64, i64) {
    // Years begin in March here, so that the leap day is the last one, and eras of 400 years are all alike.
    let shifted = days + 719_468;
    let (era, in_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year = (in_era - in_era / 1_460 + in_era / 36_524 - in_era / 146_096) / 365;
    let in_year = in_era - (365 * year + year / 4 - year / 100);
    let month = (5 * in_year + 2) / 153;
    let day = in_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + i64::from(month <= 2), month, day)
}

fn parse(pattern: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut rest = pattern;
    while let Some(first) = rest.chars().next() {
        let taken = if first == '\'' {
            let Some(end) = rest[1..].find('\'') else {
                return Err(format!("bucket pattern {pattern:?}: a quote is not closed"));
            };
            pieces.push(Piece::Text(rest[1..=end].to_owned()));
            end + 2
        } else if first.is_alphabetic() {
            let run = rest.find(|c| c != first).unwrap_or(rest.len());
            let unit = match &rest[..run] {
                "yyyy" => Unit::Year,
                "MM" => Unit::Month,
                "dd" => Unit::Day,
                "HH" => Unit::Hour,
                "mm" => Unit::Minute,
                "ss" => Unit::Second,
                other => {
                    return Err(format!(
                        "bucket pattern {pattern:?}: {other:?} is unknown; there are yyyy, MM, dd, HH, mm and ss, and \
                         other letters go into quotes, as in 'day='yyyy-MM-dd"
                    ));
                }
            };
            pieces.push(Piece::Unit(unit));
            run
        } else {
            pieces.push(Piece::Text(first.to_string()));
            first.len_utf8()
        };
        rest = &rest[taken..];
    }
    Ok(pieces)
}

impl<T> BucketAssigner<T> for TimeBuckets {
    fn check(&self) -> Result<(), String> {
        parse(&self.pattern)?;
        let mut sample = self.clone();
        sample.name_of(0);
        unfit(&sample.name).map_or(Ok(()), |why| Err(format!("bucket pattern {:?}: {why}", self.pattern)))
    }

    fn needs_event_time(&self) -> bool {
        self.event
    }

    #[inline(always)]
    fn bucket(&mut self, _: &T, at: Time, now: Time, to: &mut String) -> Result<(), String> {
        let at = if self.event { at } else { now };
        if !(self.from..self.to).contains(&at) {
            if at == NO_TIME {
                return Err("a record has no event time, and its bucket is to be found by it: call \
                            assign_timestamps_and_watermarks before, or take TimeBuckets::by_processing_time()"
                    .to_owned());
            }
            self.name_of(at);
        }
        to.push_str(&self.name);
        Ok(())
    }
}

/// Why a bucket's name cannot be one. Names are made of users' data: none may lead out of the sink's folder.
pub(super) fn unfit(bucket: &str) -> Option<&'static str> {
    if bucket.starts_with('/') {
        return Some("it begins with a slash, and must lead into the sink's folder");
    }
    bucket.split('/').find_map(|part| match part {
        _ if part.starts_with('.') => Some("no folder in it may begin with a dot"),
        _ if part.contains('\0') => Some("it has a NUL"),
        _ if part.len() > 255 => Some("a folder in it has a name of more than 255 bytes"),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(pattern: &str, at: Time) -> String {
        let (mut to, mut buckets) = (String::new(), TimeBuckets::by_event_time().pattern(pattern));
        BucketAssigner::<()>::check(&buckets).unwrap();
        buckets.bucket(&(), at, 0, &mut to).unwrap();
        to
    }

    #[test]
    fn names_are_of_the_utc_calendar() {
        for (at, expected) in [
            (0, "1970-01-01--00"),
            (951_782_399_999, "2000-02-28--23"),
            (951_782_400_000, "2000-02-29--00"),
            (1_709_251_199_000, "2024-02-29--23"),
            (4_107_542_400_000, "2100-03-01--00"),
            (-1, "1969-12-31--23"),
            (-62_167_219_200_000, "0000-01-01--00"),
        ] {
            assert_eq!(name(HOURLY, at), expected);
        }
        assert_eq!(name("'day='yyyyMMdd/HHmmss", 1_700_000_000_123), "day=20231114/221320");
        name(HOURLY, Time::MAX);
        name(HOURLY, Time::MIN + 1);
    }

    #[test]
    fn every_day_of_centuries_follows_the_one_before() {
        let leap = |y: i64| y % 4 == 0 && (y % 100 != 0 || y % 400 == 0);
        let (mut year, mut month, mut day) = (1600, 1, 1);
        for days in -135_140..200_000 {
            assert_eq!(civil(days), (year, month, day), "day {days}");
            let length = match month {
                2 => 28 + i64::from(leap(year)),
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            day += 1;
            if day > length {
                (month, day) = (month + 1, 1);
            }
            if month > 12 {
                (year, month) = (year + 1, 1);
            }
        }
    }

    #[test]
    fn one_assigner_follows_times_that_go_to_and_fro() {
        let mut buckets = TimeBuckets::by_event_time().pattern("HH-mm");
        for at in [0, 59_999, 60_000, 59_999, 3_600_000, -1, 0, 60_000] {
            let mut to = String::new();
            buckets.bucket(&(), at, 0, &mut to).unwrap();
            assert_eq!(to, name("HH-mm", at), "{at}");
        }
        let error = buckets.bucket(&(), NO_TIME, 0, &mut String::new()).unwrap_err();
        assert!(error.contains("assign_timestamps_and_watermarks"), "{error}");
    }

    #[test]
    fn a_mistyped_pattern_is_told_with_what_there_is() {
        for (pattern, expected) in [
            ("YYYY-MM-dd", "\"YYYY\" is unknown"),
            ("yyyy-MM-DD", "there are yyyy, MM, dd, HH, mm and ss"),
            ("yy", "unknown"),
            ("day=dd", "\"d\" is unknown"),
            ("'day=dd", "not closed"),
            ("/yyyy", "slash"),
            ("yyyy/../dd", "dot"),
        ] {
            let error = BucketAssigner::<()>::check(&TimeBuckets::by_event_time().pattern(pattern)).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn no_bucket_leads_out_of_the_folder() {
        for bad in ["/", "/etc", "..", "a/../../b", ".", ".hidden", "a/.b", "a\0", &"x".repeat(256)] {
            assert!(unfit(bad).is_some(), "{bad:?}");
        }
        for good in ["", "a", "a/b", "a//b/", "a..b", "day=1/hour=2", "ö €"] {
            assert!(unfit(good).is_none(), "{good:?}");
        }
    }
}
