//! The composition.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use apply::targets::{TargetError, Targets, TargetsHandle, TargetsOptions};
use apply::{Apply, ApplyError, ApplyHandle, ApplyOptions};
use capture::{Capture, CaptureOptions, CaptureSettings};
use carrier::{
    Carrier, CarrierError, CarrierHandle, CarrierOptions, CarrierSettings, EnrollError, EnrollOptions, Ledger,
    LedgerError,
};
use journal::{
    AppendError, AtRest, IndexPlace, Journal, JournalOptions, JournalSettings, OpenReport, ScrubSettings, StdDisk,
};
use keys::{
    ChunkSecret, DataKeys, Invite, InviteBook, KeysError, NodeKey, Peer, PeerName, PeerRegistry, ProcessMint,
    SealingKey, TokenError,
};
use microsoft::directory::SyncHandle;
use microsoft::{Graph, GraphSettings, PackageError, TokioTimer};
use mission::http::HttpSettings;
use mission::ws::WsHub;
use mission::{Core, CoreOptions, CoreSettings};
use model::{Clock, Entry, EntryId, Epoch, HybridClock, Id, NodeId, Outcome, Precedence, RangeSet, Sensitive};
use telemetry::{Health, Metrics, Verdict};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, error, info, info_span, warn};

use crate::{directory, figures, microsoft365, mirror, scrub, space, tab};

/// Time that the rooms get to finish once asked to. What is acknowledged is durable whatever happens after.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(10);

/// What a site is made from.
#[derive(Clone, Debug)]
pub struct SiteConfig {
    /// Everything that the node keeps lies below this directory.
    pub data_dir: PathBuf,
    /// Name under which peers know the node.
    pub name: PeerName,
    /// Where the Mattermost-compatible API listens.
    pub api_listen: SocketAddr,
    /// Section `[core]`.
    pub core: CoreSettings,
    /// Section `[http]`.
    pub http: HttpSettings,
    /// Section `[journal]`.
    pub journal: JournalSettings,
    /// What the journal is sealed with; see [`crate::open_keyring`].
    pub data_keys: DataKeys,
    /// Section `[scrub]`.
    pub scrub: ScrubSettings,
    /// Section `[capture]`.
    pub capture: CaptureSettings,
    /// Section `[carrier]`.
    pub carrier: CarrierSettings,
    /// Section `[microsoft]`, once read; without it nothing of it runs.
    pub microsoft: Option<GraphSettings>,
    /// Section `[microsoft.directory]`, once read; without it, or without the way, no account follows a directory.
    pub directory: Option<microsoft::directory::Rules>,
}

/// What a site gets from the process around it.
#[derive(Clone)]
pub struct Environment {
    /// Wall time.
    pub clock: Arc<dyn Clock>,
    /// This node's figures.
    pub metrics: Arc<Metrics>,
    /// This node's checks.
    pub health: Health,
}

/// The site did not start. What it holds on disk is as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Keys, registry or invitations.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// The journal.
    #[error(transparent)]
    Journal(#[from] journal::OpenError),
    /// The journal takes nothing.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The mission core.
    #[error(transparent)]
    Core(#[from] mission::OpenError),
    /// The mission core could not be read.
    #[error(transparent)]
    Store(#[from] mission::StoreError),
    /// What was received could not be looked at.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// The links.
    #[error(transparent)]
    Carrier(#[from] CarrierError),
    /// The API's address.
    #[error("listening on {address} for the API failed: {source}; nothing was started")]
    Listen {
        /// The configured address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What goes to Microsoft 365.
    #[error(transparent)]
    Targets(#[from] TargetError),
    /// The way to Microsoft 365.
    #[error(transparent)]
    Microsoft(#[from] microsoft::SettingsError),
    /// The tab in Teams and Outlook.
    #[error(transparent)]
    Tab(#[from] PackageError),
    /// A hub without a place to be reached at.
    #[error("a hub needs an address at which edges reach it; nothing was started")]
    NoListener,
}

impl StartError {
    /// What the operator should do.
    pub fn next_step(&self) -> String {
        match self {
            Self::Keys(e) => e.next_step().to_owned(),
            Self::Journal(e) => e.next_step().to_owned(),
            Self::Append(e) => e.next_step().to_owned(),
            Self::Core(e) => e.next_step().to_owned(),
            Self::Store(_) => "check the disk that holds the data directory".to_owned(),
            Self::Apply(e) => e.next_step().to_owned(),
            Self::Carrier(e) => e.next_step().to_owned(),
            Self::Listen { .. } => "set api.listen to a free address and port of this machine".to_owned(),
            Self::Targets(e) => e.next_step().to_owned(),
            Self::Microsoft(_) => "correct section [microsoft]; `holdfast config check` tells what is wrong".to_owned(),
            Self::Tab(_) => {
                "correct section [microsoft.app] and http.site_url; `holdfast config check` tells what is wrong"
                    .to_owned()
            }
            Self::NoListener => "set carrier.listen, e.g. `0.0.0.0:7800`".to_owned(),
        }
    }
}

/// The node did not join a hub. It is as it was before.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// The text is no token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The hub did not admit it.
    #[error(transparent)]
    Enroll(#[from] EnrollError),
    /// The hub could not be noted.
    #[error(transparent)]
    Keys(#[from] KeysError),
}

impl JoinError {
    /// What the operator should do.
    pub fn next_step(&self) -> String {
        match self {
            Self::Token(e) => e.next_step().to_owned(),
            Self::Enroll(e) => e.next_step().to_owned(),
            Self::Keys(e) => e.next_step().to_owned(),
        }
    }
}

/// A running site.
pub struct Site {
    node: NodeId,
    config: SiteConfig,
    environment: Environment,
    api: SocketAddr,
    report: OpenReport,
    core: Core,
    journal: Journal,
    registry: Arc<PeerRegistry>,
    chunk_secret: ChunkSecret,
    sealing: SealingKey,
    carrier: CarrierHandle,
    applied: ApplyHandle,
    sockets: WsHub,
    graph: Option<Graph>,
    targets: Option<TargetsHandle>,
    directory: Option<SyncHandle>,
    /// Stops everything.
    stop: CancellationToken,
    tasks: JoinSet<&'static str>,
}

impl Site {
    /// Starts a node that dials the hubs it is enrolled at and enrols nobody.
    ///
    /// # Errors
    /// When a part does not start; the parts before it are stopped again.
    pub async fn start(config: SiteConfig, environment: Environment) -> Result<Self, StartError> {
        Self::start_with_desk(config, environment, None).await
    }

    /// Starts a node; with `invites` it enrols whoever holds a valid token.
    ///
    /// # Errors
    /// As for [`Site::start`].
    pub async fn start_with_desk(
        config: SiteConfig,
        environment: Environment,
        invites: Option<Arc<InviteBook>>,
    ) -> Result<Self, StartError> {
        let Environment { clock, metrics, health } = environment.clone();
        let is_hub = invites.is_some();
        let keys_dir = config.data_dir.join("keys");
        let key = NodeKey::open(&keys_dir)?;
        let node = key.node_id();
        let chunk_secret = ChunkSecret::open(&keys_dir)?;
        let sealing = SealingKey::open(&keys_dir)?;
        let registry = Arc::new(PeerRegistry::open(&keys_dir)?);
        let (journal, report) = open_journal(&config, node, &clock).await?;
        report_open(&report, &health, &metrics);
        journal.count_in(Arc::clone(&metrics));

        // Readings continue after everything this node ever issued, whatever the wall clock says.
        let seen = journal.highest_source().map_or(model::Hlc::ZERO, |s| s.0);
        let hybrid = Arc::new(HybridClock::after(seen));
        let mint = Arc::new(ProcessMint::new(node));
        let mint_salt = mint.salt();
        let stop = CancellationToken::new();
        let sockets = WsHub::new(stop.child_token());
        let core = Core::open(CoreOptions {
            dir: config.data_dir.join("core"),
            node,
            node_name: config.name.to_string(),
            mint,
            clock: Arc::clone(&clock),
            hybrid: Arc::clone(&hybrid),
            events: Arc::new(sockets.clone()),
            settings: config.core.clone(),
        })?;

        let rules = config.capture.clone();
        core.set_class_of_post(Arc::new(move |priority, place| capture::class_of_post(&rules, priority, place)));

        report_age(&journal, &core, &health)?;
        let (apply, applied) = Apply::new(ApplyOptions {
            journal: journal.clone(),
            core: core.clone(),
            hybrid,
            clock: Arc::clone(&clock),
            peer_name: peer_namer(&registry, &core),
            metrics: Arc::clone(&metrics),
            health: health.clone(),
        })?;
        let carrier = Carrier::new(CarrierOptions {
            key,
            name: config.name.clone(),
            chunk_secret: chunk_secret.clone(),
            sealing: sealing.clone(),
            registry: Arc::clone(&registry),
            invites,
            journal: journal.clone(),
            ledger: Arc::new(AppliedLedger { applied: applied.clone(), core: core.clone() }),
            settings: config.carrier.clone(),
            data_dir: config.data_dir.clone(),
            clock: Arc::clone(&clock),
            metrics: Arc::clone(&metrics),
        })?;
        let carrier_handle = carrier.handle();
        let alarm = health.clone();
        journal.on_stop(move |why| {
            let next = "check the disk (`dmesg`), replace it if it reports errors, then restart the node";
            alarm.report("journal", Verdict::failing(why, next));
        });
        let capture = Capture::new(CaptureOptions {
            core: core.clone(),
            journal: journal.clone(),
            settings: config.capture.clone(),
            chunk_secret: Sensitive(*chunk_secret.expose()),
            mint_salt,
            clock,
            metrics,
            health: health.clone(),
        });
        let graph = match &config.microsoft {
            Some(settings) => Some(microsoft365::open(settings, &config, &environment, &carrier_handle)?),
            None => None,
        };
        let configured = config.microsoft.as_ref().map_or(&[][..], |settings| &settings.targets);
        apply::targets::forget_unconfigured(&journal, configured)?;
        let targets_dir = config.data_dir.join(microsoft365::DIR);
        let targets = match &graph {
            Some(graph) if !configured.is_empty() || apply::targets::left_open(&targets_dir)? => {
                Some(Targets::new(TargetsOptions {
                    journal: journal.clone(),
                    core: core.clone(),
                    graph: graph.clone(),
                    settings: configured.to_vec(),
                    dir: targets_dir,
                    clock: Arc::clone(&environment.clock),
                    timer: Arc::new(TokioTimer::start()),
                    metrics: Arc::clone(&environment.metrics),
                    health: environment.health.clone(),
                })?)
            }
            Some(_) | None => None,
        };
        let (targets, targets_handle) = targets.unzip();
        let listener = TcpListener::bind(config.api_listen)
            .await
            .map_err(|source| StartError::Listen { address: config.api_listen, source })?;
        let api = listener.local_addr().map_err(|source| StartError::Listen { address: config.api_listen, source })?;

        let mut site = Self {
            node,
            api,
            report,
            core,
            journal,
            registry,
            chunk_secret,
            sealing,
            carrier: carrier_handle,
            applied,
            sockets,
            graph,
            targets: targets_handle,
            directory: None,
            stop,
            tasks: JoinSet::new(),
            config,
            environment,
        };
        site.spawn("apply", apply.run(site.stop.child_token()));
        site.spawn("carrier", carrier.run(site.stop.child_token()));
        site.spawn("capture", capture.run(site.stop.child_token()));
        site.spawn("receipts", pass_on_finals(site.applied.clone(), site.carrier.clone(), site.stop.child_token()));
        site.spawn("requests", pass_on_requests(site.core.clone(), site.carrier.clone(), site.stop.child_token()));
        let metrics = Arc::clone(&site.environment.metrics);
        site.spawn("pushes", site.core.clone().keep_pushing(metrics, site.stop.child_token()));
        site.spawn("times", site.core.clone().keep_times(site.stop.child_token()));
        site.spawn("jobs", site.core.clone().keep_jobs(site.stop.child_token()));
        site.spawn("figures", figures::keep(site.sources(), site.stop.child_token()));
        let environment = site.environment.clone();
        site.spawn("space", space::keep(site.core.clone(), site.journal.clone(), environment, site.stop.child_token()));
        let stop = site.stop.child_token();
        let (journal, carrier) = (site.journal.clone(), site.carrier.clone());
        site.spawn("scrub", scrub::keep(journal, site.config.scrub, carrier, site.environment.clone(), stop));
        let http = site.config.http.clone();
        let state = tab::api(&site.core, &site.sockets, http, site.graph.as_ref())?
            .with_metrics(Arc::clone(&site.environment.metrics));
        if is_hub {
            let (core, journal, carrier) = (site.core.clone(), site.journal.clone(), site.carrier.clone());
            site.spawn("mirror", mirror::keep(node, core, journal, carrier, state.clone(), site.stop.child_token()));
        }
        if let (Some(graph), Some(rules)) = (site.graph.clone(), site.config.directory.clone()) {
            let (sync, handle) = directory::open(graph, rules, site.core.clone(), &site.environment);
            site.directory = Some(handle);
            site.spawn("directory", sync.run(site.stop.child_token()));
        }
        if let Some(graph) = site.graph.clone() {
            site.spawn("microsoft", graph.keep_reach(site.stop.child_token()));
        }
        if let Some(targets) = targets {
            site.spawn("targets", targets.run(site.stop.child_token()));
        }
        let stop = site.stop.child_token();
        site.spawn("api", async move {
            if let Err(e) = mission::http::serve(listener, state, stop).await {
                error!(error = %e, "serving the API ended");
            }
        });
        health.set_ready(true);
        info!(node = %site.node, name = %site.config.name, api = %site.api, "started");
        Ok(site)
    }

    fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let named = async move {
            task.await;
            name
        };
        self.tasks.spawn(named.instrument(info_span!("task", name)));
    }

    fn sources(&self) -> figures::Sources {
        figures::Sources {
            core: self.core.clone(),
            journal: self.journal.clone(),
            registry: Arc::clone(&self.registry),
            sockets: self.sockets.clone(),
            environment: self.environment.clone(),
        }
    }

    /// The node's identity.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// What it was made from.
    pub fn config(&self) -> &SiteConfig {
        &self.config
    }

    /// Where the API listens.
    pub fn api(&self) -> SocketAddr {
        self.api
    }

    /// What opening the journal found.
    pub fn open_report(&self) -> &OpenReport {
        &self.report
    }

    /// The mission core.
    pub fn core(&self) -> &Core {
        &self.core
    }

    /// The journal.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// The enrolled peers.
    pub fn registry(&self) -> &Arc<PeerRegistry> {
        &self.registry
    }

    /// The links.
    pub fn carrier(&self) -> &CarrierHandle {
        &self.carrier
    }

    /// What goes to Microsoft 365, where a target is configured.
    pub fn targets(&self) -> Option<&TargetsHandle> {
        self.targets.as_ref()
    }

    /// The way to Microsoft 365, where section `[microsoft]` is there.
    pub fn graph(&self) -> Option<&Graph> {
        self.graph.as_ref()
    }

    /// The directory sync, where it is on.
    pub fn directory(&self) -> Option<&SyncHandle> {
        self.directory.as_ref()
    }

    /// What ended here of what peers sent.
    pub fn applied(&self) -> &ApplyHandle {
        &self.applied
    }

    /// The equation for what goes to a peer; `None` when nothing was ever registered for it. Blocks briefly.
    ///
    /// # Errors
    /// When the journal or the outbox cannot be read.
    pub fn equation(&self, peer: NodeId) -> Result<Option<crate::Equation>, crate::FigureError> {
        self.sources().equation(peer)
    }

    /// Enrols this node at the hub that issued `token` and begins to talk to it. Asks again for as long as `patience`
    /// while answers are lost. May be repeated with the same token.
    ///
    /// # Errors
    /// When the token is wrong or the hub refuses; nothing has changed then.
    pub async fn join(&self, token: &str, patience: Duration) -> Result<Peer, JoinError> {
        let key = NodeKey::open(&self.config.data_dir.join("keys"))?;
        let invite: Invite = token.parse()?;
        let peer = carrier::enroll_join(EnrollOptions {
            invite: &invite,
            key: &key,
            name: &self.config.name,
            chunk_secret: &self.chunk_secret,
            sealing: self.sealing.public(),
            rate: self.config.carrier.rate,
            emission: self.carrier.emission(),
            patience,
            clock: self.environment.clock.as_ref(),
        })
        .await?;
        self.registry.add(peer.clone())?;
        self.carrier.notify_peers();
        Ok(peer)
    }

    /// Completes when a part of the site ended by itself, which it does only when something is badly wrong.
    /// Cancel-safe.
    pub async fn ended_early(&mut self) -> &'static str {
        match self.tasks.join_next().await {
            Some(Ok(name)) => name,
            Some(Err(e)) => {
                error!(error = %e, "a task failed");
                "a task"
            }
            None => "every task",
        }
    }

    /// Stops every part, in order. What was accepted is durable; what was not captured or sent waits for the next start.
    pub async fn stop(mut self) {
        self.environment.health.set_ready(false);
        self.stop.cancel();
        let drain = async {
            while let Some(ended) = self.tasks.join_next().await {
                if let Err(e) = ended {
                    warn!(error = %e, "a task failed while stopping");
                }
            }
            self.sockets.ended().await;
        };
        if tokio::time::timeout(SHUTDOWN_GRACE, drain).await.is_err() {
            warn!(grace = ?SHUTDOWN_GRACE, "tasks still running; stopping anyway, the journal is safe");
        }
        info!(node = %self.node, "stopped");
    }
}

async fn open_journal(
    config: &SiteConfig,
    node: NodeId,
    clock: &Arc<dyn Clock>,
) -> Result<(Journal, OpenReport), StartError> {
    let options = JournalOptions {
        dir: config.data_dir.join("journal"),
        node,
        disk: Arc::new(StdDisk),
        clock: Arc::clone(clock),
        settings: config.journal,
        index: IndexPlace::Sled,
        at_rest: AtRest::sealed(config.data_keys.clone()),
    };
    // Rebuilding an index reads every segment: minutes for gigabytes, and the runtime must stay free meanwhile.
    let opened = tokio::task::spawn_blocking(move || {
        let mut told = 0;
        Journal::open_with_progress(options, &mut |p| {
            let tenth = p.done_bytes * 10 / p.total_bytes.max(1);
            if tenth > told {
                told = tenth;
                info!(done_bytes = p.done_bytes, total_bytes = p.total_bytes, "rebuilding the journal's index");
            }
        })
    });
    Ok(opened.await.expect("opening the journal does not panic")?)
}

/// Tells when the journal lacks entries that the core handed over to it: who puts an older copy of it beside the core
/// loses what was captured since, and nothing else would say so.
fn report_age(journal: &Journal, core: &Core, health: &Health) -> Result<(), StartError> {
    const CHECK: &str = "journal-age";
    let acked = core.outbox_acked()?;
    let held = journal.highest_source().map(|source| source.0);
    if acked > held {
        let behind = acked.map_or(0, |acked| acked.millis().0 - held.map_or(0, |held| held.millis().0));
        warn!(
            behind_ms = behind,
            "the journal is older than the mission core: entries captured since its copy was made are gone"
        );
        let text = "the journal is older than the mission core: entries that were captured after its copy was made are missing";
        let next = "restore the newer journal, or core and journal from one backup; what is missing here is not sent";
        health.report(CHECK, Verdict::degraded(text, next));
    } else {
        health.report(CHECK, Verdict::ok("the journal holds everything that the core handed over"));
    }
    Ok(())
}

/// Tells what opening the journal had to mend.
fn report_open(report: &OpenReport, health: &Health, metrics: &Metrics) {
    metrics.journal_damaged_frames_total.add((), report.damage.len() as u64);
    if let Some(epoch) = &report.new_epoch
        && !report.created
    {
        warn!(
            epoch = epoch.epoch.0,
            reason = ?epoch.reason,
            discarded_bytes = report.discarded_bytes,
            "a new epoch began; every acknowledged entry is intact"
        );
    }
    if let Some(why) = &report.index_rebuilt {
        metrics.journal_index_rebuilds_total.inc(());
        warn!(why, "the index was rebuilt from the segments; nothing was lost");
    }
    if report.damage.is_empty() {
        health.report("journal", Verdict::ok("intact"));
    } else {
        let text = format!("{} damaged places in the segments were skipped", report.damage.len());
        health.report("journal", Verdict::degraded(text, "run `holdfast journal verify`; check the disk"));
    }
}

/// Configured name of a peer, by its identity; the core learns it too, for names that collide and for late posts.
fn peer_namer(registry: &Arc<PeerRegistry>, core: &Core) -> Arc<dyn Fn(NodeId) -> String + Send + Sync> {
    for peer in registry.list() {
        if let Err(e) = core.replica().set_node_name(peer.node, peer.name.as_str()) {
            warn!(peer = %peer.name, error = %e, "the core did not note the name of a peer");
        }
    }
    let registry = Arc::clone(registry);
    let core = core.clone();
    let told = std::sync::Mutex::new(std::collections::BTreeSet::new());
    Arc::new(move |node| {
        let Some(peer) = registry.get(node) else { return node.to_string() };
        let mut told = told.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if told.insert(node)
            && let Err(e) = core.replica().set_node_name(node, peer.name.as_str())
        {
            warn!(peer = %peer.name, error = %e, "the core did not note the name of a peer");
        }
        peer.name.to_string()
    })
}

/// Receipts follow what was applied.
async fn pass_on_finals(applied: ApplyHandle, carrier: CarrierHandle, stop: CancellationToken) {
    let mut changed = applied.changed();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            ended = changed.changed() => match ended {
                Ok(()) => carrier.notify_finals(),
                Err(_) => return,
            },
        }
    }
}

/// Whoever wants a file makes the links look.
async fn pass_on_requests(core: Core, carrier: CarrierHandle, stop: CancellationToken) {
    let mut changed = core.file_requests_changed();
    while let Some(Ok(())) = stop.run_until_cancelled(changed.changed()).await {
        carrier.notify_files();
    }
}

struct AppliedLedger {
    applied: ApplyHandle,
    core: Core,
}

impl Ledger for AppliedLedger {
    fn ledger(&self, origin: NodeId) -> Result<Vec<(Epoch, Outcome, RangeSet)>, LedgerError> {
        Ok(self.applied.ledger(origin))
    }

    fn jumped(&self, origin: NodeId) -> Option<Vec<(EntryId, EntryId)>> {
        self.applied.jumped(origin)
    }

    fn account(&self, origin: NodeId, epoch: Epoch, outcome: Outcome, numbers: &RangeSet) -> Result<(), LedgerError> {
        self.applied.account(origin, epoch, outcome, numbers).map_err(|e| LedgerError(e.to_string()))
    }

    fn file_complete(&self, file: EntryId) {
        self.applied.file_complete(file);
    }

    fn incomplete_files(&self, origin: NodeId) -> Result<Vec<Entry>, LedgerError> {
        self.applied.incomplete_files(origin).map_err(|e| LedgerError(e.to_string()))
    }

    fn requested_files(&self, origin: NodeId) -> Result<Vec<(Entry, Precedence)>, LedgerError> {
        let wanted: BTreeMap<Id, Precedence> =
            self.core.file_requests().map_err(|e| LedgerError(e.to_string()))?.into_iter().collect();
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let class = |entry: &Entry| match wire::decode_event(entry) {
            Ok(model::Event::File(file)) => wanted.get(&file.stub.id).copied(),
            _ => None,
        };
        let files = self.incomplete_files(origin)?.into_iter();
        Ok(files.filter_map(|entry| class(&entry).map(|class| (entry, class))).collect())
    }
}
