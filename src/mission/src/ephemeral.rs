//! Messages that one user sees once and nobody keeps, and what may be told of a post to who is not there yet.

use model::Id;
use serde_json::{Map, Value};

use crate::access::{may_in_channel, may_in_team, may_read, require};
use crate::channels::{member, require_channel};
use crate::core::{Core, Tx, random_id};
use crate::error::{AppError, AppResult};
use crate::events::Broadcast;
use crate::posts::require_post;
use crate::teams::{member_of_team, team_row_by_id};
use crate::types::{NewPost, Post, PostInfo, PostMetadata, Session};

/// A message for one user.
#[derive(Debug)]
pub(crate) struct Ephemeral {
    channel: Id,
    /// In whose name it is shown.
    author: Id,
    pub(crate) root_id: Option<Id>,
    message: String,
    props: Map<String, Value>,
}

impl Ephemeral {
    pub(crate) fn new(channel: Id, author: Id, message: String) -> Self {
        Self { channel, author, root_id: None, message, props: Map::new() }
    }

    pub(crate) fn prop(&mut self, name: &str, value: impl Into<Value>) {
        self.props.insert(name.to_owned(), value.into());
    }
}

impl Tx<'_> {
    /// Shows a message to a user's clients; the post as they see it.
    pub(crate) fn tell_ephemeral(&mut self, user: Id, said: Ephemeral) -> Post {
        let post = Post {
            id: random_id(),
            create_at: self.now,
            update_at: 0,
            edit_at: 0,
            delete_at: 0,
            is_pinned: false,
            user_id: said.author,
            channel_id: said.channel,
            root_id: said.root_id,
            original_id: None,
            message: said.message,
            kind: "system_ephemeral".to_owned(),
            props: said.props,
            hashtags: String::new(),
            file_ids: Vec::new(),
            pending_post_id: String::new(),
            has_reactions: false,
            remote_id: String::new(),
            reply_count: 0,
            last_reply_at: 0,
            participants: None,
            is_following: None,
            metadata: PostMetadata::default(),
        };
        let mut told = Broadcast::to_user("ephemeral_message", user).with_text("post", &post);
        told.channel_id = Some(post.channel_id);
        self.tell(told);
        post
    }
}

impl Core {
    /// Shows a message to one user in a channel.
    ///
    /// # Errors
    /// 403 without `create_post_ephemeral`, 400 for a bad channel or an over-long message, 404 for a missing channel.
    pub fn ephemeral_post(&self, by: &Session, user: Id, new: &NewPost) -> AppResult<Post> {
        require("createEphemeralPost", by, "create_post_ephemeral")?;
        let channel: Id =
            new.channel_id.parse().map_err(|_| AppError::body_param("createEphemeralPost", "channel_id"))?;
        self.write(|tx| {
            require_channel(&tx.db, channel)?;
            tx.core.check_message(&new.message)?;
            let mut said = Ephemeral::new(channel, by.user_id, new.message.clone());
            said.root_id = new.root_id.parse().ok();
            said.props.clone_from(&new.props);
            Ok(tx.tell_ephemeral(user, said))
        })
    }

    /// Where a post is: for who may join its channel, or is in it.
    ///
    /// # Errors
    /// 404; also for a post that the asker must not know of.
    pub fn post_info(&self, by: &Session, id: Id) -> AppResult<PostInfo> {
        let missing = || AppError::not_found("GetPostInfo", "app.post.get.app_error");
        self.read(|db| {
            let row = require_post(db, id)?;
            let c = require_channel(db, row.channel_id)?.channel;
            let team = c.team_id.map(|team| team_row_by_id(db, team)).transpose()?.flatten().map(|row| row.team);
            let joined_team = match &team {
                Some(team) => member_of_team(db, team.id, by.user_id)?.is_some(),
                None => false,
            };
            if let Some(team) = team.as_ref().filter(|_| !joined_team) {
                let permission = if team.allow_open_invite { "join_public_teams" } else { "join_private_teams" };
                if !may_in_team(db, by, team.id, permission)? {
                    return Err(missing());
                }
            }
            let joined = member(db, c.id, by.user_id)?.is_some();
            let may_know = joined
                || match c.kind.as_str() {
                    "O" => true,
                    "P" => may_in_channel(db, by, &c, "manage_private_channel_members")?,
                    _ => may_read(db, by, &c)?,
                };
            if !may_know {
                return Err(missing());
            }
            Ok(PostInfo {
                channel_id: c.id,
                channel_type: c.kind,
                channel_display_name: c.display_name,
                has_joined_channel: joined,
                team_id: team.as_ref().map(|t| t.id),
                team_type: team.as_ref().map_or("", |t| if t.allow_open_invite { "O" } else { "I" }).to_owned(),
                team_display_name: team.map(|t| t.display_name).unwrap_or_default(),
                has_joined_team: joined_team,
            })
        })
    }
}
