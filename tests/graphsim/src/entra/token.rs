//! The token endpoint: five grants.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{Aadsts, Claims, Kind, REFRESH_IDLE_MAX, Resource, Scopes};
use crate::clock::Millis;
use crate::http::{Answer, Request, form, value};
use crate::settings::Relaxation;
use crate::things::App;
use crate::world::{Trace, World};

/// A refresh token.
#[derive(Clone, Debug)]
pub(super) struct Refresh {
    pub(super) app: String,
    pub(super) user: String,
    /// The sign-in that it goes back to; a reused code ends all of it.
    pub(super) grant: String,
    pub(super) issued_ms: Millis,
    pub(super) used_ms: Millis,
    /// The sign-in included a second factor.
    pub(super) mfa: bool,
    /// The token that it was handed out for: once its successor is used, the old one is void.
    pub(super) predecessor: Option<String>,
    pub(super) void: bool,
}

/// A user's sign-in, on which tokens are issued.
pub(super) struct SignedIn {
    pub(super) user: String,
    pub(super) grant: String,
    pub(super) mfa: bool,
    pub(super) nonce: Option<String>,
}

impl World {
    pub(super) fn token(
        &mut self,
        tenant: &str,
        alias: bool,
        request: &Request,
        trace: &Trace,
    ) -> Result<Answer, Aadsts> {
        if request.media() != "application/x-www-form-urlencoded" {
            return Err(Aadsts::new("invalid_request", 900144, "The request body must be a form."));
        }
        let form = form(&request.body);
        let grant = value(&form, "grant_type").unwrap_or("").to_owned();
        let app = self.client(tenant, request, &form)?;
        let devices = matches!(grant.as_str(), "device_code" | "urn:ietf:params:oauth:grant-type:device_code");
        if !devices {
            self.refuse_loops(&app, &grant, &form)?;
        }
        let claims = claims_of(&form)?;
        match grant.as_str() {
            "client_credentials" => self.client_credentials(alias, &app, &form, claims),
            "authorization_code" => self.redeem(&app, &form, claims),
            "refresh_token" => self.refresh(&app, &form, claims),
            // MSAL for Node sends the short name.
            _ if devices => self.poll_device(&app, &form, claims, trace),
            "urn:ietf:params:oauth:grant-type:jwt-bearer" => self.on_behalf_of(alias, &app, &form, claims),
            other => {
                let text = format!("The app requested an unsupported grant type '{other}'.");
                Err(Aadsts::new("unsupported_grant_type", 70003, text))
            }
        }
    }

    /// Who asks for the same again and again has a bug.
    fn refuse_loops(&mut self, app: &App, grant: &str, form: &[(String, String)]) -> Result<(), Aadsts> {
        let who = value(form, "assertion").or(value(form, "refresh_token")).or(value(form, "code")).unwrap_or("");
        let what = format!("{} {grant} {} {:x?}", app.id, value(form, "scope").unwrap_or(""), Sha256::digest(who));
        let (now, max) = (self.now(), self.settings.limits.equal_token_requests);
        let times = self.entra.equal.entry(what).or_default();
        while times.front().is_some_and(|at| *at + 300_000 < now) {
            times.pop_front();
        }
        times.push_back(now);
        if times.len() > max {
            let mut refusal = Aadsts::new(
                "invalid_grant",
                50196,
                "The server terminated an operation because it encountered a client request loop.",
            );
            refusal.status = 429;
            refusal.retry_after_s = Some(300);
            return Err(refusal);
        }
        Ok(())
    }

    fn client_credentials(
        &mut self,
        alias: bool,
        app: &App,
        form: &[(String, String)],
        claims: Claims,
    ) -> Result<Answer, Aadsts> {
        if app.public {
            return Err(Aadsts::new("unauthorized_client", 700016, "A public client cannot ask for itself."));
        }
        if alias {
            let text = format!(
                "Application '{}' is not configured as a multi-tenant application. Usage of the /common endpoint is not supported for such applications.",
                app.id
            );
            return Err(Aadsts::new("invalid_request", 50194, text));
        }
        let text = value(form, "scope").unwrap_or("");
        let scopes = self.scopes(text)?;
        let Scopes { resource: Some(resource), default: true, .. } = &scopes else {
            let text = format!(
                "The provided value for scope {text} is not valid. Client credential flows must have a scope value with /.default suffixed to the resource identifier."
            );
            return Err(Aadsts::new("invalid_scope", 1002012, text));
        };
        if !scopes.names.is_empty() || !scopes.oidc.is_empty() {
            return Err(Aadsts::new("invalid_scope", 1002012, "Only /.default is valid here."));
        }
        let roles = if *resource == Resource::Graph { app.application.clone() } else { BTreeSet::new() };
        let (token, life_s) = self.issue(&app.id, None, resource, roles, claims);
        let mut body =
            json!({ "token_type": "Bearer", "expires_in": life_s, "ext_expires_in": life_s, "access_token": token });
        if life_s > 7200 {
            body["refresh_in"] = json!(life_s / 2);
        }
        Ok(Answer::json(200, body))
    }

    fn redeem(&mut self, app: &App, form: &[(String, String)], claims: Claims) -> Result<Answer, Aadsts> {
        let given = value(form, "code").unwrap_or("");
        let Some(code) = self.entra.codes.get_mut(given) else {
            return Err(Aadsts::new("invalid_grant", 9002313, "Invalid request. Request is malformed or invalid."));
        };
        if code.used {
            let grant = code.grant.clone();
            for refresh in self.entra.refresh.values_mut().filter(|r| r.grant == grant) {
                refresh.void = true;
            }
            let text = "OAuth2 Authorization code was already redeemed, please retry with a new valid code or use an existing refresh token.";
            return Err(Aadsts::new("invalid_grant", 54005, text));
        }
        code.used = true;
        let code = code.clone();
        if code.expires_ms <= self.now() {
            return Err(Aadsts::new(
                "invalid_grant",
                70008,
                "The provided authorization code or refresh token has expired.",
            ));
        }
        if code.app != app.id {
            return Err(Aadsts::new(
                "invalid_grant",
                700005,
                "Provided authorization code is intended to use against another client.",
            ));
        }
        if value(form, "redirect_uri") != Some(&code.redirect) {
            return Err(Aadsts::new(
                "invalid_grant",
                500112,
                "The reply address does not match the reply address provided when requesting the authorization code.",
            ));
        }
        match (&code.challenge, value(form, "code_verifier")) {
            (Some(challenge), Some(verifier)) => {
                let hashed = data_encoding::BASE64URL_NOPAD.encode(&Sha256::digest(verifier.as_bytes()));
                if *challenge != hashed || !(43..=128).contains(&verifier.len()) {
                    let text = "The code_verifier does not match the code_challenge supplied in the authorization request for PKCE.";
                    return Err(Aadsts::new("invalid_grant", 501481, text));
                }
            }
            (None, None) if self.relaxed(Relaxation::CodeWithoutPkce) => {}
            _ => {
                let text = "The code_verifier and the code_challenge do not belong together: one of them is missing.";
                return Err(Aadsts::new("invalid_grant", 501481, text));
            }
        }
        let text = value(form, "scope").map_or_else(|| code.scope.clone(), str::to_owned);
        let signed_in = SignedIn { user: code.user, grant: code.grant, mfa: code.mfa, nonce: code.nonce };
        self.user_tokens(app, &signed_in, &text, &code.scope, claims, None)
    }

    fn refresh(&mut self, app: &App, form: &[(String, String)], claims: Claims) -> Result<Answer, Aadsts> {
        let given = value(form, "refresh_token").unwrap_or("").to_owned();
        let now = self.now();
        let Some(refresh) = self.entra.refresh.get(&given).cloned().filter(|r| r.app == app.id) else {
            return Err(Aadsts::new("invalid_grant", 9002313, "The refresh token is malformed or not this client's."));
        };
        let bad = |code, text: &str| Err(Aadsts::new("invalid_grant", code, text).sub("bad_token"));
        if refresh.void || self.entra.revoked_at.get(&refresh.user).is_some_and(|at| refresh.issued_ms <= *at) {
            return bad(50173, "The provided grant has expired due to it being revoked, a fresh auth token is needed.");
        }
        if refresh.used_ms + REFRESH_IDLE_MAX < now {
            return bad(700082, "The refresh token has expired due to inactivity.");
        }
        self.may_sign_in(&refresh.user)?;
        if let Some(old) = refresh.predecessor.as_ref().and_then(|p| self.entra.refresh.get_mut(p)) {
            old.void = true;
        }
        if let Some(kept) = self.entra.refresh.get_mut(&given) {
            kept.used_ms = now;
        }
        let text = value(form, "scope").unwrap_or(".default").to_owned();
        let text = if text == ".default" { format!("{}/.default", self.urls.graph) } else { text };
        let signed_in = SignedIn { user: refresh.user, grant: refresh.grant, mfa: refresh.mfa, nonce: None };
        let asked = format!("{text} offline_access");
        self.user_tokens(app, &signed_in, &asked, &asked, claims, Some(given))
    }

    fn on_behalf_of(
        &mut self,
        alias: bool,
        app: &App,
        form: &[(String, String)],
        claims: Claims,
    ) -> Result<Answer, Aadsts> {
        if app.public || alias || value(form, "requested_token_use") != Some("on_behalf_of") {
            return Err(Aadsts::new(
                "invalid_request",
                7000114,
                "Application is not allowed to make application on-behalf-of calls.",
            ));
        }
        let assertion = value(form, "assertion").unwrap_or("");
        let key: [u8; 32] = Sha256::digest(assertion.as_bytes()).into();
        let Some(issued) = self.entra.issued.get(&key).cloned() else {
            return Err(Aadsts::new("invalid_grant", 50013, "Assertion failed signature validation."));
        };
        if issued.kind == Kind::Id {
            return Err(Aadsts::new(
                "invalid_request",
                240002,
                "Input id_token cannot be used as 'urn:ietf:params:oauth:grant-type:jwt-bearer' grant.",
            ));
        }
        if issued.audience != Resource::App(app.id.clone()) {
            return Err(Aadsts::new(
                "invalid_grant",
                50013,
                "Assertion audience does not match the Client app presenting the assertion.",
            ));
        }
        let Some(user) = issued.caller.user else {
            return Err(Aadsts::new("invalid_grant", 50013, "An app-only token cannot be used on behalf of a user."));
        };
        if issued.expires_ms <= self.now() {
            return Err(Aadsts::new("invalid_grant", 500133, "Assertion is not within its valid time range."));
        }
        self.may_sign_in(&user)?;
        let text = value(form, "scope").unwrap_or("").to_owned();
        let grant = self.guid();
        // A tab's sign-in was the host's; whether that included a second factor, Entra asks for itself.
        let signed_in = SignedIn { user, grant, mfa: false, nonce: None };
        self.user_tokens(app, &signed_in, &text, &text, claims, None)
    }

    /// Tokens for a user. `allowed` is what the sign-in asked for: it decides on a refresh token.
    pub(super) fn user_tokens(
        &mut self,
        app: &App,
        signed_in: &SignedIn,
        asked: &str,
        allowed: &str,
        claims: Claims,
        predecessor: Option<String>,
    ) -> Result<Answer, Aadsts> {
        self.may_sign_in(&signed_in.user)?;
        if self.entra.users[&signed_in.user].mfa && !signed_in.mfa {
            let text = "Due to a configuration change made by your administrator, or because you moved to a new location, you must use multi-factor authentication to access the resource.";
            let mut refusal = Aadsts::new("interaction_required", 50076, text).sub("basic_action");
            refusal.claims =
                Some(json!({ "access_token": { "capolids": { "essential": true, "values": [signed_in.grant] } } }));
            return Err(refusal);
        }
        let scopes = self.scopes(asked)?;
        let permissions = self.consented(app, &scopes)?;
        let resource = scopes.resource.clone().unwrap_or(Resource::Graph);
        let words: Vec<String> = match &resource {
            Resource::Graph => permissions.iter().map(|name| format!("{}/{name}", self.urls.graph)).collect(),
            Resource::App(_) => permissions.iter().cloned().collect(),
        };
        let (token, life_s) = self.issue(&app.id, Some(&signed_in.user), &resource, permissions, claims);
        let mut body = json!({
            "token_type": "Bearer", "scope": words.join(" "), "expires_in": life_s, "ext_expires_in": life_s,
            "access_token": token,
        });
        let allowed = self.scopes(allowed)?;
        if scopes.oidc.contains("openid") || allowed.oidc.contains("openid") {
            body["id_token"] = json!(self.id_token(&app.id, &signed_in.user, signed_in.nonce.as_deref()));
            body["client_info"] = json!(
                data_encoding::BASE64URL_NOPAD
                    .encode(json!({ "uid": signed_in.user, "utid": self.tenant }).to_string().as_bytes())
            );
        }
        if allowed.oidc.contains("offline_access") {
            let refresh = self.secret("1.");
            let now = self.now();
            self.entra.refresh.insert(
                refresh.clone(),
                Refresh {
                    app: app.id.clone(),
                    user: signed_in.user.clone(),
                    grant: signed_in.grant.clone(),
                    issued_ms: now,
                    used_ms: now,
                    mfa: signed_in.mfa,
                    predecessor,
                    void: false,
                },
            );
            body["refresh_token"] = json!(refresh);
        }
        Ok(Answer::json(200, body))
    }
}

/// What the field `claims` says.
fn claims_of(form: &[(String, String)]) -> Result<Claims, Aadsts> {
    let Some(text) = value(form, "claims") else { return Ok(Claims::default()) };
    let claims: Value = serde_json::from_str(text)
        .map_err(|_| Aadsts::new("invalid_request", 9002313, "The claims parameter is no JSON."))?;
    let token = &claims["access_token"];
    Ok(Claims {
        challenges: token["xms_cc"]["values"].as_array().is_some_and(|v| v.iter().any(|c| c == "cp1")),
        not_before_s: token["nbf"]["value"].as_str().and_then(|nbf| nbf.parse().ok()).unwrap_or(0),
    })
}
