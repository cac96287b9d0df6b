//! `holdfast courier`: the backlog on a stick.
//!
//! ```text
//!  DIR/holdfast-medium                                      name of the medium, made at the first export
//!  DIR/holdfast-<from>-<to>-<first parcel>-<last>.parcels   parcels one behind the other (wire::parcel)
//!  DIR/*.part                                               half written; ignored, and removed by the next export
//! ```
//!
//! A file gets its name when it is whole and synced, and only then the node hears that it is written: a medium that is
//! pulled costs the file under way.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use carrier::{Begun, Since, Taken, Written};
use data_encoding::{BASE64, HEXLOWER};
use model::NodeId;
use serde::Serialize;
use wire::parcel::{PARCEL_BYTES_MAX, Parcel};

use super::block_on;
use crate::admin::{CourierAnswer, CourierAsk, client};
use crate::cli::Courier;
use crate::exit::{Done, Exit, Failure};
use crate::layout::Layout;
use crate::output::{self, Bar};
use crate::{config, offline, show};

/// One file: what is lost when a medium is pulled, and how often a slow medium is synced.
const FILE_BYTES: u64 = 4 << 20;

/// Less room than this on a medium is not worth a parcel.
const ROOM_MIN: u64 = 64 << 10;

/// Larger files are none of ours: an export writes at most [`FILE_BYTES`] and one parcel.
const READ_BYTES_MAX: u64 = FILE_BYTES + 2 * PARCEL_BYTES_MAX as u64;

const MEDIUM: &str = "holdfast-medium";

#[derive(Serialize)]
struct Exported {
    schema: &'static str,
    to: String,
    medium: String,
    /// It goes on where an earlier medium was full.
    continued: bool,
    files: u64,
    parcels: u64,
    entries: u64,
    chunks: u64,
    bytes: u64,
    /// There is more for another medium.
    more: bool,
}

#[derive(Default, Serialize)]
struct Imported {
    schema: &'static str,
    files: u64,
    parcels: u64,
    /// Parcels that were taken before.
    parcels_held: u64,
    /// Parcels that are for other nodes.
    parcels_for_others: u64,
    entries: u64,
    entries_held: u64,
    chunks: u64,
    bytes: u64,
    refused: Vec<Refused>,
}

#[derive(Serialize)]
struct Refused {
    file: String,
    error: String,
    next_step: String,
}

pub(super) fn run(layout: &Layout, verb: Courier) -> Done {
    config::load(layout.data())?;
    match verb {
        Courier::Export { to, dir, max_bytes, since_last, restart, format } => {
            let since = match (since_last, restart) {
                (true, _) => Since::LastExport,
                (false, true) => Since::Start,
                (false, false) => Since::Continue,
            };
            block_on(export(layout, &to, &dir, max_bytes.unwrap_or(u64::MAX), since, format.json))
        }
        Courier::Import { dir, format } => block_on(import(layout, &dir, format.json)),
    }
}

async fn ask(layout: &Layout, ask: &CourierAsk) -> Result<CourierAnswer, Failure> {
    client::post(layout.data(), "/v1/courier", ask).await
}

fn not_understood() -> Failure {
    Failure::new(
        "the node answered something else than was asked",
        "use a `holdfast` of the same version as the running node",
    )
}

async fn begin(layout: &Layout, to: &str, since: Since) -> Result<Begun, Failure> {
    match ask(layout, &CourierAsk::Begin { to: to.to_owned(), since }).await? {
        CourierAnswer::Begun(begun) => Ok(begun),
        CourierAnswer::Made { .. } | CourierAnswer::Noted | CourierAnswer::Taken { .. } => Err(not_understood()),
    }
}

async fn export(layout: &Layout, to: &str, dir: &Path, max_bytes: u64, since: Since, quiet: bool) -> Done {
    let medium = medium_of(dir)?;
    remove_halves(dir);
    let begun = begin(layout, to, since).await?;
    let mut done = Exported {
        schema: "holdfast.courier-export/1",
        to: to.to_owned(),
        medium: medium.clone(),
        continued: begun.continues,
        files: 0,
        parcels: 0,
        entries: 0,
        chunks: 0,
        bytes: 0,
        more: false,
    };
    let bar = Bar::new("writing", quiet);
    let prefix = format!("holdfast-{}-{}", short(&begun.from.to_string()), short(&begun.to.to_string()));
    let failed = loop {
        let room = max_bytes.saturating_sub(done.bytes);
        if room < ROOM_MIN {
            done.more = true;
            break None;
        }
        let bytes = usize::try_from(FILE_BYTES.min(room)).unwrap_or(usize::MAX);
        let made = match ask(layout, &CourierAsk::Next { to: to.to_owned(), bytes }).await {
            Ok(made) => made,
            Err(e) => break Some(e),
        };
        let CourierAnswer::Made { parcels, first, count, entries, chunks, done: all } = made else {
            break Some(not_understood());
        };
        let Ok(parcels) = BASE64.decode(parcels.as_bytes()) else { break Some(not_understood()) };
        if parcels.is_empty() {
            break None;
        }
        if parcels.len() as u64 > room {
            done.more = true;
            break (done.files == 0).then(|| {
                Failure::new(
                    format!(
                        "the next parcel has {} and does not fit; nothing was written",
                        show::bytes(parcels.len() as u64)
                    ),
                    "allow more bytes, or take a larger medium, and run the same command",
                )
            });
        }
        let path = dir.join(format!("{prefix}-{first:010}-{:010}.parcels", first + count - 1));
        if let Err(e) = write_whole(&path, &parcels) {
            if is_full(&e) {
                done.more = true;
                break None;
            }
            break Some(lost_medium(&path, &e, &done));
        }
        let written = Written { stick: medium.clone(), bytes: parcels.len() as u64 };
        if let Err(e) = ask(layout, &CourierAsk::Written { to: to.to_owned(), written }).await {
            break Some(e);
        }
        done.files += 1;
        done.parcels += count;
        done.entries += entries;
        done.chunks += chunks;
        done.bytes += parcels.len() as u64;
        // What is held is an upper bound before compression; the bar arrives early rather than never.
        bar.at(done.bytes, begun.held_bytes.max(done.bytes));
        if all {
            break None;
        }
    };
    bar.finish();
    let full = done.more || failed.is_some();
    let ended = ask(layout, &CourierAsk::End { to: to.to_owned(), full }).await;
    if let Some(failure) = failed {
        return Err(failure);
    }
    ended?;
    if quiet {
        output::json(&done);
        return Ok(Exit::Ok);
    }
    output::line(format!(
        "{} for {to} on medium {medium}: {} parcels, {} entries, {} chunks of files",
        show::bytes(done.bytes),
        done.parcels,
        done.entries,
        done.chunks
    ));
    if done.more {
        output::line("the medium is full and there is more: run the same command with the next one");
    } else {
        output::line("everything is on media. It counts as arrived when receipts come, by a medium or over the link");
    }
    Ok(Exit::Ok)
}

fn lost_medium(path: &Path, e: &io::Error, done: &Exported) -> Failure {
    Failure::new(
        format!(
            "writing {} failed: {e}; {} in {} files are whole on the medium",
            path.display(),
            show::bytes(done.bytes),
            done.files
        ),
        "mount the medium again, or another one, and run the same command: it goes on where this ended",
    )
}

async fn import(layout: &Layout, dir: &Path, quiet: bool) -> Done {
    let me = offline::node_key(layout)?.node_id();
    let files = parcel_files(dir)?;
    if files.is_empty() {
        return Err(Failure::new(
            format!("there are no parcels in {}; nothing was changed", dir.display()),
            "name the directory that `holdfast courier export` wrote into",
        ));
    }
    let total = files.iter().filter_map(|path| fs::metadata(path).ok()).map(|m| m.len()).sum();
    let mut done = Imported { schema: "holdfast.courier-import/1", ..Imported::default() };
    let bar = Bar::new("reading", quiet);
    for path in files {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let bytes = match read_capped(&path) {
            Ok(bytes) => bytes,
            Err(e) => {
                let next_step = "the other files were taken; write the medium again at the other side".to_owned();
                done.refused.push(Refused { file: name, error: format!("it cannot be read: {e}"), next_step });
                continue;
            }
        };
        done.files += 1;
        let mut at = 0;
        while at < bytes.len() {
            let (len, found) = next_parcel(&bytes[at..]);
            if found.as_ref().is_ok_and(|to| *to != me) {
                done.parcels_for_others += 1;
            } else if let Err(error) = found {
                let next_step =
                    "what was lost comes with the next export or over the link; do not trust the medium again"
                        .to_owned();
                done.refused.push(Refused { file: name.clone(), error, next_step });
            } else {
                take(layout, &bytes[at..at + len], &name, &mut done).await?;
            }
            at += len;
            done.bytes += len as u64;
            bar.at(done.bytes, total);
        }
    }
    bar.finish();
    if done.parcels == 0 && done.refused.is_empty() && done.parcels_for_others > 0 {
        return Err(Failure::new(
            format!(
                "all {} parcels in {} are for other nodes; nothing was changed",
                done.parcels_for_others,
                dir.display()
            ),
            "take the medium to the node that it is for",
        ));
    }
    report(&done, quiet);
    Ok(if done.refused.is_empty() { Exit::Ok } else { Exit::Degraded })
}

fn report(done: &Imported, quiet: bool) {
    if quiet {
        return output::json(done);
    }
    output::line(format!(
        "{} parcels taken: {} new entries, {} chunks of files; {} entries and {} parcels were here already",
        done.parcels, done.entries, done.chunks, done.entries_held, done.parcels_held
    ));
    if done.parcels_for_others > 0 {
        output::line(format!("{} parcels are for other nodes and were left alone", done.parcels_for_others));
    }
    for refused in &done.refused {
        output::line(format!("refused, in {}: {}\n  next step: {}", refused.file, refused.error, refused.next_step));
    }
}

/// Has the node take one parcel in. A refusal is noted; only a node that does not answer ends the import.
async fn take(layout: &Layout, parcel: &[u8], file: &str, done: &mut Imported) -> Result<(), Failure> {
    match ask(layout, &CourierAsk::Take { parcel: BASE64.encode(parcel) }).await {
        Ok(CourierAnswer::Taken { taken: Taken { entries, duplicates, chunks, already }, .. }) => {
            done.parcels += 1;
            done.parcels_held += u64::from(already);
            done.entries += entries;
            done.entries_held += duplicates;
            done.chunks += chunks;
            Ok(())
        }
        Ok(CourierAnswer::Begun(_) | CourierAnswer::Made { .. } | CourierAnswer::Noted) => Err(not_understood()),
        Err(e) if e.exit == Exit::NotRunning => Err(e),
        Err(e) => {
            done.refused.push(Refused { file: file.to_owned(), error: e.text, next_step: e.next_step });
            Ok(())
        }
    }
}

/// Length of the parcel at the start of `bytes`, and for whom it is; or of what is no parcel up to the next one, and what
/// is wrong with it.
fn next_parcel(bytes: &[u8]) -> (usize, Result<NodeId, String>) {
    match Parcel::read(bytes) {
        Ok(parcel) => (parcel.as_bytes().len(), Ok(parcel.header.to)),
        Err(e) => {
            let next = bytes.windows(4).skip(1).position(|window| window == wire::parcel::MAGIC);
            (next.map_or(bytes.len(), |at| at + 1), Err(format!("a damaged place: {e}")))
        }
    }
}

/// The name of the medium in `dir`, given now if it has none.
fn medium_of(dir: &Path) -> Result<String, Failure> {
    let path = dir.join(MEDIUM);
    match fs::read_to_string(&path) {
        Ok(text) if is_name(text.trim()) => return Ok(text.trim().to_owned()),
        Ok(_) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(Failure::io("reading", &path, &e)),
    }
    let name = HEXLOWER.encode(&keys::random_salt()[..4]);
    write_whole(&path, name.as_bytes()).map_err(|e| Failure::io("writing to the medium", &path, &e))?;
    Ok(name)
}

fn is_name(text: &str) -> bool {
    text.len() == 8 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

fn short(node: &str) -> &str {
    node.get(..8).unwrap_or(node)
}

/// Writes a file so that it is whole under its name or not there.
fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let part = path.with_extension("part");
    let write = || {
        let mut file = File::create(&part)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&part, path)?;
        File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
    };
    write().inspect_err(|_| drop(fs::remove_file(&part)))
}

fn is_full(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}

/// What a pulled medium left half written.
fn remove_halves(dir: &Path) {
    for item in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = item.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("holdfast-") && name.ends_with(".part") {
            // If it stays it is ignored.
            let _ = fs::remove_file(item.path());
        }
    }
}

/// The files of parcels in `dir`, in the order in which they were written: the most urgent first.
fn parcel_files(dir: &Path) -> Result<Vec<PathBuf>, Failure> {
    let listing = fs::read_dir(dir).map_err(|e| Failure::io("reading", dir, &e))?;
    let mut files: Vec<PathBuf> = listing
        .flatten()
        .map(|item| item.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "parcels"))
        .collect();
    files.sort();
    Ok(files)
}

fn read_capped(path: &Path) -> io::Result<Vec<u8>> {
    let len = fs::metadata(path)?.len();
    if len > READ_BYTES_MAX {
        return Err(io::Error::other(format!("it has {len} bytes, more than an export writes")));
    }
    fs::read(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_medium_keeps_its_name_and_halves_go() {
        let dir = tempfile::tempdir().unwrap();
        let name = medium_of(dir.path()).unwrap();
        assert!(is_name(&name), "{name}");
        assert_eq!(medium_of(dir.path()).unwrap(), name);
        fs::write(dir.path().join("holdfast-a-b-1-2.part"), "half").unwrap();
        fs::write(dir.path().join("holiday.part"), "somebody else's").unwrap();
        remove_halves(dir.path());
        let mut left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|item| item.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, [MEDIUM, "holiday.part"]);
        assert!(parcel_files(dir.path()).unwrap().is_empty());
    }

    #[test]
    fn rubbish_between_parcels_is_stepped_over() {
        let rubbish = [b"xxxx".as_slice(), wire::parcel::MAGIC, b"yyy", wire::parcel::MAGIC].concat();
        let (first, damage) = next_parcel(&rubbish);
        assert_eq!((first, damage.is_err()), (4, true));
        let (second, _) = next_parcel(&rubbish[4..]);
        assert_eq!(second, 7);
        assert_eq!(next_parcel(&rubbish[11..]).0, 4, "the last is as long as the rest");
    }
}
