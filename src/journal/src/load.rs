//! Reads a journal's directory into a [`View`].
//!
//! Footers tell of sealed segments, so that only the tail is read. What the log says in all comes from the newest
//! segment whose opening snapshot is whole, and what follows it.
//!
//! A torn tail and a damaged middle are different things. Bytes behind the last whole frame of the last segment were
//! never acknowledged, or are one damaged frame: they are cut off, and a new epoch begins because a number may be
//! lost with them. Nothing but zeros there is no tail at all: they were written ahead of the frames that are to come
//! ([`crate::committer`]), and no frame begins with one. Any other bad bytes are skipped, reported and kept.
//!
//! What the disk refuses to read is damage too, and it may be read another day: nothing is cut off for it. A last segment with
//! such a place is written to no more, the log goes on in a new one.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use keys::DataKeys;
use model::{Disk, DiskFile, Hlc, NodeId, OpenMode, UnixMillis};

use crate::error::OpenError;
use crate::format::{
    FORMAT_VERSION, FRAME_HEADER_BYTES, FrameKind, Lock, Record, SEGMENT_HEADER_BYTES, SegmentHeader, TRAILER_BYTES,
    decode_trailer, encode_trailer, segment_name, segment_number,
};
use crate::mutations::{Mutation, is, unless};
use crate::pages::{RowsAt, encode_rows};
use crate::scan::{Found, Refused, Scanner, Window, frame_at, is_of_place, read_past, what_of};
use crate::sealer::Sealer;
use crate::state::{State, reason_of};
use crate::summary::{Growing, Summary};
use crate::types::{Damage, EpochReason};
use crate::view::{Segment, Tail, View};

pub(crate) fn segments_dir(dir: &Path) -> PathBuf {
    dir.join("segments")
}

/// Who loads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// The node itself: mends the tail.
    Owner,
    /// A reader beside it: changes nothing.
    Guest,
}

pub(crate) struct Loaded {
    pub(crate) node: NodeId,
    /// Without a tail when there is no usable last segment.
    pub(crate) sealed: BTreeMap<u32, Arc<Segment>>,
    pub(crate) tail: Option<Tail>,
    pub(crate) state: State,
    pub(crate) damage: Vec<Damage>,
    pub(crate) discarded_bytes: u64,
    /// A number may have been given out that the log does not show any more.
    pub(crate) needs_epoch: Option<EpochReason>,
    /// No segment bears a higher number.
    pub(crate) highest_segment: u32,
    /// Segments that got a new footer.
    pub(crate) footers_written: u32,
}

impl Loaded {
    pub(crate) fn into_view(self, tail: Tail) -> View {
        let mut view = View { sealed: self.sealed, tail, state: self.state, stopped: None };
        view.take_restored();
        view.recount();
        view
    }
}

pub(crate) fn disk_error(what: impl Into<String>) -> impl FnOnce(io::Error) -> OpenError {
    let what = what.into();
    move |source| OpenError::Disk { what, source }
}

/// One file as found.
struct Candidate {
    number: u32,
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    len: u64,
    header: Option<SegmentHeader>,
    /// Offset and length of what is damaged of the header's copies.
    header_damage: Option<(u64, u64)>,
    sealer: Sealer,
}

impl Candidate {
    fn window(&self) -> Window {
        Window {
            segment: self.number,
            file: Arc::clone(&self.file),
            sealer: self.sealer.clone(),
            start: SEGMENT_HEADER_BYTES as u64,
            end: self.len,
        }
    }

    /// Where the zeros begin with which the file ends; its length when it ends with another byte. A last frame may end with
    /// some of them.
    fn zeros_from(&self) -> Result<u64, OpenError> {
        let mut buf = vec![0; 64 << 10];
        let mut end = self.len;
        while end > 0 {
            let start = end.saturating_sub(buf.len() as u64);
            let piece = &mut buf[..(end - start) as usize];
            let got = read_past(&*self.file, piece, start, &mut Refused::default()).map_err(reading(self))?;
            if let Some(last) = piece[..got].iter().rposition(|byte| *byte != 0) {
                return Ok(start + last as u64 + 1);
            }
            end = start;
        }
        Ok(0)
    }
}

/// `node` is `None` for a reader that takes whose journal it is from the journal.
pub(crate) fn load(
    disk: &dyn Disk,
    dir: &Path,
    node: Option<NodeId>,
    keys: &DataKeys,
    access: Access,
) -> Result<Loaded, OpenError> {
    let segments = segments_dir(dir);
    let names = disk.list(&segments).map_err(disk_error(format!("listing {}", segments.display())))?;
    let mut opened = Vec::new();
    for number in names.iter().filter_map(|name| segment_number(name)) {
        let path = segments.join(segment_name(number));
        let mode = if access == Access::Owner { OpenMode::Append } else { OpenMode::Read };
        let file: Arc<dyn DiskFile> = match disk.open(&path, mode) {
            Ok(file) => file.into(),
            // Trimmed by the owner since it was listed.
            Err(e) if e.kind() == io::ErrorKind::NotFound && access == Access::Guest => continue,
            Err(e) => return Err(disk_error(format!("opening {}", path.display()))(e)),
        };
        let reading = || disk_error(format!("reading {}", path.display()));
        let len = file.len().map_err(reading())?;
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        let got = read_past(&*file, &mut bytes, 0, &mut Refused::default()).map_err(reading())?;
        let (header, header_damage) = SegmentHeader::decode(&bytes[..got]);
        let stray = header.as_ref().is_some_and(|header| header.segment != number);
        let header = header.filter(|_| !stray);
        let whole = SEGMENT_HEADER_BYTES as u64;
        let header_damage = if header.is_none() { Some((0, whole)) } else { header_damage };
        let stamps = SegmentHeader::node_stamps(&bytes[..got]);
        opened.push(Opened { number, path, file, len, header, header_damage, stray, stamps });
    }
    answers(&opened)?;
    let whole = opened.iter().find_map(|opened| opened.header.as_ref().map(|h| h.node));
    // A damaged header may still name the node: the frames prove it.
    let stamped = || opened.iter().find_map(Opened::proven);
    let Some(node) = node.or(whole).or_else(stamped) else {
        let source = io::Error::new(io::ErrorKind::NotFound, "no segment file with a whole header");
        return Err(disk_error(format!("reading the journal in {}", dir.display()))(source));
    };
    let mut candidates = Vec::new();
    for Opened { number, path, file, len, header, header_damage, stray, stamps: _ } in opened {
        if let Some(header) = &header {
            if header.node != node {
                return Err(OpenError::OtherNode { dir: dir.to_owned(), found: header.node, expected: node });
            }
            if header.version > FORMAT_VERSION {
                let (found, known) = (header.version, FORMAT_VERSION);
                return Err(OpenError::NewerFormat { segment: number, found, known });
            }
        }
        let header = match header {
            None if !stray => header_again(node, number, &file, len),
            header => header,
        };
        let lock = match &header {
            Some(header) => Some(header.lock),
            // Its trailer fits it no better.
            None if stray => None,
            None => read_trailer(&*file, len).map_err(disk_error(format!("reading {}", path.display())))?.map(|t| t.1),
        };
        let sealer = Sealer::of(node, number, lock, keys)?;
        candidates.push(Candidate { number, path, file, len, header, header_damage, sealer });
    }
    Loading {
        disk,
        dir,
        access,
        loaded: Loaded {
            node,
            sealed: BTreeMap::new(),
            tail: None,
            state: State { next_pos: 1, ..State::default() },
            damage: Vec::new(),
            discarded_bytes: 0,
            needs_epoch: None,
            highest_segment: candidates.last().map_or(0, |c| c.number),
            footers_written: 0,
        },
        source_before_hole: None,
        set_aside: false,
        refused: false,
    }
    .run(candidates)
}

/// The header of a segment that has lost both copies at its beginning.
fn header_again(node: NodeId, segment: u32, file: &Arc<dyn DiskFile>, end: u64) -> Option<SegmentHeader> {
    let (file, sealer) = (Arc::clone(file), Sealer::for_checksums(node, segment));
    let mut scanner = Scanner::stored(Window { segment, file, sealer, start: SEGMENT_HEADER_BYTES as u64, end });
    while let Ok(Some(found)) = scanner.next() {
        match found {
            Found::Frame { kind, payload, .. } if kind == FrameKind::Header as u8 => {
                let header = SegmentHeader::decode_copy(&payload);
                return header.filter(|header| header.segment == segment && header.node == node);
            }
            Found::Frame { .. } | Found::Damaged { .. } => {}
        }
    }
    None
}

/// A disk that reads nothing of any file is gone, or is another day's: nothing is given up for that.
fn answers(opened: &[Opened]) -> Result<(), OpenError> {
    let mut refused = None;
    for Opened { path, file, len, .. } in opened {
        for at in [0, len / 2, len.saturating_sub(1)] {
            match file.read_at(&mut [0], at) {
                Ok(_) => return Ok(()),
                Err(e) => refused = Some((path, e)),
            }
        }
    }
    refused.map_or(Ok(()), |(path, e)| Err(disk_error(format!("reading {}", path.display()))(e)))
}

/// A file, before it is known whose journal it is.
struct Opened {
    number: u32,
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    len: u64,
    header: Option<SegmentHeader>,
    header_damage: Option<(u64, u64)>,
    /// It is another segment's file.
    stray: bool,
    stamps: [Option<NodeId>; 2],
}

impl Opened {
    /// The node, if frames of the file have checksums made with it.
    fn proven(&self) -> Option<NodeId> {
        self.stamps.into_iter().flatten().find(|node| {
            let sealer = Sealer::for_checksums(*node, self.number);
            let (segment, file) = (self.number, Arc::clone(&self.file));
            let start = SEGMENT_HEADER_BYTES as u64;
            let mut scanner = Scanner::stored(Window { segment, file, sealer, start, end: self.len });
            loop {
                match scanner.next() {
                    Ok(Some(Found::Frame { .. })) => return true,
                    Ok(Some(Found::Damaged { .. })) => {}
                    Ok(None) | Err(_) => return false,
                }
            }
        })
    }
}

struct Loading<'a> {
    disk: &'a dyn Disk,
    dir: &'a Path,
    access: Access,
    loaded: Loaded,
    /// Behind a hole in the last writes: the source's position before it.
    source_before_hole: Option<Option<Hlc>>,
    /// A last file went that may have held more than it shows.
    set_aside: bool,
    /// The disk refused a place of the segment that was read last.
    refused: bool,
}

impl Loading<'_> {
    fn run(mut self, mut candidates: Vec<Candidate>) -> Result<Loaded, OpenError> {
        self.set_aside_unborn(&mut candidates)?;
        let base = self.newest_snapshot(&candidates)?;
        let last = candidates.len().saturating_sub(1);
        let mut chain = [0; 32];
        let pages = Arc::default();
        for (i, candidate) in candidates.iter().enumerate() {
            let footer = read_footer(candidate).map_err(reading(candidate))?;
            if let Some((offset, bytes)) = candidate.header_damage {
                self.damage(candidate.number, offset, bytes, "segment header");
            }
            chain = candidate.header.as_ref().map_or(chain, |header| header.chain);
            let next_first = candidates.get(i + 1).and_then(|next| next.header.as_ref()).map(|h| h.first_pos);
            let replay = i >= base;
            let mut len = candidate.len;
            let (summary, end, rows) = match footer {
                Some(summary) => {
                    let end = summary.end;
                    if replay {
                        self.replay(candidate, end, None)?;
                    }
                    (summary, end, RowsAt::footer(&pages))
                }
                None => {
                    let first_pos = candidate.header.as_ref().map_or(self.loaded.state.next_pos, |h| h.first_pos);
                    let mut growing = Growing::starting(first_pos, chain);
                    let ends = if i == last { Ends::Tail } else { Ends::Before(next_first) };
                    let damaged = self.loaded.damage.len();
                    self.refused = false;
                    let end = self.read_unsealed(candidate, replay, &mut growing, ends)?;
                    if i == last {
                        self.forget_behind_hole();
                        if !self.refused {
                            self.finish_tail(candidate, end, growing)?;
                            break;
                        }
                    }
                    let whole = damaged == self.loaded.damage.len() && next_first == Some(growing.summary.next_pos);
                    match whole.then(|| self.seal(candidate, end, &growing)).flatten() {
                        Some((summary, bytes)) => {
                            self.loaded.footers_written += 1;
                            len = bytes;
                            (summary, end, RowsAt::footer(&pages))
                        }
                        None => (growing.summary, end, RowsAt::Memory(Arc::new(growing.rows))),
                    }
                }
            };
            // A segment that another one follows was synced: what is missing there was damaged later.
            self.source_before_hole = None;
            chain = summary.chain_end;
            for page in &summary.pages {
                self.loaded.state.note_own(page.epoch, page.last());
            }
            self.loaded.state.next_pos = self.loaded.state.next_pos.max(summary.next_pos);
            let Candidate { number, file, sealer, .. } = candidate;
            let (number, file, sealer, bytes) = (*number, Arc::clone(file), sealer.clone(), len);
            let segment = Segment { number, file, sealer, end, bytes, summary, rows };
            self.loaded.sealed.insert(number, Arc::new(segment));
        }
        if (self.set_aside || self.loaded.discarded_bytes > 0) && !is(Mutation::SkipTornTailEpoch) {
            self.loaded.needs_epoch = Some(EpochReason::TornTail);
        }
        let state = &mut self.loaded.state;
        // A consumer may have passed positions that are lost: they must not come again.
        let cursors = state.consumers.values().filter_map(|account| account.state.cursor).map(|pos| pos.0);
        state.next_pos = cursors.fold(state.next_pos, u64::max);
        if self.loaded.needs_epoch.is_some() && !is(Mutation::SkipPositionsSkip) {
            state.next_pos += POSITIONS_SKIPPED;
        }
        Ok(self.loaded)
    }

    /// A last file that is damaged and holds nothing but its opening snapshot never took part: its creation was cut short.
    /// (Or nothing else is left of it; then a new epoch begins as after any loss, and the file is kept.)
    fn set_aside_unborn(&mut self, candidates: &mut Vec<Candidate>) -> Result<(), OpenError> {
        const OPENING: [FrameKind; 6] = [
            FrameKind::Received,
            FrameKind::Consumer,
            FrameKind::Hold,
            FrameKind::Purge,
            FrameKind::Lanes,
            FrameKind::Snapshot,
        ];
        while let Some(candidate) = candidates.last() {
            // Without its lock nothing of it can be read, nor written to it.
            let lock_lost = candidate.sealer.lock().is_none();
            let mut scanner = Scanner::stored(candidate.window());
            let mut damaged = candidate.header_damage.is_some();
            let mut frames = 0;
            let mut took_part = false;
            let mut opened = false;
            while let Some(found) = scanner.next().map_err(reading(candidate))? {
                match found {
                    Found::Frame { kind, .. } => {
                        frames += 1;
                        // Consumers follow the opening too, when receipts are all that has come since.
                        took_part = opened || !OPENING.iter().any(|opening| *opening as u8 == kind);
                        opened |= kind == FrameKind::Snapshot as u8 && !is(Mutation::SkipOpeningEnd);
                    }
                    Found::Damaged { offset, bytes: _, unreadable } => {
                        damaged |= offset < candidate.zeros_from()?;
                        // Nobody can say what stands there.
                        took_part |= unreadable;
                    }
                }
                if took_part {
                    break;
                }
            }
            if !lock_lost && (took_part || (frames > 0 && !damaged)) {
                return Ok(());
            }
            if self.access == Access::Owner {
                let dir = candidate.path.parent().unwrap_or(Path::new("."));
                self.loaded.discarded_bytes += candidate.len;
                self.set_aside = true;
                let result = if candidate.len <= SEGMENT_HEADER_BYTES as u64 {
                    self.disk.unlink(&candidate.path)
                } else {
                    self.disk.rename(&candidate.path, &candidate.path.with_extension("seg.damaged"))
                };
                result.and_then(|()| self.disk.sync_dir(dir)).map_err(disk_error("setting a torn segment aside"))?;
            }
            candidates.pop();
        }
        Ok(())
    }

    /// Index of the newest candidate that begins with a whole group of snapshot frames; else the first.
    fn newest_snapshot(&self, candidates: &[Candidate]) -> Result<usize, OpenError> {
        for (i, candidate) in candidates.iter().enumerate().rev() {
            let mut scanner = Scanner::new(candidate.window());
            let mut frames = 0;
            while let Some(Found::Frame { kind, payload, .. }) = scanner.next().map_err(reading(candidate))? {
                match Record::decode(kind, &payload) {
                    Some(
                        Record::Received(_)
                        | Record::Consumer(_)
                        | Record::Hold(_)
                        | Record::Purge(_)
                        | Record::Lanes(_),
                    ) => frames += 1,
                    Some(Record::Snapshot(snapshot)) if snapshot.group == frames => return Ok(i),
                    _ => break,
                }
            }
        }
        Ok(0)
    }

    /// Takes what a segment says into the state, and into `growing`. Returns where its last whole frame ends.
    fn replay(
        &mut self,
        candidate: &Candidate,
        end: u64,
        mut growing: Option<&mut Growing>,
    ) -> Result<(u64, Option<Damage>), OpenError> {
        let mut scanner = Scanner::new(Window { end, ..candidate.window() });
        let mut good_end = SEGMENT_HEADER_BYTES as u64;
        let mut pending: Option<Damage> = None;
        while let Some(found) = scanner.next().map_err(reading(candidate))? {
            match found {
                Found::Frame { offset, kind, payload } => {
                    if let Some(damage) = pending.take() {
                        self.found_damage(damage);
                    }
                    good_end = scanner.at();
                    let Some(record) = Record::decode(kind, &payload) else { continue };
                    if let Record::EpochOpened(opened) = &record {
                        // Numbers that damage hides are of epochs before this one.
                        self.loaded.needs_epoch = None;
                        if reason_of(opened.reason).is_of_open() {
                            // The first write after an open, which found the hole.
                            self.forget_behind_hole();
                        }
                    }
                    let state = &mut self.loaded.state;
                    if let Some(growing) = &mut growing {
                        growing.note(&record, offset, |epoch| state.own_last(epoch));
                    }
                    state.apply(&record);
                }
                Found::Damaged { offset, bytes, unreadable } => {
                    self.refused |= unreadable;
                    let what = what_of(unreadable);
                    self.source_before_hole.get_or_insert(self.loaded.state.highest_source);
                    pending = Some(Damage { segment: candidate.number, offset, bytes, what });
                }
            }
        }
        Ok((good_end, pending))
    }

    /// A write that was never acknowledged may have reached the disk in part, an entry of it behind one that is missing.
    /// The source must not take such a one for the end of what is captured: it would forget the missing row.
    fn forget_behind_hole(&mut self) {
        if let Some(source) = self.source_before_hole.take().filter(|_| !is(Mutation::SkipHoleCheck)) {
            self.loaded.state.highest_source = source;
        }
    }

    fn read_unsealed(
        &mut self,
        candidate: &Candidate,
        replay: bool,
        growing: &mut Growing,
        ends: Ends,
    ) -> Result<u64, OpenError> {
        let (end, trailing) = if replay {
            self.replay(candidate, candidate.len, Some(growing))?
        } else {
            // An old segment whose footer is missing: the state comes from later ones.
            let newer = std::mem::take(&mut self.loaded.state);
            let epoch = self.loaded.needs_epoch;
            let result = self.replay(candidate, candidate.len, Some(growing));
            self.loaded.state = newer;
            self.loaded.needs_epoch = epoch;
            result?
        };
        if let Some(damage) = trailing {
            match ends {
                Ends::Tail if self.refused => self.found_damage(damage),
                Ends::Tail => {
                    self.loaded.discarded_bytes += candidate.zeros_from()?.saturating_sub(damage.offset);
                }
                // Sealing was cut short: the footer is missing and nothing else.
                Ends::Before(Some(first_pos)) if first_pos == growing.summary.next_pos => {}
                // A number that it hides was known to the segment whose snapshot counts.
                Ends::Before(_) if !replay => self.loaded.damage.push(damage),
                Ends::Before(_) => self.found_damage(damage),
            }
        }
        Ok(end)
    }

    /// Writes the footer that a cut-short sealing left out, so that the segment is read no more at each open. What was
    /// written of it before stays where it is, but for zeros. Returns the summary and the length of the file.
    fn seal(&self, candidate: &Candidate, end: u64, growing: &Growing) -> Option<(Summary, u64)> {
        if self.access != Access::Owner {
            return None;
        }
        let at = candidate.zeros_from().ok()?.max(end);
        let (footer, summary) = footer_of(growing, &candidate.sealer, end, at);
        match write_last(&*candidate.file, at, candidate.len, &footer).and_then(|()| candidate.file.sync_data()) {
            Ok(()) => Some((summary, at + footer.len() as u64)),
            Err(e) => {
                tracing::warn!(error = %e, segment = candidate.number, "a segment still has no footer");
                None
            }
        }
    }

    fn finish_tail(&mut self, candidate: &Candidate, end: u64, growing: Growing) -> Result<(), OpenError> {
        let is_torn = candidate.zeros_from()? > end && !is(Mutation::SkipZerosLook);
        let reach = if is_torn { end } else { candidate.len };
        if self.access == Access::Owner {
            let mending = || disk_error(format!("mending the end of {}", candidate.path.display()));
            if is_torn {
                unless(Mutation::SkipTailCut, || candidate.file.truncate(end)).map_err(mending())?;
            }
            // What a killed process wrote may not be on the disk yet, and will be told to peers as durable.
            if let Err(e) = unless(Mutation::SkipTailSync, || candidate.file.sync_data()) {
                // The next open must not take a sync that succeeds for an answer.
                if let Err(e) = note_suspect(self.disk, self.dir, candidate.number) {
                    tracing::error!(error = %e, "it could not be noted that the newest segment is in doubt");
                }
                return Err(mending()(e));
            }
        }
        let Candidate { number, file, sealer, header, .. } = candidate;
        let (file, sealer, header) = (Arc::clone(file), sealer.clone(), header.clone());
        self.loaded.tail = Some(Tail { number: *number, file, sealer, end, reach, growing, header });
        Ok(())
    }

    fn found_damage(&mut self, damage: Damage) {
        if !is(Mutation::SkipDamageEpoch) {
            self.loaded.needs_epoch = Some(EpochReason::Damage);
        }
        self.loaded.damage.push(damage);
    }

    fn damage(&mut self, segment: u32, offset: u64, bytes: u64, what: &str) {
        self.loaded.damage.push(Damage { segment, offset, bytes, what: what.to_owned() });
    }
}

/// What follows a segment without a footer.
enum Ends {
    /// Nothing: it is the tail.
    Tail,
    /// A segment that begins with this position, as far as known.
    Before(Option<u64>),
}

/// More positions than the smallest entries that fit into the largest segment: those that damage hides are not given
/// out a second time, since a consumer may have passed them.
const POSITIONS_SKIPPED: u64 = 1 << 24;

fn reading(candidate: &Candidate) -> impl FnOnce(io::Error) -> OpenError {
    disk_error(format!("reading {}", candidate.path.display()))
}

/// Offset of the footer and the lock; `None` when the file does not end with a trailer.
fn read_trailer(file: &dyn DiskFile, len: u64) -> io::Result<Option<(u64, Lock)>> {
    let Some(at) = len.checked_sub(TRAILER_BYTES as u64) else { return Ok(None) };
    let mut trailer = [0; TRAILER_BYTES];
    let got = read_past(file, &mut trailer, at, &mut Refused::default())?;
    Ok(decode_trailer(&trailer[..got]).filter(|(offset, _)| offset + (FRAME_HEADER_BYTES as u64) < at))
}

/// Summary of a sealed segment; `None` when the footer is missing or damaged.
fn read_footer(candidate: &Candidate) -> io::Result<Option<Summary>> {
    let Some((offset, _)) = read_trailer(&*candidate.file, candidate.len)? else { return Ok(None) };
    let window = Window { end: candidate.len - TRAILER_BYTES as u64, ..candidate.window() };
    let frame = match frame_at(&window, offset) {
        Err(e) if is_of_place(&e) => None,
        read => read?,
    };
    let frame = frame.filter(|(kind, _)| *kind == FrameKind::Footer as u8);
    let summary = frame.and_then(|(_, payload)| Summary::decode(&payload));
    Ok(summary.filter(|summary| (SEGMENT_HEADER_BYTES as u64..=offset).contains(&summary.end)))
}

/// The footer of a segment whose frames end at `end`, to be written at `at`, and the summary as it says it.
pub(crate) fn footer_of(growing: &Growing, sealer: &Sealer, end: u64, at: u64) -> (Vec<u8>, Summary) {
    let mut out = Vec::new();
    let mut summary = Summary { end, ..growing.summary.clone() };
    for (page, rows) in summary.pages.iter_mut().zip(&growing.rows) {
        let offset = sealer.push(&mut out, at, FrameKind::Rows, &[&encode_rows(rows)]);
        page.place = u32::try_from(offset).expect("segments are kept below 4 GiB");
    }
    let offset = sealer.push(&mut out, at, FrameKind::Footer, &[&summary.encode()]);
    out.extend_from_slice(&encode_trailer(offset, &sealer.lock().unwrap_or(Lock::PLAIN)));
    (out, summary)
}

/// Writes at `end` of a file of `len` bytes what is to stand last in it.
pub(crate) fn write_last(file: &dyn DiskFile, end: u64, len: u64, bytes: &[u8]) -> io::Result<()> {
    // First, because a full disk may need the room.
    if end < len {
        unless(Mutation::SkipZerosCut, || file.truncate(end))?;
    }
    file.write_at(bytes, end)
}

const SUSPECT: &str = "suspect";

/// Notes that a segment may not be on the disk as it reads: a sync failed, and the system may show pages that it never
/// wrote and never will.
pub(crate) fn note_suspect(disk: &dyn Disk, dir: &Path, segment: u32) -> io::Result<()> {
    if is(Mutation::SkipSuspectNote) {
        return Ok(());
    }
    let file = disk.open(&dir.join(SUSPECT), OpenMode::Create)?;
    file.append(segment_name(segment).as_bytes())?;
    file.sync_data()?;
    disk.sync_dir(dir)
}

/// Writes a segment in doubt to a new file, as it reads, and puts that in its place. Returns whether there was one.
pub(crate) fn mend_suspect(disk: &dyn Disk, dir: &Path) -> io::Result<bool> {
    let note = dir.join(SUSPECT);
    let read = |path: &Path| -> io::Result<Option<Vec<u8>>> {
        let file = match disk.open(path, OpenMode::Read) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let mut bytes = vec![0; file.len()? as usize];
        let got = read_past(&*file, &mut bytes, 0, &mut Refused::default())?;
        bytes.truncate(got);
        Ok(Some(bytes))
    };
    let Some(name) = read(&note)? else { return Ok(false) };
    let segments = segments_dir(dir);
    let name = String::from_utf8(name).ok().filter(|name| segment_number(name).is_some());
    if let Some(path) = name.map(|name| segments.join(name))
        && let Some(bytes) = read(&path)?
    {
        let new = path.with_extension("new");
        match disk.unlink(&new) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let file = disk.open(&new, OpenMode::Create)?;
        file.append(&bytes)?;
        unless(Mutation::SkipMendSync, || file.sync_data())?;
        disk.rename(&new, &path)?;
        unless(Mutation::SkipMendDirSync, || disk.sync_dir(&segments))?;
    }
    disk.unlink(&note)?;
    disk.sync_dir(dir)?;
    Ok(true)
}

/// A segment file was not made.
pub(crate) struct NotCreated {
    pub(crate) source: io::Error,
    /// A power cut may bring it back: it would say that the log ends where it was to begin, so nothing more may be written
    /// before it.
    pub(crate) may_appear: bool,
}

/// Makes the segment file of `sealer`, which begins with a snapshot of `state`.
pub(crate) fn create_segment(
    disk: &dyn Disk,
    dir: &Path,
    sealer: Sealer,
    state: &State,
    chain: [u8; 32],
    created: UnixMillis,
) -> Result<Tail, NotCreated> {
    let (node, number) = sealer.place();
    let (version, first_pos) = (FORMAT_VERSION, state.next_pos);
    let lock = sealer.lock().unwrap_or(Lock::PLAIN);
    let header = SegmentHeader { version, segment: number, node, first_pos, chain, created, lock };
    let mut bytes = header.encode();
    state.push_group(&sealer, &mut bytes, 0);
    let segments = segments_dir(dir);
    let path = segments.join(segment_name(number));
    let opened = disk.open(&path, OpenMode::Create);
    let file: Arc<dyn DiskFile> = opened.map_err(|source| NotCreated { source, may_appear: false })?.into();
    let written = file.append(&bytes).and_then(|()| unless(Mutation::SkipHeaderSync, || file.sync_data()));
    let written = written.and_then(|()| unless(Mutation::SkipSegmentDirSync, || disk.sync_dir(&segments)));
    if let Err(source) = written {
        drop(file);
        // Without a whole frame it would be set aside at the next open; with one it would be an empty tail.
        let undone = unless(Mutation::SkipUndoSegment, || disk.unlink(&path));
        let undone = undone.and_then(|()| unless(Mutation::SkipUndoDirSync, || disk.sync_dir(&segments)));
        return Err(NotCreated { source, may_appear: undone.is_err() });
    }
    let growing = Growing::starting(state.next_pos, chain);
    let end = bytes.len() as u64;
    Ok(Tail { number, file, sealer, end, reach: end, growing, header: Some(header) })
}
