//! `holdfast zeroize`: asks, destroys, reports.

use std::time::Duration;

use super::block_on;
use crate::admin::client;
use crate::cli::Zeroize;
use crate::destroy::{self, Destroyed, Zeroized};
use crate::exit::{Done, Exit, Failure};
use crate::layout::Layout;
use crate::lock::{self, DataLock};
use crate::output;

/// A node stops within its grace of ten seconds.
const STOPS_WITHIN: Duration = Duration::from_secs(20);

pub(super) fn run(layout: &Layout, args: Zeroize) -> Done {
    if !layout.data().is_dir() {
        let text = format!("there is no directory {}; nothing was changed", layout.data().display());
        return Err(Failure::with(Exit::Config, text, "name the node's data directory with --data"));
    }
    let (name, settings) = destroy::settings_or_default(layout);
    let name = name.unwrap_or_else(|| "unknown".to_owned());
    confirm(layout, &name, args.yes_destroy)?;
    let mut report = Zeroized { schema: "holdfast.zeroized/1", node: name.clone(), ..Zeroized::default() };
    // Before anything that may take time: stopping a node, removing gigabytes.
    destroy::destroy_keys(layout, &settings, &mut report);
    let lock = stopped(layout);
    if lock.is_ok() {
        // What a node wrote while it stopped.
        destroy::destroy_keys(layout, &settings, &mut report);
    }
    destroy::prove(layout, &settings, &mut report);
    if lock.is_ok() {
        destroy::remove_data(layout, &mut report);
    }
    destroy::caveats(&settings, &mut report);
    destroy::conclude(&mut report);
    if args.format.json {
        output::json(&report)
    } else {
        print(&report)
    }
    // Its directory has no owner any more to whom files could be given back.
    let _lock = lock?;
    Ok(if report.complete { Exit::Ok } else { Exit::Degraded })
}

fn confirm(layout: &Layout, name: &str, given: Option<String>) -> Result<(), Failure> {
    let typed = match given {
        Some(given) => given,
        None if output::is_interactive() => {
            output::note(format!(
                "This destroys the keys of node `{name}` in {}, and then all of its data. There is no way back.",
                layout.data().display()
            ));
            output::ask("Type the node's name to go on: ");
            let mut line = String::new();
            let read = std::io::stdin().read_line(&mut line);
            read.map_err(|e| Failure::io("reading", std::path::Path::new("the terminal"), &e))?;
            line.trim().to_owned()
        }
        None => String::new(),
    };
    match typed == name {
        true => Ok(()),
        false => Err(Failure::with(
            Exit::Usage,
            format!("`{typed}` is not the name of this node; nothing was destroyed"),
            format!("give it with --yes-destroy NAME; the configuration says `{name}`"),
        )),
    }
}

/// The lock of the data directory, once a node that runs there has stopped.
fn stopped(layout: &Layout) -> Result<DataLock, Failure> {
    block_on(async {
        let asked = client::post::<()>(layout.data(), "/v1/stop", &()).await;
        let patience = match asked {
            Ok(()) => STOPS_WITHIN,
            Err(_) => Duration::ZERO,
        };
        let taken = tokio::time::timeout(patience, async {
            loop {
                match lock::take(layout.data()) {
                    Err(e) if e.exit == Exit::InUse => tokio::time::sleep(Duration::from_millis(50)).await,
                    taken => return taken,
                }
            }
        });
        match taken.await {
            Ok(taken) => taken,
            Err(_) => lock::take(layout.data()).map_err(|e| Failure {
                text: format!("the keys are destroyed; the data is still there, because {}", e.text),
                next_step: "stop the node (`systemctl stop holdfast-edge` or holdfast-hub) and run it again".to_owned(),
                ..e
            }),
        }
    })
}

fn print(report: &Zeroized) {
    let show = |all: &[Destroyed]| {
        for item in all.iter().filter(|item| item.existed) {
            let how = match (&item.error, item.gone) {
                (Some(e), true) => format!("gone, but {e}"),
                (Some(e), false) => format!("STILL THERE: {e}"),
                (None, true) => "gone".to_owned(),
                (None, false) => "STILL THERE".to_owned(),
            };
            output::line(format!("  {:<8} {}", how, item.path.display()));
        }
    };
    output::line(format!("keys of node {}, destroyed in {} ms", report.node, report.keys_destroyed_in_ms));
    show(&report.keys);
    output::line("proof");
    for proof in &report.proofs {
        let verdict = if proof.holds { "fails" } else { "WORKS" };
        output::line(format!("  {verdict:<8} {}: {}", proof.tried, proof.detail));
    }
    output::line("data");
    show(&report.data);
    output::line("not guaranteed");
    report.not_guaranteed.iter().for_each(|text| output::line(format!("  {text}")));
    output::line(if report.complete { "complete" } else { "NOT COMPLETE: see above, then destroy the medium" });
}
