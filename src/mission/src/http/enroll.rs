//! The page on which people set a password by the link that the operator gave them: for those who have no other client yet.
//!
//! It needs neither scripts nor the web app. Its answers are never kept, and tell no other site where they came from.

use http::{HeaderValue, StatusCode, header};

use super::call::Call;
use super::escape;
use super::query::Query;
use super::reply::{Content, Reply};
use crate::error::{AppError, AppResult};

/// Path of the page below the site's address; the link has the secret as `token`.
pub const PATH: &str = "/holdfast/enroll";

/// Asks for a password, or says why the link is not good.
pub(crate) fn show(call: &Call) -> AppResult<Reply> {
    let secret = call.query.get("token").unwrap_or_default();
    Ok(match call.core().enrolling(secret) {
        Ok(user) => form(call, &user.username, secret, ""),
        Err(error) => told(call, &error),
    })
}

/// Sets it.
pub(crate) fn take(call: &Call) -> AppResult<Reply> {
    let body = Query::parse(std::str::from_utf8(&call.body).map_err(|_| AppError::body_param("enroll", "form"))?);
    let text = |name: &str| body.get(name).unwrap_or_default();
    let (secret, password) = (text("token"), text("password"));
    let user = match call.core().enrolling(secret) {
        Ok(user) => user,
        Err(error) => return Ok(told(call, &error)),
    };
    if password != text("again") {
        return Ok(form(call, &user.username, secret, "The two passwords differ."));
    }
    Ok(match call.core().enrol(secret, password, &call.address) {
        Ok(user) => {
            let name = escape(&user.username);
            let text =
                format!("<p>The password is set. Sign in as <b>{name}</b>.</p><p><a href=\"../\">Sign in</a></p>");
            page(call, StatusCode::OK, &text)
        }
        Err(error) if error.status_code == 400 => form(call, &user.username, secret, &error.message),
        Err(error) => return Err(error),
    })
}

fn form(call: &Call, username: &str, secret: &str, trouble: &str) -> Reply {
    let status = if trouble.is_empty() { StatusCode::OK } else { StatusCode::BAD_REQUEST };
    let (name, secret, trouble) = (escape(username), escape(secret), escape(trouble));
    let least = call.core().settings().password_min_chars;
    let text = format!(
        "<p>Choose a password for <b>{name}</b>. It is good at this site alone, also when the outside cannot be reached.</p>\
         <p role=\"alert\">{trouble}</p><form method=\"post\" action=\"enroll\">\
         <input type=\"hidden\" name=\"token\" value=\"{secret}\">\
         <input type=\"hidden\" name=\"username\" autocomplete=\"username\" value=\"{name}\">\
         <p><label>Password, at least {least} characters<br>\
         <input type=\"password\" name=\"password\" autocomplete=\"new-password\" required minlength=\"{least}\"></label></p>\
         <p><label>The same again<br>\
         <input type=\"password\" name=\"again\" autocomplete=\"new-password\" required></label></p>\
         <p><button>Set the password</button></p></form>"
    );
    page(call, status, &text)
}

fn told(call: &Call, error: &AppError) -> Reply {
    let text = format!("<p>{} Ask whoever gave it to you for a new one.</p>", escape(&error.message));
    page(call, StatusCode::BAD_REQUEST, &text)
}

fn page(call: &Call, status: StatusCode, text: &str) -> Reply {
    let name = escape(&call.core().settings().site_name);
    let node = escape(call.core().node_name());
    let html = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{name}</title><body><h1>{name}</h1>{text}<p><small>{node}</small></p></body></html>\n"
    );
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
        ),
    ];
    let headers = headers.map(|(name, value)| (name, HeaderValue::from_static(value)));
    Reply { status, headers: headers.into(), body: Content::Bytes(html.into()) }
}
