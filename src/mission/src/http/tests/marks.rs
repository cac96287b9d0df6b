//! What others see on posts and channels: priorities, acknowledgements and bookmarks, here and on the other side.

use super::*;

/// A node with ann and ben in a team, both known at the site, where ben signs in.
struct Far {
    node: Node,
    ann: Session,
    team: String,
    channel: model::Id,
    ben: Person,
}

impl Far {
    async fn new(site: &Site) -> Self {
        let node = Node::new(9);
        let (ann, ben) = (node.user("ann"), node.user("ben"));
        let (team, square) = node.team(&ann, "mission");
        node.core.add_team_member(&ben, team.id, ben.user_id).unwrap();
        node.advance(10);
        site.receive(&node).await;
        let ben = site.enrol("ben").await;
        site.core.outbox_ack(model::Hlc(u64::MAX >> 1)).unwrap();
        Self { node, ann, team: team.id.to_string(), channel: square.id, ben }
    }

    /// What the site has for the other node goes there.
    fn give_back(&self, site: &Site, from: &mut u64) {
        let rows = site.core.outbox_read(model::Hlc::ZERO, usize::MAX).unwrap();
        let sent: Vec<Sent> = rows
            .iter()
            .map(|row| {
                *from += 1;
                let file = if let model::Event::File(f) = &row.event { Some(f.stub.id) } else { None };
                Sent {
                    id: model::EntryId {
                        origin: NodeId([7; 16]),
                        epoch: model::Epoch::FIRST,
                        seq: model::Seq::new(*from).unwrap(),
                    },
                    event: row.event.clone(),
                    bytes: file.map(|f| std::fs::read(site.core.file_path(f).unwrap().unwrap()).unwrap()),
                }
            })
            .collect();
        if let Some(last) = rows.last() {
            site.core.outbox_ack(last.at).unwrap();
        }
        assert!(self.node.apply(&sent).iter().all(|a| *a == crate::Applied::Applied));
    }
}

#[tokio::test]
async fn an_urgent_post_is_acknowledged_and_its_author_at_the_other_site_learns_of_it() {
    let site = Site::new().await;
    let far = Far::new(&site).await;
    let mut new = crate::testkit::words(far.channel, None, "evacuate");
    new.metadata =
        serde_json::from_value(json!({ "priority": { "priority": "urgent", "requested_ack": true } })).unwrap();
    let post = far.node.core.create_post(&far.ann, &new, true).unwrap();
    site.receive(&far.node).await;
    let ben = far.ben.bearer();
    let shown = site.get(&format!("/api/v4/posts/{}", post.id), &ben).await.json;
    assert_eq!(
        shown["metadata"]["priority"],
        json!({ "priority": "urgent", "requested_ack": true, "persistent_notifications": false })
    );
    assert_eq!(shown["metadata"].get("acknowledgements"), None);

    let mut socket = site.socket("", Some(&far.ben)).await.unwrap();
    socket.next_json().await;
    let path = format!("/api/v4/users/me/posts/{}/ack", post.id);
    let given = site.post(&path, &ben, "").await;
    assert_eq!(given.status, 200, "{}", given.json);
    let ack = given.json.clone();
    assert_eq!(
        (&ack["user_id"], &ack["post_id"], &ack["channel_id"]),
        (&json!(far.ben.id), &json!(post.id), &json!(far.channel))
    );
    let told = socket.next_event("post_acknowledgement_added").await;
    assert_eq!(told["broadcast"]["channel_id"], far.channel.as_str());
    assert_eq!(serde_json::from_str::<Value>(told["data"]["acknowledgement"].as_str().unwrap()).unwrap(), ack);
    socket.next_event("post_edited").await;
    let shown = site.get(&format!("/api/v4/posts/{}", post.id), &ben).await.json;
    assert_eq!(shown["metadata"]["acknowledgements"], json!([ack]));

    let mut seq = 0;
    far.node.events.take();
    far.give_back(&site, &mut seq);
    let there = far.node.core.post(&far.ann, post.id, false).unwrap();
    assert_eq!(serde_json::to_value(&there.metadata.acknowledgements).unwrap(), json!([ack]));
    assert!(far.node.events.take().iter().any(|b| b.event == "post_acknowledgement_added"));
    assert_eq!(
        site.core.export_snapshot().unwrap().acknowledgements,
        far.node.core.export_snapshot().unwrap().acknowledgements
    );

    assert_eq!(site.request(&Method::DELETE, &path, &ben, "").await.json, json!({ "status": "OK" }));
    let told = socket.next_event("post_acknowledgement_removed").await;
    assert_eq!(serde_json::from_str::<Value>(told["data"]["acknowledgement"].as_str().unwrap()).unwrap(), ack);
    far.give_back(&site, &mut seq);
    assert_eq!(far.node.core.post(&far.ann, post.id, false).unwrap().metadata.acknowledgements, []);
    let again = site.request(&Method::DELETE, &path, &ben, "").await;
    assert_eq!((again.status, again.id()), (404, "app.acknowledgement.get.app_error"));
    site.post(&path, &ben, "").await;
    site.clock.step(5 * 60 * 1_000 + 1_000);
    let late = site.request(&Method::DELETE, &path, &ben, "").await;
    assert_eq!((late.status, late.id()), (403, "api.acknowledgement.delete.deadline.app_error"));
    let stranger = site.user("stranger").await;
    assert_eq!(site.post(&path, &stranger.bearer(), "").await.status, 403);
}

#[tokio::test]
async fn bookmarks_are_made_changed_sorted_and_removed() {
    let site = Site::new().await;
    let world = site.world().await;
    let bob = world.bob.bearer();
    let path = format!("/api/v4/channels/{}/bookmarks", world.channel);
    assert_eq!(site.get(&path, &bob).await.json, json!([]));
    let mut socket = site.socket("", Some(&world.admin)).await.unwrap();
    socket.next_json().await;
    let link = |name: &str| json!({ "type": "link", "display_name": name, "link_url": "https://map.example/x", "emoji": ":map:" });
    let first = site.post(&path, &bob, link("Map").to_string()).await;
    assert_eq!(first.status, 201, "{}", first.json);
    assert_eq!(
        (&first.json["emoji"], &first.json["sort_order"], &first.json["owner_id"]),
        (&json!("map"), &json!(0), &json!(world.bob.id))
    );
    let told = socket.next_event("channel_bookmark_created").await;
    assert_eq!(serde_json::from_str::<Value>(told["data"]["bookmark"].as_str().unwrap()).unwrap(), first.json);
    let file = format!("/api/v4/files?channel_id={}&filename=a.txt", world.channel);
    let file = site.post(&file, &bob, "text").await.json["file_infos"][0]["id"].clone();
    let bytes = format!("/api/v4/files/{}", file.as_str().unwrap());
    assert_eq!(site.get(&bytes, &site.user("carol").await.bearer()).await.status, 403);
    let second = json!({ "type": "file", "display_name": "Plan", "file_id": file }).to_string();
    let second = site.post(&path, &bob, second).await.json;
    assert_eq!((&second["file"]["name"], &second["sort_order"]), (&json!("a.txt"), &json!(1)));
    assert_eq!(site.get(&bytes, &world.admin.bearer()).await.body, b"text", "readers of the channel read it");
    let taken = json!({ "type": "file", "display_name": "Plan", "file_id": file }).to_string();
    assert_eq!(site.post(&path, &bob, taken).await.status, 400, "a file is bookmarked once");

    let one = |b: &Value, rest: &str| format!("{path}/{}{rest}", b["id"].as_str().unwrap());
    let sorted = site.post(&one(&second, "/sort_order"), &bob, "0").await.json;
    assert_eq!(
        (&sorted[0]["id"], &sorted[1]["id"], &sorted[1]["sort_order"]),
        (&second["id"], &first.json["id"], &json!(1))
    );
    assert_eq!(
        site.post(&one(&second, "/sort_order"), &bob, "2").await.id(),
        "app.channel.bookmark.update_sort.invalid_input.app_error"
    );
    socket.next_event("channel_bookmark_sorted").await;

    site.clock.step(1_000);
    let rename = json!({ "display_name": "Map 2" }).to_string();
    let own = site.request(&Method::PATCH, &one(&first.json, ""), &bob, rename.clone()).await.json;
    assert_eq!(
        (&own["updated"]["display_name"], &own["updated"]["id"], own.get("deleted")),
        (&json!("Map 2"), &first.json["id"], None)
    );
    let others = site.request(&Method::PATCH, &one(&first.json, ""), &world.admin.bearer(), rename).await.json;
    assert_eq!((&others["deleted"]["id"], &others["updated"]["original_id"]), (&first.json["id"], &first.json["id"]));
    assert_eq!(others["updated"]["owner_id"], world.admin.id);
    socket.next_event("channel_bookmark_updated").await;

    let gone = site.request(&Method::DELETE, &one(&second, ""), &bob, "").await.json;
    assert!(gone["delete_at"].as_i64().unwrap() > 0);
    socket.next_event("channel_bookmark_deleted").await;
    assert_eq!(site.get(&bytes, &bob).await.status, 404, "the file goes with it");
    let left = site.get(&path, &bob).await.json;
    assert_eq!((left.as_array().unwrap().len(), &left[0]["id"]), (1, &others["updated"]["id"]));
    let since = second["create_at"].as_i64().unwrap();
    let changed = site.get(&format!("{path}?bookmarks_since={since}"), &bob).await.json;
    assert_eq!(changed.as_array().unwrap().len(), 3, "what was removed is told");

    for (body, id) in [
        (
            json!({ "type": "link", "display_name": "x", "link_url": "javascript:alert(1)" }),
            "link_url.missing_or_invalid",
        ),
        (json!({ "type": "link", "display_name": "", "link_url": "https://x.example" }), "display_name"),
        (json!({ "type": "board", "display_name": "x" }), "type"),
        (json!({ "type": "file", "display_name": "x" }), "file_id.missing_or_invalid"),
    ] {
        let answer = site.post(&path, &bob, body.to_string()).await;
        assert_eq!(
            (answer.status, answer.id()),
            (400, format!("model.channel_bookmark.is_valid.{id}.app_error").as_str()),
            "{body}"
        );
    }
    for n in 1..50 {
        assert_eq!(site.post(&path, &bob, link(&format!("{n}")).to_string()).await.status, 201);
    }
    assert_eq!(site.post(&path, &bob, link("one too many").to_string()).await.status, 400);
}

#[tokio::test]
async fn bookmarks_travel_both_ways_with_their_files() {
    let site = Site::new().await;
    let far = Far::new(&site).await;
    let ben = far.ben.bearer();
    let path = format!("/api/v4/channels/{}/bookmarks", far.channel);
    let upload = far.node.upload(&far.ann, far.channel, "grid.txt", b"33U");
    let new = json!({ "type": "file", "display_name": "Grid", "file_id": upload });
    let grid = far.node.core.add_bookmark(&far.ann, far.channel, &serde_json::from_value(new).unwrap(), None).unwrap();
    let mut socket = site.socket("", Some(&far.ben)).await.unwrap();
    socket.next_json().await;
    site.receive(&far.node).await;
    socket.next_event("channel_bookmark_created").await;
    let here = site.get(&path, &ben).await.json;
    assert_eq!((&here[0]["id"], &here[0]["file"]["name"]), (&json!(grid.id), &json!("grid.txt")));
    let bytes = format!("/api/v4/files/{upload}");
    assert_eq!(site.get(&bytes, &ben).await.body, b"33U");

    // Changed by somebody else here, the other side shows the replacement with the same file.
    let mut seq = 0;
    let patch = json!({ "display_name": "Grid 33U" }).to_string();
    let one = format!("{path}/{}", grid.id);
    let changed = site.request(&Method::PATCH, &one, &ben, patch).await;
    assert_eq!(changed.status, 200, "{}", changed.json);
    far.give_back(&site, &mut seq);
    let there = far.node.core.bookmarks(&far.ann, far.channel, 0).unwrap();
    assert_eq!((there.len(), there[0].display_name.as_str(), there[0].file_id), (1, "Grid 33U", Some(upload)));
    assert!(far.node.core.file_info(&far.ann, upload).is_ok());
    assert_eq!(site.core.export_snapshot().unwrap().bookmarks, far.node.core.export_snapshot().unwrap().bookmarks);

    // A file is of one object: the other side could not have it of two.
    let post = json!({ "channel_id": far.channel, "message": "see the grid", "file_ids": [upload] }).to_string();
    let post: crate::types::NewPost = serde_json::from_str(&post).unwrap();
    let post = far.node.core.create_post(&far.ann, &post, true).unwrap();
    assert_eq!(post.file_ids, [], "it is a bookmark's");
    site.receive(&far.node).await;
    assert_eq!(site.get(&format!("/api/v4/posts/{}", post.id), &ben).await.status, 200);

    far.node.core.delete_bookmark(&far.ann, far.channel, there[0].id, None).unwrap();
    site.receive(&far.node).await;
    assert_eq!(site.get(&path, &ben).await.json, json!([]));
    assert_eq!(site.get(&bytes, &ben).await.status, 404);
    assert_eq!(far.team.len(), 26);
}

#[tokio::test]
async fn saved_posts_are_listed_by_team_and_channel_and_by_page() {
    let site = Site::new().await;
    let world = site.world().await;
    let bob = world.bob.bearer();
    let mut saved = Vec::new();
    for channel in [&world.channel, &world.other_channel, &world.channel] {
        site.clock.step(10);
        saved.push(site.say(&world.admin, channel, "keep").await["id"].as_str().unwrap().to_owned());
    }
    let flags: Vec<Value> = saved
        .iter()
        .map(|id| json!({ "user_id": world.bob.id, "category": "flagged_post", "name": id, "value": "true" }))
        .collect();
    let put = site.request(&Method::PUT, "/api/v4/users/me/preferences", &bob, json!(flags).to_string()).await;
    assert_eq!(put.status, 200);
    let list = async |query: &str| {
        site.get(&format!("/api/v4/users/me/posts/flagged{query}"), &bob).await.json["order"].clone()
    };
    assert_eq!(list("").await, json!([saved[2], saved[1], saved[0]]));
    assert_eq!(list(&format!("?channel_id={}", world.channel)).await, json!([saved[2], saved[0]]));
    assert_eq!(list(&format!("?channel_id={}&per_page=1&page=1", world.channel)).await, json!([saved[0]]));
    assert_eq!(list(&format!("?team_id={}", world.team)).await, json!([saved[2], saved[1], saved[0]]));
    assert_eq!(list("?team_id=ybndrfg8ejkmcpqxot1uwisza3").await, json!([]));
}
