//! `holdfast link`: emission control.

use serde::Serialize;

use super::block_on;
use crate::admin::{EmissionChange, client};
use crate::cli::Link;
use crate::exit::{Done, Exit, Failure, chain};
use crate::layout::Layout;
use crate::{config, lock, output};
use carrier::Emission;

#[derive(Serialize)]
struct Shown {
    schema: &'static str,
    emission: Emission,
}

pub(super) fn run(layout: &Layout, verb: Link) -> Done {
    config::load(layout.data())?;
    match verb {
        Link::Silence { receive: true } => set(layout, Emission::ReceiveOnly),
        Link::Silence { receive: false } => set(layout, Emission::Silent),
        Link::Resume => set(layout, Emission::Normal),
        Link::Status(format) => {
            let emission = Emission::load(layout.data());
            match format.json {
                true => output::json(&Shown { schema: "holdfast.emission/1", emission }),
                false => output::line(format!("emission {emission}")),
            }
            Ok(Exit::Ok)
        }
    }
}

fn set(layout: &Layout, mode: Emission) -> Done {
    let change = EmissionChange { mode };
    match block_on(client::post::<()>(layout.data(), "/v1/emission", &change)) {
        Ok(()) => output::line(format!("emission {mode}, in force")),
        Err(e) if e.exit == Exit::NotRunning => {
            // The lock keeps a node from starting between the question and the answer.
            let _lock = lock::take(layout.data())?;
            mode.save(layout.data()).map_err(|e| Failure::new(chain(&e), "check the disk, then try again"))?;
            output::line(format!("emission {mode}, from the node's next start"));
        }
        Err(e) => return Err(e),
    }
    Ok(Exit::Ok)
}
