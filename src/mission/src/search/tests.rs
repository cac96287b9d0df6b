use model::event::PostState;
use model::{Event, Id};

use super::*;
use crate::purges::NewPurge;
use crate::rows::{STEPS, all, count};
use crate::testkit::{Node, START, words};
use crate::types::{NewChannel, PostPatch};

fn search(terms: &str) -> Search {
    Search { terms: terms.to_owned(), per_page: 60, ..Search::default() }
}

fn found(node: &Node, by: &Session, terms: &str) -> Vec<String> {
    let list = node.core.search_posts(by, None, &search(terms)).unwrap();
    list.order.iter().map(|id| list.posts[id].message.clone()).collect()
}

fn files_found(node: &Node, by: &Session, terms: &str) -> Vec<String> {
    let list = node.core.search_files(by, None, &search(terms)).unwrap();
    list.order.iter().map(|id| list.file_infos[id].name.clone()).collect()
}

fn channel(node: &Node, by: &Session, team: Id, name: &str, kind: &str) -> Id {
    let new = NewChannel {
        team_id: team.to_string(),
        name: name.to_owned(),
        display_name: name.to_owned(),
        kind: kind.to_owned(),
        ..NewChannel::default()
    };
    node.core.create_channel(by, &new).unwrap().id
}

fn share(node: &Node, by: &Session, channel: Id, name: &str) -> Id {
    let file = node.upload(by, channel, name, name.as_bytes());
    let mut new = words(channel, None, "see file");
    new.file_ids = vec![file.to_string()];
    node.core.create_post(by, &new, true).unwrap();
    file
}

#[test]
fn the_grammar_finds_what_it_says() {
    let node = Node::new(1);
    let (alice, bob) = (node.user("alice"), node.user("bob"));
    let (team, square) = node.team(&alice, "mission");
    node.core.add_team_member(&bob, team.id, bob.user_id).unwrap();
    let ops = channel(&node, &alice, team.id, "ops", "O");
    let day = 86_400_000;
    node.say(&alice, square.id, None, "convoy left the camp at dawn #supply");
    node.advance(day);
    node.say(&bob, square.id, None, "the CAMP is quiet, convoy delayed");
    node.advance(day);
    node.say(&alice, ops, None, "Convoys regroup; camp at dawn? #Supply-2");
    let (first, second, third) = (
        "convoy left the camp at dawn #supply",
        "the CAMP is quiet, convoy delayed",
        "Convoys regroup; camp at dawn? #Supply-2",
    );
    for (terms, expected) in [
        ("camp", vec![third, second, first]),
        ("convoy camp", vec![second, first]),
        ("convoy* camp", vec![third, second, first]),
        ("\"camp at dawn\"", vec![third, first]),
        ("\"dawn camp\"", vec![]),
        ("camp -dawn", vec![second]),
        ("-dawn", vec![second]),
        ("camp -\"at dawn\"", vec![second]),
        ("#supply", vec![first]),
        ("#SUPPLY-2", vec![third]),
        ("supply", vec![third, first]),
        ("quiet #supply", vec![second, first]),
        ("-#supply in:town-square", vec![second]),
        ("from:bob", vec![second]),
        ("camp from:@alice", vec![third, first]),
        ("camp -from:alice", vec![second]),
        ("from:nobody camp", vec![]),
        ("camp in:ops", vec![third]),
        ("camp channel:~ops", vec![third]),
        ("camp -in:ops", vec![second, first]),
        ("camp in:nowhere", vec![]),
        ("camp on:2026-09-21", vec![first]),
        ("camp after:2026-09-21", vec![third, second]),
        ("camp before:2026-09-22", vec![first]),
        ("camp -on:2026-09-22", vec![third, first]),
        ("on:2026-09-22", vec![second]),
        ("*", vec![]),
        ("🙂", vec![]),
        ("\" OR NOT (", vec![]),
    ] {
        assert_eq!(found(&node, &alice, terms), expected, "{terms}");
    }
    assert_eq!(START / day * day, 1_789_948_800_000, "the first day is 2026-09-21");
    let any = Search { any_term: true, ..search("quiet regroup") };
    assert_eq!(node.core.search_posts(&alice, None, &any).unwrap().order.len(), 2);
    // Half a day east, dawn of the second day is on the second day there, and the first post too.
    let east = Search { time_zone_offset_s: 12 * 3_600, ..search("camp on:2026-09-21") };
    let west = node.core.search_posts(&alice, None, &east).unwrap();
    assert_eq!(west.order.len(), usize::from(START % day < day / 2));
}

#[test]
fn scripts_without_blanks_and_with_vowel_marks_are_found() {
    let node = Node::new(1);
    let alice = node.user("alice");
    let (_, square) = node.team(&alice, "mission");
    for (message, terms) in [
        ("明日の作戦計画を送る", vec!["作戦計画", "計画", "画", "\"明日の\"", "作戦 送る"]),
        ("보고서를 보냈다", vec!["보고서", "보냈다"]),
        ("รายงานสถานการณ์", vec!["สถาน"]),
        ("وصلت القُوَّات إلى المدينة", vec!["القوات", "الي", "المدينه", "المدينة -قافلة"]),
        ("Ещё раз: Подъезд закрыт", vec!["еще", "ПОДЪЕЗД", "закр*"]),
        ("Größe und Übergang", vec!["GRÖSSE", "ubergang"]),
    ] {
        node.say(&alice, square.id, None, message);
        for term in terms {
            assert_eq!(found(&node, &alice, term), [message], "{term}");
        }
    }
    assert!(found(&node, &alice, "計作").is_empty());
}

#[test]
fn nobody_finds_what_they_may_not_read() {
    let node = Node::new(1);
    let (alice, mallory) = (node.user("alice"), node.user("mallory"));
    let (team, square) = node.team(&alice, "mission");
    node.core.add_team_member(&mallory, team.id, mallory.user_id).unwrap();
    let secret = channel(&node, &alice, team.id, "secret", "P");
    let open = channel(&node, &alice, team.id, "open", "O");
    node.say(&alice, secret, None, "needle one");
    node.say(&alice, open, None, "needle two");
    share(&node, &alice, secret, "needle.pdf");
    let direct = node.core.direct_channel(&alice, alice.user_id, alice.user_id).unwrap();
    node.say(&alice, direct.id, None, "needle three");
    assert_eq!(found(&node, &alice, "needle").len(), 3);
    for terms in [
        "needle",
        "needle in:secret",
        &format!("needle in:{secret}"),
        "from:alice needle",
        "-nothing needle",
        "-nothing in:secret",
        "needle\" OR \"needle",
        &format!("needle c{secret}"),
    ] {
        assert!(found(&node, &mallory, terms).is_empty(), "{terms}");
        assert!(files_found(&node, &mallory, terms).is_empty(), "{terms}");
    }
    // A mark of the index is no word.
    assert!(found(&node, &alice, &format!("c{secret}")).is_empty());
    let error = node.core.search_posts(&node.user("stranger"), Some(team.id), &search("needle")).unwrap_err();
    assert_eq!(error.status_code, 403);
    node.core.archive_channel(&alice, open).unwrap();
    assert_eq!(found(&node, &alice, "needle").len(), 2);
    let archived = Search { include_deleted_channels: true, ..search("needle") };
    assert_eq!(node.core.search_posts(&alice, None, &archived).unwrap().order.len(), 3);
    node.core.add_channel_member(&alice, secret, mallory.user_id).unwrap();
    assert_eq!(found(&node, &mallory, "needle"), ["needle one"]);
    node.core.remove_channel_member(&alice, secret, mallory.user_id).unwrap();
    assert!(found(&node, &mallory, "needle").is_empty());
    assert_eq!(found(&node, &alice, "in:@alice needle"), ["needle three"]);
    node.say(&mallory, square.id, None, "another needle");
    let team = node.core.search_posts(&alice, Some(team.id), &search("needle")).unwrap();
    assert_eq!(team.order.len(), 3, "direct channels belong to every team");
}

#[test]
fn edits_deletions_and_what_other_nodes_do_are_followed() {
    let (a, b) = (Node::new(1), Node::new(2));
    let alice = a.user("alice");
    let (_, square) = a.team(&alice, "mission");
    b.apply(&a.drain());
    let reader = b.enrol("alice");
    let post = a.say(&alice, square.id, None, "grid one");
    let late = a.say(&alice, square.id, None, "a reply on grid three");
    b.apply(&a.drain());
    let edit = |text: &str| PostPatch { message: Some(text.to_owned()), ..PostPatch::default() };
    a.core.patch_post(&alice, post.id, &edit("grid two")).unwrap();
    a.core.delete_post(&alice, late.id).unwrap();
    let sent = a.drain();
    assert_eq!(found(&b, &reader, "grid"), ["a reply on grid three", "grid one"]);
    b.apply(&sent);
    for (node, by) in [(&a, &alice), (&b, &reader)] {
        assert_eq!(found(node, by, "grid"), ["grid two"]);
        assert!(found(node, by, "one").is_empty() && found(node, by, "reply").is_empty());
    }
    // A message of the system is not searched.
    assert!(found(&a, &alice, "joined").is_empty());
    let file = share(&a, &alice, square.id, "Lageplan-Süd.final.PDF");
    b.apply(&a.drain());
    for (node, by) in [(&a, &alice), (&b, &reader)] {
        for terms in ["lageplan", "sud", "final.pdf", "ext:pdf", "lage* -ext:doc", "from:alice lageplan"] {
            assert_eq!(files_found(node, by, terms), ["Lageplan-Süd.final.PDF"], "{terms}");
        }
        assert!(files_found(node, by, "ext:doc").is_empty() && files_found(node, by, "lageplan -ext:pdf").is_empty());
    }
    a.core
        .patch_post(
            &alice,
            a.core.file_info(&alice, file).unwrap().post_id.unwrap(),
            &PostPatch { file_ids: Some(Vec::new()), ..PostPatch::default() },
        )
        .unwrap();
    assert!(files_found(&a, &alice, "lageplan").is_empty(), "taken off its post");
}

#[test]
fn the_index_is_found_as_it_was_left_and_made_anew_by_other_rules() {
    let node = Node::new(1);
    let alice = node.user("alice");
    let (_, square) = node.team(&alice, "mission");
    for n in 0..50 {
        node.say(&alice, square.id, None, &format!("tone number{n}"));
    }
    share(&node, &alice, square.id, "tone.txt");
    let node = node.reopened();
    let alice = node.login("alice");
    assert_eq!(found(&node, &alice, "tone").len(), 50);
    node.core
        .write(|tx| {
            // As if an older program had made it, by rules that found nothing.
            tx.db.execute_batch(
                "UPDATE meta SET value = 0 WHERE key = 'search_rules';
                INSERT INTO posts_fts (posts_fts) VALUES ('delete-all'); DELETE FROM search_posts;",
            )?;
            Ok::<_, rusqlite::Error>(())
        })
        .unwrap();
    assert!(found(&node, &alice, "tone").is_empty());
    let node = node.reopened();
    let alice = node.login("alice");
    assert_eq!(found(&node, &alice, "tone").len(), 50);
    assert_eq!(files_found(&node, &alice, "tone").len(), 1);
    node.say(&alice, square.id, None, "tone at last");
    assert_eq!(found(&node, &alice, "tone")[0], "tone at last");
    let check = |tx: &mut crate::core::Tx<'_>| {
        tx.db.execute_batch("INSERT INTO posts_fts (posts_fts) VALUES ('integrity-check')")
    };
    node.core.write(check).unwrap();
}

#[test]
fn a_page_follows_the_other_and_depth_ends() {
    let node = Node::new(1);
    let alice = node.user("alice");
    let (_, square) = node.team(&alice, "mission");
    for n in 0..7 {
        node.say(&alice, square.id, None, &format!("page {n}"));
    }
    let page = |page, per_page| {
        let list = node.core.search_posts(&alice, None, &Search { page, per_page, ..search("page") }).unwrap();
        list.order.iter().map(|id| list.posts[id].message.clone()).collect::<Vec<_>>()
    };
    assert_eq!(page(0, 3), ["page 6", "page 5", "page 4"]);
    assert_eq!(page(2, 3), ["page 0"]);
    assert!(page(3, 3).is_empty() && page(u32::MAX, 200).is_empty());
}

#[test]
fn posts_with_impossible_times_are_found_too() {
    let (a, b) = (Node::new(1), Node::new(2));
    let alice = a.user("alice");
    let (_, square) = a.team(&alice, "mission");
    b.apply(&a.drain());
    let reader = b.enrol("alice");
    a.say(&alice, square.id, None, "odd");
    let sent = a.drain();
    for (n, time) in [i64::MIN, -1, 0, 1, i64::MAX, i64::MAX].into_iter().enumerate() {
        let mut odd = sent[0].clone();
        odd.id.seq = model::Seq::new(1_000 + n as u64).unwrap();
        let Event::Post(PostState { id, create_at, .. }) = &mut odd.event else { panic!("a post") };
        *id = b.core.random_id();
        create_at.0 = time;
        assert_eq!(b.apply(&[odd]), [crate::Applied::Applied], "{time}");
    }
    assert_eq!(found(&b, &reader, "odd").len(), 6);
}

/// Is the text in any file of the store?
fn is_kept(node: &Node, text: &str) -> bool {
    fn search(dir: &std::path::Path, text: &[u8]) -> bool {
        std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).any(|path| match path.is_dir() {
            true => search(&path, text),
            false => std::fs::read(&path).unwrap().windows(text.len()).any(|w| w == text),
        })
    }
    search(node.dir.path(), text.as_bytes())
}

/// FTS5 names each page of its index by the beginning of the first word on it, in a table of its own that `secure-delete`
/// leaves as it is: without the rewrite, beginnings of purged words stayed there.
#[test]
fn a_purge_takes_every_word_out_of_the_index() {
    // Of letters that take one byte each, and of others.
    for beginning in ["zqspill", "разлив"] {
        a_purge_takes_every_word_out(beginning);
    }
}

fn a_purge_takes_every_word_out(beginning: &str) {
    let node = Node::new(1);
    let alice = node.user("alice");
    let (_, square) = node.team(&alice, "mission");
    let mut posts = Vec::new();
    for n in 0..300 {
        // Words of one kind stand side by side in the index, so that pages begin with them.
        let text: Vec<String> = (0..20).map(|k| format!("{beginning}{:x}zq", (n * 20 + k) * 7_919)).collect();
        posts.push(node.say(&alice, square.id, None, &text.join(" ")).id);
        node.say(&alice, square.id, None, &format!("harmless {n} zz{n}"));
    }
    assert!(is_kept(&node, beginning));
    let new = NewPurge { posts, by: "duty".to_owned(), reason: "test".to_owned(), ..NewPurge::default() };
    let order = node.core.order_purge(&new).unwrap();
    assert!(found(&node, &alice, &format!("{beginning}*")).is_empty());
    node.core.replica().scrub_store().unwrap();
    node.core.replica().finish_purge(order.id, "{}", &[]).unwrap();
    assert!(!is_kept(&node, beginning));
    assert_eq!(found(&node, &alice, "harmless").len(), 60);
    let rows = node.core.read(|db| count(db, "SELECT count(*) FROM search_posts", [])).unwrap();
    assert_eq!(rows, 300);
}

/// What stands in the index's own table of pages.
fn pages(node: &Node) -> std::collections::BTreeMap<i64, Vec<u8>> {
    let sql = "SELECT id, block FROM posts_fts_data";
    node.core.read(|db| all(db, sql, [], |r| Ok((r.get(0)?, r.get(1)?)))).unwrap().into_iter().collect()
}

#[test]
fn a_purge_of_one_post_leaves_the_rest_of_the_index_where_it_is() {
    let node = Node::new(1);
    let alice = node.user("alice");
    let (_, square) = node.team(&alice, "mission");
    for n in 0..400 {
        let text: Vec<String> = (0..20).map(|k| format!("word{:x}", (n * 20 + k) * 7_919)).collect();
        node.say(&alice, square.id, None, &text.join(" "));
    }
    let spilled = node.say(&alice, square.id, None, "spilledsecret word0").id;
    let before = pages(&node);
    let new =
        NewPurge { posts: vec![spilled], by: "duty".to_owned(), reason: "test".to_owned(), ..NewPurge::default() };
    let order = node.core.order_purge(&new).unwrap();
    node.core.replica().scrub_store().unwrap();
    node.core.replica().finish_purge(order.id, "{}", &[]).unwrap();
    let after = pages(&node);
    let touched = before.iter().filter(|(page, block)| after.get(page) != Some(block)).count();
    assert!(before.len() > 30 && touched < 10, "{touched} of {} pages were written anew", before.len());
    assert!(!is_kept(&node, "spilledsecret"));
}

#[test]
fn making_the_index_anew_copies_no_text_to_temporary_files() {
    let node = Node::new(1);
    let alice = node.user("alice");
    let (_, square) = node.team(&alice, "mission");
    let long = "bridge ".repeat(500);
    (0..60).for_each(|_| drop(node.say(&alice, square.id, None, &long)));
    let db = rusqlite::Connection::open(node.dir.path().join("core.sqlite3")).unwrap();
    index::functions(&db).unwrap();
    db.execute_batch("DELETE FROM meta WHERE key = 'search_rules'").unwrap();
    index::prepare(&db).unwrap();
    let temporary: i64 = db.query_row("PRAGMA temp.page_count", [], |r| r.get(0)).unwrap();
    assert!(temporary < 10, "{temporary} pages went to the temporary database");
    assert_eq!(found(&node, &alice, "bridge").len(), 60);
}

#[test]
fn what_others_wrote_elsewhere_costs_a_search_nothing() {
    let cost = |others: usize| {
        let node = Node::new(1);
        let (alice, bob) = (node.user("alice"), node.user("bob"));
        let (team, square) = node.team(&alice, "mission");
        node.core.add_team_member(&bob, team.id, bob.user_id).unwrap();
        let ops = channel(&node, &alice, team.id, "ops", "P");
        node.say(&alice, square.id, None, "common word");
        for _ in 0..others {
            node.say(&alice, ops, None, "common word");
        }
        STEPS.set(0);
        assert_eq!(found(&node, &bob, "common").len(), 1);
        STEPS.get()
    };
    let (few, many) = (cost(5), cost(300));
    assert!(many < few + 50, "{few} {many}");
}
