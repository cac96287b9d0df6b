//! Applying what other nodes wrote.
//!
//! ```text
//!  Incoming --version rule--> rows + broadcasts --+
//!       `-- impossible --> quarantine row --------+-- one transaction --> ledger of (origin, epoch, outcome)
//! ```
//!
//! Invariants
//! - An entry has its effect and its place in the ledger in the same transaction; asking again changes nothing.
//! - Nothing here writes an outbox row: what came from elsewhere is not sent on.
//! - The higher version wins on every node whatever the order of arrival; `update_at` of a post goes by maximum.
//! - Ids, authors and times are those of the origin. Names that collide are shown with the origin's name added,
//!   and the name as written is kept for the day the other one goes.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use model::event::{
    AcknowledgementState, BookmarkState, ChannelMemberState, ChannelState, EmojiState, FileState, PostState,
    ReactionState, TeamMemberState, TeamState, UserState,
};
use model::{EntryId, Epoch, Event, Id, Kind, NodeId, Outcome, RangeSet, RawIds, Seq, UnixMillis, Version};
use rusqlite::params;

use crate::channels::{blank_channel, channel_row_by_id, direct_name, group_name, member, member_ids};
use crate::core::{Core, StoreError, Tx, channel_id_of_name, random_id, version_of};
use crate::emoji;
use crate::events::Broadcast;
use crate::files::{StagedFile, StagedWriter, put_file};
use crate::posts::{MESSAGE_MAX_BYTES, PROPS_MAX_RUNES, is_join_leave, node_name, post_row_by_id};
use crate::rows::{ChannelRow, PostRow, TeamRow, all, exists, first_id, get, id_array, node, run, text, to_json, user};
use crate::teams::{member_of_team, team_member_ids, team_row_by_id};
use crate::types::{FileInfo, Priority, Reaction, Team};
use crate::users::{new_row, user_row_by_entra, user_row_by_id};

/// Access to replication, from [`Core::replica`].
#[derive(Clone)]
pub struct Replica {
    pub(crate) core: Core,
}

/// One entry of another node.
#[derive(Debug)]
pub struct Incoming {
    /// Its identity, for the ledger.
    pub id: EntryId,
    /// The state.
    pub event: Event,
    /// The bytes, for a file.
    pub content: Option<StagedFile>,
}

/// How an entry ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    /// Its effect is in the store.
    Applied,
    /// It was accounted for before; nothing changed.
    AlreadyAccounted,
    /// Its object was purged before it came; nothing changed.
    Purged,
    /// It can never be applied here and is kept aside.
    Quarantined {
        /// Why.
        reason: String,
    },
}

/// What is accounted for of one epoch of one origin, with one outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerRow {
    /// Whose entries.
    pub origin: NodeId,
    /// Of which numbering.
    pub epoch: Epoch,
    /// How they ended.
    pub outcome: Outcome,
    /// Which.
    pub ranges: RangeSet,
}

/// An entry kept aside.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct QuarantineRow {
    /// Its identity.
    pub id: EntryId,
    /// What it is about.
    pub kind: Kind,
    /// Why it cannot be applied.
    pub reason: String,
    /// When that was.
    pub at: UnixMillis,
    /// Size of the body that is kept.
    pub body_bytes: u64,
}

enum Fail {
    /// The whole call fails and changes nothing.
    Store(StoreError),
    /// This item alone can never be applied.
    Impossible(String),
}

impl From<rusqlite::Error> for Fail {
    fn from(e: rusqlite::Error) -> Self {
        match e.sqlite_error_code() {
            // It is the item that does not fit, and will not the next time: everything else must not wait for it.
            Some(rusqlite::ErrorCode::ConstraintViolation | rusqlite::ErrorCode::TooBig) => {
                Self::Impossible(format!("the store does not hold it: {e}"))
            }
            _ => Self::Store(e.into()),
        }
    }
}

fn impossible<T>(reason: impl Into<String>) -> Result<T, Fail> {
    Err(Fail::Impossible(reason.into()))
}

pub(crate) type Ledger = BTreeMap<(NodeId, Epoch), BTreeMap<Outcome, RangeSet>>;

impl Core {
    /// The side that other nodes' entries come in by.
    pub fn replica(&self) -> Replica {
        Replica { core: self.clone() }
    }
}

impl Replica {
    /// Applies entries in order, in one transaction with their accounting.
    ///
    /// # Errors
    /// When the store fails; then none is applied or accounted for.
    pub fn apply(&self, items: Vec<Incoming>) -> Result<Vec<Applied>, StoreError> {
        self.core.write(|tx| {
            let mut ledger = Ledger::new();
            let mut results = Vec::with_capacity(items.len());
            for item in items {
                let (id, seq) = (item.id, item.id.seq.get());
                let of_epoch = epoch_of(tx, &mut ledger, id.origin, id.epoch)?;
                if of_epoch.values().any(|r| r.contains(seq)) {
                    results.push(Applied::AlreadyAccounted);
                    continue;
                }
                let result = self.apply_one(tx, item)?;
                let outcome = match &result {
                    Applied::Quarantined { .. } => Outcome::Quarantined,
                    Applied::Purged => Outcome::Purged,
                    Applied::Applied | Applied::AlreadyAccounted => Outcome::Applied,
                };
                epoch_of(tx, &mut ledger, id.origin, id.epoch)?.entry(outcome).or_default().insert(seq);
                results.push(result);
            }
            save_ledger(tx, &ledger)?;
            Ok(results)
        })
    }

    fn apply_one(&self, tx: &mut Tx<'_>, item: Incoming) -> Result<Applied, StoreError> {
        let Incoming { id, event, content } = item;
        tx.core.hybrid.observe(event.version().at, UnixMillis(tx.now));
        if tx.is_purged(&event)? {
            return Ok(Applied::Purged);
        }
        tx.db.execute_batch("SAVEPOINT item")?;
        let told = tx.broadcasts.len();
        let result = match &event {
            Event::User(s) => tx.apply_user(s, id.origin),
            Event::Team(s) => tx.apply_team(s, id.origin),
            Event::TeamMember(s) => tx.apply_team_member(s),
            Event::Channel(s) => tx.apply_channel(s, id.origin),
            Event::ChannelMember(s) => tx.apply_channel_member(s),
            Event::Post(s) => tx.apply_post(s, id.origin),
            Event::Reaction(s) => tx.apply_reaction(s),
            Event::File(s) => self.apply_file(tx, s, content.as_ref()),
            Event::Emoji(s) => tx.apply_emoji(s, id.origin),
            Event::Acknowledgement(s) => tx.take_acknowledgement(s),
            Event::Bookmark(s) => tx.take_bookmark(s),
            Event::Purge(_) => impossible("an order to purge is carried out, not applied"),
        };
        match result {
            Ok(()) => {
                tx.db.execute_batch("RELEASE item")?;
                Ok(Applied::Applied)
            }
            Err(Fail::Store(e)) => Err(e),
            Err(Fail::Impossible(reason)) => {
                tx.db.execute_batch("ROLLBACK TO item; RELEASE item")?;
                tx.broadcasts.truncate(told);
                put_aside(tx, id, event.kind(), &reason, &event.encode_with(&mut RawIds))?;
                Ok(Applied::Quarantined { reason })
            }
        }
    }

    fn apply_file(&self, tx: &mut Tx<'_>, s: &FileState, content: Option<&StagedFile>) -> Result<(), Fail> {
        require_remote_channel(tx, s.channel_id)?;
        let Some(content) = content else { return impossible("the file's bytes did not come with it") };
        let right = s.content.as_ref().is_none_or(|m| m.content_hash == content.hash());
        if !right || s.stub.size != content.bytes() {
            return impossible("the file's bytes are not those that its origin described");
        }
        tx.ensure_user(s.user_id)?;
        let hash = self.core.keep(content).map_err(|e| Fail::Store(StoreError(e.to_string())))?;
        put_file(&tx.db, &info_of(&s.stub, s.user_id, s.channel_id, s.post_id), &hash)?;
        if let Some(row) = s.post_id.map(|p| post_row_by_id(&tx.db, p)).transpose()?.flatten() {
            // The post itself is as it was: only its place among the local changes moves, so that
            // clients that poll look again.
            let changed = tx.change(row.update_at);
            run(&tx.db, "UPDATE posts SET changed_at = ?2 WHERE id = ?1", params![row.id.as_str(), changed])?;
            if row.delete_at == 0 {
                tx.tell_post("post_edited", &row)?;
            }
        }
        Ok(())
    }

    /// Keeps aside an entry that cannot even be read as an event, and accounts for it.
    ///
    /// # Errors
    /// When the store fails; then it is neither kept nor accounted for.
    pub fn quarantine(&self, id: EntryId, kind: Kind, reason: &str, body: &[u8]) -> Result<(), StoreError> {
        self.core.write(|tx| {
            let mut ledger = Ledger::new();
            let of_epoch = epoch_of(tx, &mut ledger, id.origin, id.epoch)?;
            if of_epoch.values().any(|r| r.contains(id.seq.get())) {
                return Ok(());
            }
            of_epoch.entry(Outcome::Quarantined).or_default().insert(id.seq.get());
            put_aside(tx, id, kind, reason, body)?;
            Ok::<_, StoreError>(save_ledger(tx, &ledger)?)
        })
    }

    /// Accounts for entries that will never come.
    ///
    /// # Errors
    /// When the store fails; nothing is accounted for.
    pub fn account(&self, origin: NodeId, epoch: Epoch, outcome: Outcome, seqs: &RangeSet) -> Result<(), StoreError> {
        self.core.write(|tx| {
            let mut ledger = Ledger::new();
            let of_epoch = epoch_of(tx, &mut ledger, origin, epoch)?;
            // One outcome per entry: the first stays.
            let fresh = of_epoch.values().fold(seqs.clone(), |left, known| left.difference(known));
            of_epoch.entry(outcome).or_default().union_with(&fresh);
            Ok::<_, StoreError>(save_ledger(tx, &ledger)?)
        })
    }

    /// Everything that is accounted for.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn ledger(&self) -> Result<Vec<LedgerRow>, StoreError> {
        type Raw = (NodeId, u32, u8, Vec<u8>);
        let sql = "SELECT origin, epoch, outcome, ranges FROM received ORDER BY origin, epoch, outcome";
        let raw: Vec<Raw> = self.core.read(|db| {
            all(db, sql, [], |r| Ok((node(r, "origin")?, r.get(1)?, r.get(2)?, r.get(3)?))).map_err(StoreError::from)
        })?;
        raw.into_iter()
            .map(|(origin, epoch, outcome, bytes)| {
                let outcome = Outcome::from_number(outcome)
                    .ok_or_else(|| StoreError(format!("the ledger has an outcome {outcome}")))?;
                let ranges = minicbor::decode(&bytes).map_err(|e| StoreError(format!("the ledger is damaged: {e}")))?;
                Ok(LedgerRow { origin, epoch: Epoch(epoch), outcome, ranges })
            })
            .collect()
    }

    /// How an entry of another node ended here; `None` while it has not.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn outcome(&self, id: EntryId) -> Result<Option<Outcome>, StoreError> {
        let sql = "SELECT outcome, ranges FROM received WHERE origin = ?1 AND epoch = ?2";
        let raw: Vec<(u8, Vec<u8>)> = self.core.read(|db| {
            all(db, sql, params![id.origin.0, id.epoch.0], |r| Ok((r.get(0)?, r.get(1)?))).map_err(StoreError::from)
        })?;
        for (outcome, bytes) in raw {
            let damaged = || StoreError("the ledger of received entries is damaged".to_owned());
            let ranges: RangeSet = minicbor::decode(&bytes).map_err(|_| damaged())?;
            if ranges.contains(id.seq.get()) {
                return Outcome::from_number(outcome).map(Some).ok_or_else(damaged);
            }
        }
        Ok(None)
    }

    /// The entries kept aside, oldest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn quarantine_list(&self) -> Result<Vec<QuarantineRow>, StoreError> {
        let sql =
            "SELECT origin, epoch, seq, kind, reason, at, length(body) AS n FROM quarantine ORDER BY at, origin, seq";
        let rows: Vec<Option<QuarantineRow>> = self.core.read(|db| {
            all(db, sql, [], |r| {
                let seq = Seq::new(r.get::<_, i64>("seq")? as u64);
                let kind = Kind::from_number(r.get("kind")?);
                let (origin, epoch) = (node(r, "origin")?, Epoch(r.get("epoch")?));
                let (reason, at, n) = (r.get("reason")?, UnixMillis(r.get("at")?), r.get::<_, i64>("n")?);
                Ok(seq.zip(kind).map(|(seq, kind)| QuarantineRow {
                    id: EntryId { origin, epoch, seq },
                    kind,
                    reason,
                    at,
                    body_bytes: n as u64,
                }))
            })
            .map_err(StoreError::from)
        })?;
        Ok(rows.into_iter().flatten().collect())
    }

    /// Under which name users know a node.
    ///
    /// # Errors
    /// When the store fails.
    pub fn set_node_name(&self, node: NodeId, name: &str) -> Result<(), StoreError> {
        self.core.write(|tx| {
            let sql = "INSERT INTO node_names (node, name) VALUES (?1, ?2)
                       ON CONFLICT (node) DO UPDATE SET name = excluded.name";
            run(&tx.db, sql, params![node.0, name])?;
            Ok::<_, StoreError>(())
        })
    }

    /// Opens a place for a file's bytes.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn stage_file(&self) -> io::Result<StagedWriter> {
        self.core.stage()
    }

    /// Tells each affected user once about the late posts since the last digest; to how many.
    ///
    /// # Errors
    /// When the store fails; the posts stay due for the next digest.
    pub fn flush_digest(&self) -> Result<u64, StoreError> {
        crate::digest::flush(&self.core)
    }
}

fn put_aside(tx: &Tx<'_>, id: EntryId, kind: Kind, reason: &str, body: &[u8]) -> rusqlite::Result<()> {
    let sql = "INSERT INTO quarantine (origin, epoch, seq, kind, reason, body, at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    let seq = id.seq.get() as i64;
    run(&tx.db, sql, params![id.origin.0, id.epoch.0, seq, kind as u8, reason, body, tx.now])?;
    Ok(())
}

pub(crate) fn epoch_of<'l>(
    tx: &Tx<'_>,
    ledger: &'l mut Ledger,
    origin: NodeId,
    epoch: Epoch,
) -> Result<&'l mut BTreeMap<Outcome, RangeSet>, StoreError> {
    match ledger.entry((origin, epoch)) {
        std::collections::btree_map::Entry::Occupied(known) => Ok(known.into_mut()),
        std::collections::btree_map::Entry::Vacant(place) => {
            let sql = "SELECT outcome, ranges FROM received WHERE origin = ?1 AND epoch = ?2";
            let raw: Vec<(u8, Vec<u8>)> = all(&tx.db, sql, params![origin.0, epoch.0], |r| Ok((r.get(0)?, r.get(1)?)))?;
            let mut sets = BTreeMap::new();
            for (outcome, bytes) in raw {
                let damaged = || StoreError("the ledger of received entries is damaged".to_owned());
                let outcome = Outcome::from_number(outcome).ok_or_else(damaged)?;
                sets.insert(outcome, minicbor::decode(&bytes).map_err(|_| damaged())?);
            }
            Ok(place.insert(sets))
        }
    }
}

pub(crate) fn save_ledger(tx: &Tx<'_>, ledger: &Ledger) -> rusqlite::Result<()> {
    for ((origin, epoch), sets) in ledger {
        for (outcome, ranges) in sets {
            let bytes = minicbor::to_vec(ranges).expect("writing to a Vec cannot fail");
            run(
                &tx.db,
                "INSERT INTO received (origin, epoch, outcome, ranges) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (origin, epoch, outcome) DO UPDATE SET ranges = excluded.ranges",
                params![origin.0, epoch.0, *outcome as u8, bytes],
            )?;
        }
    }
    Ok(())
}

fn info_of(stub: &model::event::FileStub, user: Id, channel: Id, post: Option<Id>) -> FileInfo {
    FileInfo {
        id: stub.id,
        user_id: user,
        post_id: post,
        channel_id: channel,
        create_at: stub.create_at.0,
        update_at: stub.create_at.0,
        delete_at: 0,
        name: stub.name.clone(),
        extension: stub.extension.clone(),
        size: stub.size,
        mime_type: stub.mime_type.clone(),
        width: stub.width,
        height: stub.height,
        has_preview_image: false,
        mini_preview: None,
        remote_id: String::new(),
        archived: false,
    }
}

/// The first of the names that nothing has, or the last with the first number that makes it so: somebody may have given
/// every one of them to something else.
fn first_free<const N: usize>(
    taken: impl Fn(&str) -> rusqlite::Result<bool>,
    names: [String; N],
) -> rusqlite::Result<String> {
    let last = names[N - 1].clone();
    for name in names {
        if !taken(&name)? {
            return Ok(name);
        }
    }
    let mut n = 2_u64;
    while taken(&format!("{last}-{n}"))? {
        n += 1;
    }
    Ok(format!("{last}-{n}"))
}

fn require_remote_channel(tx: &Tx<'_>, channel: Id) -> Result<ChannelRow, Fail> {
    match channel_row_by_id(&tx.db, channel)? {
        None => impossible(format!("channel {channel} is not known here")),
        Some(row) if row.local => impossible(format!("channel {channel} is this node's own and takes nothing in")),
        Some(row) => Ok(row),
    }
}

impl Tx<'_> {
    /// `wanted`, or with the origin's name added where another object has it.
    fn free_name(
        &self,
        taken: impl Fn(&str) -> rusqlite::Result<bool>,
        wanted: &str,
        id: Id,
        origin: NodeId,
    ) -> rusqlite::Result<String> {
        if !taken(wanted)? {
            return Ok(wanted.to_owned());
        }
        let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
        let suffix: String = node_name(self.core, &self.db, origin)?.chars().map(plain).collect();
        let named = format!("{wanted}-{suffix}");
        first_free(taken, [named.clone(), format!("{named}-{}", &id.as_str()[..8]), format!("{named}-{id}")])
    }

    /// An author who is not known yet gets a placeholder, which their profile replaces when it arrives.
    pub(crate) fn ensure_user(&mut self, id: Id) -> rusqlite::Result<()> {
        if exists(&self.db, "SELECT 1 FROM users WHERE id = ?1", [id.as_str()])? {
            return Ok(());
        }
        let taken = |name: &str| exists(&self.db, "SELECT 1 FROM users WHERE username = ?1", [name]);
        let name = first_free(taken, [format!("unknown-{}", &id.as_str()[..8]), format!("unknown-{id}")])?;
        let mut row = new_row(id, self.now, name);
        row.placeholder = true;
        self.put_user(&row)
    }

    fn apply_user(&mut self, s: &UserState, origin: NodeId) -> Result<(), Fail> {
        let known = user_row_by_id(&self.db, s.id)?;
        let fresh = known.is_none();
        let mut row = known.unwrap_or_else(|| new_row(s.id, s.create_at.0, String::new()));
        if row.local {
            return impossible("the id is that of this node's own bot");
        }
        if !fresh && !row.placeholder && row.user.create_at != s.create_at.0 {
            return impossible("another user has the same id");
        }
        if !fresh && s.version <= row.version {
            return Ok(());
        }
        let taken = |name: &str| {
            exists(&self.db, "SELECT 1 FROM users WHERE username = ?1 AND id <> ?2", [name, s.id.as_str()])
        };
        let shown = self.free_name(taken, &s.username, s.id, origin)?;
        let was_placeholder = row.placeholder;
        row.placeholder = false;
        row.version = s.version;
        row.wanted_username.clone_from(&s.username);
        let u = &mut row.user;
        u.username = shown;
        u.create_at = s.create_at.0;
        u.update_at = s.update_at.0;
        u.delete_at = s.delete_at.0;
        u.email.clone_from(&s.email);
        u.nickname.clone_from(&s.nickname);
        u.first_name.clone_from(&s.first_name);
        u.last_name.clone_from(&s.last_name);
        u.position.clone_from(&s.position);
        u.locale.clone_from(&s.locale);
        u.is_bot = s.is_bot;
        // Who somebody is in Entra lets them in at the tab: it comes with the account and never to one that is there, nor to a
        // second one, or a node in wrong hands could open anybody's account to a person of its own.
        if fresh || was_placeholder {
            row.entra = match s.entra {
                Some(key) if user_row_by_entra(&self.db, key)?.is_none() => Some(key),
                Some(_) | None => None,
            };
        }
        self.put_user(&row)?;
        if s.delete_at.0 > 0 {
            run(&self.db, "DELETE FROM sessions WHERE user_id = ?1", [s.id.as_str()])?;
            self.sessions_ended.push(s.id);
        }
        if fresh || was_placeholder {
            self.tell(Broadcast::to_all("new_user").with("user_id", s.id.as_str()));
        }
        if !fresh {
            self.tell_user_updated(&row.user);
        }
        Ok(())
    }

    fn apply_team(&mut self, s: &TeamState, origin: NodeId) -> Result<(), Fail> {
        let known = team_row_by_id(&self.db, s.id)?;
        if let Some(row) = &known {
            if row.team.create_at != s.create_at.0 {
                return impossible("another team has the same id");
            }
            if s.version <= row.version {
                return Ok(());
            }
        }
        let taken =
            |name: &str| exists(&self.db, "SELECT 1 FROM teams WHERE name = ?1 AND id <> ?2", [name, s.id.as_str()]);
        let shown = self.free_name(taken, &s.name, s.id, origin)?;
        let before = known.as_ref().map(|r| r.team.clone());
        let mut team = before.clone().unwrap_or_else(|| Team {
            id: s.id,
            create_at: s.create_at.0,
            update_at: 0,
            delete_at: 0,
            display_name: String::new(),
            name: String::new(),
            description: String::new(),
            email: String::new(),
            kind: String::new(),
            company_name: String::new(),
            allowed_domains: String::new(),
            // Each node invites by links of its own.
            invite_id: random_id().to_string(),
            allow_open_invite: false,
            last_team_icon_update: 0,
            scheme_id: None,
            group_constrained: None,
            policy_id: None,
            cloud_limits_archived: false,
        });
        team.update_at = s.update_at.0;
        team.delete_at = s.delete_at.0;
        team.display_name.clone_from(&s.display_name);
        team.name = shown;
        team.description.clone_from(&s.description);
        team.kind.clone_from(&s.kind);
        team.allow_open_invite = s.allow_open_invite;
        let row = TeamRow { team, wanted_name: s.name.clone(), version: s.version };
        self.put_team(&row)?;
        if let Some(before) = before {
            let event = match (before.delete_at > 0, s.delete_at.0 > 0) {
                (false, true) => "delete_team",
                (true, false) => "restore_team",
                _ => "update_team",
            };
            self.tell_team(event, &row.team)?;
        }
        Ok(())
    }

    fn apply_team_member(&mut self, s: &TeamMemberState) -> Result<(), Fail> {
        if team_row_by_id(&self.db, s.team_id)?.is_none() {
            return impossible(format!("team {} is not known here", s.team_id));
        }
        self.ensure_user(s.user_id)?;
        let sql = "SELECT ver_at, ver_by FROM team_members WHERE team_id = ?1 AND user_id = ?2";
        let current = version_of(&self.db, sql, [s.team_id.as_str(), s.user_id.as_str()])?;
        if current.is_some_and(|v| s.version <= v) {
            return Ok(());
        }
        let was = member_of_team(&self.db, s.team_id, s.user_id)?.is_some();
        let told = team_member_ids(&self.db, s.team_id)?;
        self.put_team_member(s)?;
        let ids = |b: Broadcast| b.with("team_id", s.team_id.as_str()).with("user_id", s.user_id.as_str());
        match (was, s.delete_at.0 == 0) {
            (false, true) => self.tell(ids(Broadcast::to_user("added_to_team", s.user_id))),
            (true, false) => self.tell(ids(Broadcast::to_team("leave_team", s.team_id, told))),
            _ => {}
        }
        Ok(())
    }

    fn apply_channel(&mut self, s: &ChannelState, origin: NodeId) -> Result<(), Fail> {
        if let Some(team) = s.team_id.filter(|_| s.kind == "O" || s.kind == "P") {
            if team_row_by_id(&self.db, team)?.is_none() {
                return impossible(format!("team {team} is not known here"));
            }
        } else if s.kind != "D" && s.kind != "G" {
            return impossible(format!("a channel of kind {:?} has no team", s.kind));
        }
        let known = channel_row_by_id(&self.db, s.id)?;
        let direct = s.kind == "D" || s.kind == "G";
        // Who may be in it follows from the name, and the name from who is in it.
        if direct && s.id != channel_id_of_name(&s.name) {
            return impossible("a direct or group channel has the id that its name gives");
        }
        if let Some(row) = &known {
            if row.local || row.channel.is_direct_or_group() != direct || row.channel.team_id != s.team_id {
                return impossible("another channel has the same id");
            }
            if !direct && row.channel.create_at != s.create_at.0 {
                return impossible("another channel has the same id");
            }
        }
        if let Some(creator) = s.creator_id {
            self.ensure_user(creator)?;
        }
        let before = known.as_ref().map(|r| r.channel.clone());
        let mut row = known.unwrap_or_else(|| {
            let mut row = blank_channel(s.id, s.create_at.0, &s.kind, &s.name);
            row.channel.team_id = s.team_id;
            row
        });
        // Two nodes may open the same direct channel apart: the earlier opening counts on both.
        row.channel.create_at = row.channel.create_at.min(s.create_at.0);
        if before.is_some() && s.version <= row.version {
            self.put_channel(&row)?;
            return Ok(());
        }
        let taken = |name: &str| {
            let sql = "SELECT 1 FROM channels WHERE team_id = ?1 AND name = ?2 AND id <> ?3";
            exists(&self.db, sql, [text(&s.team_id), name, s.id.as_str()])
        };
        let shown = self.free_name(taken, &s.name, s.id, origin)?;
        row.version = s.version;
        row.wanted_name.clone_from(&s.name);
        let c = &mut row.channel;
        c.name = shown;
        c.kind.clone_from(&s.kind);
        c.update_at = s.update_at.0;
        c.delete_at = s.delete_at.0;
        c.display_name.clone_from(&s.display_name);
        c.header.clone_from(&s.header);
        c.purpose.clone_from(&s.purpose);
        c.creator_id = s.creator_id;
        self.put_channel(&row)?;
        let c = &row.channel;
        let Some(before) = before else { return Ok(()) };
        match (before.delete_at > 0, c.delete_at > 0) {
            (false, true) => self.tell_channel_gone_or_back("channel_deleted", c)?,
            (true, false) => self.tell_channel_gone_or_back("channel_restored", c)?,
            _ if before.kind != c.kind => {
                if let Some(team) = c.team_id {
                    let members = team_member_ids(&self.db, team)?;
                    let told = Broadcast::to_team("channel_converted", team, members);
                    self.tell(told.with("channel_id", c.id.as_str()));
                }
            }
            _ => self.tell_channel_updated(c)?,
        }
        Ok(())
    }

    fn apply_channel_member(&mut self, s: &ChannelMemberState) -> Result<(), Fail> {
        let c = require_remote_channel(self, s.channel_id)?.channel;
        if s.delete_at.0 == 0 && !self.may_belong(&c, s.user_id)? {
            return impossible("a direct or group channel is for those whom it was opened for");
        }
        self.ensure_user(s.user_id)?;
        let sql = "SELECT ver_at, ver_by FROM channel_members WHERE channel_id = ?1 AND user_id = ?2";
        let current = version_of(&self.db, sql, [s.channel_id.as_str(), s.user_id.as_str()])?;
        if current.is_some_and(|v| s.version <= v) {
            return Ok(());
        }
        let was = member(&self.db, c.id, s.user_id)?.is_some();
        self.put_channel_member(s)?;
        match (was, s.delete_at.0 == 0) {
            (false, true) if c.kind == "D" => {
                let others = member_ids(&self.db, c.id)?;
                if let Some(other) =
                    others.into_iter().find(|m| direct_name(*m, s.user_id) == c.name && *m != s.user_id)
                {
                    let members = vec![other, s.user_id];
                    self.tell(
                        Broadcast::to_channel("direct_added", c.id, members)
                            .with("creator_id", text(&c.creator_id))
                            .with("teammate_id", s.user_id.as_str()),
                    );
                }
            }
            (false, true) if c.kind == "G" => {
                let members = member_ids(&self.db, c.id)?;
                let mut told = Broadcast::to_user("group_added", s.user_id).with_text("teammate_ids", &members);
                told.channel_id = Some(c.id);
                self.tell(told);
            }
            (false, true) => self.tell_user_added(&c, s.user_id)?,
            (true, false) => {
                self.forget_threads(c.id, s.user_id)?;
                self.tell_user_removed(&c, s.user_id, s.user_id)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// A direct channel is for the two that it is named after, a group channel for those whose hash is its name: once they
    /// are complete, nobody comes to them, whatever a peer says.
    fn may_belong(&self, c: &crate::types::Channel, user: Id) -> rusqlite::Result<bool> {
        match c.kind.as_str() {
            "D" => Ok(c.name.split("__").any(|id| id == user.as_str())),
            "G" => {
                let sql = "SELECT user_id FROM channel_members WHERE channel_id = ?1";
                let known: Vec<Id> = all(&self.db, sql, [c.id.as_str()], first_id)?;
                Ok(known.contains(&user) || group_name(&known) != c.name)
            }
            _ => Ok(true),
        }
    }

    fn apply_post(&mut self, s: &PostState, origin: NodeId) -> Result<(), Fail> {
        let c = require_remote_channel(self, s.channel_id)?.channel;
        let longest = MESSAGE_MAX_BYTES.max(self.core.settings.max_post_runes.saturating_mul(4));
        if s.message.len() > longest || s.props.chars().count() > PROPS_MAX_RUNES {
            return impossible("the post is longer than any node takes one from its users");
        }
        self.ensure_user(s.user_id)?;
        // Who reads a file is decided by the post that it belongs to, so no other post may claim it.
        let sql = "SELECT 1 FROM files WHERE id IN (SELECT value FROM json_each(?1)) AND post_id <> ?2";
        let stubs: Vec<Id> = s.files.iter().map(|f| f.id).collect();
        if exists(&self.db, sql, [&id_array(&stubs), s.id.as_str()])? {
            return impossible("a file of the post belongs to another post");
        }
        for stub in &s.files {
            put_file(&self.db, &info_of(stub, s.user_id, s.channel_id, Some(s.id)), "")?;
        }
        let Some(row) = post_row_by_id(&self.db, s.id)? else {
            return self.insert_remote(&c, s, origin);
        };
        let same = row.user_id == s.user_id
            && row.channel_id == s.channel_id
            && row.create_at == s.create_at.0
            && row.root_id == s.root_id
            && row.original_id.is_none();
        if !same {
            return impossible("another post has the same id");
        }
        if s.version == row.version {
            return Ok(());
        }
        let wins = s.version > row.version;
        let mut next = if wins { row_of(s, origin) } else { row.clone() };
        next.arrived_at = row.arrived_at;
        next.shown_at = row.shown_at;
        next.origin = row.origin;
        next.pending_post_id.clone_from(&row.pending_post_id);
        next.update_at = row.update_at.max(s.update_at.0);
        next.state_at = row.state_at.max(s.update_at.0);
        next.changed_at = self.change(next.update_at);
        if row.message != s.message {
            // Whichever text is not shown stays readable in the history.
            let replaced = if wins { row.clone() } else { row_of(s, origin) };
            self.keep_history_once(&replaced, next.update_at)?;
        }
        self.put_post(&next)?;
        self.settle_files(&next)?;
        if let Some(root) = next.root_id {
            self.bump(root, s.update_at.0)?;
        }
        if !wins {
            return Ok(());
        }
        if next.delete_at > 0 && row.delete_at == 0 {
            self.forget_reply(&c, &row)?;
            self.tell_post_deleted(&row)?;
        } else if next.delete_at == 0 {
            if row.delete_at > 0 {
                self.recount_thread(next.root_id.unwrap_or(next.id))?;
            }
            self.tell_post("post_edited", &next)?;
        }
        Ok(())
    }

    fn keep_history_once(&mut self, replaced: &PostRow, at: i64) -> rusqlite::Result<()> {
        let sql = "SELECT 1 FROM posts WHERE original_id = ?1 AND original_id <> '' AND message = ?2 AND edit_at = ?3";
        if exists(&self.db, sql, params![replaced.id.as_str(), replaced.message, replaced.edit_at])? {
            return Ok(());
        }
        self.keep_history(replaced, at)
    }

    fn insert_remote(&mut self, c: &crate::types::Channel, s: &PostState, origin: NodeId) -> Result<(), Fail> {
        let mut row = row_of(s, origin);
        let late_after = i64::from(self.core.settings.late_after_seconds) * 1_000;
        if origin != self.core.node && self.now.saturating_sub(row.create_at) > late_after {
            row.arrived_at = self.now;
        }
        // Replies and reactions may have come first.
        let sql = "SELECT max(at) FROM (SELECT max(state_at) AS at FROM posts
            WHERE root_id = ?1 AND root_id <> '' AND original_id = ''
            UNION ALL SELECT max(update_at) FROM reactions WHERE post_id = ?1)";
        let bumped: Option<i64> = get(&self.db, sql, [s.id.as_str()], |r| r.get(0))?.flatten();
        row.update_at = row.update_at.max(bumped.unwrap_or(0));
        row.changed_at = self.change(row.update_at);
        row.shown_at = row.create_at.max(self.now);
        self.put_post(&row)?;
        self.settle_files(&row)?;
        let counted = self.count_post(c, &row)?;
        if row.delete_at > 0 {
            return Ok(());
        }
        if row.arrived_at > 0 && !is_join_leave(&row.kind) {
            run(
                &self.db,
                "INSERT INTO late_posts (post_id, channel_id, user_id, origin, create_at) VALUES (?1, ?2, ?3, ?4, ?5)",
                params![row.id.as_str(), c.id.as_str(), row.user_id.as_str(), origin.0, row.create_at],
            )?;
        }
        self.tell_posted(c, &row, &counted, false)?;
        Ok(())
    }

    fn apply_emoji(&mut self, s: &EmojiState, origin: NodeId) -> Result<(), Fail> {
        if let Some(reason) = emoji::impossible_in(s) {
            return impossible(reason);
        }
        let known = emoji::known(&self.db, s.id)?;
        if known.is_some_and(|(_, create_at)| create_at != s.create_at.0) {
            return impossible("another emoji has the same id");
        }
        if known.is_some_and(|(version, _)| s.version <= version) {
            return Ok(());
        }
        self.ensure_user(s.creator_id)?;
        let taken = |name: &str| {
            let sql = "SELECT 1 FROM emoji WHERE name = ?1 AND id <> ?2 AND delete_at = 0";
            exists(&self.db, sql, [name, s.id.as_str()])
        };
        let shown = self.free_name(taken, &s.name, s.id, origin)?;
        self.put_emoji(s, &shown)?;
        if known.is_none() && s.delete_at.0 == 0 {
            self.tell_emoji(&emoji::emoji_of(s, &shown));
        }
        Ok(())
    }

    fn apply_reaction(&mut self, s: &ReactionState) -> Result<(), Fail> {
        let Some(post) = post_row_by_id(&self.db, s.post_id)? else {
            return impossible(format!("post {} is not known here", s.post_id));
        };
        require_remote_channel(self, post.channel_id)?;
        self.ensure_user(s.user_id)?;
        let sql = "SELECT ver_at, ver_by FROM reactions WHERE post_id = ?1 AND user_id = ?2 AND emoji_name = ?3";
        let current: Option<Version> =
            version_of(&self.db, sql, [s.post_id.as_str(), s.user_id.as_str(), &s.emoji_name])?;
        self.bump(s.post_id, s.post_update_at.0)?;
        if current.is_some_and(|v| s.version <= v) {
            return Ok(());
        }
        let sql = "SELECT 1 FROM reactions WHERE post_id = ?1 AND user_id = ?2 AND emoji_name = ?3 AND delete_at = 0";
        let was = exists(&self.db, sql, [s.post_id.as_str(), s.user_id.as_str(), &s.emoji_name])?;
        self.put_reaction(s)?;
        if was != (s.delete_at.0 == 0) {
            self.tell_reaction(&Reaction {
                user_id: s.user_id,
                post_id: s.post_id,
                emoji_name: s.emoji_name.clone(),
                create_at: s.create_at.0,
                update_at: s.update_at.0,
                delete_at: s.delete_at.0,
                remote_id: String::new(),
                channel_id: post.channel_id,
            })?;
        }
        Ok(())
    }
}

impl Tx<'_> {
    fn take_acknowledgement(&mut self, s: &AcknowledgementState) -> Result<(), Fail> {
        let Some(post) = post_row_by_id(&self.db, s.post_id)? else {
            return impossible(format!("post {} is not known here", s.post_id));
        };
        require_remote_channel(self, post.channel_id)?;
        self.ensure_user(s.user_id)?;
        Ok(self.apply_acknowledgement(s, &post)?)
    }

    fn take_bookmark(&mut self, s: &BookmarkState) -> Result<(), Fail> {
        require_remote_channel(self, s.channel_id)?;
        self.ensure_user(s.owner_id)?;
        if let Some(stub) = &s.file {
            // Who reads a file is decided by what shows it, so a bookmark may not claim that of a post or of another channel.
            let sql = "SELECT 1 FROM files WHERE id = ?1 AND (post_id <> '' OR channel_id <> ?2 OR
                (user_id <> ?3 AND NOT EXISTS (SELECT 1 FROM bookmarks WHERE file_id = ?1)))";
            if exists(&self.db, sql, [stub.id.as_str(), s.channel_id.as_str(), s.owner_id.as_str()])? {
                return impossible("the file of the bookmark belongs to something else");
            }
            put_file(&self.db, &info_of(stub, s.owner_id, s.channel_id, None), "")?;
        }
        Ok(self.apply_bookmark(s)?)
    }
}

fn row_of(s: &PostState, origin: NodeId) -> PostRow {
    let priority = s.priority.as_ref().map(|p| Priority {
        priority: p.priority.clone(),
        requested_ack: p.requested_ack,
        persistent_notifications: p.persistent_notifications,
    });
    let mut seen = BTreeSet::new();
    PostRow {
        id: s.id,
        channel_id: s.channel_id,
        user_id: s.user_id,
        root_id: s.root_id,
        original_id: None,
        create_at: s.create_at.0,
        update_at: s.update_at.0,
        edit_at: s.edit_at.0,
        delete_at: s.delete_at.0,
        message: s.message.clone(),
        kind: s.kind.clone(),
        props: if s.props.is_empty() { "{}".to_owned() } else { s.props.clone() },
        hashtags: s.hashtags.clone(),
        is_pinned: s.is_pinned,
        file_ids: s.files.iter().map(|f| f.id).filter(|id| seen.insert(*id)).collect(),
        priority: priority.as_ref().map(to_json).unwrap_or_default(),
        pending_post_id: String::new(),
        state_at: s.update_at.0,
        changed_at: 0,
        arrived_at: 0,
        shown_at: s.create_at.0,
        origin,
        version: s.version,
    }
}

/// The users whom a digest concerns: those who sign in here.
pub(crate) fn local_members(tx: &Tx<'_>, channel: Id) -> rusqlite::Result<Vec<crate::types::User>> {
    let sql = "SELECT * FROM users WHERE delete_at = 0 AND is_bot = 0
        AND (password <> '' OR id IN (SELECT user_id FROM sessions))
        AND id IN (SELECT user_id FROM channel_members WHERE channel_id = ?1 AND delete_at = 0) ORDER BY id";
    all(&tx.db, sql, [channel.as_str()], user)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit::{Node, Sent, words};
    use crate::types::{NewPost, NewUser, PostPatch, PostQuery, PostView, Session, ThreadPart};
    use model::{Hlc, Manifest, Version};
    use proptest::prelude::*;

    /// Two nodes that both know alice, bob, a team and its channel.
    fn pair() -> (Node, Node, Session, Session, Id) {
        let (a, b) = (Node::new(1), Node::new(2));
        for (here, there) in [(&a, &b), (&b, &a)] {
            here.core.replica().set_node_name(there.id(), there.core.node_name()).unwrap();
        }
        let alice = a.user("alice");
        let bob = a.user("bob");
        let (team, square) = a.team(&alice, "mission");
        a.core.add_team_member(&bob, team.id, bob.user_id).unwrap();
        b.apply(&a.drain());
        let bob = b.enrol("bob");
        b.events.take();
        // Later than the messages about joining.
        a.advance(10);
        (a, b, alice, bob, square.id)
    }

    fn applied(results: &[Applied]) -> bool {
        results.iter().all(|r| *r == Applied::Applied)
    }

    #[test]
    fn a_replica_shows_the_same_ids_authors_and_times() {
        let (a, b, alice, bob, square) = pair();
        let root = a.say(&alice, square, None, "الوضع هادئ 静か 🚁 #sitrep");
        let reply = a.say(&alice, square, Some(root.id), "more");
        a.core.save_reaction(&alice, alice.user_id, root.id, "thumbsup").unwrap();
        a.advance(1_000);
        let patch = PostPatch { message: Some("edited".to_owned()), ..PostPatch::default() };
        a.core.patch_post(&alice, reply.id, &patch).unwrap();
        a.core.pin_post(&alice, root.id, true).unwrap();
        assert!(applied(&b.apply(&a.drain())));
        assert_eq!(a.core.export_snapshot().unwrap(), b.core.export_snapshot().unwrap());
        let there = b.core.thread(&bob, root.id, &ThreadPart::default()).unwrap();
        let here = a.core.thread(&alice, root.id, &ThreadPart::default()).unwrap();
        assert_eq!(there.posts, here.posts);
    }

    #[test]
    fn applying_gives_no_outbox_row() {
        let (a, b, alice, _, square) = pair();
        a.say(&alice, square, None, "hello");
        b.apply(&a.drain());
        assert_eq!(b.outbox(), []);
    }

    #[test]
    fn asking_again_changes_nothing_and_survives_a_restart() {
        let (a, b, alice, bob, square) = pair();
        a.say(&alice, square, None, "hello");
        let sent = a.drain();
        assert!(applied(&b.apply(&sent)));
        let before = b.core.channel(&bob, square).unwrap();
        assert!(b.apply(&sent).iter().all(|r| *r == Applied::AlreadyAccounted));
        let b = b.reopened();
        assert!(b.apply(&sent).iter().all(|r| *r == Applied::AlreadyAccounted));
        assert_eq!(b.core.channel(&bob, square).unwrap(), before);
        let ledger = b.core.replica().ledger().unwrap();
        assert_eq!(ledger.len(), 1);
        assert_eq!(ledger[0].ranges.last(), Some(sent.last().unwrap().id.seq.get()));
    }

    #[test]
    fn an_edit_on_both_sides_ends_the_same_and_the_loser_stays_in_the_history() {
        let (a, b, alice, _, square) = pair();
        let post = a.say(&alice, square, None, "plan");
        b.apply(&a.drain());
        let alice_at_b = b.enrol("alice");
        let edit = |text: &str| PostPatch { message: Some(text.to_owned()), ..PostPatch::default() };
        a.advance(5_000);
        a.core.patch_post(&alice, post.id, &edit("plan by the edge")).unwrap();
        b.advance(9_000);
        b.core.patch_post(&alice_at_b, post.id, &edit("plan by the hub")).unwrap();
        let (from_a, from_b) = (a.drain(), b.drain());
        a.apply(&from_b);
        b.apply(&from_a);
        assert_eq!(a.core.export_snapshot().unwrap(), b.core.export_snapshot().unwrap());
        for (node, by) in [(&a, &alice), (&b, &alice_at_b)] {
            assert_eq!(node.core.post(by, post.id, false).unwrap().message, "plan by the hub");
            let history = node.core.edit_history(by, post.id).unwrap();
            assert!(history.iter().any(|h| h.message == "plan by the edge"), "{history:?}");
        }
    }

    #[test]
    fn a_late_post_shows_through_since_counts_as_unread_and_rings_nobody() {
        let (a, b, alice, bob, square) = pair();
        b.core.mark_channels_read(&bob, bob.user_id, &[square]).unwrap();
        let late = a.say(&alice, square, None, "contact @bob");
        b.advance(3_600_000);
        let newest = b.say(&bob, square, None, "written during the outage");
        b.events.take();
        let sent = a.drain();
        b.apply(&sent);
        let since = b
            .core
            .channel_posts(
                &bob,
                square,
                &PostQuery::Since { at: UnixMillis(newest.create_at), before: None },
                &PostView::default(),
            )
            .unwrap();
        assert_eq!(since.order, [late.id]);
        let shown = &since.posts[&late.id];
        assert_eq!(shown.create_at, late.create_at);
        assert_eq!(shown.props["holdfast"]["late"], true);
        assert_eq!(shown.props["holdfast"]["origin"], "node-1");
        assert_eq!(b.core.channel_unread(&bob, bob.user_id, square).unwrap().mention_count, 1);
        assert_eq!(b.core.channel_unread(&bob, bob.user_id, square).unwrap().msg_count, 1);
        let posted: Vec<_> = b.events.take().into_iter().filter(|e| e.event == "posted").collect();
        assert_eq!(posted.len(), 1);
        assert!(posted[0].per_user.is_empty(), "no mention is announced");
        assert_eq!(posted[0].data["set_online"], false);
        // The page order is by the time of writing.
        let page = b
            .core
            .channel_posts(&bob, square, &PostQuery::Page { page: 0, per_page: 2 }, &PostView::default())
            .unwrap();
        assert_eq!(page.order, [newest.id, late.id]);
    }

    #[test]
    fn a_backlog_is_announced_once_by_the_local_bot_and_the_bot_stays_at_home() {
        let (a, b, alice, bob, square) = pair();
        for n in 0..5 {
            a.say(&alice, square, None, &format!("message {n}"));
        }
        b.advance(3_600_000);
        b.apply(&a.drain());
        assert_eq!(b.core.replica().flush_digest().unwrap(), 1, "only bob signs in here");
        assert_eq!(b.core.replica().flush_digest().unwrap(), 0);
        let direct = b.core.channels_of(&bob, bob.user_id, None, false, 0).unwrap();
        let direct = direct.iter().find(|c| c.kind == "D").unwrap();
        let list = b
            .core
            .channel_posts(&bob, direct.id, &PostQuery::Page { page: 0, per_page: 9 }, &PostView::default())
            .unwrap();
        let message = &list.posts[&list.order[0]].message;
        assert!(message.starts_with("5 late messages from node-1: ~town-square (5), written between "), "{message}");
        assert_eq!(b.core.channel_unread(&bob, bob.user_id, direct.id).unwrap().mention_count, 1);
        assert_eq!(b.outbox(), [], "the bot, its channel and its message are local");
        // Neither is an answer to the bot for others.
        b.say(&bob, direct.id, None, "thanks");
        assert_eq!(b.outbox(), []);
        assert_eq!(a.core.export_snapshot().unwrap(), b.core.export_snapshot().unwrap());
    }

    #[test]
    fn what_cannot_be_shown_is_kept_aside_and_the_rest_goes_on() {
        let (a, b, alice, bob, square) = pair();
        let stray = a.say(&alice, square, None, "stray");
        let mut sent = a.drain();
        let fine = a.say(&alice, square, None, "fine");
        let unknown = a.core.random_id();
        let Event::Post(state) = &mut sent[0].event else { panic!("a post") };
        state.channel_id = unknown;
        sent.extend(a.drain());
        let results = b.apply(&sent);
        assert!(matches!(&results[0], Applied::Quarantined { reason } if reason.contains(unknown.as_str())));
        assert_eq!(results[1], Applied::Applied);
        assert!(b.core.post(&bob, stray.id, false).is_err());
        assert!(b.core.post(&bob, fine.id, false).is_ok());
        let kept = b.core.replica().quarantine_list().unwrap();
        assert_eq!((kept.len(), kept[0].id), (1, sent[0].id));
        assert_eq!(b.core.stats().unwrap().quarantine_rows, 1);
        let outcomes: Vec<_> = b.core.replica().ledger().unwrap().into_iter().map(|r| r.outcome).collect();
        assert_eq!(outcomes, [Outcome::Applied, Outcome::Quarantined]);
    }

    #[test]
    fn the_same_id_with_another_author_is_kept_aside() {
        let (a, b, alice, bob, square) = pair();
        let post = a.say(&alice, square, None, "mine");
        b.apply(&a.drain());
        a.core.pin_post(&alice, post.id, true).unwrap();
        let mut sent = a.drain();
        let Event::Post(state) = &mut sent[0].event else { panic!("a post") };
        state.user_id = bob.user_id;
        assert!(matches!(b.apply(&sent)[0], Applied::Quarantined { .. }));
        assert_eq!(b.core.post(&bob, post.id, false).unwrap().user_id, alice.user_id);
    }

    #[test]
    fn names_that_collide_carry_their_origin_and_still_compare_equal() {
        let (a, b) = (Node::new(1), Node::new(2));
        b.core.replica().set_node_name(a.id(), "Edge One").unwrap();
        let at_a = a.user("carol");
        let at_b = b.user("carol");
        a.team(&at_a, "alpha");
        b.team(&at_b, "alpha");
        let (from_a, from_b) = (a.drain(), b.drain());
        assert!(applied(&b.apply(&from_a)));
        assert!(applied(&a.apply(&from_b)));
        assert_eq!(b.core.user(at_a.user_id).unwrap().username, "carol-edge-one");
        assert_eq!(b.core.user(at_b.user_id).unwrap().username, "carol");
        let short = &b.id().to_string()[..8];
        assert_eq!(a.core.user(at_b.user_id).unwrap().username, format!("carol-{short}"));
        assert!(b.core.team_exists("alpha-edge-one").unwrap());
        assert_eq!(a.core.export_snapshot().unwrap(), b.core.export_snapshot().unwrap());
    }

    #[test]
    fn a_direct_channel_opened_on_both_sides_apart_is_one_channel() {
        let (a, b, alice, bob, _) = pair();
        let here = a.core.direct_channel(&alice, alice.user_id, bob.user_id).unwrap();
        b.advance(7_000);
        let there = b.core.direct_channel(&bob, bob.user_id, alice.user_id).unwrap();
        assert_eq!(here.id, there.id);
        a.say(&alice, here.id, None, "from a");
        b.say(&bob, there.id, None, "from b");
        let (from_a, from_b) = (a.drain(), b.drain());
        assert!(applied(&a.apply(&from_b)));
        assert!(applied(&b.apply(&from_a)));
        assert_eq!(a.core.export_snapshot().unwrap(), b.core.export_snapshot().unwrap());
    }

    #[test]
    fn an_author_who_is_not_known_yet_is_a_placeholder_until_the_profile_comes() {
        let (a, b, _, bob, square) = pair();
        let dave = a.user("dave");
        a.core
            .add_team_member(
                &dave,
                a.core
                    .teams_of(&dave, dave.user_id)
                    .unwrap()
                    .first()
                    .map_or_else(|| a.core.teams(&dave, 0, 60).unwrap()[0].id, |t| t.id),
                dave.user_id,
            )
            .unwrap();
        let post = a.say(&dave, square, None, "hi");
        let sent = a.drain();
        let (profile, rest): (Vec<Sent>, Vec<Sent>) = sent.into_iter().partition(|s| matches!(s.event, Event::User(_)));
        assert!(applied(&b.apply(&rest)));
        assert!(b.core.user(dave.user_id).unwrap().username.starts_with("unknown-"));
        assert_eq!(b.core.post(&bob, post.id, false).unwrap().user_id, dave.user_id);
        assert!(applied(&b.apply(&profile)));
        assert_eq!(b.core.user(dave.user_id).unwrap().username, "dave");
        assert_eq!(a.core.export_snapshot().unwrap(), b.core.export_snapshot().unwrap());
    }

    #[test]
    fn a_file_is_a_stub_until_its_bytes_arrive() {
        let (a, b, alice, bob, square) = pair();
        let files = [a.upload(&alice, square, "map.txt", b"grid"), a.upload(&alice, square, "empty", b"")];
        let mut new = words(square, None, "see attached");
        new.file_ids = files.iter().map(Id::to_string).collect();
        let post = a.core.create_post(&alice, &new, true).unwrap();
        assert_eq!(post.file_ids, files);
        let sent = a.drain();
        let kinds: Vec<Kind> = sent.iter().map(|s| s.event.kind()).collect();
        assert_eq!(kinds, [Kind::Post, Kind::File, Kind::File]);
        b.apply(&sent[..1]);
        for file in files {
            assert_eq!(b.core.file_path(file).unwrap(), None);
            let found = b.core.open_file(&bob, file).unwrap();
            assert!(matches!(found, crate::FileAvailability::NotHereYet { .. }));
        }
        assert_eq!(b.core.post(&bob, post.id, false).unwrap().metadata.files.len(), 2);
        b.events.take();
        assert!(applied(&b.apply(&sent[1..])));
        assert!(b.events.take().iter().any(|e| e.event == "post_edited"));
        for (file, bytes) in files.iter().zip([&b"grid"[..], b""]) {
            assert_eq!(std::fs::read(b.core.file_path(*file).unwrap().unwrap()).unwrap(), bytes);
        }
        assert_eq!(a.core.export_snapshot().unwrap(), b.core.export_snapshot().unwrap());
    }

    #[test]
    fn bytes_other_than_the_origin_described_are_kept_aside() {
        let (a, b, alice, _, square) = pair();
        let file = a.upload(&alice, square, "map.txt", b"grid");
        let mut new = words(square, None, "");
        new.file_ids = vec![file.to_string()];
        a.core.create_post(&alice, &new, true).unwrap();
        let mut sent = a.drain();
        let Event::File(state) = &mut sent[1].event else { panic!("a file") };
        let content_hash = *blake3::hash(b"grid").as_bytes();
        state.content = Some(Manifest { level: 0, content_bytes: 4, chunks: Vec::new(), content_hash, coded: None });
        sent[1].bytes = Some(b"evil".to_vec());
        assert!(matches!(b.apply(&sent)[1], Applied::Quarantined { .. }));
        assert_eq!(b.core.file_path(file).unwrap(), None);
    }

    #[test]
    fn names_that_somebody_took_stop_nobody_from_being_applied() {
        let (a, b, _, _, _) = pair();
        let carol = a.user("carol").user_id;
        let named = format!("carol-node-1-{carol}");
        for name in ["carol", "carol-node-1", &named[.."carol-node-1-".len() + 8], &named] {
            b.user(name);
        }
        b.user(&format!("unknown-{}", &carol.as_str()[..8]));
        b.user(&format!("unknown-{carol}"));
        b.core.write(|tx| tx.ensure_user(carol)).unwrap();
        assert_eq!(b.core.user(carol).unwrap().username, format!("unknown-{carol}-2"));
        assert!(applied(&b.apply(&a.drain())));
        assert_eq!(b.core.user(carol).unwrap().username, format!("{named}-2"));
    }

    #[test]
    fn what_the_store_refuses_is_kept_aside_and_a_failing_disk_is_waited_for() {
        let node = Node::new(1);
        let twice = "INSERT INTO node_names (node, name) VALUES (x'00', 'a'), (x'00', 'b')";
        let refused = node.core.write(|tx| Ok::<_, StoreError>(run(&tx.db, twice, []))).unwrap().unwrap_err();
        assert!(matches!(Fail::from(refused), Fail::Impossible(_)));
        let full = rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_FULL), None);
        assert!(matches!(Fail::from(full), Fail::Store(_)));
    }

    #[test]
    fn a_post_that_no_node_would_take_or_with_times_at_the_end_of_numbers_stops_nothing() {
        let (a, b, alice, _, square) = pair();
        let file = a.upload(&alice, square, "map.txt", b"grid");
        let new = NewPost { file_ids: vec![file.to_string()], ..words(square, None, "x") };
        let first = a.core.create_post(&alice, &new, true).unwrap().id;
        a.say(&alice, square, None, "y");
        a.say(&alice, square, None, "z");
        let mut sent: Vec<Sent> = a.drain().into_iter().filter(|s| s.event.kind() == Kind::Post).collect();
        b.core.order_purge(&crate::purges::NewPurge { files: vec![file], ..Default::default() }).unwrap();
        for (n, s) in sent.iter_mut().enumerate() {
            let Event::Post(state) = &mut s.event else { panic!("a post") };
            match n {
                0 => state.files[0].create_at = UnixMillis(i64::MAX),
                1 => state.message = "x".repeat(MESSAGE_MAX_BYTES + 1),
                _ => {}
            }
        }
        let results = b.apply(&sent);
        assert_eq!((&results[0], &results[2]), (&Applied::Applied, &Applied::Applied), "{results:?}");
        assert!(matches!(&results[1], Applied::Quarantined { reason } if reason.contains("longer")), "{results:?}");
        assert!(b.core.read(|db| post_row_by_id(db, first)).unwrap().is_some());
    }

    #[test]
    fn nobody_is_put_into_a_direct_or_group_channel_of_others() {
        let (a, b, alice, bob, _) = pair();
        let ids: Vec<Id> = ["carol", "dave", "eve"].map(|name| a.user(name).user_id).to_vec();
        let direct = a.core.direct_channel(&alice, alice.user_id, bob.user_id).unwrap().id;
        let group = a.core.group_channel(&alice, &[bob.user_id, ids[0]]).unwrap().id;
        let sent = a.drain();
        assert!(applied(&b.apply(&sent)), "those whom they are for come in, in any order");
        let of = |kind: Kind, channel: Id| {
            let found = sent.iter().rfind(|s| {
                let of = if let Event::Channel(c) = &s.event {
                    c.id == channel
                } else if let Event::ChannelMember(m) = &s.event {
                    m.channel_id == channel
                } else {
                    false
                };
                of && s.event.kind() == kind
            });
            found.unwrap().clone()
        };
        let forged = |n: u64, mut s: Sent, change: &dyn Fn(&mut Event)| {
            s.id.epoch = Epoch(9);
            s.id.seq = Seq::new(n).unwrap();
            change(&mut s.event);
            s
        };
        let eve = |event: &mut Event| {
            if let Event::ChannelMember(m) = event {
                (m.user_id, m.version.at) = (ids[2], Hlc(m.version.at.0 + 1));
            }
        };
        let renamed = |event: &mut Event| {
            if let Event::Channel(c) = event {
                (c.name, c.version.at) = (direct_name(alice.user_id, ids[2]), Hlc(c.version.at.0 + 1));
            }
        };
        let results = b.apply(&[
            forged(1, of(Kind::ChannelMember, direct), &eve),
            forged(2, of(Kind::ChannelMember, group), &eve),
            forged(3, of(Kind::Channel, direct), &renamed),
        ]);
        assert!(results.iter().all(|r| matches!(r, Applied::Quarantined { .. })), "{results:?}");
        let members = |channel| b.core.read(|db| member_ids(db, channel)).unwrap();
        assert!(!members(direct).contains(&ids[2]) && !members(group).contains(&ids[2]));
        assert_eq!((members(direct).len(), members(group).len()), (2, 3));
    }

    #[test]
    fn what_was_skipped_is_accounted_for_once() {
        let (a, b, alice, _, square) = pair();
        let replica = b.core.replica();
        let epoch = Epoch(7);
        replica.account(a.id(), epoch, Outcome::Expired, &RangeSet::from(1..=5)).unwrap();
        replica.account(a.id(), epoch, Outcome::Withheld, &RangeSet::from(4..=9)).unwrap();
        a.say(&alice, square, None, "x");
        let mut sent = a.drain();
        sent[0].id = EntryId { origin: a.id(), epoch, seq: Seq::new(3).unwrap() };
        assert_eq!(b.apply(&sent[..1]), [Applied::AlreadyAccounted]);
        let rows: Vec<_> = replica.ledger().unwrap().into_iter().filter(|r| r.epoch == epoch).collect();
        assert_eq!(rows[0].ranges, RangeSet::from(1..=5));
        assert_eq!(rows[1].ranges, RangeSet::from(6..=9));
    }

    #[test]
    fn a_local_edit_wins_over_a_state_from_a_clock_far_ahead() {
        let (a, b, alice, _, square) = pair();
        let post = a.say(&alice, square, None, "first");
        b.apply(&a.drain());
        a.core.pin_post(&alice, post.id, true).unwrap();
        let mut sent = a.drain();
        let Event::Post(state) = &mut sent[0].event else { panic!("a post") };
        state.version = Version { at: Hlc(u64::MAX >> 2), by: a.id() };
        b.apply(&sent);
        let alice_at_b = b.enrol("alice");
        let patch = PostPatch { message: Some("second".to_owned()), ..PostPatch::default() };
        b.core.patch_post(&alice_at_b, post.id, &patch).unwrap();
        assert!(applied(&a.apply(
            &sent.iter().map(|s| Sent { id: EntryId { origin: b.id(), ..s.id }, ..s.clone() }).collect::<Vec<_>>()
        )));
        assert!(applied(&a.apply(
            &b.drain().into_iter().map(|s| Sent { id: EntryId { epoch: Epoch(2), ..s.id }, ..s }).collect::<Vec<_>>()
        )));
        assert_eq!(a.core.post(&alice, post.id, false).unwrap().message, "second");
    }

    #[test]
    fn profiles_replicate_and_credentials_do_not() {
        let (a, b, _, _, _) = pair();
        let new = NewUser {
            username: "eve".to_owned(),
            email: "eve@example.org".to_owned(),
            password: crate::testkit::PASSWORD.to_owned(),
            nickname: "イヴ 🛰".to_owned(),
            ..NewUser::default()
        };
        let eve = a.core.create_user(None, &new).unwrap();
        b.apply(&a.drain());
        let there = b.core.user(eve.id).unwrap();
        assert_eq!((there.nickname.as_str(), there.roles.as_str()), ("イヴ 🛰", "system_user"));
        let login = crate::types::Login {
            login_id: "eve".to_owned(),
            password: crate::testkit::PASSWORD.to_owned(),
            ..crate::types::Login::default()
        };
        let refused = b.core.login(&login, &crate::types::ClientInfo::default()).unwrap_err();
        assert_eq!(refused.id, "api.user.login.invalid_credentials_email_username");
    }

    #[test]
    fn who_somebody_is_in_entra_travels_and_outlives_a_node_that_knows_nothing_of_it() {
        let (a, b, alice, _, _) = pair();
        let (tid, oid) = ("00112233-4455-6677-8899-aabbccddeeff", "ffeeddcc-bbaa-9988-7766-554433221100");
        assert_eq!(b.core.user_by_entra(tid, oid).unwrap_err().status_code, 404);
        let person = crate::DirectoryPerson {
            key: format!("entra:{tid}:{oid}").parse().unwrap(),
            alias: "dora".to_owned(),
            email: "dora@example.org".to_owned(),
            first_name: "Dora".to_owned(),
            last_name: String::new(),
            position: String::new(),
            locale: "en".to_owned(),
            active: true,
            places: BTreeSet::new(),
        };
        a.core.apply_directory(&crate::DirectoryBatch { people: vec![person], keep: Vec::new() }).unwrap();
        let dora = a.core.user_by_entra(tid, oid).unwrap().id;
        assert_eq!(a.core.entra_of(dora).unwrap().unwrap().to_string(), format!("entra:{tid}:{oid}"));
        let sent = a.drain();
        b.apply(&sent);
        let there = b.core.user_by_entra(&tid.to_uppercase(), oid).unwrap();
        assert_eq!((there.id, there.auth_data.as_deref()), (dora, Some(oid)));
        assert_eq!(there.auth_service, "office365", "no password here: the account is Entra's alone");
        for (tid, oid) in [(oid, tid), ("", ""), ("' OR 1=1 --", oid)] {
            assert_eq!(b.core.user_by_entra(tid, oid).unwrap_err().status_code, 404);
        }
        // As an older program writes it.
        let Some((id, Event::User(mut state))) = sent.last().map(|s| (s.id, s.event.clone())) else { panic!("a user") };
        state.entra = None;
        state.position = "mechanic".to_owned();
        state.version.at = model::Hlc(state.version.at.0 + 1);
        let next = EntryId { seq: id.seq.next().unwrap(), ..id };
        let incoming = Incoming { id: next, event: Event::User(state), content: None };
        assert!(applied(&b.core.replica().apply(vec![incoming]).unwrap()));
        assert_eq!(b.core.user_by_entra(tid, oid).unwrap().position, "mechanic");

        // A node in wrong hands says that alice is somebody of its own, and that somebody of its own is dora.
        let known = b.core.read(|db| user_row_by_id(db, alice.user_id)).unwrap().unwrap();
        let (mine, later) = ("99999999-4455-6677-8899-aabbccddeeff", model::Hlc(known.version.at.0 + (1 << 30)));
        let state = |user: Id, create_at: i64, key: &str| {
            let Some(Event::User(mut state)) = sent.last().map(|s| s.event.clone()) else { panic!("a user") };
            (state.id, state.create_at, state.entra) = (user, UnixMillis(create_at), key.parse().ok());
            state.username = format!("u{create_at}");
            state.version.at = later;
            Event::User(state)
        };
        let forged = [
            state(alice.user_id, known.user.create_at, &format!("entra:{tid}:{mine}")),
            state("00000000000000000000000009".parse().unwrap(), 1, &format!("entra:{tid}:{oid}")),
        ];
        for (n, event) in forged.into_iter().enumerate() {
            let id = EntryId { seq: model::Seq::new(id.seq.get() + 2 + n as u64).unwrap(), ..id };
            assert!(applied(&b.core.replica().apply(vec![Incoming { id, event, content: None }]).unwrap()));
        }
        assert_eq!(b.core.user_by_entra(tid, mine).unwrap_err().status_code, 404, "no key to an account that is there");
        assert_eq!(b.core.user_by_entra(tid, oid).unwrap().id, dora, "no second account for a key");
    }

    /// One thing that someone does at one of two nodes.
    #[derive(Clone, Debug)]
    enum Act {
        Say,
        Reply(usize),
        Edit(usize),
        Delete(usize),
        Pin(usize),
        React(usize),
        Unreact(usize),
        Attach,
        Header,
        Leave,
        Join,
        Wait(u16),
        Deliver(usize),
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            Just(Act::Say),
            any::<usize>().prop_map(Act::Reply),
            any::<usize>().prop_map(Act::Edit),
            any::<usize>().prop_map(Act::Delete),
            any::<usize>().prop_map(Act::Pin),
            any::<usize>().prop_map(Act::React),
            any::<usize>().prop_map(Act::Unreact),
            Just(Act::Attach),
            Just(Act::Header),
            Just(Act::Leave),
            Just(Act::Join),
            any::<u16>().prop_map(Act::Wait),
            any::<usize>().prop_map(Act::Deliver),
        ]
    }

    /// Entries that may be next: first of their stream and class, with everything they need delivered.
    fn ready(queue: &[Sent]) -> Vec<usize> {
        let file = |s: &Sent| s.event.kind() == Kind::File;
        let free = |i: usize| {
            let this = &queue[i];
            let needs = this.event.needs();
            queue[..i].iter().all(|earlier| {
                let ordered = earlier.event.stream() == this.event.stream() && file(earlier) == file(this);
                !ordered && !needs.contains(&earlier.event.object())
            })
        };
        (0..queue.len()).filter(|i| free(*i)).collect()
    }

    fn perform(node: &Node, by: &Session, channel: Id, act: &Act, n: usize) {
        let page = PostQuery::Page { page: 0, per_page: 200 };
        let posts: Vec<Id> = node.core.channel_posts(by, channel, &page, &PostView::default()).unwrap().order;
        let pick = |i: usize| posts.get(i % posts.len().max(1)).copied();
        // What the rules refuse (editing a system message, reacting to what is gone) is part of the game.
        match act {
            Act::Say => drop(node.core.create_post(by, &words(channel, None, &format!("text {n} 文")), true)),
            Act::Reply(i) => drop(node.core.create_post(by, &words(channel, pick(*i), &format!("reply {n}")), true)),
            Act::Edit(i) => {
                let patch = PostPatch { message: Some(format!("edit {n} by {}", by.user_id)), ..PostPatch::default() };
                drop(pick(*i).map(|p| node.core.patch_post(by, p, &patch)));
            }
            Act::Delete(i) => drop(pick(*i).map(|p| node.core.delete_post(by, p))),
            Act::Pin(i) => drop(pick(*i).map(|p| node.core.pin_post(by, p, n.is_multiple_of(2)))),
            Act::React(i) => drop(pick(*i).map(|p| node.core.save_reaction(by, by.user_id, p, "eyes"))),
            Act::Unreact(i) => drop(pick(*i).map(|p| node.core.delete_reaction(by, by.user_id, p, "eyes"))),
            Act::Attach => {
                let file = node.upload(by, channel, "note.txt", format!("bytes {n}").as_bytes());
                let mut new = words(channel, None, "");
                new.file_ids = vec![file.to_string()];
                node.core.create_post(by, &new, true).unwrap();
            }
            Act::Header => {
                let patch = crate::types::ChannelPatch { header: Some(format!("header {n}")), ..Default::default() };
                drop(node.core.patch_channel(by, channel, &patch));
            }
            Act::Leave => drop(node.core.remove_channel_member(by, channel, by.user_id)),
            Act::Join => drop(node.core.add_channel_member(by, channel, by.user_id)),
            Act::Wait(ms) => node.advance(i64::from(*ms)),
            Act::Deliver(_) => {}
        }
    }

    /// 24 cases wait for the disk for seconds; PROPTEST_CASES asks for more.
    fn cases() -> u32 {
        std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(24)
    }

    /// What both do and how it travels; equal in the end. `choices` picks among the entries that may be next.
    fn converge(acts: &[(bool, Act)], mut choices: Vec<usize>) -> Result<(), TestCaseError> {
        let (a, b, alice, bob, _) = pair();
        let team = a.core.teams_of(&alice, alice.user_id).unwrap()[0].id;
        let admin = |s: &Session| Session { roles: "system_admin system_user".to_owned(), ..s.clone() };
        let (alice, bob) = (admin(&alice), admin(&bob));
        let new = crate::types::NewChannel {
            team_id: team.to_string(),
            name: "ops".to_owned(),
            kind: "O".to_owned(),
            ..Default::default()
        };
        let channel = a.core.create_channel(&alice, &new).unwrap().id;
        a.core.add_channel_member(&alice, channel, bob.user_id).unwrap();
        b.apply(&a.drain());
        let (mut to_a, mut to_b) = (Vec::new(), Vec::new());
        for (n, (at_a, act)) in acts.iter().enumerate() {
            let (node, by, queue) = if *at_a { (&a, &alice, &mut to_b) } else { (&b, &bob, &mut to_a) };
            perform(node, by, channel, act, n);
            queue.extend(node.drain());
            if let Act::Deliver(i) = act {
                let (queue, to) = if *at_a { (&mut to_a, &a) } else { (&mut to_b, &b) };
                let ready = ready(queue);
                if !ready.is_empty() {
                    let sent = queue.remove(ready[i % ready.len()]);
                    prop_assert_eq!(to.apply(&[sent]), [Applied::Applied]);
                }
            }
        }
        for (queue, to) in [(&mut to_a, &a), (&mut to_b, &b)] {
            while !queue.is_empty() {
                let ready = ready(queue);
                let sent = queue.remove(ready[choices.pop().unwrap_or(0) % ready.len()]);
                prop_assert_eq!(to.apply(&[sent]), [Applied::Applied]);
            }
        }
        prop_assert_eq!(a.outbox(), []);
        prop_assert_eq!(b.outbox(), []);
        prop_assert_eq!(a.core.export_snapshot().unwrap(), b.core.export_snapshot().unwrap());
        let counts = |n: &Node, by: &Session| {
            let c = n.core.channel(by, channel).unwrap();
            (c.total_msg_count, c.total_msg_count_root)
        };
        prop_assert_eq!(counts(&a, &alice), counts(&b, &bob));
        Ok(())
    }

    #[test]
    fn a_root_that_is_deleted_with_replies_of_its_millisecond_ends_equal() {
        // A reply with a lower id was deleted first and raised the root, which its older row then overwrote.
        let acts = [
            Act::Wait(10),
            Act::Attach,
            Act::Header,
            Act::Reply(1_692_555_877_979_190_052),
            Act::Reply(16_362_535_193_707_336_129),
            Act::React(8_771_805_796_799_131_574),
            Act::Delete(4_698_159_537_034_208_327),
            Act::Delete(7_721_100_510_713_379_628),
        ];
        converge(&acts.map(|act| (false, act)), vec![0; 40]).unwrap();
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn two_nodes_end_equal_whatever_they_do_and_however_the_entries_travel(
            acts in prop::collection::vec((any::<bool>(), act()), 1..60),
            choices in prop::collection::vec(any::<usize>(), 40),
        ) {
            converge(&acts, choices)?;
        }
    }
}
