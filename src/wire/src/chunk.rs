//! Files as content-defined chunks, and the manifest that rebuilds them.
//!
//! ```text
//!  content --FastCDC--> chunk chunk chunk ...          named by keyed BLAKE3
//!                         |33 bytes each
//!  up to 32 names:        manifest { level 0, names }
//!  more: the names as bytes are cut and named the same way: manifest { level 1, names of name lists }, and so on
//! ```

use std::io::{self, Read};

use fastcdc::v2020::StreamCDC;
use keys::{ChunkNameKey, ChunkSecret};
use model::{ChunkName, Label, Manifest};

use crate::WireError;

/// Smallest chunk except a file's last.
pub const CHUNK_BYTES_MIN: usize = 4 << 10;
/// Size around which chunks fall: an edit costs about this much, a name a thousandth of it.
pub const CHUNK_BYTES_MEAN: usize = 16 << 10;
/// Largest chunk.
pub const CHUNK_BYTES_MAX: usize = 64 << 10;

/// Deepest manifest: three levels of lists reach 32 x (16 KiB / 33)^3 chunks, far beyond any disk.
pub const LEVEL_MAX: u8 = 3;

/// Names chunks of one origin under one label.
pub struct Namer(ChunkNameKey);

impl Namer {
    /// For content of the node with this chunk secret, under `label`.
    pub fn new(secret: &[u8; 32], label: &Label) -> Self {
        Self(ChunkSecret::from_bytes(*secret).name_key(label))
    }

    /// The name of a chunk.
    pub fn name(&self, chunk: &[u8]) -> ChunkName {
        let mut name = [ChunkName::BLAKE3_KEYED; ChunkName::LEN];
        name[1..].copy_from_slice(blake3::keyed_hash(self.0.as_bytes(), chunk).as_bytes());
        ChunkName(name)
    }
}

/// Cuts a byte stream into chunks; holds one largest chunk at a time.
///
/// # Errors
/// Each item is an error when the reader fails.
pub fn split(reader: impl Read) -> impl Iterator<Item = io::Result<Vec<u8>>> {
    StreamCDC::new(reader, CHUNK_BYTES_MIN, CHUNK_BYTES_MEAN, CHUNK_BYTES_MAX)
        .map(|chunk| chunk.map(|c| c.data).map_err(io::Error::from))
}

/// Cuts `reader` into chunks, hands each to `put` (which may hold it already) and returns what rebuilds the content.
/// Memory: the name list, two thousandths of the content.
///
/// # Errors
/// The reader's error, or what `put` returns.
pub fn build_manifest<E: From<io::Error>>(
    reader: impl Read,
    namer: &Namer,
    mut put: impl FnMut(ChunkName, &[u8]) -> Result<(), E>,
) -> Result<Manifest, E> {
    let mut hash = blake3::Hasher::new();
    let mut content_bytes = 0;
    let mut chunks = Vec::new();
    for chunk in split(reader) {
        let chunk = chunk?;
        hash.update(&chunk);
        content_bytes += chunk.len() as u64;
        let name = namer.name(&chunk);
        put(name, &chunk)?;
        chunks.push(name);
    }
    let mut level = 0;
    while chunks.len() > Manifest::INLINE_MAX {
        let list: Vec<u8> = chunks.iter().flat_map(|name| name.0).collect();
        chunks.clear();
        for chunk in split(list.as_slice()) {
            let chunk = chunk?;
            let name = namer.name(&chunk);
            put(name, &chunk)?;
            chunks.push(name);
        }
        level += 1;
    }
    Ok(Manifest { level, content_bytes, chunks, content_hash: *hash.finalize().as_bytes() })
}

/// Content could not be rebuilt from its manifest.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RebuildError<E> {
    /// A chunk is not held (yet).
    #[error("chunk {0} is not held; the file is incomplete")]
    Missing(ChunkName),
    /// The manifest or a name list makes no sense.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The rebuilt bytes are not those the manifest describes.
    #[error("the rebuilt content differs from what its manifest describes; it must not be used")]
    OtherContent,
    /// A callback failed.
    #[error("rebuilding a file was interrupted: {0}")]
    Io(E),
}

/// Rebuilds the content: chunks come from `get` and go to `write` in order. What was written counts only
/// when this returns `Ok`: the content hash is compared last.
///
/// # Errors
/// See [`RebuildError`].
pub fn read_manifest<B: AsRef<[u8]>, E>(
    manifest: &Manifest,
    mut get: impl FnMut(&ChunkName) -> Result<Option<B>, E>,
    mut write: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), RebuildError<E>> {
    let names = name_list(manifest, &mut get)?;
    let mut hash = blake3::Hasher::new();
    let mut bytes = 0;
    for name in &names {
        let chunk = get(name).map_err(RebuildError::Io)?.ok_or(RebuildError::Missing(*name))?;
        hash.update(chunk.as_ref());
        bytes += chunk.as_ref().len() as u64;
        if bytes > manifest.content_bytes {
            return Err(RebuildError::OtherContent);
        }
        write(chunk.as_ref()).map_err(RebuildError::Io)?;
    }
    if bytes != manifest.content_bytes || *hash.finalize().as_bytes() != manifest.content_hash {
        return Err(RebuildError::OtherContent);
    }
    Ok(())
}

/// The names of the content's chunks in order, read through the lists of a deep manifest.
///
/// # Errors
/// See [`RebuildError`]; the content itself is not looked at.
pub fn name_list<B: AsRef<[u8]>, E>(
    manifest: &Manifest,
    mut get: impl FnMut(&ChunkName) -> Result<Option<B>, E>,
) -> Result<Vec<ChunkName>, RebuildError<E>> {
    check_manifest(manifest)?;
    let mut names = manifest.chunks.clone();
    for level in (0..manifest.level).rev() {
        let mut list = Vec::new();
        for name in &names {
            let chunk = get(name).map_err(RebuildError::Io)?.ok_or(RebuildError::Missing(*name))?;
            list.extend_from_slice(chunk.as_ref());
            check_list_len(manifest, level, list.len())?;
        }
        names = read_name_list(&list)?;
    }
    Ok(names)
}

/// The names in a complete name list.
///
/// # Errors
/// When the bytes are no whole number of names.
pub fn read_name_list(list: &[u8]) -> Result<Vec<ChunkName>, WireError> {
    let (names, rest) = list.as_chunks::<{ ChunkName::LEN }>();
    if rest.is_empty() {
        Ok(names.iter().map(|n| ChunkName(*n)).collect())
    } else {
        Err(WireError::Malformed("a name list"))
    }
}

/// Refuses a manifest that no [`build_manifest`] makes.
///
/// # Errors
/// When its depth or number of names is out of range.
pub fn check_manifest(manifest: &Manifest) -> Result<(), WireError> {
    let found = manifest.chunks.len() as u64;
    if found > Manifest::INLINE_MAX as u64 {
        return Err(WireError::TooLarge { what: "a manifest", found, max: Manifest::INLINE_MAX as u64 });
    }
    if manifest.level > LEVEL_MAX {
        return Err(WireError::Malformed("a manifest's level"));
    }
    Ok(())
}

/// Refuses a name list for `level` that is longer than the announced content can need, so that a hostile
/// manifest cannot make its reader hold more than it announced.
///
/// # Errors
/// When `list_bytes` is too large.
pub fn check_list_len(manifest: &Manifest, level: u8, list_bytes: usize) -> Result<(), WireError> {
    let mut max = manifest.content_bytes;
    for _ in 0..=level {
        // All but the last chunk have the minimal size.
        max = (max / CHUNK_BYTES_MIN as u64 + 1).saturating_mul(ChunkName::LEN as u64);
    }
    if list_bytes as u64 > max {
        return Err(WireError::TooLarge { what: "a name list", found: list_bytes as u64, max });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    type Store = BTreeMap<ChunkName, Vec<u8>>;

    fn namer() -> Namer {
        Namer::new(&[9; 32], &"mission".parse().unwrap())
    }

    fn build(content: &[u8], store: &mut Store) -> Manifest {
        build_manifest::<io::Error>(content, &namer(), |name, bytes| {
            store.insert(name, bytes.to_vec());
            Ok(())
        })
        .unwrap()
    }

    fn rebuild(manifest: &Manifest, store: &Store) -> Result<Vec<u8>, RebuildError<io::Error>> {
        let mut out = Vec::new();
        read_manifest(
            manifest,
            |name| Ok(store.get(name)),
            |bytes| {
                out.extend_from_slice(bytes);
                Ok(())
            },
        )?;
        Ok(out)
    }

    fn noise(len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        blake3::Hasher::new().finalize_xof().fill(&mut out);
        out
    }

    #[test]
    fn a_file_of_any_size_is_rebuilt_from_its_chunks() {
        for len in [0, 1, 4_096, 100_000, 3_000_000, 12_000_000] {
            let mut store = Store::new();
            let content = noise(len);
            let manifest = build(&content, &mut store);
            assert!(manifest.chunks.len() <= Manifest::INLINE_MAX);
            assert_eq!(rebuild(&manifest, &store).unwrap(), content, "{len} bytes");
        }
    }

    #[test]
    fn an_edit_in_the_middle_changes_few_chunks() {
        let mut store = Store::new();
        let mut content = noise(2_000_000);
        build(&content, &mut store);
        let before = store.len();
        content.splice(1_000_000..1_000_003, *b"edited");
        build(&content, &mut store);
        assert!(store.len() - before <= 5, "{} new chunks", store.len() - before);
    }

    #[test]
    fn another_label_gives_other_names() {
        let other = Namer::new(&[9; 32], &"secret".parse().unwrap());
        assert_ne!(namer().name(b"same"), other.name(b"same"));
    }

    #[test]
    fn a_missing_or_exchanged_chunk_is_noticed() {
        let mut store = Store::new();
        let manifest = build(&noise(500_000), &mut store);
        let name = manifest.chunks[3];
        let chunk = store.remove(&name).unwrap();
        assert!(matches!(rebuild(&manifest, &store), Err(RebuildError::Missing(n)) if n == name));
        store.insert(name, vec![0; chunk.len()]);
        assert!(matches!(rebuild(&manifest, &store), Err(RebuildError::OtherContent)));
    }

    #[test]
    fn a_manifest_that_announces_little_cannot_bring_much() {
        let mut store = Store::new();
        let mut manifest = build(&noise(3_000_000), &mut store);
        manifest.content_bytes = 10_000;
        assert!(rebuild(&manifest, &store).is_err());
        manifest.level = 200;
        assert!(rebuild(&manifest, &store).is_err());
    }
}
