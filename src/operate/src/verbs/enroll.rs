//! `holdfast enroll`

use super::block_on;
use crate::admin::{AcceptRequest, InviteRequest, JoinRequest, Joined, PeerRow, Peers, RemoveRequest, Token, client};
use crate::cli::Enroll;
use crate::config::{self, Settings};
use crate::exit::{Done, Exit, Failure};
use crate::layout::Layout;
use crate::{offline, output, show};

pub(super) fn run(layout: &Layout, verb: Enroll) -> Done {
    let settings = config::load(layout.data())?;
    match verb {
        Enroll::Invite { name, valid, address, format } => {
            let request = InviteRequest { name: name.to_string(), address, valid_seconds: valid.as_secs() };
            let token = ask(layout, &settings, "/v1/peers/invite", &request, |node| node.invite(&request))?;
            match format.json {
                true => output::json(&token),
                false => print_token(&token),
            }
        }
        Enroll::Join { token } => {
            let request = JoinRequest { token: token_text(token)? };
            let joined: Joined = match block_on(client::post(layout.data(), "/v1/peers/join", &request)) {
                Err(e) if e.exit == Exit::NotRunning => {
                    let node = offline::Registry::open(layout, &settings)?;
                    block_on(node.join(&request.token))?
                }
                answer => answer?,
            };
            output::line(format!("enrolled at {} ({}), {}", joined.hub, joined.node, joined.address));
        }
        Enroll::Card(format) => {
            let card = offline::card(layout, &settings)?;
            match format.json {
                true => output::json(&card),
                false => {
                    output::line(&card.card);
                    output::note(format!(
                        "The card of {}. It is a secret: hand it over as one.\nAt the other node: holdfast enroll accept CARD",
                        card.name
                    ));
                }
            }
        }
        Enroll::Accept { card } => {
            let request = AcceptRequest { card: token_text(card)? };
            let row: PeerRow = ask(layout, &settings, "/v1/peers/accept", &request, |node| node.accept(&request.card))?;
            output::line(format!("{} ({}) is enrolled here; have it accept this node's card too", row.name, row.node));
        }
        Enroll::List(format) => {
            let peers = match block_on(client::get::<Peers>(layout.data(), "/v1/peers")) {
                Err(e) if e.exit == Exit::NotRunning => offline::Registry::open(layout, &settings)?.peers(),
                answer => answer?,
            };
            match format.json {
                true => output::json(&peers),
                false => print_peers(&peers),
            }
        }
        Enroll::Remove { name } => {
            let request = RemoveRequest { name: name.to_string() };
            ask(layout, &settings, "/v1/peers/remove", &request, |node| node.remove_peer(&request.name))?;
            output::line(format!("{name} is refused from now on; what it already received stays there"));
        }
    }
    Ok(Exit::Ok)
}

/// Asks the running node, or does it on the files of one that does not run.
fn ask<T: serde::de::DeserializeOwned>(
    layout: &Layout,
    settings: &Settings,
    path: &str,
    request: &impl serde::Serialize,
    offline: impl FnOnce(&offline::Registry) -> Result<T, Failure>,
) -> Result<T, Failure> {
    match block_on(client::post(layout.data(), path, request)) {
        Err(e) if e.exit == Exit::NotRunning => offline(&offline::Registry::open(layout, settings)?),
        answer => answer,
    }
}

fn token_text(token: String) -> Result<String, Failure> {
    if token != "-" {
        return Ok(token);
    }
    let mut line = String::new();
    match std::io::stdin().read_line(&mut line) {
        Ok(_) => Ok(line.trim().to_owned()),
        Err(e) => Err(Failure::io("reading", std::path::Path::new("standard input"), &e)),
    }
}

fn print_token(token: &Token) {
    output::line(&token.token);
    output::note(format!(
        "Admits {} once, until {}. It is a secret: hand it over as one.\nAt the edge: holdfast enroll join TOKEN",
        token.name,
        show::time(token.expires_at)
    ));
}

fn print_peers(peers: &Peers) {
    if peers.peers.is_empty() && peers.invitations.is_empty() {
        output::line("nobody is enrolled or invited");
    }
    for peer in &peers.peers {
        let address = peer.address.as_deref().unwrap_or("dials this node");
        output::line(format!(
            "{:<16} {:<4} {}  since {}  {address}",
            peer.name,
            peer.role,
            peer.node,
            show::time(peer.enrolled_at)
        ));
    }
    for invitation in &peers.invitations {
        output::line(format!("{:<16} invited, until {}", invitation.name, show::time(invitation.expires_at)));
    }
}
