//! Names of content-defined chunks, and the list that rebuilds a file from them.

use std::fmt;

use minicbor::{Decode, Encode};

/// Name of a chunk: an algorithm byte and a keyed hash of the plain bytes.
///
/// The key is derived from the origin's chunk secret and the release label, so that equal content
/// under another label, or on another community's nodes, has another name and cannot be probed for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct ChunkName(#[cbor(with = "minicbor::bytes")] pub [u8; ChunkName::LEN]);

impl ChunkName {
    /// Algorithm byte plus 16 bytes of hash.
    pub const LEN: usize = 17;
    /// Algorithm byte: keyed BLAKE3, its first 128 bits. Who makes chunks does not know the key, and a file is proven by its
    /// whole hash.
    pub const BLAKE3_KEYED: u8 = 1;
}

impl fmt::Display for ChunkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0 {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for ChunkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChunkName({self})")
    }
}

/// How to rebuild a byte string from chunks, in order.
///
/// Up to [`Manifest::INLINE_MAX`] names stand inline (`level` 0). A longer list is itself written as bytes
/// ([`ChunkName::LEN`] per name), cut into chunks, and named by a manifest of `level` 1; and so on.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Manifest {
    /// 0: `chunks` are the content. n: they are the name list of level n - 1.
    #[n(0)]
    pub level: u8,
    /// Length of the content in bytes.
    #[n(1)]
    pub content_bytes: u64,
    /// Chunks of this level in order.
    #[n(2)]
    pub chunks: Vec<ChunkName>,
    /// BLAKE3 (unkeyed, 32 bytes) over the content: the receiver proves the whole file with it.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub content_hash: [u8; 32],
    /// Set when the chunks hold another form of the content.
    #[n(4)]
    pub coded: Option<Coded>,
}

/// A form from which the content is brought back byte for byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Coded {
    /// Which form: [`Coded::ZIP_EXPANDED`].
    #[n(0)]
    pub coding: u8,
    /// Length of that form in bytes.
    #[n(1)]
    pub bytes: u64,
}

impl Coded {
    /// A zip container whose members are inflated.
    pub const ZIP_EXPANDED: u8 = 1;
}

impl Manifest {
    /// Inline names: 8 x 17 B. A file that is shared again pays for them again.
    pub const INLINE_MAX: usize = 8;
}
