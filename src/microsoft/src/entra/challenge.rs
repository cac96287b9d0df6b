//! Claims challenges of continuous access evaluation: what a 401 of Graph wants the next token to say.

use data_encoding::{BASE64, BASE64_NOPAD, BASE64URL, BASE64URL_NOPAD};
use http::{HeaderMap, header};
use serde_json::{Map, Value, json};

/// Says that this client understands challenges (`cp1`); part of every request for a token.
pub(crate) fn capabilities() -> Value {
    json!({"access_token": {"xms_cc": {"values": ["cp1"]}}})
}

/// The capabilities together with what a challenge asks for, as the field `claims` wants it.
pub(crate) fn merged(challenge: Option<&str>) -> String {
    let mut claims = capabilities();
    if let Some(Ok(asked)) = challenge.map(serde_json::from_str::<Value>) {
        merge(&mut claims, asked);
    }
    claims.to_string()
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Object(Map::new())), value);
            }
        }
        (into, from) => *into = from,
    }
}

/// The claims that a 401 asks for; `None` when it asks for none.
pub(crate) fn challenge_in(headers: &HeaderMap) -> Option<String> {
    let values = headers.get_all(header::WWW_AUTHENTICATE).iter().filter_map(|v| v.to_str().ok());
    values.filter_map(challenge_of).next()
}

/// One header may hold several challenges and the fields come in any order, so only the pairs are looked at.
fn challenge_of(value: &str) -> Option<String> {
    let pairs = pairs(value);
    let field = |name: &str| pairs.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| *value);
    if field("error") != Some("insufficient_claims") {
        return None;
    }
    let encoded = field("claims")?.as_bytes();
    let decoded =
        [BASE64, BASE64_NOPAD, BASE64URL, BASE64URL_NOPAD].iter().find_map(|code| code.decode(encoded).ok())?;
    let text = String::from_utf8(decoded).ok()?;
    serde_json::from_str::<Map<String, Value>>(&text).ok().map(|_| text)
}

/// `key="value"` pairs. Quoted values of these headers hold no escapes.
fn pairs(value: &str) -> Vec<(&str, &str)> {
    let mut found = Vec::new();
    let mut rest = value;
    while let Some((before, after)) = rest.split_once("=\"") {
        let key = before.rsplit([' ', ',']).next().unwrap_or(before);
        let Some((quoted, behind)) = after.split_once('"') else { break };
        found.push((key, quoted));
        rest = behind;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.append(header::WWW_AUTHENTICATE, "Negotiate".parse().unwrap());
        headers.append(header::WWW_AUTHENTICATE, value.parse().unwrap());
        headers
    }

    #[test]
    fn the_example_of_the_documentation_is_read_in_any_order() {
        let claims = r#"{"access_token":{"nbf":{"essential":true, "value":"1604106651"}}}"#;
        let encoded = BASE64.encode(claims.as_bytes());
        for value in [
            format!(
                r#"Bearer realm="", authorization_uri="https://login.microsoftonline.com/common/oauth2/authorize", client_id="x", error="insufficient_claims", claims="{encoded}""#
            ),
            format!(r#"Bearer claims="{}",error="insufficient_claims",realm="""#, encoded.trim_end_matches('=')),
        ] {
            assert_eq!(challenge_in(&header(&value)).as_deref(), Some(claims), "{value}");
        }
    }

    #[test]
    fn a_plain_401_and_a_damaged_challenge_ask_for_nothing() {
        for value in [
            r#"Bearer realm="", error="invalid_token""#,
            r#"Bearer error="insufficient_claims", claims="%%""#,
            r#"Bearer error="insufficient_claims", claims="W10=""#,
            r#"Bearer error="insufficient_claims", claims="e30="#,
        ] {
            assert_eq!(challenge_in(&header(value)), None, "{value}");
        }
    }

    #[test]
    fn what_is_asked_for_joins_the_capabilities() {
        let merged: Value = serde_json::from_str(&merged(Some(r#"{"access_token":{"nbf":{"value":"1"}}}"#))).unwrap();
        assert_eq!(merged, json!({"access_token": {"xms_cc": {"values": ["cp1"]}, "nbf": {"value": "1"}}}));
    }
}
