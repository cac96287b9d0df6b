//! What the verbs do.

mod backlog;
mod bulk;
mod config;
mod courier;
mod directory;
mod enroll;
mod export;
mod file;
mod hold;
mod init;
mod journal;
mod keys;
mod link;
mod m365;
mod purge;
mod simulate;
mod status;
mod targets;
mod teams;
mod upkeep;
mod user;
mod why;
mod zeroize;

pub(crate) use self::journal::{open as open_journal, parse_which};

use crate::cli::{Cli, Verb};
use crate::exit::{Done, Exit, Failure, chain};
use crate::layout::Layout;
use crate::output;

/// Carries out one command line.
///
/// # Errors
/// When it was not done.
pub(crate) fn run(cli: Cli) -> Done {
    let layout = Layout::new(cli.data);
    match cli.verb {
        Verb::Init(args) => init::run(&layout, args),
        Verb::Edge => crate::daemon::run(&layout, crate::config::Role::Edge),
        Verb::Hub => crate::daemon::run(&layout, crate::config::Role::Hub),
        Verb::User(verb) => user::run(&layout, verb),
        Verb::Core(verb) => bulk::run(&layout, verb),
        Verb::Demo(options) => demo(options),
        Verb::Enroll(verb) => enroll::run(&layout, verb),
        Verb::Status(format) => status::run(&layout, format.json),
        Verb::Backlog(format) => backlog::run(&layout, format.json),
        Verb::Why { target, format } => why::run(&layout, &target, format.json),
        Verb::Simulate { to, link, hours, format } => simulate::run(&layout, to, link, hours, format.json),
        Verb::File(verb) => file::run(&layout, verb),
        Verb::Journal(verb) => journal::run(&layout, verb),
        Verb::Link(verb) => link::run(&layout, verb),
        Verb::M365(verb) => m365::run(&layout, verb),
        Verb::Directory(verb) => directory::run(&layout, verb),
        Verb::Courier(verb) => courier::run(&layout, verb),
        Verb::Purge(purge) => purge::run(&layout, purge),
        Verb::Config(verb) => config::run(&layout, verb),
        Verb::Teams(verb) => teams::run(&layout, verb),
        Verb::Keys(verb) => keys::run(&layout, verb),
        Verb::Zeroize(args) => zeroize::run(&layout, args),
        Verb::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut <Cli as clap::CommandFactory>::command(), "holdfast", &mut script);
            output::raw(&script);
            Ok(Exit::Ok)
        }
    }
}

/// Does this verb print JSON, errors too?
pub(crate) fn wants_json(verb: &Verb) -> bool {
    use crate::cli::{
        Config, Core, Courier, Directory, Enroll, File, Journal, JournalHold, Keys, Link, M365, PurgeVerb, Quarantine,
        Teams,
    };
    match verb {
        Verb::Status(format)
        | Verb::Backlog(format)
        | Verb::Why { format, .. }
        | Verb::Simulate { format, .. }
        | Verb::Core(Core::Export { format, .. } | Core::Import { format, .. })
        | Verb::File(File::Show { format, .. } | File::Request { format, .. })
        | Verb::Enroll(Enroll::Invite { format, .. } | Enroll::List(format) | Enroll::Card(format))
        | Verb::Journal(
            Journal::List { format, .. }
            | Journal::Show { format, .. }
            | Journal::Verify(format)
            | Journal::Stats(format)
            | Journal::Scrub(format)
            | Journal::Trim { format, .. }
            | Journal::RebuildIndex(format)
            | Journal::Quarantine(
                Quarantine::List(format) | Quarantine::Skip { format, .. } | Quarantine::Retry { format, .. },
            )
            | Journal::Hold(
                JournalHold::Add { format, .. } | JournalHold::List(format) | JournalHold::Remove { format, .. },
            ),
        )
        | Verb::Link(Link::Status(format) | Link::List(format) | Link::Test { format, .. })
        | Verb::Directory(
            Directory::Status(format)
            | Directory::Sync { format, .. }
            | Directory::Plan(format)
            | Directory::Apply { format, .. }
            | Directory::Show { format, .. }
            | Directory::Enroll { format, .. },
        )
        | Verb::M365(
            M365::SignIn { format, .. }
            | M365::Plan(format)
            | M365::Targets(format)
            | M365::Missing { format, .. }
            | M365::Retry { format, .. }
            | M365::Skip { format, .. }
            | M365::People(format)
            | M365::SignOut { format, .. },
        )
        | Verb::Courier(Courier::Export { format, .. } | Courier::Import { format, .. })
        | Verb::Config(Config::Check(format))
        | Verb::Keys(Keys::List(format) | Keys::Rotate { format, .. })
        | Verb::Teams(Teams::Package { format, .. })
        | Verb::Zeroize(crate::cli::Zeroize { format, .. }) => format.json,
        Verb::Purge(purge) => match &purge.verb {
            Some(PurgeVerb::Status { format, .. }) => format.json,
            None => purge.order.format.json,
        },
        Verb::Demo(options) => options.json,
        Verb::Journal(Journal::Export { .. })
        | Verb::Init(_)
        | Verb::Edge
        | Verb::Hub
        | Verb::User(_)
        | Verb::Enroll(Enroll::Join { .. } | Enroll::Accept { .. } | Enroll::Remove { .. })
        | Verb::Link(Link::Silence { .. } | Link::Pause { .. } | Link::Resume { .. })
        | Verb::Keys(Keys::Rewrap(_))
        | Verb::Completions { .. } => false,
    }
}

fn demo(options: crate::demo::Options) -> Done {
    // It prints its own report: with --hold it goes on after that.
    let report = block_on(crate::demo::run(options)).map_err(|e| Failure::new(chain(&e), e.next_step()))?;
    Ok(if report.passed() { Exit::Ok } else { Exit::Failed })
}

/// Runs a conversation with the node, or with a hub, to its end.
pub(crate) fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("the operating system gives a thread and an event queue")
        .block_on(work)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    fn exit_of(data: &std::path::Path, words: &str) -> Exit {
        let data = data.to_str().unwrap();
        let argv = ["holdfast", "--data", data].into_iter().chain(words.split_whitespace());
        run(Cli::try_parse_from(argv).unwrap()).unwrap_or_else(|failure| failure.exit)
    }

    #[test]
    fn each_verb_ends_with_the_code_of_the_table() {
        let dir = tempfile::tempdir().unwrap();
        let node = dir.path().join("alpha");
        let init = "init --name alpha --role edge --release channels";
        for (words, exit) in [
            ("status", Exit::Config),
            ("config check", Exit::Config),
            ("init --name alpha --role edge", Exit::Usage),
            (init, Exit::Ok),
            (init, Exit::InUse),
            ("config check", Exit::Ok),
            ("status --json", Exit::NotRunning),
            ("backlog --json", Exit::NotRunning),
            ("why 1 --json", Exit::NotRunning),
            ("file request ybndrfg8ejkmcpqxot1uwisza3 --class flash", Exit::NotRunning),
            ("file request ybndrfg8ejkmcpqxot1uwisza3", Exit::NotRunning),
            ("why nothing", Exit::Usage),
            ("link silence", Exit::Ok),
            ("link status", Exit::Ok),
            ("enroll list", Exit::Ok),
            ("enroll join hf1.nonsense", Exit::Usage),
            ("enroll invite bravo", Exit::Failed),
            ("enroll remove bravo", Exit::Failed),
            ("journal show x", Exit::Failed),
            ("purge ybndrfg8ejkmcpqxot1uwisza3 --reason spill --yes", Exit::NotRunning),
            ("purge status", Exit::NotRunning),
            ("m365 people", Exit::NotRunning),
            ("m365 plan", Exit::NotRunning),
            ("m365 retry archive --item 3 --json", Exit::NotRunning),
            ("directory status", Exit::NotRunning),
            ("directory plan --json", Exit::NotRunning),
            ("directory enroll --all --url https://site.example", Exit::NotRunning),
            ("m365 sign-in --json", Exit::NotRunning),
            ("purge --reason spill", Exit::Usage),
            ("core import nothing.zip --dry-run --json", Exit::Failed),
            ("hub", Exit::Config),
        ] {
            assert_eq!(exit_of(&node, words), exit, "{words}");
        }
        let _lock = crate::lock::take(&node).unwrap();
        assert_eq!(exit_of(&node, "enroll remove bravo"), Exit::InUse);
    }

    #[test]
    fn silence_ordered_while_the_node_is_stopped_holds_at_its_start() {
        let dir = tempfile::tempdir().unwrap();
        exit_of(dir.path(), "init --name alpha --role edge --release none");
        exit_of(dir.path(), "link silence --receive");
        assert_eq!(carrier::Emission::load(dir.path()), carrier::Emission::ReceiveOnly);
        exit_of(dir.path(), "link resume");
        assert_eq!(carrier::Emission::load(dir.path()), carrier::Emission::Normal);
    }
}
