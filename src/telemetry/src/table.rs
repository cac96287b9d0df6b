//! Every metric: name, kind, labels, help. The names get the prefix `holdfast_`.

use model::{Precedence, SpaceLevel, UnixMillis};
use prometheus::TextEncoder;

use crate::labels::{
    Build, Destination, Direction, LinkName, LinkReach, LinkState, MicrosoftDestination, MicrosoftOutcome,
    MicrosoftProbe, MicrosoftReach, MicrosoftService, ObjectCount, ParcelRefusal, PeerName, Refusal, RequestKind, Role,
    StatusClass, Term,
};
use crate::metric::metrics;

metrics! {
    journal_segments: Gauge [] "Segment files on disk.",
    journal_disk_bytes: Gauge [] "Size of the journal's segment files.",
    journal_trimmed_bytes_total: Counter [] "Bytes freed because every destination was finished with them.",
    journal_damaged_frames_total: Counter [] "Damaged places that were skipped when the journal was opened.",
    journal_quarantined_places: Gauge [] "Damaged places in the segments of which the bytes are kept aside.",
    journal_missing_entries: Gauge [] "Own entries that cannot be read and that some destination has not finished with.",
    journal_restored_entries_total: Counter [] "Own entries that were damaged and came back from a peer.",
    journal_index_rebuilds_total: Counter [] "Times the index was rebuilt from the segments when the journal was opened.",
    journal_space_level: Gauge [level: SpaceLevel] "1 for what is refused at present for want of room, 0 for the others.",
    journal_space_limit_left_bytes: Gauge [] "Bytes up to journal.limit_bytes.",
    journal_space_disk_left_bytes: Gauge [] "Bytes free on the disk, with those in the reserve.",
    journal_space_reserve_bytes: Gauge [] "Bytes kept on the disk for what is most urgent.",
    journal_commits_total: Counter [] "Writes of the journal that were synced to the disk; each holds what waited for it.",
    journal_committed_requests_total: Counter [] "Appends and other requests that those writes made durable.",
    journal_sync_seconds: DiskHistogram [] "Time that one write of the journal and its sync took.",
    journal_append_seconds: DiskHistogram [] "Time from asking the journal for something until it was durable.",
    journal_queue_bytes: Gauge [] "Bytes that wait for the journal's disk.",
    journal_refused_total: Counter [reason: Refusal] "Requests that the journal refused.",
    journal_epoch: Gauge [] "The node's present numbering; it grows when bytes were lost or a snapshot was restored.",

    scrub_read_bytes_total: Counter [] "Bytes of sealed segments read again to verify them.",
    scrub_segments_total: Counter [] "Sealed segments verified again.",
    scrub_damaged_places_total: Counter [] "Damaged places that the scrub met.",
    scrub_wrong_hashes_total: Counter [] "Entries and hash chains that the scrub found to be wrong.",
    scrub_verified_segments: Gauge [] "Sealed segments that were verified within the configured time.",
    scrub_oldest_seconds: Gauge [] "Time since the segment was verified whose turn is longest over; absent while one never was.",

    capture_rows_total: Counter [precedence: Precedence] "Outbox rows turned into journal entries.",
    capture_pending_rows: Gauge [] "Outbox rows committed in the mission core and not yet in the journal.",
    capture_lag_seconds: Gauge [] "Age of the oldest outbox row that is not yet in the journal; 0 when there is none.",

    link_state: Gauge [peer: PeerName, state: LinkState] "1 for the state that the link to the peer is in, 0 for the others.",
    link_wire_bytes_total: Counter [peer: PeerName, direction: Direction] "Bytes on the wire, with the overhead of the carrier.",
    link_goodput_bytes: Gauge [peer: PeerName, direction: Direction] "Bytes on the wire during the last second.",
    link_round_trip_seconds: Gauge [peer: PeerName] "Smoothed round trip of the present connection.",
    link_sent_entries_total: Counter [peer: PeerName, precedence: Precedence] "Entries sent to the peer.",
    link_entry_plain_bytes_total: Counter [peer: PeerName] "Bytes of entries sent to the peer in batches, as the journal holds them.",
    link_entry_packed_bytes_total: Counter [peer: PeerName] "Bytes of the frames with these batches: over the plain bytes, what compression leaves.",
    link_history_lost_entries_total: Counter [peer: PeerName] "Entries sent again because the peer no longer held the history that their batch referred to.",
    link_received_entries_total: Counter [peer: PeerName] "Entries that arrived from the peer for the first time.",
    link_duplicate_entries_total: Counter [peer: PeerName] "Entries that arrived from the peer again and were dropped.",
    link_received_chunk_bytes_total: Counter [peer: PeerName] "Bytes of file content from the peer that became durable here, each chunk counted once.",
    link_reconnects_total: Counter [peer: PeerName] "Connections made with the peer.",
    link_bad_frames_total: Counter [peer: PeerName] "Frames from the peer that could not be read.",
    link_asked_again_entries_total: Counter [peer: PeerName] "Entries that the peer lost to damage after it had stored them, and that are sent again.",
    link_urgent_ack_seconds: Histogram [peer: PeerName] "Time from capture of a flash or immediate entry until the peer stored it.",

    carrier_link_reach: Gauge [peer: PeerName, link: LinkName, reach: LinkReach] "1 for what this link is found to be over time, 0 for the others: a short absence is no outage, and one that comes and goes is intermittent.",
    carrier_link_up: Gauge [peer: PeerName, link: LinkName] "1 while this link to the peer has a connection.",
    carrier_link_wire_bytes_total: Counter [peer: PeerName, link: LinkName, direction: Direction] "Bytes on the wire over this link, with the overhead of the carrier.",
    carrier_link_frame_bytes_total: Counter [peer: PeerName, link: LinkName, precedence: Precedence] "Bytes of frames with entries and file content handed to this link, by sending class.",
    carrier_link_round_trip_seconds: Gauge [peer: PeerName, link: LinkName] "Smoothed round trip of this link's present connection.",
    carrier_link_loss_ratio: Gauge [peer: PeerName, link: LinkName] "Share of the packets of this link's present connection that were lost.",
    carrier_link_budget_left_bytes: Gauge [peer: PeerName, link: LinkName] "Bytes that may still be sent over this link in its day or month; absent without a budget.",

    oneway_sent_datagrams_total: Counter [peer: PeerName] "Datagrams sent over the one-way lane to the peer.",
    oneway_received_datagrams_total: Counter [] "Datagrams that came where one-way lanes arrive.",
    oneway_rejected_datagrams_total: Counter [] "Of these, those that were damaged, none of this lane's, or of nobody who is enrolled.",
    oneway_unconfirmed_entries: Gauge [peer: PeerName] "Held entries that were sent over the one-way lane in as many rounds as are configured (in one, without that): nobody knows whether they arrived.",

    parcels_made_total: Counter [peer: PeerName] "Parcels made for a peer, for whatever carries them.",
    parcels_taken_total: Counter [peer: PeerName] "Parcels of a peer that were opened and taken in.",
    parcels_refused_total: Counter [reason: ParcelRefusal] "Parcels that were not taken; nothing of them was kept.",

    transit_taken_parcels_total: Counter [destination: Destination] "Parcels for another node that were taken to be handed on.",
    transit_handed_on_parcels_total: Counter [destination: Destination] "Of these and of those held at the start, parcels that the next node has taken.",
    transit_expired_parcels_total: Counter [destination: Destination] "Parcels for another node that were held for too long and removed. Whoever wrote them holds what is in them.",
    transit_dropped_parcels_total: Counter [destination: Destination] "Parcels for another node that the next node refused for good, or that the disk damaged. Whoever wrote them holds what is in them.",
    transit_held_parcels: Gauge [destination: Destination] "Parcels that are held for another node.",
    transit_held_bytes: Gauge [destination: Destination] "Their bytes.",
    transit_oldest_seconds: Gauge [destination: Destination] "Age of the oldest of them; 0 when there is none.",

    equation_entries: Gauge [destination: Destination, term: Term] "The terms of: accepted = applied + held + quarantined + expired + superseded + withheld + purged.",
    equation_held_entries: Gauge [destination: Destination, precedence: Precedence] "Entries without a final receipt, by sending class.",
    equation_oldest_held_seconds: Gauge [destination: Destination] "Age of the oldest entry without a final receipt; 0 when there is none.",
    equation_backlog_bytes: Gauge [destination: Destination] "Bytes of the held entries with the whole content of held files: at most so many must still cross.",
    equation_eta_seconds: Gauge [destination: Destination] "Estimated time until nothing is held; absent while nothing drains.",

    backlog_link_bytes: Gauge [destination: Destination, precedence: Precedence] "What has not crossed, as frames on the link: estimated from how entries and files packed so far.",
    backlog_oldest_seconds: Gauge [destination: Destination, precedence: Precedence] "Age of the oldest entry without a final receipt; 0 when there is none.",
    backlog_eta_seconds: Gauge [destination: Destination, precedence: Precedence] "Estimated time until everything of the class has crossed, at the slow end, from when the link is up; 0 when nothing is left.",
    backlog_no_progress_seconds: Gauge [destination: Destination] "Time in which nothing of the backlog has moved although something is held; 0 when nothing is.",

    apply_applied_entries_total: Counter [origin: PeerName] "Entries of a peer whose effect became durable here.",
    apply_held_entries: Gauge [origin: PeerName] "Entries of a peer stored here that wait for a cause.",
    apply_quarantined_entries_total: Counter [origin: PeerName] "Entries of a peer that could not be applied and were kept aside.",
    apply_refetched_entries_total: Counter [origin: PeerName] "Entries of a peer that were damaged here before they were applied, and are asked for again.",
    apply_late_posts_total: Counter [origin: PeerName] "Posts that were applied long after they were written.",

    purges_ordered_total: Counter [] "Orders to purge content that were given on this node.",
    purges_done_total: Counter [] "Orders, of this node and of its peers, that were carried out on this node.",
    purges_open: Gauge [] "Orders that are not carried out on this node yet.",
    purges_waiting: Gauge [peer: PeerName] "Orders of this node without a final receipt of the peer.",

    mission_objects: Gauge [object: ObjectCount] "Objects in the mission core.",
    mission_websocket_connections: Gauge [] "Clients connected to the event stream.",
    mission_pushes_sent_total: Counter [] "Notifications to mobile devices that the push proxy took.",
    mission_pushes_dropped_total: Counter [] "Notifications to mobile devices that waited too long or that the push proxy refused.",
    mission_http_requests_total: Counter [kind: RequestKind, status: StatusClass] "Requests answered by the mission core.",
    mission_http_body_bytes_total: Counter [direction: Direction] "Bytes of HTTP bodies: up is what clients received, down is what they sent.",

    microsoft_reach: Gauge [destination: MicrosoftDestination, state: MicrosoftReach] "1 for what this destination is found to be over time, 0 for the others.",
    microsoft_probes_total: Counter [destination: MicrosoftDestination, outcome: MicrosoftProbe] "Probes, by what came of them.",
    microsoft_calls_total: Counter [service: MicrosoftService, outcome: MicrosoftOutcome] "Calls to Microsoft Graph, by how they ended for whoever made them.",
    microsoft_throttled_total: Counter [service: MicrosoftService] "Answers of Microsoft Graph that refused for speed.",
    microsoft_sent_bytes_total: Counter [precedence: Precedence] "Bytes sent to Microsoft: heads and bodies of requests, without TLS and what lies below.",
    microsoft_clock_ahead_seconds: Gauge [] "By how much Microsoft's clock is ahead of this node's, as its last answer had it.",

    directory_people: Gauge [] "People that are known from the directory.",
    directory_accounts: Gauge [] "Accounts that the directory sync keeps and that can sign in.",
    directory_held_people: Gauge [] "People who would lose access and are held until an operator decides, because they are many.",
    directory_rounds_total: Counter [] "Rounds of the directory sync that went through.",
    directory_disabled_total: Counter [] "Accounts that the directory sync ended.",

    process_start_time_seconds: Gauge [] "When this node started, as seconds since 1970.",
    process_health_checks: Gauge [] "Health checks that are not ok.",
    build_info: Gauge [version: Build, role: Role] "1 for the version and role that run.",
}

impl Metrics {
    /// All metrics at zero in a registry of their own.
    pub fn new() -> Self {
        Self::register(prometheus::Registry::new())
    }

    /// Notes what runs and since when.
    pub fn started(&self, role: Role, now: UnixMillis) {
        Role::ALL.iter().for_each(|r| self.build_info.forget((Build::This, *r)));
        self.build_info.set((Build::This, role), 1.0);
        self.process_start_time_seconds.set((), now.0 as f64 / 1_000.0);
    }

    /// Marks `level` as the one that the journal is at.
    pub fn set_space_level(&self, level: SpaceLevel) {
        for each in SpaceLevel::ALL {
            self.journal_space_level.set((each,), if each == level { 1.0 } else { 0.0 });
        }
    }

    /// Marks `state` as the one that the link to `peer` is in.
    pub fn set_link_state(&self, peer: &PeerName, state: LinkState) {
        for each in LinkState::ALL {
            self.link_state.set((peer.clone(), *each), if *each == state { 1.0 } else { 0.0 });
        }
    }

    /// Marks what `link` to `peer` is found to be.
    pub fn set_link_reach(&self, peer: &PeerName, link: &LinkName, reach: LinkReach) {
        for each in LinkReach::ALL {
            self.carrier_link_reach.set((peer.clone(), link.clone(), *each), if *each == reach { 1.0 } else { 0.0 });
        }
    }

    /// Marks what `destination` is found to be.
    pub fn set_microsoft_reach(&self, destination: MicrosoftDestination, state: MicrosoftReach) {
        for each in MicrosoftReach::ALL {
            self.microsoft_reach.set((destination, *each), if *each == state { 1.0 } else { 0.0 });
        }
    }

    /// The text exposition (format 0.0.4).
    pub fn exposition(&self) -> String {
        TextEncoder::new().encode_to_string(&self.registry.gather()).expect("handles make only well-formed families")
    }

    /// Media type of [`Metrics::exposition`].
    pub const CONTENT_TYPE: &'static str = prometheus::TEXT_FORMAT;

    /// The page of the manual, made from the rows.
    pub fn manual() -> String {
        let mut page = String::from(MANUAL_HEAD);
        let mut room = "";
        for row in Self::rows() {
            let name = row.name.trim_start_matches("holdfast_");
            let this_room = name.split('_').next().unwrap_or(name);
            if this_room != room {
                page.push_str(&format!(
                    "\n## {this_room}\n\n| metric | kind | labels | meaning |\n|---|---|---|---|\n"
                ));
                room = this_room;
            }
            let labels: Vec<String> = row.labels.iter().map(|(label, values)| label_cell(label, values)).collect();
            page.push_str(&format!(
                "| `{}` | {} | {} | {} |\n",
                row.name,
                row.kind.as_str(),
                labels.join("; "),
                row.help
            ));
        }
        page
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

const MANUAL_HEAD: &str = "\
# Metrics

Served as Prometheus text at `http://<metrics.listen>/metrics` (default 127.0.0.1). Every metric is one row of
`src/telemetry/src/table.rs`; this page is made from it, and a test compares the two.
Labels `peer`, `destination` and `origin` hold the name under which the other node was enrolled.
";

fn label_cell(label: &str, values: &[&str]) -> String {
    match values {
        [] => format!("`{label}`"),
        [_] => format!("`{label}`"),
        _ => format!("`{label}`: {}", values.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manual_file() -> std::path::PathBuf {
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/metrics.md")
    }

    #[test]
    fn the_manual_lists_exactly_the_rows_of_the_table() {
        if std::env::var_os("HOLDFAST_UPDATE_DOCS").is_some() {
            std::fs::write(manual_file(), Metrics::manual()).unwrap();
        }
        let page = std::fs::read_to_string(manual_file()).unwrap();
        assert_eq!(page, Metrics::manual(), "run the tests once with HOLDFAST_UPDATE_DOCS=1");
    }

    #[test]
    fn two_nodes_in_one_process_count_apart() {
        let (alpha, bravo) = (Metrics::new(), Metrics::new());
        alpha.capture_rows_total.inc((Precedence::Flash,));
        assert_eq!(alpha.capture_rows_total.get((Precedence::Flash,)), 1);
        assert_eq!(bravo.capture_rows_total.get((Precedence::Flash,)), 0);
    }

    #[test]
    fn a_series_with_enum_labels_is_exposed_before_it_counts() {
        let text = Metrics::new().exposition();
        assert!(text.contains("holdfast_capture_rows_total{precedence=\"flash\"} 0\n"), "{text}");
        assert!(text.contains("holdfast_capture_pending_rows 0\n"), "{text}");
    }

    #[test]
    fn a_link_is_in_one_state_at_a_time() {
        let metrics = Metrics::new();
        let peer = PeerName::new("bravo");
        metrics.set_link_state(&peer, LinkState::Connecting);
        metrics.set_link_state(&peer, LinkState::Up);
        let states: Vec<f64> = LinkState::ALL.iter().map(|s| metrics.link_state.get((peer.clone(), *s))).collect();
        assert_eq!(states, [0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn only_the_role_that_runs_is_in_the_build_info() {
        let metrics = Metrics::new();
        metrics.started(Role::Hub, UnixMillis(1_700_000_000_500));
        let text = metrics.exposition();
        assert!(text.contains("role=\"hub\""), "{text}");
        assert!(!text.contains("role=\"edge\""), "{text}");
        assert!(text.contains("holdfast_process_start_time_seconds 1700000000.5\n"), "{text}");
    }

    /// The same judgement as CI's, where Prometheus' own tool is installed.
    #[test]
    fn promtool_accepts_the_exposition() {
        use std::io::Write as _;
        use std::process::{Command, Stdio};
        let metrics = Metrics::new();
        metrics.started(Role::Edge, UnixMillis(1_700_000_000_000));
        let peer = PeerName::new("bravo \"quoted\"");
        metrics.set_link_state(&peer, LinkState::Up);
        metrics.link_urgent_ack_seconds.observe((peer.clone(),), 0.7);
        metrics.equation_entries.set_count((peer.clone(), Term::Accepted), 7);
        metrics.equation_eta_seconds.set((peer,), f64::NAN);
        let tool = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let Ok(mut tool) = tool else { return };
        tool.stdin.take().unwrap().write_all(metrics.exposition().as_bytes()).unwrap();
        let verdict = tool.wait_with_output().unwrap();
        assert!(verdict.status.success(), "{}", String::from_utf8_lossy(&verdict.stderr));
    }
}
