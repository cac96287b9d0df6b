#![allow(clippy::todo, clippy::unused_self, unused_variables, dead_code, missing_docs, clippy::missing_errors_doc)]
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use model::{Clock, EntryId, Epoch, Event, Hlc, HybridClock, Id, IdMint, NodeId, Outcome, RangeSet, UnixMillis};

use crate::error::AppResult;
use crate::events::EventSink;
use crate::types::*;

/// Cheap handle; every call is synchronous (use spawn_blocking). `by` is whoever asks; permissions are checked inside.
#[derive(Clone)]
pub struct Core(Arc<()>);

pub struct CoreOptions {
    pub dir: PathBuf,
    pub node: NodeId,
    pub node_name: String,
    pub mint: Arc<dyn IdMint>,
    pub clock: Arc<dyn Clock>,
    pub hybrid: Arc<HybridClock>,
    pub events: Arc<dyn EventSink>,
    pub settings: CoreSettings,
}

#[derive(Clone, Debug, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CoreSettings {
    pub site_name: String,
    pub max_file_bytes: u64,
    pub max_post_runes: usize,
    pub session_hours: u32,
    pub session_hours_mobile: u32,
    pub late_after_seconds: u32,
    pub open_registration: bool,
    pub password_min_chars: usize,
    pub login_attempts_max: u32,
    pub max_team_members: u32,
    pub users_may_create_tokens: bool,
}
impl Default for CoreSettings {
    fn default() -> Self {
        todo!()
    }
}

#[derive(Debug, thiserror::Error)]
#[error("x")]
pub struct OpenError;

#[derive(Clone, Debug)]
pub struct OutboxRow {
    pub at: Hlc,
    pub origin_time: UnixMillis,
    pub event: Event,
}
#[derive(Clone, Copy, Debug)]
pub struct OutboxStats {
    pub rows: u64,
    pub oldest: Option<UnixMillis>,
}
/// A storage failure; nothing was changed.
#[derive(Debug, thiserror::Error)]
#[error("the store failed: {0}; nothing was changed")]
pub struct StoreError(pub String);
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub struct CoreStats {
    pub users: u64,
    pub teams: u64,
    pub channels: u64,
    pub posts: u64,
    pub files: u64,
    pub reactions: u64,
    pub outbox_rows: u64,
    pub quarantine_rows: u64,
}

pub enum FileAvailability {
    Here { info: FileInfo, path: PathBuf },
    NotHereYet { info: FileInfo },
}
/// io::Write; finish() makes it durable and gives the FileInfo. Dropping it discards the bytes.
pub struct Upload;
impl io::Write for Upload {
    fn write(&mut self, b: &[u8]) -> io::Result<usize> {
        todo!()
    }
    fn flush(&mut self) -> io::Result<()> {
        todo!()
    }
}
impl Upload {
    pub fn finish(self) -> AppResult<FileInfo> {
        todo!()
    }
}

impl Core {
    pub fn open(options: CoreOptions) -> Result<Self, OpenError> {
        todo!()
    }
    pub fn settings(&self) -> &CoreSettings {
        todo!()
    }
    pub fn node(&self) -> NodeId {
        todo!()
    }
    pub fn node_name(&self) -> &str {
        todo!()
    }
    /// Stable 26-character id of this server for clients (`DiagnosticId`).
    pub fn diagnostic_id(&self) -> Id {
        todo!()
    }
    /// A fresh id, e.g. for requests and connections.
    pub fn random_id(&self) -> Id {
        todo!()
    }
    pub fn now(&self) -> UnixMillis {
        todo!()
    }

    // --- outbox
    pub fn outbox_read(&self, after: Hlc, max_rows: usize) -> Result<Vec<OutboxRow>, StoreError> {
        todo!()
    }
    pub fn outbox_ack(&self, up_to: Hlc) -> Result<u64, StoreError> {
        todo!()
    }
    pub fn outbox_stats(&self) -> Result<OutboxStats, StoreError> {
        todo!()
    }
    pub fn outbox_changed(&self) -> tokio::sync::watch::Receiver<u64> {
        todo!()
    }
    pub fn highest_outbox_hlc(&self) -> Hlc {
        todo!()
    }
    pub fn file_path(&self, file: Id) -> Result<Option<PathBuf>, StoreError> {
        todo!()
    }
    pub fn stats(&self) -> Result<CoreStats, StoreError> {
        todo!()
    }
    pub fn replica(&self) -> Replica {
        todo!()
    }

    // --- users
    pub fn create_user(&self, by: Option<&Session>, new: &NewUser) -> AppResult<User> {
        todo!()
    }
    pub fn create_admin(&self, username: &str, email: &str, password: &str) -> AppResult<User> {
        todo!()
    }
    /// Unsanitised: show `User::sanitized_for(Some(by))`.
    pub fn user(&self, id: Id) -> AppResult<User> {
        todo!()
    }
    pub fn user_by_username(&self, name: &str) -> AppResult<User> {
        todo!()
    }
    pub fn user_by_email(&self, email: &str) -> AppResult<User> {
        todo!()
    }
    pub fn users_by_ids(&self, ids: &[Id], since: i64) -> AppResult<Vec<User>> {
        todo!()
    }
    pub fn users_by_usernames(&self, names: &[String]) -> AppResult<Vec<User>> {
        todo!()
    }
    pub fn users(&self, by: &Session, filter: &UserFilter, page: u32, per_page: u32) -> AppResult<Vec<User>> {
        todo!()
    }
    pub fn search_users(&self, by: &Session, search: &UserSearch) -> AppResult<Vec<User>> {
        todo!()
    }
    pub fn autocomplete_users(
        &self,
        by: &Session,
        term: &str,
        team: Option<Id>,
        channel: Option<Id>,
        limit: u32,
    ) -> AppResult<UserAutocomplete> {
        todo!()
    }
    pub fn users_of_group_channels(&self, by: &Session, channels: &[Id]) -> AppResult<BTreeMap<Id, Vec<User>>> {
        todo!()
    }
    pub fn active_user_count(&self) -> AppResult<i64> {
        todo!()
    }
    pub fn patch_user(&self, by: &Session, id: Id, patch: &UserPatch) -> AppResult<User> {
        todo!()
    }
    pub fn set_user_roles(&self, by: &Session, id: Id, roles: &str) -> AppResult<()> {
        todo!()
    }
    pub fn set_user_active(&self, by: &Session, id: Id, active: bool) -> AppResult<()> {
        todo!()
    }
    pub fn update_password(&self, by: &Session, id: Id, current: &str, new: &str) -> AppResult<()> {
        todo!()
    }

    // --- sessions and tokens
    pub fn login(&self, login: &Login, client: &ClientInfo) -> AppResult<(User, Session)> {
        todo!()
    }
    /// The session of this token (login or personal access token); 401 otherwise.
    pub fn session(&self, token: &str) -> AppResult<Session> {
        todo!()
    }
    pub fn logout(&self, by: &Session) -> AppResult<()> {
        todo!()
    }
    pub fn sessions(&self, by: &Session, user: Id) -> AppResult<Vec<Session>> {
        todo!()
    }
    pub fn revoke_session(&self, by: &Session, user: Id, session: Id) -> AppResult<()> {
        todo!()
    }
    pub fn revoke_all_sessions(&self, by: &Session, user: Id) -> AppResult<()> {
        todo!()
    }
    pub fn set_device(&self, by: &Session, device_id: &str) -> AppResult<()> {
        todo!()
    }
    pub fn touch_session(&self, by: &Session) -> AppResult<()> {
        todo!()
    }
    pub fn create_token(&self, by: &Session, user: Id, description: &str) -> AppResult<UserAccessToken> {
        todo!()
    }
    pub fn tokens(&self, by: &Session, user: Id) -> AppResult<Vec<UserAccessToken>> {
        todo!()
    }
    pub fn token(&self, by: &Session, token: Id) -> AppResult<UserAccessToken> {
        todo!()
    }
    pub fn revoke_token(&self, by: &Session, token: Id) -> AppResult<()> {
        todo!()
    }
    pub fn set_token_active(&self, by: &Session, token: Id, active: bool) -> AppResult<()> {
        todo!()
    }

    // --- teams
    pub fn create_team(&self, by: &Session, new: &NewTeam) -> AppResult<Team> {
        todo!()
    }
    pub fn team(&self, by: &Session, id: Id) -> AppResult<Team> {
        todo!()
    }
    pub fn team_by_name(&self, by: &Session, name: &str) -> AppResult<Team> {
        todo!()
    }
    pub fn team_exists(&self, name: &str) -> AppResult<bool> {
        todo!()
    }
    pub fn teams(&self, by: &Session, page: u32, per_page: u32) -> AppResult<Vec<Team>> {
        todo!()
    }
    pub fn teams_of(&self, by: &Session, user: Id) -> AppResult<Vec<Team>> {
        todo!()
    }
    pub fn team_members_of(&self, by: &Session, user: Id) -> AppResult<Vec<TeamMember>> {
        todo!()
    }
    pub fn teams_unread(&self, by: &Session, user: Id) -> AppResult<Vec<TeamUnread>> {
        todo!()
    }
    pub fn team_unread(&self, by: &Session, user: Id, team: Id) -> AppResult<TeamUnread> {
        todo!()
    }
    pub fn team_members(&self, by: &Session, team: Id, page: u32, per_page: u32) -> AppResult<Vec<TeamMember>> {
        todo!()
    }
    pub fn team_members_by_ids(&self, by: &Session, team: Id, users: &[Id]) -> AppResult<Vec<TeamMember>> {
        todo!()
    }
    pub fn team_member(&self, by: &Session, team: Id, user: Id) -> AppResult<TeamMember> {
        todo!()
    }
    pub fn add_team_member(&self, by: &Session, team: Id, user: Id) -> AppResult<TeamMember> {
        todo!()
    }
    pub fn remove_team_member(&self, by: &Session, team: Id, user: Id) -> AppResult<()> {
        todo!()
    }
    pub fn set_team_member_roles(&self, by: &Session, team: Id, user: Id, roles: &str) -> AppResult<()> {
        todo!()
    }
    pub fn patch_team(&self, by: &Session, id: Id, patch: &TeamPatch) -> AppResult<Team> {
        todo!()
    }
    pub fn archive_team(&self, by: &Session, id: Id) -> AppResult<()> {
        todo!()
    }
    pub fn team_stats(&self, by: &Session, id: Id) -> AppResult<TeamStats> {
        todo!()
    }

    // --- channels
    pub fn create_channel(&self, by: &Session, new: &NewChannel) -> AppResult<Channel> {
        todo!()
    }
    pub fn direct_channel(&self, by: &Session, a: Id, b: Id) -> AppResult<Channel> {
        todo!()
    }
    pub fn group_channel(&self, by: &Session, users: &[Id]) -> AppResult<Channel> {
        todo!()
    }
    pub fn channel(&self, by: &Session, id: Id) -> AppResult<Channel> {
        todo!()
    }
    pub fn channel_by_name(&self, by: &Session, team: Id, name: &str, include_deleted: bool) -> AppResult<Channel> {
        todo!()
    }
    pub fn channels_of(
        &self,
        by: &Session,
        user: Id,
        team: Option<Id>,
        include_deleted: bool,
        last_delete_at: i64,
    ) -> AppResult<Vec<Channel>> {
        todo!()
    }
    pub fn public_channels(&self, by: &Session, team: Id, page: u32, per_page: u32) -> AppResult<Vec<Channel>> {
        todo!()
    }
    pub fn archived_channels(&self, by: &Session, team: Id, page: u32, per_page: u32) -> AppResult<Vec<Channel>> {
        todo!()
    }
    pub fn all_channels(
        &self,
        by: &Session,
        include_deleted: bool,
        page: u32,
        per_page: u32,
    ) -> AppResult<Vec<Channel>> {
        todo!()
    }
    pub fn search_channels(&self, by: &Session, team: Id, term: &str) -> AppResult<Vec<Channel>> {
        todo!()
    }
    pub fn channels_by_ids(&self, by: &Session, team: Id, ids: &[Id]) -> AppResult<Vec<Channel>> {
        todo!()
    }
    pub fn patch_channel(&self, by: &Session, id: Id, patch: &ChannelPatch) -> AppResult<Channel> {
        todo!()
    }
    /// `kind` "O" or "P".
    pub fn set_channel_privacy(&self, by: &Session, id: Id, kind: &str) -> AppResult<Channel> {
        todo!()
    }
    pub fn archive_channel(&self, by: &Session, id: Id) -> AppResult<()> {
        todo!()
    }
    pub fn restore_channel(&self, by: &Session, id: Id) -> AppResult<Channel> {
        todo!()
    }
    pub fn channel_members(
        &self,
        by: &Session,
        channel: Id,
        page: u32,
        per_page: u32,
    ) -> AppResult<Vec<ChannelMember>> {
        todo!()
    }
    pub fn channel_members_by_ids(&self, by: &Session, channel: Id, users: &[Id]) -> AppResult<Vec<ChannelMember>> {
        todo!()
    }
    pub fn channel_member(&self, by: &Session, channel: Id, user: Id) -> AppResult<ChannelMember> {
        todo!()
    }
    /// Memberships of a user: in one team (with direct and group channels), or everywhere.
    pub fn channel_members_of(&self, by: &Session, user: Id, team: Option<Id>) -> AppResult<Vec<ChannelMember>> {
        todo!()
    }
    pub fn add_channel_member(&self, by: &Session, channel: Id, user: Id) -> AppResult<ChannelMember> {
        todo!()
    }
    pub fn remove_channel_member(&self, by: &Session, channel: Id, user: Id) -> AppResult<()> {
        todo!()
    }
    pub fn set_channel_member_roles(&self, by: &Session, channel: Id, user: Id, roles: &str) -> AppResult<()> {
        todo!()
    }
    pub fn set_channel_notify_props(&self, by: &Session, channel: Id, user: Id, props: &StringMap) -> AppResult<()> {
        todo!()
    }
    pub fn channel_stats(&self, by: &Session, channel: Id) -> AppResult<ChannelStats> {
        todo!()
    }
    pub fn channel_unread(&self, by: &Session, user: Id, channel: Id) -> AppResult<ChannelUnread> {
        todo!()
    }
    pub fn view_channel(&self, by: &Session, user: Id, view: &ChannelView) -> AppResult<ChannelViewResponse> {
        todo!()
    }
    pub fn mark_channels_read(&self, by: &Session, user: Id, channels: &[Id]) -> AppResult<ChannelViewResponse> {
        todo!()
    }
    pub fn set_post_unread(&self, by: &Session, user: Id, post: Id) -> AppResult<ChannelUnreadAt> {
        todo!()
    }
    /// Members of a channel, for scoping what is not stored (typing).
    pub fn channel_member_ids(&self, channel: Id) -> AppResult<Vec<Id>> {
        todo!()
    }

    // --- posts
    pub fn create_post(&self, by: &Session, new: &NewPost, set_online: bool) -> AppResult<Post> {
        todo!()
    }
    pub fn post(&self, by: &Session, id: Id, include_deleted: bool) -> AppResult<Post> {
        todo!()
    }
    pub fn posts_by_ids(&self, by: &Session, ids: &[Id]) -> AppResult<Vec<Post>> {
        todo!()
    }
    pub fn thread(&self, by: &Session, id: Id) -> AppResult<PostList> {
        todo!()
    }
    pub fn channel_posts(
        &self,
        by: &Session,
        channel: Id,
        query: &PostQuery,
        include_deleted: bool,
    ) -> AppResult<PostList> {
        todo!()
    }
    pub fn posts_around_unread(
        &self,
        by: &Session,
        user: Id,
        channel: Id,
        limit_before: u32,
        limit_after: u32,
    ) -> AppResult<PostList> {
        todo!()
    }
    pub fn patch_post(&self, by: &Session, id: Id, patch: &PostPatch) -> AppResult<Post> {
        todo!()
    }
    pub fn delete_post(&self, by: &Session, id: Id) -> AppResult<()> {
        todo!()
    }
    pub fn pin_post(&self, by: &Session, id: Id, pinned: bool) -> AppResult<()> {
        todo!()
    }
    pub fn pinned_posts(&self, by: &Session, channel: Id) -> AppResult<PostList> {
        todo!()
    }
    pub fn flagged_posts(&self, by: &Session, user: Id, page: u32, per_page: u32) -> AppResult<PostList> {
        todo!()
    }
    pub fn edit_history(&self, by: &Session, id: Id) -> AppResult<Vec<Post>> {
        todo!()
    }
    pub fn files_of_post(&self, by: &Session, id: Id) -> AppResult<Vec<FileInfo>> {
        todo!()
    }
    /// Newest change of any post in the channel, for ETags.
    pub fn channel_changed_at(&self, channel: Id) -> AppResult<i64> {
        todo!()
    }

    // --- reactions
    pub fn save_reaction(&self, by: &Session, user: Id, post: Id, emoji: &str) -> AppResult<Reaction> {
        todo!()
    }
    pub fn delete_reaction(&self, by: &Session, user: Id, post: Id, emoji: &str) -> AppResult<()> {
        todo!()
    }
    pub fn reactions(&self, by: &Session, post: Id) -> AppResult<Vec<Reaction>> {
        todo!()
    }
    pub fn reactions_of_posts(&self, by: &Session, posts: &[Id]) -> AppResult<BTreeMap<Id, Vec<Reaction>>> {
        todo!()
    }

    // --- files
    pub fn begin_upload(&self, by: &Session, channel: Id, name: &str) -> AppResult<Upload> {
        todo!()
    }
    pub fn file_info(&self, by: &Session, id: Id) -> AppResult<FileInfo> {
        todo!()
    }
    pub fn open_file(&self, by: &Session, id: Id) -> AppResult<FileAvailability> {
        todo!()
    }

    // --- preferences
    pub fn preferences(&self, by: &Session, user: Id) -> AppResult<Vec<Preference>> {
        todo!()
    }
    pub fn preferences_in(&self, by: &Session, user: Id, category: &str) -> AppResult<Vec<Preference>> {
        todo!()
    }
    pub fn preference(&self, by: &Session, user: Id, category: &str, name: &str) -> AppResult<Preference> {
        todo!()
    }
    pub fn save_preferences(&self, by: &Session, user: Id, preferences: &[Preference]) -> AppResult<()> {
        todo!()
    }
    pub fn delete_preferences(&self, by: &Session, user: Id, preferences: &[Preference]) -> AppResult<()> {
        todo!()
    }

    // --- statuses (memory only)
    pub fn status(&self, user: Id) -> Status {
        todo!()
    }
    pub fn statuses(&self, users: &[Id]) -> Vec<Status> {
        todo!()
    }
    pub fn set_status(&self, by: &Session, user: Id, status: &str, dnd_end_time: i64) -> AppResult<Status> {
        todo!()
    }
    /// A user did something (`active`), or the client says they are away; manual statuses stay.
    pub fn note_activity(&self, user: Id, active: bool) {
        todo!()
    }
    /// The user's last connection went away.
    pub fn note_offline(&self, user: Id) {
        todo!()
    }

    // --- roles and permissions
    pub fn roles_by_names(&self, names: &[String]) -> AppResult<Vec<Role>> {
        todo!()
    }
    pub fn may(&self, by: &Session, permission: &str) -> bool {
        todo!()
    }
    pub fn may_in_team(&self, by: &Session, team: Id, permission: &str) -> bool {
        todo!()
    }
    pub fn may_in_channel(&self, by: &Session, channel: Id, permission: &str) -> bool {
        todo!()
    }

    // --- sidebar
    pub fn categories(&self, by: &Session, user: Id, team: Id) -> AppResult<OrderedCategories> {
        todo!()
    }
    pub fn category(&self, by: &Session, user: Id, team: Id, id: &str) -> AppResult<SidebarCategory> {
        todo!()
    }
    pub fn create_category(
        &self,
        by: &Session,
        user: Id,
        team: Id,
        new: &SidebarCategory,
    ) -> AppResult<SidebarCategory> {
        todo!()
    }
    pub fn update_categories(
        &self,
        by: &Session,
        user: Id,
        team: Id,
        categories: &[SidebarCategory],
    ) -> AppResult<Vec<SidebarCategory>> {
        todo!()
    }
    pub fn delete_category(&self, by: &Session, user: Id, team: Id, id: &str) -> AppResult<()> {
        todo!()
    }
    pub fn set_category_order(&self, by: &Session, user: Id, team: Id, order: &[String]) -> AppResult<Vec<String>> {
        todo!()
    }

    /// Every replicated object, for comparing two nodes.
    pub fn export_snapshot(&self) -> Result<Snapshot, StoreError> {
        todo!()
    }
}

/// Deterministic; `serde::Serialize + PartialEq + Debug`; maps keyed by id.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Snapshot {}

pub struct Replica {
    core: Core,
}
pub struct Incoming {
    pub id: EntryId,
    pub event: Event,
    pub content: Option<StagedFile>,
}
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    Applied,
    AlreadyAccounted,
    Quarantined { reason: String },
}
pub struct StagedWriter;
impl io::Write for StagedWriter {
    fn write(&mut self, b: &[u8]) -> io::Result<usize> {
        todo!()
    }
    fn flush(&mut self) -> io::Result<()> {
        todo!()
    }
}
impl StagedWriter {
    pub fn finish(self) -> io::Result<StagedFile> {
        todo!()
    }
}
/// Durable bytes waiting to be applied; removed when dropped unapplied.
#[derive(Debug)]
pub struct StagedFile {
    path: PathBuf,
    hash: [u8; 32],
    bytes: u64,
}
#[derive(Clone, Debug)]
pub struct LedgerRow {
    pub origin: NodeId,
    pub epoch: Epoch,
    pub outcome: Outcome,
    pub ranges: RangeSet,
}
#[derive(Clone, Debug, serde::Serialize)]
pub struct QuarantineRow {
    pub id: EntryId,
    pub kind: model::Kind,
    pub reason: String,
    pub at: UnixMillis,
    pub body_bytes: u64,
}
impl Replica {
    pub fn apply(&self, items: Vec<Incoming>) -> Result<Vec<Applied>, StoreError> {
        todo!()
    }
    pub fn account(&self, origin: NodeId, epoch: Epoch, outcome: Outcome, seqs: &RangeSet) -> Result<(), StoreError> {
        todo!()
    }
    pub fn ledger(&self) -> Result<Vec<LedgerRow>, StoreError> {
        todo!()
    }
    pub fn quarantine_list(&self) -> Result<Vec<QuarantineRow>, StoreError> {
        todo!()
    }
    pub fn set_node_name(&self, node: NodeId, name: &str) -> Result<(), StoreError> {
        todo!()
    }
    pub fn stage_file(&self) -> io::Result<StagedWriter> {
        todo!()
    }
    pub fn flush_digest(&self) -> Result<u64, StoreError> {
        todo!()
    }
}
