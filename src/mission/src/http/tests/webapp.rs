//! The web app's directory as a browser sees it.

use std::fs;
use std::path::Path;

use super::*;

const ROOT: &str = r#"<html><head><meta http-equiv="Content-Security-Policy" content="script-src 'self'"><title>Mattermost</title>
<link href="/static/main.css"><script id="publicPathInWindowScript"></script></head><script src="/static/main.js"></script></html>"#;

/// A site with a web app as it is after a build, small.
async fn site(site_url: Option<&str>) -> (Site, tempfile::TempDir) {
    let client = tempfile::tempdir().unwrap();
    write(client.path(), "root.html", ROOT);
    write(client.path(), "main.css", "a{background:url(/static/files/x.svg)}");
    write(client.path(), "main.js", &"let word = 1;".repeat(1_000));
    write(client.path(), "remote_entry.js", "1");
    fs::create_dir(client.path().join("files")).unwrap();
    write(client.path(), "files/x.svg", "<svg/>");
    write(client.path(), "files/index.html", "a directory is no page");
    let http = HttpSettings {
        site_url: site_url.map(str::to_owned),
        webapp: Some(client.path().to_owned()),
        frame_ancestors: "https://teams.example".into(),
        ..HttpSettings::default()
    };
    (Site::with(tempfile::tempdir().unwrap(), 1, 1_800_000_000_000, http).await, client)
}

fn write(dir: &Path, name: &str, text: &str) {
    fs::write(dir.join(name), text).unwrap();
}

fn text(answer: &Answer) -> &str {
    std::str::from_utf8(&answer.body).unwrap()
}

#[tokio::test]
async fn a_browser_gets_the_app_under_every_address_that_is_not_the_apis() {
    let (site, _client) = site(None).await;
    for path in ["/", "/ops/channels/town-square", "/login"] {
        let page = site.get(path, &[]).await;
        assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"), "{path}");
        assert_eq!(text(&page), ROOT.replace("Mattermost</title>", "Test site</title>"));
        assert_eq!(page.header("cache-control"), "no-cache, max-age=31556926, public");
        let policy = "frame-ancestors 'self' https://teams.example; script-src 'self'";
        assert_eq!(page.header("content-security-policy"), policy);
    }
    for path in ["/api/v4/nothing", "/plugins/none/x", "/hooks/none"] {
        assert_eq!(site.get(path, &[]).await.id(), "api.context.404.app_error", "{path}");
    }
    assert_eq!(text(&site.get("/robots.txt", &[]).await), "User-agent: *\nDisallow: /\n");
}

#[tokio::test]
async fn files_of_the_app_are_kept_by_browsers_for_long_and_sent_compressed() {
    let (site, _client) = site(None).await;
    let plain = site.get("/static/main.js", &[]).await;
    assert_eq!((plain.status, plain.body.len()), (200, 13_000));
    assert_eq!(plain.header("cache-control"), "max-age=31556926, public");
    assert_eq!(plain.header("content-type"), "text/javascript");
    let packed = site.get("/static/main.js", &[("accept-encoding", "gzip".into())]).await;
    assert_eq!(packed.header("content-encoding"), "gzip");
    assert!(packed.body.len() < 1_000, "{} bytes", packed.body.len());
    let entry = site.get("/static/remote_entry.js", &[]).await;
    assert_eq!(entry.header("cache-control"), "no-cache, max-age=31556926, public");
    let missing = site.get("/static/old.js", &[]).await;
    assert_eq!((missing.status, missing.header("cache-control")), (404, "no-cache, public"));
}

#[tokio::test]
async fn nothing_outside_the_directory_is_served() {
    let (site, client) = site(None).await;
    let beside = client.path().parent().unwrap().join(format!("beside-{}", std::process::id()));
    fs::write(&beside, "secret").unwrap();
    let name = beside.file_name().unwrap().to_str().unwrap();
    for path in
        [format!("/static/../{name}"), format!("/static/%2e%2e/{name}"), format!("/static/files/..%2f..%2f{name}")]
    {
        let answer = site.get(&path, &[]).await;
        assert!(!text(&answer).contains("secret"), "{path}");
    }
    let directory = site.get("/static/files/", &[]).await;
    fs::remove_file(&beside).unwrap();
    assert_eq!(directory.status, 404);
}

#[tokio::test]
async fn a_site_below_a_path_is_reached_there_and_nowhere_else() {
    let (site, client) = site(Some("https://box.example/chat/")).await;
    let page = site.get("/chat/ops/channels/town-square", &[]).await;
    let script = "window.publicPath='/chat/static/'";
    assert!(
        text(&page).contains(&format!("<script id=\"publicPathInWindowScript\">{script}</script>")),
        "{}",
        text(&page)
    );
    assert!(text(&page).contains("src=\"/chat/static/main.js\""), "{}", text(&page));
    // printf "window.publicPath='/chat/static/'" | openssl dgst -sha256 -binary | base64
    let hash = "'sha256-ONrd52qEmLJ6ra3JM71gigPm7cHp4qtKuHm9F0ASdyw='";
    assert!(page.header("content-security-policy").ends_with(&format!("; script-src 'self' {hash}")));
    assert!(text(&page).contains(&format!("content=\"script-src 'self' {hash}\"")), "{}", text(&page));
    let css = site.get("/chat/static/main.css", &[("range", "bytes=0-3".into())]).await;
    assert_eq!((css.status, text(&css)), (200, "a{background:url(/chat/static/files/x.svg)}"));
    assert_eq!(site.get("/chat/api/v4/system/ping", &[]).await.status, 200);
    assert_eq!(site.get("/api/v4/system/ping", &[]).await.status, 404);
    let home = site.get("/", &[]).await;
    assert_eq!((home.status, home.header("location")), (302, "/chat/"));
    for path in ["/chat", "/chat/"] {
        assert_eq!(site.get(path, &[]).await.status, 200, "{path}");
    }
    assert_eq!(fs::read_to_string(client.path().join("root.html")).unwrap(), ROOT, "the directory is only read");
}

#[tokio::test]
async fn without_its_directory_a_reader_is_told_and_the_api_goes_on() {
    let (site, client) = site(None).await;
    client.close().unwrap();
    let page = site.get("/", &[]).await;
    assert_eq!(page.status, 503);
    assert!(text(&page).contains("http.webapp"), "{}", text(&page));
    assert_eq!(site.get("/api/v4/system/ping", &[]).await.status, 200);
}
