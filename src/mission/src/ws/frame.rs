//! Frames as text: events with a number per connection, replies with the number of the request.

use std::fmt::Write as _;
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::error::AppError;

/// Something to write to a socket. Cheap to clone into many queues: an event's text exists once.
#[derive(Clone, Debug)]
pub(crate) enum Frame {
    Event { text: Arc<EventText>, extra: Option<Box<str>> },
    Reply(Box<str>),
}

/// An event serialised once for all connections, open at its end for what differs between them.
#[derive(Debug)]
pub(crate) struct EventText {
    /// `{"event":"posted","broadcast":{...},"data":{"post":"..."` without the closing braces.
    head: String,
    data_is_empty: bool,
}

impl EventText {
    /// Serialises an event.
    pub(crate) fn new(name: &str, data: &Map<String, Value>, broadcast: &Value) -> Self {
        let mut head = String::with_capacity(256);
        let data = Value::Object(data.clone()).to_string();
        let name = Value::from(name);
        write!(head, r#"{{"event":{name},"broadcast":{broadcast},"data":{}"#, &data[..data.len() - 1])
            .expect("writing to a String cannot fail");
        Self { head, data_is_empty: data == "{}" }
    }
}

impl Frame {
    /// An event as it is.
    pub(crate) fn event(text: &Arc<EventText>) -> Self {
        Self::Event { text: Arc::clone(text), extra: None }
    }

    /// An event with data meant for one connection only.
    pub(crate) fn event_with(text: &Arc<EventText>, extra: &Map<String, Value>) -> Self {
        let fields = Value::Object(extra.clone()).to_string();
        let extra = (!extra.is_empty()).then(|| fields[1..fields.len() - 1].into());
        Self::Event { text: Arc::clone(text), extra }
    }

    /// A request was carried out.
    pub(crate) fn ok(request: i64, data: Option<Value>) -> Self {
        let mut reply = serde_json::json!({ "status": "OK", "seq_reply": request });
        if let Some(data) = data {
            reply["data"] = data;
        }
        Self::Reply(reply.to_string().into())
    }

    /// A request failed.
    pub(crate) fn fail(request: i64, error: &AppError) -> Self {
        let reply = serde_json::json!({ "status": "FAIL", "seq_reply": request, "error": crate::http::reply::error_json(error, "") });
        Self::Reply(reply.to_string().into())
    }

    /// Whether it takes a number.
    pub(crate) fn is_event(&self) -> bool {
        match self {
            Self::Event { .. } => true,
            Self::Reply(_) => false,
        }
    }

    /// The text to write.
    pub(crate) fn text(&self, number: Option<u64>) -> String {
        match self {
            Self::Reply(text) => text.to_string(),
            Self::Event { text, extra } => {
                let mut out = String::with_capacity(text.head.len() + 96);
                out.push_str(&text.head);
                if let Some(extra) = extra {
                    if !text.data_is_empty {
                        out.push(',');
                    }
                    out.push_str(extra);
                }
                write!(out, r#"}},"seq":{}}}"#, number.unwrap_or(0)).expect("writing to a String cannot fail");
                out
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::json;

    use super::*;

    pub(crate) fn bare_event(name: &str) -> Arc<EventText> {
        Arc::new(EventText::new(name, &Map::new(), &json!({})))
    }

    #[test]
    fn extra_data_joins_the_shared_text() {
        let data = json!({ "post": "{}" });
        let text = Arc::new(EventText::new("posted", data.as_object().unwrap(), &json!({ "channel_id": "c" })));
        let extra = json!({ "mentions": "[\"me\"]" });
        let frame = Frame::event_with(&text, extra.as_object().unwrap());
        let value: Value = serde_json::from_str(&frame.text(Some(4))).unwrap();
        assert_eq!(
            value,
            json!({ "event": "posted", "seq": 4, "broadcast": { "channel_id": "c" },
                    "data": { "post": "{}", "mentions": "[\"me\"]" } })
        );
        let only_extra = Frame::event_with(&bare_event("x"), extra.as_object().unwrap()).text(Some(0));
        assert_eq!(serde_json::from_str::<Value>(&only_extra).unwrap()["data"], extra);
    }
}
