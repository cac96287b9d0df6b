//! What an operator meets: the command line, the configuration, the admin socket, the status screen, the demo.
//!
//! ```text
//!  argv --> cli --> verbs --admin socket--> running node (daemon)
//!                     `-- no node runs --> its files (offline)
//!  holdfast.toml --> config --> daemon --> edge::Site or hub::Hub
//! ```
//!
//! Invariants
//! - The whole configuration parses before anything starts; `config check` and start-up share the function.
//! - Every failure says what stayed intact and what to do next, and ends with a code from the table in `exit`.
//! - A data directory belongs to one process; whoever changes its files holds its lock.
//! - Standard output and standard error are written in `output` and nowhere else.
//!
//! Not here: what a node does (the other rooms). Start reading at [`main`], then `verbs`.

pub mod accounts;
pub mod admin;
pub mod backlog;
pub mod bulk;
pub mod cli;
pub mod config;
mod daemon;
pub mod demo;
pub mod destroy;
pub mod directory;
pub mod exit;
pub mod layout;
pub mod links;
pub mod lock;
pub mod m365;
pub mod observe;
pub mod offline;
pub mod output;
pub mod rotation;
mod secrets;
pub mod show;
pub mod simulate;
#[cfg(test)]
mod snapshot;
pub mod status;
pub mod targets;
#[cfg(test)]
mod units;
pub mod upkeep;
mod verbs;
pub mod why;

use std::process::ExitCode;

use clap::Parser as _;

/// The program: reads the command line and carries it out.
pub fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    let json = verbs::wants_json(&cli.verb);
    match verbs::run(cli) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            output::failure(&failure, json);
            failure.exit.into()
        }
    }
}
