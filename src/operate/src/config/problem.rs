//! What is wrong in a configuration file, and where.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::reference;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Problem {
    /// The file.
    pub file: PathBuf,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// The line itself.
    pub text: String,
    /// How many characters are meant, at least 1.
    pub width: usize,
    /// What would be right.
    pub help: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, column, message, text, width, help } = self;
        let gutter = line.to_string().len();
        // A tab under a tab keeps the mark in its column whatever the width of tabs.
        let indent: String = text.chars().take(column - 1).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        writeln!(f, "{}:{line}:{column}: {message}", file.display())?;
        writeln!(f, "{:gutter$} |", "")?;
        writeln!(f, "{line} | {text}")?;
        writeln!(f, "{:gutter$} | {indent}{}", "", "^".repeat(*width))?;
        match help {
            Some(help) => writeln!(f, "{:gutter$} = {help}", ""),
            None => Ok(()),
        }
    }
}

/// All problems, one after the other.
pub(super) fn report(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// A file's text, for finding places in it.
pub struct Source<'a> {
    file: &'a Path,
    text: &'a str,
}

impl<'a> Source<'a> {
    /// The text of `file`.
    pub fn new(file: &'a Path, text: &'a str) -> Self {
        Self { file, text }
    }

    fn at(&self, span: Range<usize>, message: String, help: Option<String>) -> Problem {
        let start = span.start.min(self.text.len());
        let line_start = self.text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = self.text[start..].find('\n').map_or(self.text.len(), |at| start + at);
        let end = span.end.clamp(start, line_end);
        Problem {
            file: self.file.to_owned(),
            line: self.text[..start].matches('\n').count() + 1,
            column: self.text[line_start..start].chars().count() + 1,
            message,
            text: self.text[line_start..line_end].trim_end().to_owned(),
            width: self.text[start..end].trim_end().chars().count().max(1),
            help,
        }
    }

    /// What the TOML parser or a room's type says.
    pub(super) fn toml_error(&self, error: &toml::de::Error) -> Problem {
        self.at(error.span().unwrap_or(0..0), error.message().trim_end().to_owned(), None)
    }

    /// A problem with the value of `key`, given as `section.name`; at the section, or the top, when it is not there.
    pub(super) fn at_key(&self, table: &DeTable<'_>, key: &str, message: String) -> Problem {
        let mut span = 0..0;
        let mut table = Some(table);
        for part in key.split('.') {
            let Some((name, value)) = table.and_then(|t| t.get_key_value(part)) else { break };
            table = match value.get_ref() {
                DeValue::Table(inner) => {
                    span = name.span();
                    Some(inner)
                }
                DeValue::String(_)
                | DeValue::Integer(_)
                | DeValue::Float(_)
                | DeValue::Boolean(_)
                | DeValue::Datetime(_)
                | DeValue::Array(_) => {
                    span = value.span();
                    None
                }
            };
        }
        self.at(span, message, None)
    }

    /// Keys that no section has, in the order of the file.
    pub(super) fn unknown_keys(&self, table: &DeTable<'_>) -> Vec<Problem> {
        let mut found = Vec::new();
        self.walk(table, "", &mut found);
        found.sort_by_key(|(at, _)| *at);
        found.into_iter().map(|(_, problem)| problem).collect()
    }

    fn walk(&self, table: &DeTable<'_>, path: &str, found: &mut Vec<(usize, Problem)>) {
        let known = reference::names_in(path);
        for (name, value) in table {
            let name_text: &str = name.get_ref();
            if let Some(known) = known.as_ref().filter(|known| !known.contains(&name_text)) {
                let place = if path.is_empty() { "in this file".to_owned() } else { format!("in [{path}]") };
                let help = match nearest(name_text, known) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None if path.is_empty() => format!("the sections are {}", known.join(", ")),
                    None => format!("[{path}] has the keys {}", known.join(", ")),
                };
                let message = format!("unknown key `{name_text}` {place}");
                found.push((name.span().start, self.at(name.span(), message, Some(help))));
                continue;
            }
            let inner = if path.is_empty() { name_text.to_owned() } else { format!("{path}.{name_text}") };
            self.walk_value(value.get_ref(), &inner, found);
        }
    }

    fn walk_value(&self, value: &DeValue<'_>, path: &str, found: &mut Vec<(usize, Problem)>) {
        match value {
            DeValue::Table(inner) if reference::is_section(path) => self.walk(inner, path, found),
            DeValue::Array(items) => items.iter().for_each(|item| self.walk_value(item.get_ref(), path, found)),
            // A table where a value belongs, and values, are judged by the room's type.
            DeValue::Table(_)
            | DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_) => {}
        }
    }
}

/// The known word that a typist most likely meant.
fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    // One slip per three letters, at least one: more is another word.
    let slips = (word.chars().count() / 3).max(1);
    let scored = known.iter().map(|k| (strsim::damerau_levenshtein(word, k), *k));
    scored.filter(|(distance, _)| *distance <= slips).min().map(|(_, k)| k)
}
