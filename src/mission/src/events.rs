//! What clients must hear after a commit.
//!
//! The core hands each [`Broadcast`] to its [`EventSink`] in commit order, after the commit. Whether a value is
//! an object or a string that holds JSON follows the real server (reference 2.5); clients parse accordingly.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::Id;
use serde_json::{Map, Value};

/// Where broadcasts go; the WebSocket hub.
pub trait EventSink: Send + Sync {
    /// Takes one broadcast. Called with the store's writer held: must never block.
    fn publish(&self, broadcast: Broadcast);

    /// Some of this user's sessions ended (logout, revocation, deactivation): whoever serves one looks again
    /// whether it is still good. Must never block.
    fn sessions_ended(&self, user: Id) {
        let _ = user;
    }
}

/// A sink that drops everything, for tools and tests without clients.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoEvents;

impl EventSink for NoEvents {
    fn publish(&self, _: Broadcast) {}
}

/// One event and who gets it.
#[derive(Clone, Debug, PartialEq)]
pub struct Broadcast {
    /// Mattermost's name of the event, e.g. `posted`.
    pub event: &'static str,
    /// The payload that every recipient gets.
    pub data: Map<String, Value>,
    /// `broadcast.user_id`.
    pub user_id: Option<Id>,
    /// `broadcast.channel_id`.
    pub channel_id: Option<Id>,
    /// `broadcast.team_id`.
    pub team_id: Option<Id>,
    /// `broadcast.omit_users`.
    pub omit_users: Vec<Id>,
    /// `broadcast.omit_connection_id`: the connection of the client that caused it.
    pub omit_connection: Option<Id>,
    /// Who gets it, already worked out from the scope and the memberships at commit.
    pub to: Recipients,
    /// Fields added to `data` for single users, e.g. `mentions`.
    pub per_user: BTreeMap<Id, Map<String, Value>>,
}

/// Who gets a broadcast.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recipients {
    /// Every connection.
    All,
    /// Connections of these users. May be empty.
    Users(Arc<[Id]>),
}

impl Broadcast {
    fn new(event: &'static str, to: Recipients) -> Self {
        Self {
            event,
            data: Map::new(),
            user_id: None,
            channel_id: None,
            team_id: None,
            omit_users: Vec::new(),
            omit_connection: None,
            to,
            per_user: BTreeMap::new(),
        }
    }

    /// To every connection.
    pub fn to_all(event: &'static str) -> Self {
        Self::new(event, Recipients::All)
    }

    /// To one user's connections.
    pub fn to_user(event: &'static str, user: Id) -> Self {
        Self { user_id: Some(user), ..Self::new(event, Recipients::Users([user].into())) }
    }

    /// To the members of a channel.
    pub fn to_channel(event: &'static str, channel: Id, members: impl Into<Arc<[Id]>>) -> Self {
        Self { channel_id: Some(channel), ..Self::new(event, Recipients::Users(members.into())) }
    }

    /// To the members of a team.
    pub fn to_team(event: &'static str, team: Id, members: impl Into<Arc<[Id]>>) -> Self {
        Self { team_id: Some(team), ..Self::new(event, Recipients::Users(members.into())) }
    }

    /// Adds a field to the payload.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.data.insert(key.to_owned(), value.into());
        self
    }

    /// Adds a field whose value is JSON text, as most of Mattermost's payloads are.
    #[must_use]
    pub fn with_text<T: serde::Serialize>(self, key: &str, value: &T) -> Self {
        let text = serde_json::to_string(value).expect("API shapes have string keys only");
        self.with(key, text)
    }

    /// Leaves out one connection.
    #[must_use]
    pub fn omitting_connection(mut self, connection: Option<Id>) -> Self {
        self.omit_connection = connection;
        self
    }

    /// Leaves out these users' connections.
    #[must_use]
    pub fn omitting(mut self, user: Id) -> Self {
        self.omit_users.push(user);
        self
    }
}
