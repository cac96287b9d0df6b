//! Configuration of the journal.

use std::path::PathBuf;
use std::sync::Arc;

use model::{ByteSize, Clock, Disk, NodeId};

/// One outage at full rate must fit: 72 h x 64 kbit/s = 2.07 GB; 4 GB also holds a week at half rate.
pub const LIMIT_BYTES_DEFAULT: u64 = 4_000_000_000;

/// Small enough that trimming follows the receipts closely, large enough that a full journal is some 60 files.
pub const SEGMENT_BYTES_DEFAULT: u64 = 64 << 20;

/// Section `[journal]` of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct JournalSettings {
    /// A segment file is closed when it has grown to this size, e.g. `64MiB`. Between `4KiB` and `1GiB`.
    pub segment_bytes: ByteSize,
    /// Above this size nothing is accepted until segments are trimmed, e.g. `4GB`.
    pub limit_bytes: ByteSize,
}

impl Default for JournalSettings {
    fn default() -> Self {
        Self { segment_bytes: ByteSize(SEGMENT_BYTES_DEFAULT), limit_bytes: ByteSize(LIMIT_BYTES_DEFAULT) }
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
}

/// Where the index is kept. It can be rebuilt from the segments at any time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexPlace {
    /// In sled below the journal's directory.
    Sled,
    /// In memory, rebuilt at each open: for simulations and short-lived journals.
    Memory,
}
