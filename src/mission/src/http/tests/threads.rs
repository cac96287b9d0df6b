//! Collapsed reply threads through the API, with replies written here and on another node.

use super::*;
use crate::testkit;

/// Alice and bob in `ops`, with a root post by alice and bob's reply to it.
struct Talk {
    site: Site,
    world: World,
    root: String,
    reply: String,
}

impl Talk {
    async fn new() -> Self {
        let site = Site::new().await;
        let world = site.world().await;
        let root = site.say(&world.admin, &world.channel, "where are you?").await;
        let root = root["id"].as_str().unwrap().to_owned();
        let reply = site.reply(&world.bob, &world.channel, &root, "at the bridge").await;
        Self { reply: reply["id"].as_str().unwrap().to_owned(), root, site, world }
    }

    fn path(&self, rest: &str) -> String {
        format!("/api/v4/users/me/teams/{}/threads{rest}", self.world.team)
    }

    async fn threads(&self, by: &Person, query: &str) -> Value {
        let answer = self.site.get(&self.path(query), &by.bearer()).await;
        assert_eq!(answer.status, 200, "{}", answer.json);
        answer.json
    }

    async fn put(&self, by: &Person, rest: &str) -> Answer {
        self.site.request(&Method::PUT, &self.path(rest), &by.bearer(), "").await
    }
}

#[tokio::test]
async fn a_reply_makes_a_thread_that_its_root_author_follows_unread_and_its_writer_read() {
    let talk = Talk::new().await;
    let (admin, bob) = (&talk.world.admin, &talk.world.bob);
    let of_admin = talk.threads(admin, "?extended=true").await;
    assert_eq!((&of_admin["total"], &of_admin["total_unread_threads"]), (&json!(1), &json!(1)));
    let thread = &of_admin["threads"][0];
    assert_eq!(
        (&thread["id"], &thread["reply_count"], &thread["unread_replies"]),
        (&json!(talk.root), &json!(1), &json!(1))
    );
    assert_eq!(
        (&thread["unread_mentions"], &thread["is_urgent"], &thread["delete_at"]),
        (&json!(0), &json!(false), &json!(0))
    );
    assert_eq!(thread["participants"][0]["username"], "bob");
    assert_eq!(thread["post"]["message"], "where are you?");
    let of_bob = talk.threads(bob, "").await;
    assert_eq!(of_bob["threads"][0]["unread_replies"], 0);
    assert_eq!(of_bob["threads"][0]["participants"], json!([of_bob["threads"][0]["participants"][0]]));
    assert_eq!(of_bob["threads"][0]["participants"][0]["id"], bob.id);
    assert_eq!(of_bob["threads"][0]["participants"][0]["username"], "");

    let unread =
        talk.site.get("/api/v4/users/me/teams/unread?include_collapsed_threads=true", &admin.bearer()).await.json;
    assert_eq!((&unread[0]["thread_count"], &unread[0]["thread_mention_count"]), (&json!(1), &json!(0)));
    let unread = talk.site.get("/api/v4/users/me/teams/unread", &admin.bearer()).await.json;
    assert_eq!(unread[0]["thread_count"], 0, "only those who ask are told");

    let now = talk.site.clock.now().0;
    let read = talk.put(admin, &format!("/{}/read/{now}", talk.root)).await;
    assert_eq!(
        (read.status, &read.json["unread_replies"], &read.json["last_viewed_at"]),
        (200, &json!(0), &json!(now))
    );
    assert_eq!(talk.threads(admin, "?totalsOnly=true").await["threads"], Value::Null);
    assert_eq!(talk.threads(admin, "?totalsOnly=true").await["total_unread_threads"], 0);
    assert_eq!(talk.threads(admin, "?unread=true").await["threads"], json!([]));
    let only = talk.threads(admin, "?threadsOnly=true").await;
    assert_eq!((&only["total"], only["threads"].as_array().unwrap().len()), (&json!(0), 1));

    // One more, and everything is read at once.
    talk.site.clock.step(5_000);
    talk.site.reply(bob, &talk.world.channel, &talk.root, "still there").await;
    assert_eq!(talk.threads(admin, "").await["threads"][0]["unread_replies"], 1);
    assert_eq!(talk.put(admin, "/read").await.json, json!({ "status": "OK" }));
    assert_eq!(talk.threads(admin, "").await["total_unread_threads"], 0);
    let back = format!("/{}/set_unread/{}", talk.root, talk.reply);
    let back = talk.site.post(&talk.path(&back), &admin.bearer(), "").await;
    assert_eq!((back.status, &back.json["unread_replies"]), (200, &json!(2)));
}

#[tokio::test]
async fn mentions_count_apart_and_bring_back_who_stopped_following() {
    let talk = Talk::new().await;
    let (admin, bob) = (&talk.world.admin, &talk.world.bob);
    let carol = talk.site.member("carol", &talk.world).await;
    assert_eq!(talk.threads(&carol, "").await["total"], 0);
    talk.site.reply(bob, &talk.world.channel, &talk.root, "@carol, look").await;
    let of_carol = talk.threads(&carol, "").await;
    assert_eq!(
        (&of_carol["total_unread_mentions"], &of_carol["threads"][0]["unread_mentions"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(of_carol["threads"][0]["unread_replies"], 2, "the earlier reply too");

    let following = format!("/{}/following", talk.root);
    let out = talk.site.request(&Method::DELETE, &talk.path(&following), &carol.bearer(), "").await;
    assert_eq!(out.json, json!({ "status": "OK" }));
    assert_eq!(talk.threads(&carol, "").await["threads"], json!([]));
    let gone = talk.site.get(&talk.path(&format!("/{}", talk.root)), &carol.bearer()).await;
    assert_eq!((gone.status, gone.id()), (404, "app.user.get_threads_for_user.not_found"));
    talk.site.reply(bob, &talk.world.channel, &talk.root, "no name").await;
    assert_eq!(talk.threads(&carol, "").await["total"], 0, "a reply alone does not bring anybody back");
    talk.site.reply(bob, &talk.world.channel, &talk.root, "come back, @carol").await;
    assert_eq!(talk.threads(&carol, "").await["total"], 1);

    // Who deletes the mention takes it out of the count.
    let last = talk.site.reply(bob, &talk.world.channel, &talk.root, "@carol once more").await;
    let before = talk.threads(&carol, "").await["total_unread_mentions"].as_i64().unwrap();
    let path = format!("/api/v4/posts/{}", last["id"].as_str().unwrap());
    assert_eq!(talk.site.request(&Method::DELETE, &path, &bob.bearer(), "").await.status, 200);
    assert_eq!(talk.threads(&carol, "").await["total_unread_mentions"].as_i64(), Some(before - 1));
    let followed = talk.put(admin, &following).await;
    assert_eq!(followed.status, 200);
}

#[tokio::test]
async fn who_asked_to_follow_every_thread_of_a_channel_does() {
    let talk = Talk::new().await;
    let carol = talk.site.member("carol", &talk.world).await;
    let props = json!({ "channel_auto_follow_threads": "on", "user_id": carol.id }).to_string();
    let path = format!("/api/v4/channels/{}/members/me/notify_props", talk.world.channel);
    assert_eq!(talk.site.request(&Method::PUT, &path, &carol.bearer(), props).await.status, 200);
    talk.site.reply(&talk.world.bob, &talk.world.channel, &talk.root, "more").await;
    let of_carol = talk.threads(&carol, "").await;
    assert_eq!((&of_carol["total"], &of_carol["total_unread_mentions"]), (&json!(1), &json!(0)));
}

#[tokio::test]
async fn each_follower_hears_of_a_reply_and_of_what_they_do_on_another_device() {
    let talk = Talk::new().await;
    let (admin, bob) = (&talk.world.admin, &talk.world.bob);
    let mut socket = talk.site.socket("", Some(admin)).await.unwrap();
    socket.next_json().await;
    talk.site.reply(bob, &talk.world.channel, &talk.root, "@root are you there").await;
    let posted = socket.next_event("posted").await;
    assert_eq!(posted["data"]["followers"], json!(format!("[\"{}\"]", admin.id)));
    let told = socket.next_event("thread_updated").await;
    assert_eq!(
        (&told["broadcast"]["user_id"], &told["broadcast"]["team_id"]),
        (&json!(admin.id), &json!(talk.world.team))
    );
    assert_eq!(
        (&told["data"]["previous_unread_replies"], &told["data"]["previous_unread_mentions"]),
        (&json!(1), &json!(0))
    );
    let thread: Value = serde_json::from_str(told["data"]["thread"].as_str().unwrap()).unwrap();
    assert_eq!((&thread["unread_replies"], &thread["unread_mentions"]), (&json!(2), &json!(1)));
    assert_eq!(thread["participants"][0]["username"], "bob");

    let now = talk.site.clock.now().0;
    talk.put(admin, &format!("/{}/read/{now}", talk.root)).await;
    let read = socket.next_event("thread_read_changed").await["data"].clone();
    assert_eq!(
        read,
        json!({
            "thread_id": talk.root, "timestamp": now, "unread_mentions": 0, "unread_replies": 0,
            "previous_unread_mentions": 1, "previous_unread_replies": 2, "channel_id": talk.world.channel,
        })
    );
    let following = talk.path(&format!("/{}/following", talk.root));
    talk.site.request(&Method::DELETE, &following, &admin.bearer(), "").await;
    let followed = socket.next_event("thread_follow_changed").await["data"].clone();
    assert_eq!(followed, json!({ "thread_id": talk.root, "state": false, "reply_count": 2 }));
    talk.put(admin, "/read").await;
    let all = socket.next_event("thread_read_changed").await;
    assert_eq!((&all["data"], &all["broadcast"]["team_id"]), (&json!({}), &json!(talk.world.team)));
}

#[tokio::test]
async fn lists_with_collapsed_threads_show_roots_with_what_is_known_of_their_replies() {
    let talk = Talk::new().await;
    let bob = &talk.world.bob;
    let posts = format!("/api/v4/channels/{}/posts", talk.world.channel);
    let plain = talk.site.get(&posts, &bob.bearer()).await.json;
    assert_eq!(plain["posts"][&talk.reply]["reply_count"], 1);
    assert_eq!(plain["posts"][&talk.root].get("is_following"), None);
    let answer =
        talk.site.get(&format!("{posts}?collapsedThreads=true&collapsedThreadsExtended=true"), &bob.bearer()).await;
    assert!(answer.json["posts"].get(&talk.reply).is_none());
    let root = &answer.json["posts"][&talk.root];
    assert_eq!((&root["reply_count"], &root["is_following"]), (&json!(1), &json!(true)));
    assert_eq!(root["participants"][0]["username"], "bob");
    assert!(root["last_reply_at"].as_i64().unwrap() > root["create_at"].as_i64().unwrap());

    // A list that somebody has must not hide that they stopped following.
    let same = [bob.bearer()[0].clone(), ("if-none-match", answer.header("etag").to_owned())];
    let again = format!("{posts}?collapsedThreads=true&collapsedThreadsExtended=true");
    assert_eq!(talk.site.get(&again, &same).await.status, 304);
    let following = talk.path(&format!("/{}/following", talk.root));
    talk.site.request(&Method::DELETE, &following, &bob.bearer(), "").await;
    assert_eq!(talk.site.get(&again, &same).await.json["posts"][&talk.root]["is_following"], false);

    let thread = format!("/api/v4/posts/{}/thread?collapsedThreads=true&perPage=1&direction=down", talk.root);
    let second = talk.site.reply(bob, &talk.world.channel, &talk.root, "second").await;
    let part = talk.site.get(&thread, &bob.bearer()).await.json;
    assert_eq!((&part["order"], &part["has_next"]), (&json!([talk.root, talk.reply]), &json!(true)));
    assert_eq!(part["posts"][&talk.root]["reply_count"], 2);
    let from = &part["posts"][&talk.reply];
    let next = format!("{thread}&fromCreateAt={}&fromPost={}", from["create_at"], talk.reply);
    let next = talk.site.get(&next, &bob.bearer()).await.json;
    assert_eq!((&next["order"], &next["has_next"]), (&json!([talk.root, second["id"]]), &json!(false)));
    let changed = format!(
        "/api/v4/posts/{}/thread?collapsedThreads=true&updatesOnly=true&direction=down&fromUpdateAt={}",
        talk.root, from["update_at"]
    );
    assert_eq!(talk.site.get(&changed, &bob.bearer()).await.json["order"], json!([talk.root, second["id"]]));
    assert_eq!(talk.site.get(&format!("{thread}&updatesOnly=true"), &bob.bearer()).await.status, 400);
}

#[tokio::test]
async fn threads_page_by_their_last_reply_and_since_a_moment() {
    let talk = Talk::new().await;
    let (admin, bob) = (&talk.world.admin, &talk.world.bob);
    let mut roots = vec![talk.root.clone()];
    for n in 0..3 {
        talk.site.clock.step(1_000);
        let root = talk.site.say(admin, &talk.world.channel, &format!("{n}")).await["id"].as_str().unwrap().to_owned();
        talk.site.reply(bob, &talk.world.channel, &root, "r").await;
        roots.push(root);
    }
    let ids = |threads: &Value| -> Vec<String> {
        threads["threads"].as_array().unwrap().iter().map(|t| t["id"].as_str().unwrap().to_owned()).collect()
    };
    let first = talk.threads(admin, "?per_page=2").await;
    assert_eq!(ids(&first), [roots[3].clone(), roots[2].clone()]);
    assert_eq!(first["total"], 4);
    let older = talk.threads(admin, &format!("?per_page=2&before={}", roots[2])).await;
    assert_eq!(ids(&older), [roots[1].clone(), roots[0].clone()]);
    let newer = talk.threads(admin, &format!("?per_page=2&after={}", roots[1])).await;
    assert_eq!(ids(&newer), [roots[2].clone(), roots[3].clone()]);
    let since = first["threads"][0]["last_reply_at"].as_i64().unwrap();
    assert_eq!(ids(&talk.threads(admin, &format!("?since={since}")).await), [roots[3].clone()]);

    let path = format!("/api/v4/posts/{}", roots[3]);
    assert_eq!(talk.site.request(&Method::DELETE, &path, &admin.bearer(), "").await.status, 200);
    assert_eq!(talk.threads(admin, "").await["total"], 3);
    let deleted = talk.threads(admin, &format!("?since={}&deleted=true", since + 1)).await;
    assert_eq!(ids(&deleted), [roots[3].clone()], "a client that was away learns that it went");
    assert!(deleted["threads"][0]["delete_at"].as_i64().unwrap() > 0);

    for (query, status, id) in [
        (format!("?before={}&after={}", roots[0], roots[1]), 400, "api.getThreadsForUser.bad_params"),
        ("?totalsOnly=true&threadsOnly=true".to_owned(), 400, "api.getThreadsForUser.bad_only_params"),
        ("?since=x".to_owned(), 400, "api.context.invalid_body_param.app_error"),
    ] {
        let answer = talk.site.get(&talk.path(&query), &admin.bearer()).await;
        assert_eq!((answer.status, answer.id()), (status, id), "{query}");
    }
}

#[tokio::test]
async fn others_threads_and_channels_stay_theirs() {
    let talk = Talk::new().await;
    let stranger = talk.site.user("stranger").await;
    let of_admin = format!("/api/v4/users/{}/teams/{}/threads", talk.world.admin.id, talk.world.team);
    assert_eq!(talk.site.get(&of_admin, &talk.world.bob.bearer()).await.status, 403);
    assert_eq!(talk.site.get(&talk.path(""), &stranger.bearer()).await.status, 403);
    assert_eq!(talk.put(&stranger, "/read").await.status, 403);
    let thread = format!("/{}", talk.root);
    assert_eq!(talk.site.get(&talk.path(&thread), &stranger.bearer()).await.status, 403);
    assert_eq!(talk.put(&stranger, &format!("{thread}/following")).await.status, 403);
    assert_eq!(talk.put(&stranger, &format!("{thread}/read/1")).await.status, 403);
    assert_eq!(talk.put(&talk.world.bob, &format!("{thread}/read/x")).await.status, 400);
    // Who leaves the channel leaves its threads.
    let me = format!("/api/v4/channels/{}/members/{}", talk.world.channel, talk.world.bob.id);
    assert_eq!(talk.site.request(&Method::DELETE, &me, &talk.world.bob.bearer(), "").await.status, 200);
    assert_eq!(talk.threads(&talk.world.bob, "").await["total"], 0);
}

#[tokio::test]
async fn what_a_client_without_threads_reads_is_read_in_the_threads_too() {
    let talk = Talk::new().await;
    let admin = &talk.world.admin;
    let view = |supported: bool| json!({ "channel_id": talk.world.channel, "collapsed_threads_supported": supported });
    let path = "/api/v4/channels/members/me/view";
    talk.site.post(path, &admin.bearer(), view(true).to_string()).await;
    assert_eq!(talk.threads(admin, "").await["total_unread_threads"], 1);
    talk.site.post(path, &admin.bearer(), view(false).to_string()).await;
    assert_eq!(talk.threads(admin, "").await["total_unread_threads"], 0);

    let unread = format!("/api/v4/users/me/posts/{}/set_unread", talk.reply);
    let apart = json!({ "collapsed_threads_supported": true }).to_string();
    let counts = talk.site.post(&unread, &admin.bearer(), apart).await.json;
    let channel = talk.site.get(&format!("/api/v4/channels/{}", talk.world.channel), &admin.bearer()).await.json;
    assert_eq!(counts["msg_count"].as_i64(), channel["total_msg_count"].as_i64().map(|n| n - 1));
    assert_eq!(talk.threads(admin, "").await["total_unread_threads"], 0);
    talk.site.post(&unread, &admin.bearer(), "").await;
    assert_eq!(talk.threads(admin, "").await["threads"][0]["unread_replies"], 1);
}

#[tokio::test]
async fn replies_of_another_node_arrive_unread_however_long_they_took() {
    let site = Site::new().await;
    let far = testkit::Node::new(9);
    let ann = far.user("ann");
    let ben = far.user("ben");
    let (team, square) = far.team(&ann, "mission");
    far.core.add_team_member(&ben, team.id, ben.user_id).unwrap();
    far.advance(10);
    let root = far.say(&ben, square.id, None, "report");
    site.receive(&far).await;
    let ben = site.enrol("ben").await;
    let threads = format!("/api/v4/users/me/teams/{}/threads", team.id);
    assert_eq!(site.get(&threads, &ben.bearer()).await.json["total"], 0);
    let mut socket = site.socket("", Some(&ben)).await.unwrap();
    socket.next_json().await;

    // Written there before, and applied after, ben looked at the thread here.
    far.advance(10);
    let first = far.say(&ann, square.id, Some(root.id), "@ben all quiet");
    let late = far.say(&ann, square.id, Some(root.id), "still quiet");
    let held_up: Vec<_> = far.drain();
    site.receive_all(&held_up[..1]).await;
    let told = socket.next_event("thread_updated").await;
    let thread: Value = serde_json::from_str(told["data"]["thread"].as_str().unwrap()).unwrap();
    assert_eq!((&thread["unread_replies"], &thread["unread_mentions"]), (&json!(1), &json!(1)));
    let now = site.clock.now().0;
    assert!(now > late.create_at);
    let read = format!("{threads}/{}/read/{now}", root.id);
    assert_eq!(site.request(&Method::PUT, &read, &ben.bearer(), "").await.status, 200);
    site.receive_all(&held_up[1..]).await;
    let list = site.get(&threads, &ben.bearer()).await.json;
    assert_eq!((&list["total_unread_threads"], &list["total_unread_mentions"]), (&json!(1), &json!(0)));
    assert_eq!((&list["threads"][0]["reply_count"], &list["threads"][0]["unread_replies"]), (&json!(2), &json!(1)));

    // An outage later, what came in one go is told once.
    for n in 0..21 {
        far.say(&ann, square.id, Some(root.id), &format!("backlog {n}"));
    }
    site.clock.step(60 * 60 * 1_000);
    site.receive(&far).await;
    let told = loop {
        let told = socket.next_event("thread_updated").await;
        let thread: Value = serde_json::from_str(told["data"]["thread"].as_str().unwrap()).unwrap();
        if thread["reply_count"].as_i64() > Some(2) {
            break thread;
        }
    };
    assert_eq!((&told["reply_count"], &told["unread_replies"]), (&json!(23), &json!(22)));
    site.request(&Method::PUT, &format!("{threads}/read"), &ben.bearer(), "").await;
    let next = socket.next_of(&["thread_updated", "thread_read_changed"]).await;
    assert_eq!(next["event"], "thread_read_changed");
    for post in far.core.thread(&ann, root.id, &crate::types::ThreadPart::default()).unwrap().order {
        if post != root.id && post != first.id && post != late.id {
            far.core.delete_post(&ann, post).unwrap();
        }
    }
    site.receive(&far).await;

    // What is deleted there is gone here.
    far.core.delete_post(&ann, late.id).unwrap();
    site.receive(&far).await;
    let list = site.get(&threads, &ben.bearer()).await.json;
    assert_eq!((&list["threads"][0]["reply_count"], &list["total_unread_threads"]), (&json!(1), &json!(0)));
    far.core.delete_post(&ann, first.id).unwrap();
    far.core.delete_post(&ben_of(&far), root.id).unwrap();
    site.receive(&far).await;
    assert_eq!(site.get(&threads, &ben.bearer()).await.json["total"], 0);
}

fn ben_of(far: &testkit::Node) -> Session {
    far.login("ben")
}
