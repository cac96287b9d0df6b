//! The tab of host applications as a host and a browser see it. What a token is worth is decided elsewhere; here one
//! that names a user is `for <id>`.

use std::fs;
use std::pin::Pin;

use model::Id;

use super::*;

struct Named;

impl HostSignIn for Named {
    fn user_of<'a>(&'a self, token: &'a str) -> Pin<Box<dyn Future<Output = Result<Id, HostRefusal>> + Send + 'a>> {
        let found = match token.strip_prefix("for ") {
            Some(id) => Ok(id.parse().unwrap()),
            None if token == "of a stranger" => Err(HostRefusal::Unknown("tid/oid".into())),
            None if token == "without keys" => Err(HostRefusal::Unavailable("no keys".into())),
            None => Err(HostRefusal::Invalid("forged".into())),
        };
        Box::pin(async move { found })
    }
}

async fn site() -> (Site, tempfile::TempDir) {
    let files = tempfile::tempdir().unwrap();
    let library = files.path().join("teams.js");
    fs::write(&library, "var microsoftTeams = {};").unwrap();
    let http = HttpSettings {
        frame_ancestors: "https://*.cloud.example https://teams.example".into(),
        // Every answer but one is refused here, and that must be for its own reason.
        logins_per_second: 0,
        ..HttpSettings::default()
    };
    let tab = Tab { library, sign_in: Arc::new(Named) };
    (Site::with_tab(tempfile::tempdir().unwrap(), 1, 1_800_000_000_000, http, Some(tab)).await, files)
}

const SCRIPT: [(&str, &str); 1] = [("x-requested-with", "XMLHttpRequest")];

async fn sign_in(site: &Site, token: &str, more: &[(&str, &str)]) -> Answer {
    let headers: Vec<(&str, String)> = SCRIPT.iter().chain(more).map(|(k, v)| (*k, (*v).to_owned())).collect();
    site.post("/holdfast/tab/sign-in", &headers, json!({ "token": token }).to_string()).await
}

#[tokio::test]
async fn the_page_may_be_framed_by_the_hosts_and_loads_nothing_from_elsewhere() {
    let (site, files) = site().await;
    let page = site.get("/holdfast/tab", &[("x-forwarded-proto", "https".to_owned())]).await;
    assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"));
    let policy = page.header("content-security-policy");
    assert!(policy.ends_with("frame-ancestors 'self' https://*.cloud.example https://teams.example"), "{policy}");
    assert!(policy.starts_with("default-src 'none'; script-src 'self';"), "{policy}");
    assert_eq!(page.header("x-frame-options"), "");
    assert_eq!(page.cookies(), ["MMEMBED=1; Path=/; HttpOnly; Secure; SameSite=None; Partitioned"]);
    let html = std::str::from_utf8(&page.body).unwrap();
    assert!(html.contains("data-hosts=\"[&quot;https://teams.example&quot;]\""), "{html}");
    assert!(html.contains("<h1>Test site</h1>") && !html.contains("=\"http"), "{html}");
    // Where the tab leads to.
    let front = site.get("/", &[]).await;
    assert_eq!(front.header("x-frame-options"), "");
    assert!(front.header("content-security-policy").ends_with("https://teams.example"));
    let plain = site.get("/holdfast/tab", &[]).await;
    assert!(plain.cookies().is_empty(), "no browser takes such a cookie without TLS");

    let library = site.get("/holdfast/tab/host.js", &[]).await;
    assert_eq!((library.status, &library.body[..]), (200, &b"var microsoftTeams = {};"[..]));
    fs::remove_file(files.path().join("teams.js")).unwrap();
    assert_eq!(site.get("/holdfast/tab/host.js", &[]).await.id(), "holdfast.tab.library.app_error");
    for (path, kind) in [("page.js", "text/javascript; charset=utf-8"), ("page.css", "text/css; charset=utf-8")] {
        let part = site.get(&format!("/holdfast/tab/{path}"), &[]).await;
        assert_eq!((part.status, part.header("content-type")), (200, kind));
    }
}

#[tokio::test]
async fn whom_the_host_vouches_for_gets_a_session_of_the_frame() {
    let (site, _files) = site().await;
    let anna = site.user("anna").await;
    let embedded = [("x-forwarded-proto", "https"), ("cookie", "MMEMBED=1")];
    let answer = sign_in(&site, &format!("for {}", anna.id), &embedded).await;
    assert_eq!(answer.status, 200, "{}", answer.json);
    let cookies = answer.cookies();
    assert_eq!(cookies.len(), 3);
    assert!(cookies.iter().all(|cookie| cookie.ends_with("; Secure; SameSite=None; Partitioned")), "{cookies:?}");
    let token = cookies[0].strip_prefix("MMAUTHTOKEN=").unwrap().split(';').next().unwrap();
    let me = site.get("/api/v4/users/me", &[("authorization", format!("Bearer {token}"))]).await;
    assert_eq!((me.status, me.json["username"].as_str()), (200, Some("anna")));

    let admin = site.admin().await;
    let off = json!({ "active": false }).to_string();
    site.request(&Method::PUT, &format!("/api/v4/users/{}/active", anna.id), &admin.bearer(), off).await;
    let answer = sign_in(&site, &format!("for {}", anna.id), &embedded).await;
    assert_eq!((answer.status, answer.id()), (401, "api.user.login.inactive.app_error"));
    assert_eq!(answer.header("token"), "");
}

#[tokio::test]
async fn a_token_that_is_worth_nothing_opens_nothing() {
    let (site, _files) = site().await;
    for (token, status, id) in [
        ("forged", 403, "holdfast.tab.token.app_error"),
        ("of a stranger", 403, "holdfast.tab.unknown.app_error"),
        ("without keys", 503, "holdfast.tab.unavailable.app_error"),
    ] {
        let answer = sign_in(&site, token, &[]).await;
        assert_eq!((answer.status, answer.id()), (status, id));
        assert!(answer.cookies().is_empty());
    }
    let anna = site.user("anna").await;
    let good = json!({ "token": format!("for {}", anna.id) }).to_string();
    let by_a_form = site.post("/holdfast/tab/sign-in", &[], good).await;
    assert_eq!(by_a_form.status, 401, "a page of somebody else may not sign people in");
    let headers: Vec<(&str, String)> = SCRIPT.iter().map(|(k, v)| (*k, (*v).to_owned())).collect();
    assert_eq!(site.post("/holdfast/tab/sign-in", &headers, "[").await.status, 400);
    let much = json!({ "token": "x".repeat(40 << 10) }).to_string();
    assert_eq!(site.post("/holdfast/tab/sign-in", &headers, much).await.status, 413);
    let audits = site.get("/api/v4/audits", &site.admin().await.bearer()).await;
    assert!(audits.json.to_string().contains("fail holdfast.tab.token.app_error"), "{}", audits.json);
}

#[tokio::test]
async fn tokens_are_shown_as_slowly_as_passwords() {
    let http = HttpSettings { logins_per_second: 1, login_burst: 2, ..HttpSettings::default() };
    let tab = Tab { library: "none".into(), sign_in: Arc::new(Named) };
    let site = Site::with_tab(tempfile::tempdir().unwrap(), 1, 1_800_000_000_000, http, Some(tab)).await;
    let mut answers = Vec::new();
    for _ in 0..3 {
        answers.push(sign_in(&site, "forged", &[("x-forwarded-for", "203.0.113.9")]).await.status);
    }
    assert_eq!(answers, [403, 403, 429]);
}
