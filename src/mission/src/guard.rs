//! Attempts to get at what is others', and the cost of a long history.

use model::event::PostState;
use model::{Event, Id};

use crate::rows::{STEPS, run};
use crate::testkit::{Node, START, words};
use crate::types::{
    ChannelUnread, NewChannel, PostPatch, PostQuery, PostView, Session, ThreadPart, ThreadQuery, UserFilter, UserPatch,
    UserSearch,
};

/// Alice administrates, bob and mallory are in her team, alice and bob in a private channel.
fn world() -> (Node, Session, Session, Session, Id, Id, Id) {
    let node = Node::new(1);
    let alice = node.user("alice");
    let (bob, mallory) = (node.user("bob"), node.user("mallory"));
    let (team, square) = node.team(&bob, "mission");
    for user in [&alice, &mallory] {
        node.core.add_team_member(user, team.id, user.user_id).unwrap();
    }
    let new = NewChannel {
        team_id: team.id.to_string(),
        name: "ops".to_owned(),
        kind: "P".to_owned(),
        ..NewChannel::default()
    };
    let ops = node.core.create_channel(&bob, &new).unwrap().id;
    node.core.add_channel_member(&bob, ops, alice.user_id).unwrap();
    node.advance(10);
    (node, alice, bob, mallory, team.id, square.id, ops)
}

#[test]
fn an_administrator_of_a_team_or_channel_cannot_hand_out_roles_of_the_system() {
    let (node, _, bob, mallory, team, _, ops) = world();
    for role in ["system_admin", "system_manager", "channel_admin", "playbook_admin"] {
        let roles = format!("team_user {role}");
        let error = node.core.set_team_member_roles(&bob, team, mallory.user_id, &roles).unwrap_err();
        assert_eq!(error.status_code, 400, "{role}");
    }
    for role in ["system_admin", "system_manager", "team_admin", "team_post_all"] {
        let roles = format!("channel_user {role}");
        let error = node.core.set_channel_member_roles(&bob, ops, bob.user_id, &roles).unwrap_err();
        assert_eq!(error.status_code, 400, "{role}");
    }
    assert_eq!(node.core.channel(&mallory, ops).unwrap_err().status_code, 403);
    node.core.set_team_member_roles(&bob, team, mallory.user_id, "team_user team_post_all_public").unwrap();
    node.core.set_channel_member_roles(&bob, ops, bob.user_id, "channel_user channel_admin").unwrap();
}

#[test]
fn who_is_in_a_private_channel_or_a_closed_team_is_not_told_to_others() {
    let (node, alice, bob, mallory, team, square, ops) = world();
    let stranger = node.user("stranger");
    let core = &node.core;
    let filter = |by: &Session, filter: UserFilter| core.users(by, &filter, 0, 60).map(|found| found.len());
    let in_channel = |c| UserFilter { in_channel: Some(c), ..UserFilter::default() };
    let not_in_channel = |c| UserFilter { not_in_channel: Some(c), ..UserFilter::default() };
    assert_eq!(filter(&bob, in_channel(ops)).unwrap(), 2);
    assert_eq!(filter(&mallory, in_channel(square)).unwrap(), 3);
    assert_eq!(filter(&mallory, in_channel(ops)).unwrap_err().status_code, 403);
    assert_eq!(filter(&mallory, not_in_channel(ops)).unwrap_err().status_code, 403);
    let direct = core.direct_channel(&alice, alice.user_id, bob.user_id).unwrap().id;
    assert_eq!(filter(&mallory, in_channel(direct)).unwrap_err().status_code, 403);
    let in_team = UserFilter { in_team: Some(team), ..UserFilter::default() };
    assert_eq!(filter(&mallory, in_team.clone()).unwrap(), 3);
    assert_eq!(filter(&stranger, in_team).unwrap_err().status_code, 403);
    let not_in_team = UserFilter { not_in_team: Some(team), ..UserFilter::default() };
    assert_eq!(filter(&stranger, not_in_team).unwrap_err().status_code, 403);
    let search = |by: &Session, c: Id| {
        let search = UserSearch { term: "b".to_owned(), in_channel_id: c.to_string(), ..UserSearch::default() };
        core.search_users(by, &search).map(|found| found.len())
    };
    assert_eq!(search(&bob, ops).unwrap(), 1);
    assert_eq!(search(&mallory, ops).unwrap_err().status_code, 403);
    assert_eq!(core.autocomplete_users(&mallory, "b", None, Some(ops), 10).unwrap_err().status_code, 403);
    let nonsense = UserSearch { term: "b".to_owned(), team_id: "x".to_owned(), ..UserSearch::default() };
    assert_eq!(core.search_users(&bob, &nonsense).unwrap_err().status_code, 400);
}

#[test]
fn who_left_a_private_channel_no_more_reads_there_not_even_earlier_texts_of_their_own() {
    let (node, _, bob, mallory, _, _, ops) = world();
    node.core.add_channel_member(&bob, ops, mallory.user_id).unwrap();
    let post = node.say(&mallory, ops, None, "first");
    let patch = PostPatch { message: Some("second".to_owned()), ..PostPatch::default() };
    node.core.patch_post(&mallory, post.id, &patch).unwrap();
    assert_eq!(node.core.edit_history(&mallory, post.id).unwrap().len(), 1);
    node.core.remove_channel_member(&bob, ops, mallory.user_id).unwrap();
    assert_eq!(node.core.edit_history(&mallory, post.id).unwrap_err().status_code, 403);
}

#[test]
fn nothing_is_pinned_in_an_archived_channel() {
    let (node, _, bob, _, _, _, ops) = world();
    let post = node.say(&bob, ops, None, "x");
    node.core.archive_channel(&bob, ops).unwrap();
    assert_eq!(node.core.pin_post(&bob, post.id, true).unwrap_err().status_code, 400);
}

#[test]
fn guesses_at_the_own_password_count_wherever_they_are_made() {
    let (node, _, bob, _, _, _, _) = world();
    let guess = |n: u32| {
        let patch = UserPatch {
            email: Some("new@example.org".to_owned()),
            password: Some(format!("guess {n}")),
            ..UserPatch::default()
        };
        if n.is_multiple_of(2) {
            node.core.patch_user(&bob, bob.user_id, &patch).unwrap_err()
        } else {
            node.core.update_password(&bob, bob.user_id, &format!("guess {n}"), "long enough").unwrap_err()
        }
    };
    for n in 0..node.core.settings().login_attempts_max {
        assert_eq!(guess(n).status_code, 400);
    }
    let right = node.core.update_password(&bob, bob.user_id, crate::testkit::PASSWORD, "long enough").unwrap_err();
    assert_eq!(right.id, "api.user.check_user_login_attempts.too_many.app_error");
}

#[test]
fn a_profile_that_has_not_arrived_yet_is_not_made_up_here() {
    let (node, alice, bob, _, _, square, _) = world();
    let other = Node::new(2);
    let dave = other.user("dave");
    let profile = other.drain();
    let post = node.say(&bob, square, None, "x");
    let mut sent = node.drain();
    let Some(Event::Post(PostState { id, user_id, .. })) = sent.last_mut().map(|s| &mut s.event) else {
        panic!("a post of {}", post.id)
    };
    *id = node.core.random_id();
    *user_id = dave.user_id;
    let last = sent.len() - 1;
    sent[last].id.origin = other.id();
    node.apply(&sent[last..]);
    assert!(node.core.user(dave.user_id).unwrap().username.starts_with("unknown-"));
    let patch = UserPatch { nickname: Some("D".to_owned()), ..UserPatch::default() };
    assert_eq!(node.core.patch_user(&alice, dave.user_id, &patch).unwrap_err().status_code, 400);
    assert_eq!(node.core.set_user_active(&alice, dave.user_id, false).unwrap_err().status_code, 400);
    assert_eq!(node.outbox(), []);
    node.apply(&profile);
    assert_eq!(node.core.user(dave.user_id).unwrap().username, "dave");
    node.core.patch_user(&alice, dave.user_id, &patch).unwrap();
}

#[test]
fn a_post_of_another_node_cannot_take_over_the_file_of_another_post() {
    let (node, _, bob, mallory, _, square, ops) = world();
    node.drain();
    let file = node.upload(&bob, ops, "plan.txt", b"secret");
    let draft = node.upload(&bob, ops, "draft.txt", b"not sent yet");
    let mut new = words(ops, None, "the plan");
    new.file_ids = vec![file.to_string()];
    let post = node.core.create_post(&bob, &new, true).unwrap();
    node.say(&bob, square, None, "bait");
    let sent = node.drain();
    let Event::Post(theirs) = &sent[0].event else { panic!("the plan") };
    for (n, stolen) in [file, draft].into_iter().enumerate() {
        let mut evil = sent.last().unwrap().clone();
        evil.id.origin = model::NodeId([7; 16]);
        evil.id.seq = model::Seq::new(n as u64 + 1).unwrap();
        let Event::Post(bait) = &mut evil.event else { panic!("bait") };
        bait.id = node.core.random_id();
        bait.files = theirs.files.clone();
        bait.files[0].id = stolen;
        assert!(matches!(node.apply(&[evil])[0], crate::Applied::Quarantined { .. }));
        assert_eq!(node.core.file_info(&mallory, stolen).unwrap_err().status_code, 403);
    }
    assert_eq!(node.core.post(&bob, post.id, false).unwrap().metadata.files[0].channel_id, ops);
}

/// What the daily operations cost, in steps of SQLite's machine, with `history` older posts and files.
fn costs(history: i64) -> Vec<(&'static str, i64)> {
    let (node, _, bob, mallory, team, square, ops) = world();
    let old = node.say(&bob, square, None, "old");
    node.core
        .write(|tx| {
            for n in 0..history {
                let mut row = crate::posts::post_row_by_id(&tx.db, old.id)?.unwrap();
                row.id = node.core.random_id();
                (row.create_at, row.update_at, row.changed_at) = (START - n, START - n, START - n);
                tx.put_post(&row)?;
                let sql = "INSERT INTO files SELECT ?1, ?2, ?3, ?4, 1, 1, 0, '', '', 0, '', 0, 0, '', '', 0";
                let ids = [node.core.random_id().to_string(), bob.user_id.to_string(), row.id.to_string()];
                run(&tx.db, sql, [&ids[0], &ids[1], &ids[2], &ops.to_string()])?;
            }
            Ok::<_, rusqlite::Error>(())
        })
        .unwrap();
    node.advance(10);
    node.core.mark_channels_read(&mallory, mallory.user_id, &[square]).unwrap();
    node.advance(10);
    let mut found = Vec::new();
    let core = &node.core;
    let mut measure = |what, work: &mut dyn FnMut()| {
        STEPS.set(0);
        work();
        found.push((what, STEPS.get()));
    };
    let mut root = None;
    measure("post", &mut || {
        let mut new = words(square, None, "hello");
        new.pending_post_id = "pending".to_owned();
        root = Some(core.create_post(&bob, &new, true).unwrap().id);
    });
    let root = root.unwrap();
    measure("reply", &mut || drop(node.say(&mallory, square, Some(root), "reply")));
    node.core.mark_channels_read(&mallory, mallory.user_id, &[square]).unwrap();
    node.advance(10);
    let last = node.say(&bob, square, None, "last").id;
    let patch = PostPatch { message: Some("edited".to_owned()), ..PostPatch::default() };
    measure("edit", &mut || drop(core.patch_post(&bob, root, &patch).unwrap()));
    measure("react", &mut || drop(core.save_reaction(&bob, bob.user_id, root, "eyes").unwrap()));
    measure("pin", &mut || core.pin_post(&bob, root, true).unwrap());
    measure("pinned", &mut || drop(core.pinned_posts(&bob, square).unwrap()));
    measure("one post", &mut || drop(core.post(&bob, root, false).unwrap()));
    measure("thread", &mut || drop(core.thread(&bob, root, &ThreadPart::default()).unwrap()));
    measure("edit history", &mut || drop(core.edit_history(&bob, root).unwrap()));
    let posts = |query| core.channel_posts(&bob, square, &query, &PostView::default()).unwrap();
    measure("page", &mut || drop(posts(PostQuery::Page { page: 0, per_page: 3 })));
    measure("before", &mut || drop(posts(PostQuery::Before { post: last, page: 0, per_page: 2 })));
    measure("after", &mut || drop(posts(PostQuery::After { post: root, page: 0, per_page: 2 })));
    measure("since", &mut || drop(posts(PostQuery::Since { at: model::UnixMillis(START + 1), before: None })));
    measure("position", &mut || assert!(core.channel_changed_at(square).unwrap() > START));
    measure("around unread", &mut || {
        drop(core.posts_around_unread(&mallory, mallory.user_id, square, (2, 2), &PostView::default()).unwrap());
    });
    let collapsed = PostView { collapsed_threads: true, ..PostView::default() };
    let first = PostQuery::Page { page: 0, per_page: 3 };
    measure("roots", &mut || drop(core.channel_posts(&bob, square, &first, &collapsed).unwrap()));
    let threads = ThreadQuery { per_page: 3, ..ThreadQuery::default() };
    measure("threads", &mut || {
        assert_eq!(core.threads(&bob, bob.user_id, team, &threads).unwrap().total, 1);
    });
    measure("threads at", &mut || assert!(core.threads_changed_at(bob.user_id, square).unwrap() > 0));
    measure("due", &mut || assert_eq!(core.do_due().unwrap(), None));
    measure("unread", &mut || {
        let unread: ChannelUnread = core.channel_unread(&mallory, mallory.user_id, square).unwrap();
        assert_eq!(unread.msg_count, 1);
    });
    measure("set unread", &mut || {
        assert_eq!(core.set_post_unread(&mallory, mallory.user_id, last, true).unwrap().mention_count, 0);
    });
    measure("channel stats", &mut || assert_eq!(core.channel_stats(&bob, square).unwrap().files_count, 0));
    measure("is the store well", &mut || core.check().unwrap());
    let mut sent = node.drain().pop().unwrap();
    sent.id.origin = model::NodeId([7; 16]);
    measure("apply an edit", &mut || drop(node.apply(&[sent.clone()])));
    measure("delete", &mut || core.delete_post(&bob, root).unwrap());
    found
}

#[test]
fn a_long_history_does_not_make_the_daily_operations_dearer() {
    let dearer = |&((_, few), (_, many)): &((&str, i64), (&str, i64))| many >= few * 3 / 2 + 200;
    let found: Vec<_> = costs(20).into_iter().zip(costs(500)).filter(dearer).collect();
    assert_eq!(found, [], "operation, steps with 20 older posts; the same with 500");
}

#[test]
fn a_channel_marked_as_unread_from_far_back_is_looked_at_up_to_a_bound() {
    let (node, _, bob, mallory, _, square, _) = world();
    let first = node.say(&bob, square, None, "@mallory first").id;
    let others = crate::channels::MENTIONS_LOOKED_AT_MAX + 50;
    node.core
        .write(|tx| {
            // All at once, and past the index of what is searched: only their number matters.
            tx.db.execute_batch("DROP TRIGGER posts_search_insert")?;
            let sql = "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < ?2)
                INSERT INTO posts SELECT printf('%026d', n), channel_id, user_id, root_id, original_id, create_at + n,
                    update_at, edit_at, delete_at, message, type, props, hashtags, is_pinned, file_ids, priority,
                    pending_post_id, state_at, changed_at, arrived_at, origin, ver_at, ver_by, shown_at
                FROM posts, n WHERE id = ?1";
            run(&tx.db, sql, rusqlite::params![first.as_str(), others])
        })
        .unwrap();
    let unread = node.core.set_post_unread(&mallory, mallory.user_id, first, true).unwrap();
    assert_eq!(unread.mention_count, crate::channels::MENTIONS_LOOKED_AT_MAX);
}
