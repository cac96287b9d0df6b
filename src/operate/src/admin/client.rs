//! The CLI's end of the admin socket.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::header;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::{Refusal, SOCKET};
use crate::exit::{Exit, Failure};

/// The status of a hub with ten thousand peers has some 10 MB.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// Joining waits for the other side over a thin link; everything else answers at once.
const ANSWER_WITHIN: Duration = Duration::from_secs(180);

/// Asks the running node.
///
/// # Errors
/// When it does not run, or refuses.
pub async fn get<T: DeserializeOwned>(data: &Path, path: &str) -> Result<T, Failure> {
    request(data, "GET", path, Bytes::new()).await
}

/// Tells the running node to do something.
///
/// # Errors
/// As for [`get`].
pub async fn post<T: DeserializeOwned>(data: &Path, path: &str, body: &impl Serialize) -> Result<T, Failure> {
    let body = serde_json::to_vec(body).expect("request types have string keys only and cannot fail");
    request(data, "POST", path, body.into()).await
}

/// The failure of asking a node that does not run.
pub fn not_running(data: &Path) -> Failure {
    Failure::with(
        Exit::NotRunning,
        format!("no node runs in {}; nothing was changed", data.display()),
        "start it with `systemctl start holdfast-edge` (or holdfast-hub), or name another directory with --data",
    )
}

async fn request<T: DeserializeOwned>(data: &Path, method: &str, path: &str, body: Bytes) -> Result<T, Failure> {
    let exchanged = tokio::time::timeout(ANSWER_WITHIN, exchange(data, method, path, body)).await;
    let (status, answer) = exchanged.map_err(|_| lost("no answer in time"))??;
    if status.is_success() {
        return serde_json::from_slice(&answer).map_err(|e| lost(&format!("the answer was not understood: {e}")));
    }
    Err(match serde_json::from_slice::<Refusal>(&answer) {
        Ok(refusal) => Failure::new(refusal.error, refusal.next_step),
        Err(_) => lost(&format!("it answered {status}")),
    })
}

fn lost(what: &str) -> Failure {
    Failure::new(
        format!("asking the running node failed: {what}"),
        "see its log; use a `holdfast` of the same version as the running node",
    )
}

async fn exchange(data: &Path, method: &str, path: &str, body: Bytes) -> Result<(http::StatusCode, Bytes), Failure> {
    let socket = data.join(SOCKET);
    let stream = UnixStream::connect(&socket).await.map_err(|e| {
        // A socket that nobody listens at is what a killed node leaves behind.
        let nobody = [std::io::ErrorKind::NotFound, std::io::ErrorKind::ConnectionRefused];
        if nobody.contains(&e.kind()) { not_running(data) } else { Failure::io("opening", &socket, &e) }
    })?;
    let broken = |e: &dyn std::error::Error| lost(&crate::exit::chain(e));
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| broken(&e))?;
    let request = http::Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "holdfast")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(body))
        .expect("method and path are literals");
    let answered = async {
        let response = sender.send_request(request).await.map_err(|e| broken(&e))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        Ok((status, body.map_err(|e| lost(&e.to_string()))?.to_bytes()))
    };
    tokio::pin!(answered);
    tokio::pin!(connection);
    // The connection makes progress only while it is polled; it ends with the exchange.
    tokio::select! {
        answer = &mut answered => answer,
        _ = &mut connection => answered.await,
    }
}
