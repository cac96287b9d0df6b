//! Which entries go to a target, and why the others do not. Pure.

use microsoft::targets::{TargetKind, TargetSettings};
use mission::ChannelPlace;
use model::pattern::matches_any;
use model::{Event, Header, Id, ObjectRef};
use serde::{Deserialize, Serialize};

/// Where an entry goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// To the target.
    Take(Taken),
    /// Not released to it.
    Withhold(Why),
    /// Released, and nothing at the target can express it.
    Missing(Missing),
    /// Its channel is not known here yet.
    Unplaced,
    /// An order to remove content: concerns every target that may hold some of it.
    Purge,
}

/// What is known of an entry that goes to the target, without its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Ordering domain: team and channel.
    pub lane: String,
    /// What it is about; equal for all versions of it.
    pub object: String,
    /// The post that has to be there first, or that it belongs to.
    pub post: Option<Id>,
    /// It says that the object is gone.
    pub deletes: bool,
}

/// Why an entry is withheld.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    /// The target does not carry its label.
    Label,
    /// The target names neither its team nor its channel.
    Unmapped,
    /// Direct and group messages go to no target.
    Direct,
    /// The target does not take its class.
    Precedence,
    /// Of the directory, a team, a membership, or a note that the server wrote itself.
    NoMessage,
    /// Its channel never became known here.
    UnknownChannel,
}

/// What a target cannot express.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Missing {
    /// Somebody confirmed that a post was read.
    Acknowledgement,
    /// A link or file above a channel.
    Bookmark,
    /// A picture of the mission's own with a name.
    CustomEmoji,
    /// A changed text, where the cloud changes no message.
    Edit,
    /// A removed message, where the cloud removes none.
    Delete,
    /// A reaction, where the kind of target has none.
    Reaction,
    /// The bytes of a file, where the kind of target carries none; its name and size are told.
    FileBytes,
}

impl Why {
    /// Name used in output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Label => "label",
            Self::Unmapped => "unmapped",
            Self::Direct => "direct",
            Self::Precedence => "precedence",
            Self::NoMessage => "no-message",
            Self::UnknownChannel => "unknown-channel",
        }
    }
}

impl Missing {
    /// Name used in the ledger and in output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Acknowledgement => "acknowledgement",
            Self::Bookmark => "bookmark",
            Self::CustomEmoji => "custom-emoji",
            Self::Edit => "edit",
            Self::Delete => "delete",
            Self::Reaction => "reaction",
            Self::FileBytes => "file-bytes",
        }
    }
}

/// Channel that an event happened in, if it happened in one.
pub fn channel_of(event: &Event) -> Option<Id> {
    match event {
        Event::Post(s) => Some(s.channel_id),
        Event::Reaction(s) => Some(s.channel_id),
        Event::File(s) => Some(s.channel_id),
        Event::Acknowledgement(s) => Some(s.channel_id),
        Event::Bookmark(s) => Some(s.channel_id),
        Event::User(_)
        | Event::Team(_)
        | Event::TeamMember(_)
        | Event::Channel(_)
        | Event::ChannelMember(_)
        | Event::Purge(_)
        | Event::Emoji(_) => None,
    }
}

/// Does it say that something is no longer there?
pub fn takes_back(event: &Event) -> bool {
    match event {
        Event::Post(s) => s.delete_at.0 != 0,
        Event::Reaction(s) => s.delete_at.0 != 0,
        Event::User(_)
        | Event::Team(_)
        | Event::TeamMember(_)
        | Event::Channel(_)
        | Event::ChannelMember(_)
        | Event::File(_)
        | Event::Purge(_)
        | Event::Acknowledgement(_)
        | Event::Bookmark(_)
        | Event::Emoji(_) => false,
    }
}

/// Where an entry goes. `place` is what is known of its channel.
pub fn route(target: &TargetSettings, header: &Header, event: &Event, place: Option<&ChannelPlace>) -> Route {
    if matches!(event, Event::Purge(_)) {
        return Route::Purge;
    }
    if !target.labels.contains(&header.label) {
        return Route::Withhold(Why::Label);
    }
    if matches!(event, Event::Emoji(_)) {
        return Route::Missing(Missing::CustomEmoji);
    }
    if channel_of(event).is_none() {
        return Route::Withhold(Why::NoMessage);
    }
    let Some(place) = place else { return Route::Unplaced };
    let Some(team) = &place.team else { return Route::Withhold(Why::Direct) };
    if !matches_any(&target.teams, team) || !matches_any(&target.channels, &place.name) {
        return Route::Withhold(Why::Unmapped);
    }
    if !target.precedences.is_empty() && !target.precedences.contains(&header.precedence) {
        return Route::Withhold(Why::Precedence);
    }
    let lane = format!("{team}/{}", place.name);
    let take =
        |post, deletes| Route::Take(Taken { lane: lane.clone(), object: object_key(&event.object()), post, deletes });
    match event {
        // "system_..." are notes of the server: who joined, who renamed a channel. The archive keeps them.
        Event::Post(s) if s.kind.starts_with("system_") && target.kind != TargetKind::SharepointArchive => {
            Route::Withhold(Why::NoMessage)
        }
        Event::Post(s) => take(s.root_id, s.delete_at.0 != 0),
        Event::Reaction(_) if matches!(target.kind, TargetKind::TeamsImport | TargetKind::MailImport) => {
            Route::Missing(Missing::Reaction)
        }
        Event::Reaction(s) => take(Some(s.post_id), s.delete_at.0 != 0),
        Event::File(_)
            if matches!(target.kind, TargetKind::Mail | TargetKind::MailImport | TargetKind::TeamsDigest) =>
        {
            Route::Missing(Missing::FileBytes)
        }
        // A file that no post shows was never sent by its author.
        Event::File(s) if s.post_id.is_none() => Route::Withhold(Why::NoMessage),
        Event::File(s) => take(s.post_id, false),
        Event::Acknowledgement(_) => Route::Missing(Missing::Acknowledgement),
        Event::Bookmark(_) => Route::Missing(Missing::Bookmark),
        Event::User(_)
        | Event::Team(_)
        | Event::TeamMember(_)
        | Event::Channel(_)
        | Event::ChannelMember(_)
        | Event::Purge(_)
        | Event::Emoji(_) => Route::Withhold(Why::NoMessage),
    }
}

/// Name of an object in the ledger.
pub fn object_key(object: &ObjectRef) -> String {
    match object {
        ObjectRef::User(a) => format!("user:{a}"),
        ObjectRef::Team(a) => format!("team:{a}"),
        ObjectRef::TeamMember(a, b) => format!("team-member:{a}:{b}"),
        ObjectRef::Channel(a) => format!("channel:{a}"),
        ObjectRef::ChannelMember(a, b) => format!("channel-member:{a}:{b}"),
        ObjectRef::Post(a) => post_key(*a),
        ObjectRef::Reaction(a, b, emoji) => format!("reaction:{a}:{b}:{emoji}"),
        ObjectRef::File(a) => file_key(*a),
        ObjectRef::Purge(a) => format!("purge:{a}"),
        ObjectRef::Acknowledgement(a, b) => format!("acknowledgement:{a}:{b}"),
        ObjectRef::Bookmark(a) => format!("bookmark:{a}"),
        ObjectRef::Emoji(a) => format!("emoji:{a}"),
    }
}

/// Name of a post in the ledger.
pub fn post_key(post: Id) -> String {
    format!("post:{post}")
}

/// Name of a file in the ledger.
pub fn file_key(file: Id) -> String {
    format!("file:{file}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::targets::testkit::{header, id, post, reaction, target};
    use model::Precedence;

    fn place(team: Option<&str>, name: &str) -> ChannelPlace {
        ChannelPlace { kind: "O".to_owned(), name: name.to_owned(), team: team.map(str::to_owned) }
    }

    #[test]
    fn nothing_goes_until_label_team_and_channel_are_named() {
        let event = post(1, "hello");
        let ops = place(Some("alpha"), "ops");
        let of = |change: &dyn Fn(&mut TargetSettings)| {
            let mut settings = target(TargetKind::TeamsDelegated);
            change(&mut settings);
            route(&settings, &header(&event, 1), &event, Some(&ops))
        };
        assert!(matches!(of(&|_| {}), Route::Take(_)));
        assert_eq!(of(&|t| t.labels.clear()), Route::Withhold(Why::Label));
        assert_eq!(of(&|t| t.labels = vec!["intel".parse().unwrap()]), Route::Withhold(Why::Label));
        assert_eq!(of(&|t| t.teams.clear()), Route::Withhold(Why::Unmapped));
        assert_eq!(of(&|t| t.channels = vec!["intel-*".to_owned()]), Route::Withhold(Why::Unmapped));
        assert_eq!(of(&|t| t.precedences = vec![Precedence::Flash]), Route::Withhold(Why::Precedence));
        let settings = target(TargetKind::TeamsDelegated);
        let header = header(&event, 1);
        assert_eq!(route(&settings, &header, &event, None), Route::Unplaced);
        assert_eq!(route(&settings, &header, &event, Some(&place(None, "a__b"))), Route::Withhold(Why::Direct));
    }

    #[test]
    fn a_reply_and_a_reaction_name_the_post_that_they_need() {
        let settings = target(TargetKind::TeamsDelegated);
        let ops = place(Some("alpha"), "ops");
        let mut event = post(2, "reply");
        if let Event::Post(s) = &mut event {
            s.root_id = Some(id(1));
            s.delete_at = model::UnixMillis(5);
        }
        let Route::Take(taken) = route(&settings, &header(&event, 1), &event, Some(&ops)) else { panic!() };
        assert_eq!((taken.lane.as_str(), taken.post, taken.deletes), ("alpha/ops", Some(id(1)), true));
        assert_eq!(taken.object, post_key(id(2)));
        let event = reaction(2, 7, "+1", true);
        let Route::Take(taken) = route(&settings, &header(&event, 1), &event, Some(&ops)) else { panic!() };
        assert_eq!((taken.post, taken.deletes), (Some(id(2)), false));
    }
}
