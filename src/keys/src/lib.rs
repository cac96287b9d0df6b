//! Node identity, enrolment tokens, id minting, chunk naming keys, and the keys that seal the journal.
//!
//! ```text
//!  keys/node.key      Ed25519, PKCS#8 DER            NodeKey      who this node is
//!  keys/chunk.secret  32 random bytes                ChunkSecret  names of chunks, told to peers at enrolment
//!  keys/journal.keys  wrapped data keys              Keyring      what seals the journal
//!  keys/wrapping.key  32 random bytes                WrapSecret   what wraps the keyring, unless it lies elsewhere
//!  keys/sealing.key  X25519 and ML-KEM-768     SealingKey   opens what was sealed for this node
//!  keys/peers.json    versioned JSON                 PeerRegistry who may connect
//!  keys/invites.json  versioned JSON, hashes only    InviteBook   who may enrol (hub)
//! ```
//!
//! Invariants
//! - A file in the key directory is readable by its owner alone, and replaced whole or not at all.
//! - A node key is never overwritten: another key is another node.
//! - An enrolment secret is stored hashed, compared in constant time, and admits exactly one node.
//! - Two calls of [`ProcessMint`] never return the same id, also after a crash or a restored snapshot.
//! - No secret has a `Debug` form, and each is zeroed when dropped.
//!
//! Not here: the TLS configuration and the sockets (`carrier`), naming a chunk (`wire`).

mod at_rest;
mod card;
mod chunk_secret;
mod error;
mod file;
mod invite;
mod keyring;
mod mint;
mod node_key;
mod peers;
mod sealing;
mod wrapping;

pub use at_rest::{CHECK_LEN, DataKey, DataKeys, KeyNumber, SALT_LEN, SegmentCipher, TAG_LEN, random_salt};
pub use card::{Card, CardError};
pub use chunk_secret::{ChunkNameKey, ChunkSecret};
pub use error::KeysError;
pub use file::destroy_file;
pub use invite::{Invite, InviteBook, InviteState, InviteSummary, JoinRefused, TokenError};
pub use keyring::{KEYRING_FILE, KeyInfo, Keyring};
pub use mint::{EntryIds, IdCipher, ProcessMint};
pub use node_key::{NodeKey, node_id_of_spki};
pub use peers::{Peer, PeerName, PeerRegistry, PeerRole};
pub use sealing::{SEAL_OVERHEAD, SIGNATURE_LEN, SealError, SealingKey, SealingPublic, verify_signature};
pub use wrapping::{KeysSettings, Surroundings, WRAPPING_KEY_FILE, WrapSecret, WrapSource};
