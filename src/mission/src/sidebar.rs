//! Sidebar categories: this node's own, never replicated.
//!
//! A sidebar is stored as its ordered categories; channels that none of them lists belong to the standard
//! category of their kind, so that a join needs no write here.

use std::collections::BTreeSet;

use model::Id;
use rusqlite::{Connection, params};

use crate::access::{require_in_team, require_self};
use crate::core::{Core, Tx, random_id};
use crate::error::{AppError, AppResult};
use crate::events::Broadcast;
use crate::rows::{all, first_id, get, run, to_json};
use crate::types::{OrderedCategories, Session, SidebarCategory};

/// Most categories of one sidebar; far above what a person arranges.
const CATEGORIES_MAX: usize = 200;

fn standard(user: Id, team: Id) -> Vec<SidebarCategory> {
    [("favorites", "Favorites", ""), ("channels", "Channels", ""), ("direct_messages", "Direct Messages", "recent")]
        .into_iter()
        .map(|(kind, name, sorting)| SidebarCategory {
            id: format!("{kind}_{user}_{team}"),
            user_id: user,
            team_id: team,
            sort_order: 0,
            sorting: sorting.to_owned(),
            kind: kind.to_owned(),
            display_name: name.to_owned(),
            muted: false,
            collapsed: false,
            channel_ids: Vec::new(),
        })
        .collect()
}

fn load(db: &Connection, user: Id, team: Id) -> AppResult<Vec<SidebarCategory>> {
    let sql = "SELECT categories FROM sidebars WHERE user_id = ?1 AND team_id = ?2";
    let stored: Option<String> = get(db, sql, [user.as_str(), team.as_str()], |r| r.get(0))?;
    let mut categories: Vec<SidebarCategory> = match stored {
        Some(text) => serde_json::from_str(&text).map_err(|e| AppError::storage("sidebar", e))?,
        None => standard(user, team),
    };
    let mine = |kinds: &str| {
        let sql = format!(
            "SELECT c.id FROM channels c JOIN channel_members m ON m.channel_id = c.id
             WHERE m.user_id = ?1 AND m.delete_at = 0 AND c.delete_at = 0 AND c.team_id IN (?2, '') AND c.type IN {kinds}
             ORDER BY c.display_name, c.id"
        );
        all(db, &sql, [user.as_str(), team.as_str()], first_id)
    };
    let (open, direct) = (mine("('O', 'P')")?, mine("('D', 'G')")?);
    let here: BTreeSet<Id> = open.iter().chain(&direct).copied().collect();
    let mut placed = BTreeSet::new();
    for category in &mut categories {
        category.channel_ids.retain(|c| here.contains(c) && placed.insert(*c));
    }
    for (kind, channels) in [("channels", open), ("direct_messages", direct)] {
        if let Some(category) = categories.iter_mut().find(|c| c.kind == kind) {
            category.channel_ids.extend(channels.into_iter().filter(|c| !placed.contains(c)));
        }
    }
    for (i, category) in categories.iter_mut().enumerate() {
        category.sort_order = i as i64 * 10;
    }
    Ok(categories)
}

fn store(tx: &mut Tx<'_>, user: Id, team: Id, categories: &[SidebarCategory]) -> AppResult<()> {
    run(
        &tx.db,
        "INSERT INTO sidebars (user_id, team_id, categories) VALUES (?1, ?2, ?3)
         ON CONFLICT (user_id, team_id) DO UPDATE SET categories = excluded.categories",
        params![user.as_str(), team.as_str(), to_json(&categories)],
    )?;
    Ok(())
}

/// Puts a channel among the user's favourites in a team.
pub(crate) fn favor(tx: &mut Tx<'_>, user: Id, team: Id, channel: Id) -> AppResult<()> {
    let mut categories = load(&tx.db, user, team)?;
    for category in &mut categories {
        category.channel_ids.retain(|c| *c != channel);
        if category.kind == "favorites" {
            category.channel_ids.push(channel);
        }
    }
    store(tx, user, team, &categories)
}

/// The channels among the user's favourites in a team.
pub(crate) fn favorites(db: &Connection, user: Id, team: Id) -> AppResult<BTreeSet<Id>> {
    let categories = load(db, user, team)?;
    Ok(categories.into_iter().filter(|c| c.kind == "favorites").flat_map(|c| c.channel_ids).collect())
}

fn missing() -> AppError {
    AppError::not_found("GetSidebarCategory", "app.channel.sidebar_categories.app_error")
}

fn tell(tx: &mut Tx<'_>, event: &'static str, user: Id, team: Id, fill: impl FnOnce(Broadcast) -> Broadcast) {
    let mut broadcast = fill(Broadcast::to_user(event, user));
    broadcast.team_id = Some(team);
    tx.tell(broadcast);
}

fn allow(where_: &'static str, db: &Connection, by: &Session, user: Id, team: Id) -> AppResult<()> {
    require_self(where_, by, user)?;
    require_in_team(where_, db, by, team, "view_team")
}

impl Core {
    /// A user's sidebar in a team.
    ///
    /// # Errors
    /// 403 for others'.
    pub fn categories(&self, by: &Session, user: Id, team: Id) -> AppResult<OrderedCategories> {
        self.read(|db| {
            allow("getCategoriesForTeamForUser", db, by, user, team)?;
            let categories = load(db, user, team)?;
            let order = categories.iter().map(|c| c.id.clone()).collect();
            Ok(OrderedCategories { categories, order })
        })
    }

    /// One category.
    ///
    /// # Errors
    /// 403 for others', 404 when there is none.
    pub fn category(&self, by: &Session, user: Id, team: Id, id: &str) -> AppResult<SidebarCategory> {
        let sidebar = self.categories(by, user, team)?;
        sidebar.categories.into_iter().find(|c| c.id == id).ok_or_else(missing)
    }

    /// Makes a category of the user's own.
    ///
    /// # Errors
    /// 403 for others', 400 for a bad name or too many.
    pub fn create_category(
        &self,
        by: &Session,
        user: Id,
        team: Id,
        new: &SidebarCategory,
    ) -> AppResult<SidebarCategory> {
        if new.display_name.trim().is_empty() || new.display_name.chars().count() > 64 {
            return Err(AppError::body_param("createCategoryForTeamForUser", "category"));
        }
        self.write(|tx| {
            allow("createCategoryForTeamForUser", &tx.db, by, user, team)?;
            let mut categories = load(&tx.db, user, team)?;
            if categories.len() >= CATEGORIES_MAX {
                return Err(AppError::body_param("createCategoryForTeamForUser", "category"));
            }
            let category = SidebarCategory {
                id: random_id().to_string(),
                user_id: user,
                team_id: team,
                kind: "custom".to_owned(),
                ..new.clone()
            };
            take_out(&mut categories, &category.channel_ids);
            // Directly after the favourites, as the real server.
            let at = categories.iter().position(|c| c.kind == "favorites").map_or(0, |i| i + 1);
            categories.insert(at, category.clone());
            store(tx, user, team, &categories)?;
            tell(tx, "sidebar_category_created", user, team, |b| b.with("category_id", category.id.as_str()));
            load(&tx.db, user, team)?.into_iter().find(|c| c.id == category.id).ok_or_else(missing)
        })
    }

    /// Changes categories, and which channels are in them.
    ///
    /// # Errors
    /// 403 for others', 404 when one does not exist; then none is changed.
    pub fn update_categories(
        &self,
        by: &Session,
        user: Id,
        team: Id,
        changed: &[SidebarCategory],
    ) -> AppResult<Vec<SidebarCategory>> {
        self.write(|tx| {
            allow("updateCategoriesForTeamForUser", &tx.db, by, user, team)?;
            let mut categories = load(&tx.db, user, team)?;
            for change in changed {
                take_out(&mut categories, &change.channel_ids);
                let category = categories.iter_mut().find(|c| c.id == change.id).ok_or_else(missing)?;
                if category.kind == "custom" {
                    category.display_name.clone_from(&change.display_name);
                }
                category.sorting.clone_from(&change.sorting);
                category.muted = change.muted;
                category.collapsed = change.collapsed;
                category.channel_ids.clone_from(&change.channel_ids);
            }
            store(tx, user, team, &categories)?;
            let mut updated = load(&tx.db, user, team)?;
            updated.retain(|c| changed.iter().any(|change| change.id == c.id));
            tell(tx, "sidebar_category_updated", user, team, |b| b.with_text("updatedCategories", &updated));
            Ok(updated)
        })
    }

    /// Removes a category of the user's own; its channels go back to the standard ones.
    ///
    /// # Errors
    /// 403 for others', 404 when there is none, 400 for a standard one.
    pub fn delete_category(&self, by: &Session, user: Id, team: Id, id: &str) -> AppResult<()> {
        self.write(|tx| {
            allow("deleteCategoryForTeamForUser", &tx.db, by, user, team)?;
            let mut categories = load(&tx.db, user, team)?;
            let at = categories.iter().position(|c| c.id == id).ok_or_else(missing)?;
            if categories[at].kind != "custom" {
                return Err(AppError::url_param("deleteCategoryForTeamForUser", "category_id"));
            }
            categories.remove(at);
            store(tx, user, team, &categories)?;
            tell(tx, "sidebar_category_deleted", user, team, |b| b.with("category_id", id));
            Ok(())
        })
    }

    /// Sets the order of a sidebar's categories.
    ///
    /// # Errors
    /// 403 for others', 400 when the ids are not exactly those of the sidebar.
    pub fn set_category_order(&self, by: &Session, user: Id, team: Id, order: &[String]) -> AppResult<Vec<String>> {
        self.write(|tx| {
            allow("updateCategoryOrderForTeamForUser", &tx.db, by, user, team)?;
            let mut categories = load(&tx.db, user, team)?;
            let have: BTreeSet<&String> = categories.iter().map(|c| &c.id).collect();
            if order.len() != categories.len() || order.iter().collect::<BTreeSet<_>>() != have {
                return Err(AppError::body_param("updateCategoryOrderForTeamForUser", "category order"));
            }
            categories.sort_by_key(|c| order.iter().position(|id| *id == c.id));
            store(tx, user, team, &categories)?;
            tell(tx, "sidebar_category_order_updated", user, team, |b| b.with("order", order.to_vec()));
            Ok(order.to_vec())
        })
    }
}

fn take_out(categories: &mut [SidebarCategory], channels: &[Id]) {
    for category in categories {
        category.channel_ids.retain(|c| !channels.contains(c));
    }
}

#[cfg(test)]
mod tests {
    use crate::testkit::Node;

    #[test]
    fn channels_move_between_categories_and_come_back_when_theirs_goes() {
        let node = Node::new(1);
        let alice = node.user("alice");
        let (team, square) = node.team(&alice, "mission");
        let me = alice.user_id;
        let sidebar = || node.core.categories(&alice, me, team.id).unwrap();
        let kinds: Vec<String> = sidebar().categories.into_iter().map(|c| c.kind).collect();
        assert_eq!(kinds, ["favorites", "channels", "direct_messages"]);
        assert_eq!(sidebar().categories[1].channel_ids.len(), 2);
        let mut new = sidebar().categories[0].clone();
        new.display_name = "作戦".to_owned();
        new.channel_ids = vec![square.id];
        let mine = node.core.create_category(&alice, me, team.id, &new).unwrap();
        assert_eq!(sidebar().categories[1].channel_ids, [square.id]);
        assert_eq!(sidebar().categories[2].channel_ids.len(), 1);
        let mut order = sidebar().order;
        order.reverse();
        node.core.set_category_order(&alice, me, team.id, &order).unwrap();
        assert_eq!(sidebar().order, order);
        node.core.delete_category(&alice, me, team.id, &mine.id).unwrap();
        assert_eq!(sidebar().categories.iter().map(|c| c.channel_ids.len()).sum::<usize>(), 2);
        assert_eq!(node.core.set_category_order(&alice, me, team.id, &order).unwrap_err().status_code, 400);
    }
}
