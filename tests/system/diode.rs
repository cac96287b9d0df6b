//! A data diode between two real nodes: what the edge sends arrives in part, and nothing comes back.

use serde_json::Value;
use tokio::time::Instant;
use toml::Table;

use crate::compare::{differences, picture};
use crate::node::{Node, free_port, set};
use crate::relay::Relay;
use crate::world::{Mission, SETTLE_TIME_MAX, World, noise, say, share};

#[tokio::test(flavor = "multi_thread")]
async fn over_a_diode_that_loses_a_fifth_everything_arrives_and_nothing_is_claimed() {
    let mut world = World::start_with_rate("20Mbit/s").await;
    let mission = Mission::found(&world.edge_admin, &world.edge).await;
    world.settle(&mission.channels()).await;
    let arrives = free_port();
    let diode = Relay::open(arrives, 11).await;
    diode.impair(200, std::time::Duration::ZERO);
    // The way between them is a diode from here on; the hub may not even emit.
    world.relay.cut();
    world.hub.restart_with(|config| set(config, "carrier", "oneway_listen", arrives.to_string())).await;
    assert!(world.hub.run(&["link", "silence", "--receive"]).status.success());
    let lane: Table = format!(
        "never_dial = true\noneway = {{ to = \"{}\", rate = \"4Mbit/s\", passes = 2, repeat_minutes = 0, rounds = 2 }}",
        diode.address
    )
    .parse()
    .unwrap();
    world
        .edge
        .restart_with(|config| set(config, "carrier", "peers", Table::from_iter([("bravo".to_owned(), lane.into())])))
        .await;
    world.follow();
    for n in 0..20 {
        say(&mission.anna, &mission.channel, &format!("report {n}")).await.unwrap();
    }
    share(&mission.ben, &mission.channel, "survey.bin", &noise(3, 200_000)).await.unwrap();

    let deadline = Instant::now() + SETTLE_TIME_MAX;
    loop {
        let edge = picture(&world.edge_admin, &mission.channels()).await;
        let hub = picture(&world.hub_admin, &mission.channels()).await;
        if let (Ok(edge), Ok(hub)) = (&edge, &hub)
            && differences(edge, hub).is_empty()
        {
            break;
        }
        assert!(Instant::now() < deadline, "{}\n{}", asked(&world.edge, &["link", "list"]), world.hub.last_words());
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    }
    let held = world.edge.held().unwrap();
    assert!(held >= 21, "without a receipt all of it is held");
    let deadline = Instant::now() + SETTLE_TIME_MAX;
    loop {
        let backlog = asked(&world.edge, &["backlog"]);
        if backlog["peers"][0]["sent_unconfirmed"] == held {
            break;
        }
        assert!(Instant::now() < deadline, "{backlog}");
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    }
    assert_eq!(world.edge.held(), Some(held), "unconfirmed is held");
    world.edge.assert_balanced();
    let links = asked(&world.edge, &["link", "list"]);
    let lane = links["links"].as_array().unwrap().iter().find(|row| row["link"] == "oneway").unwrap();
    assert_eq!(lane["state"], "one-way", "{links}");
    assert_eq!(lane["oneway"]["unconfirmed_entries"], held, "{links}");
    let received = &asked(&world.hub, &["link", "list"])["oneway_in"];
    assert!(received["whole"].as_u64() > Some(0) && received["rejected"] == 0, "{received}");

    // With a link again the hub's receipts come, and what it has is not sent once more.
    world.relay.restore();
    world.hub.resume();
    world.edge.restart_with(|config| drop(config["carrier"].as_table_mut().unwrap().remove("peers"))).await;
    world.settle(&mission.channels()).await;
}

fn asked(node: &Node, verb: &[&str]) -> Value {
    let done = node.run(&[verb, &["--json"]].concat());
    serde_json::from_slice(&done.stdout).unwrap_or_else(|e| panic!("{verb:?}: {e}\n{done:?}"))
}
