//! Files in OneDrive and SharePoint as calls to Graph, and what their answers say.
//!
//! A file has one path that follows from what it is, and is written with the rule `fail`: when nobody knows whether an
//! upload arrived, the path tells. A record that changes is written with `replace`, which may be repeated.

use bytes::Bytes;
use http::{HeaderValue, Method};
use model::Precedence;
use serde::Deserialize;
use serde_json::json;

use crate::graph::{Acting, Answer, Call, CallBody, DriveItem, Failure, Retry, Scope};
use crate::names::in_path;

/// Up to so many bytes a file is sent in one request. Newer documents allow 250 MB; this is what every copy of them allows.
pub const SMALL_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// What happens when something has the name already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnConflict {
    /// Nothing is written: 409.
    Fail,
    /// It is replaced.
    Replace,
}

/// A folder in a drive. What is missing of the path is made by the first file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folder {
    /// Id of the drive.
    pub drive: String,
    /// Where in it.
    pub place: Place,
}

/// Where a folder is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// By names from the root.
    Path(Vec<String>),
    /// By its id.
    Item(String),
}

impl Folder {
    fn path_of(&self, name: &str) -> String {
        let drive = in_path(&self.drive);
        match &self.place {
            Place::Item(item) => format!("/drives/{drive}/items/{}:/{}", in_path(item), in_path(name)),
            Place::Path(names) => {
                let path: Vec<String> = names.iter().map(String::as_str).chain([name]).map(in_path).collect();
                format!("/drives/{drive}/root:/{}", path.join("/"))
            }
        }
    }

    fn call(&self, method: Method, path: String, body: CallBody, precedence: Precedence, retry: Retry) -> Call {
        let scope = Scope::Drive(self.drive.clone());
        Call { method, path, headers: Vec::new(), body, acting: Acting::App, scope, precedence, retry }
    }

    /// Writes a file of at most [`SMALL_BYTES_MAX`]. With [`OnConflict::Fail`] a lost answer leaves the outcome unknown.
    pub fn put(
        &self,
        name: &str,
        bytes: Bytes,
        content_type: &'static str,
        on: OnConflict,
        precedence: Precedence,
    ) -> Call {
        let (rule, retry) = match on {
            OnConflict::Fail => ("fail", Retry::Once),
            OnConflict::Replace => ("replace", Retry::Safe),
        };
        let path = format!("{}:/content?@microsoft.graph.conflictBehavior={rule}", self.path_of(name));
        let body = CallBody::Bytes { content_type: HeaderValue::from_static(content_type), bytes };
        self.call(Method::PUT, path, body, precedence, retry)
    }

    /// Begins an upload in pieces. Nothing is under the name before the last of them.
    pub fn begin_upload(&self, name: &str, precedence: Precedence) -> Call {
        let path = format!("{}:/createUploadSession", self.path_of(name));
        let body = CallBody::Json(json!({ "item": { "@microsoft.graph.conflictBehavior": "fail", "name": name } }));
        self.call(Method::POST, path, body, precedence, Retry::Safe)
    }

    /// What is known of the file of this name; 404 when there is none.
    pub fn find(&self, name: &str, precedence: Precedence) -> Call {
        self.call(Method::GET, self.path_of(name), CallBody::None, precedence, Retry::Safe)
    }

    /// Moves what has this name to the recycle bin of its site.
    pub fn remove_named(&self, name: &str, precedence: Precedence) -> Call {
        self.call(Method::DELETE, self.path_of(name), CallBody::None, precedence, Retry::Safe)
    }

    /// Moves an item to the recycle bin of its site.
    pub fn remove(&self, item: &str, precedence: Precedence) -> Call {
        let path = format!("/drives/{}/items/{}", in_path(&self.drive), in_path(item));
        self.call(Method::DELETE, path, CallBody::None, precedence, Retry::Safe)
    }
}

/// The folder of a channel's files.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct FilesFolder {
    id: String,
    parent_reference: ParentReference,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ParentReference {
    drive_id: String,
}

/// The folder that `filesFolder` of a channel answered with.
///
/// # Errors
/// When the answer names none.
pub fn folder_of(answer: &Answer) -> Result<Folder, Failure> {
    let found: FilesFolder = answer.json()?;
    if found.id.is_empty() || found.parent_reference.drive_id.is_empty() {
        return Err(Failure::Broken("a folder of files without an id or a drive".to_owned()));
    }
    Ok(Folder { drive: found.parent_reference.drive_id, place: Place::Item(found.id) })
}

/// The file that was written or found.
///
/// # Errors
/// When the answer is none.
pub fn item_of(answer: &Answer) -> Result<DriveItem, Failure> {
    let item: DriveItem = answer.json()?;
    match item.id.as_str() {
        "" => Err(Failure::Broken("an item of a drive without an id".to_owned())),
        _ => Ok(item),
    }
}

/// The GUID in an ETag, `"{GUID},n"`, by which messages refer to a file.
pub fn guid_of(item: &DriveItem) -> Option<String> {
    let (_, rest) = item.e_tag.as_deref()?.split_once('{')?;
    let (guid, _) = rest.split_once('}')?;
    Some(guid.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_escaped_and_writing_once_is_told_from_replacing() {
        let own = str::to_owned;
        let folder = Folder { drive: own("b!1"), place: Place::Path(vec![own("Holdfast"), own("a b")]) };
        let put = folder.put("x#1.txt", Bytes::new(), "text/plain", OnConflict::Fail, Precedence::Deferred);
        let path = "/drives/b%211/root:/Holdfast/a%20b/x%231.txt:/content?@microsoft.graph.conflictBehavior=fail";
        assert_eq!((put.path.as_str(), put.retry), (path, Retry::Once));
        let put = folder.put("x", Bytes::new(), "text/html", OnConflict::Replace, Precedence::Routine);
        assert_eq!(put.retry, Retry::Safe);
        let folder = Folder { drive: own("d"), place: Place::Item(own("01ABC")) };
        assert_eq!(folder.find("x", Precedence::Routine).path, "/drives/d/items/01ABC:/x");
    }

    #[test]
    fn the_guid_is_read_from_the_etag() {
        let e_tag = Some("\"{5A0D1B1E-0000-4000-8000-000000000001},2\"".to_owned());
        let item = DriveItem { e_tag, ..DriveItem::default() };
        assert_eq!(guid_of(&item).as_deref(), Some("5A0D1B1E-0000-4000-8000-000000000001"));
        assert_eq!(guid_of(&DriveItem::default()), None);
    }
}
