//! What a session has sent so far: for estimates of what is still to cross, and of how much of it that is on the link.

use std::collections::BTreeMap;

use model::{Epoch, RangeSet, Seq};

/// Bytes before and after packing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packing {
    /// As encoded, or as the file has them.
    pub plain_bytes: u64,
    /// Of the frames that carried them, each once per time that it was sent.
    pub frame_bytes: u64,
}

impl Packing {
    pub(crate) fn add(&mut self, plain_bytes: u64, frame_bytes: usize) {
        self.plain_bytes += plain_bytes;
        self.frame_bytes += frame_bytes as u64;
    }
}

/// What a session has sent, over all its connections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SentSoFar {
    /// Entries, by class of the grant.
    pub classes: [Packing; 5],
    /// Content of files.
    pub files: Packing,
    /// Plain bytes that were sent for the first time. What is repeated after a lost connection counts once, so this
    /// stands still while nothing reaches the peer however much is sent.
    pub first_bytes: u64,
    /// Entries sent on the present connection and not receipted.
    pub under_way: usize,
    /// What the peer holds of own files that are not complete there, as far as it has asked for them.
    pub files_there: Vec<FileThere>,
    /// Own files whose content the peer asks for only when somebody there wants it.
    pub on_request: BTreeMap<Epoch, RangeSet>,
}

/// How much of an own file the peer holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileThere {
    /// Own epoch of the file's entry.
    pub epoch: Epoch,
    /// Its number.
    pub seq: Seq,
    /// Bytes of the content that are there, or on their way.
    pub bytes: u64,
}
