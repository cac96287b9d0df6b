//! Names of nodes and of mission objects.

use std::fmt;
use std::str::FromStr;

use minicbor::data::Type;
use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};

/// z-base-32, the alphabet of Mattermost ids (Mattermost `model/utils.go`).
const ALPHABET: &[u8; 32] = b"ybndrfg8ejkmcpqxot1uwisza345h769";

/// Value of each character of [`ALPHABET`]; 255 for all others.
const DIGITS: [u8; 256] = {
    let mut digits = [255; 256];
    let mut n = 0;
    while n < ALPHABET.len() {
        digits[ALPHABET[n] as usize] = n as u8;
        n += 1;
    }
    digits
};

/// Identity of a node: the first 16 bytes of BLAKE3 over its public key (SubjectPublicKeyInfo, DER).
///
/// Displayed as 26 z-base-32 characters; operators mostly see the node's configured name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct NodeId(#[cbor(with = "minicbor::bytes")] pub [u8; 16]);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Id::from_block(self.0).as_str())
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeId({self})")
    }
}

impl FromStr for NodeId {
    type Err = BadId;

    fn from_str(s: &str) -> Result<Self, BadId> {
        s.parse::<Id>()?.to_block().map(Self).ok_or(BadId)
    }
}

/// Identity of a mission object: 26 characters of `[a-z0-9]`, as Mattermost's API shows it.
///
/// Ids minted by our own core are a 128-bit block in z-base-32 and travel as a counter
/// (see [`IdContext`]); ids minted elsewhere may be any 26 such characters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id([u8; 26]);

/// Text that is not 26 characters of `[a-z0-9]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an id: 26 characters of a-z and 0-9 are expected")]
pub struct BadId;

impl Id {
    /// The id whose z-base-32 text encodes `block` (16 bytes, the last character carries 3 bits).
    pub fn from_block(block: [u8; 16]) -> Self {
        let mut text = [0u8; 26];
        let mut acc: u32 = 0;
        let mut bits = 0;
        let mut at = 0;
        for byte in block {
            acc = (acc << 8) | u32::from(byte);
            bits += 8;
            while bits >= 5 {
                bits -= 5;
                text[at] = ALPHABET[((acc >> bits) & 31) as usize];
                at += 1;
            }
        }
        text[at] = ALPHABET[((acc << (5 - bits)) & 31) as usize];
        Self(text)
    }

    /// The block that [`Id::from_block`] would turn into this id; `None` when no block does.
    pub fn to_block(self) -> Option<[u8; 16]> {
        let digit = |c: u8| Some(DIGITS[usize::from(c)]).filter(|digit| *digit < 32);
        let (head, last) = self.0.split_at(25);
        let mut acc: u128 = 0;
        for c in head {
            acc = acc << 5 | u128::from(digit(*c)?);
        }
        // 125 bits stand before the last character, which carries 3 and would show others.
        let last = digit(last[0])?;
        (last & 3 == 0).then(|| (acc << 3 | u128::from(last >> 2)).to_be_bytes())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("an Id holds ASCII only, checked where it is made")
    }
}

impl FromStr for Id {
    type Err = BadId;

    fn from_str(s: &str) -> Result<Self, BadId> {
        let bytes: [u8; 26] = s.as_bytes().try_into().map_err(|_| BadId)?;
        let fits = bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        if fits { Ok(Self(bytes)) } else { Err(BadId) }
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Id({})", self.as_str())
    }
}

impl serde::Serialize for Id {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.as_str())
    }
}

impl<'de> serde::Deserialize<'de> for Id {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl serde::Serialize for NodeId {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for NodeId {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Mints ids for new objects. Implemented in `keys` by a keyed permutation of a counter.
pub trait IdMint: Send + Sync {
    /// A fresh id. Two calls never return the same, also after a crash or a restored snapshot.
    fn mint(&self) -> Id;
}

/// How ids travel inside one entry: as the counter they were minted from where possible.
///
/// CBOR forms: unsigned = counter under the entry's own salt; `[salt, counter]`; bytes(16); text(26).
pub trait IdContext {
    /// `(salt, counter)` when the entry's origin minted `id`.
    fn shorten(&self, id: &Id) -> Option<(u64, u64)>;
    /// The id that the entry's origin minted from `(salt, counter)`; `None` if it cannot be known.
    fn expand(&self, salt: u64, counter: u64) -> Option<Id>;
    /// The salt written in the entry's header, under which ids shrink to a bare counter.
    fn salt(&self) -> u64;
}

/// No shortening: ids as 16 bytes, or as text where they are no block. Used inside one node.
pub struct RawIds;

impl IdContext for RawIds {
    fn shorten(&self, _: &Id) -> Option<(u64, u64)> {
        None
    }

    fn expand(&self, _: u64, _: u64) -> Option<Id> {
        None
    }

    fn salt(&self) -> u64 {
        0
    }
}

impl<C: IdContext> Encode<C> for Id {
    fn encode<W: encode::Write>(&self, e: &mut Encoder<W>, ctx: &mut C) -> Result<(), encode::Error<W::Error>> {
        match ctx.shorten(self) {
            Some((salt, counter)) if salt == ctx.salt() => e.u64(counter)?.ok(),
            Some((salt, counter)) => e.array(2)?.u64(salt)?.u64(counter)?.ok(),
            None => match self.to_block() {
                Some(block) => e.bytes(&block)?.ok(),
                None => e.str(self.as_str())?.ok(),
            },
        }
    }
}

impl<'b, C: IdContext> Decode<'b, C> for Id {
    fn decode(d: &mut Decoder<'b>, ctx: &mut C) -> Result<Self, decode::Error> {
        let at = d.position();
        let unknown = || decode::Error::message("an id counter of an origin that is not known here").at(at);
        #[allow(clippy::wildcard_enum_match_arm, reason = "every other type is no number and fails as one")]
        match d.datatype()? {
            Type::Bytes => {
                let block: [u8; 16] =
                    d.bytes()?.try_into().map_err(|_| decode::Error::message("an id block has 16 bytes").at(at))?;
                Ok(Self::from_block(block))
            }
            Type::String => d.str()?.parse().map_err(|e: BadId| decode::Error::message(e).at(at)),
            Type::Array => {
                if d.array()? != Some(2) {
                    return Err(decode::Error::message("a salted id has two parts").at(at));
                }
                let (salt, counter) = (d.u64()?, d.u64()?);
                ctx.expand(salt, counter).ok_or_else(unknown)
            }
            _ => {
                let counter = d.u64()?;
                ctx.expand(ctx.salt(), counter).ok_or_else(unknown)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_block_survives_its_text(block: [u8; 16]) {
            let id = Id::from_block(block);
            prop_assert_eq!(id.to_block(), Some(block));
            prop_assert_eq!(id.as_str().parse::<Id>(), Ok(id));
        }

        #[test]
        fn foreign_ids_travel_too(text in "[a-z0-9]{26}") {
            let id: Id = text.parse().unwrap();
            let bytes = minicbor::to_vec_with(id, &mut RawIds).unwrap();
            let back: Id = minicbor::decode_with(&bytes, &mut RawIds).unwrap();
            prop_assert_eq!(back, id);
        }
    }

    #[test]
    fn text_of_another_shape_is_refused() {
        for bad in ["", "short", "UPPERCASEisnotallowedinanid", "aaaaaaaaaaaaaaaaaaaaaaaaa-", "ééééééééééééé"]
        {
            assert_eq!(bad.parse::<Id>(), Err(BadId), "{bad}");
        }
    }
}
