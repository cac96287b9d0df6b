//! One request and its answer: permission first, bounded in size and time, no redirect followed.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt as _};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use model::{Precedence, UnixMillis};
use telemetry::{Metrics, Verdict};
use tracing::debug;
use url::Url;

use crate::environment::{Budget, GraphEnvironment, HeldBecause};
use crate::settings::{GraphSettings, SettingsError};

/// A name, an address and a handshake, over a link with a round trip of seconds.
const CONNECT_MAX: Duration = Duration::from_secs(30);

/// Without a byte in either direction for so long a request is given up. Graph gives up after 60 s itself.
const SILENCE_MAX: Duration = Duration::from_secs(75);

/// Idle connections are closed after so long: a node that falls silent should have none that the other side closes.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// A piece of a body. At 64 kbit/s it takes 2 s, which is what an urgent call waits for at most.
const PIECE_BYTES: usize = 16 * 1024;

/// What a new connection costs besides (TLS 1.3 with a client hello that holds a post-quantum key share), and what each
/// request does below HTTP.
const REQUEST_OVERHEAD_BYTES: u64 = 200;

/// A clock that is off by more than this is told to the operator; tokens and assertions are refused from there on.
const SKEW_MAX: Duration = Duration::from_secs(300);

/// Name of the check on the clock.
const CLOCK_CHECK: &str = "microsoft-clock";

/// A request.
#[derive(Clone, Debug)]
pub(crate) struct Out {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Option<Bytes>,
    pub(crate) precedence: Precedence,
    /// Largest answer that is read.
    pub(crate) answer_bytes_max: usize,
}

/// An answer.
#[derive(Clone, Debug)]
pub(crate) struct Came {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// No answer.
#[derive(Clone, Debug)]
pub(crate) enum Lost {
    /// Nothing of the request was sent.
    NotSent(HeldBecause),
    /// The request, or part of it, was sent; what it did is not known.
    Unknown(String),
    /// There was an answer of this status, larger than what is read.
    TooLarge(StatusCode),
}

/// Sends requests. One for each room.
pub(crate) struct Transport {
    settings: GraphSettings,
    client: Mutex<reqwest::Client>,
    environment: GraphEnvironment,
    /// By how much the other side's clock is ahead of this node's, in seconds; [`NO_SKEW`] before any answer.
    skew_s: AtomicI64,
}

const NO_SKEW: i64 = i64::MIN;

impl Transport {
    pub(crate) fn new(settings: &GraphSettings, environment: GraphEnvironment) -> Result<Self, SettingsError> {
        let client = Mutex::new(client(settings)?);
        Ok(Self { settings: settings.clone(), client, environment, skew_s: AtomicI64::new(NO_SKEW) })
    }

    /// Completes when nothing may leave any more, with every connection that nobody uses closed: none is closed later, or kept
    /// alive, by a packet of this node.
    pub(crate) async fn silenced(&self) -> HeldBecause {
        let held = self.environment.budget.forbidden().await;
        self.leave_connections();
        held
    }

    /// The next requests go over connections of their own: what answered 503 is not asked again.
    pub(crate) fn leave_connections(&self) {
        match client(&self.settings) {
            Ok(fresh) => *self.client.lock().unwrap_or_else(PoisonError::into_inner) = fresh,
            Err(e) => debug!(error = %e, "no new connections could be prepared; the present ones stay"),
        }
    }

    /// By how much the other side's clock is ahead, in seconds, as its last answer had it.
    pub(crate) fn skew_seconds(&self) -> Option<i64> {
        Some(self.skew_s.load(Ordering::Relaxed)).filter(|s| *s != NO_SKEW)
    }

    /// Wall time as the other side has it: what it compares the times in assertions with.
    pub(crate) fn their_time(&self) -> UnixMillis {
        UnixMillis(self.environment.clock.now().0 + self.skew_seconds().unwrap_or(0) * 1000)
    }

    /// Sends a request and reads the answer. Cancelling leaves open what it did.
    pub(crate) async fn send(&self, out: Out) -> Result<Came, Lost> {
        let body_bytes = out.body.as_ref().map_or(0, Bytes::len);
        self.pay(out.precedence, head_bytes(&out)).await?;
        let progress = Arc::new(Progress::default());
        let mut request = reqwest::Request::new(out.method, out.url);
        *request.headers_mut() = out.headers;
        if let Some(body) = out.body {
            // The first piece is paid for before the head leaves, so that a forbidden request sends nothing at all.
            let granted = self.take(out.precedence, body.len().min(PIECE_BYTES)).await?;
            let paced = Paced::new(body, granted, out.precedence, &self.environment, Arc::clone(&progress));
            *request.body_mut() = Some(reqwest::Body::wrap(paced));
            request.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(body_bytes));
        }
        if let Some(held) = self.environment.budget.forbidden().now_or_never() {
            return Err(Lost::NotSent(held));
        }
        // Reading is sending too: every segment that arrives is acknowledged by one that leaves.
        tokio::select! {
            biased;
            held = self.environment.budget.forbidden() => {
                self.leave_connections();
                Err(Lost::Unknown(held.to_string()))
            }
            came = self.exchange(request, out.answer_bytes_max, &progress) => came,
        }
    }

    /// Sends what was paid for and reads the answer.
    async fn exchange(
        &self,
        request: reqwest::Request,
        answer_bytes_max: usize,
        progress: &Progress,
    ) -> Result<Came, Lost> {
        let client = self.client.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut response = tokio::select! {
            answered = client.execute(request) => answered.map_err(|e| lost(&e, progress))?,
            () = progress.stalled() => return Err(Lost::Unknown("no answer came".to_owned())),
        };
        self.note_skew(response.headers());
        let status = response.status();
        let headers = response.headers().clone();
        let mut body = Vec::new();
        loop {
            let piece = match tokio::time::timeout(SILENCE_MAX, response.chunk()).await {
                Ok(Ok(piece)) => piece,
                // What was refused is known without its text; what succeeded is not.
                Ok(Err(_)) | Err(_) if status.is_client_error() => None,
                Ok(Err(e)) => return Err(Lost::Unknown(told(&e))),
                Err(_) => return Err(Lost::Unknown("the answer stopped coming".to_owned())),
            };
            let Some(piece) = piece else { break };
            if body.len() + piece.len() > answer_bytes_max {
                return Err(Lost::TooLarge(status));
            }
            body.extend_from_slice(&piece);
        }
        Ok(Came { status, headers, body: body.into() })
    }

    async fn pay(&self, precedence: Precedence, mut bytes: u64) -> Result<(), Lost> {
        while bytes > 0 {
            bytes -= self.take(precedence, usize::try_from(bytes).unwrap_or(usize::MAX)).await? as u64;
        }
        Ok(())
    }

    async fn take(&self, precedence: Precedence, bytes: usize) -> Result<usize, Lost> {
        if bytes == 0 {
            return Ok(0);
        }
        let granted = self.environment.budget.take(precedence, bytes as u64).await.map_err(Lost::NotSent)?;
        assert!((1..=bytes as u64).contains(&granted), "a budget grants something, and no more than was asked for");
        self.environment.metrics.microsoft_sent_bytes_total.add((precedence,), granted);
        Ok(usize::try_from(granted).expect("no more than was asked for"))
    }

    fn note_skew(&self, headers: &HeaderMap) {
        let date =
            headers.get(header::DATE).and_then(|v| v.to_str().ok()).and_then(|v| httpdate::parse_http_date(v).ok());
        let Some(date) = date.and_then(|d| d.duration_since(std::time::UNIX_EPOCH).ok()) else { return };
        let ours = self.environment.clock.now().0.div_euclid(1000);
        let ahead = i64::try_from(date.as_secs()).unwrap_or(i64::MAX).saturating_sub(ours).max(NO_SKEW + 1);
        self.skew_s.store(ahead, Ordering::Relaxed);
        self.environment.metrics.microsoft_clock_ahead_seconds.set((), ahead as f64);
        if ahead.unsigned_abs() > SKEW_MAX.as_secs() {
            let side = if ahead > 0 { "behind" } else { "ahead of" };
            let text =
                format!("this node's clock is {} s {side} Microsoft's; tokens may be refused", ahead.unsigned_abs());
            self.environment
                .health
                .report(CLOCK_CHECK, Verdict::degraded(text, "set the clock; check its time source"));
        } else {
            self.environment.health.report(CLOCK_CHECK, Verdict::ok("this node's clock agrees with Microsoft's"));
        }
    }
}

fn client(settings: &GraphSettings) -> Result<reqwest::Client, SettingsError> {
    let mut builder = reqwest::Client::builder()
        .user_agent(USER_AGENT)
        .https_only(true)
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .connect_timeout(CONNECT_MAX)
        .pool_idle_timeout(IDLE_MAX)
        .pool_max_idle_per_host(4)
        .no_proxy();
    if let Some(roots) = &settings.roots {
        let made = roots.iter().map(|der| reqwest::Certificate::from_der(der)).collect::<Result<Vec<_>, _>>();
        let unusable = |e: reqwest::Error| SettingsError { key: "roots_file", problem: told(&e) };
        builder = builder.tls_certs_only(made.map_err(unusable)?);
    }
    if let Some(proxy) = &settings.proxy {
        let unusable = |e: reqwest::Error| SettingsError { key: "proxy", problem: told(&e) };
        builder = builder.proxy(reqwest::Proxy::all(proxy.clone()).map_err(unusable)?);
    }
    builder
        .build()
        .map_err(|e| SettingsError { key: "roots_file", problem: format!("TLS cannot be set up: {}", told(&e)) })
}

/// Decoration that SharePoint asks of programs: without it they are throttled earlier.
const USER_AGENT: &str = concat!("NONISV|Holdfast|Holdfast/", env!("CARGO_PKG_VERSION"));

/// What the head takes: the request line, each header with its separators, and what lies below.
fn head_bytes(out: &Out) -> u64 {
    let headers: usize = out.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    let line = out.method.as_str().len() + out.url.as_str().len() + USER_AGENT.len() + 40;
    (headers + line) as u64 + REQUEST_OVERHEAD_BYTES
}

fn lost(error: &reqwest::Error, progress: &Progress) -> Lost {
    if let Some(held) = progress.held() {
        // The head is out: the other side saw the beginning of a request and no end.
        return Lost::Unknown(held.to_string());
    }
    if error.is_connect() || error.is_builder() {
        return Lost::NotSent(HeldBecause::Unreachable(told(error)));
    }
    Lost::Unknown(told(error))
}

/// The error with its causes, without the address: it may be a secret.
fn told(error: &reqwest::Error) -> String {
    let mut text = String::new();
    let mut cause: Option<&dyn std::error::Error> = std::error::Error::source(error);
    while let Some(e) = cause {
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&e.to_string());
        cause = e.source();
    }
    if text.is_empty() { "the request failed".to_owned() } else { text }
}

/// When a piece was last handed to the connection.
#[derive(Default)]
struct Progress {
    pieces: AtomicU64,
    waits_for_budget: AtomicU64,
    held: Mutex<Option<HeldBecause>>,
}

impl Progress {
    fn held(&self) -> Option<HeldBecause> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Completes when nothing moved for [`SILENCE_MAX`]. Waiting for the budget is no silence.
    async fn stalled(&self) {
        loop {
            let before = self.pieces.load(Ordering::Relaxed);
            tokio::time::sleep(SILENCE_MAX).await;
            if self.pieces.load(Ordering::Relaxed) == before && self.waits_for_budget.load(Ordering::Relaxed) == 0 {
                return;
            }
        }
    }
}

/// A body that leaves in the pieces that the budget grants.
struct Paced {
    body: Bytes,
    granted: usize,
    precedence: Precedence,
    budget: Arc<dyn Budget>,
    metrics: Arc<Metrics>,
    progress: Arc<Progress>,
    asking: Mutex<Option<BoxFuture<'static, Result<u64, HeldBecause>>>>,
}

impl Paced {
    fn new(
        body: Bytes,
        granted: usize,
        precedence: Precedence,
        environment: &GraphEnvironment,
        progress: Arc<Progress>,
    ) -> Self {
        let budget = Arc::clone(&environment.budget);
        let metrics = Arc::clone(&environment.metrics);
        Self { body, granted, precedence, budget, metrics, progress, asking: Mutex::new(None) }
    }

    fn ask(&self) -> BoxFuture<'static, Result<u64, HeldBecause>> {
        let (budget, precedence) = (Arc::clone(&self.budget), self.precedence);
        let bytes = self.body.len().min(PIECE_BYTES) as u64;
        self.progress.waits_for_budget.store(1, Ordering::Relaxed);
        Box::pin(async move { budget.take(precedence, bytes).await })
    }
}

impl Body for Paced {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = &mut *self;
        if this.body.is_empty() {
            return Poll::Ready(None);
        }
        if this.granted == 0 {
            let fresh = this.asking.lock().unwrap_or_else(PoisonError::into_inner).take();
            let mut asking = fresh.unwrap_or_else(|| this.ask());
            match asking.as_mut().poll(cx) {
                Poll::Pending => {
                    *this.asking.lock().unwrap_or_else(PoisonError::into_inner) = Some(asking);
                    return Poll::Pending;
                }
                Poll::Ready(answer) => {
                    this.progress.waits_for_budget.store(0, Ordering::Relaxed);
                    match answer {
                        Ok(granted) => {
                            this.metrics.microsoft_sent_bytes_total.add((this.precedence,), granted);
                            this.granted = usize::try_from(granted).unwrap_or(usize::MAX);
                        }
                        Err(held) => {
                            let text = held.to_string();
                            *this.progress.held.lock().unwrap_or_else(PoisonError::into_inner) = Some(held);
                            return Poll::Ready(Some(Err(io::Error::other(text))));
                        }
                    }
                }
            }
        }
        let piece = this.body.split_to(this.granted.min(this.body.len()));
        this.granted = 0;
        this.progress.pieces.fetch_add(1, Ordering::Relaxed);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.body.len() as u64)
    }
}
