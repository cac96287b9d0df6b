//! `holdfast journal export`: entries out of the journal, as lines for programs or as they are.
//!
//! ```text
//! bundle = "HOLDFBUN" | version u16 | { length u32 | entry hash 16 | entry (wire::encode_entry) }     little-endian
//! ```

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use ::journal::{Listed, Reader};
use model::LocalPos;

use super::journal::{BATCH, Shown, unreadable};
use crate::exit::{Done, Exit, Failure};
use crate::output::{self, Bar};

const MAGIC: &[u8; 8] = b"HOLDFBUN";
const VERSION: u16 = 1;

/// Which entries, and how.
pub(super) struct Wanted<'a> {
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) raw: bool,
    pub(super) file: Option<&'a Path>,
}

#[derive(serde::Serialize)]
struct Line {
    #[serde(flatten)]
    shown: Shown,
    /// The encoded event.
    body_hex: String,
}

pub(super) fn run(reader: &Reader, wanted: &Wanted<'_>) -> Done {
    let Some(path) = wanted.file else {
        if wanted.raw {
            return Err(Failure::with(
                Exit::Usage,
                "a bundle is no text; nothing was written",
                "say where it goes with --output FILE",
            ));
        }
        each(reader, wanted, |listed| {
            output::json_line(&line_of(listed));
            Ok(())
        })?;
        return Ok(Exit::Ok);
    };
    let failed = |e: &std::io::Error| Failure::io("exporting to", path, e);
    // Whatever is there may be the only copy of something.
    let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let exists = || {
        Failure::new(
            format!("{} exists; nothing was written", path.display()),
            "name a file that does not exist, or move that one away",
        )
    };
    let file = opened.map_err(|e| if e.kind() == std::io::ErrorKind::AlreadyExists { exists() } else { failed(&e) })?;
    let mut out = BufWriter::new(file);
    let write = |out: &mut BufWriter<File>, listed: &Listed| -> std::io::Result<()> {
        if wanted.raw {
            let bytes = wire::encode_entry(&listed.entry);
            out.write_all(&(bytes.len() as u32).to_le_bytes())?;
            out.write_all(&listed.hash.0)?;
            out.write_all(&bytes)
        } else {
            serde_json::to_writer(&mut *out, &line_of(listed))?;
            out.write_all(b"\n")
        }
    };
    if wanted.raw {
        out.write_all(MAGIC).and_then(|()| out.write_all(&VERSION.to_le_bytes())).map_err(|e| failed(&e))?;
    }
    let count = each(reader, wanted, |listed| write(&mut out, listed).map_err(|e| failed(&e)))?;
    let file = out.into_inner().map_err(|e| failed(e.error()))?;
    let dir = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    file.sync_all().and_then(|()| File::open(dir)?.sync_all()).map_err(|e| failed(&e))?;
    output::note(format!("{count} entries were written to {}", path.display()));
    Ok(Exit::Ok)
}

fn each(
    reader: &Reader,
    wanted: &Wanted<'_>,
    mut take: impl FnMut(&Listed) -> Result<(), Failure>,
) -> Result<u64, Failure> {
    let stats = reader.stats();
    let to = LocalPos(wanted.to.saturating_add(1));
    let mut next = LocalPos(wanted.from.max(1));
    let (mut count, mut bytes) = (0, 0);
    // Standard output may be the terminal that the bar would be drawn on.
    let bar = Bar::new("exporting", wanted.file.is_none());
    loop {
        let batch = reader.list(next..to, BATCH).map_err(|e| unreadable(&e))?;
        let Some(last) = batch.last() else { break };
        next = last.pos.next();
        for listed in &batch {
            take(listed)?;
            count += 1;
            bytes += listed.bytes;
        }
        bar.at(bytes, stats.bytes);
    }
    bar.finish();
    Ok(count)
}

fn line_of(listed: &Listed) -> Line {
    let body_hex = listed.entry.body.iter().map(|byte| format!("{byte:02x}")).collect();
    Line { shown: Shown::new(listed), body_hex }
}
