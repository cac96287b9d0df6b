use std::io;
use std::path::PathBuf;

use model::NodeId;

use crate::wrapping::WrapSource;

/// What can go wrong with the files of the key directory.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeysError {
    /// The file could not be read.
    #[error("cannot read {}; nothing was changed", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file could not be written.
    #[error("cannot write {}; its former content is intact", path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file's permissions let others read a secret.
    #[error("{} can be read by others (mode {mode:o}); it was not used", path.display())]
    Exposed {
        /// Which file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The content is not what the file should hold.
    #[error("{} is damaged: {why}; nothing was changed", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The key file that wraps the keyring is not there.
    #[error("the wrapping key {} is missing; the journal is intact and nobody can read it without", path.display())]
    WrappingKeyMissing {
        /// Where it should be.
        path: PathBuf,
    },
    /// A secret was neither given by the service manager nor at a terminal.
    #[error("{what} is missing: there is no credential `{name}` and nobody to ask; nothing was changed")]
    CredentialMissing {
        /// Name of the credential.
        name: String,
        /// What it is for.
        what: &'static str,
    },
    /// The secret is too easily guessed for a new keyring.
    #[error("the {what} is too short: at least {least}; nothing was changed")]
    WeakSecret {
        /// What it is.
        what: &'static str,
        /// What is asked for.
        least: &'static str,
    },
    /// The secret does not open the keyring.
    #[error("{} does not open with this {source_name}; keyring and journal are intact", path.display())]
    WrongSecret {
        /// The keyring.
        path: PathBuf,
        /// `key file`, `credential` or `passphrase`.
        source_name: &'static str,
    },
    /// The keyring is wrapped by something else than the configuration says.
    #[error("{} is wrapped by a {found}, and `keys.source` says {configured}; nothing was changed", path.display())]
    OtherSource {
        /// The keyring.
        path: PathBuf,
        /// What wraps it.
        found: WrapSource,
        /// What the configuration says.
        configured: WrapSource,
    },
    /// The keyring is not there, and something is sealed with its keys.
    #[error("the keyring {} is missing; the journal is intact and nobody can read it without", path.display())]
    KeyringMissing {
        /// Where it should be.
        path: PathBuf,
    },
    /// There is a key already.
    #[error("{} exists already; a new key would make this another node, so it was kept", path.display())]
    KeyExists {
        /// Which file.
        path: PathBuf,
    },
    /// Another peer has that name.
    #[error("the name `{name}` belongs to the node {holder}; nothing was changed")]
    NameTaken {
        /// The wanted name.
        name: String,
        /// Who has it.
        holder: NodeId,
    },
    /// The text is no peer name.
    #[error("`{0}` is no node name; use 1 to 32 characters of a-z, 0-9 and -")]
    BadName(String),
}

impl KeysError {
    /// What the operator should do.
    pub fn next_step(&self) -> &'static str {
        match self {
            Self::Read { .. } | Self::Write { .. } => {
                "check the owner and permissions of the key directory and the free space of its disk, then try again"
            }
            Self::Exposed { .. } => {
                "run `chmod 600` on the file; if others may have read it, remove the node at its peers and enroll anew"
            }
            Self::Damaged { .. } => "restore the file from a backup of the key directory, or enroll the node anew",
            Self::WrappingKeyMissing { .. } => {
                "bring the file back (is its medium mounted?), or restore it from a backup; see `[keys]` in the configuration"
            }
            Self::CredentialMissing { .. } => {
                "let systemd hand it over (LoadCredential= or LoadCredentialEncrypted= in the unit), set keys.passphrase_file, or run this at a terminal"
            }
            Self::WeakSecret { .. } => "choose a longer one",
            Self::WrongSecret { .. } => "give the secret with which the keyring was wrapped last",
            Self::OtherSource { .. } => "set `keys.source` to what wraps it; `holdfast keys rewrap` changes that",
            Self::KeyringMissing { .. } => {
                "restore `journal.keys` from a backup of the key directory; to begin anew, move the journal away first"
            }
            Self::KeyExists { .. } => "move the old key away first if the node is meant to become another one",
            Self::NameTaken { .. } => {
                "choose another name, or remove the old node first with `holdfast enroll remove NAME`"
            }
            Self::BadName(_) => "choose a name such as `alpha` or `bde-2`",
        }
    }
}
