//! Whom a message mentions.
//!
//! A message is cut into words as the real server cuts it (`StandardMentionParser`); code and addresses are left out. What mentions
//! a user is kept in `mention_words`: `@name`, their own keywords in lower case, and their first name as written. So
//! finding the mentioned costs a look-up per word of the message, however many members the channel has.

use std::collections::{BTreeMap, BTreeSet};

use model::Id;
use rusqlite::{Connection, params};
use serde_json::Value;

use crate::access::may_in_channel;
use crate::channels::member;
use crate::core::{Inner, Tx, lock};
use crate::posts::is_join_leave;
use crate::rows::{PostRow, all, count, first_id, get, nth_id, run, to_json, user};
use crate::types::{Channel, Session, StringMap, User};

/// From this many members on, nobody mentions everyone (the real server's `MaxNotificationsPerChannel`).
const EVERYONE_MAX: i64 = 1_000;

/// Most keywords of one user that count, as clients offer far fewer.
const KEYWORDS_MAX: usize = 100;

/// Longest word that can be somebody's name or keyword, in bytes: names have at most 64.
const WORD_BYTES_MAX: usize = 256;

/// Most words of a post that count: a message of the greatest length has about half as many.
const WORDS_MAX: usize = 16_384;

/// Most text of a post that is looked through, in bytes: the longest message, and as much again of its attachments.
const TEXT_BYTES_MAX: usize = 128 * 1_024;

/// Names may end in what also ends a sentence: so many marks at a word's end may belong to a name.
const MARKS_MAX: usize = 8;

/// The words of a text that may mention somebody.
#[derive(Debug, Default)]
pub(crate) struct Words(Vec<Word>);

/// One word. The first of `forms` that mentions somebody counts; if none does, every one of `parts`.
#[derive(Debug)]
struct Word {
    /// As written, then with less and less of the punctuation at its end; at most [`MARKS_MAX`] + 2.
    forms: Vec<String>,
    /// What stands between punctuation.
    parts: Vec<String>,
}

impl Words {
    /// The words of a post: its message, and the texts of its attachments.
    pub(crate) fn of(row: &PostRow) -> Self {
        let mut words = Self::default();
        let mut left = TEXT_BYTES_MAX;
        let mut add = |text: &str| {
            let text = &text[..text.floor_char_boundary(left)];
            left -= text.len();
            words.add(text);
        };
        add(&row.message);
        if row.props.contains("\"attachments\"")
            && let Some(Value::Array(attachments)) = row.props_map().get("attachments")
        {
            for attachment in attachments {
                let fields = attachment["fields"].as_array().into_iter().flatten().map(|f| &f["value"]);
                for text in [&attachment["pretext"], &attachment["text"]].into_iter().chain(fields) {
                    add(text.as_str().unwrap_or(""));
                }
            }
        }
        words
    }

    fn add(&mut self, text: &str) {
        let text = without_addresses(&without_code(text));
        let inside = |c: char| c.is_alphanumeric() || matches!(c, ':' | '.' | '-' | '_' | '@');
        for word in text.split(|c| !inside(c)).filter(|w| !w.is_empty()) {
            if word.starts_with(':') && word.ends_with(':') {
                // An emoji.
                continue;
            }
            let word = word.trim_start_matches([':', '.', '-', '_']);
            if self.0.len() == WORDS_MAX {
                return;
            }
            let mut forms = vec![word.to_owned()];
            if word.len() > WORD_BYTES_MAX {
                // No name is so long, but what is written without spaces may have a keyword inside of it.
                if !word.is_ascii() {
                    self.0.push(Word { parts: Vec::new(), forms });
                }
                continue;
            }
            // Every mark is one byte.
            let bare = word.trim_end_matches(['.', '-', ':', '_']).len();
            let marks = (word.len() - bare).saturating_sub(1).min(MARKS_MAX);
            if bare < word.len() {
                forms.extend((bare..=bare + marks).rev().map(|end| word[..end].to_owned()));
            }
            let has_parts = !word.starts_with('@') && word.contains(['.', '-', ':']);
            let parts = word.split(['.', '-', ':']).filter(|p| has_parts && !p.is_empty()).map(str::to_owned);
            self.0.push(Word { parts: parts.collect(), forms });
        }
    }

    /// Everything that somebody's keyword could be equal to.
    fn candidates(&self) -> BTreeSet<String> {
        let every = self.0.iter().flat_map(|w| w.forms.iter().chain(&w.parts));
        let short = every.filter(|w| !w.is_empty() && w.len() <= WORD_BYTES_MAX);
        short.flat_map(|w| [w.clone(), w.to_lowercase()]).collect()
    }

    fn has_wide(&self) -> bool {
        self.0.iter().any(|w| !w.forms[0].is_ascii())
    }

    /// Does the text address everyone, or everyone who is online?
    fn addresses(&self) -> (bool, bool) {
        let says = |what: &[&str]| {
            let every = self.0.iter().flat_map(|w| w.forms.iter().chain(&w.parts));
            every.into_iter().any(|w| w.starts_with('@') && what.contains(&w.to_lowercase().as_str()))
        };
        (says(&["@all", "@channel"]), says(&["@here"]))
    }

    /// Every user under the words, where `known` holds whom a keyword mentions. Keywords with letters beyond ASCII
    /// are also found inside of words: not every script puts spaces between them.
    fn users(&self, known: &BTreeMap<String, Vec<Id>>, wide: &[(String, Id)]) -> BTreeSet<Id> {
        let mut found = BTreeSet::new();
        let check = |word: &String, found: &mut BTreeSet<Id>| {
            let users = known.get(&word.to_lowercase()).or_else(|| known.get(word));
            found.extend(users.into_iter().flatten().copied());
            users.is_some()
        };
        for word in &self.0 {
            if word.forms.iter().any(|form| check(form, &mut found)) {
                continue;
            }
            for part in &word.parts {
                check(part, &mut found);
            }
            if !word.forms[0].is_ascii() {
                found.extend(wide.iter().filter(|(key, _)| word.forms[0].contains(key.as_str())).map(|(_, user)| user));
            }
        }
        found
    }
}

/// The text without addresses of the web, bare ones and those of links: a name in one mentions nobody.
fn without_addresses(text: &str) -> String {
    const BEGINNINGS: [&str; 4] = ["http://", "https://", "ftp://", "www."];
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    let mut before = ' ';
    // What follows the last bracket is not searched for another one at each of many links.
    let after_links = text.rfind(')').map_or(usize::MAX, |at| text.len() - at);
    while let Some(c) = rest.chars().next() {
        let begins = |b: &&str| rest.get(..b.len()).is_some_and(|start| start.eq_ignore_ascii_case(b));
        let left_out = if rest.starts_with("](") {
            if rest.len() >= after_links { rest.find(')').unwrap_or(1) } else { 1 }
        } else if !before.is_alphanumeric() && BEGINNINGS.iter().any(begins) {
            rest.find(|c: char| c.is_whitespace() || c == '<').unwrap_or(rest.len())
        } else {
            0
        };
        if left_out > 0 {
            kept.push(' ');
            before = ' ';
            rest = &rest[left_out..];
        } else {
            kept.push(c);
            before = c;
            rest = &rest[c.len_utf8()..];
        }
    }
    kept
}

/// The text without code spans and code blocks: what stands in them mentions nobody.
fn without_code(text: &str) -> String {
    if !text.contains(['`', '~']) && !text.contains("    ") && !text.contains('\t') {
        return text.to_owned();
    }
    let mut kept = String::with_capacity(text.len());
    let mut fence: Option<String> = None;
    let mut after_blank = true;
    for line in text.lines() {
        let bare = line.trim_start_matches(' ');
        let indented = line.len() - bare.len() >= 4 || line.starts_with('\t');
        let mark: String = bare.chars().take_while(|c| bare.starts_with(*c) && matches!(c, '`' | '~')).collect();
        match &fence {
            Some(open) => {
                if !indented && mark.starts_with(open.as_str()) && bare[mark.len()..].trim().is_empty() {
                    fence = None;
                }
            }
            None if !indented && mark.len() >= 3 && !bare[mark.len()..].contains('`') => fence = Some(mark),
            None if indented && after_blank => {}
            None => {
                kept.push_str(line);
                kept.push('\n');
                after_blank = bare.is_empty();
            }
        }
    }
    without_spans(&kept)
}

/// The text without what stands between equally long runs of backticks.
fn without_spans(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('`') {
        let run = rest[at..].len() - rest[at..].trim_start_matches('`').len();
        kept.push_str(&rest[..at]);
        let inner = &rest[at + run..];
        match closing(inner, run) {
            Some(end) => {
                kept.push(' ');
                rest = &inner[end + run..];
            }
            None => {
                kept.push(' ');
                rest = inner;
            }
        }
    }
    kept.push_str(rest);
    kept
}

/// Where a run of exactly `run` backticks begins.
fn closing(text: &str, run: usize) -> Option<usize> {
    let mut from = 0;
    while let Some(at) = text[from..].find('`').map(|at| from + at) {
        let found = text[at..].len() - text[at..].trim_start_matches('`').len();
        if found == run {
            return Some(at);
        }
        from = at + found;
    }
    None
}

/// The words that mention a user by themselves.
fn keywords(u: &User) -> BTreeSet<String> {
    let own = u.notify_props.get("mention_keys").map_or("", String::as_str);
    let keys = own.split(',').map(str::trim).filter(|k| !k.is_empty()).map(str::to_lowercase).take(KEYWORDS_MAX);
    let mut words: BTreeSet<String> = keys.collect();
    words.insert(format!("@{}", u.username.to_lowercase()));
    if u.notify_props.get("first_name").is_some_and(|v| v == "true") && !u.first_name.is_empty() {
        words.insert(u.first_name.clone());
    }
    words
}

/// Does a member want to be mentioned by what addresses everyone?
fn hears_everyone(of_user: &StringMap, of_member: &StringMap) -> bool {
    let is = |map: &StringMap, key: &str, value: &str| map.get(key).is_some_and(|v| v == value);
    let ignores = is(of_member, "ignore_channel_mentions", "on")
        || (is(of_member, "mark_unread", "mention") && is(of_member, "ignore_channel_mentions", "default"));
    is(of_user, "channel", "true") && !ignores
}

/// Changes of header and purpose quote what people wrote, and address nobody.
fn may_address_everyone(kind: &str) -> bool {
    !matches!(kind, "system_header_change" | "system_purpose_change")
}

/// Whom the message "somebody was added" is about.
fn added_user(row: &PostRow) -> Option<Id> {
    if row.kind != "system_add_to_channel" {
        return None;
    }
    row.props_map().get("addedUserId")?.as_str()?.parse().ok()
}

/// A session that stands for a user in checks of what they may do; nobody can log in with it.
pub(crate) fn acting_as(u: &User) -> Session {
    Session {
        id: u.id,
        token: String::new(),
        create_at: 0,
        expires_at: 0,
        last_activity_at: 0,
        user_id: u.id,
        device_id: String::new(),
        roles: u.roles.clone(),
        is_oauth: false,
        expired_notify: false,
        props: StringMap::new(),
        team_members: Vec::new(),
        local: false,
    }
}

impl Tx<'_> {
    /// Notes which words mention the user; part of writing their row.
    pub(crate) fn put_mention_words(&mut self, u: &User) -> rusqlite::Result<()> {
        run(&self.db, "DELETE FROM mention_words WHERE user_id = ?1", [u.id.as_str()])?;
        for word in keywords(u) {
            let sql = "INSERT INTO mention_words (word, user_id, wide) VALUES (?1, ?2, ?3)";
            run(&self.db, sql, params![word, u.id.as_str(), !word.is_ascii()])?;
        }
        Ok(())
    }

    /// The active members of the channel whom the post mentions, its author never. Everyone in a direct or group
    /// channel is mentioned.
    pub(crate) fn mentioned(&self, c: &Channel, row: &PostRow) -> rusqlite::Result<BTreeSet<Id>> {
        let mut found = if let Some(added) = added_user(row) {
            member(&self.db, c.id, added)?.map(|m| m.user_id).into_iter().collect()
        } else if is_join_leave(&row.kind) {
            BTreeSet::new()
        } else if c.is_direct_or_group() {
            active_members(&self.db, c.id)?
        } else {
            mentioned_by_words(self.core, &self.db, c, row)?
        };
        found.remove(&row.user_id);
        Ok(found)
    }
}

fn active_members(db: &Connection, channel: Id) -> rusqlite::Result<BTreeSet<Id>> {
    let sql = "SELECT m.user_id FROM channel_members m JOIN users u ON u.id = m.user_id
        WHERE m.channel_id = ?1 AND m.delete_at = 0 AND u.delete_at = 0";
    Ok(all(db, sql, [channel.as_str()], first_id)?.into_iter().collect())
}

/// Those whom the words of a post mention, whatever the kind of the channel.
pub(crate) fn mentioned_by_words(
    core: &Inner,
    db: &Connection,
    c: &Channel,
    row: &PostRow,
) -> rusqlite::Result<BTreeSet<Id>> {
    let words = Words::of(row);
    let candidates = words.candidates();
    if candidates.is_empty() {
        return Ok(BTreeSet::new());
    }
    // In this order: the words are few, the members may be many.
    let among = "CROSS JOIN channel_members m ON m.user_id = w.user_id AND m.channel_id = ?1 AND m.delete_at = 0
        CROSS JOIN users u ON u.id = w.user_id AND u.delete_at = 0";
    let read = |r: &rusqlite::Row<'_>| Ok((r.get::<_, String>(0)?, nth_id(r, 1)?));
    let sql = format!(
        "SELECT w.word, w.user_id FROM mention_words w {among} WHERE w.word IN (SELECT value FROM json_each(?2))"
    );
    let mut known: BTreeMap<String, Vec<Id>> = BTreeMap::new();
    for (word, user) in all(db, &sql, params![c.id.as_str(), to_json(&candidates)], read)? {
        known.entry(word).or_default().push(user);
    }
    let mut wide = Vec::new();
    if words.has_wide() {
        let sql = format!("SELECT w.word, w.user_id FROM mention_words w {among} WHERE w.wide = 1");
        wide = all(db, &sql, [c.id.as_str()], read)?;
    }
    let mut found = words.users(&known, &wide);
    let (everyone, here) = words.addresses();
    if (everyone || here) && may_address_everyone(&row.kind) {
        found.extend(addressed(core, db, c, row.user_id, everyone)?);
    }
    Ok(found)
}

/// The members whom `by` addresses with `@all` or, where not `everyone`, with `@here`.
fn addressed(core: &Inner, db: &Connection, c: &Channel, by: Id, everyone: bool) -> rusqlite::Result<Vec<Id>> {
    let sql = "SELECT count(*) FROM channel_members WHERE channel_id = ?1 AND delete_at = 0";
    let author = get(db, "SELECT * FROM users WHERE id = ?1", [by.as_str()], user)?;
    let allowed = match author {
        Some(author) => may_in_channel(db, &acting_as(&author), c, "use_channel_mentions")?,
        None => false,
    };
    if !allowed || count(db, sql, [c.id.as_str()])? >= EVERYONE_MAX {
        return Ok(Vec::new());
    }
    let sql = "SELECT m.user_id, u.notify_props, m.notify_props FROM channel_members m JOIN users u ON u.id = m.user_id
        WHERE m.channel_id = ?1 AND m.delete_at = 0 AND u.delete_at = 0";
    let members = all(db, sql, [c.id.as_str()], |r| {
        let map = |column: usize| -> rusqlite::Result<StringMap> {
            Ok(serde_json::from_str(r.get_ref(column)?.as_str()?).unwrap_or_default())
        };
        Ok((nth_id(r, 0)?, map(1)?, map(2)?))
    })?;
    let statuses = lock(&core.statuses);
    let online = |user: &Id| statuses.get(user).is_some_and(|s| s.status == "online");
    let hears = members
        .into_iter()
        .filter(|(user, of_user, of_member)| hears_everyone(of_user, of_member) && (everyone || online(user)));
    Ok(hears.map(|(user, ..)| user).collect())
}

/// What mentions one user in one channel, for counting over many posts.
pub(crate) struct Reader {
    user: Id,
    known: BTreeMap<String, Vec<Id>>,
    wide: Vec<(String, Id)>,
    everyone: bool,
}

impl Reader {
    /// A user as a member of a channel; `@here` counts, as the real server has it for the past.
    pub(crate) fn new(u: &User, of_member: &StringMap) -> Self {
        let keys = keywords(u);
        Self {
            user: u.id,
            wide: keys.iter().filter(|k| !k.is_ascii()).map(|k| (k.clone(), u.id)).collect(),
            known: keys.into_iter().map(|k| (k, vec![u.id])).collect(),
            everyone: hears_everyone(&u.notify_props, of_member),
        }
    }

    /// Does the post mention the user?
    pub(crate) fn is_mentioned(&self, c: &Channel, row: &PostRow) -> bool {
        if row.user_id == self.user {
            return false;
        }
        if let Some(added) = added_user(row) {
            return added == self.user;
        }
        if is_join_leave(&row.kind) {
            return false;
        }
        if c.is_direct_or_group() {
            return true;
        }
        let words = Words::of(row);
        let (everyone, here) = words.addresses();
        ((everyone || here) && self.everyone && may_address_everyone(&row.kind))
            || words.users(&self.known, &self.wide).contains(&self.user)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit::Node;

    fn found(text: &str, keys: &[&str]) -> bool {
        let me: Id = "ybndrfg8ejkmcpqxot1uwisza3".parse().unwrap();
        let mut words = Words::default();
        words.add(text);
        let known = keys.iter().map(|k| ((*k).to_owned(), vec![me])).collect();
        let wide: Vec<_> = keys.iter().filter(|k| !k.is_ascii()).map(|k| ((*k).to_owned(), me)).collect();
        words.users(&known, &wide).contains(&me)
    }

    #[test]
    fn a_name_is_found_as_the_real_server_finds_it() {
        for text in
            ["@bob", "hi @BOB!", "@bob.", "(@bob)", "@bob:", "-@bob", "@bob's", "mail/@bob", "**@bob**", "@bob_"]
        {
            assert!(found(text, &["@bob"]), "{text}");
        }
        for text in
            ["bob", "@bobby", "@bob-x", "x@bob", ":@bob:", "`@bob`", "```\n@bob\n```", "~~~ js\n@bob", "    @bob"]
        {
            assert!(!found(text, &["@bob"]), "{text}");
        }
        for text in ["http://x.example/@bob", "(HTTPS://x.example/@bob)", "[text](http://x/@bob)", "www.x.example/@bob"]
        {
            assert!(!found(text, &["@bob"]), "{text}");
        }
        for text in ["![@bob](http://x/y.png)", "[@bob](x)", "see http://x.example @bob", "[a](b) @bob", "](@bob"] {
            assert!(found(text, &["@bob"]), "{text}");
        }
        // Names may end in what also ends a sentence: the longest that exists counts.
        assert!(found("@bob.-", &["@bob."]));
        assert!(found("two ``a ` b`` spans, @bob and `c`", &["@bob"]));
        assert!(found("a ` alone, @bob", &["@bob"]));
    }

    #[test]
    fn a_post_costs_memory_by_its_length_whatever_it_consists_of() {
        let bytes = |words: &Words| -> usize {
            words.0.iter().flat_map(|w| w.forms.iter().chain(&w.parts)).map(String::len).sum()
        };
        let mut marked = Words::default();
        marked.add(&format!("@bob{}", ".".repeat(200)));
        assert!(bytes(&marked) < 1_500, "{} bytes", bytes(&marked));
        assert!(found(&format!("@bob{}", ".".repeat(200)), &["@bob"]));
        assert!(found("@bob........", &["@bob....."]), "a name with marks");
        let node = Node::new(1);
        let alice = node.user("alice");
        let (_, square) = node.team(&alice, "mission");
        let post = node.say(&alice, square.id, None, "x");
        let mut row = node.core.read(|db| crate::posts::post_row_by_id(db, post.id)).unwrap().unwrap();
        for text in [format!("a{}", ".".repeat(790_000)), "a. ".repeat(260_000), "](".repeat(390_000)] {
            row.props = serde_json::json!({ "attachments": [{ "text": text }] }).to_string();
            let words = Words::of(&row);
            let cost = bytes(&words) + words.candidates().iter().map(String::len).sum::<usize>();
            assert!(cost < 1 << 20, "{cost} bytes for {:?}", &text[..6]);
            assert!(words.0.len() <= WORDS_MAX);
        }
        let long = format!("{}連絡{}", "本部".repeat(200), "せよ".repeat(200));
        assert!(found(&long, &["連絡"]), "what has no spaces is looked into however long it is");
    }

    #[test]
    fn keywords_are_found_in_any_case_names_as_written_and_wide_ones_inside_of_words() {
        assert!(found("Med-Evac now", &["evac"]));
        assert!(found("MEDEVAC: now", &["medevac"]));
        assert!(!found("medevacs", &["medevac"]));
        assert!(found("Alice, come in", &["Alice"]));
        assert!(!found("alice", &["Alice"]));
        assert!(found("本部へ連絡せよ", &["連絡"]));
        assert!(found("Доклад готов", &["доклад"]), "a keyword in lower case");
    }

    #[test]
    fn who_ignores_what_addresses_everyone_is_not_mentioned_by_it() {
        let map = |pairs: &[(&str, &str)]| -> StringMap {
            pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
        };
        let wants = map(&[("channel", "true")]);
        let plain = map(&[("ignore_channel_mentions", "default"), ("mark_unread", "all")]);
        assert!(hears_everyone(&wants, &plain));
        assert!(!hears_everyone(&map(&[("channel", "false")]), &plain));
        assert!(!hears_everyone(&wants, &map(&[("ignore_channel_mentions", "on")])));
        let muted = map(&[("ignore_channel_mentions", "default"), ("mark_unread", "mention")]);
        assert!(!hears_everyone(&wants, &muted));
    }

    #[test]
    fn finding_the_mentioned_costs_the_same_however_many_members_there_are() {
        let steps = |members: usize| {
            let node = Node::new(1);
            let alice = node.user("alice");
            let (_, square) = node.team(&alice, "mission");
            let post = node.say(&alice, square.id, None, "@alice and @member7, look at the bridge");
            node.core
                .write(|tx| {
                    for n in 0..members {
                        let row = crate::users::new_row(node.core.random_id(), tx.now, format!("member{n}"));
                        tx.put_user(&row)?;
                        tx.put_channel_member(&model::event::ChannelMemberState {
                            version: row.version,
                            channel_id: square.id,
                            user_id: row.user.id,
                            create_at: model::UnixMillis(tx.now),
                            delete_at: model::UnixMillis(0),
                            scheme_admin: false,
                        })?;
                    }
                    Ok::<_, rusqlite::Error>(())
                })
                .unwrap();
            crate::rows::STEPS.set(0);
            let look = |db: &Connection| {
                let row = crate::posts::post_row_by_id(db, post.id)?.expect("it was just written");
                mentioned_by_words(&node.core.0, db, &square, &row)
            };
            assert_eq!(node.core.read(look).unwrap().len(), 2, "alice and one member");
            crate::rows::STEPS.get()
        };
        let (few, many) = (steps(10), steps(400));
        assert!(many <= few * 3 / 2, "{few} steps with 10 members, {many} with 400");
    }

    #[test]
    fn an_older_store_learns_the_words_of_its_users_at_the_upgrade() {
        let node = Node::new(1);
        let alice = node.user("alice");
        let props: StringMap = [("mention_keys".to_owned(), "Medevac, \"quoted\",,連絡".to_owned())].into();
        let patch = crate::types::UserPatch { notify_props: Some(props), ..crate::types::UserPatch::default() };
        node.core.patch_user(&alice, alice.user_id, &patch).unwrap();
        let words = |db: &Connection| {
            let sql = "SELECT word, wide FROM mention_words ORDER BY word";
            all(db, sql, [], |r| Ok((r.get::<_, String>(0)?, r.get::<_, bool>(1)?)))
        };
        let before = node.core.read(words).unwrap();
        assert_eq!(
            before.iter().map(|(w, _)| w.as_str()).collect::<Vec<_>>(),
            ["\"quoted\"", "@alice", "medevac", "連絡"]
        );
        node.core
            .write(|tx| tx.db.execute_batch("DELETE FROM mention_words"))
            .and_then(|()| node.core.write(|tx| tx.db.execute_batch(crate::schema::WORDS_OF_USERS)))
            .unwrap();
        assert_eq!(node.core.read(words).unwrap(), before);
    }
}
