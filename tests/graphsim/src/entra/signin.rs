//! Sign-in by people: the authorize page, the device page, and how a test posts to either.

use std::collections::BTreeSet;

use serde_json::json;

use super::token::SignedIn;
use super::{Aadsts, Claims, Scopes};
use crate::clock::Millis;
use crate::http::{Answer, Request, escape, form, value};
use crate::oracle::What;
use crate::settings::Relaxation;
use crate::things::App;
use crate::world::{Caller, Trace, World};

/// A code lives so long.
const CODE_LIFE: Millis = 600_000;

/// A device code lives so long, and is asked about not more often than this.
const DEVICE_LIFE: Millis = 900_000;
const DEVICE_INTERVAL: Millis = 5_000;

/// Clients wait five seconds by their own clock; so much of it may be lost on the way.
const DEVICE_TOLERANCE: Millis = 500;

/// An authorization code.
#[derive(Clone, Debug)]
pub(super) struct Code {
    pub(super) app: String,
    pub(super) user: String,
    pub(super) redirect: String,
    pub(super) scope: String,
    pub(super) challenge: Option<String>,
    pub(super) nonce: Option<String>,
    pub(super) grant: String,
    pub(super) mfa: bool,
    pub(super) expires_ms: Millis,
    pub(super) used: bool,
}

/// A device code.
#[derive(Clone, Debug)]
pub(super) struct Device {
    user_code: String,
    app: String,
    scope: String,
    expires_ms: Millis,
    polled_ms: Millis,
    state: DeviceState,
}

#[derive(Clone, Debug)]
enum DeviceState {
    Pending,
    Approved { user: String, mfa: bool },
    Declined,
    Used,
}

/// What a sign-in page was opened for.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    app: String,
    redirect: String,
    mode: String,
    scope: String,
    state: Option<String>,
    nonce: Option<String>,
    challenge: Option<String>,
}

impl World {
    pub(super) fn authorize(&mut self, tenant: &str, request: &Request, trace: &Trace) -> Result<Answer, Aadsts> {
        let pairs = if request.method == "POST" { form(&request.body) } else { request.query.clone() };
        let get = |name: &str| value(&pairs, name).map(str::to_owned);
        let page = |code: u32, text: &str| Ok(Answer::html(400, &sign_in_error(code, text)));
        // Nothing goes to a redirect before app and redirect are known to belong together.
        let Some(app) = get("client_id").and_then(|id| self.entra.apps.get(&id).cloned()) else {
            return page(700016, "Application was not found in the directory 'Contoso'.");
        };
        let redirect = get("redirect_uri").unwrap_or_default();
        if !redirect_fits(&app, &redirect) {
            return page(
                50011,
                "The redirect URI specified in the request does not match the redirect URIs configured for the application.",
            );
        }
        let asked = Asked {
            app: app.id.clone(),
            redirect,
            mode: get("response_mode").unwrap_or_else(|| "query".to_owned()),
            scope: get("scope").unwrap_or_default(),
            state: get("state"),
            nonce: get("nonce"),
            challenge: get("code_challenge"),
        };
        if get("response_type").as_deref() != Some("code") {
            return Ok(self.deny(
                &asked,
                trace,
                Aadsts::new("unsupported_response_type", 700054, "response_type must be code."),
            ));
        }
        if !matches!(asked.mode.as_str(), "query" | "fragment" | "form_post") {
            return Ok(self.deny(&asked, trace, Aadsts::new("invalid_request", 90014, "response_mode is not known.")));
        }
        let pkce = asked.challenge.is_some() && get("code_challenge_method").as_deref() == Some("S256");
        if !(pkce || asked.challenge.is_none() && self.relaxed(Relaxation::CodeWithoutPkce)) {
            let text = "Proof Key for Code Exchange by S256 is required for the authorization code.";
            return Ok(self.deny(&asked, trace, Aadsts::new("invalid_request", 9002325, text)));
        }
        let checked: Result<Scopes, Aadsts> = self.scopes(&asked.scope);
        if let Err(refusal) = checked.and_then(|scopes| self.consented(&app, &scopes)) {
            return Ok(self.deny(&asked, trace, refusal));
        }
        let prompt = get("prompt").unwrap_or_default();
        if let Some(user) = self.session(request)
            && !matches!(prompt.as_str(), "login" | "select_account" | "consent")
            && self.may_sign_in(&user).is_ok()
            && !self.entra.users[&user].mfa
        {
            return Ok(self.grant_code(&asked, &user, false));
        }
        if prompt == "none" {
            let text = "Session information is not sufficient for single-sign-on.";
            return Ok(self.deny(&asked, trace, Aadsts::new("login_required", 50058, text)));
        }
        let ctx = self.secret("");
        self.entra.asked.insert(ctx.clone(), asked);
        Ok(Answer::html(200, &self.sign_in_page(tenant, &app, &ctx, get("login_hint").as_deref().unwrap_or(""), "")))
    }

    pub(super) fn sign_in(&mut self, tenant: &str, request: &Request, _: &Trace) -> Result<Answer, Aadsts> {
        let pairs = form(&request.body);
        let ctx = value(&pairs, "ctx").unwrap_or("");
        let Some(asked) = self.entra.asked.get(ctx).cloned() else {
            return Ok(Answer::html(400, &sign_in_error(90013, "The sign-in was not begun here.")));
        };
        let app = self.entra.apps[&asked.app].clone();
        match self.check_password(&pairs) {
            Ok((user, mfa)) => {
                self.entra.asked.remove(ctx);
                let session = self.secret("");
                self.entra.sessions.insert(session.clone(), user.clone());
                let cookie = format!("ESTSAUTH={session}; Path=/; Secure; HttpOnly; SameSite=None");
                Ok(self.grant_code(&asked, &user, mfa).with("set-cookie", cookie))
            }
            Err(refusal) => {
                let text = format!("AADSTS{}: {}", refusal.code, refusal.text);
                let login = value(&pairs, "login").unwrap_or("");
                Ok(Answer::html(200, &self.sign_in_page(tenant, &app, ctx, login, &text)))
            }
        }
    }

    /// Whose name and password these are, and whether a second factor came with them.
    fn check_password(&self, pairs: &[(String, String)]) -> Result<(String, bool), Aadsts> {
        let (name, password) = (value(pairs, "login").unwrap_or(""), value(pairs, "passwd").unwrap_or(""));
        let user = self.entra.users.values().find(|u| u.user_principal_name.eq_ignore_ascii_case(name));
        let user = user
            .ok_or_else(|| Aadsts::new("invalid_grant", 50034, "The user account does not exist in the directory."))?;
        if user.password.is_empty() || user.password != password {
            let text = "Error validating credentials due to invalid username or password.";
            return Err(Aadsts::new("invalid_grant", 50126, text));
        }
        self.may_sign_in(&user.id)?;
        let mfa = value(pairs, "otc") == Some("123456");
        if user.mfa && !mfa {
            return Err(Aadsts::new("interaction_required", 50076, "A code is required to sign in: enter it below."));
        }
        Ok((user.id.clone(), mfa))
    }

    fn session(&self, request: &Request) -> Option<String> {
        let cookies = request.header("cookie")?;
        let session = cookies.split(';').find_map(|c| c.trim().strip_prefix("ESTSAUTH="))?;
        self.entra.sessions.get(session).cloned()
    }

    fn grant_code(&mut self, asked: &Asked, user: &str, mfa: bool) -> Answer {
        let (code, grant, session) = (self.secret("1."), self.guid(), self.guid());
        self.entra.codes.insert(
            code.clone(),
            Code {
                app: asked.app.clone(),
                user: user.to_owned(),
                redirect: asked.redirect.clone(),
                scope: asked.scope.clone(),
                challenge: asked.challenge.clone(),
                nonce: asked.nonce.clone(),
                grant,
                mfa,
                expires_ms: self.now() + CODE_LIFE,
                used: false,
            },
        );
        let caller = Caller { app: asked.app.clone(), user: Some(user.to_owned()), permissions: BTreeSet::new() };
        self.commit(&caller, &Trace::default(), What::SignedIn, "", "", json!({}));
        respond(asked, &[("code", &code), ("session_state", &session)])
    }

    fn deny(&mut self, asked: &Asked, trace: &Trace, refusal: Aadsts) -> Answer {
        let (description, _) = refusal.description(self, trace);
        let error = if refusal.code == 65001 { "consent_required" } else { refusal.error };
        respond(asked, &[("error", error), ("error_description", &description)])
    }

    fn sign_in_page(&self, tenant: &str, app: &App, ctx: &str, login: &str, error: &str) -> String {
        format!(
            "<!doctype html><html lang=\"en\"><head><title>Sign in to your account</title></head><body>\
             <h1>Sign in</h1><p>to continue to {}</p><p id=\"error\">{}</p>\
             <form method=\"post\" action=\"{}/{tenant}/login\"><input type=\"hidden\" name=\"ctx\" value=\"{ctx}\">\
             <input name=\"login\" autocomplete=\"username\" value=\"{}\">\
             <input name=\"passwd\" type=\"password\" autocomplete=\"current-password\">\
             <input name=\"otc\" placeholder=\"Code, if asked for\"><button id=\"idSIButton9\">Sign in</button></form></body></html>",
            escape(&app.name),
            escape(error),
            self.urls.login,
            escape(login),
        )
    }

    pub(super) fn logout(&mut self, request: &Request) -> Answer {
        let user = self.session(request);
        self.entra.sessions.retain(|_, of| Some(&*of) != user.as_ref());
        match request.query("post_logout_redirect_uri") {
            Some(to) if self.entra.apps.values().any(|app| redirect_fits(app, to)) => Answer::redirect(to),
            _ => Answer::html(200, "<html><body>You signed out of your account</body></html>"),
        }
    }

    pub(super) fn device_code(&mut self, tenant: &str, request: &Request) -> Result<Answer, Aadsts> {
        let form = form(&request.body);
        let id = value(&form, "client_id").unwrap_or("");
        let app = self.entra.apps.get(id).cloned().ok_or_else(|| {
            Aadsts::new("unauthorized_client", 700016, format!("Application with identifier '{id}' was not found."))
        })?;
        let scope = value(&form, "scope").unwrap_or("").to_owned();
        let scopes = self.scopes(&scope)?;
        self.consented(&app, &scopes)?;
        let (device, user_code) = (self.secret(""), self.secret("")[..9].to_uppercase().replace(['-', '_'], "X"));
        let now = self.now();
        self.entra.devices.insert(
            device.clone(),
            Device {
                user_code: user_code.clone(),
                app: app.id,
                scope,
                expires_ms: now + DEVICE_LIFE,
                polled_ms: 0,
                state: DeviceState::Pending,
            },
        );
        let uri = format!("{}/{tenant}/oauth2/deviceauth", self.urls.login);
        let message = format!(
            "To sign in, use a web browser to open the page {uri} and enter the code {user_code} to authenticate."
        );
        Ok(Answer::json(
            200,
            json!({
                "user_code": user_code, "device_code": device, "verification_uri": uri, "expires_in": DEVICE_LIFE / 1000,
                "interval": DEVICE_INTERVAL / 1000, "message": message,
            }),
        ))
    }

    pub(super) fn device_page(&mut self, tenant: &str, request: &Request) -> Answer {
        let mut error = String::new();
        if request.method == "POST" {
            let pairs = form(&request.body);
            let declined = value(&pairs, "decline").is_some();
            match self.check_password(&pairs) {
                Ok((user, mfa)) => {
                    match self.answer_device(value(&pairs, "otc_device").unwrap_or(""), &user, mfa, declined) {
                        Ok(()) => {
                            return Answer::html(
                                200,
                                "<html><body>You have signed in. You may close this window.</body></html>",
                            );
                        }
                        Err(text) => error = text.to_owned(),
                    }
                }
                Err(refusal) => error = format!("AADSTS{}: {}", refusal.code, refusal.text),
            }
        }
        Answer::html(
            200,
            &format!(
                "<!doctype html><html lang=\"en\"><head><title>Sign in to your account</title></head><body><p id=\"error\">{}</p>\
                 <form method=\"post\" action=\"{}/{tenant}/oauth2/deviceauth\"><input name=\"otc_device\" placeholder=\"Code\">\
                 <input name=\"login\"><input name=\"passwd\" type=\"password\"><input name=\"otc\">\
                 <button>Continue</button></form></body></html>",
                escape(&error),
                self.urls.login
            ),
        )
    }

    /// A user enters the code of a device.
    pub(crate) fn answer_device(
        &mut self,
        user_code: &str,
        user: &str,
        mfa: bool,
        declined: bool,
    ) -> Result<(), &'static str> {
        let now = self.now();
        let device = self.entra.devices.values_mut().find(|d| d.user_code == user_code && d.expires_ms > now);
        let device = device.ok_or("That code did not work. Check the code and try again.")?;
        if !matches!(device.state, DeviceState::Pending) {
            return Err("That code was used already.");
        }
        device.state =
            if declined { DeviceState::Declined } else { DeviceState::Approved { user: user.to_owned(), mfa } };
        Ok(())
    }

    pub(super) fn poll_device(
        &mut self,
        app: &App,
        form: &[(String, String)],
        claims: Claims,
        _: &Trace,
    ) -> Result<Answer, Aadsts> {
        let now = self.now();
        let given = value(form, "device_code").unwrap_or("");
        let Some(device) = self.entra.devices.get_mut(given).filter(|d| d.app == app.id) else {
            return Err(Aadsts::new("bad_verification_code", 70018, "The device code is not known."));
        };
        if device.expires_ms <= now {
            return Err(Aadsts::new("expired_token", 70019, "The device code has expired."));
        }
        let early = device.polled_ms != 0 && now + DEVICE_TOLERANCE < device.polled_ms + DEVICE_INTERVAL;
        device.polled_ms = now;
        if early {
            return Err(Aadsts::new("slow_down", 70016, "The client polls too often."));
        }
        match device.state.clone() {
            DeviceState::Pending => Err(Aadsts::new(
                "authorization_pending",
                70016,
                "OAuth 2.0 device flow error. Authorization is pending. Continue polling.",
            )),
            DeviceState::Declined => Err(Aadsts::new("authorization_declined", 70020, "The user declined.")),
            DeviceState::Used => Err(Aadsts::new("bad_verification_code", 90120, "The code was used already.")),
            DeviceState::Approved { user, mfa } => {
                device.state = DeviceState::Used;
                let scope = device.scope.clone();
                let caller = Caller { app: app.id.clone(), user: Some(user.clone()), permissions: BTreeSet::new() };
                self.commit(&caller, &Trace::default(), What::SignedIn, "", "", json!({ "device": true }));
                let signed_in = SignedIn { user, grant: self.guid(), mfa, nonce: None };
                self.user_tokens(app, &signed_in, &scope, &scope, claims, None)
            }
        }
    }
}

/// Redirects are compared exactly; at `http://localhost` of a native client any port is right.
fn redirect_fits(app: &App, redirect: &str) -> bool {
    if app.redirects.contains(redirect) {
        return true;
    }
    let portless = |text: &str| {
        let rest = text.strip_prefix("http://localhost")?;
        let path = rest.find('/').map_or("", |at| &rest[at..]);
        let port = rest.strip_prefix(':').map(|p| p.trim_end_matches(path));
        (rest == path || port.is_some_and(|p| p.parse::<u16>().is_ok())).then(|| path.trim_end_matches('/').to_owned())
    };
    portless(redirect).is_some_and(|path| app.redirects.iter().any(|known| portless(known).is_some_and(|p| p == path)))
}

/// Back to the client, in the way it asked for.
fn respond(asked: &Asked, pairs: &[(&str, &str)]) -> Answer {
    let state = asked.state.as_deref().map(|state| ("state", state));
    let pairs: Vec<(&str, &str)> = pairs.iter().copied().chain(state).collect();
    if asked.mode == "form_post" {
        let inputs: String = pairs
            .iter()
            .map(|(n, v)| format!("<input type=\"hidden\" name=\"{n}\" value=\"{}\">", escape(v)))
            .collect();
        return Answer::html(
            200,
            &format!(
                "<html><head><title>Working...</title></head><body><form method=\"POST\" name=\"hiddenform\" action=\"{}\">{inputs}\
                 <noscript><button>Continue</button></noscript></form><script>document.forms[0].submit();</script></body></html>",
                escape(&asked.redirect)
            ),
        );
    }
    let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
    let mark = match asked.mode.as_str() {
        "fragment" => '#',
        _ if asked.redirect.contains('?') => '&',
        _ => '?',
    };
    Answer::redirect(&format!("{}{mark}{query}", asked.redirect))
}

fn sign_in_error(code: u32, text: &str) -> String {
    format!(
        "<!doctype html><html><head><title>Sign in to your account</title></head><body>\
         <h1>Sorry, but we're having trouble signing you in.</h1><p id=\"error\">AADSTS{code}: {}</p></body></html>",
        escape(text)
    )
}
