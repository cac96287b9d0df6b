//! `holdfast m365 plan`, `targets`, `missing`, `retry` and `skip`: what goes to Microsoft 365.

use apply::targets::plan::{Plan, TargetPlan};
use apply::targets::{ItemView, TargetStatus};
use serde::Serialize;

use super::block_on;
use crate::admin::client;
use crate::exit::{Done, Exit, Failure};
use crate::layout::Layout;
use crate::targets::{TargetsAnswer, TargetsAsk};
use crate::{output, show};

fn ask(layout: &Layout, ask: &TargetsAsk) -> Result<TargetsAnswer, Failure> {
    block_on(client::post(layout.data(), "/v1/m365/targets", ask))
}

fn odd<T>() -> Result<T, Failure> {
    Err(Failure::new("the node answered something else", "use a `holdfast` of the same version as the running node"))
}

#[derive(Serialize)]
struct Shown<T> {
    schema: &'static str,
    #[serde(flatten)]
    of: T,
}

fn json<T: Serialize>(schema: &'static str, of: T) {
    output::json(&Shown { schema, of });
}

#[derive(Serialize)]
struct Targets {
    targets: Vec<TargetStatus>,
}

#[derive(Serialize)]
struct Missing {
    targets: Vec<TargetStatus>,
    given_up: Vec<ItemView>,
}

/// How every target is.
pub(super) fn status(layout: &Layout, as_json: bool) -> Done {
    let TargetsAnswer::Status(targets) = ask(layout, &TargetsAsk::Status)? else { return odd() };
    if as_json {
        json("holdfast.m365-targets/1", Targets { targets });
        return Ok(Exit::Ok);
    }
    for target in &targets {
        let t = &target.terms;
        output::line(format!("{}  {}", target.name, target.kind));
        output::line(format!(
            "  accepted {} = applied {} + held {} + quarantined {} + expired {} + superseded {} + withheld {} + purged {}",
            t.accepted, t.applied, t.held, t.quarantined, t.expired, t.superseded, t.withheld, t.purged
        ));
        if let Some(why) = &target.waits_for {
            output::line(format!("  waits: {why}"));
        }
        if let Some(since) = target.open_since {
            output::line(format!(
                "  its channel is open for import since {}: people cannot post in it",
                show::time(model::UnixMillis(since))
            ));
        }
        if target.dead > 0 {
            output::line(format!("  {} given up: `holdfast m365 missing` lists them", target.dead));
        }
    }
    Ok(Exit::Ok)
}

/// What would go where, before anything goes.
pub(super) fn plan(layout: &Layout, as_json: bool) -> Done {
    let TargetsAnswer::Plan(plan) = ask(layout, &TargetsAsk::Plan)? else { return odd() };
    if as_json {
        json("holdfast.m365-plan/1", plan);
        return Ok(Exit::Ok);
    }
    for target in &plan.targets {
        show_plan(target);
    }
    output::line(format!("all of it in about {}, once Microsoft 365 is reachable", duration(&plan)));
    Ok(Exit::Ok)
}

fn show_plan(target: &TargetPlan) {
    output::line(format!("{}  {} to {}", target.name, target.kind, target.destination));
    for (lane, items) in &target.lanes {
        output::line(format!("  {items} from {lane}"));
    }
    for (why, entries) in &target.withheld {
        output::line(format!("  {entries} stay: {why}"));
    }
    output::line(format!(
        "  {} requests, about {}, in about {:.0} s under Microsoft's limits",
        target.requests,
        show::bytes(target.bytes),
        target.seconds
    ));
}

fn duration(plan: &Plan) -> String {
    let seconds = plan.seconds.round() as u64;
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7_199 => format!("{} min", seconds / 60),
        _ => format!("{:.1} h", plan.seconds / 3_600.0),
    }
}

/// What could not be expressed, and what was given up.
pub(super) fn missing(layout: &Layout, target: Option<String>, as_json: bool) -> Done {
    let TargetsAnswer::Dead(given_up) = ask(layout, &TargetsAsk::Dead { target: target.clone() })? else {
        return odd();
    };
    let TargetsAnswer::Status(mut targets) = ask(layout, &TargetsAsk::Status)? else { return odd() };
    targets.retain(|t| target.as_ref().is_none_or(|name| *name == t.name));
    if as_json {
        json("holdfast.m365-missing/1", Missing { targets, given_up });
        return Ok(Exit::Ok);
    }
    for target in &targets {
        for (what, n) in &target.missing {
            output::line(format!("{}  {n} times {what}: the target cannot show it", target.name));
        }
        for (why, n) in &target.withheld {
            output::line(format!("{}  {n} withheld: {why}", target.name));
        }
    }
    for item in &given_up {
        output::line(format!("{}  item {}  {} in {}: {}", item.target, item.id, item.object, item.lane, item.reason));
    }
    if !given_up.is_empty() {
        output::note("`holdfast m365 retry TARGET [--item ID]` tries them again, `skip` puts them away");
    }
    Ok(Exit::Ok)
}

/// Items that were given up are tried again, or put away.
pub(super) fn change(layout: &Layout, asked: &TargetsAsk, as_json: bool) -> Done {
    #[derive(Serialize)]
    struct Changed {
        items: u64,
    }
    let TargetsAnswer::Changed { items } = ask(layout, asked)? else { return odd() };
    match as_json {
        true => json("holdfast.m365-changed/1", Changed { items }),
        false => output::line(format!("{items} items")),
    }
    Ok(Exit::Ok)
}
