//! Planner: plans, buckets, tasks and their details, with the entity tags that every change needs.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Call, Outcome, Refusal};
use crate::http::Answer;
use crate::oracle::What;
use crate::world::World;

/// State of the service.
#[derive(Default)]
pub(crate) struct Planner {
    things: BTreeMap<String, Thing>,
}

struct Thing {
    kind: Kind,
    value: Value,
    details: Value,
    version: u32,
    details_version: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Plan,
    Bucket,
    Task,
}

fn not_found() -> Refusal {
    Refusal::new(404, "", "The requested item is not found.")
}

fn tag(id: &str, part: &str, version: u32) -> String {
    format!("W/\"{}\"", data_encoding::BASE64.encode(format!("{id}/{part}/{version}").as_bytes()))
}

impl Thing {
    fn shown(&self, id: &str, details: bool) -> Value {
        let (mut value, part, version) = if details {
            (self.details.clone(), "details", self.details_version)
        } else {
            (self.value.clone(), "", self.version)
        };
        value["id"] = json!(id);
        value["@odata.etag"] = json!(tag(id, part, version));
        value
    }
}

fn kind_of(call: &Call<'_>) -> Kind {
    match call.row.template {
        t if t.starts_with("/planner/buckets") => Kind::Bucket,
        t if t.starts_with("/planner/tasks") => Kind::Task,
        _ => Kind::Plan,
    }
}

impl World {
    /// The group that a thing belongs to by its plan; a user must be a member.
    fn may_plan(&self, call: &Call<'_>, group: &str) -> Result<(), Refusal> {
        let members = self.team_members(group).unwrap_or_else(|| self.group_members(group));
        match call.user() {
            Some(user) if !members.contains(user) => {
                Err(Refusal::new(403, "", "You do not have the required permissions to access this item."))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn planned(&self, call: &Call<'_>, kind: Kind, id: &str) -> Result<&Thing, Refusal> {
        let thing = self.planner.things.get(id).filter(|t| t.kind == kind).ok_or_else(not_found)?;
        let plan = thing.value["planId"].as_str().unwrap_or(id);
        let group = self.planner.things.get(plan).and_then(|p| p.value["owner"].as_str()).ok_or_else(not_found)?;
        self.may_plan(call, group)?;
        Ok(thing)
    }

    fn plan_id(&mut self) -> String {
        self.secret("")[..28].to_owned()
    }
}

/// Every change names the version that it is made to.
fn matched(call: &Call<'_>, current: &str) -> Result<(), Refusal> {
    match call.request.header("if-match") {
        None => Err(Refusal::new(400, "", "The If-Match header must be specified for this request.")),
        Some(given) if given == current => Ok(()),
        Some(_) => Err(Refusal::new(412, "", "The item has been modified: read it again.")),
    }
}

pub(super) fn create(world: &mut World, call: &Call<'_>) -> Outcome {
    let (kind, mut value) = (kind_of(call), call.json.clone());
    if let Some(readonly) =
        ["id", "owner", "createdBy", "createdDateTime"].iter().find(|n| !value[**n].is_null() && **n != "owner")
    {
        return Err(Refusal::new(400, "", format!("The property {readonly} is read-only.")));
    }
    match kind {
        Kind::Plan => {
            let prefix = format!("{}/v1.0/groups/", world.urls.graph);
            let group = value["container"]["url"].as_str().and_then(|u| u.strip_prefix(&prefix)).map(str::to_owned);
            let group = group.ok_or_else(|| Refusal::new(400, "", "container.url must name a group of this Graph."))?;
            let known = world.team_members(&group).is_some() || !world.group_members(&group).is_empty();
            if !known || value["title"].as_str().is_none_or(str::is_empty) {
                return Err(Refusal::new(400, "", "The group is not known, or the title is missing."));
            }
            world.may_plan(call, &group)?;
            value["owner"] = json!(group);
        }
        Kind::Bucket | Kind::Task => {
            let plan = value["planId"].as_str().unwrap_or("").to_owned();
            world.planned(call, Kind::Plan, &plan).map_err(|_| Refusal::new(400, "", "planId names no plan."))?;
            let name = if kind == Kind::Bucket { "name" } else { "title" };
            if value[name].as_str().is_none_or(str::is_empty) {
                return Err(Refusal::new(400, "", format!("{name} is missing.")));
            }
            let bucket = value["bucketId"].as_str().map(str::to_owned);
            if let Some(bucket) = bucket
                && world.planned(call, Kind::Bucket, &bucket)?.value["planId"] != plan.as_str()
            {
                return Err(Refusal::new(400, "", "bucketId is of another plan."));
            }
        }
    }
    let id = world.plan_id();
    let details = match kind {
        Kind::Task => json!({ "description": "", "checklist": {}, "references": {} }),
        Kind::Plan | Kind::Bucket => json!({}),
    };
    let thing = Thing { kind, value, details, version: 1, details_version: 1 };
    let shown = thing.shown(&id, false);
    world.planner.things.insert(id.clone(), thing);
    world.record(call, What::PlannerCreated, format!("{kind:?}"), id, shown.clone());
    Ok(Answer::json(201, shown))
}

pub(super) fn one(world: &mut World, call: &Call<'_>) -> Outcome {
    let id = &call.params[0];
    let shown = world.planned(call, kind_of(call), id)?.shown(id, call.row.template.ends_with("/details"));
    Ok(Answer::json(200, shown))
}

pub(super) fn change(world: &mut World, call: &Call<'_>) -> Outcome {
    let (id, kind) = (call.params[0].clone(), kind_of(call));
    let details = call.row.template.ends_with("/details");
    let current = world.planned(call, kind, &id)?.shown(&id, details)["@odata.etag"].as_str().unwrap_or("").to_owned();
    matched(call, &current)?;
    let thing = world.planner.things.get_mut(&id).expect("looked up above");
    let value = if details { &mut thing.details } else { &mut thing.value };
    for (name, new) in call.json.as_object().into_iter().flatten() {
        // Open collections are merged; null takes an entry out.
        match (value[name.as_str()].as_object().cloned(), new.as_object()) {
            (Some(mut old), Some(changes)) => {
                for (key, change) in changes {
                    if change.is_null() {
                        old.remove(key)
                    } else {
                        old.insert(key.clone(), change.clone())
                    };
                }
                value[name.as_str()] = Value::Object(old);
            }
            _ => value[name.as_str()] = new.clone(),
        }
    }
    if details {
        thing.details_version += 1;
    } else {
        thing.version += 1;
    }
    let shown = thing.shown(&id, details);
    world.record(call, What::PlannerChanged, format!("{kind:?}"), id, shown.clone());
    let wanted = call.request.header("prefer").is_some_and(|p| p.contains("return=representation"));
    Ok(if wanted { Answer::json(200, shown) } else { Answer::empty(204) })
}

pub(super) fn delete(world: &mut World, call: &Call<'_>) -> Outcome {
    let (id, kind) = (call.params[0].clone(), kind_of(call));
    let current = world.planned(call, kind, &id)?.shown(&id, false)["@odata.etag"].as_str().unwrap_or("").to_owned();
    matched(call, &current)?;
    world.planner.things.remove(&id);
    world.planner.things.retain(|_, t| t.value["planId"] != id.as_str() && t.value["bucketId"] != id.as_str());
    world.record(call, What::PlannerDeleted, format!("{kind:?}"), id, json!({}));
    Ok(Answer::empty(204))
}

/// Plans of a group; buckets and tasks of a plan.
pub(super) fn all(world: &mut World, call: &Call<'_>) -> Outcome {
    let of = call.params[0].clone();
    let (kind, name) = match call.row.template {
        t if t.ends_with("/buckets") => (Kind::Bucket, "planId"),
        t if t.ends_with("/tasks") => (Kind::Task, "planId"),
        _ => (Kind::Plan, "owner"),
    };
    if kind == Kind::Plan {
        world.may_plan(call, &of)?;
    } else {
        world.planned(call, Kind::Plan, &of)?;
    }
    let found = world.planner.things.iter().filter(|(_, t)| t.kind == kind && t.value[name] == of.as_str());
    let values = found.map(|(id, t)| t.shown(id, false)).collect();
    world.page(call, values, 400)
}
