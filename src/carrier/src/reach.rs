//! What is said of a destination over time: one lost datagram is no outage, and a link that comes and goes is not "up".
//!
//! ```text
//!                 away for 5 s                      3 losses within 10 min
//!   Up <------------------------> Down        Up, Degraded, Down ----------> Intermittent
//!    |  there                                   <-- 5 min without a loss, or away for 5 min
//!    `-- poor for 10 s --> Degraded -- good for 2 min --> Up
//!
//!   Denied, Silent, Held: at once, as orders and refusals are
//! ```
//!
//! Invariants
//! - What is ordered or refused shows at once; what is measured shows when it has lasted.
//! - Whatever is seen, [`CHANGES_MAX`] changes of what is measured in ten minutes are the most.
//! - Every change that comes with time alone is announced by [`Watch::changes_at`].
//!
//! Pure: the time is an argument. It knows nothing of links but what [`Sight`] says, so that it serves for any destination that is
//! reached or not, at some quality or none.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

/// Being away for less is a handover, or a connection that is made anew.
const DOWN_AFTER: Duration = Duration::from_secs(5);

/// So many losses...
const LOSSES: usize = 3;
/// ... within this time are more than chance.
const LOSSES_WITHIN: Duration = Duration::from_secs(600);

/// After this time without a loss a link is trusted again, or without a connection given up.
const SETTLED_AFTER: Duration = Duration::from_secs(300);

/// Poor quality counts when it lasts: a burst of loss or a full queue does not.
const POOR_FOR: Duration = Duration::from_secs(10);
/// And good quality when it lasts longer: then the cause is gone.
const GOOD_FOR: Duration = Duration::from_secs(120);

/// Packets that a share of losses is made of.
const SAMPLE_PACKETS: u64 = 100;

/// Changes of what is measured within ten minutes: five times poor and good again, or two losses and the third, which makes it
/// intermittent for half of them.
#[cfg(test)]
const CHANGES_MAX: usize = 12;

/// What a destination is found to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reach {
    /// It is there.
    Up,
    /// It is there, with much loss, a long queue, or far less capacity than configured.
    Degraded,
    /// It comes and goes.
    Intermittent,
    /// It answers and refuses us, or we refuse it.
    Denied,
    /// Emission control or an order forbids to ask.
    Silent,
    /// It is not there.
    Down,
    /// It is not to be used now: paused, without budget, or outside its contact windows.
    Held,
    /// Nobody can tell: nothing comes back.
    #[serde(rename = "one-way")]
    OneWay,
    /// By way of a relay.
    Relayed,
}

impl Reach {
    /// Each of them.
    pub const ALL: [Self; 9] = [
        Self::Up,
        Self::Degraded,
        Self::Intermittent,
        Self::Denied,
        Self::Silent,
        Self::Down,
        Self::Held,
        Self::OneWay,
        Self::Relayed,
    ];

    /// In lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Degraded => "degraded",
            Self::Intermittent => "intermittent",
            Self::Denied => "denied",
            Self::Silent => "silent",
            Self::Down => "down",
            Self::Held => "held",
            Self::OneWay => "one-way",
            Self::Relayed => "relayed",
        }
    }

    /// Of several ways to one destination the best counts.
    pub(crate) fn best(ways: impl IntoIterator<Item = Self>) -> Self {
        ways.into_iter().min().unwrap_or(Self::Down)
    }
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How good a connection is, as far as somebody measures it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Quality {
    /// Packets of the connection that were sent and that were lost, so far.
    pub(crate) sent: u64,
    pub(crate) lost: u64,
    pub(crate) round_trip: Duration,
    /// What the path is found to carry, of a thousandth of what is configured.
    pub(crate) pace_permille: u64,
}

/// What is seen of a destination at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sight {
    There(Quality),
    Away,
    Denied,
    Silent,
    Held,
}

/// Watches one destination.
#[derive(Debug)]
pub(crate) struct Watch {
    reach: Reach,
    /// Since when it is there or away.
    there: bool,
    turned: Duration,
    /// When it was lost last; at most [`LOSSES`].
    losses: VecDeque<Duration>,
    quality: Judge,
}

impl Watch {
    /// Of something that was never seen.
    pub(crate) fn new(now: Duration) -> Self {
        Self { reach: Reach::Down, there: false, turned: now, losses: VecDeque::new(), quality: Judge::default() }
    }

    /// Takes note of what is seen at `now`.
    pub(crate) fn see(&mut self, now: Duration, sight: Sight) -> Reach {
        let quality = match sight {
            Sight::There(quality) => quality,
            Sight::Away => {
                self.turn(now, false);
                return self.settle(now);
            }
            // Nobody measures what may not be tried, and what comes after it begins anew.
            Sight::Denied => return self.ordered(now, Reach::Denied),
            Sight::Silent => return self.ordered(now, Reach::Silent),
            Sight::Held => return self.ordered(now, Reach::Held),
        };
        self.turn(now, true);
        self.quality.see(now, quality);
        self.settle(now)
    }

    /// When what is said changes although nothing new is seen.
    pub(crate) fn changes_at(&self) -> Option<Duration> {
        let settled = self.turned.max(self.losses.back().copied().unwrap_or_default()) + SETTLED_AFTER;
        match (self.reach, self.there) {
            (Reach::Intermittent, _) => Some(settled),
            (Reach::Up | Reach::Degraded, false) => Some(self.turned + DOWN_AFTER),
            (Reach::Up | Reach::Degraded, true) => self.quality.changes_at(),
            (Reach::Down | Reach::Denied | Reach::Silent | Reach::Held | Reach::OneWay | Reach::Relayed, _) => None,
        }
    }

    fn ordered(&mut self, now: Duration, reach: Reach) -> Reach {
        *self = Self { reach, ..Self::new(now) };
        reach
    }

    fn turn(&mut self, now: Duration, there: bool) {
        if there == self.there {
            return;
        }
        (self.there, self.turned) = (there, now);
        if there {
            self.quality = self.quality.renewed();
            return;
        }
        // It was as it was seen last until this moment.
        self.quality.settle(now);
        self.losses.push_back(now);
        if self.losses.len() > LOSSES {
            self.losses.pop_front();
        }
    }

    fn settle(&mut self, now: Duration) -> Reach {
        let often =
            self.losses.len() == LOSSES && self.losses.front().is_some_and(|first| now < *first + LOSSES_WITHIN);
        let settled = self.changes_at().is_some_and(|at| at <= now);
        self.reach = match (self.reach, self.there) {
            (Reach::Intermittent, _) if !settled => Reach::Intermittent,
            // The third loss, however short.
            (Reach::Up | Reach::Degraded, false) if often => Reach::Intermittent,
            (Reach::Up | Reach::Degraded, false) if !settled => self.reach,
            (_, false) => Reach::Down,
            (Reach::Down, true) if often => Reach::Intermittent,
            (_, true) if self.quality.is_poor(now) => Reach::Degraded,
            (_, true) => Reach::Up,
        };
        self.reach
    }
}

/// Tells poor quality from good, with a band between them in which what was said stays.
#[derive(Clone, Copy, Debug, Default)]
struct Judge {
    poor: bool,
    /// Since when what is seen is the contrary.
    contrary: Option<Duration>,
    /// Counters at the start of the present sample, and the share of the one before in thousandths.
    from: (u64, u64),
    lost_permille: u64,
    shortest: Option<Duration>,
}

enum Grade {
    Good,
    Between,
    Poor,
}

impl Judge {
    /// A new connection counts anew; what was said stays until it is known better.
    fn renewed(self) -> Self {
        Self { poor: self.poor, ..Self::default() }
    }

    fn see(&mut self, now: Duration, quality: Quality) {
        let (sent, lost) = (quality.sent.saturating_sub(self.from.0), quality.lost.saturating_sub(self.from.1));
        if sent >= SAMPLE_PACKETS {
            (self.from, self.lost_permille) = ((quality.sent, quality.lost), lost * 1_000 / sent);
        }
        let shortest = self.shortest.map_or(quality.round_trip, |shortest| shortest.min(quality.round_trip));
        self.shortest = Some(shortest);
        self.settle(now);
        let contrary = match self.grade(quality, shortest) {
            Grade::Good => self.poor,
            Grade::Between => false,
            Grade::Poor => !self.poor,
        };
        self.contrary = contrary.then(|| self.contrary.unwrap_or(now));
    }

    /// More than this is noticed by users; less than half of it is not.
    fn grade(&self, quality: Quality, shortest: Duration) -> Grade {
        let over = |factor: u32, more: u64| quality.round_trip > factor * shortest + Duration::from_millis(more);
        if self.lost_permille >= 100 || over(3, 500) || quality.pace_permille < 500 {
            return Grade::Poor;
        }
        let fair = self.lost_permille >= 50 || over(2, 250) || quality.pace_permille < 700;
        if fair { Grade::Between } else { Grade::Good }
    }

    fn changes_at(&self) -> Option<Duration> {
        self.contrary.map(|since| since + if self.poor { GOOD_FOR } else { POOR_FOR })
    }

    fn settle(&mut self, now: Duration) {
        if self.changes_at().is_some_and(|at| at <= now) {
            self.poor = !self.poor;
            self.contrary = None;
        }
    }

    fn is_poor(&mut self, now: Duration) -> bool {
        self.settle(now);
        self.poor
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOOD: Quality = Quality { sent: 0, lost: 0, round_trip: Duration::from_millis(600), pace_permille: 1_000 };
    const POOR: Quality = Quality { pace_permille: 300, ..GOOD };
    const FAIR: Quality = Quality { pace_permille: 600, ..GOOD };

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    /// What is said at each second, while the same is seen.
    fn watch(watch: &mut Watch, from: u64, to: u64, sight: Sight) -> Reach {
        (from..=to).map(|at| watch.see(secs(at), sight)).last().expect("a time")
    }

    #[test]
    fn a_short_absence_is_no_outage_and_a_longer_one_is() {
        let mut link = Watch::new(secs(0));
        assert_eq!(link.see(secs(0), Sight::Away), Reach::Down);
        assert_eq!(link.see(secs(1), Sight::There(GOOD)), Reach::Up, "it is there: no reason to wait");
        assert_eq!(watch(&mut link, 100, 104, Sight::Away), Reach::Up);
        assert_eq!(link.changes_at(), Some(secs(105)));
        assert_eq!(link.see(secs(105), Sight::Away), Reach::Down);
        assert_eq!(link.see(secs(106), Sight::There(GOOD)), Reach::Up);
    }

    #[test]
    fn a_link_that_comes_and_goes_is_intermittent_until_it_has_stayed_or_is_gone() {
        let mut link = Watch::new(secs(0));
        for cycle in 0..3 {
            let at = 60 * cycle;
            watch(&mut link, at, at + 29, Sight::There(GOOD));
            watch(&mut link, at + 30, at + 59, Sight::Away);
        }
        assert_eq!(link.see(secs(180), Sight::There(GOOD)), Reach::Intermittent);
        assert_eq!(watch(&mut link, 181, 479, Sight::There(GOOD)), Reach::Intermittent);
        assert_eq!(link.see(secs(480), Sight::There(GOOD)), Reach::Up);
        for at in [500, 540, 580] {
            watch(&mut link, at, at + 19, Sight::Away);
            watch(&mut link, at + 20, at + 39, Sight::There(GOOD));
        }
        assert_eq!(watch(&mut link, 620, 919, Sight::Away), Reach::Intermittent);
        assert_eq!(watch(&mut link, 920, 921, Sight::Away), Reach::Down);
    }

    #[test]
    fn poor_quality_shows_when_it_lasts_and_goes_when_good_quality_has_lasted_longer() {
        let mut link = Watch::new(secs(0));
        watch(&mut link, 0, 20, Sight::There(GOOD));
        assert_eq!(watch(&mut link, 21, 29, Sight::There(POOR)), Reach::Up);
        assert_eq!(watch(&mut link, 30, 31, Sight::There(POOR)), Reach::Degraded);
        assert_eq!(watch(&mut link, 32, 1_000, Sight::There(FAIR)), Reach::Degraded, "between, what was said stays");
        assert_eq!(watch(&mut link, 1_001, 1_120, Sight::There(GOOD)), Reach::Degraded);
        assert_eq!(link.see(secs(1_121), Sight::There(GOOD)), Reach::Up);
        assert_eq!(watch(&mut link, 1_122, 2_000, Sight::There(FAIR)), Reach::Up);
    }

    #[test]
    fn loss_is_taken_from_what_was_sent_lately() {
        let mut link = Watch::new(secs(0));
        let at = |n: u64, sent, lost| (secs(n), Sight::There(Quality { sent, lost, ..GOOD }));
        // 10,000 good packets, then every fourth is lost.
        for n in 0..60 {
            let (now, sight) = at(n, 10_000 + 50 * n, 50 * n / 4);
            link.see(now, sight);
        }
        assert_eq!(link.reach, Reach::Degraded);
    }

    #[test]
    fn orders_and_refusals_show_at_once_and_end_what_was_known() {
        for (sight, reach) in
            [(Sight::Denied, Reach::Denied), (Sight::Silent, Reach::Silent), (Sight::Held, Reach::Held)]
        {
            let mut link = Watch::new(secs(0));
            watch(&mut link, 0, 40, Sight::There(POOR));
            assert_eq!(link.see(secs(41), sight), reach);
            assert_eq!(link.changes_at(), None);
            assert_eq!(link.see(secs(42), Sight::Away), Reach::Down);
            assert_eq!(link.see(secs(43), Sight::There(GOOD)), Reach::Up);
        }
    }

    #[test]
    fn the_best_of_several_ways_counts() {
        assert_eq!(Reach::best([Reach::Down, Reach::Intermittent, Reach::Denied]), Reach::Intermittent);
        assert_eq!(Reach::best([Reach::Held, Reach::Silent]), Reach::Silent);
        assert_eq!(Reach::best([]), Reach::Down);
    }

    fn quality() -> impl Strategy<Value = Quality> {
        prop_oneof![Just(GOOD), Just(FAIR), Just(POOR)]
    }

    fn measured() -> impl Strategy<Value = Sight> {
        prop_oneof![2 => quality().prop_map(Sight::There), 1 => Just(Sight::Away)]
    }

    fn any_sight() -> impl Strategy<Value = Sight> {
        prop_oneof![4 => measured(), 1 => prop_oneof![Just(Sight::Denied), Just(Sight::Silent), Just(Sight::Held)]]
    }

    /// How long each thing is seen, in tenths of a second, and what.
    fn story(sight: impl Strategy<Value = Sight>) -> impl Strategy<Value = Vec<(u64, Sight)>> {
        let span = prop_oneof![1u64..20, 20u64..200, 200u64..4_000];
        prop::collection::vec((span, sight), 1..40)
    }

    proptest! {
        #[test]
        fn what_is_measured_changes_rarely_whatever_is_seen(story in story(measured())) {
            let (mut link, mut now, mut changes) = (Watch::new(secs(0)), 0, Vec::new());
            let mut said = Reach::Down;
            for (span, sight) in story {
                for _ in 0..span {
                    now += 1;
                    let reach = link.see(Duration::from_millis(100 * now), sight);
                    if reach != said {
                        changes.push(now);
                        said = reach;
                    }
                }
            }
            for (n, at) in changes.iter().enumerate() {
                let within = changes[n..].iter().take_while(|later| **later < at + 6_000).count();
                prop_assert!(within <= CHANGES_MAX, "{within} changes in ten minutes: {changes:?}");
            }
        }

        #[test]
        fn looking_only_when_something_happens_or_is_announced_says_the_same(story in story(any_sight())) {
            let (mut often, mut seldom) = (Watch::new(secs(0)), Watch::new(secs(0)));
            let mut now = 0u64;
            for (span, sight) in story {
                for step in 0..span {
                    now += 1;
                    let at = Duration::from_millis(100 * now);
                    let said = often.see(at, sight);
                    if step == 0 || seldom.changes_at().is_some_and(|due| due <= at) {
                        seldom.see(at, sight);
                    }
                    prop_assert_eq!(said, seldom.reach, "at {:?}", at);
                }
            }
        }

        #[test]
        fn what_stays_the_same_is_said_plainly_in_the_end(story in story(any_sight()), last in any_sight()) {
            let mut link = Watch::new(secs(0));
            let mut now = 0;
            for (span, sight) in story {
                now += span;
                link.see(Duration::from_millis(100 * now), sight);
            }
            for n in 0..=900 {
                link.see(Duration::from_millis(100 * now) + secs(n), last);
            }
            let plain = match last {
                Sight::There(POOR) => vec![Reach::Degraded],
                Sight::There(FAIR) => vec![Reach::Up, Reach::Degraded],
                Sight::There(_) => vec![Reach::Up],
                Sight::Away => vec![Reach::Down],
                Sight::Denied => vec![Reach::Denied],
                Sight::Silent => vec![Reach::Silent],
                Sight::Held => vec![Reach::Held],
            };
            prop_assert!(plain.contains(&link.reach), "{:?} after {last:?}", link.reach);
            prop_assert_eq!(link.changes_at(), None);
        }
    }
}
