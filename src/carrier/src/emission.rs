//! Emission control: state that survives reboots.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::CarrierError;

/// What may leave this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Emission {
    /// Everything, within the configured rates.
    Normal,
    /// Nothing leaves; what arrives one-way is taken.
    ReceiveOnly,
    /// Nothing leaves.
    Silent,
}

impl Emission {
    /// May anything at all be emitted?
    pub fn may_emit(self) -> bool {
        match self {
            Self::Normal => true,
            Self::ReceiveOnly | Self::Silent => false,
        }
    }

    /// Name used in the file, the configuration and the output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::ReceiveOnly => "receive-only",
            Self::Silent => "silent",
        }
    }

    /// The state in `emission` of the data directory. No file means that none was ever set: normal.
    /// A file that cannot be understood means silent, since emitting by mistake cannot be undone.
    pub fn load(data_dir: &Path) -> Self {
        match fs::read_to_string(path_in(data_dir)) {
            Ok(text) => text.trim().parse().unwrap_or(Self::Silent),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Self::Normal,
            Err(_) => Self::Silent,
        }
    }

    /// Makes the state durable: after a power cut the old or the new one is read, never half of one.
    ///
    /// # Errors
    /// When the file cannot be written; the former state is then still in it.
    pub fn save(self, data_dir: &Path) -> Result<(), CarrierError> {
        let path = path_in(data_dir);
        let temp = data_dir.join("emission.new");
        let write = || -> io::Result<()> {
            let mut file = File::create(&temp)?;
            writeln!(file, "{self}")?;
            file.sync_all()?;
            fs::rename(&temp, &path)?;
            File::open(data_dir)?.sync_all()
        };
        write().map_err(|source| CarrierError::EmissionNotSaved { path: path.clone(), source })
    }
}

fn path_in(data_dir: &Path) -> PathBuf {
    data_dir.join("emission")
}

impl fmt::Display for Emission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that is no emission state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no emission state; use normal, receive-only or silent")]
pub struct BadEmission(pub String);

impl FromStr for Emission {
    type Err = BadEmission;

    fn from_str(s: &str) -> Result<Self, BadEmission> {
        [Self::Normal, Self::ReceiveOnly, Self::Silent]
            .into_iter()
            .find(|e| e.as_str() == s)
            .ok_or_else(|| BadEmission(s.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_survives_a_restart_and_damage_means_silence() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Emission::load(dir.path()), Emission::Normal);
        for state in [Emission::Silent, Emission::ReceiveOnly, Emission::Normal] {
            state.save(dir.path()).unwrap();
            assert_eq!(Emission::load(dir.path()), state);
        }
        fs::write(path_in(dir.path()), "norm").unwrap();
        assert_eq!(Emission::load(dir.path()), Emission::Silent);
    }
}
