//! Real processes of the real binary, joined by a link that can be cut: what an operator and a user would see.
//!
//! `world` starts a hub and an edge on free ports in temporary directories; `http` is a user of either; `relay` is
//! the link, `thin_link` one of real packets; `compare` looks at both sides through the API and says what differs. The other modules are the tests.
//! A random test prints its seed; `SEED=<n>` repeats it.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests fail and report as tests do")]

mod at_rest;
mod backlog;
mod clients;
mod compare;
mod courier;
mod crash;
mod delivery;
mod diode;
mod directory;
mod enrolment;
mod failing_disk;
mod full_disk;
mod http;
mod https;
mod imports;
mod microsoft365;
mod middle;
mod mirror;
mod moving;
mod node;
mod on_request;
mod outage;
mod purge;
mod relay;
mod simulate;
mod storage;
mod surface;
mod tab;
mod thin_link;
mod upkeep;
mod world;
