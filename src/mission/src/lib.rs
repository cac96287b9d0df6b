//! The embedded Mattermost-compatible core.

pub mod error;
pub mod events;
mod roles;
mod skeleton;
pub mod types;

pub use skeleton::*;
