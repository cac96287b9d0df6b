//! The store's handle: opening, reading, and the one way of writing.
//!
//! ```text
//!  write(|tx| ..) : lock writer -> BEGIN IMMEDIATE -> rows + outbox rows -> COMMIT -> broadcasts -> unlock
//!  read(|db| ..)  : a pooled read connection sees the last commit
//! ```
//!
//! Broadcasts go out while the writer is still locked, so clients hear changes in commit order.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use model::{Clock, Event, Hlc, HybridClock, Id, IdMint, NodeId, RawIds, SpaceLevel, UnixMillis, Version};
use rusqlite::{Connection, OpenFlags, TransactionBehavior, params};
use tokio::sync::watch;

use crate::error::AppError;
use crate::events::{Broadcast, EventSink};
use crate::integrations::IntegrationSettings;
use crate::members::ChannelMembers;
use crate::push::PushSettings;
use crate::push::sender::Proxy;
use crate::requests::FileOutlookOf;
use crate::rows::{count, exists, get, put_version, run};
use crate::schema;
use crate::search::index;
use crate::space::ClassOfPost;
use crate::types::Status;

/// What a core needs from its node.
pub struct CoreOptions {
    /// Directory of the database and the files; made when missing.
    pub dir: PathBuf,
    /// This node.
    pub node: NodeId,
    /// Its configured name, shown to users.
    pub node_name: String,
    /// Mints the ids of new objects.
    pub mint: Arc<dyn IdMint>,
    /// Wall time.
    pub clock: Arc<dyn Clock>,
    /// The node's hybrid clock.
    pub hybrid: Arc<HybridClock>,
    /// Where broadcasts go.
    pub events: Arc<dyn EventSink>,
    /// Configuration.
    pub settings: CoreSettings,
}

/// Configuration of the core, the table `[core]`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct CoreSettings {
    /// Name shown on the sign-in page.
    pub site_name: String,
    /// Largest file in bytes. Mattermost's default is 100 MiB.
    pub max_file_bytes: u64,
    /// Largest archive in bytes that a system administrator may upload for an import.
    pub max_import_bytes: u64,
    /// Longest message in characters.
    pub max_post_runes: usize,
    /// Life of a web session in hours; activity prolongs it.
    pub session_hours: u32,
    /// Life of a mobile session in hours; activity prolongs it.
    pub session_hours_mobile: u32,
    /// A post from another node that is older than this on arrival is marked late.
    pub late_after_seconds: u32,
    /// May anyone who reaches the server make an account? The first account may always be made.
    pub open_registration: bool,
    /// Shortest password in bytes.
    pub password_min_chars: usize,
    /// Wrong passwords in a row before sign-in is refused until an administrator sets a new one.
    pub login_attempts_max: u32,
    /// Most members of one team.
    pub max_team_members: u32,
    /// May users other than administrators make personal access tokens?
    pub users_may_create_tokens: bool,
    /// May users ask for a code of an authenticator app at their sign-in?
    pub multifactor: bool,
    /// Hooks, commands and other integrations.
    pub integrations: IntegrationSettings,
    /// Notifications to mobile devices.
    pub push: PushSettings,
}

impl Default for CoreSettings {
    fn default() -> Self {
        Self {
            site_name: "Holdfast".to_owned(),
            max_file_bytes: 100 * 1024 * 1024,
            max_import_bytes: 10 * 1024 * 1024 * 1024,
            max_post_runes: 16_383,
            session_hours: 30 * 24,
            session_hours_mobile: 30 * 24,
            late_after_seconds: 60,
            open_registration: false,
            password_min_chars: 8,
            login_attempts_max: 10,
            max_team_members: 10_000,
            users_may_create_tokens: true,
            multifactor: true,
            integrations: IntegrationSettings::default(),
            push: PushSettings::default(),
        }
    }
}

/// Why a core did not open. The data is as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The directory cannot be used.
    #[error("the data directory {dir} cannot be used: {source}; nothing was changed")]
    Dir {
        /// Which.
        dir: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another process has it open.
    #[error("the store in {dir} is in use by another process; nothing was changed")]
    InUse {
        /// Which.
        dir: PathBuf,
    },
    /// Written by a newer program.
    #[error("the store in {dir} has schema {found}, this program knows up to {known}; nothing was changed")]
    Newer {
        /// Which.
        dir: PathBuf,
        /// Schema of the file.
        found: i64,
        /// Newest schema known here.
        known: i64,
    },
    /// SQLite failed.
    #[error("the store in {dir} did not open: {source}; what was committed is intact")]
    Store {
        /// Which.
        dir: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
}

impl OpenError {
    /// What the operator should do.
    pub fn next_step(&self) -> &'static str {
        match self {
            Self::Dir { .. } => "check that the directory exists on a mounted disk and belongs to the service's user",
            Self::InUse { .. } => "stop the other process, or give this node a data directory of its own",
            Self::Newer { .. } => "start the newer Holdfast again, or restore the backup from before its upgrade",
            Self::Store { .. } => "check disk space and disk health, then restart; restore from backup if it persists",
        }
    }
}

/// A storage failure; nothing was changed.
#[derive(Debug, thiserror::Error)]
#[error("the store failed: {0}; nothing was changed")]
pub struct StoreError(pub String);

impl From<rusqlite::Error> for StoreError {
    fn from(e: rusqlite::Error) -> Self {
        Self(e.to_string())
    }
}

impl From<rusqlite::Error> for AppError {
    fn from(e: rusqlite::Error) -> Self {
        match e.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull) => Self::disk_full("store"),
            _ => Self::storage("store", e),
        }
    }
}

/// The embedded core: a cheap handle. Calls block on disk; async callers use `spawn_blocking`.
#[derive(Clone)]
pub struct Core(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) dir: PathBuf,
    pub(crate) node: NodeId,
    pub(crate) node_name: String,
    pub(crate) mint: Arc<dyn IdMint>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) hybrid: Arc<HybridClock>,
    pub(crate) events: Arc<dyn EventSink>,
    pub(crate) settings: CoreSettings,
    diagnostic_id: Id,
    /// [`model::SpaceLevel`] as its number.
    pub(crate) space: AtomicU8,
    /// Are posts of this node noted until they have ended elsewhere?
    pub(crate) tracks_delivery: AtomicBool,
    pub(crate) class_of_post: OnceLock<ClassOfPost>,
    pub(crate) file_outlook: OnceLock<FileOutlookOf>,
    pub(crate) file_requests_changed: watch::Sender<u64>,
    pub(crate) due_changed: watch::Sender<u64>,
    pub(crate) push_changed: watch::Sender<u64>,
    pub(crate) push_proxy: Option<Proxy>,
    pub(crate) jobs_changed: watch::Sender<u64>,
    writer: Mutex<Writer>,
    readers: Mutex<Vec<Connection>>,
    pub(crate) outbox_changed: watch::Sender<u64>,
    pub(crate) statuses: Mutex<HashMap<Id, Status>>,
    pub(crate) uploads: crate::uploads::Busy,
    pub(crate) triggers: crate::integrations::actions::Triggers,
    /// Held for the life of the handle; the operating system frees it when the process dies.
    _lock: fs::File,
}

impl Inner {
    pub(crate) fn space(&self) -> SpaceLevel {
        SpaceLevel::from_number(self.space.load(Ordering::SeqCst))
    }
}

struct Writer {
    db: Connection,
    last_at: Hlc,
    last_change: i64,
    members: ChannelMembers,
}

/// Idle read connections kept. The http layer runs at most a few dozen blocking calls; more than this at once
/// open a connection for the moment.
const READERS_KEPT: usize = 8;

const DATABASE: &str = "core.sqlite3";

impl Core {
    /// Opens the store, makes it when missing, and takes it for this process alone.
    ///
    /// # Errors
    /// See [`OpenError`]; nothing is changed.
    pub fn open(options: CoreOptions) -> Result<Self, OpenError> {
        let dir = options.dir;
        let dir_error = |source| OpenError::Dir { dir: dir.clone(), source };
        for sub in ["exports", "files", "imports", "previews", "staging", "uploads"] {
            fs::create_dir_all(dir.join(sub)).map_err(dir_error)?;
        }
        let lock = fs::File::create(dir.join("core.lock")).map_err(dir_error)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(OpenError::InUse { dir }),
            Err(fs::TryLockError::Error(e)) => return Err(dir_error(e)),
        }
        // Whatever was being received or uploaded when the process ended will be sent again.
        for leftover in fs::read_dir(dir.join("staging")).map_err(dir_error)?.flatten() {
            fs::remove_file(leftover.path()).map_err(dir_error)?;
        }
        let store_error = |source| OpenError::Store { dir: dir.clone(), source };
        let db = connect(&dir, true).map_err(store_error)?;
        let found: i64 = db.query_row("PRAGMA user_version", [], |r| r.get(0)).map_err(store_error)?;
        if found > schema::VERSION {
            return Err(OpenError::Newer { dir, found, known: schema::VERSION });
        }
        schema::migrate(&db, found).map_err(store_error)?;
        index::prepare(&db).map_err(store_error)?;
        let last_at = last_outbox_at(&db).map_err(store_error)?;
        let last_change =
            db.query_row("SELECT coalesce(max(changed_at), 0) FROM posts", [], |r| r.get(0)).map_err(store_error)?;
        let diagnostic_id = diagnostic_id(&db).map_err(store_error)?;
        options.hybrid.observe(last_at, options.clock.now());
        Ok(Self(Arc::new(Inner {
            node: options.node,
            node_name: options.node_name,
            mint: options.mint,
            clock: options.clock,
            hybrid: options.hybrid,
            events: options.events,
            push_proxy: Proxy::of(&options.settings.push),
            settings: options.settings,
            diagnostic_id,
            space: AtomicU8::new(0),
            tracks_delivery: AtomicBool::new(false),
            class_of_post: OnceLock::new(),
            file_outlook: OnceLock::new(),
            file_requests_changed: watch::Sender::new(0),
            due_changed: watch::Sender::new(0),
            push_changed: watch::Sender::new(0),
            jobs_changed: watch::Sender::new(0),
            writer: Mutex::new(Writer { db, last_at, last_change, members: ChannelMembers::default() }),
            readers: Mutex::new(Vec::new()),
            outbox_changed: watch::Sender::new(0),
            statuses: Mutex::new(HashMap::new()),
            uploads: crate::uploads::Busy::default(),
            triggers: crate::integrations::actions::Triggers::default(),
            _lock: lock,
            dir,
        })))
    }

    /// The configuration.
    pub fn settings(&self) -> &CoreSettings {
        &self.0.settings
    }

    /// This node.
    pub fn node(&self) -> NodeId {
        self.0.node
    }

    /// This node's configured name.
    pub fn node_name(&self) -> &str {
        &self.0.node_name
    }

    /// Stable id of this server for clients (`DiagnosticId`); made with the store.
    pub fn diagnostic_id(&self) -> Id {
        self.0.diagnostic_id
    }

    /// An unguessable id, e.g. for requests, connections and tokens.
    pub fn random_id(&self) -> Id {
        random_id()
    }

    /// Wall time.
    pub fn now(&self) -> UnixMillis {
        self.0.clock.now()
    }

    /// Runs `f` on a read connection.
    pub(crate) fn read<T, E: From<rusqlite::Error>>(
        &self,
        f: impl FnOnce(&Connection) -> Result<T, E>,
    ) -> Result<T, E> {
        let pooled = lock(&self.0.readers).pop();
        let db = match pooled {
            Some(db) => db,
            None => connect(&self.0.dir, false)?,
        };
        // One snapshot for the whole call, so that a list and what hangs on it agree.
        db.execute_batch("BEGIN")?;
        let result = f(&db);
        if db.execute_batch("COMMIT").is_ok() {
            let mut pool = lock(&self.0.readers);
            if pool.len() < READERS_KEPT {
                pool.push(db);
            }
        }
        result
    }

    /// Runs `f` in the one write transaction, commits, then broadcasts. An error rolls everything back.
    pub(crate) fn write<T, E: From<rusqlite::Error>>(
        &self,
        f: impl FnOnce(&mut Tx<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut guard = lock(&self.0.writer);
        let writer = &mut *guard;
        let now = self.0.clock.now();
        writer.members.settle();
        let db = writer.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut tx = Tx {
            db,
            core: &self.0,
            now: now.0,
            last_at: writer.last_at,
            last_change: writer.last_change,
            members: &mut writer.members,
            broadcasts: Vec::new(),
            sessions_ended: Vec::new(),
            late_threads: BTreeMap::new(),
            outbox_rows: 0,
            pushes_noted: false,
            is_history: false,
        };
        let value = f(&mut tx)?;
        tx.tell_late_threads()?;
        let Tx { db, last_at, last_change, broadcasts, sessions_ended, outbox_rows, pushes_noted, .. } = tx;
        db.commit()?;
        writer.last_at = last_at;
        writer.last_change = last_change;
        for broadcast in broadcasts {
            self.0.events.publish(broadcast);
        }
        for user in sessions_ended {
            self.0.events.sessions_ended(user);
        }
        if outbox_rows > 0 {
            self.0.outbox_changed.send_modify(|n| *n += outbox_rows);
        }
        if pushes_noted {
            self.0.push_changed.send_modify(|n| *n += 1);
        }
        Ok(value)
    }

    /// Closes the read connections that nobody uses.
    pub(crate) fn recycle_readers(&self) {
        lock(&self.0.readers).clear();
    }

    /// Read connections that nobody uses at the moment.
    pub(crate) fn idle_readers(&self) -> i64 {
        i64::try_from(lock(&self.0.readers).len()).unwrap_or(i64::MAX)
    }

    /// Rewrites the search index where that is due, gives free pages back and empties the write-ahead log: none holds old content then.
    pub(crate) fn scrub_database(&self) -> Result<(), StoreError> {
        let mut writer = lock(&self.0.writer);
        if exists(&writer.db, "SELECT 1 FROM meta WHERE key = ?1", [index::REWRITE])? {
            let rewrite = writer.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            index::scrub(&rewrite)?;
            run(&rewrite, "DELETE FROM meta WHERE key = ?1", [index::REWRITE])?;
            rewrite.commit()?;
        }
        let mut vacuum = writer.db.prepare("PRAGMA incremental_vacuum")?;
        let mut steps = vacuum.query([])?;
        while steps.next()?.is_some() {}
        drop(steps);
        drop(vacuum);
        writer.db.busy_timeout(CHECKPOINT_WAIT)?;
        let busy = writer.db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |r| r.get::<_, i64>(0));
        writer.db.busy_timeout(BUSY_WAIT)?;
        match busy? {
            0 => Ok(()),
            _ => Err(StoreError("the write-ahead log is in use by a long read".to_owned())),
        }
    }

    /// The highest hybrid clock reading that an outbox row ever had.
    pub fn highest_outbox_hlc(&self) -> Hlc {
        lock(&self.0.writer).last_at
    }
}

/// A write transaction with what must happen after its commit.
pub(crate) struct Tx<'a> {
    pub(crate) db: rusqlite::Transaction<'a>,
    pub(crate) core: &'a Inner,
    pub(crate) now: i64,
    last_at: Hlc,
    last_change: i64,
    pub(crate) members: &'a mut ChannelMembers,
    pub(crate) broadcasts: Vec<Broadcast>,
    /// Users some of whose sessions end with this commit.
    pub(crate) sessions_ended: Vec<Id>,
    /// Threads that got late replies, with their channels.
    pub(crate) late_threads: BTreeMap<Id, Id>,
    outbox_rows: u64,
    /// What is written was said elsewhere before: it travels behind everything of today.
    pub(crate) is_history: bool,
    /// Notifications changed; whoever sends them is told after the commit, or would look before there is something.
    pub(crate) pushes_noted: bool,
}

impl Tx<'_> {
    /// A place in the outbox, after every earlier one.
    pub(crate) fn tick(&mut self) -> Hlc {
        let now = UnixMillis(self.now);
        let mut at = self.core.hybrid.tick(now);
        if at <= self.last_at {
            // The hybrid clock was made afresh and the wall clock stepped back: carry on from the store.
            at = Hlc(self.last_at.0 + 1);
            self.core.hybrid.observe(at, now);
        }
        self.last_at = at;
        at
    }

    /// The version of a state made here at `at`: above `current`, whatever clock made that one.
    pub(crate) fn version_after(&self, at: Hlc, current: Option<Version>) -> Version {
        let floor = current.map_or(Hlc::ZERO, |v| Hlc(v.at.0.saturating_add(1)));
        Version { at: at.max(floor), by: self.core.node }
    }

    /// Puts the event into the outbox, in this transaction.
    pub(crate) fn emit(&mut self, at: Hlc, event: &Event) -> rusqlite::Result<()> {
        self.db
            .prepare_cached("INSERT INTO outbox (at, kind, origin_time, event, history) VALUES (?1, ?2, ?3, ?4, ?5)")?
            .execute(params![
                at.0 as i64,
                event.kind() as u8,
                self.now,
                event.encode_with(&mut RawIds),
                self.is_history
            ])?;
        self.outbox_rows += 1;
        Ok(())
    }

    /// The next change position: wall time where it leads, strictly increasing, and not below `floor`
    /// (a time that clients have seen) unless that lies absurdly far ahead.
    pub(crate) fn change(&mut self, floor: i64) -> i64 {
        let floor = if floor <= self.now.saturating_add(HybridClock::SKEW_MAX_MS) { floor } else { 0 };
        self.last_change = self.now.max(self.last_change + 1).max(floor);
        self.last_change
    }

    /// A new id for an object.
    pub(crate) fn mint(&self) -> Id {
        self.core.mint.mint()
    }

    /// Announces after the commit.
    pub(crate) fn tell(&mut self, broadcast: Broadcast) {
        self.broadcasts.push(broadcast);
    }
}

/// Locks; a panic elsewhere while holding it left no half-done state, since SQLite rolled back.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// How long a statement waits for other connections.
const BUSY_WAIT: Duration = Duration::from_secs(10);
/// How long emptying the write-ahead log waits for readers. Nobody writes meanwhile; a read of a request is over by then, and an
/// export is not for hours.
const CHECKPOINT_WAIT: Duration = Duration::from_millis(200);

/// 128 random bits as an id.
pub(crate) fn random_id() -> Id {
    let mut block = [0u8; 16];
    getrandom::fill(&mut block).expect("the operating system gives random bytes");
    Id::from_block(block)
}

fn connect(dir: &Path, writer: bool) -> rusqlite::Result<Connection> {
    let base = OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let flags = if writer {
        base | OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE
    } else {
        base | OpenFlags::SQLITE_OPEN_READ_ONLY
    };
    let db = Connection::open_with_flags(dir.join(DATABASE), flags)?;
    db.busy_timeout(BUSY_WAIT)?;
    db.set_prepared_statement_cache_capacity(256);
    index::functions(&db)?;
    if writer {
        // What is deleted is overwritten, and free pages are given back: a purge must leave nothing in them. The second
        // can only be chosen before the first table is made.
        db.pragma_update(None, "secure_delete", "ON")?;
        db.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
        db.pragma_update(None, "journal_mode", "WAL")?;
        db.pragma_update(None, "synchronous", "FULL")?;
    }
    Ok(db)
}

fn last_outbox_at(db: &Connection) -> rusqlite::Result<Hlc> {
    let rows = count(db, "SELECT coalesce(max(at), 0) FROM outbox", [])?;
    let acked = get(db, "SELECT value FROM meta WHERE key = 'outbox_acked'", [], |r| r.get::<_, i64>(0))?;
    Ok(Hlc(rows.max(acked.unwrap_or(0)) as u64))
}

fn diagnostic_id(db: &Connection) -> rusqlite::Result<Id> {
    db.execute(
        "INSERT INTO meta (key, value) VALUES ('diagnostic_id', ?1) ON CONFLICT DO NOTHING",
        [random_id().as_str()],
    )?;
    db.query_row("SELECT value FROM meta WHERE key = 'diagnostic_id'", [], |r| crate::rows::id(r, "value"))
}

/// Deterministic id of a direct or group channel: two nodes that open it apart make the same channel.
pub(crate) fn channel_id_of_name(name: &str) -> Id {
    let mut block = [0u8; 16];
    block.copy_from_slice(&blake3::derive_key("holdfast direct channel id v1", name.as_bytes())[..16]);
    Id::from_block(block)
}

/// The version columns of the row that `sql` selects.
pub(crate) fn version_of(
    db: &Connection,
    sql: &str,
    params: impl rusqlite::Params,
) -> rusqlite::Result<Option<Version>> {
    get(db, sql, params, put_version)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::NoEvents;
    use crate::testkit::{Node, TestClock};

    struct NoMint;

    impl IdMint for NoMint {
        fn mint(&self) -> Id {
            random_id()
        }
    }

    fn open(dir: &Path) -> Result<Core, OpenError> {
        Core::open(CoreOptions {
            dir: dir.to_owned(),
            node: NodeId([9; 16]),
            node_name: "nine".to_owned(),
            mint: Arc::new(NoMint),
            clock: Arc::new(TestClock::default()),
            hybrid: Arc::new(HybridClock::default()),
            events: Arc::new(NoEvents),
            settings: CoreSettings::default(),
        })
    }

    #[test]
    fn a_second_opening_is_refused_while_the_first_lives() {
        let dir = tempfile::tempdir().unwrap();
        let first = open(dir.path()).unwrap();
        assert!(matches!(open(dir.path()).err(), Some(OpenError::InUse { .. })));
        let id = first.diagnostic_id();
        drop(first);
        assert_eq!(open(dir.path()).unwrap().diagnostic_id(), id);
    }

    #[test]
    fn a_store_of_a_newer_program_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        drop(open(dir.path()).unwrap());
        let file = dir.path().join(DATABASE);
        Connection::open(&file).unwrap().pragma_update(None, "user_version", 99).unwrap();
        let error = open(dir.path()).err().unwrap();
        assert!(matches!(error, OpenError::Newer { found: 99, .. }), "{error}");
        assert!(error.next_step().contains("newer"));
        let found: i64 = Connection::open(&file).unwrap().query_row("PRAGMA user_version", [], |r| r.get(0)).unwrap();
        assert_eq!(found, 99);
    }

    #[test]
    fn what_was_committed_is_there_after_reopening() {
        let node = Node::new(1);
        let alice = node.user("alice");
        let (_, square) = node.team(&alice, "mission");
        let post = node.say(&alice, square.id, None, "kept");
        let before = node.core.export_snapshot().unwrap();
        let node = node.reopened();
        assert_eq!(node.core.export_snapshot().unwrap(), before);
        let again = node.core.session(&alice.token).unwrap();
        assert_eq!(node.core.post(&again, post.id, false).unwrap().message, "kept");
    }

    #[test]
    fn an_unknown_setting_is_refused() {
        let parse = |text: &str| serde_json::from_str::<CoreSettings>(text);
        assert_eq!(parse("{}").unwrap(), CoreSettings::default());
        assert!(parse(r#"{"site_nam": "x"}"#).is_err());
    }
}
