//! The two sites of the demo and the link between them, in this process.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::relay::{Controls, Relay};
use super::report::{Ledger, Waiting};
use super::{DemoError, Side, Sites};

/// The sites, started.
pub(super) struct Local {
    api: [SocketAddr; 2],
}

/// Starts the hub, then the link towards it, then the edge that dials the link.
pub(super) async fn start(
    controls: Controls,
    seed: u64,
    tasks: &mut JoinSet<()>,
    stop: &CancellationToken,
) -> Result<(Local, Relay), DemoError> {
    let failed = |what| move |e: std::io::Error| DemoError::Start { what, reason: e.to_string() };
    let hub = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let relay = Relay::start(hub, controls, seed, tasks, stop.child_token()).await.map_err(failed("link"))?;
    Ok((Local { api: [relay.front, hub] }, relay))
}

impl Sites for Local {
    fn api(&self, side: Side) -> SocketAddr {
        self.api[side as usize]
    }

    fn ledger(&self, _from: Side) -> Result<Ledger, DemoError> {
        Ok(Ledger::default())
    }

    fn backlog(&self, _from: Side) -> Result<Vec<Waiting>, DemoError> {
        Ok(Vec::new())
    }
}
