//! The scripted mission: who takes part, what they write, and in which order.
//!
//! A [`Plan`] is data made from a seed alone, so that the same seed gives the same mission. [`Player`] carries acts
//! of a plan out through the HTTP API of the side that each person sits at.

use std::collections::BTreeMap;
use std::time::Duration;

use http::StatusCode;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde_json::{Value, json};

use super::client::{Api, ApiError, NewPost, Session};
use super::{DemoError, Side};

/// Every account of the demo has this password. Both sites live in a temporary directory on the loopback.
pub(super) const PASSWORD: &str = "Holdfast-demo-2026!";

/// How long an object may take to appear at the other side before the demo gives up on it. At 9600 bit/s with
/// heavy loss the set-up still takes less than two minutes.
const ARRIVAL_WAIT_MAX: Duration = Duration::from_secs(300);

/// How often an arrival is looked for; also the resolution of the urgent message's time.
const ARRIVAL_POLL: Duration = Duration::from_millis(50);

/// A person of the mission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "Mattermost field names")]
pub(super) struct Person {
    pub(super) side: Side,
    pub(super) username: &'static str,
    pub(super) first_name: &'static str,
    pub(super) last_name: &'static str,
    pub(super) position: &'static str,
}

/// Everybody. The first of each side administers its site; the second of each side is in every channel.
pub(super) const CAST: [Person; 8] = [
    person(Side::Edge, "edge-admin", "Edge", "Administrator", "Keeps the edge site"),
    person(Side::Edge, "amira.haddad", "أميرة", "حداد", "Team leader"),
    person(Side::Edge, "oksana.kovalenko", "Оксана", "Коваленко", "Medic"),
    person(Side::Edge, "jonas.weber", "Jonas", "Müller-Weber", "Logistics"),
    person(Side::Hub, "hub-admin", "Hub", "Administrator", "Keeps the hub"),
    person(Side::Hub, "misaki.tanaka", "美咲", "田中", "Watch officer"),
    person(Side::Hub, "diana.okafor", "Diana", "Okafor", "Director"),
    person(Side::Hub, "soren.lund", "Søren", "Lund", "Liaison"),
];

const fn person(
    side: Side,
    username: &'static str,
    first_name: &'static str,
    last_name: &'static str,
    position: &'static str,
) -> Person {
    Person { side, username, first_name, last_name, position }
}

/// Usernames that the set-up refers to by role.
const EDGE_ADMIN: &str = "edge-admin";
const HUB_ADMIN: &str = "hub-admin";
const LEADER: &str = "amira.haddad";
const MEDIC: &str = "oksana.kovalenko";
const LOGISTICS: &str = "jonas.weber";
const WATCH: &str = "misaki.tanaka";
const DIRECTOR: &str = "diana.okafor";
const LIAISON: &str = "soren.lund";

/// The places where the mission talks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// Open channel, everybody.
    Operations,
    /// Open channel with the files.
    Logistics,
    /// Private channel.
    Medical,
    /// Direct channel across the link.
    Direct,
    /// Group channel across the link.
    Group,
}

impl Place {
    /// Every place.
    pub(super) const ALL: [Self; 5] = [Self::Operations, Self::Logistics, Self::Medical, Self::Direct, Self::Group];

    /// Who talks there, at one side.
    fn people(self, side: Side) -> &'static [&'static str] {
        match (self, side) {
            (Self::Operations, Side::Edge) => &[LEADER, MEDIC, LOGISTICS],
            (Self::Operations, Side::Hub) => &[WATCH, DIRECTOR, LIAISON],
            (Self::Logistics, Side::Edge) => &[LEADER, LOGISTICS],
            (Self::Logistics, Side::Hub) => &[WATCH, LIAISON],
            (Self::Medical, Side::Edge) => &[LEADER, MEDIC],
            (Self::Medical | Self::Direct, Side::Hub) => &[WATCH],
            (Self::Direct, Side::Edge) => &[LEADER],
            (Self::Group, Side::Edge) => &[LEADER, MEDIC],
            (Self::Group, Side::Hub) => &[WATCH],
        }
    }
}

/// Name of a post within a plan, before the API gave it an id.
pub(super) type Key = u32;

/// One thing that one person does.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields say what the API call says")]
pub(super) enum Act {
    Post {
        key: Key,
        by: &'static str,
        place: Place,
        text: String,
        root: Option<Key>,
        priority: Option<&'static str>,
        attachment: Option<Attachment>,
    },
    Edit {
        key: Key,
        by: &'static str,
        text: String,
    },
    Delete {
        key: Key,
        by: &'static str,
    },
    React {
        key: Key,
        by: &'static str,
        emoji: &'static str,
    },
    Unreact {
        key: Key,
        by: &'static str,
        emoji: &'static str,
    },
    Pin {
        key: Key,
        by: &'static str,
    },
}

/// A file of the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Attachment {
    /// File name.
    pub(super) name: &'static str,
    /// Content.
    pub(super) content: Content,
}

/// Which of the plan's contents a file has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// The document.
    Original,
    /// The document with a paragraph put in and a few words changed.
    Edited,
}

/// The whole mission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// Written while the link is up; both sides answer each other.
    pub(super) together: Vec<Act>,
    /// Written while the link is cut. Acts refer to posts of `together` or to earlier ones of the same side.
    pub(super) apart: Vec<Act>,
    /// Written at the edge after the link came back, while the file is still crossing.
    pub(super) urgent: Act,
    /// The urgent post's key.
    pub(super) urgent_key: Key,
    /// The last urgent post written while the link was cut.
    pub(super) urgent_apart_key: Key,
    /// The post that both sides edit while the link is cut.
    pub(super) contested_key: Key,
    seed: u64,
    document_bytes: usize,
}

/// How much the scripted people write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Volume {
    /// Posts of small talk while the link is up.
    pub(super) together: usize,
    /// Posts of small talk while it is cut.
    pub(super) apart: usize,
    /// Size of the document.
    pub(super) document_bytes: usize,
}

impl Volume {
    /// The demo as it is shown.
    pub(super) const FULL: Self = Self { together: 24, apart: 60, document_bytes: 2_000_000 };
    /// The same with less of everything.
    pub(super) const QUICK: Self = Self { together: 8, apart: 16, document_bytes: 200_000 };
}

/// Text in the scripts that the people write in. `{}` takes a number, so that no two posts are equal.
const TALK: [&str; 12] = [
    "Convoy {} passed the bridge, no delay.",
    "Water at point {} is potable, two samples taken.",
    "Радіоперевірка {}: чую добре.",
    "الوضع هادئ عند النقطة {}",
    "第{}地点に到着しました。",
    "Treibstoff für Fahrzeug {} aufgefüllt.",
    "Generator {} läuft wieder, 3 h Reserve.",
    "צוות {} מוכן",
    "दल {} रवाना हो गया है",
    "Patient {} stable, evacuation not needed.",
    "Need batteries for radio {}, at the next drop if possible 🔋",
    "Grid 33U {} clear, moving on.",
];

const EMOJI: [&str; 4] = ["white_check_mark", "eyes", "+1", "warning"];

impl Plan {
    /// The mission that belongs to a seed.
    pub(super) fn new(seed: u64, volume: Volume) -> Self {
        let mut writer = Writer { rng: ChaCha8Rng::seed_from_u64(seed), next_key: 0, acts: Vec::new() };

        // Together: a thread across the link, a correction, a mistake taken back, a reaction each way.
        let hello = writer.post(LEADER, Place::Operations, "Camp is up at the river. Checking in. مرحبا 👋", None);
        writer.post(WATCH, Place::Operations, "読めます。Loud and clear at headquarters.", Some(hello));
        writer.post(MEDIC, Place::Operations, "Медпункт готовий, two medics on shift.", Some(hello));
        writer.act(Act::React { key: hello, by: DIRECTOR, emoji: "wave" });
        let contested = writer.post(LEADER, Place::Operations, "Supply drop: Tuesday 06:00 at LZ Kestrel", None);
        writer.act(Act::Pin { key: contested, by: LEADER });
        let order = writer.post(DIRECTOR, Place::Operations, "Report headcount before dusk, please.", None);
        writer.post(LOGISTICS, Place::Operations, "Headcount 42, all present.", Some(order));
        let typo = writer.post(LOGISTICS, Place::Logistics, "We have 12 crates left", None);
        writer.act(Act::Edit { key: typo, by: LOGISTICS, text: "We have 21 crates left".to_owned() });
        let mistake = writer.post(MEDIC, Place::Medical, "(wrong channel)", None);
        writer.act(Act::Delete { key: mistake, by: MEDIC });
        writer.post(LEADER, Place::Direct, "Can we talk about the route north?", None);
        writer.post(WATCH, Place::Direct, "はい。Sending the overlay tonight.", None);
        let plan = writer.post(WATCH, Place::Group, "Group for the evacuation plan.", None);
        writer.act(Act::React { key: plan, by: MEDIC, emoji: "+1" });
        writer.small_talk(volume.together, &[Side::Edge, Side::Hub], &[hello]);
        let together = std::mem::take(&mut writer.acts);

        // Apart: both go on, and both touch the same post.
        let apart_hello =
            writer.post(LEADER, Place::Operations, "Link is gone. We carry on and log everything here.", None);
        writer.post(WATCH, Place::Operations, "Edge unreachable since a minute; keep writing, it is queued.", None);
        writer.act(Act::Edit {
            key: contested,
            by: LEADER,
            text: "Supply drop: Tuesday 07:30 at LZ Kestrel (fog)".to_owned(),
        });
        writer.post(WATCH, Place::Operations, "Headcount received, thank you.", Some(order));
        writer.act(Act::React { key: order, by: MEDIC, emoji: "white_check_mark" });
        writer.act(Act::Unreact { key: hello, by: DIRECTOR, emoji: "wave" });
        writer.file(LOGISTICS, "Survey of the area, 2 MB", "area-survey.docx", Content::Original);
        writer.file(LEADER, "The same survey for the group", "area-survey-copy.docx", Content::Original);
        writer.file(LOGISTICS, "Survey with corrections", "area-survey-v2.docx", Content::Edited);
        let regret = writer.post(LOGISTICS, Place::Logistics, "Ignore this line", None);
        writer.act(Act::Delete { key: regret, by: LOGISTICS });
        writer.post(MEDIC, Place::Medical, "Пацієнт стабільний, next check 22:00.", None);
        writer.post(DIRECTOR, Place::Operations, "Ministers ask for a summary by noon.", None);
        writer.post(LEADER, Place::Group, "سنغادر عند الفجر — leaving at dawn.", None);
        writer.small_talk(volume.apart, &[Side::Edge, Side::Hub], &[hello, apart_hello, order]);
        // Last, so that its version is the higher one whatever the clock's resolution.
        writer.act(Act::Edit {
            key: contested,
            by: HUB_ADMIN,
            text: "Supply drop: Wednesday 06:00 at LZ Heron (approved)".to_owned(),
        });
        let urgent_apart = writer.urgent(LEADER, "URGENT: river rising, moving camp to the ridge");
        let apart = std::mem::take(&mut writer.acts);

        let urgent_key = writer.urgent(MEDIC, "URGENT: two casualties, requesting MEDEVAC at grid 33U 5312");
        let urgent = writer.acts.pop().expect("an act was written just above");
        Self {
            together,
            apart,
            urgent,
            urgent_key,
            urgent_apart_key: urgent_apart,
            contested_key: contested,
            seed,
            document_bytes: volume.document_bytes,
        }
    }

    /// The bytes of a file of this plan.
    ///
    /// Like an office document: half is text that compresses, half is packed pictures that do not.
    pub(super) fn content(&self, content: Content) -> Vec<u8> {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed ^ 0x00d0_c0de);
        let mut bytes = Vec::with_capacity(self.document_bytes + 4_096);
        while bytes.len() < self.document_bytes {
            let page_end = (bytes.len() + 4_096).min(self.document_bytes);
            while bytes.len() < page_end {
                let line = TALK[(rng.next_u32() % 12) as usize].replace("{}", &(rng.next_u32() % 10_000).to_string());
                bytes.extend_from_slice(line.as_bytes());
                bytes.push(b'\n');
            }
            let mut picture = [0u8; 4_096];
            rng.fill_bytes(&mut picture);
            bytes.extend_from_slice(&picture);
        }
        bytes.truncate(self.document_bytes);
        match content {
            Content::Original => bytes,
            Content::Edited => {
                let middle = bytes.len() / 2;
                let paragraph = "Correction: the ford at kilometre 7 is passable again since this morning.\n".repeat(3);
                bytes.splice(middle..middle, paragraph.bytes());
                let near_end = bytes.len() * 9 / 10;
                bytes[near_end..near_end + 16].copy_from_slice(b"REVISED 22:00 UT");
                bytes
            }
        }
    }
}

struct Writer {
    rng: ChaCha8Rng,
    next_key: Key,
    acts: Vec<Act>,
}

impl Writer {
    fn act(&mut self, act: Act) {
        self.acts.push(act);
    }

    fn write(&mut self, by: &'static str, place: Place, text: String, root: Option<Key>) -> Key {
        let key = self.next_key;
        self.next_key += 1;
        self.act(Act::Post { key, by, place, text, root, priority: None, attachment: None });
        key
    }

    fn post(&mut self, by: &'static str, place: Place, text: &str, root: Option<Key>) -> Key {
        self.write(by, place, text.to_owned(), root)
    }

    fn file(&mut self, by: &'static str, text: &str, name: &'static str, content: Content) -> Key {
        let key = self.post(by, Place::Logistics, text, None);
        if let Some(Act::Post { attachment, .. }) = self.acts.last_mut() {
            *attachment = Some(Attachment { name, content });
        }
        key
    }

    fn urgent(&mut self, by: &'static str, text: &str) -> Key {
        let key = self.post(by, Place::Operations, text, None);
        if let Some(Act::Post { priority, .. }) = self.acts.last_mut() {
            *priority = Some("urgent");
        }
        key
    }

    fn below(&mut self, bound: usize) -> usize {
        self.rng.next_u32() as usize % bound
    }

    /// Ordinary posts; some answer in one of `roots` (all in Operations), some get a reaction from their own side.
    fn small_talk(&mut self, posts: usize, sides: &[Side], roots: &[Key]) {
        for n in 0..posts {
            let side = sides[self.below(sides.len())];
            let place = Place::ALL[self.below(Place::ALL.len())];
            let people = place.people(side);
            let by = people[self.below(people.len())];
            let text = TALK[self.below(TALK.len())].replace("{}", &format!("{}", 1_000 + self.next_key));
            let root = (place == Place::Operations && n % 3 == 0).then(|| roots[n % roots.len()]);
            // A thread that began at one side while the link is cut is not known at the other.
            let root = root.filter(|root| self.known_at(*root, side));
            let key = self.write(by, place, text, root);
            if self.below(4) == 0 {
                let by = people[self.below(people.len())];
                let emoji = EMOJI[self.below(EMOJI.len())];
                self.act(Act::React { key, by, emoji });
            }
        }
    }

    /// Was the post written at `side`, or in an earlier part of the plan?
    fn known_at(&self, root: Key, side: Side) -> bool {
        let same = |act: &&Act| matches!(act, Act::Post { key, .. } if *key == root);
        self.acts.iter().find(same).is_none_or(|act| side_of(act.by()) == side)
    }
}

fn account(person: &Person) -> Value {
    json!({
        "username": person.username,
        "email": format!("{}@mission.example", person.username),
        "password": PASSWORD,
        "first_name": person.first_name,
        "last_name": person.last_name,
        "position": person.position,
    })
}

/// Where a person sits.
pub(super) fn side_of(username: &str) -> Side {
    CAST.iter().find(|p| p.username == username).map_or(Side::Edge, |p| p.side)
}

impl Act {
    /// Who acts.
    pub(super) fn by(&self) -> &'static str {
        match self {
            Self::Post { by, .. }
            | Self::Edit { by, .. }
            | Self::Delete { by, .. }
            | Self::React { by, .. }
            | Self::Unreact { by, .. }
            | Self::Pin { by, .. } => by,
        }
    }

    /// The posts that must be known at the actor's side.
    fn refers_to(&self) -> Option<Key> {
        match self {
            Self::Post { root, .. } => *root,
            Self::Edit { key, .. }
            | Self::Delete { key, .. }
            | Self::React { key, .. }
            | Self::Unreact { key, .. }
            | Self::Pin { key, .. } => Some(*key),
        }
    }
}

/// The mission in progress: sessions, and the ids that the API gave to the plan's names.
pub(super) struct Player {
    sessions: BTreeMap<&'static str, Session>,
    observers: BTreeMap<Side, Session>,
    channels: BTreeMap<Place, String>,
    posts: BTreeMap<Key, (String, Side)>,
    files: Vec<String>,
}

impl Player {
    /// Creates the accounts at each side, and signs everybody in.
    ///
    /// The administrators come first, before anything crosses the link: the first account of a site becomes one.
    ///
    /// # Errors
    /// When an API refuses.
    pub(super) async fn enlist(apis: &BTreeMap<Side, Api>, observer: super::client::Meter) -> Result<Self, DemoError> {
        let (admins, others): (Vec<&Person>, Vec<&Person>) =
            CAST.iter().partition(|person| [EDGE_ADMIN, HUB_ADMIN].contains(&person.username));
        for admin in admins {
            apis[&admin.side].create_first_user(&account(admin)).await?;
        }
        let mut sessions = BTreeMap::new();
        for (side, admin) in [(Side::Edge, EDGE_ADMIN), (Side::Hub, HUB_ADMIN)] {
            sessions.insert(admin, apis[&side].login(admin, PASSWORD).await?);
        }
        for person in others {
            let admin = match person.side {
                Side::Edge => EDGE_ADMIN,
                Side::Hub => HUB_ADMIN,
            };
            sessions[admin].create_user(&account(person)).await?;
            sessions.insert(person.username, apis[&person.side].login(person.username, PASSWORD).await?);
        }
        let observers = [(Side::Edge, EDGE_ADMIN), (Side::Hub, HUB_ADMIN)]
            .into_iter()
            .map(|(side, admin)| (side, sessions[admin].metered_by(observer.clone())))
            .collect();
        Ok(Self { sessions, observers, channels: BTreeMap::new(), posts: BTreeMap::new(), files: Vec::new() })
    }

    /// Builds team and channels at the edge, and lets the enterprise people in as they become known to each side.
    ///
    /// # Errors
    /// When an API refuses, or an object does not cross the link.
    pub(super) async fn assemble(&mut self) -> Result<(), DemoError> {
        let edge_admin = self.session(EDGE_ADMIN);
        let leader = self.session(LEADER);
        let hub_admin = self.session(HUB_ADMIN);
        let id = |username: &str| self.session(username).user.id.clone();

        let team = edge_admin.create_team("task-force", "Task Force قافلة").await?;
        for username in [LEADER, MEDIC, LOGISTICS] {
            edge_admin.add_to_team(&team.id, &id(username)).await?;
        }
        let open = |name, display: &'static str, kind, purpose: &'static str| {
            leader.create_channel(&team.id, name, display, kind, purpose)
        };
        let operations = open("operations", "Operations", "O", "What happens, as it happens").await?;
        let logistics = open("logistics", "Logistics 補給", "O", "Supplies, vehicles, documents").await?;
        let medical = open("medical", "Медична група", "P", "Patients; need to know").await?;
        for (channel, usernames) in
            [(&operations, &[MEDIC, LOGISTICS][..]), (&logistics, &[LOGISTICS][..]), (&medical, &[MEDIC][..])]
        {
            for username in usernames {
                leader.add_to_channel(&channel.id, &id(username)).await?;
            }
        }

        // The hub lets its people into what arrives from the edge.
        self.arrived(Side::Hub, &format!("/teams/{}", team.id)).await?;
        for channel in [&operations, &logistics] {
            self.arrived(Side::Hub, &format!("/channels/{}", channel.id)).await?;
        }
        for username in [WATCH, DIRECTOR, LIAISON] {
            hub_admin.add_to_team(&team.id, &id(username)).await?;
            hub_admin.add_to_channel(&operations.id, &id(username)).await?;
        }
        for username in [WATCH, LIAISON] {
            hub_admin.add_to_channel(&logistics.id, &id(username)).await?;
        }

        // The edge invites the watch officer, once known there, into what is closed.
        let watch = id(WATCH);
        self.arrived(Side::Edge, &format!("/teams/{}/members/{watch}", team.id)).await?;
        leader.add_to_channel(&medical.id, &watch).await?;
        let direct = leader.direct(&id(LEADER), &watch).await?;
        let group = leader.group(&[&id(LEADER), &id(MEDIC), &watch]).await?;
        for channel in [&medical, &direct, &group] {
            self.arrived(Side::Hub, &format!("/channels/{}/members/{watch}", channel.id)).await?;
        }

        self.channels = BTreeMap::from([
            (Place::Operations, operations.id),
            (Place::Logistics, logistics.id),
            (Place::Medical, medical.id),
            (Place::Direct, direct.id),
            (Place::Group, group.id),
        ]);
        Ok(())
    }

    /// Carries one act out. A post of the other side that it refers to is waited for.
    ///
    /// # Errors
    /// When an API refuses, or the post it refers to does not cross the link.
    pub(super) async fn play(&mut self, plan: &Plan, act: &Act) -> Result<(), DemoError> {
        let by = act.by();
        let session = self.session(by).clone();
        let side = side_of(by);
        if let Some((id, written_at)) = act.refers_to().map(|key| &self.posts[&key])
            && *written_at != side
        {
            self.arrived(side, &format!("/posts/{id}")).await?;
        }
        let id = |key: &Key| self.posts[key].0.as_str();
        match act {
            Act::Post { key, by: _, place, text, root, priority, attachment } => {
                let channel_id = self.channels[place].clone();
                let mut file_ids = Vec::new();
                if let Some(attachment) = attachment {
                    let content = plan.content(attachment.content);
                    let file = session.upload(&channel_id, attachment.name, &content).await?;
                    self.files.push(file.id.clone());
                    file_ids.push(file.id);
                }
                let new = NewPost {
                    channel_id: &channel_id,
                    message: text,
                    root_id: root.as_ref().map(id),
                    priority: *priority,
                    file_ids: &file_ids,
                };
                let post = session.post(new).await?;
                self.posts.insert(*key, (post.id, side));
            }
            Act::Edit { key, by: _, text } => session.edit(id(key), text).await.map(drop)?,
            Act::Delete { key, by: _ } => session.delete(id(key)).await?,
            Act::React { key, by: _, emoji } => session.react(id(key), emoji).await?,
            Act::Unreact { key, by: _, emoji } => session.unreact(id(key), emoji).await?,
            Act::Pin { key, by: _ } => session.pin(id(key)).await?,
        }
        Ok(())
    }

    /// The id of a post that was played.
    pub(super) fn post_id(&self, key: Key) -> &str {
        &self.posts[&key].0
    }

    /// The administrator's session of a side, counted as observation and not as mission traffic.
    pub(super) fn observer(&self, side: Side) -> &Session {
        &self.observers[&side]
    }

    /// The session of the person of a side who is in every channel.
    pub(super) fn member_of_all(&self, side: Side) -> &Session {
        self.session(match side {
            Side::Edge => LEADER,
            Side::Hub => WATCH,
        })
    }

    /// The files that were uploaded.
    pub(super) fn file_ids(&self) -> &[String] {
        &self.files
    }

    /// Everyone's session, by username.
    pub(super) fn sessions(&self) -> &BTreeMap<&'static str, Session> {
        &self.sessions
    }

    /// The channels of the mission.
    pub(super) fn channel_ids(&self) -> impl Iterator<Item = &str> {
        self.channels.values().map(String::as_str)
    }

    fn session(&self, username: &str) -> &Session {
        &self.sessions[username]
    }

    /// Waits until a side's API knows an object.
    ///
    /// # Errors
    /// When it does not come, or the API fails otherwise than by not knowing it.
    pub(super) async fn arrived(&self, side: Side, path: &str) -> Result<(), DemoError> {
        let observer = self.observer(side);
        let look = async {
            loop {
                match observer.get::<Value>(path).await {
                    Ok(_) => return Ok(()),
                    Err(error) if is_absent(&error) => tokio::time::sleep(ARRIVAL_POLL).await,
                    Err(error) => return Err(error.into()),
                }
            }
        };
        tokio::time::timeout(ARRIVAL_WAIT_MAX, look)
            .await
            .unwrap_or_else(|_| Err(DemoError::NotArrived { side, path: path.to_owned(), waited: ARRIVAL_WAIT_MAX }))
    }
}

/// An object that has not arrived looks unknown, or closed to those who are not yet its members.
fn is_absent(error: &ApiError) -> bool {
    matches!(error.status(), Some(StatusCode::NOT_FOUND | StatusCode::FORBIDDEN))
}

#[cfg(test)]
mod tests {
    use super::super::client::Meter;
    use super::*;
    use mission::http::{ApiState, HttpSettings};
    use mission::ws::WsHub;
    use mission::{Core, CoreOptions, CoreSettings};
    use std::sync::Arc;
    use tokio_util::sync::CancellationToken;

    fn acts(plan: &Plan) -> impl Iterator<Item = &Act> {
        plan.together.iter().chain(&plan.apart).chain([&plan.urgent])
    }

    #[test]
    fn the_seed_alone_decides_the_mission() {
        assert_eq!(Plan::new(7, Volume::FULL), Plan::new(7, Volume::FULL));
        assert_ne!(Plan::new(7, Volume::FULL).apart, Plan::new(8, Volume::FULL).apart);
        let content = |seed| Plan::new(seed, Volume::QUICK).content(Content::Original);
        assert_eq!(content(7), content(7));
        assert_ne!(content(7), content(8));
    }

    #[test]
    fn everything_the_issue_names_happens() {
        let plan = Plan::new(1, Volume::FULL);
        let has = |wanted: fn(&Act) -> bool| acts(&plan).any(wanted);
        assert!(has(|a| matches!(a, Act::Edit { .. })));
        assert!(has(|a| matches!(a, Act::Delete { .. })));
        assert!(has(|a| matches!(a, Act::React { .. })));
        assert!(has(|a| matches!(a, Act::Unreact { .. })));
        assert!(has(|a| matches!(a, Act::Pin { .. })));
        assert!(has(|a| matches!(a, Act::Post { root: Some(_), .. })));
        assert!(has(|a| matches!(a, Act::Post { attachment: Some(_), .. })));
        assert!(matches!(plan.urgent, Act::Post { priority: Some("urgent"), .. }));
        let editors: Vec<Side> = plan
            .apart
            .iter()
            .filter(|a| matches!(a, Act::Edit { key, .. } if *key == plan.contested_key))
            .map(|a| side_of(a.by()))
            .collect();
        assert_eq!(editors, [Side::Edge, Side::Hub]);
    }

    #[test]
    fn while_the_link_is_cut_nobody_refers_to_what_only_the_other_side_knows() {
        for seed in 0..20 {
            let plan = Plan::new(seed, Volume::FULL);
            let mut written_at = BTreeMap::new();
            for act in &plan.apart {
                let side = side_of(act.by());
                if let Some(at) = act.refers_to().and_then(|key| written_at.get(&key)) {
                    assert_eq!(*at, side, "seed {seed}: {act:?}");
                }
                if let Act::Post { key, .. } = act {
                    written_at.insert(*key, side);
                }
            }
        }
    }

    #[test]
    fn people_write_only_where_they_are_members_and_no_two_texts_are_equal() {
        let plan = Plan::new(3, Volume::FULL);
        let mut texts = std::collections::BTreeSet::new();
        for act in acts(&plan) {
            if let Act::Post { by, place, text, .. } = act {
                assert!(place.people(side_of(by)).contains(by), "{act:?}");
                assert!(texts.insert(text), "{text}");
            }
        }
    }

    #[test]
    fn the_edited_copy_shares_nearly_everything_with_the_document() {
        let plan = Plan::new(1, Volume::FULL);
        let (original, edited) = (plan.content(Content::Original), plan.content(Content::Edited));
        assert_eq!(original.len(), 2_000_000);
        assert_ne!(original, edited);
        let middle = original.len() / 2;
        assert_eq!(original[..middle], edited[..middle]);
        assert_eq!(original[original.len() - 1_000..], edited[edited.len() - 1_000..]);
    }

    /// Both sides of the link are one and the same site here: what is asked of the API is the same.
    #[tokio::test(flavor = "multi_thread")]
    async fn the_api_accepts_every_act_and_shows_what_was_played() {
        let dir = tempfile::tempdir().unwrap();
        let stop = CancellationToken::new();
        let node = model::NodeId([7; 16]);
        let sockets = WsHub::new(stop.child_token());
        let core = Core::open(CoreOptions {
            dir: dir.path().to_owned(),
            node,
            node_name: "edge".to_owned(),
            mint: Arc::new(keys::ProcessMint::new(node)),
            clock: Arc::new(carrier::SystemClock),
            hybrid: Arc::new(model::HybridClock::default()),
            events: Arc::new(sockets.clone()),
            settings: CoreSettings { open_registration: true, ..CoreSettings::default() },
        })
        .unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let meter = Meter::default();
        let api = Api::new(listener.local_addr().unwrap(), meter.clone());
        let router = mission::http::router(ApiState::new(core, sockets, HttpSettings::default()));
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(async move { axum::serve(listener, router).await });

        let apis = Side::BOTH.into_iter().map(|side| (side, api.clone())).collect();
        let mut player = Player::enlist(&apis, Meter::default()).await.unwrap();
        // The site knows one first account; with two sites each administrator is the first.
        let promoted = json!({"roles": "system_user system_admin"});
        let path = format!("/users/{}/roles", player.session(HUB_ADMIN).user.id);
        player.session(EDGE_ADMIN).send::<Value>(http::Method::PUT, &path, &promoted).await.unwrap();

        player.assemble().await.unwrap();
        let plan = Plan::new(5, Volume::QUICK);
        for act in acts(&plan) {
            player.play(&plan, act).await.unwrap_or_else(|e| panic!("{act:?}: {e}"));
        }
        for (file, content) in player.file_ids().iter().zip([Content::Original, Content::Original, Content::Edited]) {
            assert_eq!(player.observer(Side::Hub).download(file).await.unwrap(), plan.content(content));
            assert!(player.observer(Side::Hub).has_file(file).await);
        }
        let edge = super::super::compare::read(&player, Side::Edge).await.unwrap();
        let hub = super::super::compare::read(&player, Side::Hub).await.unwrap();
        let comparison = super::super::compare::compare(&edge, &hub);
        assert!(comparison.equal(), "{:?}", comparison.differences);
        assert_eq!(edge.duplicates(), 0);
        assert_eq!((comparison.by_kind["user"], comparison.by_kind["file"]), (CAST.len(), 3));
        let written = acts(&plan).filter(|act| matches!(act, Act::Post { .. })).count();
        assert!(comparison.by_kind["post"] >= written, "deleted posts are compared too: {comparison:?}");
        assert!(meter.bytes() > 600_000, "three files of 200 kB were carried");
        stop.cancel();
        tasks.shutdown().await;
    }
}
