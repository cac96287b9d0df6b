//! `mail-import`: each post as a message in a folder of a mailbox, dated as it was said.
//!
//! Graph makes such a message in one request and never changes its dates or text afterwards, so a post that is edited becomes a
//! message once more and the earlier one is deleted. Nothing is sent to anybody.
//!
//! Invariants
//! - A message's `Message-ID` follows from the journal's entry: what may have been made is looked for by it before it is made again.
//! - The message with the new text is there before the one with the old text goes.

use microsoft::html;
use microsoft::mail::{self, Correspondent, Kept};
use microsoft::{Call, Failure};
use model::event::PostState;
use model::{Event, Outcome, Precedence, UnixMillis};

use super::TargetError;
use super::item::{LOOK_AGAIN_MS, LOOKS};
use super::ledger::{Item, State};
use super::remote::{Part, Remote};
use super::runner::{Loaded, NOT_THERE, Runner, name_of};
use super::teams::{Facts, Work, hash, placeholder, time};

/// Characters of a post that its subject shows.
const SUBJECT_CHARS: usize = 80;

/// The next step towards the entry's state.
pub(super) fn next(facts: &Facts<'_>) -> Work {
    match facts.event {
        Event::Post(state) if state.delete_at.0 != 0 => match facts.own.parts.is_empty() {
            true => Work::Nothing,
            false => Work::Discard,
        },
        Event::Post(state) => {
            let html = text(state, facts.author);
            match facts.own.parts.last() {
                Some(last) if last.hash != hash(&html) => Work::Keep { html },
                Some(_) if facts.own.parts.len() > 1 => Work::Discard,
                Some(_) => Work::Nothing,
                None => Work::Keep { html },
            }
        }
        // Nothing else is routed here.
        Event::Reaction(_)
        | Event::File(_)
        | Event::User(_)
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

/// The body. Author and time stand in it too: programs show senders in ways of their own.
fn text(state: &PostState, author: &str) -> String {
    let edited = if state.edit_at.0 != 0 { ", edited" } else { "" };
    let files: String = state.files.iter().map(placeholder).collect();
    format!(
        "<p><strong>{}</strong> &middot; {}{edited}</p>{}{files}",
        html::escape(author),
        time(state.create_at),
        html::render(&state.message)
    )
}

/// The channel, and how the post begins.
fn subject(lane: &str, state: &PostState) -> String {
    let first = state.message.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let file = state.files.first().map_or("", |file| file.name.as_str());
    let shown = if first.is_empty() { file } else { first };
    let short: String = shown.chars().filter(|c| !c.is_control()).take(SUBJECT_CHARS).collect();
    let more = if short.chars().count() < shown.chars().count() { " [...]" } else { "" };
    format!("{lane}: {short}{more}")
}

/// What a program takes as an address, for people who have none here.
fn address(email: &str, username: &str) -> String {
    let is_plain = |text: &str| text.chars().all(|c| c.is_ascii_graphic() && !"<>(),;:\"\\[]".contains(c));
    match email.split_once('@') {
        Some((name, host)) if !name.is_empty() && !host.is_empty() && is_plain(email) && !host.contains('@') => {
            email.to_owned()
        }
        // RFC 2606: a domain that never is.
        Some(_) | None => format!("{username}@holdfast.invalid"),
    }
}

impl Runner {
    /// The `Message-ID` of what an item becomes.
    fn message_id(&self, item: &Item) -> String {
        let entry = item.id.to_string().replace('/', ".");
        format!("<{entry}@{}.holdfast>", self.target.name)
    }

    pub(super) async fn keep_mail(&mut self, item: &Item, loaded: &Loaded, html: &str) -> Result<(), TargetError> {
        let Event::Post(state) = &loaded.event else { return self.again_soon(item).await };
        let mailbox = self.target.mailbox.clone().unwrap_or_default();
        let folder = match self.folder_of_mail(item.precedence).await {
            Ok(folder) => folder,
            Err(failure) => return self.failed(item, &failure, true).await,
        };
        let user = state.user_id;
        let from = self
            .shared
            .blocking(move |shared| {
                let known = shared.options.core.user(user).ok();
                let nobody = || Correspondent { name: "unknown".into(), address: "unknown@holdfast.invalid".into() };
                Ok(known.map_or_else(nobody, |user| Correspondent {
                    name: name_of(&user),
                    address: address(&user.email, &user.username),
                }))
            })
            .await?;
        let to = mailbox.contains('@').then(|| Correspondent { name: item.lane.clone(), address: mailbox.clone() });
        let kept = Kept {
            from,
            to,
            subject: subject(&item.lane, state),
            html: html.to_owned(),
            at: state.create_at,
            message_id: self.message_id(item),
            answers: loaded.post.as_ref().map(|post| post.root.clone()).filter(|root| !root.is_empty()),
            is_important: item.precedence <= Precedence::Immediate,
        };
        let call = mail::keep(&mailbox, &folder, &kept, item.precedence);
        match self.send(item, call).await?.and_then(|answer| mail::id_of(&answer)) {
            Ok(id) => self.mail_is_there(item, loaded, html, id).await,
            Err(failure) => {
                if matches!(&failure, Failure::Refused(refusal) if refusal.status.as_u16() == 404) {
                    // Somebody may have removed the folder.
                    self.mail_folder = None;
                }
                self.failed(item, &failure, false).await
            }
        }
    }

    async fn mail_is_there(&mut self, item: &Item, loaded: &Loaded, html: &str, id: String) -> Result<(), TargetError> {
        let mut own = loaded.own.remote.clone();
        own.parts.push(Part { id, hash: hash(html) });
        // Answers name it.
        own.root = self.message_id(item);
        own.gone = false;
        self.went_on(item, &item.object, own, None).await
    }

    /// Looks for what may have been made.
    pub(super) async fn settle_mail(&mut self, item: &Item, loaded: &Loaded, html: &str) -> Result<(), TargetError> {
        match self.find_mail(item).await {
            Ok(Some(id)) => self.mail_is_there(item, loaded, html, id).await,
            Ok(None) => self.not_found(item, NOT_THERE).await,
            Err(failure) => self.look_failed(item, &failure).await,
        }
    }

    /// The id of the message that the item became.
    pub(super) async fn find_mail(&self, item: &Item) -> Result<Option<String>, Failure> {
        let mailbox = self.target.mailbox.clone().unwrap_or_default();
        let call = mail::find(&mailbox, &self.message_id(item), item.precedence);
        self.pick(call, |value| value["id"].as_str().map(str::to_owned)).await
    }

    /// Deletes the oldest message of an object; the last one takes the object along.
    pub(super) async fn discard_mail(
        &mut self,
        item: &Item,
        object: &str,
        mut remote: Remote,
    ) -> Result<(), TargetError> {
        if remote.parts.is_empty() {
            return self.again_soon(item).await;
        }
        let mailbox = self.target.mailbox.clone().unwrap_or_default();
        match self.send(item, mail::discard(&mailbox, &remote.parts[0].id, item.precedence)).await? {
            Ok(_) => {}
            // Somebody deleted it by hand; or it was made a moment ago, and reading lags behind writing.
            Err(Failure::Refused(refusal)) if refusal.status.as_u16() == 404 => {
                if item.tries + 1 < LOOKS {
                    let (row, due) = (item.row, UnixMillis(self.shared.now().0 + LOOK_AGAIN_MS));
                    let reason = "what is to be deleted is not there; looked for once more";
                    return self.shared.ledger(move |ledger| ledger.again(row, due, true, reason)).await;
                }
            }
            Err(failure) => return self.failed(item, &failure, true).await,
        }
        remote.parts.remove(0);
        remote.gone = remote.parts.is_empty();
        self.went_on(item, object, remote, None).await
    }

    /// The folder's id; the folder is made where it is missing.
    async fn folder_of_mail(&mut self, precedence: Precedence) -> Result<String, Failure> {
        if let Some(folder) = &self.mail_folder {
            return Ok(folder.clone());
        }
        let own = |text: &Option<String>| text.clone().unwrap_or_default();
        let (mailbox, name) = (own(&self.target.mailbox), own(&self.target.folder));
        let found = self.pick(mail::folders(&mailbox, precedence), |value| mail::folder_named(value, &name)).await?;
        let id = match found {
            Some(id) => id,
            // Made by somebody else meanwhile it is refused, and found by the next try.
            None => {
                mail::id_of(&self.shared.options.graph.call(mail::make_folder(&mailbox, &name, precedence)).await?)?
            }
        };
        self.mail_folder = Some(id.clone());
        Ok(id)
    }

    /// The first of a list that fits.
    async fn pick(
        &self,
        call: Call,
        fits: impl Fn(&serde_json::Value) -> Option<String> + Send,
    ) -> Result<Option<String>, Failure> {
        let mut pages = self.shared.options.graph.pages(call);
        while let Some(page) = pages.next().await {
            let page = page?;
            if let Some(found) = page.value.iter().find_map(&fits) {
                return Ok(Some(found));
            }
            if page.is_last {
                break;
            }
        }
        Ok(None)
    }

    /// A later state of the post was told: what may have been made of this one goes, and then it ends.
    pub(super) async fn superseded_mail(&mut self, item: &Item) -> Result<(), TargetError> {
        let (target, object) = (self.target.name.clone(), item.object.clone());
        let mut own = self.shared.ledger(move |ledger| Ok(ledger.standing(&target, &object)?.remote)).await?;
        if item.state == State::Unknown {
            return match self.find_mail(item).await {
                Ok(Some(id)) => {
                    if own.parts.iter().all(|part| part.id != id) {
                        own.parts.insert(0, Part { id, hash: String::new() });
                    }
                    self.went_on(item, &item.object, own, None).await
                }
                Ok(None) => self.not_found(item, NOT_THERE).await,
                Err(failure) => self.look_failed(item, &failure).await,
            };
        }
        // Of a post that stands there one message is to.
        if own.parts.len() > usize::from(!own.gone) {
            return self.discard_mail(item, &item.object, own).await;
        }
        self.ended(item, Outcome::Superseded, None).await
    }

    /// Its content was purged while it may have been made: what is there is noted, so that the order removes it.
    pub(super) async fn settle_mail_without_content(
        &mut self,
        item: &Item,
        mut own: Remote,
    ) -> Result<(), TargetError> {
        match self.find_mail(item).await {
            Ok(Some(id)) => {
                own.parts.push(Part { id, hash: String::new() });
                self.ended_purged(item, own).await
            }
            Ok(None) if item.looks + 1 >= LOOKS => self.ended(item, Outcome::Purged, None).await,
            Ok(None) => self.not_found(item, NOT_THERE).await,
            Err(failure) => self.look_failed(item, &failure).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::targets::testkit::post_state;
    use microsoft::Cloud;

    fn step(state: &PostState, own: &Remote) -> Work {
        let event = Event::Post(state.clone());
        next(&Facts {
            event: &event,
            precedence: Precedence::Routine,
            author: "Alice <a>",
            own,
            post: None,
            files: &[],
            withdrawn: false,
            anybody_reacts: false,
            cloud: Cloud::Global,
        })
    }

    #[test]
    fn a_post_is_kept_kept_again_when_it_changes_and_discarded() {
        let (mut own, mut state) = (Remote::default(), post_state(1, "**hello**"));
        let Work::Keep { html } = step(&state, &own) else { panic!() };
        assert!(
            html.contains("Alice &lt;a&gt;") && html.contains("2023-11-14 22:13:21Z") && html.contains("<strong>hello")
        );
        own.parts.push(Part { id: "1".into(), hash: hash(&html) });
        assert_eq!(step(&state, &own), Work::Nothing);
        state.message = "other".to_owned();
        let Work::Keep { html } = step(&state, &own) else { panic!() };
        own.parts.push(Part { id: "2".into(), hash: hash(&html) });
        assert_eq!(step(&state, &own), Work::Discard, "the earlier one goes once the later one is there");
        own.parts.remove(0);
        assert_eq!(step(&state, &own), Work::Nothing);
        state.delete_at = UnixMillis(9);
        assert_eq!(step(&state, &own), Work::Discard);
        assert_eq!(step(&state, &Remote { gone: true, ..Remote::default() }), Work::Nothing);
    }

    #[test]
    fn a_subject_shows_channel_and_beginning() {
        let of = |text: &str| subject("alpha/ops", &post_state(1, text));
        assert_eq!(of("\n hello\nworld"), "alpha/ops:  hello");
        assert!(of(&"x".repeat(200)).ends_with("x [...]"));
        assert_eq!(of(""), "alpha/ops: ");
    }

    #[test]
    fn who_has_no_address_gets_one_that_reaches_nobody() {
        let of = |email: &str| address(email, "anna");
        assert_eq!(of("anna@example.org"), "anna@example.org");
        for odd in ["", "anna", "@x", "a@b@c", "a b@c", "a<b@c"] {
            assert_eq!(of(odd), "anna@holdfast.invalid", "{odd}");
        }
    }
}
