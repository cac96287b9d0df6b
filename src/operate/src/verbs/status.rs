//! `holdfast status`

use super::block_on;
use crate::admin::client;
use crate::exit::{Done, Exit};
use crate::layout::Layout;
use crate::status::{Status, render};
use crate::{config, offline, output};

pub(super) fn run(layout: &Layout, json: bool) -> Done {
    let settings = config::load(layout.data())?;
    let status = match block_on(client::get::<Status>(layout.data(), "/v1/status")) {
        Err(e) if e.exit == Exit::NotRunning => offline::status(layout, &settings)?,
        answer => answer?,
    };
    match json {
        true => output::json(&status),
        false => output::line(render(&status)),
    }
    Ok(match status.running {
        false => Exit::NotRunning,
        true if status.is_degraded() => Exit::Degraded,
        true => Exit::Ok,
    })
}
