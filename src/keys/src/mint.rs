//! Ids as a keyed permutation of a counter.
//!
//! ```text
//!  id = z-base-32( AES-128_k( tag[4] | salt[6] | counter[6] ) )      big endian
//! ```
//!
//! `k` and `tag` are derived from the origin's NodeId, so whoever holds an entry can turn an id back into its
//! counter and the entry carries two or three bytes instead of sixteen. Ids are names, not secrets. The tag tells ids
//! of this origin from ids made elsewhere; a stray match (one in 2^32) still survives the round trip, because the
//! permutation is one-to-one.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use aes::Aes128;
use aes::cipher::{Array, BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};
use model::{Id, IdContext, IdMint, NodeId};

/// Salts and counters have 48 bits.
const LIMIT: u64 = 1 << 48;

/// The permutation of one origin.
#[derive(Clone)]
pub struct IdCipher {
    aes: Aes128,
    tag: [u8; 4],
}

impl IdCipher {
    /// The permutation under which `node` mints.
    pub fn for_node(node: NodeId) -> Self {
        let derived = blake3::derive_key("holdfast id mint v1", &node.0);
        let (key, rest) = derived.split_at(16);
        let mut k = [0u8; 16];
        k.copy_from_slice(key);
        let mut tag = [0u8; 4];
        tag.copy_from_slice(&rest[..4]);
        Self { aes: Aes128::new(&Array::from(k)), tag }
    }

    /// The id minted from `(salt, counter)`; `None` when either does not fit in 48 bits.
    pub fn id(&self, salt: u64, counter: u64) -> Option<Id> {
        if salt >= LIMIT || counter >= LIMIT {
            return None;
        }
        let mut block = [0u8; 16];
        block[..4].copy_from_slice(&self.tag);
        block[4..10].copy_from_slice(&salt.to_be_bytes()[2..]);
        block[10..].copy_from_slice(&counter.to_be_bytes()[2..]);
        let mut block = Array::from(block);
        self.aes.encrypt_block(&mut block);
        Some(Id::from_block(block.into()))
    }

    /// The `(salt, counter)` that this origin minted `id` from; `None` for an id made elsewhere.
    pub fn open(&self, id: &Id) -> Option<(u64, u64)> {
        let mut block = Array::from(id.to_block()?);
        self.aes.decrypt_block(&mut block);
        let block: [u8; 16] = block.into();
        let number = |part: &[u8]| part.iter().fold(0u64, |n, b| (n << 8) | u64::from(*b));
        (block[..4] == self.tag).then(|| (number(&block[4..10]), number(&block[10..])))
    }
}

impl fmt::Debug for IdCipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdCipher").finish_non_exhaustive()
    }
}

/// Mints the ids of one run of the process.
///
/// The salt is drawn afresh at each start: a counter in a restored snapshot would repeat numbers, a salt in memory
/// cannot.
#[derive(Debug)]
pub struct ProcessMint {
    cipher: IdCipher,
    salt: u64,
    next: AtomicU64,
}

impl ProcessMint {
    /// A mint with a random salt.
    pub fn new(node: NodeId) -> Self {
        let mut bytes = [0u8; 8];
        getrandom::fill(&mut bytes[2..]).expect("the operating system gives random bytes once it has booted");
        Self::with_salt(node, u64::from_be_bytes(bytes))
    }

    /// A mint with a chosen salt, for worlds that are replayed from a seed. Only the low 48 bits count.
    pub fn with_salt(node: NodeId, salt: u64) -> Self {
        Self { cipher: IdCipher::for_node(node), salt: salt % LIMIT, next: AtomicU64::new(0) }
    }

    /// The salt of this run: what `header.mint_salt` of entries captured in it should say.
    pub fn salt(&self) -> u64 {
        self.salt
    }

    /// The node's permutation.
    pub fn cipher(&self) -> &IdCipher {
        &self.cipher
    }
}

impl IdMint for ProcessMint {
    fn mint(&self) -> Id {
        let counter = self.next.fetch_add(1, Ordering::Relaxed);
        self.cipher.id(self.salt, counter).expect("2^48 ids at a million per second take nine years")
    }
}

/// How ids are written in one entry: as counters of its origin.
#[derive(Clone, Debug)]
pub struct EntryIds {
    cipher: IdCipher,
    salt: u64,
}

impl EntryIds {
    /// For an entry of `origin` whose header says `mint_salt`.
    pub fn new(origin: NodeId, mint_salt: u64) -> Self {
        Self::with_cipher(IdCipher::for_node(origin), mint_salt)
    }

    /// The same with a permutation made before, where many entries of one origin follow each other.
    pub fn with_cipher(cipher: IdCipher, mint_salt: u64) -> Self {
        Self { cipher, salt: mint_salt }
    }
}

impl IdContext for EntryIds {
    fn shorten(&self, id: &Id) -> Option<(u64, u64)> {
        self.cipher.open(id)
    }

    fn expand(&self, salt: u64, counter: u64) -> Option<Id> {
        self.cipher.id(salt, counter)
    }

    fn salt(&self) -> u64 {
        self.salt
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn an_id_opens_to_what_it_was_minted_from(node: [u8; 16], salt in 0..LIMIT, counter in 0..LIMIT) {
            let cipher = IdCipher::for_node(NodeId(node));
            let id = cipher.id(salt, counter).unwrap();
            prop_assert_eq!(cipher.open(&id), Some((salt, counter)));
        }

        #[test]
        fn whatever_shortens_expands_to_the_same_id(node: [u8; 16], block: [u8; 16], salt in 0..LIMIT) {
            let ids = EntryIds::new(NodeId(node), salt);
            let id = Id::from_block(block);
            if let Some((s, c)) = ids.shorten(&id) {
                prop_assert_eq!(ids.expand(s, c), Some(id));
            }
        }

        #[test]
        fn ids_travel_through_an_entry_unchanged(node: [u8; 16], salt in 0..LIMIT, other in 0..LIMIT, n in 0..LIMIT) {
            let cipher = IdCipher::for_node(NodeId(node));
            for id in [cipher.id(salt, n).unwrap(), cipher.id(other, n).unwrap(), Id::from_block([7; 16])] {
                let bytes = minicbor::to_vec_with(id, &mut EntryIds::new(NodeId(node), salt)).unwrap();
                let back: Id = minicbor::decode_with(&bytes, &mut EntryIds::new(NodeId(node), salt)).unwrap();
                prop_assert_eq!(back, id);
            }
        }
    }

    #[test]
    fn no_id_is_minted_twice_and_two_runs_do_not_meet() {
        let node = NodeId([1; 16]);
        let (before, after) = (ProcessMint::with_salt(node, 10), ProcessMint::with_salt(node, 11));
        let ids: BTreeSet<Id> = (0..1_000).flat_map(|_| [before.mint(), after.mint()]).collect();
        assert_eq!(ids.len(), 2_000);
    }

    #[test]
    fn an_early_id_of_the_run_costs_one_byte_in_an_entry() {
        let node = NodeId([1; 16]);
        let mint = ProcessMint::new(node);
        let bytes = minicbor::to_vec_with(mint.mint(), &mut EntryIds::new(node, mint.salt())).unwrap();
        assert_eq!(bytes.len(), 1);
    }

    #[test]
    fn the_ids_of_another_node_stay_whole() {
        let id = ProcessMint::new(NodeId([1; 16])).mint();
        assert_eq!(IdCipher::for_node(NodeId([2; 16])).open(&id), None);
    }

    /// Ids lie in databases and journals: the derivation is part of the format.
    #[test]
    fn the_permutation_never_changes() {
        let id = IdCipher::for_node(NodeId([0x11; 16])).id(1, 2).unwrap();
        assert_eq!(id.as_str(), "xfb5tfr8cnx7hoihqyqpzfkowe");
    }
}
