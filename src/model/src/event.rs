//! What happened in the mission core, as the resulting state of one object.
//!
//! Field names and meanings follow Mattermost's models (`server/public/model/*.go`). Times are Mattermost
//! milliseconds. What is private to a node (credentials, read marks, preferences, statuses) is not here.
//! The CBOR numbers are part of the format: add fields at the end as `Option`, never renumber.

use minicbor::{Decode, Encode};

use crate::{
    EntraKey, Epoch, Id, IdContext, Kind, Label, Manifest, NodeId, ObjectKey, RangeSet, StreamId, UnixMillis, Version,
};

/// The state of one object after a change.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each variant is named after its state")]
pub enum Event {
    User(UserState),
    Team(TeamState),
    TeamMember(TeamMemberState),
    Channel(ChannelState),
    ChannelMember(ChannelMemberState),
    Post(PostState),
    Reaction(ReactionState),
    File(FileState),
    Purge(PurgeState),
    Acknowledgement(AcknowledgementState),
    Bookmark(BookmarkState),
    Emoji(EmojiState),
}

/// A user's public profile. No roles and no credentials: those are each node's own.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(context_bound = "IdContext")]
#[allow(missing_docs, reason = "Mattermost field names")]
pub struct UserState {
    #[n(0)]
    pub version: Version,
    #[n(1)]
    pub id: Id,
    #[n(2)]
    pub create_at: UnixMillis,
    #[n(3)]
    pub update_at: UnixMillis,
    #[n(4)]
    pub delete_at: UnixMillis,
    #[n(5)]
    pub username: String,
    #[n(6)]
    pub email: String,
    #[n(7)]
    pub nickname: String,
    #[n(8)]
    pub first_name: String,
    #[n(9)]
    pub last_name: String,
    #[n(10)]
    pub position: String,
    #[n(11)]
    pub locale: String,
    #[n(12)]
    pub is_bot: bool,
    /// Who this is in Entra, for people that came from there: every node finds them by it.
    #[n(13)]
    pub entra: Option<EntraKey>,
}

/// A team.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(context_bound = "IdContext")]
#[allow(missing_docs, reason = "Mattermost field names")]
pub struct TeamState {
    #[n(0)]
    pub version: Version,
    #[n(1)]
    pub id: Id,
    #[n(2)]
    pub create_at: UnixMillis,
    #[n(3)]
    pub update_at: UnixMillis,
    #[n(4)]
    pub delete_at: UnixMillis,
    #[n(5)]
    pub name: String,
    #[n(6)]
    pub display_name: String,
    #[n(7)]
    pub description: String,
    /// "O" (open) or "I" (invite only).
    #[n(8)]
    pub kind: String,
    #[n(9)]
    pub allow_open_invite: bool,
}

/// Membership of a user in a team.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(context_bound = "IdContext")]
#[allow(missing_docs, reason = "Mattermost field names")]
pub struct TeamMemberState {
    #[n(0)]
    pub version: Version,
    #[n(1)]
    pub team_id: Id,
    #[n(2)]
    pub user_id: Id,
    #[n(3)]
    pub create_at: UnixMillis,
    /// 0 while the user is a member.
    #[n(4)]
    pub delete_at: UnixMillis,
    #[n(5)]
    pub scheme_admin: bool,
}

/// A channel.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(context_bound = "IdContext")]
#[allow(missing_docs, reason = "Mattermost field names")]
pub struct ChannelState {
    #[n(0)]
    pub version: Version,
    #[n(1)]
    pub id: Id,
    #[n(2)]
    pub create_at: UnixMillis,
    #[n(3)]
    pub update_at: UnixMillis,
    #[n(4)]
    pub delete_at: UnixMillis,
    /// `None` for direct and group channels.
    #[n(5)]
    pub team_id: Option<Id>,
    /// "O", "P", "D" or "G".
    #[n(6)]
    pub kind: String,
    #[n(7)]
    pub name: String,
    #[n(8)]
    pub display_name: String,
    #[n(9)]
    pub header: String,
    #[n(10)]
    pub purpose: String,
    #[n(11)]
    pub creator_id: Option<Id>,
}

/// Membership of a user in a channel.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(context_bound = "IdContext")]
#[allow(missing_docs, reason = "Mattermost field names")]
pub struct ChannelMemberState {
    #[n(0)]
    pub version: Version,
    #[n(1)]
    pub channel_id: Id,
    #[n(2)]
    pub user_id: Id,
    #[n(3)]
    pub create_at: UnixMillis,
    /// 0 while the user is a member. (Mattermost deletes the row; we keep the state so that it has a version.)
    #[n(4)]
    pub delete_at: UnixMillis,
    #[n(5)]
    pub scheme_admin: bool,
}

/// A post. `update_at` merges by maximum; the other fields follow the version.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(context_bound = "IdContext")]
#[allow(missing_docs, reason = "Mattermost field names")]
pub struct PostState {
    #[n(0)]
    pub version: Version,
    #[n(1)]
    pub id: Id,
    #[n(2)]
    pub channel_id: Id,
    #[n(3)]
    pub user_id: Id,
    #[n(4)]
    pub root_id: Option<Id>,
    #[n(5)]
    pub create_at: UnixMillis,
    #[n(6)]
    pub update_at: UnixMillis,
    #[n(7)]
    pub edit_at: UnixMillis,
    #[n(8)]
    pub delete_at: UnixMillis,
    #[n(9)]
    pub message: String,
    /// "" for an ordinary post, else a Mattermost post type such as "system_join_channel".
    #[n(10)]
    pub kind: String,
    /// JSON object as text; "" when empty.
    #[n(11)]
    pub props: String,
    #[n(12)]
    pub hashtags: String,
    #[n(13)]
    pub is_pinned: bool,
    #[n(14)]
    pub files: Vec<FileStub>,
    #[n(15)]
    pub priority: Option<PostPriority>,
}

/// What a reader sees of a file before its bytes have arrived.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(context_bound = "IdContext")]
#[allow(missing_docs, reason = "Mattermost FileInfo field names")]
pub struct FileStub {
    #[n(0)]
    pub id: Id,
    #[n(1)]
    pub create_at: UnixMillis,
    #[n(2)]
    pub name: String,
    #[n(3)]
    pub extension: String,
    /// Bytes.
    #[n(4)]
    pub size: u64,
    #[n(5)]
    pub mime_type: String,
    /// Pixels; 0 when not an image.
    #[n(6)]
    pub width: u32,
    /// Pixels; 0 when not an image.
    #[n(7)]
    pub height: u32,
}

/// `metadata.priority` of a root post.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct PostPriority {
    /// "urgent", "important" or "" (standard).
    #[n(0)]
    pub priority: String,
    /// The author asked for acknowledgements.
    #[n(1)]
    pub requested_ack: bool,
    /// The author asked for repeated notification.
    #[n(2)]
    pub persistent_notifications: bool,
}

/// A reaction, present (`delete_at` 0) or withdrawn.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(context_bound = "IdContext")]
#[allow(missing_docs, reason = "Mattermost field names")]
pub struct ReactionState {
    #[n(0)]
    pub version: Version,
    #[n(1)]
    pub post_id: Id,
    #[n(2)]
    pub user_id: Id,
    #[n(3)]
    pub emoji_name: String,
    #[n(4)]
    pub channel_id: Id,
    #[n(5)]
    pub create_at: UnixMillis,
    #[n(6)]
    pub update_at: UnixMillis,
    #[n(7)]
    pub delete_at: UnixMillis,
    /// Mattermost bumps the post's `update_at` with each reaction; merged by maximum.
    #[n(8)]
    pub post_update_at: UnixMillis,
}

/// The bytes of a file that a post refers to.
///
/// In the outbox `content` is `None` (the bytes lie in the core's file store); capture chunks them into the
/// journal and fills it in.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(context_bound = "IdContext")]
#[allow(missing_docs, reason = "Mattermost field names")]
pub struct FileState {
    #[n(0)]
    pub version: Version,
    #[n(1)]
    pub stub: FileStub,
    #[n(2)]
    pub user_id: Id,
    #[n(3)]
    pub channel_id: Id,
    #[n(4)]
    pub post_id: Option<Id>,
    #[n(5)]
    pub content: Option<Manifest>,
}

/// An order to remove content everywhere it went. It carries no content itself.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(context_bound = "IdContext")]
pub struct PurgeState {
    /// Also the version that the emptied posts have from then on.
    #[n(0)]
    pub version: Version,
    /// Identity of the order.
    #[n(1)]
    pub id: Id,
    /// When it was given.
    #[n(2)]
    pub at: UnixMillis,
    /// Who gave it.
    #[n(3)]
    pub by: String,
    /// Why.
    #[n(4)]
    pub reason: String,
    /// Posts that go, with their edits and reactions.
    #[n(5)]
    pub posts: Vec<Id>,
    /// Files whose bytes go, those of the posts among them.
    #[n(6)]
    pub files: Vec<Id>,
    /// Entries that hold the content, as far as the node that gave the order knows them: a receiver takes none of them
    /// in afterwards.
    #[n(7)]
    pub entries: Vec<EntryNumbers>,
    /// The files of the posts stay.
    #[n(8)]
    pub keep_files: bool,
    /// Other files with the same bytes go too, and chunks that other files share.
    #[n(9)]
    pub everywhere_used: bool,
    /// Release label of the content, so that the order goes where the content could go.
    #[n(10)]
    pub label: Option<Label>,
    /// Channel of the content: its release rule decides where no label is known.
    #[n(11)]
    pub channel_id: Option<Id>,
}

/// A custom emoji with its image.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(context_bound = "IdContext")]
#[allow(missing_docs, reason = "Mattermost field names")]
pub struct EmojiState {
    #[n(0)]
    pub version: Version,
    #[n(1)]
    pub id: Id,
    #[n(2)]
    pub create_at: UnixMillis,
    #[n(3)]
    pub update_at: UnixMillis,
    /// 0 while the emoji is there.
    #[n(4)]
    pub delete_at: UnixMillis,
    #[n(5)]
    pub creator_id: Id,
    #[n(6)]
    pub name: String,
    /// PNG, JPEG, GIF or WebP, at most [`EmojiState::IMAGE_BYTES_MAX`]; empty when deleted.
    #[cbor(n(7), with = "minicbor::bytes")]
    pub image: Vec<u8>,
}

impl EmojiState {
    /// Largest image, as Mattermost's: half of what an entry can hold.
    pub const IMAGE_BYTES_MAX: usize = 512 * 1024;
}

/// An acknowledgement of a post.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(context_bound = "IdContext")]
#[allow(missing_docs, reason = "Mattermost field names")]
pub struct AcknowledgementState {
    #[n(0)]
    pub version: Version,
    #[n(1)]
    pub post_id: Id,
    #[n(2)]
    pub user_id: Id,
    #[n(3)]
    pub channel_id: Id,
    /// 0 once it is withdrawn.
    #[n(4)]
    pub acknowledged_at: UnixMillis,
    /// As with reactions: merged by maximum.
    #[n(5)]
    pub post_update_at: UnixMillis,
}

/// A bookmark of a channel, present (`delete_at` 0) or removed.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(context_bound = "IdContext")]
#[allow(missing_docs, reason = "Mattermost field names")]
pub struct BookmarkState {
    #[n(0)]
    pub version: Version,
    #[n(1)]
    pub id: Id,
    #[n(2)]
    pub create_at: UnixMillis,
    #[n(3)]
    pub update_at: UnixMillis,
    #[n(4)]
    pub delete_at: UnixMillis,
    #[n(5)]
    pub channel_id: Id,
    #[n(6)]
    pub owner_id: Id,
    /// "link" or "file".
    #[n(7)]
    pub kind: String,
    /// Of a file; its bytes travel as a `File` of their own.
    #[n(8)]
    pub file: Option<FileStub>,
    #[n(9)]
    pub display_name: String,
    #[n(10)]
    pub sort_order: i64,
    #[n(11)]
    pub link_url: String,
    #[n(12)]
    pub image_url: String,
    #[n(13)]
    pub emoji: String,
    /// The bookmark that this one replaced, when somebody else than its owner changed it.
    #[n(14)]
    pub original_id: Option<Id>,
}

/// Numbers of one epoch of one origin.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct EntryNumbers {
    /// Whose.
    #[n(0)]
    pub origin: NodeId,
    /// Of which numbering.
    #[n(1)]
    pub epoch: Epoch,
    /// Which.
    #[n(2)]
    pub numbers: RangeSet,
}

/// Which object an event is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "each variant holds the object's key")]
pub enum ObjectRef {
    User(Id),
    Team(Id),
    TeamMember(Id, Id),
    Channel(Id),
    ChannelMember(Id, Id),
    Post(Id),
    Reaction(Id, Id, String),
    File(Id),
    Purge(Id),
    Acknowledgement(Id, Id),
    Bookmark(Id),
    Emoji(Id),
}

impl ObjectRef {
    /// The node-local key under which the journal finds the entry that created the object.
    pub fn key(&self) -> ObjectKey {
        let mut hash = blake3::Hasher::new_derive_key("holdfast object key v1");
        let mut put = |kind: Kind, parts: &[&str]| {
            hash.update(&[kind as u8]);
            for part in parts {
                hash.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
            }
        };
        match self {
            Self::User(a) => put(Kind::User, &[a.as_str()]),
            Self::Team(a) => put(Kind::Team, &[a.as_str()]),
            Self::TeamMember(a, b) => put(Kind::TeamMember, &[a.as_str(), b.as_str()]),
            Self::Channel(a) => put(Kind::Channel, &[a.as_str()]),
            Self::ChannelMember(a, b) => put(Kind::ChannelMember, &[a.as_str(), b.as_str()]),
            Self::Post(a) => put(Kind::Post, &[a.as_str()]),
            Self::Reaction(a, b, emoji) => put(Kind::Reaction, &[a.as_str(), b.as_str(), emoji]),
            Self::File(a) => put(Kind::File, &[a.as_str()]),
            Self::Purge(a) => put(Kind::Purge, &[a.as_str()]),
            Self::Acknowledgement(a, b) => put(Kind::Acknowledgement, &[a.as_str(), b.as_str()]),
            Self::Bookmark(a) => put(Kind::Bookmark, &[a.as_str()]),
            Self::Emoji(a) => put(Kind::Emoji, &[a.as_str()]),
        }
        let mut first = [0u8; 8];
        first.copy_from_slice(&hash.finalize().as_bytes()[..8]);
        ObjectKey(u64::from_le_bytes(first))
    }
}

impl Event {
    /// The kind number under which the event travels.
    pub fn kind(&self) -> Kind {
        match self {
            Self::User(_) => Kind::User,
            Self::Team(_) => Kind::Team,
            Self::TeamMember(_) => Kind::TeamMember,
            Self::Channel(_) => Kind::Channel,
            Self::ChannelMember(_) => Kind::ChannelMember,
            Self::Post(_) => Kind::Post,
            Self::Reaction(_) => Kind::Reaction,
            Self::File(_) => Kind::File,
            Self::Purge(_) => Kind::Purge,
            Self::Acknowledgement(_) => Kind::Acknowledgement,
            Self::Bookmark(_) => Kind::Bookmark,
            Self::Emoji(_) => Kind::Emoji,
        }
    }

    /// The object that the event is about.
    pub fn object(&self) -> ObjectRef {
        match self {
            Self::User(s) => ObjectRef::User(s.id),
            Self::Team(s) => ObjectRef::Team(s.id),
            Self::TeamMember(s) => ObjectRef::TeamMember(s.team_id, s.user_id),
            Self::Channel(s) => ObjectRef::Channel(s.id),
            Self::ChannelMember(s) => ObjectRef::ChannelMember(s.channel_id, s.user_id),
            Self::Post(s) => ObjectRef::Post(s.id),
            Self::Reaction(s) => ObjectRef::Reaction(s.post_id, s.user_id, s.emoji_name.clone()),
            Self::File(s) => ObjectRef::File(s.stub.id),
            Self::Purge(s) => ObjectRef::Purge(s.id),
            Self::Acknowledgement(s) => ObjectRef::Acknowledgement(s.post_id, s.user_id),
            Self::Bookmark(s) => ObjectRef::Bookmark(s.id),
            Self::Emoji(s) => ObjectRef::Emoji(s.id),
        }
    }

    /// The version of the state.
    pub fn version(&self) -> Version {
        match self {
            Self::User(s) => s.version,
            Self::Team(s) => s.version,
            Self::TeamMember(s) => s.version,
            Self::Channel(s) => s.version,
            Self::ChannelMember(s) => s.version,
            Self::Post(s) => s.version,
            Self::Reaction(s) => s.version,
            Self::File(s) => s.version,
            Self::Purge(s) => s.version,
            Self::Acknowledgement(s) => s.version,
            Self::Bookmark(s) => s.version,
            Self::Emoji(s) => s.version,
        }
    }

    /// The ordering domain.
    pub fn stream(&self) -> StreamId {
        match self {
            Self::User(_) | Self::Emoji(_) => StreamId::Directory,
            Self::Team(s) => StreamId::Team(s.id),
            Self::TeamMember(s) => StreamId::Team(s.team_id),
            Self::Channel(s) => StreamId::Channel(s.id),
            Self::ChannelMember(s) => StreamId::Channel(s.channel_id),
            Self::Post(s) => StreamId::Channel(s.channel_id),
            Self::Reaction(s) => StreamId::Channel(s.channel_id),
            Self::File(s) => StreamId::Channel(s.channel_id),
            Self::Purge(_) => StreamId::Purge,
            Self::Acknowledgement(s) => StreamId::Channel(s.channel_id),
            Self::Bookmark(s) => StreamId::Channel(s.channel_id),
        }
    }

    /// Objects that must exist where this state is applied. File bytes are never among them: a post
    /// whose file has not arrived is shown with a placeholder.
    pub fn needs(&self) -> Vec<ObjectRef> {
        match self {
            // A purge waits for nothing, not even for what it purges.
            Self::User(_) | Self::Team(_) | Self::Purge(_) => Vec::new(),
            Self::TeamMember(s) => vec![ObjectRef::Team(s.team_id), ObjectRef::User(s.user_id)],
            Self::Channel(s) => {
                let team = s.team_id.map(ObjectRef::Team);
                team.into_iter().chain(s.creator_id.map(ObjectRef::User)).collect()
            }
            Self::ChannelMember(s) => {
                vec![ObjectRef::Channel(s.channel_id), ObjectRef::User(s.user_id)]
            }
            Self::Post(s) => {
                let mut needs = vec![ObjectRef::Channel(s.channel_id), ObjectRef::User(s.user_id)];
                needs.extend(s.root_id.map(ObjectRef::Post));
                needs
            }
            Self::Reaction(s) => vec![ObjectRef::Post(s.post_id), ObjectRef::User(s.user_id)],
            Self::File(s) => vec![ObjectRef::Channel(s.channel_id)],
            Self::Acknowledgement(s) => vec![ObjectRef::Post(s.post_id), ObjectRef::User(s.user_id)],
            Self::Bookmark(s) => vec![ObjectRef::Channel(s.channel_id), ObjectRef::User(s.owner_id)],
            Self::Emoji(s) => vec![ObjectRef::User(s.creator_id)],
        }
    }

    /// Encodes the state. `ctx` decides how ids are written.
    pub fn encode_with<C: IdContext>(&self, ctx: &mut C) -> Vec<u8> {
        const INFALLIBLE: &str = "writing to a Vec cannot fail";
        match self {
            Self::User(s) => minicbor::to_vec_with(s, ctx),
            Self::Team(s) => minicbor::to_vec_with(s, ctx),
            Self::TeamMember(s) => minicbor::to_vec_with(s, ctx),
            Self::Channel(s) => minicbor::to_vec_with(s, ctx),
            Self::ChannelMember(s) => minicbor::to_vec_with(s, ctx),
            Self::Post(s) => minicbor::to_vec_with(s, ctx),
            Self::Reaction(s) => minicbor::to_vec_with(s, ctx),
            Self::File(s) => minicbor::to_vec_with(s, ctx),
            Self::Purge(s) => minicbor::to_vec_with(s, ctx),
            Self::Acknowledgement(s) => minicbor::to_vec_with(s, ctx),
            Self::Bookmark(s) => minicbor::to_vec_with(s, ctx),
            Self::Emoji(s) => minicbor::to_vec_with(s, ctx),
        }
        .expect(INFALLIBLE)
    }

    /// Decodes a state of the given kind.
    ///
    /// # Errors
    /// When the bytes are not such a state, or hold an id that `ctx` cannot expand.
    pub fn decode_with<C: IdContext>(kind: Kind, bytes: &[u8], ctx: &mut C) -> Result<Self, minicbor::decode::Error> {
        Ok(match kind {
            Kind::User => Self::User(minicbor::decode_with(bytes, ctx)?),
            Kind::Team => Self::Team(minicbor::decode_with(bytes, ctx)?),
            Kind::TeamMember => Self::TeamMember(minicbor::decode_with(bytes, ctx)?),
            Kind::Channel => Self::Channel(minicbor::decode_with(bytes, ctx)?),
            Kind::ChannelMember => Self::ChannelMember(minicbor::decode_with(bytes, ctx)?),
            Kind::Post => Self::Post(minicbor::decode_with(bytes, ctx)?),
            Kind::Reaction => Self::Reaction(minicbor::decode_with(bytes, ctx)?),
            Kind::File => Self::File(minicbor::decode_with(bytes, ctx)?),
            Kind::Purge => Self::Purge(minicbor::decode_with(bytes, ctx)?),
            Kind::Acknowledgement => Self::Acknowledgement(minicbor::decode_with(bytes, ctx)?),
            Kind::Bookmark => Self::Bookmark(minicbor::decode_with(bytes, ctx)?),
            Kind::Emoji => Self::Emoji(minicbor::decode_with(bytes, ctx)?),
        })
    }
}
