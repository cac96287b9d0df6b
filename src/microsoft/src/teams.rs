//! Messages of Teams' channels as calls to Graph, and what their answers say.
//!
//! Posts, replies, edits, removals and reactions are made by a person's account: an application may not make them
//! (reference 0.1). A post or reply is made once and its outcome may stay unknown; everything else sets a state and may be
//! repeated. What tells a post apart is the reference in its text, see [`marker`].

use http::Method;
use model::Precedence;
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
