//! The node's own key.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::signature::Ed25519KeyPair;
use model::NodeId;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use zeroize::Zeroizing;

use crate::KeysError;
use crate::file::{read_private, write_private};

const FILE: &str = "node.key";

/// Ed25519 key of this node: its identity on every link.
#[derive(Clone)]
pub struct NodeKey {
    /// The private key, PKCS#8 DER.
    pkcs8: Arc<Zeroizing<Vec<u8>>>,
    certified: Arc<CertifiedKey>,
    id: NodeId,
}

impl NodeKey {
    /// A new key, in memory only.
    pub fn generate() -> Self {
        let pair = Ed25519KeyPair::generate().expect("the operating system gives random bytes once it has booted");
        let document = pair.to_pkcs8().expect("a key just made has an encoding");
        Self::from_pkcs8(document.as_ref()).expect("a key just encoded can be read")
    }

    /// The key of the key directory `dir`, made at the first start.
    ///
    /// # Errors
    /// When the file cannot be read or written, is damaged, or is readable by others.
    pub fn open(dir: &Path) -> Result<Self, KeysError> {
        if let Some(key) = Self::load(dir)? {
            return Ok(key);
        }
        let key = Self::generate();
        key.save(dir)?;
        Ok(key)
    }

    /// The key of the key directory `dir`; `None` when there is none.
    ///
    /// # Errors
    /// When the file cannot be read, is damaged, or is readable by others.
    pub fn load(dir: &Path) -> Result<Option<Self>, KeysError> {
        let path = dir.join(FILE);
        let Some(bytes) = read_private(&path)? else { return Ok(None) };
        match Self::from_pkcs8(&bytes) {
            Some(key) => Ok(Some(key)),
            None => Err(KeysError::Damaged { path, why: "it holds no Ed25519 key in PKCS#8 form".to_owned() }),
        }
    }

    /// Writes the key into the key directory `dir`, durably and readable by the owner alone.
    ///
    /// # Errors
    /// When there is a key already or the file cannot be written.
    pub fn save(&self, dir: &Path) -> Result<(), KeysError> {
        let path = dir.join(FILE);
        if path.exists() {
            return Err(KeysError::KeyExists { path });
        }
        write_private(&path, &self.pkcs8)
    }

    fn from_pkcs8(bytes: &[u8]) -> Option<Self> {
        let signing = rustls::crypto::aws_lc_rs::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(bytes)).ok()?;
        let spki = signing.public_key()?.to_vec();
        let id = node_id_of_spki(&spki);
        // RFC 7250: the SubjectPublicKeyInfo stands where the certificate would.
        let certified = Arc::new(CertifiedKey::new(vec![CertificateDer::from(spki)], signing));
        Some(Self { pkcs8: Arc::new(Zeroizing::new(bytes.to_vec())), certified, id })
    }

    /// This node's identity.
    pub fn node_id(&self) -> NodeId {
        self.id
    }

    /// The public key as SubjectPublicKeyInfo, DER.
    pub fn spki(&self) -> &[u8] {
        &self.certified.cert[0]
    }

    /// The key as rustls wants it for raw public keys (RFC 7250).
    pub fn certified(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.certified)
    }
}

impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeKey({})", self.id)
    }
}

/// Identity of the node whose public key (SubjectPublicKeyInfo, DER) this is.
pub fn node_id_of_spki(spki: &[u8]) -> NodeId {
    let mut id = [0u8; 16];
    id.copy_from_slice(&blake3::hash(spki).as_bytes()[..16]);
    NodeId(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_keeps_its_identity_over_restarts() {
        let dir = tempfile::tempdir().unwrap();
        let first = NodeKey::open(dir.path()).unwrap();
        let again = NodeKey::open(dir.path()).unwrap();
        assert_eq!(first.node_id(), again.node_id());
        assert_eq!(first.spki(), again.spki());
        assert_eq!(node_id_of_spki(first.spki()), first.node_id());
    }

    #[test]
    fn an_existing_key_is_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let key = NodeKey::open(dir.path()).unwrap();
        assert!(matches!(NodeKey::generate().save(dir.path()), Err(KeysError::KeyExists { .. })));
        assert_eq!(NodeKey::open(dir.path()).unwrap().node_id(), key.node_id());
    }

    #[test]
    fn a_damaged_key_is_reported_and_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        write_private(&dir.path().join(FILE), b"rubbish").unwrap();
        assert!(matches!(NodeKey::open(dir.path()), Err(KeysError::Damaged { .. })));
        assert_eq!(read_private(&dir.path().join(FILE)).unwrap().unwrap().as_slice(), b"rubbish");
    }

    #[test]
    fn debug_output_holds_the_public_identity_only() {
        let key = NodeKey::generate();
        assert_eq!(format!("{key:?}"), format!("NodeKey({})", key.node_id()));
    }
}
