//! The values that metric labels can take.

use std::fmt;
use std::sync::Arc;

use model::{Outcome, Precedence, SpaceLevel};

/// A type whose values may stand behind a metric label.
pub trait LabelValue {
    /// Every value that can occur; empty when they are names from the configuration.
    fn values() -> Vec<&'static str>;

    /// This value as text.
    fn text(&self) -> &str;
}

macro_rules! label_enum {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident = $text:expr,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$vmeta])* $variant,)*
        }

        impl $name {
            /// Every value.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The value as it appears in the exposition.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }
        }

        impl LabelValue for $name {
            fn values() -> Vec<&'static str> {
                Self::ALL.iter().map(|v| v.as_str()).collect()
            }

            fn text(&self) -> &str {
                self.as_str()
            }
        }
    };
}

label_enum! {
    /// Which way bytes went, seen from this node.
    Direction {
        /// Sent.
        Up = "up",
        /// Received.
        Down = "down",
    }
}

label_enum! {
    /// What one link to a peer is found to be over time.
    LinkReach {
        /// Frames flow.
        Up = "up",
        /// Frames flow, with much loss, a long queue, or far less capacity than configured.
        Degraded = "degraded",
        /// It comes and goes.
        Intermittent = "intermittent",
        /// The peer, or this node, refuses the connection.
        Denied = "denied",
        /// Emission control or an order keeps this node silent on it.
        Silent = "silent",
        /// No path; tried again by itself.
        Down = "down",
        /// Paused, without budget or outside its contact windows.
        Held = "held",
        /// Nobody can tell: nothing comes back.
        OneWay = "one-way",
        /// By way of a relay.
        Relayed = "relayed",
    }
}

label_enum! {
    /// What the link to a peer is doing.
    LinkState {
        /// No path; tried again by itself.
        Down = "down",
        /// A connection is being made or greeted.
        Connecting = "connecting",
        /// Frames flow.
        Up = "up",
        /// Emission control keeps this node silent towards the peer.
        Silent = "silent",
        /// Its links are paused, without budget or outside their contact windows.
        Held = "held",
        /// A one-way lane is all there is to the peer.
        OneWay = "one-way",
        /// It is reached by way of a relay.
        Relayed = "relayed",
    }
}

label_enum! {
    /// A term of the equation `accepted = applied + held + quarantined + expired + superseded + withheld + purged`.
    Term {
        /// Entries accepted on this node, counted from the committed outbox row.
        Accepted = "accepted",
        /// Their effect is durable at the destination.
        Applied = "applied",
        /// Not final yet: still here, on the way, or stored there and not applied.
        Held = "held",
        /// The destination cannot apply them; kept aside there.
        Quarantined = "quarantined",
        /// Their expiry passed before they were sent.
        Expired = "expired",
        /// A newer state made them moot.
        Superseded = "superseded",
        /// Policy does not release them to this destination.
        Withheld = "withheld",
        /// Their content was removed on order.
        Purged = "purged",
    }
}

impl From<Outcome> for Term {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Applied => Self::Applied,
            Outcome::Quarantined => Self::Quarantined,
            Outcome::Expired => Self::Expired,
            Outcome::Superseded => Self::Superseded,
            Outcome::Withheld => Self::Withheld,
            Outcome::Purged => Self::Purged,
        }
    }
}

label_enum! {
    /// Why the journal took nothing.
    Refusal {
        /// The configured limit, or the reserve below it.
        Limit = "limit",
        /// The disk is full, or near enough.
        Space = "space",
        /// Too much waits for the disk already.
        Busy = "busy",
        /// What was asked for is too large or no entry.
        Invalid = "invalid",
        /// An entry before it was refused.
        OutOfOrder = "out_of_order",
        /// The disk failed, at reading or writing.
        Failed = "failed",
        /// The journal is being closed.
        Closed = "closed",
    }
}
label_enum! {
    /// HTTP status by its first digit.
    StatusClass {
        /// 100 to 199; a WebSocket upgrade counts here.
        Informational = "1xx",
        /// 200 to 299.
        Success = "2xx",
        /// 300 to 399.
        Redirection = "3xx",
        /// 400 to 499.
        ClientError = "4xx",
        /// 500 and above.
        ServerError = "5xx",
    }
}

impl StatusClass {
    /// The class of a status code.
    pub fn of(status: u16) -> Self {
        match status / 100 {
            0 | 1 => Self::Informational,
            2 => Self::Success,
            3 => Self::Redirection,
            4 => Self::ClientError,
            _ => Self::ServerError,
        }
    }
}

label_enum! {
    /// What an HTTP request to the mission core was for.
    RequestKind {
        /// Reads.
        Read = "read",
        /// Changes.
        Write = "write",
        /// File bytes, either way.
        File = "file",
    }
}

label_enum! {
    /// Objects of the mission core that are counted.
    ObjectCount {
        /// Users that are not deactivated.
        Users = "users",
        /// Teams.
        Teams = "teams",
        /// Channels that are not archived.
        Channels = "channels",
        /// Posts that are not deleted.
        Posts = "posts",
        /// Files.
        Files = "files",
    }
}

label_enum! {
    /// Why a parcel was not taken.
    ParcelRefusal {
        /// Damaged, or no parcel.
        Damaged = "damaged",
        /// For another node.
        OtherNode = "other_node",
        /// From a node that is not enrolled here.
        UnknownOrigin = "unknown_origin",
        /// Altered, forged, or sealed for a key that is gone.
        NotGenuine = "not_genuine",
        /// Its content breaks the protocol.
        Protocol = "protocol",
        /// It could not be stored.
        Store = "store",
        /// For a node that cannot be reached from here, or this node carries nothing for others.
        NoWay = "no_way",
        /// Its labels are not released to the node that it is for.
        NotReleased = "not_released",
        /// There was no room for it.
        Full = "full",
    }
}

label_enum! {
    /// What is probed on the way to Microsoft 365.
    MicrosoftDestination {
        /// Where to sign in.
        Entra = "entra",
        /// Where everything else is.
        Graph = "graph",
    }
}

label_enum! {
    /// What a destination of Microsoft is found to be over time.
    MicrosoftReach {
        /// It does not answer, or nothing may leave.
        Down = "down",
        /// It answered, or was not probed yet.
        Probing = "probing",
        /// It answers often, not always.
        Degraded = "degraded",
        /// It answers.
        Up = "up",
    }
}

label_enum! {
    /// What came of a probe.
    MicrosoftProbe {
        /// The real service answered.
        Good = "good",
        /// It did not.
        Bad = "bad",
        /// Nothing may leave: none was sent.
        Held = "held",
    }
}

label_enum! {
    /// A service behind Microsoft Graph; each fails and is throttled by itself.
    MicrosoftService {
        /// Users and groups.
        Directory = "directory",
        /// Teams, channels and chats.
        Teams = "teams",
        /// Mailboxes and calendars.
        Outlook = "outlook",
        /// Files and lists.
        SharePoint = "sharepoint",
        /// Planner.
        Planner = "planner",
        /// The rest.
        Other = "other",
    }
}

label_enum! {
    /// How a call to Microsoft Graph ended.
    MicrosoftOutcome {
        /// With success.
        Done = "done",
        /// Not sent.
        Held = "held",
        /// Held back by a limit, or refused for speed.
        Throttled = "throttled",
        /// Refused.
        Refused = "refused",
        /// Nobody knows.
        Unknown = "unknown",
        /// Without a token.
        SignIn = "sign_in",
        /// With an answer that is not understood.
        Broken = "broken",
    }
}

label_enum! {
    /// What this node is.
    Role {
        /// A tactical site.
        Edge = "edge",
        /// The side that edges connect to.
        Hub = "hub",
    }
}

label_enum! {
    /// The version that was built.
    Build {
        /// The version in the workspace manifest.
        This = env!("CARGO_PKG_VERSION"),
    }
}

impl LabelValue for Precedence {
    fn values() -> Vec<&'static str> {
        Self::ALL.iter().map(|p| p.as_str()).collect()
    }

    fn text(&self) -> &str {
        self.as_str()
    }
}

impl LabelValue for SpaceLevel {
    fn values() -> Vec<&'static str> {
        Self::ALL.iter().map(|level| level.as_str()).collect()
    }

    fn text(&self) -> &str {
        self.as_str()
    }
}

/// Configured name of a link to a peer; at most eight for each peer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkName(Arc<str>);

impl LinkName {
    /// The name in the configuration.
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }
}

impl LabelValue for LinkName {
    fn values() -> Vec<&'static str> {
        Vec::new()
    }

    fn text(&self) -> &str {
        &self.0
    }
}

/// Configured name of an enrolled peer; as many values as there are peers in the registry.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerName(Arc<str>);

impl PeerName {
    /// The name under which the operator enrolled the peer.
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }
}

impl fmt::Display for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl LabelValue for PeerName {
    fn values() -> Vec<&'static str> {
        Vec::new()
    }

    fn text(&self) -> &str {
        &self.0
    }
}

/// A peer seen as the place where entries end.
pub type Destination = PeerName;

/// The label values of one metric, in the order of its row.
pub trait LabelSet {
    /// Every combination that can occur; empty when a label takes names from the configuration.
    fn combinations() -> Vec<Vec<&'static str>>;

    /// Calls `f` with the values as text.
    fn with<R>(&self, f: impl FnOnce(&[&str]) -> R) -> R;
}

impl LabelSet for () {
    fn combinations() -> Vec<Vec<&'static str>> {
        vec![Vec::new()]
    }

    fn with<R>(&self, f: impl FnOnce(&[&str]) -> R) -> R {
        f(&[])
    }
}

impl<A: LabelValue> LabelSet for (A,) {
    fn combinations() -> Vec<Vec<&'static str>> {
        A::values().into_iter().map(|a| vec![a]).collect()
    }

    fn with<R>(&self, f: impl FnOnce(&[&str]) -> R) -> R {
        f(&[self.0.text()])
    }
}

impl<A: LabelValue, B: LabelValue> LabelSet for (A, B) {
    fn combinations() -> Vec<Vec<&'static str>> {
        let pair = |a| B::values().into_iter().map(move |b| vec![a, b]);
        A::values().into_iter().flat_map(pair).collect()
    }

    fn with<R>(&self, f: impl FnOnce(&[&str]) -> R) -> R {
        f(&[self.0.text(), self.1.text()])
    }
}

impl<A: LabelValue, B: LabelValue, C: LabelValue> LabelSet for (A, B, C) {
    fn combinations() -> Vec<Vec<&'static str>> {
        let more = |pair: Vec<&'static str>| {
            C::values().into_iter().map(move |c| [pair.as_slice(), &[c]].concat()).collect::<Vec<_>>()
        };
        <(A, B)>::combinations().into_iter().flat_map(more).collect()
    }

    fn with<R>(&self, f: impl FnOnce(&[&str]) -> R) -> R {
        f(&[self.0.text(), self.1.text(), self.2.text()])
    }
}
