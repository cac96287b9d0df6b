//! What waits for each peer, and when it will be there: `holdfast backlog`, its metrics and its alarm.

mod estimate;

use std::time::Duration;

use carrier::{PeerState, TransitStatus, ViaStatus};
use journal::{Accounting, HeldByStream};
use link::SentSoFar;
use model::{BitsPerSecond, Precedence, UnixMillis};
use serde::{Deserialize, Serialize};

pub use estimate::{Basis, Eta, FrameRate, Meter, Progress, Ratios, Remaining, etas, remaining};

/// Name and version of the JSON form. Fields are only added within a version.
pub const SCHEMA: &str = "holdfast.backlog/1";

/// Streams in the answer for one peer; the others are counted.
const STREAMS_SHOWN: usize = 1_000;

/// Everything that `holdfast backlog` shows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Backlog {
    /// [`SCHEMA`].
    pub schema: String,
    /// When these figures were read, by the node's clock.
    pub at: UnixMillis,
    /// `false`: from the node's files, since it does not run; nothing is measured then.
    pub running: bool,
    /// Committed in the mission core and not yet in the journal, for whichever peers; `None` when the node does not run.
    pub capturing: Option<u64>,
    /// One per peer for which something was ever registered.
    pub peers: Vec<PeerBacklog>,
    /// What this node carries on for others, by destination; empty when it does not run.
    #[serde(default)]
    pub transit: Vec<TransitStatus>,
}

/// What waits for a peer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerBacklog {
    /// The name under which it was enrolled.
    pub name: String,
    /// State of the link, as in `status`; `None` when the node does not run.
    pub link: Option<String>,
    /// Entries without a final receipt.
    pub entries: u64,
    /// Of these, durable at the peer and waiting there.
    pub stored: u64,
    /// Of these, sent over the one-way lane as often as is configured, without any receipt: nobody knows whether they arrived.
    /// `None` without such a lane, and when the node does not run.
    #[serde(default)]
    pub sent_unconfirmed: Option<u64>,
    /// How the relay is by which they go; `None` without one, and when the node does not run.
    #[serde(default)]
    pub via: Option<ViaStatus>,
    /// What of them has not crossed, before packing.
    pub plain_bytes: u64,
    /// The same as frames on the link.
    pub link_bytes: u64,
    /// Whether the packing was measured.
    pub packing: Basis,
    /// Of the entries, files whose content the peer asks for only when somebody there wants it. They count as held, and not in
    /// what is to cross.
    pub on_request: u64,
    /// Their content.
    pub on_request_bytes: u64,
    /// Age of the oldest.
    pub oldest_seconds: Option<u64>,
    /// How fast frames reach the peer.
    pub rate: FrameRate,
    /// When all of it will have crossed, from now on where the link is up, else from when it is up.
    pub eta: Eta,
    /// Does `eta` count from when the link is up again?
    pub eta_from_link_up: bool,
    /// For how long nothing of it has moved; `None` while nothing is held, and when the node does not run.
    pub no_progress_seconds: Option<u64>,
    /// This has lasted for longer than `carrier.no_progress_after_minutes`.
    pub stalled: bool,
    /// By class, most urgent first.
    pub classes: Vec<ClassBacklog>,
    /// By stream and class: most urgent first, then the most bytes.
    pub streams: Vec<StreamBacklog>,
    /// Every held entry is in `streams`.
    pub streams_complete: bool,
}

/// What waits in one class.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassBacklog {
    /// Which.
    pub class: String,
    /// Entries without a final receipt.
    pub entries: u64,
    /// Of these, durable at the peer and waiting there.
    pub stored: u64,
    /// What of them has not crossed.
    #[serde(flatten)]
    pub remaining: Remaining,
    /// Age of the oldest.
    pub oldest_seconds: Option<u64>,
    /// When all of them will have crossed, counted as the peer's.
    pub eta: Eta,
}

/// What waits in one stream and class.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamBacklog {
    /// Which; `others` for those that are not told apart.
    pub stream: String,
    /// Its class.
    pub class: String,
    /// Entries without a final receipt.
    pub entries: u64,
    /// Of these, durable at the peer and waiting there.
    pub stored: u64,
    /// Their encoded size, with the whole content of files.
    pub plain_bytes: u64,
    /// Age of the oldest.
    pub oldest_seconds: u64,
}

/// What a peer's backlog is made from.
pub struct Parts<'a> {
    /// The peer's name.
    pub name: &'a str,
    /// State of its link; `None` when the node does not run.
    pub link: Option<&'a PeerState>,
    /// What is held for it.
    pub accounting: &'a Accounting,
    /// By stream; empty where that is not asked for.
    pub streams: HeldByStream,
    /// Held entries that the one-way lane has sent, unconfirmed.
    pub sent_unconfirmed: Option<u64>,
    /// What its session has sent.
    pub sent: &'a SentSoFar,
    /// Files that the peer asks for only on request, by class.
    pub on_request: [journal::Ahead; 5],
    /// How fast, as far as it was measured.
    pub measured: Option<FrameRate>,
    /// Ceiling of the link.
    pub ceiling: BitsPerSecond,
    /// For how long nothing has moved.
    pub stands_for: Option<Duration>,
    /// From when on that is an alarm; `None` for never.
    pub alarm_after: Option<Duration>,
}

impl PeerBacklog {
    /// At `now`.
    pub fn new(parts: Parts<'_>, now: UnixMillis) -> Self {
        let age = |at: Option<UnixMillis>| at.map(|at| crate::show::age(at, now).as_secs());
        let total = &parts.accounting.total;
        let to_cross = without(parts.accounting, &parts.on_request);
        let (remaining, packing) = remaining(&to_cross, parts.sent);
        let rate = parts.measured.unwrap_or_else(|| FrameRate::configured(parts.ceiling));
        let by_class = etas(&remaining, &rate);
        let link_bytes = remaining.iter().map(|r| r.link_bytes).sum();
        let classes = Precedence::ALL.map(|class| {
            let sums = &parts.accounting.by_class[class.index()];
            ClassBacklog {
                class: class.as_str().to_owned(),
                entries: sums.held,
                stored: sums.stored,
                remaining: remaining[class.index()],
                oldest_seconds: age(sums.oldest_held.filter(|_| sums.held > 0)),
                eta: by_class[class.index()],
            }
        });
        let streams_complete = parts.streams.complete && parts.streams.streams.len() <= STREAMS_SHOWN;
        let streams = parts.streams.streams.into_iter().take(STREAMS_SHOWN).map(|held| StreamBacklog {
            stream: held.stream.map_or("others".to_owned(), |stream| stream.to_string()),
            class: held.class.as_str().to_owned(),
            entries: held.entries,
            stored: held.stored,
            plain_bytes: held.bytes,
            oldest_seconds: crate::show::age(held.oldest, now).as_secs(),
        });
        Self {
            name: parts.name.to_owned(),
            link: parts.link.map(|state| state_name(state).to_owned()),
            entries: total.held,
            stored: total.stored,
            sent_unconfirmed: parts.sent_unconfirmed,
            via: if let Some(PeerState::Relayed { via }) = parts.link { Some(via.clone()) } else { None },
            plain_bytes: remaining.iter().map(|r| r.plain_bytes).sum(),
            link_bytes,
            packing,
            on_request: parts.on_request.iter().map(|files| files.entries).sum(),
            on_request_bytes: parts.on_request.iter().map(|files| files.bytes).sum(),
            oldest_seconds: age(total.oldest_held.filter(|_| total.held > 0)),
            eta: rate.time_for(link_bytes, 0),
            rate,
            eta_from_link_up: !matches!(parts.link, Some(PeerState::Up { .. })),
            no_progress_seconds: parts.stands_for.map(|d| d.as_secs()),
            stalled: is_stalled(parts.stands_for, parts.alarm_after),
            classes: classes.into(),
            streams: streams.collect(),
            streams_complete,
        }
    }
}

/// What is to cross without being asked for.
pub fn without(accounting: &Accounting, on_request: &[journal::Ahead; 5]) -> Accounting {
    let mut left = accounting.clone();
    for (sums, files) in left.by_class.iter_mut().zip(on_request) {
        sums.held_bytes = sums.held_bytes.saturating_sub(files.bytes);
    }
    left
}

/// Has nothing moved for too long?
fn is_stalled(stands_for: Option<Duration>, alarm_after: Option<Duration>) -> bool {
    alarm_after.is_some_and(|after| stands_for.is_some_and(|d| d >= after))
}

/// As `status` names it.
pub fn state_name(state: &PeerState) -> &'static str {
    match state {
        PeerState::Up { .. } => "up",
        PeerState::Connecting { .. } => "connecting",
        PeerState::Down { .. } => "down",
        PeerState::Silent => "silent",
        PeerState::OneWay => "one-way",
        PeerState::Relayed { .. } => "relayed",
        PeerState::Held { .. } => "held",
        PeerState::Denied { .. } => "denied",
    }
}
