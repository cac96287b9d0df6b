//! What an operator has done to the journal, by the running node or, when none runs, by the CLI itself.
//!
//! Long work is asked for a segment at a time, so that the one who asks sees how far it is and may stop at any time.

use ::journal::{Journal, Progress, Scrubbed, TrimReport};
use model::Clock as _;
use serde::{Deserialize, Serialize};

use crate::exit::{Failure, chain};
use crate::layout::Layout;
use crate::{admin, config, lock, offline, verbs};

/// Body of `POST /v1/journal`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub enum Upkeep {
    /// Remove what every destination has finished with.
    Trim,
    /// Verify the first sealed segment after this number.
    Scrub {
        /// 0 begins.
        after: u32,
    },
    /// Index the first sealed segment after this number anew.
    Reindex {
        /// 0 begins.
        after: u32,
    },
    /// Give up what damaged places held.
    Skip {
        /// Name of the place; all of them when absent.
        place: Option<String>,
    },
    /// Read damaged places again, and ask the peers again.
    Retry {
        /// As for [`Upkeep::Skip`].
        place: Option<String>,
    },
}

/// Answer to [`Upkeep`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "did", rename_all = "snake_case")]
pub enum UpkeepDone {
    /// See [`Upkeep::Trim`].
    Trimmed(TrimReport),
    /// See [`Upkeep::Scrub`].
    Scrubbed {
        /// The segment.
        segment: u32,
        /// What it holds.
        found: Scrubbed,
        /// How far that brings a walk over all segments.
        progress: Far,
    },
    /// See [`Upkeep::Reindex`].
    Reindexed {
        /// The segment.
        segment: u32,
        /// How far that brings a walk over all segments.
        progress: Far,
    },
    /// There is no segment after that number.
    Finished,
    /// See [`Upkeep::Skip`].
    Skipped {
        /// Own entries that ended as quarantined.
        entries: u64,
    },
    /// See [`Upkeep::Retry`].
    Retried {
        /// Places that are damaged still.
        damaged_places: u64,
    },
}

/// [`Progress`] on its way through the socket.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Far {
    /// Bytes done.
    pub done_bytes: u64,
    /// Bytes to do.
    pub total_bytes: u64,
}

impl From<Progress> for Far {
    fn from(p: Progress) -> Self {
        Self { done_bytes: p.done_bytes, total_bytes: p.total_bytes }
    }
}

/// Does it. Touches the disk.
///
/// # Errors
/// When the journal refuses; what was asked for is then as it was.
pub fn perform(journal: &Journal, asked: &Upkeep) -> Result<UpkeepDone, Failure> {
    let read = |e: ::journal::ReadError| Failure::new(chain(&e), e.next_step());
    let append = |e: ::journal::AppendError| Failure::new(chain(&e), e.next_step());
    let no_place = |place: &Option<String>| {
        Failure::new(
            format!("no damaged place has the name `{}`; nothing was changed", place.as_deref().unwrap_or_default()),
            "`holdfast journal quarantine list` shows the names",
        )
    };
    Ok(match asked {
        Upkeep::Trim => UpkeepDone::Trimmed(journal.trim().map_err(append)?),
        Upkeep::Scrub { after } => match journal.scrub_next(*after, carrier::SystemClock.now()).map_err(read)? {
            Some((segment, found, progress)) => UpkeepDone::Scrubbed { segment, found, progress: progress.into() },
            None => UpkeepDone::Finished,
        },
        Upkeep::Reindex { after } => match journal.reindex_next(*after).map_err(read)? {
            Some((segment, progress)) => UpkeepDone::Reindexed { segment, progress: progress.into() },
            None => UpkeepDone::Finished,
        },
        Upkeep::Skip { place } => {
            let entries = journal.quarantine_skip(place.as_deref()).map_err(append)?;
            UpkeepDone::Skipped { entries: entries.ok_or_else(|| no_place(place))? }
        }
        Upkeep::Retry { place } => {
            let still = journal.quarantine_retry(place.as_deref()).map_err(read)?;
            UpkeepDone::Retried { damaged_places: still.ok_or_else(|| no_place(place))? as u64 }
        }
    })
}

/// Who does it.
pub(crate) enum Keeper {
    /// The node that runs in the directory.
    Node(std::path::PathBuf),
    /// This process, while no node runs.
    Files { journal: Journal, _lock: lock::DataLock },
}

impl Keeper {
    /// The running node, or the journal's files when none runs.
    ///
    /// # Errors
    /// When the journal cannot be opened.
    pub(crate) fn find(layout: &Layout) -> Result<Self, Failure> {
        let settings = config::load(layout.data())?;
        if lock::holder(layout.data()).is_some() {
            return Ok(Self::Node(layout.data().to_owned()));
        }
        let lock = lock::take(layout.data())?;
        let key = offline::node_key(layout)?;
        Ok(Self::Files { journal: offline::open_journal(layout, &settings, &key)?, _lock: lock })
    }

    pub(crate) fn is_node(&self) -> bool {
        matches!(self, Self::Node(_))
    }

    /// Has it done.
    ///
    /// # Errors
    /// As for [`perform`].
    pub(crate) fn ask(&self, asked: &Upkeep) -> Result<UpkeepDone, Failure> {
        match self {
            Self::Node(data) => verbs::block_on(admin::client::post(data, "/v1/journal", asked)),
            Self::Files { journal, .. } => perform(journal, asked),
        }
    }
}
