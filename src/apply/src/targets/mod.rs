//! Microsoft 365 as a destination: each target reads the journal with a cursor of its own and writes what it may.
//!
//! ```text
//!  journal --entries, own and received--> route --> ledger (items) --> step by step --> Graph
//!     ^ trimmed up to what every target has ended    ^ labels, teams, channels     `--> what stands there, how it ended
//! ```
//!
//! Invariants
//! - Nothing goes to a target but what its mapping and its labels name; everything else is counted as withheld.
//! - `accepted = applied + held + quarantined + expired + superseded + withheld + purged` holds at each target at every moment.
//! - What nobody may do twice is noted as `sending` before the request; after a crash or a lost answer it is looked for by
//!   its natural key before anything is sent again.
//! - Within a channel and class items of one origin go as they were written, and otherwise in the journal's order; across them the
//!   most urgent first, behind what they need.
//! - What a target cannot express is counted and listed by name.
//!
//! Not here: requests and limits (microsoft), the mission core's own application of entries (the rest of this room).
//! Start reading at [`Targets::run`]; one target is in `runner`, its book in `ledger`.

mod archive;
mod digest;
mod gate;
mod import;
pub mod item;
pub mod ledger;
mod mail_import;
pub mod plan;
pub mod remote;
pub mod route;
mod runner;
pub mod teams;
#[cfg(test)]
pub(crate) mod testkit;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use journal::{AppendError, Journal, ReadError};
use microsoft::targets::{TargetKind, TargetSettings};
use microsoft::{Graph, Timer};
use mission::{Core, StoreError};
use model::{Clock, UnixMillis};
use serde::{Deserialize, Serialize};
use telemetry::{Health, Metrics, PeerName, Term, Verdict};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, info, info_span, warn};

use gate::Gate;
use ledger::{Item, Ledger, LedgerError, Terms};
use plan::{Plan, TargetPlan};
use runner::{Next, Runner};

/// Name of the check on the health board, with the target's name behind it.
const CHECK: &str = "m365";

/// An idle target looks again after so long, whatever happens.
const IDLE: Duration = Duration::from_secs(30);

/// Wait after the journal, the core or the ledger failed.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// What targets work with.
#[derive(Clone)]
pub struct TargetsOptions {
    /// What happened.
    pub journal: Journal,
    /// Names and file bytes.
    pub core: Core,
    /// The way to Microsoft 365.
    pub graph: Graph,
    /// The mappings.
    pub settings: Vec<TargetSettings>,
    /// Directory of the ledger.
    pub dir: PathBuf,
    /// Wall time.
    pub clock: Arc<dyn Clock>,
    /// What is waited on.
    pub timer: Arc<dyn Timer>,
    /// Figures.
    pub metrics: Arc<Metrics>,
    /// Where trouble is reported.
    pub health: Health,
}

/// A step failed on this node's side. Nothing was done halfway; it is tried again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The journal could not be read.
    #[error("the journal could not be read; what goes to Microsoft 365 waits in it")]
    Read(#[from] ReadError),
    /// The journal did not register the target.
    #[error("the journal did not take the target's cursor; nothing was sent")]
    Journal(#[from] AppendError),
    /// The mission core could not be read.
    #[error("the mission core could not be read; what goes to Microsoft 365 waits in the journal")]
    Core(#[from] StoreError),
}

impl TargetError {
    /// What the operator should do.
    pub fn next_step(&self) -> &'static str {
        match self {
            Self::Ledger(e) => e.next_step(),
            Self::Read(e) => e.next_step(),
            Self::Journal(e) => e.next_step(),
            Self::Core(_) => "check the disk that holds the data directory",
        }
    }
}

/// Name of the journal's consumer of a target.
fn consumer_of(target: &str) -> String {
    format!("{CHECK}:{target}")
}

/// Targets that are not configured any more let go of the journal: otherwise it would keep for ever what they have not
/// finished with. Their ledgers stay, and one that is configured again goes on where it was, as far as the journal holds it.
///
/// # Errors
/// When the journal does not take it.
pub fn forget_unconfigured(journal: &Journal, configured: &[TargetSettings]) -> Result<(), TargetError> {
    for consumer in journal.consumers() {
        let Some(name) = consumer.strip_prefix("m365:") else { continue };
        if !configured.iter().any(|target| target.name == name) {
            info!(target = name, "this target is not configured any more; the journal waits for it no longer");
            journal.remove_consumer(&consumer)?;
        }
    }
    Ok(())
}

/// Has a target, which need not be configured any more, left a channel open for import? Touches the disk.
///
/// # Errors
/// When the ledger cannot be read.
pub fn left_open(dir: &Path) -> Result<bool, TargetError> {
    if !Ledger::is_there(dir) {
        return Ok(false);
    }
    Ok(!gate::not_closed(&Ledger::open(dir)?)?.is_empty())
}

/// What all targets share.
struct Shared {
    options: TargetsOptions,
    ledger: Mutex<Ledger>,
    /// Somebody changed an item by hand.
    changed: Notify,
    /// What each target waits for, where it is not its turn.
    resting: Mutex<BTreeMap<String, String>>,
}

impl Shared {
    /// Works on the ledger, away from the runtime's threads.
    async fn ledger<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&mut Ledger) -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<T, TargetError> {
        self.blocking(move |shared| Ok(work(&mut shared.lock())?)).await
    }

    async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, TargetError> + Send + 'static,
    ) -> Result<T, TargetError> {
        let shared = Arc::clone(self);
        tokio::task::spawn_blocking(move || work(&shared)).await.expect("work on the ledger does not panic")
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> UnixMillis {
        self.options.clock.now()
    }

    fn rests(&self, target: &str, why: Option<(&str, Option<&str>)>) {
        let mut resting = self.resting.lock().unwrap_or_else(PoisonError::into_inner);
        let check = format!("{CHECK}-{target}");
        match why {
            None => {
                resting.remove(target);
                self.options.health.report(&check, Verdict::ok("delivers"));
            }
            Some((reason, next_step)) => {
                resting.insert(target.to_owned(), reason.to_owned());
                if let Some(next_step) = next_step {
                    self.options.health.report(&check, Verdict::degraded(reason, next_step));
                }
            }
        }
    }
}

/// Every configured target.
pub struct Targets {
    shared: Arc<Shared>,
    runners: Vec<Runner>,
    /// Channels that targets opened for import which are not configured any more.
    left_open: Vec<Gate>,
}

/// What can be asked of the targets while they run.
#[derive(Clone)]
pub struct TargetsHandle(Arc<Shared>);

/// How a target is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TargetStatus {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: String,
    /// The equation: everything in the journal that it has read, and what it has not read yet as accepted and held.
    pub terms: Terms,
    /// Why entries were withheld, and how many.
    pub withheld: BTreeMap<String, u64>,
    /// What could not be expressed, and how often.
    pub missing: BTreeMap<String, u64>,
    /// Items that were given up and can be tried again.
    pub dead: u64,
    /// What it waits for, where something holds it up.
    pub waits_for: Option<String>,
    /// Since when the channel is open for import, milliseconds since 1970: meanwhile people cannot post in it.
    pub open_since: Option<i64>,
}

/// An item as an operator sees it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ItemView {
    /// What names it to `retry` and `skip`.
    pub id: i64,
    /// The target.
    pub target: String,
    /// The entry.
    pub entry: String,
    /// What it is about.
    pub object: String,
    /// Team and channel.
    pub lane: String,
    /// Where it stands.
    pub state: ledger::State,
    /// What was said last.
    pub reason: String,
}

impl ItemView {
    fn of(target: String, item: Item) -> Self {
        Self {
            id: item.row,
            target,
            entry: item.id.to_string(),
            object: item.object,
            lane: item.lane,
            state: item.state,
            reason: item.reason,
        }
    }
}

impl Targets {
    /// Takes up every target where the last run left it. Touches the disk.
    ///
    /// # Errors
    /// When the ledger cannot be opened or the journal takes no cursor.
    pub fn new(options: TargetsOptions) -> Result<(Self, TargetsHandle), TargetError> {
        let ledger = Ledger::open(&options.dir)?;
        let shared =
            Arc::new(Shared { options, ledger: Mutex::new(ledger), changed: Notify::new(), resting: Mutex::default() });
        let settings = shared.options.settings.clone();
        let runners =
            settings.into_iter().map(|one| Runner::new(Arc::clone(&shared), one)).collect::<Result<_, _>>()?;
        let left_open = {
            let ledger = shared.lock();
            let is_configured = |name: &String| {
                let imports = |target: &&TargetSettings| target.kind == TargetKind::TeamsImport;
                shared.options.settings.iter().filter(imports).any(|target| target.name == *name)
            };
            let names = gate::not_closed(&ledger)?.into_iter().filter(|name| !is_configured(name));
            names.map(|name| Gate::new(Arc::clone(&shared), &name, 0)).collect()
        };
        let handle = TargetsHandle(Arc::clone(&shared));
        Ok((Self { shared, runners, left_open }, handle))
    }

    /// Delivers until `stop`. A step that has begun is ended first; what is not delivered then waits.
    pub async fn run(self, stop: CancellationToken) {
        let mut tasks = JoinSet::new();
        for runner in self.runners {
            let span = info_span!("target", name = runner.name());
            tasks.spawn(keep(Arc::clone(&self.shared), runner, stop.child_token()).instrument(span));
        }
        for gate in self.left_open {
            let span = info_span!("target", name = gate.target());
            tasks.spawn(close(Arc::clone(&self.shared), gate, stop.child_token()).instrument(span));
        }
        while tasks.join_next().await.is_some() {}
    }

    /// Takes the next step of every target; for tests, which have a clock of their own. Says when to come again: `None` when
    /// nothing is left to do, a moment that has passed when something was done.
    ///
    /// # Errors
    /// When a store of this node fails.
    pub async fn step(&mut self) -> Result<Option<UnixMillis>, TargetError> {
        let mut at = None;
        for runner in &mut self.runners {
            let next = match runner.step().await? {
                Next::Again => Some(UnixMillis(i64::MIN)),
                Next::At(at) => Some(at),
                Next::Idle => None,
            };
            at = [at, next].into_iter().flatten().min();
        }
        for gate in &mut self.left_open {
            at = [at, step_to_close(gate).await?].into_iter().flatten().min();
        }
        Ok(at)
    }
}

/// One step towards a closed channel: when to come again; `None` once it is.
async fn step_to_close(gate: &mut Gate) -> Result<Option<UnixMillis>, TargetError> {
    match gate.window().await? {
        Some(window) if !window.is_closed() => gate.keep(&window).await,
        Some(_) | None => Ok(None),
    }
}

/// Closes a channel that nobody else would.
async fn close(shared: Arc<Shared>, mut gate: Gate, stop: CancellationToken) {
    loop {
        let pause = match step_to_close(&mut gate).await {
            Ok(None) => return,
            Ok(Some(at)) => Duration::from_millis(u64::try_from(at.0 - shared.now().0).unwrap_or(0)),
            Err(e) => {
                warn!(error = %e, "a channel that is open for import waits to be closed");
                RETRY_AFTER
            }
        };
        let until = shared.options.timer.now() + pause.min(IDLE);
        tokio::select! {
            () = stop.cancelled() => return,
            () = shared.options.timer.until(until) => {}
        }
    }
}

async fn keep(shared: Arc<Shared>, mut runner: Runner, stop: CancellationToken) {
    let appended = Arc::new(Notify::new());
    let wake = Arc::clone(&appended);
    let _subscription = shared.options.journal.on_append(Box::new(move || wake.notify_one()));
    while !stop.is_cancelled() {
        let changed = shared.changed.notified();
        // Not raced with `stop`: a request that was begun is waited for, so that its outcome is known. The caller of `run`
        // bounds how long; what is cut off then is looked for at the next start.
        let pause = match runner.step().await {
            Ok(Next::Again) => continue,
            Ok(Next::At(at)) => {
                Duration::from_millis(u64::try_from(at.0 - shared.now().0).unwrap_or(0).max(1)).min(IDLE)
            }
            Ok(Next::Idle) => IDLE,
            Err(e) => {
                warn!(error = %e, "a target waits");
                shared
                    .options
                    .health
                    .report(&format!("{CHECK}-{}", runner.name()), Verdict::failing(e.to_string(), e.next_step()));
                RETRY_AFTER
            }
        };
        tell(&shared, runner.name()).await;
        let until = shared.options.timer.now() + pause;
        tokio::select! {
            () = stop.cancelled() => break,
            () = appended.notified() => {}
            () = changed => {}
            () = shared.options.timer.until(until) => {}
        }
    }
    if let Err(e) = runner.wind_up().await {
        warn!(error = %e, "what a target has open could not be closed; the next start does it");
    }
}

async fn tell(shared: &Arc<Shared>, target: &str) {
    let name = target.to_owned();
    let told = shared.blocking(move |shared| {
        let status = status(shared, &name)?;
        let destination = PeerName::new(&format!("{CHECK}:{name}"));
        for (term, n) in [
            (Term::Accepted, status.accepted),
            (Term::Applied, status.applied),
            (Term::Held, status.held),
            (Term::Quarantined, status.quarantined),
            (Term::Expired, status.expired),
            (Term::Superseded, status.superseded),
            (Term::Withheld, status.withheld),
            (Term::Purged, status.purged),
        ] {
            shared.options.metrics.equation_entries.set_count((destination.clone(), term), n);
        }
        Ok(())
    });
    if let Err(e) = told.await {
        warn!(error = %e, target, "the equation of a target could not be read");
    }
}

/// The equation, with what was not read yet.
fn status(shared: &Shared, target: &str) -> Result<Terms, TargetError> {
    let ledger = shared.lock();
    let mut terms = ledger.terms(target)?;
    let unread = shared.options.journal.head().0.saturating_sub(ledger.taken(target)?.0);
    terms.accepted += unread;
    terms.held += unread;
    Ok(terms)
}

impl TargetsHandle {
    /// How every target is. Touches the disk.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub fn status(&self) -> Result<Vec<TargetStatus>, TargetError> {
        let shared = &self.0;
        let mut all = Vec::new();
        for target in &shared.options.settings {
            let terms = status(shared, &target.name)?;
            let ledger = shared.lock();
            let counts = ledger.counts(&target.name)?;
            let withheld = counts.iter().filter_map(|(term, n)| Some((term.strip_prefix("withheld:")?.to_owned(), *n)));
            let open = gate::window_of(&ledger, &target.name)?.filter(|window| !window.is_closed());
            let resting = shared.resting.lock().unwrap_or_else(PoisonError::into_inner);
            all.push(TargetStatus {
                name: target.name.clone(),
                kind: target.kind.to_string(),
                terms,
                withheld: withheld.collect(),
                missing: ledger.missing_of(&target.name)?,
                dead: ledger.list_dead(Some(&target.name), usize::MAX >> 1)?.len() as u64,
                waits_for: resting.get(&target.name).cloned(),
                open_since: open.map(|window| window.since.0),
            });
        }
        Ok(all)
    }

    /// Names of the configured targets.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.options.settings.iter().map(|target| target.name.as_str())
    }

    /// What would go where, and how long it takes under Microsoft's limits. Sends nothing. Touches the disk.
    ///
    /// # Errors
    /// When the ledger, the journal or the core cannot be read.
    pub fn plan(&self) -> Result<Plan, TargetError> {
        let targets: Result<Vec<TargetPlan>, _> =
            self.0.options.settings.iter().map(|target| runner::plan(&self.0, target)).collect();
        Ok(Plan::of(targets?))
    }

    /// Items that were given up, at most `max` of each target.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub fn dead(&self, target: Option<&str>, max: usize) -> Result<Vec<ItemView>, TargetError> {
        let dead = self.0.lock().list_dead(target, max)?;
        Ok(dead.into_iter().map(|(target, item)| ItemView::of(target, item)).collect())
    }

    /// Plans items again that were given up: one, or all of the target. Says how many.
    ///
    /// # Errors
    /// When the ledger cannot be written.
    pub fn retry(&self, target: &str, item: Option<i64>) -> Result<u64, TargetError> {
        let n = self.0.lock().retry(target, item)?;
        self.0.changed.notify_waiters();
        Ok(n)
    }

    /// Puts items away that were given up: one, or all of the target. They stay counted as quarantined. Says how many.
    ///
    /// # Errors
    /// When the ledger cannot be written.
    pub fn skip(&self, target: &str, item: Option<i64>) -> Result<u64, TargetError> {
        Ok(self.0.lock().skip(target, item)?)
    }
}
