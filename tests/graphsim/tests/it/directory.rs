//! Deltas: complete, out of order, and forgotten after seven days.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use graphsim::{Group, Limits, Settings, User};
use serde_json::{Value, json};

use crate::world::{World, quick};

/// One round: entries in order, how many pages were empty, and the delta link.
async fn round(world: &World, first: &str) -> (Vec<Value>, usize, String) {
    let (mut entries, mut empty, mut next) = (Vec::new(), 0, first.to_owned());
    loop {
        let page = world.get(&next).await.ok();
        let values = page["value"].as_array().unwrap();
        empty += usize::from(values.is_empty());
        entries.extend(values.iter().cloned());
        if let Some(link) = page["@odata.deltaLink"].as_str() {
            assert!(page["@odata.nextLink"].is_null());
            return (entries, empty, link.to_owned());
        }
        next = page["@odata.nextLink"].as_str().unwrap().to_owned();
        assert!(next.starts_with(world.sim.graph_url()));
    }
}

#[tokio::test]
async fn a_delta_tells_everything_then_only_what_changed_and_ends_after_seven_days() {
    let limits = Limits { delta_page: 7, ..Limits::default() };
    let world = World::start(Settings { limits, ..quick() }).await;
    let users: Vec<String> = (0..60).map(|n| world.sim.add_user(User::new(&format!("user{n}")))).collect();
    let (entries, empty, link) = round(&world, "/users/delta?$select=id,displayName,accountEnabled").await;
    let ids: BTreeSet<&str> = entries.iter().map(|e| e["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), 62);
    assert!(entries.len() > 62 && empty > 0, "something comes twice and some page is empty");
    assert!(entries.iter().all(|e| e["userPrincipalName"].is_null()), "it was not selected");

    let change = |value: Value| value.as_object().unwrap().clone();
    world.sim.change_object(&users[0], change(json!({ "accountEnabled": false }))).unwrap();
    world.sim.change_object(&users[1], change(json!({ "jobTitle": "pilot" }))).unwrap();
    world.sim.delete_object(&users[2], false).unwrap();
    world.sim.delete_object(&users[3], true).unwrap();
    let (entries, _, next) = round(&world, &link).await;
    let found: BTreeMap<&str, &Value> = entries.iter().map(|e| (e["id"].as_str().unwrap(), e)).collect();
    assert_eq!(found.len(), 3, "a change to what is not selected does not surface");
    assert_eq!(found[users[0].as_str()]["accountEnabled"], false);
    assert_eq!(found[users[2].as_str()]["@removed"]["reason"], "changed");
    assert_eq!(found[users[3].as_str()]["@removed"]["reason"], "deleted");
    assert_eq!(round(&world, &link).await.0.len(), entries.len(), "a link may be used again");

    world.sim.advance(Duration::from_secs(7 * 86_400 + 1));
    let mut world = world;
    world.token = world.app_token("").await;
    let got = world.get(&next).await;
    assert_eq!((got.status, got.code()), (400, "syncStateNotFound"));
    world.sim.move_directory();
    let (_, _, link) = round(&world, "/users/delta").await;
    let got = world.get(&link).await;
    assert!(got.status == 410 && got.header("location").ends_with("$deltatoken="));
    world.oracle();
}

#[tokio::test]
async fn members_of_a_large_group_come_in_parts() {
    let world = World::quick().await;
    let members: BTreeSet<String> = (0..100).map(|n| world.sim.add_user(User::new(&format!("m{n}")))).collect();
    let group =
        world.sim.add_group(Group { display_name: "Crew".into(), members: members.clone(), ..Group::default() });
    let (entries, _, link) = round(&world, "/groups/delta?$select=id,displayName,members").await;
    assert!(entries.len() >= 3);
    let told: BTreeSet<String> = entries
        .iter()
        .filter(|e| e["id"] == group.as_str())
        .flat_map(|e| e["members@delta"].as_array().unwrap())
        .map(|m| m["id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(told, members);
    let one = members.first().unwrap();
    world.sim.set_group_member(&group, one, false).unwrap();
    let (entries, ..) = round(&world, &link).await;
    let gone = &entries[0]["members@delta"][0];
    assert_eq!((gone["id"].as_str(), gone["@removed"]["reason"].as_str()), (Some(one.as_str()), Some("deleted")));
    let listed = world.get(&format!("/groups/{group}/members?$top=999&$select=id")).await.ok();
    assert_eq!(listed["value"].as_array().unwrap().len(), 99);
    world.oracle();
}

#[tokio::test]
async fn what_a_delta_does_not_support_is_refused() {
    let world = World::quick().await;
    for query in ["$top=5", "$orderby=displayName", "$count=true", "$filter=displayName%20eq%20%27a%27"] {
        let got = world.get(&format!("/users/delta?{query}")).await;
        assert_eq!((got.status, got.code()), (400, "Request_UnsupportedQuery"), "{query}");
    }
    let many = (0..51).map(|n| format!("id eq '{n}'")).collect::<Vec<_>>().join(" or ");
    let query = url::form_urlencoded::Serializer::new(String::new()).append_pair("$filter", &many).finish();
    assert_eq!(world.get(&format!("/users/delta?{query}")).await.status, 400);
    assert_eq!(world.get("/users/delta?$select=id,signInActivity").await.status, 501);
    assert!(world.get("/users/delta?$deltatoken=latest").await.ok()["@odata.deltaLink"].is_string());
}
