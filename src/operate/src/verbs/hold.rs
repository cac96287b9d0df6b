//! `holdfast journal hold`: legal holds.

use ::journal::Hold;
use carrier::SystemClock;
use model::{Clock as _, LocalPos, UnixMillis};
use serde::Serialize;

use super::block_on;
use crate::admin::{HoldChange, HoldChanged, client};
use crate::cli::JournalHold;
use crate::config::Settings;
use crate::exit::{Done, Exit, Failure};
use crate::layout::Layout;
use crate::{lock, offline, output, show};

#[derive(Serialize)]
struct Shown {
    schema: &'static str,
    #[serde(flatten)]
    hold: Hold,
}

pub(super) fn run(layout: &Layout, settings: &Settings, verb: JournalHold) -> Done {
    match verb {
        JournalHold::Add { name, stream, from, until, first, last, format } => {
            if let Some(stream) = &stream
                && !is_stream(stream)
            {
                return Err(Failure::with(
                    Exit::Usage,
                    format!("`{stream}` is no stream; no hold was set"),
                    "write directory, team:ID or channel:ID; `holdfast journal show` gives an entry's stream",
                ));
            }
            let time = |text: Option<String>| text.map(|text| parse_time(&text)).transpose();
            let hold = Hold {
                name,
                stream,
                written_from: time(from)?,
                written_until: time(until)?,
                first: first.map(LocalPos),
                last: last.map(LocalPos),
                since: SystemClock.now(),
            };
            change(layout, settings, &HoldChange { name: hold.name.clone(), hold: Some(hold.clone()) })?;
            match format.json {
                true => output::json(&Shown { schema: "holdfast.hold/1", hold }),
                false => output::line(format!("hold set: {}", row(&hold))),
            }
        }
        JournalHold::Remove { name, format } => {
            let changed = change(layout, settings, &HoldChange { name: name.clone(), hold: None })?;
            if !changed.changed {
                return Err(Failure::new(
                    format!("there is no hold `{name}`; nothing was changed"),
                    "`holdfast journal hold list` shows the holds",
                ));
            }
            match format.json {
                true => output::json(&changed),
                false => output::line(format!("hold {name} removed; what it kept goes with the next trim")),
            }
        }
        JournalHold::List(format) => {
            for hold in super::journal::open(layout, settings)?.holds() {
                match format.json {
                    true => output::json_line(&Shown { schema: "holdfast.hold/1", hold }),
                    false => output::line(row(&hold)),
                }
            }
        }
    }
    Ok(Exit::Ok)
}

/// Asks the running node, or changes the journal of one that does not run.
fn change(layout: &Layout, settings: &Settings, change: &HoldChange) -> Result<HoldChanged, Failure> {
    match block_on(client::post(layout.data(), "/v1/journal/hold", change)) {
        Err(e) if e.exit == Exit::NotRunning => {
            let _lock = lock::take(layout.data())?;
            let key = offline::node_key(layout)?;
            offline::change_hold(&offline::open_journal(layout, settings, &key)?, change)
        }
        answer => answer,
    }
}

fn row(hold: &Hold) -> String {
    let mut parts = vec![hold.name.clone(), format!("since {}", show::time(hold.since))];
    parts.extend(hold.stream.as_ref().map(|stream| format!("stream {stream}")));
    parts.extend(hold.written_from.map(|at| format!("written from {}", show::time(at))));
    parts.extend(hold.written_until.map(|at| format!("until {}", show::time(at))));
    parts.extend(hold.first.map(|pos| format!("from place {}", pos.0)));
    parts.extend(hold.last.map(|pos| format!("to place {}", pos.0)));
    if parts.len() == 2 {
        parts.push("everything".to_owned());
    }
    parts.join(", ")
}

fn is_stream(text: &str) -> bool {
    let id = text.strip_prefix("team:").or_else(|| text.strip_prefix("channel:"));
    text == "directory" || id.is_some_and(|id| id.parse::<model::Id>().is_ok())
}

fn parse_time(text: &str) -> Result<UnixMillis, Failure> {
    let parsed: Result<jiff::Timestamp, _> = text.parse();
    parsed.map(|at| UnixMillis(at.as_millisecond())).map_err(|_| {
        Failure::with(
            Exit::Usage,
            format!("`{text}` is no time; no hold was set"),
            "write it with its zone, such as 2026-03-01T00:00:00Z",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hold_names_streams_and_times_that_exist() {
        assert!(is_stream("directory") && is_stream(&format!("channel:{}", model::Id::from_block([3; 16]))));
        assert!(!is_stream("channel:") && !is_stream("fires"));
        assert_eq!(parse_time("1970-01-01T00:00:02Z").unwrap(), UnixMillis(2_000));
        assert!(parse_time("yesterday").is_err());
    }
}
