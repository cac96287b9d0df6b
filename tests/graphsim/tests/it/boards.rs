//! Lists and Planner.

use graphsim::What;
use reqwest::Method;
use serde_json::{Value, json};

use crate::world::{Got, World, read};

async fn patch(world: &World, path: &str, tag: Option<&str>, body: Value) -> Got {
    let mut request = world.http.patch(world.url(path)).bearer_auth(&world.token);
    if let Some(tag) = tag {
        request = request.header("if-match", tag);
    }
    read(request.header("content-type", "application/json").body(body.to_string())).await
}

#[tokio::test]
async fn a_list_keeps_a_unique_column_and_is_asked_by_it() {
    let world = World::quick().await;
    let lists = format!("/sites/{}/lists", world.team.site);
    let wanted = json!({
        "displayName": "Log", "list": { "template": "genericList" },
        "columns": [{ "name": "HoldfastId", "text": {}, "indexed": true, "enforceUniqueValues": true }],
    });
    let made = world.post(&lists, wanted.clone()).await.ok();
    assert_eq!(world.post(&lists, wanted).await.status, 409);
    let items = format!("{lists}/{}/items", made["id"].as_str().unwrap());
    let item = json!({ "fields": { "Title": "first", "HoldfastId": "e1" } });
    let first = world.post(&items, item.clone()).await.ok();
    assert_eq!(world.post(&items, item).await.status, 400, "the same again");
    assert_eq!(world.post(&items, json!({ "fields": { "Unknown": "x" } })).await.status, 400);
    let found = world.get(&format!("{items}?$expand=fields&$filter=fields/HoldfastId%20eq%20'e1'")).await.ok();
    assert_eq!(found["value"][0]["fields"]["Title"], "first");
    assert_eq!(world.get(&format!("{items}?$filter=fields/Title%20eq%20'first'")).await.status, 400, "not indexed");
    let fields = format!("{items}/{}/fields", first["id"].as_str().unwrap());
    let tag = first["eTag"].as_str().unwrap();
    patch(&world, &fields, Some(tag), json!({ "Title": "second" })).await.ok();
    assert_eq!(patch(&world, &fields, Some(tag), json!({ "Title": "third" })).await.status, 412);
    assert_eq!(world.oracle().of(What::ListItemCreated).count(), 1);
}

#[tokio::test]
async fn a_task_is_changed_only_by_who_names_its_version() {
    let world = World::quick().await;
    let container = json!({ "url": format!("{}/v1.0/groups/{}", world.sim.graph_url(), world.team.id) });
    let plan = world.post("/planner/plans", json!({ "container": container, "title": "Board" })).await.ok();
    let plan = plan["id"].as_str().unwrap();
    let bucket =
        world.post("/planner/buckets", json!({ "name": "To do", "planId": plan, "orderHint": " !" })).await.ok();
    let task = json!({ "planId": plan, "bucketId": bucket["id"], "title": "Bridge" });
    let task = world.post("/planner/tasks", task).await.ok();
    let path = format!("/planner/tasks/{}", task["id"].as_str().unwrap());
    let tag = task["@odata.etag"].as_str().unwrap();
    assert_eq!(patch(&world, &path, None, json!({ "percentComplete": 50 })).await.status, 400);
    assert_eq!(patch(&world, &path, Some(tag), json!({ "percentComplete": 50 })).await.status, 204);
    assert_eq!(patch(&world, &path, Some(tag), json!({ "percentComplete": 100 })).await.status, 412);
    let details = format!("{path}/details");
    let tag = world.get(&details).await.ok()["@odata.etag"].as_str().unwrap().to_owned();
    assert_eq!(patch(&world, &details, Some(&tag), json!({ "description": "hf:e1" })).await.status, 204);
    assert_eq!(world.get(&details).await.ok()["description"], "hf:e1");
    let all = world.get(&format!("/planner/plans/{plan}/tasks")).await.ok();
    assert_eq!(all["value"][0]["percentComplete"], 50);
    assert_eq!(world.send(&world.token, Method::DELETE, &path, None).await.status, 400, "not without its version");
    world.oracle();
}
