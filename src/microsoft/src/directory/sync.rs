//! The shell of the directory sync: asks Graph in time, hands pages to the book and batches to the core.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};
use model::{Clock, EntraKey, Guid, Precedence, UnixMillis};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use telemetry::{Health, Metrics, Verdict};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::book::{Batch, Book, Closed, Known, PersonView, Place, Plan, Sizes, Source, Stored};
use super::item::PageError;
use super::round::{First, Round, What};
use super::rules::Rules;
use crate::environment::Timer;
use crate::graph::{BATCH_MAX, BatchItem, Call, Failure, Graph, Refusal, Scope};

/// Name of the check on the health board.
const CHECK: &str = "directory";

/// After a round that failed, where nothing says when to come again.
const RETRY_AFTER: Duration = Duration::from_secs(60);

/// So long a turn waits where it is when Graph says that it is too fast; after that it begins again in time. Graph rarely names more
/// than minutes.
const WAITED_MAX: Duration = Duration::from_secs(3_600);

/// More than so many are not asked for one by one, but with everybody: a page of the list has 100 of them and more.
const NEWCOMERS_MAX: usize = 1_000;

/// Orders that wait: an operator gives one at a time.
const ASKS_MAX: usize = 4;

/// Where accounts and memberships are kept. Calls block on disk.
pub trait Sink: Send + Sync + 'static {
    /// Every record of the book, and the accounts of the tenant.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn load(&self, tenant: Guid) -> Result<Stored, SinkError>;

    /// Which of these places take nobody at present.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn closed(&self, places: &BTreeSet<Place>) -> Result<Closed, SinkError>;

    /// Carries out all of it, in one transaction.
    ///
    /// # Errors
    /// When the store failed; nothing was changed then.
    fn commit(&self, batch: &Batch) -> Result<Done, SinkError>;
}

/// The store failed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct SinkError(pub String);

/// What batches changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "each is named after what it counts")]
pub struct Done {
    pub created: u64,
    pub changed: u64,
    pub disabled: u64,
    pub restored: u64,
    pub joined: u64,
    pub left: u64,
    /// Places that take nobody more.
    pub full: BTreeSet<Place>,
    /// Where people were not brought, by their object ids.
    #[serde(skip)]
    pub unserved: BTreeMap<Guid, BTreeSet<Place>>,
}

impl Done {
    fn add(&mut self, other: Self) {
        self.created += other.created;
        self.changed += other.changed;
        self.disabled += other.disabled;
        self.restored += other.restored;
        self.joined += other.joined;
        self.left += other.left;
        self.full.extend(other.full);
    }
}

/// How the sync stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncStatus {
    /// How much is known.
    pub sizes: Sizes,
    /// As of when people are known; `None` before the first round.
    pub people_as_of: Option<UnixMillis>,
    /// As of when groups are known; `None` before the first round, and where none is followed.
    pub groups_as_of: Option<UnixMillis>,
    /// When the last round ended that went through.
    pub last_round: Option<UnixMillis>,
    /// What the last round changed.
    pub last_done: Option<Done>,
    /// Why the last round did not go through; `None` when it did.
    pub trouble: Option<String>,
    /// Mapped places that are not here.
    pub absent: BTreeSet<Place>,
    /// Full places where somebody waits for room.
    #[serde(default)]
    pub full: BTreeSet<Place>,
}

/// What an operator asks of the running sync.
#[derive(Debug)]
pub enum Ask {
    /// A round now; `whole` reads everything anew.
    Round {
        /// Everything, or what changed?
        whole: bool,
    },
    /// Lets those go who are held, and those in who wait.
    Accept,
}

/// What came of an [`Ask`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// What changed.
    pub done: Done,
    /// What is left to happen.
    pub plan: Plan,
}

/// What a sync works with.
pub struct SyncOptions {
    /// The client.
    pub graph: Graph,
    /// Where accounts are.
    pub sink: Arc<dyn Sink>,
    /// The section of the configuration.
    pub rules: Rules,
    /// The tenant.
    pub tenant: Guid,
    /// Wall time.
    pub clock: Arc<dyn Clock>,
    /// What waiting goes by.
    pub timer: Arc<dyn Timer>,
    /// Figures.
    pub metrics: Arc<Metrics>,
    /// Where trouble is reported.
    pub health: Health,
}

/// Why a round did not go through. What was known, and every account, is as it was.
#[derive(Debug, thiserror::Error)]
enum RoundError {
    #[error(transparent)]
    Graph(#[from] Failure),
    #[error(transparent)]
    Page(#[from] PageError),
    #[error("the core did not take the changes: {0}; nothing of the batch was changed")]
    Sink(#[from] SinkError),
}

impl RoundError {
    fn next_step(&self) -> &'static str {
        match self {
            Self::Graph(failure) => failure.next_step(),
            Self::Page(_) => "nothing: the next round asks again; report it if it stays",
            Self::Sink(_) => "check disk space and disk health; it is tried again",
        }
    }
}

/// What a turn came to.
struct Turned {
    asked: Asked,
    /// Why the groups, or those who came into them, were not read.
    trouble: Option<RoundError>,
}

/// The sync.
pub struct DirectorySync {
    options: SyncOptions,
    shared: Arc<Shared>,
    asks: mpsc::Receiver<(Ask, oneshot::Sender<Result<Asked, String>>)>,
}

struct Shared {
    /// `None` until it is loaded, and after a failure of the store.
    book: Mutex<Option<Book>>,
    status: Mutex<SyncStatus>,
}

/// Asks a sync that runs.
#[derive(Clone)]
pub struct SyncHandle {
    shared: Arc<Shared>,
    clock: Arc<dyn Clock>,
    asks: mpsc::Sender<(Ask, oneshot::Sender<Result<Asked, String>>)>,
}

impl SyncHandle {
    /// How it stands.
    pub fn status(&self) -> SyncStatus {
        lock(&self.shared.status).clone()
    }

    /// What would happen to accounts now; `None` before the book is loaded.
    pub fn plan(&self) -> Option<Plan> {
        let now = self.clock.now();
        lock(&self.shared.book).as_ref().map(|book| book.plan(now))
    }

    /// What is known of whoever `text` names.
    pub fn find(&self, text: &str) -> Vec<PersonView> {
        lock(&self.shared.book).as_ref().map(|book| book.find(text)).unwrap_or_default()
    }

    /// Members of a followed group; `None` for no such group.
    pub fn members_of(&self, group: &str) -> Option<Vec<EntraKey>> {
        lock(&self.shared.book).as_ref()?.members_of(group)
    }

    /// Has something done, and waits for it.
    ///
    /// # Errors
    /// Why it was not done.
    pub async fn ask(&self, ask: Ask) -> Result<Asked, String> {
        let (answer, answered) = oneshot::channel();
        let stopped = || "the directory sync has stopped; nothing was changed".to_owned();
        self.asks.send((ask, answer)).await.map_err(|_| stopped())?;
        answered.await.map_err(|_| stopped())?
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl DirectorySync {
    /// A sync that has done nothing yet.
    pub fn new(options: SyncOptions) -> (Self, SyncHandle) {
        let shared = Arc::new(Shared { book: Mutex::new(None), status: Mutex::default() });
        let (send, asks) = mpsc::channel(ASKS_MAX);
        let handle = SyncHandle { shared: Arc::clone(&shared), clock: Arc::clone(&options.clock), asks: send };
        (Self { options, shared, asks }, handle)
    }

    /// Syncs until `stop`. Between two batches it stops at once; what was not committed is asked for again.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut reach = self.options.graph.reach();
        let mut wait = Duration::ZERO;
        loop {
            let due = async {
                tokio::time::sleep(wait).await;
                // Not before Microsoft 365 was seen to answer: asking into the void costs the link.
                let up = reach.wait_for(crate::reach::Reach::may_deliver).await.is_ok();
                if !up {
                    std::future::pending::<()>().await;
                }
            };
            let asked = tokio::select! {
                () = stop.cancelled() => return,
                () = due => None,
                Some(asked) = self.asks.recv() => Some(asked),
            };
            let (whole, accept) = match &asked {
                None => (false, false),
                Some((Ask::Round { whole }, _)) => (*whole, false),
                Some((Ask::Accept, _)) => (false, true),
            };
            let Some(result) = stop.run_until_cancelled(self.turn(whole, accept)).await else { return };
            wait = match result.as_ref().map(|turned| turned.trouble.as_ref()) {
                Ok(None) => self.options.rules.interval,
                Ok(Some(RoundError::Graph(Failure::Throttled { until })))
                | Err(RoundError::Graph(Failure::Throttled { until })) => self.left(*until),
                // It will be the same in a minute.
                Ok(Some(RoundError::Page(_))) | Err(RoundError::Page(_)) => self.options.rules.interval,
                Ok(Some(_)) | Err(_) => RETRY_AFTER.min(self.options.rules.interval),
            };
            self.report(&result);
            if let Some((_, answer)) = asked {
                let told = match result {
                    Ok(Turned { asked, trouble: None }) => Ok(asked),
                    Ok(Turned { trouble: Some(error), .. }) => {
                        Err(format!("{error}; what else is known was carried out"))
                    }
                    Err(error) => Err(error.to_string()),
                };
                // Whoever asked may have gone; it is done all the same.
                let _ = answer.send(told);
            }
        }
    }

    /// One round, or an operator's word on who is held.
    async fn turn(&self, whole: bool, accept: bool) -> Result<Turned, RoundError> {
        let outcome = self.steps(whole, accept).await;
        if matches!(outcome, Err(RoundError::Sink(_))) {
            // What the book says was committed may not have been.
            *lock(&self.shared.book) = None;
        }
        outcome
    }

    async fn steps(&self, whole: bool, accept: bool) -> Result<Turned, RoundError> {
        let loaded = lock(&self.shared.book).is_some();
        if !loaded {
            let (rules, tenant) = (self.options.rules.clone(), self.options.tenant);
            let stored = self.sink(move |sink| sink.load(tenant)).await?;
            let graph = self.options.graph.settings().hosts.graph.origin().ascii_serialization();
            let (book, bad) = Book::load(rules, Source { tenant, graph }, stored);
            if let Some(error) = bad.first() {
                warn!(%error, records = bad.len(), "records of the directory do not read");
            }
            *lock(&self.shared.book) = Some(book);
        }
        // The operator decides on what was shown, not on what the next round finds.
        let lists = if accept { Vec::new() } else { self.with_book(|book| book.lists()) };
        let (mut known, mut trouble) = (Known::All, None);
        let mut waited = Duration::ZERO;
        for what in lists {
            match self.round(what, whole, &mut waited).await {
                Ok(round) => {
                    let batch = self.with_book(|book| book.take_over(round));
                    self.sink(move |sink| sink.commit(&batch)).await?;
                }
                // Whose sign-in is blocked is known all the same.
                Err(error) if what == What::Groups => (known, trouble) = (Known::PeopleAlone, Some(error)),
                Err(error) => return Err(error),
            }
        }
        if !accept && trouble.is_none() {
            trouble = self.newcomers(&mut waited).await?;
        }
        let mapped = self.with_book(|book| book.mapped());
        let closed = self.sink(move |sink| sink.closed(&mapped)).await?;
        let now = self.options.clock.now();
        let batches = self.with_book(|book| {
            book.note_closed(closed);
            book.settle(now, known, accept).1
        });
        let mut done = Done::default();
        for batch in batches {
            let mut part = self.sink(move |sink| sink.commit(&batch)).await?;
            self.with_book(|book| book.note_unserved(std::mem::take(&mut part.unserved), part.full.clone()));
            done.add(part);
        }
        Ok(Turned { asked: Asked { done, plan: self.with_book(|book| book.plan(now)) }, trouble })
    }

    /// Reads those who came into a followed group of a tenant whose other people are not kept; why some of them were not read.
    async fn newcomers(&self, waited: &mut Duration) -> Result<Option<RoundError>, SinkError> {
        let unread = self.with_book(|book| book.unread());
        if unread.is_empty() {
            return Ok(None);
        }
        if unread.len() > NEWCOMERS_MAX || self.with_book(|book| book.is_crowded(unread.len())) {
            let round = match self.round(What::People, true, waited).await {
                Ok(round) => round,
                Err(error) => return Ok(Some(error)),
            };
            let batch = self.with_book(|book| book.take_over(round));
            self.sink(move |sink| sink.commit(&batch)).await?;
            return Ok(None);
        }
        for part in unread.chunks(BATCH_MAX) {
            let items = part.iter().map(|id| BatchItem {
                id: id.to_string(),
                call: Call::get(Book::query_of(*id), Scope::Directory, Precedence::Priority),
                depends_on: Vec::new(),
            });
            let answers = match self.options.graph.batch(items.collect()).await {
                Ok(answers) => answers,
                Err(error) => return Ok(Some(error.into())),
            };
            let (mut keep, mut trouble) = (Vec::new(), None);
            for (id, answer) in part.iter().zip(answers) {
                let object = match answer.and_then(|answer| answer.json::<Value>()) {
                    Err(Failure::Refused(refusal)) if refusal.status == StatusCode::NOT_FOUND => Ok(None),
                    answer => answer.map(Some).map_err(RoundError::from),
                };
                let taken = object.and_then(|object| Ok(self.with_book(|book| book.take_one(*id, object.as_ref()))?));
                match taken {
                    Ok(batch) => keep.extend(batch.keep),
                    Err(error) => trouble = Some(error),
                }
            }
            let batch = Batch { people: Vec::new(), keep };
            self.sink(move |sink| sink.commit(&batch)).await?;
            if trouble.is_some() {
                return Ok(trouble);
            }
        }
        Ok(None)
    }

    /// Reads a list to its end. A link that Graph no longer takes is followed by the whole list.
    async fn round(&self, what: What, whole: bool, waited: &mut Duration) -> Result<Round, RoundError> {
        let now = self.options.clock.now();
        let round = self.with_book(|book| book.begin(what, now, whole));
        let began_whole = round.is_whole();
        if began_whole && what == What::People {
            self.with_book(|book| book.room())?;
        }
        match self.pages(round, waited).await {
            Err(RoundError::Graph(Failure::Refused(refusal))) if !began_whole && is_expired(&refusal) => {
                info!(?what, code = refusal.code, "the delta link has expired; the whole list is read and compared");
                self.pages(self.with_book(|book| book.begin(what, now, true)), waited).await
            }
            other => other,
        }
    }

    /// Where Graph asks to wait, what was read so far is kept, and the same page is asked for again in time.
    async fn pages(&self, mut round: Round, waited: &mut Duration) -> Result<Round, RoundError> {
        let path = match round.first() {
            First::Query(query) => query.clone(),
            First::Link(link) => self.options.graph.path_of_link(link)?,
        };
        // Whom Entra disabled must hear of it, whatever else is on its way.
        let mut call = Call::get(path, Scope::Directory, Precedence::Priority);
        if !round.is_whole() {
            let minimal = HeaderValue::from_static("return=minimal");
            call.headers.push((HeaderName::from_static("prefer"), minimal));
        }
        let mut pages = self.options.graph.pages(call);
        let mut taken = 0_u32;
        while let Some(page) = pages.next().await {
            match page {
                Ok(page) => {
                    round.take(&page)?;
                    taken += 1;
                }
                Err(Failure::Throttled { until }) if taken > 0 && *waited + self.left(until) <= WAITED_MAX => {
                    let wait = self.left(until);
                    info!(what = ?round.what(), taken, ?wait, "Graph asks to wait; the round goes on after that");
                    *waited += wait;
                    let timer = &self.options.timer;
                    timer.until(timer.now() + wait).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(round)
    }

    /// From now to `until`, a second at least.
    fn left(&self, until: UnixMillis) -> Duration {
        let left = until.0.saturating_sub(self.options.clock.now().0);
        Duration::from_millis(u64::try_from(left).unwrap_or(0)).max(Duration::from_secs(1))
    }

    fn with_book<T>(&self, f: impl FnOnce(&mut Book) -> T) -> T {
        f(lock(&self.shared.book).as_mut().expect("it is loaded before a round, and nothing else takes it away"))
    }

    async fn sink<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Sink) -> Result<T, SinkError> + Send + 'static,
    ) -> Result<T, SinkError> {
        let sink = Arc::clone(&self.options.sink);
        tokio::task::spawn_blocking(move || work(&*sink)).await.expect("the core does not panic")
    }

    fn report(&self, result: &Result<Turned, RoundError>) {
        let mut status = lock(&self.shared.status);
        if let Some(book) = lock(&self.shared.book).as_ref() {
            status.sizes = book.sizes();
            status.people_as_of = book.as_of(What::People);
            status.groups_as_of = book.as_of(What::Groups);
            status.absent = book.absent().clone();
            status.full = book.full().clone();
        }
        let metrics = &self.options.metrics;
        metrics.directory_people.set_count((), status.sizes.people as u64);
        metrics.directory_accounts.set_count((), status.sizes.accounts as u64);
        metrics.directory_held_people.set_count((), status.sizes.held as u64);
        if let Ok(Turned { asked, .. }) = result {
            metrics.directory_disabled_total.add((), asked.done.disabled);
            if asked.done != Done::default() {
                info!(done = ?asked.done, "the directory changed accounts");
            }
            status.last_done = Some(asked.done.clone());
        }
        let error = match result {
            Ok(turned) => turned.trouble.as_ref(),
            Err(error) => Some(error),
        };
        status.trouble = error.map(ToString::to_string);
        let verdict = match error {
            // To be cut off is what this is built for: the state of the link says it, not this.
            Some(RoundError::Graph(Failure::Held(_) | Failure::Throttled { .. })) => return,
            Some(error) => {
                warn!(%error, "the directory sync did not go through; nobody lost anything by it");
                Verdict::degraded(error.to_string(), error.next_step())
            }
            None => {
                metrics.directory_rounds_total.inc(());
                status.last_round = Some(self.options.clock.now());
                Self::verdict(&status)
            }
        };
        self.options.health.report(CHECK, verdict);
    }

    fn verdict(status: &SyncStatus) -> Verdict {
        let places = |places: &BTreeSet<Place>| {
            let names = places.iter().map(|p| p.channel.as_ref().map_or(p.team.clone(), |c| format!("{}/{c}", p.team)));
            names.collect::<Vec<_>>().join(", ")
        };
        if status.sizes.held > 0 {
            Verdict::degraded(
                format!("{} people would lose access at once; they keep it until somebody decides", status.sizes.held),
                "look at `holdfast directory plan`; `holdfast directory apply --accept` lets them go",
            )
        } else if status.sizes.held_new > 0 {
            Verdict::degraded(
                format!(
                    "{} people would get accounts at once; they get them when somebody has looked",
                    status.sizes.held_new
                ),
                "look at `holdfast directory plan`; `holdfast directory apply --accept` makes the accounts",
            )
        } else if !status.absent.is_empty() {
            Verdict::degraded(
                format!("groups lead to places that are not here: {}; nobody is sent there", places(&status.absent)),
                "make the team or channel, or correct [[microsoft.directory.groups]]",
            )
        } else if !status.full.is_empty() {
            Verdict::degraded(
                format!("these take nobody more: {}; people wait for room there", places(&status.full)),
                "raise core.max_team_members",
            )
        } else {
            Verdict::ok(format!("{} accounts of {} people", status.sizes.accounts, status.sizes.people))
        }
    }
}

/// Is the delta link of no use any more? Then the list is read whole. Never by Graph's words for people.
fn is_expired(refusal: &Refusal) -> bool {
    match refusal.status.as_u16() {
        410 => true,
        // Seen with the outer code `BadRequest`, so the inner ones are looked at too.
        400 => ["syncStateNotFound", "syncStateInvalid", "resyncRequired"].iter().any(|code| refusal.has_code(code)),
        _ => false,
    }
}
