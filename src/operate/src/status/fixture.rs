//! Nodes with much to say, for tests.

use model::UnixMillis;
use telemetry::{Check, Grade};

use super::*;

const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

fn problem(name: &str, grade: Grade, text: &str, next_step: &str) -> Check {
    let since = UnixMillis(NOW.0 - 5_400_000);
    Check { name: name.to_owned(), grade, text: text.to_owned(), next_step: Some(next_step.to_owned()), since }
}

pub(crate) fn edge_with_backlog() -> Status {
    let outbound = Equation {
        accepted: 1_234_574,
        applied: 1_230_000,
        held: 4_328,
        quarantined: 3,
        expired: 40,
        superseded: 200,
        withheld: 2,
        purged: 1,
        held_by_class: ByClass::new([1, 20, 300, 3_000, 1_000]),
        capturing: 7,
        stored: 17,
        oldest_held_seconds: Some(7_260),
        backlog_bytes: 12_345_678,
        eta: Some(Eta { low_seconds: 1_500, high_seconds: 4_000 }),
    };
    let link = LinkFacts {
        state: "up".to_owned(),
        reach: "intermittent".to_owned(),
        for_seconds: Some(732),
        detail: String::new(),
        up_bits_per_second: 255_800,
        down_bits_per_second: 1_200,
        round_trip_ms: Some(620),
    };
    Status {
        schema: SCHEMA.to_owned(),
        at: NOW,
        running: true,
        node: NodeFacts {
            name: "alpha".to_owned(),
            id: "ybndrfg8ejkmcpqxot1uwisza3".to_owned(),
            role: Role::Edge,
            version: "0.1.0".to_owned(),
            epoch: 2,
        },
        uptime_seconds: Some(273_000),
        ready: true,
        health: Some(Grade::Degraded),
        emission: carrier::Emission::Normal,
        peers: vec![PeerFacts {
            name: "bravo".to_owned(),
            link: Some(link),
            outbound: Some(outbound),
            inbound: Some(InboundFacts { stored: 500, applied: 498, held: 1, quarantined: 1 }),
        }],
        transit: Vec::new(),
        microsoft: None,
        capture_pending_rows: Some(7),
        disk: DiskFacts {
            journal_bytes: 1_288_490_188,
            journal_limit_bytes: 4_000_000_000,
            free_bytes: Some(12_884_901_888),
            space: Some(journal::Space {
                limit_left_bytes: 2_711_509_812,
                disk_left_bytes: Some(12_952_010_752),
                free_files: Some(1_000_000),
                reserve_bytes: 64 << 20,
                reserve_wanted_bytes: 64 << 20,
                ..journal::Space::default()
            }),
        },
        problems: vec![problem(
            "journal",
            Grade::Degraded,
            "3 damaged frames in segment 12; every other entry is intact",
            "run `holdfast journal verify`",
        )],
    }
}

pub(crate) fn busy_hub() -> Status {
    let mut status = edge_with_backlog();
    status.node.role = Role::Hub;
    let like = status.peers[0].clone();
    status.peers = (0..30)
        .map(|n| {
            let mut peer = like.clone();
            peer.name = format!("a-name-as-long-as-is-permitted{n:02}");
            if let Some(outbound) = peer.outbound.as_mut().filter(|_| n % 2 == 0) {
                outbound.eta = None;
                outbound.oldest_held_seconds = Some(n * 86_400);
            }
            peer
        })
        .collect();
    let text = "no answer for a very long time, and the text about it is as long as a text can be";
    status.problems =
        (0..9).map(|n| problem(&format!("link a-{n}"), Grade::Failing, text, "check the radio, then wait")).collect();
    status
}

pub(crate) fn stopped() -> Status {
    let mut status = edge_with_backlog();
    status.running = false;
    status.uptime_seconds = None;
    status.health = None;
    status.ready = false;
    status.capture_pending_rows = None;
    status.disk.space = None;
    status.problems.clear();
    status.peers[0].link = None;
    status
}
