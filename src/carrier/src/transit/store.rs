//! Parcels for nodes further on, each in a file of its own below `transit/` of the data directory.
//!
//! ```text
//! transit/<class>-<arrived at, ms>-<count>-<to>-<name>.parcel
//! transit/*.part                                                  half written; removed at the next start
//! ```
//!
//! What is in a file is sealed for its destination already. A file gets its name when it is whole and synced; a parcel counts
//! as taken only then. Removing one is not synced: a parcel that comes back after a power cut is handed on twice, which its
//! destination notices.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use model::{NodeId, Precedence, UnixMillis};
use wire::parcel::{PARCEL_BYTES_MAX, name_of};

use crate::parcel::create_durably;

const EXTENSION: &str = "parcel";

/// Of the limit, in percent, what a class may fill: the more urgent ones find room when the others do not. By
/// [`Precedence::index`].
const SHARES_PERCENT: [u64; Precedence::ALL.len()] = [100, 95, 90, 80, 70];

/// A parcel that is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) name: u64,
    pub(crate) to: NodeId,
    pub(crate) class: Precedence,
    pub(crate) at: UnixMillis,
    pub(crate) len: u64,
}

/// The most urgent class first, and in it what came first.
type Place = (Precedence, UnixMillis, u64);

#[derive(Debug)]
pub(crate) struct Store {
    dir: PathBuf,
    held: BTreeMap<Place, Held>,
    places: BTreeMap<u64, Place>,
    bytes: u64,
    count: u64,
}

impl Store {
    /// Looks what is there. Files that are none of it are left alone.
    pub(crate) fn open(data_dir: &Path) -> io::Result<Self> {
        let dir = data_dir.join("transit");
        let mut store = Self { dir, held: BTreeMap::new(), places: BTreeMap::new(), bytes: 0, count: 0 };
        let listing = match fs::read_dir(&store.dir) {
            Ok(listing) => listing,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(store),
            Err(e) => return Err(e),
        };
        for item in listing {
            let item = item?;
            let name = item.file_name();
            let name = name.to_string_lossy();
            if name.ends_with(".part") {
                fs::remove_file(item.path())?;
            } else if let Some((place, mut held)) = parse(&name) {
                held.len = item.metadata()?.len();
                store.note(place, held);
            }
        }
        Ok(store)
    }

    fn note(&mut self, place: Place, held: Held) {
        self.count = self.count.max(place.2);
        self.bytes += held.len;
        self.places.insert(held.name, place);
        self.held.insert(place, held);
    }

    /// Has a parcel of `len` bytes and this class room below `limit`?
    pub(crate) fn has_room(&self, class: Precedence, len: u64, limit: u64) -> bool {
        self.bytes + len <= limit / 100 * SHARES_PERCENT[class.index()]
    }

    pub(crate) fn contains(&self, name: u64) -> bool {
        self.places.contains_key(&name)
    }

    /// Makes a parcel durable. Its name is that of its bytes.
    pub(crate) fn put(&mut self, held: Held, bytes: &[u8]) -> io::Result<()> {
        let place = (held.class, held.at, self.count + 1);
        let path = self.path(place, &held);
        let part = path.with_extension("part");
        let write = || {
            create_durably(&self.dir)?;
            let mut file = File::create(&part)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&part, &path)?;
            File::open(&self.dir)?.sync_all()
        };
        // It may have its name already, and be offered again under another.
        write().inspect_err(|_| [&part, &path].into_iter().for_each(|path| drop(fs::remove_file(path))))?;
        self.note(place, held);
        Ok(())
    }

    /// The bytes of a held parcel.
    ///
    /// # Errors
    /// When it cannot be read, or the disk has changed it.
    pub(crate) fn read(&self, name: u64) -> io::Result<Vec<u8>> {
        let place = self.places.get(&name).ok_or(io::ErrorKind::NotFound)?;
        let held = self.held.get(place).ok_or(io::ErrorKind::NotFound)?;
        if held.len > PARCEL_BYTES_MAX as u64 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the file is larger than any parcel"));
        }
        let bytes = fs::read(self.path(*place, held))?;
        match name_of(&bytes) == name {
            true => Ok(bytes),
            false => Err(io::Error::new(io::ErrorKind::InvalidData, "the file is not what was written")),
        }
    }

    /// Forgets a parcel. What it was, if it was held.
    pub(crate) fn remove(&mut self, name: u64) -> Option<Held> {
        let place = self.places.remove(&name)?;
        let held = self.held.remove(&place)?;
        self.bytes -= held.len;
        if let Err(e) = fs::remove_file(self.path(place, &held)) {
            tracing::warn!(file = %self.path(place, &held).display(), error = %e, "a parcel that was handed on stays on the disk, and is handed on again after a restart");
        }
        Some(held)
    }

    /// The most urgent first, in each class what came first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Held> {
        self.held.values()
    }

    /// What came first, first.
    pub(crate) fn of_class(&self, class: Precedence) -> impl Iterator<Item = &Held> {
        let (first, last) = ((class, UnixMillis(i64::MIN), 0), (class, UnixMillis(i64::MAX), u64::MAX));
        self.held.range(first..=last).map(|(_, held)| held)
    }

    pub(crate) fn get(&self, name: u64) -> Option<&Held> {
        self.held.get(self.places.get(&name)?)
    }

    /// Those that came before `at`.
    pub(crate) fn before(&self, at: UnixMillis) -> Vec<u64> {
        self.held.values().filter(|held| held.at < at).map(|held| held.name).collect()
    }

    fn path(&self, (class, at, count): Place, held: &Held) -> PathBuf {
        let (class, at) = (class.index(), at.0.max(0));
        self.dir.join(format!("{class}-{at:013}-{count:010}-{}-{:016x}.{EXTENSION}", held.to, held.name))
    }
}

fn parse(file: &str) -> Option<(Place, Held)> {
    let mut parts = file.strip_suffix(EXTENSION)?.strip_suffix('.')?.split('-');
    let class = Precedence::from_index(parts.next()?.parse().ok()?)?;
    let at = UnixMillis(parts.next()?.parse().ok()?);
    let count = parts.next()?.parse().ok()?;
    let to = parts.next()?.parse().ok()?;
    let name = u64::from_str_radix(parts.next()?, 16).ok()?;
    let held = Held { name, to, class, at, len: 0 };
    parts.next().is_none().then_some(((class, at, count), held))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TO: NodeId = NodeId([7; 16]);

    fn held(bytes: &[u8], class: Precedence, at: i64) -> Held {
        Held { name: name_of(bytes), to: TO, class, at: UnixMillis(at), len: bytes.len() as u64 }
    }

    #[test]
    fn parcels_survive_a_restart_in_their_order_and_halves_do_not() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::open(dir.path()).unwrap();
        let parcels: [(&[u8], Precedence, i64); 4] = [
            (b"bulk", Precedence::Deferred, 1_000),
            (b"a post", Precedence::Routine, 3_000),
            (b"an earlier post", Precedence::Routine, 2_000),
            (b"flash", Precedence::Flash, 4_000),
        ];
        for (bytes, class, at) in parcels {
            store.put(held(bytes, class, at), bytes).unwrap();
        }
        fs::write(dir.path().join("transit/4-1-1.part"), "half").unwrap();
        fs::write(dir.path().join("transit/notes.txt"), "somebody else's").unwrap();
        let mut store = Store::open(dir.path()).unwrap();
        let order: Vec<Vec<u8>> = store.iter().map(|held| store.read(held.name).unwrap()).collect();
        assert_eq!(order, [b"flash".as_slice(), b"an earlier post", b"a post", b"bulk"]);
        assert_eq!(store.before(UnixMillis(2_001)), [name_of(b"an earlier post"), name_of(b"bulk")]);
        assert!(!dir.path().join("transit/4-1-1.part").exists() && dir.path().join("transit/notes.txt").exists());
        assert_eq!(store.remove(name_of(b"bulk")), Some(held(b"bulk", Precedence::Deferred, 1_000)));
        assert_eq!(store.remove(name_of(b"bulk")), None);
        assert!(!Store::open(dir.path()).unwrap().contains(name_of(b"bulk")));
    }

    #[test]
    fn a_parcel_that_the_disk_has_changed_is_not_handed_on() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::open(dir.path()).unwrap();
        store.put(held(b"sealed", Precedence::Routine, 1), b"sealed").unwrap();
        let file = fs::read_dir(dir.path().join("transit")).unwrap().next().unwrap().unwrap().path();
        fs::write(&file, b"sEaled").unwrap();
        assert_eq!(store.read(name_of(b"sealed")).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn urgent_parcels_find_room_when_others_do_not() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::open(dir.path()).unwrap();
        let bulk = vec![1; 700];
        assert!(store.has_room(Precedence::Deferred, 700, 1_000));
        store.put(held(&bulk, Precedence::Deferred, 1), &bulk).unwrap();
        let admitted = Precedence::ALL.map(|class| store.has_room(class, 150, 1_000));
        assert_eq!(admitted, [true, true, true, false, false]);
        assert!(!store.has_room(Precedence::Flash, 301, 1_000));
    }
}
