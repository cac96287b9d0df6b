//! The real disk under the journal: where nothing can be synced it says so, and what it synced survives that the power of a
//! file system goes. That takes root, a loop device and ext4, which can be told to forget what it has not written yet.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc;

use journal::{Journal, JournalOptions, StdDisk};
use model::{Disk as _, LocalPos, OpenMode};
use simkit::PretendDisk;
use simkit::trial::{self, Seal};

/// So many times the power goes under a journal that is written to.
const CUTS: u64 = 6;

/// Entries that are answered before the power goes, and then some.
const ANSWERED: usize = 40;

/// A device without a medium cannot be synced, nor can the directory of the processes: the system says so when it is asked.
pub(crate) fn without_a_medium(tries: &Cell<usize>) {
    tries.set(tries.get() + 1);
    let file = StdDisk.open(Path::new("/dev/null"), OpenMode::Append).unwrap();
    assert!(file.sync_data().is_err(), "the system was not asked to sync a file");
    tries.set(tries.get() + 1);
    assert!(StdDisk.sync_dir(Path::new("/proc")).is_err(), "the system was not asked to sync a directory");
}

/// As [`without_a_medium`], then on a file system whose power goes. False where none can be mounted: without
/// root, mkfs.ext4, perl or a loop device.
pub(crate) fn power_cut(tries: &Cell<usize>) -> bool {
    without_a_medium(tries);
    let Some(volume) = Volume::mounted() else { return false };
    let cut = || {
        volume.cut_power();
        tries.set(tries.get() + 1);
    };
    // Each time the last call alone makes it durable: a later sync would bring along what an earlier one left out.
    let dir = volume.at.join("made/by/us");
    StdDisk.create_dir_all(&dir).unwrap();
    cut();
    assert!(dir.is_dir(), "a directory is gone that was made durable");

    let (path, renamed) = (dir.join("a"), dir.join("b"));
    let file = StdDisk.open(&path, OpenMode::Create).unwrap();
    StdDisk.sync_dir(&dir).unwrap();
    file.append(&[7; 5000]).unwrap();
    file.sync_data().unwrap();
    drop(file);
    cut();
    assert_eq!(std::fs::read(&path).unwrap_or_default(), [7; 5000], "bytes are gone that were synced");

    StdDisk.rename(&path, &renamed).unwrap();
    StdDisk.sync_dir(&dir).unwrap();
    cut();
    assert!(renamed.exists() && !path.exists(), "a name is gone that was synced");

    StdDisk.unlink(&renamed).unwrap();
    StdDisk.sync_dir(&dir).unwrap();
    cut();
    assert!(!renamed.exists(), "a file is back whose removal was synced");

    for run in 0..CUTS {
        let options = || JournalOptions {
            dir: volume.at.join(format!("journal-{run}")),
            disk: Arc::new(StdDisk),
            ..trial::options(&PretendDisk::default(), Seal::Sealed, run + 1)
        };
        let journal = Journal::open(options()).unwrap().0;
        let (told, answers) = mpsc::channel();
        let writer = std::thread::spawn(move || {
            // Until the disk is gone.
            for row in 0.. {
                let Ok(appended) = journal.append_own(trial::draft(row, row)).wait() else { break };
                told.send(appended).unwrap();
            }
        });
        let mut answered: Vec<_> = answers.iter().take(ANSWERED + run as usize).collect();
        volume.shut_down();
        writer.join().unwrap();
        answered.extend(answers.try_iter());
        cut();
        let (journal, report) = Journal::open(options()).unwrap();
        assert!(report.damage.is_empty(), "{:?}", report.damage);
        let held = journal.list(LocalPos::START..LocalPos(u64::MAX), usize::MAX).unwrap();
        for one in answered {
            let found = held.iter().any(|l| (l.entry.header.id, l.pos, l.hash) == (one.id, one.pos, one.hash));
            assert!(found, "{} was acknowledged and is gone", one.id);
        }
    }
    true
}

/// A file system in a file, mounted while it lives.
struct Volume {
    image: PathBuf,
    at: PathBuf,
    _dir: tempfile::TempDir,
}

impl Volume {
    fn mounted() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let volume = Self { image: dir.path().join("image"), at: dir.path().join("volume"), _dir: dir };
        std::fs::create_dir(&volume.at).unwrap();
        std::fs::File::create(&volume.image).unwrap().set_len(64 << 20).unwrap();
        let ready = run("perl", &["-e", "1"]) && run("mkfs.ext4", &["-q", "-F", text(&volume.image)]);
        (ready && volume.mount()).then_some(volume)
    }

    fn mount(&self) -> bool {
        // Nothing is to be written just because time passes.
        run("mount", &["-o", "loop,commit=300", text(&self.image), text(&self.at)])
    }

    /// From here on the file system writes nothing more, and every call fails.
    fn shut_down(&self) {
        // EXT4_IOC_SHUTDOWN with EXT4_GOING_FLAGS_NOLOGFLUSH, for which the standard library has no call.
        const GO_DOWN: &str =
            r#"open my $f, "<", $ARGV[0] or die $!; my $how = pack("L", 2); ioctl($f, 0x8004587d, $how) or die $!"#;
        assert!(run("perl", &["-e", GO_DOWN, text(&self.at)]), "the file system does not go down");
    }

    /// The power goes and comes back.
    fn cut_power(&self) {
        if std::fs::read_dir(&self.at).is_ok() {
            self.shut_down();
        }
        assert!(run("umount", &[text(&self.at)]) && self.mount(), "the file system does not come back");
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        run("umount", &["-l", text(&self.at)]);
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn run(program: &str, arguments: &[&str]) -> bool {
    Command::new(program).args(arguments).output().is_ok_and(|done| done.status.success())
}
