//! What stands at a target of one mission object: ids and addresses, never content.

use serde::{Deserialize, Serialize};

/// Where an object is at the target. Empty: nowhere.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Remote {
    /// Id of the message that began the thread; empty when the first part did.
    pub root: String,
    /// The messages that it was written in, in order.
    pub parts: Vec<Part>,
    /// The file, for a file.
    pub file: Option<RemoteFile>,
    /// Reactions that the account shows on it, as the characters that were sent.
    pub reactions: Vec<String>,
    /// It was removed there.
    pub gone: bool,
    /// Its author removed it, whether or not anything of it stands there.
    pub withdrawn: bool,
}

/// One message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Id at the service.
    pub id: String,
    /// Hash of the HTML that was sent, to see whether a new state changes it.
    pub hash: String,
}

/// A file in a drive.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteFile {
    /// Drive.
    pub drive: String,
    /// Item in it.
    pub item: String,
    /// Its address for people.
    pub url: String,
    /// The GUID of its ETag, by which messages refer to it.
    pub guid: String,
    /// Its name there.
    pub name: String,
}

impl Remote {
    /// Did nothing of it ever arrive there, as far as is known?
    pub fn is_nowhere(&self) -> bool {
        self.parts.is_empty() && self.file.is_none() && !self.gone
    }

    /// Id of the message to which replies of this thread go.
    pub fn thread(&self) -> Option<&str> {
        match self.root.as_str() {
            "" => self.parts.first().map(|part| part.id.as_str()),
            root => Some(root),
        }
    }
}
