//! The control port: what the library does, for tests in other languages. Plain HTTP on loopback, JSON in and out.

use std::io;
use std::net::TcpListener as StdListener;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Response};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::faults::FaultRule;
use crate::pki::Credential;
use crate::serve::Shared;
use crate::things::{App, Chat, Group, Team, User};

const BODY_MAX: usize = 4 << 20;

pub(crate) async fn accept(listener: StdListener, shared: Arc<Shared>, stop: CancellationToken) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => {
                if let Ok((tcp, _)) = accepted {
                    connections.spawn(connection(tcp, Arc::clone(&shared)));
                }
            }
        }
    }
}

async fn connection(tcp: TcpStream, shared: Arc<Shared>) {
    let service = service_fn(|request: http::Request<Incoming>| {
        let shared = Arc::clone(&shared);
        async move {
            let (parts, body) = request.into_parts();
            let body = match Limited::new(body, BODY_MAX).collect().await {
                Ok(body) => body.to_bytes(),
                Err(e) => return Err(io::Error::other(e.to_string())),
            };
            let (status, value) = match run(&shared, &parts.method, parts.uri.path(), &body) {
                Ok(value) => (200, value),
                Err(text) => (400, json!({ "error": text })),
            };
            Ok(Response::builder()
                .status(status)
                .header("content-type", "application/json")
                .body(Full::new(Bytes::from(value.to_string())))
                .expect("a fixed header"))
        }
    });
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(tcp), service).await;
}

/// One control request.
fn run(shared: &Shared, method: &Method, path: &str, body: &[u8]) -> Result<Value, String> {
    let verb = path.strip_prefix("/_sim/").ok_or("control paths begin with /_sim/")?;
    let mut world = shared.world();
    let text = |value: &Value, name: &str| {
        value[name].as_str().map(str::to_owned).ok_or_else(|| format!("`{name}` is missing"))
    };
    match (method.as_str(), verb) {
        ("GET", "oracle") => Ok(json!(world.oracle)),
        ("GET", "clock") => Ok(json!({ "nowMs": world.now() })),
        ("GET", "info") => Ok(json!({
            "tenant": world.tenant, "seed": world.settings.seed, "cloud": world.settings.cloud,
            "relaxed": world.settings.relaxed, "validates": shared.contract.is_some(),
        })),
        ("POST", "credential") => {
            let name = text(&parse(body)?, "name")?;
            let made = Credential::new(&name).map_err(|e| e.to_string())?;
            Ok(json!({ "certificatePem": made.certificate_pem, "keyPem": made.key_pem }))
        }
        ("POST", "app") => Ok(json!({ "id": world.put_app(parse::<App>(body)?)? })),
        ("POST", "user") => Ok(json!({ "id": world.put_user(parse::<User>(body)?) })),
        ("POST", "group") => Ok(json!({ "id": world.put_group(parse::<Group>(body)?) })),
        ("POST", "team") => Ok(json!(world.put_team(parse::<Team>(body)?))),
        ("POST", "chat") => Ok(json!({ "id": world.put_chat(parse::<Chat>(body)?) })),
        ("POST", "object/change") => {
            let value: Value = parse(body)?;
            let properties: Map<String, Value> =
                value["properties"].as_object().cloned().ok_or("`properties` is missing")?;
            world.change_object(&text(&value, "id")?, properties).map(|()| json!({}))
        }
        ("POST", "object/delete") => {
            let value: Value = parse(body)?;
            world.delete_object(&text(&value, "id")?, value["forGood"] == true).map(|()| json!({}))
        }
        ("POST", "object/restore") => {
            let value: Value = parse(body)?;
            world.restore_object(&text(&value, "id")?).map(|()| json!({}))
        }
        ("POST", "group/member") => {
            let value: Value = parse(body)?;
            let (group, member) = (text(&value, "group")?, text(&value, "member")?);
            world.set_member(&group, &member, value["present"] != false).map(|()| json!({}))
        }
        ("POST", "team/member") => {
            let value: Value = parse(body)?;
            let (team, user) = (text(&value, "team")?, text(&value, "user")?);
            world.set_team_member(&team, &user, value["present"] != false).map(|()| json!({}))
        }
        ("POST", "directory/move") => {
            world.directory.moved = true;
            Ok(json!({}))
        }
        ("POST", "fail") => {
            world.faults.push(parse::<FaultRule>(body)?);
            Ok(json!({}))
        }
        ("POST", "heal") => {
            world.faults.clear();
            Ok(json!({}))
        }
        ("POST", "clock/advance") => {
            let value: Value = parse(body)?;
            world.clock.advance(value["ms"].as_u64().ok_or("`ms` is missing")?);
            Ok(json!({ "nowMs": world.now() }))
        }
        ("POST", "clock/date-off") => {
            let value: Value = parse(body)?;
            world.date_off_ms = value["ms"].as_i64().ok_or("`ms` is missing")?;
            Ok(json!({}))
        }
        ("POST", "keys/rotate") => world.entra.rotate_keys().map(|()| json!({})).map_err(|e| e.to_string()),
        ("POST", "revoke/user") => {
            world.revoke_user(&text(&parse(body)?, "id")?);
            Ok(json!({}))
        }
        ("POST", "revoke/app") => {
            world.revoke_app(&text(&parse(body)?, "id")?);
            Ok(json!({}))
        }
        ("POST", "tab-token") => {
            let value: Value = parse(body)?;
            let token = world.tab_token(&text(&value, "user")?, &text(&value, "app")?);
            Ok(json!({ "token": token.ok_or("no such user or app")? }))
        }
        ("POST", "device") => {
            let value: Value = parse(body)?;
            let declined = value["declined"] == true;
            world.answer_device(&text(&value, "userCode")?, &text(&value, "user")?, true, declined)?;
            Ok(json!({}))
        }
        ("POST", "file") => {
            let value: Value = parse(body)?;
            let bytes = world.file_at(&text(&value, "drive")?, &text(&value, "path")?);
            Ok(json!({ "contentBase64": data_encoding::BASE64.encode(&bytes.ok_or("no such file")?) }))
        }
        _ => Err(format!("no control verb {method} {path}")),
    }
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|e| e.to_string())
}
