//! Measures the rooms beside what else could have been used, in the same run on the same disk.
//!
//! ```text
//! scripts/bench journal [CASE...] --> cases --rows, summary--> table on stdout, target/bench/journal.json
//! scripts/bench posts                                                          target/bench/posts.json
//! scripts/bench core --> the same of [`site`], on stdout and in target/bench/core.json
//! scripts/bench link --> the same of [`link`], on stdout and in target/bench/link.json
//! ```
//! A case is a module with one `run`, and a line in [`JOURNAL`] or [`POSTS`]. It takes sizes from [`Scale`], times with
//! [`clock::Stopwatch`], tells its progress on stderr and hands rows to the [`Bench`].
//!
//! Not here: judging. Nothing fails because a machine is slow; docs/benchmarks.md tells how to read the figures.

mod append;
mod clock;
mod corpus;
mod counting;
mod dictionary;
mod disk;
mod documents;
mod files;
mod group;
mod link;
mod machine;
mod open;
mod posts;
mod report;
mod site;
mod stores;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use report::{Bench, Scale};

/// Errors of a run: they end it and are printed, nobody branches on them.
type Error = Box<dyn std::error::Error + Send + Sync>;

/// One thing that is measured.
struct Case {
    name: &'static str,
    about: &'static str,
    run: fn(&mut Bench) -> Result<(), Error>,
}

/// The cases of `bench journal`, in the order in which they run.
const JOURNAL: &[Case] = &[
    Case { name: "append", about: "durable appends per second, beside a raw loop and other stores", run: append::run },
    Case { name: "disk", about: "bytes on disk for one chat entry", run: disk::run },
    Case { name: "open", about: "seconds and memory to open with a backlog", run: open::run },
    Case { name: "files", about: "bytes on disk for files, shared again and edited", run: files::run },
    Case { name: "cuts", about: "the same with other sizes of chunks", run: files::cuts },
];

/// What `bench posts` runs.
const POSTS: &[Case] =
    &[Case { name: "posts", about: "bytes of frames for one chat post, and where they go", run: posts::run }];

#[derive(Parser)]
#[command(name = "bench", about = "Measures Holdfast beside other stores and tools.")]
struct Cli {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// The journal.
    Journal(JournalArgs),
    /// What a chat post costs on a direct hop.
    Posts(PostsArgs),
    /// The mission core with many posts and users, beside a real Mattermost server where one is given.
    Core(site::CoreArgs),
    /// The link, over emulated bad ones, beside other tools. Needs root and /dev/net/tun.
    Link(link::LinkArgs),
    /// Writes what batches refer to on links without history.
    Dictionary {
        /// Where it is compiled in from.
        #[arg(long, default_value = "src/wire/dictionary")]
        out: PathBuf,
    },
    /// Opens the journal that the case `open` made and prints what that took.
    #[command(hide = true)]
    OpenOnce {
        /// The journal.
        dir: PathBuf,
    },
}

#[derive(Args)]
struct JournalArgs {
    /// Only these cases; all when none is named.
    cases: Vec<String>,
    /// Tiny sizes: shows that the cases run, measures nothing worth reading.
    #[arg(long, conflicts_with = "full")]
    quick: bool,
    /// Longer runs and more of them.
    #[arg(long)]
    full: bool,
    /// Of `append` only this load, as WRITERSxSIZE such as `64x512`; may be repeated.
    #[arg(long)]
    load: Vec<String>,
    /// Of `append` only this subject, such as `holdfast`; may be repeated.
    #[arg(long)]
    subject: Vec<String>,
    /// Where the figures go.
    #[arg(long, default_value = "target/bench/journal.json")]
    out: PathBuf,
    /// Where the stores are made; each case removes what it made. Must be on the disk that is to be measured.
    #[arg(long, default_value = "target/bench/data")]
    dir: PathBuf,
}

#[derive(Args)]
struct PostsArgs {
    /// Few posts: shows that it runs, measures nothing worth reading.
    #[arg(long, conflicts_with = "full")]
    quick: bool,
    /// More posts.
    #[arg(long)]
    full: bool,
    /// Where the figures go.
    #[arg(long, default_value = "target/bench/posts.json")]
    out: PathBuf,
}

fn main() -> ExitCode {
    let done = match Cli::parse().what {
        What::Journal(args) => journal(&args),
        What::Posts(args) => posts(&args),
        What::Core(args) => site::core(&args),
        What::Link(args) => link::link(args),
        What::Dictionary { out } => dictionary::write(&out),
        What::OpenOnce { dir } => open_once(&dir),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            report::tell(&format!("error: {e}"));
            ExitCode::FAILURE
        }
    }
}

fn open_once(dir: &Path) -> Result<(), Error> {
    let opened = open::child(dir)?;
    Ok(serde_json::to_writer(std::io::stdout().lock(), &opened)?)
}

fn scale(quick: bool, full: bool) -> Scale {
    match (quick, full) {
        (true, _) => Scale::Quick,
        (_, true) => Scale::Full,
        _ => Scale::Normal,
    }
}

/// Nothing of it is on a disk.
fn posts(args: &PostsArgs) -> Result<(), Error> {
    let scratch = tempfile::tempdir()?;
    let mut bench = Bench::new(scale(args.quick, args.full), scratch.path())?;
    for case in POSTS {
        (case.run)(&mut bench)?;
    }
    bench.print();
    bench.write(&args.out)
}

fn journal(args: &JournalArgs) -> Result<(), Error> {
    let scale = scale(args.quick, args.full);
    if let Some(unknown) = args.cases.iter().find(|name| JOURNAL.iter().all(|case| case.name != *name)) {
        let known: Vec<String> = JOURNAL.iter().map(|case| format!("  {:<10} {}", case.name, case.about)).collect();
        return Err(format!("no case `{unknown}`; the cases are:\n{}", known.join("\n")).into());
    }
    let mut bench = Bench::new(scale, &args.dir)?;
    bench.loads = args.load.clone();
    bench.subjects = args.subject.clone();
    for case in JOURNAL.iter().filter(|case| args.cases.is_empty() || args.cases.iter().any(|name| name == case.name)) {
        report::tell(&format!("== {}: {}", case.name, case.about));
        (case.run)(&mut bench)?;
    }
    bench.print();
    bench.write(&args.out)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Every case runs at its tiny size, and the file holds its rows and the whole summary. No time is asserted.
    #[test]
    fn every_case_runs_and_its_rows_are_written() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out/journal.json");
        let args = quick(&[], &out, &dir.path().join("data"));
        journal(&args).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&std::fs::read(out).unwrap()).unwrap();
        let rows = json["rows"].as_array().unwrap();
        for case in JOURNAL {
            assert!(rows.iter().any(|row| row["case"] == case.name), "no row of {}", case.name);
        }
        assert!(json["summary"].as_object().unwrap().contains_key("append64_vs_raw"));
        assert!(json["machine"]["filesystem"].is_string());
        assert_eq!(std::fs::read_dir(dir.path().join("data")).unwrap().count(), 0, "a case left something behind");
    }

    #[test]
    fn posts_are_measured_before_and_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("posts.json");
        posts(&PostsArgs { quick: true, full: false, out: out.clone() }).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&std::fs::read(out).unwrap()).unwrap();
        for figure in ["post_bytes_coalesced", "post_bytes_alone", "flash_wire_bytes", "post_bytes_alone_restarted"] {
            assert!(json["summary"][figure].as_f64().is_some_and(|bytes| bytes > 5.0), "{figure}");
        }
    }

    /// The corpus is made and kept, everybody is online, and nothing that they ask for is refused.
    #[test]
    fn a_site_is_filled_and_used() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("core.json");
        let run = || {
            let data = dir.path().join("data");
            let subject = Some("holdfast".to_owned());
            site::core(&site::CoreArgs { quick: true, full: false, posts: None, subject, out: out.clone(), dir: data })
                .unwrap();
            serde_json::from_slice::<serde_json::Value>(&std::fs::read(&out).unwrap()).unwrap()
        };
        run();
        // Again, with the corpus as the first run left it.
        let json = run();
        let summary = &json["summary"]["holdfast"];
        assert_eq!((&summary["posts"], &summary["sockets"]), (&3_000.into(), &40.into()));
        for figure in ["create_per_s", "create_p99_ms", "channel_p99_ms", "search_p99_ms"] {
            assert!(summary[figure].as_f64().is_some_and(|value| value > 0.0), "{figure}: {summary}");
        }
        let rows = json["rows"].as_array().unwrap();
        let failed: Vec<_> =
            rows.iter().filter(|row| row["subject"] == "holdfast" && row["note"].is_string()).collect();
        // In this process memory is nobody's alone.
        assert!(failed.iter().all(|row| row["unit"] == "RSS MB"), "{failed:?}");
        let frames = rows.iter().find(|row| row["unit"] == "frames/s").unwrap();
        assert!(frames["value"].as_f64().unwrap() > 0.0, "sockets hear of posts");
    }

    #[test]
    fn an_unknown_case_is_refused_with_the_known_ones() {
        let dir = tempfile::tempdir().unwrap();
        let args = quick(&["apend"], &dir.path().join("journal.json"), &dir.path().join("data"));
        let said = journal(&args).unwrap_err().to_string();
        assert!(said.contains("no case `apend`") && said.contains("  append"), "{said}");
    }

    fn quick(cases: &[&str], out: &Path, dir: &Path) -> JournalArgs {
        JournalArgs {
            cases: cases.iter().map(|case| (*case).to_owned()).collect(),
            quick: true,
            full: false,
            load: Vec::new(),
            subject: Vec::new(),
            out: out.to_owned(),
            dir: dir.to_owned(),
        }
    }
}
