//! Parcels by way of others: own ones that a relay is to carry on, and those of others that this node carries on.
//!
//! ```text
//!  session of a hop --TakeParcel--> take --for this node--> ParcelDesk::take --> answer: taken
//!                                     `---for another-----> Store (durable) ---> answer: taken
//!                                                             |
//!  Via (own parcels, in memory) --offer--> [ Transit ] --next(hop)--> session of the next hop --ParcelKept--> kept
//! ```
//!
//! Invariants
//! - A parcel for another node counts as taken when it is durable here, and is held until the next hop has taken it.
//! - A relay takes only what a node wrote that is enrolled with it, for a node that is enrolled with it and may get its labels,
//!   and never sends it back where it came from. It can open nothing.
//! - Per destination, since the start: found + taken = held + handed on + expired + dropped.
//! - Nothing counts as arrived before the destination's receipt: whoever wrote a parcel holds what is in it until then, so one
//!   that a relay loses, alters or drops is written again.
//!
//! Not here: what is in a parcel (`parcel`), how it crosses a link (`link`).

mod store;
mod via;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use journal::Journal;
use keys::{PeerName, PeerRegistry};
use model::{Clock, NodeId, Precedence, UnixMillis};
use telemetry::{Metrics, ParcelRefusal};
use tokio::sync::watch;
use tokio::task::block_in_place;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use wire::frame::{Custody, CustodyRefusal};
use wire::parcel::Parcel;

use crate::parcel::{ParcelDesk, ParcelRefused};
use crate::{CarrierError, CarrierSettings, clock};
use store::{Held, Store};
pub(crate) use via::Via;

/// Bytes of a class that a session is given ahead: some seconds of a thin link, a fraction of one of a fast one.
const HAND_BYTES: usize = 512 << 10;

/// Will it never be readable again? A process without file handles, or a disk that stutters, will read it later.
fn is_lost(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::NotFound)
}

/// What the next hop has no room for is offered again after this.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// How often it is looked for what is due, and figures are published.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Parcels handed on that are remembered, so that one that comes back by a loop of relays is refused, and one that is handed
/// over again since the answer was lost is not carried twice. 24 bytes each.
const HANDED_ON_MAX: usize = 16_384;

/// Relays behind relays in the configuration of one node.
const VIA_MAX: usize = 8;

/// What is carried on for one destination. Since the start: `found + taken = held + handed_on + expired + dropped`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct TransitStatus {
    /// The destination's name; its id where it is not enrolled any more.
    pub to: String,
    /// The node that parcels are handed to; `None` while there is no way.
    pub next: Option<String>,
    /// The session with that node is up.
    pub next_is_up: bool,
    /// Held at the start.
    pub found: u64,
    /// Taken since.
    pub taken: u64,
    /// Held now.
    pub held: u64,
    /// Their bytes.
    pub held_bytes: u64,
    /// When the oldest of them came.
    pub oldest_at: Option<UnixMillis>,
    /// Taken by the next node.
    pub handed_on: u64,
    /// Older than `carrier.transit_age_hours` and removed.
    pub expired: u64,
    /// Refused by the next node for good, or damaged on this node's disk.
    pub dropped: u64,
    /// Why the last one was not taken by the next node; empty when there is nothing to say.
    pub last_refusal: String,
}

/// Own parcels on their way to a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OwnState {
    Offered,
    Taken,
    /// The relay will never take it.
    Refused(CustodyRefusal),
}

struct Own {
    to: NodeId,
    hop: NodeId,
    class: Precedence,
    bytes: Vec<u8>,
    state: OwnState,
}

#[derive(Default)]
struct Account {
    found: u64,
    taken: u64,
    handed_on: u64,
    expired: u64,
    dropped: u64,
    last_refusal: Option<CustodyRefusal>,
}

struct Inner {
    store: Store,
    own: BTreeMap<u64, Own>,
    /// Refused for lack of room or time, and offered again at that moment.
    paused: BTreeMap<u64, Instant>,
    /// By which hop those that are held came, as far as this process took them.
    came_from: BTreeMap<u64, NodeId>,
    /// With the hop that they came by, the newest last.
    handed_on: VecDeque<(u64, Option<NodeId>)>,
    accounts: BTreeMap<NodeId, Account>,
    /// Hops whose session is up.
    up: BTreeSet<NodeId>,
}

/// What [`Transit::open`] needs.
pub(crate) struct TransitOptions {
    pub(crate) me: NodeId,
    pub(crate) registry: Arc<PeerRegistry>,
    pub(crate) settings: CarrierSettings,
    pub(crate) desk: Arc<ParcelDesk>,
    pub(crate) journal: Journal,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Arc<Metrics>,
}

/// Parcels by way of others. All conversations of a node share it.
pub(crate) struct Transit {
    o: TransitOptions,
    inner: Mutex<Inner>,
    changed: watch::Sender<u64>,
}

impl Transit {
    /// Looks what was held when the node stopped.
    pub(crate) fn open(data_dir: &Path, options: TransitOptions) -> Result<Self, CarrierError> {
        let unreadable = |source| CarrierError::TransitUnreadable { path: data_dir.join("transit"), source };
        let store = Store::open(data_dir).map_err(unreadable)?;
        let mut accounts: BTreeMap<NodeId, Account> = BTreeMap::new();
        store.iter().for_each(|held| accounts.entry(held.to).or_default().found += 1);
        let inner = Inner {
            store,
            accounts,
            own: BTreeMap::new(),
            paused: BTreeMap::new(),
            came_from: BTreeMap::new(),
            handed_on: VecDeque::new(),
            up: BTreeSet::new(),
        };
        Ok(Self { o: options, inner: Mutex::new(inner), changed: watch::Sender::new(0) })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("nothing panics while holding what is on its way")
    }

    fn notify(&self) {
        self.changed.send_modify(|n| *n += 1);
    }

    /// Counts what is new for any hop.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// The node that parcels for `to` are handed to.
    fn next_hop(&self, to: NodeId) -> Option<NodeId> {
        let mut peer = self.o.registry.get(to)?;
        for _ in 0..VIA_MAX {
            let Some(relay) = self.o.settings.via_of(&peer.name) else { return Some(peer.node) };
            peer = self.o.registry.by_name(relay.as_str())?;
        }
        None
    }

    /// Takes a parcel from the session with `from`: opens it, or holds it for the node that it is for. Durable when it returns
    /// so. Dropping the future leaves it taken or not, and it may be taken again.
    pub(crate) async fn take(&self, from: NodeId, name: u64, bytes: Vec<u8>) -> Custody {
        let taken = match Parcel::decode(&bytes) {
            Err(_) => Err(CustodyRefusal::Damaged),
            Ok(parcel) if parcel.header.to == self.o.me => {
                return match self.o.desk.take(&bytes).await.1 {
                    Ok((origin, taken)) => {
                        tracing::debug!(%origin, by = %from, ?taken, "a parcel came over a relay");
                        Custody::Taken
                    }
                    Err(e) => {
                        tracing::warn!(by = %from, error = %e, next = e.next_step(), "a parcel that came over a relay was refused");
                        Custody::Refused(refusal(&e))
                    }
                };
            }
            Ok(parcel) => block_in_place(|| self.hold(from, name, &parcel)),
        };
        match taken {
            Ok(()) => Custody::Taken,
            Err(why) => {
                self.o.metrics.parcels_refused_total.inc((reason(why),));
                tracing::debug!(by = %from, why = why.as_str(), "a parcel for another node was not taken");
                Custody::Refused(why)
            }
        }
    }

    /// Holds a parcel for another node.
    fn hold(&self, from: NodeId, name: u64, parcel: &Parcel) -> Result<(), CustodyRefusal> {
        let header = &parcel.header;
        let limit = self.o.settings.transit_limit.ok_or(CustodyRefusal::NoWay)?;
        let origin = self.o.registry.get(header.from).ok_or(CustodyRefusal::UnknownOrigin)?;
        parcel.verify(&origin.spki).map_err(|_| CustodyRefusal::NotGenuine)?;
        let to = self.o.registry.get(header.to).ok_or(CustodyRefusal::NoWay)?;
        let hop = self.next_hop(header.to).ok_or(CustodyRefusal::NoWay)?;
        if hop == from {
            return Err(CustodyRefusal::NoWay);
        }
        let released = self.o.settings.labels_of(&to.name);
        if !header.labels.iter().all(|label| released.contains(label)) {
            return Err(CustodyRefusal::NotReleased);
        }
        let mut inner = self.inner();
        if inner.store.contains(name) {
            return Ok(());
        }
        if let Some((_, came_by)) = inner.handed_on.iter().find(|(other, _)| *other == name) {
            // Its answer was lost, or it goes round in a circle.
            // What was held before this start came from somebody who is not known any more.
            return if came_by.is_none_or(|by| by == from) { Ok(()) } else { Err(CustodyRefusal::NoWay) };
        }
        let (bytes, class) = (parcel.as_bytes(), header.precedence);
        let len = bytes.len() as u64;
        if !inner.store.has_room(class, len, limit.0) || !self.o.journal.space().level.admits(class) {
            return Err(CustodyRefusal::Full);
        }
        let held = Held { name, to: header.to, class, at: self.o.clock.now(), len };
        inner.store.put(held, bytes).map_err(|e| {
            tracing::error!(error = %e, "a parcel for another node could not be stored; it is offered again");
            CustodyRefusal::Busy
        })?;
        inner.came_from.insert(name, from);
        inner.accounts.entry(header.to).or_default().taken += 1;
        drop(inner);
        self.notify();
        Ok(())
    }

    /// Offers an own parcel to a relay. It is not durable here: what is in it is held in the journal.
    pub(crate) fn offer(&self, to: NodeId, hop: NodeId, class: Precedence, bytes: Vec<u8>) -> u64 {
        let name = wire::parcel::name_of(&bytes);
        self.inner().own.insert(name, Own { to, hop, class, bytes, state: OwnState::Offered });
        self.notify();
        name
    }

    /// What has become of an own parcel; `None` when it was never offered.
    pub(crate) fn own_state(&self, name: u64) -> Option<OwnState> {
        self.inner().own.get(&name).map(|own| own.state)
    }

    /// Own parcels for `to` are not waited for any more.
    pub(crate) fn forget_own(&self, to: NodeId, names: Option<&[u64]>) {
        let goes = |name: &u64, own: &Own| own.to == to && names.is_none_or(|names| names.contains(name));
        self.inner().own.retain(|name, own| !goes(name, own));
    }

    /// Bytes of own parcels for `to` that the relay has not taken.
    pub(crate) fn offered_bytes(&self, to: NodeId) -> usize {
        let inner = self.inner();
        let offered = inner.own.values().filter(|own| own.to == to && own.state == OwnState::Offered);
        offered.map(|own| own.bytes.len()).sum()
    }

    /// The session with a node is up, or is not.
    pub(crate) fn set_up(&self, hop: NodeId, is_up: bool) {
        let mut inner = self.inner();
        let changed = if is_up { inner.up.insert(hop) } else { inner.up.remove(&hop) };
        drop(inner);
        if changed {
            self.notify();
        }
    }

    /// Parcels to hand to the session with `hop`, most urgent first. `handed` has it already, `in_hand` bytes of them by class.
    pub(crate) fn next(
        &self,
        hop: NodeId,
        handed: &BTreeSet<u64>,
        mut in_hand: [usize; Precedence::ALL.len()],
    ) -> Vec<(Precedence, Vec<u8>)> {
        let (mut inner, now) = (self.inner(), clock::now());
        inner.paused.retain(|_, until| *until > now);
        let mut next = Vec::new();
        let paused = &inner.paused;
        let waits = |name: &u64| !handed.contains(name) && !paused.contains_key(name);
        let mut ways: BTreeMap<NodeId, bool> = BTreeMap::new();
        let (mut damaged, mut unreadable) = (Vec::new(), Vec::new());
        for (name, own) in &inner.own {
            let room = &mut in_hand[own.class.index()];
            if own.hop == hop && own.state == OwnState::Offered && waits(name) && *room < HAND_BYTES {
                *room += own.bytes.len();
                next.push((own.class, own.bytes.clone()));
            }
        }
        for class in Precedence::ALL {
            let room = &mut in_hand[class.index()];
            for held in inner.store.of_class(class) {
                if *room >= HAND_BYTES {
                    break;
                }
                let leads_there = *ways.entry(held.to).or_insert_with(|| self.next_hop(held.to) == Some(hop));
                if !leads_there || !waits(&held.name) {
                    continue;
                }
                match inner.store.read(held.name) {
                    Ok(bytes) => {
                        *room += bytes.len();
                        next.push((class, bytes));
                    }
                    Err(e) if !is_lost(&e) => {
                        tracing::warn!(to = %held.to, error = %e, "a held parcel cannot be read now; it is tried again");
                        unreadable.push(held.name);
                    }
                    Err(e) => {
                        tracing::error!(to = %held.to, error = %e, "a held parcel is damaged and is dropped; its origin writes it again");
                        damaged.push(held.name);
                    }
                }
            }
        }
        inner.paused.extend(unreadable.into_iter().map(|name| (name, now + RETRY_AFTER)));
        for name in damaged {
            if let Some(gone) = inner.forget(name) {
                inner.accounts.entry(gone.to).or_default().dropped += 1;
            }
        }
        next
    }

    /// The node at the other end of a session has taken a parcel, or refused it.
    pub(crate) fn kept(&self, hop: NodeId, name: u64, custody: Custody) {
        let mut inner = self.inner();
        let later = clock::now() + RETRY_AFTER;
        match (custody, inner.own.get_mut(&name)) {
            (Custody::Partly(_), _) => {}
            (Custody::Refused(why), _) if why.is_retryable() => {
                inner.paused.insert(name, later);
                if let Some(to) = inner.store.get(name).map(|held| held.to) {
                    inner.accounts.entry(to).or_default().last_refusal = Some(why);
                }
            }
            (Custody::Taken, Some(own)) => own.state = OwnState::Taken,
            (Custody::Refused(why), Some(own)) => own.state = OwnState::Refused(why),
            (Custody::Taken, None) => {
                let came_by = inner.came_from.get(&name).copied();
                if let Some(held) = inner.forget(name) {
                    let account = inner.accounts.entry(held.to).or_default();
                    (account.handed_on, account.last_refusal) = (account.handed_on + 1, None);
                    inner.handed_on.push_back((name, came_by));
                    let surplus = inner.handed_on.len().saturating_sub(HANDED_ON_MAX);
                    inner.handed_on.drain(..surplus);
                }
            }
            (Custody::Refused(why), None) => {
                if let Some(held) = inner.forget(name) {
                    tracing::warn!(to = %held.to, by = %hop, why = why.as_str(), "a parcel that was to be handed on was refused and is dropped; its origin writes it again");
                    let account = inner.accounts.entry(held.to).or_default();
                    (account.dropped, account.last_refusal) = (account.dropped + 1, Some(why));
                }
            }
        }
        drop(inner);
        self.notify();
    }

    /// What is carried on for each destination.
    pub(crate) fn status(&self) -> Vec<TransitStatus> {
        let inner = self.inner();
        let name_of = |node: NodeId| self.o.registry.get(node).map_or(node.to_string(), |peer| peer.name.to_string());
        let mut held: BTreeMap<NodeId, (u64, u64, Option<UnixMillis>)> = BTreeMap::new();
        for parcel in inner.store.iter() {
            let (count, bytes, oldest) = held.entry(parcel.to).or_default();
            (*count, *bytes) = (*count + 1, *bytes + parcel.len);
            *oldest = Some(oldest.map_or(parcel.at, |at| at.min(parcel.at)));
        }
        let of = |(to, account): (&NodeId, &Account)| {
            let next = self.next_hop(*to);
            let (count, held_bytes, oldest_at) = held.get(to).copied().unwrap_or_default();
            TransitStatus {
                to: name_of(*to),
                next: next.map(name_of),
                next_is_up: next.is_some_and(|hop| inner.up.contains(&hop)),
                found: account.found,
                taken: account.taken,
                held: count,
                held_bytes,
                oldest_at,
                handed_on: account.handed_on,
                expired: account.expired,
                dropped: account.dropped,
                last_refusal: account.last_refusal.map(|why| why.as_str().to_owned()).unwrap_or_default(),
            }
        };
        inner.accounts.iter().map(of).collect()
    }

    fn is_up(&self, hop: NodeId) -> bool {
        self.inner().up.contains(&hop)
    }

    /// Removes what is too old and publishes figures until `stop`. Cancel-safe.
    pub(crate) async fn keep(self: Arc<Self>, stop: CancellationToken) {
        let mut told = BTreeMap::new();
        while stop.run_until_cancelled(sleep(LOOK_EVERY)).await.is_some() {
            block_in_place(|| self.look(&mut told));
        }
    }

    fn look(&self, told: &mut BTreeMap<String, TransitStatus>) {
        let age = i64::from(self.o.settings.transit_age_hours) * 3_600_000;
        let mut inner = self.inner();
        for name in inner.store.before(UnixMillis(self.o.clock.now().0 - age)) {
            if let Some(gone) = inner.forget(name) {
                tracing::warn!(to = %gone.to, "a parcel was held for too long and is removed; its origin holds what is in it");
                inner.accounts.entry(gone.to).or_default().expired += 1;
            }
        }
        let now = clock::now();
        let due = inner.paused.values().any(|until| *until <= now);
        drop(inner);
        if due {
            self.notify();
        }
        for status in self.status() {
            let label = || (telemetry::PeerName::new(&status.to),);
            let metrics = &self.o.metrics;
            let before = told.insert(status.to.clone(), status.clone());
            // A name may be another node's now, which begins at nothing.
            let since = |of: fn(&TransitStatus) -> u64| of(&status).saturating_sub(before.as_ref().map_or(0, of));
            metrics.transit_taken_parcels_total.add(label(), since(|s| s.taken));
            metrics.transit_handed_on_parcels_total.add(label(), since(|s| s.handed_on));
            metrics.transit_expired_parcels_total.add(label(), since(|s| s.expired));
            metrics.transit_dropped_parcels_total.add(label(), since(|s| s.dropped));
            metrics.transit_held_parcels.set_count(label(), status.held);
            metrics.transit_held_bytes.set_count(label(), status.held_bytes);
            let oldest = status.oldest_at.map_or(0, |at| self.o.clock.now().0.saturating_sub(at.0).max(0) / 1_000);
            metrics.transit_oldest_seconds.set_count(label(), oldest.unsigned_abs());
        }
    }
}

impl Inner {
    fn forget(&mut self, name: u64) -> Option<Held> {
        self.paused.remove(&name);
        self.came_from.remove(&name);
        self.store.remove(name)
    }
}

fn refusal(e: &ParcelRefused) -> CustodyRefusal {
    match e {
        ParcelRefused::Damaged(_) | ParcelRefused::Protocol(_) => CustodyRefusal::Damaged,
        ParcelRefused::OtherNode(_) => CustodyRefusal::NoWay,
        ParcelRefused::UnknownOrigin(_) => CustodyRefusal::UnknownOrigin,
        ParcelRefused::NotGenuine(_) => CustodyRefusal::NotGenuine,
        ParcelRefused::Store(_)
        | ParcelRefused::UnknownPeer(_)
        | ParcelRefused::NotBegun
        | ParcelRefused::NotServed => CustodyRefusal::Busy,
    }
}

fn reason(why: CustodyRefusal) -> ParcelRefusal {
    match why {
        CustodyRefusal::Damaged => ParcelRefusal::Damaged,
        CustodyRefusal::NotGenuine => ParcelRefusal::NotGenuine,
        CustodyRefusal::UnknownOrigin => ParcelRefusal::UnknownOrigin,
        CustodyRefusal::NoWay => ParcelRefusal::NoWay,
        CustodyRefusal::NotReleased => ParcelRefusal::NotReleased,
        CustodyRefusal::Full => ParcelRefusal::Full,
        CustodyRefusal::Busy => ParcelRefusal::Store,
    }
}

/// How the way over a relay is to its destination.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ViaStatus {
    /// The relay that parcels are handed to.
    pub relay: String,
    /// The session with it is up.
    pub relay_is_up: bool,
    /// Held entries that the relay has taken: they are durable there, or further on.
    pub handed_over: u64,
    /// Why the relay refuses parcels; empty when it does not.
    pub refusal: String,
}

/// Names of the relays that a node's peers are reached by.
pub(crate) fn vias(settings: &CarrierSettings) -> Vec<(PeerName, PeerName)> {
    let of = |(name, peer): (&PeerName, &crate::PeerSettings)| peer.via.clone().map(|via| (name.clone(), via));
    settings.peers.iter().filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use journal::{AtRest, IndexPlace, JournalOptions, JournalSettings, StdDisk};
    use keys::{ChunkSecret, NodeKey, Peer, PeerRole, SealingKey};
    use model::{ByteSize, Label};
    use std::sync::atomic::{AtomicI64, Ordering};
    use tempfile::TempDir;
    use wire::parcel::Header;

    struct SetClock(AtomicI64);

    impl Clock for SetClock {
        fn now(&self) -> UnixMillis {
            UnixMillis(self.0.load(Ordering::SeqCst))
        }
    }

    /// A relay `ship` between alpha and bravo; charlie is another relay.
    struct Ship {
        dir: TempDir,
        transit: Transit,
        clock: Arc<SetClock>,
        journal: Journal,
        registry: Arc<PeerRegistry>,
        alpha: NodeKey,
        bravo: NodeKey,
        charlie: NodeKey,
        sealing: SealingKey,
        numbers: u64,
    }

    fn settings(limit: u64) -> CarrierSettings {
        CarrierSettings { transit_limit: Some(ByteSize(limit)), transit_age_hours: 1, ..CarrierSettings::default() }
    }

    impl Ship {
        fn new(limit: u64) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let [alpha, bravo, charlie] = [(); 3].map(|()| NodeKey::generate());
            let sealing = SealingKey::generate();
            let registry = Arc::new(PeerRegistry::open(dir.path()).unwrap());
            for (name, key) in [("alpha", &alpha), ("bravo", &bravo), ("charlie", &charlie)] {
                let peer = Peer {
                    node: key.node_id(),
                    name: name.parse().unwrap(),
                    spki: key.spki().to_vec(),
                    chunk_secret: ChunkSecret::generate(),
                    sealing: sealing.public().clone(),
                    role: PeerRole::Edge,
                    address: None,
                    enrolled_at: UnixMillis(0),
                };
                registry.add(peer).unwrap();
            }
            let clock = Arc::new(SetClock(AtomicI64::new(1_700_000_000_000)));
            let (journal, _) = Journal::open(JournalOptions {
                dir: dir.path().join("journal"),
                node: NodeId([1; 16]),
                disk: Arc::new(StdDisk),
                clock: clock.clone(),
                settings: JournalSettings::default(),
                index: IndexPlace::Memory,
                at_rest: AtRest::Plain,
            })
            .unwrap();
            let transit = open(&dir, &registry, &journal, &clock, limit);
            Self { dir, transit, clock, journal, registry, alpha, bravo, charlie, sealing, numbers: 0 }
        }

        fn parcel(&mut self, from: &NodeKey, to: NodeId, precedence: Precedence, label: &str) -> Vec<u8> {
            self.numbers += 1;
            let labels: BTreeSet<Label> = [label.parse().unwrap()].into();
            let header = Header { to, from: from.node_id(), boot: 1, number: self.numbers, precedence, labels };
            Parcel::seal(header, &[], self.sealing.public(), from).into_bytes()
        }

        fn alphas(&mut self, precedence: Precedence) -> Vec<u8> {
            let (from, to) = (self.alpha.clone(), self.bravo.node_id());
            self.parcel(&from, to, precedence, "mission")
        }

        async fn take(&self, by: &NodeKey, parcel: &[u8]) -> Custody {
            self.transit.take(by.node_id(), wire::parcel::name_of(parcel), parcel.to_vec()).await
        }

        fn next(&self) -> Vec<Vec<u8>> {
            let next = self.transit.next(self.bravo.node_id(), &BTreeSet::new(), [0; 5]);
            next.into_iter().map(|(_, bytes)| bytes).collect()
        }

        fn status(&self) -> TransitStatus {
            let all = self.transit.status();
            all.iter().for_each(|t| assert_eq!(t.found + t.taken, t.held + t.handed_on + t.expired + t.dropped));
            all.into_iter().find(|t| t.to == "bravo").unwrap()
        }
    }

    fn open(
        dir: &TempDir,
        registry: &Arc<PeerRegistry>,
        journal: &Journal,
        clock: &Arc<SetClock>,
        limit: u64,
    ) -> Transit {
        let (registry, metrics) = (Arc::clone(registry), Arc::new(Metrics::new()));
        let desk =
            ParcelDesk::new(NodeKey::generate(), SealingKey::generate(), Arc::clone(&registry), Arc::clone(&metrics));
        let options = TransitOptions {
            me: NodeId([1; 16]),
            registry,
            settings: settings(limit),
            desk: Arc::new(desk),
            journal: journal.clone(),
            clock: clock.clone(),
            metrics,
        };
        Transit::open(dir.path(), options).unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_relay_takes_only_what_enrolled_nodes_may_say_to_each_other() {
        let mut ship = Ship::new(1_000_000);
        let (alpha, bravo) = (ship.alpha.clone(), ship.bravo.clone());
        let refused = |why| Custody::Refused(why);
        let stranger = NodeKey::generate();
        let from_stranger = ship.parcel(&stranger, bravo.node_id(), Precedence::Routine, "mission");
        assert_eq!(ship.take(&alpha, &from_stranger).await, refused(CustodyRefusal::UnknownOrigin));
        let to_stranger = ship.parcel(&alpha, stranger.node_id(), Precedence::Routine, "mission");
        assert_eq!(ship.take(&alpha, &to_stranger).await, refused(CustodyRefusal::NoWay));
        let secret = ship.parcel(&alpha, bravo.node_id(), Precedence::Routine, "secret");
        assert_eq!(ship.take(&alpha, &secret).await, refused(CustodyRefusal::NotReleased));
        let good = ship.alphas(Precedence::Routine);
        assert_eq!(ship.take(&bravo, &good).await, refused(CustodyRefusal::NoWay), "not back where it came from");
        let mut altered = good.clone();
        *altered.last_mut().unwrap() ^= 1;
        assert_eq!(ship.take(&alpha, &altered).await, refused(CustodyRefusal::NotGenuine));
        assert_eq!(ship.take(&alpha, &good[..90]).await, refused(CustodyRefusal::Damaged));
        assert!(ship.next().is_empty());
        assert_eq!(ship.take(&alpha, &good).await, Custody::Taken);
        assert_eq!(ship.take(&alpha, &good).await, Custody::Taken, "its answer was lost");
        assert_eq!(ship.next(), [good]);
        assert_eq!((ship.status().taken, ship.status().held), (1, 1));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_was_handed_on_is_not_carried_twice_and_a_circle_ends() {
        let mut ship = Ship::new(1_000_000);
        let (alpha, bravo, charlie) = (ship.alpha.clone(), ship.bravo.node_id(), ship.charlie.clone());
        let parcel = ship.alphas(Precedence::Routine);
        let name = wire::parcel::name_of(&parcel);
        ship.take(&alpha, &parcel).await;
        ship.transit.kept(bravo, name, Custody::Refused(CustodyRefusal::Full));
        assert!(ship.next().is_empty(), "not before some seconds have passed");
        assert!(ship.status().last_refusal.contains("no room") && ship.status().held == 1);
        ship.transit.kept(bravo, name, Custody::Taken);
        assert_eq!((ship.status().handed_on, ship.status().held), (1, 0));
        assert_eq!(ship.take(&alpha, &parcel).await, Custody::Taken, "the answer to alpha was lost");
        assert_eq!(ship.take(&charlie, &parcel).await, Custody::Refused(CustodyRefusal::NoWay), "it came round");
        assert!(ship.next().is_empty());
        let other = ship.alphas(Precedence::Routine);
        ship.take(&alpha, &other).await;
        ship.transit.kept(bravo, wire::parcel::name_of(&other), Custody::Refused(CustodyRefusal::NotGenuine));
        assert_eq!((ship.status().dropped, ship.status().held), (1, 0));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn urgent_parcels_go_first_find_room_longest_and_old_ones_expire_also_after_a_restart() {
        let mut ship = Ship::new(10_000);
        let alpha = ship.alpha.clone();
        // A parcel of nothing has some 1,350 bytes: five fill 70 % of the limit.
        let (mut bulk, mut answers) = (Vec::new(), Vec::new());
        for _ in 0..6 {
            bulk.push(ship.alphas(Precedence::Deferred));
            answers.push(ship.take(&alpha, bulk.last().unwrap()).await);
        }
        let taken = answers.iter().filter(|answer| **answer == Custody::Taken).count();
        assert!((4..6).contains(&taken), "{answers:?}");
        assert_eq!(answers.last(), Some(&Custody::Refused(CustodyRefusal::Full)));
        let flash = ship.alphas(Precedence::Flash);
        assert_eq!(ship.take(&alpha, &flash).await, Custody::Taken);
        assert_eq!(ship.next().first(), Some(&flash));

        ship.transit = open(&ship.dir, &ship.registry, &ship.journal, &ship.clock, 10_000);
        assert_eq!((ship.status().found, ship.status().held), (taken as u64 + 1, taken as u64 + 1));
        assert_eq!(ship.next().first(), Some(&flash));
        ship.clock.0.fetch_add(3_600_001, Ordering::SeqCst);
        let late = ship.alphas(Precedence::Flash);
        ship.take(&alpha, &late).await;
        ship.transit.look(&mut BTreeMap::new());
        assert_eq!((ship.status().expired, ship.status().held), (taken as u64 + 1, 1));
        assert_eq!(ship.next(), [late]);
    }
}
