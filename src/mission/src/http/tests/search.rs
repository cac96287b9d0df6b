//! Search as clients ask for it.

use super::*;

#[tokio::test]
async fn a_search_answers_as_the_original_with_the_newest_first() {
    let site = Site::new().await;
    let world = site.world().await;
    let first = site.say(&world.bob, &world.channel, "bridge is open").await;
    let second = site.say(&world.admin, &world.other_channel, "the bridge again #bridge").await;
    let ask = |terms: &str| json!({ "terms": terms, "is_or_search": false, "time_zone_offset": 3_600 }).to_string();
    let team = format!("/api/v4/teams/{}/posts/search", world.team);
    for path in [team.as_str(), "/api/v4/posts/search"] {
        let answer = site.post(path, &world.bob.bearer(), ask("bridge")).await;
        assert_eq!(answer.status, 200, "{}", answer.json);
        assert_eq!(answer.json["order"], json!([second["id"], first["id"]]));
        assert_eq!(answer.json["posts"][first["id"].as_str().unwrap()]["message"], "bridge is open");
        assert_eq!(answer.json["matches"], Value::Null);
        assert_eq!(answer.json["first_inaccessible_post_time"], 0);
        assert_eq!(answer.header("cache-control"), "no-cache, no-store, must-revalidate");
    }
    let none = site.post(&team, &world.bob.bearer(), ask("tunnel")).await;
    assert_eq!((none.status, &none.json["order"], &none.json["posts"]), (200, &json!([]), &json!({})));
    let page = json!({ "terms": "bridge", "page": 1, "per_page": 1, "include_deleted_channels": null }).to_string();
    assert_eq!(site.post(&team, &world.bob.bearer(), page).await.json["order"], json!([first["id"]]));
}

#[tokio::test]
async fn a_search_without_terms_or_in_a_team_of_others_is_refused() {
    let site = Site::new().await;
    let world = site.world().await;
    let stranger = site.user("stranger").await;
    let team = format!("/api/v4/teams/{}/posts/search", world.team);
    let terms = json!({ "terms": "x" }).to_string();
    let answer = site.post(&team, &stranger.bearer(), terms.clone()).await;
    assert_eq!((answer.status, answer.id()), (403, "api.context.permissions.app_error"));
    for (path, id) in [
        (team.clone(), "api.post.search_posts.invalid_body.app_error"),
        (team.replace("posts", "files"), "api.post.search_files.invalid_body.app_error"),
    ] {
        let broken = site.post(&path, &world.bob.bearer(), "{").await;
        assert_eq!((broken.status, broken.id()), (400, id));
        for body in ["{}", r#"{"terms":""}"#] {
            let empty = site.post(&path, &world.bob.bearer(), body).await;
            assert_eq!((empty.status, empty.id()), (400, "api.context.invalid_body_param.app_error"));
        }
        let bad_team = site.post(&path.replace(&world.team, "x"), &world.bob.bearer(), terms.clone()).await;
        assert_eq!((bad_team.status, bad_team.id()), (400, "api.context.invalid_url_param.app_error"));
    }
}

#[tokio::test]
async fn files_are_found_by_name_and_kind() {
    let site = Site::new().await;
    let world = site.world().await;
    let path = format!("/api/v4/files?channel_id={}&filename=Route-Map.pdf", world.channel);
    let file = site.post(&path, &world.bob.bearer(), "%PDF").await.json["file_infos"][0]["id"].clone();
    let search = json!({ "terms": "map ext:pdf" }).to_string();
    let team = format!("/api/v4/teams/{}/files/search", world.team);
    assert_eq!(
        site.post(&team, &world.bob.bearer(), search.clone()).await.json["order"],
        json!([]),
        "no post shows it"
    );
    let post = json!({ "channel_id": world.channel, "message": "", "file_ids": [file] }).to_string();
    assert_eq!(site.post("/api/v4/posts", &world.bob.bearer(), post).await.status, 201);
    for path in [team.as_str(), "/api/v4/files/search"] {
        let answer = site.post(path, &world.admin.bearer(), search.clone()).await;
        assert_eq!(answer.json["order"], json!([file]), "{}", answer.json);
        assert_eq!(answer.json["file_infos"][file.as_str().unwrap()]["name"], "Route-Map.pdf");
        assert_eq!(answer.json["next_file_info_id"], "");
    }
}
