//! Walks over the frames of a part of a segment file, across damaged places.
//!
//! Bytes that the disk refuses to read are a damaged place as flipped ones are: what stands before and behind them is read all
//! the same. That tells nothing of why: whoever gives something up for such a place proves first that the disk still works
//! ([`crate::quarantine`]), since a disk that is gone refuses everything.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use model::DiskFile;
use rustix::io::Errno;

use crate::format::{FRAME_HEADER_BYTES, FrameHead, FrameKind, MARKER_FIRST};
use crate::sealer::Sealer;

/// A part of a segment file that is durable and holds whole frames, as far as it is not damaged.
#[derive(Clone)]
pub(crate) struct Window {
    pub(crate) segment: u32,
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) sealer: Sealer,
    pub(crate) start: u64,
    pub(crate) end: u64,
}

/// What stands next.
pub(crate) enum Found {
    /// A whole frame.
    Frame { offset: u64, kind: u8, payload: Vec<u8> },
    /// Bytes that are no frame, or one that does not open; a good one, or the end, follows.
    Damaged {
        offset: u64,
        bytes: u64,
        /// The disk refused to read some of them.
        unreadable: bool,
    },
}

/// What is said of a damaged place.
pub(crate) fn what_of(unreadable: bool) -> String {
    if unreadable { "bytes that the disk does not read".to_owned() } else { "bytes that are no frame".to_owned() }
}

/// Of what the disk refuses so much is given up at once: a page of memory, a block of most file systems, a sector of most disks.
const PIECE_BYTES: u64 = 4 << 10;

/// Stands where bytes could not be read: no frame begins with it, and it is none of the zeros that are written ahead.
const FILLER: u8 = 0xff;

/// Parts of a file that the disk refused to read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Refused(Vec<Range<u64>>);

impl Refused {
    fn overlaps(&self, other: &Range<u64>) -> bool {
        self.0.iter().any(|range| range.start < other.end && other.start < range.end)
    }

    fn insert(&mut self, new: Range<u64>) {
        match self.0.last_mut().filter(|last| last.end == new.start) {
            Some(last) => last.end = new.end,
            None => self.0.push(new),
        }
    }
}

/// Is it the place that cannot be read, rather than the file or the disk?
pub(crate) fn is_of_place(e: &io::Error) -> bool {
    const OF_PLACE: [Errno; 5] = [Errno::IO, Errno::BADMSG, Errno::ILSEQ, Errno::NODATA, Errno::REMOTEIO];
    Errno::from_io_error(e).is_some_and(|errno| OF_PLACE.contains(&errno))
}

/// As [`DiskFile::read_at`]. What the disk refuses is noted, and other bytes stand in for it.
pub(crate) fn read_past(file: &dyn DiskFile, buf: &mut [u8], offset: u64, refused: &mut Refused) -> io::Result<usize> {
    let all = offset..offset + buf.len() as u64;
    if !refused.overlaps(&all) {
        match file.read_at(buf, offset) {
            Err(e) if is_of_place(&e) => {}
            read => return read,
        }
    }
    let end = file.len()?.min(all.end);
    let mut at = offset;
    while at < end {
        let piece = at..(at / PIECE_BYTES + 1).saturating_mul(PIECE_BYTES).min(end);
        let part = &mut buf[(piece.start - offset) as usize..(piece.end - offset) as usize];
        let known = refused.overlaps(&piece);
        let read = if known { Ok(part.len()) } else { file.read_at(part, at) };
        match read {
            Ok(got) if got < part.len() => return Ok((at - offset) as usize + got),
            Ok(_) if !known => {}
            Err(e) if !is_of_place(&e) => return Err(e),
            Ok(_) | Err(_) => {
                part.fill(FILLER);
                if !known {
                    refused.insert(piece.clone());
                }
            }
        }
        at = piece.end;
    }
    Ok((end.max(offset) - offset) as usize)
}

/// One read serves many small frames.
const READ_BYTES: usize = 256 << 10;

/// What of the frames is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Opening {
    All,
    /// The others are passed over.
    Only(FrameKind),
    /// Nothing: payloads come as they are stored.
    Nothing,
}

/// Walks from frame to frame.
pub(crate) struct Scanner {
    window: Window,
    opening: Opening,
    at: u64,
    buf: Vec<u8>,
    buf_at: u64,
    refused: Refused,
}

impl Scanner {
    /// Meets every frame, opened.
    pub(crate) fn new(window: Window) -> Self {
        Self::opening(window, Opening::All)
    }

    /// Meets the frames of one kind, opened; of the others only the checksum is looked at.
    pub(crate) fn only(window: Window, kind: FrameKind) -> Self {
        Self::opening(window, Opening::Only(kind))
    }

    /// Meets every frame as it is stored, without a key.
    pub(crate) fn stored(window: Window) -> Self {
        Self::opening(window, Opening::Nothing)
    }

    fn opening(window: Window, opening: Opening) -> Self {
        let at = window.start;
        Self { window, opening, at, buf: Vec::new(), buf_at: at, refused: Refused::default() }
    }

    /// Where the next frame is looked for.
    pub(crate) fn at(&self) -> u64 {
        self.at
    }

    pub(crate) fn next(&mut self) -> io::Result<Option<Found>> {
        while self.at < self.window.end {
            let offset = self.at;
            let Some(kind) = self.whole_at(offset)? else {
                self.at = self.next_whole(offset + 1)?;
                let unreadable = self.refused.overlaps(&(offset..self.at));
                return Ok(Some(Found::Damaged { offset, bytes: self.at - offset, unreadable }));
            };
            let (sealer, opening) = (self.window.sealer.clone(), self.opening);
            let stored = self.payload(offset);
            let bytes = (FRAME_HEADER_BYTES + stored.len()) as u64;
            let payload = match opening {
                Opening::Nothing => Some(stored.to_vec()),
                Opening::Only(wanted) if !wanted.covers(kind) => {
                    self.at += bytes;
                    continue;
                }
                Opening::All | Opening::Only(_) => sealer.open(offset, kind, stored),
            };
            self.at += bytes;
            return Ok(Some(match payload {
                Some(payload) => Found::Frame { offset, kind, payload },
                None => Found::Damaged { offset, bytes, unreadable: false },
            }));
        }
        Ok(None)
    }

    /// The offset of the first whole frame at or after `from`, or the end.
    fn next_whole(&mut self, from: u64) -> io::Result<u64> {
        let mut at = from;
        while at < self.window.end {
            let Some(bytes) = self.bytes(at, 1)? else { break };
            match bytes.iter().position(|b| *b == MARKER_FIRST) {
                None => at += bytes.len() as u64,
                Some(skip) => {
                    at += skip as u64;
                    if self.whole_at(at)?.is_some() {
                        return Ok(at);
                    }
                    at += 1;
                }
            }
        }
        Ok(self.window.end)
    }

    /// Kind of the whole frame at `offset`, whose payload [`Scanner::payload`] then gives.
    fn whole_at(&mut self, offset: u64) -> io::Result<Option<u8>> {
        let sealer = self.window.sealer.clone();
        let Some(bytes) = self.bytes(offset, FRAME_HEADER_BYTES)? else { return Ok(None) };
        let Some(head) = FrameHead::decode(bytes) else { return Ok(None) };
        let whole = FRAME_HEADER_BYTES + head.len as usize;
        let Some(bytes) = self.bytes(offset, whole)? else { return Ok(None) };
        let good = sealer.is_whole(offset, &head, &bytes[FRAME_HEADER_BYTES..whole]);
        Ok(good.then_some(head.kind))
    }

    /// The stored payload of the whole frame that was met last, at `offset`.
    fn payload(&self, offset: u64) -> &[u8] {
        let frame = &self.buf[(offset - self.buf_at) as usize..];
        let len = FrameHead::decode(frame).map_or(0, |head| head.len as usize);
        &frame[FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + len]
    }

    /// At least `len` bytes from `offset` on; `None` when the window ends before.
    fn bytes(&mut self, offset: u64, len: usize) -> io::Result<Option<&[u8]>> {
        if offset + len as u64 > self.window.end {
            return Ok(None);
        }
        let held = self.buf_at..self.buf_at + self.buf.len() as u64;
        if !(held.contains(&offset) && offset + len as u64 <= held.end) {
            let want = len.max(READ_BYTES).min((self.window.end - offset) as usize);
            self.buf.resize(want, 0);
            let got = read_past(&*self.window.file, &mut self.buf, offset, &mut self.refused)?;
            self.buf.truncate(got);
            self.buf_at = offset;
            if got < len {
                return Ok(None);
            }
        }
        Ok(Some(&self.buf[(offset - self.buf_at) as usize..]))
    }
}

/// The frame at a place that an index names; `None` when none stands there.
///
/// # Errors
/// Also when the disk refuses some of the frame's own bytes ([`is_of_place`]); what stands beside it does not matter.
pub(crate) fn frame_at(window: &Window, offset: u64) -> io::Result<Option<(u8, Vec<u8>)>> {
    // Most entries fit into the first read.
    const FIRST: usize = 4 << 10;
    let read = |buf: &mut Vec<u8>, len: usize| -> io::Result<()> {
        let had = buf.len();
        buf.resize(len, 0);
        let got = window.file.read_at(&mut buf[had..], offset + had as u64)?;
        buf.truncate(had + got);
        Ok(())
    };
    if offset + FRAME_HEADER_BYTES as u64 > window.end {
        return Ok(None);
    }
    let mut buf = Vec::new();
    match read(&mut buf, FIRST.min((window.end - offset) as usize)) {
        Err(e) if is_of_place(&e) => {
            buf.clear();
            read(&mut buf, FRAME_HEADER_BYTES)?;
        }
        read => read?,
    }
    let Some(head) = FrameHead::decode(&buf) else { return Ok(None) };
    let whole = FRAME_HEADER_BYTES + head.len as usize;
    if offset + whole as u64 > window.end {
        return Ok(None);
    }
    if whole > buf.len() {
        read(&mut buf, whole)?;
    }
    let stored = buf.get(FRAME_HEADER_BYTES..whole).unwrap_or_default();
    let whole = window.sealer.is_whole(offset, &head, stored);
    Ok(whole.then(|| window.sealer.open(offset, head.kind, stored)).flatten().map(|payload| (head.kind, payload)))
}
