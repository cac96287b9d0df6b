//! The sidebar: how a user groups the channels of a team.

use model::Id;

use super::call::Call;
use super::reply::Reply;
use crate::error::{AppError, AppResult};
use crate::types::SidebarCategory;

fn place(call: &Call) -> AppResult<(Id, Id)> {
    Ok((call.own_user()?, call.id("team_id")?))
}

pub(crate) fn all(call: &Call) -> AppResult<Reply> {
    let (user, team) = place(call)?;
    Reply::json(&call.core().categories(call.session()?, user, team)?)
}

pub(crate) fn one(call: &Call) -> AppResult<Reply> {
    let (user, team) = place(call)?;
    Reply::json(&call.core().category(call.session()?, user, team, call.text("category_id"))?)
}

pub(crate) fn create(call: &Call) -> AppResult<Reply> {
    let (user, team) = place(call)?;
    let new: SidebarCategory = call.json("category")?;
    belongs(&new, user, team)?;
    Reply::json(&call.core().create_category(call.session()?, user, team, &new)?)
}

pub(crate) fn update_all(call: &Call) -> AppResult<Reply> {
    let (user, team) = place(call)?;
    let categories: Vec<SidebarCategory> = call.json("category")?;
    Reply::json(&call.core().update_categories(call.session()?, user, team, &categories)?)
}

pub(crate) fn update_one(call: &Call) -> AppResult<Reply> {
    let (user, team) = place(call)?;
    let mut category: SidebarCategory = call.json("category")?;
    belongs(&category, user, team)?;
    category.id = call.text("category_id").to_owned();
    let updated = call.core().update_categories(call.session()?, user, team, &[category])?;
    Reply::json(updated.first().ok_or_else(|| AppError::url_param("updateCategory", "category_id"))?)
}

pub(crate) fn delete(call: &Call) -> AppResult<Reply> {
    let (user, team) = place(call)?;
    call.core().delete_category(call.session()?, user, team, call.text("category_id"))?;
    Reply::ok()
}

pub(crate) fn order(call: &Call) -> AppResult<Reply> {
    let (user, team) = place(call)?;
    Reply::json(&call.core().categories(call.session()?, user, team)?.order)
}

pub(crate) fn set_order(call: &Call) -> AppResult<Reply> {
    let (user, team) = place(call)?;
    let order: Vec<String> = call.json("category")?;
    Reply::json(&call.core().set_category_order(call.session()?, user, team, &order)?)
}

fn belongs(category: &SidebarCategory, user: Id, team: Id) -> AppResult<()> {
    if category.user_id == user && category.team_id == team {
        return Ok(());
    }
    Err(AppError::body_param("http", "category"))
}
