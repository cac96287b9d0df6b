//! Moving a whole server: Mattermost's bulk data, in and out.
//!
//! ```text
//!  zip --check--> findings with line numbers      (one wrong line: nothing is imported)
//!      --import--> rows + outbox rows, a few hundred lines in each transaction
//!  rows --export--> zip
//! ```
//!
//! Invariants
//! - Nothing is changed before every line was read and found right.
//! - Each line has its whole effect or none, and importing again adds nothing: users are found by name, teams and channels by
//!   theirs, posts by channel, author, time and text.
//! - What is imported is captured like everything else, in the class `deferred`: history waits for what is said today.
//! - Memory grows with users and channels and entries of the archive, never with posts.
//! - An import opens no door: an account that is there keeps its password, its roles and its way of signing in.
//!
//! Not here: who may ask (http, operate), when (`jobs`). ADR 0057 tells why it is so.

mod archive;
mod check;
mod export;
mod import;
pub(crate) mod jobs;
mod line;
pub(crate) mod names;
mod people;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::AppError;
pub use export::ExportOptions;
pub use import::ImportOptions;

/// How far a long piece of work is. Called with it, a watcher says whether to go on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BulkProgress {
    /// What is being done.
    pub phase: BulkPhase,
    /// Lines read or written.
    pub lines: u64,
    /// Bytes of lines and attachments that are done; an estimate while exporting lines.
    pub done_bytes: u64,
    /// Of so many.
    pub total_bytes: u64,
}

/// What is being done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BulkPhase {
    /// Lines are looked at; nothing is changed.
    #[default]
    Checking,
    /// Lines are carried out.
    Importing,
    /// Lines are written.
    Exporting,
}

/// Told how far the work is, and says whether to go on. May wait.
pub type Watch<'a> = &'a mut dyn FnMut(&BulkProgress) -> ControlFlow<()>;

/// Something about one line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Which, from 1.
    pub line: u64,
    /// What.
    pub text: String,
}

/// Findings kept of each sort; more are only counted.
const FINDINGS_MAX: usize = 1_000;
/// Longest text about a line: names and paths in it may be as long as the line.
const TEXT_RUNES_MAX: usize = 300;

/// The beginning of a text that may be as long as a line.
fn cut(text: String) -> String {
    match text.char_indices().nth(TEXT_RUNES_MAX) {
        Some((at, _)) => format!("{} ...", &text[..at]),
        None => text,
    }
}

/// Findings of one sort.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Findings {
    /// How many there are.
    pub count: u64,
    /// The first of them.
    pub first: Vec<Finding>,
}

impl Findings {
    fn add(&mut self, line: u64, text: impl Into<String>) {
        self.count += 1;
        if self.first.len() < FINDINGS_MAX {
            self.first.push(Finding { line, text: cut(text.into()) });
        }
    }
}

/// What an archive holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BulkChecked {
    /// Who wrote it, as it says itself.
    pub generator: String,
    /// Objects by kind; replies, reactions and attachments too.
    pub counts: BTreeMap<String, u64>,
    /// Bytes of attachments that lines name.
    pub attachment_bytes: u64,
    /// What keeps it from being imported.
    pub errors: Findings,
    /// What will not be as it was.
    pub warnings: Findings,
}

/// What an import did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BulkImported {
    /// What was read.
    pub checked: BulkChecked,
    /// New objects by kind.
    pub added: BTreeMap<String, u64>,
    /// Channels that came with their team and were filled.
    pub changed: BTreeMap<String, u64>,
    /// New people who have no password yet.
    pub without_password: u64,
    /// What is not as the archive has it.
    pub warnings: Findings,
}

/// What an export wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BulkExported {
    /// Objects by kind; replies, reactions and attachments too.
    pub counts: BTreeMap<String, u64>,
    /// Size of the archive.
    pub bytes: u64,
    /// Attachments whose bytes are not here.
    pub missing_files: u64,
}

/// Why an import or export did not come to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BulkError {
    /// The archive cannot be used.
    #[error("{file} cannot be imported: {why}; nothing was changed")]
    Archive {
        /// Which.
        file: PathBuf,
        /// Why.
        why: String,
    },
    /// Lines are wrong.
    #[error("{} of the lines are wrong, the first is line {}: {}; nothing was changed",
        .0.errors.count, first(.0).line, first(.0).text)]
    Refused(Box<BulkChecked>),
    /// A line could not be carried out.
    #[error(
        "line {line} could not be carried out: {why}; everything before it is imported, nothing of it or behind it is"
    )]
    Line {
        /// Which.
        line: u64,
        /// Why.
        why: String,
    },
    /// The journal or the disk takes no more.
    #[error("there is no room for more; everything before line {line} is imported")]
    NoRoom {
        /// The first line that is not imported.
        line: u64,
    },
    /// Whoever watches said so.
    #[error("it was stopped; everything before line {line} is done")]
    Stopped {
        /// The first line that is not done.
        line: u64,
    },
    /// The archive cannot be written.
    #[error("{file} could not be written: {why}; nothing else was changed")]
    Write {
        /// Which.
        file: PathBuf,
        /// Why.
        why: String,
    },
    /// A job under which the process ended again and again.
    #[error(
        "it was begun {times} times, and the node ended each time before it got any further; what was done stays done"
    )]
    Fatal {
        /// So often.
        times: u32,
    },
    /// The store failed.
    #[error("the store failed: {0}; nothing was changed by this step")]
    Store(String),
}

fn first(checked: &BulkChecked) -> Finding {
    checked.errors.first.first().cloned().unwrap_or(Finding { line: 0, text: String::new() })
}

impl BulkError {
    /// What the operator should do.
    pub fn next_step(&self) -> &'static str {
        match self {
            Self::Archive { .. } => {
                "name a zip that `mmctl export create` or `holdfast core export` wrote, which this node may read"
            }
            Self::Refused(_) => {
                "see all findings with `holdfast core import FILE --dry-run`, and export again or correct the lines"
            }
            Self::Line { .. } => {
                "correct the line, or what stands in its way, and import the same archive again: what is there is passed over"
            }
            Self::NoRoom { .. } => {
                "see `holdfast status` for what takes the room, and import the same archive again: it goes on where it stopped"
            }
            Self::Stopped { .. } => "give the same order again: it goes on where it stopped",
            Self::Write { .. } => "check the path, its owner and the free space of its disk, then try again",
            Self::Fatal { .. } => {
                "see the system's log for why the node ended (memory, power), then give the same order again"
            }
            Self::Store(_) => "check disk space and disk health, then give the same order again",
        }
    }
}

impl BulkError {
    /// The line that it is about; 0 for none.
    pub fn line(&self) -> u64 {
        match self {
            Self::Refused(checked) => first(checked).line,
            Self::Line { line, .. } | Self::NoRoom { line } | Self::Stopped { line } => *line,
            Self::Archive { .. } | Self::Write { .. } | Self::Fatal { .. } | Self::Store(_) => 0,
        }
    }
}

impl From<AppError> for BulkError {
    fn from(e: AppError) -> Self {
        Self::Store(format!("{} {}", e.message, e.detailed_error).trim().to_owned())
    }
}

impl From<rusqlite::Error> for BulkError {
    fn from(e: rusqlite::Error) -> Self {
        Self::from(AppError::from(e))
    }
}

/// One more of a kind.
fn tally(counts: &mut BTreeMap<String, u64>, kind: &str, by: u64) {
    if by > 0 {
        *counts.entry(kind.to_owned()).or_default() += by;
    }
}
