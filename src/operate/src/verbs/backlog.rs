//! `holdfast backlog`

use carrier::TransitStatus;

use super::block_on;
use crate::admin::client;
use crate::backlog::{Backlog, Basis, Eta, PeerBacklog};
use crate::exit::{Done, Exit};
use crate::layout::Layout;
use crate::{config, offline, output, show};

/// Streams on the screen; all of them are in the JSON form.
const STREAMS_SHOWN: usize = 8;

pub(super) fn run(layout: &Layout, json: bool) -> Done {
    let settings = config::load(layout.data())?;
    let backlog = match block_on(client::get::<Backlog>(layout.data(), "/v1/backlog")) {
        Err(e) if e.exit == Exit::NotRunning => offline::backlog(layout, &settings)?,
        answer => answer?,
    };
    match json {
        true => output::json(&backlog),
        false => screen(&backlog).iter().for_each(output::line),
    }
    Ok(match backlog.running {
        false => Exit::NotRunning,
        true if backlog.peers.iter().any(|peer| peer.stalled) => Exit::Degraded,
        true => Exit::Ok,
    })
}

pub(super) fn time(eta: Eta) -> String {
    match eta.low_seconds == eta.high_seconds {
        true => show::seconds(eta.low_seconds),
        false => format!("{} to {}", show::seconds(eta.low_seconds), show::seconds(eta.high_seconds)),
    }
}

fn screen(backlog: &Backlog) -> Vec<String> {
    let mut lines = Vec::new();
    if !backlog.running {
        lines.push("the node does not run: read from its files, nothing is measured".to_owned());
    }
    if let Some(rows) = backlog.capturing.filter(|rows| *rows > 0) {
        lines.push(format!("{rows} changes not yet in the journal"));
    }
    if backlog.peers.is_empty() {
        lines.push("no peer yet: nothing waits for anybody".to_owned());
    }
    backlog.peers.iter().for_each(|peer| lines.extend(of_peer(peer)));
    lines.extend(backlog.transit.iter().map(|transit| carried_on(transit, backlog.at)));
    lines
}

/// What this node holds for another and carries on.
fn carried_on(transit: &TransitStatus, now: model::UnixMillis) -> String {
    let TransitStatus { to, held, taken, found, handed_on, expired, dropped, .. } = transit;
    let by = match &transit.next {
        None => "no way there".to_owned(),
        Some(next) if next == to => "direct".to_owned(),
        Some(next) => format!("by {next}"),
    };
    let up = if transit.next_is_up { "up" } else { "not up" };
    let oldest =
        transit.oldest_at.map_or(String::new(), |at| format!(", oldest {}", show::duration(show::age(at, now))));
    let refusal = if transit.last_refusal.is_empty() {
        String::new()
    } else {
        format!("; refused there: {}", transit.last_refusal)
    };
    format!(
        "carried on for {to} ({by}, {up}): {found} found + {taken} taken = {held} held ({}{oldest}) + {handed_on} handed on + {expired} expired + {dropped} dropped{refusal}",
        show::bytes(transit.held_bytes)
    )
}

fn relayed(peer: &PeerBacklog) -> String {
    let Some(via) = &peer.via else { return "  by way of a relay".to_owned() };
    let up = if via.relay_is_up { "up" } else { "not up" };
    let refusal = if via.refusal.is_empty() { String::new() } else { format!("; it refuses parcels: {}", via.refusal) };
    format!("  by way of the relay {} ({up}): {} of them are handed over{refusal}", via.relay, via.handed_over)
}

fn of_peer(peer: &PeerBacklog) -> Vec<String> {
    let link = peer.link.as_ref().map_or("not running", String::as_str);
    if peer.entries == 0 {
        return vec![format!("{} ({link}): nothing is held", peer.name)];
    }
    let packing = match peer.packing {
        Basis::Measured | Basis::MeasuredBefore => "packing measured",
        Basis::Assumed => "packing assumed",
    };
    let from = if peer.eta_from_link_up { ", once the link is up" } else { "" };
    let mut lines = vec![
        format!(
            "{} ({link}): {} entries held, {} on the link ({packing}), oldest {}",
            peer.name,
            peer.entries,
            show::bytes(peer.link_bytes),
            peer.oldest_seconds.map_or("-".to_owned(), show::seconds)
        ),
        match link {
            "one-way" => "  nobody can say when it has crossed: no answer is expected".to_owned(),
            "relayed" => relayed(peer),
            _ => format!(
                "  crosses in {}{from}; rate {} to {}, {}",
                time(peer.eta),
                show::rate((peer.rate.low_bytes_per_second * 8.0) as u64),
                show::rate((peer.rate.high_bytes_per_second * 8.0) as u64),
                peer.rate.basis.as_str()
            ),
        },
    ];
    if let Some(sent) = peer.sent_unconfirmed.filter(|sent| *sent > 0) {
        lines.push(format!(
            "  {sent} of them were sent over the one-way lane, unconfirmed: nobody knows whether they arrived"
        ));
    }
    if peer.on_request > 0 {
        let bytes = show::bytes(peer.on_request_bytes);
        lines.push(format!("  {} files ({bytes}) cross only when somebody there wants them", peer.on_request));
    }
    if let Some(seconds) = peer.no_progress_seconds.filter(|_| peer.stalled) {
        lines.push(format!("  ALARM: nothing of it has moved for {}", show::seconds(seconds)));
    }
    lines.push(format!(
        "  {:<10} {:>8} {:>8} {:>11} {:>12}  crosses in",
        "class", "entries", "there", "on the link", "oldest"
    ));
    for class in peer.classes.iter().filter(|class| class.entries > 0) {
        lines.push(format!(
            "  {:<10} {:>8} {:>8} {:>11} {:>12}  {}",
            class.class,
            class.entries,
            class.stored,
            show::bytes(class.remaining.link_bytes),
            class.oldest_seconds.map_or("-".to_owned(), show::seconds),
            time(class.eta)
        ));
    }
    for stream in peer.streams.iter().take(STREAMS_SHOWN) {
        lines.push(format!(
            "  {:<10} {:>8} {:>8} {:>11} {:>12}  {}",
            stream.class,
            stream.entries,
            stream.stored,
            show::bytes(stream.plain_bytes),
            show::seconds(stream.oldest_seconds),
            stream.stream
        ));
    }
    if peer.streams.len() > STREAMS_SHOWN || !peer.streams_complete {
        let left = peer.streams.len().saturating_sub(STREAMS_SHOWN);
        let more = if peer.streams_complete { "" } else { ", and more that were not looked at" };
        lines.push(format!("  and {left} more streams{more}: holdfast backlog --json"));
    }
    lines
}
