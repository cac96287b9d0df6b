//! `holdfast simulate` says what then happens, and changes nothing.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::backlog::say_with;
use crate::node::Node;
use crate::world::{Mission, World, noise, say, share};

const CONTENT_BYTES: usize = 160_000;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_simulated_is_about_what_then_happens_and_nothing_is_sent_by_it() {
    let mut world = World::start_with_rate("64kbit/s").await;
    let mission = Mission::found(&world.edge_admin, &world.edge).await;
    world.settle(&mission.channels()).await;
    assert_eq!(over(&world.edge, "64kbit/s/20ms")["all_seconds"], json!(0), "nothing is to cross");

    world.relay.cut();
    for n in 0..20 {
        say(&mission.anna, &mission.channel, &format!("report {n} on the bridge and the ford beside it"))
            .await
            .unwrap();
    }
    say_with(&mission.ben, &mission.channel, "urgent").await;
    share(&mission.ben, &mission.channel, "survey.bin", &noise(5, CONTENT_BYTES)).await.unwrap();
    while world.edge.status().unwrap()["capture_pending_rows"] != 0 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let held = world.edge.held();
    let said = over(&world.edge, "64kbit/s/20ms");
    assert_eq!(over(&world.edge, "64kbit/s/20ms"), said, "the same backlog and link give the same answer");
    assert_eq!(world.edge.held(), held, "nothing was sent or counted");
    let all = said["all_seconds"].as_f64().unwrap();
    // 160 kB that do not shrink take 20 s at 8 kB/s, and headers a tenth more.
    assert!((20.0..27.0).contains(&all), "{said}");
    let flash = class(&said, "flash");
    assert_eq!((&flash["entries"], &flash["across"]), (&json!(1), &json!(1)), "{said}");
    assert!(flash["all_seconds"].as_f64() < class(&said, "routine")["all_seconds"].as_f64(), "{said}");
    assert_eq!((&said["files"], &said["files_across"]), (&json!(1), &json!(1)), "{said}");

    let seconds = |link: &str| over(&world.edge, link)["all_seconds"].as_f64().unwrap();
    let half = seconds("32kbit/s/20ms");
    // Slices are no smaller than 240 bytes, so headers weigh more there.
    assert!((1.8..2.4).contains(&(half / all)), "at half the rate {half} s for {all} s");
    let lossy = seconds("64kbit/s/20ms/20%");
    assert!((1.15..1.45).contains(&(lossy / all)), "with a fifth lost {lossy} s for {all} s");
    // Ten seconds of each minute: the third minute's are the last that are needed.
    let windows = seconds("64kbit/s/20ms/0%/10s@1m");
    assert!((120.0..130.0).contains(&windows), "in windows after {windows} s");
    let short = asked(&world.edge, &["simulate", "--to", "bravo", "--link", "300bit/s/2s", "--hours", "1"]);
    assert_eq!((&short["all_seconds"], &class(&short, "flash")["across"]), (&Value::Null, &json!(1)), "{short}");

    world.relay.impair(0, Duration::from_millis(20));
    let begun = Instant::now();
    world.relay.restore();
    world.nothing_is_held().await;
    let really = begun.elapsed().as_secs_f64();
    println!("said {all} s, took {really:.1} s with finding the link again");
    // A busy machine and three seconds of probes on top.
    assert!(really > 0.9 * all - 1.0 && really < 2.0 * all + 6.0, "said {all} s, took {really:.1} s");

    let wrong = world.edge.run(&["simulate", "--to", "bravo", "--link", "fast"]);
    assert_eq!(wrong.status.code(), Some(1), "{wrong:?}");
    world.edge.stop().await;
    let stopped = world.edge.run(&["simulate", "--to", "bravo", "--link", "64kbit/s/20ms"]);
    assert!(String::from_utf8_lossy(&stopped.stderr).contains("no node runs"), "{stopped:?}");
}

fn over(node: &Node, link: &str) -> Value {
    asked(node, &["simulate", "--to", "bravo", "--link", link])
}

fn class(of: &Value, name: &str) -> Value {
    of["classes"].as_array().unwrap().iter().find(|row| row["class"] == name).unwrap().clone()
}

fn asked(node: &Node, words: &[&str]) -> Value {
    let answer = node.run(&[words, &["--json"]].concat());
    serde_json::from_slice(&answer.stdout).unwrap_or_else(|e| panic!("{words:?}: {e}: {answer:?}"))
}
