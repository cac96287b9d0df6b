//! Sealing for a node that is not the next hop, and the origin's signature over what was sealed.
//!
//! ```text
//!  keys/sealing.key  X25519 secret[32] | public[32] | ML-KEM-768 secret[2400] | public[1184]
//!  sealed bytes      HPKE encapsulation[32] | HPKE ciphertext of:
//!                      ML-KEM-768 encapsulation[1088] | AES-256-GCM-SIV ciphertext of the plain bytes | tag[16]
//! ```
//!
//! Two envelopes, one in the other: HPKE (RFC 9180: DHKEM(X25519), HKDF-SHA-256, AES-256-GCM) outside, ML-KEM-768
//! (FIPS 203) inside. Whoever wants to read must break both, so that a stick that is copied today stays closed to a
//! quantum computer of later (docs/adr/0027).

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use aws_lc_rs::kem::{Ciphertext, DecapsulationKey, EncapsulationKey, ML_KEM_768, SharedSecret};
use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use data_encoding::BASE64;
use rustls::SignatureScheme;
use rustls::crypto::aws_lc_rs::hpke::DH_KEM_X25519_HKDF_SHA256_AES_256;
use rustls::crypto::hpke::{EncapsulatedSecret, Hpke as _, HpkePrivateKey, HpkePublicKey};
use zeroize::Zeroizing;

use crate::file::{read_private, write_private};
use crate::{KeysError, NodeKey};

const FILE: &str = "sealing.key";
const INFO: &[u8] = b"holdfast parcel v1";

const X25519_LEN: usize = 32;
const KEM_SECRET_LEN: usize = 2_400;
const KEM_PUBLIC_LEN: usize = 1_184;
const KEM_CIPHERTEXT_LEN: usize = 1_088;
const TAG_LEN: usize = 16;
const FILE_LEN: usize = 2 * X25519_LEN + KEM_SECRET_LEN + KEM_PUBLIC_LEN;

/// Bytes that sealing adds.
pub const SEAL_OVERHEAD: usize = X25519_LEN + TAG_LEN + KEM_CIPHERTEXT_LEN + TAG_LEN;

/// Bytes of a signature.
pub const SIGNATURE_LEN: usize = 64;

/// What was sealed or signed is not what it should be. Nothing of it may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// Altered under way, or sealed for another node's key.
    #[error("it was altered under way, or sealed for a key that this node does not have (any more)")]
    NotOpened,
    /// The signature is not the origin's.
    #[error("its signature is not that of the node it names as its origin")]
    NotSigned,
}

/// The public half of a node's sealing key: what others need to seal for it. Told at enrolment.
#[derive(Clone, PartialEq, Eq)]
pub struct SealingPublic(Arc<[u8; SealingPublic::LEN]>);

impl SealingPublic {
    /// Length of its bytes.
    pub const LEN: usize = X25519_LEN + KEM_PUBLIC_LEN;

    /// The key that a peer told; `None` for bytes that are none.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: [u8; Self::LEN] = bytes.try_into().ok()?;
        // Refused here rather than when something is to be sealed.
        EncapsulationKey::new(&ML_KEM_768, &bytes[X25519_LEN..]).ok()?;
        let x25519 = HpkePublicKey(bytes[..X25519_LEN].to_vec());
        DH_KEM_X25519_HKDF_SHA256_AES_256.setup_sealer(INFO, &x25519).ok()?;
        Some(Self(Arc::new(bytes)))
    }

    /// The key as bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &*self.0
    }

    /// Seals `plain` so that only the owner of the key can open it, and only together with the same `context`.
    ///
    /// # Panics
    /// When the operating system gives no random bytes.
    pub fn seal(&self, context: &[u8], plain: &[u8]) -> Vec<u8> {
        let (x25519, kem) = self.0.split_at(X25519_LEN);
        let key = EncapsulationKey::new(&ML_KEM_768, kem).expect("checked where the key was read");
        let (encapsulated, secret) =
            key.encapsulate().expect("the operating system gives random bytes once it has booted");
        let mut inner = Vec::with_capacity(KEM_CIPHERTEXT_LEN + plain.len() + TAG_LEN);
        inner.extend_from_slice(plain);
        inner_key(&secret)
            .seal_in_place_append_tag(nonce(), Aad::from(context), &mut inner)
            .expect("a parcel is far smaller than what the cipher takes");
        inner.splice(..0, encapsulated.as_ref().iter().copied());
        let outer = DH_KEM_X25519_HKDF_SHA256_AES_256;
        let (encapsulated, mut sealed) =
            outer.seal(INFO, context, &inner, &HpkePublicKey(x25519.to_vec())).expect("checked where the key was read");
        sealed.splice(..0, encapsulated.0);
        sealed
    }
}

impl fmt::Debug for SealingPublic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealingPublic({}...)", BASE64.encode(&self.0[..6]))
    }
}

impl serde::Serialize for SealingPublic {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&BASE64.encode(&*self.0))
    }
}

impl<'de> serde::Deserialize<'de> for SealingPublic {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let bytes = BASE64.decode(String::deserialize(d)?.as_bytes()).map_err(serde::de::Error::custom)?;
        Self::from_bytes(&bytes).ok_or_else(|| serde::de::Error::custom("no sealing key"))
    }
}

/// The key with which this node opens what was sealed for it. Beside its identity, made on the box, never told.
#[derive(Clone)]
pub struct SealingKey(Arc<Inner>);

struct Inner {
    x25519: Zeroizing<Vec<u8>>,
    kem: DecapsulationKey,
    /// Kept for saving: the library does not give the bytes of a key that it read.
    kem_bytes: Zeroizing<Vec<u8>>,
    public: SealingPublic,
}

impl SealingKey {
    /// A new key, in memory only.
    pub fn generate() -> Self {
        let random = "the operating system gives random bytes once it has booted";
        let (x25519_public, x25519) = DH_KEM_X25519_HKDF_SHA256_AES_256.generate_key_pair().expect(random);
        let kem = DecapsulationKey::generate(&ML_KEM_768).expect(random);
        let kem_bytes = kem.key_bytes().expect("a key just made has bytes");
        let kem_public =
            kem.encapsulation_key().and_then(|key| key.key_bytes()).expect("a key just made has a public half");
        let mut public = x25519_public.0;
        public.extend_from_slice(kem_public.as_ref());
        Self::from_parts(x25519.secret_bytes(), kem_bytes.as_ref(), &public).expect("a key just made can be read")
    }

    /// The key of the key directory `dir`, made at the first start.
    ///
    /// # Errors
    /// When the file cannot be read or written, is damaged, or is readable by others.
    pub fn open(dir: &Path) -> Result<Self, KeysError> {
        let path = dir.join(FILE);
        let Some(bytes) = read_private(&path)? else {
            let key = Self::generate();
            let mut file = Zeroizing::new(Vec::with_capacity(FILE_LEN));
            let (x25519_public, kem_public) = key.0.public.0.split_at(X25519_LEN);
            for part in [&key.0.x25519, x25519_public, &key.0.kem_bytes, kem_public] {
                file.extend_from_slice(part);
            }
            write_private(&path, &file)?;
            return Ok(key);
        };
        let damaged = || KeysError::Damaged { path: path.clone(), why: "it holds no sealing key".to_owned() };
        if bytes.len() != FILE_LEN {
            return Err(damaged());
        }
        let (x25519, rest) = bytes.split_at(X25519_LEN);
        let (x25519_public, rest) = rest.split_at(X25519_LEN);
        let (kem, kem_public) = rest.split_at(KEM_SECRET_LEN);
        Self::from_parts(x25519, kem, &[x25519_public, kem_public].concat()).ok_or_else(damaged)
    }

    fn from_parts(x25519: &[u8], kem: &[u8], public: &[u8]) -> Option<Self> {
        Some(Self(Arc::new(Inner {
            x25519: Zeroizing::new(x25519.to_vec()),
            kem: DecapsulationKey::new(&ML_KEM_768, kem).ok()?,
            kem_bytes: Zeroizing::new(kem.to_vec()),
            public: SealingPublic::from_bytes(public)?,
        })))
    }

    /// What others need to seal for this node.
    pub fn public(&self) -> &SealingPublic {
        &self.0.public
    }

    /// Opens what was sealed for this node with the same `context`.
    ///
    /// # Errors
    /// When it was altered, or sealed for another key.
    pub fn open_sealed(&self, context: &[u8], sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        let (encapsulated, outer) = sealed.split_at_checked(X25519_LEN).ok_or(SealError::NotOpened)?;
        let encapsulated = EncapsulatedSecret(encapsulated.to_vec());
        let mut inner = DH_KEM_X25519_HKDF_SHA256_AES_256
            .open(&encapsulated, INFO, context, outer, &HpkePrivateKey::from(self.0.x25519.to_vec()))
            .map_err(|_| SealError::NotOpened)?;
        let (encapsulated, plain) = inner.split_at_mut_checked(KEM_CIPHERTEXT_LEN).ok_or(SealError::NotOpened)?;
        let secret = self.0.kem.decapsulate(Ciphertext::from(&*encapsulated)).map_err(|_| SealError::NotOpened)?;
        let opened = inner_key(&secret).open_in_place(nonce(), Aad::from(context), plain);
        opened.map(|plain| plain.to_vec()).map_err(|_| SealError::NotOpened)
    }
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealingKey([sensitive])")
    }
}

impl NodeKey {
    /// This node's signature.
    ///
    /// # Panics
    /// Never: the key is an Ed25519 key.
    pub fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_LEN] {
        let signer = self.certified().key.choose_scheme(&[SignatureScheme::ED25519]).expect("a node key is Ed25519");
        let signature = signer.sign(message).expect("signing with a key in memory cannot fail");
        signature.try_into().expect("an Ed25519 signature has 64 bytes")
    }
}

/// Is this the signature of the node whose public key (SubjectPublicKeyInfo, DER) this is?
///
/// # Errors
/// When it is not.
pub fn verify_signature(spki: &[u8], message: &[u8], signature: &[u8]) -> Result<(), SealError> {
    // RFC 8410: an Ed25519 key's information is 12 fixed bytes and the key.
    let key = spki.get(12..).ok_or(SealError::NotSigned)?;
    UnparsedPublicKey::new(&ED25519, key).verify(message, signature).map_err(|_| SealError::NotSigned)
}

struct Aes256;

impl KeyType for Aes256 {
    fn len(&self) -> usize {
        32
    }
}

/// The key of the inner envelope: of one encapsulation, so of one message.
fn inner_key(secret: &SharedSecret) -> LessSafeKey {
    let mut key = Zeroizing::new([0u8; 32]);
    Salt::new(HKDF_SHA256, INFO)
        .extract(secret.as_ref())
        .expand(&[b"inner"], Aes256)
        .and_then(|okm| okm.fill(&mut *key))
        .expect("32 bytes are less than HKDF gives");
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM_SIV, &*key).expect("a key of 32 bytes"))
}

/// Each key seals once.
fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_node_it_was_sealed_for_opens_it() {
        let (alpha, bravo) = (SealingKey::generate(), SealingKey::generate());
        let sealed = alpha.public().seal(b"context", b"contact at grid 4825");
        assert_eq!(sealed.len(), 20 + SEAL_OVERHEAD);
        assert!(!sealed.windows(7).any(|w| w == b"contact"));
        assert_eq!(alpha.open_sealed(b"context", &sealed).unwrap(), b"contact at grid 4825");
        assert_eq!(bravo.open_sealed(b"context", &sealed), Err(SealError::NotOpened));
        assert_eq!(alpha.open_sealed(b"another", &sealed), Err(SealError::NotOpened));
    }

    #[test]
    fn a_flipped_bit_anywhere_closes_it() {
        let alpha = SealingKey::generate();
        let sealed = alpha.public().seal(b"", b"x");
        for at in 0..sealed.len() {
            let mut altered = sealed.clone();
            altered[at] ^= 1;
            assert_eq!(alpha.open_sealed(b"", &altered), Err(SealError::NotOpened), "byte {at}");
            assert_eq!(alpha.open_sealed(b"", &sealed[..at]), Err(SealError::NotOpened), "{at} bytes");
        }
    }

    #[test]
    fn the_inner_envelope_holds_alone() {
        // Whoever has broken the outer one still meets ML-KEM: the plain bytes are not in what it held.
        let alpha = SealingKey::generate();
        let sealed = alpha.public().seal(b"", b"contact at grid 4825");
        let (encapsulated, outer) = sealed.split_at(X25519_LEN);
        let inner = DH_KEM_X25519_HKDF_SHA256_AES_256
            .open(
                &EncapsulatedSecret(encapsulated.to_vec()),
                INFO,
                b"",
                outer,
                &HpkePrivateKey::from(alpha.0.x25519.to_vec()),
            )
            .unwrap();
        assert!(!inner.windows(7).any(|w| w == b"contact"));
    }

    #[test]
    fn a_key_survives_a_restart_and_damage_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let first = SealingKey::open(dir.path()).unwrap();
        let sealed = first.public().seal(b"c", b"hello");
        let again = SealingKey::open(dir.path()).unwrap();
        assert_eq!(again.public(), first.public());
        assert_eq!(again.open_sealed(b"c", &sealed).unwrap(), b"hello");
        assert_eq!(format!("{again:?}"), "SealingKey([sensitive])");
        write_private(&dir.path().join(FILE), b"rubbish").unwrap();
        assert!(matches!(SealingKey::open(dir.path()), Err(KeysError::Damaged { .. })));
    }

    #[test]
    fn a_key_that_nothing_can_be_sealed_for_is_refused() {
        let mut bytes = SealingKey::generate().public().as_bytes().to_vec();
        assert!(SealingPublic::from_bytes(&bytes).is_some());
        // A point of small order: every shared secret with it is zero.
        bytes[..X25519_LEN].fill(0);
        assert!(SealingPublic::from_bytes(&bytes).is_none());
        assert!(SealingPublic::from_bytes(&bytes[1..]).is_none());
    }

    #[test]
    fn a_signature_is_of_one_node_and_one_message() {
        let (alpha, bravo) = (NodeKey::generate(), NodeKey::generate());
        let signature = alpha.sign(b"message");
        assert_eq!(verify_signature(alpha.spki(), b"message", &signature), Ok(()));
        assert_eq!(verify_signature(bravo.spki(), b"message", &signature), Err(SealError::NotSigned));
        assert_eq!(verify_signature(alpha.spki(), b"massage", &signature), Err(SealError::NotSigned));
        assert_eq!(verify_signature(&[], b"message", &signature), Err(SealError::NotSigned));
    }
}
