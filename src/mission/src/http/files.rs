//! Files: upload in two forms, download with ranges.

use axum::body::Body;
use axum::extract::{DefaultBodyLimit, FromRequest as _, Multipart, Request};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use http::{HeaderName, StatusCode, header};
use model::{Id, Precedence};
use serde_json::json;

use super::body_too_large;
use super::call::Call;
use super::range::{self, Span};
use super::reply::{Content, Reply};
use crate::error::{AppError, AppResult};
use crate::previews::{PreviewOf, Shown};
use crate::types::FileInfo;
use crate::{Core, FileAvailability};

/// Bytes of an upload gathered before they are written; a blocking thread is held only while writing, so that
/// slow senders cost none.
const WRITE_AT_ONCE: usize = 256 * 1024;
/// A form value that is not a file.
const FORM_VALUE_MAX: usize = 10 * 1024;
/// Files in one request; clients attach at most ten to a post.
const FILES_MAX: usize = 10;
/// Files that stand before the `channel_id` wait in memory, up to this size together.
const EARLY_FILE_MAX: usize = 8 * 1024 * 1024;

/// `POST /files`, as a form or as bare bytes with `channel_id` and `filename` in the query.
pub(crate) async fn upload(call: Call, body: Body) -> AppResult<Reply> {
    let is_form = call.header(header::CONTENT_TYPE).trim_start().starts_with("multipart/form-data");
    let limit = call.core().settings().max_file_bytes;
    let announced = call.header(header::CONTENT_LENGTH).parse::<u64>().ok();
    if announced == Some(0) {
        return Err(unreadable("Content-Length should not be 0"));
    }
    // A form adds its own lines to the files.
    let overhead = if is_form { (FORM_VALUE_MAX * (FILES_MAX + 2)) as u64 } else { 0 };
    let files = if is_form { FILES_MAX as u64 } else { 1 };
    if announced.is_some_and(|len| len > limit.saturating_mul(files).saturating_add(overhead)) {
        return Err(body_too_large());
    }
    if is_form { form(call, body).await } else { bare(call, body).await }
}

async fn bare(call: Call, body: Body) -> AppResult<Reply> {
    let channel = call.query_id("channel_id")?.ok_or_else(|| AppError::url_param("uploadFile", "channel_id"))?;
    let name = call.query.get("filename").ok_or_else(|| AppError::url_param("uploadFile", "filename"))?.to_owned();
    let pieces = body.into_data_stream().map(|piece| piece.map_err(unreadable));
    let info = store(&call, channel, name, pieces).await?;
    let mut answer = json!({ "file_infos": [info], "client_ids": null });
    if let Some(client_id) = call.query.get("client_id") {
        answer["client_ids"] = json!([client_id]);
    }
    Reply::created(&answer)
}

async fn form(call: Call, body: Body) -> AppResult<Reply> {
    let mut request = Request::new(body);
    request.headers_mut().extend(call.headers.get(header::CONTENT_TYPE).map(|v| (header::CONTENT_TYPE, v.clone())));
    // Each file is held against the limit while it is written; a bound on the sum comes from FILES_MAX.
    DefaultBodyLimit::disable().apply(&mut request);
    let mut parts = Multipart::from_request(request, &()).await.map_err(unreadable)?;
    let mut channel = call.query_id("channel_id")?;
    let mut client_ids: Vec<String> = Vec::new();
    let mut infos: Vec<FileInfo> = Vec::new();
    let mut early: Vec<(String, Bytes)> = Vec::new();
    while let Some(mut part) = parts.next_field().await.map_err(unreadable)? {
        let Some(name) = part.name().map(str::to_owned) else { continue };
        let Some(file_name) = part.file_name().map(str::to_owned) else {
            let value = read_capped(&mut part, FORM_VALUE_MAX).await?;
            let value = String::from_utf8_lossy(&value).into_owned();
            match name.as_str() {
                "channel_id" => {
                    let named: Id = value.parse().map_err(|_| AppError::body_param("uploadFile", "channel_id"))?;
                    if channel.replace(named).is_some_and(|before| before != named) {
                        let message = "Unable to upload file(s). Have multiple conflicting channel_ids.";
                        let id = "api.file.upload_file.multiple_channel_ids.app_error";
                        return Err(AppError::bad("uploadFile", id, message));
                    }
                }
                "client_ids" if client_ids.len() < FILES_MAX => client_ids.push(value),
                _ => return Err(AppError::body_param("uploadFile", &name)),
            }
            continue;
        };
        if infos.len() + early.len() >= FILES_MAX {
            return Err(AppError::body_param("uploadFile", "files"));
        }
        match channel {
            Some(channel) => {
                let pieces = part.map(|piece| piece.map_err(unreadable));
                infos.push(store(&call, channel, file_name, pieces).await?);
            }
            None => {
                let waiting: usize = early.iter().map(|(_, bytes)| bytes.len()).sum();
                early.push((file_name, read_capped(&mut part, EARLY_FILE_MAX - waiting).await?));
            }
        }
    }
    let channel = channel.ok_or_else(|| AppError::body_param("uploadFile", "channel_id"))?;
    for (file_name, bytes) in early {
        let pieces = futures_util::stream::iter([Ok(bytes)]);
        infos.push(store(&call, channel, file_name, pieces).await?);
    }
    if !client_ids.is_empty() && client_ids.len() != infos.len() {
        let message =
            format!("Unable to upload file(s). Have {} client_ids for {} files.", client_ids.len(), infos.len());
        let id = "api.file.upload_file.incorrect_number_of_client_ids.app_error";
        return Err(AppError::bad("uploadFile", id, message));
    }
    Reply::created(&json!({ "file_infos": infos, "client_ids": client_ids }))
}

/// Writes one file and makes it known. Cancel-safe: an upload that is dropped leaves nothing behind.
async fn store<S>(call: &Call, channel: Id, name: String, pieces: S) -> AppResult<FileInfo>
where
    S: Stream<Item = AppResult<Bytes>> + Unpin,
{
    let limit = call.core().settings().max_file_bytes;
    let (core, session, file_name) = (call.core().clone(), call.session()?.clone(), name.clone());
    let upload = call.state.blocking(move || core.begin_upload(&session, channel, &file_name)).await?;
    let mut size = 0;
    let pieces = pieces.map(|piece| {
        let piece = piece?;
        size += piece.len() as u64;
        if size > limit {
            let message = format!("Unable to upload file {name}. It exceeds the maximum allowed {limit} bytes.");
            let id = "api.file.upload_file.too_large_detailed.app_error";
            return Err(AppError::new("uploadFile", id, message, 413));
        }
        Ok(piece)
    });
    let (upload, outcome) = pour(call, pieces, upload).await;
    outcome?;
    let info = call.state.blocking(move || upload.ok_or_else(lost)?.finish()).await?;
    with_previews(call, info).await
}

/// Writes pieces where it may block, as many at once as fill a buffer. Gives the writer back also when the sender broke off; it
/// is lost only with a writing thread.
pub(super) async fn pour<S, W>(call: &Call, mut pieces: S, writer: W) -> (Option<W>, AppResult<()>)
where
    S: Stream<Item = AppResult<Bytes>> + Unpin,
    W: std::io::Write + Send + 'static,
{
    let mut writer = writer;
    let mut gathered = Vec::new();
    loop {
        let (mut ended, mut outcome) = (false, Ok(()));
        match pieces.next().await {
            Some(Ok(piece)) => gathered.extend_from_slice(&piece),
            Some(Err(error)) => (ended, outcome) = (true, Err(error)),
            None => ended = true,
        }
        if ended || gathered.len() >= WRITE_AT_ONCE {
            let bytes = std::mem::take(&mut gathered);
            let write = move || {
                let written = writer.write_all(&bytes);
                Ok((writer, written))
            };
            match call.state.blocking(write).await {
                Ok((back, Ok(()))) => writer = back,
                Ok((back, Err(error))) => return (Some(back), Err(error.into())),
                Err(error) => return (None, Err(error)),
            }
        }
        if ended {
            return (Some(writer), outcome);
        }
    }
}

pub(super) fn lost() -> AppError {
    AppError::storage("uploadFile", "the writer was lost")
}

/// The file as clients show it at once, with its previews. That there are none is no reason to refuse it.
pub(super) async fn with_previews(call: &Call, info: FileInfo) -> AppResult<FileInfo> {
    if !info.has_preview_image {
        return Ok(info);
    }
    let (core, session, id) = (call.core().clone(), call.session()?.clone(), info.id);
    let made = move || {
        core.make_previews(id)?;
        core.file_info(&session, id)
    };
    match call.state.imaging(made).await {
        Ok(info) => Ok(info),
        Err(error) => {
            tracing::warn!(%error, "no previews of an upload for now");
            Ok(info)
        }
    }
}

pub(super) async fn read_capped<S, E>(pieces: &mut S, max: usize) -> AppResult<Bytes>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
    E: std::fmt::Display,
{
    let mut whole = Vec::new();
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(unreadable)?;
        if whole.len() + piece.len() > max {
            return Err(body_too_large());
        }
        whole.extend_from_slice(&piece);
    }
    Ok(whole.into())
}

pub(super) fn unreadable(why: impl std::fmt::Display) -> AppError {
    let message = "Unable to upload file(s). Error reading or parsing request data.";
    AppError::bad("uploadFile", "api.file.upload_file.read_request.app_error", message).detail(why)
}

pub(crate) fn info(call: &Call) -> AppResult<Reply> {
    let info = call.core().file_info(call.session()?, call.id("file_id")?)?;
    Ok(Reply::json(&info)?.with(header::CACHE_CONTROL, "max-age=2592000, private"))
}

/// Clients ask for pictures and thumbnails by themselves as a channel is looked at; for the file itself somebody asks.
pub(crate) fn get(call: &Call) -> AppResult<Reply> {
    if let FileAvailability::NotHereYet { info } = call.core().open_file(call.session()?, call.id("file_id")?)? {
        return not_here_yet(call, &info);
    }
    send(call)
}

pub(crate) async fn thumbnail(call: Call, _: Body) -> AppResult<Reply> {
    let message = "File doesn't have a thumbnail image.";
    let none = AppError::bad("getFileThumbnail", "api.file.get_file_thumbnail.no_thumbnail.app_error", message);
    shown(call, Shown::Thumbnail, none).await
}

pub(crate) async fn preview(call: Call, _: Body) -> AppResult<Reply> {
    let message = "File doesn't have a preview image.";
    let none = AppError::bad("getFilePreview", "api.file.get_file_preview.no_preview.app_error", message);
    shown(call, Shown::Preview, none).await
}

/// Sends what is shown of a picture, and makes it where nobody looked before.
async fn shown(call: Call, shown: Shown, none: AppError) -> AppResult<Reply> {
    let (session, id) = (call.session()?.clone(), call.id("file_id")?);
    let look = |core: Core| {
        let session = session.clone();
        move || core.preview(&session, id, shown)
    };
    let mut found = call.state.blocking(look(call.core().clone())).await?;
    if matches!(found, PreviewOf::ToBeMade) {
        let core = call.core().clone();
        call.state.imaging(move || core.make_previews(id)).await?;
        found = call.state.blocking(look(call.core().clone())).await?;
    }
    match found {
        PreviewOf::Here { info, file, mime_type } => {
            let reply = |body| Reply { status: StatusCode::OK, headers: Vec::new(), body };
            let len = file.metadata().map_err(|e| AppError::storage("getFile", e))?.len();
            let info = FileInfo { mime_type: mime_type.to_owned(), ..info };
            Ok(describe(&call, &info, reply(Content::File { file, len })))
        }
        PreviewOf::NotHereYet { info } => Err(on_its_way(&info, "")),
        // Made and gone again: purged meanwhile.
        PreviewOf::None | PreviewOf::ToBeMade => Err(none),
    }
}

/// Public links reach people outside the mission; they are not offered.
pub(crate) fn link(_: &Call) -> AppResult<Reply> {
    let message = "Public links have been disabled.";
    Err(AppError::new("getPublicLink", "api.file.get_public_link.disabled.app_error", message, 403))
}

/// Sends a file or the part of it that was asked for.
fn send(call: &Call) -> AppResult<Reply> {
    let (info, path) = match call.core().open_file(call.session()?, call.id("file_id")?)? {
        FileAvailability::Here { info, path } => (info, path),
        FileAvailability::NotHereYet { info } => return Err(on_its_way(&info, "")),
    };
    let opened = std::fs::File::open(&path).and_then(|file| Ok((file.metadata()?.len(), file)));
    let (len, file) =
        opened.map_err(|e| AppError::not_found("getFile", "api.file.read_file.reading_local.app_error").detail(e))?;
    let reply = Reply { status: StatusCode::OK, headers: Vec::new(), body: Content::Bytes(Bytes::new()) };
    ranged(call, describe(call, &info, reply), file, len)
}

/// Answers with a file, or with the part of it that was asked for.
pub(super) fn ranged(call: &Call, reply: Reply, mut file: std::fs::File, len: u64) -> AppResult<Reply> {
    let reply = reply.with(header::ACCEPT_RANGES, "bytes");
    let range = call.headers.get(header::RANGE).and_then(|v| v.to_str().ok());
    match range::span(range, len) {
        Span::Whole => Ok(Reply { body: Content::File { file, len }, ..reply }),
        Span::Part { first, last } => {
            std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(first))
                .map_err(|e| AppError::storage("getFile", e))?;
            let reply = reply.with(header::CONTENT_RANGE, &format!("bytes {first}-{last}/{len}"));
            Ok(Reply {
                status: StatusCode::PARTIAL_CONTENT,
                body: Content::File { file, len: last - first + 1 },
                ..reply
            })
        }
        Span::Outside => {
            let reply = reply.with(header::CONTENT_RANGE, &format!("bytes */{len}"));
            Ok(Reply { status: StatusCode::RANGE_NOT_SATISFIABLE, ..reply })
        }
    }
}

/// A reader wants the file: it is asked for, if it would not come by itself, and the reader is told how long that takes.
fn not_here_yet(call: &Call, info: &FileInfo) -> AppResult<Reply> {
    let asked = call.core().request_file(info.id, Precedence::Routine);
    asked.map_err(|e| AppError::storage("getFile", e))?;
    let Some(outlook) = call.core().file_outlook(info.id) else { return Err(on_its_way(info, "")) };
    let (missing, (low, high)) = (outlook.missing_bytes, outlook.seconds);
    let when = format!(" {missing} bytes of it are missing: {low} to {high} seconds of an open link.");
    let error = on_its_way(info, &when);
    let (status, body) = (StatusCode::from_u16(error.status_code), Reply::json(&error)?);
    let reply = Reply { status: status.unwrap_or(StatusCode::NOT_FOUND), ..body };
    Ok(reply.with(header::RETRY_AFTER, &high.to_string()))
}

/// The bytes travel behind the messages; who asks is told that waiting is right.
fn on_its_way(info: &FileInfo, when: &str) -> AppError {
    let message = format!(
        "The file {} ({} bytes) was sent from another site and has not arrived here yet. \
         It will appear by itself as soon as the link has brought it.{when}",
        info.name, info.size
    );
    AppError::new("getFile", "holdfast.file.not_here_yet.app_error", message, 404)
}

/// Types that a browser would run in our name; they are shown as text.
const UNSAFE_TYPES: [&str; 6] = [
    "application/javascript",
    "application/ecmascript",
    "text/javascript",
    "text/ecmascript",
    "application/x-javascript",
    "text/html",
];
/// Types that a browser shows by itself; everything else is offered for saving.
const SHOWN_TYPES: [&str; 11] = [
    "image/jpeg",
    "image/png",
    "image/bmp",
    "image/gif",
    "image/tiff",
    "image/webp",
    "video/avi",
    "video/mpeg",
    "video/mp4",
    "audio/mpeg",
    "audio/wav",
];

fn describe(call: &Call, info: &FileInfo, reply: Reply) -> Reply {
    let is_in = |types: &[&str]| types.iter().any(|t| info.mime_type.starts_with(t));
    let kind = match info.mime_type.as_str() {
        "" => "application/octet-stream",
        _ if is_in(&UNSAFE_TYPES) => "text/plain",
        other => other,
    };
    let shown = is_in(&SHOWN_TYPES) && !call.query.flag("download");
    let disposition = if shown { "inline" } else { "attachment" };
    let name = escape_name(&info.name);
    reply
        .with(header::CONTENT_TYPE, kind)
        .with(header::CACHE_CONTROL, "private, max-age=86400")
        .with(header::CONTENT_DISPOSITION, &format!("{disposition};filename=\"{name}\"; filename*=UTF-8''{name}"))
        .with(header::X_FRAME_OPTIONS, "DENY")
        .with(HeaderName::from_static("content-security-policy"), "Frame-ancestors 'none'; sandbox")
}

fn escape_name(name: &str) -> String {
    name.bytes().fold(String::with_capacity(name.len()), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
        out
    })
}
