//! What stands at a target of one mission object: ids and addresses, never content.

use microsoft::drive::{Folder, Place};
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
    /// Where its bytes may be, from before an upload until it is known.
    pub meant: Option<Meant>,
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

/// Where a file is to be written, or may have been.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meant {
    drive: String,
    /// Id of the folder; empty where it is named by `path`.
    folder: String,
    /// Names from the root of the drive.
    path: Vec<String>,
    /// Its name there.
    pub name: String,
}

impl Meant {
    /// Under this name in the folder.
    pub fn in_folder(folder: &Folder, name: &str) -> Self {
        let (id, path) = match &folder.place {
            Place::Item(id) => (id.clone(), Vec::new()),
            Place::Path(path) => (String::new(), path.clone()),
        };
        Self { drive: folder.drive.clone(), folder: id, path, name: name.to_owned() }
    }

    /// The folder.
    pub fn folder(&self) -> Folder {
        let place = match self.folder.as_str() {
            "" => Place::Path(self.path.clone()),
            id => Place::Item(id.to_owned()),
        };
        Folder { drive: self.drive.clone(), place }
    }
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
