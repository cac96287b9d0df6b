//! What an operator sees of the links.

use std::time::Duration;

use keys::PeerName;
use model::{BitsPerSecond, NodeId, Precedence, UnixMillis};

use crate::keeper::LinkView;
use crate::settings::LinkName;

/// What a link, or all links to a peer together, are doing.
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

/// One of the links to a peer.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct LinkStatus {
    /// What it is called.
    pub name: LinkName,
    /// What it is doing.
    pub state: PeerState,
    /// Smoothed round trip of the present connection.
    pub round_trip: Option<Duration>,
    /// Bytes sent since the start, all headers included.
    pub wire_bytes_up: u64,
    /// Bytes received since the start, all headers included.
    pub wire_bytes_down: u64,
    /// Ceiling for what is sent over it.
    pub rate: BitsPerSecond,
}

impl LinkStatus {
    pub(crate) fn of(view: &LinkView) -> Self {
        let (wire_bytes_up, wire_bytes_down) = view.lane.wire_bytes();
        Self {
            name: view.name.clone(),
            state: view.state.clone(),
            round_trip: view.round_trip,
            wire_bytes_up,
            wire_bytes_down,
            rate: view.lane.rate(),
        }
    }
}

/// One peer's links, taken together.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct PeerStatus {
    /// Its identity.
    pub node: NodeId,
    /// What operators call it.
    pub name: PeerName,
    /// What its link is doing.
    pub state: PeerState,
    /// Smoothed round trip of the quickest present connection.
    pub round_trip: Option<Duration>,
    /// Bytes sent since the start, all headers included.
    pub wire_bytes_up: u64,
    /// Bytes received since the start, all headers included.
    pub wire_bytes_down: u64,
    /// When something arrived from it last.
    pub last_heard: Option<UnixMillis>,
    /// Ceiling for what is sent to it, over all its links.
    pub rate: BitsPerSecond,
    /// Its links, in the order of the configuration.
    pub links: Vec<LinkStatus>,
    /// By [`Precedence::index`]; `None` while the journal cannot be read.
    pub backlog: Option<[ClassBacklog; Precedence::ALL.len()]>,
}
