//! The data keys of a journal on disk, wrapped.
//!
//! ```text
//! keys/journal.keys   two copies of one line, 4 KiB apart:
//!   holdfast-keyring/1 | BLAKE3 of the JSON, hex | JSON [`Wrapped`]
//! ```
//! The line's hash tells damage from a wrong secret. Two copies, because a damaged byte in a single one would cost
//! the whole journal.

use std::path::{Path, PathBuf};

use aws_lc_rs::aead::{Aad, Nonce};
use data_encoding::HEXLOWER;
use minicbor::bytes::ByteArray;
use minicbor::{Decode, Encode};
use model::UnixMillis;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::KeysError;
use crate::at_rest::{DataKey, DataKeys, KeyNumber};
use crate::file::{read_private, replace_private};
use crate::wrapping::{Cost, WrapSecret, WrapSource, twice};

/// File name in the key directory.
pub const KEYRING_FILE: &str = "journal.keys";

const FORMAT: &str = "holdfast-keyring/1";

/// Data keys of one journal. Every change is durable before the call returns.
#[derive(Debug)]
pub struct Keyring {
    path: PathBuf,
    secret: WrapSecret,
    held: Held,
    /// One of the copies is.
    damaged: bool,
}

/// A data key, without the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyInfo {
    /// Its number.
    pub number: KeyNumber,
    /// When it was made, by this node's clock.
    pub created_at: UnixMillis,
}

#[derive(Debug, Clone)]
struct Held {
    keys: Vec<(KeyInfo, DataKey)>,
    /// The highest number ever given out.
    highest: u32,
}

/// What stands in the file in the clear.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wrapped {
    source: WrapSource,
    cost: Cost,
    salt: String,
    nonce: String,
    sealed: String,
}

/// What is wrapped, as CBOR.
#[derive(Encode, Decode)]
struct Content {
    #[n(0)]
    highest: u32,
    #[n(1)]
    keys: Vec<Item>,
}

#[derive(Encode, Decode)]
struct Item {
    #[n(0)]
    number: u32,
    #[n(1)]
    created: i64,
    #[n(2)]
    key: ByteArray<32>,
}

impl Drop for Item {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.key[..]);
    }
}

impl Keyring {
    /// Is there a keyring in the key directory `dir`?
    pub fn exists(dir: &Path) -> bool {
        dir.join(KEYRING_FILE).exists()
    }

    /// A new keyring with its first key.
    ///
    /// # Errors
    /// When there is one already, or the file cannot be written.
    pub fn create(dir: &Path, secret: WrapSecret, now: UnixMillis) -> Result<Self, KeysError> {
        let path = dir.join(KEYRING_FILE);
        if path.exists() {
            return Err(KeysError::KeyExists { path });
        }
        let mut ring = Self { path, secret, held: Held { keys: Vec::new(), highest: 0 }, damaged: false };
        ring.add(now)?;
        Ok(ring)
    }

    /// The keyring of the key directory `dir`. One of its copies may be damaged, see [`Keyring::mend`].
    ///
    /// # Errors
    /// When it is missing or damaged, or the secret is another one.
    pub fn open(dir: &Path, secret: WrapSecret) -> Result<Self, KeysError> {
        let path = dir.join(KEYRING_FILE);
        let Some(text) = read_private(&path)? else { return Err(KeysError::KeyringMissing { path }) };
        let copies: Vec<Wrapped> = text.split(|b| *b == b'\n').filter_map(parse_line).collect();
        let Some(wrapped) = copies.first() else {
            return Err(KeysError::Damaged { path, why: "both of its copies are".to_owned() });
        };
        if wrapped.source != secret.source() {
            let (found, configured) = (wrapped.source, secret.source());
            return Err(KeysError::OtherSource { path, found, configured });
        }
        let held = unwrap(wrapped, &secret, &path)?;
        let damaged = copies.len() < 2;
        Ok(Self { path, secret, held, damaged })
    }

    /// Writes it anew when one of its copies is damaged; for whoever holds the data directory's lock. Returns whether it was.
    ///
    /// # Errors
    /// When it cannot be written; the good copy stays.
    pub fn mend(&mut self) -> Result<bool, KeysError> {
        let damaged = self.damaged;
        if damaged {
            self.write(self.held.clone())?;
        }
        Ok(damaged)
    }

    /// The keys, for sealing and opening.
    pub fn data_keys(&self) -> DataKeys {
        DataKeys::new(self.held.keys.iter().map(|(info, key)| (info.number, key.clone())))
    }

    /// What is known of each key, ascending; new segments take the last.
    pub fn list(&self) -> Vec<KeyInfo> {
        self.held.keys.iter().map(|(info, _)| *info).collect()
    }

    /// What wraps it.
    pub fn source(&self) -> WrapSource {
        self.secret.source()
    }

    /// Makes a key with which everything new is sealed.
    ///
    /// # Errors
    /// When it cannot be written; the keyring is then as before.
    pub fn add(&mut self, now: UnixMillis) -> Result<KeyNumber, KeysError> {
        let mut held = self.held.clone();
        held.highest = held.highest.checked_add(1).expect("nobody makes four billion keys");
        let number = KeyNumber(held.highest);
        held.keys.push((KeyInfo { number, created_at: now }, DataKey::generate()));
        self.write(held)?;
        Ok(number)
    }

    /// Destroys keys: what is sealed with them can never be read again. The newest stays. Returns which ones went.
    ///
    /// # Errors
    /// When the file cannot be written; the keyring is then as before, or without them.
    pub fn destroy(&mut self, which: impl Fn(KeyNumber) -> bool) -> Result<Vec<KeyNumber>, KeysError> {
        let mut held = self.held.clone();
        let newest = held.keys.last().map(|(info, _)| info.number);
        let goes = |info: &KeyInfo| Some(info.number) != newest && which(info.number);
        let gone: Vec<_> = held.keys.iter().filter(|(info, _)| goes(info)).map(|(info, _)| info.number).collect();
        if !gone.is_empty() {
            held.keys.retain(|(info, _)| !goes(info));
            self.write(held)?;
        }
        Ok(gone)
    }

    /// Wraps the same keys with another secret.
    ///
    /// # Errors
    /// When the file cannot be written; the keyring then opens with the former secret.
    pub fn rewrap(&mut self, secret: WrapSecret) -> Result<(), KeysError> {
        let former = std::mem::replace(&mut self.secret, secret);
        let written = self.write(self.held.clone());
        if written.is_err() {
            self.secret = former;
        }
        written
    }

    fn write(&mut self, held: Held) -> Result<(), KeysError> {
        let text = wrap(&held, &self.secret);
        replace_private(&self.path, &twice(&text))?;
        (self.held, self.damaged) = (held, false);
        Ok(())
    }
}

fn aad(wrapped: &Wrapped) -> Vec<u8> {
    let Cost { memory_kib, passes, lanes } = wrapped.cost;
    format!("{FORMAT} {} {memory_kib} {passes} {lanes} {}", wrapped.source, wrapped.salt).into_bytes()
}

fn wrap(held: &Held, secret: &WrapSecret) -> Vec<u8> {
    let (mut salt, mut nonce) = ([0u8; 16], [0u8; 12]);
    for random in [&mut salt[..], &mut nonce[..]] {
        getrandom::fill(random).expect("the operating system gives random bytes once it has booted");
    }
    let item = |(info, key): &(KeyInfo, DataKey)| Item {
        number: info.number.0,
        created: info.created_at.0,
        key: ByteArray::from(*key.expose()),
    };
    let content = Content { highest: held.highest, keys: held.keys.iter().map(item).collect() };
    // Room for all of it at once: a growing buffer would leave copies of the keys in freed memory.
    let mut sealed = Zeroizing::new(Vec::with_capacity(64 + 64 * content.keys.len()));
    minicbor::encode(&content, &mut *sealed).expect("writing to a Vec cannot fail");
    let cost = Cost::DEFAULT;
    let mut wrapped = Wrapped {
        source: secret.source(),
        cost,
        salt: HEXLOWER.encode(&salt),
        nonce: HEXLOWER.encode(&nonce),
        sealed: String::new(),
    };
    let key = secret.wrapping_key(&salt, &cost).expect("the default cost is within Argon2's limits");
    key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(aad(&wrapped)), &mut *sealed)
        .expect("a keyring is far below the 64 GiB that one nonce may seal");
    wrapped.sealed = HEXLOWER.encode(&sealed);
    let json = serde_json::to_vec(&wrapped).expect("a keyring has a JSON form");
    let mut line = format!("{FORMAT} {} ", blake3::hash(&json).to_hex()).into_bytes();
    line.extend_from_slice(&json);
    line.push(b'\n');
    line
}

fn parse_line(line: &[u8]) -> Option<Wrapped> {
    let line = std::str::from_utf8(line).ok()?;
    let (format, rest) = line.split_once(' ')?;
    let (hash, json) = rest.split_once(' ')?;
    let whole = format == FORMAT && blake3::hash(json.as_bytes()).to_hex().as_str() == hash;
    if whole { serde_json::from_str(json).ok() } else { None }
}

fn unwrap(wrapped: &Wrapped, secret: &WrapSecret, path: &Path) -> Result<Held, KeysError> {
    let damaged = |why: &str| KeysError::Damaged { path: path.to_owned(), why: why.to_owned() };
    let decode = |hex: &str| HEXLOWER.decode(hex.as_bytes()).map_err(|_| damaged("it is not in hexadecimal"));
    let salt: [u8; 16] = decode(&wrapped.salt)?.try_into().map_err(|_| damaged("its salt has another length"))?;
    let nonce: [u8; 12] = decode(&wrapped.nonce)?.try_into().map_err(|_| damaged("its nonce has another length"))?;
    let mut sealed = Zeroizing::new(decode(&wrapped.sealed)?);
    if !wrapped.cost.is_sane() {
        return Err(damaged("it asks for more memory or time than any keyring does"));
    }
    let key = secret.wrapping_key(&salt, &wrapped.cost).map_err(|e| damaged(&e.to_string()))?;
    let opened = key.open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(aad(wrapped)), &mut sealed);
    let Ok(plain) = opened else {
        let source_name = match secret.source() {
            WrapSource::File => "key file",
            WrapSource::Credential => "credential",
            WrapSource::Passphrase => "passphrase",
        };
        return Err(KeysError::WrongSecret { path: path.to_owned(), source_name });
    };
    let content: Content = minicbor::decode(plain).map_err(|_| damaged("its content is of another release"))?;
    let info = |item: &Item| KeyInfo { number: KeyNumber(item.number), created_at: UnixMillis(item.created) };
    let keys: Vec<_> = content.keys.iter().map(|item| (info(item), DataKey::from_bytes(*item.key))).collect();
    if keys.is_empty() {
        return Err(damaged("it holds no key"));
    }
    Ok(Held { keys, highest: content.highest })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::wrapping::{KeysSettings, Surroundings};

    const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

    fn secret(n: u8) -> WrapSecret {
        WrapSecret::from_key([n; 32])
    }

    fn passphrase(text: &str) -> WrapSecret {
        let settings = KeysSettings { source: WrapSource::Passphrase, ..KeysSettings::default() };
        let mut ask = || Some(Zeroizing::new(text.to_owned()));
        let mut surroundings = Surroundings { credentials: None, ask: &mut ask };
        WrapSecret::find(&settings, Path::new("/nowhere"), &mut surroundings, true).unwrap()
    }

    fn bytes_of(ring: &Keyring, number: u32) -> [u8; 32] {
        *ring.data_keys().get(KeyNumber(number)).unwrap().expose()
    }

    #[test]
    fn keys_survive_a_restart_and_numbers_never_come_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut ring = Keyring::create(dir.path(), secret(1), NOW).unwrap();
        assert_eq!(ring.add(NOW).unwrap(), KeyNumber(2));
        let (one, two) = (bytes_of(&ring, 1), bytes_of(&ring, 2));
        assert_ne!(one, two);
        let mut ring = Keyring::open(dir.path(), secret(1)).unwrap();
        assert_eq!((bytes_of(&ring, 1), bytes_of(&ring, 2)), (one, two));
        assert_eq!(ring.data_keys().newest().unwrap().0, KeyNumber(2));
        assert_eq!(ring.destroy(|_| true).unwrap(), [KeyNumber(1)], "the newest stays");
        assert_eq!(ring.add(NOW).unwrap(), KeyNumber(3));
        ring.destroy(|_| true).unwrap();
        let mut ring = Keyring::open(dir.path(), secret(1)).unwrap();
        assert_eq!(ring.list(), [KeyInfo { number: KeyNumber(3), created_at: NOW }]);
        assert_eq!(ring.add(NOW).unwrap(), KeyNumber(4));
        assert!(matches!(Keyring::create(dir.path(), secret(1), NOW), Err(KeysError::KeyExists { .. })));
        let mode = fs::metadata(dir.path().join(KEYRING_FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_wrong_secret_a_missing_keyring_and_a_damaged_one_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(Keyring::open(dir.path(), secret(1)), Err(KeysError::KeyringMissing { .. })));
        Keyring::create(dir.path(), secret(1), NOW).unwrap();
        let wrong = Keyring::open(dir.path(), secret(2)).unwrap_err();
        assert!(
            wrong.to_string().contains("does not open with this key file; keyring and journal are intact"),
            "{wrong}"
        );
        let other = Keyring::open(dir.path(), passphrase("correct horse battery")).unwrap_err();
        assert!(other.to_string().contains("wrapped by a file, and `keys.source` says passphrase"), "{other}");
        let path = dir.path().join(KEYRING_FILE);
        fs::write(&path, [0; 8_192]).unwrap();
        assert!(matches!(Keyring::open(dir.path(), secret(1)), Err(KeysError::Damaged { .. })));
    }

    #[test]
    fn any_flipped_byte_leaves_the_keyring_usable_and_is_mended() {
        let dir = tempfile::tempdir().unwrap();
        let key = bytes_of(&Keyring::create(dir.path(), secret(1), NOW).unwrap(), 1);
        let path = dir.path().join(KEYRING_FILE);
        let whole = fs::read(&path).unwrap();
        for at in (0..600).chain(4_090..4_700).step_by(3) {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            fs::write(&path, &bytes).unwrap();
            let mut ring = Keyring::open(dir.path(), secret(1)).unwrap();
            assert_eq!(bytes_of(&ring, 1), key, "flip at {at}");
            // A flip in what fills up the block costs nothing.
            let hurt = bytes.split(|b| *b == b'\n').filter_map(parse_line).count() < 2;
            assert_eq!(ring.mend().unwrap(), hurt, "flip at {at}");
            let mended = fs::read(&path).unwrap();
            let copies = mended.split(|b| *b == b'\n').filter_map(parse_line).count();
            assert_eq!(copies, 2, "flip at {at}");
        }
    }

    #[test]
    fn a_lost_block_leaves_a_copy() {
        let dir = tempfile::tempdir().unwrap();
        let key = bytes_of(&Keyring::create(dir.path(), secret(1), NOW).unwrap(), 1);
        let path = dir.path().join(KEYRING_FILE);
        let whole = fs::read(&path).unwrap();
        for lost in [0..4_096, 4_096..8_192] {
            let mut bytes = whole.clone();
            bytes[lost].fill(0);
            fs::write(&path, &bytes).unwrap();
            assert_eq!(bytes_of(&Keyring::open(dir.path(), secret(1)).unwrap(), 1), key);
        }
    }

    #[test]
    fn a_passphrase_opens_what_it_wrapped_and_another_secret_can_take_over() {
        let dir = tempfile::tempdir().unwrap();
        let mut ring = Keyring::create(dir.path(), secret(1), NOW).unwrap();
        let key = bytes_of(&ring, 1);
        ring.rewrap(passphrase("correct horse battery")).unwrap();
        assert!(Keyring::open(dir.path(), secret(1)).is_err());
        let ring = Keyring::open(dir.path(), passphrase("correct horse battery")).unwrap();
        assert_eq!(bytes_of(&ring, 1), key);
        let wrong = Keyring::open(dir.path(), passphrase("correct horse batter")).unwrap_err();
        assert!(wrong.to_string().contains("this passphrase"), "{wrong}");
        assert!(wrong.next_step().contains("wrapped last"), "{}", wrong.next_step());
    }

    #[test]
    fn no_key_stands_in_the_file_or_in_debug_output() {
        let dir = tempfile::tempdir().unwrap();
        let ring = Keyring::create(dir.path(), secret(1), NOW).unwrap();
        let key = bytes_of(&ring, 1);
        let text = fs::read(dir.path().join(KEYRING_FILE)).unwrap();
        assert!(!text.windows(64).any(|w| w == HEXLOWER.encode(&key).as_bytes()));
        assert!(!text.windows(32).any(|w| w == key));
        let shown = format!("{ring:?}");
        assert!(shown.contains("[sensitive]") && !shown.contains(&format!("{}, {}", key[0], key[1])), "{shown}");
    }

    #[test]
    fn a_keyring_that_asks_for_all_memory_is_refused() {
        let cost = Cost { memory_kib: u32::MAX, ..Cost::DEFAULT };
        assert!(!cost.is_sane() && Cost::DEFAULT.is_sane());
    }
}
