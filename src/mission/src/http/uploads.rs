//! Uploads in parts that can be taken up again.

use axum::body::Body;
use axum::extract::{DefaultBodyLimit, FromRequest as _, Multipart, Request};
use futures_util::StreamExt as _;
use http::{StatusCode, header};
use serde_json::json;

use super::call::Call;
use super::files::{lost, pour, unreadable, with_previews};
use super::reply::{Content, Reply};
use crate::error::{AppError, AppResult};
use crate::uploads::{NewUpload, Whole};

pub(crate) fn create(call: &Call) -> AppResult<Reply> {
    let new: NewUpload = call.json("upload")?;
    Reply::created(&call.core().create_upload(call.session()?, &new)?)
}

pub(crate) fn get(call: &Call) -> AppResult<Reply> {
    Reply::json(&call.core().upload_session(call.session()?, call.id("upload_id")?)?)
}

pub(crate) fn of_user(call: &Call) -> AppResult<Reply> {
    Reply::json(&call.core().uploads_of(call.session()?, call.user()?)?)
}

/// `POST /uploads/{id}`: the next bytes, bare or as the first part of a form. 204 until the file is whole.
///
/// Cancel-safe: bytes that were made durable stay, and the session tells how many.
pub(crate) async fn add(call: Call, body: Body) -> AppResult<Reply> {
    let (core, session, id) = (call.core().clone(), call.session()?.clone(), call.id("upload_id")?);
    let part = call.state.blocking(move || core.begin_part(&session, id)).await?;
    let kind = call.header(header::CONTENT_TYPE);
    let (part, outcome) = if kind.trim_start().starts_with("multipart/") {
        let refused = |e: axum::extract::multipart::MultipartError| {
            let message = "Failed to upload data: the form could not be read.";
            AppError::bad("uploadData", "api.upload.upload_data.multipart_error", message).detail(e)
        };
        let mut request = Request::new(body);
        request.headers_mut().extend(call.headers.get(header::CONTENT_TYPE).map(|v| (header::CONTENT_TYPE, v.clone())));
        DefaultBodyLimit::disable().apply(&mut request);
        let mut form = Multipart::from_request(request, &()).await.map_err(|e| {
            let message = "Failed to upload data: unknown content type.";
            AppError::bad("uploadData", "api.upload.upload_data.invalid_content_type", message).detail(e)
        })?;
        let field = form.next_field().await.map_err(refused)?;
        let field = field.ok_or_else(|| unreadable("the form is empty"))?;
        pour(&call, field.map(|piece| piece.map_err(unreadable)), part).await
    } else {
        let announced = call.header(header::CONTENT_LENGTH).parse::<u64>().ok();
        if announced.is_some_and(|len| len > part.missing()) {
            let message = "Failed to upload data: the content is longer than what is missing.";
            return Err(AppError::bad("uploadData", "api.upload.upload_data.invalid_content_length", message));
        }
        pour(&call, body.into_data_stream().map(|piece| piece.map_err(unreadable)), part).await
    };
    // What came before the sender broke off counts.
    let info = call.state.blocking(move || part.ok_or_else(lost)?.finish()).await;
    outcome?;
    match info? {
        Some(Whole::File(info)) => Reply::json(&with_previews(&call, info).await?),
        // As the original describes what belongs to no channel.
        Some(Whole::Archive(s)) => Reply::json(&json!({
            "id": s.id, "user_id": s.user_id, "channel_id": "", "create_at": s.create_at, "update_at": s.create_at,
            "delete_at": 0, "name": s.filename, "extension": "zip", "size": s.file_size, "mime_type": "application/zip",
            "has_preview_image": false, "mini_preview": null, "remote_id": "", "archived": false,
        })),
        None => {
            let body = Content::Bytes(bytes::Bytes::new());
            Ok(Reply { status: StatusCode::NO_CONTENT, headers: Vec::new(), body })
        }
    }
}
