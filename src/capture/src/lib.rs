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
//! - A row that the journal has no room for holds up no more urgent one; see `aside`.
//! - A row that no entry can hold goes out without its content, and ends at every receiver as quarantined, by name: it holds up nothing.
//! - What no release rule covers is captured all the same, labelled `local`, and counted as withheld where it may not go.
//!
//! Not here: what an event means (mission), which bytes go first (shaper), who may get a label (link).
//! Start reading at [`Capture::run`]; the rules are in `policy`.

mod aside;
mod policy;
mod settings;

use std::fs::File;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use journal::{AppendError, Draft, FileInProgress, Journal, Ticket};
use mission::{Core, OutboxRow, StoreError};
use model::event::{FileState, PurgeState};
use model::{Clock, Event, Hlc, Label, Manifest, ObjectRef, Precedence, Sensitive, SourcePosition, SupersessionKey};
use telemetry::{Health, Metrics, Verdict};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};
use wire::chunk::{Namer, build_manifest};

use aside::Aside;
use policy::Place;
pub use policy::class_of_post;
pub use settings::{CaptureSettings, ChannelKind, PrecedenceRule, ReleaseRule};

/// Rows taken in one round: one group commit serves them all, and one round's drafts stay well below 64 MiB.
const ROWS_PER_ROUND: usize = 64;

/// Wait before a refused row is tried again. Space on a disk comes back in seconds, not in milliseconds.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Name of the check on the health board.
const CHECK: &str = "capture";

/// Name of the check on what no entry can hold; it stays until the restart.
const CHECK_TOO_LARGE: &str = "capture-too-large";

/// Largest body that fits into an entry with any header and the number before it.
const BODY_BYTES_MAX: usize = wire::entry::ENTRY_BYTES_MAX - wire::entry::HEADER_BYTES_MAX - 4;

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

/// What became of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Round {
    /// The outbox is empty.
    Idle,
    /// Something was taken from it.
    Took,
    /// What is in it waits for room.
    Waits,
}

/// An entry on its way to the disk.
struct Pending {
    class: Precedence,
    ticket: Ticket<journal::Appended>,
    /// Keeps the file's chunks from being trimmed until the entry that names them is durable.
    _file: Option<FileInProgress>,
}

/// Turns the outbox of a mission core into journal entries.
pub struct Capture {
    options: Arc<CaptureOptions>,
    /// Read from the core's database in the first round.
    aside: Arc<Mutex<Option<Aside>>>,
}

impl Capture {
    /// Capture from `options.core` into `options.journal`.
    pub fn new(options: CaptureOptions) -> Self {
        Self { options: Arc::new(options), aside: Arc::default() }
    }

    /// Captures until `stop`. Rows that are committed but not captured then are captured at the next start.
    pub async fn run(self, stop: CancellationToken) {
        let mut changed = self.options.core.outbox_changed();
        loop {
            changed.borrow_and_update();
            let (options, aside) = (Arc::clone(&self.options), Arc::clone(&self.aside));
            // A round is short (one group commit) except for large files, whose reading must not block the runtime.
            let round = tokio::task::spawn_blocking(move || options.round(&aside)).await;
            let (pause, listens) = match round.expect("a capture round does not panic") {
                Ok(Round::Idle) => (None, true),
                Ok(Round::Took) => continue,
                // Something urgent need not wait with it.
                Ok(Round::Waits) => (Some(RETRY_AFTER), true),
                Err(e) => {
                    warn!(error = %e, source = ?std::error::Error::source(&e).map(ToString::to_string), "capture waits");
                    self.options.health.report(CHECK, Verdict::failing(e.to_string(), e.next_step()));
                    (Some(RETRY_AFTER), false)
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                _ = changed.changed(), if listens => {}
                () = tokio::time::sleep(pause.unwrap_or_default()), if pause.is_some() => {}
            }
        }
    }
}

impl CaptureOptions {
    /// Captures up to [`ROWS_PER_ROUND`] rows.
    fn round(&self, aside: &Mutex<Option<Aside>>) -> Result<Round, CaptureError> {
        let mut aside = aside.lock().unwrap_or_else(PoisonError::into_inner);
        if aside.is_none() {
            *aside = Some(Aside::load(&self.core)?);
        }
        let aside = aside.as_mut().expect("it was put there");
        let space = self.journal.space();
        aside.take_back(&self.core, space.level)?;
        let rows = self.core.outbox_read(Hlc::ZERO, ROWS_PER_ROUND)?;
        self.report_pending(&rows)?;
        if rows.is_empty() && aside.len() == 0 {
            self.health.report(CHECK, Verdict::ok("every change is in the journal"));
            return Ok(Round::Idle);
        }
        let captured = self.journal.highest_source();
        // In the journal already: the process ended between the append and the acknowledgement.
        let (done, rows): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| captured.is_some_and(|c| row.at <= c.0));
        if let Some(last) = done.last() {
            self.core.outbox_ack(last.at)?;
        }
        let full_round = done.len() + rows.len() == ROWS_PER_ROUND;
        let classed = rows.into_iter().map(|row| {
            let class = self.class(&row, &self.place(&row.event)?);
            Ok((row, class))
        });
        let classed: Vec<_> = classed.collect::<Result<_, CaptureError>>()?;
        let waiting = classed.len();
        let rows = aside.part(&self.core, space.level, classed, full_round)?;
        if rows.is_empty() && (!full_round || waiting == 0) {
            return Ok(self.wait_for_room(&space, waiting.max(aside.len()), !done.is_empty()));
        }
        let taken = self.capture(aside, captured, &rows)?;
        Ok(if taken + done.len() > 0 || full_round { Round::Took } else { Round::Waits })
    }

    fn wait_for_room(&self, space: &journal::Space, rows: usize, took: bool) -> Round {
        if took {
            return Round::Took;
        }
        let next = space.cause.unwrap_or(journal::SpaceCause::Disk).next_step();
        self.health.report(CHECK, Verdict::degraded(format!("{rows} changes wait for room in the journal"), next));
        Round::Waits
    }

    /// Appends the rows and takes from the outbox those that are durable. Returns how many.
    fn capture(
        &self,
        aside: &mut Aside,
        captured: Option<SourcePosition>,
        rows: &[(OutboxRow, Precedence)],
    ) -> Result<usize, CaptureError> {
        let mut follows = captured;
        let mut tickets: Vec<Pending> = Vec::with_capacity(rows.len());
        let mut failed = None;
        for (row, class) in rows {
            match self.draft(row, follows) {
                Ok((draft, file)) => {
                    follows = Some(draft.source);
                    tickets.push(Pending { class: *class, ticket: self.journal.append_own(draft), _file: file });
                }
                Err(e) => {
                    failed = Some((*class, e));
                    break;
                }
            }
        }
        let mut taken: usize = 0;
        for pending in tickets {
            // Everything behind a refused entry is refused too (`follows`), so the durable rows are a prefix.
            match pending.ticket.wait() {
                Ok(appended) => {
                    taken += 1;
                    self.metrics.capture_rows_total.inc((pending.class,));
                    debug!(id = %appended.id, "captured");
                }
                Err(e) => {
                    failed = Some((pending.class, CaptureError::Journal(e)));
                    break;
                }
            }
        }
        if let Some((last, _)) = taken.checked_sub(1).and_then(|last| rows.get(last)) {
            self.core.outbox_ack(last.at)?;
        }
        let Some((class, e)) = failed else { return Ok(taken) };
        if let CaptureError::Journal(e) = &e {
            aside.note_refused(class, e);
        }
        Err(e)
    }

    fn report_pending(&self, rows: &[OutboxRow]) -> Result<(), CaptureError> {
        let pending = if rows.len() < ROWS_PER_ROUND { rows.len() as u64 } else { self.core.outbox_stats()?.rows };
        self.metrics.capture_pending_rows.set_count((), pending);
        let age = rows.first().map_or(0, |row| (self.clock.now().0 - row.origin_time.0).max(0));
        self.metrics.capture_lag_seconds.set((), age as f64 / 1_000.0);
        Ok(())
    }

    /// What was said elsewhere before must not delay what is said today.
    fn class(&self, row: &OutboxRow, place: &policy::Place) -> Precedence {
        match row.is_history {
            true => Precedence::Deferred,
            false => policy::precedence(&self.settings, &row.event, place),
        }
    }

    /// The entry for one row, and the guard of its chunks if it is a file.
    fn draft(
        &self,
        row: &OutboxRow,
        follows: Option<SourcePosition>,
    ) -> Result<(Draft, Option<FileInProgress>), CaptureError> {
        let place = self.place(&row.event)?;
        // Where the content could go, the order to remove it goes, whatever the rules are by now.
        let known = order_in(&row.event).and_then(|order| order.label.clone());
        let label = known.unwrap_or_else(|| policy::label(&self.settings, &place));
        let precedence = self.class(row, &place);
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
        let mut body = wire::encode_event(&event, self.core.node(), self.mint_salt);
        if body.len() > BODY_BYTES_MAX {
            self.report_too_large(&event, body.len());
            // No event is without bytes: each receiver quarantines the entry, and every sum has it.
            body = Vec::new();
        }
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

    fn report_too_large(&self, event: &Event, bytes: usize) {
        let object = event.object();
        let text = format!(
            "{object:?} has {bytes} bytes, more than an entry holds; it is here and in no other node, where it counts as quarantined"
        );
        warn!(bytes, ?object, "what no entry can hold goes out without its content");
        let next = "remove part of its text or of its props, or say it again in parts: the change travels then";
        self.health.report(CHECK_TOO_LARGE, Verdict::degraded(text, next));
    }

    fn store_content(
        &self,
        file: &FileState,
        label: &Label,
    ) -> Result<Option<(Manifest, FileInProgress)>, CaptureError> {
        let Some(path) = self.core.file_path(file.stub.id)? else { return Ok(None) };
        let mut in_progress = self.journal.begin_file();
        let bytes = match File::open(path) {
            Ok(bytes) => bytes,
            // Waiting for bytes that are gone would hold up everything that was written after them.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        let namer = Namer::new(&self.chunk_secret.0, label);
        let manifest = build_manifest(bytes, &namer, |name, chunk| {
            in_progress.put(&namer, name, chunk).map_err(CaptureError::from)
        })?;
        in_progress.finish(&namer)?;
        Ok(Some((manifest, in_progress)))
    }

    fn place(&self, event: &Event) -> Result<Place, CaptureError> {
        let channel = order_in(event).and_then(|order| order.channel_id).map(model::StreamId::Channel);
        let stream = channel.unwrap_or_else(|| event.stream());
        Ok(match stream {
            model::StreamId::Purge => Place::Unknown,
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

fn order_in(event: &Event) -> Option<&PurgeState> {
    if let Event::Purge(order) = event { Some(order) } else { None }
}

/// Later states of a user, team or channel make an unsent earlier one moot. The creating state never is: other
/// entries have it as a cause. Posts and reactions never are either: the record keeps every edit.
fn is_update(event: &Event) -> bool {
    match event {
        Event::User(s) => s.update_at > s.create_at,
        Event::Team(s) => s.update_at > s.create_at,
        Event::Channel(s) => s.update_at > s.create_at,
        Event::TeamMember(_)
        | Event::ChannelMember(_)
        | Event::Post(_)
        | Event::Reaction(_)
        | Event::File(_)
        | Event::Emoji(_)
        | Event::Purge(_)
        | Event::Acknowledgement(_)
        | Event::Bookmark(_) => false,
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
    use std::sync::atomic::{AtomicU64, Ordering};

    const ME: NodeId = NodeId([1; 16]);

    struct Fixed;

    impl Clock for Fixed {
        fn now(&self) -> UnixMillis {
            UnixMillis(1_700_000_000_000)
        }
    }

    /// No id twice, whatever was opened before.
    struct Counting;

    impl IdMint for Counting {
        fn mint(&self) -> Id {
            static NEXT: AtomicU64 = AtomicU64::new(1);
            let mut block = [7; 16];
            block[..8].copy_from_slice(&NEXT.fetch_add(1, Ordering::SeqCst).to_le_bytes());
            Id::from_block(block)
        }
    }

    #[test]
    fn a_file_whose_bytes_are_gone_holds_up_nothing_behind_it() {
        let site = Site::new(1 << 30);
        let file = site.share("map.bin", 5);
        let core = &site.options.core;
        std::fs::remove_file(core.file_path(file).unwrap().unwrap()).unwrap();
        site.capture_until_it_waits(&Mutex::default());
        assert_eq!(core.outbox_stats().unwrap().rows, 0);
        assert_eq!(
            (site.journaled(Kind::File), site.journaled(Kind::Post) > 0),
            (1, true),
            "it is accounted for by name"
        );
    }

    #[test]
    fn a_file_without_room_holds_up_no_message_and_follows_when_there_is_room() {
        let site = Site::new(300_000);
        let square = &site.square;
        site.post("before", &[]);
        site.share("plan.bin", 290_000);
        site.post("behind the file", &[]);
        let aside = Mutex::default();
        site.capture_until_it_waits(&aside);
        assert_eq!(site.journaled(Kind::File), 0);
        // The one with which the user joined is the fourth.
        assert_eq!(site.journaled(Kind::Post), 4, "posts behind the file that has no room");
        assert_eq!(site.options.core.outbox_stats().unwrap().rows, 1, "the file is still counted as held");
        // A second process does not take the file for captured because later rows are.
        let aside = Mutex::default();
        site.capture_until_it_waits(&aside);
        assert_eq!((site.journaled(Kind::File), site.options.core.outbox_stats().unwrap().rows), (0, 1));
        site.share("second.bin", 1_000);
        site.post(&format!("into {}", square.name), &[]);
        site.capture_until_it_waits(&aside);
        assert_eq!((site.journaled(Kind::File), site.options.core.outbox_stats().unwrap().rows), (0, 2));
        // A larger limit, as an operator would set.
        let site = site.reopened(30_000_000);
        let aside = Mutex::default();
        site.capture_until_it_waits(&aside);
        assert_eq!((site.journaled(Kind::File), site.options.core.outbox_stats().unwrap().rows), (2, 0));
        let sizes: Vec<_> = site.files().iter().map(|manifest| manifest.content_bytes).collect();
        assert_eq!(sizes, [290_000, 1_000], "in the order in which they were shared");
        site.post("after", &[]);
        site.capture_until_it_waits(&aside);
        assert_eq!(site.journaled(Kind::Post), 7);
    }

    #[test]
    fn a_row_that_no_entry_holds_holds_up_nothing_behind_it() {
        let site = Site::new(1 << 30);
        site.capture_until_it_waits(&Mutex::default());
        let before = site.entries().len();
        site.post("large", &[]);
        site.post("behind it", &[]);
        let options = &site.options;
        let mut rows = options.core.outbox_read(Hlc::ZERO, 64).unwrap();
        for row in &mut rows {
            if let Event::Post(post) = &mut row.event
                && post.message == "large"
            {
                post.message = "x".repeat(2 << 20);
            }
        }
        let rows: Vec<_> = rows.into_iter().map(|row| (row, Precedence::Routine)).collect();
        let mut aside = Aside::load(&options.core).unwrap();
        let taken = options.capture(&mut aside, options.journal.highest_source(), &rows).unwrap();
        assert_eq!((taken, options.core.outbox_stats().unwrap().rows), (rows.len(), 0));
        let entries = site.entries().split_off(before);
        let readable: Vec<_> = entries.iter().map(|listed| wire::decode_event(&listed.entry).is_ok()).collect();
        assert_eq!(readable, [false, true], "the large one is there by name");
        assert!(options.health.checks().iter().any(|check| check.name == CHECK_TOO_LARGE));
    }

    #[test]
    fn what_was_imported_waits_for_what_is_said_today() {
        let (from, to) = (Site::new(1 << 30), Site::new(1 << 30));
        from.post("long ago", &[]);
        let archive = from.dir.path().join("all.zip");
        let mut go_on = |_: &mission::BulkProgress| std::ops::ControlFlow::Continue(());
        from.options.core.bulk_export(&archive, mission::ExportOptions::default(), &mut go_on).unwrap();
        to.capture_until_it_waits(&Mutex::default());
        let before = to.entries().len();
        to.options.core.bulk_import(&archive, mission::ImportOptions::default(), &mut go_on).unwrap();
        to.post("today", &[]);
        to.capture_until_it_waits(&Mutex::default());
        let entries = to.entries().split_off(before);
        let posts = entries.iter().filter(|listed| listed.entry.header.kind == Kind::Post);
        let classes: Vec<Precedence> = posts.map(|listed| listed.entry.header.precedence).collect();
        assert_eq!(classes, [Precedence::Deferred, Precedence::Routine]);
    }

    /// A core with one user and one channel, captured into a journal of limited size.
    struct Site {
        options: CaptureOptions,
        alice: mission::types::Session,
        square: mission::types::Channel,
        dir: tempfile::TempDir,
    }

    impl Site {
        fn new(limit_bytes: u64) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let options = options(dir.path(), limit_bytes);
            let core = &options.core;
            let (password, email) = ("correct-horse-1".to_owned(), "alice@example.com".to_owned());
            core.operator_creates_user("alice", &email, &password, true).unwrap();
            let login = Login { login_id: "alice".to_owned(), password, ..Login::default() };
            let alice = core.login(&login, &ClientInfo::default()).unwrap().1;
            let (name, kind) = ("mission".to_owned(), "O".to_owned());
            let team = NewTeam { name, display_name: "M".to_owned(), kind, ..NewTeam::default() };
            let team = core.create_team(&alice, &team).unwrap();
            let square = core.channel_by_name(&alice, team.id, "town-square", false).unwrap();
            Self { options, alice, square, dir }
        }

        /// The same after a restart with another limit.
        fn reopened(self, limit_bytes: u64) -> Self {
            let Self { options: before, alice, square, dir } = self;
            drop(before);
            Self { options: options(dir.path(), limit_bytes), alice, square, dir }
        }

        fn post(&self, message: &str, files: &[Id]) {
            let post = NewPost {
                channel_id: self.square.id.to_string(),
                message: message.to_owned(),
                file_ids: files.iter().map(ToString::to_string).collect(),
                ..NewPost::default()
            };
            self.options.core.create_post(&self.alice, &post, true).unwrap();
        }

        fn share(&self, name: &str, bytes: usize) -> Id {
            let mut upload = self.options.core.begin_upload(&self.alice, self.square.id, name).unwrap();
            // Does not compress and has no two equal pieces.
            let mut x = bytes as u32;
            let noise: Vec<u8> = std::iter::repeat_with(|| {
                x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (x >> 24) as u8
            })
            .take(bytes)
            .collect();
            upload.write_all(&noise).unwrap();
            let file = upload.finish().unwrap().id;
            self.post(name, &[file]);
            file
        }

        fn capture_until_it_waits(&self, aside: &Mutex<Option<Aside>>) {
            // A refused append is news for the next round; a round that waits changes nothing.
            let mut waited = 0;
            while waited < 3 {
                match self.options.round(aside) {
                    Ok(Round::Took) => waited = 0,
                    Ok(Round::Idle | Round::Waits) | Err(_) => waited += 1,
                }
            }
        }

        fn entries(&self) -> Vec<journal::Listed> {
            let journal = &self.options.journal;
            journal.list(LocalPos::START..journal.head(), 1_000).unwrap()
        }

        fn journaled(&self, kind: Kind) -> usize {
            self.entries().iter().filter(|listed| listed.entry.header.kind == kind).count()
        }

        fn files(&self) -> Vec<Manifest> {
            let events = self.entries().into_iter().filter_map(|listed| wire::decode_event(&listed.entry).ok());
            let file = |event| match event {
                Event::File(file) => file.content,
                Event::User(_)
                | Event::Team(_)
                | Event::TeamMember(_)
                | Event::Channel(_)
                | Event::ChannelMember(_)
                | Event::Post(_)
                | Event::Reaction(_)
                | Event::Emoji(_)
                | Event::Purge(_)
                | Event::Acknowledgement(_)
                | Event::Bookmark(_) => None,
            };
            events.filter_map(file).collect()
        }
    }

    fn options(dir: &std::path::Path, limit_bytes: u64) -> CaptureOptions {
        let clock: Arc<dyn Clock> = Arc::new(Fixed);
        let core = Core::open(CoreOptions {
            dir: dir.join("core"),
            node: ME,
            node_name: "alpha".to_owned(),
            mint: Arc::new(Counting),
            clock: Arc::clone(&clock),
            hybrid: Arc::new(HybridClock::default()),
            events: Arc::new(WsHub::new(CancellationToken::new())),
            settings: CoreSettings::default(),
        })
        .unwrap();
        let mut settings = JournalSettings::default();
        settings.limit_bytes.0 = limit_bytes;
        settings.segment_bytes.0 = 64 << 10;
        let (journal, _) = Journal::open(JournalOptions {
            dir: dir.join("journal"),
            node: ME,
            disk: Arc::new(StdDisk),
            clock: Arc::clone(&clock),
            settings,
            index: IndexPlace::Memory,
            at_rest: AtRest::Plain,
        })
        .unwrap();
        CaptureOptions {
            core,
            journal,
            settings: CaptureSettings::default(),
            chunk_secret: Sensitive([3; 32]),
            mint_salt: 1,
            clock: Arc::clone(&clock),
            metrics: Arc::new(Metrics::new()),
            health: Health::new(clock),
        }
    }
}
