//! Reading a journal beside its owner, or without one.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use keys::DataKeys;
use model::{Disk, LocalPos, NodeId};

use crate::error::{OpenError, ReadError};
use crate::format::SEGMENT_HEADER_BYTES;
use crate::load::{Access, load};
use crate::quarantine::{QuarantineReport, read_places};
use crate::summary::Growing;
use crate::types::{Accounting, Damage, Listed, Progress, Stats, VerifyReport, Which};
use crate::verify;
use crate::view::{Log, Tail};

/// A journal as it was durable when opened. Takes no lock and changes nothing, so it works while the node runs.
/// Without the index, finding an entry by its id reads segments.
pub struct Reader {
    log: Log,
    damage: Vec<Damage>,
    torn: u64,
    disk: Arc<dyn Disk>,
    dir: PathBuf,
}

impl Reader {
    /// Opens for reading, with the keys that open its segments.
    ///
    /// # Errors
    /// When there is no journal, a key is missing, or it cannot be read.
    pub fn open(dir: &Path, disk: Arc<dyn Disk>, keys: &DataKeys) -> Result<Self, OpenError> {
        let mut loaded = load(&*disk, dir, None, keys, Access::Guest)?;
        loaded.sealed.retain(|number, _| *number > loaded.state.trimmed_through);
        let tail = loaded.tail.take().or_else(|| {
            // The owner is about to make the next segment.
            let last = loaded.sealed.values().next_back()?;
            let growing = Growing::starting(last.summary.next_pos, last.summary.chain_end);
            let end = SEGMENT_HEADER_BYTES as u64;
            Some(Tail {
                number: last.number + 1,
                file: Arc::clone(&last.file),
                sealer: last.sealer.clone(),
                end,
                reach: end,
                growing,
                header: None,
            })
        });
        let Some(tail) = tail else {
            let source = std::io::Error::new(std::io::ErrorKind::NotFound, "no segment file with a whole frame");
            return Err(OpenError::Disk { what: format!("reading the journal in {}", dir.display()), source });
        };
        let (node, damage) = (loaded.node, std::mem::take(&mut loaded.damage));
        let torn = loaded.discarded_bytes;
        Ok(Self { log: Log::new(node, 0, loaded.into_view(tail), None), damage, torn, disk, dir: dir.to_owned() })
    }

    pub(crate) fn log(&self) -> &Log {
        &self.log
    }

    /// Bytes at the end of the log that are no whole frame: the owner is writing them, or was when it ended. They were
    /// never acknowledged.
    pub fn torn_tail_bytes(&self) -> u64 {
        self.torn
    }

    /// Whose journal it is.
    pub fn node(&self) -> NodeId {
        self.log.node
    }

    /// Damaged places met while opening.
    pub fn damage(&self) -> &[Damage] {
        &self.damage
    }

    /// What the owner has kept aside, and which own entries cannot be read as far as this reader has met.
    pub fn quarantine(&self) -> QuarantineReport {
        self.log.quarantine_report(read_places(&*self.disk, &self.dir))
    }

    /// Entries of a range of positions, at most `max`.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub fn list(&self, range: Range<LocalPos>, max: usize) -> Result<Vec<Listed>, ReadError> {
        self.log.list(range.start.0, range.end.0, max)
    }

    /// One entry; `None` when it is not held.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub fn show(&self, which: Which) -> Result<Option<Listed>, ReadError> {
        self.log.show(which)
    }

    /// Reads everything and checks it, except the index.
    ///
    /// # Errors
    /// When a file cannot be read at all; damage is a finding and no error.
    pub fn verify(&self, progress: &mut dyn FnMut(Progress)) -> Result<VerifyReport, ReadError> {
        verify::verify(&self.log, progress)
    }

    /// The legal holds, by name.
    pub fn holds(&self) -> Vec<crate::Hold> {
        self.log.read().state.holds.values().cloned().collect()
    }

    /// Sizes and state. The limit is not known here and 0.
    pub fn stats(&self) -> Stats {
        self.log.stats()
    }

    /// The equation for each registered consumer, as of the newest durable receipts.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub fn accounting(&self) -> Result<BTreeMap<String, Accounting>, ReadError> {
        let names: Vec<_> = self.log.read().state.consumers.keys().cloned().collect();
        let mut all = BTreeMap::new();
        for name in names {
            if let Some(accounting) = self.log.accounting(&name)? {
                all.insert(name, accounting);
            }
        }
        Ok(all)
    }
}
