//! Local passwords for people who have none here: a link that is good once sets one.
//!
//! Passwords do not travel and a directory never gives them away, so whoever is to sign in while the directory is out of reach sets a
//! password at this node before. The link is a secret for as long as it is good; only its hash is stored.

use model::{Id, UnixMillis};
use rusqlite::params;

use crate::audits::Noted;
use crate::core::{Core, random_id};
use crate::error::{AppError, AppResult};
use crate::rows::{all, get, id, run, user};
use crate::sessions::token_hash;
use crate::types::User;
use crate::users::{hash_password, require_user};

/// Two ids of 26 characters (256 random bits) and filling: official clients take tokens of 64 characters only.
const TOKEN_LEN: usize = 64;

/// A link that is good once.
#[derive(Clone, PartialEq, Eq)]
pub struct Enrolment {
    /// Whose password it sets.
    pub user: Id,
    /// Their name.
    pub username: String,
    /// The secret.
    pub token: String,
    /// Until when it is good.
    pub expires_at: UnixMillis,
}

impl std::fmt::Debug for Enrolment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { user, username, expires_at, token: _ } = self;
        f.debug_struct("Enrolment")
            .field("user", user)
            .field("username", username)
            .field("expires_at", expires_at)
            .finish()
    }
}

fn refused(id: &'static str, message: &'static str) -> AppError {
    AppError::bad("resetPassword", id, message)
}

fn invalid() -> AppError {
    refused("api.user.reset_password.invalid_link.app_error", "The reset link does not appear to be valid.")
}

impl Core {
    /// Makes a link with which the user sets a password here, for `valid_ms`; an earlier one of theirs is good no longer. For the
    /// operator: whoever has the link becomes the user.
    ///
    /// # Errors
    /// 404 for no such user, 400 for bots, deactivated accounts and people whose profile has not arrived yet.
    pub fn operator_enrols(&self, user: Id, valid_ms: i64) -> AppResult<Enrolment> {
        let token = format!("{}{}{}", random_id(), random_id(), &random_id().as_str()[..TOKEN_LEN - 52]);
        let enrolment = self.write(|tx| {
            let row = require_user(&tx.db, user)?;
            if row.user.is_bot || row.placeholder || row.user.delete_at > 0 {
                let message = "Only people with an active account can set a password.";
                return Err(AppError::bad("enrol", "holdfast.enrolment.no_person.app_error", message));
            }
            let expires_at = tx.now.saturating_add(valid_ms);
            run(
                &tx.db,
                "DELETE FROM enrolments WHERE user_id = ?1 OR expires_at < ?2",
                params![user.as_str(), tx.now],
            )?;
            run(
                &tx.db,
                "INSERT INTO enrolments (token_hash, user_id, create_at, expires_at) VALUES (?1, ?2, ?3, ?4)",
                params![token_hash(&token), user.as_str(), tx.now, expires_at],
            )?;
            Ok(Enrolment { user, username: row.user.username, token, expires_at: UnixMillis(expires_at) })
        })?;
        let extra = format!("link for {}", enrolment.username);
        self.note_audit(&Noted { by: None, action: "holdfast directory enroll", extra: &extra, address: "" })?;
        Ok(enrolment)
    }

    /// People of a directory with an active account who have no password here.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn without_password(&self) -> AppResult<Vec<User>> {
        let sql = "SELECT * FROM users WHERE entra <> '' AND password = '' AND delete_at = 0 ORDER BY username";
        self.read(|db| Ok(all(db, sql, [], user)?))
    }

    /// Whose password the link sets.
    ///
    /// # Errors
    /// 400 for a link that is not good (any longer), with the ids of the real server.
    pub fn enrolling(&self, token: &str) -> AppResult<User> {
        let now = self.0.clock.now().0;
        self.read(|db| {
            let sql = "SELECT user_id, expires_at FROM enrolments WHERE token_hash = ?1";
            let found = get(db, sql, [token_hash(token)], |r| Ok((id(r, "user_id")?, r.get::<_, i64>("expires_at")?)))?;
            let (user, expires_at) = found.ok_or_else(invalid)?;
            if expires_at < now {
                let id = "api.user.reset_password.link_expired.app_error";
                return Err(refused(id, "The link has expired. Ask for a new one."));
            }
            let row = require_user(db, user)?;
            if row.user.delete_at > 0 { Err(invalid()) } else { Ok(row.user) }
        })
    }

    /// Sets the password of whoever has this link and asks from `address`, and ends their sessions. The link is good no longer.
    ///
    /// # Errors
    /// 400 as [`Core::enrolling`], and for a weak password, after which the link is still good.
    pub fn enrol(&self, token: &str, password: &str, address: &str) -> AppResult<User> {
        self.enrolling(token)?;
        self.0.check_password(password)?;
        // Outside the transaction: a hash takes long on purpose.
        let hash = hash_password(password)?;
        let user = self.enrolling(token)?;
        let user = self.write(|tx| {
            // Of two who come at once with one link, the second finds none.
            if run(&tx.db, "DELETE FROM enrolments WHERE token_hash = ?1", [token_hash(token)])? == 0 {
                return Err(invalid());
            }
            tx.put_password(user.id, &hash, "")?;
            Ok(user)
        })?;
        let extra = format!("{} set a password by link", user.username);
        self.note_audit(&Noted { by: None, action: "enrol", extra: &extra, address })?;
        Ok(user)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit::{Node, PASSWORD};
    use crate::types::{ClientInfo, Login};

    fn login(node: &Node, password: &str) -> AppResult<User> {
        let login = Login { login_id: "bob".to_owned(), password: password.to_owned(), ..Login::default() };
        node.core.login(&login, &ClientInfo::default()).map(|(user, _)| user)
    }

    const NEW: &str = "a new and longer one";

    #[test]
    fn a_link_is_good_once_and_for_its_time_and_ends_what_was_before() {
        let node = Node::new(1);
        node.user("alice");
        let bob = node.user("bob");
        let old = node.core.operator_enrols(bob.user_id, 60_000).unwrap();
        let link = node.core.operator_enrols(bob.user_id, 60_000).unwrap();
        assert_eq!(
            node.core.enrol(&old.token, NEW, "").unwrap_err().id,
            "api.user.reset_password.invalid_link.app_error"
        );
        assert_eq!(node.core.enrol(&link.token, "short", "").unwrap_err().status_code, 400);
        assert_eq!(node.core.enrolling(&link.token).unwrap().username, "bob", "a weak password does not use it up");
        node.core.enrol(&link.token, NEW, "192.0.2.1").unwrap();
        assert_eq!(node.core.session(&bob.token).unwrap_err().status_code, 401);
        login(&node, NEW).unwrap();
        login(&node, PASSWORD).unwrap_err();
        assert_eq!(node.core.enrol(&link.token, PASSWORD, "").unwrap_err().status_code, 400);
        let late = node.core.operator_enrols(bob.user_id, 60_000).unwrap();
        node.advance(60_001);
        let expired = node.core.enrol(&late.token, PASSWORD, "").unwrap_err();
        assert_eq!(expired.id, "api.user.reset_password.link_expired.app_error");
    }

    #[test]
    fn neither_the_store_nor_a_log_line_holds_the_secret() {
        let node = Node::new(1);
        node.user("alice");
        let bob = node.user("bob");
        let link = node.core.operator_enrols(bob.user_id, 60_000).unwrap();
        assert_eq!(link.token.len(), TOKEN_LEN);
        assert!(!format!("{link:?}").contains(&link.token));
        let rows: i64 = node
            .core
            .read(|db| {
                crate::rows::count(db, "SELECT count(*) FROM enrolments WHERE instr(token_hash, ?1) > 0", [&link.token])
            })
            .unwrap();
        assert_eq!(rows, 0);
        let alice = node.login("alice");
        node.core.enrol(&link.token, NEW, "192.0.2.1").unwrap();
        let noted = node.core.audits(&alice, 0, 10).unwrap();
        assert!(noted.iter().any(|a| a.ip_address == "192.0.2.1" && a.extra_info.contains("bob")), "{noted:?}");
        assert!(noted.iter().any(|a| a.action == "holdfast directory enroll"));
        assert!(noted.iter().all(|a| !a.extra_info.contains(&link.token)));
    }

    #[test]
    fn two_who_come_at_once_with_one_link_set_one_password() {
        let node = Node::new(1);
        node.user("alice");
        let bob = node.user("bob");
        let link = node.core.operator_enrols(bob.user_id, 60_000).unwrap();
        let ended: Vec<AppResult<User>> = std::thread::scope(|scope| {
            let tries: Vec<_> = (0..4)
                .map(|n| {
                    let (core, token) = (&node.core, &link.token);
                    scope.spawn(move || core.enrol(token, &format!("password number {n}"), ""))
                })
                .collect();
            tries.into_iter().map(|t| t.join().unwrap()).collect()
        });
        let won: Vec<usize> = (0..4).filter(|n| ended[*n].is_ok()).collect();
        assert_eq!(won.len(), 1, "{ended:?}");
        login(&node, &format!("password number {}", won[0])).unwrap();
    }
}
