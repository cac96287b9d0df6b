//! What really happened: an append-only log of committed effects, of requests, and of rules that were broken.
//!
//! Tests assert on this and not on what a client believes. Nothing is ever taken out of it.

use serde::Serialize;
use serde_json::Value;

use crate::clock::Millis;

/// What was committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs, reason = "each name says it")]
pub enum What {
    TokenIssued,
    SignedIn,
    TeamCreated,
    ChannelCreated,
    ChannelChanged,
    ChannelDeleted,
    ChatCreated,
    MemberAdded,
    MigrationStarted,
    MigrationCompleted,
    MessagePosted,
    MessageEdited,
    MessageDeleted,
    MessageRestored,
    ReactionSet,
    ReactionUnset,
    NotificationSent,
    AppInstalled,
    TabAdded,
    FolderCreated,
    FileWritten,
    ItemChanged,
    ItemDeleted,
    UploadStarted,
    UploadCancelled,
    MailSent,
    MailCreated,
    MailChanged,
    MailDeleted,
    MailFolderCreated,
    EventCreated,
    ListCreated,
    ListItemCreated,
    ListItemChanged,
    ListItemDeleted,
    PlannerCreated,
    PlannerChanged,
    PlannerDeleted,
}

/// One committed effect.
#[derive(Clone, Debug, Serialize)]
pub struct Effect {
    /// Position in the log, from 1.
    pub seq: u64,
    /// Simulated time.
    pub at_ms: Millis,
    /// What it is.
    pub what: What,
    /// Client id of the app that did it.
    pub app: String,
    /// Object id of the user it was done for; `None` for an app alone.
    pub user: Option<String>,
    /// Where: a channel `team/channel`, a mailbox, a drive with its path.
    pub place: String,
    /// Id that the service gave.
    pub id: String,
    /// `request-id` of the answer.
    pub request_id: String,
    /// `client-request-id` of the request; empty if it had none.
    pub client_request_id: String,
    /// The state afterwards, as far as it matters.
    pub detail: Value,
}

/// One request that arrived, whatever became of it.
#[derive(Clone, Debug, Serialize)]
pub struct Seen {
    /// Simulated time of arrival.
    pub at_ms: Millis,
    /// `login`, `graph`, `upload` or `abroad`.
    pub host: &'static str,
    /// HTTP method.
    pub method: String,
    /// Path template where one is known, else the path; never a query, which may hold secrets.
    pub path: String,
    /// Status that was answered; 0 where the connection was cut instead.
    pub status: u16,
    /// `client-request-id`, empty if none.
    pub client_request_id: String,
    /// Bytes of the request's body.
    pub body_bytes: usize,
    /// The failure that was injected, by name.
    pub failure: Option<String>,
}

/// A rule that nobody may break.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Rule {
    /// A request does not fit the OpenAPI subset.
    RequestOutsideContract,
    /// An answer of the simulator itself does not fit it.
    AnswerOutsideContract,
    /// A request for what Graph does not have.
    UnknownOperation,
    /// A request for what Graph has and the simulator has not.
    NotSimulated,
    /// A token reached a host that is none of Microsoft's.
    TokenAbroad,
    /// `Authorization` on an upload URL, which carries its own secret.
    AuthorizationOnUpload,
    /// A request went on before the `Retry-After` that its scope was given had passed.
    RetriedTooEarly,
}

/// A rule that was broken.
#[derive(Clone, Debug, Serialize)]
pub struct Violation {
    /// Simulated time.
    pub at_ms: Millis,
    /// Which.
    pub rule: Rule,
    /// By what.
    pub text: String,
}

/// Everything that is known.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Oracle {
    /// Committed effects, in order.
    pub effects: Vec<Effect>,
    /// Requests, in the order of their answers.
    pub requests: Vec<Seen>,
    /// Broken rules.
    pub violations: Vec<Violation>,
    /// Requests and answers that were held against the OpenAPI subset; 0 where it is absent.
    pub validated: u64,
}

impl Oracle {
    /// The effects of one kind, in order.
    pub fn of(&self, what: What) -> impl Iterator<Item = &Effect> {
        self.effects.iter().filter(move |effect| effect.what == what)
    }

    pub(crate) fn violated(&mut self, at_ms: Millis, rule: Rule, text: String) {
        self.violations.push(Violation { at_ms, rule, text });
    }
}
