//! Writes a sealed segment anew: under another key, or with other content in some of its frames.
//!
//! ```text
//! caller's thread: read, open, map, seal, append to 00000007.rewritten, fdatasync
//! committer:       rename over 00000007.seg, sync the directory, show it to readers
//! ```
//! Every frame keeps its offset and its length: the index, the positions and the pages of the footer stay right. Bytes
//! that are no frame are copied as they are, and stay where they are reported. Until the rename is durable the old
//! file is whole; a power cut leaves one or the other. Readers that have the old file open go on with it.

use std::io;
use std::path::Path;
use std::sync::Arc;

use keys::{DataKeys, KeyNumber};
use model::{Disk, DiskFile, OpenMode};

use crate::committer::{disk_failed, lock};
use crate::error::AppendError;
use crate::format::{
    FORMAT_VERSION, FrameKind, Lock, SEGMENT_HEADER_BYTES, SegmentHeader, TRAILER_BYTES, encode_trailer,
};
use crate::format::{decode_trailer, segment_name, segment_number};
use crate::journal::Journal;
use crate::load::segments_dir;
use crate::mutations::{Mutation, unless};
use crate::queue::Request;
use crate::scan::{Found, Refused, Scanner, Window, read_past};
use crate::sealer::Sealer;
use crate::ticket::Ticket;
use crate::types::Progress;
use crate::view::{Segment, grow};

/// Ending of the file that will take a segment's place.
const EXTENSION: &str = "rewritten";

/// Written between two looks at the progress, and held in memory.
const WRITE_BYTES: usize = 1 << 20;

/// A segment that was written anew and is durable, beside the one that it replaces.
pub(crate) struct Rewritten {
    pub(crate) number: u32,
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) sealer: Sealer,
    /// The file that was read: another one in its place means that the copy is out of date.
    pub(crate) old: Arc<dyn DiskFile>,
}

impl Journal {
    /// Seals what is new with the newest of `keys`, beginning with a new segment if that is another one. The others open what is there, so
    /// they must hold every key that a segment needs. Does nothing to a journal that is not sealed.
    pub fn use_keys(&self, keys: DataKeys) -> Ticket<()> {
        self.ask(|completer| Request::UseKeys(keys, completer))
    }

    /// Seals the oldest segment anew that is not sealed with the newest key. Returns how far this has come in bytes;
    /// `None` when every segment is. Appends go on meanwhile, and a power cut leaves the old segment or the new one.
    ///
    /// # Errors
    /// When the disk fails or has no room for one segment more; the segment is then as before.
    pub fn reseal_next(&self) -> Result<Option<Progress>, AppendError> {
        let shared = self.shared();
        let at_rest = lock(&shared.at_rest).clone();
        let Some(newest) = at_rest.keys().newest().map(|(number, _)| number) else { return Ok(None) };
        let is_done = |segment: &Segment| segment.sealer.key().is_none_or(|key| key == newest);
        let (segment, total_bytes, left_bytes) = {
            let view = shared.log.read();
            let sealed = || view.sealed.values();
            let left: u64 = sealed().filter(|s| !is_done(s)).map(|s| s.bytes).sum();
            (sealed().find(|s| !is_done(s)).cloned(), sealed().map(|s| s.bytes).sum(), left)
        };
        let Some(segment) = segment else { return Ok(None) };
        let sealer = Sealer::fresh(shared.log.node, segment.number, &at_rest);
        self.replace(&segment, sealer, &mut |_, kind, payload| (kind, payload))?;
        Ok(Some(Progress { done_bytes: total_bytes - left_bytes + segment.bytes, total_bytes }))
    }

    /// Writes a sealed segment anew and puts it in its place; see [`rewrite`]. False when it was trimmed or replaced
    /// by another one meanwhile.
    pub(crate) fn replace(
        &self,
        segment: &Segment,
        sealer: Sealer,
        map: &mut dyn FnMut(u64, u8, Vec<u8>) -> (u8, Vec<u8>),
    ) -> Result<bool, AppendError> {
        let place = &self.shared().place;
        let _alone = lock(&place.rewriting);
        let written = rewrite(&*place.disk, &place.dir, segment, sealer, map).map_err(disk_failed)?;
        let placed = self.ask(|completer| Request::Replace(written, completer)).wait()?;
        let current = self.log().read().sealed.get(&segment.number).filter(|_| placed).cloned();
        if let Some(current) = current {
            match grow(&current) {
                Ok(read_back) => self.log().index_put(&current, &read_back.tables),
                // Found out again at the next lookup, which reads it.
                Err(e) => tracing::warn!(error = %e, segment = segment.number, "a segment is not in the index yet"),
            }
        }
        Ok(placed)
    }
}

/// Copies a segment, sealed with `sealer`, to a file beside it. `map` gets offset, kind and payload of each whole
/// frame, those of the footer too, and returns what stands there from now on: a payload of the same length.
///
/// # Errors
/// When the disk fails or is full, or a payload has another length; the segment is untouched then.
pub(crate) fn rewrite(
    disk: &dyn Disk,
    dir: &Path,
    segment: &Segment,
    sealer: Sealer,
    map: &mut dyn FnMut(u64, u8, Vec<u8>) -> (u8, Vec<u8>),
) -> io::Result<Rewritten> {
    let path = segments_dir(dir).join(segment_name(segment.number)).with_extension(EXTENSION);
    unlink_if_there(disk, &path)?;
    let file: Arc<dyn DiskFile> = disk.open(&path, OpenMode::Create)?.into();
    let written =
        copy(segment, &sealer, &*file, map).and_then(|()| unless(Mutation::SkipRewriteSync, || file.sync_data()));
    if let Err(e) = written {
        // Left over, it would be removed at the next open.
        disk.unlink(&path).ok();
        return Err(e);
    }
    Ok(Rewritten { number: segment.number, file, sealer, old: Arc::clone(&segment.file) })
}

fn copy(
    segment: &Segment,
    sealer: &Sealer,
    to: &dyn DiskFile,
    map: &mut dyn FnMut(u64, u8, Vec<u8>) -> (u8, Vec<u8>),
) -> io::Result<()> {
    let lock = sealer.lock().unwrap_or(Lock::PLAIN);
    let header = header_of(segment, lock)?;
    let mut out = header.encode();
    let mut base = 0;
    let bytes = segment.file.len()?;
    let trailer = read_exactly(&*segment.file, bytes.saturating_sub(TRAILER_BYTES as u64), TRAILER_BYTES);
    let footer = trailer.ok().and_then(|trailer| decode_trailer(&trailer)).map(|(offset, _)| offset);
    let end = if footer.is_some() { bytes - TRAILER_BYTES as u64 } else { bytes };
    let window = Window { end, ..segment.window() };
    let mut scanner = Scanner::new(window);
    while let Some(found) = scanner.next()? {
        let at = base + out.len() as u64;
        match found {
            Found::Frame { offset, kind, payload } => {
                assert_eq!(at, offset, "every frame keeps its place");
                let len = payload.len();
                let (kind, payload) = match FrameKind::is_clear(kind) {
                    true => (kind, header.encode_copy()),
                    false => map(offset, kind, payload),
                };
                if payload.len() != len {
                    return Err(io::Error::other("a frame was to be replaced by one of another length"));
                }
                sealer.push_kind(&mut out, base, kind, &[&payload]);
            }
            Found::Damaged { offset, bytes, unreadable: _ } => {
                assert_eq!(at, offset, "every frame keeps its place");
                out.extend(read_exactly(&*segment.file, offset, bytes as usize)?);
            }
        }
        if out.len() >= WRITE_BYTES {
            to.append(&out)?;
            base += out.len() as u64;
            out.clear();
        }
    }
    if let Some(offset) = footer {
        out.extend_from_slice(&encode_trailer(offset, &lock));
    }
    to.append(&out)
}

/// The segment's header with another lock; where both copies are lost, what the summary knows of it.
fn header_of(segment: &Segment, lock: Lock) -> io::Result<SegmentHeader> {
    let header = SegmentHeader::decode(&read_exactly(&*segment.file, 0, SEGMENT_HEADER_BYTES)?).0;
    let (node, number) = segment.sealer.place();
    let made_good = SegmentHeader {
        version: FORMAT_VERSION,
        segment: number,
        node,
        first_pos: segment.summary.first_pos,
        chain: segment.summary.chain_start,
        created: model::UnixMillis(0),
        lock,
    };
    Ok(header.map_or(made_good, |header| SegmentHeader { lock, ..header }))
}

/// Other bytes stand in for those that the disk refuses: what stood there can be opened by nobody once the rest is sealed anew.
fn read_exactly(file: &dyn DiskFile, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    let got = read_past(file, &mut bytes, offset, &mut Refused::default())?;
    if got < len { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(bytes) }
}

/// Puts the copy in the segment's place, durably. The caller shows it to readers also when this fails: the name may be
/// either file's then, and both are whole.
pub(crate) fn put_in_place(disk: &dyn Disk, dir: &Path, number: u32) -> io::Result<()> {
    let segments = segments_dir(dir);
    let path = segments.join(segment_name(number));
    disk.rename(&path.with_extension(EXTENSION), &path)?;
    unless(Mutation::SkipRewriteDirSync, || disk.sync_dir(&segments))
}

/// Removes a copy that is not wanted any more.
pub(crate) fn discard(disk: &dyn Disk, dir: &Path, number: u32) -> io::Result<()> {
    unlink_if_there(disk, &segments_dir(dir).join(segment_name(number)).with_extension(EXTENSION))
}

/// Removes copies that a power cut left behind.
pub(crate) fn discard_leftovers(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    let segments = segments_dir(dir);
    let leftovers: Vec<_> = disk.list(&segments)?.into_iter().filter(|name| name.ends_with(EXTENSION)).collect();
    for name in &leftovers {
        disk.unlink(&segments.join(name))?;
    }
    if leftovers.is_empty() { Ok(()) } else { disk.sync_dir(&segments) }
}

fn unlink_if_there(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    match disk.unlink(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Which data keys the files of a journal need. Reads their headers and needs no key.
///
/// # Errors
/// When the directory or a file cannot be read.
pub fn keys_in_use(dir: &Path, disk: &dyn Disk) -> io::Result<Vec<(KeyNumber, u32)>> {
    let segments = segments_dir(dir);
    let names = match disk.list(&segments) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        listed => listed?,
    };
    let mut keys = std::collections::BTreeMap::new();
    // Files that were set aside count too: what can still be got out of them needs their key.
    for name in names.iter().filter(|name| name.split_once('.').is_some_and(|(n, _)| is_segment(n))) {
        let file = match disk.open(&segments.join(name), OpenMode::Read) {
            // Trimmed since it was listed.
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            opened => opened?,
        };
        let mut head = [0; SEGMENT_HEADER_BYTES];
        let got = read_past(&*file, &mut head, 0, &mut Refused::default())?;
        let from_header = SegmentHeader::decode(&head[..got]).0.map(|header| header.lock);
        let from_trailer = || -> io::Result<Option<Lock>> {
            let Some(at) = file.len()?.checked_sub(TRAILER_BYTES as u64) else { return Ok(None) };
            Ok(decode_trailer(&read_exactly(&*file, at, TRAILER_BYTES)?).map(|(_, lock)| lock))
        };
        let lock = if from_header.is_some() { from_header } else { from_trailer()? };
        if let Some(lock) = lock.filter(|lock| lock.algorithm != Lock::NONE) {
            *keys.entry(lock.key).or_insert(0) += 1;
        }
    }
    Ok(keys.into_iter().collect())
}

/// Is it the number of a segment, as file names have it?
pub(crate) fn is_segment(stem: &str) -> bool {
    segment_number(&format!("{stem}.seg")).is_some()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use keys::DataKey;
    use model::{EntryId, Epoch, LocalPos, NodeId, Seq};

    use super::*;
    use crate::format::FrameKind;
    use crate::tests::{draft, options};
    use crate::{AtRest, Reader, StdDisk, Which};

    #[test]
    fn after_a_rotation_with_rewriting_the_new_key_alone_opens_everything() {
        let dir = tempfile::tempdir().unwrap();
        let journal = open(dir.path(), &[1]);
        append(&journal, 0..120);
        journal.put_chunk(model::ChunkName([3; 17]), &[7; 3_000]).wait().unwrap();
        let before = everything(&journal);
        let segments = journal.stats().segments;
        journal.use_keys(keys(&[1, 2])).wait().unwrap();
        assert_eq!(journal.stats().segments, segments + 1, "a new segment begins at once");
        assert_eq!(used(dir.path()), [(KeyNumber(1), segments), (KeyNumber(2), 1)]);
        let mut last = 0;
        while let Some(progress) = journal.reseal_next().unwrap() {
            assert!(progress.done_bytes > last && progress.done_bytes <= progress.total_bytes);
            last = progress.done_bytes;
            assert_eq!(everything(&journal), before, "readable all the while");
        }
        assert_eq!(used(dir.path()), [(KeyNumber(2), segments + 1)]);
        append(&journal, 120..130);
        assert!(journal.verify(&mut |_| {}).unwrap().is_clean());
        drop(journal);
        let journal = open(dir.path(), &[2]);
        assert_eq!(everything(&journal)[..before.len()], before);
        assert_eq!(journal.get_chunk(&model::ChunkName([3; 17])).unwrap().unwrap().len(), 3_000);
        assert!(journal.verify(&mut |_| {}).unwrap().is_clean());
        assert!(Reader::open(dir.path(), Arc::new(StdDisk), &keys(&[1])).is_err());
    }

    #[test]
    fn a_frame_can_be_given_other_content_of_the_same_length_and_the_old_is_gone_from_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let journal = open(dir.path(), &[1]);
        append(&journal, 0..60);
        let (segment, offset) = first(&journal);
        let sealer = || Sealer::fresh(journal.node(), segment.number, &AtRest::sealed(keys(&[1])));
        let refused = journal.replace(&segment, sealer(), &mut |_, kind, mut payload| {
            payload.pop();
            (kind, payload)
        });
        assert!(matches!(refused, Err(AppendError::Disk(_))), "{refused:?}");
        let mut blanked = 0;
        let replaced = journal.replace(&segment, sealer(), &mut |at, kind, mut payload| {
            if at == offset {
                assert_eq!(kind, FrameKind::Entry as u8);
                blanked = payload.len();
                payload.fill(0);
                return (99, payload);
            }
            (kind, payload)
        });
        assert_eq!(replaced, Ok(true));
        assert!(blanked > 0);
        let positions: Vec<u64> = everything(&journal).iter().map(|(pos, ..)| *pos).collect();
        assert_eq!(positions, (2..=60).collect::<Vec<_>>());
        assert_eq!(
            journal.replace(&segment, sealer(), &mut |_, kind, payload| (kind, payload)),
            Ok(false),
            "out of date"
        );
        let leftovers = fs::read_dir(dir.path().join("segments"))
            .unwrap()
            .filter(|item| item.as_ref().unwrap().path().extension().is_some_and(|e| e == EXTENSION));
        assert_eq!(leftovers.count(), 0);
    }

    #[test]
    fn a_damaged_place_stays_where_it_is_and_costs_what_it_cost() {
        let dir = tempfile::tempdir().unwrap();
        let journal = open(dir.path(), &[1]);
        append(&journal, 0..60);
        let (segment, offset) = first(&journal);
        let path = dir.path().join("segments").join(segment_name(segment.number));
        let mut bytes = fs::read(&path).unwrap();
        let at = offset as usize + 30;
        bytes[at] ^= 1;
        fs::write(&path, &bytes).unwrap();
        let before = everything(&journal);
        assert_eq!(before.len(), 59);
        journal.use_keys(keys(&[1, 2])).wait().unwrap();
        while journal.reseal_next().unwrap().is_some() {}
        assert_eq!(everything(&journal), before);
        assert_eq!(fs::read(&path).unwrap()[at], bytes[at]);
        drop(journal);
        assert_eq!(everything(&open(dir.path(), &[2])), before);
    }

    #[test]
    fn what_a_cut_left_of_a_copy_is_removed_at_open() {
        let dir = tempfile::tempdir().unwrap();
        append(&open(dir.path(), &[1]), 0..60);
        let leftover = dir.path().join("segments/00000001.rewritten");
        fs::write(&leftover, "half").unwrap();
        let journal = open(dir.path(), &[1]);
        assert!(!leftover.exists());
        assert_eq!(everything(&journal).len(), 60);
    }

    #[test]
    fn trimming_while_a_segment_is_written_anew_wins() {
        let dir = tempfile::tempdir().unwrap();
        let journal = open(dir.path(), &[1]);
        append(&journal, 0..60);
        let (segment, _) = first(&journal);
        let bravo = journal.consumer("bravo", true).unwrap();
        let sealer = Sealer::fresh(journal.node(), segment.number, &AtRest::sealed(keys(&[1])));
        let place = &journal.shared().place;
        let written = rewrite(&*place.disk, &place.dir, &segment, sealer, &mut |_, kind, payload| (kind, payload));
        bravo.record_outcome(model::Outcome::Applied, Epoch(1), &model::RangeSet::from(1..=60));
        assert!(journal.trim().unwrap().segments > 0);
        let placed = journal.ask(|completer| Request::Replace(written.unwrap(), completer)).wait();
        assert_eq!(placed, Ok(false));
        assert!(!dir.path().join("segments").join(segment_name(segment.number)).exists());
    }

    fn keys(numbers: &[u32]) -> DataKeys {
        DataKeys::new(numbers.iter().map(|n| (KeyNumber(*n), DataKey::from_bytes([*n as u8; 32]))))
    }

    fn open(dir: &Path, numbers: &[u32]) -> Journal {
        Journal::open(crate::JournalOptions { at_rest: AtRest::sealed(keys(numbers)), ..options(dir) }).unwrap().0
    }

    fn append(journal: &Journal, numbers: std::ops::Range<u64>) {
        numbers.for_each(|n| assert!(journal.append_own(draft(n)).wait().is_ok()));
    }

    /// Position, hash, segment and offset of each entry.
    fn everything(journal: &Journal) -> Vec<(u64, model::EntryHash, u32, u64)> {
        let listed = journal.list(LocalPos::START..LocalPos(u64::MAX), usize::MAX).unwrap();
        listed.iter().map(|l| (l.pos.0, l.hash, l.segment, l.offset)).collect()
    }

    fn used(dir: &Path) -> Vec<(KeyNumber, u32)> {
        keys_in_use(dir, &StdDisk).unwrap()
    }

    /// The first entry: its segment and offset.
    fn first(journal: &Journal) -> (Arc<Segment>, u64) {
        let id = EntryId { origin: NodeId(journal.node().0), epoch: Epoch(1), seq: Seq::FIRST };
        let listed = journal.show(Which::Id(id)).unwrap().unwrap();
        let segment = journal.log().read().sealed.get(&listed.segment).cloned();
        (segment.expect("the first segment is sealed"), listed.offset)
    }
}
