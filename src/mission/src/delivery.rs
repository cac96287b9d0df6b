//! Posts that were written here and have not ended at the other sites yet.
//!
//! A mirror shows them as pending, and confirms them when the site that they are for has applied them. What is
//! kept is a list of posts; what became of each is asked of the journal by whoever composes the node.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use model::{Hlc, Id};
use rusqlite::{Connection, params};

use crate::core::{Core, StoreError, Tx};
use crate::posts::post_row_by_id;
use crate::rows::{PostRow, all, first_id, id_array, run};

/// A post that was written here and whose end elsewhere is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Undelivered {
    /// The post.
    pub post: Id,
    /// Where its creation stood, or stands, in the outbox.
    pub at: Hlc,
}

impl Core {
    /// From now on notes which posts are written here, for [`Core::undelivered`].
    pub fn track_delivery(&self) {
        self.0.tracks_delivery.store(true, Ordering::SeqCst);
    }

    /// Up to `max` posts in the order of their creation, the first of them after `after`; none whose creation still waits in
    /// the outbox, as what is set aside does behind the place that capture has come to.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn undelivered(&self, after: Hlc, max: usize) -> Result<Vec<Undelivered>, StoreError> {
        self.read(|db| {
            let sql = "SELECT post_id, at FROM undelivered WHERE at > ?1
                AND at NOT IN (SELECT at FROM outbox WHERE aside > 0) ORDER BY at LIMIT ?2";
            let max = i64::try_from(max).unwrap_or(i64::MAX);
            Ok(all(db, sql, params![after.0 as i64, max], |r| {
                Ok(Undelivered { post: first_id(r)?, at: Hlc(r.get::<_, i64>(1)? as u64) })
            })?)
        })
    }

    /// These have ended: they are pending no more, and open clients are told.
    ///
    /// # Errors
    /// When the store cannot be written; all of them stay pending then.
    pub fn note_delivered(&self, posts: &[Id]) -> Result<(), StoreError> {
        self.write(|tx| {
            for post in posts {
                run(&tx.db, "DELETE FROM undelivered WHERE post_id = ?1", [post.as_str()])?;
                if let Some(row) = post_row_by_id(&tx.db, *post)?.filter(|row| row.delete_at == 0) {
                    // As for a file that came: clients that poll or keep a list look again.
                    let changed = tx.change(row.update_at);
                    let sql = "UPDATE posts SET changed_at = ?2 WHERE id = ?1";
                    run(&tx.db, sql, params![row.id.as_str(), changed])?;
                    tx.tell_post("post_edited", &row)?;
                }
            }
            Ok(())
        })
    }
}

impl Tx<'_> {
    /// A post was written here and emitted at `at`.
    pub(crate) fn note_undelivered(&mut self, row: &PostRow, at: Hlc) -> rusqlite::Result<()> {
        if self.core.tracks_delivery.load(Ordering::SeqCst) {
            let sql = "INSERT OR IGNORE INTO undelivered (post_id, at) VALUES (?1, ?2)";
            run(&self.db, sql, params![row.id.as_str(), at.0 as i64])?;
        }
        Ok(())
    }
}

/// Which of these posts are pending.
pub(crate) fn pending(db: &Connection, posts: &[Id]) -> rusqlite::Result<BTreeSet<Id>> {
    let sql = "SELECT post_id FROM undelivered WHERE post_id IN (SELECT value FROM json_each(?1))";
    Ok(all(db, sql, [id_array(posts)], first_id)?.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit::Node;
    use model::Precedence;

    #[test]
    fn a_post_that_waits_for_room_is_asked_about_only_after_it_was_captured() {
        let node = Node::new(1);
        let alice = node.user("alice");
        let (_, square) = node.team(&alice, "mission");
        node.drain();
        node.core.track_delivery();
        let waits = node.say(&alice, square.id, None, "waits for room").id;
        let at = node.outbox()[0].at;
        node.core.outbox_set_aside(&[(at, Precedence::Routine)]).unwrap();
        let flash = node.say(&alice, square.id, None, "has room").id;
        let later = node.outbox()[0].at;
        node.core.outbox_ack(later).unwrap();
        let asked = || node.core.undelivered(Hlc::ZERO, 10).unwrap();
        assert_eq!(asked().iter().map(|u| u.post).collect::<Vec<_>>(), [flash]);
        assert_eq!(node.core.outbox_take_back(|_| true).unwrap(), 1);
        let moved = asked().into_iter().find(|u| u.post == waits).expect("it is in the outbox again");
        assert!(moved.at > later && moved.at == node.outbox()[0].at, "not captured yet: {moved:?}");
        node.drain();
        assert!(node.core.outbox_acked().unwrap().is_some_and(|up_to| moved.at <= up_to));
    }
}
