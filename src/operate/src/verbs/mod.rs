//! What the verbs do.

mod config;
mod enroll;
mod init;
mod journal;
mod link;
mod status;
mod user;

pub(crate) use self::journal::open as open_journal;

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
        Verb::User(verb) => user::run(&layout, verb),
        Verb::Demo(options) => demo(options),
        Verb::Enroll(verb) => enroll::run(&layout, verb),
        Verb::Status(format) => status::run(&layout, format.json),
        Verb::Journal(verb) => journal::run(&layout, verb),
        Verb::Link(verb) => link::run(&layout, verb),
        Verb::Config(verb) => config::run(&layout, verb),
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
    use crate::cli::{Config, Enroll, Journal, Link};
    match verb {
        Verb::Status(format)
        | Verb::Enroll(Enroll::Invite { format, .. } | Enroll::List(format))
        | Verb::Journal(Journal::List { format, .. } | Journal::Show { format, .. } | Journal::Verify(format))
        | Verb::Link(Link::Status(format))
        | Verb::Config(Config::Check(format)) => format.json,
        Verb::Demo(options) => options.json,
        Verb::Init(_)
        | Verb::User(_)
        | Verb::Enroll(Enroll::Join { .. } | Enroll::Remove { .. })
        | Verb::Link(Link::Silence { .. } | Link::Resume)
        | Verb::Completions { .. } => false,
    }
}

fn demo(options: crate::demo::Options) -> Done {
    let json = options.json;
    let report = block_on(crate::demo::run(options)).map_err(|e| Failure::new(chain(&e), e.next_step()))?;
    match json {
        true => output::json(&report),
        false => output::line(report.to_text()),
    }
    Ok(if report.passed() { Exit::Ok } else { Exit::Failed })
}

/// Runs a conversation with the node, or with a hub, to its end.
fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("the operating system gives a thread and an event queue")
        .block_on(work)
}
