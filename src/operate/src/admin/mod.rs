//! The admin socket: how the CLI talks to the running node.
//!
//! `<data>/admin.sock` is a Unix socket with mode 0600 in a directory of mode 0700: whoever may open it owns the
//! node's files anyway, so there is no further sign-in. It speaks HTTP/1.1 with JSON bodies:
//!
//! ```text
//!  GET    /v1/status             Status
//!  GET    /v1/backlog            Backlog
//!  POST   /v1/why                {"target"}                               -> Why
//!  POST   /v1/simulate           SimulateRequest                          -> Forecast
//!  POST   /v1/file               {"id", "class"}: asks for it with a class  -> FileView
//!  POST   /v1/emission           {"mode": "silent"}                       -> {}
//!  GET    /v1/links              Links
//!  POST   /v1/links/order        LinkChange                               -> {}
//!  POST   /v1/links/test         LinkTest                                 -> LinkTested
//!  POST   /v1/user               {"username", "email", "password", "admin"} -> {"id", "username"}
//!  POST   /v1/user/password      {"username", "password"}                 -> {}
//!  POST   /v1/journal/hold       {"name", "hold"}                       -> HoldChanged
//!  GET    /v1/peers              Peers
//!  POST   /v1/peers/invite       {"name", "address", "valid_seconds"}     -> Token
//!  POST   /v1/peers/join         {"token"}                                -> Joined
//!  POST   /v1/peers/accept       {"card"}                                 -> PeerRow
//!  POST   /v1/peers/remove       {"name"}                                 -> {}
//!  GET    /v1/keys               KeyList
//!  POST   /v1/keys/rotate        null                                     -> Rotated
//!  POST   /v1/keys/rewrite       null, again until it says `finished`     -> Rewriting
//!  POST   /v1/stop               null: the node stops in order            -> {}
//!  POST   /v1/journal            Upkeep                                   -> UpkeepDone
//!  POST   /v1/purge/preview      PurgeRequest                             -> what would go
//!  POST   /v1/purge              PurgeRequest                             -> {"ids"}
//!  GET    /v1/purges             Purges
//!  POST   /v1/courier            CourierAsk                               -> CourierAnswer
//!  POST   /v1/directory          DirectoryAsk                             -> DirectoryAnswer
//!  POST   /v1/m365/targets       TargetsAsk                               -> TargetsAnswer
//!  POST   /v1/m365               M365Ask                                  -> M365Answer
//!  POST   /v1/core/bulk          BulkAsk                                  -> BulkJob
//! ```
//!
//! A refusal has a status of 400 or above and the body [`Refusal`].

pub mod client;
pub mod server;

use model::UnixMillis;
use serde::{Deserialize, Serialize};

use crate::backlog::Backlog;
use crate::bulk::{BulkAsk, BulkJob};
use crate::directory::{DirectoryAnswer, DirectoryAsk};
use crate::exit::Failure;
use crate::links::{LinkChange, LinkTest, LinkTested, Links};
use crate::m365::{M365Answer, M365Ask};
use crate::rotation::{KeyList, Rewriting, Rotated};
use crate::simulate::{Forecast, SimulateRequest};
use crate::status::Status;
use crate::targets::{TargetsAnswer, TargetsAsk};
use crate::upkeep::{Upkeep, UpkeepDone};
use crate::why::Why;
use apply::{Holdings, PurgeDone};
use carrier::{Begun, Emission, Since, Taken, Written};

/// File name below the data directory.
pub const SOCKET: &str = "admin.sock";

/// What the admin socket can ask of a running node.
pub trait Control: Send + Sync + 'static {
    /// Everything that `status` shows.
    ///
    /// # Errors
    /// When the node's stores cannot be read.
    fn status(&self) -> Result<Status, Failure>;

    /// What waits for each peer. Walks over everything that is held.
    ///
    /// # Errors
    /// When the node's stores cannot be read.
    fn backlog(&self) -> Result<Backlog, Failure>;

    /// Where something is. Reads the journal from its creation on.
    ///
    /// # Errors
    /// When it names nothing, or the journal cannot be read.
    fn why(&self, target: &str) -> Result<Why, Failure>;

    /// When the present backlog would be across over another link. Takes up to a minute.
    ///
    /// # Errors
    /// When there is no such peer, the link makes no sense, or the journal cannot be read.
    fn simulate(&self, asked: &SimulateRequest) -> Result<Forecast, Failure>;

    /// What is known of a file; with a class it is asked for first.
    ///
    /// # Errors
    /// When there is none of that id, or the stores fail.
    fn file(&self, asked: &FileRequest) -> Result<FileView, Failure>;

    /// Sets emission control, durably, before it returns.
    ///
    /// # Errors
    /// When it cannot be made durable; the former state is then in force.
    fn set_emission(&self, mode: Emission) -> Result<(), Failure>;

    /// What every link does.
    ///
    /// # Errors
    /// None at present; as for [`Control::status`].
    fn links(&self) -> Result<Links, Failure>;

    /// Orders that a link be used, paused or silent, durably, before it returns.
    ///
    /// # Errors
    /// When there is no such link, or it cannot be made durable.
    fn order_link(&self, change: &LinkChange) -> Result<(), Failure>;

    /// Measures a link. Cancel-safe.
    fn test_link(&self, test: &LinkTest) -> impl Future<Output = Result<LinkTested, Failure>> + Send;

    /// Adds a local account. Touches the disk.
    ///
    /// # Errors
    /// When the core refuses it; nothing was changed then.
    fn add_user(&self, user: &NewUser) -> Result<UserAdded, Failure>;

    /// Sets the password of a local account. Touches the disk.
    ///
    /// # Errors
    /// As for [`Control::add_user`].
    fn set_password(&self, change: &NewPassword) -> Result<(), Failure>;

    /// Sets a legal hold or removes it, durably. Touches the disk.
    ///
    /// # Errors
    /// When it cannot be made durable; nothing was changed then.
    fn change_hold(&self, change: &HoldChange) -> Result<HoldChanged, Failure>;

    /// Who is enrolled, and who is invited.
    ///
    /// # Errors
    /// When the registry cannot be read.
    fn peers(&self) -> Result<Peers, Failure>;

    /// Makes an invitation.
    ///
    /// # Errors
    /// When it cannot be recorded; no token is valid then.
    fn invite(&self, request: &InviteRequest) -> Result<Token, Failure>;

    /// Enrols the node of a card that was carried here.
    ///
    /// # Errors
    /// When it is no card, another node has the name, or the registry cannot be written.
    fn accept(&self, card: &str) -> Result<PeerRow, Failure>;

    /// Removes a peer: it is refused from then on.
    ///
    /// # Errors
    /// When there is none of that name, or the registry cannot be written.
    fn remove_peer(&self, name: &str) -> Result<(), Failure>;

    /// The data keys of the journal.
    ///
    /// # Errors
    /// When the journal's directory cannot be read.
    fn keys(&self) -> Result<KeyList, Failure>;

    /// Makes a new data key.
    ///
    /// # Errors
    /// When it cannot be made durable.
    fn rotate_keys(&self) -> Result<Rotated, Failure>;

    /// Seals one older segment anew, or destroys the keys that nothing needs any more. Touches the disk for as long as
    /// a segment takes.
    ///
    /// # Errors
    /// When the disk fails or is full; it goes on where it was.
    fn rewrite_step(&self) -> Result<Rewriting, Failure>;

    /// Begins to stop the node.
    fn stop(&self);

    /// Does something to the journal. Touches the disk.
    ///
    /// # Errors
    /// When the journal refuses.
    fn upkeep(&self, asked: &Upkeep) -> Result<UpkeepDone, Failure>;

    /// What an order to purge would remove here. Reads the whole journal.
    ///
    /// # Errors
    /// When nothing of that name is known.
    fn preview_purge(&self, request: &PurgeRequest) -> Result<Holdings, Failure>;

    /// Orders that content be removed, here and wherever it went.
    ///
    /// # Errors
    /// When nothing of that name is known, or the order cannot be made durable.
    fn order_purge(&self, request: &PurgeRequest) -> Result<PurgeOrdered, Failure>;

    /// Orders to purge, the newest first.
    ///
    /// # Errors
    /// When they cannot be read.
    fn purges(&self) -> Result<Purges, Failure>;

    /// Makes parcels for a medium, or takes one in.
    fn courier(&self, ask: CourierAsk) -> impl Future<Output = Result<CourierAnswer, Failure>> + Send;

    /// The directory sync, and links for local passwords. A round that has begun goes on when this is dropped.
    fn directory(&self, ask: DirectoryAsk) -> impl Future<Output = Result<DirectoryAnswer, Failure>> + Send;

    /// Signs somebody in to Microsoft 365, or tells who is. Cancel-safe.
    fn m365(&self, ask: M365Ask) -> impl Future<Output = Result<M365Answer, Failure>> + Send;

    /// What goes to Microsoft 365, or a change to it. Touches the disk.
    ///
    /// # Errors
    /// When no target is configured, or a store fails.
    fn targets(&self, ask: TargetsAsk) -> Result<TargetsAnswer, Failure>;

    /// Begins an import or export, tells how far one is, or stops it. Touches the disk.
    ///
    /// # Errors
    /// When there is no such job, too many wait, or the store fails.
    fn bulk(&self, ask: BulkAsk) -> Result<BulkJob, Failure>;

    /// Enrols this node at the hub that issued the token. Not cancel-safe: it may have enrolled when dropped, and
    /// can then be repeated with the same token.
    fn join(&self, token: &str) -> impl Future<Output = Result<Joined, Failure>> + Send;
}

/// Body of `POST /v1/why`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WhyRequest {
    /// Id of a post or file, or an entry as in `journal show`.
    pub target: String,
}

/// Body of `POST /v1/file`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRequest {
    /// Id of the file.
    pub id: String,
    /// Somebody wants it, in this class; `None` only asks what is known.
    pub class: Option<model::Precedence>,
}

/// A file of a post, and what it takes until its bytes are here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileView {
    /// [`FileView::SCHEMA`].
    pub schema: String,
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// Its type.
    pub mime_type: String,
    /// How far it is.
    pub state: FileState,
    /// The class in which somebody has asked for it.
    pub requested: Option<String>,
    /// The peer that holds it.
    pub from: Option<String>,
    /// State of the link to that peer.
    pub link: Option<String>,
    /// What would have to cross: chunks that are held here already are not sent again.
    pub missing_bytes: u64,
    /// What that costs over the cheapest link to the peer, in the configuration's unit; `None` where no cost is configured.
    pub cost: Option<u64>,
    /// How long that takes on an open link, with nothing before it.
    pub eta: Option<crate::backlog::Eta>,
    /// Where the rate behind `eta` comes from.
    pub basis: Option<crate::backlog::Basis>,
}

impl FileView {
    /// Name of the form.
    pub const SCHEMA: &'static str = "holdfast.file/1";
}

/// How far a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileState {
    /// Its bytes are here.
    Here,
    /// A post names it; what lists its bytes has not arrived.
    Announced,
    /// It comes when somebody asks for it.
    OnRequest,
    /// It comes by itself, or was asked for.
    Coming,
}

impl std::fmt::Display for FileState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Here => "here",
            Self::Announced => "announced by a post; its list of contents has not arrived",
            Self::OnRequest => "comes only when somebody asks for it",
            Self::Coming => "on its way",
        })
    }
}

/// Body of `POST /v1/emission`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmissionChange {
    /// The state to set.
    pub mode: Emission,
}

/// Body of `POST /v1/journal/hold`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HoldChange {
    /// Name of the hold.
    pub name: String,
    /// The hold; `None` removes the one of that name.
    pub hold: Option<journal::Hold>,
}

/// Answer to `POST /v1/journal/hold`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HoldChanged {
    /// `holdfast.hold-changed/1`.
    pub schema: String,
    /// Name of the hold.
    pub name: String,
    /// False when there was none to remove.
    pub changed: bool,
}

/// Body of `POST /v1/user`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewUser {
    /// Sign-in name.
    pub username: String,
    /// E-mail address; must be unique on the node.
    pub email: String,
    /// The password.
    pub password: Password,
    /// May administer the core.
    pub admin: bool,
}

/// A password on its way through a Unix socket: never printed.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Password(pub String);

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[sensitive]")
    }
}

/// Answer to [`NewUser`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserAdded {
    /// Its id.
    pub id: String,
    /// Its sign-in name.
    pub username: String,
}

/// Body of `POST /v1/user/password`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewPassword {
    /// Whose.
    pub username: String,
    /// The new password.
    pub password: Password,
}

/// Body of `POST /v1/peers/invite`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InviteRequest {
    /// Name that the edge will have.
    pub name: String,
    /// Where the edge reaches this hub, as `host:port`; the configured one when absent.
    pub address: Option<String>,
    /// How long the token is valid.
    pub valid_seconds: u64,
}

/// Body of `POST /v1/peers/join`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinRequest {
    /// The token as the hub printed it.
    pub token: String,
}

/// A node's card, for `enroll accept` elsewhere.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CardText {
    /// `holdfast.card/1`.
    pub schema: String,
    /// The node's name.
    pub name: String,
    /// The card. A secret.
    pub card: String,
}

/// Body of `POST /v1/peers/accept`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AcceptRequest {
    /// The card as the other node printed it.
    pub card: String,
}

/// Body of `POST /v1/peers/remove`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoveRequest {
    /// Which peer.
    pub name: String,
}

/// An invitation. The token is a secret until it is used.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Token {
    /// `holdfast.invite/1`.
    pub schema: String,
    /// Name that the edge will have.
    pub name: String,
    /// Where the edge will look for the hub.
    pub address: String,
    /// Not valid after this.
    pub expires_at: UnixMillis,
    /// What to give to the edge's operator.
    pub token: String,
}

/// The hub at which this node is enrolled from now on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joined {
    /// `holdfast.joined/1`.
    pub schema: String,
    /// The hub's name.
    pub hub: String,
    /// Its node id.
    pub node: String,
    /// Where it is.
    pub address: String,
}

/// Who is enrolled, and who is invited.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peers {
    /// `holdfast.peers/1`.
    pub schema: String,
    /// Enrolled nodes, by name.
    pub peers: Vec<PeerRow>,
    /// Invitations that no node has used, by name.
    pub invitations: Vec<InvitationRow>,
}

/// An enrolled node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerRow {
    /// Its name.
    pub name: String,
    /// Its identity.
    pub node: String,
    /// `hub` when this node dials it, `edge` when it dials this node.
    pub role: String,
    /// Where it listens; `None` for a peer that dials.
    pub address: Option<String>,
    /// When it was enrolled, by this node's clock.
    pub enrolled_at: UnixMillis,
}

/// An open invitation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvitationRow {
    /// For whom.
    pub name: String,
    /// Not valid after this.
    pub expires_at: UnixMillis,
}

/// Body of `POST /v1/purge` and of its preview.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PurgeRequest {
    /// Id of a post or file, or an entry as in `journal show`.
    pub target: String,
    /// Who orders it.
    pub by: String,
    /// Why.
    pub reason: String,
    /// The post's files stay.
    pub keep_files: bool,
    /// Other files with the same bytes go too.
    pub everywhere_used: bool,
}

/// Answer to `POST /v1/purge`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PurgeOrdered {
    /// The orders: one for each release label that the content has.
    pub ids: Vec<String>,
}

/// Orders to purge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Purges {
    /// `holdfast.purges/1`.
    pub schema: String,
    /// The newest first.
    pub purges: Vec<PurgeView>,
}

impl Purges {
    /// Name of the form.
    pub const SCHEMA: &'static str = "holdfast.purges/1";
}

/// One order and how far it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PurgeView {
    /// Its id.
    pub id: String,
    /// When it was given.
    pub at: UnixMillis,
    /// Who gave it.
    pub by: String,
    /// Why.
    pub reason: String,
    /// Posts.
    pub posts: Vec<String>,
    /// Files.
    pub files: Vec<String>,
    /// The node that gave it; `None` for this one.
    pub origin: Option<String>,
    /// When nothing of the content was left here; `None` before.
    pub done_at: Option<UnixMillis>,
    /// What was done here.
    pub done: PurgeDone,
    /// For an order of this node: every enrolled peer.
    pub nodes: Vec<PurgeAtNode>,
}

impl PurgeView {
    /// Is nothing more to be done for it, here and at the nodes that it goes to?
    pub fn is_done(&self) -> bool {
        self.done_at.is_some() && self.nodes.iter().all(|node| node.state.is_final())
    }
}

/// How far an order is at another node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PurgeAtNode {
    /// The node's name.
    pub name: String,
    /// How far.
    pub state: PurgeState,
}

/// How far an order is at another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PurgeState {
    /// Not known to be there.
    Waiting,
    /// Durable there, not carried out yet.
    Sent,
    /// Nothing of the content is left there.
    Done,
    /// The content may not go there and never did.
    NotReleased,
    /// It could not carry it out: somebody has to look there.
    Failed,
}

impl PurgeState {
    /// Is there nothing to wait for?
    pub fn is_final(self) -> bool {
        match self {
            Self::Done | Self::NotReleased => true,
            Self::Waiting | Self::Sent | Self::Failed => false,
        }
    }
}

impl std::fmt::Display for PurgeState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Waiting => "waiting: it does not have the order yet",
            Self::Sent => "sent: it has the order and has not said that it is done",
            Self::Done => "done",
            Self::NotReleased => "nothing to do: the content may not go there",
            Self::Failed => "failed: it could not carry the order out; see its log",
        })
    }
}

/// Body of `POST /v1/courier`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum CourierAsk {
    /// Begin to export for a peer.
    Begin {
        /// Its name.
        to: String,
        /// What is left out.
        since: Since,
    },
    /// The next parcels.
    Next {
        /// As begun.
        to: String,
        /// About so many bytes.
        bytes: usize,
    },
    /// What came last is durable on the medium.
    Written {
        /// As begun.
        to: String,
        /// Where, and how much.
        written: Written,
    },
    /// The export ends.
    End {
        /// As begun.
        to: String,
        /// The next one goes on from here.
        full: bool,
    },
    /// Take one parcel in.
    Take {
        /// Its bytes, as base64.
        parcel: String,
    },
}

/// Answer to [`CourierAsk`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CourierAnswer {
    /// Begun.
    Begun(Begun),
    /// Parcels.
    Made {
        /// Their bytes one behind the other, as base64.
        parcels: String,
        /// Number of the first.
        first: u64,
        /// How many.
        count: u64,
        /// Entries in them.
        entries: u64,
        /// Chunks of files in them.
        chunks: u64,
        /// There is no more.
        done: bool,
    },
    /// Noted.
    Noted,
    /// Taken.
    Taken {
        /// From which peer, by its name.
        from: String,
        /// What it brought.
        taken: Taken,
    },
}

/// Body of every answer that refuses.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Refusal {
    /// What failed and what stayed intact.
    pub error: String,
    /// What to do.
    pub next_step: String,
}
