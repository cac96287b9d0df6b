//! Keys that seal the segments of a journal, in memory.
//!
//! ```text
//! data key (number, 32 bytes)  --HKDF-SHA-256 with salt and place-->  key and check value of one segment
//! segment key  --AES-256-GCM-SIV, one nonce per place-->  sealed bytes | tag 16
//! ```
//! Every segment has a key of its own, so that no number of frames wears out a data key, and a segment that is written
//! anew under another salt leaves nothing that the new key opens.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Which data key. Counts up from 1 within one keyring and is never given out twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct KeyNumber(pub u32);

impl fmt::Display for KeyNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// 32 random bytes from which the keys of segments are derived.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct DataKey([u8; 32]);

impl DataKey {
    /// A new key.
    pub fn generate() -> Self {
        let mut bytes = [0u8; 32];
        getrandom::fill(&mut bytes).expect("the operating system gives random bytes once it has booted");
        Self(bytes)
    }

    /// The key of these bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub(crate) fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// The cipher of one segment. `place` says which one: the same salt elsewhere gives another key.
    pub fn segment_cipher(&self, salt: &[u8; SALT_LEN], place: &[u8]) -> SegmentCipher {
        struct Len;
        impl KeyType for Len {
            fn len(&self) -> usize {
                32 + CHECK_LEN
            }
        }
        let info: &[&[u8]] = &[b"holdfast journal segment v1", place];
        let mut derived = Zeroizing::new([0; 32 + CHECK_LEN]);
        Salt::new(HKDF_SHA256, salt)
            .extract(&self.0)
            .expand(info, Len)
            .and_then(|okm| okm.fill(&mut *derived))
            .expect("40 bytes are within what HKDF gives");
        let (key, check) = derived.split_at(32);
        let unbound = UnboundKey::new(&AES_256_GCM_SIV, key).expect("the key has 32 bytes");
        let check = check.try_into().expect("the rest has the length of a check value");
        SegmentCipher { key: LessSafeKey::new(unbound), check }
    }
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DataKey([sensitive])")
    }
}

/// Bytes of the random salt of a segment.
pub const SALT_LEN: usize = 16;

/// A salt from the operating system.
pub fn random_salt() -> [u8; SALT_LEN] {
    let mut salt = [0; SALT_LEN];
    getrandom::fill(&mut salt).expect("the operating system gives random bytes once it has booted");
    salt
}

/// Bytes of a check value.
pub const CHECK_LEN: usize = 8;

/// Bytes by which sealing lengthens.
pub const TAG_LEN: usize = 16;

/// Seals and opens the frames of one segment. The key schedule is made once.
#[derive(Debug)]
pub struct SegmentCipher {
    key: LessSafeKey,
    check: [u8; CHECK_LEN],
}

impl SegmentCipher {
    /// Tells whether it is the right key, without opening anything; says nothing about the key itself.
    pub fn check(&self) -> [u8; CHECK_LEN] {
        self.check
    }

    /// Seals `buf[from..]` in place and appends the tag. Sealing other bytes under the same nonce and context only
    /// shows whether both are equal.
    pub fn seal(&self, nonce: [u8; 12], context: &[u8], buf: &mut Vec<u8>, from: usize) {
        let sealed = self.key.seal_in_place_separate_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(context),
            &mut buf[from..],
        );
        let tag = sealed.expect("a frame is far below the 64 GiB that one nonce may seal");
        buf.extend_from_slice(tag.as_ref());
    }

    /// What was sealed; `None` when the key, the nonce, the context or a byte is not the same.
    pub fn open(&self, nonce: [u8; 12], context: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let (bytes, tag) = sealed.split_at_checked(sealed.len().checked_sub(TAG_LEN)?)?;
        let mut plain = vec![0; bytes.len()];
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.key.open_separate_gather(nonce, Aad::from(context), bytes, tag, &mut plain).ok()?;
        Some(plain)
    }
}

/// The data keys that a process has unwrapped. Cheap to clone; zeroed when the last clone is dropped.
#[derive(Clone, Debug, Default)]
pub struct DataKeys(Arc<BTreeMap<KeyNumber, DataKey>>);

impl DataKeys {
    /// No key: nothing is sealed, and nothing sealed can be opened.
    pub fn none() -> Self {
        Self::default()
    }

    /// These keys.
    pub fn new(keys: impl IntoIterator<Item = (KeyNumber, DataKey)>) -> Self {
        Self(Arc::new(keys.into_iter().collect()))
    }

    /// The key with which new segments are sealed: the one with the highest number.
    pub fn newest(&self) -> Option<(KeyNumber, &DataKey)> {
        self.0.last_key_value().map(|(number, key)| (*number, key))
    }

    /// The key of that number.
    pub fn get(&self, number: KeyNumber) -> Option<&DataKey> {
        self.0.get(&number)
    }

    /// The numbers, ascending.
    pub fn numbers(&self) -> impl Iterator<Item = KeyNumber> {
        self.0.keys().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cipher(key: u8, salt: u8, place: &[u8]) -> SegmentCipher {
        DataKey::from_bytes([key; 32]).segment_cipher(&[salt; SALT_LEN], place)
    }

    #[test]
    fn what_is_sealed_opens_only_with_the_same_key_salt_place_nonce_and_context() {
        let ours = cipher(1, 2, b"here");
        let mut buf = b"head".to_vec();
        buf.extend_from_slice(b"a plain text");
        ours.seal([7; 12], b"context", &mut buf, 4);
        let sealed = &buf[4..];
        assert_eq!(sealed.len(), 12 + TAG_LEN);
        assert_eq!(&buf[..4], b"head");
        assert_eq!(ours.open([7; 12], b"context", sealed).as_deref(), Some(b"a plain text".as_slice()));
        assert_eq!(ours.open([8; 12], b"context", sealed), None);
        assert_eq!(ours.open([7; 12], b"another", sealed), None);
        for other in [cipher(9, 2, b"here"), cipher(1, 9, b"here"), cipher(1, 2, b"there")] {
            assert_eq!(other.open([7; 12], b"context", sealed), None);
            assert_ne!(other.check(), ours.check());
        }
        for at in 0..sealed.len() {
            let mut flipped = sealed.to_vec();
            flipped[at] ^= 1;
            assert_eq!(ours.open([7; 12], b"context", &flipped), None, "flip at {at}");
        }
        for short in 0..TAG_LEN {
            assert_eq!(ours.open([7; 12], b"context", &sealed[..short]), None);
        }
    }

    #[test]
    fn keys_are_not_printed() {
        let keys = DataKeys::new([(KeyNumber(1), DataKey::from_bytes([0xab; 32]))]);
        let shown = format!("{keys:?} {:?} {:?}", keys.newest(), cipher(0xab, 1, b""));
        assert!(!shown.contains("171") && !shown.to_lowercase().contains("abab"), "{shown}");
    }
}
