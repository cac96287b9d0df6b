//! A user's settings.

use super::call::Call;
use super::reply::Reply;
use crate::error::{AppError, AppResult};
use crate::types::Preference;

/// Preferences saved or deleted by one request (the original's number).
const CHANGED_MAX: usize = 100;

pub(crate) fn all(call: &Call) -> AppResult<Reply> {
    Reply::json(&call.core().preferences(call.session()?, call.own_user()?)?)
}

pub(crate) fn in_category(call: &Call) -> AppResult<Reply> {
    Reply::json(&call.core().preferences_in(call.session()?, call.own_user()?, call.text("category"))?)
}

pub(crate) fn one(call: &Call) -> AppResult<Reply> {
    let (category, name) = (call.text("category"), call.text("preference_name"));
    Reply::json(&call.core().preference(call.session()?, call.own_user()?, category, name)?)
}

pub(crate) fn save(call: &Call) -> AppResult<Reply> {
    call.core().save_preferences(call.session()?, call.own_user()?, &changed(call)?)?;
    Reply::ok()
}

pub(crate) fn delete(call: &Call) -> AppResult<Reply> {
    call.core().delete_preferences(call.session()?, call.own_user()?, &changed(call)?)?;
    Reply::ok()
}

fn changed(call: &Call) -> AppResult<Vec<Preference>> {
    let preferences: Vec<Preference> = call.json("preferences")?;
    if preferences.is_empty() || preferences.len() > CHANGED_MAX {
        return Err(AppError::body_param("http", "preferences"));
    }
    Ok(preferences)
}
