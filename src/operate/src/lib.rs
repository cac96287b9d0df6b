//! CLI verbs, configuration, admin socket, status, demo.

pub mod demo;
