//! `holdfast keys`: the keys that seal the journal.

use keys::{KeysSettings, WrapSecret, WrapSource};
use serde::Serialize;

use super::block_on;
use crate::admin::client;
use crate::cli::{Keys, Rewrap};
use crate::exit::{Done, Exit, Failure};
use crate::layout::Layout;
use crate::rotation::{self, KeyList, Rewriting, Rotated, Rotation};
use crate::{config, lock, offline, output, secrets, show};

pub(super) fn run(layout: &Layout, verb: Keys) -> Done {
    let settings = config::load(layout.data())?;
    match verb {
        Keys::List(format) => {
            let list = match block_on(client::get::<KeyList>(layout.data(), "/v1/keys")) {
                Err(e) if e.exit == Exit::NotRunning => {
                    rotation::list(&secrets::read_keyring(layout, &settings.keys)?, &layout.journal())?
                }
                answer => answer?,
            };
            if format.json {
                output::json(&list)
            } else {
                print(&list)
            }
            Ok(Exit::Ok)
        }
        Keys::Rotate { rewrite, format } => rotate(layout, &settings, rewrite, format.json),
        Keys::Rewrap(args) => rewrap(layout, &settings, args),
    }
}

fn print(list: &KeyList) {
    output::line(format!("wrapped by a {}", list.source));
    for key in &list.keys {
        let newest = if key.newest { "  seals what is new" } else { "" };
        let made = show::time(key.created_at);
        output::line(format!("{:>6}  {made}  {:>6} segments{newest}", key.number, key.segments));
    }
}

#[derive(Serialize)]
struct Shown {
    schema: &'static str,
    number: u32,
    rewritten: bool,
    destroyed: Vec<u32>,
    kept: Vec<u32>,
}

fn rotate(layout: &Layout, settings: &config::Settings, rewrite: bool, json: bool) -> Done {
    let (rotated, end) = match block_on(client::post::<Rotated>(layout.data(), "/v1/keys/rotate", &())) {
        Err(e) if e.exit == Exit::NotRunning => {
            let _lock = lock::take(layout.data())?;
            let key = offline::node_key(layout)?;
            let keyring = secrets::open_keyring(layout, &settings.keys)?;
            let journal = offline::open_journal_with(layout, settings, &key, &keyring)?;
            let rotation = Rotation::new(keyring, journal, layout.journal());
            let rotated = rotation.rotate()?;
            (rotated, rewrite.then(|| to_the_end(|| rotation.rewrite_step())).transpose()?)
        }
        answer => {
            let step = || block_on(client::post::<Rewriting>(layout.data(), "/v1/keys/rewrite", &()));
            (answer?, rewrite.then(|| to_the_end(step)).transpose()?)
        }
    };
    let end = end.unwrap_or_default();
    if json {
        output::json(&Shown {
            schema: "holdfast.rotated/1",
            number: rotated.number,
            rewritten: rewrite,
            destroyed: end.destroyed,
            kept: end.kept,
        });
        return Ok(Exit::Ok);
    }
    output::line(format!("what is new is sealed with key {}", rotated.number));
    let numbers = |keys: &[u32]| keys.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
    if !rewrite {
        output::line("  what is old keeps its key; `holdfast keys rotate --rewrite` seals that anew too");
    } else {
        let destroyed = if end.destroyed.is_empty() { "none".to_owned() } else { numbers(&end.destroyed) };
        output::line(format!("  old keys destroyed  {destroyed}"));
        if !end.kept.is_empty() {
            output::line(format!("  still needed        {} by files that were set aside", numbers(&end.kept)));
        }
    }
    Ok(Exit::Ok)
}

/// Step after step, with a bar. Interrupted, it goes on where it was with the next `--rewrite`.
fn to_the_end(mut step: impl FnMut() -> Result<Rewriting, Failure>) -> Result<Rewriting, Failure> {
    let bar = output::progress(0, "sealing anew");
    let end = loop {
        let at = step()?;
        if at.finished {
            break at;
        }
        bar.set_length(at.total_bytes);
        bar.set_position(at.done_bytes);
    };
    bar.finish_and_clear();
    Ok(end)
}

fn rewrap(layout: &Layout, settings: &config::Settings, args: Rewrap) -> Done {
    let _lock = lock::take(layout.data())?;
    let dir = layout.keys();
    let old = &settings.keys;
    let new = KeysSettings {
        source: args.source.into(),
        file: args.file.or_else(|| old.file.clone()),
        credential: args.credential.unwrap_or_else(|| old.credential.clone()),
        passphrase_file: args.passphrase_file,
    };
    if let Some((key, message)) = secrets::check(&new) {
        return Err(Failure::with(
            Exit::Usage,
            format!("{key}: {message}; nothing was changed"),
            "correct it and try again",
        ));
    }
    let from_file = (old.source == WrapSource::File).then(|| old.file_in(&dir));
    if from_file.is_some() && new.source == WrapSource::File && from_file == Some(new.file_in(&dir)) {
        return Err(Failure::with(
            Exit::Usage,
            "the keyring is wrapped by that key file already; nothing was changed",
            "name another file with --file",
        ));
    }
    let mut keyring = secrets::read_keyring(layout, old)?;
    let secret = secrets::surrounded(true, |around| WrapSecret::find(&new, &dir, around, true));
    let secret = secret.map_err(|e| secrets::failure(&e))?;
    keyring.rewrap(secret).map_err(|e| secrets::failure(&e))?;
    if let Some(path) = &from_file {
        keys::destroy_file(path).map_err(|e| Failure::io("destroying the former key file", path, &e))?;
    }
    output::line(format!("the keyring is wrapped by a {} now", new.source));
    output::line(format!("next step: write this into {}", layout.config().display()));
    output::line(format!("  [keys]\n  source = \"{}\"", new.source));
    match new.source {
        WrapSource::File => output::line(format!("  file = \"{}\"", new.file_in(&dir).display())),
        WrapSource::Credential => output::line(format!("  credential = \"{}\"", new.credential)),
        WrapSource::Passphrase => {
            output::line(format!("  credential = \"{}\"", new.credential));
            if let Some(file) = &new.passphrase_file {
                output::line(format!("  passphrase_file = \"{}\"", file.display()));
            }
        }
    }
    Ok(Exit::Ok)
}
