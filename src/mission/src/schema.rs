//! The tables, and the steps that bring an older file up to date.
//!
//! `user_version` counts the steps taken. A file with a higher number was written by a newer Holdfast and is
//! refused rather than guessed at.

use rusqlite::Connection;

/// Each element takes the schema from version i to i + 1.
const STEPS: &[&str] = &[
    V1,
    V2,
    V3,
    V4,
    V5,
    V6,
    V7,
    WORDS_OF_USERS,
    ACCOUNTS,
    PICTURES_AND_PARTS,
    NOT_POSTED_YET,
    EMOJI,
    AUDITS,
    PICTURES,
    SHARED_MARKS,
    INTEGRATIONS,
    UNDELIVERED,
    ENTRA,
    DIRECTORY,
    ENROLMENTS,
    PUSHES,
    THREADS_BY_FOLLOWER,
    DIRECTORY_PLACES,
    HISTORY,
    JOBS,
    IMPORTED,
];

/// The version that this program writes.
pub(crate) const VERSION: i64 = STEPS.len() as i64;

/// Creates or upgrades the tables.
///
/// Ids are TEXT, empty where there is none. An index over such a column leaves the empty ones out, and SQLite
/// uses it only for a query that says so too: `root_id = ?1 AND root_id <> ''`. `ver_at`, `ver_by` are the version of the replicated state.
/// `wanted_*` is the replicated name; the plain column is the name shown here, which may carry a suffix.
/// `local` marks what never leaves this node.
pub(crate) fn migrate(db: &Connection, from: i64) -> rusqlite::Result<()> {
    let first = usize::try_from(from).unwrap_or(0);
    for (step, sql) in STEPS.iter().enumerate().skip(first) {
        db.execute_batch(&format!("BEGIN EXCLUSIVE; {sql}; PRAGMA user_version = {}; COMMIT;", step + 1))?;
    }
    Ok(())
}

const V1: &str = "
CREATE TABLE meta (key TEXT PRIMARY KEY, value ANY NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE users (
    id TEXT PRIMARY KEY, create_at INTEGER NOT NULL, update_at INTEGER NOT NULL, delete_at INTEGER NOT NULL,
    username TEXT NOT NULL UNIQUE, wanted_username TEXT NOT NULL, email TEXT NOT NULL, nickname TEXT NOT NULL,
    first_name TEXT NOT NULL, last_name TEXT NOT NULL, position TEXT NOT NULL, locale TEXT NOT NULL,
    is_bot INTEGER NOT NULL, bot_description TEXT NOT NULL DEFAULT '', roles TEXT NOT NULL,
    password TEXT NOT NULL DEFAULT '', email_verified INTEGER NOT NULL DEFAULT 0,
    notify_props TEXT NOT NULL DEFAULT '{}', props TEXT NOT NULL DEFAULT '{}', timezone TEXT NOT NULL DEFAULT '{}',
    failed_attempts INTEGER NOT NULL DEFAULT 0, last_password_update INTEGER NOT NULL DEFAULT 0,
    last_picture_update INTEGER NOT NULL DEFAULT 0, last_activity_at INTEGER NOT NULL DEFAULT 0,
    ver_at INTEGER NOT NULL, ver_by BLOB NOT NULL,
    local INTEGER NOT NULL DEFAULT 0, placeholder INTEGER NOT NULL DEFAULT 0) STRICT;
CREATE INDEX users_email ON users (email);
CREATE TABLE sessions (
    id TEXT PRIMARY KEY, token_hash BLOB NOT NULL UNIQUE, create_at INTEGER NOT NULL, expires_at INTEGER NOT NULL,
    last_activity_at INTEGER NOT NULL, user_id TEXT NOT NULL, device_id TEXT NOT NULL, props TEXT NOT NULL) STRICT;
CREATE INDEX sessions_user ON sessions (user_id);
CREATE TABLE access_tokens (
    id TEXT PRIMARY KEY, token_hash BLOB NOT NULL UNIQUE, user_id TEXT NOT NULL, description TEXT NOT NULL,
    is_active INTEGER NOT NULL, create_at INTEGER NOT NULL) STRICT;
CREATE INDEX access_tokens_user ON access_tokens (user_id);
CREATE TABLE teams (
    id TEXT PRIMARY KEY, create_at INTEGER NOT NULL, update_at INTEGER NOT NULL, delete_at INTEGER NOT NULL,
    name TEXT NOT NULL UNIQUE, wanted_name TEXT NOT NULL, display_name TEXT NOT NULL, description TEXT NOT NULL,
    type TEXT NOT NULL, allow_open_invite INTEGER NOT NULL, email TEXT NOT NULL DEFAULT '',
    company_name TEXT NOT NULL DEFAULT '', invite_id TEXT NOT NULL,
    ver_at INTEGER NOT NULL, ver_by BLOB NOT NULL) STRICT;
CREATE TABLE team_members (
    team_id TEXT NOT NULL, user_id TEXT NOT NULL, create_at INTEGER NOT NULL, delete_at INTEGER NOT NULL,
    scheme_admin INTEGER NOT NULL, explicit_roles TEXT NOT NULL DEFAULT '',
    ver_at INTEGER NOT NULL, ver_by BLOB NOT NULL, PRIMARY KEY (team_id, user_id)) STRICT, WITHOUT ROWID;
CREATE INDEX team_members_user ON team_members (user_id);
CREATE TABLE channels (
    id TEXT PRIMARY KEY, create_at INTEGER NOT NULL, update_at INTEGER NOT NULL, delete_at INTEGER NOT NULL,
    team_id TEXT NOT NULL, type TEXT NOT NULL, name TEXT NOT NULL, wanted_name TEXT NOT NULL,
    display_name TEXT NOT NULL, header TEXT NOT NULL, purpose TEXT NOT NULL, creator_id TEXT NOT NULL,
    last_post_at INTEGER NOT NULL, last_root_post_at INTEGER NOT NULL,
    total_msg_count INTEGER NOT NULL DEFAULT 0, total_msg_count_root INTEGER NOT NULL DEFAULT 0,
    ver_at INTEGER NOT NULL, ver_by BLOB NOT NULL, local INTEGER NOT NULL DEFAULT 0, UNIQUE (team_id, name)) STRICT;
CREATE TABLE channel_members (
    channel_id TEXT NOT NULL, user_id TEXT NOT NULL, create_at INTEGER NOT NULL, delete_at INTEGER NOT NULL,
    scheme_admin INTEGER NOT NULL, explicit_roles TEXT NOT NULL DEFAULT '',
    last_viewed_at INTEGER NOT NULL DEFAULT 0, msg_count INTEGER NOT NULL DEFAULT 0,
    msg_count_root INTEGER NOT NULL DEFAULT 0, mention_count INTEGER NOT NULL DEFAULT 0,
    mention_count_root INTEGER NOT NULL DEFAULT 0, urgent_mention_count INTEGER NOT NULL DEFAULT 0,
    notify_props TEXT NOT NULL, last_update_at INTEGER NOT NULL,
    ver_at INTEGER NOT NULL, ver_by BLOB NOT NULL, PRIMARY KEY (channel_id, user_id)) STRICT, WITHOUT ROWID;
CREATE INDEX channel_members_user ON channel_members (user_id);
CREATE TABLE posts (
    id TEXT PRIMARY KEY, channel_id TEXT NOT NULL, user_id TEXT NOT NULL, root_id TEXT NOT NULL,
    original_id TEXT NOT NULL DEFAULT '', create_at INTEGER NOT NULL, update_at INTEGER NOT NULL,
    edit_at INTEGER NOT NULL, delete_at INTEGER NOT NULL, message TEXT NOT NULL, type TEXT NOT NULL,
    props TEXT NOT NULL, hashtags TEXT NOT NULL, is_pinned INTEGER NOT NULL, file_ids TEXT NOT NULL,
    priority TEXT NOT NULL DEFAULT '', pending_post_id TEXT NOT NULL DEFAULT '',
    state_at INTEGER NOT NULL, changed_at INTEGER NOT NULL, arrived_at INTEGER NOT NULL DEFAULT 0,
    origin BLOB NOT NULL, ver_at INTEGER NOT NULL, ver_by BLOB NOT NULL) STRICT;
CREATE INDEX posts_by_time ON posts (channel_id, create_at, id) WHERE original_id = '';
CREATE INDEX posts_by_change ON posts (channel_id, changed_at);
CREATE INDEX posts_by_root ON posts (root_id) WHERE root_id <> '';
CREATE INDEX posts_by_original ON posts (original_id) WHERE original_id <> '';
CREATE INDEX posts_pending ON posts (pending_post_id) WHERE pending_post_id <> '';
CREATE INDEX posts_pinned ON posts (channel_id) WHERE is_pinned = 1;
CREATE TABLE reactions (
    post_id TEXT NOT NULL, user_id TEXT NOT NULL, emoji_name TEXT NOT NULL, channel_id TEXT NOT NULL,
    create_at INTEGER NOT NULL, update_at INTEGER NOT NULL, delete_at INTEGER NOT NULL,
    ver_at INTEGER NOT NULL, ver_by BLOB NOT NULL, PRIMARY KEY (post_id, user_id, emoji_name)) STRICT, WITHOUT ROWID;
CREATE TABLE files (
    id TEXT PRIMARY KEY, user_id TEXT NOT NULL, post_id TEXT NOT NULL, channel_id TEXT NOT NULL,
    create_at INTEGER NOT NULL, update_at INTEGER NOT NULL, delete_at INTEGER NOT NULL, name TEXT NOT NULL,
    extension TEXT NOT NULL, size INTEGER NOT NULL, mime_type TEXT NOT NULL, width INTEGER NOT NULL,
    height INTEGER NOT NULL, hash TEXT NOT NULL) STRICT;
CREATE INDEX files_by_post ON files (post_id) WHERE post_id <> '';
CREATE TABLE preferences (
    user_id TEXT NOT NULL, category TEXT NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL,
    PRIMARY KEY (user_id, category, name)) STRICT, WITHOUT ROWID;
CREATE TABLE sidebars (
    user_id TEXT NOT NULL, team_id TEXT NOT NULL, categories TEXT NOT NULL,
    PRIMARY KEY (user_id, team_id)) STRICT, WITHOUT ROWID;
CREATE TABLE outbox (
    at INTEGER PRIMARY KEY, kind INTEGER NOT NULL, origin_time INTEGER NOT NULL, event BLOB NOT NULL) STRICT;
CREATE TABLE received (
    origin BLOB NOT NULL, epoch INTEGER NOT NULL, outcome INTEGER NOT NULL, ranges BLOB NOT NULL,
    PRIMARY KEY (origin, epoch, outcome)) STRICT, WITHOUT ROWID;
CREATE TABLE quarantine (
    origin BLOB NOT NULL, epoch INTEGER NOT NULL, seq INTEGER NOT NULL, kind INTEGER NOT NULL,
    reason TEXT NOT NULL, body BLOB NOT NULL, at INTEGER NOT NULL,
    PRIMARY KEY (origin, epoch, seq)) STRICT;
CREATE TABLE node_names (node BLOB PRIMARY KEY, name TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE late_posts (
    post_id TEXT PRIMARY KEY, channel_id TEXT NOT NULL, user_id TEXT NOT NULL, origin BLOB NOT NULL,
    create_at INTEGER NOT NULL) STRICT, WITHOUT ROWID;
";

/// Without these, opening a channel reads its whole history.
const V2: &str = "
CREATE INDEX posts_by_arrival ON posts (channel_id, arrived_at) WHERE arrived_at > 0;
CREATE INDEX files_by_channel ON files (channel_id) WHERE post_id <> '' AND delete_at = 0;
";

/// Rows that wait for room, with the class for which there was none (1 for flash); 0 for those that do not.
const V3: &str = "
ALTER TABLE outbox ADD COLUMN aside INTEGER NOT NULL DEFAULT 0;
CREATE INDEX outbox_aside ON outbox (at) WHERE aside > 0;
";

/// Threads, who follows them, and the words that mention a user.
///
/// `shown_at` of a post is when it could first be read here: its creation, or its arrival where that was later. What is
/// unread in a thread goes by it. `team_id` of a thread is '' in direct and group channels.
const V7: &str = "
ALTER TABLE posts ADD COLUMN shown_at INTEGER NOT NULL DEFAULT 0;
UPDATE posts SET shown_at = max(create_at, arrived_at);
DROP INDEX posts_by_root;
CREATE INDEX posts_by_root ON posts (root_id, shown_at) WHERE root_id <> '';
CREATE TABLE threads (
    post_id TEXT PRIMARY KEY, channel_id TEXT NOT NULL, team_id TEXT NOT NULL, reply_count INTEGER NOT NULL,
    last_reply_at INTEGER NOT NULL, participants TEXT NOT NULL, delete_at INTEGER NOT NULL) STRICT, WITHOUT ROWID;
INSERT INTO threads SELECT p.root_id, p.channel_id, c.team_id, count(*), max(p.shown_at),
        (SELECT json_group_array(user_id) FROM (SELECT user_id FROM posts q WHERE q.root_id = p.root_id
            AND q.root_id <> '' AND q.original_id = '' AND q.delete_at = 0 GROUP BY user_id ORDER BY max(q.shown_at))),
        coalesce((SELECT delete_at FROM posts r WHERE r.id = p.root_id), 0)
    FROM posts p JOIN channels c ON c.id = p.channel_id
    WHERE p.root_id <> '' AND p.original_id = '' AND p.delete_at = 0 GROUP BY p.root_id;
CREATE TABLE thread_members (
    user_id TEXT NOT NULL, post_id TEXT NOT NULL, following INTEGER NOT NULL, last_viewed INTEGER NOT NULL,
    last_update_at INTEGER NOT NULL, unread_mentions INTEGER NOT NULL,
    PRIMARY KEY (user_id, post_id)) STRICT, WITHOUT ROWID;
CREATE INDEX thread_members_post ON thread_members (post_id) WHERE following = 1;
CREATE INDEX channel_members_follow ON channel_members (channel_id, user_id)
    WHERE json_extract(notify_props, '$.channel_auto_follow_threads') = 'on';
CREATE TABLE mention_words (
    word TEXT NOT NULL, user_id TEXT NOT NULL, wide INTEGER NOT NULL,
    PRIMARY KEY (word, user_id)) STRICT, WITHOUT ROWID;
CREATE INDEX mention_words_user ON mention_words (user_id);
CREATE INDEX mention_words_wide ON mention_words (wide) WHERE wide = 1;
";

/// What is not posted yet, and reminders: `target_time` is in seconds, everything else in milliseconds.
const NOT_POSTED_YET: &str = "
CREATE TABLE drafts (
    user_id TEXT NOT NULL, channel_id TEXT NOT NULL, root_id TEXT NOT NULL, create_at INTEGER NOT NULL,
    update_at INTEGER NOT NULL, message TEXT NOT NULL, type TEXT NOT NULL, props TEXT NOT NULL, file_ids TEXT NOT NULL,
    priority TEXT NOT NULL, PRIMARY KEY (user_id, channel_id, root_id)) STRICT, WITHOUT ROWID;
CREATE INDEX drafts_by_root ON drafts (root_id) WHERE root_id <> '';
CREATE TABLE scheduled_posts (
    id TEXT PRIMARY KEY, user_id TEXT NOT NULL, channel_id TEXT NOT NULL, root_id TEXT NOT NULL,
    create_at INTEGER NOT NULL, update_at INTEGER NOT NULL, message TEXT NOT NULL, type TEXT NOT NULL,
    props TEXT NOT NULL, file_ids TEXT NOT NULL, priority TEXT NOT NULL, scheduled_at INTEGER NOT NULL,
    processed_at INTEGER NOT NULL, error_code TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE INDEX scheduled_posts_user ON scheduled_posts (user_id);
CREATE INDEX scheduled_posts_due ON scheduled_posts (scheduled_at) WHERE error_code = '';
CREATE TABLE reminders (
    post_id TEXT NOT NULL, user_id TEXT NOT NULL, target_time INTEGER NOT NULL,
    PRIMARY KEY (post_id, user_id)) STRICT, WITHOUT ROWID;
CREATE INDEX reminders_user ON reminders (user_id);
CREATE INDEX reminders_due ON reminders (target_time);
";

/// Acknowledgements (`acknowledged_at` is 0 for a withdrawn one) and bookmarks: both travel.
const SHARED_MARKS: &str = "
CREATE TABLE acknowledgements (
    post_id TEXT NOT NULL, user_id TEXT NOT NULL, channel_id TEXT NOT NULL, acknowledged_at INTEGER NOT NULL,
    ver_at INTEGER NOT NULL, ver_by BLOB NOT NULL, PRIMARY KEY (post_id, user_id)) STRICT, WITHOUT ROWID;
CREATE TABLE bookmarks (
    id TEXT PRIMARY KEY, create_at INTEGER NOT NULL, update_at INTEGER NOT NULL, delete_at INTEGER NOT NULL,
    channel_id TEXT NOT NULL, owner_id TEXT NOT NULL, file_id TEXT NOT NULL, display_name TEXT NOT NULL,
    sort_order INTEGER NOT NULL, link_url TEXT NOT NULL, image_url TEXT NOT NULL, emoji TEXT NOT NULL,
    type TEXT NOT NULL, original_id TEXT NOT NULL, ver_at INTEGER NOT NULL, ver_by BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE INDEX bookmarks_by_channel ON bookmarks (channel_id, update_at);
CREATE INDEX bookmarks_by_file ON bookmarks (file_id) WHERE file_id <> '';
";

/// Fills `mention_words` as writing each user would.
pub(crate) const WORDS_OF_USERS: &str = "
INSERT INTO mention_words SELECT '@' || lower(username), id, 0 FROM users;
INSERT OR IGNORE INTO mention_words SELECT lower(trim(k.value)), u.id, length(k.value) <> octet_length(k.value)
    FROM users u, json_each('[' || replace(json_quote(json_extract(u.notify_props, '$.mention_keys')), ',', '\",\"') || ']') k
    WHERE json_extract(u.notify_props, '$.mention_keys') <> '' AND trim(k.value) <> '';
INSERT OR IGNORE INTO mention_words SELECT first_name, id, length(first_name) <> octet_length(first_name)
    FROM users WHERE first_name <> '' AND json_extract(notify_props, '$.first_name') = 'true';
";

/// Files that are not here and that somebody wants, with the class in which they are to come.
const V5: &str = "
CREATE TABLE file_requests (file_id TEXT PRIMARY KEY, class INTEGER NOT NULL) STRICT, WITHOUT ROWID;
";

/// What is searched.
const V6: &str = crate::search::index::TABLES;

/// What is shown of a picture (see `previews`), and uploads in parts.
const PICTURES_AND_PARTS: &str = "
ALTER TABLE files ADD COLUMN mini_preview TEXT NOT NULL DEFAULT '';
ALTER TABLE files ADD COLUMN preview INTEGER NOT NULL DEFAULT 0;
CREATE TABLE uploads (
    id TEXT PRIMARY KEY, create_at INTEGER NOT NULL, user_id TEXT NOT NULL, channel_id TEXT NOT NULL,
    filename TEXT NOT NULL, file_size INTEGER NOT NULL, file_offset INTEGER NOT NULL) STRICT;
CREATE INDEX uploads_user ON uploads (user_id);
";

/// Custom emoji with their pictures, half a mebibyte at most.
const EMOJI: &str = "
CREATE TABLE emoji (
    id TEXT PRIMARY KEY, create_at INTEGER NOT NULL, update_at INTEGER NOT NULL, delete_at INTEGER NOT NULL,
    creator_id TEXT NOT NULL, name TEXT NOT NULL, wanted_name TEXT NOT NULL, image BLOB NOT NULL,
    ver_at INTEGER NOT NULL, ver_by BLOB NOT NULL) STRICT;
CREATE UNIQUE INDEX emoji_by_name ON emoji (name) WHERE delete_at = 0;
";

/// Hooks and commands of this node.
const INTEGRATIONS: &str = crate::integrations::TABLES;

/// Orders to remove content, and what went under them: it must not come back.
const V4: &str = "
CREATE TABLE purges (
    id TEXT PRIMARY KEY, event BLOB NOT NULL, origin BLOB NOT NULL, epoch INTEGER NOT NULL, seq INTEGER NOT NULL,
    begun_at INTEGER NOT NULL, barrier INTEGER NOT NULL, blobs TEXT NOT NULL, done_at INTEGER NOT NULL,
    report TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE purged (
    id TEXT PRIMARY KEY, purge TEXT NOT NULL, with_files INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE INDEX files_by_hash ON files (hash) WHERE hash <> '';
";

/// Second factors, with the time step of the last code taken, and whose a bot is. All of it is this node's own.
const ACCOUNTS: &str = "
ALTER TABLE users ADD COLUMN mfa_secret TEXT NOT NULL DEFAULT '';
ALTER TABLE users ADD COLUMN mfa_active INTEGER NOT NULL DEFAULT 0;
ALTER TABLE users ADD COLUMN mfa_used INTEGER NOT NULL DEFAULT 0;
CREATE TABLE bots (
    user_id TEXT PRIMARY KEY, owner_id TEXT NOT NULL, create_at INTEGER NOT NULL, update_at INTEGER NOT NULL,
    delete_at INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE INDEX bots_owner ON bots (owner_id);
";

/// What was done to accounts and sessions.
const AUDITS: &str = "
CREATE TABLE audits (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL, create_at INTEGER NOT NULL, user_id TEXT NOT NULL, action TEXT NOT NULL,
    extra_info TEXT NOT NULL, ip_address TEXT NOT NULL, session_id TEXT NOT NULL) STRICT;
CREATE INDEX audits_user ON audits (user_id);
";

/// Pictures of users and teams, small and of one size.
const PICTURES: &str = "
CREATE TABLE pictures (owner TEXT PRIMARY KEY, image BLOB NOT NULL) STRICT;
ALTER TABLE teams ADD COLUMN last_icon_update INTEGER NOT NULL DEFAULT 0;
";

/// Who somebody is in Entra; '' for those who are not from there.
const ENTRA: &str = "
ALTER TABLE users ADD COLUMN entra TEXT NOT NULL DEFAULT '';
CREATE INDEX users_entra ON users (entra) WHERE entra <> '';
";

/// What the directory sync did and may undo, and what it keeps for its next round. `alias` is what the username was made from;
/// `disabled` marks those whom it deactivated, `added` the memberships that it made itself.
const DIRECTORY: &str = "
CREATE TABLE directory_people (
    user_id TEXT PRIMARY KEY, alias TEXT NOT NULL, disabled INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE directory_members (
    user_id TEXT NOT NULL, team_id TEXT NOT NULL, channel_id TEXT NOT NULL, added INTEGER NOT NULL,
    PRIMARY KEY (user_id, team_id, channel_id)) STRICT, WITHOUT ROWID;
CREATE TABLE directory_keep (key TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT;
";

/// For what place of the configuration a membership was made, by names as in URLs: these lead elsewhere once it is archived or renamed.
/// '' where it is not known.
const DIRECTORY_PLACES: &str = "
ALTER TABLE directory_members ADD COLUMN team TEXT NOT NULL DEFAULT '';
ALTER TABLE directory_members ADD COLUMN channel TEXT NOT NULL DEFAULT '';
";

/// Links with which people set a password of their own here. Each is good once.
const ENROLMENTS: &str = "
CREATE TABLE enrolments (
    token_hash BLOB PRIMARY KEY, user_id TEXT NOT NULL, create_at INTEGER NOT NULL, expires_at INTEGER NOT NULL)
    STRICT, WITHOUT ROWID;
CREATE INDEX enrolments_user ON enrolments (user_id);
";

/// What a follower's list of threads and its totals need stands with the follower, who may follow thousands of threads among
/// hundreds of thousands: both are read without a look at each. `last_reply_at` is -1 where no reply has made a thread yet.
const THREADS_BY_FOLLOWER: &str = "
ALTER TABLE thread_members ADD COLUMN channel_id TEXT NOT NULL DEFAULT '';
ALTER TABLE thread_members ADD COLUMN last_reply_at INTEGER NOT NULL DEFAULT -1;
ALTER TABLE thread_members ADD COLUMN delete_at INTEGER NOT NULL DEFAULT 0;
UPDATE thread_members SET
    channel_id = coalesce((SELECT channel_id FROM posts p WHERE p.id = thread_members.post_id), ''),
    last_reply_at = coalesce((SELECT last_reply_at FROM threads t WHERE t.post_id = thread_members.post_id), -1),
    delete_at = coalesce((SELECT delete_at FROM threads t WHERE t.post_id = thread_members.post_id), 0);
DROP INDEX thread_members_post;
CREATE INDEX thread_members_post ON thread_members (post_id, following);
CREATE INDEX thread_members_channel ON thread_members
    (user_id, channel_id, following, delete_at, last_reply_at, last_viewed, unread_mentions, last_update_at);
CREATE INDEX thread_members_newest ON thread_members (user_id, last_reply_at, post_id) WHERE following = 1;
CREATE TRIGGER thread_member_comes AFTER INSERT ON thread_members BEGIN
    UPDATE thread_members SET channel_id = coalesce((SELECT channel_id FROM posts WHERE id = new.post_id), '')
        WHERE user_id = new.user_id AND post_id = new.post_id;
    UPDATE thread_members SET last_reply_at = t.last_reply_at, delete_at = t.delete_at
        FROM threads t WHERE t.post_id = new.post_id AND user_id = new.user_id AND thread_members.post_id = new.post_id;
END;
CREATE TRIGGER thread_moves AFTER UPDATE OF last_reply_at, delete_at ON threads
    WHEN new.last_reply_at <> old.last_reply_at OR new.delete_at <> old.delete_at BEGIN
    UPDATE thread_members SET last_reply_at = new.last_reply_at, delete_at = new.delete_at WHERE post_id = new.post_id;
END;
CREATE TRIGGER thread_begins AFTER INSERT ON threads BEGIN
    UPDATE thread_members SET last_reply_at = new.last_reply_at, delete_at = new.delete_at WHERE post_id = new.post_id;
END";

/// Notifications that wait, and those that devices show.
const PUSHES: &str = crate::push::TABLES;

/// Imports and exports that are asked for, and those that were.
const JOBS: &str = crate::bulk::jobs::TABLES;

/// What archives called what is here.
const IMPORTED: &str = crate::bulk::names::TABLES;

/// Rows of an import, which travel behind everything of today.
const HISTORY: &str = "ALTER TABLE outbox ADD COLUMN history INTEGER NOT NULL DEFAULT 0;";

/// Posts of this node that have not ended at the other sites.
const UNDELIVERED: &str = "
CREATE TABLE undelivered (post_id TEXT PRIMARY KEY, at INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE INDEX undelivered_by_at ON undelivered (at);
";
