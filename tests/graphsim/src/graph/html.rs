//! What Teams makes of HTML: it keeps a small set of tags and writes the rest in its own way.

use std::collections::{BTreeSet, HashMap, HashSet};

const TAGS: &[&str] = &[
    "p",
    "div",
    "br",
    "b",
    "strong",
    "i",
    "em",
    "u",
    "s",
    "strike",
    "del",
    "span",
    "a",
    "ul",
    "ol",
    "li",
    "blockquote",
    "pre",
    "code",
    "codeblock",
    "h1",
    "h2",
    "h3",
    "table",
    "tbody",
    "thead",
    "tr",
    "td",
    "th",
    "hr",
    "img",
    "at",
    "attachment",
    "emoji",
];

/// The body as it is kept.
pub(super) fn kept(html: &str) -> String {
    let attributes: HashMap<&str, HashSet<&str>> = HashMap::from([
        ("a", HashSet::from(["href", "title"])),
        ("img", HashSet::from(["src", "alt", "width", "height", "itemid"])),
        ("at", HashSet::from(["id"])),
        ("attachment", HashSet::from(["id"])),
        ("emoji", HashSet::from(["id", "alt", "title"])),
        ("codeblock", HashSet::from(["class"])),
        ("span", HashSet::from(["style"])),
        ("ol", HashSet::from(["start"])),
    ]);
    let cleaned = ammonia::Builder::new()
        .tags(TAGS.iter().copied().collect())
        .generic_attributes(HashSet::new())
        .tag_attributes(attributes)
        .url_schemes(HashSet::from(["http", "https", "mailto"]))
        .url_relative(ammonia::UrlRelative::PassThrough)
        .filter_style_properties(HashSet::from(["color", "font-size"]))
        .link_rel(None)
        .clean(html)
        .to_string();
    // Text that stands alone is put into a block, as the client writes it.
    if cleaned.trim_start().starts_with('<') { cleaned } else { format!("<div>{cleaned}</div>") }
}

/// Ids of the elements of that name, as often as they stand there.
pub(super) fn ids(html: &str, tag: &str) -> BTreeSet<String> {
    let open = format!("<{tag} ");
    html.match_indices(&open)
        .filter_map(|(at, _)| {
            let element = html[at..].split('>').next()?;
            let (_, rest) = element.split_once("id=")?;
            let quote = rest.chars().next().filter(|c| matches!(c, '"' | '\''))?;
            rest[1..].split(quote).next().map(str::to_owned)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_and_handlers_go_and_what_teams_knows_stays() {
        let html = r#"<p onclick="x()">a<script>b</script> <at id="0">Anna</at><font color="red">c</font></p>"#;
        assert_eq!(kept(html), r#"<p>a <at id="0">Anna</at>c</p>"#);
        assert_eq!(kept("plain &amp; short"), "<div>plain &amp; short</div>");
    }

    #[test]
    fn ids_of_mentions_are_found() {
        assert_eq!(ids(r#"<at id="0">A</at> <at id='1'>B</at>"#, "at"), BTreeSet::from(["0".into(), "1".into()]));
    }
}
