//! The built-in commands. Those for looks and dialogs of the web app are carried out there; asked here, they say so.

use model::Id;

use super::commands::{Command, CommandArgs, CommandReply};
use crate::core::Core;
use crate::error::{AppError, AppResult};
use crate::rows::{first_id, get};
use crate::teams::team_row_by_id;
use crate::types::{Channel, ChannelPatch, CustomStatus, Preference, Session, StringMap};

/// A built-in command: word, hint, what it does.
pub(super) struct BuiltIn {
    pub(super) trigger: &'static str,
    hint: &'static str,
    help: &'static str,
    run: Run,
}

/// What it comes down to.
#[derive(Clone, Copy)]
enum Run {
    Status(&'static str),
    CustomStatus,
    Say(fn(&str) -> CommandReply),
    Channel(&'static str),
    Previews(bool),
    Join,
    Leave,
    Mute,
    Message,
    GroupMessage,
    Invite,
    Remove,
    Help,
    Logout,
    InClient,
}

const fn entry(trigger: &'static str, hint: &'static str, help: &'static str, run: Run) -> BuiltIn {
    BuiltIn { trigger, hint, help, run }
}

/// Every built-in command, by its word.
pub(super) const BUILT_IN: &[BuiltIn] = &[
    entry("away", "", "Set your status to away", Run::Status("away")),
    entry("code", "[text]", "Show text as a block of code", Run::Say(code)),
    entry("collapse", "", "Fold previews of images", Run::Previews(true)),
    entry("dnd", "", "Do not disturb: no notifications", Run::Status("dnd")),
    entry("echo", "[message]", "Say something from your account", Run::Say(echo)),
    entry("expand", "", "Unfold previews of images", Run::Previews(false)),
    entry("groupmsg", "@[username1],@[username2] [message]", "Send a message to several users", Run::GroupMessage),
    entry("header", "[text]", "Change the header of the channel", Run::Channel("header")),
    entry("help", "", "List the commands", Run::Help),
    entry("invite", "@[username]... ~[channel]...", "Add users to a channel", Run::Invite),
    entry("join", "~[channel]", "Join an open channel", Run::Join),
    entry("kick", "@[username]", "Remove a user from the channel", Run::Remove),
    entry("leave", "", "Leave the channel", Run::Leave),
    entry("logout", "", "Log out", Run::Logout),
    entry("me", "[message]", "Say what you do", Run::Say(me)),
    entry("msg", "@[username] [message]", "Send a message to a user", Run::Message),
    entry("mute", "~[channel]", "Mute a channel, or unmute it", Run::Mute),
    entry("offline", "", "Set your status to offline", Run::Status("offline")),
    entry("online", "", "Set your status to online", Run::Status("online")),
    entry("open", "~[channel]", "Join an open channel", Run::Join),
    entry("purpose", "[text]", "Change the purpose of the channel", Run::Channel("purpose")),
    entry("remove", "@[username]", "Remove a user from the channel", Run::Remove),
    entry("rename", "[text]", "Change the name of the channel", Run::Channel("rename")),
    entry("search", "[text]", "Search in messages", Run::InClient),
    entry("settings", "", "Open the settings", Run::InClient),
    entry("shortcuts", "", "List the keyboard shortcuts", Run::InClient),
    entry("shrug", "[message]", "Add a shrug to your message", Run::Say(shrug)),
    entry("status", "[:emoji:] [text], or clear", "Say something of yourself beside your name", Run::CustomStatus),
];

impl BuiltIn {
    pub(super) fn command(&self) -> Command {
        Command {
            trigger: self.trigger.to_owned(),
            auto_complete: true,
            auto_complete_desc: self.help.to_owned(),
            auto_complete_hint: self.hint.to_owned(),
            display_name: self.trigger.to_owned(),
            ..Command::default()
        }
    }
}

fn only_you(text: impl Into<String>) -> CommandReply {
    CommandReply { response_type: "ephemeral".to_owned(), text: text.into(), ..CommandReply::default() }
}

fn everybody(text: String) -> CommandReply {
    CommandReply { response_type: "in_channel".to_owned(), text, ..CommandReply::default() }
}

fn code(text: &str) -> CommandReply {
    match text {
        "" => only_you("A text is needed after /code."),
        text => CommandReply { skip_slack_parsing: true, ..everybody(format!("    {}", text.replace('\n', "\n    "))) },
    }
}

fn echo(text: &str) -> CommandReply {
    match text {
        "" => only_you("A message is needed after /echo."),
        text => everybody(text.trim_matches('"').to_owned()),
    }
}

fn me(text: &str) -> CommandReply {
    CommandReply { kind: "me".to_owned(), ..everybody(format!("*{text}*")) }
}

fn shrug(text: &str) -> CommandReply {
    everybody(format!("{text} ¯\\\\\\_(ツ)\\_/¯").trim_start().to_owned())
}

/// Runs a built-in command. What a user may not do is told to them as any client shows it: as a message.
pub(super) fn run(
    core: &Core,
    what: &BuiltIn,
    by: &Session,
    c: &Channel,
    team: Option<Id>,
    args: &CommandArgs,
    text: &str,
) -> AppResult<CommandReply> {
    let done = match what.run {
        Run::Status(status) => {
            core.set_status(by, by.user_id, status, 0).map(|_| only_you(format!("Your status is {status} now.")))
        }
        Run::CustomStatus => custom_status(core, by, text),
        Run::Say(say) => Ok(say(text)),
        Run::Channel(field) => channel(core, by, c, field, text),
        Run::Previews(fold) => {
            let preference = Preference {
                user_id: by.user_id,
                category: "display_settings".to_owned(),
                name: "collapse_previews".to_owned(),
                value: fold.to_string(),
            };
            let said = if fold { "Image previews are folded now." } else { "Image previews are unfolded now." };
            core.save_preferences(by, by.user_id, &[preference]).map(|()| only_you(said))
        }
        Run::Join => join(core, by, team, args, text),
        Run::Leave => core.remove_channel_member(by, c.id, by.user_id).and_then(|()| {
            Ok(CommandReply { goto_location: link(core, team, args, "town-square")?, ..CommandReply::default() })
        }),
        Run::Mute => mute(core, by, c, text),
        Run::Message => message(core, by, team, args, text),
        Run::GroupMessage => group_message(core, by, team, args, text),
        Run::Invite => invite(core, by, c, text),
        Run::Remove => remove(core, by, c, text),
        Run::Help => {
            let each = BUILT_IN.iter().map(|b| format!("- `/{} {}` {}", b.trigger, b.hint, b.help).replace(" `", "`"));
            Ok(only_you(each.collect::<Vec<_>>().join("\n")))
        }
        Run::Logout => Ok(CommandReply { goto_location: "/login".to_owned(), ..CommandReply::default() }),
        Run::InClient => Ok(only_you(format!("The command /{} is not supported on your device.", what.trigger))),
    };
    done.or_else(|error| if error.status_code < 500 { Ok(only_you(error.message.into_owned())) } else { Err(error) })
}

/// The address of a channel for the client to go to.
fn link(core: &Core, team: Option<Id>, args: &CommandArgs, channel: &str) -> AppResult<String> {
    let name = core.read(|db| {
        let row = team.map(|team| team_row_by_id(db, team)).transpose()?.flatten();
        Ok::<_, AppError>(row.map(|row| row.team.name))
    })?;
    Ok(name.map_or(String::new(), |team| format!("{}/{team}/channels/{channel}", args.site_url)))
}

fn custom_status(core: &Core, by: &Session, text: &str) -> AppResult<CommandReply> {
    if text.is_empty() || text == "clear" {
        core.remove_custom_status(by, by.user_id)?;
        return Ok(only_you("Your status was cleared."));
    }
    let named = text.strip_prefix(':').and_then(|rest| rest.split_once(':'));
    let (emoji, words) = named.unwrap_or(("speech_balloon", text));
    let status = CustomStatus {
        emoji: emoji.to_owned(),
        text: words.trim().to_owned(),
        duration: String::new(),
        expires_at: String::new(),
    };
    core.set_custom_status(by, by.user_id, status)?;
    Ok(only_you(format!("Your status is “{text}” now.")))
}

fn channel(core: &Core, by: &Session, c: &Channel, field: &str, text: &str) -> AppResult<CommandReply> {
    if text.is_empty() {
        return Ok(only_you(format!("A text is needed after /{field}.")));
    }
    let value = Some(text.to_owned());
    let patch = match field {
        "header" => ChannelPatch { header: value, ..ChannelPatch::default() },
        "purpose" => ChannelPatch { purpose: value, ..ChannelPatch::default() },
        _ => ChannelPatch { display_name: value, ..ChannelPatch::default() },
    };
    core.patch_channel(by, c.id, &patch)?;
    Ok(CommandReply::default())
}

fn word(text: &str) -> &str {
    text.split_whitespace().next().unwrap_or("").trim_start_matches(['@', '~'])
}

fn channel_named(core: &Core, team: Option<Id>, name: &str) -> AppResult<Option<Id>> {
    let Some(team) = team else { return Ok(None) };
    let sql = "SELECT id FROM channels WHERE team_id = ?1 AND name = ?2 AND delete_at = 0";
    core.read(|db| Ok(get(db, sql, [team.as_str(), &name.to_lowercase()], first_id)?))
}

fn join(core: &Core, by: &Session, team: Option<Id>, args: &CommandArgs, text: &str) -> AppResult<CommandReply> {
    let name = word(text);
    // What is not an open channel is not told from what is not there.
    let unknown = || only_you("There is no such channel, or you may not join it.");
    let Some(channel) = channel_named(core, team, name)? else { return Ok(unknown()) };
    match core.add_channel_member(by, channel, by.user_id) {
        Ok(_) => {}
        Err(error) if error.status_code < 500 => return Ok(unknown()),
        Err(error) => return Err(error),
    }
    Ok(CommandReply { goto_location: link(core, team, args, &name.to_lowercase())?, ..CommandReply::default() })
}

fn mute(core: &Core, by: &Session, c: &Channel, text: &str) -> AppResult<CommandReply> {
    let channel = match word(text) {
        "" => Some(c.id),
        name => channel_named(core, c.team_id, name)?,
    };
    let Some(channel) = channel else { return Ok(only_you("There is no such channel.")) };
    let member = core.channel_member(by, channel, by.user_id)?;
    let muted = member.notify_props.get("mark_unread").is_some_and(|value| value == "mention");
    let value = if muted { "all" } else { "mention" };
    let props: StringMap = [("mark_unread".to_owned(), value.to_owned())].into_iter().collect();
    core.set_channel_notify_props(by, channel, by.user_id, &props)?;
    Ok(only_you(if muted { "The channel is no longer muted." } else { "The channel is muted." }))
}

fn message(core: &Core, by: &Session, team: Option<Id>, args: &CommandArgs, text: &str) -> AppResult<CommandReply> {
    let unknown = || only_you("There is no such user.");
    let (name, words) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let Ok(user) = core.user_by_username(word(name)) else { return Ok(unknown()) };
    if user.id == by.user_id {
        return Ok(unknown());
    }
    let channel = core.direct_channel(by, by.user_id, user.id)?;
    say_there(core, by, &channel, words)?;
    let goto_location = link(core, team, args, &channel.name)?;
    Ok(CommandReply { goto_location, ..only_you("") })
}

fn group_message(
    core: &Core,
    by: &Session,
    team: Option<Id>,
    args: &CommandArgs,
    text: &str,
) -> AppResult<CommandReply> {
    let end = text
        .match_indices(char::is_whitespace)
        .find(|(at, _)| !text[..*at].trim_end().ends_with(',') && !text[*at..].trim_start().starts_with([',', '@']))
        .map_or(text.len(), |(at, _)| at);
    let (names, words) = text.split_at(end);
    let mut users = Vec::new();
    for name in names.split([',', ' ']).map(word).filter(|name| !name.is_empty()) {
        match core.user_by_username(name) {
            Ok(user) => users.push(user.id),
            Err(_) => return Ok(only_you(format!("There is no user {name}."))),
        }
    }
    let channel = match users.as_slice() {
        [one] => core.direct_channel(by, by.user_id, *one)?,
        many => core.group_channel(by, many)?,
    };
    say_there(core, by, &channel, words)?;
    let goto_location = link(core, team, args, &channel.name)?;
    Ok(CommandReply { goto_location, ..only_you("") })
}

fn say_there(core: &Core, by: &Session, channel: &Channel, words: &str) -> AppResult<()> {
    if words.trim().is_empty() {
        return Ok(());
    }
    let new = crate::types::NewPost {
        channel_id: channel.id.to_string(),
        message: words.trim().to_owned(),
        ..crate::types::NewPost::default()
    };
    core.create_post(by, &new, true).map(drop)
}

fn invite(core: &Core, by: &Session, c: &Channel, text: &str) -> AppResult<CommandReply> {
    /// Users and channels in one line; more are left out.
    const EACH_MAX: usize = 20;
    let mut said = Vec::new();
    let names = |sign: char| text.split_whitespace().filter(move |w| w.starts_with(sign)).take(EACH_MAX);
    let mut channels = Vec::new();
    for name in names('~') {
        match channel_named(core, c.team_id, word(name))? {
            Some(channel) => channels.push(channel),
            None => said.push(format!("There is no channel {name}.")),
        }
    }
    if names('~').next().is_none() {
        channels.push(c.id);
    }
    let users: Vec<&str> = match names('@').collect::<Vec<_>>() {
        users if users.is_empty() => text.split_whitespace().filter(|w| !w.starts_with('~')).take(1).collect(),
        users => users,
    };
    if users.is_empty() {
        return Ok(only_you("A user is needed after /invite."));
    }
    for name in users {
        let Ok(user) = core.user_by_username(word(name)) else {
            said.push(format!("There is no user {name}."));
            continue;
        };
        for channel in &channels {
            match core.add_channel_member(by, *channel, user.id) {
                Ok(_) => said.push(format!("@{} is in the channel.", user.username)),
                Err(error) if error.status_code < 500 => said.push(format!("@{}: {}", user.username, error.message)),
                Err(error) => return Err(error),
            }
        }
    }
    Ok(only_you(said.join("\n")))
}

fn remove(core: &Core, by: &Session, c: &Channel, text: &str) -> AppResult<CommandReply> {
    if c.is_direct_or_group() {
        return Ok(only_you("Nobody is removed from a direct or group channel."));
    }
    let Ok(user) = core.user_by_username(word(text)) else { return Ok(only_you("There is no such user.")) };
    core.remove_channel_member(by, c.id, user.id)?;
    Ok(CommandReply::default())
}
