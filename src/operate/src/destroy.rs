//! `holdfast zeroize`: the keys first, then a proof that they are gone, then the data.
//!
//! ```text
//! wrapping key -> keyring -> node key -> secrets   overwritten, synced, removed: the journal is noise from here on
//! a running node is told to stop                   what it holds in memory goes with the process
//! proof: no key file is left, the keyring does not unwrap, the journal does not open
//! core, journal, configuration                     overwritten where they lie in the clear, removed
//! ```
//! Whatever fails is reported and the rest is destroyed all the same.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use journal::{OpenError, Reader, StdDisk, keys_in_use};
use keys::{DataKeys, Keyring, KeysSettings, WrapSource, destroy_file};
use model::Clock as _;
use serde::Serialize;

use crate::layout::Layout;

/// What was destroyed, and what is known of it; `holdfast.zeroized/1`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Zeroized {
    /// Name of the form.
    pub schema: &'static str,
    /// The node's name.
    pub node: String,
    /// Everything below is as it should be.
    pub complete: bool,
    /// From the first key file to the last, in milliseconds.
    pub keys_destroyed_in_ms: i64,
    /// Key files, in the order in which they were destroyed.
    pub keys: Vec<Destroyed>,
    /// What was tried with what remained.
    pub proofs: Vec<Proof>,
    /// Data that was removed.
    pub data: Vec<Destroyed>,
    /// What no program can promise here.
    pub not_guaranteed: Vec<String>,
}

/// A file or directory.
#[derive(Clone, Debug, Serialize)]
pub struct Destroyed {
    /// Which.
    pub path: PathBuf,
    /// It was there.
    pub existed: bool,
    /// It is not there any more.
    pub gone: bool,
    /// What went wrong with it.
    pub error: Option<String>,
}

/// Something that must fail once the keys are gone.
#[derive(Clone, Debug, Serialize)]
pub struct Proof {
    /// What was tried.
    pub tried: String,
    /// It failed, as it should.
    pub holds: bool,
    /// How it ended.
    pub detail: String,
}

/// Destroys every key of the node, and nothing else.
pub fn destroy_keys(layout: &Layout, settings: &KeysSettings, into: &mut Zeroized) {
    let dir = layout.keys();
    let begun = carrier::SystemClock.now();
    let mut paths = vec![settings.file_in(&dir)];
    let first = [
        keys::WRAPPING_KEY_FILE,
        keys::KEYRING_FILE,
        "node.key",
        "sealing.key",
        "chunk.secret",
        "peers.json",
        "invites.json",
    ];
    paths.extend(first.iter().map(|name| dir.join(name)));
    // What a crash left half written may hold a secret too.
    let rest = fs::read_dir(&dir).into_iter().flatten().flatten().map(|item| item.path());
    paths.extend(rest.filter(|path| path.is_file()));
    let mut done: Vec<PathBuf> = into.keys.iter().filter(|d| d.gone && d.existed).map(|d| d.path.clone()).collect();
    for path in paths {
        if done.contains(&path) && !path.exists() {
            continue;
        }
        into.keys.retain(|known| known.path != path);
        into.keys.push(destroyed(&path, destroy_file(&path)));
        done.push(path);
    }
    into.keys_destroyed_in_ms = into.keys_destroyed_in_ms.max(carrier::SystemClock.now().0 - begun.0);
}

fn destroyed(path: &Path, result: io::Result<bool>) -> Destroyed {
    let (existed, error) = match result {
        Ok(existed) => (existed, None),
        Err(e) => (true, Some(e.to_string())),
    };
    Destroyed { path: path.to_owned(), existed, gone: fs::symlink_metadata(path).is_err(), error }
}

/// Tries to read the journal with what remains.
pub fn prove(layout: &Layout, settings: &KeysSettings, into: &mut Zeroized) {
    let dir = layout.keys();
    let left: Vec<String> = into.keys.iter().filter(|d| !d.gone).map(|d| d.path.display().to_string()).collect();
    into.proofs.push(Proof {
        tried: "find a key file".to_owned(),
        holds: left.is_empty(),
        detail: if left.is_empty() { "none is left".to_owned() } else { left.join(", ") },
    });
    // Whoever sits at the terminal is not asked for the passphrase: there is no keyring that it could open.
    let mut nobody = keys::Surroundings { credentials: None, ask: &mut || None };
    let unwrapped = keys::WrapSecret::find(settings, &dir, &mut nobody, false)
        .and_then(|secret| Keyring::open(&dir, secret))
        .map(|_| ());
    let holds = unwrapped.is_err() && !Keyring::exists(&dir);
    let detail = unwrapped.map_or_else(|e| e.to_string(), |()| "it opened".to_owned());
    into.proofs.push(Proof { tried: "unwrap the keyring".to_owned(), holds, detail });
    into.proofs.push(journal_proof(layout));
}

fn journal_proof(layout: &Layout) -> Proof {
    let tried = "open the journal".to_owned();
    let journal = layout.journal();
    let sealed = keys_in_use(&journal, &StdDisk).map(|keys| keys.len());
    if !journal.join("segments").exists() {
        return Proof { tried, holds: true, detail: "there is none".to_owned() };
    }
    let (holds, detail) = match (Reader::open(&journal, Arc::new(StdDisk), &DataKeys::none()), sealed) {
        (Err(e @ OpenError::KeyMissing { .. }), _) => (true, e.to_string()),
        (Err(e), Ok(0)) => (true, format!("it holds no sealed segment: {e}")),
        (Err(e), _) => (false, e.to_string()),
        (Ok(_), _) => (false, "it opened without a key: it was never sealed".to_owned()),
    };
    Proof { tried, holds, detail }
}

/// Removes the data of the node. The caller holds the directory's lock.
pub fn remove_data(layout: &Layout, into: &mut Zeroized) {
    // Sealed: without its keys it is noise, and overwriting gigabytes would only take time.
    into.data.push(removed(&layout.journal(), |path| fs::remove_dir_all(path)));
    into.data.push(removed(&layout.core(), destroy_tree));
    into.data.push(removed(&layout.keys(), destroy_tree));
    // Who wrote to whom, and when.
    for name in ["parcels", "transit"] {
        into.data.push(removed(&layout.data().join(name), destroy_tree));
    }
    for name in ["emission", carrier::WEB_CERTIFICATE, crate::config::FILE] {
        into.data.push(removed(&layout.data().join(name), |path| destroy_file(path).map(drop)));
    }
}

fn removed(path: &Path, remove: impl FnOnce(&Path) -> io::Result<()>) -> Destroyed {
    let existed = fs::symlink_metadata(path).is_ok();
    destroyed(path, if existed { remove(path).map(|()| true) } else { Ok(false) })
}

/// Overwrites and removes every file below a directory, then the directory. Goes on after a failure and returns the first.
fn destroy_tree(dir: &Path) -> io::Result<()> {
    let mut first = Ok(());
    for item in fs::read_dir(dir)? {
        let path = item?.path();
        let is_dir = fs::symlink_metadata(&path)?.is_dir();
        let result = if is_dir { destroy_tree(&path) } else { destroy_file(&path).map(drop) };
        first = first.and(result);
    }
    first.and_then(|()| fs::remove_dir(dir))
}

/// What no program can promise, for what was found.
pub fn caveats(settings: &KeysSettings, into: &mut Zeroized) {
    let missing = into.keys.first().filter(|key_file| !key_file.existed).map(|key_file| key_file.path.clone());
    let mut add = |text: String| into.not_guaranteed.push(text);
    add("flash media, copy-on-write file systems, snapshots and backups may keep older copies of what was overwritten; \
         destroy the medium where that matters"
        .to_owned());
    add("the mission core (users, posts, files) was not encrypted by this program: it was overwritten, as far as the \
         medium does that"
        .to_owned());
    match settings.source {
        WrapSource::File => {
            if let Some(path) = missing {
                add(format!(
                    "the wrapping key {} was not there: destroy it where it is; without the keyring it opens nothing",
                    path.display()
                ));
            }
        }
        WrapSource::Credential => add(format!(
            "the credential `{}` lies with the service manager: remove it there; without the keyring it opens nothing",
            settings.credential
        )),
        WrapSource::Passphrase => {
            add("the passphrase is known wherever it is kept; without the keyring it opens nothing".to_owned())
        }
    }
    add("what peers received from this node is theirs".to_owned());
}

/// Is everything as it should be?
pub fn conclude(into: &mut Zeroized) {
    let gone = |all: &[Destroyed]| all.iter().all(|d| d.gone && d.error.is_none());
    into.complete = gone(&into.keys) && gone(&into.data) && into.proofs.iter().all(|p| p.holds);
}

/// Does a key lie elsewhere than in the data directory?
pub fn settings_or_default(layout: &Layout) -> (Option<String>, KeysSettings) {
    match crate::config::load(layout.data()) {
        Ok(settings) => (Some(settings.node.name.to_string()), settings.keys),
        // A configuration that cannot be read must not save a node that is to be destroyed.
        Err(_) => (None, KeysSettings::default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Exit;
    use clap::Parser as _;

    fn holdfast(dir: &Path, words: &str) -> Exit {
        let data = dir.to_str().unwrap();
        let argv = ["holdfast", "--data", data].into_iter().chain(words.split_whitespace());
        crate::verbs::run(crate::cli::Cli::try_parse_from(argv).unwrap()).unwrap_or_else(|failure| failure.exit)
    }

    #[test]
    fn the_keys_go_first_and_the_proof_says_when_something_can_still_be_opened() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        assert_eq!(holdfast(dir.path(), "init --name alpha --role edge --release none"), Exit::Ok);
        let settings = KeysSettings::default();
        let mut before = Zeroized::default();
        prove(&layout, &settings, &mut before);
        assert!(!before.proofs[1].holds, "a keyring that opens is no proof: {before:?}");
        let mut report = Zeroized::default();
        fs::write(layout.keys().join("peers.json.new"), "half a registry").unwrap();
        destroy_keys(&layout, &settings, &mut report);
        assert!(layout.config().exists() && report.data.is_empty(), "keys alone");
        let names: Vec<_> = report.keys.iter().filter(|d| d.existed).map(|d| d.path.file_name().unwrap()).collect();
        assert_eq!(
            names,
            ["wrapping.key", "journal.keys", "node.key", "sealing.key", "chunk.secret", "peers.json.new"]
        );
        prove(&layout, &settings, &mut report);
        remove_data(&layout, &mut report);
        conclude(&mut report);
        assert!(report.complete, "{report:#?}");
        assert!(fs::read_dir(dir.path()).unwrap().all(|i| i.unwrap().file_name() == "holdfast.lock"));
    }

    #[test]
    fn another_name_destroys_nothing() {
        let dir = tempfile::tempdir().unwrap();
        holdfast(dir.path(), "init --name alpha --role edge --release none");
        assert_eq!(holdfast(dir.path(), "zeroize --yes-destroy bravo"), Exit::Usage);
        assert!(dir.path().join("keys/wrapping.key").exists());
        assert_eq!(holdfast(dir.path(), "zeroize --yes-destroy alpha --json"), Exit::Ok);
        assert!(!dir.path().join("keys").exists());
    }
}
