//! Compares what the two sites show of the mission, object by object, through the same API that clients use.
//!
//! To that comes what the two cores export of themselves: it holds what the API does not show, such as versions.
//!
//! A [`Snapshot`] is read with the administrator's session of each site. Fields that belong to a node alone (roles,
//! read marks, arrival marks) are not in it; everything that replicates is.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::{Value, json};

use super::client::{ApiError, Channel, FileInfo, Member, Post, Session, Team, User};
use super::script::Player;
use super::{DemoError, Side};

/// Objects per request; the API's own maximum.
const PAGE: usize = 200;

/// Fields of one object.
type Fields = BTreeMap<&'static str, Value>;

/// Everything that one site shows, by kind and key.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Snapshot {
    objects: BTreeMap<(&'static str, String), Fields>,
    /// How a reader recognises an object: the start of a post's text, a user's name.
    labels: BTreeMap<(&'static str, String), String>,
}

/// What a comparison found.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Comparison {
    /// Objects on either side.
    pub(super) objects: usize,
    /// Objects by kind, on either side.
    pub(super) by_kind: BTreeMap<&'static str, usize>,
    /// Every difference, in order of kind and key.
    pub(super) differences: Vec<Difference>,
}

/// One thing that is not equal.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Difference {
    /// Kind, label and key of the object.
    pub(super) object: String,
    /// The field that differs; `None` when one side lacks the object.
    pub(super) field: Option<&'static str>,
    /// What the edge shows.
    pub(super) edge: Option<Value>,
    /// What the hub shows.
    pub(super) hub: Option<Value>,
}

impl Comparison {
    /// Are both sides equal?
    pub(super) fn equal(&self) -> bool {
        self.differences.is_empty()
    }
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.field, &self.edge, &self.hub) {
            (None, Some(_), _) => write!(f, "{}: only at the edge", self.object),
            (None, None, _) => write!(f, "{}: only at the hub", self.object),
            (Some(field), edge, hub) => {
                write!(f, "{}: {field} is {} at the edge, {} at the hub", self.object, shown(edge), shown(hub))
            }
        }
    }
}

fn shown(value: &Option<Value>) -> String {
    value.as_ref().map_or_else(|| "absent".to_owned(), Value::to_string)
}

/// Compares two sites.
pub(super) fn compare(edge: &Snapshot, hub: &Snapshot) -> Comparison {
    let keys: BTreeSet<_> = edge.objects.keys().chain(hub.objects.keys()).collect();
    let mut comparison = Comparison { objects: keys.len(), by_kind: BTreeMap::new(), differences: Vec::new() };
    for key in keys {
        *comparison.by_kind.entry(key.0).or_default() += 1;
        let label = edge.labels.get(key).or_else(|| hub.labels.get(key)).map_or("", String::as_str);
        let object = if label.is_empty() {
            format!("{} {}", key.0, key.1)
        } else {
            format!("{} “{label}” ({})", key.0, key.1)
        };
        match (edge.objects.get(key), hub.objects.get(key)) {
            (Some(a), Some(b)) => {
                let fields: BTreeSet<_> = a.keys().chain(b.keys()).copied().collect();
                comparison.differences.extend(fields.into_iter().filter(|field| a.get(field) != b.get(field)).map(
                    |field| Difference {
                        object: object.clone(),
                        field: Some(field),
                        edge: a.get(field).cloned(),
                        hub: b.get(field).cloned(),
                    },
                ));
            }
            (a, b) => comparison.differences.push(Difference {
                object,
                field: None,
                edge: a.map(|fields| json!(fields)),
                hub: b.map(|fields| json!(fields)),
            }),
        }
    }
    comparison
}

impl Snapshot {
    /// Posts, beyond the first, that say the same by the same author in the same place at the same millisecond. The
    /// scripted people never write the same text twice, so each is an entry that took effect twice.
    pub(super) fn duplicates(&self) -> u64 {
        let mut seen = BTreeSet::new();
        let posts = self.objects.iter().filter(|((kind, _), _)| *kind == "post");
        let natural = posts.map(|(_, fields)| {
            ["channel_id", "user_id", "create_at", "message", "type", "root_id", "files"]
                .map(|field| fields.get(field).map(Value::to_string))
        });
        natural.filter(|key| !seen.insert(key.clone())).count() as u64
    }

    /// What a core holds, as it exports it: kinds, then objects by key.
    pub(super) fn put_stored(&mut self, exported: &Value) {
        for (kind, objects) in exported.as_object().into_iter().flatten() {
            for (key, object) in objects.as_object().into_iter().flatten() {
                let fields = Fields::from([("state", object.clone())]);
                self.put("stored object", format!("{kind} {key}"), "", fields);
            }
        }
    }

    fn put(&mut self, kind: &'static str, key: String, label: &str, fields: Fields) {
        const LABEL_CHARS_MAX: usize = 40;
        let short: String = label.chars().take(LABEL_CHARS_MAX).collect();
        self.labels.insert((kind, key.clone()), short);
        self.objects.insert((kind, key), fields);
    }

    fn put_user(&mut self, user: &User) {
        let fields = Fields::from([
            ("username", json!(user.username)),
            ("first_name", json!(user.first_name)),
            ("last_name", json!(user.last_name)),
            ("nickname", json!(user.nickname)),
            ("position", json!(user.position)),
            ("create_at", json!(user.create_at)),
            ("update_at", json!(user.update_at)),
            ("delete_at", json!(user.delete_at)),
        ]);
        self.put("user", user.id.clone(), &user.username, fields);
    }

    fn put_team(&mut self, team: &Team) {
        let fields = Fields::from([
            ("name", json!(team.name)),
            ("display_name", json!(team.display_name)),
            ("create_at", json!(team.create_at)),
            ("update_at", json!(team.update_at)),
            ("delete_at", json!(team.delete_at)),
        ]);
        self.put("team", team.id.clone(), &team.name, fields);
    }

    fn put_channel(&mut self, channel: &Channel) {
        // Direct and group channels have no display name of their own: each client is told the others' names.
        let named = matches!(channel.kind.as_str(), "O" | "P");
        let fields = Fields::from([
            ("team_id", json!(channel.team_id)),
            ("type", json!(channel.kind)),
            ("name", json!(channel.name)),
            ("display_name", if named { json!(channel.display_name) } else { Value::Null }),
            ("header", json!(channel.header)),
            ("purpose", json!(channel.purpose)),
            ("creator_id", json!(channel.creator_id)),
            ("create_at", json!(channel.create_at)),
            ("update_at", json!(channel.update_at)),
            ("delete_at", json!(channel.delete_at)),
        ]);
        self.put("channel", channel.id.clone(), &channel.display_name, fields);
    }

    fn put_post(&mut self, post: &Post) {
        let files = post.metadata.files.iter().flatten().map(|file| file.id.clone()).collect::<Vec<_>>();
        let fields = Fields::from([
            ("channel_id", json!(post.channel_id)),
            ("user_id", json!(post.user_id)),
            ("root_id", json!(post.root_id)),
            ("type", json!(post.kind)),
            ("message", json!(post.message)),
            ("create_at", json!(post.create_at)),
            ("update_at", json!(post.update_at)),
            ("edit_at", json!(post.edit_at)),
            ("delete_at", json!(post.delete_at)),
            ("is_pinned", json!(post.is_pinned)),
            ("files", json!(files)),
            ("props", post.shared_props()),
            ("priority", post.metadata.priority.as_ref().map_or(Value::Null, |p| p["priority"].clone())),
        ]);
        self.put("post", post.id.clone(), &post.message, fields);
        for reaction in post.metadata.reactions.iter().flatten() {
            let key = format!("{} by {} on {}", reaction.emoji_name, reaction.user_id, reaction.post_id);
            self.put("reaction", key, "", Fields::from([("create_at", json!(reaction.create_at))]));
        }
    }

    fn put_file(&mut self, file: &FileInfo, hash: Option<blake3::Hash>) {
        let fields = Fields::from([
            ("post_id", json!(file.post_id)),
            ("name", json!(file.name)),
            ("size", json!(file.size)),
            ("mime_type", json!(file.mime_type)),
            ("content", hash.map_or_else(|| json!("not here yet"), |hash| json!(hash.to_hex().as_str()))),
        ]);
        self.put("file", file.id.clone(), &file.name, fields);
    }
}

/// Reads everything that a site shows.
///
/// # Errors
/// When its API refuses a listing.
pub(super) async fn read(player: &Player, side: Side) -> Result<Snapshot, DemoError> {
    let admin = player.observer(side);
    let mut snapshot = Snapshot::default();
    // A site's own bot, which tells its people what arrived late, and its messages stay at the site.
    let (bots, people): (Vec<User>, Vec<User>) =
        pages::<User>(admin, "/users?").await?.into_iter().partition(|user| user.is_bot);
    people.iter().for_each(|user| snapshot.put_user(user));
    for team in pages::<Team>(admin, "/teams?").await? {
        snapshot.put_team(&team);
        for member in pages::<Member>(admin, &format!("/teams/{}/members?", team.id)).await? {
            let key = format!("{} in {}", member.user_id, team.name);
            snapshot.put("team member", key, "", Fields::from([("delete_at", json!(member.delete_at))]));
        }
    }
    for channel in channels(player, side).await?.values() {
        if channel.kind == "D" && bots.iter().any(|bot| channel.name.contains(&bot.id)) {
            continue;
        }
        snapshot.put_channel(channel);
        for member in pages::<Member>(admin, &format!("/channels/{}/members?", channel.id)).await? {
            let key = format!("{} in {}", member.user_id, channel.name);
            snapshot.put("channel member", key, "", Fields::new());
        }
        for post in posts(admin, &channel.id).await?.values() {
            snapshot.put_post(post);
            for file in post.metadata.files.iter().flatten() {
                let hash = admin.download(&file.id).await.ok().map(|bytes| blake3::hash(&bytes));
                snapshot.put_file(file, hash);
            }
        }
    }
    Ok(snapshot)
}

/// Channels of every kind: direct and group channels are only in their members' lists.
async fn channels(player: &Player, side: Side) -> Result<BTreeMap<String, Channel>, ApiError> {
    let mut all = BTreeMap::new();
    let mut add = |channels: Vec<Channel>| all.extend(channels.into_iter().map(|c| (c.id.clone(), c)));
    add(pages(player.observer(side), "/channels?include_deleted=true&").await?);
    for (username, session) in player.sessions() {
        if super::script::side_of(username) == side {
            add(session.metered_by(player.observer(side).meter()).channels().await?);
        }
    }
    for id in player.channel_ids() {
        add(vec![player.observer(side).get(&format!("/channels/{id}")).await?]);
    }
    Ok(all)
}

/// Posts of a channel: the pages hold those that stand, `since` also those that were deleted.
async fn posts(admin: &Session, channel_id: &str) -> Result<BTreeMap<String, Post>, ApiError> {
    let mut all = admin.posts_since(channel_id, 1).await?.posts;
    for page in 0.. {
        let list = admin.posts(channel_id, page, PAGE as u32).await?;
        let last = list.order.len() < PAGE;
        all.extend(list.posts);
        if last {
            break;
        }
    }
    // Rows of the edit history have an id of their own at each site.
    all.retain(|_, post| post.original_id.is_empty());
    Ok(all)
}

async fn pages<T: for<'de> Deserialize<'de>>(session: &Session, path: &str) -> Result<Vec<T>, ApiError> {
    let mut all = Vec::new();
    for page in 0.. {
        let part: Vec<T> = session.get(&format!("{path}page={page}&per_page={PAGE}")).await?;
        let last = part.len() < PAGE;
        all.extend(part);
        if last {
            break;
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user() -> User {
        serde_json::from_value(
            json!({"id": "u1", "username": "amira", "first_name": "أميرة", "create_at": 1, "update_at": 2}),
        )
        .unwrap()
    }

    fn post() -> Post {
        serde_json::from_value(json!({
            "id": "p1", "channel_id": "c1", "user_id": "u1", "root_id": "", "message": "Check in", "create_at": 10,
            "update_at": 11, "metadata": {"reactions": [{"user_id": "u1", "post_id": "p1", "emoji_name": "eyes", "create_at": 12}]},
        }))
        .unwrap()
    }

    fn file() -> FileInfo {
        serde_json::from_value(json!({"id": "f1", "post_id": "p1", "name": "survey.docx", "size": 9})).unwrap()
    }

    fn channel() -> Channel {
        serde_json::from_value(json!({
            "id": "c1", "team_id": "t1", "type": "O", "name": "ops", "display_name": "Operations", "create_at": 1, "update_at": 1,
        }))
        .unwrap()
    }

    fn world() -> Snapshot {
        let mut snapshot = Snapshot::default();
        snapshot.put_user(&user());
        snapshot.put_channel(&channel());
        snapshot.put("channel member", "u1 in ops".to_owned(), "", Fields::new());
        snapshot.put_post(&post());
        snapshot.put_file(&file(), Some(blake3::hash(b"survey")));
        snapshot
    }

    #[test]
    fn equal_sides_have_no_differences() {
        let comparison = compare(&world(), &world());
        assert!(comparison.equal());
        assert_eq!(comparison.objects, 6);
        assert_eq!(comparison.by_kind["reaction"], 1);
    }

    #[test]
    fn each_field_of_a_post_is_compared() {
        type Change = fn(&mut Post);
        let changes: [(&str, Change); 10] = [
            ("props", |p| p.props = json!({"from": "a script"})),
            ("user_id", |p| p.user_id = "u2".to_owned()),
            ("root_id", |p| p.root_id = "p0".to_owned()),
            ("message", |p| p.message = "Check out".to_owned()),
            ("create_at", |p| p.create_at += 1),
            ("update_at", |p| p.update_at += 1),
            ("edit_at", |p| p.edit_at += 1),
            ("delete_at", |p| p.delete_at += 1),
            ("is_pinned", |p| p.is_pinned = true),
            ("priority", |p| p.metadata.priority = Some(json!({"priority": "urgent"}))),
        ];
        for (field, change) in changes {
            let mut changed = post();
            change(&mut changed);
            let mut hub = world();
            hub.put_post(&changed);
            let fields: Vec<_> = compare(&world(), &hub).differences.iter().map(|d| d.field).collect();
            assert_eq!(fields, [Some(field)]);
        }
    }

    #[test]
    fn the_mark_that_a_post_arrived_late_is_no_difference() {
        let edge = Post { props: json!({}), ..post() };
        let hub = Post { props: json!({"holdfast": {"late": true, "origin": "edge"}}), ..post() };
        assert!(!edge.is_late() && hub.is_late());
        let (mut left, mut right) = (world(), world());
        left.put_post(&edge);
        right.put_post(&hub);
        assert!(compare(&left, &right).equal());
    }

    #[test]
    fn a_missing_object_of_any_kind_is_found_on_either_side() {
        let full = world();
        for key in full.objects.keys() {
            let mut lacking = full.clone();
            lacking.objects.remove(key);
            let at_hub = compare(&lacking, &full).differences;
            let at_edge = compare(&full, &lacking).differences;
            assert_eq!((at_hub.len(), at_edge.len()), (1, 1), "{key:?}");
            assert!(at_hub[0].to_string().ends_with("only at the hub"), "{}", at_hub[0]);
            assert!(at_edge[0].to_string().ends_with("only at the edge"), "{}", at_edge[0]);
        }
    }

    #[test]
    fn a_file_with_other_bytes_or_without_them_differs() {
        for hash in [Some(blake3::hash(b"other")), None] {
            let mut hub = world();
            hub.put_file(&file(), hash);
            let differences = compare(&world(), &hub).differences;
            assert_eq!(differences.len(), 1);
            assert_eq!(differences[0].field, Some("content"));
        }
    }

    #[test]
    fn users_and_channels_that_differ_are_named_readably() {
        let mut hub = world();
        hub.put_user(&User { last_name: "حداد".to_owned(), ..user() });
        hub.put_channel(&Channel { display_name: "Ops".to_owned(), ..channel() });
        let lines: Vec<String> = compare(&world(), &hub).differences.iter().map(Difference::to_string).collect();
        assert_eq!(
            lines,
            [
                "channel “Operations” (c1): display_name is \"Operations\" at the edge, \"Ops\" at the hub",
                "user “amira” (u1): last_name is \"\" at the edge, \"حداد\" at the hub",
            ]
        );
    }

    #[test]
    fn what_only_the_cores_know_is_compared_too() {
        let stored = |version: &str| {
            let mut snapshot = world();
            snapshot.put_stored(&json!({"posts": {"p1": {"version": version}}, "users": {}}));
            snapshot
        };
        assert!(compare(&stored("5@a"), &stored("5@a")).equal());
        let differences = compare(&stored("5@a"), &stored("6@b")).differences;
        assert_eq!(differences.len(), 1);
        assert!(differences[0].to_string().starts_with("stored object posts p1: state is"), "{}", differences[0]);
    }

    #[test]
    fn a_post_that_took_effect_twice_is_a_duplicate() {
        let mut twice = world();
        assert_eq!(twice.duplicates(), 0);
        twice.put_post(&Post { id: "p2".to_owned(), ..post() });
        assert_eq!(twice.duplicates(), 1);
        twice.put_post(&Post { id: "p3".to_owned(), create_at: 99, ..post() });
        assert_eq!(twice.duplicates(), 1, "another moment is another post");
    }
}
