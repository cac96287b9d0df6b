//! The backlog on sticks, by the verbs that an operator types, beside a radio that comes and goes.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::http::plain_answer;
use crate::node::Node;
use crate::world::{Mission, SETTLE_TIME_MAX, World, noise, say, share};

#[tokio::test(flavor = "multi_thread")]
async fn sticks_and_a_radio_that_comes_and_goes_fill_the_same_gaps() {
    let mut world = World::start_with_rate("512kbit/s").await;
    let mission = Mission::found(&world.edge_admin, &world.edge).await;
    world.settle(&mission.channels()).await;
    world.relay.cut();
    for n in 0..60 {
        say(&mission.anna, &mission.channel, &format!("{n} {}", text(n, 3_000))).await.unwrap();
    }
    share(&mission.ben, &mission.channel, "survey.bin", &noise(7, 200_000)).await.unwrap();
    captured(&world.edge).await;
    let (held, sent_before) = (world.edge.held().unwrap(), sent_entries(&world.edge).await);
    assert!(held >= 61, "{held}");

    // The first stick holds about half of the posts; the second goes on where that one was full.
    let (first, second) = (stick(&world.edge, "first"), stick(&world.edge, "second"));
    let on_first = export(&world.edge, &first, &["--max-bytes", "70000"]);
    assert_eq!((&on_first["more"], &on_first["continued"]), (&Value::Bool(true), &Value::Bool(false)), "{on_first}");
    let by_hand = count(&on_first, "entries");
    assert!((held / 4..held * 3 / 4).contains(&by_hand), "{by_hand} of {held} on the first stick");
    assert_eq!(world.edge.held(), Some(held), "being on a stick is not having arrived");
    world.edge.assert_balanced();
    let taken = import(&world.hub, &first);
    assert_eq!((count(&taken, "entries"), count(&taken, "entries_held")), (by_hand, 0), "{taken}");

    // The radio comes back, the second stick arrives while it sends; then it breaks off and comes back once more.
    let on_second = export(&world.edge, &second, &["--max-bytes", "70000"]);
    assert_eq!(on_second["continued"], true, "{on_second}");
    world.relay.restore();
    more_is_sent(&world.edge, sent_before).await;
    let taken_too = import(&world.hub, &second);
    let brought = count(&taken_too, "entries") + count(&taken_too, "entries_held");
    assert_eq!(brought, count(&on_second, "entries"), "{taken_too}");
    world.relay.cut();
    assert_eq!(count(&import(&world.hub, &first), "entries"), 0, "a stick that is read again brings nothing");
    world.edge.assert_balanced();
    world.relay.restore();
    let picture = world.settle(&mission.channels()).await;

    let shown: String = picture.values().map(Value::to_string).collect();
    for n in 0..60 {
        assert_eq!(shown.matches(&text(n, 3_000)).count(), 1, "post {n} is there once");
    }
    // What was under way at the break came again; what the first stick brought never left.
    let by_radio = sent_entries(&world.edge).await - sent_before;
    assert!(by_radio > 0 && by_radio < held, "{by_radio} of {held} by radio, {by_hand} by hand");
    world.hub.verify_journal();

    // The way back: receipts are there already, so a stick has nothing but those.
    let back = stick(&world.hub, "back");
    let on_back = export_to(&world.hub, "alpha", &back, &[]);
    assert_eq!((count(&on_back, "entries"), &on_back["more"]), (0, &Value::Bool(false)), "{on_back}");
    assert_eq!(count(&import(&world.edge, &back), "entries"), 0);

    // Without the daemon nobody can say what is held: the verbs say so, and a stick stays as it is.
    world.edge.stop().await;
    let before = listing(&back);
    for verb in ["export", "import"] {
        let dir = back.to_str().unwrap();
        let to: &[&str] = if verb == "export" { &["--to", "bravo"] } else { &[] };
        let done = world.edge.run(&[&["courier", verb], to, &[dir]].concat());
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(!done.status.success() && said.contains("next step:"), "{verb}: {said}");
        assert!(said.contains("no node runs"), "{verb}: {said}");
    }
    assert_eq!(listing(&back), before);
    world.edge.start().await;
    world.settle(&mission.channels()).await;
}

/// Text that shrinks little, the same for the same number.
fn text(n: u64, len: usize) -> String {
    noise(1_000 + n, len).iter().map(|byte| char::from(b'a' + byte % 26)).collect()
}

fn stick(node: &Node, name: &str) -> std::path::PathBuf {
    let dir = node.path_for(name);
    fs::create_dir(&dir).unwrap();
    dir
}

fn export(from: &Node, dir: &Path, more: &[&str]) -> Value {
    export_to(from, "bravo", dir, more)
}

fn export_to(from: &Node, to: &str, dir: &Path, more: &[&str]) -> Value {
    asked(from, &[&["courier", "export", "--to", to, dir.to_str().unwrap()], more].concat())
}

fn import(at: &Node, dir: &Path) -> Value {
    let taken = asked(at, &["courier", "import", dir.to_str().unwrap()]);
    assert_eq!(taken["refused"], Value::Array(Vec::new()), "{taken}");
    taken
}

fn asked(node: &Node, verb: &[&str]) -> Value {
    let done = node.run(&[verb, &["--json"]].concat());
    serde_json::from_slice(&done.stdout).unwrap_or_else(|e| panic!("{verb:?}: {e}\n{done:?}"))
}

fn count(answer: &Value, field: &str) -> u64 {
    answer[field].as_u64().unwrap_or_else(|| panic!("no {field} in {answer}"))
}

fn listing(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|item| item.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Entries that left over the link since the start.
async fn sent_entries(node: &Node) -> u64 {
    let (_, text) = plain_answer(node.metrics_address(), "/metrics").await;
    let sent = text.lines().filter(|line| line.starts_with("holdfast_link_sent_entries_total"));
    sent.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

async fn captured(node: &Node) {
    let deadline = Instant::now() + SETTLE_TIME_MAX;
    while node.status().unwrap()["capture_pending_rows"] != 0 {
        assert!(Instant::now() < deadline, "not everything is in the journal");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until more than so many entries have left over the link.
async fn more_is_sent(node: &Node, than: u64) {
    let deadline = Instant::now() + SETTLE_TIME_MAX;
    while sent_entries(node).await <= than {
        assert!(Instant::now() < deadline, "the radio moves nothing");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
