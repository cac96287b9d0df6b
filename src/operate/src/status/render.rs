//! The status screen: at most [`LINES`] lines of [`COLUMNS`] columns, whatever the node has to say.

use telemetry::{Check, Grade};

use super::{Equation, LinkFacts, MicrosoftFacts, PeerFacts, Status};
use crate::show;

/// Height of the smallest terminal.
pub const LINES: usize = 24;
/// Its width.
pub const COLUMNS: usize = 80;
/// Lines for problems, besides the one that counts what is left out: the peers need the rest.
const PROBLEM_LINES_MAX: usize = 8;

/// The screen. Peers with the oldest backlog come first; what does not fit is counted, never silently left out.
pub fn render(status: &Status) -> String {
    let mut lines = head(status);
    let problems = problems(status);
    let mut tail = transit(status);
    tail.extend(status.microsoft.as_ref().map(microsoft));
    tail.extend(disk(status));
    let room = LINES - lines.len() - problems.len() - tail.len();
    lines.extend(peers(&status.peers, room));
    lines.extend(tail);
    lines.extend(problems);
    lines.iter().map(|l| show::fit(l.trim_end(), COLUMNS)).collect::<Vec<_>>().join("\n")
}

fn head(status: &Status) -> Vec<String> {
    let node = &status.node;
    let up = status.uptime_seconds.map_or("not running".to_owned(), |s| format!("up {}", show::seconds(s)));
    let mut lines = vec![
        format!("{} ({}), {}, epoch {}, version {}", node.name, node.role.as_str(), up, node.epoch, node.version),
        format!("node id {}, at {}", node.id, show::time(status.at)),
    ];
    lines.push(match status.health {
        Some(health) => format!(
            "health {}, {}, emission {}",
            health.as_str(),
            if status.ready { "ready for users" } else { "not ready for users" },
            status.emission
        ),
        None => format!("read from the files: the node does not run; emission {}", status.emission),
    });
    lines
}

fn disk(status: &Status) -> Vec<String> {
    let disk = &status.disk;
    let percent = (disk.journal_bytes * 100).checked_div(disk.journal_limit_bytes).unwrap_or(0);
    let free = disk.free_bytes.map_or(String::new(), |free| format!(", {} free on disk", show::bytes(free)));
    let mut lines = vec![format!(
        "journal {} of {} ({percent} %){free}",
        show::bytes(disk.journal_bytes),
        show::bytes(disk.journal_limit_bytes)
    )];
    if let Some(space) = &disk.space {
        let why = space.cause.map_or(String::new(), |cause| format!(": {}", cause.as_str()));
        lines.push(format!("space: {}{why}; reserve {}", space.level, show::bytes(space.reserve_bytes)));
    }
    if let Some(rows) = status.capture_pending_rows.filter(|rows| *rows > 0) {
        lines.push(format!("{rows} changes not yet in the journal"));
    }
    lines
}

/// What is carried on for others: at most two lines, whatever the number of destinations.
fn transit(status: &Status) -> Vec<String> {
    let carried: Vec<&carrier::TransitStatus> =
        status.transit.iter().filter(|t| t.held + t.taken + t.found > 0).collect();
    if carried.is_empty() {
        return Vec::new();
    }
    let sum = |of: fn(&carrier::TransitStatus) -> u64| carried.iter().map(|t| of(t)).sum::<u64>();
    let oldest = carried.iter().filter_map(|t| t.oldest_at).min();
    let oldest = oldest.map_or(String::new(), |at| format!(", oldest {}", show::duration(show::age(at, status.at))));
    vec![
        format!(
            "carried on: {} found + {} taken = {} held + {} handed on + {} expired + {} dropped",
            sum(|t| t.found),
            sum(|t| t.taken),
            sum(|t| t.held),
            sum(|t| t.handed_on),
            sum(|t| t.expired),
            sum(|t| t.dropped)
        ),
        format!("  {} parcels, {} for other nodes held{oldest}", sum(|t| t.held), show::bytes(sum(|t| t.held_bytes))),
    ]
}

/// One line; why something is not up stands among the problems.
fn microsoft(facts: &MicrosoftFacts) -> String {
    let delivery = if facts.delivers { "delivery runs" } else { "delivery waits" };
    let held: Vec<&str> = facts.held_services.keys().map(String::as_str).collect();
    let held = if held.is_empty() { String::new() } else { format!(", {} held back", held.join(" and ")) };
    format!("microsoft 365: entra {}, graph {}, {delivery}{held}", facts.entra.state, facts.graph.state)
}

fn problems(status: &Status) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut left = status.problems.len();
    for Check { name, grade, text, next_step, since } in &status.problems {
        let mark = if *grade == Grade::Failing { "FAILING" } else { "degraded" };
        let ago = show::duration(show::age(*since, status.at));
        let mut shown = show::wrap(&format!("{mark} {name} ({ago}): {text}"), COLUMNS, "  ");
        if let Some(next) = next_step {
            shown.extend(show::wrap(&format!("  next step: {next}"), COLUMNS, "    "));
        }
        if lines.len() + shown.len() > PROBLEM_LINES_MAX {
            break;
        }
        lines.extend(shown);
        left -= 1;
    }
    if left > 0 {
        lines.push(format!("and {left} more problems: holdfast status --json"));
    }
    lines
}

/// Blocks of several lines while they fit, then one line each, then a count.
fn peers(peers: &[PeerFacts], room: usize) -> Vec<String> {
    if peers.is_empty() {
        return vec!["no peers yet: `holdfast enroll invite NAME` at the hub makes a token".to_owned()];
    }
    let mut sorted: Vec<&PeerFacts> = peers.iter().collect();
    let oldest = |p: &PeerFacts| p.outbound.as_ref().and_then(|o| o.oldest_held_seconds).unwrap_or(0);
    sorted.sort_by(|a, b| oldest(b).cmp(&oldest(a)).then_with(|| a.name.cmp(&b.name)));
    let blocks: Vec<Vec<String>> = sorted.iter().map(|p| block(p)).collect();
    if blocks.iter().map(Vec::len).sum::<usize>() <= room {
        return blocks.into_iter().flatten().collect();
    }
    // The worst peer in full, the others as far as they fit.
    let mut lines = blocks.into_iter().next().unwrap_or_default();
    let mut rest = sorted.into_iter().skip(1).peekable();
    while rest.peek().is_some() && lines.len() + 1 < room {
        lines.extend(rest.next().map(one_line));
    }
    match rest.count() {
        0 => {}
        left => lines.push(format!("and {left} more peers: holdfast status --json")),
    }
    lines
}

fn link_text(link: &LinkFacts) -> String {
    let rtt = link.round_trip_ms.map_or(String::new(), |ms| format!(", rtt {ms} ms"));
    format!(
        "{}{}, sends {}, receives {}{rtt}",
        show::state(&link.state, &link.reach),
        link.for_seconds.map_or(String::new(), |s| format!(" for {}", show::seconds(s))),
        show::rate(link.up_bits_per_second),
        show::rate(link.down_bits_per_second)
    )
}

fn block(peer: &PeerFacts) -> Vec<String> {
    let link = peer.link.as_ref().map_or("link not running".to_owned(), link_text);
    let mut lines = vec![format!("{}: {link}", peer.name)];
    if let Some(eq) = &peer.outbound {
        lines.extend(equation(eq));
    }
    if let Some(inbound) = peer.inbound.as_ref().filter(|i| i.stored > 0) {
        lines.push(format!(
            "  from there: {} stored, {} applied, {} held, {} quarantined",
            inbound.stored, inbound.applied, inbound.held, inbound.quarantined
        ));
    }
    lines
}

fn equation(eq: &Equation) -> Vec<String> {
    let Equation { accepted, applied, held, quarantined, expired, superseded, withheld, purged, .. } = eq;
    let mut lines = vec![
        format!("  accepted {accepted} = applied {applied} + held {held} + quarantined {quarantined}"),
        format!("    + expired {expired} + superseded {superseded} + withheld {withheld} + purged {purged}"),
    ];
    if *held > 0 {
        let classes: Vec<String> = eq.held_by_class.pairs().iter().map(|(class, n)| format!("{class} {n}")).collect();
        let capturing = if eq.capturing > 0 { format!(", being captured {}", eq.capturing) } else { String::new() };
        lines.push(format!("  held: {}{capturing}", classes.join(", ")));
        let oldest = eq.oldest_held_seconds.map_or(String::new(), |s| format!("oldest {}, ", show::seconds(s)));
        lines.push(format!("  {oldest}at most {} to send, {}", show::bytes(eq.backlog_bytes), eta(eq)));
    }
    lines
}

fn eta(eq: &Equation) -> String {
    match eq.eta {
        Some(eta) if eta.low_seconds == eta.high_seconds => format!("done in {}", show::seconds(eta.low_seconds)),
        Some(eta) => format!("done in {} to {}", show::seconds(eta.low_seconds), show::seconds(eta.high_seconds)),
        None => "not draining".to_owned(),
    }
}

fn one_line(peer: &PeerFacts) -> String {
    let state = peer.link.as_ref().map_or("-".to_owned(), |l| show::state(&l.state, &l.reach));
    match &peer.outbound {
        Some(eq) if eq.held > 0 => {
            let oldest = show::seconds(eq.oldest_held_seconds.unwrap_or(0));
            format!("{}: {state}, held {} of {}, oldest {oldest}, {}", peer.name, eq.held, eq.accepted, eta(eq))
        }
        Some(eq) => format!("{}: {state}, nothing held of {}", peer.name, eq.accepted),
        None => format!("{}: {state}, nothing sent yet", peer.name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot;
    use crate::status::fixture;

    fn assert_fits(screen: &str) {
        assert!(screen.lines().count() <= LINES, "{} lines:\n{screen}", screen.lines().count());
        assert!(screen.lines().all(|l| l.chars().count() <= COLUMNS), "{screen}");
    }

    #[test]
    fn a_busy_hub_fits_one_screen_and_counts_what_it_leaves_out() {
        let status = fixture::busy_hub();
        assert!(status.peers.len() > 20 && status.problems.len() > 4);
        let screen = render(&status);
        assert_fits(&screen);
        assert!(screen.contains("more peers: holdfast status --json"), "{screen}");
        assert!(screen.contains("more problems: holdfast status --json"), "{screen}");
    }

    #[test]
    fn an_edge_with_a_backlog_shows_everything_about_its_hub() {
        let screen = render(&fixture::edge_with_backlog());
        assert_fits(&screen);
        snapshot::assert("status-edge.txt", &screen);
    }

    #[test]
    fn a_stopped_node_says_that_it_was_read_from_its_files() {
        let screen = render(&fixture::stopped());
        assert_fits(&screen);
        assert!(screen.contains("read from the files: the node does not run"), "{screen}");
    }

    #[test]
    fn the_json_form_stays_as_programs_know_it() {
        let json = serde_json::to_string_pretty(&fixture::edge_with_backlog()).unwrap();
        snapshot::assert("status-edge.json", &json);
        let back: Status = serde_json::from_str(&json).unwrap();
        assert_eq!(back, fixture::edge_with_backlog());
    }

    #[test]
    fn the_equation_of_the_fixture_balances() {
        assert!(fixture::edge_with_backlog().peers.iter().flat_map(|p| &p.outbound).all(Equation::balances));
        assert!(!Equation { accepted: 1, ..Equation::default() }.balances());
    }
}
