//! What files cost on disk: the first copy, a copy that is shared again, and an edited one.
//!
//! Holdfast's figures are the growth of the segments, sealed as in the product: chunks, lists of names, marks, the entry and
//! the frames around them. Other tools' are the growth of their repository.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use journal::{AtRest, Draft, IndexPlace, Journal, JournalOptions, JournalSettings, StdDisk};
use keys::{DataKey, DataKeys, KeyNumber, ProcessMint};
use model::event::{FileState, FileStub};
use model::{ByteSize, Event, Hlc, IdMint, Label, Precedence, SourcePosition, UnixMillis, Version};
use wire::chunk::{CUT, Cut, Namer, build_manifest_with};

use crate::Error;
use crate::clock::{Stopwatch, WallClock};
use crate::corpus::{MINT_SALT, NODE};
use crate::documents::{Docx, edit_at, noise, replace_middle, report};
use crate::report::{Bench, Scale, tell};

const NAME: &str = "files";
const CUTS: &str = "cuts";

/// XML of a document and bytes of its picture: together some 50 kB deflated.
const DOCX: (usize, usize) = (300_000, 9_000);

/// zstd's level for the summary: the highest that ends within a minute for 100 MB.
const PATCH_LEVEL: &str = "-9";

/// A file, and the same after an edit.
struct Pair {
    what: &'static str,
    name: &'static str,
    before: Vec<u8>,
    after: Vec<u8>,
}

pub(crate) fn run(bench: &mut Bench) -> Result<(), Error> {
    share_again(bench)?;
    expand(bench)?;
    for pair in pairs(bench.scale) {
        let params = [("file", pair.what.into()), ("bytes", pair.after.len().into())];
        let holdfast = {
            let scratch = bench.scratch()?;
            let mut box_ = Journaled::open(scratch.path(), CUT)?;
            let watch = Stopwatch::start();
            let first = box_.share(pair.name, &pair.before)?;
            bench.row(NAME, "holdfast", &params, watch.elapsed().as_secs_f64(), "s (first)");
            bench.row(NAME, "holdfast", &params, first as f64, "bytes (first)");
            box_.share(pair.name, &pair.after)? as f64
        };
        bench.row(NAME, "holdfast", &params, holdfast, "bytes (edit)");
        if pair.what == "docx, Word" {
            bench.summary.docx_edit_bytes = Some(holdfast);
        }
        let scratch = bench.scratch()?;
        let (old, new) = (scratch.path().join("old"), scratch.path().join("new"));
        fs::write(&old, &pair.before)?;
        fs::write(&new, &pair.after)?;
        // At 19 a hundred megabytes take it many minutes.
        for level in if pair.after.len() > 10_000_000 { ["-3", PATCH_LEVEL] } else { [PATCH_LEVEL, "-19"] } {
            let Some(patch) = zstd_patch(scratch.path(), &old, &new, level)? else { break };
            let subject = format!("zstd {level} --long=27 --patch-from");
            bench.row(NAME, subject.as_str(), &params, patch as f64, "bytes (edit)");
            bench.row(NAME, format!("holdfast / {subject}"), &params, holdfast / patch as f64, "(edit)");
            if level == PATCH_LEVEL && pair.what.starts_with("imagery") {
                bench.summary.patch_ratio = Some(holdfast / patch as f64);
            }
        }
        // Making their keys takes them seconds.
        let others = bench.scale != Scale::Quick || pair.what == "docx, Word";
        for (subject, repository) in [("restic", restic as Repository), ("borg", borg as Repository)] {
            if !others {
                break;
            }
            if let Some((first, edit)) = repository(scratch.path(), &old, &new)? {
                bench.row(NAME, subject, &params, first as f64, "bytes (first)");
                bench.row(NAME, subject, &params, edit as f64, "bytes (edit)");
            }
        }
    }
    Ok(())
}

fn pairs(scale: Scale) -> Vec<Pair> {
    let docx = |level, dated| {
        let mut document = Docx::new(1, DOCX.0, DOCX.1);
        let before = document.save(level, dated);
        document.edit_a_word();
        (before, document.save(level, dated))
    };
    let mut pairs = Vec::new();
    let kinds = [("docx, Word", 1, false), ("docx, LibreOffice", 6, false), ("docx, script -9", 9, true)];
    for (what, level, dated) in kinds {
        let (before, after) = docx(level, dated);
        pairs.push(Pair { what, name: "order.docx", before, after });
    }
    let text = report(2, scale.pick(50_000, 400_000, 400_000));
    pairs.push(Pair { what: "report, 5 places", name: "report.txt", after: edit_at(&text, 5), before: text });
    let (large, part) = scale.pick((2_000_000, 100_000), (100_000_000, 5_000_000), (100_000_000, 5_000_000));
    let image = noise(3, large);
    pairs.push(Pair {
        what: "imagery, middle",
        name: "area.tif",
        after: replace_middle(&image, &noise(4, part)),
        before: image,
    });
    let text = report(5, large);
    pairs.push(Pair {
        what: "text, middle",
        name: "track.log",
        after: replace_middle(&text, &report(6, part)),
        before: text,
    });
    pairs
}

/// Files that are shared once more, under another name with another post: at once, and after the log has moved on.
fn share_again(bench: &mut Bench) -> Result<(), Error> {
    let large = bench.scale.pick(300_000, 3_000_000, 3_000_000);
    let mut files: Vec<(&str, Vec<u8>)> = Vec::new();
    for seed in 0..bench.scale.pick(1, 8, 8) {
        files.push(("docx, 50 kB", Docx::new(100 + seed, DOCX.0, DOCX.1).save(1, false)));
        files.push(("docx, 250 kB", Docx::new(200 + seed, DOCX.0, 200_000).save(6, false)));
        files.push(("report, 400 kB", report(300 + seed, 400_000)));
        files.push(("picture", noise(400 + seed, large)));
    }
    let all: u64 = files.iter().map(|(_, content)| content.len() as u64).sum();
    for (when, moved_on) in [("at once", false), ("in a later segment", true)] {
        let scratch = bench.scratch()?;
        let mut box_ = Journaled::open(scratch.path(), CUT)?;
        for (_, content) in &files {
            box_.share("first.bin", content)?;
        }
        if moved_on {
            // Larger than a segment.
            box_.share("filler.bin", &noise(9, SEGMENT_BYTES as usize * 2))?;
        }
        let mut kinds: Vec<(&str, u64, u64)> = Vec::new();
        for (kind, content) in &files {
            let cost = box_.share("copy of it.bin", content)?;
            match kinds.iter_mut().find(|(known, ..)| known == kind) {
                Some((_, bytes, sum)) => (*bytes, *sum) = (*bytes + content.len() as u64, *sum + cost),
                None => kinds.push((kind, content.len() as u64, cost)),
            }
        }
        let sum: u64 = kinds.iter().map(|(.., sum)| sum).sum();
        for (kind, bytes, sum) in kinds.into_iter().chain([("all", all, sum)]) {
            let params = [("file", kind.into()), ("when", when.into())];
            bench.row(NAME, "holdfast, shared again", &params, sum as f64 / bytes as f64, "of its size");
        }
        // The dearer case counts.
        bench.summary.reshare_share = Some(sum as f64 / all as f64);
    }
    Ok(())
}

/// How many containers expand, by the level their writer used.
fn expand(bench: &mut Bench) -> Result<(), Error> {
    for level in [1, 6, 9] {
        let count: u64 = bench.scale.pick(1, 20, 50);
        let namer = Namer::new(&[9; 32], &Label::local());
        let mut expanded = 0;
        for seed in 0..count {
            let content = Docx::new(500 + seed, DOCX.0 / 3, DOCX.1).save(level, true);
            let keep = |_, _: &[u8]| Ok::<(), std::io::Error>(());
            let manifest = build_manifest_with(content.as_slice(), &namer, CUT, keep)?;
            expanded += u64::from(manifest.coded.is_some());
        }
        let params = [("file", format!("docx, zlib -{level}").into())];
        bench.row(NAME, "holdfast, expanded exactly", &params, expanded as f64 / count as f64, "of all");
    }
    Ok(())
}

/// What other sizes of chunks would cost. Names, marks and frames are in every figure.
pub(crate) fn cuts(bench: &mut Bench) -> Result<(), Error> {
    let large = bench.scale.pick(1_000_000, 20_000_000, 100_000_000);
    let mut document = Docx::new(1, DOCX.0, DOCX.1);
    let docx = document.save(1, false);
    document.edit_a_word();
    let (text, image) = (report(2, 400_000), noise(3, large));
    let image_edited = replace_middle(&image, &noise(4, large / 20));
    let files: [(&str, Vec<u8>, &[u8]); 3] = [
        ("docx, Word", document.save(1, false), &docx),
        ("report, 5 places", edit_at(&text, 5), &text),
        ("imagery, middle", image_edited, &image),
    ];
    for kib in [4, 8, 16, 32] {
        for (what, after, before) in &files {
            let params = [("file", (*what).into()), ("mean KiB", kib.into())];
            let scratch = bench.scratch()?;
            let cut = Cut { min: kib << 8, mean: kib << 10, max: CUT.max };
            let mut box_ = Journaled::open(scratch.path(), cut)?;
            bench.row(CUTS, "holdfast", &params, box_.share("a", before)? as f64, "bytes (first)");
            bench.row(CUTS, "holdfast", &params, box_.share("a", after)? as f64, "bytes (edit)");
            box_.share("filler.bin", &noise(9, SEGMENT_BYTES as usize * 2))?;
            bench.row(CUTS, "holdfast", &params, box_.share("b", before)? as f64, "bytes (again)");
        }
    }
    Ok(())
}

/// Small, so that a filler moves the log on quickly.
const SEGMENT_BYTES: u64 = 4 << 20;

/// A journal that is given files as capture does.
struct Journaled {
    journal: Journal,
    namer: Namer,
    mint: ProcessMint,
    at: Hlc,
    cut: Cut,
}

impl Journaled {
    fn open(dir: &Path, cut: Cut) -> Result<Self, Error> {
        let journal = Journal::open(JournalOptions {
            dir: dir.join("journal"),
            node: NODE,
            disk: Arc::new(StdDisk),
            clock: Arc::new(WallClock),
            settings: JournalSettings { segment_bytes: ByteSize(SEGMENT_BYTES), ..JournalSettings::default() },
            index: IndexPlace::Sled,
            at_rest: AtRest::sealed(DataKeys::new([(KeyNumber(1), DataKey::generate())])),
        })?
        .0;
        let mint = ProcessMint::with_salt(NODE, MINT_SALT);
        let namer = Namer::new(&[9; 32], &Label::local());
        Ok(Self { journal, namer, mint, at: Hlc(1 << 40), cut })
    }

    /// Captures a file; returns by how much the segments grew, without what a new segment begins and an old one ends with.
    fn share(&mut self, name: &str, content: &[u8]) -> Result<u64, Error> {
        let before = self.journal.stats();
        let mut in_progress = self.journal.begin_file();
        let manifest = build_manifest_with(content, &self.namer, self.cut, |name, chunk| {
            in_progress.put(&self.namer, name, chunk).map_err(Error::from)
        })?;
        in_progress.finish(&self.namer)?;
        self.at = Hlc(self.at.0 + (1 << 20));
        let event = self.event(name, content.len() as u64, manifest.clone());
        let draft = Draft {
            source: SourcePosition(self.at),
            follows: None,
            stream: event.stream(),
            causes: Vec::new(),
            needs: Vec::new(),
            precedence: Precedence::Deferred,
            captured: self.at,
            origin_time: self.at.millis(),
            expiry: None,
            supersedes: None,
            label: Label::local(),
            kind: event.kind(),
            mint_salt: MINT_SALT,
            body: wire::encode_event(&event, NODE, MINT_SALT),
            object: Some(event.object().key()),
            chunks: Some(in_progress.chunks(manifest.content_bytes)),
        };
        self.journal.append_own(draft).wait()?;
        Ok(self.journal.stats().bytes - before.bytes)
    }

    fn event(&self, name: &str, size: u64, manifest: model::Manifest) -> Event {
        let id = self.mint.mint();
        let stub = FileStub {
            id,
            name: name.to_owned(),
            extension: "bin".to_owned(),
            size,
            mime_type: "application/octet-stream".to_owned(),
            width: 0,
            height: 0,
            create_at: UnixMillis(1_789_358_400_000),
        };
        Event::File(FileState {
            version: Version { at: self.at, by: NODE },
            stub,
            user_id: self.mint.mint(),
            channel_id: self.mint.mint(),
            post_id: Some(self.mint.mint()),
            content: Some(manifest),
        })
    }
}

type Repository = fn(&Path, &Path, &Path) -> Result<Option<(u64, u64)>, Error>;

/// Bytes of the patch; `None` when zstd is not installed.
fn zstd_patch(dir: &Path, old: &Path, new: &Path, level: &str) -> Result<Option<u64>, Error> {
    let patch = dir.join("patch");
    let mut zstd = Command::new("zstd");
    zstd.args(["-q", "-f", level, "--long=27", "-T2"]).arg(format!("--patch-from={}", old.display()));
    if !ran(zstd.arg(new).arg("-o").arg(&patch))? {
        return Ok(None);
    }
    let bytes = fs::metadata(&patch)?.len();
    fs::remove_file(&patch)?;
    Ok(Some(bytes))
}

fn restic(dir: &Path, old: &Path, new: &Path) -> Result<Option<(u64, u64)>, Error> {
    let repository = dir.join("restic");
    let restic = |args: &[&OsStr]| {
        let mut command = Command::new("restic");
        command.env("RESTIC_PASSWORD", "bench").arg("--quiet").arg("--no-cache").arg("-r").arg(&repository).args(args);
        ran(&mut command)
    };
    let init = ["init", "--repository-version", "2"].map(OsStr::new);
    if !restic(&init)? {
        return Ok(None);
    }
    second_copy(dir, &repository, old, new, |file| {
        restic(&["backup".as_ref(), "--compression".as_ref(), "max".as_ref(), file.as_os_str()]).map(drop)
    })
    .map(Some)
}

fn borg(dir: &Path, old: &Path, new: &Path) -> Result<Option<(u64, u64)>, Error> {
    let repository = dir.join("borg");
    let borg = |args: &[&OsStr]| {
        let mut command = Command::new("borg");
        command.env("BORG_PASSPHRASE", "bench").env("BORG_BASE_DIR", dir.join("borg-base")).args(args);
        ran(&mut command)
    };
    let init = ["init".as_ref(), "--encryption=repokey".as_ref(), repository.as_os_str()];
    if !borg(&init)? {
        return Ok(None);
    }
    let mut number = 0;
    second_copy(dir, &repository, old, new, |file| {
        number += 1;
        let archive = format!("{}::{number}", repository.display());
        borg(&["create".as_ref(), "--compression=zstd,19".as_ref(), archive.as_ref(), file.as_os_str()]).map(drop)
    })
    .map(Some)
}

/// Backs up a file and then its edited self; returns by how much the repository grew each time.
fn second_copy(
    dir: &Path,
    repository: &Path,
    old: &Path,
    new: &Path,
    mut backup: impl FnMut(&Path) -> Result<(), Error>,
) -> Result<(u64, u64), Error> {
    let file = dir.join("file");
    let empty = size_of_tree(repository)?;
    fs::copy(old, &file)?;
    backup(&file)?;
    let first = size_of_tree(repository)?;
    fs::copy(new, &file)?;
    backup(&file)?;
    let both = size_of_tree(repository)?;
    Ok((first.saturating_sub(empty), both.saturating_sub(first)))
}

fn size_of_tree(dir: &Path) -> Result<u64, Error> {
    let mut bytes = 0;
    let mut dirs: Vec<PathBuf> = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            match entry.file_type()?.is_dir() {
                true => dirs.push(entry.path()),
                false => bytes += entry.metadata()?.len(),
            }
        }
    }
    Ok(bytes)
}

/// `false` when the program is not installed; an error when it fails.
fn ran(command: &mut Command) -> Result<bool, Error> {
    match command.output() {
        Ok(output) if output.status.success() => Ok(true),
        Ok(output) => Err(format!("{command:?} failed: {}", String::from_utf8_lossy(&output.stderr)).into()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            tell(&format!("{} is not installed: left out", command.get_program().display()));
            Ok(false)
        }
        Err(e) => Err(e.into()),
    }
}
