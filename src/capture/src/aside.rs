//! Rows for which there is no room, out of the way of more urgent ones behind them.
//!
//! Rows are captured in their order. While the journal refuses a class, its rows would hold up a flash message behind
//! them, so they are set aside in the outbox. Once one row of a class is aside, every later row of that class goes aside
//! too, and so does a row that needs an object whose row is aside: order within a class, and causes before effects,
//! stay as they are. When there is room and nothing else waits, they go behind all others with new positions.

use std::collections::BTreeMap;

use journal::AppendError;
use mission::{Core, OutboxRow, StoreError};
use model::{Hlc, ObjectKey, ObjectRef, Precedence, SpaceLevel};

/// What is aside, as the core's database has it.
pub(crate) struct Aside {
    rows: BTreeMap<Hlc, (Precedence, ObjectKey)>,
    /// The class that was refused in the last round, whatever the level said: a large entry does not fit where a small
    /// one would.
    refused: Option<Precedence>,
}

impl Aside {
    /// What was left aside by an earlier process.
    pub(crate) fn load(core: &Core) -> Result<Self, StoreError> {
        let rows = core.outbox_aside()?.into_iter();
        let rows = rows.map(|(row, class)| (row.at, (class, row.event.object().key()))).collect();
        Ok(Self { rows, refused: None })
    }

    /// How many rows.
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Puts back what there is room for at this level, if anything is and nothing else waits.
    pub(crate) fn take_back(&mut self, core: &Core, level: SpaceLevel) -> Result<(), StoreError> {
        let is_due = |class: Precedence| admits(level, class);
        if !self.rows.values().any(|(class, _)| is_due(*class)) {
            return Ok(());
        }
        if core.outbox_take_back(is_due)? > 0 {
            self.rows.retain(|_, (class, _)| !is_due(*class));
        }
        Ok(())
    }

    /// An append of this class was refused.
    pub(crate) fn note_refused(&mut self, class: Precedence, e: &AppendError) {
        if matches!(e, AppendError::Full { .. } | AppendError::NoSpace(_)) {
            self.refused = Some(class);
        }
    }

    /// Takes the rows that must wait out of `rows`, which are with their classes, and sets them aside when something
    /// more urgent is held up by them. `more` tells that rows stand behind these. What is not set aside and must wait
    /// ends the rows.
    pub(crate) fn part(
        &mut self,
        core: &Core,
        level: SpaceLevel,
        rows: Vec<(OutboxRow, Precedence)>,
        more: bool,
    ) -> Result<Vec<(OutboxRow, Precedence)>, StoreError> {
        let refused = self.refused.take();
        let mut waiting: Vec<(OutboxRow, Precedence)> = Vec::new();
        let mut going: Vec<(OutboxRow, Precedence)> = Vec::new();
        let mut first_waiting = None;
        for (row, class) in rows {
            let waits_for = |object: &ObjectRef| {
                let key = object.key();
                self.rows.values().any(|(_, aside)| *aside == key)
                    || waiting.iter().any(|(row, _)| row.event.object().key() == key)
            };
            let waits = !admits(level, class)
                || refused.is_some_and(|refused| class >= refused)
                || self.rows.values().any(|(aside, _)| *aside == class)
                || waiting.iter().any(|(_, aside)| *aside == class)
                || row.event.needs().iter().any(waits_for);
            if waits {
                first_waiting.get_or_insert(row.at);
                waiting.push((row, class));
            } else {
                going.push((row, class));
            }
        }
        let holds_up = more || first_waiting.is_some_and(|at| going.last().is_some_and(|(row, _)| row.at > at));
        if holds_up && !waiting.is_empty() {
            let marks: Vec<_> = waiting.iter().map(|(row, class)| (row.at, *class)).collect();
            core.outbox_set_aside(&marks)?;
            let set = waiting.into_iter().map(|(row, class)| (row.at, (class, row.event.object().key())));
            self.rows.extend(set);
        }
        Ok(going)
    }
}

/// File rows bring their content along, which is refused before the entries of their class.
fn admits(level: SpaceLevel, class: Precedence) -> bool {
    level.admits(class) && (class != Precedence::Deferred || level.admits_files())
}
