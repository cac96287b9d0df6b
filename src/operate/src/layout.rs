//! What lies where in a data directory.
//!
//! ```text
//!  <data>/holdfast.toml   configuration            <data>/keys/      identity, peers, invitations
//!  <data>/holdfast.lock   pid of the running node   <data>/journal/   segments and their index
//!  <data>/admin.sock      admin socket              <data>/core/      mission core: database and files
//!  <data>/emission        emission control
//! ```

use std::path::{Path, PathBuf};

/// A data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout(PathBuf);

impl Layout {
    /// The directory `data`.
    pub fn new(data: impl Into<PathBuf>) -> Self {
        Self(data.into())
    }

    /// The directory itself.
    pub fn data(&self) -> &Path {
        &self.0
    }

    /// The configuration.
    pub fn config(&self) -> PathBuf {
        self.0.join(crate::config::FILE)
    }

    /// The key directory.
    pub fn keys(&self) -> PathBuf {
        self.0.join("keys")
    }

    /// The journal's directory.
    pub fn journal(&self) -> PathBuf {
        self.0.join("journal")
    }

    /// The mission core's directory.
    pub fn core(&self) -> PathBuf {
        self.0.join("core")
    }
}
