//! Release labels: what may leave over which link.

use std::fmt;
use std::str::FromStr;

use minicbor::{Decode, Encode};

/// Release label of an entry, e.g. `mission` or `directory`. Every link, courier and target names the labels
/// that it may carry; anything else is withheld and counted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, serde::Serialize)]
#[cbor(transparent)]
#[serde(transparent)]
pub struct Label(#[n(0)] String);

/// Text that is no label.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no label; use 1 to 32 characters of a-z, 0-9 and -")]
pub struct BadLabel(pub String);

impl Label {
    /// Longest label in bytes.
    pub const MAX_LEN: usize = 32;

    /// Label of users and other directory objects.
    pub fn directory() -> Self {
        Self("directory".to_owned())
    }

    /// Label of what no release rule covers: carried by no link.
    pub fn local() -> Self {
        Self("local".to_owned())
    }

    /// The label as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Label {
    type Err = BadLabel;

    fn from_str(s: &str) -> Result<Self, BadLabel> {
        let fits = (1..=Self::MAX_LEN).contains(&s.len())
            && s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if fits { Ok(Self(s.to_owned())) } else { Err(BadLabel(s.to_owned())) }
    }
}

impl<'de> serde::Deserialize<'de> for Label {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}
