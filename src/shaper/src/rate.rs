//! How fast a link may be filled: the configured ceiling, or what the link is measured to carry if that is less.
//!
//! ```text
//!            queue stands                  what is on its way fits
//!  Filling --------------> Draining ------------------------------> Checking --> Filling
//!     `-- no queue: the bound is raised, slowly at first, until the ceiling is reached
//! ```
//!
//! Invariants
//! - The rate never exceeds the ceiling and never falls below a hundredth of it or 4 kbit/s.
//! - Loss alone never lowers the rate.
//! - Delay that does not go when the link has drained is the path's, not a queue's.
//!
//! Time is divided into rounds of about a round trip. Of each round three things count: the shortest time that a datagram
//! took to be confirmed, what left the link (confirmed or given up), and whether the rate was used. A queue shows as a
//! shortest time above the path's own; while it stands, what leaves the link is what it carries.
//!
//! Not here: which bytes (`Shaper`), keeping to the rate datagram by datagram (`carrier`).
//! Start reading at [`Controller::settled`].

use std::collections::VecDeque;
use std::time::Duration;

use model::BitsPerSecond;

/// What is fixed for a link.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Never more than this.
    pub ceiling: BitsPerSecond,
    /// A full datagram with its headers, in bytes.
    pub datagram: u64,
    /// How long the peer's acknowledgement may wait for company; not longer than a round trip, or 25 ms if that is more.
    pub ack_delay: Duration,
    /// By how much a burst of ours may be ahead of the pace: it queues, but does not stand.
    pub burst: Duration,
}

/// One link's rate.
#[derive(Clone, Debug)]
pub struct Controller {
    settings: Settings,
    /// What the link is believed to carry, in bit/s; at most the ceiling.
    bound: f64,
    phase: Phase,
    /// At the last acknowledgement.
    in_flight: u64,
    shortest: Shortest,
    /// How much the shortest time of a round wanders while no queue stands.
    noise: Duration,
    /// Share that is lost while no queue stands.
    loss: f64,
    /// In the last round without one: seconds above the path's own.
    queue: f64,
    round: Round,
    /// The last confirmation, and whether the round follows a time without.
    heard: Duration,
    after_gap: bool,
    recent: Recent,
    /// Was there a whole round?
    measured: bool,
    /// Was the rate used in the round before?
    was_used: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    /// At the bound, without a queue for so many rounds.
    Filling { calm: u32 },
    /// Below it since then, until what is on its way fits the path or the delay stays as it is. `delay` is the queue that was
    /// seen, `took` the shortest time in the round before.
    Draining { since: Duration, delay: Duration, took: Duration },
    /// Drained: is the delay gone?
    Checking { delay: Duration },
}

/// What is seen during about a round trip.
#[derive(Clone, Debug, Default)]
struct Round {
    started: Duration,
    shortest: Option<Duration>,
    sent: u64,
    /// Bytes that were confirmed or given up, those of the first acknowledgement apart: they left the link before it.
    left: u64,
    left_first: u64,
    lost: u64,
    datagrams: u32,
    acks: u32,
    first_ack: Duration,
    last_ack: Duration,
}

/// Datagrams whose fate a round waits for: of fewer, the delay says too little.
const ROUND_DATAGRAMS: u32 = 8;

impl Controller {
    /// Trusts the ceiling until the link shows otherwise.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            bound: settings.ceiling.0 as f64,
            phase: Phase::Filling { calm: 0 },
            in_flight: 0,
            shortest: Shortest::default(),
            noise: Duration::ZERO,
            loss: LOSS_ASSUMED,
            queue: 0.0,
            round: Round::default(),
            heard: Duration::ZERO,
            after_gap: false,
            recent: Recent::default(),
            measured: false,
            was_used: false,
        }
    }

    /// The operator changed the ceiling: what is believed about the link stays, unless it was the ceiling itself.
    pub fn set_ceiling(&mut self, ceiling: BitsPerSecond) {
        let at_ceiling = self.bound >= self.settings.ceiling.0 as f64;
        self.settings.ceiling = ceiling;
        if at_ceiling || self.bound > ceiling.0 as f64 {
            self.bound = ceiling.0 as f64;
        }
    }

    /// A datagram of `bytes` was sent.
    pub fn sent(&mut self, bytes: u64) {
        self.round.sent += bytes;
    }

    /// A datagram of `bytes` was confirmed `after` it was sent.
    pub fn acknowledged(&mut self, now: Duration, bytes: u64, after: Duration) {
        self.shortest.first(now, after);
        self.notice_gap(now);
        let round = &mut self.round;
        round.datagrams += 1;
        round.shortest = Some(round.shortest.map_or(after, |s| s.min(after)));
        self.left(now, bytes);
    }

    /// Datagrams of `bytes` together were given up at `now`.
    pub fn lost(&mut self, now: Duration, bytes: u64) {
        self.round.lost += bytes;
        self.in_flight = self.in_flight.saturating_sub(bytes);
        self.left(now, bytes);
    }

    /// Everything that one acknowledgement says was told; `in_flight` bytes are still on their way.
    pub fn settled(&mut self, now: Duration, in_flight: u64) {
        self.in_flight = in_flight;
        if let Phase::Draining { delay, .. } = self.phase
            && self.excess() <= 0.0
        {
            self.phase = Phase::Checking { delay };
            self.round = Round { started: now, ..Round::default() };
        }
        // The first round decides early: until then more is sent than a slower link carries.
        let (datagrams, acks) = if self.measured { (ROUND_DATAGRAMS, 3) } else { (3, 2) };
        if self.round.datagrams >= datagrams && self.round.acks >= acks && self.is_over(now) {
            self.end_round(now);
        }
    }

    /// What may leave, in bit/s.
    pub fn rate(&self) -> BitsPerSecond {
        let part = match self.phase {
            Phase::Filling { .. } => 1.0,
            // What is too much leaves within a few round trips. Never nothing: what was lost last shows by what follows.
            Phase::Draining { .. } => (1.0 - self.excess() / (self.own() + 4.0 * self.datagram())).clamp(0.25, 0.9),
            Phase::Checking { .. } => 0.9,
        };
        let ceiling = self.settings.ceiling.0 as f64;
        BitsPerSecond((self.bound * part).clamp(self.floor(), ceiling) as u64)
    }

    /// Bytes that may be on their way: one and a half round trips, the wait of six acknowledgements since some get lost, and
    /// eight datagrams. `None` before the first confirmation.
    pub fn window(&self) -> Option<u64> {
        let own = self.shortest.get()?.as_secs_f64();
        let seconds = 1.5 * own + 6.0 * self.ack_delay();
        Some((self.bound / 8.0 * seconds) as u64 + 8 * self.settings.datagram)
    }

    /// The path's own round trip; `None` before the first confirmation.
    pub fn round_trip(&self) -> Option<Duration> {
        self.shortest.get()
    }

    /// After a time without confirmations, an outage or nothing to send, what was measured before it says nothing about after.
    fn notice_gap(&mut self, now: Duration) {
        let silence = now.saturating_sub(self.heard).as_secs_f64();
        self.heard = now;
        if silence > 0.5 + 2.0 * self.own() + 4.0 * self.ack_delay() + 16.0 * self.datagram() {
            self.round = Round { started: now, ..Round::default() };
            self.recent = Recent::default();
            self.was_used = false;
            self.after_gap = true;
        }
    }

    fn left(&mut self, now: Duration, bytes: u64) {
        let round = &mut self.round;
        if round.acks == 0 {
            (round.acks, round.first_ack) = (1, now);
        } else if round.last_ack != now {
            round.acks += 1;
        }
        round.last_ack = now;
        round.left += bytes;
        if now == round.first_ack {
            round.left_first += bytes;
        }
    }

    /// After a round trip and the wait of two acknowledgements; earlier when a queue grows fast.
    fn is_over(&self, now: Duration) -> bool {
        let Some(took) = self.round.shortest else { return false };
        let queue = took.as_secs_f64() - self.own();
        let grows = matches!(self.phase, Phase::Filling { .. }) && queue > 2.0 * self.queue_max();
        grows || now.saturating_sub(self.round.started).as_secs_f64() >= self.own() + 2.0 * self.ack_delay()
    }

    fn end_round(&mut self, now: Duration) {
        let round = std::mem::replace(&mut self.round, Round { started: now, ..Round::default() });
        let Some(took) = round.shortest else { return };
        if std::mem::take(&mut self.after_gap) {
            // Some of it was sent before.
            return;
        }
        self.measured = true;
        self.shortest.sample(now, took);
        let queue = took.saturating_sub(self.shortest.get().unwrap_or(took));
        let elapsed = now.saturating_sub(round.started).as_secs_f64();
        let used = round.sent as f64 * 8.0 >= USED * self.bound * elapsed;
        let was_used = std::mem::replace(&mut self.was_used, used);
        let stands = queue.as_secs_f64() > self.queue_max() && (used || was_used);
        self.recent.push(round.left, round.lost, elapsed);
        let lost = self.recent.lost();
        match self.phase {
            Phase::Filling { calm } if stands => {
                let measured = round.last_ack.saturating_sub(round.first_ack).as_secs_f64();
                let mut carried = (round.left - round.left_first) as f64 * 8.0 / measured.max(1e-6);
                // A round is few datagrams and may have been unlucky, unless the link has changed.
                let longer = self.recent.rate();
                if longer < (1.0 + SAME) * carried {
                    carried = carried.max((carried + longer) / 2.0);
                }
                if lost > self.loss + LOSS_MORE {
                    // A full modem drops: that left us, but not over the link.
                    carried *= (1.0 - lost) / (1.0 - self.loss);
                }
                // A queue that is back at once was not measured well: a full modem drops what seems to have left it.
                let kept = if calm < CALM { KEPT_AGAIN } else { KEPT };
                self.bound = (kept * carried.clamp(self.bound / CUT_MAX, self.bound)).max(self.floor());
                self.phase = Phase::Draining { since: now, delay: queue, took };
            }
            Phase::Filling { calm } => {
                let grows = queue.as_secs_f64() > self.queue + self.datagram() / 8.0;
                self.queue = queue.as_secs_f64();
                self.loss += (lost - self.loss) / 8.0;
                self.noise = (7 * self.noise + queue.min(self.own_max() / 8)) / 8;
                if used && was_used {
                    let step = RAISE_FIRST * f64::from(1u32 << calm.saturating_sub(SLOW).min(16));
                    self.bound = (self.bound * (1.0 + step.min(RAISE_MAX))).min(self.settings.ceiling.0 as f64);
                    self.phase = Phase::Filling { calm: if grows { calm.min(SLOW) } else { calm + 1 } };
                }
            }
            Phase::Draining { since, delay, took: before } => {
                self.phase = Phase::Draining { since, delay, took };
                // Sent since the draining began, and no sooner there: no queue is left to leave.
                let stays = took.abs_diff(before).as_secs_f64() < elapsed / 4.0;
                if stays && now.saturating_sub(since) > took + before {
                    self.shortest.replace(now, took);
                    self.phase = Phase::Filling { calm: 0 };
                }
            }
            Phase::Checking { delay } => {
                if 4 * queue > 3 * delay && queue.as_secs_f64() > self.queue_max() {
                    // What is on its way fits the path, and the delay is still there: it is the path's.
                    self.shortest.replace(now, took);
                }
                self.phase = Phase::Filling { calm: 0 };
            }
        }
    }

    /// By how much more is on its way than the path holds, in seconds of the link.
    fn excess(&self) -> f64 {
        self.in_flight as f64 * 8.0 / self.bound.max(1.0) - self.own() - 0.5 * self.datagram()
    }

    /// Delay above the path's own, in seconds, from which on a queue stands: a sixteenth of the round trip, or what two datagrams and
    /// a half take, one of which may wait for its turn here.
    fn queue_max(&self) -> f64 {
        let waits = self.settings.datagram as f64 * 8.0 / self.rate().0.max(1) as f64;
        (self.own() / 16.0).max(2.0 * self.datagram() + waits).max(0.003)
            + 2.0 * self.noise.as_secs_f64()
            + self.settings.burst.as_secs_f64()
    }

    /// Seconds that a full datagram takes.
    fn datagram(&self) -> f64 {
        self.settings.datagram as f64 * 8.0 / self.bound.max(1.0)
    }

    fn own_max(&self) -> Duration {
        self.shortest.get().unwrap_or_default()
    }

    fn own(&self) -> f64 {
        self.own_max().as_secs_f64()
    }

    fn ack_delay(&self) -> f64 {
        self.settings.ack_delay.as_secs_f64().min(self.own().max(0.025))
    }

    /// The least that a link is given, so that a wrong measurement heals soon.
    fn floor(&self) -> f64 {
        let ceiling = self.settings.ceiling.0 as f64;
        (ceiling / 100.0).max(FLOOR).min(ceiling)
    }
}

/// Part of what the link was seen to carry that it is filled to.
const KEPT: f64 = 0.98;
const KEPT_AGAIN: f64 = 0.92;

/// What is taken for the air's share of the losses before it was measured, and how much more is the modem's.
const LOSS_ASSUMED: f64 = 0.15;
const LOSS_MORE: f64 = 0.2;

/// Measurements that differ by less than this part are of the same link.
const SAME: f64 = 0.3;

/// In bit/s: a full datagram in two and a half seconds.
const FLOOR: f64 = 4_000.0;

/// At once the bound is cut to this part at most: a worse measurement is more likely wrong than the ceiling.
const CUT_MAX: f64 = 8.0;

/// Rounds without a queue after which the last measurement counts as good.
const CALM: u32 = 2;

/// Who sends less than this part of the rate neither fills the link nor shows that it carries more.
const USED: f64 = 0.7;

/// The bound is raised by this part for so many rounds, near what was found full; then the part doubles each round, up to
/// the largest, for a link that has become another one.
const RAISE_FIRST: f64 = 0.005;
const SLOW: u32 = 4;
const RAISE_MAX: f64 = 0.25;

/// The last rounds: what left the link, what of it was lost, and how long they took.
#[derive(Clone, Debug, Default)]
struct Recent(VecDeque<(u64, u64, f64)>);

impl Recent {
    fn push(&mut self, left: u64, lost: u64, seconds: f64) {
        self.0.push_back((left, lost, seconds));
        if self.0.len() > 8 {
            self.0.pop_front();
        }
    }

    fn left(&self) -> f64 {
        self.0.iter().map(|(left, _, _)| *left as f64).sum::<f64>()
    }

    fn rate(&self) -> f64 {
        self.left() * 8.0 / self.0.iter().map(|(_, _, seconds)| seconds).sum::<f64>().max(1e-6)
    }

    fn lost(&self) -> f64 {
        self.0.iter().map(|(_, lost, _)| *lost as f64).sum::<f64>() / self.left().max(1.0)
    }
}

/// How long a round trip is remembered as the shortest: until the link was drained again for certain, and shorter than it
/// takes an operator to notice that it changed from radio to satellite.
const SHORTEST_KEPT: Duration = Duration::from_secs(20);
const SHORTEST_KEPT_ROUNDS: u64 = 32;

/// The shortest time of late: of whole rounds, since lone datagrams may be lucky. Ascending, each newer than the one before it.
#[derive(Clone, Debug, Default)]
struct Shortest {
    kept: VecDeque<Kept>,
    rounds: u64,
}

#[derive(Clone, Copy, Debug)]
struct Kept {
    at: Duration,
    round: u64,
    took: Duration,
}

impl Shortest {
    /// Until a round was whole, any datagram counts.
    fn first(&mut self, now: Duration, took: Duration) {
        if self.rounds == 0 && self.get().is_none_or(|kept| took < kept) {
            self.replace(now, took);
        }
    }

    fn sample(&mut self, now: Duration, took: Duration) {
        self.rounds += 1;
        while self.kept.back().is_some_and(|kept| kept.took >= took) {
            self.kept.pop_back();
        }
        self.kept.push_back(Kept { at: now, round: self.rounds, took });
        let old = |kept: &Kept| {
            now.saturating_sub(kept.at) > SHORTEST_KEPT && self.rounds - kept.round > SHORTEST_KEPT_ROUNDS
        };
        while self.kept.len() > 1 && self.kept.front().is_some_and(old) {
            self.kept.pop_front();
        }
        // Rising times make a sample per round: keep few, the newest always.
        if self.kept.len() > 64 {
            self.kept.remove(1);
        }
    }

    fn replace(&mut self, now: Duration, took: Duration) {
        self.kept.clear();
        self.kept.push_back(Kept { at: now, round: self.rounds, took });
    }

    fn get(&self) -> Option<Duration> {
        self.kept.front().map(|kept| kept.took)
    }
}
