//! What one chat post takes on disk: posts are encoded and appended as capture does, and the segments' growth is divided.

use std::sync::Arc;

use journal::{Draft, IndexPlace, Journal, JournalOptions, JournalSettings, StdDisk, Ticket};
use model::{Event, Label, ObjectRef, Precedence, SourcePosition};

use crate::Error;
use crate::append::at_rest;
use crate::clock::WallClock;
use crate::corpus::{Chat, MINT_SALT, NODE, when};
use crate::report::Bench;

const NAME: &str = "disk";

/// As many as capture has under way at once.
const AT_ONCE: usize = 64;

pub(crate) fn run(bench: &mut Bench) -> Result<(), Error> {
    let posts: usize = bench.scale.pick(200, 20_000, 100_000);
    let scratch = bench.scratch()?;
    let journal = Journal::open(JournalOptions {
        dir: scratch.path().join("journal"),
        node: NODE,
        disk: Arc::new(StdDisk),
        clock: Arc::new(WallClock),
        settings: JournalSettings::default(),
        index: IndexPlace::Sled,
        at_rest: at_rest(),
    })?
    .0;
    let (mut chat, setup) = Chat::begin(1);
    append(&journal, setup)?;
    let before = journal.stats().bytes;
    let (mut text_bytes, mut entry_bytes, mut left) = (0, 0, posts);
    while left > 0 {
        let events: Vec<Event> = (0..left.min(AT_ONCE)).map(|_| chat.post()).collect();
        left -= events.len();
        text_bytes += events.iter().map(text_len).sum::<usize>();
        entry_bytes += append(&journal, events)?;
    }
    let per_post = |bytes: f64| bytes / posts as f64;
    let disk = per_post((journal.stats().bytes - before) as f64);
    let params = [("posts", posts.into())];
    bench.row(NAME, "text of the post", &params, per_post(text_bytes as f64), "bytes/post");
    bench.row(NAME, "encoded event", &params, per_post(entry_bytes as f64), "bytes/post");
    bench.row(NAME, "journal segments", &params, disk, "bytes/post");
    bench.summary.chat_entry_disk_bytes = Some(disk);
    Ok(())
}

/// Appends the events as capture does; returns the size of their encoded states.
fn append(journal: &Journal, events: Vec<Event>) -> Result<usize, Error> {
    let mut bytes = 0;
    let tickets: Vec<Ticket<_>> = events
        .into_iter()
        .map(|event| {
            let draft = draft(&event);
            bytes += draft.body.len();
            journal.append_own(draft)
        })
        .collect();
    tickets.into_iter().try_for_each(|ticket| ticket.wait().map(drop))?;
    Ok(bytes)
}

fn draft(event: &Event) -> Draft {
    let (origin_time, at) = when(event);
    Draft {
        source: SourcePosition(at),
        follows: None,
        stream: event.stream(),
        causes: Vec::new(),
        needs: event.needs().iter().map(ObjectRef::key).collect(),
        precedence: Precedence::Routine,
        captured: at,
        origin_time,
        expiry: None,
        supersedes: None,
        label: Label::local(),
        kind: event.kind(),
        mint_salt: MINT_SALT,
        body: wire::encode_event(event, NODE, MINT_SALT),
        object: Some(event.object().key()),
        chunks: None,
    }
}

fn text_len(event: &Event) -> usize {
    match event {
        Event::Post(post) => post.message.len(),
        Event::User(_)
        | Event::Team(_)
        | Event::TeamMember(_)
        | Event::Channel(_)
        | Event::ChannelMember(_)
        | Event::Reaction(_)
        | Event::File(_)
        | Event::Emoji(_)
        | Event::Purge(_)
        | Event::Acknowledgement(_)
        | Event::Bookmark(_) => 0,
    }
}
