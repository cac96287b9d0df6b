//! Bots, tokens, second factors, custom statuses, and what administrators do with accounts.

use super::*;

impl Site {
    async fn put(&self, path: &str, by: &Person, body: Value) -> Answer {
        self.request(&Method::PUT, path, &by.bearer(), body.to_string()).await
    }

    async fn post_by(&self, path: &str, by: &Person, body: Value) -> Answer {
        self.post(path, &by.bearer(), body.to_string()).await
    }
}

#[tokio::test]
async fn a_bot_is_made_works_with_a_token_is_disabled_and_comes_back() {
    let site = Site::new().await;
    let world = site.world().await;
    let (admin, bob) = (&world.admin, &world.bob);
    let new = json!({ "username": "Weather", "display_name": "Weather", "description": "says the weather" });
    assert_eq!(site.post_by("/api/v4/bots", bob, new.clone()).await.status, 403);
    let made = site.post_by("/api/v4/bots", admin, new.clone()).await;
    assert_eq!(made.status, 201, "{}", made.json);
    assert_eq!((&made.json["username"], &made.json["owner_id"]), (&json!("weather"), &json!(admin.id)));
    let taken = site.post_by("/api/v4/bots", admin, new).await;
    assert_eq!((taken.status, taken.id()), (400, "app.user.save.username_exists.app_error"));
    let id = made.json["user_id"].as_str().unwrap().to_owned();
    let at = format!("/api/v4/bots/{id}");

    let token = site.post_by(&format!("/api/v4/users/{id}/tokens"), admin, json!({ "description": "d" })).await;
    let bot = Person { id: id.clone(), token: token.json["token"].as_str().unwrap().to_owned() };
    let member = json!({ "team_id": world.team, "user_id": id });
    assert_eq!(site.post_by(&format!("/api/v4/teams/{}/members", world.team), admin, member).await.status, 201);
    let path = format!("/api/v4/channels/{}/members", world.channel);
    assert_eq!(site.post_by(&path, admin, json!({ "user_id": id })).await.status, 201);
    let post = site.say(&bot, &world.channel, "rain").await;
    assert_eq!(post["props"]["from_bot"], "true");
    let own_bot = site.post_by("/api/v4/bots", &bot, json!({ "username": "child" })).await;
    assert_eq!(own_bot.status, 403, "a bot makes no bots");

    let patched = site.put(&at, admin, json!({ "username": "sky", "description": "" })).await;
    assert_eq!((&patched.json["username"], patched.json.get("description")), (&json!("sky"), None));
    assert_eq!(site.get("/api/v4/users/username/sky", &admin.bearer()).await.json["is_bot"], true);
    let hidden = site.get(&at, &bob.bearer()).await;
    assert_eq!((hidden.status, hidden.id()), (404, "store.sql_bot.get.missing.app_error"));

    let off = site.post_by(&format!("{at}/disable"), admin, json!({})).await;
    assert!(off.json["delete_at"].as_i64().unwrap() > 0);
    assert_eq!(site.get("/api/v4/users/me", &bot.bearer()).await.status, 401);
    let gone = site.get(&at, &admin.bearer()).await;
    assert_eq!((gone.status, gone.id()), (404, "store.sql_bot.get.missing.app_error"));
    assert_eq!(site.get(&format!("{at}?include_deleted=true"), &admin.bearer()).await.status, 200);
    assert_eq!(site.get("/api/v4/bots", &admin.bearer()).await.json, json!([]));
    assert_eq!(site.post_by(&format!("{at}/enable"), admin, json!({})).await.json["delete_at"], 0);
    assert_eq!(site.get("/api/v4/users/me", &bot.bearer()).await.status, 200);

    let assigned = site.post_by(&format!("{at}/assign/{}", bob.id), admin, json!({})).await;
    assert_eq!(assigned.json["owner_id"], json!(bob.id));
    let off = format!("/api/v4/users/{}/active", bob.id);
    assert_eq!(site.put(&off, admin, json!({ "active": false })).await.status, 200);
    assert_eq!(site.get("/api/v4/users/me", &bot.bearer()).await.status, 401, "a bot stops with its owner");
    let orphans = site.get("/api/v4/bots?only_orphaned=true&include_deleted=true", &admin.bearer()).await;
    assert_eq!(orphans.json[0]["user_id"], json!(id));

    let body = json!({ "password": PASSWORD });
    let converted = site.post_by(&format!("{at}/convert_to_user"), admin, body).await;
    assert_eq!((converted.status, converted.json.get("is_bot")), (200, None), "{}", converted.json);
}

#[tokio::test]
async fn an_account_becomes_a_bot_and_signs_in_no_more() {
    let site = Site::new().await;
    let (admin, bob) = (site.admin().await, site.user("bob").await);
    let made = site.post_by(&format!("/api/v4/users/{}/convert_to_bot", bob.id), &admin, json!({})).await;
    assert_eq!((&made.json["user_id"], &made.json["owner_id"]), (&json!(bob.id), &json!(bob.id)));
    assert_eq!(site.get("/api/v4/users/me", &bob.bearer()).await.status, 401);
    let body = json!({ "login_id": "bob", "password": PASSWORD }).to_string();
    assert_eq!(site.post("/api/v4/users/login", &[], body).await.status, 401);
}

#[tokio::test]
async fn administrators_find_every_token_and_others_only_their_own() {
    let site = Site::new().await;
    let (admin, bob) = (site.admin().await, site.user("bob").await);
    let at = "/api/v4/users/me/tokens";
    let made = site.post_by(at, &bob, json!({ "description": "script" })).await;
    let id = &made.json["id"];
    for (path, body) in [("/api/v4/users/tokens", None), ("/api/v4/users/tokens/search", Some(json!({ "term": "bo" })))]
    {
        let found = match &body {
            None => site.get(path, &admin.bearer()).await,
            Some(body) => site.post_by(path, &admin, body.clone()).await,
        };
        assert_eq!((&found.json[0]["id"], found.json[0].get("token")), (id, None), "{path}");
        let refused = match body {
            None => site.get(path, &bob.bearer()).await,
            Some(body) => site.post_by(path, &bob, body).await,
        };
        assert_eq!(refused.status, 403, "{path}");
    }
    let none = site.post_by("/api/v4/users/tokens/search", &admin, json!({ "term": "%" })).await;
    assert_eq!(none.json, json!([]), "wildcards are letters");
    let empty = site.post_by("/api/v4/users/tokens/search", &admin, json!({ "term": "" })).await;
    assert_eq!((empty.status, empty.id()), (400, "api.context.invalid_body_param.app_error"));
}

/// What an authenticator app shows.
fn code(secret: &str, now_ms: i64) -> String {
    let key = data_encoding::BASE32_NOPAD.decode(secret.as_bytes()).unwrap();
    let app = totp_rs::Builder::new().with_secret(key).build_noncompliant();
    app.generate(u64::try_from(now_ms / 1_000).unwrap()).to_string()
}

#[tokio::test]
async fn a_second_factor_is_set_up_asked_for_taken_once_and_given_up() {
    let site = Site::new().await;
    let bob = site.user("bob").await;
    let made = site.post_by("/api/v4/users/me/mfa/generate", &bob, json!({})).await;
    let secret = made.json["secret"].as_str().unwrap().to_owned();
    let picture = data_encoding::BASE64.decode(made.json["qr_code"].as_str().unwrap().as_bytes()).unwrap();
    let size = crate::images::look(std::io::Cursor::new(&picture)).unwrap();
    assert!(size.width == size.height && size.width > 200, "{size:?}");

    let now = || site.clock.now().0;
    let login = |token: String| json!({ "login_id": "bob", "password": PASSWORD, "token": token }).to_string();
    let plain = site.post("/api/v4/users/login", &[], login(String::new())).await;
    assert_eq!(plain.status, 200, "not before it is activated");
    let me = "/api/v4/users/me/mfa";
    let wrong = site.put(me, &bob, json!({ "activate": true, "code": "000000" })).await;
    assert_eq!((wrong.status, wrong.id()), (401, "mfa.activate.bad_token.app_error"));
    assert_eq!(site.put(me, &bob, json!({ "activate": true })).await.status, 400);
    let on = site.put(me, &bob, json!({ "activate": true, "code": code(&secret, now()) })).await;
    assert_eq!(on.status, 200, "{}", on.json);
    assert_eq!(site.get("/api/v4/users/me", &bob.bearer()).await.json["mfa_active"], true);

    let asked = site.post("/api/v4/users/login", &[], login(String::new())).await;
    assert_eq!((asked.status, asked.id()), (401, "mfa.validate_token.authenticate.app_error"));
    let spent = site.post("/api/v4/users/login", &[], login(code(&secret, now()))).await;
    assert_eq!(
        (spent.status, spent.id()),
        (401, "api.user.check_user_mfa.bad_code.app_error"),
        "it activated with that"
    );
    site.clock.step(30_000);
    let fresh = code(&secret, now());
    assert_eq!(site.post("/api/v4/users/login", &[], login(fresh.clone())).await.status, 200);
    let again = site.post("/api/v4/users/login", &[], login(fresh)).await;
    assert_eq!(again.id(), "api.user.check_user_mfa.bad_code.app_error");
    let body = json!({ "login_id": "bob", "password": "wrong", "token": "" }).to_string();
    let hidden = site.post("/api/v4/users/login", &[], body).await;
    assert_eq!(hidden.id(), "api.user.login.invalid_credentials_email_username", "the password comes first");

    assert_eq!(site.put(me, &bob, json!({ "activate": false })).await.status, 200);
    assert_eq!(site.post("/api/v4/users/login", &[], login(String::new())).await.status, 200);
}

#[tokio::test]
async fn wrong_codes_lock_the_account_like_wrong_passwords_and_asking_for_one_does_not() {
    let site = Site::new().await;
    let bob = site.user("bob").await;
    let made = site.post_by("/api/v4/users/me/mfa/generate", &bob, json!({})).await;
    let code = code(made.json["secret"].as_str().unwrap(), site.clock.now().0);
    assert_eq!(site.put("/api/v4/users/me/mfa", &bob, json!({ "activate": true, "code": code })).await.status, 200);
    let login = |token: &str| json!({ "login_id": "bob", "password": PASSWORD, "token": token }).to_string();
    for _ in 0..12 {
        let asked = site.post("/api/v4/users/login", &[], login("")).await;
        assert_eq!(asked.id(), "mfa.validate_token.authenticate.app_error");
    }
    for _ in 0..10 {
        let wrong = site.post("/api/v4/users/login", &[], login("000000")).await;
        assert_eq!(wrong.id(), "api.user.check_user_mfa.bad_code.app_error");
    }
    let locked = site.post("/api/v4/users/login", &[], login("000000")).await;
    assert_eq!(locked.id(), "api.user.check_user_login_attempts.too_many.app_error");
}

#[tokio::test]
async fn a_custom_status_is_told_to_others_remembered_and_taken_back() {
    let site = Site::new().await;
    let world = site.world().await;
    let bob = &world.bob;
    let mut other = site.socket("", Some(&world.admin)).await.unwrap();
    let me = "/api/v4/users/me/status/custom";
    assert_eq!(site.put(me, bob, json!({ "emoji": "", "text": "" })).await.status, 400);
    let past = json!({ "emoji": "wave", "text": "x", "duration": "one_hour", "expires_at": "2001-01-01T00:00:00Z" });
    assert_eq!(site.put(me, bob, past).await.status, 400);
    for text in ["1", "2", "3", "4", "5", "6", "3"] {
        assert_eq!(site.put(me, bob, json!({ "emoji": "wave", "text": text })).await.status, 200, "{text}");
    }
    let told = other.next_event("user_updated").await;
    assert!(told["data"]["user"]["props"]["customStatus"].as_str().unwrap().contains("wave"), "{told}");
    let user = site.get("/api/v4/users/me", &bob.bearer()).await.json;
    let status: Value = serde_json::from_str(user["props"]["customStatus"].as_str().unwrap()).unwrap();
    assert_eq!(status, json!({ "emoji": "wave", "text": "3", "duration": "", "expires_at": "0001-01-01T00:00:00Z" }));
    let at = "/api/v4/users/me/preferences/custom_status/name/recent_custom_statuses";
    let recent = || async {
        let value = site.get(at, &bob.bearer()).await.json["value"].as_str().unwrap().to_owned();
        let recent: Vec<Value> = serde_json::from_str(&value).unwrap();
        recent.iter().map(|status| status["text"].as_str().unwrap().to_owned()).collect::<String>()
    };
    assert_eq!(recent().await, "36542");
    let forget = format!("{me}/recent/delete");
    assert_eq!(site.post_by(&forget, bob, status.clone()).await.status, 200);
    assert_eq!(recent().await, "6542");
    let twice = site.post_by(&forget, bob, status).await;
    assert_eq!((twice.status, twice.id()), (400, "api.custom_status.recent_custom_statuses.delete.app_error"));
    assert_eq!(site.request(&Method::DELETE, me, &bob.bearer(), "").await.status, 200);
    assert_eq!(site.get("/api/v4/users/me", &bob.bearer()).await.json["props"]["customStatus"], "");
}

#[tokio::test]
async fn people_are_counted_and_known_to_whom_they_share_a_channel_with() {
    let site = Site::new().await;
    let world = site.world().await;
    let stranger = site.user("stranger").await;
    let known = site.get("/api/v4/users/known", &world.bob.bearer()).await.json;
    assert_eq!(known, json!([world.admin.id]));
    assert_eq!(site.get("/api/v4/users/known", &stranger.bearer()).await.json, json!([]));
    let count = |query: &str| {
        let path = format!("/api/v4/users/stats/filtered?{query}");
        let bearer = world.admin.bearer();
        let site = &site;
        async move { site.get(&path, &bearer).await.json["total_users_count"].as_i64().unwrap() }
    };
    assert_eq!(count("").await, 3);
    assert_eq!(count(&format!("in_team={}", world.team)).await, 2);
    assert_eq!(count("roles=system_admin").await, 1);
    assert_eq!(count("roles=system_admin,system_user").await, 3);
    let off = format!("/api/v4/users/{}/active", stranger.id);
    assert_eq!(site.put(&off, &world.admin, json!({ "active": false })).await.status, 200);
    assert_eq!((count("").await, count("include_deleted=true").await), (2, 3));
    let bad = site.get("/api/v4/users/stats/filtered?roles=%25", &world.admin.bearer()).await;
    assert_eq!(bad.status, 400);
}

#[tokio::test]
async fn users_are_found_by_role_and_a_search_says_what_it_needs() {
    let site = Site::new().await;
    let world = site.world().await;
    let admin = &world.admin;
    let names = |answer: Answer| -> Vec<String> {
        let users = answer.json.as_array().unwrap().clone();
        users.iter().map(|user| user["username"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(site.get("/api/v4/users?role=system_admin", &admin.bearer()).await), ["root"]);
    assert_eq!(names(site.get("/api/v4/users?roles=system_user,system_admin", &admin.bearer()).await), ["bob", "root"]);
    assert_eq!(names(site.get("/api/v4/users?role=system", &admin.bearer()).await), Vec::<String>::new());
    let search = |body: Value| site.post_by("/api/v4/users/search", admin, body);
    assert_eq!(names(search(json!({ "term": "o", "role": "system_admin" })).await), Vec::<String>::new());
    assert_eq!(names(search(json!({ "term": "ro", "role": "system_admin" })).await), ["root"]);
    for body in [
        json!({ "term": "" }),
        json!({ "term": "b", "not_in_channel_id": world.channel }),
        json!({ "term": "b", "limit": 1_001 }),
    ] {
        let refused = search(body.clone()).await;
        assert_eq!((refused.status, refused.id()), (400, "api.context.invalid_body_param.app_error"), "{body}");
    }
    let roles = format!("/api/v4/users/{}/roles", world.bob.id);
    let licensed = site.put(&roles, admin, json!({ "roles": "system_user system_manager" })).await;
    assert_eq!((licensed.status, licensed.id()), (400, "api.user.update_user_roles.license.app_error"));
    let bot = site.post_by("/api/v4/bots", admin, json!({ "username": "weather" })).await;
    let login = json!({ "id": bot.json["user_id"], "password": "x" }).to_string();
    let refused = site.post("/api/v4/users/login", &[], login).await;
    assert_eq!((refused.status, refused.id()), (401, "api.user.login.bot_login_forbidden.app_error"));
}
