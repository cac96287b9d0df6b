//! Keys and certificates: the authority of the TLS ports, Entra's signing keys, and what apps sign with.

use std::sync::Arc;

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, crypto};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_RSA_SHA256, RsaKeySize,
};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use sha1::Sha1;
use sha2::{Digest as _, Sha256};

use data_encoding::{BASE64, BASE64URL_NOPAD};

/// What a start of the simulator cannot do without.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A key or certificate could not be made.
    #[error("no key or certificate could be made: {0}")]
    Made(#[from] rcgen::Error),
    /// TLS refused it.
    #[error("TLS refused the certificate: {0}")]
    Tls(#[from] rustls::Error),
}

/// The authority and what the ports present.
pub(crate) struct Pki {
    pub(crate) ca_pem: String,
    pub(crate) server: Arc<ServerConfig>,
}

impl Pki {
    /// What the ports present is good for these names and addresses.
    pub(crate) fn new(names: &[&String]) -> Result<Self, PkiError> {
        let mut ca = CertificateParams::new(Vec::<String>::new())?;
        ca.distinguished_name = named("graphsim test authority");
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        let ca_key = KeyPair::generate()?;
        let ca_pem = ca.self_signed(&ca_key)?.pem();
        let issuer = Issuer::new(ca, ca_key);

        let mut leaf = CertificateParams::new(names.iter().map(|name| (*name).clone()).collect::<Vec<_>>())?;
        leaf.distinguished_name = named("graphsim");
        leaf.use_authority_key_identifier_extension = true;
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate()?;
        let certificate = leaf.signed_by(&key, &issuer)?;

        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der())),
            )?;
        server.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { ca_pem, server: Arc::new(server) })
    }
}

/// A certificate with its key, as an app has it.
#[derive(Clone, Debug)]
pub struct Credential {
    /// The certificate.
    pub certificate_pem: String,
    /// Its private key, PKCS #8.
    pub key_pem: String,
}

impl Credential {
    /// A self-signed certificate with an RSA key of 2048 bits.
    pub fn new(name: &str) -> Result<Self, PkiError> {
        let key = rsa()?;
        Ok(Self { certificate_pem: self_signed(name, &key)?.pem(), key_pem: key.serialize_pem() })
    }
}

/// One of the keys that tokens are signed with.
pub(crate) struct SigningKey {
    pub(crate) kid: String,
    encoding: EncodingKey,
    jwk: Value,
}

impl SigningKey {
    pub(crate) fn new() -> Result<Self, PkiError> {
        let key = rsa()?;
        let certificate = self_signed("accounts.accesscontrol.windows.net", &key)?;
        let der = certificate.der();
        let (modulus, exponent) = public_parts(der).expect("the certificate was made a line above");
        let kid = BASE64URL_NOPAD.encode(&Sha1::digest(der));
        let jwk = json!({
            "kty": "RSA", "use": "sig", "kid": kid, "x5t": kid,
            "n": BASE64URL_NOPAD.encode(&modulus), "e": BASE64URL_NOPAD.encode(&exponent),
            "x5c": [BASE64.encode(der)],
        });
        let encoding = EncodingKey::from_rsa_pem(key.serialize_pem().as_bytes()).expect("a key made a line above");
        Ok(Self { kid, encoding, jwk })
    }

    /// As `jwks_uri` lists it.
    pub(crate) fn jwk(&self, issuer: &str) -> Value {
        let mut jwk = self.jwk.clone();
        jwk["issuer"] = json!(issuer);
        jwk
    }

    /// A token. With a nonce it is one of Graph's: signed over the nonce's hash, so that nobody but Graph verifies it.
    pub(crate) fn sign(&self, claims: &Value, nonce: Option<&str>) -> String {
        let header = |nonce: Option<String>| {
            let mut header = json!({ "typ": "JWT", "alg": "RS256", "kid": self.kid, "x5t": self.kid });
            if let Some(nonce) = nonce {
                header["nonce"] = json!(nonce);
            }
            BASE64URL_NOPAD.encode(header.to_string().as_bytes())
        };
        let claims = BASE64URL_NOPAD.encode(claims.to_string().as_bytes());
        let hashed = nonce.map(|n| BASE64URL_NOPAD.encode(&Sha256::digest(n.as_bytes())));
        let signed = format!("{}.{claims}", header(hashed));
        let signature = crypto::sign(signed.as_bytes(), &self.encoding, Algorithm::RS256).expect("a key of our own");
        format!("{}.{claims}.{signature}", header(nonce.map(str::to_owned)))
    }
}

/// A certificate that an app registered.
#[derive(Clone)]
pub(crate) struct Registered {
    /// base64url of the SHA-256 of its DER: `x5t#S256`.
    pub(crate) sha256: String,
    /// base64url of the SHA-1: `x5t`.
    pub(crate) sha1: String,
    pub(crate) expires_ms: u64,
    key: DecodingKey,
}

impl Registered {
    /// `None` where the text is no certificate with an RSA key.
    pub(crate) fn from_pem(pem: &str) -> Option<Self> {
        let (_, parsed) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).ok()?;
        let der = CertificateDer::from(parsed.contents.clone());
        let (modulus, exponent) = public_parts(&der)?;
        let expires = parsed.parse_x509().ok()?.validity().not_after.timestamp();
        Some(Self {
            sha256: BASE64URL_NOPAD.encode(&Sha256::digest(&der)),
            sha1: BASE64URL_NOPAD.encode(&Sha1::digest(&der)),
            expires_ms: u64::try_from(expires).unwrap_or(0).saturating_mul(1000),
            key: DecodingKey::from_rsa_raw_components(&modulus, &exponent),
        })
    }

    /// Whether the assertion was signed with its key.
    pub(crate) fn verifies(&self, token: &str, algorithm: Algorithm) -> bool {
        token.rsplit_once('.').is_some_and(|(message, signature)| {
            crypto::verify(signature, message.as_bytes(), &self.key, algorithm).unwrap_or(false)
        })
    }
}

fn public_parts(der: &CertificateDer<'_>) -> Option<(Vec<u8>, Vec<u8>)> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
    let x509_parser::public_key::PublicKey::RSA(key) = certificate.public_key().parsed().ok()? else { return None };
    let trim = |bytes: &[u8]| bytes.iter().copied().skip_while(|b| *b == 0).collect::<Vec<u8>>();
    Some((trim(key.modulus), trim(key.exponent)))
}

fn rsa() -> Result<KeyPair, rcgen::Error> {
    KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)
}

fn self_signed(name: &str, key: &KeyPair) -> Result<rcgen::Certificate, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::<String>::new())?;
    params.distinguished_name = named(name);
    params.self_signed(key)
}

fn named(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}
