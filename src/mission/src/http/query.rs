//! The query string of a request.

/// Decoded `name=value` pairs in the order they stand.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    /// Never fails: what does not decode stays as it is.
    pub(crate) fn parse(text: &str) -> Self {
        let pairs = text.split('&').filter(|p| !p.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name), decode(value))
        });
        Self(pairs.collect())
    }

    /// The first value under `name`, unless it is empty.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == name).map(|(_, v)| v.as_str()).filter(|v| !v.is_empty())
    }

    /// A number that may be missing or nonsense, as the original server reads it.
    pub(crate) fn number(&self, name: &str) -> Option<i64> {
        self.get(name)?.parse().ok()
    }

    /// Go's `strconv.ParseBool`, with false for everything else.
    pub(crate) fn flag(&self, name: &str) -> bool {
        matches!(self.get(name), Some("1" | "t" | "T" | "true" | "TRUE" | "True"))
    }
}

/// Percent-decoding with `+` for a blank. Bytes that are not UTF-8 become U+FFFD.
fn decode(text: &str) -> String {
    percent_decode(&text.replace('+', " "))
}

/// Percent-decoding as in a path.
pub(crate) fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escaped = (bytes[at] == b'%')
            .then(|| bytes.get(at + 1..at + 3))
            .flatten()
            .and_then(|hex| Some((char::from(hex[0]).to_digit(16)? << 4) | char::from(hex[1]).to_digit(16)?));
        match escaped.and_then(|code| u8::try_from(code).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8(out).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_and_blanks_decode_and_broken_escapes_stay() {
        let query = Query::parse("filename=a%20b+c%2Bd.txt&bad=%zz%4&since=12&deleted=true&empty=");
        assert_eq!(query.get("filename"), Some("a b c+d.txt"));
        assert_eq!(query.get("bad"), Some("%zz%4"));
        assert_eq!(query.number("since"), Some(12));
        assert!(query.flag("deleted"));
        assert_eq!(query.get("empty"), None);
    }
}
