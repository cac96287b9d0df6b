//! Custom emoji over the API.

use super::*;
use crate::images::tests::picture;

fn form(creator: &str, name: &str, image: &[u8]) -> Vec<u8> {
    let emoji = json!({ "creator_id": creator, "name": name });
    let head = "--cut\r\nContent-Disposition: form-data; name=\"image\"; filename=\"a.png\"\r\n\r\n".to_owned();
    let tail = format!("\r\n--cut\r\nContent-Disposition: form-data; name=\"emoji\"\r\n\r\n{emoji}\r\n--cut--\r\n");
    [head.into_bytes(), image.to_vec(), tail.into_bytes()].concat()
}

async fn create(site: &Site, by: &Person, creator: &str, name: &str, image: &[u8]) -> Answer {
    let kind = ("content-type", "multipart/form-data; boundary=cut".to_owned());
    site.post("/api/v4/emoji", &[by.bearer()[0].clone(), kind], form(creator, name, image)).await
}

#[tokio::test]
async fn an_emoji_is_made_found_shown_and_deleted() {
    let site = Site::new().await;
    let world = site.world().await;
    let bob = &world.bob;
    let mut socket = site.socket("", Some(&world.admin)).await.unwrap();
    let made = create(&site, bob, &bob.id, "hold_fast", &picture(200, 100, image::ImageFormat::Png)).await;
    assert_eq!(made.status, 200, "{}", made.json);
    let told = socket.next_event("emoji_added").await;
    let told: Value = serde_json::from_str(told["data"]["emoji"].as_str().unwrap()).unwrap();
    assert_eq!(told, made.json);
    let id = made.json["id"].as_str().unwrap();
    let one = json!([made.json]);
    for path in ["/api/v4/emoji?sort=name&per_page=200", "/api/v4/emoji/autocomplete?name=HOLD"] {
        assert_eq!(site.get(path, &bob.bearer()).await.json, one, "{path}");
    }
    for path in [format!("/api/v4/emoji/{id}"), "/api/v4/emoji/name/hold_fast".to_owned()] {
        assert_eq!(site.get(&path, &bob.bearer()).await.json, made.json, "{path}");
    }
    let search = |term: &str, prefix: bool| json!({ "term": term, "prefix_only": prefix }).to_string();
    assert_eq!(site.post("/api/v4/emoji/search", &bob.bearer(), search("fast", false)).await.json, one);
    assert_eq!(site.post("/api/v4/emoji/search", &bob.bearer(), search("fast", true)).await.json, json!([]));
    assert_eq!(site.post("/api/v4/emoji/names", &bob.bearer(), r#"["hold_fast","smile"]"#).await.json, one);
    let image = site.get(&format!("/api/v4/emoji/{id}/image"), &bob.bearer()).await;
    assert_eq!((image.status, image.header("content-type")), (200, "image/png"));
    assert_eq!(crate::images::look(std::io::Cursor::new(&image.body)).unwrap().width, 128);
    let post = site.say(bob, &world.channel, "go :hold_fast:").await;
    assert_eq!(post["metadata"]["emojis"], one);
    let others =
        site.request(&Method::DELETE, &format!("/api/v4/emoji/{id}"), &site.user("eve").await.bearer(), "").await;
    assert_eq!((others.status, others.id()), (403, "api.context.permissions.app_error"));
    let gone = site.request(&Method::DELETE, &format!("/api/v4/emoji/{id}"), &bob.bearer(), "").await;
    assert_eq!(gone.json, json!({ "status": "OK" }));
    let missing = site.get(&format!("/api/v4/emoji/{id}"), &bob.bearer()).await;
    assert_eq!((missing.status, missing.id()), (404, "app.emoji.get.no_result"));
    let missing = site.get("/api/v4/emoji/name/hold_fast", &bob.bearer()).await;
    assert_eq!((missing.status, missing.id()), (404, "app.emoji.get_by_name.no_result"));
}

#[tokio::test]
async fn what_is_no_emoji_is_refused_with_the_originals_ids() {
    let site = Site::new().await;
    let bob = site.user("bob").await;
    let admin = site.admin().await;
    let small = picture(16, 16, image::ImageFormat::Png);
    create(&site, &bob, &bob.id, "taken", &small).await;
    let large = picture(1_029, 16, image::ImageFormat::Png);
    for (creator, name, image, status, id) in [
        (&bob.id, "a b", &small, 400, "model.emoji.name.app_error"),
        (&bob.id, "", &small, 400, "model.emoji.name.app_error"),
        (&bob.id, "smile", &small, 400, "model.emoji.system_emoji_name.app_error"),
        (&bob.id, "taken", &small, 400, "api.emoji.create.duplicate.app_error"),
        (&admin.id, "fine", &small, 403, "api.emoji.create.other_user.app_error"),
        (&bob.id, "fine", &b"text".to_vec(), 400, "api.emoji.upload.image.app_error"),
        (&bob.id, "fine", &large, 400, "api.emoji.upload.large_image.too_large.app_error"),
        (&bob.id, "fine", &vec![0; 600_000], 413, "api.emoji.create.too_large.app_error"),
    ] {
        let answer = create(&site, &bob, creator, name, image).await;
        assert_eq!((answer.status, answer.id()), (status, id), "{name}");
    }
    let broken = site.post("/api/v4/emoji", &bob.bearer(), "{}").await;
    assert_eq!((broken.status, broken.id()), (400, "api.emoji.create.parse.app_error"));
    let many: Vec<String> = (0..201).map(|n| format!("n{n}")).collect();
    let many = site.post("/api/v4/emoji/names", &bob.bearer(), json!(many).to_string()).await;
    assert_eq!(many.id(), "api.emoji.get_multiple_by_name_too_many.request_error");
    assert_eq!(site.get("/api/v4/emoji?sort=age", &bob.bearer()).await.status, 400);
}
