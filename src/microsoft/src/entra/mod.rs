//! Tokens of Entra ID: asked for when a call is about to be sent, kept until shortly before they end.
//!
//! ```text
//!  certificate or secret --client credentials--.
//!  refresh token (sealed file) ----------------+--> token endpoint --> access token (memory only)
//!  code of a browser or device ----------------'            `--> new refresh token (durable before the old one goes)
//! ```
//! Access tokens for Graph are opaque: nobody here looks into them.

mod assertion;
mod book;
pub(crate) mod challenge;
pub(crate) mod discovery;
mod error;
mod sign_in;
mod verify;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use model::{Precedence, Sensitive};
use serde::Deserialize;
use tracing::{debug, info, warn};
use url::Url;
use uuid::Uuid;

pub use book::SignedIn;
pub use error::{Advice, EntraError};
pub use sign_in::{BrowserSignIn, DeviceCode, insufficient_claims};
pub use verify::{Expected, Identity, VerifyError};

use self::book::Book;
use self::discovery::Endpoints;
use self::error::ErrorBody;
use self::verify::Keys;
use crate::environment::{GraphEnvironment, HeldBecause};
use crate::graph::retry_after;
use crate::settings::{Credential, GraphSettings};
use crate::transport::{Came, Lost, Out, Transport};

/// Largest answer of an endpoint for signing in. Tokens of people in many groups reach 30 kB.
const ANSWER_BYTES_MAX: usize = 256 * 1024;

/// Endpoints are asked for again after a day; they have not changed in years.
const ENDPOINTS_LIFE: Duration = Duration::from_secs(24 * 3600);

/// A token is not used in its last minutes: a request may wait for the link.
const TOKEN_MARGIN: Duration = Duration::from_secs(300);

/// After a refusal that only people can end, Entra is not asked again for so long: it answers a program that keeps asking
/// with AADSTS50196 and bars it.
const REFUSED_FOR: Duration = Duration::from_secs(300);

/// First wait after a passing fault; doubles up to [`FAULT_WAIT_MAX`], with full jitter.
const FAULT_WAIT: Duration = Duration::from_secs(2);
const FAULT_WAIT_MAX: Duration = Duration::from_secs(300);

/// Longest wait that Entra is believed to mean.
const ASKED_MAX: Duration = Duration::from_secs(3600);

/// No token of Entra lives longer (continuous access evaluation).
const LIFE_MAX: Duration = Duration::from_secs(28 * 3600);

/// For whom a token is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Who {
    /// The application itself.
    App,
    /// A person, by Entra's id.
    User(String),
}

impl Who {
    /// A person, by Entra's id in whatever spelling it was configured.
    pub(crate) fn person(oid: &str) -> Self {
        Self::User(Uuid::try_parse(oid).map_or_else(|_| oid.to_owned(), |oid| oid.as_hyphenated().to_string()))
    }
}

/// Does a request prove that it comes from the registered application?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proof {
    /// By the secret or the certificate.
    Credential,
    /// No: Entra refuses a proof with what a public client got, by device code or in a browser on the same machine.
    None,
}

/// There is no token. Nothing was sent to Graph.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoToken {
    /// Entra was not asked, or gave no answer.
    #[error(transparent)]
    Held(HeldBecause),
    /// Entra refused.
    #[error(transparent)]
    Refused(Box<EntraError>),
    /// What answered is not understood.
    #[error("the sign-in host's answer is not understood: {0}; nothing was sent")]
    Broken(String),
}

/// Asks Entra for tokens. Cheap to clone.
#[derive(Clone)]
pub struct Entra(Arc<Inner>);

struct Inner {
    settings: GraphSettings,
    environment: GraphEnvironment,
    transport: Arc<Transport>,
    book: Book,
    endpoints: Mutex<Option<(Endpoints, Duration)>>,
    slots: Mutex<BTreeMap<Who, Arc<tokio::sync::Mutex<Slot>>>>,
    keys: Keys,
}

/// What is known of one token. Locked while it is asked for, so that many calls ask once.
#[derive(Default)]
struct Slot {
    token: Option<Usable>,
    refused: Option<(Duration, NoToken)>,
    faults: u32,
}

struct Usable {
    token: Sensitive<String>,
    until: Duration,
}

/// What the token endpoint gave.
#[derive(Deserialize)]
pub(crate) struct Granted {
    pub(crate) access_token: String,
    #[serde(deserialize_with = "seconds")]
    pub(crate) expires_in: u64,
    pub(crate) refresh_token: Option<String>,
    pub(crate) id_token: Option<String>,
}

impl Entra {
    pub(crate) fn new(settings: &GraphSettings, environment: &GraphEnvironment, transport: Arc<Transport>) -> Self {
        let book = Book::at(environment.dir.join("people"), Arc::clone(&environment.vault));
        let keys = Keys::open(environment.dir.join("signing-keys"), Arc::clone(&environment.vault));
        Self(Arc::new(Inner {
            settings: settings.clone(),
            environment: environment.clone(),
            transport,
            book,
            endpoints: Mutex::new(None),
            slots: Mutex::new(BTreeMap::new()),
            keys,
        }))
    }

    /// Everyone on whose behalf this node may act.
    pub fn signed_in(&self) -> Vec<SignedIn> {
        self.0.book.list()
    }

    /// Forgets a person's refresh token, durably. Says whether there was one.
    ///
    /// # Errors
    /// When the file cannot be removed; the token is still there then.
    pub fn sign_out(&self, oid: &str) -> std::io::Result<bool> {
        let removed = self.0.book.remove(oid)?;
        self.slots().remove(&Who::person(oid));
        Ok(removed)
    }

    /// A token for Graph: the one at hand, else one asked for now. `challenge`: what Graph wanted the token to say when it
    /// refused the last one; that one is then not used again.
    pub(crate) async fn token(
        &self,
        who: &Who,
        precedence: Precedence,
        challenge: Option<&str>,
    ) -> Result<Sensitive<String>, NoToken> {
        let slot = Arc::clone(self.slots().entry(who.clone()).or_default());
        let mut slot = slot.lock().await;
        let now = self.0.environment.timer.now();
        if let Some((until, refusal)) = &slot.refused
            && now < *until
        {
            return Err(refusal.clone());
        }
        if challenge.is_none()
            && let Some(usable) = slot.token.as_ref().filter(|t| now < t.until)
        {
            return Ok(usable.token.clone());
        }
        slot.token = None;
        let asked = match who {
            Who::App => self.app_token(precedence, challenge).await,
            Who::User(oid) => self.user_token(oid, precedence, challenge).await,
        };
        let now = self.0.environment.timer.now();
        match asked {
            Ok(granted) => {
                let life = Duration::from_secs(granted.expires_in).min(LIFE_MAX);
                let margin = TOKEN_MARGIN.min(life / 4);
                let token = Sensitive(granted.access_token);
                *slot = Slot {
                    token: Some(Usable { token: token.clone(), until: now + life - margin }),
                    ..Slot::default()
                };
                Ok(token)
            }
            Err(failure) => {
                if let Some(wait) = self.patience(&failure, &mut slot.faults) {
                    slot.refused = Some((now + wait, failure.clone()));
                }
                Err(failure)
            }
        }
    }

    /// The token is not good any more whatever it says of itself: Graph refused it.
    pub(crate) async fn discard(&self, who: &Who, token: &Sensitive<String>) {
        let slot = self.slots().get(who).cloned();
        let Some(slot) = slot else { return };
        let mut slot = slot.lock().await;
        if slot.token.as_ref().is_some_and(|t| t.token == *token) {
            slot.token = None;
        }
    }

    /// For how long Entra is not asked again after `failure`.
    fn patience(&self, failure: &NoToken, faults: &mut u32) -> Option<Duration> {
        let refusal = match failure {
            // Nothing left the node, or nothing arrived: the state of the link decides when it is tried again.
            NoToken::Held(_) => return None,
            NoToken::Broken(_) => return Some(FAULT_WAIT),
            NoToken::Refused(refusal) => refusal,
        };
        match refusal.advice {
            Advice::Retry if refusal.code == Some(50196) => Some(REFUSED_FOR),
            Advice::Retry => {
                let ceiling = FAULT_WAIT.saturating_mul(1 << (*faults).min(8)).min(FAULT_WAIT_MAX);
                *faults = faults.saturating_add(1);
                let wait = ceiling.mul_f64(self.0.environment.fraction());
                Some(refusal.retry_after.map_or(wait, |asked| asked.max(wait)))
            }
            Advice::AskAPerson | Advice::FixConfiguration => Some(REFUSED_FOR),
        }
    }

    fn slots(&self) -> std::sync::MutexGuard<'_, BTreeMap<Who, Arc<tokio::sync::Mutex<Slot>>>> {
        self.0.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn app_token(&self, precedence: Precedence, challenge: Option<&str>) -> Result<Granted, NoToken> {
        if matches!(self.0.settings.credential, Credential::Public) {
            let advice = Advice::FixConfiguration;
            return Err(refused_here(
                advice,
                "no_credential",
                "set microsoft.secret_file, or certificate_file and key_file",
            ));
        }
        let form = vec![
            ("grant_type", "client_credentials".to_owned()),
            ("scope", self.0.settings.hosts.default_scope()),
            ("claims", challenge::merged(challenge)),
        ];
        self.grant(form, Proof::Credential, precedence).await
    }

    async fn user_token(&self, oid: &str, precedence: Precedence, challenge: Option<&str>) -> Result<Granted, NoToken> {
        let Some(person) = self.0.book.get(oid) else { return Err(nobody_signed_in(oid)) };
        let form = vec![
            ("grant_type", "refresh_token".to_owned()),
            ("refresh_token", person.refresh_token.0.clone()),
            ("scope", self.delegated_scope()),
            ("claims", challenge::merged(challenge)),
        ];
        let proof = if person.public { Proof::None } else { Proof::Credential };
        match self.grant(form, proof, precedence).await {
            Ok(granted) => {
                if let Some(token) = &granted.refresh_token {
                    let renewed = self.0.environment.clock.now();
                    let next = SignedIn { refresh_token: Sensitive(token.clone()), renewed, ..person.clone() };
                    match self.0.book.renew(&person, &next) {
                        Ok(true) => {}
                        Ok(false) => info!("a person signed out or in again while their token was renewed; that holds"),
                        Err(e) => {
                            warn!(error = %e, "a new refresh token could not be made durable; the one before it stays in use");
                        }
                    }
                }
                Ok(granted)
            }
            Err(NoToken::Refused(refusal)) => {
                if refusal.forget_refresh_token {
                    info!(code = refusal.code, "a person's sign-in has ended; their refresh token is forgotten");
                    if let Err(e) = self.0.book.end(&person) {
                        warn!(error = %e, "a refresh token that has ended could not be removed");
                    }
                }
                Err(NoToken::Refused(refusal))
            }
            Err(other) => Err(other),
        }
    }

    /// Everything that people consented to, and a refresh token.
    fn delegated_scope(&self) -> String {
        format!("{} openid profile offline_access", self.0.settings.hosts.default_scope())
    }

    /// One request to the token endpoint.
    pub(crate) async fn grant(
        &self,
        mut form: Vec<(&'static str, String)>,
        proof: Proof,
        precedence: Precedence,
    ) -> Result<Granted, NoToken> {
        let endpoint = self.endpoints(precedence).await?.token;
        form.push(("client_id", self.client()));
        match (&self.0.settings.credential, proof) {
            (Credential::Public, _) | (_, Proof::None) => {}
            (Credential::Secret(secret), Proof::Credential) => form.push(("client_secret", secret.0.clone())),
            (Credential::Certificate { certificate, key }, Proof::Credential) => {
                let now = self.0.transport.their_time();
                let jti = self.0.environment.uuid();
                let signed = assertion::assertion(certificate, &key.0, endpoint.as_str(), &self.client(), &jti, now);
                let signed =
                    signed.map_err(|e| NoToken::Broken(format!("the key of the certificate cannot sign: {e}")))?;
                form.push(("client_assertion_type", ASSERTION_TYPE.to_owned()));
                form.push(("client_assertion", signed));
            }
        }
        let came = self.post(endpoint, &form, precedence).await?;
        if came.status != StatusCode::OK {
            return Err(self.refusal(&came));
        }
        serde_json::from_slice(&came.body)
            .map_err(|e| NoToken::Broken(format!("no token in it ({})", e.classify_text())))
    }

    pub(crate) fn client(&self) -> String {
        self.0.settings.client.as_hyphenated().to_string()
    }

    pub(crate) fn tenant(&self) -> String {
        self.0.settings.tenant.as_hyphenated().to_string()
    }

    /// Sends a form. Retries nothing: every form may be sent again by whoever wants to.
    pub(crate) async fn post(
        &self,
        url: Url,
        form: &[(&'static str, String)],
        precedence: Precedence,
    ) -> Result<Came, NoToken> {
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        let id = self.0.environment.uuid();
        headers.insert("client-request-id", HeaderValue::try_from(&id).expect("a UUID is a header value"));
        let grant = form.iter().find(|(key, _)| *key == "grant_type").map_or("", |(_, value)| value.as_str());
        debug!(client_request_id = id, grant, "asking Entra ID");
        let out = Out {
            method: Method::POST,
            url,
            headers,
            body: Some(Bytes::from(body)),
            precedence,
            answer_bytes_max: ANSWER_BYTES_MAX,
        };
        self.0.transport.send(out).await.map_err(no_answer)
    }

    /// What a refusal of the token endpoint says.
    pub(crate) fn refusal(&self, came: &Came) -> NoToken {
        let transient = came.status.as_u16() == 429 || came.status.is_server_error();
        let body = match serde_json::from_slice::<ErrorBody>(&came.body) {
            Ok(body) => body,
            Err(_) if transient => ErrorBody::default(),
            Err(_) => {
                let status = came.status.as_u16();
                return NoToken::Broken(format!("status {status}, and the body is not one of Entra ID"));
            }
        };
        // Whoever answers in Entra's place, a proxy say, does not put it off for long.
        let wait_max = if body.error.is_empty() { REFUSED_FOR } else { ASKED_MAX };
        let wait = retry_after(&came.headers, self.0.environment.clock.now()).map(|wait| wait.min(wait_max));
        let refusal = body.judge(came.status.as_u16(), wait, self.0.transport.skew_seconds());
        debug!(code = refusal.code, error = refusal.error, correlation_id = refusal.correlation_id, "Entra ID refused");
        NoToken::Refused(Box::new(refusal))
    }

    /// The tenant's endpoints: known for a day, else asked for.
    pub(crate) async fn endpoints(&self, precedence: Precedence) -> Result<Endpoints, NoToken> {
        let now = self.0.environment.timer.now();
        let known = self.0.endpoints.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match known {
            Some((endpoints, at)) if now < at + ENDPOINTS_LIFE => Ok(endpoints),
            Some(_) | None => self.discover(precedence).await,
        }
    }

    /// Asks for the tenant's endpoints now: also what tells whether Entra is reachable.
    pub(crate) async fn discover(&self, precedence: Precedence) -> Result<Endpoints, NoToken> {
        let hosts = &self.0.settings.hosts;
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        let url = discovery::address(hosts, &self.tenant());
        let (method, body) = (Method::GET, None);
        let out = Out { method, url, headers, body, precedence, answer_bytes_max: ANSWER_BYTES_MAX };
        let came = self.0.transport.send(out).await.map_err(no_answer)?;
        let found = discovery::read(came.status, &came.headers, &came.body, hosts, &self.tenant());
        let endpoints = found.map_err(NoToken::Broken)?;
        let at = self.0.environment.timer.now();
        *self.0.endpoints.lock().unwrap_or_else(PoisonError::into_inner) = Some((endpoints.clone(), at));
        Ok(endpoints)
    }
}

impl fmt::Debug for Entra {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entra").field("tenant", &self.0.settings.tenant).finish_non_exhaustive()
    }
}

const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

fn nobody_signed_in(oid: &str) -> NoToken {
    let text = format!("nobody with the id {oid} has signed in at this node; run `holdfast m365 sign-in`");
    refused_here(Advice::AskAPerson, "not_signed_in", &text)
}

/// A refusal that does not need Entra.
fn refused_here(advice: Advice, error: &str, text: &str) -> NoToken {
    NoToken::Refused(Box::new(EntraError {
        advice,
        error: error.to_owned(),
        code: None,
        text: text.to_owned(),
        suberror: None,
        claims: None,
        correlation_id: None,
        retry_after: None,
        forget_refresh_token: false,
        clock_ahead_seconds: None,
    }))
}

/// A request for a token that got no answer may be sent again: nothing came of it that anybody holds.
fn no_answer(lost: Lost) -> NoToken {
    match lost {
        Lost::NotSent(held) => NoToken::Held(held),
        Lost::Unknown(why) => NoToken::Held(HeldBecause::Unreachable(why)),
        Lost::TooLarge(_) => NoToken::Broken(format!("more than {ANSWER_BYTES_MAX} bytes")),
    }
}

/// `expires_in` is a number in version 2 and text in some proxies' and older endpoints' answers.
fn seconds<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Number(u64),
        Text(String),
    }
    match Either::deserialize(deserializer)? {
        Either::Number(n) => Ok(n),
        Either::Text(text) => text.parse().map_err(serde::de::Error::custom),
    }
}

/// What is wrong with JSON, without any of its content: it may hold a token.
trait ClassifyText {
    fn classify_text(&self) -> String;
}

impl ClassifyText for serde_json::Error {
    fn classify_text(&self) -> String {
        format!("{:?} at column {}", self.classify(), self.column())
    }
}
