//! The two sites of the demo and the link between them, in this process and in a temporary directory.
//!
//! They are what `holdfast edge` and `holdfast hub` start, with an enrolment by token as an operator would do it,
//! except that the edge is told to dial the emulated link.

use std::fmt::Display;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use capture::{CaptureSettings, ChannelKind, ReleaseRule};
use carrier::{CarrierSettings, SystemClock};
use edge::{Environment, Site, SiteConfig};
use hub::Hub;
use mission::CoreSettings;
use model::{BitsPerSecond, Clock as _, Label, Precedence};
use telemetry::{Health, Metrics};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::relay::{Controls, Relay};
use super::report::{Ledger, Waiting};
use super::{DemoError, Side, Sites};

/// The label under which the demo's teams and channels leave; peers get it by default.
const LABEL: &str = "mission";

/// The enrolment token is used seconds after it is made.
const TOKEN_VALID: Duration = Duration::from_secs(600);

/// A post that arrives later than this is marked late. The demo's outage is short, so that this is too.
const LATE_AFTER_SECONDS: u32 = 3;

/// The sites and the link, started and not yet acquainted.
pub(super) struct Local {
    edge: Site,
    hub: Hub,
    /// The link between them.
    pub(super) relay: Relay,
    /// Removed with everything in it when the demo ends.
    _dir: TempDir,
}

/// Starts the hub, then the link towards it, then the edge.
///
/// # Errors
/// When one of them does not start.
pub(super) async fn start(
    controls: Controls,
    seed: u64,
    tasks: &mut JoinSet<()>,
    stop: &CancellationToken,
) -> Result<Local, DemoError> {
    let dir = tempfile::Builder::new().prefix("holdfast-demo-").tempdir().map_err(failed("temporary directory"))?;
    let hub = Hub::start(config(dir.path(), Side::Hub, controls.rate)?, environment()).await.map_err(failed("hub"))?;
    let back = hub.site().carrier().local_addr().ok_or_else(|| failed("hub")("it does not listen for edges"))?;
    let relay = Relay::start(back, controls, seed, tasks, stop.child_token()).await.map_err(failed("link"))?;
    let edge =
        Site::start(config(dir.path(), Side::Edge, controls.rate)?, environment()).await.map_err(failed("edge"))?;
    Ok(Local { edge, hub, relay, _dir: dir })
}

fn failed<E: Display>(what: &'static str) -> impl FnOnce(E) -> DemoError {
    move |error| DemoError::Start { what, reason: error.to_string() }
}

fn config(dir: &Path, side: Side, rate: BitsPerSecond) -> Result<SiteConfig, DemoError> {
    let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let release = ReleaseRule {
        label: LABEL.parse::<Label>().map_err(failed("configuration"))?,
        teams: vec!["*".to_owned()],
        channels: vec!["*".to_owned()],
        kinds: vec![ChannelKind::Open, ChannelKind::Private, ChannelKind::Direct, ChannelKind::Group],
    };
    let data_dir = dir.join(side.to_string());
    let mut nobody = keys::Surroundings { credentials: None, ask: &mut || None };
    let keyring = edge::open_keyring(&data_dir, &keys::KeysSettings::default(), &mut nobody, SystemClock.now());
    Ok(SiteConfig {
        data_dir,
        name: side.to_string().parse().map_err(failed("configuration"))?,
        api_listen: any_port,
        core: CoreSettings { late_after_seconds: LATE_AFTER_SECONDS, ..CoreSettings::default() },
        http: mission::http::HttpSettings::default(),
        journal: journal::JournalSettings::default(),
        scrub: journal::ScrubSettings::default(),
        data_keys: keyring.map_err(failed("keyring"))?.data_keys(),
        microsoft: None,
        directory: None,
        capture: CaptureSettings { release: vec![release], directory: true, ..CaptureSettings::default() },
        carrier: CarrierSettings {
            listen: (side == Side::Hub).then_some(any_port),
            rate,
            ..CarrierSettings::default()
        },
    })
}

fn environment() -> Environment {
    let clock = Arc::new(SystemClock);
    Environment { clock: clock.clone(), metrics: Arc::new(Metrics::new()), health: Health::new(clock) }
}

impl Local {
    /// Enrols the edge at the hub, across the link.
    ///
    /// # Errors
    /// When the hub does not admit it.
    pub(super) async fn enroll(&self) -> Result<(), DemoError> {
        let name = self.edge.config().name.clone();
        let address = self.relay.front.to_string();
        let invitation = self.hub.invite(&name, Some(&address), TOKEN_VALID).map_err(failed("enrolment"))?;
        self.edge.join(&invitation.token.0, TOKEN_VALID).await.map_err(failed("enrolment")).map(drop)
    }

    /// Stops both sites and removes their data.
    pub(super) async fn stop(self) {
        self.edge.stop().await;
        self.hub.stop().await;
    }

    fn site(&self, side: Side) -> &Site {
        match side {
            Side::Edge => &self.edge,
            Side::Hub => self.hub.site(),
        }
    }

    fn equation(&self, from: Side) -> Result<Option<edge::Equation>, DemoError> {
        let peer = self.site(from.other()).node();
        self.site(from).equation(peer).map_err(|e| DemoError::Figures { side: from, reason: e.to_string() })
    }
}

impl Sites for Local {
    fn api(&self, side: Side) -> SocketAddr {
        self.site(side).api()
    }

    fn ledger(&self, from: Side) -> Result<Ledger, DemoError> {
        let Some(equation) = self.equation(from)? else { return Ok(Ledger::default()) };
        let total = &equation.journal.total;
        Ok(Ledger {
            accepted: equation.accepted(),
            applied: total.applied,
            held: equation.held(),
            quarantined: total.quarantined,
            expired: total.expired,
            superseded: total.superseded,
            withheld: total.withheld,
            purged: total.purged,
        })
    }

    fn backlog(&self, from: Side) -> Result<Vec<Waiting>, DemoError> {
        let Some(equation) = self.equation(from)? else { return Ok(Vec::new()) };
        let waiting = Precedence::ALL.into_iter().map(|class| {
            let sums = &equation.journal.by_class[class.index()];
            Waiting { class, entries: sums.held, bytes: sums.held_bytes, eta_seconds: None }
        });
        Ok(waiting.filter(|waiting| waiting.entries > 0).collect())
    }

    fn stored(&self, side: Side) -> Result<serde_json::Value, DemoError> {
        let unread = |reason: String| DemoError::Figures { side, reason };
        let snapshot = self.site(side).core().export_snapshot().map_err(|e| unread(e.to_string()))?;
        serde_json::to_value(snapshot).map_err(|e| unread(e.to_string()))
    }

    fn set_rate(&self, rate: BitsPerSecond) -> Result<(), DemoError> {
        for side in Side::BOTH {
            let peer = self.site(side.other()).node();
            let set = self.site(side).carrier().set_rate(peer, rate);
            set.map_err(|e| DemoError::Figures { side, reason: e.to_string() })?;
        }
        Ok(())
    }
}
