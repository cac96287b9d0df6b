//! Notices in the activity feed of Teams as calls to Graph.
//!
//! The application sends them itself, no user's token is needed. A notice with the same `chainId` replaces the one before,
//! so sending it again is harmless (reference 4.6).

use http::Method;
use model::Precedence;
use serde_json::json;

use crate::graph::{Acting, Call, CallBody, Retry, Scope};
use crate::names::in_path;

/// Characters of a preview that Teams shows.
const PREVIEW_CHARS_MAX: usize = 150;

/// One notice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// What it is about, in a few words.
    pub topic: String,
    /// What is shown below it.
    pub preview: String,
    /// Where a click leads: a deep link of Teams.
    pub link: String,
    /// Equal ones replace each other.
    pub chain: i64,
}

/// Sends a notice to a person's feed, of the reserved kind that every app has.
pub fn notify(user: &str, notice: &Notice, precedence: Precedence) -> Call {
    let preview: String = notice.preview.chars().take(PREVIEW_CHARS_MAX).collect();
    let body = json!({
        "topic": { "source": "text", "value": notice.topic, "webUrl": notice.link },
        "activityType": "systemDefault",
        "previewText": { "content": preview },
        "templateParameters": [{ "name": "systemDefaultText", "value": notice.topic }],
        "chainId": notice.chain,
    });
    Call {
        method: Method::POST,
        path: format!("/users/{}/teamwork/sendActivityNotification", in_path(user)),
        headers: Vec::new(),
        body: CallBody::Json(body),
        acting: Acting::App,
        scope: Scope::Notifications,
        precedence,
        retry: Retry::Safe,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_may_be_repeated_and_its_preview_is_short() {
        let notice = Notice { topic: "t".into(), preview: "x".repeat(400), link: "https://t/l/x".into(), chain: 7 };
        let call = notify("oid", &notice, Precedence::Flash);
        assert_eq!((call.path.as_str(), call.retry), ("/users/oid/teamwork/sendActivityNotification", Retry::Safe));
        let CallBody::Json(body) = call.body else { panic!() };
        assert_eq!(body["previewText"]["content"].as_str().unwrap().len(), PREVIEW_CHARS_MAX);
        assert_eq!(body["chainId"], 7);
    }
}
