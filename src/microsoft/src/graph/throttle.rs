//! How fast each scope may be asked, and who is next. Pure: time and jitter come in as arguments.
//!
//! ```text
//!  join --> waiting, by precedence --admit--> in flight --done(outcome)--> rate up a little, or down by half and a pause
//! ```
//!
//! Invariants
//! - A pause holds its own scope only.
//! - Within a pace the most urgent waiter that is not paused goes first; equals go in the order of their coming.
//! - No pace exceeds what Microsoft documents for it, and a pace that was refused is not reached again.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use http::Method;
use model::Precedence;

use super::call::{Acting, Call, Scope};

/// First wait where Graph refuses without saying for how long; doubles, with full jitter.
const PAUSE_BASE: Duration = Duration::from_secs(2);
/// Longest wait of that kind.
const PAUSE_CAP: Duration = Duration::from_secs(300);
/// Longest `Retry-After` that is believed: a wrong one must not stop a scope for ever.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);
/// Successes at a pace before it is raised, and by what part.
const RAISE_AFTER: u32 = 40;
const RAISE_PART: f64 = 0.1;
/// After a refusal a pace stays below this part of the one that was refused.
const BELOW_REFUSED: f64 = 0.8;
/// Idle scopes beyond this number are forgotten.
const SCOPES_MAX: usize = 4096;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A limit that is kept, with Microsoft's own number beside each in [`paces`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Pace {
    /// Everything to one team: Microsoft counts 4 requests/s per application on a team or channel.
    Team(String),
    /// Messages posted to one channel by people: 3,000 a day.
    ChannelDay(String),
    ChannelPosts,
    Chat(String),
    ChatPosts,
    Mailbox(String),
    MailSending(String),
    Drive(String),
    SharePoint,
    DirectoryReads,
    DirectoryWrites,
    Notifications,
    Planner,
    Other,
}

/// Start and bounds of a pace, per second.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    start: f64,
    ceiling: f64,
    /// How much may go at once after a pause.
    burst: f64,
    in_flight_max: u32,
    per_day: Option<usize>,
}

impl Pace {
    /// Microsoft Graph "service-specific throttling limits", each kept with room to spare.
    fn bounds(&self) -> Bounds {
        let of = |start, ceiling, burst| Bounds { start, ceiling, burst, in_flight_max: u32::MAX, per_day: None };
        match self {
            // 4/s; older documents say 2/s for posts. Ceiling and burst keep any window of a second at 4.
            Self::Team(_) => of(2.0, 3.0, 1.0),
            Self::ChannelDay(_) => Bounds { per_day: Some(3000), ..of(2.0, 3.0, 1.0) },
            // 50/s of the application in the tenant.
            Self::ChannelPosts => of(10.0, 40.0, 2.0),
            Self::Chat(_) => of(2.0, 3.0, 1.0),
            // 20/s.
            Self::ChatPosts => of(8.0, 16.0, 2.0),
            // 10,000 in 10 min, 4 at once.
            Self::Mailbox(_) => Bounds { in_flight_max: 3, ..of(8.0, 14.0, 4.0) },
            // 30 a minute.
            Self::MailSending(_) => of(0.4, 0.45, 2.0),
            Self::Drive(_) => Bounds { in_flight_max: 4, ..of(8.0, 16.0, 8.0) },
            // 1,200 resource units a minute in the smallest tenants.
            Self::SharePoint => of(12.0, 18.0, 20.0),
            // 3,500 units in 10 s.
            Self::DirectoryReads => of(50.0, 250.0, 50.0),
            // 3,000 in 150 s.
            Self::DirectoryWrites => of(8.0, 16.0, 4.0),
            // 5/s.
            Self::Notifications => of(3.0, 4.0, 1.0),
            // No number is published.
            Self::Planner => of(2.0, 8.0, 2.0),
            // 30/s.
            Self::Other => of(8.0, 24.0, 4.0),
        }
    }
}

/// The paces that a call keeps, each with what it costs there.
fn paces(call: &Call) -> Vec<(Pace, f64)> {
    let reads = call.method == Method::GET || call.method == Method::HEAD;
    let path = call.path.split('?').next().unwrap_or(&call.path);
    match &call.scope {
        Scope::Channel { team, channel } => {
            let posts = call.method == Method::POST && (path.ends_with("/messages") || path.ends_with("/replies"));
            let mut paces = vec![(Pace::Team(team.clone()), 1.0)];
            match &call.acting {
                // An import is not counted by the day.
                Acting::App if posts => paces.push((Pace::ChannelPosts, 1.0)),
                Acting::User(_) if posts => {
                    paces.extend([(Pace::ChannelPosts, 1.0), (Pace::ChannelDay(channel.clone()), 1.0)]);
                }
                Acting::App | Acting::User(_) => {}
            }
            paces
        }
        Scope::Chat(chat) if reads => vec![(Pace::Chat(chat.clone()), 1.0)],
        Scope::Chat(chat) => vec![(Pace::Chat(chat.clone()), 1.0), (Pace::ChatPosts, 1.0)],
        Scope::Mailbox(mailbox) => {
            let mut paces = vec![(Pace::Mailbox(mailbox.clone()), 1.0)];
            if path.ends_with("/sendMail") || path.ends_with("/send") {
                paces.push((Pace::MailSending(mailbox.clone()), 1.0));
            }
            paces
        }
        Scope::Drive(drive) => {
            vec![(Pace::Drive(drive.clone()), 1.0), (Pace::SharePoint, if reads { 1.0 } else { 2.0 })]
        }
        Scope::Directory if reads => vec![(Pace::DirectoryReads, if path.contains("embers") { 3.0 } else { 2.0 })],
        Scope::Directory => vec![(Pace::DirectoryWrites, 1.0)],
        // The bulk form has 2/s where the single one has 5/s.
        Scope::Notifications => {
            vec![(Pace::Notifications, if path.ends_with("ToRecipients") { 2.5 } else { 1.0 })]
        }
        Scope::Planner => vec![(Pace::Planner, 1.0)],
        Scope::Tenant => vec![(Pace::Other, 1.0)],
    }
}

/// One place in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket(u64);

/// May it go?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// Now; it is in flight.
    Go,
    /// Not before then; ask again, or leave.
    At(Duration),
}

/// How a call that was in flight ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Outcome {
    /// Answered, with whatever but a refusal for speed.
    Answered,
    /// Refused for speed. `jitter` in `0..1` is used where Graph does not say for how long.
    TooFast { retry_after: Option<Duration>, jitter: f64 },
    /// The service is not well; the rate is not to blame.
    Ailing { retry_after: Option<Duration>, jitter: f64 },
    /// No answer.
    Lost,
}

struct Meter {
    bounds: Bounds,
    rate: f64,
    /// Lowered below what was refused once.
    ceiling: f64,
    /// May be negative after something that costs more than the burst.
    credit: f64,
    refilled: Duration,
    good: u32,
    in_flight: u32,
    /// When those of the last day went.
    day: VecDeque<Duration>,
}

impl Meter {
    fn new(bounds: Bounds, now: Duration) -> Self {
        let Bounds { start, ceiling, burst, .. } = bounds;
        Self { bounds, rate: start, ceiling, credit: burst, refilled: now, good: 0, in_flight: 0, day: VecDeque::new() }
    }

    fn refill(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.refilled).as_secs_f64();
        self.refilled = self.refilled.max(now);
        self.credit = (self.credit + passed * self.rate).min(self.bounds.burst);
        while self.day.front().is_some_and(|at| *at + DAY <= now) {
            self.day.pop_front();
        }
    }

    /// When something of this cost may go.
    fn free_at(&mut self, now: Duration, cost: f64) -> Duration {
        self.refill(now);
        // More than the burst never gathers: such a call goes when the burst is full and leaves a debt.
        let wanted = cost.min(self.bounds.burst);
        let missing = wanted - self.credit;
        let paced = if missing <= f64::EPSILON { now } else { now + round_up(missing / self.rate) };
        let daily = match self.bounds.per_day {
            Some(max) if self.day.len() >= max => self.day[self.day.len() - max] + DAY,
            Some(_) | None => now,
        };
        paced.max(daily)
    }

    fn spend(&mut self, now: Duration, cost: f64) {
        self.credit -= cost;
        self.in_flight += 1;
        if self.bounds.per_day.is_some() {
            self.day.push_back(now);
        }
    }

    fn praise(&mut self) {
        self.good += 1;
        if self.good >= RAISE_AFTER {
            self.good = 0;
            self.rate = (self.rate * (1.0 + RAISE_PART)).min(self.ceiling);
        }
    }

    fn blame(&mut self) {
        self.good = 0;
        self.ceiling = (self.rate * BELOW_REFUSED).clamp(self.bounds.start / 8.0, self.ceiling);
        self.rate = (self.rate / 2.0).clamp(self.bounds.start / 8.0, self.ceiling);
        self.credit = self.credit.min(0.0);
    }

    fn is_idle(&self, now: Duration) -> bool {
        self.in_flight == 0 && self.day.is_empty() && now.saturating_sub(self.refilled) > DAY / 24
    }
}

/// A pause of one scope.
#[derive(Clone, Copy, Debug, Default)]
struct Pause {
    until: Duration,
    /// Refusals in a row.
    refusals: u32,
}

struct Queued {
    scope: Scope,
    paces: Vec<(Pace, f64)>,
    precedence: Precedence,
    alone: bool,
    in_flight: bool,
}

/// Every scope's pace and pause.
#[derive(Default)]
pub(crate) struct Throttle {
    meters: BTreeMap<Pace, Meter>,
    pauses: BTreeMap<Scope, Pause>,
    queue: BTreeMap<Ticket, Queued>,
    next: u64,
}

impl Throttle {
    /// Takes a place in the queue; [`Throttle::leave`] or [`Throttle::done`] gives it back. Calls that are not `alone` go in
    /// one request with others, so they wait for none of these to end.
    pub(crate) fn join(&mut self, now: Duration, call: &Call, alone: bool) -> Ticket {
        let paces = paces(call);
        for (pace, _) in &paces {
            self.meters.entry(pace.clone()).or_insert_with(|| Meter::new(pace.bounds(), now));
        }
        let ticket = Ticket(self.next);
        self.next += 1;
        let queued = Queued { scope: call.scope.clone(), paces, precedence: call.precedence, alone, in_flight: false };
        self.queue.insert(ticket, queued);
        if self.meters.len() + self.pauses.len() > SCOPES_MAX {
            self.forget_idle(now);
        }
        ticket
    }

    /// May `ticket` go now?
    pub(crate) fn admit(&mut self, now: Duration, ticket: Ticket) -> Admission {
        let Some(own) = self.queue.get(&ticket) else { return Admission::Go };
        if let Some(until) = self.paused(now, &own.scope) {
            return Admission::At(until);
        }
        let place = (own.precedence, ticket);
        let ahead = self.queue.iter().any(|(other, queued)| {
            !queued.in_flight
                && (queued.precedence, *other) < place
                && queued.paces.iter().any(|(pace, _)| own.paces.iter().any(|(mine, _)| mine == pace))
                && self.paused(now, &queued.scope).is_none()
        });
        let mut at = now;
        for (pace, cost) in &own.paces {
            let meter = self.meters.get_mut(pace).expect("joining made it, and what is queued is not forgotten");
            let busy = own.alone && meter.in_flight >= meter.bounds.in_flight_max;
            at = at.max(meter.free_at(now, *cost));
            if busy || ahead {
                at = at.max(now + LOOK_AGAIN);
            }
        }
        if at > now {
            return Admission::At(at);
        }
        for (pace, cost) in &own.paces {
            self.meters.get_mut(pace).expect("as above").spend(now, *cost);
        }
        self.queue.get_mut(&ticket).expect("looked up above").in_flight = true;
        Admission::Go
    }

    /// The call of `ticket` will not be made.
    pub(crate) fn leave(&mut self, ticket: Ticket) {
        self.done(Duration::ZERO, ticket, Outcome::Lost);
    }

    /// The call of `ticket` has ended. Says until when its scope is paused, if it is.
    pub(crate) fn done(&mut self, now: Duration, ticket: Ticket, outcome: Outcome) -> Option<Duration> {
        let queued = self.queue.remove(&ticket)?;
        for (pace, _) in queued.paces.iter().filter(|_| queued.in_flight) {
            let Some(meter) = self.meters.get_mut(pace) else { continue };
            meter.in_flight = meter.in_flight.saturating_sub(1);
            match outcome {
                Outcome::Answered => meter.praise(),
                Outcome::TooFast { .. } => meter.blame(),
                Outcome::Ailing { .. } | Outcome::Lost => {}
            }
        }
        match outcome {
            Outcome::Answered => {
                // A pause that another call of the scope brought meanwhile stands.
                if self.paused(now, &queued.scope).is_none() {
                    self.pauses.remove(&queued.scope);
                }
                None
            }
            Outcome::TooFast { retry_after, jitter } | Outcome::Ailing { retry_after, jitter } => {
                Some(self.pause(now, &queued.scope, retry_after, jitter))
            }
            Outcome::Lost => None,
        }
    }

    /// Holds a scope that said by itself that it is nearly full.
    pub(crate) fn hold(&mut self, now: Duration, scope: &Scope, wait: Duration) {
        let pause = self.pauses.entry(scope.clone()).or_default();
        pause.until = pause.until.max(now + wait.min(RETRY_AFTER_MAX));
    }

    /// Messages that were posted to a channel before this process began count for its day.
    pub(crate) fn posted_before(&mut self, now: Duration, channel: &str, ages: impl Iterator<Item = Duration>) {
        let pace = Pace::ChannelDay(channel.to_owned());
        let meter = self.meters.entry(pace.clone()).or_insert_with(|| Meter::new(pace.bounds(), now));
        let mut all: Vec<Duration> = ages.filter_map(|age| now.checked_sub(age)).chain(meter.day.drain(..)).collect();
        all.sort_unstable();
        meter.day = all.into();
    }

    fn paused(&self, now: Duration, scope: &Scope) -> Option<Duration> {
        self.pauses.get(scope).map(|p| p.until).filter(|until| *until > now)
    }

    fn pause(&mut self, now: Duration, scope: &Scope, asked: Option<Duration>, jitter: f64) -> Duration {
        let pause = self.pauses.entry(scope.clone()).or_default();
        let ceiling = PAUSE_BASE.saturating_mul(1 << pause.refusals.min(8)).min(PAUSE_CAP);
        pause.refusals = pause.refusals.saturating_add(1);
        let wait = asked.map_or_else(|| ceiling.mul_f64(jitter.clamp(0.0, 1.0)), |asked| asked.min(RETRY_AFTER_MAX));
        pause.until = pause.until.max(now + wait);
        pause.until
    }

    fn forget_idle(&mut self, now: Duration) {
        let queue = &self.queue;
        self.meters.retain(|pace, meter| {
            !meter.is_idle(now) || queue.values().any(|q| q.paces.iter().any(|(used, _)| used == pace))
        });
        self.pauses.retain(|_, pause| pause.until > now);
    }
}

/// How long `n` calls like this one take from a fresh start, each answered at once: what a plan says before anything goes.
pub(crate) fn time_for(call: &Call, n: u32) -> Duration {
    let mut throttle = Throttle::default();
    let mut now = Duration::ZERO;
    for _ in 0..n {
        let ticket = throttle.join(now, call, true);
        while let Admission::At(at) = throttle.admit(now, ticket) {
            now = at;
        }
        throttle.done(now, ticket, Outcome::Answered);
    }
    now
}

/// Whoever is not first asks again after this, if nothing woke it before.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

fn round_up(seconds: f64) -> Duration {
    Duration::from_micros((seconds * 1e6).ceil() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::call::{CallBody, Retry};

    fn post(channel: &str, precedence: Precedence) -> Call {
        Call {
            method: Method::POST,
            path: format!("/teams/t/channels/{channel}/messages"),
            headers: Vec::new(),
            body: CallBody::None,
            acting: Acting::User("u".to_owned()),
            scope: Scope::Channel { team: "t".to_owned(), channel: channel.to_owned() },
            precedence,
            retry: Retry::Once,
        }
    }

    fn elsewhere() -> Call {
        Call { scope: Scope::Drive("d".to_owned()), ..Call::get("/drives/d/root", Scope::Planner, Precedence::Routine) }
    }

    #[test]
    fn a_plan_takes_as_long_as_the_paces_allow() {
        let of = |n| time_for(&post("c", Precedence::Routine), n).as_secs_f64();
        assert_eq!(of(1), 0.0);
        assert!((of(41) - 20.0).abs() < 0.1, "{}", of(41));
        assert!((900.0..1_200.0).contains(&of(3_000)), "{}", of(3_000));
        assert!(of(3_001) >= 24.0 * 3_600.0, "the next one waits for the next day: {}", of(3_001));
    }

    /// Sends one after the other, and says when each went.
    fn run(throttle: &mut Throttle, calls: impl Iterator<Item = Call>, mut now: Duration) -> Vec<Duration> {
        let mut went = Vec::new();
        for call in calls {
            let ticket = throttle.join(now, &call, true);
            while let Admission::At(at) = throttle.admit(now, ticket) {
                assert!(at > now, "asking again must lead somewhere");
                now = at;
            }
            went.push(now);
            throttle.done(now, ticket, Outcome::Answered);
        }
        went
    }

    #[test]
    fn no_window_of_a_second_holds_more_than_four_posts_to_a_team() {
        let mut throttle = Throttle::default();
        let calls = (0..2000).map(|i| post(if i % 2 == 0 { "a" } else { "b" }, Precedence::Routine));
        let went = run(&mut throttle, calls, Duration::ZERO);
        for (i, at) in went.iter().enumerate() {
            let within = went[i..].iter().take_while(|t| **t < *at + Duration::from_secs(1)).count();
            assert!(within <= 4, "{within} from {at:?}");
        }
        let first = went[30].as_secs_f64() / 30.0;
        assert!((0.49..0.51).contains(&first), "it begins at two a second: {first}");
        let last = (went[1999] - went[1899]).as_secs_f64() / 100.0;
        assert!((0.33..0.34).contains(&last), "it is raised up to three a second: {last}");
    }

    #[test]
    fn the_message_after_the_three_thousandth_waits_for_the_next_day() {
        let mut throttle = Throttle::default();
        let went = run(&mut throttle, (0..3001).map(|_| post("a", Precedence::Routine)), Duration::ZERO);
        assert!(went[2999] < Duration::from_secs(1600));
        assert_eq!(went[3000], went[0] + DAY);
    }

    #[test]
    fn what_was_posted_before_a_restart_counts_for_the_day() {
        let mut throttle = Throttle::default();
        let now = DAY * 2;
        throttle.posted_before(now, "a", (0..2999).map(|_| Duration::from_secs(3600)));
        let went = run(&mut throttle, (0..2).map(|_| post("a", Precedence::Routine)), now);
        assert_eq!(went, [now, now + DAY - Duration::from_secs(3600)]);
    }

    #[test]
    fn a_refusal_pauses_its_channel_and_no_other_scope() {
        let mut throttle = Throttle::default();
        let now = Duration::from_secs(10);
        let ticket = throttle.join(now, &post("a", Precedence::Routine), true);
        assert_eq!(throttle.admit(now, ticket), Admission::Go);
        let asked = Some(Duration::from_millis(2128));
        let until = throttle.done(now, ticket, Outcome::TooFast { retry_after: asked, jitter: 0.5 });
        assert_eq!(until, Some(now + Duration::from_millis(2128)));

        let same = throttle.join(now, &post("a", Precedence::Flash), true);
        assert_eq!(throttle.admit(now, same), Admission::At(now + Duration::from_millis(2128)));
        let other = throttle.join(now, &elsewhere(), true);
        assert_eq!(throttle.admit(now, other), Admission::Go);
        // Another channel of the team keeps the slower pace, and does not wait behind the paused one.
        let neighbour = throttle.join(now, &post("b", Precedence::Routine), true);
        assert_eq!(throttle.admit(now, neighbour), Admission::At(now + Duration::from_secs(1)));
        assert_eq!(throttle.admit(now + Duration::from_secs(1), neighbour), Admission::Go);
    }

    #[test]
    fn without_a_time_the_pause_doubles_up_to_five_minutes_with_full_jitter() {
        let mut throttle = Throttle::default();
        let mut now = Duration::ZERO;
        let mut waits = Vec::new();
        for _ in 0..10 {
            let ticket = throttle.join(now, &post("a", Precedence::Routine), true);
            while let Admission::At(at) = throttle.admit(now, ticket) {
                now = at;
            }
            let until = throttle.done(now, ticket, Outcome::TooFast { retry_after: None, jitter: 1.0 }).unwrap();
            waits.push((until - now).as_secs());
            now = until;
        }
        assert_eq!(waits, [2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        let ticket = throttle.join(now, &post("b", Precedence::Routine), true);
        while let Admission::At(at) = throttle.admit(now, ticket) {
            now = at;
        }
        let until = throttle.done(now, ticket, Outcome::TooFast { retry_after: None, jitter: 0.25 });
        assert_eq!(until, Some(now + Duration::from_millis(500)));
    }

    #[test]
    fn a_pace_that_was_refused_is_not_reached_again() {
        let mut throttle = Throttle::default();
        let went = run(&mut throttle, (0..400).map(|_| post("a", Precedence::Routine)), Duration::ZERO);
        let now = *went.last().unwrap() + Duration::from_secs(1);
        let ticket = throttle.join(now, &post("a", Precedence::Routine), true);
        assert_eq!(throttle.admit(now, ticket), Admission::Go);
        throttle.done(now, ticket, Outcome::TooFast { retry_after: Some(Duration::from_secs(1)), jitter: 0.0 });
        let went = run(&mut throttle, (0..800).map(|_| post("a", Precedence::Routine)), now + Duration::from_secs(1));
        let spacing = (went[799] - went[699]).as_secs_f64() / 100.0;
        assert!(spacing > 1.0 / (3.0 * 0.8) - 0.001, "{spacing}");
    }

    #[test]
    fn an_urgent_call_passes_those_that_wait_for_the_same_pace() {
        let mut throttle = Throttle::default();
        let now = Duration::ZERO;
        let first = throttle.join(now, &post("a", Precedence::Routine), true);
        assert_eq!(throttle.admit(now, first), Admission::Go);
        let waits = throttle.join(now, &post("a", Precedence::Routine), true);
        let urgent = throttle.join(now, &post("b", Precedence::Flash), true);
        let later = Duration::from_millis(500);
        assert!(matches!(throttle.admit(later, waits), Admission::At(_)), "the flash call is ahead");
        assert_eq!(throttle.admit(later, urgent), Admission::Go);
        throttle.leave(urgent);
        assert_eq!(throttle.admit(later * 2, waits), Admission::Go);
    }

    #[test]
    fn a_mailbox_is_asked_three_times_at_once_at_most() {
        let mut throttle = Throttle::default();
        let now = Duration::ZERO;
        let call = Call::get("/users/u/messages", Scope::Mailbox("u".to_owned()), Precedence::Routine);
        let tickets: Vec<Ticket> = (0..4).map(|_| throttle.join(now, &call, true)).collect();
        let going = |t: &mut Throttle| tickets.iter().filter(|x| t.admit(now, **x) == Admission::Go).count();
        assert_eq!(going(&mut throttle), 3);
    }

    #[test]
    fn a_wrong_time_does_not_stop_a_scope_for_ever() {
        let mut throttle = Throttle::default();
        let ticket = throttle.join(Duration::ZERO, &elsewhere(), true);
        throttle.admit(Duration::ZERO, ticket);
        let asked = Some(Duration::from_secs(u64::MAX / 4));
        let until = throttle.done(Duration::ZERO, ticket, Outcome::Ailing { retry_after: asked, jitter: 0.0 });
        assert_eq!(until, Some(RETRY_AFTER_MAX));
    }
}
