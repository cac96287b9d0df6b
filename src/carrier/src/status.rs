//! What an operator sees of the links.

use std::time::Duration;

use keys::PeerName;
use model::{BitsPerSecond, NodeId, Precedence, UnixMillis};

/// What the link to a peer is doing.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(tag = "is", rename_all = "lowercase")]
pub enum PeerState {
    /// Frames flow.
    Up {
        /// Since when.
        since: UnixMillis,
    },
    /// A connection is being made.
    Connecting {
        /// What the last attempt ended with; empty before the first.
        last: String,
    },
    /// No connection. This node dials again by itself, or waits for the peer to dial.
    Down {
        /// Since when; `None` when there was no connection since the start.
        since: Option<UnixMillis>,
        /// What the last connection or attempt ended with; empty when there was none.
        last: String,
    },
    /// Emission control keeps this node silent.
    Silent,
    /// The peer, or this node, refuses the connection.
    Denied {
        /// Why, and what to do.
        text: String,
    },
}

/// What waits for a peer in one class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct ClassBacklog {
    /// Entries without a final receipt.
    pub entries: u64,
    /// Their encoded size, before compression.
    pub bytes: u64,
}

/// One peer's link.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct PeerStatus {
    /// Its identity.
    pub node: NodeId,
    /// What operators call it.
    pub name: PeerName,
    /// What its link is doing.
    pub state: PeerState,
    /// Smoothed round trip of the present connection.
    pub round_trip: Option<Duration>,
    /// Bytes sent since the start, all headers included.
    pub wire_bytes_up: u64,
    /// Bytes received since the start, all headers included.
    pub wire_bytes_down: u64,
    /// When something arrived from it last.
    pub last_heard: Option<UnixMillis>,
    /// Ceiling for what is sent to it.
    pub rate: BitsPerSecond,
    /// By [`Precedence::index`]; `None` while the journal cannot be read.
    pub backlog: Option<[ClassBacklog; Precedence::ALL.len()]>,
}
