//! The route table: every method and path that the API answers, with who may use it.
//!
//! The router is made from it, and tests walk it. A path that is not here is 404.

use http::Method;
use telemetry::RequestKind;

use super::call::Call;
use super::reply::Reply;
use super::{categories, channels, files, posts, preferences, system, teams, users};
use crate::error::AppResult;

/// Who may use a route. What exactly a session may do is decided by the core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everybody, logged in or not.
    Public,
    /// A session; a changing request by cookie must prove that our own page sent it.
    Session,
    /// A session; no such proof, because the request changes nothing or comes from an image or link.
    SessionNoCsrf,
    /// A session of a system administrator.
    Admin,
}

/// One row of the table.
pub struct Route {
    /// HTTP method; GET also answers HEAD.
    pub method: Method,
    /// Path with `{parameters}`.
    pub path: &'static str,
    /// Who may use it.
    pub access: Access,
    pub(crate) run: Run,
}

impl std::fmt::Debug for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} ({:?})", self.method, self.path, self.access)
    }
}

impl Route {
    pub(crate) fn is_socket(&self) -> bool {
        matches!(self.run, Run::Socket)
    }

    /// Under which kind its requests are counted.
    pub(crate) fn kind(&self) -> RequestKind {
        match self.method {
            _ if self.path.starts_with("/api/v4/files") => RequestKind::File,
            Method::GET => RequestKind::Read,
            _ => RequestKind::Write,
        }
    }
}

/// How a route runs.
#[derive(Clone, Copy)]
pub(crate) enum Run {
    /// With the whole body, on a blocking thread.
    Json(fn(&Call) -> AppResult<Reply>),
    /// The same, and hashes a password: a few at a time.
    Password(fn(&Call) -> AppResult<Reply>),
    /// Reads the body itself, piece by piece.
    Upload,
    /// Becomes a WebSocket.
    Socket,
}

use Access::{Admin, Public, Session, SessionNoCsrf};

const fn row(method: Method, path: &'static str, access: Access, handler: fn(&Call) -> AppResult<Reply>) -> Route {
    Route { method, path, access, run: Run::Json(handler) }
}

const fn get(path: &'static str, access: Access, handler: fn(&Call) -> AppResult<Reply>) -> Route {
    row(Method::GET, path, access, handler)
}

const fn post(path: &'static str, access: Access, handler: fn(&Call) -> AppResult<Reply>) -> Route {
    row(Method::POST, path, access, handler)
}

const fn put(path: &'static str, access: Access, handler: fn(&Call) -> AppResult<Reply>) -> Route {
    row(Method::PUT, path, access, handler)
}

const fn delete(path: &'static str, access: Access, handler: fn(&Call) -> AppResult<Reply>) -> Route {
    row(Method::DELETE, path, access, handler)
}

/// Every route.
#[rustfmt::skip]
pub static ROUTES: &[Route] = &[
    // The site
    get("/api/v4/system/ping", Public, system::ping),
    get("/api/v4/config/client", Public, system::client_config),
    get("/api/v4/license/client", Public, system::client_license),
    get("/api/v4/limits/server", Session, system::limits),
    get("/api/v4/plugins/webapp", Public, system::empty_list),
    get("/api/v4/system/notices/{team_id}", Session, system::empty_list),
    get("/api/v4/custom_profile_attributes/fields", Session, system::empty_list),
    get("/api/v4/emoji", Session, system::empty_list),
    post("/api/v4/emoji/names", Session, system::empty_list),
    post("/api/v4/emoji/search", Session, system::empty_list),
    get("/api/v4/emoji/autocomplete", Session, system::empty_list),
    get("/api/v4/emoji/name/{emoji_name}", Session, posts::no_such_emoji),
    post("/api/v4/logs", Session, system::client_log),
    post("/api/v4/roles/names", SessionNoCsrf, system::roles_by_names),
    get("/api/v4/roles/name/{role_name}", SessionNoCsrf, system::role_by_name),

    // Login
    Route { method: Method::POST, path: "/api/v4/users/login", access: Public, run: Run::Password(users::login) },
    post("/api/v4/users/login/type", Public, users::login_type),
    post("/api/v4/users/logout", Public, users::logout),
    put("/api/v4/users/sessions/device", Session, users::set_device),
    get("/api/v4/users/{user_id}/sessions", Session, users::sessions),
    post("/api/v4/users/{user_id}/sessions/revoke", Session, users::revoke_session),
    post("/api/v4/users/{user_id}/sessions/revoke/all", Session, users::revoke_all_sessions),
    get("/api/v4/users/{user_id}/tokens", Session, users::tokens),
    post("/api/v4/users/{user_id}/tokens", Session, users::create_token),
    get("/api/v4/users/tokens/{token_id}", Session, users::one_token),
    post("/api/v4/users/tokens/revoke", Session, users::revoke_token),
    post("/api/v4/users/tokens/disable", Session, users::disable_token),
    post("/api/v4/users/tokens/enable", Session, users::enable_token),

    // Users
    Route { method: Method::POST, path: "/api/v4/users", access: Public, run: Run::Password(users::create) },
    get("/api/v4/users", Session, users::list),
    get("/api/v4/users/stats", Session, users::stats),
    post("/api/v4/users/ids", Session, users::by_ids),
    post("/api/v4/users/usernames", Session, users::by_usernames),
    post("/api/v4/users/group_channels", Session, users::by_group_channels),
    post("/api/v4/users/search", Session, users::search),
    get("/api/v4/users/autocomplete", Session, users::autocomplete),
    get("/api/v4/users/username/{username}", Session, users::by_username),
    get("/api/v4/users/email/{email}", Session, users::by_email),
    get("/api/v4/users/{user_id}", Session, users::get),
    Route { method: Method::PUT, path: "/api/v4/users/{user_id}", access: Session, run: Run::Password(users::update) },
    delete("/api/v4/users/{user_id}", Session, users::deactivate),
    Route {
        method: Method::PUT, path: "/api/v4/users/{user_id}/patch", access: Session, run: Run::Password(users::patch),
    },
    put("/api/v4/users/{user_id}/roles", Admin, users::set_roles),
    put("/api/v4/users/{user_id}/active", Session, users::set_active),
    Route {
        method: Method::PUT, path: "/api/v4/users/{user_id}/password", access: Session,
        run: Run::Password(users::set_password),
    },
    get("/api/v4/users/{user_id}/image", SessionNoCsrf, users::image),
    get("/api/v4/users/{user_id}/image/default", SessionNoCsrf, users::image),

    // Presence
    post("/api/v4/users/status/ids", Session, users::statuses),
    get("/api/v4/users/{user_id}/status", Session, users::status),
    put("/api/v4/users/{user_id}/status", Session, users::set_status),
    post("/api/v4/users/{user_id}/typing", Session, users::typing),

    // Preferences
    get("/api/v4/users/{user_id}/preferences", Session, preferences::all),
    put("/api/v4/users/{user_id}/preferences", Session, preferences::save),
    post("/api/v4/users/{user_id}/preferences/delete", Session, preferences::delete),
    get("/api/v4/users/{user_id}/preferences/{category}", Session, preferences::in_category),
    get("/api/v4/users/{user_id}/preferences/{category}/name/{preference_name}", Session, preferences::one),

    // Teams
    post("/api/v4/teams", Session, teams::create),
    get("/api/v4/teams", Session, teams::list),
    get("/api/v4/teams/{team_id}", Session, teams::get),
    delete("/api/v4/teams/{team_id}", Session, teams::archive),
    put("/api/v4/teams/{team_id}/patch", Session, teams::patch),
    get("/api/v4/teams/{team_id}/stats", Session, teams::stats),
    get("/api/v4/teams/name/{team_name}", Session, teams::by_name),
    get("/api/v4/teams/name/{team_name}/exists", Session, teams::exists),
    get("/api/v4/teams/{team_id}/members", Session, teams::members),
    post("/api/v4/teams/{team_id}/members", Session, teams::add_member),
    post("/api/v4/teams/{team_id}/members/batch", Session, teams::add_members),
    post("/api/v4/teams/{team_id}/members/ids", Session, teams::members_by_ids),
    get("/api/v4/teams/{team_id}/members/{user_id}", Session, teams::member),
    delete("/api/v4/teams/{team_id}/members/{user_id}", Session, teams::remove_member),
    put("/api/v4/teams/{team_id}/members/{user_id}/roles", Session, teams::set_member_roles),
    get("/api/v4/users/{user_id}/teams", Session, teams::of_user),
    get("/api/v4/users/{user_id}/teams/members", Session, teams::memberships_of_user),
    get("/api/v4/users/{user_id}/teams/unread", Session, teams::unread_of_user),
    get("/api/v4/users/{user_id}/teams/{team_id}/unread", Session, teams::unread),

    // Channels
    get("/api/v4/channels", Admin, channels::all),
    post("/api/v4/channels", Session, channels::create),
    post("/api/v4/channels/direct", Session, channels::create_direct),
    post("/api/v4/channels/group", Session, channels::create_group),
    post("/api/v4/channels/stats/member_count", Session, channels::member_counts),
    get("/api/v4/channels/{channel_id}", Session, channels::get),
    put("/api/v4/channels/{channel_id}", Session, channels::update),
    delete("/api/v4/channels/{channel_id}", Session, channels::archive),
    put("/api/v4/channels/{channel_id}/patch", Session, channels::patch),
    put("/api/v4/channels/{channel_id}/privacy", Session, channels::set_privacy),
    post("/api/v4/channels/{channel_id}/restore", Session, channels::restore),
    get("/api/v4/channels/{channel_id}/stats", Session, channels::stats),
    get("/api/v4/channels/{channel_id}/timezones", Session, channels::timezones),
    get("/api/v4/channels/{channel_id}/pinned", Session, posts::pinned),
    get("/api/v4/teams/{team_id}/channels", Session, channels::public_of_team),
    get("/api/v4/teams/{team_id}/channels/deleted", Session, channels::archived_of_team),
    post("/api/v4/teams/{team_id}/channels/ids", Session, channels::by_ids),
    post("/api/v4/teams/{team_id}/channels/search", Session, channels::search),
    get("/api/v4/teams/{team_id}/channels/autocomplete", Session, channels::autocomplete),
    get("/api/v4/teams/{team_id}/channels/search_autocomplete", Session, channels::autocomplete),
    get("/api/v4/teams/{team_id}/channels/name/{channel_name}", Session, channels::by_name),
    get("/api/v4/teams/name/{team_name}/channels/name/{channel_name}", Session, channels::by_team_and_name),

    // Membership in channels and what is unread
    get("/api/v4/users/{user_id}/channels", Session, channels::of_user),
    get("/api/v4/users/{user_id}/teams/{team_id}/channels", Session, channels::of_user_in_team),
    get("/api/v4/users/{user_id}/teams/{team_id}/channels/members", Session, channels::memberships_in_team),
    get("/api/v4/users/{user_id}/channel_members", Session, channels::memberships),
    get("/api/v4/users/{user_id}/channels/{channel_id}/unread", Session, channels::unread),
    get("/api/v4/channels/{channel_id}/members", Session, channels::members),
    post("/api/v4/channels/{channel_id}/members", Session, channels::add_member),
    post("/api/v4/channels/{channel_id}/members/ids", Session, channels::members_by_ids),
    get("/api/v4/channels/{channel_id}/members/{user_id}", Session, channels::member),
    delete("/api/v4/channels/{channel_id}/members/{user_id}", Session, channels::remove_member),
    put("/api/v4/channels/{channel_id}/members/{user_id}/roles", Session, channels::set_member_roles),
    put("/api/v4/channels/{channel_id}/members/{user_id}/notify_props", Session, channels::set_notify_props),
    post("/api/v4/channels/members/{user_id}/view", Session, channels::view),
    post("/api/v4/channels/members/{user_id}/mark_read", Session, channels::mark_read),

    // The sidebar
    get("/api/v4/users/{user_id}/teams/{team_id}/channels/categories", Session, categories::all),
    post("/api/v4/users/{user_id}/teams/{team_id}/channels/categories", Session, categories::create),
    put("/api/v4/users/{user_id}/teams/{team_id}/channels/categories", Session, categories::update_all),
    get("/api/v4/users/{user_id}/teams/{team_id}/channels/categories/order", Session, categories::order),
    put("/api/v4/users/{user_id}/teams/{team_id}/channels/categories/order", Session, categories::set_order),
    get("/api/v4/users/{user_id}/teams/{team_id}/channels/categories/{category_id}", Session, categories::one),
    put("/api/v4/users/{user_id}/teams/{team_id}/channels/categories/{category_id}", Session, categories::update_one),
    delete("/api/v4/users/{user_id}/teams/{team_id}/channels/categories/{category_id}", Session, categories::delete),

    // Posts
    post("/api/v4/posts", Session, posts::create),
    post("/api/v4/posts/ids", Session, posts::by_ids),
    post("/api/v4/posts/ids/reactions", Session, posts::reactions_of_posts),
    get("/api/v4/posts/{post_id}", Session, posts::get),
    put("/api/v4/posts/{post_id}", Session, posts::update),
    delete("/api/v4/posts/{post_id}", Session, posts::delete),
    put("/api/v4/posts/{post_id}/patch", Session, posts::patch),
    get("/api/v4/posts/{post_id}/thread", Session, posts::thread),
    get("/api/v4/posts/{post_id}/edit_history", Session, posts::edit_history),
    get("/api/v4/posts/{post_id}/files/info", Session, posts::files),
    post("/api/v4/posts/{post_id}/pin", Session, posts::pin),
    post("/api/v4/posts/{post_id}/unpin", Session, posts::unpin),
    get("/api/v4/channels/{channel_id}/posts", Session, posts::of_channel),
    get("/api/v4/users/{user_id}/channels/{channel_id}/posts/unread", Session, posts::around_unread),
    get("/api/v4/users/{user_id}/posts/flagged", Session, posts::flagged),
    post("/api/v4/users/{user_id}/posts/{post_id}/set_unread", Session, posts::set_unread),

    // Reactions
    post("/api/v4/reactions", Session, posts::react),
    get("/api/v4/posts/{post_id}/reactions", Session, posts::reactions),
    delete("/api/v4/users/{user_id}/posts/{post_id}/reactions/{emoji_name}", Session, posts::unreact),

    // Files
    Route { method: Method::POST, path: "/api/v4/files", access: Session, run: Run::Upload },
    get("/api/v4/files/{file_id}", SessionNoCsrf, files::get),
    get("/api/v4/files/{file_id}/info", Session, files::info),
    get("/api/v4/files/{file_id}/link", Session, files::link),
    get("/api/v4/files/{file_id}/thumbnail", SessionNoCsrf, files::thumbnail),
    get("/api/v4/files/{file_id}/preview", SessionNoCsrf, files::preview),

    // Events
    Route { method: Method::GET, path: "/api/v4/websocket", access: Public, run: Run::Socket },
    Route { method: Method::GET, path: "/api/v4/websocket/", access: Public, run: Run::Socket },

    // Features of the real server that clients probe and tolerate to be missing
    post("/api/v4/client_perf", Session, system::not_offered),
    get("/api/v4/users/{user_id}/teams/{team_id}/threads", Session, system::not_offered),
    get("/api/v4/users/{user_id}/teams/{team_id}/drafts", Session, system::not_offered),
    post("/api/v4/drafts", Session, system::not_offered),
    get("/api/v4/posts/scheduled/team/{team_id}", Session, system::not_offered),
    post("/api/v4/users/{user_id}/posts/{post_id}/ack", Session, system::not_offered),
    delete("/api/v4/users/{user_id}/posts/{post_id}/ack", Session, system::not_offered),
];
