//! A running node: starts the site, answers the admin socket, watches, and stops in order.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use apply::{Holdings, PurgeReceipt, PurgeStatus};
use carrier::{Emission, PeerState, PeerStatus, SystemClock, consumer_name};
use edge::{Environment, Site, SiteConfig};
use hub::Hub;
use journal::Accounting;
use keys::{ChunkSecret, DataKeys, InviteBook, Keyring, NodeKey, PeerRegistry, SealingKey};
use link::SentSoFar;
use mission::FileOutlook;
use model::{
    BitsPerSecond, Clock as _, Entry, EntryId, Event, Header, Hlc, Id, NodeId, ObjectRef, Outcome, Precedence,
};
use telemetry::{Grade, Health, Metrics, Verdict};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::accounts;
use data_encoding::BASE64;

use crate::admin::{
    self, Control, CourierAnswer, CourierAsk, FileRequest, FileState, FileView, HoldChange, HoldChanged, InviteRequest,
    Joined, NewPassword, NewUser, PeerRow, Peers, PurgeAtNode, PurgeOrdered, PurgeRequest, PurgeState, PurgeView,
    Purges, Token, UserAdded,
};
use crate::backlog::{self, Backlog, Eta, FrameRate, Meter, Parts, PeerBacklog, Progress, remaining};
use crate::bulk::{self, BulkAsk, BulkJob};
use crate::config::{self, Role, Settings};
use crate::directory::{self, DirectoryAnswer, DirectoryAsk};
use crate::exit::{Done, Exit, Failure, chain};
use crate::layout::Layout;
use crate::links::{self, LinkChange, LinkTest, LinkTested, Links};
use crate::m365::{M365Answer, M365Ask, SignIns};
use crate::rotation::{KeyList, Rewriting, Rotated, Rotation};
use crate::simulate::{self, Forecast, LinkSpec, SimulateRequest, Start};
use crate::status::{self, DiskFacts, Equation, InboundFacts, LinkFacts, MicrosoftFacts, NodeFacts, PeerFacts, Status};
use crate::targets::{self, TargetsAnswer, TargetsAsk};
use crate::upkeep::{Upkeep, UpkeepDone};
use crate::why::{self, Destination, Live, Why};
use crate::{lock, observe, offline, secrets, upkeep};

/// Rates and the backlog are looked at this often.
const WATCH_EVERY: Duration = Duration::from_secs(1);
/// Over this many looks a rate is averaged: datagrams come in bursts.
const RATE_LOOKS: usize = 5;

/// A backlog that stands for longer than this has no end in sight.
const STANDS: Duration = Duration::from_secs(60);
/// Less of a file is its last slices on their way.
const UNSENT_FILE_BYTES: u64 = 16 << 10;
/// Rows that `why` looks through for what is not captured yet: more wait only while the journal is full.
const CAPTURE_ROWS_MAX: usize = 10_000;

/// Runs the node in `layout` until it is told to stop.
///
/// # Errors
/// When it does not start, or a part of it ends by itself.
pub(crate) fn run(layout: &Layout, role: Role) -> Done {
    let settings = config::load(layout.data())?;
    if settings.node.role != role {
        let real = settings.node.role.as_str();
        return Err(Failure::with(
            Exit::Config,
            format!("the node in {} is configured as {real}; nothing was started", layout.data().display()),
            format!("start it with `holdfast {real}`"),
        ));
    }
    let environment = std::env::var("HOLDFAST_LOG").ok();
    settings.log.start(environment.as_deref()).map_err(|e| Failure::with(Exit::Config, chain(&e), e.next_step()))?;
    let _lock = lock::take(layout.data())?;
    let runtime = tokio::runtime::Runtime::new().map_err(|e| {
        Failure::new(format!("starting threads failed: {e}; nothing was started"), "raise the limit of threads")
    })?;
    let keyring = secrets::open_keyring(layout, &settings.keys)?;
    runtime.block_on(serve(layout, settings, keyring))
}

/// Not cancel-safe: it is the whole life of the process.
async fn serve(layout: &Layout, settings: Settings, keyring: Keyring) -> Done {
    let started = uptime();
    let clock = Arc::new(SystemClock);
    let metrics = Arc::new(Metrics::new());
    let health = Health::new(clock.clone());
    metrics.started(settings.node.role.in_metrics(), clock.now());
    let stop = CancellationToken::new();
    let mut tasks: JoinSet<std::io::Result<()>> = JoinSet::new();

    // Metrics first: a start that rebuilds an index takes minutes, and a monitoring system should see it.
    let listener = observe::bind(settings.metrics.listen).await?;
    info!(metrics = %settings.metrics.listen, "serving metrics and health");
    let observed = observe::Observed { metrics: Arc::clone(&metrics), health: health.clone() };
    tasks.spawn(observe::serve(listener, observed, stop.child_token()));
    tell_systemd(&[sd_notify::NotifyState::Status("starting")]);

    let environment = Environment { clock, metrics: Arc::clone(&metrics), health: health.clone() };
    let mut node = Node::start(layout, &settings, keyring.data_keys(), environment).await?;
    let rotation = Rotation::new(keyring, node.site().journal().clone(), layout.journal());
    let running = Arc::new(Running::new(layout, settings, &node, rotation, metrics, health, started)?);
    let outlook = Arc::downgrade(&running);
    running.core.set_file_outlook(Arc::new(move |file| outlook.upgrade()?.outlook(file)));
    let socket = admin::server::bind(layout.data())?;
    tasks.spawn(admin::server::serve(socket, Arc::clone(&running), stop.child_token()));
    tasks.spawn(watch(Arc::clone(&running), stop.child_token()));
    tell_systemd(&[sd_notify::NotifyState::Ready, sd_notify::NotifyState::Status("running")]);

    let ended = tokio::select! {
        signal = stop_signal() => {
            info!(signal, "stopping");
            Ok(Exit::Ok)
        }
        () = running.stop_asked.cancelled() => {
            info!("stopping, as asked over the admin socket");
            Ok(Exit::Ok)
        }
        part = node.site_mut().ended_early() => Err(part.to_owned()),
        part = tasks.join_next() => Err(format!("{part:?}")),
    };
    tell_systemd(&[sd_notify::NotifyState::Stopping]);
    stop.cancel();
    node.stop().await;
    while let Some(task) = tasks.join_next().await {
        if let Ok(Err(e)) = task {
            warn!(error = %e, "a listener failed while stopping");
        }
    }
    ended.map_err(|part| {
        error!(part, "a part of the node ended by itself");
        Failure::new(
            format!("a part of the node ended by itself ({part}); what was acknowledged is durable"),
            "see the log for the cause; the service starts again by itself",
        )
    })
}

/// Tells the service manager, where there is one.
fn tell_systemd(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(e) = sd_notify::notify(states) {
        warn!(error = %e, "the service manager could not be told");
    }
}

/// A simulation that takes longer than this ends early and says so: it shares the processor with the links.
const SIMULATED_FOR: Duration = Duration::from_secs(60);

/// Time since the process first asked: never steps.
fn uptime() -> Duration {
    static START: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    #[allow(clippy::disallowed_methods, reason = "the daemon is a shell and owns this clock")]
    let now = std::time::Instant::now();
    now.saturating_duration_since(*START.get_or_init(|| now))
}

/// Completes with the name of the signal that asks for a stop.
async fn stop_signal() -> &'static str {
    let listen = |kind| signal(kind).expect("the operating system takes handlers for SIGTERM and SIGINT");
    let (mut term, mut int) = (listen(SignalKind::terminate()), listen(SignalKind::interrupt()));
    tokio::select! {
        _ = term.recv() => "SIGTERM",
        _ = int.recv() => "SIGINT",
    }
}

/// The composition, by role.
enum Node {
    Edge(Box<Site>),
    Hub(Box<Hub>),
}

impl Node {
    async fn start(
        layout: &Layout,
        settings: &Settings,
        data_keys: DataKeys,
        environment: Environment,
    ) -> Result<Self, Failure> {
        let wrong = |e: microsoft::SettingsError| {
            Failure::with(Exit::Config, e.to_string(), "correct the section; docs/configuration.md has every key")
        };
        let config = SiteConfig {
            data_dir: layout.data().to_owned(),
            name: settings.node.name.clone(),
            api_listen: settings.api.listen,
            core: settings.core.clone(),
            http: settings.http.clone(),
            journal: settings.journal,
            scrub: settings.scrub,
            data_keys,
            capture: settings.capture.clone(),
            carrier: settings.carrier.clone(),
            microsoft: settings
                .microsoft
                .as_ref()
                .map(microsoft::MicrosoftSettings::read)
                .transpose()
                .map_err(wrong)?,
            directory: match &settings.microsoft {
                Some(section) => section.directory_rules().map_err(wrong)?,
                None => None,
            },
        };
        let started = match settings.node.role {
            Role::Edge => Site::start(config, environment).await.map(|site| Self::Edge(Box::new(site))),
            Role::Hub => Hub::start(config, environment).await.map(|hub| Self::Hub(Box::new(hub))),
        };
        started.map_err(|e| Failure::new(chain(&e), e.next_step()))
    }

    fn site(&self) -> &Site {
        match self {
            Self::Edge(site) => site,
            Self::Hub(hub) => hub.site(),
        }
    }

    fn site_mut(&mut self) -> &mut Site {
        match self {
            Self::Edge(site) => site,
            Self::Hub(hub) => hub.site_mut(),
        }
    }

    async fn stop(self) {
        match self {
            Self::Edge(site) => site.stop().await,
            Self::Hub(hub) => hub.stop().await,
        }
    }
}

/// What the admin socket works on.
struct Running {
    layout: Layout,
    settings: Settings,
    key: NodeKey,
    chunk_secret: ChunkSecret,
    sealing: SealingKey,
    registry: Arc<PeerRegistry>,
    invites: Option<Arc<InviteBook>>,
    core: mission::Core,
    journal: journal::Journal,
    graph: Option<microsoft::Graph>,
    targets: Option<apply::targets::TargetsHandle>,
    directory: Option<microsoft::directory::SyncHandle>,
    sign_ins: SignIns,
    rotation: Rotation,
    /// Somebody asked over the admin socket that the node stops.
    stop_asked: CancellationToken,
    carrier: carrier::CarrierHandle,
    applied: apply::ApplyHandle,
    metrics: Arc<Metrics>,
    health: Health,
    started: Duration,
    watched: Mutex<BTreeMap<NodeId, Watched>>,
}

/// What is remembered of a peer from one look to the next.
#[derive(Default)]
struct Watched {
    /// What the session had sent at the last look.
    sent: SentSoFar,
    /// Files that the peer asks for only on request.
    on_request: [journal::Ahead; 5],
    meter: Meter,
    progress: Progress,
    /// When, and the bytes up and down until then.
    looks: std::collections::VecDeque<(Duration, u64, u64)>,
}

impl Watched {
    fn look(&mut self, now: Duration, up: u64, down: u64) {
        self.looks.push_back((now, up, down));
        while self.looks.len() > RATE_LOOKS {
            self.looks.pop_front();
        }
    }

    /// Follows the backlog from one look to the next.
    fn follow(&mut self, now: Duration, accounting: &Accounting, state: &PeerState) {
        let accounting = &backlog::without(accounting, &self.on_request);
        let on_request: u64 = self.on_request.iter().map(|files| files.entries).sum();
        let total = &accounting.total;
        let frames = self.sent.classes.iter().chain([&self.sent.files]).map(|packing| packing.frame_bytes).sum();
        let files = remaining(accounting, &self.sent).0[Precedence::Deferred.index()].plain_bytes;
        let unsent = total.held > total.stored + self.sent.under_way as u64 || files > UNSENT_FILE_BYTES;
        self.meter.look(now, frames, unsent && matches!(state, PeerState::Up { .. }));
        // What a relay has is not moved by this node any more.
        let (handed_over, may_stand) = match state {
            PeerState::Relayed { via } => (via.handed_over, false),
            PeerState::Silent | PeerState::Held { .. } | PeerState::OneWay => (0, true),
            PeerState::Up { .. } | PeerState::Connecting { .. } | PeerState::Down { .. } | PeerState::Denied { .. } => {
                (0, false)
            }
        };
        let mark = self.sent.first_bytes + total.stored + handed_over + (total.accepted - total.held);
        self.progress.look(now, mark, total.held > on_request + handed_over && !may_stand);
    }

    /// When nothing will be held any more; `None` while the link is not up, or nothing moves.
    fn eta(&self, now: Duration, accounting: &Accounting, state: &PeerState, ceiling: BitsPerSecond) -> Option<Eta> {
        let moves = self.progress.stands_for(now).is_none_or(|stands| stands < STANDS);
        let rate = self.meter.rate(now).unwrap_or_else(|| FrameRate::configured(ceiling));
        let accounting = backlog::without(accounting, &self.on_request);
        let bytes = remaining(&accounting, &self.sent).0.iter().map(|r| r.link_bytes).sum();
        (moves && matches!(state, PeerState::Up { .. })).then(|| rate.time_for(bytes, 0))
    }

    /// Bits per second up and down over the kept looks.
    fn rates(&self) -> (u64, u64) {
        let (Some(first), Some(last)) = (self.looks.front(), self.looks.back()) else { return (0, 0) };
        let seconds = last.0.saturating_sub(first.0).as_secs_f64();
        let rate = |before: u64, after: u64| match seconds > 0.0 {
            true => (after.saturating_sub(before) as f64 * 8.0 / seconds) as u64,
            false => 0,
        };
        (rate(first.1, last.1), rate(first.2, last.2))
    }
}

impl Running {
    fn new(
        layout: &Layout,
        settings: Settings,
        node: &Node,
        rotation: Rotation,
        metrics: Arc<Metrics>,
        health: Health,
        started: Duration,
    ) -> Result<Self, Failure> {
        let site = node.site();
        let keys = layout.keys();
        let failed = |e: keys::KeysError| Failure::new(chain(&e), e.next_step());
        Ok(Self {
            layout: layout.clone(),
            settings,
            key: offline::node_key(layout)?,
            chunk_secret: ChunkSecret::open(&keys).map_err(failed)?,
            sealing: SealingKey::open(&keys).map_err(failed)?,
            registry: Arc::clone(site.registry()),
            invites: match node {
                Node::Edge(_) => None,
                Node::Hub(hub) => Some(Arc::clone(hub.invites())),
            },
            core: site.core().clone(),
            journal: site.journal().clone(),
            graph: site.graph().cloned(),
            targets: site.targets().cloned(),
            directory: site.directory().cloned(),
            sign_ins: SignIns::default(),
            rotation,
            stop_asked: CancellationToken::new(),
            carrier: site.carrier().clone(),
            applied: site.applied().clone(),
            metrics,
            health,
            started,
            watched: Mutex::default(),
        })
    }

    fn watched(&self) -> std::sync::MutexGuard<'_, BTreeMap<NodeId, Watched>> {
        // Rates and estimates: half of one is as good as none.
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One look at every link and backlog.
    fn look(&self) {
        let now = uptime();
        let peers = self.carrier.status();
        self.watched().retain(|node, _| peers.iter().any(|p| p.node == *node));
        for peer in &peers {
            let accounting = self.journal.accounting(&consumer_name(peer.node)).ok().flatten();
            // A session with nothing to send has nothing to say.
            let holds = accounting.as_ref().is_some_and(|a| a.total.held > 0);
            let telling = if holds { self.carrier.telling(peer.node, None) } else { None };
            let mut all = self.watched();
            let watched = all.entry(peer.node).or_default();
            watched.look(now, peer.wire_bytes_up, peer.wire_bytes_down);
            watched.sent = telling.map_or_else(|| std::mem::take(&mut watched.sent), |telling| telling.sent);
            watched.on_request = self.journal.held_sizes(&consumer_name(peer.node), &watched.sent.on_request);
            let name = telemetry::PeerName::new(peer.name.as_str());
            let eta = accounting.and_then(|a| {
                watched.follow(now, &a, &peer.state);
                let backlog = self.peer_backlog(now, peer, &a, watched, Default::default());
                self.tell_backlog(&name, &backlog);
                watched.eta(now, &a, &peer.state, peer.rate)
            });
            match eta {
                Some(eta) => self.metrics.equation_eta_seconds.set_count((name,), eta.high_seconds),
                None => self.metrics.equation_eta_seconds.forget((name,)),
            }
            drop(all);
            self.health.report(&format!("link {}", peer.name), verdict(&peer.state));
        }
        self.look_at_purges();
    }

    fn peer_backlog(
        &self,
        now: Duration,
        peer: &PeerStatus,
        accounting: &Accounting,
        watched: &Watched,
        streams: journal::HeldByStream,
    ) -> PeerBacklog {
        let minutes = self.settings.carrier.no_progress_after_minutes;
        let parts = Parts {
            name: peer.name.as_str(),
            link: Some(&peer.state),
            accounting,
            streams,
            sent_unconfirmed: unconfirmed(peer),
            sent: &watched.sent,
            on_request: watched.on_request,
            measured: watched.meter.rate(now),
            ceiling: peer.rate,
            stands_for: watched.progress.stands_for(now),
            alarm_after: (minutes > 0).then(|| Duration::from_secs(60 * u64::from(minutes))),
        };
        PeerBacklog::new(parts, SystemClock.now())
    }

    /// Metrics and the alarm.
    fn tell_backlog(&self, name: &telemetry::PeerName, backlog: &PeerBacklog) {
        for (class, of) in Precedence::ALL.into_iter().zip(&backlog.classes) {
            self.metrics.backlog_link_bytes.set_count((name.clone(), class), of.remaining.link_bytes);
            let oldest = of.oldest_seconds.unwrap_or(0);
            self.metrics.backlog_oldest_seconds.set_count((name.clone(), class), oldest);
            self.metrics.backlog_eta_seconds.set_count((name.clone(), class), of.eta.high_seconds);
        }
        let stands = backlog.no_progress_seconds.unwrap_or(0);
        self.metrics.backlog_no_progress_seconds.set_count((name.clone(),), stands);
        let verdict = match backlog.stalled {
            false => Verdict::ok("what is held moves, or nothing is"),
            true => Verdict::degraded(
                format!(
                    "{} entries are held for {} and nothing of them has moved for {}",
                    backlog.entries,
                    backlog.name,
                    crate::show::seconds(stands)
                ),
                "`holdfast backlog` shows what waits, `holdfast status` how the link is; nothing is lost meanwhile",
            ),
        };
        self.health.report(&format!("backlog {}", backlog.name), verdict);
    }

    /// What it takes until the bytes of a file are here.
    fn outlook(&self, file: Id) -> Option<FileOutlook> {
        let view = Control::file(self, &FileRequest { id: file.to_string(), class: None }).ok()?;
        let seconds = view.eta.map(|eta| (eta.low_seconds, eta.high_seconds))?;
        Some(FileOutlook { missing_bytes: view.missing_bytes, seconds })
    }

    /// The peer that sent a file which is not all here, and the file's entry.
    fn incomplete(&self, file: Id) -> Result<Option<(PeerStatus, Entry)>, Failure> {
        for peer in self.carrier.status() {
            let failed = |e: journal::ReadError| Failure::new(chain(&e), e.next_step());
            let entries = self.applied.incomplete_files(peer.node).map_err(failed)?;
            let is_it =
                |entry: &Entry| matches!(wire::decode_event(entry), Ok(Event::File(state)) if state.stub.id == file);
            if let Some(entry) = entries.into_iter().find(is_it) {
                return Ok(Some((peer, entry)));
            }
        }
        Ok(None)
    }

    fn destinations(&self) -> Vec<Destination> {
        let now = uptime();
        let to = |peer: PeerStatus| {
            let measured = self.watched().get(&peer.node).and_then(|watched| watched.meter.rate(now));
            Destination {
                node: peer.node,
                name: peer.name.to_string(),
                labels: self.settings.carrier.labels_of(&peer.name).to_vec(),
                sent: self.carrier.telling(peer.node, None).map(|telling| telling.sent).unwrap_or_default(),
                measured,
                ceiling: peer.rate,
                link: Some(peer.state),
            }
        };
        self.carrier.status().into_iter().map(to).collect()
    }

    fn purge_view(&self, status: PurgeStatus) -> PurgeView {
        let name =
            |node: NodeId| self.registry.get(node).map_or_else(|| node.to_string(), |peer| peer.name.to_string());
        let order = &status.order;
        let at_node = |peer: keys::Peer| {
            let receipt = status.receipts.get(&consumer_name(peer.node)).copied().unwrap_or(PurgeReceipt::Waiting);
            PurgeAtNode { name: peer.name.to_string(), state: purge_state(receipt) }
        };
        PurgeView {
            id: order.id.to_string(),
            at: order.at,
            by: order.by.clone(),
            reason: order.reason.clone(),
            posts: order.posts.iter().map(ToString::to_string).collect(),
            files: order.files.iter().map(ToString::to_string).collect(),
            origin: status.origin.map(name),
            done_at: status.done_at,
            nodes: match status.origin {
                None => self.registry.list().into_iter().map(at_node).collect(),
                Some(_) => Vec::new(),
            },
            done: status.done,
        }
    }

    /// Content that an order has not reached is the worst place for an order to wait unseen.
    fn look_at_purges(&self) {
        let purges = match Control::purges(self) {
            Ok(purges) => purges.purges,
            Err(e) => return warn!(reason = e.text, "the orders to purge could not be read"),
        };
        let mut waiting: BTreeMap<String, u64> = BTreeMap::new();
        for node in purges.iter().flat_map(|purge| &purge.nodes) {
            *waiting.entry(node.name.clone()).or_default() += u64::from(!node.state.is_final());
        }
        for (name, count) in &waiting {
            self.metrics.purges_waiting.set_count((telemetry::PeerName::new(name),), *count);
        }
        let behind: Vec<String> =
            waiting.iter().filter(|(_, n)| **n > 0).map(|(name, n)| format!("{name} ({n})")).collect();
        let verdict = match behind.is_empty() {
            true => Verdict::ok("no order to purge waits for a node"),
            false => Verdict::degraded(
                format!("orders to purge wait for {}; the content may still be there", behind.join(", ")),
                "bring the link up; `holdfast purge status` shows which orders and how far they are",
            ),
        };
        self.health.report("purge receipts", verdict);
    }

    fn peer_facts(&self, peer: &PeerStatus, capturing: u64) -> Result<PeerFacts, Failure> {
        let now = SystemClock.now();
        let failed = |e: journal::ReadError| Failure::new(chain(&e), e.next_step());
        let accounting = self.journal.accounting(&consumer_name(peer.node)).map_err(failed)?;
        let stored: u64 = self.journal.received(peer.node).values().map(model::RangeSet::count).sum();
        let ledger = self.applied.ledger(peer.node);
        let ended = |outcome: Outcome| ledger.iter().filter(|(_, o, _)| *o == outcome).map(|(.., n)| n.count()).sum();
        let (applied, quarantined): (u64, u64) = (ended(Outcome::Applied), ended(Outcome::Quarantined));
        let (rates, eta) = match (self.watched().get(&peer.node), &accounting) {
            (Some(watched), Some(a)) => (watched.rates(), watched.eta(uptime(), a, &peer.state, peer.rate)),
            (Some(watched), None) => (watched.rates(), None),
            (None, _) => ((0, 0), None),
        };
        let (since, detail) = match &peer.state {
            PeerState::Up { since } => (Some(*since), ""),
            PeerState::Connecting { last } => (None, last.as_str()),
            PeerState::Down { since, last } => (*since, last.as_str()),
            PeerState::Silent | PeerState::OneWay => (None, ""),
            PeerState::Relayed { via } => (None, via.refusal.as_str()),
            PeerState::Held { why } => (None, why.as_str()),
            PeerState::Denied { text } => (None, text.as_str()),
        };
        Ok(PeerFacts {
            name: peer.name.to_string(),
            link: Some(LinkFacts {
                state: backlog::state_name(&peer.state).to_owned(),
                reach: peer.reach.to_string(),
                for_seconds: since.map(|at| crate::show::age(at, now).as_secs()),
                detail: detail.to_owned(),
                up_bits_per_second: rates.0,
                down_bits_per_second: rates.1,
                round_trip_ms: peer.round_trip.map(|rtt| u64::try_from(rtt.as_millis()).unwrap_or(u64::MAX)),
            }),
            outbound: accounting.map(|a| Equation::new(&a, capturing, now, eta)),
            inbound: Some(InboundFacts {
                stored,
                applied,
                held: stored.saturating_sub(applied + quarantined),
                quarantined,
            }),
        })
    }
}

fn purge_state(receipt: PurgeReceipt) -> PurgeState {
    match receipt {
        PurgeReceipt::Waiting => PurgeState::Waiting,
        PurgeReceipt::Sent => PurgeState::Sent,
        PurgeReceipt::Ended(Outcome::Applied) => PurgeState::Done,
        PurgeReceipt::Ended(Outcome::Withheld) => PurgeState::NotReleased,
        PurgeReceipt::Ended(Outcome::Quarantined | Outcome::Expired | Outcome::Superseded | Outcome::Purged) => {
            PurgeState::Failed
        }
    }
}

fn purge_request(request: &PurgeRequest) -> Result<apply::PurgeRequest, Failure> {
    let wrong = |what: String, next: &str| Failure::with(Exit::Usage, format!("{what}; nothing was changed"), next);
    if request.reason.trim().is_empty() {
        return Err(wrong("an order to purge needs a reason".to_owned(), "give one with --reason"));
    }
    let target = match request.target.parse::<model::Id>() {
        Ok(id) => apply::PurgeTarget::Object(id),
        Err(_) => apply::PurgeTarget::Entry(crate::verbs::parse_which(&request.target).ok_or_else(|| {
            let next = "give the id of a post or file, or an entry as `holdfast journal list` shows it";
            wrong(format!("`{}` names no post, file or entry", request.target), next)
        })?),
    };
    Ok(apply::PurgeRequest {
        target,
        by: request.by.clone(),
        reason: request.reason.clone(),
        keep_files: request.keep_files,
        everywhere_used: request.everywhere_used,
    })
}

/// What the one-way lane has sent as often as it is to, and nobody has confirmed.
fn unconfirmed(peer: &PeerStatus) -> Option<u64> {
    peer.links.iter().find_map(|link| link.oneway.as_ref()).map(|sent| sent.unconfirmed_entries)
}

/// What the state of a link means for the operator. Silence is an order that was given: it is no defect.
fn verdict(state: &PeerState) -> Verdict {
    const WAIT: &str = "nothing is lost and it is tried again by itself; check the path to the peer if it should be up";
    let why = |last: &str| if last.is_empty() { String::new() } else { format!(": {last}") };
    match state {
        PeerState::Up { .. } => Verdict::ok("up"),
        PeerState::Silent => Verdict::ok("silent, as emission control orders"),
        PeerState::Held { why } => Verdict::ok(why.clone()),
        PeerState::OneWay => Verdict::ok("one-way: no answer is expected"),
        PeerState::Relayed { via } if !via.refusal.is_empty() => Verdict::degraded(
            format!("the relay {} refuses parcels: {}", via.relay, via.refusal),
            "compare `holdfast enroll list` and carrier.transit_limit there; nothing is lost and it is tried again by itself",
        ),
        PeerState::Relayed { via } => Verdict::ok(format!("by way of the relay {}", via.relay)),
        PeerState::Connecting { last } if last.is_empty() => Verdict::ok("connecting"),
        PeerState::Connecting { last } => Verdict::degraded(format!("no connection{}", why(last)), WAIT),
        PeerState::Down { last, .. } => Verdict::degraded(format!("no connection{}", why(last)), WAIT),
        PeerState::Denied { text } => Verdict::degraded(
            format!("refused: {text}"),
            "compare `holdfast enroll list` on both sides; enroll again if need be",
        ),
    }
}

/// Looks once a second; each look also tells the service manager that the node lives.
async fn watch(running: Arc<Running>, stop: CancellationToken) -> std::io::Result<()> {
    while stop.run_until_cancelled(tokio::time::sleep(WATCH_EVERY)).await.is_some() {
        let running = Arc::clone(&running);
        tokio::task::spawn_blocking(move || running.look()).await?;
        tell_systemd(&[sd_notify::NotifyState::Watchdog]);
    }
    Ok(())
}

impl Control for Running {
    fn status(&self) -> Result<Status, Failure> {
        // The outbox before the journal: a row captured in between then counts twice as held for a moment, and is
        // never missing.
        let outbox = self.core.outbox_stats().map_err(|e| Failure::new(chain(&e), "check the disk, then try again"))?;
        let stats = self.journal.stats();
        let peers = self.carrier.status();
        let facts: Result<Vec<PeerFacts>, Failure> = peers.iter().map(|p| self.peer_facts(p, outbox.rows)).collect();
        Ok(Status {
            schema: status::SCHEMA.to_owned(),
            at: SystemClock.now(),
            running: true,
            node: NodeFacts {
                name: self.settings.node.name.to_string(),
                id: self.key.node_id().to_string(),
                role: self.settings.node.role,
                version: env!("CARGO_PKG_VERSION").to_owned(),
                epoch: stats.epochs.last().map_or(0, |e| e.epoch.0),
            },
            uptime_seconds: Some(uptime().saturating_sub(self.started).as_secs()),
            ready: self.health.is_ready(),
            health: Some(self.health.grade()),
            emission: self.carrier.emission(),
            peers: facts?,
            transit: self.carrier.transit(),
            microsoft: self.graph.as_ref().map(|graph| MicrosoftFacts::new(&graph.reach().borrow())),
            capture_pending_rows: Some(outbox.rows),
            disk: DiskFacts {
                journal_bytes: stats.bytes,
                journal_limit_bytes: stats.limit_bytes,
                free_bytes: status::free_bytes(self.layout.data()),
                space: Some(self.journal.space()),
            },
            problems: self.health.checks().into_iter().filter(|c| c.grade != Grade::Ok).collect(),
        })
    }

    fn backlog(&self) -> Result<Backlog, Failure> {
        let failed = |e: journal::ReadError| Failure::new(chain(&e), e.next_step());
        let outbox = self.core.outbox_stats().map_err(|e| Failure::new(chain(&e), "check the disk, then try again"))?;
        let mut peers = Vec::new();
        for peer in self.carrier.status() {
            let consumer = consumer_name(peer.node);
            let Some(accounting) = self.journal.accounting(&consumer).map_err(failed)? else { continue };
            let streams = self.journal.held_by_stream(&consumer).map_err(failed)?.unwrap_or_default();
            let sent = self.carrier.telling(peer.node, None).map(|telling| telling.sent);
            let mut all = self.watched();
            let watched = all.entry(peer.node).or_default();
            watched.sent = sent.unwrap_or_else(|| std::mem::take(&mut watched.sent));
            watched.on_request = self.journal.held_sizes(&consumer, &watched.sent.on_request);
            peers.push(self.peer_backlog(uptime(), &peer, &accounting, watched, streams));
        }
        let (schema, at) = (backlog::SCHEMA.to_owned(), SystemClock.now());
        let transit = self.carrier.transit();
        Ok(Backlog { schema, at, running: true, capturing: Some(outbox.rows), peers, transit })
    }

    fn file(&self, asked: &FileRequest) -> Result<FileView, Failure> {
        let wrong = |what: String| Failure::new(what, "give the id of a file as the API and `holdfast why` show it");
        let id: Id = asked.id.parse().map_err(|_| wrong(format!("`{}` is no id of a file", asked.id)))?;
        let stored = |e: mission::StoreError| Failure::new(chain(&e), "check the disk, then try again");
        if let Some(class) = asked.class {
            self.core.request_file(id, class).map_err(stored)?;
        }
        let brief = self.core.file_brief(id).map_err(stored)?.ok_or_else(|| wrong(format!("there is no file {id}")))?;
        let mut view = FileView {
            schema: FileView::SCHEMA.to_owned(),
            id: id.to_string(),
            name: brief.name,
            bytes: brief.size,
            mime_type: brief.mime_type,
            state: if brief.is_here { FileState::Here } else { FileState::Announced },
            requested: brief.requested.map(|class| class.as_str().to_owned()),
            from: None,
            link: None,
            missing_bytes: if brief.is_here { 0 } else { brief.size },
            cost: None,
            eta: None,
            basis: None,
        };
        if brief.is_here {
            return Ok(view);
        }
        let Some((peer, entry)) = self.incomplete(id)? else { return Ok(view) };
        let number = (entry.header.id.epoch, entry.header.id.seq);
        let telling = self.carrier.telling(peer.node, None).unwrap_or_default();
        let waits = telling.on_request.iter().find(|file| (file.epoch, file.seq) == number);
        view.state = if waits.is_some() && view.requested.is_none() { FileState::OnRequest } else { FileState::Coming };
        view.missing_bytes = waits.map_or(view.missing_bytes, |file| file.missing_bytes);
        // How fast the peer may send is its own matter; a link is taken to be alike in both directions.
        let rate = FrameRate::configured(peer.rate);
        view.eta = Some(rate.time_for(view.missing_bytes, 0));
        let links = self.settings.carrier.peers.get(&peer.name).map(|p| p.links.as_slice()).unwrap_or_default();
        let cheapest = links.iter().map(|link| link.cost).min().filter(|cost| *cost > 0);
        view.cost = cheapest.map(|cost| (view.missing_bytes * cost).div_ceil(1_000_000));
        view.basis = Some(rate.basis);
        view.from = Some(peer.name.to_string());
        view.link = Some(backlog::state_name(&peer.state).to_owned());
        Ok(view)
    }

    fn why(&self, target: &str) -> Result<Why, Failure> {
        why::why(target, &self.journal, &self.destinations(), Some(self), SystemClock.now())
    }

    fn simulate(&self, asked: &SimulateRequest) -> Result<Forecast, Failure> {
        let peer = self.registry.by_name(&asked.to).ok_or_else(|| {
            let next = "`holdfast enroll list` shows the names";
            Failure::with(Exit::Usage, format!("no node `{}` is enrolled here", asked.to), next)
        })?;
        let link: LinkSpec = asked.link.parse().map_err(|e: simulate::BadLink| {
            Failure::with(Exit::Usage, e.to_string(), "a rate and a delay are enough: 64kbit/s/300ms")
        })?;
        let failed = |e: journal::ReadError| Failure::new(chain(&e), e.next_step());
        let name = consumer_name(peer.node);
        let registered = self.journal.consumer(&name, true).map_err(|e| Failure::new(chain(&e), e.next_step()))?;
        let sender = carrier::sender_state(&self.journal, &registered).map_err(failed)?;
        let accounting = self.journal.accounting(&name).map_err(failed)?;
        let of = |sums: &journal::Sums| sums.held.saturating_sub(sums.stored);
        let telling = self.carrier.telling(peer.node, None).unwrap_or_default();
        let outbound = self.journal.outbound();
        let start = Start {
            name: &asked.to,
            parties: (self.key.node_id(), peer.node),
            sender,
            labels: self.settings.carrier.labels_of(&peer.name).iter().cloned().collect(),
            chunk_secret: *self.chunk_secret.expose(),
            compression: carrier::compression(link.rate),
            outbound: &outbound,
            entries: accounting.map(|a| a.by_class.each_ref().map(of)).unwrap_or_default(),
            on_request: telling.sent.on_request,
            wall: SystemClock.now(),
        };
        let until = uptime() + SIMULATED_FOR;
        simulate::simulate(start, asked, link, &|| uptime() > until)
            .map_err(|e| Failure::new(chain(&e), "check the disk, then run `holdfast journal verify`"))
    }

    fn set_emission(&self, mode: Emission) -> Result<(), Failure> {
        info!(%mode, "emission control");
        self.carrier.set_emission(mode).map_err(|e| Failure::new(chain(&e), e.next_step()))
    }

    fn links(&self) -> Result<Links, Failure> {
        Ok(links::list(&self.carrier))
    }

    fn order_link(&self, change: &LinkChange) -> Result<(), Failure> {
        info!(link = %change.link, order = ?change.order, "link order");
        links::order(&self.carrier, change)
    }

    async fn test_link(&self, test: &LinkTest) -> Result<LinkTested, Failure> {
        links::test(&self.carrier, &test.link).await
    }

    fn add_user(&self, user: &NewUser) -> Result<UserAdded, Failure> {
        accounts::add(&self.core, user)
    }

    fn set_password(&self, change: &NewPassword) -> Result<(), Failure> {
        accounts::set_password(&self.core, change)
    }

    fn peers(&self) -> Result<Peers, Failure> {
        Ok(offline::peers(&self.registry, self.invites.as_deref()))
    }

    fn invite(&self, request: &InviteRequest) -> Result<Token, Failure> {
        let Some(invites) = &self.invites else { return Err(offline::no_desk()) };
        offline::invite(&self.settings, &self.key, invites, request)
    }

    fn change_hold(&self, change: &HoldChange) -> Result<HoldChanged, Failure> {
        offline::change_hold(&self.journal, change)
    }

    fn remove_peer(&self, name: &str) -> Result<(), Failure> {
        if let Some(peer) = offline::remove_peer(&self.registry, self.invites.as_deref(), name)? {
            self.carrier.notify_peers();
            self.health.retract(&format!("link {name}"));
            self.health.retract(&format!("backlog {name}"));
            // The journal waits for it no longer.
            let removed = self.journal.remove_consumer(&consumer_name(peer.node));
            removed.map_err(|e| Failure::new(chain(&e), e.next_step()))?;
        }
        Ok(())
    }

    fn keys(&self) -> Result<KeyList, Failure> {
        self.rotation.list()
    }

    fn rotate_keys(&self) -> Result<Rotated, Failure> {
        self.rotation.rotate()
    }

    fn rewrite_step(&self) -> Result<Rewriting, Failure> {
        self.rotation.rewrite_step()
    }

    fn stop(&self) {
        self.stop_asked.cancel();
    }

    fn upkeep(&self, asked: &Upkeep) -> Result<UpkeepDone, Failure> {
        let done = upkeep::perform(&self.journal, asked)?;
        // What is missed is asked for at once, and what was given up is told.
        self.carrier.notify_finals();
        Ok(done)
    }

    fn preview_purge(&self, request: &PurgeRequest) -> Result<Holdings, Failure> {
        self.applied.preview_purge(&purge_request(request)?).map_err(|e| Failure::new(chain(&e), e.next_step()))
    }

    fn order_purge(&self, request: &PurgeRequest) -> Result<PurgeOrdered, Failure> {
        let ordered = self.applied.order_purge(&purge_request(request)?);
        let ids = ordered.map_err(|e| Failure::new(chain(&e), e.next_step()))?;
        self.metrics.purges_ordered_total.add((), ids.len() as u64);
        Ok(PurgeOrdered { ids: ids.iter().map(ToString::to_string).collect() })
    }

    fn purges(&self) -> Result<Purges, Failure> {
        let failed = |e: apply::PurgeError| Failure::new(chain(&e), e.next_step());
        let purges = self.applied.purges().map_err(failed)?.into_iter().map(|status| self.purge_view(status));
        Ok(Purges { schema: Purges::SCHEMA.to_owned(), purges: purges.collect() })
    }

    fn targets(&self, ask: TargetsAsk) -> Result<TargetsAnswer, Failure> {
        targets::answer(self.targets.as_ref(), ask)
    }

    fn bulk(&self, ask: BulkAsk) -> Result<BulkJob, Failure> {
        bulk::answer(&self.core, ask)
    }

    async fn directory(&self, ask: DirectoryAsk) -> Result<DirectoryAnswer, Failure> {
        directory::answer(&self.core, self.directory.as_ref(), ask).await
    }

    async fn m365(&self, ask: M365Ask) -> Result<M365Answer, Failure> {
        self.sign_ins.answer(self.graph.as_ref(), ask).await
    }

    async fn courier(&self, ask: CourierAsk) -> Result<CourierAnswer, Failure> {
        let failed = |e: carrier::ParcelRefused| Failure::new(chain(&e), e.next_step());
        Ok(match ask {
            CourierAsk::Begin { to, since } => {
                CourierAnswer::Begun(self.carrier.begin_export(&to, since).await.map_err(failed)?)
            }
            CourierAsk::Next { to, bytes } => {
                let made = self.carrier.next_export(&to, bytes).await.map_err(failed)?;
                CourierAnswer::Made {
                    parcels: BASE64.encode(&made.bytes),
                    first: made.numbers.first().unwrap_or_default(),
                    count: made.numbers.count(),
                    entries: made.entries,
                    chunks: made.chunks,
                    done: made.done,
                }
            }
            CourierAsk::Written { to, written } => {
                self.carrier.note_export(&to, written).await.map_err(failed)?;
                CourierAnswer::Noted
            }
            CourierAsk::End { to, full } => {
                self.carrier.end_export(&to, full).await.map_err(failed)?;
                CourierAnswer::Noted
            }
            CourierAsk::Take { parcel } => {
                let bytes = BASE64.decode(parcel.as_bytes());
                let bytes =
                    bytes.map_err(|_| Failure::new("the request holds no parcel", "import the medium again"))?;
                let (from, taken) = self.carrier.take_parcel(&bytes).await.1.map_err(failed)?;
                let name = self.registry.get(from).map_or_else(|| from.to_string(), |peer| peer.name.to_string());
                CourierAnswer::Taken { from: name, taken }
            }
        })
    }

    fn accept(&self, card: &str) -> Result<PeerRow, Failure> {
        let row = offline::accept(&self.key, &self.registry, card)?;
        self.carrier.notify_peers();
        Ok(row)
    }

    async fn join(&self, token: &str) -> Result<Joined, Failure> {
        let emission = self.carrier.emission();
        let secrets = (&self.chunk_secret, &self.sealing);
        let joined = offline::join(&self.settings, &self.key, secrets, &self.registry, emission, token).await?;
        self.carrier.notify_peers();
        Ok(joined)
    }
}

impl Live for Running {
    fn on_its_way(&self, peer: NodeId, entry: EntryId) -> Option<Duration> {
        self.carrier.telling(peer, Some((entry.epoch, entry.seq)))?.on_its_way
    }

    fn here(&self, header: &Header) -> Option<String> {
        let ledger = self.applied.ledger(header.id.origin);
        let outcome = |id: EntryId| {
            let ended = ledger.iter().find(|(epoch, _, set)| *epoch == id.epoch && set.contains(id.seq.get()));
            ended.map(|(_, outcome, _)| *outcome)
        };
        let missing = header.causes.iter().find(|c| c.origin == header.id.origin && outcome(**c).is_none());
        Some(match (outcome(header.id), missing) {
            (Some(outcome), _) => outcome.as_str().to_owned(),
            (None, Some(cause)) => format!("durable, not in effect: it needs {cause}"),
            (None, None) if header.kind == model::Kind::File => {
                "durable; the bytes of the file are not all here".to_owned()
            }
            (None, None) => "durable, about to be applied".to_owned(),
        })
    }

    fn is_being_captured(&self, objects: &[ObjectRef]) -> bool {
        let rows = self.core.outbox_read(Hlc::ZERO, CAPTURE_ROWS_MAX).unwrap_or_default();
        let aside = self.core.outbox_aside().unwrap_or_default().into_iter().map(|(row, _)| row);
        rows.into_iter().chain(aside).any(|row| objects.contains(&row.event.object()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_averaged_over_the_last_looks() {
        let mut watched = Watched::default();
        assert_eq!(watched.rates(), (0, 0));
        for second in 0..20 {
            watched.look(Duration::from_secs(second), second * 1_000, 500);
        }
        assert_eq!(watched.rates(), (8_000, 0));
    }

    #[test]
    fn ordered_silence_is_no_defect_and_a_refusal_is_one() {
        let health = Health::new(Arc::new(SystemClock));
        health.report("link bravo", verdict(&PeerState::Silent));
        assert_eq!(health.grade(), Grade::Ok);
        health.report("link bravo", verdict(&PeerState::Denied { text: "not enrolled".to_owned() }));
        assert_eq!(health.grade(), Grade::Degraded);
    }
}
