//! Mission chat from a seed: who talks where about what, as events of the mission core.
//!
//! Sizes follow what such channels look like: mostly acknowledgements and single lines, some reports of many lines,
//! a third of the posts in threads, few users who say much and many who say little.

use keys::ProcessMint;
use model::event::{ChannelState, PostPriority, PostState, TeamState, UserState};
use model::{Event, Hlc, HybridClock, Id, IdMint, NodeId, UnixMillis, Version};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The node that captured the corpus.
pub(crate) const NODE: NodeId = NodeId([0x42; 16]);

/// Salt of the process that minted its ids.
pub(crate) const MINT_SALT: u64 = 3;

const USERS: usize = 120;
const CHANNELS: usize = 24;

/// Threads that are still answered in.
const OPEN_THREADS: usize = 40;

/// First moment: 2026-09-14 04:00 UTC.
const BEGIN: UnixMillis = UnixMillis(1_789_358_400_000);

/// An endless mission: first its directory, then posts.
pub(crate) struct Chat {
    rng: ChaCha8Rng,
    mint: ProcessMint,
    hybrid: HybridClock,
    now: UnixMillis,
    users: Vec<(Id, String)>,
    channels: Vec<Id>,
    threads: Vec<(Id, Id)>,
}

impl Chat {
    /// The mission of this seed, and the events that set it up.
    pub(crate) fn begin(seed: u64) -> (Self, Vec<Event>) {
        Self::of(seed, USERS, CHANNELS)
    }

    /// The same with so many users and channels.
    pub(crate) fn of(seed: u64, users: usize, channels: usize) -> (Self, Vec<Event>) {
        let mut chat = Self {
            rng: ChaCha8Rng::seed_from_u64(seed),
            mint: ProcessMint::with_salt(NODE, MINT_SALT),
            hybrid: HybridClock::default(),
            now: BEGIN,
            users: Vec::new(),
            channels: Vec::new(),
            threads: Vec::new(),
        };
        let mut events = Vec::new();
        let team = chat.mint.mint();
        events.push(Event::Team(TeamState {
            version: chat.version(),
            id: team,
            create_at: chat.now,
            update_at: chat.now,
            delete_at: UnixMillis(0),
            name: "tf-north".to_owned(),
            display_name: "Task Force North".to_owned(),
            description: String::new(),
            kind: "I".to_owned(),
            allow_open_invite: false,
        }));
        for n in 0..users {
            let sign = format!("{}{}", pick(&mut chat.rng, CALL_SIGNS), n / CALL_SIGNS.len() * 10 + n % 10);
            let id = chat.mint.mint();
            events.push(Event::User(UserState {
                version: chat.version(),
                id,
                create_at: chat.now,
                update_at: chat.now,
                delete_at: UnixMillis(0),
                username: sign.to_lowercase(),
                email: format!("{}@mission.invalid", sign.to_lowercase()),
                nickname: String::new(),
                first_name: String::new(),
                last_name: sign.clone(),
                position: pick(&mut chat.rng, POSITIONS).to_owned(),
                locale: "en".to_owned(),
                is_bot: false,
                entra: None,
            }));
            chat.users.push((id, sign));
        }
        for n in 0..channels {
            let id = chat.mint.mint();
            let name = format!("{}-{}", pick(&mut chat.rng, TOPICS), n + 1);
            events.push(Event::Channel(ChannelState {
                version: chat.version(),
                id,
                create_at: chat.now,
                update_at: chat.now,
                delete_at: UnixMillis(0),
                team_id: Some(team),
                kind: "O".to_owned(),
                display_name: name.to_uppercase(),
                name,
                header: String::new(),
                purpose: String::new(),
                creator_id: Some(chat.users[0].0),
            }));
            chat.channels.push(id);
        }
        (chat, events)
    }

    /// The next post.
    pub(crate) fn post(&mut self) -> Event {
        // Bursts: half of the posts follow within ten seconds, the rest within five minutes.
        let pause = if self.rng.random_bool(0.5) { 10_000 } else { 300_000 };
        self.now.0 += self.rng.random_range(200..pause);
        let (user, _) = self.skewed_user();
        let reply = (!self.threads.is_empty() && self.rng.random_bool(0.35))
            .then(|| self.threads[self.rng.random_range(0..self.threads.len())]);
        let channel_id = match reply {
            Some((channel, _)) => channel,
            None => self.channels[skewed(&mut self.rng, self.channels.len())],
        };
        let id = self.mint.mint();
        if reply.is_none() && self.rng.random_bool(0.3) {
            if self.threads.len() == OPEN_THREADS {
                self.threads.remove(0);
            }
            self.threads.push((channel_id, id));
        }
        let urgent = reply.is_none() && self.rng.random_bool(0.01);
        Event::Post(PostState {
            version: self.version(),
            id,
            channel_id,
            user_id: user,
            root_id: reply.map(|(_, root)| root),
            create_at: self.now,
            update_at: self.now,
            edit_at: UnixMillis(0),
            delete_at: UnixMillis(0),
            message: self.text(),
            kind: String::new(),
            props: String::new(),
            hashtags: String::new(),
            is_pinned: false,
            files: Vec::new(),
            priority: urgent.then(|| PostPriority {
                priority: "urgent".to_owned(),
                requested_ack: true,
                persistent_notifications: false,
            }),
        })
    }

    fn version(&mut self) -> Version {
        Version { at: self.hybrid.tick(self.now), by: NODE }
    }

    fn skewed_user(&mut self) -> (Id, String) {
        let n = skewed(&mut self.rng, self.users.len());
        self.users[n].clone()
    }

    fn text(&mut self) -> String {
        let me = self.skewed_user().1;
        let other = self.skewed_user().1;
        let (grid, time) = (self.grid(), self.time());
        let rng = &mut self.rng;
        match rng.random_range(0..100) {
            0..30 => {
                let short = pick(rng, SHORT);
                if rng.random_bool(0.4) { format!("{other} {short}") } else { short.to_owned() }
            }
            30..55 => format!(
                "{other} this is {me}, {} at {grid}, {}. {}",
                pick(rng, SEEN),
                pick(rng, DOING),
                pick(rng, NEXT)
            ),
            55..72 => format!("{} {} NLT {time}. {}", pick(rng, TASKS), grid, pick(rng, NEXT)),
            72..86 => format!("@{} {} {}", other.to_lowercase(), pick(rng, QUESTIONS), pick(rng, NEXT)),
            86..94 => {
                format!("{time} {me} {} fuel {}% water {}L bty {}%", pick(rng, STATES), pc(rng), pc(rng), pc(rng))
            }
            94..98 => format!(
                "SITREP {me} {time}\n1. LOC {grid}\n2. ACT {}, {}\n3. PERS {} of {} up\n4. EQPT {}\n5. NEXT {} {}\nACK {other}",
                pick(rng, SEEN),
                pick(rng, DOING),
                rng.random_range(18..32),
                rng.random_range(32..36),
                pick(rng, STATES),
                pick(rng, TASKS),
                grid
            ),
            _ => format!(
                "MEDEVAC 9-LINE {time}\nL1 {grid}\nL2 {}.{:03} {me}\nL3 {} {}\nL4 {}\nL5 {}\nL6 {}\nL7 panel {}\nL8 A\nL9 {}",
                rng.random_range(30..88),
                rng.random_range(0..40) * 25,
                rng.random_range(1..4),
                pick(rng, &["A urgent", "B priority", "C routine"]),
                pick(rng, &["none", "hoist", "ventilator"]),
                pick(rng, &["2 litter", "1 litter 2 walking", "3 walking"]),
                pick(rng, &["no enemy", "possible enemy", "escort required"]),
                pick(rng, &["orange", "red", "VS-17"]),
                pick(rng, &["open field, wires north", "slope 5 deg, dust", "road, wind 240 at 12"])
            ),
        }
    }

    /// A ten-figure grid in one of four squares.
    fn grid(&mut self) -> String {
        let square = pick(&mut self.rng, &["35VLG", "35VMG", "35VLH", "35VMH"]);
        format!("{square} {:05} {:05}", self.rng.random_range(0..100_000), self.rng.random_range(0..100_000))
    }

    /// A date-time group near now.
    fn time(&mut self) -> String {
        let minutes = (self.now.0 - BEGIN.0) / 60_000 + self.rng.random_range(0..240) + 240;
        format!("{:02}{:02}{:02}ZSEP26", 14 + minutes / 1440 % 16, minutes / 60 % 24, minutes % 60)
    }
}

/// The moment of an event, and the clock reading that its outbox row has.
pub(crate) fn when(event: &Event) -> (UnixMillis, Hlc) {
    let at = event.version().at;
    (at.millis(), at)
}

fn pick<'a>(rng: &mut impl Rng, from: &[&'a str]) -> &'a str {
    from[rng.random_range(0..from.len())]
}

fn pc(rng: &mut impl Rng) -> u32 {
    rng.random_range(5..100)
}

/// Low numbers much more often than high ones.
fn skewed(rng: &mut impl Rng, len: usize) -> usize {
    let x: f64 = rng.random_range(0.0..1.0);
    ((x * x * x) * len as f64) as usize
}

const CALL_SIGNS: &[&str] = &[
    "Anvil", "Badger", "Cobalt", "Dagger", "Ember", "Falcon", "Granite", "Hammer", "Iceman", "Javelin", "Kestrel",
    "Lancer", "Mustang", "Nomad", "Outlaw", "Pilgrim", "Quartz", "Raven", "Saber", "Talon", "Umbra", "Viking",
    "Warden", "Yeoman",
];
const POSITIONS: &[&str] = &["S2", "S3", "S4", "S6", "JTAC", "Platoon leader", "Medic", "Battle captain", "Liaison"];
const TOPICS: &[&str] = &["ops", "intel", "fires", "log", "medevac", "air", "signal", "cmd"];
const SHORT: &[&str] = &[
    "roger",
    "copy",
    "copy all",
    "wilco",
    "rgr out",
    "ack",
    "say again",
    "standby",
    "negative",
    "affirm",
    "on the move",
    "RP set",
    "radio check, over",
    "lima charlie",
    "good copy",
    "wait one",
    "checkpoint 3",
    "complete",
    "thx",
    "in position",
];
const SEEN: &[&str] = &[
    "2x T-72 stationary",
    "dismounts x6 moving east",
    "white pickup, 3 pax",
    "quadcopter overhead",
    "nothing significant",
    "bridge intact",
    "bridge damaged, foot only",
    "civilian column, approx 40",
    "1x BMP under camo net",
    "smoke from treeline",
    "route blocked by felled trees",
    "mortar impact 300m south",
    "EW jamming on primary",
    "friendly convoy passing",
];
const DOING: &[&str] = &[
    "observing",
    "breaking contact",
    "holding",
    "continuing to PL BLUE",
    "setting hasty OP",
    "cross-loading casualties",
    "requesting ISR",
    "going firm",
    "conducting resupply",
    "moving to alternate",
    "recovering vehicle",
];
const NEXT: &[&str] = &[
    "Will update.",
    "Next report in 30 mikes.",
    "How copy?",
    "Request guidance.",
    "No change to ROE.",
    "Over.",
    "Expect degraded comms until BMNT.",
    "Switching to alternate net.",
    "QRF on 15 min NTM.",
    "Ack when read.",
    "Photos to follow when link allows.",
    "Charlie Mike.",
];
const TASKS: &[&str] = &[
    "Establish TCP vicinity",
    "Occupy BP 4 at",
    "Clear route AMBER to",
    "Link up with LNO at",
    "Push CL III to",
    "Prepare HLZ at",
    "Screen northern flank from",
    "Move CCP to",
    "Emplace relay at",
    "Recover UAS near",
];
const QUESTIONS: &[&str] = &[
    "confirm your LOC and strength?",
    "can you support a push of 40 litres JP8?",
    "what is your ETA at the LRP?",
    "did the relay on hill 214 come up?",
    "any change on the crossing site?",
    "who has the frag order v3?",
    "is the SAT window still at 1400?",
    "do you have eyes on the bridge?",
    "how many litters can you take?",
];
const STATES: &[&str] =
    &["GREEN", "AMBER", "AMBER ammo", "RED bty", "GREEN all", "AMBER veh 2 down", "GREEN, comms intermittent"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_tells_the_same_mission() {
        let talk = |seed| {
            let (mut chat, setup) = Chat::begin(seed);
            (setup, (0..50).map(|_| chat.post()).collect::<Vec<_>>())
        };
        assert_eq!(talk(1), talk(1));
        assert_ne!(talk(1).1, talk(2).1);
    }
}
