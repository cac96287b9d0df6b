//! What can go wrong, and what to do then.

use std::path::PathBuf;

use keys::KeyNumber;
use model::NodeId;

/// The journal could not be opened. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process has it open.
    #[error("the journal in {} is in use by {holder}; nothing was touched", .dir.display())]
    Locked {
        /// The journal's directory.
        dir: PathBuf,
        /// The process, e.g. `pid 4711`.
        holder: String,
    },
    /// It is another node's.
    #[error("the journal in {} belongs to node {found}, not to {expected}; nothing was touched", .dir.display())]
    OtherNode {
        /// The journal's directory.
        dir: PathBuf,
        /// The node that wrote it.
        found: NodeId,
        /// The node that wants to open it.
        expected: NodeId,
    },
    /// It was written by a newer release.
    #[error("segment {segment} has format {found}, and this release reads up to {known}; nothing was touched")]
    NewerFormat {
        /// Number of the segment.
        segment: u32,
        /// Its format version.
        found: u16,
        /// The newest that is understood.
        known: u16,
    },
    /// A segment needs a data key that is not there.
    #[error("segment {segment} is sealed with data key {key}, which the keyring does not hold; nothing was touched")]
    KeyMissing {
        /// Number of the segment.
        segment: u32,
        /// The key it needs.
        key: KeyNumber,
    },
    /// The data key of that number is not the one with which the segment was sealed.
    #[error(
        "data key {key} of the keyring is another one than that which sealed segment {segment}; nothing was touched"
    )]
    WrongKey {
        /// Number of the segment.
        segment: u32,
        /// The key it names.
        key: KeyNumber,
    },
    /// A journal with keys holds a segment that is not sealed.
    #[error(
        "segment {segment} is not sealed, and this journal is; it was not put there by this node, nothing was touched"
    )]
    NotSealed {
        /// Number of the segment.
        segment: u32,
    },
    /// A segment is sealed in a way that a newer release may know.
    #[error(
        "segment {segment} is sealed with algorithm {algorithm}, which this release does not know; nothing was touched"
    )]
    UnknownSeal {
        /// Number of the segment.
        segment: u32,
        /// What its header says.
        algorithm: u8,
    },
    /// The journal is to be sealed and no key was given.
    #[error("there is no data key to seal the journal with; nothing was touched")]
    NoKeys,
    /// A setting is out of range.
    #[error("journal.{0}")]
    Settings(&'static str),
    /// The disk did not answer.
    #[error("{what} failed; acknowledged entries are as they were")]
    Disk {
        /// What was tried.
        what: String,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
}

impl OpenError {
    /// What the operator should do.
    pub fn next_step(&self) -> &'static str {
        match self {
            Self::Locked { .. } => "stop the other process, or ask the running one: `holdfast status`",
            Self::OtherNode { .. } => {
                "point `data_dir` at this node's own directory, or restore the key that belongs to it"
            }
            Self::NewerFormat { .. } | Self::UnknownSeal { .. } => "run the release that wrote it, or a newer one",
            Self::KeyMissing { .. } | Self::WrongKey { .. } | Self::NoKeys => {
                "restore the key directory's `journal.keys` that belongs to this journal; without it nobody can read it"
            }
            Self::NotSealed { .. } => "move the file away and find out who put it there",
            Self::Settings(_) => "correct the configuration and check it with `holdfast config check`",
            Self::Disk { .. } => "check the disk and the directory's owner, then start again",
        }
    }
}

/// An append was not accepted. Nothing of it is in the journal, and earlier entries are intact.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// The configured limit is reached, or near enough for this class; see [`crate::Space`].
    #[error(
        "the journal has no room for {what}: {used_bytes} of {limit_bytes} bytes, what is left is kept for what is more \
         urgent; nothing was accepted, earlier entries are intact"
    )]
    Full {
        /// What there is no room for.
        what: &'static str,
        /// Bytes in segment files.
        used_bytes: u64,
        /// `journal.limit_bytes`.
        limit_bytes: u64,
    },
    /// The disk is full, or near enough for this class; see [`crate::Space`].
    #[error("the disk is full ({0}); nothing was accepted, earlier entries are intact")]
    NoSpace(String),
    /// The disk failed at something beside appending.
    #[error("the disk failed: {0}; entries are intact")]
    Disk(String),
    /// Too large for a frame.
    #[error("{bytes} bytes are more than the {max} that one {what} may have; nothing was accepted")]
    TooLarge {
        /// What was to be appended.
        what: &'static str,
        /// Its size.
        bytes: u64,
        /// The largest size.
        max: u64,
    },
    /// Bytes from outside that are no entry.
    #[error("not an entry: {0}; nothing was accepted")]
    Malformed(String),
    /// Too much waits for the disk already.
    #[error("the disk is too slow: too much waits to be written; nothing was accepted")]
    Busy,
    /// What the append depends on could not be read.
    #[error("reading the journal failed: {0}; nothing was accepted")]
    Unreadable(String),
    /// The entry before it was not accepted; see [`crate::Draft::follows`].
    #[error(
        "an earlier entry of the same source was not accepted, so this one was not either; earlier entries are intact"
    )]
    OutOfOrder,
    /// The node ran out of numbers.
    #[error("the numbers of this epoch are used up; nothing was accepted")]
    NumbersUsedUp,
    /// The disk failed; the journal takes nothing more until it is opened again.
    #[error("the journal stopped: {0}; every acknowledged entry is durable, nothing after that was acknowledged")]
    Stopped(String),
    /// The journal is being closed.
    #[error("the journal is closed")]
    Closed,
}

impl AppendError {
    /// What the operator should do.
    pub fn next_step(&self) -> &'static str {
        match self {
            Self::Full { .. } => {
                "bring a link up, raise `journal.limit_bytes`, or remove a peer that will not come back"
            }
            Self::Disk(_) => "check the disk (`dmesg`), then try again",
            Self::NoSpace(_) => "free space on the disk; the journal continues by itself",
            Self::TooLarge { .. } | Self::Malformed(_) => "report it: the entry was made wrongly where it came from",
            Self::Busy => "wait and try again; if it lasts, check the disk",
            Self::Unreadable(_) => "check the disk (`dmesg`), then run `holdfast journal verify`",
            Self::OutOfOrder => "nothing: both are tried again",
            Self::NumbersUsedUp => "restart the node: it begins a new epoch",
            Self::Stopped(_) => "check the disk (`dmesg`), replace it if it reports errors, then restart the node",
            Self::Closed => "the node is stopping; try again after its start",
        }
    }

    /// May the same append succeed later without a restart?
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Full { .. } | Self::NoSpace(_) | Self::Busy | Self::OutOfOrder)
    }
}

/// The journal could not be read. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("reading the journal failed: {0}; nothing was changed")]
pub struct ReadError(pub String);

impl ReadError {
    /// What the operator should do.
    pub fn next_step(&self) -> &'static str {
        "check the disk (`dmesg`), then run `holdfast journal verify`"
    }
}

impl From<ReadError> for model::OutboundError {
    fn from(e: ReadError) -> Self {
        Self(e.0)
    }
}
