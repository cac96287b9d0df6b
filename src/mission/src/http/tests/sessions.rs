//! Sessions and their sockets, and how often one may try to sign in.

use super::*;

/// From the moment at which the request is answered. A busy build machine is given the second that the contract allows.
const AT_ONCE: Duration = Duration::from_secs(1);

#[tokio::test]
async fn whatever_ends_a_session_closes_its_sockets_within_a_second_and_no_others() {
    let site = Site::new().await;
    let world = site.world().await;
    let (admin, bob) = (&world.admin, &world.bob.id);
    let one = site.login("bob").await;
    let id = site.core.session(&one.token).unwrap().id;
    type Ending<'a> = (&'a str, Person, Method, String, Value, bool);
    let own = |path: &str| format!("/api/v4/users/me/{path}");
    let of_bob = |path: &str| format!("/api/v4/users/{bob}/{path}");
    let token = |person: &Person| {
        let by = site.core.session(&person.token).unwrap();
        site.core.create_token(&by, by.user_id, "script").unwrap()
    };
    let (revoked, disabled) = (token(&one), token(&one));
    let by_token = |token: &crate::types::UserAccessToken| Person { id: bob.clone(), token: token.token.clone() };
    let endings: Vec<Ending<'_>> = vec![
        ("one session is revoked", one, Method::POST, of_bob("sessions/revoke"), json!({ "session_id": id }), true),
        ("logout", site.login("bob").await, Method::POST, "/api/v4/users/logout".to_owned(), json!({}), false),
        ("all are revoked", site.login("bob").await, Method::POST, own("sessions/revoke/all"), json!({}), false),
        (
            "a token is revoked",
            by_token(&revoked),
            Method::POST,
            "/api/v4/users/tokens/revoke".to_owned(),
            json!({ "token_id": revoked.id }),
            true,
        ),
        (
            "a token is disabled",
            by_token(&disabled),
            Method::POST,
            "/api/v4/users/tokens/disable".to_owned(),
            json!({ "token_id": disabled.id }),
            true,
        ),
        (
            "a new password",
            site.login("bob").await,
            Method::PUT,
            of_bob("password"),
            json!({ "new_password": PASSWORD }),
            true,
        ),
        ("deactivation", site.login("bob").await, Method::PUT, of_bob("active"), json!({ "active": false }), true),
    ];
    let mut other = site.socket("", Some(admin)).await.unwrap();
    assert_eq!(other.next_json().await["event"], "hello");
    for (what, person, method, path, body, by_admin) in endings {
        // Those before may have ended it; a session by token may not.
        let person = if person.token.is_empty() || site.core.session(&person.token).is_err() {
            site.login("bob").await
        } else {
            person
        };
        let mut socket = site.socket("", Some(&person)).await.unwrap();
        assert_eq!(socket.next_json().await["event"], "hello", "{what}");
        let by = if by_admin { admin } else { &person };
        let answer = site.request(&method, &path, &by.bearer(), body.to_string()).await;
        assert_eq!(answer.status, 200, "{what}: {}", answer.json);
        tokio::time::timeout(AT_ONCE, socket.ended()).await.unwrap_or_else(|_| panic!("{what}: the socket stays"));
    }
    other.send(json!({ "seq": 1, "action": "ping" })).await;
    assert_eq!(other.next_reply().await["status"], "OK", "others stay");
}

#[tokio::test]
async fn other_roles_are_told_and_count_at_once_without_a_new_login() {
    let site = Site::new().await;
    let world = site.world().await;
    let mut socket = site.socket("", Some(&world.bob)).await.unwrap();
    let roles = format!("/api/v4/users/{}/roles", world.bob.id);
    let body = json!({ "roles": "system_user system_admin" }).to_string();
    assert_eq!(site.request(&Method::PUT, &roles, &world.admin.bearer(), body).await.status, 200);
    assert_eq!(socket.next_event("user_role_updated").await["data"]["roles"], "system_user system_admin");
    assert_eq!(site.get("/api/v4/channels", &world.bob.bearer()).await.status, 200);
    let body = json!({ "roles": "system_user" }).to_string();
    assert_eq!(site.request(&Method::PUT, &roles, &world.admin.bearer(), body).await.status, 200);
    assert_eq!(site.get("/api/v4/channels", &world.bob.bearer()).await.status, 403);
}

#[tokio::test]
async fn an_address_that_tries_too_often_waits_and_others_do_not() {
    let site = Site::new().await;
    site.user("bob").await;
    let body = json!({ "login_id": "bob", "password": "" }).to_string();
    let from = |address: &str| [("x-forwarded-for", format!("203.0.113.250, {address}"))];
    let mut refused = None;
    for _ in 0..200 {
        let answer = site.post("/api/v4/users/login", &from("192.0.2.1"), body.clone()).await;
        if answer.status == 429 {
            refused = Some(answer);
            break;
        }
        assert_eq!(answer.id(), "api.user.login.blank_pwd.app_error");
    }
    let refused = refused.expect("it is refused after a burst");
    assert_eq!((refused.id(), refused.header("retry-after")), ("holdfast.too_many_attempts.app_error", "1"));
    let other = site.post("/api/v4/users/login", &from("192.0.2.2"), body.clone()).await;
    assert_eq!(other.id(), "api.user.login.blank_pwd.app_error");
    site.clock.step(60_000);
    let again = site.post("/api/v4/users/login", &from("192.0.2.1"), body).await;
    assert_eq!(again.id(), "api.user.login.blank_pwd.app_error");
}

#[tokio::test]
async fn too_many_wrong_passwords_lock_an_account_until_an_administrator_resets_it() {
    let site = Site::new().await;
    let bob = site.user("bob").await;
    let admin = site.admin().await;
    let login = |password: &str| json!({ "login_id": "bob", "password": password }).to_string();
    for _ in 0..10 {
        let wrong = site.post("/api/v4/users/login", &[], login("wrong")).await;
        assert_eq!(wrong.id(), "api.user.login.invalid_credentials_email_username");
    }
    let locked = site.post("/api/v4/users/login", &[], login(PASSWORD)).await;
    assert_eq!((locked.status, locked.id()), (401, "api.user.check_user_login_attempts.too_many.app_error"));
    let reset = format!("/api/v4/users/{}/reset_failed_attempts", bob.id);
    assert_eq!(site.post(&reset, &bob.bearer(), "").await.status, 403);
    assert_eq!(site.post(&reset, &admin.bearer(), "").await.status, 200);
    assert_eq!(site.post("/api/v4/users/login", &[], login(PASSWORD)).await.status, 200);
}

#[tokio::test]
async fn who_sends_the_head_of_a_request_forever_loses_the_connection() {
    let site = Site::new().await;
    let mut stream = tokio::net::TcpStream::connect(site.address).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut stream, b"GET /api/v4/system/ping HTTP/1.1\r\nhost: x\r\n").await.unwrap();
    let mut answer = Vec::new();
    let end = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut answer);
    tokio::time::timeout(HEADER_WAIT + Duration::from_secs(5), end).await.expect("the server ends it").unwrap();
}

#[tokio::test]
async fn who_is_refused_while_still_sending_gets_the_answer_and_keeps_the_connection() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let site = Site::new().await;
    let mut stream = tokio::net::TcpStream::connect(site.address).await.unwrap();
    for path in ["/api/v4/users/me/image", "/api/v4/posts", "/api/v4/no/such/thing"] {
        let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 60000\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        // Time for the server to refuse what it knows enough of.
        tokio::time::sleep(Duration::from_millis(50)).await;
        stream.write_all(&[b'x'; 60_000]).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"}") {
            let read = tokio::time::timeout(Duration::from_secs(10), stream.read_buf(&mut answer)).await;
            assert!(read.expect("an answer").expect("no reset") > 0, "{path}: the connection was closed");
        }
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 40"), "{path}: {answer}");
        assert!(!answer.contains("connection: close"), "{path}: {answer}");
    }
}
