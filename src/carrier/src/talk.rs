//! What is said over a connection, apart from how the connection is kept.

use std::collections::BTreeSet;
use std::future::Future;
use std::time::Duration;

use keys::Peer;
use link::{Lane, Waiting};
use model::{BitsPerSecond, NodeId};
use wire::frame::Frame;

/// One side of the conversation with a peer. It lives as long as the peer is enrolled, over all its connections.
///
/// `now` is the time since the carrier's start. Calls may block on the disk, except `needs_settling`, `awaits_answer`, `deadline`
/// and `wait`.
pub(crate) trait Talk: Send + 'static {
    /// Frames can be exchanged from here on, over one link or several.
    fn connected(&mut self, now: Duration) -> Result<(), Refusal>;

    /// The last link is gone. What was sent and not confirmed may be lost.
    fn disconnected(&mut self);

    /// A frame arrived.
    fn received(&mut self, now: Duration, frame: Frame) -> Result<(), Refusal>;

    /// Is there anything for `settle` to do?
    fn needs_settling(&self, now: Duration) -> bool;

    /// Carries out what has become due.
    fn settle(&mut self, now: Duration) -> Result<(), Refusal>;

    /// What waits to be sent.
    fn waiting(&mut self, now: Duration) -> Result<Waiting, Refusal>;

    /// The next frame of a lane, of at most `bytes_max` (a very small maximum may be exceeded); `None` when what seemed
    /// to wait turned out to be expired or withheld.
    fn next_frame(&mut self, now: Duration, lane: Lane, bytes_max: usize) -> Result<Option<Frame>, Refusal>;

    /// Is something on its way that the peer has to answer, though its carrier may have confirmed all of it?
    fn awaits_answer(&self) -> bool;

    /// When `settle` and `waiting` should be asked again although nothing happened.
    fn deadline(&self) -> Option<Duration>;

    /// Waits until something happened outside the connection, and takes note of it. Cancel-safe.
    fn wait(&mut self) -> impl Future<Output = ()> + Send;
}

/// Makes conversations.
pub(crate) trait Talks: Send + Sync {
    /// What it makes.
    type Talk: Talk;

    /// The conversation with a peer that is enrolled. May block on the disk; a failure is tried again later.
    fn open(&self, peer: &Peer, rate: BitsPerSecond) -> Result<Self::Talk, String>;

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
