//! What is refused while room is scarce: uploads first, urgent messages last, each with an answer that says so.
//!
//! The level comes from the node (the journal knows it). Here it is only obeyed: what the journal would not take is not
//! accepted either, so that the room which is left goes to what is more urgent.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use model::{Precedence, SpaceLevel};

use crate::core::{Core, Tx};
use crate::error::{AppError, AppResult};
use crate::teams::team_row_by_id;
use crate::types::{Channel, Priority};

/// Class of a post: its own priority (empty for none), then team and channel by name where it has them.
pub type ClassOfPost = Arc<dyn Fn(&str, Option<(&str, &str)>) -> Precedence + Send + Sync>;

impl Core {
    /// How scarce room is, from now on.
    pub fn set_space(&self, level: SpaceLevel) {
        self.0.space.store(level as u8, Ordering::SeqCst);
    }

    /// As last set.
    pub fn space(&self) -> SpaceLevel {
        self.0.space()
    }

    /// How urgent posts are. Only the first call counts; without it no post is refused before the disk refuses it.
    pub fn set_class_of_post(&self, class: ClassOfPost) {
        self.0.class_of_post.get_or_init(|| class);
    }

    pub(crate) fn require_room_for_files(&self) -> AppResult<()> {
        match self.space().admits_files() {
            true => Ok(()),
            false => {
                Err(AppError::full("uploadFile", "Files are not accepted at the moment: the server is short of space."))
            }
        }
    }
}

impl Tx<'_> {
    /// Is there room for a new post of this priority in this channel?
    pub(crate) fn require_room_for_post(&self, priority: Option<&Priority>, channel: &Channel) -> AppResult<()> {
        let level = self.core.space();
        let Some(class_of) = self.core.class_of_post.get().filter(|_| !level.admits(Precedence::Deferred)) else {
            return Ok(());
        };
        let team = channel.team_id.map(|id| team_row_by_id(&self.db, id)).transpose()?.flatten();
        let place = team.as_ref().map(|team| (team.team.name.as_str(), channel.name.as_str()));
        if level.admits(class_of(priority.map_or("", |p| p.priority.as_str()), place)) {
            return Ok(());
        }
        let message =
            "The message was not accepted: the server is short of space. Urgent messages may still be accepted.";
        Err(AppError::full("createPost", message))
    }
}

impl AppError {
    /// 507: there is no room; nothing was changed.
    pub(crate) fn full(where_: &'static str, message: &'static str) -> Self {
        Self::new(where_, "holdfast.space.app_error", message, 507)
            .detail("free space on the disk that holds the data directory, or see `holdfast status`")
    }

    /// As [`AppError::full`], for what the disk itself refused.
    pub(crate) fn disk_full(where_: &'static str) -> Self {
        Self::full(where_, "The server's disk is full; nothing was changed. Try again when space was freed.")
    }
}

/// Did the disk refuse for want of room, or for a quota?
pub(crate) fn is_full(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::testkit::Node;
    use crate::types::{NewPost, NewPostMetadata};

    #[test]
    fn uploads_are_refused_before_messages_and_urgent_messages_last() {
        let node = Node::new(1);
        let alice = node.user("alice");
        let (_, square) = node.team(&alice, "mission");
        node.core.set_class_of_post(Arc::new(|priority, place| match (priority, place) {
            ("urgent", _) => Precedence::Flash,
            ("important", _) => Precedence::Immediate,
            (_, place) => {
                assert_eq!(place, Some(("mission", "town-square")));
                Precedence::Routine
            }
        }));
        let post = |priority: &str| {
            let priority = Priority { priority: priority.to_owned(), ..Priority::default() };
            let post = NewPost {
                channel_id: square.id.to_string(),
                message: "text".to_owned(),
                metadata: Some(NewPostMetadata { priority: Some(priority) }),
                ..NewPost::default()
            };
            node.core.create_post(&alice, &post, true).map(drop)
        };
        let mut accepted = Vec::new();
        for level in SpaceLevel::ALL {
            node.core.set_space(level);
            let upload = node.core.begin_upload(&alice, square.id, "map.bin").map(drop);
            let answers = [upload, post(""), post("important"), post("urgent")];
            for refused in answers.iter().filter_map(|answer| answer.as_ref().err()) {
                assert_eq!((refused.status_code, refused.id.as_ref()), (507, "holdfast.space.app_error"));
            }
            accepted.push(answers.iter().filter(|answer| answer.is_ok()).count());
        }
        assert_eq!(accepted, [4, 3, 3, 2, 2, 1, 0]);
        node.core.set_space(SpaceLevel::Ok);
        let mut upload = node.core.begin_upload(&alice, square.id, "map.bin").unwrap();
        node.core.set_space(SpaceLevel::FilesRefused);
        assert!(is_full(&upload.write_all(b"more").unwrap_err()), "an upload that has begun stops too");
    }
}
