//! Files as content-defined chunks, and the manifest that rebuilds them.
//!
//! ```text
//!  content --FastCDC--> chunk chunk chunk ...          named by keyed BLAKE3
//!     |                   |17 bytes each
//!     |                 up to 8 names:  manifest { level 0, names }
//!     |                 more: the names in lists of some 16, named the same way: manifest { level 1, names of lists }, ...
//!     `-- a zip container: expanded first (see `zip`), and the manifest says so
//! ```
//! Sizes and their reasons: docs/adr/0014 and 0021.

use std::io::{self, Read};

use fastcdc::v2020::StreamCDC;
use keys::{ChunkNameKey, ChunkSecret};
use model::{ChunkName, Coded, Label, Manifest};

use crate::WireError;
use crate::zip::{self, Collapser, Failed};

/// Between which sizes content is cut.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    /// Smallest chunk except the last.
    pub min: usize,
    /// Size around which chunks fall: an edit costs about this much where no older form of the chunk is held.
    pub mean: usize,
    /// Largest chunk.
    pub max: usize,
}

/// How files are cut.
pub const CUT: Cut = Cut { min: 4 << 10, mean: 16 << 10, max: CHUNK_BYTES_MAX };

/// Largest chunk.
pub const CHUNK_BYTES_MAX: usize = 64 << 10;

/// Larger zip containers are kept whole, and so is what would be larger expanded: it is in memory at once.
pub const CONTAINER_BYTES_MAX: usize = 64 << 20;

/// Names in a name list but the last: the fewest, about as many as usual, and the most. Names are random bytes, so a
/// changed list costs all of itself.
const LIST_MIN: usize = 4;
const LIST_MEAN: usize = 16;
const LIST_MAX: usize = 64;

/// Deepest manifest: lists of the fewest names reach 8 x 4^12 chunks, 2 TiB.
pub const LEVEL_MAX: u8 = 12;

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
        blake3::Hasher::new_keyed(self.0.as_bytes()).update(chunk).finalize_xof().fill(&mut name[1..]);
        ChunkName(name)
    }
}

/// Cuts a byte stream into chunks; holds one largest chunk at a time.
///
/// # Errors
/// Each item is an error when the reader fails.
pub fn split(reader: impl Read, cut: Cut) -> impl Iterator<Item = io::Result<Vec<u8>>> {
    StreamCDC::new(reader, cut.min, cut.mean, cut.max).map(|chunk| chunk.map(|c| c.data).map_err(io::Error::from))
}

/// Cuts `reader` into chunks, hands each to `put` (which may hold it already) and returns what rebuilds the content.
/// Memory: the name list, two thousandths of the content; for a zip container itself and its expanded stream, each at
/// most [`CONTAINER_BYTES_MAX`].
///
/// # Errors
/// The reader's error, or what `put` returns.
pub fn build_manifest<E: From<io::Error>>(
    reader: impl Read,
    namer: &Namer,
    put: impl FnMut(ChunkName, &[u8]) -> Result<(), E>,
) -> Result<Manifest, E> {
    build_manifest_with(reader, namer, CUT, put)
}

/// [`build_manifest`] with other sizes. For measurements.
///
/// # Errors
/// The reader's error, or what `put` returns.
pub fn build_manifest_with<E: From<io::Error>>(
    mut reader: impl Read,
    namer: &Namer,
    cut: Cut,
    put: impl FnMut(ChunkName, &[u8]) -> Result<(), E>,
) -> Result<Manifest, E> {
    let mut naming = Naming { namer, put, chunks: Vec::new() };
    let mut head = Vec::new();
    let magic = zip::MAGIC.len() as u64;
    reader.by_ref().take(magic).read_to_end(&mut head)?;
    let mut expanded = None;
    if head == zip::MAGIC {
        reader.by_ref().take(CONTAINER_BYTES_MAX as u64 + 1 - magic).read_to_end(&mut head)?;
        expanded = zip::expand(&head);
    }
    let (content_bytes, content_hash, coded) = match expanded {
        Some(bytes) => {
            split(bytes.as_slice(), cut).try_for_each(|chunk| naming.put(&chunk?))?;
            let coded = Coded { coding: Coded::ZIP_EXPANDED, bytes: bytes.len() as u64 };
            (head.len() as u64, blake3::hash(&head), Some(coded))
        }
        None => {
            let mut hash = blake3::Hasher::new();
            let mut content_bytes = 0;
            for chunk in split(head.as_slice().chain(reader), cut) {
                let chunk = chunk?;
                hash.update(&chunk);
                content_bytes += chunk.len() as u64;
                naming.put(&chunk)?;
            }
            (content_bytes, hash.finalize(), None)
        }
    };
    let (level, chunks) = naming.finish()?;
    Ok(Manifest { level, content_bytes, chunks, content_hash: *content_hash.as_bytes(), coded })
}

struct Naming<'a, P> {
    namer: &'a Namer,
    put: P,
    chunks: Vec<ChunkName>,
}

impl<E: From<io::Error>, P: FnMut(ChunkName, &[u8]) -> Result<(), E>> Naming<'_, P> {
    fn put(&mut self, chunk: &[u8]) -> Result<(), E> {
        let name = self.namer.name(chunk);
        self.chunks.push(name);
        (self.put)(name, chunk)
    }

    /// Writes lists of names until what is left stands in a manifest. Returns its level and names.
    fn finish(mut self) -> Result<(u8, Vec<ChunkName>), E> {
        let mut level = 0;
        while self.chunks.len() > Manifest::INLINE_MAX {
            let names = std::mem::take(&mut self.chunks);
            let mut rest = names.as_slice();
            while !rest.is_empty() {
                let (list, after) = rest.split_at(list_len(rest));
                rest = after;
                self.put(&list.iter().flat_map(|name| name.0).collect::<Vec<u8>>())?;
            }
            level += 1;
        }
        Ok((level, self.chunks))
    }
}

/// How many of `names` make the next list. Names are random: one in [`LIST_MEAN`] ends a list wherever it stands.
fn list_len(names: &[ChunkName]) -> usize {
    let ends = |name: &ChunkName| usize::from(name.0[ChunkName::LEN - 1]) < 256 / LIST_MEAN;
    let end = names.iter().take(LIST_MAX).skip(LIST_MIN - 1).position(ends);
    end.map_or(LIST_MAX, |at| at + LIST_MIN).min(names.len())
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
    let mut write = |piece: &[u8]| {
        bytes += piece.len() as u64;
        if bytes > manifest.content_bytes {
            return Err(RebuildError::OtherContent);
        }
        hash.update(piece);
        write(piece).map_err(RebuildError::Io)
    };
    let mut collapser = manifest.coded.map(|coded| Collapser::new(coded.bytes));
    for name in &names {
        let chunk = get(name).map_err(RebuildError::Io)?.ok_or(RebuildError::Missing(*name))?;
        match &mut collapser {
            None => write(chunk.as_ref())?,
            Some(collapser) => collapser.push(chunk.as_ref(), &mut write).map_err(|failed| match failed {
                Failed::Stream(e) => RebuildError::Wire(e),
                Failed::Taker(e) => e,
            })?,
        }
    }
    if let Some(collapser) = collapser {
        collapser.finish()?;
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

/// Every chunk of a file that can be named: its content's and those of its name lists. Lists that are not held or make no
/// sense name nothing.
///
/// # Errors
/// When `get` fails.
pub fn every_name<B: AsRef<[u8]>, E>(
    manifest: &Manifest,
    mut get: impl FnMut(&ChunkName) -> Result<Option<B>, E>,
) -> Result<Vec<ChunkName>, E> {
    let mut all = manifest.chunks.clone();
    let mut names = manifest.chunks.clone();
    for level in (0..manifest.level.min(LEVEL_MAX)).rev() {
        let mut list = Vec::new();
        for name in &names {
            let Some(chunk) = get(name)? else { return Ok(all) };
            list.extend_from_slice(chunk.as_ref());
            if check_list_len(manifest, level, list.len()).is_err() {
                return Ok(all);
            }
        }
        let Ok(below) = read_name_list(&list) else { return Ok(all) };
        all.extend_from_slice(&below);
        names = below;
    }
    Ok(all)
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
/// When its depth, number of names or coding is out of range.
pub fn check_manifest(manifest: &Manifest) -> Result<(), WireError> {
    let found = manifest.chunks.len() as u64;
    if found > Manifest::INLINE_MAX as u64 {
        return Err(WireError::TooLarge { what: "a manifest", found, max: Manifest::INLINE_MAX as u64 });
    }
    if manifest.level > LEVEL_MAX {
        return Err(WireError::Malformed("a manifest's level"));
    }
    if let Some(Coded { coding, bytes }) = manifest.coded {
        if coding != Coded::ZIP_EXPANDED {
            return Err(WireError::Version { what: "a file's coding", found: coding, known: Coded::ZIP_EXPANDED });
        }
        let (found, max) = (bytes.max(manifest.content_bytes), CONTAINER_BYTES_MAX as u64);
        if found > max {
            return Err(WireError::TooLarge { what: "an expanded container", found, max });
        }
    }
    Ok(())
}

/// Refuses a name list for `level` that is longer than the announced content can need, so that a hostile
/// manifest cannot make its reader hold more than it announced.
///
/// # Errors
/// When `list_bytes` is too large.
pub fn check_list_len(manifest: &Manifest, level: u8, list_bytes: usize) -> Result<(), WireError> {
    let bytes = manifest.coded.map_or(manifest.content_bytes, |coded| coded.bytes);
    let mut names = bytes / CUT.min as u64 + 1;
    for _ in 0..level {
        names = names / LIST_MIN as u64 + 1;
    }
    let max = names.saturating_mul(ChunkName::LEN as u64);
    if list_bytes as u64 > max {
        return Err(WireError::TooLarge { what: "a name list", found: list_bytes as u64, max });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zip::tests::{container, markup};
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
        for len in [0, 1, 3, 4, 5, 4_096, 100_000, 3_000_000, 12_000_000] {
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
        assert!(store.len() - before <= 6, "{} new chunks", store.len() - before);
    }

    fn stored_bytes(store: &Store) -> usize {
        store.values().map(|chunk| crate::compress(chunk, 3).len().min(chunk.len())).sum()
    }

    #[test]
    fn a_word_edited_inside_a_container_costs_little_and_the_container_comes_back() {
        let mut text = markup(300_000, 7);
        let other = markup(20_000, 8);
        for level in [1, 6, 9] {
            let mut store = Store::new();
            let first = container(&[("word/document.xml", &text), ("word/styles.xml", &other)], level, false);
            let manifest = build(&first, &mut store);
            assert!(manifest.coded.is_some());
            assert!(rebuild(&manifest, &store).unwrap() == first);
            let before = stored_bytes(&store);
            text.splice(150_000..150_004, *b"edited");
            let second = container(&[("word/document.xml", &text), ("word/styles.xml", &other)], level, false);
            let manifest = build(&second, &mut store);
            assert!(rebuild(&manifest, &store).unwrap() == second);
            let cost = stored_bytes(&store) - before;
            assert!(cost < 12_000, "level {level}: {cost} bytes of {}", second.len());
        }
    }

    #[test]
    fn what_only_looks_like_a_container_is_kept_whole() {
        let mut content = noise(200_000);
        content[..4].copy_from_slice(zip::MAGIC);
        let mut store = Store::new();
        let manifest = build(&content, &mut store);
        assert_eq!(manifest.coded, None);
        assert!(rebuild(&manifest, &store).unwrap() == content);
    }

    #[test]
    fn a_manifest_with_a_coding_from_elsewhere_is_an_error() {
        let mut store = Store::new();
        let good = build(&container(&[("a.xml", &markup(50_000, 1))], 6, false), &mut store);
        let coded = good.coded.unwrap();
        let with = |coding, bytes| Manifest { coded: Some(Coded { coding, bytes }), ..good.clone() };
        for bad in [
            Manifest { coded: None, ..good.clone() },
            with(2, coded.bytes),
            with(coded.coding, coded.bytes - 1),
            with(coded.coding, coded.bytes + 1),
            with(coded.coding, u64::MAX),
            Manifest { content_bytes: good.content_bytes - 1, ..good.clone() },
            Manifest { content_bytes: u64::MAX, ..good.clone() },
        ] {
            assert!(rebuild(&bad, &store).is_err(), "{:?} of {} bytes", bad.coded, bad.content_bytes);
        }
        // Plain content that is announced as a container.
        let plain = build(&noise(100_000), &mut store);
        assert!(rebuild(&Manifest { coded: Some(Coded { coding: 1, bytes: 100_000 }), ..plain }, &store).is_err());
    }

    #[test]
    fn lists_of_names_shrink_at_every_level_and_change_only_where_names_did() {
        let names: Vec<ChunkName> = (0u64..20_000).map(|n| namer().name(&n.to_le_bytes())).collect();
        let lists = |names: &[ChunkName]| {
            let (mut rest, mut lists) = (names, Vec::new());
            while !rest.is_empty() {
                let (list, after) = rest.split_at(list_len(rest));
                assert!(list.len() <= LIST_MAX && (list.len() >= LIST_MIN || after.is_empty()));
                lists.push(list.to_vec());
                rest = after;
            }
            lists
        };
        let before = lists(&names);
        let mut edited = names.clone();
        edited.splice(9_000..9_001, [namer().name(b"one"), namer().name(b"two")]);
        let changed = lists(&edited).iter().filter(|list| !before.contains(list)).count();
        assert!(changed <= 2, "{changed} lists");
        assert_eq!(list_len(&vec![names[0]; 1_000]).max(LIST_MIN), list_len(&vec![names[0]; 1_000]));
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
        let name = name_list::<_, io::Error>(&manifest, |name| Ok(store.get(name))).unwrap()[3];
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
