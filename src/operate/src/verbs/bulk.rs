//! `holdfast core export` and `import`: a whole server as Mattermost's bulk data.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use mission::{
    BulkChecked, BulkError, BulkExported, BulkImported, BulkPhase, BulkProgress, ExportOptions, Findings, ImportOptions,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::block_on;
use crate::accounts::OfflineCore;
use crate::admin::client;
use crate::bulk::{BulkAsk, BulkJob};
use crate::cli::Core;
use crate::exit::{Done, Exit, Failure};
use crate::layout::Layout;
use crate::output::{self, Bar};
use crate::{config, show};

/// How often the node is asked how far it is.
const LOOK_AGAIN: Duration = Duration::from_millis(300);
/// Findings that are shown; `--json` has up to a thousand.
const SHOWN: usize = 50;

pub(super) fn run(layout: &Layout, verb: Core) -> Done {
    match verb {
        Core::Export { file, attachments, profile_pictures, archived, format } => {
            if file.exists() {
                return Err(Failure::new(
                    format!("{} exists; nothing was written", file.display()),
                    "name a file that does not exist, or move that one away",
                ));
            }
            let ask = BulkAsk::Export { attachments, profile_pictures, archived };
            let done = match job(layout, &ask, format.json) {
                Err(e) if e.exit == Exit::NotRunning => {
                    let options = ExportOptions { attachments, profile_pictures, archived_channels: archived };
                    offline(layout, format.json, |core, watch| core.bulk_export(&file, options, watch))?
                }
                job => take(job?, &file)?,
            };
            print(format.json, "holdfast.core-export/1", &done, || exported(&done, &file));
            Ok(Exit::Ok)
        }
        Core::Import { file, dry_run: true, stay_here, format } => {
            let file = absolute(&file)?;
            let ask = BulkAsk::Import { file: file.clone(), dry_run: true, stay_here };
            let checked = match job(layout, &ask, format.json) {
                Err(e) if e.exit == Exit::NotRunning => {
                    offline(layout, format.json, |core, watch| core.bulk_check(&file, watch))?
                }
                job => report::<BulkChecked>(job?)?,
            };
            print(format.json, "holdfast.core-check/1", &checked, || looked_at(&checked));
            Ok(if checked.errors.count == 0 { Exit::Ok } else { Exit::Degraded })
        }
        Core::Import { file, dry_run: false, stay_here, format } => {
            let file = absolute(&file)?;
            let ask = BulkAsk::Import { file: file.clone(), dry_run: false, stay_here };
            let done = match job(layout, &ask, format.json) {
                Err(e) if e.exit == Exit::NotRunning => {
                    let options = ImportOptions { stay_here };
                    offline(layout, format.json, |core, watch| core.bulk_import(&file, options, watch))?
                }
                job => report::<BulkImported>(job?)?,
            };
            print(format.json, "holdfast.core-import/1", &done, || imported(&done));
            Ok(Exit::Ok)
        }
    }
}

/// The node may have another working directory.
fn absolute(file: &Path) -> Result<std::path::PathBuf, Failure> {
    file.canonicalize().map_err(|e| Failure::io("reading", file, &e))
}

fn odd() -> Failure {
    Failure::new("the node answered something else", "use a `holdfast` of the same version as the running node")
}

/// Begins a job at the running node and waits for its end. Interrupted, the job stops too.
fn job(layout: &Layout, ask: &BulkAsk, quiet: bool) -> Result<BulkJob, Failure> {
    let send = |ask: BulkAsk| async move { client::post::<BulkJob>(layout.data(), "/v1/core/bulk", &ask).await };
    block_on(async {
        let mut job = send(ask.clone()).await?;
        let mut bar = Shown::new(quiet);
        while !job.is_over() {
            bar.at(&job.progress);
            let name = job.job.clone();
            let look = tokio::select! {
                () = tokio::time::sleep(LOOK_AGAIN) => BulkAsk::Look { job: name },
                _ = tokio::signal::ctrl_c() => BulkAsk::Cancel { job: name },
            };
            job = send(look).await.map_err(|e| lost(&e))?;
        }
        bar.finish();
        Ok(job)
    })
}

/// The node went away under a job. That must not look like a node that never ran: its files are not to be worked on behind its back.
fn lost(e: &Failure) -> Failure {
    let happened = match e.exit == Exit::NotRunning {
        true => "the node has stopped".to_owned(),
        false => format!("the node stopped answering: {}", e.text),
    };
    Failure::new(
        format!("{happened}; what was done stays done, and the job goes on when the node runs again"),
        "start the node; the same command then tells what is left",
    )
}

fn report<T: DeserializeOwned>(job: BulkJob) -> Result<T, Failure> {
    let report = job.report.clone();
    if job.status == "success" {
        return report.and_then(|report| serde_json::from_value(report).ok()).ok_or_else(odd);
    }
    let wrong: Option<BulkChecked> = report.and_then(|report| serde_json::from_value(report).ok());
    let text = job.error.unwrap_or_else(|| format!("the job ended as {}", job.status));
    let next = job.next_step.unwrap_or_else(|| "see the node's log".to_owned());
    Err(refused(text, next, wrong.as_ref()))
}

fn refused(mut text: String, next_step: String, wrong: Option<&BulkChecked>) -> Failure {
    if let Some(checked) = wrong {
        list(&mut text, "wrong", &checked.errors);
    }
    Failure::new(text, next_step)
}

/// Does it on the files of a node that does not run.
fn offline<T>(
    layout: &Layout,
    quiet: bool,
    work: impl FnOnce(&mission::Core, mission::Watch<'_>) -> Result<T, BulkError>,
) -> Result<T, Failure> {
    let settings = config::load(layout.data())?;
    let core = OfflineCore::open(layout, &settings)?;
    let mut bar = Shown::new(quiet);
    let mut watch = |progress: &BulkProgress| {
        bar.at(progress);
        ControlFlow::Continue(())
    };
    let done = work(core.core(), &mut watch);
    bar.finish();
    done.map_err(|e| {
        let wrong = if let BulkError::Refused(checked) = &e { Some(&**checked) } else { None };
        refused(e.to_string(), e.next_step().to_owned(), wrong)
    })
}

/// A bar for each phase.
struct Shown {
    phase: Option<BulkPhase>,
    bar: Bar,
    quiet: bool,
}

impl Shown {
    fn new(quiet: bool) -> Self {
        Self { phase: None, bar: Bar::new("waiting", true), quiet }
    }

    fn at(&mut self, progress: &BulkProgress) {
        if self.phase != Some(progress.phase) {
            self.bar.finish();
            let what = match progress.phase {
                BulkPhase::Checking => "looking at every line",
                BulkPhase::Importing => "importing",
                BulkPhase::Exporting => "exporting",
            };
            self.bar = Bar::new(what, self.quiet);
            self.phase = Some(progress.phase);
        }
        self.bar.at(progress.done_bytes, progress.total_bytes);
    }

    fn finish(&self) {
        self.bar.finish();
    }
}

/// What an export did, once its archive is where the operator wants it. One that did not come to its end has none.
fn take(job: BulkJob, to: &Path) -> Result<BulkExported, Failure> {
    let archive = job.archive.clone();
    let done = report(job)?;
    bring(&archive.ok_or_else(odd)?, to).map_err(|e| Failure::io("moving the archive to", to, &e))?;
    Ok(done)
}

/// Moves the archive, also onto another disk. What is there is not written over, and nothing is left there on failure.
fn bring(archive: &Path, to: &Path) -> io::Result<()> {
    let mut target = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
    if fs::rename(archive, to).is_ok() {
        return Ok(());
    }
    let copied = File::open(archive).and_then(|mut archive| io::copy(&mut archive, &mut target));
    if let Err(e) = copied.and_then(|_| target.sync_all()) {
        fs::remove_file(to)?;
        return Err(e);
    }
    fs::remove_file(archive)
}

fn print<T: Serialize>(json: bool, schema: &'static str, of: &T, text: impl FnOnce() -> String) {
    #[derive(Serialize)]
    struct Shown<'a, T> {
        schema: &'static str,
        #[serde(flatten)]
        of: &'a T,
    }
    match json {
        true => output::json(&Shown { schema, of }),
        false => output::line(text().trim_end()),
    }
}

fn counted(text: &mut String, counts: &BTreeMap<String, u64>) {
    for (kind, n) in counts {
        let _ = writeln!(text, "{n:>10}  {}", kind.replace('_', " "));
    }
}

fn list(text: &mut String, what: &str, findings: &Findings) {
    for finding in findings.first.iter().take(SHOWN) {
        let _ = write!(text, "\n  line {}: {}", finding.line, finding.text);
    }
    let more = findings.count.saturating_sub(findings.first.len().min(SHOWN) as u64);
    if more > 0 {
        let _ = write!(text, "\n  and {more} more that are {what}; --json has up to a thousand");
    }
}

fn looked_at(checked: &BulkChecked) -> String {
    let mut text = String::new();
    if !checked.generator.is_empty() {
        let _ = writeln!(text, "written by {}", checked.generator);
    }
    counted(&mut text, &checked.counts);
    let _ = writeln!(text, "{:>10}  in attachments", show::bytes(checked.attachment_bytes));
    let _ = write!(text, "{} lines are wrong", checked.errors.count);
    list(&mut text, "wrong", &checked.errors);
    let _ = write!(text, "\n{} will not be as they were", checked.warnings.count);
    list(&mut text, "not as they were", &checked.warnings);
    text
}

fn imported(done: &BulkImported) -> String {
    let mut text = String::new();
    if done.added.is_empty() && done.changed.is_empty() {
        text.push_str("nothing was added: everything in the archive is here already\n");
    } else {
        text.push_str("added\n");
        counted(&mut text, &done.added);
    }
    if !done.changed.is_empty() {
        text.push_str("changed\n");
        counted(&mut text, &done.changed);
    }
    let mut warnings = done.checked.warnings.clone();
    warnings.count += done.warnings.count;
    warnings.first.extend(done.warnings.first.iter().cloned());
    let _ = write!(text, "{} are not as they were", warnings.count);
    list(&mut text, "not as they were", &warnings);
    if done.without_password > 0 {
        let _ = write!(
            text,
            "\n{} people have no password: `holdfast user password NAME` sets one, `holdfast directory enroll NAME` makes a link",
            done.without_password
        );
    }
    text
}

fn exported(done: &BulkExported, file: &Path) -> String {
    let mut text = format!("{} were written to {}\n", show::bytes(done.bytes), file.display());
    counted(&mut text, &done.counts);
    if done.missing_files > 0 {
        let _ = writeln!(text, "{} attachments are left out: their bytes are not here", done.missing_files);
    }
    text.push_str("the archive is not sealed: whoever can read it reads everything in it");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_export_that_failed_says_why_and_leaves_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("out.zip");
        let archive = Some(dir.path().join("nowhere.zip"));
        let job = |status: &str| BulkJob { status: status.to_owned(), archive: archive.clone(), ..BulkJob::default() };
        let failed = take(BulkJob { error: Some("the node is short of space".to_owned()), ..job("error") }, &to);
        assert!(failed.unwrap_err().text.contains("short of space"));
        assert!(!to.exists());
        let done = BulkJob { report: serde_json::to_value(BulkExported::default()).ok(), ..job("success") };
        assert!(take(done, &to).unwrap_err().text.contains("moving the archive"));
        assert!(!to.exists(), "half of a file was left");
    }

    #[test]
    fn a_node_that_goes_away_is_no_node_that_does_not_run() {
        // An import was carried on offline while its node was starting again, and kept it from its files.
        let gone = lost(&Failure::with(Exit::NotRunning, "no node runs; nothing was changed", "start it"));
        assert_eq!(gone.exit, Exit::Failed);
        assert!(gone.text.contains("stays done") && !gone.text.contains("nothing was changed"));
    }
}
