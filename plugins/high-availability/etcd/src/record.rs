//! What stands in etcd's values: a record with the mark of the write that made it, and who leads.

use serde::{Deserialize, Serialize};
use thalweg_spi::LeaderInfo;

/// One write's mark. A write whose answer was lost finds itself by it.
pub(crate) type Mark = [u8; 16];

/// The form below. Another one was written by another version of Thalweg.
const FORM: u8 = 1;

/// `form ‖ mark ‖ value`.
pub(crate) fn encode(mark: Mark, value: &[u8]) -> Vec<u8> {
    let mut record = Vec::with_capacity(1 + mark.len() + value.len());
    record.push(FORM);
    record.extend_from_slice(&mark);
    record.extend_from_slice(value);
    record
}

/// Mark and value; `Err` says what is wrong.
pub(crate) fn decode(record: &[u8]) -> Result<(Mark, &[u8]), String> {
    let (form, rest) = record.split_first().ok_or("it is empty")?;
    if *form != FORM {
        return Err(format!("it has form {form}, and this version reads form {FORM}"));
    }
    rest.split_first_chunk::<16>().map(|(mark, value)| (*mark, value)).ok_or_else(|| "it is cut short".to_owned())
}

/// The value of the leader's key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LeaderRecord {
    /// The candidacy that wrote it, so that one whose answer was lost knows its own.
    pub candidacy: u64,
    /// Where it is, as soon as it was announced.
    #[serde(default)]
    pub leader: Option<LeaderInfo>,
}

impl LeaderRecord {
    pub(crate) fn encode(&self) -> Vec<u8> {
        // A struct of numbers and text always has a JSON form.
        serde_json::to_vec(self).unwrap_or_default()
    }

    pub(crate) fn decode(value: &[u8]) -> Option<Self> {
        serde_json::from_slice(value).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written_and_a_damaged_one_is_named() {
        let mark = [7; 16];
        for value in [&b""[..], b"x", &[0; 100]] {
            assert_eq!(decode(&encode(mark, value)), Ok((mark, value)));
        }
        assert_eq!(decode(b""), Err("it is empty".into()));
        assert_eq!(decode(&[2; 40]), Err("it has form 2, and this version reads form 1".into()));
        assert_eq!(decode(&[1; 16]), Err("it is cut short".into()));
    }

    #[test]
    fn a_leader_record_goes_through_json() {
        let info = LeaderInfo { epoch: None, rpc: "tcp://a:1".into(), rest: "http://a:2".into() };
        for leader in [None, Some(info)] {
            let record = LeaderRecord { candidacy: 5, leader };
            assert_eq!(LeaderRecord::decode(&record.encode()), Some(record));
        }
        assert_eq!(LeaderRecord::decode(b"{\"candidacy\":5,\"later\":1}").unwrap().leader, None);
        assert_eq!(LeaderRecord::decode(b"soup"), None);
    }
}
