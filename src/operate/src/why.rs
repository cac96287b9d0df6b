//! Where a post, a file or an entry is, for each destination, and what it waits for: `holdfast why`.

use std::time::Duration;

use carrier::{PeerState, consumer_name};
use journal::{About, Journal, Listed, Place, ReadError, Reader, Which};
use link::SentSoFar;
use model::{BitsPerSecond, EntryId, Event, Id, Kind, Label, NodeId, ObjectRef, Outcome, Precedence, UnixMillis};
use serde::{Deserialize, Serialize};

use crate::backlog::{Basis, Eta, FrameRate, Ratios, state_name};
use crate::exit::{Exit, Failure, chain};
use crate::show;

/// Name and version of the JSON form. Fields are only added within a version.
pub const SCHEMA: &str = "holdfast.why/1";

/// Everything that `holdfast why` shows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Why {
    /// [`SCHEMA`].
    pub schema: String,
    /// When it was looked at, by the node's clock.
    pub at: UnixMillis,
    /// `false`: from the node's files alone, since it does not run.
    pub running: bool,
    /// What was asked about.
    pub asked: String,
    /// What is known beside the entries; empty when they say all.
    pub note: String,
    /// The entries: every state of a post or file that is held, and the files of a post. The oldest first.
    pub entries: Vec<WhyEntry>,
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WhyEntry {
    /// Its identity: origin/epoch/number.
    pub entry: String,
    /// Its place in this journal.
    pub pos: u64,
    /// Who captured it: `this node` or a peer's name.
    pub from: String,
    /// What it holds.
    pub kind: String,
    /// Its sending class.
    pub class: String,
    /// Its release label.
    pub label: String,
    /// Its stream.
    pub stream: String,
    /// When it was captured.
    pub captured_at: UnixMillis,
    /// Encoded size, with the whole content of a file.
    pub plain_bytes: u64,
    /// Entries that must come before it.
    pub causes: Vec<String>,
    /// For what a peer sent: how far it is here. Absent for own entries, and when the node does not run.
    pub here: Option<String>,
    /// For own entries: how far it is at each peer.
    pub destinations: Vec<WhyAt>,
}

/// How far an entry is at a peer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WhyAt {
    /// The peer's name.
    pub peer: String,
    /// How far.
    pub stage: Stage,
    /// The same for people, with what it waits for.
    pub text: String,
    /// May it go there, as the labels are now?
    pub releasable: bool,
    /// State of the link; `None` when the node does not run.
    pub link: Option<String>,
    /// Since it was sent on the present connection, while there is no receipt.
    pub sent_seconds_ago: Option<f64>,
    /// Entries that go before it.
    pub ahead_entries: u64,
    /// What they come to on the link.
    pub ahead_link_bytes: u64,
    /// What itself comes to, as far as it has not crossed.
    pub link_bytes: u64,
    /// Causes that have not ended there.
    pub waits_for: Vec<String>,
    /// When it should have crossed; counted from when the link is up. `None` where it never goes or is there already.
    pub eta: Option<Eta>,
    /// Where the rate behind `eta` comes from.
    pub basis: Option<Basis>,
}

/// How far an entry is at a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Its label may not go there: it will be withheld when the session comes to it.
    NotReleasable,
    /// Not sent on the present connection.
    Waiting,
    /// Sent, no receipt yet.
    Sent,
    /// Durable there, not in effect yet.
    Stored,
    /// Ended.
    Applied,
    /// Ended.
    Quarantined,
    /// Ended.
    Expired,
    /// Ended.
    Superseded,
    /// Ended.
    Withheld,
    /// Ended.
    Purged,
}

impl Stage {
    fn ended(outcome: Outcome) -> (Self, &'static str) {
        match outcome {
            Outcome::Applied => (Self::Applied, "in effect there"),
            Outcome::Quarantined => (Self::Quarantined, "cannot be applied there, or is damaged here; kept aside"),
            Outcome::Expired => (Self::Expired, "its expiry passed before it was sent"),
            Outcome::Superseded => (Self::Superseded, "a newer state made it moot, or it has another number by now"),
            Outcome::Withheld => (Self::Withheld, "policy does not release it there"),
            Outcome::Purged => (Self::Purged, "its content was removed on order"),
        }
    }
}

/// A peer, as far as `why` needs it.
pub struct Destination {
    /// Its identity.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// State of its link; `None` when the node does not run.
    pub link: Option<PeerState>,
    /// What it may get.
    pub labels: Vec<Label>,
    /// What its session has sent.
    pub sent: SentSoFar,
    /// How fast, as far as it was measured.
    pub measured: Option<FrameRate>,
    /// Ceiling of the link.
    pub ceiling: BitsPerSecond,
}

/// What can only be asked of a running node.
pub trait Live {
    /// For how long an own entry has been on its way to a peer.
    fn on_its_way(&self, peer: NodeId, entry: EntryId) -> Option<Duration>;
    /// How far an entry of a peer is here; `None` when that is not known.
    fn here(&self, header: &model::Header) -> Option<String>;
    /// Is a change of this object committed and not captured yet?
    fn is_being_captured(&self, object: &[ObjectRef]) -> bool;
}

/// A journal that is asked.
pub trait Log {
    /// As [`Journal::node`].
    fn node(&self) -> NodeId;
    /// As [`Journal::show`].
    ///
    /// # Errors
    /// When it cannot be read.
    fn show(&self, which: Which) -> Result<Option<Listed>, ReadError>;
    /// As [`Journal::about`].
    ///
    /// # Errors
    /// When it cannot be read.
    fn about(&self, objects: &[ObjectRef]) -> Result<About, ReadError>;
    /// As [`Journal::places`].
    fn places(&self, id: EntryId, class: Precedence) -> Vec<Place>;
}

macro_rules! impl_log {
    ($($of:ty),*) => {$(
        impl Log for $of {
            fn node(&self) -> NodeId {
                self.node()
            }
            fn show(&self, which: Which) -> Result<Option<Listed>, ReadError> {
                self.show(which)
            }
            fn about(&self, objects: &[ObjectRef]) -> Result<About, ReadError> {
                self.about(&objects.iter().map(ObjectRef::key).collect::<Vec<_>>())
            }
            fn places(&self, id: EntryId, class: Precedence) -> Vec<Place> {
                self.places(id, class)
            }
        }
    )*};
}

impl_log!(Journal, Reader);

/// Everything about `asked`.
///
/// # Errors
/// When it names nothing, or the journal cannot be read.
pub fn why(
    asked: &str,
    log: &dyn Log,
    destinations: &[Destination],
    live: Option<&dyn Live>,
    now: UnixMillis,
) -> Result<Why, Failure> {
    check_name(asked)?;
    let failed = |e: ReadError| Failure::new(chain(&e), e.next_step());
    let mut why = Why {
        schema: SCHEMA.to_owned(),
        at: now,
        running: live.is_some(),
        asked: asked.to_owned(),
        note: String::new(),
        entries: Vec::new(),
    };
    let entries = if let Some(which) = crate::verbs::parse_which(asked) {
        let found = log.show(which).map_err(failed)?;
        if found.is_none() {
            why.note = "the journal holds no such entry: it was never given out, or every destination has finished \
                        with it and it was trimmed"
                .to_owned();
        }
        found.into_iter().collect()
    } else if let Ok(id) = asked.parse::<Id>() {
        let objects = objects_named(id);
        let mut about = log.about(&objects).map_err(failed)?;
        let files: Vec<ObjectRef> = about.entries.iter().flat_map(files_of).collect();
        if !files.is_empty() {
            let mut more = log.about(&files).map_err(failed)?;
            about.complete &= more.complete;
            about.entries.append(&mut more.entries);
            about.entries.sort_by_key(|listed| listed.pos);
            about.entries.dedup_by_key(|listed| listed.pos);
        }
        why.note = match (live, about.entries.is_empty(), about.complete) {
            (Some(live), _, _) if live.is_being_captured(&objects) => {
                "a change of it is committed and about to be captured into the journal".to_owned()
            }
            (_, true, true) => "the journal holds no entry about it: it was never captured here, or every destination \
                                has finished with it and it was trimmed"
                .to_owned(),
            (_, _, false) => {
                format!("only {} entries were looked at; there may be more about it", about.walked)
            }
            (_, false, true) => String::new(),
        };
        about.entries
    } else {
        Vec::new()
    };
    why.entries = entries.iter().map(|listed| entry(listed, log, destinations, live)).collect();
    Ok(why)
}

/// Does the text name anything at all?
///
/// # Errors
/// When it does not.
pub fn check_name(asked: &str) -> Result<(), Failure> {
    match crate::verbs::parse_which(asked).is_some() || asked.parse::<Id>().is_ok() {
        true => Ok(()),
        false => {
            let next = "give the id of a post or file, or an entry as `holdfast journal list` shows it";
            Err(Failure::with(Exit::Usage, format!("`{asked}` names no post, file or entry"), next))
        }
    }
}

/// What has this id: kinds do not share ids, so at most one of these exists.
fn objects_named(id: Id) -> Vec<ObjectRef> {
    vec![
        ObjectRef::Post(id),
        ObjectRef::File(id),
        ObjectRef::Channel(id),
        ObjectRef::User(id),
        ObjectRef::Team(id),
        ObjectRef::Purge(id),
        ObjectRef::Emoji(id),
    ]
}

fn files_of(listed: &Listed) -> Vec<ObjectRef> {
    match wire::decode_event(&listed.entry) {
        Ok(Event::Post(post)) => post.files.iter().map(|stub| ObjectRef::File(stub.id)).collect(),
        Ok(
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
            | Event::Bookmark(_),
        )
        | Err(_) => Vec::new(),
    }
}

/// Bytes of an entry, with the content of its file.
fn plain_bytes(listed: &Listed) -> u64 {
    let content = match wire::decode_event(&listed.entry) {
        Ok(Event::File(file)) => file.content.map_or(0, |manifest| manifest.content_bytes),
        Ok(
            Event::User(_)
            | Event::Team(_)
            | Event::TeamMember(_)
            | Event::Channel(_)
            | Event::ChannelMember(_)
            | Event::Post(_)
            | Event::Reaction(_)
            | Event::Emoji(_)
            | Event::Purge(_)
            | Event::Acknowledgement(_)
            | Event::Bookmark(_),
        )
        | Err(_) => 0,
    };
    listed.bytes + content
}

fn entry(listed: &Listed, log: &dyn Log, destinations: &[Destination], live: Option<&dyn Live>) -> WhyEntry {
    let header = &listed.entry.header;
    let own = header.id.origin == log.node();
    let origin = destinations.iter().find(|d| d.node == header.id.origin).map(|d| d.name.clone());
    let at = match own {
        true => places(listed, log, destinations, live),
        false => Vec::new(),
    };
    WhyEntry {
        entry: header.id.to_string(),
        pos: listed.pos.0,
        from: match own {
            true => "this node".to_owned(),
            false => origin.unwrap_or_else(|| header.id.origin.to_string()),
        },
        kind: header.kind.as_str().to_owned(),
        class: header.precedence.as_str().to_owned(),
        label: header.label.to_string(),
        stream: header.stream.to_string(),
        captured_at: header.captured.millis(),
        plain_bytes: plain_bytes(listed),
        causes: header.causes.iter().map(ToString::to_string).collect(),
        here: live.filter(|_| !own).and_then(|live| live.here(header)),
        destinations: at,
    }
}

fn places(listed: &Listed, log: &dyn Log, destinations: &[Destination], live: Option<&dyn Live>) -> Vec<WhyAt> {
    let header = &listed.entry.header;
    let places = log.places(header.id, header.precedence);
    let causes: Vec<(EntryId, Vec<Place>)> =
        header.causes.iter().map(|cause| (*cause, log.places(*cause, header.precedence))).collect();
    let to = destinations.iter().filter_map(|to| {
        let name = consumer_name(to.node);
        let place = places.iter().find(|place| place.consumer == name)?;
        let waits_for = causes.iter().filter(|(cause, places)| {
            let there = places.iter().find(|place| place.consumer == name);
            cause.origin == log.node() && there.is_some_and(|there| there.outcome.is_none())
        });
        let waits_for: Vec<EntryId> = waits_for.map(|(cause, _)| *cause).collect();
        Some(at(listed, place, to, &waits_for, live))
    });
    to.collect()
}

fn at(listed: &Listed, place: &Place, to: &Destination, waits_for: &[EntryId], live: Option<&dyn Live>) -> WhyAt {
    let header = &listed.entry.header;
    let releasable = header.label != Label::local() && to.labels.contains(&header.label);
    let on_its_way = live.and_then(|live| live.on_its_way(to.node, header.id));
    let ratios = Ratios::of(&to.sent);
    let ahead_link_bytes = Precedence::ALL
        .into_iter()
        .map(|class| ratios.remaining(class, place.ahead[class.index()].bytes).link_bytes)
        .sum();
    let there = to.sent.files_there.iter().find(|f| (f.epoch, f.seq) == (header.id.epoch, header.id.seq));
    let there = there.map_or(0, |file| file.bytes);
    let own = ratios.link_bytes(header.precedence, plain_bytes(listed).saturating_sub(there));
    let rate = to.measured.unwrap_or_else(|| FrameRate::configured(to.ceiling));
    let content_missing = header.kind == Kind::File && place.outcome.is_none();
    let (stage, mut text) = match (place.outcome, place.stored) {
        (Some(outcome), _) => {
            let (stage, text) = Stage::ended(outcome);
            (stage, text.to_owned())
        }
        (None, true) => (Stage::Stored, "durable there, not in effect yet".to_owned()),
        (None, false) if on_its_way.is_some() => (Stage::Sent, "sent, no receipt yet".to_owned()),
        (None, false) if !releasable => (
            Stage::NotReleasable,
            format!("its label `{}` is none of those that may go there; it will be withheld", header.label),
        ),
        (None, false) => (Stage::Waiting, "waits to be sent".to_owned()),
    };
    let is_to_cross = match stage {
        Stage::Waiting | Stage::Sent => true,
        Stage::Stored => content_missing,
        Stage::NotReleasable
        | Stage::Applied
        | Stage::Quarantined
        | Stage::Expired
        | Stage::Superseded
        | Stage::Withheld
        | Stage::Purged => false,
    };
    let link_bytes = if is_to_cross { own } else { 0 };
    let ahead_entries = place.ahead.iter().map(|ahead| ahead.entries).sum();
    let eta = is_to_cross.then(|| rate.time_for(ahead_link_bytes + link_bytes, 0));
    if stage == Stage::Waiting && ahead_entries > 0 {
        text.push_str(&format!(" behind {ahead_entries} entries ({} on the link)", show::bytes(ahead_link_bytes)));
    }
    if stage == Stage::Stored && content_missing {
        text.push_str(&format!("; about {} of its content are still to cross", show::bytes(link_bytes)));
    }
    if let (Stage::Waiting | Stage::Sent | Stage::Stored, Some(cause)) = (stage, waits_for.first()) {
        text.push_str(&format!("; needs {cause}, which has not taken effect there"));
    }
    if let (true, Some(link)) = (is_to_cross, &to.link)
        && !matches!(link, PeerState::Up { .. })
    {
        text.push_str(&format!("; the link is {}", state_name(link)));
    }
    WhyAt {
        peer: to.name.clone(),
        stage,
        text,
        releasable,
        link: to.link.as_ref().map(|state| state_name(state).to_owned()),
        sent_seconds_ago: on_its_way.map(|d| d.as_secs_f64()),
        ahead_entries,
        ahead_link_bytes,
        link_bytes,
        waits_for: waits_for.iter().map(ToString::to_string).collect(),
        eta,
        basis: eta.map(|_| rate.basis),
    }
}
