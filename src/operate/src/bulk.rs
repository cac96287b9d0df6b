//! Imports and exports of a whole server: what the CLI asks of a running node, and what the node answers.

use std::path::PathBuf;

use mission::error::AppError;
use mission::types::{Job, StringMap};
use mission::{BulkProgress, Core, JOB_EXPORT, JOB_IMPORT};
use model::Id;
use serde::{Deserialize, Serialize};

use crate::exit::Failure;

/// Body of `POST /v1/core/bulk`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum BulkAsk {
    /// Begin an import.
    Import {
        /// The archive, as an absolute path.
        file: PathBuf,
        /// Look at it only.
        dry_run: bool,
        /// New channels never leave the node.
        stay_here: bool,
    },
    /// Begin an export.
    Export {
        /// With the bytes of attachments.
        attachments: bool,
        /// With pictures of users.
        profile_pictures: bool,
        /// With archived channels.
        archived: bool,
    },
    /// How far is it?
    Look {
        /// The job.
        job: String,
    },
    /// Stop it.
    Cancel {
        /// The job.
        job: String,
    },
}

/// Answer to [`BulkAsk`].
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct BulkJob {
    /// Its id.
    pub job: String,
    /// `pending`, `in_progress`, `success`, `error`, `cancel_requested` or `canceled`.
    pub status: String,
    /// How far it is.
    pub progress: BulkProgress,
    /// What it did, once it is over; what was found wrong, where it was refused for that.
    pub report: Option<serde_json::Value>,
    /// Why it did not come to its end.
    pub error: Option<String>,
    /// What to do then.
    pub next_step: Option<String>,
    /// Where the archive of an export lies.
    pub archive: Option<PathBuf>,
}

impl BulkJob {
    /// Does nothing more come of it?
    pub fn is_over(&self) -> bool {
        !matches!(self.status.as_str(), "pending" | "in_progress" | "cancel_requested")
    }
}

/// Does what was asked. Touches the disk.
///
/// # Errors
/// When there is no such job, too many wait, or the store fails.
pub(crate) fn answer(core: &Core, ask: BulkAsk) -> Result<BulkJob, Failure> {
    let failed =
        |e: AppError| Failure::new(format!("{}; nothing was changed", e.message), "try again, or see the node's log");
    let flag = |is: bool| is.to_string();
    let job = match ask {
        BulkAsk::Import { file, dry_run, stay_here } => {
            let file = file.to_str().ok_or_else(|| {
                Failure::new("the path of the archive is not UTF-8; nothing was changed", "rename it and try again")
            })?;
            let data: StringMap =
                [("file", file.to_owned()), ("dry_run", flag(dry_run)), ("stay_here", flag(stay_here))]
                    .map(|(name, value)| (name.to_owned(), value))
                    .into();
            core.operator_asks(JOB_IMPORT, data).map_err(failed)?
        }
        BulkAsk::Export { attachments, profile_pictures, archived } => {
            let data: StringMap = [
                ("include_attachments", attachments),
                ("include_profile_pictures", profile_pictures),
                ("include_archived_channels", archived),
            ]
            .map(|(name, is)| (name.to_owned(), flag(is)))
            .into();
            core.operator_asks(JOB_EXPORT, data).map_err(failed)?
        }
        BulkAsk::Look { job } => core.job(id(&job)?).map_err(failed)?,
        BulkAsk::Cancel { job } => {
            core.cancel_job(id(&job)?).map_err(failed)?;
            core.job(id(&job)?).map_err(failed)?
        }
    };
    Ok(view(core, &job))
}

fn id(text: &str) -> Result<Id, Failure> {
    text.parse().map_err(|_| Failure::new(format!("`{text}` is no job"), "use the id that the beginning answered"))
}

fn view(core: &Core, job: &Job) -> BulkJob {
    let text = |name: &str| job.data.get(name).cloned();
    let number = |name: &str| job.data.get(name).and_then(|n| n.parse().ok()).unwrap_or(0);
    let phase = text("phase").and_then(|phase| serde_json::from_value(phase.into()).ok()).unwrap_or_default();
    BulkJob {
        job: job.id.to_string(),
        status: job.status.clone(),
        progress: BulkProgress {
            phase,
            lines: number("lines"),
            done_bytes: number("done_bytes"),
            total_bytes: number("total_bytes"),
        },
        report: text("report").and_then(|report| serde_json::from_str(&report).ok()),
        error: text("error"),
        next_step: text("next_step"),
        archive: (job.kind == JOB_EXPORT).then(|| core.export_path(job.id)),
    }
}
