//! What callers ask of the committer, in the order in which they ask.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use keys::DataKeys;
use model::{ChunkName, EntryId, Epoch};
use wire::BodyHash;

use crate::error::AppendError;
use crate::figures::Figures;
use crate::format::PackedChunk;
use crate::holds::HoldFrame;
use crate::purge::PurgeFrame;
use crate::quarantine::Lost;
use crate::rewrite::Rewritten;
use crate::ticket::Completer;
use crate::types::{Appended, ChunkPut, Draft, EpochReason, Foreign, ForeignOutcome, TrimReport};

/// Most bytes that wait for the disk: eight batches. More is refused, so that a stuck disk does not fill the memory.
const QUEUE_BYTES_MAX: usize = 32 << 20;

/// The committer looks so often for those whom it has just answered to come back, with so many pauses of the processor
/// between two looks: some 20 to 60 microseconds in all, less than any disk syncs in. Now and then it lets others have the
/// processor, who may be those it waits for.
const LOOKS: usize = 64;
const LOOKS_PER_YIELD: usize = 16;
const SPINS: usize = 16;

/// Receipts that arrive alone wait so long for company. Losing them in a crash costs their repetition.
const RECEIPTS_WAIT: Duration = Duration::from_millis(200);

pub(crate) enum Request {
    /// With the hash of its body: the caller's thread has time for it, this one makes everybody wait.
    Own(Box<Draft>, BodyHash, Completer<Appended>),
    Foreign(Foreign, Completer<ForeignOutcome>),
    Epoch(EpochReason, Completer<Epoch>),
    Reissue(Vec<EntryId>, Completer<Vec<(EntryId, Appended)>>),
    /// With the file of a peer that it is for, if it is for one.
    Chunk(NewChunk, Option<EntryId>, Completer<ChunkPut>),
    Retain(ChunkName, Completer<bool>),
    /// Writes chunks whole that were written from others.
    MakeWhole(Vec<ChunkName>, Completer<()>),
    RemoveConsumer(String, Completer<bool>),
    /// Sets a hold or takes it away.
    Hold(Box<HoldFrame>, Completer<bool>),
    /// Writes the consumers that changed.
    Flush(Completer<()>),
    Trim(Completer<TrimReport>),
    /// Seals what is new with these keys.
    UseKeys(DataKeys, Completer<()>),
    /// Puts a segment that was written anew in its place.
    Replace(Rewritten, Completer<bool>),
    Restore(Foreign, Completer<bool>),
    Forget(Lost, Completer<()>),
    /// Notes durably what is to be purged.
    BeginPurge(Box<PurgeFrame>, Completer<()>),
    /// Notes durably that what was to be purged is gone.
    EndPurge(Completer<()>),
}

/// A chunk to be written.
pub(crate) struct NewChunk {
    pub(crate) whole: PackedChunk,
    /// The same from a base, taken while that is held.
    pub(crate) short: Option<PackedChunk>,
}

impl NewChunk {
    fn bytes(&self) -> usize {
        self.whole.bytes() + self.short.as_ref().map_or(0, PackedChunk::bytes)
    }
}

impl Request {
    fn bytes(&self) -> usize {
        const SMALL: usize = 256;
        match self {
            Self::Own(draft, _, _) => SMALL + draft.body.len(),
            Self::Foreign(foreign, _) => SMALL + foreign.bytes.len(),
            Self::Chunk(chunk, ..) => chunk.bytes(),
            Self::Reissue(ids, _) => SMALL + ids.len() * 32,
            Self::MakeWhole(names, _) => SMALL + names.len() * ChunkName::LEN,
            Self::Restore(foreign, _) => SMALL + foreign.bytes.len(),
            Self::Forget(lost, _) => SMALL + lost.len() * SMALL,
            Self::BeginPurge(frame, _) => SMALL + frame.chunks.len() * ChunkName::LEN,
            Self::Epoch(..)
            | Self::Retain(..)
            | Self::RemoveConsumer(..)
            | Self::Hold(..)
            | Self::Flush(_)
            | Self::Trim(_) => SMALL,
            Self::UseKeys(..) | Self::Replace(..) | Self::EndPurge(_) => SMALL,
        }
    }

    fn refuse(self, e: AppendError) {
        match self {
            Self::Own(_, _, c) => c.complete(Err(e)),
            Self::Foreign(_, c) => c.complete(Err(e)),
            Self::Epoch(_, c) => c.complete(Err(e)),
            Self::Reissue(_, c) => c.complete(Err(e)),
            Self::Chunk(.., c) => c.complete(Err(e)),
            Self::Retain(_, c) => c.complete(Err(e)),
            Self::MakeWhole(_, c) => c.complete(Err(e)),
            Self::RemoveConsumer(_, c) => c.complete(Err(e)),
            Self::Hold(_, c) => c.complete(Err(e)),
            Self::Flush(c) => c.complete(Err(e)),
            Self::Trim(c) => c.complete(Err(e)),
            Self::UseKeys(_, c) => c.complete(Err(e)),
            Self::Replace(_, c) => c.complete(Err(e)),
            Self::Restore(_, c) => c.complete(Err(e)),
            Self::Forget(_, c) => c.complete(Err(e)),
            Self::BeginPurge(_, c) | Self::EndPurge(c) => c.complete(Err(e)),
        }
    }
}

/// Between callers and the committer.
#[derive(Default)]
pub(crate) struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
    /// As many as `waiting.requests` has, to be looked at without the lock.
    len: AtomicUsize,
    pub(crate) figures: Figures,
}

#[derive(Default)]
struct Waiting {
    requests: VecDeque<Request>,
    bytes: usize,
    receipts: bool,
    closing: bool,
    /// The committer waits for `changed`: while it works there is nobody to wake.
    idle: bool,
}

pub(crate) enum Woken {
    Requests(Vec<Request>),
    Receipts,
    Closed,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn push(&self, request: Request) {
        let mut waiting = self.lock();
        if waiting.closing {
            drop(waiting);
            self.figures.refused(&AppendError::Closed);
            return request.refuse(AppendError::Closed);
        }
        if waiting.bytes >= QUEUE_BYTES_MAX {
            drop(waiting);
            self.figures.refused(&AppendError::Busy);
            return request.refuse(AppendError::Busy);
        }
        waiting.bytes += request.bytes();
        waiting.requests.push_back(request);
        self.figures.waiting(waiting.bytes);
        self.len.store(waiting.requests.len(), Ordering::Relaxed);
        self.wake(waiting);
    }

    fn wake(&self, mut waiting: MutexGuard<'_, Waiting>) {
        if std::mem::take(&mut waiting.idle) {
            drop(waiting);
            self.changed.notify_one();
        }
    }

    /// A consumer's state changed.
    pub(crate) fn note_receipts(&self) {
        let mut waiting = self.lock();
        waiting.receipts = true;
        self.wake(waiting);
    }

    pub(crate) fn close(&self) {
        let mut waiting = self.lock();
        waiting.closing = true;
        self.wake(waiting);
    }

    /// Removes requests of about so many bytes.
    fn take(&self, waiting: &mut Waiting, bytes_max: usize) -> Vec<Request> {
        let mut taken = Vec::with_capacity(waiting.requests.len());
        let mut bytes = 0;
        while bytes < bytes_max
            && let Some(request) = waiting.requests.pop_front()
        {
            bytes += request.bytes();
            taken.push(request);
        }
        waiting.bytes -= bytes;
        self.figures.waiting(waiting.bytes);
        self.len.store(waiting.requests.len(), Ordering::Relaxed);
        taken
    }

    /// What arrives within some microseconds; nothing when nobody comes.
    pub(crate) fn more(&self, bytes_max: usize) -> Vec<Request> {
        for look in 0..LOOKS {
            if look % LOOKS_PER_YIELD == 0 {
                std::thread::yield_now();
            }
            if self.len.load(Ordering::Relaxed) > 0 {
                return self.take(&mut self.lock(), bytes_max);
            }
            (0..SPINS).for_each(|_| std::hint::spin_loop());
        }
        Vec::new()
    }

    /// Waits for what is to be done next, of about so many bytes.
    /// `soon` where somebody is likely to come, for whom it is looked before sleeping.
    pub(crate) fn next(&self, bytes_max: usize, soon: bool) -> Woken {
        if soon {
            let requests = self.more(bytes_max);
            if !requests.is_empty() {
                return Woken::Requests(requests);
            }
        }
        let mut waiting = self.lock();
        loop {
            if !waiting.requests.is_empty() {
                return Woken::Requests(self.take(&mut waiting, bytes_max));
            }
            if waiting.closing {
                return if std::mem::take(&mut waiting.receipts) { Woken::Receipts } else { Woken::Closed };
            }
            waiting.idle = true;
            if waiting.receipts {
                let (guard, timeout) =
                    self.changed.wait_timeout(waiting, RECEIPTS_WAIT).unwrap_or_else(PoisonError::into_inner);
                waiting = guard;
                if timeout.timed_out() && waiting.requests.is_empty() {
                    waiting.receipts = false;
                    return Woken::Receipts;
                }
            } else {
                waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_arrived_joins_the_batch_as_far_as_it_fits_and_nobody_is_waited_for_long() {
        let queue = Queue::default();
        assert!(queue.more(4 << 20).is_empty(), "nobody came");
        let tickets: Vec<_> = (0..5)
            .map(|_| {
                let (completer, ticket) = crate::ticket::ticket();
                queue.push(Request::Flush(completer));
                ticket
            })
            .collect();
        assert_eq!(queue.more(600).len(), 3, "256 bytes are counted for each");
        assert_eq!(queue.more(4 << 20).len(), 2);
        assert!(queue.more(4 << 20).is_empty());
        assert_eq!(queue.lock().bytes, 0);
        drop(tickets);
    }
}
