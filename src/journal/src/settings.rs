//! Configuration of the journal.

use std::path::PathBuf;
use std::sync::Arc;

use keys::DataKeys;
use model::{ByteSize, Clock, Disk, NodeId};

use crate::sealer::{OsSalts, Salts};

/// One outage at full rate must fit: 72 h x 64 kbit/s = 2.07 GB; 4 GB also holds a week at half rate.
pub const LIMIT_BYTES_DEFAULT: u64 = 4_000_000_000;

/// Small enough that trimming follows the receipts closely, large enough that a full journal is some 60 files.
pub const SEGMENT_BYTES_DEFAULT: u64 = 64 << 20;

/// Holds a thousand receipts and ten thousand flash messages; never more than 2 % of the limit, or of the disk.
pub const RESERVE_BYTES_DEFAULT: u64 = 64 << 20;

/// Section `[journal]` of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct JournalSettings {
    /// A segment file is closed when it has grown to this size, e.g. `64MiB`. Between `4KiB` and `1GiB`.
    pub segment_bytes: ByteSize,
    /// Above this size nothing is accepted until segments are trimmed, e.g. `4GB`.
    pub limit_bytes: ByteSize,
    /// Room kept for what is most urgent, e.g. `64MiB`: of the limit, and as a file on the disk. Taken as 2 % of the limit
    /// or of the disk where that is less (but 1 MiB, or an eighth, of a small disk). `0` keeps none.
    pub reserve_bytes: ByteSize,
}

impl Default for JournalSettings {
    fn default() -> Self {
        Self {
            segment_bytes: ByteSize(SEGMENT_BYTES_DEFAULT),
            limit_bytes: ByteSize(LIMIT_BYTES_DEFAULT),
            reserve_bytes: ByteSize(RESERVE_BYTES_DEFAULT),
        }
    }
}

/// What [`crate::Journal::open`] needs.
#[derive(Clone)]
pub struct JournalOptions {
    /// Directory of the journal; made when missing.
    pub dir: PathBuf,
    /// Whose journal it is.
    pub node: NodeId,
    /// Where the segments lie. With anything but [`crate::StdDisk`] use [`IndexPlace::Memory`].
    pub disk: Arc<dyn Disk>,
    /// Wall time, for the times that frames carry.
    pub clock: Arc<dyn Clock>,
    /// From the configuration.
    pub settings: JournalSettings,
    /// Where the index is kept.
    pub index: IndexPlace,
    /// How segments are sealed.
    pub at_rest: AtRest,
}

/// How segments are sealed on disk.
#[derive(Clone)]
pub enum AtRest {
    /// Not at all: for tests and tools. A journal with sealed segments is not opened.
    Plain,
    /// Every frame by itself. A journal with segments that are not sealed is not opened.
    Sealed {
        /// New segments take the newest, the others open what is there. At least one.
        keys: DataKeys,
        /// Where the salts of new segments come from.
        salts: Arc<dyn Salts>,
    },
}

impl AtRest {
    /// Sealed, with salts from the operating system.
    pub fn sealed(keys: DataKeys) -> Self {
        Self::Sealed { keys, salts: Arc::new(OsSalts) }
    }

    /// Takes other keys. What is not sealed stays so: a journal is sealed as a whole or not at all.
    pub(crate) fn use_keys(&mut self, new: DataKeys) {
        match self {
            Self::Plain => {}
            Self::Sealed { keys, salts: _ } => *keys = new,
        }
    }

    pub(crate) fn keys(&self) -> DataKeys {
        match self {
            Self::Plain => DataKeys::none(),
            Self::Sealed { keys, salts: _ } => keys.clone(),
        }
    }
}

/// Where the index is kept. It can be rebuilt from the segments at any time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexPlace {
    /// In sled below the journal's directory.
    Sled,
    /// In memory, rebuilt at each open: for simulations and short-lived journals.
    Memory,
}
