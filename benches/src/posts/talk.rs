//! What a mission's people write to each other, from a seed: acknowledgements, single lines, questions and answers in
//! threads, reports with grids, times, frequencies and numbers, typed by people in a hurry.
//!
//! Sentences are put together word by word, so that they hold about as much as people's do: solid zstd -19 leaves a quarter
//! to a third of them, as of real chat.

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// An endless conversation: only texts, and who says them where.
pub(crate) struct Talk {
    rng: ChaCha8Rng,
    minutes: u32,
}

/// One thing said.
pub(crate) struct Line {
    pub(crate) text: String,
    /// Who says it.
    pub(crate) author: usize,
    /// Where.
    pub(crate) channel: usize,
    /// An answer to something said lately.
    pub(crate) is_reply: bool,
    /// Since what was said before.
    pub(crate) pause_ms: i64,
}

/// People who write: few say much and many say little.
pub(crate) const AUTHORS: usize = 60;

/// Channels they write in, used as unevenly.
pub(crate) const CHANNELS: usize = 12;

impl Talk {
    /// The conversation of this seed.
    pub(crate) fn begin(seed: u64) -> Self {
        Self { rng: ChaCha8Rng::seed_from_u64(seed), minutes: 9 * 60 }
    }

    /// What is said next.
    pub(crate) fn line(&mut self) -> Line {
        let rng = &mut self.rng;
        // Bursts: half of the lines follow within twelve seconds, the rest within five minutes.
        let pause_ms =
            if rng.random_bool(0.5) { rng.random_range(400..12_000) } else { rng.random_range(12_000..300_000) };
        let (author, channel) = (uneven(rng, AUTHORS), uneven(rng, CHANNELS));
        let is_reply = rng.random_bool(0.4);
        self.minutes += u32::try_from(pause_ms / 30_000).unwrap_or(0);
        Line { text: self.text(is_reply), author, channel, is_reply, pause_ms }
    }

    fn text(&mut self, is_reply: bool) -> String {
        let text = match self.rng.random_range(0..100) {
            0..18 if is_reply => self.pick(ANSWERS).to_owned(),
            0..10 => self.pick(ANSWERS).to_owned(),
            10..56 => self.remark(),
            56..70 => self.question(),
            70..81 => self.sighting(),
            81..90 => self.order(),
            90..96 => self.status(),
            _ => self.report(),
        };
        self.typed(text)
    }

    /// A plain sentence, said in no fixed form.
    fn remark(&mut self) -> String {
        let who = match self.rng.random_range(0..3) {
            0 => self.thing(),
            1 => self.sign(),
            _ => self.pick(WHO).to_owned(),
        };
        let mut text = format!("{who} {} {}", self.pick(DID), self.thing());
        if self.rng.random_bool(0.7) {
            text = format!("{text} {} {}", self.pick(WHERE_WHEN), self.thing());
        }
        match self.rng.random_range(0..5) {
            0..=1 => format!("{text}, {}", self.pick(ASIDES)),
            2 => format!("{text} and {} {}", self.pick(DID), self.thing()),
            _ => text,
        }
    }

    /// A noun with or without something before it.
    fn thing(&mut self) -> String {
        let noun = self.pick(NOUNS);
        match self.rng.random_range(0..6) {
            0 => format!("{} {noun}", self.rng.random_range(2..60)),
            1 => format!("the {} {noun}", self.pick(ADJECTIVES)),
            2..=3 => format!("{} {noun}", self.pick(ADJECTIVES)),
            4 => format!("our {noun}"),
            _ => format!("the {noun}"),
        }
    }

    fn question(&mut self) -> String {
        let text = format!("{} {}", self.pick(ASK), self.thing());
        let tail = match self.rng.random_range(0..3) {
            0 => format!(" {} {}", self.pick(WHERE_WHEN), self.thing()),
            1 => format!(" {}", self.time()),
            _ => String::new(),
        };
        if self.rng.random_bool(0.5) {
            format!("@{} {text}{tail}?", self.sign().to_lowercase())
        } else {
            format!("{text}{tail}?")
        }
    }

    fn sighting(&mut self) -> String {
        let n = self.rng.random_range(1..9);
        let (seen, grid) = (self.pick(SEEN), self.grid());
        match self.rng.random_range(0..3) {
            0 => format!("{n} {seen} {grid} heading {:03}", self.rng.random_range(0..36) * 10),
            1 => format!("{} sees {n} {seen} vic {}", self.sign(), self.pick(PLACES)),
            _ => format!("{seen} at {grid} by {}, {}", self.thing(), self.pick(ASIDES)),
        }
    }

    fn order(&mut self) -> String {
        let (sign, verb, place) = (self.sign(), self.pick(VERBS), self.pick(PLACES));
        match self.rng.random_range(0..3) {
            0 => format!("{sign} {verb} {place} by {}", self.time()),
            1 => format!("{sign} {verb} {} {} {}", self.thing(), self.pick(WHERE_WHEN), self.thing()),
            _ => format!("{verb} {place}, {} with {}", self.pick(ASIDES), self.thing()),
        }
    }

    fn status(&mut self) -> String {
        let (sign, n) = (self.sign(), self.rng.random_range(4..98));
        match self.rng.random_range(0..4) {
            0 => format!("{sign} {} {n}, {} {}", self.pick(STOCK), self.pick(STOCK), self.rng.random_range(2..240)),
            1 => format!(
                "{} {}.{:03} {}",
                self.pick(NETS),
                self.rng.random_range(31..88),
                self.rng.random_range(0..40) * 25,
                self.pick(ASIDES)
            ),
            2 => format!("{sign} now {} {}", self.grid(), self.time()),
            _ => format!("{} {n} pct, {}", self.pick(STOCK), self.pick(ASIDES)),
        }
    }

    fn report(&mut self) -> String {
        let lines: Vec<String> = (0..self.rng.random_range(2..5)).map(|_| self.status()).collect();
        format!("{} {}\n{}", self.pick(REPORTS), self.time(), lines.join("\n"))
    }

    /// As thumbs do it: most of it small, some of it short, some of it wrong.
    fn typed(&mut self, text: String) -> String {
        let mut text = if self.rng.random_bool(0.5) { sentence(&text) } else { text };
        if self.rng.random_bool(0.06) && text.len() > 12 {
            let at = self.rng.random_range(4..text.len() - 4);
            text.remove(at);
        }
        if self.rng.random_bool(0.2) {
            text.push(if self.rng.random_bool(0.7) { '.' } else { '!' });
        }
        text
    }

    fn sign(&mut self) -> String {
        let n = skewed(&mut self.rng, SIGNS.len());
        format!("{}{}", SIGNS[n], self.rng.random_range(1..8))
    }

    /// Eight or ten figures, mostly near where the others are.
    fn grid(&mut self) -> String {
        let square = self.pick(&["44SKC", "44SLC", "44SKD"]);
        let (east, north) = (self.rng.random_range(2_000..9_000), self.rng.random_range(1_000..7_000));
        if self.rng.random_bool(0.7) {
            format!("{square} {east:04} {north:04}")
        } else {
            format!("{square}{east:04}{}{north:04}{}", self.rng.random_range(0..10), self.rng.random_range(0..10))
        }
    }

    fn time(&mut self) -> String {
        let at = self.minutes + self.rng.random_range(0..120);
        let (day, hour, minute) = (3 + at / 1_440 % 25, at / 60 % 24, at % 60);
        if self.rng.random_bool(0.7) {
            format!("{hour:02}{minute:02}")
        } else {
            format!("{day:02}{hour:02}{minute:02}D")
        }
    }

    fn pick(&mut self, from: &[&'static str]) -> &'static str {
        from[skewed(&mut self.rng, from.len())]
    }
}

fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().collect::<String>() + chars.as_str())
}

/// Low numbers much more often than high ones.
fn uneven(rng: &mut impl Rng, len: usize) -> usize {
    let x: f64 = rng.random_range(0.0..1.0);
    (x * x * len as f64) as usize
}

/// Low numbers a little more often than high ones.
fn skewed(rng: &mut impl Rng, len: usize) -> usize {
    let x: f64 = rng.random_range(0.0..1.0);
    (x.powf(1.15) * len as f64) as usize
}

/// Everything of more than one common word, and the names: none of it stands in the text that links without history refer to.
#[cfg(test)]
pub(crate) fn own_phrases() -> impl Iterator<Item = &'static str> {
    let lists = [SIGNS, PLACES, ANSWERS, WHO, DID, ASIDES, ASK, SEEN, NETS, REPORTS];
    lists.into_iter().flatten().copied().filter(|phrase| phrase.len() >= 9 || SIGNS.contains(phrase))
}

const SIGNS: &[&str] = &[
    "Heron",
    "Lynx",
    "Osprey",
    "Bison",
    "Marten",
    "Puma",
    "Otter",
    "Condor",
    "Viper",
    "Stork",
    "Jackal",
    "Gannet",
    "Wolverine",
    "Ibex",
    "Magpie",
    "Tapir",
    "Cormorant",
    "Dingo",
    "Egret",
    "Ferret",
];
const PLACES: &[&str] = &[
    "the quarry",
    "old mill",
    "village Tarsa",
    "OBJ MAPLE",
    "PL WALNUT",
    "route CEDAR",
    "the ford",
    "Kharvand school",
    "water tower",
    "north gate",
    "crossroads 17",
    "the orchard",
    "LZ SPARROW",
    "depot Belun",
    "hill 388",
    "the culvert",
    "CP BIRCH",
    "Sorrin pass",
    "the dam",
    "east ridge",
    "Yamchi bazaar",
    "pump station",
    "HLZ FINCH",
    "the mosque",
];
const ANSWERS: &[&str] = &[
    "ok",
    "got it",
    "will do",
    "yes",
    "nope",
    "understood",
    "thanks",
    "on it",
    "give me 5",
    "same here",
    "done",
    "no joy",
    "looks good",
    "moving now",
    "not yet",
    "say when",
    "tracking",
    "sure thing",
    "who else has this",
    "agree",
    "hold that",
    "checking",
    "cant hear you",
    "sent",
    "see above",
    "later, busy",
    "two mins",
    "ready",
    "yup all good",
    "pls repeat",
];
const WHO: &[&str] = &[
    "we",
    "they",
    "the second vehicle",
    "the engineers",
    "our interpreter",
    "the mayor",
    "the drone team",
    "supply",
    "the night shift",
    "the recce guys",
    "somebody",
    "the doctor",
    "the liaison",
    "my driver",
    "the police chief",
    "third squad",
    "a shepherd",
    "the tanker",
    "the relief",
    "locals",
    "the mechanic",
    "the colonel",
    "nobody",
    "the cook",
    "the other platoon",
    "a kid",
    "the watch",
    "the signaller",
    "the new guy",
    "both trucks",
];
const DID: &[&str] = &[
    "lost",
    "found",
    "just passed",
    "will bring",
    "still need",
    "asked about",
    "is fixing",
    "can take",
    "left behind",
    "has seen",
    "is waiting for",
    "reported",
    "forgot",
    "picked up",
    "is loading",
    "wants",
    "cannot reach",
    "checked",
    "moved",
    "are guarding",
    "broke",
    "is out of",
    "promised",
    "will swap",
    "heard",
    "counted",
    "set up",
    "took over",
    "is missing",
    "has no room for",
    "says no to",
    "is happy with",
    "turned back from",
    "have cleared",
    "handed over",
];
const NOUNS: &[&str] = &[
    "wheel",
    "jerrycans",
    "mast",
    "generator",
    "keys",
    "photos",
    "water",
    "patrol",
    "marker",
    "freqs",
    "stretcher",
    "laptop",
    "goggles",
    "roadblock",
    "sandbags",
    "herder",
    "tow bar",
    "rations",
    "sketch",
    "elders",
    "escort",
    "batteries",
    "fill",
    "puncture",
    "receipt",
    "blood",
    "cutters",
    "camera",
    "opinion",
    "list",
    "code",
    "chains",
    "winch",
    "parcel",
    "footage",
    "cards",
    "manifest",
    "update",
    "tripwire",
    "drum",
    "view",
    "interpreter",
    "inventory",
    "permission",
    "weather",
    "landing lights",
    "screen",
    "map",
    "quarry",
    "ford",
    "school",
    "mill",
    "pass",
    "tent",
    "relief",
    "pump",
    "station",
    "depot",
    "dam",
    "tower",
    "fog",
    "meeting",
    "truck",
    "trailer",
    "ambulance",
    "fence",
    "helmet",
    "boots",
    "blankets",
    "kettle",
    "stove",
    "roof",
    "cellar",
    "window",
    "ladder",
    "shovel",
    "rope",
    "harness",
    "crane",
    "ramp",
    "barrier",
    "phone",
    "charger",
    "solar panel",
    "inverter",
    "fuse",
    "cable",
    "plug",
    "socket",
    "screws",
    "toolbox",
    "gasket",
    "radiator",
    "clutch",
    "gearbox",
    "brakes",
    "axle",
    "mirror",
    "bonnet",
    "exhaust",
    "filter",
    "hose",
    "valve",
    "tank",
    "goats",
    "market",
    "clinic",
    "nurse",
    "vaccine",
    "bandages",
    "morphine",
    "splint",
    "crutches",
    "drip",
    "oxygen",
    "barge",
    "ferry",
    "pontoon",
    "raft",
    "anchor",
    "buoy",
    "net",
    "crate",
    "pallet",
    "forklift",
    "container",
    "seal",
    "guard",
    "dog",
    "handler",
    "leash",
    "kennel",
    "siren",
    "lamp",
    "torch",
    "candle",
    "matches",
    "firewood",
    "smoke",
    "letter",
    "stamp",
    "ledger",
    "invoice",
    "passport",
    "badge",
    "roster",
    "shift",
    "briefing",
    "slides",
    "projector",
    "printer",
    "toner",
    "paper",
    "pen",
    "notebook",
    "timetable",
    "detour",
    "bypass",
    "gravel",
    "tarmac",
    "ditch",
    "bank",
];
const ADJECTIVES: &[&str] = &[
    "spare",
    "second",
    "broken",
    "new",
    "old",
    "red",
    "blue",
    "heavy",
    "wet",
    "frozen",
    "empty",
    "full",
    "rusty",
    "left",
    "right",
    "front",
    "rear",
    "small",
    "big",
    "long",
    "short",
    "loud",
    "quiet",
    "wrong",
    "correct",
    "lost",
    "last",
    "next",
    "northern",
    "muddy",
    "narrow",
    "steep",
    "hidden",
    "burnt",
    "borrowed",
    "leaking",
    "loose",
    "tight",
    "bent",
    "sealed",
    "expired",
    "foreign",
    "local",
    "wooden",
    "plastic",
    "steel",
    "yellow",
    "grey",
    "damaged",
    "half-empty",
];
const WHERE_WHEN: &[&str] = &[
    "near",
    "at",
    "behind",
    "by",
    "over",
    "in",
    "with",
    "from",
    "under",
    "next to",
    "because of",
    "instead of",
    "without",
    "south of",
    "north of",
    "past",
    "before",
    "after",
    "until we get",
    "on top of",
    "for",
    "like",
    "along",
    "around",
    "together with",
    "across from",
    "thanks to",
    "opposite",
    "inside",
    "below",
];
const ASIDES: &[&str] = &[
    "no rush",
    "careful there",
    "be quick",
    "tell the boss",
    "as agreed",
    "dont wait for us",
    "engines off",
    "lights out",
    "road is icy",
    "dogs around",
    "mud everywhere",
    "keep it quiet",
    "kids nearby",
    "very dusty",
    "still warm",
    "not confirmed",
    "looks abandoned",
    "one is limping",
    "good spot",
    "signal is weak there",
    "visibility 200m",
    "could be nothing",
    "armed i think",
    "stay left",
    "plan B then",
    "will call back",
    "same as yesterday",
    "bring rope",
    "more to come",
];
const ASK: &[&str] = &[
    "who has",
    "where is",
    "anyone seen",
    "can you bring",
    "do we have",
    "did you get",
    "when do we get",
    "who is taking",
    "should i send",
    "is there still",
    "why is nobody using",
    "how many have",
    "any news on",
    "can somebody check",
    "has anybody signed for",
    "need help with",
    "what happened to",
    "is it ok to leave",
    "who asked for",
    "shall we move",
];
const SEEN: &[&str] = &[
    "pickups",
    "men on foot",
    "motorbikes",
    "trucks with tarps",
    "tents",
    "tracked vehicles",
    "boats",
    "riders",
    "small drones",
    "campfires",
    "muzzle flashes",
    "technicals",
    "fresh tracks",
    "women and children",
    "donkeys with loads",
    "flares",
];
const VERBS: &[&str] = &[
    "go to",
    "wait at",
    "search",
    "avoid",
    "watch",
    "hold",
    "meet us at",
    "drop off at",
    "pull back to",
    "cover",
    "block",
    "mark",
    "photograph",
    "report from",
    "cross at",
    "stay off",
    "resupply",
];
const STOCK: &[&str] = &[
    "diesel",
    "water",
    "7.62",
    "5.56",
    "MREs",
    "batteries",
    "medkits",
    "oil",
    "frag",
    "smoke",
    "tyres",
    "link",
    "cash",
    "O2",
];
const NETS: &[&str] = &["admin net", "air net", "alt freq", "medic net", "fires net", "convoy net", "data link"];
const REPORTS: &[&str] = &["EVENING ROUNDUP", "STOCK LIST", "GUARD LOG", "TRANSPORT PLAN", "PATROL BRIEF"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_says_the_same_and_a_line_has_some_48_bytes() {
        let say = |seed| {
            let mut talk = Talk::begin(seed);
            (0..4_000).map(|_| talk.line().text).collect::<Vec<_>>()
        };
        let texts = say(1);
        assert_eq!(texts, say(1));
        assert_ne!(texts, say(2));
        let mean = texts.iter().map(String::len).sum::<usize>() as f64 / texts.len() as f64;
        assert!((42.0..=52.0).contains(&mean), "{mean} bytes");
    }
}
