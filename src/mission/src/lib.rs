//! The embedded Mattermost-compatible core.
//!
//! ```text
//!  http, ws --> operations (users, channels, posts, ..) --> one SQLite transaction --> rows + outbox rows
//!                                                                `-- after the commit --> broadcasts
//!  apply room --> Replica::apply --> the same rows, the ledger, no outbox row --> broadcasts
//!  capture room <-- Core::outbox_read / outbox_ack
//! ```
//!
//! Invariants
//! - A replicated change and its outbox row commit together or not at all.
//! - Outbox positions rise strictly, across restarts and clock steps.
//! - What came from another node gives no outbox row.
//! - Roles, credentials, read marks, settings and statuses never leave the node.
//! - A row refers to file bytes only after they are durable.
//!
//! Not here: numbering, journals and links (capture, journal, link), what may leave (capture).
//! Start reading at [`Core`]; replication is in `replica`, the tables are in `schema`.

mod access;
mod accounts;
mod acknowledgements;
mod analytics;
mod ancillary;
mod audits;
mod bookmarks;
mod bots;
mod bulk;
mod channels;
mod core;
mod custom_status;
mod delivery;
mod digest;
mod directory;
mod drafts;
mod due;
mod emoji;
mod enrolment;
mod ephemeral;
pub mod error;
pub mod events;
mod export;
mod files;
#[cfg(test)]
mod guard;
pub mod http;
mod images;
mod integrations;
mod invites;
mod members;
mod mentions;
mod mfa;
mod outbox;
mod outgoing;
mod pictures;
mod posts;
mod preferences;
mod previews;
mod purges;
mod push;
mod reactions;
mod reading;
mod reminders;
mod replica;
mod requests;
mod roles;
mod rows;
mod scheduled;
mod schema;
mod search;
mod sessions;
mod sidebar;
mod space;
mod statuses;
mod teams;
#[cfg(test)]
mod testkit;
mod threads;
pub mod types;
mod uploads;
mod users;
pub mod ws;

pub use crate::accounts::UserCount;
pub use crate::bulk::jobs::{EXPORT as JOB_EXPORT, IMPORT as JOB_IMPORT};
pub use crate::bulk::{
    BulkChecked, BulkError, BulkExported, BulkImported, BulkPhase, BulkProgress, ExportOptions, Finding, Findings,
    ImportOptions, Watch,
};
pub use crate::core::{Core, CoreOptions, CoreSettings, OpenError, StoreError};
pub use crate::delivery::Undelivered;
pub use crate::space::ClassOfPost;
pub use directory::{DirectoryBatch, DirectoryClosed, DirectoryDone, DirectoryPerson, DirectoryPlace};
pub use enrolment::Enrolment;
pub use export::Snapshot;
pub use files::{FileAvailability, StagedFile, StagedWriter, TooLarge, Upload};
pub use integrations::IntegrationSettings;
pub use invites::InviteInfo;
pub use outbox::{ChannelPlace, CoreStats, OutboxRow, OutboxStats};
pub use purges::{FileToGo, NewPurge, PostToGo, PurgePreview, PurgeRow};
pub use push::PushSettings;
pub use replica::{Applied, Incoming, LedgerRow, QuarantineRow, Replica};
pub use requests::{FileBrief, FileOutlook, FileOutlookOf};
