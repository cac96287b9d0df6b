//! Integrations: programs elsewhere that post here, are asked by commands and words, and answer buttons.
//!
//! ```text
//!  POST /hooks/<id>  ---------> hooks ------> a post in the name of the hook's maker
//!  a post, a command, a button -> hooks, commands, actions -> outgoing::Call -> the answer -> a post, a message for one user
//! ```
//!
//! Invariants
//! - Hooks, commands and their secrets stay at their node; the posts that they make travel as any other.
//! - Nothing here calls anybody: what is to be asked is handed to the http layer, which owns the one client for it.
//! - Where a button leads to is never told to clients.

pub(crate) mod actions;
mod builtin;
pub(crate) mod commands;
pub(crate) mod hooks;

use model::Id;
use rusqlite::{Connection, Row, params};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value, json};

use crate::core::{Core, Tx, random_id};
use crate::error::{AppError, AppResult};
use crate::rows::{all, get, run, to_json};
use crate::types::{Channel, NewPost, NewPostMetadata, Post, Priority, Session, StringMap, User};

/// What an operator sets about integrations, the table `[core.integrations]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct IntegrationSettings {
    /// Names, addresses and networks that may be called although they are not of the public internet.
    pub allowed_internal: Vec<String>,
    /// How long an integration may take to answer.
    pub timeout_seconds: u32,
    /// May integrations choose the name under which their posts are shown?
    pub username_override: bool,
    /// May integrations choose the picture with which their posts are shown?
    pub icon_override: bool,
}

impl Default for IntegrationSettings {
    fn default() -> Self {
        Self { allowed_internal: Vec::new(), timeout_seconds: 30, username_override: false, icon_override: false }
    }
}

impl IntegrationSettings {
    /// # Errors
    /// The first entry of `allowed_internal` that is neither name, address nor network.
    pub fn check(&self) -> Result<(), String> {
        crate::outgoing::address::Allowed::parse(&self.allowed_internal).map(drop)
    }
}

/// Most props of one post that an integration makes, in characters (the original's number).
const PROPS_RUNES_MAX: usize = 760_000;
/// Posts that one message of an integration may be split into.
const SPLITS_MAX: usize = 50;

/// What an integration says: an incoming hook's request, an outgoing hook's or a command's answer.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Said {
    #[serde(deserialize_with = "nullable")]
    pub(crate) text: String,
    #[serde(deserialize_with = "nullable")]
    pub(crate) username: String,
    #[serde(deserialize_with = "nullable")]
    pub(crate) icon_url: String,
    #[serde(deserialize_with = "nullable")]
    pub(crate) icon_emoji: String,
    #[serde(deserialize_with = "nullable")]
    pub(crate) channel: String,
    #[serde(deserialize_with = "nullable")]
    pub(crate) props: Map<String, Value>,
    #[serde(deserialize_with = "nullable")]
    pub(crate) attachments: Vec<Map<String, Value>>,
    #[serde(rename = "type", deserialize_with = "nullable")]
    pub(crate) kind: String,
    pub(crate) priority: Option<Priority>,
    #[serde(deserialize_with = "nullable")]
    pub(crate) response_type: String,
    #[serde(deserialize_with = "nullable")]
    pub(crate) goto_location: String,
    #[serde(deserialize_with = "nullable")]
    pub(crate) channel_id: String,
    #[serde(deserialize_with = "nullable")]
    pub(crate) skip_slack_parsing: bool,
    #[serde(deserialize_with = "nullable")]
    pub(crate) extra_responses: Vec<Said>,
}

fn nullable<'de, T: Default + Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// Slack's ways of writing links and addressing everybody, as Markdown.
pub(crate) fn from_slack(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('<') {
        out.push_str(before);
        let Some((inside, behind)) = after.split_once('>').filter(|(inside, _)| !inside.contains(['\n', '<'])) else {
            out.push('<');
            rest = after;
            continue;
        };
        match (inside, inside.split_once('|')) {
            ("!channel" | "!group", _) => out.push_str("@channel"),
            ("!everyone", _) => out.push_str("@all"),
            ("!here", _) => out.push_str("@here"),
            (_, Some((link, shown))) if !link.is_empty() && !shown.is_empty() => {
                out.push_str(&format!("[{shown}]({link})"));
            }
            (_, Some(_) | None) => out.push_str(&format!("<{inside}>")),
        }
        rest = behind;
    }
    out.push_str(rest);
    out
}

/// Attachments as they are stored: texts as Markdown, values as text, an id for every button.
fn clean_attachments(attachments: &[Map<String, Value>]) -> Vec<Value> {
    let each = attachments.iter().map(|attachment| {
        let mut attachment = attachment.clone();
        for key in ["text", "pretext", "title"] {
            if let Some(Value::String(text)) = attachment.get_mut(key) {
                *text = from_slack(text);
            }
        }
        if let Some(Value::Array(fields)) = attachment.get_mut("fields") {
            for field in fields.iter_mut().filter_map(Value::as_object_mut) {
                let value = match field.get("value") {
                    Some(Value::String(text)) => from_slack(text),
                    Some(Value::Null) | None => String::new(),
                    Some(other @ (Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_))) => {
                        other.to_string()
                    }
                };
                field.insert("value".to_owned(), value.into());
            }
        }
        Value::Object(attachment)
    });
    each.collect()
}

/// The buttons and menus in props.
fn each_action(props: &mut Map<String, Value>, mut work: impl FnMut(&mut Map<String, Value>)) {
    let Some(Value::Array(attachments)) = props.get_mut("attachments") else { return };
    for attachment in attachments.iter_mut().filter_map(Value::as_object_mut) {
        let Some(Value::Array(actions)) = attachment.get_mut("actions") else { continue };
        actions.iter_mut().filter_map(Value::as_object_mut).for_each(&mut work);
    }
}

/// Gives an id to every button that has none.
pub(crate) fn name_actions(props: &mut Map<String, Value>) {
    each_action(props, |action| {
        if action.get("id").and_then(Value::as_str).is_none_or(str::is_empty) {
            action.insert("id".to_owned(), random_id().as_str().into());
        }
    });
}

/// Takes out where buttons lead to, and with which secrets: clients ask this core, which knows.
pub(crate) fn hide_actions(props: &mut Map<String, Value>) {
    each_action(props, |action| {
        action.remove("integration");
    });
}

/// A session in which an integration acts for the user who made it.
pub(crate) fn session_of(user: &User) -> Session {
    Session {
        id: user.id,
        token: String::new(),
        create_at: 0,
        expires_at: 0,
        last_activity_at: 0,
        user_id: user.id,
        device_id: String::new(),
        roles: user.roles.clone(),
        is_oauth: false,
        expired_notify: false,
        props: StringMap::new(),
        team_members: Vec::new(),
        local: false,
    }
}

impl Core {
    /// The props of a post that an integration makes, with the name and picture that it may choose.
    fn props_of(&self, said: &Said, username: &str, icon_url: &str) -> Map<String, Value> {
        let settings = &self.settings().integrations;
        let mut props = said.props.clone();
        for reserved in ["override_icon_url", "override_username", "override_icon_emoji", "from_webhook", "attachments"]
        {
            props.remove(reserved);
        }
        props.insert("from_webhook".to_owned(), "true".into());
        if settings.username_override {
            let name = if username.is_empty() { "webhook" } else { username };
            props.insert("override_username".to_owned(), name.into());
        }
        if settings.icon_override {
            for (key, value) in [("override_icon_url", icon_url), ("override_icon_emoji", said.icon_emoji.as_str())] {
                if !value.is_empty() {
                    props.insert(key.to_owned(), value.into());
                }
            }
        }
        props
    }

    /// Posts what an integration says, in as many posts as it needs. The first of them.
    fn post_said(
        &self,
        by: &Session,
        channel: &Channel,
        root: &str,
        said: &Said,
        props: &Map<String, Value>,
    ) -> AppResult<Post> {
        const WHERE: &str = "CreateWebhookPost";
        if said.kind.starts_with("system_") {
            let message = "Invalid post.type parameter.";
            return Err(AppError::bad(WHERE, "api.context.invalid_param.app_error", message));
        }
        let text = if said.skip_slack_parsing { said.text.clone() } else { from_slack(&said.text) };
        let attachments = clean_attachments(&said.attachments);
        let kind = if attachments.is_empty() { said.kind.as_str() } else { "slack_attachment" };
        let too_long = || {
            let id = "web.incoming_webhook.split_props_length.app_error";
            AppError::bad(WHERE, id, "The message or its attachments are too long.")
        };
        let parts = split(&text, self.settings().max_post_runes);
        if parts.len() > SPLITS_MAX || to_json(&props).chars().count() > PROPS_RUNES_MAX {
            return Err(too_long());
        }
        let mut news: Vec<NewPost> = parts
            .into_iter()
            .map(|part| NewPost {
                channel_id: channel.id.to_string(),
                root_id: root.to_owned(),
                message: part.to_owned(),
                kind: kind.to_owned(),
                props: props.clone(),
                ..NewPost::default()
            })
            .collect();
        for attachment in attachments {
            if to_json(&attachment).chars().count() + to_json(&props).chars().count() > PROPS_RUNES_MAX {
                return Err(too_long());
            }
            let fits = |props: &Map<String, Value>| {
                to_json(props).chars().count() + to_json(&attachment).chars().count() < PROPS_RUNES_MAX
            };
            let last = news.last_mut().expect("a text has a part, be it empty");
            if fits(&last.props) {
                let list = last.props.entry("attachments").or_insert_with(|| json!([]));
                list.as_array_mut().expect("made as one").push(attachment);
            } else {
                let mut props = props.clone();
                props.insert("attachments".to_owned(), json!([attachment]));
                let next = NewPost { message: String::new(), props, ..last.clone() };
                news.push(next);
            }
        }
        if let Some(priority) = &said.priority {
            news[0].metadata = Some(NewPostMetadata { priority: Some(priority.clone()) });
        }
        self.write(|tx| {
            let mut first = None;
            for new in &news {
                let post = tx.write_post(by, new, false)?;
                first.get_or_insert(post);
                // One after the other, also to readers.
                tx.now += 1;
            }
            Ok(first.expect("there is a post"))
        })
    }
}

/// Cuts a text into pieces of so many characters. An empty text is one piece.
fn split(text: &str, runes: usize) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some((at, _)) = rest.char_indices().nth(runes.max(1)) {
        parts.push(&rest[..at]);
        rest = &rest[at..];
    }
    parts.push(rest);
    parts
}

/// A table of JSON bodies beside the columns that are looked for.
struct Shelf {
    table: &'static str,
    missing: &'static str,
}

const INCOMING: Shelf = Shelf { table: "incoming_hooks", missing: "app.webhooks.get_incoming.app_error" };
const OUTGOING: Shelf = Shelf { table: "outgoing_hooks", missing: "app.webhooks.get_outgoing.app_error" };
const COMMANDS: Shelf = Shelf { table: "commands", missing: "api.command.command_not_found.app_error" };

impl Shelf {
    fn get<T: DeserializeOwned>(&self, db: &Connection, id: Id) -> AppResult<T> {
        let sql = format!("SELECT body FROM {} WHERE id = ?1", self.table);
        get(db, &sql, [id.as_str()], body)?.ok_or_else(|| AppError::not_found("integrations", self.missing))
    }

    /// Those of a team, or all; of a maker, or all; the oldest first.
    fn list<T: DeserializeOwned>(
        &self,
        db: &Connection,
        team: Option<Id>,
        maker: Option<Id>,
        (limit, offset): (i64, i64),
    ) -> rusqlite::Result<Vec<T>> {
        let sql = format!(
            "SELECT body FROM {} WHERE (?1 = '' OR team_id = ?1) AND (?2 = '' OR maker_id = ?2)
             ORDER BY create_at, id LIMIT ?3 OFFSET ?4",
            self.table
        );
        all(db, &sql, params![crate::rows::text(&team), crate::rows::text(&maker), limit, offset], body)
    }

    fn put<T: Serialize>(&self, tx: &Tx<'_>, key: &Key<'_>, body: &T) -> rusqlite::Result<()> {
        let sql = format!(
            "INSERT INTO {} (id, create_at, team_id, maker_id, word, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT (id) DO UPDATE SET team_id = excluded.team_id, word = excluded.word, body = excluded.body",
            self.table
        );
        let Key { id, create_at, team, maker, word } = key;
        run(&tx.db, &sql, params![id.as_str(), create_at, team.as_str(), maker.as_str(), word, to_json(body)]).map(drop)
    }

    fn remove(&self, tx: &Tx<'_>, id: Id) -> rusqlite::Result<()> {
        run(&tx.db, &format!("DELETE FROM {} WHERE id = ?1", self.table), [id.as_str()]).map(drop)
    }

    fn is_full(&self, db: &Connection, team: Id) -> rusqlite::Result<bool> {
        const TEAM_MAX: i64 = 500;
        let sql = format!("SELECT count(*) FROM {} WHERE team_id = ?1", self.table);
        Ok(crate::rows::count(db, &sql, [team.as_str()])? >= TEAM_MAX)
    }
}

struct Key<'a> {
    id: Id,
    create_at: i64,
    team: Id,
    maker: Id,
    /// A command's word, a hook's channel.
    word: &'a str,
}

fn body<T: DeserializeOwned>(r: &Row<'_>) -> rusqlite::Result<T> {
    let bad = |e| rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(e));
    serde_json::from_str(r.get_ref("body")?.as_str()?).map_err(bad)
}

fn too_many(where_: &'static str) -> AppError {
    let message = "The team has too many of these. Delete some first.";
    AppError::bad(where_, "holdfast.integrations.too_many.app_error", message)
}

/// The tables. `word` is the command's trigger, or the hook's channel.
pub(crate) const TABLES: &str = "
CREATE TABLE incoming_hooks (
    id TEXT PRIMARY KEY, create_at INTEGER NOT NULL, team_id TEXT NOT NULL, maker_id TEXT NOT NULL, word TEXT NOT NULL,
    body TEXT NOT NULL) STRICT;
CREATE TABLE outgoing_hooks (
    id TEXT PRIMARY KEY, create_at INTEGER NOT NULL, team_id TEXT NOT NULL, maker_id TEXT NOT NULL, word TEXT NOT NULL,
    body TEXT NOT NULL) STRICT;
CREATE INDEX outgoing_hooks_team ON outgoing_hooks (team_id);
CREATE TABLE commands (
    id TEXT PRIMARY KEY, create_at INTEGER NOT NULL, team_id TEXT NOT NULL, maker_id TEXT NOT NULL, word TEXT NOT NULL,
    body TEXT NOT NULL, UNIQUE (team_id, word)) STRICT;
CREATE TABLE command_answers (
    id TEXT PRIMARY KEY, create_at INTEGER NOT NULL, command_id TEXT NOT NULL, user_id TEXT NOT NULL,
    channel_id TEXT NOT NULL, root_id TEXT NOT NULL, uses INTEGER NOT NULL) STRICT;
";
