//! What was said at the site before it is measured: the made-up mission of [`crate::corpus`] among more people and channels.
//!
//! Who and where are numbers, because each server gives its users and channels ids of its own.

use std::collections::{BTreeMap, BTreeSet};

use model::{Event, Id};

use crate::corpus::Chat;

/// One in so many users is in a channel; all are in the first.
const SHARE: usize = 5;

/// Time between two posts.
const PAUSE_MS: i64 = 8_000;

/// How large.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Plan {
    pub(crate) posts: u64,
    pub(crate) users: usize,
    pub(crate) channels: usize,
}

impl Plan {
    /// The members of a channel, by number.
    pub(crate) fn members(&self, channel: usize) -> Vec<usize> {
        (0..self.users).filter(|user| channel == 0 || (user + channel).is_multiple_of(SHARE)).collect()
    }

    /// The channels of a user, by number.
    pub(crate) fn channels_of(&self, user: usize) -> Vec<usize> {
        (0..self.channels).filter(|channel| *channel == 0 || (user + channel).is_multiple_of(SHARE)).collect()
    }
}

/// One post of the past.
pub(crate) struct Said {
    pub(crate) id: Id,
    pub(crate) author: usize,
    pub(crate) channel: usize,
    pub(crate) root: Option<Id>,
    /// Unix milliseconds.
    pub(crate) at: i64,
    pub(crate) text: String,
}

/// The posts of a [`Plan`] in their order, the last one at `end`.
pub(crate) struct Mission {
    plan: Plan,
    chat: Chat,
    names: Vec<String>,
    users: BTreeMap<Id, usize>,
    channels: BTreeMap<Id, usize>,
    members: Vec<Vec<usize>>,
    end: i64,
    left: u64,
}

impl Mission {
    /// The same at each call, but for the time.
    pub(crate) fn new(plan: Plan, end: i64) -> Self {
        let (chat, events) = Chat::of(1, plan.users, plan.channels);
        let (mut names, mut users, mut channels) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
        let mut taken = BTreeSet::new();
        for event in events {
            if let Event::User(user) = event {
                // Call signs may repeat, names may not.
                let is_new = taken.insert(user.username.clone());
                names.push(if is_new { user.username } else { format!("{}-{}", user.username, names.len()) });
                users.insert(user.id, users.len());
            } else if let Event::Channel(channel) = event {
                channels.insert(channel.id, channels.len());
            }
        }
        let members = (0..plan.channels).map(|channel| plan.members(channel)).collect();
        Self { plan, chat, names, users, channels, members, end, left: plan.posts }
    }

    /// Name of each user.
    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    /// When the first post was written.
    pub(crate) fn begin(&self) -> i64 {
        self.end - self.plan.posts as i64 * PAUSE_MS
    }
}

impl Iterator for Mission {
    type Item = Said;

    fn next(&mut self) -> Option<Said> {
        self.left = self.left.checked_sub(1)?;
        let Event::Post(post) = self.chat.post() else { return None };
        let channel = self.channels[&post.channel_id];
        let members = &self.members[channel];
        Some(Said {
            id: post.id,
            author: members[self.users[&post.user_id] % members.len()],
            channel,
            root: post.root_id,
            at: self.end - self.left as i64 * PAUSE_MS,
            text: post.message,
        })
    }
}
