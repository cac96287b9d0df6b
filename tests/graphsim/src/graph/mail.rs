//! Mailboxes: sending, which shows late, and messages that are put into folders with their own dates.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::directory::Filter;
use super::{Call, Outcome, Refusal, selected};
use crate::clock::{Millis, iso, parse_iso};
use crate::http::Answer;
use crate::oracle::What;
use crate::world::World;

/// A sender may add so many headers of its own.
const HEADERS_MAX: usize = 5;

/// A message goes to so many at most.
const RECIPIENTS_MAX: usize = 500;

/// Attachments inside a request.
const ATTACHMENT_BYTES_MAX: usize = 3 << 20;

const FOLDERS: &[(&str, &str)] = &[
    ("inbox", "Inbox"),
    ("sentitems", "Sent Items"),
    ("drafts", "Drafts"),
    ("deleteditems", "Deleted Items"),
    ("archive", "Archive"),
];

/// State of the service.
#[derive(Default)]
pub(crate) struct Mail {
    mailboxes: BTreeMap<String, Mailbox>,
    events: BTreeMap<String, Value>,
}

#[derive(Default)]
struct Mailbox {
    /// Names of folders that were made, by id.
    folders: BTreeMap<String, String>,
    messages: BTreeMap<String, Message>,
}

#[derive(Clone)]
struct Message {
    folder: String,
    seen_ms: Millis,
    value: Map<String, Value>,
    extended: BTreeMap<String, String>,
}

impl Mail {
    pub(crate) fn open(&mut self, user: &str) {
        self.mailboxes.entry(user.to_owned()).or_default();
    }
}

impl World {
    /// The owner of the mailbox that a call is about, if the caller may use it.
    fn mailbox(&self, call: &Call<'_>) -> Result<String, Refusal> {
        let owner = match call.params.first() {
            Some(name) if call.row.template.starts_with("/users") => self.user_id(name)?,
            Some(_) | None => call.user().unwrap_or("").to_owned(),
        };
        if call.user().is_some_and(|user| user != owner) {
            return Err(Refusal::new(403, "ErrorAccessDenied", "Access is denied. Check credentials and try again."));
        }
        if !self.mail.mailboxes.contains_key(&owner) {
            return Err(Refusal::new(404, "MailboxNotEnabledForRESTAPI", "The mailbox is inactive or not licensed."));
        }
        Ok(owner)
    }

    fn folder(&self, owner: &str, name: &str) -> Result<String, Refusal> {
        let lower = name.to_ascii_lowercase();
        if FOLDERS.iter().any(|(id, _)| *id == lower) {
            return Ok(lower);
        }
        let known = self.mail.mailboxes[owner].folders.contains_key(name);
        known
            .then(|| name.to_owned())
            .ok_or_else(|| Refusal::new(404, "ErrorItemNotFound", "The specified folder was not found."))
    }

    fn mail_value(&self, call: &Call<'_>, id: &str, message: &Message) -> Value {
        let mut value = Value::Object(message.value.clone());
        value["id"] = json!(id);
        value["parentFolderId"] = json!(message.folder);
        let mut value = selected(value, call.query("$select"));
        if let Some(expand) = call.query("$expand").filter(|e| e.starts_with("singleValueExtendedProperties")) {
            let shown: Vec<Value> = message
                .extended
                .iter()
                .filter(|(name, _)| expand.contains(&format!("'{name}'")))
                .map(|(name, value)| json!({ "id": name, "value": value }))
                .collect();
            if !shown.is_empty() {
                value["singleValueExtendedProperties"] = json!(shown);
            }
        }
        value
    }

    fn seen_mail(&self, call: &Call<'_>) -> Result<(String, String, Message), Refusal> {
        let (owner, now) = (self.mailbox(call)?, self.now());
        let id = &call.params[1];
        let found = self.mail.mailboxes[&owner].messages.get(id).filter(|m| m.seen_ms <= now);
        let message = found.ok_or_else(|| {
            Refusal::new(404, "ErrorItemNotFound", "The specified object was not found in the store.")
        })?;
        Ok((owner, id.clone(), message.clone()))
    }

    fn mail_id(&mut self) -> String {
        format!("{}=", self.secret("AAMkAG"))
    }

    /// Into Sent Items and to those of the recipients who are in the tenant; both show later.
    fn deliver(&mut self, call: &Call<'_>, owner: &str, mut value: Map<String, Value>, keep: bool) {
        let now = self.now();
        let from = self.entra.users[owner].clone();
        let sender = json!({ "emailAddress": { "name": from.display_name, "address": from.user_principal_name } });
        value.insert("isDraft".into(), json!(false));
        value.insert("sentDateTime".into(), json!(seconds(now)));
        value.insert("receivedDateTime".into(), json!(seconds(now)));
        value.insert("sender".into(), sender.clone());
        value.insert("from".into(), sender);
        if !value.get("internetMessageId").is_some_and(Value::is_string) {
            let id = format!("<{}@contoso.example>", self.guid());
            value.insert("internetMessageId".into(), json!(id));
        }
        let to = recipients(&Value::Object(value.clone()));
        self.record(
            call,
            What::MailSent,
            owner,
            value["internetMessageId"].as_str().unwrap_or(""),
            Value::Object(value.clone()),
        );
        if keep {
            self.file_mail(owner, "sentitems", value.clone());
        }
        value.remove("bccRecipients");
        let reached: Vec<String> = self
            .entra
            .users
            .values()
            .filter(|u| to.iter().any(|address| u.user_principal_name.eq_ignore_ascii_case(address)))
            .map(|u| u.id.clone())
            .collect();
        for user in reached {
            self.file_mail(&user, "inbox", value.clone());
        }
    }

    fn file_mail(&mut self, owner: &str, folder: &str, value: Map<String, Value>) {
        let (id, seen_ms) = (self.mail_id(), self.after_lag(self.settings.lag.mail_ms));
        let message = Message { folder: folder.to_owned(), seen_ms, value, extended: BTreeMap::new() };
        if let Some(mailbox) = self.mail.mailboxes.get_mut(owner) {
            mailbox.messages.insert(id, message);
        }
    }
}

/// Exchange keeps whole seconds.
fn seconds(at: Millis) -> String {
    format!("{}Z", &iso(at)[..19])
}

fn recipients(value: &Value) -> Vec<String> {
    ["toRecipients", "ccRecipients", "bccRecipients"]
        .iter()
        .flat_map(|name| value[*name].as_array().into_iter().flatten())
        .filter_map(|r| r["emailAddress"]["address"].as_str().map(str::to_owned))
        .collect()
}

/// A message as a client may send it.
fn checked(message: &Value) -> Result<Map<String, Value>, Refusal> {
    let object = message.as_object().ok_or_else(|| Refusal::new(400, "ErrorInvalidRequest", "message is missing."))?;
    for name in ["receivedDateTime", "sentDateTime", "isDraft", "id", "createdDateTime", "lastModifiedDateTime"] {
        if object.contains_key(name) {
            let text = format!("The property {name} cannot be set on creation.");
            return Err(Refusal::new(400, "ErrorInvalidPropertySet", text));
        }
    }
    let headers = message["internetMessageHeaders"].as_array().cloned().unwrap_or_default();
    let foreign = headers.iter().any(|h| !h["name"].as_str().unwrap_or("").to_ascii_lowercase().starts_with("x-"));
    if foreign || headers.len() > HEADERS_MAX {
        let text = "The internet message header name should start with 'x-' or 'X-', and there may be five of them.";
        return Err(Refusal::new(400, "InvalidInternetMessageHeader", text));
    }
    for address in recipients(message) {
        if !address.contains('@') || address.contains(char::is_whitespace) {
            return Err(Refusal::new(400, "ErrorInvalidRecipients", format!("Recipient {address} is not resolved.")));
        }
    }
    let large = message["attachments"]
        .as_array()
        .into_iter()
        .flatten()
        .any(|a| a["contentBytes"].as_str().is_some_and(|bytes| bytes.len() / 4 * 3 > ATTACHMENT_BYTES_MAX));
    if large {
        return Err(Refusal::new(
            413,
            "ErrorMessageSizeExceeded",
            "An attachment of more than 3 MB needs an upload session.",
        ));
    }
    Ok(object.clone())
}

/// A message in MIME, as far as its headers go.
fn mime(call: &Call<'_>) -> Result<Map<String, Value>, Refusal> {
    let text: Vec<u8> = call.body().iter().copied().filter(|b| !b.is_ascii_whitespace()).collect();
    let broken = || Refusal::new(400, "ErrorMimeContentInvalidBase64String", "Invalid base64 string for MIME content.");
    let bytes = data_encoding::BASE64.decode(&text).map_err(|_| broken())?;
    let text = String::from_utf8_lossy(&bytes).replace("\r\n", "\n");
    let (head, body) =
        text.split_once("\n\n").ok_or_else(|| Refusal::new(400, "ErrorMimeContentInvalid", "No header."))?;
    let head = head.replace("\n ", " ").replace("\n\t", " ");
    let header = |name: &str| {
        head.lines().find_map(|line| {
            let (n, v) = line.split_once(':')?;
            n.eq_ignore_ascii_case(name).then(|| v.trim().to_owned())
        })
    };
    let addresses = |name: &str| -> Vec<Value> {
        header(name)
            .unwrap_or_default()
            .split(',')
            .filter(|a| a.contains('@'))
            .map(|a| a.rsplit_once('<').map_or(a, |(_, inside)| inside.trim_end_matches('>')).trim().to_owned())
            .map(|address| json!({ "emailAddress": { "address": address } }))
            .collect()
    };
    let mut value = Map::new();
    value.insert("subject".into(), json!(header("Subject")));
    value.insert("body".into(), json!({ "contentType": "text", "content": body }));
    value.insert("toRecipients".into(), json!(addresses("To")));
    value.insert("ccRecipients".into(), json!(addresses("Cc")));
    if let Some(id) = header("Message-ID") {
        value.insert("internetMessageId".into(), json!(id));
    }
    Ok(value)
}

pub(super) fn send(world: &mut World, call: &Call<'_>) -> Outcome {
    let owner = world.mailbox(call)?;
    let (value, keep) = match call.request.media().as_str() {
        "text/plain" => (mime(call)?, true),
        _ => (
            checked(&call.json["message"])?,
            call.json["saveToSentItems"] != false && call.json["saveToSentItems"] != "false",
        ),
    };
    let count = recipients(&Value::Object(value.clone())).len();
    if count == 0 || count > RECIPIENTS_MAX {
        return Err(Refusal::new(400, "ErrorInvalidRecipients", "At least one recipient isn't valid."));
    }
    world.deliver(call, &owner, value, keep);
    Ok(Answer::empty(202))
}

pub(super) fn create(world: &mut World, call: &Call<'_>) -> Outcome {
    let owner = world.mailbox(call)?;
    let folder = match call.params.get(1) {
        Some(name) => world.folder(&owner, name)?,
        None => "drafts".to_owned(),
    };
    let mut value = if call.request.media() == "text/plain" { mime(call)? } else { checked(&call.json)? };
    let now = world.now();
    let mut extended = BTreeMap::new();
    for property in
        value.remove("singleValueExtendedProperties").as_ref().and_then(Value::as_array).into_iter().flatten()
    {
        let (Some(id), Some(text)) = (property["id"].as_str(), property["value"].as_str()) else {
            return Err(Refusal::new(400, "ErrorInvalidExtendedProperty", "id and value are needed."));
        };
        extended.insert(id.to_owned(), text.to_owned());
    }
    let time = |name: &str| match extended.get(name) {
        Some(text) => parse_iso(text)
            .map(seconds)
            .ok_or_else(|| Refusal::new(400, "ErrorInvalidExtendedPropertyValue", format!("{name} is no time."))),
        None => Ok(seconds(now)),
    };
    let (received, sent) = (time("SystemTime 0x0E06")?, time("SystemTime 0x0039")?);
    let flags: u32 = extended
        .get("Integer 0x0E07")
        .map_or(Ok(8), |text| text.parse())
        .map_err(|_| Refusal::new(400, "ErrorInvalidExtendedPropertyValue", "Integer 0x0E07 is no number."))?;
    value.insert("isDraft".into(), json!(flags & 8 != 0));
    value.insert("isRead".into(), json!(flags & 1 != 0));
    value.insert("receivedDateTime".into(), json!(received));
    value.insert("sentDateTime".into(), json!(sent));
    value.insert("createdDateTime".into(), json!(seconds(now)));
    value.insert("lastModifiedDateTime".into(), json!(seconds(now)));
    if let Some(id) = extended.get("String 0x1035") {
        value.insert("internetMessageId".into(), json!(id));
    }
    if !value.contains_key("internetMessageId") {
        let id = format!("<{}@contoso.example>", world.guid());
        value.insert("internetMessageId".into(), json!(id));
    }
    let (id, seen_ms) = (world.mail_id(), world.after_lag(world.settings.lag.mail_ms));
    let message = Message { folder: folder.clone(), seen_ms, value, extended };
    let mut answer = world.mail_value(call, &id, &message);
    let mut detail = answer.clone();
    detail["extended"] = json!(message.extended);
    detail["folder"] = json!(folder);
    world.record(call, What::MailCreated, owner.clone(), id.clone(), detail);
    world.mail.mailboxes.get_mut(&owner).expect("looked up above").messages.insert(id, message);
    answer["@odata.context"] = json!(world.context(call));
    Ok(Answer::json(201, answer))
}

pub(super) fn messages(world: &mut World, call: &Call<'_>) -> Outcome {
    let owner = world.mailbox(call)?;
    let folder = call.params.get(1).map(|name| world.folder(&owner, name)).transpose()?;
    let unsupported =
        |text: &str| Refusal::new(400, "ErrorInvalidUrlQueryFilter", format!("The filter is not supported: {text}"));
    let (mut plain, mut property) = (None, None);
    match call.query("$filter") {
        Some(text) if text.starts_with("singleValueExtendedProperties/any(") => {
            property = Some(extended_filter(text).ok_or_else(|| unsupported(text))?);
        }
        Some(text) => plain = Some(Filter::parse(text).map_err(|_| unsupported(text))?),
        None => {}
    }
    let now = world.now();
    let mut found: Vec<(&String, &Message)> = world.mail.mailboxes[&owner]
        .messages
        .iter()
        .filter(|(_, m)| m.seen_ms <= now && folder.as_ref().is_none_or(|f| *f == m.folder))
        .filter(|(id, m)| plain.as_ref().is_none_or(|f| f.fits(id, &m.value)))
        .filter(|(_, m)| property.as_ref().is_none_or(|(name, value)| m.extended.get(name) == Some(value)))
        .collect();
    found.sort_by_key(|(_, m)| std::cmp::Reverse(m.value.get("receivedDateTime").map(Value::to_string)));
    let values: Vec<Value> = found.iter().map(|(id, m)| world.mail_value(call, id, m)).collect();
    world.page(call, values, 1000)
}

/// `singleValueExtendedProperties/any(p:p/id eq 'a' and p/value eq 'b')`.
fn extended_filter(text: &str) -> Option<(String, String)> {
    let inside = text.strip_prefix("singleValueExtendedProperties/any(")?.strip_suffix(')')?;
    let (letter, rest) = inside.split_once(':')?;
    let (left, right) = rest.split_once(" and ")?;
    let quoted = |part: &str, name: &str| {
        let value = part.trim().strip_prefix(&format!("{}/{name} eq '", letter.trim()))?.strip_suffix('\'')?;
        Some(value.replace("''", "'"))
    };
    Some((quoted(left, "id")?, quoted(right, "value")?))
}

pub(super) fn message(world: &mut World, call: &Call<'_>) -> Outcome {
    let (_, id, message) = world.seen_mail(call)?;
    let mut value = world.mail_value(call, &id, &message);
    value["@odata.context"] = json!(world.context(call));
    Ok(Answer::json(200, value))
}

pub(super) fn change(world: &mut World, call: &Call<'_>) -> Outcome {
    let (owner, id, mut message) = world.seen_mail(call)?;
    let is_draft = message.value.get("isDraft") == Some(&json!(true));
    for (name, value) in call.json.as_object().into_iter().flatten() {
        let of_drafts =
            ["subject", "body", "toRecipients", "ccRecipients", "bccRecipients", "replyTo", "internetMessageId"];
        if !is_draft && of_drafts.contains(&name.as_str()) {
            let text = format!("The property {name} can be changed on drafts only.");
            return Err(Refusal::new(400, "ErrorInvalidPropertySet", text));
        }
        match name.as_str() {
            // Flags and dates are taken at creation only; afterwards Exchange accepts and forgets them.
            "singleValueExtendedProperties" => {}
            "isRead"
            | "categories"
            | "flag"
            | "importance"
            | "subject"
            | "body"
            | "toRecipients"
            | "ccRecipients"
            | "bccRecipients"
            | "replyTo"
            | "internetMessageId"
            | "inferenceClassification" => {
                message.value.insert(name.clone(), value.clone());
            }
            other => {
                let text = format!("The property {other} cannot be changed.");
                return Err(Refusal::new(400, "ErrorInvalidPropertySet", text));
            }
        }
    }
    let value = world.mail_value(call, &id, &message);
    world.record(call, What::MailChanged, owner.clone(), id.clone(), value.clone());
    world.mail.mailboxes.get_mut(&owner).expect("looked up above").messages.insert(id, message);
    Ok(Answer::json(200, value))
}

pub(super) fn delete(world: &mut World, call: &Call<'_>) -> Outcome {
    let (owner, id, _) = world.seen_mail(call)?;
    world.mail.mailboxes.get_mut(&owner).expect("looked up above").messages.remove(&id);
    world.record(call, What::MailDeleted, owner, id, json!({}));
    Ok(Answer::empty(204))
}

pub(super) fn send_draft(world: &mut World, call: &Call<'_>) -> Outcome {
    let (owner, id, message) = world.seen_mail(call)?;
    if message.value.get("isDraft") != Some(&json!(true)) {
        return Err(Refusal::new(400, "ErrorInvalidOperation", "Only drafts are sent."));
    }
    if recipients(&Value::Object(message.value.clone())).is_empty() {
        return Err(Refusal::new(400, "ErrorInvalidRecipients", "At least one recipient isn't valid."));
    }
    world.mail.mailboxes.get_mut(&owner).expect("looked up above").messages.remove(&id);
    world.deliver(call, &owner, message.value, true);
    Ok(Answer::empty(202))
}

pub(super) fn folders(world: &mut World, call: &Call<'_>) -> Outcome {
    let owner = world.mailbox(call)?;
    let own = world.mail.mailboxes[&owner].folders.iter().map(|(id, name)| (id.as_str(), name.as_str()));
    let values: Vec<Value> =
        FOLDERS.iter().copied().chain(own).map(|(id, name)| json!({ "id": id, "displayName": name })).collect();
    world.page(call, values, 1000)
}

pub(super) fn create_folder(world: &mut World, call: &Call<'_>) -> Outcome {
    let owner = world.mailbox(call)?;
    let name = call.json["displayName"].as_str().unwrap_or("").to_owned();
    let mailbox = &world.mail.mailboxes[&owner];
    if name.is_empty() {
        return Err(Refusal::new(400, "ErrorInvalidRequest", "displayName is missing."));
    }
    let taken = |other: &str| other.eq_ignore_ascii_case(&name);
    if mailbox.folders.values().any(|f| taken(f)) || FOLDERS.iter().any(|(_, f)| taken(f)) {
        return Err(Refusal::new(409, "ErrorFolderExists", "A folder with the specified name already exists."));
    }
    let id = world.mail_id();
    world.mail.mailboxes.get_mut(&owner).expect("looked up above").folders.insert(id.clone(), name.clone());
    let mut value =
        json!({ "id": id, "displayName": name, "childFolderCount": 0, "totalItemCount": 0, "unreadItemCount": 0 });
    world.record(call, What::MailFolderCreated, owner, id, value.clone());
    value["@odata.context"] = json!(world.context(call));
    Ok(Answer::json(201, value))
}

pub(super) fn create_event(world: &mut World, call: &Call<'_>) -> Outcome {
    let owner = world.mailbox(call)?;
    for side in ["start", "end"] {
        if !call.json[side]["dateTime"].is_string() || !call.json[side]["timeZone"].is_string() {
            return Err(Refusal::new(400, "ErrorInvalidRequest", format!("{side} needs dateTime and timeZone.")));
        }
    }
    let same = |e: &&Value| {
        e["owner"] == json!(owner)
            && !call.json["transactionId"].is_null()
            && e["value"]["transactionId"] == call.json["transactionId"]
    };
    if let Some(event) = world.mail.events.values().find(same) {
        return Ok(Answer::json(201, event["value"].clone()));
    }
    let id = world.mail_id();
    let mut value = call.json.clone();
    value["id"] = json!(id);
    world.record(call, What::EventCreated, owner.clone(), id.clone(), value.clone());
    world.mail.events.insert(id, json!({ "owner": owner, "value": value }));
    Ok(Answer::json(201, value))
}

pub(super) fn event(world: &mut World, call: &Call<'_>) -> Outcome {
    let owner = world.mailbox(call)?;
    let found = world.mail.events.get(&call.params[1]).filter(|e| e["owner"] == json!(owner));
    let event = found
        .ok_or_else(|| Refusal::new(404, "ErrorItemNotFound", "The specified object was not found in the store."))?;
    Ok(Answer::json(200, event["value"].clone()))
}
