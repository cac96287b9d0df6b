//! Events in, entries out: the only writer of local entries into the journal.
//!
//! ```text
//!  mission core's outbox --read--> label, precedence, body --append--> journal
//!          ^                            (file bytes as chunks first)     |
//!          `------------- acknowledge (row deleted) <--- durable --------'
//! ```
//!
//! Invariants
//! - A row is acknowledged only after its entry survives power loss.
//! - Rows become entries in their order, each once: the journal refuses an entry that does not follow the row before it.
//! - What no release rule covers is captured all the same, labelled `local`, and counted as withheld where it may not go.
//!
//! Not here: what an event means (mission), which bytes go first (shaper), who may get a label (link).
//! Start reading at [`Capture::run`]; the rules are in `policy`.

mod policy;
mod settings;

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use journal::{AppendError, Draft, FileInProgress, Journal, Ticket};
use mission::{Core, OutboxRow, StoreError};
use model::event::FileState;
use model::{Clock, Event, Hlc, Label, Manifest, ObjectRef, Precedence, Sensitive, SourcePosition, SupersessionKey};
use telemetry::{Health, Metrics, Verdict};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};
use wire::chunk::{Namer, build_manifest};

use policy::Place;
pub use settings::{CaptureSettings, ChannelKind, PrecedenceRule, ReleaseRule};

/// Rows taken in one round: one group commit serves them all, and one round's drafts stay well below 64 MiB.
const ROWS_PER_ROUND: usize = 64;

/// Wait before a refused row is tried again. Space on a disk comes back in seconds, not in milliseconds.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Name of the check on the health board.
const CHECK: &str = "capture";

/// What capture works with.
pub struct CaptureOptions {
    /// Source of the events.
    pub core: Core,
    /// Where entries go.
    pub journal: Journal,
    /// Labels and precedence.
    pub settings: CaptureSettings,
    /// This node's chunk secret: under it file content is named.
    pub chunk_secret: Sensitive<[u8; 32]>,
    /// Salt under which this process mints ids; those ids cost a few bytes in an entry.
    pub mint_salt: u64,
    /// For the age of what waits.
    pub clock: Arc<dyn Clock>,
    /// Figures.
    pub metrics: Arc<Metrics>,
    /// Where trouble is reported.
    pub health: Health,
}

/// A row could not be captured. It stays in the outbox and is tried again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CaptureError {
    /// The core's database did not answer.
    #[error("reading the outbox failed; nothing was taken from it")]
    Core(#[from] StoreError),
    /// The journal did not take the entry.
    #[error("the journal did not take the entry; the change is safe in the mission core's database")]
    Journal(#[from] AppendError),
    /// The journal could not be read.
    #[error("the journal could not be read; the change is safe in the mission core's database")]
    Read(#[from] journal::ReadError),
    /// The file's bytes could not be read.
    #[error("reading a file's bytes failed; the file stays in the mission core")]
    File(#[from] std::io::Error),
}

impl CaptureError {
    /// What the operator should do.
    pub fn next_step(&self) -> &'static str {
        match self {
            Self::Core(_) | Self::File(_) => "check the disk that holds the data directory",
            Self::Journal(e) => e.next_step(),
            Self::Read(e) => e.next_step(),
        }
    }
}

/// An entry on its way to the disk.
struct Pending {
    class: Precedence,
    ticket: Ticket<journal::Appended>,
    /// Keeps the file's chunks from being trimmed until the entry that names them is durable.
    _file: Option<FileInProgress>,
}

/// Turns the outbox of a mission core into journal entries.
pub struct Capture(Arc<CaptureOptions>);

impl Capture {
    /// Capture from `options.core` into `options.journal`.
    pub fn new(options: CaptureOptions) -> Self {
        Self(Arc::new(options))
    }

    /// Captures until `stop`. Rows that are committed but not captured then are captured at the next start.
    pub async fn run(self, stop: CancellationToken) {
        let mut changed = self.0.core.outbox_changed();
        loop {
            changed.borrow_and_update();
            let options = Arc::clone(&self.0);
            // A round is short (one group commit) except for large files, whose reading must not block the runtime.
            let round = tokio::task::spawn_blocking(move || options.round()).await;
            let pause = match round.expect("a capture round does not panic") {
                Ok(0) => None,
                Ok(_) => continue,
                Err(e) => {
                    warn!(error = %e, source = ?std::error::Error::source(&e).map(ToString::to_string), "capture waits");
                    self.0.health.report(CHECK, Verdict::failing(e.to_string(), e.next_step()));
                    Some(RETRY_AFTER)
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                _ = changed.changed(), if pause.is_none() => {}
                () = tokio::time::sleep(pause.unwrap_or_default()), if pause.is_some() => {}
            }
        }
    }
}

impl CaptureOptions {
    /// Captures up to [`ROWS_PER_ROUND`] rows. Returns how many were taken from the outbox.
    fn round(&self) -> Result<usize, CaptureError> {
        let rows = self.core.outbox_read(Hlc::ZERO, ROWS_PER_ROUND)?;
        self.report_pending(&rows)?;
        let Some(newest) = rows.last().map(|row| row.at) else {
            self.health.report(CHECK, Verdict::ok("every change is in the journal"));
            return Ok(0);
        };
        let captured = self.journal.highest_source();
        let mut follows = captured;
        let mut tickets: Vec<Pending> = Vec::with_capacity(rows.len());
        let mut taken = 0;
        let mut failed = None;
        for row in &rows {
            // In the journal already: the process ended between the append and the acknowledgement.
            if captured.is_some_and(|c| row.at <= c.0) {
                taken += 1;
                continue;
            }
            match self.draft(row, follows) {
                Ok((draft, file)) => {
                    follows = Some(draft.source);
                    let class = draft.precedence;
                    tickets.push(Pending { class, ticket: self.journal.append_own(draft), _file: file });
                }
                Err(e) => {
                    failed = Some(e);
                    break;
                }
            }
        }
        let mut durable = taken;
        for pending in tickets {
            // Everything behind a refused entry is refused too (`follows`), so the durable rows are a prefix.
            match pending.ticket.wait() {
                Ok(appended) => {
                    durable += 1;
                    self.metrics.capture_rows_total.inc((pending.class,));
                    debug!(id = %appended.id, "captured");
                }
                Err(e) => {
                    failed.get_or_insert(CaptureError::Journal(e));
                    break;
                }
            }
        }
        taken = durable;
        if taken > 0 {
            let up_to = rows.get(taken - 1).map_or(newest, |row| row.at);
            self.core.outbox_ack(up_to)?;
        }
        match failed {
            Some(e) => Err(e),
            None => Ok(taken),
        }
    }

    fn report_pending(&self, rows: &[OutboxRow]) -> Result<(), CaptureError> {
        let pending = if rows.len() < ROWS_PER_ROUND { rows.len() as u64 } else { self.core.outbox_stats()?.rows };
        self.metrics.capture_pending_rows.set_count((), pending);
        let age = rows.first().map_or(0, |row| (self.clock.now().0 - row.origin_time.0).max(0));
        self.metrics.capture_lag_seconds.set((), age as f64 / 1_000.0);
        Ok(())
    }

    /// The entry for one row, and the guard of its chunks if it is a file.
    fn draft(
        &self,
        row: &OutboxRow,
        follows: Option<SourcePosition>,
    ) -> Result<(Draft, Option<FileInProgress>), CaptureError> {
        let place = self.place(&row.event)?;
        let label = policy::label(&self.settings, &place);
        let precedence = policy::precedence(&self.settings, &row.event, &place);
        let mut event = row.event.clone();
        let mut in_progress = None;
        let mut chunks = None;
        if let Event::File(file) = &mut event {
            // Without its bytes the entry still goes out: the other side then accounts for the file by name.
            if let Some((manifest, guard)) = self.store_content(file, &label)? {
                chunks = Some(guard.chunks(manifest.content_bytes));
                file.content = Some(manifest);
                in_progress = Some(guard);
            } else {
                warn!(file = %file.stub.id, "the bytes of a file are gone from the core before they were captured");
            }
        }
        let object = event.object().key();
        let body = wire::encode_event(&event, self.core.node(), self.mint_salt);
        let draft = Draft {
            source: SourcePosition(row.at),
            follows,
            stream: event.stream(),
            causes: Vec::new(),
            needs: event.needs().iter().map(ObjectRef::key).collect(),
            precedence,
            captured: row.at,
            origin_time: row.origin_time,
            expiry: None,
            supersedes: is_update(&event).then_some(SupersessionKey(object.0)),
            label,
            kind: event.kind(),
            mint_salt: self.mint_salt,
            body,
            object: Some(object),
            chunks,
        };
        Ok((draft, in_progress))
    }

    fn store_content(
        &self,
        file: &FileState,
        label: &Label,
    ) -> Result<Option<(Manifest, FileInProgress)>, CaptureError> {
        let Some(path) = self.core.file_path(file.stub.id)? else { return Ok(None) };
        let in_progress = self.journal.begin_file();
        let bytes = match File::open(path) {
            Ok(bytes) => bytes,
            // Waiting for bytes that are gone would hold up everything that was written after them.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        let mut pending: Vec<Ticket<journal::ChunkPut>> = Vec::new();
        let namer = Namer::new(&self.chunk_secret.0, label);
        let manifest = build_manifest(bytes, &namer, |name, chunk| {
            pending.push(self.journal.put_chunk(name, chunk));
            // 64 chunks of 16 KiB: one group commit for each MiB, and no more than that waiting in memory.
            if pending.len() >= 64 {
                pending.drain(..).try_for_each(|ticket| ticket.wait().map(drop))?;
            }
            Ok::<(), CaptureError>(())
        })?;
        pending.drain(..).try_for_each(|ticket| ticket.wait().map(drop))?;
        Ok(Some((manifest, in_progress)))
    }

    fn place(&self, event: &Event) -> Result<Place, CaptureError> {
        Ok(match event.stream() {
            model::StreamId::Directory => Place::Directory,
            model::StreamId::Team(id) => self.core.team_name(id)?.map_or(Place::Unknown, |team| Place::Team { team }),
            model::StreamId::Channel(id) => match self.core.channel_place(id)? {
                None => Place::Unknown,
                Some(found) => match (found.kind.as_str(), found.team) {
                    ("D", _) => Place::Private(ChannelKind::Direct),
                    ("G", _) => Place::Private(ChannelKind::Group),
                    ("O", Some(team)) => Place::Channel { team, channel: found.name, kind: ChannelKind::Open },
                    (_, Some(team)) => Place::Channel { team, channel: found.name, kind: ChannelKind::Private },
                    (_, None) => Place::Unknown,
                },
            },
        })
    }
}

/// Later states of a user, team or channel make an unsent earlier one moot. The creating state never is: other
/// entries have it as a cause. Posts and reactions never are either: the record keeps every edit.
fn is_update(event: &Event) -> bool {
    match event {
        Event::User(s) => s.update_at > s.create_at,
        Event::Team(s) => s.update_at > s.create_at,
        Event::Channel(s) => s.update_at > s.create_at,
        Event::TeamMember(_) | Event::ChannelMember(_) | Event::Post(_) | Event::Reaction(_) | Event::File(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use journal::{AtRest, IndexPlace, JournalOptions, JournalSettings, StdDisk};
    use mission::types::{ClientInfo, Login, NewPost, NewTeam};
    use mission::ws::WsHub;
    use mission::{CoreOptions, CoreSettings};
    use model::{HybridClock, Id, IdMint, Kind, LocalPos, NodeId, UnixMillis};
    use std::sync::atomic::{AtomicU8, Ordering};

    const ME: NodeId = NodeId([1; 16]);

    #[derive(Default)]
    struct Fixed(AtomicU8);

    impl Clock for Fixed {
        fn now(&self) -> UnixMillis {
            UnixMillis(1_700_000_000_000)
        }
    }

    impl IdMint for Fixed {
        fn mint(&self) -> Id {
            Id::from_block([self.0.fetch_add(1, Ordering::SeqCst); 16])
        }
    }

    #[test]
    fn a_file_whose_bytes_are_gone_holds_up_nothing_behind_it() {
        let dir = tempfile::tempdir().unwrap();
        let clock: Arc<dyn Clock> = Arc::new(Fixed::default());
        let core = Core::open(CoreOptions {
            dir: dir.path().join("core"),
            node: ME,
            node_name: "alpha".to_owned(),
            mint: Arc::new(Fixed::default()),
            clock: Arc::clone(&clock),
            hybrid: Arc::new(HybridClock::default()),
            events: Arc::new(WsHub::new(CancellationToken::new())),
            settings: CoreSettings::default(),
        })
        .unwrap();
        let (journal, _) = Journal::open(JournalOptions {
            dir: dir.path().join("journal"),
            node: ME,
            disk: Arc::new(StdDisk),
            clock: Arc::clone(&clock),
            settings: JournalSettings::default(),
            index: IndexPlace::Memory,
            at_rest: AtRest::Plain,
        })
        .unwrap();
        let options = CaptureOptions {
            core: core.clone(),
            journal: journal.clone(),
            settings: CaptureSettings::default(),
            chunk_secret: Sensitive([3; 32]),
            mint_salt: 1,
            clock: Arc::clone(&clock),
            metrics: Arc::new(Metrics::new()),
            health: Health::new(clock),
        };
        let (password, email) = ("correct-horse-1".to_owned(), "alice@example.com".to_owned());
        core.operator_creates_user("alice", &email, &password, true).unwrap();
        let login = Login { login_id: "alice".to_owned(), password, ..Login::default() };
        let alice = core.login(&login, &ClientInfo::default()).unwrap().1;
        let team = NewTeam { name: "mission".into(), display_name: "M".into(), kind: "O".into(), ..NewTeam::default() };
        let team = core.create_team(&alice, &team).unwrap();
        let square = core.channel_by_name(&alice, team.id, "town-square", false).unwrap();
        let mut upload = core.begin_upload(&alice, square.id, "map.bin").unwrap();
        upload.write_all(b"a map").unwrap();
        let file = upload.finish().unwrap();
        let post = NewPost {
            channel_id: square.id.to_string(),
            message: "the map".to_owned(),
            file_ids: vec![file.id.to_string()],
            ..NewPost::default()
        };
        core.create_post(&alice, &post, true).unwrap();
        std::fs::remove_file(core.file_path(file.id).unwrap().unwrap()).unwrap();
        while options.round().unwrap() > 0 {}
        assert_eq!(core.outbox_stats().unwrap().rows, 0);
        let entries = journal.list(LocalPos::START..journal.head(), 100).unwrap();
        let has = |kind: Kind| entries.iter().any(|listed| listed.entry.header.kind == kind);
        assert!(has(Kind::File) && has(Kind::Post), "the file is accounted for by name");
    }
}
