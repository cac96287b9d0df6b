//! Which token opens what, in which cloud.

use std::collections::BTreeSet;

use graphsim::{App, Cloud, Contract, Settings, TeamsApp, What, rows::ROWS};
use reqwest::Method;
use serde_json::{Value, json};

use crate::world::{World, html, quick, subset};

/// The table of operations was taken from the subset; it must stay that.
#[test]
fn the_table_of_operations_is_the_subsets() {
    let Some(path) = subset() else { return };
    let contract = Contract::read(&path).unwrap();
    let names = |value: &Value| -> BTreeSet<String> {
        value.as_array().into_iter().flatten().map(|v| v.as_str().unwrap().to_owned()).collect()
    };
    let own = |list: &[&str]| -> BTreeSet<String> { list.iter().map(|n| (*n).to_owned()).collect() };
    let mut count = 0;
    for (template, operations) in contract.paths().as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap().iter().filter(|(_, o)| o["responses"].is_object()) {
            count += 1;
            let at = format!("{method} {template}");
            let row = ROWS.iter().find(|r| r.template == template && r.method.eq_ignore_ascii_case(method));
            let row = row.unwrap_or_else(|| panic!("{at} has no row"));
            let needs = &operation["x-permissions"];
            match row.needs {
                None => assert!(needs.is_null(), "{at}"),
                Some(n) => {
                    assert_eq!(own(n.delegated), names(&needs["delegated"]), "{at}");
                    assert_eq!(own(n.application), names(&needs["application"]), "{at}");
                }
            }
            let clouds = [&operation["x-clouds-doc"], &operation["x-clouds"]]
                .into_iter()
                .find(|c| !c.is_null())
                .unwrap_or(&Value::Null);
            let of = |kind: &str| if clouds.is_object() { names(&clouds[kind]) } else { names(clouds) };
            assert_eq!(own(row.clouds.delegated), of("delegated"), "{at}");
            assert_eq!(own(row.clouds.application), of("application"), "{at}");
        }
    }
    assert_eq!(count, ROWS.len());
}

#[tokio::test]
async fn a_government_cloud_has_no_edits_no_soft_deletion_and_no_import_into_channels() {
    let world = World::start(Settings { cloud: Cloud::Usgov, ..quick() }).await;
    let (anna, channel) = (world.user_token("anna").await, world.ops());
    let posted = world.send(&anna, Method::POST, &format!("{channel}/messages"), Some(html("<p>a</p>"))).await.ok();
    let one = format!("{channel}/messages/{}", posted["id"].as_str().unwrap());
    for (token, method, path, body) in [
        (&anna, Method::PATCH, one.clone(), Some(html("<p>b</p>"))),
        (&anna, Method::POST, format!("{one}/softDelete"), None),
        (&world.token, Method::POST, format!("{channel}/startMigration"), Some(json!({}))),
    ] {
        let got = world.send(token, method, &path, body).await;
        assert_eq!((got.status, got.code()), (404, "ResourceNotFound"), "{path}");
    }
    let react = Some(json!({ "reactionType": "👍" }));
    assert_eq!(world.send(&anna, Method::POST, &format!("{one}/setReaction"), react).await.status, 204);
    let shared = json!({ "displayName": "Shared", "membershipType": "shared" });
    assert_eq!(world.post(&format!("/teams/{}/channels", world.team.id), shared).await.status, 400);
    world.oracle();
}

/// The one-shot import that every cloud is said to have: a team made in migration mode, completed channel by channel.
#[tokio::test]
async fn a_team_made_in_migration_mode_takes_messages_and_is_completed_last() {
    let world = World::start(Settings { cloud: Cloud::Usgov, ..quick() }).await;
    let template = format!("{}/v1.0/teamsTemplates('standard')", world.sim.graph_url());
    let made = world
        .post(
            "/teams",
            json!({
                "@microsoft.graph.teamCreationMode": "migration", "template@odata.bind": template, "displayName": "Old",
                "description": "then", "createdDateTime": "2026-01-01T00:00:00Z",
            }),
        )
        .await;
    assert_eq!(made.status, 202, "{}", made.text);
    let (operation, team) = (made.header("location").to_owned(), made.header("content-location").to_owned());
    assert_eq!(world.get(&operation).await.ok()["status"], "succeeded");
    let wanted = json!({
        "@microsoft.graph.channelCreationMode": "migration", "displayName": "Log", "membershipType": "standard",
        "createdDateTime": "2026-01-01T00:00:00Z",
    });
    let channel = world.post(&format!("{team}/channels"), wanted.clone()).await.ok()["id"].as_str().unwrap().to_owned();
    let taken = world.post(&format!("{team}/channels"), wanted).await;
    assert_eq!(taken.json["error"]["innerError"]["code"], "NameAlreadyExists");
    let mut message = html("<p>then</p>");
    message["createdDateTime"] = json!("2026-02-01T00:00:00.001Z");
    message["from"] = json!({ "user": { "id": world.anna, "displayName": "anna", "userIdentityType": "aadUser" } });
    world.post(&format!("{team}/channels/{channel}/messages"), message).await.ok();
    let member = json!({
        "@odata.type": "#microsoft.graph.aadUserConversationMember", "roles": ["owner"],
        "user@odata.bind": format!("{}/v1.0/users('{}')", world.sim.graph_url(), world.anna),
    });
    assert_eq!(world.post(&format!("{team}/members"), member.clone()).await.status, 400, "not before it is completed");
    let complete = |path: String| async move { path };
    for (path, status) in
        [(format!("{team}/completeMigration"), 400), (format!("{team}/channels/{channel}/completeMigration"), 204)]
    {
        assert_eq!(
            world.send(&world.token, Method::POST, &complete(path.clone()).await, None).await.status,
            status,
            "{path}"
        );
    }
    let general = world.get(&format!("{team}/primaryChannel")).await.ok()["id"].as_str().unwrap().to_owned();
    for path in [format!("{team}/channels/{general}/completeMigration"), format!("{team}/completeMigration")] {
        assert_eq!(world.send(&world.token, Method::POST, &path, None).await.status, 204, "{path}");
    }
    assert_eq!(world.post(&format!("{team}/members"), member).await.status, 201);
    world.oracle();
}

#[tokio::test]
async fn a_site_that_was_not_granted_is_closed_to_an_app_with_selected_sites() {
    let mut world = World::quick().await;
    let app = App::new("Archive").secret("s3cret").application(&["Sites.Selected"]);
    world.app = world.sim.add_app(app).unwrap();
    world.token = world.app_token("").await;
    let root = format!("/drives/{}/root", world.team.drive);
    let got = world.get(&root).await;
    assert_eq!((got.status, got.code()), (403, "accessDenied"));
    assert!(world.sim.change_app(&world.app, |app| {
        app.sites.insert(world.team.site.clone());
    }));
    world.get(&root).await.ok();
    world.oracle();
}

#[tokio::test]
async fn notifications_need_a_declared_type_an_installed_app_and_a_link_of_teams() {
    let world = World::quick().await;
    let teams_app = TeamsApp {
        external_id: "8f6f1d2c-0000-4000-8000-000000000001".into(),
        activity_types: [("digest".to_owned(), BTreeSet::from(["count".to_owned()]))].into(),
        ..TeamsApp::default()
    };
    world.sim.change_app(&world.app, |app| app.teams_app = Some(teams_app));
    let path = format!("/users/{}/teamwork/sendActivityNotification", world.anna);
    let notice = |kind: &str| {
        json!({
            "topic": { "source": "text", "value": "Bravo", "webUrl": "https://teams.microsoft.com/l/entity/a/b" },
            "activityType": kind, "previewText": { "content": "12 messages" }, "chainId": 7,
            "templateParameters": [{ "name": "count", "value": "12" }],
        })
    };
    assert_eq!(world.post(&path, notice("digest")).await.status, 403, "not installed");
    world.sim.change_app(&world.app, |app| {
        app.teams_app.as_mut().unwrap().installed_for.insert(world.anna.clone());
    });
    assert_eq!(world.post(&path, notice("unheard")).await.status, 400);
    let mut elsewhere = notice("digest");
    elsewhere["topic"]["webUrl"] = json!("https://holdfast.example/");
    assert_eq!(world.post(&path, elsewhere).await.status, 400);
    assert_eq!(world.post(&path, notice("digest")).await.status, 204);
    assert_eq!(world.oracle().of(What::NotificationSent).count(), 1);
}
