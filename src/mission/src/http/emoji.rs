//! Custom emoji.

use axum::body::Body;
use axum::extract::{DefaultBodyLimit, FromRequest as _, Multipart, Request};
use http::header;
use model::event::EmojiState;
use serde::Deserialize;

use super::call::Call;
use super::files::read_capped;
use super::reply::Reply;
use crate::emoji::NewEmoji;
use crate::error::{AppError, AppResult};
use crate::images;

/// The part of the form beside the picture.
const FIELD_BYTES_MAX: usize = 10 * 1024;
/// Names in one request (the original's number).
const NAMES_MAX: usize = 200;

/// `POST /emoji`: a form with `emoji`, which is JSON, and `image`.
pub(crate) async fn create(call: Call, body: Body) -> AppResult<Reply> {
    const WHERE: &str = "createEmoji";
    let too_large = || {
        let message = "Unable to create emoji. Image must be less than 512 KiB in size.";
        AppError::new(WHERE, "api.emoji.create.too_large.app_error", message, 413)
    };
    let unreadable = |why: String| {
        let message = "Unable to create emoji. Could not understand request.";
        AppError::bad(WHERE, "api.emoji.create.parse.app_error", message).detail(why)
    };
    let announced = call.header(header::CONTENT_LENGTH).parse::<usize>().ok();
    if announced.is_some_and(|len| len > EmojiState::IMAGE_BYTES_MAX + FIELD_BYTES_MAX) {
        return Err(too_large());
    }
    let mut request = Request::new(body);
    request.headers_mut().extend(call.headers.get(header::CONTENT_TYPE).map(|v| (header::CONTENT_TYPE, v.clone())));
    DefaultBodyLimit::disable().apply(&mut request);
    let mut form = Multipart::from_request(request, &()).await.map_err(|e| unreadable(e.to_string()))?;
    let (mut new, mut image) = (None, None);
    while let Some(mut field) = form.next_field().await.map_err(|e| unreadable(e.to_string()))? {
        match field.name() {
            Some("emoji") => {
                let text = read_capped(&mut field, FIELD_BYTES_MAX).await?;
                let parsed = serde_json::from_slice::<NewEmoji>(&text);
                new = Some(parsed.map_err(|e| AppError::body_param(WHERE, "emoji").detail(e))?);
            }
            Some("image") => {
                let read = read_capped(&mut field, EmojiState::IMAGE_BYTES_MAX).await;
                image = Some(read.map_err(|e| if e.status_code == 413 { too_large() } else { e })?);
            }
            Some(_) | None => return Err(unreadable("a field that is neither emoji nor image".to_owned())),
        }
    }
    let (core, session) = (call.core().clone(), call.session()?.clone());
    let make = move || {
        let new = new.ok_or_else(|| AppError::body_param(WHERE, "emoji"))?;
        let image = image.ok_or_else(|| AppError::body_param(WHERE, "createEmoji"))?;
        core.create_emoji(&session, &new, &image)
    };
    Reply::json(&call.state.imaging(make).await?)
}

pub(crate) fn list(call: &Call) -> AppResult<Reply> {
    let by_name = match call.query.get("sort") {
        None => false,
        Some("name") => true,
        Some(_) => return Err(AppError::url_param("getEmojiList", "sort")),
    };
    Reply::json(&call.core().emoji_list(by_name, call.page(), call.per_page())?)
}

pub(crate) fn get(call: &Call) -> AppResult<Reply> {
    Reply::json(&call.core().emoji(call.id("emoji_id")?)?)
}

pub(crate) fn by_name(call: &Call) -> AppResult<Reply> {
    let found = call.core().emoji_by_names(&[call.text("emoji_name").to_owned()])?;
    let missing = || AppError::not_found("GetEmojiByName", "app.emoji.get_by_name.no_result");
    Reply::json(found.first().ok_or_else(missing)?)
}

pub(crate) fn by_names(call: &Call) -> AppResult<Reply> {
    let names = call.texts("names")?;
    if names.len() > NAMES_MAX {
        let id = "api.emoji.get_multiple_by_name_too_many.request_error";
        let message = "Unable to get that many emojis by name. Only 200 emojis can be requested at once.";
        return Err(AppError::bad("getEmojisByNames", id, message));
    }
    Reply::json(&call.core().emoji_by_names(&names)?)
}

pub(crate) fn search(call: &Call) -> AppResult<Reply> {
    #[derive(Deserialize)]
    struct Body {
        #[serde(default)]
        term: String,
        #[serde(default)]
        prefix_only: bool,
    }
    let body: Body = call.json("term")?;
    if body.term.is_empty() {
        return Err(AppError::body_param("searchEmojis", "term"));
    }
    Reply::json(&call.core().search_emoji(&body.term, body.prefix_only, false)?)
}

pub(crate) fn autocomplete(call: &Call) -> AppResult<Reply> {
    let name = call.query.get("name").ok_or_else(|| AppError::url_param("autocompleteEmojis", "name"))?;
    Reply::json(&call.core().search_emoji(name, true, true)?)
}

pub(crate) fn image(call: &Call) -> AppResult<Reply> {
    let image = call.core().emoji_image(call.id("emoji_id")?)?;
    let mime = images::emoji_mime(&image).unwrap_or("application/octet-stream");
    Ok(Reply::bytes(mime, image).with(header::CACHE_CONTROL, "max-age=2592000, private"))
}

pub(crate) fn delete(call: &Call) -> AppResult<Reply> {
    call.core().delete_emoji(call.session()?, call.id("emoji_id")?)?;
    Reply::ok()
}
