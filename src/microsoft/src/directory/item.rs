//! One object of a delta answer: what it says, what it leaves unsaid, and what it clears.

use model::Guid;
use serde::Deserialize;
use serde_json::{Map, Value};

/// Longest text of a property that is kept, in characters.
const TEXT_RUNES_MAX: usize = 256;

/// A page that is not understood. Nothing of its round was taken over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}; what was known of the directory is as it was")]
pub struct PageError(pub String);

pub(crate) fn bad<T>(why: impl Into<String>) -> Result<T, PageError> {
    Err(PageError(why.into()))
}

/// A user or group.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub(crate) id: Guid,
    pub(crate) removed: Option<Removed>,
    properties: Map<String, Value>,
    /// Members that came (`true`) or went.
    pub(crate) members: Vec<(Guid, bool)>,
}

/// `@removed.reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Removed {
    /// In the recycle bin for 30 days.
    Changed,
    /// For good.
    Deleted,
}

/// A property in a delta answer: what is missing did not change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told<T> {
    Unchanged,
    Cleared,
    Is(T),
}

impl Item {
    pub(crate) fn text(&self, name: &str) -> Result<Told<String>, PageError> {
        Ok(match self.properties.get(name) {
            None => Told::Unchanged,
            Some(Value::Null) => Told::Cleared,
            Some(Value::String(text)) => {
                Told::Is(text.chars().filter(|c| !c.is_control()).take(TEXT_RUNES_MAX).collect())
            }
            Some(_) => return bad(format!("`{name}` of {} is no text", self.id)),
        })
    }

    pub(crate) fn flag(&self, name: &str) -> Result<Told<bool>, PageError> {
        Ok(match self.properties.get(name) {
            None => Told::Unchanged,
            Some(Value::Null) => Told::Cleared,
            Some(Value::Bool(is)) => Told::Is(*is),
            Some(_) => return bad(format!("`{name}` of {} is neither true nor false", self.id)),
        })
    }
}

#[derive(Deserialize)]
struct RawRemoved {
    reason: Option<String>,
}

#[derive(Deserialize)]
struct RawMember {
    id: String,
    #[serde(rename = "@removed")]
    removed: Option<Value>,
}

/// Reads one object of a page.
pub(crate) fn read(object: &Value) -> Result<Item, PageError> {
    match object {
        Value::Object(properties) => item(properties.clone()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            bad("an item of a page is no object")
        }
    }
}

fn item(mut properties: Map<String, Value>) -> Result<Item, PageError> {
    let id = properties.get("id").and_then(Value::as_str).and_then(|id| id.parse().ok());
    let Some(id) = id else { return bad("an item has no id") };
    let removed = match properties.remove("@removed") {
        None => None,
        Some(removed) => {
            let removed: RawRemoved = serde_json::from_value(removed)
                .or_else(|e| bad(format!("`@removed` of {id} is not understood: {e}")))?;
            match removed.reason.as_deref() {
                Some("changed") => Some(Removed::Changed),
                Some("deleted") => Some(Removed::Deleted),
                Some(_) | None => return bad(format!("{id} is removed for no known reason")),
            }
        }
    };
    let members = match properties.remove("members@delta") {
        None => Vec::new(),
        Some(members) => {
            let members: Vec<RawMember> = serde_json::from_value(members)
                .or_else(|e| bad(format!("the members of {id} are not understood: {e}")))?;
            let each = members.into_iter().map(|m| match m.id.parse() {
                Ok(member) => Ok((member, m.removed.is_none())),
                Err(_) => bad(format!("a member of {id} has no id")),
            });
            each.collect::<Result<_, _>>()?
        }
    };
    Ok(Item { id, removed, properties, members })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_that_make_no_sense_fail_the_page() {
        let id = "00000000-0000-0000-0000-000000000001";
        let of = |item: &str| read(&serde_json::from_str(item).unwrap());
        for bad in [
            r#"{"displayName":"x"}"#.to_owned(),
            r#"{"id":"x"}"#.to_owned(),
            "[]".to_owned(),
            format!(r#"{{"id":"{id}","@removed":{{"reason":"moved"}}}}"#),
            format!(r#"{{"id":"{id}","members@delta":[{{"id":"x"}}]}}"#),
            format!(r#"{{"id":"{id}","members@delta":{{}}}}"#),
        ] {
            assert!(of(&bad).is_err(), "{bad}");
        }
        let good = of(&format!(r#"{{"id":"{id}","mail":null,"jobTitle":"a\u0007b","accountEnabled":true}}"#)).unwrap();
        assert_eq!(good.text("mail"), Ok(Told::Cleared));
        assert_eq!(good.text("surname"), Ok(Told::Unchanged));
        assert_eq!(good.text("jobTitle"), Ok(Told::Is("ab".to_owned())));
        assert_eq!(good.flag("accountEnabled"), Ok(Told::Is(true)));
        assert!(good.text("accountEnabled").is_err());
    }
}
