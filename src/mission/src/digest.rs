//! One message about many late ones.
//!
//! A backlog of a long outage would ring every phone once per post. Late posts notify nobody; when the backlog
//! is drained each user who signs in here and is in one of the channels gets one direct message.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use model::{Id, NodeId};

use crate::channels::require_channel;
use crate::core::{Core, StoreError, Tx};
use crate::error::AppError;
use crate::posts::node_name;
use crate::replica::local_members;
use crate::rows::{all, id, node, run};

struct Late {
    channel: Id,
    author: Id,
    origin: NodeId,
    create_at: i64,
}

/// What one user missed from one origin.
#[derive(Default)]
struct Missed {
    by_channel: BTreeMap<Id, u64>,
    first: Option<i64>,
    last: Option<i64>,
}

/// Sends the digests that are due; to how many users.
pub(crate) fn flush(core: &Core) -> Result<u64, StoreError> {
    core.write(|tx| send(tx).map_err(|e| Failed(StoreError(e.to_string())))).map_err(|Failed(e)| e)
}

struct Failed(StoreError);

impl From<rusqlite::Error> for Failed {
    fn from(e: rusqlite::Error) -> Self {
        Self(e.into())
    }
}

fn send(tx: &mut Tx<'_>) -> Result<u64, AppError> {
    let late = all(&tx.db, "SELECT * FROM late_posts", [], |r| {
        Ok(Late {
            channel: id(r, "channel_id")?,
            author: id(r, "user_id")?,
            origin: node(r, "origin")?,
            create_at: r.get("create_at")?,
        })
    })?;
    if late.is_empty() {
        return Ok(0);
    }
    let mut members: BTreeMap<Id, Vec<Id>> = BTreeMap::new();
    let mut missed: BTreeMap<Id, BTreeMap<NodeId, Missed>> = BTreeMap::new();
    for post in &late {
        if let Entry::Vacant(place) = members.entry(post.channel) {
            place.insert(local_members(tx, post.channel)?.into_iter().map(|u| u.id).collect());
        }
        for user in members[&post.channel].iter().filter(|u| **u != post.author) {
            let from = missed.entry(*user).or_default().entry(post.origin).or_default();
            *from.by_channel.entry(post.channel).or_default() += 1;
            from.first = Some(from.first.map_or(post.create_at, |t| t.min(post.create_at)));
            from.last = Some(from.last.map_or(post.create_at, |t| t.max(post.create_at)));
        }
    }
    let told = missed.len() as u64;
    for (user, origins) in missed {
        let mut lines = Vec::new();
        for (origin, missed) in origins {
            lines.push(line(tx, origin, &missed)?);
        }
        let bot = tx.local_bot()?.user.id;
        let channel = tx.bot_channel(bot, user)?;
        tx.system_post(&channel, bot, "", lines.join("\n"), &[("from_bot", "true")])?;
    }
    run(&tx.db, "DELETE FROM late_posts", [])?;
    Ok(told)
}

fn line(tx: &Tx<'_>, origin: NodeId, missed: &Missed) -> Result<String, AppError> {
    let mut channels = Vec::new();
    for (channel, n) in &missed.by_channel {
        let c = require_channel(&tx.db, *channel)?.channel;
        let name = if c.is_direct_or_group() { "direct messages".to_owned() } else { format!("~{}", c.name) };
        channels.push(format!("{name} ({n})"));
    }
    let n: u64 = missed.by_channel.values().sum();
    let messages = if n == 1 { "late message" } else { "late messages" };
    Ok(format!(
        "{n} {messages} from {}: {}, written between {} and {}",
        node_name(tx.core, &tx.db, origin)?,
        channels.join(", "),
        moment(missed.first.unwrap_or(0)),
        moment(missed.last.unwrap_or(0)),
    ))
}

fn moment(ms: i64) -> String {
    match jiff::Timestamp::from_millisecond(ms) {
        Ok(t) => t.strftime("%Y-%m-%d %H:%M UTC").to_string(),
        Err(_) => format!("{ms} ms"),
    }
}
