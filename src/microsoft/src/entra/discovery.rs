//! What Entra says about its own endpoints, believed only as far as it fits the configuration.

use http::{HeaderMap, StatusCode, header};
use serde::Deserialize;
use url::Url;

use crate::cloud::{Hosts, same_origin};

/// Endpoints of the tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoints {
    pub(crate) token: Url,
    pub(crate) authorize: Url,
    pub(crate) device: Url,
    pub(crate) keys: Url,
}

#[derive(Deserialize)]
struct Document {
    issuer: String,
    token_endpoint: Url,
    authorization_endpoint: Url,
    device_authorization_endpoint: Url,
    jwks_uri: Url,
}

/// Where the document is.
pub(crate) fn address(hosts: &Hosts, tenant: &str) -> Url {
    let mut url = hosts.login.clone();
    url.set_path(&format!("/{tenant}/v2.0/.well-known/openid-configuration"));
    url
}

/// Reads the document. Whatever stands between a node and the real Entra, such as a captive portal, a proxy that breaks TLS
/// or an error page of a CDN, fails here.
///
/// # Errors
/// With what does not fit, for the operator.
pub(crate) fn read(
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    hosts: &Hosts,
    tenant: &str,
) -> Result<Endpoints, String> {
    if status != StatusCode::OK {
        return Err(format!("the sign-in host answered {} for the tenant", status.as_u16()));
    }
    if !is_json(headers) {
        return Err("what answers at the sign-in host is not Entra ID: the answer is no JSON".to_owned());
    }
    let document: Document =
        serde_json::from_slice(body).map_err(|e| format!("what answers at the sign-in host is not Entra ID: {e}"))?;
    let wanted = hosts.issuer_of(tenant);
    if document.issuer != wanted {
        return Err(format!("the sign-in host speaks for {}, not for {wanted}", shortened(&document.issuer)));
    }
    let Document { token_endpoint, authorization_endpoint, device_authorization_endpoint, jwks_uri, .. } = document;
    for url in [&token_endpoint, &authorization_endpoint, &device_authorization_endpoint, &jwks_uri] {
        if !same_origin(url, &hosts.login) {
            return Err(format!("the sign-in host names an endpoint elsewhere: {}", shortened(url.as_str())));
        }
    }
    Ok(Endpoints {
        token: token_endpoint,
        authorize: authorization_endpoint,
        device: device_authorization_endpoint,
        keys: jwks_uri,
    })
}

/// Is the body said to be JSON?
pub(crate) fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

/// Text from outside, short enough for a message.
fn shortened(text: &str) -> String {
    text.chars().take(120).collect()
}
