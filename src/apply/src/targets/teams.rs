//! `teams-delegated`: what is to be done next in a channel of Teams, so that it shows an entry's state. Pure.
//!
//! Asked again after each step with what stands there by then, until nothing is left to do: a restart in between needs no
//! memory of steps. One account writes everything, so the author and the original time stand in the text, and a reaction of
//! several people is one.

use jiff::Timestamp;
use microsoft::Cloud;
use microsoft::html;
use microsoft::quickxor::QuickXor;
use microsoft::teams::{Content, marker};
use model::event::{FileStub, PostState};
use model::{Event, Id, Precedence, UnixMillis};

use super::remote::{Part, Remote};
use super::route::Missing;

/// What is known when the next step is looked for.
#[derive(Debug)]
pub struct Facts<'a> {
    /// The entry's state.
    pub event: &'a Event,
    /// Its class.
    pub precedence: Precedence,
    /// Name of its author, as people read it.
    pub author: &'a str,
    /// What stands at the target of the object itself.
    pub own: &'a Remote,
    /// Of the post that it belongs to: the root of a reply, the post of a reaction or file.
    pub post: Option<&'a Remote>,
    /// Of a removed post: its files; of a file: itself.
    pub files: &'a [(Id, Remote)],
    /// For a file: its post was removed, or is about to be.
    pub withdrawn: bool,
    /// For a reaction: whether anybody shows it once this one is counted.
    pub anybody_reacts: bool,
    /// Decides what can be changed and removed.
    pub cloud: Cloud,
}

/// The next step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    /// It is as it should be.
    Nothing,
    /// The target cannot show it.
    Missing(Missing),
    /// A message is to be posted as part number `part` of the object; `thread` is what it replies to.
    Post {
        /// The message that it replies to.
        thread: Option<String>,
        /// What it says.
        content: Content,
        /// Which part it is.
        part: usize,
        /// Finds it again.
        marker: String,
    },
    /// A message is to be imported as part number `part` of the object; `thread` is what it replies to.
    Import {
        /// The message that it replies to.
        thread: Option<String>,
        /// What it says, without its author.
        html: String,
        /// Which part it is.
        part: usize,
    },
    /// A message is to be in the mailbox.
    Keep {
        /// What it says.
        html: String,
    },
    /// The oldest message of the object is to go from the mailbox.
    Discard,
    /// A part is to say something else.
    Edit {
        /// Which part.
        part: usize,
        /// What it is to say.
        content: Content,
    },
    /// A message of this object is to go: of the object itself or of a file of it.
    Remove {
        /// Key of the file; `None` for the object itself.
        file: Option<Id>,
    },
    /// A file of a removed post is to go from the drive.
    RemoveFile(Id),
    /// The account's reaction on the post is to be so.
    React {
        /// The character.
        emoji: String,
        /// Set or withdrawn.
        present: bool,
    },
    /// The bytes of the file are to be in the channel's folder.
    Upload,
}

impl Work {
    /// Would it tell readers something, rather than take something back?
    pub fn tells(&self) -> bool {
        match self {
            Self::Post { .. }
            | Self::Import { .. }
            | Self::Keep { .. }
            | Self::Edit { .. }
            | Self::Upload
            | Self::React { present: true, .. } => true,
            Self::Nothing | Self::Missing(_) | Self::Discard | Self::Remove { .. } | Self::RemoveFile(_) => false,
            Self::React { present: false, .. } => false,
        }
    }
}

/// The next step towards the entry's state.
pub fn next(facts: &Facts<'_>) -> Work {
    match facts.event {
        Event::Post(state) if state.delete_at.0 != 0 => remove(facts),
        Event::Post(state) => write(facts, state),
        Event::Reaction(state) => {
            let Some(emoji) = html::emoji(&state.emoji_name) else { return Work::Missing(Missing::Reaction) };
            let Some(post) = facts.post.filter(|post| !post.parts.is_empty()) else {
                return Work::Missing(Missing::Reaction);
            };
            let shown = post.reactions.iter().any(|r| r == emoji);
            if post.gone || shown == facts.anybody_reacts {
                return Work::Nothing;
            }
            Work::React { emoji: emoji.to_owned(), present: facts.anybody_reacts }
        }
        Event::File(state) => {
            if facts.withdrawn {
                return remove_files(facts);
            }
            if facts.own.gone {
                return Work::Nothing;
            }
            let Some(file) = &facts.own.file else { return Work::Upload };
            if !facts.own.parts.is_empty() {
                return Work::Nothing;
            }
            let marker = marker(state.stub.id.as_str(), 0);
            let shown = html::escape(&state.stub.name);
            let html =
                format!("<p>{} <a href=\"{}\">{shown}</a><br>{}</p>", CLIP, html::escape(&file.url), small(&marker));
            let reference = microsoft::teams::FileReference {
                guid: file.guid.clone(),
                url: file.url.clone(),
                name: file.name.clone(),
            };
            let has_guid = !file.guid.is_empty();
            let content = Content { html, is_important: false, file: has_guid.then_some(reference) };
            Work::Post { thread: facts.post.and_then(Remote::thread).map(str::to_owned), content, part: 0, marker }
        }
        // Nothing else is routed here.
        Event::User(_)
        | Event::Team(_)
        | Event::TeamMember(_)
        | Event::Channel(_)
        | Event::ChannelMember(_)
        | Event::Purge(_)
        | Event::Acknowledgement(_)
        | Event::Bookmark(_)
        | Event::Emoji(_) => Work::Nothing,
    }
}

const CLIP: char = '\u{1F4CE}';

/// What goes after what was delivered: messages, then files. Also the way of a purge.
pub fn remove(facts: &Facts<'_>) -> Work {
    let can_remove = facts.cloud == Cloud::Global;
    if !facts.own.gone && !facts.own.parts.is_empty() {
        return if can_remove { Work::Remove { file: None } } else { Work::Missing(Missing::Delete) };
    }
    remove_files(facts)
}

fn remove_files(facts: &Facts<'_>) -> Work {
    for (id, file) in facts.files.iter().filter(|(_, file)| !file.gone) {
        if !file.parts.is_empty() && facts.cloud == Cloud::Global {
            return Work::Remove { file: Some(*id) };
        }
        if file.file.is_some() || file.meant.is_some() {
            return Work::RemoveFile(*id);
        }
    }
    Work::Nothing
}

fn write(facts: &Facts<'_>, state: &PostState) -> Work {
    if facts.own.gone && !facts.own.parts.is_empty() {
        // Restored after it was removed: Teams' own undo would bring the old text back; it is written anew below a note.
        return Work::Missing(Missing::Edit);
    }
    let parts = parts(state, facts.author);
    let (thread, is_reply) = match facts.post.and_then(Remote::thread) {
        Some(root) => (Some(root.to_owned()), true),
        None => (facts.own.thread().map(str::to_owned), false),
    };
    for (n, html) in parts.iter().enumerate() {
        let content = Content {
            html: html.clone(),
            is_important: n == 0 && !is_reply && facts.precedence <= Precedence::Immediate,
            file: None,
        };
        match facts.own.parts.get(n) {
            None => {
                return Work::Post { thread: thread.clone(), content, part: n, marker: marker(state.id.as_str(), n) };
            }
            Some(part) if part.hash == hash(html) => {}
            Some(_) if facts.cloud != Cloud::Global => return Work::Missing(Missing::Edit),
            Some(_) => return Work::Edit { part: n, content },
        }
    }
    // A text that became shorter: what is left over says so, since its place in the thread cannot be taken back.
    for (n, part) in facts.own.parts.iter().enumerate().skip(parts.len()) {
        let html = format!("<p><em>(edited away)</em><br>{}</p>", small(&marker(state.id.as_str(), n)));
        if part.hash != hash(&html) {
            if facts.cloud != Cloud::Global {
                return Work::Missing(Missing::Edit);
            }
            return Work::Edit { part: n, content: Content { html, ..Content::default() } };
        }
    }
    Work::Nothing
}

/// Names what a text is, to see whether a later one differs.
pub fn hash(html: &str) -> String {
    QuickXor::of(html.as_bytes())
}

/// The messages that a post becomes.
pub fn parts(state: &PostState, author: &str) -> Vec<String> {
    let texts = html::parts(&state.message, html::UNITS_MAX);
    let last = texts.len() - 1;
    let id = state.id.as_str();
    let one = |(n, text): (usize, &String)| {
        let head = match n {
            0 => {
                let edited = if state.edit_at.0 != 0 { ", edited" } else { "" };
                format!("<p><strong>{}</strong> &middot; {}{edited}</p>", html::escape(author), time(state.create_at))
            }
            n => format!("<p><em>({} of {})</em></p>", n + 1, last + 1),
        };
        let files: String = if n == last { state.files.iter().map(placeholder).collect() } else { String::new() };
        format!("{head}{}{files}<p>{}</p>", html::render(text), small(&marker(id, n)))
    };
    texts.iter().enumerate().map(one).collect()
}

/// What a reader sees of a file before its bytes have arrived.
pub fn placeholder(file: &FileStub) -> String {
    format!("<p>{CLIP} {} ({})</p>", html::escape(&file.name), size(file.size))
}

fn small(marker: &str) -> String {
    format!("<em>{}</em>", html::escape(marker))
}

/// Bytes as people read them.
pub fn size(bytes: u64) -> String {
    match bytes {
        0..=999 => format!("{bytes} B"),
        1_000..=999_999 => format!("{:.1} kB", bytes as f64 / 1e3),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}

/// A moment as it stands in texts: UTC, because the reader's zone is not the mission's.
pub fn time(at: UnixMillis) -> String {
    let at = Timestamp::from_millisecond(at.0).unwrap_or(Timestamp::UNIX_EPOCH);
    at.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

/// A part that stands there now.
pub fn part(id: String, html: &str) -> Part {
    Part { id, hash: hash(html) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::targets::testkit::{file, id, post_state, reaction};

    fn facts<'a>(event: &'a Event, own: &'a Remote, post: Option<&'a Remote>) -> Facts<'a> {
        Facts {
            event,
            precedence: Precedence::Routine,
            author: "Alice <a>",
            own,
            post,
            files: &[],
            withdrawn: false,
            anybody_reacts: true,
            cloud: Cloud::Global,
        }
    }

    /// Carries the steps out, as the service would, and says how many it took.
    fn converge(event: &Event, own: &mut Remote, post: Option<&Remote>, cloud: Cloud) -> (Vec<Work>, Work) {
        let mut done = Vec::new();
        loop {
            let work = next(&Facts { cloud, ..facts(event, own, post) });
            match &work {
                Work::Post { content, part: n, thread, .. } => {
                    assert_eq!(own.parts.len(), *n);
                    own.parts.push(part(format!("m{n}"), &content.html));
                    own.root = post.and(thread.clone()).unwrap_or_default();
                }
                Work::Edit { part: n, content } => own.parts[*n].hash = hash(&content.html),
                Work::Remove { file: None } => own.gone = true,
                Work::Nothing | Work::Missing(_) => return (done, work),
                Work::Import { .. } | Work::Keep { .. } | Work::Discard => panic!("{work:?}"),
                Work::Remove { .. } | Work::RemoveFile(_) | Work::React { .. } | Work::Upload => panic!("{work:?}"),
            }
            done.push(work);
            assert!(done.len() < 50);
        }
    }

    #[test]
    fn a_post_is_written_changed_and_removed_in_one_step_each() {
        let mut own = Remote::default();
        let mut state = post_state(1, "**hello** <b>");
        let (done, end) = converge(&Event::Post(state.clone()), &mut own, None, Cloud::Global);
        let [Work::Post { content, marker, thread: None, .. }] = &done[..] else { panic!("{done:?}") };
        assert!(content.html.contains("Alice &lt;a&gt;") && content.html.contains("2023-11-14 22:13:21Z"));
        assert!(content.html.contains("<strong>hello</strong> &lt;b&gt;") && content.html.contains(marker.as_str()));
        assert_eq!(end, Work::Nothing);
        state.is_pinned = true;
        assert!(converge(&Event::Post(state.clone()), &mut own, None, Cloud::Global).0.is_empty());
        state.message = "other".to_owned();
        let (done, _) = converge(&Event::Post(state.clone()), &mut own, None, Cloud::Global);
        assert!(matches!(&done[..], [Work::Edit { part: 0, .. }]), "{done:?}");
        state.delete_at = UnixMillis(9);
        let (done, _) = converge(&Event::Post(state), &mut own, None, Cloud::Global);
        assert_eq!(done, [Work::Remove { file: None }]);
    }

    #[test]
    fn a_long_text_goes_on_in_replies_and_shrinks_again() {
        let mut own = Remote::default();
        let mut state = post_state(1, &"word ".repeat(6_000));
        let (done, _) = converge(&Event::Post(state.clone()), &mut own, None, Cloud::Global);
        assert!(done.len() >= 3);
        assert!(matches!(&done[1], Work::Post { thread: Some(root), part: 1, .. } if root == "m0"));
        for work in &done {
            let Work::Post { content, .. } = work else { panic!() };
            assert!(html::units(&content.html) < 14_000);
        }
        state.message = "short".to_owned();
        let (shrunk, _) = converge(&Event::Post(state), &mut own, None, Cloud::Global);
        assert_eq!(shrunk.len(), done.len());
    }

    #[test]
    fn what_a_cloud_does_not_offer_is_missing_by_name() {
        for cloud in [Cloud::UsGovL4, Cloud::UsGovL5, Cloud::Other] {
            let mut own = Remote::default();
            let mut state = post_state(1, "hello");
            assert_eq!(converge(&Event::Post(state.clone()), &mut own, None, cloud).1, Work::Nothing);
            state.message = "other".to_owned();
            assert_eq!(converge(&Event::Post(state.clone()), &mut own, None, cloud).1, Work::Missing(Missing::Edit));
            state.delete_at = UnixMillis(9);
            assert_eq!(converge(&Event::Post(state), &mut own, None, cloud).1, Work::Missing(Missing::Delete));
        }
    }

    #[test]
    fn a_reply_goes_to_its_root_and_a_reply_without_one_begins_a_thread() {
        let root = Remote { parts: vec![part("r".to_owned(), "x")], ..Remote::default() };
        let mut state = post_state(2, "reply");
        state.root_id = Some(id(1));
        let event = Event::Post(state);
        let work = |post| next(&facts(&event, &Remote::default(), post));
        assert!(matches!(work(Some(&root)), Work::Post { thread: Some(r), .. } if r == "r"));
        assert!(matches!(work(Some(&Remote::default())), Work::Post { thread: None, .. }));
    }

    #[test]
    fn one_account_shows_a_reaction_while_anybody_does() {
        let event = reaction(1, 7, "+1", true);
        let mut post = Remote { parts: vec![part("r".to_owned(), "x")], ..Remote::default() };
        let own = Remote::default();
        let work = |post: &Remote, anybody| next(&Facts { anybody_reacts: anybody, ..facts(&event, &own, Some(post)) });
        assert_eq!(work(&post, true), Work::React { emoji: "👍".to_owned(), present: true });
        post.reactions = vec!["👍".to_owned()];
        assert_eq!(work(&post, true), Work::Nothing);
        assert_eq!(work(&post, false), Work::React { emoji: "👍".to_owned(), present: false });
        let custom = reaction(1, 7, "holdfast", true);
        assert_eq!(next(&facts(&custom, &own, Some(&post))), Work::Missing(Missing::Reaction));
    }

    #[test]
    fn a_file_is_uploaded_then_shown_and_goes_with_its_post() {
        let event = file(9, 1, "plan <1>.pdf", 10);
        let post = Remote { parts: vec![part("r".to_owned(), "x")], ..Remote::default() };
        let mut own = Remote::default();
        assert_eq!(next(&facts(&event, &own, Some(&post))), Work::Upload);
        own.file = Some(super::super::remote::RemoteFile { url: "https://s.example/p".into(), ..Default::default() });
        let Work::Post { thread, content, .. } = next(&facts(&event, &own, Some(&post))) else { panic!() };
        assert_eq!(thread.as_deref(), Some("r"));
        assert!(content.html.contains("plan &lt;1&gt;.pdf"));
        own.parts = vec![part("f".to_owned(), &content.html)];
        assert_eq!(next(&facts(&event, &own, Some(&post))), Work::Nothing);
        let only = [(id(9), own.clone())];
        let withdrawn = |own: &Remote, files: &[(Id, Remote)]| {
            next(&Facts { withdrawn: true, files, ..facts(&event, own, Some(&post)) })
        };
        assert_eq!(withdrawn(&own, &only), Work::Remove { file: Some(id(9)) });
        assert_eq!(withdrawn(&Remote::default(), &[(id(9), Remote::default())]), Work::Nothing, "never uploaded then");
        let mut gone = post_state(1, "");
        gone.delete_at = UnixMillis(9);
        let gone = Event::Post(gone);
        let post = Remote { gone: true, ..post };
        let mut files = vec![(id(9), own)];
        let work = |files: &[(Id, Remote)]| next(&Facts { files, ..facts(&gone, &post, None) });
        assert_eq!(work(&files), Work::Remove { file: Some(id(9)) });
        files[0].1.parts.clear();
        assert_eq!(work(&files), Work::RemoveFile(id(9)));
        files[0].1.gone = true;
        assert_eq!(work(&files), Work::Nothing);
    }
}
