//! The route table: every method and path that the API answers, with who may use it.
//!
//! The router is made from it, and tests walk it. A path that is not here is 404.

use std::pin::Pin;

use axum::body::Body;
use http::Method;
use telemetry::RequestKind;

use super::call::Call;
use super::reply::Reply;
use super::unlicensed::{self, Refusal};
use super::{
    accounts, admin, bookmarks, bots, bulk, categories, channels, drafts, emoji, enroll, files, integrations, pictures,
    posts, preferences, push, search, system, tab, teams, threads, uploads, users,
};
use crate::error::AppResult;

/// Who gets through to what a request names. Finer rules are the core's; `http/tests/matrix.rs` holds every row against what
/// stands here, with each kind of caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// Everybody, logged in or not.
    Anyone,
    /// Every session, whatever the request names: there is nothing in the answer that belongs to a team or channel of others.
    SignedIn,
    /// Members of the team, of which a closed one is nobody else's business.
    TeamMember,
    /// Administrators of the team.
    TeamAdmin,
    /// Those who are in the channel. An administrator of the team is not, unless they joined.
    ChannelMember,
    /// Administrators of the channel and of its team.
    ChannelAdmin,
    /// The user whom the request names, or whose object it is.
    Own,
    /// System administrators, who also get through to everything above.
    SystemAdmin,
}

/// One row of the table.
pub struct Route {
    /// HTTP method; GET also answers HEAD.
    pub method: Method,
    /// Path with `{parameters}`.
    pub path: &'static str,
    /// Who may use it.
    pub who: Who,
    /// A changing request by cookie must prove that our own page sent it.
    pub checks_csrf: bool,
    /// It is refused while an administrator calls the server busy.
    pub(crate) can_wait: bool,
    /// That it was asked for is kept for administrators.
    pub(crate) is_noted: bool,
    /// Whoever is not known yet may guess here, though at no password.
    pub(crate) is_guessed: bool,
    pub(crate) run: Run,
}

impl std::fmt::Debug for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} ({:?})", self.method, self.path, self.who)
    }
}

impl Route {
    pub(crate) fn needs_session(&self) -> bool {
        self.who != Who::Anyone
    }

    /// Whoever is not known yet may guess here.
    pub(crate) fn is_attempt(&self) -> bool {
        self.is_guessed || (self.who == Who::Anyone && matches!(self.run, Run::Password(_)))
    }

    /// Under which kind its requests are counted.
    pub(crate) fn kind(&self) -> RequestKind {
        match self.method {
            _ if self.path.starts_with("/api/v4/files") => RequestKind::File,
            Method::GET => RequestKind::Read,
            _ => RequestKind::Write,
        }
    }

    /// For what a server that is busy can do without.
    const fn unless_busy(mut self) -> Self {
        self.can_wait = true;
        self
    }

    /// For where strangers show something that lets them in.
    const fn guessed(mut self) -> Self {
        self.is_guessed = true;
        self
    }

    /// For what concerns accounts, sessions and rights.
    const fn noted(mut self) -> Self {
        self.is_noted = true;
        self
    }

    /// For what changes nothing, or comes from an image or link.
    const fn without_csrf(mut self) -> Self {
        self.checks_csrf = false;
        self
    }
}

/// What a handler gives that does more than one step.
pub(crate) type Streamed = Pin<Box<dyn Future<Output = AppResult<Reply>> + Send>>;

/// How a route runs.
#[derive(Clone, Copy)]
pub(crate) enum Run {
    /// With the whole body, on a blocking thread.
    Json(fn(&Call) -> AppResult<Reply>),
    /// The same, and hashes a password: a few at a time.
    Password(fn(&Call) -> AppResult<Reply>),
    /// Reads the body itself, or waits for something else than the store.
    Stream(fn(Call, Body) -> Streamed),
    /// Becomes a WebSocket.
    Socket,
    /// Tells everybody who gets here the same.
    Refuse(Refusal),
}

/// Every row: what is offered, and what is refused as the original does.
pub fn all() -> impl Iterator<Item = &'static Route> {
    ROUTES.iter().chain(unlicensed::REFUSED)
}

use Who::{Anyone, ChannelAdmin, ChannelMember, Own, SignedIn, SystemAdmin, TeamAdmin, TeamMember};

const fn row(method: Method, path: &'static str, who: Who, run: Run) -> Route {
    Route { method, path, who, checks_csrf: true, can_wait: false, is_noted: false, is_guessed: false, run }
}

const fn get(path: &'static str, who: Who, handler: fn(&Call) -> AppResult<Reply>) -> Route {
    row(Method::GET, path, who, Run::Json(handler))
}

const fn post(path: &'static str, who: Who, handler: fn(&Call) -> AppResult<Reply>) -> Route {
    row(Method::POST, path, who, Run::Json(handler))
}

const fn put(path: &'static str, who: Who, handler: fn(&Call) -> AppResult<Reply>) -> Route {
    row(Method::PUT, path, who, Run::Json(handler))
}

const fn delete(path: &'static str, who: Who, handler: fn(&Call) -> AppResult<Reply>) -> Route {
    row(Method::DELETE, path, who, Run::Json(handler))
}

/// Changes something and hashes a password on the way.
const fn hashing(method: Method, path: &'static str, who: Who, handler: fn(&Call) -> AppResult<Reply>) -> Route {
    row(method, path, who, Run::Password(handler))
}

const fn stream(method: Method, path: &'static str, who: Who, handler: fn(Call, Body) -> Streamed) -> Route {
    row(method, path, who, Run::Stream(handler))
}

/// Every route. A new row says who may use it; what is not a plain GET also needs a sample request in
/// `http/tests/matrix.rs`, with which the row is tried.
#[rustfmt::skip]
pub static ROUTES: &[Route] = &[
    // The tab of host applications
    get("/holdfast/tab", Anyone, tab::page),
    get("/holdfast/tab/page.js", Anyone, tab::script),
    get("/holdfast/tab/page.css", Anyone, tab::style),
    get("/holdfast/tab/host.js", Anyone, tab::library),
    stream(Method::POST, "/holdfast/tab/sign-in", Anyone, tab::sign_in).guessed(),

    // The site
    get("/api/v4/system/ping", Anyone, system::ping),
    get("/api/v4/config/client", Anyone, system::client_config),
    get("/api/v4/license/client", Anyone, system::client_license),
    get("/api/v4/limits/server", SignedIn, system::limits),
    get("/api/v4/plugins/webapp", Anyone, system::empty_list),
    get("/api/v4/system/notices/{team_id}", SignedIn, system::empty_list),
    get("/api/v4/custom_profile_attributes/fields", SignedIn, system::empty_list),
    post("/api/v4/logs", SignedIn, system::client_log),
    post("/api/v4/roles/names", SignedIn, system::roles_by_names).without_csrf(),
    get("/api/v4/roles/name/{role_name}", SignedIn, system::role_by_name).without_csrf(),

    get("/api/v4/system/timezones", SignedIn, admin::timezones),
    get("/api/v4/usage/posts", SignedIn, admin::posts_usage),
    get("/api/v4/usage/storage", SignedIn, admin::storage_usage),
    get("/api/v4/usage/teams", SignedIn, admin::teams_usage),
    get("/api/v4/agents", SignedIn, system::empty_list),
    get("/api/v4/agents/status", SignedIn, admin::agents_status),
    get("/api/v4/llmservices", SignedIn, system::empty_list),
    put("/api/v4/system/notices/view", SignedIn, admin::notices_seen),
    post("/api/v4/permissions/ancillary", SignedIn, admin::ancillary_permissions),
    get("/api/v4/license/load_metric", SignedIn, admin::license_load),

    // For administrators
    get("/api/v4/config", SystemAdmin, admin::get_config),
    put("/api/v4/config", SystemAdmin, admin::put_config).noted(),
    put("/api/v4/config/patch", SystemAdmin, admin::put_config).noted(),
    post("/api/v4/config/reload", SystemAdmin, admin::reload_config).noted(),
    get("/api/v4/config/environment", SystemAdmin, admin::environment),
    get("/api/v4/audits", SystemAdmin, admin::audits),
    get("/api/v4/users/{user_id}/audits", Own, admin::audits_of_user),
    get("/api/v4/logs", SystemAdmin, admin::logs),
    post("/api/v4/logs/query", SystemAdmin, admin::logs),
    get("/api/v4/logs/download", SystemAdmin, admin::logs),
    get("/api/v4/analytics/old", SystemAdmin, admin::analytics),
    get("/api/v4/jobs", SystemAdmin, bulk::jobs),
    post("/api/v4/jobs", SystemAdmin, bulk::create_job).noted(),
    get("/api/v4/jobs/type/{job_type}", SystemAdmin, bulk::jobs_of_type),
    get("/api/v4/jobs/{job_id}", SystemAdmin, bulk::job),
    post("/api/v4/jobs/{job_id}/cancel", SystemAdmin, bulk::cancel_job).noted(),
    row(Method::PATCH, "/api/v4/jobs/{job_id}/status", SystemAdmin, Run::Json(bulk::set_job_status)).noted(),
    get("/api/v4/imports", SystemAdmin, bulk::imports),
    delete("/api/v4/imports/{import_name}", SystemAdmin, bulk::delete_import).noted(),
    get("/api/v4/exports", SystemAdmin, bulk::exports),
    get("/api/v4/exports/{export_name}", SystemAdmin, bulk::download_export).noted(),
    delete("/api/v4/exports/{export_name}", SystemAdmin, bulk::delete_export).noted(),
    post("/api/v4/exports/{export_name}/presign-url", SystemAdmin, bulk::presign),
    get("/api/v4/roles", SystemAdmin, admin::roles),
    get("/api/v4/roles/{role_id}", SignedIn, admin::role),
    put("/api/v4/roles/{role_id}/patch", SystemAdmin, admin::patch_role).noted(),
    get("/api/v4/schemes", SystemAdmin, system::empty_list),
    get("/api/v4/cluster/status", SystemAdmin, system::empty_list),
    get("/api/v4/saml/certificate/status", SystemAdmin, admin::saml_certificates),
    get("/api/v4/server_busy", SystemAdmin, admin::busy),
    post("/api/v4/server_busy", SystemAdmin, admin::set_busy).noted(),
    delete("/api/v4/server_busy", SystemAdmin, admin::clear_busy).noted(),
    post("/api/v4/caches/invalidate", SystemAdmin, admin::invalidate_caches).noted(),
    post("/api/v4/database/recycle", SystemAdmin, admin::recycle_database).noted(),
    get("/api/v4/system/schema/version", SystemAdmin, admin::schema_version),
    get("/api/v4/system/onboarding/complete", SystemAdmin, admin::onboarding),
    put("/api/v4/users/{user_id}/auth", SystemAdmin, admin::set_auth).noted(),

    // Login
    hashing(Method::POST, "/api/v4/users/login", Anyone, users::login),
    post("/api/v4/users/login/type", Anyone, users::login_type),
    post("/api/v4/users/logout", Anyone, users::logout).noted(),
    put("/api/v4/users/sessions/device", SignedIn, users::set_device),
    post("/api/v4/notifications/ack", SignedIn, push::ack),
    // The push proxy's API, for listed addresses.
    stream(Method::POST, "/api/v1/send_push", Anyone, push::relay_push),
    stream(Method::POST, "/api/v1/ack", Anyone, push::relay_receipt),
    get("/api/v4/users/{user_id}/sessions", Own, users::sessions),
    post("/api/v4/users/{user_id}/sessions/revoke", Own, users::revoke_session).noted(),
    post("/api/v4/users/{user_id}/sessions/revoke/all", Own, users::revoke_all_sessions).noted(),
    post("/api/v4/users/sessions/revoke/all", SystemAdmin, accounts::revoke_everybody).noted(),
    post("/api/v4/users/{user_id}/reset_failed_attempts", Own, accounts::reset_failed_attempts).noted(),
    put("/api/v4/users/{user_id}/mfa", Own, accounts::set_mfa).noted(),
    post("/api/v4/users/{user_id}/mfa/generate", Own, accounts::generate_mfa).noted(),
    get("/holdfast/enroll", Anyone, enroll::show),
    hashing(Method::POST, "/holdfast/enroll", Anyone, enroll::take).without_csrf(),
    hashing(Method::POST, "/api/v4/users/password/reset", Anyone, accounts::reset_password).noted(),
    post("/api/v4/users/password/reset/send", Anyone, accounts::send_password_reset),
    post("/api/v4/users/email/verify", Anyone, accounts::verify_email),
    post("/api/v4/users/email/verify/send", Anyone, accounts::send_verification),
    post("/api/v4/users/{user_id}/email/verify/member", SystemAdmin, accounts::verify_member),
    get("/api/v4/users/{user_id}/tokens", Own, users::tokens),
    post("/api/v4/users/{user_id}/tokens", Own, users::create_token).noted(),
    get("/api/v4/users/tokens", SystemAdmin, accounts::all_tokens),
    post("/api/v4/users/tokens/search", SystemAdmin, accounts::search_tokens),
    get("/api/v4/users/tokens/{token_id}", Own, users::one_token),
    post("/api/v4/users/tokens/revoke", Own, users::revoke_token).noted(),
    post("/api/v4/users/tokens/disable", Own, users::disable_token).noted(),
    post("/api/v4/users/tokens/enable", Own, users::enable_token).noted(),

    // Users
    hashing(Method::POST, "/api/v4/users", Anyone, users::create).noted(),
    get("/api/v4/users", SignedIn, users::list),
    get("/api/v4/users/stats", SignedIn, users::stats),
    get("/api/v4/users/stats/filtered", SystemAdmin, accounts::filtered_stats),
    get("/api/v4/users/known", SignedIn, accounts::known),
    get("/api/v4/users/invalid_emails", SystemAdmin, accounts::invalid_emails),
    post("/api/v4/users/ids", SignedIn, users::by_ids),
    post("/api/v4/users/usernames", SignedIn, users::by_usernames),
    post("/api/v4/users/group_channels", SignedIn, users::by_group_channels),
    post("/api/v4/users/search", SignedIn, users::search).unless_busy(),
    get("/api/v4/users/autocomplete", SignedIn, users::autocomplete),
    get("/api/v4/users/username/{username}", SignedIn, users::by_username),
    get("/api/v4/users/email/{email}", SignedIn, users::by_email),
    get("/api/v4/users/{user_id}", SignedIn, users::get),
    hashing(Method::PUT, "/api/v4/users/{user_id}", Own, users::update),
    delete("/api/v4/users/{user_id}", Own, users::deactivate).noted(),
    hashing(Method::PUT, "/api/v4/users/{user_id}/patch", Own, users::patch),
    put("/api/v4/users/{user_id}/roles", SystemAdmin, users::set_roles).noted(),
    put("/api/v4/users/{user_id}/active", Own, users::set_active).noted(),
    hashing(Method::PUT, "/api/v4/users/{user_id}/password", Own, users::set_password).noted(),
    get("/api/v4/users/{user_id}/image", SignedIn, pictures::user).without_csrf(),
    get("/api/v4/users/{user_id}/image/default", SignedIn, pictures::default_of_user).without_csrf(),
    stream(Method::POST, "/api/v4/users/{user_id}/image", Own, |call, body| Box::pin(pictures::set_user(call, body))),
    delete("/api/v4/users/{user_id}/image", Own, pictures::remove_user),

    post("/api/v4/users/{user_id}/convert_to_bot", SystemAdmin, bots::convert_to_bot).noted(),

    // Bots
    post("/api/v4/bots", Own, bots::create).noted(),
    get("/api/v4/bots", Own, bots::list),
    get("/api/v4/bots/{bot_user_id}", Own, bots::get),
    put("/api/v4/bots/{bot_user_id}", Own, bots::patch).noted(),
    post("/api/v4/bots/{bot_user_id}/disable", Own, bots::disable).noted(),
    post("/api/v4/bots/{bot_user_id}/enable", Own, bots::enable).noted(),
    post("/api/v4/bots/{bot_user_id}/assign/{user_id}", Own, bots::assign).noted(),
    hashing(Method::POST, "/api/v4/bots/{bot_user_id}/convert_to_user", SystemAdmin, bots::convert_to_user).noted(),

    // Presence
    post("/api/v4/users/status/ids", SignedIn, users::statuses),
    get("/api/v4/users/{user_id}/status", SignedIn, users::status),
    put("/api/v4/users/{user_id}/status", Own, users::set_status),
    put("/api/v4/users/{user_id}/status/custom", Own, accounts::set_custom_status),
    delete("/api/v4/users/{user_id}/status/custom", Own, accounts::remove_custom_status),
    delete("/api/v4/users/{user_id}/status/custom/recent", Own, accounts::forget_recent_custom_status),
    post("/api/v4/users/{user_id}/status/custom/recent/delete", Own, accounts::forget_recent_custom_status),
    post("/api/v4/users/{user_id}/typing", Own, users::typing).unless_busy(),

    // Preferences
    get("/api/v4/users/{user_id}/preferences", Own, preferences::all),
    put("/api/v4/users/{user_id}/preferences", Own, preferences::save),
    post("/api/v4/users/{user_id}/preferences/delete", Own, preferences::delete),
    get("/api/v4/users/{user_id}/preferences/{category}", Own, preferences::in_category),
    get("/api/v4/users/{user_id}/preferences/{category}/name/{preference_name}", Own, preferences::one),

    // Teams
    post("/api/v4/teams", SignedIn, teams::create),
    get("/api/v4/teams", SignedIn, teams::list),
    get("/api/v4/teams/{team_id}", TeamMember, teams::get),
    delete("/api/v4/teams/{team_id}", TeamAdmin, teams::archive),
    put("/api/v4/teams/{team_id}/patch", TeamAdmin, teams::patch),
    put("/api/v4/teams/{team_id}", TeamAdmin, teams::update),
    put("/api/v4/teams/{team_id}/privacy", TeamAdmin, teams::set_privacy).noted(),
    post("/api/v4/teams/{team_id}/restore", TeamAdmin, teams::restore),
    post("/api/v4/teams/{team_id}/regenerate_invite_id", TeamAdmin, teams::regenerate_invite).noted(),
    post("/api/v4/teams/{team_id}/invite/email", TeamMember, teams::invite_by_mail),
    post("/api/v4/teams/search", SignedIn, teams::search).unless_busy(),
    get("/api/v4/teams/invite/{invite_id}", Anyone, teams::invite_info),
    post("/api/v4/teams/members/invite", SignedIn, teams::join_by_invite),
    get("/api/v4/teams/{team_id}/image", TeamMember, pictures::team).without_csrf(),
    stream(Method::POST, "/api/v4/teams/{team_id}/image", TeamAdmin, |call, body| Box::pin(pictures::set_team(call, body))),
    delete("/api/v4/teams/{team_id}/image", TeamAdmin, pictures::remove_team),
    get("/api/v4/teams/{team_id}/stats", TeamMember, teams::stats),
    get("/api/v4/teams/name/{team_name}", TeamMember, teams::by_name),
    get("/api/v4/teams/name/{team_name}/exists", SignedIn, teams::exists),
    get("/api/v4/teams/{team_id}/members", TeamMember, teams::members),
    post("/api/v4/teams/{team_id}/members", TeamMember, teams::add_member),
    post("/api/v4/teams/{team_id}/members/batch", TeamMember, teams::add_members),
    post("/api/v4/teams/{team_id}/members/ids", TeamMember, teams::members_by_ids),
    get("/api/v4/teams/{team_id}/members/{user_id}", TeamMember, teams::member),
    delete("/api/v4/teams/{team_id}/members/{user_id}", TeamAdmin, teams::remove_member),
    put("/api/v4/teams/{team_id}/members/{user_id}/roles", TeamAdmin, teams::set_member_roles).noted(),
    put("/api/v4/teams/{team_id}/members/{user_id}/schemeRoles", TeamAdmin, teams::set_scheme_roles),
    get("/api/v4/users/{user_id}/teams", Own, teams::of_user),
    get("/api/v4/users/{user_id}/teams/members", Own, teams::memberships_of_user),
    get("/api/v4/users/{user_id}/teams/unread", Own, teams::unread_of_user),
    get("/api/v4/users/{user_id}/teams/{team_id}/unread", Own, teams::unread),

    // Channels
    get("/api/v4/channels", SystemAdmin, channels::all),
    post("/api/v4/channels/search", SystemAdmin, channels::search_all).unless_busy(),
    post("/api/v4/channels", TeamMember, channels::create),
    post("/api/v4/channels/direct", SignedIn, channels::create_direct),
    post("/api/v4/channels/group", SignedIn, channels::create_group),
    post("/api/v4/channels/stats/member_count", ChannelMember, channels::member_counts),
    get("/api/v4/channels/{channel_id}", ChannelMember, channels::get),
    put("/api/v4/channels/{channel_id}", ChannelMember, channels::update),
    delete("/api/v4/channels/{channel_id}", ChannelMember, channels::archive),
    put("/api/v4/channels/{channel_id}/patch", ChannelMember, channels::patch),
    put("/api/v4/channels/{channel_id}/privacy", TeamAdmin, channels::set_privacy).noted(),
    post("/api/v4/channels/{channel_id}/restore", TeamAdmin, channels::restore),
    get("/api/v4/channels/{channel_id}/stats", ChannelMember, channels::stats),
    get("/api/v4/channels/{channel_id}/timezones", ChannelMember, channels::timezones),
    get("/api/v4/channels/{channel_id}/pinned", ChannelMember, posts::pinned),
    get("/api/v4/teams/{team_id}/channels", TeamMember, channels::public_of_team),
    get("/api/v4/teams/{team_id}/channels/private", TeamAdmin, teams::private_channels),
    get("/api/v4/teams/{team_id}/channels/deleted", TeamMember, channels::archived_of_team),
    post("/api/v4/teams/{team_id}/channels/ids", TeamMember, channels::by_ids),
    post("/api/v4/teams/{team_id}/channels/search", TeamMember, channels::search),
    get("/api/v4/teams/{team_id}/channels/autocomplete", TeamMember, channels::autocomplete),
    get("/api/v4/teams/{team_id}/channels/search_autocomplete", TeamMember, channels::autocomplete),
    get("/api/v4/teams/{team_id}/channels/name/{channel_name}", ChannelMember, channels::by_name),
    get("/api/v4/teams/name/{team_name}/channels/name/{channel_name}", ChannelMember, channels::by_team_and_name),

    // Membership in channels and what is unread
    get("/api/v4/users/{user_id}/channels", Own, channels::of_user),
    get("/api/v4/users/{user_id}/teams/{team_id}/channels", Own, channels::of_user_in_team),
    get("/api/v4/users/{user_id}/teams/{team_id}/channels/members", Own, channels::memberships_in_team),
    get("/api/v4/users/{user_id}/channel_members", Own, channels::memberships),
    get("/api/v4/users/{user_id}/channels/{channel_id}/unread", Own, channels::unread),
    get("/api/v4/channels/{channel_id}/members", ChannelMember, channels::members),
    post("/api/v4/channels/{channel_id}/members", ChannelMember, channels::add_member),
    post("/api/v4/channels/{channel_id}/members/ids", ChannelMember, channels::members_by_ids),
    get("/api/v4/channels/{channel_id}/members/{user_id}", ChannelMember, channels::member),
    delete("/api/v4/channels/{channel_id}/members/{user_id}", ChannelMember, channels::remove_member),
    put("/api/v4/channels/{channel_id}/members/{user_id}/roles", ChannelAdmin, channels::set_member_roles),
    put("/api/v4/channels/{channel_id}/members/{user_id}/schemeRoles", ChannelAdmin, channels::set_scheme_roles),
    put("/api/v4/channels/{channel_id}/members/{user_id}/notify_props", Own, channels::set_notify_props),
    post("/api/v4/channels/members/{user_id}/view", Own, channels::view),
    post("/api/v4/channels/members/{user_id}/mark_read", Own, channels::mark_read),

    // The sidebar
    get("/api/v4/users/{user_id}/teams/{team_id}/channels/categories", Own, categories::all),
    post("/api/v4/users/{user_id}/teams/{team_id}/channels/categories", Own, categories::create),
    put("/api/v4/users/{user_id}/teams/{team_id}/channels/categories", Own, categories::update_all),
    get("/api/v4/users/{user_id}/teams/{team_id}/channels/categories/order", Own, categories::order),
    put("/api/v4/users/{user_id}/teams/{team_id}/channels/categories/order", Own, categories::set_order),
    get("/api/v4/users/{user_id}/teams/{team_id}/channels/categories/{category_id}", Own, categories::one),
    put("/api/v4/users/{user_id}/teams/{team_id}/channels/categories/{category_id}", Own, categories::update_one),
    delete("/api/v4/users/{user_id}/teams/{team_id}/channels/categories/{category_id}", Own, categories::delete),

    // Posts
    post("/api/v4/posts", ChannelMember, posts::create),
    post("/api/v4/posts/ids", SignedIn, posts::by_ids),
    post("/api/v4/posts/ids/reactions", SignedIn, posts::reactions_of_posts),
    get("/api/v4/posts/{post_id}", ChannelMember, posts::get),
    put("/api/v4/posts/{post_id}", Own, posts::update),
    delete("/api/v4/posts/{post_id}", TeamAdmin, posts::delete),
    put("/api/v4/posts/{post_id}/patch", Own, posts::patch),
    get("/api/v4/posts/{post_id}/thread", ChannelMember, posts::thread),
    get("/api/v4/posts/{post_id}/edit_history", Own, posts::edit_history),
    get("/api/v4/posts/{post_id}/files/info", ChannelMember, posts::files),
    post("/api/v4/posts/{post_id}/pin", ChannelMember, posts::pin),
    post("/api/v4/posts/{post_id}/unpin", ChannelMember, posts::unpin),
    get("/api/v4/channels/{channel_id}/posts", ChannelMember, posts::of_channel),
    get("/api/v4/users/{user_id}/channels/{channel_id}/posts/unread", Own, posts::around_unread),
    get("/api/v4/users/{user_id}/posts/flagged", Own, posts::flagged),
    post("/api/v4/users/{user_id}/posts/{post_id}/set_unread", Own, posts::set_unread),

    post("/api/v4/users/{user_id}/posts/{post_id}/reminder", Own, posts::remind),
    post("/api/v4/posts/ephemeral", SystemAdmin, posts::create_ephemeral),
    get("/api/v4/posts/{post_id}/info", ChannelMember, posts::info),
    post("/api/v4/posts/{post_id}/restore/{restore_version_id}", Own, posts::restore),

    post("/api/v4/users/{user_id}/posts/{post_id}/ack", Own, posts::acknowledge),
    delete("/api/v4/users/{user_id}/posts/{post_id}/ack", Own, posts::withdraw_acknowledgement),

    // Bookmarks of channels
    get("/api/v4/channels/{channel_id}/bookmarks", ChannelMember, bookmarks::list),
    post("/api/v4/channels/{channel_id}/bookmarks", ChannelMember, bookmarks::create),
    row(Method::PATCH, "/api/v4/channels/{channel_id}/bookmarks/{bookmark_id}", ChannelMember, Run::Json(bookmarks::patch)),
    post("/api/v4/channels/{channel_id}/bookmarks/{bookmark_id}/sort_order", ChannelMember, bookmarks::sort),
    delete("/api/v4/channels/{channel_id}/bookmarks/{bookmark_id}", ChannelMember, bookmarks::delete),

    // What is not posted yet
    post("/api/v4/drafts", ChannelMember, drafts::save),
    get("/api/v4/users/{user_id}/teams/{team_id}/drafts", Own, drafts::list),
    delete("/api/v4/users/{user_id}/channels/{channel_id}/drafts", Own, drafts::delete),
    delete("/api/v4/users/{user_id}/channels/{channel_id}/drafts/{thread_id}", Own, drafts::delete),
    post("/api/v4/posts/schedule", ChannelMember, drafts::schedule),
    put("/api/v4/posts/schedule/{scheduled_post_id}", Own, drafts::update_scheduled),
    delete("/api/v4/posts/schedule/{scheduled_post_id}", Own, drafts::delete_scheduled),
    get("/api/v4/posts/scheduled/team/{team_id}", TeamMember, drafts::scheduled),

    // Threads
    get("/api/v4/users/{user_id}/teams/{team_id}/threads", Own, threads::list),
    put("/api/v4/users/{user_id}/teams/{team_id}/threads/read", Own, threads::read_all),
    get("/api/v4/users/{user_id}/teams/{team_id}/threads/{thread_id}", Own, threads::get),
    put("/api/v4/users/{user_id}/teams/{team_id}/threads/{thread_id}/read/{timestamp}", Own, threads::read),
    post("/api/v4/users/{user_id}/teams/{team_id}/threads/{thread_id}/set_unread/{post_id}", Own, threads::set_unread),
    put("/api/v4/users/{user_id}/teams/{team_id}/threads/{thread_id}/following", Own, threads::follow),
    delete("/api/v4/users/{user_id}/teams/{team_id}/threads/{thread_id}/following", Own, threads::unfollow),

    // Integrations
    stream(Method::POST, "/hooks/{hook_id}", Anyone, |call, body| Box::pin(integrations::incoming(call, body))),
    post("/hooks/commands/{answer_id}", Anyone, integrations::answer_command),
    post("/api/v4/hooks/incoming", TeamAdmin, integrations::create_incoming),
    get("/api/v4/hooks/incoming", SystemAdmin, integrations::list_incoming),
    get("/api/v4/hooks/incoming/{hook_id}", TeamAdmin, integrations::get_incoming),
    put("/api/v4/hooks/incoming/{hook_id}", TeamAdmin, integrations::update_incoming),
    delete("/api/v4/hooks/incoming/{hook_id}", TeamAdmin, integrations::delete_incoming),
    post("/api/v4/hooks/outgoing", TeamAdmin, integrations::create_outgoing),
    get("/api/v4/hooks/outgoing", SystemAdmin, integrations::list_outgoing),
    get("/api/v4/hooks/outgoing/{outgoing_hook_id}", TeamAdmin, integrations::get_outgoing),
    put("/api/v4/hooks/outgoing/{outgoing_hook_id}", TeamAdmin, integrations::update_outgoing),
    delete("/api/v4/hooks/outgoing/{outgoing_hook_id}", TeamAdmin, integrations::delete_outgoing),
    post("/api/v4/hooks/outgoing/{outgoing_hook_id}/regen_token", TeamAdmin, integrations::regenerate_outgoing),
    post("/api/v4/commands", TeamAdmin, integrations::create_command),
    get("/api/v4/commands", TeamMember, integrations::list_commands),
    get("/api/v4/commands/{command_id}", TeamAdmin, integrations::get_command),
    put("/api/v4/commands/{command_id}", TeamAdmin, integrations::update_command),
    delete("/api/v4/commands/{command_id}", TeamAdmin, integrations::delete_command),
    put("/api/v4/commands/{command_id}/move", TeamAdmin, integrations::move_command),
    put("/api/v4/commands/{command_id}/regen_token", TeamAdmin, integrations::regenerate_command),
    stream(Method::POST, "/api/v4/commands/execute", ChannelMember, |call, body| {
        Box::pin(integrations::execute(call, body))
    }),
    get("/api/v4/teams/{team_id}/commands/autocomplete", TeamMember, integrations::suggested_commands),
    get("/api/v4/teams/{team_id}/commands/autocomplete_suggestions", TeamMember, integrations::command_suggestions),
    stream(Method::POST, "/api/v4/posts/{post_id}/actions/{action_id}", ChannelMember, |call, body| {
        Box::pin(integrations::press(call, body))
    }),
    post("/api/v4/actions/dialogs/open", Anyone, integrations::open_dialog),
    stream(Method::POST, "/api/v4/actions/dialogs/submit", ChannelMember, |call, body| {
        Box::pin(integrations::submit_dialog(call, body))
    }),
    get("/api/v4/image", SignedIn, integrations::image_proxy),
    post("/api/v4/opengraph", SignedIn, integrations::link_preview),

    // Custom emoji
    stream(Method::POST, "/api/v4/emoji", SignedIn, |call, body| Box::pin(emoji::create(call, body))),
    get("/api/v4/emoji", SignedIn, emoji::list),
    post("/api/v4/emoji/names", SignedIn, emoji::by_names),
    post("/api/v4/emoji/search", SignedIn, emoji::search),
    get("/api/v4/emoji/autocomplete", SignedIn, emoji::autocomplete),
    get("/api/v4/emoji/name/{emoji_name}", SignedIn, emoji::by_name),
    get("/api/v4/emoji/{emoji_id}", SignedIn, emoji::get),
    delete("/api/v4/emoji/{emoji_id}", Own, emoji::delete),
    get("/api/v4/emoji/{emoji_id}/image", SignedIn, emoji::image).without_csrf(),

    // Reactions
    post("/api/v4/reactions", ChannelMember, posts::react),
    get("/api/v4/posts/{post_id}/reactions", ChannelMember, posts::reactions),
    delete("/api/v4/users/{user_id}/posts/{post_id}/reactions/{emoji_name}", Own, posts::unreact),

    // Files
    stream(Method::POST, "/api/v4/files", ChannelMember, |call, body| Box::pin(files::upload(call, body))),
    get("/api/v4/files/{file_id}", ChannelMember, files::get).without_csrf(),
    get("/api/v4/files/{file_id}/info", ChannelMember, files::info),
    get("/api/v4/files/{file_id}/link", SignedIn, files::link),
    get("/files/{file_id}/public", Anyone, files::link),
    stream(Method::GET, "/api/v4/files/{file_id}/thumbnail", ChannelMember, |call, body| {
        Box::pin(files::thumbnail(call, body))
    }).without_csrf(),
    stream(Method::GET, "/api/v4/files/{file_id}/preview", ChannelMember, |call, body| {
        Box::pin(files::preview(call, body))
    }).without_csrf(),
    post("/api/v4/uploads", ChannelMember, uploads::create),
    get("/api/v4/uploads/{upload_id}", Own, uploads::get),
    stream(Method::POST, "/api/v4/uploads/{upload_id}", Own, |call, body| Box::pin(uploads::add(call, body))),
    get("/api/v4/users/{user_id}/uploads", Own, uploads::of_user),

    // Search
    post("/api/v4/posts/search", SignedIn, search::posts),
    post("/api/v4/teams/{team_id}/posts/search", TeamMember, search::posts),
    post("/api/v4/files/search", SignedIn, search::files),
    post("/api/v4/teams/{team_id}/files/search", TeamMember, search::files),

    // Events
    row(Method::GET, "/api/v4/websocket", Anyone, Run::Socket).without_csrf(),
    row(Method::GET, "/api/v4/websocket/", Anyone, Run::Socket).without_csrf(),

    // Features of the real server that clients probe and tolerate to be missing
    post("/api/v4/client_perf", SignedIn, system::not_offered),
];
