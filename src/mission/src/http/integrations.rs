//! Hooks, commands, buttons and dialogs.

use axum::body::Body;
use axum::extract::{DefaultBodyLimit, FromRequest as _, Multipart, Request};
use http::{StatusCode, header};
use model::Id;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::call::Call;
use super::files::read_capped;
use super::query::Query;
use super::read_capped as read_body;
use super::reply::Reply;
use crate::Core;
use crate::error::{AppError, AppResult};
use crate::integrations::Said;
use crate::integrations::actions::{Submission, hook_answer};
use crate::integrations::commands::{Begun, Command, CommandArgs};
use crate::integrations::hooks::{NewIncoming, NewOutgoing};
use crate::types::Post;

/// The body of a route that reads it itself.
async fn body(call: &Call, body: Body) -> AppResult<bytes::Bytes> {
    read_body(body, call.state.settings.max_json_bytes).await
}

fn text_ok() -> Reply {
    Reply::bytes("text/plain", b"ok".to_vec())
}

// --- hooks

/// `POST /hooks/{id}`: JSON, a form with `payload`, or a form of fields.
pub(crate) async fn incoming(mut call: Call, bytes: Body) -> AppResult<Reply> {
    let kind = call.header(header::CONTENT_TYPE).split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    let refused = |why: String| {
        AppError::bad("incomingWebhook", "web.incoming_webhook.decode.app_error", "Failed to decode the payload.")
            .detail(why)
    };
    let said: Said = if kind == "multipart/form-data" {
        let mut request = Request::new(bytes);
        request.headers_mut().extend(call.headers.get(header::CONTENT_TYPE).map(|v| (header::CONTENT_TYPE, v.clone())));
        DefaultBodyLimit::disable().apply(&mut request);
        let mut form = Multipart::from_request(request, &()).await.map_err(|e| refused(e.to_string()))?;
        let mut fields = Map::new();
        let mut left = call.state.settings.max_json_bytes;
        while let Some(mut field) = form.next_field().await.map_err(|e| refused(e.to_string()))? {
            let Some(name) = field.name().map(str::to_owned) else { continue };
            let value = read_capped(&mut field, left).await?;
            left -= value.len();
            fields.insert(name, String::from_utf8_lossy(&value).into_owned().into());
        }
        match fields.get("payload").and_then(Value::as_str) {
            Some(payload) => serde_json::from_str(payload).map_err(|e| refused(e.to_string()))?,
            None => serde_json::from_value(Value::Object(fields)).map_err(|e| refused(e.to_string()))?,
        }
    } else {
        call.body = body(&call, bytes).await?;
        let text = String::from_utf8_lossy(&call.body).into_owned();
        if kind == "application/x-www-form-urlencoded" {
            let form = Query::parse(&text);
            serde_json::from_str(form.get("payload").unwrap_or("")).map_err(|e| refused(e.to_string()))?
        } else {
            // Scripts paste line breaks and tabs into texts as they are.
            let escaped = || text.replace('\n', "\\n").replace('\t', "\\t");
            serde_json::from_str(&text)
                .or_else(|_| serde_json::from_str(&escaped()))
                .map_err(|e: serde_json::Error| refused(e.to_string()))?
        }
    };
    let (core, id) = (call.core().clone(), call.text("hook_id").to_owned());
    let posted = call.state.blocking(move || core.post_by_hook(&id, &said)).await;
    posted.map_err(|error| general("web.incoming_webhook.general.app_error", error))?;
    Ok(text_ok())
}

/// Programs get one id for whatever went wrong with what they sent, and the reason as text, as the original has it.
fn general(id: &'static str, error: AppError) -> AppError {
    AppError { id: id.into(), ..error.clone() }.detail(error)
}

pub(crate) fn create_incoming(call: &Call) -> AppResult<Reply> {
    Reply::created(&call.core().save_incoming_hook(call.session()?, None, &call.json("incoming_webhook")?)?)
}

pub(crate) fn update_incoming(call: &Call) -> AppResult<Reply> {
    let new: NewIncoming = call.json("incoming_webhook")?;
    let id = call.id("hook_id")?;
    if new.id != id.as_str() {
        return Err(AppError::body_param("updateIncomingHook", "hook_id"));
    }
    Reply::created(&call.core().save_incoming_hook(call.session()?, Some(id), &new)?)
}

pub(crate) fn list_incoming(call: &Call) -> AppResult<Reply> {
    let hooks = call.core().incoming_hooks(call.session()?, call.query_id("team_id")?, call.page(), call.per_page())?;
    if call.query.flag("include_total_count") {
        let all = call.core().incoming_hooks(call.session()?, call.query_id("team_id")?, 0, u32::MAX)?;
        return Reply::json(&json!({ "incoming_webhooks": hooks, "total_count": all.len() }));
    }
    Reply::json(&hooks)
}

pub(crate) fn get_incoming(call: &Call) -> AppResult<Reply> {
    Reply::json(&call.core().incoming_hook(call.session()?, call.id("hook_id")?)?)
}

pub(crate) fn delete_incoming(call: &Call) -> AppResult<Reply> {
    call.core().delete_incoming_hook(call.session()?, call.id("hook_id")?)?;
    Reply::ok()
}

fn check_callbacks(call: &Call, new: &NewOutgoing) -> AppResult<()> {
    for url in new.callback_urls.iter().flatten() {
        call.state.outgoing().check_url(url).map_err(|why| {
            let id = "model.outgoing_hook.is_valid.url.app_error";
            AppError::bad("createOutgoingHook", id, format!("Invalid callback URL: {why}."))
        })?;
    }
    Ok(())
}

pub(crate) fn create_outgoing(call: &Call) -> AppResult<Reply> {
    let new: NewOutgoing = call.json("outgoing_webhook")?;
    check_callbacks(call, &new)?;
    Reply::created(&call.core().save_outgoing_hook(call.session()?, None, &new)?)
}

pub(crate) fn update_outgoing(call: &Call) -> AppResult<Reply> {
    let new: NewOutgoing = call.json("outgoing_webhook")?;
    let id = call.id("outgoing_hook_id")?;
    if new.id != id.as_str() {
        return Err(AppError::body_param("updateOutgoingHook", "hook_id"));
    }
    check_callbacks(call, &new)?;
    Reply::json(&call.core().save_outgoing_hook(call.session()?, Some(id), &new)?)
}

pub(crate) fn list_outgoing(call: &Call) -> AppResult<Reply> {
    let (team, channel) = (call.query_id("team_id")?, call.query_id("channel_id")?);
    Reply::json(&call.core().outgoing_hooks(call.session()?, team, channel, call.page(), call.per_page())?)
}

pub(crate) fn get_outgoing(call: &Call) -> AppResult<Reply> {
    Reply::json(&call.core().outgoing_hook(call.session()?, call.id("outgoing_hook_id")?)?)
}

pub(crate) fn regenerate_outgoing(call: &Call) -> AppResult<Reply> {
    Reply::json(&call.core().regenerate_hook_token(call.session()?, call.id("outgoing_hook_id")?)?)
}

pub(crate) fn delete_outgoing(call: &Call) -> AppResult<Reply> {
    call.core().delete_outgoing_hook(call.session()?, call.id("outgoing_hook_id")?)?;
    Reply::ok()
}

/// Tells the programs that want to know of a post, after its author was answered.
pub(crate) fn tell_hooks(call: &Call, post: &Post) -> AppResult<()> {
    for (hook, ask) in call.core().hooks_of_post(post)? {
        let (state, told) = (call.state.clone(), post.clone());
        call.state.in_background(async move {
            let said = match state.outgoing().send(ask).await {
                Ok(answered) if answered.status.is_success() => hook_answer(&answered.body),
                Ok(answered) => {
                    tracing::info!(hook = %hook.id, status = %answered.status, "an outgoing webhook was not taken");
                    None
                }
                Err(error) => {
                    tracing::info!(hook = %hook.id, %error, "an outgoing webhook did not go out");
                    None
                }
            };
            let Some(said) = said else { return };
            let core = state.core().clone();
            let id = hook.id;
            let posted = state.blocking(move || core.post_hook_answer(&hook, &told, &said)).await;
            if let Err(error) = posted {
                tracing::info!(hook = %id, %error, "the answer to an outgoing webhook was not posted");
            }
        });
    }
    Ok(())
}

// --- commands

fn check_command(call: &Call, command: &Command) -> AppResult<()> {
    call.state.outgoing().check_url(&command.url).map_err(|why| {
        let id = "model.command.is_valid.url_http.app_error";
        AppError::bad("createCommand", id, format!("Invalid URL: {why}."))
    })
}

pub(crate) fn create_command(call: &Call) -> AppResult<Reply> {
    let new: Command = call.json("command")?;
    check_command(call, &new)?;
    Reply::created(&call.core().save_command(call.session()?, None, &new)?)
}

pub(crate) fn update_command(call: &Call) -> AppResult<Reply> {
    let new: Command = call.json("command")?;
    let id = call.id("command_id")?;
    if new.id != id.as_str() {
        return Err(AppError::body_param("updateCommand", "command"));
    }
    check_command(call, &new)?;
    Reply::json(&call.core().save_command(call.session()?, Some(id), &new)?)
}

pub(crate) fn list_commands(call: &Call) -> AppResult<Reply> {
    let team = call.query_id("team_id")?.ok_or_else(|| AppError::body_param("listCommands", "team_id"))?;
    Reply::json(&call.core().commands(call.session()?, team, call.query.flag("custom_only"))?)
}

pub(crate) fn get_command(call: &Call) -> AppResult<Reply> {
    Reply::json(&call.core().command(call.session()?, call.id("command_id")?)?)
}

pub(crate) fn delete_command(call: &Call) -> AppResult<Reply> {
    call.core().delete_command(call.session()?, call.id("command_id")?)?;
    Reply::ok()
}

pub(crate) fn regenerate_command(call: &Call) -> AppResult<Reply> {
    let command = call.core().regenerate_command_token(call.session()?, call.id("command_id")?)?;
    Reply::json(&json!({ "token": command.token }))
}

pub(crate) fn move_command(call: &Call) -> AppResult<Reply> {
    #[derive(Deserialize)]
    struct Move {
        team_id: Id,
    }
    let to: Move = call.json("team_id")?;
    call.core().move_command(call.session()?, call.id("command_id")?, to.team_id)?;
    Reply::ok()
}

pub(crate) fn suggested_commands(call: &Call) -> AppResult<Reply> {
    Reply::json(&call.core().suggested_commands(call.session()?, call.id("team_id")?)?)
}

pub(crate) fn command_suggestions(call: &Call) -> AppResult<Reply> {
    let typed = call.query.get("user_input").ok_or_else(|| AppError::body_param("commands", "userInput"))?;
    Reply::json(&call.core().command_suggestions(call.session()?, call.id("team_id")?, typed)?)
}

/// `POST /commands/execute`. Cancel-safe: a program that was asked may have done its work.
pub(crate) async fn execute(mut call: Call, bytes: Body) -> AppResult<Reply> {
    call.body = body(&call, bytes).await?;
    let mut args: CommandArgs = call.json("command_args")?;
    args.site_url = call.state.site_url().unwrap_or("").trim_end_matches('/').to_owned();
    let (core, session) = (call.core().clone(), call.session()?.clone());
    let (by, asked) = (session.clone(), args.clone());
    let begun = call.state.blocking(move || core.begin_command(&by, &asked)).await?;
    let (command, ask, trigger_id) = match begun {
        Begun::Done(reply) => return Reply::json(&reply),
        Begun::Ask { command, call, trigger_id } => (command, call, trigger_id),
    };
    let answered = call.state.outgoing().send(ask).await.map_err(|error| {
        let message = format!("Command '{}' failed: {error}.", command.trigger);
        AppError::new("command", "api.command.execute_command.failed.app_error", message, 500)
    })?;
    let core = call.core().clone();
    let finish = move || core.finish_command(&session, &args, &command, trigger_id, &answered);
    Reply::json(&call.state.blocking(finish).await?)
}

/// `POST /hooks/commands/{id}`: what a program answers to a command later.
pub(crate) fn answer_command(call: &Call) -> AppResult<Reply> {
    let kind = call.header(header::CONTENT_TYPE);
    let answered = call.core().answer_command_later(call.text("answer_id"), kind, &call.body);
    answered.map_err(|error| match error.id.as_ref() {
        "web.command_webhook.parse.app_error" => error,
        _ => general("web.command_webhook.general.app_error", error),
    })?;
    Ok(text_ok())
}

// --- buttons and dialogs

/// `POST /posts/{id}/actions/{id}`.
pub(crate) async fn press(mut call: Call, bytes: Body) -> AppResult<Reply> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Choice {
        selected_option: String,
    }
    call.body = body(&call, bytes).await?;
    let choice: Choice = if call.body.is_empty() { Choice::default() } else { call.json("action")? };
    let (core, session) = (call.core().clone(), call.session()?.clone());
    let (post, action) = (call.id("post_id")?, call.text("action_id").to_owned());
    let by = session.clone();
    let pressed = call.state.blocking(move || core.press(&by, post, &action, &choice.selected_option)).await?;
    let answer = ask(&call, pressed.call.clone()).await?;
    let (core, trigger_id) = (call.core().clone(), pressed.trigger_id.clone());
    call.state.blocking(move || core.pressed(&session, &pressed, &answer)).await?;
    Reply::json(&json!({ "status": "OK", "trigger_id": trigger_id }))
}

async fn ask(call: &Call, ask: crate::outgoing::Call) -> AppResult<Vec<u8>> {
    let failed = |why: String| {
        let id = "api.post.do_action.action_integration.app_error";
        AppError::bad("DoActionRequest", id, format!("Action integration error: {why}."))
    };
    let answered = call.state.outgoing().send(ask).await.map_err(|error| failed(error.to_string()))?;
    match answered.status == StatusCode::OK {
        true => Ok(answered.body),
        false => Err(failed(format!("status {}", answered.status.as_u16()))),
    }
}

/// `POST /actions/dialogs/open`: from an integration, which proves itself by the word that it was given.
pub(crate) fn open_dialog(call: &Call) -> AppResult<Reply> {
    call.core().open_dialog(&call.json("openDialog")?)?;
    Reply::ok()
}

/// `POST /actions/dialogs/submit`.
pub(crate) async fn submit_dialog(mut call: Call, bytes: Body) -> AppResult<Reply> {
    call.body = body(&call, bytes).await?;
    let sent: Submission = call.json("dialog")?;
    let (core, session): (Core, _) = (call.core().clone(), call.session()?.clone());
    let asked = call.state.blocking(move || core.submit_dialog(&session, &sent)).await?;
    let answer = ask(&call, asked).await?;
    // Errors beside the fields, or nothing; only that goes to the client.
    let answer: Map<String, Value> = serde_json::from_slice(&answer).unwrap_or_default();
    let kept: Map<String, Value> =
        answer.into_iter().filter(|(key, _)| ["error", "errors", "type", "form"].contains(&key.as_str())).collect();
    Reply::json(&kept)
}

/// Pictures from elsewhere and previews of links would tell their servers who reads what; they are not fetched.
pub(crate) fn link_preview(_: &Call) -> AppResult<Reply> {
    let message = "Link previews have been disabled by the system administrator.";
    Err(AppError::new("openGraphMetadata", "api.post.link_preview_disabled.app_error", message, 501))
}

/// As [`link_preview`], for `GET /image`.
pub(crate) fn image_proxy(_: &Call) -> AppResult<Reply> {
    let message = "Images of other servers are not fetched by this one.";
    let error = AppError::new("getImage", "holdfast.not_offered.app_error", message, 501);
    Err(error)
}
