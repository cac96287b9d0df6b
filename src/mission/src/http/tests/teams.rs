//! How teams are opened, found, joined by invitation and taken out of the archive.

use super::*;

#[tokio::test]
async fn who_knows_the_invitation_joins_until_it_is_made_anew_or_the_team_closes() {
    let site = Site::new().await;
    let world = site.world().await;
    let admin = &world.admin;
    let at = format!("/api/v4/teams/{}", world.team);
    let invite = || async { site.get(&at, &admin.bearer()).await.json["invite_id"].as_str().unwrap().to_owned() };
    let first = invite().await;
    let info = site.get(&format!("/api/v4/teams/invite/{first}"), &[]).await;
    let told = json!({ "display_name": "Mission", "description": "", "name": "mission", "id": world.team });
    assert_eq!((info.status, info.json), (200, told));
    let join = |invite: String, by: Person| {
        let site = &site;
        async move { site.post(&format!("/api/v4/teams/members/invite?invite_id={invite}"), &by.bearer(), "").await }
    };
    let ann = site.user("ann").await;
    let mut told = site.socket("", Some(&ann)).await.unwrap();
    let joined = join(first.clone(), ann).await;
    assert_eq!((joined.status, &joined.json["roles"]), (201, &json!("team_user")), "{}", joined.json);
    assert_eq!(told.next_event("added_to_team").await["data"]["team_id"], json!(world.team));

    let renewed = site.post(&format!("{at}/regenerate_invite_id"), &admin.bearer(), "").await;
    assert_ne!(renewed.json["invite_id"], json!(first));
    let late = join(first, site.user("ben").await).await;
    assert_eq!((late.status, late.id()), (404, "app.team.get_by_invite_id.finding.app_error"));
    let second = invite().await;
    let close = json!({ "privacy": "I" }).to_string();
    assert_eq!(
        site.request(&Method::PUT, &format!("{at}/privacy"), &world.bob.bearer(), close.clone()).await.status,
        403
    );
    let closed = site.request(&Method::PUT, &format!("{at}/privacy"), &admin.bearer(), close).await;
    assert_eq!((&closed.json["type"], &closed.json["allow_open_invite"]), (&json!("I"), &json!(false)));
    assert_ne!(closed.json["invite_id"], json!(second), "closing makes earlier invitations void");
    let third = invite().await;
    let hidden = site.get(&format!("/api/v4/teams/invite/{third}"), &[]).await;
    assert_eq!((hidden.status, hidden.id()), (403, "api.team.get_invite_info.not_open_team"));
    assert_eq!(join(third, site.user("cid").await).await.status, 201, "it still lets in who knows it");
    for (query, id) in [
        ("", "api.team.add_user_to_team.missing_parameter.app_error"),
        ("?token=x", "api.user.create_user.signup_link_invalid.app_error"),
    ] {
        let answer = site.post(&format!("/api/v4/teams/members/invite{query}"), &world.bob.bearer(), "").await;
        assert_eq!((answer.status, answer.id()), (400, id));
    }
    let seen = site.get(&at, &world.bob.bearer()).await;
    assert_ne!(seen.json["invite_id"], "", "members may invite");
}

#[tokio::test]
async fn a_team_is_found_by_whom_it_is_open_to_and_comes_back_from_the_archive() {
    let site = Site::new().await;
    let world = site.world().await;
    let (admin, bob) = (&world.admin, &world.bob);
    let find = |by: &Person, body: Value| {
        let (bearer, site) = (by.bearer(), &site);
        async move { site.post("/api/v4/teams/search", &bearer, body.to_string()).await.json }
    };
    assert_eq!(find(admin, json!({ "term": "ISS" })).await[0]["name"], "mission");
    assert_eq!(find(bob, json!({ "term": "miss" })).await, json!([]), "it is not open");
    let paged = find(admin, json!({ "term": "", "page": 0, "per_page": 10 })).await;
    assert_eq!((&paged["total_count"], paged["teams"].as_array().unwrap().len()), (&json!(1), 1));

    let at = format!("/api/v4/teams/{}", world.team);
    let whole = json!({ "id": world.team, "display_name": "Renamed", "type": "I", "name": "other" }).to_string();
    let updated = site.request(&Method::PUT, &at, &admin.bearer(), whole).await.json;
    assert_eq!(
        (&updated["display_name"], &updated["type"], &updated["name"]),
        (&json!("Renamed"), &json!("O"), &json!("mission"))
    );
    let mut told = site.socket("", Some(bob)).await.unwrap();
    assert_eq!(site.request(&Method::DELETE, &at, &admin.bearer(), "").await.status, 200);
    let restored = site.post(&format!("{at}/restore"), &admin.bearer(), "").await;
    assert_eq!((restored.status, &restored.json["delete_at"]), (200, &json!(0)));
    assert!(told.next_event("restore_team").await["data"]["team"].as_str().unwrap().contains("Renamed"));
    let roles = format!("{at}/members/{}/schemeRoles", bob.id);
    let body = json!({ "scheme_user": true, "scheme_admin": true }).to_string();
    assert_eq!(site.request(&Method::PUT, &roles, &admin.bearer(), body).await.status, 200);
    let member = site.get(&format!("{at}/members/me"), &bob.bearer()).await.json;
    assert_eq!((&member["scheme_admin"], &member["roles"]), (&json!(true), &json!("team_user team_admin")));
}

#[tokio::test]
async fn administrators_find_channels_of_every_team() {
    let site = Site::new().await;
    let world = site.world().await;
    let find = |body: Value| {
        let (site, bearer) = (&site, world.admin.bearer());
        async move { site.post("/api/v4/channels/search", &bearer, body.to_string()).await.json }
    };
    assert_eq!(find(json!({ "term": "OPS" })).await[0]["id"], json!(world.channel));
    let paged = find(json!({ "term": "o", "page": 0, "per_page": 1 })).await;
    assert_eq!((paged["channels"].as_array().unwrap().len(), &paged["total_count"]), (1, &json!(4)));
    assert_eq!(find(json!({ "term": "%" })).await, json!([]));
}
