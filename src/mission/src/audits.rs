//! Who did what to accounts and sessions, and from where: for administrators, and for each user about themselves.
//!
//! Kept here alone, the newest [`AUDITS_MAX`].

use model::Id;
use rusqlite::{Row, params};

use crate::access::{require, require_self};
use crate::core::{Core, random_id};
use crate::error::AppResult;
use crate::rows::{all, id, opt_id, run};
use crate::types::{Audit, Session};
use crate::users::page;

/// One takes some 200 bytes: 10 MB at most.
const AUDITS_MAX: i64 = 50_000;
const EXTRA_MAX_RUNES: usize = 256;

fn audit_row(r: &Row<'_>) -> rusqlite::Result<Audit> {
    Ok(Audit {
        id: id(r, "id")?,
        create_at: r.get("create_at")?,
        user_id: opt_id(r, "user_id")?,
        action: r.get("action")?,
        extra_info: r.get("extra_info")?,
        ip_address: r.get("ip_address")?,
        session_id: opt_id(r, "session_id")?,
    })
}

/// What is noted of a request.
#[derive(Clone, Debug)]
pub(crate) struct Noted<'a> {
    pub(crate) by: Option<&'a Session>,
    /// Path that was asked for, without its query.
    pub(crate) action: &'a str,
    pub(crate) extra: &'a str,
    pub(crate) address: &'a str,
}

impl Core {
    /// Notes a request.
    pub(crate) fn note_audit(&self, noted: &Noted<'_>) -> AppResult<()> {
        let (user, session) = noted.by.map_or(("", ""), |by| (by.user_id.as_str(), by.id.as_str()));
        let action: String = noted.action.chars().take(EXTRA_MAX_RUNES).collect();
        let extra: String = noted.extra.chars().take(EXTRA_MAX_RUNES).collect();
        self.write(|tx| {
            run(
                &tx.db,
                "INSERT INTO audits (id, create_at, user_id, action, extra_info, ip_address, session_id)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                params![random_id().as_str(), tx.now, user, action, extra, noted.address, session],
            )?;
            let sql = "DELETE FROM audits WHERE number <= (SELECT max(number) FROM audits) - ?1";
            run(&tx.db, sql, [AUDITS_MAX])?;
            Ok(())
        })
    }

    /// Everything that was noted, newest first.
    ///
    /// # Errors
    /// 403 without `read_audits`.
    pub fn audits(&self, by: &Session, page_number: u32, per_page: u32) -> AppResult<Vec<Audit>> {
        require("getAudits", by, "read_audits")?;
        let (limit, offset) = page(page_number, per_page);
        let sql = "SELECT * FROM audits ORDER BY number DESC LIMIT ?1 OFFSET ?2";
        self.read(|db| Ok(all(db, sql, [limit, offset], audit_row)?))
    }

    /// What was noted of a user, newest first.
    ///
    /// # Errors
    /// 403 for others.
    pub fn audits_of(&self, by: &Session, user: Id, page_number: u32, per_page: u32) -> AppResult<Vec<Audit>> {
        require_self("getUserAudits", by, user)?;
        let (limit, offset) = page(page_number, per_page);
        let sql = "SELECT * FROM audits WHERE user_id = ?1 ORDER BY number DESC LIMIT ?2 OFFSET ?3";
        self.read(|db| Ok(all(db, sql, params![user.as_str(), limit, offset], audit_row)?))
    }
}
