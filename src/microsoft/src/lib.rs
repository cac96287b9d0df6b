//! Entra ID and Microsoft Graph: who may ask, what may leave, and what came of it.
//!
//! ```text
//!  targets, directory --Call--> graph --throttle, budget--> transport --TLS--> Graph
//!                                 |                             ^
//!                                 `--token--> entra ------------'------------> Entra ID
//!  reach: what probes and calls show of both, and whether delivery may run
//! ```
//!
//! Invariants
//! - Every byte that this room sends was granted by [`Budget`] before; what it does not grant is not sent, probes and
//!   requests for tokens included.
//! - A token goes to the configured Graph host and to no other; neither tokens nor upload addresses reach a log, an error
//!   or a [`Recorder`].
//! - A call with [`Retry::Once`] is sent again only when the first one certainly did nothing.
//! - One throttled scope does not hold up another.
//! - A refresh token is replaced only once the new one is durable.
//! - No host is derived from another: the cloud's table or the configuration names each.
//!
//! Not here: what is written into Teams, SharePoint or mailboxes, and the ledger of it (the modules of the targets); what
//! the budget is made of (`edge`). Start reading at [`Graph::call`].

pub mod activity;
pub mod cloud;
pub mod directory;
pub mod drive;
pub mod entra;
pub mod environment;
pub mod graph;
pub mod html;
pub mod mail;
pub mod names;
pub mod package;
pub mod quickxor;
pub mod reach;
pub mod settings;
pub mod targets;
pub mod teams;
#[cfg(test)]
mod testkit;
mod transport;

pub use cloud::{Cloud, Hosts};
pub use entra::{Advice, Entra, EntraError, NoToken, SignedIn};
pub use environment::{
    Budget, GraphEnvironment, HeldBecause, Random, RecordedRequest, Recorder, Timer, TokioTimer, Vault,
};
pub use graph::{Acting, Answer, Call, CallBody, Failure, Graph, Refusal, RefusalKind, Retry, Scope};
pub use package::{AppSettings, PackageError, Registration, TeamsApp};
pub use reach::Reach;
pub use settings::{Credential, GraphSettings, MicrosoftSettings, SettingsError};
