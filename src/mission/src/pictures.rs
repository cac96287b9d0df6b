//! Pictures of users and teams, as others see them: 128 by 128 pixels, PNG. They are this node's own.

use image::ImageFormat;
use image::imageops::FilterType;
use model::Id;
use rusqlite::{Connection, params};

use crate::access::{require_in_team, require_self};
use crate::core::{Core, Tx};
use crate::error::{AppError, AppResult};
use crate::images;
use crate::rows::{get, run};
use crate::teams::{require_team, require_view};
use crate::types::Session;
use crate::users::require_user;

/// Edge of the pictures in pixels, as in the original.
const EDGE: u32 = 128;
/// Largest picture that is taken, in bytes. A photograph from a telephone has less.
pub(crate) const BYTES_MAX: usize = 20 * 1024 * 1024;

/// Cuts the middle out of a picture and brings it to size; `None` for what is no picture, or too large a one.
pub(crate) fn cut(bytes: &[u8]) -> Option<Vec<u8>> {
    let picture = images::decode(bytes)?.resize_to_fill(EDGE, EDGE, FilterType::Lanczos3);
    images::encode(&picture, ImageFormat::Png).map(|made| made.bytes)
}

fn undecodable(where_: &'static str, id: &'static str) -> AppError {
    AppError::bad(
        where_,
        id,
        "Could not decode the picture. PNG, JPEG, GIF, WebP and BMP up to 33 megapixels can be used.",
    )
}

fn stored(db: &Connection, owner: Id) -> rusqlite::Result<Option<Vec<u8>>> {
    get(db, "SELECT image FROM pictures WHERE owner = ?1", [owner.as_str()], |r| r.get(0))
}

impl Core {
    /// A user's picture, when they have set one.
    ///
    /// # Errors
    /// When the store fails.
    pub fn user_picture(&self, user: Id) -> AppResult<Option<Vec<u8>>> {
        self.read(|db| Ok(stored(db, user)?))
    }

    /// Sets a user's picture. Decodes and scales, so callers bound how many do so at once.
    ///
    /// # Errors
    /// 403 for others, 400 for what is no picture or too large a one.
    pub fn set_user_picture(&self, by: &Session, user: Id, bytes: &[u8]) -> AppResult<()> {
        require_self("setProfileImage", by, user)?;
        self.read(|db| require_user(db, user))?;
        let image = cut(bytes)
            .ok_or_else(|| undecodable("SetProfileImage", "api.user.upload_profile_user.decode.app_error"))?;
        self.write(|tx| {
            if stored(&tx.db, user)?.as_ref() == Some(&image) {
                return Ok(());
            }
            tx.store_picture(user, &image)?;
            tx.picture_changed(user, tx.now)
        })
    }

    /// Goes back to the initial on a colour.
    ///
    /// # Errors
    /// 403 for others, 404 for no such user.
    pub fn remove_user_picture(&self, by: &Session, user: Id) -> AppResult<()> {
        require_self("setDefaultProfileImage", by, user)?;
        self.write(|tx| {
            require_user(&tx.db, user)?;
            run(&tx.db, "DELETE FROM pictures WHERE owner = ?1", [user.as_str()])?;
            // Below zero, as the original marks pictures that it drew itself.
            tx.picture_changed(user, -tx.now)
        })
    }

    /// A team's picture, and when it was set.
    ///
    /// # Errors
    /// 403 for a closed team of others, 404 when there is none.
    pub fn team_picture(&self, by: &Session, team: Id) -> AppResult<(Vec<u8>, i64)> {
        self.read(|db| {
            let t = require_team(db, team)?.team;
            require_view(db, by, &t)?;
            let message = "Unable to read the team icon file.";
            let image = stored(db, team)?.ok_or_else(|| {
                AppError::new("GetTeamIcon", "api.team.get_team_icon.read_file.app_error", message, 404)
            })?;
            Ok((image, t.last_team_icon_update))
        })
    }

    /// Sets a team's picture. Decodes and scales, so callers bound how many do so at once.
    ///
    /// # Errors
    /// 403 without `manage_team`, 400 for what is no picture or too large a one.
    pub fn set_team_picture(&self, by: &Session, team: Id, bytes: &[u8]) -> AppResult<()> {
        self.read(|db| require_in_team("setTeamIcon", db, by, team, "manage_team"))?;
        let image = cut(bytes).ok_or_else(|| undecodable("SetTeamIcon", "api.team.set_team_icon.decode.app_error"))?;
        self.write(|tx| {
            tx.store_picture(team, &image)?;
            tx.team_picture_changed(team, tx.now)
        })
    }

    /// Takes a team's picture away.
    ///
    /// # Errors
    /// 403 without `manage_team`.
    pub fn remove_team_picture(&self, by: &Session, team: Id) -> AppResult<()> {
        self.write(|tx| {
            require_in_team("removeTeamIcon", &tx.db, by, team, "manage_team")?;
            run(&tx.db, "DELETE FROM pictures WHERE owner = ?1", [team.as_str()])?;
            tx.team_picture_changed(team, 0)
        })
    }
}

impl Tx<'_> {
    pub(crate) fn store_picture(&mut self, owner: Id, image: &[u8]) -> AppResult<()> {
        let sql = "INSERT INTO pictures (owner, image) VALUES (?1, ?2)
            ON CONFLICT (owner) DO UPDATE SET image = excluded.image";
        run(&self.db, sql, params![owner.as_str(), image])?;
        Ok(())
    }

    pub(crate) fn picture_changed(&mut self, user: Id, at: i64) -> AppResult<()> {
        let sql = "UPDATE users SET last_picture_update = ?2, update_at = max(?3, update_at + 1) WHERE id = ?1";
        run(&self.db, sql, params![user.as_str(), at, self.now])?;
        let user = require_user(&self.db, user)?.user;
        self.tell_user_updated(&user);
        Ok(())
    }

    fn team_picture_changed(&mut self, team: Id, at: i64) -> AppResult<()> {
        let sql = "UPDATE teams SET last_icon_update = ?2, update_at = max(?3, update_at + 1) WHERE id = ?1";
        run(&self.db, sql, params![team.as_str(), at, self.now])?;
        let team = require_team(&self.db, team)?.team;
        self.tell_team("update_team", &team).map_err(AppError::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::tests::picture;

    #[test]
    fn the_middle_of_a_picture_is_shown_undistorted() {
        let middle_is_red = image::RgbImage::from_fn(900, 300, |x, _| {
            if (300..600).contains(&x) { image::Rgb([220, 0, 0]) } else { image::Rgb([0, 0, 220]) }
        });
        let wide = images::encode(&middle_is_red.into(), ImageFormat::Png).unwrap().bytes;
        let shown = images::decode(&cut(&wide).unwrap()).unwrap().to_rgb8();
        assert_eq!(shown.dimensions(), (EDGE, EDGE));
        assert!([(3, 3), (64, 64), (124, 124)].into_iter().all(|(x, y)| shown.get_pixel(x, y).0[0] > 150));
        assert!(cut(&picture(900, 300, ImageFormat::Jpeg)).unwrap().len() < 8_000);
        assert_eq!(cut(b"<svg/>"), None);
    }
}
