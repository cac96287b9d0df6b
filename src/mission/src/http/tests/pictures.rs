//! Pictures of users and teams.

use image::ImageFormat;

use super::*;
use crate::images::tests::picture as drawn;

impl Site {
    async fn send_picture(&self, path: &str, by: &Person, name: &str, picture: &[u8]) -> Answer {
        let head = format!("--cut\r\ncontent-disposition: form-data; name=\"{name}\"; filename=\"a.png\"\r\n\r\n");
        let body = [head.as_bytes(), picture, b"\r\n--cut--\r\n"].concat();
        let kind = ("content-type", "multipart/form-data; boundary=cut".to_owned());
        self.post(path, &[by.bearer()[0].clone(), kind], body).await
    }
}

#[tokio::test]
async fn a_user_sets_a_picture_that_all_see_and_goes_back_to_the_initial() {
    let site = Site::new().await;
    let world = site.world().await;
    let at = format!("/api/v4/users/{}/image", world.bob.id);
    let initial = site.get(&at, &world.admin.bearer()).await;
    let mut told = site.socket("", Some(&world.admin)).await.unwrap();
    let set = site.send_picture(&at, &world.bob, "image", &drawn(300, 200, ImageFormat::Jpeg)).await;
    assert_eq!((set.status, &set.json), (200, &json!({ "status": "OK" })));
    let user = told.next_event("user_updated").await["data"]["user"].clone();
    let seen = site.get(&at, &world.admin.bearer()).await;
    assert_eq!(
        (seen.header("content-type"), seen.header("etag")),
        ("image/png", &*user["last_picture_update"].to_string())
    );
    assert_eq!(crate::images::decode(&seen.body).unwrap().width(), 128);
    assert_ne!(seen.body, initial.body);
    assert_eq!(site.get(&format!("{at}/default"), &world.bob.bearer()).await.body, initial.body);
    let known = [world.admin.bearer()[0].clone(), ("if-none-match", seen.header("etag").to_owned())];
    assert_eq!(site.get(&at, &known).await.status, 304);

    assert_eq!(site.request(&Method::DELETE, &at, &world.bob.bearer(), "").await.status, 200);
    let back = site.get(&at, &world.admin.bearer()).await;
    assert_eq!(back.body, initial.body);
    assert!(back.header("etag").starts_with('-'), "drawn here: {}", back.header("etag"));
}

#[tokio::test]
async fn what_is_no_picture_or_not_ones_own_is_refused() {
    let site = Site::new().await;
    let world = site.world().await;
    let at = "/api/v4/users/me/image";
    let own = |name: &'static str, picture: Vec<u8>| {
        let (site, bob) = (&site, &world.bob);
        async move { site.send_picture(at, bob, name, &picture).await }
    };
    let text = own("image", b"not a picture".to_vec()).await;
    assert_eq!((text.status, text.id()), (400, "api.user.upload_profile_user.decode.app_error"));
    let mut bomb = drawn(4, 4, ImageFormat::Gif);
    bomb[6..10].copy_from_slice(&[0xff, 0xff, 0xff, 0xff]);
    assert_eq!(own("image", bomb).await.id(), "api.user.upload_profile_user.decode.app_error");
    let missing = own("photo", drawn(4, 4, ImageFormat::Png)).await;
    assert_eq!((missing.status, missing.id()), (400, "api.user.upload_profile_user.no_file.app_error"));
    let large = own("image", vec![0; crate::pictures::BYTES_MAX + 1]).await;
    assert_eq!((large.status, large.id()), (413, "api.user.upload_profile_user.too_large.app_error"));
    let others = format!("/api/v4/users/{}/image", world.admin.id);
    let refused = site.send_picture(&others, &world.bob, "image", &drawn(4, 4, ImageFormat::Png)).await;
    assert_eq!((refused.status, refused.id()), (403, "api.context.permissions.app_error"));
}

#[tokio::test]
async fn a_team_has_the_picture_that_its_administrator_sets() {
    let site = Site::new().await;
    let world = site.world().await;
    let at = format!("/api/v4/teams/{}/image", world.team);
    let none = site.get(&at, &world.bob.bearer()).await;
    assert_eq!((none.status, none.id()), (404, "api.team.get_team_icon.read_file.app_error"));
    let picture = drawn(256, 256, ImageFormat::Png);
    assert_eq!(site.send_picture(&at, &world.bob, "image", &picture).await.status, 403);
    let mut told = site.socket("", Some(&world.bob)).await.unwrap();
    assert_eq!(site.send_picture(&at, &world.admin, "image", &picture).await.status, 200);
    let team: Value =
        serde_json::from_str(told.next_event("update_team").await["data"]["team"].as_str().unwrap()).unwrap();
    let seen = site.get(&at, &world.bob.bearer()).await;
    assert_eq!(seen.header("etag"), team["last_team_icon_update"].to_string());
    assert_eq!(crate::images::decode(&seen.body).unwrap().height(), 128);
    assert_eq!(site.request(&Method::DELETE, &at, &world.admin.bearer(), "").await.status, 200);
    assert_eq!(site.get(&at, &world.bob.bearer()).await.status, 404);
    let team = site.get(&format!("/api/v4/teams/{}", world.team), &world.bob.bearer()).await.json;
    assert_eq!(team.get("last_team_icon_update"), None);
}
