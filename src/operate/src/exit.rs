//! How a verb ends: exit codes, and failures that say what stayed intact and what to do next.

use std::process::ExitCode;

/// Exit codes of every verb. Numbers are part of the interface: scripts branch on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Ok = 0,
    /// It failed; the message says what stayed intact.
    Failed = 1,
    /// The command line is wrong; clap uses the same number.
    Usage = 2,
    /// Done, and something is not as it should be.
    Degraded = 3,
    /// The node does not run.
    NotRunning = 4,
    /// The configuration is missing or wrong.
    Config = 5,
    /// Another process has the data directory, or a node is there already.
    InUse = 6,
}

impl Exit {
    /// Every code.
    pub const ALL: [Self; 7] =
        [Self::Ok, Self::Failed, Self::Usage, Self::Degraded, Self::NotRunning, Self::Config, Self::InUse];

    /// The number.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// What it means, for `--help` and the manual.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Ok => "done; for status: healthy",
            Self::Failed => "failed; the message says what stayed intact and what to do",
            Self::Usage => "the command line is wrong",
            Self::Degraded => "done, but something is degraded or damaged; the output says what",
            Self::NotRunning => "the node does not run in this data directory",
            Self::Config => "the configuration is missing or wrong",
            Self::InUse => "another process has the data directory, or a node is already there",
        }
    }

    /// The table shown by `--help` and in docs/cli.md.
    pub fn table() -> String {
        let rows: Vec<String> = Self::ALL.iter().map(|e| format!("  {}  {}", e.code(), e.meaning())).collect();
        format!("Exit codes:\n{}", rows.join("\n"))
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// A verb that did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// How the process ends.
    pub exit: Exit,
    /// What failed and what stayed intact.
    pub text: String,
    /// What to do.
    pub next_step: String,
}

impl Failure {
    /// A failure with the code 1.
    pub fn new(text: impl Into<String>, next_step: impl Into<String>) -> Self {
        Self::with(Exit::Failed, text, next_step)
    }

    /// A failure with another code.
    pub fn with(exit: Exit, text: impl Into<String>, next_step: impl Into<String>) -> Self {
        Self { exit, text: text.into(), next_step: next_step.into() }
    }

    /// A file or directory that did not answer.
    pub fn io(what: &str, path: &std::path::Path, error: &std::io::Error) -> Self {
        Self::new(
            format!("{what} {} failed: {error}; nothing else was changed", path.display()),
            "check the path, its owner and the free space of its disk, then try again",
        )
    }
}

/// What a verb gives back.
pub type Done = Result<Exit, Failure>;

/// The text of an error with those beneath it, as one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        // Some errors repeat their source in their own text.
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        source = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_codes_count_up_from_zero_and_each_has_a_meaning() {
        for (at, exit) in Exit::ALL.iter().enumerate() {
            assert_eq!(usize::from(exit.code()), at);
            assert!(!exit.meaning().is_empty());
        }
    }
}
