//! The secret under which a node names its chunks.

use std::fmt;
use std::path::Path;

use data_encoding::HEXLOWER;
use model::Label;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::KeysError;
use crate::file::{read_private, write_private};

const FILE: &str = "chunk.secret";

/// 32 random bytes of one node. Peers learn them at enrolment, so that they can name the chunks they hold and check
/// those they get; nobody else can probe for content.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct ChunkSecret([u8; 32]);

/// Key of the keyed hash that names the chunks of one origin and release label.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct ChunkNameKey([u8; 32]);

impl ChunkNameKey {
    /// The key's bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl ChunkSecret {
    /// The secret of the key directory `dir`, made at the first start.
    ///
    /// # Errors
    /// When the file cannot be read or written, is damaged, or is readable by others.
    pub fn open(dir: &Path) -> Result<Self, KeysError> {
        let path = dir.join(FILE);
        let Some(bytes) = read_private(&path)? else {
            let secret = Self::generate();
            write_private(&path, &secret.0)?;
            return Ok(secret);
        };
        let whole: Result<[u8; 32], _> = bytes.as_slice().try_into();
        whole.map(Self).map_err(|_| KeysError::Damaged { path, why: format!("it has {} bytes, not 32", bytes.len()) })
    }

    /// A new secret, in memory only.
    pub fn generate() -> Self {
        let mut bytes = [0u8; 32];
        getrandom::fill(&mut bytes).expect("the operating system gives random bytes once it has booted");
        Self(bytes)
    }

    /// The secret a peer told.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The secret, for telling it to a peer at enrolment.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// The naming key for content under `label`: equal content under another label has another name.
    pub fn name_key(&self, label: &Label) -> ChunkNameKey {
        let mut material = Zeroizing::new(Vec::with_capacity(32 + Label::MAX_LEN));
        material.extend_from_slice(&self.0);
        material.extend_from_slice(label.as_str().as_bytes());
        ChunkNameKey(blake3::derive_key("holdfast chunk name v1", &material))
    }
}

impl fmt::Debug for ChunkSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChunkSecret([sensitive])")
    }
}

impl fmt::Debug for ChunkNameKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChunkNameKey([sensitive])")
    }
}

impl serde::Serialize for ChunkSecret {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&Zeroizing::new(HEXLOWER.encode(&self.0)))
    }
}

impl<'de> serde::Deserialize<'de> for ChunkSecret {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(d)?);
        let bytes = HEXLOWER.decode(text.as_bytes()).map(Zeroizing::new).map_err(serde::de::Error::custom)?;
        let whole: [u8; 32] =
            bytes.as_slice().try_into().map_err(|_| serde::de::Error::custom("a chunk secret has 32 bytes"))?;
        Ok(Self(whole))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_secret_survives_restarts_and_names_differ_by_label() {
        let dir = tempfile::tempdir().unwrap();
        let secret = ChunkSecret::open(dir.path()).unwrap();
        assert_eq!(ChunkSecret::open(dir.path()).unwrap(), secret);
        let (mission, directory) = (secret.name_key(&"mission".parse().unwrap()), secret.name_key(&Label::directory()));
        assert_ne!(mission.as_bytes(), directory.as_bytes());
        assert_eq!(format!("{secret:?}"), "ChunkSecret([sensitive])");
    }
}
