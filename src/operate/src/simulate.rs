//! `holdfast simulate`: when the present backlog would be across over a link that is only thought of.
//!
//! ```text
//!  journal (read only) --> Session --frames--> Shaper --> Air (rate, delay, loss, windows) --> Session of a pretend peer
//! ```
//!
//! Both sessions and the shaper are the product's own, in virtual time; the pretend peer holds what the real one has receipted, and of
//! files that are not complete there nothing. Nothing is sent or changed. Traffic of the peer is not looked at, but for its receipts.
//! Pure: the journal and when to give up are arguments.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use link::{Lane, Now, Output, ReceiverState, SenderState, Session, SessionConfig, Waiting};
use model::{
    BitsPerSecond, ChunkName, Entry, EntryHash, EntryId, Epoch, Kind, Label, LocalPos, NodeId, Outbound, OutboundError,
    Outcome, Outgoing, Precedence, RangeSet, Scan, UnixMillis,
};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};
use shaper::{Demand, Emission, Shaper};
use wire::Frame;

use crate::demo::{Delay, Loss};

/// Name and version of the JSON form. Fields are only added within a version.
pub const SCHEMA: &str = "holdfast.simulate/1";

/// What a datagram carries of a frame, and its headers and tag.
const DATAGRAM_BYTES: usize = 1_150;
const DATAGRAM_OVERHEAD: u64 = 50;

/// So much may wait before a modem before nothing more is handed out but what is urgent.
const QUEUE_MAX: Duration = Duration::from_millis(500);

/// Nothing has been sent, and nothing was on its way, for so long: nothing more will.
const QUIET: Duration = Duration::from_secs(5);

/// The same losses in every run.
const SEED: u64 = 1;

/// A link to think of: `RATE/DELAY[/LOSS[/WINDOW]]`, such as `64kbit/s/300ms/5%/10m@1h`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LinkSpec {
    /// What it carries, all headers included.
    pub rate: BitsPerSecond,
    /// One way.
    pub delay: Duration,
    /// Share of the datagrams that is lost.
    pub loss: f64,
    /// How long it is up, and from one such time to the next; always up without.
    pub window: Option<(Duration, Duration)>,
}

/// Text that is no link.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no link; write it as RATE/DELAY/LOSS/WINDOW, such as `64kbit/s/300ms/5%/10m@1h`")]
pub struct BadLink(String);

impl FromStr for LinkSpec {
    type Err = BadLink;

    fn from_str(text: &str) -> Result<Self, BadLink> {
        let bad = || BadLink(text.to_owned());
        let (rate, rest) = text.split_once("/s/").ok_or_else(bad)?;
        let mut parts = rest.split('/');
        let rate = format!("{rate}/s").parse().map_err(|_| bad())?;
        let delay: Delay = parts.next().and_then(|text| text.parse().ok()).ok_or_else(bad)?;
        let loss: Option<Loss> = parts.next().map(|text| text.parse().map_err(|_| bad())).transpose()?;
        let window = parts.next().map(|text| window(text).ok_or_else(bad)).transpose()?;
        let spec = Self { rate, delay: delay.0, loss: loss.map_or(0.0, |loss| loss.0), window };
        if parts.next().is_some() { Err(bad()) } else { Ok(spec) }
    }
}

fn window(text: &str) -> Option<(Duration, Duration)> {
    let (lasts, every) = text.split_once('@')?;
    let (lasts, every) = (crate::cli::parse_span(lasts).ok()?, crate::cli::parse_span(every).ok()?);
    (lasts < every).then_some((lasts, every))
}

/// Body of `POST /v1/simulate`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SimulateRequest {
    /// For which enrolled node.
    pub to: String,
    /// See [`LinkSpec`].
    pub link: String,
    /// How far to look.
    pub hours: u32,
}

/// When what would be across.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Forecast {
    /// [`SCHEMA`].
    pub schema: String,
    /// The peer.
    pub to: String,
    /// The link, as asked.
    pub link: String,
    /// How far was looked.
    pub hours: u32,
    /// Entries, by class, the most urgent first.
    pub classes: Vec<ClassForecast>,
    /// Files whose content is not all there.
    pub files: u64,
    /// Of these, whole within the time.
    pub files_across: u64,
    /// When the last of them was whole, where all were.
    pub files_seconds: Option<u64>,
    /// Bytes on the link towards the peer, headers and repetitions included.
    pub wire_bytes: u64,
    /// And back.
    pub wire_bytes_back: u64,
    /// When everything was across; `None` when not within the time.
    pub all_seconds: Option<u64>,
    /// The simulation took too long and ended early, at this virtual second.
    pub cut_short_at_seconds: Option<u64>,
}

/// Entries of a class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassForecast {
    /// Which.
    pub class: String,
    /// Not there yet.
    pub entries: u64,
    /// Of these, across within the time. What expires, is superseded or is not released never crosses.
    pub across: u64,
    /// When the first was across.
    pub first_seconds: Option<f64>,
    /// When all were; `None` when not within the time, or when there are none.
    pub all_seconds: Option<f64>,
}

/// What the simulation starts from.
pub struct Start<'a> {
    /// The peer's name.
    pub name: &'a str,
    /// This node, the peer.
    pub parties: (NodeId, NodeId),
    /// What is durably known of own entries at the peer.
    pub sender: SenderState,
    /// Labels that it may get.
    pub labels: BTreeSet<Label>,
    /// The secret under which this node names its chunks.
    pub chunk_secret: [u8; 32],
    /// zstd level at the link's rate.
    pub compression: i32,
    /// Own entries.
    pub outbound: &'a dyn Outbound,
    /// By class, entries that are not there yet.
    pub entries: [u64; 5],
    /// Own files that the peer asks for only when somebody there wants them.
    pub on_request: BTreeMap<Epoch, RangeSet>,
    /// The time.
    pub wall: UnixMillis,
}

/// Runs until everything is across, `hours` are over, or `gives_up` says so.
///
/// # Errors
/// When the journal cannot be read.
pub fn simulate(
    start: Start<'_>,
    asked: &SimulateRequest,
    link: LinkSpec,
    gives_up: &dyn Fn() -> bool,
) -> Result<Forecast, OutboundError> {
    let mut world = World::new(start, link)?;
    let end = Duration::from_secs(3_600) * asked.hours;
    let mut cut_short = None;
    let mut steps = 0u32;
    while world.now < end && !world.is_over() {
        steps = steps.wrapping_add(1);
        if steps.is_multiple_of(1_024) && gives_up() {
            cut_short = Some(world.now.as_secs());
            break;
        }
        world.step()?;
    }
    Ok(world.forecast(asked, cut_short))
}

/// One direction of the link.
struct Air {
    link: LinkSpec,
    /// What was handed over is on the air by then.
    busy_until: Duration,
    /// By arrival, then in the order of sending.
    under_way: BTreeMap<(Duration, u64), Frame>,
    sent: u64,
    bytes: u64,
    /// Nothing counts before the greeting.
    greeted: bool,
    early: Vec<Frame>,
}

impl Air {
    fn new(link: LinkSpec) -> Self {
        let (under_way, early) = (BTreeMap::new(), Vec::new());
        Self { link, busy_until: Duration::ZERO, under_way, sent: 0, bytes: 0, greeted: false, early }
    }

    fn has_room(&self, now: Duration) -> bool {
        self.busy_until <= now + QUEUE_MAX
    }

    /// What is lost of a frame is repeated a round trip later, until it arrives.
    fn send(&mut self, frame: Frame, len: usize, now: Duration, rng: &mut ChaCha8Rng) {
        let (mut whole_at, mut left) = (now, len);
        while left > 0 {
            let part = left.min(DATAGRAM_BYTES);
            left -= part;
            let mut repeats = 0;
            loop {
                let bytes = part as u64 + DATAGRAM_OVERHEAD;
                self.bytes += bytes;
                let on_air = Duration::from_nanos(bytes * 8 * 1_000_000_000 / self.link.rate.0.max(1));
                self.busy_until = self.busy_until.max(now) + on_air;
                if f64::from(rng.next_u32()) / f64::from(u32::MAX) >= self.link.loss {
                    break;
                }
                repeats += 1;
            }
            whole_at = whole_at.max(self.busy_until + repeats * 2 * self.link.delay + self.link.delay);
        }
        self.sent += 1;
        self.under_way.insert((whole_at, self.sent), frame);
    }

    fn receive(&mut self, now: Duration) -> Vec<Frame> {
        let mut arrived = Vec::new();
        while let Some(first) = self.under_way.first_entry().filter(|first| first.key().0 <= now) {
            let frame = first.remove();
            if self.greeted {
                arrived.push(frame);
            } else if matches!(frame, Frame::Greet(_)) {
                self.greeted = true;
                arrived.push(frame);
                arrived.append(&mut self.early);
            } else {
                self.early.push(frame);
            }
        }
        arrived
    }

    fn clear(&mut self) {
        let (sent, bytes) = (self.sent, self.bytes);
        *self = Self { sent, bytes, ..Self::new(self.link) };
    }
}

/// What the pretend peer holds: of this node's entries and chunks, which are read from this node's journal.
struct Held<'a> {
    ours: &'a dyn Outbound,
    me: NodeId,
    chunks: BTreeSet<ChunkName>,
    stored: BTreeMap<Epoch, RangeSet>,
}

impl Held<'_> {
    fn holds(&self, id: EntryId) -> bool {
        id.origin == self.me && self.stored.get(&id.epoch).is_some_and(|set| set.contains(id.seq.get()))
    }
}

impl Outbound for Held<'_> {
    fn scan(&self, _: Precedence, from: LocalPos, _: usize) -> Result<Scan, OutboundError> {
        Ok(Scan { entries: Vec::new(), next: from })
    }

    fn entry(&self, _: EntryId) -> Result<Option<Outgoing>, OutboundError> {
        Ok(None)
    }

    fn received(&self, id: EntryId) -> Result<Option<Outgoing>, OutboundError> {
        if self.holds(id) { self.ours.entry(id) } else { Ok(None) }
    }

    fn superseded(&self, _: &Outgoing) -> bool {
        false
    }

    fn chunk(&self, name: &ChunkName) -> Result<Option<Arc<[u8]>>, OutboundError> {
        if self.chunks.contains(name) { self.ours.chunk(name) } else { Ok(None) }
    }

    fn chunk_base(&self, _: &ChunkName) -> Result<Option<ChunkName>, OutboundError> {
        Ok(None)
    }

    fn holds_chunk(&self, name: &ChunkName) -> Result<bool, OutboundError> {
        Ok(self.chunks.contains(name))
    }

    fn hash_of(&self, id: EntryId) -> Result<Option<EntryHash>, OutboundError> {
        if self.holds(id) { self.ours.hash_of(id) } else { Ok(None) }
    }
}

#[derive(Clone, Copy, Default)]
struct Across {
    count: u64,
    first: Option<Duration>,
    last: Duration,
}

impl Across {
    fn note(&mut self, now: Duration) {
        self.count += 1;
        self.first.get_or_insert(now);
        self.last = now;
    }
}

struct World<'a> {
    start: Start<'a>,
    now: Duration,
    up: bool,
    window: Option<(Duration, Duration)>,
    ours: Session,
    theirs: Session,
    held: Held<'a>,
    shapers: [Shaper; 2],
    /// There and back.
    air: [Air; 2],
    rng: ChaCha8Rng,
    across: [Across; 5],
    files: BTreeMap<EntryId, Arc<Entry>>,
    files_known: u64,
    files_across: Across,
    moved_at: Duration,
}

impl<'a> World<'a> {
    fn new(start: Start<'a>, link: LinkSpec) -> Result<Self, OutboundError> {
        let (me, peer) = start.parties;
        let config = |me, peer, labels| SessionConfig {
            me,
            name: String::new(),
            boot: 1,
            peer,
            labels,
            peer_chunk_secret: start.chunk_secret,
            compression: start.compression,
        };
        let known = start.sender.progress.clone();
        let mut ours =
            Session::new(config(me, peer, start.labels.clone()), start.sender.clone(), ReceiverState::default());
        let mut theirs = Session::new(
            config(peer, me, BTreeSet::new()),
            SenderState { epochs: [(Epoch::FIRST, 0)].into(), ..SenderState::default() },
            ReceiverState { progress: known.clone() },
        );
        ours.watched_below();
        theirs.watched_below();
        // Everything is used in its turn there.
        theirs.jumped([]);
        let stored = known.iter().map(|(epoch, progress)| (*epoch, progress.stored.clone())).collect();
        let held = Held { ours: start.outbound, me, chunks: BTreeSet::new(), stored };
        let shaper = || Shaper::new(link.rate, DATAGRAM_BYTES, Emission::Normal, Duration::ZERO);
        let mut world = Self {
            now: Duration::ZERO,
            up: false,
            window: link.window,
            ours,
            theirs,
            held,
            shapers: [shaper(), shaper()],
            air: [Air::new(link), Air::new(link)],
            rng: ChaCha8Rng::seed_from_u64(SEED),
            across: [Across::default(); 5],
            files: BTreeMap::new(),
            files_known: 0,
            files_across: Across::default(),
            moved_at: Duration::ZERO,
            start,
        };
        world.find_files()?;
        Ok(world)
    }

    /// Files whose entries the peer has stored, and whose content it may not have.
    fn find_files(&mut self) -> Result<(), OutboundError> {
        for class in Precedence::ALL {
            let mut from = self.start.sender.scan_from;
            loop {
                let scan = self.start.outbound.scan(class, from, link::limits::READ_AHEAD_BYTES)?;
                if scan.entries.is_empty() {
                    break;
                }
                from = scan.next;
                for own in scan.entries {
                    let header = &own.entry.header;
                    let Some(progress) = self.start.sender.progress.get(&header.id.epoch) else { continue };
                    let n = header.id.seq.get();
                    let ended = progress.outcomes.values().any(|set| set.contains(n));
                    let on_request = self.start.on_request.get(&header.id.epoch).is_some_and(|set| set.contains(n));
                    if header.kind == Kind::File && progress.stored.contains(n) && !ended && !on_request {
                        self.theirs.want_file(&own.entry);
                        self.files.insert(header.id, own.entry);
                        self.files_known += 1;
                    }
                }
            }
        }
        Ok(())
    }

    fn at(&self) -> Now {
        let millis = i64::try_from(self.now.as_millis()).unwrap_or(i64::MAX);
        Now { mono: self.now, wall: UnixMillis(self.start.wall.0.saturating_add(millis)) }
    }

    /// Nothing has moved for a while although the link was up.
    fn is_over(&self) -> bool {
        let nothing_is_under_way = self.air.iter().all(|air| air.under_way.is_empty());
        self.up && nothing_is_under_way && self.now >= self.moved_at + QUIET + 4 * self.air[0].link.delay
    }

    /// One moment: the link comes or goes, frames arrive, both sides send what they may; then on to the next moment.
    fn step(&mut self) -> Result<(), OutboundError> {
        let edge = self.follow_window();
        let now = self.at();
        for side in 0..2 {
            for frame in self.air[side].receive(self.now) {
                self.moved_at = self.now;
                // A frame that a session does not take would end a real connection; between these two none is wrong.
                let taken = match side {
                    0 => self.theirs.frame(frame, &self.held, now),
                    _ => self.ours.frame(frame, self.start.outbound, now),
                };
                taken.map_err(|e| OutboundError(e.to_string()))?;
                self.work();
            }
        }
        self.ours.tick(now);
        self.theirs.tick(now);
        self.work();
        let mut wake = vec![self.now + QUIET];
        wake.extend(edge);
        if self.up {
            wake.extend(self.send(0)?);
            wake.extend(self.send(1)?);
        }
        wake.extend(self.air.iter().filter_map(|air| air.under_way.first_key_value().map(|((at, _), _)| *at)));
        wake.extend([self.ours.poll_timeout(), self.theirs.poll_timeout()].into_iter().flatten());
        let next = wake.into_iter().filter(|at| *at > self.now).min();
        self.now = next.unwrap_or(self.now + QUIET);
        Ok(())
    }

    /// Opens and closes the link; when that happens next.
    fn follow_window(&mut self) -> Option<Duration> {
        let (up, edge) = match self.window {
            None => (true, None),
            Some((lasts, every)) => {
                let nanos = self.now.as_nanos() % every.as_nanos();
                let into = Duration::from_nanos(u64::try_from(nanos).unwrap_or(0));
                let begin = self.now - into;
                if into < lasts { (true, Some(begin + lasts)) } else { (false, Some(begin + every)) }
            }
        };
        if up != self.up {
            self.up = up;
            self.air.iter_mut().for_each(Air::clear);
            let now = self.at();
            match up {
                true => {
                    self.ours.connected(now);
                    self.theirs.connected(now);
                }
                false => {
                    self.ours.disconnected();
                    self.theirs.disconnected();
                }
            }
            self.moved_at = self.now;
        }
        edge
    }

    /// Everything that a side may send now; when it may send more.
    fn send(&mut self, side: usize) -> Result<Option<Duration>, OutboundError> {
        let now = self.at();
        loop {
            let waiting = match side {
                0 => self.ours.waiting(self.start.outbound, now)?,
                _ => self.theirs.waiting(&self.held, now)?,
            };
            self.work();
            let room = self.air[side].has_room(self.now);
            let demand = demand(&waiting, room);
            if demand == Demand::default() {
                return Ok((!waiting.is_empty()).then(|| self.air[side].busy_until.saturating_sub(QUEUE_MAX)));
            }
            let Some(grant) = self.shapers[side].grant(self.now, &demand) else {
                return Ok(self.shapers[side].wake_at());
            };
            let lane = match grant.lane {
                shaper::Lane::Control => Lane::Control,
                shaper::Lane::Class(class) => Lane::Class(class),
            };
            let frame = match side {
                0 => self.ours.next_frame(lane, grant.bytes, self.start.outbound, now)?,
                _ => self.theirs.next_frame(lane, grant.bytes, &self.held, now)?,
            };
            self.work();
            let Some(frame) = frame else { continue };
            let len = frame.encode().len() + 2;
            self.shapers[side].spent(grant.lane, len);
            self.air[side].send(frame, len, self.now, &mut self.rng);
            self.moved_at = self.now;
        }
    }

    /// Carries out what the sessions want: what the pretend peer gets is durable and applied at once.
    fn work(&mut self) {
        let now = self.at();
        // What is learnt of own entries stays in the session.
        while self.ours.poll().is_some() {}
        while let Some(output) = self.theirs.poll() {
            match output {
                Output::Store(incoming) => {
                    let header = &incoming.entry.header;
                    let id = header.id;
                    self.across[header.precedence.index()].note(self.now);
                    self.held.stored.entry(id.epoch).or_default().insert(id.seq.get());
                    self.theirs.entries_stored(&[id], now);
                    if header.kind == Kind::File {
                        self.files.insert(id, incoming.entry);
                        self.files_known += 1;
                    } else {
                        self.end(id, now);
                    }
                }
                Output::StoreChunk { name, .. } => {
                    self.held.chunks.insert(name);
                    self.theirs.chunks_stored(&[name]);
                }
                Output::FileComplete(id) => {
                    if self.files.remove(&id).is_some() {
                        self.files_across.note(self.now);
                        self.end(id, now);
                    }
                }
                // This node does not hold all of it any more: it never will be.
                Output::FileUnavailable(id) => drop(self.files.remove(&id)),
                Output::AccountSkipped { epoch, outcome, ranges } => self.theirs.finals(epoch, outcome, &ranges, now),
                Output::OfferFiles => self.files.values().for_each(|file| self.theirs.want_file(file)),
                Output::RetainChunk(_)
                | Output::RecordStored { .. }
                | Output::RecordOutcome { .. }
                | Output::StartEpoch { .. }
                | Output::PeerGreeted { .. }
                | Output::Close { .. }
                | Output::Restore(_)
                | Output::NotReturned { .. }
                | Output::TakeParcel { .. }
                | Output::ParcelKept { .. }
                | Output::Event(_) => {}
            }
        }
    }

    fn end(&mut self, id: EntryId, now: Now) {
        let number = RangeSet::from(id.seq.get()..=id.seq.get());
        self.theirs.finals(id.epoch, Outcome::Applied, &number, now);
    }

    fn forecast(&self, asked: &SimulateRequest, cut_short: Option<u64>) -> Forecast {
        let is_over = cut_short.is_none() && self.is_over();
        let classes = Precedence::ALL.map(|class| {
            let (across, entries) = (&self.across[class.index()], self.start.entries[class.index()]);
            let all = is_over || across.count >= entries;
            ClassForecast {
                class: class.as_str().to_owned(),
                entries,
                across: across.count,
                first_seconds: across.first.map(|at| at.as_secs_f64()),
                all_seconds: (all && across.count > 0).then_some(across.last.as_secs_f64()),
            }
        });
        let last = self.across.iter().chain([&self.files_across]).map(|across| across.last).max().unwrap_or_default();
        let whole = is_over && self.files.is_empty();
        Forecast {
            schema: SCHEMA.to_owned(),
            to: self.start.name.to_owned(),
            link: asked.link.clone(),
            hours: asked.hours,
            classes: classes.into(),
            files: self.files_known,
            files_across: self.files_across.count,
            files_seconds: (self.files.is_empty() && self.files_known > 0).then_some(self.files_across.last.as_secs()),
            wire_bytes: self.air[0].bytes,
            wire_bytes_back: self.air[1].bytes,
            all_seconds: whole.then(|| last.as_secs_f64().ceil() as u64),
            cut_short_at_seconds: cut_short,
        }
    }
}

/// With no room, only what passes everything.
fn demand(waiting: &Waiting, room: bool) -> Demand {
    let mut demand = Demand { control: waiting.control, classes: waiting.classes };
    for class in Precedence::ALL {
        demand.classes[class.index()] &= room || class <= Precedence::Immediate;
    }
    demand
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_written_as_its_rate_delay_loss_and_windows() {
        let link: LinkSpec = "64kbit/s/300ms/5%/10m@1h".parse().unwrap();
        assert_eq!((link.rate, link.delay, link.loss), (BitsPerSecond(64_000), Duration::from_millis(300), 0.05));
        assert_eq!(link.window, Some((Duration::from_secs(600), Duration::from_secs(3_600))));
        let plain: LinkSpec = "9600bit/s/2s".parse().unwrap();
        assert_eq!((plain.rate, plain.loss, plain.window), (BitsPerSecond(9_600), 0.0, None));
        for wrong in
            ["64kbit/s", "64kbit/300ms", "64kbit/s/300ms/5%/2h@1h", "64kbit/s/300ms/95%", "64kbit/s/1s/1%/1m@1h/x"]
        {
            assert!(wrong.parse::<LinkSpec>().is_err(), "{wrong}");
        }
    }
}
