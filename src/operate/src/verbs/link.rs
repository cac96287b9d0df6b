//! `holdfast link`: what the links do, and emission control.

use serde::Serialize;

use super::block_on;
use crate::admin::{EmissionChange, client};
use crate::cli::Link;
use crate::config::Settings;
use crate::exit::{Done, Exit, Failure, chain};
use crate::layout::Layout;
use crate::links::{self, LinkChange, LinkRow, LinkTest, LinkTested, Links};
use crate::{config, lock, offline, output, show};
use carrier::{Emission, LinkOrder, OneWayReceived, OneWaySent};

#[derive(Serialize)]
struct Shown {
    schema: &'static str,
    emission: Emission,
}

pub(super) fn run(layout: &Layout, verb: Link) -> Done {
    let settings = config::load(layout.data())?;
    match verb {
        Link::Silence { link: None, receive: true } => set(layout, Emission::ReceiveOnly),
        Link::Silence { link: None, receive: false } => set(layout, Emission::Silent),
        Link::Silence { link: Some(link), receive: _ } => order(layout, &settings, link, LinkOrder::Silence),
        Link::Resume { link: None } => set(layout, Emission::Normal),
        Link::Resume { link: Some(link) } => order(layout, &settings, link, LinkOrder::Use),
        Link::Pause { link } => order(layout, &settings, link, LinkOrder::Pause),
        Link::List(format) => {
            let links: Links = block_on(client::get(layout.data(), "/v1/links"))?;
            match format.json {
                true => output::json(&links),
                false => {
                    links.links.iter().for_each(|link| output::line(shown(link)));
                    links.oneway_in.iter().for_each(|received| output::line(arrived(received)));
                }
            }
            Ok(Exit::Ok)
        }
        Link::Test { link, format } => {
            let tested: LinkTested = block_on(client::post(layout.data(), "/v1/links/test", &LinkTest { link }))?;
            match format.json {
                true => output::json(&tested),
                false => output::line(found(&tested)),
            }
            Ok(Exit::Ok)
        }
        Link::Status(format) => {
            let emission = Emission::load(layout.data());
            match format.json {
                true => output::json(&Shown { schema: "holdfast.emission/1", emission }),
                false => output::line(format!("emission {emission}")),
            }
            Ok(Exit::Ok)
        }
    }
}

/// Tells the running node, or notes it for the next start of one that does not run.
fn order(layout: &Layout, settings: &Settings, link: String, order: LinkOrder) -> Done {
    let means = match order {
        LinkOrder::Use => "used",
        LinkOrder::Pause => "paused",
        LinkOrder::Silence => "silent",
    };
    let change = LinkChange { link, order };
    match block_on(client::post::<()>(layout.data(), "/v1/links/order", &change)) {
        Ok(()) => output::line(format!("link {} {means}, in force", change.link)),
        Err(e) if e.exit == Exit::NotRunning => {
            let _lock = lock::take(layout.data())?;
            let which = links::choose(offline::links(layout, &settings.carrier)?, &change.link)?;
            let ordered = carrier::order_link(layout.data(), which.node, &which.link, order);
            ordered.map_err(|e| Failure::new(chain(&e), e.next_step()))?;
            output::line(format!("link {} {means}, from the node's next start", change.link));
        }
        Err(e) => return Err(e),
    }
    Ok(Exit::Ok)
}

fn shown(link: &LinkRow) -> String {
    if let Some(sent) = &link.oneway {
        return shown_oneway(link, sent);
    }
    let mut parts = vec![format!("{}/{} {}", link.peer, link.link, show::state(&link.state, &link.reach))];
    parts.extend((!link.detail.is_empty()).then(|| link.detail.clone()));
    parts.push(link.lane.clone());
    parts.push(format!("rate {}", show::rate(link.rate_bits_per_second)));
    parts.extend(link.round_trip_ms.map(|ms| format!("rtt {ms} ms")));
    parts.extend(link.loss.map(|loss| format!("loss {:.1} %", 100.0 * loss)));
    parts.push(format!("cost {}", link.cost));
    parts.extend(link.budget.map(|budget| format!("budget left {}", show::bytes(budget.left_bytes))));
    parts.extend(link.window_until.map(|at| format!("contact until {}", show::time(at))));
    parts.extend(link.window_next.map(|at| format!("next contact {}", show::time(at))));
    parts.extend((link.keepalive_seconds == 0).then(|| "no signs of life while idle".to_owned()));
    parts.push(format!("sent {}", show::bytes(link.wire_bytes_up)));
    parts.push(format!("received {}", show::bytes(link.wire_bytes_down)));
    parts.join(", ")
}

fn shown_oneway(link: &LinkRow, sent: &OneWaySent) -> String {
    let mut parts = vec![format!("{}/{} {}", link.peer, link.link, link.state)];
    parts.extend((!link.detail.is_empty()).then(|| link.detail.clone()));
    parts.push(format!("rate {}", show::rate(link.rate_bits_per_second)));
    parts.push(format!("sent {}", show::bytes(link.wire_bytes_up)));
    parts.push(format!("{} parcels with every pass", sent.parcels));
    parts.push(format!("{} to repeat", show::bytes(sent.turning_bytes)));
    parts.push(format!("{} rounds over", sent.rounds));
    parts.push(format!("{} entries sent, unconfirmed", sent.unconfirmed_entries));
    parts.extend(sent.last_at.map(|at| format!("last {}", show::time(at))));
    parts.join(", ")
}

fn arrived(received: &OneWayReceived) -> String {
    let mut parts = vec![format!("one-way arrivals at {}", received.listen)];
    parts.push(format!("{} datagrams, {} of them rejected", received.datagrams, received.rejected));
    parts.push(format!("{} parcels whole", received.whole));
    parts.push(format!("{} begun", received.halves.len()));
    parts.push(format!("{} given up", received.given_up));
    parts.extend(received.last_at.map(|at| format!("last {}", show::time(at))));
    parts.join(", ")
}

fn found(tested: &LinkTested) -> String {
    let measured = &tested.measured;
    let mut parts =
        vec![format!("{}/{} acknowledged {} of {}", tested.peer, tested.link, measured.acknowledged, measured.sent)];
    if let Some((min, mean, max)) = measured.round_trip_ms {
        parts.push(format!("round trip {min}/{mean}/{max} ms (shortest/mean/longest)"));
    }
    parts.extend(measured.loss.map(|loss| format!("loss {:.1} % on this connection", 100.0 * loss)));
    parts.extend(measured.handshake_ms.map(|ms| format!("handshake {ms} ms")));
    parts.push(format!(
        "{} sent and {} received meanwhile",
        show::bytes(measured.bytes_up),
        show::bytes(measured.bytes_down)
    ));
    parts.join(", ")
}

fn set(layout: &Layout, mode: Emission) -> Done {
    let change = EmissionChange { mode };
    match block_on(client::post::<()>(layout.data(), "/v1/emission", &change)) {
        Ok(()) => output::line(format!("emission {mode}, in force")),
        Err(e) if e.exit == Exit::NotRunning => {
            // The lock keeps a node from starting between the question and the answer.
            let _lock = lock::take(layout.data())?;
            mode.save(layout.data()).map_err(|e| Failure::new(chain(&e), "check the disk, then try again"))?;
            output::line(format!("emission {mode}, from the node's next start"));
        }
        Err(e) => return Err(e),
    }
    Ok(Exit::Ok)
}
