//! Teams: teams, channels, chats and what is said there; migration mode with its rules.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde_json::{Value, json};

use super::{Call, Outcome, Refusal, html};
use crate::clock::{Millis, iso, parse_iso};
use crate::http::Answer;
use crate::oracle::What;
use crate::things::{Chat as ChatWanted, Team as TeamWanted, TeamMade};
use crate::world::World;

/// A message with its mentions and attachments, counted as UTF-16.
const MESSAGE_BYTES_MAX: usize = 28 * 1024;

/// Names of teams and channels may be so long.
const NAME_CHARS_MAX: usize = 256;
const CHANNEL_NAME_CHARS_MAX: usize = 50;

/// State of the service.
#[derive(Default)]
pub(crate) struct Teams {
    teams: BTreeMap<String, Team>,
    talks: BTreeMap<Place, Talk>,
    operations: BTreeMap<String, Operation>,
}

/// Where something is said.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    Channel { team: String, channel: String },
    Chat(String),
}

struct Team {
    name: String,
    description: String,
    created_ms: Millis,
    seen_ms: Millis,
    members: BTreeMap<String, Member>,
    general: String,
    /// Made in migration mode and not completed.
    migrating: bool,
    site: String,
}

#[derive(Clone)]
struct Member {
    id: String,
    owner: bool,
    seen_ms: Millis,
}

/// A channel or chat.
struct Talk {
    name: String,
    description: String,
    kind: String,
    created_ms: Millis,
    original_created_ms: Option<Millis>,
    seen_ms: Millis,
    /// Of a chat; a channel's are its team's.
    members: BTreeSet<String>,
    migration: Migration,
    /// What is imported has to be later.
    import_from_ms: Millis,
    messages: BTreeMap<u64, Message>,
    deleted: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Migration {
    Never,
    InProgress { app: String },
    Completed,
}

struct Operation {
    team: String,
    done_ms: Millis,
    created_ms: Millis,
}

#[derive(Clone)]
struct Message {
    reply_to: Option<u64>,
    created_ms: Millis,
    modified_ms: Millis,
    edited_ms: Option<Millis>,
    deleted_ms: Option<Millis>,
    listed_ms: Millis,
    author: Option<String>,
    from: Value,
    imported: bool,
    body: Value,
    content: Value,
    reactions: Vec<(String, String, Millis)>,
    /// Pictures that stand in the text, by id: type and bytes.
    hosted: BTreeMap<String, (String, Bytes)>,
}

impl Place {
    fn of(call: &Call<'_>) -> Self {
        let template = call.row.template;
        if template.starts_with("/teams") {
            return Self::Channel { team: call.params[0].clone(), channel: call.params[1].clone() };
        }
        // /users/{u}/chats/{chat}/... and /chats/{chat}/...
        let at = usize::from(template.starts_with("/users"));
        Self::Chat(call.params[at].clone())
    }

    /// The message that the path names: the reply where there is one.
    fn message(&self, call: &Call<'_>) -> Result<u64, Refusal> {
        let text = call.params.last().map_or("", String::as_str);
        text.parse().map_err(|_| Refusal::missing("Message not found."))
    }

    fn name(&self) -> String {
        match self {
            Self::Channel { team, channel } => format!("{team}/{channel}"),
            Self::Chat(id) => id.clone(),
        }
    }
}

impl World {
    /// A team that exists before the test begins, with its site and drive.
    pub(crate) fn put_team(&mut self, wanted: TeamWanted) -> TeamMade {
        let id = if wanted.id.is_empty() { self.guid() } else { wanted.id };
        let now = self.now();
        let (site, drive) = self.new_site(&id, &wanted.display_name);
        self.teams.teams.insert(
            id.clone(),
            Team {
                name: wanted.display_name,
                description: wanted.description,
                created_ms: now,
                seen_ms: now,
                members: BTreeMap::new(),
                general: String::new(),
                migrating: false,
                site: site.clone(),
            },
        );
        for member in wanted.members {
            let id_of = self.guid();
            let team = self.teams.teams.get_mut(&id).expect("inserted above");
            team.members.insert(member, Member { id: id_of, owner: false, seen_ms: now });
        }
        let mut channels = BTreeMap::new();
        for name in std::iter::once("General".to_owned()).chain(wanted.channels) {
            let channel = self.new_channel(&id, &name, "", "standard", now, Migration::Never, now);
            channels.insert(name, channel);
        }
        self.teams.teams.get_mut(&id).expect("inserted above").general = channels["General"].clone();
        TeamMade { id, channels, drive, site }
    }

    /// A chat that exists before the test begins; its id.
    pub(crate) fn put_chat(&mut self, wanted: ChatWanted) -> String {
        let now = self.now();
        self.new_chat(&wanted.chat_type, wanted.topic.unwrap_or_default(), wanted.members, now)
    }

    /// Puts a user into a team at once, or takes one out.
    pub(crate) fn set_team_member(&mut self, team: &str, user: &str, present: bool) -> Result<(), String> {
        let (id, now) = (self.guid(), self.now());
        let team = self.teams.teams.get_mut(team).ok_or_else(|| format!("no team {team}"))?;
        if present {
            team.members.insert(user.to_owned(), Member { id, owner: false, seen_ms: now });
        } else {
            team.members.remove(user);
        }
        Ok(())
    }

    pub(crate) fn team_members(&self, team: &str) -> Option<BTreeSet<String>> {
        let now = self.now();
        let team = self.teams.teams.get(team).filter(|t| t.seen_ms <= now)?;
        Some(team.members.iter().filter(|(_, m)| m.seen_ms <= now).map(|(user, _)| user.clone()).collect())
    }

    pub(crate) fn chat_members(&self, chat: &str) -> Option<BTreeSet<String>> {
        Some(self.teams.talks.get(&Place::Chat(chat.to_owned()))?.members.clone())
    }

    #[allow(clippy::too_many_arguments, reason = "a channel has so many properties, and each call names them in order")]
    fn new_channel(
        &mut self,
        team: &str,
        name: &str,
        description: &str,
        kind: &str,
        created_ms: Millis,
        migration: Migration,
        seen_ms: Millis,
    ) -> String {
        let id = format!("19:{}@thread.tacv2", self.guid().replace('-', ""));
        let place = Place::Channel { team: team.to_owned(), channel: id.clone() };
        self.new_channel_folder(team, &id, name);
        self.teams.talks.insert(
            place,
            Talk {
                name: name.to_owned(),
                description: description.to_owned(),
                kind: kind.to_owned(),
                created_ms,
                original_created_ms: None,
                seen_ms,
                members: BTreeSet::new(),
                migration,
                import_from_ms: 0,
                messages: BTreeMap::new(),
                deleted: false,
            },
        );
        id
    }

    fn new_chat(&mut self, kind: &str, topic: String, members: BTreeSet<String>, now: Millis) -> String {
        let id = match (kind, members.iter().collect::<Vec<_>>().as_slice()) {
            ("oneOnOne", [a, b]) => format!("19:{a}_{b}@unq.gbl.spaces"),
            _ => format!("19:{}@thread.v2", self.guid().replace('-', "")),
        };
        self.teams.talks.insert(
            Place::Chat(id.clone()),
            Talk {
                name: topic,
                description: String::new(),
                kind: kind.to_owned(),
                created_ms: now,
                original_created_ms: None,
                seen_ms: now,
                members,
                migration: Migration::Never,
                import_from_ms: 0,
                messages: BTreeMap::new(),
                deleted: false,
            },
        );
        id
    }

    fn seen_team(&self, id: &str) -> Result<&Team, Refusal> {
        let now = self.now();
        let team = self.teams.teams.get(id).filter(|t| t.seen_ms <= now);
        team.ok_or_else(|| Refusal::missing(format!("No team found with Group Id {id}.")))
    }

    fn seen_talk(&self, place: &Place) -> Result<&Talk, Refusal> {
        if let Place::Channel { team, .. } = place {
            self.seen_team(team)?;
        }
        let now = self.now();
        let talk = self.teams.talks.get(place).filter(|t| t.seen_ms <= now && !t.deleted);
        talk.ok_or_else(|| Refusal::missing("Channel or chat not found."))
    }

    fn talk_mut(&mut self, place: &Place) -> &mut Talk {
        self.teams.talks.get_mut(place).expect("the caller looked it up before")
    }

    fn is_in(&self, place: &Place, user: &str) -> bool {
        let members = match place {
            Place::Channel { team, .. } => self.team_members(team),
            Place::Chat(chat) => self.chat_members(chat),
        };
        members.is_some_and(|members| members.contains(user))
    }

    /// A user must be a member; an app for itself need not.
    fn must_be_in(&self, place: &Place, call: &Call<'_>) -> Result<(), Refusal> {
        match call.user() {
            Some(user) if !self.is_in(place, user) => Err(Refusal::new(
                403,
                "Forbidden",
                "InsufficientPrivileges: the caller is not enrolled as member of the requested conversation.",
            )
            .inner("InsufficientPrivileges")),
            Some(_) | None => Ok(()),
        }
    }

    fn talk_value(&self, place: &Place, talk: &Talk) -> Value {
        let mut value = json!({ "createdDateTime": iso(talk.created_ms), "tenantId": self.tenant });
        match place {
            Place::Channel { channel, team } => {
                value["id"] = json!(channel);
                value["displayName"] = json!(talk.name);
                value["description"] = json!(talk.description);
                value["membershipType"] = json!(talk.kind);
                value["webUrl"] = json!(format!(
                    "https://teams.microsoft.com/l/channel/{channel}/{}?groupId={team}&tenantId={}",
                    talk.name, self.tenant
                ));
            }
            Place::Chat(id) => {
                value["id"] = json!(id);
                value["chatType"] = json!(talk.kind);
                value["topic"] = if talk.name.is_empty() { Value::Null } else { json!(talk.name) };
                value["lastUpdatedDateTime"] = json!(iso(talk.created_ms));
                value["webUrl"] = json!(format!("https://teams.microsoft.com/l/chat/{id}/0?tenantId={}", self.tenant));
            }
        }
        match &talk.migration {
            Migration::Never => {}
            Migration::InProgress { .. } => value["migrationMode"] = json!("inProgress"),
            Migration::Completed => value["migrationMode"] = json!("completed"),
        }
        if let Some(original) = talk.original_created_ms {
            value["originalCreatedDateTime"] = json!(iso(original));
        }
        value
    }

    fn message_value(&self, place: &Place, id: u64, message: &Message) -> Value {
        let mut value = json!({
            "id": id.to_string(),
            "replyToId": message.reply_to.map(|r| r.to_string()),
            "etag": message.modified_ms.to_string(),
            "messageType": "message",
            "createdDateTime": iso(message.created_ms),
            "lastModifiedDateTime": iso(message.modified_ms),
            "lastEditedDateTime": message.edited_ms.map(iso),
            "deletedDateTime": message.deleted_ms.map(iso),
            "subject": message.content["subject"],
            "summary": message.content["summary"],
            "chatId": Value::Null,
            "importance": message.content["importance"].as_str().unwrap_or("normal"),
            "locale": "en-us",
            "webUrl": Value::Null,
            "from": message.from,
            "body": message.body,
            "attachments": list(&message.content["attachments"]),
            "mentions": list(&message.content["mentions"]),
            "reactions": message.reactions.iter().map(|(user, kind, at)| json!({
                "reactionType": kind, "createdDateTime": iso(*at),
                "user": { "user": { "id": user, "@odata.type": "#microsoft.graph.teamworkUserIdentity", "userIdentityType": "aadUser" } },
            })).collect::<Vec<_>>(),
        });
        match place {
            Place::Channel { team, channel } => {
                value["channelIdentity"] = json!({ "teamId": team, "channelId": channel });
                value["webUrl"] = json!(format!(
                    "https://teams.microsoft.com/l/message/{channel}/{id}?groupId={team}&tenantId={}",
                    self.tenant
                ));
            }
            Place::Chat(chat) => value["chatId"] = json!(chat),
        }
        if message.deleted_ms.is_some() {
            value["body"] = json!({ "contentType": "html", "content": "" });
            value["attachments"] = json!([]);
            value["mentions"] = json!([]);
        }
        value
    }

    fn put_message(&mut self, call: &Call<'_>, reply_to: Option<u64>) -> Outcome {
        let place = Place::of(call);
        let talk = self.seen_talk(&place)?;
        if let Some(root) = reply_to {
            let found = talk.messages.get(&root).filter(|m| m.deleted_ms.is_none());
            if found.is_none_or(|m| m.reply_to.is_some()) {
                return Err(Refusal::missing("The message that is replied to was not found, or is a reply itself."));
            }
        }
        let now = self.now();
        let importing = match (&talk.migration, call.user()) {
            (Migration::InProgress { .. }, Some(_)) => {
                let text = "The conversation is being migrated; messages cannot be sent.";
                return Err(Refusal::new(403, "Forbidden", text));
            }
            (Migration::InProgress { app }, None) if *app == call.caller.app => true,
            (_, None) => {
                let text = "Message POST is allowed in application-only context only for import purposes.";
                return Err(Refusal::new(403, "Forbidden", text));
            }
            (Migration::Never | Migration::Completed, Some(_)) => false,
        };
        self.must_be_in(&place, call)?;
        let body = self.checked_body(call, &place, importing)?;
        for name in
            ["id", "etag", "replyToId", "deletedDateTime", "lastModifiedDateTime", "lastEditedDateTime", "reactions"]
        {
            if !call.json[name].is_null() {
                return Err(Refusal::bad(format!("The property {name} is read-only.")));
            }
        }
        if reply_to.is_some() && !call.json["subject"].is_null() {
            return Err(Refusal::bad("A reply has no subject."));
        }
        let (created, author, from) = if importing {
            self.count_import(&call.caller.app, &place.name())?;
            self.import_author(call, &place, now)?
        } else {
            if !call.json["createdDateTime"].is_null() || !call.json["from"].is_null() {
                return Err(Refusal::bad("createdDateTime and from may be set in migration mode only."));
            }
            let user = call.user().unwrap_or("").to_owned();
            let name = self.entra.users.get(&user).map_or(String::new(), |u| u.display_name.clone());
            let from = json!({ "application": null, "device": null, "user": {
                "@odata.type": "#microsoft.graph.teamworkUserIdentity",
                "id": user, "displayName": name, "userIdentityType": "aadUser", "tenantId": self.tenant,
            }});
            self.count_message(&call.caller.app, &place.name())?;
            (now, user, from)
        };
        let pictures = pictures(&call.json)?;
        let listed_ms = self.after_lag(self.settings.lag.teams_ms);
        let graph = self.urls.graph.clone();
        let talk = self.talk_mut(&place);
        let mut id = created;
        if importing {
            if talk.messages.contains_key(&id) {
                return Err(Refusal::new(409, "Conflict", "A message with this createdDateTime exists in the thread."));
            }
        } else {
            while talk.messages.contains_key(&id) {
                id += 1;
            }
        }
        let (mut body, mut hosted) = (body, BTreeMap::new());
        for (temporary, kind, bytes) in pictures {
            let name = data_encoding::BASE64URL_NOPAD.encode(format!("id={id},url={temporary}").as_bytes());
            let at = match (&place, reply_to) {
                (Place::Channel { team, channel }, Some(root)) => {
                    format!("teams/{team}/channels/{channel}/messages/{root}/replies/{id}")
                }
                (Place::Channel { team, channel }, None) => format!("teams/{team}/channels/{channel}/messages/{id}"),
                (Place::Chat(chat), _) => format!("chats/{chat}/messages/{id}"),
            };
            let kept = body["content"].as_str().unwrap_or("").replace(
                &format!("\"../hostedContents/{temporary}/$value\""),
                &format!("\"{graph}/v1.0/{at}/hostedContents/{name}/$value\""),
            );
            body["content"] = json!(kept);
            hosted.insert(name, (kind, bytes));
        }
        let message = Message {
            hosted,
            reply_to,
            created_ms: id,
            modified_ms: id,
            edited_ms: None,
            deleted_ms: None,
            listed_ms,
            author: Some(author),
            from,
            imported: importing,
            body,
            content: call.json.clone(),
            reactions: Vec::new(),
        };
        talk.messages.insert(id, message.clone());
        let mut value = self.message_value(&place, id, &message);
        let mut detail = value.clone();
        detail["sent"] = call.json["body"].clone();
        detail["imported"] = json!(importing);
        self.record(call, What::MessagePosted, place.name(), id.to_string(), detail);
        value["@odata.context"] = json!(self.context(call));
        Ok(Answer::json(201, value))
    }

    fn import_author(&self, call: &Call<'_>, place: &Place, now: Millis) -> Result<(Millis, String, Value), Refusal> {
        let text = call.json["createdDateTime"].as_str();
        let created =
            text.and_then(parse_iso).ok_or_else(|| Refusal::bad("createdDateTime is required in migration mode."))?;
        if created > now {
            return Err(Refusal::bad("createdDateTime must not be in the future."));
        }
        let talk = self.seen_talk(place)?;
        if created <= talk.created_ms.max(talk.import_from_ms) {
            return Err(Refusal::bad("createdDateTime must be later than that of the conversation."));
        }
        let user = &call.json["from"]["user"];
        let (id, kind) = (user["id"].as_str().unwrap_or(""), user["userIdentityType"].as_str());
        if !self.entra.users.contains_key(id) || kind != Some("aadUser") {
            return Err(Refusal::bad("from.user must be a user of this tenant, of the type aadUser."));
        }
        let mut from = json!({ "application": null, "device": null, "user": user });
        from["user"]["@odata.type"] = json!("#microsoft.graph.teamworkUserIdentity");
        Ok((created, id.to_owned(), from))
    }

    /// What a body may be, for a post as well as for an edit; the body as it is kept.
    fn checked_body(&self, call: &Call<'_>, place: &Place, importing: bool) -> Result<Value, Refusal> {
        let body = &call.json["body"];
        let content = body["content"].as_str().ok_or_else(|| Refusal::bad("Missing body content."))?;
        let kind = body["contentType"].as_str().unwrap_or("text").to_ascii_lowercase();
        if kind != "text" && kind != "html" {
            return Err(Refusal::bad("contentType is text or html."));
        }
        let beside: usize = ["mentions", "attachments"]
            .iter()
            .filter(|name| !call.json[**name].is_null())
            .map(|name| call.json[*name].to_string().encode_utf16().count() * 2)
            .sum();
        if content.encode_utf16().count() * 2 + beside > MESSAGE_BYTES_MAX {
            return Err(Refusal::new(413, "RequestEntityTooLarge", "Request body message size exceeded the limit."));
        }
        if content.trim().is_empty() && list(&call.json["attachments"]).as_array().is_some_and(Vec::is_empty) {
            return Err(Refusal::bad("Missing body content."));
        }
        self.check_mentions(call, place, content, importing)?;
        self.check_attachments(call, content, importing)?;
        let kept = if kind == "html" { html::kept(content) } else { content.to_owned() };
        Ok(json!({ "contentType": kind, "content": kept }))
    }

    fn check_mentions(&self, call: &Call<'_>, place: &Place, content: &str, importing: bool) -> Result<(), Refusal> {
        let mentions = call.json["mentions"].as_array().cloned().unwrap_or_default();
        if importing && !mentions.is_empty() {
            return Err(Refusal::bad("Mentions cannot be imported."));
        }
        let named: BTreeSet<String> = mentions.iter().map(|m| m["id"].to_string()).collect();
        if named != html::ids(content, "at") || named.len() != mentions.len() {
            return Err(Refusal::bad("Invalid mentions: the ids in the body and in mentions must be the same."));
        }
        for user in mentions.iter().filter_map(|m| m["mentioned"]["user"]["id"].as_str()) {
            if !self.is_in(place, user) {
                return Err(Refusal::bad("Invalid mentions: a user who is mentioned is no member."));
            }
        }
        Ok(())
    }

    fn check_attachments(&self, call: &Call<'_>, content: &str, importing: bool) -> Result<(), Refusal> {
        let attachments = call.json["attachments"].as_array().cloned().unwrap_or_default();
        let named: BTreeSet<String> = attachments.iter().filter_map(|a| a["id"].as_str().map(str::to_owned)).collect();
        if named != html::ids(content, "attachment") || named.len() != attachments.len() {
            return Err(Refusal::bad("Invalid attachments: the ids in the body and in attachments must be the same."));
        }
        for attachment in &attachments {
            match attachment["contentType"].as_str() {
                Some("reference") => {
                    let id = attachment["id"].as_str().unwrap_or("");
                    let url = attachment["contentUrl"].as_str().unwrap_or("");
                    if !self.is_file(id, url) {
                        return Err(Refusal::bad("Invalid attachments: id and contentUrl name no file."));
                    }
                }
                Some("application/vnd.microsoft.card.adaptive") if !importing => {
                    let card = attachment["content"].as_str().and_then(|c| serde_json::from_str::<Value>(c).ok());
                    if card.is_none_or(|card| card["type"] != "AdaptiveCard") {
                        return Err(Refusal::bad("Invalid attachments: content must be a card as a JSON string."));
                    }
                }
                Some("messageReference") if !importing => {}
                Some(_) | None => return Err(Refusal::bad("Invalid attachments: the contentType is not supported.")),
            }
        }
        Ok(())
    }

    /// A message that the caller may see.
    fn visible_message(&self, call: &Call<'_>) -> Result<(Place, u64, Message), Refusal> {
        let place = Place::of(call);
        let id = place.message(call)?;
        let talk = self.seen_talk(&place)?;
        self.must_be_in(&place, call)?;
        let hidden =
            |m: &Message| m.imported && matches!(talk.migration, Migration::InProgress { .. }) && call.user().is_some();
        let message =
            talk.messages.get(&id).filter(|m| !hidden(m)).ok_or_else(|| Refusal::missing("Message not found."))?;
        let wanted = call.row.template.contains("/replies/");
        let root = wanted.then(|| call.params[call.params.len() - 2].parse::<u64>().ok()).flatten();
        if call.row.template.starts_with("/teams") && message.reply_to != root {
            return Err(Refusal::missing("Message not found."));
        }
        Ok((place, id, message.clone()))
    }

    /// A message of the caller's own, which it may change.
    fn own_message(&self, call: &Call<'_>) -> Result<(Place, u64), Refusal> {
        let (place, id, message) = self.visible_message(call)?;
        if message.author.as_deref() != call.user() {
            return Err(Refusal::new(403, "Forbidden", "Only the author may change a message."));
        }
        if matches!(self.seen_talk(&place)?.migration, Migration::InProgress { .. }) {
            return Err(Refusal::new(403, "Forbidden", "The conversation is being migrated."));
        }
        Ok((place, id))
    }

    fn list_messages(&mut self, call: &Call<'_>, root: Option<u64>) -> Outcome {
        let place = Place::of(call);
        let talk = self.seen_talk(&place)?;
        self.must_be_in(&place, call)?;
        for name in ["$filter", "$orderby", "$search", "$skip"] {
            if call.query(name).is_some() {
                return Err(Refusal::bad(format!("Query option '{name}' is not allowed.")));
            }
        }
        if let Some(root) = root
            && talk.messages.get(&root).is_none_or(|m| m.reply_to.is_some())
        {
            return Err(Refusal::missing("Message not found."));
        }
        let now = self.now();
        let migrating = matches!(talk.migration, Migration::InProgress { .. });
        let mut found: Vec<(u64, &Message)> = talk
            .messages
            .iter()
            .filter(|(_, m)| {
                m.reply_to == root && m.listed_ms <= now && !(m.imported && migrating && call.user().is_some())
            })
            .map(|(id, m)| (*id, m))
            .collect();
        found.sort_by_key(|(id, m)| std::cmp::Reverse((m.modified_ms, *id)));
        let values = found.iter().map(|(id, m)| self.message_value(&place, *id, m)).collect();
        self.page(call, values, 50)
    }

    fn members_of(&self, call: &Call<'_>) -> Result<Vec<Value>, Refusal> {
        let team = self.seen_team(&call.params[0])?;
        let now = self.now();
        let named = |user: &str| self.entra.users.get(user).map_or(Value::Null, |u| json!(u.display_name));
        let seen = team.members.iter().filter(|(_, m)| m.seen_ms <= now);
        Ok(seen
            .map(|(user, member)| {
                json!({
                    "@odata.type": "#microsoft.graph.aadUserConversationMember",
                    "id": member.id, "roles": if member.owner { json!(["owner"]) } else { json!([]) },
                    "displayName": named(user), "userId": user, "tenantId": self.tenant,
                })
            })
            .collect())
    }
}

fn list(value: &Value) -> Value {
    if value.is_null() { json!([]) } else { value.clone() }
}

/// Pictures of a message: temporary id, type, bytes. Each must stand in the text, and each in the text must come along.
fn pictures(message: &Value) -> Result<Vec<(String, String, Bytes)>, Refusal> {
    let content = message["body"]["content"].as_str().unwrap_or("");
    let mut found = Vec::new();
    for picture in message["hostedContents"].as_array().into_iter().flatten() {
        let id = picture["@microsoft.graph.temporaryId"].as_str().unwrap_or("");
        let kind = picture["contentType"].as_str().unwrap_or("");
        let bytes = picture["contentBytes"].as_str().and_then(|b| data_encoding::BASE64.decode(b.as_bytes()).ok());
        let (Some(bytes), true) = (bytes, kind.starts_with("image/") && !id.is_empty()) else {
            return Err(Refusal::bad(
                "Hosted contents need a temporaryId, contentBytes in base64 and the type of an image.",
            ));
        };
        if !content.contains(&format!("\"../hostedContents/{id}/$value\"")) {
            return Err(Refusal::bad("A hosted content does not stand in the body."));
        }
        found.push((id.to_owned(), kind.to_owned(), Bytes::from(bytes)));
    }
    if content.matches("../hostedContents/").count() != found.len() {
        return Err(Refusal::bad("The body names a hosted content that is not there."));
    }
    Ok(found)
}

/// `.../users('id')` as bindings are written.
fn bound_user(value: &Value) -> Option<String> {
    let text = value["user@odata.bind"].as_str()?;
    let (_, rest) = text.split_once("/users(")?;
    Some(rest.trim_end_matches(')').trim_matches('\'').to_owned())
}

fn name_of(call: &Call<'_>, chars_max: usize) -> Result<String, Refusal> {
    let name = call.json["displayName"].as_str().unwrap_or("");
    if name.trim().is_empty() || name.chars().count() > chars_max {
        return Err(Refusal::bad(format!("displayName has 1 to {chars_max} characters.")));
    }
    Ok(name.to_owned())
}

/// Whether something is made in migration mode, and the time it then begins.
fn made_in_migration(call: &Call<'_>, attribute: &str, now: Millis) -> Result<(bool, Millis), Refusal> {
    let created = call.json["createdDateTime"]
        .as_str()
        .map(|text| parse_iso(text).ok_or_else(|| Refusal::bad("createdDateTime is no time.")));
    let created = created.transpose()?;
    match call.json[attribute].as_str() {
        Some("migration") => {
            if call.user().is_some() || !call.caller.permissions.contains("Teamwork.Migrate.All") {
                return Err(Refusal::new(403, "Forbidden", "Teamwork.Migrate.All is required."));
            }
            match created {
                Some(at) if at > now => Err(Refusal::bad("createdDateTime must not be in the future.")),
                Some(at) => Ok((true, at)),
                None => Ok((true, now)),
            }
        }
        Some(_) => Err(Refusal::bad(format!("{attribute} is not known."))),
        None if created.is_some() => Err(Refusal::bad(format!("createdDateTime needs {attribute}."))),
        None => Ok((false, now)),
    }
}

pub(super) fn create_team(world: &mut World, call: &Call<'_>) -> Outcome {
    let now = world.now();
    let (migrating, created_ms) = made_in_migration(call, "@microsoft.graph.teamCreationMode", now)?;
    let name = name_of(call, NAME_CHARS_MAX)?;
    let template = call.json["template@odata.bind"].as_str().unwrap_or("");
    if !template.ends_with("/v1.0/teamsTemplates('standard')") || !template.starts_with(&world.urls.graph) {
        return Err(Refusal::bad("template@odata.bind must name a template of this Graph."));
    }
    if !migrating && !call.caller.permissions.contains("Team.Create") {
        return Err(Refusal::new(403, "Forbidden", "Team.Create is required."));
    }
    let owners: Vec<String> = call.json["members"].as_array().into_iter().flatten().filter_map(bound_user).collect();
    let owner = match (migrating, call.user(), owners.as_slice()) {
        (true, _, []) => None,
        (true, _, _) => return Err(Refusal::bad("A team in migration mode has no members.")),
        (false, Some(user), _) => Some(user.to_owned()),
        (false, None, [owner]) if world.entra.users.contains_key(owner) => Some(owner.clone()),
        (false, None, _) => return Err(Refusal::bad("Exactly one owner must be named in members.")),
    };
    let (id, operation) = (world.guid(), world.guid());
    let done_ms = world.after_lag(world.settings.lag.teams_ms);
    let (site, _) = world.new_site(&id, &name);
    let state = if migrating { Migration::InProgress { app: call.caller.app.clone() } } else { Migration::Never };
    world.teams.teams.insert(
        id.clone(),
        Team {
            name: name.clone(),
            description: call.json["description"].as_str().unwrap_or("").to_owned(),
            created_ms,
            seen_ms: done_ms,
            members: BTreeMap::new(),
            general: String::new(),
            migrating,
            site,
        },
    );
    let general = world.new_channel(&id, "General", "", "standard", created_ms, state, done_ms);
    let member = world.guid();
    let team = world.teams.teams.get_mut(&id).expect("inserted above");
    team.general = general;
    if let Some(owner) = owner {
        team.members.insert(owner, Member { id: member, owner: true, seen_ms: done_ms });
    }
    world.teams.operations.insert(operation.clone(), Operation { team: id.clone(), done_ms, created_ms: now });
    world.record(
        call,
        What::TeamCreated,
        "",
        id.clone(),
        json!({ "displayName": name, "migration": migrating, "createdDateTime": iso(created_ms) }),
    );
    Ok(Answer::empty(202)
        .with("location", format!("/teams/{id}/operations/{operation}"))
        .with("content-location", format!("/teams/{id}")))
}

pub(super) fn operation(world: &mut World, call: &Call<'_>) -> Outcome {
    let found = world.teams.operations.get(&call.params[1]).filter(|o| o.team == call.params[0]);
    let operation = found.ok_or_else(|| Refusal::missing("The operation was not found."))?;
    let done = operation.done_ms <= world.now();
    Ok(Answer::json(
        200,
        json!({
            "@odata.context": world.context(call), "id": call.params[1], "operationType": "createTeam",
            "createdDateTime": iso(operation.created_ms), "lastActionDateTime": iso(world.now()), "attemptsCount": 1,
            "status": if done { "succeeded" } else { "inProgress" },
            "targetResourceId": operation.team, "targetResourceLocation": format!("/teams/{}", operation.team), "error": null,
        }),
    ))
}

pub(super) fn team(world: &mut World, call: &Call<'_>) -> Outcome {
    let team = world.seen_team(&call.params[0])?;
    Ok(Answer::json(
        200,
        super::selected(
            json!({
                "@odata.context": world.context(call), "id": call.params[0], "displayName": team.name,
                "description": team.description, "createdDateTime": iso(team.created_ms), "tenantId": world.tenant,
                "isArchived": false, "visibility": "private",
                "webUrl": format!("https://teams.microsoft.com/l/team/{}/conversations?groupId={}", team.general, call.params[0]),
            }),
            call.query("$select"),
        ),
    ))
}

pub(super) fn complete_team(world: &mut World, call: &Call<'_>) -> Outcome {
    let id = &call.params[0];
    if !world.seen_team(id)?.migrating {
        return Err(Refusal::bad("The team is not in migration mode."));
    }
    let open = world.teams.talks.iter().any(|(place, talk)| {
        matches!(place, Place::Channel { team, .. } if team == id)
            && matches!(talk.migration, Migration::InProgress { .. })
    });
    if open {
        return Err(Refusal::bad("A channel of the team is still in migration mode."));
    }
    world.teams.teams.get_mut(id).expect("looked up above").migrating = false;
    world.record(call, What::MigrationCompleted, id.clone(), id.clone(), json!({ "team": true }));
    Ok(Answer::empty(204))
}

pub(super) fn members(world: &mut World, call: &Call<'_>) -> Outcome {
    let values = world.members_of(call)?;
    world.page(call, values, 999)
}

pub(super) fn add_member(world: &mut World, call: &Call<'_>) -> Outcome {
    let team = world.seen_team(&call.params[0])?;
    if team.migrating {
        return Err(Refusal::bad("Members cannot be added while the team is in migration mode."));
    }
    let user = bound_user(&call.json).ok_or_else(|| Refusal::bad("user@odata.bind is missing."))?;
    if call.json["@odata.type"] != "#microsoft.graph.aadUserConversationMember"
        || !world.entra.users.contains_key(&user)
    {
        return Err(Refusal::bad("The member must be a user of this tenant."));
    }
    let owner = call.json["roles"].as_array().is_some_and(|r| r.iter().any(|r| r == "owner"));
    let (id, seen_ms) = (world.guid(), world.after_lag(world.settings.lag.teams_ms));
    let name = world.entra.users[&user].display_name.clone();
    let team = world.teams.teams.get_mut(&call.params[0]).expect("looked up above");
    let member = team.members.entry(user.clone()).or_insert(Member { id, owner, seen_ms });
    member.owner = owner;
    let value = json!({
        "@odata.context": world.urls.graph, "@odata.type": "#microsoft.graph.aadUserConversationMember", "id": member.id,
        "roles": call.json["roles"], "displayName": name, "userId": user, "tenantId": world.tenant,
    });
    world.record(call, What::MemberAdded, call.params[0].clone(), user, value.clone());
    Ok(Answer::json(201, value))
}

fn channel_value(world: &World, call: &Call<'_>, channel: &str) -> Outcome {
    let place = Place::Channel { team: call.params[0].clone(), channel: channel.to_owned() };
    let talk = world.seen_talk(&place)?;
    let mut value = super::selected(world.talk_value(&place, talk), call.query("$select"));
    value["@odata.context"] = json!(world.context(call));
    Ok(Answer::json(200, value))
}

pub(super) fn primary_channel(world: &mut World, call: &Call<'_>) -> Outcome {
    let general = world.seen_team(&call.params[0])?.general.clone();
    channel_value(world, call, &general)
}

pub(super) fn channel(world: &mut World, call: &Call<'_>) -> Outcome {
    channel_value(world, call, &call.params[1])
}

pub(super) fn channels(world: &mut World, call: &Call<'_>) -> Outcome {
    world.seen_team(&call.params[0])?;
    let filter = call.query("$filter").map(super::directory::Filter::parse).transpose()?;
    let now = world.now();
    let values: Vec<Value> = world
        .teams
        .talks
        .iter()
        .filter(|(place, t)| {
            matches!(place, Place::Channel { team, .. } if *team == call.params[0]) && t.seen_ms <= now && !t.deleted
        })
        .map(|(place, talk)| world.talk_value(place, talk))
        .filter(|v| {
            filter.as_ref().is_none_or(|f| v.as_object().is_some_and(|o| f.fits(v["id"].as_str().unwrap_or(""), o)))
        })
        .collect();
    world.page(call, values, 999)
}

pub(super) fn create_channel(world: &mut World, call: &Call<'_>) -> Outcome {
    let now = world.now();
    let (migrating, created_ms) = made_in_migration(call, "@microsoft.graph.channelCreationMode", now)?;
    let name = name_of(call, CHANNEL_NAME_CHARS_MAX)?;
    let team = world.seen_team(&call.params[0])?;
    if migrating != team.migrating && !(migrating && team.members.is_empty()) && team.migrating {
        return Err(Refusal::bad("The team is in migration mode: so must its channels be."));
    }
    if migrating && !team.migrating {
        // Documented for new teams; an existing team's channel is opened by startMigration after its creation.
        return Err(Refusal::bad("The team is not in migration mode."));
    }
    if !migrating && call.user().is_none() && !call.caller.permissions.contains("Channel.Create") {
        return Err(Refusal::new(403, "Forbidden", "Channel.Create is required."));
    }
    let kind = call.json["membershipType"].as_str().unwrap_or("standard").to_owned();
    if !matches!(kind.as_str(), "standard" | "private" | "shared") || migrating && kind != "standard" {
        return Err(Refusal::bad("The membershipType is not supported here."));
    }
    if kind == "shared" && world.settings.cloud != crate::settings::Cloud::Global {
        return Err(Refusal::bad("Shared channels are not supported in this cloud."));
    }
    let taken = world.teams.talks.iter().any(|(place, talk)| {
        matches!(place, Place::Channel { team, .. } if *team == call.params[0]) && talk.name.eq_ignore_ascii_case(&name)
    });
    if taken {
        return Err(Refusal::bad("Channel name already existed, please use other name.").inner("NameAlreadyExists"));
    }
    let state = if migrating { Migration::InProgress { app: call.caller.app.clone() } } else { Migration::Never };
    let description = call.json["description"].as_str().unwrap_or("").to_owned();
    let seen_ms = world.after_lag(world.settings.lag.teams_ms);
    let id = world.new_channel(&call.params[0], &name, &description, &kind, created_ms, state, seen_ms);
    let place = Place::Channel { team: call.params[0].clone(), channel: id.clone() };
    let mut value = world.talk_value(&place, &world.teams.talks[&place]);
    world.record(call, What::ChannelCreated, call.params[0].clone(), id, value.clone());
    value["@odata.context"] = json!(world.context(call));
    Ok(Answer::json(201, value))
}

pub(super) fn files_folder(world: &mut World, call: &Call<'_>) -> Outcome {
    let place = Place::Channel { team: call.params[0].clone(), channel: call.params[1].clone() };
    world.seen_talk(&place)?;
    let site = world.seen_team(&call.params[0])?.site.clone();
    world.channel_folder(call, &site, &call.params[1])
}

pub(super) fn start_migration(world: &mut World, call: &Call<'_>) -> Outcome {
    let place = Place::of(call);
    let now = world.now();
    let talk = world.seen_talk(&place)?;
    if matches!(talk.migration, Migration::InProgress { .. }) {
        return Err(Refusal::bad("The conversation is in migration mode already."));
    }
    if talk.kind == "meeting" {
        return Err(Refusal::bad("Meeting chats cannot be migrated."));
    }
    let begin = match call.json["conversationCreationDateTime"].as_str() {
        Some(text) => {
            let at = parse_iso(text).ok_or_else(|| Refusal::bad("conversationCreationDateTime is no time."))?;
            if at >= talk.created_ms {
                return Err(Refusal::bad("conversationCreationDateTime must be earlier than the current one."));
            }
            Some(at)
        }
        None => None,
    };
    let app = call.caller.app.clone();
    let talk = world.talk_mut(&place);
    if let Some(begin) = begin {
        talk.original_created_ms.get_or_insert(talk.created_ms);
        talk.created_ms = begin;
    }
    talk.import_from_ms = begin.unwrap_or(now);
    talk.migration = Migration::InProgress { app };
    let detail = json!({ "createdDateTime": iso(talk.created_ms), "at": iso(now) });
    world.record(call, What::MigrationStarted, place.name(), place.name(), detail);
    Ok(Answer::empty(204))
}

pub(super) fn complete_migration(world: &mut World, call: &Call<'_>) -> Outcome {
    let place = Place::of(call);
    let talk = world.seen_talk(&place)?;
    match &talk.migration {
        Migration::InProgress { app } if *app == call.caller.app => {}
        Migration::InProgress { .. } => {
            return Err(Refusal::new(403, "Forbidden", "Another app started the migration."));
        }
        Migration::Never | Migration::Completed => {
            return Err(Refusal::bad("The conversation is not in migration mode."));
        }
    }
    world.talk_mut(&place).migration = Migration::Completed;
    world.record(call, What::MigrationCompleted, place.name(), place.name(), json!({}));
    Ok(Answer::empty(204))
}

pub(super) fn messages(world: &mut World, call: &Call<'_>) -> Outcome {
    world.list_messages(call, None)
}

pub(super) fn replies(world: &mut World, call: &Call<'_>) -> Outcome {
    let root = call.params[2].parse().map_err(|_| Refusal::missing("Message not found."))?;
    world.list_messages(call, Some(root))
}

/// Every message with replies, as changed since the token; one page at a time.
pub(super) fn messages_delta(world: &mut World, call: &Call<'_>) -> Outcome {
    let place = Place::of(call);
    let talk = world.seen_talk(&place)?;
    world.must_be_in(&place, call)?;
    let since: Millis = match call.query("$deltatoken") {
        Some(token) => {
            let at = world.skips.get(token).copied();
            at.and_then(|at| Millis::try_from(at).ok()).ok_or_else(|| Refusal::bad("The delta token is not valid."))?
        }
        None => 0,
    };
    let now = world.now();
    let changed = talk.messages.iter().filter(|(_, m)| m.listed_ms <= now && m.listed_ms.max(m.modified_ms) > since);
    let values: Vec<Value> = changed.map(|(id, m)| world.message_value(&place, *id, m)).collect();
    let token = world.secret("");
    world.skips.insert(token.clone(), usize::try_from(now).unwrap_or(usize::MAX));
    let link = format!("{}{}?$deltatoken={token}", world.urls.graph, call.request.path);
    Ok(Answer::json(200, json!({ "@odata.context": world.context(call), "@odata.deltaLink": link, "value": values })))
}

pub(super) fn post(world: &mut World, call: &Call<'_>) -> Outcome {
    world.put_message(call, None)
}

pub(super) fn reply(world: &mut World, call: &Call<'_>) -> Outcome {
    let root = call.params[2].parse().map_err(|_| Refusal::missing("Message not found."))?;
    world.put_message(call, Some(root))
}

pub(super) fn message(world: &mut World, call: &Call<'_>) -> Outcome {
    let (place, id, message) = world.visible_message(call)?;
    let mut value = world.message_value(&place, id, &message);
    value["@odata.context"] = json!(world.context(call));
    Ok(Answer::json(200, value))
}

fn hosted(world: &World, call: &Call<'_>) -> Result<BTreeMap<String, (String, Bytes)>, Refusal> {
    let place = Place::of(call);
    let id = call.params[2].parse::<u64>().map_err(|_| Refusal::missing("Message not found."))?;
    let talk = world.seen_talk(&place)?;
    world.must_be_in(&place, call)?;
    let message = talk.messages.get(&id).filter(|m| m.deleted_ms.is_none());
    message.map(|m| m.hosted.clone()).ok_or_else(|| Refusal::missing("Message not found."))
}

pub(super) fn hosted_contents(world: &mut World, call: &Call<'_>) -> Outcome {
    let values =
        hosted(world, call)?.into_keys().map(|id| json!({ "id": id, "contentBytes": null, "contentType": null }));
    let values = values.collect();
    world.page(call, values, 100)
}

pub(super) fn hosted_content(world: &mut World, call: &Call<'_>) -> Outcome {
    let found = hosted(world, call)?.remove(&call.params[3]);
    let (kind, bytes) = found.ok_or_else(|| Refusal::missing("Hosted content not found."))?;
    Ok(Answer::bytes(200, &kind, bytes))
}

pub(super) fn edit(world: &mut World, call: &Call<'_>) -> Outcome {
    if call.user().is_none() {
        let text = "Only policyViolation may be changed in application-only context.";
        return Err(Refusal::new(403, "Forbidden", text));
    }
    let (place, id) = world.own_message(call)?;
    if let Some(name) = call.json.as_object().into_iter().flatten().map(|(n, _)| n).find(|n| {
        !matches!(
            n.as_str(),
            "body" | "attachments" | "mentions" | "importance" | "subject" | "summary" | "hostedContents" | "locale"
        )
    }) {
        return Err(Refusal::bad(format!("The property {name} cannot be changed.")));
    }
    let body = world.checked_body(call, &place, false)?;
    let now = world.now();
    let message = world.talk_mut(&place).messages.get_mut(&id).expect("looked up above");
    if message.deleted_ms.is_some() {
        return Err(Refusal::missing("Message not found."));
    }
    message.body = body;
    for (name, value) in call.json.as_object().into_iter().flatten().filter(|(n, _)| *n != "body") {
        message.content[name.as_str()] = value.clone();
    }
    message.edited_ms = Some(now);
    message.modified_ms = now.max(message.modified_ms + 1);
    let message = message.clone();
    let mut detail = world.message_value(&place, id, &message);
    detail["sent"] = call.json["body"].clone();
    world.record(call, What::MessageEdited, place.name(), id.to_string(), detail);
    Ok(Answer::empty(204))
}

fn set_deleted(world: &mut World, call: &Call<'_>, deleted: bool) -> Outcome {
    let (place, id) = world.own_message(call)?;
    let now = world.now();
    let message = world.talk_mut(&place).messages.get_mut(&id).expect("looked up above");
    message.deleted_ms = deleted.then(|| message.deleted_ms.unwrap_or(now));
    message.modified_ms = now.max(message.modified_ms + 1);
    let what = if deleted { What::MessageDeleted } else { What::MessageRestored };
    world.record(call, what, place.name(), id.to_string(), json!({}));
    Ok(Answer::empty(204))
}

pub(super) fn soft_delete(world: &mut World, call: &Call<'_>) -> Outcome {
    set_deleted(world, call, true)
}

pub(super) fn undo_soft_delete(world: &mut World, call: &Call<'_>) -> Outcome {
    set_deleted(world, call, false)
}

fn react(world: &mut World, call: &Call<'_>, set: bool) -> Outcome {
    let (place, id, _) = world.visible_message(call)?;
    let kind = call.json["reactionType"].as_str().unwrap_or("").to_owned();
    if kind.is_empty() || kind.is_ascii() || kind.chars().count() > 10 {
        return Err(Refusal::bad("reactionType must be an emoji in Unicode."));
    }
    if matches!(world.seen_talk(&place)?.migration, Migration::InProgress { .. }) {
        return Err(Refusal::new(403, "Forbidden", "The conversation is being migrated."));
    }
    let (user, now) = (call.user().unwrap_or("").to_owned(), world.now());
    let message = world.talk_mut(&place).messages.get_mut(&id).expect("looked up above");
    let had = message.reactions.iter().any(|(u, k, _)| *u == user && *k == kind);
    if !set {
        message.reactions.retain(|(u, k, _)| !(*u == user && *k == kind));
    } else if !had {
        message.reactions.push((user, kind.clone(), now));
    }
    let what = if set { What::ReactionSet } else { What::ReactionUnset };
    world.record(call, what, place.name(), id.to_string(), json!({ "reactionType": kind, "changed": had != set }));
    Ok(Answer::empty(204))
}

pub(super) fn set_reaction(world: &mut World, call: &Call<'_>) -> Outcome {
    react(world, call, true)
}

pub(super) fn unset_reaction(world: &mut World, call: &Call<'_>) -> Outcome {
    react(world, call, false)
}

pub(super) fn create_chat(world: &mut World, call: &Call<'_>) -> Outcome {
    let kind = call.json["chatType"].as_str().unwrap_or("").to_owned();
    let members: BTreeSet<String> =
        call.json["members"].as_array().into_iter().flatten().filter_map(bound_user).collect();
    let known = members.iter().all(|m| world.entra.users.contains_key(m));
    let caller_in = call.user().is_none_or(|u| members.contains(u));
    let fits = match kind.as_str() {
        "oneOnOne" => members.len() == 2,
        "group" => members.len() >= 2,
        _ => false,
    };
    if !known || !caller_in || !fits || kind == "oneOnOne" && !call.json["topic"].is_null() {
        return Err(Refusal::bad("The chat type, its topic and its members do not fit each other."));
    }
    let now = world.now();
    let existing =
        world.teams.talks.iter().find(|(_, t)| kind == "oneOnOne" && t.kind == "oneOnOne" && t.members == members);
    let id = match existing {
        Some((Place::Chat(id), _)) => id.clone(),
        Some((Place::Channel { .. }, _)) | None => {
            let topic = call.json["topic"].as_str().unwrap_or("").to_owned();
            let id = world.new_chat(&kind, topic, members, now);
            world.record(call, What::ChatCreated, "", id.clone(), call.json.clone());
            id
        }
    };
    let place = Place::Chat(id);
    let mut value = world.talk_value(&place, &world.teams.talks[&place]);
    value["@odata.context"] = json!(world.context(call));
    Ok(Answer::json(201, value))
}

pub(super) fn chat(world: &mut World, call: &Call<'_>) -> Outcome {
    let place = Place::of(call);
    let talk = world.seen_talk(&place)?;
    world.must_be_in(&place, call)?;
    let mut value = world.talk_value(&place, talk);
    value["@odata.context"] = json!(world.context(call));
    Ok(Answer::json(200, value))
}
