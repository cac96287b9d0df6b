//! What the CLI does on the files of a node that does not run. Whatever changes them holds the directory's lock.

use std::sync::Arc;
use std::time::Duration;

use carrier::{CarrierSettings, Emission, EnrollOptions, SystemClock, consumer_name, enroll_join};
use journal::{AtRest, IndexPlace, Journal, JournalOptions, StdDisk};
use keys::{
    Card, ChunkSecret, Invite, InviteBook, InviteState, Keyring, KeysError, NodeKey, Peer, PeerRegistry, PeerRole,
    SealingKey,
};
use link::SentSoFar;
use model::Clock as _;

use crate::admin::{CardText, HoldChange, HoldChanged, InvitationRow, InviteRequest, Joined, PeerRow, Peers, Token};
use crate::backlog::{Backlog, Parts, PeerBacklog};
use crate::config::{Role, Settings};
use crate::exit::{Exit, Failure, chain};
use crate::layout::Layout;
use crate::links::Which;
use crate::lock::{self, DataLock};
use crate::output;
use crate::secrets;
use crate::status::{self, DiskFacts, Equation, InboundFacts, NodeFacts, PeerFacts, Status};
use crate::why::{self, Destination, Why};

/// A hub over a satellite answers within seconds; radio silence on its side may last a minute.
const JOIN_PATIENCE: Duration = Duration::from_secs(120);

fn keys_failure(e: &KeysError) -> Failure {
    Failure::new(chain(e), e.next_step())
}

/// The key of the node in this directory.
///
/// # Errors
/// When there is none, or it cannot be read.
pub fn node_key(layout: &Layout) -> Result<NodeKey, Failure> {
    NodeKey::load(&layout.keys()).map_err(|e| keys_failure(&e))?.ok_or_else(|| {
        Failure::with(
            Exit::Config,
            format!("there is no node key in {}; nothing was changed", layout.keys().display()),
            "restore keys/ from a backup; without it make a new node with `holdfast init` in another directory",
        )
    })
}

/// Opens the journal for changing. The caller holds the directory's lock.
///
/// # Errors
/// When it cannot be opened; nothing in it was changed.
pub fn open_journal(layout: &Layout, settings: &Settings, key: &NodeKey) -> Result<Journal, Failure> {
    open_journal_with(layout, settings, key, &secrets::open_keyring(layout, &settings.keys)?)
}

/// As [`open_journal`], with the keyring.
///
/// # Errors
/// As there.
pub fn open_journal_with(
    layout: &Layout,
    settings: &Settings,
    key: &NodeKey,
    keyring: &Keyring,
) -> Result<Journal, Failure> {
    let options = JournalOptions {
        dir: layout.journal(),
        node: key.node_id(),
        disk: Arc::new(StdDisk),
        clock: Arc::new(SystemClock),
        settings: settings.journal,
        index: IndexPlace::Sled,
        at_rest: AtRest::sealed(keyring.data_keys()),
    };
    let bar = output::progress(0, "opening the journal");
    let opened = Journal::open_with_progress(options, &mut |p| {
        bar.set_length(p.total_bytes);
        bar.set_position(p.done_bytes);
    });
    bar.finish_and_clear();
    opened.map(|(journal, _)| journal).map_err(|e| Failure::new(chain(&e), e.next_step()))
}

/// Sets a legal hold or removes it, and says so in the log.
///
/// # Errors
/// When it cannot be made durable.
pub fn change_hold(journal: &Journal, change: &HoldChange) -> Result<HoldChanged, Failure> {
    let changed = match &change.hold {
        Some(hold) => journal.add_hold(hold.clone()).map(|()| true),
        None => journal.remove_hold(&change.name),
    };
    let changed = changed.map_err(|e| Failure::new(chain(&e), e.next_step()))?;
    if changed {
        tracing::info!(target: "audit", hold = %change.name, set = change.hold.is_some(), "legal hold changed");
    }
    Ok(HoldChanged { schema: "holdfast.hold-changed/1".to_owned(), name: change.name.clone(), changed })
}

/// Peers and invitations on disk.
pub struct Registry {
    key: NodeKey,
    registry: PeerRegistry,
    invites: InviteBook,
    settings: Settings,
    layout: Layout,
    _lock: DataLock,
}

impl Registry {
    /// Opens them for changing.
    ///
    /// # Errors
    /// When a node runs there, or the files cannot be read.
    pub fn open(layout: &Layout, settings: &Settings) -> Result<Self, Failure> {
        let lock = lock::take(layout.data())?;
        Ok(Self {
            key: node_key(layout)?,
            registry: PeerRegistry::open(&layout.keys()).map_err(|e| keys_failure(&e))?,
            invites: InviteBook::open(&layout.keys()).map_err(|e| keys_failure(&e))?,
            settings: settings.clone(),
            layout: layout.clone(),
            _lock: lock,
        })
    }

    /// As [`crate::admin::Control::peers`].
    pub fn peers(&self) -> Peers {
        peers(&self.registry, Some(&self.invites))
    }

    /// As [`crate::admin::Control::invite`].
    ///
    /// # Errors
    /// As there.
    pub fn invite(&self, request: &InviteRequest) -> Result<Token, Failure> {
        invite(&self.settings, &self.key, &self.invites, request)
    }

    /// As [`crate::admin::Control::remove_peer`].
    ///
    /// # Errors
    /// As there.
    pub fn remove_peer(&self, name: &str) -> Result<(), Failure> {
        let Some(peer) = remove_peer(&self.registry, Some(&self.invites), name)? else { return Ok(()) };
        if !self.layout.journal().exists() {
            return Ok(());
        }
        // What waits for it would otherwise be kept for ever.
        let journal = open_journal(&self.layout, &self.settings, &self.key)?;
        journal.remove_consumer(&consumer_name(peer.node)).map_err(|e| Failure::new(chain(&e), e.next_step()))?;
        Ok(())
    }

    /// As [`crate::admin::Control::accept`].
    ///
    /// # Errors
    /// As there.
    pub fn accept(&self, card: &str) -> Result<PeerRow, Failure> {
        accept(&self.key, &self.registry, card)
    }

    /// As [`crate::admin::Control::join`].
    ///
    /// # Errors
    /// As there.
    pub async fn join(&self, token: &str) -> Result<Joined, Failure> {
        let secret = ChunkSecret::open(&self.layout.keys()).map_err(|e| keys_failure(&e))?;
        let sealing = SealingKey::open(&self.layout.keys()).map_err(|e| keys_failure(&e))?;
        let emission = Emission::load(self.layout.data());
        join(&self.settings, &self.key, (&secret, &sealing), &self.registry, emission, token).await
    }
}

/// The registry and the open invitations, by name.
pub fn peers(registry: &PeerRegistry, invites: Option<&InviteBook>) -> Peers {
    let mut peers: Vec<PeerRow> = registry.list().into_iter().map(row).collect();
    peers.sort_by(|a, b| a.name.cmp(&b.name));
    let all = invites.map(InviteBook::list).unwrap_or_default().into_iter();
    let open = all.filter(|i| i.state == InviteState::Open);
    let mut invitations: Vec<InvitationRow> =
        open.map(|i| InvitationRow { name: i.name.to_string(), expires_at: i.expires_at }).collect();
    invitations.sort_by(|a, b| a.name.cmp(&b.name));
    Peers { schema: "holdfast.peers/1".to_owned(), peers, invitations }
}

fn row(peer: Peer) -> PeerRow {
    let role = match peer.role {
        PeerRole::Hub => "hub",
        PeerRole::Edge => "edge",
    };
    PeerRow {
        name: peer.name.to_string(),
        node: peer.node.to_string(),
        role: role.to_owned(),
        address: peer.address,
        enrolled_at: peer.enrolled_at,
    }
}

/// This node's card, from its files.
///
/// # Errors
/// When the keys cannot be read.
pub fn card(layout: &Layout, settings: &Settings) -> Result<CardText, Failure> {
    let (key, name) = (node_key(layout)?, &settings.node.name);
    let secret = ChunkSecret::open(&layout.keys()).map_err(|e| keys_failure(&e))?;
    let sealing = SealingKey::open(&layout.keys()).map_err(|e| keys_failure(&e))?;
    let role = match settings.node.role {
        Role::Hub => PeerRole::Hub,
        Role::Edge => PeerRole::Edge,
    };
    let card = Card::text(name, role, &key, &secret, sealing.public());
    Ok(CardText { schema: "holdfast.card/1".to_owned(), name: name.to_string(), card: card.to_string() })
}

/// Enrols the node of a card.
///
/// # Errors
/// When it is no card or this node's own, another node has the name, or the registry cannot be written.
pub fn accept(key: &NodeKey, registry: &PeerRegistry, card: &str) -> Result<PeerRow, Failure> {
    let card: Card = card.parse().map_err(|e: keys::CardError| Failure::with(Exit::Usage, chain(&e), e.next_step()))?;
    let peer = card.into_peer(SystemClock.now());
    if peer.node == key.node_id() {
        return Err(Failure::with(
            Exit::Usage,
            "this is this node's own card; nothing was changed",
            "carry it to the other node, and the other node's here",
        ));
    }
    registry.add(peer.clone()).map_err(|e| keys_failure(&e))?;
    Ok(row(peer))
}

/// Makes an invitation.
///
/// # Errors
/// When this node takes no edges, or it cannot be recorded.
pub fn invite(
    settings: &Settings,
    key: &NodeKey,
    invites: &InviteBook,
    request: &InviteRequest,
) -> Result<Token, Failure> {
    let listen = settings.carrier.listen.filter(|_| settings.node.role == Role::Hub).ok_or_else(no_desk)?;
    let address = match &request.address {
        Some(address) => address.clone(),
        None if listen.ip().is_unspecified() => {
            return Err(Failure::with(
                Exit::Usage,
                format!("carrier.listen is {listen}, which says not where an edge reaches this hub; no token was made"),
                "say it with --address HOST:PORT",
            ));
        }
        None => listen.to_string(),
    };
    check_address(&address)?;
    let name = request.name.parse().map_err(|e| keys_failure(&e))?;
    let valid_ms = i64::try_from(request.valid_seconds.saturating_mul(1_000)).unwrap_or(i64::MAX);
    let made = invites.create(name, key.node_id(), &address, SystemClock.now(), valid_ms);
    let invite = made.map_err(|e| keys_failure(&e))?;
    Ok(Token {
        schema: "holdfast.invite/1".to_owned(),
        name: invite.name.to_string(),
        address,
        expires_at: invite.expires_at,
        token: invite.to_token().to_string(),
    })
}

/// The failure of inviting at a node that enrols nobody.
pub fn no_desk() -> Failure {
    Failure::new("this node enrols nobody; no token was made", "make the token at the hub, in its own data directory")
}

fn check_address(address: &str) -> Result<(), Failure> {
    let port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty()).and_then(|(_, p)| p.parse::<u16>().ok());
    // 255 is the length that a token can carry.
    match port.filter(|p| *p > 0 && address.len() <= 255) {
        Some(_) => Ok(()),
        None => Err(Failure::with(
            Exit::Usage,
            format!("`{address}` is no address; no token was made"),
            "write it as host:port, such as hub.example:7800",
        )),
    }
}

/// Removes a peer, or withdraws the invitation of that name. Returns the peer, if there was one.
///
/// # Errors
/// When there is neither, or the files cannot be written.
pub fn remove_peer(registry: &PeerRegistry, invites: Option<&InviteBook>, name: &str) -> Result<Option<Peer>, Failure> {
    let parsed = name.parse().map_err(|e| keys_failure(&e))?;
    let withdrawn = invites.map(|i| i.withdraw(&parsed)).transpose().map_err(|e| keys_failure(&e))?;
    match registry.by_name(name) {
        Some(peer) => registry.remove(peer.node).map_err(|e| keys_failure(&e)),
        None if withdrawn == Some(true) => Ok(None),
        None => Err(Failure::new(
            format!("no peer and no invitation has the name `{name}`; nothing was changed"),
            "`holdfast enroll list` shows the names",
        )),
    }
}

/// Enrols this node at the hub of the token and records the hub. Not cancel-safe; can be repeated.
///
/// # Errors
/// When the hub does not answer, or refuses.
pub async fn join(
    settings: &Settings,
    key: &NodeKey,
    (chunk_secret, sealing): (&ChunkSecret, &SealingKey),
    registry: &PeerRegistry,
    emission: Emission,
    token: &str,
) -> Result<Joined, Failure> {
    let invite: Invite =
        token.parse().map_err(|e: keys::TokenError| Failure::with(Exit::Usage, chain(&e), e.next_step()))?;
    if invite.name != settings.node.name {
        return Err(Failure::new(
            format!("the token is for `{}` and this node is `{}`; nothing was sent", invite.name, settings.node.name),
            "get a token for this node's name, or correct node.name",
        ));
    }
    let options = EnrollOptions {
        invite: &invite,
        key,
        name: &settings.node.name,
        chunk_secret,
        sealing: sealing.public(),
        rate: settings.carrier.rate,
        emission,
        patience: JOIN_PATIENCE,
        clock: &SystemClock,
    };
    let hub = enroll_join(options).await.map_err(|e| Failure::new(chain(&e), e.next_step()))?;
    let joined = Joined {
        schema: "holdfast.joined/1".to_owned(),
        hub: hub.name.to_string(),
        node: hub.node.to_string(),
        address: hub.address.clone().unwrap_or_else(|| invite.address.clone()),
    };
    registry.add(hub).map_err(|e| keys_failure(&e))?;
    Ok(joined)
}

/// The enrolled peers as `why` needs them, without anything that only a running node knows.
fn destinations(settings: &Settings, registry: &PeerRegistry) -> Vec<Destination> {
    let to = |peer: Peer| Destination {
        node: peer.node,
        name: peer.name.to_string(),
        link: None,
        labels: settings.carrier.labels_of(&peer.name).to_vec(),
        sent: SentSoFar::default(),
        measured: None,
        ceiling: settings.carrier.rate_of(&peer.name),
    };
    registry.list().into_iter().map(to).collect()
}

/// What waits for each peer of a node that does not run, from its files alone.
///
/// # Errors
/// When its keys or its journal cannot be read.
pub fn backlog(layout: &Layout, settings: &Settings) -> Result<Backlog, Failure> {
    let registry = PeerRegistry::open(&layout.keys()).map_err(|e| keys_failure(&e))?;
    let now = SystemClock.now();
    let mut peers = Vec::new();
    if layout.journal().exists() {
        let reader = crate::verbs::open_journal(layout, settings)?;
        let failed = |e: journal::ReadError| Failure::new(chain(&e), e.next_step());
        let accounts = reader.accounting().map_err(failed)?;
        for to in destinations(settings, &registry) {
            let consumer = consumer_name(to.node);
            let Some(accounting) = accounts.get(&consumer) else { continue };
            let streams = reader.held_by_stream(&consumer).map_err(failed)?.unwrap_or_default();
            let parts = Parts {
                name: &to.name,
                link: None,
                accounting,
                streams,
                sent_unconfirmed: None,
                sent: &to.sent,
                on_request: Default::default(),
                measured: None,
                ceiling: to.ceiling,
                stands_for: None,
                alarm_after: None,
            };
            peers.push(PeerBacklog::new(parts, now));
        }
    }
    let schema = crate::backlog::SCHEMA.to_owned();
    Ok(Backlog { schema, at: now, running: false, capturing: None, peers, transit: Vec::new() })
}

/// Where something is, as far as the files of a node that does not run tell.
///
/// # Errors
/// When it names nothing, or its keys or its journal cannot be read.
pub fn why(layout: &Layout, settings: &Settings, asked: &str) -> Result<Why, Failure> {
    why::check_name(asked)?;
    let now = SystemClock.now();
    if !layout.journal().exists() {
        return Ok(Why {
            schema: why::SCHEMA.to_owned(),
            at: now,
            running: false,
            asked: asked.to_owned(),
            note: "the node has no journal yet: nothing was ever captured".to_owned(),
            entries: Vec::new(),
        });
    }
    let registry = PeerRegistry::open(&layout.keys()).map_err(|e| keys_failure(&e))?;
    let reader = crate::verbs::open_journal(layout, settings)?;
    why::why(asked, &reader, &destinations(settings, &registry), None, now)
}

/// The links that the configuration of a node has.
///
/// # Errors
/// When its keys cannot be read.
pub fn links(layout: &Layout, settings: &CarrierSettings) -> Result<Vec<Which>, Failure> {
    let registry = PeerRegistry::open(&layout.keys()).map_err(|e| keys_failure(&e))?;
    let of = |peer: Peer| {
        let which = |link| Which { node: peer.node, peer: peer.name.to_string(), link };
        settings.link_names(&peer).into_iter().map(which).collect::<Vec<_>>()
    };
    Ok(registry.list().into_iter().flat_map(of).collect())
}

/// The status of a node that does not run, from its files alone.
///
/// # Errors
/// When its keys or its journal cannot be read.
pub fn status(layout: &Layout, settings: &Settings) -> Result<Status, Failure> {
    let key = node_key(layout)?;
    let registry = PeerRegistry::open(&layout.keys()).map_err(|e| keys_failure(&e))?;
    let now = SystemClock.now();
    let mut epoch = model::Epoch::FIRST.0;
    let mut disk = DiskFacts {
        journal_bytes: 0,
        journal_limit_bytes: settings.journal.limit_bytes.0,
        free_bytes: status::free_bytes(layout.data()),
        space: None,
    };
    let mut accounts = std::collections::BTreeMap::new();
    // A node that never ran has no journal.
    if layout.journal().exists() {
        let reader = crate::verbs::open_journal(layout, settings)?;
        let stats = reader.stats();
        disk.journal_bytes = stats.bytes;
        epoch = stats.epochs.last().map_or(epoch, |e| e.epoch.0);
        accounts = reader.accounting().map_err(|e| Failure::new(chain(&e), e.next_step()))?;
    }
    let facts = |peer: Peer| PeerFacts {
        outbound: accounts.get(&consumer_name(peer.node)).map(|a| Equation::new(a, 0, now, None)),
        name: peer.name.to_string(),
        link: None,
        inbound: None::<InboundFacts>,
    };
    Ok(Status {
        schema: status::SCHEMA.to_owned(),
        at: now,
        running: false,
        node: NodeFacts {
            name: settings.node.name.to_string(),
            id: key.node_id().to_string(),
            role: settings.node.role,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            epoch,
        },
        uptime_seconds: None,
        ready: false,
        health: None,
        emission: Emission::load(layout.data()),
        peers: registry.list().into_iter().map(facts).collect(),
        transit: Vec::new(),
        microsoft: None,
        capture_pending_rows: None,
        disk,
        problems: Vec::new(),
    })
}
