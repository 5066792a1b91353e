//! MessagePack with named fields, and a bound on what is decoded.

use serde::{Serialize, de::DeserializeOwned};

/// Bytes that are not the form they should be.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Longer than the caller allows.
    #[error("{0} bytes are more than the {1} allowed")]
    TooLarge(usize, usize),
    /// Not MessagePack, or another form.
    #[error("damaged or of another form: {0}")]
    Damaged(#[from] rmp_serde::decode::Error),
    /// Something stands behind the value.
    #[error("{0} bytes stand behind the value")]
    Trailing(usize),
}

/// The bytes of a value. It fails only for maps whose keys cannot be keys, which no form of ours has; so a failure is
/// told as an empty vector's decode error at the reader rather than a panic here.
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    rmp_serde::to_vec_named(value).unwrap_or_default()
}

/// The value of some bytes, which may be anybody's: never panics and never allocates more than a small multiple of
/// their length.
pub fn decode<T: DeserializeOwned>(bytes: &[u8], limit: usize) -> Result<T, DecodeError> {
    if bytes.len() > limit {
        return Err(DecodeError::TooLarge(bytes.len(), limit));
    }
    let mut reader = rmp_serde::Deserializer::new(bytes);
    reader.set_max_depth(64);
    let value = T::deserialize(&mut reader)?;
    let rest = reader.get_ref().len();
    if rest > 0 { Err(DecodeError::Trailing(rest)) } else { Ok(value) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FromHost, JobSpec, ToHost};
    use proptest::prelude::*;

    #[test]
    fn unknown_fields_are_ignored_and_new_ones_defaulted() {
        #[derive(serde::Serialize)]
        struct Newer {
            name: String,
            added_later: u8,
        }
        #[derive(serde::Deserialize, Debug, PartialEq)]
        struct Older {
            name: String,
            #[serde(default)]
            not_there: Option<u8>,
        }
        let bytes = encode(&Newer { name: "a".into(), added_later: 1 });
        assert_eq!(decode::<Older>(&bytes, 100).unwrap(), Older { name: "a".into(), not_there: None });
    }

    #[test]
    fn what_is_too_long_or_has_a_tail_is_refused() {
        assert!(matches!(decode::<u8>(&[1, 2], 100), Err(DecodeError::Trailing(1))));
        assert!(matches!(decode::<u8>(&[1, 2], 1), Err(DecodeError::TooLarge(2, 1))));
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode::<JobSpec>(&bytes, 1 << 20);
            let _ = decode::<ToHost>(&bytes, 1 << 20);
            let _ = decode::<FromHost>(&bytes, 1 << 20);
        }

        #[test]
        fn a_damaged_spec_is_an_error_or_another_spec(at in 0usize..200, to in any::<u8>()) {
            let mut bytes = encode(&crate::job::tests::spec());
            let at = at % bytes.len();
            bytes[at] = to;
            let _ = decode::<JobSpec>(&bytes, 1 << 20);
            let _ = decode::<JobSpec>(&bytes[..at], 1 << 20);
        }
    }
}
