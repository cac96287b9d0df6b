//! `holdfast purge`: spilled content removed here and wherever it went.

use std::time::Duration;

use apply::Holdings;
use serde::Serialize;

use super::block_on;
use crate::admin::{PurgeOrdered, PurgeRequest, PurgeView, Purges, client};
use crate::cli::{Purge, PurgeOrder, PurgeVerb};
use crate::exit::{Done, Exit, Failure};
use crate::layout::Layout;
use crate::{config, output, show};

/// How long an order's first results are waited for: this node, and peers on a good link.
const WAIT: Duration = Duration::from_secs(5);

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(200);

pub(super) fn run(layout: &Layout, purge: Purge) -> Done {
    config::load(layout.data())?;
    match (purge.verb, purge.order) {
        (Some(PurgeVerb::Status { id, format }), _) => status(layout, id.as_deref(), format.json),
        (None, order) => order_or_show(layout, order),
    }
}

#[derive(Serialize)]
struct WouldGo<'a> {
    schema: &'static str,
    ordered: bool,
    #[serde(flatten)]
    holdings: &'a Holdings,
}

fn order_or_show(layout: &Layout, order: PurgeOrder) -> Done {
    let PurgeOrder { target, reason, by, keep_files, everywhere_used, yes, format } = order;
    let (Some(target), Some(reason)) = (target, reason) else {
        let next = "name a post, a file or an entry, and give a --reason";
        return Err(Failure::with(Exit::Usage, "nothing was named; nothing was changed", next));
    };
    let by = by.unwrap_or_else(login_name);
    let request = PurgeRequest { target, by, reason, keep_files, everywhere_used };
    let holdings: Holdings = block_on(client::post(layout.data(), "/v1/purge/preview", &request))?;
    if !format.json {
        show_holdings(&holdings);
    }
    let agreed = yes || (output::is_interactive() && !format.json && confirmed()?);
    if !agreed {
        match format.json {
            true => output::json(&WouldGo { schema: "holdfast.purge-preview/1", ordered: false, holdings: &holdings }),
            false => output::line("nothing was changed; --yes carries it out"),
        }
        return Ok(Exit::Ok);
    }
    let PurgeOrdered { ids } = block_on(client::post(layout.data(), "/v1/purge", &request))?;
    let purges = block_on(watch(layout, &ids))?;
    show_purges(purges, format.json)
}

fn login_name() -> String {
    let named = ["SUDO_USER", "USER", "LOGNAME"].into_iter().find_map(|name| std::env::var(name).ok());
    named.unwrap_or_else(|| "operator".to_owned())
}

fn confirmed() -> Result<bool, Failure> {
    output::ask("Remove this here and wherever it went? It cannot be undone. Type `purge` to go on: ");
    let mut line = String::new();
    let read = std::io::stdin().read_line(&mut line);
    read.map_err(|e| Failure::io("reading", std::path::Path::new("the terminal"), &e))?;
    Ok(line.trim() == "purge")
}

fn show_holdings(holdings: &Holdings) {
    for post in &holdings.core.posts {
        output::line(format!(
            "post {}  by {} in {}, {}: {} older texts and {} reactions go, {} replies stay",
            post.id,
            post.author,
            post.channel,
            show::time(post.create_at),
            post.edits,
            post.reactions,
            post.replies
        ));
    }
    for file in &holdings.core.files {
        output::line(format!("file {}  {}, {}", file.id, file.name, show::bytes(file.bytes)));
        if !file.same_bytes.is_empty() {
            let others = file.same_bytes.join(", ");
            output::line(format!("  the same bytes are in {others}; these go only with --everywhere-used"));
        }
    }
    output::line(format!("{} entries and {} chunks in this node's journal", holdings.entries, holdings.chunks));
    if !holdings.kept_for.is_empty() {
        let others = holdings.kept_for.join(", ");
        output::line(format!("some chunks stay, because other files need them: {others}"));
    }
}

/// The orders, as soon as they are carried out everywhere, or as they stand after a while.
async fn watch(layout: &Layout, ids: &[String]) -> Result<Vec<PurgeView>, Failure> {
    let looks = WAIT.as_millis() / LOOK_EVERY.as_millis();
    let mut ours = Vec::new();
    for _ in 0..looks {
        let all: Purges = client::get(layout.data(), "/v1/purges").await?;
        ours = all.purges.into_iter().filter(|purge| ids.contains(&purge.id)).collect();
        if ours.iter().all(PurgeView::is_done) {
            break;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(ours)
}

fn status(layout: &Layout, id: Option<&str>, json: bool) -> Done {
    let all: Purges = block_on(client::get(layout.data(), "/v1/purges"))?;
    let wanted: Vec<PurgeView> = all.purges.into_iter().filter(|p| id.is_none_or(|id| id == p.id)).collect();
    if let (Some(id), true) = (id, wanted.is_empty()) {
        let next = "`holdfast purge status` lists the orders that this node knows";
        return Err(Failure::new(format!("there is no order {id}"), next));
    }
    show_purges(wanted, json)
}

fn show_purges(purges: Vec<PurgeView>, json: bool) -> Done {
    let done = purges.iter().all(PurgeView::is_done);
    if json {
        output::json(&Purges { schema: Purges::SCHEMA.to_owned(), purges });
    } else if purges.is_empty() {
        output::line("no order to purge was given here or received");
    } else {
        purges.iter().for_each(show_purge);
    }
    Ok(if done { Exit::Ok } else { Exit::Degraded })
}

fn show_purge(purge: &PurgeView) {
    let from = purge.origin.as_ref().map_or(String::new(), |origin| format!(" at {origin}"));
    output::line(format!("purge {}  {}, by {}{from}: {}", purge.id, show::time(purge.at), purge.by, purge.reason));
    let here = match purge.done_at {
        Some(at) => format!("done {}", show::time(at)),
        None => "under way".to_owned(),
    };
    let j = &purge.done.journal;
    output::line(format!(
        "  {:<16} {here}: {} entries and {} chunks, {} segments written anew",
        "this node", j.entries, j.chunks, j.segments
    ));
    if j.damaged_bytes > 0 || j.set_aside_files > 0 {
        output::line(format!(
            "  {:<16} might have held some of it: {} of damage, sealed with a lost key now, and {} copies, removed",
            "",
            show::bytes(j.damaged_bytes),
            j.set_aside_files
        ));
    }
    if !purge.done.kept_for.is_empty() {
        output::line(format!("  {:<16} chunks that other files need stayed: {}", "", purge.done.kept_for.join(", ")));
    }
    for node in &purge.nodes {
        output::line(format!("  {:<16} {}", node.name, node.state));
    }
}
