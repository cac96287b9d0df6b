//! The channel that `teams-import` opens, and closes again: while it is open nobody but this application can post in it.
//!
//! ```text
//!  closed --noted--> opening --204--> open --drained, or its time is up--> closing --204--> closed
//!                       |              |                                      |
//!                       `--------------+--- after a lost answer or a start, what the channel itself says decides
//! ```
//!
//! Invariants
//! - `opening` is durable before the channel is asked to open: whatever happens then, somebody knows that it is to be closed.
//! - Where the ledger and the channel may differ, the channel is asked.
//! - One that is open for longer than it may be is closed before anything else, and a health check says so until it is, also
//!   for a target that is not configured any more.
//!
//! Not here: what is imported meanwhile (import).

use std::sync::Arc;

use microsoft::teams::{ChannelOf, Migration, migration_of};
use microsoft::{Failure, Refusal};
use model::{Precedence, UnixMillis};
use rusqlite::{OptionalExtension as _, Row, params};
use telemetry::Verdict;
use tracing::{info, warn};

use super::item::{After, LOOK_AGAIN_MS, LOOKS, PARKED, SETTLE_MS, after, is_due};
use super::ledger::{Ledger, LedgerError};
use super::teams::time;
use super::{CHECK, Shared, TargetError};

/// Opening and closing say how long people wait: ahead of what is imported.
const PRECEDENCE: Precedence = Precedence::Immediate;
/// Over its time by so much nobody is told yet: closing takes a request.
const GRACE_MS: i64 = 60_000;
/// After a refusal that somebody has to do something about.
const REFUSED_MS: i64 = 5 * 60_000;

/// Where the channel stands, as far as is known here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stands {
    /// People post.
    Closed = 0,
    /// It was, or is about to be, asked to open.
    Opening = 1,
    /// Messages are imported.
    Open = 2,
    /// It was, or is about to be, asked to close.
    Closing = 3,
}

impl Stands {
    const ALL: [Self; 4] = [Self::Closed, Self::Opening, Self::Open, Self::Closing];

    fn from_number(n: i64) -> Result<Self, LedgerError> {
        let found = Self::ALL.into_iter().find(|s| *s as i64 == n);
        found.ok_or_else(|| LedgerError::Row(format!("a channel that stands at {n}")))
    }
}

/// The row of a target's channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) stands: Stands,
    /// The channel as it was opened: a configuration that names another one since does not leave it open.
    pub(super) team: String,
    pub(super) channel: String,
    /// Since when it may be open; while it is closed, when it was closed, or 0 where it need not be left to people first.
    pub(super) since: UnixMillis,
    /// Only what is later is taken.
    pub(super) begins: UnixMillis,
    /// Nothing is asked of it before.
    pub(super) due: UnixMillis,
    /// Once it is closed people have it for a while.
    pub(super) pause: bool,
}

impl Window {
    /// A channel that was never opened.
    pub(super) fn closed(team: &str, channel: &str) -> Self {
        let (team, channel) = (team.to_owned(), channel.to_owned());
        let never = UnixMillis(0);
        Self { stands: Stands::Closed, team, channel, since: never, begins: never, due: never, pause: false }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.stands == Stands::Closed
    }

    /// Is it open for longer than it may be? One that was opened in the future was opened by a clock that was wrong.
    fn is_over(&self, open_ms: i64, now: UnixMillis) -> bool {
        let open_for = now.0 - self.since.0;
        open_for >= open_ms || open_for < -GRACE_MS
    }

    /// Until when people have it to themselves once it is closed.
    pub(super) fn left_to_people(&self, closed_minutes: u32, now: UnixMillis) -> UnixMillis {
        match self.since.0 {
            0 => UnixMillis(0),
            closed if closed > now.0 + GRACE_MS => UnixMillis(0),
            closed => UnixMillis(closed + i64::from(closed_minutes) * 60_000),
        }
    }

    fn of(&self) -> ChannelOf {
        ChannelOf { team: self.team.clone(), channel: self.channel.clone(), account: String::new() }
    }
}

/// What is to be done about the channel before anything is imported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Upkeep {
    Nothing,
    Wait(UnixMillis),
    /// The channel is asked how it stands.
    Look,
    Close,
}

/// `looked`: this process knows from the channel itself, or from its own request, how it stands.
pub(super) fn upkeep(window: &Window, looked: bool, open_ms: i64, now: UnixMillis) -> Upkeep {
    match window.stands {
        Stands::Closed => Upkeep::Nothing,
        Stands::Opening | Stands::Open | Stands::Closing if !is_due(window.due, now) => Upkeep::Wait(window.due),
        Stands::Opening => Upkeep::Look,
        Stands::Open | Stands::Closing if !looked => Upkeep::Look,
        Stands::Closing => Upkeep::Close,
        Stands::Open if window.is_over(open_ms, now) => Upkeep::Close,
        Stands::Open => Upkeep::Nothing,
    }
}

/// What the health page says of it.
fn verdict(window: &Window, open_ms: i64, now: UnixMillis) -> Verdict {
    let since = time(window.since);
    if window.is_closed() {
        return Verdict::ok("the channel is not open for import: people post in it");
    }
    if !window.is_over(open_ms + GRACE_MS + 1, now) {
        return Verdict::ok(format!(
            "the channel is open for import since {since}: people cannot post in it meanwhile"
        ));
    }
    Verdict::failing(
        format!(
            "people cannot post in the channel {} of the team {}: it is open for import since {since}",
            window.channel, window.team
        ),
        "make Microsoft 365 reachable for this node, with emission control normal: it closes the channel by itself with the next \
         request that gets through; else close it with completeMigration as this application",
    )
}

/// Opens and closes the channel of one target.
pub(super) struct Gate {
    shared: Arc<Shared>,
    target: String,
    open_ms: i64,
    looked: bool,
    looks: u32,
    /// Requests that failed since one went through.
    tries: u32,
    /// Opening was refused with 400, which is also the answer for a channel that is open.
    is_refused: bool,
}

impl Gate {
    pub(super) fn new(shared: Arc<Shared>, target: &str, open_minutes: u32) -> Self {
        let (target, open_ms) = (target.to_owned(), i64::from(open_minutes) * 60_000);
        Self { shared, target, open_ms, looked: false, looks: 0, tries: 0, is_refused: false }
    }

    pub(super) fn target(&self) -> &str {
        &self.target
    }

    /// The channel's row; `None` where this target never opened one.
    pub(super) async fn window(&self) -> Result<Option<Window>, TargetError> {
        let target = self.target.clone();
        self.shared.ledger(move |ledger| window_of(ledger, &target)).await
    }

    /// What the channel needs, tells the health page, and does it. `None` when it needs nothing; else when to come again.
    pub(super) async fn keep(&mut self, window: &Window) -> Result<Option<UnixMillis>, TargetError> {
        let now = self.shared.now();
        self.tell(window, now);
        match upkeep(window, self.looked, self.open_ms, now) {
            Upkeep::Nothing => return Ok(None),
            Upkeep::Wait(at) => return Ok(Some(at)),
            Upkeep::Look => self.look(window.clone()).await?,
            Upkeep::Close => self.close(window.clone()).await?,
        }
        Ok(Some(now))
    }

    pub(super) fn tell(&self, window: &Window, now: UnixMillis) {
        let check = format!("{CHECK}-{}-window", self.target);
        self.shared.options.health.report(&check, verdict(window, self.open_ms, now));
    }

    /// When an open channel is closed at the latest.
    pub(super) fn closes_at(&self, window: &Window) -> UnixMillis {
        UnixMillis(window.since.0 + self.open_ms)
    }

    /// It may stand otherwise than the ledger says.
    pub(super) fn doubt(&mut self) {
        self.looked = false;
    }

    /// Opens it for what is later than `begins`.
    pub(super) async fn open(&mut self, mut window: Window, begins: UnixMillis) -> Result<(), TargetError> {
        let now = self.shared.now();
        let graph = &self.shared.options.graph;
        let seen = match graph.call(window.of().migration(PRECEDENCE)).await {
            Ok(answer) => migration_of(&answer),
            Err(failure) => Err(failure),
        };
        let seen = match seen {
            Ok(seen) => seen,
            Err(failure) => return self.failed(window, &failure).await,
        };
        if seen.is_open {
            warn!(
                target = self.target,
                "the channel is open for import although the ledger says otherwise; it is closed first"
            );
            (window.stands, window.since, window.due, window.pause) = (Stands::Closing, now, now, false);
            self.looked = true;
            return self.put(window).await;
        }
        // It has to be before the channel's own beginning, or it is refused; and without one only the present counts.
        window.begins = UnixMillis(begins.0.min(seen.created.0 - 1));
        (window.stands, window.since, window.due, window.pause) = (Stands::Opening, now, now, true);
        self.put(window.clone()).await?;
        match graph.call(window.of().start_migration(window.begins, PRECEDENCE)).await {
            Ok(_) => {
                info!(target = self.target, "the channel is open for import");
                window.stands = Stands::Open;
                (self.looked, self.tries) = (true, 0);
                self.put(window).await
            }
            Err(failure) => {
                self.is_refused = is_bad_request(&failure);
                let maybe_opened = matches!(after(&failure, false, 1, now), After::Look { .. }) || self.is_refused;
                if !maybe_opened {
                    (window.stands, window.since) = (Stands::Closed, UnixMillis(0));
                }
                self.failed(window, &failure).await
            }
        }
    }

    /// Closes it. `pause`: people have it for a while before it is opened again.
    pub(super) async fn begin_to_close(&mut self, mut window: Window, pause: bool) -> Result<(), TargetError> {
        window.pause = pause;
        self.close(window).await
    }

    async fn close(&mut self, mut window: Window) -> Result<(), TargetError> {
        if window.stands != Stands::Closing {
            window.stands = Stands::Closing;
            self.put(window.clone()).await?;
        }
        match self.shared.options.graph.call(window.of().complete_migration(PRECEDENCE)).await {
            Ok(_) => self.closed(window).await,
            Err(failure) => self.failed(window, &failure).await,
        }
    }

    async fn closed(&mut self, mut window: Window) -> Result<(), TargetError> {
        info!(target = self.target, "the channel is closed for import");
        let now = self.shared.now();
        window.stands = Stands::Closed;
        window.since = if window.pause { now } else { UnixMillis(0) };
        window.due = UnixMillis(0);
        (self.looked, self.looks, self.tries) = (true, 0, 0);
        self.tell(&window, now);
        self.put(window).await
    }

    /// Asks the channel how it stands.
    async fn look(&mut self, mut window: Window) -> Result<(), TargetError> {
        let seen = match self.shared.options.graph.call(window.of().migration(PRECEDENCE)).await {
            Ok(answer) => migration_of(&answer),
            Err(failure) => Err(failure),
        };
        let is_open = match seen {
            Ok(Migration { is_open, .. }) => is_open,
            // Nobody can post in a channel that is gone, nor close it.
            Err(failure) if is_status(&failure, 404) => {
                warn!(
                    target = self.target,
                    channel = window.channel,
                    "the channel that was opened for import is not found"
                );
                false
            }
            Err(failure) => return self.failed(window, &failure).await,
        };
        match is_open {
            true => {
                (self.looked, self.looks, self.tries, self.is_refused) = (true, 0, 0, false);
                if window.stands == Stands::Opening {
                    window.stands = Stands::Open;
                }
                self.put(window).await
            }
            // Reading lags behind writing.
            false if self.looks + 1 < LOOKS => {
                self.looks += 1;
                window.due = UnixMillis(self.shared.now().0 + LOOK_AGAIN_MS);
                self.put(window).await
            }
            false if window.stands == Stands::Opening && self.is_refused => {
                (self.looks, self.is_refused) = (0, false);
                (window.stands, window.since) = (Stands::Closed, UnixMillis(0));
                window.due = UnixMillis(self.shared.now().0 + REFUSED_MS);
                let reason = "the channel's window for imports: opening it is refused with 400, and it is not open";
                self.shared.rests(&self.target, Some((reason, Some(REFUSED_STEP))));
                self.tell(&window, self.shared.now());
                self.put(window).await
            }
            false => {
                // One that never opened has kept nobody waiting.
                window.pause &= window.stands != Stands::Opening;
                self.closed(window).await
            }
        }
    }

    async fn failed(&mut self, mut window: Window, failure: &Failure) -> Result<(), TargetError> {
        let now = self.shared.now();
        self.looked = false;
        self.tries += 1;
        let (due, reason, next_step) = match after(failure, false, self.tries, now) {
            After::Look { reason, .. } => (UnixMillis(now.0 + SETTLE_MS), reason, None),
            After::Again { at, reason, .. } => (at, reason, None),
            After::Rest { at, reason, next_step } => (at, reason, next_step),
            After::Park { at, reason } => (at, reason, Some(PARKED.to_owned())),
            After::Forbidden { at, reason } => (at, reason, Some(REFUSED_STEP.to_owned())),
            // 400: it stands there already, which looking at it shows.
            After::Dead { reason } if is_bad_request(failure) && !window.is_closed() => {
                (UnixMillis(now.0 + SETTLE_MS), reason, None)
            }
            After::Dead { reason } => (UnixMillis(now.0 + REFUSED_MS), reason, Some(REFUSED_STEP.to_owned())),
        };
        window.due = due;
        self.tell(&window, now);
        self.shared
            .rests(&self.target, Some((&format!("the channel's window for imports: {reason}"), next_step.as_deref())));
        self.put(window).await
    }

    async fn put(&self, window: Window) -> Result<(), TargetError> {
        let target = self.target.clone();
        self.shared.ledger(move |ledger| put_window(ledger, &target, &window)).await
    }
}

const REFUSED_STEP: &str = "check that the team and channel exist, that the application has Teamwork.Migrate.All and \
                            Channel.ReadBasic.All, and that no other application imports into the channel";

fn is_bad_request(failure: &Failure) -> bool {
    is_status(failure, 400)
}

fn is_status(failure: &Failure, is: u16) -> bool {
    match failure {
        Failure::Refused(refusal) => {
            let Refusal { status, .. } = &**refusal;
            status.as_u16() == is
        }
        Failure::Held(_)
        | Failure::Throttled { .. }
        | Failure::Unknown(_)
        | Failure::SignIn(_)
        | Failure::Broken(_) => false,
    }
}

const COLUMNS: &str = "stands, team, channel, since, begins, due, pause";

fn window(r: &Row<'_>) -> Result<Window, LedgerError> {
    Ok(Window {
        stands: Stands::from_number(r.get(0)?)?,
        team: r.get(1)?,
        channel: r.get(2)?,
        since: UnixMillis(r.get(3)?),
        begins: UnixMillis(r.get(4)?),
        due: UnixMillis(r.get(5)?),
        pause: r.get(6)?,
    })
}

/// The row of a target's channel.
pub(super) fn window_of(ledger: &Ledger, target: &str) -> Result<Option<Window>, LedgerError> {
    let sql = format!("SELECT {COLUMNS} FROM windows WHERE target = ?1");
    ledger.db().query_row(&sql, [target], |r| Ok(window(r))).optional()?.transpose()
}

/// Targets whose channel may be open.
pub(super) fn not_closed(ledger: &Ledger) -> Result<Vec<String>, LedgerError> {
    let mut statement = ledger.db().prepare("SELECT target FROM windows WHERE stands <> 0 ORDER BY target")?;
    let targets = statement.query_map([], |r| r.get(0))?.collect::<Result<_, _>>()?;
    Ok(targets)
}

fn put_window(ledger: &mut Ledger, target: &str, window: &Window) -> Result<(), LedgerError> {
    ledger.with(|tx| {
        tx.execute(
            "INSERT INTO windows (target, stands, team, channel, since, begins, due, pause)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
             ON CONFLICT (target) DO UPDATE SET stands = ?2, team = ?3, channel = ?4, since = ?5, begins = ?6, due = ?7,
                pause = ?8",
            params![
                target,
                window.stands as i64,
                window.team,
                window.channel,
                window.since.0,
                window.begins.0,
                window.due.0,
                window.pause
            ],
        )?;
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN_MS: i64 = 60_000;

    fn window(stands: Stands, since: i64, due: i64) -> Window {
        Window { stands, since: UnixMillis(since), due: UnixMillis(due), ..Window::closed("t", "c") }
    }

    #[test]
    fn what_may_be_open_is_looked_at_after_a_start_and_closed_when_its_time_is_up() {
        let of = |stands, looked, now| upkeep(&window(stands, 1_000, 0), looked, OPEN_MS, UnixMillis(now));
        assert_eq!(of(Stands::Closed, false, i64::MAX), Upkeep::Nothing);
        for stands in [Stands::Opening, Stands::Open, Stands::Closing] {
            assert_eq!(of(stands, false, 2_000), Upkeep::Look, "{stands:?}");
        }
        assert_eq!(of(Stands::Open, true, 2_000), Upkeep::Nothing);
        assert_eq!(of(Stands::Open, true, 1_000 + OPEN_MS), Upkeep::Close);
        assert_eq!(of(Stands::Closing, true, 2_000), Upkeep::Close);
        let waits = window(Stands::Closing, 1_000, 9_000);
        assert_eq!(upkeep(&waits, true, OPEN_MS, UnixMillis(2_000)), Upkeep::Wait(UnixMillis(9_000)));
    }

    #[test]
    fn a_channel_that_was_opened_or_closed_by_a_clock_far_ahead_is_closed_and_opened_all_the_same() {
        let far = 400 * 24 * 3_600_000;
        assert_eq!(upkeep(&window(Stands::Open, far, 0), true, OPEN_MS, UnixMillis(2_000)), Upkeep::Close);
        assert_eq!(upkeep(&window(Stands::Closing, far, far), true, OPEN_MS, UnixMillis(2_000)), Upkeep::Close);
        assert_eq!(window(Stands::Closed, far, 0).left_to_people(5, UnixMillis(2_000)), UnixMillis(0));
        assert_eq!(window(Stands::Closed, 1_000, 0).left_to_people(5, UnixMillis(2_000)), UnixMillis(301_000));
        assert!(
            format!("{:?}", verdict(&window(Stands::Open, far, 0), OPEN_MS, UnixMillis(2_000))).contains("Failing")
        );
    }

    #[test]
    fn the_health_page_tells_when_people_wait_for_too_long() {
        let grade = |stands, now| verdict(&window(stands, 1_000, 0), OPEN_MS, UnixMillis(now));
        let late = 1_000 + OPEN_MS + GRACE_MS + 1;
        let is_failing = |verdict: &Verdict| format!("{verdict:?}").contains("Failing");
        for stands in [Stands::Opening, Stands::Open, Stands::Closing] {
            assert!(!is_failing(&grade(stands, 2_000)), "{stands:?}");
            assert!(is_failing(&grade(stands, late)), "{stands:?}");
        }
        assert!(!is_failing(&grade(Stands::Closed, late)));
    }

    #[test]
    fn the_row_of_a_channel_survives_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(dir.path()).unwrap();
        assert_eq!(window_of(&ledger, "t").unwrap(), None);
        let open = Window { begins: UnixMillis(5), pause: true, ..window(Stands::Open, 1_000, 7) };
        put_window(&mut ledger, "t", &open).unwrap();
        drop(ledger);
        let mut ledger = Ledger::open(dir.path()).unwrap();
        assert_eq!(window_of(&ledger, "t").unwrap(), Some(open.clone()));
        assert_eq!(not_closed(&ledger).unwrap(), ["t"]);
        put_window(&mut ledger, "t", &Window { stands: Stands::Closed, ..open }).unwrap();
        assert!(not_closed(&ledger).unwrap().is_empty());
    }
}
