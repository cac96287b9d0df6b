//! What tests of the targets are made of.

use microsoft::targets::{TargetKind, TargetSettings};
use model::event::{FileState, FileStub, PostState, ReactionState};
use model::{
    EntryId, Epoch, Event, Header, Hlc, Id, Kind, NodeId, Precedence, Seq, SourcePosition, UnixMillis, Version,
};

pub(crate) const NODE: NodeId = NodeId([3; 16]);
pub(crate) const CHANNEL: u8 = 200;

pub(crate) fn id(n: u8) -> Id {
    Id::from_block([n; 16])
}

pub(crate) fn entry_id(n: u64) -> EntryId {
    EntryId { origin: NODE, epoch: Epoch::FIRST, seq: Seq::new(n).unwrap() }
}

pub(crate) fn target(kind: TargetKind) -> TargetSettings {
    let destination = match kind {
        TargetKind::SharepointArchive => "drive = \"drive-1\"\nfolder = \"Holdfast\"",
        TargetKind::TeamsDigest => "recipients = [\"oid-2\"]\nlink = \"https://teams.example/l/x\"",
        TargetKind::Mail => "mailbox = \"box\"\nrecipients = [\"ops@contoso.example\"]",
        TargetKind::MailImport => "mailbox = \"box\"\nfolder = \"Holdfast\"",
        TargetKind::TeamsDelegated | TargetKind::TeamsImport => {
            "team = \"team-1\"\nchannel = \"19:c@thread.tacv2\"\naccount = \"oid-1\""
        }
    };
    let text = format!(
        "name = \"t\"\nkind = \"{kind}\"\nlabels = [\"mission\"]\nteams = [\"*\"]\nchannels = [\"*\"]\n{destination}"
    );
    toml::from_str(&text).unwrap()
}

pub(crate) fn header(event: &Event, n: u64) -> Header {
    Header {
        id: entry_id(n),
        source: SourcePosition(Hlc(n)),
        stream: event.stream(),
        causes: Vec::new(),
        after: None,
        precedence: if event.kind() == Kind::Purge { Precedence::Flash } else { Precedence::Routine },
        captured: Hlc((1_700_000_000_000 + n) << 16),
        origin_time: UnixMillis(1_700_000_000_000),
        expiry: None,
        supersedes: None,
        label: "mission".parse().unwrap(),
        kind: event.kind(),
        mint_salt: 1,
    }
}

fn version(at: u64) -> Version {
    Version { at: Hlc(at), by: NODE }
}

pub(crate) fn post(n: u8, message: &str) -> Event {
    Event::Post(post_state(n, message))
}

pub(crate) fn post_state(n: u8, message: &str) -> PostState {
    PostState {
        version: version(u64::from(n)),
        id: id(n),
        channel_id: id(CHANNEL),
        user_id: id(201),
        root_id: None,
        create_at: UnixMillis(1_700_000_000_000 + i64::from(n) * 1_000),
        update_at: UnixMillis(1_700_000_000_000),
        edit_at: UnixMillis(0),
        delete_at: UnixMillis(0),
        message: message.to_owned(),
        kind: String::new(),
        props: String::new(),
        hashtags: String::new(),
        is_pinned: false,
        files: Vec::new(),
        priority: None,
    }
}

pub(crate) fn reaction(post: u8, user: u8, emoji: &str, present: bool) -> Event {
    Event::Reaction(ReactionState {
        version: version(u64::from(post) + u64::from(!present) + 1),
        post_id: id(post),
        user_id: id(user),
        emoji_name: emoji.to_owned(),
        channel_id: id(CHANNEL),
        create_at: UnixMillis(1),
        update_at: UnixMillis(1),
        delete_at: UnixMillis(i64::from(!present)),
        post_update_at: UnixMillis(1),
    })
}

pub(crate) fn file(n: u8, post: u8, name: &str, size: u64) -> Event {
    let stub = FileStub {
        id: id(n),
        create_at: UnixMillis(1),
        name: name.to_owned(),
        extension: "bin".to_owned(),
        size,
        mime_type: "application/octet-stream".to_owned(),
        width: 0,
        height: 0,
    };
    Event::File(FileState {
        version: version(u64::from(n)),
        stub,
        user_id: id(201),
        channel_id: id(CHANNEL),
        post_id: Some(id(post)),
        content: None,
    })
}
