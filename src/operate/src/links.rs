//! The links as the CLI sees them, and which of them a name means.

use carrier::{CarrierHandle, LinkMeasured, LinkName, LinkOrder, LinkStatus, OneWayReceived, OneWaySent, PeerState};
use model::{NodeId, UnixMillis};
use serde::{Deserialize, Serialize};

use crate::exit::{Exit, Failure, chain};

/// Answer to `GET /v1/links`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Links {
    /// `holdfast.links/1`.
    pub schema: String,
    /// By peer and link.
    pub links: Vec<LinkRow>,
    /// What came over one-way lanes; `None` where none is configured to arrive.
    #[serde(default)]
    pub oneway_in: Option<OneWayReceived>,
}

/// One link.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LinkRow {
    /// The peer's name.
    pub peer: String,
    /// The link's name.
    pub link: String,
    /// How frames travel over it: `quic`, `https` or `oneway`.
    pub lane: String,
    /// `up`, `connecting`, `down`, `denied`, `silent`, `held` or `one-way`.
    pub state: String,
    /// What it is found to be over time: `up`, `degraded`, `intermittent`, `denied`, `silent`, `down` or `held`.
    pub reach: String,
    /// Since when, where that is known.
    pub since: Option<UnixMillis>,
    /// Why, where there is something to say.
    pub detail: String,
    /// Ceiling for what is sent.
    pub rate_bits_per_second: u64,
    /// Smoothed round trip.
    pub round_trip_ms: Option<u64>,
    /// Share of the present connection's packets that were lost.
    pub loss: Option<f64>,
    /// What a megabyte costs.
    pub cost: u64,
    /// Classes that it carries.
    pub classes: Vec<String>,
    /// What it may spend.
    pub budget: Option<Budget>,
    /// When the present contact window ends.
    pub window_until: Option<UnixMillis>,
    /// When the next one begins.
    pub window_next: Option<UnixMillis>,
    /// Seconds between two signs of life while nothing else is sent; 0 for none at all.
    pub keepalive_seconds: u64,
    /// Bytes sent since the start, all headers included.
    pub wire_bytes_up: u64,
    /// Bytes received since the start, all headers included.
    pub wire_bytes_down: u64,
    /// Bytes of control frames handed to it since the start.
    pub control_bytes: u64,
    /// Bytes of frames handed to it since the start: flash, immediate, priority, routine, deferred.
    pub class_bytes: [u64; 5],
    /// What a one-way lane has sent; `None` for every other link.
    #[serde(default)]
    pub oneway: Option<OneWaySent>,
}

/// What a link may spend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budget {
    /// Bytes each day, UTC.
    pub per_day_bytes: Option<u64>,
    /// Bytes each month, UTC.
    pub per_month_bytes: Option<u64>,
    /// Bytes that may still leave.
    pub left_bytes: u64,
}

/// Body of `POST /v1/links/order`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkChange {
    /// `LINK`, or `PEER/LINK`.
    pub link: String,
    /// What it is to do.
    pub order: LinkOrder,
}

/// Body of `POST /v1/links/test`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkTest {
    /// `LINK`, or `PEER/LINK`.
    pub link: String,
}

/// Answer to `POST /v1/links/test`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LinkTested {
    /// `holdfast.link-test/1`.
    pub schema: String,
    /// The peer's name.
    pub peer: String,
    /// The link's name.
    pub link: String,
    /// What was found.
    #[serde(flatten)]
    pub measured: LinkMeasured,
}

/// Which peer and link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Which {
    /// The peer.
    pub node: NodeId,
    /// Its name.
    pub peer: String,
    /// The link.
    pub link: LinkName,
}

/// Every link of a running node.
pub fn list(carrier: &CarrierHandle) -> Links {
    let peers = carrier.status();
    let rows = peers.iter().flat_map(|peer| peer.links.iter().map(|link| row(peer.name.as_str(), link)));
    Links { schema: "holdfast.links/1".to_owned(), links: rows.collect(), oneway_in: carrier.oneway_received() }
}

/// The links of a running node, to be chosen from.
pub fn known(carrier: &CarrierHandle) -> Vec<Which> {
    let peers = carrier.status();
    let links = peers.iter().flat_map(|peer| {
        let which = |link: &LinkStatus| Which { node: peer.node, peer: peer.name.to_string(), link: link.name.clone() };
        peer.links.iter().map(which).collect::<Vec<_>>()
    });
    links.collect()
}

/// The link that a name means.
///
/// # Errors
/// When there is none, or more than one.
pub fn choose(known: Vec<Which>, name: &str) -> Result<Which, Failure> {
    let means = |which: &Which| which.link.as_str() == name || format!("{}/{}", which.peer, which.link) == name;
    let mut found: Vec<Which> = known.into_iter().filter(means).collect();
    match (found.pop(), found.is_empty()) {
        (Some(which), true) => Ok(which),
        (Some(_), false) => Err(Failure::with(
            Exit::Usage,
            format!("more than one peer has a link `{name}`; nothing was changed"),
            "write it as PEER/LINK",
        )),
        (None, _) => Err(Failure::with(
            Exit::Usage,
            format!("there is no link `{name}`; nothing was changed"),
            "see the links with `holdfast link list`",
        )),
    }
}

/// Orders something for a link of a running node.
///
/// # Errors
/// When there is no such link, or the order cannot be made durable.
pub fn order(carrier: &CarrierHandle, change: &LinkChange) -> Result<(), Failure> {
    let which = choose(known(carrier), &change.link)?;
    let ordered = carrier.order_link(which.node, &which.link, change.order);
    ordered.map_err(|e| Failure::new(chain(&e), e.next_step()))
}

/// Measures a link of a running node.
///
/// # Errors
/// When there is no such link, or it is not up.
pub async fn test(carrier: &CarrierHandle, name: &str) -> Result<LinkTested, Failure> {
    let which = choose(known(carrier), name)?;
    let measured = carrier.test_link(which.node, &which.link).await;
    let measured = measured.map_err(|e| Failure::new(chain(&e), e.next_step()))?;
    let schema = "holdfast.link-test/1".to_owned();
    Ok(LinkTested { schema, peer: which.peer, link: which.link.to_string(), measured })
}

fn row(peer: &str, link: &LinkStatus) -> LinkRow {
    let (since, detail) = match &link.state {
        PeerState::Up { since } => (Some(*since), ""),
        PeerState::Connecting { last } => (None, last.as_str()),
        PeerState::Down { since, last } => (*since, last.as_str()),
        PeerState::Silent | PeerState::OneWay | PeerState::Relayed { .. } => (None, ""),
        PeerState::Held { why } => (None, why.as_str()),
        PeerState::Denied { text } => (None, text.as_str()),
    };
    LinkRow {
        peer: peer.to_owned(),
        link: link.name.to_string(),
        lane: link.lane.to_string(),
        state: crate::backlog::state_name(&link.state).to_owned(),
        reach: link.reach.to_string(),
        since,
        detail: detail.to_owned(),
        rate_bits_per_second: link.rate.0,
        round_trip_ms: link.round_trip.map(|rtt| u64::try_from(rtt.as_millis()).unwrap_or(u64::MAX)),
        loss: link.loss,
        cost: link.cost,
        classes: link.classes.iter().map(ToString::to_string).collect(),
        budget: link.budget.map(|budget| Budget {
            per_day_bytes: budget.per_day,
            per_month_bytes: budget.per_month,
            left_bytes: budget.left,
        }),
        window_until: link.contact.and_then(|contact| contact.until),
        window_next: link.contact.and_then(|contact| contact.next),
        keepalive_seconds: link.keepalive_seconds,
        wire_bytes_up: link.wire_bytes_up,
        wire_bytes_down: link.wire_bytes_down,
        control_bytes: link.sent_control_bytes,
        class_bytes: link.sent_bytes,
        oneway: link.oneway.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn which(peer: &str, link: &str) -> Which {
        Which { node: NodeId([1; 16]), peer: peer.to_owned(), link: link.parse().unwrap() }
    }

    #[test]
    fn a_link_is_named_alone_where_that_is_enough() {
        let known = vec![which("alpha", "radio"), which("bravo", "radio"), which("bravo", "satellite")];
        assert_eq!(choose(known.clone(), "satellite").unwrap(), known[2]);
        assert_eq!(choose(known.clone(), "alpha/radio").unwrap(), known[0]);
        assert!(choose(known.clone(), "radio").unwrap_err().text.contains("more than one peer"));
        assert!(choose(known, "cable").unwrap_err().text.contains("no link"));
    }
}
