//! REST API v4 as the official clients speak it, and the upgrade to the WebSocket.
//!
//! request -> route table -> session, cross-site rule, access -> body up to its limit -> handler on a blocking
//! thread -> answer with the headers that every answer carries
//!
//! Invariants
//! - Every path and method is one row of [`routes::all`], which says who may use it; a test tries each row as each
//!   kind of caller.
//! - Under `/api/` every answer that is not a file or picture is JSON; an error is an AppError.
//! - No handler reads a clock or a socket; the domain operations in [`crate::Core`] decide what is allowed
//!   beyond having a session.
//!
//! Start reading at `dispatch`; what a client may ask for is in [`routes`].

mod accounts;
mod admin;
mod bookmarks;
mod bots;
mod bulk;
mod call;
mod categories;
mod channels;
mod clientconfig;
mod drafts;
mod emoji;
pub mod enroll;
mod files;
mod integrations;
mod mirror;
mod picture;
mod pictures;
mod posts;
mod preferences;
mod push;
mod query;
mod range;
mod remainder;
pub(crate) mod reply;
pub mod routes;
mod search;
mod system;
mod tab;
mod teams;
#[cfg(test)]
mod tests;
mod threads;
mod throttle;
mod token;
mod unlicensed;
mod uploads;
mod users;
mod webapp;

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody as _};
use axum::extract::{FromRequestParts as _, RawPathParams, Request};
use axum::response::{IntoResponse as _, Response};
use axum::routing::MethodRouter;
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use telemetry::{Direction, Metrics, RequestKind, StatusClass};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

pub(crate) use self::call::Call;
use self::mirror::Mirror;
pub use self::mirror::MirroredSite;
use self::query::Query;
use self::reply::{Asked, Reply};
use self::routes::{Route, Run, Who};
pub use self::tab::{HostRefusal, HostSignIn, Tab};
use self::throttle::{Rate, Throttle};
use self::token::Carriage;
use self::webapp::{Subpath, WebApp};
use crate::Core;
use crate::audits::Noted;
use crate::error::{AppError, AppResult};
use crate::outgoing::Outgoing;
use crate::types::Session;
use crate::ws::{self, WsHub};

/// The server version that we are compatible with; mobile clients refuse less than 9.11.
pub const VERSION: &str = "11.6.0";
/// Part of `X-Version-Id`; a real server has its CI run here.
pub(crate) const BUILD_NUMBER: &str = "0";

/// Where users sign in.
const LOGIN: &str = "/api/v4/users/login";

const PER_PAGE_DEFAULT: u32 = 60;
const PER_PAGE_MAX: u32 = 200;
/// Longer request targets are refused with 414, as the original does.
const URL_LEN_MAX: usize = 2_048;

/// Domain operations running at once. SQLite has one writer; more threads would only wait for it.
const BLOCKING_MAX: usize = 32;

/// Passwords hashed at once. A hash takes tens of milliseconds and 19 MiB by design; without a bound of their
/// own, guesses at passwords would keep everybody else waiting.
const HASHING_MAX: usize = 2;

/// Things done at once that no request waits for: outgoing webhooks. Each holds a connection for at most the time that an
/// integration may take.
const BACKGROUND_MAX: usize = 128;

/// What is done beside requests, and ends with the server.
#[derive(Clone)]
struct Background {
    tasks: TaskTracker,
    stop: CancellationToken,
    slots: Arc<Semaphore>,
}

impl Default for Background {
    fn default() -> Self {
        let slots = Arc::new(Semaphore::new(BACKGROUND_MAX));
        Self { tasks: TaskTracker::new(), stop: CancellationToken::new(), slots }
    }
}

/// Pictures decoded at once: a large one takes some 330 MB while it is.
const IMAGING_MAX: usize = 1;

/// What an operator sets about the API.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpSettings {
    /// URL under which people reach the site, e.g. `https://chat.example`. Without it clients use the URL they
    /// were given, which is right for a box without a name.
    pub site_url: Option<String>,
    /// Largest JSON body in bytes. Default 300,000.
    pub max_json_bytes: usize,
    /// Attempts to sign in or sign up that one address may make each second, after a burst; 0 for no limit.
    pub logins_per_second: u32,
    /// Attempts that one address may make at once.
    pub login_burst: u32,
    /// Addresses of proxies whose `X-Forwarded-For` names the client. One on this machine needs no entry.
    pub trusted_proxies: Vec<IpAddr>,
    /// Directory of Mattermost's built web app (`client/` of a release), which is served from it. Without it a
    /// browser sees a page that names the site.
    pub webapp: Option<PathBuf>,
    /// Origins that may show the web app in a frame besides the site itself, separated by spaces, as in the
    /// directive `frame-ancestors` of a content security policy. Default none.
    pub frame_ancestors: String,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            site_url: None,
            max_json_bytes: 300_000,
            logins_per_second: 5,
            login_burst: 10,
            trusted_proxies: Vec::new(),
            webapp: None,
            frame_ancestors: String::new(),
        }
    }
}

/// What the API works on. The largest upload is the core's `max_file_bytes`.
#[derive(Clone)]
pub struct ApiState {
    core: Core,
    ws: WsHub,
    settings: Arc<HttpSettings>,
    config: Arc<clientconfig::ClientConfig>,
    mirror: Arc<Mirror>,
    tab: Option<Arc<Tab>>,
    blocking: Arc<Semaphore>,
    hashing: Arc<Semaphore>,
    logins: Arc<Mutex<Throttle>>,
    imaging: Arc<Semaphore>,
    outgoing: Outgoing,
    background: Background,
    /// Wall time in milliseconds until which what can wait is refused; 0 for never.
    busy_until: Arc<AtomicI64>,
    metrics: Arc<Metrics>,
}

impl ApiState {
    /// Brings the parts together. `ws` must be the sink that `core` publishes to.
    pub fn new(core: Core, ws: WsHub, settings: HttpSettings) -> Self {
        let config = Arc::new(clientconfig::ClientConfig::new(&core, &settings));
        let [blocking, hashing, imaging] =
            [BLOCKING_MAX, HASHING_MAX, IMAGING_MAX].map(|max| Arc::new(Semaphore::new(max)));
        let rate = Rate { per_second: settings.logins_per_second, burst: settings.login_burst };
        let logins = Arc::new(Mutex::new(Throttle::new(rate)));
        let integrations = &core.settings().integrations;
        let outgoing = Outgoing::new(&integrations.allowed_internal, integrations.timeout_seconds);
        let background = Background::default();
        Self {
            core,
            ws,
            settings: Arc::new(settings),
            config,
            mirror: Arc::default(),
            tab: None,
            blocking,
            hashing,
            imaging,
            outgoing,
            background,
            logins,
            busy_until: Arc::default(),
            metrics: Arc::default(),
        }
    }

    /// Counts requests in the node's own metrics.
    #[must_use]
    pub fn with_metrics(self, metrics: Arc<Metrics>) -> Self {
        Self { metrics, ..self }
    }

    /// Offers the page for host applications. Who may show it is the setting `frame_ancestors`.
    #[must_use]
    pub fn with_tab(self, tab: Tab) -> Self {
        Self { tab: Some(Arc::new(tab)), ..self }
    }

    pub(crate) fn tab(&self) -> Option<&Tab> {
        self.tab.as_deref()
    }

    /// Origins that may show pages of this site in a frame.
    pub(crate) fn frame_ancestors(&self) -> &str {
        self.settings.frame_ancestors.trim()
    }

    /// Counts one answer. A file counts with its announced length, also when the client stops reading.
    fn count(&self, kind: RequestKind, asked: &HeaderMap, answer: &Response) {
        self.metrics.mission_http_requests_total.inc((kind, StatusClass::of(answer.status().as_u16())));
        let announced = |headers: &HeaderMap| headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse::<u64>().ok();
        let sent = announced(answer.headers()).unwrap_or_else(|| answer.body().size_hint().lower());
        self.metrics.mission_http_body_bytes_total.add((Direction::Up,), sent);
        self.metrics.mission_http_body_bytes_total.add((Direction::Down,), announced(asked).unwrap_or(0));
    }

    pub(crate) fn core(&self) -> &Core {
        &self.core
    }

    pub(crate) fn hub(&self) -> &WsHub {
        &self.ws
    }

    /// `X-Version-Id`, and `server_version` in the greeting of a socket.
    pub(crate) fn version_id(&self) -> &str {
        self.config.version_id()
    }

    /// Host and scheme that a browser may name as its origin besides the host it asked.
    pub(crate) fn site_url(&self) -> Option<&str> {
        self.settings.site_url.as_deref()
    }

    fn set_busy_until(&self, ms: i64) {
        self.busy_until.store(ms, Ordering::Relaxed);
    }

    /// Until when an administrator called the server busy, in milliseconds; `None` when it is not.
    fn busy_until(&self, now_ms: i64) -> Option<i64> {
        Some(self.busy_until.load(Ordering::Relaxed)).filter(|until| *until > now_ms)
    }

    /// Counts an attempt to sign in or up; `Err` with the seconds to wait.
    fn admit(&self, peer: Option<IpAddr>, headers: &HeaderMap) -> Result<(), i64> {
        let client = peer.and_then(|peer| throttle::client(peer, headers, &self.settings.trusted_proxies));
        let Some(client) = client else { return Ok(()) };
        crate::core::lock(&self.logins).attempt(client, self.core.now().0)
    }

    /// The one client for other servers.
    pub(crate) fn outgoing(&self) -> &Outgoing {
        &self.outgoing
    }

    /// Does something that no request waits for; dropped when there is too much of it, or the server stops.
    pub(crate) fn in_background(&self, work: impl Future<Output = ()> + Send + 'static) {
        let Background { tasks, stop, slots } = &self.background;
        let Ok(slot) = Arc::clone(slots).try_acquire_owned() else {
            tracing::warn!("too much is done beside requests; an outgoing webhook is left out");
            return;
        };
        let stop = stop.clone();
        tasks.spawn(async move {
            let _slot = slot;
            tokio::select! {
                () = stop.cancelled() => {}
                () = work => {}
            }
        });
    }

    /// Runs a domain operation where it may block. The one way from here into [`Core`].
    ///
    /// Not cancel-safe in effect: an operation that started runs to its end even when nobody waits for it.
    pub(crate) async fn blocking<T, F>(&self, work: F) -> AppResult<T>
    where
        T: Send + 'static,
        F: FnOnce() -> AppResult<T> + Send + 'static,
    {
        let permit = Arc::clone(&self.blocking).acquire_owned().await;
        let run = move || {
            let _permit = permit;
            work()
        };
        tokio::task::spawn_blocking(run).await.unwrap_or_else(|e| {
            Err(AppError::new("http", "holdfast.handler.app_error", "The request could not be carried out.", 500)
                .detail(e))
        })
    }
}

impl ApiState {
    /// As [`Self::blocking`], for work that hashes a password. Its turn ends with the work and not before, also
    /// when whoever asked went away: else callers that hang up would start as many hashes as they like.
    async fn hashing<T, F>(&self, work: F) -> AppResult<T>
    where
        T: Send + 'static,
        F: FnOnce() -> AppResult<T> + Send + 'static,
    {
        self.in_turn(&self.hashing, work).await
    }

    /// As [`Self::blocking`], for work that decodes pictures.
    pub(crate) async fn imaging<T, F>(&self, work: F) -> AppResult<T>
    where
        T: Send + 'static,
        F: FnOnce() -> AppResult<T> + Send + 'static,
    {
        self.in_turn(&self.imaging, work).await
    }

    async fn in_turn<T, F>(&self, turns: &Arc<Semaphore>, work: F) -> AppResult<T>
    where
        T: Send + 'static,
        F: FnOnce() -> AppResult<T> + Send + 'static,
    {
        let turn = Arc::clone(turns).acquire_owned().await;
        let run = move || {
            let _turn = turn;
            work()
        };
        self.blocking(run).await
    }
}

/// Serves on `listener` until `stop`, then lets the requests that run finish.
///
/// # Errors
/// None yet: what goes wrong with one connection is that connection's end.
pub async fn serve(listener: TcpListener, state: ApiState, stop: CancellationToken) -> io::Result<()> {
    let background = state.background.clone();
    let router = router(state);
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEADER_WAIT);
    let mut connections = JoinSet::new();
    loop {
        let (stream, address) = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "accepting a connection failed");
                    // Without descriptors it would fail again at once.
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
            Some(_) = connections.join_next() => continue,
        };
        let router = TowerToHyperService::new(router.clone());
        let service = service_fn(move |mut request: http::Request<Incoming>| {
            request.extensions_mut().insert(Peer(address.ip()));
            router.call(request.map(Body::new))
        });
        let serving = builder.serve_connection(TokioIo::new(stream), service).with_upgrades();
        let stopped = stop.clone();
        connections.spawn(async move {
            let mut serving = pin!(serving);
            let ended = tokio::select! {
                ended = serving.as_mut() => ended,
                () = stopped.cancelled() => {
                    serving.as_mut().graceful_shutdown();
                    serving.await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection broke off");
            }
        });
    }
    while connections.join_next().await.is_some() {}
    background.stop.cancel();
    background.tasks.close();
    background.tasks.wait().await;
    Ok(())
}

/// Time to send the head of a request; who sends it byte by byte only wants to hold the connection.
const HEADER_WAIT: Duration = Duration::from_secs(15);
/// Wait after a failure to accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// The API, the WebSocket and the front page.
pub fn router(state: ApiState) -> Router {
    let mut router = Router::new();
    for route in routes::all() {
        let filter = route.method.clone().try_into().expect("the table holds plain methods only");
        let state = state.clone();
        let handler = move |request: Request| dispatch(state.clone(), route, request);
        router = router.route(route.path, MethodRouter::new().on(filter, handler));
    }
    let subpath = Subpath::of(state.site_url());
    let webapp = state.settings.webapp.as_deref().map(|dir| {
        let settings = &state.settings;
        Arc::new(WebApp::new(dir, subpath.clone(), &state.core.settings().site_name, &settings.frame_ancestors))
    });
    if let Some(webapp) = &webapp {
        router = webapp.routes(router);
    }
    let fallback = move |request: Request| {
        let (state, webapp) = (state.clone(), webapp.clone());
        let (asked, _body) = request.into_parts();
        async move { nothing_here(&state, webapp.as_deref(), &asked).await }
    };
    let router = router.method_not_allowed_fallback(fallback.clone()).fallback(fallback.clone());
    let router = match subpath.is_root() {
        true => router,
        false => {
            let site =
                HeaderValue::from_str(&format!("{}/", subpath.as_str())).expect("a path of a URL is a header value");
            let elsewhere = move || async move { (StatusCode::FOUND, [(header::LOCATION, site)]) };
            Router::new().nest(subpath.as_str(), router).route("/", axum::routing::get(elsewhere)).fallback(fallback)
        }
    };
    router.layer(axum::middleware::from_fn(remainder::read_on))
}

async fn dispatch(state: ApiState, route: &'static Route, request: Request) -> Response {
    let (mut parts, body) = request.into_parts();
    let request_id = state.core.random_id();
    let params = RawPathParams::from_request_parts(&mut parts, &state).await;
    let asked_headers = parts.headers.clone();
    let peer = parts.extensions.get::<Peer>().map(|peer| peer.0);
    let address = peer.and_then(|peer| throttle::client(peer, &asked_headers, &state.settings.trusted_proxies));
    let address = address.or(peer).map(|address| address.to_string()).unwrap_or_default();
    let mut retry_after_s = None;
    let mut who_asked = None;
    let outcome = async {
        if parts.uri.path_and_query().map_or(0, |target| target.as_str().len()) > URL_LEN_MAX {
            return Err(AppError::new("http", "basic_security_check.url.too_long_error", "URL is too long", 414));
        }
        if route.is_attempt() {
            state.admit(peer, &parts.headers).inspect_err(|wait_s| retry_after_s = Some(*wait_s)).map_err(too_many)?;
        }
        let params = params
            .map(|found| found.iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect())
            .map_err(|e| AppError::url_param("http", "path").detail(e))?;
        let query = Query::parse(parts.uri.query().unwrap_or(""));
        let session = authenticate(&state, route, &parts.method, &parts.headers, &query).await?;
        if route.can_wait && state.busy_until(state.core.now().0).is_some() {
            let message = "Server is busy, non-critical services are temporarily unavailable.";
            return Err(AppError::new("http", "api.context.server_busy.app_error", message, 503));
        }
        who_asked.clone_from(&session);
        let mut call = Call {
            state: state.clone(),
            headers: parts.headers.clone(),
            address: address.clone(),
            query,
            params,
            session,
            body: Bytes::new(),
        };
        match route.run {
            Run::Json(handler) => {
                call.body = read_capped(body, state.settings.max_json_bytes).await?;
                state.blocking(move || handler(&call)).await.map(Answer::Reply)
            }
            Run::Password(handler) => {
                call.body = read_capped(body, state.settings.max_json_bytes).await?;
                state.hashing(move || handler(&call)).await.map(Answer::Reply)
            }
            Run::Stream(handler) => handler(call, body).await.map(Answer::Reply),
            Run::Refuse(refusal) => Err(refusal.error()),
            Run::Socket => ws::upgrade(&state, call, &mut parts).await.map(Answer::Socket),
        }
    };
    let outcome = outcome.await;
    // Which sites there are is no stranger's business.
    let as_of = who_asked.as_ref().and_then(|_| state.as_of());
    // A stranger's request is noted where it was admitted as an attempt to sign in; everything else a stranger asks for is
    // refused, and would only push out what matters.
    let is_attempt = route.path == LOGIN && outcome.as_ref().err().is_none_or(|error| error.status_code != 429);
    if route.is_noted && (who_asked.is_some() || is_attempt) {
        let extra = match &outcome {
            Ok(_) => "success".to_owned(),
            Err(error) => format!("fail {}", error.id),
        };
        note(&state, who_asked, parts.uri.path().to_owned(), extra, address).await;
    }
    let request_id = request_id.to_string();
    let asked = Asked {
        method: &route.method,
        path: route.path,
        headers: &asked_headers,
        request_id: &request_id,
        version_id: state.version_id(),
        as_of,
    };
    let mut response = match outcome {
        Ok(Answer::Socket(response)) => response,
        Ok(Answer::Reply(reply)) => reply::respond(Ok(reply), &asked),
        Err(error) => reply::respond(Err(error), &asked),
    };
    response.headers_mut().extend(retry_after_s.map(|wait_s| (header::RETRY_AFTER, HeaderValue::from(wait_s))));
    state.count(route.kind(), &asked_headers, &response);
    response
}

/// Notes who did what. A request that was carried out is not undone because its note could not be written.
async fn note(state: &ApiState, by: Option<Session>, action: String, extra: String, address: String) {
    let core = state.core.clone();
    let noted = state.blocking(move || {
        core.note_audit(&Noted { by: by.as_ref(), action: &action, extra: &extra, address: &address })
    });
    if let Err(error) = noted.await {
        tracing::warn!(%error, "the audit of a request could not be written");
    }
}

/// The other end of the connection that a request came by.
#[derive(Clone, Copy, Debug)]
struct Peer(IpAddr);

fn too_many(_: i64) -> AppError {
    AppError::new("http", "holdfast.too_many_attempts.app_error", "limit exceeded", 429)
}

enum Answer {
    Reply(Reply),
    /// The handshake's answer goes out as it is.
    Socket(Response),
}

/// Finds the caller's session and holds it against who may use the route.
async fn authenticate(
    state: &ApiState,
    route: &Route,
    method: &Method,
    headers: &HeaderMap,
    query: &Query,
) -> AppResult<Option<Session>> {
    let needs_session = route.needs_session();
    let Some((text, carriage)) = token::carried(headers, query) else {
        return if needs_session { Err(AppError::session_expired("http")) } else { Ok(None) };
    };
    let found = {
        let core = state.core.clone();
        let look_up = move || {
            let mut session = core.session(&text)?;
            session.token = text;
            Ok(session)
        };
        state.blocking(look_up).await
    };
    let session = match found {
        Ok(session) => session,
        Err(error) if error.status_code >= 500 => return Err(error),
        Err(_) if needs_session => return Err(AppError::session_expired("http")),
        Err(_) => return Ok(None),
    };
    if carriage == Carriage::Query {
        let message = "Session is not OAuth but token was provided in the query string.";
        return Err(AppError::new("http", "api.context.token_provided.app_error", message, 401));
    }
    if carriage == Carriage::Cookie && route.checks_csrf && !token::proves_same_site(method, headers, session.csrf()) {
        return Err(AppError::session_expired("http").detail("cross-site request"));
    }
    if route.who == Who::SystemAdmin && !session.is_system_admin() {
        return Err(AppError::permissions("http", "manage_system"));
    }
    Ok(Some(session))
}

/// The whole body, or 413.
async fn read_capped(mut body: Body, max: usize) -> AppResult<Bytes> {
    if body.size_hint().lower() > max as u64 {
        return Err(body_too_large());
    }
    let mut whole = Vec::new();
    while let Some(frame) = http_body_util::BodyExt::frame(&mut body).await {
        let frame =
            frame.map_err(|e| AppError::bad("http", "api.payload.parse.error", "The body broke off.").detail(e))?;
        let Ok(data) = frame.into_data() else { continue };
        if whole.len() + data.len() > max {
            return Err(body_too_large());
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole.into())
}

pub(crate) fn body_too_large() -> AppError {
    let message = "Unable to process request. Request body too large.";
    AppError::new("http", "api.context.request_body_too_large.app_error", message, 413)
}

/// Below these lies no page, whether or not there is a row for them.
const NOT_PAGES: [&str; 4] = ["/api/", "/hooks/", "/oauth/", "/plugins/"];

/// What no row of the table answers.
async fn nothing_here(state: &ApiState, webapp: Option<&WebApp>, request: &Parts) -> Response {
    let path = request.uri.path();
    let is_page = matches!(request.method, Method::GET | Method::HEAD)
        && NOT_PAGES.iter().all(|prefix| !path.starts_with(prefix));
    match (is_page, webapp) {
        (true, _) if path == "/robots.txt" => return "User-agent: *\nDisallow: /\n".into_response(),
        (true, Some(webapp)) => {
            return webapp.root(&request.method).await.unwrap_or_else(|error| {
                warn!(%error, "the web app's root.html cannot be read; see http.webapp");
                page(state, StatusCode::SERVICE_UNAVAILABLE)
            });
        }
        (true, None) => return page(state, if path == "/" { StatusCode::OK } else { StatusCode::NOT_FOUND }),
        (false, _) => {}
    }
    let error = AppError::new("http", "api.context.404.app_error", "Sorry, we could not find the page.", 404);
    let request_id = state.core.random_id().to_string();
    let asked = Asked {
        method: &request.method,
        path,
        headers: &request.headers,
        request_id: &request_id,
        version_id: state.version_id(),
        as_of: None,
    };
    reply::respond(Err(error), &asked)
}

/// Names the site for whoever opens it in a browser.
fn page(state: &ApiState, status: StatusCode) -> Response {
    let name = escape(&state.core.settings().site_name);
    let node = escape(state.core.node_name());
    let text = match status {
        StatusCode::OK => {
            "Connect with the Mattermost desktop or mobile app, using this page's address. To use a browser, ask the \
             operator to serve Mattermost's web app: the setting <code>http.webapp</code> names the directory \
             <code>client</code> of a Mattermost release."
        }
        StatusCode::SERVICE_UNAVAILABLE => {
            "The web app cannot be read from its directory (setting <code>http.webapp</code>). The desktop and mobile \
             apps work as ever."
        }
        _ => "There is nothing under this address.",
    };
    let html = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{name}</title><body><h1>{name}</h1><p>{text}</p><p><small>{node}</small></p></body></html>\n"
    );
    let mut response = Response::new(Body::from(html));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    let ancestors = state.frame_ancestors();
    if ancestors.is_empty() {
        headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("SAMEORIGIN"));
    }
    let policy = format!("default-src 'none'; frame-ancestors 'self' {ancestors}");
    let policy = HeaderValue::from_str(policy.trim_end()).unwrap_or(HeaderValue::from_static("frame-ancestors 'self'"));
    headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    response
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
