//! Label and precedence of an event. Pure: what is known of the channel is an argument.

use model::pattern::matches_any;
use model::{Event, Label, Precedence};

use crate::settings::{CaptureSettings, ChannelKind};

/// Where an event belongs, as far as rules look at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// The users.
    Directory,
    /// A team itself.
    Team {
        /// Its name.
        team: String,
    },
    /// A channel of a team.
    Channel {
        /// Name of the team.
        team: String,
        /// Name of the channel.
        channel: String,
        /// Open or private.
        kind: ChannelKind,
    },
    /// A direct or group channel.
    Private(ChannelKind),
    /// The team or channel is not known here; nothing is released then.
    Unknown,
}

/// The label of what happens at `place`.
pub(crate) fn label(settings: &CaptureSettings, place: &Place) -> Label {
    let rule = |fits: &dyn Fn(&crate::ReleaseRule) -> bool| {
        settings.release.iter().find(|r| fits(r)).map_or_else(Label::local, |r| r.label.clone())
    };
    match place {
        Place::Directory if settings.directory => Label::directory(),
        Place::Directory | Place::Unknown => Label::local(),
        // The team is needed wherever one of its channels goes: the first rule that names the team decides.
        Place::Team { team } => rule(&|r| {
            matches_any(&r.teams, team) && r.kinds.iter().any(|k| matches!(k, ChannelKind::Open | ChannelKind::Private))
        }),
        Place::Channel { team, channel, kind } => {
            rule(&|r| matches_any(&r.teams, team) && matches_any(&r.channels, channel) && r.kinds.contains(kind))
        }
        Place::Private(kind) => rule(&|r| r.kinds.contains(kind)),
    }
}

/// How urgent an event is.
pub(crate) fn precedence(settings: &CaptureSettings, event: &Event, place: &Place) -> Precedence {
    match event {
        // Who was deactivated could still sign in there: this does not wait behind what others wrote.
        Event::User(user) if user.delete_at.0 > 0 => Precedence::Immediate,
        Event::User(_)
        | Event::Team(_)
        | Event::TeamMember(_)
        | Event::Channel(_)
        | Event::ChannelMember(_)
        | Event::Bookmark(_) => Precedence::Priority,
        // Somebody waits to hear that what they wrote was read.
        Event::Acknowledgement(_) => Precedence::Immediate.min(by_place(settings, place)),
        Event::Purge(_) => Precedence::Flash,
        Event::File(_) | Event::Emoji(_) => Precedence::Deferred,
        Event::Reaction(_) => by_place(settings, place),
        Event::Post(post) => {
            let own = post.priority.as_ref().map_or("", |p| p.priority.as_str());
            by_priority(own).min(by_place(settings, place))
        }
    }
}

/// How urgent a post is that has this priority of Mattermost's (empty for none), in a channel of a team if it is in one.
pub fn class_of_post(settings: &CaptureSettings, priority: &str, place: Option<(&str, &str)>) -> Precedence {
    let by_place = place.map_or(Precedence::Routine, |(team, channel)| by_names(settings, team, channel));
    by_priority(priority).min(by_place)
}

fn by_priority(priority: &str) -> Precedence {
    match priority {
        "urgent" => Precedence::Flash,
        "important" => Precedence::Immediate,
        _ => Precedence::Routine,
    }
}

fn by_place(settings: &CaptureSettings, place: &Place) -> Precedence {
    let Place::Channel { team, channel, .. } = place else { return Precedence::Routine };
    by_names(settings, team, channel)
}

fn by_names(settings: &CaptureSettings, team: &str, channel: &str) -> Precedence {
    let rule = settings.precedence.iter().find(|r| matches_any(&r.teams, team) && matches_any(&r.channels, channel));
    rule.map_or(Precedence::Routine, |r| r.class)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ReleaseRule;

    fn rule(label: &str, teams: &[&str], channels: &[&str], kinds: &[ChannelKind]) -> ReleaseRule {
        let own = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
        ReleaseRule { label: label.parse().unwrap(), teams: own(teams), channels: own(channels), kinds: kinds.to_vec() }
    }

    fn channel(team: &str, channel: &str, kind: ChannelKind) -> Place {
        Place::Channel { team: team.to_owned(), channel: channel.to_owned(), kind }
    }

    #[test]
    fn nothing_leaves_without_a_rule() {
        let settings = CaptureSettings::default();
        for place in [
            Place::Directory,
            Place::Team { team: "alpha".to_owned() },
            channel("alpha", "ops", ChannelKind::Open),
            Place::Private(ChannelKind::Direct),
            Place::Unknown,
        ] {
            assert_eq!(label(&settings, &place), Label::local(), "{place:?}");
        }
    }

    #[test]
    fn the_first_fitting_rule_labels_and_direct_messages_need_their_own() {
        use ChannelKind::{Direct, Open, Private};
        let settings = CaptureSettings {
            release: vec![
                rule("intel", &["alpha"], &["intel-*"], &[Open, Private]),
                rule("mission", &["*"], &["*"], &[Open]),
            ],
            directory: true,
            precedence: Vec::new(),
        };
        let of = |place: &Place| label(&settings, place).to_string();
        assert_eq!(of(&channel("alpha", "intel-north", Private)), "intel");
        assert_eq!(of(&channel("bravo", "intel-north", Private)), "local");
        assert_eq!(of(&channel("bravo", "town-square", Open)), "mission");
        assert_eq!(of(&Place::Private(Direct)), "local");
        assert_eq!(of(&Place::Directory), "directory");
    }

    #[test]
    fn a_deactivation_does_not_wait_behind_what_others_wrote() {
        let at = |ms| model::UnixMillis(ms);
        let user = |delete_at| {
            Event::User(model::event::UserState {
                version: model::Version { at: model::Hlc(1), by: model::NodeId([0; 16]) },
                id: model::Id::from_block([1; 16]),
                create_at: at(1),
                update_at: at(2),
                delete_at: at(delete_at),
                username: "anna".to_owned(),
                email: String::new(),
                nickname: String::new(),
                first_name: String::new(),
                last_name: String::new(),
                position: String::new(),
                locale: String::new(),
                is_bot: false,
                entra: None,
            })
        };
        let class = |delete_at| precedence(&CaptureSettings::default(), &user(delete_at), &Place::Directory);
        assert_eq!((class(0), class(2)), (Precedence::Priority, Precedence::Immediate));
        assert!(Precedence::Immediate < Precedence::Priority, "more urgent classes come first");
    }
}
