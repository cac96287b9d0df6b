//! Chunks of files live as long as a held file names them, each label for itself.

#![allow(clippy::unwrap_used, reason = "test helpers")]

use std::io;
use std::path::Path;
use std::sync::Arc;

use journal::{AtRest, Consumer, Draft, IndexPlace, Journal, JournalOptions, JournalSettings, StdDisk};
use keys::{DataKey, DataKeys, KeyNumber};
use model::{
    ByteSize, ChunkName, Clock, Epoch, Hlc, Kind, Label, Manifest, NodeId, Outcome, Precedence, SourcePosition,
    StreamId, UnixMillis,
};
use proptest::prelude::*;
use wire::chunk::{Namer, build_manifest, name_list, read_manifest};

#[test]
fn a_chunk_stays_while_any_held_file_names_it_and_goes_with_the_last() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::open(dir.path());
    let (first_content, mut second_content) = (noise(1, 300_000), noise(1, 300_000));
    second_content.splice(200_000..200_004, *b"edited");
    let first = site.share("mission", &first_content);
    let again = site.share("mission", &first_content);
    // Marks go with their segment: the next file begins another one.
    site.trim();
    let edited = site.share("mission", &second_content);
    site.finish(&first);
    site.trim();
    assert_eq!(site.content(&again), Some(first_content.clone()), "shared again, still held");
    site.finish(&again);
    site.trim();
    assert_eq!(site.content(&edited), Some(second_content), "and written from what it replaced");
    site.finish(&edited);
    site.trim();
    assert!(site.content(&first).is_none());
    assert_eq!(site.held_of(&edited), 0);
    assert_eq!(site.held_of(&first), 0);
}

#[test]
fn equal_content_under_another_label_is_stored_and_goes_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::open(dir.path());
    let content = noise(2, 100_000);
    let mission = site.share("mission", &content);
    // A segment goes as a whole: the other file begins in another one.
    site.trim();
    let bytes = site.journal.stats().bytes;
    let coalition = site.share("coalition", &content);
    assert!(site.journal.stats().bytes - bytes > 100_000, "nothing of the other label is used");
    assert!(site.names(&mission).iter().all(|name| !site.names(&coalition).contains(name)));
    site.finish(&mission);
    site.trim();
    assert_eq!(site.held_of(&mission), 0);
    assert_eq!(site.content(&coalition), Some(content));
}

#[test]
fn a_file_shared_again_costs_its_entry_and_a_mark_for_each_chunk() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::open(dir.path());
    let content = noise(3, 1_000_000);
    let first = site.share("mission", &content);
    // Segments follow, so that the chunks stand far behind.
    site.share("mission", &noise(4, 200_000));
    let before = site.journal.stats();
    site.share("mission", &content);
    let after = site.journal.stats();
    assert_eq!(after.chunks, before.chunks);
    let cost = after.bytes - before.bytes;
    assert!(cost < content.len() as u64 / 100, "{cost} bytes");
    assert!(site.names(&first).len() > 30);
}

#[test]
fn an_edit_costs_what_differs_wherever_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::open(dir.path());
    let mut content = noise(5, 300_000);
    site.share("mission", &content);
    for at in [0, 150_000, 299_999] {
        content[at] ^= 1;
        let before = site.journal.stats().bytes;
        let edited = site.share("mission", &content);
        let cost = site.journal.stats().bytes - before;
        assert!(cost < 3_000, "{cost} bytes for the byte at {at}");
        assert_eq!(site.content(&edited), Some(content.clone()));
        site = site.reopen(dir.path());
    }
}

#[test]
fn an_edit_of_text_costs_what_differs_though_text_is_written_from_its_own_beginning() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::open(dir.path());
    let mut content = text(1, 300_000);
    let stored = |site: &Site| site.journal.stats().bytes;
    let empty = stored(&site);
    site.share("mission", &content);
    let first = stored(&site) - empty;
    for round in 0..3 {
        // The first chunk too: nothing of the file is met before it.
        for at in [100 + round, 150_000 + round, 299_000 + round] {
            content[at] ^= 1;
        }
        let before = stored(&site);
        let edited = site.share("mission", &content);
        let cost = stored(&site) - before;
        assert!(cost < 3_000 && cost < first / 10, "{cost} bytes in round {round}, {first} at first");
        assert_eq!(site.content(&edited), Some(content.clone()));
        assert!(site.journal.verify(&mut |_| {}).unwrap().is_clean());
        site = site.reopen(dir.path());
    }
}

#[test]
fn nothing_of_another_label_is_a_base_wherever_it_stands() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::open(dir.path());
    let (mission, other) = (noise(6, 50_000), noise(7, 50_000));
    site.share("mission", &mission);
    // Stands where an edited form of what follows in the next file would.
    site.share("coalition", &other);
    let before = site.journal.stats().bytes;
    let both = site.share("mission", &[mission, other].concat());
    let cost = site.journal.stats().bytes - before;
    assert!(cost > 49_000, "{cost} bytes");
    assert_eq!(site.content(&both).map(|content| content.len()), Some(100_000));
}

#[derive(Clone, Debug)]
enum Step {
    /// The content's number (text where it is odd), the label's, and where it is edited.
    Share(u8, bool, u16),
    /// The how-manieth of the held files.
    Finish(prop::sample::Index),
    Trim,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0u8..4, any::<bool>(), 0u16..60_000).prop_map(|(n, label, at)| Step::Share(n, label, at)),
        3 => any::<prop::sample::Index>().prop_map(Step::Finish),
        2 => Just(Step::Trim),
        1 => Just(Step::Reopen),
    ]
}

proptest! {
    // Each takes some hundred syncs.
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn every_held_file_can_be_rebuilt_whatever_was_trimmed(steps in prop::collection::vec(step(), 1..24)) {
        let dir = tempfile::tempdir().unwrap();
        let mut site = Site::open(dir.path());
        let mut held: Vec<(File, Vec<u8>)> = Vec::new();
        for step in steps {
            match step {
                Step::Share(n, other, at) => {
                    let mut content = if n % 2 == 0 { noise(n, 60_000) } else { text(n, 120_000) };
                    content[usize::from(at)] ^= 1;
                    held.push((site.share(if other { "coalition" } else { "mission" }, &content), content));
                }
                Step::Finish(which) => {
                    if !held.is_empty() {
                        let at = which.index(held.len());
                        site.finish(&held.remove(at).0);
                    }
                }
                Step::Trim => site.trim(),
                Step::Reopen => site = site.reopen(dir.path()),
            }
            for (file, content) in &held {
                prop_assert!(site.content(file).is_some_and(|rebuilt| rebuilt == *content));
            }
        }
    }
}

/// A captured file.
struct File {
    seq: u64,
    manifest: Manifest,
}

struct Site {
    journal: Journal,
    bravo: Consumer,
    clock: u64,
}

const ME: NodeId = NodeId([1; 16]);

struct Fixed;

impl Clock for Fixed {
    fn now(&self) -> UnixMillis {
        UnixMillis(1_700_000_000_000)
    }
}

impl Site {
    fn open(dir: &Path) -> Self {
        let (journal, _) = Journal::open(JournalOptions {
            dir: dir.join("journal"),
            node: ME,
            disk: Arc::new(StdDisk),
            clock: Arc::new(Fixed),
            settings: JournalSettings { segment_bytes: ByteSize(32 << 10), ..JournalSettings::default() },
            index: IndexPlace::Memory,
            at_rest: AtRest::sealed(DataKeys::new([(KeyNumber(1), DataKey::from_bytes([5; 32]))])),
        })
        .unwrap();
        let bravo = journal.consumer("bravo", true).unwrap();
        let clock = journal.highest_source().map_or(1, |source| source.0.0 + 1);
        Self { journal, bravo, clock }
    }

    fn reopen(self, dir: &Path) -> Self {
        drop(self);
        Self::open(dir)
    }

    fn share(&mut self, label: &str, content: &[u8]) -> File {
        let label: Label = label.parse().unwrap();
        let mut in_progress = self.journal.begin_file();
        let namer = Namer::new(&[9; 32], &label);
        let put = |name, chunk: &[u8]| in_progress.put(&namer, name, chunk).map_err(io::Error::other);
        let manifest = build_manifest(content, &namer, put).unwrap();
        in_progress.finish(&namer).unwrap();
        let chunks = Some(in_progress.chunks(manifest.content_bytes));
        let seq = self.append(label, Kind::File, chunks);
        File { seq, manifest }
    }

    fn append(&mut self, label: Label, kind: Kind, chunks: Option<journal::Chunks>) -> u64 {
        self.clock += 1;
        let draft = Draft {
            source: SourcePosition(Hlc(self.clock)),
            follows: None,
            stream: StreamId::Directory,
            causes: Vec::new(),
            needs: Vec::new(),
            precedence: Precedence::Deferred,
            captured: Hlc(self.clock),
            origin_time: UnixMillis(1),
            expiry: None,
            supersedes: None,
            label,
            kind,
            mint_salt: 7,
            body: vec![7; 200],
            object: None,
            chunks,
        };
        self.journal.append_own(draft).wait().unwrap().id.seq.get()
    }

    fn finish(&self, file: &File) {
        self.bravo.record_outcome(Outcome::Applied, Epoch(1), &(file.seq..=file.seq).into());
    }

    /// Trims what can go, after entries that fill a segment: the open one is never trimmed.
    fn trim(&mut self) {
        for _ in 0..160 {
            let seq = self.append(Label::directory(), Kind::Post, None);
            self.bravo.record_outcome(Outcome::Applied, Epoch(1), &(seq..=seq).into());
        }
        self.journal.trim().unwrap();
    }

    fn names(&self, file: &File) -> Vec<ChunkName> {
        name_list(&file.manifest, |name| self.journal.get_chunk(name)).unwrap_or_default()
    }

    /// How many of the names in the manifest are held.
    fn held_of(&self, file: &File) -> usize {
        file.manifest.chunks.iter().filter(|name| self.journal.has_chunk(name).unwrap()).count()
    }

    fn content(&self, file: &File) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        let get = |name: &ChunkName| self.journal.get_chunk(name).map_err(io::Error::other);
        let write = |bytes: &[u8]| -> io::Result<()> {
            out.extend_from_slice(bytes);
            Ok(())
        };
        read_manifest(&file.manifest, get, write).ok().map(|()| out)
    }
}

/// Bytes that compress, also from one place to another, the same for a number.
fn text(n: u8, len: usize) -> Vec<u8> {
    let words = ["north ", "of the ", "bridge ", "convoy ", "holds ", "grid ", "42S ", "0815, ", "medevac ", "clear. "];
    let picks = noise(n, len / 2).into_iter().map(|pick| words[usize::from(pick) % words.len()].bytes());
    picks.flatten().take(len).collect()
}

/// Bytes that do not compress, the same for a number.
fn noise(n: u8, len: usize) -> Vec<u8> {
    let mut state = u64::from(n) + 1;
    let mut out = Vec::with_capacity(len);
    while out.len() < len {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        out.extend_from_slice(&(state >> 33).wrapping_mul(state | 1).to_le_bytes());
    }
    out.truncate(len);
    out
}
