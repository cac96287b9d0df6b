//! Mattermost's Markdown as the HTML that Teams and Outlook keep.
//!
//! Teams strips what it does not know and rewrites the rest, so only tags of its subset are written at all (reference 4.1):
//! `p br strong em del a ul ol li blockquote codeblock code h1 h2 h3 table tr th td`, and `hr`.
//!
//! Invariants
//! - Every tag in the output was written here; whatever came as text, HTML of the author among it, comes out escaped.
//! - A link leads to http, https or mail and nowhere else; a picture of somebody else's server becomes a link to it.
//! - [`parts`] leaves out no line of what it splits, and each part renders within the limit.

use pulldown_cmark::{CodeBlockKind, CowStr, Event, HeadingLevel, Options, Parser, Tag, TagEnd};

/// What Teams takes of one message, in UTF-16 units of HTML: its limit is about 28 KB for everything, counted in UTF-16.
/// A tenth is left for the author's line and mentions.
pub const UNITS_MAX: usize = 12_500;

/// Longest language name of a code block that is passed on.
const LANGUAGE_MAX: usize = 20;

/// The message as HTML.
pub fn render(markdown: &str) -> String {
    let mut writer = Writer::default();
    let options = Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH | Options::ENABLE_TASKLISTS;
    for event in Parser::new_ext(markdown, options) {
        writer.event(event);
    }
    writer.html
}

/// Text in which nothing is a tag or an entity, for text and for quoted attributes.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    push_escaped(&mut out, text);
    out
}

/// Do both show the same words? Teams writes tags, entities and white space of its own, so these do not count.
pub fn same_words(a: &str, b: &str) -> bool {
    words(a) == words(b)
}

/// What is left of HTML without tags, entities and white space.
fn words(html: &str) -> String {
    let (mut out, mut rest) = (String::with_capacity(html.len()), html);
    while let Some(at) = rest.find(['<', '&']) {
        let (before, tail) = rest.split_at(at);
        out.push_str(before);
        let end = if tail.starts_with('<') { tail.find('>') } else { tail.find(';') };
        rest = end.map_or("", |end| &tail[end + 1..]);
    }
    out.push_str(rest);
    out.retain(|c| !c.is_whitespace() && c != '\u{a0}');
    out
}

/// Length as Teams counts it.
pub fn units(html: &str) -> usize {
    html.encode_utf16().count()
}

/// The message in pieces that each render to at most `units_max` UTF-16 units. A code block that is cut is closed and
/// opened again. Something longer than `units_max` when escaped, down to one character, is given as it is.
pub fn parts(markdown: &str, units_max: usize) -> Vec<String> {
    if units(&render(markdown)) <= units_max || markdown.chars().count() < 2 {
        return vec![markdown.to_owned()];
    }
    let (first, second) = halves(markdown);
    let mut all = parts(&first, units_max);
    all.extend(parts(&second, units_max));
    all
}

/// Cut at the line end, else the space, else the character that is nearest to the middle.
fn halves(text: &str) -> (String, String) {
    let middle = text.len() / 2;
    let nearest = |is_cut: &dyn Fn(char) -> bool| {
        let ends = text.char_indices().filter(|(_, c)| is_cut(*c)).map(|(i, c)| i + c.len_utf8());
        ends.filter(|end| *end < text.len()).min_by_key(|end| end.abs_diff(middle))
    };
    // A line end far from the middle would leave one half as long as the whole.
    let close = |cut: &usize| (text.len() / 8..=text.len() - text.len() / 8).contains(cut);
    let cut = nearest(&|c| c == '\n').filter(close).or_else(|| nearest(&char::is_whitespace).filter(close));
    let cut = cut.or_else(|| nearest(&|_| true)).unwrap_or(text.len());
    let (first, second) = text.split_at(cut);
    let whole = || (first.to_owned(), second.to_owned());
    let Some(fence) = open_fence(first) else { return whole() };
    let indent = &fence[..fence.len() - fence.trim_start().len()];
    let mark: String = fence.trim_start().chars().take_while(|c| matches!(c, '`' | '~')).collect();
    // Of the opening line only what is rendered: somebody's long info line would make the second half as long as the whole.
    let opening = format!("{indent}{mark}{}", language(&fence.trim_start()[mark.len()..]).unwrap_or_default());
    let gap = if first.ends_with('\n') { "" } else { "\n" };
    // Each half is at most 15/16 of the whole, so that splitting ends.
    if opening.len() + 1 > text.len() / 16 || gap.len() + mark.len() > text.len() / 16 {
        return whole();
    }
    (format!("{first}{gap}{mark}"), format!("{opening}\n{second}"))
}

/// The opening line of the code fence that is not closed at the end of the text.
fn open_fence(text: &str) -> Option<&str> {
    let mut open: Option<&str> = None;
    for line in text.lines() {
        let mark = line.trim_start();
        if !mark.starts_with("```") && !mark.starts_with("~~~") {
            continue;
        }
        open = match open {
            None => Some(line),
            Some(fence) if fence.trim_start().as_bytes()[0] == mark.as_bytes()[0] => None,
            Some(fence) => Some(fence),
        };
    }
    open
}

#[derive(Default)]
struct Writer {
    html: String,
    /// In a code block no text is looked into.
    in_code: bool,
    in_table_head: bool,
    /// In a link no address becomes a link of its own. `true` where the link was written, `false` where its target was not fit.
    links: Vec<bool>,
}

impl Writer {
    fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Start(tag) => self.start(tag),
            Event::End(tag) => self.end(tag),
            Event::Text(text) if self.in_code || !self.links.is_empty() => push_escaped(&mut self.html, &text),
            Event::Text(text) => self.text(&text),
            Event::Code(code) => {
                self.html.push_str("<code>");
                push_escaped(&mut self.html, &code);
                self.html.push_str("</code>");
            }
            // An author's HTML is text, as in Mattermost.
            Event::Html(text) | Event::InlineHtml(text) => push_escaped(&mut self.html, &text),
            // In Mattermost a line end is a line end.
            Event::SoftBreak | Event::HardBreak => self.html.push_str("<br>"),
            Event::Rule => self.html.push_str("<hr>"),
            Event::TaskListMarker(done) => self.html.push_str(if done { "☑ " } else { "☐ " }),
            // These need options that are not set; as text nothing of them is lost.
            Event::InlineMath(text) | Event::DisplayMath(text) | Event::FootnoteReference(text) => {
                push_escaped(&mut self.html, &text);
            }
        }
    }

    fn start(&mut self, tag: Tag<'_>) {
        match tag {
            Tag::Paragraph => self.html.push_str("<p>"),
            Tag::Heading { level, .. } => self.html.push_str(&format!("<{}>", heading(level))),
            Tag::BlockQuote(_) => self.html.push_str("<blockquote>"),
            Tag::CodeBlock(kind) => {
                self.in_code = true;
                self.html.push_str(&match kind {
                    CodeBlockKind::Fenced(info) => match language(&info) {
                        Some(language) => format!("<codeblock class=\"{language}\"><code>"),
                        None => "<codeblock><code>".to_owned(),
                    },
                    CodeBlockKind::Indented => "<codeblock><code>".to_owned(),
                });
            }
            Tag::List(None) => self.html.push_str("<ul>"),
            Tag::List(Some(1)) => self.html.push_str("<ol>"),
            Tag::List(Some(first)) => self.html.push_str(&format!("<ol start=\"{first}\">")),
            Tag::Item => self.html.push_str("<li>"),
            Tag::Table(_) => self.html.push_str("<table>"),
            Tag::TableHead => {
                self.in_table_head = true;
                self.html.push_str("<tr>");
            }
            Tag::TableRow => self.html.push_str("<tr>"),
            Tag::TableCell => self.html.push_str(if self.in_table_head { "<th>" } else { "<td>" }),
            Tag::Emphasis => self.html.push_str("<em>"),
            Tag::Strong => self.html.push_str("<strong>"),
            Tag::Strikethrough => self.html.push_str("<del>"),
            Tag::Link { dest_url, .. } => self.open_link(&dest_url),
            Tag::Image { dest_url, title, .. } => {
                self.open_link(&dest_url);
                if !title.is_empty() {
                    push_escaped(&mut self.html, &format!("{title} "));
                }
            }
            // Not enabled, or nothing but a frame around text.
            Tag::HtmlBlock
            | Tag::FootnoteDefinition(_)
            | Tag::DefinitionList
            | Tag::DefinitionListTitle
            | Tag::DefinitionListDefinition
            | Tag::Superscript
            | Tag::Subscript
            | Tag::MetadataBlock(_) => {}
        }
    }

    fn end(&mut self, tag: TagEnd) {
        match tag {
            TagEnd::Paragraph => self.html.push_str("</p>"),
            TagEnd::Heading(level) => self.html.push_str(&format!("</{}>", heading(level))),
            TagEnd::BlockQuote(_) => self.html.push_str("</blockquote>"),
            TagEnd::CodeBlock => {
                self.in_code = false;
                self.html.push_str("</code></codeblock>");
            }
            TagEnd::List(true) => self.html.push_str("</ol>"),
            TagEnd::List(false) => self.html.push_str("</ul>"),
            TagEnd::Item => self.html.push_str("</li>"),
            TagEnd::Table => self.html.push_str("</table>"),
            TagEnd::TableHead => {
                self.in_table_head = false;
                self.html.push_str("</tr>");
            }
            TagEnd::TableRow => self.html.push_str("</tr>"),
            TagEnd::TableCell => self.html.push_str(if self.in_table_head { "</th>" } else { "</td>" }),
            TagEnd::Emphasis => self.html.push_str("</em>"),
            TagEnd::Strong => self.html.push_str("</strong>"),
            TagEnd::Strikethrough => self.html.push_str("</del>"),
            TagEnd::Link | TagEnd::Image => {
                if self.links.pop() == Some(true) {
                    self.html.push_str("</a>");
                }
            }
            TagEnd::HtmlBlock
            | TagEnd::FootnoteDefinition
            | TagEnd::DefinitionList
            | TagEnd::DefinitionListTitle
            | TagEnd::DefinitionListDefinition
            | TagEnd::Superscript
            | TagEnd::Subscript
            | TagEnd::MetadataBlock(_) => {}
        }
    }

    /// A link inside a link (a picture that is one) belongs to the outer one.
    fn open_link(&mut self, target: &CowStr<'_>) {
        let fits = is_fit(target) && !self.links.contains(&true);
        if fits {
            self.html.push_str("<a href=\"");
            push_escaped(&mut self.html, target);
            self.html.push_str("\">");
        }
        self.links.push(fits);
    }

    /// Bare addresses become links and short codes emoji.
    fn text(&mut self, text: &str) {
        let mut rest = text;
        while let Some((before, address, after)) = bare_address(rest) {
            push_with_emoji(&mut self.html, before);
            self.html.push_str("<a href=\"");
            push_escaped(&mut self.html, address);
            self.html.push_str("\">");
            push_escaped(&mut self.html, address);
            self.html.push_str("</a>");
            rest = after;
        }
        push_with_emoji(&mut self.html, rest);
    }
}

fn heading(level: HeadingLevel) -> &'static str {
    match level {
        HeadingLevel::H1 => "h1",
        HeadingLevel::H2 => "h2",
        // Teams knows three.
        HeadingLevel::H3 | HeadingLevel::H4 | HeadingLevel::H5 | HeadingLevel::H6 => "h3",
    }
}

/// The first word of a fence's info line, when it is a plain name.
fn language(info: &str) -> Option<String> {
    let word = info.split_whitespace().next()?.to_ascii_lowercase();
    let is_plain = word.len() <= LANGUAGE_MAX && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-#".contains(&b));
    is_plain.then_some(word)
}

fn is_fit(target: &str) -> bool {
    let starts = |scheme: &str| target.get(..scheme.len()).is_some_and(|head| head.eq_ignore_ascii_case(scheme));
    ["http://", "https://", "mailto:"].into_iter().any(starts)
}

/// What stands before the first bare address, the address, and what stands after it.
fn bare_address(text: &str) -> Option<(&str, &str, &str)> {
    let starts = ["https://", "http://"].into_iter().filter_map(|scheme| text.find(scheme));
    let start = starts.min()?;
    let before = text[..start].chars().next_back();
    let tail = &text[start..];
    let end = tail.find(|c: char| c.is_whitespace() || "<>\"`".contains(c)).unwrap_or(tail.len());
    let address = tail[..end].trim_end_matches(['.', ',', ';', ':', '!', '?', ')', ']', '\'', '*', '_']);
    let host = address.split_once("://").map_or("", |(_, host)| host);
    // In the middle of a word, or a scheme alone: text.
    if before.is_some_and(char::is_alphanumeric) || host.is_empty() {
        return None;
    }
    Some((&text[..start], address, &tail[address.len()..]))
}

fn push_with_emoji(out: &mut String, text: &str) {
    let mut rest = text;
    while let Some(open) = rest.find(':') {
        let (before, tail) = rest.split_at(open);
        push_escaped(out, before);
        let name = tail[1..].find(':').map(|len| &tail[1..=len]);
        match name.and_then(emoji) {
            Some(emoji) => {
                out.push_str(emoji);
                rest = &tail[name.map_or(0, str::len) + 2..];
            }
            None => {
                out.push(':');
                rest = &tail[1..];
            }
        }
    }
    push_escaped(out, rest);
}

/// The character that a short code of Mattermost stands for; `None` for a custom emoji.
pub fn emoji(name: &str) -> Option<&'static str> {
    // Mattermost's names are those of gemoji but for a few that it added.
    let name = match name {
        "thumbsup" => "+1",
        "thumbsdown" => "-1",
        other => other,
    };
    emojis::get_by_shortcode(name).map(emojis::Emoji::as_str)
}

fn push_escaped(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // Of the control characters HTML allows only these.
            c if c.is_control() && !matches!(c, '\n' | '\t') => {}
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_told_apart_and_what_teams_makes_of_the_rest_is_not() {
        assert!(same_words("<p><strong>a &lt;b&gt;</strong> c</p>", "<div>\n<b>a&nbsp;&#60;b&gt;</b>  c</div>"));
        assert!(!same_words("<p>a b</p>", "<p>a c</p>"));
        assert!(same_words("", "<p></p>"));
        assert!(same_words("a < b", "a"), "what is no HTML is cut, and does not end the program");
    }

    #[test]
    fn what_mattermost_writes_becomes_what_teams_keeps() {
        for (markdown, html) in [
            ("plain", "<p>plain</p>"),
            ("two\nlines", "<p>two<br>lines</p>"),
            (
                "**bold** _it_ ~~gone~~ `x < y`",
                "<p><strong>bold</strong> <em>it</em> <del>gone</del> <code>x &lt; y</code></p>",
            ),
            ("#### deep", "<h3>deep</h3>"),
            ("- a\n- [x] b", "<ul><li>a</li><li>☑ b</li></ul>"),
            ("3. c\n4. d", "<ol start=\"3\"><li>c</li><li>d</li></ol>"),
            ("> said", "<blockquote><p>said</p></blockquote>"),
            ("```json\n{\"a\": 1}\n```", "<codeblock class=\"json\"><code>{&quot;a&quot;: 1}\n</code></codeblock>"),
            ("|a|b|\n|-|-|\n|1|2|", "<table><tr><th>a</th><th>b</th></tr><tr><td>1</td><td>2</td></tr></table>"),
            ("[map](https://a.example/x?y=1&z=2)", "<p><a href=\"https://a.example/x?y=1&amp;z=2\">map</a></p>"),
            ("see https://a.example/x, ok", "<p>see <a href=\"https://a.example/x\">https://a.example/x</a>, ok</p>"),
            ("![pic](https://a.example/p.png)", "<p><a href=\"https://a.example/p.png\">pic</a></p>"),
            (":+1: :thumbsup: 10:30:45 :nosuch:", "<p>👍 👍 10:30:45 :nosuch:</p>"),
            ("@alice in ~town-square", "<p>@alice in ~town-square</p>"),
        ] {
            assert_eq!(render(markdown), html, "{markdown}");
        }
    }

    /// Every tag that may be in the output; attributes are checked apart.
    const TAGS: &[&str] = &[
        "p",
        "br",
        "strong",
        "em",
        "del",
        "a",
        "ul",
        "ol",
        "li",
        "blockquote",
        "codeblock",
        "code",
        "h1",
        "h2",
        "h3",
        "table",
        "tr",
        "th",
        "td",
        "hr",
    ];

    fn check(html: &str) {
        let mut rest = html;
        while let Some(open) = rest.find('<') {
            let close = rest[open..].find('>').expect("every tag is closed") + open;
            let tag = rest[open + 1..close].trim_start_matches('/');
            let (name, attributes) = tag.split_once(' ').unwrap_or((tag, ""));
            assert!(TAGS.contains(&name), "<{tag}> in {html}");
            let allowed = attributes.is_empty()
                || ["href=\"http://", "href=\"https://", "href=\"mailto:", "class=\"", "start=\""]
                    .iter()
                    .any(|start| attributes.to_ascii_lowercase().starts_with(start));
            assert!(allowed && attributes.matches('"').count() <= 2, "<{tag}> in {html}");
            rest = &rest[close + 1..];
        }
    }

    #[test]
    fn nothing_of_an_author_becomes_a_tag_or_a_link_elsewhere() {
        for hostile in [
            "<script>alert(1)</script>",
            "a <img src=x onerror=alert(1)> b",
            "<iframe src=\"https://a.example\"></iframe>\n\nnext",
            "[x](javascript:alert(1))",
            "[x](data:text/html,<script>)",
            "[x](JaVaScRiPt:alert(1))",
            "![\" onload=\"x](https://a.example/\"onload=\"x)",
            "[x](https://a.example/\"><script>)",
            "```\"><script>\nx\n```",
            "<https://a.example/'onclick='x>",
            "&lt;script&gt; &#60;b&#62;",
            "[![x](javascript:1)](https://a.example)",
        ] {
            let html = render(hostile);
            check(&html);
            assert!(!html.contains("<script") && !html.contains("<img") && !html.contains("<iframe"), "{html}");
            assert!(!html.to_ascii_lowercase().contains("href=\"javascript"), "{html}");
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_written_the_subset_comes_out(text in "[ -~\n<>\\[\\]()`*_#:|é]{0,200}") {
            check(&render(&text));
        }

        #[test]
        fn parts_fit_and_leave_out_no_word(words in proptest::collection::vec("[a-z<&]{1,30}", 1..400)) {
            let text = words.join(" ");
            let all = parts(&text, 400);
            let joined: String = all.concat();
            proptest::prop_assert_eq!(joined, text);
            proptest::prop_assert!(all.iter().all(|part| units(&render(part)) <= 400));
        }

        #[test]
        fn code_in_parts_fits_and_leaves_out_nothing(
            pieces in proptest::collection::vec("```|````|~~~|[a-c]{1,60}|[\"]{1,200}|\n| ", 1..60),
        ) {
            let text: String = pieces.concat();
            let quotes = |text: &str| text.matches('"').count();
            let all = parts(&text, 400);
            proptest::prop_assert_eq!(all.iter().map(|part| quotes(part)).sum::<usize>(), quotes(&text));
            let fits = |part: &String| units(&render(part)) <= 400 || part.chars().count() < 2;
            proptest::prop_assert!(all.iter().all(fits));
        }
    }

    /// The cut fell right behind the opening line, which was put before the second half again: that was the whole once more,
    /// and the node ended with its stack at every start.
    #[test]
    fn splitting_ends_however_long_the_opening_line_of_a_code_block_is() {
        let text = format!("```{}\n{}", "a".repeat(300), "\"".repeat(2_100));
        let all = parts(&text, 12_500);
        assert!(all.len() > 1 && all.iter().all(|part| units(&render(part)) <= 12_500));
        assert_eq!(all.iter().map(|part| part.matches('"').count()).sum::<usize>(), 2_100);
    }

    #[test]
    fn a_code_block_that_is_cut_stays_code() {
        let text = format!("before\n```sh\n{}```\nafter", "echo <hello>\n".repeat(100));
        let all = parts(&text, 1_000);
        assert!(all.len() > 1);
        let shown: usize = all.iter().map(|part| render(part).matches("echo &lt;hello&gt;").count()).sum();
        assert_eq!(shown, 100);
        for part in &all[1..all.len() - 1] {
            let html = render(part);
            assert!(html.starts_with("<codeblock class=\"sh\">") && html.ends_with("</codeblock>"), "{html}");
        }
    }
}
