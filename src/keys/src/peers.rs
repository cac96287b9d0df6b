//! Who may connect.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard};

use data_encoding::BASE64;
use model::{NodeId, UnixMillis};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::file::{read_private, write_private};
use crate::{ChunkSecret, KeysError, SealingPublic, node_id_of_spki};

const FILE: &str = "peers.json";
const FORMAT: &str = "holdfast-peers/1";

/// Name of a node as operators know it, e.g. `alpha`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct PeerName(String);

impl PeerName {
    /// Longest name in bytes.
    pub const MAX_LEN: usize = 32;

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for PeerName {
    type Err = KeysError;

    fn from_str(s: &str) -> Result<Self, KeysError> {
        let fits = (1..=Self::MAX_LEN).contains(&s.len())
            && s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if fits { Ok(Self(s.to_owned())) } else { Err(KeysError::BadName(s.to_owned())) }
    }
}

impl<'de> Deserialize<'de> for PeerName {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// What a peer is to this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PeerRole {
    /// This node dials it.
    Hub,
    /// It dials this node.
    Edge,
}

/// One enrolled node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// Its identity.
    pub node: NodeId,
    /// What operators call it.
    pub name: PeerName,
    /// Its public key (SubjectPublicKeyInfo, DER).
    #[serde(with = "spki_text")]
    pub spki: Vec<u8>,
    /// The secret under which it names its chunks.
    pub chunk_secret: ChunkSecret,
    /// What is sealed for it is sealed with this.
    pub sealing: SealingPublic,
    /// What it is to this node.
    pub role: PeerRole,
    /// Where it listens, as `host:port`; `None` for a peer that dials.
    pub address: Option<String>,
    /// When it was enrolled, by this node's clock.
    pub enrolled_at: UnixMillis,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Book {
    format: String,
    peers: Vec<Peer>,
}

/// The enrolled nodes, in `keys/peers.json`. Every change is durable before the call returns.
#[derive(Debug)]
pub struct PeerRegistry {
    path: PathBuf,
    peers: Mutex<BTreeMap<NodeId, Peer>>,
}

impl PeerRegistry {
    /// Reads the registry of the key directory `dir`; none yet is an empty one.
    ///
    /// # Errors
    /// When the file cannot be read or is damaged.
    pub fn open(dir: &Path) -> Result<Self, KeysError> {
        let path = dir.join(FILE);
        let mut peers = BTreeMap::new();
        if let Some(bytes) = read_private(&path)? {
            let damaged = |why: String| KeysError::Damaged { path: path.clone(), why };
            let book: Book = serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))?;
            if book.format != FORMAT {
                return Err(damaged(format!("its format is `{}`, not `{FORMAT}`", book.format)));
            }
            for peer in book.peers {
                if node_id_of_spki(&peer.spki) != peer.node {
                    return Err(damaged(format!("the key of `{}` does not belong to its node id", peer.name)));
                }
                peers.insert(peer.node, peer);
            }
        }
        Ok(Self { path, peers: Mutex::new(peers) })
    }

    /// Adds a peer, or replaces what is known of it.
    ///
    /// # Errors
    /// When another node has the name, or the file cannot be written; the registry is then unchanged.
    ///
    /// # Panics
    /// When `peer.spki` is not the key of `peer.node`.
    pub fn add(&self, peer: Peer) -> Result<(), KeysError> {
        assert_eq!(node_id_of_spki(&peer.spki), peer.node, "a peer is named by its key");
        let mut peers = self.lock();
        if let Some(other) = peers.values().find(|p| p.name == peer.name && p.node != peer.node) {
            return Err(KeysError::NameTaken { name: peer.name.to_string(), holder: other.node });
        }
        let mut changed = peers.clone();
        changed.insert(peer.node, peer);
        self.write(&changed)?;
        *peers = changed;
        Ok(())
    }

    /// Removes a peer: it is refused from then on. Returns what was known of it.
    ///
    /// # Errors
    /// When the file cannot be written; the registry is then unchanged.
    pub fn remove(&self, node: NodeId) -> Result<Option<Peer>, KeysError> {
        let mut peers = self.lock();
        let mut changed = peers.clone();
        let removed = changed.remove(&node);
        if removed.is_some() {
            self.write(&changed)?;
            *peers = changed;
        }
        Ok(removed)
    }

    /// What is known of a node.
    pub fn get(&self, node: NodeId) -> Option<Peer> {
        self.lock().get(&node).cloned()
    }

    /// The peer of that name.
    pub fn by_name(&self, name: &str) -> Option<Peer> {
        self.lock().values().find(|p| p.name.as_str() == name).cloned()
    }

    /// Every peer, by node id.
    pub fn list(&self) -> Vec<Peer> {
        self.lock().values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, Peer>> {
        self.peers.lock().expect("nothing panics while holding the registry")
    }

    fn write(&self, peers: &BTreeMap<NodeId, Peer>) -> Result<(), KeysError> {
        let book = Book { format: FORMAT.to_owned(), peers: peers.values().cloned().collect() };
        // Room for all of it at once: a growing buffer would leave copies of the secrets in freed memory.
        let mut json = Zeroizing::new(Vec::with_capacity(3_072 * (1 + peers.len())));
        serde_json::to_writer_pretty(&mut *json, &book).expect("a registry has a JSON form");
        write_private(&self.path, &json)
    }
}

mod spki_text {
    use super::{BASE64, Deserialize};

    pub(super) fn serialize<S: serde::Serializer>(spki: &[u8], s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&BASE64.encode(spki))
    }

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Vec<u8>, D::Error> {
        BASE64.decode(String::deserialize(d)?.as_bytes()).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{NodeKey, SealingKey};

    fn peer(name: &str) -> Peer {
        let key = NodeKey::generate();
        Peer {
            node: key.node_id(),
            name: name.parse().unwrap(),
            spki: key.spki().to_vec(),
            chunk_secret: ChunkSecret::generate(),
            sealing: SealingKey::generate().public().clone(),
            role: PeerRole::Edge,
            address: None,
            enrolled_at: UnixMillis(1_700_000_000_000),
        }
    }

    #[test]
    fn peers_survive_a_restart_and_removal_lasts() {
        let dir = tempfile::tempdir().unwrap();
        let (alpha, bravo) = (peer("alpha"), peer("bravo"));
        let registry = PeerRegistry::open(dir.path()).unwrap();
        registry.add(alpha.clone()).unwrap();
        registry.add(bravo.clone()).unwrap();
        registry.remove(bravo.node).unwrap();
        let again = PeerRegistry::open(dir.path()).unwrap();
        assert_eq!(again.list(), vec![alpha.clone()]);
        assert_eq!(again.by_name("alpha"), Some(alpha));
        assert_eq!(again.get(bravo.node), None);
    }

    #[test]
    fn a_name_belongs_to_one_node() {
        let dir = tempfile::tempdir().unwrap();
        let registry = PeerRegistry::open(dir.path()).unwrap();
        let first = peer("alpha");
        registry.add(first.clone()).unwrap();
        let refused = registry.add(peer("alpha")).unwrap_err();
        assert!(matches!(refused, KeysError::NameTaken { holder, .. } if holder == first.node));
        assert_eq!(registry.list().len(), 1);
    }

    #[test]
    fn a_registry_of_another_format_or_with_a_swapped_key_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        PeerRegistry::open(dir.path()).unwrap().add(peer("alpha")).unwrap();
        let text = String::from_utf8(read_private(&path).unwrap().unwrap().to_vec()).unwrap();
        write_private(&path, text.replace("holdfast-peers/1", "holdfast-peers/9").as_bytes()).unwrap();
        assert!(PeerRegistry::open(dir.path()).unwrap_err().to_string().contains("holdfast-peers/9"));
        let (ours, other) = (peer("x"), peer("y"));
        let own = PeerRegistry::open(&dir.path().join("b")).unwrap();
        own.add(ours.clone()).unwrap();
        let text =
            String::from_utf8(read_private(&dir.path().join("b").join(FILE)).unwrap().unwrap().to_vec()).unwrap();
        let swapped = text.replace(&BASE64.encode(&ours.spki), &BASE64.encode(&other.spki));
        write_private(&dir.path().join("b").join(FILE), swapped.as_bytes()).unwrap();
        assert!(matches!(PeerRegistry::open(&dir.path().join("b")), Err(KeysError::Damaged { .. })));
    }
}
