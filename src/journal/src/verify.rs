//! Reads every byte of a journal and says what is wrong.

use std::collections::HashMap;
use std::sync::Arc;

use crate::error::ReadError;
use crate::format::{EntryPrefix, FrameKind, PackedChunk, Record, SEGMENT_HEADER_BYTES, SegmentHeader, link_chain};
use crate::mutations::{Mutation, is};
use crate::pages::RowsAt;
use crate::purge;
use crate::scan::{Found, Refused, Scanner, Window, read_past, what_of};
use crate::summary::{Growing, Summary, print_of_chunk};
use crate::types::{Finding, Progress, VerifyReport};
use crate::view::{BASES_MAX, Log, Segment, Spot};

pub(crate) fn verify(log: &Log, progress: &mut dyn FnMut(Progress)) -> Result<VerifyReport, ReadError> {
    let (sealed, tail, tail_summary) = {
        let view = log.read();
        let sealed: Vec<Arc<Segment>> = view.sealed.values().cloned().collect();
        (sealed, view.tail.window(), view.tail.growing.summary.clone())
    };
    let total_bytes = sealed.iter().map(|s| s.end).sum::<u64>() + tail.end;
    let mut checking =
        Checking { log, chunks: HashMap::new(), report: VerifyReport::default(), progress, done_bytes: 0, total_bytes };
    let mut previous: Option<Summary> = None;
    for segment in &sealed {
        checking.segment(segment.window(), &segment.summary, previous.as_ref(), Some(segment))?;
        previous = Some(segment.summary.clone());
    }
    checking.segment(tail, &tail_summary, previous.as_ref(), None)?;
    Ok(checking.report)
}

struct Checking<'a> {
    log: &'a Log,
    /// Where the chunks stand that were met, by their prints: a reader has no index to ask.
    chunks: HashMap<u64, Spot>,
    report: VerifyReport,
    progress: &'a mut dyn FnMut(Progress),
    done_bytes: u64,
    total_bytes: u64,
}

impl Checking<'_> {
    fn find(&mut self, segment: u32, offset: u64, what: impl Into<String>) {
        self.report.findings_total += 1;
        if self.report.findings.len() < VerifyReport::FINDINGS_MAX {
            self.report.findings.push(Finding { segment, offset, what: what.into() });
        }
    }

    fn unpacks(&self, chunk: PackedChunk) -> Result<bool, ReadError> {
        // Without the index, as far as its bases were met before it.
        let mut chain = vec![chunk];
        while let Some(base) = chain.last().and_then(PackedChunk::base) {
            let spot = self.chunks.get(&print_of_chunk(&base)).filter(|_| chain.len() <= usize::from(BASES_MAX));
            let seen = spot.map(|spot| self.log.chunk_at(*spot)).transpose()?.flatten();
            match seen.filter(|seen| seen.name == base) {
                Some(seen) => chain.push(seen),
                // Written again behind it, or damaged where it was met.
                None => return Ok(self.log.unpack(chain.swap_remove(0))?.is_some()),
            }
        }
        let chunk = chain.swap_remove(0);
        let bases = chain.into_iter().rev().try_fold(Vec::new(), |base, next| next.unpack(&base));
        match bases.and_then(|base| chunk.clone().unpack(&base)) {
            Some(_) => Ok(true),
            None => Ok(self.log.unpack(chunk)?.is_some()),
        }
    }

    fn segment(
        &mut self,
        window: Window,
        summary: &Summary,
        previous: Option<&Summary>,
        sealed: Option<&Arc<Segment>>,
    ) -> Result<(), ReadError> {
        let failed = |e: std::io::Error| ReadError(e.to_string());
        let number = window.segment;
        let end = window.end;
        let mut header = [0; SEGMENT_HEADER_BYTES];
        let got = read_past(&*window.file, &mut header, 0, &mut Refused::default()).map_err(failed)?;
        let (header, damage) = SegmentHeader::decode(&header[..got]);
        if let Some((offset, _)) = damage {
            self.find(number, offset, "the segment's header is damaged");
        }
        if let Some(header) = &header {
            if header.node != self.log.node || header.segment != number {
                self.find(number, 0, "the segment's header is of another segment");
            }
            if previous.is_some_and(|previous| previous.chain_end != header.chain) && !is(Mutation::SkipChainCheck) {
                self.find(number, 0, "the hash chain does not continue from the segment before");
            }
            if previous.is_some_and(|previous| previous.next_pos > header.first_pos) {
                self.find(number, 0, "positions overlap with the segment before");
            }
        }
        let mut chain = summary.chain_start;
        let mut seen = Growing::starting(summary.first_pos, chain);
        let mut highest = 0;
        let mut scanner = Scanner::new(window);
        while let Some(found) = scanner.next().map_err(failed)? {
            let (offset, kind, payload) = match found {
                Found::Frame { offset, kind, payload } => (offset, kind, payload),
                Found::Damaged { offset, bytes, unreadable } => {
                    self.find(number, offset, format!("{bytes} {}", what_of(unreadable)));
                    continue;
                }
            };
            self.report.frames += 1;
            let Some(record) = Record::decode(kind, &payload) else {
                self.find(number, offset, format!("a frame of kind {kind} cannot be read"));
                continue;
            };
            if let Record::Entry(entry)
            | Record::Restored(entry)
            | Record::PurgedEntry(entry)
            | Record::PurgedRestored(entry) = &record
            {
                let bytes = EntryPrefix::decode(&payload).map(|(_, bytes)| bytes).unwrap_or_default();
                let good = if FrameKind::is_entry(kind) {
                    self.report.entries += 1;
                    wire::entry_hash(bytes).ok() == Some(entry.hash) || is(Mutation::SkipEntryHash)
                } else {
                    self.report.purged_entries += 1;
                    purge::fits_hash(bytes, entry.hash)
                };
                if !good {
                    self.find(number, offset, format!("entry {} has another hash", entry.header.id));
                }
                if entry.own != (entry.header.id.origin == self.log.node) || entry.class != entry.header.precedence {
                    self.find(
                        number,
                        offset,
                        format!("entry {} stands under another class or origin", entry.header.id),
                    );
                }
                if entry.pos <= highest {
                    self.find(number, offset, format!("position {} is not above the one before", entry.pos));
                }
                highest = highest.max(entry.pos);
                chain = link_chain(&chain, &entry.hash);
                if let Some(segment) = sealed
                    && !self.log.index_agrees(segment, &entry.header.id, offset)
                {
                    self.find(number, offset, format!("the index does not find entry {}", entry.header.id));
                }
            }
            if kind == FrameKind::Chunk as u8 {
                self.report.chunks += 1;
                let chunk = PackedChunk::decode(&payload);
                if let Some(chunk) = &chunk {
                    self.chunks.insert(print_of_chunk(&chunk.name), Spot { segment: number, offset });
                }
                let unpacks = match chunk {
                    Some(chunk) => self.unpacks(chunk)?,
                    None => false,
                };
                if !unpacks {
                    self.find(number, offset, "a chunk does not unpack");
                }
            }
            if FrameKind::is_clear(kind) && header.is_some() && SegmentHeader::decode_copy(&payload) != header {
                self.find(number, offset, "the header says something else where it is repeated");
            }
            self.report.purged_chunks += u64::from(matches!(record, Record::PurgedChunk));
            seen.note(&record, offset, |epoch| summary.own_before(epoch));
        }
        if chain != summary.chain_end && !is(Mutation::SkipChainCheck) {
            self.find(number, end, "the hash chain does not end as the footer says");
        }
        let sums = |s: &Summary| (s.entries, s.chunks, s.chunks_needed, s.next_pos);
        if sums(&seen.summary) != sums(summary) {
            self.find(number, end, "the footer counts other entries or chunks than the segment holds");
        }
        if let Some(segment) = sealed.filter(|segment| matches!(segment.rows, RowsAt::Footer { .. })) {
            for (i, page) in summary.pages.iter().enumerate() {
                if segment.read_rows(i).is_none() {
                    self.find(number, u64::from(page.place), "a page of the footer is damaged");
                }
            }
        }
        if let Some(segment) = sealed.filter(|s| matches!(s.rows, RowsAt::Memory(_)) && s.bytes > s.end) {
            // Or its writing was cut short by a power cut; the segment was read instead.
            self.find(number, segment.end, "the footer is damaged");
        }
        self.report.segments += 1;
        self.report.bytes += end;
        self.done_bytes += end;
        (self.progress)(Progress { done_bytes: self.done_bytes, total_bytes: self.total_bytes });
        Ok(())
    }
}
