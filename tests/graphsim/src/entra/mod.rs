//! Entra ID: discovery, keys, tokens, sign-in.
//!
//! Clients and users prove who they are as Entra asks it of them; tokens are real JWTs that a JOSE library verifies, except
//! those for Graph, which nobody but Graph can. What was issued stands in a table, so a token that was not issued here is
//! not valid, however well it is signed.

mod assertion;
mod signin;
mod token;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rand::RngExt as _;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::clock::{Millis, entra_date};
use crate::http::{Answer, Request};
use crate::oracle::What;
use crate::pki::{PkiError, Registered, SigningKey};
use crate::things::{App, User};
use crate::world::{Caller, Trace, World};

/// Refresh tokens die when they are not used for so long.
const REFRESH_IDLE_MAX: Millis = 90 * crate::clock::DAY;

/// Client id of the Teams web client, whose name is on the tokens of tabs.
pub(crate) const TEAMS_WEB: &str = "5e3ce6c0-2b1f-4285-8d4b-75ee78787346";

/// State of the identity service.
pub(crate) struct Entra {
    pub(crate) apps: BTreeMap<String, App>,
    certificates: BTreeMap<String, Vec<Registered>>,
    pub(crate) users: BTreeMap<String, User>,
    /// Published, the newest last; the newest signs.
    keys: Vec<SigningKey>,
    issued: BTreeMap<[u8; 32], Issued>,
    codes: BTreeMap<String, signin::Code>,
    refresh: BTreeMap<String, token::Refresh>,
    devices: BTreeMap<String, signin::Device>,
    asked: BTreeMap<String, signin::Asked>,
    sessions: BTreeMap<String, String>,
    seen_jtis: BTreeSet<(String, String)>,
    /// Times of equal token requests, by what they ask for.
    equal: BTreeMap<String, VecDeque<Millis>>,
    /// Grants of a user that were issued before this are void.
    revoked_at: BTreeMap<String, Millis>,
    /// Apps whose tokens from before this are challenged.
    app_revoked_at: BTreeMap<String, Millis>,
}

/// What a token of ours says.
#[derive(Clone, Debug)]
pub(crate) struct Issued {
    audience: Resource,
    caller: Caller,
    issued_ms: Millis,
    expires_ms: Millis,
    claims: Claims,
    kind: Kind,
}

/// What a client asked for in the field `claims`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Claims {
    /// That it understands challenges.
    challenges: bool,
    /// That the token be of that second or later, as a challenge wants it; 0 where it was not asked for.
    not_before_s: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Access,
    Id,
}

/// What a token is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Resource {
    Graph,
    App(String),
}

/// A refusal in Entra's form.
#[derive(Clone, Debug)]
pub(crate) struct Aadsts {
    status: u16,
    error: &'static str,
    code: u32,
    text: String,
    suberror: Option<&'static str>,
    claims: Option<Value>,
    retry_after_s: Option<u32>,
}

impl Aadsts {
    fn new(error: &'static str, code: u32, text: impl Into<String>) -> Self {
        let status = if error == "invalid_client" { 401 } else { 400 };
        Self { status, error, code, text: text.into(), suberror: None, claims: None, retry_after_s: None }
    }

    fn sub(mut self, suberror: &'static str) -> Self {
        self.suberror = Some(suberror);
        self
    }

    fn description(&self, world: &mut World, trace: &Trace) -> (String, String) {
        let trace_id = world.guid();
        let text = format!(
            "AADSTS{}: {} Trace ID: {trace_id} Correlation ID: {} Timestamp: {}",
            self.code,
            self.text,
            trace.client_request_id,
            entra_date(world.now()),
        );
        (text, trace_id)
    }

    fn answer(self, world: &mut World, trace: &Trace) -> Answer {
        let (description, trace_id) = self.description(world, trace);
        let mut body = json!({
            "error": self.error,
            "error_description": description,
            "error_codes": [self.code],
            "timestamp": entra_date(world.now()),
            "trace_id": trace_id,
            "correlation_id": trace.client_request_id,
            "error_uri": format!("{}/error?code={}", world.urls.login, self.code),
        });
        if let Some(suberror) = self.suberror {
            body["suberror"] = json!(suberror);
        }
        if let Some(claims) = self.claims {
            body["claims"] = json!(claims.to_string());
        }
        let answer = Answer::json(self.status, body);
        match self.retry_after_s {
            Some(seconds) => answer.with("retry-after", seconds.to_string()),
            None => answer,
        }
    }
}

impl Entra {
    pub(crate) fn new() -> Result<Self, PkiError> {
        Ok(Self {
            apps: BTreeMap::new(),
            certificates: BTreeMap::new(),
            users: BTreeMap::new(),
            keys: vec![SigningKey::new()?, SigningKey::new()?],
            issued: BTreeMap::new(),
            codes: BTreeMap::new(),
            refresh: BTreeMap::new(),
            devices: BTreeMap::new(),
            asked: BTreeMap::new(),
            sessions: BTreeMap::new(),
            seen_jtis: BTreeSet::new(),
            equal: BTreeMap::new(),
            revoked_at: BTreeMap::new(),
            app_revoked_at: BTreeMap::new(),
        })
    }

    /// The next key signs; the oldest is withdrawn once three are published.
    pub(crate) fn rotate_keys(&mut self) -> Result<(), PkiError> {
        self.keys.push(SigningKey::new()?);
        if self.keys.len() > 2 {
            self.keys.remove(0);
        }
        Ok(())
    }
}

/// Why Graph does not take a token.
pub(crate) enum NotAccepted {
    Unknown,
    Audience,
    Expired,
    /// The client must come back with these claims.
    Challenge(Value),
}

impl World {
    /// Registers an app; its client id.
    pub(crate) fn put_app(&mut self, mut app: App) -> Result<String, String> {
        if app.id.is_empty() {
            app.id = self.guid();
        }
        if let Some(teams) = &mut app.teams_app
            && teams.id.is_empty()
        {
            teams.id = crate::world::guid(&mut self.rng);
        }
        let certificates: Option<Vec<Registered>> = app.certificates.iter().map(|p| Registered::from_pem(p)).collect();
        let certificates = certificates.ok_or("a certificate is no X.509 with an RSA key in PEM")?;
        let id = app.id.clone();
        self.entra.certificates.insert(id.clone(), certificates);
        self.entra.apps.insert(id.clone(), app);
        Ok(id)
    }

    /// Withdraws everything that a user's sign-ins gave; where clients understand it, tokens of Graph end at once.
    pub(crate) fn revoke_user(&mut self, user: &str) {
        let now = self.now();
        self.entra.revoked_at.insert(user.to_owned(), now);
        self.entra.sessions.retain(|_, of| of != user);
    }

    /// Tokens of an app for itself are challenged from now on, where it understands it.
    pub(crate) fn revoke_app(&mut self, app: &str) {
        let now = self.now();
        self.entra.app_revoked_at.insert(app.to_owned(), now);
    }

    /// The token that Teams gives a tab: a user's, for the app, asked for by Teams' web client.
    pub(crate) fn tab_token(&mut self, user: &str, app: &str) -> Option<String> {
        self.entra.apps.get(app)?;
        self.entra.users.get(user)?;
        let scopes = BTreeSet::from(["access_as_user".to_owned()]);
        Some(self.issue(TEAMS_WEB, Some(user), &Resource::App(app.to_owned()), scopes, Claims::default()).0)
    }

    /// A token and how many seconds it lives.
    fn issue(
        &mut self,
        app: &str,
        user: Option<&str>,
        audience: &Resource,
        permissions: BTreeSet<String>,
        asked: Claims,
    ) -> (String, u64) {
        let minutes =
            if asked.challenges { self.rng.random_range(20 * 60..=28 * 60) } else { self.rng.random_range(60..=90) };
        let now = self.now();
        let (issued_s, life_s) = (now / 1000, minutes * 60);
        let scopes = permissions.iter().cloned().collect::<Vec<_>>().join(" ");
        let mut claims = json!({
            "iat": issued_s, "nbf": issued_s, "exp": issued_s + life_s, "tid": self.tenant,
            "jti": self.guid(), "uti": self.guid(),
        });
        if let Some(oid) = user {
            let name = self.entra.users[oid].clone();
            claims["oid"] = json!(oid);
            claims["sub"] = json!(pairwise(oid, app));
            claims["name"] = json!(name.display_name);
            claims["scp"] = json!(scopes);
            claims["idtyp"] = json!("user");
            claims["preferred_username"] = json!(name.user_principal_name);
        } else {
            // The service principal is an object of its own; derived, so that it stays the same.
            claims["oid"] = json!(pairwise("service-principal", app));
            claims["sub"] = claims["oid"].clone();
            claims["roles"] = json!(permissions);
            claims["idtyp"] = json!("app");
        }
        if asked.challenges {
            claims["xms_cc"] = json!(["cp1"]);
        }
        let nonce = self.secret("");
        let token = match audience {
            Resource::Graph => {
                claims["aud"] = json!(self.urls.graph);
                claims["iss"] = json!(format!("https://sts.windows.net/{}/", self.tenant));
                claims["ver"] = json!("1.0");
                claims["appid"] = json!(app);
                if let Some(name) = claims.as_object_mut().and_then(|c| c.remove("preferred_username")) {
                    claims["upn"] = name.clone();
                    claims["unique_name"] = name;
                }
                self.signing().sign(&claims, Some(&nonce))
            }
            Resource::App(id) => {
                claims["aud"] = json!(id);
                claims["iss"] = json!(self.issuer());
                claims["ver"] = json!("2.0");
                claims["azp"] = json!(app);
                claims["azpacr"] = json!("0");
                self.signing().sign(&claims, None)
            }
        };
        let caller = Caller { app: app.to_owned(), user: user.map(str::to_owned), permissions };
        self.entra.issued.insert(
            Sha256::digest(token.as_bytes()).into(),
            Issued {
                audience: audience.clone(),
                caller: caller.clone(),
                issued_ms: now,
                expires_ms: (issued_s + life_s) * 1000,
                claims: asked,
                kind: Kind::Access,
            },
        );
        self.commit(&caller, &Trace::default(), What::TokenIssued, "", "", json!({ "for": audience_name(audience) }));
        (token, life_s)
    }

    fn id_token(&mut self, app: &str, oid: &str, nonce: Option<&str>) -> String {
        let now = self.now();
        let user = self.entra.users[oid].clone();
        let mut claims = json!({
            "aud": app, "iss": self.issuer(), "iat": now / 1000, "nbf": now / 1000, "exp": now / 1000 + 3600,
            "tid": self.tenant, "oid": oid, "sub": pairwise(oid, app), "ver": "2.0", "uti": self.guid(),
            "name": user.display_name, "preferred_username": user.user_principal_name,
        });
        if let Some(nonce) = nonce {
            claims["nonce"] = json!(nonce);
        }
        let token = self.signing().sign(&claims, None);
        self.entra.issued.insert(
            Sha256::digest(token.as_bytes()).into(),
            Issued {
                audience: Resource::App(app.to_owned()),
                caller: Caller { app: app.to_owned(), user: Some(oid.to_owned()), permissions: BTreeSet::new() },
                issued_ms: now,
                expires_ms: now + 3_600_000,
                claims: Claims::default(),
                kind: Kind::Id,
            },
        );
        token
    }

    /// Who a bearer of Graph is.
    pub(crate) fn bearer(&self, token: &str) -> Result<Caller, NotAccepted> {
        let key: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        let issued = self.entra.issued.get(&key).ok_or(NotAccepted::Unknown)?;
        if issued.audience != Resource::Graph || issued.kind != Kind::Access {
            return Err(NotAccepted::Audience);
        }
        if issued.expires_ms <= self.now() {
            return Err(NotAccepted::Expired);
        }
        if issued.claims.challenges {
            let revoked = match &issued.caller.user {
                Some(user) => self.entra.revoked_at.get(user),
                None => self.entra.app_revoked_at.get(&issued.caller.app),
            };
            let disabled =
                issued.caller.user.as_ref().is_some_and(|u| self.entra.users.get(u).is_none_or(|u| u.disabled));
            let nbf_s = revoked.copied().unwrap_or(self.now()) / 1000 + 1;
            // A person signs in again; an app can only say what it was challenged for.
            let unanswered = issued.caller.user.is_none() && issued.claims.not_before_s < nbf_s;
            if disabled || revoked.is_some_and(|at| issued.issued_ms <= *at || unanswered) {
                let claims = json!({ "access_token": { "nbf": { "essential": true, "value": nbf_s.to_string() } } });
                return Err(NotAccepted::Challenge(claims));
            }
        }
        Ok(issued.caller.clone())
    }

    fn signing(&self) -> &SigningKey {
        self.entra.keys.last().expect("two keys from the start, never fewer")
    }

    /// Issuer of tokens for apps.
    pub(crate) fn issuer(&self) -> String {
        format!("{}/{}/v2.0", self.urls.login, self.tenant)
    }

    /// One request at the login host.
    pub(crate) fn login(&mut self, request: &Request) -> Answer {
        let trace = Trace {
            request_id: self.guid(),
            client_request_id: request
                .header("client-request-id")
                .or(request.query("client-request-id"))
                .map_or_else(|| self.guid(), str::to_owned),
        };
        let mut answer = match self.login_answer(request, &trace) {
            Ok(answer) => answer,
            Err(refusal) => refusal.answer(self, &trace),
        };
        answer.headers.push(("x-ms-request-id".to_owned(), trace.request_id));
        answer.headers.push(("client-request-id".to_owned(), trace.client_request_id));
        answer.headers.push(("cache-control".to_owned(), "no-store, no-cache".to_owned()));
        answer
    }

    fn login_answer(&mut self, request: &Request, trace: &Trace) -> Result<Answer, Aadsts> {
        let path = request.path.trim_start_matches('/');
        let (tenant, rest) = path.split_once('/').unwrap_or((path, ""));
        if tenant == "common" && rest == "discovery/instance" {
            return Ok(self.instance(request));
        }
        let alias = matches!(tenant, "common" | "organizations");
        if !alias && tenant != self.tenant && tenant != "contoso.example" {
            let text = format!("Tenant '{tenant}' not found. Check to make sure you have the correct tenant ID.");
            return Err(Aadsts::new("invalid_tenant", 90002, text));
        }
        match (request.method.as_str(), rest) {
            ("GET", "v2.0/.well-known/openid-configuration") => Ok(self.discovery(tenant, alias)),
            ("GET", "discovery/v2.0/keys") => Ok(self.jwks(alias)),
            ("POST", "oauth2/v2.0/token") => self.token(tenant, alias, request, trace),
            ("POST", "oauth2/v2.0/devicecode") => self.device_code(tenant, request),
            ("GET" | "POST", "oauth2/v2.0/authorize") => self.authorize(tenant, request, trace),
            ("POST", "login") => self.sign_in(tenant, request, trace),
            ("GET" | "POST", "oauth2/deviceauth") => Ok(self.device_page(tenant, request)),
            ("GET", "oauth2/v2.0/logout") => Ok(self.logout(request)),
            _ => Ok(Answer::html(404, "<html><body>Not found</body></html>")),
        }
    }

    fn discovery(&self, tenant: &str, alias: bool) -> Answer {
        let base = format!("{}/{tenant}", self.urls.login);
        let issuer = if alias { format!("{}/{{tenantid}}/v2.0", self.urls.login) } else { self.issuer() };
        let graph_host = self.urls.graph.trim_start_matches("https://");
        Answer::json(
            200,
            json!({
                "token_endpoint": format!("{base}/oauth2/v2.0/token"),
                "token_endpoint_auth_methods_supported": ["client_secret_post", "private_key_jwt", "client_secret_basic"],
                "jwks_uri": format!("{base}/discovery/v2.0/keys"),
                "response_modes_supported": ["query", "fragment", "form_post"],
                "subject_types_supported": ["pairwise"],
                "id_token_signing_alg_values_supported": ["RS256"],
                "response_types_supported": ["code", "id_token", "code id_token", "id_token token"],
                "scopes_supported": ["openid", "profile", "email", "offline_access"],
                "issuer": issuer,
                "request_uri_parameter_supported": false,
                "userinfo_endpoint": format!("{}/oidc/userinfo", self.urls.graph),
                "authorization_endpoint": format!("{base}/oauth2/v2.0/authorize"),
                "device_authorization_endpoint": format!("{base}/oauth2/v2.0/devicecode"),
                "http_logout_supported": true,
                "frontchannel_logout_supported": true,
                "end_session_endpoint": format!("{base}/oauth2/v2.0/logout"),
                "claims_supported": ["sub", "iss", "aud", "exp", "iat", "nonce", "preferred_username", "name", "tid", "ver"],
                "tenant_region_scope": "EU",
                "cloud_instance_name": self.urls.login.trim_start_matches("https://"),
                "cloud_graph_host_name": graph_host,
                "msgraph_host": graph_host,
                "rbac_url": self.urls.abroad,
            }),
        )
    }

    fn instance(&self, request: &Request) -> Answer {
        if request.query("api-version").is_none() || request.query("authorization_endpoint").is_none() {
            return Answer::json(400, json!({ "error": "invalid_request", "error_codes": [900144] }));
        }
        let host = self.urls.login.trim_start_matches("https://");
        Answer::json(
            200,
            json!({
                "tenant_discovery_endpoint": format!("{}/{}/v2.0/.well-known/openid-configuration", self.urls.login, self.tenant),
                "api-version": "1.1",
                "metadata": [{ "preferred_network": host, "preferred_cache": host, "aliases": [host] }],
            }),
        )
    }

    fn jwks(&self, alias: bool) -> Answer {
        let issuer = if alias { format!("{}/{{tenantid}}/v2.0", self.urls.login) } else { self.issuer() };
        Answer::json(200, json!({ "keys": self.entra.keys.iter().map(|k| k.jwk(&issuer)).collect::<Vec<_>>() }))
    }

    /// The scopes of a request: what they are for, which permissions, and the words of OpenID Connect among them.
    fn scopes(&self, text: &str) -> Result<Scopes, Aadsts> {
        let mut scopes = Scopes { resource: None, names: BTreeSet::new(), default: false, oidc: BTreeSet::new() };
        for word in text.split_whitespace() {
            if matches!(word, "openid" | "profile" | "email" | "offline_access") {
                scopes.oidc.insert(word.to_owned());
                continue;
            }
            let (resource, name) = match word.rsplit_once('/') {
                None => (Resource::Graph, word),
                Some((resource, name)) => (self.resource(resource)?, name),
            };
            if scopes.resource.as_ref().is_some_and(|r| *r != resource) {
                let text = "Provided value for the input parameter scope is not valid because it contains more than one resource.";
                return Err(Aadsts::new("invalid_scope", 28000, text));
            }
            if name == ".default" {
                scopes.default = true;
            } else {
                if resource == Resource::Graph && !crate::graph::is_permission(name) {
                    let text = format!("The application asked for scope '{name}' that doesn't exist on the resource.");
                    return Err(Aadsts::new("invalid_client", 650053, text));
                }
                scopes.names.insert(name.to_owned());
            }
            scopes.resource = Some(resource);
        }
        Ok(scopes)
    }

    fn resource(&self, name: &str) -> Result<Resource, Aadsts> {
        if name == self.urls.graph {
            return Ok(Resource::Graph);
        }
        let app = self.entra.apps.values().find(|app| app.id == name || app.identifier_uri.as_deref() == Some(name));
        app.map(|app| Resource::App(app.id.clone())).ok_or_else(|| {
            let text = format!("The resource principal named {name} was not found in the tenant named Contoso.");
            Aadsts::new("invalid_resource", 500011, text)
        })
    }

    /// The permissions that a user's grant to an app covers, of those that were asked for.
    fn consented(&self, app: &App, scopes: &Scopes) -> Result<BTreeSet<String>, Aadsts> {
        match scopes.resource.as_ref().unwrap_or(&Resource::Graph) {
            Resource::Graph => {
                if scopes.default {
                    return Ok(app.delegated.clone());
                }
                match scopes.names.iter().find(|name| !app.delegated.contains(*name)) {
                    Some(missing) => {
                        let text = format!(
                            "The user or administrator has not consented to use the application with ID '{}' for scope '{missing}'.",
                            app.id
                        );
                        Err(Aadsts::new("invalid_grant", 65001, text).sub("consent_required"))
                    }
                    None => Ok(scopes.names.clone()),
                }
            }
            Resource::App(_) => Ok(BTreeSet::from(["access_as_user".to_owned()])),
        }
    }

    /// Whether a user may get tokens at all.
    fn may_sign_in(&self, oid: &str) -> Result<(), Aadsts> {
        match self.entra.users.get(oid) {
            None => Err(Aadsts::new("invalid_grant", 50034, "The user account does not exist in the directory.")),
            Some(user) if user.disabled => Err(Aadsts::new("invalid_grant", 50057, "The user account is disabled.")),
            Some(_) => Ok(()),
        }
    }
}

/// What a `scope` parameter says.
#[derive(Clone, Debug)]
struct Scopes {
    resource: Option<Resource>,
    names: BTreeSet<String>,
    default: bool,
    oidc: BTreeSet<String>,
}

fn audience_name(audience: &Resource) -> &str {
    match audience {
        Resource::Graph => "graph",
        Resource::App(id) => id,
    }
}

/// A subject that differs from app to app and stays the same.
fn pairwise(oid: &str, app: &str) -> String {
    data_encoding::BASE64URL_NOPAD.encode(&Sha256::digest(format!("{oid}/{app}").as_bytes()))
}
