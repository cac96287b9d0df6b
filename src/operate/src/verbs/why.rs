//! `holdfast why`

use super::block_on;
use crate::admin::{WhyRequest, client};
use crate::exit::{Done, Exit};
use crate::layout::Layout;
use crate::why::{Why, WhyAt, WhyEntry};
use crate::{config, offline, output, show};

pub(super) fn run(layout: &Layout, target: &str, json: bool) -> Done {
    let settings = config::load(layout.data())?;
    let request = WhyRequest { target: target.to_owned() };
    let why = match block_on(client::post::<Why>(layout.data(), "/v1/why", &request)) {
        Err(e) if e.exit == Exit::NotRunning => offline::why(layout, &settings, target)?,
        answer => answer?,
    };
    match json {
        true => output::json(&why),
        false => screen(&why).iter().for_each(output::line),
    }
    Ok(match why.running {
        false => Exit::NotRunning,
        true => Exit::Ok,
    })
}

fn screen(why: &Why) -> Vec<String> {
    let mut lines = Vec::new();
    if !why.running {
        lines.push("the node does not run: this is what its journal says".to_owned());
    }
    if !why.note.is_empty() {
        lines.push(why.note.clone());
    }
    why.entries.iter().for_each(|entry| lines.extend(of_entry(entry)));
    lines
}

fn of_entry(entry: &WhyEntry) -> Vec<String> {
    let mut lines = vec![
        format!("{} {} ({}), place {}", entry.kind, entry.entry, entry.class, entry.pos),
        format!(
            "  from {}, captured {}, label {}, stream {}, {}",
            entry.from,
            show::time(entry.captured_at),
            entry.label,
            entry.stream,
            show::bytes(entry.plain_bytes)
        ),
    ];
    lines.extend(entry.here.iter().map(|here| format!("  here: {here}")));
    lines.extend(entry.destinations.iter().map(at_peer));
    lines
}

fn at_peer(at: &WhyAt) -> String {
    let sent = at.sent_seconds_ago.map_or(String::new(), |s| format!(", {s:.1} s ago"));
    let eta = match (at.eta, at.basis) {
        (Some(eta), Some(basis)) => {
            let from = if at.link.as_deref() == Some("up") { "" } else { " of an open link" };
            format!("; crosses within {}{from} (rate {})", super::backlog::time(eta), basis.as_str())
        }
        _ => String::new(),
    };
    format!("  {}: {}{sent}{eta}", at.peer, at.text)
}
