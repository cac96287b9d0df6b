//! What clients ask over the socket.

use model::Id;
use serde_json::{Map, Value, json};

use super::frame::Frame;
use super::{Connection, WsHub};
use crate::Core;
use crate::error::{AppError, AppResult};
use crate::events::{Broadcast, EventSink as _};
use crate::http::{ApiState, VERSION};
use crate::types::Session;

/// One request of a client.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) seq: i64,
    pub(crate) action: String,
    pub(crate) data: Map<String, Value>,
}

impl Request {
    /// Reads a message; `None` when it is no request.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let Value::Object(mut fields) = serde_json::from_str(text).ok()? else { return None };
        let data = match fields.remove("data") {
            Some(Value::Object(data)) => data,
            None | Some(Value::Null) => Map::new(),
            Some(_) => return None,
        };
        let action = fields.get("action").and_then(Value::as_str).unwrap_or("").to_owned();
        Some(Self { seq: fields.get("seq").and_then(Value::as_i64).unwrap_or(0), action, data })
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.data.get(name)?.as_str()
    }
}

/// Carries out a request; `None` where no reply is due.
pub(crate) async fn answer(state: &ApiState, connection: &Connection, request: Request) -> Option<Frame> {
    let seq = request.seq;
    let refused =
        |id: &'static str, message: &'static str| Some(Frame::fail(seq, &AppError::bad("websocket", id, message)));
    if request.action.is_empty() {
        return refused("api.web_socket_router.no_action.app_error", "No websocket action.");
    }
    if seq <= 0 {
        return refused("api.web_socket_router.bad_seq.app_error", "Invalid sequence for WebSocket message.");
    }
    let outcome = match request.action.as_str() {
        // Already logged in: the original says nothing. Requests to plugins have no reply either.
        "authentication_challenge" => return None,
        action if action.starts_with("custom_") => return None,
        "ping" => Ok(Some(json!({
            "text": "pong", "version": VERSION, "server_time": state.core().now().0, "node_id": "",
        }))),
        "presence" => {
            look_at(connection, &request);
            Ok(None)
        }
        "posted_notify_ack" => Ok(None),
        "user_typing" => typing(state, connection, request).await,
        "user_update_active_status" => active_status(state, connection, &request).await,
        "get_statuses" => statuses(state, connected_users(state)).await,
        "get_statuses_by_ids" => match user_ids(&request) {
            Some(users) => statuses(state, users).await,
            None => Err(invalid_param("user_ids")),
        },
        _ => Err(AppError::new(
            "websocket",
            "api.web_socket_router.bad_action.app_error",
            "Unknown WebSocket action.",
            500,
        )),
    };
    Some(match outcome {
        Ok(data) => Frame::ok(seq, data),
        Err(error) => {
            tracing::debug!(user = %connection.user, %error, "websocket request refused");
            Frame::fail(seq, &error)
        }
    })
}

fn invalid_param(name: &str) -> AppError {
    AppError::bad("websocket", "api.websocket_handler.invalid_param.app_error", format!("Invalid {name} parameter."))
}

fn look_at(connection: &Connection, request: &Request) {
    let mut state = connection.state();
    let shown = &mut state.looking_at;
    if let Some(channel) = request.text("channel_id") {
        shown.channel = Some(channel.to_owned());
    }
    if let Some(channel) = request.text("thread_channel_id") {
        let in_view = request.data.get("is_thread_view").and_then(Value::as_bool).unwrap_or(false);
        let thread = if in_view { &mut shown.thread_view } else { &mut shown.thread_beside };
        *thread = Some(channel.to_owned());
    }
}

async fn typing(state: &ApiState, connection: &Connection, request: Request) -> AppResult<Option<Value>> {
    let channel = request.text("channel_id").and_then(|id| id.parse().ok());
    let channel: Id = channel.ok_or_else(|| invalid_param("channel_id"))?;
    let parent = request.text("parent_id").unwrap_or("").to_owned();
    let (core, hub, token) = (state.core().clone(), state.hub().clone(), connection.token.0.clone());
    let publish = move || {
        let session = core.session(&token)?;
        let refused = |error: AppError| if error.status_code == 403 { invalid_param("channel_id") } else { error };
        announce_typing(&core, &hub, &session, session.user_id, channel, &parent).map_err(refused)?;
        Ok(None)
    };
    state.blocking(publish).await
}

/// Tells the others in a channel that somebody is writing. Not stored anywhere.
pub(crate) fn announce_typing(
    core: &Core,
    hub: &WsHub,
    by: &Session,
    user: Id,
    channel: Id,
    parent: &str,
) -> AppResult<()> {
    if !core.may_in_channel(by, channel, "create_post") {
        return Err(AppError::permissions("userTyping", "create_post"));
    }
    let event = Broadcast::to_channel("typing", channel, core.channel_member_ids(channel)?);
    hub.publish(event.with("parent_id", parent).with("user_id", user.as_str()).omitting(user));
    Ok(())
}

async fn active_status(state: &ApiState, connection: &Connection, request: &Request) -> AppResult<Option<Value>> {
    let flag = |name: &str| request.data.get(name).and_then(Value::as_bool);
    let active = flag("user_is_active").ok_or_else(|| invalid_param("user_is_active"))?;
    let manual = flag("manual").unwrap_or(false);
    let (core, token, user) = (state.core().clone(), connection.token.0.clone(), connection.user);
    let note = move || {
        if manual {
            let session = core.session(&token)?;
            core.set_status(&session, user, if active { "online" } else { "away" }, 0)?;
        } else {
            core.note_activity(user, active);
        }
        Ok(None)
    };
    state.blocking(note).await
}

fn connected_users(state: &ApiState) -> Vec<Id> {
    let mut users: Vec<Id> = state.hub().connections().values().map(|connection| connection.user).collect();
    users.sort_unstable();
    users.dedup();
    users
}

fn user_ids(request: &Request) -> Option<Vec<Id>> {
    let ids = request.data.get("user_ids")?.as_array()?;
    let ids: Option<Vec<Id>> = ids.iter().map(|id| id.as_str()?.parse().ok()).collect();
    ids.filter(|ids| !ids.is_empty())
}

/// `{user id: status}`.
async fn statuses(state: &ApiState, users: Vec<Id>) -> AppResult<Option<Value>> {
    let core = state.core().clone();
    let found = state.blocking(move || Ok(core.statuses(&users))).await?;
    Ok(Some(found.into_iter().map(|status| (status.user_id.to_string(), Value::from(status.status))).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_may_leave_out_its_data() {
        let request = Request::parse(r#"{"seq":1,"action":"ping"}"#).unwrap();
        assert_eq!((request.seq, request.action.as_str(), request.data.len()), (1, "ping", 0));
        assert!(Request::parse("[]").is_none());
        assert!(Request::parse("not json").is_none());
        assert!(Request::parse(r#"{"seq":1,"action":"ping","data":[]}"#).is_none());
    }
}
