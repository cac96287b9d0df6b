//! The JSON shapes of the API, with Mattermost's field names (`server/public/model/*.go`, 11.6).
//!
//! What Go writes as `""` for a missing id is `Option<Id>` here; what Go writes as `null` is `Option` with a
//! plain derive; what Go leaves out is skipped.

use std::collections::BTreeMap;

use model::{Id, UnixMillis};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// String-to-string object, e.g. `notify_props`.
pub type StringMap = BTreeMap<String, String>;

/// `""` stands for `None`, as Go's models have it.
pub mod blank_id {
    use model::Id;
    use serde::{Deserialize, Deserializer, Serializer};

    /// Writes the id, or `""`.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(id: &Option<Id>, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(id.as_ref().map_or("", Id::as_str))
    }

    /// Reads an id, or `""`.
    ///
    /// # Errors
    /// When the text is neither.
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Id>, D::Error> {
        let text = String::deserialize(d)?;
        if text.is_empty() { Ok(None) } else { text.parse().map(Some).map_err(serde::de::Error::custom) }
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(n: &i64) -> bool {
    *n == 0
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero_u32(n: &u32) -> bool {
    *n == 0
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_false(b: &bool) -> bool {
    !*b
}

/// A user as the API shows it. [`User::sanitized_for`] takes out what a reader must not see.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "Mattermost field names")]
pub struct User {
    pub id: Id,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub create_at: i64,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub update_at: i64,
    pub delete_at: i64,
    pub username: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth_data: Option<String>,
    pub auth_service: String,
    pub email: String,
    #[serde(default, skip_serializing_if = "is_false")]
    pub email_verified: bool,
    pub nickname: String,
    pub first_name: String,
    pub last_name: String,
    pub position: String,
    pub roles: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub props: StringMap,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub notify_props: StringMap,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub last_password_update: i64,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub last_picture_update: i64,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub failed_attempts: i64,
    pub locale: String,
    /// `null` when nothing is known of it, as in lists that name users by their id alone.
    #[serde(deserialize_with = "null_as_default", serialize_with = "empty_as_null")]
    pub timezone: StringMap,
    /// Of a shared channel's other server, which none has here: empty, and not there for bots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote_id: Option<String>,
    #[serde(default, skip_serializing_if = "is_false")]
    pub is_bot: bool,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub bot_description: String,
    #[serde(default, skip_serializing_if = "is_false")]
    pub mfa_active: bool,
    pub disable_welcome_email: bool,
}

impl User {
    /// A user of whom only the id is shown, as in lists of participants.
    pub(crate) fn known_by_id(id: Id) -> Self {
        Self {
            id,
            create_at: 0,
            update_at: 0,
            delete_at: 0,
            username: String::new(),
            auth_data: None,
            auth_service: String::new(),
            email: String::new(),
            email_verified: false,
            nickname: String::new(),
            first_name: String::new(),
            last_name: String::new(),
            position: String::new(),
            roles: String::new(),
            props: StringMap::new(),
            notify_props: StringMap::new(),
            last_password_update: 0,
            last_picture_update: 0,
            failed_attempts: 0,
            locale: String::new(),
            timezone: StringMap::new(),
            remote_id: None,
            is_bot: false,
            bot_description: String::new(),
            mfa_active: false,
            disable_welcome_email: false,
        }
    }

    /// What `reader` may see of this user: everything but secrets for themselves and administrators, the public
    /// profile for others.
    pub fn sanitized_for(self, reader: Option<&Session>) -> Self {
        match reader.is_some_and(|s| s.user_id == self.id || s.is_system_admin()) {
            true => self,
            false => self.public(),
        }
    }

    /// The same in a list, where readers find themselves as others see them.
    pub(crate) fn sanitized_in_list_for(self, reader: Option<&Session>) -> Self {
        match reader.is_some_and(Session::is_system_admin) {
            true => self,
            false => self.public(),
        }
    }

    fn public(mut self) -> Self {
        self.auth_data = Some(String::new());
        self.failed_attempts = 0;
        self.last_password_update = 0;
        self.notify_props.clear();
        self.email_verified = false;
        self.mfa_active = false;
        self
    }
}

/// What an administrator or user did, for later.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "Mattermost field names")]
pub struct Audit {
    pub id: Id,
    pub create_at: i64,
    #[serde(with = "blank_id")]
    pub user_id: Option<Id>,
    pub action: String,
    pub extra_info: String,
    pub ip_address: String,
    #[serde(with = "blank_id")]
    pub session_id: Option<Id>,
}

/// Long work that is asked for and done in turn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "Mattermost field names")]
pub struct Job {
    pub id: Id,
    #[serde(rename = "type")]
    pub kind: String,
    pub priority: i64,
    pub create_at: i64,
    pub start_at: i64,
    pub last_activity_at: i64,
    pub status: String,
    /// In percent.
    pub progress: i64,
    pub data: StringMap,
}

/// One number of the statistics.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "Mattermost field names")]
pub struct AnalyticsRow {
    pub name: String,
    pub value: i64,
}

/// A bot as the API shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "Mattermost field names")]
pub struct Bot {
    pub user_id: Id,
    pub username: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub display_name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// A user's id, or a plugin's on the original server.
    pub owner_id: String,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub last_icon_update: i64,
    pub create_at: i64,
    pub update_at: i64,
    pub delete_at: i64,
}

/// `POST /bots` and `PUT /bots/{id}`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "Mattermost field names")]
pub struct BotPatch {
    pub username: Option<String>,
    pub display_name: Option<String>,
    pub description: Option<String>,
}

/// What a user says of themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "Mattermost field names")]
pub struct CustomStatus {
    pub emoji: String,
    pub text: String,
    pub duration: String,
    /// RFC 3339; the year 1 for no end.
    pub expires_at: String,
}

/// A login. `token` is shown once, at creation; it is stored only as a hash.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "Mattermost field names")]
pub struct Session {
    pub id: Id,
    pub token: String,
    pub create_at: i64,
    pub expires_at: i64,
    pub last_activity_at: i64,
    pub user_id: Id,
    pub device_id: String,
    pub roles: String,
    pub is_oauth: bool,
    pub expired_notify: bool,
    pub props: StringMap,
    pub team_members: Vec<TeamMember>,
    pub local: bool,
}

impl Session {
    /// Does the session's user hold the `system_admin` role?
    pub fn is_system_admin(&self) -> bool {
        self.roles.split_whitespace().any(|r| r == "system_admin")
    }

    /// The token that cookie-borne writes must repeat in `X-CSRF-Token`.
    pub fn csrf(&self) -> &str {
        self.props.get("csrf").map_or("", String::as_str)
    }
}

/// A personal access token. `token` is present only in the answer to its creation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "Mattermost field names")]
pub struct UserAccessToken {
    pub id: Id,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub token: String,
    pub user_id: Id,
    pub description: String,
    pub is_active: bool,
}

/// A team.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "Mattermost field names")]
pub struct Team {
    pub id: Id,
    pub create_at: i64,
    pub update_at: i64,
    pub delete_at: i64,
    pub display_name: String,
    pub name: String,
    pub description: String,
    pub email: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub company_name: String,
    pub allowed_domains: String,
    pub invite_id: String,
    pub allow_open_invite: bool,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub last_team_icon_update: i64,
    pub scheme_id: Option<String>,
    pub group_constrained: Option<bool>,
    pub policy_id: Option<String>,
    pub cloud_limits_archived: bool,
}

/// Membership in a team.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "Mattermost field names")]
pub struct TeamMember {
    pub team_id: Id,
    pub user_id: Id,
    pub roles: String,
    pub delete_at: i64,
    pub scheme_guest: bool,
    pub scheme_user: bool,
    pub scheme_admin: bool,
    pub explicit_roles: String,
}

/// Unread totals of one team.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "Mattermost field names")]
pub struct TeamUnread {
    pub team_id: Id,
    pub msg_count: i64,
    pub mention_count: i64,
    pub mention_count_root: i64,
    pub msg_count_root: i64,
    pub thread_count: i64,
    pub thread_mention_count: i64,
    pub thread_urgent_mention_count: i64,
}

/// `GET /teams/{id}/stats`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "Mattermost field names")]
pub struct TeamStats {
    pub team_id: Id,
    pub total_member_count: i64,
    pub active_member_count: i64,
}

/// A channel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "Mattermost field names")]
pub struct Channel {
    pub id: Id,
    pub create_at: i64,
    pub update_at: i64,
    pub delete_at: i64,
    #[serde(with = "blank_id")]
    pub team_id: Option<Id>,
    /// "O", "P", "D" or "G".
    #[serde(rename = "type")]
    pub kind: String,
    pub display_name: String,
    pub name: String,
    pub header: String,
    pub purpose: String,
    pub last_post_at: i64,
    pub total_msg_count: i64,
    pub extra_update_at: i64,
    #[serde(with = "blank_id")]
    pub creator_id: Option<Id>,
    pub scheme_id: Option<String>,
    pub props: Option<Map<String, Value>>,
    pub group_constrained: Option<bool>,
    pub autotranslation: bool,
    pub shared: Option<bool>,
    pub total_msg_count_root: i64,
    pub policy_id: Option<String>,
    pub last_root_post_at: i64,
    pub banner_info: Option<Value>,
    pub policy_enforced: bool,
    pub policy_is_active: bool,
    pub default_category_name: String,
}

/// What lists across teams say of each one's team; empty for direct and group channels.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs, reason = "Mattermost field names")]
pub struct TeamData {
    pub team_display_name: String,
    pub team_name: String,
    pub team_update_at: i64,
}

/// A channel in a list of those of all teams.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs, reason = "Mattermost field names")]
pub struct ChannelWithTeam {
    #[serde(flatten)]
    pub channel: Channel,
    #[serde(flatten)]
    pub team: TeamData,
}

/// A membership in a list of those in all teams.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs, reason = "Mattermost field names")]
pub struct ChannelMemberWithTeam {
    #[serde(flatten)]
    pub member: ChannelMember,
    #[serde(flatten)]
    pub team: TeamData,
}

impl Channel {
    /// A direct or group channel: no team, no join or leave.
    pub fn is_direct_or_group(&self) -> bool {
        self.kind == "D" || self.kind == "G"
    }
}

/// Membership in a channel, with its read mark.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "Mattermost field names")]
pub struct ChannelMember {
    pub channel_id: Id,
    pub user_id: Id,
    pub roles: String,
    pub last_viewed_at: i64,
    pub msg_count: i64,
    pub mention_count: i64,
    pub mention_count_root: i64,
    pub urgent_mention_count: i64,
    pub msg_count_root: i64,
    pub notify_props: StringMap,
    pub last_update_at: i64,
    pub scheme_guest: bool,
    pub scheme_user: bool,
    pub scheme_admin: bool,
    pub explicit_roles: String,
    pub autotranslation_disabled: bool,
}

/// `GET /channels/{id}/stats`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "Mattermost field names")]
pub struct ChannelStats {
    pub channel_id: Id,
    pub member_count: i64,
    pub guest_count: i64,
    pub pinnedpost_count: i64,
    pub files_count: i64,
}

/// `GET /users/{id}/channels/{id}/unread`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "Mattermost field names")]
pub struct ChannelUnread {
    #[serde(with = "blank_id")]
    pub team_id: Option<Id>,
    pub channel_id: Id,
    pub msg_count: i64,
    pub mention_count: i64,
    pub mention_count_root: i64,
    pub urgent_mention_count: i64,
    pub msg_count_root: i64,
}

/// Answer of `POST /users/{id}/posts/{id}/set_unread`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "Mattermost field names")]
pub struct ChannelUnreadAt {
    #[serde(with = "blank_id")]
    pub team_id: Option<Id>,
    pub user_id: Id,
    pub channel_id: Id,
    pub msg_count: i64,
    pub mention_count: i64,
    pub mention_count_root: i64,
    pub urgent_mention_count: i64,
    pub msg_count_root: i64,
    pub last_viewed_at: i64,
}

/// Answer of `POST /channels/members/{id}/view`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "Mattermost field names")]
pub struct ChannelViewResponse {
    pub status: String,
    pub last_viewed_at_times: BTreeMap<Id, i64>,
}

/// A post.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "Mattermost field names")]
pub struct Post {
    pub id: Id,
    pub create_at: i64,
    pub update_at: i64,
    pub edit_at: i64,
    pub delete_at: i64,
    pub is_pinned: bool,
    pub user_id: Id,
    pub channel_id: Id,
    #[serde(with = "blank_id")]
    pub root_id: Option<Id>,
    #[serde(with = "blank_id")]
    pub original_id: Option<Id>,
    pub message: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub props: Map<String, Value>,
    pub hashtags: String,
    #[serde(default, deserialize_with = "null_as_default")]
    pub file_ids: Vec<Id>,
    pub pending_post_id: String,
    #[serde(default, skip_serializing_if = "is_false")]
    pub has_reactions: bool,
    /// Of a shared channel's other server; empty, there is none.
    #[serde(default, deserialize_with = "null_as_default")]
    pub remote_id: String,
    pub reply_count: i64,
    pub last_reply_at: i64,
    pub participants: Option<Vec<User>>,
    /// Does the reader follow the thread? Only in lists with collapsed threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_following: Option<bool>,
    pub metadata: PostMetadata,
}

/// What hangs on a post.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "Mattermost field names")]
pub struct PostMetadata {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub embeds: Vec<Value>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub emojis: Vec<Value>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<FileInfo>,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub images: Map<String, Value>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reactions: Vec<Reaction>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<Priority>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub acknowledgements: Vec<Acknowledgement>,
}

/// `metadata.priority`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "Mattermost field names")]
pub struct Priority {
    /// "urgent", "important" or "".
    #[serde(default)]
    pub priority: String,
    #[serde(default, deserialize_with = "null_as_default")]
    pub requested_ack: bool,
    #[serde(default, deserialize_with = "null_as_default")]
    pub persistent_notifications: bool,
}

fn null_as_default<'de, D: serde::Deserializer<'de>, T: Default + Deserialize<'de>>(d: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(d)?.unwrap_or_default())
}

fn empty_as_null<S: serde::Serializer>(map: &StringMap, s: S) -> Result<S::Ok, S::Error> {
    if map.is_empty() { s.serialize_none() } else { map.serialize(s) }
}

/// Posts with their order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "Mattermost field names")]
pub struct PostList {
    pub order: Vec<Id>,
    pub posts: BTreeMap<Id, Post>,
    #[serde(with = "blank_id")]
    pub next_post_id: Option<Id>,
    #[serde(with = "blank_id")]
    pub prev_post_id: Option<Id>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub has_next: Option<bool>,
    pub first_inaccessible_post_time: i64,
}

/// A thread that a user follows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "Mattermost field names")]
pub struct Thread {
    /// That of its root post.
    pub id: Id,
    pub reply_count: i64,
    pub last_reply_at: i64,
    pub last_viewed_at: i64,
    pub participants: Vec<User>,
    pub post: Post,
    pub unread_replies: i64,
    pub unread_mentions: i64,
    pub is_urgent: bool,
    pub delete_at: i64,
}

/// `GET /users/{id}/teams/{id}/threads`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "Mattermost field names")]
pub struct Threads {
    pub total: i64,
    pub total_unread_threads: i64,
    pub total_unread_mentions: i64,
    pub total_unread_urgent_mentions: i64,
    /// `null` where only totals were asked for.
    pub threads: Option<Vec<Thread>>,
}

/// Which threads.
#[derive(Clone, Debug, Default)]
pub struct ThreadQuery {
    /// Only those with a change after this moment; 0 for all.
    pub since: i64,
    /// Those whose last reply is older than this thread's.
    pub before: Option<Id>,
    /// Those whose last reply is newer, oldest first.
    pub after: Option<Id>,
    /// Up to 200.
    pub per_page: u32,
    /// Whole profiles of the participants.
    pub extended: bool,
    /// Also threads whose root is deleted.
    pub deleted: bool,
    /// Only those with unread replies.
    pub unread: bool,
    /// No threads.
    pub totals_only: bool,
    /// No totals.
    pub threads_only: bool,
    /// None of direct and group channels.
    pub exclude_direct: bool,
}

/// An acknowledgement of a post.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "Mattermost field names")]
pub struct Acknowledgement {
    pub user_id: Id,
    pub post_id: Id,
    pub acknowledged_at: i64,
    pub channel_id: Id,
}

/// A bookmark of a channel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "Mattermost field names")]
pub struct Bookmark {
    pub id: Id,
    pub create_at: i64,
    pub update_at: i64,
    pub delete_at: i64,
    pub channel_id: Id,
    pub owner_id: Id,
    #[serde(with = "blank_id")]
    pub file_id: Option<Id>,
    pub display_name: String,
    pub sort_order: i64,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub link_url: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub image_url: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub emoji: String,
    /// "link" or "file".
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original_id: Option<Id>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<FileInfo>,
}

/// What became of a bookmark that was changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "Mattermost field names")]
pub struct BookmarkChange {
    pub updated: Bookmark,
    /// That of somebody else, which the updated one replaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted: Option<Bookmark>,
}

/// `POST /channels/{id}/bookmarks`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "Mattermost field names")]
pub struct NewBookmark {
    pub file_id: String,
    pub display_name: String,
    pub link_url: String,
    pub image_url: String,
    pub emoji: String,
    #[serde(rename = "type")]
    pub kind: String,
}

/// `PATCH /channels/{id}/bookmarks/{id}`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "Mattermost field names")]
pub struct BookmarkPatch {
    pub file_id: Option<String>,
    pub display_name: Option<String>,
    pub sort_order: Option<i64>,
    pub link_url: Option<String>,
    pub image_url: Option<String>,
    pub emoji: Option<String>,
}

/// A message that is not posted yet, as its writer's clients share it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "Mattermost field names")]
pub struct Draft {
    pub create_at: i64,
    pub update_at: i64,
    pub delete_at: i64,
    pub user_id: Id,
    pub channel_id: Id,
    #[serde(with = "blank_id")]
    pub root_id: Option<Id>,
    pub message: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub props: Map<String, Value>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub file_ids: Vec<Id>,
    pub metadata: PostMetadata,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub priority: Map<String, Value>,
}

/// A message that is posted at a time of its writer's choice.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "Mattermost field names")]
pub struct ScheduledPost {
    #[serde(flatten)]
    pub draft: Draft,
    pub id: Id,
    pub scheduled_at: i64,
    pub processed_at: i64,
    /// Why it was not posted, as the real server names it; "" while it waits.
    pub error_code: String,
}

/// `GET /posts/{id}/info`: where a post is, for somebody who may not be there yet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "Mattermost field names")]
pub struct PostInfo {
    pub channel_id: Id,
    pub channel_type: String,
    pub channel_display_name: String,
    pub has_joined_channel: bool,
    #[serde(with = "blank_id")]
    pub team_id: Option<Id>,
    pub team_type: String,
    pub team_display_name: String,
    pub has_joined_team: bool,
}

/// A reaction.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "Mattermost field names")]
pub struct Reaction {
    pub user_id: Id,
    pub post_id: Id,
    pub emoji_name: String,
    pub create_at: i64,
    pub update_at: i64,
    pub delete_at: i64,
    /// Of a shared channel's other server; empty, there is none.
    #[serde(default, deserialize_with = "null_as_default")]
    pub remote_id: String,
    pub channel_id: Id,
}

/// What is known of a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "Mattermost field names")]
pub struct FileInfo {
    pub id: Id,
    pub user_id: Id,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub post_id: Option<Id>,
    pub channel_id: Id,
    pub create_at: i64,
    pub update_at: i64,
    pub delete_at: i64,
    pub name: String,
    pub extension: String,
    pub size: u64,
    pub mime_type: String,
    #[serde(default, skip_serializing_if = "is_zero_u32")]
    pub width: u32,
    #[serde(default, skip_serializing_if = "is_zero_u32")]
    pub height: u32,
    #[serde(default, skip_serializing_if = "is_false")]
    pub has_preview_image: bool,
    pub mini_preview: Option<String>,
    /// Of a shared channel's other server; empty, there is none.
    #[serde(default, deserialize_with = "null_as_default")]
    pub remote_id: String,
    pub archived: bool,
}

/// One user setting.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "Mattermost field names")]
pub struct Preference {
    pub user_id: Id,
    pub category: String,
    pub name: String,
    pub value: String,
}

/// Presence of a user.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "Mattermost field names")]
pub struct Status {
    pub user_id: Id,
    /// "online", "away", "dnd" or "offline".
    pub status: String,
    #[serde(default)]
    pub manual: bool,
    #[serde(default)]
    pub last_activity_at: i64,
    #[serde(default)]
    pub dnd_end_time: i64,
}

/// A role with its permissions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "Mattermost field names")]
pub struct Role {
    pub id: Id,
    pub name: String,
    pub display_name: String,
    pub description: String,
    pub create_at: i64,
    pub update_at: i64,
    pub delete_at: i64,
    pub permissions: Vec<String>,
    pub scheme_managed: bool,
    pub built_in: bool,
    pub scheme_id: Option<String>,
}

/// A group of channels in a user's sidebar.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "Mattermost field names")]
pub struct SidebarCategory {
    /// Default ones are `<type>_<user id>_<team id>`, hence text.
    #[serde(default)]
    pub id: String,
    pub user_id: Id,
    pub team_id: Id,
    #[serde(default)]
    pub sort_order: i64,
    #[serde(default)]
    pub sorting: String,
    /// "favorites", "channels", "direct_messages" or "custom".
    #[serde(rename = "type", default)]
    pub kind: String,
    pub display_name: String,
    #[serde(default)]
    pub muted: bool,
    #[serde(default)]
    pub collapsed: bool,
    #[serde(default)]
    pub channel_ids: Vec<Id>,
}

/// A sidebar: the categories and their order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "Mattermost field names")]
pub struct OrderedCategories {
    pub categories: Vec<SidebarCategory>,
    pub order: Vec<String>,
}

/// `GET /users/autocomplete`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "Mattermost field names")]
pub struct UserAutocomplete {
    pub users: Vec<User>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub out_of_channel: Option<Vec<User>>,
}

/// `POST /users`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "Mattermost field names")]
pub struct NewUser {
    pub username: String,
    pub email: String,
    pub password: String,
    pub nickname: String,
    pub first_name: String,
    pub last_name: String,
    pub position: String,
    pub locale: String,
    pub notify_props: Option<StringMap>,
    pub props: Option<StringMap>,
    pub timezone: Option<StringMap>,
}

/// `PUT /users/{id}/patch`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "Mattermost field names")]
pub struct UserPatch {
    pub username: Option<String>,
    pub email: Option<String>,
    pub password: Option<String>,
    pub nickname: Option<String>,
    pub first_name: Option<String>,
    pub last_name: Option<String>,
    pub position: Option<String>,
    pub locale: Option<String>,
    pub notify_props: Option<StringMap>,
    pub props: Option<StringMap>,
    pub timezone: Option<StringMap>,
}

/// `GET /users` and its filters.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "Mattermost field names")]
pub struct UserFilter {
    pub in_team: Option<Id>,
    pub not_in_team: Option<Id>,
    pub in_channel: Option<Id>,
    pub not_in_channel: Option<Id>,
    pub without_team: bool,
    pub active: bool,
    pub inactive: bool,
    /// With one of these roles; empty for all.
    pub roles: Vec<String>,
    /// "" (by username), "create_at" or "last_activity_at".
    pub sort: String,
}

/// `POST /users/search`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "Mattermost field names")]
pub struct UserSearch {
    pub term: String,
    pub team_id: String,
    pub not_in_team_id: String,
    pub in_channel_id: String,
    pub not_in_channel_id: String,
    pub allow_inactive: bool,
    pub without_team: bool,
    pub role: String,
    pub roles: Vec<String>,
    pub limit: i64,
}

/// `POST /teams`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "Mattermost field names")]
pub struct NewTeam {
    pub name: String,
    pub display_name: String,
    pub description: String,
    pub email: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub allow_open_invite: bool,
}

/// `PUT /teams/{id}/patch`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "Mattermost field names")]
pub struct TeamPatch {
    pub display_name: Option<String>,
    pub description: Option<String>,
    pub company_name: Option<String>,
    pub allow_open_invite: Option<bool>,
}

/// `POST /channels`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "Mattermost field names")]
pub struct NewChannel {
    pub team_id: String,
    pub name: String,
    pub display_name: String,
    pub header: String,
    pub purpose: String,
    #[serde(rename = "type")]
    pub kind: String,
}

/// `PUT /channels/{id}/patch`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "Mattermost field names")]
pub struct ChannelPatch {
    pub name: Option<String>,
    pub display_name: Option<String>,
    pub header: Option<String>,
    pub purpose: Option<String>,
}

/// `POST /channels/members/{id}/view`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "Mattermost field names")]
pub struct ChannelView {
    pub channel_id: String,
    pub prev_channel_id: String,
    pub collapsed_threads_supported: bool,
}

/// `POST /posts`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "Mattermost field names")]
pub struct NewPost {
    pub channel_id: String,
    pub root_id: String,
    pub message: String,
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(deserialize_with = "null_as_default")]
    pub props: Map<String, Value>,
    #[serde(deserialize_with = "null_as_default")]
    pub file_ids: Vec<String>,
    pub pending_post_id: String,
    /// Honoured for system administrators only.
    pub create_at: i64,
    pub metadata: Option<NewPostMetadata>,
}

/// `POST /drafts`, `POST /posts/schedule` and `PUT /posts/schedule/{id}`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "Mattermost field names")]
pub struct NewDraft {
    /// Of a scheduled post that is changed.
    pub id: String,
    pub channel_id: String,
    pub root_id: String,
    pub message: String,
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(deserialize_with = "null_as_default")]
    pub props: Map<String, Value>,
    #[serde(deserialize_with = "null_as_default")]
    pub file_ids: Vec<String>,
    #[serde(deserialize_with = "null_as_default")]
    pub priority: Map<String, Value>,
    pub metadata: Option<NewPostMetadata>,
    /// Of a scheduled post.
    pub scheduled_at: i64,
    /// Of a scheduled post that is changed: what its clients want to show.
    pub error_code: String,
}

/// The part of a new post's metadata that a client may set.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "Mattermost field names")]
pub struct NewPostMetadata {
    pub priority: Option<Priority>,
}

/// `PUT /posts/{id}/patch`; `PUT /posts/{id}` sets every field.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "Mattermost field names")]
pub struct PostPatch {
    pub is_pinned: Option<bool>,
    pub message: Option<String>,
    pub props: Option<Map<String, Value>>,
    pub file_ids: Option<Vec<String>>,
    pub has_reactions: Option<bool>,
}

/// Which posts of a channel.
#[derive(Clone, Debug)]
pub enum PostQuery {
    /// Newest first, by page.
    Page {
        /// From 0.
        page: u32,
        /// Up to 200.
        per_page: u32,
    },
    /// Those written before this post.
    Before {
        /// The post.
        post: Id,
        /// From 0.
        page: u32,
        /// Up to 200.
        per_page: u32,
    },
    /// Those written after this post.
    After {
        /// The post.
        post: Id,
        /// From 0.
        page: u32,
        /// Up to 200.
        per_page: u32,
    },
    /// Those that changed or arrived here after this moment, the latest changes first: at most 1000, and
    /// [`PostList::has_next`] where there are more.
    Since {
        /// The moment.
        at: UnixMillis,
        /// Only what changed earlier than this post, to go on where an answer ended.
        before: Option<Id>,
    },
}

/// How a list of posts is shown.
#[derive(Clone, Copy, Debug, Default)]
pub struct PostView {
    /// Threads as their roots alone, with what is known of the replies.
    pub collapsed_threads: bool,
    /// Whole profiles of the participants of threads.
    pub extended: bool,
    /// Without the other posts of the threads that are touched.
    pub skip_fetch_threads: bool,
    /// Deleted posts too.
    pub include_deleted: bool,
}

/// Which part of a thread.
#[derive(Clone, Copy, Debug, Default)]
pub struct ThreadPart {
    /// How it is shown.
    pub view: PostView,
    /// From older to newer, or the other way; `None` is newest first, and unsorted in the real server.
    pub down: Option<bool>,
    /// 0 for all.
    pub per_page: u32,
    /// Only posts written after (before, unless going down) this moment; 0 for all.
    pub from_create_at: i64,
    /// Only posts changed after (before, unless going down) this moment; 0 for all.
    pub from_update_at: i64,
    /// Of posts at that very moment only those behind this one.
    pub from_post: Option<Id>,
    /// By change, not by creation.
    pub updates_only: bool,
}

/// Login as the API takes it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "Mattermost field names")]
pub struct Login {
    pub id: String,
    pub login_id: String,
    pub password: String,
    pub device_id: String,
    /// Code of the second factor.
    pub token: String,
}

/// What the client's headers say about itself; lands in the session's props.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs, reason = "named after the session props")]
pub struct ClientInfo {
    pub platform: String,
    pub os: String,
    pub browser: String,
    pub is_mobile: bool,
}
