//! How urgent an entry is.

use std::fmt;
use std::str::FromStr;

/// Message precedence after ACP 121, most urgent first. The order of the variants is the order of sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Precedence {
    /// Contact reports, purges: passes everything. Mattermost priority "urgent".
    Flash = 0,
    /// Mattermost priority "important".
    Immediate = 1,
    /// Directory, membership and channel changes.
    Priority = 2,
    /// Ordinary chat.
    Routine = 3,
    /// File bytes and other bulk.
    Deferred = 4,
}

impl Precedence {
    /// All classes, most urgent first.
    pub const ALL: [Self; 5] = [Self::Flash, Self::Immediate, Self::Priority, Self::Routine, Self::Deferred];

    /// 0 for flash ... 4 for deferred; usable as an array index.
    pub fn index(self) -> usize {
        self as usize
    }

    /// The class with this index.
    pub fn from_index(index: u8) -> Option<Self> {
        Self::ALL.get(usize::from(index)).copied()
    }

    /// Name used in configuration, metrics and output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Flash => "flash",
            Self::Immediate => "immediate",
            Self::Priority => "priority",
            Self::Routine => "routine",
            Self::Deferred => "deferred",
        }
    }
}

impl fmt::Display for Precedence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that is no precedence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no precedence; use flash, immediate, priority, routine or deferred")]
pub struct BadPrecedence(pub String);

impl FromStr for Precedence {
    type Err = BadPrecedence;

    fn from_str(s: &str) -> Result<Self, BadPrecedence> {
        Self::ALL.into_iter().find(|p| p.as_str() == s).ok_or_else(|| BadPrecedence(s.to_owned()))
    }
}
