//! Lists of SharePoint, as far as a log or a board needs them: columns, items, one unique column, entity tags.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{Call, Outcome, Refusal, files};
use crate::clock::{Millis, iso};
use crate::http::Answer;
use crate::oracle::What;
use crate::world::World;

/// State of the service.
#[derive(Default)]
pub(crate) struct Lists {
    lists: BTreeMap<String, List>,
}

struct List {
    site: String,
    name: String,
    description: String,
    created_ms: Millis,
    columns: Vec<Value>,
    items: BTreeMap<u64, Item>,
    last: u64,
}

struct Item {
    fields: Map<String, Value>,
    version: u32,
    guid: String,
    created_ms: Millis,
    modified_ms: Millis,
}

impl Item {
    fn tag(&self) -> String {
        format!("\"{},{}\"", self.guid, self.version)
    }
}

fn not_found() -> Refusal {
    Refusal::new(404, "itemNotFound", "The specified list or item was not found.")
}

fn invalid(text: impl Into<String>) -> Refusal {
    Refusal::new(400, "invalidRequest", text)
}

impl World {
    /// The list of the path, if the caller may use its site.
    fn list_of(&self, call: &Call<'_>) -> Result<(String, &List), Refusal> {
        let site = files::open_site(self, call, &call.params[0])?;
        let id = &call.params[1];
        let list = self.lists.lists.get(id).filter(|l| l.site == site).ok_or_else(not_found)?;
        Ok((id.clone(), list))
    }

    fn list_item(&self, call: &Call<'_>) -> Result<(String, u64), Refusal> {
        let (id, list) = self.list_of(call)?;
        let number = call.params[2].parse().ok().filter(|n| list.items.contains_key(n)).ok_or_else(not_found)?;
        match call.request.header("if-match") {
            Some(tag) if tag != "*" && tag != list.items[&number].tag() => {
                Err(Refusal::new(412, "resourceModified", "ETag does not match current item's value."))
            }
            Some(_) | None => Ok((id, number)),
        }
    }

    /// Fields that have a column, and none that would stand twice where they may not.
    fn check_fields(&self, list: &List, fields: &Map<String, Value>, but: Option<u64>) -> Result<(), Refusal> {
        for (name, value) in fields {
            let column = list.columns.iter().find(|c| c["name"] == name.as_str());
            let column = column.ok_or_else(|| invalid(format!("Field '{name}' is not recognized")))?;
            let taken = |(number, item): (&u64, &Item)| Some(*number) != but && item.fields.get(name) == Some(value);
            if column["enforceUniqueValues"] == true && list.items.iter().any(taken) {
                return Err(invalid(format!(
                    "The value of the column {name} exists in the list, and is to be unique."
                )));
            }
        }
        Ok(())
    }
}

fn list_value(id: &str, list: &List) -> Value {
    json!({
        "id": id, "name": list.name, "displayName": list.name, "description": list.description,
        "createdDateTime": iso(list.created_ms), "list": { "template": "genericList", "hidden": false, "contentTypesEnabled": false },
    })
}

fn item_value(number: u64, item: &Item, with_fields: bool) -> Value {
    let mut value = json!({
        "id": number.to_string(), "eTag": item.tag(), "createdDateTime": iso(item.created_ms),
        "lastModifiedDateTime": iso(item.modified_ms),
    });
    if with_fields {
        value["fields"] = Value::Object(item.fields.clone());
        value["fields"]["id"] = json!(number.to_string());
    }
    value
}

pub(super) fn lists(world: &mut World, call: &Call<'_>) -> Outcome {
    let site = files::open_site(world, call, &call.params[0])?;
    let values = world.lists.lists.iter().filter(|(_, l)| l.site == site).map(|(id, l)| list_value(id, l)).collect();
    world.page(call, values, 999)
}

pub(super) fn list(world: &mut World, call: &Call<'_>) -> Outcome {
    let (id, list) = world.list_of(call)?;
    let mut value = list_value(&id, list);
    value["@odata.context"] = json!(world.context(call));
    Ok(Answer::json(200, value))
}

pub(super) fn create(world: &mut World, call: &Call<'_>) -> Outcome {
    let site = files::open_site(world, call, &call.params[0])?;
    let name = call.json["displayName"].as_str().unwrap_or("").to_owned();
    if name.is_empty() || call.json["list"]["template"].as_str().is_none_or(|t| t != "genericList") {
        return Err(invalid("displayName and list.template `genericList` are needed."));
    }
    if world.lists.lists.values().any(|l| l.site == site && l.name == name) {
        return Err(Refusal::new(409, "nameAlreadyExists", "A list of that name exists."));
    }
    let mut columns =
        vec![json!({ "id": world.guid(), "name": "Title", "displayName": "Title", "text": {}, "indexed": false })];
    for column in call.json["columns"].as_array().into_iter().flatten() {
        columns.push(checked_column(world, &columns, column)?);
    }
    let (id, created_ms) = (world.guid(), world.now());
    let description = call.json["description"].as_str().unwrap_or("").to_owned();
    let list = List { site: site.clone(), name, description, created_ms, columns, items: BTreeMap::new(), last: 0 };
    let mut value = list_value(&id, &list);
    world.lists.lists.insert(id.clone(), list);
    world.record(call, What::ListCreated, site, id, value.clone());
    value["@odata.context"] = json!(world.context(call));
    Ok(Answer::json(201, value))
}

/// A column that is unique must be indexed, and names stand once.
fn checked_column(world: &mut World, columns: &[Value], column: &Value) -> Result<Value, Refusal> {
    let name = column["name"].as_str().filter(|n| !n.is_empty()).ok_or_else(|| invalid("A column needs a name."))?;
    if columns.iter().any(|c| c["name"] == name) {
        return Err(Refusal::new(409, "nameAlreadyExists", "A column of that name exists."));
    }
    if column["enforceUniqueValues"] == true && column["indexed"] != true {
        return Err(invalid("A column that enforces unique values must be indexed."));
    }
    let mut kept = column.clone();
    kept["id"] = json!(world.guid());
    Ok(kept)
}

pub(super) fn columns(world: &mut World, call: &Call<'_>) -> Outcome {
    let values = world.list_of(call)?.1.columns.clone();
    world.page(call, values, 999)
}

pub(super) fn create_column(world: &mut World, call: &Call<'_>) -> Outcome {
    let (id, list) = world.list_of(call)?;
    let columns = list.columns.clone();
    let kept = checked_column(world, &columns, &call.json)?;
    world.lists.lists.get_mut(&id).expect("looked up above").columns.push(kept.clone());
    Ok(Answer::json(201, kept))
}

pub(super) fn items(world: &mut World, call: &Call<'_>) -> Outcome {
    let (_, list) = world.list_of(call)?;
    let expanded = call.query("$expand").is_some_and(|e| e.starts_with("fields"));
    let filter = match call.query("$filter") {
        None => None,
        Some(text) => {
            let parsed = text.strip_prefix("fields/").and_then(|rest| rest.split_once(" eq "));
            let (name, value) = parsed.ok_or_else(|| invalid(format!("The filter is not supported: {text}")))?;
            let value = value.trim().trim_matches('\'').replace("''", "'");
            let indexed = list.columns.iter().any(|c| c["name"] == name && c["indexed"] == true);
            let warned = call
                .request
                .header("prefer")
                .is_some_and(|p| p.contains("HonorNonIndexedQueriesWarningMayFailRandomly"));
            if !indexed && !warned {
                return Err(invalid(format!(
                    "Field '{name}' cannot be referenced in filter or orderby as it is not indexed."
                )));
            }
            Some((name.to_owned(), value))
        }
    };
    let fits = |item: &Item| {
        filter.as_ref().is_none_or(|(name, value)| item.fields.get(name).is_some_and(|v| v == value.as_str()))
    };
    let found = list.items.iter().filter(|(_, i)| fits(i));
    let values = found.map(|(number, item)| item_value(*number, item, expanded)).collect();
    world.page(call, values, 5000)
}

pub(super) fn create_item(world: &mut World, call: &Call<'_>) -> Outcome {
    let (id, list) = world.list_of(call)?;
    let fields = call.json["fields"].as_object().cloned().ok_or_else(|| invalid("fields are missing."))?;
    world.check_fields(list, &fields, None)?;
    let (guid, now) = (world.guid(), world.now());
    let list = world.lists.lists.get_mut(&id).expect("looked up above");
    list.last += 1;
    let (number, item) = (list.last, Item { fields, version: 1, guid, created_ms: now, modified_ms: now });
    let mut value = item_value(number, &item, true);
    list.items.insert(number, item);
    world.record(call, What::ListItemCreated, id, number.to_string(), value["fields"].clone());
    value["@odata.context"] = json!(world.context(call));
    Ok(Answer::json(201, value))
}

pub(super) fn change_item(world: &mut World, call: &Call<'_>) -> Outcome {
    let (id, number) = world.list_item(call)?;
    let fields = call.json.as_object().cloned().unwrap_or_default();
    world.check_fields(&world.lists.lists[&id], &fields, Some(number))?;
    let now = world.now();
    let list = world.lists.lists.get_mut(&id).expect("looked up above");
    let item = list.items.get_mut(&number).expect("looked up above");
    item.fields.extend(fields);
    item.version += 1;
    item.modified_ms = now;
    let value = item_value(number, item, true)["fields"].clone();
    world.record(call, What::ListItemChanged, id, number.to_string(), value.clone());
    Ok(Answer::json(200, value))
}

pub(super) fn delete_item(world: &mut World, call: &Call<'_>) -> Outcome {
    let (id, number) = world.list_item(call)?;
    world.lists.lists.get_mut(&id).expect("looked up above").items.remove(&number);
    world.record(call, What::ListItemDeleted, id, number.to_string(), json!({}));
    Ok(Answer::empty(204))
}
