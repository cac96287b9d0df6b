//! Imports and exports as jobs: asked for at one moment, done in turn, told of while they run and afterwards.
//!
//! ```text
//!  pending --> in_progress --> success | error        what was under way when the process ended is pending again
//!                  `--cancel_requested--> canceled
//! ```
//!
//! One runs at a time. Statuses and fields are those of the original (`server/public/model/job.go`), so that mmctl shows them.

use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use model::Id;
use rusqlite::{Connection, Row, params};
use tokio_util::sync::CancellationToken;

use super::{BulkError, BulkPhase, BulkProgress, ExportOptions, ImportOptions};
use crate::access::require;
use crate::core::{Core, Tx, random_id};
use crate::error::{AppError, AppResult};
use crate::files::base_name;
use crate::rows::{all, count, exists, get, id, json, run, to_json};
use crate::types::{Job, Session, StringMap};

/// Type of jobs that import.
pub const IMPORT: &str = "import_process";
/// Type of jobs that export.
pub const EXPORT: &str = "export_process";

/// Statuses, as the original calls them.
pub(crate) const STATUSES: [&str; 7] =
    ["pending", "in_progress", "success", "error", "cancel_requested", "canceled", "warning"];
const OVER: &str = "('success', 'error', 'canceled', 'warning')";

/// Finished jobs that are kept.
const KEPT_MAX: i64 = 100;
/// Jobs that wait at a time.
const WAITING_MAX: i64 = 20;
/// How often a running job says how far it is.
const TELL_EVERY_MS: i64 = 500;
/// An import waits while so many of its rows wait to be captured: the journal syncs a few thousand a second.
const ROWS_AHEAD_MAX: i64 = 20_000;
/// A job is given up that was begun so often and under which the process ended each time before it got further.
const BEGUN_MAX: u32 = 3;
/// In `data` of a job: how often it was begun since it got further, and how far that was.
const BEGUN: &str = "begun";
const REACHED: &str = "reached";
/// How often it looks whether they are.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Name of the table and of its columns.
pub(crate) const TABLES: &str = "
CREATE TABLE jobs (
    id TEXT PRIMARY KEY, type TEXT NOT NULL, create_at INTEGER NOT NULL, start_at INTEGER NOT NULL,
    last_activity_at INTEGER NOT NULL, status TEXT NOT NULL, progress INTEGER NOT NULL, data TEXT NOT NULL) STRICT;
";

fn job_row(r: &Row<'_>) -> rusqlite::Result<Job> {
    Ok(Job {
        id: id(r, "id")?,
        kind: r.get("type")?,
        priority: 0,
        create_at: r.get("create_at")?,
        start_at: r.get("start_at")?,
        last_activity_at: r.get("last_activity_at")?,
        status: r.get("status")?,
        progress: r.get("progress")?,
        data: json(r, "data")?,
    })
}

fn missing() -> AppError {
    AppError::not_found("GetJob", "app.job.get.app_error")
}

fn job_by_id(db: &Connection, job: Id) -> AppResult<Job> {
    get(db, "SELECT * FROM jobs WHERE id = ?1", [job.as_str()], job_row)?.ok_or_else(missing)
}

fn names_in(dir: &Path, ends: &str) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type()?.is_file() && name.ends_with(ends) {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

fn plain(name: &str) -> AppResult<&str> {
    let bad = || AppError::url_param("bulk", "name");
    base_name(name).filter(|base| *base == name && !name.starts_with('.')).ok_or_else(bad)
}

impl Core {
    pub(crate) fn imports_dir(&self) -> PathBuf {
        self.0.dir.join("imports")
    }

    fn exports_dir(&self) -> PathBuf {
        self.0.dir.join("exports")
    }

    /// Where an upload of an archive goes.
    pub(crate) fn import_path(&self, upload: Id, name: &str) -> PathBuf {
        self.imports_dir().join(format!("{upload}_{name}"))
    }

    /// Where the archive of an export job lies once it is whole.
    pub fn export_path(&self, job: Id) -> PathBuf {
        self.exports_dir().join(format!("{job}_export.zip"))
    }

    /// Archives that were uploaded.
    ///
    /// # Errors
    /// 403 for others than system administrators.
    pub(crate) fn imports(&self, by: &Session) -> AppResult<Vec<String>> {
        require("listImports", by, "manage_system")?;
        Ok(names_in(&self.imports_dir(), "")?)
    }

    /// Deletes an uploaded archive; that there is none is no error, as in the original.
    ///
    /// # Errors
    /// 403 for others than system administrators, 400 for what is no name.
    pub(crate) fn delete_import(&self, by: &Session, name: &str) -> AppResult<()> {
        require("deleteImport", by, "manage_system")?;
        remove(&self.imports_dir().join(plain(name)?))
    }

    /// Archives that were exported.
    ///
    /// # Errors
    /// 403 for others than system administrators.
    pub(crate) fn exports(&self, by: &Session) -> AppResult<Vec<String>> {
        require("listExports", by, "manage_system")?;
        Ok(names_in(&self.exports_dir(), ".zip")?)
    }

    /// An exported archive.
    ///
    /// # Errors
    /// 403 for others than system administrators, 404 when there is none.
    pub(crate) fn open_export(&self, by: &Session, name: &str) -> AppResult<fs::File> {
        require("downloadExport", by, "manage_system")?;
        let message = "Unable to find export file.";
        let none = || AppError::new("downloadExport", "api.export.export_not_found.app_error", message, 404);
        let name = plain(name)?;
        if !name.ends_with(".zip") {
            return Err(none());
        }
        fs::File::open(self.exports_dir().join(name)).map_err(|_| none())
    }

    /// Deletes an exported archive; that there is none is no error, as in the original.
    ///
    /// # Errors
    /// 403 for others than system administrators, 400 for what is no name.
    pub(crate) fn delete_export(&self, by: &Session, name: &str) -> AppResult<()> {
        require("deleteExport", by, "manage_system")?;
        remove(&self.exports_dir().join(plain(name)?))
    }

    /// Asks for a job over the API. An import names an uploaded archive, never a path.
    ///
    /// # Errors
    /// 403 for others than system administrators, 400 for other types and for paths.
    pub(crate) fn create_job(&self, by: &Session, kind: &str, data: &StringMap) -> AppResult<Job> {
        if kind != IMPORT && kind != EXPORT {
            let message = "This server has no jobs of that type.";
            let id = "api.job.unable_to_create_job.incorrect_job_type";
            return Err(AppError::bad("unableToCreateJob", id, message));
        }
        require("createJob", by, "manage_system")?;
        let known = ["import_file", "include_attachments", "include_archived_channels", "include_profile_pictures"];
        let mut data = data.clone();
        data.retain(|name, _| known.contains(&name.as_str()));
        if kind == IMPORT {
            let name = data.get("import_file").map_or("", String::as_str);
            if plain(name).is_err() {
                let message = "Unable to process import: the name of an uploaded file is wanted.";
                let id = "import_process.worker.do_job.missing_file";
                return Err(AppError::bad("ImportProcessWorker", id, message));
            }
            let path = self.imports_dir().join(name).to_string_lossy().into_owned();
            data.insert("file".to_owned(), path);
            data.insert("then_delete".to_owned(), "true".to_owned());
        }
        self.operator_asks(kind, data)
    }

    /// Asks for a job as the operator of the machine, who needs no permission and may name any path. Fields of `data`: `file`,
    /// `dry_run` and `stay_here` of an import; `include_attachments`, `include_profile_pictures` and
    /// `include_archived_channels` of an export.
    ///
    /// # Errors
    /// When too many wait, or the store fails.
    pub fn operator_asks(&self, kind: &str, data: StringMap) -> AppResult<Job> {
        let job = self.write(|tx| {
            if count(&tx.db, &format!("SELECT count(*) FROM jobs WHERE status NOT IN {OVER}"), [])? >= WAITING_MAX {
                let message = "Too many jobs wait already.";
                return Err(AppError::new("createJob", "holdfast.job.too_many.app_error", message, 429));
            }
            let job = Job {
                id: random_id(),
                kind: kind.to_owned(),
                priority: 0,
                create_at: tx.now,
                start_at: 0,
                last_activity_at: tx.now,
                status: "pending".to_owned(),
                progress: 0,
                data,
            };
            let sql = "INSERT INTO jobs (id, type, create_at, start_at, last_activity_at, status, progress, data)
                VALUES (?1, ?2, ?3, 0, ?3, 'pending', 0, ?4)";
            run(&tx.db, sql, params![job.id.as_str(), job.kind, tx.now, to_json(&job.data)])?;
            let sql = format!(
                "DELETE FROM jobs WHERE status IN {OVER} AND id NOT IN
                    (SELECT id FROM jobs ORDER BY create_at DESC, id LIMIT ?1)"
            );
            run(&tx.db, &sql, [KEPT_MAX])?;
            Ok(job)
        })?;
        self.0.jobs_changed.send_modify(|n| *n += 1);
        Ok(job)
    }

    /// Jobs by page, the newest first; of one type and status where named.
    ///
    /// # Errors
    /// 403 for others than system administrators, 400 for a status that there is not.
    pub(crate) fn jobs(&self, by: &Session, kind: &str, status: &str, page: u32, per_page: u32) -> AppResult<Vec<Job>> {
        require("getJobs", by, "manage_system")?;
        if !status.is_empty() && !STATUSES.contains(&status) {
            return Err(AppError::bad("getJobs", "api.job.status.invalid", "There is no such status."));
        }
        let sql = "SELECT * FROM jobs WHERE (?1 = '' OR type = ?1) AND (?2 = '' OR status = ?2)
            ORDER BY create_at DESC, id LIMIT ?3 OFFSET ?4";
        let (limit, offset) = crate::users::page(page, per_page);
        self.read(|db| Ok(all(db, sql, params![kind, status, limit, offset], job_row)?))
    }

    /// A job.
    ///
    /// # Errors
    /// 404.
    pub fn job(&self, job: Id) -> AppResult<Job> {
        self.read(|db| job_by_id(db, job))
    }

    /// Stops a job that waits or runs, as soon as it looks.
    ///
    /// # Errors
    /// 404, and 400 for one that is over.
    pub fn cancel_job(&self, job: Id) -> AppResult<()> {
        self.write(|tx| {
            job_by_id(&tx.db, job)?;
            let sql = "UPDATE jobs SET last_activity_at = ?2,
                    status = CASE status WHEN 'pending' THEN 'canceled' ELSE 'cancel_requested' END
                WHERE id = ?1 AND status IN ('pending', 'in_progress')";
            if run(&tx.db, sql, params![job.as_str(), tx.now])? == 0 {
                let message = "Could not request cancellation of a job that is not in a cancelable state.";
                return Err(AppError::bad(
                    "Jobs.RequestCancellation",
                    "jobs.request_cancellation.status.error",
                    message,
                ));
            }
            Ok(())
        })
    }

    /// Does the jobs that are asked for, one after the other, until `stop`.
    ///
    /// Cancel-safe: a job under way stops at its next look, and goes on at the next start.
    pub async fn keep_jobs(self, stop: CancellationToken) {
        let mut changed = self.0.jobs_changed.subscribe();
        let mut again = true;
        while !stop.is_cancelled() {
            changed.borrow_and_update();
            let (core, token) = (self.clone(), stop.clone());
            let resume = std::mem::take(&mut again);
            let done = tokio::task::spawn_blocking(move || core.next_job(resume, &token)).await;
            match done {
                Ok(Ok(true)) => continue,
                Ok(Ok(false)) => {}
                Ok(Err(error)) => tracing::warn!(%error, "jobs could not be looked at"),
                Err(error) => tracing::error!(%error, "a job ended early"),
            }
            tokio::select! {
                () = stop.cancelled() => return,
                _ = changed.changed() => {}
            }
        }
    }

    /// Does the job that has waited longest; false when none waits. `resume` takes those up again that an earlier process began.
    fn next_job(&self, resume: bool, stop: &CancellationToken) -> AppResult<bool> {
        let Some(job) = self.begin_job(resume)? else { return Ok(false) };
        tracing::info!(job = %job.id, kind = job.kind, "a job begins");
        let result = self.carry_out(&job, stop);
        if stop.is_cancelled() && matches!(result, Err(BulkError::Stopped { .. })) {
            // An end in good order says nothing against the job.
            self.write(|tx| {
                let mut known = job_by_id(&tx.db, job.id)?;
                known.data.remove(BEGUN);
                keep_data(&tx.db, &known)
            })?;
            return Ok(false);
        }
        let is_done = result.is_ok();
        self.end(&job, result)?;
        // Not before the end is noted: a job that is taken up again needs its archive.
        if is_done && job.data.get("then_delete").is_some_and(|value| value == "true") {
            remove(Path::new(job.data.get("file").map_or("", String::as_str)))?;
        }
        Ok(true)
    }

    /// Notes the job that has waited longest as begun; `None` when none waits.
    pub(crate) fn begin_job(&self, resume: bool) -> AppResult<Option<Job>> {
        self.write(|tx| {
            if resume {
                run(&tx.db, "UPDATE jobs SET status = 'pending' WHERE status = 'in_progress'", [])?;
                run(&tx.db, "UPDATE jobs SET status = 'canceled' WHERE status = 'cancel_requested'", [])?;
            }
            let sql = "SELECT * FROM jobs WHERE status = 'pending' ORDER BY create_at, id";
            for mut job in all(&tx.db, sql, [], job_row)? {
                let begun: u32 = job.data.get(BEGUN).and_then(|n| n.parse().ok()).unwrap_or(0);
                if begun >= BEGUN_MAX {
                    end_in(tx, &job, Err(BulkError::Fatal { times: begun }))?;
                    continue;
                }
                job.data.insert(BEGUN.to_owned(), (begun + 1).to_string());
                let sql = "UPDATE jobs SET status = 'in_progress', start_at = ?2, last_activity_at = ?2 WHERE id = ?1";
                run(&tx.db, sql, params![job.id.as_str(), tx.now])?;
                keep_data(&tx.db, &job)?;
                return Ok(Some(job));
            }
            Ok(None)
        })
    }

    fn carry_out(&self, job: &Job, stop: &CancellationToken) -> Result<String, BulkError> {
        let is = |name: &str| job.data.get(name).is_some_and(|value| value == "true");
        let mut told_at = 0;
        let mut watch = |progress: &BulkProgress| {
            if progress.phase == BulkPhase::Importing {
                self.wait_for_capture(job.id, stop);
            }
            let now = self.now().0;
            if now - told_at < TELL_EVERY_MS && now >= told_at && !stop.is_cancelled() {
                return ControlFlow::Continue(());
            }
            told_at = now;
            match self.note_progress(job.id, progress) {
                Ok(true) if !stop.is_cancelled() => ControlFlow::Continue(()),
                Ok(_) => ControlFlow::Break(()),
                Err(error) => {
                    tracing::warn!(%error, "the progress of a job could not be noted");
                    ControlFlow::Continue(())
                }
            }
        };
        let json = |report: Result<String, serde_json::Error>| report.map_err(|e| BulkError::Store(e.to_string()));
        if job.kind == EXPORT {
            let options = ExportOptions {
                attachments: is("include_attachments"),
                profile_pictures: is("include_profile_pictures"),
                archived_channels: is("include_archived_channels"),
            };
            let file = self.export_path(job.id);
            // Of this very job: the process ended after the archive had its name, before that was noted.
            remove(&file)?;
            let done = self.bulk_export(&file, options, &mut watch)?;
            return json(serde_json::to_string(&done));
        }
        let file = PathBuf::from(job.data.get("file").map_or("", String::as_str));
        if is("dry_run") {
            return json(serde_json::to_string(&self.bulk_check(&file, &mut watch)?));
        }
        let done = self.bulk_import(&file, ImportOptions { stay_here: is("stay_here") }, &mut watch)?;
        json(serde_json::to_string(&done))
    }

    /// Waits until few enough rows wait in the outbox. A journal that takes nothing holds the import up, not the node, and not
    /// whoever cancels it.
    fn wait_for_capture(&self, job: Id, stop: &CancellationToken) {
        let runtime = tokio::runtime::Handle::current();
        let is_behind = || {
            let sql = "SELECT 1 FROM outbox WHERE aside = 0 LIMIT 1 OFFSET ?1";
            self.read(|db| exists(db, sql, [ROWS_AHEAD_MAX])).unwrap_or(false)
        };
        let is_wanted = || self.job(job).is_ok_and(|job| job.status == "in_progress");
        let admits = || self.space().admits(model::Precedence::Deferred);
        while is_behind() && !stop.is_cancelled() && admits() && is_wanted() {
            runtime.block_on(async {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = tokio::time::sleep(LOOK_AGAIN) => {}
                }
            });
        }
    }

    /// Notes how far a job is; false when it shall stop.
    fn note_progress(&self, job: Id, progress: &BulkProgress) -> AppResult<bool> {
        self.write(|tx| {
            let mut known = job_by_id(&tx.db, job)?;
            if known.status != "in_progress" {
                return Ok(false);
            }
            let phase = serde_json::to_value(progress.phase).ok();
            let phase = phase.as_ref().and_then(|value| value.as_str()).unwrap_or_default();
            for (name, value) in [
                ("phase", phase.to_owned()),
                ("lines", progress.lines.to_string()),
                ("done_bytes", progress.done_bytes.to_string()),
                ("total_bytes", progress.total_bytes.to_string()),
            ] {
                known.data.insert(name.to_owned(), value);
            }
            // The look at the lines comes before the work, over the same bytes.
            let before = if progress.phase == BulkPhase::Checking { 0 } else { progress.total_bytes };
            let reached = before.saturating_add(progress.done_bytes);
            if known.data.get(REACHED).and_then(|n| n.parse().ok()).is_none_or(|furthest: u64| reached > furthest) {
                known.data.insert(REACHED.to_owned(), reached.to_string());
                known.data.insert(BEGUN.to_owned(), "1".to_owned());
            }
            let percent = progress.done_bytes.saturating_mul(100) / progress.total_bytes.max(1);
            let sql = "UPDATE jobs SET progress = ?2, data = ?3, last_activity_at = ?4 WHERE id = ?1";
            let percent = i64::try_from(percent.min(99)).unwrap_or(99);
            run(&tx.db, sql, params![job.as_str(), percent, to_json(&known.data), tx.now])?;
            Ok(true)
        })
    }

    fn end(&self, job: &Job, result: Result<String, BulkError>) -> AppResult<()> {
        self.write(|tx| end_in(tx, job, result))
    }
}

fn keep_data(db: &Connection, job: &Job) -> AppResult<()> {
    run(db, "UPDATE jobs SET data = ?2 WHERE id = ?1", params![job.id.as_str(), to_json(&job.data)])?;
    Ok(())
}

fn end_in(tx: &Tx<'_>, job: &Job, result: Result<String, BulkError>) -> AppResult<()> {
    let mut known = job_by_id(&tx.db, job.id)?;
    let mut note = |name: &str, value: String| known.data.insert(name.to_owned(), value);
    let status = match result {
        Ok(report) => {
            note("report", report);
            "success"
        }
        Err(error) => {
            note("error", error.to_string());
            note("next_step", error.next_step().to_owned());
            note("line_number", error.line().to_string());
            if let BulkError::Refused(checked) = &error {
                note("report", to_json(checked));
            }
            tracing::warn!(job = %job.id, %error, "a job did not come to its end");
            if matches!(error, BulkError::Stopped { .. }) { "canceled" } else { "error" }
        }
    };
    let progress = if status == "success" { 100 } else { known.progress };
    let sql = "UPDATE jobs SET status = ?2, progress = ?3, data = ?4, last_activity_at = ?5 WHERE id = ?1";
    let data = to_json(&known.data);
    run(&tx.db, sql, params![job.id.as_str(), status, progress, data, tx.now])?;
    Ok(())
}

fn remove(path: &Path) -> AppResult<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e.into()),
        Ok(()) | Err(_) => Ok(()),
    }
}
