//! Drafts, scheduled posts, reminders and messages that nobody keeps, through the API.

use super::*;

async fn due(site: &Site) {
    let core = site.core.clone();
    tokio::task::spawn_blocking(move || core.do_due().unwrap()).await.unwrap();
}

async fn messages(site: &Site, by: &Person, channel: &str) -> Vec<String> {
    let list = site.get(&format!("/api/v4/channels/{channel}/posts"), &by.bearer()).await.json;
    let order = list["order"].as_array().unwrap().clone();
    order.iter().map(|id| list["posts"][id.as_str().unwrap()]["message"].as_str().unwrap().to_owned()).collect()
}

/// The channel in which the node's own bot talks to somebody.
async fn from_the_node(site: &Site, by: &Person) -> Vec<Value> {
    let channels = site.get("/api/v4/users/me/channels", &by.bearer()).await.json;
    let direct = channels.as_array().unwrap().iter().find(|c| c["type"] == "D").expect("the bot wrote").clone();
    let list = site.get(&format!("/api/v4/channels/{}/posts", direct["id"].as_str().unwrap()), &by.bearer()).await.json;
    let order = list["order"].as_array().unwrap().clone();
    order.iter().map(|id| list["posts"][id.as_str().unwrap()].clone()).collect()
}

#[tokio::test]
async fn a_draft_is_shared_by_the_clients_of_its_writer_and_by_nobody_else() {
    let site = Site::new().await;
    let world = site.world().await;
    let bob = &world.bob;
    let mut here = site.socket("", Some(bob)).await.unwrap();
    let connection = here.next_json().await["data"]["connection_id"].as_str().unwrap().to_owned();
    let mut there = site.socket("", Some(bob)).await.unwrap();
    there.next_json().await;
    let file = format!("/api/v4/files?channel_id={}&filename=a.txt", world.channel);
    let file = site.post(&file, &bob.bearer(), "text").await.json["file_infos"][0]["id"].clone();
    let from_here = [bob.bearer()[0].clone(), ("connection-id", connection.clone())];
    let new = json!({
        "channel_id": world.channel, "root_id": "", "message": "hal", "file_ids": [file], "props": {},
        "priority": { "priority": "urgent", "requested_ack": true },
    });
    let saved = site.post("/api/v4/drafts", &from_here, new.to_string()).await;
    assert_eq!(saved.status, 201, "{}", saved.json);
    assert_eq!(
        (&saved.json["message"], &saved.json["user_id"], &saved.json["delete_at"]),
        (&json!("hal"), &json!(bob.id), &json!(0))
    );
    assert_eq!(saved.json["metadata"]["files"][0]["name"], "a.txt");
    let told = there.next_event("draft_created").await;
    assert_eq!(told["broadcast"]["omit_connection_id"], connection);
    assert_eq!(
        (&told["broadcast"]["user_id"], &told["broadcast"]["channel_id"]),
        (&json!(bob.id), &json!(world.channel))
    );
    assert_eq!(serde_json::from_str::<Value>(told["data"]["draft"].as_str().unwrap()).unwrap(), saved.json);

    site.clock.step(1_000);
    let again = json!({ "channel_id": world.channel, "message": "half a sentence" }).to_string();
    let again = site.post("/api/v4/drafts", &from_here, again).await.json;
    assert_eq!(again["create_at"], saved.json["create_at"]);
    assert!(again["update_at"].as_i64() > saved.json["update_at"].as_i64());
    let list = format!("/api/v4/users/me/teams/{}/drafts", world.team);
    assert_eq!(site.get(&list, &bob.bearer()).await.json, json!([again]));
    assert_eq!(site.get(&list, &world.admin.bearer()).await.text(), "null", "as the real server has it");

    let one = format!("/api/v4/users/me/channels/{}/drafts", world.channel);
    assert_eq!(site.request(&Method::DELETE, &one, &from_here, "").await.json, json!({ "status": "OK" }));
    there.next_event("draft_deleted").await;
    assert_eq!(site.request(&Method::DELETE, &one, &from_here, "").await.status, 200, "it is gone already");
    // What happened here was told there; here the next event is another.
    site.say(&world.admin, &world.channel, "marker").await;
    let next = here.next_of(&["draft_created", "draft_deleted", "posted"]).await;
    assert_eq!(next["event"], "posted");
}

#[tokio::test]
async fn a_draft_goes_with_an_empty_message_and_with_what_it_answers() {
    let site = Site::new().await;
    let world = site.world().await;
    let bob = world.bob.bearer();
    let root = site.say(&world.bob, &world.channel, "root").await["id"].as_str().unwrap().to_owned();
    let list = format!("/api/v4/users/me/teams/{}/drafts", world.team);
    let draft = |root: &str, message: &str| json!({ "channel_id": world.channel, "root_id": root, "message": message });
    site.post("/api/v4/drafts", &bob, draft(&root, "an answer").to_string()).await;
    site.post("/api/v4/drafts", &bob, draft("", "a message").to_string()).await;
    assert_eq!(site.get(&list, &bob).await.json.as_array().unwrap().len(), 2);
    let emptied = site.post("/api/v4/drafts", &bob, draft("", "").to_string()).await;
    assert_eq!((emptied.status, &emptied.json), (201, &Value::Null));
    assert_eq!(site.get(&list, &bob).await.json[0]["root_id"], root);
    assert_eq!(site.request(&Method::DELETE, &format!("/api/v4/posts/{root}"), &bob, "").await.status, 200);
    assert_eq!(site.get(&list, &bob).await.text(), "null");

    let long = "x".repeat(site.core.settings().max_post_runes + 1);
    for (body, status, id) in [
        (draft("", &long), 400, "model.draft.is_valid.message_length.app_error"),
        (draft("short", "x"), 400, "model.draft.is_valid.root_id.app_error"),
        (json!({ "channel_id": "nowhere", "message": "x" }), 403, "api.context.permissions.app_error"),
    ] {
        let answer = site.post("/api/v4/drafts", &bob, body.to_string()).await;
        assert_eq!((answer.status, answer.id()), (status, id));
    }
}

#[tokio::test]
async fn a_scheduled_post_is_posted_once_when_it_is_due() {
    let site = Site::new().await;
    let world = site.world().await;
    let bob = world.bob.bearer();
    let at = site.clock.now().0 + 60_000;
    let new = json!({ "channel_id": world.channel, "message": "at dawn", "scheduled_at": at,
        "priority": { "priority": "important", "requested_ack": false, "persistent_notifications": false } });
    let made = site.post("/api/v4/posts/schedule", &bob, new.to_string()).await;
    assert_eq!(made.status, 201, "{}", made.json);
    assert_eq!(
        (&made.json["scheduled_at"], &made.json["processed_at"], &made.json["error_code"]),
        (&json!(at), &json!(0), &json!(""))
    );
    let id = made.json["id"].as_str().unwrap().to_owned();
    let list = format!("/api/v4/posts/scheduled/team/{}?includeDirectChannels=true", world.team);
    assert_eq!(site.get(&list, &bob).await.json, json!({ world.team.clone(): [made.json], "directChannels": [] }));
    assert_eq!(site.get(&list, &world.admin.bearer()).await.json[&world.team], json!([]));

    due(&site).await;
    assert!(!messages(&site, &world.bob, &world.channel).await.contains(&"at dawn".to_owned()), "not yet");
    let mut socket = site.socket("", Some(&world.bob)).await.unwrap();
    socket.next_json().await;
    site.clock.step(60_000);
    due(&site).await;
    due(&site).await;
    let said = messages(&site, &world.bob, &world.channel).await;
    assert_eq!(said.iter().filter(|m| *m == "at dawn").count(), 1);
    assert_eq!(site.get(&list, &bob).await.json[&world.team], json!([]));
    let posted: Value =
        serde_json::from_str(socket.next_event("posted").await["data"]["post"].as_str().unwrap()).unwrap();
    assert_eq!(
        (&posted["user_id"], &posted["metadata"]["priority"]["priority"]),
        (&json!(world.bob.id), &json!("important"))
    );
    let told = socket.next_event("scheduled_post_deleted").await;
    let told: Value = serde_json::from_str(told["data"]["scheduledPost"].as_str().unwrap()).unwrap();
    assert_eq!(told["id"], id);
}

#[tokio::test]
async fn the_task_posts_at_the_time_without_being_asked() {
    let site = Site::new().await;
    let world = site.world().await;
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(site.core.clone().keep_times(stop.clone()));
    let mut socket = site.socket("", Some(&world.bob)).await.unwrap();
    socket.next_json().await;
    let at = site.clock.now().0 + 10;
    let new = json!({ "channel_id": world.channel, "message": "by itself", "scheduled_at": at }).to_string();
    assert_eq!(site.post("/api/v4/posts/schedule", &world.bob.bearer(), new).await.status, 201);
    site.clock.step(1_000);
    let told = socket.next_event("posted").await;
    assert!(told["data"]["post"].as_str().unwrap().contains("by itself"));
    stop.cancel();
    tokio::time::timeout(Duration::from_secs(5), tasks.join_next()).await.expect("it stops").unwrap().unwrap();
}

#[tokio::test]
async fn what_cannot_be_posted_says_why_and_its_writer_hears_of_it() {
    let site = Site::new().await;
    let world = site.world().await;
    let bob = world.bob.bearer();
    let root = site.say(&world.admin, &world.channel, "root").await["id"].as_str().unwrap().to_owned();
    let at = site.clock.now().0 + 1_000;
    let schedule = async |channel: &str, root: &str| {
        let new = json!({ "channel_id": channel, "root_id": root, "message": "too late", "scheduled_at": at });
        let made = site.post("/api/v4/posts/schedule", &bob, new.to_string()).await;
        assert_eq!(made.status, 201, "{}", made.json);
        made.json["id"].as_str().unwrap().to_owned()
    };
    let of_thread = schedule(&world.channel, &root).await;
    let of_channel = schedule(&world.other_channel, "").await;
    let admin = world.admin.bearer();
    assert_eq!(site.request(&Method::DELETE, &format!("/api/v4/posts/{root}"), &admin, "").await.status, 200);
    let archived = format!("/api/v4/channels/{}", world.other_channel);
    assert_eq!(site.request(&Method::DELETE, &archived, &admin, "").await.status, 200);
    site.clock.step(2_000);
    due(&site).await;
    let list = format!("/api/v4/posts/scheduled/team/{}", world.team);
    let found = site.get(&list, &bob).await.json[&world.team].as_array().unwrap().clone();
    let code = |id: &str| found.iter().find(|p| p["id"] == id).unwrap()["error_code"].clone();
    assert_eq!((code(&of_thread), code(&of_channel)), (json!("thread_deleted"), json!("channel_archived")));
    let note = from_the_node(&site, &world.bob).await[0]["message"].as_str().unwrap().to_owned();
    assert!(note.contains("2") && note.contains("~log: the channel is archived"), "{note}");

    // Nobody expects any more what was due while the node was off for days.
    let missed =
        json!({ "channel_id": world.channel, "message": "missed", "scheduled_at": site.clock.now().0 + 1_000 });
    let missed = site.post("/api/v4/posts/schedule", &bob, missed.to_string()).await.json;
    site.clock.step(25 * 60 * 60 * 1_000);
    due(&site).await;
    let found = site.get(&list, &bob).await.json[&world.team].as_array().unwrap().clone();
    assert_eq!(found.iter().find(|p| p["id"] == missed["id"]).unwrap()["error_code"], "unable_to_send");

    // Moved to a time to come, and into no error, it waits again.
    let id = missed["id"].as_str().unwrap();
    let mut change = missed.clone();
    change["scheduled_at"] = json!(site.clock.now().0 + 1_000);
    change["message"] = json!("not missed");
    let path = format!("/api/v4/posts/schedule/{id}");
    let changed = site.request(&Method::PUT, &path, &bob, change.to_string()).await;
    assert_eq!((changed.status, &changed.json["message"]), (201, &json!("not missed")));
    site.clock.step(2_000);
    due(&site).await;
    assert!(messages(&site, &world.bob, &world.channel).await.contains(&"not missed".to_owned()));
}

#[tokio::test]
async fn scheduling_is_checked_like_posting_and_others_stay_out() {
    let site = Site::new().await;
    let world = site.world().await;
    let bob = world.bob.bearer();
    let at = site.clock.now().0 + 60_000;
    for (body, status, id) in [
        (
            json!({ "channel_id": world.channel, "message": "x", "scheduled_at": 5 }),
            400,
            "model.scheduled_post.is_valid.scheduled_at.app_error",
        ),
        (
            json!({ "channel_id": world.channel, "message": "", "scheduled_at": at }),
            400,
            "model.scheduled_post.is_valid.empty_post.app_error",
        ),
        (
            json!({ "channel_id": world.team, "message": "x", "scheduled_at": at }),
            403,
            "api.context.permissions.app_error",
        ),
    ] {
        let answer = site.post("/api/v4/posts/schedule", &bob, body.to_string()).await;
        assert_eq!((answer.status, answer.id()), (status, id), "{body}");
    }
    let new = json!({ "channel_id": world.channel, "message": "x", "scheduled_at": at });
    let made = site.post("/api/v4/posts/schedule", &bob, new.to_string()).await.json;
    let path = format!("/api/v4/posts/schedule/{}", made["id"].as_str().unwrap());
    let admin = world.admin.bearer();
    let taken = site.request(&Method::PUT, &path, &admin, made.to_string()).await;
    assert_eq!((taken.status, taken.id()), (403, "app.update_scheduled_post.update_permission.error"));
    let taken = site.request(&Method::DELETE, &path, &admin, "").await;
    assert_eq!((taken.status, taken.id()), (403, "app.delete_scheduled_post.delete_permission.error"));
    assert_eq!(site.request(&Method::DELETE, &path, &bob, "").await.status, 201);
    let gone = site.request(&Method::DELETE, &path, &bob, "").await;
    assert_eq!((gone.status, gone.id()), (404, "app.delete_scheduled_post.existing_scheduled_post.not_exist"));
}

#[tokio::test]
async fn a_reminder_is_confirmed_at_once_and_delivered_when_due() {
    let site = Site::new().await;
    let world = site.world().await;
    let bob = &world.bob;
    let post = site.say(&world.admin, &world.channel, "the plan").await["id"].as_str().unwrap().to_owned();
    let mut socket = site.socket("", Some(bob)).await.unwrap();
    socket.next_json().await;
    let at = site.clock.now().0 / 1_000 + 60;
    let path = format!("/api/v4/users/me/posts/{post}/reminder");
    let set = site.post(&path, &bob.bearer(), json!({ "target_time": at }).to_string()).await;
    assert_eq!(set.json, json!({ "status": "OK" }), "{}", set.json);
    let told = socket.next_event("ephemeral_message").await;
    let said: Value = serde_json::from_str(told["data"]["post"].as_str().unwrap()).unwrap();
    assert_eq!(
        (&said["type"], &said["root_id"], &said["channel_id"]),
        (&json!("system_ephemeral"), &json!(post), &json!(world.channel))
    );
    assert_eq!(
        said["props"],
        json!({ "target_time": at, "team_name": "mission", "post_id": post, "username": "root", "type": "reminder" })
    );
    due(&site).await;
    let channels = site.get("/api/v4/users/me/channels", &bob.bearer()).await.json;
    assert!(channels.as_array().unwrap().iter().all(|c| c["type"] != "D"), "not yet");
    site.clock.step(61_000);
    due(&site).await;
    due(&site).await;
    let delivered = from_the_node(&site, bob).await;
    assert_eq!(delivered.len(), 1);
    assert_eq!((&delivered[0]["type"], &delivered[0]["props"]["post_id"]), (&json!("reminder"), &json!(post)));
    let stranger = site.user("stranger").await;
    let body = json!({ "target_time": at }).to_string();
    assert_eq!(site.post(&path, &stranger.bearer(), body).await.status, 403);
}

#[tokio::test]
async fn an_ephemeral_message_reaches_one_user_and_stays_nowhere() {
    let site = Site::new().await;
    let world = site.world().await;
    let mut bob = site.socket("", Some(&world.bob)).await.unwrap();
    bob.next_json().await;
    let body =
        json!({ "user_id": world.bob.id, "post": { "channel_id": world.channel, "message": "psst" } }).to_string();
    let refused = site.post("/api/v4/posts/ephemeral", &world.bob.bearer(), body.clone()).await;
    assert_eq!(refused.status, 403);
    let sent = site.post("/api/v4/posts/ephemeral", &world.admin.bearer(), body).await;
    assert_eq!((sent.status, &sent.json["type"]), (201, &json!("system_ephemeral")));
    let heard = bob.next_event("ephemeral_message").await;
    assert_eq!(serde_json::from_str::<Value>(heard["data"]["post"].as_str().unwrap()).unwrap(), sent.json);
    let path = format!("/api/v4/posts/{}", sent.json["id"].as_str().unwrap());
    assert_eq!(site.get(&path, &world.bob.bearer()).await.status, 404);
}

#[tokio::test]
async fn a_link_to_a_post_says_where_it_is_to_who_may_join() {
    let site = Site::new().await;
    let world = site.world().await;
    let post = site.say(&world.bob, &world.channel, "x").await["id"].as_str().unwrap().to_owned();
    let path = format!("/api/v4/posts/{post}/info");
    let info = site.get(&path, &world.bob.bearer()).await.json;
    assert_eq!(
        info,
        json!({
            "channel_id": world.channel, "channel_type": "O", "channel_display_name": "ops", "has_joined_channel": true,
            "team_id": world.team, "team_type": "I", "team_display_name": "Mission", "has_joined_team": true,
        })
    );
    let stranger = site.user("stranger").await;
    assert_eq!(site.get(&path, &stranger.bearer()).await.status, 404);
}

#[tokio::test]
async fn an_earlier_version_of_a_post_comes_back_with_its_files() {
    let site = Site::new().await;
    let world = site.world().await;
    let bob = world.bob.bearer();
    let file = format!("/api/v4/files?channel_id={}&filename=a.txt", world.channel);
    let file = site.post(&file, &bob, "text").await.json["file_infos"][0]["id"].clone();
    let new = json!({ "channel_id": world.channel, "message": "first", "file_ids": [file] }).to_string();
    let post = site.post("/api/v4/posts", &bob, new).await.json["id"].as_str().unwrap().to_owned();
    site.clock.step(10);
    let patch = json!({ "message": "second", "file_ids": [] }).to_string();
    let path = format!("/api/v4/posts/{post}");
    let patched = site.request(&Method::PUT, &format!("{path}/patch"), &bob, patch).await.json;
    assert_eq!(patched["file_ids"], json!([]));
    let version = site.get(&format!("{path}/edit_history"), &bob).await.json[0]["id"].as_str().unwrap().to_owned();
    let restore = format!("{path}/restore/{version}");
    assert_eq!(site.post(&restore, &world.admin.bearer(), "").await.status, 403);
    let restored = site.post(&restore, &bob, "").await;
    assert_eq!((restored.status, &restored.json["message"]), (200, &json!("first")), "{}", restored.json);
    assert_eq!(restored.json["metadata"]["files"][0]["id"], file);
    assert_eq!(site.get(&format!("/api/v4/files/{}", file.as_str().unwrap()), &bob).await.body, b"text");
    let other = site.say(&world.bob, &world.channel, "other").await["id"].as_str().unwrap().to_owned();
    let wrong = site.post(&format!("/api/v4/posts/{other}/restore/{version}"), &bob, "").await;
    assert_eq!((wrong.status, wrong.id()), (400, "app.post.restore_post_version.not_an_history_item.app_error"));
}
