//! What is unread, whom a message mentions, and which posts a list brings along.

use super::*;

async fn unread(site: &Site, by: &Person, channel: &str) -> Value {
    site.get(&format!("/api/v4/users/me/channels/{channel}/unread"), &by.bearer()).await.json
}

async fn set_props(site: &Site, by: &Person, props: Value) {
    let patch = json!({ "notify_props": props, "first_name": "Robert" }).to_string();
    let patched = site.request(&Method::PUT, "/api/v4/users/me/patch", &by.bearer(), patch).await;
    assert_eq!(patched.status, 200, "{}", patched.json);
}

#[tokio::test]
async fn a_message_counts_as_a_mention_by_the_settings_of_each_reader() {
    let site = Site::new().await;
    let world = site.world().await;
    let bob = &world.bob;
    let view = json!({ "channel_id": world.channel, "collapsed_threads_supported": true }).to_string();
    let mentioned = async |message: &str| {
        site.post("/api/v4/channels/members/me/view", &bob.bearer(), view.clone()).await;
        site.say(&world.admin, &world.channel, message).await;
        unread(&site, bob, &world.channel).await["mention_count"].as_i64().unwrap() == 1
    };
    assert!(mentioned("@bob").await);
    assert!(mentioned("@all").await);
    assert!(mentioned("@channel, listen").await);
    assert!(!mentioned("bob").await);
    assert!(!mentioned("`@bob`").await);
    assert!(!mentioned("Robert").await);
    assert!(!mentioned("medevac").await);
    set_props(&site, bob, json!({ "first_name": "true", "mention_keys": "MEDEVAC,連絡", "channel": "false" })).await;
    assert!(mentioned("Robert, come in").await);
    assert!(mentioned("medevac requested").await);
    assert!(mentioned("本部に連絡せよ").await);
    assert!(!mentioned("@all").await);
    assert!(mentioned("@bob").await);

    set_props(&site, bob, json!({ "channel": "true" })).await;
    assert!(mentioned("@all").await);
    let props = json!({ "ignore_channel_mentions": "on" }).to_string();
    let path = format!("/api/v4/channels/{}/members/me/notify_props", world.channel);
    assert_eq!(site.request(&Method::PUT, &path, &bob.bearer(), props).await.status, 200);
    assert!(!mentioned("@all").await);
    // `@here` is for who is online: bob has no connection.
    let props = json!({ "ignore_channel_mentions": "off" }).to_string();
    site.request(&Method::PUT, &path, &bob.bearer(), props).await;
    let away = json!({ "user_id": bob.id, "status": "away" }).to_string();
    assert_eq!(site.request(&Method::PUT, "/api/v4/users/me/status", &bob.bearer(), away).await.status, 200);
    assert!(!mentioned("@here").await);
    let online = json!({ "user_id": bob.id, "status": "online" }).to_string();
    site.request(&Method::PUT, "/api/v4/users/me/status", &bob.bearer(), online).await;
    assert!(mentioned("@here").await);
}

#[tokio::test]
async fn replies_roots_and_urgent_messages_are_counted_apart() {
    let site = Site::new().await;
    let world = site.world().await;
    let bob = &world.bob;
    // Being added to channels is a mention.
    let both = json!([world.channel, world.other_channel]).to_string();
    site.post("/api/v4/channels/members/me/mark_read", &bob.bearer(), both).await;
    let urgent = json!({ "channel_id": world.channel, "message": "@bob move", "metadata": { "priority": { "priority": "urgent" } } });
    let root = site.post("/api/v4/posts", &world.admin.bearer(), urgent.to_string()).await.json;
    let root = root["id"].as_str().unwrap().to_owned();
    site.reply(&world.admin, &world.channel, &root, "@bob now").await;
    site.reply(&world.admin, &world.channel, &root, "go").await;
    let counts = unread(&site, bob, &world.channel).await;
    assert_eq!((&counts["msg_count"], &counts["msg_count_root"]), (&json!(3), &json!(1)));
    assert_eq!((&counts["mention_count"], &counts["mention_count_root"]), (&json!(2), &json!(1)));
    assert_eq!(counts["urgent_mention_count"], 1);

    let teams = async |query: &str| {
        let all = site.get(&format!("/api/v4/users/me/teams/unread{query}"), &bob.bearer()).await.json;
        all.as_array().unwrap().iter().find(|t| t["team_id"] == world.team.as_str()).unwrap().clone()
    };
    let team = teams("?include_collapsed_threads=true").await;
    assert_eq!((&team["mention_count"], &team["mention_count_root"]), (&json!(2), &json!(1)));
    assert_eq!((&team["thread_count"], &team["thread_mention_count"]), (&json!(1), &json!(1)));
    assert_eq!(team["thread_urgent_mention_count"], 1);
    let before = team["msg_count"].as_i64().unwrap();
    let muted = json!({ "mark_unread": "mention" }).to_string();
    let path = format!("/api/v4/channels/{}/members/me/notify_props", world.channel);
    site.request(&Method::PUT, &path, &bob.bearer(), muted).await;
    let team = teams("").await;
    assert_eq!(team["msg_count"].as_i64(), Some(before - 3), "a muted channel counts by its mentions alone");
    assert_eq!(team["mention_count"], 2);

    // Back to the urgent message: everything since is unread again, and told to the other devices.
    let view = json!({ "channel_id": world.channel, "collapsed_threads_supported": true }).to_string();
    site.post("/api/v4/channels/members/me/view", &bob.bearer(), view).await;
    let mut socket = site.socket("", Some(bob)).await.unwrap();
    socket.next_json().await;
    let back = format!("/api/v4/users/me/posts/{root}/set_unread");
    let supported = json!({ "collapsed_threads_supported": true }).to_string();
    let set = site.post(&back, &bob.bearer(), supported).await.json;
    assert_eq!(
        (&set["mention_count"], &set["mention_count_root"], &set["urgent_mention_count"]),
        (&json!(2), &json!(1), &json!(1))
    );
    let told = socket.next_event("post_unread").await;
    assert_eq!((&told["data"]["mention_count"], &told["data"]["msg_count"]), (&json!(2), &set["msg_count"]));
    let counts = unread(&site, bob, &world.channel).await;
    assert_eq!((&counts["msg_count"], &counts["msg_count_root"]), (&json!(3), &json!(1)));
}

#[tokio::test]
async fn who_is_added_to_a_channel_is_mentioned_and_bystanders_are_not() {
    let site = Site::new().await;
    let world = site.world().await;
    let carol = site.member("carol", &world).await;
    assert_eq!(unread(&site, &carol, &world.channel).await["mention_count"], 1);
    assert_eq!(unread(&site, &world.bob, &world.channel).await["mention_count"], 1, "of the own addition");
}

#[tokio::test]
async fn in_a_direct_channel_every_message_is_a_mention() {
    let site = Site::new().await;
    let world = site.world().await;
    let ids = json!([world.admin.id, world.bob.id]).to_string();
    let direct = site.post("/api/v4/channels/direct", &world.admin.bearer(), ids).await.json;
    let direct = direct["id"].as_str().unwrap().to_owned();
    let root = site.say(&world.admin, &direct, "hi").await["id"].as_str().unwrap().to_owned();
    site.reply(&world.admin, &direct, &root, "there?").await;
    let counts = unread(&site, &world.bob, &direct).await;
    assert_eq!((&counts["mention_count"], &counts["mention_count_root"]), (&json!(2), &json!(1)));
    let threads = format!("/api/v4/users/me/teams/{}/threads", world.team);
    let list = site.get(&threads, &world.bob.bearer()).await.json;
    assert_eq!((&list["total"], &list["total_unread_mentions"]), (&json!(1), &json!(1)));
    let without = site.get(&format!("{threads}?excludeDirect=true"), &world.bob.bearer()).await.json;
    assert_eq!(without["total"], 0);
}

#[tokio::test]
async fn a_list_brings_threads_along_unless_told_not_to() {
    let site = Site::new().await;
    let world = site.world().await;
    let bob = world.bob.bearer();
    let root = site.say(&world.admin, &world.channel, "root").await["id"].as_str().unwrap().to_owned();
    let mut replies = Vec::new();
    for n in 0..3 {
        site.clock.step(10);
        let reply = site.reply(&world.admin, &world.channel, &root, &format!("{n}")).await;
        replies.push(reply["id"].as_str().unwrap().to_owned());
    }
    let list =
        async |query: &str| site.get(&format!("/api/v4/channels/{}/posts{query}", world.channel), &bob).await.json;
    let names = |list: &Value| -> Vec<String> { list["posts"].as_object().unwrap().keys().cloned().collect() };
    let sorted = |mut ids: Vec<&String>| -> Vec<String> {
        ids.sort();
        ids.into_iter().cloned().collect()
    };
    let newest = list("?per_page=1").await;
    assert_eq!(newest["order"], json!([replies[2]]));
    assert_eq!(names(&newest), sorted(vec![&root, &replies[0], &replies[1], &replies[2]]));
    let lean = list("?per_page=1&skipFetchThreads=true").await;
    assert_eq!(names(&lean), sorted(vec![&root, &replies[2]]));
    assert_eq!(lean["posts"][&root]["reply_count"], 3);
    let before = list(&format!("?before={}&per_page=1&skipFetchThreads=true", replies[1])).await;
    assert_eq!((&before["order"], &before["next_post_id"]), (&json!([replies[0]]), &json!(replies[1])));
    let collapsed = list("?per_page=2&collapsedThreads=true").await;
    assert_eq!(collapsed["order"][0], root);
    assert_eq!((&collapsed["next_post_id"], collapsed["posts"].get(&replies[0])), (&json!(""), None));

    // Deleted posts are for administrators.
    let path = format!("/api/v4/posts/{}", replies[2]);
    assert_eq!(site.request(&Method::DELETE, &path, &world.admin.bearer(), "").await.status, 200);
    assert_eq!(list("?per_page=1").await["order"], json!([replies[1]]));
    let all = format!("/api/v4/channels/{}/posts?per_page=1&include_deleted=true", world.channel);
    assert_eq!(site.get(&all, &world.admin.bearer()).await.json["order"], json!([replies[2]]));
    assert_eq!(site.get(&all, &bob).await.status, 403);
}

#[tokio::test]
async fn changes_since_a_moment_come_with_the_deleted_and_say_that_there_are_no_more() {
    let site = Site::new().await;
    let world = site.world().await;
    let bob = world.bob.bearer();
    let root = site.say(&world.admin, &world.channel, "root").await["id"].as_str().unwrap().to_owned();
    let reply = site.reply(&world.admin, &world.channel, &root, "reply").await;
    site.clock.step(1_000);
    let since = site.clock.now().0;
    let path = format!("/api/v4/posts/{}", reply["id"].as_str().unwrap());
    site.request(&Method::DELETE, &path, &world.admin.bearer(), "").await;
    let list = async |query: &str| {
        site.get(&format!("/api/v4/channels/{}/posts?since={since}{query}", world.channel), &bob).await.json
    };
    let changed = list("").await;
    assert_eq!((&changed["order"], &changed["has_next"]), (&json!([reply["id"], root]), &json!(false)));
    let gone = &changed["posts"][reply["id"].as_str().unwrap()];
    assert!(gone["delete_at"].as_i64().unwrap() > 0 && gone["message"] == "");
    let collapsed = list("&collapsedThreads=true").await;
    assert_eq!((&collapsed["order"], &collapsed["posts"][&root]["reply_count"]), (&json!([root]), &json!(0)));
    assert_eq!(
        list(&format!("&before={root}")).await["order"],
        json!([reply["id"]]),
        "what changed earlier than the root"
    );
}
