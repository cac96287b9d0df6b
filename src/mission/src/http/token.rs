//! How a session token reaches us and leaves again: headers, cookies, the cross-site rule.
//!
//! Order of precedence: cookie, `Authorization: Bearer`, `Authorization: token`. The query parameter
//! `access_token` belongs to OAuth applications, which this core does not have; it is refused.

use http::{HeaderMap, HeaderValue, Method, header};

use super::query::Query;

/// Cookie with the session token.
pub(crate) const COOKIE_TOKEN: &str = "MMAUTHTOKEN";
const COOKIE_USER: &str = "MMUSERID";
const COOKIE_CSRF: &str = "MMCSRF";
/// Set by the page that embeds the web app into another site; asks for `SameSite=None`.
const COOKIE_EMBED: &str = "MMEMBED";

/// Longer tokens are cut, as the original server does, so that garbage costs nothing to look up.
const TOKEN_LEN_MAX: usize = 50;

/// Where the token was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carriage {
    Cookie,
    Header,
    Query,
}

/// The token that a request carries.
pub(crate) fn carried(headers: &HeaderMap, query: &Query) -> Option<(String, Carriage)> {
    let (token, carriage) = if let Some(token) = cookie(headers, COOKIE_TOKEN) {
        (token, Carriage::Cookie)
    } else if let Some(token) = authorization(headers) {
        (token, Carriage::Header)
    } else if let Some(token) = query.get("access_token") {
        (token, Carriage::Query)
    } else {
        return None;
    };
    let token: String = token.chars().take(TOKEN_LEN_MAX).collect();
    (!token.is_empty()).then_some((token, carriage))
}

/// Whether a request authenticated by cookie proves that our own page sent it.
pub(crate) fn proves_same_site(method: &Method, headers: &HeaderMap, csrf: &str) -> bool {
    if method == Method::GET || method == Method::HEAD {
        return true;
    }
    let sent = headers.get("x-csrf-token").map(HeaderValue::as_bytes);
    (!csrf.is_empty() && sent == Some(csrf.as_bytes())) || sent_by_script(headers)
}

/// A page of another site cannot set this header without a CORS preflight, which we never grant.
pub(crate) fn sent_by_script(headers: &HeaderMap) -> bool {
    headers.get("x-requested-with").is_some_and(|v| v.as_bytes() == b"XMLHttpRequest")
}

/// One cookie of the request.
pub(crate) fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get_all(header::COOKIE).iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(';')).find_map(|pair| {
        let (key, value) = pair.trim().split_once('=')?;
        (key == name).then(|| value.trim_matches('"'))
    })
}

fn authorization(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let known = scheme.eq_ignore_ascii_case("bearer") || scheme.eq_ignore_ascii_case("token");
    known.then(|| token.trim())
}

/// What a browser keeps of a session.
pub(crate) struct SessionCookies<'a> {
    pub(crate) token: &'a str,
    pub(crate) user_id: &'a str,
    pub(crate) csrf: &'a str,
    /// Lifetime in seconds.
    pub(crate) max_age_s: i64,
}

/// The `Set-Cookie` headers of a login by script.
pub(crate) fn set_cookies(request: &HeaderMap, session: &SessionCookies<'_>) -> Vec<HeaderValue> {
    let place = place(request);
    let age = session.max_age_s;
    [(COOKIE_TOKEN, session.token, "; HttpOnly"), (COOKIE_USER, session.user_id, ""), (COOKIE_CSRF, session.csrf, "")]
        .into_iter()
        .map(|(name, value, script)| format!("{name}={value}; Path=/; Max-Age={age}{script}{place}"))
        .filter_map(|text| HeaderValue::from_str(&text).ok())
        .collect()
}

/// The `Set-Cookie` headers that make a browser forget a dead token.
pub(crate) fn forget_token(request: &HeaderMap) -> impl Iterator<Item = HeaderValue> {
    forget(request, COOKIE_TOKEN, "; HttpOnly")
}

/// The `Set-Cookie` headers that end a browser's session.
pub(crate) fn forget_all(request: &HeaderMap) -> impl Iterator<Item = HeaderValue> {
    let others = [COOKIE_USER, COOKIE_CSRF].into_iter().flat_map(|name| forget(request, name, ""));
    forget_token(request).chain(others)
}

/// Only a cookie of the same place is forgotten. Where a browser may hold one in both places, both go: else the one that is left
/// would be sent ahead of the next session's.
fn forget(request: &HeaderMap, name: &str, script: &str) -> impl Iterator<Item = HeaderValue> {
    let places = if is_https(request) { &[OWN_PLACE, FRAME][..] } else { &[""] };
    places
        .iter()
        .filter_map(move |place| HeaderValue::from_str(&format!("{name}=; Path=/; Max-Age=0{script}{place}")).ok())
}

/// The `Set-Cookie` header by which this browser's sessions belong to a frame within another site; `None` where no
/// browser would take such cookies, for want of TLS, and where the browser says that it shows the page in a window of its own
/// (W3C Fetch Metadata).
pub(crate) fn embed(request: &HeaderMap) -> Option<HeaderValue> {
    let own_window = request.get("sec-fetch-dest").is_some_and(|dest| dest.as_bytes() == b"document");
    (is_https(request) && !own_window)
        .then(|| HeaderValue::from_static("MMEMBED=1; Path=/; HttpOnly; Secure; SameSite=None; Partitioned"))
}

/// Where a browser keeps the cookies: with the site, or with the site as a frame within another one, which browsers
/// without third-party cookies keep apart for each such site (CHIPS).
fn place(request: &HeaderMap) -> &'static str {
    match (is_https(request), cookie(request, COOKIE_EMBED) == Some("1")) {
        (true, true) => FRAME,
        (true, false) => OWN_PLACE,
        (false, _) => "",
    }
}

const OWN_PLACE: &str = "; Secure";
const FRAME: &str = "; Secure; SameSite=None; Partitioned";

/// TLS ends in the gate in front of us, which says so.
fn is_https(headers: &HeaderMap) -> bool {
    headers.get("x-forwarded-proto").is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"https"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(k, v)| (http::HeaderName::from_static(k), HeaderValue::from_str(v).unwrap())).collect()
    }

    fn carried_by(pairs: &[(&'static str, &str)], query: &str) -> Option<(String, Carriage)> {
        carried(&headers(pairs), &Query::parse(query))
    }

    #[test]
    fn a_cookie_wins_over_a_header_and_a_header_over_the_query() {
        let cookie = ("cookie", "a=b; MMAUTHTOKEN=fromcookie");
        let bearer = ("authorization", "BEARER fromheader");
        assert_eq!(carried_by(&[cookie, bearer], ""), Some(("fromcookie".into(), Carriage::Cookie)));
        assert_eq!(carried_by(&[bearer], "access_token=q"), Some(("fromheader".into(), Carriage::Header)));
        assert_eq!(carried_by(&[("authorization", "token t")], ""), Some(("t".into(), Carriage::Header)));
        assert_eq!(carried_by(&[], "access_token=q"), Some(("q".into(), Carriage::Query)));
        assert_eq!(carried_by(&[("authorization", "Basic dTpw")], ""), None);
    }

    #[test]
    fn an_overlong_token_is_cut() {
        let long = format!("Bearer {}", "x".repeat(4_000));
        assert_eq!(carried_by(&[("authorization", &long)], "").unwrap().0.len(), TOKEN_LEN_MAX);
    }

    #[test]
    fn a_changing_request_by_cookie_needs_the_csrf_token_or_the_script_header() {
        assert!(proves_same_site(&Method::GET, &headers(&[]), "c"));
        assert!(!proves_same_site(&Method::POST, &headers(&[]), "c"));
        assert!(!proves_same_site(&Method::POST, &headers(&[("x-csrf-token", "other")]), "c"));
        assert!(proves_same_site(&Method::POST, &headers(&[("x-csrf-token", "c")]), "c"));
        assert!(proves_same_site(&Method::POST, &headers(&[("x-requested-with", "XMLHttpRequest")]), "c"));
        assert!(
            !proves_same_site(&Method::POST, &headers(&[("x-csrf-token", "")]), ""),
            "an empty secret proves nothing"
        );
    }

    #[test]
    fn cookies_are_secure_behind_tls_and_cross_site_only_when_embedded() {
        let session = SessionCookies { token: "t", user_id: "u", csrf: "c", max_age_s: 60 };
        let plain = set_cookies(&headers(&[]), &session);
        assert_eq!(plain[0], "MMAUTHTOKEN=t; Path=/; Max-Age=60; HttpOnly");
        let tls = set_cookies(&headers(&[("x-forwarded-proto", "https")]), &session);
        assert_eq!(tls[2], "MMCSRF=c; Path=/; Max-Age=60; Secure");
        let embedded = set_cookies(&headers(&[("x-forwarded-proto", "https"), ("cookie", "MMEMBED=1")]), &session);
        assert_eq!(embedded[1], "MMUSERID=u; Path=/; Max-Age=60; Secure; SameSite=None; Partitioned");
    }

    #[test]
    fn what_is_forgotten_is_forgotten_in_both_places() {
        let texts = |request: &HeaderMap| -> Vec<String> {
            forget_token(request).map(|value| value.to_str().unwrap().to_owned()).collect()
        };
        for cookies in ["MMEMBED=1", "MMAUTHTOKEN=t"] {
            let tls = headers(&[("x-forwarded-proto", "https"), ("cookie", cookies)]);
            assert_eq!(
                texts(&tls),
                [
                    "MMAUTHTOKEN=; Path=/; Max-Age=0; HttpOnly; Secure",
                    "MMAUTHTOKEN=; Path=/; Max-Age=0; HttpOnly; Secure; SameSite=None; Partitioned"
                ]
            );
            assert_eq!(forget_all(&tls).count(), 6);
        }
        assert_eq!(texts(&headers(&[])), ["MMAUTHTOKEN=; Path=/; Max-Age=0; HttpOnly"]);
    }

    #[test]
    fn only_a_frame_makes_sessions_those_of_a_frame() {
        let tls = ("x-forwarded-proto", "https");
        assert!(embed(&headers(&[tls, ("sec-fetch-dest", "iframe")])).is_some());
        assert!(embed(&headers(&[tls])).is_some(), "an older browser does not say");
        assert!(embed(&headers(&[tls, ("sec-fetch-dest", "document")])).is_none());
        assert!(embed(&headers(&[("sec-fetch-dest", "iframe")])).is_none(), "without TLS no browser takes it");
    }
}
