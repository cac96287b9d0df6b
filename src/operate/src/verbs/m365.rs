//! `holdfast m365`: who has signed in to Microsoft 365 at this node.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;

use axum::Router;
use axum::extract::{OriginalUri, Query, State};
use axum::response::Html;
use http::Uri;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{block_on, targets};
use crate::admin::client;
use crate::cli::M365;
use crate::exit::{Done, Exit, Failure};
use crate::layout::Layout;
use crate::m365::{Code, M365Answer, M365Ask, Person};
use crate::targets::TargetsAsk;
use crate::{output, show};

pub(super) fn run(layout: &Layout, verb: M365) -> Done {
    match verb {
        M365::SignIn { browser, format } => {
            let person = match browser {
                true => block_on(by_browser(layout.data(), format.json))?,
                false => block_on(by_code(layout.data(), format.json))?,
            };
            if format.json {
                output::json_line(&SignedIn { schema: "holdfast.m365-signed-in/1", person: &person });
            } else {
                output::line(format!("{} has signed in ({})", person.username, person.oid));
            }
        }
        M365::Plan(format) => return targets::plan(layout, format.json),
        M365::Targets(format) => return targets::status(layout, format.json),
        M365::Missing { target, format } => return targets::missing(layout, target, format.json),
        M365::Retry { target, item, format } => {
            return targets::change(layout, &TargetsAsk::Retry { target, item }, format.json);
        }
        M365::Skip { target, item, format } => {
            return targets::change(layout, &TargetsAsk::Skip { target, item }, format.json);
        }
        M365::People(format) => {
            let M365Answer::People(people) = block_on(ask(layout.data(), &M365Ask::People))? else { return Err(odd()) };
            if format.json {
                output::json(&People { schema: "holdfast.m365-people/1", people: &people });
            } else if people.is_empty() {
                output::line("nobody has signed in: `holdfast m365 sign-in`");
            }
            for person in people.iter().filter(|_| !format.json) {
                output::line(format!("{}  {}  renewed {}", person.oid, person.username, show::time(person.renewed)));
            }
        }
        M365::SignOut { oid, format } => {
            let asked = M365Ask::SignOut { oid: oid.clone() };
            let M365Answer::SignedOut { was_there } = block_on(ask(layout.data(), &asked))? else { return Err(odd()) };
            if !was_there {
                return Err(Failure::new(
                    format!("nobody with the id {oid} has signed in here"),
                    "list them with `holdfast m365 people`",
                ));
            }
            if format.json {
                output::json(&SignedOut { schema: "holdfast.m365-signed-out/1", oid: &oid });
            } else {
                output::line(format!("{oid} is forgotten; what waits in that name waits for a new sign-in"));
            }
        }
    }
    Ok(Exit::Ok)
}

#[derive(Serialize)]
struct SignedIn<'a> {
    schema: &'static str,
    #[serde(flatten)]
    person: &'a Person,
}

#[derive(Serialize)]
struct ShownCode<'a> {
    schema: &'static str,
    #[serde(flatten)]
    code: &'a Code,
}

#[derive(Serialize)]
struct ShownAddress<'a> {
    schema: &'static str,
    url: &'a str,
}

#[derive(Serialize)]
struct People<'a> {
    schema: &'static str,
    people: &'a [Person],
}

#[derive(Serialize)]
struct SignedOut<'a> {
    schema: &'static str,
    oid: &'a str,
}

async fn ask(data: &Path, ask: &M365Ask) -> Result<M365Answer, Failure> {
    client::post(data, "/v1/m365", ask).await
}

fn odd() -> Failure {
    Failure::new("the node answered something else", "use a `holdfast` of the same version as the running node")
}

async fn by_code(data: &Path, json: bool) -> Result<Person, Failure> {
    let M365Answer::Code(code) = ask(data, &M365Ask::BeginDevice).await? else { return Err(odd()) };
    if json {
        output::json_line(&ShownCode { schema: "holdfast.m365-code/1", code: &code });
    } else {
        let minutes = code.expires_in_seconds / 60;
        output::line(format!("open {} on any machine and enter {}", code.verification_uri, code.user_code));
        output::note(format!("waiting for it, up to {minutes} minutes"));
    }
    loop {
        match ask(data, &M365Ask::AwaitDevice).await? {
            M365Answer::SignedIn(person) => return Ok(person),
            M365Answer::Waiting => {}
            M365Answer::Code(_) | M365Answer::Browse { .. } | M365Answer::People(_) | M365Answer::SignedOut { .. } => {
                return Err(odd());
            }
        }
    }
}

/// A browser comes back to a port of this machine; the registration names `http://localhost`, whatever the port.
async fn by_browser(data: &Path, json: bool) -> Result<Person, Failure> {
    let busy = |e: std::io::Error| Failure::new(format!("no port of this machine could be opened: {e}"), "try again");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(busy)?;
    let redirect = format!("http://localhost:{}", listener.local_addr().map_err(busy)?.port());
    let begin = M365Ask::BeginBrowser { redirect: redirect.clone() };
    let M365Answer::Browse { url } = ask(data, &begin).await? else { return Err(odd()) };
    if json {
        output::json_line(&ShownAddress { schema: "holdfast.m365-browse/1", url: &url });
    } else {
        output::line(format!("open this in a browser on this machine:\n{url}"));
        output::note(format!("waiting for it; from elsewhere forward the port of {redirect} first (ssh -L)"));
    }
    // One answer is enough; a browser also asks for its icon.
    let (sender, mut answers) = mpsc::channel(1);
    let stop = CancellationToken::new();
    let state = url.parse().ok().and_then(|uri| state_in(&uri));
    let awaited = Awaited { answers: sender, state: state.ok_or_else(odd)? };
    let pages = Router::new().fallback(came_back).with_state(awaited);
    let serving = axum::serve(listener, pages).with_graceful_shutdown(stop.clone().cancelled_owned());
    let finishing = async {
        let query = answers.recv().await.ok_or_else(odd)?;
        stop.cancel();
        ask(data, &M365Ask::FinishBrowser { came_back: format!("{redirect}/?{query}") }).await
    };
    let (_, ended) = tokio::join!(serving, finishing);
    match ended? {
        M365Answer::SignedIn(person) => Ok(person),
        M365Answer::Code(_)
        | M365Answer::Browse { .. }
        | M365Answer::Waiting
        | M365Answer::People(_)
        | M365Answer::SignedOut { .. } => Err(odd()),
    }
}

/// The return of a browser from one sign-in.
#[derive(Clone)]
struct Awaited {
    answers: mpsc::Sender<String>,
    state: String,
}

fn state_in(uri: &Uri) -> Option<String> {
    Query::<BTreeMap<String, String>>::try_from_uri(uri).ok().and_then(|Query(mut fields)| fields.remove("state"))
}

async fn came_back(State(awaited): State<Awaited>, OriginalUri(uri): OriginalUri) -> Html<&'static str> {
    let query = uri.query().unwrap_or_default();
    // Any page that this browser shows may ask for this address: only the answer to this very sign-in ends it.
    if state_in(&uri).as_ref() == Some(&awaited.state) {
        // A second answer to the same sign-in is left aside.
        let _ = awaited.answers.try_send(query.to_owned());
        Html("<!doctype html><title>Holdfast</title><p>Done: go back to the terminal. This page may be closed.")
    } else {
        Html("<!doctype html><title>Holdfast</title><p>Nothing is here.")
    }
}
