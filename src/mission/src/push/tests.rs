use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use data_encoding::{BASE64, BASE64URL_NOPAD};
use serde_json::{Value, json};
use telemetry::Metrics;
use tokio::task::JoinSet;

use super::relay::{Passed, pass_on};
use super::sign::Signer;
use super::*;
use crate::CoreSettings;
use crate::outgoing::tests::server;
use crate::testkit::Node;

const DEVICE: &str = "android_rn-v2:token-of-bob";
const SECRET: &str = "the bridge falls at dawn";

/// Alice, and bob whose device is known, in a channel, with a proxy at this address.
struct World {
    node: Node,
    alice: Session,
    bob: Session,
    channel: Id,
}

fn world(proxy: SocketAddr) -> World {
    let push = PushSettings {
        proxy: Some(format!("http://{proxy}/")),
        relay_for: vec!["10.1.0.0/16".to_owned()],
        ..PushSettings::default()
    };
    let node = Node::with(1, CoreSettings { push, ..CoreSettings::default() });
    let (alice, bob) = (node.user("alice"), node.user("bob"));
    let (team, square) = node.team(&alice, "mission");
    node.core.add_team_member(&bob, team.id, bob.user_id).unwrap();
    node.core.set_device(&bob, DEVICE).unwrap();
    node.advance(10);
    World { node, alice, bob, channel: square.id }
}

fn answer(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len())
        .into_bytes()
}

/// A port at which nobody listens.
async fn nobody() -> SocketAddr {
    tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

fn bodies(asked: &Arc<Mutex<Vec<String>>>) -> Vec<Value> {
    let asked = std::mem::take(&mut *asked.lock().unwrap());
    asked.iter().map(|request| serde_json::from_str(request.split("\r\n\r\n").nth(1).unwrap()).unwrap()).collect()
}

impl World {
    async fn push(&self, metrics: &Metrics) -> Result<Option<std::time::Duration>, String> {
        self.node.advance(5_000);
        self.node.core.push_due(self.node.core.push_proxy().unwrap(), metrics).await
    }

    fn mention(&self) -> Id {
        self.node.advance(10);
        self.node.say(&self.alice, self.channel, None, &format!("@bob {SECRET}")).id
    }

    fn rows(&self) -> Vec<(String, i64)> {
        let sql = "SELECT post_id, state FROM pushes";
        self.node.core.read(|db| all(db, sql, [], |r| Ok((r.get(0)?, r.get(1)?)))).unwrap()
    }
}

#[tokio::test]
async fn a_device_gets_ids_and_a_count_signed_and_is_cleared_when_the_channel_was_read() {
    let mut tasks = JoinSet::new();
    let (address, asked) = server(answer(r#"{"status":"OK"}"#), &mut tasks).await;
    let world = world(address);
    let metrics = Metrics::default();
    world.node.say(&world.alice, world.channel, None, "mentions nobody");
    world.mention();
    let newest = world.mention();
    assert_eq!(world.rows(), [(newest.to_string(), WAITS)], "one for the channel, the newest");
    assert_eq!(world.push(&metrics).await.unwrap(), None);
    let sent = bodies(&asked);
    assert_eq!(sent.len(), 1);
    let told = &sent[0];
    assert_eq!((&told["platform"], &told["device_id"]), (&json!("android_rn-v2"), &json!("token-of-bob")));
    assert_eq!((&told["post_id"], &told["badge"], &told["type"]), (&json!(newest), &json!(2), &json!("message")));
    assert_eq!((&told["is_id_loaded"], &told["message"]), (&json!(true), &json!(MESSAGE)));
    let text = told.to_string();
    assert!(!text.contains("bridge") && !text.contains("alice") && !text.contains("Town"), "{text}");
    let signer = Signer::of(&world.node.core).unwrap();
    let parts: Vec<&str> = told["signature"].as_str().unwrap().rsplitn(2, '.').collect();
    let claims = BASE64URL_NOPAD.decode(parts[1].split('.').nth(1).unwrap().as_bytes()).unwrap();
    let claims: Value = serde_json::from_slice(&claims).unwrap();
    assert_eq!(claims, json!({"ack_id": told["ack_id"], "device_id": "token-of-bob"}));
    let key = BASE64.decode(signer.public_key().as_bytes()).unwrap();
    let signature = BASE64URL_NOPAD.decode(parts[0].as_bytes()).unwrap();
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key).verify(parts[1].as_bytes(), &signature).unwrap();
    // Nothing twice; and once read, the device is told to take it away.
    world.push(&metrics).await.unwrap();
    assert_eq!(bodies(&asked), [] as [Value; 0]);
    world.node.core.mark_channels_read(&world.bob, world.bob.user_id, &[world.channel]).unwrap();
    world.push(&metrics).await.unwrap();
    let cleared = bodies(&asked);
    assert_eq!(cleared.len(), 1);
    assert_eq!((&cleared[0]["type"], &cleared[0]["channel_id"]), (&json!("clear"), &json!(world.channel)));
    assert_eq!((&cleared[0]["badge"], &cleared[0]["cont_ava"]), (&Value::Null, &json!(1)));
    assert_eq!(world.rows(), []);
}

#[tokio::test]
async fn an_idle_sender_hears_of_the_one_post_that_there_is() {
    let mut tasks = JoinSet::new();
    let (address, asked) = server(answer(r#"{"status":"OK"}"#), &mut tasks).await;
    let world = world(address);
    let stop = tokio_util::sync::CancellationToken::new();
    tasks.spawn(world.node.core.clone().keep_pushing(Arc::new(Metrics::default()), stop.clone()));
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    world.mention();
    world.node.advance(60_000);
    let sent = async {
        while bodies(&asked).is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), sent).await.expect("it is sent");
    stop.cancel();
}

#[tokio::test]
async fn a_notification_that_is_refused_holds_up_no_other() {
    let mut tasks = JoinSet::new();
    let refusal = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n".to_vec();
    let (address, asked) = server(refusal, &mut tasks).await;
    let world = world(address);
    let metrics = Metrics::default();
    world.mention();
    assert_eq!(world.push(&metrics).await.unwrap(), None, "the proxy is there");
    assert_eq!(bodies(&asked).len(), 1);
    world.push(&metrics).await.unwrap();
    assert_eq!(bodies(&asked).len(), 0, "and is not asked again");
    let login = crate::types::Login {
        login_id: "bob".to_owned(),
        password: crate::testkit::PASSWORD.to_owned(),
        device_id: "x".repeat(20_000),
        ..crate::types::Login::default()
    };
    let refused = world.node.core.login(&login, &crate::types::ClientInfo::default()).unwrap_err();
    assert_eq!(refused.status_code, 400, "no device has such an id");
}

#[tokio::test]
async fn followers_of_a_thread_are_told_whatever_their_desktop_does() {
    let world = world(nobody().await);
    let root = world.node.say(&world.alice, world.channel, None, "root");
    world.node.say(&world.bob, world.channel, Some(root.id), "I follow now");
    let quiet = [("desktop", "none"), ("push", "mention"), ("push_threads", "all")];
    let props = quiet.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
    let patch = crate::types::UserPatch { notify_props: Some(props), ..crate::types::UserPatch::default() };
    world.node.core.patch_user(&world.bob, world.bob.user_id, &patch).unwrap();
    let reply = world.node.say(&world.alice, world.channel, Some(root.id), "no name in here");
    assert_eq!(world.rows(), [(reply.id.to_string(), WAITS)]);
}

#[tokio::test]
async fn what_a_thread_waits_to_say_goes_when_the_thread_is_read() {
    let world = world(nobody().await);
    let root = world.node.say(&world.alice, world.channel, None, "root");
    world.node.say(&world.bob, world.channel, Some(root.id), "I follow now");
    let other = world.node.say(&world.alice, world.channel, None, "another root");
    world.node.say(&world.bob, world.channel, Some(other.id), "and this");
    let team = world.node.core.channel(&world.bob, world.channel).unwrap().team_id.unwrap();
    let reply = || {
        world.node.advance(10);
        let reply = world.node.say(&world.alice, world.channel, Some(root.id), &format!("@bob {SECRET}"));
        assert_eq!(world.rows(), [(reply.id.to_string(), WAITS)]);
        reply
    };
    let read = |thread: Id, at: i64| {
        world.node.core.read_thread(&world.bob, world.bob.user_id, team, thread, at).unwrap();
        world.rows().len()
    };
    let now = reply().create_at;
    assert_eq!(read(other.id, now), 1, "it is of another thread");
    assert_eq!(read(root.id, now - 1), 1, "it came later");
    assert_eq!(read(root.id, now), 0);
    reply();
    world.node.core.read_all_threads(&world.bob, world.bob.user_id, team).unwrap();
    assert_eq!(world.rows(), []);
}

#[tokio::test]
async fn a_device_that_signs_in_anew_hears_by_its_new_session_alone() {
    let world = world(nobody().await);
    let login = crate::types::Login {
        login_id: "alice".to_owned(),
        password: crate::testkit::PASSWORD.to_owned(),
        device_id: DEVICE.to_owned(),
        ..crate::types::Login::default()
    };
    world.node.core.login(&login, &crate::types::ClientInfo::default()).unwrap();
    let sql = "SELECT u.username FROM sessions s JOIN users u ON u.id = s.user_id WHERE s.device_id = ?1";
    let owners: Vec<String> = world.node.core.read(|db| all(db, sql, [DEVICE], |r| r.get(0))).unwrap();
    assert_eq!(owners, ["alice"], "bob handed the phone on");
}

#[tokio::test]
async fn what_is_read_at_once_never_leaves() {
    let mut tasks = JoinSet::new();
    let (address, asked) = server(answer(r#"{"status":"OK"}"#), &mut tasks).await;
    let world = world(address);
    world.mention();
    world.node.core.mark_channels_read(&world.bob, world.bob.user_id, &[world.channel]).unwrap();
    world.push(&Metrics::default()).await.unwrap();
    assert_eq!(bodies(&asked), [] as [Value; 0]);
}

#[tokio::test]
async fn while_the_proxy_is_away_the_newest_waits_also_over_a_restart_and_is_dropped_when_stale() {
    let address = nobody().await;
    let mut world = world(address);
    let metrics = Metrics::default();
    for _ in 0..5 {
        world.mention();
        assert!(world.push(&metrics).await.is_err());
    }
    let newest = world.mention();
    world.node = world.node.reopened();
    assert_eq!(world.rows(), [(newest.to_string(), WAITS)]);
    // It is back.
    let listener = tokio::net::TcpListener::bind(address).await.unwrap();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&asked);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut bytes = vec![0; 64 * 1024];
            let n = stream.read(&mut bytes).await.unwrap();
            kept.lock().unwrap().push(String::from_utf8_lossy(&bytes[..n]).into_owned());
            let _ = stream.write_all(&answer(r#"{"status":"OK"}"#)).await;
        }
    });
    world.push(&metrics).await.unwrap();
    let sent = bodies(&asked);
    assert_eq!(sent.len(), 1);
    assert_eq!((&sent[0]["post_id"], &sent[0]["badge"]), (&json!(newest), &json!(6)));
    // One that waited for longer than the setting says goes nowhere.
    world.mention();
    world.node.advance(61 * 60_000);
    world.push(&metrics).await.unwrap();
    assert_eq!((bodies(&asked), world.rows()), (vec![], vec![]));
}

#[tokio::test]
async fn a_device_that_is_gone_is_forgotten() {
    let mut tasks = JoinSet::new();
    let (address, asked) = server(answer(r#"{"status":"REMOVE"}"#), &mut tasks).await;
    let world = world(address);
    world.mention();
    world.push(&Metrics::default()).await.unwrap();
    assert_eq!(bodies(&asked).len(), 1);
    world.mention();
    world.push(&Metrics::default()).await.unwrap();
    assert_eq!(bodies(&asked).len(), 0);
}

#[tokio::test]
async fn whoever_may_read_a_post_is_told_what_its_notification_says() {
    let world = world(nobody().await);
    let receipt = |post: Id| Receipt { id: "x".to_owned(), post_id: post.to_string(), ..Receipt::default() };
    let told = serde_json::to_value(world.node.core.push_told(&world.bob, &receipt(world.mention())).unwrap()).unwrap();
    assert_eq!((&told["message"], &told["sender_name"]), (&json!(format!("alice: @bob {SECRET}")), &json!("alice")));
    assert_eq!((&told["channel_name"], &told["badge"]), (&json!("Town Square"), &json!(1)));
    let direct = world.node.core.direct_channel(&world.alice, world.alice.user_id, world.bob.user_id).unwrap();
    let private = world.node.say(&world.alice, direct.id, None, SECRET).id;
    assert_eq!(world.node.core.push_told(&world.bob, &receipt(private)).unwrap().message, SECRET);
    let stranger = world.node.user("stranger");
    assert_eq!(world.node.core.push_told(&stranger, &receipt(private)).unwrap_err().status_code, 403);
}

#[tokio::test]
async fn a_relay_passes_on_ids_for_listed_sites_alone_and_says_when_the_proxy_is_away() {
    let mut tasks = JoinSet::new();
    let (address, asked) = server(answer(r#"{"status":"OK"}"#), &mut tasks).await;
    let here = world(address);
    let post = "p".repeat(26);
    let sent = json!({"server_id": "s", "device_id": "d", "platform": "apple_rn-v2", "post_id": post, "type": "message",
        "message": SECRET, "sender_name": "alice", "channel_name": "secret-ops", "badge": 3, "signature": "j.w.t"});
    let body = sent.to_string();
    let take = |from: &str, body: &str| here.node.core.take_push(from, body.as_bytes(), false);
    assert_eq!(take("10.2.0.1", &body).err().unwrap().status_code, 403);
    assert_eq!(take("nonsense", &body).err().unwrap().status_code, 403);
    for bad in ["{", r#"{"server_id":"s"}"#, r#"{"device_id":"d"}"#] {
        assert_eq!(take("10.1.2.3", bad).unwrap().err().unwrap().status, "FAIL", "{bad}");
    }
    let with = |key: &str, text: &str| {
        let mut other = sent.clone();
        other[key] = json!(text);
        take("10.1.2.3", &other.to_string()).unwrap()
    };
    assert_eq!(with("device_id", &"d".repeat(5_000)).err().unwrap().status, "FAIL");
    let fields =
        ["device_id", "server_id", "signature", "ack_id", "post_id", "team_id", "channel_id", "root_id", "platform"];
    for field in fields.into_iter().chain(["type", "category", "sound", "version"]) {
        assert_eq!(with(field, SECRET).err().unwrap().status, "FAIL", "{field} carries any text");
    }
    for (field, text) in [("category", "CAN_REPLY"), ("sound", "none"), ("type", "clear"), ("signature", "")] {
        assert!(with(field, text).is_ok(), "{field}");
    }
    let passed = take("10.1.2.3", &body).unwrap().ok().unwrap();
    assert_eq!(pass_on(here.node.core.push_proxy().unwrap(), &passed).await.unwrap().status, "OK");
    let got = bodies(&asked).remove(0);
    assert_eq!((&got["device_id"], &got["badge"], &got["signature"]), (&json!("d"), &json!(3), &json!("j.w.t")));
    let text = got.to_string();
    assert!(!text.contains("bridge") && !text.contains("alice") && !text.contains("secret-ops"), "{text}");
    let receipt = r#"{"id":"a","platform":"ios","type":"message"}"#;
    let receipt = here.node.core.take_push("10.1.2.3", receipt.as_bytes(), true).unwrap().ok().unwrap();
    assert!(matches!(receipt, Passed::Receipt(_)));
    let away = world(nobody().await);
    let error = pass_on(away.node.core.push_proxy().unwrap(), &receipt).await.unwrap_err();
    assert_eq!(error.status_code, 502);
}

#[test]
fn settings_of_user_and_channel_and_where_they_are_decide() {
    let map = |pairs: &[(&str, &str)]| -> StringMap {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    // Own settings, those of the membership, kind of channel, mentioned, follows, status; wanted.
    type Row<'a> = (&'a [(&'a str, &'a str)], &'a [(&'a str, &'a str)], &'a str, bool, bool, &'a str, bool);
    let rows: [Row<'_>; 14] = [
        (&[], &[], "O", true, false, "online", true),
        (&[], &[], "O", false, false, "online", false),
        (&[], &[], "O", false, true, "offline", true),
        (&[("push_threads", "mention")], &[], "O", false, true, "offline", false),
        (&[("push", "all")], &[], "O", false, false, "offline", true),
        (&[("push", "none")], &[], "O", true, true, "offline", false),
        (&[("push", "none")], &[("push", "all")], "O", false, false, "offline", true),
        (&[("push", "all")], &[("push", "mention")], "O", false, false, "offline", false),
        (&[], &[("mark_unread", "mention")], "O", true, false, "offline", false),
        (&[], &[("push", "default")], "G", false, false, "offline", true),
        (&[("push_status", "away")], &[], "O", true, false, "online", false),
        (&[("push_status", "away")], &[], "O", true, false, "away", true),
        (&[("push_status", "offline")], &[], "O", true, false, "away", false),
        (&[], &[], "O", true, false, "dnd", false),
    ];
    for (own, here, kind, mentioned, follows, status, wanted) in rows {
        let found = is_wanted(&map(own), &map(here), kind, mentioned, follows, status);
        assert_eq!(found, wanted, "{own:?} {here:?} {kind} {mentioned} {follows} {status}");
    }
}

#[test]
fn settings_that_cannot_be_used_are_refused() {
    let check = |proxy: &str, relay: &str| {
        let settings = PushSettings {
            proxy: Some(proxy.to_owned()),
            relay_for: vec![relay.to_owned()],
            ..PushSettings::default()
        };
        settings.check().map_err(|(key, _)| key)
    };
    assert_eq!(check("https://push.example", "10.0.0.0/8"), Ok(()));
    assert_eq!(check("push.example", "10.0.0.0/8"), Err("core.push.proxy"));
    assert_eq!(check("https://push.example", "10.0.0.0/99"), Err("core.push.relay_for"));
}
