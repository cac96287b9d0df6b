//! The API as clients see it: a real listener, real requests, real sockets.

mod accounts;
mod admin;
mod matrix;
mod pictures;
mod sessions;
mod teams;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use model::{Clock, HybridClock, IdMint, NodeId};
use serde_json::Value;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::testkit::{Node, Sent};
use crate::{CoreOptions, CoreSettings, IntegrationSettings};

mod drafts;
mod emoji;
mod enroll;
mod integrations;
mod marks;
mod search;
mod tab;
mod threads;
mod unread;
mod uploads;
mod webapp;

// --- routes and access

#[tokio::test]
async fn every_route_asks_for_what_its_row_says() {
    let site = Site::new().await;
    let user = site.user("bob").await;
    for route in routes::all() {
        let path = filled_in(route.path);
        let bare = site.request(&route.method, &path, &[], "{}").await;
        if route.who == Who::Anyone {
            assert_ne!(bare.json["id"], "api.context.session_expired.app_error", "{route:?}");
            continue;
        }
        assert_eq!((bare.status, bare.id()), (401, "api.context.session_expired.app_error"), "{route:?}");
        // A cookie is sent by the browser whatever page asks for the request.
        let cookie = [("cookie", format!("MMAUTHTOKEN={}", user.token))];
        let foreign = site.request(&route.method, &path, &cookie, "{}").await;
        let must_prove = route.checks_csrf && route.method != Method::GET;
        assert_eq!(foreign.status == 401, must_prove, "{route:?} answered {} {}", foreign.status, foreign.json);
        if route.who == Who::SystemAdmin {
            let plain = site.request(&route.method, &path, &user.bearer(), "{}").await;
            assert_eq!((plain.status, plain.id()), (403, "api.context.permissions.app_error"), "{route:?}");
        }
    }
}

#[test]
fn no_method_and_path_stands_twice_in_the_table() {
    let mut seen = std::collections::BTreeSet::new();
    for route in routes::all() {
        assert!(seen.insert((route.method.as_str(), route.path)), "{route:?} stands twice");
    }
}

#[tokio::test]
async fn what_is_not_in_the_table_is_a_json_404_under_api_and_a_page_elsewhere() {
    let site = Site::new().await;
    for (method, path) in [("GET", "/api/v4/nothing"), ("PATCH", "/api/v4/users"), ("GET", "/api/"), ("POST", "/x")] {
        let answer = site.request(&method.parse().unwrap(), path, &[], "").await;
        assert_eq!((answer.status, answer.id()), (404, "api.context.404.app_error"), "{method} {path}");
    }
    let front = site.get("/", &[]).await;
    assert_eq!(front.status, 200);
    assert!(front.text().contains("<h1>Test site</h1>"), "{}", front.text());
    assert_eq!(front.header("content-type"), "text/html; charset=utf-8");
    assert_eq!(site.get("/some/page", &[]).await.status, 404);
}

#[tokio::test]
async fn every_answer_carries_the_usual_headers_and_an_error_its_request_id() {
    let site = Site::new().await;
    let error = site.get("/api/v4/users/me", &[]).await;
    let id = error.header("x-request-id").to_owned();
    assert_eq!(id.len(), 26);
    assert_eq!(
        error.json,
        json!({
            "id": "api.context.session_expired.app_error", "detailed_error": "", "status_code": 401,
            "message": "Invalid or expired session, please login again.", "request_id": id,
        })
    );
    let ping = site.get("/api/v4/system/ping", &[]).await;
    assert_eq!(ping.json["status"], "OK");
    assert!(ping.header("x-version-id").starts_with("11.6.0.0.") && ping.header("x-version-id").ends_with(".false"));
    assert_eq!(ping.header("x-content-type-options"), "nosniff");
    assert_eq!(ping.header("referrer-policy"), "no-referrer");
    assert_eq!(ping.header("expires"), "0");
    let status = site.get("/api/v4/system/ping?get_server_status=true", &[]).await;
    assert_eq!(status.json["database_status"], "OK");
}

#[tokio::test]
async fn the_client_configuration_is_text_only_and_says_who_we_are() {
    let site = Site::new().await;
    let anonymous = site.get("/api/v4/config/client?format=old", &[]).await.json;
    assert!(anonymous.as_object().unwrap().values().all(Value::is_string));
    assert_eq!(anonymous["Version"], "11.6.0");
    assert_eq!(anonymous["DiagnosticId"].as_str().unwrap().len(), 26);
    assert_eq!(anonymous["SiteName"], "Test site");
    let full = site.get("/api/v4/config/client", &site.user("bob").await.bearer()).await.json;
    assert_eq!(full["DiagnosticId"], anonymous["DiagnosticId"]);
    assert!(full.as_object().unwrap().len() > anonymous.as_object().unwrap().len());
    let license = site.get("/api/v4/license/client?format=old", &[]).await.json;
    assert_eq!(license, json!({ "IsLicensed": "false" }));
    assert_eq!(site.get("/api/v4/license/client", &[]).await.status, 400);
}

#[tokio::test]
async fn malformed_ids_and_bodies_are_named() {
    let site = Site::new().await;
    let user = site.user("bob").await;
    let bad_id = site.get("/api/v4/channels/short", &user.bearer()).await;
    assert_eq!((bad_id.status, bad_id.id()), (400, "api.context.invalid_url_param.app_error"));
    let bad_body = site.post("/api/v4/posts", &user.bearer(), "{").await;
    assert_eq!((bad_body.status, bad_body.id()), (400, "api.context.invalid_body_param.app_error"));
    let long = format!("/api/v4/users/me?x={}", "y".repeat(3_000));
    assert_eq!(site.get(&long, &user.bearer()).await.status, 414);
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused() {
    let site = Site::new().await;
    let user = site.user("bob").await;
    let big = json!({ "channel_id": "x", "message": "m".repeat(300_001) }).to_string();
    let answer = site.post("/api/v4/posts", &user.bearer(), big).await;
    assert_eq!((answer.status, answer.id()), (413, "api.context.request_body_too_large.app_error"));
}

// --- login

#[tokio::test]
async fn login_gives_the_token_in_a_header_and_cookies_only_to_scripts() {
    let site = Site::new().await;
    site.user("bob").await;
    let body = json!({ "login_id": "bob", "password": PASSWORD, "token": "" }).to_string();
    let plain = site.post("/api/v4/users/login", &[], body.clone()).await;
    assert_eq!(plain.status, 200, "{}", plain.json);
    assert_eq!(plain.header("token").len(), 26);
    assert_eq!(plain.json["username"], "bob");
    assert!(plain.json.get("password").is_none());
    assert!(plain.cookies().is_empty());

    let script = site.post("/api/v4/users/login", &[("x-requested-with", "XMLHttpRequest".into())], body).await;
    let cookies = script.cookies();
    let names: Vec<&str> = cookies.iter().map(|c| c.split('=').next().unwrap()).collect();
    assert_eq!(names, ["MMAUTHTOKEN", "MMUSERID", "MMCSRF"]);
    assert!(cookies[0].contains("HttpOnly") && !cookies[1].contains("HttpOnly"));
}

#[tokio::test]
async fn wrong_credentials_are_all_the_same() {
    let site = Site::new().await;
    site.user("bob").await;
    for (name, password) in [("bob", "wrong password"), ("nobody", PASSWORD)] {
        let body = json!({ "login_id": name, "password": password }).to_string();
        let answer = site.post("/api/v4/users/login", &[], body).await;
        assert_eq!(answer.status, 401);
        assert_eq!(answer.id(), "api.user.login.invalid_credentials_email_username");
    }
}

#[tokio::test]
async fn a_cookie_session_changes_things_only_with_proof_of_the_page() {
    let site = Site::new().await;
    site.user("bob").await;
    let body = json!({ "login_id": "bob", "password": PASSWORD }).to_string();
    let login = site.post("/api/v4/users/login", &[("x-requested-with", "XMLHttpRequest".into())], body).await;
    let value = |n: usize| login.cookies()[n].split([';', '=']).nth(1).unwrap().to_owned();
    let cookie = ("cookie", format!("MMAUTHTOKEN={}; MMCSRF={}", value(0), value(2)));
    let patch = json!({ "nickname": "Bobby" }).to_string();
    let me = "/api/v4/users/me/patch";

    let foreign = site.request(&Method::PUT, me, std::slice::from_ref(&cookie), patch.clone()).await;
    assert_eq!((foreign.status, foreign.id()), (401, "api.context.session_expired.app_error"));
    assert!(foreign.cookies()[0].starts_with("MMAUTHTOKEN=;"), "the browser forgets the token");
    let csrf = ("x-csrf-token", value(2));
    assert_eq!(site.request(&Method::PUT, me, &[cookie.clone(), csrf], patch.clone()).await.status, 200);
    let script = ("x-requested-with", "XMLHttpRequest".to_owned());
    assert_eq!(site.request(&Method::PUT, me, &[cookie.clone(), script], patch).await.status, 200);
    assert_eq!(site.get("/api/v4/users/me", &[cookie]).await.json["nickname"], "Bobby", "reading needs no proof");
}

#[tokio::test]
async fn a_token_in_the_query_is_refused() {
    let site = Site::new().await;
    let user = site.user("bob").await;
    let answer = site.get(&format!("/api/v4/users/me?access_token={}", user.token), &[]).await;
    assert_eq!((answer.status, answer.id()), (401, "api.context.token_provided.app_error"));
}

#[tokio::test]
async fn logout_ends_the_session() {
    let site = Site::new().await;
    let user = site.user("bob").await;
    assert_eq!(site.get("/api/v4/users/me", &user.bearer()).await.status, 200);
    let out = site.post("/api/v4/users/logout", &user.bearer(), "").await;
    assert_eq!(out.json, json!({ "status": "OK" }));
    assert_eq!(out.cookies().len(), 3);
    assert_eq!(site.get("/api/v4/users/me", &user.bearer()).await.status, 401);
}

#[tokio::test]
async fn a_personal_token_works_until_it_is_revoked() {
    let site = Site::new().await;
    let user = site.user("bob").await;
    let body = json!({ "description": "script" }).to_string();
    let made = site.post("/api/v4/users/me/tokens", &user.bearer(), body).await;
    assert_eq!(made.status, 200, "{}", made.json);
    let bearer = [("authorization", format!("Bearer {}", made.json["token"].as_str().unwrap()))];
    assert_eq!(site.get("/api/v4/users/me", &bearer).await.json["username"], "bob");
    let revoke = json!({ "token_id": made.json["id"] }).to_string();
    assert_eq!(site.post("/api/v4/users/tokens/revoke", &user.bearer(), revoke).await.status, 200);
    assert_eq!(site.get("/api/v4/users/me", &bearer).await.status, 401);
}

// --- users, teams and channels

#[tokio::test]
async fn a_user_has_a_picture_and_an_etag() {
    let site = Site::new().await;
    let user = site.user("bob").await;
    let picture = site.get("/api/v4/users/me/image?_=0", &user.bearer()).await;
    assert_eq!(picture.header("content-type"), "image/png");
    assert!(picture.body.starts_with(b"\x89PNG"));
    let me = site.get("/api/v4/users/me", &user.bearer()).await;
    let same = [user.bearer()[0].clone(), ("if-none-match", me.header("etag").to_owned())];
    let again = site.get("/api/v4/users/me", &same).await;
    assert_eq!((again.status, again.body.len()), (304, 0));
    assert_eq!(again.header("etag"), me.header("etag"));
}

#[tokio::test]
async fn a_client_boots_with_its_teams_channels_categories_and_roles() {
    let site = Site::new().await;
    let world = site.world().await;
    let bob = world.bob.bearer();
    let team = &world.team;
    assert_eq!(site.get("/api/v4/users/me/teams", &bob).await.json[0]["id"], *team);
    assert_eq!(site.get("/api/v4/users/me/teams/members", &bob).await.json[0]["team_id"], *team);
    assert!(site.get("/api/v4/users/me/teams/unread", &bob).await.json.is_array());
    let channels = site.get(&format!("/api/v4/users/me/teams/{team}/channels"), &bob).await.json;
    let names: Vec<&str> = channels.as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"town-square") && names.contains(&"off-topic") && names.contains(&"ops"), "{names:?}");
    let members = site.get("/api/v4/users/me/channel_members?page=0&per_page=2", &bob).await.json;
    assert_eq!(members.as_array().unwrap().len(), 2);
    let all = site.get("/api/v4/users/me/channel_members?page=-1", &bob).await;
    assert_eq!(all.header("content-type"), "application/x-ndjson");
    let lines: Vec<Value> =
        all.body.split_inclusive(|b| *b == b'\n').map(|l| serde_json::from_slice(l).unwrap()).collect();
    assert_eq!(lines.len(), names.len());
    let categories = site.get(&format!("/api/v4/users/me/teams/{team}/channels/categories"), &bob).await.json;
    assert_eq!(categories["categories"].as_array().unwrap().len(), categories["order"].as_array().unwrap().len());
    let roles = site.post("/api/v4/roles/names", &bob, r#"["system_user","channel_user"]"#).await.json;
    assert!(roles.as_array().unwrap().iter().all(|role| !role["permissions"].as_array().unwrap().is_empty()));
    let saved = json!([{ "user_id": world.bob.id, "category": "display_settings", "name": "a", "value": "b" }]);
    assert_eq!(site.request(&Method::PUT, "/api/v4/users/me/preferences", &bob, saved.to_string()).await.status, 200);
    let kept = site.get("/api/v4/users/me/preferences/display_settings/name/a", &bob).await.json;
    assert_eq!(kept["value"], "b");
    assert_eq!(site.get("/api/v4/plugins/webapp", &bob).await.json, json!([]));
}

#[tokio::test]
async fn a_stranger_sees_neither_a_private_channel_nor_its_posts() {
    let site = Site::new().await;
    let world = site.world().await;
    let new = json!({ "team_id": world.team, "name": "secret", "display_name": "Secret", "type": "P" }).to_string();
    let secret = site.post("/api/v4/channels", &world.admin.bearer(), new).await;
    assert_eq!(secret.status, 201, "{}", secret.json);
    let id = secret.json["id"].as_str().unwrap();
    let post = json!({ "channel_id": id, "message": "hush" }).to_string();
    assert_eq!(site.post("/api/v4/posts", &world.admin.bearer(), post.clone()).await.status, 201);
    for path in [format!("/api/v4/channels/{id}"), format!("/api/v4/channels/{id}/posts")] {
        let answer = site.get(&path, &world.bob.bearer()).await;
        assert!(matches!(answer.status, 403 | 404), "{path}: {}", answer.status);
    }
    assert_eq!(site.post("/api/v4/posts", &world.bob.bearer(), post).await.status, 403);
}

// --- posts

#[tokio::test]
async fn posts_come_by_page_around_a_post_and_since_a_moment() {
    let site = Site::new().await;
    let world = site.world().await;
    let bob = world.bob.bearer();
    let mut ids = Vec::new();
    let mut last = Value::Null;
    for n in 0..5 {
        site.clock.step(1_000);
        last = site.say(&world.bob, &world.channel, &format!("message {n}")).await;
        ids.push(last["id"].as_str().unwrap().to_owned());
    }
    let channel = format!("/api/v4/channels/{}/posts", world.channel);
    let order = |answer: &Answer| -> Vec<String> {
        answer.json["order"].as_array().unwrap().iter().map(|id| id.as_str().unwrap().to_owned()).collect()
    };
    let newest = site.get(&format!("{channel}?page=0&per_page=2"), &bob).await;
    assert_eq!(order(&newest), [ids[4].clone(), ids[3].clone()]);
    let before = site.get(&format!("{channel}?before={}&per_page=2", ids[3]), &bob).await;
    assert_eq!(order(&before), [ids[2].clone(), ids[1].clone()]);
    let after = site.get(&format!("{channel}?after={}&per_page=1", ids[3]), &bob).await;
    assert_eq!(order(&after), [ids[4].clone()]);
    let since = last["create_at"].as_i64().unwrap() - 1;
    let changed = site.get(&format!("{channel}?since={since}"), &bob).await;
    assert_eq!(order(&changed), [ids[4].clone()]);
    assert_eq!(changed.header("etag"), "", "a since query is not cached");
    let same = [bob[0].clone(), ("if-none-match", newest.header("etag").to_owned())];
    assert_eq!(site.get(&format!("{channel}?page=0&per_page=2"), &same).await.status, 304);
    site.say(&world.bob, &world.channel, "one more").await;
    assert_eq!(site.get(&format!("{channel}?page=0&per_page=2"), &same).await.status, 200);
    let wide = site.get(&format!("{channel}?per_page=100000"), &bob).await;
    assert_eq!(wide.status, 200, "too much is clamped");
    assert_eq!(site.get(&format!("{channel}?before=short"), &bob).await.status, 400);
}

#[tokio::test]
async fn a_post_is_edited_answered_reacted_to_pinned_and_deleted() {
    let site = Site::new().await;
    let world = site.world().await;
    let bob = world.bob.bearer();
    let post = site.say(&world.bob, &world.channel, "frist").await;
    let path = format!("/api/v4/posts/{}", post["id"].as_str().unwrap());
    site.clock.step(1_000);
    let edit = site.request(&Method::PUT, &format!("{path}/patch"), &bob, r#"{"message":"first"}"#).await;
    assert_eq!((edit.status, edit.json["message"].as_str()), (200, Some("first")));
    let history = site.get(&format!("{path}/edit_history"), &bob).await;
    assert_eq!(history.json[0]["message"], "frist");

    let reply = json!({ "channel_id": world.channel, "root_id": post["id"], "message": "second" }).to_string();
    let reply = site.post("/api/v4/posts", &bob, reply).await.json;
    let thread = site.get(&format!("{path}/thread"), &bob).await.json;
    assert_eq!(thread["posts"].as_object().unwrap().len(), 2);
    let newer = post["create_at"].as_i64().unwrap();
    let part = site.get(&format!("{path}/thread?perPage=10&fromCreateAt={newer}&direction=down"), &bob).await.json;
    assert_eq!(part["order"], json!([post["id"], reply["id"]]));
    assert_eq!(part["has_next"], false);

    let reaction = json!({ "user_id": world.bob.id, "post_id": post["id"], "emoji_name": "+1" }).to_string();
    assert_eq!(site.post("/api/v4/reactions", &bob, reaction).await.status, 200);
    assert_eq!(site.get(&format!("{path}/reactions"), &bob).await.json[0]["emoji_name"], "+1");
    let foreign = json!({ "user_id": world.admin.id, "post_id": post["id"], "emoji_name": "+1" }).to_string();
    assert_eq!(site.post("/api/v4/reactions", &bob, foreign).await.status, 403);
    let mine = format!("/api/v4/users/me/posts/{}/reactions/%2B1", post["id"].as_str().unwrap());
    assert_eq!(site.request(&Method::DELETE, &mine, &bob, "").await.status, 200);
    assert_eq!(site.get(&format!("{path}/reactions"), &bob).await.text(), "null", "as the real server has it");

    let none = "x".repeat(26);
    let by_ids = site.post("/api/v4/posts/ids", &bob, json!([post["id"], none]).to_string()).await;
    assert_eq!(
        (by_ids.status, &by_ids.json[0]["id"], by_ids.json.as_array().map(Vec::len)),
        (200, &post["id"], Some(1))
    );
    let by_ids = site.post("/api/v4/posts/ids", &bob, json!([none]).to_string()).await;
    assert_eq!((by_ids.status, by_ids.id()), (404, "app.post.get.app_error"));

    assert_eq!(site.post(&format!("{path}/pin"), &bob, "").await.status, 200);
    let pinned = site.get(&format!("/api/v4/channels/{}/pinned", world.channel), &bob).await.json;
    assert_eq!(pinned["order"], json!([post["id"]]));

    let others = site.say(&world.admin, &world.channel, "by the admin").await;
    let others = format!("/api/v4/posts/{}", others["id"].as_str().unwrap());
    assert_eq!(site.request(&Method::DELETE, &others, &bob, "").await.status, 403, "not bob's to delete");
    assert_eq!(site.request(&Method::DELETE, &path, &bob, "").await.status, 200);
    assert_eq!(site.get(&path, &bob).await.status, 404);
    assert_eq!(site.get(&format!("{path}?include_deleted=true"), &bob).await.status, 403);
}

#[tokio::test]
async fn what_was_not_read_is_counted_until_it_is_viewed() {
    let site = Site::new().await;
    let world = site.world().await;
    let bob = world.bob.bearer();
    site.clock.step(1_000);
    site.say(&world.admin, &world.channel, "news").await;
    let unread = format!("/api/v4/users/me/channels/{}/unread", world.channel);
    assert!(site.get(&unread, &bob).await.json["msg_count"].as_i64().unwrap() > 0);
    let around = format!("/api/v4/users/me/channels/{}/posts/unread?limit_after=30&limit_before=30", world.channel);
    assert_eq!(site.get(&around, &bob).await.status, 200);
    let view = json!({ "channel_id": world.channel, "prev_channel_id": "" }).to_string();
    let viewed = site.post("/api/v4/channels/members/me/view", &bob, view).await;
    assert_eq!(viewed.json["status"], "OK");
    assert_eq!(site.get(&unread, &bob).await.json["msg_count"], 0);
}

// --- files

#[tokio::test]
async fn a_file_goes_up_bare_and_comes_down_whole_and_in_parts() {
    let site = Site::new().await;
    let world = site.world().await;
    let bob = world.bob.bearer();
    let content: Vec<u8> = (0..50_000u32).map(|n| (n % 251) as u8).collect();
    let path = format!("/api/v4/files?channel_id={}&filename=a%20map.bin", world.channel);
    let up = site.post(&path, &bob, content.clone()).await;
    assert_eq!(up.status, 201, "{}", up.json);
    let info = &up.json["file_infos"][0];
    assert_eq!((info["name"].as_str(), info["size"].as_i64()), (Some("a map.bin"), Some(50_000)));
    let file = format!("/api/v4/files/{}", info["id"].as_str().unwrap());

    let whole = site.get(&file, &bob).await;
    assert_eq!(whole.body, content);
    assert_eq!(
        whole.header("content-disposition"),
        "attachment;filename=\"a%20map.bin\"; filename*=UTF-8''a%20map.bin"
    );
    let part = site.get(&file, &[bob[0].clone(), ("range", "bytes=100-199".into())]).await;
    assert_eq!((part.status, part.header("content-range")), (206, "bytes 100-199/50000"));
    assert_eq!(part.body, content[100..200]);
    let tail = site.get(&file, &[bob[0].clone(), ("range", "bytes=-10".into())]).await;
    assert_eq!(tail.body, content[49_990..]);
    let counted = &site.metrics.mission_http_requests_total;
    assert_eq!(counted.get((RequestKind::File, StatusClass::Success)), 4, "up, whole, and two parts");
    let bytes = &site.metrics.mission_http_body_bytes_total;
    assert!(bytes.get((Direction::Up,)) > 50_110 && bytes.get((Direction::Down,)) > 50_000);
    let outside = site.get(&file, &[bob[0].clone(), ("range", "bytes=50000-".into())]).await;
    assert_eq!((outside.status, outside.header("content-range")), (416, "bytes */50000"));
    let thumbnail = site.get(&format!("{file}/thumbnail"), &bob).await;
    assert_eq!((thumbnail.status, thumbnail.id()), (400, "api.file.get_file_thumbnail.no_thumbnail.app_error"));
    assert_eq!(site.get(&format!("{file}/info"), &bob).await.json["id"], info["id"]);

    let post = json!({ "channel_id": world.channel, "message": "see", "file_ids": [info["id"]] }).to_string();
    let post = site.post("/api/v4/posts", &bob, post).await.json;
    assert_eq!(post["metadata"]["files"][0]["id"], info["id"]);
}

#[tokio::test]
async fn a_form_may_name_the_channel_after_the_files() {
    let site = Site::new().await;
    let world = site.world().await;
    let file =
        "Content-Disposition: form-data; name=\"files\"; filename=\"n.txt\"\r\nContent-Type: text/plain\r\n\r\nhello";
    let channel = format!("Content-Disposition: form-data; name=\"channel_id\"\r\n\r\n{}", world.channel);
    let client = "Content-Disposition: form-data; name=\"client_ids\"\r\n\r\nc1".to_owned();
    for parts in
        [vec![channel.clone(), client.clone(), file.to_owned()], vec![file.to_owned(), client.clone(), channel.clone()]]
    {
        let answer = site.form(&world.bob, &parts).await;
        assert_eq!(answer.status, 201, "{}", answer.json);
        assert_eq!(answer.json["client_ids"], json!(["c1"]));
        let path = format!("/api/v4/files/{}", answer.json["file_infos"][0]["id"].as_str().unwrap());
        assert_eq!(site.get(&path, &world.bob.bearer()).await.body, *b"hello");
    }
    let big = "x".repeat(FILE_MAX);
    let large = format!("Content-Disposition: form-data; name=\"files\"; filename=\"large\"\r\n\r\n{big}");
    let answer = site.form(&world.bob, &[channel.clone(), large]).await;
    assert_eq!(answer.json["file_infos"][0]["size"], FILE_MAX, "{}", answer.json);
    let unpaired = site.form(&world.bob, &[channel, client.clone(), client]).await;
    assert_eq!(unpaired.id(), "api.file.upload_file.incorrect_number_of_client_ids.app_error");
}

#[tokio::test]
async fn files_in_front_of_their_channel_wait_in_memory_up_to_a_sum() {
    let site = Site::new().await;
    let world = site.world().await;
    let half = "x".repeat(5 * 1024 * 1024);
    let file = format!("Content-Disposition: form-data; name=\"files\"; filename=\"n.bin\"\r\n\r\n{half}");
    let answer = site.form(&world.bob, &[file.clone(), file]).await;
    assert_eq!((answer.status, answer.id()), (413, "api.context.request_body_too_large.app_error"));
}

#[tokio::test]
async fn a_hash_keeps_its_turn_when_whoever_asked_hangs_up() {
    let site = Site::new().await;
    let state = ApiState::new(site.core.clone(), site.hub.clone(), HttpSettings::default());
    let (begun, has_begun) = tokio::sync::oneshot::channel();
    let (go_on, waits) = std::sync::mpsc::channel::<()>();
    let hash = state.hashing(move || {
        begun.send(()).unwrap();
        waits.recv().unwrap();
        Ok(())
    });
    tokio::select! {
        _ = hash => panic!("it waits"),
        begun = has_begun => begun.unwrap(),
    }
    assert_eq!(state.hashing.available_permits(), HASHING_MAX - 1);
    go_on.send(()).unwrap();
    let every = u32::try_from(HASHING_MAX).unwrap();
    drop(state.hashing.acquire_many(every).await.unwrap());
}

#[tokio::test]
async fn a_file_over_the_limit_is_refused_whichever_way_it_comes() {
    let site = Site::new().await;
    let world = site.world().await;
    let path = format!("/api/v4/files?channel_id={}&filename=big", world.channel);
    let bare = site.post(&path, &world.bob.bearer(), vec![0; FILE_MAX + 1]).await;
    assert_eq!(bare.status, 413);
    let channel = format!("Content-Disposition: form-data; name=\"channel_id\"\r\n\r\n{}", world.channel);
    let big = "x".repeat(FILE_MAX + 1);
    let file = format!("Content-Disposition: form-data; name=\"files\"; filename=\"big\"\r\n\r\n{big}");
    let form = site.form(&world.bob, &[channel, file]).await;
    assert_eq!((form.status, form.id()), (413, "api.file.upload_file.too_large_detailed.app_error"));
}

#[tokio::test]
async fn a_file_that_has_not_arrived_says_that_it_will_come() {
    let site = Site::new().await;
    let world = site.world().await;
    let file: model::Id = "qqqqqqqqqqqqqqqqqqqqqqqqqq".parse().unwrap();
    let stub = model::event::FileStub {
        id: file,
        create_at: site.clock.now(),
        name: "map.pdf".to_owned(),
        extension: "pdf".to_owned(),
        size: 1_234_567,
        mime_type: "application/pdf".to_owned(),
        width: 0,
        height: 0,
    };
    let origin = NodeId([8; 16]);
    let at = site.clock.now();
    let post = model::event::PostState {
        version: model::Version { at: HybridClock::default().tick(at), by: origin },
        id: "pppppppppppppppppppppppppp".parse().unwrap(),
        channel_id: world.channel.parse().unwrap(),
        user_id: world.admin.id.parse().unwrap(),
        root_id: None,
        create_at: at,
        update_at: at,
        edit_at: model::UnixMillis(0),
        delete_at: model::UnixMillis(0),
        message: "the map follows".to_owned(),
        kind: String::new(),
        props: String::new(),
        hashtags: String::new(),
        is_pinned: false,
        files: vec![stub],
        priority: None,
    };
    let entry = model::EntryId { origin, epoch: model::Epoch::FIRST, seq: model::Seq::FIRST };
    let incoming = crate::Incoming { id: entry, event: model::Event::Post(post), content: None };
    let core = site.core.clone();
    let applied = tokio::task::spawn_blocking(move || core.replica().apply(vec![incoming]).unwrap()).await.unwrap();
    assert_eq!(applied, [crate::Applied::Applied]);

    let path = format!("/api/v4/files/{file}");
    for path in [path.clone(), format!("{path}/preview"), format!("{path}/thumbnail")] {
        let answer = site.get(&path, &world.bob.bearer()).await;
        assert_eq!((answer.status, answer.id()), (404, "holdfast.file.not_here_yet.app_error"), "{path}");
        assert!(answer.json["message"].as_str().unwrap().contains("map.pdf"));
    }
    let info = site.get(&format!("{path}/info"), &world.bob.bearer()).await;
    assert_eq!(info.json["size"], 1_234_567);

    // Looking at a channel asks for pictures of it; only who wants the file itself asks for it.
    let core = site.core.clone();
    let requests = tokio::task::spawn_blocking(move || core.file_requests().unwrap()).await.unwrap();
    assert_eq!(requests, [(file, model::Precedence::Routine)]);
    let outlook = crate::FileOutlook { missing_bytes: 700, seconds: (40, 60) };
    site.core.set_file_outlook(std::sync::Arc::new(move |_| Some(outlook)));
    let answer = site.get(&path, &world.bob.bearer()).await;
    assert_eq!((answer.status, answer.id()), (404, "holdfast.file.not_here_yet.app_error"));
    assert_eq!(answer.header("retry-after"), "60");
    assert!(answer.json["message"].as_str().unwrap().contains("700 bytes of it are missing"));
}

// --- sockets

#[tokio::test]
async fn a_socket_greets_delivers_and_answers() {
    let site = Site::new().await;
    let world = site.world().await;
    let mut socket = site.socket("", Some(&world.bob)).await.unwrap();
    let hello = socket.next_json().await;
    assert_eq!((hello["event"].as_str(), hello["seq"].as_i64()), (Some("hello"), Some(0)));
    assert_eq!(hello["data"]["connection_id"].as_str().unwrap().len(), 26);
    assert!(hello["data"]["server_version"].as_str().unwrap().starts_with("11.6.0."));
    assert_eq!(hello["broadcast"]["user_id"], world.bob.id);

    socket.send(json!({ "seq": 1, "action": "ping" })).await;
    let pong = socket.next_reply().await;
    assert_eq!((pong["seq_reply"].as_i64(), pong["data"]["text"].as_str()), (Some(1), Some("pong")));
    assert!(pong.get("seq").is_none());
    socket.send(json!({ "seq": 2, "action": "no_such_thing" })).await;
    let refused = socket.next_reply().await;
    assert_eq!((refused["status"].as_str(), refused["seq_reply"].as_i64()), (Some("FAIL"), Some(2)));
    assert_eq!(refused["error"]["id"], "api.web_socket_router.bad_action.app_error");
    socket.send(json!({ "seq": 3, "action": "get_statuses" })).await;
    assert_eq!(socket.next_reply().await["data"][world.bob.id.as_str()], "online");

    let said = site.say(&world.admin, &world.channel, "hear ye").await;
    let posted = socket.next_event("posted").await;
    let post: Value = serde_json::from_str(posted["data"]["post"].as_str().unwrap()).unwrap();
    assert_eq!(post["id"], said["id"]);
    assert_eq!(posted["broadcast"]["channel_id"], world.channel);
}

#[tokio::test]
async fn a_socket_may_log_in_by_challenge_and_a_bad_token_closes_it() {
    let site = Site::new().await;
    let world = site.world().await;
    let mut socket = site.socket("", None).await.unwrap();
    let challenge = |token: &str| json!({ "seq": 1, "action": "authentication_challenge", "data": { "token": token } });
    socket.send(challenge(&world.bob.token)).await;
    assert_eq!(socket.next_json().await["event"], "hello");
    assert_eq!(socket.next_json().await, json!({ "status": "OK", "seq_reply": 1 }));
    let mut stranger = site.socket("", None).await.unwrap();
    stranger.send(challenge("ybndrfg8ejkmcpqxot1uwisza3")).await;
    stranger.ended().await;
}

#[tokio::test]
async fn a_page_of_another_site_opens_no_socket() {
    let site = Site::new().await;
    let world = site.world().await;
    let refused = site.socket_with("", Some(&world.bob), Some("http://evil.example")).await.err();
    assert!(matches!(refused, Some(tungstenite::Error::Http(answer)) if answer.status() == 400));
    let own = format!("http://{}", site.address);
    assert!(site.socket_with("", Some(&world.bob), Some(&own)).await.is_ok());
}

#[tokio::test]
async fn a_client_that_returns_gets_what_it_missed_without_a_new_greeting() {
    let site = Site::new().await;
    let world = site.world().await;
    let mut socket = site.socket("", Some(&world.bob)).await.unwrap();
    let connection = socket.next_json().await["data"]["connection_id"].as_str().unwrap().to_owned();
    site.say(&world.admin, &world.channel, "one").await;
    let one = socket.next_event("posted").await["seq"].as_u64().unwrap();
    socket.close().await;
    site.until(|| site.hub.active_connections() == 0).await;
    site.say(&world.admin, &world.channel, "two").await;

    let query = format!("?connection_id={connection}&sequence_number={}", one + 1);
    let mut back = site.socket(&query, Some(&world.bob)).await.unwrap();
    let first = back.next_json().await;
    assert_eq!(first["seq"].as_u64(), Some(one + 1), "numbering continues: {first}");
    assert_ne!(first["event"], "hello");
    let two = if first["event"] == "posted" { first } else { back.next_event("posted").await };
    assert!(two["data"]["post"].as_str().unwrap().contains("two"));

    // While the socket lives, nobody else takes over its queues.
    let mut other = site.socket(&query, Some(&world.bob)).await.unwrap();
    let hello = other.next_json().await;
    assert_eq!(hello["event"], "hello");
    assert_ne!(hello["data"]["connection_id"], json!(connection));
}

#[tokio::test]
async fn a_client_that_missed_too_much_is_greeted_anew() {
    let site = Site::new().await;
    let world = site.world().await;
    let mut socket = site.socket("", Some(&world.bob)).await.unwrap();
    let connection = socket.next_json().await["data"]["connection_id"].as_str().unwrap().to_owned();
    socket.close().await;
    site.until(|| site.hub.active_connections() == 0).await;
    for n in 0..300 {
        site.hub.publish(crate::events::Broadcast::to_all("user_updated").with("n", n));
    }
    let mut back =
        site.socket(&format!("?connection_id={connection}&sequence_number=1"), Some(&world.bob)).await.unwrap();
    let hello = back.next_json().await;
    assert_eq!((hello["event"].as_str(), hello["seq"].as_i64()), (Some("hello"), Some(0)));
    assert_ne!(hello["data"]["connection_id"], json!(connection));
    let unknown = format!("?connection_id={connection}&sequence_number=x");
    let mut senseless = site.socket(&unknown, Some(&world.bob)).await.unwrap();
    senseless.ended().await;
}

#[tokio::test]
async fn a_client_that_does_not_read_loses_its_connection_and_nobody_waits_for_it() {
    let site = Site::new().await;
    let world = site.world().await;
    let mut lazy = site.socket("", Some(&world.bob)).await.unwrap();
    assert_eq!(lazy.next_json().await["event"], "hello");
    // More than the buffers of both sockets hold, so that the queue behind them fills.
    let filler = "x".repeat(100_000);
    for _ in 0..2_000 {
        site.hub.publish(crate::events::Broadcast::to_all("user_updated").with("filler", filler.as_str()));
        if site.hub.active_connections() == 0 {
            break;
        }
    }
    let query = "";
    let mut other = site.socket(query, Some(&world.admin)).await.unwrap();
    assert_eq!(other.next_json().await["event"], "hello", "others are served");
    lazy.ended().await;
}

#[tokio::test]
async fn typing_reaches_who_looks_at_the_channel_and_never_who_types() {
    let site = Site::new().await;
    let world = site.world().await;
    let mut bob = site.socket("", Some(&world.bob)).await.unwrap();
    let mut admin = site.socket("", Some(&world.admin)).await.unwrap();
    bob.next_json().await;
    admin.next_json().await;
    let typing = json!({ "seq": 1, "action": "user_typing", "data": { "channel_id": world.channel, "parent_id": "" } });
    bob.send(typing.clone()).await;
    assert_eq!(bob.next_reply().await["status"], "OK");
    let heard = admin.next_event("typing").await;
    assert_eq!(heard["data"]["user_id"], world.bob.id);
    assert_eq!(heard["broadcast"]["omit_users"], json!({ world.bob.id.clone(): true }));

    let by_rest = json!({ "channel_id": world.channel }).to_string();
    assert_eq!(site.post("/api/v4/users/me/typing", &world.bob.bearer(), by_rest).await.status, 200);
    assert_eq!(admin.next_event("typing").await["data"]["parent_id"], "");

    for (seq, shown) in [
        (2, json!({ "channel_id": world.other_channel })),
        (3, json!({ "thread_channel_id": "", "is_thread_view": true })),
        (4, json!({ "thread_channel_id": "", "is_thread_view": false })),
    ] {
        admin.send(json!({ "seq": seq, "action": "presence", "data": shown })).await;
        assert_eq!(admin.next_reply().await["seq_reply"], seq);
    }
    bob.send(typing).await;
    assert_eq!(bob.next_reply().await["status"], "OK");
    site.say(&world.bob, &world.channel, "marker").await;
    let next = admin.next_of(&["typing", "posted"]).await;
    assert_eq!(next["event"], "posted", "typing in another channel is left out");
}

#[tokio::test]
async fn when_the_hub_stops_every_socket_is_told_and_every_task_ends() {
    let site = Site::new().await;
    let world = site.world().await;
    let mut socket = site.socket("", Some(&world.bob)).await.unwrap();
    socket.next_json().await;
    let mut left = site.socket("", Some(&world.bob)).await.unwrap();
    left.next_json().await;
    left.close().await;
    site.stop.cancel();
    tokio::time::timeout(Duration::from_secs(5), site.hub.ended()).await.expect("all tasks end");
    socket.ended().await;
}

// --- helpers

use serde_json::json;

use crate::events::EventSink as _;

const PASSWORD: &str = "correct horse 1";
/// More than the 2 MiB at which axum stops reading by itself.
const FILE_MAX: usize = 7 * 1024 * 1024;

/// A path with something valid in place of every parameter.
fn filled_in(path: &str) -> String {
    let parts = path.split('/').map(|part| match part {
        "{user_id}" => "me",
        part if part.ends_with("_id}") => "ybndrfg8ejkmcpqxot1uwisza3",
        part if part.starts_with('{') => "name",
        part => part,
    });
    parts.collect::<Vec<_>>().join("/")
}

struct Site {
    dir: tempfile::TempDir,
    _server: JoinSet<()>,
    client: Client<HttpConnector, Full<Bytes>>,
    address: std::net::SocketAddr,
    core: Core,
    hub: WsHub,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
    clock: Arc<TestClock>,
}

/// A team with a channel, an administrator and bob in it.
struct World {
    admin: Person,
    bob: Person,
    team: String,
    channel: String,
    other_channel: String,
}

struct Person {
    id: String,
    token: String,
}

impl Person {
    fn bearer(&self) -> [(&'static str, String); 1] {
        [("authorization", format!("Bearer {}", self.token))]
    }
}

struct TestClock(AtomicI64);

impl TestClock {
    fn step(&self, ms: i64) {
        self.0.fetch_add(ms, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    /// Moves a little with every look, so that nothing happens at the same moment.
    fn now(&self) -> model::UnixMillis {
        model::UnixMillis(self.0.fetch_add(1, Ordering::SeqCst))
    }
}

struct CountingMint(AtomicU64);

impl IdMint for CountingMint {
    fn mint(&self) -> model::Id {
        let n = self.0.fetch_add(1, Ordering::SeqCst);
        model::Id::from_block(u128::from(n).to_le_bytes())
    }
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
    json: Value,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }

    fn cookies(&self) -> Vec<&str> {
        self.headers.get_all("set-cookie").iter().map(|v| v.to_str().unwrap()).collect()
    }

    fn id(&self) -> &str {
        self.json["id"].as_str().unwrap_or("")
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

impl Site {
    async fn new() -> Self {
        Self::at(tempfile::tempdir().unwrap(), 1, 1_800_000_000_000).await
    }

    /// Opens what is in `dir`; new ids count from `first_id`.
    async fn at(dir: tempfile::TempDir, first_id: u64, now: i64) -> Self {
        Self::with(dir, first_id, now, HttpSettings::default()).await
    }

    async fn with(dir: tempfile::TempDir, first_id: u64, now: i64, http: HttpSettings) -> Self {
        Self::with_tab(dir, first_id, now, http, None).await
    }

    async fn with_tab(dir: tempfile::TempDir, first_id: u64, now: i64, http: HttpSettings, tab: Option<Tab>) -> Self {
        let stop = CancellationToken::new();
        let hub = WsHub::new(stop.clone());
        let clock = Arc::new(TestClock(AtomicI64::new(now)));
        let settings = CoreSettings {
            site_name: "Test site".to_owned(),
            max_file_bytes: FILE_MAX as u64,
            integrations: IntegrationSettings {
                allowed_internal: vec!["127.0.0.1".to_owned()],
                timeout_seconds: 5,
                username_override: true,
                icon_override: true,
            },
            ..CoreSettings::default()
        };
        let core = Core::open(CoreOptions {
            dir: dir.path().to_owned(),
            node: NodeId([7; 16]),
            node_name: "alpha".to_owned(),
            mint: Arc::new(CountingMint(AtomicU64::new(first_id))),
            clock: clock.clone(),
            hybrid: Arc::new(HybridClock::default()),
            events: Arc::new(hub.clone()),
            settings,
        })
        .unwrap();
        let metrics = Arc::new(Metrics::new());
        let state = ApiState::new(core.clone(), hub.clone(), http);
        let mut state = state.with_metrics(Arc::clone(&metrics));
        if let Some(tab) = tab {
            state = state.with_tab(tab);
        }
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut server = JoinSet::new();
        let stopped = stop.clone();
        server.spawn(async move { serve(listener, state, stopped).await.unwrap() });
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { dir, _server: server, client, address, core, hub, metrics, stop, clock }
    }

    async fn request(&self, method: &Method, path: &str, headers: &[(&str, String)], body: impl Into<Bytes>) -> Answer {
        let mut request = http::Request::builder().method(method).uri(format!("http://{}{path}", self.address));
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let request = request.body(Full::new(body.into())).unwrap();
        let response = self.client.request(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes().to_vec();
        let json = serde_json::from_slice(&body).unwrap_or(Value::Null);
        Answer { status: parts.status.as_u16(), headers: parts.headers, body, json }
    }

    async fn get(&self, path: &str, headers: &[(&str, String)]) -> Answer {
        self.request(&Method::GET, path, headers, "").await
    }

    async fn post(&self, path: &str, headers: &[(&str, String)], body: impl Into<Bytes>) -> Answer {
        self.request(&Method::POST, path, headers, body).await
    }

    async fn form(&self, by: &Person, parts: &[String]) -> Answer {
        let body: String = parts.iter().map(|part| format!("--cut\r\n{part}\r\n")).collect();
        let kind = ("content-type", "multipart/form-data; boundary=cut".to_owned());
        self.post("/api/v4/files", &[by.bearer()[0].clone(), kind], format!("{body}--cut--\r\n")).await
    }

    /// An ordinary user who is logged in.
    async fn user(&self, name: &str) -> Person {
        let admin = self.admin().await;
        let email = format!("{name}@site.example");
        let body = json!({ "username": name, "email": email, "password": PASSWORD }).to_string();
        let made = self.post("/api/v4/users", &admin.bearer(), body).await;
        assert_eq!(made.status, 201, "{}", made.json);
        self.login(name).await
    }

    async fn admin(&self) -> Person {
        let core = self.core.clone();
        let make = move || core.operator_creates_user("root", "root@site.example", PASSWORD, true);
        // Whoever asked first made it.
        let _ = tokio::task::spawn_blocking(make).await.unwrap();
        self.login("root").await
    }

    async fn login(&self, name: &str) -> Person {
        let body = json!({ "login_id": name, "password": PASSWORD }).to_string();
        let answer = self.post("/api/v4/users/login", &[], body).await;
        assert_eq!(answer.status, 200, "{}", answer.json);
        Person { id: answer.json["id"].as_str().unwrap().to_owned(), token: answer.header("token").to_owned() }
    }

    async fn world(&self) -> World {
        let bob = self.user("bob").await;
        let admin = self.admin().await;
        let made = |answer: Answer| {
            assert_eq!(answer.status, 201, "{}", answer.json);
            answer.json["id"].as_str().unwrap_or("").to_owned()
        };
        let new = json!({ "name": "mission", "display_name": "Mission", "type": "O" }).to_string();
        let team = made(self.post("/api/v4/teams", &admin.bearer(), new).await);
        let member = json!({ "team_id": team, "user_id": bob.id }).to_string();
        made(self.post(&format!("/api/v4/teams/{team}/members"), &admin.bearer(), member).await);
        let mut channels = Vec::new();
        for name in ["ops", "log"] {
            let new = json!({ "team_id": team, "name": name, "display_name": name, "type": "O" }).to_string();
            let channel = made(self.post("/api/v4/channels", &admin.bearer(), new).await);
            let member = json!({ "user_id": bob.id }).to_string();
            made(self.post(&format!("/api/v4/channels/{channel}/members"), &admin.bearer(), member).await);
            channels.push(channel);
        }
        let other_channel = channels.pop().unwrap();
        World { admin, bob, team, channel: channels.pop().unwrap(), other_channel }
    }

    async fn say(&self, by: &Person, channel: &str, message: &str) -> Value {
        let body = json!({ "channel_id": channel, "message": message }).to_string();
        let answer = self.post("/api/v4/posts", &by.bearer(), body).await;
        assert_eq!(answer.status, 201, "{}", answer.json);
        answer.json
    }

    async fn reply(&self, by: &Person, channel: &str, root: &str, message: &str) -> Value {
        let body = json!({ "channel_id": channel, "root_id": root, "message": message }).to_string();
        let answer = self.post("/api/v4/posts", &by.bearer(), body).await;
        assert_eq!(answer.status, 201, "{}", answer.json);
        answer.json
    }

    /// One more member of the world's team and first channel.
    async fn member(&self, name: &str, world: &World) -> Person {
        let person = self.user(name).await;
        let team = json!({ "team_id": world.team, "user_id": person.id }).to_string();
        let added = self.post(&format!("/api/v4/teams/{}/members", world.team), &world.admin.bearer(), team).await;
        assert_eq!(added.status, 201, "{}", added.json);
        let channel = json!({ "user_id": person.id }).to_string();
        let path = format!("/api/v4/channels/{}/members", world.channel);
        assert_eq!(self.post(&path, &world.admin.bearer(), channel).await.status, 201);
        person
    }

    /// Applies everything that another node has to send.
    async fn receive(&self, node: &Node) {
        self.receive_all(&node.drain()).await;
    }

    async fn receive_all(&self, sent: &[Sent]) {
        let (core, sent) = (self.core.clone(), sent.to_vec());
        let apply = move || crate::testkit::apply(&core, &sent);
        let applied = tokio::task::spawn_blocking(apply).await.unwrap();
        assert!(applied.iter().all(|a| *a == crate::Applied::Applied), "{applied:?}");
    }

    /// Gives a user who came from elsewhere a password here, and logs them in.
    async fn enrol(&self, name: &str) -> Person {
        let admin = self.admin().await;
        let user = self.get(&format!("/api/v4/users/username/{name}"), &admin.bearer()).await.json;
        let path = format!("/api/v4/users/{}/password", user["id"].as_str().unwrap());
        let body = json!({ "new_password": PASSWORD }).to_string();
        let set = self.request(&Method::PUT, &path, &admin.bearer(), body).await;
        assert_eq!(set.status, 200, "{}", set.json);
        self.login(name).await
    }

    async fn socket(&self, query: &str, by: Option<&Person>) -> Result<Socket, tungstenite::Error> {
        self.socket_with(query, by, None).await
    }

    async fn socket_with(
        &self,
        query: &str,
        by: Option<&Person>,
        origin: Option<&str>,
    ) -> Result<Socket, tungstenite::Error> {
        let uri = format!("ws://{}/api/v4/websocket{query}", self.address);
        let mut request = uri.into_client_request().unwrap();
        if let Some(by) = by {
            request.headers_mut().insert("authorization", by.bearer()[0].1.parse().unwrap());
        }
        if let Some(origin) = origin {
            request.headers_mut().insert("origin", origin.parse().unwrap());
        }
        tokio_tungstenite::connect_async(request).await.map(|(socket, _)| Socket(socket))
    }

    /// Polls until something happened elsewhere.
    async fn until(&self, happened: impl Fn() -> bool) {
        let wait = async {
            while !happened() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), wait).await.expect("it happens in time");
    }
}

struct Socket(tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>>);

impl Socket {
    async fn send(&mut self, request: Value) {
        self.0.send(Message::Text(request.to_string().into())).await.unwrap();
    }

    async fn next_json(&mut self) -> Value {
        let next = async {
            loop {
                match self.0.next().await {
                    Some(Ok(Message::Text(text))) => return serde_json::from_str(&text).unwrap(),
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                    other => panic!("a message was expected, not {other:?}"),
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(10), next).await.expect("a message comes in time")
    }

    async fn next_of(&mut self, events: &[&str]) -> Value {
        loop {
            let message = self.next_json().await;
            if message["event"].as_str().is_some_and(|event| events.contains(&event)) {
                return message;
            }
        }
    }

    async fn next_event(&mut self, event: &str) -> Value {
        self.next_of(&[event]).await
    }

    async fn next_reply(&mut self) -> Value {
        loop {
            let message = self.next_json().await;
            if message.get("seq_reply").is_some() {
                return message;
            }
        }
    }

    /// Waits until the server ended the connection, reading what it still sends.
    async fn ended(&mut self) {
        let end = async {
            loop {
                match self.0.next().await {
                    None | Some(Err(_) | Ok(Message::Close(_))) => return,
                    Some(Ok(_)) => {}
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), end).await.expect("the server ends it");
    }

    async fn close(&mut self) {
        self.0.close(None).await.unwrap();
    }
}
