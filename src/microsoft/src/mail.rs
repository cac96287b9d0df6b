//! Mail of one mailbox as calls to Graph.
//!
//! `sendMail` answers with nothing and is not idempotent: what tells a letter apart is the `Message-ID` that we choose, by
//! which the mailbox is asked for it (reference 4.3).
//!
//! A message that is put into a folder keeps the dates that it is given only as properties of MAPI, and only in the request that
//! makes it; dates of its own in JSON are refused, and whatever comes as MIME stays a draft (reference 4.3).

use http::{HeaderName, HeaderValue, Method};
use model::{Precedence, UnixMillis};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::graph::{Acting, Answer, Call, CallBody, Failure, Retry, Scope};
use crate::names::in_path;
use crate::teams::rfc3339;

/// One letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// Addresses.
    pub to: Vec<String>,
    /// Subject.
    pub subject: String,
    /// Body, HTML.
    pub html: String,
    /// `<...@...>`, ours and nobody else's.
    pub message_id: String,
    /// Shown as important.
    pub is_important: bool,
}

/// Somebody with an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Correspondent {
    /// As people read it.
    pub name: String,
    /// `...@...`.
    pub address: String,
}

/// A message that is put into a folder as if it had come there at its time. It is sent to nobody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Who wrote it.
    pub from: Correspondent,
    /// Whom it shows as reached.
    pub to: Option<Correspondent>,
    /// Subject.
    pub subject: String,
    /// Body, HTML.
    pub html: String,
    /// When it was written, and came.
    pub at: UnixMillis,
    /// `<...@...>`, ours and nobody else's.
    pub message_id: String,
    /// `Message-ID` of what it answers.
    pub answers: Option<String>,
    /// Shown as important.
    pub is_important: bool,
}

/// MAPI's `PR_MESSAGE_FLAGS`; 1 is "read", and without 8 it is no draft.
const FLAGS: &str = "Integer 0x0E07";
const DELIVERED: &str = "SystemTime 0x0E06";
const SUBMITTED: &str = "SystemTime 0x0039";
const MESSAGE_ID: &str = "String 0x1035";
const REFERENCES: &str = "String 0x1039";
const IN_REPLY_TO: &str = "String 0x1042";

fn call(mailbox: &str, method: Method, path: String, body: CallBody, precedence: Precedence, retry: Retry) -> Call {
    let scope = Scope::Mailbox(mailbox.to_owned());
    Call { method, path, headers: Vec::new(), body, acting: Acting::App, scope, precedence, retry }
}

/// Sends a letter from a mailbox and keeps it in its sent items.
pub fn send(mailbox: &str, letter: &Letter, precedence: Precedence) -> Call {
    let to: Vec<_> = letter.to.iter().map(|address| json!({ "emailAddress": { "address": address } })).collect();
    let body = json!({
        "message": {
            "subject": letter.subject,
            "body": { "contentType": "html", "content": letter.html },
            "toRecipients": to,
            "internetMessageId": letter.message_id,
            "importance": if letter.is_important { "high" } else { "normal" },
        },
        "saveToSentItems": true,
    });
    let path = format!("/users/{}/sendMail", in_path(mailbox));
    call(mailbox, Method::POST, path, CallBody::Json(body), precedence, Retry::Once)
}

/// Letters of the mailbox with this `Message-ID`.
pub fn find(mailbox: &str, message_id: &str, precedence: Precedence) -> Call {
    let filter = in_path(&format!("internetMessageId eq '{}'", message_id.replace('\'', "''")));
    let path = format!("/users/{}/messages?$filter={filter}&$select=id", in_path(mailbox));
    with_lasting_ids(call(mailbox, Method::GET, path, CallBody::None, precedence, Retry::Safe))
}

/// Puts a message into a folder of the mailbox.
pub fn keep(mailbox: &str, folder: &str, kept: &Kept, precedence: Precedence) -> Call {
    let shown = |of: &Correspondent| json!({ "emailAddress": { "name": of.name, "address": of.address } });
    let at = rfc3339(kept.at);
    let mut properties = vec![
        json!({ "id": FLAGS, "value": "1" }),
        json!({ "id": DELIVERED, "value": at }),
        json!({ "id": SUBMITTED, "value": at }),
        json!({ "id": MESSAGE_ID, "value": kept.message_id }),
    ];
    if let Some(answers) = &kept.answers {
        properties.push(json!({ "id": IN_REPLY_TO, "value": answers }));
        properties.push(json!({ "id": REFERENCES, "value": answers }));
    }
    let body = json!({
        "subject": kept.subject,
        "body": { "contentType": "html", "content": kept.html },
        "from": shown(&kept.from),
        "sender": shown(&kept.from),
        "toRecipients": kept.to.iter().map(shown).collect::<Vec<_>>(),
        "importance": if kept.is_important { "high" } else { "normal" },
        "singleValueExtendedProperties": properties,
    });
    let path = format!("/users/{}/mailFolders/{}/messages", in_path(mailbox), in_path(folder));
    with_lasting_ids(call(mailbox, Method::POST, path, CallBody::Json(body), precedence, Retry::Once))
}

/// Deletes a message. What is gone already is refused with 404.
pub fn discard(mailbox: &str, id: &str, precedence: Precedence) -> Call {
    let path = format!("/users/{}/messages/{}", in_path(mailbox), in_path(id));
    with_lasting_ids(call(mailbox, Method::DELETE, path, CallBody::None, precedence, Retry::Safe))
}

/// The folders at the top of the mailbox.
pub fn folders(mailbox: &str, precedence: Precedence) -> Call {
    let path = format!("/users/{}/mailFolders?$select=id,displayName&$top=100", in_path(mailbox));
    call(mailbox, Method::GET, path, CallBody::None, precedence, Retry::Safe)
}

/// Makes a folder at the top of the mailbox. One of that name is refused with 409.
pub fn make_folder(mailbox: &str, name: &str, precedence: Precedence) -> Call {
    let path = format!("/users/{}/mailFolders", in_path(mailbox));
    call(mailbox, Method::POST, path, CallBody::Json(json!({ "displayName": name })), precedence, Retry::Safe)
}

/// Id of the folder of this name, if it is this one. Exchange does not tell names by case.
pub fn folder_named(value: &Value, name: &str) -> Option<String> {
    let shown = value["displayName"].as_str()?;
    (shown.to_lowercase() == name.to_lowercase()).then(|| value["id"].as_str().map(str::to_owned)).flatten()
}

/// Id of what an answer shows.
///
/// # Errors
/// When it shows nothing.
pub fn id_of(answer: &Answer) -> Result<String, Failure> {
    #[derive(Deserialize)]
    struct Shown {
        id: String,
    }
    let shown: Shown = answer.json()?;
    match shown.id.as_str() {
        "" => Err(Failure::Broken("something without an id".to_owned())),
        id => Ok(id.to_owned()),
    }
}

/// Ids that stay when a message is moved to another folder.
fn with_lasting_ids(mut call: Call) -> Call {
    let prefer = HeaderValue::from_static("IdType=\"ImmutableId\"");
    call.headers.push((HeaderName::from_static("prefer"), prefer));
    call
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_is_kept_has_its_dates_as_properties_and_nowhere_else() {
        let anna = Correspondent { name: "Anna".into(), address: "anna@example.org".into() };
        let kept = Kept {
            from: anna,
            to: None,
            subject: "s".into(),
            html: "<p>x</p>".into(),
            at: UnixMillis(1_700_000_000_007),
            message_id: "<b@x>".into(),
            answers: Some("<a@x>".into()),
            is_important: false,
        };
        let call = keep("box@contoso.example", "AAMk=", &kept, Precedence::Routine);
        assert_eq!(call.path, "/users/box%40contoso.example/mailFolders/AAMk%3D/messages");
        assert_eq!(call.retry, Retry::Once);
        let CallBody::Json(body) = call.body else { panic!() };
        let value = |id: &str| {
            let all = body["singleValueExtendedProperties"].as_array().unwrap();
            all.iter().find(|p| p["id"] == id).map(|p| p["value"].as_str().unwrap().to_owned())
        };
        assert_eq!(value("SystemTime 0x0E06").as_deref(), Some("2023-11-14T22:13:20.007Z"));
        assert_eq!(value("SystemTime 0x0E06"), value("SystemTime 0x0039"));
        assert_eq!(value("Integer 0x0E07").as_deref(), Some("1"), "read, and no draft");
        assert_eq!(
            (value("String 0x1035").as_deref(), value("String 0x1042").as_deref()),
            (Some("<b@x>"), Some("<a@x>"))
        );
        for refused in ["receivedDateTime", "sentDateTime", "isDraft", "internetMessageHeaders"] {
            assert!(body[refused].is_null(), "{refused}");
        }
    }

    #[test]
    fn a_folder_is_known_by_its_name() {
        let folder = json!({ "id": "AAMk", "displayName": "Holdfast" });
        assert_eq!(folder_named(&folder, "holdfast").as_deref(), Some("AAMk"));
        assert_eq!(folder_named(&folder, "holdfast 2"), None);
    }

    #[test]
    fn a_letter_is_sent_once_and_found_by_its_id() {
        let letter = Letter {
            to: vec!["ops@contoso.example".to_owned()],
            subject: "s".to_owned(),
            html: "<p>x</p>".to_owned(),
            message_id: "<m365.t.1@holdfast.node>".to_owned(),
            is_important: false,
        };
        let sent = send("box@contoso.example", &letter, Precedence::Routine);
        assert_eq!((sent.path.as_str(), sent.retry), ("/users/box%40contoso.example/sendMail", Retry::Once));
        let CallBody::Json(body) = sent.body else { panic!() };
        assert_eq!(body["message"]["toRecipients"][0]["emailAddress"]["address"], "ops@contoso.example");
        let found = find("box", &letter.message_id, Precedence::Routine);
        assert_eq!(
            found.path,
            "/users/box/messages?$filter=internetMessageId%20eq%20%27%3Cm365.t.1%40holdfast.node%3E%27&$select=id"
        );
    }
}
