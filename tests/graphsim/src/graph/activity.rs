//! Activity notifications and the Teams apps that they need.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Call, Outcome, Refusal};
use crate::http::Answer;
use crate::oracle::What;
use crate::things::TeamsApp;
use crate::world::World;

/// One request names so many recipients at most.
const RECIPIENTS_MAX: usize = 100;

impl World {
    /// The Teams app of the caller, with the notification checked against its manifest.
    fn notifier(&self, call: &Call<'_>) -> Result<TeamsApp, Refusal> {
        let body = &call.json;
        let app = self.entra.apps.get(&call.caller.app).and_then(|a| a.teams_app.clone());
        let app = app.ok_or_else(|| Refusal::new(403, "Forbidden", "The caller has no Teams app in the catalogue."))?;
        if body["teamsAppId"].as_str().is_some_and(|id| id != app.id) {
            return Err(Refusal::bad("teamsAppId is not the caller's."));
        }
        let kind = body["activityType"].as_str().unwrap_or("");
        let given: BTreeSet<String> = body["templateParameters"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|p| p["name"].as_str().map(str::to_owned))
            .collect();
        let wanted = match app.activity_types.get(kind) {
            Some(parameters) => parameters.clone(),
            None if kind == "systemDefault" => BTreeSet::from(["systemDefaultText".to_owned()]),
            None => return Err(Refusal::bad(format!("Activity type '{kind}' is not declared in the manifest."))),
        };
        if given != wanted {
            return Err(Refusal::bad("templateParameters must be those of the activity type."));
        }
        let topic = &body["topic"];
        let value = topic["value"].as_str().unwrap_or("");
        match topic["source"].as_str() {
            Some("entityUrl") if value.starts_with(&format!("{}/v1.0/", self.urls.graph)) => {}
            Some("text")
                if !value.is_empty()
                    && topic["webUrl"].as_str().is_some_and(|u| u.starts_with("https://") && u.contains("/l/")) => {}
            _ => {
                return Err(Refusal::bad(
                    "topic needs a URL of Graph, or a text with a webUrl that is a deep link of Teams.",
                ));
            }
        }
        Ok(app)
    }

    fn notify(&mut self, call: &Call<'_>, place: &str, user: &str) {
        let detail = call.json.clone();
        let chain = detail["chainId"].to_string();
        self.record(call, What::NotificationSent, place, format!("{user} {chain}"), detail);
    }
}

fn installed_or_refused(app: &TeamsApp, wanted: &str) -> Result<(), Refusal> {
    if app.installed_for.contains(wanted) {
        return Ok(());
    }
    Err(Refusal::new(403, "Forbidden", "Application with identifier is not installed for the recipient."))
}

pub(super) fn to_user(world: &mut World, call: &Call<'_>) -> Outcome {
    let app = world.notifier(call)?;
    let user = world.user_id(&call.params[0])?;
    installed_or_refused(&app, &user)?;
    world.notify(call, &user, &user);
    Ok(Answer::empty(204))
}

fn to_members(world: &mut World, call: &Call<'_>, members: Option<BTreeSet<String>>) -> Outcome {
    let app = world.notifier(call)?;
    let place = &call.params[0];
    let members = members.ok_or_else(|| Refusal::missing("Not found."))?;
    installed_or_refused(&app, place)?;
    let user = call.json["recipient"]["userId"].as_str().unwrap_or("");
    if !members.contains(user) {
        return Err(Refusal::new(403, "Forbidden", "The recipient is not a member."));
    }
    world.notify(call, place, user);
    Ok(Answer::empty(204))
}

pub(super) fn to_team(world: &mut World, call: &Call<'_>) -> Outcome {
    let members = world.team_members(&call.params[0]);
    to_members(world, call, members)
}

pub(super) fn to_chat(world: &mut World, call: &Call<'_>) -> Outcome {
    let members = world.chat_members(&call.params[0]);
    to_members(world, call, members)
}

pub(super) fn to_recipients(world: &mut World, call: &Call<'_>) -> Outcome {
    let app = world.notifier(call)?;
    let users: Vec<String> = call.json["recipients"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|r| r["userId"].as_str().map(str::to_owned))
        .collect();
    if users.is_empty() || users.len() > RECIPIENTS_MAX {
        return Err(Refusal::bad("One to a hundred recipients are named."));
    }
    // Who has not installed the app gets nothing, and nobody is told.
    for user in users.iter().filter(|user| app.installed_for.contains(*user)) {
        world.notify(call, "recipients", user);
    }
    Ok(Answer::empty(202))
}

fn app_value(app: &TeamsApp) -> Value {
    json!({ "id": app.id, "externalId": app.external_id, "distributionMethod": "organization" })
}

pub(super) fn catalogue(world: &mut World, call: &Call<'_>) -> Outcome {
    let filter = call.query("$filter").map(super::directory::Filter::parse).transpose()?;
    let values: Vec<Value> = world
        .entra
        .apps
        .values()
        .filter_map(|a| a.teams_app.as_ref())
        .map(app_value)
        .filter(|v| {
            filter.as_ref().is_none_or(|f| v.as_object().is_some_and(|o| f.fits(v["id"].as_str().unwrap_or(""), o)))
        })
        .collect();
    world.page(call, values, 999)
}

pub(super) fn installed(world: &mut World, call: &Call<'_>) -> Outcome {
    let user = world.user_id(&call.params[0])?;
    let values: Vec<Value> = world
        .entra
        .apps
        .values()
        .filter_map(|a| a.teams_app.as_ref())
        .filter(|a| a.installed_for.contains(&user))
        .map(|a| json!({ "id": data_encoding::BASE64.encode(format!("{user}##{}", a.id).as_bytes()) }))
        .collect();
    world.page(call, values, 999)
}

pub(super) fn install(world: &mut World, call: &Call<'_>) -> Outcome {
    let user = world.user_id(&call.params[0])?;
    let bind = call.json["teamsApp@odata.bind"].as_str().unwrap_or("").to_owned();
    let id = bind.rsplit_once('/').map_or("", |(_, id)| id).to_owned();
    if !bind.starts_with(&world.urls.graph) {
        return Err(Refusal::bad("teamsApp@odata.bind must name an app in this Graph's catalogue."));
    }
    let app = world.entra.apps.values_mut().filter_map(|a| a.teams_app.as_mut()).find(|a| a.id == id);
    let app = app.ok_or_else(|| Refusal::missing("App not found in the catalogue."))?;
    if !app.installed_for.insert(user.clone()) {
        return Err(Refusal::new(409, "Conflict", "The app is installed for this user already."));
    }
    world.record(call, What::AppInstalled, user, id, json!({}));
    Ok(Answer::empty(201))
}
