//! The journal's unit: one event with everything needed to forward, order and account for it.

use std::fmt;

use crate::{EntryId, Epoch, Hlc, Id, Label, Precedence, Seq, UnixMillis};

/// One captured event as it travels. Immutable once numbered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What relays and shapers may read.
    pub header: Header,
    /// The encoded [`crate::Event`]: the resulting state of the object with its version.
    pub body: Vec<u8>,
}

/// The clear part of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Origin, epoch and number; given at append.
    pub id: EntryId,
    /// Where in its source the event stood.
    pub source: SourcePosition,
    /// The ordering domain.
    pub stream: StreamId,
    /// Entries that must be accounted for at the receiver before this one is applied.
    pub causes: Vec<Cause>,
    /// The entry of this origin before this one in its stream and precedence: it is applied first, unless something more
    /// urgent needs this one. It is no cause: it is never sent ahead of its turn. Files and purges keep no order.
    pub after: Option<(Epoch, Seq)>,
    /// Sending class.
    pub precedence: Precedence,
    /// When the event was captured.
    pub captured: Hlc,
    /// When the user did it, by the origin's wall clock.
    pub origin_time: UnixMillis,
    /// After this moment the entry is not sent any more but accounted for as expired.
    pub expiry: Option<UnixMillis>,
    /// A newer entry with the same key makes this one moot while it is unsent.
    pub supersedes: Option<SupersessionKey>,
    /// Which links may carry it.
    pub label: Label,
    /// What kind of object the body holds.
    pub kind: Kind,
    /// Salt under which the ids in this entry shrink to counters; see [`crate::IdContext`].
    pub mint_salt: u64,
}

impl Header {
    /// As [`Header::after`], by identity.
    pub fn predecessor(&self) -> Option<EntryId> {
        self.after.map(|(epoch, seq)| EntryId { origin: self.id.origin, epoch, seq })
    }

    /// Entries of which the next one in the same place is the successor; `None` where there is no order.
    pub fn lane(&self) -> Option<(StreamId, Precedence)> {
        // A file's bytes may take hours, and an order to purge waits for nobody.
        let is_ordered = self.kind != Kind::File && self.stream != StreamId::Purge;
        is_ordered.then_some((self.stream, self.precedence))
    }
}

/// Hash of an entry: BLAKE3 over (hash of header bytes, hash of body bytes), first 16 bytes.
/// The body can be purged later and the hash still proves what stood there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryHash(pub [u8; 16]);

impl fmt::Debug for EntryHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for EntryHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

/// Position of an event in its source: the outbox row's hybrid clock, strictly increasing per node.
/// A restart continues after the highest one in the journal, so nothing is repeated or skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(transparent)]
pub struct SourcePosition(pub Hlc);

/// Ordering domain: entries of one origin, stream and precedence are applied in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StreamId {
    /// Users.
    Directory,
    /// A team and its membership.
    Team(Id),
    /// A channel, its membership, posts, reactions and files.
    Channel(Id),
    /// Orders to remove content: they wait for nothing else.
    Purge,
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory => f.write_str("directory"),
            Self::Team(id) => write!(f, "team:{id}"),
            Self::Channel(id) => write!(f, "channel:{id}"),
            Self::Purge => f.write_str("purge"),
        }
    }
}

/// An entry that must come first.
pub type Cause = EntryId;

/// Names the object state that an entry carries; equal keys supersede each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SupersessionKey(pub u64);

/// Node-local name of a mission object, for finding the entry that created it. Never leaves the node:
/// 64 bits of BLAKE3 over the [`crate::ObjectRef`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey(pub u64);

/// What an entry's body holds. The numbers are part of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Kind {
    /// A user's profile.
    User = 1,
    /// A team.
    Team = 2,
    /// Membership of a user in a team.
    TeamMember = 3,
    /// A channel.
    Channel = 4,
    /// Membership of a user in a channel.
    ChannelMember = 5,
    /// A post.
    Post = 6,
    /// A reaction, present or withdrawn.
    Reaction = 7,
    /// The bytes of a file, as a manifest of chunks.
    File = 8,
    /// An order to remove content.
    Purge = 9,
    /// A custom emoji with its image.
    Emoji = 10,
    /// An acknowledgement of a post, given or withdrawn.
    Acknowledgement = 11,
    /// A bookmark of a channel.
    Bookmark = 12,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 12] = [
        Self::User,
        Self::Team,
        Self::TeamMember,
        Self::Channel,
        Self::ChannelMember,
        Self::Post,
        Self::Reaction,
        Self::File,
        Self::Purge,
        Self::Emoji,
        Self::Acknowledgement,
        Self::Bookmark,
    ];

    /// The kind with this number.
    pub fn from_number(n: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|k| *k as u8 == n)
    }

    /// Name used in metrics and output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Team => "team",
            Self::TeamMember => "team_member",
            Self::Channel => "channel",
            Self::ChannelMember => "channel_member",
            Self::Post => "post",
            Self::Reaction => "reaction",
            Self::File => "file",
            Self::Purge => "purge",
            Self::Acknowledgement => "acknowledgement",
            Self::Bookmark => "bookmark",
            Self::Emoji => "emoji",
        }
    }
}

/// How an entry ended at one destination. Exactly one per entry and destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Outcome {
    /// Its effect is durable at the destination.
    Applied = 1,
    /// The destination cannot apply it; kept aside there with a reason.
    Quarantined = 2,
    /// Its expiry passed before it was sent.
    Expired = 3,
    /// A newer state made it moot before it was sent, or it was renumbered after a divergence.
    Superseded = 4,
    /// Policy does not release it to this destination.
    Withheld = 5,
    /// Its content was removed on order.
    Purged = 6,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 6] =
        [Self::Applied, Self::Quarantined, Self::Expired, Self::Superseded, Self::Withheld, Self::Purged];

    /// The outcome with this number.
    pub fn from_number(n: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|o| *o as u8 == n)
    }

    /// Name used in metrics and output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Quarantined => "quarantined",
            Self::Expired => "expired",
            Self::Superseded => "superseded",
            Self::Withheld => "withheld",
            Self::Purged => "purged",
        }
    }
}
