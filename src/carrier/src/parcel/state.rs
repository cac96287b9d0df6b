//! What a node remembers of parcels to and from one peer, in `parcels/<node>.cbor` of the data directory.
//!
//! The file is replaced whole: before a parcel leaves (its numbers are in `sent`) and before what came in one is stored
//! (its numbers are in `came`). What it says too much is harmless; see `link::parcel` for why nothing may be missing.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use link::{ByBoot, Settled};
use minicbor::{Decode, Encode};
use model::{EntryId, Epoch, NodeId, RangeSet, Seq, UnixMillis};

const FORMAT: &str = "holdfast-parcels/1";

/// Media remembered for each peer: as many as anybody has in a drawer.
const STICKS_MAX: usize = 64;

/// Starts of the peer of which taken parcels are remembered: older ones are opened once more, which is harmless.
const TAKEN_BOOTS_MAX: usize = 64;

/// Everything remembered of one peer.
#[derive(Clone, Debug, Default, Encode, Decode)]
pub(crate) struct PeerParcels {
    /// Number of the last parcel made for the peer.
    #[n(0)]
    pub(crate) last_number: u64,
    #[n(1)]
    pub(crate) sent: ByBoot,
    #[n(2)]
    pub(crate) came: ByBoot,
    /// Numbers of the peer's parcels that were taken in whole.
    #[n(3)]
    pub(crate) taken: BTreeMap<u64, RangeSet>,
    #[n(4)]
    pub(crate) run: Option<Run>,
    /// Media written, the newest last.
    #[n(5)]
    pub(crate) sticks: Vec<Stick>,
    /// Own entries that are on some medium.
    #[n(6)]
    pub(crate) written: BTreeMap<Epoch, RangeSet>,
    /// At `n`, what was sent over the one-way lane in more than `n` rounds.
    #[n(7)]
    #[cbor(default)]
    pub(crate) rounds: Vec<Run>,
    /// When what was handed to a relay and has no receipt was last written again, or when that began to be counted.
    #[n(8)]
    pub(crate) repeated_at: Option<UnixMillis>,
}

/// Rounds of the one-way lane that are told apart.
pub(crate) const ROUNDS_MAX: u32 = 16;

/// One export, over as many media as it takes.
#[derive(Clone, Debug, Default, Encode, Decode)]
pub(crate) struct Run {
    /// The last medium was full before everything was on one.
    #[n(0)]
    pub(crate) open: bool,
    #[n(1)]
    numbers: BTreeMap<Epoch, RangeSet>,
    #[n(2)]
    files: BTreeMap<Epoch, RangeSet>,
    /// Epoch and number of a file of which further chunks follow, and how many are on media.
    #[n(3)]
    begun: Option<(u32, u64, u64)>,
}

impl Run {
    pub(crate) fn settled(&self, me: NodeId) -> Settled {
        let begun = self.begun.and_then(|(epoch, n, given)| {
            Some((EntryId { origin: me, epoch: Epoch(epoch), seq: Seq::new(n)? }, given))
        });
        Settled { numbers: self.numbers.clone(), files: self.files.clone(), begun }
    }

    /// Own entries.
    pub(crate) fn numbers(&self) -> &BTreeMap<Epoch, RangeSet> {
        &self.numbers
    }

    /// What is not in it, of epochs that have come so far: nothing of that is planned.
    pub(crate) fn without_the_rest(&self, epochs: impl Iterator<Item = (Epoch, u64)>) -> Settled {
        let mut settled = Settled::default();
        for (epoch, last) in epochs.filter(|(_, last)| *last > 0) {
            let all = RangeSet::from(1..=last);
            let rest = |of: &BTreeMap<Epoch, RangeSet>| of.get(&epoch).map_or(all.clone(), |has| all.difference(has));
            settled.numbers.insert(epoch, rest(&self.numbers));
            settled.files.insert(epoch, rest(&self.files));
        }
        settled
    }

    pub(crate) fn new(open: bool, settled: &Settled) -> Self {
        let begun = settled.begun.map(|(id, given)| (id.epoch.0, id.seq.get(), given));
        Self { open, numbers: settled.numbers.clone(), files: settled.files.clone(), begun }
    }
}

/// What was written on one medium.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Stick {
    /// Its name, from the file on it.
    #[n(0)]
    pub(crate) id: String,
    #[n(1)]
    pub(crate) at: UnixMillis,
    /// Numbers of the parcels on it.
    #[n(2)]
    pub(crate) parcels: RangeSet,
    #[n(3)]
    pub(crate) bytes: u64,
}

impl PeerParcels {
    /// Reads the state. A damaged file is set aside: what was in it is proven anew over a link or by further parcels.
    pub(crate) fn open(data_dir: &Path, peer: NodeId) -> io::Result<Self> {
        let path = path_in(data_dir, peer);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(e) => return Err(e),
        };
        match decode(&bytes) {
            Some(state) => Ok(state),
            None => {
                let aside = path.with_extension("damaged");
                tracing::error!(file = %path.display(), aside = %aside.display(), "what was known of parcels is damaged and was set aside; nothing is lost, and parcels are made anew");
                fs::rename(&path, aside)?;
                Ok(Self::default())
            }
        }
    }

    /// Makes the state durable.
    pub(crate) fn save(&self, data_dir: &Path, peer: NodeId) -> io::Result<()> {
        let path = path_in(data_dir, peer);
        let dir = path.parent().expect("the file lies in a directory");
        create_durably(dir)?;
        let temp = path.with_extension("new");
        let body = minicbor::to_vec((FORMAT, self)).expect("writing to a Vec cannot fail");
        let mut file = File::create(&temp)?;
        file.write_all(blake3::hash(&body).as_bytes())?;
        file.write_all(&body)?;
        file.sync_all()?;
        fs::rename(&temp, &path)?;
        File::open(dir)?.sync_all()
    }

    pub(crate) fn has_taken(&self, boot: u64, number: u64) -> bool {
        self.taken.get(&boot).is_some_and(|set| set.contains(number))
    }

    pub(crate) fn note_taken(&mut self, boot: u64, number: u64) {
        if !self.taken.contains_key(&boot) && self.taken.len() >= TAKEN_BOOTS_MAX {
            self.taken.pop_first();
        }
        self.taken.entry(boot).or_default().insert(number);
    }

    /// One more round of these entries, and of these files, over the one-way lane. `rounds`: how many are told apart.
    pub(crate) fn note_round(&mut self, sent: &Settled, first: bool, rounds: u32) {
        let rounds = rounds.clamp(1, ROUNDS_MAX) as usize;
        self.rounds.resize_with(self.rounds.len().max(rounds), Run::default);
        // From the last on: each round gets what the round before it had.
        for n in (0..self.rounds.len()).rev() {
            let (before, from_here) = self.rounds.split_at_mut(n);
            let Some(round) = from_here.first_mut() else { continue };
            let raise = |to: &mut BTreeMap<Epoch, RangeSet>,
                         sent: &BTreeMap<Epoch, RangeSet>,
                         had: Option<&BTreeMap<Epoch, RangeSet>>| {
                for (epoch, set) in sent {
                    let more = match had {
                        Some(had) => had.get(epoch).map(|had| set.intersection(had)).unwrap_or_default(),
                        None => set.clone(),
                    };
                    to.entry(*epoch).or_default().union_with(&more);
                }
            };
            let had = before.last();
            raise(&mut round.numbers, &sent.numbers, had.map(|had| &had.numbers));
            raise(&mut round.files, &sent.files, had.map(|had| &had.files));
        }
        if first && let Some(round) = self.rounds.first_mut() {
            round.begun = sent.begun.map(|(id, given)| (id.epoch.0, id.seq.get(), given));
        }
    }

    /// What has been sent in so many rounds; in one, for 0.
    pub(crate) fn sent_in(&self, rounds: u32) -> Option<&Run> {
        self.rounds.get(rounds.clamp(1, ROUNDS_MAX) as usize - 1)
    }

    pub(crate) fn note_written(&mut self, id: &str, at: UnixMillis, parcels: &RangeSet, bytes: u64) {
        match self.sticks.iter_mut().find(|stick| stick.id == id) {
            Some(stick) => {
                stick.at = at;
                stick.parcels.union_with(parcels);
                stick.bytes += bytes;
            }
            None => {
                if self.sticks.len() >= STICKS_MAX {
                    self.sticks.remove(0);
                }
                self.sticks.push(Stick { id: id.to_owned(), at, parcels: parcels.clone(), bytes });
            }
        }
    }
}

fn decode(bytes: &[u8]) -> Option<PeerParcels> {
    let (hash, body) = bytes.split_at_checked(blake3::OUT_LEN)?;
    if blake3::hash(body).as_bytes() != hash {
        return None;
    }
    let (format, state): (&str, PeerParcels) = minicbor::decode(body).ok()?;
    (format == FORMAT).then_some(state)
}

fn path_in(data_dir: &Path, peer: NodeId) -> PathBuf {
    data_dir.join("parcels").join(format!("{peer}.cbor"))
}

/// Makes a directory whose name survives a power cut: what is synced inside is lost with it otherwise.
pub(crate) fn create_durably(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(dir)?;
    match dir.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: NodeId = NodeId([7; 16]);

    fn some() -> PeerParcels {
        let mut state = PeerParcels { last_number: 9, ..PeerParcels::default() };
        state.sent.entry(5).or_default().insert(Epoch(1), RangeSet::from(3..=8));
        state.came.entry(6).or_default().insert(Epoch(2), RangeSet::from(1..=2));
        state.note_taken(6, 4);
        state.note_written("stick-1", UnixMillis(1_700_000_000_000), &RangeSet::from(1..=9), 4_711);
        let id = EntryId { origin: PEER, epoch: Epoch(1), seq: Seq::FIRST };
        state.run = Some(Run::new(true, &Settled { begun: Some((id, 12)), ..Settled::default() }));
        state
    }

    #[test]
    fn what_is_known_of_parcels_survives_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(PeerParcels::open(dir.path(), PEER).unwrap().last_number, 0);
        let state = some();
        state.save(dir.path(), PEER).unwrap();
        let again = PeerParcels::open(dir.path(), PEER).unwrap();
        assert_eq!(format!("{again:?}"), format!("{state:?}"));
        assert!(again.has_taken(6, 4) && !again.has_taken(5, 4));
        assert_eq!(again.run.unwrap().settled(PEER).begun.unwrap().1, 12);
    }

    #[test]
    fn a_round_counts_for_what_was_in_the_round_before() {
        let mut state = PeerParcels::default();
        let sent = |range| Settled { numbers: [(Epoch(1), range)].into(), ..Settled::default() };
        let in_rounds = |state: &PeerParcels, n| state.sent_in(n).map(|run| run.numbers().clone()).unwrap_or_default();
        state.note_round(&sent(RangeSet::from(1..=9)), true, 2);
        state.note_round(&sent(RangeSet::from(4..=5)), false, 2);
        state.note_round(&sent(RangeSet::from(10..=12)), true, 2);
        assert_eq!(in_rounds(&state, 1)[&Epoch(1)], RangeSet::from(1..=12));
        assert_eq!(in_rounds(&state, 2)[&Epoch(1)], RangeSet::from(4..=5));
        assert_eq!(in_rounds(&state, 0), in_rounds(&state, 1));
        // Only what was sent once is there to be sent again.
        let again = state.sent_in(2).unwrap().without_the_rest([(Epoch(1), 20), (Epoch(2), 0)].into_iter());
        let mut rest = RangeSet::from(1..=3);
        rest.insert_range(6..=20);
        assert_eq!(again.numbers, [(Epoch(1), rest)].into());
        // It survives, and a file of before there were rounds is read.
        let dir = tempfile::tempdir().unwrap();
        state.save(dir.path(), PEER).unwrap();
        assert_eq!(in_rounds(&PeerParcels::open(dir.path(), PEER).unwrap(), 2), in_rounds(&state, 2));
        let mut body = minicbor::to_vec((FORMAT, PeerParcels { last_number: 9, ..PeerParcels::default() })).unwrap();
        let at = body.len() - 9;
        assert_eq!((body[at], body.pop()), (0x88, Some(0x80)), "the last of eight fields is an empty list");
        body[at] = 0x87;
        let old = [blake3::hash(&body).as_bytes().as_slice(), &body].concat();
        fs::write(path_in(dir.path(), PEER), old).unwrap();
        assert_eq!(PeerParcels::open(dir.path(), PEER).unwrap().last_number, 9);
    }

    #[test]
    fn a_damaged_state_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        some().save(dir.path(), PEER).unwrap();
        let path = path_in(dir.path(), PEER);
        let mut bytes = fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&path, bytes).unwrap();
        assert_eq!(PeerParcels::open(dir.path(), PEER).unwrap().last_number, 0);
        assert!(path.with_extension("damaged").exists());
    }
}
