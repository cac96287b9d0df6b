//! A Mattermost user as the tests see one: a base URL, a token, and the few calls that the tests make.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Method, Request};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

/// Longest wait for one answer: a post is durable before it is answered, a 100 MB upload is hashed first.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(120);

/// Why a call gave no useful answer.
#[derive(Debug)]
pub(crate) enum CallError {
    /// The server answered with an error; the client may rely on it.
    Refused { status: u16, id: String, text: String },
    /// No answer: nobody knows whether the call took effect.
    Lost(String),
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { status, id, text } => write!(f, "refused with {status} {id}: {text}"),
            Self::Lost(why) => write!(f, "no answer: {why}"),
        }
    }
}

/// A session of one user at one node.
#[derive(Clone)]
pub(crate) struct User {
    base: SocketAddr,
    token: String,
    client: Client<HttpConnector, Full<Bytes>>,
    /// The user's id.
    pub(crate) id: String,
}

impl User {
    /// Nobody yet: calls without a token.
    pub(crate) fn anonymous(base: SocketAddr) -> Self {
        let client = Client::builder(TokioExecutor::new()).build(HttpConnector::new());
        Self { base, token: String::new(), client, id: String::new() }
    }

    /// Signs in with a password.
    pub(crate) async fn sign_in(base: SocketAddr, name: &str, password: &str) -> Result<Self, CallError> {
        let mut user = Self::anonymous(base);
        let body = json!({"login_id": name, "password": password}).to_string();
        let (token, body) = user.exchange(Method::POST, "/users/login", "application/json", body.into()).await?;
        user.token = token.ok_or_else(|| CallError::Lost("the login answer has no Token header".to_owned()))?;
        let profile: Value = serde_json::from_slice(&body).map_err(|e| CallError::Lost(e.to_string()))?;
        user.id = text(&profile, "id");
        Ok(user)
    }

    /// The same session at another address: a node that was restarted may listen elsewhere.
    pub(crate) fn at(&self, base: SocketAddr) -> Self {
        Self { base, ..self.clone() }
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Value, CallError> {
        self.json(Method::GET, path, None).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Result<Value, CallError> {
        self.json(Method::POST, path, Some(body)).await
    }

    pub(crate) async fn put(&self, path: &str, body: Value) -> Result<Value, CallError> {
        self.json(Method::PUT, path, Some(body)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Result<Value, CallError> {
        self.json(Method::DELETE, path, None).await
    }

    /// The bytes of a file.
    pub(crate) async fn download(&self, file: &str) -> Result<Bytes, CallError> {
        let (_, bytes) =
            self.exchange(Method::GET, &format!("/files/{file}"), "application/json", Bytes::new()).await?;
        Ok(bytes)
    }

    /// Uploads a file as the official clients do (multipart) and returns its id.
    pub(crate) async fn upload(&self, channel: &str, name: &str, content: &[u8]) -> Result<String, CallError> {
        const BOUNDARY: &str = "holdfast-system-test-boundary-7f3a";
        let mut body = Vec::with_capacity(content.len() + 1024);
        body.extend_from_slice(
            format!(
                "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"channel_id\"\r\n\r\n{channel}\r\n\
                 --{BOUNDARY}\r\nContent-Disposition: form-data; name=\"files\"; filename=\"{name}\"\r\n\
                 Content-Type: application/octet-stream\r\n\r\n"
            )
            .as_bytes(),
        );
        body.extend_from_slice(content);
        body.extend_from_slice(format!("\r\n--{BOUNDARY}--\r\n").as_bytes());
        let kind = format!("multipart/form-data; boundary={BOUNDARY}");
        let (_, answer) = self.exchange(Method::POST, "/files", &kind, body.into()).await?;
        let answer: Value = serde_json::from_slice(&answer).map_err(|e| CallError::Lost(e.to_string()))?;
        Ok(text(&answer["file_infos"][0], "id"))
    }

    /// Opens a WebSocket and signs in on it.
    pub(crate) async fn listen(&self) -> Listener {
        let url = format!("ws://{}/api/v4/websocket", self.base);
        let (mut socket, _) = tokio_tungstenite::connect_async(url).await.expect("the WebSocket opens");
        let challenge = json!({"seq": 1, "action": "authentication_challenge", "data": {"token": self.token}});
        socket.send(Message::text(challenge.to_string())).await.expect("the challenge is sent");
        let mut listener = Listener { socket };
        listener.until("hello", |e| e["event"] == "hello").await;
        listener
    }

    async fn json(&self, method: Method, path: &str, body: Option<Value>) -> Result<Value, CallError> {
        let body = body.map(|b| b.to_string()).unwrap_or_default();
        let (_, bytes) = self.exchange(method, path, "application/json", body.into()).await?;
        serde_json::from_slice(&bytes).map_err(|e| CallError::Lost(format!("{path}: not JSON: {e}")))
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        kind: &str,
        body: Bytes,
    ) -> Result<(Option<String>, Bytes), CallError> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("http://{}/api/v4{path}", self.base))
            .header("content-type", kind);
        if !self.token.is_empty() {
            request = request.header("authorization", format!("Bearer {}", self.token));
        }
        let request = request.body(Full::new(body)).expect("a well-formed request");
        let call = async {
            let answer = self.client.request(request).await.map_err(|e| CallError::Lost(format!("{path}: {e:?}")))?;
            let (head, body) = answer.into_parts();
            let bytes = body.collect().await.map_err(|e| CallError::Lost(format!("{path}: {e}")))?.to_bytes();
            if head.status.is_success() {
                let token = head.headers.get("token").and_then(|t| t.to_str().ok()).map(str::to_owned);
                return Ok((token, bytes));
            }
            let error: Value = serde_json::from_slice(&bytes).unwrap_or_default();
            Err(CallError::Refused {
                status: head.status.as_u16(),
                id: text(&error, "id"),
                text: format!("{path}: {}", String::from_utf8_lossy(&bytes)),
            })
        };
        tokio::time::timeout(ANSWER_TIME_MAX, call)
            .await
            .unwrap_or_else(|_| Err(CallError::Lost(format!("{path}: nothing within {ANSWER_TIME_MAX:?}"))))
    }
}

/// The events that one signed-in client sees.
pub(crate) struct Listener {
    socket: WebSocketStream<MaybeTlsStream<tokio::net::TcpStream>>,
}

impl Listener {
    /// Reads events until one fits; everything read on the way is passed over.
    pub(crate) async fn until(&mut self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let search = async {
            loop {
                let message = self.socket.next().await.expect("the server keeps the socket open").expect("a frame");
                if let Message::Text(text) = message {
                    let event: Value = serde_json::from_str(&text).expect("events are JSON");
                    if fits(&event) {
                        return event;
                    }
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(60), search).await.unwrap_or_else(|_| panic!("never saw {what}"))
    }

    /// Waits until the server ends the socket; everything read on the way is passed over.
    pub(crate) async fn ends(&mut self, within: Duration) {
        let end = async { while let Some(Ok(_)) = self.socket.next().await {} };
        tokio::time::timeout(within, end).await.unwrap_or_else(|_| panic!("the socket is open after {within:?}"));
    }

    /// The next `posted` event's post.
    pub(crate) async fn next_post(&mut self) -> Value {
        let event = self.until("a post", |e| e["event"] == "posted").await;
        let post = event["data"]["post"].as_str().expect("a post travels as JSON text");
        serde_json::from_str(post).expect("the post is JSON")
    }
}

/// A string field, empty when it is missing.
pub(crate) fn text(object: &Value, field: &str) -> String {
    object[field].as_str().unwrap_or_default().to_owned()
}

/// Body of a plain GET that must succeed.
pub(crate) async fn plain(base: SocketAddr, path: &str) -> String {
    let (status, body) = plain_answer(base, path).await;
    assert!((200..300).contains(&status), "{path}: {status}");
    body
}

/// Status and body of a plain GET.
pub(crate) async fn plain_answer(base: SocketAddr, path: &str) -> (u16, String) {
    let client: Client<HttpConnector, Full<Bytes>> = Client::builder(TokioExecutor::new()).build(HttpConnector::new());
    let uri = format!("http://{base}{path}").parse().expect("a well-formed address");
    let answer = client.get(uri).await.unwrap_or_else(|e| panic!("{path}: {e}"));
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.expect("the whole body").to_bytes();
    (status, String::from_utf8(body.to_vec()).expect("text"))
}
