//! The client of Microsoft Graph: one call, in its turn, with the right token, told apart by what came of it.

mod batch;
mod call;
mod pages;
mod reaching;
mod throttle;
mod upload;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use model::{Sensitive, UnixMillis};
use serde::Deserialize;
use telemetry::{MicrosoftDestination, MicrosoftOutcome, MicrosoftService};
use tokio::sync::Notify;
use tracing::{debug, info};
use url::Url;

pub use batch::{BATCH_MAX, BatchItem};
pub use call::{Acting, Answer, Call, CallBody, Failure, Refusal, RefusalKind, Retry, Scope};
pub use pages::{Page, Pages};
pub use upload::{
    DriveItem, FileFacts, FileHashes, PIECE_UNIT_BYTES, UploadPlan, UploadProgress, UploadSource, UploadState,
};

use self::reaching::{Gate, Reaching, service_of};
use self::throttle::{Admission, Outcome, Throttle, Ticket};
use crate::cloud::same_origin;
use crate::entra::{Entra, NoToken, Who, challenge};
use crate::environment::{GraphEnvironment, HeldBecause, RecordedRequest};
use crate::reach::Evidence;
use crate::settings::{GraphSettings, SettingsError};
use crate::transport::{Came, Lost, Out, Transport};

/// Largest answer that is read. A page of 999 users with every property asked for is below 2 MB.
const ANSWER_BYTES_MAX: usize = 8 * 1024 * 1024;

/// A call waits for its turn so long; after that the caller is told when to come again, and does something else meanwhile.
const WAIT_INSIDE_MAX: Duration = Duration::from_secs(10);

/// Times that one call is sent at most.
const ATTEMPTS_MAX: u32 = 4;

/// The client. Cheap to clone; clones share their limits.
#[derive(Clone)]
pub struct Graph(Arc<Inner>);

struct Inner {
    settings: GraphSettings,
    environment: GraphEnvironment,
    transport: Arc<Transport>,
    entra: Entra,
    throttle: Mutex<Throttle>,
    reaching: Reaching,
    /// Somebody left the queue.
    moved: Notify,
}

impl Graph {
    /// A client that has asked for nothing yet.
    ///
    /// # Errors
    /// When the certification authorities or the proxy of the settings are of no use.
    pub fn new(settings: &GraphSettings, environment: GraphEnvironment) -> Result<Self, SettingsError> {
        let transport = Arc::new(Transport::new(settings, environment.clone())?);
        let entra = Entra::new(settings, &environment, Arc::clone(&transport));
        let reaching = Reaching::new(settings.probe_every, Arc::clone(&transport), environment.clone());
        let settings = settings.clone();
        let throttle = Mutex::new(Throttle::default());
        Ok(Self(Arc::new(Inner { settings, environment, transport, entra, throttle, reaching, moved: Notify::new() })))
    }

    /// The client of Entra ID that this one gets its tokens from.
    pub fn entra(&self) -> &Entra {
        &self.0.entra
    }

    /// What it was made from.
    pub fn settings(&self) -> &GraphSettings {
        &self.0.settings
    }

    /// Wall time as Microsoft has it, as far as its answers told; this node's before the first of them.
    pub fn their_time(&self) -> UnixMillis {
        self.0.transport.their_time()
    }

    /// Messages that were posted to `channel` before this process began, by their times: Microsoft counts 3,000 a day.
    pub fn posted_before(&self, channel: &str, times: impl Iterator<Item = UnixMillis>) {
        let wall = self.0.environment.clock.now().0;
        let ages = times.map(|at| Duration::from_millis(u64::try_from(wall - at.0).unwrap_or(0)));
        self.throttle().posted_before(self.now(), channel, ages);
    }

    /// How long `n` calls like this one take at the paces that are kept, from a fresh start and with answers at once.
    pub fn time_for(&self, call: &Call, n: u32) -> Duration {
        throttle::time_for(call, n)
    }

    /// Makes one call: waits for its turn, gets a token, sends, and sends again where that is harmless.
    ///
    /// Cancelling it leaves open what a call with [`Retry::Once`] did.
    ///
    /// # Errors
    /// [`Failure`] says whether anything may have come of it.
    pub async fn call(&self, call: Call) -> Result<Answer, Failure> {
        let service = service_of(&call.scope);
        let ended = match self.0.reaching.gate(service) {
            Ok(()) => self.attempts(&call, service).await,
            Err(Gate::Down(why)) => Err(Failure::Held(HeldBecause::Unreachable(why))),
            Err(Gate::Until(until)) => Err(Failure::Throttled { until: self.wall(until) }),
        };
        let outcome = match &ended {
            Ok(_) => MicrosoftOutcome::Done,
            Err(Failure::Held(_)) => MicrosoftOutcome::Held,
            Err(Failure::Throttled { .. }) => MicrosoftOutcome::Throttled,
            Err(Failure::Refused(_)) => MicrosoftOutcome::Refused,
            Err(Failure::Unknown(_)) => MicrosoftOutcome::Unknown,
            Err(Failure::SignIn(_)) => MicrosoftOutcome::SignIn,
            Err(Failure::Broken(_)) => MicrosoftOutcome::Broken,
        };
        self.0.environment.metrics.microsoft_calls_total.inc((service, outcome));
        ended
    }

    /// Sends a call, as often as is harmless.
    async fn attempts(&self, call: &Call, service: MicrosoftService) -> Result<Answer, Failure> {
        let url = self.address(&call.path)?;
        let id = call.request_id().map_or_else(|| self.0.environment.uuid(), str::to_owned);
        let who = match &call.acting {
            Acting::App => Who::App,
            Acting::User(oid) => Who::person(oid),
        };
        let mut asked_for = None;
        let mut refreshed = false;
        let mut attempt = 0;
        loop {
            attempt += 1;
            let last = attempt >= ATTEMPTS_MAX;
            let place = self.turn(call, true).await?;
            let token = self.token(&who, call, asked_for.as_deref()).await?;
            let out = self.request(call, url.clone(), &token, &id, attempt)?;
            if let Some(recorder) = &self.0.environment.recorder {
                recorder(&recorded(call));
            }
            let came = match self.0.transport.send(out).await {
                Ok(came) if came.headers.contains_key("request-id") => came,
                // Neither success nor refusal by something that is not Graph means anything.
                Ok(came) => {
                    drop(place);
                    let why = format!("what answered with {} is not Graph", came.status.as_u16());
                    match self.lost(call, &id, Failure::Unknown(why), last || came.status.is_redirection()) {
                        Some(failure) => return Err(failure),
                        None => continue,
                    }
                }
                Err(Lost::NotSent(held)) => {
                    let failure = Failure::Held(held);
                    self.note_failure(&failure);
                    return Err(failure);
                }
                Err(Lost::Unknown(why)) => {
                    drop(place);
                    match self.lost(call, &id, Failure::Unknown(why), last) {
                        Some(failure) => return Err(failure),
                        None => continue,
                    }
                }
                Err(Lost::TooLarge(status)) => {
                    place.done(self.now(), Outcome::Answered);
                    return Err(Failure::Broken(format!(
                        "more than {ANSWER_BYTES_MAX} bytes with status {} (client-request-id {id})",
                        status.as_u16()
                    )));
                }
            };
            let status = came.status;
            let wait = retry_after(&came.headers, self.0.environment.clock.now());
            let jitter = self.0.environment.fraction();
            note(&came, &id, &call.method);
            self.0.reaching.note(MicrosoftDestination::Graph, Evidence::Good);
            self.0.reaching.note_service(service, !status.is_server_error());
            if status.is_success() || status.is_redirection() {
                place.done(self.now(), Outcome::Answered);
                if let Some(wait) = nothing_left(&came.headers) {
                    self.throttle().hold(self.now(), &call.scope, wait);
                }
                let Came { status, headers, body } = came;
                return Ok(Answer { status, headers, body, client_request_id: id });
            }
            match status.as_u16() {
                401 if !refreshed => {
                    // Refused before anything was done, so even a call that is made once may be made with another token.
                    place.done(self.now(), Outcome::Answered);
                    refreshed = true;
                    asked_for = challenge::challenge_in(&came.headers);
                    self.0.entra.discard(&who, &token).await;
                }
                429 | 509 => {
                    self.0.environment.metrics.microsoft_throttled_total.inc((service,));
                    let until = place.done(self.now(), Outcome::TooFast { retry_after: wait, jitter });
                    let until = until.unwrap_or_else(|| self.now());
                    if last || until > self.now() + WAIT_INSIDE_MAX {
                        return Err(Failure::Throttled { until: self.wall(until) });
                    }
                }
                500 | 502..=504 => {
                    let until = place.done(self.now(), Outcome::Ailing { retry_after: wait, jitter });
                    let until = until.unwrap_or_else(|| self.now());
                    if status == StatusCode::SERVICE_UNAVAILABLE {
                        self.0.transport.leave_connections();
                    }
                    let refusal = refusal(came, &id, wait);
                    match call.retry {
                        Retry::Once => return Err(Failure::Unknown(refusal.to_string())),
                        Retry::Safe if last => return Err(Failure::Refused(refusal)),
                        Retry::Safe if until > self.now() + WAIT_INSIDE_MAX => {
                            return Err(Failure::Throttled { until: self.wall(until) });
                        }
                        Retry::Safe => {}
                    }
                }
                _ => {
                    place.done(self.now(), Outcome::Answered);
                    return Err(Failure::Refused(refusal(came, &id, wait)));
                }
            }
        }
    }

    async fn token(&self, who: &Who, call: &Call, asked_for: Option<&str>) -> Result<Sensitive<String>, Failure> {
        let got = self.0.entra.token(who, call.precedence, asked_for).await;
        let reaching = &self.0.reaching;
        match &got {
            Ok(_) if *who == Who::App => reaching.note_sign_in(None),
            Err(NoToken::Refused(refusal)) if *who == Who::App => reaching.note_sign_in(Some(refusal)),
            Err(NoToken::Held(HeldBecause::Unreachable(why))) => {
                reaching.note(MicrosoftDestination::Entra, Evidence::Bad(why.clone()));
            }
            Ok(_) | Err(NoToken::Refused(_) | NoToken::Held(_) | NoToken::Broken(_)) => {}
        }
        Ok(got?)
    }

    /// A call was sent and nobody knows what came of it: `None` when it is to be sent again.
    fn lost(&self, call: &Call, id: &str, failure: Failure, last: bool) -> Option<Failure> {
        info!(client_request_id = id, method = %call.method, error = %failure, "a call to Graph got no answer");
        self.note_failure(&failure);
        match call.retry {
            Retry::Safe if !last => None,
            Retry::Safe | Retry::Once => Some(failure),
        }
    }

    /// Waits until the limits let `call` go, for a short while. `alone`: it is a request of its own, and not part of a batch.
    async fn turn(&self, call: &Call, alone: bool) -> Result<Place<'_>, Failure> {
        let began = self.now();
        let ticket = self.throttle().join(began, call, alone);
        let place = Place { graph: self, ticket: Some(ticket) };
        loop {
            let moved = self.0.moved.notified();
            let now = self.now();
            let admission = self.throttle().admit(now, ticket);
            match admission {
                Admission::Go => return Ok(place),
                Admission::At(at) if at > began + WAIT_INSIDE_MAX => {
                    return Err(Failure::Throttled { until: self.wall(at) });
                }
                Admission::At(at) => tokio::select! {
                    () = self.0.environment.timer.until(at) => {}
                    () = moved => {}
                },
            }
        }
    }

    fn request(
        &self,
        call: &Call,
        url: Url,
        token: &Sensitive<String>,
        id: &str,
        attempt: u32,
    ) -> Result<Out, Failure> {
        let mut headers = HeaderMap::new();
        let mut bearer = HeaderValue::try_from(format!("Bearer {}", token.0))
            .map_err(|_| Failure::Broken("the token is no header value".to_owned()))?;
        bearer.set_sensitive(true);
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        let body = match &call.body {
            CallBody::None => None,
            CallBody::Json(value) => {
                headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
                Some(Bytes::from(value.to_string()))
            }
            CallBody::Bytes { content_type, bytes } => {
                headers.insert(header::CONTENT_TYPE, content_type.clone());
                Some(bytes.clone())
            }
        };
        for (name, value) in &call.headers {
            headers.insert(name.clone(), value.clone());
        }
        headers.insert(header::AUTHORIZATION, bearer);
        headers.insert("client-request-id", HeaderValue::try_from(id).expect("a UUID is a header value"));
        if attempt > 1 {
            headers.insert("retry-attempt", HeaderValue::from(attempt - 1));
        }
        let (method, precedence) = (call.method.clone(), call.precedence);
        Ok(Out { method, url, headers, body, precedence, answer_bytes_max: ANSWER_BYTES_MAX })
    }

    /// The address of `path`, at the configured Graph and nowhere else.
    fn address(&self, path: &str) -> Result<Url, Failure> {
        let graph = &self.0.settings.hosts.graph;
        let text = format!("{}{VERSION}{path}", graph.as_str().trim_end_matches('/'));
        let url: Result<Url, _> = text.parse();
        match url {
            Ok(url) if path.starts_with('/') && same_origin(&url, graph) && url.path().starts_with(VERSION) => Ok(url),
            Ok(_) | Err(_) => {
                Err(Failure::Broken("the path of the call is none of Graph's; nothing was sent".to_owned()))
            }
        }
    }

    fn throttle(&self) -> MutexGuard<'_, Throttle> {
        // A holder that panicked left counts that are at worst a little too careful.
        self.0.throttle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.0.environment.timer.now()
    }

    /// Wall time of a moment of the timer.
    fn wall(&self, at: Duration) -> UnixMillis {
        let ahead = at.saturating_sub(self.now());
        UnixMillis(self.0.environment.clock.now().0 + i64::try_from(ahead.as_millis()).unwrap_or(i64::MAX / 2))
    }
}

impl fmt::Debug for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Graph").field("hosts", &self.0.settings.hosts).finish_non_exhaustive()
    }
}

/// The version of Graph that is used.
const VERSION: &str = "/v1.0";

/// A place in the queue, given back when it is dropped.
struct Place<'a> {
    graph: &'a Graph,
    ticket: Option<Ticket>,
}

impl Place<'_> {
    fn done(mut self, now: Duration, outcome: Outcome) -> Option<Duration> {
        let ticket = self.ticket.take()?;
        let until = self.graph.throttle().done(now, ticket, outcome);
        self.graph.0.moved.notify_waiters();
        until
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.graph.throttle().leave(ticket);
            self.graph.0.moved.notify_waiters();
        }
    }
}

impl From<NoToken> for Failure {
    fn from(failure: NoToken) -> Self {
        match failure {
            NoToken::Held(held) => Self::Held(held),
            NoToken::Refused(refusal) => Self::SignIn(refusal),
            NoToken::Broken(why) => Self::Broken(why),
        }
    }
}

/// How long a service asks to wait: seconds, which may have a fraction, or a date.
pub(crate) fn retry_after(headers: &HeaderMap, now: UnixMillis) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<f64>() {
        let wait = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::ZERO);
        return Some(ceil_millis(wait.min(WAIT_ASKED_MAX)));
    }
    let date = httpdate::parse_http_date(text).ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    // The date is by the service's clock, so the service's own reading is what it counts from.
    let own = headers.get(header::DATE).and_then(|v| v.to_str().ok()).and_then(|v| httpdate::parse_http_date(v).ok());
    let from = own.and_then(|d| d.duration_since(std::time::UNIX_EPOCH).ok());
    let from = from.unwrap_or_else(|| Duration::from_millis(u64::try_from(now.0).unwrap_or(0)));
    Some(date.saturating_sub(from).min(WAIT_ASKED_MAX))
}

/// SharePoint says how many resource units are left and when there are more: with none left nothing is asked before then.
fn nothing_left(headers: &HeaderMap) -> Option<Duration> {
    let number = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse::<u64>().ok();
    (number("ratelimit-remaining")? == 0).then(|| number("ratelimit-reset").map(Duration::from_secs)).flatten()
}

/// More than a day is a mistake.
const WAIT_ASKED_MAX: Duration = Duration::from_secs(24 * 3600);

fn ceil_millis(wait: Duration) -> Duration {
    Duration::from_millis(u64::try_from(wait.as_micros().div_ceil(1000)).unwrap_or(u64::MAX))
}

#[derive(Default, Deserialize)]
struct ErrorEnvelope {
    #[serde(default)]
    error: ErrorLevel,
}

#[derive(Default, Deserialize)]
struct ErrorLevel {
    code: Option<String>,
    message: Option<String>,
    #[serde(alias = "innererror", rename = "innerError")]
    inner: Option<Box<ErrorLevel>>,
    #[serde(rename = "request-id")]
    request_id: Option<String>,
}

/// Levels of an error that are read.
const LEVELS_MAX: usize = 8;

/// What a refusal says, from its body where that is Graph's, else from its status.
fn refusal(came: Came, id: &str, retry_after: Option<Duration>) -> Box<Refusal> {
    let top = serde_json::from_slice::<ErrorEnvelope>(&came.body).unwrap_or_default().error;
    let header_id = came.headers.get("request-id").and_then(|v| v.to_str().ok()).map(str::to_owned);
    let mut codes = Vec::new();
    let mut request_id = header_id;
    let mut level = Some(&top);
    while let Some(this) = level.filter(|_| codes.len() < LEVELS_MAX) {
        codes.extend(this.code.clone());
        request_id = request_id.or_else(|| this.request_id.clone());
        level = this.inner.as_deref();
    }
    let message: String = top.message.clone().unwrap_or_default().chars().take(MESSAGE_CHARS_MAX).collect();
    Box::new(Refusal {
        status: came.status,
        code: codes.last().cloned().unwrap_or_else(|| format!("HTTP{}", came.status.as_u16())),
        codes,
        message,
        request_id,
        client_request_id: id.to_owned(),
        retry_after,
        location: came.headers.get(header::LOCATION).and_then(|v| v.to_str().ok()).map(str::to_owned),
    })
}

/// Of a message, which is for people, so much is kept.
const MESSAGE_CHARS_MAX: usize = 500;

fn recorded(call: &Call) -> RecordedRequest {
    let (content_type, body) = match &call.body {
        CallBody::None => (None, Vec::new()),
        CallBody::Json(value) => (Some("application/json".to_owned()), value.to_string().into_bytes()),
        CallBody::Bytes { content_type, bytes } => (content_type.to_str().ok().map(str::to_owned), bytes.to_vec()),
    };
    RecordedRequest { method: call.method.clone(), path: call.path.clone(), content_type, body }
}

/// The ids that Microsoft's support asks for. Paths stay out: they hold people's ids.
fn note(came: &Came, id: &str, method: &Method) {
    let text = |name: &str| came.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or("none");
    debug!(
        client_request_id = id,
        request_id = text("request-id"),
        %method,
        status = came.status.as_u16(),
        from_graph = came.headers.contains_key("x-ms-ags-diagnostic"),
        "Graph answered"
    );
}
