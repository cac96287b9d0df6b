//! The one place that writes to standard output and standard error.

use std::io::{IsTerminal as _, Write as _};

use serde::Serialize;

use crate::exit::Failure;

/// Prints one line, or several, for the operator.
pub fn line(text: impl AsRef<str>) {
    // A reader that went away, such as `head`, is no failure of the verb.
    let _ = writeln!(std::io::stdout().lock(), "{}", text.as_ref());
}

/// Prints one object for a program: pretty, with its schema name in the field `schema`.
pub fn json(object: &impl Serialize) {
    line(serde_json::to_string_pretty(object).expect("output types have string keys only and cannot fail"));
}

/// Prints one object on one line, for streams of them.
pub fn json_line(object: &impl Serialize) {
    line(serde_json::to_string(object).expect("output types have string keys only and cannot fail"));
}

/// Tells the operator something beside the result.
pub fn note(text: impl AsRef<str>) {
    let _ = writeln!(std::io::stderr().lock(), "{}", text.as_ref());
}

/// Asks on standard error, without a line end.
pub fn ask(text: &str) {
    let mut err = std::io::stderr().lock();
    let _ = write!(err, "{text}");
    let _ = err.flush();
}

/// Writes raw bytes, for completions.
pub fn raw(bytes: &[u8]) {
    let _ = std::io::stdout().lock().write_all(bytes);
}

/// Says why a verb failed, and what to do.
pub fn failure(failure: &Failure, as_json: bool) {
    #[derive(Serialize)]
    struct Shown<'a> {
        schema: &'static str,
        error: &'a str,
        next_step: &'a str,
        exit_code: u8,
    }
    if as_json {
        let shown = Shown {
            schema: "holdfast.error/1",
            error: &failure.text,
            next_step: &failure.next_step,
            exit_code: failure.exit.code(),
        };
        note(serde_json::to_string_pretty(&shown).expect("strings and a number cannot fail"));
    } else {
        note(format!("holdfast: {}\n  next step: {}", failure.text.trim_end(), failure.next_step));
    }
}

/// Are both ends of the conversation a person?
pub fn is_interactive() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// A progress bar with bytes, rate and ETA on a terminal; nothing elsewhere.
pub fn progress(total_bytes: u64, what: &str) -> indicatif::ProgressBar {
    let target = match std::io::stderr().is_terminal() {
        true => indicatif::ProgressDrawTarget::stderr_with_hz(5),
        false => indicatif::ProgressDrawTarget::hidden(),
    };
    let bar = indicatif::ProgressBar::with_draw_target(Some(total_bytes), target);
    let style =
        indicatif::ProgressStyle::with_template("{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} ETA {eta}")
            .expect("the template is a literal that a test draws");
    bar.set_style(style.progress_chars("=> "));
    bar.set_message(what.to_owned());
    bar
}

/// A [`progress`] that a verb with `--json` does not draw.
pub struct Bar(indicatif::ProgressBar);

impl Bar {
    /// Nothing is drawn when `quiet`.
    pub fn new(what: &str, quiet: bool) -> Self {
        Self(if quiet { indicatif::ProgressBar::hidden() } else { progress(0, what) })
    }

    /// How far it is.
    pub fn at(&self, done_bytes: u64, total_bytes: u64) {
        self.0.set_length(total_bytes);
        self.0.set_position(done_bytes);
    }

    /// Takes it off the terminal.
    pub fn finish(&self) {
        self.0.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_progress_template_is_understood() {
        super::progress(1_000, "reading").inc(10);
    }
}
