//! The few calls of the Mattermost API with which a user of a site is played.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::{Method, Request};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::Error;

/// Where every site listens, each in its own network namespace.
const API: &str = "127.0.0.1:8065";
const METRICS: &str = "127.0.0.1:9465";

/// Longest wait for an answer: an upload of 100 MB is cut and hashed first, on a machine that is busy.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(120);

/// A session of one user.
#[derive(Clone, serde::Serialize, serde::Deserialize)]
pub(crate) struct User {
    pub(crate) id: String,
    pub(crate) token: String,
}

/// A client with its kept connections; one for each runtime.
pub(crate) struct Api {
    client: Client<HttpConnector, Full<Bytes>>,
    /// Host and port.
    at: String,
}

impl Api {
    /// Of the site in this network namespace.
    pub(crate) fn new() -> Self {
        Self::at(API)
    }

    /// Of the site at this host and port.
    pub(crate) fn at(place: &str) -> Self {
        let mut connector = HttpConnector::new();
        // Else a small request may wait for the answer to the one before on its connection.
        connector.set_nodelay(true);
        Self { client: Client::builder(TokioExecutor::new()).build(connector), at: place.to_owned() }
    }

    /// Is the site ready?
    pub(crate) async fn answers(&self) -> bool {
        self.exchange(None, Method::GET, "/system/ping", "application/json", Bytes::new()).await.is_ok()
    }

    pub(crate) async fn sign_in(&self, name: &str, password: &str) -> Result<User, Error> {
        let body = json!({"login_id": name, "password": password}).to_string();
        let (token, body) = self.exchange(None, Method::POST, "/users/login", "application/json", body.into()).await?;
        let user: Value = serde_json::from_slice(&body)?;
        Ok(User { id: text(&user, "id"), token: token.ok_or("the login answer has no token")? })
    }

    /// Sends JSON and returns the `id` of the answer, empty where it has none.
    pub(crate) async fn post(&self, user: &User, path: &str, body: Value) -> Result<String, Error> {
        let body = body.to_string().into();
        let (_, answer) = self.exchange(Some(user), Method::POST, path, "application/json", body).await?;
        Ok(text(&serde_json::from_slice(&answer)?, "id"))
    }

    /// The bytes of a file; an error until all of them have arrived here.
    pub(crate) async fn download(&self, user: &User, file: &str) -> Result<Bytes, Error> {
        let path = format!("/files/{file}");
        Ok(self.exchange(Some(user), Method::GET, &path, "application/json", Bytes::new()).await?.1)
    }

    /// Does the object exist here?
    pub(crate) async fn has(&self, user: &User, path: &str) -> bool {
        self.exchange(Some(user), Method::GET, path, "application/json", Bytes::new()).await.is_ok()
    }

    /// Uploads a file and posts it; returns the file's id.
    pub(crate) async fn share(&self, user: &User, channel: &str, name: &str, content: &[u8]) -> Result<String, Error> {
        const BOUNDARY: &str = "holdfast-bench-3c1f9a7e5b2d";
        let mut body = format!(
            "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"channel_id\"\r\n\r\n{channel}\r\n\
             --{BOUNDARY}\r\nContent-Disposition: form-data; name=\"files\"; filename=\"{name}\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n"
        )
        .into_bytes();
        body.extend_from_slice(content);
        body.extend_from_slice(format!("\r\n--{BOUNDARY}--\r\n").as_bytes());
        let kind = format!("multipart/form-data; boundary={BOUNDARY}");
        let (_, answer) = self.exchange(Some(user), Method::POST, "/files", &kind, body.into()).await?;
        let answer: Value = serde_json::from_slice(&answer)?;
        let file = text(&answer["file_infos"][0], "id");
        let post = json!({"channel_id": channel, "message": name, "file_ids": [file]});
        self.post(user, "/posts", post).await?;
        Ok(file)
    }

    /// The sum of a metric over its labels; 0 while it has no value.
    pub(crate) async fn metric(&self, name: &str) -> Result<f64, Error> {
        let request = Request::get(format!("http://{METRICS}/metrics")).body(Full::default())?;
        let body = self.client.request(request).await?.into_body().collect().await?.to_bytes();
        let text = String::from_utf8_lossy(&body);
        let values = text
            .lines()
            .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{') || rest.starts_with(' ')));
        Ok(values.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
    }

    /// Sends JSON, or nothing, and returns the answer.
    pub(crate) async fn call(
        &self,
        user: &User,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Bytes, Error> {
        let body = body.map(Value::to_string).unwrap_or_default().into();
        Ok(self.exchange(Some(user), method, path, "application/json", body).await?.1)
    }

    async fn exchange(
        &self,
        user: Option<&User>,
        method: Method,
        path: &str,
        kind: &str,
        body: Bytes,
    ) -> Result<(Option<String>, Bytes), Error> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("http://{}/api/v4{path}", self.at))
            .header("content-type", kind);
        if let Some(user) = user {
            request = request.header("authorization", format!("Bearer {}", user.token));
        }
        let request = request.body(Full::new(body))?;
        let call = async {
            let (head, body) = self.client.request(request).await?.into_parts();
            let bytes = body.collect().await?.to_bytes();
            match head.status.is_success() {
                true => Ok((head.headers.get("token").and_then(|t| t.to_str().ok()).map(str::to_owned), bytes)),
                false => Err(format!("{path}: {} {}", head.status, String::from_utf8_lossy(&bytes)).into()),
            }
        };
        match tokio::time::timeout(ANSWER_TIME_MAX, call).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("{path}: no answer within {} s", ANSWER_TIME_MAX.as_secs()).into()),
        }
    }
}

/// Follows the WebSocket of a user and calls `on_post` with the id of each post that is shown.
///
/// # Errors
/// When the socket cannot be opened or breaks.
pub(crate) async fn follow(user: &User, opened: impl FnOnce(), mut on_post: impl FnMut(String)) -> Result<(), Error> {
    let (mut socket, _) = tokio_tungstenite::connect_async(format!("ws://{API}/api/v4/websocket")).await?;
    let challenge = json!({"seq": 1, "action": "authentication_challenge", "data": {"token": user.token}});
    socket.send(Message::text(challenge.to_string())).await?;
    let mut opened = Some(opened);
    while let Some(message) = socket.next().await {
        let Message::Text(frame) = message? else { continue };
        let event: Value = serde_json::from_str(&frame)?;
        if event["event"] == "hello"
            && let Some(opened) = opened.take()
        {
            opened();
        }
        if event["event"] != "posted" {
            continue;
        }
        // In an event the post stands as a JSON text inside the JSON.
        let post: Value = serde_json::from_str(event["data"]["post"].as_str().unwrap_or("{}"))?;
        on_post(text(&post, "id"));
    }
    Err("the WebSocket was closed".into())
}

fn text(object: &Value, field: &str) -> String {
    object[field].as_str().unwrap_or_default().to_owned()
}
