//! How a client proves who it is: a secret, or an assertion signed with a registered certificate.

use jsonwebtoken::Algorithm;
use serde_json::Value;

use super::Aadsts;
use crate::clock::Millis;
use crate::http::{Request, value};
use crate::settings::Relaxation;
use crate::things::App;
use crate::world::World;

/// An assertion may live so long.
const LIFE_MAX_S: u64 = 600;

/// Clocks may differ by so much.
const SKEW_S: u64 = 300;

const KIND: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

impl World {
    /// The app that sent the form, once it has shown that it is that app.
    pub(super) fn client(&mut self, tenant: &str, request: &Request, form: &[(String, String)]) -> Result<App, Aadsts> {
        let basic = basic(request);
        let id = basic.as_ref().map(|(id, _)| id.as_str()).or(value(form, "client_id"));
        let id = id.ok_or_else(|| {
            Aadsts::new(
                "invalid_request",
                900144,
                "The request body must contain the following parameter: 'client_id'.",
            )
        })?;
        let app = self.entra.apps.get(id).cloned().ok_or_else(|| {
            let text = format!("Application with identifier '{id}' was not found in the directory 'Contoso'.");
            Aadsts::new("unauthorized_client", 700016, text)
        })?;
        let secret = basic.as_ref().map(|(_, secret)| secret.as_str()).or(value(form, "client_secret"));
        match (secret, value(form, "client_assertion")) {
            (Some(_) | None, Some(assertion)) => {
                if app.public {
                    let text =
                        "Client is public so neither 'client_assertion' nor 'client_secret' should be presented.";
                    return Err(Aadsts::new("invalid_client", 700025, text));
                }
                if secret.is_some() || value(form, "client_assertion_type") != Some(KIND) {
                    let text = "The request must contain exactly one kind of client credential.";
                    return Err(Aadsts::new("invalid_client", 7000218, text));
                }
                self.check_assertion(tenant, &app, assertion)?;
            }
            (Some(secret), None) => {
                if app.public {
                    let text =
                        "Client is public so neither 'client_assertion' nor 'client_secret' should be presented.";
                    return Err(Aadsts::new("invalid_client", 700025, text));
                }
                let known = app.secrets.iter().find(|s| s.value == secret).ok_or_else(|| {
                    let text = format!("Invalid client secret provided for app '{id}'.");
                    Aadsts::new("invalid_client", 7000215, text)
                })?;
                if known.expires_ms.is_some_and(|at| at <= self.now()) {
                    let text = format!("The provided client secret keys for app '{id}' are expired.");
                    return Err(Aadsts::new("invalid_client", 7000222, text));
                }
            }
            (None, None) if app.public => {}
            (None, None) => {
                let text =
                    "The request body must contain the following parameter: 'client_assertion' or 'client_secret'.";
                return Err(Aadsts::new("invalid_client", 7000218, text));
            }
        }
        Ok(app)
    }

    fn check_assertion(&mut self, tenant: &str, app: &App, token: &str) -> Result<(), Aadsts> {
        let broken =
            |text: &str| Aadsts::new("invalid_client", 50027, format!("JWT token is invalid or malformed: {text}."));
        let (header, claims) = parts(token).ok_or_else(|| broken("three parts of base64url JSON are expected"))?;
        let algorithm = match header["alg"].as_str() {
            Some("PS256") => Algorithm::PS256,
            Some("RS256") => Algorithm::RS256,
            _ => return Err(broken("alg is neither PS256 nor RS256")),
        };
        if header["typ"].as_str() != Some("JWT") {
            return Err(broken("typ is not JWT"));
        }
        let (by, thumbprint) = match (header["x5t#S256"].as_str(), header["x5t"].as_str()) {
            // MSAL for Python leaves the padding on.
            (Some(t), _) => ("x5t#S256", t.trim_end_matches('=')),
            (None, Some(t)) => ("x5t", t.trim_end_matches('=')),
            (None, None) => return Err(broken("neither x5t#S256 nor x5t")),
        };
        let registered = self.entra.certificates.get(&app.id).map_or(&[][..], Vec::as_slice);
        let certificate =
            registered.iter().find(|c| if by == "x5t#S256" { c.sha256 == thumbprint } else { c.sha1 == thumbprint });
        let unsigned = |text: String| Aadsts::new("invalid_client", 700027, text);
        let certificate = certificate.ok_or_else(|| {
            unsigned(format!(
                "The certificate with identifier used to sign the client assertion is not registered on application. [Reason - The key was not found., Thumbprint of key used by client: '{thumbprint}']"
            ))
        })?;
        if certificate.expires_ms <= self.now() {
            return Err(unsigned("Client assertion failed signature validation: the key is expired.".to_owned()));
        }
        if !certificate.verifies(token, algorithm) {
            return Err(unsigned("Client assertion failed signature validation.".to_owned()));
        }
        if claims["iss"] != claims["sub"] || claims["iss"].as_str() != Some(&app.id) {
            return Err(Aadsts::new(
                "invalid_client",
                50048,
                "Subject must match Issuer claim in the client assertion.",
            ));
        }
        let audience = format!("{}/{tenant}/oauth2/v2.0/token", self.urls.login);
        if claims["aud"].as_str() != Some(&audience) {
            let text = format!("The audience of the client assertion must be '{audience}'.");
            return Err(Aadsts::new("invalid_client", 50012, text));
        }
        let now = self.now() / 1000;
        let begin = seconds(&claims["nbf"]).or(seconds(&claims["iat"])).ok_or_else(|| broken("neither nbf nor iat"))?;
        let end = seconds(&claims["exp"]).ok_or_else(|| broken("exp is missing"))?;
        if begin > now + SKEW_S || end + SKEW_S < now || end < begin || end - begin > LIFE_MAX_S {
            let text = format!(
                "Client assertion is not within its valid time range. Current time: {}, expiry time of assertion {}.",
                crate::clock::iso(now * 1000),
                crate::clock::iso((end as Millis).saturating_mul(1000)),
            );
            return Err(Aadsts::new("invalid_client", 700024, text));
        }
        let jti = claims["jti"].as_str().ok_or_else(|| broken("jti is missing"))?.to_owned();
        let first = self.entra.seen_jtis.insert((app.id.clone(), jti));
        if !first && !self.relaxed(Relaxation::RepeatedAssertion) {
            let mut refusal = Aadsts::new("invalid_client", 50012, "The jti of the client assertion was used before.");
            refusal.status = 400;
            return Err(refusal);
        }
        Ok(())
    }
}

/// A time of a claim; MSAL for Python sends fractions.
fn seconds(claim: &Value) -> Option<u64> {
    claim.as_f64().filter(|s| *s >= 0.0).map(|s| s as u64)
}

/// Header and claims, not verified.
fn parts(token: &str) -> Option<(Value, Value)> {
    let mut parts = token.split('.');
    let (header, claims, _, None) = (parts.next()?, parts.next()?, parts.next()?, parts.next()) else {
        return None;
    };
    let read = |part: &str| {
        let bytes = data_encoding::BASE64URL_NOPAD.decode(part.as_bytes()).ok()?;
        serde_json::from_slice::<Value>(&bytes).ok().filter(Value::is_object)
    };
    Some((read(header)?, read(claims)?))
}

fn basic(request: &Request) -> Option<(String, String)> {
    let encoded = request.header("authorization")?.strip_prefix("Basic ")?;
    let text = String::from_utf8(data_encoding::BASE64.decode(encoded.trim().as_bytes()).ok()?).ok()?;
    let (id, secret) = text.split_once(':')?;
    Some((crate::http::decode(id), crate::http::decode(secret)))
}
