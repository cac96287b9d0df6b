//! `holdfast simulate`

use super::block_on;
use crate::admin::client;
use crate::config;
use crate::exit::{Done, Exit};
use crate::layout::Layout;
use crate::simulate::{Forecast, SimulateRequest};
use crate::{output, show};

pub(super) fn run(layout: &Layout, to: String, link: String, hours: u32, json: bool) -> Done {
    config::load(layout.data())?;
    let request = SimulateRequest { to, link, hours };
    let forecast: Forecast = block_on(client::post(layout.data(), "/v1/simulate", &request))?;
    match json {
        true => output::json(&forecast),
        false => screen(&forecast).iter().for_each(output::line),
    }
    Ok(Exit::Ok)
}

fn screen(forecast: &Forecast) -> Vec<String> {
    let Forecast { to, link, hours, files, files_across, .. } = forecast;
    let mut lines = vec![format!("{to} over {link}, {hours} h at most; nothing was sent")];
    lines.push(match (forecast.all_seconds, forecast.cut_short_at_seconds) {
        (Some(0), _) => "nothing is to cross".to_owned(),
        (Some(seconds), _) => format!("everything is across after {}", show::seconds(seconds)),
        (None, Some(at)) => format!("it took too long to find out: looked {} ahead", show::seconds(at)),
        (None, None) => "not everything is across within that time".to_owned(),
    });
    let seconds = |at: Option<f64>| at.map_or("-".to_owned(), |at| format!("{at:.1} s"));
    lines.push(format!("  {:<10} {:>8} {:>8} {:>12} {:>12}", "class", "entries", "across", "first", "all"));
    for class in forecast.classes.iter().filter(|class| class.entries + class.across > 0) {
        let (first, all) = (seconds(class.first_seconds), seconds(class.all_seconds));
        lines.push(format!("  {:<10} {:>8} {:>8} {first:>12} {all:>12}", class.class, class.entries, class.across));
    }
    if *files > 0 {
        let all = forecast.files_seconds.map_or("-".to_owned(), show::seconds);
        lines.push(format!("  {:<10} {files:>8} {files_across:>8} {:>12} {all:>12}", "files", ""));
    }
    let (there, back) = (show::bytes(forecast.wire_bytes), show::bytes(forecast.wire_bytes_back));
    lines.push(format!("  {there} on the link, {back} back, headers and repetitions included"));
    lines
}
