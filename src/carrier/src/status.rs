//! What an operator sees of the links.

use std::time::Duration;

use keys::PeerName;
use model::{BitsPerSecond, NodeId, Precedence, UnixMillis};

use crate::keeper::LinkView;
use crate::oneway::OneWaySent;
use crate::reach::Reach;
use crate::settings::{LaneKind, LinkName};
use crate::transit::ViaStatus;

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
    /// Emission control, or an order for this link, keeps this node silent.
    Silent,
    /// A one-way lane, or what comes over one, is all there is: no answer is expected.
    OneWay,
    /// It is reached by way of a relay.
    Relayed {
        /// How that way is.
        via: ViaStatus,
    },
    /// It is not to be used now: paused, without budget or outside its contact windows.
    Held {
        /// Why.
        why: String,
    },
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
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct LinkStatus {
    /// What it is called.
    pub name: LinkName,
    /// How frames travel over it.
    pub lane: LaneKind,
    /// What it is doing at this moment.
    pub state: PeerState,
    /// What it is found to be over time.
    pub reach: Reach,
    /// Smoothed round trip of the present connection.
    pub round_trip: Option<Duration>,
    /// Bytes sent since the start, all headers included.
    pub wire_bytes_up: u64,
    /// Bytes received since the start, all headers included.
    pub wire_bytes_down: u64,
    /// Ceiling for what is sent over it.
    pub rate: BitsPerSecond,
    /// Share of the present connection's packets that were lost.
    pub loss: Option<f64>,
    /// What a megabyte costs, in the operator's unit.
    pub cost: u64,
    /// Classes that it carries.
    pub classes: Vec<Precedence>,
    /// What it may spend; `None` without a limit.
    pub budget: Option<BudgetStatus>,
    /// Its contact windows; `None` for a link without any.
    pub contact: Option<ContactStatus>,
    /// Seconds between two signs of life while nothing else is sent, as both sides agree on; 0 for none at all.
    pub keepalive_seconds: u64,
    /// Bytes of control frames handed to it since the start.
    pub sent_control_bytes: u64,
    /// Bytes of frames handed to it since the start, by [`Precedence::index`].
    pub sent_bytes: [u64; Precedence::ALL.len()],
    /// What a one-way lane has done; `None` for every other link.
    pub oneway: Option<OneWaySent>,
}

/// What a link may spend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct BudgetStatus {
    /// Bytes each day, UTC.
    pub per_day: Option<u64>,
    /// Bytes each month, UTC.
    pub per_month: Option<u64>,
    /// Bytes that may still leave.
    pub left: u64,
}

/// When a link can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ContactStatus {
    /// When the present window ends; `None` between windows.
    pub until: Option<UnixMillis>,
    /// When the next window begins.
    pub next: Option<UnixMillis>,
}

impl LinkStatus {
    /// `left`: what the book says may still be allowed to it.
    pub(crate) fn of(view: &LinkView, left: Option<u64>) -> Self {
        let (wire_bytes_up, wire_bytes_down) = view.lane.wire_bytes();
        Self {
            name: view.name.clone(),
            lane: view.kind,
            state: view.state.clone(),
            reach: view.reach,
            round_trip: view.round_trip,
            wire_bytes_up,
            wire_bytes_down,
            rate: view.lane.rate(),
            loss: view.loss,
            cost: view.cost,
            classes: Precedence::ALL.into_iter().filter(|class| view.admits[class.index()]).collect(),
            budget: left.map(|left| BudgetStatus {
                per_day: view.budget.per_day,
                per_month: view.budget.per_month,
                left: left.saturating_add(view.lane.allowance()),
            }),
            contact: view.contact.map(|contact| ContactStatus { until: contact.until, next: contact.next }),
            keepalive_seconds: view.keepalive_seconds,
            sent_control_bytes: view.sent_bytes[0],
            sent_bytes: std::array::from_fn(|class| view.sent_bytes[1 + class]),
            oneway: None,
        }
    }
}

/// What a test of a link found.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct LinkMeasured {
    /// Frames sent.
    pub sent: u32,
    /// Of these, acknowledged.
    pub acknowledged: u32,
    /// From sending each frame to its acknowledgement, in milliseconds: the shortest, the mean and the longest.
    pub round_trip_ms: Option<(u64, u64, u64)>,
    /// Share of the packets of the present connection that were lost so far; `None` where the lane does not say.
    pub loss: Option<f64>,
    /// What making the present connection took, in milliseconds; `None` where the peer dialled.
    pub handshake_ms: Option<u64>,
    /// Bytes that left meanwhile, all headers and other traffic included.
    pub bytes_up: u64,
    /// Bytes that arrived meanwhile.
    pub bytes_down: u64,
}

/// One peer's links, taken together.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct PeerStatus {
    /// Its identity.
    pub node: NodeId,
    /// What operators call it.
    pub name: PeerName,
    /// What its link is doing at this moment.
    pub state: PeerState,
    /// What it is found to be over time: the best of its links.
    pub reach: Reach,
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
