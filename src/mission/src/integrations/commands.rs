//! Slash commands: the built-in ones, and those that ask a program.

use http::Method;
use model::Id;
use rusqlite::params;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::builtin::{self, BUILT_IN};
use super::{COMMANDS, Key, Said, from_slack, too_many};
use crate::access::{may_in_team, require_in_channel, require_in_team};
use crate::channels::{member, require_channel};
use crate::core::{Core, random_id};
use crate::ephemeral::Ephemeral;
use crate::error::{AppError, AppResult};
use crate::outgoing::{Answered, Call};
use crate::rows::{all, exists, first_id, get, run};
use crate::teams::team_row_by_id;
use crate::types::{Channel, Session};
use crate::users::require_user;

/// How long a program may answer a command later, and how often (the original's numbers).
const ANSWER_LIFE_MS: i64 = 30 * 60 * 1_000;
const ANSWERS_MAX: i64 = 5;
/// Mentions told along with a command.
const MENTIONS_MAX: usize = 50;

/// A slash command.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Command {
    pub(crate) id: String,
    pub(crate) token: String,
    pub(crate) create_at: i64,
    pub(crate) update_at: i64,
    pub(crate) delete_at: i64,
    pub(crate) creator_id: String,
    pub(crate) team_id: String,
    pub(crate) trigger: String,
    /// "P" (POST) or "G" (GET).
    pub(crate) method: String,
    pub(crate) username: String,
    pub(crate) icon_url: String,
    pub(crate) auto_complete: bool,
    pub(crate) auto_complete_desc: String,
    pub(crate) auto_complete_hint: String,
    pub(crate) display_name: String,
    pub(crate) description: String,
    pub(crate) url: String,
    pub(crate) plugin_id: String,
}

impl Command {
    /// Without what only its maker may know.
    fn public(self) -> Self {
        Self {
            token: String::new(),
            creator_id: String::new(),
            method: String::new(),
            url: String::new(),
            username: String::new(),
            icon_url: String::new(),
            ..self
        }
    }

    fn key(&self) -> AppResult<Key<'_>> {
        let id = |text: &str| text.parse().map_err(|_| AppError::storage("command", "an id of a command is none"));
        Ok(Key {
            id: id(&self.id)?,
            create_at: self.create_at,
            team: id(&self.team_id)?,
            maker: id(&self.creator_id)?,
            word: &self.trigger,
        })
    }
}

/// `POST /commands/execute`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct CommandArgs {
    pub(crate) command: String,
    pub(crate) channel_id: String,
    pub(crate) team_id: String,
    pub(crate) root_id: String,
    /// Where the site is, for links to channels; not sent by clients.
    #[serde(skip)]
    pub(crate) site_url: String,
}

/// What a client is told of a command that ran.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct CommandReply {
    pub(crate) response_type: String,
    pub(crate) text: String,
    pub(crate) username: String,
    pub(crate) channel_id: String,
    pub(crate) icon_url: String,
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) props: Option<Map<String, Value>>,
    pub(crate) goto_location: String,
    pub(crate) trigger_id: String,
    pub(crate) skip_slack_parsing: bool,
    pub(crate) attachments: Option<Vec<Map<String, Value>>>,
    pub(crate) extra_responses: Option<Vec<Value>>,
}

/// A command on its way.
#[derive(Debug)]
pub(crate) enum Begun {
    /// A built-in one, which has run.
    Done(CommandReply),
    /// A program is to be asked.
    Ask { command: Box<Command>, call: Call, trigger_id: String },
}

/// One suggestion while a command is typed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Suggestion {
    complete: String,
    suggestion: String,
    hint: String,
    description: String,
    icon_data: &'static str,
}

const OWN: &str = "manage_own_slash_commands";
const OTHERS: &str = "manage_others_slash_commands";

fn missing() -> AppError {
    AppError::not_found("command", "api.command.command_not_found.app_error")
}

/// A JSON object of texts as a form.
pub(super) fn form(values: &Value) -> String {
    let pairs = values.as_object().into_iter().flatten();
    form_of(pairs.map(|(key, value)| (key.as_str(), value.as_str().map_or_else(|| value.to_string(), str::to_owned))))
}

fn form_of<'a>(pairs: impl Iterator<Item = (&'a str, String)>) -> String {
    let escape = |text: &str| {
        text.bytes().fold(String::with_capacity(text.len()), |mut out, byte| {
            match byte {
                b' ' => out.push('+'),
                b if b.is_ascii_alphanumeric() || b"-_.*".contains(&b) => out.push(char::from(b)),
                b => out.push_str(&format!("%{b:02X}")),
            }
            out
        })
    };
    pairs.map(|(key, value)| format!("{key}={}", escape(&value))).collect::<Vec<_>>().join("&")
}

impl Core {
    /// Makes a command, or changes one. The caller has looked at its URL.
    ///
    /// # Errors
    /// 403 without permission, 404 for a missing command, 400 for bad values or a trigger that is taken.
    pub(crate) fn save_command(&self, by: &Session, id: Option<Id>, new: &Command) -> AppResult<Command> {
        const WHERE: &str = "createCommand";
        let invalid = |field: &str| {
            AppError::bad(WHERE, format!("model.command.is_valid.{field}.app_error"), format!("Invalid {field}."))
        };
        let trigger = new.trigger.to_lowercase();
        let is_word = |b: u8| b.is_ascii_alphanumeric() || b"_./-".contains(&b);
        if !(1..=128).contains(&trigger.len()) || trigger.starts_with('/') || !trigger.bytes().all(is_word) {
            return Err(invalid("trigger"));
        }
        if !matches!(new.method.as_str(), "P" | "G") {
            return Err(invalid("method"));
        }
        for (field, text, max) in [
            ("url", &new.url, 1_024),
            ("display_name", &new.display_name, 64),
            ("description", &new.description, 128),
            ("username", &new.username, 64),
            ("icon_url", &new.icon_url, 1_024),
            ("auto_complete_desc", &new.auto_complete_desc, 1_024),
            ("auto_complete_hint", &new.auto_complete_hint, 1_024),
        ] {
            if text.len() > max {
                return Err(invalid(field));
            }
        }
        let team: Id = new.team_id.parse().map_err(|_| AppError::permissions(WHERE, OWN))?;
        self.write(|tx| {
            let old = id.map(|id| require_command(&tx.db, by, id)).transpose()?;
            if old.as_ref().is_some_and(|old| old.team_id != new.team_id) {
                let message = "Unable to update commands across teams.";
                return Err(AppError::bad("updateCommand", "api.command.team_mismatch.app_error", message));
            }
            require_in_team(WHERE, &tx.db, by, team, OWN)?;
            let creator = match (&old, new.creator_id.as_str()) {
                (Some(old), _) => old.creator_id.clone(),
                (None, "") => by.user_id.to_string(),
                (None, other) if other == by.user_id.as_str() => other.to_owned(),
                (None, other) => {
                    require_in_team(WHERE, &tx.db, by, team, OTHERS)?;
                    let other = other.parse().map_err(|_| AppError::body_param(WHERE, "creator_id"))?;
                    require_user(&tx.db, other)?.user.id.to_string()
                }
            };
            let own_id = id.map(|id| id.to_string()).unwrap_or_default();
            let sql = "SELECT 1 FROM commands WHERE team_id = ?1 AND word = ?2 AND id <> ?3";
            let taken = exists(&tx.db, sql, params![team.as_str(), trigger, own_id])?;
            if taken || BUILT_IN.iter().any(|built_in| built_in.trigger == trigger) {
                let message = "This trigger word is already in use. Please choose another word.";
                return Err(AppError::bad(WHERE, "api.command.duplicate_trigger.app_error", message));
            }
            if old.is_none() && COMMANDS.is_full(&tx.db, team)? {
                return Err(too_many(WHERE));
            }
            let command = Command {
                id: old.as_ref().map_or_else(|| random_id().to_string(), |old| old.id.clone()),
                token: old.as_ref().map_or_else(|| random_id().to_string(), |old| old.token.clone()),
                create_at: old.as_ref().map_or(tx.now, |old| old.create_at),
                update_at: tx.now,
                delete_at: 0,
                creator_id: creator,
                trigger: trigger.clone(),
                plugin_id: String::new(),
                ..new.clone()
            };
            COMMANDS.put(tx, &command.key()?, &command)?;
            Ok(command)
        })
    }

    /// One command, for who may change it.
    ///
    /// # Errors
    /// 404, 403.
    pub(crate) fn command(&self, by: &Session, id: Id) -> AppResult<Command> {
        self.read(|db| require_command(db, by, id))
    }

    /// Gives a command another token.
    ///
    /// # Errors
    /// As [`Core::command`].
    pub(crate) fn regenerate_command_token(&self, by: &Session, id: Id) -> AppResult<Command> {
        let mut command = self.command(by, id)?;
        self.write(|tx| {
            command.token = random_id().to_string();
            command.update_at = tx.now;
            COMMANDS.put(tx, &command.key()?, &command)?;
            Ok(command.clone())
        })
    }

    /// Takes a command away.
    ///
    /// # Errors
    /// As [`Core::command`].
    pub(crate) fn delete_command(&self, by: &Session, id: Id) -> AppResult<()> {
        self.command(by, id)?;
        self.write(|tx| Ok(COMMANDS.remove(tx, id)?))
    }

    /// Moves a command to another team of its maker's.
    ///
    /// # Errors
    /// As [`Core::command`]; 403 for the other team, 400 where its word is taken.
    pub(crate) fn move_command(&self, by: &Session, id: Id, team: Id) -> AppResult<()> {
        let mut command = self.command(by, id)?;
        self.write(|tx| {
            require_in_team("moveCommand", &tx.db, by, team, OWN)?;
            let sql = "SELECT 1 FROM commands WHERE team_id = ?1 AND word = ?2 AND id <> ?3";
            if exists(&tx.db, sql, [team.as_str(), &command.trigger, &command.id])? {
                let message = "This trigger word is already in use. Please choose another word.";
                return Err(AppError::bad("moveCommand", "api.command.duplicate_trigger.app_error", message));
            }
            command.team_id = team.to_string();
            Ok(COMMANDS.put(tx, &command.key()?, &command)?)
        })
    }

    /// The commands of a team: its own, and unless `custom_only` the built-in ones. Who may not manage commands sees what is
    /// suggested while typing.
    ///
    /// # Errors
    /// 403 for a team of others, or without permission for the team's own.
    pub(crate) fn commands(&self, by: &Session, team: Id, custom_only: bool) -> AppResult<Vec<Command>> {
        const WHERE: &str = "listCommands";
        self.read(|db| {
            require_in_team(WHERE, db, by, team, "view_team")?;
            let manages = may_in_team(db, by, team, OWN)?;
            if custom_only && !manages {
                return Err(AppError::permissions(WHERE, OWN));
            }
            let all_of_them = may_in_team(db, by, team, OTHERS)?;
            let maker = if all_of_them || !manages { None } else { Some(by.user_id) };
            let own: Vec<Command> = COMMANDS.list(db, Some(team), maker, (500, 0))?;
            if custom_only {
                return Ok(own);
            }
            let own = own.into_iter().filter(|command| manages || command.auto_complete).map(Command::public);
            Ok(BUILT_IN.iter().map(builtin::BuiltIn::command).chain(own).collect())
        })
    }

    /// The commands that are suggested in a team.
    ///
    /// # Errors
    /// 403 for a team of others.
    pub(crate) fn suggested_commands(&self, by: &Session, team: Id) -> AppResult<Vec<Command>> {
        self.read(|db| {
            require_in_team("listAutocompleteCommands", db, by, team, "view_team")?;
            let own: Vec<Command> = COMMANDS.list(db, Some(team), None, (500, 0))?;
            let own = own.into_iter().filter(|command| command.auto_complete).map(Command::public);
            Ok(BUILT_IN.iter().map(builtin::BuiltIn::command).chain(own).collect())
        })
    }

    /// What may be meant by the beginning of a command.
    ///
    /// # Errors
    /// 403 for a team of others.
    pub(crate) fn command_suggestions(&self, by: &Session, team: Id, typed: &str) -> AppResult<Vec<Suggestion>> {
        let typed = typed.trim_start_matches('/').to_lowercase();
        let mut found = self.suggested_commands(by, team)?;
        found.retain(|command| command.trigger.starts_with(&typed));
        found.sort_by(|a, b| a.trigger.cmp(&b.trigger));
        let each = found.into_iter().map(|command| Suggestion {
            complete: command.trigger.clone(),
            suggestion: command.trigger,
            hint: command.auto_complete_hint,
            description: command.auto_complete_desc,
            icon_data: "",
        });
        Ok(each.collect())
    }

    /// Runs a built-in command, or says what is to be asked of whom.
    ///
    /// # Errors
    /// 400 for what is no command, 403 without permission to post, 404 for an unknown one.
    pub(crate) fn begin_command(&self, by: &Session, args: &CommandArgs) -> AppResult<Begun> {
        const WHERE: &str = "executeCommand";
        let start = || {
            let message = "No command trigger found, or no channel.";
            AppError::bad(WHERE, "api.command.execute_command.start.app_error", message)
        };
        let channel: Id = args.channel_id.parse().map_err(|_| start())?;
        let line = args.command.strip_prefix('/').filter(|line| !line.is_empty()).ok_or_else(start)?;
        let (trigger, text) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let trigger = trigger.to_lowercase();
        let c = self.read(|db| {
            let c = require_channel(db, channel).map_err(|_| AppError::permissions(WHERE, "create_post"))?.channel;
            require_in_channel(WHERE, db, by, &c, "create_post")?;
            Ok::<_, AppError>(c)
        })?;
        if c.delete_at > 0 {
            let message = "Cannot run command in deleted channel.";
            return Err(AppError::bad("createPost", "api.command.execute_command.deleted.error", message));
        }
        let team = c.team_id.or_else(|| args.team_id.parse().ok());
        let custom = self.read(|db| {
            let Some(team) = team.filter(|_| true) else { return Ok(None) };
            // In direct channels the client names the team whose commands are meant.
            if c.team_id.is_none() && !may_in_team(db, by, team, "view_team")? {
                return Ok(None);
            }
            let sql = "SELECT body FROM commands WHERE team_id = ?1 AND word = ?2";
            Ok::<_, AppError>(get(db, sql, [team.as_str(), &trigger], super::body::<Command>)?)
        })?;
        if let Some(command) = custom {
            let trigger_id = self.new_trigger(by.user_id);
            let call = self.ask_of_command(by, &command, &c, args, text, &trigger_id)?;
            return Ok(Begun::Ask { command: Box::new(command), call, trigger_id });
        }
        let Some(built_in) = BUILT_IN.iter().find(|built_in| built_in.trigger == trigger) else {
            let shown: String = trigger.chars().take(128).collect();
            let message = format!(
                "Command with a trigger of '{shown}' not found. To send a message beginning with \"/\", begin with a blank."
            );
            return Err(AppError::new("command", "api.command.execute_command.not_found.app_error", message, 404));
        };
        let reply = builtin::run(self, built_in, by, &c, team, args, text.trim())?;
        self.tell_reply(by, &c, args, &reply)?;
        Ok(Begun::Done(reply))
    }

    /// The post or the message for one user that a reply is.
    fn tell_reply(&self, by: &Session, c: &Channel, args: &CommandArgs, reply: &CommandReply) -> AppResult<()> {
        if reply.response_type == "in_channel" {
            let new = crate::types::NewPost {
                channel_id: c.id.to_string(),
                root_id: args.root_id.clone(),
                message: reply.text.clone(),
                kind: reply.kind.clone(),
                ..crate::types::NewPost::default()
            };
            return self.create_post(by, &new, true).map(drop);
        }
        if !reply.text.is_empty() {
            let mut said = Ephemeral::new(c.id, by.user_id, reply.text.clone());
            said.root_id = args.root_id.parse().ok();
            self.write(|tx| Ok::<_, AppError>(tx.tell_ephemeral(by.user_id, said)))?;
        }
        Ok(())
    }

    fn ask_of_command(
        &self,
        by: &Session,
        command: &Command,
        c: &Channel,
        args: &CommandArgs,
        text: &str,
        trigger_id: &str,
    ) -> AppResult<Call> {
        let answer = random_id();
        let (team_name, user_name, mentions) = self.read(|db| {
            let team: Option<Id> = command.team_id.parse().ok();
            let row = team.map(|team| team_row_by_id(db, team)).transpose()?.flatten();
            let name = require_user(db, by.user_id)?.user.username;
            Ok::<_, AppError>((row.map_or(String::new(), |row| row.team.name), name, mentions(db, command, text)?))
        })?;
        self.write(|tx| {
            run(&tx.db, "DELETE FROM command_answers WHERE create_at < ?1", [tx.now - ANSWER_LIFE_MS])?;
            let sql = "INSERT INTO command_answers (id, create_at, command_id, user_id, channel_id, root_id, uses)
                VALUES (?1, ?2, ?3, ?4, ?5, ?6, 0)";
            let values = params![answer.as_str(), tx.now, command.id, by.user_id.as_str(), c.id.as_str(), args.root_id];
            Ok::<_, AppError>(run(&tx.db, sql, values)?)
        })?;
        let response_url = match args.site_url.as_str() {
            "" => String::new(),
            site => format!("{site}/hooks/commands/{answer}"),
        };
        let own = |text: &str| text.to_owned();
        let mut pairs = vec![
            ("token", command.token.clone()),
            ("team_id", command.team_id.clone()),
            ("team_domain", team_name),
            ("channel_id", c.id.to_string()),
            ("channel_name", c.name.clone()),
            ("user_id", by.user_id.to_string()),
            ("user_name", user_name),
            ("command", format!("/{}", command.trigger)),
            ("text", own(text)),
            ("trigger_id", own(trigger_id)),
            ("root_id", args.root_id.clone()),
            ("response_url", response_url),
        ];
        pairs.extend(mentions);
        let values = form_of(pairs.into_iter());
        let authorization = Some(format!("Token {}", command.token));
        Ok(match command.method.as_str() {
            "G" => {
                let join = if command.url.contains('?') { '&' } else { '?' };
                let url = format!("{}{join}{values}", command.url);
                Call { method: Method::GET, url, content_type: None, authorization, body: Vec::new() }
            }
            _ => Call {
                method: Method::POST,
                url: command.url.clone(),
                content_type: Some("application/x-www-form-urlencoded"),
                authorization,
                body: values.into_bytes(),
            },
        })
    }

    /// Does what a program answered to a command.
    ///
    /// # Errors
    /// 500 for an answer that is none; as for any post.
    pub(crate) fn finish_command(
        &self,
        by: &Session,
        args: &CommandArgs,
        command: &Command,
        trigger_id: String,
        answered: &Answered,
    ) -> AppResult<CommandReply> {
        let failed = |id: &'static str, why: String| {
            let message = format!("Command '{}' failed.", command.trigger);
            AppError::new("command", id, message, 500).detail(why)
        };
        if answered.status != http::StatusCode::OK {
            let id = "api.command.execute_command.failed_resp.app_error";
            return Err(failed(id, format!("status {}", answered.status)));
        }
        let said = read_answer(&answered.content_type, &answered.body)
            .map_err(|why| failed("api.command.execute_command.failed.app_error", why))?;
        let channel: Id = args.channel_id.parse().map_err(|_| AppError::body_param("command", "channel_id"))?;
        self.tell_said(by, channel, &args.root_id, command, &said)?;
        for extra in said.extra_responses.iter().take(10) {
            self.tell_said(by, channel, &args.root_id, command, extra)?;
        }
        Ok(CommandReply {
            response_type: said.response_type,
            text: if said.skip_slack_parsing { said.text } else { from_slack(&said.text) },
            username: said.username,
            channel_id: said.channel_id,
            icon_url: said.icon_url,
            kind: said.kind,
            props: Some(said.props).filter(|props| !props.is_empty()),
            goto_location: said.goto_location,
            trigger_id,
            skip_slack_parsing: said.skip_slack_parsing,
            attachments: Some(said.attachments).filter(|list| !list.is_empty()),
            extra_responses: None,
        })
    }

    fn tell_said(&self, by: &Session, channel: Id, root: &str, command: &Command, said: &Said) -> AppResult<()> {
        let (c, forbidden) = self.read(|db| {
            let other: Option<Id> = said.channel_id.parse().ok();
            let c = require_channel(db, other.unwrap_or(channel))?.channel;
            let forbidden = other.is_some() && member(db, c.id, by.user_id)?.is_none();
            Ok::<_, AppError>((c, forbidden))
        })?;
        if forbidden {
            let id = "api.command.command_post.forbidden.app_error";
            return Err(AppError::new("command", id, "Specified user is not a member of specified channel.", 403));
        }
        let root = if c.id == channel { root } else { "" };
        let either = |own: &str, said: &str| if own.is_empty() { said.to_owned() } else { own.to_owned() };
        let props =
            self.props_of(said, &either(&command.username, &said.username), &either(&command.icon_url, &said.icon_url));
        if said.response_type == "in_channel" {
            return self.post_said(by, &c, root, said, &props).map(drop);
        }
        if said.text.is_empty() && said.attachments.is_empty() {
            return Ok(());
        }
        let text = if said.skip_slack_parsing { said.text.clone() } else { from_slack(&said.text) };
        self.write(|tx| {
            tx.core.check_message(&text)?;
            let mut message = Ephemeral::new(c.id, by.user_id, text);
            message.root_id = root.parse().ok();
            props.iter().for_each(|(key, value)| message.prop(key, value.clone()));
            if !said.attachments.is_empty() {
                let mut shown = Map::new();
                shown.insert("attachments".to_owned(), json!(super::clean_attachments(&said.attachments)));
                super::hide_actions(&mut shown);
                shown.into_iter().for_each(|(key, value)| message.prop(&key, value));
            }
            tx.tell_ephemeral(by.user_id, message);
            Ok(())
        })
    }

    /// A program answers a command later, at the address that it was told.
    ///
    /// # Errors
    /// 404 for an address that is unknown, too old, or used up; as for any post.
    pub(crate) fn answer_command_later(&self, id: &str, content_type: &str, body: &[u8]) -> AppResult<()> {
        const WHERE: &str = "HandleCommandWebhook";
        let said = read_answer(content_type, body).map_err(|why| {
            AppError::bad("commandWebhook", "web.command_webhook.parse.app_error", "Unable to parse incoming data.")
                .detail(why)
        })?;
        let (command, user, channel, root) = self.write(|tx| {
            let sql = "UPDATE command_answers SET uses = uses + 1 WHERE id = ?1 AND create_at >= ?2 AND uses < ?3";
            if run(&tx.db, sql, params![id, tx.now - ANSWER_LIFE_MS, ANSWERS_MAX])? == 0 {
                return Err(AppError::not_found(WHERE, "web.command_webhook.invalid.app_error"));
            }
            let sql = "SELECT command_id, user_id, channel_id, root_id FROM command_answers WHERE id = ?1";
            let row = get(&tx.db, sql, [id], |r| {
                Ok((
                    crate::rows::id(r, "command_id")?,
                    crate::rows::id(r, "user_id")?,
                    crate::rows::id(r, "channel_id")?,
                    r.get::<_, String>("root_id")?,
                ))
            })?;
            let (command, user, channel, root) = row.ok_or_else(missing)?;
            let command: Command = COMMANDS.get(&tx.db, command)?;
            Ok((command, require_user(&tx.db, user)?.user, channel, root))
        })?;
        if user.delete_at > 0 {
            return Err(AppError::not_found(WHERE, "web.command_webhook.invalid.app_error"));
        }
        self.tell_said(&super::session_of(&user), channel, &root, &command, &said)
    }
}

/// JSON, or plain text that is the message.
fn read_answer(content_type: &str, body: &[u8]) -> Result<Said, String> {
    if content_type.split(';').next().unwrap_or("").trim() == "application/json" {
        return serde_json::from_slice(body).map_err(|e| e.to_string());
    }
    Ok(Said { text: String::from_utf8_lossy(body).into_owned(), ..Said::default() })
}

fn require_command(db: &rusqlite::Connection, by: &Session, id: Id) -> AppResult<Command> {
    let command: Command = COMMANDS.get(db, id)?;
    let team: Id = command.team_id.parse().map_err(|_| missing())?;
    if !may_in_team(db, by, team, OWN)? {
        return Err(missing());
    }
    if command.creator_id != by.user_id.as_str() && !may_in_team(db, by, team, OTHERS)? {
        return Err(AppError::permissions("command", OTHERS));
    }
    Ok(command)
}

/// Members of the team and open channels that a text names, as programs are told them.
fn mentions(db: &rusqlite::Connection, command: &Command, text: &str) -> rusqlite::Result<Vec<(&'static str, String)>> {
    let mut found = Vec::new();
    for word in text.split_whitespace().take(1_000) {
        let (names, ids, sql) = match word.chars().next() {
            Some('@') => (
                "user_mentions",
                "user_mentions_ids",
                "SELECT u.id FROM users u JOIN team_members m ON m.user_id = u.id AND m.team_id = ?1 AND m.delete_at = 0
                    WHERE u.username = ?2",
            ),
            Some('~') => (
                "channel_mentions",
                "channel_mentions_ids",
                "SELECT id FROM channels WHERE team_id = ?1 AND name = ?2 AND type = 'O' AND delete_at = 0",
            ),
            Some(_) | None => continue,
        };
        let name = word[1..].trim_end_matches(|c: char| !c.is_ascii_alphanumeric()).to_lowercase();
        let ids_found: Vec<Id> = all(db, sql, [command.team_id.as_str(), &name], first_id)?;
        if let Some(id) = ids_found.first().filter(|_| found.len() < 2 * MENTIONS_MAX) {
            found.extend([(names, name), (ids, id.to_string())]);
        }
    }
    Ok(found)
}
