//! Pictures of users and teams.

use axum::body::Body;
use axum::extract::{DefaultBodyLimit, FromRequest as _, Multipart, Request};
use bytes::Bytes;
use http::header;

use super::call::Call;
use super::files::read_capped;
use super::picture;
use super::reply::Reply;
use crate::error::{AppError, AppResult};
use crate::pictures::BYTES_MAX;

const DAY_S: u32 = 24 * 60 * 60;
/// What a form adds to its one file.
const FORM_OVERHEAD: usize = 10 * 1024;

/// How the errors of one kind of picture are called.
struct Names {
    where_: &'static str,
    parse: (&'static str, u16),
    no_file: &'static str,
    too_large: &'static str,
}

const USER: Names = Names {
    where_: "uploadProfileImage",
    parse: ("api.user.upload_profile_user.parse.app_error", 500),
    no_file: "api.user.upload_profile_user.no_file.app_error",
    too_large: "api.user.upload_profile_user.too_large.app_error",
};

const TEAM: Names = Names {
    where_: "setTeamIcon",
    parse: ("api.team.set_team_icon.parse.app_error", 400),
    no_file: "api.team.set_team_icon.no_file.app_error",
    too_large: "api.team.set_team_icon.too_large.app_error",
};

/// The file `image` of a form.
async fn image_of_form(call: &Call, body: Body, names: &Names) -> AppResult<Bytes> {
    let too_large = || AppError::new(names.where_, names.too_large, "The picture is larger than 20 MiB.", 413);
    let (id, status) = names.parse;
    let unreadable = |why: axum::extract::multipart::MultipartError| {
        AppError::new(names.where_, id, "Could not parse the form.", status).detail(why)
    };
    let announced = call.header(header::CONTENT_LENGTH).parse::<usize>().ok();
    if announced.is_some_and(|len| len > BYTES_MAX + FORM_OVERHEAD) {
        return Err(too_large());
    }
    let mut request = Request::new(body);
    request.headers_mut().extend(call.headers.get(header::CONTENT_TYPE).map(|v| (header::CONTENT_TYPE, v.clone())));
    DefaultBodyLimit::disable().apply(&mut request);
    let form = Multipart::from_request(request, &()).await;
    let mut form = form.map_err(|e| AppError::new(names.where_, id, "Could not parse the form.", status).detail(e))?;
    while let Some(mut field) = form.next_field().await.map_err(unreadable)? {
        if field.name() == Some("image") {
            let read = read_capped(&mut field, BYTES_MAX).await;
            return read.map_err(|e| if e.status_code == 413 { too_large() } else { e });
        }
    }
    Err(AppError::bad(names.where_, names.no_file, "There is no file under the name image in the form."))
}

/// `POST /users/{id}/image`.
pub(crate) async fn set_user(call: Call, body: Body) -> AppResult<Reply> {
    let user = call.own_user()?;
    let image = image_of_form(&call, body, &USER).await?;
    let (core, session) = (call.core().clone(), call.session()?.clone());
    call.state.imaging(move || core.set_user_picture(&session, user, &image)).await?;
    Reply::ok()
}

pub(crate) fn remove_user(call: &Call) -> AppResult<Reply> {
    call.core().remove_user_picture(call.session()?, call.user()?)?;
    Reply::ok()
}

pub(crate) fn user(call: &Call) -> AppResult<Reply> {
    let user = call.core().user(call.user()?)?;
    let image = call.core().user_picture(user.id)?;
    let image = image.unwrap_or_else(|| picture::initials(&user.username, user.id));
    Ok(png(image).with(header::ETAG, &user.last_picture_update.to_string()))
}

pub(crate) fn default_of_user(call: &Call) -> AppResult<Reply> {
    let user = call.core().user(call.user()?)?;
    Ok(png(picture::initials(&user.username, user.id)))
}

fn png(image: Vec<u8>) -> Reply {
    Reply::bytes("image/png", image).with(header::CACHE_CONTROL, &format!("max-age={DAY_S}, private"))
}

/// `POST /teams/{id}/image`.
pub(crate) async fn set_team(call: Call, body: Body) -> AppResult<Reply> {
    let (team, session, core) = (call.id("team_id")?, call.session()?.clone(), call.core().clone());
    let asked = (session.clone(), core.clone());
    let may = call.state.blocking(move || Ok(asked.1.may_in_team(&asked.0, team, "manage_team"))).await?;
    if !may {
        // Before the picture is read: a form of strangers is not worth it.
        return Err(AppError::permissions("setTeamIcon", "manage_team"));
    }
    let image = image_of_form(&call, body, &TEAM).await?;
    call.state.imaging(move || core.set_team_picture(&session, team, &image)).await?;
    Reply::ok()
}

pub(crate) fn remove_team(call: &Call) -> AppResult<Reply> {
    call.core().remove_team_picture(call.session()?, call.id("team_id")?)?;
    Reply::ok()
}

pub(crate) fn team(call: &Call) -> AppResult<Reply> {
    let (image, at) = call.core().team_picture(call.session()?, call.id("team_id")?)?;
    Ok(png(image).with(header::ETAG, &at.to_string()))
}
