//! Where things stand in the sealed segments: fingerprint -> offset, five tables for each segment.
//!
//! Everything here follows from the segments and may be lost at any time; nothing is acknowledged on its strength.
//! sled keeps its own memory for each key, so rows are packed: some 700 sorted rows of 12 bytes in one value, with a
//! checksum of ours, because sled reads some damaged files without a word.
//!
//! ```text
//! segment u32 | table u8 | shard u16  ->  CRC32C u32 | (fingerprint u64 | offset u32) ...   big-endian keys
//! segment u32 | 255                   ->  CRC32C u32 | node 16 | end of frames u64 | shards u16 x 5
//! ```
//! The second row is written last: a segment without it is indexed again. What needs no lookup by key
//! (positions, own entries, sums by class) stands in the segment's footer instead, and received ranges in the
//! snapshot at the start of each segment: open then needs no index at all.

use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use model::NodeId;

use crate::summary::{Table, Tables};

/// Rows in one value: 8 kB, a page of sled's.
const SHARD_ROWS: usize = 700;

/// Longest time that opening may take; 5 million keys took 3.2 s where it was measured.
const OPEN_MAX: Duration = Duration::from_secs(60);

/// sled's cache. Its memory grows beyond with the number of keys, of which there are few.
const CACHE_BYTES: u64 = 16 << 20;

/// The index cannot answer and must be rebuilt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum IndexError {
    /// Nothing is known of this segment.
    Behind(u32),
    /// What is there is wrong.
    Broken(String),
}

/// A sealed segment's identity: an index of other content does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sealed {
    pub(crate) segment: u32,
    pub(crate) end: u64,
}

pub(crate) trait Index: Send + Sync {
    /// Is the segment indexed?
    fn covers(&self, sealed: Sealed) -> Result<bool, IndexError>;
    fn put(&mut self, sealed: Sealed, tables: &Tables) -> Result<(), IndexError>;
    fn find(&self, sealed: Sealed, table: Table, print: u64) -> Result<Option<u32>, IndexError>;
    fn remove(&mut self, segment: u32) -> Result<(), IndexError>;
    /// Forgets segments that are not in the list.
    fn retain(&mut self, segments: &[u32]) -> Result<(), IndexError>;
}

/// In memory, for simulations and as the last resort when the disk lets no index be made.
#[derive(Default)]
pub(crate) struct MemoryIndex(BTreeMap<u32, Tables>);

impl Index for MemoryIndex {
    fn covers(&self, sealed: Sealed) -> Result<bool, IndexError> {
        Ok(self.0.contains_key(&sealed.segment))
    }

    fn put(&mut self, sealed: Sealed, tables: &Tables) -> Result<(), IndexError> {
        self.0.insert(sealed.segment, tables.clone());
        Ok(())
    }

    fn find(&self, sealed: Sealed, table: Table, print: u64) -> Result<Option<u32>, IndexError> {
        let tables = self.0.get(&sealed.segment).ok_or(IndexError::Behind(sealed.segment))?;
        Ok(tables.get(table, print))
    }

    fn remove(&mut self, segment: u32) -> Result<(), IndexError> {
        self.0.remove(&segment);
        Ok(())
    }

    fn retain(&mut self, segments: &[u32]) -> Result<(), IndexError> {
        self.0.retain(|segment, _| segments.contains(segment));
        Ok(())
    }
}

pub(crate) struct SledIndex {
    /// `None` while it is being dropped.
    db: Option<sled::Db>,
    node: NodeId,
}

const MARK: u8 = 255;

impl SledIndex {
    /// Opens or creates. sled has been seen to panic on damaged files, and to hang: it gets a thread of its own.
    pub(crate) fn open(dir: &Path, node: NodeId) -> Result<Self, IndexError> {
        let (send, receive) = mpsc::sync_channel(1);
        let dir = dir.to_owned();
        let open = move || {
            let opened =
                guarded(|| sled::Config::new().path(&dir).flush_every_ms(None).cache_capacity(CACHE_BYTES).open());
            // Nobody listens when the time is up.
            let _ = send.send(opened);
        };
        let thread = std::thread::Builder::new().name("index-open".to_owned()).spawn(open);
        thread.map_err(|e| IndexError::Broken(e.to_string()))?;
        let opened =
            receive.recv_timeout(OPEN_MAX).map_err(|_| IndexError::Broken("it did not open in time".to_owned()))?;
        Ok(Self { db: Some(opened?), node })
    }

    fn db(&self) -> &sled::Db {
        self.db.as_ref().expect("the database is only taken out when dropping")
    }

    fn mark_key(segment: u32) -> [u8; 5] {
        let mut key = [MARK; 5];
        key[..4].copy_from_slice(&segment.to_be_bytes());
        key
    }

    fn shard_key(segment: u32, table: Table, shard: u16) -> [u8; 7] {
        let mut key = [0; 7];
        key[..4].copy_from_slice(&segment.to_be_bytes());
        key[4] = table as u8;
        key[5..].copy_from_slice(&shard.to_be_bytes());
        key
    }

    fn mark(&self, sealed: Sealed, shards: &[u16; 5]) -> Vec<u8> {
        let mut value = self.node.0.to_vec();
        value.extend_from_slice(&sealed.end.to_be_bytes());
        shards.iter().for_each(|n| value.extend_from_slice(&n.to_be_bytes()));
        with_checksum(value)
    }

    /// How many shards each table has; `None` when the segment is not indexed as it is.
    fn shards(&self, sealed: Sealed) -> Result<Option<[u16; 5]>, IndexError> {
        let Some(value) = guarded(|| self.db().get(Self::mark_key(sealed.segment)))? else { return Ok(None) };
        let value = checked(&value)?;
        let mut shards = [0; 5];
        for (shard, bytes) in shards.iter_mut().zip(value.get(24..).unwrap_or_default().chunks_exact(2)) {
            *shard = u16::from_be_bytes([bytes[0], bytes[1]]);
        }
        Ok((*self.mark(sealed, &shards) == *with_checksum(value.to_vec())).then_some(shards))
    }
}

impl Index for SledIndex {
    fn covers(&self, sealed: Sealed) -> Result<bool, IndexError> {
        Ok(self.shards(sealed)?.is_some())
    }

    fn put(&mut self, sealed: Sealed, tables: &Tables) -> Result<(), IndexError> {
        self.remove(sealed.segment)?;
        let mut shards = [0u16; 5];
        for table in Table::ALL {
            let rows = tables.rows(table);
            let count = rows.len().div_ceil(SHARD_ROWS).next_power_of_two().min(1 << 15) as u16;
            shards[table as usize] = if rows.is_empty() { 0 } else { count };
            let mut rows = rows.into_iter().peekable();
            for shard in 0..shards[table as usize] {
                let mut value = Vec::new();
                while let Some((print, offset)) = rows.next_if(|(print, _)| shard_of(*print, count) == shard) {
                    value.extend_from_slice(&print.to_be_bytes());
                    value.extend_from_slice(&offset.to_be_bytes());
                }
                let key = Self::shard_key(sealed.segment, table, shard);
                guarded(|| self.db().insert(key, with_checksum(value)))?;
            }
        }
        let mark = self.mark(sealed, &shards);
        guarded(|| self.db().insert(Self::mark_key(sealed.segment), mark))?;
        guarded(|| self.db().flush())?;
        Ok(())
    }

    fn find(&self, sealed: Sealed, table: Table, print: u64) -> Result<Option<u32>, IndexError> {
        let shards = self.shards(sealed)?.ok_or(IndexError::Behind(sealed.segment))?;
        let count = shards[table as usize];
        if count == 0 {
            return Ok(None);
        }
        let key = Self::shard_key(sealed.segment, table, shard_of(print, count));
        let value = guarded(|| self.db().get(key))?.ok_or(IndexError::Behind(sealed.segment))?;
        let rows = checked(&value)?.as_chunks::<12>().0;
        let wanted = print.to_be_bytes();
        let row = rows.binary_search_by(|row| row[..8].cmp(&wanted)).ok().map(|i| rows[i]);
        Ok(row.map(|row| u32::from_be_bytes([row[8], row[9], row[10], row[11]])))
    }

    fn remove(&mut self, segment: u32) -> Result<(), IndexError> {
        guarded(|| {
            let db = self.db();
            // The mark goes first: what is half removed counts as not indexed.
            db.remove(Self::mark_key(segment))?;
            for key in db.scan_prefix(segment.to_be_bytes()).keys() {
                db.remove(key?)?;
            }
            Ok(())
        })
    }

    fn retain(&mut self, segments: &[u32]) -> Result<(), IndexError> {
        let mut known: Vec<u32> = Vec::new();
        guarded(|| {
            // From one segment to the next, not from key to key: that would read all of it.
            let mut next = Some(0u32);
            while let Some(from) = next {
                let Some(item) = self.db().range(from.to_be_bytes()..).keys().next() else { break };
                let number = item?.first_chunk().map_or(u32::MAX, |bytes| u32::from_be_bytes(*bytes));
                known.push(number);
                next = number.checked_add(1);
            }
            Ok(())
        })?;
        known.into_iter().filter(|number| !segments.contains(number)).try_for_each(|number| self.remove(number))
    }
}

impl Drop for SledIndex {
    fn drop(&mut self) {
        // Closing flushes, and may panic like anything else in a damaged database.
        if let Some(db) = self.db.take() {
            let _ = catch_unwind(AssertUnwindSafe(|| drop(db)));
        }
    }
}

/// Runs a call into sled; an error and a panic are the same to us.
fn guarded<T>(call: impl FnOnce() -> sled::Result<T>) -> Result<T, IndexError> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(e)) => Err(IndexError::Broken(e.to_string())),
        Err(_) => Err(IndexError::Broken("sled panicked".to_owned())),
    }
}

fn shard_of(print: u64, count: u16) -> u16 {
    ((u128::from(print) * u128::from(count)) >> 64) as u16
}

fn with_checksum(value: Vec<u8>) -> Vec<u8> {
    let mut out = crc32c::crc32c(&value).to_be_bytes().to_vec();
    out.extend(value);
    out
}

fn checked(value: &[u8]) -> Result<&[u8], IndexError> {
    let (crc, value) = value.split_first_chunk::<4>().ok_or_else(|| IndexError::Broken("a value is cut".to_owned()))?;
    if u32::from_be_bytes(*crc) != crc32c::crc32c(value) {
        return Err(IndexError::Broken("a value has a wrong checksum".to_owned()));
    }
    Ok(value)
}

/// Puts a directory that cannot be used out of the way. Only the newest such one is kept.
pub(crate) fn move_aside(dir: &Path) -> std::io::Result<()> {
    if !dir.exists() {
        return Ok(());
    }
    let aside = PathBuf::from(format!("{}.damaged", dir.display()));
    if aside.exists() {
        fs::remove_dir_all(&aside)?;
    }
    fs::rename(dir, aside)
}
