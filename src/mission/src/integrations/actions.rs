//! Buttons, menus and dialogs of integrations.

use std::collections::HashMap;
use std::sync::Mutex;

use http::Method;
use model::Id;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Said, each_action, from_slack, session_of};
use crate::access::{require_in_team, require_read};
use crate::channels::require_channel;
use crate::core::{Core, lock, random_id};
use crate::ephemeral::Ephemeral;
use crate::error::{AppError, AppResult};
use crate::events::Broadcast;
use crate::outgoing::Call;
use crate::posts::require_post;
use crate::teams::team_row_by_id;
use crate::types::{PostPatch, Session};
use crate::users::require_user;

/// Who pressed what, by the word that an integration shows to open a dialog: user and time.
pub(crate) type Triggers = Mutex<HashMap<String, (Id, i64)>>;

/// Words that are remembered; the oldest go first.
const TRIGGERS_MAX: usize = 10_000;

/// What a button asks, and what is done with the answer.
#[derive(Debug)]
pub(crate) struct Pressed {
    pub(crate) call: Call,
    pub(crate) trigger_id: String,
    post: Id,
}

/// `POST /actions/dialogs/submit`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Submission {
    pub(crate) url: String,
    callback_id: String,
    state: String,
    channel_id: String,
    team_id: String,
    submission: Map<String, Value>,
    cancelled: bool,
}

fn failed(why: impl ToString) -> AppError {
    let id = "api.post.do_action.action_integration.app_error";
    AppError::bad("DoPostAction", id, "Action integration error.").detail(why)
}

impl Core {
    /// A word with which an integration may open a dialog for this user, for a while.
    pub(crate) fn new_trigger(&self, user: Id) -> String {
        let (word, now) = (random_id().to_string(), self.now().0);
        let mut triggers = lock(&self.0.triggers);
        let life = i64::from(self.settings().integrations.timeout_seconds.max(1)) * 1_000;
        triggers.retain(|_, (_, at)| *at + life >= now);
        if triggers.len() >= TRIGGERS_MAX {
            triggers.clear();
        }
        triggers.insert(word.clone(), (user, now));
        word
    }

    /// What is asked when a user presses a button of a post.
    ///
    /// # Errors
    /// 404 for a post or button that is not there, 403 when its channel is not the asker's.
    pub(crate) fn press(&self, by: &Session, post: Id, action: &str, selected: &str) -> AppResult<Pressed> {
        let (row, c, team, user) = self.read(|db| {
            let row = require_post(db, post)?;
            let c = require_channel(db, row.channel_id)?.channel;
            require_read("doPostAction", db, by, &c)?;
            let team = c.team_id.map(|team| team_row_by_id(db, team)).transpose()?.flatten().map(|row| row.team.name);
            Ok::<_, AppError>((row, c, team, require_user(db, by.user_id)?.user))
        })?;
        let mut props = row.props_map();
        let mut found = None;
        each_action(&mut props, |each| {
            if each.get("id").and_then(Value::as_str) == Some(action) {
                found = Some(each.clone());
            }
        });
        let missing = || AppError::not_found("DoPostAction", "api.post.do_action.action_id.app_error");
        let found = found.ok_or_else(missing)?;
        let integration = found.get("integration").and_then(Value::as_object).ok_or_else(missing)?;
        let url = integration.get("url").and_then(Value::as_str).ok_or_else(missing)?.to_owned();
        let mut context = integration.get("context").and_then(Value::as_object).cloned().unwrap_or_default();
        let kind = found.get("type").and_then(Value::as_str).unwrap_or("button");
        let mut asked = json!({
            "user_id": by.user_id, "user_name": user.username, "channel_id": c.id, "channel_name": c.name,
            "team_id": crate::rows::text(&c.team_id), "team_domain": team.unwrap_or_default(), "post_id": post,
            "type": kind, "data_source": "",
        });
        if kind == "select" && !selected.is_empty() {
            context.insert("selected_option".to_owned(), selected.into());
            asked["data_source"] = found.get("data_source").cloned().unwrap_or_else(|| "".into());
        }
        let trigger_id = self.new_trigger(by.user_id);
        asked["context"] = Value::Object(context);
        asked["trigger_id"] = trigger_id.as_str().into();
        let body = asked.to_string().into_bytes();
        let content_type = Some("application/json");
        let call = Call { method: Method::POST, url, content_type, authorization: None, body };
        Ok(Pressed { call, trigger_id, post })
    }

    /// Does what the program answered to a button: changes the post, tells the presser something.
    ///
    /// # Errors
    /// 400 for an answer that is none.
    pub(crate) fn pressed(&self, by: &Session, pressed: &Pressed, answer: &[u8]) -> AppResult<()> {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Answer {
            update: Option<Update>,
            ephemeral_text: Option<String>,
            skip_slack_parsing: bool,
        }
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Update {
            message: Option<String>,
            props: Option<Map<String, Value>>,
        }
        let answer: Answer = match answer.trim_ascii() {
            [] => Answer::default(),
            bytes => serde_json::from_slice(bytes).map_err(failed)?,
        };
        self.write(|tx| {
            let row = require_post(&tx.db, pressed.post)?;
            if let Some(update) = answer.update {
                let author = require_user(&tx.db, row.user_id)?.user;
                let mut as_author = session_of(&author);
                // The program speaks for the post that it made, in whatever channel that is.
                as_author.roles.push_str(" system_admin");
                let props = update.props.map(|mut props| {
                    let before = row.props_map();
                    for kept in ["from_webhook", "override_username", "override_icon_url", "override_icon_emoji"] {
                        match before.get(kept) {
                            Some(value) => drop(props.insert(kept.to_owned(), value.clone())),
                            None => drop(props.remove(kept)),
                        }
                    }
                    props
                });
                let patch = PostPatch { message: update.message, props, ..PostPatch::default() };
                tx.patch_post(&as_author, pressed.post, &patch, false)?;
            }
            if let Some(text) = answer.ephemeral_text.filter(|text| !text.is_empty()) {
                tx.core.check_message(&text)?;
                let text = if answer.skip_slack_parsing { text } else { from_slack(&text) };
                let mut said = Ephemeral::new(row.channel_id, by.user_id, text);
                said.root_id = row.root_id.or(Some(row.id));
                tx.tell_ephemeral(by.user_id, said);
            }
            Ok(())
        })
    }

    /// Opens a dialog at the client of who pressed a button or ran a command a moment ago.
    ///
    /// # Errors
    /// 400 for an unknown or old word, or a dialog without an address.
    pub(crate) fn open_dialog(&self, request: &Map<String, Value>) -> AppResult<()> {
        const WHERE: &str = "openDialog";
        let text = |key: &str| request.get(key).and_then(Value::as_str).unwrap_or("");
        if text("url").is_empty() {
            return Err(AppError::body_param(WHERE, "url"));
        }
        let life = i64::from(self.settings().integrations.timeout_seconds.max(1)) * 1_000;
        let known = lock(&self.0.triggers).get(text("trigger_id")).copied();
        let Some((user, _)) = known.filter(|(_, at)| at + life >= self.now().0) else {
            let message = "The trigger ID for the dialog is unknown or has expired.";
            return Err(AppError::bad(WHERE, "interactive_message.decode_trigger_id.expired", message));
        };
        self.write(|tx| {
            tx.tell(Broadcast::to_user("open_dialog", user).with_text("dialog", request));
            Ok(())
        })
    }

    /// What is asked when a user sends a dialog off.
    ///
    /// # Errors
    /// 403 for a channel or team of others, 400 for bad ids.
    pub(crate) fn submit_dialog(&self, by: &Session, sent: &Submission) -> AppResult<Call> {
        const WHERE: &str = "submitDialog";
        if sent.url.is_empty() {
            return Err(AppError::body_param(WHERE, "url"));
        }
        let channel: Id = sent.channel_id.parse().map_err(|_| AppError::permissions(WHERE, "read_channel_content"))?;
        self.read(|db| {
            let c =
                require_channel(db, channel).map_err(|_| AppError::permissions(WHERE, "read_channel_content"))?.channel;
            require_read(WHERE, db, by, &c)?;
            match sent.team_id.as_str() {
                "" => Ok(()),
                team => {
                    let team = team.parse().map_err(|_| AppError::permissions(WHERE, "view_team"))?;
                    require_in_team(WHERE, db, by, team, "view_team")
                }
            }
        })?;
        let asked = json!({
            "type": "dialog_submission", "url": sent.url, "callback_id": sent.callback_id, "state": sent.state,
            "user_id": by.user_id, "channel_id": channel, "team_id": sent.team_id, "submission": sent.submission,
            "cancelled": sent.cancelled,
        });
        let (url, body) = (sent.url.clone(), asked.to_string().into_bytes());
        Ok(Call { method: Method::POST, url, content_type: Some("application/json"), authorization: None, body })
    }
}

/// The answer of a program to an outgoing hook; nothing where it said nothing.
pub(crate) fn hook_answer(bytes: &[u8]) -> Option<Said> {
    serde_json::from_slice(bytes).ok()
}
