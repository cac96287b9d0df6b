//! What both sides hold already, as the dictionary of a batch.
//!
//! ```text
//! entries both hold, in their order --> Context: who, where, which thread, last number and clock reading
//!                                   `-> built-in tables and text | their texts = zstd dictionary
//! ```
//!
//! A history is made from entries that the peer has acknowledged as stored, so both sides can make it at any time from what
//! is durable, and from nothing else: no frame that is lost or overtaken changes it. Entries of one label only: what
//! one label's texts are compressed to must not tell of another's.

use std::fmt;
use std::sync::OnceLock;

use model::{EntryHash, Label, NodeId};
use zstd::dict::EncoderDictionary;

use crate::record::{Columns, Context};
use crate::{WireError, decode_entry};

/// Most entries of a history.
pub const HISTORY_ENTRIES_MAX: usize = 512;

/// Most bytes of canonical entries in a history: 512 of chat have 96 kB, of which 24 kB are text. With the tables that zstd
/// makes for it at level 19 a history takes some 400 kB: 400 MB on a hub that writes to a thousand peers at once.
pub const HISTORY_BYTES_MAX: usize = 128 << 10;

/// Largest entry that a history may hold: more is no chat, and would push the chat out.
pub const HISTORY_ENTRY_BYTES_MAX: usize = 2 << 10;

/// Text of a mission that never was, for links without history. `scripts/bench dictionary` writes it anew.
///
/// Part of the protocol: both sides must have the same.
static BUILT_IN: &[u8] = include_bytes!("../dictionary/chat.txt");

/// How often what occurs in packed chat, as a zstd dictionary begins (RFC 8878, 5): a block of a few dozen bytes is too short to
/// tell that itself. Written with the text; part of the protocol too.
static TABLES: &[u8] = include_bytes!("../dictionary/chat.tables");

/// zstd's levels, 0 unused.
const LEVELS: usize = 20;

/// What a batch may refer to. See the module.
pub struct History {
    pub(crate) context: Context,
    /// The texts behind the built-in ones; empty in a history of nothing.
    texts: Vec<u8>,
    hash: u64,
    prepared: OnceLock<(i32, EncoderDictionary<'static>)>,
}

impl fmt::Debug for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("History").field("hash", &self.hash).field("bytes", &self.texts.len()).finish_non_exhaustive()
    }
}

impl History {
    /// Nothing yet: what a batch refers to that names no history.
    pub fn none(origin: NodeId) -> Self {
        Self::from_columns(Context::new(origin), Columns::default(), blake3::Hasher::new())
    }

    /// Of these entries of `origin`: canonical bytes and hash, in the order of their numbers.
    ///
    /// # Errors
    /// When bytes are no entry, the labels differ, or there is more than a history may hold.
    pub fn of<'a>(origin: NodeId, entries: impl IntoIterator<Item = (&'a [u8], EntryHash)>) -> Result<Self, WireError> {
        let mut context = Context::new(origin);
        let mut columns = Columns::default();
        let mut hash = blake3::Hasher::new_derive_key("holdfast history v1");
        hash.update(blake3::hash(TABLES).as_bytes()).update(blake3::hash(BUILT_IN).as_bytes());
        let mut label: Option<Label> = None;
        let (mut count, mut bytes) = (0, 0);
        for (canonical, of) in entries {
            count += 1;
            bytes += canonical.len();
            if count > HISTORY_ENTRIES_MAX || bytes > HISTORY_BYTES_MAX {
                let (found, max) = (bytes as u64, HISTORY_BYTES_MAX as u64);
                return Err(WireError::TooLarge { what: "a history", found, max });
            }
            let entry = decode_entry(canonical)?;
            if label.get_or_insert_with(|| entry.header.label.clone()) != &entry.header.label {
                return Err(WireError::Malformed("a history of two labels"));
            }
            context.put(&entry, &mut columns);
            columns.records.clear();
            hash.update(&of.0);
        }
        Ok(Self::from_columns(context, columns, hash))
    }

    fn from_columns(context: Context, columns: Columns, hash: blake3::Hasher) -> Self {
        let mut first = [0u8; 8];
        first.copy_from_slice(&hash.finalize().as_bytes()[..8]);
        Self { context, texts: columns.texts, hash: u64::from_le_bytes(first), prepared: OnceLock::new() }
    }

    /// Differs where the entries differ, or what is built in.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// The label of its entries; `None` without any.
    pub fn label(&self) -> Option<&Label> {
        self.context.label()
    }

    /// What zstd may refer to.
    pub(crate) fn dictionary(&self) -> Vec<u8> {
        [TABLES, BUILT_IN, &self.texts].concat()
    }

    /// The same, made ready for compressing. A history serves one level: that of its session.
    pub(crate) fn prepared(&self, level: i32) -> &EncoderDictionary<'static> {
        // One for all histories of nothing, whosever they are.
        static NONE: [OnceLock<EncoderDictionary<'static>>; LEVELS] = [const { OnceLock::new() }; LEVELS];
        if self.texts.is_empty() {
            let at = usize::try_from(level).map_or(0, |level| level.min(LEVELS - 1));
            return NONE[at].get_or_init(|| EncoderDictionary::copy(&self.dictionary(), level));
        }
        let (prepared_for, dictionary) =
            self.prepared.get_or_init(|| (level, EncoderDictionary::copy(&self.dictionary(), level)));
        debug_assert_eq!(*prepared_for, level, "a session keeps its level");
        dictionary
    }
}
