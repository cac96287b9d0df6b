//! What a mission looks like through the API of one node, in a form that two nodes can be compared by.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::http::{CallError, User, text};

/// Posts asked for at once; the server's own maximum.
const PAGE: usize = 200;

/// Every object of a mission by name (`post/<id>`, `file/<id>`, ...), reduced to what must be equal on both sides.
pub(crate) type Picture = BTreeMap<String, Value>;

/// Takes the picture of these channels and all that hangs on them: their teams, members, posts and files.
///
/// Left out is what is each node's own: roles, read marks, counters, and the mark on a post that arrived late.
pub(crate) async fn picture(viewer: &User, channels: &[String]) -> Result<Picture, CallError> {
    let mut picture = Picture::new();
    let mut users = BTreeSet::new();
    for id in channels {
        let channel = viewer.get(&format!("/channels/{id}")).await?;
        let team = text(&channel, "team_id");
        if !team.is_empty() {
            let state = viewer.get(&format!("/teams/{team}")).await?;
            picture.insert(format!("team/{team}"), only(&state, &["name", "display_name", "type", "create_at"]));
        }
        let fields = ["team_id", "type", "name", "display_name", "header", "purpose", "create_at", "delete_at"];
        picture.insert(format!("channel/{id}"), only(&channel, &fields));
        for member in list(&viewer.get(&format!("/channels/{id}/members?per_page={PAGE}")).await?) {
            let user = text(member, "user_id");
            picture.insert(format!("member/{id}/{user}"), Value::Bool(true));
            users.insert(user);
        }
        for post in posts(viewer, id).await? {
            users.insert(text(&post, "user_id"));
            for file in list(&post["file_ids"]) {
                let file = file.as_str().unwrap_or_default();
                let content = viewer.download(file).await?;
                picture.insert(format!("file/{file}"), json!({"bytes": content.len(), "sum": checksum(&content)}));
            }
            picture.insert(format!("post/{}", text(&post, "id")), reduced(&post));
        }
    }
    for user in users {
        let state = viewer.get(&format!("/users/{user}")).await?;
        let fields = ["username", "nickname", "first_name", "last_name", "position", "create_at"];
        picture.insert(format!("user/{user}"), only(&state, &fields));
    }
    Ok(picture)
}

/// Every post of a channel, deleted ones included where the viewer may see them.
pub(crate) async fn posts(viewer: &User, channel: &str) -> Result<Vec<Value>, CallError> {
    let mut found = Vec::new();
    for page in 0.. {
        let path = format!("/channels/{channel}/posts?page={page}&per_page={PAGE}&include_deleted=true");
        let answer = viewer.get(&path).await?;
        let order = list(&answer["order"]);
        found.extend(order.iter().map(|id| answer["posts"][id.as_str().unwrap_or_default()].clone()));
        if order.len() < PAGE {
            break;
        }
    }
    Ok(found)
}

/// The differences between two pictures, one line each, at most 20.
pub(crate) fn differences(left: &Picture, right: &Picture) -> Vec<String> {
    let names: BTreeSet<&String> = left.keys().chain(right.keys()).collect();
    names
        .into_iter()
        .filter(|name| left.get(*name) != right.get(*name))
        .map(|name| match (left.get(name), right.get(name)) {
            (Some(_), None) => format!("{name}: only at the edge"),
            (None, Some(_)) => format!("{name}: only at the hub"),
            (edge, hub) => format!("{name}:\n  edge {}\n  hub  {}", show(edge), show(hub)),
        })
        .take(20)
        .collect()
}

fn reduced(post: &Value) -> Value {
    let fields = [
        "create_at",
        "update_at",
        "edit_at",
        "delete_at",
        "user_id",
        "channel_id",
        "root_id",
        "message",
        "type",
        "hashtags",
        "is_pinned",
        "file_ids",
    ];
    let mut state = only(post, &fields);
    let mut props = post["props"].as_object().cloned().unwrap_or_default();
    props.retain(|name, _| !name.contains("late") && !name.starts_with("holdfast"));
    state["props"] = Value::Object(props);
    state["priority"] = post["metadata"]["priority"].clone();
    let mut reactions: Vec<String> = list(&post["metadata"]["reactions"])
        .iter()
        .map(|r| format!("{} {} {}", text(r, "emoji_name"), text(r, "user_id"), r["create_at"]))
        .collect();
    reactions.sort();
    state["reactions"] = json!(reactions);
    let files = list(&post["metadata"]["files"]).iter();
    let fields = ["id", "name", "extension", "size", "mime_type", "create_at"];
    state["files"] = files.map(|f| only(f, &fields)).collect();
    state
}

fn only(object: &Value, fields: &[&str]) -> Value {
    fields.iter().map(|f| ((*f).to_owned(), object[*f].clone())).collect::<serde_json::Map<_, _>>().into()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn show(value: Option<&Value>) -> String {
    value.map(Value::to_string).unwrap_or_default()
}

/// FNV-1a: enough to tell files apart, and nothing to depend on.
pub(crate) fn checksum(content: &[u8]) -> u64 {
    content.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}
