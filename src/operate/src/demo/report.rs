//! What the demo found out, for people and for programs.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use model::Precedence;
use serde::Serialize;

/// Where every entry that one side accepted for the other stands.
///
/// `accepted = applied + held + quarantined + expired + superseded + withheld + purged`, at every moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Ledger {
    /// Committed in this side's core.
    pub accepted: u64,
    /// Took effect at the other side, with its receipt here.
    pub applied: u64,
    /// Not yet.
    pub held: u64,
    /// The other side could not apply it and kept it aside.
    pub quarantined: u64,
    /// Its time ran out before it was sent.
    pub expired: u64,
    /// A newer state made it moot before it was sent.
    pub superseded: u64,
    /// Policy keeps it here.
    pub withheld: u64,
    /// Its content was removed on order.
    pub purged: u64,
}

impl Ledger {
    /// Does the equation hold?
    pub fn balances(&self) -> bool {
        self.accepted
            == self.applied
                + self.held
                + self.quarantined
                + self.expired
                + self.superseded
                + self.withheld
                + self.purged
    }

    fn plus(self, other: Self) -> Self {
        Self {
            accepted: self.accepted + other.accepted,
            applied: self.applied + other.applied,
            held: self.held + other.held,
            quarantined: self.quarantined + other.quarantined,
            expired: self.expired + other.expired,
            superseded: self.superseded + other.superseded,
            withheld: self.withheld + other.withheld,
            purged: self.purged + other.purged,
        }
    }
}

impl std::fmt::Display for Ledger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} accepted = {} applied + {} held + {} quarantined + {} expired + {} superseded + {} withheld + {} purged",
            self.accepted,
            self.applied,
            self.held,
            self.quarantined,
            self.expired,
            self.superseded,
            self.withheld,
            self.purged
        )
    }
}

/// What of one class waits to be sent or confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Waiting {
    /// The class.
    #[serde(serialize_with = "class_name")]
    pub class: Precedence,
    /// Entries.
    pub entries: u64,
    /// Bytes still to cross, file bytes included.
    pub bytes: u64,
    /// When the last of them should have crossed; `None` while the link is down.
    pub eta_seconds: Option<f64>,
}

fn class_name<S: serde::Serializer>(class: &Precedence, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_str(class.as_str())
}

/// Fills in when each class should have crossed: a class waits for the more urgent ones, all at the link's rate.
pub(super) fn with_etas(mut backlog: Vec<Waiting>, bytes_per_second: Option<f64>) -> Vec<Waiting> {
    backlog.sort_by_key(|waiting| waiting.class);
    let mut ahead = 0;
    for waiting in &mut backlog {
        ahead += waiting.bytes;
        waiting.eta_seconds = bytes_per_second.filter(|rate| *rate > 0.0).map(|rate| ahead as f64 / rate);
    }
    backlog
}

/// The present shape of [`Report`].
pub(super) const SCHEMA: &str = "holdfast.demo/1";

/// The outcome of a demo run. Serialised it is what `--json` prints; the keys are part of the interface.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Name and version of this shape.
    pub schema: &'static str,
    /// Both sides show the same objects.
    pub equal: bool,
    /// Both directions together.
    #[serde(flatten)]
    pub total: Ledger,
    /// The equation of each direction held whenever it was looked at, not only at the end.
    pub balanced_throughout: bool,
    /// Objects that took effect more than once, and events that a client was told more than once.
    pub duplicates: u64,
    /// Bytes that the HTTP API carried for the scripted people, both sides.
    pub api_bytes: u64,
    /// Bytes put on the wire from edge to hub, UDP and IP headers included.
    pub wire_bytes_up: u64,
    /// Bytes put on the wire from hub to edge.
    pub wire_bytes_down: u64,
    /// Wire bytes of both directions for each API byte.
    pub wire_to_api_ratio: f64,
    /// From the API's answer at the edge to the urgent post being visible at the hub, while the file was crossing.
    pub urgent_seconds: f64,
    /// From the link's return to the urgent post of the outage being visible at the hub.
    pub urgent_after_outage_seconds: f64,
    /// From the link's return to the last file being readable at the hub.
    pub bulk_seconds: f64,
    /// How long the link was cut.
    pub outage_seconds: f64,
    /// The whole run.
    pub seconds: f64,
    /// Objects compared.
    pub objects: usize,
    /// Objects compared, by kind.
    pub objects_by_kind: BTreeMap<&'static str, usize>,
    /// How many fields or objects differ.
    pub differences: usize,
    /// The first differences, readable.
    pub first_differences: Vec<String>,
    /// Each direction's equation.
    pub per_direction: PerDirection,
    /// The link that was used.
    pub link: LinkFacts,
}

/// Both directions.
#[derive(Clone, Copy, Debug, Serialize)]
#[allow(missing_docs, reason = "named after the direction")]
pub struct PerDirection {
    pub edge_to_hub: Ledger,
    pub hub_to_edge: Ledger,
}

impl PerDirection {
    /// Both together.
    pub fn total(&self) -> Ledger {
        self.edge_to_hub.plus(self.hub_to_edge)
    }

    /// Nothing waits and both equations hold.
    pub fn settled(&self) -> bool {
        self.total().held == 0 && self.edge_to_hub.balances() && self.hub_to_edge.balances()
    }
}

/// The link's settings and what it lost.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "the units end the names")]
pub struct LinkFacts {
    pub rate_bits_per_second: u64,
    pub delay_ms_one_way: u64,
    pub loss: f64,
    pub datagrams_up: u64,
    pub datagrams_down: u64,
    pub lost_up: u64,
    pub lost_down: u64,
    pub overflowed_up: u64,
    pub overflowed_down: u64,
}

impl Report {
    /// Did the demo show what it is to show?
    pub fn passed(&self) -> bool {
        self.equal && self.balanced_throughout && self.per_direction.settled() && self.duplicates == 0
    }

    /// The report for a person.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        let kinds: Vec<String> = self.objects_by_kind.iter().map(|(kind, n)| plural(*n, kind)).collect();
        let mut line = |args: std::fmt::Arguments<'_>| {
            text.write_fmt(args).and_then(|()| text.write_str("\n")).expect("writing to a String cannot fail");
        };
        line(format_args!(""));
        line(format_args!("RESULT"));
        if self.equal {
            line(format_args!("  both sides are equal: {} objects ({})", self.objects, kinds.join(", ")));
        } else {
            line(format_args!("  THE SIDES DIFFER in {} places; the first:", self.differences));
            for difference in &self.first_differences {
                line(format_args!("    {difference}"));
            }
        }
        line(format_args!("  duplicates: {}", self.duplicates));
        if !self.balanced_throughout {
            line(format_args!("  THE EQUATION DID NOT HOLD at every moment of the run"));
        }
        line(format_args!("  edge to hub: {}", self.per_direction.edge_to_hub));
        line(format_args!("  hub to edge: {}", self.per_direction.hub_to_edge));
        line(format_args!(
            "  the API carried {}; the wire carried {} up and {} down ({:.0} % of the API's bytes)",
            human_bytes(self.api_bytes),
            human_bytes(self.wire_bytes_up),
            human_bytes(self.wire_bytes_down),
            self.wire_to_api_ratio * 100.0
        ));
        line(format_args!(
            "  urgent message: {:.1} s, written while the file was crossing; the one written in the outage {:.1} s after it",
            self.urgent_seconds, self.urgent_after_outage_seconds
        ));
        line(format_args!(
            "  files: the last byte {:.0} s after the link came back; the link was cut for {:.0} s; all took {:.0} s",
            self.bulk_seconds, self.outage_seconds, self.seconds
        ));
        line(format_args!("  {}", if self.passed() { "PASSED" } else { "FAILED" }));
        text
    }
}

/// "3 posts".
fn plural(n: usize, kind: &str) -> String {
    if n == 1 { format!("1 {kind}") } else { format!("{n} {kind}s") }
}

/// "1.3 MB".
pub(super) fn human_bytes(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        _ => format!("{:.2} MB", bytes as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled_report() -> Report {
        let up = Ledger { accepted: 10, applied: 9, superseded: 1, ..Ledger::default() };
        let down = Ledger { accepted: 4, applied: 4, ..Ledger::default() };
        let per_direction = PerDirection { edge_to_hub: up, hub_to_edge: down };
        Report {
            schema: SCHEMA,
            equal: true,
            total: per_direction.total(),
            balanced_throughout: true,
            duplicates: 0,
            api_bytes: 6_000_000,
            wire_bytes_up: 1_400_000,
            wire_bytes_down: 60_000,
            wire_to_api_ratio: 0.24,
            urgent_seconds: 0.8,
            urgent_after_outage_seconds: 3.0,
            bulk_seconds: 55.0,
            outage_seconds: 10.0,
            seconds: 90.0,
            objects: 3,
            objects_by_kind: BTreeMap::from([("post", 2), ("user", 1)]),
            differences: 0,
            first_differences: Vec::new(),
            per_direction,
            link: LinkFacts {
                rate_bits_per_second: 256_000,
                delay_ms_one_way: 300,
                loss: 0.05,
                datagrams_up: 1,
                datagrams_down: 1,
                lost_up: 0,
                lost_down: 0,
                overflowed_up: 0,
                overflowed_down: 0,
            },
        }
    }

    #[test]
    fn the_json_has_the_promised_keys_at_the_top() {
        let json = serde_json::to_value(settled_report()).unwrap();
        for key in [
            "accepted",
            "applied",
            "held",
            "quarantined",
            "expired",
            "superseded",
            "withheld",
            "purged",
            "duplicates",
            "api_bytes",
            "wire_bytes_up",
            "wire_bytes_down",
            "urgent_seconds",
            "equal",
            "seconds",
            "per_direction",
        ] {
            assert!(json.get(key).is_some(), "{key} is missing");
        }
        assert_eq!(json["accepted"], 14);
        assert_eq!(json["per_direction"]["edge_to_hub"]["superseded"], 1);
    }

    #[test]
    fn a_run_passes_only_when_equal_settled_and_without_duplicates() {
        assert!(settled_report().passed());
        assert!(!Report { equal: false, ..settled_report() }.passed());
        assert!(!Report { balanced_throughout: false, ..settled_report() }.passed());
        assert!(!Report { duplicates: 1, ..settled_report() }.passed());
        let mut waiting = settled_report();
        waiting.per_direction.hub_to_edge.held = 1;
        waiting.per_direction.hub_to_edge.accepted += 1;
        assert!(!waiting.passed());
        let mut leaking = settled_report();
        leaking.per_direction.edge_to_hub.accepted += 1;
        assert!(!leaking.passed(), "an entry that is nowhere breaks the equation");
    }

    #[test]
    fn the_text_says_what_differs() {
        let text = Report {
            equal: false,
            differences: 1,
            first_differences: vec!["post “x” (p): only at the edge".to_owned()],
            ..settled_report()
        }
        .to_text();
        assert!(text.contains("post “x” (p): only at the edge"), "{text}");
        assert!(text.contains("FAILED"), "{text}");
        assert!(settled_report().to_text().contains("PASSED"));
    }

    #[test]
    fn a_class_waits_for_the_more_urgent_ones() {
        let waiting = |class, bytes| Waiting { class, entries: 1, bytes, eta_seconds: None };
        let backlog = vec![waiting(Precedence::Deferred, 30_000), waiting(Precedence::Flash, 1_000)];
        let etas = with_etas(backlog.clone(), Some(1_000.0));
        assert_eq!(etas.iter().map(|w| w.eta_seconds).collect::<Vec<_>>(), [Some(1.0), Some(31.0)]);
        assert!(with_etas(backlog, None).iter().all(|w| w.eta_seconds.is_none()), "no ETA while the link is down");
    }
}
