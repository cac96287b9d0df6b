//! Walks over the frames of a part of a segment file, across damaged places.

use std::io;
use std::sync::Arc;

use model::DiskFile;

use crate::format::{FRAME_HEADER_BYTES, FrameHead, MARKER_FIRST, Seed};

/// A part of a segment file that is durable and holds whole frames, as far as it is not damaged.
#[derive(Clone)]
pub(crate) struct Window {
    pub(crate) segment: u32,
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) seed: Seed,
    pub(crate) start: u64,
    pub(crate) end: u64,
}

/// What stands next.
pub(crate) enum Found {
    /// A frame whose checksum is right.
    Frame { offset: u64, kind: u8, payload: Vec<u8> },
    /// Bytes that are no frame; a good one, or the end, follows.
    Damaged { offset: u64, bytes: u64 },
}

/// One read serves many small frames.
const READ_BYTES: usize = 256 << 10;

/// Walks from frame to frame.
pub(crate) struct Scanner {
    window: Window,
    at: u64,
    buf: Vec<u8>,
    buf_at: u64,
}

impl Scanner {
    pub(crate) fn new(window: Window) -> Self {
        let at = window.start;
        Self { window, at, buf: Vec::new(), buf_at: at }
    }

    /// Where the next frame is looked for.
    pub(crate) fn at(&self) -> u64 {
        self.at
    }

    pub(crate) fn next(&mut self) -> io::Result<Option<Found>> {
        if self.at >= self.window.end {
            return Ok(None);
        }
        if let Some((kind, payload)) = self.frame_at(self.at)? {
            let offset = self.at;
            self.at += (FRAME_HEADER_BYTES + payload.len()) as u64;
            return Ok(Some(Found::Frame { offset, kind, payload }));
        }
        let offset = self.at;
        self.at = self.next_good(offset + 1)?;
        Ok(Some(Found::Damaged { offset, bytes: self.at - offset }))
    }

    /// The offset of the first good frame at or after `from`, or the end.
    fn next_good(&mut self, from: u64) -> io::Result<u64> {
        let mut at = from;
        while at < self.window.end {
            let Some(bytes) = self.bytes(at, 1)? else { break };
            match bytes.iter().position(|b| *b == MARKER_FIRST) {
                None => at += bytes.len() as u64,
                Some(skip) => {
                    at += skip as u64;
                    if self.frame_at(at)?.is_some() {
                        return Ok(at);
                    }
                    at += 1;
                }
            }
        }
        Ok(self.window.end)
    }

    fn frame_at(&mut self, offset: u64) -> io::Result<Option<(u8, Vec<u8>)>> {
        let seed = self.window.seed;
        let Some(bytes) = self.bytes(offset, FRAME_HEADER_BYTES)? else { return Ok(None) };
        let Some(head) = FrameHead::decode(bytes) else { return Ok(None) };
        let whole = FRAME_HEADER_BYTES + head.len as usize;
        let Some(bytes) = self.bytes(offset, whole)? else { return Ok(None) };
        let payload = &bytes[FRAME_HEADER_BYTES..whole];
        let good = seed.is_good(offset, &head, payload);
        Ok(good.then(|| (head.kind, payload.to_vec())))
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
            let got = self.window.file.read_at(&mut self.buf, offset)?;
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
pub(crate) fn frame_at(window: &Window, offset: u64) -> io::Result<Option<(u8, Vec<u8>)>> {
    // Most entries fit into the first read.
    const FIRST: usize = 4 << 10;
    if offset + FRAME_HEADER_BYTES as u64 > window.end {
        return Ok(None);
    }
    let mut buf = vec![0; FIRST.min((window.end - offset) as usize)];
    let got = window.file.read_at(&mut buf, offset)?;
    buf.truncate(got);
    let Some(head) = FrameHead::decode(&buf) else { return Ok(None) };
    let whole = FRAME_HEADER_BYTES + head.len as usize;
    if offset + whole as u64 > window.end {
        return Ok(None);
    }
    if whole > got {
        buf.resize(whole, 0);
        let more = window.file.read_at(&mut buf[got..], offset + got as u64)?;
        buf.truncate(got + more);
    }
    let payload = buf.get(FRAME_HEADER_BYTES..whole).unwrap_or_default();
    let good = window.seed.is_good(offset, &head, payload);
    Ok(good.then(|| (head.kind, payload.to_vec())))
}
