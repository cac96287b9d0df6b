//! Drives: small files, upload sessions, conflicts, hashes.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use rand::RngExt as _;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{Call, Outcome, Refusal, selected};
use crate::clock::{DAY, Millis, iso, parse_iso};
use crate::http::{Answer, Request};
use crate::oracle::{Rule, What};
use crate::quickxor::quick_xor;
use crate::settings::Relaxation;
use crate::world::{Caller, Trace, World};

/// Every range but the last is a multiple of this.
const RANGE_UNIT: u64 = 320 * 1024;

/// No range is as large as this.
const RANGE_MAX: u64 = 60 << 20;

/// A session lives so long after its last range.
const SESSION_LIFE: Millis = 3 * DAY;

/// A download address lives so long.
const DOWNLOAD_LIFE: Millis = 3_600_000;

/// Decoded paths may be so long.
const PATH_CHARS_MAX: usize = 400;

const HOST: &str = "contoso.sharepoint.com";

/// State of the service.
#[derive(Default)]
pub(crate) struct Files {
    sites: BTreeMap<String, Site>,
    drives: BTreeMap<String, Drive>,
    sessions: BTreeMap<String, Session>,
    downloads: BTreeMap<String, (Bytes, Millis)>,
}

struct Site {
    name: String,
    /// The group that it belongs to: its members may use it.
    group: String,
    drive: String,
    channels: BTreeMap<String, String>,
}

struct Drive {
    site: Option<String>,
    owner: Option<String>,
    name: String,
    root: String,
    items: BTreeMap<String, Item>,
}

#[derive(Clone)]
struct Item {
    guid: String,
    name: String,
    parent: Option<String>,
    /// `None`: a folder.
    content: Option<Bytes>,
    hash: String,
    version: u32,
    content_version: u32,
    created_ms: Millis,
    modified_ms: Millis,
    file_created_ms: Millis,
    file_modified_ms: Millis,
    by: Value,
}

struct Session {
    caller: Caller,
    trace: Trace,
    drive: String,
    target: Target,
    conflict: Conflict,
    deferred: bool,
    total: Option<u64>,
    held: BytesMut,
    expires_ms: Millis,
    times: (Option<Millis>, Option<Millis>),
}

#[derive(Clone)]
enum Target {
    New { parent: String, name: String },
    Content(String),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Conflict {
    Fail,
    Replace,
    Rename,
}

impl Conflict {
    fn parse(text: Option<&str>, default: Self) -> Result<Self, Refusal> {
        match text {
            None => Ok(default),
            Some("fail") => Ok(Self::Fail),
            Some("replace") => Ok(Self::Replace),
            Some("rename") => Ok(Self::Rename),
            Some(other) => Err(invalid(format!("conflictBehavior '{other}' is not known."))),
        }
    }
}

fn invalid(text: impl Into<String>) -> Refusal {
    Refusal::new(400, "invalidRequest", text)
}

fn not_found() -> Refusal {
    Refusal::new(404, "itemNotFound", "The resource could not be found.")
}

impl World {
    /// A site with its drive, for a team.
    pub(crate) fn new_site(&mut self, group: &str, name: &str) -> (String, String) {
        let site = format!("{HOST},{},{}", self.guid(), self.guid());
        let short: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
        let drive = self.new_drive(Some(site.clone()), None, "Documents");
        self.files.sites.insert(
            site.clone(),
            Site { name: short, group: group.to_owned(), drive: drive.clone(), channels: BTreeMap::new() },
        );
        (site, drive)
    }

    fn new_drive(&mut self, site: Option<String>, owner: Option<String>, name: &str) -> String {
        let id = self.secret("b!");
        let root = self.item_id();
        let item = self.new_item("root", None, None, json!({}));
        self.files.drives.insert(
            id.clone(),
            Drive { site, owner, name: name.to_owned(), root: root.clone(), items: BTreeMap::from([(root, item)]) },
        );
        id
    }

    pub(crate) fn new_channel_folder(&mut self, team: &str, channel: &str, name: &str) {
        let Some(site) = self.files.sites.iter().find(|(_, s)| s.group == team).map(|(id, _)| id.clone()) else {
            return;
        };
        let drive = self.files.sites[&site].drive.clone();
        let root = self.files.drives[&drive].root.clone();
        let item = self.new_item(name, Some(root), None, json!({}));
        let id = self.item_id();
        self.files.drives.get_mut(&drive).expect("the site's own").items.insert(id.clone(), item);
        self.files.sites.get_mut(&site).expect("found above").channels.insert(channel.to_owned(), id);
    }

    fn item_id(&mut self) -> String {
        let bytes: [u8; 20] = self.rng.random();
        format!("01{}", data_encoding::BASE32_NOPAD.encode(&bytes))
    }

    fn new_item(&mut self, name: &str, parent: Option<String>, content: Option<Bytes>, by: Value) -> Item {
        let now = self.now();
        Item {
            guid: self.guid().to_uppercase(),
            name: name.to_owned(),
            parent,
            hash: content.as_ref().map_or(String::new(), |c| quick_xor(c)),
            content,
            version: 1,
            content_version: 1,
            created_ms: now,
            modified_ms: now,
            file_created_ms: now,
            file_modified_ms: now,
            by,
        }
    }

    /// The bytes of a file, by its path in the drive.
    pub(crate) fn file_at(&self, drive: &str, path: &str) -> Option<Bytes> {
        let found = self.files.drives.get(drive)?;
        let id = found.walk(&found.root, path)?;
        found.items[&id].content.clone()
    }

    /// Whether a GUID and an address name one file.
    pub(crate) fn is_file(&self, guid: &str, url: &str) -> bool {
        self.files.drives.iter().any(|(id, drive)| {
            drive.items.iter().any(|(item, i)| i.guid.eq_ignore_ascii_case(guid) && self.web_url(id, item) == url)
        })
    }

    fn web_url(&self, drive: &str, item: &str) -> String {
        let found = &self.files.drives[drive];
        let site = found.site.as_ref().map_or("personal", |s| self.files.sites[s].name.as_str());
        let path = percent_encoding::utf8_percent_encode(&found.path(item), PATH).to_string();
        format!("https://{HOST}/sites/{site}/Shared%20Documents{path}")
    }

    /// The drive, if the caller may use it.
    fn open_drive(&self, call: &Call<'_>, id: &str) -> Result<&Drive, Refusal> {
        let drive = self.files.drives.get(id).ok_or_else(not_found)?;
        let denied = || Refusal::new(403, "accessDenied", "Access denied.");
        let caller = call.caller;
        match (&caller.user, &drive.site) {
            (Some(user), Some(site)) => {
                let group = &self.files.sites[site].group;
                let members = self.team_members(group).unwrap_or_else(|| self.group_members(group));
                members.contains(user).then_some(drive).ok_or_else(denied)
            }
            (Some(user), None) => (drive.owner.as_ref() == Some(user)).then_some(drive).ok_or_else(denied),
            (None, site) => {
                let everywhere = caller.permissions.iter().any(|p| {
                    p.starts_with("Files.Read") && p.ends_with(".All") || p.starts_with("Sites.") && p.ends_with(".All")
                });
                let granted = site
                    .as_ref()
                    .is_some_and(|s| self.entra.apps.get(&caller.app).is_some_and(|app| app.sites.contains(s)));
                (everywhere || granted).then_some(drive).ok_or_else(denied)
            }
        }
    }

    /// The item of an id, or of `root:/path` and `{id}:/path`.
    fn item_named(&self, call: &Call<'_>, drive_id: &str, name: &str) -> Result<String, Refusal> {
        let drive = self.open_drive(call, drive_id)?;
        let (anchor, path) = name.split_once(":/").unwrap_or((name, ""));
        let anchor = if anchor == "root" { drive.root.clone() } else { anchor.to_owned() };
        if !drive.items.contains_key(&anchor) {
            return Err(not_found());
        }
        drive.walk(&anchor, path).ok_or_else(not_found)
    }

    fn item_value(&self, drive_id: &str, id: &str) -> Value {
        let drive = &self.files.drives[drive_id];
        let item = &drive.items[id];
        let mut value = json!({
            "id": id,
            "name": item.name,
            "eTag": item.e_tag(),
            "cTag": item.c_tag(),
            "createdDateTime": iso(item.created_ms),
            "lastModifiedDateTime": iso(item.modified_ms),
            "size": drive.size(id),
            "webUrl": self.web_url(drive_id, id),
            "webDavUrl": self.web_url(drive_id, id),
            "fileSystemInfo": {
                "createdDateTime": iso(item.file_created_ms), "lastModifiedDateTime": iso(item.file_modified_ms),
            },
            "createdBy": item.by, "lastModifiedBy": item.by,
        });
        let mut reference = json!({ "driveId": drive_id, "driveType": if drive.site.is_some() { "documentLibrary" } else { "business" } });
        if let Some(site) = &drive.site {
            reference["siteId"] = json!(site);
        }
        if let Some(parent) = &item.parent {
            reference["id"] = json!(parent);
            reference["name"] = json!(drive.items[parent].name);
            reference["path"] = json!(format!("/drives/{drive_id}/root:{}", drive.path(parent)));
        } else {
            value["root"] = json!({});
        }
        value["parentReference"] = reference;
        match &item.content {
            None => value["folder"] = json!({ "childCount": drive.children(id).count() }),
            Some(_) => {
                value["file"] =
                    json!({ "mimeType": "application/octet-stream", "hashes": { "quickXorHash": item.hash } });
            }
        }
        value
    }

    fn answer_item(&self, call: &Call<'_>, status: u16, drive: &str, id: &str) -> Outcome {
        let mut value = selected(self.item_value(drive, id), call.query("$select"));
        value["@odata.context"] = json!(self.context(call));
        Ok(Answer::json(status, value))
    }

    pub(super) fn channel_folder(&mut self, call: &Call<'_>, site: &str, channel: &str) -> Outcome {
        let found = &self.files.sites[site];
        let folder = found.channels.get(channel).ok_or_else(not_found)?.clone();
        let drive = found.drive.clone();
        self.open_drive(call, &drive)?;
        self.answer_item(call, 200, &drive, &folder)
    }

    /// Where a new file goes: folders on the way are made.
    fn place_for(&mut self, call: &Call<'_>, drive: &str, anchor: &str, path: &str) -> Result<Target, Refusal> {
        let opened = self.open_drive(call, drive)?;
        let mut parent = if anchor == "root" { opened.root.clone() } else { anchor.to_owned() };
        if opened.items.get(&parent).is_none_or(|i| i.content.is_some()) {
            return Err(not_found());
        }
        if opened.path(&parent).chars().count() + 1 + path.chars().count() > PATH_CHARS_MAX {
            return Err(invalid("The path is longer than 400 characters."));
        }
        let names: Vec<&str> = path.split('/').collect();
        for name in &names {
            check_name(name)?;
        }
        let (name, folders) = names.split_last().ok_or_else(|| invalid("A name is missing."))?;
        for folder in folders {
            let drive_now = &self.files.drives[drive];
            parent = match drive_now.child(&parent, folder) {
                Some(id) if drive_now.items[&id].content.is_none() => id,
                Some(_) => return Err(invalid("A file stands where a folder is needed.")),
                None => self.insert_item(call.caller, call.trace, drive, &parent, folder, None),
            };
        }
        Ok(Target::New { parent, name: (*name).to_owned() })
    }

    fn insert_item(
        &mut self,
        caller: &Caller,
        trace: &Trace,
        drive: &str,
        parent: &str,
        name: &str,
        content: Option<Bytes>,
    ) -> String {
        let id = self.item_id();
        let by = identity(self, caller);
        let folder = content.is_none();
        let item = self.new_item(name, Some(parent.to_owned()), content, by);
        self.files.drives.get_mut(drive).expect("looked up by the caller").items.insert(id.clone(), item);
        if folder {
            let path = self.files.drives[drive].path(&id);
            self.commit(caller, trace, What::FolderCreated, drive, id.clone(), json!({ "path": path }));
        }
        id
    }

    /// Writes a file whole; the item and whether it is new.
    #[allow(clippy::too_many_arguments, reason = "small files and sessions end here with the same nine facts")]
    fn write(
        &mut self,
        caller: &Caller,
        trace: &Trace,
        drive: &str,
        target: Target,
        conflict: Conflict,
        content: Bytes,
        times: (Option<Millis>, Option<Millis>),
    ) -> Result<(String, bool), Refusal> {
        let used: u64 =
            self.files.drives[drive].items.values().filter_map(|i| i.content.as_ref()).map(|c| c.len() as u64).sum();
        if used + content.len() as u64 > self.settings.limits.drive_bytes {
            return Err(Refusal::new(507, "quotaLimitReached", "The drive is full."));
        }
        let (id, new) = match target {
            Target::Content(id) => (id, false),
            Target::New { parent, name } => match (self.files.drives[drive].child(&parent, &name), conflict) {
                (Some(_), Conflict::Fail) => {
                    let text = "The specified item name already exists.";
                    return Err(Refusal::new(409, "nameAlreadyExists", text));
                }
                (Some(id), Conflict::Replace) => (id, false),
                (Some(_), Conflict::Rename) => {
                    let free = self.files.drives[drive].free_name(&parent, &name);
                    (self.insert_item(caller, trace, drive, &parent, &free, Some(Bytes::new())), true)
                }
                (None, _) => (self.insert_item(caller, trace, drive, &parent, &name, Some(Bytes::new())), true),
            },
        };
        let (now, by) = (self.now(), identity(self, caller));
        let found = self.files.drives.get_mut(drive).expect("looked up by the caller");
        let item = found.items.get_mut(&id).ok_or_else(not_found)?;
        if item.content.is_none() {
            return Err(Refusal::new(409, "nameAlreadyExists", "A folder of that name exists."));
        }
        item.hash = quick_xor(&content);
        if !new {
            item.version += 1;
            item.content_version += 1;
        }
        item.modified_ms = now;
        item.file_created_ms = times.0.unwrap_or(item.file_created_ms);
        item.file_modified_ms = times.1.unwrap_or(now);
        item.by = by;
        let detail = json!({
            "size": content.len(), "quickXorHash": item.hash, "sha256": data_encoding::HEXLOWER.encode(&Sha256::digest(&content)),
            "new": new, "version": item.content_version,
        });
        item.content = Some(content);
        let path = found.path(&id);
        let mut detail = detail;
        detail["path"] = json!(path);
        self.commit(caller, trace, What::FileWritten, drive, id.clone(), detail);
        Ok((id, new))
    }

    /// `If-Match` against both tags.
    fn matched(&self, call: &Call<'_>, drive: &str, id: &str) -> Result<(), Refusal> {
        let item = &self.files.drives[drive].items[id];
        match call.request.header("if-match") {
            Some(tag) if tag != "*" && tag != item.e_tag() && tag != item.c_tag() => {
                Err(Refusal::new(412, "resourceModified", "ETag does not match current item's value."))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// One request at the host of uploads and downloads, which no token of Graph may see.
    pub(crate) fn upload(&mut self, request: &Request) -> Answer {
        let trace = Trace {
            request_id: self.guid(),
            client_request_id: request.header("client-request-id").unwrap_or("").to_owned(),
        };
        let outcome = if request.headers.contains_key("authorization") {
            let now = self.now();
            self.oracle.violated(now, Rule::AuthorizationOnUpload, format!("{} with Authorization", request.method));
            Err(Refusal::new(401, "unauthenticated", "This address carries its own secret: send no Authorization."))
        } else if let Some(token) = request.path.strip_prefix("/down/") {
            self.download(request, token)
        } else {
            self.session_request(request, request.path.strip_prefix("/up/").unwrap_or(""))
        };
        outcome.unwrap_or_else(|refusal| refusal.answer(self.now(), &trace))
    }

    fn download(&self, request: &Request, token: &str) -> Outcome {
        let (bytes, expires) = self.files.downloads.get(token).ok_or_else(not_found)?;
        if *expires <= self.now() || request.method != "GET" {
            return Err(Refusal::new(401, "unauthenticated", "The address has expired."));
        }
        Ok(Answer::bytes(200, "application/octet-stream", bytes.clone()))
    }

    fn session_request(&mut self, request: &Request, token: &str) -> Outcome {
        let now = self.now();
        let gone =
            || Refusal::new(404, "itemNotFound", "The upload session was not found.").inner("uploadSessionNotFound");
        let session = self.files.sessions.get_mut(token).filter(|s| s.expires_ms > now).ok_or_else(gone)?;
        match request.method.as_str() {
            "GET" => {
                let ranges = session.missing();
                let expires = iso(session.expires_ms);
                Ok(Answer::json(200, json!({ "expirationDateTime": expires, "nextExpectedRanges": ranges })))
            }
            "DELETE" => {
                let session = self.files.sessions.remove(token).expect("looked up above");
                self.commit(&session.caller, &session.trace, What::UploadCancelled, session.drive, "", json!({}));
                Ok(Answer::empty(204))
            }
            "PUT" => self.take_range(request, token),
            "POST" if session.deferred && request.body.is_empty() => self.finish(token),
            _ => Err(invalid("The method is not allowed here.")),
        }
    }

    fn take_range(&mut self, request: &Request, token: &str) -> Outcome {
        let (now, uneven) = (self.now(), self.relaxed(Relaxation::UnevenRanges));
        let session = self.files.sessions.get_mut(token).expect("looked up by the caller");
        let given = request.header("content-range").and_then(content_range);
        let (first, last, total) = given.ok_or_else(|| invalid("Content-Range must be `bytes a-b/total`."))?;
        let length = request.body.len() as u64;
        if last < first || last >= total || length != last - first + 1 {
            return Err(invalid("Content-Range and Content-Length do not fit each other."));
        }
        if session.total.is_some_and(|known| known != total) {
            return Err(invalid("The total differs from the one that was announced."));
        }
        if length >= RANGE_MAX {
            return Err(Refusal::new(413, "invalidRequest", "A range must be smaller than 60 MiB."));
        }
        let held = session.held.len() as u64;
        if first != held {
            let inner = if first < held { "fragmentOverlap" } else { "invalidRange" };
            let text = "The uploaded fragment overlaps with data that has already been received, or is out of order.";
            return Err(Refusal::new(416, "invalidRange", text).inner(inner));
        }
        if last + 1 != total && !length.is_multiple_of(RANGE_UNIT) && !uneven {
            return Err(invalid("A range must be a multiple of 327680 bytes."));
        }
        session.total = Some(total);
        session.held.extend_from_slice(&request.body);
        session.expires_ms = now + SESSION_LIFE;
        if session.held.len() as u64 == total && !session.deferred {
            return self.finish(token);
        }
        let (mut ranges, expires) = (session.missing(), iso(session.expires_ms));
        let held = session.held.len() as u64;
        // Several ranges may be listed although only the first is of use.
        if total > held + 2 * RANGE_UNIT && self.rng.random_bool(0.25) {
            let middle = held + RANGE_UNIT;
            ranges = vec![format!("{held}-{}", middle - 1), format!("{middle}-{}", total - 1)];
        }
        Ok(Answer::json(202, json!({ "expirationDateTime": expires, "nextExpectedRanges": ranges })))
    }

    fn finish(&mut self, token: &str) -> Outcome {
        let session = self.files.sessions.get(token).expect("looked up by the caller");
        if session.total != Some(session.held.len() as u64) {
            return Err(invalid("Not every range has arrived."));
        }
        let (caller, trace, drive) = (session.caller.clone(), session.trace.clone(), session.drive.clone());
        let (target, conflict, times) = (session.target.clone(), session.conflict, session.times);
        let content = session.held.clone().freeze();
        let (id, new) = self.write(&caller, &trace, &drive, target, conflict, content, times)?;
        self.files.sessions.remove(token);
        Ok(Answer::json(if new { 201 } else { 200 }, self.item_value(&drive, &id)))
    }
}

impl Session {
    /// With an end, once the total is known: so OneDrive tells it (OneDrive/onedrive-api-docs#75).
    fn missing(&self) -> Vec<String> {
        match self.total {
            Some(total) => vec![format!("{}-{}", self.held.len(), total - 1)],
            None => vec![format!("{}-", self.held.len())],
        }
    }
}

impl Drive {
    fn children<'a>(&'a self, parent: &'a str) -> impl Iterator<Item = (&'a String, &'a Item)> {
        self.items.iter().filter(move |(_, i)| i.parent.as_deref() == Some(parent))
    }

    fn child(&self, parent: &str, name: &str) -> Option<String> {
        let lower = name.to_lowercase();
        self.children(parent).find(|(_, i)| i.name.to_lowercase() == lower).map(|(id, _)| id.clone())
    }

    fn walk(&self, from: &str, path: &str) -> Option<String> {
        path.split('/').filter(|name| !name.is_empty()).try_fold(from.to_owned(), |at, name| self.child(&at, name))
    }

    fn path(&self, id: &str) -> String {
        match self.items.get(id).and_then(|i| i.parent.as_ref().map(|p| (p, &i.name))) {
            Some((parent, name)) => format!("{}/{name}", self.path(parent)),
            None => String::new(),
        }
    }

    fn size(&self, id: &str) -> u64 {
        match &self.items[id].content {
            Some(content) => content.len() as u64,
            None => self.children(id).map(|(child, _)| self.size(child)).sum(),
        }
    }

    fn free_name(&self, parent: &str, name: &str) -> String {
        let (stem, end) = name.rsplit_once('.').map_or((name, String::new()), |(s, e)| (s, format!(".{e}")));
        (1..).map(|n| format!("{stem} {n}{end}")).find(|n| self.child(parent, n).is_none()).expect("numbers do not end")
    }
}

impl Item {
    fn e_tag(&self) -> String {
        format!("\"{{{}}},{}\"", self.guid, self.version)
    }

    fn c_tag(&self) -> String {
        format!("\"c:{{{}}},{}\"", self.guid, self.content_version)
    }
}

/// What is not written as it is in an address.
const PATH: &percent_encoding::AsciiSet =
    &percent_encoding::CONTROLS.add(b' ').add(b'"').add(b'#').add(b'%').add(b'<').add(b'>').add(b'?').add(b'`');

fn identity(world: &World, caller: &Caller) -> Value {
    match &caller.user {
        Some(user) => {
            let name = world.entra.users.get(user).map(|u| u.display_name.clone());
            json!({ "user": { "id": user, "displayName": name } })
        }
        None => {
            let name = world.entra.apps.get(&caller.app).map(|a| a.name.clone());
            json!({ "application": { "id": caller.app, "displayName": name } })
        }
    }
}

/// What SharePoint does not take as a name.
fn check_name(name: &str) -> Result<(), Refusal> {
    let stem = name.split('.').next().unwrap_or("").to_ascii_uppercase();
    let reserved = matches!(stem.as_str(), "CON" | "PRN" | "AUX" | "NUL")
        || stem.len() == 4
            && (stem.starts_with("COM") || stem.starts_with("LPT"))
            && stem.ends_with(|c: char| c.is_ascii_digit());
    let bad = name.is_empty()
        || name.contains(['"', '*', ':', '<', '>', '?', '/', '\\', '|'])
        || name.starts_with(' ')
        || name.ends_with([' ', '.'])
        || name.starts_with("~$")
        || name.contains("_vti_")
        || matches!(name, ".lock" | "desktop.ini")
        || reserved;
    if bad { Err(invalid(format!("The provided name cannot contain or be: {name}"))) } else { Ok(()) }
}

fn content_range(text: &str) -> Option<(u64, u64, u64)> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    Some((first.parse().ok()?, last.parse().ok()?, total.parse().ok()?))
}

fn drive_value(world: &World, call: &Call<'_>, id: &str) -> Outcome {
    let drive = world.open_drive(call, id)?;
    let used: u64 = drive.size(&drive.root);
    let total = world.settings.limits.drive_bytes;
    let mut value = json!({
        "id": id, "name": drive.name, "driveType": if drive.site.is_some() { "documentLibrary" } else { "business" },
        "webUrl": world.web_url(id, &drive.root),
        "quota": { "total": total, "used": used, "remaining": total.saturating_sub(used), "deleted": 0, "state": "normal" },
    });
    value["@odata.context"] = json!(world.context(call));
    Ok(Answer::json(200, value))
}

/// The site of an id, of `root`, or of `host:/sites/name`.
fn site_id(world: &World, name: &str) -> Result<String, Refusal> {
    let by_path = name.split_once(":/").map(|(_, path)| path.trim_start_matches("sites/").to_owned());
    let found = match by_path {
        Some(short) => world.files.sites.iter().find(|(_, s)| s.name == short).map(|(id, _)| id.clone()),
        None => world.files.sites.contains_key(name).then(|| name.to_owned()),
    };
    found.ok_or_else(not_found)
}

/// The id of a site that the caller may use, named by id or by path.
pub(super) fn open_site(world: &World, call: &Call<'_>, name: &str) -> Result<String, Refusal> {
    let id = site_id(world, name)?;
    world.open_drive(call, &world.files.sites[&id].drive)?;
    Ok(id)
}

pub(super) fn drive(world: &mut World, call: &Call<'_>) -> Outcome {
    let name = &call.params[0];
    let id = match call.row.template {
        "/drives/{drive-id}" => name.clone(),
        "/sites/{site-id}/drive" => world.files.sites[&site_id(world, name)?].drive.clone(),
        "/groups/{group-id}/drive" => {
            world.files.sites.values().find(|s| s.group == *name).ok_or_else(not_found)?.drive.clone()
        }
        _ => {
            let user = world.user_id(name)?;
            let found =
                world.files.drives.iter().find(|(_, d)| d.owner.as_ref() == Some(&user)).map(|(id, _)| id.clone());
            found.unwrap_or_else(|| world.new_drive(None, Some(user), "OneDrive"))
        }
    };
    drive_value(world, call, &id)
}

pub(super) fn drives(world: &mut World, call: &Call<'_>) -> Outcome {
    let drive = world.files.sites[&site_id(world, &call.params[0])?].drive.clone();
    world.open_drive(call, &drive)?;
    let value = json!({ "id": drive, "name": "Documents", "driveType": "documentLibrary" });
    world.page(call, vec![value], 200)
}

pub(super) fn site(world: &mut World, call: &Call<'_>) -> Outcome {
    let id = site_id(world, &call.params[0])?;
    let site = &world.files.sites[&id];
    world.open_drive(call, &site.drive)?;
    let value = json!({
        "@odata.context": world.context(call), "id": id, "name": site.name, "displayName": site.name,
        "webUrl": format!("https://{HOST}/sites/{}", site.name), "siteCollection": { "hostname": HOST },
    });
    Ok(Answer::json(200, value))
}

pub(super) fn item(world: &mut World, call: &Call<'_>) -> Outcome {
    let drive = &call.params[0];
    let name = call.params.get(1).map_or("root", String::as_str);
    let id = world.item_named(call, drive, name)?;
    world.answer_item(call, 200, drive, &id)
}

pub(super) fn children(world: &mut World, call: &Call<'_>) -> Outcome {
    let drive = &call.params[0];
    let id = world.item_named(call, drive, &call.params[1])?;
    let ids: Vec<String> = world.files.drives[drive].children(&id).map(|(id, _)| id.clone()).collect();
    let mut values: Vec<Value> = ids.iter().map(|id| world.item_value(drive, id)).collect();
    values.sort_by_key(|v| v["name"].as_str().unwrap_or("").to_lowercase());
    world.page(call, values, 999)
}

pub(super) fn create_folder(world: &mut World, call: &Call<'_>) -> Outcome {
    let drive = &call.params[0];
    let parent = world.item_named(call, drive, &call.params[1])?;
    let name = call.json["name"].as_str().unwrap_or("").to_owned();
    if !call.json["folder"].is_object() {
        return Err(invalid("Only folders are created here."));
    }
    check_name(&name)?;
    let conflict = Conflict::parse(call.json["@microsoft.graph.conflictBehavior"].as_str(), Conflict::Fail)?;
    let id = match (world.files.drives[drive].child(&parent, &name), conflict) {
        (Some(_), Conflict::Fail) => {
            return Err(Refusal::new(409, "nameAlreadyExists", "Name already exists."));
        }
        (Some(id), Conflict::Replace) => id,
        (Some(_), Conflict::Rename) => {
            let free = world.files.drives[drive].free_name(&parent, &name);
            world.insert_item(call.caller, call.trace, drive, &parent, &free, None)
        }
        (None, _) => world.insert_item(call.caller, call.trace, drive, &parent, &name, None),
    };
    world.answer_item(call, 201, drive, &id)
}

pub(super) fn change(world: &mut World, call: &Call<'_>) -> Outcome {
    let drive = &call.params[0];
    let id = world.item_named(call, drive, &call.params[1])?;
    world.matched(call, drive, &id)?;
    let name = call.json["name"].as_str().map(str::to_owned);
    let parent = call.json["parentReference"]["id"].as_str().map(str::to_owned);
    let times = file_times(&call.json)?;
    if let Some(name) = &name {
        check_name(name)?;
    }
    let found = &world.files.drives[drive];
    let item = &found.items[&id];
    let (goes_to, called) = (parent.clone().or(item.parent.clone()), name.clone().unwrap_or_else(|| item.name.clone()));
    if parent.as_ref().is_some_and(|p| found.items.get(p).is_none_or(|i| i.content.is_some())) {
        return Err(not_found());
    }
    if goes_to.as_ref().and_then(|p| found.child(p, &called)).is_some_and(|other| other != id) {
        return Err(Refusal::new(409, "nameAlreadyExists", "Name already exists."));
    }
    let now = world.now();
    let found = world.files.drives.get_mut(drive).expect("looked up above");
    let item = found.items.get_mut(&id).expect("looked up above");
    (item.parent, item.name, item.modified_ms) = (goes_to, called, now);
    item.version += 1;
    item.file_created_ms = times.0.unwrap_or(item.file_created_ms);
    item.file_modified_ms = times.1.unwrap_or(item.file_modified_ms);
    let path = found.path(&id);
    world.record(call, What::ItemChanged, drive.clone(), id.clone(), json!({ "path": path }));
    world.answer_item(call, 200, drive, &id)
}

pub(super) fn delete(world: &mut World, call: &Call<'_>) -> Outcome {
    let drive = &call.params[0];
    let id = world.item_named(call, drive, &call.params[1])?;
    world.matched(call, drive, &id)?;
    let found = world.files.drives.get_mut(drive).expect("looked up above");
    if id == found.root {
        return Err(invalid("The root cannot be deleted."));
    }
    let path = found.path(&id);
    let mut gone = vec![id.clone()];
    while let Some(next) = gone.pop() {
        gone.extend(found.children(&next).map(|(child, _)| child.clone()).collect::<Vec<_>>());
        found.items.remove(&next);
    }
    world.record(call, What::ItemDeleted, drive.clone(), id, json!({ "path": path }));
    Ok(Answer::empty(204))
}

pub(super) fn content(world: &mut World, call: &Call<'_>) -> Outcome {
    let drive = &call.params[0];
    let id = world.item_named(call, drive, &call.params[1])?;
    let bytes =
        world.files.drives[drive].items[&id].content.clone().ok_or_else(|| invalid("A folder has no content."))?;
    let (token, expires) = (world.secret(""), world.now() + DOWNLOAD_LIFE);
    world.files.downloads.insert(token.clone(), (bytes, expires));
    Ok(Answer::redirect(&format!("{}/down/{token}", world.urls.upload)))
}

/// Drive, anchor and path of a write, whichever way it was addressed; an item that is named by id is only replaced.
fn target(world: &mut World, call: &Call<'_>) -> Result<(String, Target), Refusal> {
    let drive = call.params[0].clone();
    let target = match call.row.template {
        t if t.contains("/root:/") => world.place_for(call, &drive, "root", &call.params[1])?,
        t if t.contains("{parent-id}") => world.place_for(call, &drive, &call.params[1], &call.params[2])?,
        _ => Target::Content(world.item_named(call, &drive, &call.params[1])?),
    };
    Ok((drive, target))
}

fn existing(world: &World, drive: &str, target: &Target) -> Option<String> {
    match target {
        Target::Content(id) => Some(id.clone()),
        Target::New { parent, name } => world.files.drives[drive].child(parent, name),
    }
}

pub(super) fn put(world: &mut World, call: &Call<'_>) -> Outcome {
    let conflict = Conflict::parse(call.query("@microsoft.graph.conflictBehavior"), Conflict::Replace)?;
    let (drive, target) = target(world, call)?;
    if let Some(id) = existing(world, &drive, &target) {
        world.matched(call, &drive, &id)?;
    }
    let content = call.body().clone();
    let (id, new) = world.write(call.caller, call.trace, &drive, target, conflict, content, (None, None))?;
    world.answer_item(call, if new { 201 } else { 200 }, &drive, &id)
}

fn file_times(item: &Value) -> Result<(Option<Millis>, Option<Millis>), Refusal> {
    let read = |name: &str| match item["fileSystemInfo"][name].as_str() {
        Some(text) => parse_iso(text).map(Some).ok_or_else(|| invalid("fileSystemInfo holds no time.")),
        None => Ok(None),
    };
    Ok((read("createdDateTime")?, read("lastModifiedDateTime")?))
}

pub(super) fn create_session(world: &mut World, call: &Call<'_>) -> Outcome {
    let item = &call.json["item"];
    let conflict = Conflict::parse(item["@microsoft.graph.conflictBehavior"].as_str(), Conflict::Fail)?;
    let (drive, target) = target(world, call)?;
    if let (Some(name), Target::New { name: of_path, .. }) = (item["name"].as_str(), &target)
        && name != of_path
    {
        return Err(invalid("item.name differs from the name in the path."));
    }
    if let Some(id) = existing(world, &drive, &target) {
        world.matched(call, &drive, &id)?;
    }
    let total = item["fileSize"].as_u64();
    if total.is_some_and(|t| t > world.settings.limits.drive_bytes) {
        return Err(Refusal::new(507, "quotaLimitReached", "The drive is full."));
    }
    let token = world.secret("");
    let expires_ms = world.now() + SESSION_LIFE;
    world.files.sessions.insert(
        token.clone(),
        Session {
            caller: call.caller.clone(),
            trace: call.trace.clone(),
            drive: drive.clone(),
            target,
            conflict,
            deferred: call.json["deferCommit"].as_bool().unwrap_or(false),
            total,
            held: BytesMut::new(),
            expires_ms,
            times: file_times(item)?,
        },
    );
    world.record(call, What::UploadStarted, drive, "", json!({ "total": total }));
    Ok(Answer::json(
        200,
        json!({
            "@odata.context": world.context(call), "uploadUrl": format!("{}/up/{token}", world.urls.upload),
            "expirationDateTime": iso(expires_ms), "nextExpectedRanges": ["0-"],
        }),
    ))
}
