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
}

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
        fs::create_dir_all(dir)?;
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
