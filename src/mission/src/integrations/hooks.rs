//! Hooks: incoming ones, by which programs post here, and outgoing ones, which tell programs of posts.

use http::Method;
use model::Id;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{INCOMING, Key, OUTGOING, Said, session_of, too_many};
use crate::access::{may, may_in_team, may_read, require_in_team, require_read};
use crate::channels::require_channel;
use crate::core::{Core, random_id};
use crate::error::{AppError, AppResult};
use crate::outgoing::Call;
use crate::rows::{first_id, get};
use crate::types::{Channel, Post, Session, blank_id};
use crate::users::{page, require_user};

/// An address at which a program posts. Its id is its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct IncomingHook {
    pub(crate) id: Id,
    pub(crate) create_at: i64,
    pub(crate) update_at: i64,
    pub(crate) delete_at: i64,
    pub(crate) user_id: Id,
    pub(crate) channel_id: Id,
    pub(crate) team_id: Id,
    pub(crate) display_name: String,
    pub(crate) description: String,
    pub(crate) username: String,
    pub(crate) icon_url: String,
    pub(crate) channel_locked: bool,
}

/// What a client sends of an incoming hook.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct NewIncoming {
    pub(crate) id: String,
    user_id: String,
    channel_id: String,
    display_name: String,
    description: String,
    username: String,
    icon_url: String,
    channel_locked: bool,
}

/// A rule by which programs are told of posts in open channels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OutgoingHook {
    pub(crate) id: Id,
    pub(crate) token: String,
    pub(crate) create_at: i64,
    pub(crate) update_at: i64,
    pub(crate) delete_at: i64,
    pub(crate) creator_id: Id,
    #[serde(with = "blank_id")]
    pub(crate) channel_id: Option<Id>,
    pub(crate) team_id: Id,
    pub(crate) trigger_words: Vec<String>,
    /// 0: the first word is one of these; 1: it begins with one.
    pub(crate) trigger_when: u8,
    pub(crate) callback_urls: Vec<String>,
    pub(crate) display_name: String,
    pub(crate) description: String,
    pub(crate) content_type: String,
    pub(crate) username: String,
    pub(crate) icon_url: String,
}

/// What a client sends of an outgoing hook.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct NewOutgoing {
    pub(crate) id: String,
    team_id: String,
    channel_id: String,
    creator_id: String,
    trigger_words: Option<Vec<String>>,
    trigger_when: u8,
    pub(crate) callback_urls: Option<Vec<String>>,
    display_name: String,
    description: String,
    content_type: String,
    username: String,
    icon_url: String,
}

const OWN_IN: &str = "manage_own_incoming_webhooks";
const OTHERS_IN: &str = "manage_others_incoming_webhooks";
const OWN_OUT: &str = "manage_own_outgoing_webhooks";
const OTHERS_OUT: &str = "manage_others_outgoing_webhooks";

fn check_length(where_: &'static str, what: &str, checks: &[(&str, &str, usize)]) -> AppResult<()> {
    match checks.iter().find(|(_, text, max)| text.len() > *max) {
        Some((field, ..)) => {
            let id = format!("model.{what}.{field}.app_error");
            Err(AppError::bad(where_, id, format!("Invalid {field}.")))
        }
        None => Ok(()),
    }
}

/// One's own, or anybody's with the other permission.
fn require_hook(
    db: &rusqlite::Connection,
    by: &Session,
    team: Id,
    maker: Id,
    [own, others]: [&'static str; 2],
) -> AppResult<()> {
    require_in_team("webhook", db, by, team, own)?;
    if maker == by.user_id { Ok(()) } else { require_in_team("webhook", db, by, team, others) }
}

/// Whose hooks the asker may list: `None` for everybody's.
fn listed_maker(
    db: &rusqlite::Connection,
    by: &Session,
    team: Option<Id>,
    [own, others]: [&'static str; 2],
) -> AppResult<Option<Id>> {
    let may = |permission| match team {
        Some(team) => may_in_team(db, by, team, permission),
        None => Ok(may(by, permission)),
    };
    if !may(own)? {
        return Err(AppError::permissions("getHooks", own));
    }
    Ok(if may(others)? { None } else { Some(by.user_id) })
}

impl Core {
    /// Makes an incoming hook, or changes one.
    ///
    /// # Errors
    /// 403 without permission, 404 for a missing channel or hook, 400 for bad values.
    pub(crate) fn save_incoming_hook(
        &self,
        by: &Session,
        id: Option<Id>,
        new: &NewIncoming,
    ) -> AppResult<IncomingHook> {
        const WHERE: &str = "createIncomingHook";
        check_length(
            WHERE,
            "incoming_hook",
            &[
                ("display_name", &new.display_name, 64),
                ("description", &new.description, 500),
                ("username", &new.username, 64),
                ("icon_url", &new.icon_url, 1_024),
            ],
        )?;
        let channel: Id = new.channel_id.parse().map_err(|_| AppError::body_param(WHERE, "channel_id"))?;
        let settings = self.settings().integrations.clone();
        self.write(|tx| {
            let old: Option<IncomingHook> = id.map(|id| INCOMING.get(&tx.db, id)).transpose()?;
            let c = require_channel(&tx.db, channel)?.channel;
            let team = c.team_id.ok_or_else(|| AppError::body_param(WHERE, "channel_id"))?;
            require_in_team(WHERE, &tx.db, by, team, OWN_IN)?;
            require_read(WHERE, &tx.db, by, &c)?;
            let user = match (&old, new.user_id.as_str()) {
                (Some(old), _) => {
                    require_hook(&tx.db, by, old.team_id, old.user_id, [OWN_IN, OTHERS_IN])?;
                    if old.team_id != team {
                        let message = "A hook stays in its team.";
                        return Err(AppError::bad(WHERE, "api.webhook.team_mismatch.app_error", message));
                    }
                    old.user_id
                }
                (None, "") => by.user_id,
                (None, other) => {
                    let other = other.parse().map_err(|_| AppError::body_param(WHERE, "user_id"))?;
                    require_hook(&tx.db, by, team, other, [OWN_IN, OTHERS_IN])?;
                    require_user(&tx.db, other)?.user.id
                }
            };
            if old.is_none() && INCOMING.is_full(&tx.db, team)? {
                return Err(too_many(WHERE));
            }
            let may_unlock = may_in_team(&tx.db, by, team, "bypass_incoming_webhook_channel_lock")?;
            let hook = IncomingHook {
                // Who knows it may post: it is random, unlike the ids of objects.
                id: old.as_ref().map_or_else(random_id, |old| old.id),
                create_at: old.as_ref().map_or(tx.now, |old| old.create_at),
                update_at: tx.now,
                delete_at: 0,
                user_id: user,
                channel_id: channel,
                team_id: team,
                display_name: new.display_name.clone(),
                description: new.description.clone(),
                username: if settings.username_override { new.username.clone() } else { String::new() },
                icon_url: if settings.icon_override { new.icon_url.clone() } else { String::new() },
                channel_locked: new.channel_locked || !may_unlock,
            };
            let key = Key { id: hook.id, create_at: hook.create_at, team, maker: user, word: channel.as_str() };
            INCOMING.put(tx, &key, &hook)?;
            Ok(hook)
        })
    }

    /// One incoming hook, for who may change it.
    ///
    /// # Errors
    /// 404, 403.
    pub(crate) fn incoming_hook(&self, by: &Session, id: Id) -> AppResult<IncomingHook> {
        self.read(|db| {
            let hook: IncomingHook = INCOMING.get(db, id)?;
            let c = require_channel(db, hook.channel_id)?.channel;
            if c.kind != "O" && !may_read(db, by, &c)? {
                return Err(AppError::permissions("getIncomingHook", OWN_IN));
            }
            require_hook(db, by, hook.team_id, hook.user_id, [OWN_IN, OTHERS_IN])?;
            Ok(hook)
        })
    }

    /// The incoming hooks of a team, or of all.
    ///
    /// # Errors
    /// 403 without permission.
    pub(crate) fn incoming_hooks(
        &self,
        by: &Session,
        team: Option<Id>,
        number: u32,
        per_page: u32,
    ) -> AppResult<Vec<IncomingHook>> {
        self.read(|db| {
            let maker = listed_maker(db, by, team, [OWN_IN, OTHERS_IN])?;
            Ok(INCOMING.list(db, team, maker, page(number, per_page))?)
        })
    }

    /// Takes an incoming hook away.
    ///
    /// # Errors
    /// As [`Core::incoming_hook`].
    pub(crate) fn delete_incoming_hook(&self, by: &Session, id: Id) -> AppResult<()> {
        self.incoming_hook(by, id)?;
        self.write(|tx| Ok(INCOMING.remove(tx, id)?))
    }

    /// Posts what a program sent to a hook.
    ///
    /// # Errors
    /// 400 for an unknown hook or nothing to say, 403 where its maker may not post, 404 for a missing channel.
    pub(crate) fn post_by_hook(&self, id: &str, said: &Said) -> AppResult<Post> {
        const WHERE: &str = "HandleIncomingWebhook";
        let bad = |id: &'static str, message: &'static str| AppError::bad(WHERE, id, message);
        if said.text.is_empty() && said.attachments.is_empty() {
            return Err(bad("web.incoming_webhook.text.app_error", "No text specified."));
        }
        let unknown = || bad("web.incoming_webhook.invalid.app_error", "Invalid webhook.");
        let id: Id = id.parse().map_err(|_| unknown())?;
        let (hook, user) = self.read(|db| {
            let hook: IncomingHook =
                INCOMING.get(db, id).map_err(|e| if e.status_code == 404 { unknown() } else { e })?;
            let user = require_user(db, hook.user_id)?.user;
            Ok::<_, AppError>((hook, user))
        })?;
        let mut by = session_of(&user);
        if user.delete_at > 0 {
            return Err(AppError::new(WHERE, "web.incoming_webhook.user.app_error", "Couldn't find the user.", 403));
        }
        let channel = self.hook_channel(&by, &hook, &said.channel)?;
        if hook.channel_locked && channel.id != hook.channel_id {
            let message = "This webhook is not permitted to post to the requested channel.";
            return Err(AppError::new(WHERE, "web.incoming_webhook.channel_locked.app_error", message, 403));
        }
        let reads = self.read(|db| may_read(db, &by, &channel).map_err(AppError::from))?;
        if channel.kind != "O" && !reads {
            let message = "Inappropriate channel permissions.";
            return Err(AppError::new(WHERE, "web.incoming_webhook.permissions.app_error", message, 403));
        }
        // A hook posts to open channels that its maker did not join.
        by.roles.push_str(" system_post_all");
        let either = |said: &str, own: &str| if said.is_empty() { own.to_owned() } else { said.to_owned() };
        let mut props =
            self.props_of(said, &either(&said.username, &hook.username), &either(&said.icon_url, &hook.icon_url));
        props.insert("webhook_display_name".to_owned(), hook.display_name.as_str().into());
        self.post_said(&by, &channel, "", said, &props)
    }

    /// The hook's own channel, or the one that the request names.
    fn hook_channel(&self, by: &Session, hook: &IncomingHook, named: &str) -> AppResult<Channel> {
        const WHERE: &str = "HandleIncomingWebhook";
        if let Some(username) = named.strip_prefix('@') {
            let user = self
                .user_by_username(username)
                .map_err(|_| AppError::bad(WHERE, "web.incoming_webhook.user.app_error", "Couldn't find the user."))?;
            return self.direct_channel(by, by.user_id, user.id);
        }
        let name = named.strip_prefix('#').unwrap_or(named);
        self.read(|db| {
            if name.is_empty() {
                return Ok(require_channel(db, hook.channel_id)?.channel);
            }
            let sql = "SELECT id FROM channels WHERE team_id = ?1 AND name = ?2 AND delete_at = 0";
            let id = get(db, sql, [hook.team_id.as_str(), name], first_id)?;
            let missing = || AppError::not_found(WHERE, "web.incoming_webhook.channel.app_error");
            Ok(require_channel(db, id.ok_or_else(missing)?)?.channel)
        })
    }

    /// Makes an outgoing hook, or changes one. The caller has looked at the callback URLs.
    ///
    /// # Errors
    /// 403 without permission, 404 for a missing hook, 400 for bad values.
    pub(crate) fn save_outgoing_hook(
        &self,
        by: &Session,
        id: Option<Id>,
        new: &NewOutgoing,
    ) -> AppResult<OutgoingHook> {
        const WHERE: &str = "createOutgoingHook";
        check_length(
            WHERE,
            "outgoing_hook.is_valid",
            &[
                ("display_name", &new.display_name, 64),
                ("description", &new.description, 500),
                ("content_type", &new.content_type, 128),
            ],
        )?;
        check_length(WHERE, "outgoing_hook", &[("username", &new.username, 64), ("icon_url", &new.icon_url, 1_024)])?;
        let invalid = |field: &str| {
            AppError::bad(WHERE, format!("model.outgoing_hook.is_valid.{field}.app_error"), format!("Invalid {field}."))
        };
        let words = new.trigger_words.clone().unwrap_or_default();
        let urls = new.callback_urls.clone().unwrap_or_default();
        let len = |list: &[String]| list.iter().map(|text| text.len() + 1).sum::<usize>();
        if len(&words) > 1_024 {
            return Err(invalid("words"));
        }
        if words.iter().any(String::is_empty) {
            return Err(invalid("trigger_words"));
        }
        if urls.is_empty() || len(&urls) > 1_024 {
            return Err(invalid("callback"));
        }
        if new.trigger_when > 1 {
            return Err(invalid("content_type"));
        }
        let channel: Option<Id> = match new.channel_id.as_str() {
            "" => None,
            text => Some(text.parse().map_err(|_| invalid("channel_id"))?),
        };
        self.write(|tx| {
            let old: Option<OutgoingHook> = id.map(|id| OUTGOING.get(&tx.db, id)).transpose()?;
            let team: Id = match &old {
                Some(old) => old.team_id,
                None => new.team_id.parse().map_err(|_| AppError::body_param(WHERE, "team_id"))?,
            };
            require_in_team(WHERE, &tx.db, by, team, OWN_OUT)?;
            let maker = match (&old, new.creator_id.as_str()) {
                (Some(old), _) => old.creator_id,
                (None, "") => by.user_id,
                (None, other) => other.parse().map_err(|_| AppError::body_param(WHERE, "creator_id"))?,
            };
            require_hook(&tx.db, by, team, maker, [OWN_OUT, OTHERS_OUT])?;
            require_user(&tx.db, maker)?;
            match channel {
                Some(channel) => {
                    let c = require_channel(&tx.db, channel)?.channel;
                    if c.kind != "O" {
                        let id = "api.webhook.create_outgoing.not_open.app_error";
                        return Err(AppError::new(
                            WHERE,
                            id,
                            "Outgoing webhooks can only be created for public channels.",
                            403,
                        ));
                    }
                    if c.team_id != Some(team) {
                        let id = "api.webhook.create_outgoing.permissions.app_error";
                        return Err(AppError::new(WHERE, id, "Invalid permissions to create outgoing webhook.", 403));
                    }
                }
                None if words.is_empty() => {
                    let message = "Either trigger_words or channel_id must be set.";
                    return Err(AppError::bad(WHERE, "api.webhook.create_outgoing.triggers.app_error", message));
                }
                None => {}
            }
            if old.is_none() && OUTGOING.is_full(&tx.db, team)? {
                return Err(too_many(WHERE));
            }
            let hook = OutgoingHook {
                id: old.as_ref().map_or_else(random_id, |old| old.id),
                token: old.as_ref().map_or_else(|| random_id().to_string(), |old| old.token.clone()),
                create_at: old.as_ref().map_or(tx.now, |old| old.create_at),
                update_at: tx.now,
                delete_at: 0,
                creator_id: maker,
                channel_id: channel,
                team_id: team,
                trigger_words: words.clone(),
                trigger_when: new.trigger_when,
                callback_urls: urls.clone(),
                display_name: new.display_name.clone(),
                description: new.description.clone(),
                content_type: new.content_type.clone(),
                username: new.username.clone(),
                icon_url: new.icon_url.clone(),
            };
            let word = crate::rows::text(&hook.channel_id);
            OUTGOING.put(tx, &Key { id: hook.id, create_at: hook.create_at, team, maker, word }, &hook)?;
            Ok(hook)
        })
    }

    /// One outgoing hook, for who may change it.
    ///
    /// # Errors
    /// 404, 403.
    pub(crate) fn outgoing_hook(&self, by: &Session, id: Id) -> AppResult<OutgoingHook> {
        self.read(|db| {
            let hook: OutgoingHook = OUTGOING.get(db, id)?;
            require_hook(db, by, hook.team_id, hook.creator_id, [OWN_OUT, OTHERS_OUT])?;
            Ok(hook)
        })
    }

    /// The outgoing hooks of a channel, a team, or all.
    ///
    /// # Errors
    /// 403 without permission.
    pub(crate) fn outgoing_hooks(
        &self,
        by: &Session,
        team: Option<Id>,
        channel: Option<Id>,
        number: u32,
        per_page: u32,
    ) -> AppResult<Vec<OutgoingHook>> {
        self.read(|db| {
            let team = match channel {
                Some(channel) => require_channel(db, channel)?.channel.team_id,
                None => team,
            };
            let maker = listed_maker(db, by, team, [OWN_OUT, OTHERS_OUT])?;
            let mut hooks: Vec<OutgoingHook> = OUTGOING.list(db, team, maker, page(number, per_page))?;
            hooks.retain(|hook| channel.is_none() || hook.channel_id == channel);
            Ok(hooks)
        })
    }

    /// Gives an outgoing hook another token.
    ///
    /// # Errors
    /// As [`Core::outgoing_hook`].
    pub(crate) fn regenerate_hook_token(&self, by: &Session, id: Id) -> AppResult<OutgoingHook> {
        let mut hook = self.outgoing_hook(by, id)?;
        self.write(|tx| {
            hook.token = random_id().to_string();
            hook.update_at = tx.now;
            let word = crate::rows::text(&hook.channel_id);
            let (team, maker) = (hook.team_id, hook.creator_id);
            OUTGOING.put(tx, &Key { id: hook.id, create_at: hook.create_at, team, maker, word }, &hook)?;
            Ok(hook.clone())
        })
    }

    /// Takes an outgoing hook away.
    ///
    /// # Errors
    /// As [`Core::outgoing_hook`].
    pub(crate) fn delete_outgoing_hook(&self, by: &Session, id: Id) -> AppResult<()> {
        self.outgoing_hook(by, id)?;
        self.write(|tx| Ok(OUTGOING.remove(tx, id)?))
    }

    /// Whom a new post in an open channel is to be told, and how.
    ///
    /// # Errors
    /// When the store fails.
    pub(crate) fn hooks_of_post(&self, post: &Post) -> AppResult<Vec<(OutgoingHook, Call)>> {
        self.read(|db| {
            let c = require_channel(db, post.channel_id)?.channel;
            let Some(team) = c.team_id.filter(|_| c.kind == "O") else { return Ok(Vec::new()) };
            let hooks: Vec<OutgoingHook> = OUTGOING.list(db, Some(team), None, (500, 0))?;
            if hooks.is_empty() {
                return Ok(Vec::new());
            }
            let first = post.message.split_whitespace().next().unwrap_or("");
            let team_name = crate::teams::team_row_by_id(db, team)?.map_or(String::new(), |row| row.team.name);
            let user_name = require_user(db, post.user_id)?.user.username;
            let mut calls = Vec::new();
            for hook in hooks {
                let Some(word) = triggered(&hook, post.channel_id, first) else { continue };
                let file_ids: Vec<&str> = post.file_ids.iter().map(Id::as_str).collect();
                let is_json = hook.content_type == "application/json";
                let mut told = json!({
                    "token": hook.token, "team_id": team, "team_domain": team_name, "channel_id": c.id,
                    "channel_name": c.name, "timestamp": post.create_at, "user_id": post.user_id, "user_name": user_name,
                    "post_id": post.id, "text": post.message, "trigger_word": word, "file_ids": file_ids.join(","),
                });
                if !is_json {
                    told["timestamp"] = (post.create_at / 1_000).to_string().into();
                }
                let body = if is_json { told.to_string() } else { super::commands::form(&told) };
                let content_type =
                    Some(if is_json { "application/json" } else { "application/x-www-form-urlencoded" });
                for url in &hook.callback_urls {
                    let (url, body) = (url.clone(), body.clone().into_bytes());
                    calls.push((hook.clone(), Call { method: Method::POST, url, content_type, authorization: None, body }));
                }
            }
            Ok(calls)
        })
    }

    /// Posts what a program answered to an outgoing hook.
    ///
    /// # Errors
    /// As for any post.
    pub(crate) fn post_hook_answer(&self, hook: &OutgoingHook, told: &Post, said: &Said) -> AppResult<()> {
        if said.text.is_empty() && said.attachments.is_empty() {
            return Ok(());
        }
        let (channel, user) = self.read(|db| {
            let channel = require_channel(db, told.channel_id)?.channel;
            Ok::<_, AppError>((channel, require_user(db, hook.creator_id)?.user))
        })?;
        if user.delete_at > 0 {
            return Err(AppError::new(
                "TriggerWebhook",
                "web.incoming_webhook.user.app_error",
                "Couldn't find the user.",
                403,
            ));
        }
        let mut by = session_of(&user);
        by.roles.push_str(" system_post_all");
        let root = match (said.response_type.as_str(), told.root_id) {
            ("comment", Some(root)) => root.to_string(),
            ("comment", None) => told.id.to_string(),
            (_, _) => String::new(),
        };
        let either = |said: &str, own: &str| if said.is_empty() { own.to_owned() } else { said.to_owned() };
        let mut props =
            self.props_of(said, &either(&said.username, &hook.username), &either(&said.icon_url, &hook.icon_url));
        props.insert("webhook_display_name".to_owned(), hook.display_name.as_str().into());
        self.post_said(&by, &channel, &root, said, &props).map(drop)
    }
}

/// The word that sets the hook off; "" for a hook on every post of its channel.
fn triggered(hook: &OutgoingHook, channel: Id, first: &str) -> Option<String> {
    if hook.channel_id.is_some_and(|own| own != channel) {
        return None;
    }
    if hook.trigger_words.is_empty() {
        return hook.channel_id.map(|_| String::new());
    }
    let matches =
        |word: &&String| if hook.trigger_when == 1 { first.starts_with(word.as_str()) } else { first == **word };
    hook.trigger_words.iter().find(matches).cloned()
}
