//! Messages of Teams' channels as calls to Graph, and what their answers say.
//!
//! Posts, replies, edits, removals and reactions are made by a person's account: an application may not make them
//! (reference 0.1). A post or reply is made once and its outcome may stay unknown; everything else sets a state and may be
//! repeated. What tells a post apart is the reference in its text, see [`marker`].
//!
//! While a channel is in migration mode it is the other way round: the application that began it posts messages with times and
//! authors of its own, and people cannot (reference 4.2). What tells those apart is the time: a channel holds one message for
//! each millisecond.

use http::Method;
use model::{Precedence, UnixMillis};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::graph::{Acting, Answer, Call, CallBody, Failure, Retry, Scope};
use crate::names::in_path;

/// Messages of one page of the list; the most that Graph gives.
const PAGE: usize = 50;

/// A channel, and who writes to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelOf {
    /// Id of the team.
    pub team: String,
    /// Id of the channel.
    pub channel: String,
    /// Entra's object id of the account that writes.
    pub account: String,
}

/// A message in a channel: the root of a thread, or a reply to one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageOf<'a> {
    /// Id of the thread's first message.
    pub root: &'a str,
    /// Id of the message itself; the same for the first.
    pub id: &'a str,
}

/// What a post or reply is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// In the subset of [`crate::html`].
    pub html: String,
    /// Above `normal`: the reader's client shows it as important.
    pub is_important: bool,
    /// A file in a drive that it shows.
    pub file: Option<FileReference>,
}

/// Who a message that is imported is said to be from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Author {
    /// Entra's object id of a user of the tenant.
    pub id: String,
    /// Their name.
    pub name: String,
}

/// A file that a message shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileReference {
    /// The GUID in its ETag.
    pub guid: String,
    /// Its address.
    pub url: String,
    /// Its name.
    pub name: String,
}

/// The reference in a message's text, which finds it again: visible, because Graph drops what is not.
pub fn marker(object: &str, part: usize) -> String {
    format!("ref {object}.{}", part + 1)
}

/// Does the text of a message hold this reference, and not a longer one that begins like it?
pub fn holds_marker(html: &str, marker: &str) -> bool {
    let ends = html.match_indices(marker).map(|(at, found)| at + found.len());
    ends.into_iter().any(|end| !html[end..].starts_with(|c: char| c.is_ascii_alphanumeric() || c == '.'))
}

impl ChannelOf {
    fn base(&self) -> String {
        format!("/teams/{}/channels/{}", in_path(&self.team), in_path(&self.channel))
    }

    fn message(&self, of: MessageOf<'_>) -> String {
        let root = format!("{}/messages/{}", self.base(), in_path(of.root));
        if of.root == of.id { root } else { format!("{root}/replies/{}", in_path(of.id)) }
    }

    fn call(&self, method: Method, path: String, body: CallBody, precedence: Precedence, retry: Retry) -> Call {
        let scope = Scope::Channel { team: self.team.clone(), channel: self.channel.clone() };
        let acting = Acting::User(self.account.clone());
        Call { method, path, headers: Vec::new(), body, acting, scope, precedence, retry }
    }

    /// Posts, as a reply to the message `thread` where there is one.
    pub fn post(&self, thread: Option<&str>, content: &Content, precedence: Precedence) -> Call {
        let path = match thread {
            None => format!("{}/messages", self.base()),
            Some(root) => format!("{}/messages/{}/replies", self.base(), in_path(root)),
        };
        let mut message = body_of(content);
        if content.is_important {
            message["importance"] = json!("high");
        }
        self.call(Method::POST, path, CallBody::Json(message), precedence, Retry::Once)
    }

    /// Posts what was said at `created` by `author`, into a channel that this application has opened for it. At a time that the
    /// channel has a message of it is refused with 409.
    pub fn import(
        &self,
        thread: Option<&str>,
        content: &Content,
        created: UnixMillis,
        author: &Author,
        precedence: Precedence,
    ) -> Call {
        let mut call = Call { acting: Acting::App, ..self.post(thread, content, precedence) };
        if let CallBody::Json(message) = &mut call.body {
            message["createdDateTime"] = json!(rfc3339(created));
            message["from"] = json!({
                "user": { "id": author.id, "displayName": author.name, "userIdentityType": "aadUser" },
            });
        }
        call
    }

    /// One message. By the application.
    pub fn one(&self, of: MessageOf<'_>, precedence: Precedence) -> Call {
        let call = self.call(Method::GET, self.message(of), CallBody::None, precedence, Retry::Safe);
        Call { acting: Acting::App, ..call }
    }

    /// When the channel began, and whether it is open for import.
    pub fn migration(&self, precedence: Precedence) -> Call {
        let path = format!("{}?$select=id,createdDateTime,migrationMode", self.base());
        let call = self.call(Method::GET, path, CallBody::None, precedence, Retry::Safe);
        Call { acting: Acting::App, ..call }
    }

    /// Opens the channel for messages after `begins`, which has to be before the channel's own beginning and becomes it. From
    /// then on nobody else can post. Without a time Graph takes the present, after which nothing old may come.
    pub fn start_migration(&self, begins: UnixMillis, precedence: Precedence) -> Call {
        let path = format!("{}/startMigration", self.base());
        let body = CallBody::Json(json!({ "conversationCreationDateTime": rfc3339(begins) }));
        Call { acting: Acting::App, ..self.call(Method::POST, path, body, precedence, Retry::Once) }
    }

    /// Closes it: people post again.
    pub fn complete_migration(&self, precedence: Precedence) -> Call {
        let path = format!("{}/completeMigration", self.base());
        Call { acting: Acting::App, ..self.call(Method::POST, path, CallBody::None, precedence, Retry::Once) }
    }

    /// Gives a message another text. Only in the global cloud, and only the author's.
    pub fn edit(&self, of: MessageOf<'_>, content: &Content, precedence: Precedence) -> Call {
        self.call(Method::PATCH, self.message(of), CallBody::Json(body_of(content)), precedence, Retry::Safe)
    }

    /// Removes a message; a note that one was removed stays. Not in the US Government's clouds.
    pub fn remove(&self, of: MessageOf<'_>, precedence: Precedence) -> Call {
        let path = format!("{}/softDelete", self.message(of));
        self.call(Method::POST, path, CallBody::None, precedence, Retry::Safe)
    }

    /// Sets or withdraws the account's reaction, a Unicode emoji.
    pub fn react(&self, of: MessageOf<'_>, emoji: &str, present: bool, precedence: Precedence) -> Call {
        let action = if present { "setReaction" } else { "unsetReaction" };
        let path = format!("{}/{action}", self.message(of));
        self.call(Method::POST, path, CallBody::Json(json!({ "reactionType": emoji })), precedence, Retry::Safe)
    }

    /// The newest messages of the channel, or of a thread.
    pub fn newest(&self, thread: Option<&str>, precedence: Precedence) -> Call {
        let path = match thread {
            None => format!("{}/messages?$top={PAGE}", self.base()),
            Some(root) => format!("{}/messages/{}/replies?$top={PAGE}", self.base(), in_path(root)),
        };
        self.call(Method::GET, path, CallBody::None, precedence, Retry::Safe)
    }

    /// Folder in which the channel's files are. By the application: the account needs no right to files.
    pub fn files_folder(&self, precedence: Precedence) -> Call {
        let path = format!("{}/filesFolder", self.base());
        let call = self.call(Method::GET, path, CallBody::None, precedence, Retry::Safe);
        Call { acting: Acting::App, ..call }
    }
}

fn body_of(content: &Content) -> Value {
    let mut html = content.html.clone();
    let mut message = json!({});
    if let Some(file) = &content.file {
        html.push_str(&format!("<attachment id=\"{}\"></attachment>", file.guid));
        message["attachments"] = json!([{
            "id": file.guid,
            "contentType": "reference",
            "contentUrl": file.url,
            "name": file.name,
        }]);
    }
    message["body"] = json!({ "contentType": "html", "content": html });
    message
}

/// A moment as Graph takes it, to the millisecond.
pub(crate) fn rfc3339(at: UnixMillis) -> String {
    let at = jiff::Timestamp::from_millisecond(at.0).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    at.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
}

/// How a channel is, as far as imports go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Migration {
    /// When the channel began: what is imported has to be later.
    pub created: UnixMillis,
    /// It is open for import, and people cannot post.
    pub is_open: bool,
}

/// What the channel's answer says of imports.
///
/// # Errors
/// When the answer is none.
pub fn migration_of(answer: &Answer) -> Result<Migration, Failure> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Shown {
        created_date_time: String,
        #[serde(default)]
        migration_mode: Option<String>,
    }
    let shown: Shown = answer.json()?;
    let created: jiff::Timestamp =
        shown.created_date_time.parse().map_err(|e| Failure::Broken(format!("the beginning of a channel: {e}")))?;
    let is_open = shown.migration_mode.is_some_and(|mode| mode.eq_ignore_ascii_case("inProgress"));
    Ok(Migration { created: UnixMillis(created.as_millisecond()), is_open })
}

/// A message as Graph lists it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Message {
    /// Its id.
    pub id: String,
    /// When it was posted, RFC 3339.
    pub created_date_time: Option<String>,
    /// When it was posted, edited or reacted to last, RFC 3339: what a list of messages is sorted by.
    pub last_modified_date_time: Option<String>,
    /// Its text.
    pub body: MessageBody,
    /// Set when it was removed.
    pub deleted_date_time: Option<String>,
    /// Who it is from.
    pub from: Option<MessageFrom>,
}

/// Who a message is from.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct MessageFrom {
    /// The person, where it was one.
    pub user: Option<MessageUser>,
}

/// A person in Entra.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct MessageUser {
    /// Object id.
    pub id: String,
}

/// The text of a message.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MessageBody {
    /// HTML as Graph keeps it.
    pub content: Option<String>,
}

/// One page of messages.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct MessagePage {
    /// The messages, newest first.
    pub value: Vec<Message>,
    /// Address of the next page.
    #[serde(rename = "@odata.nextLink")]
    pub next: Option<String>,
}

/// Id of the message that was posted.
///
/// # Errors
/// When the answer is none.
pub fn posted(answer: &Answer) -> Result<String, Failure> {
    let message: Message = answer.json()?;
    match message.id.as_str() {
        "" => Err(Failure::Broken("a message without an id".to_owned())),
        id => Ok(id.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channel() -> ChannelOf {
        let own = str::to_owned;
        ChannelOf { team: own("t-1"), channel: own("19:abc@thread.tacv2"), account: own("oid") }
    }

    #[test]
    fn paths_name_the_thread_and_the_reply() {
        let of = |call: Call| format!("{} {}", call.method, call.path);
        let (root, reply) = (MessageOf { root: "1", id: "1" }, MessageOf { root: "1", id: "2" });
        let channel = channel();
        let base = "/teams/t-1/channels/19%3Aabc%40thread.tacv2/messages";
        let content = Content::default();
        assert_eq!(of(channel.post(None, &content, Precedence::Routine)), format!("POST {base}"));
        assert_eq!(of(channel.post(Some("1"), &content, Precedence::Routine)), format!("POST {base}/1/replies"));
        assert_eq!(of(channel.edit(root, &content, Precedence::Routine)), format!("PATCH {base}/1"));
        assert_eq!(of(channel.edit(reply, &content, Precedence::Routine)), format!("PATCH {base}/1/replies/2"));
        assert_eq!(of(channel.remove(reply, Precedence::Routine)), format!("POST {base}/1/replies/2/softDelete"));
        assert_eq!(of(channel.react(root, "👍", false, Precedence::Flash)), format!("POST {base}/1/unsetReaction"));
    }

    #[test]
    fn what_is_imported_says_when_and_by_whom_and_is_the_applications() {
        let (channel, at) = (channel(), UnixMillis(1_700_000_000_007));
        let author = Author { id: "oid-7".into(), name: "Anna".into() };
        let call = channel.import(Some("1"), &Content::default(), at, &author, Precedence::Routine);
        assert_eq!((call.acting, call.retry), (Acting::App, Retry::Once));
        assert!(call.path.ends_with("/messages/1/replies"));
        let CallBody::Json(body) = call.body else { panic!() };
        assert_eq!(body["createdDateTime"], "2023-11-14T22:13:20.007Z");
        assert_eq!(body["from"]["user"]["id"], "oid-7");
        let CallBody::Json(body) = channel.start_migration(at, Precedence::Routine).body else { panic!() };
        assert_eq!(body, json!({ "conversationCreationDateTime": "2023-11-14T22:13:20.007Z" }));
    }

    #[test]
    fn a_channel_says_whether_it_is_open_for_import() {
        let answer = |body: &str| Answer {
            status: http::StatusCode::OK,
            headers: http::HeaderMap::new(),
            body: bytes::Bytes::copy_from_slice(body.as_bytes()),
            client_request_id: String::new(),
        };
        let of = |mode: &str| {
            migration_of(&answer(&format!(r#"{{"createdDateTime":"2023-11-14T22:13:20.007Z"{mode}}}"#))).unwrap()
        };
        assert_eq!(of("").created, UnixMillis(1_700_000_000_007));
        assert!(!of("").is_open && !of(r#","migrationMode":null"#).is_open);
        assert!(!of(r#","migrationMode":"completed""#).is_open);
        assert!(of(r#","migrationMode":"inProgress""#).is_open);
        assert!(migration_of(&answer("{}")).is_err());
    }

    #[test]
    fn only_a_post_is_made_once() {
        let channel = channel();
        let of = MessageOf { root: "1", id: "1" };
        assert_eq!(channel.post(None, &Content::default(), Precedence::Routine).retry, Retry::Once);
        assert_eq!(channel.edit(of, &Content::default(), Precedence::Routine).retry, Retry::Safe);
        assert_eq!(channel.remove(of, Precedence::Routine).retry, Retry::Safe);
        assert_eq!(channel.react(of, "👍", true, Precedence::Routine).retry, Retry::Safe);
    }

    #[test]
    fn a_reference_is_told_from_a_longer_one() {
        let text = format!("<p><em>{}</em></p>", marker("abc", 0));
        assert!(holds_marker(&text, &marker("abc", 0)));
        assert!(!holds_marker("<p>ref abc.12</p>", &marker("abc", 0)));
        assert!(!holds_marker("<p>ref abcd.1</p>", &marker("abc", 0)));
        assert!(holds_marker("<p>ref abc.12 ref abc.1</p>", &marker("abc", 0)));
    }

    #[test]
    fn a_file_stands_in_the_text_and_beside_it_under_one_id() {
        let file = FileReference { guid: "g".into(), url: "https://s.example/x".into(), name: "x".into() };
        let content = Content { html: "<p>x</p>".into(), is_important: true, file: Some(file) };
        let CallBody::Json(body) = channel().post(None, &content, Precedence::Flash).body else { panic!() };
        assert_eq!(body["body"]["content"], "<p>x</p><attachment id=\"g\"></attachment>");
        assert_eq!((&body["attachments"][0]["id"], &body["importance"]), (&json!("g"), &json!("high")));
    }
}
