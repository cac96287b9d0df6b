//! The page that a host application (Teams, Outlook) shows in a tab, and the sign-in by what the host vouches for.
//!
//! ```text
//!  host --token for this site--> page.js --POST sign-in--> HostSignIn (whose token?) --> session, cookies --> web app
//!    `--no token, no answer--> page.js --local password--> the login of the API
//! ```
//!
//! Invariants
//! - Who a token names is decided by the [`HostSignIn`] given at the start and by nothing in the request.
//! - Nothing comes from another host: the host's library is served from a file of this machine.
//!
//! Sources: Microsoft Teams "Enable SSO for tab app"; Mattermost plugin ms-embedded, `MMEMBED`.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use axum::body::Body;
use http::header;
use model::Id;
use serde::Deserialize;

use super::call::Call;
use super::reply::Reply;
use super::routes::Streamed;
use super::{read_capped, token, users};
use crate::audits::Noted;
use crate::error::{AppError, AppResult};

const PAGE: &str = include_str!("tab/page.html");
const SCRIPT: &str = include_str!("tab/page.js");
const STYLE: &str = include_str!("tab/page.css");

/// Tokens of hosts are one to four kilobytes.
const BODY_BYTES_MAX: usize = 32 << 10;
/// The published library has 0.2 MB.
const LIBRARY_BYTES_MAX: u64 = 4 << 20;

/// Finds out whom a host application vouches for.
pub trait HostSignIn: Send + Sync {
    /// The user whom `token` names.
    fn user_of<'a>(&'a self, token: &'a str) -> Pin<Box<dyn Future<Output = Result<Id, HostRefusal>> + Send + 'a>>;
}

/// Why nobody is signed in by a host's token. The text is shown to the person.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostRefusal {
    /// The token is not for this site, forged or too old.
    #[error("the token is not accepted: {0}")]
    Invalid(String),
    /// The token is good, and nobody here belongs to it.
    #[error("the account is not known here: {0}")]
    Unknown(String),
    /// Whether it is good cannot be told now.
    #[error("the token cannot be looked at: {0}")]
    Unavailable(String),
}

/// What the tab is made from.
#[derive(Clone)]
pub struct Tab {
    /// The host's library (`MicrosoftTeams.min.js` of the package `@microsoft/teams-js`).
    pub library: PathBuf,
    /// Who the tokens are for.
    pub sign_in: Arc<dyn HostSignIn>,
}

impl std::fmt::Debug for Tab {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tab").field("library", &self.library).finish_non_exhaustive()
    }
}

fn tab(call: &Call) -> AppResult<&Tab> {
    call.state.tab().ok_or_else(|| {
        AppError::new("tab", "holdfast.tab.off.app_error", "This site has no tab for host applications.", 404)
    })
}

/// `GET /holdfast/tab`
pub(crate) fn page(call: &Call) -> AppResult<Reply> {
    tab(call)?;
    let ancestors = call.state.frame_ancestors();
    // Origins that are named whole: what the library is told to believe besides the hosts that it knows itself.
    let named: Vec<&str> = ancestors.split_whitespace().filter(|origin| !origin.contains('*')).collect();
    let hosts = serde_json::to_string(&named).unwrap_or_default();
    let page = PAGE
        .replace("{site}", &super::escape(&call.core().settings().site_name))
        .replace("{hosts}", &super::escape(&hosts));
    let policy = format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; \
         form-action 'self'; frame-ancestors 'self' {ancestors}"
    );
    let mut reply = Reply::bytes("text/html; charset=utf-8", page.into_bytes())
        .with(header::CONTENT_SECURITY_POLICY, policy.trim_end())
        .with(header::CACHE_CONTROL, "no-cache");
    // From now on this browser's sessions are for a frame within another site.
    reply.headers.extend(token::embed(&call.headers).map(|cookie| (header::SET_COOKIE, cookie)));
    Ok(reply)
}

/// `GET /holdfast/tab/page.js`
pub(crate) fn script(call: &Call) -> AppResult<Reply> {
    tab(call)
        .map(|_| Reply::bytes("text/javascript; charset=utf-8", SCRIPT.into()).with(header::CACHE_CONTROL, "no-cache"))
}

/// `GET /holdfast/tab/page.css`
pub(crate) fn style(call: &Call) -> AppResult<Reply> {
    tab(call).map(|_| Reply::bytes("text/css; charset=utf-8", STYLE.into()).with(header::CACHE_CONTROL, "no-cache"))
}

/// `GET /holdfast/tab/host.js`: the host's library.
pub(crate) fn library(call: &Call) -> AppResult<Reply> {
    let path = &tab(call)?.library;
    let unreadable = |why: String| {
        tracing::warn!(path = %path.display(), why, "the library of the tab cannot be read; people sign in with local passwords");
        AppError::new("tab", "holdfast.tab.library.app_error", "The library of the host application is missing.", 404)
    };
    let size = std::fs::metadata(path).map_err(|e| unreadable(e.to_string()))?.len();
    if size > LIBRARY_BYTES_MAX {
        return Err(unreadable(format!("{size} bytes are more than {LIBRARY_BYTES_MAX}")));
    }
    let bytes = std::fs::read(path).map_err(|e| unreadable(e.to_string()))?;
    Ok(Reply::bytes("text/javascript; charset=utf-8", bytes).with(header::CACHE_CONTROL, "max-age=3600, public"))
}

#[derive(Deserialize)]
struct Vouched {
    token: String,
}

/// `POST /holdfast/tab/sign-in` `{"token"}`: 200 with the cookies of a session.
pub(crate) fn sign_in(call: Call, body: Body) -> Streamed {
    Box::pin(async move {
        let sign_in = Arc::clone(&tab(&call)?.sign_in);
        // Else a page of somebody else could sign a person in as somebody else.
        if !token::sent_by_script(&call.headers) {
            return Err(AppError::session_expired("tab").detail("cross-site request"));
        }
        let body = read_capped(body, BODY_BYTES_MAX).await?;
        let Vouched { token } =
            serde_json::from_slice(&body).map_err(|e| AppError::body_param("tab", "token").detail(e))?;
        let named = sign_in.user_of(&token).await;
        let state = call.state.clone();
        state.blocking(move || start(&call, named)).await
    })
}

fn start(call: &Call, named: Result<Id, HostRefusal>) -> AppResult<Reply> {
    let outcome = match named {
        Ok(user) => call.core().login_vouched_for(user, &users::client_info(call, "")),
        Err(refusal) => Err(refused(&refusal)),
    };
    let (by, extra) = match &outcome {
        Ok((user, session)) => (Some(session), format!("success username={}", user.username)),
        Err(error) => (None, format!("fail {}", error.id)),
    };
    let noted = Noted { by, action: "/holdfast/tab/sign-in", extra: &extra, address: &call.address };
    if let Err(error) = call.core().note_audit(&noted) {
        tracing::warn!(%error, "the audit of a sign-in could not be written");
    }
    let (_, session) = outcome?;
    let mut reply = Reply::ok()?;
    reply.headers.extend(users::session_cookies(call, &session));
    Ok(reply)
}

fn refused(refusal: &HostRefusal) -> AppError {
    let (id, message, status) = match refusal {
        HostRefusal::Invalid(_) => {
            ("holdfast.tab.token.app_error", "This site does not accept what Microsoft says of your account.", 403)
        }
        HostRefusal::Unknown(_) => {
            ("holdfast.tab.unknown.app_error", "Your Microsoft account is not known at this site.", 403)
        }
        HostRefusal::Unavailable(_) => {
            ("holdfast.tab.unavailable.app_error", "Microsoft’s sign-in cannot be checked now.", 503)
        }
    };
    AppError::new("tab", id, message, status).detail(refusal)
}
