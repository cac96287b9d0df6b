//! User settings: this node's own, never replicated.

use model::Id;
use rusqlite::{Row, params};

use crate::access::require_self;
use crate::core::Core;
use crate::error::{AppError, AppResult};
use crate::events::Broadcast;
use crate::rows::{all, get, id, run};
use crate::types::{Preference, Session};

const CATEGORY_MAX_BYTES: usize = 32;
const NAME_MAX_BYTES: usize = 32;
const VALUE_MAX_RUNES: usize = 20_000;
/// Most settings in one request, as the real server.
const BATCH_MAX: usize = 100;

fn preference(r: &Row<'_>) -> rusqlite::Result<Preference> {
    Ok(Preference {
        user_id: id(r, "user_id")?,
        category: r.get("category")?,
        name: r.get("name")?,
        value: r.get("value")?,
    })
}

impl Core {
    /// Every setting of a user.
    ///
    /// # Errors
    /// 403 for others'.
    pub fn preferences(&self, by: &Session, user: Id) -> AppResult<Vec<Preference>> {
        require_self("getPreferences", by, user)?;
        self.read(|db| Ok(all(db, "SELECT * FROM preferences WHERE user_id = ?1", [user.as_str()], preference)?))
    }

    /// The settings of one category.
    ///
    /// # Errors
    /// 403 for others', 404 when there is none.
    pub fn preferences_in(&self, by: &Session, user: Id, category: &str) -> AppResult<Vec<Preference>> {
        require_self("getPreferencesByCategory", by, user)?;
        self.read(|db| {
            let sql = "SELECT * FROM preferences WHERE user_id = ?1 AND category = ?2";
            let found = all(db, sql, [user.as_str(), category], preference)?;
            if found.is_empty() {
                let id = "api.preference.preferences_category.get.app_error";
                return Err(AppError::not_found("GetPreferenceByCategoryForUser", id));
            }
            Ok(found)
        })
    }

    /// One setting.
    ///
    /// # Errors
    /// 403 for others', 404 when there is none.
    pub fn preference(&self, by: &Session, user: Id, category: &str, name: &str) -> AppResult<Preference> {
        require_self("getPreferenceByCategoryAndName", by, user)?;
        self.read(|db| {
            let sql = "SELECT * FROM preferences WHERE user_id = ?1 AND category = ?2 AND name = ?3";
            get(db, sql, [user.as_str(), category, name], preference)?.ok_or_else(|| {
                AppError::not_found("GetPreferenceByCategoryAndNameForUser", "app.preference.get.app_error")
            })
        })
    }

    /// Sets settings.
    ///
    /// # Errors
    /// 403 for others', 400 for bad ones; then none is set.
    pub fn save_preferences(&self, by: &Session, user: Id, preferences: &[Preference]) -> AppResult<()> {
        require_self("updatePreferences", by, user)?;
        check(user, preferences)?;
        self.write(|tx| {
            for p in preferences {
                run(
                    &tx.db,
                    "INSERT INTO preferences (user_id, category, name, value) VALUES (?1, ?2, ?3, ?4)
                     ON CONFLICT (user_id, category, name) DO UPDATE SET value = excluded.value",
                    params![user.as_str(), p.category, p.name, p.value],
                )?;
            }
            tx.tell(Broadcast::to_user("preferences_changed", user).with_text("preferences", &preferences));
            Ok(())
        })
    }

    /// Removes settings.
    ///
    /// # Errors
    /// 403 for others', 400 for bad ones; then none is removed.
    pub fn delete_preferences(&self, by: &Session, user: Id, preferences: &[Preference]) -> AppResult<()> {
        require_self("deletePreferences", by, user)?;
        check(user, preferences)?;
        self.write(|tx| {
            for p in preferences {
                let sql = "DELETE FROM preferences WHERE user_id = ?1 AND category = ?2 AND name = ?3";
                run(&tx.db, sql, [user.as_str(), &p.category, &p.name])?;
            }
            tx.tell(Broadcast::to_user("preferences_deleted", user).with_text("preferences", &preferences));
            Ok(())
        })
    }
}

fn check(user: Id, preferences: &[Preference]) -> AppResult<()> {
    if preferences.is_empty() || preferences.len() > BATCH_MAX {
        return Err(AppError::body_param("updatePreferences", "preferences"));
    }
    for p in preferences {
        if p.user_id != user {
            return Err(AppError::new(
                "savePreferences",
                "api.preference.update_preferences.set.app_error",
                "Unable to set preferences for another user.",
                403,
            ));
        }
        let fits = !p.category.is_empty()
            && p.category.len() <= CATEGORY_MAX_BYTES
            && p.name.len() <= NAME_MAX_BYTES
            && p.value.chars().count() <= VALUE_MAX_RUNES;
        if !fits {
            return Err(AppError::bad(
                "Preference.IsValid",
                "model.preference.is_valid.category.app_error",
                "The preference's category, name or value is not valid.",
            ));
        }
    }
    Ok(())
}
