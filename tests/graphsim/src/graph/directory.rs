//! Users and groups: look-ups, lists, and deltas with everything about them that surprises.

use std::collections::{BTreeMap, BTreeSet};

use rand::RngExt as _;
use serde_json::{Map, Value, json};

use super::{Call, Outcome, Refusal, selected};
use crate::clock::{DAY, Millis, iso};
use crate::http::Answer;
use crate::things::{Group, User};
use crate::world::World;

/// Directory deltas are forgotten after so long.
const DELTA_LIFE: Millis = 7 * DAY;

/// `$filter` of a delta may name so many ids.
const FILTER_IDS_MAX: usize = 50;

/// One page of a delta names so many members of one group at most.
const MEMBERS_PER_ENTRY: usize = 40;

/// Properties that a delta cannot track.
const UNTRACKED: &[&str] =
    &["skills", "signInActivity", "aboutMe", "birthday", "interests", "mySite", "responsibilities"];

/// The directory with its history.
#[derive(Default)]
pub(crate) struct Directory {
    objects: BTreeMap<String, Object>,
    version: u64,
    /// When each version is seen; later versions never before earlier ones.
    seen_from: Vec<(u64, Millis)>,
    tokens: BTreeMap<String, Token>,
    rounds: BTreeMap<u64, Round>,
    /// The next use of a delta link finds the tenant moved.
    pub(crate) moved: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    User,
    Group,
}

struct Object {
    kind: Kind,
    properties: Map<String, Value>,
    /// Version in which each property changed last.
    changed: BTreeMap<String, u64>,
    created: u64,
    removed: Option<Removed>,
    members: BTreeMap<String, (u64, bool)>,
}

#[derive(Clone, Copy)]
struct Removed {
    version: u64,
    at_ms: Millis,
    for_good: bool,
}

#[derive(Clone)]
enum Token {
    /// Page of a round.
    Page { round: u64, page: usize },
    /// Where the next round begins.
    Since { kind: Kind, select: Vec<String>, ids: BTreeSet<String>, version: u64, issued_ms: Millis },
}

struct Round {
    kind: Kind,
    select: Vec<String>,
    ids: BTreeSet<String>,
    pages: Vec<Vec<Value>>,
    upto: u64,
    issued_ms: Millis,
}

impl Kind {
    fn path(self) -> &'static str {
        match self {
            Self::User => "users",
            Self::Group => "groups",
        }
    }

    fn defaults(self) -> &'static [&'static str] {
        match self {
            Self::User => &[
                "businessPhones",
                "displayName",
                "givenName",
                "jobTitle",
                "mail",
                "mobilePhone",
                "officeLocation",
                "preferredLanguage",
                "surname",
                "userPrincipalName",
            ],
            Self::Group => &[
                "createdDateTime",
                "description",
                "displayName",
                "groupTypes",
                "mail",
                "mailEnabled",
                "mailNickname",
                "securityEnabled",
                "visibility",
            ],
        }
    }
}

impl World {
    /// Adds a user or replaces one; the object id.
    pub(crate) fn put_user(&mut self, mut user: User) -> String {
        if user.id.is_empty() {
            user.id = self.guid();
        }
        let mut properties = Map::new();
        properties.insert("displayName".into(), json!(user.display_name));
        properties.insert("userPrincipalName".into(), json!(user.user_principal_name));
        properties.insert("accountEnabled".into(), json!(!user.disabled));
        properties.insert("userType".into(), json!("Member"));
        if let Some((nickname, _)) = user.user_principal_name.split_once('@') {
            properties.insert("mailNickname".into(), json!(nickname));
            properties.insert("mail".into(), json!(user.user_principal_name));
        }
        properties.extend(user.properties.clone());
        let id = user.id.clone();
        self.put_object(&id, Kind::User, properties);
        self.mail.open(&id);
        self.entra.users.insert(id.clone(), user);
        id
    }

    /// Changes properties of a user or group; null clears.
    pub(crate) fn change_object(&mut self, id: &str, changes: Map<String, Value>) -> Result<(), String> {
        let version = self.directory_version();
        let object = self.directory.objects.get_mut(id).ok_or_else(|| format!("no object {id}"))?;
        for (name, value) in changes {
            if let Some(user) = self.entra.users.get_mut(id) {
                match (name.as_str(), &value) {
                    ("accountEnabled", Value::Bool(enabled)) => user.disabled = !enabled,
                    ("displayName", Value::String(text)) => user.display_name.clone_from(text),
                    ("userPrincipalName", Value::String(text)) => user.user_principal_name.clone_from(text),
                    _ => {}
                }
            }
            object.changed.insert(name.clone(), version);
            object.properties.insert(name, value);
        }
        Ok(())
    }

    /// Deletes an object, for thirty days or for good.
    pub(crate) fn delete_object(&mut self, id: &str, for_good: bool) -> Result<(), String> {
        let (version, at_ms) = (self.directory_version(), self.now());
        let object = self.directory.objects.get_mut(id).ok_or_else(|| format!("no object {id}"))?;
        object.removed = Some(Removed { version, at_ms, for_good });
        if let Some(user) = self.entra.users.get_mut(id) {
            user.disabled = true;
        }
        Ok(())
    }

    /// Takes a user or group out of the recycle bin.
    pub(crate) fn restore_object(&mut self, id: &str) -> Result<(), String> {
        let version = self.directory_version();
        let object = self.directory.objects.get_mut(id).ok_or_else(|| format!("no object {id}"))?;
        match object.removed.take() {
            Some(Removed { for_good: true, .. }) => return Err("it was deleted for good".to_owned()),
            Some(_) | None => object.created = version,
        }
        if let Some(user) = self.entra.users.get_mut(id) {
            user.disabled = object.properties.get("accountEnabled") == Some(&json!(false));
        }
        Ok(())
    }

    /// Adds a group; the object id.
    pub(crate) fn put_group(&mut self, mut group: Group) -> String {
        if group.id.is_empty() {
            group.id = self.guid();
        }
        let mut properties = Map::new();
        properties.insert("displayName".into(), json!(group.display_name));
        properties.insert("securityEnabled".into(), json!(true));
        properties.insert("mailEnabled".into(), json!(false));
        properties.insert("groupTypes".into(), json!([]));
        properties.insert("mailNickname".into(), json!(group.display_name.replace(' ', "").to_lowercase()));
        properties.extend(group.properties.clone());
        let id = group.id.clone();
        self.put_object(&id, Kind::Group, properties);
        for member in group.members {
            self.set_member(&id, &member, true).expect("the group was put in a line above");
        }
        id
    }

    /// Puts a member into a group or takes one out.
    pub(crate) fn set_member(&mut self, group: &str, member: &str, present: bool) -> Result<(), String> {
        let version = self.directory_version();
        let object = self.directory.objects.get_mut(group).ok_or_else(|| format!("no group {group}"))?;
        object.members.insert(member.to_owned(), (version, present));
        Ok(())
    }

    fn put_object(&mut self, id: &str, kind: Kind, properties: Map<String, Value>) {
        let version = self.directory_version();
        let changed = properties.keys().map(|name| (name.clone(), version)).collect();
        let object = Object { kind, properties, changed, created: version, removed: None, members: BTreeMap::new() };
        self.directory.objects.insert(id.to_owned(), object);
    }

    /// The next version, which is seen after the lag. What stands there before the first request has had its time.
    fn directory_version(&mut self) -> u64 {
        let lag_ms = if self.oracle.requests.is_empty() { 0 } else { self.settings.lag.directory_ms };
        let drawn = self.after_lag(lag_ms);
        let directory = &mut self.directory;
        directory.version += 1;
        let at = directory.seen_from.last().map_or(drawn, |(_, last)| drawn.max(*last));
        directory.seen_from.push((directory.version, at));
        directory.version
    }

    fn seen_version(&self) -> u64 {
        let now = self.now();
        let seen = self.directory.seen_from.partition_point(|(_, at)| *at <= now);
        seen.checked_sub(1).map_or(0, |at| self.directory.seen_from[at].0)
    }

    fn seen_object(&self, id: &str, kind: Kind) -> Option<&Object> {
        let upto = self.seen_version();
        let object = self.directory.objects.get(id).or_else(|| {
            let by_name = |o: &&Object| o.properties.get("userPrincipalName").and_then(Value::as_str) == Some(id);
            self.directory.objects.values().find(by_name)
        })?;
        let gone = object.removed.is_some_and(|r| r.version <= upto);
        (object.kind == kind && object.created <= upto && !gone).then_some(object)
    }

    /// The id of a user who is named by id or by sign-in name.
    pub(crate) fn user_id(&self, name: &str) -> Result<String, Refusal> {
        let missing = || {
            let text = format!(
                "Resource '{name}' does not exist or one of its queried reference-property objects are not present."
            );
            Refusal::new(404, "Request_ResourceNotFound", text)
        };
        self.seen_object(name, Kind::User).ok_or_else(missing)?;
        if self.directory.objects.contains_key(name) {
            return Ok(name.to_owned());
        }
        let named =
            |(_, o): &(&String, &Object)| o.properties.get("userPrincipalName").and_then(Value::as_str) == Some(name);
        self.directory.objects.iter().find(named).map(|(id, _)| id.clone()).ok_or_else(missing)
    }

    /// Whether a group has a member, as it is seen.
    pub(crate) fn group_members(&self, group: &str) -> BTreeSet<String> {
        let upto = self.seen_version();
        self.seen_object(group, Kind::Group)
            .map(|o| o.members.iter().filter(|(_, (v, p))| *v <= upto && *p).map(|(m, _)| m.clone()).collect())
            .unwrap_or_default()
    }

    fn object_value(&self, id: &str, object: &Object, select: Option<&str>) -> Value {
        let mut value = Value::Object(object.properties.clone());
        value["id"] = json!(id);
        let defaults = object.kind.defaults().join(",");
        selected(value, Some(select.unwrap_or(&defaults)))
    }

    fn objects(&mut self, call: &Call<'_>, kind: Kind) -> Outcome {
        let filter = call.query("$filter").map(Filter::parse).transpose()?;
        if call.query("$search").is_some() || call.query("$expand").is_some() {
            return Err(Refusal::new(400, "Request_UnsupportedQuery", "The query is not supported by the simulator."));
        }
        let counts = call.query("$count") == Some("true");
        if counts && call.request.header("consistencylevel") != Some("eventual") {
            return Err(Refusal::new(
                400,
                "Request_UnsupportedQuery",
                "$count needs the header ConsistencyLevel: eventual.",
            ));
        }
        let upto = self.seen_version();
        let ids: Vec<String> = self
            .directory
            .objects
            .iter()
            .filter(|(_, o)| o.kind == kind && o.created <= upto && o.removed.is_none_or(|r| r.version > upto))
            .filter(|(id, o)| filter.as_ref().is_none_or(|f| f.fits(id, &o.properties)))
            .map(|(id, _)| id.clone())
            .collect();
        let select = call.query("$select").map(str::to_owned);
        self.page_of(call, ids, 999, |world, id| {
            world.object_value(&id, &world.directory.objects[&id], select.as_deref())
        })
    }

    fn delta(&mut self, call: &Call<'_>, kind: Kind) -> Outcome {
        for name in ["$top", "$orderby", "$expand", "$count", "$search", "$skip"] {
            if call.query(name).is_some() {
                let text = format!("{name} is not supported by delta queries.");
                return Err(Refusal::new(400, "Request_UnsupportedQuery", text));
            }
        }
        let now = self.now();
        let unknown = || Refusal::new(400, "syncStateNotFound", "Sync state generation not found; please sync again.");
        let token = call.query("$skiptoken").or(call.query("$deltatoken")).map(str::to_owned);
        if token.is_some() && token.as_deref() != Some("latest") {
            if call.query("$select").is_some() || call.query("$filter").is_some() {
                let text = "A token carries its own $select and $filter.";
                return Err(Refusal::new(400, "Request_UnsupportedQuery", text));
            }
            if self.directory.moved && call.query("$deltatoken").is_some() {
                self.directory.moved = false;
                let text = "The sync state is no longer valid; start again.";
                let location = format!("{}/v1.0/{}/delta?$deltatoken=", self.urls.graph, kind.path());
                return Err(Refusal::new(410, "resyncRequired", text).with("location", location));
            }
        }
        let (select, ids, since) = match token.as_deref() {
            Some("") | None => {
                let select = self.delta_select(call, kind)?;
                (select, delta_ids(call.query("$filter"))?, None)
            }
            Some("latest") => {
                let (select, ids) = (self.delta_select(call, kind)?, delta_ids(call.query("$filter"))?);
                let version = self.seen_version();
                let token = self.secret("");
                let since = Token::Since { kind, select, ids, version, issued_ms: now };
                self.directory.tokens.insert(token.clone(), since);
                let link = format!("{}/v1.0/{}/delta?$deltatoken={token}", self.urls.graph, kind.path());
                return Ok(Answer::json(
                    200,
                    json!({ "@odata.context": self.context(call), "@odata.deltaLink": link, "value": [] }),
                ));
            }
            Some(token) => match self.directory.tokens.get(token).cloned().ok_or_else(unknown)? {
                Token::Page { round, page } => return self.delta_page(call, kind, round, page),
                Token::Since { kind: of, select, ids, version, issued_ms } => {
                    if of != kind || issued_ms + DELTA_LIFE < now {
                        return Err(unknown());
                    }
                    (select, ids, Some(version))
                }
            },
        };
        let minimal = call.request.header("prefer").is_some_and(|p| p.replace(' ', "").contains("return=minimal"));
        let upto = self.seen_version();
        let entries = self.changes(kind, &select, &ids, since, upto, minimal);
        let pages = self.cut(entries);
        let round = self.directory.rounds.keys().next_back().map_or(0, |last| last + 1);
        self.directory.rounds.insert(round, Round { kind, select, ids, pages, upto, issued_ms: now });
        self.delta_page(call, kind, round, 0)
    }

    fn delta_select(&self, call: &Call<'_>, kind: Kind) -> Result<Vec<String>, Refusal> {
        let Some(select) = call.query("$select") else {
            return Ok(kind.defaults().iter().map(|n| (*n).to_owned()).collect());
        };
        let names: Vec<String> = select.split(',').map(|n| n.trim().to_owned()).collect();
        match names.iter().find(|n| UNTRACKED.contains(&n.as_str())) {
            Some(name) => Err(Refusal::new(501, "NotImplemented", format!("Property '{name}' is not tracked."))),
            None => Ok(names),
        }
    }

    fn changes(
        &self,
        kind: Kind,
        select: &[String],
        ids: &BTreeSet<String>,
        since: Option<u64>,
        upto: u64,
        minimal: bool,
    ) -> Vec<Value> {
        let after = |version: u64| version <= upto && since.is_none_or(|s| version > s);
        let mut entries = Vec::new();
        for (id, object) in self
            .directory
            .objects
            .iter()
            .filter(|(id, o)| o.kind == kind && o.created <= upto && (ids.is_empty() || ids.contains(*id)))
        {
            if let Some(removed) = object.removed.filter(|r| r.version <= upto) {
                // The first round shows some of what is gone as well.
                if after(removed.version) {
                    let reason = if removed.for_good { "deleted" } else { "changed" };
                    entries.push(json!({ "id": id, "@removed": { "reason": reason } }));
                }
                continue;
            }
            let created = after(object.created);
            let changed: Vec<&String> =
                select.iter().filter(|n| object.changed.get(*n).is_some_and(|v| created || after(*v))).collect();
            let members: Vec<Value> = if select.iter().any(|n| n == "members") {
                let wanted = |v: u64, present: bool| if created { v <= upto && present } else { after(v) };
                object
                    .members
                    .iter()
                    .filter(|(_, (v, present))| wanted(*v, *present))
                    .map(|(member, (_, present))| match present {
                        true => json!({ "@odata.type": "#microsoft.graph.user", "id": member }),
                        false => json!({ "@odata.type": "#microsoft.graph.user", "id": member, "@removed": { "reason": "deleted" } }),
                    })
                    .collect()
            } else {
                Vec::new()
            };
            if !created && changed.is_empty() && members.is_empty() {
                continue;
            }
            let mut entry = json!({ "id": id });
            for name in select.iter().filter(|n| !minimal || changed.contains(n)) {
                if let Some(value) = object.properties.get(name) {
                    entry[name.as_str()] = value.clone();
                }
            }
            for part in members.chunks(MEMBERS_PER_ENTRY) {
                let mut entry = entry.clone();
                entry["members@delta"] = json!(part);
                entries.push(entry);
            }
            if members.is_empty() {
                entries.push(entry);
            }
        }
        entries
    }

    /// Into pages of different sizes, some of them empty, out of order and with repetitions.
    fn cut(&mut self, mut entries: Vec<Value>) -> Vec<Vec<Value>> {
        for at in (1..entries.len()).rev() {
            let with = self.rng.random_range(0..=at);
            entries.swap(at, with);
        }
        let repeated: Vec<Value> = entries.iter().filter(|_| self.rng.random_bool(0.03)).cloned().collect();
        for entry in repeated {
            let at = self.rng.random_range(0..=entries.len());
            entries.insert(at, entry);
        }
        let page_max = self.settings.limits.delta_page.max(1);
        let (mut pages, mut rest) = (Vec::new(), entries.as_slice());
        while !rest.is_empty() {
            if self.rng.random_bool(0.1) {
                pages.push(Vec::new());
            }
            let size = self.rng.random_range(page_max.div_ceil(2)..=page_max).min(rest.len());
            let (page, left) = rest.split_at(size);
            pages.push(page.to_vec());
            rest = left;
        }
        if pages.is_empty() || self.rng.random_bool(0.3) {
            pages.push(Vec::new());
        }
        pages
    }

    fn delta_page(&mut self, call: &Call<'_>, kind: Kind, number: u64, page: usize) -> Outcome {
        let now = self.now();
        let round = &self.directory.rounds[&number];
        if round.kind != kind || round.issued_ms + DELTA_LIFE < now {
            return Err(Refusal::new(400, "syncStateNotFound", "Sync state generation not found; please sync again."));
        }
        let values = round.pages[page].clone();
        let (last, since) = (
            page + 1 == round.pages.len(),
            Token::Since {
                kind,
                select: round.select.clone(),
                ids: round.ids.clone(),
                version: round.upto,
                issued_ms: round.issued_ms,
            },
        );
        let token = self.secret("");
        let (name, query) = if last { ("@odata.deltaLink", "$deltatoken") } else { ("@odata.nextLink", "$skiptoken") };
        let next = if last { since } else { Token::Page { round: number, page: page + 1 } };
        self.directory.tokens.insert(token.clone(), next);
        let link = format!("{}/v1.0/{}/delta?{query}={token}", self.urls.graph, kind.path());
        Ok(Answer::json(200, json!({ "@odata.context": self.context(call), name: link, "value": values })))
    }
}

pub(super) fn organization(world: &mut World, call: &Call<'_>) -> Outcome {
    let value = json!({
        "id": world.tenant, "displayName": "Contoso", "tenantType": "AAD",
        "verifiedDomains": [{ "name": "contoso.example", "isDefault": true, "isInitial": true, "type": "Managed" }],
    });
    world.page(call, vec![value], 100)
}

pub(super) fn me(world: &mut World, call: &Call<'_>) -> Outcome {
    one(world, call, call.user().unwrap_or(""), Kind::User)
}

pub(super) fn user(world: &mut World, call: &Call<'_>) -> Outcome {
    one(world, call, &call.params[0], Kind::User)
}

pub(super) fn group(world: &mut World, call: &Call<'_>) -> Outcome {
    one(world, call, &call.params[0], Kind::Group)
}

fn one(world: &World, call: &Call<'_>, name: &str, kind: Kind) -> Outcome {
    let id = match kind {
        Kind::User => world.user_id(name)?,
        Kind::Group => name.to_owned(),
    };
    let object = world
        .seen_object(&id, kind)
        .ok_or_else(|| Refusal::new(404, "Request_ResourceNotFound", format!("Resource '{name}' does not exist.")))?;
    let mut value = world.object_value(&id, object, call.query("$select"));
    value["@odata.context"] = json!(format!("{}/$entity", world.context(call)));
    Ok(Answer::json(200, value))
}

pub(super) fn users(world: &mut World, call: &Call<'_>) -> Outcome {
    world.objects(call, Kind::User)
}

pub(super) fn groups(world: &mut World, call: &Call<'_>) -> Outcome {
    world.objects(call, Kind::Group)
}

pub(super) fn users_delta(world: &mut World, call: &Call<'_>) -> Outcome {
    world.delta(call, Kind::User)
}

pub(super) fn groups_delta(world: &mut World, call: &Call<'_>) -> Outcome {
    world.delta(call, Kind::Group)
}

pub(super) fn members(world: &mut World, call: &Call<'_>) -> Outcome {
    let group = &call.params[0];
    if world.seen_object(group, Kind::Group).is_none() {
        return Err(Refusal::new(404, "Request_ResourceNotFound", format!("Resource '{group}' does not exist.")));
    }
    let transitive = call.row.template.ends_with("transitiveMembers");
    let (mut found, mut open) = (BTreeSet::new(), vec![group.clone()]);
    while let Some(next) = open.pop() {
        for member in world.group_members(&next) {
            if found.insert(member.clone()) && transitive {
                open.push(member);
            }
        }
    }
    let values = found.iter().filter_map(|id| {
        let object = world.seen_object(id, Kind::User).or_else(|| world.seen_object(id, Kind::Group))?;
        let mut value = world.object_value(id, object, call.query("$select"));
        let name = match object.kind {
            Kind::User => "#microsoft.graph.user",
            Kind::Group => "#microsoft.graph.group",
        };
        value["@odata.type"] = json!(name);
        Some(value)
    });
    let values = values.collect();
    world.page(call, values, 999)
}

pub(super) fn member_of(world: &mut World, call: &Call<'_>) -> Outcome {
    let user = world.user_id(&call.params[0])?;
    let groups: Vec<Value> = world
        .directory
        .objects
        .iter()
        .filter(|(id, o)| o.kind == Kind::Group && world.group_members(id).contains(&user))
        .map(|(id, o)| {
            let mut value = world.object_value(id, o, call.query("$select"));
            value["@odata.type"] = json!("#microsoft.graph.group");
            value
        })
        .collect();
    world.page(call, groups, 999)
}

pub(super) fn deleted_users(world: &mut World, call: &Call<'_>) -> Outcome {
    let upto = world.seen_version();
    let gone = |o: &Object| o.removed.filter(|r| r.version <= upto && !r.for_good);
    let values: Vec<Value> = world
        .directory
        .objects
        .iter()
        .filter(|(_, o)| o.kind == Kind::User)
        .filter_map(|(id, o)| {
            let mut value = world.object_value(id, o, call.query("$select"));
            value["deletedDateTime"] = json!(iso(gone(o)?.at_ms));
            Some(value)
        })
        .collect();
    world.page(call, values, 999)
}

fn delta_ids(filter: Option<&str>) -> Result<BTreeSet<String>, Refusal> {
    let Some(filter) = filter else { return Ok(BTreeSet::new()) };
    let unsupported =
        || Refusal::new(400, "Request_UnsupportedQuery", "Delta queries filter by up to 50 ids and by nothing else.");
    let parsed = Filter::parse(filter).map_err(|_| unsupported())?;
    let ids: Option<BTreeSet<String>> = parsed
        .any
        .into_iter()
        .map(|all| match all.as_slice() {
            [(name, value)] if name == "id" => Some(value.clone()),
            _ => None,
        })
        .collect();
    ids.filter(|ids| ids.len() <= FILTER_IDS_MAX).ok_or_else(unsupported)
}

/// `a eq 'x' and b eq true or c eq 'y'`: nothing else is understood, and nothing else is let through.
pub(crate) struct Filter {
    any: Vec<Vec<(String, String)>>,
}

impl Filter {
    pub(crate) fn parse(text: &str) -> Result<Self, Refusal> {
        let unsupported =
            || Refusal::new(400, "Request_UnsupportedQuery", format!("The filter is not supported: {text}"));
        let comparison = |part: &str| {
            let (name, value) = part.trim().split_once(" eq ")?;
            let value = value.trim();
            let value = match value.strip_prefix('\'').and_then(|v| v.strip_suffix('\'')) {
                Some(quoted) => quoted.replace("''", "'"),
                None if matches!(value, "true" | "false") || value.parse::<i64>().is_ok() => value.to_owned(),
                None => return None,
            };
            Some((name.trim().to_owned(), value))
        };
        let any: Option<Vec<Vec<(String, String)>>> =
            text.split(" or ").map(|all| all.split(" and ").map(comparison).collect()).collect();
        Ok(Self { any: any.ok_or_else(unsupported)? })
    }

    pub(crate) fn fits(&self, id: &str, properties: &Map<String, Value>) -> bool {
        let equal = |name: &str, wanted: &str| match name {
            "id" => id == wanted,
            _ => match properties.get(name) {
                Some(Value::String(text)) => text.eq_ignore_ascii_case(wanted),
                Some(Value::Bool(flag)) => flag.to_string() == wanted,
                Some(Value::Number(number)) => number.to_string() == wanted,
                Some(Value::Null | Value::Array(_) | Value::Object(_)) | None => false,
            },
        };
        self.any.iter().any(|all| all.iter().all(|(name, wanted)| equal(name, wanted)))
    }
}
