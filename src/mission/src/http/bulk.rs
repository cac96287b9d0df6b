//! Imports, exports and the jobs that do them, as mmctl asks for them.

use bytes::Bytes;
use http::{StatusCode, header};
use serde::Deserialize;

use super::call::Call;
use super::files::ranged;
use super::reply::{Content, Reply};
use crate::access::require;
use crate::bulk::jobs::{EXPORT, IMPORT};
use crate::error::{AppError, AppResult};
use crate::types::StringMap;

pub(crate) fn imports(call: &Call) -> AppResult<Reply> {
    Reply::json(&call.core().imports(call.session()?)?)
}

pub(crate) fn delete_import(call: &Call) -> AppResult<Reply> {
    call.core().delete_import(call.session()?, call.text("import_name"))?;
    Reply::ok()
}

pub(crate) fn exports(call: &Call) -> AppResult<Reply> {
    Reply::json(&call.core().exports(call.session()?)?)
}

pub(crate) fn delete_export(call: &Call) -> AppResult<Reply> {
    call.core().delete_export(call.session()?, call.text("export_name"))?;
    Reply::ok()
}

/// An archive, or the part of it that was asked for: mmctl goes on with a download that broke off.
pub(crate) fn download_export(call: &Call) -> AppResult<Reply> {
    let file = call.core().open_export(call.session()?, call.text("export_name"))?;
    let len = file.metadata()?.len();
    let reply = Reply { status: StatusCode::OK, headers: Vec::new(), body: Content::Bytes(Bytes::new()) };
    ranged(call, reply.with(header::CONTENT_TYPE, "application/zip"), file, len)
}

pub(crate) fn presign(call: &Call) -> AppResult<Reply> {
    require("generatePresignURLExport", call.session()?, "manage_system")?;
    let message = "This server has no store that could give links.";
    Err(AppError::new("http", "app.eport.generate_presigned_url.featureflag.app_error", message, 500))
}

pub(crate) fn jobs(call: &Call) -> AppResult<Reply> {
    let kind = call.query.get("job_type").unwrap_or_default();
    let status = call.query.get("status").unwrap_or_default();
    Reply::json(&call.core().jobs(call.session()?, kind, status, call.page(), call.per_page())?)
}

pub(crate) fn jobs_of_type(call: &Call) -> AppResult<Reply> {
    let kind = call.text("job_type");
    // Those that the original has and this server does not never ran.
    let kind = if kind == IMPORT || kind == EXPORT { kind } else { "none" };
    Reply::json(&call.core().jobs(call.session()?, kind, "", call.page(), call.per_page())?)
}

pub(crate) fn job(call: &Call) -> AppResult<Reply> {
    require("getJob", call.session()?, "manage_system")?;
    Reply::json(&call.core().job(call.id("job_id")?)?)
}

pub(crate) fn create_job(call: &Call) -> AppResult<Reply> {
    #[derive(Deserialize)]
    struct NewJob {
        #[serde(rename = "type", default)]
        kind: String,
        #[serde(default)]
        data: Option<StringMap>,
    }
    let new: NewJob = call.json("job")?;
    Reply::created(&call.core().create_job(call.session()?, &new.kind, &new.data.unwrap_or_default())?)
}

pub(crate) fn cancel_job(call: &Call) -> AppResult<Reply> {
    require("cancelJob", call.session()?, "manage_system")?;
    call.core().cancel_job(call.id("job_id")?)?;
    Reply::ok()
}

/// `PATCH /jobs/{id}/status`: of all changes that the original allows, only asking to stop makes sense of jobs that end by themselves.
pub(crate) fn set_job_status(call: &Call) -> AppResult<Reply> {
    #[derive(Deserialize)]
    struct Wanted {
        #[serde(default)]
        status: String,
    }
    require("updateJobStatus", call.session()?, "manage_system")?;
    let wanted: Wanted = call.json("status")?;
    call.core().job(call.id("job_id")?)?;
    if !matches!(wanted.status.as_str(), "cancel_requested" | "canceled") {
        return Err(AppError::bad(
            "updateJobStatus",
            "api.job.status.invalid",
            "A job cannot be brought to that status.",
        ));
    }
    call.core().cancel_job(call.id("job_id")?)?;
    Reply::ok()
}
