//! The simulator held against its own specification: what the services allow, and what they refuse.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests are tests")]

mod boards;
mod clients;
mod clouds;
mod directory;
mod failures;
mod files;
mod identity;
mod limits;
mod mail;
mod messages;
mod process;
mod world;
