//! The page of `holdfast demo --hold`: both sides live, a box to write at either, and the link's controls.
//!
//! One self-contained document and a few JSON calls, on the loopback only. A request is answered only when it names
//! this page as its host (so that no other site's name can point here), and one that changes something only with the
//! header [`GUARD`], which a foreign page cannot set without a permission that is never given.
//!
//! Reading goes through the session of a person who is in every channel of that side; writing through the session of
//! whoever is chosen.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{Path, Request, State};
use axum::middleware::{self, Next};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::stream::{self, Stream};
use http::header::{CONTENT_DISPOSITION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use model::BitsPerSecond;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::client::{ApiError, Channel, Meter, NewPost, Post, Session};
use super::relay::{Controls, Direction};
use super::script::{Player, side_of};
use super::story::Stage;
use super::{DemoError, Side};

/// Header that every changing request carries.
const GUARD: &str = "x-holdfast-demo";

/// How often the figures are sent to each open page.
const FIGURES_EVERY: Duration = Duration::from_millis(500);

/// Open pages; a browser keeps six connections to one host, so this is two browsers with some to spare.
const STREAMS_MAX: usize = 16;

/// The whole cast is known by name; the only other user of a site is its bot, which tells of late arrivals.
const BOT_NAME: &str = "Holdfast";

/// Posts shown per channel.
const POSTS_SHOWN: u32 = 60;

/// A listener that is not serving yet: its address is known before the sites start.
pub(super) struct Page {
    listener: TcpListener,
    address: SocketAddr,
}

impl Page {
    /// Takes the address.
    ///
    /// # Errors
    /// When it is in use, or not on the loopback.
    pub(super) async fn bind(address: SocketAddr) -> Result<Self, DemoError> {
        let refused = |reason: String| DemoError::Page { address, reason };
        if !address.ip().is_loopback() {
            return Err(refused("it is not on the loopback, and the page asks nobody who they are".to_owned()));
        }
        let listener = TcpListener::bind(address).await.map_err(|e| refused(e.to_string()))?;
        let address = listener.local_addr().map_err(|e| refused(e.to_string()))?;
        Ok(Self { listener, address })
    }

    /// Where a browser finds it.
    pub(super) fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Serves until `stop`.
    pub(super) fn serve(self, stage: Arc<Stage>, player: &Player, tasks: &mut JoinSet<()>, stop: CancellationToken) {
        let desk = Arc::new(Desk {
            stage,
            people: player.sessions().iter().map(|(name, session)| (*name, unmetered(session))).collect(),
            names: player.sessions().values().map(|s| (s.user.id.clone(), s.user.full_name())).collect(),
            readers: Side::BOTH.into_iter().map(|side| (side, unmetered(player.member_of_all(side)))).collect(),
            here: Mutex::default(),
            address: self.address,
            streams: Arc::new(Semaphore::new(STREAMS_MAX)),
            stop: stop.clone(),
        });
        let listener = self.listener;
        tasks.spawn(async move {
            let served = axum::serve(listener, router(desk)).with_graceful_shutdown(stop.cancelled_owned()).await;
            if let Err(error) = served {
                tracing::warn!(%error, "the demo page stopped");
            }
        });
    }
}

/// A session whose traffic is not the mission's.
fn unmetered(session: &Session) -> Session {
    session.metered_by(Meter::default())
}

struct Desk {
    stage: Arc<Stage>,
    people: BTreeMap<&'static str, Session>,
    /// Full names by user id, of both sides.
    names: BTreeMap<String, String>,
    readers: BTreeMap<Side, Session>,
    /// Files whose bytes were seen to have arrived: they do not leave again.
    here: Mutex<BTreeSet<(Side, String)>>,
    address: SocketAddr,
    streams: Arc<Semaphore>,
    stop: CancellationToken,
}

fn router(desk: Arc<Desk>) -> Router {
    Router::new()
        .route("/", get(document))
        .route("/events", get(events))
        .route("/link", post(set_link))
        .route("/sides/{side}", get(side))
        .route("/sides/{side}/channels/{channel}", get(channel))
        .route("/sides/{side}/files/{file}", get(file))
        .route("/sides/{side}/posts", post(write))
        .route("/sides/{side}/reactions", post(react))
        .layer(middleware::from_fn_with_state(Arc::clone(&desk), guard))
        .with_state(desk)
}

/// What a call answers when it cannot do what was asked.
struct Refusal(StatusCode, String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, Json(json!({"message": self.1}))).into_response()
    }
}

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        Self(error.status().unwrap_or(StatusCode::BAD_GATEWAY), error.to_string())
    }
}

impl From<DemoError> for Refusal {
    fn from(error: DemoError) -> Self {
        Self(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
    }
}

async fn guard(State(desk): State<Arc<Desk>>, request: Request, next: Next) -> Response {
    match admit(request.method(), request.headers(), desk.address) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    }
}

fn admit(method: &Method, headers: &HeaderMap, address: SocketAddr) -> Result<(), Refusal> {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    if !is_own_host(host, address) {
        return Err(Refusal(StatusCode::MISDIRECTED_REQUEST, "this page answers to its own address only".to_owned()));
    }
    if method != Method::GET && !headers.contains_key(GUARD) {
        return Err(Refusal(StatusCode::FORBIDDEN, format!("the header {GUARD} is missing")));
    }
    Ok(())
}

fn is_own_host(host: Option<&str>, address: SocketAddr) -> bool {
    host.is_some_and(|host| host == address.to_string() || host == format!("localhost:{}", address.port()))
}

async fn document() -> Response {
    let policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; \
                  frame-ancestors 'none'; base-uri 'none'; form-action 'none'";
    let mut response = Html(include_str!("page.html")).into_response();
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    response
}

/// Figures twice a second, and a word on each change at either side.
async fn events(State(desk): State<Arc<Desk>>) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Refusal> {
    let busy = |_| Refusal(StatusCode::SERVICE_UNAVAILABLE, "too many open pages".to_owned());
    let seat = Arc::clone(&desk.streams).try_acquire_owned().map_err(busy)?;
    let feed = Feed { changes: desk.stage.watch.changes(), next_figures: Instant::now(), _seat: seat, desk };
    Ok(Sse::new(stream::unfold(feed, |mut feed| async { Some((Ok(feed.next().await?), feed)) }))
        .keep_alive(KeepAlive::default()))
}

struct Feed {
    desk: Arc<Desk>,
    changes: tokio::sync::broadcast::Receiver<super::watch::Change>,
    next_figures: Instant,
    _seat: OwnedSemaphorePermit,
}

impl Feed {
    async fn next(&mut self) -> Option<Event> {
        tokio::select! {
            () = self.desk.stop.cancelled() => None,
            () = sleep_until(self.next_figures) => {
                self.next_figures = Instant::now() + FIGURES_EVERY;
                let figures = figures(&self.desk.stage).unwrap_or_else(|error| json!({"error": error.to_string()}));
                Some(Event::default().event("figures").data(figures.to_string()))
            }
            change = self.changes.recv() => match change {
                Ok(change) => Some(Event::default().event("change").data(json!(change).to_string())),
                Err(RecvError::Lagged(_)) => Some(Event::default().event("reload").data("{}")),
                Err(RecvError::Closed) => None,
            },
        }
    }
}

fn figures(stage: &Stage) -> Result<Value, DemoError> {
    let controls = stage.relay.controls();
    let ledgers = stage.ledgers()?;
    Ok(json!({
        "seconds": stage.console.started.elapsed().as_secs_f64(),
        "link": {
            "up": controls.up,
            "rate": controls.rate.to_string(),
            "delay_ms": controls.delay.as_millis() as u64,
            "loss_percent": (controls.loss * 1000.0).round() / 10.0,
        },
        "edge": {
            "ledger": ledgers.edge_to_hub,
            "backlog": stage.backlog(Side::Edge)?,
            "wire": stage.relay.counters(Direction::Up),
        },
        "hub": {
            "ledger": ledgers.hub_to_edge,
            "backlog": stage.backlog(Side::Hub)?,
            "wire": stage.relay.counters(Direction::Down),
        },
    }))
}

/// New settings of the link; what is left out stays.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LinkSettings {
    up: Option<bool>,
    rate: Option<BitsPerSecond>,
    delay_ms: Option<u64>,
    loss_percent: Option<f64>,
}

async fn set_link(State(desk): State<Arc<Desk>>, Json(settings): Json<LinkSettings>) -> Result<Json<Value>, Refusal> {
    let controls = changed(desk.stage.relay.controls(), &settings)
        .ok_or_else(|| Refusal(StatusCode::BAD_REQUEST, "delay up to 10000 ms, loss 0 to 90 %".to_owned()))?;
    desk.stage.sites.set_rate(controls.rate)?;
    desk.stage.relay.set(controls);
    Ok(Json(figures(&desk.stage)?))
}

fn changed(controls: Controls, settings: &LinkSettings) -> Option<Controls> {
    const DELAY_MS_MAX: u64 = 10_000;
    let delay = settings.delay_ms.map_or(controls.delay, Duration::from_millis);
    let loss = settings.loss_percent.map_or(controls.loss, |percent| percent / 100.0);
    let fits = delay <= Duration::from_millis(DELAY_MS_MAX) && (0.0..=0.9).contains(&loss);
    fits.then_some(Controls {
        up: settings.up.unwrap_or(controls.up),
        rate: settings.rate.unwrap_or(controls.rate),
        delay,
        loss,
    })
}

/// The people and channels of a side.
async fn side(State(desk): State<Arc<Desk>>, Path(side): Path<Side>) -> Result<Json<Value>, Refusal> {
    let mut channels = desk.readers[&side].channels().await?;
    channels.retain(|channel| channel.delete_at == 0);
    // Named channels first, then the group and direct ones.
    channels.sort_by_key(|channel| (!matches!(channel.kind.as_str(), "O" | "P"), channel.create_at));
    let channels: Vec<Value> = channels
        .iter()
        .map(|channel| json!({"id": channel.id, "type": channel.kind, "name": channel.name, "label": desk.label(side, channel)}))
        .collect();
    // First whoever may write everywhere, who is the one that reads here.
    let mut people: Vec<_> = desk.people.iter().filter(|(username, _)| side_of(username) == side).collect();
    people.sort_by_key(|(_, session)| session.user.id != desk.readers[&side].user.id);
    let people: Vec<Value> = people
        .into_iter()
        .map(|(username, session)| {
            let user = &session.user;
            json!({"username": username, "name": user.full_name(), "position": user.position})
        })
        .collect();
    Ok(Json(json!({"people": people, "channels": channels})))
}

/// The posts of a channel as one side shows them, oldest first.
async fn channel(
    State(desk): State<Arc<Desk>>,
    Path((side, channel)): Path<(Side, String)>,
) -> Result<Json<Value>, Refusal> {
    let channel = id(channel)?;
    let list = desk.readers[&side].posts(&channel, 0, POSTS_SHOWN).await?;
    // What the other side shows tells which of these have not crossed. It may not know the channel yet.
    let other = match side {
        Side::Edge => Side::Hub,
        Side::Hub => Side::Edge,
    };
    let across = desk.readers[&other].posts(&channel, 0, POSTS_SHOWN).await.unwrap_or_default();
    let mut posts = Vec::new();
    for post in list.order.iter().rev().filter_map(|id| list.posts.get(id)) {
        let by_bot = !desk.names.contains_key(&post.user_id);
        let crossed = by_bot || across.posts.get(&post.id).is_some_and(|there| there.update_at >= post.update_at);
        posts.push(desk.show(side, post, crossed).await);
    }
    Ok(Json(json!(posts)))
}

async fn file(State(desk): State<Arc<Desk>>, Path((side, file)): Path<(Side, String)>) -> Result<Response, Refusal> {
    let bytes = desk.readers[&side].download(&id(file)?).await?;
    // Never shown in the page's own origin, whatever it holds.
    Ok(([(CONTENT_TYPE, "application/octet-stream"), (CONTENT_DISPOSITION, "attachment")], bytes).into_response())
}

/// A post that a person at the page writes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Writing {
    by: String,
    channel_id: String,
    message: String,
    root_id: Option<String>,
    #[serde(default)]
    urgent: bool,
}

async fn write(
    State(desk): State<Arc<Desk>>,
    Path(side): Path<Side>,
    Json(writing): Json<Writing>,
) -> Result<StatusCode, Refusal> {
    let new = NewPost {
        channel_id: &writing.channel_id,
        message: &writing.message,
        root_id: writing.root_id.as_deref(),
        priority: writing.urgent.then_some("urgent"),
        file_ids: &[],
    };
    desk.person(side, &writing.by)?.post(new).await?;
    Ok(StatusCode::CREATED)
}

/// A reaction that a person at the page gives.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Reacting {
    by: String,
    post_id: String,
    emoji: String,
}

async fn react(
    State(desk): State<Arc<Desk>>,
    Path(side): Path<Side>,
    Json(reacting): Json<Reacting>,
) -> Result<StatusCode, Refusal> {
    desk.person(side, &reacting.by)?.react(&reacting.post_id, &reacting.emoji).await?;
    Ok(StatusCode::CREATED)
}

/// Ids become part of a path of the API: nothing but an id may pass.
fn id(text: String) -> Result<String, Refusal> {
    match text.parse::<model::Id>() {
        Ok(_) => Ok(text),
        Err(error) => Err(Refusal(StatusCode::BAD_REQUEST, error.to_string())),
    }
}

impl Desk {
    fn person(&self, side: Side, username: &str) -> Result<&Session, Refusal> {
        let found = self.people.get(username).filter(|_| side_of(username) == side);
        found.ok_or_else(|| Refusal(StatusCode::NOT_FOUND, format!("nobody called {username} sits at the {side}")))
    }

    fn name(&self, user_id: &str) -> String {
        self.names.get(user_id).map_or(BOT_NAME, String::as_str).to_owned()
    }

    /// What a channel is called; a direct channel after whoever the reader talks to there.
    fn label(&self, side: Side, channel: &Channel) -> String {
        let reader = &self.readers[&side].user.id;
        match channel.name.split("__").find(|id| *id != reader.as_str()) {
            Some(other) if channel.kind == "D" => self.name(other),
            Some(_) | None => channel.display_name.clone(),
        }
    }

    async fn show(&self, side: Side, post: &Post, crossed: bool) -> Value {
        let mut files = Vec::new();
        for file in post.metadata.files.iter().flatten() {
            let here = self.is_here(side, &file.id).await;
            files.push(json!({"id": file.id, "name": file.name, "size": file.size, "here": here}));
        }
        let mut reactions: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for reaction in post.metadata.reactions.iter().flatten() {
            reactions.entry(&reaction.emoji_name).or_default().push(self.name(&reaction.user_id));
        }
        json!({
            "id": post.id,
            "root_id": post.root_id,
            "author": self.name(&post.user_id),
            "system": !post.kind.is_empty(),
            "message": post.message,
            "create_at": post.create_at,
            "edited": post.edit_at != 0,
            "pinned": post.is_pinned,
            "urgent": post.metadata.priority.as_ref().is_some_and(|priority| priority["priority"] == "urgent"),
            "late": post.is_late(),
            "crossed": crossed,
            "reactions": reactions,
            "files": files,
        })
    }

    async fn is_here(&self, side: Side, file_id: &str) -> bool {
        let key = (side, file_id.to_owned());
        if self.here.lock().unwrap_or_else(PoisonError::into_inner).contains(&key) {
            return true;
        }
        let here = self.readers[&side].has_file(file_id).await;
        if here {
            self.here.lock().unwrap_or_else(PoisonError::into_inner).insert(key);
        }
        here
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn controls() -> Controls {
        Controls { up: true, rate: BitsPerSecond(256_000), delay: Duration::from_millis(300), loss: 0.05 }
    }

    fn settings(json: Value) -> LinkSettings {
        serde_json::from_value(json).unwrap()
    }

    #[tokio::test]
    async fn the_page_never_listens_beyond_the_loopback() {
        assert!(Page::bind("0.0.0.0:0".parse().unwrap()).await.is_err());
        let page = Page::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        assert!(page.url().starts_with("http://127.0.0.1:"));
    }

    #[test]
    fn only_the_pages_own_address_is_answered_to() {
        let address: SocketAddr = "127.0.0.1:8000".parse().unwrap();
        assert!(is_own_host(Some("127.0.0.1:8000"), address));
        assert!(is_own_host(Some("localhost:8000"), address));
        for foreign in [None, Some("evil.example"), Some("127.0.0.1"), Some("evil.example:8000")] {
            assert!(!is_own_host(foreign, address), "{foreign:?}");
        }
    }

    #[test]
    fn a_change_needs_the_header_that_a_foreign_page_cannot_send() {
        let address: SocketAddr = "127.0.0.1:8000".parse().unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_static("127.0.0.1:8000"));
        assert!(admit(&Method::GET, &headers, address).is_ok());
        assert!(admit(&Method::POST, &headers, address).is_err());
        headers.insert(GUARD, HeaderValue::from_static("1"));
        assert!(admit(&Method::POST, &headers, address).is_ok());
        headers.insert(HOST, HeaderValue::from_static("evil.example"));
        assert!(admit(&Method::POST, &headers, address).is_err());
    }

    #[test]
    fn a_link_setting_changes_only_what_it_names() {
        let cut = changed(controls(), &settings(json!({"up": false}))).unwrap();
        assert_eq!(cut, Controls { up: false, ..controls() });
        let slow = changed(controls(), &settings(json!({"rate": "9600bit/s", "loss_percent": 20}))).unwrap();
        assert_eq!(slow, Controls { rate: BitsPerSecond(9_600), loss: 0.2, ..controls() });
    }

    #[test]
    fn a_link_setting_out_of_range_changes_nothing() {
        for bad in [json!({"loss_percent": 91}), json!({"loss_percent": -1}), json!({"delay_ms": 10_001})] {
            assert!(changed(controls(), &settings(bad.clone())).is_none(), "{bad}");
        }
    }

    #[test]
    fn only_an_id_becomes_part_of_a_path() {
        assert!(id("ybndrfg8ejkmcpqxot1uwisza3".to_owned()).is_ok());
        for bad in ["", "..", "me/posts", "ybndrfg8ejkmcpqxot1uwisza/"] {
            assert!(id(bad.to_owned()).is_err(), "{bad}");
        }
    }
}
