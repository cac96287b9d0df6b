//! Looking at every line of an archive before anything is changed.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::ops::ControlFlow;
use std::path::Path;

use super::archive::{Archive, ArchiveError, Found};
use super::line::{
    BotLine, ChannelLine, DirectLine, EmojiLine, Line, LineError, Lines, PostLine, Subject, TeamLine, UserLine, VERSION,
};
use super::names::channel_key;
use super::{BulkChecked, BulkError, BulkPhase, BulkProgress, Watch, tally};
use crate::channels::{blank_channel, check_channel};
use crate::core::{Core, random_id};
use crate::error::AppError;
use crate::posts::{check_props, check_weight, hashtags};
use crate::reactions::check_emoji;
use crate::rows::all;
use crate::teams::{blank_team, check_team};
use crate::users::{check_profile, new_row};

/// Longest `type` of a post, as in the original's table.
const KIND_RUNES_MAX: usize = 26;
/// Attachments of one post. Clients show ten, and scripts write a few more.
const ATTACHMENTS_MAX: usize = 100;
/// Members of a group channel.
const GROUP_MEMBERS: std::ops::RangeInclusive<usize> = 2..=8;
/// The watcher is told after so many lines.
const TELL_EVERY: u64 = 500;

/// Names that lines may use: those of the store, those that archives had for what is in it, and those of the lines before.
#[derive(Default)]
struct Book {
    users: BTreeSet<String>,
    /// Addresses of accounts with a password, which no other may have, with whose they are.
    emails: BTreeMap<String, String>,
    teams: BTreeSet<String>,
    /// See [`channel_key`].
    channels: BTreeSet<String>,
    /// Names that this archive gave, with their lines.
    given: BTreeMap<String, u64>,
}

impl Book {
    fn of(core: &Core) -> Result<Self, BulkError> {
        core.read(|db| {
            let pair = |r: &rusqlite::Row<'_>| Ok((r.get::<_, String>(0)?, r.get::<_, String>(1)?));
            let text = |r: &rusqlite::Row<'_>| r.get::<_, String>(0);
            Ok(Self {
                users: all(
                    db,
                    "SELECT username FROM users UNION SELECT name FROM imported WHERE kind = 'user'",
                    [],
                    text,
                )?
                .into_iter()
                .collect(),
                emails: all(db, "SELECT email, username FROM users WHERE password <> ''", [], pair)?
                    .into_iter()
                    .collect(),
                teams: all(db, &format!("SELECT name FROM ({TEAMS})"), [], text)?.into_iter().collect(),
                channels: all(
                    db,
                    &format!(
                        "SELECT t.name || '/' || c.name FROM ({TEAMS}) t JOIN channels c ON c.team_id = t.id
                         UNION SELECT name FROM imported WHERE kind = 'channel'"
                    ),
                    [],
                    text,
                )?
                .into_iter()
                .collect(),
                given: BTreeMap::new(),
            })
        })
    }
}

/// Teams by the names that lines may have for them: that of an archive before that of the store, as `names` finds them.
const TEAMS: &str = "SELECT name, id FROM imported WHERE kind = 'team'
    UNION SELECT name, id FROM teams WHERE name NOT IN (SELECT name FROM imported WHERE kind = 'team')";

pub(crate) fn lower(name: &Option<String>) -> Option<String> {
    name.as_ref().map(|name| name.trim().to_lowercase()).filter(|name| !name.is_empty())
}

/// As the command `import` names an archive that it does not read.
pub(crate) fn unusable(file: &Path, e: &ArchiveError) -> BulkError {
    BulkError::Archive { file: file.to_owned(), why: e.to_string() }
}

impl Core {
    /// Looks at every line of an archive. What is wrong is among the findings; nothing is changed.
    ///
    /// # Errors
    /// [`BulkError::Archive`] for what is no such archive, [`BulkError::Stopped`] when the watcher says so, and when the store
    /// cannot be read.
    pub fn bulk_check(&self, file: &Path, watch: Watch<'_>) -> Result<BulkChecked, BulkError> {
        let mut archive = Archive::open(file).map_err(|e| unusable(file, &e))?;
        check(self, file, &mut archive, watch)
    }
}

pub(crate) fn check(
    core: &Core,
    file: &Path,
    archive: &mut Archive,
    watch: Watch<'_>,
) -> Result<BulkChecked, BulkError> {
    let mut names = archive.clone();
    let mut checker = Checker {
        core,
        archive: &mut names,
        book: Book::of(core)?,
        checked: BulkChecked::default(),
        ignored: BTreeMap::new(),
        taken: None,
    };
    let total_bytes = archive.lines_bytes;
    let mut lines = Lines::new(archive.lines().map_err(|e| unusable(file, &e))?);
    loop {
        match lines.next() {
            Ok(Some(line)) => checker.line(lines.number, &line),
            Ok(None) => break,
            Err(e @ (LineError::Json(_) | LineError::TooMany)) => checker.wrong(lines.number, e.to_string()),
            // Nothing can be said of what stands behind.
            Err(e) => {
                checker.wrong(lines.number.max(1), e.to_string());
                break;
            }
        }
        if lines.number % TELL_EVERY == 0 {
            let (phase, lines, done_bytes) = (BulkPhase::Checking, lines.number, lines.bytes);
            if watch(&BulkProgress { phase, lines, done_bytes, total_bytes }) == ControlFlow::Break(()) {
                return Err(BulkError::Stopped { line: lines + 1 });
            }
        }
    }
    if lines.number == 0 {
        checker.wrong(1, "there are no lines");
    }
    for (kind, (line, count)) in std::mem::take(&mut checker.ignored) {
        let text = format!(
            "{count} lines of type `{kind}` are passed over: roles are built in here, and there are no schemes"
        );
        checker.checked.warnings.add(line, text);
    }
    if let Some((line, count)) = checker.taken {
        let text = format!(
            "{count} users have an account of their name here, which they keep: what is imported of them is its"
        );
        checker.checked.warnings.add(line, text);
    }
    Ok(checker.checked)
}

struct Checker<'a> {
    core: &'a Core,
    archive: &'a mut Archive,
    book: Book,
    checked: BulkChecked,
    /// Types that are passed over: first line and count.
    ignored: BTreeMap<String, (u64, u64)>,
    /// Users who have an account here already: first line and count.
    taken: Option<(u64, u64)>,
}

/// What is wrong with a line.
type Wrong = Result<(), String>;

fn required<'a>(value: &'a Option<String>, what: &str) -> Result<&'a str, String> {
    value.as_deref().filter(|text| !text.is_empty()).ok_or_else(|| format!("`{what}` is missing"))
}

fn rule(result: Result<(), AppError>) -> Wrong {
    result.map_err(|e| format!("{} ({})", e.message, e.id))
}

impl Checker<'_> {
    fn wrong(&mut self, line: u64, text: impl Into<String>) {
        self.checked.errors.add(line, text);
    }

    fn count(&mut self, kind: &str, by: usize) {
        tally(&mut self.checked.counts, kind, by as u64);
    }

    fn line(&mut self, number: u64, line: &Line) {
        if let Err(text) = self.look(number, line) {
            self.wrong(number, text);
        }
    }

    fn look(&mut self, number: u64, line: &Line) -> Wrong {
        if number == 1 && line.kind != "version" {
            return Err("the first line must be of type `version`".to_owned());
        }
        match line.subject()? {
            Subject::Version => {
                if number != 1 {
                    return Err("only the first line may be of type `version`".to_owned());
                }
                if line.version != Some(VERSION) {
                    return Err(format!("the version must be {VERSION}"));
                }
                if let Some(info) = &line.info {
                    let generator = format!("{} {}", info.generator, info.version);
                    self.checked.generator = super::cut(generator.trim().to_owned());
                }
                Ok(())
            }
            Subject::PassedOver => {
                self.ignored.entry(line.kind.clone()).or_insert((number, 0)).1 += 1;
                Ok(())
            }
            Subject::Team(team) => self.team(number, team),
            Subject::Channel(channel) => self.channel(number, channel),
            Subject::User(user) => self.user(number, user),
            Subject::Bot(bot) => self.bot(number, bot),
            Subject::Post(post) => self.post(number, post),
            Subject::DirectChannel(channel) => self.direct(channel),
            Subject::DirectPost(post) => self.direct_post(number, post),
            Subject::Emoji(emoji) => self.emoji(number, emoji),
        }
    }

    /// Notes that the archive gives this name, which it may do once.
    fn give(&mut self, number: u64, what: &str, name: &str) -> Wrong {
        match self.book.given.insert(format!("{what} {name}"), number) {
            None => Ok(()),
            Some(before) => Err(format!("{what} `{name}` is in line {before} already")),
        }
    }

    fn require_user(&self, name: &Option<String>, what: &str) -> Wrong {
        let name = lower(name).ok_or_else(|| format!("`{what}` is missing"))?;
        match self.book.users.contains(&name) {
            true => Ok(()),
            false => Err(format!("`{what}` is `{name}`, who is neither here nor in a line before")),
        }
    }

    fn team(&mut self, number: u64, line: &TeamLine) -> Wrong {
        let name = lower(&line.name).ok_or("`name` is missing")?;
        required(&line.display_name, "display_name")?;
        let mut team = blank_team(random_id(), 0, &name).team;
        super::import::fill_team(&mut team, line);
        rule(check_team(&team))?;
        self.give(number, "team", &name)?;
        for standard in [crate::teams::TOWN_SQUARE, crate::teams::OFF_TOPIC] {
            self.book.channels.insert(channel_key(&name, standard));
        }
        self.book.teams.insert(name);
        self.count("team", 1);
        Ok(())
    }

    fn channel(&mut self, number: u64, line: &ChannelLine) -> Wrong {
        let team = lower(&line.team).ok_or("`team` is missing")?;
        let name = lower(&line.name).ok_or("`name` is missing")?;
        if !self.book.teams.contains(&team) {
            return Err(format!("team `{team}` is neither here nor in a line before"));
        }
        let kind = line.kind.as_deref().unwrap_or("");
        if kind != "O" && kind != "P" {
            return Err("`type` must be O or P".to_owned());
        }
        let mut row = blank_channel(random_id(), 0, kind, &name);
        row.channel.display_name = line.display_name.clone().unwrap_or_default();
        row.channel.header = line.header.clone().unwrap_or_default();
        row.channel.purpose = line.purpose.clone().unwrap_or_default();
        rule(check_channel(&row.channel))?;
        let key = channel_key(&team, &name);
        self.give(number, "channel", &key)?;
        self.book.channels.insert(key);
        self.count("channel", 1);
        Ok(())
    }

    fn user(&mut self, number: u64, line: &UserLine) -> Wrong {
        let name = lower(&line.username).ok_or("`username` is missing")?;
        let email = lower(&line.email).ok_or("`email` is missing")?;
        let mut row = new_row(random_id(), 0, name.clone());
        super::people::fill(&mut row.user, line);
        rule(check_profile(&row.user))?;
        self.give(number, "user", &name)?;
        if let Some(password) = &line.password {
            rule(self.core.0.check_password(password))?;
        }
        let is_known = self.book.users.contains(&name);
        // Who is here keeps the address of here.
        if !is_known {
            if let Some(other) = self.book.emails.get(&email) {
                return Err(format!("the address of `{name}` is that of `{other}`"));
            }
            self.book.emails.insert(email, name.clone());
        }
        if line.auth_service.as_deref().is_some_and(|service| !service.is_empty()) {
            let text = format!("`{name}` signs in by another service there, and by a password here once one is set");
            self.checked.warnings.add(number, text);
        }
        self.book.users.insert(name);
        if is_known {
            self.taken.get_or_insert((number, 0)).1 += 1;
        }
        for team in line.teams.iter().flatten() {
            let of = lower(&team.name).ok_or("a team's `name` is missing")?;
            if !self.book.teams.contains(&of) {
                return Err(format!("team `{of}` is neither here nor in a line before"));
            }
            for channel in team.channels.iter().flatten() {
                let name = lower(&channel.name).ok_or("a channel's `name` is missing")?;
                if !self.book.channels.contains(&channel_key(&of, &name)) {
                    return Err(format!("channel `{name}` of team `{of}` is neither here nor in a line before"));
                }
            }
        }
        self.picture(number, &line.profile_image)?;
        self.count("user", 1);
        Ok(())
    }

    fn bot(&mut self, number: u64, line: &BotLine) -> Wrong {
        let name = lower(&line.username).ok_or("`username` is missing")?;
        rule(crate::bots::check(
            line.display_name.as_deref().unwrap_or(""),
            line.description.as_deref().unwrap_or(""),
            &name,
        ))?;
        required(&line.owner, "owner")?;
        self.give(number, "user", &name)?;
        self.book.users.insert(name);
        self.picture(number, &line.profile_image)?;
        self.count("bot", 1);
        Ok(())
    }

    fn post(&mut self, number: u64, line: &PostLine) -> Wrong {
        let team = lower(&line.team).ok_or("`team` is missing")?;
        let name = lower(&line.channel).ok_or("`channel` is missing")?;
        if !self.book.channels.contains(&channel_key(&team, &name)) {
            return Err(format!("channel `{name}` of team `{team}` is neither here nor in a line before"));
        }
        self.thread(number, line)?;
        self.count("post", 1);
        Ok(())
    }

    fn direct_post(&mut self, number: u64, line: &PostLine) -> Wrong {
        let members: Vec<&str> = line.channel_members.iter().flatten().map(String::as_str).collect();
        self.members(&members)?;
        self.thread(number, line)?;
        self.count("direct_post", 1);
        Ok(())
    }

    fn members(&self, names: &[&str]) -> Wrong {
        if !GROUP_MEMBERS.contains(&names.len()) {
            return Err(format!("a direct or group channel has 2 to 8 members, not {}", names.len()));
        }
        names.iter().try_for_each(|name| self.require_user(&Some((*name).to_owned()), "member"))
    }

    fn direct(&mut self, line: &DirectLine) -> Wrong {
        let names = line.names();
        self.members(&names)?;
        for name in line.favorited_by.iter().chain(&line.shown_by).flatten() {
            if !names.contains(&name.as_str()) {
                return Err(format!("`{name}` is no member of the channel"));
            }
        }
        let mut row = blank_channel(random_id(), 0, "G", "x");
        row.channel.header = line.header.clone().unwrap_or_default();
        rule(check_channel(&row.channel))?;
        self.count("direct_channel", 1);
        Ok(())
    }

    /// A post with its replies.
    fn thread(&mut self, number: u64, line: &PostLine) -> Wrong {
        self.words(number, line)?;
        for (i, reply) in line.replies.iter().flatten().enumerate() {
            if reply.replies.as_ref().is_some_and(|replies| !replies.is_empty()) {
                return Err(format!("reply {} has replies itself", i + 1));
            }
            self.words(number, reply).map_err(|text| format!("reply {}: {text}", i + 1))?;
        }
        for follower in line.thread_followers.iter().flatten() {
            self.require_user(&follower.user, "thread_followers.user")?;
        }
        self.count("reply", line.replies.iter().flatten().count());
        Ok(())
    }

    fn words(&mut self, number: u64, line: &PostLine) -> Wrong {
        self.require_user(&line.user, "user")?;
        let message = line.message.as_ref().ok_or("`message` is missing")?;
        rule(self.core.0.check_message(message))?;
        let created = line.create_at.filter(|at| *at > 0).ok_or("`create_at` is missing or not above 0")?;
        if line.kind.as_ref().is_some_and(|kind| kind.chars().count() > KIND_RUNES_MAX) {
            return Err(format!("`type` has more than {KIND_RUNES_MAX} characters"));
        }
        let props = line.props.as_ref().map(check_props).transpose();
        let props = props.map_err(|e| format!("{} ({})", e.message, e.id))?.unwrap_or_default();
        let names = line.attachments.iter().flatten().filter_map(|attachment| attachment.path.as_deref());
        rule(check_weight(message, &props, &hashtags(message), names))?;
        for flagger in line.flagged_by.iter().flatten() {
            self.require_user(&Some(flagger.clone()), "flagged_by")?;
        }
        for reaction in line.reactions.iter().flatten() {
            self.require_user(&reaction.user, "reactions.user")?;
            let name = required(&reaction.emoji_name, "reactions.emoji_name")?;
            rule(check_emoji(name)).map_err(|_| format!("`{name}` is no name of an emoji"))?;
            if reaction.create_at.is_none_or(|at| at < created) {
                return Err("a reaction's `create_at` is missing or before its post".to_owned());
            }
        }
        self.count("reaction", line.reactions.iter().flatten().count());
        let attachments = line.attachments.as_deref().unwrap_or_default();
        if attachments.len() > ATTACHMENTS_MAX {
            return Err(format!("a post has at most {ATTACHMENTS_MAX} attachments"));
        }
        for attachment in attachments {
            let Some(path) = attachment.path.as_ref().filter(|path| !path.is_empty()) else { continue };
            let max = self.core.settings().max_file_bytes;
            match self.archive.find(path) {
                Found::Outside => return Err(format!("the attachment `{path}` leads out of the archive")),
                Found::At(_, size) if size > max => {
                    return Err(format!("the attachment `{path}` has {size} bytes; {max} are permitted"));
                }
                Found::At(_, size) => {
                    self.checked.attachment_bytes += size;
                    self.count("attachment", 1);
                }
                Found::Nowhere => {
                    self.checked.warnings.add(
                        number,
                        format!("the attachment `{path}` is not in the archive; its post comes without it"),
                    );
                }
            }
        }
        Ok(())
    }

    fn emoji(&mut self, number: u64, line: &EmojiLine) -> Wrong {
        let name = required(&line.name, "name")?;
        let path = required(&line.image, "image")?;
        if crate::emoji::is_system(name) {
            self.checked
                .warnings
                .add(number, format!("the emoji `{name}` is one that every client has; it is left out"));
            return Ok(());
        }
        rule(crate::emoji::check_name(name))?;
        self.give(number, "emoji", name)?;
        match self.archive.find(path) {
            Found::Outside => return Err(format!("the picture `{path}` leads out of the archive")),
            Found::Nowhere => {
                self.checked
                    .warnings
                    .add(number, format!("the picture of `{name}` is not in the archive; the emoji is left out"));
            }
            Found::At(index, _) => {
                let mut image = Vec::new();
                let max = model::event::EmojiState::IMAGE_BYTES_MAX as u64;
                let read = self.archive.open_entry(index, max).map_err(|e| e.to_string());
                read?.read_to_end(&mut image).map_err(|e| format!("the picture `{path}` could not be read: {e}"))?;
                if crate::images::emoji(&image).is_err() {
                    return Err(format!("the picture `{path}` is no PNG, JPEG or GIF that an emoji can be made of"));
                }
            }
        }
        self.count("emoji", 1);
        Ok(())
    }

    fn picture(&mut self, number: u64, path: &Option<String>) -> Wrong {
        let Some(path) = path.as_ref().filter(|path| !path.is_empty()) else { return Ok(()) };
        match self.archive.find(path) {
            Found::Outside => Err(format!("the picture `{path}` leads out of the archive")),
            Found::At(..) => Ok(()),
            Found::Nowhere => {
                self.checked
                    .warnings
                    .add(number, format!("the picture `{path}` is not in the archive; it is left out"));
                Ok(())
            }
        }
    }
}
