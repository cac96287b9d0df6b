//! Bounds of a session's memory and patience, each with its arithmetic.

use std::time::Duration;

/// Entries sent and not yet receipted. 16 384 x about 64 B = 1 MiB; at 25 B per coalesced post these are 400 kB on
/// the link, 50 s at 64 kbit/s, so the window never idles a link with less than that round trip.
pub const WINDOW_ENTRIES: usize = 16_384;

/// Entries that go before the peer has told what it holds: what somebody has just written. They refer to no history, so that a
/// backlog of chat is better off a round trip later.
pub const EARLY_ENTRIES_MAX: usize = 16;

/// Room beyond [`WINDOW_ENTRIES`] that only flash and immediate may use: bulk never blocks them.
pub const WINDOW_URGENT_EXTRA: usize = 4_096;

/// Plain bytes of entries read ahead per class: one batch. Five classes and one largest entry each: at most 6.3 MiB.
pub const READ_AHEAD_BYTES: usize = 256 << 10;

/// Entries pulled ahead for one entry's causes. Threads are flat and channels have one creator; deeper is not ours.
pub const PULL_MAX: usize = 1_024;

/// Large entries of the peer that are partly here and told of in a greeting, so that the rest alone is sent: 2 kB of frames.
pub const RESUMES_MAX: usize = 64;

/// Parcels from the peer that are partly here. It sends one of each class at a time, and parts of the next overtake: 16 of
/// 256 KiB as the planner makes them are 4 MiB, of the largest entries 25 MiB.
pub const PARTIAL_PARCELS_MAX: usize = 16;

/// Memory for chunks of the peer that are partly here, and as much for entries. Their parts overtake each other: what one lost packet holds up stays
/// here for a round trip, and at 30 % loss for two on average and eight at most. 10 Mbit/s x 600 ms x 8 = 6 MB; twice that.
/// More than this is asked for once more.
pub const PARTIAL_BYTES_MAX: usize = 12 << 20;

/// Chunks of the peer that are here and wait for the chunk that they were sent from. 64 x 64 KiB = 4 MiB at most.
pub const BASED_MAX: usize = 64;

/// Entries of the peer that are here and not durable yet; more are asked for again when half of them are. A full window of posts is a tenth
/// of this, and 32 of the largest entries fit.
pub const ENTRIES_STORING_BYTES_MAX: usize = 32 << 20;

/// Chunks of the peer that are here and not durable yet; with more of them it is asked to wait. 10 Mbit/s bring so many in 13 s, for which no
/// disk that works stands still. What is under way then still comes: as much again is kept, and no more.
pub const CHUNKS_STORING_BYTES_MAX: usize = 16 << 20;

/// Files of the peer waiting to be fetched. 4 096 manifests of about 1.2 kB = 5 MiB. More are offered again later.
pub const FILES_MAX: usize = 4_096;

/// Files of the peer being fetched at a time, so that slices of one file arrive together.
pub const FILES_ACTIVE_MAX: usize = 4;

/// Chunk names of active files in memory: 262 144 x about 100 B = 26 MiB, 4 GiB of content. One file may need all of it;
/// a larger one is not taken.
pub const NAMES_MAX: usize = 262_144;

/// Of a file that nobody has wanted yet, the lists of chunk names are fetched up to this size of its content: 16 MiB have
/// some 2,000 chunks, 66 kB of names. They tell how little of it may really be missing.
pub const NAMES_UNASKED_BYTES_MAX: u64 = 16 << 20;

/// Files that the peer may ask for at a time; its own [`FILES_ACTIVE_MAX`] with room for another release.
pub const SERVING_MAX: usize = 64;

/// Skips of the peer that wait for the entry before them. 65 536 x about 64 B = 4 MiB; more count at once.
pub const SKIPS_HELD_MAX: usize = 65_536;

/// Ranges in one want, receipt, skip or verdict: with a frame of 64 KiB a set of any shape is told in pieces.
pub const RANGES_PER_FRAME: usize = 2_048;

/// Receipts wait this long so that several go in one frame.
pub const RECEIPT_DELAY: Duration = Duration::from_millis(200);

/// Receipts of flash and immediate entries: long enough for a burst to share a frame.
pub const RECEIPT_DELAY_URGENT: Duration = Duration::from_millis(20);

/// How long a greeting may take: 300 B at 300 bit/s take 8 s, twice that and a satellite's patience.
pub const GREETING_MAX: Duration = Duration::from_secs(60);

/// A side that sent nothing for this long says so, unless the carrier does: one frame of 2 bytes a minute.
pub const KEEPALIVE: Duration = Duration::from_secs(60);

/// How long a silent peer's session is kept. The carrier says earlier that the link is down and probes it; a session that
/// goes on when the link comes back saves the handshake and the greeting.
pub const QUIET_MAX: Duration = Duration::from_secs(3_600);

const _: () = assert!(QUIET_MAX.as_secs() > 2 * KEEPALIVE.as_secs(), "one lost keepalive must not end a connection");

/// Epochs of one peer. A new one begins with a torn journal or a restored snapshot: one a day for ten years.
pub const EPOCHS_MAX: usize = 4_096;

/// Smallest grant that a frame can be made for: a greeting with the longest name fits.
pub const GRANT_BYTES_MIN: usize = 120;

/// Histories of the peer's entries held at a time: two of each label, for few labels. 8 x about 30 kB of text and tables.
pub const HISTORIES_HELD_MAX: usize = 8;

/// A peer that could not use so many histories on one connection is offered no more on it: something is wrong, and the
/// built-in text always works.
pub const HISTORY_FAILURES_MAX: u32 = 8;

/// Entries under way whose bytes are kept for a history. 2 048 x at most 2 KiB = 4 MiB, 400 kB of chat.
pub const KEPT_IN_FLIGHT_MAX: usize = 2_048;

/// Lists of names that may come before the entry of a file does. A manifest names eight; those of other files overtake
/// and are overtaken, and some come twice.
pub const LISTS_AHEAD_MAX: usize = 1_024;

/// The longest such list: 64 names.
pub const LIST_AHEAD_BYTES_MAX: usize = 64 * model::ChunkName::LEN;
