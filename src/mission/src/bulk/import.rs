//! Carrying lines out.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::ops::ControlFlow;
use std::path::Path;

use model::{Id, Precedence};
use rusqlite::{Connection, params};

use super::archive::{Archive, Found};
use super::check::{check, lower, unusable};
use super::line::{
    ChannelLine, DirectLine, EmojiLine, Line, Lines, Marks, PostLine, ReactionLine, Subject, TeamLine, UserLine,
};
use super::names::{self, Named, channel_key, is_made, note};
use super::people::{mark, set_preference};
use super::{BulkError, BulkImported, BulkPhase, BulkProgress, Watch, tally};
use crate::channels::{blank_channel, channel_row_by_id, check_channel, open_direct, open_group};
use crate::core::{Core, Tx};
use crate::error::{AppError, AppResult};
use crate::files::{Kept, base_name, put_file};
use crate::posts::{check_props, hashtags, is_join_leave};
use crate::rows::{all, count, exists, first_id, get, run};
use crate::teams::{OFF_TOPIC, TOWN_SQUARE, blank_team, check_team};
use crate::types::{Channel, Reaction};
use crate::users::hash_password;

/// Lines in one transaction, by number and by size. Others who write wait for as long as one takes.
const BATCH_LINES: usize = 200;
const BATCH_BYTES: u64 = 4 * 1024 * 1024;

/// Channels that every team has, with what they are called in the beginning.
const STANDARD: [(&str, &str); 2] = [(TOWN_SQUARE, "Town Square"), (OFF_TOPIC, "Off-Topic")];

/// How an import is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImportOptions {
    /// Channels that the import makes, and what is in them, never leave this node: now and later.
    pub stay_here: bool,
}

/// What a line needs that must not be made inside a transaction.
#[derive(Clone, Debug, Default)]
pub(crate) struct Prepared {
    /// Attachments of the post and of each of its replies.
    files: Vec<Vec<Kept>>,
    /// Hash of the password.
    pub(crate) password: Option<String>,
    /// Picture of a user or bot, cut to size, or of an emoji.
    pub(crate) picture: Option<Vec<u8>>,
}

/// A line with its number, and what was made for it.
struct Waiting {
    number: u64,
    line: Line,
    prepared: Prepared,
}

/// New messages of a channel by their times.
#[derive(Default)]
struct Fresh {
    all: Vec<i64>,
    roots: Vec<i64>,
    last: i64,
    last_root: i64,
}

pub(crate) struct Importer<'a> {
    core: &'a Core,
    watch: Watch<'a>,
    progress: BulkProgress,
    /// The watcher said so.
    is_stopped: bool,
    archive: Archive,
    options: ImportOptions,
    users: BTreeMap<String, Id>,
    teams: BTreeMap<String, Id>,
    /// By [`channel_key`].
    channels: BTreeMap<String, Channel>,
    /// The last post before this import began, by the store's own count.
    before: i64,
    /// The line that is being carried out.
    number: u64,
    /// Of the present transaction.
    pub(crate) done: BulkImported,
    fresh: BTreeMap<Id, Fresh>,
}

impl Core {
    /// Imports an archive, after looking at all of it. Other work goes on between its transactions.
    ///
    /// # Errors
    /// See [`BulkError`]: whatever it says is imported, is; the same archive again goes on from there.
    pub fn bulk_import(
        &self,
        file: &Path,
        options: ImportOptions,
        watch: Watch<'_>,
    ) -> Result<BulkImported, BulkError> {
        let mut archive = Archive::open(file).map_err(|e| unusable(file, &e))?;
        let checked = check(self, file, &mut archive, &mut *watch)?;
        if checked.errors.count > 0 {
            return Err(BulkError::Refused(Box::new(checked)));
        }
        let total_bytes = archive.lines_bytes + checked.attachment_bytes;
        let mut importer = Importer {
            core: self,
            watch,
            progress: BulkProgress::default(),
            is_stopped: false,
            archive: archive.clone(),
            options,
            users: BTreeMap::new(),
            teams: BTreeMap::new(),
            channels: BTreeMap::new(),
            before: self
                .read(|db| count(db, "SELECT coalesce(max(rowid), 0) FROM posts", []).map_err(AppError::from))?,
            number: 0,
            done: BulkImported::default(),
            fresh: BTreeMap::new(),
        };
        let mut sum = BulkImported { checked, ..BulkImported::default() };
        let mut lines = Lines::new(archive.lines().map_err(|e| unusable(file, &e))?);
        let (mut batch, mut from, mut file_bytes) = (Vec::new(), 0, 0);
        loop {
            let unread = |e: super::line::LineError, line| BulkError::Line { line, why: e.to_string() };
            let line = lines.next().map_err(|e| unread(e, lines.number))?;
            let is_end = line.is_none();
            batch.extend(line.map(|line| (lines.number, line)));
            if !is_end && batch.len() < BATCH_LINES && lines.bytes - from < BATCH_BYTES {
                continue;
            }
            let Some((first, _)) = batch.first() else { break };
            let first = *first;
            importer.progress = BulkProgress {
                phase: BulkPhase::Importing,
                lines: first - 1,
                done_bytes: from + file_bytes,
                total_bytes,
            };
            if importer.ask_to_go_on().is_err() {
                return Err(BulkError::Stopped { line: first });
            }
            if !self.space().admits(Precedence::Deferred) || !self.space().admits_files() {
                return Err(BulkError::NoRoom { line: first });
            }
            file_bytes += importer.batch(std::mem::take(&mut batch), &mut sum)?;
            from = lines.bytes;
            if is_end {
                break;
            }
        }
        Ok(sum)
    }
}

fn add_all(sum: &mut BTreeMap<String, u64>, part: &BTreeMap<String, u64>) {
    for (kind, n) in part {
        tally(sum, kind, *n);
    }
}

fn join(sum: &mut BulkImported, part: &BulkImported) {
    add_all(&mut sum.added, &part.added);
    add_all(&mut sum.changed, &part.changed);
    sum.without_password += part.without_password;
    sum.warnings.count += part.warnings.count;
    let room = super::FINDINGS_MAX.saturating_sub(sum.warnings.first.len());
    sum.warnings.first.extend(part.warnings.first.iter().take(room).cloned());
}

impl Importer<'_> {
    /// Carries a batch out, or as much of it as goes; the bytes of its attachments.
    fn batch(&mut self, batch: Vec<(u64, Line)>, sum: &mut BulkImported) -> Result<u64, BulkError> {
        let mut bytes = 0;
        let mut waiting = Vec::with_capacity(batch.len());
        let mut failed = None;
        for (number, line) in batch {
            match self.prepare(&line, &mut bytes) {
                Ok(prepared) => waiting.push(Waiting { number, line, prepared }),
                Err(e) => {
                    failed = Some(self.failure(number, &e));
                    break;
                }
            }
        }
        if let Err(e) = self.commit(&waiting, sum) {
            // The lines before the one that failed were right: they go again without it.
            let failure = self.failure(self.number, &e);
            waiting.retain(|line| line.number < self.number);
            self.commit(&waiting, sum)?;
            return Err(failure);
        }
        failed.map_or(Ok(bytes), Err)
    }

    /// Fails when the watcher says so.
    fn ask_to_go_on(&mut self) -> AppResult<()> {
        self.is_stopped |= (self.watch)(&self.progress) == ControlFlow::Break(());
        match self.is_stopped {
            false => Ok(()),
            true => Err(AppError::new("bulkImport", "holdfast.bulk.stopped.app_error", "It was stopped.", 409)),
        }
    }

    fn failure(&self, line: u64, e: &AppError) -> BulkError {
        match e.status_code {
            _ if self.is_stopped => BulkError::Stopped { line },
            507 => BulkError::NoRoom { line },
            _ => {
                let why = format!("{} {}", e.message, e.detailed_error);
                BulkError::Line { line, why: super::cut(why.trim().to_owned()) }
            }
        }
    }

    fn commit(&mut self, waiting: &[Waiting], sum: &mut BulkImported) -> AppResult<()> {
        self.done = BulkImported::default();
        self.fresh.clear();
        let core = self.core.clone();
        let result = core.write(|tx| {
            tx.is_history = true;
            for Waiting { number, line, prepared } in waiting {
                self.number = *number;
                self.carry_out(tx, line, prepared)?;
            }
            self.count_fresh(tx)
        });
        if result.is_err() {
            // They may name what was not committed.
            self.users.clear();
            self.teams.clear();
            self.channels.clear();
            return result;
        }
        join(sum, &self.done);
        Ok(())
    }

    /// Makes what must not be made inside a transaction: attachments durable, passwords hashed, pictures small.
    fn prepare(&mut self, line: &Line, bytes: &mut u64) -> AppResult<Prepared> {
        let mut prepared = Prepared::default();
        match subject(line)? {
            Subject::Version
            | Subject::PassedOver
            | Subject::Team(_)
            | Subject::Channel(_)
            | Subject::DirectChannel(_) => {}
            Subject::User(user) => self.prepare_user(user, &mut prepared)?,
            Subject::Bot(bot) => prepared.picture = self.picture(bot.profile_image.as_ref())?,
            Subject::Emoji(emoji) => {
                let max = model::event::EmojiState::IMAGE_BYTES_MAX as u64;
                let image = self.read_entry(emoji.image.as_deref(), max)?;
                prepared.picture = image.and_then(|image| crate::images::emoji(&image).ok());
            }
            Subject::Post(post) | Subject::DirectPost(post) => self.prepare_thread(post, &mut prepared, bytes)?,
        }
        Ok(prepared)
    }

    fn prepare_user(&mut self, user: &UserLine, prepared: &mut Prepared) -> AppResult<()> {
        let name = lower(&user.username).unwrap_or_default();
        let is_new = self.core.read(|db| self.look_up_user(db, &name))?.is_none();
        if let Some(password) = user.password.as_ref().filter(|_| is_new) {
            prepared.password = Some(hash_password(password)?);
        }
        prepared.picture = self.picture(user.profile_image.as_ref().filter(|_| is_new))?;
        Ok(())
    }

    fn prepare_thread(&mut self, post: &PostLine, prepared: &mut Prepared, bytes: &mut u64) -> AppResult<()> {
        for part in post.each() {
            let attachments = part.attachments.as_deref().unwrap_or_default();
            let is_here = !attachments.is_empty() && self.is_here(post, part)?;
            let mut files = Vec::new();
            for path in attachments.iter().filter_map(|a| a.path.as_ref()).filter(|path| !path.is_empty()) {
                if !is_here {
                    self.ask_to_go_on()?;
                    files.extend(self.attachment(path)?);
                }
                if let Found::At(_, size) = self.archive.find(path) {
                    *bytes += size;
                }
            }
            prepared.files.push(files);
        }
        Ok(())
    }

    fn picture(&mut self, path: Option<&String>) -> AppResult<Option<Vec<u8>>> {
        let bytes = self.read_entry(path.map(String::as_str), crate::pictures::BYTES_MAX as u64)?;
        Ok(bytes.and_then(|bytes| crate::pictures::cut(&bytes)))
    }

    fn read_entry(&mut self, path: Option<&str>, max: u64) -> AppResult<Option<Vec<u8>>> {
        let Some(Found::At(index, size)) = path.filter(|p| !p.is_empty()).map(|path| self.archive.find(path)) else {
            return Ok(None);
        };
        if size > max {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        let mut entry = self.archive.open_entry(index, max).map_err(|e| AppError::storage("bulkImport", e))?;
        entry.read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }

    /// Makes the bytes of an attachment durable; `None` for one that is not in the archive.
    fn attachment(&mut self, path: &str) -> AppResult<Option<Kept>> {
        let Found::At(index, _) = self.archive.find(path) else { return Ok(None) };
        self.core.require_room_for_files()?;
        let name = base_name(path).unwrap_or("file").to_owned();
        let max = self.core.settings().max_file_bytes;
        let mut entry = self.archive.open_entry(index, max).map_err(|e| AppError::storage("bulkImport", e))?;
        let mut staged = self.core.stage()?;
        std::io::copy(&mut entry, &mut staged)?;
        self.core.keep_as(&staged.finish()?, name).map(Some)
    }

    /// Was this post, or this reply to it, imported before?
    fn is_here(&self, post: &PostLine, part: &PostLine) -> AppResult<bool> {
        self.core.read(|db| {
            let Some(c) = self.channel_of_post(db, post)? else { return Ok(false) };
            let root_at = post.create_at.unwrap_or(0);
            let Some(root) = self.find(db, c, None, post, root_at)? else { return Ok(false) };
            if std::ptr::eq(post, part) {
                return Ok(true);
            }
            Ok(self.find(db, c, Some(root), part, part.create_at.unwrap_or(0).max(root_at))?.is_some())
        })
    }

    fn channel_of_post(&self, db: &Connection, post: &PostLine) -> AppResult<Option<Id>> {
        if let Some(members) = &post.channel_members {
            let mut ids = Vec::new();
            for name in members {
                ids.extend(self.look_up_user(db, &name.to_lowercase())?);
            }
            let id = crate::core::channel_id_of_name(&crate::channels::name_of_direct(&ids));
            let is_known = exists(db, "SELECT 1 FROM channels WHERE id = ?1", [id.as_str()])?;
            return Ok(is_known.then_some(id));
        }
        let (team, name) = (lower(&post.team).unwrap_or_default(), lower(&post.channel).unwrap_or_default());
        Ok(names::channel(db, &team, &name)?)
    }

    /// The post of this author, time and text in the channel, also where the text was changed, deleted or purged since: what was
    /// taken away here does not come back with an archive. What was edited at the source since is found by author and time alone.
    fn find(&self, db: &Connection, c: Id, root: Option<Id>, line: &PostLine, at: i64) -> AppResult<Option<Id>> {
        let Some(user) = self.look_up_user(db, &lower(&line.user).unwrap_or_default())? else { return Ok(None) };
        let message = line.message.as_deref().unwrap_or("");
        let sql =
            "SELECT id FROM posts p WHERE channel_id = ?1 AND create_at = ?2 AND original_id = '' AND user_id = ?3
            AND root_id = ?4 AND (message = ?5 OR id IN (SELECT id FROM purged)
                OR EXISTS (SELECT 1 FROM posts h WHERE h.original_id = p.id AND h.original_id <> '' AND h.message = ?5))
            ORDER BY id LIMIT 1";
        let root = root.map(|root| root.to_string()).unwrap_or_default();
        let found = get(db, sql, params![c.as_str(), at, user.as_str(), root, message], first_id)?;
        if found.is_some() || line.edit_at.unwrap_or(0) <= 0 {
            return Ok(found);
        }
        // Its text was another when it came; one that this import brought is another post, which this one only met in its millisecond.
        let sql = "SELECT id FROM posts WHERE channel_id = ?1 AND create_at = ?2 AND original_id = '' AND user_id = ?3
            AND root_id = ?4 AND rowid <= ?5 LIMIT 2";
        match all(db, sql, params![c.as_str(), at, user.as_str(), root, self.before], first_id)?[..] {
            [only] => Ok(Some(only)),
            _ => Ok(None),
        }
    }

    pub(crate) fn look_up_user(&self, db: &Connection, name: &str) -> AppResult<Option<Id>> {
        if let Some(known) = self.users.get(name) {
            return Ok(Some(*known));
        }
        Ok(names::user(db, name)?)
    }

    fn user_id(&mut self, db: &Connection, name: &Option<String>) -> AppResult<Id> {
        let name = lower(name).unwrap_or_default();
        let gone = || AppError::bad("bulkImport", "holdfast.bulk.user.app_error", format!("`{name}` is gone since."));
        let id = self.look_up_user(db, &name)?.ok_or_else(gone)?;
        self.users.insert(name, id);
        Ok(id)
    }

    pub(crate) fn team_id(&mut self, db: &Connection, name: &str) -> AppResult<Option<Id>> {
        if let Some(known) = self.teams.get(name) {
            return Ok(Some(*known));
        }
        let found = names::team(db, name)?;
        self.teams.extend(found.map(|id| (name.to_owned(), id)));
        Ok(found)
    }

    pub(crate) fn channel_of(&mut self, db: &Connection, team: &str, name: &str) -> AppResult<Option<Channel>> {
        let key = channel_key(team, name);
        if let Some(known) = self.channels.get(&key) {
            return Ok(Some(known.clone()));
        }
        let Some(id) = names::channel(db, team, name)? else { return Ok(None) };
        let found = channel_row_by_id(db, id)?.map(|row| row.channel);
        self.channels.extend(found.clone().map(|c| (key, c)));
        Ok(found)
    }

    pub(crate) fn added(&mut self, kind: &str) {
        tally(&mut self.done.added, kind, 1);
    }

    pub(crate) fn changed(&mut self, kind: &str) {
        tally(&mut self.done.changed, kind, 1);
    }

    pub(crate) fn warn(&mut self, text: String) {
        self.done.warnings.add(self.number, text);
    }

    fn carry_out(&mut self, tx: &mut Tx<'_>, line: &Line, prepared: &Prepared) -> AppResult<()> {
        match subject(line)? {
            Subject::Version | Subject::PassedOver => Ok(()),
            Subject::Team(team) => self.team(tx, team),
            Subject::Channel(channel) => self.channel(tx, channel),
            Subject::User(user) => self.user(tx, user, prepared),
            Subject::Bot(bot) => self.bot(tx, bot, prepared),
            Subject::Post(post) => {
                let (team, name) = (lower(&post.team).unwrap_or_default(), lower(&post.channel).unwrap_or_default());
                let c = self.channel_of(&tx.db, &team, &name)?;
                let c = c.ok_or_else(|| AppError::not_found("bulkImport", "app.channel.get.existing.app_error"))?;
                self.thread(tx, &c, post, prepared)
            }
            Subject::DirectChannel(direct) => self.direct(tx, direct),
            Subject::DirectPost(post) => {
                let c = self.direct_of(tx, post.channel_members.as_deref().unwrap_or_default())?.0;
                self.thread(tx, &c, post, prepared)
            }
            Subject::Emoji(emoji) => self.emoji(tx, emoji, prepared),
        }
    }

    /// A team that is here stays as it is: who may come in is not the archive's to say.
    fn team(&mut self, tx: &mut Tx<'_>, line: &TeamLine) -> AppResult<()> {
        let name = lower(&line.name).unwrap_or_default();
        if let Some(known) = self.team_id(&tx.db, &name)? {
            note(tx, Named::Team, &name, known, false)?;
            return Ok(());
        }
        let mut row = blank_team(tx.mint(), tx.now, &name);
        fill_team(&mut row.team, line);
        check_team(&row.team)?;
        tx.save_team(&mut row, None)?;
        note(tx, Named::Team, &name, row.team.id, true)?;
        for (standard, display) in STANDARD {
            self.new_channel(tx, (row.team.id, &name), "O", standard, |c| display.clone_into(&mut c.display_name))?;
        }
        self.added("team");
        Ok(())
    }

    fn new_channel(
        &mut self,
        tx: &mut Tx<'_>,
        (team, of): (Id, &str),
        kind: &str,
        name: &str,
        fill: impl FnOnce(&mut Channel),
    ) -> AppResult<()> {
        let mut row = blank_channel(tx.mint(), tx.now, kind, name);
        row.local = self.options.stay_here;
        let c = &mut row.channel;
        c.team_id = Some(team);
        (c.last_post_at, c.last_root_post_at) = (0, 0);
        fill(c);
        check_channel(c)?;
        tx.save_channel(&mut row, None)?;
        note(tx, Named::Channel, &channel_key(of, name), row.channel.id, true)?;
        Ok(())
    }

    /// A channel that is here stays as it is. Those that came with their team a moment ago are filled, but stay open: everybody is
    /// in them.
    fn channel(&mut self, tx: &mut Tx<'_>, line: &ChannelLine) -> AppResult<()> {
        let gone = || AppError::not_found("bulkImport", "app.team.get.find.app_error");
        let of = lower(&line.team).unwrap_or_default();
        let team = self.team_id(&tx.db, &of)?.ok_or_else(gone)?;
        let name = lower(&line.name).unwrap_or_default();
        let kind = line.kind.as_deref().unwrap_or("O");
        let fill = |c: &mut Channel| {
            let display = line.display_name.as_ref().filter(|text| !text.is_empty()).unwrap_or(&name);
            c.display_name.clone_from(display);
            for (field, value) in [(&mut c.header, &line.header), (&mut c.purpose, &line.purpose)] {
                if let Some(value) = value {
                    field.clone_from(value);
                }
            }
        };
        let known = self.channel_of(&tx.db, &of, &name)?;
        let row = known.map(|c| channel_row_by_id(&tx.db, c.id)).transpose()?.flatten();
        let Some(mut row) = row else {
            let archived = line.deleted_at.filter(|at| *at > 0).unwrap_or(0);
            self.new_channel(tx, (team, &of), kind, &name, |c| {
                fill(c);
                c.delete_at = archived;
            })?;
            self.added("channel");
            return Ok(());
        };
        note(tx, Named::Channel, &channel_key(&of, &name), row.channel.id, false)?;
        let is_untouched = row.channel.update_at == row.channel.create_at;
        let is_standard = STANDARD.iter().any(|(standard, _)| *standard == name);
        if !is_standard || !is_untouched || !is_made(&tx.db, Named::Channel, row.channel.id)? {
            return Ok(());
        }
        let before = row.clone();
        fill(&mut row.channel);
        check_channel(&row.channel)?;
        if row.channel != before.channel {
            row.channel.update_at = tx.now.max(row.channel.update_at + 1);
            tx.save_channel(&mut row, Some(before.version))?;
            self.channels.clear();
            self.changed("channel");
        }
        Ok(())
    }

    /// The channel of these members, and whether it is new.
    fn direct_of(&mut self, tx: &mut Tx<'_>, names: &[String]) -> AppResult<(Channel, bool)> {
        let mut ids = Vec::with_capacity(names.len());
        for name in names {
            ids.push(self.user_id(&tx.db, &Some(name.clone()))?);
        }
        let Some(first) = ids.first().copied() else {
            return Err(AppError::body_param("bulkImport", "channel_members"));
        };
        let id = crate::core::channel_id_of_name(&crate::channels::name_of_direct(&ids));
        let is_new = !exists(&tx.db, "SELECT 1 FROM channels WHERE id = ?1", [id.as_str()])?;
        let stays = self.options.stay_here;
        let c = match ids[..] {
            [a, b] => open_direct(tx, a, b, stays)?,
            _ => open_group(tx, &ids, first, stays)?,
        };
        if is_new {
            let sql = "UPDATE channels SET last_post_at = 0, last_root_post_at = 0 WHERE id = ?1";
            run(&tx.db, sql, [c.id.as_str()])?;
            for user in &ids {
                mark(tx, c.id, *user, &Marks::default(), None)?;
            }
            self.added("direct channel");
        }
        Ok((c, is_new))
    }

    fn direct(&mut self, tx: &mut Tx<'_>, line: &DirectLine) -> AppResult<()> {
        let names: Vec<String> = line.names().iter().map(|name| (*name).to_owned()).collect();
        let (c, is_new) = self.direct_of(tx, &names)?;
        if !is_new {
            return Ok(());
        }
        for participant in line.participants.iter().flatten() {
            let user = self.user_id(&tx.db, &participant.username)?;
            // The original leaves zeros out here: nothing said of when means never.
            let marks = Marks { last_viewed_at: participant.marks.last_viewed_at.or(Some(0)), ..participant.marks };
            mark(tx, c.id, user, &marks, participant.notify_props.as_ref())?;
        }
        for name in line.shown_by.iter().flatten() {
            let user = self.user_id(&tx.db, &Some(name.clone()))?;
            if c.kind == "G" {
                set_preference(tx, user, "group_channel_show", c.id.as_str(), "true")?;
            } else {
                let other = names.iter().find(|other| other.to_lowercase() != name.to_lowercase());
                let other = self.user_id(&tx.db, &Some(other.unwrap_or(name).clone()))?;
                set_preference(tx, user, "direct_channel_show", other.as_str(), "true")?;
            }
        }
        for name in line.favorited_by.iter().flatten() {
            let user = self.user_id(&tx.db, &Some(name.clone()))?;
            let sql = "SELECT team_id FROM team_members WHERE user_id = ?1 AND delete_at = 0";
            for team in all(&tx.db, sql, [user.as_str()], first_id)? {
                crate::sidebar::favor(tx, user, team, c.id)?;
            }
        }
        if let Some(header) = line.header.as_ref().filter(|header| !header.is_empty()) {
            let Some(mut row) = crate::channels::channel_row_by_id(&tx.db, c.id)? else { return Ok(()) };
            let before = row.version;
            row.channel.header.clone_from(header);
            tx.save_channel(&mut row, Some(before))?;
        }
        Ok(())
    }

    fn thread(&mut self, tx: &mut Tx<'_>, c: &Channel, line: &PostLine, prepared: &Prepared) -> AppResult<()> {
        let at = line.create_at.unwrap_or(0);
        let none = Vec::new();
        let mut files = prepared.files.iter();
        let mut next = || files.next().unwrap_or(&none);
        let root = self.words(tx, c, None, line, at, next())?;
        for reply in line.replies.iter().flatten() {
            self.words(tx, c, Some(root), reply, reply.create_at.unwrap_or(0).max(at), next())?;
        }
        for follower in line.thread_followers.iter().flatten() {
            let user = self.user_id(&tx.db, &follower.user)?;
            tx.follow_as_told(
                user,
                root,
                follower.last_viewed.unwrap_or(0).max(0),
                follower.unread_mentions.unwrap_or(0).max(0),
            )?;
        }
        Ok(())
    }

    /// One post or reply with its reactions, attachments and flags; its id, also where it was here before.
    fn words(
        &mut self,
        tx: &mut Tx<'_>,
        c: &Channel,
        root: Option<Id>,
        line: &PostLine,
        at: i64,
        files: &[Kept],
    ) -> AppResult<Id> {
        let user = self.user_id(&tx.db, &line.user)?;
        let post = match self.find(&tx.db, c.id, root, line, at)? {
            Some(known) => known,
            None => self.new_words(tx, c, root, user, line, at, files)?,
        };
        for name in line.flagged_by.iter().flatten() {
            let flagger = self.user_id(&tx.db, &Some(name.clone()))?;
            set_preference(tx, flagger, "flagged_post", post.as_str(), "true")?;
        }
        for reaction in line.reactions.iter().flatten() {
            self.reaction(tx, c, post, reaction)?;
        }
        Ok(post)
    }

    #[allow(clippy::too_many_arguments, reason = "what a post is made of")]
    fn new_words(
        &mut self,
        tx: &mut Tx<'_>,
        c: &Channel,
        root: Option<Id>,
        user: Id,
        line: &PostLine,
        at: i64,
        files: &[Kept],
    ) -> AppResult<Id> {
        let mut row = tx.blank_post(c.id, user, at);
        row.root_id = root;
        row.message = line.message.clone().unwrap_or_default();
        row.kind = line.kind.clone().unwrap_or_default();
        row.props = line.props.as_ref().map_or(Ok("{}".to_owned()), check_props)?;
        row.hashtags = hashtags(&row.message);
        row.is_pinned = line.is_pinned == Some(true);
        row.edit_at = line.edit_at.unwrap_or(0).max(0);
        row.update_at = at.max(row.edit_at);
        // History is read as far as the lines say, whenever it comes here.
        row.shown_at = at;
        for file in files {
            let mut info = file.info(tx.mint(), user, c.id, at);
            info.post_id = Some(row.id);
            put_file(&tx.db, &info, file.hash())?;
            row.file_ids.push(info.id);
            self.added("attachment");
        }
        tx.save_post(&mut row, None)?;
        let ids = row.file_ids.clone();
        tx.emit_files(&row, &ids)?;
        if let Some(root) = root {
            tx.grow_thread(c, &row, root)?;
            tx.bump(root, row.state_at)?;
        }
        let fresh = self.fresh.entry(c.id).or_default();
        fresh.last = fresh.last.max(at);
        if root.is_none() {
            fresh.last_root = fresh.last_root.max(at);
        }
        if !is_join_leave(&row.kind) {
            fresh.all.push(at);
            if root.is_none() {
                fresh.roots.push(at);
            }
        }
        self.added(if root.is_some() { "reply" } else { "post" });
        Ok(row.id)
    }

    fn reaction(&mut self, tx: &mut Tx<'_>, c: &Channel, post: Id, line: &ReactionLine) -> AppResult<()> {
        let user = self.user_id(&tx.db, &line.user)?;
        let emoji_name = line.emoji_name.clone().unwrap_or_default();
        let at = line.create_at.unwrap_or(0);
        // One that was withdrawn here stays withdrawn.
        let sql = "SELECT 1 FROM reactions WHERE post_id = ?1 AND user_id = ?2 AND emoji_name = ?3";
        if exists(&tx.db, sql, [post.as_str(), user.as_str(), &emoji_name])? {
            return Ok(());
        }
        let sql = "SELECT 1 FROM posts WHERE id = ?1 AND delete_at = 0";
        if !exists(&tx.db, sql, [post.as_str()])? {
            return Ok(());
        }
        let reaction = Reaction {
            user_id: user,
            post_id: post,
            emoji_name,
            create_at: at,
            update_at: at,
            delete_at: 0,
            remote_id: String::new(),
            channel_id: c.id,
        };
        tx.write_reaction(&reaction, at)?;
        self.added("reaction");
        Ok(())
    }

    fn emoji(&mut self, tx: &mut Tx<'_>, line: &EmojiLine, prepared: &Prepared) -> AppResult<()> {
        let (Some(name), Some(image)) = (&line.name, &prepared.picture) else { return Ok(()) };
        if crate::emoji::is_system(name)
            || exists(&tx.db, "SELECT 1 FROM emoji WHERE name = ?1 AND delete_at = 0", [name])?
        {
            return Ok(());
        }
        // The format does not say whose it is.
        let sql = "SELECT id FROM users WHERE roles LIKE '%system_admin%' AND local = 0 ORDER BY delete_at > 0, create_at, id LIMIT 1";
        let Some(owner) = get(&tx.db, sql, [], first_id)? else {
            self.warn(format!("the emoji `{name}` is left out: there is no administrator whose it could be"));
            return Ok(());
        };
        tx.add_emoji(owner, name, image.clone())?;
        self.added("emoji");
        Ok(())
    }

    /// Counts the new messages into their channels, and as read for whoever had looked later than they were written.
    fn count_fresh(&mut self, tx: &Tx<'_>) -> AppResult<()> {
        for (channel, fresh) in std::mem::take(&mut self.fresh) {
            run(
                &tx.db,
                "UPDATE channels SET total_msg_count = total_msg_count + ?2, total_msg_count_root = total_msg_count_root + ?3,
                    last_post_at = max(last_post_at, ?4), last_root_post_at = max(last_root_post_at, ?5) WHERE id = ?1",
                params![
                    channel.as_str(),
                    fresh.all.len() as i64,
                    fresh.roots.len() as i64,
                    fresh.last,
                    fresh.last_root
                ],
            )?;
            let list = |times: &[i64]| serde_json::to_string(times).expect("numbers become JSON");
            run(
                &tx.db,
                "UPDATE channel_members SET
                    msg_count = msg_count + CASE WHEN last_viewed_at >= ?2 THEN ?3
                        ELSE (SELECT count(*) FROM json_each(?4) WHERE value <= last_viewed_at) END,
                    msg_count_root = msg_count_root + CASE WHEN last_viewed_at >= ?2 THEN ?5
                        ELSE (SELECT count(*) FROM json_each(?6) WHERE value <= last_viewed_at) END
                 WHERE channel_id = ?1 AND delete_at = 0",
                params![
                    channel.as_str(),
                    fresh.last,
                    fresh.all.len() as i64,
                    list(&fresh.all),
                    fresh.roots.len() as i64,
                    list(&fresh.roots)
                ],
            )?;
        }
        Ok(())
    }
}

/// What a line is about; the look before found that it can be told.
fn subject(line: &Line) -> AppResult<Subject<'_>> {
    line.subject().map_err(|why| AppError::bad("bulkImport", "holdfast.bulk.line.app_error", why))
}

/// Fills a team with what the line says.
pub(crate) fn fill_team(t: &mut crate::types::Team, line: &TeamLine) {
    for (field, value) in
        [(&mut t.display_name, &line.display_name), (&mut t.description, &line.description), (&mut t.kind, &line.kind)]
    {
        if let Some(value) = value {
            field.clone_from(value);
        }
    }
    if let Some(open) = line.allow_open_invite {
        t.allow_open_invite = open;
    }
}
