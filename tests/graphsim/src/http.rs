//! Requests and answers as the simulated services see them.

use bytes::Bytes;
use http::{HeaderMap, Method};
use serde_json::Value;

/// A request with its whole body.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: Method,
    /// As it was sent, percent-encoded.
    pub(crate) path: String,
    /// Decoded, in order.
    pub(crate) query: Vec<(String, String)>,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Request {
    pub(crate) fn new(method: Method, uri: &str, headers: HeaderMap, body: Bytes) -> Self {
        let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
        Self { method, path: path.to_owned(), query: form(query.as_bytes()), headers, body }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|v| v.to_str().ok())
    }

    pub(crate) fn query(&self, name: &str) -> Option<&str> {
        value(&self.query, name)
    }

    /// The media type of the body without its parameters, lower case.
    pub(crate) fn media(&self) -> String {
        self.header("content-type").unwrap_or("").split(';').next().unwrap_or("").trim().to_ascii_lowercase()
    }
}

/// Pairs of a query or of a form.
pub(crate) fn form(text: &[u8]) -> Vec<(String, String)> {
    url::form_urlencoded::parse(text).into_owned().collect()
}

/// The first value of that name.
pub(crate) fn value<'a>(pairs: &'a [(String, String)], name: &str) -> Option<&'a str> {
    pairs.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
}

/// An answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Body,
}

#[derive(Clone, Debug)]
pub(crate) enum Body {
    Empty,
    Json(Value),
    Bytes(String, Bytes),
}

impl Answer {
    pub(crate) fn json(status: u16, value: Value) -> Self {
        Self { status, headers: Vec::new(), body: Body::Json(value) }
    }

    pub(crate) fn empty(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Body::Empty }
    }

    pub(crate) fn html(status: u16, text: &str) -> Self {
        Self::bytes(status, "text/html; charset=utf-8", Bytes::from(text.to_owned()))
    }

    pub(crate) fn bytes(status: u16, media: &str, bytes: Bytes) -> Self {
        Self { status, headers: Vec::new(), body: Body::Bytes(media.to_owned(), bytes) }
    }

    pub(crate) fn redirect(to: &str) -> Self {
        Self::empty(302).with("location", to)
    }

    pub(crate) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// Media type and bytes of the body.
    pub(crate) fn rendered(&self) -> (Option<&str>, Bytes) {
        match &self.body {
            Body::Empty => (None, Bytes::new()),
            Body::Json(value) => (Some("application/json; charset=utf-8"), Bytes::from(value.to_string())),
            Body::Bytes(media, bytes) => (Some(media), bytes.clone()),
        }
    }
}

/// Text in HTML.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A segment of a path or a value of a query, decoded.
pub(crate) fn decode(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
}
