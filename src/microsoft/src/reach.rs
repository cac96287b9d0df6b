//! Is Microsoft 365 reachable? What probes and real calls showed, with hysteresis. Pure: time and jitter are arguments.
//!
//! ```text
//!            2 of 3 good                 2 of 5 bad               4 of 5 bad
//!  probing --------------> up --------------------------> degraded ----------> down
//!     ^  `-- 2 of 3 bad --> down                           |  4 of 5 good       |
//!     |                      |                             `-----------> up     |
//!     `----------- 1 good ---'<-------------------------------------------------'
//! ```
//! A good probe is an answer that only the real service gives: neither a connection nor a name proves anything, and a page
//! of a captive portal is a bad one.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use model::UnixMillis;
use serde::Serialize;
use telemetry::{MicrosoftDestination, MicrosoftReach, MicrosoftService};

/// What is looked back on.
const WINDOW: usize = 5;

/// Between probes while the state may change soon.
const HURRY: Duration = Duration::from_secs(10);

/// A destination that stays down is probed this many times less often at most.
const BACKOFF_MAX: u32 = 5;

/// Whether sending is allowed again is looked at this often; nothing is sent for it.
const HELD_LOOK: Duration = Duration::from_secs(5);

/// Faults of one service in a row before its calls are held back, and for how long: doubles up to the second.
const CIRCUIT_FAULTS: u32 = 4;
const CIRCUIT_OPEN: Duration = Duration::from_secs(15);
const CIRCUIT_OPEN_MAX: Duration = Duration::from_secs(300);

/// What one probe or call showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// The real service answered.
    Good,
    /// It did not, for this reason.
    Bad(String),
    /// Nothing may leave, for this reason: says nothing about the service.
    Held(String),
}

/// One destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Destination {
    /// What it is found to be.
    #[serde(serialize_with = "as_text")]
    pub state: MicrosoftReach,
    /// Since when.
    pub since: UnixMillis,
    /// When the real service last answered.
    pub last_good: Option<UnixMillis>,
    /// Why it is not up.
    pub why: Option<String>,
}

/// One service behind Graph, by what became of calls to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ServiceState {
    /// Faults in a row.
    pub faults: u32,
    /// Its calls are held back until then.
    pub held_until: Option<UnixMillis>,
}

/// Everything that is known of the way to Microsoft 365.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reach {
    /// Entra ID.
    pub entra: Destination,
    /// Microsoft Graph.
    pub graph: Destination,
    /// Services behind Graph that have been called.
    pub services: BTreeMap<&'static str, ServiceState>,
    /// By how many seconds Microsoft's clock is ahead of this node's.
    pub clock_ahead_seconds: Option<i64>,
    /// Why the application gets no token, if it does not.
    pub sign_in: Option<String>,
}

impl Reach {
    /// May delivery run? It stops when Graph is down, and does not begin before it was seen to be up.
    pub fn may_deliver(&self) -> bool {
        let works = |d: &Destination| matches!(d.state, MicrosoftReach::Up | MicrosoftReach::Degraded);
        works(&self.graph) && works(&self.entra)
    }
}

fn as_text<S: serde::Serializer>(state: &MicrosoftReach, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(state.as_str())
}

/// The state of one destination over time.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    every: Duration,
    state: MicrosoftReach,
    since: UnixMillis,
    last_good: Option<UnixMillis>,
    why: Option<String>,
    /// The newest last; emptied when the state changes, so that each state is left for what was seen in it.
    window: VecDeque<bool>,
    bad_in_a_row: u32,
    held: bool,
    due: Duration,
}

impl Machine {
    /// Nothing is known; the first probe is due at once.
    pub(crate) fn new(every: Duration, now: Duration, wall: UnixMillis) -> Self {
        Self {
            every,
            state: MicrosoftReach::Probing,
            since: wall,
            last_good: None,
            why: Some("not probed yet".to_owned()),
            window: VecDeque::new(),
            bad_in_a_row: 0,
            held: false,
            due: now,
        }
    }

    /// When the next probe is due.
    pub(crate) fn due(&self) -> Duration {
        self.due
    }

    pub(crate) fn state(&self) -> MicrosoftReach {
        self.state
    }

    pub(crate) fn shown(&self) -> Destination {
        Destination { state: self.state, since: self.since, last_good: self.last_good, why: self.why.clone() }
    }

    /// Takes note of what was seen, and plans the next probe. `jitter` in `0..1`. Says whether the state changed.
    pub(crate) fn note(&mut self, evidence: Evidence, now: Duration, wall: UnixMillis, jitter: f64) -> bool {
        let before = self.state;
        match evidence {
            Evidence::Held(why) => {
                self.why = Some(why);
                self.held = true;
                self.window.clear();
                self.enter(MicrosoftReach::Down, wall);
                self.due = now + HELD_LOOK;
                return self.state != before;
            }
            Evidence::Good => {
                self.last_good = Some(wall);
                self.bad_in_a_row = 0;
                self.look(true);
            }
            // Calls that had passed before it was down show nothing new, and would put off the next probe.
            Evidence::Bad(_) if self.state == MicrosoftReach::Down && !self.held && now < self.due => return false,
            Evidence::Bad(why) => {
                self.why = Some(why);
                self.bad_in_a_row = self.bad_in_a_row.saturating_add(1);
                self.look(false);
            }
        }
        self.held = false;
        let good = self.window.iter().filter(|good| **good).count();
        let bad = self.window.len() - good;
        let next = match self.state {
            MicrosoftReach::Probing if good >= 2 => MicrosoftReach::Up,
            MicrosoftReach::Probing if bad >= 2 => MicrosoftReach::Down,
            MicrosoftReach::Up if bad >= 2 => MicrosoftReach::Degraded,
            MicrosoftReach::Degraded if bad >= 4 => MicrosoftReach::Down,
            MicrosoftReach::Degraded if good >= 4 => MicrosoftReach::Up,
            MicrosoftReach::Down if good >= 1 => MicrosoftReach::Probing,
            MicrosoftReach::Probing | MicrosoftReach::Up | MicrosoftReach::Degraded | MicrosoftReach::Down => {
                self.state
            }
        };
        if next == MicrosoftReach::Down && next != self.state {
            // However many calls met it: a pause of seconds is over with the next probe.
            self.bad_in_a_row = 0;
        }
        self.enter(next, wall);
        if self.state == MicrosoftReach::Up {
            self.why = None;
        }
        self.due = now + self.pause().mul_f64(0.8 + 0.4 * jitter.clamp(0.0, 1.0));
        self.state != before
    }

    /// Is it down because nothing may leave?
    pub(crate) fn is_held(&self) -> bool {
        self.held
    }

    fn look(&mut self, good: bool) {
        self.window.push_back(good);
        if self.window.len() > WINDOW {
            self.window.pop_front();
        }
    }

    fn enter(&mut self, next: MicrosoftReach, wall: UnixMillis) {
        if next == self.state {
            return;
        }
        // What brought it to probing counts there: two good ones are enough from the first on.
        let kept = match next {
            MicrosoftReach::Probing | MicrosoftReach::Degraded => self.window.drain(..).next_back(),
            MicrosoftReach::Up | MicrosoftReach::Down => None,
        };
        self.window.clear();
        self.window.extend(kept);
        self.state = next;
        self.since = wall;
    }

    fn pause(&self) -> Duration {
        match self.state {
            MicrosoftReach::Probing | MicrosoftReach::Degraded => self.every.min(HURRY),
            MicrosoftReach::Up if self.window.back() == Some(&false) => self.every.min(HURRY),
            MicrosoftReach::Up => self.every,
            MicrosoftReach::Down if self.bad_in_a_row == 0 => self.every.min(HURRY),
            MicrosoftReach::Down => self.every * self.bad_in_a_row.min(BACKOFF_MAX),
        }
    }
}

/// Holds back calls to a service that fails while Graph itself answers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Circuit {
    faults: u32,
    open_until: Option<Duration>,
}

impl Circuit {
    /// Until when calls are held back; `None`: they may go.
    pub(crate) fn held_until(&self, now: Duration) -> Option<Duration> {
        self.open_until.filter(|until| *until > now)
    }

    /// A call to the service was answered, or met a fault of it.
    pub(crate) fn note(&mut self, well: bool, now: Duration) {
        if well {
            *self = Self::default();
            return;
        }
        self.faults = self.faults.saturating_add(1);
        if self.faults >= CIRCUIT_FAULTS {
            let times = 1 << (self.faults - CIRCUIT_FAULTS).min(8);
            self.open_until = Some(now + CIRCUIT_OPEN.saturating_mul(times).min(CIRCUIT_OPEN_MAX));
        }
    }
}

/// All of it.
pub(crate) struct Watch {
    pub(crate) entra: Machine,
    pub(crate) graph: Machine,
    circuits: BTreeMap<MicrosoftService, Circuit>,
    pub(crate) sign_in: Option<String>,
}

impl Watch {
    pub(crate) fn new(every: Duration, now: Duration, wall: UnixMillis) -> Self {
        let machine = Machine::new(every, now, wall);
        Self { entra: machine.clone(), graph: machine, circuits: BTreeMap::new(), sign_in: None }
    }

    pub(crate) fn machine(&mut self, destination: MicrosoftDestination) -> &mut Machine {
        match destination {
            MicrosoftDestination::Entra => &mut self.entra,
            MicrosoftDestination::Graph => &mut self.graph,
        }
    }

    pub(crate) fn circuit(&mut self, service: MicrosoftService) -> &mut Circuit {
        self.circuits.entry(service).or_default()
    }

    /// For people and for whoever waits. `wall_of` tells the wall time of a moment.
    pub(crate) fn shown(&self, now: Duration, ahead: Option<i64>, wall_of: impl Fn(Duration) -> UnixMillis) -> Reach {
        let state = |c: &Circuit| ServiceState { faults: c.faults, held_until: c.held_until(now).map(&wall_of) };
        Reach {
            entra: self.entra.shown(),
            graph: self.graph.shown(),
            services: self.circuits.iter().map(|(service, c)| (service.as_str(), state(c))).collect(),
            clock_ahead_seconds: ahead,
            sign_in: self.sign_in.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_secs(60);

    fn machine() -> Machine {
        Machine::new(EVERY, Duration::ZERO, UnixMillis(0))
    }

    /// Feeds `+` for good, `-` for bad, each when it is due; says the state after each.
    fn run(machine: &mut Machine, seen: &str) -> Vec<&'static str> {
        let mut after = Vec::new();
        for what in seen.chars() {
            let evidence = if what == '+' { Evidence::Good } else { Evidence::Bad("no".to_owned()) };
            let now = machine.due();
            machine.note(evidence, now, UnixMillis(now.as_millis() as i64), 0.5);
            after.push(machine.state().as_str());
        }
        after
    }

    #[test]
    fn it_takes_two_good_probes_to_be_up_and_one_bad_one_changes_nothing() {
        let mut machine = machine();
        assert_eq!(run(&mut machine, "++"), ["probing", "up"]);
        assert_eq!(run(&mut machine, "-++++-++++"), ["up"; 10]);
    }

    #[test]
    fn a_destination_that_fails_is_degraded_and_then_down() {
        let mut machine = machine();
        run(&mut machine, "++");
        assert_eq!(run(&mut machine, "-----"), ["up", "degraded", "degraded", "degraded", "down"]);
        assert_eq!(machine.shown().why.as_deref(), Some("no"));
        assert_eq!(run(&mut machine, "+-+"), ["probing", "probing", "up"]);
    }

    #[test]
    fn it_does_not_flap_when_every_second_probe_fails() {
        let mut machine = machine();
        run(&mut machine, "++");
        let states = run(&mut machine, &"-+".repeat(50));
        let changes = states.windows(2).filter(|pair| pair[0] != pair[1]).count();
        assert_eq!((changes, states.last()), (1, Some(&"degraded")));
    }

    #[test]
    fn a_destination_that_stays_down_is_probed_less_and_less_and_at_once_again_when_it_answers() {
        let mut machine = machine();
        run(&mut machine, "--");
        assert_eq!(machine.state(), MicrosoftReach::Down);
        let mut waits = Vec::new();
        for _ in 0..8 {
            let now = machine.due();
            machine.note(Evidence::Bad("no".to_owned()), now, UnixMillis(0), 0.5);
            waits.push((machine.due() - now).as_secs());
        }
        assert_eq!(waits, [60, 120, 180, 240, 300, 300, 300, 300]);
        let now = machine.due();
        machine.note(Evidence::Good, now, UnixMillis(0), 0.5);
        assert_eq!(machine.due() - now, HURRY);
    }

    #[test]
    fn many_calls_that_are_lost_at_once_stop_delivery_for_seconds() {
        let mut machine = machine();
        run(&mut machine, "++");
        let now = machine.due();
        for call in 0..20 {
            let at = now + Duration::from_millis(100 * call);
            machine.note(Evidence::Bad("no".to_owned()), at, UnixMillis(0), 0.5);
        }
        assert_eq!(machine.state(), MicrosoftReach::Down);
        let wait = machine.due() - now;
        assert!(wait <= HURRY + Duration::from_secs(1), "{wait:?}");
        assert_eq!(run(&mut machine, "++"), ["probing", "up"]);
    }

    #[test]
    fn probes_of_many_nodes_do_not_come_together() {
        let mut waits = Vec::new();
        for jitter in [0.0, 0.5, 1.0] {
            let mut machine = machine();
            run(&mut machine, "++");
            let now = machine.due();
            machine.note(Evidence::Good, now, UnixMillis(0), jitter);
            waits.push((machine.due() - now).as_secs());
        }
        assert_eq!(waits, [48, 60, 72]);
    }

    #[test]
    fn silence_brings_it_down_without_a_probe_and_its_end_is_noticed_soon() {
        let mut machine = machine();
        run(&mut machine, "++");
        let now = machine.due();
        assert!(machine.note(Evidence::Held("emission control".to_owned()), now, UnixMillis(0), 0.5));
        assert_eq!((machine.state(), machine.due() - now), (MicrosoftReach::Down, HELD_LOOK));
        assert_eq!(run(&mut machine, "++"), ["probing", "up"]);
    }

    #[test]
    fn a_service_that_fails_is_left_alone_and_tried_again() {
        let mut circuit = Circuit::default();
        let mut now = Duration::from_secs(100);
        for _ in 0..3 {
            circuit.note(false, now);
        }
        assert_eq!(circuit.held_until(now), None);
        let mut held = Vec::new();
        for _ in 0..7 {
            circuit.note(false, now);
            let until = circuit.held_until(now).unwrap();
            held.push((until - now).as_secs());
            now = until;
            assert_eq!(circuit.held_until(now), None, "one may try");
        }
        assert_eq!(held, [15, 30, 60, 120, 240, 300, 300]);
        circuit.note(true, now);
        circuit.note(false, now);
        assert_eq!(circuit.held_until(now), None, "it begins anew after a success");
    }
}
