//! What administrators, mmctl and monitoring ask of a server: settings, audits, numbers, jobs, being busy.
//!
//! Settings stand in the node's configuration file; the API shows a subset of them under the original's names and changes none.

use http::header;
use serde::Deserialize;
use serde_json::{Value, json};

use super::call::Call;
use super::reply::Reply;
use crate::error::{AppError, AppResult};
use crate::types::Role;

/// Longest time that a server can be called busy at once, and the time where none is named (the original's numbers).
const BUSY_S_MAX: i64 = 24 * 60 * 60;
const BUSY_S_DEFAULT: i64 = 60 * 60;

/// The settings that this core has, under the original's names.
fn config(call: &Call) -> Value {
    let (core, http) = (call.core().settings(), &call.state.settings);
    json!({
        "ServiceSettings": {
            "SiteURL": http.site_url.as_deref().unwrap_or(""),
            "SessionLengthWebInHours": core.session_hours,
            "SessionLengthMobileInHours": core.session_hours_mobile,
            "MaximumLoginAttempts": core.login_attempts_max,
            "EnableMultifactorAuthentication": core.multifactor,
            "EnableUserAccessTokens": core.users_may_create_tokens,
            "EnableBotAccountCreation": true,
            "MaximumPayloadSizeBytes": http.max_json_bytes,
            "TrustedProxyIPHeader": ["X-Forwarded-For"],
        },
        "TeamSettings": {
            "SiteName": core.site_name,
            "MaxUsersPerTeam": core.max_team_members,
            "EnableOpenServer": core.open_registration,
            "EnableUserCreation": core.open_registration,
            "EnableUserDeactivation": false,
            "EnableCustomUserStatuses": true,
        },
        "PasswordSettings": { "MinimumLength": core.password_min_chars },
        "FileSettings": { "MaxFileSize": core.max_file_bytes, "EnableFileAttachments": true, "DriverName": "local" },
        "RateLimitSettings": { "Enable": http.logins_per_second > 0, "PerSec": http.logins_per_second, "MaxBurst": http.login_burst },
        "SqlSettings": { "DriverName": "sqlite3", "DataSource": MASKED },
        "EmailSettings": {
            "EnableSignInWithEmail": true, "EnableSignInWithUsername": true, "SendEmailNotifications": false,
            "SendPushNotifications": core.push.proxy.is_some(), "EnableEmailInvitations": false, "RequireEmailVerification": false,
        },
        "PluginSettings": { "Enable": false },
        "LdapSettings": { "Enable": false },
        "SamlSettings": { "Enable": false },
        "GuestAccountsSettings": { "Enable": false },
    })
}

/// What stands for a value that is nobody's business, as in the original.
const MASKED: &str = "********************************";

pub(crate) fn get_config(call: &Call) -> AppResult<Reply> {
    Ok(Reply::json(&config(call))?.with(header::CACHE_CONTROL, "no-cache, no-store, must-revalidate"))
}

/// Changes nothing: what differs from the file is refused, what agrees with it is answered like the original.
pub(crate) fn put_config(call: &Call) -> AppResult<Reply> {
    let wanted: Value = call.json("config")?;
    let Value::Object(sections) = &wanted else { return Err(AppError::body_param("updateConfig", "config")) };
    let current = config(call);
    let differing = sections.iter().find_map(|(section, keys)| {
        let keys = keys.as_object()?;
        let (key, _) = keys.iter().find(|(key, value)| {
            let here = &current[section][key.as_str()];
            // mmctl sends everything, with Go's empty values for what it was not told.
            let is_left_out = here.is_null() && is_empty(value);
            value.as_str() != Some(MASKED) && !value.is_null() && !is_left_out && here != *value
        })?;
        Some(format!("{section}.{key}"))
    });
    match differing {
        None => get_config(call),
        Some(key) => Err(file_is_the_place(&format!("{key} was not changed"))),
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(is_on) => !is_on,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(keys) => keys.values().all(is_empty),
    }
}

/// The environment overrides nothing of what is shown.
pub(crate) fn environment(_: &Call) -> AppResult<Reply> {
    Ok(Reply::json(&json!({}))?.with(header::CACHE_CONTROL, "no-cache, no-store, must-revalidate"))
}

pub(crate) fn reload_config(_: &Call) -> AppResult<Reply> {
    Err(file_is_the_place("Nothing was read again"))
}

fn file_is_the_place(what: &str) -> AppError {
    let message = format!("{what}: settings stand in the node's configuration file and count from its next start.");
    AppError::new("updateConfig", "holdfast.config_is_a_file.app_error", message, 501)
}

pub(crate) fn audits(call: &Call) -> AppResult<Reply> {
    Reply::json(&call.core().audits(call.session()?, call.page(), call.per_page())?)
}

pub(crate) fn audits_of_user(call: &Call) -> AppResult<Reply> {
    Reply::json(&call.core().audits_of(call.session()?, call.user()?, call.page(), call.per_page())?)
}

/// The node writes its log to where it was started, and keeps none of it.
pub(crate) fn logs(_: &Call) -> AppResult<Reply> {
    let message =
        "The log is where the node was started from, e.g. `journalctl -u holdfast`. This server keeps no copy.";
    Err(AppError::new("getLogs", "holdfast.log_is_elsewhere.app_error", message, 501))
}

pub(crate) fn analytics(call: &Call) -> AppResult<Reply> {
    let name = call.query.get("name").unwrap_or("standard");
    let sockets = call.state.hub().active_connections();
    Reply::json(&call.core().analytics(call.session()?, name, call.query_id("team_id")?, sockets)?)
}

pub(crate) fn posts_usage(call: &Call) -> AppResult<Reply> {
    Reply::json(&json!({ "count": call.core().rough_post_count()? }))
}

pub(crate) fn storage_usage(call: &Call) -> AppResult<Reply> {
    Reply::json(&json!({ "bytes": call.core().rough_storage()? }))
}

pub(crate) fn teams_usage(call: &Call) -> AppResult<Reply> {
    Reply::json(&json!({ "active": call.core().team_count()?, "cloud_archived": 0 }))
}

/// Names of time zones that this machine knows.
pub(crate) fn timezones(_: &Call) -> AppResult<Reply> {
    let mut names: Vec<String> = jiff::tz::db().available().map(|name| name.to_string()).collect();
    names.retain(|name| name.contains('/') && !name.starts_with("posix/") && !name.starts_with("right/"));
    names.sort_unstable();
    Reply::json(&names)
}

pub(crate) fn ancillary_permissions(call: &Call) -> AppResult<Reply> {
    let named: Vec<String> = call.json("permissions")?;
    Reply::json(&crate::ancillary::with_ancillary(&named))
}

pub(crate) fn roles(call: &Call) -> AppResult<Reply> {
    Reply::json(&call.core().roles())
}

fn role_in_path(call: &Call) -> AppResult<Role> {
    let id = call.id("role_id")?;
    let found = call.core().roles().into_iter().find(|role| role.id == id);
    found.ok_or_else(|| AppError::not_found("GetRole", "app.role.get.app_error"))
}

pub(crate) fn role(call: &Call) -> AppResult<Reply> {
    Reply::json(&role_in_path(call)?)
}

/// What a role permits is part of the program, the same at every site.
pub(crate) fn patch_role(call: &Call) -> AppResult<Reply> {
    if role_in_path(call)?.name.ends_with("_guest") {
        let message = "Guests need a licence, which this server does not have.";
        return Err(AppError::new("Api4.PatchRoles", "api.roles.patch_roles.license.error", message, 501));
    }
    let message =
        "What a role permits is fixed on this server, so that it is the same at every site. Nothing was changed.";
    Err(AppError::new("Api4.PatchRoles", "holdfast.roles_are_fixed.app_error", message, 501))
}

/// Reads begin on new connections to the store.
pub(crate) fn recycle_database(call: &Call) -> AppResult<Reply> {
    call.core().recycle_readers();
    Reply::ok()
}

/// Nothing is cached but statuses, which are the truth.
pub(crate) fn invalidate_caches(_: &Call) -> AppResult<Reply> {
    Ok(Reply::ok()?.with(header::CACHE_CONTROL, "no-cache, no-store, must-revalidate"))
}

/// Refuses what can wait for the named time: searches, and who is typing.
pub(crate) fn set_busy(call: &Call) -> AppResult<Reply> {
    let seconds = match call.query.get("seconds") {
        None => Some(BUSY_S_DEFAULT),
        Some(text) => text.parse().ok().filter(|n| (1..=BUSY_S_MAX).contains(n)),
    };
    let seconds = seconds.ok_or_else(|| AppError::url_param("setServerBusy", "seconds"))?;
    call.state.set_busy_until(call.core().now().0 + seconds * 1_000);
    tracing::warn!(seconds, "an administrator calls the server busy: what can wait is refused");
    Reply::ok()
}

pub(crate) fn clear_busy(call: &Call) -> AppResult<Reply> {
    call.state.set_busy_until(0);
    Reply::ok()
}

pub(crate) fn busy(call: &Call) -> AppResult<Reply> {
    /// Go's zero time in seconds.
    const NEVER_S: i64 = -62_135_596_800;
    let until = call.state.busy_until(call.core().now().0);
    let expires = until.map_or(NEVER_S, |ms| ms / 1_000);
    let text =
        jiff::Timestamp::from_second(expires).map(|at| at.strftime("%a %b %-d %H:%M:%S +0000 UTC %Y").to_string());
    Reply::json(&json!({ "busy": until.is_some(), "expires": expires, "expires_ts": text.unwrap_or_default() }))
}

/// The steps that the store's tables took, newest first.
pub(crate) fn schema_version(_: &Call) -> AppResult<Reply> {
    let steps = (1..=crate::schema::VERSION).rev();
    let steps: Vec<Value> = steps.map(|n| json!({ "version": n, "name": format!("step {n}") })).collect();
    Reply::json(&steps)
}

pub(crate) fn onboarding(_: &Call) -> AppResult<Reply> {
    Reply::json(&json!({ "name": "FirstAdminSetupComplete", "value": "true" }))
}

/// There are no notices, so all of them were seen.
pub(crate) fn notices_seen(_: &Call) -> AppResult<Reply> {
    Reply::ok()
}

pub(crate) fn license_load(_: &Call) -> AppResult<Reply> {
    Reply::json(&json!({ "load": 0 }))
}

pub(crate) fn saml_certificates(_: &Call) -> AppResult<Reply> {
    Reply::json(&json!({ "idp_certificate_file": false, "private_key_file": false, "public_certificate_file": false }))
}

pub(crate) fn agents_status(_: &Call) -> AppResult<Reply> {
    Reply::json(&json!({ "available": false, "reason": "app.agents.bridge.not_available.plugin_not_active" }))
}

/// Other ways to sign in than a password need a licence or a service that this core does not have.
pub(crate) fn set_auth(call: &Call) -> AppResult<Reply> {
    #[derive(Deserialize)]
    struct Body {
        #[serde(default)]
        auth_data: Option<String>,
        #[serde(default)]
        auth_service: String,
    }
    let body: Body = call.json("user")?;
    if body.auth_data.is_none_or(|data| data.is_empty()) || body.auth_service.is_empty() {
        let id = "api.user.update_user_auth.invalid_request";
        return Err(AppError::bad(
            "updateUserAuth",
            id,
            "Request is missing either AuthData or AuthService parameter.",
        ));
    }
    let message = "Users of this server sign in with passwords and tokens only. Nothing was changed.";
    Err(AppError::new("updateUserAuth", "holdfast.passwords_only.app_error", message, 501))
}
