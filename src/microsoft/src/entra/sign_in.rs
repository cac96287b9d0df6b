//! People sign in: by a code that they enter elsewhere, in a browser on the same machine, or through the Teams tab.

use std::time::Duration;

use data_encoding::{BASE64, BASE64URL_NOPAD};
use http::{HeaderValue, StatusCode};
use model::{Precedence, Sensitive};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use tracing::info;
use url::Url;
use uuid::Uuid;

use super::verify::{Expected, Identity, VerifyError};
use super::{Advice, Entra, Granted, NoToken, Proof, SignedIn, Who, challenge, refused_here};

/// A person waits in front of it.
const PRECEDENCE: Precedence = Precedence::Immediate;

/// Added to the interval when Entra asks to slow down (RFC 8628 section 3.5).
const SLOW_DOWN: Duration = Duration::from_secs(5);

/// A code that a person enters on any machine.
#[derive(Clone, Debug)]
pub struct DeviceCode {
    /// What to enter.
    pub user_code: String,
    /// Where.
    pub verification_uri: String,
    /// Entra's words for it.
    pub message: String,
    /// For how long the code is good.
    pub expires_in: Duration,
    interval: Duration,
    /// By the timer.
    ends: Duration,
    device_code: Sensitive<String>,
}

#[derive(Deserialize)]
struct DeviceAnswer {
    user_code: String,
    verification_uri: String,
    device_code: String,
    expires_in: u64,
    interval: Option<u64>,
    #[serde(default)]
    message: String,
}

/// A sign-in that a browser carries out (RFC 8252 with RFC 7636).
#[derive(Clone, Debug)]
pub struct BrowserSignIn {
    /// Where the browser begins.
    pub url: Url,
    redirect: String,
    state: String,
    nonce: String,
    verifier: Sensitive<String>,
}

impl Entra {
    /// Asks for a code that somebody enters elsewhere.
    ///
    /// # Errors
    /// When Entra is not reachable or refuses; some tenants forbid this way by Conditional Access.
    pub async fn device_code(&self) -> Result<DeviceCode, NoToken> {
        let url = self.endpoints(PRECEDENCE).await?.device;
        let form = [("client_id", self.client()), ("scope", self.delegated_scope())];
        let came = self.post(url, &form, PRECEDENCE).await?;
        if came.status != StatusCode::OK {
            return Err(self.refusal(&came));
        }
        let broken = |_| NoToken::Broken("no device code in it".to_owned());
        let answer: DeviceAnswer = serde_json::from_slice(&came.body).map_err(broken)?;
        let expires_in = Duration::from_secs(answer.expires_in.min(CODE_SECONDS_MAX));
        Ok(DeviceCode {
            user_code: answer.user_code,
            verification_uri: answer.verification_uri,
            message: answer.message,
            expires_in,
            ends: self.0.environment.timer.now() + expires_in,
            interval: Duration::from_secs(answer.interval.unwrap_or(5).clamp(1, 60)),
            device_code: Sensitive(answer.device_code),
        })
    }

    /// Waits until somebody has entered the code, and keeps what they signed in with. Cancel-safe: the code stays good.
    ///
    /// # Errors
    /// When the code expires or they decline.
    pub async fn await_device(&self, code: &DeviceCode) -> Result<SignedIn, NoToken> {
        let timer = &self.0.environment.timer;
        let mut interval = code.interval;
        let mut proof = Proof::None;
        loop {
            timer.until(timer.now() + interval).await;
            if timer.now() >= code.ends {
                return Err(refused_here(
                    Advice::AskAPerson,
                    "expired_token",
                    "nobody entered the code in time; begin again",
                ));
            }
            let form = vec![
                ("grant_type", "urn:ietf:params:oauth:grant-type:device_code".to_owned()),
                ("device_code", code.device_code.0.clone()),
                ("claims", challenge::merged(None)),
            ];
            match self.grant_to_person(form, &mut proof).await {
                Ok(granted) => return self.welcome(granted, None, proof).await,
                Err(NoToken::Refused(refusal)) if refusal.error == "authorization_pending" => {}
                Err(NoToken::Refused(refusal)) if refusal.error == "slow_down" => interval += SLOW_DOWN,
                // The link may come back before the code ends.
                Err(NoToken::Held(_)) => {}
                Err(NoToken::Refused(refusal)) if refusal.advice == Advice::Retry => interval += SLOW_DOWN,
                Err(other) => return Err(other),
            }
        }
    }

    /// Begins a sign-in in a browser that comes back to `redirect`, such as `http://localhost:1234`: the registration names it without
    /// port, and compares the rest letter by letter.
    ///
    /// # Errors
    /// When Entra is not reachable.
    pub async fn begin_browser(&self, redirect: &str) -> Result<BrowserSignIn, NoToken> {
        let mut url = self.endpoints(PRECEDENCE).await?.authorize;
        let (state, nonce, verifier) = (self.unguessable(), self.unguessable(), self.unguessable());
        url.query_pairs_mut()
            .append_pair("client_id", &self.client())
            .append_pair("response_type", "code")
            .append_pair("response_mode", "query")
            .append_pair("redirect_uri", redirect)
            .append_pair("scope", &self.delegated_scope())
            .append_pair("state", &state)
            .append_pair("nonce", &nonce)
            .append_pair("code_challenge", &BASE64URL_NOPAD.encode(&Sha256::digest(verifier.as_bytes())))
            .append_pair("code_challenge_method", "S256")
            .append_pair("prompt", "select_account");
        Ok(BrowserSignIn { url, redirect: redirect.to_owned(), state, nonce, verifier: Sensitive(verifier) })
    }

    /// Ends a sign-in with what the browser came back with: the address that it asked for at `redirect`.
    ///
    /// # Errors
    /// When it is not the answer to this sign-in, or the person declined.
    pub async fn finish_browser(&self, begun: &BrowserSignIn, came_back: &str) -> Result<SignedIn, NoToken> {
        let other = |_| refused_here(Advice::AskAPerson, "no_answer", "what came back is no address; begin again");
        let came_back: Url = came_back.parse().map_err(other)?;
        let field =
            |name: &str| came_back.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned());
        if field("state").as_deref() != Some(begun.state.as_str()) {
            return Err(refused_here(
                Advice::AskAPerson,
                "state_mismatch",
                "the answer is to another sign-in; begin again",
            ));
        }
        if let Some(error) = field("error") {
            let description = field("error_description").unwrap_or_default();
            let body = super::ErrorBody { error, error_description: description, ..super::ErrorBody::default() };
            return Err(NoToken::Refused(Box::new(body.judge(400, None, None))));
        }
        let Some(code) = field("code") else {
            return Err(refused_here(
                Advice::AskAPerson,
                "no_code",
                "the browser came back without a code; begin again",
            ));
        };
        let form = vec![
            ("grant_type", "authorization_code".to_owned()),
            ("code", code),
            ("redirect_uri", begun.redirect.clone()),
            ("code_verifier", begun.verifier.0.clone()),
            ("scope", self.delegated_scope()),
            ("claims", challenge::merged(None)),
        ];
        let mut proof = Proof::None;
        let granted = self.grant_to_person(form, &mut proof).await?;
        self.welcome(granted, Some(begun.nonce.clone()), proof).await
    }

    /// Exchanges the token that the Teams tab shows for one that acts for its user at Graph, and keeps what renews it.
    /// `identity`: what [`Entra::verify`] found in `assertion`.
    ///
    /// # Errors
    /// When Entra is away or refuses. With `claims` in the refusal the tab has to ask its user: answer it with
    /// [`insufficient_claims`].
    pub async fn on_behalf_of(&self, identity: &Identity, assertion: &str) -> Result<SignedIn, NoToken> {
        if identity.tenant != self.0.settings.tenant {
            return Err(refused_here(
                Advice::FixConfiguration,
                "other_tenant",
                "only people of microsoft.tenant can be acted for",
            ));
        }
        let form = vec![
            ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer".to_owned()),
            ("assertion", assertion.to_owned()),
            ("requested_token_use", "on_behalf_of".to_owned()),
            ("scope", format!("{} offline_access", self.0.settings.hosts.default_scope())),
            ("claims", challenge::merged(None)),
        ];
        let granted = self.grant(form, Proof::Credential, PRECEDENCE).await?;
        self.keep(granted, identity, Proof::Credential).await
    }

    /// Asks as a public client first, and with proof where the registration does not allow that. Entra tells which before it
    /// looks at the code.
    async fn grant_to_person(&self, form: Vec<(&'static str, String)>, proof: &mut Proof) -> Result<Granted, NoToken> {
        match self.grant(form.clone(), *proof, PRECEDENCE).await {
            Err(NoToken::Refused(refusal)) if refusal.code == Some(PROOF_WANTED) && *proof == Proof::None => {
                *proof = Proof::Credential;
                self.grant(form, *proof, PRECEDENCE).await
            }
            other => other,
        }
    }

    /// Who signed in? Keeps what renews their sign-in.
    async fn welcome(&self, granted: Granted, nonce: Option<String>, proof: Proof) -> Result<SignedIn, NoToken> {
        let Some(token) = &granted.id_token else {
            return Err(NoToken::Broken("no id token in it".to_owned()));
        };
        let tenants = vec![self.0.settings.tenant];
        let expected = Expected { audiences: vec![self.client()], tenants, nonce, ..Expected::default() };
        let identity = self.verify_given(token, &expected).await.map_err(|e| match e {
            VerifyError::Invalid(why) => NoToken::Broken(format!("the id token is not accepted: {why}")),
            VerifyError::NoKeys(why) => NoToken::Broken(format!("the id token cannot be checked: {why}")),
        })?;
        self.keep(granted, &identity, proof).await
    }

    async fn keep(&self, granted: Granted, identity: &Identity, proof: Proof) -> Result<SignedIn, NoToken> {
        let Some(refresh) = granted.refresh_token else {
            let text = "no refresh token was given; consent to offline_access in the registration";
            return Err(refused_here(Advice::AskAPerson, "no_refresh_token", text));
        };
        let oid = identity.oid.as_hyphenated().to_string();
        let signed_in = SignedIn {
            oid: oid.clone(),
            username: identity.username.clone().unwrap_or_default(),
            renewed: self.0.environment.clock.now(),
            refresh_token: Sensitive(refresh),
            public: proof == Proof::None,
        };
        let failed = |e| NoToken::Broken(format!("the sign-in could not be kept: {e}; sign in again"));
        self.0.book.put(&signed_in).map_err(failed)?;
        // What was refused for want of a sign-in may be asked for again.
        self.slots().remove(&Who::person(&oid));
        info!("somebody signed in to Microsoft 365 at this node");
        Ok(signed_in)
    }

    /// 43 characters that nobody can guess: also the length that RFC 7636 asks of a verifier.
    fn unguessable(&self) -> String {
        let mut bytes = [0; 32];
        (self.0.environment.random)(&mut bytes);
        BASE64URL_NOPAD.encode(&bytes)
    }
}

/// "The request body must contain client_assertion or client_secret".
const PROOF_WANTED: u32 = 7000218;

/// Longest life of a device code that is waited for.
const CODE_SECONDS_MAX: u64 = 1800;

/// `WWW-Authenticate` for a tab whose user has to satisfy `claims` first.
pub fn insufficient_claims(client: Uuid, claims: &str) -> HeaderValue {
    let encoded = BASE64.encode(claims.as_bytes());
    let text =
        format!("Bearer realm=\"\", client_id=\"{client}\", error=\"insufficient_claims\", claims=\"{encoded}\"");
    HeaderValue::try_from(text).expect("base64 and a GUID are a header value")
}
