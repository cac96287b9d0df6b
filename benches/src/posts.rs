//! Bytes that a chat post costs on a direct hop, in the frames that the link's own sessions make.
//!
//! ```text
//! talk (seed) --> entries as capture makes them --> Session (edge) --frames, counted--> Session (hub)
//! ```
//! Both sessions are the product's; only their journals are in memory. What is counted is the payload of a frame in
//! QUIC's stream, which `flash_wire` adds the transport's headers to.

mod pair;
pub(crate) mod talk;

use std::collections::BTreeMap;

use model::event::{ChannelState, PostPriority, PostState, UserState};
use model::{
    Entry, EntryId, Epoch, Event, Header, HybridClock, Id, IdMint, Label, NodeId, ObjectRef, Precedence, Seq,
    SourcePosition, StreamId, UnixMillis, Version,
};
use serde_json::json;

use crate::Error;
use crate::report::{Bench, tell};
use pair::Pair;
use talk::Talk;

/// The seed of the mission that is measured.
const SEED: u64 = 11;

/// What a datagram with one frame carries beside it: IPv4 and UDP 28, QUIC's short header with a connection id of 8 bytes, the
/// head of a stream frame, an acknowledgement, AEAD tag 16. The carrier's tests hold it against what quinn sends: 58 without
/// the acknowledgement, at most 70 with it.
const DATAGRAM_BYTES: usize = 70;

/// Bytes per post while chat flows: alone, by 20, by 100, before and after a restart, cold; and where they go.
pub(crate) fn run(bench: &mut Bench) -> Result<(), Error> {
    let (warm, samples) = bench.scale.pick((60, 40), (2_000, 1_000), (6_000, 4_000));
    let level = json!(COMPRESSION);
    let mut mission = Mission::begin(SEED);
    let mut pair = Pair::new(COMPRESSION);
    for entry in mission.setup() {
        pair.append(entry);
    }
    pair.settle();
    // Nothing is acknowledged history yet, but for the directory.
    let cold = mission.flow(&mut pair, 20, samples.min(200));
    bench.row("posts", "by 20, first posts of a link", &[("level", level.clone())], cold.per_post(), "B/post");
    mission.flow(&mut pair, 20, warm);
    for restarted in [false, true] {
        let when = if restarted { ", after a restart" } else { "" };
        if restarted {
            pair.restart();
            mission.restart();
            // The first posts of a process tell its salt, as the first ones of a mission tell its people.
            mission.flow(&mut pair, 20, 40);
        }
        for together in [1, 20, 100] {
            let flow = mission.flow(&mut pair, together, samples);
            let subject = if together == 1 { format!("alone{when}") } else { format!("by {together}{when}") };
            let params = [("level", level.clone())];
            bench.row("posts", &subject, &params, flow.per_post(), "B/post");
            bench.row("posts", &subject, &params, flow.history_bytes as f64 / flow.posts as f64, "B/post for history");
            match (together, restarted) {
                (1, false) => bench.summary.post_bytes_alone = Some(flow.per_post()),
                (20, false) => bench.summary.post_bytes_coalesced = Some(flow.per_post()),
                (1, true) => bench.summary.post_bytes_alone_restarted = Some(flow.per_post()),
                (20, true) => bench.summary.post_bytes_coalesced_restarted = Some(flow.per_post()),
                _ => {}
            }
        }
        let flash = mission.flashes(&mut pair, samples.min(300));
        bench.row("posts", format!("flash alone{when}"), &[("level", level.clone())], flash.per_post(), "B/post");
        let wire = flash.per_post() + DATAGRAM_BYTES as f64;
        bench.row("posts", format!("flash alone{when}"), &[("level", level.clone())], wire, "B on the wire");
        let worst = bench.summary.flash_wire_bytes.unwrap_or_default().max(wire);
        bench.summary.flash_wire_bytes = Some(worst);
    }
    let texts = mission.texts.concat();
    let posts = mission.texts.len() as f64;
    bench.row("posts", "text alone, as it is", &[], texts.len() as f64 / posts, "B/post");
    bench.row(
        "posts",
        "text alone, zstd -19 solid",
        &[],
        wire::compress(texts.as_bytes(), 19).len() as f64 / posts,
        "B/post",
    );
    tell(&format!("{posts} posts"));
    Ok(())
}

/// As on a link of up to 512 kbit/s.
const COMPRESSION: i32 = 19;

const EDGE: NodeId = pair::EDGE;

/// What was sent for some posts.
struct Flow {
    posts: usize,
    /// Frames of entries.
    entry_bytes: usize,
    /// Frames with which the sessions agree on what is history, both directions.
    history_bytes: usize,
}

impl Flow {
    /// Everything that crossed for a post but its receipt.
    fn per_post(&self) -> f64 {
        (self.entry_bytes + self.history_bytes) as f64 / self.posts as f64
    }
}

/// People, channels and their posts, as entries of the edge.
struct Mission {
    talk: Talk,
    mint: keys::ProcessMint,
    restarts: u64,
    hybrid: HybridClock,
    now: UnixMillis,
    users: Vec<Id>,
    channels: Vec<Id>,
    /// Channel and root of what may be answered.
    threads: Vec<(usize, Id)>,
    created: BTreeMap<ObjectRef, EntryId>,
    /// The last entry of each stream and precedence.
    heads: BTreeMap<(StreamId, Precedence), (Epoch, Seq)>,
    last: u64,
    texts: Vec<String>,
}

impl Mission {
    fn begin(seed: u64) -> Self {
        Self {
            talk: Talk::begin(seed),
            mint: keys::ProcessMint::with_salt(EDGE, 0x1f2e_3d4c_5b6a),
            restarts: 0,
            hybrid: HybridClock::default(),
            now: UnixMillis(1_790_000_000_123),
            users: Vec::new(),
            channels: Vec::new(),
            threads: Vec::new(),
            created: BTreeMap::new(),
            heads: BTreeMap::new(),
            last: 0,
            texts: Vec::new(),
        }
    }

    /// Team directory and channels.
    fn setup(&mut self) -> Vec<Entry> {
        let mut entries = Vec::new();
        for n in 0..talk::AUTHORS {
            let (version, id) = (self.version(), self.mint.mint());
            self.users.push(id);
            entries.push(self.entry(Event::User(UserState {
                version,
                id,
                create_at: self.now,
                update_at: self.now,
                delete_at: UnixMillis(0),
                username: format!("user-{n}"),
                email: format!("user-{n}@mission.invalid"),
                nickname: String::new(),
                first_name: String::new(),
                last_name: String::new(),
                position: String::new(),
                locale: "en".to_owned(),
                is_bot: false,
                entra: None,
            })));
        }
        for n in 0..talk::CHANNELS {
            let (version, id) = (self.version(), self.mint.mint());
            self.channels.push(id);
            entries.push(self.entry(Event::Channel(ChannelState {
                version,
                id,
                create_at: self.now,
                update_at: self.now,
                delete_at: UnixMillis(0),
                team_id: None,
                kind: "P".to_owned(),
                name: format!("channel-{n}"),
                display_name: format!("Channel {n}"),
                header: String::new(),
                purpose: String::new(),
                creator_id: Some(self.users[0]),
            })));
        }
        entries
    }

    /// The process starts again: ids get another salt.
    fn restart(&mut self) {
        self.restarts += 1;
        self.mint = keys::ProcessMint::with_salt(EDGE, 0x0a1b_2c3d_4e5f * (self.restarts + 1));
    }

    /// The next post.
    fn post(&mut self, priority: Option<PostPriority>) -> Entry {
        let line = self.talk.line();
        self.now.0 += line.pause_ms;
        let answered = (line.is_reply && !self.threads.is_empty()).then(|| {
            // What was said last is answered most.
            let back = (line.author * 7 + line.text.len()) % self.threads.len().min(8);
            self.threads[self.threads.len() - 1 - back]
        });
        let (version, id) = (self.version(), self.mint.mint());
        let channel = answered.map_or(line.channel, |(channel, _)| channel);
        if answered.is_none() {
            self.threads.push((channel, id));
            if self.threads.len() > 30 {
                self.threads.remove(0);
            }
        }
        // Each post takes a second id or two: of a reaction, a draft, a session.
        if line.text.len().is_multiple_of(3) {
            self.mint.mint();
        }
        let root_id = answered.map(|(_, root)| root).filter(|_| priority.is_none());
        self.texts.push(line.text.clone());
        self.entry(Event::Post(PostState {
            version,
            id,
            channel_id: self.channels[channel],
            user_id: self.users[line.author],
            root_id,
            create_at: self.now,
            update_at: self.now,
            edit_at: UnixMillis(0),
            delete_at: UnixMillis(0),
            message: line.text,
            kind: String::new(),
            props: String::new(),
            hashtags: String::new(),
            is_pinned: false,
            files: Vec::new(),
            priority,
        }))
    }

    /// Posts that wait together and go together.
    fn flow(&mut self, pair: &mut Pair, together: usize, posts: usize) -> Flow {
        let before = pair.sent();
        let rounds = posts.div_ceil(together);
        for _ in 0..rounds {
            for _ in 0..together {
                let entry = self.post(None);
                pair.append(entry);
            }
            pair.settle();
        }
        pair.since(before, rounds * together)
    }

    /// Contact reports while nothing else is said.
    fn flashes(&mut self, pair: &mut Pair, posts: usize) -> Flow {
        let before = pair.sent();
        for _ in 0..posts {
            let urgent =
                PostPriority { priority: "urgent".to_owned(), requested_ack: true, persistent_notifications: false };
            let entry = self.post(Some(urgent));
            pair.append(entry);
            pair.settle();
        }
        pair.since(before, posts)
    }

    fn version(&mut self) -> Version {
        Version { at: self.hybrid.tick(self.now), by: EDGE }
    }

    /// As `capture` drafts and the journal numbers it: the causes are the entries that created what the event needs.
    fn entry(&mut self, event: Event) -> Entry {
        let captured = event.version().at;
        self.last += 1;
        let seq = Seq::new(self.last).expect("numbers start at 1");
        let id = EntryId { origin: EDGE, epoch: Epoch::FIRST, seq };
        let causes = event.needs().iter().filter_map(|need| self.created.get(need).copied()).collect();
        self.created.entry(event.object()).or_insert(id);
        let is_user = matches!(event, Event::User(_));
        let precedence = match &event {
            Event::Post(post) if post.priority.is_some() => Precedence::Flash,
            Event::Post(_) => Precedence::Routine,
            Event::User(_)
            | Event::Team(_)
            | Event::TeamMember(_)
            | Event::Channel(_)
            | Event::ChannelMember(_)
            | Event::Reaction(_)
            | Event::File(_)
            | Event::Emoji(_)
            | Event::Purge(_)
            | Event::Acknowledgement(_)
            | Event::Bookmark(_) => Precedence::Priority,
        };
        let label = if is_user { Label::directory() } else { "mission".parse().expect("a label") };
        let mut header = Header {
            id,
            source: SourcePosition(captured),
            stream: event.stream(),
            causes,
            after: None,
            precedence,
            captured,
            origin_time: self.now,
            expiry: None,
            supersedes: None,
            label,
            kind: event.kind(),
            mint_salt: self.mint.salt(),
        };
        header.after = header.lane().and_then(|lane| self.heads.insert(lane, (id.epoch, id.seq)));
        let body = wire::encode_event(&event, EDGE, header.mint_salt);
        Entry { header, body }
    }
}
