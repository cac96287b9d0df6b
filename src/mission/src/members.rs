//! Who is in a channel, kept in memory for those who tell its members: every post does.
//!
//! Invariants
//! - What is kept is what is committed. A transaction that changes who is in a channel reads the table, and what was kept
//!   of that channel goes with it, whether it commits or not.
//! - [`Tx::put_channel_member`] alone changes who is in a channel, and says so here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::Id;

use crate::channels::member_ids;
use crate::core::Tx;

/// Most ids kept, some 26 bytes each. A box for 250 people in some hundred channels keeps fewer; when there are more,
/// all are dropped and those in use come back.
const KEPT_MAX: usize = 200_000;

/// Belongs to the writer, so that nobody sees what another transaction is about to change.
#[derive(Debug, Default)]
pub(crate) struct ChannelMembers {
    kept: BTreeMap<Id, Arc<[Id]>>,
    ids: usize,
    /// Channels in which the open transaction, or one that was rolled back, changed something.
    changed: BTreeSet<Id>,
}

impl ChannelMembers {
    /// A transaction begins or has ended: what the one before changed is read anew.
    pub(crate) fn settle(&mut self) {
        for channel in std::mem::take(&mut self.changed) {
            self.ids -= self.kept.remove(&channel).map_or(0, |members| members.len());
        }
    }

    /// Somebody joins or leaves in this transaction.
    pub(crate) fn change(&mut self, channel: Id) {
        self.changed.insert(channel);
    }

    fn keep(&mut self, channel: Id, members: &Arc<[Id]>) {
        if self.ids + members.len() > KEPT_MAX {
            self.kept.clear();
            self.ids = 0;
        }
        self.ids += members.len();
        self.kept.insert(channel, Arc::clone(members));
    }
}

impl Tx<'_> {
    /// The members of a channel as this transaction sees them, in the order of their ids.
    pub(crate) fn member_ids(&mut self, channel: Id) -> rusqlite::Result<Arc<[Id]>> {
        if let Some(members) = self.members.kept.get(&channel).filter(|_| !self.members.changed.contains(&channel)) {
            return Ok(Arc::clone(members));
        }
        let members: Arc<[Id]> = member_ids(&self.db, channel)?.into();
        if !self.members.changed.contains(&channel) {
            self.members.keep(channel, &members);
        }
        Ok(members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::AppError;
    use crate::events::Recipients;
    use crate::rows::STEPS;
    use crate::testkit::{Node, words};

    fn told(node: &Node) -> BTreeSet<Id> {
        let posted = node.events.take().into_iter().rfind(|told| told.event == "posted").unwrap();
        let Recipients::Users(users) = posted.to else { panic!("posts are told to members") };
        users.iter().copied().collect()
    }

    #[test]
    fn whoever_joins_hears_and_whoever_leaves_does_not_whatever_was_kept() {
        let node = Node::new(1);
        let (alice, bob, carol) = (node.user("alice"), node.user("bob"), node.user("carol"));
        let (team, square) = node.team(&alice, "mission");
        let heard = |expected: &[Id]| {
            node.say(&alice, square.id, None, "hello");
            assert_eq!(told(&node), expected.iter().copied().collect());
        };
        heard(&[alice.user_id]);
        node.core.add_team_member(&alice, team.id, bob.user_id).unwrap();
        heard(&[alice.user_id, bob.user_id]);
        node.core.remove_channel_member(&alice, square.id, bob.user_id).unwrap_err();
        node.core.remove_team_member(&alice, team.id, bob.user_id).unwrap();
        heard(&[alice.user_id]);
        // What was rolled back never was, also when it was asked for meanwhile.
        let failed = node.core.write(|tx| {
            let mut state = model::event::ChannelMemberState {
                version: model::Version { at: model::Hlc(1), by: node.id() },
                channel_id: square.id,
                user_id: carol.user_id,
                create_at: model::UnixMillis(1),
                delete_at: model::UnixMillis(0),
                scheme_admin: false,
            };
            tx.put_channel_member(&state)?;
            assert!(tx.member_ids(square.id)?.contains(&carol.user_id), "within the transaction it is so");
            state.user_id = bob.user_id;
            tx.put_channel_member(&state)?;
            Err::<(), _>(AppError::storage("test", "rolled back"))
        });
        assert!(failed.is_err());
        heard(&[alice.user_id]);
        node.core.add_team_member(&alice, team.id, carol.user_id).unwrap();
        heard(&[alice.user_id, carol.user_id]);
    }

    #[test]
    fn a_post_costs_the_same_in_a_channel_of_many() {
        let cost = |members: usize| {
            let node = Node::new(1);
            let alice = node.user("alice");
            let (_, square) = node.team(&alice, "mission");
            node.core
                .write(|tx| {
                    for _ in 0..members {
                        let state = model::event::ChannelMemberState {
                            version: model::Version { at: model::Hlc(1), by: node.id() },
                            channel_id: square.id,
                            user_id: node.core.random_id(),
                            create_at: model::UnixMillis(1),
                            delete_at: model::UnixMillis(0),
                            scheme_admin: false,
                        };
                        tx.put_channel_member(&state)?;
                    }
                    Ok::<_, AppError>(())
                })
                .unwrap();
            node.say(&alice, square.id, None, "the first one reads them");
            STEPS.set(0);
            node.core.create_post(&alice, &words(square.id, None, "hello"), true).unwrap();
            let steps = STEPS.get();
            assert_eq!(told(&node).len(), members + 1);
            steps
        };
        let (few, many) = (cost(3), cost(600));
        assert!(many < few + 200, "steps of SQLite's machine: {few} with 3 others, {many} with 600");
    }
}
