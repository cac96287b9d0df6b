//! Mail of one mailbox as calls to Graph.
//!
//! `sendMail` answers with nothing and is not idempotent: what tells a letter apart is the `Message-ID` that we choose, by
//! which the mailbox is asked for it (reference 4.3).

use http::{HeaderName, HeaderValue, Method};
use model::Precedence;
use serde_json::json;

use crate::graph::{Acting, Call, CallBody, Retry, Scope};
use crate::names::in_path;

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
    let mut call = call(mailbox, Method::GET, path, CallBody::None, precedence, Retry::Safe);
    let prefer = HeaderValue::from_static("IdType=\"ImmutableId\"");
    call.headers.push((HeaderName::from_static("prefer"), prefer));
    call
}

#[cfg(test)]
mod tests {
    use super::*;

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
