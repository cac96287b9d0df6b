//! One socket: the handshake, the login on it, and its life until it ends.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::FromRequestParts as _;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::response::Response;
use http::{HeaderMap, header, request};
use model::{Id, Sensitive};
use serde_json::{Map, json};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout, timeout_at};

use super::frame::{EventText, Frame};
use super::requests::{self, Request};
use super::{Arrival, Connection, Return};
use crate::Core;
use crate::error::{AppError, AppResult};
use crate::events::Broadcast;
use crate::http::{ApiState, Call};
use crate::types::Session;

/// Longest message of a client in bytes.
const MESSAGE_BYTES_MAX: usize = 8 * 1024;
/// Time to log in on a socket that was opened without a session.
const LOGIN_WAIT: Duration = Duration::from_secs(5);
/// Our pings; clients answer by themselves.
const PING_EVERY: Duration = Duration::from_secs(60);
/// A socket that said nothing for this long is dead.
const SILENCE_MAX: Duration = Duration::from_secs(100);
/// A frame that cannot be written for this long will not be.
const WRITE_WAIT: Duration = Duration::from_secs(30);
/// How long the queues of a dead socket wait for the client.
const RETURN_WAIT: Duration = Duration::from_secs(5 * 60);

/// Answers the handshake of `GET /api/v4/websocket`.
pub(crate) async fn upgrade(state: &ApiState, call: Call, parts: &mut request::Parts) -> AppResult<Response> {
    let refused = |why: &dyn std::fmt::Display| {
        let message = format!("URL Blocked because of CORS. Url: {}", call.header(header::ORIGIN));
        AppError::bad("connectWebSocket", "api.web_socket.connect.upgrade.app_error", message).detail(why)
    };
    if !same_origin(&call.headers, state.site_url()) {
        return Err(refused(&"origin"));
    }
    let upgrade = WebSocketUpgrade::from_request_parts(parts, state).await.map_err(|e| refused(&e))?;
    let returning = returning(call.query.get("connection_id"), call.query.get("sequence_number"));
    let posted_ack = call.query.get("posted_ack") == Some("true");
    let hub = state.hub().clone();
    let serving = {
        let (state, hub) = (state.clone(), hub.clone());
        move |socket: WebSocket| hub.0.tasks.track_future(serve(state, socket, call.session, returning, posted_ack))
    };
    Ok(upgrade.max_message_size(MESSAGE_BYTES_MAX).max_frame_size(MESSAGE_BYTES_MAX).on_upgrade(serving))
}

/// A browser names the page that opens the socket. Only our own pages may; programs name none.
fn same_origin(headers: &HeaderMap, site_url: Option<&str>) -> bool {
    let text = |name| headers.get(name).and_then(|v: &http::HeaderValue| v.to_str().ok());
    let Some(origin) = text(header::ORIGIN) else { return !headers.contains_key(header::ORIGIN) };
    let asked = text(header::HOST).unwrap_or("");
    let host = origin.split_once("://").map_or("", |(_, host)| host);
    let of_site = site_url.is_some_and(|site| site.trim_end_matches('/').eq_ignore_ascii_case(origin));
    of_site || (!host.is_empty() && host.eq_ignore_ascii_case(asked))
}

/// What the query says about a former connection; `Err` when it makes no sense.
fn returning(connection: Option<&str>, expected: Option<&str>) -> Result<Option<Return>, BadReturn> {
    let Some(connection) = connection else { return Ok(None) };
    let connection: Id = connection.parse().map_err(|_| BadReturn)?;
    let expected = expected.unwrap_or("").parse().map_err(|_| BadReturn)?;
    Ok(Some(Return { connection, expected }))
}

#[derive(Clone, Copy, Debug)]
struct BadReturn;

async fn serve(
    state: ApiState,
    mut socket: WebSocket,
    session: Option<Session>,
    returning: Result<Option<Return>, BadReturn>,
    posted_ack: bool,
) {
    let stop = state.hub().0.stop.clone();
    let (session, reply) = match session {
        Some(session) => {
            // As the original does: a session at the handshake with a senseless return ends here.
            let Ok(_) = returning else { return };
            (session, None)
        }
        None => {
            let login = tokio::select! {
                () = stop.cancelled() => return,
                login = login(&state, &mut socket) => login,
            };
            match login {
                Some((session, seq)) => (session, Some(Frame::ok(seq, None))),
                None => return,
            }
        }
    };
    let arrival = Arrival {
        user: session.user_id,
        token: Sensitive(session.token.clone()),
        posted_ack,
        // A login on the socket comes too late to take over queues.
        returning: returning.ok().flatten().filter(|_| reply.is_none()),
    };
    let user = session.user_id;
    let connection = state.hub().arrive(arrival, state.core().random_id(), |id| hello(&state, user, id));
    if let Some(reply) = reply {
        // The queue of a new connection has room for its second frame.
        let _ = connection.push(reply);
    }
    note(&state, move |core| core.note_activity(user, true)).await;

    let end = run(&state, &mut socket, &connection).await;
    let waits = state.hub().socket_died(&connection) && end == End::SocketDied;
    if !state.hub().has_active(user) {
        note(&state, move |core| core.note_offline(user)).await;
    }
    drop(socket);
    if waits {
        wait_for_return(&state, &connection).await;
    }
    state.hub().forget(&connection);
}

/// Notes presence, which nobody waits for and nothing depends on.
async fn note(state: &ApiState, what: impl FnOnce(&Core) + Send + 'static) {
    let core = state.core().clone();
    let noting = move || {
        what(&core);
        Ok(())
    };
    let _ = state.blocking(noting).await;
}

/// The greeting of a new connection.
fn hello(state: &ApiState, user: Id, connection: Id) -> Frame {
    let data = json!({
        "server_version": state.version_id(),
        "connection_id": connection,
        "server_hostname": state.core().node_name(),
    });
    let data = data.as_object().cloned().unwrap_or_else(Map::new);
    let scope = super::broadcast_json(&Broadcast::to_user("hello", user));
    Frame::event(&Arc::new(EventText::new("hello", &data, &scope)))
}

/// Waits for `authentication_challenge`; `None` when it does not come or its token is no good.
async fn login(state: &ApiState, socket: &mut WebSocket) -> Option<(Session, i64)> {
    let deadline = Instant::now() + LOGIN_WAIT;
    loop {
        let message = timeout_at(deadline, socket.recv()).await.ok()??.ok()?;
        let text = match message {
            Message::Text(text) => text,
            Message::Ping(_) | Message::Pong(_) => continue,
            Message::Binary(_) | Message::Close(_) => return None,
        };
        let request = Request::parse(&text)?;
        if request.action != "authentication_challenge" || request.seq <= 0 {
            continue;
        }
        let token = request.data.get("token")?.as_str()?.to_owned();
        let core = state.core().clone();
        let found = timeout_at(
            deadline,
            state.blocking(move || {
                let mut session = core.session(&token)?;
                session.token = token;
                Ok(session)
            }),
        );
        return Some((found.await.ok()?.ok()?, request.seq));
    }
}

/// Why a socket ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// It broke, fell silent or was closed by the client, who may return.
    SocketDied,
    /// The connection must not be continued.
    Over,
}

/// Serves the socket until it ends. Not cancel-safe; it ends by itself when the hub stops.
async fn run(state: &ApiState, socket: &mut WebSocket, connection: &Arc<Connection>) -> End {
    let mut ping = interval_at(Instant::now() + PING_EVERY, PING_EVERY);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut silent_until = Instant::now() + SILENCE_MAX;
    loop {
        match write_waiting(socket, connection).await {
            Wrote::All => {}
            Wrote::Gone => return part(state, socket).await,
            Wrote::Failed => return End::SocketDied,
        }
        if std::mem::take(&mut connection.state().check_session) && !still_good(state, connection).await {
            return close(socket, close_code::POLICY, "session ended").await;
        }
        tokio::select! {
            () = connection.gone.cancelled() => return part(state, socket).await,
            () = connection.changed.notified() => {}
            () = sleep_until(silent_until) => return End::SocketDied,
            _ = ping.tick() => {
                // Sessions also end by the clock.
                connection.state().check_session = true;
                if !written(socket, Message::Ping(bytes::Bytes::new())).await {
                    return End::SocketDied;
                }
            }
            message = socket.recv() => {
                let Some(Ok(message)) = message else { return End::SocketDied };
                silent_until = Instant::now() + SILENCE_MAX;
                match message {
                    Message::Text(text) => {
                        let Some(request) = Request::parse(&text) else { return End::SocketDied };
                        let reply = requests::answer(state, connection, request).await;
                        if reply.is_some_and(|reply| connection.push(reply).is_err()) {
                            return End::Over;
                        }
                    }
                    Message::Binary(_) => {
                        return close(socket, close_code::UNSUPPORTED, "send JSON as text").await;
                    }
                    Message::Ping(_) | Message::Pong(_) => {}
                    Message::Close(_) => return End::SocketDied,
                }
            }
        }
    }
}

enum Wrote {
    All,
    /// The connection went while a frame was being written.
    Gone,
    Failed,
}

/// Writes what waits. What arrives meanwhile leaves a mark in `changed`, so that requests get their turn.
async fn write_waiting(socket: &mut WebSocket, connection: &Connection) -> Wrote {
    for _ in 0..super::queues::UNSENT_MAX {
        let Some(text) = connection.state().queues.next() else { return Wrote::All };
        tokio::select! {
            () = connection.gone.cancelled() => return Wrote::Gone,
            written = written(socket, Message::Text(text.into())) => {
                if !written {
                    return Wrote::Failed;
                }
            }
        }
    }
    connection.changed.notify_one();
    Wrote::All
}

async fn written(socket: &mut WebSocket, message: Message) -> bool {
    timeout(WRITE_WAIT, socket.send(message)).await.is_ok_and(|sent| sent.is_ok())
}

/// Says why the connection goes.
async fn part(state: &ApiState, socket: &mut WebSocket) -> End {
    if state.hub().0.stop.is_cancelled() {
        return close(socket, close_code::AWAY, "server stops").await;
    }
    close(socket, close_code::AGAIN, "too slow, or too many sockets").await
}

async fn close(socket: &mut WebSocket, code: u16, reason: &'static str) -> End {
    /// A client that does not take our goodbye within a second does not get one.
    const GOODBYE_WAIT: Duration = Duration::from_secs(1);
    let goodbye = Message::Close(Some(CloseFrame { code, reason: reason.into() }));
    let _ = timeout(GOODBYE_WAIT, socket.send(goodbye)).await;
    End::Over
}

async fn still_good(state: &ApiState, connection: &Connection) -> bool {
    let (core, token) = (state.core().clone(), connection.token.0.clone());
    let found = state.blocking(move || core.session(&token)).await;
    // A store that fails for a moment must not throw everybody out.
    found.is_ok() || found.is_err_and(|error| error.status_code >= 500)
}

/// Until the client is back (another life takes over), gave up, or overflows.
async fn wait_for_return(state: &ApiState, connection: &Connection) {
    let give_up = Instant::now() + RETURN_WAIT;
    loop {
        let check_session = std::mem::take(&mut connection.state().check_session);
        if check_session && !still_good(state, connection).await {
            return;
        }
        tokio::select! {
            () = connection.gone.cancelled() => return,
            () = sleep_until(give_up) => return,
            () = connection.changed.notified() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(origin: Option<&str>, host: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        headers.extend(origin.map(|origin| (header::ORIGIN, origin.parse().unwrap())));
        headers
    }

    #[test]
    fn only_our_own_pages_and_programs_open_sockets() {
        let host = "chat.example:8065";
        assert!(same_origin(&headers(None, host), None));
        assert!(same_origin(&headers(Some("http://chat.example:8065"), host), None));
        assert!(!same_origin(&headers(Some("http://evil.example"), host), None));
        assert!(!same_origin(&headers(Some("null"), host), None));
        assert!(same_origin(&headers(Some("https://chat.example"), "10.0.0.1"), Some("https://chat.example/")));
        assert!(!same_origin(&headers(Some("https://chat.example.evil"), "10.0.0.1"), Some("https://chat.example")));
    }

    #[test]
    fn a_return_needs_a_connection_and_a_number() {
        let id = "ybndrfg8ejkmcpqxot1uwisza3";
        assert!(matches!(returning(None, Some("0")), Ok(None)));
        assert!(matches!(returning(Some(id), Some("7")), Ok(Some(Return { expected: 7, .. }))));
        assert!(returning(Some(id), None).is_err());
        assert!(returning(Some(id), Some("-1")).is_err());
        assert!(returning(Some("short"), Some("1")).is_err());
    }
}
