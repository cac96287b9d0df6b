//! The assertion by which a certificate's key proves that this node is the application
//! (Microsoft, "Certificate credentials for application authentication").

use data_encoding::BASE64URL_NOPAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use model::UnixMillis;
use rustls_pki_types::CertificateDer;
use serde::Serialize;
use sha2::{Digest, Sha256};

/// How long an assertion is good for; Entra takes up to ten minutes. It is used at once.
const LIFE_SECONDS: i64 = 300;

#[derive(Serialize)]
struct Claims<'a> {
    aud: &'a str,
    iss: &'a str,
    sub: &'a str,
    jti: &'a str,
    nbf: i64,
    iat: i64,
    exp: i64,
}

/// Signs an assertion for the token endpoint `audience`. `now` is the endpoint's time where it is known: the clock of an
/// appliance is off more often than Entra's.
pub(crate) fn assertion(
    certificate: &CertificateDer<'_>,
    key_pem: &[u8],
    audience: &str,
    client: &str,
    jti: &str,
    now: UnixMillis,
) -> Result<String, jsonwebtoken::errors::Error> {
    let header = Header {
        typ: Some("JWT".to_owned()),
        x5t_s256: Some(thumbprint(certificate)),
        ..Header::new(Algorithm::PS256)
    };
    let at = now.0.div_euclid(1000);
    let claims = Claims { aud: audience, iss: client, sub: client, jti, nbf: at, iat: at, exp: at + LIFE_SECONDS };
    jsonwebtoken::encode(&header, &claims, &EncodingKey::from_rsa_pem(key_pem)?)
}

/// `x5t#S256`: the SHA-256 of the certificate.
pub(crate) fn thumbprint(certificate: &CertificateDer<'_>) -> String {
    BASE64URL_NOPAD.encode(&Sha256::digest(certificate))
}
