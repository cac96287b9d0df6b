//! Uploads in parts, and what is shown of pictures.

use super::*;
use crate::images::tests::{picture, turned};

async fn begin(site: &Site, world: &World, by: &Person, size: i64) -> Answer {
    let body = json!({ "channel_id": world.channel, "filename": "plan.bin", "file_size": size }).to_string();
    site.post("/api/v4/uploads", &by.bearer(), body).await
}

#[tokio::test]
async fn an_upload_in_parts_becomes_a_file() {
    let site = Site::new().await;
    let world = site.world().await;
    let whole: Vec<u8> = (0..6_000_000u32).map(|n| (n % 253) as u8).collect();
    let made = begin(&site, &world, &world.bob, 6_000_000).await;
    assert_eq!(made.status, 201, "{}", made.json);
    let shape: Vec<&String> = made.json.as_object().unwrap().keys().collect();
    assert_eq!(
        shape,
        [
            "channel_id",
            "create_at",
            "file_offset",
            "file_size",
            "filename",
            "id",
            "remote_id",
            "req_file_id",
            "type",
            "user_id"
        ]
    );
    let path = format!("/api/v4/uploads/{}", made.json["id"].as_str().unwrap());
    let small = site.post(&path, &world.bob.bearer(), whole[..1_000].to_vec()).await;
    assert_eq!((small.status, small.id()), (400, "app.upload.upload_data.first_part_too_small.app_error"));
    let first = site.post(&path, &world.bob.bearer(), whole[..5_300_000].to_vec()).await;
    assert_eq!((first.status, first.body.len()), (204, 0));
    assert_eq!(site.get(&path, &world.bob.bearer()).await.json["file_offset"], 5_300_000);
    let long = site.post(&path, &world.bob.bearer(), vec![0; 700_001]).await;
    assert_eq!((long.status, long.id()), (400, "api.upload.upload_data.invalid_content_length"));
    let mine = site.get("/api/v4/users/me/uploads", &world.bob.bearer()).await;
    assert_eq!(mine.json.as_array().unwrap().len(), 1);
    let form = ("content-type", "multipart/form-data; boundary=cut".to_owned());
    let head = b"--cut\r\nContent-Disposition: form-data; name=\"data\"; filename=\"blob\"\r\n\r\n".to_vec();
    let body = [head, whole[5_300_000..].to_vec(), b"\r\n--cut--\r\n".to_vec()].concat();
    let last = site.post(&path, &[world.bob.bearer()[0].clone(), form], body).await;
    assert_eq!((last.status, &last.json["name"]), (200, &json!("plan.bin")), "{}", last.json);
    let file = format!("/api/v4/files/{}", last.json["id"].as_str().unwrap());
    assert!(site.get(&file, &world.bob.bearer()).await.body == whole);
    assert_eq!(site.get(&path, &world.bob.bearer()).await.id(), "app.upload.get.app_error");
    assert_eq!(site.get("/api/v4/users/me/uploads", &world.bob.bearer()).await.json, json!([]));
}

#[tokio::test]
async fn an_upload_that_cannot_be_is_refused_at_once() {
    let site = Site::new().await;
    let world = site.world().await;
    let stranger = site.user("stranger").await;
    for (size, status, id) in [
        (0, 400, "model.upload_session.is_valid.file_size.app_error"),
        (-1, 400, "model.upload_session.is_valid.file_size.app_error"),
        (FILE_MAX as i64 + 1, 413, "api.upload.create.upload_too_large.app_error"),
    ] {
        let answer = begin(&site, &world, &world.bob, size).await;
        assert_eq!((answer.status, answer.id()), (status, id));
    }
    assert_eq!(begin(&site, &world, &stranger, 5).await.id(), "api.context.permissions.app_error");
    let made = begin(&site, &world, &world.bob, 5).await.json["id"].as_str().unwrap().to_owned();
    let of_bob = format!("/api/v4/uploads/{made}");
    assert_eq!(site.get(&of_bob, &stranger.bearer()).await.id(), "api.upload.get_upload.forbidden.app_error");
    assert_eq!(site.post(&of_bob, &stranger.bearer(), "x").await.status, 403);
    let path = format!("/api/v4/users/{}/uploads", world.bob.id);
    let others = site.get(&path, &stranger.bearer()).await;
    assert_eq!((others.status, others.id()), (403, "api.user.get_uploads_for_user.forbidden.app_error"));
    let import = json!({ "type": "import", "filename": "all.zip", "file_size": 5 }).to_string();
    assert_eq!(site.post("/api/v4/uploads", &world.bob.bearer(), import.clone()).await.status, 403);
    let archive = site.post("/api/v4/uploads", &world.admin.bearer(), import).await;
    assert_eq!(
        (archive.status, &archive.json["type"], &archive.json["channel_id"]),
        (201, &json!("import"), &json!(""))
    );
}

#[tokio::test]
async fn a_picture_comes_with_its_previews_and_other_files_say_that_there_are_none() {
    let site = Site::new().await;
    let world = site.world().await;
    let upload = |name: &str| format!("/api/v4/files?channel_id={}&filename={name}", world.channel);
    let answer = site.post(&upload("photo.jpg"), &world.bob.bearer(), turned(2_400, 1_200, 8)).await;
    let info = &answer.json["file_infos"][0];
    assert_eq!((&info["width"], &info["height"]), (&json!(1_200), &json!(2_400)), "{info}");
    assert_eq!(info["has_preview_image"], true);
    assert!(info["mini_preview"].as_str().unwrap().starts_with("/9j/"));
    let path = format!("/api/v4/files/{}", info["id"].as_str().unwrap());
    for (kind, width, height) in [("preview", 1_200, 2_400), ("thumbnail", 50, 100)] {
        let shown = site.get(&format!("{path}/{kind}"), &world.bob.bearer()).await;
        assert_eq!((shown.status, shown.header("content-type")), (200, "image/jpeg"));
        let look = crate::images::look(std::io::Cursor::new(&shown.body)).unwrap();
        assert_eq!((look.width, look.height), (width, height), "{kind}");
        assert!(shown.header("content-disposition").starts_with("inline"));
    }
    let png = site.post(&upload("a.png"), &world.bob.bearer(), picture(10, 10, image::ImageFormat::Png)).await;
    let path = format!("/api/v4/files/{}/preview", png.json["file_infos"][0]["id"].as_str().unwrap());
    assert_eq!(site.get(&path, &world.bob.bearer()).await.header("content-type"), "image/png");
    let text = site.post(&upload("a.txt"), &world.bob.bearer(), "text").await;
    assert_eq!(text.json["file_infos"][0].get("has_preview_image"), None);
    let path = format!("/api/v4/files/{}", text.json["file_infos"][0]["id"].as_str().unwrap());
    for (kind, id) in [
        ("thumbnail", "api.file.get_file_thumbnail.no_thumbnail.app_error"),
        ("preview", "api.file.get_file_preview.no_preview.app_error"),
    ] {
        let none = site.get(&format!("{path}/{kind}"), &world.bob.bearer()).await;
        assert_eq!((none.status, none.id()), (400, id));
    }
    let public = path.replace("/api/v4", "") + "/public";
    for (path, headers) in [(public, Vec::new()), (format!("{path}/link"), world.bob.bearer().to_vec())] {
        let answer = site.get(&path, &headers).await;
        assert_eq!((answer.status, answer.id()), (403, "api.file.get_public_link.disabled.app_error"));
    }
}
