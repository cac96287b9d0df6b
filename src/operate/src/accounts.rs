//! Local accounts, as the operator of the machine manages them.

use std::sync::Arc;

use carrier::SystemClock;
use keys::{NodeKey, ProcessMint};
use mission::error::AppError;
use mission::events::NoEvents;
use mission::{Core, CoreOptions};
use model::{Hlc, HybridClock};

use crate::admin::{NewPassword, NewUser, UserAdded};
use crate::config::Settings;
use crate::exit::{Failure, chain};
use crate::layout::Layout;
use crate::lock::{self, DataLock};
use crate::offline;

/// Adds an account.
///
/// # Errors
/// When the core refuses it; nothing was changed then.
pub fn add(core: &Core, user: &NewUser) -> Result<UserAdded, Failure> {
    let added = core.operator_creates_user(&user.username, &user.email, &user.password.0, user.admin);
    let added = added.map_err(|e| refused(&format!("adding `{}`", user.username), &e))?;
    Ok(UserAdded { id: added.id.to_string(), username: added.username })
}

/// Sets a password and ends the account's sessions.
///
/// # Errors
/// When there is no such account, or the core refuses the password; nothing was changed then.
pub fn set_password(core: &Core, change: &NewPassword) -> Result<(), Failure> {
    let what = format!("setting the password of `{}`", change.username);
    let user = core.user_by_username(&change.username).map_err(|e| match e.status_code {
        404 => Failure::new(
            format!("there is no account `{}`; nothing was changed", change.username),
            "check the spelling; `holdfast user add` makes an account",
        ),
        _ => refused(&what, &e),
    })?;
    core.operator_sets_password(user.id, &change.password.0).map_err(|e| refused(&what, &e))
}

/// The core of a node that does not run, for as long as this lives.
pub struct OfflineCore {
    core: Core,
    _lock: DataLock,
}

impl OfflineCore {
    /// Opens it.
    ///
    /// # Errors
    /// When the node runs, or its store cannot be opened.
    pub fn open(layout: &Layout, settings: &Settings) -> Result<Self, Failure> {
        let lock = lock::take(layout.data())?;
        let key = offline::node_key(layout)?;
        let node = key.node_id();
        let core = Core::open(CoreOptions {
            dir: layout.core(),
            node,
            node_name: settings.node.name.to_string(),
            mint: Arc::new(ProcessMint::new(node)),
            clock: Arc::new(SystemClock),
            // The core itself goes on after everything that its outbox holds.
            hybrid: Arc::new(HybridClock::after(last_captured(layout, settings, &key)?)),
            events: Arc::new(NoEvents),
            settings: settings.core.clone(),
        });
        let core = core.map_err(|e| Failure::new(chain(&e), e.next_step()))?;
        Ok(Self { core, _lock: lock })
    }

    /// The core.
    pub fn core(&self) -> &Core {
        &self.core
    }
}

/// The highest source position in the journal: a row at or below it would count as captured already.
fn last_captured(layout: &Layout, settings: &Settings, key: &NodeKey) -> Result<Hlc, Failure> {
    // A node that never ran has no journal.
    if !layout.journal().exists() {
        return Ok(Hlc::ZERO);
    }
    let journal = offline::open_journal(layout, settings, key)?;
    Ok(journal.highest_source().map_or(Hlc::ZERO, |s| s.0))
}

fn refused(what: &str, error: &AppError) -> Failure {
    let detail = match error.detailed_error.is_empty() {
        true => String::new(),
        false => format!(" ({})", error.detailed_error),
    };
    Failure::new(
        format!("{what} failed: {}{detail}; nothing was changed", error.message.trim_end_matches('.')),
        "correct what it says and try again",
    )
}
