//! Where things stand in the sealed segments: fingerprint -> offset, five tables for each segment.
//!
//! Everything here follows from the segments and may be lost at any time; nothing is acknowledged on its strength.
//! sled keeps its own memory for each key, so rows are packed: some 170 sorted rows of 12 bytes in one value, with a
//! checksum of ours, because sled reads some damaged files without a word. Its memory is also kept down by hand
//! ([`SledIndex::nudge`]): 10 million entries are 120,000 values in 400 MB, and take 25 MB of memory.
//!
//! ```text
//! segment u32 | table u8 | shard u16  ->  CRC32C u32 | (fingerprint u64 | offset u32) ...   big-endian keys
//! segment u32 | 255                   ->  CRC32C u32 | node 16 | end of frames u64 | salt 16 | shards u16 x 5
//! ```
//! The checksum covers the key too: a value that a damaged tree shows under another key is told from the right one.
//! The second row is written last: a segment without it is indexed again, and so is one that was written anew since, with
//! another salt: rows of content that was purged do not count, whatever a power cut brought back of them. What needs no lookup by key
//! (positions, own entries, sums by class) stands in the segment's footer instead, and received ranges in the
//! snapshot at the start of each segment: open then needs no index at all.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use keys::SALT_LEN;
use model::NodeId;

use crate::summary::{Table, Tables};

/// Rows in one value: 2 kB. A page of sled's has up to 16 values and is read and kept as a whole: with 8 kB for each
/// value the same 10 million entries took 57 MB.
const SHARD_ROWS: usize = 170;

/// Longest time that opening may take; 5 million keys took 3.2 s where it was measured.
const OPEN_MAX: Duration = Duration::from_secs(60);

/// sled's cache: 256 parts, each of which keeps one page at least.
const CACHE_BYTES: u64 = 4 << 20;

/// sled looks at what a part of its cache holds only at every 64th access to that part.
const NUDGES: usize = 65;

/// So many values may have been read before sled is made to look: 16 MB of pages.
const READ_MAX: usize = 512;

/// A page holds no fewer values than these, except at the edges.
const PAGE_VALUES: usize = 8;

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
    pub(crate) salt: [u8; SALT_LEN],
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
pub(crate) struct MemoryIndex(BTreeMap<u32, (Sealed, Tables)>);

impl Index for MemoryIndex {
    fn covers(&self, sealed: Sealed) -> Result<bool, IndexError> {
        Ok(self.0.get(&sealed.segment).is_some_and(|(of, _)| *of == sealed))
    }

    fn put(&mut self, sealed: Sealed, tables: &Tables) -> Result<(), IndexError> {
        self.0.insert(sealed.segment, (sealed, tables.clone()));
        Ok(())
    }

    fn find(&self, sealed: Sealed, table: Table, print: u64) -> Result<Option<u32>, IndexError> {
        let known = self.0.get(&sealed.segment).filter(|(of, _)| *of == sealed);
        let (_, tables) = known.ok_or(IndexError::Behind(sealed.segment))?;
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
    /// Values read since sled was last made to look at its cache.
    read: Mutex<BTreeSet<ShardKey>>,
    /// Shards of the segments whose second rows were read.
    marks: Mutex<BTreeMap<u32, (Sealed, [u16; 5])>>,
}

type ShardKey = [u8; 7];

const MARK: u8 = 255;

/// Where the shards stand in the second row of a segment.
const MARK_SHARDS_AT: usize = 24 + SALT_LEN;

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
        Ok(Self { db: Some(opened?), node, read: Mutex::default(), marks: Mutex::default() })
    }

    fn db(&self) -> &sled::Db {
        self.db.as_ref().expect("the database is only taken out when dropping")
    }

    fn mark_key(segment: u32) -> [u8; 5] {
        let mut key = [MARK; 5];
        key[..4].copy_from_slice(&segment.to_be_bytes());
        key
    }

    fn shard_key(segment: u32, table: Table, shard: u16) -> ShardKey {
        let mut key = [0; 7];
        key[..4].copy_from_slice(&segment.to_be_bytes());
        key[4] = table as u8;
        key[5..].copy_from_slice(&shard.to_be_bytes());
        key
    }

    /// Reads some keys so often that sled notices what its cache holds, and lets go of what is too much. Left to itself it
    /// keeps 64 x 256 pages whatever the capacity says: all of the index.
    fn nudge<'a>(&self, keys: impl IntoIterator<Item = &'a ShardKey>) -> Result<(), IndexError> {
        guarded(|| {
            for key in keys {
                for _ in 0..NUDGES {
                    self.db().get(key)?;
                }
            }
            Ok(())
        })
    }

    fn mark(&self, sealed: Sealed, shards: &[u16; 5]) -> Vec<u8> {
        let mut value = self.node.0.to_vec();
        value.extend_from_slice(&sealed.end.to_be_bytes());
        value.extend_from_slice(&sealed.salt);
        shards.iter().for_each(|n| value.extend_from_slice(&n.to_be_bytes()));
        value
    }

    /// How many shards each table has; `None` when the segment is not indexed as it is.
    fn shards(&self, sealed: Sealed) -> Result<Option<[u16; 5]>, IndexError> {
        if let Some((of, shards)) = lock(&self.marks).get(&sealed.segment) {
            return Ok((*of == sealed).then_some(*shards));
        }
        let key = Self::mark_key(sealed.segment);
        let Some(value) = guarded(|| self.db().get(key))? else { return Ok(None) };
        let value = checked(&key, &value)?;
        let mut shards = [0; 5];
        for (shard, bytes) in shards.iter_mut().zip(value.get(MARK_SHARDS_AT..).unwrap_or_default().as_chunks::<2>().0)
        {
            *shard = u16::from_be_bytes(*bytes);
        }
        if *value != *self.mark(sealed, &shards) {
            return Ok(None);
        }
        lock(&self.marks).insert(sealed.segment, (sealed, shards));
        Ok(Some(shards))
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
            let count = rows.len().div_ceil(SHARD_ROWS).min(usize::from(u16::MAX)) as u16;
            shards[table as usize] = count;
            let mut rows = rows.into_iter().peekable();
            let mut written = Vec::new();
            for shard in 0..count {
                let mut value = Vec::new();
                while let Some((print, offset)) = rows.next_if(|(print, _)| shard_of(*print, count) == shard) {
                    value.extend_from_slice(&print.to_be_bytes());
                    value.extend_from_slice(&offset.to_be_bytes());
                }
                let key = Self::shard_key(sealed.segment, table, shard);
                guarded(|| self.db().insert(key, with_checksum(&key, &value)))?;
                written.push(key);
            }
            guarded(|| self.db().flush())?;
            self.nudge(written.iter().step_by(PAGE_VALUES))?;
        }
        let key = Self::mark_key(sealed.segment);
        let mark = with_checksum(&key, &self.mark(sealed, &shards));
        guarded(|| self.db().insert(key, mark))?;
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
        let full = {
            let mut read = lock(&self.read);
            read.insert(key);
            if read.len() < READ_MAX { BTreeSet::new() } else { std::mem::take(&mut *read) }
        };
        self.nudge(&full)?;
        let rows = checked(&key, &value)?.as_chunks::<12>().0;
        let wanted = print.to_be_bytes();
        let row = rows.binary_search_by(|row| row[..8].cmp(&wanted)).ok().map(|i| rows[i]);
        Ok(row.map(|row| u32::from_be_bytes([row[8], row[9], row[10], row[11]])))
    }

    fn remove(&mut self, segment: u32) -> Result<(), IndexError> {
        lock(&self.marks).remove(&segment);
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

fn with_checksum(key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut out = checksum(key, value).to_be_bytes().to_vec();
    out.extend(value);
    out
}

fn checked<'a>(key: &[u8], value: &'a [u8]) -> Result<&'a [u8], IndexError> {
    let (crc, value) = value.split_first_chunk::<4>().ok_or_else(|| IndexError::Broken("a value is cut".to_owned()))?;
    if u32::from_be_bytes(*crc) != checksum(key, value) {
        return Err(IndexError::Broken("a value has a wrong checksum".to_owned()));
    }
    Ok(value)
}

fn checksum(key: &[u8], value: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(key), value)
}

/// Where a damaged index is put.
pub(crate) fn damaged_dir(dir: &Path) -> PathBuf {
    PathBuf::from(format!("{}.damaged", dir.display()))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Puts a directory that cannot be used out of the way. Only the newest such one is kept.
pub(crate) fn move_aside(dir: &Path) -> std::io::Result<()> {
    if !dir.exists() {
        return Ok(());
    }
    let aside = damaged_dir(dir);
    if aside.exists() {
        fs::remove_dir_all(&aside)?;
    }
    fs::rename(dir, aside)
}

#[cfg(test)]
mod tests {
    use model::{ChunkName, EntryHash, EntryId, Epoch, ObjectKey, Outbound, Seq, SupersessionKey};
    use rand::{Rng, RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;
    use tempfile::TempDir;

    use super::*;
    use crate::tests::{PEER, chunk_name, copy_of, draft, foreign, noise, open_sled, options, own, tempdir};
    use crate::{Draft, IndexPlace, Journal, JournalOptions, OpenReport};

    const ENTRIES: u64 = 150;
    const CHUNKS: u8 = 12;

    /// What the journal must answer, whatever became of its index.
    struct Model {
        ids: Vec<(EntryId, EntryHash)>,
        creators: Vec<(ObjectKey, EntryId)>,
        superseded: Vec<(EntryId, bool)>,
        chunks: Vec<(ChunkName, Vec<u8>)>,
    }

    fn filled() -> (TempDir, Model) {
        let dir = tempdir();
        let journal = open_sled(&dir).0;
        let mut model = Model { ids: Vec::new(), creators: Vec::new(), superseded: Vec::new(), chunks: Vec::new() };
        for n in 1..=ENTRIES {
            let (object, key) = (ObjectKey((n % 40) << 57 | (n % 40)), SupersessionKey((n % 25) << 58 | (n % 25)));
            let appended = journal.append_own(Draft { object: Some(object), supersedes: Some(key), ..draft(n) });
            let appended = appended.wait().unwrap();
            model.ids.push((appended.id, appended.hash));
            if n <= 40 {
                model.creators.push((object, appended.id));
            }
            model.superseded.push((appended.id, n + 25 <= ENTRIES));
            if n % 9 == 0 {
                let content = format!("received {n}");
                journal.append_foreign(foreign(n, content.as_bytes())).wait().unwrap();
                let id = EntryId { origin: PEER, epoch: Epoch(1), seq: Seq::new(n).unwrap() };
                model.ids.push((id, journal.hash_of(id).unwrap().unwrap()));
            }
            if n % 12 == 0 {
                let (name, bytes) = (chunk_name(n as u8 / 12), noise(300 + n as usize));
                journal.put_chunk(name, &bytes).wait().unwrap();
                model.chunks.push((name, bytes));
            }
        }
        assert!(journal.stats().segments >= 6, "{:?}", journal.stats());
        (dir, model)
    }

    fn agrees(journal: &Journal, model: &Model, what: &str) {
        let view = journal.outbound();
        for (id, hash) in &model.ids {
            assert_eq!(journal.hash_of(*id).unwrap(), Some(*hash), "{what}: {id}");
        }
        for seq in ENTRIES + 1..ENTRIES + 5 {
            assert_eq!(journal.hash_of(own(1, seq)).unwrap(), None, "{what}");
        }
        for (object, id) in &model.creators {
            assert_eq!(journal.creator(*object).unwrap(), Some(*id), "{what}: {object:?}");
        }
        assert_eq!(journal.creator(ObjectKey(77)).unwrap(), None, "{what}");
        for (id, superseded) in &model.superseded {
            let entry = view.entry(*id).unwrap().unwrap();
            assert_eq!(view.superseded(&entry), *superseded, "{what}: {id}");
        }
        for (name, bytes) in &model.chunks {
            assert_eq!(journal.get_chunk(name).unwrap().as_deref(), Some(bytes.as_slice()), "{what}: {name:?}");
        }
        assert_eq!(journal.get_chunk(&chunk_name(CHUNKS + 1)).unwrap(), None, "{what}");
    }

    fn files(dir: &Path) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for item in fs::read_dir(dir).into_iter().flatten() {
            let path = item.unwrap().path();
            if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
        }
        found.sort();
        found
    }

    /// Damages one file of sled's, or several. Says what it did.
    fn damage(index: &Path, rng: &mut ChaCha8Rng) -> String {
        let mut said = Vec::new();
        for _ in 0..rng.random_range(1..3) {
            let files = files(index);
            let Some(path) = files.get(rng.random_range(0..files.len().max(1))) else { break };
            let mut bytes = fs::read(path).unwrap();
            let (from, to) = (rng.random_range(0..=bytes.len()), rng.random_range(0..=bytes.len()));
            let range = from.min(to)..from.max(to);
            let kind = rng.random_range(0..7);
            let what = match kind {
                0 => {
                    bytes.truncate(from);
                    "cut"
                }
                1 => {
                    bytes[range.clone()].fill(0);
                    "zeros"
                }
                2 => {
                    rng.fill_bytes(&mut bytes[range.clone()]);
                    "noise"
                }
                3 => {
                    if let Some(byte) = bytes.get_mut(from) {
                        *byte ^= 1 << rng.random_range(0..8);
                    }
                    "a flipped bit"
                }
                4 => {
                    let piece = bytes[range.clone()].to_vec();
                    let at = rng.random_range(0..=bytes.len() - piece.len());
                    bytes[at..at + piece.len()].copy_from_slice(&piece);
                    "a piece at another place"
                }
                5 => {
                    bytes.extend(noise(from % 5000 + 1));
                    "more at the end"
                }
                _ => "gone",
            };
            if kind == 6 {
                fs::remove_file(path).unwrap()
            } else {
                fs::write(path, bytes).unwrap()
            }
            let name = path.strip_prefix(index).unwrap().display().to_string();
            said.push(format!("{what} in {name} at {range:?}"));
        }
        said.join(", ")
    }

    /// Before open, between open and reading, or both. PROPTEST_CASES asks for more.
    #[test]
    fn whatever_is_damaged_in_sleds_files_every_answer_stays_right() {
        let cases: u64 = std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(60);
        let (dir, model) = filled();
        agrees(&open_sled(&dir).0, &model, "whole");
        for seed in 0..cases {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let copy = copy_of(&dir);
            let index = copy.path().join("index");
            let mut what = format!("seed {seed}");
            if seed % 3 != 2 {
                what += &format!(": before open {}", damage(&index, &mut rng));
            }
            let (journal, report) = open_sled(&copy);
            assert!(report.new_epoch.is_none() && report.damage.is_empty(), "{what}: {report:?}");
            if seed % 3 != 0 {
                what += &format!(": after open {}", damage(&index, &mut rng));
            }
            agrees(&journal, &model, &what);
            // What is damaged now is damaged at the next open too, and appending goes on meanwhile.
            let appended = journal.append_own(draft(ENTRIES + 1)).wait().unwrap();
            drop(journal);
            let (journal, _) = open_sled(&copy);
            assert_eq!(journal.hash_of(appended.id).unwrap(), Some(appended.hash), "{what}");
            assert_eq!(journal.hash_of(model.ids[0].0).unwrap(), Some(model.ids[0].1), "{what}");
        }
    }

    #[test]
    fn a_rebuild_is_told_and_shows_how_far_it_is() {
        let (dir, model) = filled();
        fs::remove_dir_all(dir.path().join("index")).unwrap();
        let mut seen = Vec::new();
        let options = JournalOptions { index: IndexPlace::Sled, ..options(dir.path()) };
        let (journal, report) = Journal::open_with_progress(options, &mut |progress| seen.push(progress)).unwrap();
        assert!(report.index_rebuilt.is_some_and(|why| why.contains("missing")));
        assert_eq!(seen.len() as u32, report.segments - 1, "one report for each sealed segment");
        assert!(seen.windows(2).all(|pair| pair[0].done_bytes < pair[1].done_bytes), "{seen:?}");
        assert!(
            seen.last().is_some_and(|last| last.done_bytes == last.total_bytes && last.total_bytes > 0),
            "{seen:?}"
        );
        agrees(&journal, &model, "rebuilt");
    }

    fn opens_and_agrees(dir: &TempDir, model: &Model, what: &str) -> OpenReport {
        let (journal, report) = open_sled(dir);
        agrees(&journal, model, what);
        let appended = journal.append_own(draft(ENTRIES + 1)).wait().unwrap();
        assert_eq!(journal.hash_of(appended.id).unwrap(), Some(appended.hash), "{what}");
        report
    }

    #[test]
    fn where_no_index_can_be_made_it_is_kept_in_memory() {
        let (dir, model) = filled();
        let index = dir.path().join("index");
        fs::remove_dir_all(&index).unwrap();
        // Nothing can be made in /proc, not even by root.
        std::os::unix::fs::symlink("/proc/index", &index).unwrap();
        let report = opens_and_agrees(&dir, &model, "a link to nowhere");
        assert!(report.index_rebuilt.is_some(), "{report:?}");
    }

    #[test]
    fn a_file_where_the_index_should_be_is_put_aside() {
        let (dir, model) = filled();
        let index = dir.path().join("index");
        fs::remove_dir_all(&index).unwrap();
        fs::write(&index, "not an index").unwrap();
        let report = opens_and_agrees(&dir, &model, "a file");
        assert!(report.index_rebuilt.is_some(), "{report:?}");
        assert!(index.is_dir(), "the next start finds a whole index");
        assert!(open_sled(&dir).1.index_rebuilt.is_none());
    }

    #[test]
    fn a_read_only_index_answers_or_is_made_anew() {
        use std::os::unix::fs::PermissionsExt;
        let (dir, model) = filled();
        let index = dir.path().join("index");
        let all = || files(&index).into_iter().chain([index.clone()]);
        all().for_each(|path| fs::set_permissions(path, fs::Permissions::from_mode(0o500)).unwrap());
        opens_and_agrees(&dir, &model, "read-only");
        all().for_each(|path| fs::set_permissions(path, fs::Permissions::from_mode(0o700)).unwrap());
    }

    /// A tree that lost some of its values, as sled leaves it after a power cut.
    #[test]
    fn a_segment_that_lost_values_is_indexed_again_and_no_other() {
        let (dir, model) = filled();
        let (journal, _) = open_sled(&dir);
        let sealed: Vec<_> = journal.log().read().sealed.values().map(|segment| segment.sealed()).collect();
        drop(journal);
        {
            let index = SledIndex::open(&dir.path().join("index"), crate::tests::NODE).unwrap();
            assert_eq!(index.covers(sealed[2]), Ok(true));
            let key = SledIndex::shard_key(sealed[2].segment, Table::Ids, 0);
            assert!(index.db().remove(key).unwrap().is_some());
            index.db().flush().unwrap();
        }
        let (journal, report) = open_sled(&dir);
        assert!(report.index_rebuilt.is_none(), "not seen before it is needed: {report:?}");
        agrees(&journal, &model, "a lost value");
        drop(journal);
        let index = SledIndex::open(&dir.path().join("index"), crate::tests::NODE).unwrap();
        for sealed in sealed {
            assert_eq!(index.covers(sealed), Ok(true));
            assert!(index.find(sealed, Table::Ids, 7).is_ok(), "{sealed:?}");
        }
    }

    /// sled checks its own pages, but not that a tree it put together again leads to the right ones.
    #[test]
    fn a_value_that_was_changed_or_stands_under_another_key_is_not_believed() {
        type Break = fn(&sled::Db, [u8; 7], [u8; 7]);
        let breaks: [(&str, Break); 3] = [
            ("a changed row", |db, key, _| {
                let mut value = db.get(key).unwrap().unwrap().to_vec();
                value[9] ^= 1;
                db.insert(key, value).unwrap();
            }),
            ("swapped values", |db, key, other| {
                let (value, others) = (db.get(key).unwrap().unwrap(), db.get(other).unwrap().unwrap());
                db.insert(key, others).unwrap();
                db.insert(other, value).unwrap();
            }),
            ("a cut value", |db, key, _| {
                let value = db.get(key).unwrap().unwrap();
                db.insert(key, &value[..value.len() - 12]).unwrap();
            }),
        ];
        let (dir, model) = filled();
        for (name, damage) in breaks {
            let copy = copy_of(&dir);
            {
                let index = SledIndex::open(&copy.path().join("index"), crate::tests::NODE).unwrap();
                let key = |segment| SledIndex::shard_key(segment, Table::Ids, 0);
                damage(index.db(), key(2), key(3));
                index.db().flush().unwrap();
            }
            agrees(&open_sled(&copy).0, &model, name);
        }
    }
}
