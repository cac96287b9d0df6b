//! One request as its handler sees it: who asks, which parameters, which body.

use bytes::Bytes;
use http::{HeaderMap, header};
use model::Id;
use serde::de::DeserializeOwned;

use super::query::Query;
use super::{ApiState, PER_PAGE_DEFAULT, PER_PAGE_MAX};
use crate::Core;
use crate::error::{AppError, AppResult};
use crate::types::Session;

/// A request past routing, authentication and the body limit. Handlers run on a blocking thread.
pub(crate) struct Call {
    pub(crate) state: ApiState,
    pub(crate) headers: HeaderMap,
    /// Who asks, as an address; empty when it is not known.
    pub(crate) address: String,
    pub(crate) query: Query,
    pub(crate) params: Vec<(String, String)>,
    pub(crate) session: Option<Session>,
    pub(crate) body: Bytes,
}

impl Call {
    /// The domain operations.
    pub(crate) fn core(&self) -> &Core {
        self.state.core()
    }

    /// The caller's session.
    ///
    /// # Errors
    /// Only on public routes: nobody is logged in.
    pub(crate) fn session(&self) -> AppResult<&Session> {
        self.session.as_ref().ok_or_else(|| AppError::session_expired("http"))
    }

    /// The caller.
    pub(crate) fn me(&self) -> AppResult<Id> {
        Ok(self.session()?.user_id)
    }

    /// A text part of the path, decoded.
    pub(crate) fn text(&self, name: &str) -> &str {
        self.params.iter().find(|(k, _)| k == name).map_or("", |(_, v)| v)
    }

    /// An id in the path.
    pub(crate) fn id(&self, name: &str) -> AppResult<Id> {
        self.text(name).parse().map_err(|_| AppError::url_param("http", name))
    }

    /// A user in the path; `me` is the caller.
    pub(crate) fn user(&self) -> AppResult<Id> {
        match self.text("user_id") {
            "me" => self.me(),
            _ => self.id("user_id"),
        }
    }

    /// A user in the path that the caller may act for: themselves, or anybody for a system administrator.
    pub(crate) fn own_user(&self) -> AppResult<Id> {
        let user = self.user()?;
        let session = self.session()?;
        if user == session.user_id || session.is_system_admin() {
            return Ok(user);
        }
        Err(AppError::permissions("http", "edit_other_users"))
    }

    /// An optional id in the query; malformed counts as a bad parameter.
    pub(crate) fn query_id(&self, name: &str) -> AppResult<Option<Id>> {
        let parse = |text: &str| text.parse().map_err(|_| AppError::url_param("http", name));
        self.query.get(name).map(parse).transpose()
    }

    /// The client's own WebSocket connection, as it names it: it need not hear of what it does.
    pub(crate) fn connection(&self) -> Option<Id> {
        self.headers.get("connection-id")?.to_str().ok()?.parse().ok()
    }

    /// `page`, from 0.
    pub(crate) fn page(&self) -> u32 {
        self.query.number("page").and_then(|n| u32::try_from(n).ok()).unwrap_or(0)
    }

    /// `per_page`, clamped.
    pub(crate) fn per_page(&self) -> u32 {
        self.limit("per_page")
    }

    /// A page-like limit: nonsense is the default, too much is the maximum.
    pub(crate) fn limit(&self, name: &str) -> u32 {
        let asked = self.query.number(name).and_then(|n| u32::try_from(n).ok());
        asked.unwrap_or(PER_PAGE_DEFAULT).min(PER_PAGE_MAX)
    }

    /// The body as `T`. `what` names it in the error.
    pub(crate) fn json<T: DeserializeOwned>(&self, what: &str) -> AppResult<T> {
        serde_json::from_slice(&self.body).map_err(|e| AppError::body_param("http", what).detail(e))
    }

    /// The body as a list of ids: sorted and without repetition.
    pub(crate) fn ids(&self, what: &str) -> AppResult<Vec<Id>> {
        let mut ids: Vec<Id> = self.json(what)?;
        if ids.is_empty() {
            return Err(AppError::body_param("http", what));
        }
        ids.sort_unstable();
        ids.dedup();
        Ok(ids)
    }

    /// The body as a list of texts: sorted and without repetition.
    pub(crate) fn texts(&self, what: &str) -> AppResult<Vec<String>> {
        let mut texts: Vec<String> = self.json(what)?;
        if texts.is_empty() {
            return Err(AppError::body_param("http", what));
        }
        texts.sort_unstable();
        texts.dedup();
        Ok(texts)
    }

    /// A header as text, or "".
    pub(crate) fn header(&self, name: header::HeaderName) -> &str {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or("")
    }
}
