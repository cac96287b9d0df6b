//! Every route of the table, tried as each kind of caller.
//!
//! The world: a closed team `mission` with a private channel `ops`. `author` is an ordinary member of both, and whatever a request
//! names is theirs: the user, the post, the file, the reaction, the token. The row says who gets through ([`Who`]); the others
//! must be refused with 401, 403 or 404. Those who get through must succeed, so that a refusal is
//! known to be one of the caller and not of the request. Besides, no answer may tell a stranger what is in the team or channel.
//!
//! A new row that is not a plain GET needs a line in [`SAMPLES`]; one that by its nature does not succeed, in [`ANSWERS`].

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use super::*;

/// In the team's description and in an open channel of it.
const TEAM_SECRET: &str = "zebra-of-the-team";
/// In the channel's header, the post and the file's name.
const CHANNEL_SECRET: &str = "heron-of-the-channel";

/// Row; target with its query, "" for the row's own path; body. `{names}` are filled in from the world.
const SAMPLES: &[(&str, &str, &str)] = &[
    // The site
    ("POST /api/v4/emoji/names", "", r#"["eyes"]"#),
    ("POST /api/v4/emoji/search", "", r#"{"term":"e"}"#),
    ("GET /api/v4/emoji/autocomplete", "/api/v4/emoji/autocomplete?name=ey", ""),
    ("GET /api/v4/license/client", "/api/v4/license/client?format=old", ""),
    ("POST /api/v4/logs", "", r#"{"message":"x","level":"ERROR"}"#),
    ("POST /api/v4/roles/names", "", r#"["system_user"]"#),
    ("PUT /api/v4/system/notices/view", "", r#"["1"]"#),
    ("POST /api/v4/permissions/ancillary", "", r#"["sysconsole_read_reporting_team_statistics"]"#),
    ("PUT /api/v4/config", "", r#"{"TeamSettings":{"SiteName":"Test site"}}"#),
    ("PUT /api/v4/config/patch", "", r#"{"TeamSettings":{"SiteName":"Test site"}}"#),
    ("POST /api/v4/jobs", "", r#"{"type":"export_process"}"#),
    ("PATCH /api/v4/jobs/{job_id}/status", "", r#"{"status":"cancel_requested"}"#),
    ("PUT /api/v4/users/{user_id}/auth", "", r#"{"auth_data":"x","auth_service":"ldap"}"#),
    // Login
    ("POST /api/v4/users/login", "", r#"{"login_id":"author","password":"{password}"}"#),
    ("POST /api/v4/users/login/type", "", r#"{"login_id":"author"}"#),
    ("POST /api/v4/notifications/ack", "", r#"{"id":"x","platform":"android","type":"message"}"#),
    ("POST /api/v1/send_push", "", r#"{"server_id":"x","device_id":"x"}"#),
    ("POST /api/v1/ack", "", r#"{"id":"x","platform":"android","type":"message"}"#),
    ("PUT /api/v4/users/sessions/device", "", r#"{"device_id":"android:1"}"#),
    ("POST /api/v4/users/{user_id}/sessions/revoke", "", r#"{"session_id":"{session_id}"}"#),
    ("POST /api/v4/users/{user_id}/tokens", "", r#"{"description":"script"}"#),
    ("POST /api/v4/users/tokens/revoke", "", r#"{"token_id":"{token_id}"}"#),
    ("POST /api/v4/users/tokens/disable", "", r#"{"token_id":"{token_id}"}"#),
    ("POST /api/v4/users/tokens/enable", "", r#"{"token_id":"{token_id}"}"#),
    ("POST /api/v4/users/tokens/search", "", r#"{"term":"author"}"#),
    ("PUT /api/v4/users/{user_id}/mfa", "", r#"{"activate":false}"#),
    ("POST /api/v4/users/password/reset", "", MAIL_TOKEN),
    ("POST /holdfast/enroll", "", "token=x&password=x&again=x"),
    ("POST /api/v4/users/password/reset/send", "", r#"{"email":"author@site.example"}"#),
    ("POST /api/v4/users/email/verify", "", MAIL_TOKEN),
    ("POST /api/v4/users/email/verify/send", "", r#"{"email":"author@site.example"}"#),
    // Users
    ("POST /api/v4/users", "", r#"{"username":"fresh","email":"fresh@site.example","password":"{password}"}"#),
    ("POST /api/v4/users/ids", "", r#"["{user_id}"]"#),
    ("POST /api/v4/users/usernames", "", r#"["author"]"#),
    ("POST /api/v4/users/group_channels", "", r#"["{channel_id}"]"#),
    ("POST /api/v4/users/search", "", r#"{"term":"auth"}"#),
    ("GET /api/v4/users/autocomplete", "/api/v4/users/autocomplete?name=auth", ""),
    ("PUT /api/v4/users/{user_id}", "", r#"{"id":"{user_id}","nickname":"x"}"#),
    ("PUT /api/v4/users/{user_id}/patch", "", r#"{"nickname":"x"}"#),
    ("PUT /api/v4/users/{user_id}/roles", "", r#"{"roles":"system_user"}"#),
    ("PUT /api/v4/users/{user_id}/active", "", r#"{"active":false}"#),
    ("PUT /api/v4/users/{user_id}/password", "", r#"{"current_password":"{password}","new_password":"{password}"}"#),
    ("POST /api/v4/users/status/ids", "", r#"["{user_id}"]"#),
    ("PUT /api/v4/users/{user_id}/status", "", r#"{"user_id":"{user_id}","status":"away"}"#),
    ("POST /api/v4/users/{user_id}/typing", "", r#"{"channel_id":"{channel_id}"}"#),
    ("PUT /api/v4/users/{user_id}/status/custom", "", STATUS),
    ("DELETE /api/v4/users/{user_id}/status/custom/recent", "", RECENT_STATUS),
    ("POST /api/v4/users/{user_id}/status/custom/recent/delete", "", RECENT_STATUS),
    // Bots
    ("POST /api/v4/bots", "", r#"{"username":"fresh"}"#),
    ("PUT /api/v4/bots/{bot_user_id}", "", r#"{"display_name":"Fresh"}"#),
    ("POST /api/v4/bots/{bot_user_id}/convert_to_user", "", r#"{"password":"{password}"}"#),
    // Preferences
    ("PUT /api/v4/users/{user_id}/preferences", "", PREFERENCES),
    ("POST /api/v4/users/{user_id}/preferences/delete", "", PREFERENCES),
    // Teams
    ("POST /api/v4/teams", "", r#"{"name":"fresh","display_name":"Fresh","type":"O"}"#),
    ("PUT /api/v4/teams/{team_id}/patch", "", r#"{"display_name":"x"}"#),
    ("POST /api/v4/teams/{team_id}/members", "", r#"{"team_id":"{team_id}","user_id":"{stranger_id}"}"#),
    ("POST /api/v4/teams/{team_id}/members/batch", "", r#"[{"team_id":"{team_id}","user_id":"{stranger_id}"}]"#),
    ("POST /api/v4/teams/{team_id}/members/ids", "", r#"["{user_id}"]"#),
    ("PUT /api/v4/teams/{team_id}/members/{user_id}/roles", "", r#"{"roles":"team_user"}"#),
    ("PUT /api/v4/teams/{team_id}", "", r#"{"id":"{team_id}","display_name":"x"}"#),
    ("PUT /api/v4/teams/{team_id}/privacy", "", r#"{"privacy":"O"}"#),
    ("PUT /api/v4/teams/{team_id}/members/{user_id}/schemeRoles", "", r#"{"scheme_user":true}"#),
    ("POST /api/v4/teams/search", "", r#"{"term":"miss"}"#),
    ("POST /api/v4/teams/members/invite", "/api/v4/teams/members/invite?invite_id={open_invite_id}", ""),
    ("GET /api/v4/teams/invite/{invite_id}", "/api/v4/teams/invite/{open_invite_id}", ""),
    // Channels
    ("POST /api/v4/channels", "", r#"{"team_id":"{team_id}","name":"fresh","display_name":"Fresh","type":"O"}"#),
    ("POST /api/v4/channels/search", "", r#"{"term":"op"}"#),
    ("POST /api/v4/channels/direct", "", r#"["{me}","{user_id}"]"#),
    ("POST /api/v4/channels/group", "", r#"["{me}","{user_id}","{stranger_id}"]"#),
    ("POST /api/v4/channels/stats/member_count", "", r#"["{channel_id}"]"#),
    ("PUT /api/v4/channels/{channel_id}", "", r#"{"id":"{channel_id}","display_name":"x"}"#),
    ("PUT /api/v4/channels/{channel_id}/patch", "", r#"{"display_name":"x"}"#),
    ("PUT /api/v4/channels/{channel_id}/privacy", "", r#"{"privacy":"O"}"#),
    ("POST /api/v4/channels/{channel_id}/restore", "/api/v4/channels/{archived_channel_id}/restore", ""),
    ("POST /api/v4/teams/{team_id}/channels/ids", "", r#"["{open_channel_id}"]"#),
    ("POST /api/v4/teams/{team_id}/channels/search", "", r#"{"term":""}"#),
    ("POST /api/v4/channels/{channel_id}/members", "", r#"{"user_id":"{teammate_id}"}"#),
    ("POST /api/v4/channels/{channel_id}/members/ids", "", r#"["{user_id}"]"#),
    ("PUT /api/v4/channels/{channel_id}/members/{user_id}/roles", "", r#"{"roles":"channel_user"}"#),
    ("PUT /api/v4/channels/{channel_id}/members/{user_id}/schemeRoles", "", r#"{"scheme_user":true}"#),
    ("PUT /api/v4/channels/{channel_id}/members/{user_id}/notify_props", "", r#"{"desktop":"all"}"#),
    ("POST /api/v4/channels/members/{user_id}/view", "", r#"{"channel_id":"{channel_id}"}"#),
    ("POST /api/v4/channels/members/{user_id}/mark_read", "", r#"["{channel_id}"]"#),
    // The sidebar
    ("POST /api/v4/users/{user_id}/teams/{team_id}/channels/categories", "", CATEGORY),
    ("PUT /api/v4/users/{user_id}/teams/{team_id}/channels/categories", "", CATEGORIES),
    ("PUT /api/v4/users/{user_id}/teams/{team_id}/channels/categories/order", "", "{category_order}"),
    ("PUT /api/v4/users/{user_id}/teams/{team_id}/channels/categories/{category_id}", "", CATEGORY),
    // Posts
    ("POST /api/v4/posts", "", r#"{"channel_id":"{channel_id}","message":"x"}"#),
    ("POST /api/v4/posts/ids", "", r#"["{post_id}"]"#),
    ("POST /api/v4/posts/ids/reactions", "", r#"["{post_id}"]"#),
    ("PUT /api/v4/posts/{post_id}", "", r#"{"id":"{post_id}","message":"x"}"#),
    ("PUT /api/v4/posts/{post_id}/patch", "", r#"{"message":"x"}"#),
    ("POST /api/v4/reactions", "", r#"{"user_id":"{me}","post_id":"{post_id}","emoji_name":"wave"}"#),
    ("POST /api/v4/users/{user_id}/posts/{post_id}/reminder", "", r#"{"target_time":1900000000}"#),
    (
        "POST /api/v4/posts/ephemeral",
        "",
        r#"{"user_id":"{user_id}","post":{"channel_id":"{channel_id}","message":"x"}}"#,
    ),
    // Bookmarks of channels
    (
        "POST /api/v4/channels/{channel_id}/bookmarks",
        "",
        r#"{"type":"link","display_name":"x","link_url":"https://x.example"}"#,
    ),
    ("PATCH /api/v4/channels/{channel_id}/bookmarks/{bookmark_id}", "", r#"{"display_name":"y"}"#),
    ("POST /api/v4/channels/{channel_id}/bookmarks/{bookmark_id}/sort_order", "", "0"),
    // What is not posted yet
    ("POST /api/v4/drafts", "", r#"{"channel_id":"{channel_id}","message":"x"}"#),
    ("POST /api/v4/posts/schedule", "", r#"{"channel_id":"{channel_id}","message":"x","scheduled_at":1900000000000}"#),
    (
        "PUT /api/v4/posts/schedule/{scheduled_post_id}",
        "",
        r#"{"id":"{scheduled_post_id}","channel_id":"{channel_id}","message":"x","scheduled_at":1900000000000}"#,
    ),
    // Files
    ("POST /api/v4/files", "/api/v4/files?channel_id={channel_id}&filename=x.txt", "bytes"),
    ("POST /api/v4/uploads", "", r#"{"channel_id":"{channel_id}","filename":"x.bin","file_size":5}"#),
    ("POST /api/v4/uploads/{upload_id}", "", "bytes"),
    // Integrations
    ("POST /hooks/{hook_id}", "", r#"{"text":"x"}"#),
    ("POST /hooks/commands/{answer_id}", "/hooks/commands/{hook_id}", ""),
    ("POST /api/v4/hooks/incoming", "", r#"{"channel_id":"{open_channel_id}"}"#),
    ("PUT /api/v4/hooks/incoming/{hook_id}", "", r#"{"id":"{hook_id}","channel_id":"{open_channel_id}"}"#),
    ("POST /api/v4/hooks/outgoing", "", OUTGOING_HOOK),
    ("PUT /api/v4/hooks/outgoing/{outgoing_hook_id}", "", OUTGOING_HOOK),
    ("POST /api/v4/commands", "", COMMAND),
    ("GET /api/v4/commands", "/api/v4/commands?team_id={team_id}", ""),
    ("PUT /api/v4/commands/{command_id}", "", COMMAND),
    ("PUT /api/v4/commands/{command_id}/move", "", r#"{"team_id":"{team_id}"}"#),
    ("POST /api/v4/commands/execute", "", r#"{"channel_id":"{channel_id}","command":"/shrug"}"#),
    (
        "GET /api/v4/teams/{team_id}/commands/autocomplete_suggestions",
        "/api/v4/teams/{team_id}/commands/autocomplete_suggestions?user_input=/",
        "",
    ),
    ("POST /api/v4/posts/{post_id}/actions/{action_id}", "/api/v4/posts/{post_id}/actions/x", ""),
    ("POST /api/v4/actions/dialogs/open", "", r#"{"trigger_id":"x","url":"https://a.example"}"#),
    ("POST /api/v4/actions/dialogs/submit", "", r#"{"channel_id":"{channel_id}","url":"https://10.0.0.1"}"#),
    // Search
    ("POST /api/v4/posts/search", "", r#"{"terms":"heron"}"#),
    ("POST /api/v4/teams/{team_id}/posts/search", "", r#"{"terms":"heron"}"#),
    ("POST /api/v4/files/search", "", r#"{"terms":"heron*"}"#),
    ("POST /api/v4/teams/{team_id}/files/search", "", r#"{"terms":"heron*"}"#),
];

const MAIL_TOKEN: &str =
    r#"{"token":"0123456789012345678901234567890123456789012345678901234567890123","new_password":"x"}"#;
const STATUS: &str = r#"{"emoji":"wave","text":"at lunch"}"#;
const RECENT_STATUS: &str = r#"{"emoji":"wave","text":"at work","duration":"","expires_at":"0001-01-01T00:00:00Z"}"#;
const OUTGOING_HOOK: &str =
    r#"{"id":"{outgoing_hook_id}","team_id":"{team_id}","trigger_words":["x"],"callback_urls":["https://a.example"]}"#;
const COMMAND: &str =
    r#"{"id":"{command_id}","team_id":"{team_id}","trigger":"fresh","method":"P","url":"https://a.example"}"#;
const PREFERENCES: &str =
    r#"[{"user_id":"{user_id}","category":"display_settings","name":"name_format","value":"username"}]"#;
const CATEGORY: &str = r#"{"id":"{category_id}","user_id":"{user_id}","team_id":"{team_id}","display_name":"x","type":"custom","channel_ids":[]}"#;
const CATEGORIES: &str = r#"[{"id":"{category_id}","user_id":"{user_id}","team_id":"{team_id}","display_name":"x","type":"custom","channel_ids":[]}]"#;

/// Rows that answer something else than success to whoever gets through.
const ANSWERS: &[(&str, u16)] = &[
    // Not a form.
    ("POST /api/v4/emoji", 400),
    // There are no other ways to sign in, and no log or settings that a client could change.
    ("PUT /api/v4/users/{user_id}/auth", 501),
    ("POST /api/v4/config/reload", 501),
    // No push proxy is configured, and nobody is listed.
    ("POST /api/v4/notifications/ack", 501),
    ("POST /api/v1/send_push", 403),
    ("POST /api/v1/ack", 403),
    ("GET /api/v4/logs", 501),
    ("POST /api/v4/logs/query", 501),
    ("GET /api/v4/logs/download", 501),
    // There is no such job and no such archive, and no store that gives links.
    ("GET /api/v4/jobs/{job_id}", 404),
    ("POST /api/v4/jobs/{job_id}/cancel", 404),
    ("PATCH /api/v4/jobs/{job_id}/status", 404),
    ("GET /api/v4/exports/{export_name}", 404),
    ("POST /api/v4/exports/{export_name}/presign-url", 500),
    ("PUT /api/v4/roles/{role_id}/patch", 501),
    // Not a form.
    ("POST /api/v4/users/{user_id}/image", 500),
    ("POST /api/v4/teams/{team_id}/image", 400),
    // A name of the clients' own emoji.
    ("GET /api/v4/emoji/name/{emoji_name}", 404),
    // Sign-up is closed, but for administrators.
    ("POST /api/v4/users", 403),
    // There is no mail, so no invitation goes out, and the operator gave no link.
    ("POST /api/v4/teams/{team_id}/invite/email", 501),
    ("POST /api/v4/users/password/reset", 400),
    ("GET /holdfast/enroll", 400),
    ("POST /holdfast/enroll", 400),
    ("POST /api/v4/users/password/reset/send", 501),
    ("POST /api/v4/users/email/verify", 400),
    // Only who wrote it may, no administrator.
    ("POST /api/v4/posts/{post_id}/restore/{restore_version_id}", 403),
    ("PUT /api/v4/posts/schedule/{scheduled_post_id}", 403),
    ("DELETE /api/v4/posts/schedule/{scheduled_post_id}", 403),
    // This site has no tab for host applications.
    ("GET /holdfast/tab", 404),
    ("GET /holdfast/tab/page.js", 404),
    ("GET /holdfast/tab/page.css", 404),
    ("GET /holdfast/tab/host.js", 404),
    ("POST /holdfast/tab/sign-in", 404),
    // Plain requests are no handshakes.
    ("GET /api/v4/websocket", 400),
    ("GET /api/v4/websocket/", 400),
    // Public links are off.
    ("GET /api/v4/files/{file_id}/link", 403),
    ("GET /files/{file_id}/public", 403),
    // The hook is there, and whoever knows it may use it.
    ("POST /hooks/commands/{answer_id}", 404),
    // Nobody pressed a button, the post has none, and where the dialog leads to is refused.
    ("POST /api/v4/actions/dialogs/open", 400),
    ("POST /api/v4/posts/{post_id}/actions/{action_id}", 404),
    ("POST /api/v4/actions/dialogs/submit", 400),
    ("GET /api/v4/image", 501),
    ("POST /api/v4/opengraph", 501),
    // Of one's own only, as in the original.
    ("POST /api/v4/uploads/{upload_id}", 403),
    ("GET /api/v4/users/{user_id}/uploads", 403),
    // Features that are not offered.
    ("POST /api/v4/client_perf", 501),
];

/// Rows about a user that only others may use.
const NOT_BY_THEMSELVES: &[&str] = &[
    "DELETE /api/v4/users/{user_id}",
    "PUT /api/v4/users/{user_id}/active",
    "POST /api/v4/users/{user_id}/reset_failed_attempts",
];

/// Kinds of callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Role {
    Nobody,
    Deactivated,
    Outsider,
    Member,
    Bot,
    ChannelAdmin,
    TeamAdmin,
    SystemAdmin,
}

impl Role {
    const ALL: [Self; 8] = [
        Self::Nobody,
        Self::Deactivated,
        Self::Outsider,
        Self::Member,
        Self::Bot,
        Self::ChannelAdmin,
        Self::TeamAdmin,
        Self::SystemAdmin,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Nobody => "nobody",
            Self::Deactivated => "deactivated",
            Self::Outsider => "outsider",
            Self::Member => "member",
            Self::Bot => "robot",
            Self::ChannelAdmin => "channeladmin",
            Self::TeamAdmin => "teamadmin",
            Self::SystemAdmin => "root",
        }
    }

    /// Does the row let this caller through?
    fn may(self, who: Who) -> bool {
        match self {
            Self::Nobody | Self::Deactivated => who == Who::Anyone,
            Self::Outsider => matches!(who, Who::Anyone | Who::SignedIn),
            Self::Member | Self::Bot => {
                matches!(who, Who::Anyone | Who::SignedIn | Who::TeamMember | Who::ChannelMember)
            }
            Self::ChannelAdmin => Self::Member.may(who) || who == Who::ChannelAdmin,
            Self::TeamAdmin => {
                (Self::Member.may(who) && who != Who::ChannelMember)
                    || matches!(who, Who::TeamAdmin | Who::ChannelAdmin)
            }
            Self::SystemAdmin => true,
        }
    }

    /// What no answer to this caller may tell, unless the row lets them change the channel that they are not in.
    fn secrets(self, who: Who) -> &'static [&'static str] {
        match self {
            Self::Nobody | Self::Deactivated | Self::Outsider => &[TEAM_SECRET, CHANNEL_SECRET],
            Self::TeamAdmin if !matches!(who, Who::TeamAdmin | Who::ChannelAdmin) => &[CHANNEL_SECRET],
            Self::TeamAdmin | Self::Member | Self::Bot | Self::ChannelAdmin | Self::SystemAdmin => &[],
        }
    }
}

#[tokio::test]
async fn every_route_lets_through_whom_its_row_names_and_nobody_else() {
    let world = MatrixWorld::new().await;
    let mut table = String::new();
    let mut surprises = String::new();
    for route in routes::all() {
        let row = Row::of(route);
        // What is refused or only read leaves the world as it is.
        let shared = world.copy().await;
        let mut cells = BTreeMap::new();
        for role in Role::ALL {
            let lets = role.may(route.who);
            let own = if lets && route.method != Method::GET { Some(world.copy().await) } else { None };
            let answer = world.ask(own.as_ref().unwrap_or(&shared), &row, role, false).await;
            cells.insert(role, answer.status);
            let told: Vec<_> = role.secrets(route.who).iter().filter(|s| contains(&answer.body, s)).collect();
            let expected = row.expects(role, lets, answer.status);
            if !expected || !told.is_empty() {
                let wanted = if lets { "gets through" } else { "is refused" };
                let _ = writeln!(
                    surprises,
                    "{route:?}: {role:?} {wanted} by its row, but: {} {} {}",
                    answer.status,
                    answer.id(),
                    if told.is_empty() { String::new() } else { format!("and the answer tells {told:?}") },
                );
            }
        }
        let cells: Vec<String> = cells.iter().map(|(role, status)| format!("{role:?} {status}")).collect();
        let _ = writeln!(table, "{route:?}: {}", cells.join(", "));
        let key = format!("{} {}", route.method, route.path);
        if route.who == Who::Own && route.path.contains("{user_id}") && !NOT_BY_THEMSELVES.contains(&&*key) {
            let answer = world.ask(&shared, &row, Role::Member, true).await;
            if matches!(answer.status, 401 | 403) {
                let _ = writeln!(
                    surprises,
                    "{route:?}: is refused to the user themselves: {} {}",
                    answer.status,
                    answer.id()
                );
            }
        }
    }
    let help = "A row says in ROUTES who gets through. Where those who do are refused with 400, the row lacks its sample \
                request: add a line to SAMPLES in src/mission/src/http/tests/matrix.rs (or to ANSWERS, with the reason).";
    println!("{table}");
    assert!(surprises.is_empty(), "\n{surprises}\n{help}");
}

#[test]
fn every_sample_and_answer_belongs_to_a_row() {
    let rows: Vec<String> = routes::all().map(|route| format!("{} {}", route.method, route.path)).collect();
    let named = SAMPLES.iter().map(|(row, ..)| row).chain(ANSWERS.iter().map(|(row, _)| row));
    let lost: Vec<_> = named.filter(|row| !rows.iter().any(|known| known == *row)).collect();
    assert!(lost.is_empty(), "no such rows: {lost:?}");
}

fn contains(body: &[u8], text: &str) -> bool {
    body.windows(text.len()).any(|part| part == text.as_bytes())
}

/// A row with its sample request.
struct Row {
    method: Method,
    target: &'static str,
    body: &'static str,
    answers: Option<u16>,
    is_refused: bool,
}

impl Row {
    fn of(route: &Route) -> Self {
        let key = format!("{} {}", route.method, route.path);
        let sample = SAMPLES.iter().find(|(row, ..)| *row == key);
        let (target, body) = sample.map_or(("", "{}"), |(_, target, body)| (*target, *body));
        Self {
            is_refused: matches!(route.run, Run::Refuse(_)),
            method: route.method.clone(),
            target: if target.is_empty() { route.path } else { target },
            body,
            answers: match route.run {
                Run::Refuse(refusal) => Some(refusal.status),
                Run::Json(_) | Run::Password(_) | Run::Stream(_) | Run::Socket => {
                    ANSWERS.iter().find(|(row, _)| *row == key).map(|(_, status)| *status)
                }
            },
        }
    }

    fn expects(&self, role: Role, lets: bool, status: u16) -> bool {
        match self.answers {
            // An administrator may be spared what others are told.
            Some(answer) if lets => status == answer || (role == Role::SystemAdmin && status < 400),
            None if lets => status < 400,
            Some(_) | None => matches!(status, 401 | 403 | 404),
        }
    }
}

/// The world as it lies on disk, from which copies are made, and the names in it.
struct MatrixWorld {
    site: Site,
    names: BTreeMap<&'static str, String>,
    people: BTreeMap<Role, Person>,
}

impl MatrixWorld {
    async fn new() -> Self {
        let site = Site::new().await;
        let root = site.admin().await;
        let author = site.user("author").await;
        let stranger = site.user("stranger").await;
        let teammate = site.user("teammate").await;
        let mut people = BTreeMap::new();
        for role in Role::ALL {
            let person = match role {
                Role::Nobody => continue,
                Role::SystemAdmin => site.login("root").await,
                Role::Deactivated
                | Role::Outsider
                | Role::Member
                | Role::Bot
                | Role::ChannelAdmin
                | Role::TeamAdmin => site.user(role.name()).await,
            };
            people.insert(role, person);
        }
        let core = site.core.clone();
        let as_root = core.session(&root.token).unwrap();
        let as_author = core.session(&author.token).unwrap();
        let id = |person: &Person| person.id.parse::<model::Id>().unwrap();
        let team = serde_json::from_value(json!({
            "name": "mission", "display_name": "Mission", "type": "I", "description": TEAM_SECRET,
        }));
        let team = core.create_team(&as_root, &team.unwrap()).unwrap().id;
        let insiders = [Role::Deactivated, Role::Member, Role::Bot, Role::ChannelAdmin, Role::TeamAdmin];
        for user in insiders.iter().map(|role| &people[role]).chain([&author, &teammate]) {
            core.add_team_member(&as_root, team, id(user)).unwrap();
        }
        let other = json!({ "name": "elsewhere", "display_name": "Elsewhere", "type": "O" });
        let elsewhere = core.create_team(&as_root, &serde_json::from_value(other).unwrap()).unwrap();
        core.remove_team_member(&as_root, elsewhere.id, id(&root)).unwrap();
        let channel = |name: &str, kind: &str, header: &str| {
            let new = json!({ "team_id": team, "name": name, "display_name": name, "type": kind, "header": header });
            core.create_channel(&as_author, &serde_json::from_value(new).unwrap()).unwrap().id
        };
        let open = channel("log", "O", TEAM_SECRET);
        let archived = channel("old", "P", CHANNEL_SECRET);
        core.archive_channel(&as_author, archived).unwrap();
        let ops = channel("ops", "P", CHANNEL_SECRET);
        for role in insiders.iter().filter(|role| **role != Role::TeamAdmin) {
            core.add_channel_member(&as_author, ops, id(&people[role])).unwrap();
        }
        // Whoever makes a team or channel administrates it; here these are others.
        core.set_channel_member_roles(&as_root, ops, id(&author), "channel_user").unwrap();
        let channel_admin = id(&people[&Role::ChannelAdmin]);
        core.set_channel_member_roles(&as_root, ops, channel_admin, "channel_user channel_admin").unwrap();
        core.set_team_member_roles(&as_root, team, id(&people[&Role::TeamAdmin]), "team_user team_admin").unwrap();
        core.remove_team_member(&as_root, team, id(&root)).unwrap();

        let mut upload = core.begin_upload(&as_author, ops, &format!("{CHANNEL_SECRET}.png")).unwrap();
        std::io::Write::write_all(&mut upload, &super::super::picture::initials("a", id(&author))).unwrap();
        let file = upload.finish().unwrap().id;
        let new = json!({ "channel_id": ops, "message": CHANNEL_SECRET, "file_ids": [file] });
        let post = core.create_post(&as_author, &serde_json::from_value(new).unwrap(), true).unwrap().id;
        let reply = json!({ "channel_id": ops, "root_id": post, "message": CHANNEL_SECRET });
        core.create_post(&as_author, &serde_json::from_value(reply).unwrap(), true).unwrap();
        let edited = serde_json::from_value(json!({ "message": format!("{CHANNEL_SECRET} again") })).unwrap();
        core.patch_post(&as_author, post, &edited).unwrap();
        core.acknowledge(&as_author, id(&author), post).unwrap();
        let link = json!({ "type": "link", "display_name": CHANNEL_SECRET, "link_url": "https://x.example" });
        let bookmark = core.add_bookmark(&as_author, ops, &serde_json::from_value(link).unwrap(), None).unwrap().id;
        let version = core.edit_history(&as_author, post).unwrap()[0].id;
        let later = json!({ "channel_id": ops, "message": CHANNEL_SECRET, "scheduled_at": 1_900_000_000_000i64 });
        let scheduled = core.schedule_post(&as_author, &serde_json::from_value(later).unwrap(), None).unwrap().id;
        core.save_reaction(&as_author, id(&author), post, "eyes").unwrap();
        core.set_team_picture(&as_root, team, &super::super::picture::initials("t", team)).unwrap();
        let preference =
            json!([{ "user_id": author.id, "category": "display_settings", "name": "name_format", "value": "x" }]);
        core.save_preferences(&as_author, id(&author), &serde_json::from_value::<Vec<_>>(preference).unwrap()).unwrap();
        let at = format!("/api/v4/users/{}/teams/{team}/channels/categories", author.id);
        let new = json!({ "user_id": author.id, "team_id": team, "display_name": "Mine", "type": "custom", "channel_ids": [] });
        let category = site.post(&at, &author.bearer(), new.to_string()).await;
        assert!(category.status < 300, "{}", category.json);
        let order = site.get(&format!("{at}/order"), &author.bearer()).await.text().to_owned();
        let new = json!({ "channel_id": ops, "filename": CHANNEL_SECRET, "file_size": 5 });
        let upload = core.create_upload(&as_author, &serde_json::from_value(new).unwrap()).unwrap().id;
        let new = crate::emoji::NewEmoji { creator_id: author.id.clone(), name: "our-boat".to_owned() };
        let emoji = super::super::picture::initials("a", id(&author));
        let emoji = core.create_emoji(&as_author, &new, &emoji).unwrap().id;
        let new = json!({ "channel_id": open });
        let hook = core.save_incoming_hook(&as_root, None, &serde_json::from_value(new).unwrap()).unwrap().id;
        let new = json!({ "team_id": team, "trigger_words": ["word"], "callback_urls": ["https://a.example"] });
        let outgoing = core.save_outgoing_hook(&as_root, None, &serde_json::from_value(new).unwrap()).unwrap().id;
        let new = json!({ "team_id": team, "trigger": "word", "method": "P", "url": "https://a.example" });
        let command = core.save_command(&as_root, None, &serde_json::from_value(new).unwrap()).unwrap().id;
        let token = core.create_token(&as_author, id(&author), "script").unwrap().id;

        core.convert_user_to_bot(&as_root, id(&people[&Role::Bot])).unwrap();
        // Bots sign in with tokens.
        let token_of_bot = core.create_token(&as_root, id(&people[&Role::Bot]), "robot").unwrap();
        people.get_mut(&Role::Bot).unwrap().token = token_of_bot.token;
        let service =
            core.create_bot(&as_root, &serde_json::from_value(json!({ "username": "service" })).unwrap()).unwrap();
        let at_work = serde_json::from_value(json!({ "emoji": "wave", "text": "at work" })).unwrap();
        core.set_custom_status(&as_author, id(&author), at_work).unwrap();
        let deactivated = people[&Role::Deactivated].token.clone();
        core.set_user_active(&as_root, id(&people[&Role::Deactivated]), false).unwrap();
        assert!(core.session(&deactivated).is_err());

        let names = BTreeMap::from([
            ("team_id", team.to_string()),
            ("team_name", "mission".to_owned()),
            ("open_invite_id", elsewhere.invite_id),
            ("channel_id", ops.to_string()),
            ("channel_name", "ops".to_owned()),
            ("open_channel_id", open.to_string()),
            ("archived_channel_id", archived.to_string()),
            ("user_id", author.id.clone()),
            ("username", "author".to_owned()),
            ("email", "author@site.example".to_owned()),
            ("stranger_id", stranger.id),
            ("teammate_id", teammate.id),
            ("post_id", post.to_string()),
            ("thread_id", post.to_string()),
            ("timestamp", "1".to_owned()),
            ("restore_version_id", version.to_string()),
            ("scheduled_post_id", scheduled.to_string()),
            ("bookmark_id", bookmark.to_string()),
            ("file_id", file.to_string()),
            ("hook_id", hook.to_string()),
            ("outgoing_hook_id", outgoing.to_string()),
            ("command_id", command),
            ("emoji_id", emoji.to_string()),
            ("upload_id", upload.to_string()),
            ("emoji_name", "eyes".to_owned()),
            ("category", "display_settings".to_owned()),
            ("preference_name", "name_format".to_owned()),
            ("category_id", category.json["id"].as_str().unwrap().to_owned()),
            ("category_order", order),
            ("role_name", "system_user".to_owned()),
            ("role_id", core.roles_by_names(&["system_user".to_owned()]).unwrap()[0].id.to_string()),
            ("job_id", team.to_string()),
            ("import_name", "none.zip".to_owned()),
            ("export_name", "none.zip".to_owned()),
            ("job_type", "ldap_sync".to_owned()),
            ("token_id", token.to_string()),
            ("bot_user_id", service.user_id.to_string()),
            ("session_id", as_author.id.to_string()),
            ("password", PASSWORD.to_owned()),
        ]);
        // What is copied must be in the one file.
        core.scrub_database().unwrap();
        Self { site, names, people }
    }

    /// The same world, in which whatever happens stays there.
    async fn copy(&self) -> Site {
        let dir = tempfile::tempdir().unwrap();
        copy_tree(self.site.dir.path(), dir.path());
        Site::at(dir, 1 << 40, self.site.clock.now().0 + 1_000).await
    }

    fn fill_in(&self, text: &str, me: Option<&Person>) -> String {
        let mut filled = text.to_owned();
        for (name, value) in &self.names {
            filled = filled.replace(&format!("{{{name}}}"), value);
        }
        filled = filled.replace("{me}", me.map_or(&self.names["stranger_id"], |me| &me.id));
        filled
    }

    /// Asks as `role`, of themselves where `own`.
    async fn ask(&self, site: &Site, row: &Row, role: Role, own: bool) -> Answer {
        let person = self.people.get(&role);
        if row.is_refused {
            // Whatever it names.
            let headers = person.map_or(Vec::new(), |person| person.bearer().to_vec());
            return site.request(&row.method, &filled_in(row.target), &headers, "{}").await;
        }
        let of = |text: &str| if own { text.replace("{user_id}", "{me}") } else { text.to_owned() };
        let target = self.fill_in(&of(row.target), person);
        let left = target.find('{').map(|_| &target);
        assert!(left.is_none(), "{left:?} has a parameter that the world of the matrix does not name: add it there");
        let headers = person.map_or(Vec::new(), |person| person.bearer().to_vec());
        site.request(&row.method, &target, &headers, self.fill_in(&of(row.body), person)).await
    }
}

fn copy_tree(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir_all(&target).unwrap();
            copy_tree(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
