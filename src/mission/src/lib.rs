//! The embedded Mattermost-compatible core.

pub mod error;
pub mod events;
pub mod http;
mod roles;
mod skeleton;
pub mod types;
pub mod ws;

pub use skeleton::*;
