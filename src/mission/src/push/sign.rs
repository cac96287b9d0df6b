//! The signature by which a device knows that a notification is of its own server: a JWT over its ids, as the original makes it.

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use data_encoding::{BASE64, BASE64URL_NOPAD};
use serde_json::json;

use crate::core::Core;
use crate::error::{AppError, AppResult};
use crate::rows::{get, run};

/// Key in `meta`.
const KEY: &str = "push_signing_key";

/// The server's key for this one purpose; made when it is first needed, and this node's own.
pub(crate) struct Signer(EcdsaKeyPair);

impl Signer {
    /// # Errors
    /// When the store or the random source fails.
    pub(crate) fn of(core: &Core) -> AppResult<Self> {
        let failed = |e: &dyn std::fmt::Display| AppError::storage("push", e);
        let sql = "SELECT value FROM meta WHERE key = ?1";
        let known: Option<Vec<u8>> = core.read(|db| Ok::<_, AppError>(get(db, sql, [KEY], |r| r.get(0))?))?;
        let key = match known {
            Some(key) => key,
            None => {
                let made = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new());
                let made = made.map_err(|e| failed(&e))?.as_ref().to_vec();
                core.write(|tx| {
                    let sql = "INSERT INTO meta (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO NOTHING";
                    run(&tx.db, sql, rusqlite::params![KEY, made])?;
                    Ok::<_, AppError>(get(&tx.db, "SELECT value FROM meta WHERE key = ?1", [KEY], |r| r.get(0))?)
                })?
                .unwrap_or(made)
            }
        };
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &key).map(Self).map_err(|e| failed(&e))
    }

    /// What clients check with: `AsymmetricSigningPublicKey`.
    pub(crate) fn public_key(&self) -> String {
        self.0.public_key().as_der().map(|der| BASE64.encode(der.as_ref())).unwrap_or_default()
    }

    /// ES256 over the ids of notification and device.
    pub(crate) fn sign(&self, ack_id: &str, device_id: &str) -> String {
        let header = BASE64URL_NOPAD.encode(br#"{"alg":"ES256","typ":"JWT"}"#);
        let claims = BASE64URL_NOPAD.encode(json!({"ack_id": ack_id, "device_id": device_id}).to_string().as_bytes());
        let text = format!("{header}.{claims}");
        match self.0.sign(&SystemRandom::new(), text.as_bytes()) {
            Ok(signature) => format!("{text}.{}", BASE64URL_NOPAD.encode(signature.as_ref())),
            // Without one a device shows nothing, and says so in its log.
            Err(_) => String::new(),
        }
    }
}
