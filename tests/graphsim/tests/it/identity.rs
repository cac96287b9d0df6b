//! Tokens: who gets them, and what they open.

use std::time::Duration;

use graphsim::{App, Credential};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::world::{World, read};

#[tokio::test]
async fn discovery_names_the_tenants_own_issuer_and_endpoints() {
    let world = World::quick().await;
    let (login, tenant) = (world.sim.login_url(), world.sim.tenant());
    let found = read(world.http.get(format!("{login}/{tenant}/v2.0/.well-known/openid-configuration"))).await.ok();
    assert_eq!(found["issuer"], format!("{login}/{tenant}/v2.0"));
    assert_eq!(found["token_endpoint"], world.token_url());
    let common = read(world.http.get(format!("{login}/common/v2.0/.well-known/openid-configuration"))).await.ok();
    assert_eq!(common["issuer"], format!("{login}/{{tenantid}}/v2.0"));
    let other = read(
        world.http.get(format!("{login}/0c0ffee0-0000-4000-8000-000000000000/v2.0/.well-known/openid-configuration")),
    )
    .await;
    assert_eq!((other.status, other.json["error_codes"][0].as_u64()), (400, Some(90002)));
}

#[tokio::test]
async fn a_wrong_secret_and_a_scope_without_default_are_refused() {
    let world = World::quick().await;
    let scope = format!("{}/.default", world.sim.graph_url());
    for (secret, scope, status, code) in [
        ("wrong", scope.as_str(), 401, 7000215),
        ("s3cret", "User.Read.All", 400, 1002012),
        ("s3cret", "https://graph.microsoft.com/.default", 400, 500011),
    ] {
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", &world.app),
            ("client_secret", secret),
            ("scope", scope),
        ];
        let got = world.ask_token(&form).await;
        assert_eq!((got.status, got.json["error_codes"][0].as_u64()), (status, Some(code)), "{}", got.text);
        assert!(got.json["error_description"].as_str().unwrap().starts_with(&format!("AADSTS{code}: ")));
        assert!(got.json["trace_id"].is_string() && got.json["correlation_id"].is_string());
    }
}

/// An assertion as a client makes it, with what a test changes.
fn assertion(world: &World, app: &str, credential: &Credential, change: impl FnOnce(&mut Value)) -> String {
    let now = world.sim.now() / 1000;
    let mut claims = json!({
        "aud": world.token_url(), "iss": app, "sub": app, "jti": format!("{}", rand_id()), "nbf": now, "iat": now, "exp": now + 300,
    });
    change(&mut claims);
    let der = data_encoding::BASE64
        .decode(credential.certificate_pem.lines().filter(|l| !l.starts_with("---")).collect::<String>().as_bytes())
        .unwrap();
    let mut header = Header::new(Algorithm::PS256);
    header.x5t_s256 = Some(data_encoding::BASE64URL_NOPAD.encode(&Sha256::digest(&der)));
    jsonwebtoken::encode(&header, &claims, &EncodingKey::from_rsa_pem(credential.key_pem.as_bytes()).unwrap()).unwrap()
}

fn rand_id() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

#[tokio::test]
async fn a_client_assertion_is_checked_in_every_part() {
    let world = World::quick().await;
    let (own, foreign) = (Credential::new("holdfast").unwrap(), Credential::new("stranger").unwrap());
    let app = world.sim.add_app(App::new("By certificate").certificate(&own.certificate_pem)).unwrap();
    let scope = format!("{}/.default", world.sim.graph_url());
    let ask = |assertion: String| {
        let (world, app, scope) = (&world, app.clone(), scope.clone());
        async move {
            let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
            let got = world
                .ask_token(&[
                    ("grant_type", "client_credentials"),
                    ("client_id", &app),
                    ("scope", &scope),
                    ("client_assertion_type", kind),
                    ("client_assertion", &assertion),
                ])
                .await;
            (got.status, got.json["error_codes"][0].as_u64().unwrap_or(0))
        }
    };
    let good = assertion(&world, &app, &own, |_| {});
    assert_eq!(ask(good.clone()).await, (200, 0));
    assert_eq!(ask(good).await, (400, 50012), "the same jti again");
    assert_eq!(
        ask(assertion(&world, &app, &foreign, |_| {})).await,
        (401, 700027),
        "a certificate that is not registered"
    );
    let mut forged = assertion(&world, &app, &own, |_| {});
    let last = if forged.pop() == Some('A') { 'Q' } else { 'A' };
    forged.push(last);
    assert_eq!(ask(forged).await.1, 700027, "a signature that does not fit");
    assert_eq!(ask(assertion(&world, &app, &own, |c| c["aud"] = json!("https://elsewhere/token"))).await, (401, 50012));
    assert_eq!(ask(assertion(&world, &app, &own, |c| c["sub"] = json!("somebody"))).await, (401, 50048));
    let long = assertion(&world, &app, &own, |c| c["exp"] = json!(c["nbf"].as_u64().unwrap() + 900));
    assert_eq!(ask(long).await, (401, 700024), "a life of 15 minutes");
    let early = assertion(&world, &app, &own, |c| {
        for name in ["nbf", "iat", "exp"] {
            c[name] = json!(c[name].as_u64().unwrap() + 900);
        }
    });
    assert_eq!(ask(early).await, (401, 700024), "a clock that is 15 minutes ahead");
}

#[tokio::test]
async fn a_code_is_redeemed_once_and_using_it_again_ends_what_it_gave() {
    let world = World::quick().await;
    let scope = "openid offline_access User.Read";
    let code = world.code("anna", scope).await;
    let first = world.redeem(&code).await.ok();
    assert!(first["id_token"].is_string() && first["refresh_token"].is_string());
    assert_eq!(world.redeem(&code).await.json["error_codes"][0], 54005);
    let refresh = |token: String| {
        let world = &world;
        async move {
            world
                .ask_token(&[
                    ("grant_type", "refresh_token"),
                    ("client_id", &world.app),
                    ("client_secret", "s3cret"),
                    ("refresh_token", &token),
                    ("scope", "User.Read"),
                ])
                .await
        }
    };
    assert_eq!(refresh(first["refresh_token"].as_str().unwrap().to_owned()).await.json["error_codes"][0], 50173);

    let second = world.sign_in("anna", scope).await;
    let old = second["refresh_token"].as_str().unwrap().to_owned();
    let next = refresh(old.clone()).await.ok()["refresh_token"].as_str().unwrap().to_owned();
    assert_ne!(old, next);
    refresh(old.clone()).await.ok(); // Its successor was not used yet: perhaps it never arrived.
    refresh(next.clone()).await.ok();
    assert_eq!(refresh(old).await.json["error_codes"][0], 50173);
    world.sim.revoke_user(&world.anna);
    assert_eq!(refresh(next).await.json["error_codes"][0], 50173);
}

#[tokio::test]
async fn a_code_needs_its_verifier_its_redirect_and_its_ten_minutes() {
    let world = World::quick().await;
    let redeem = |code: String, redirect: &'static str, verifier: &'static str| {
        let world = &world;
        async move {
            let got = world
                .ask_token(&[
                    ("grant_type", "authorization_code"),
                    ("client_id", &world.app),
                    ("client_secret", "s3cret"),
                    ("code", &code),
                    ("redirect_uri", redirect),
                    ("code_verifier", verifier),
                ])
                .await;
            got.json["error_codes"][0].as_u64().unwrap_or(0)
        }
    };
    let (back, verifier) = ("http://localhost:4711/back", "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk");
    let code = world.code("anna", "User.Read").await;
    assert_eq!(redeem(code, back, "another-verifier-that-is-long-enough-to-be-one").await, 501481);
    let code = world.code("anna", "User.Read").await;
    assert_eq!(redeem(code, "http://localhost:4712/back", verifier).await, 500112);
    let code = world.code("anna", "User.Read").await;
    world.sim.advance(Duration::from_secs(601));
    assert_eq!(redeem(code, back, verifier).await, 70008);
    let code = world.code("anna", "User.Read").await;
    assert_eq!(redeem(code, back, verifier).await, 0);
    let query = format!("client_id={}&response_type=code&scope=User.Read&redirect_uri=", world.app);
    let authorize = format!("{}/{}/oauth2/v2.0/authorize?{query}", world.sim.login_url(), world.sim.tenant());
    let elsewhere = read(world.http.get(format!("{authorize}https%3A%2F%2Fevil.example%2Fback"))).await;
    assert!(elsewhere.status == 400 && elsewhere.text.contains("AADSTS50011"), "nothing goes to an unknown redirect");
    let bare = read(world.http.get(format!("{authorize}http%3A%2F%2Flocalhost%2Fback"))).await;
    assert!(bare.status == 302 && bare.header("location").contains("AADSTS9002325"), "no code without PKCE");
}

#[tokio::test]
async fn scopes_without_consent_and_disabled_users_get_nothing() {
    let world = World::quick().await;
    let signed_in = world.sign_in("anna", "openid offline_access User.Read").await;
    let token = signed_in["refresh_token"].as_str().unwrap();
    let form = |scope| {
        [
            ("grant_type", "refresh_token"),
            ("client_id", world.app.as_str()),
            ("client_secret", "s3cret"),
            ("refresh_token", token),
            ("scope", scope),
        ]
    };
    let got = world.ask_token(&form("Calendars.ReadWrite")).await;
    assert_eq!(
        (got.json["error_codes"][0].as_u64(), got.json["suberror"].as_str()),
        (Some(65001), Some("consent_required"))
    );
    world.sim.change_object(&world.anna, json!({ "accountEnabled": false }).as_object().unwrap().clone()).unwrap();
    assert_eq!(world.ask_token(&form("User.Read")).await.json["error_codes"][0], 50057);
}

#[tokio::test]
async fn on_behalf_of_takes_the_apps_own_tab_tokens_and_nothing_else() {
    let world = World::quick().await;
    let ask = |assertion: String| {
        let world = &world;
        async move {
            world
                .ask_token(&[
                    ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"),
                    ("client_id", &world.app),
                    ("client_secret", "s3cret"),
                    ("assertion", &assertion),
                    ("scope", "User.Read"),
                    ("requested_token_use", "on_behalf_of"),
                ])
                .await
        }
    };
    let got = ask(world.sim.tab_token(&world.anna, &world.app).unwrap()).await.ok();
    assert_eq!(
        world.send(got["access_token"].as_str().unwrap(), Method::GET, "/me", None).await.ok()["id"],
        world.anna.as_str()
    );
    assert!(got["refresh_token"].is_null(), "offline_access was not asked for");
    let other = world.sim.add_app(App::new("Other").secret("x")).unwrap();
    assert_eq!(ask(world.sim.tab_token(&world.anna, &other).unwrap()).await.json["error_codes"][0], 50013);
    assert_eq!(ask(world.user_token("anna").await).await.json["error_codes"][0], 50013, "a token for Graph");
    let tab = world.sim.tab_token(&world.anna, &world.app).unwrap();
    world.sim.advance(Duration::from_secs(2 * 3600));
    assert_eq!(ask(tab).await.json["error_codes"][0], 500133);
}

#[tokio::test]
async fn graph_takes_its_own_tokens_and_says_what_is_wrong_with_others() {
    let world = World::quick().await;
    let got = read(world.http.get(world.url("/me"))).await;
    assert_eq!((got.status, got.code()), (401, "InvalidAuthenticationToken"));
    assert!(got.header("www-authenticate").starts_with("Bearer realm=") && !got.header("request-id").is_empty());
    let tab = world.sim.tab_token(&world.anna, &world.app).unwrap();
    let got = world.send(&tab, Method::GET, "/me", None).await;
    assert!(got.status == 401 && got.text.contains("audience"), "{}", got.text);
    let anna = world.user_token("anna").await;
    assert_eq!(world.send(&anna, Method::GET, "/me", None).await.ok()["id"], world.anna.as_str());
    let got = world.send(&anna, Method::GET, "/users", None).await;
    assert_eq!((got.status, got.code()), (403, "Authorization_RequestDenied"));
    assert_eq!(world.get("/me").await.status, 400, "an app has no /me");
    world.sim.advance(Duration::from_secs(91 * 60));
    assert_eq!(world.get("/organization").await.status, 401);
}

#[tokio::test]
async fn who_understands_challenges_is_challenged_at_once_when_a_user_is_revoked() {
    let world = World::quick().await;
    let plain = world.user_token("anna").await;
    let code = world.code("anna", &format!("{}/.default", world.sim.graph_url())).await;
    let claims = json!({ "access_token": { "xms_cc": { "values": ["cp1"] } } }).to_string();
    let got = world
        .ask_token(&[
            ("grant_type", "authorization_code"),
            ("client_id", &world.app),
            ("client_secret", "s3cret"),
            ("code", &code),
            ("redirect_uri", "http://localhost:4711/back"),
            ("code_verifier", "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"),
            ("claims", &claims),
        ])
        .await
        .ok();
    assert!(got["expires_in"].as_u64().unwrap() > 20 * 3600);
    world.sim.revoke_user(&world.anna);
    let got = world.send(got["access_token"].as_str().unwrap(), Method::GET, "/me", None).await;
    let header = got.header("www-authenticate");
    assert!(got.status == 401 && header.contains("error=\"insufficient_claims\""), "{header}");
    let claims = header.split("claims=\"").nth(1).unwrap().split('"').next().unwrap();
    let claims: Value = serde_json::from_slice(&data_encoding::BASE64.decode(claims.as_bytes()).unwrap()).unwrap();
    assert_eq!(claims["access_token"]["nbf"]["essential"], true);
    world.send(&plain, Method::GET, "/me", None).await.ok(); // It did not say that it understands, so it lives on.
}

#[tokio::test]
async fn keys_rotate_and_tokens_for_the_app_verify_with_a_published_one() {
    let world = World::quick().await;
    let keys = || async {
        let url = format!("{}/{}/discovery/v2.0/keys", world.sim.login_url(), world.sim.tenant());
        read(world.http.get(url)).await.ok()["keys"].as_array().unwrap().clone()
    };
    let before = keys().await;
    assert_eq!(before.len(), 2);
    world.sim.rotate_keys().unwrap();
    let after = keys().await;
    assert!(after.len() == 2 && after[0] == before[1] && after[1] != before[1]);
    let token = world.sim.tab_token(&world.anna, &world.app).unwrap();
    let kid = jsonwebtoken::decode_header(&token).unwrap().kid.unwrap();
    let jwk = after.iter().find(|k| k["kid"] == kid.as_str()).unwrap();
    let key =
        jsonwebtoken::DecodingKey::from_rsa_components(jwk["n"].as_str().unwrap(), jwk["e"].as_str().unwrap()).unwrap();
    let mut checks = jsonwebtoken::Validation::new(Algorithm::RS256);
    checks.set_audience(&[&world.app]);
    let claims = jsonwebtoken::decode::<Value>(&token, &key, &checks).unwrap().claims;
    assert_eq!((claims["oid"].as_str(), claims["scp"].as_str()), (Some(world.anna.as_str()), Some("access_as_user")));
    checks.set_audience(&[world.sim.graph_url()]);
    assert!(
        jsonwebtoken::decode::<Value>(&world.token, &key, &checks).is_err(),
        "nobody but Graph verifies its tokens"
    );
}

#[tokio::test]
async fn a_device_waits_is_told_to_slow_down_and_gets_its_tokens_once() {
    let world = World::quick().await;
    let app = App::new("Command line").public().delegated(&["User.Read"]);
    let app = world.sim.add_app(app).unwrap();
    let body = format!("client_id={app}&scope=User.Read%20offline_access");
    let url = format!("{}/{}/oauth2/v2.0/devicecode", world.sim.login_url(), world.sim.tenant());
    let begun =
        read(world.http.post(url).header("content-type", "application/x-www-form-urlencoded").body(body)).await.ok();
    let poll = || async {
        let form = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:device_code"),
            ("client_id", app.as_str()),
            ("device_code", begun["device_code"].as_str().unwrap()),
        ];
        world.ask_token(&form).await
    };
    assert_eq!(poll().await.code(), "authorization_pending");
    assert_eq!(poll().await.code(), "slow_down");
    world.sim.answer_device(begun["user_code"].as_str().unwrap(), &world.anna, false).unwrap();
    world.sim.advance(Duration::from_secs(5));
    assert!(poll().await.ok()["refresh_token"].is_string());
    world.sim.advance(Duration::from_secs(5));
    assert_eq!(poll().await.code(), "bad_verification_code");
}

#[tokio::test]
async fn a_second_factor_is_asked_for_where_a_user_has_one() {
    let world = World::quick().await;
    let carla = world.sim.add_user(graphsim::User { mfa: true, ..graphsim::User::new("carla") });
    let tab = world.sim.tab_token(&carla, &world.app).unwrap();
    let got = world
        .ask_token(&[
            ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"),
            ("client_id", &world.app),
            ("client_secret", "s3cret"),
            ("assertion", &tab),
            ("scope", "User.Read"),
            ("requested_token_use", "on_behalf_of"),
        ])
        .await;
    assert_eq!((got.status, got.code()), (400, "interaction_required"));
    assert_eq!(got.json["error_codes"][0], 50076);
    let claims: Value = serde_json::from_str(got.json["claims"].as_str().unwrap()).unwrap();
    assert!(claims["access_token"].is_object());
}
