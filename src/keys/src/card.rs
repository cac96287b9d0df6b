//! A node's card: what another node needs to know of it, carried by hand where the two can never talk to each other directly.
//!
//! ```text
//! card     = "hfc1." | base32, lower case: payload | signature (64)
//! payload  = role byte | length byte, name | length (2 BE), public key | chunk secret (32) | length (2 BE), sealing key
//! ```
//!
//! The node's key signs the payload: nobody can make a card of a node whose key they do not have. Whether it is the right node
//! is what the hand that carries it vouches for. It holds the chunk secret: whoever has it can tell whether the node holds a
//! chunk that they know, so it is handed over like a token.

use std::str::FromStr;

use data_encoding::BASE32_NOPAD;
use model::UnixMillis;
use zeroize::Zeroizing;

use crate::{
    ChunkSecret, NodeKey, Peer, PeerName, PeerRole, SIGNATURE_LEN, SealingPublic, node_id_of_spki, verify_signature,
};

const PREFIX: &str = "hfc1.";

/// Longest text accepted: a card has about 2,300 characters.
const TEXT_LEN_MAX: usize = 4_096;

/// What a node tells of itself.
#[derive(Clone)]
pub struct Card {
    name: PeerName,
    role: PeerRole,
    spki: Vec<u8>,
    chunk_secret: ChunkSecret,
    sealing: SealingPublic,
}

/// Text that is no card.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CardError {
    /// It does not start with `hfc1.`.
    #[error("this is no card of a node: it should start with `hfc1.`; nothing was changed")]
    NotACard,
    /// A character is missing, added or wrong, or somebody else made it.
    #[error("the card was not copied correctly, or not made by the node that it is of; nothing was changed")]
    NotGenuine,
}

impl CardError {
    /// What the operator should do.
    pub fn next_step(&self) -> &'static str {
        match self {
            Self::NotACard => "get the card at the other node with `holdfast enroll card`",
            Self::NotGenuine => "copy the whole card again, from `hfc1.` to its last character",
        }
    }
}

impl Card {
    /// The card of the node with these keys, as text.
    pub fn text(
        name: &PeerName,
        role: PeerRole,
        key: &NodeKey,
        secret: &ChunkSecret,
        sealing: &SealingPublic,
    ) -> Zeroizing<String> {
        // Room for all of it at once: a growing buffer would leave copies of the secret in freed memory.
        let mut bytes = Zeroizing::new(Vec::with_capacity(TEXT_LEN_MAX));
        bytes.push(match role {
            PeerRole::Hub => 1,
            PeerRole::Edge => 2,
        });
        bytes.push(u8::try_from(name.as_str().len()).expect("names are short"));
        bytes.extend_from_slice(name.as_str().as_bytes());
        put(&mut bytes, key.spki());
        bytes.extend_from_slice(secret.expose());
        put(&mut bytes, sealing.as_bytes());
        let signature = key.sign(&bytes);
        bytes.extend_from_slice(&signature);
        let text = Zeroizing::new(BASE32_NOPAD.encode(&bytes));
        Zeroizing::new(format!("{PREFIX}{}", text.to_ascii_lowercase()))
    }

    /// As a record for the registry: a hub without an address is not dialled.
    pub fn into_peer(self, now: UnixMillis) -> Peer {
        Peer {
            node: node_id_of_spki(&self.spki),
            name: self.name,
            spki: self.spki,
            chunk_secret: self.chunk_secret,
            sealing: self.sealing,
            role: self.role,
            address: None,
            enrolled_at: now,
        }
    }

    fn parse(payload: &[u8]) -> Option<Self> {
        let (role, rest) = payload.split_first()?;
        let role = match role {
            1 => PeerRole::Hub,
            2 => PeerRole::Edge,
            _ => return None,
        };
        let (len, rest) = rest.split_first()?;
        let (name, rest) = rest.split_at_checked(usize::from(*len))?;
        let (spki, rest) = take(rest)?;
        let (secret, rest) = rest.split_first_chunk::<32>()?;
        let (sealing, rest) = take(rest)?;
        let name = std::str::from_utf8(name).ok()?.parse().ok()?;
        let sealing = SealingPublic::from_bytes(sealing)?;
        let (spki, chunk_secret) = (spki.to_vec(), ChunkSecret::from_bytes(*secret));
        rest.is_empty().then_some(Self { name, role, spki, chunk_secret, sealing })
    }
}

impl FromStr for Card {
    type Err = CardError;

    fn from_str(s: &str) -> Result<Self, CardError> {
        let text = s.trim();
        let is_card = text.get(..PREFIX.len()).is_some_and(|prefix| prefix.eq_ignore_ascii_case(PREFIX));
        if !is_card || text.len() > TEXT_LEN_MAX {
            return Err(CardError::NotACard);
        }
        let upper = Zeroizing::new(text[PREFIX.len()..].to_ascii_uppercase());
        let bytes = Zeroizing::new(BASE32_NOPAD.decode(upper.as_bytes()).map_err(|_| CardError::NotGenuine)?);
        let (payload, signature) = bytes.split_last_chunk::<SIGNATURE_LEN>().ok_or(CardError::NotGenuine)?;
        let card = Self::parse(payload).ok_or(CardError::NotGenuine)?;
        verify_signature(&card.spki, payload, signature).map_err(|_| CardError::NotGenuine)?;
        Ok(card)
    }
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&u16::try_from(bytes.len()).expect("keys are short").to_be_bytes());
    out.extend_from_slice(bytes);
}

fn take(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SealingKey;

    fn card() -> (NodeKey, ChunkSecret, SealingKey, Zeroizing<String>) {
        let (key, secret, sealing) = (NodeKey::generate(), ChunkSecret::generate(), SealingKey::generate());
        let text = Card::text(&"bravo".parse().unwrap(), PeerRole::Hub, &key, &secret, sealing.public());
        (key, secret, sealing, text)
    }

    #[test]
    fn a_card_tells_what_a_peer_needs() {
        let (key, secret, sealing, text) = card();
        let now = UnixMillis(1_700_000_000_000);
        let peer = format!("  {}\n", text.to_ascii_uppercase()).parse::<Card>().unwrap().into_peer(now);
        assert_eq!((peer.node, peer.spki.as_slice()), (key.node_id(), key.spki()));
        assert_eq!((peer.name.as_str(), peer.role, peer.address), ("bravo", PeerRole::Hub, None));
        assert!(peer.chunk_secret == secret && peer.sealing == *sealing.public());
    }

    #[test]
    fn a_card_with_one_character_changed_is_refused() {
        let (.., text) = card();
        for at in PREFIX.len()..text.len() {
            let mut changed: Vec<u8> = text.bytes().collect();
            changed[at] = if changed[at] == b'a' { b'b' } else { b'a' };
            let changed = String::from_utf8(changed).unwrap();
            assert!(changed.parse::<Card>().is_err(), "character {at}");
        }
        assert_eq!("hf1.abc".parse::<Card>().err(), Some(CardError::NotACard));
        assert_eq!("hfc1.".parse::<Card>().err(), Some(CardError::NotGenuine));
        assert_eq!(text[..text.len() - 1].parse::<Card>().err(), Some(CardError::NotGenuine));
    }
}
