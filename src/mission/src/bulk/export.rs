//! Writing everything as lines.
//!
//! One snapshot of the store is read from begin to end, so that no line names what is not there. Paths of attachments are made of
//! hashes and names: what is imported and exported again gives the same lines.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Read as _, Write as _};
use std::ops::ControlFlow;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use model::Id;
use rusqlite::{Connection, Row, params};
use serde_json::Map;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::archive::DATA;
use super::line::{
    AttachmentLine, BotLine, ChannelLine, ChannelOfUser, DirectLine, EmojiLine, FollowerLine, Info, Line, Marks,
    NotifyOfMember, NotifyOfUser, ParticipantLine, PostLine, ReactionLine, TeamLine, TeamOfUser, UserLine, VERSION,
};
use super::people::{SETTINGS, TUTORIAL, written_value};
use super::{BulkError, BulkExported, BulkPhase, BulkProgress, Watch, tally};
use crate::channels::{JOIN_LEAVE, member_ids};
use crate::core::Core;
use crate::posts::reactions_of;
use crate::rows::{PostRow, all, channel, count, first_id, get, id, id_array, json, nth_id, post_row, team, user};
use crate::sidebar::favorites;
use crate::types::{Channel, StringMap, User};

/// Name of the lines in the archive.
const LINES: &str = "import.jsonl";
/// The watcher is told after so many lines.
const TELL_EVERY: u64 = 500;
/// It is told after so many bytes of a file.
const COPY_BYTES: u64 = 16 * 1024 * 1024;
/// What a post costs beside its text, for the estimate of what is to be done.
const BYTES_BESIDE_TEXT: u64 = 250;

/// What is exported beside users, teams, channels and posts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExportOptions {
    /// The bytes of attachments, and of emoji.
    pub attachments: bool,
    /// Pictures of users and bots.
    pub profile_pictures: bool,
    /// Archived channels too.
    pub archived_channels: bool,
}

impl Core {
    /// Writes everything into an archive that must not exist yet. Others read and write meanwhile.
    ///
    /// # Errors
    /// When the path cannot be written, the store cannot be read, or the watcher says so; no archive is left then.
    pub fn bulk_export(
        &self,
        file: &Path,
        options: ExportOptions,
        watch: Watch<'_>,
    ) -> Result<BulkExported, BulkError> {
        let failed = |why: String| BulkError::Write { file: file.to_owned(), why };
        if file.exists() {
            return Err(failed("it is there already".to_owned()));
        }
        let mut part = file.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        let result = self.write_archive(&part, options, watch).and_then(|exported| {
            let dir = file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let kept = fs::rename(&part, file).and_then(|()| File::open(dir)?.sync_all());
            kept.map(|()| exported).map_err(Failed::from)
        });
        result.map_err(|e| {
            // Half an archive is of no use to anybody.
            let _ = fs::remove_file(&part);
            match e {
                Failed::Bulk(e) => e,
                Failed::Write(why) => failed(why),
            }
        })
    }

    fn write_archive(&self, part: &Path, options: ExportOptions, watch: Watch<'_>) -> Result<BulkExported, Failed> {
        // One that an interrupted export left behind.
        match fs::remove_file(part) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e.into()),
            Ok(()) | Err(_) => {}
        }
        let file = OpenOptions::new().write(true).read(true).create_new(true).mode(0o600).open(part)?;
        let mut zip = ZipWriter::new(BufWriter::with_capacity(1 << 20, file));
        let lines = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated).large_file(true);
        zip.start_file(LINES, lines)?;
        let progress = BulkProgress { phase: BulkPhase::Exporting, ..BulkProgress::default() };
        let mut sink = Sink { core: self, zip, done: BulkExported::default(), progress, watch };
        self.read(|db| {
            let everything = Everything::of(self, db, options)?;
            everything.lines(&mut sink)?;
            everything.data(&mut sink)
        })?;
        let file = sink.zip.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        Ok(BulkExported { bytes: file.metadata()?.len(), ..sink.done })
    }
}

/// Why an archive was not written.
enum Failed {
    Bulk(BulkError),
    Write(String),
}

impl From<io::Error> for Failed {
    fn from(e: io::Error) -> Self {
        Self::Write(e.to_string())
    }
}

impl From<zip::result::ZipError> for Failed {
    fn from(e: zip::result::ZipError) -> Self {
        Self::Write(e.to_string())
    }
}

impl From<rusqlite::Error> for Failed {
    fn from(e: rusqlite::Error) -> Self {
        Self::Bulk(e.into())
    }
}

impl From<crate::error::AppError> for Failed {
    fn from(e: crate::error::AppError) -> Self {
        Self::Bulk(e.into())
    }
}

struct Sink<'a, 'w> {
    core: &'a Core,
    zip: ZipWriter<BufWriter<File>>,
    done: BulkExported,
    progress: BulkProgress,
    watch: &'a mut (dyn FnMut(&BulkProgress) -> ControlFlow<()> + 'w),
}

impl Sink<'_, '_> {
    fn line(&mut self, kind: &str, fill: impl FnOnce(&mut Line)) -> Result<(), Failed> {
        let mut line = Line { kind: kind.to_owned(), ..Line::default() };
        fill(&mut line);
        let mut text = serde_json::to_vec(&line).map_err(io::Error::from)?;
        text.push(b'\n');
        self.zip.write_all(&text)?;
        if kind != "version" {
            tally(&mut self.done.counts, kind, 1);
        }
        self.progress.lines += 1;
        match self.progress.lines % TELL_EVERY {
            0 => self.tell(),
            _ => Ok(()),
        }
    }

    /// Tells the watcher. What the disk has left is the journal's, and the store's.
    fn tell(&mut self) -> Result<(), Failed> {
        if !self.core.space().admits_files() {
            return Err(Failed::Write("the node is short of space".to_owned()));
        }
        match (self.watch)(&self.progress) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Failed::Bulk(BulkError::Stopped { line: self.progress.lines + 1 })),
        }
    }

    /// The bytes of a file, told of as they go.
    fn copy(&mut self, file: &mut File) -> Result<(), Failed> {
        loop {
            let copied = io::copy(&mut file.take(COPY_BYTES), &mut self.zip)?;
            self.progress.done_bytes += copied;
            self.tell()?;
            if copied < COPY_BYTES {
                return Ok(());
            }
        }
    }

    /// Begins an entry whose bytes are packed already, as pictures and documents are.
    fn entry(&mut self, path: &str, bytes: u64) -> Result<(), Failed> {
        let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
        self.zip.start_file(format!("{DATA}/{path}"), options.large_file(bytes >= u64::from(u32::MAX)))?;
        Ok(())
    }
}

/// A channel with the names of its team and of its members.
struct Place {
    channel: Channel,
    team: String,
    /// Of a direct or group channel.
    members: Vec<Id>,
}

/// What is known before the first line is written.
struct Everything<'a> {
    core: &'a Core,
    db: &'a Connection,
    options: ExportOptions,
    /// Everybody but the node's own bot.
    names: BTreeMap<Id, String>,
    places: Vec<Place>,
    direct: Vec<Place>,
    favorites: BTreeSet<(Id, Id)>,
    /// Messages of each channel that are exported: all, and those that begin threads.
    totals: BTreeMap<Id, (i64, i64)>,
    /// Who saved a post.
    flagged: BTreeMap<Id, Vec<String>>,
}

fn opt(text: &str) -> Option<String> {
    Some(text.to_owned())
}

/// Messages of a channel after a time that are exported: all, and those that begin threads.
fn written(db: &Connection, channel: Id, after: i64) -> rusqlite::Result<(i64, i64)> {
    let sql = format!(
        "SELECT count(*), coalesce(sum(root_id = ''), 0) FROM posts WHERE channel_id = ?1 AND create_at > ?2
            AND delete_at = 0 AND original_id = '' AND type NOT IN {JOIN_LEAVE}"
    );
    let found = get(db, &sql, params![channel.as_str(), after], |r| Ok((r.get(0)?, r.get(1)?)))?;
    Ok(found.unwrap_or_default())
}

/// Where an attachment lies below `data/`.
fn path_of(hash: &str, name: &str) -> String {
    let plain = |c: char| if matches!(c, '/' | '\\' | '\0') { '_' } else { c };
    let name: String = name.chars().map(plain).collect();
    let name = if matches!(name.as_str(), "" | "." | "..") { "file" } else { &name };
    format!("files/{}/{hash}/{name}", hash.get(..2).unwrap_or("00"))
}

fn picture_path(username: &str) -> String {
    format!("users/{username}/profile.png")
}

fn emoji_path(name: &str) -> String {
    format!("emoji/{name}/image")
}

fn notify_of_member(props: &StringMap) -> NotifyOfMember {
    let get = |name: &str| props.get(name).cloned();
    NotifyOfMember {
        desktop: get("desktop"),
        mobile: get("push"),
        mark_unread: get("mark_unread"),
        email: get("email"),
        ignore_channel_mentions: get("ignore_channel_mentions"),
        channel_auto_follow_threads: get("channel_auto_follow_threads"),
    }
}

/// What a membership row says of reading.
struct MemberRow {
    channel: Id,
    notify: StringMap,
    is_admin: bool,
    marks: Marks,
}

fn member_row(r: &Row<'_>) -> rusqlite::Result<MemberRow> {
    Ok(MemberRow {
        channel: id(r, "channel_id")?,
        notify: json(r, "notify_props")?,
        is_admin: r.get("scheme_admin")?,
        marks: Marks {
            mention_count: Some(r.get("mention_count")?),
            mention_count_root: Some(r.get("mention_count_root")?),
            urgent_mention_count: Some(r.get("urgent_mention_count")?),
            msg_count: None,
            msg_count_root: None,
            last_viewed_at: Some(r.get("last_viewed_at")?),
        },
    })
}

impl<'a> Everything<'a> {
    fn of(core: &'a Core, db: &'a Connection, options: ExportOptions) -> Result<Self, Failed> {
        let names = all(db, "SELECT id, username FROM users WHERE local = 0", [], |r| Ok((first_id(r)?, r.get(1)?)))?;
        let names: BTreeMap<Id, String> = names.into_iter().collect();
        let sql = "SELECT c.*, t.name AS of_team FROM channels c JOIN teams t ON t.id = c.team_id
            WHERE t.delete_at = 0 AND c.type IN ('O', 'P') AND (c.delete_at = 0 OR ?1) ORDER BY t.name, c.name";
        let place = |r: &Row<'_>| Ok(Place { channel: channel(r)?, team: r.get("of_team")?, members: Vec::new() });
        let places = all(db, sql, [options.archived_channels], place)?;
        let mut direct = Vec::new();
        for c in
            all(db, "SELECT * FROM channels WHERE type IN ('D', 'G') AND delete_at = 0 ORDER BY name", [], channel)?
        {
            let members = member_ids(db, c.id)?;
            // What the node's own bot says to somebody is this node's.
            if !members.is_empty() && members.iter().all(|m| names.contains_key(m)) {
                direct.push(Place { channel: c, team: String::new(), members });
            }
        }
        let mut favorite = BTreeSet::new();
        let sidebars = all(db, "SELECT user_id, team_id FROM sidebars", [], |r| Ok((first_id(r)?, nth_id(r, 1)?)))?;
        for (user, team) in sidebars {
            favorite.extend(favorites(db, user, team)?.into_iter().map(|c| (user, c)));
        }
        let sql = "SELECT user_id, name FROM preferences WHERE category = 'flagged_post' AND value = 'true'";
        let mut flagged: BTreeMap<Id, Vec<String>> = BTreeMap::new();
        for (user, post) in all(db, sql, [], |r| Ok((first_id(r)?, r.get::<_, String>(1)?)))? {
            if let (Some(name), Ok(post)) = (names.get(&user), post.parse()) {
                flagged.entry(post).or_default().push(name.clone());
            }
        }
        flagged.values_mut().for_each(|names| names.sort());
        let mut totals = BTreeMap::new();
        for place in places.iter().chain(&direct) {
            totals.insert(place.channel.id, written(db, place.channel.id, 0)?);
        }
        Ok(Self { core, db, options, names, places, direct, favorites: favorite, totals, flagged })
    }

    fn lines(&self, sink: &mut Sink<'_, '_>) -> Result<(), Failed> {
        let sql = "SELECT coalesce(sum(octet_length(message)), 0) + count(*) * ?1 FROM posts WHERE delete_at = 0";
        let text = count(self.db, sql, [BYTES_BESIDE_TEXT as i64])?;
        sink.progress.total_bytes = text as u64 + self.data_bytes()?;
        sink.tell()?;
        let created = jiff::Timestamp::from_millisecond(self.core.now().0).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        sink.line("version", |line| {
            line.version = Some(VERSION);
            line.info = Some(Info {
                generator: "holdfast".to_owned(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                created: created.to_string(),
            });
        })?;
        for t in all(self.db, "SELECT * FROM teams WHERE delete_at = 0 ORDER BY name", [], team)? {
            sink.line("team", |line| {
                line.team = Some(TeamLine {
                    name: Some(t.name),
                    display_name: Some(t.display_name),
                    kind: Some(t.kind),
                    description: Some(t.description),
                    allow_open_invite: Some(t.allow_open_invite),
                });
            })?;
        }
        for place in &self.places {
            let c = &place.channel;
            sink.line("channel", |line| {
                line.channel = Some(ChannelLine {
                    team: opt(&place.team),
                    name: opt(&c.name),
                    display_name: opt(&c.display_name),
                    kind: opt(&c.kind),
                    header: opt(&c.header),
                    purpose: opt(&c.purpose),
                    deleted_at: Some(c.delete_at),
                });
            })?;
        }
        self.people(sink)?;
        for place in &self.places {
            self.posts(sink, place)?;
        }
        for (name, _) in self.emoji()? {
            let image = Some(emoji_path(&name));
            sink.line("emoji", |line| line.emoji = Some(EmojiLine { name: Some(name), image }))?;
        }
        for place in &self.direct {
            self.direct(sink, place)?;
        }
        for place in &self.direct {
            self.posts(sink, place)?;
        }
        Ok(())
    }

    fn people(&self, sink: &mut Sink<'_, '_>) -> Result<(), Failed> {
        let pictures: BTreeSet<Id> = match self.options.profile_pictures {
            true => all(self.db, "SELECT owner FROM pictures", [], first_id)?.into_iter().collect(),
            false => BTreeSet::new(),
        };
        let picture = |u: &User| pictures.contains(&u.id).then(|| picture_path(&u.username));
        let mut addresses = BTreeSet::new();
        for u in all(self.db, "SELECT * FROM users WHERE is_bot = 0 AND local = 0 ORDER BY username", [], user)? {
            let mut line = self.user(&u, picture(&u))?;
            // Only accounts with a password have an address of their own here; elsewhere each must.
            if u.email.is_empty() || !addresses.insert(u.email.to_lowercase()) {
                line.email = Some(format!("{}@localhost", u.username));
            }
            sink.line("user", |written| written.user = Some(Box::new(line)))?;
        }
        let sql = "SELECT u.*, b.owner_id FROM users u LEFT JOIN bots b ON b.user_id = u.id
            WHERE u.is_bot = 1 AND u.local = 0 ORDER BY u.username";
        let bots = all(self.db, sql, [], |r| Ok((user(r)?, r.get::<_, Option<String>>("owner_id")?)))?;
        for (u, owner) in bots {
            // A bot of another node belongs to nobody here; the format wants somebody.
            let owner = owner.filter(|owner| !owner.is_empty()).unwrap_or_else(|| u.username.clone());
            let owner = owner.parse().ok().and_then(|id: Id| self.names.get(&id).cloned()).unwrap_or(owner);
            let profile_image = picture(&u);
            sink.line("bot", |line| {
                line.bot = Some(BotLine {
                    profile_image,
                    username: Some(u.username),
                    owner: Some(owner),
                    display_name: Some(u.first_name),
                    description: Some(u.bot_description),
                    delete_at: Some(u.delete_at),
                });
            })?;
        }
        Ok(())
    }

    fn user(&self, u: &User, profile_image: Option<String>) -> Result<UserLine, Failed> {
        let notify = |name: &str| u.notify_props.get(name).cloned();
        let pair = |r: &Row<'_>| Ok(((r.get::<_, String>(0)?, r.get::<_, String>(1)?), r.get::<_, String>(2)?));
        let sql = "SELECT category, name, value FROM preferences WHERE user_id = ?1";
        let kept: BTreeMap<(String, String), String> = all(self.db, sql, [u.id.as_str()], pair)?.into_iter().collect();
        let setting = |category: &str, name: &str| kept.get(&(category.to_owned(), name.to_owned()));
        let mut settings = Map::new();
        for (name, category, of) in SETTINGS {
            let of = if name == TUTORIAL { u.id.as_str() } else { of };
            if let Some(value) = setting(category, of).filter(|value| !value.is_empty()) {
                settings.insert(name.to_owned(), written_value(category, value).into());
            }
        }
        Ok(UserLine {
            profile_image,
            username: opt(&u.username),
            email: opt(&u.email),
            auth_service: None,
            password: None,
            nickname: opt(&u.nickname),
            first_name: opt(&u.first_name),
            last_name: opt(&u.last_name),
            position: opt(&u.position),
            roles: opt(&u.roles),
            locale: opt(&u.locale),
            delete_at: Some(u.delete_at),
            teams: Some(self.memberships(u.id, |team| setting("theme", team).cloned())?),
            notify_props: Some(NotifyOfUser {
                desktop: notify("desktop"),
                desktop_sound: notify("desktop_sound"),
                email: notify("email"),
                mobile: notify("push"),
                mobile_push_status: notify("push_status"),
                channel: notify("channel"),
                comments: notify("comments"),
                mention_keys: notify("mention_keys"),
            }),
            custom_status: u.props.get(crate::custom_status::PROP).and_then(|text| serde_json::from_str(text).ok()),
            settings,
        })
    }

    fn memberships(&self, user: Id, theme: impl Fn(&str) -> Option<String>) -> Result<Vec<TeamOfUser>, Failed> {
        let sql = "SELECT m.*, t.name AS of_team FROM team_members m JOIN teams t ON t.id = m.team_id
            WHERE m.user_id = ?1 AND m.delete_at = 0 AND t.delete_at = 0 ORDER BY t.name";
        type Of = (Id, String, bool, String);
        let teams: Vec<Of> = all(self.db, sql, [user.as_str()], |r| {
            Ok((id(r, "team_id")?, r.get("of_team")?, r.get("scheme_admin")?, r.get("explicit_roles")?))
        })?;
        let mut of_user = Vec::with_capacity(teams.len());
        for (team, name, is_admin, explicit) in teams {
            let sql = "SELECT m.* FROM channel_members m JOIN channels c ON c.id = m.channel_id
                WHERE m.user_id = ?1 AND m.delete_at = 0 AND c.team_id = ?2 AND (c.delete_at = 0 OR ?3) ORDER BY c.name";
            let values = params![user.as_str(), team.as_str(), self.options.archived_channels];
            let mut channels = Vec::new();
            for row in all(self.db, sql, values, member_row)? {
                let Some(name) = self.places.iter().find(|p| p.channel.id == row.channel) else { continue };
                channels.push(ChannelOfUser {
                    name: opt(&name.channel.name),
                    roles: opt(if row.is_admin { "channel_admin channel_user" } else { "channel_user" }),
                    notify_props: Some(notify_of_member(&row.notify)),
                    favorite: Some(self.favorites.contains(&(user, row.channel))),
                    marks: self.read_so_far(row.channel, row.marks)?,
                });
            }
            let mut roles: Vec<&str> = explicit.split_whitespace().collect();
            roles.extend(is_admin.then_some("team_admin"));
            roles.push("team_user");
            of_user.push(TeamOfUser {
                name: Some(name),
                roles: Some(roles.join(" ")),
                theme: theme(team.as_str()),
                channels: Some(channels),
            });
        }
        Ok(of_user)
    }

    /// How many of the messages that are exported were read: what the counters of this node say counts others too.
    fn read_so_far(&self, channel: Id, marks: Marks) -> Result<Marks, Failed> {
        let viewed = marks.last_viewed_at.unwrap_or(0);
        let (all, roots) = self.totals.get(&channel).copied().unwrap_or_default();
        // What is behind the mark is counted, which is little for whoever reads now and then.
        let behind = match viewed {
            0 => (all, roots),
            _ => written(self.db, channel, viewed)?,
        };
        Ok(Marks { msg_count: Some(all - behind.0), msg_count_root: Some(roots - behind.1), ..marks })
    }

    fn direct(&self, sink: &mut Sink<'_, '_>, place: &Place) -> Result<(), Failed> {
        let c = &place.channel;
        let mut participants = Vec::new();
        let (mut shown_by, mut favorited_by) = (Vec::new(), Vec::new());
        for member in &place.members {
            let sql = "SELECT * FROM channel_members WHERE channel_id = ?1 AND user_id = ?2";
            let Some(row) = get(self.db, sql, [c.id.as_str(), member.as_str()], member_row)? else { continue };
            let name = self.name(*member);
            participants.push(ParticipantLine {
                username: Some(name.clone()),
                notify_props: Some(notify_of_member(&row.notify)),
                scheme_user: Some(true),
                marks: self.read_so_far(c.id, row.marks)?,
            });
            let other = place.members.iter().find(|other| *other != member).unwrap_or(member);
            let (category, of) = match c.kind.as_str() {
                "G" => ("group_channel_show", c.id),
                _ => ("direct_channel_show", *other),
            };
            let sql = "SELECT value FROM preferences WHERE user_id = ?1 AND category = ?2 AND name = ?3";
            let value: Option<String> = get(self.db, sql, [member.as_str(), category, of.as_str()], |r| r.get(0))?;
            if value.as_deref() == Some("true") {
                shown_by.push(name.clone());
            }
            if self.favorites.contains(&(*member, c.id)) {
                favorited_by.push(name);
            }
        }
        participants.sort_by(|a, b| a.username.cmp(&b.username));
        if let [alone] = &participants[..] {
            // Somebody's notes to themselves, as the original has them.
            let again = alone.clone();
            participants.push(again);
        }
        for names in [&mut shown_by, &mut favorited_by] {
            names.sort();
        }
        sink.line("direct_channel", |line| {
            line.direct_channel = Some(DirectLine {
                members: None,
                participants: Some(participants),
                favorited_by: Some(favorited_by).filter(|names| !names.is_empty()),
                shown_by: Some(shown_by).filter(|names| !names.is_empty()),
                header: opt(&c.header),
            });
        })
    }

    fn name(&self, user: Id) -> String {
        self.names.get(&user).cloned().unwrap_or_default()
    }

    /// The posts of a channel with their replies, oldest first.
    fn posts(&self, sink: &mut Sink<'_, '_>, place: &Place) -> Result<(), Failed> {
        let sql = "SELECT * FROM posts WHERE channel_id = ?1 AND original_id = '' AND root_id = '' AND delete_at = 0
            ORDER BY create_at, id";
        let mut statement = self.db.prepare_cached(sql)?;
        let mut rows = statement.query([place.channel.id.as_str()])?;
        while let Some(row) = rows.next()? {
            let root = post_row(row)?;
            let Some(mut line) = self.words(sink, &root)? else { continue };
            let sql = "SELECT * FROM posts WHERE root_id = ?1 AND root_id <> '' AND original_id = '' AND delete_at = 0
                ORDER BY create_at, id";
            let mut replies = Vec::new();
            for reply in all(self.db, sql, [root.id.as_str()], post_row)? {
                replies.extend(self.words(sink, &reply)?);
            }
            tally(&mut sink.done.counts, "reply", replies.len() as u64);
            line.thread_followers = self.followers(root.id)?;
            line.replies = Some(replies);
            if place.members.is_empty() {
                line.team = opt(&place.team);
                line.channel = opt(&place.channel.name);
                sink.line("post", |written| written.post = Some(Box::new(line)))?;
            } else {
                let mut members: Vec<String> = place.members.iter().map(|member| self.name(*member)).collect();
                members.sort();
                if let [alone] = &members[..] {
                    members.push(alone.clone());
                }
                line.channel_members = Some(members);
                sink.line("direct_post", |written| written.direct_post = Some(Box::new(line)))?;
            }
        }
        Ok(())
    }

    /// What one post says; `None` for one of the node's own bot.
    fn words(&self, sink: &mut Sink<'_, '_>, row: &PostRow) -> Result<Option<PostLine>, Failed> {
        let Some(user) = self.names.get(&row.user_id) else { return Ok(None) };
        sink.progress.done_bytes += row.message.len() as u64 + BYTES_BESIDE_TEXT;
        let mut reactions = Vec::new();
        for reaction in reactions_of(self.db, &[row.id])?.remove(&row.id).unwrap_or_default() {
            let Some(name) = self.names.get(&reaction.user_id) else { continue };
            reactions.push(ReactionLine {
                user: Some(name.clone()),
                // Earlier than the post only where clocks differed, and the format forbids it.
                create_at: Some(reaction.create_at.max(row.create_at)),
                emoji_name: Some(reaction.emoji_name),
            });
        }
        reactions.sort_by(|a, b| (a.create_at, &a.user, &a.emoji_name).cmp(&(b.create_at, &b.user, &b.emoji_name)));
        tally(&mut sink.done.counts, "reaction", reactions.len() as u64);
        let sql = "SELECT hash, name FROM files WHERE id = ?1 AND delete_at = 0";
        let mut attachments = Vec::new();
        for file in &row.file_ids {
            let of = |r: &Row<'_>| Ok((r.get::<_, String>(0)?, r.get::<_, String>(1)?));
            match get(self.db, sql, [file.as_str()], of)? {
                Some((hash, name)) if !hash.is_empty() => {
                    attachments.push(AttachmentLine { path: Some(path_of(&hash, &name)) });
                }
                Some(_) => sink.done.missing_files += 1,
                None => {}
            }
        }
        tally(&mut sink.done.counts, "attachment", attachments.len() as u64);
        Ok(Some(PostLine {
            user: Some(user.clone()),
            kind: opt(&row.kind),
            message: opt(&row.message),
            props: Some(row.props_map()),
            create_at: Some(row.create_at),
            edit_at: Some(row.edit_at),
            flagged_by: Some(self.flagged.get(&row.id).cloned().unwrap_or_default()),
            reactions: Some(reactions),
            attachments: Some(attachments).filter(|a| !a.is_empty()),
            is_pinned: Some(row.is_pinned),
            ..PostLine::default()
        }))
    }

    fn followers(&self, thread: Id) -> Result<Option<Vec<FollowerLine>>, Failed> {
        let sql =
            "SELECT user_id, last_viewed, unread_mentions FROM thread_members WHERE post_id = ?1 AND following = 1";
        let rows: Vec<(Id, i64, i64)> =
            all(self.db, sql, [thread.as_str()], |r| Ok((first_id(r)?, r.get(1)?, r.get(2)?)))?;
        let mut followers: Vec<FollowerLine> = rows
            .into_iter()
            .filter_map(|(user, viewed, mentions)| {
                let user = Some(self.names.get(&user)?.clone());
                Some(FollowerLine { user, last_viewed: Some(viewed), unread_mentions: Some(mentions) })
            })
            .collect();
        followers.sort_by(|a, b| a.user.cmp(&b.user));
        Ok(Some(followers).filter(|f| !f.is_empty()))
    }

    fn emoji(&self) -> Result<Vec<(String, Id)>, Failed> {
        let sql = "SELECT name, id FROM emoji WHERE delete_at = 0 ORDER BY name";
        Ok(all(self.db, sql, [], |r| Ok((r.get(0)?, nth_id(r, 1)?)))?)
    }

    fn exported(&self) -> String {
        let ids: Vec<Id> = self.places.iter().chain(&self.direct).map(|p| p.channel.id).collect();
        id_array(&ids)
    }

    fn data_bytes(&self) -> Result<u64, Failed> {
        if !self.options.attachments {
            return Ok(0);
        }
        let sql = format!("SELECT coalesce(sum(size), 0) FROM ({ATTACHED})");
        Ok(count(self.db, &sql, [self.exported()])? as u64)
    }

    /// The bytes that lines name.
    fn data(&self, sink: &mut Sink<'_, '_>) -> Result<(), Failed> {
        if self.options.attachments {
            let mut statement = self.db.prepare_cached(ATTACHED)?;
            let mut rows = statement.query([self.exported()])?;
            while let Some(row) = rows.next()? {
                let (hash, name, size): (String, String, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
                match File::open(self.core.blob_path(&hash)) {
                    Ok(mut file) => {
                        sink.entry(&path_of(&hash, &name), size as u64)?;
                        sink.copy(&mut file)?;
                    }
                    // Purged while this ran.
                    Err(e) if e.kind() == io::ErrorKind::NotFound => {
                        sink.done.missing_files += 1;
                        sink.progress.done_bytes += size as u64;
                    }
                    Err(e) => return Err(e.into()),
                }
            }
            for (name, emoji) in self.emoji()? {
                let sql = "SELECT image FROM emoji WHERE id = ?1";
                let image: Option<Vec<u8>> = get(self.db, sql, [emoji.as_str()], |r| r.get(0))?;
                let image = image.unwrap_or_default();
                sink.entry(&emoji_path(&name), image.len() as u64)?;
                sink.zip.write_all(&image)?;
            }
        }
        if self.options.profile_pictures {
            for owner in all(self.db, "SELECT owner FROM pictures", [], first_id)? {
                let Some(name) = self.names.get(&owner) else { continue };
                let sql = "SELECT image FROM pictures WHERE owner = ?1";
                let image: Option<Vec<u8>> = get(self.db, sql, [owner.as_str()], |r| r.get(0))?;
                let image = image.unwrap_or_default();
                sink.entry(&picture_path(name), image.len() as u64)?;
                sink.zip.write_all(&image)?;
            }
        }
        Ok(())
    }
}

/// Bytes that lines name, each once.
const ATTACHED: &str = "SELECT hash, name, max(size) AS size FROM files WHERE hash <> '' AND delete_at = 0
    AND EXISTS (SELECT 1 FROM posts p WHERE p.id = files.post_id AND p.delete_at = 0)
    AND channel_id IN (SELECT value FROM json_each(?1)) GROUP BY hash, name ORDER BY hash, name";
