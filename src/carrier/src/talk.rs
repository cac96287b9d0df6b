//! What is said over a connection, apart from how the connection is kept.

use std::collections::BTreeSet;
use std::future::Future;
use std::time::Duration;

use keys::Peer;
use link::Lane;
use model::{BitsPerSecond, NodeId};
use wire::frame::Frame;

/// One side of the conversation with a peer. It lives as long as the peer is enrolled, over all its connections.
///
/// `now` is the time since the carrier's start. Calls may block on the disk, except `needs_settling`, `deadline` and `wait`.
pub(crate) trait Talk: Send + 'static {
    /// Frames can be exchanged from here on; an earlier connection is gone.
    fn connected(&mut self, now: Duration) -> Result<(), Refusal>;

    /// What was sent and not confirmed may be lost.
    fn disconnected(&mut self);

    /// A frame arrived.
    fn received(&mut self, now: Duration, frame: Frame) -> Result<(), Refusal>;

    /// Is there anything for `settle` to do?
    fn needs_settling(&self, now: Duration) -> bool;

    /// Carries out what has become due.
    fn settle(&mut self, now: Duration) -> Result<(), Refusal>;

    /// The next frame to send, if there is one; with `room` at zero only urgent ones.
    fn next_frame(&mut self, now: Duration, room: u64) -> Result<Option<(Lane, Frame)>, Refusal>;

    /// That frame takes so many bytes of its stream.
    fn sent(&mut self, lane: Lane, frame_bytes: usize);

    /// When `settle` and `next_frame` should be asked again although nothing happened.
    fn deadline(&self) -> Option<Duration>;

    /// The ceiling for what is sent has changed.
    fn set_rate(&mut self, rate: BitsPerSecond, now: Duration);

    /// Waits until something happened outside the connection, and takes note of it. Cancel-safe.
    fn wait(&mut self) -> impl Future<Output = ()> + Send;
}

/// Makes conversations.
pub(crate) trait Talks: Send + Sync {
    /// What it makes.
    type Talk: Talk;

    /// The conversation with a peer that is enrolled. May block on the disk; a failure is tried again later.
    fn open(&self, peer: &Peer, rate: BitsPerSecond, now: Duration) -> Result<Self::Talk, String>;

    /// Forgets every peer but these. May block on the disk.
    fn retain(&self, enrolled: &BTreeSet<NodeId>);
}

/// The conversation cannot go on over this connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// For the peer's operator and ours: what is wrong and what to do.
    pub(crate) text: String,
    /// May it go on over the next one, without an operator?
    pub(crate) retry: bool,
}
