//! Accounts beyond profiles: second factors, custom statuses, what administrators do, and what needs mail or a licence.

use model::Id;
use serde::Deserialize;
use serde_json::json;

use super::call::Call;
use super::reply::Reply;
use super::{picture, users};
use crate::UserCount;
use crate::error::{AppError, AppResult};
use crate::types::{CustomStatus, User};

/// Length of the tokens in links that are sent by mail.
const MAIL_TOKEN_LEN: usize = 64;

/// A new secret, as text and as a picture for the authenticator app.
pub(crate) fn generate_mfa(call: &Call) -> AppResult<Reply> {
    let user = call.user()?;
    let secret = call.core().generate_mfa_secret(call.session()?, user)?;
    let account = call.core().user(user)?.email;
    let site = call.state.site_url().map_or(call.core().settings().site_name.as_str(), |url| {
        let host = url.trim_start_matches("https://").trim_start_matches("http://");
        host.trim_start_matches("www.").trim_end_matches('/')
    });
    let site = escape(site);
    let link = format!("otpauth://totp/{site}:{}?secret={secret}&issuer={site}", escape(&account));
    let code = picture::qr_code(&link).ok_or_else(|| {
        let id = "mfa.generate_qr_code.create_code.app_error";
        AppError::new("GenerateMfaSecret", id, "Error generating QR code.", 500)
    })?;
    let code = data_encoding::BASE64.encode(&code);
    let reply = Reply::json(&json!({ "secret": secret, "qr_code": code }))?;
    Ok(reply.with(http::header::CACHE_CONTROL, "no-cache").with(http::header::PRAGMA, "no-cache"))
}

/// Percent-encoding of everything that is not unreserved (RFC 3986).
fn escape(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

pub(crate) fn set_mfa(call: &Call) -> AppResult<Reply> {
    #[derive(Deserialize)]
    struct Body {
        activate: bool,
        #[serde(default)]
        code: String,
    }
    let Body { activate, code } = call.json("activate")?;
    match activate {
        true if code.is_empty() => return Err(AppError::body_param("updateUserMfa", "code")),
        true => call.core().activate_mfa(call.session()?, call.user()?, &code)?,
        false => call.core().deactivate_mfa(call.session()?, call.user()?)?,
    }
    Reply::ok()
}

pub(crate) fn set_custom_status(call: &Call) -> AppResult<Reply> {
    let status: CustomStatus = call.json("custom_status")?;
    call.core().set_custom_status(call.session()?, call.user()?, status)?;
    Reply::ok()
}

pub(crate) fn remove_custom_status(call: &Call) -> AppResult<Reply> {
    call.core().remove_custom_status(call.session()?, call.user()?)?;
    Reply::ok()
}

pub(crate) fn forget_recent_custom_status(call: &Call) -> AppResult<Reply> {
    let status: CustomStatus = call.json("recent_custom_status")?;
    call.core().forget_recent_custom_status(call.session()?, call.user()?, &status)?;
    Reply::ok()
}

pub(crate) fn known(call: &Call) -> AppResult<Reply> {
    Reply::json(&call.core().known_users(call.session()?)?)
}

pub(crate) fn filtered_stats(call: &Call) -> AppResult<Reply> {
    let roles = call.query.get("roles").unwrap_or("");
    let which = UserCount {
        in_team: call.query_id("in_team")?,
        in_channel: call.query_id("in_channel")?,
        include_deleted: call.query.flag("include_deleted"),
        include_bots: call.query.flag("include_bots"),
        roles: roles.split(',').map(str::trim).filter(|role| !role.is_empty()).map(str::to_owned).collect(),
    };
    let named = which.roles.iter().flat_map(|role| role.bytes());
    if !named.into_iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_') {
        return Err(AppError::body_param("getFilteredUsersStats", "roles"));
    }
    Reply::json(&json!({ "total_users_count": call.core().count_users(call.session()?, &which)? }))
}

pub(crate) fn invalid_emails(call: &Call) -> AppResult<Reply> {
    let users = call.core().users_with_invalid_emails(call.session()?, call.page(), call.per_page())?;
    let shown: Vec<User> = users.into_iter().map(|user| user.sanitized_in_list_for(call.session.as_ref())).collect();
    Reply::json(&shown)
}

pub(crate) fn reset_failed_attempts(call: &Call) -> AppResult<Reply> {
    call.core().reset_failed_attempts(call.session()?, call.user()?)?;
    Reply::ok()
}

pub(crate) fn revoke_everybody(call: &Call) -> AppResult<Reply> {
    call.core().revoke_everybodys_sessions(call.session()?)?;
    Reply::ok()
}

pub(crate) fn all_tokens(call: &Call) -> AppResult<Reply> {
    Reply::json(&call.core().everybodys_tokens(call.session()?, call.page(), call.per_page())?)
}

pub(crate) fn search_tokens(call: &Call) -> AppResult<Reply> {
    let term = users::field(call, "term")?;
    Reply::json(&call.core().search_tokens(call.session()?, &term)?)
}

/// Without mail there is no link to ask for. Like the original, nothing is said about whose address it is.
pub(crate) fn send_password_reset(call: &Call) -> AppResult<Reply> {
    mail_field(call, "sendPasswordReset")?;
    let id = "holdfast.no_mail.app_error";
    let message = "This server sends no mail. Ask an administrator, or whoever runs the node, for a new password.";
    Err(AppError::new("sendPasswordReset", id, message, 501))
}

pub(crate) fn send_verification(call: &Call) -> AppResult<Reply> {
    mail_field(call, "sendVerificationEmail")?;
    // The original says the same whether or not there is such an account, and whether or not the mail went out.
    Reply::ok()
}

fn mail_field(call: &Call, where_: &'static str) -> AppResult<String> {
    let address = users::field(call, "email").map_err(|_| AppError::body_param(where_, "email"))?;
    if address.is_empty() { Err(AppError::body_param(where_, "email")) } else { Ok(address) }
}

/// The links that the operator gives out are good here, as if they had come by mail.
pub(crate) fn reset_password(call: &Call) -> AppResult<Reply> {
    let token = mail_token(call, "resetPassword")?;
    let password = users::field(call, "new_password")?;
    call.core().enrol(&token, &password, &call.address)?;
    Reply::ok()
}

pub(crate) fn verify_email(call: &Call) -> AppResult<Reply> {
    mail_token(call, "verifyUserEmail")?;
    let id = "api.user.verify_email.bad_link.app_error";
    Err(AppError::bad("verifyUserEmail", id, "Bad verify email link."))
}

fn mail_token(call: &Call, where_: &'static str) -> AppResult<String> {
    let token = users::field(call, "token").map_err(|_| AppError::body_param(where_, "token"))?;
    if token.len() == MAIL_TOKEN_LEN { Ok(token) } else { Err(AppError::body_param(where_, "token")) }
}

/// Addresses count as verified from the start, since no mail could ask.
pub(crate) fn verify_member(call: &Call) -> AppResult<Reply> {
    let user: Id = call.user()?;
    Reply::json(&call.core().user(user)?.sanitized_for(call.session.as_ref()))
}
