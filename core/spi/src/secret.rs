//! A secret that does not print itself.

use bytes::Bytes;
use std::fmt;

/// Bytes that never reach a log: `Debug` shows nothing of them, there is no `Display`, and equality takes the same
/// time wherever the first difference is.
#[derive(Clone)]
pub struct Secret(Bytes);

impl Secret {
    /// These bytes.
    pub fn new(bytes: impl Into<Bytes>) -> Self {
        Self(bytes.into())
    }

    /// The bytes. Call it only where they are sent or stored.
    pub fn expose(&self) -> &Bytes {
        &self.0
    }

    /// As it stands in a file: hexadecimal digits. Write it only where its owner alone can read it.
    pub fn to_file_text(&self) -> String {
        hex::encode(&self.0)
    }

    /// Reads what [`Secret::to_file_text`] wrote, white space around it ignored. The error does not show the text.
    pub fn from_file_text(text: &str) -> Result<Self, &'static str> {
        let bytes = hex::decode(text.trim())
            .map_err(|_| "it is not a secret that thalweg made: expected hexadecimal digits")?;
        if bytes.len() < 16 { Err("it is too short for a secret") } else { Ok(Self::new(bytes)) }
    }

    /// Is this the secret? Looks at every byte.
    pub fn matches(&self, offered: &[u8]) -> bool {
        let mut difference = u8::from(offered.len() != self.0.len());
        for (i, byte) in self.0.iter().enumerate() {
            difference |= byte ^ offered.get(i).copied().unwrap_or(0);
        }
        difference == 0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_matches_itself_and_prints_nothing() {
        let secret = Secret::new("hunter2");
        assert!(
            secret.matches(b"hunter2")
                && !secret.matches(b"hunter3")
                && !secret.matches(b"")
                && !secret.matches(b"hunter22")
        );
        assert!(!format!("{secret:?}").contains("hunter"));
    }

    #[test]
    fn a_secret_goes_through_a_file() {
        let secret = Secret::new(vec![0xab; 32]);
        let read = Secret::from_file_text(&format!("{}\n", secret.to_file_text())).unwrap();
        assert!(read.matches(secret.expose()));
        assert!(Secret::from_file_text("xyz").is_err() && Secret::from_file_text("abcd").is_err());
    }
}
