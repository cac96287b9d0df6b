//! A file on its way into the log: its chunks, and what each new one is written as the difference to.
//!
//! ```text
//! version 1 in the log   [a][b][c][d]        put: a held, B new, c held
//! version 2                 [B from b]       B stands behind a, and so did b: b is tried as its base
//! ```
//! No index of similar chunks is needed: chunks of one file stand one behind the other, so what followed the chunk that was
//! met last is probably an older form of the one that comes. Text and markup also try the file's own first chunk. What is
//! tried is compressed both ways, and the shorter form is written; a wrong guess costs time and nothing else.
//!
//! Invariants
//! - A base is of the same origin and label as the chunk: it has the name that this file's key gives it.
//! - A base has at most one itself, so that reading a chunk reads at most two more: the first form of a document is written
//!   from its own first chunk, an edited one from that.

use std::collections::VecDeque;

use model::{ChunkName, LocalPos};
use wire::chunk::Namer;

use crate::committer::lock;
use crate::error::{AppendError, ReadError};
use crate::format::PackedChunk;
use crate::journal::Journal;
use crate::queue::{NewChunk, Request};
use crate::ticket::Ticket;
use crate::types::{ChunkPut, Chunks};
use crate::view::Spot;

/// Chunks that wait for the disk: 64 of 16 KiB make one group commit for each MiB, and no more than that is in memory.
const PENDING_MAX: usize = 64;

/// New chunks at the beginning of a file that wait for one that is held, so that they are told from what stood before it.
const LEADING_MAX: usize = 4;

/// A file whose chunks are being put; see [`Journal::begin_file`].
pub struct FileInProgress {
    journal: Journal,
    token: u64,
    since: LocalPos,
    pending: VecDeque<Ticket<ChunkPut>>,
    /// While nothing that is held was met: what came, and whether more may wait.
    leading: Vec<(ChunkName, Vec<u8>)>,
    leads: bool,
    /// Where the chunk that was met last stands, or what it was written from.
    near: Vec<Spot>,
    /// The base of the chunk before.
    last_base: Option<Base>,
    /// The last chunk of this file that was written whole and is worth compressing.
    anchor: Option<Base>,
}

/// A chunk that another may be written from.
#[derive(Clone)]
pub(crate) struct Base {
    pub(crate) name: ChunkName,
    pub(crate) bytes: Vec<u8>,
}

impl FileInProgress {
    pub(crate) fn new(journal: Journal, token: u64, since: LocalPos) -> Self {
        Self {
            journal,
            token,
            since,
            pending: VecDeque::new(),
            leading: Vec::new(),
            leads: true,
            near: Vec::new(),
            last_base: None,
            anchor: None,
        }
    }

    /// What the file's entry says of its chunks, which make up a content of that size.
    pub fn chunks(&self, content_bytes: u64) -> Chunks {
        Chunks { since: self.since, content_bytes }
    }

    /// Appends the next chunk of the file unless it is held, as the difference to another one where that is shorter. `namer`
    /// made its name. May return before the chunk is durable, see [`Self::finish`].
    ///
    /// # Errors
    /// When this chunk, or one before it, was not taken.
    pub fn put(&mut self, namer: &Namer, name: ChunkName, bytes: &[u8]) -> Result<(), AppendError> {
        let held = self.journal.log().find_chunk(&name).map_err(unreadable)?;
        let Some((spot, chunk)) = held else {
            if self.leads && self.leading.len() < LEADING_MAX {
                self.leading.push((name, bytes.to_vec()));
                return Ok(());
            }
            self.put_leading(namer, &[])?;
            return self.put_new(namer, name, bytes, &[]);
        };
        let log = self.journal.log();
        let base = match chunk.base() {
            Some(base) => log.find_chunk(&base).map_err(unreadable)?.map(|(spot, _)| spot),
            None => None,
        };
        let near: Vec<Spot> = base.into_iter().chain([spot]).collect();
        if self.leads {
            let mut before = Vec::new();
            for spot in &near {
                before.extend(log.chunks_before(*spot, LEADING_MAX).map_err(unreadable)?);
            }
            self.put_leading(namer, &before)?;
        }
        self.near = near;
        self.last_base = None;
        self.ask(NewChunk { whole: PackedChunk::pack(name, bytes), short: None })
    }

    /// Waits until every chunk that was put is durable.
    ///
    /// # Errors
    /// When one was not taken.
    pub fn finish(&mut self, namer: &Namer) -> Result<(), AppendError> {
        self.put_leading(namer, &[])?;
        self.pending.drain(..).try_for_each(|ticket| ticket.wait().map(drop))
    }

    fn put_leading(&mut self, namer: &Namer, like: &[PackedChunk]) -> Result<(), AppendError> {
        self.leads = false;
        let leading = std::mem::take(&mut self.leading);
        leading.iter().try_for_each(|(name, bytes)| self.put_new(namer, *name, bytes, like))
    }

    /// Puts a chunk that is not held; `like` are chunks that it may be an edited form of.
    fn put_new(
        &mut self,
        namer: &Namer,
        name: ChunkName,
        bytes: &[u8],
        like: &[PackedChunk],
    ) -> Result<(), AppendError> {
        let whole = PackedChunk::pack(name, bytes);
        let log = self.journal.log();
        let mut bases: Vec<(Option<Spot>, Base)> = Vec::new();
        let mut add = |spot: Option<Spot>, base: Option<Base>| {
            if let Some(base) = base
                && base.name != name
                && bases.iter().all(|(_, known)| known.name != base.name)
            {
                bases.push((spot, base));
            }
        };
        for spot in &self.near {
            let Some((spot, next)) = log.chunk_after(*spot).map_err(unreadable)? else { continue };
            add(Some(spot), log.base_of(next).map_err(unreadable)?);
        }
        for chunk in like {
            add(None, log.base_of(chunk.clone()).map_err(unreadable)?);
        }
        add(None, self.last_base.clone());
        let is_squeezed = whole.is_squeezed();
        add(None, self.anchor.clone().filter(|_| is_squeezed));
        let ours = bases.into_iter().filter(|(_, base)| namer.name(&base.bytes) == base.name);
        // Of what does not compress only equal stretches can be left out, and those are found quickly.
        let tried = ours
            .filter_map(|(spot, base)| Some((PackedChunk::pack_from(name, bytes, &base, !is_squeezed)?, spot, base)));
        let best = tried.min_by_key(|(packed, ..)| packed.bytes());
        let short = match best.filter(|(packed, ..)| packed.pays_beside(&whole)) {
            Some((packed, spot, base)) => {
                if let Some(spot) = spot {
                    self.near = vec![spot];
                    self.last_base = Some(base);
                }
                Some(packed)
            }
            None => {
                if is_squeezed {
                    self.anchor = Some(Base { name, bytes: bytes.to_vec() });
                }
                None
            }
        };
        self.ask(NewChunk { whole, short })
    }

    fn ask(&mut self, chunk: NewChunk) -> Result<(), AppendError> {
        if self.pending.len() >= PENDING_MAX {
            self.pending.drain(..).try_for_each(|ticket| ticket.wait().map(drop))?;
        }
        self.pending.push_back(self.journal.ask(|completer| Request::Chunk(chunk, None, completer)));
        Ok(())
    }
}

impl Drop for FileInProgress {
    fn drop(&mut self) {
        lock(&self.journal.shared().files).remove(&self.token);
    }
}

fn unreadable(e: ReadError) -> AppendError {
    AppendError::Unreadable(e.0)
}
