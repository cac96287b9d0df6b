//! Archives as the original writes them, and archives that nobody should write.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use model::Event;
use serde_json::{Value, json};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use super::*;
use crate::testkit::Node;
use crate::types::{PostQuery, PostView, Session, ThreadPart};

const AT: i64 = 1_700_000_000_000;

fn archive(dir: &Path, name: &str, lines: &[Value], files: &[(&str, &[u8])]) -> PathBuf {
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    archive_of(dir, name, text.as_bytes(), files)
}

fn archive_of(dir: &Path, name: &str, lines: &[u8], files: &[(&str, &[u8])]) -> PathBuf {
    let path = dir.join(name);
    let mut zip = ZipWriter::new(File::create(&path).unwrap());
    zip.start_file("import.jsonl", SimpleFileOptions::default()).unwrap();
    zip.write_all(lines).unwrap();
    for (name, bytes) in files {
        let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
        zip.start_file(*name, stored).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap();
    path
}

fn version() -> Value {
    json!({"type":"version","version":1,"info":{"generator":"mattermost-server","version":"11.6.0 (x, enterprise: false)","created":"2026-11-23T20:00:00Z"}})
}

fn team() -> Value {
    json!({"type":"team","team":{"name":"ops","display_name":"Operations","type":"O","description":"","allow_open_invite":true}})
}

fn channel(name: &str) -> Value {
    json!({"type":"channel","channel":{"team":"ops","name":name,"display_name":name,"type":"P","header":"h","purpose":"p","deleted_at":0}})
}

fn person(name: &str, viewed: i64) -> Value {
    json!({"type":"user","user":{"username":name,"email":format!("{name}@there.example"),"auth_service":null,"nickname":"","first_name":name,
        "last_name":"","position":"","roles":"system_user","locale":"de","delete_at":0,"theme":"{\"a\":\"#000\"}","military_time":"true",
        "tutorial_step":"999","email_interval":"hour",
        "teams":[{"name":"ops","roles":"team_user","channels":[
            {"name":"plans","roles":"channel_user channel_admin","notify_props":{"desktop":"all","mobile":"none","mark_unread":"all"},
             "favorite":true,"mention_count":0,"mention_count_root":0,"urgend_mention_count":0,"msg_count":9,"msg_count_root":9,"last_viewed_at":viewed}]}],
        "notify_props":{"desktop":"all","desktop_sound":"true","email":"false","mobile":"all","mobile_push_status":"away","channel":"true","comments":"never","mention_keys":""}}})
}

/// What a small server exports.
fn server() -> Vec<Value> {
    vec![
        version(),
        json!({"type":"role","role":{"name":"x","display_name":"x","description":"","permissions":[],"scheme_managed":false}}),
        team(),
        channel("town-square"),
        channel("plans"),
        person("alice", AT + 500),
        person("bob", AT + 150),
        json!({"type":"emoji","emoji":{"name":"smile","image":"emoji/x/image"}}),
        json!({"type":"bot","bot":{"username":"robot","owner":"alice","display_name":"Robot","description":"d","delete_at":0}}),
        json!({"type":"post","post":{"team":"ops","channel":"plans","user":"alice","type":"","message":"first #plan","props":{},
            "create_at":AT + 100,"edit_at":AT + 101,"flagged_by":["bob"],"is_pinned":true,
            "reactions":[{"user":"bob","create_at":AT + 120,"emoji_name":"+1"}],
            "replies":[
                {"user":"bob","type":"","message":"an answer","props":{},"create_at":AT + 200,"edit_at":0,"flagged_by":[],
                 "reactions":[{"user":"alice","create_at":AT + 210,"emoji_name":"eyes"}],"attachments":[{"path":"20231114/map.txt"}]}],
            "attachments":[{"path":"20231114/note.txt"},{"path":"20231114/gone.txt"}],
            "thread_followers":[{"user":"alice","last_viewed":AT + 150,"unread_mentions":1},{"user":"bob","last_viewed":AT + 200,"unread_mentions":0}]}}),
        json!({"type":"post","post":{"team":"ops","channel":"plans","user":"robot","type":"","message":"second","props":{"from_bot":"true"},
            "create_at":AT + 300,"edit_at":0,"flagged_by":[],"reactions":[],"replies":null}}),
        json!({"type":"direct_channel","direct_channel":{"participants":[{"username":"alice","last_viewed_at":AT + 900},{"username":"bob"}],
            "header":"us","shown_by":["alice"],"favorited_by":["bob"]}}),
        json!({"type":"direct_post","direct_post":{"channel_members":["alice","bob"],"user":"bob","type":"","message":"psst","props":{},
            "create_at":AT + 400,"edit_at":0,"flagged_by":[],"reactions":null,"replies":null,"attachments":null}}),
    ]
}

const FILES: &[(&str, &[u8])] = &[("data/20231114/note.txt", b"a note"), ("data/20231114/map.txt", b"a map")];

fn go_on(_: &BulkProgress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn import(node: &Node, file: &Path) -> Result<BulkImported, BulkError> {
    node.core.bulk_import(file, ImportOptions::default(), &mut go_on)
}

fn everything() -> ExportOptions {
    ExportOptions { attachments: true, profile_pictures: true, archived_channels: true }
}

/// The lines of an export but its first, sorted, and the names of the other entries.
fn export(node: &Node, name: &str) -> (Vec<String>, BTreeSet<String>) {
    let file = node.dir.path().join(name);
    node.core.bulk_export(&file, everything(), &mut go_on).unwrap();
    let mut zip = ZipArchive::new(File::open(file).unwrap()).unwrap();
    let mut text = String::new();
    zip.by_name("import.jsonl").unwrap().read_to_string(&mut text).unwrap();
    let mut lines: Vec<String> = text.lines().skip(1).map(str::to_owned).collect();
    lines.sort();
    (lines, zip.file_names().filter(|name| *name != "import.jsonl").map(str::to_owned).collect())
}

fn sign_in(node: &Node, name: &str) -> Session {
    node.enrol(name)
}

#[test]
fn a_server_comes_over_with_authors_times_threads_and_read_marks() {
    let node = Node::new(1);
    let file = archive(node.dir.path(), "in.zip", &server(), FILES);
    let done = import(&node, &file).unwrap();
    assert_eq!(done.checked.generator, "mattermost-server 11.6.0 (x, enterprise: false)");
    let added = |kind: &str| done.added.get(kind).copied().unwrap_or(0);
    assert_eq!((added("user"), added("bot"), added("team"), added("channel")), (2, 1, 1, 1));
    assert_eq!((added("post"), added("reply"), added("reaction"), added("attachment")), (3, 1, 2, 2));
    assert_eq!(done.without_password, 2);
    let said: Vec<&str> = done.checked.warnings.first.iter().map(|w| w.text.as_str()).collect();
    assert!(said.iter().any(|text| text.contains("20231114/gone.txt")), "{said:?}");
    assert!(said.iter().any(|text| text.contains("`role`")), "{said:?}");

    let (alice, bob) = (sign_in(&node, "alice"), sign_in(&node, "bob"));
    let team = node.core.team_by_name(&alice, "ops").unwrap();
    let plans = node.core.channel_by_name(&alice, team.id, "plans", false).unwrap();
    assert_eq!((plans.total_msg_count, plans.total_msg_count_root, plans.last_post_at), (3, 2, AT + 300));
    let view = PostView::default();
    let query = PostQuery::Page { page: 0, per_page: 60 };
    let posts = node.core.channel_posts(&alice, plans.id, &query, &view).unwrap();
    let by_text = |text: &str| posts.posts.values().find(|p| p.message == text).unwrap();
    let first = by_text("first #plan");
    assert_eq!((first.user_id, first.create_at, first.edit_at), (alice.user_id, AT + 100, AT + 101));
    assert!(first.is_pinned);
    assert_eq!(first.hashtags, "#plan");
    assert_eq!(first.metadata.files[0].name, "note.txt");
    assert_eq!(first.metadata.reactions[0].create_at, AT + 120);
    assert_eq!(first.reply_count, 1);
    let reply = by_text("an answer");
    assert_eq!((reply.root_id, reply.user_id), (Some(first.id), bob.user_id));
    let path = node.core.file_path(reply.metadata.files[0].id).unwrap().unwrap();
    assert_eq!(std::fs::read(path).unwrap(), b"a map");

    // Alice had read everything, Bob the first post: he has two to read.
    let unread = |who: &Session| node.core.channel_unread(who, who.user_id, plans.id).unwrap().msg_count;
    assert_eq!((unread(&alice), unread(&bob)), (0, 2));
    let thread = node.core.followed_thread(&alice, alice.user_id, first.id, false).unwrap();
    assert_eq!((thread.unread_replies, thread.unread_mentions), (1, 1));
    let setting =
        |category: &str, name: &str| node.core.preference(&alice, alice.user_id, category, name).unwrap().value;
    assert_eq!(setting("theme", ""), "{\"a\":\"#000\"}");
    assert_eq!(setting("notifications", "email_interval"), "3600");
    assert_eq!(setting("tutorial_step", alice.user_id.as_str()), "999");
    let flagged = node.core.preference(&bob, bob.user_id, "flagged_post", first.id.as_str()).unwrap();
    assert_eq!(flagged.value, "true");
    let sidebar = node.core.categories(&alice, alice.user_id, team.id).unwrap();
    let favorites = sidebar.categories.iter().find(|c| c.kind == "favorites").unwrap();
    assert_eq!(favorites.channel_ids, [plans.id]);

    let direct = node.core.direct_channel(&alice, alice.user_id, bob.user_id).unwrap();
    assert_eq!(direct.header, "us");
    let psst = node.core.channel_posts(&alice, direct.id, &query, &view).unwrap();
    // Of Bob the line does not say when he looked: he never did.
    let unread = |who: &Session| node.core.channel_unread(who, who.user_id, direct.id).unwrap().msg_count;
    assert_eq!((unread(&alice), unread(&bob)), (0, 1));
    assert_eq!(psst.posts.values().next().unwrap().message, "psst");
    let whole = node.core.thread(&bob, first.id, &ThreadPart::default()).unwrap();
    assert_eq!(whole.posts.len(), 2);
}

#[test]
fn what_is_imported_travels_as_history_and_what_is_said_then_does_not() {
    let node = Node::new(1);
    let file = archive(node.dir.path(), "in.zip", &server(), FILES);
    import(&node, &file).unwrap();
    let rows = node.outbox();
    assert!(rows.iter().all(|row| row.is_history));
    let posts = rows.iter().filter(|row| matches!(row.event, Event::Post(_))).count();
    let files = rows.iter().filter(|row| matches!(row.event, Event::File(_))).count();
    assert_eq!((posts, files), (4, 2));
    let before = rows.len();
    let alice = sign_in(&node, "alice");
    let team = node.core.team_by_name(&alice, "ops").unwrap();
    let plans = node.core.channel_by_name(&alice, team.id, "plans", false).unwrap();
    node.say(&alice, plans.id, None, "today");
    let rows = node.outbox();
    assert!(rows[before..].iter().any(|row| matches!(&row.event, Event::Post(p) if p.message == "today")));
    assert!(rows[before..].iter().all(|row| !row.is_history));

    // Another node that gets it all has the same.
    let other = Node::new(2);
    let sent = node.drain();
    other.apply(&sent);
    assert_eq!(other.core.export_snapshot().unwrap(), node.core.export_snapshot().unwrap());
}

#[test]
fn what_stays_here_gives_no_rows_of_its_channels() {
    let node = Node::new(1);
    let file = archive(node.dir.path(), "in.zip", &server(), FILES);
    node.core.bulk_import(&file, ImportOptions { stay_here: true }, &mut go_on).unwrap();
    let leaves = |event: &Event| {
        matches!(
            event,
            Event::Channel(_) | Event::ChannelMember(_) | Event::Post(_) | Event::Reaction(_) | Event::File(_)
        )
    };
    assert!(!node.outbox().iter().any(|row| leaves(&row.event)));
    assert_eq!(node.core.stats().unwrap().posts, 4);
}

#[test]
fn the_same_archive_again_adds_nothing_also_where_people_went_on() {
    let node = Node::new(1);
    let file = archive(node.dir.path(), "in.zip", &server(), FILES);
    import(&node, &file).unwrap();
    let (alice, bob) = (sign_in(&node, "alice"), sign_in(&node, "bob"));
    let team = node.core.team_by_name(&alice, "ops").unwrap();
    let plans = node.core.channel_by_name(&alice, team.id, "plans", false).unwrap();
    let posts = node
        .core
        .channel_posts(&alice, plans.id, &PostQuery::Page { page: 0, per_page: 60 }, &PostView::default())
        .unwrap();
    let by_text = |text: &str| posts.posts.values().find(|p| p.message == text).unwrap().id;
    let patch = crate::types::PostPatch { message: Some("first, corrected".to_owned()), ..Default::default() };
    node.core.patch_post(&alice, by_text("first #plan"), &patch).unwrap();
    node.core.delete_post(&bob, by_text("an answer")).unwrap();
    node.core.delete_reaction(&bob, bob.user_id, by_text("first #plan"), "+1").unwrap();
    node.core.remove_channel_member(&bob, plans.id, bob.user_id).unwrap();
    node.drain();
    let before = node.core.export_snapshot().unwrap();
    let again = import(&node, &file).unwrap();
    assert!(again.checked.warnings.first.iter().any(|w| w.text.starts_with("2 users have an account")));
    assert_eq!((again.added.len(), again.changed.len()), (0, 0), "{:?} {:?}", again.added, again.changed);
    assert_eq!(node.core.export_snapshot().unwrap(), before);
    assert_eq!(node.outbox(), []);
}

#[test]
fn an_export_imported_elsewhere_exports_the_same_lines() {
    let node = Node::new(1);
    let (alice, bob) = (node.user("alice"), node.user("bob"));
    let (team, square) = node.team(&alice, "mission");
    node.core.add_team_member(&bob, team.id, bob.user_id).unwrap();
    node.advance(1_000);
    let root = node.say(&alice, square.id, None, "@bob come in");
    node.advance(5);
    node.say(&bob, square.id, Some(root.id), "here");
    node.core.save_reaction(&bob, bob.user_id, root.id, "wave").unwrap();
    let file = node.upload(&alice, square.id, "plan [final].txt", b"the plan");
    let mut post = crate::testkit::words(square.id, None, "see this");
    post.file_ids = vec![file.to_string()];
    node.advance(5);
    node.core.create_post(&alice, &post, true).unwrap();
    let direct = node.core.direct_channel(&alice, alice.user_id, bob.user_id).unwrap();
    node.advance(5);
    node.say(&alice, direct.id, None, "in private");
    let emoji = crate::emoji::NewEmoji { creator_id: alice.user_id.to_string(), name: "frigate_124".to_owned() };
    let picture = crate::images::tests::picture(16, 16, image::ImageFormat::Png);
    node.core.create_emoji(&alice, &emoji, &picture).unwrap();
    node.core.set_user_picture(&alice, alice.user_id, &picture).unwrap();
    let gone = node.say(&bob, square.id, None, "deleted");
    node.core.delete_post(&bob, gone.id).unwrap();

    let (lines, files) = export(&node, "out.zip");
    let other = Node::new(2);
    other.advance(86_400_000);
    let done = import(&other, &node.dir.path().join("out.zip")).unwrap();
    assert_eq!(done.checked.warnings.first, []);
    let (again, files_again) = export(&other, "again.zip");
    assert_eq!(again, lines);
    assert_eq!(files_again, files);
    assert!(!lines.iter().any(|line| line.contains("deleted\"")));
}

#[test]
fn wrong_lines_are_named_by_number_and_nothing_is_changed() {
    let node = Node::new(1);
    let before = node.core.export_snapshot().unwrap();
    let post = |extra: Value| {
        let mut post = json!({"team":"ops","channel":"plans","user":"alice","message":"x","create_at":AT});
        post.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        json!({"type":"post","post":post})
    };
    let reply = |user: &str| json!({"replies":[{"user":user,"message":"y","create_at":AT}]});
    let mut lines = vec![version(), team(), channel("plans"), person("alice", AT)];
    lines.extend([
        json!({"type":"channel","channel":{"team":"nowhere","name":"a","display_name":"a","type":"O"}}),
        json!({"type":"playbook","playbook":{}}),
        person("Alice", AT),
        post(json!({"channel":"nowhere"})),
        post(json!({"user":"nobody"})),
        post(reply("nobody")),
        post(json!({"replies":[{"message":"y","create_at":AT}]})),
        post(json!({"create_at":0})),
        post(json!({"message":"x".repeat(20_000)})),
        post(json!({"attachments":[{"path":"../../etc/passwd"}]})),
        post(json!({"reactions":[{"user":"alice","emoji_name":"+1","create_at":AT - 1}]})),
        json!({"type":"direct_post","direct_post":{"channel_members":["alice"],"user":"alice","message":"x","create_at":AT}}),
        json!({"type":"post"}),
        version(),
    ]);
    let file = archive(node.dir.path(), "in.zip", &lines, &[]);
    let checked = node.core.bulk_check(&file, &mut go_on).unwrap();
    let numbers: Vec<u64> = checked.errors.first.iter().map(|f| f.line).collect();
    assert_eq!(numbers, (5..=18).collect::<Vec<_>>(), "{:#?}", checked.errors.first);
    let text = |line: u64| checked.errors.first.iter().find(|f| f.line == line).unwrap().text.clone();
    assert!(text(6).contains("`playbook`"), "{}", text(6));
    assert!(text(7).contains("line 4"), "{}", text(7));
    assert!(text(10).contains("reply 1") && text(10).contains("`nobody`"), "{}", text(10));
    assert!(text(14).contains("leads out"), "{}", text(14));
    let refused = import(&node, &file).unwrap_err();
    assert!(matches!(&refused, BulkError::Refused(checked) if checked.errors.count == 14));
    assert!(refused.to_string().contains("line 5") && refused.to_string().contains("nothing was changed"), "{refused}");
    assert_eq!(node.core.export_snapshot().unwrap(), before);
    assert_eq!(node.outbox(), []);
}

#[test]
fn hostile_archives_are_refused_before_they_cost_anything() {
    let node = Node::new(1);
    let dir = node.dir.path();
    let why = |name: &str, lines: &[u8]| {
        let file = archive_of(dir, name, lines, &[]);
        match node.core.bulk_check(&file, &mut go_on) {
            Ok(checked) => checked.errors.first.iter().map(|f| format!("{}: {}", f.line, f.text)).collect::<String>(),
            Err(e) => e.to_string(),
        }
    };
    let first = format!("{}\n", version());
    let long = [first.as_bytes(), &vec![b'x'; 100 << 20]].concat();
    // A hundred mebibytes of one letter pack to a thousandth.
    assert!(why("long.zip", &long).contains("made to burst"));
    let long = [first.as_bytes(), &vec![b'x'; 17 << 20]].concat();
    assert!(why("long2.zip", &long).starts_with("2: the line is longer"), "{}", why("long3.zip", &long));
    let broken = format!("{first}{}\n{{\"type\":\n{}\n", team(), channel("plans"));
    assert!(why("broken.zip", broken.as_bytes()).starts_with("3: it is not JSON"));
    assert!(why("deep.zip", format!("{first}{}", "[".repeat(100_000)).as_bytes()).starts_with("2: it is not JSON"));
    assert!(why("none.zip", b"").contains("no lines"));
    std::fs::write(dir.join("no.zip"), b"not a zip at all").unwrap();
    let error = node.core.bulk_check(&dir.join("no.zip"), &mut go_on).unwrap_err();
    assert!(error.to_string().contains("no readable zip"), "{error}");
    assert!(node.core.bulk_check(&dir.join("missing.zip"), &mut go_on).is_err());
    let two = archive_of(dir, "two.zip", first.as_bytes(), &[("other.jsonl", b"")]);
    assert!(node.core.bulk_check(&two, &mut go_on).unwrap_err().to_string().contains("several"));
    assert_eq!(node.outbox(), []);
}

#[test]
fn an_import_that_is_stopped_goes_on_where_it_was() {
    let node = Node::new(1);
    let mut lines = vec![version(), team(), channel("plans"), person("alice", AT)];
    for n in 0..1_000 {
        lines.push(json!({"type":"post","post":{"team":"ops","channel":"plans","user":"alice","message":format!("post {n}"),"create_at":AT + n}}));
    }
    let file = archive(node.dir.path(), "in.zip", &lines, &[]);
    let mut batches = 0;
    let mut stop = |progress: &BulkProgress| {
        batches += u32::from(progress.phase == BulkPhase::Importing);
        if batches > 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let stopped = node.core.bulk_import(&file, ImportOptions::default(), &mut stop).unwrap_err();
    let BulkError::Stopped { line } = stopped else { panic!("{stopped}") };
    assert_eq!(node.core.stats().unwrap().posts, line - 5, "every line before it");
    let done = import(&node, &file).unwrap();
    assert_eq!(done.added["post"], 1_000 - (line - 5));
    assert_eq!(node.core.stats().unwrap().posts, 1_000);
}

#[test]
fn an_account_that_is_there_keeps_its_password_and_its_rights() {
    let node = Node::new(1);
    let alice = node.user("alice");
    let mut line = person("alice", AT);
    line["user"]["password"] = "let me in here".into();
    line["user"]["roles"] = "system_admin system_user".into();
    let bob = node.user("bob");
    let mut other = person("bob", AT);
    other["user"]["roles"] = "system_admin system_user".into();
    let file = archive(node.dir.path(), "in.zip", &[version(), team(), channel("plans"), line, other], &[]);
    import(&node, &file).unwrap();
    assert!(node.core.session(&alice.token).is_ok());
    node.login("alice");
    assert_eq!(node.core.user(bob.user_id).unwrap().roles, "system_user");
    let here = node.core.user(bob.user_id).unwrap();
    assert_eq!((here.first_name.as_str(), here.email.ends_with("@there.example")), ("", false));
}

#[test]
fn a_password_of_a_line_lets_its_user_in() {
    let node = Node::new(1);
    let mut line = person("carol", AT);
    line["user"]["password"] = crate::testkit::PASSWORD.into();
    let file = archive(node.dir.path(), "in.zip", &[version(), team(), channel("plans"), line], &[]);
    assert_eq!(import(&node, &file).unwrap().without_password, 0);
    node.login("carol");
}

/// Lines of a small server with bytes changed here and there.
fn mangled() -> impl proptest::strategy::Strategy<Value = Vec<u8>> {
    use proptest::prelude::*;
    let text: String = server().iter().map(|line| format!("{line}\n")).collect();
    let bytes = text.into_bytes();
    let change =
        (0..bytes.len(), prop_oneof![Just(b'0'), Just(b'"'), Just(b'-'), Just(b'x'), Just(b'\n'), any::<u8>()]);
    proptest::collection::vec(change, 0..4).prop_map(move |changes| {
        let mut bytes = bytes.clone();
        for (at, byte) in changes {
            bytes[at] = byte;
        }
        bytes
    })
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(48))]

    /// What the look at the lines lets through must be carried out to its end: an import never stops halfway for what could have
    /// been said before.
    #[test]
    fn what_is_found_right_is_imported(lines in mangled()) {
        let node = Node::new(1);
        let file = archive_of(node.dir.path(), "in.zip", &lines, FILES);
        match import(&node, &file) {
            Ok(done) => proptest::prop_assert_eq!(done.checked.errors.count, 0),
            Err(BulkError::Refused(checked)) => {
                proptest::prop_assert!(checked.errors.count > 0);
                proptest::prop_assert!(node.outbox().is_empty());
            }
            Err(e) => return Err(proptest::test_runner::TestCaseError::fail(e.to_string())),
        }
    }
}

async fn over(core: &crate::Core, job: model::Id) -> crate::types::Job {
    loop {
        let seen = core.job(job).unwrap();
        if !matches!(seen.status.as_str(), "pending" | "in_progress" | "cancel_requested") {
            return seen;
        }
        tokio::task::yield_now().await;
    }
}

fn data(pairs: &[(&str, &str)]) -> crate::types::StringMap {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[tokio::test]
async fn a_job_that_was_under_way_goes_on_after_a_restart_and_one_after_the_other() {
    let node = Node::new(1);
    let file = archive(node.dir.path(), "in.zip", &server(), FILES);
    let path = file.to_str().unwrap();
    let first = node.core.operator_asks(jobs::IMPORT, data(&[("file", path), ("then_delete", "true")])).unwrap();
    let second = node.core.operator_asks(jobs::EXPORT, data(&[("include_attachments", "true")])).unwrap();
    let third = node.core.operator_asks(jobs::IMPORT, data(&[("file", "/nowhere.zip")])).unwrap();
    let canceled = node.core.operator_asks(jobs::EXPORT, data(&[])).unwrap();
    node.core.cancel_job(canceled.id).unwrap();
    // The process had begun the first one when it died.
    node.core
        .write(|tx| {
            crate::rows::run(&tx.db, "UPDATE jobs SET status = 'in_progress' WHERE id = ?1", [first.id.as_str()])
        })
        .unwrap();
    let node = node.reopened();
    let core = node.core.clone();
    let stop = tokio_util::sync::CancellationToken::new();
    let look = async {
        let ended = [over(&core, first.id).await, over(&core, second.id).await, over(&core, third.id).await];
        stop.cancel();
        ended
    };
    let ((), ended) = tokio::join!(node.core.clone().keep_jobs(stop.clone()), look);
    let statuses: Vec<&str> = ended.iter().map(|job| job.status.as_str()).collect();
    assert_eq!(statuses, ["success", "success", "error"], "{ended:#?}");
    let done: BulkImported = serde_json::from_str(&ended[0].data["report"]).unwrap();
    assert_eq!(done.added["user"], 2);
    assert!(!file.exists(), "an uploaded archive goes when it is imported");
    assert!(core.export_path(second.id).exists());
    assert!(ended[2].data["error"].contains("/nowhere.zip") && !ended[2].data["next_step"].is_empty());
    assert_eq!(core.job(canceled.id).unwrap().status, "canceled");
    assert_eq!(core.cancel_job(first.id).unwrap_err().status_code, 400);
}

#[test]
fn over_the_api_an_import_names_an_upload_and_never_a_path() {
    let node = Node::new(1);
    let root = node.user("root");
    let mallory = node.user("mallory");
    let ask = |by: &Session, name: &str| {
        node.core.create_job(
            by,
            jobs::IMPORT,
            &data(&[("import_file", name), ("file", "/etc/passwd"), ("local_mode", "true")]),
        )
    };
    for path in ["../core.sqlite3", "/etc/passwd", "a/b.zip", "..", "", ".hidden", "a\\b.zip"] {
        assert_eq!(ask(&root, path).unwrap_err().status_code, 400, "{path}");
    }
    let job = ask(&root, "up.zip").unwrap();
    assert!(job.data["file"].ends_with("imports/up.zip") && !job.data.contains_key("local_mode"), "{:?}", job.data);
    assert_eq!(ask(&mallory, "up.zip").unwrap_err().status_code, 403);
    assert_eq!(node.core.open_export(&root, "../core.sqlite3").unwrap_err().status_code, 400);
    assert_eq!(node.core.open_export(&mallory, "x.zip").unwrap_err().status_code, 403);
    assert_eq!(node.core.delete_import(&root, "../core.sqlite3").unwrap_err().status_code, 400);
}

#[test]
fn an_upload_of_an_archive_is_for_administrators_and_lies_with_the_imports() {
    let node = Node::new(1);
    let root = node.user("root");
    let mallory = node.user("mallory");
    let new = crate::uploads::NewUpload {
        kind: "import".to_owned(),
        filename: "../server.zip".to_owned(),
        file_size: 7,
        ..Default::default()
    };
    assert_eq!(node.core.create_upload(&mallory, &new).unwrap_err().status_code, 403);
    let session = node.core.create_upload(&root, &new).unwrap();
    assert_eq!((session.kind, session.channel_id), ("import", None));
    let mut part = node.core.begin_part(&root, session.id).unwrap();
    part.write_all(b"archive").unwrap();
    assert!(matches!(part.finish().unwrap(), Some(crate::uploads::Whole::Archive(_))));
    assert_eq!(node.core.imports(&root).unwrap(), [format!("{}_server.zip", session.id)]);
    assert_eq!(node.core.stats().unwrap().files, 0);
    let large = crate::uploads::NewUpload { file_size: i64::MAX, ..new };
    assert_eq!(node.core.create_upload(&root, &large).unwrap_err().status_code, 413);
}

fn at_plans(more: Value) -> Value {
    let mut post = json!({"team":"ops","channel":"plans","user":"alice","message":"x","create_at":AT});
    post.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"type":"post","post":post})
}

/// The look goes by the type of a line, and so must the work.
#[test]
fn a_line_that_holds_something_else_than_its_type_is_refused() {
    let node = Node::new(1);
    let mut mallory = person("mallory", AT);
    mallory["user"]["roles"] = "system_admin system_user".into();
    mallory["user"]["password"] = "a".into();
    mallory["type"] = "role".into();
    let mut large = at_plans(json!({"message":"x".repeat(100_000)}));
    large["type"] = "scheme".into();
    let mut two = team();
    two["channel"] = channel("plans")["channel"].clone();
    let lines = [version(), team(), channel("plans"), person("alice", AT), mallory, large, two];
    let file = archive(node.dir.path(), "in.zip", &lines, &[]);
    let checked = node.core.bulk_check(&file, &mut go_on).unwrap();
    let numbers: Vec<u64> = checked.errors.first.iter().map(|f| f.line).collect();
    assert_eq!(numbers, [5, 6, 7], "{:#?}", checked.errors.first);
    assert!(checked.errors.first[0].text.contains("`user`"), "{}", checked.errors.first[0].text);
    assert!(import(&node, &file).is_err());
    assert_eq!(node.outbox(), []);
}

#[test]
fn an_import_opens_no_door_on_what_was_here_before() {
    let node = Node::new(1);
    let (alice, bob) = (node.user("alice"), node.user("bob"));
    let (ops, _) = node.team(&alice, "ops");
    let closed = crate::types::TeamPatch { allow_open_invite: Some(false), ..Default::default() };
    node.core.patch_team(&alice, ops.id, &closed).unwrap();
    let ops = node.core.team(&alice, ops.id).unwrap();
    let new = |name: &str, kind: &str| crate::types::NewChannel {
        team_id: ops.id.to_string(),
        name: name.to_owned(),
        display_name: name.to_owned(),
        kind: kind.to_owned(),
        ..Default::default()
    };
    let plans = node.core.create_channel(&alice, &new("plans", "P")).unwrap();
    let open = node.core.create_channel(&alice, &new("open", "O")).unwrap();
    let carol = node.user("carol");
    node.core.add_team_member(&alice, ops.id, carol.user_id).unwrap();
    let before = (bob.user_id, node.core.user(bob.user_id).unwrap());
    node.drain();

    let mut wide = channel("plans");
    wide["channel"]["type"] = "O".into();
    let admin = |name: &str| {
        let mut line = person(name, AT);
        line["user"]["teams"][0]["roles"] = "team_admin team_user".into();
        let mut other = line["user"]["teams"][0]["channels"][0].clone();
        other["name"] = "open".into();
        line["user"]["teams"][0]["channels"].as_array_mut().unwrap().push(other);
        line
    };
    let lines = [version(), team(), wide, admin("bob"), admin("carol"), admin("mallory"), at_plans(json!({}))];
    let file = archive(node.dir.path(), "in.zip", &lines, &[]);
    let done = import(&node, &file).unwrap();
    assert_eq!(done.added["post"], 1);
    assert_eq!(node.core.channel(&alice, plans.id).unwrap().kind, "P");
    assert_eq!(node.core.team(&alice, ops.id).unwrap(), ops);
    assert_eq!(node.core.user(before.0).unwrap(), before.1);
    let mallory = sign_in(&node, "mallory").user_id;
    for user in [bob.user_id, mallory] {
        assert!(node.core.team_member(&alice, ops.id, user).is_err(), "the team is not open");
        assert!(node.core.channel_member(&alice, plans.id, user).is_err());
    }
    assert!(node.core.channel_member(&alice, plans.id, carol.user_id).is_err());
    // Who may come in by themselves comes in, and as nobody's administrator.
    assert!(!node.core.channel_member(&alice, open.id, carol.user_id).unwrap().scheme_admin);
    assert!(!node.core.team_member(&alice, ops.id, carol.user_id).unwrap().scheme_admin);
    let said: Vec<&str> = done.warnings.first.iter().map(|w| w.text.as_str()).collect();
    assert!(said.iter().any(|text| text.contains("`mallory`") && text.contains("`ops`")), "{said:?}");
    assert!(said.iter().any(|text| text.contains("`carol`") && text.contains("`ops/plans`")), "{said:?}");
    // What an import made is the archive's to fill, also by a later one.
    let fresh = Node::new(2);
    let first = archive(fresh.dir.path(), "1.zip", &[version(), team(), channel("plans"), person("alice", AT)], &[]);
    import(&fresh, &first).unwrap();
    import(
        &fresh,
        &archive(fresh.dir.path(), "2.zip", &[version(), team(), channel("plans"), person("dora", AT)], &[]),
    )
    .unwrap();
    let dora = sign_in(&fresh, "dora");
    let ops = fresh.core.team_by_name(&dora, "ops").unwrap();
    let plans = fresh.core.channel_by_name(&dora, ops.id, "plans", false).unwrap();
    assert!(fresh.core.channel_member(&dora, plans.id, dora.user_id).unwrap().scheme_admin);
}

#[test]
fn what_was_renamed_here_is_found_again() {
    let node = Node::new(1);
    let root = node.user("root");
    let file = archive(node.dir.path(), "in.zip", &server(), FILES);
    import(&node, &file).unwrap();
    let (alice, bob) = (sign_in(&node, "alice"), sign_in(&node, "bob"));
    let team = node.core.team_by_name(&alice, "ops").unwrap();
    let plans = node.core.channel_by_name(&alice, team.id, "plans", false).unwrap();
    let query = PostQuery::Page { page: 0, per_page: 60 };
    let posts = node.core.channel_posts(&alice, plans.id, &query, &PostView::default()).unwrap();
    let answer = posts.posts.values().find(|p| p.message == "an answer").unwrap().id;
    node.core.delete_post(&bob, answer).unwrap();
    let patch = crate::types::ChannelPatch { name: Some("plans-2026".to_owned()), ..Default::default() };
    node.core.patch_channel(&alice, plans.id, &patch).unwrap();
    let patch = crate::types::UserPatch { username: Some("alice.smith".to_owned()), ..Default::default() };
    node.core.patch_user(&root, alice.user_id, &patch).unwrap();
    node.core
        .write(|tx| crate::rows::run(&tx.db, "UPDATE teams SET name = 'op2' WHERE id = ?1", [team.id.as_str()]))
        .unwrap();
    node.drain();
    let before = node.core.export_snapshot().unwrap();
    let again = import(&node, &file).unwrap();
    assert_eq!((again.added.len(), again.changed.len()), (0, 0), "{:?} {:?}", again.added, again.changed);
    assert_eq!(node.core.export_snapshot().unwrap(), before);
    assert_eq!(node.outbox(), []);
}

#[test]
fn a_post_that_was_edited_at_the_source_since_is_the_same_post() {
    let node = Node::new(1);
    let first = [version(), team(), channel("plans"), person("alice", AT)];
    let reply = json!([{"user":"alice","message":"yes","create_at":AT + 9}]);
    let thread = |message: &str, edit_at: i64| {
        at_plans(json!({"message":message,"create_at":AT + 5,"edit_at":edit_at,"replies":reply}))
    };
    // Two that were edited within one millisecond are two.
    let twins = [at_plans(json!({"message":"a","edit_at":AT + 1})), at_plans(json!({"message":"b","edit_at":AT + 1}))];
    let lines = |thread: Value| [&first[..], &twins, &[thread]].concat();
    let file = archive(node.dir.path(), "1.zip", &lines(thread("grid 1234", 0)), &[]);
    assert_eq!(import(&node, &file).unwrap().added["post"], 3);
    let file = archive(node.dir.path(), "2.zip", &lines(thread("grid 1243", AT + 7)), &[]);
    let again = import(&node, &file).unwrap();
    assert_eq!(again.added.len(), 0, "{:?}", again.added);
}

/// 400,000 characters that are three bytes each: in their number they may be, as an entry they cannot.
#[test]
fn a_post_that_no_entry_holds_is_refused() {
    let node = Node::new(1);
    let lines = |props: Value| {
        [version(), team(), channel("plans"), person("alice", AT), at_plans(json!({"props":{"card":props}}))]
    };
    let large = lines("字".repeat(400_000).into());
    let checked = node.core.bulk_check(&archive(node.dir.path(), "1.zip", &large, &[]), &mut go_on).unwrap();
    assert_eq!(checked.errors.count, 1);
    assert!(checked.errors.first[0].text.contains("props"), "{}", checked.errors.first[0].text);
    let fits = lines("x".repeat(790_000).into());
    import(&node, &archive(node.dir.path(), "2.zip", &fits, &[])).unwrap();
    // Nor may anybody write one.
    let alice = sign_in(&node, "alice");
    let ops = node.core.team_by_name(&alice, "ops").unwrap();
    let plans = node.core.channel_by_name(&alice, ops.id, "plans", false).unwrap();
    let mut new = crate::testkit::words(plans.id, None, "see");
    new.props.insert("card".to_owned(), "字".repeat(400_000).into());
    assert_eq!(node.core.create_post(&alice, &new, true).unwrap_err().status_code, 400);
}

#[test]
fn what_costs_more_memory_than_bytes_is_refused_before_it_is_held() {
    let node = Node::new(1);
    let first = format!("{}\n{}\n", version(), team());
    let burst = format!("{{\"type\":\"post\",\"post\":{{\"replies\":[{}{{}}]}}}}", "{},".repeat(1_500_000));
    let path = format!("data/{}", "x".repeat(100_000));
    let long = json!({"type":"user","user":{"username":"alice","email":"a@b","profile_image":path}});
    let text = format!("{first}{burst}\n{long}\n");
    let file = archive_of(node.dir.path(), "in.zip", text.as_bytes(), &[]);
    let checked = node.core.bulk_check(&file, &mut go_on).unwrap();
    let found = &checked.errors.first;
    assert_eq!(found.iter().map(|f| f.line).collect::<Vec<_>>(), [3]);
    assert!(found[0].text.contains("values"), "{}", found[0].text);
    assert!(checked.warnings.first[0].text.len() < 1_000, "{} bytes", checked.warnings.first[0].text.len());
}

#[test]
fn an_archive_that_says_it_has_too_many_entries_is_not_read_further() {
    let node = Node::new(1);
    let file = archive(node.dir.path(), "in.zip", &[version()], &[]);
    let mut bytes = std::fs::read(&file).unwrap();
    // The old form of the end says 0xffff, and the new one before it how many.
    let end = bytes.len() - 22;
    let directory: [u8; 8] = {
        let field = |at: usize| u32::from_le_bytes(bytes[end + at..end + at + 4].try_into().unwrap());
        assert_eq!(&bytes[end..end + 4], b"PK\x05\x06");
        [field(12).to_le_bytes(), field(16).to_le_bytes()].concat().try_into().unwrap()
    };
    let mut tail = bytes.split_off(end);
    let new_end = bytes.len() as u64;
    let many = 600_000_u64.to_le_bytes();
    let wide = |half: &[u8]| u64::from(u32::from_le_bytes(half.try_into().unwrap())).to_le_bytes();
    bytes.extend(b"PK\x06\x06");
    bytes.extend(44_u64.to_le_bytes());
    bytes.extend([45, 0, 45, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    for part in [many, many, wide(&directory[..4]), wide(&directory[4..])] {
        bytes.extend(part);
    }
    bytes.extend(b"PK\x06\x07\0\0\0\0");
    bytes.extend(new_end.to_le_bytes());
    bytes.extend(1_u32.to_le_bytes());
    tail[8..12].fill(0xff);
    tail[16..20].fill(0xff);
    bytes.extend(tail);
    std::fs::write(&file, bytes).unwrap();
    let error = node.core.bulk_check(&file, &mut go_on).unwrap_err();
    assert!(error.to_string().contains("600000 entries"), "{error}");
}

#[tokio::test]
async fn a_job_that_ends_the_process_again_and_again_is_given_up() {
    let mut node = Node::new(1);
    let file = archive(node.dir.path(), "in.zip", &server(), FILES);
    let asked = data(&[("file", file.to_str().unwrap())]);
    let job = node.core.operator_asks(jobs::IMPORT, asked).unwrap();
    // The process dies as soon as the job has begun.
    for _ in 0..3 {
        assert_eq!(node.core.begin_job(true).unwrap().map(|job| job.id), Some(job.id));
        node = node.reopened();
    }
    assert!(node.core.begin_job(true).unwrap().is_none());
    let seen = node.core.job(job.id).unwrap();
    assert_eq!(seen.status, "error");
    assert!(seen.data["error"].contains("3 times") && !seen.data["next_step"].is_empty(), "{:?}", seen.data);
}

/// The process ended after the archive had its name, before the job was noted as done.
#[tokio::test]
async fn an_export_that_was_ended_at_its_end_is_done_again() {
    let node = Node::new(1);
    let job = node.core.operator_asks(jobs::EXPORT, data(&[])).unwrap();
    std::fs::write(node.core.export_path(job.id), b"whole, as far as anybody can tell").unwrap();
    let stop = tokio_util::sync::CancellationToken::new();
    let look = async {
        let ended = over(&node.core, job.id).await;
        stop.cancel();
        ended
    };
    let ((), ended) = tokio::join!(node.core.clone().keep_jobs(stop.clone()), look);
    assert_eq!(ended.status, "success", "{:?}", ended.data);
}

#[test]
fn addresses_of_an_export_are_each_of_one() {
    let node = Node::new(1);
    let alice = node.user("alice");
    let address = node.core.user(alice.user_id).unwrap().email;
    // Somebody of another node, who may have any address there.
    node.user("bob");
    node.core
        .write(|tx| {
            crate::rows::run(&tx.db, "UPDATE users SET email = ?1, password = '' WHERE username = 'bob'", [&address])
        })
        .unwrap();
    export(&node, "out.zip");
    let other = Node::new(2);
    let done = import(&other, &node.dir.path().join("out.zip")).unwrap();
    assert_eq!(done.added["user"], 2);
}

#[test]
fn an_export_stops_when_the_disk_gets_short() {
    let node = Node::new(1);
    let alice = node.user("alice");
    let (_, square) = node.team(&alice, "ops");
    node.say(&alice, square.id, None, "hello");
    node.core.set_space(model::SpaceLevel::FilesRefused);
    let file = node.dir.path().join("out.zip");
    let error = node.core.bulk_export(&file, everything(), &mut go_on).unwrap_err();
    assert!(matches!(&error, BulkError::Write { why, .. } if why.contains("space")), "{error}");
    assert!(!file.exists());
    assert_eq!(
        std::fs::read_dir(node.dir.path())
            .unwrap()
            .filter(|e| { e.as_ref().unwrap().file_name().to_string_lossy().ends_with(".part") })
            .count(),
        0
    );
}

#[test]
fn a_purge_under_a_long_read_does_not_keep_others_from_writing() {
    let node = Node::new(1);
    let alice = node.user("alice");
    let (_, square) = node.team(&alice, "ops");
    let (told, hears) = std::sync::mpsc::channel();
    node.core
        .read(|db| {
            // The snapshot of an export, which stays the same for hours.
            crate::rows::count(db, "SELECT count(*) FROM posts", [])?;
            node.say(&alice, square.id, None, "meanwhile");
            std::thread::scope(|scope| {
                scope.spawn(|| told.send(node.core.scrub_database().is_err()));
                // A tenth of what a statement waits for others.
                let is_busy = hears.recv_timeout(std::time::Duration::from_secs(5));
                assert_eq!(is_busy, Ok(true), "the log cannot be emptied, and that is known soon");
            });
            Ok::<_, AppError>(())
        })
        .unwrap();
    node.core.scrub_database().unwrap();
}

#[tokio::test]
async fn a_canceled_import_stops_between_attachments() {
    let node = Node::new(1);
    let file = archive(node.dir.path(), "in.zip", &server(), FILES);
    let mut asked = 0;
    let mut stop = |progress: &BulkProgress| {
        asked += u32::from(progress.phase == BulkPhase::Importing);
        // The first is before the lines, the second before the first attachment.
        if asked > 1 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let stopped = node.core.bulk_import(&file, ImportOptions::default(), &mut stop).unwrap_err();
    assert!(matches!(stopped, BulkError::Stopped { line: 10 }), "{stopped}");
}
