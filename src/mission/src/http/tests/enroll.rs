//! People of a directory: how they get a password here, and how they lose access.

use std::collections::BTreeSet;

use super::*;
use crate::{DirectoryBatch, DirectoryPerson};

fn anna(active: bool) -> DirectoryBatch {
    let person = DirectoryPerson {
        key: model::EntraKey { tenant: model::Guid([7; 16]), object: model::Guid([1; 16]) },
        alias: "anna".to_owned(),
        email: "anna@unit.example".to_owned(),
        first_name: "Anna".to_owned(),
        last_name: String::new(),
        position: String::new(),
        locale: String::new(),
        active,
        places: BTreeSet::new(),
    };
    DirectoryBatch { people: vec![person], keep: Vec::new() }
}

impl Site {
    async fn link(&self, name: &str) -> String {
        let (core, name) = (self.core.clone(), name.to_owned());
        let made = tokio::task::spawn_blocking(move || {
            core.operator_enrols(core.user_by_username(&name).unwrap().id, 3_600_000).unwrap().token
        });
        made.await.unwrap()
    }
}

#[tokio::test]
async fn a_page_without_scripts_sets_a_password_by_a_link_that_is_good_once() {
    let site = Site::new().await;
    site.admin().await;
    site.core.apply_directory(&anna(true)).unwrap();
    let token = site.link("anna").await;
    let path = format!("/holdfast/enroll?token={token}");
    let page = site.get(&path, &[]).await;
    assert_eq!((page.status, page.header("cache-control")), (200, "no-store"));
    assert!(page.text().contains("<b>anna</b>") && !page.text().contains("<script"), "{}", page.text());
    assert!(page.header("content-security-policy").contains("frame-ancestors 'none'"));
    let form = |password: &str, again: &str| format!("token={token}&password={password}&again={again}");
    for (password, again, why) in [("long+enough+1", "long+enough+2", "differ"), ("short", "short", "at least")] {
        let answer = site.post("/holdfast/enroll", &[], form(password, again)).await;
        assert_eq!(answer.status, 400);
        assert!(answer.text().contains(why) && answer.text().contains("<form"), "{}", answer.text());
    }
    let done = site.post("/holdfast/enroll", &[], form("long+enough+1", "long+enough+1")).await;
    assert_eq!(done.status, 200, "{}", done.text());
    let login = json!({ "login_id": "anna@unit.example", "password": "long enough 1" }).to_string();
    assert_eq!(site.post("/api/v4/users/login", &[], login).await.status, 200);
    assert_eq!(site.get(&path, &[]).await.status, 400);
    assert_eq!(site.post("/holdfast/enroll", &[], form("long+enough+3", "long+enough+3")).await.status, 400);
    let odd = site.get("/holdfast/enroll?token=%22%3E%3Cscript%3E", &[]).await;
    assert!(odd.status == 400 && !odd.text().contains("<script"));
}

#[tokio::test]
async fn the_official_clients_way_of_a_new_password_takes_the_same_link() {
    let site = Site::new().await;
    site.admin().await;
    site.core.apply_directory(&anna(true)).unwrap();
    let body = json!({ "token": site.link("anna").await, "new_password": PASSWORD }).to_string();
    let done = site.post("/api/v4/users/password/reset", &[], body.clone()).await;
    assert_eq!((done.status, &done.json), (200, &json!({ "status": "OK" })));
    site.login("anna").await;
    let again = site.post("/api/v4/users/password/reset", &[], body).await;
    assert_eq!((again.status, again.id()), (400, "api.user.reset_password.invalid_link.app_error"));
    let mut limited = false;
    for _ in 0..200 {
        let from = [("x-forwarded-for", "203.0.113.250, 192.0.2.1".to_owned())];
        let guess = json!({ "token": "0".repeat(64), "new_password": PASSWORD }).to_string();
        limited |= site.post("/api/v4/users/password/reset", &from, guess).await.status == 429;
    }
    assert!(limited, "guessing is as slow as at the sign-in");
}

#[tokio::test]
async fn whom_the_directory_disables_loses_every_socket_within_a_second() {
    let site = Site::new().await;
    site.admin().await;
    site.core.apply_directory(&anna(true)).unwrap();
    let token = site.link("anna").await;
    site.core.enrol(&token, PASSWORD, "").unwrap();
    let person = site.login("anna").await;
    let mut socket = site.socket("", Some(&person)).await.unwrap();
    assert_eq!(socket.next_json().await["event"], "hello");
    let core = site.core.clone();
    let done = tokio::task::spawn_blocking(move || core.apply_directory(&anna(false))).await.unwrap().unwrap();
    assert_eq!(done.disabled, 1);
    let second = Duration::from_secs(1);
    tokio::time::timeout(second, socket.ended()).await.expect("the socket is closed");
    assert_eq!(site.get("/api/v4/users/me", &person.bearer()).await.status, 401);
}
