//! What administrators, mmctl and monitoring ask of a server.

use super::*;

#[tokio::test]
async fn the_settings_are_shown_masked_and_what_differs_from_the_file_is_refused() {
    let site = Site::new().await;
    let admin = site.admin().await;
    let config = site.get("/api/v4/config", &admin.bearer()).await.json;
    assert_eq!(config["TeamSettings"]["SiteName"], "Test site");
    assert_eq!(config["FileSettings"]["MaxFileSize"], json!(FILE_MAX));
    assert!(config["SqlSettings"]["DataSource"].as_str().unwrap().chars().all(|c| c == '*'));
    let put = |path: &str, body: Value| {
        let (path, bearer, site) = (path.to_owned(), admin.bearer(), &site);
        async move { site.request(&Method::PUT, &path, &bearer, body.to_string()).await }
    };
    let same = put("/api/v4/config", config.clone()).await;
    assert_eq!((same.status, &same.json), (200, &config), "a tool that writes back what it read goes on");
    let other = put("/api/v4/config/patch", json!({ "TeamSettings": { "SiteName": "Other" } })).await;
    assert_eq!((other.status, other.id()), (501, "holdfast.config_is_a_file.app_error"));
    assert!(other.json["message"].as_str().unwrap().contains("TeamSettings.SiteName"), "{}", other.json);
    let mut filled_up = config.clone();
    filled_up["ClientRequirements"] = json!({ "AndroidLatestVersion": "" });
    filled_up["ServiceSettings"]["TLSOverwriteCiphers"] = json!([]);
    assert_eq!(put("/api/v4/config/patch", filled_up.clone()).await.status, 200, "empty is as good as left out");
    filled_up["TeamSettings"]["SiteName"] = json!("Other");
    let by_mmctl = put("/api/v4/config/patch", filled_up).await;
    assert!(by_mmctl.json["message"].as_str().unwrap().contains("TeamSettings.SiteName"), "{}", by_mmctl.json);
    let unknown = put("/api/v4/config/patch", json!({ "ServiceSettings": { "EnableX": true } })).await;
    assert_eq!(unknown.status, 501, "nothing is pretended");
    assert_eq!(site.get("/api/v4/config", &admin.bearer()).await.json, config);
    assert_eq!(put("/api/v4/config", json!([])).await.status, 400);
}

#[tokio::test]
async fn who_signed_in_and_what_they_changed_is_kept_and_told_to_whom_it_concerns() {
    let site = Site::new().await;
    let (admin, bob) = (site.admin().await, site.user("bob").await);
    let wrong = json!({ "login_id": "bob", "password": "wrong" }).to_string();
    site.post("/api/v4/users/login", &[("x-forwarded-for", "192.0.2.7".to_owned())], wrong).await;
    let roles = format!("/api/v4/users/{}/roles", bob.id);
    let body = json!({ "roles": "system_user" }).to_string();
    assert_eq!(site.request(&Method::PUT, &roles, &admin.bearer(), body).await.status, 200);
    let body = json!({ "current_password": "wrong", "new_password": PASSWORD }).to_string();
    site.request(&Method::PUT, "/api/v4/users/me/password", &bob.bearer(), body).await;
    let all = site.get("/api/v4/audits?per_page=3", &admin.bearer()).await.json;
    let told: Vec<_> =
        all.as_array().unwrap().iter().map(|a| (a["action"].as_str().unwrap(), &a["extra_info"])).collect();
    assert_eq!(
        told,
        [
            ("/api/v4/users/me/password", &json!("fail api.user.update_password.incorrect.app_error")),
            (roles.as_str(), &json!("success")),
            ("/api/v4/users/login", &json!("fail api.user.login.invalid_credentials_email_username login_id=bob")),
        ]
    );
    assert_eq!((&all[2]["ip_address"], &all[2]["user_id"]), (&json!("192.0.2.7"), &json!("")));
    let own = site.get("/api/v4/users/me/audits", &bob.bearer()).await.json;
    assert!(own.as_array().unwrap().iter().all(|audit| audit["user_id"] == json!(bob.id)), "{own}");
    let first = own.as_array().unwrap().last().unwrap();
    assert_eq!(
        (&first["action"], &first["extra_info"]),
        (&json!("/api/v4/users/login"), &json!("success login_id=bob"))
    );
    // Strangers are refused; they must not push out what was noted.
    let noted = site.get("/api/v4/audits", &admin.bearer()).await.json;
    for path in [format!("/api/v4/users/{}", admin.id), format!("/api/v4/users/{}", "x".repeat(1_500))] {
        assert_eq!(site.request(&Method::DELETE, &path, &[], "").await.status, 401);
    }
    site.post("/api/v4/users/logout", &[], "").await;
    assert_eq!(site.get("/api/v4/audits", &admin.bearer()).await.json, noted);
    assert_eq!(site.get("/api/v4/audits", &bob.bearer()).await.status, 403);
    assert_eq!(site.get(&format!("/api/v4/users/{}/audits", admin.id), &bob.bearer()).await.status, 403);
}

#[tokio::test]
async fn a_busy_server_refuses_what_can_wait_until_the_time_is_over() {
    let site = Site::new().await;
    let world = site.world().await;
    let admin = &world.admin;
    let search = || async {
        let body = json!({ "term": "bo" }).to_string();
        site.post("/api/v4/users/search", &world.bob.bearer(), body).await
    };
    assert_eq!(search().await.status, 200);
    assert_eq!(site.post("/api/v4/server_busy?seconds=0", &admin.bearer(), "").await.status, 400);
    assert_eq!(site.post("/api/v4/server_busy?seconds=60", &admin.bearer(), "").await.status, 200);
    let refused = search().await;
    assert_eq!((refused.status, refused.id()), (503, "api.context.server_busy.app_error"));
    site.say(&world.bob, &world.channel, "posts go on").await;
    let state = site.get("/api/v4/server_busy", &admin.bearer()).await.json;
    assert_eq!(state["busy"], true);
    assert!(state["expires_ts"].as_str().unwrap().ends_with("+0000 UTC 2027"), "{state}");
    site.clock.step(61_000);
    assert_eq!(search().await.status, 200);
    let never =
        json!({ "busy": false, "expires": -62_135_596_800_i64, "expires_ts": "Mon Jan 1 00:00:00 +0000 UTC 0001" });
    assert_eq!(site.get("/api/v4/server_busy", &admin.bearer()).await.json, never);
    assert_eq!(site.post("/api/v4/server_busy", &admin.bearer(), "").await.status, 200);
    assert_eq!(search().await.status, 503);
    assert_eq!(site.request(&Method::DELETE, "/api/v4/server_busy", &admin.bearer(), "").await.status, 200);
    assert_eq!(search().await.status, 200);
}

#[tokio::test]
async fn numbers_are_counted_and_the_public_ones_are_rough() {
    let site = Site::new().await;
    let world = site.world().await;
    for n in 0..11 {
        site.say(&world.bob, &world.channel, &n.to_string()).await;
    }
    let rows = site.get("/api/v4/analytics/old", &world.admin.bearer()).await.json;
    let value = |name: &str| rows.as_array().unwrap().iter().find(|row| row["name"] == name).unwrap()["value"].clone();
    assert_eq!(
        (value("channel_open_count"), value("team_count"), value("unique_user_count")),
        (json!(4), json!(1), json!(2))
    );
    let days = site.get("/api/v4/analytics/old?name=user_counts_with_posts_day", &world.admin.bearer()).await.json;
    assert_eq!(days.as_array().unwrap().len(), 1);
    assert_eq!(days[0]["name"].as_str().unwrap().len(), "2027-01-15".len());
    let other = site.get("/api/v4/analytics/old?name=x", &world.admin.bearer()).await;
    assert_eq!((other.status, other.id()), (400, "api.context.invalid_body_param.app_error"));
    assert_eq!(site.get("/api/v4/usage/posts", &world.bob.bearer()).await.json, json!({ "count": 10 }));
    let teams = site.get("/api/v4/usage/teams", &world.bob.bearer()).await.json;
    assert_eq!(teams, json!({ "active": 1, "cloud_archived": 0 }));
}

#[tokio::test]
async fn roles_and_what_comes_with_permissions_are_told_and_what_they_permit_is_fixed() {
    let site = Site::new().await;
    let (admin, bob) = (site.admin().await, site.user("bob").await);
    let roles = site.get("/api/v4/roles", &admin.bearer()).await.json;
    assert!(roles.as_array().unwrap().len() > 20);
    let by_name = |name: &str| roles.as_array().unwrap().iter().find(|role| role["name"] == name).unwrap().clone();
    let at = |name: &str| format!("/api/v4/roles/{}", by_name(name)["id"].as_str().unwrap());
    assert_eq!(site.get(&at("team_user"), &bob.bearer()).await.json, by_name("team_user"));
    let missing = site.get(&format!("/api/v4/roles/{}", bob.id), &bob.bearer()).await;
    assert_eq!((missing.status, missing.id()), (404, "app.role.get.app_error"));
    for (name, id) in
        [("system_guest", "api.roles.patch_roles.license.error"), ("team_user", "holdfast.roles_are_fixed.app_error")]
    {
        let path = format!("{}/patch", at(name));
        let patched = site.request(&Method::PUT, &path, &admin.bearer(), r#"{"permissions":[]}"#).await;
        assert_eq!((patched.status, patched.id()), (501, id));
    }
    let body = json!(["sysconsole_read_reporting_team_statistics"]).to_string();
    let brought = site.post("/api/v4/permissions/ancillary", &bob.bearer(), body).await.json;
    assert_eq!(brought, json!(["sysconsole_read_reporting_team_statistics", "get_analytics"]));
}

#[tokio::test]
async fn nobody_deactivates_themselves_and_nothing_is_deleted_for_good() {
    let site = Site::new().await;
    let world = site.world().await;
    let body = json!({ "active": false }).to_string();
    for person in [&world.admin, &world.bob] {
        let path = format!("/api/v4/users/{}/active", person.id);
        let own = site.request(&Method::PUT, &path, &person.bearer(), body.clone()).await;
        assert_eq!((own.status, own.id()), (401, "api.user.update_active.not_enable.app_error"));
    }
    let path = format!("/api/v4/users/{}/active", world.admin.id);
    let other = site.request(&Method::PUT, &path, &world.bob.bearer(), body).await;
    assert_eq!((other.status, other.id()), (403, "api.user.update_active.permissions.app_error"));
    for (path, id) in [
        (format!("/api/v4/users/{}", world.bob.id), "api.user.delete_user.not_enabled.for_admin.app_error"),
        (format!("/api/v4/teams/{}", world.team), "api.user.delete_team.not_enabled.for_admin.app_error"),
    ] {
        let gone = site.request(&Method::DELETE, &format!("{path}?permanent=true"), &world.admin.bearer(), "").await;
        assert_eq!((gone.status, gone.id()), (401, id));
    }
}

#[tokio::test]
async fn time_zones_are_names_that_clients_know() {
    let site = Site::new().await;
    let zones = site.get("/api/v4/system/timezones", &site.user("bob").await.bearer()).await.json;
    let zones: Vec<&str> = zones.as_array().unwrap().iter().map(|zone| zone.as_str().unwrap()).collect();
    assert!(zones.is_sorted() && zones.contains(&"Europe/Berlin"), "{} zones", zones.len());
}
