//! What was written at the edge beside what the simulator committed, item by item: text, author, time, order, thread, reaction,
//! bytes of files.

use std::collections::{BTreeMap, BTreeSet};

use graphsim::{Effect, Oracle, What, iso};

use super::Tenant;
use super::writers::{KEPT_BACK, PLACES, Written};

impl Tenant {
    /// What differs between what was written and what the oracle knows, one line each.
    pub(super) fn differences(&self, written: &[Written]) -> Vec<String> {
        let oracle = self.sim.oracle();
        let mut wrong = self.differences_of_posts(&oracle, written);
        wrong.extend(self.differences_of_records(&oracle, written));
        let place = format!("{}/{}", self.team.id, self.team.channels["Digest"]);
        let sums: Vec<&Effect> = oracle.of(What::MessagePosted).filter(|effect| effect.place == place).collect();
        wrong.extend(differences_of_sums("digest", sums.iter().map(|effect| sent(effect)).collect(), written));
        let letters = oracle.of(What::MailSent).map(|effect| effect.detail["body"]["content"].as_str());
        let letters = letters.map(|letter| letter.expect("a letter has a text")).collect();
        wrong.extend(differences_of_sums("letters", letters, written));
        let chains: BTreeSet<_> = oracle.of(What::NotificationSent).map(|effect| &effect.id).collect();
        if chains.len() != sums.len() {
            wrong.push(format!("digest: {} notices for {} posts", chains.len(), sums.len()));
        }
        if oracle.effects.iter().any(|effect| effect.detail.to_string().contains(KEPT_BACK)) {
            wrong.push("what no mapping names has left".to_owned());
        }
        wrong
    }

    fn differences_of_posts(&self, oracle: &Oracle, written: &[Written]) -> Vec<String> {
        let place = format!("{}/{}", self.team.id, self.team.channels["Ops"]);
        let mut wrong = Vec::new();
        let mut shown: BTreeMap<String, Shown> = BTreeMap::new();
        let mut order: Vec<String> = Vec::new();
        for effect in oracle.effects.iter().filter(|effect| effect.place == place) {
            if effect.what == What::MessagePosted {
                let thread = effect.detail["replyToId"].as_str().map(str::to_owned);
                let (text, reference) = (sent(effect).to_owned(), reference(sent(effect)));
                order.push(reference.clone());
                shown.insert(effect.id.clone(), Shown { reference, text, thread, ..Shown::default() });
                continue;
            }
            // A removal sets a state: after a lost answer it is made again.
            let is_removal = effect.what == What::MessageDeleted;
            let Some(message) = shown.get_mut(&effect.id).filter(|message| !message.gone || is_removal) else {
                wrong.push(format!("posts: {:?} of a message that is not there", effect.what));
                continue;
            };
            if effect.what == What::MessageEdited {
                message.text = sent(effect).to_owned();
            } else if is_removal {
                message.gone = true;
            } else if effect.what == What::ReactionSet {
                message.reacted = true;
            } else {
                wrong.push(format!("posts: {:?}, which nobody asked for", effect.what));
            }
        }
        let of = |id: &str| {
            let reference = format!("{id}.1");
            shown.iter().filter(move |(_, message)| message.reference == reference).collect::<Vec<_>>()
        };
        let mut known = BTreeSet::new();
        for post in written {
            known.insert(format!("{}.1", post.id));
            let found = of(&post.id);
            match (&found[..], post.gone) {
                ([], true) => {}
                ([(_, message)], true) if message.gone => {}
                ([(_, message)], false) if !message.gone => {
                    let thread = post.root.as_deref().and_then(|root| of(root).first().map(|(id, _)| (*id).clone()));
                    let edited = if post.before.is_some() { ", edited" } else { "" };
                    let head =
                        format!("<strong>{}</strong> &middot; {}{edited}</p>", post.author.shown(), time(post.at));
                    if !message.text.contains(&format!("{head}<p>{}</p>", post.text))
                        || message.thread != thread
                        || message.reacted != post.reacted.is_some()
                    {
                        wrong.push(format!("posts: {post:?} stands there as {message:?}"));
                    }
                }
                _ => wrong.push(format!("posts: `{}` is there {} times", post.text, found.len())),
            }
            if let Some(file) = &post.file {
                known.insert(format!("{}.1", file.id));
                let found = of(&file.id);
                let thread = of(&post.id).first().map(|(id, _)| (*id).clone());
                if !matches!(&found[..], [(_, message)] if message.thread == thread && message.text.contains(&file.name))
                {
                    wrong.push(format!("posts: the file {} is shown as {found:?}", file.name));
                }
            }
        }
        wrong.extend(order.iter().filter(|r| !known.contains(*r)).map(|r| format!("posts: `{r}` was never written")));
        let place_of = |post: &Written| order.iter().position(|r| *r == format!("{}.1", post.id));
        wrong.extend(out_of_order("posts", written, place_of));
        wrong
    }

    fn differences_of_records(&self, oracle: &Oracle, written: &[Written]) -> Vec<String> {
        let mut wrong = Vec::new();
        let paths = |part: &str| -> Vec<String> {
            let all = oracle.of(What::FileWritten).filter_map(|effect| effect.detail["path"].as_str());
            all.filter(|path| path.contains(part)).map(str::to_owned).collect()
        };
        let mut records: BTreeMap<&str, String> = BTreeMap::new();
        for lane in PLACES {
            let documents: BTreeSet<String> = paths(&format!("/Holdfast/task-force/{lane}/"))
                .into_iter()
                .filter(|path| path.ends_with(".html"))
                .collect();
            let bytes = documents.iter().filter_map(|path| self.sim.file(&self.team.drive, path));
            records.insert(lane, bytes.map(|bytes| String::from_utf8(bytes.to_vec()).expect("text")).collect());
        }
        for post in written {
            let record = &records[post.lane];
            let rows: Vec<&str> =
                record.split("<div ").filter(|row| row.contains(&format!("id=\"{}\"", post.id))).collect();
            let fits = match (&rows[..], post.gone) {
                ([], true) => true,
                ([row], true) => !row.contains(&post.text) && row.contains("<em>deleted "),
                ([row], false) => is_recorded(row, post, written),
                _ => false,
            };
            if !fits {
                wrong.push(format!("archive: {post:?} is recorded as {rows:?}"));
            }
        }
        let place_of = |post: &Written| records[post.lane].find(&format!("id=\"{}\"", post.id));
        wrong.extend(out_of_order("archive", written, place_of));
        for file in written.iter().filter_map(|post| post.file.as_ref()) {
            let places = paths(&file.id);
            let whole = |path: &String| self.sim.file(&self.team.drive, path).is_some_and(|b| *b == file.content[..]);
            let in_archive = places.iter().filter(|path| path.starts_with("/Holdfast/")).count();
            if (places.len(), in_archive) != (2, 1) || !places.iter().all(whole) {
                wrong.push(format!("archive: {} stands at {places:?}", file.name));
            }
        }
        wrong
    }
}

/// A message in the channel of Teams.
#[derive(Debug, Default)]
struct Shown {
    reference: String,
    text: String,
    thread: Option<String>,
    gone: bool,
    reacted: bool,
}

/// What the service was sent as the text of a message.
fn sent(effect: &Effect) -> &str {
    effect.detail["sent"]["content"].as_str().expect("a message has a text")
}

/// What names a message: the id of the post or file, and the part.
fn reference(text: &str) -> String {
    let (_, rest) = text.rsplit_once("ref ").unwrap_or_else(|| panic!("no reference in {text}"));
    rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '.').collect()
}

/// A moment as readers at the enterprise are shown it.
fn time(at: u64) -> String {
    let (day, time) =
        iso(at).split_once('T').map(|(day, time)| (day.to_owned(), time[..8].to_owned())).expect("a time");
    format!("{day} {time}Z")
}

/// The row of a post in the record says all of it.
fn is_recorded(row: &str, post: &Written, written: &[Written]) -> bool {
    let class = if post.root.is_some() { "reply" } else { "post" };
    let head = format!(
        "class=\"{class}\" id=\"{}\"><p><strong>{}</strong> <time>{}</time>",
        post.id,
        post.author.shown(),
        time(post.at)
    );
    let root = post.root.as_ref().and_then(|root| written.iter().find(|other| other.id == *root));
    let answers = root
        .map(|root| format!(" in reply to <a href=\"#{}\">{}, {}</a>", root.id, root.author.shown(), time(root.at)));
    let reacted = post.reacted.map(|who| format!("\u{1F44D} {}", who.shown()));
    let file = post.file.as_ref().map(|file| format!("\">{}</a> (", file.name));
    let says = |text: &str| row.matches(&format!("<p>{text}</p>")).count() == 1;
    row.starts_with(&head)
        && says(&post.text)
        && post.before.as_deref().is_none_or(says)
        && row.contains(" in reply to ") == answers.is_some()
        && row.contains('\u{1F44D}') == reacted.is_some()
        && row.contains('\u{1F4CE}') == file.is_some()
        && [answers, reacted, file].into_iter().flatten().all(|part| row.contains(&part))
}

/// Sums tell each post once, as it was; its earlier text at most once, and a removed one at most once.
fn differences_of_sums(target: &str, sums: Vec<&str>, written: &[Written]) -> Vec<String> {
    let lines: Vec<&str> = sums.iter().flat_map(|sum| sum.split("<li>").skip(1)).collect();
    let mut wrong = Vec::new();
    for post in written {
        let telling =
            |text: &str| lines.iter().filter(|line| line.contains(&format!("<br>{text}<"))).collect::<Vec<_>>();
        let (now, before) = (telling(&post.text), post.before.as_deref().map_or(Vec::new(), telling));
        let reply = if post.root.is_some() { ", reply" } else { "" };
        let head = format!("{} <em>{}{reply}", post.author.shown(), time(post.at));
        let all_fit = now.iter().chain(&before).all(|line| line.starts_with(&head));
        if before.len() > 1 || now.len() > 1 || (now.is_empty() && !post.gone) || !all_fit {
            wrong.push(format!("{target}: {post:?} is told as {now:?}, before as {before:?}"));
        }
    }
    // What was edited later is told first as it was.
    let first = |post: &Written| {
        let texts = [Some(post.text.as_str()), post.before.as_deref()];
        texts
            .into_iter()
            .flatten()
            .filter_map(|text| lines.iter().position(|l| l.contains(&format!("<br>{text}<"))))
            .min()
    };
    wrong.extend(out_of_order(target, written, first));
    wrong
}

/// What stands in another order than it was written in, channel by channel.
fn out_of_order(target: &str, written: &[Written], place_of: impl Fn(&Written) -> Option<usize>) -> Vec<String> {
    let mut wrong = Vec::new();
    for lane in PLACES {
        let places: Vec<usize> = written.iter().filter(|post| post.lane == lane).filter_map(&place_of).collect();
        if !places.is_sorted() {
            wrong.push(format!("{target}: {lane} is out of order: {places:?}"));
        }
    }
    wrong
}
