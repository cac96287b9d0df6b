//! Bots and what they belong to.

use model::Id;

use super::call::Call;
use super::reply::Reply;
use crate::error::AppResult;
use crate::types::{Bot, BotPatch, UserPatch};

fn bot_id(call: &Call) -> AppResult<Id> {
    call.id("bot_user_id")
}

fn show(bot: &Bot) -> AppResult<Reply> {
    Ok(Reply::json(bot)?.etag(&[&bot.user_id, &bot.update_at]))
}

pub(crate) fn create(call: &Call) -> AppResult<Reply> {
    let new: BotPatch = call.json("bot")?;
    Reply::created(&call.core().create_bot(call.session()?, &new)?)
}

pub(crate) fn list(call: &Call) -> AppResult<Reply> {
    let (deleted, orphaned) = (call.query.flag("include_deleted"), call.query.flag("only_orphaned"));
    let bots = call.core().bots(call.session()?, deleted, orphaned, call.page(), call.per_page())?;
    let newest = bots.iter().max_by_key(|bot| bot.update_at);
    let (id, at) = newest.map_or(("0", 0), |bot| (bot.user_id.as_str(), bot.update_at));
    Ok(Reply::json(&bots)?.etag(&[&id, &at, &0, &bots.len()]))
}

pub(crate) fn get(call: &Call) -> AppResult<Reply> {
    show(&call.core().bot(call.session()?, bot_id(call)?, call.query.flag("include_deleted"))?)
}

pub(crate) fn patch(call: &Call) -> AppResult<Reply> {
    let patch: BotPatch = call.json("bot")?;
    Reply::json(&call.core().patch_bot(call.session()?, bot_id(call)?, &patch)?)
}

pub(crate) fn disable(call: &Call) -> AppResult<Reply> {
    Reply::json(&call.core().set_bot_active(call.session()?, bot_id(call)?, false)?)
}

pub(crate) fn enable(call: &Call) -> AppResult<Reply> {
    Reply::json(&call.core().set_bot_active(call.session()?, bot_id(call)?, true)?)
}

pub(crate) fn assign(call: &Call) -> AppResult<Reply> {
    Reply::json(&call.core().assign_bot(call.session()?, bot_id(call)?, call.user()?)?)
}

/// A bot becomes an account with a password.
pub(crate) fn convert_to_user(call: &Call) -> AppResult<Reply> {
    let patch: UserPatch = call.json("userPatch")?;
    let admin = call.query.flag("set_system_admin");
    let user = call.core().convert_bot_to_user(call.session()?, bot_id(call)?, &patch, admin)?;
    Reply::json(&user.sanitized_for(call.session.as_ref()))
}

/// An account becomes a bot.
pub(crate) fn convert_to_bot(call: &Call) -> AppResult<Reply> {
    Reply::json(&call.core().convert_user_to_bot(call.session()?, call.user()?)?)
}
