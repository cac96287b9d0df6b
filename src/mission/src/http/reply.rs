//! Answers: what a handler returns, and the headers that every answer carries.

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use serde::Serialize;
use serde_json::{Value, json};

use super::{mirror, token};
use crate::error::{AppError, AppResult};

/// What a handler answers.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) body: Content,
}

/// The body of an answer.
#[derive(Debug)]
pub(crate) enum Content {
    Bytes(Bytes),
    /// `len` bytes of an open file from where it stands.
    File {
        file: std::fs::File,
        len: u64,
    },
}

impl Reply {
    /// 200 with JSON.
    pub(crate) fn json<T: Serialize + ?Sized>(value: &T) -> AppResult<Self> {
        let body = serde_json::to_vec(value)
            .map_err(|e| AppError::new("http", "api.marshal_error", "Failed to marshal.", 500).detail(e))?;
        Ok(Self {
            status: StatusCode::OK,
            headers: vec![(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))],
            body: Content::Bytes(body.into()),
        })
    }

    /// One JSON value a line, as the original streams long lists.
    pub(crate) fn json_lines<T: Serialize>(values: &[T]) -> AppResult<Self> {
        let lines: Result<Vec<String>, _> = values.iter().map(serde_json::to_string).collect();
        let lines =
            lines.map_err(|e| AppError::new("http", "api.marshal_error", "Failed to marshal.", 500).detail(e))?;
        let body = lines.into_iter().map(|line| line + "\n").collect::<String>();
        Ok(Self {
            status: StatusCode::OK,
            headers: vec![(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"))],
            body: Content::Bytes(body.into()),
        })
    }

    /// 201 with JSON.
    pub(crate) fn created<T: Serialize + ?Sized>(value: &T) -> AppResult<Self> {
        Ok(Self { status: StatusCode::CREATED, ..Self::json(value)? })
    }

    /// What the API answers when there is nothing to say.
    pub(crate) fn ok() -> AppResult<Self> {
        Self::json(&json!({ "status": "OK" }))
    }

    /// Bytes of a known type.
    pub(crate) fn bytes(content_type: &'static str, body: Vec<u8>) -> Self {
        Self {
            status: StatusCode::OK,
            headers: vec![(header::CONTENT_TYPE, HeaderValue::from_static(content_type))],
            body: Content::Bytes(body.into()),
        }
    }

    /// Adds a header; text that no header can hold is left out.
    #[must_use]
    pub(crate) fn with(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.push((name, value));
        }
        self
    }

    /// Adds the ETag made of `parts`, without quotes as the original writes it; the dispatcher
    /// turns the answer into 304 where the client has the same.
    #[must_use]
    pub(crate) fn etag(self, parts: &[&dyn std::fmt::Display]) -> Self {
        let tag = etag(parts);
        self.with(header::ETAG, &tag)
    }

    fn into_response(self, request: &HeaderMap) -> Response {
        let mut response = Response::new(Body::empty());
        let tag = self.headers.iter().find(|(name, _)| *name == header::ETAG).map(|(_, v)| v);
        if self.status == StatusCode::OK && tag.is_some() && tag == request.get(header::IF_NONE_MATCH) {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            response.headers_mut().extend(tag.map(|tag| (header::ETAG, tag.clone())));
            return response;
        }
        *response.status_mut() = self.status;
        for (name, value) in self.headers {
            response.headers_mut().append(name, value);
        }
        *response.body_mut() = match self.body {
            Content::Bytes(bytes) => Body::from(bytes),
            Content::File { file, len } => {
                use tokio::io::AsyncReadExt as _;
                let bytes = tokio::fs::File::from_std(file).take(len);
                response.headers_mut().insert(header::CONTENT_LENGTH, len.into());
                Body::from_stream(tokio_util::io::ReaderStream::with_capacity(bytes, FILE_CHUNK))
            }
        };
        response
    }
}

/// Bytes read from disk at a time when a file is sent.
const FILE_CHUNK: usize = 64 * 1024;

/// `11.6.0.<part>.<part>...`
pub(crate) fn etag(parts: &[&dyn std::fmt::Display]) -> String {
    parts.iter().fold(super::VERSION.to_owned(), |tag, part| format!("{tag}.{part}"))
}

/// An AppError as clients expect it. Details stay in the log.
pub(crate) fn error_json(error: &AppError, request_id: &str) -> Value {
    json!({
        "id": error.id,
        "message": error.message,
        "detailed_error": "",
        "request_id": request_id,
        "status_code": error.status_code,
    })
}

/// Turns what a handler returned into the answer on the wire.
pub(crate) fn respond(outcome: AppResult<Reply>, asked: &Asked<'_>) -> Response {
    let mut response = match outcome {
        Ok(reply) => reply.into_response(asked.headers),
        Err(error) => refuse(&error, asked),
    };
    let headers = response.headers_mut();
    headers.insert(HeaderName::from_static("x-request-id"), text(asked.request_id));
    headers.insert(HeaderName::from_static("x-version-id"), text(asked.version_id));
    headers.insert(HeaderName::from_static("permissions-policy"), HeaderValue::from_static(""));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    if let Some(as_of) = &asked.as_of {
        headers.insert(HeaderName::from_static(mirror::HEADER), as_of.clone());
    }
    if asked.method == Method::GET {
        headers.insert(header::EXPIRES, HeaderValue::from_static("0"));
    }
    response
}

/// What the answer depends on besides the outcome.
pub(crate) struct Asked<'a> {
    pub(crate) method: &'a Method,
    pub(crate) path: &'a str,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) request_id: &'a str,
    pub(crate) version_id: &'a str,
    /// How old what is shown of other sites may be; `None` where none is.
    pub(crate) as_of: Option<HeaderValue>,
}

fn refuse(error: &AppError, asked: &Asked<'_>) -> Response {
    // 507 is the answer to every request while room is scarce, which is told elsewhere.
    if error.status_code >= 500 && ![501, 507].contains(&error.status_code) {
        tracing::error!(request_id = asked.request_id, path = asked.path, %error, "request failed");
    } else {
        tracing::debug!(request_id = asked.request_id, path = asked.path, %error, "request refused");
    }
    let mut response = Response::new(Body::from(error_json(error, asked.request_id).to_string()));
    *response.status_mut() = StatusCode::from_u16(error.status_code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let dead_cookie = error.status_code == 401 && token::cookie(asked.headers, token::COOKIE_TOKEN).is_some();
    if dead_cookie {
        response.headers_mut().extend(token::forget_token(asked.headers).map(|cookie| (header::SET_COOKIE, cookie)));
    }
    response
}

fn text(value: &str) -> HeaderValue {
    HeaderValue::from_str(value).unwrap_or(HeaderValue::from_static(""))
}
