//! The part of a request's body that its handler did not want.
//!
//! Who is refused before the body was read is still sending it. Were the connection closed over that, the client would
//! report a broken pipe in place of the reason: so the rest is read first, within bounds, as the original's server does.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use http::header;
use http_body_util::BodyExt as _;
use hyper::body::{Frame, SizeHint};

use crate::core::lock;

/// Most bytes that are read for nothing; beyond them the connection is closed over the client (the number of Go's server).
const REST_MAX: usize = 256 * 1024;
/// Longest wait for them.
const WAIT_MAX: Duration = Duration::from_secs(2);

/// Hands the request on, and reads what is left of its body before the answer goes out.
pub(super) async fn read_on(request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    // Whoever waits to be asked for the body sends none unless it is read.
    if body.is_end_stream() || parts.headers.contains_key(header::EXPECT) {
        return next.run(Request::from_parts(parts, body)).await;
    }
    let body = Lent(Arc::new(Mutex::new(body)));
    let response = next.run(Request::from_parts(parts, Body::new(body.clone()))).await;
    let _ = tokio::time::timeout(WAIT_MAX, body.read_rest()).await;
    response
}

/// A body that can still be read when its reader is gone.
#[derive(Clone)]
struct Lent(Arc<Mutex<Body>>);

impl Lent {
    async fn read_rest(mut self) {
        let mut left = REST_MAX;
        while let Some(Ok(frame)) = self.frame().await {
            let Some(now) = left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) else { break };
            left = now;
        }
    }
}

impl HttpBody for Lent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Pin::new(&mut *lock(&self.0)).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        lock(&self.0).is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        lock(&self.0).size_hint()
    }
}
