//! `holdfast config check`

use serde::Serialize;

use crate::cli::Config;
use crate::config::{ConfigError, Problem, load};
use crate::exit::{Done, Exit};
use crate::layout::Layout;
use crate::output;

#[derive(Serialize)]
struct Checked<'a> {
    schema: &'static str,
    file: String,
    ok: bool,
    problems: &'a [Problem],
}

pub(super) fn run(layout: &Layout, Config::Check(format): Config) -> Done {
    let file = layout.config().display().to_string();
    let checked =
        |ok, problems| output::json(&Checked { schema: "holdfast.config-check/1", file: file.clone(), ok, problems });
    match load(layout.data()) {
        Ok(_) if format.json => checked(true, &[]),
        Ok(_) => output::line(format!("{file} is good")),
        Err(ConfigError::Wrong(problems)) if format.json => {
            checked(false, &problems);
            return Ok(Exit::Config);
        }
        Err(e) => return Err(e.into()),
    }
    Ok(Exit::Ok)
}
