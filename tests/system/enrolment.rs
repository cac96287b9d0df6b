//! Who may join, and how a refusal reads.

use std::time::Duration;

use crate::node::{Node, Role};
use crate::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn a_token_works_once() {
    let hub = running_hub().await;
    let invite = hub.invite("alpha", hub.link_address());
    let mut first = Node::init(Role::Edge, "alpha", "10Mbit/s");
    first.join(&invite);
    first.start().await;
    first.connected().await;

    // The same name with another key: two edges with one identity.
    let second = Node::init(Role::Edge, "alpha", "10Mbit/s");
    let said = second.is_refused(&invite);
    assert!(said.contains("used"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mistyped_or_expired_token_is_refused_with_a_reason() {
    let hub = running_hub().await;
    let invite = hub.invite("alpha", hub.link_address());
    let edge = Node::init(Role::Edge, "alpha", "10Mbit/s");
    let mut mistyped = invite.clone();
    let last = mistyped.pop().unwrap();
    mistyped.push(if last == 'a' { 'b' } else { 'a' });
    edge.is_refused(&mistyped);

    let short = hub.invite_valid_for("charlie", hub.link_address(), "1s");
    tokio::time::sleep(Duration::from_millis(2100)).await;
    let late = Node::init(Role::Edge, "charlie", "10Mbit/s");
    let said = late.is_refused(&short);
    assert!(said.contains("expired"), "{said}");

    // The same node is still welcome with the token that is good.
    let mut edge = edge;
    edge.join(&invite);
    edge.start().await;
    edge.connected().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_never_enrolled_gets_nothing_and_disturbs_nobody() {
    let world = World::start().await;
    let mut stranger = Node::init(Role::Edge, "stranger", "10Mbit/s");
    // It knows the hub's address and key; the hub does not know it.
    stranger.copy_enrolment_of(&world.edge);
    stranger.start().await;
    stranger.stays_unconnected().await;
    world.edge.connected().await;
}

async fn running_hub() -> Node {
    let mut hub = Node::init(Role::Hub, "bravo", "10Mbit/s");
    hub.start().await;
    hub
}
