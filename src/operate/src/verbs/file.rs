//! `holdfast file`

use super::block_on;
use crate::admin::{FileRequest, FileState, FileView, client};
use crate::cli::File;
use crate::exit::{Done, Exit};
use crate::layout::Layout;
use crate::{config, output, show};

pub(super) fn run(layout: &Layout, verb: File) -> Done {
    config::load(layout.data())?;
    let ask = |id: String, class| -> Result<FileView, crate::exit::Failure> {
        block_on(client::post(layout.data(), "/v1/file", &FileRequest { id, class }))
    };
    let (view, format) = match verb {
        File::Show { id, format } => (ask(id, None)?, format),
        // What it takes is looked at first: once it is asked for, it may be on its way within the second.
        File::Request { id, class, format } => {
            let before = ask(id.clone(), None)?;
            let after = ask(id, Some(class))?;
            (FileView { missing_bytes: before.missing_bytes, cost: before.cost, eta: before.eta, ..after }, format)
        }
    };
    match format.json {
        true => output::json(&view),
        false => screen(&view).iter().for_each(output::line),
    }
    Ok(Exit::Ok)
}

fn screen(view: &FileView) -> Vec<String> {
    let mut lines =
        vec![format!("{} {} ({}, {}): {}", view.id, view.name, show::bytes(view.bytes), view.mime_type, view.state)];
    if view.state == FileState::Here {
        return lines;
    }
    let from = view.from.as_ref().map_or(String::new(), |from| format!(" from {from}"));
    let link = view.link.as_ref().map_or(String::new(), |link| format!(", the link is {link}"));
    let eta = view.eta.map_or(String::new(), |eta| format!(": {} of an open link", super::backlog::time(eta)));
    let cost = view.cost.map_or(String::new(), |cost| format!(", costs {cost}"));
    lines.push(format!("  {} to come{from}{eta}{cost}{link}", show::bytes(view.missing_bytes)));
    if let Some(class) = &view.requested {
        lines.push(format!("  asked for, as {class}"));
    }
    lines
}
