//! The durable ordered log of entries and chunks.
#![allow(dead_code, reason = "bodies follow the signatures")]

mod disk;
mod error;
mod journal;
mod settings;
mod ticket;
mod types;

pub use disk::StdDisk;
pub use error::{AppendError, OpenError, ReadError};
pub use journal::{Consumer, FileInProgress, Journal, OutboundView, Reader, Subscription};
pub use settings::{IndexPlace, JournalOptions, JournalSettings, LIMIT_BYTES_DEFAULT, SEGMENT_BYTES_DEFAULT};
pub use ticket::Ticket;
pub use types::*;
