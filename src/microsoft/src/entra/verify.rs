//! Tokens that others show this node: is this person whom they say Entra vouches for?
//!
//! ```text
//!  token --kid--> key of the tenant (cached, on disk, refreshed daily) --RS256--> claims --every one checked--> Identity
//! ```
//! Only tokens for this application are looked at. Keys that were fetched once are believed while Entra is away, for as long
//! as the operator allows.

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use model::{Precedence, UnixMillis};
use serde::{Deserialize, Serialize};
use tracing::{info, warn};
use uuid::Uuid;

use super::book::write_durably;
use super::discovery::is_json;
use super::{ANSWER_BYTES_MAX, Entra, NoToken, no_answer};
use crate::environment::{GraphEnvironment, HeldBecause, Vault};
use crate::transport::Out;

/// Clocks may differ by so much.
const LEEWAY_SECONDS: i64 = 300;

/// Keys are fetched again after a day, as Microsoft advises.
const FRESH_FOR: Duration = Duration::from_secs(24 * 3600);

/// Keys are not fetched more often, whatever kids strangers make up.
const FETCH_EVERY_MIN: Duration = Duration::from_secs(300);

/// After a failure sooner: Entra may just have come within reach.
const FETCH_AGAIN_AFTER: Duration = Duration::from_secs(30);

/// Over a satellite at 64 kbit/s the keys take more than ten seconds.
const FETCH_MAX: Duration = Duration::from_secs(60);

/// Whoever shows a token in the tab waits for the keys only so long, and has another way to sign in.
const WAIT_MAX: Duration = Duration::from_secs(4);

/// Entra publishes fewer than ten.
const KEYS_MAX: usize = 64;

/// Longest token that is looked at.
const TOKEN_BYTES_MAX: usize = 64 * 1024;

/// What a token must say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// For whom it is: the client id, or `api://host/client id` for a registration that gives tokens of version 1.
    pub audiences: Vec<String>,
    /// Tenants that are let in.
    pub tenants: Vec<Uuid>,
    /// Scope that it must hold, such as `access_as_user`; none for an id token.
    pub scope: Option<String>,
    /// Programs that may have asked for it (`azp`); empty: any.
    pub parties: Vec<String>,
    /// Nonce of the sign-in that it answers.
    pub nonce: Option<String>,
}

/// Whom Entra vouches for. The key of a person is tenant and object id, never a name or an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Id of the tenant.
    pub tenant: Uuid,
    /// Object id of the person within the tenant.
    pub oid: Uuid,
    /// Name to show.
    pub name: Option<String>,
    /// Name they sign in with; may change.
    pub username: Option<String>,
    /// The program that asked for the token.
    pub party: Option<String>,
    /// Until when Entra vouches.
    pub until: UnixMillis,
    /// It was checked with keys that are older than a day, because Entra is away.
    pub keys_are_stale: bool,
}

/// A token that is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// It is not a good one.
    #[error("the token is not accepted: {0}")]
    Invalid(&'static str),
    /// It cannot be checked now: there are no keys, or only ones that are too old.
    #[error("the token cannot be checked: {0}; sign in locally")]
    NoKeys(String),
}

/// The tenant's signing keys.
pub(crate) struct Keys {
    file: PathBuf,
    vault: Arc<dyn Vault>,
    known: Mutex<Known>,
    /// Held while they are fetched, so that many who wait fetch once.
    fetching: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Known {
    set: Option<KeySet>,
    /// When they were last fetched, and whether they came.
    tried: Option<(Duration, bool)>,
    /// The key that somebody could not wait for.
    missed: Option<String>,
}

/// As on disk, sealed.
#[derive(Clone, Serialize, Deserialize)]
struct KeySet {
    fetched_ms: i64,
    keys: Vec<Key>,
}

#[derive(Clone, Serialize, Deserialize)]
struct Key {
    kid: String,
    n: String,
    e: String,
    issuer: Option<String>,
}

/// As published. Keys of other kinds are left out.
#[derive(Deserialize)]
struct Published {
    keys: Vec<PublishedKey>,
}

#[derive(Deserialize)]
struct PublishedKey {
    kid: Option<String>,
    kty: String,
    #[serde(rename = "use")]
    usage: Option<String>,
    n: Option<String>,
    e: Option<String>,
    issuer: Option<String>,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    exp: i64,
    nbf: Option<i64>,
    tid: String,
    oid: Option<String>,
    ver: Option<String>,
    azp: Option<String>,
    appid: Option<String>,
    scp: Option<String>,
    name: Option<String>,
    preferred_username: Option<String>,
    unique_name: Option<String>,
    nonce: Option<String>,
}

impl Keys {
    /// The keys that were kept, if any.
    pub(crate) fn open(file: PathBuf, vault: Arc<dyn Vault>) -> Self {
        let kept = fs::read(&file).ok().and_then(|sealed| vault.open(&sealed));
        let set = kept.and_then(|plain| serde_json::from_slice(&plain.0).ok());
        let known = Mutex::new(Known { set, ..Known::default() });
        Self { file, vault, known, fetching: tokio::sync::Mutex::default() }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, set: KeySet) {
        let plain = serde_json::to_vec(&set).expect("texts and a number become JSON");
        if let Err(e) = write_durably(&self.file, &self.vault.seal(&plain)) {
            warn!(error = %e, "Entra's signing keys could not be kept; after a restart they are fetched again");
        }
        let mut known = self.known();
        known.set = Some(set);
        known.missed = None;
    }
}

impl Known {
    /// Should they be fetched before `kid` is looked up?
    fn wants_fetch(&self, kid: Option<&str>, wall: UnixMillis, now: Duration) -> bool {
        let due = match self.tried {
            None => true,
            Some((at, true)) => now >= at + FETCH_EVERY_MIN,
            Some((at, false)) => now >= at + FETCH_AGAIN_AFTER,
        };
        let lacking = match (&self.set, kid) {
            (None, _) => true,
            (Some(set), Some(kid)) => set.key(kid).is_none() || set.age(wall) > FRESH_FOR,
            (Some(set), None) => set.age(wall) > FRESH_FOR,
        };
        due && lacking
    }
}

impl KeySet {
    fn key(&self, kid: &str) -> Option<&Key> {
        self.keys.iter().find(|key| key.kid == kid)
    }

    /// None when this node's clock was set back.
    fn age(&self, wall: UnixMillis) -> Duration {
        Duration::from_millis(u64::try_from(wall.0 - self.fetched_ms).unwrap_or(0))
    }
}

impl Entra {
    /// Checks a token that somebody shows: an id token, or an access token for this application.
    ///
    /// Takes at most a few seconds: keys are fetched when they are lacking or old.
    ///
    /// # Errors
    /// [`VerifyError::Invalid`] says what is wrong with it, [`VerifyError::NoKeys`] that nobody can tell at present.
    pub async fn verify(&self, token: &str, expected: &Expected) -> Result<Identity, VerifyError> {
        self.verify_at(token, expected, WAIT_MAX, || self.0.environment.clock.now()).await
    }

    /// Checks a token that Entra gave this very moment: as long as it takes, and by Entra's clock, so that a node whose own one is
    /// off signs in nevertheless.
    pub(super) async fn verify_given(&self, token: &str, expected: &Expected) -> Result<Identity, VerifyError> {
        self.verify_at(token, expected, FETCH_MAX, || self.0.transport.their_time()).await
    }

    /// `wall`: the time that the token is compared with.
    async fn verify_at(
        &self,
        token: &str,
        expected: &Expected,
        patience: Duration,
        wall: impl Fn() -> UnixMillis,
    ) -> Result<Identity, VerifyError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(VerifyError::Invalid("it is too long"));
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| VerifyError::Invalid("it is no signed token"))?;
        if header.alg != Algorithm::RS256 {
            return Err(VerifyError::Invalid("it is not signed with RS256"));
        }
        let kid = header.kid.ok_or(VerifyError::Invalid("it names no key"))?;
        let fetched = tokio::time::timeout(patience, self.fetch(Some(&kid), Precedence::Immediate)).await;
        let failed = match fetched {
            Ok(fetched) => fetched.err().map(|e| e.to_string()),
            Err(_) => {
                // They are fetched by whoever looks after the tokens; the next to come finds them.
                let mut known = self.0.keys.known();
                known.missed = Some(kid.clone());
                known.tried = Some((self.0.environment.timer.now(), false));
                Some("Entra's signing keys did not come in time; try again in a minute".to_owned())
            }
        };
        let stale_max = self.0.settings.keys_stale_max;
        let (key, age) = {
            let known = self.0.keys.known();
            let set = known.set.as_ref().ok_or_else(|| {
                VerifyError::NoKeys(failed.clone().unwrap_or_else(|| "Entra's signing keys are not known".to_owned()))
            })?;
            let Some(key) = set.key(&kid) else {
                return Err(match (failed, known.tried) {
                    (Some(why), _) => VerifyError::NoKeys(why),
                    (None, Some((_, false))) => VerifyError::NoKeys(
                        "Entra ID did not answer a moment ago when it was asked for its keys".to_owned(),
                    ),
                    (None, None | Some((_, true))) => {
                        VerifyError::Invalid("it is signed with a key that is not the tenant's")
                    }
                });
            };
            (key.clone(), set.age(self.0.environment.clock.now()))
        };
        if age > FRESH_FOR + stale_max {
            let hours = age.as_secs() / 3600;
            return Err(VerifyError::NoKeys(format!("Entra's signing keys were fetched {hours} hours ago")));
        }
        let issuer = |tenant: &str| self.0.settings.hosts.issuer_of(tenant);
        let mut identity = check(token, &key, expected, issuer, wall())?;
        identity.keys_are_stale = age > FRESH_FOR;
        if identity.keys_are_stale {
            info!(hours = age.as_secs() / 3600, "a token was checked with old signing keys because Entra ID is away");
        }
        Ok(identity)
    }

    /// Fetches the signing keys if they are older than a day or one was missed: done while Entra is reachable, they serve while
    /// it is not.
    ///
    /// # Errors
    /// When they could not be fetched; those at hand stay in use.
    pub async fn refresh_keys(&self, precedence: Precedence) -> Result<(), NoToken> {
        let missed = self.0.keys.known().missed.clone();
        self.fetch(missed.as_deref(), precedence).await
    }

    /// Does anybody sign in with tokens here? Without, keys are not fetched in advance.
    pub(crate) fn needs_keys(&self) -> bool {
        self.0.settings.app.is_some() || self.0.keys.known().set.is_some() || self.misses_keys()
    }

    /// Did somebody wait for the keys in vain?
    pub(crate) fn misses_keys(&self) -> bool {
        self.0.keys.known().missed.is_some()
    }

    /// Fetches the keys if they are lacking or old, and were not fetched just now.
    async fn fetch(&self, kid: Option<&str>, precedence: Precedence) -> Result<(), NoToken> {
        let GraphEnvironment { clock, timer, .. } = &self.0.environment;
        let is_wanted = || self.0.keys.known().wants_fetch(kid, clock.now(), timer.now());
        if !is_wanted() {
            return Ok(());
        }
        let _fetching = self.0.keys.fetching.lock().await;
        // Whoever held it may have brought them.
        if !is_wanted() {
            return Ok(());
        }
        let slow = || NoToken::Held(HeldBecause::Unreachable("the signing keys did not come in time".to_owned()));
        let fetched = tokio::time::timeout(FETCH_MAX, self.fetch_keys(precedence)).await;
        let fetched = fetched.unwrap_or_else(|_| Err(slow()));
        self.0.keys.known().tried = Some((timer.now(), fetched.is_ok()));
        self.0.keys.keep(fetched?);
        Ok(())
    }

    async fn fetch_keys(&self, precedence: Precedence) -> Result<KeySet, NoToken> {
        let url = self.endpoints(precedence).await?.keys;
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        let (method, body) = (Method::GET, None);
        let out = Out { method, url, headers, body, precedence, answer_bytes_max: ANSWER_BYTES_MAX };
        let came = self.0.transport.send(out).await.map_err(no_answer)?;
        let broken = || NoToken::Broken("the signing keys are none".to_owned());
        if came.status != StatusCode::OK || !is_json(&came.headers) {
            return Err(broken());
        }
        let published: Published = serde_json::from_slice(&came.body).map_err(|_| broken())?;
        let usable = published.keys.into_iter().take(KEYS_MAX).filter_map(|key| {
            let signs = key.kty == "RSA" && key.usage.as_deref().is_none_or(|u| u == "sig");
            let PublishedKey { kid, n, e, issuer, .. } = key;
            signs.then_some(Key { kid: kid?, n: n?, e: e?, issuer })
        });
        let keys: Vec<Key> = usable.collect();
        if keys.is_empty() {
            return Err(broken());
        }
        Ok(KeySet { fetched_ms: self.0.environment.clock.now().0, keys })
    }
}

/// Checks everything that a token says. Pure.
fn check(
    token: &str,
    key: &Key,
    expected: &Expected,
    issuer_of: impl Fn(&str) -> String,
    now: UnixMillis,
) -> Result<Identity, VerifyError> {
    use VerifyError::Invalid;
    let decoding = DecodingKey::from_rsa_components(&key.n, &key.e).map_err(|_| Invalid("its key is none"))?;
    let mut validation = Validation::new(Algorithm::RS256);
    // Times are compared with this node's clock and the audience with more than one, both below.
    validation.validate_exp = false;
    validation.validate_aud = false;
    validation.required_spec_claims.clear();
    let claims = jsonwebtoken::decode::<Claims>(token, &decoding, &validation)
        .map_err(|_| Invalid("its signature or its claims are wrong"))?
        .claims;
    let tenant = Uuid::try_parse(&claims.tid).map_err(|_| Invalid("it names no tenant"))?;
    if !expected.tenants.contains(&tenant) {
        return Err(Invalid("it is of a tenant that is not let in"));
    }
    let issuer = issuer_of(&tenant.as_hyphenated().to_string());
    if claims.iss != issuer {
        return Err(Invalid("its issuer is not the tenant's"));
    }
    if key.issuer.as_ref().is_some_and(|of| of.replace("{tenantid}", &claims.tid) != issuer) {
        return Err(Invalid("its key is of another issuer"));
    }
    if claims.ver.as_deref() != Some("2.0") {
        return Err(Invalid("it is not of version 2.0: set requestedAccessTokenVersion to 2 in the registration"));
    }
    if !expected.audiences.contains(&claims.aud) {
        return Err(Invalid("it is for another application"));
    }
    let seconds = now.0.div_euclid(1000);
    if claims.exp <= seconds - LEEWAY_SECONDS {
        return Err(Invalid("it has expired"));
    }
    if claims.nbf.is_some_and(|nbf| nbf > seconds + LEEWAY_SECONDS) {
        return Err(Invalid("it is not valid yet: check this node's clock"));
    }
    let scopes = claims.scp.as_deref().unwrap_or_default();
    if expected.scope.as_ref().is_some_and(|wanted| !scopes.split(' ').any(|scope| scope == wanted)) {
        return Err(Invalid("it lacks the scope of this application"));
    }
    let party = claims.azp.or(claims.appid);
    let allowed = |party: &String| expected.parties.iter().any(|p| p.eq_ignore_ascii_case(party));
    if !expected.parties.is_empty() && !party.as_ref().is_some_and(allowed) {
        return Err(Invalid("it was asked for by a program that is not let in"));
    }
    if expected.nonce.is_some() && claims.nonce != expected.nonce {
        return Err(Invalid("it answers another sign-in"));
    }
    let oid = claims.oid.as_deref().and_then(|oid| Uuid::try_parse(oid).ok()).ok_or(Invalid("it names nobody"))?;
    Ok(Identity {
        tenant,
        oid,
        name: claims.name,
        username: claims.preferred_username.or(claims.unique_name),
        party,
        until: UnixMillis(claims.exp.saturating_mul(1000)),
        keys_are_stale: false,
    })
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{EncodingKey, Header};
    use serde_json::{Value, json};

    use super::*;
    use crate::testkit::{RSA_E, RSA_KEY_PEM, RSA_N, TestVault};

    const TENANT: &str = "11111111-2222-4333-8444-555555555555";
    const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

    fn key() -> Key {
        let issuer = Some("https://login.example/{tenantid}/v2.0".to_owned());
        Key { kid: "k1".to_owned(), n: RSA_N.to_owned(), e: RSA_E.to_owned(), issuer }
    }

    fn issuer_of(tenant: &str) -> String {
        format!("https://login.example/{tenant}/v2.0")
    }

    fn expected() -> Expected {
        Expected {
            audiences: vec!["app".to_owned()],
            tenants: vec![TENANT.parse().unwrap()],
            scope: Some("access_as_user".to_owned()),
            parties: vec!["5e3ce6c0-2b1f-4285-8d4b-75ee78787346".to_owned()],
            nonce: None,
        }
    }

    fn claims() -> Value {
        json!({
            "iss": issuer_of(TENANT), "aud": "app", "tid": TENANT, "ver": "2.0",
            "exp": NOW.0 / 1000 + 600, "nbf": NOW.0 / 1000 - 60, "iat": NOW.0 / 1000 - 60,
            "oid": "6f1a1a9e-0000-4000-8000-000000000001", "azp": "5e3ce6c0-2b1f-4285-8d4b-75ee78787346",
            "scp": "access_as_user profile", "name": "Ada", "preferred_username": "ada@example.org",
        })
    }

    fn signed(claims: &Value) -> String {
        let mut header = Header::new(Algorithm::RS256);
        header.kid = Some("k1".to_owned());
        jsonwebtoken::encode(&header, claims, &EncodingKey::from_rsa_pem(RSA_KEY_PEM.as_bytes()).unwrap()).unwrap()
    }

    fn with(field: &str, value: Value) -> Value {
        let mut all = claims();
        all[field] = value;
        all
    }

    #[test]
    fn a_good_token_says_who_it_is() {
        let identity = check(&signed(&claims()), &key(), &expected(), issuer_of, NOW).unwrap();
        assert_eq!(identity.oid.to_string(), "6f1a1a9e-0000-4000-8000-000000000001");
        assert_eq!(identity.tenant.to_string(), TENANT);
        assert_eq!(identity.username.as_deref(), Some("ada@example.org"));
    }

    #[test]
    fn each_claim_that_is_wrong_is_refused() {
        let seconds = NOW.0 / 1000;
        for (field, value) in [
            ("iss", json!("https://login.example/22222222-2222-4333-8444-555555555555/v2.0")),
            ("iss", json!("https://evil.example/11111111-2222-4333-8444-555555555555/v2.0")),
            ("aud", json!("00000003-0000-0000-c000-000000000000")),
            ("tid", json!("22222222-2222-4333-8444-555555555555")),
            ("tid", json!("common")),
            ("ver", json!("1.0")),
            ("ver", Value::Null),
            ("exp", json!(seconds - 301)),
            ("nbf", json!(seconds + 301)),
            ("oid", Value::Null),
            ("oid", json!("ada@example.org")),
            ("azp", json!("1fec8e78-bce4-4aaf-ab1b-5451cc387264")),
            ("azp", Value::Null),
            ("scp", json!("access_as_user_too")),
            ("scp", Value::Null),
        ] {
            let verdict = check(&signed(&with(field, value.clone())), &key(), &expected(), issuer_of, NOW);
            assert!(matches!(verdict, Err(VerifyError::Invalid(_))), "{field} = {value}: {verdict:?}");
        }
        let asked = Expected { nonce: Some("n".to_owned()), ..expected() };
        assert!(check(&signed(&claims()), &key(), &asked, issuer_of, NOW).is_err(), "a nonce that is not there");
        let elsewhere = Key { issuer: Some("https://other.example/{tenantid}/v2.0".to_owned()), ..key() };
        assert!(check(&signed(&claims()), &elsewhere, &expected(), issuer_of, NOW).is_err(), "a key of another cloud");
    }

    #[test]
    fn a_token_that_was_altered_is_refused() {
        let token = signed(&claims());
        let other = signed(&with("oid", json!("6f1a1a9e-0000-4000-8000-000000000002")));
        let mut parts: Vec<&str> = token.split('.').collect();
        parts[1] = other.split('.').nth(1).unwrap();
        assert!(check(&parts.join("."), &key(), &expected(), issuer_of, NOW).is_err());
    }

    #[test]
    fn keys_are_fetched_for_unknown_ones_at_most_every_five_minutes() {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keys::open(dir.path().join("keys"), Arc::new(TestVault::new(1)));
        let start = Duration::from_secs(1000);
        assert!(keys.known().wants_fetch(Some("k1"), NOW, start));
        keys.keep(KeySet { fetched_ms: NOW.0, keys: vec![key()] });
        keys.known().tried = Some((start, true));
        assert!(!keys.known().wants_fetch(Some("k1"), NOW, start));
        assert!(!keys.known().wants_fetch(Some("made-up"), NOW, start + Duration::from_secs(299)));
        assert!(keys.known().wants_fetch(Some("made-up"), NOW, start + Duration::from_secs(300)));
        let tomorrow = UnixMillis(NOW.0 + 25 * 3600 * 1000);
        assert!(keys.known().wants_fetch(Some("k1"), tomorrow, start + FRESH_FOR));

        let again = Keys::open(dir.path().join("keys"), Arc::new(TestVault::new(1)));
        let known = again.known();
        assert!(known.set.as_ref().is_some_and(|set| set.key("k1").is_some()), "they survive a restart");
        let mut bytes = fs::read(dir.path().join("keys")).unwrap();
        bytes[0] ^= 1;
        fs::write(dir.path().join("keys"), bytes).unwrap();
        assert!(
            Keys::open(dir.path().join("keys"), Arc::new(TestVault::new(1))).known().set.is_none(),
            "altered ones are none"
        );
    }
}
