//! People who sign in to Microsoft 365 at a running node: what the CLI asks, and what the node answers.

use std::pin::Pin;
use std::time::Duration;

use microsoft::entra::BrowserSignIn;
use microsoft::{Advice, Graph, NoToken, SignedIn};
use model::UnixMillis;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use crate::exit::Failure;

/// One answer waits for so long; then the CLI asks again.
const WAIT: Duration = Duration::from_secs(20);

/// Body of `POST /v1/m365`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum M365Ask {
    /// A code that somebody enters on any machine.
    BeginDevice,
    /// Has somebody entered it? Waits a while.
    AwaitDevice,
    /// An address for a browser.
    BeginBrowser {
        /// Where it comes back to, on the machine of the browser.
        redirect: String,
    },
    /// What the browser came back with.
    FinishBrowser {
        /// The address that it asked for.
        came_back: String,
    },
    /// Who has signed in.
    People,
    /// Forgets somebody.
    SignOut {
        /// Entra's id of the person.
        oid: String,
    },
}

/// Answer to [`M365Ask`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum M365Answer {
    /// Enter this.
    Code(Code),
    /// Open this.
    Browse {
        /// The address.
        url: String,
    },
    /// Nobody has yet.
    Waiting,
    /// Somebody has signed in.
    SignedIn(Person),
    /// Everyone, by id.
    People(Vec<Person>),
    /// Somebody was forgotten, or was not there.
    SignedOut {
        /// They were there.
        was_there: bool,
    },
}

/// A code to be entered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Code {
    /// What to enter.
    pub user_code: String,
    /// Where.
    pub verification_uri: String,
    /// For how many seconds it is good.
    pub expires_in_seconds: u64,
}

/// Somebody on whose behalf this node acts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Person {
    /// Entra's id of the person.
    pub oid: String,
    /// The name that they signed in with.
    pub username: String,
    /// When what renews the sign-in was renewed; it ends when it is not used for 90 days.
    pub renewed: UnixMillis,
}

impl From<microsoft::SignedIn> for Person {
    fn from(of: microsoft::SignedIn) -> Self {
        Self { oid: of.oid, username: of.username, renewed: of.renewed }
    }
}

/// A wait for somebody who enters a code.
type Awaited = Pin<Box<dyn Future<Output = Result<SignedIn, NoToken>> + Send>>;

/// Sign-ins that have begun at this node; a new one takes the place of the last.
#[derive(Default)]
pub(crate) struct SignIns {
    /// Kept whole from one question of the CLI to the next: a code is redeemed once, and the answer to that may be under way when
    /// the CLI has waited long enough.
    device: Mutex<Option<Awaited>>,
    browser: Mutex<Option<BrowserSignIn>>,
}

impl SignIns {
    /// Does what was asked.
    ///
    /// # Errors
    /// When the node has no section `[microsoft]`, nothing has begun, or Entra refuses.
    pub(crate) async fn answer(&self, graph: Option<&Graph>, ask: M365Ask) -> Result<M365Answer, Failure> {
        let Some(entra) = graph.map(Graph::entra) else {
            return Err(Failure::new(
                "this node has no way to Microsoft 365; nothing was changed",
                "write section [microsoft] into the configuration and restart the node",
            ));
        };
        let none = || Failure::new("no sign-in has begun here", "begin again: `holdfast m365 sign-in`");
        match ask {
            M365Ask::BeginDevice => {
                let code = entra.device_code().await.map_err(failure)?;
                let shown = Code {
                    user_code: code.user_code.clone(),
                    verification_uri: code.verification_uri.clone(),
                    expires_in_seconds: code.expires_in.as_secs(),
                };
                let entra = entra.clone();
                *self.device.lock().await = Some(Box::pin(async move { entra.await_device(&code).await }));
                Ok(M365Answer::Code(shown))
            }
            M365Ask::AwaitDevice => {
                let mut device = self.device.lock().await;
                let awaited = device.as_mut().ok_or_else(none)?;
                match tokio::time::timeout(WAIT, awaited.as_mut()).await {
                    Err(_) => Ok(M365Answer::Waiting),
                    Ok(ended) => {
                        *device = None;
                        ended.map(|who| M365Answer::SignedIn(who.into())).map_err(failure)
                    }
                }
            }
            M365Ask::BeginBrowser { redirect } => {
                let begun = entra.begin_browser(&redirect).await.map_err(failure)?;
                let url = begun.url.to_string();
                *self.browser.lock().await = Some(begun);
                Ok(M365Answer::Browse { url })
            }
            M365Ask::FinishBrowser { came_back } => {
                let begun = self.browser.lock().await.take().ok_or_else(none)?;
                let signed_in = entra.finish_browser(&begun, &came_back).await.map_err(failure)?;
                Ok(M365Answer::SignedIn(signed_in.into()))
            }
            M365Ask::People => Ok(M365Answer::People(entra.signed_in().into_iter().map(Person::from).collect())),
            M365Ask::SignOut { oid } => {
                let was_there = entra.sign_out(&oid).map_err(|e| {
                    Failure::new(
                        format!("what renews the sign-in could not be removed: {e}"),
                        "check the disk, then try again",
                    )
                })?;
                Ok(M365Answer::SignedOut { was_there })
            }
        }
    }
}

fn failure(of: NoToken) -> Failure {
    let next_step = match &of {
        NoToken::Held(_) => "try again once Entra ID is reachable: `holdfast status`",
        NoToken::Refused(refusal) => match refusal.advice {
            Advice::Retry => "try again in a while",
            Advice::AskAPerson => {
                "begin again, with an account that may sign in; some tenants forbid codes: try --browser"
            }
            Advice::FixConfiguration => "correct section [microsoft], or the registration in Entra",
        },
        NoToken::Broken(_) => "see the node's log",
    };
    Failure::new(of.to_string(), next_step)
}
