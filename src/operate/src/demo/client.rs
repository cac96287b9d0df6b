//! A small typed client of the Mattermost API v4, as the scripted users and the demo page use it.
//!
//! It counts what it carries: bodies exactly, headers as HTTP/1.1 would write the ones present on each side. Traffic
//! of the scripted users and traffic that only observes are counted by different [`Meter`]s.
//!
//! Not here: retries (the API is on the loopback) and any endpoint the demo does not need.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, RANGE};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use model::Sensitive;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

/// Largest answer read: the demo's largest file is 2 MB; 64 MB leaves room for a file that a person attaches.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// An embedded core answers in milliseconds. Two cores that compile beside it may make that seconds.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(60);

/// Prop in which a site tells its own readers how a post came here.
const LOCAL_PROP: &str = "holdfast";

/// Bytes carried by an API. Cloning shares the count.
#[derive(Clone, Debug, Default)]
pub(super) struct Meter(Arc<AtomicU64>);

impl Meter {
    /// Bytes so far, both ways.
    pub(super) fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn add(&self, bytes: usize) {
        self.0.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// A call that did not give what was asked for.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum ApiError {
    /// No answer.
    #[error("{call}: no answer from the API: {reason}")]
    Unreachable { call: String, reason: String },
    /// An AppError.
    #[error("{call}: the API answered {status}: {id} {message}")]
    Refused { call: String, status: StatusCode, id: String, message: String },
    /// An answer of another shape.
    #[error("{call}: the API's answer cannot be read: {reason}")]
    Unreadable { call: String, reason: String },
}

impl ApiError {
    /// The status of a refusal.
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            Self::Unreachable { .. } | Self::Unreadable { .. } => None,
        }
    }
}

/// One site's API without a session.
#[derive(Clone)]
pub(super) struct Api {
    address: SocketAddr,
    http: Client<HttpConnector, Full<Bytes>>,
    meter: Meter,
}

/// A signed-in user at one site.
#[derive(Clone)]
pub(super) struct Session {
    api: Api,
    token: Sensitive<String>,
    /// Who is signed in.
    pub(super) user: User,
}

/// A user as the API shows one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "Mattermost field names")]
pub(super) struct User {
    pub(super) id: String,
    pub(super) username: String,
    #[serde(default)]
    pub(super) nickname: String,
    #[serde(default)]
    pub(super) first_name: String,
    #[serde(default)]
    pub(super) last_name: String,
    #[serde(default)]
    pub(super) position: String,
    pub(super) create_at: i64,
    pub(super) update_at: i64,
    #[serde(default)]
    pub(super) delete_at: i64,
    #[serde(default)]
    pub(super) is_bot: bool,
}

impl User {
    /// Given and family name, or the username where there is none.
    pub(super) fn full_name(&self) -> String {
        let name = format!("{} {}", self.first_name, self.last_name);
        if name.trim().is_empty() { self.username.clone() } else { name.trim().to_owned() }
    }
}

/// A team as the API shows one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "Mattermost field names")]
pub(super) struct Team {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) display_name: String,
    pub(super) create_at: i64,
    pub(super) update_at: i64,
    #[serde(default)]
    pub(super) delete_at: i64,
}

/// A channel as the API shows one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "Mattermost field names")]
pub(super) struct Channel {
    pub(super) id: String,
    #[serde(default)]
    pub(super) team_id: String,
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) name: String,
    pub(super) display_name: String,
    #[serde(default)]
    pub(super) header: String,
    #[serde(default)]
    pub(super) purpose: String,
    #[serde(default)]
    pub(super) creator_id: String,
    pub(super) create_at: i64,
    pub(super) update_at: i64,
    #[serde(default)]
    pub(super) delete_at: i64,
}

/// A membership, of a team or of a channel.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[allow(missing_docs, reason = "Mattermost field names")]
pub(super) struct Member {
    pub(super) user_id: String,
    #[serde(default)]
    pub(super) delete_at: i64,
}

/// A post as the API shows one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "Mattermost field names")]
pub(super) struct Post {
    pub(super) id: String,
    pub(super) channel_id: String,
    pub(super) user_id: String,
    #[serde(default)]
    pub(super) root_id: String,
    /// Set on rows of the edit history.
    #[serde(default)]
    pub(super) original_id: String,
    #[serde(rename = "type", default)]
    pub(super) kind: String,
    pub(super) message: String,
    pub(super) create_at: i64,
    pub(super) update_at: i64,
    #[serde(default)]
    pub(super) edit_at: i64,
    #[serde(default)]
    pub(super) delete_at: i64,
    #[serde(default)]
    pub(super) is_pinned: bool,
    #[serde(default)]
    pub(super) props: Value,
    #[serde(default)]
    pub(super) file_ids: Option<Vec<String>>,
    #[serde(default)]
    pub(super) metadata: Metadata,
}

impl Post {
    /// Did it arrive from the other side long after it was written? The core says so in a prop of its own.
    pub(super) fn is_late(&self) -> bool {
        self.props[LOCAL_PROP]["late"] == true
    }

    /// The props that replicate: without what the site adds for its own readers.
    pub(super) fn shared_props(&self) -> Value {
        let mut props = self.props.clone();
        if let Some(map) = props.as_object_mut() {
            map.remove(LOCAL_PROP);
        }
        props
    }
}

/// What hangs on a post.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "Mattermost field names")]
pub(super) struct Metadata {
    #[serde(default)]
    pub(super) reactions: Option<Vec<Reaction>>,
    #[serde(default)]
    pub(super) files: Option<Vec<FileInfo>>,
    #[serde(default)]
    pub(super) priority: Option<Value>,
}

/// A reaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "Mattermost field names")]
pub(super) struct Reaction {
    pub(super) user_id: String,
    pub(super) post_id: String,
    pub(super) emoji_name: String,
    pub(super) create_at: i64,
}

/// What is known of a file before its bytes are read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "Mattermost field names")]
pub(super) struct FileInfo {
    pub(super) id: String,
    #[serde(default)]
    pub(super) post_id: String,
    pub(super) name: String,
    pub(super) size: u64,
    #[serde(default)]
    pub(super) mime_type: String,
}

/// Posts in the API's order (newest first) with their bodies.
#[derive(Clone, Debug, Default, Deserialize)]
#[allow(missing_docs, reason = "Mattermost field names")]
pub(super) struct PostList {
    pub(super) order: Vec<String>,
    pub(super) posts: std::collections::BTreeMap<String, Post>,
}

/// What a new post says besides its text.
#[derive(Clone, Debug, Default)]
pub(super) struct NewPost<'a> {
    /// Where.
    pub(super) channel_id: &'a str,
    /// What.
    pub(super) message: &'a str,
    /// The thread it answers in.
    pub(super) root_id: Option<&'a str>,
    /// "urgent" or "important".
    pub(super) priority: Option<&'a str>,
    /// Uploaded files.
    pub(super) file_ids: &'a [String],
}

/// An event of the WebSocket, with what the demo reads of it.
#[derive(Clone, Debug)]
pub(super) struct LiveEvent {
    /// "posted", "post_edited", "reaction_added" ...
    pub(super) event: String,
    /// The channel it is about; empty when about none.
    pub(super) channel_id: String,
    /// The post in it, where there is one.
    pub(super) post: Option<Box<Post>>,
}

/// Headers that differ from call to call.
#[derive(Clone, Copy, Default)]
struct Head<'a> {
    token: Option<&'a Sensitive<String>>,
    /// JSON where it is `None`.
    content_type: Option<&'a str>,
    range: Option<&'a str>,
}

impl Api {
    /// The API at `address`; what it carries is added to `meter`.
    pub(super) fn new(address: SocketAddr, meter: Meter) -> Self {
        Self { address, http: Client::builder(TokioExecutor::new()).build(HttpConnector::new()), meter }
    }

    /// Creates the first account of a site, which becomes its administrator.
    ///
    /// # Errors
    /// When the API refuses or does not answer.
    pub(super) async fn create_first_user(&self, person: &Value) -> Result<User, ApiError> {
        self.call(None, Method::POST, "/users", Some(person)).await
    }

    /// Signs in.
    ///
    /// # Errors
    /// When the API refuses or does not answer.
    pub(super) async fn login(&self, username: &str, password: &str) -> Result<Session, ApiError> {
        let body = json!({"login_id": username, "password": password}).to_string();
        let (headers, answer) = self.exchange(Head::default(), Method::POST, "/users/login", Bytes::from(body)).await?;
        let token = headers.get("token").and_then(|token| token.to_str().ok()).ok_or_else(|| ApiError::Unreadable {
            call: "POST /users/login".to_owned(),
            reason: "no Token header".to_owned(),
        })?;
        let user = read("POST /users/login", &answer)?;
        Ok(Session { api: self.clone(), token: Sensitive(token.to_owned()), user })
    }

    async fn call<T: DeserializeOwned>(
        &self,
        token: Option<&Sensitive<String>>,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<T, ApiError> {
        let call = format!("{method} {path}");
        let body = body.map_or_else(Bytes::new, |body| Bytes::from(body.to_string()));
        let (_, answer) = self.exchange(Head { token, ..Head::default() }, method, path, body).await?;
        read(&call, &answer)
    }

    async fn exchange(
        &self,
        with: Head<'_>,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<(HeaderMap, Bytes), ApiError> {
        let call = format!("{method} {path}");
        let unreachable = |reason: String| ApiError::Unreachable { call: call.clone(), reason };
        let mut request = Request::builder()
            .method(method)
            .uri(format!("http://{}/api/v4{path}", self.address))
            .header(HOST, self.address.to_string());
        if let Some(Sensitive(token)) = with.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, with.content_type.unwrap_or("application/json"));
        }
        if let Some(range) = with.range {
            request = request.header(RANGE, range);
        }
        let sent_bytes = body.len();
        let request = request.body(Full::new(body)).map_err(|e| unreachable(e.to_string()))?;
        self.meter.add(sent_bytes + head_bytes(request.headers()) + path.len() + "POST /api/v4 HTTP/1.1\r\n".len());

        let exchange = async {
            let response = self.http.request(request).await.map_err(|e| unreachable(e.to_string()))?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(|e| unreachable(e.to_string()))?;
            Ok(Response::from_parts(head, body.to_bytes()))
        };
        let response = tokio::time::timeout(ANSWER_WAIT_MAX, exchange)
            .await
            .map_err(|_| unreachable(format!("nothing for {} s", ANSWER_WAIT_MAX.as_secs())))??;
        let status = response.status();
        let (head, body) = response.into_parts();
        self.meter.add(body.len() + head_bytes(&head.headers) + "HTTP/1.1 200 OK\r\n".len());
        if status.is_success() {
            return Ok((head.headers, body));
        }
        let error: Value = serde_json::from_slice(&body).unwrap_or_default();
        let text = |key: &str| error[key].as_str().unwrap_or_default().to_owned();
        Err(ApiError::Refused { call, status, id: text("id"), message: text("message") })
    }
}

impl Session {
    /// This session with its traffic counted elsewhere.
    pub(super) fn metered_by(&self, meter: Meter) -> Self {
        Self { api: Api { meter, ..self.api.clone() }, ..self.clone() }
    }

    /// Creates an account as an administrator.
    ///
    /// # Errors
    /// When the API refuses or does not answer.
    pub(super) async fn create_user(&self, person: &Value) -> Result<User, ApiError> {
        self.send(Method::POST, "/users", person).await
    }

    /// Where this session's traffic is counted.
    pub(super) fn meter(&self) -> Meter {
        self.api.meter.clone()
    }

    /// GET of any path below `/api/v4`.
    ///
    /// # Errors
    /// When the API refuses or does not answer.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ApiError> {
        self.api.call(Some(&self.token), Method::GET, path, None).await
    }

    /// Sends JSON to any path below `/api/v4`.
    ///
    /// # Errors
    /// When the API refuses or does not answer.
    pub(super) async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &Value,
    ) -> Result<T, ApiError> {
        self.api.call(Some(&self.token), method, path, Some(body)).await
    }

    /// Creates an open team.
    ///
    /// # Errors
    /// When the API refuses or does not answer, as for every call below.
    pub(super) async fn create_team(&self, name: &str, display_name: &str) -> Result<Team, ApiError> {
        self.send(Method::POST, "/teams", &json!({"name": name, "display_name": display_name, "type": "O"})).await
    }

    /// Adds a user to a team.
    #[allow(missing_docs, reason = "see create_team for the errors")]
    pub(super) async fn add_to_team(&self, team_id: &str, user_id: &str) -> Result<(), ApiError> {
        let body = json!({"team_id": team_id, "user_id": user_id});
        self.send::<Value>(Method::POST, &format!("/teams/{team_id}/members"), &body).await.map(drop)
    }

    /// Creates an open ("O") or private ("P") channel.
    pub(super) async fn create_channel(
        &self,
        team_id: &str,
        name: &str,
        display_name: &str,
        kind: &str,
        purpose: &str,
    ) -> Result<Channel, ApiError> {
        let body = json!({
            "team_id": team_id, "name": name, "display_name": display_name, "type": kind, "purpose": purpose,
        });
        self.send(Method::POST, "/channels", &body).await
    }

    /// Opens the direct channel of two users.
    pub(super) async fn direct(&self, one: &str, other: &str) -> Result<Channel, ApiError> {
        self.send(Method::POST, "/channels/direct", &json!([one, other])).await
    }

    /// Opens the group channel of several users.
    pub(super) async fn group(&self, user_ids: &[&str]) -> Result<Channel, ApiError> {
        self.send(Method::POST, "/channels/group", &json!(user_ids)).await
    }

    /// Adds a user to a channel.
    pub(super) async fn add_to_channel(&self, channel_id: &str, user_id: &str) -> Result<(), ApiError> {
        let path = format!("/channels/{channel_id}/members");
        self.send::<Value>(Method::POST, &path, &json!({"user_id": user_id})).await.map(drop)
    }

    /// Writes a post.
    pub(super) async fn post(&self, new: NewPost<'_>) -> Result<Post, ApiError> {
        let mut body = json!({"channel_id": new.channel_id, "message": new.message});
        if let Some(root_id) = new.root_id {
            body["root_id"] = json!(root_id);
        }
        if let Some(priority) = new.priority {
            body["metadata"] = json!({"priority": {"priority": priority}});
        }
        if !new.file_ids.is_empty() {
            body["file_ids"] = json!(new.file_ids);
        }
        self.send(Method::POST, "/posts", &body).await
    }

    /// Changes the text of a post.
    pub(super) async fn edit(&self, post_id: &str, message: &str) -> Result<Post, ApiError> {
        self.send(Method::PUT, &format!("/posts/{post_id}/patch"), &json!({"message": message})).await
    }

    /// Deletes a post.
    pub(super) async fn delete(&self, post_id: &str) -> Result<(), ApiError> {
        let path = format!("/posts/{post_id}");
        self.api.call::<Value>(Some(&self.token), Method::DELETE, &path, None).await.map(drop)
    }

    /// Pins a post to its channel.
    pub(super) async fn pin(&self, post_id: &str) -> Result<(), ApiError> {
        let path = format!("/posts/{post_id}/pin");
        self.api.call::<Value>(Some(&self.token), Method::POST, &path, None).await.map(drop)
    }

    /// Reacts to a post.
    pub(super) async fn react(&self, post_id: &str, emoji: &str) -> Result<(), ApiError> {
        let body = json!({"user_id": self.user.id, "post_id": post_id, "emoji_name": emoji});
        self.send::<Value>(Method::POST, "/reactions", &body).await.map(drop)
    }

    /// Takes a reaction back.
    pub(super) async fn unreact(&self, post_id: &str, emoji: &str) -> Result<(), ApiError> {
        let path = format!("/users/me/posts/{post_id}/reactions/{emoji}");
        self.api.call::<Value>(Some(&self.token), Method::DELETE, &path, None).await.map(drop)
    }

    /// Uploads a file to be attached to a post of this channel.
    pub(super) async fn upload(&self, channel_id: &str, name: &str, content: &[u8]) -> Result<FileInfo, ApiError> {
        const BOUNDARY: &str = "holdfast-demo-5d1f0c6be2a94c7f";
        let mut body = Vec::with_capacity(content.len() + 512);
        body.extend_from_slice(
            format!(
                "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"channel_id\"\r\n\r\n{channel_id}\r\n\
                 --{BOUNDARY}\r\nContent-Disposition: form-data; name=\"files\"; filename=\"{name}\"\r\n\
                 Content-Type: application/octet-stream\r\n\r\n"
            )
            .as_bytes(),
        );
        body.extend_from_slice(content);
        body.extend_from_slice(format!("\r\n--{BOUNDARY}--\r\n").as_bytes());
        let content_type = format!("multipart/form-data; boundary={BOUNDARY}");
        let head = Head { token: Some(&self.token), content_type: Some(&content_type), ..Head::default() };
        let (_, answer) = self.api.exchange(head, Method::POST, "/files", Bytes::from(body)).await?;
        #[derive(Deserialize)]
        struct Uploaded {
            file_infos: Vec<FileInfo>,
        }
        let mut uploaded: Uploaded = read("POST /files", &answer)?;
        uploaded
            .file_infos
            .pop()
            .ok_or_else(|| ApiError::Unreadable { call: "POST /files".to_owned(), reason: "no file_infos".to_owned() })
    }

    /// The bytes of a file.
    pub(super) async fn download(&self, file_id: &str) -> Result<Bytes, ApiError> {
        let path = format!("/files/{file_id}");
        let head = Head { token: Some(&self.token), ..Head::default() };
        Ok(self.api.exchange(head, Method::GET, &path, Bytes::new()).await?.1)
    }

    /// Have the bytes of a file arrived here? Asks for the first one only.
    pub(super) async fn has_file(&self, file_id: &str) -> bool {
        let path = format!("/files/{file_id}");
        let head = Head { token: Some(&self.token), range: Some("bytes=0-0"), ..Head::default() };
        self.api.exchange(head, Method::GET, &path, Bytes::new()).await.is_ok()
    }

    /// One page of a channel's posts, newest first.
    pub(super) async fn posts(&self, channel_id: &str, page: u32, per_page: u32) -> Result<PostList, ApiError> {
        self.get(&format!("/channels/{channel_id}/posts?page={page}&per_page={per_page}")).await
    }

    /// Posts of a channel that changed after a moment, deleted ones included.
    pub(super) async fn posts_since(&self, channel_id: &str, since: i64) -> Result<PostList, ApiError> {
        self.get(&format!("/channels/{channel_id}/posts?since={since}")).await
    }

    /// The channels that this user is in, of all teams.
    pub(super) async fn channels(&self) -> Result<Vec<Channel>, ApiError> {
        self.get("/users/me/channels").await
    }

    /// Follows the WebSocket and hands every event to `on_event` until the socket closes.
    ///
    /// Not cancel-safe in the sense that events between two calls are lost; the demo runs it in one task per side.
    ///
    /// # Errors
    /// When the socket cannot be opened or breaks.
    pub(super) async fn listen(&self, mut on_event: impl FnMut(LiveEvent)) -> Result<(), ApiError> {
        let call = "GET /websocket".to_owned();
        let unreachable = |reason: String| ApiError::Unreachable { call: call.clone(), reason };
        let mut request = format!("ws://{}/api/v4/websocket", self.api.address)
            .into_client_request()
            .map_err(|e| unreachable(e.to_string()))?;
        let bearer = format!("Bearer {}", self.token.0).parse().map_err(|_| unreachable("bad token".to_owned()))?;
        request.headers_mut().insert(AUTHORIZATION, bearer);
        let (mut socket, _) =
            tokio_tungstenite::connect_async(request).await.map_err(|e| unreachable(e.to_string()))?;
        while let Some(message) = socket.next().await {
            let message = message.map_err(|e| unreachable(e.to_string()))?;
            if let Message::Text(text) = message
                && let Some(event) = live_event(text.as_str())
            {
                on_event(event);
            }
        }
        Ok(())
    }
}

/// Reads a WebSocket frame; replies and unknown shapes are `None`.
fn live_event(text: &str) -> Option<LiveEvent> {
    let frame: Value = serde_json::from_str(text).ok()?;
    let event = frame["event"].as_str()?.to_owned();
    // In an event the post stands as a JSON text inside the JSON.
    let post: Option<Box<Post>> = frame["data"]["post"].as_str().and_then(|post| serde_json::from_str(post).ok());
    let broadcast = frame["broadcast"]["channel_id"].as_str().unwrap_or_default();
    let channel_id =
        if broadcast.is_empty() { post.as_ref().map_or("", |post| &post.channel_id) } else { broadcast }.to_owned();
    Some(LiveEvent { event, channel_id, post })
}

fn read<T: DeserializeOwned>(call: &str, answer: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(answer).map_err(|e| ApiError::Unreadable { call: call.to_owned(), reason: e.to_string() })
}

/// The headers as HTTP/1.1 writes them: `name: value\r\n` each, and an empty line.
fn head_bytes(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum::<usize>() + 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_posted_event_yields_the_post_and_its_channel() {
        let post =
            json!({"id": "p", "channel_id": "c", "user_id": "u", "message": "hi", "create_at": 1, "update_at": 1});
        let frame =
            json!({"event": "posted", "data": {"post": post.to_string()}, "broadcast": {"channel_id": "c"}, "seq": 4});
        let event = live_event(&frame.to_string()).unwrap();
        assert_eq!((event.event.as_str(), event.channel_id.as_str()), ("posted", "c"));
        assert_eq!(event.post.unwrap().message, "hi");
    }

    #[test]
    fn replies_and_noise_are_no_events() {
        for text in ["", "[]", "{\"status\":\"OK\",\"seq_reply\":1}", "{\"event\":5}"] {
            assert!(live_event(text).is_none(), "{text}");
        }
    }

    #[test]
    fn header_bytes_are_those_of_http_1_1() {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, "127.0.0.1:1".parse().unwrap());
        assert_eq!(head_bytes(&headers), "host: 127.0.0.1:1\r\n\r\n".len());
    }
}
