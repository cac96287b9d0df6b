//! The ports: TLS, HTTP/1.1, and everything that may go wrong between a commit and its answer.

use std::convert::Infallible;
use std::io;
use std::net::TcpListener as StdListener;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{HeaderValue, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rand::RngExt as _;
use rustls::ServerConfig;
use serde_json::json;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::clock::http_date;
use crate::faults::Failure;
use crate::graph::Refusal;
use crate::graph::throttle::{COARSE, ON_ITS_WAY};
use crate::http::{Answer, Body, Request};
use crate::openapi::Contract;
use crate::oracle::{Rule, Seen};
use crate::settings::Relaxation;
use crate::world::{Trace, World};

/// A file of 60 MiB in one range is the most that the services take.
const BODY_MAX: usize = 70 << 20;

/// Pieces of a slow answer.
const SLOW_PIECES: usize = 10;

/// Half of an answer has left by then.
const TRUNCATED_AFTER: Duration = Duration::from_millis(50);

/// A client that does not begin its handshake or its request is let go.
const IDLE_MAX: Duration = Duration::from_secs(120);

type Sent = BoxBody<Bytes, io::Error>;

/// A port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    Login,
    Graph,
    Upload,
    /// None of Microsoft's: what arrives here should not have.
    Abroad,
}

impl Host {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Login => "login",
            Self::Graph => "graph",
            Self::Upload => "upload",
            Self::Abroad => "abroad",
        }
    }
}

/// What all ports share.
pub(crate) struct Shared {
    pub(crate) world: Mutex<World>,
    pub(crate) contract: Option<Contract>,
}

impl Shared {
    /// A test that panicked while it held the world has failed anyway; others read on.
    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What becomes of a request.
enum Fate {
    Answer(Answer),
    Reset,
    ResetAfter(Duration),
    Truncated(Answer),
    Slow(Answer, Duration),
}

/// A connection is to be cut.
#[derive(Debug, thiserror::Error)]
#[error("the connection is cut")]
struct Cut;

/// Accepts until it is told to stop.
pub(crate) async fn accept(
    host: Host,
    listener: StdListener,
    tls: Option<Arc<ServerConfig>>,
    shared: Arc<Shared>,
    stop: CancellationToken,
) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let acceptor = tls.map(TlsAcceptor::from);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => {
                if let Ok((tcp, _)) = accepted {
                    connections.spawn(connection(host, tcp, acceptor.clone(), Arc::clone(&shared)));
                }
            }
        }
    }
}

async fn connection(host: Host, tcp: TcpStream, acceptor: Option<TlsAcceptor>, shared: Arc<Shared>) {
    let _ = tcp.set_nodelay(true);
    // A second handle on the socket, by which its end can be made a reset.
    let Ok(tcp) = tcp.into_std() else { return };
    let Ok(handle) = tcp.try_clone() else { return };
    let Ok(tcp) = TcpStream::from_std(tcp) else { return };
    let reset = || {
        let _ = SockRef::from(&handle).set_linger(Some(Duration::ZERO));
    };
    let stall = shared.world().tls_stall(host);
    if let Some(stall) = stall {
        tokio::time::sleep(stall).await;
        return reset();
    }
    let cut = Arc::new(Mutex::new(false));
    let service = service_fn(|request: http::Request<Incoming>| {
        let (shared, cut) = (Arc::clone(&shared), Arc::clone(&cut));
        async move {
            let answered = respond(host, request, &shared).await;
            if answered.is_err() {
                *cut.lock().unwrap_or_else(PoisonError::into_inner) = true;
            }
            answered
        }
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(IDLE_MAX);
    // However it ended: who is cut off on purpose is told by the flag.
    let _ = match acceptor {
        Some(acceptor) => match tokio::time::timeout(IDLE_MAX, acceptor.accept(tcp)).await {
            Ok(Ok(stream)) => http.serve_connection(TokioIo::new(stream), service).await,
            Ok(Err(_)) | Err(_) => return,
        },
        None => http.serve_connection(TokioIo::new(tcp), service).await,
    };
    // Where half of an answer has left, a reset would take it back.
    if *cut.lock().unwrap_or_else(PoisonError::into_inner) {
        reset();
    }
}

async fn respond(host: Host, request: http::Request<Incoming>, shared: &Shared) -> Result<Response<Sent>, Cut> {
    let (parts, body) = request.into_parts();
    let slot = Slot::take(shared, host, parts.uri.path());
    // A body that breaks off is thrown away whole: nothing of it is committed.
    let body = Limited::new(body, BODY_MAX).collect().await.map_err(|_| Cut)?.to_bytes();
    let uri = parts.uri.path_and_query().map_or("/", |p| p.as_str());
    let request = Request::new(parts.method, uri, parts.headers, body);
    let crowded = slot.as_ref().is_some_and(|slot| slot.crowded);
    let (fate, date_at, pause_ms) = {
        let mut world = shared.world();
        let fate = world.fate(host, &request, shared.contract.as_ref(), crowded);
        (fate, world.now().saturating_add_signed(world.date_off_ms), world.settings.limits.answer_after_ms)
    };
    if pause_ms > 0 && host == Host::Graph {
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
    }
    match fate {
        Fate::Answer(answer) => Ok(render(&answer, date_at, whole)),
        Fate::Reset => Err(Cut),
        Fate::ResetAfter(wait) => {
            tokio::time::sleep(wait).await;
            Err(Cut)
        }
        Fate::Truncated(answer) => Ok(render(&answer, date_at, |bytes| {
            let half = bytes.slice(..bytes.len() / 2);
            let sent = stream::once(async { Ok(Frame::data(half)) }).chain(stream::once(async {
                // The half must have left before the connection ends.
                tokio::time::sleep(TRUNCATED_AFTER).await;
                Err(io::Error::other("cut off on purpose"))
            }));
            BodyExt::boxed(StreamBody::new(SyncStream(Box::pin(sent))))
        })),
        Fate::Slow(answer, over) => Ok(render(&answer, date_at, |bytes| {
            let size = bytes.len().div_ceil(SLOW_PIECES).max(1);
            let pieces: Vec<Bytes> = bytes.chunks(size).map(Bytes::copy_from_slice).collect();
            let pause = over / u32::try_from(pieces.len().max(1)).unwrap_or(1);
            let sent = stream::unfold(pieces.into_iter(), move |mut left| async move {
                let piece = left.next()?;
                tokio::time::sleep(pause).await;
                Some((Ok::<_, io::Error>(Frame::data(piece)), left))
            });
            // The stream is driven by one connection only.
            BodyExt::boxed(StreamBody::new(SyncStream(Box::pin(sent))))
        })),
    }
}

/// A request to a mailbox, from its head to its answer.
struct Slot<'a> {
    shared: &'a Shared,
    mailbox: String,
    /// Was the mailbox at its limit when the request came? Those that come later change nothing for this one.
    crowded: bool,
}

impl<'a> Slot<'a> {
    fn take(shared: &'a Shared, host: Host, path: &str) -> Option<Self> {
        let mut segments = path.strip_prefix("/v1.0/users/").filter(|_| host == Host::Graph)?.split('/');
        let (mailbox, what) = (segments.next()?.to_owned(), segments.next()?);
        if !matches!(what, "messages" | "mailFolders" | "sendMail" | "events" | "calendarView") {
            return None;
        }
        let mut world = shared.world();
        let most = world.settings.limits.mailbox_concurrent;
        let count = world.in_flight.entry(mailbox.clone()).or_insert(0);
        *count += 1;
        let crowded = *count > most;
        drop(world);
        Some(Self { shared, mailbox, crowded })
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        if let Some(count) = self.shared.world().in_flight.get_mut(&self.mailbox) {
            *count -= 1;
        }
    }
}

/// A stream that is polled by one task at a time and so may be shared.
struct SyncStream<S>(std::pin::Pin<Box<S>>);

impl<S: futures_util::Stream> futures_util::Stream for SyncStream<S> {
    type Item = S::Item;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<S::Item>> {
        self.0.as_mut().poll_next(cx)
    }
}

fn whole(bytes: Bytes) -> Sent {
    Full::new(bytes).map_err(|never: Infallible| match never {}).boxed()
}

fn render(answer: &Answer, date_at: u64, body: impl FnOnce(Bytes) -> Sent) -> Response<Sent> {
    let (media, bytes) = answer.rendered();
    let mut response = Response::builder().status(answer.status);
    let headers = response.headers_mut().expect("a status is never refused");
    for (name, value) in &answer.headers {
        let name = http::HeaderName::from_bytes(name.as_bytes()).expect("names are the simulator's own");
        headers.append(name, HeaderValue::from_str(value).unwrap_or(HeaderValue::from_static("")));
    }
    if let Some(media) = media {
        headers.insert("content-type", HeaderValue::from_str(media).expect("media types are the simulator's own"));
    }
    if answer.status != 204 {
        headers.insert("content-length", HeaderValue::from(bytes.len()));
    }
    headers.insert("date", HeaderValue::from_str(&http_date(date_at)).expect("a date is ASCII"));
    response.body(body(bytes)).expect("every header was checked")
}

impl World {
    fn tls_stall(&mut self, host: Host) -> Option<Duration> {
        let rule = self.faults.iter_mut().find(|r| {
            r.times > 0
                && matches!(r.failure, Failure::TlsStall { .. })
                && r.host.as_deref().is_none_or(|h| h == host.name())
        })?;
        let Failure::TlsStall { for_ms } = rule.failure else { return None };
        rule.times -= 1;
        Some(Duration::from_millis(for_ms))
    }

    /// The failure whose turn it is: where it comes after the commit, its index, to be used up if something was committed.
    fn failure(&mut self, host: Host, request: &Request) -> Option<usize> {
        let path = crate::http::decode(&request.path);
        for (at, rule) in self.faults.iter_mut().enumerate() {
            let stalls = matches!(rule.failure, Failure::TlsStall { .. });
            if rule.times == 0 || stalls || !rule.matches(host.name(), request.method.as_str(), &path) {
                continue;
            }
            if rule.skip > 0 {
                rule.skip -= 1;
                continue;
            }
            if rule.chance >= 1.0 || self.rng.random_bool(rule.chance.clamp(0.0, 1.0)) {
                return Some(at);
            }
        }
        None
    }

    fn fate(&mut self, host: Host, request: &Request, contract: Option<&Contract>, crowded: bool) -> Fate {
        let at_ms = self.now();
        let mut chosen = self.failure(host, request);
        let failure = chosen.map(|at| self.faults[at].failure.clone());
        let before = self.oracle.effects.len();
        let mut path = request.path.clone();
        self.notice_impatience(request);
        let answer = |world: &mut Self, path: &mut String| match host {
            Host::Login => world.login(request),
            Host::Graph => {
                let (answer, template) = world.graph(request, contract);
                *path = template;
                answer
            }
            Host::Upload => {
                // The path holds the secret.
                *path = request.path.split('/').take(2).collect::<Vec<_>>().join("/");
                world.upload(request)
            }
            Host::Abroad => world.abroad(request),
        };
        let html = |status: u16, text: &str| {
            Answer::html(
                status,
                &format!("<html><head><title>{status}</title></head><body><h1>{text}</h1></body></html>"),
            )
        };
        let fate = match &failure {
            None if crowded && !self.relaxed(Relaxation::Unthrottled) => {
                Fate::Answer(self.refused(host, 429, Some(0.5), Some("ApplicationThrottled"), request))
            }
            None | Some(Failure::TlsStall { .. }) => Fate::Answer(answer(self, &mut path)),
            Some(Failure::ResetBefore) => Fate::Reset,
            Some(Failure::Stall { for_ms }) => Fate::ResetAfter(Duration::from_millis(*for_ms)),
            Some(Failure::Html { status }) => Fate::Answer(html(*status, "The service is unavailable.")),
            Some(Failure::CaptivePortal) => Fate::Answer(html(200, "Welcome! Please accept the terms of use.")),
            Some(Failure::CaptiveRedirect) => Fate::Answer(Answer::redirect(&format!("{}/portal", self.urls.abroad))),
            Some(Failure::Refused { status, retry_after_s, code }) => {
                if let Some(seconds) = retry_after_s {
                    let until = at_ms + (seconds * 1000.0) as u64;
                    self.told_to_wait.insert((request.method.to_string(), request.path.clone()), (at_ms, until));
                }
                Fate::Answer(self.refused(host, *status, *retry_after_s, code.as_deref(), request))
            }
            Some(Failure::RefusedAfterCommit { status }) => {
                answer(self, &mut path);
                Fate::Answer(self.refused(host, *status, None, None, request))
            }
            Some(Failure::ResetAfterCommit | Failure::StallAfterCommit { .. }) => {
                let answer = answer(self, &mut path);
                if self.oracle.effects.len() == before {
                    chosen = None;
                    Fate::Answer(answer)
                } else if let Some(Failure::StallAfterCommit { for_ms }) = failure {
                    Fate::ResetAfter(Duration::from_millis(for_ms))
                } else {
                    Fate::Reset
                }
            }
            Some(Failure::ForeignLink) => {
                let mut answer = answer(self, &mut path);
                if let Body::Json(value) = &mut answer.body {
                    for name in ["@odata.nextLink", "@odata.deltaLink"] {
                        if let Some(link) = value[name].as_str().map(|l| l.replace(&self.urls.graph, &self.urls.abroad))
                        {
                            value[name] = json!(link);
                        }
                    }
                }
                Fate::Answer(answer)
            }
            Some(Failure::Truncated) => Fate::Truncated(answer(self, &mut path)),
            Some(Failure::SlowBody { over_ms }) => {
                let answer = answer(self, &mut path);
                Fate::Slow(answer, Duration::from_millis(*over_ms))
            }
        };
        if let Some(at) = chosen {
            self.faults[at].times -= 1;
        }
        let status = match &fate {
            Fate::Answer(answer) | Fate::Truncated(answer) | Fate::Slow(answer, _) => answer.status,
            Fate::Reset | Fate::ResetAfter(_) => 0,
        };
        self.oracle.requests.push(Seen {
            at_ms,
            host: host.name(),
            method: request.method.to_string(),
            path,
            status,
            client_request_id: request.header("client-request-id").unwrap_or("").to_owned(),
            body_bytes: request.body.len(),
            failure: failure.filter(|_| chosen.is_some()).map(|f| json!(f)["kind"].as_str().unwrap_or("").to_owned()),
        });
        fate
    }

    fn refused(
        &mut self,
        host: Host,
        status: u16,
        retry_after_s: Option<f64>,
        code: Option<&str>,
        request: &Request,
    ) -> Answer {
        let usual = match status {
            429 => "TooManyRequests",
            503 => "serviceNotAvailable",
            504 => "GatewayTimeout",
            500 => "generalException",
            _ => "UnknownError",
        };
        let trace = Trace {
            request_id: self.guid(),
            client_request_id: request.header("client-request-id").unwrap_or("").to_owned(),
        };
        let answer = if host == Host::Login {
            Answer::json(
                status,
                json!({
                    "error": "temporarily_unavailable", "error_codes": [90033], "trace_id": trace.request_id,
                    "error_description": "AADSTS90033: A transient error has occurred. Please try again.",
                }),
            )
        } else {
            let refusal = Refusal::new(status, code.unwrap_or(usual), "The request was refused on purpose.");
            let answer = refusal.answer(self.now(), &trace);
            self.with_graph_headers(answer, &trace)
        };
        match retry_after_s {
            Some(seconds) => answer.with("retry-after", seconds.to_string()),
            None => answer,
        }
    }

    /// Who was told to wait, by a failure that was asked for, and repeats the same before its time.
    fn notice_impatience(&mut self, request: &Request) {
        let key = (request.method.to_string(), request.path.clone());
        let now = self.now();
        if let Some((told, until)) = self.told_to_wait.get(&key).copied() {
            if now > told + ON_ITS_WAY && now + COARSE < until {
                let text = format!("{} {}, {} ms before its time", key.0, key.1, until - now);
                self.oracle.violated(now, Rule::RetriedTooEarly, text);
            } else if now >= until {
                self.told_to_wait.remove(&key);
            }
        }
    }

    /// A host that is nobody's: whoever brings a token here leaks it.
    fn abroad(&mut self, request: &Request) -> Answer {
        let sent = String::from_utf8_lossy(&request.body);
        let secrets = ["client_secret", "client_assertion", "refresh_token", "device_code", "assertion"];
        if request.headers.contains_key("authorization") || secrets.iter().any(|name| sent.contains(name)) {
            let (now, text) = (self.now(), format!("{} {}", request.method, request.path));
            self.oracle.violated(now, Rule::TokenAbroad, text);
        }
        Answer::html(200, "<html><body>Somewhere else</body></html>")
    }
}
