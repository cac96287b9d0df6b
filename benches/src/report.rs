//! Rows and summary: gathered from the cases, printed as tables, written as JSON.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Map, Value};

use crate::Error;
use crate::machine::Machine;

/// How long and how large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scale {
    /// Seconds in all, in a debug build too: only shows that it works.
    Quick,
    /// Minutes in all.
    Normal,
    /// As long as it takes to believe a figure.
    Full,
}

impl Scale {
    /// The value for this scale.
    pub(crate) fn pick<T>(self, quick: T, normal: T, full: T) -> T {
        match self {
            Self::Quick => quick,
            Self::Normal => normal,
            Self::Full => full,
        }
    }
}

/// The figures that the targets speak of; `None` while their case did not run.
#[derive(Default, Serialize)]
pub(crate) struct Summary {
    /// Writes per second with 64 writers of 512 B, over those of a raw loop that syncs 64 such frames at once.
    pub(crate) append64_vs_raw: Option<f64>,
    /// The same over the fastest other store.
    pub(crate) append64_vs_best_rival: Option<f64>,
    /// Median latency of a single writer of 512 B over that of write and `fdatasync`.
    pub(crate) append1_p50_vs_fdatasync: Option<f64>,
    /// Seconds to open a journal of 10 million entries.
    pub(crate) open_10m_s: Option<f64>,
    /// The most resident megabytes (10^6) until then.
    pub(crate) open_10m_rss_mb: Option<f64>,
    /// Bytes in segments for one chat post.
    pub(crate) chat_entry_disk_bytes: Option<f64>,
    /// What a file that is shared again costs, as a share of its size.
    pub(crate) reshare_share: Option<f64>,
    /// Bytes stored for one word edited in a docx of 50 kB.
    pub(crate) docx_edit_bytes: Option<f64>,
    /// Bytes stored for 5 MB edited in a file of 100 MB, over what `zstd --patch-from` needs.
    pub(crate) patch_ratio: Option<f64>,
    /// Bytes of frames for a chat post that travels with 19 others, on a link with history.
    pub(crate) post_bytes_coalesced: Option<f64>,
    /// The same for one that travels alone.
    pub(crate) post_bytes_alone: Option<f64>,
    /// Both, after both sides were restarted.
    pub(crate) post_bytes_coalesced_restarted: Option<f64>,
    pub(crate) post_bytes_alone_restarted: Option<f64>,
    /// What a flash message that travels alone takes of the network, IP header included.
    pub(crate) flash_wire_bytes: Option<f64>,
}

/// A value, or why there is none, and what the reader must know about it.
#[derive(Clone, Debug)]
pub(crate) struct Figure {
    value: Option<f64>,
    note: Option<String>,
}

impl Figure {
    /// It was not measured, and why.
    pub(crate) fn missing(why: impl std::fmt::Display) -> Self {
        Self { value: None, note: Some(why.to_string()) }
    }

    /// The same with a remark.
    pub(crate) fn noted(self, note: impl Into<String>) -> Self {
        Self { note: Some(note.into()), ..self }
    }
}

impl From<f64> for Figure {
    fn from(value: f64) -> Self {
        Self { value: value.is_finite().then_some(value), note: None }
    }
}

/// One figure.
#[derive(Clone, Serialize)]
struct Row {
    case: &'static str,
    subject: String,
    #[serde(flatten)]
    params: Map<String, Value>,
    /// Absent where it was not measured; then the note says why.
    value: Option<f64>,
    unit: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

/// What the cases are given: how much to do, where, and whom to tell.
pub(crate) struct Bench<S = Summary> {
    pub(crate) scale: Scale,
    pub(crate) summary: S,
    /// Loads and subjects that were asked for; empty for all.
    pub(crate) loads: Vec<String>,
    pub(crate) subjects: Vec<String>,
    dir: PathBuf,
    machine: Machine,
    rows: Vec<Row>,
}

impl<S: Default + Serialize> Bench<S> {
    pub(crate) fn new(scale: Scale, dir: &Path) -> Result<Self, Error> {
        std::fs::create_dir_all(dir)?;
        let machine = Machine::here(dir);
        tell(&machine.line());
        Ok(Self {
            scale,
            summary: S::default(),
            loads: Vec::new(),
            subjects: Vec::new(),
            dir: dir.to_owned(),
            machine,
            rows: Vec::new(),
        })
    }

    /// An empty directory on the measured disk, gone when the value is dropped.
    pub(crate) fn scratch(&self) -> Result<tempfile::TempDir, Error> {
        Ok(tempfile::tempdir_in(&self.dir)?)
    }

    /// Adds a figure. `params` tell it from the other figures of the same subject.
    pub(crate) fn row(
        &mut self,
        case: &'static str,
        subject: impl Into<String>,
        params: &[(&str, Value)],
        value: f64,
        unit: &'static str,
    ) {
        self.figure(case, subject, params, value.into(), unit);
    }

    /// The same for a figure that may be missing.
    pub(crate) fn figure(
        &mut self,
        case: &'static str,
        subject: impl Into<String>,
        params: &[(&str, Value)],
        figure: Figure,
        unit: &'static str,
    ) {
        let params = params.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        let Figure { value, note } = figure;
        self.rows.push(Row { case, subject: subject.into(), params, value, unit, note });
    }

    /// Prints one table for each case, then the summary.
    pub(crate) fn print(&self) {
        let mut text = format!("{}\n", self.machine.line());
        let mut done = BTreeSet::new();
        for row in &self.rows {
            if done.insert(row.case) {
                text += &self.table(row.case);
            }
        }
        let summary = serde_json::to_value(&self.summary).unwrap_or_default();
        text += "\nsummary\n";
        for (name, value) in leaves("", &summary) {
            text += &format!("  {name:<26} {}\n", figure(value));
        }
        // Nobody to tell when stdout is closed.
        let _ = std::io::stdout().lock().write_all(text.as_bytes());
    }

    /// A line per subject and parameters, a column per unit.
    fn table(&self, case: &str) -> String {
        let rows: Vec<&Row> = self.rows.iter().filter(|row| row.case == case).collect();
        let mut units: Vec<&str> = Vec::new();
        let mut names: Vec<&String> = Vec::new();
        let mut keys: Vec<(&str, &Map<String, Value>)> = Vec::new();
        for row in &rows {
            if !units.contains(&row.unit) {
                units.push(row.unit);
            }
            names.extend(row.params.keys());
            if !keys.contains(&(row.subject.as_str(), &row.params)) {
                keys.push((&row.subject, &row.params));
            }
        }
        let names: BTreeSet<&String> = names.into_iter().collect();
        let head = names.iter().map(|name| name.as_str()).chain(["subject"]).chain(units.iter().copied()).chain([""]);
        let mut lines: Vec<Vec<String>> = vec![head.map(str::to_owned).collect()];
        for (subject, params) in keys {
            let text = |value: Option<&Value>| match value {
                Some(Value::String(text)) => text.clone(),
                Some(value) => value.to_string(),
                None => String::new(),
            };
            let mut line: Vec<String> = names.iter().map(|name| text(params.get(*name))).collect();
            line.push(subject.to_owned());
            for unit in &units {
                let row = rows.iter().find(|r| r.subject == subject && r.params == *params && r.unit == *unit);
                line.push(row.and_then(|row| row.value).map_or(String::new(), figure));
            }
            let own = rows.iter().filter(|r| r.subject == subject && r.params == *params);
            line.push(own.filter_map(|row| row.note.as_deref()).collect::<Vec<_>>().join("; "));
            lines.push(line);
        }
        let widths: Vec<usize> =
            (0..lines[0].len()).map(|i| lines.iter().map(|line| line[i].chars().count()).max().unwrap_or(0)).collect();
        let mut out = format!("\n{case}\n");
        for line in lines {
            let cells = line.iter().zip(&widths).enumerate().map(|(i, (cell, width))| match i == names.len() {
                true => format!("{cell:<width$}"),
                // Notes are as long as they are.
                false if i + 1 == line.len() => cell.clone(),
                false => format!("{cell:>width$}"),
            });
            out += &format!("  {}\n", cells.collect::<Vec<_>>().join("  ").trim_end());
        }
        out
    }

    /// Writes everything as JSON.
    pub(crate) fn write(&self, path: &Path) -> Result<(), Error> {
        #[derive(Serialize)]
        struct File<'a, S> {
            machine: &'a Machine,
            rows: &'a [Row],
            summary: &'a S,
        }
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        let file = File { machine: &self.machine, rows: &self.rows, summary: &self.summary };
        std::fs::write(path, serde_json::to_vec_pretty(&file)?)?;
        tell(&format!("written: {}", path.display()));
        Ok(())
    }
}

/// The numbers of a summary with their names, those of nested objects after the object's.
fn leaves(above: &str, value: &Value) -> Vec<(String, f64)> {
    let below = |name: &str| if above.is_empty() { name.to_owned() } else { format!("{above} {name}") };
    match value.as_object() {
        Some(object) => object.iter().flat_map(|(name, value)| leaves(&below(name), value)).collect(),
        None => value.as_f64().map(|value| (above.to_owned(), value)).into_iter().collect(),
    }
}

/// Progress, on stderr: stdout is for the tables.
pub(crate) fn tell(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// The middle value. 0 for none.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        n if n % 2 == 1 => sorted[n / 2],
        n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
    }
}

/// The value below which a share of `per_100` hundredths of the sorted values lies. 0 for none.
pub(crate) fn percentile(sorted: &[f64], per_100: usize) -> f64 {
    match sorted.len() {
        0 => 0.0,
        n => sorted[(n * per_100 / 100).min(n - 1)],
    }
}

/// Three significant digits, no exponent.
fn figure(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 1.0 || v == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_and_a_percentile_stays_within() {
        assert_eq!(median(&[5.0, 1.0, 3.0]), 3.0);
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), 2.5);
        assert_eq!(median(&[]), 0.0);
        assert_eq!(percentile(&[1.0, 2.0, 3.0], 50), 2.0);
        assert_eq!(percentile(&[1.0, 2.0, 3.0], 100), 3.0);
    }
}
