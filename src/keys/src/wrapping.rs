//! The secret that wraps the keyring, and where it comes from.
//!
//! ```text
//! source = "file"        32 random bytes in keys/wrapping.key, or on a medium that the operator takes away
//! source = "credential"  what systemd put into $CREDENTIALS_DIRECTORY (LoadCredential, LoadCredentialEncrypted)
//! source = "passphrase"  from such a credential, from a file, or asked at the terminal; then Argon2id (RFC 9106)
//! ```
//! Never from the environment or the command line: both can be read by others and are written to logs.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::aead::{AES_256_GCM_SIV, LessSafeKey, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::KeysError;
use crate::file::{read_private, write_private};

/// Name of the default key file in the key directory.
pub const WRAPPING_KEY_FILE: &str = "wrapping.key";

/// Section `[keys]` of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KeysSettings {
    /// What wraps the keyring.
    pub source: WrapSource,
    /// The key file; `wrapping.key` in the key directory when absent.
    pub file: Option<PathBuf>,
    /// Name of the systemd credential that holds the secret or the passphrase.
    pub credential: String,
    /// The first line of this file is the passphrase.
    pub passphrase_file: Option<PathBuf>,
}

impl Default for KeysSettings {
    fn default() -> Self {
        let credential = "holdfast.journal".to_owned();
        Self { source: WrapSource::File, file: None, credential, passphrase_file: None }
    }
}

impl KeysSettings {
    /// Where the key file lies, for the key directory `dir`.
    pub fn file_in(&self, dir: &Path) -> PathBuf {
        self.file.clone().unwrap_or_else(|| dir.join(WRAPPING_KEY_FILE))
    }
}

/// What wraps the keyring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WrapSource {
    /// A key file.
    File,
    /// A systemd credential.
    Credential,
    /// A passphrase.
    Passphrase,
}

impl WrapSource {
    /// Name in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Credential => "credential",
            Self::Passphrase => "passphrase",
        }
    }
}

impl fmt::Display for WrapSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What the process brings along for finding the secret.
pub struct Surroundings<'a> {
    /// `$CREDENTIALS_DIRECTORY`.
    pub credentials: Option<&'a Path>,
    /// Asks a person for the passphrase; `None` when nobody is there.
    pub ask: &'a mut dyn FnMut() -> Option<Zeroizing<String>>,
}

/// The secret that wraps the keyring, as it was given. Zeroed when dropped, never printed.
pub struct WrapSecret {
    source: WrapSource,
    bytes: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for WrapSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WrapSecret({} [sensitive])", self.source)
    }
}

/// Shortest passphrase: 12 characters, with Argon2id in front.
const PASSPHRASE_CHARS_MIN: usize = 12;

/// Shortest credential: a credential is not stretched, so it must be random.
const CREDENTIAL_BYTES_MIN: usize = 16;

const CREDENTIAL_BYTES_MAX: u64 = 1 << 20;

const FILE_FORMAT: &str = "holdfast-wrapping-key/1";

impl WrapSecret {
    /// A secret for a keyring that is wrapped by a key file.
    pub fn from_key(bytes: [u8; 32]) -> Self {
        Self { source: WrapSource::File, bytes: Zeroizing::new(bytes.to_vec()) }
    }

    /// Where it came from.
    pub fn source(&self) -> WrapSource {
        self.source
    }

    /// Finds the secret as configured, for the key directory `dir`. With `make`, a missing key file is made.
    ///
    /// # Errors
    /// When it is not there, damaged, readable by others or too weak for a new keyring.
    pub fn find(
        settings: &KeysSettings,
        dir: &Path,
        surroundings: &mut Surroundings<'_>,
        make: bool,
    ) -> Result<Self, KeysError> {
        let source = settings.source;
        let bytes = match source {
            WrapSource::File => {
                let path = settings.file_in(dir);
                match read_private(&path)? {
                    Some(text) => parse_key_file(&path, &text)?,
                    None if make => make_key_file(&path)?,
                    None => return Err(KeysError::WrappingKeyMissing { path }),
                }
            }
            WrapSource::Credential => {
                let bytes = read_credential(settings, surroundings)?.ok_or_else(|| {
                    let name = settings.credential.clone();
                    KeysError::CredentialMissing { name, what: "the secret that wraps the keyring" }
                })?;
                if bytes.len() < CREDENTIAL_BYTES_MIN {
                    return Err(KeysError::WeakSecret { what: "credential", least: "16 random bytes" });
                }
                bytes
            }
            WrapSource::Passphrase => {
                let passphrase = find_passphrase(settings, surroundings)?;
                let chars = std::str::from_utf8(&passphrase).map_or(passphrase.len(), |text| text.chars().count());
                if make && chars < PASSPHRASE_CHARS_MIN {
                    return Err(KeysError::WeakSecret { what: "passphrase", least: "12 characters" });
                }
                passphrase
            }
        };
        Ok(Self { source, bytes })
    }

    /// The key that wraps, for a keyring with this salt.
    pub(crate) fn wrapping_key(&self, salt: &[u8; 16], cost: &Cost) -> Result<LessSafeKey, argon2::Error> {
        let mut stretched = Zeroizing::new([0u8; 32]);
        let material: &[u8] = match self.source {
            WrapSource::File | WrapSource::Credential => &self.bytes,
            WrapSource::Passphrase => {
                let params = Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(32))?;
                let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
                argon2.hash_password_into(&self.bytes, salt, &mut *stretched)?;
                &*stretched
            }
        };
        let info: &[&[u8]] = &[b"holdfast keyring wrap v1", self.source.as_str().as_bytes()];
        let extracted = Salt::new(HKDF_SHA256, salt).extract(material);
        let expanded = extracted.expand(info, &AES_256_GCM_SIV).expect("32 bytes are within what HKDF gives");
        Ok(LessSafeKey::new(UnboundKey::from(expanded)))
    }
}

/// What a guess at the passphrase costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Cost {
    pub(crate) memory_kib: u32,
    pub(crate) passes: u32,
    pub(crate) lanes: u32,
}

impl Cost {
    /// Second recommended choice of RFC 9106, section 4, on one lane: 64 MiB, three passes.
    pub(crate) const DEFAULT: Self = Self { memory_kib: 64 << 10, passes: 3, lanes: 1 };

    /// A damaged or foreign file must not ask for all memory or for hours.
    pub(crate) fn is_sane(&self) -> bool {
        self.memory_kib <= 1 << 20 && self.passes <= 16 && self.lanes <= 16
    }
}

fn read_credential(
    settings: &KeysSettings,
    surroundings: &Surroundings<'_>,
) -> Result<Option<Zeroizing<Vec<u8>>>, KeysError> {
    let Some(dir) = surroundings.credentials else { return Ok(None) };
    let path = dir.join(&settings.credential);
    let failed = |source| KeysError::Read { path: path.clone(), source };
    match std::fs::metadata(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed(e)),
        Ok(meta) if meta.len() > CREDENTIAL_BYTES_MAX => {
            return Err(KeysError::Damaged { path, why: "it has more than 1 MiB".to_owned() });
        }
        Ok(_) => {}
    }
    std::fs::read(&path).map(Zeroizing::new).map(Some).map_err(failed)
}

fn find_passphrase(
    settings: &KeysSettings,
    surroundings: &mut Surroundings<'_>,
) -> Result<Zeroizing<Vec<u8>>, KeysError> {
    let first_line = |bytes: Zeroizing<Vec<u8>>| {
        let end = bytes.iter().position(|b| matches!(b, b'\n' | b'\r')).unwrap_or(bytes.len());
        Zeroizing::new(bytes[..end].to_vec())
    };
    if let Some(bytes) = read_credential(settings, surroundings)? {
        return Ok(first_line(bytes));
    }
    if let Some(path) = &settings.passphrase_file {
        let missing = || KeysError::Read { path: path.clone(), source: io::ErrorKind::NotFound.into() };
        return read_private(path)?.map(first_line).ok_or_else(missing);
    }
    match (surroundings.ask)() {
        Some(text) => Ok(Zeroizing::new(text.as_bytes().to_vec())),
        None => {
            Err(KeysError::CredentialMissing { name: settings.credential.clone(), what: "the keyring's passphrase" })
        }
    }
}

/// The line is written twice, so that one damaged byte does not cost the journal.
fn make_key_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, KeysError> {
    let mut key = Zeroizing::new(vec![0u8; 32]);
    getrandom::fill(&mut key).expect("the operating system gives random bytes once it has booted");
    let hex = Zeroizing::new(HEXLOWER.encode(&key));
    let line = Zeroizing::new(format!("{FILE_FORMAT} {} {}\n", check_of(&key), &*hex));
    write_private(path, &twice(line.as_bytes()))?;
    Ok(key)
}

fn parse_key_file(path: &Path, text: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeysError> {
    let whole = |line: &[u8]| -> Option<Zeroizing<Vec<u8>>> {
        let mut words = std::str::from_utf8(line).ok()?.split(' ');
        let (format, check, hex) = (words.next()?, words.next()?, words.next()?);
        let key = Zeroizing::new(HEXLOWER.decode(hex.as_bytes()).ok()?);
        (format == FILE_FORMAT && key.len() == 32 && check_of(&key) == check).then_some(key)
    };
    let found = text.split(|b| *b == b'\n').find_map(whole);
    found.ok_or_else(|| KeysError::Damaged { path: path.to_owned(), why: "it holds no wrapping key".to_owned() })
}

fn check_of(key: &[u8]) -> String {
    HEXLOWER.encode(&blake3::hash(key).as_bytes()[..4])
}

/// A line and its copy, each with a line end before it and filled up with more to whole 4 KiB: a lost block leaves one.
pub(crate) fn twice(line: &[u8]) -> Zeroizing<Vec<u8>> {
    const BLOCK: usize = 4 << 10;
    let len = (1 + line.len()).next_multiple_of(BLOCK);
    let mut out = Zeroizing::new(Vec::with_capacity(2 * len));
    for end in [len, 2 * len] {
        out.push(b'\n');
        out.extend_from_slice(line);
        out.resize(end, b'\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nobody() -> Option<Zeroizing<String>> {
        None
    }

    fn find(settings: &KeysSettings, dir: &Path, credentials: Option<&Path>, make: bool) -> Result<Vec<u8>, KeysError> {
        let mut surroundings = Surroundings { credentials, ask: &mut nobody };
        WrapSecret::find(settings, dir, &mut surroundings, make).map(|secret| secret.bytes.to_vec())
    }

    #[test]
    fn a_key_file_is_made_once_and_outlives_any_flipped_byte() {
        let dir = tempfile::tempdir().unwrap();
        let settings = KeysSettings::default();
        let missing = find(&settings, dir.path(), None, false).unwrap_err();
        assert!(matches!(missing, KeysError::WrappingKeyMissing { .. }), "{missing}");
        let key = find(&settings, dir.path(), None, true).unwrap();
        assert_eq!(find(&settings, dir.path(), None, true).unwrap(), key);
        let path = settings.file_in(dir.path());
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            assert_eq!(*parse_key_file(&path, &bytes).unwrap(), key, "flip at {at}");
        }
        let mut bytes = whole.clone();
        bytes[..4096].fill(0);
        assert_eq!(*parse_key_file(&path, &bytes).unwrap(), key, "the first block is gone");
    }

    #[test]
    fn a_credential_comes_from_the_service_manager_and_is_named_when_it_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let settings = KeysSettings { source: WrapSource::Credential, ..KeysSettings::default() };
        let missing = find(&settings, dir.path(), None, true).unwrap_err();
        assert!(missing.to_string().contains("`holdfast.journal`"), "{missing}");
        assert!(missing.next_step().contains("LoadCredential"), "{}", missing.next_step());
        std::fs::write(dir.path().join("holdfast.journal"), [5; 8]).unwrap();
        assert!(matches!(find(&settings, dir.path(), Some(dir.path()), true), Err(KeysError::WeakSecret { .. })));
        std::fs::write(dir.path().join("holdfast.journal"), [5; 32]).unwrap();
        assert_eq!(find(&settings, dir.path(), Some(dir.path()), true).unwrap(), [5; 32]);
    }

    #[test]
    fn a_passphrase_is_asked_for_only_when_no_file_and_no_credential_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut settings = KeysSettings { source: WrapSource::Passphrase, ..KeysSettings::default() };
        let mut ask = || Some(Zeroizing::new("correct horse battery".to_owned()));
        let mut surroundings = Surroundings { credentials: None, ask: &mut ask };
        let secret = WrapSecret::find(&settings, dir.path(), &mut surroundings, true).unwrap();
        assert_eq!(secret.bytes.as_slice(), b"correct horse battery");
        assert!(!format!("{secret:?}").contains("horse"));
        let path = dir.path().join("phrase");
        write_private(&path, b"from the file, with blanks\r\nsecond line").unwrap();
        settings.passphrase_file = Some(path.clone());
        assert_eq!(find(&settings, dir.path(), None, true).unwrap(), b"from the file, with blanks");
        write_private(&path, b"short\n").unwrap();
        assert!(matches!(find(&settings, dir.path(), None, true), Err(KeysError::WeakSecret { .. })));
        assert_eq!(
            find(&settings, dir.path(), None, false).unwrap(),
            b"short",
            "an old keyring is opened all the same"
        );
    }
}
