//! What is not about people or conversations: ping, configuration, and features that are not here.

use http::{HeaderName, header};
use serde_json::json;

use super::call::Call;
use super::reply::Reply;
use crate::error::{AppError, AppResult};

pub(crate) fn ping(call: &Call) -> AppResult<Reply> {
    let mut status = json!({
        "status": "OK", "ActiveSearchBackend": "database",
        "AndroidLatestVersion": "", "AndroidMinVersion": "", "IosLatestVersion": "", "IosMinVersion": "",
    });
    if call.query.get("device_id").is_some() {
        // There is no push proxy on this side of the link.
        status["CanReceiveNotifications"] = json!("false");
    }
    if !call.query.flag("get_server_status") {
        return Reply::json(&status);
    }
    let healthy = call.core().check().is_ok();
    let store = if healthy { "OK" } else { "UNHEALTHY" };
    status["database_status"] = json!(store);
    status["filestore_status"] = json!(store);
    status["status"] = json!(store);
    let mut reply = Reply::json(&status)?
        .with(HeaderName::from_static("database_status"), store)
        .with(HeaderName::from_static("filestore_status"), store);
    if !healthy && !call.query.flag("use_rest_semantics") {
        reply.status = http::StatusCode::INTERNAL_SERVER_ERROR;
    }
    Ok(reply)
}

pub(crate) fn client_config(call: &Call) -> AppResult<Reply> {
    Ok(Reply::bytes("application/json", call.state.client_config(call.session.is_some())))
}

pub(crate) fn client_license(call: &Call) -> AppResult<Reply> {
    match call.query.get("format") {
        Some("old") => Reply::json(&json!({ "IsLicensed": "false" })),
        Some(_) => Err(AppError::body_param("getClientLicense", "format")),
        None => {
            let message = "New format for the client license is not supported yet. Please specify format=old in the query string.";
            Err(AppError::bad("getClientLicense", "api.license.client.old_format.app_error", message))
        }
    }
}

/// A core without a licence has no limits but those of its disk.
pub(crate) fn limits(call: &Call) -> AppResult<Reply> {
    let admin = call.session()?.is_system_admin();
    let users = if admin { call.core().active_user_count()? } else { 0 };
    Reply::json(&json!({
        "maxUsersLimit": 0, "maxUsersHardLimit": 0, "activeUserCount": users,
        "singleChannelGuestCount": 0, "singleChannelGuestLimit": 0,
        "postHistoryLimit": 0, "lastAccessiblePostTime": 0,
    }))
}

pub(crate) fn empty_list(_: &Call) -> AppResult<Reply> {
    Reply::json(&json!([]))
}

/// Clients report errors here; the log is where they belong.
pub(crate) fn client_log(call: &Call) -> AppResult<Reply> {
    #[derive(serde::Deserialize)]
    struct ClientLog {
        #[serde(default)]
        message: String,
    }
    let entry: ClientLog = call.json("log")?;
    let agent = call.header(header::USER_AGENT);
    tracing::debug!(%agent, chars = entry.message.len(), "a client reported an error");
    Reply::json(&json!({ "message": entry.message }))
}

pub(crate) fn roles_by_names(call: &Call) -> AppResult<Reply> {
    const ROLES_MAX: usize = 100;
    let names = call.texts("rolenames")?;
    if names.len() > ROLES_MAX {
        let id = "api.roles.get_multiple_by_name_too_many.request_error";
        let message = "Unable to get that many roles by name. Only 100 roles can be requested at once.";
        return Err(AppError::bad("getRolesByNames", id, message));
    }
    Reply::json(&call.core().roles_by_names(&names)?)
}

pub(crate) fn role_by_name(call: &Call) -> AppResult<Reply> {
    let found = call.core().roles_by_names(&[call.text("role_name").to_owned()])?;
    let missing = || AppError::not_found("getRoleByName", "app.role.get_by_name.app_error");
    Reply::json(found.first().ok_or_else(missing)?)
}

/// A feature of the real server that this core does not offer. Clients tolerate 501.
pub(crate) fn not_offered(_: &Call) -> AppResult<Reply> {
    let message = "This server does not offer this feature.";
    Err(AppError::new("http", "holdfast.not_offered.app_error", message, 501))
}
