//! What is asked of Graph and what comes back.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use model::{Precedence, UnixMillis};
use serde::de::DeserializeOwned;

use crate::entra::{Advice, EntraError};
use crate::environment::HeldBecause;

/// One request to Graph.
#[derive(Clone, Debug)]
pub struct Call {
    /// The method.
    pub method: Method,
    /// Path and query after `/v1.0`, percent-encoded, e.g. `/users?$select=id`.
    pub path: String,
    /// Headers besides those that every request has.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The body.
    pub body: CallBody,
    /// On whose behalf.
    pub acting: Acting,
    /// What a refusal for going too fast pauses.
    pub scope: Scope,
    /// How urgent the bytes are.
    pub precedence: Precedence,
    /// What may be done when the outcome is lost.
    pub retry: Retry,
}

impl Call {
    /// A read by the application, repeated when it is lost.
    pub fn get(path: impl Into<String>, scope: Scope, precedence: Precedence) -> Self {
        let (method, body) = (Method::GET, CallBody::None);
        Self {
            method,
            path: path.into(),
            headers: Vec::new(),
            body,
            acting: Acting::App,
            scope,
            precedence,
            retry: Retry::Safe,
        }
    }
}

impl Call {
    /// The same call under an id that the caller noted before; otherwise each call gets one of its own. Graph does not tell
    /// repetitions by it, Microsoft's support finds them by it.
    ///
    /// # Panics
    /// When the id is not printable ASCII.
    #[must_use]
    pub fn with_request_id(mut self, id: &str) -> Self {
        let value = HeaderValue::try_from(id).expect("an id of printable characters is a header value");
        self.headers.push((REQUEST_ID, value));
        self
    }

    pub(crate) fn request_id(&self) -> Option<&str> {
        self.headers.iter().find(|(name, _)| *name == REQUEST_ID).and_then(|(_, value)| value.to_str().ok())
    }
}

const REQUEST_ID: HeaderName = HeaderName::from_static("client-request-id");

/// Body of a [`Call`].
#[derive(Clone, Debug)]
pub enum CallBody {
    /// None.
    None,
    /// JSON.
    Json(serde_json::Value),
    /// Anything else.
    Bytes {
        /// MIME type.
        content_type: HeaderValue,
        /// The bytes.
        bytes: Bytes,
    },
}

/// On whose behalf a call is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Acting {
    /// The application itself.
    App,
    /// A person who signed in here, by Entra's object id.
    User(String),
}

/// What Graph counts a call against, and what is paused when it goes too fast.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// A channel of a team.
    Channel {
        /// Id of the team.
        team: String,
        /// Id of the channel.
        channel: String,
    },
    /// A chat.
    Chat(String),
    /// The mailbox of a person.
    Mailbox(String),
    /// A drive or site.
    Drive(String),
    /// Users and groups.
    Directory,
    /// Activity notifications.
    Notifications,
    /// Planner.
    Planner,
    /// Everything else.
    Tenant,
}

/// What may be done when nobody knows whether a call took effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// It may be repeated: reads, and writes that set a state.
    Safe,
    /// It may not: an unknown outcome comes back as [`Failure::Unknown`] and the ledger decides.
    Once,
}

/// What Graph answered: 2xx, or 3xx with a `Location` that is not followed.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Status.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// Body, capped.
    pub body: Bytes,
    /// The id that was sent along, for Microsoft's support.
    pub client_request_id: String,
}

impl Answer {
    /// The body as JSON.
    ///
    /// # Errors
    /// [`Failure::Broken`] when it is something else.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_slice(&self.body)
            .map_err(|e| Failure::Broken(format!("{e} (client-request-id {})", self.client_request_id)))
    }
}

/// A call that was not answered with success.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Failure {
    /// Nothing was sent.
    #[error(transparent)]
    Held(HeldBecause),
    /// Its scope is paused or at its limit; nothing came of it.
    #[error("held back by the limits of Microsoft 365 until {} (ms since 1970); nothing came of it", until.0)]
    Throttled {
        /// When it may be asked again.
        until: UnixMillis,
    },
    /// Graph refused it; nothing came of it.
    #[error(transparent)]
    Refused(Box<Refusal>),
    /// It may have been committed.
    #[error("the outcome is not known: {0}; the ledger looks before anything is sent again")]
    Unknown(String),
    /// There is no token for it; nothing was sent.
    #[error(transparent)]
    SignIn(Box<EntraError>),
    /// The answer is not understood.
    #[error("the answer is not understood: {0}")]
    Broken(String),
}

impl Failure {
    /// What the operator should do.
    pub fn next_step(&self) -> &'static str {
        match self {
            Self::Held(HeldBecause::Emission) => "set emission control to normal: `holdfast link resume`",
            Self::Held(HeldBecause::Unreachable(_)) => {
                "nothing: it is sent once Microsoft 365 is reachable; `holdfast status` shows the state"
            }
            Self::Held(HeldBecause::OverBudget) => "raise the budget, or wait for its next day",
            Self::Throttled { .. } => "nothing: it is sent when the limit allows",
            Self::Refused(refusal) => refusal.kind().next_step(),
            Self::Unknown(_) => "nothing: the ledger finds out what became of it",
            Self::SignIn(refusal) => match refusal.advice {
                Advice::Retry => "nothing: it is tried again",
                Advice::AskAPerson => "run `holdfast m365 sign-in`, or have an administrator consent",
                Advice::FixConfiguration => "correct section [microsoft], then restart the node",
            },
            Self::Broken(_) => "report it with the client-request-id; nothing is lost",
        }
    }
}

/// A refusal by Graph. Nothing came of the call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Status.
    pub status: StatusCode,
    /// Innermost code that Graph gave; decides, never the message.
    pub code: String,
    /// Codes from the outside in.
    pub codes: Vec<String>,
    /// Graph's words, for people.
    pub message: String,
    /// Graph's id of the request.
    pub request_id: Option<String>,
    /// Ours.
    pub client_request_id: String,
    /// Asked to wait for so long.
    pub retry_after: Option<Duration>,
    /// Where Graph points to, such as a delta link that begins anew.
    pub location: Option<String>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let request = self.request_id.as_deref().unwrap_or("none");
        write!(
            f,
            "Graph refused with {} {}: {} (request-id {request}, client-request-id {}); nothing came of it",
            self.status.as_u16(),
            self.code,
            self.message,
            self.client_request_id
        )
    }
}

impl std::error::Error for Refusal {}

impl Refusal {
    /// Is `code` among the codes, outer or inner? Graph spells some with a capital and some without.
    pub fn has_code(&self, code: &str) -> bool {
        self.codes.iter().any(|c| c.eq_ignore_ascii_case(code))
    }

    /// What sort of refusal it is.
    pub fn kind(&self) -> RefusalKind {
        match self.status.as_u16() {
            401 => RefusalKind::NotSignedIn,
            402 | 403 => RefusalKind::Forbidden,
            404 => RefusalKind::NotFound,
            409 => RefusalKind::Conflict,
            410 => RefusalKind::Gone,
            412 => RefusalKind::Stale,
            413 => RefusalKind::TooLarge,
            416 => RefusalKind::Range,
            423 => RefusalKind::Locked,
            507 => RefusalKind::NoRoom,
            424 => RefusalKind::Dependency,
            405 | 501 => RefusalKind::NotOffered,
            408 | 429 | 500..=599 => RefusalKind::Passing,
            _ => RefusalKind::Invalid,
        }
    }
}

/// Sorts of refusal, by what can be done about them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalKind {
    /// 401 although the token is fresh.
    NotSignedIn,
    /// A permission or membership is missing.
    Forbidden,
    /// It is not there, or not yet.
    NotFound,
    /// It is there already, or something of its name is.
    Conflict,
    /// It was there, such as an old delta link.
    Gone,
    /// It has changed since it was read.
    Stale,
    /// Larger than what is taken.
    TooLarge,
    /// A piece of an upload that is not the next one.
    Range,
    /// Somebody holds it open.
    Locked,
    /// No quota is left.
    NoRoom,
    /// What it depended on in its batch failed.
    Dependency,
    /// This cloud does not offer it.
    NotOffered,
    /// A fault of the service that passes.
    Passing,
    /// The request itself is wrong.
    Invalid,
}

impl RefusalKind {
    /// What the operator should do.
    pub fn next_step(self) -> &'static str {
        match self {
            Self::NotSignedIn => "check that the application's permissions have an administrator's consent",
            Self::Forbidden => {
                "give the application the permission, or the person the membership; docs/microsoft365.md lists them"
            }
            Self::NotFound | Self::Gone => "check that what the mapping names still exists",
            Self::Conflict | Self::Stale | Self::Range | Self::Dependency => {
                "nothing: it is settled by looking at what is there"
            }
            Self::TooLarge => "send it as a file",
            Self::Locked => "close the file in Microsoft 365",
            Self::NoRoom => "raise the quota or free space in Microsoft 365",
            Self::NotOffered => "choose a delivery that this cloud offers",
            Self::Passing => "nothing: it is tried again",
            Self::Invalid => "report it with the client-request-id; it is kept aside",
        }
    }
}
