//! Errors as Mattermost clients expect them.

use std::borrow::Cow;

use serde::Serialize;

/// Mattermost's AppError. Clients branch on `id` and `status_code`; `message` is for people.
///
/// The http layer adds `request_id`; `where_` is for the log only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{where_}: {message} ({id}) {detailed_error}")]
pub struct AppError {
    /// Stable id, e.g. `api.context.permissions.app_error`.
    pub id: Cow<'static, str>,
    /// One English sentence.
    pub message: Cow<'static, str>,
    /// For developers; empty in answers to clients unless configured.
    pub detailed_error: String,
    /// HTTP status.
    pub status_code: u16,
    /// Function that failed.
    #[serde(skip)]
    pub where_: &'static str,
}

/// Result of every domain operation.
pub type AppResult<T> = Result<T, AppError>;

impl AppError {
    /// An error with this id.
    pub fn new(
        where_: &'static str,
        id: impl Into<Cow<'static, str>>,
        message: impl Into<Cow<'static, str>>,
        status_code: u16,
    ) -> Self {
        Self { id: id.into(), message: message.into(), detailed_error: String::new(), status_code, where_ }
    }

    /// The same with a detail for the log.
    #[must_use]
    pub fn detail(mut self, detail: impl ToString) -> Self {
        self.detailed_error = detail.to_string();
        self
    }

    /// 400.
    pub fn bad(where_: &'static str, id: impl Into<Cow<'static, str>>, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(where_, id, message, 400)
    }

    /// 403: the session lacks `permission`.
    pub fn permissions(where_: &'static str, permission: &str) -> Self {
        Self::new(where_, "api.context.permissions.app_error", "You do not have the appropriate permissions.", 403)
            .detail(format!("permission={permission}"))
    }

    /// 400: a field of the body is missing or malformed.
    pub fn body_param(where_: &'static str, name: &str) -> Self {
        Self::new(
            where_,
            "api.context.invalid_body_param.app_error",
            format!("Invalid or missing {name} in request body."),
            400,
        )
    }

    /// 400: a part of the URL is malformed.
    pub fn url_param(where_: &'static str, name: &str) -> Self {
        Self::new(
            where_,
            "api.context.invalid_url_param.app_error",
            format!("Invalid or missing {name} parameter in request URL."),
            400,
        )
    }

    /// 404 with the id that the real server gives for this object.
    pub fn not_found(where_: &'static str, id: &'static str) -> Self {
        Self::new(where_, id, "The requested object was not found.", 404)
    }

    /// 401: no session, or an expired one.
    pub fn session_expired(where_: &'static str) -> Self {
        Self::new(
            where_,
            "api.context.session_expired.app_error",
            "Invalid or expired session, please login again.",
            401,
        )
    }

    /// 500: storage failed; nothing was changed.
    pub fn storage(where_: &'static str, error: impl ToString) -> Self {
        Self::new(where_, "holdfast.store.app_error", "The store failed; nothing was changed.", 500).detail(error)
    }
}
