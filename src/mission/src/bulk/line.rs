//! The lines of Mattermost's bulk data, version 1 (`server/channels/app/imports/import_types.go`, 11.6), and reading them one by one.
//!
//! ```text
//!  {"type":"version","version":1} {"type":"team",..} {"type":"channel",..} {"type":"user",..} {"type":"post",..} ..
//! ```
//!
//! What is not named here is passed over, as the original does. Names are as written; who reads them brings them to lower case.

use std::io::{self, BufRead as _, BufReader, Read};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::types::CustomStatus;

/// The only version of the format.
pub(crate) const VERSION: i64 = 1;
/// Longest line: what the original reads (`maxScanTokenSize`).
pub(crate) const LINE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Most values in a line: fields, elements, objects and lists. `{},` is three bytes of a line and 350 of memory; a reply as the original
/// writes it is 13 values in 160 bytes, so that a thread of 75,000 passes.
pub(crate) const LINE_VALUES_MAX: usize = 1_000_000;

/// One line: `kind` says which of the others is there; see [`Line::subject`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Line {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) version: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) info: Option<Info>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) team: Option<TeamLine>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) channel: Option<ChannelLine>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) user: Option<Box<UserLine>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bot: Option<BotLine>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) post: Option<Box<PostLine>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) direct_channel: Option<DirectLine>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) direct_post: Option<Box<PostLine>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) emoji: Option<EmojiLine>,
}

/// What a line is about: what stands in the field that its type names.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Subject<'a> {
    Version,
    /// Roles and schemes, which are built in here.
    PassedOver,
    Team(&'a TeamLine),
    Channel(&'a ChannelLine),
    User(&'a UserLine),
    Bot(&'a BotLine),
    Post(&'a PostLine),
    DirectChannel(&'a DirectLine),
    DirectPost(&'a PostLine),
    Emoji(&'a EmojiLine),
}

impl Line {
    /// What is looked at and carried out, and nothing else that the line holds.
    ///
    /// # Errors
    /// A sentence on a type that there is not, on an object that is missing, and on one that the type does not name.
    pub(crate) fn subject(&self) -> Result<Subject<'_>, String> {
        let held = [
            ("team", self.team.as_ref().map(Subject::Team)),
            ("channel", self.channel.as_ref().map(Subject::Channel)),
            ("user", self.user.as_deref().map(Subject::User)),
            ("bot", self.bot.as_ref().map(Subject::Bot)),
            ("post", self.post.as_deref().map(Subject::Post)),
            ("direct_channel", self.direct_channel.as_ref().map(Subject::DirectChannel)),
            ("direct_post", self.direct_post.as_deref().map(Subject::DirectPost)),
            ("emoji", self.emoji.as_ref().map(Subject::Emoji)),
        ];
        let kind = self.kind.as_str();
        if let Some((other, _)) = held.iter().find(|(name, subject)| *name != kind && subject.is_some()) {
            return Err(format!("a line of type `{kind}` holds a `{other}`"));
        }
        match kind {
            "version" => return Ok(Subject::Version),
            "role" | "scheme" => return Ok(Subject::PassedOver),
            _ => {}
        }
        let known = held.into_iter().find(|(name, _)| *name == kind);
        let (_, subject) = known.ok_or_else(|| format!("lines of type `{kind}` are not known"))?;
        subject.ok_or_else(|| format!("a line of type `{kind}` holds no `{kind}`"))
    }
}

/// Who wrote the file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Info {
    pub(crate) generator: String,
    pub(crate) version: String,
    pub(crate) created: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct TeamLine {
    pub(crate) name: Option<String>,
    pub(crate) display_name: Option<String>,
    #[serde(rename = "type")]
    pub(crate) kind: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) description: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) allow_open_invite: Option<bool>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ChannelLine {
    pub(crate) team: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) display_name: Option<String>,
    #[serde(rename = "type")]
    pub(crate) kind: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) header: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) purpose: Option<String>,
    /// When it was archived; 0 for a channel in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) deleted_at: Option<i64>,
}

#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct UserLine {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) profile_image: Option<String>,
    pub(crate) username: Option<String>,
    pub(crate) email: Option<String>,
    pub(crate) auth_service: Option<String>,
    /// A password in the clear, as scripts write it; no server exports one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) password: Option<String>,
    pub(crate) nickname: Option<String>,
    pub(crate) first_name: Option<String>,
    pub(crate) last_name: Option<String>,
    pub(crate) position: Option<String>,
    pub(crate) roles: Option<String>,
    pub(crate) locale: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) delete_at: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) teams: Option<Vec<TeamOfUser>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) notify_props: Option<NotifyOfUser>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) custom_status: Option<CustomStatus>,
    /// Settings by the names that the format has for them; see [`super::people::SETTINGS`].
    #[serde(flatten)]
    pub(crate) settings: Map<String, Value>,
}

impl std::fmt::Debug for UserLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UserLine").field("username", &self.username).finish_non_exhaustive()
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct NotifyOfUser {
    pub(crate) desktop: Option<String>,
    pub(crate) desktop_sound: Option<String>,
    pub(crate) email: Option<String>,
    pub(crate) mobile: Option<String>,
    pub(crate) mobile_push_status: Option<String>,
    pub(crate) channel: Option<String>,
    pub(crate) comments: Option<String>,
    pub(crate) mention_keys: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct TeamOfUser {
    pub(crate) name: Option<String>,
    pub(crate) roles: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) theme: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) channels: Option<Vec<ChannelOfUser>>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ChannelOfUser {
    pub(crate) name: Option<String>,
    pub(crate) roles: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) notify_props: Option<NotifyOfMember>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) favorite: Option<bool>,
    #[serde(flatten)]
    pub(crate) marks: Marks,
}

/// How far a member has read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Marks {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) mention_count: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) mention_count_root: Option<i64>,
    /// The name is written wrongly in the format.
    #[serde(rename = "urgend_mention_count", skip_serializing_if = "Option::is_none")]
    pub(crate) urgent_mention_count: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) msg_count: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) msg_count_root: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) last_viewed_at: Option<i64>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct NotifyOfMember {
    pub(crate) desktop: Option<String>,
    pub(crate) mobile: Option<String>,
    pub(crate) mark_unread: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) email: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ignore_channel_mentions: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) channel_auto_follow_threads: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct BotLine {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) profile_image: Option<String>,
    pub(crate) username: Option<String>,
    /// Name of a user, or of a plugin.
    pub(crate) owner: Option<String>,
    pub(crate) display_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) description: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) delete_at: Option<i64>,
}

/// A post, a direct post or a reply: they differ in how they say where they belong.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct PostLine {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) team: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) channel: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) channel_members: Option<Vec<String>>,
    pub(crate) user: Option<String>,
    #[serde(rename = "type")]
    pub(crate) kind: Option<String>,
    pub(crate) message: Option<String>,
    pub(crate) props: Option<Map<String, Value>>,
    pub(crate) create_at: Option<i64>,
    pub(crate) edit_at: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) flagged_by: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reactions: Option<Vec<ReactionLine>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) replies: Option<Vec<Self>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) attachments: Option<Vec<AttachmentLine>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) is_pinned: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) thread_followers: Option<Vec<FollowerLine>>,
}

impl PostLine {
    /// The post itself, then its replies.
    pub(crate) fn each(&self) -> impl Iterator<Item = &Self> {
        std::iter::once(self).chain(self.replies.iter().flatten())
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ReactionLine {
    pub(crate) user: Option<String>,
    pub(crate) create_at: Option<i64>,
    pub(crate) emoji_name: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct AttachmentLine {
    /// Below `data/` in the archive.
    pub(crate) path: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct FollowerLine {
    pub(crate) user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) last_viewed: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) unread_mentions: Option<i64>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct DirectLine {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) members: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) participants: Option<Vec<ParticipantLine>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) favorited_by: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) shown_by: Option<Vec<String>>,
    pub(crate) header: Option<String>,
}

impl DirectLine {
    /// Names of the members, as either form has them.
    pub(crate) fn names(&self) -> Vec<&str> {
        let participants = self.participants.iter().flatten().filter_map(|p| p.username.as_deref());
        participants.chain(self.members.iter().flatten().map(String::as_str)).collect()
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ParticipantLine {
    pub(crate) username: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) notify_props: Option<NotifyOfMember>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) scheme_user: Option<bool>,
    #[serde(flatten)]
    pub(crate) marks: Marks,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct EmojiLine {
    pub(crate) name: Option<String>,
    /// Below `data/` in the archive.
    pub(crate) image: Option<String>,
}

/// Why a line was not read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LineError {
    #[error("the line is longer than {LINE_BYTES_MAX} bytes")]
    TooLong,
    #[error("it holds more than {LINE_VALUES_MAX} values")]
    TooMany,
    #[error("it is not JSON of the expected form: {0}")]
    Json(serde_json::Error),
    #[error("it could not be read: {0}")]
    Io(#[from] io::Error),
}

/// Reads lines, holding one at a time.
pub(crate) struct Lines<R> {
    source: BufReader<R>,
    buffer: Vec<u8>,
    /// Number of the line that was read last, from 1.
    pub(crate) number: u64,
    /// Bytes up to its end.
    pub(crate) bytes: u64,
}

impl<R: Read> Lines<R> {
    pub(crate) fn new(source: R) -> Self {
        Self { source: BufReader::with_capacity(256 * 1024, source), buffer: Vec::new(), number: 0, bytes: 0 }
    }

    /// The next line that is not blank; `None` at the end. After [`LineError::Json`] and [`LineError::TooMany`] the next one can be
    /// read.
    pub(crate) fn next(&mut self) -> Result<Option<Line>, LineError> {
        loop {
            self.buffer.clear();
            let mut limited = (&mut self.source).take(LINE_BYTES_MAX + 1);
            let read = limited.read_until(b'\n', &mut self.buffer)?;
            if read == 0 {
                return Ok(None);
            }
            self.number += 1;
            self.bytes += read as u64;
            if read as u64 > LINE_BYTES_MAX {
                return Err(LineError::TooLong);
            }
            if values(&self.buffer) > LINE_VALUES_MAX {
                return Err(LineError::TooMany);
            }
            if !self.buffer.trim_ascii().is_empty() {
                return serde_json::from_slice(&self.buffer).map(Some).map_err(LineError::Json);
            }
        }
    }
}

/// How many values a line of JSON may hold, at most: what begins an object or a list, and what stands between two of them.
fn values(line: &[u8]) -> usize {
    let (mut in_text, mut escaped, mut count) = (false, false, 0);
    for byte in line {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'{' | b'[' | b',' if !in_text => count += 1,
            _ => {}
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_original_survives_reading_and_writing() {
        for text in [
            r#"{"type":"version","version":1,"info":{"generator":"mattermost-server","version":"11.6.0","created":"x"}}"#,
            r#"{"type":"user","user":{"username":"a","email":"a@x","auth_service":null,"nickname":"","first_name":"","last_name":"","position":"","roles":"system_user","locale":"en","teams":[{"name":"t","roles":"team_user","channels":[{"name":"c","roles":"channel_user","notify_props":{"desktop":"default","mobile":"default","mark_unread":"all"},"favorite":false,"mention_count":0,"mention_count_root":0,"urgend_mention_count":0,"msg_count":3,"msg_count_root":2,"last_viewed_at":5}]}],"theme":"{}"}}"#,
            r#"{"type":"post","post":{"team":"t","channel":"c","user":"a","type":"","message":"hi","props":{},"create_at":5,"edit_at":0,"flagged_by":[],"reactions":[{"user":"a","create_at":6,"emoji_name":"smile"}],"replies":[{"user":"a","type":"","message":"yes","props":{},"create_at":7,"edit_at":0}],"attachments":[{"path":"20260101/x.png"}],"is_pinned":false}}"#,
            r#"{"type":"direct_channel","direct_channel":{"participants":[{"username":"a","msg_count":2,"last_viewed_at":3},{"username":"b"}],"header":""}}"#,
        ] {
            let line: Line = serde_json::from_str(text).unwrap();
            let written: Value = serde_json::to_value(&line).unwrap();
            assert_eq!(written, serde_json::from_str::<Value>(text).unwrap());
        }
    }

    #[test]
    fn a_broken_line_has_its_number_and_the_next_one_is_read() {
        let text = "{\"type\":\"version\",\"version\":1}\n\n{\"type\":\n{\"type\":\"team\"}";
        let mut lines = Lines::new(text.as_bytes());
        assert_eq!(lines.next().unwrap().unwrap().version, Some(1));
        assert!(matches!(lines.next(), Err(LineError::Json(_))));
        assert_eq!(lines.number, 3);
        assert_eq!(lines.next().unwrap().unwrap().kind, "team");
        assert!(lines.next().unwrap().is_none());
        assert_eq!(lines.bytes, text.len() as u64);
    }

    #[test]
    fn values_are_counted_beside_texts() {
        assert_eq!(values(br#"{"a":"{,[\",","b":[1,2,{}]}"#), 1 + 1 + 1 + 2 + 1);
        assert_eq!(values(br#"{"a":"\\","b":0}"#), 2);
    }

    #[test]
    fn an_endless_line_is_refused_before_it_is_held() {
        let mut lines = Lines::new(io::repeat(b'x'));
        assert!(matches!(lines.next(), Err(LineError::TooLong)));
        assert!(lines.buffer.len() as u64 <= LINE_BYTES_MAX + 1);
    }
}
