//! Probes Entra and Graph, listens to what real calls show, and tells whoever waits.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, header};
use model::Precedence;
use telemetry::{MicrosoftDestination, MicrosoftProbe, MicrosoftReach, MicrosoftService, Verdict};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::call::{Failure, Scope};
use super::{Graph, VERSION, refusal};
use crate::entra::{Advice, NoToken, Who, discovery};
use crate::environment::{GraphEnvironment, HeldBecause};
use crate::reach::{Evidence, Reach, Watch};
use crate::transport::{Lost, Out, Transport};

/// Probes are small, and whoever is urgent waits for what they show.
const PRECEDENCE: Precedence = Precedence::Priority;

/// Largest answer to a probe: what a captive portal sends instead is not read to its end.
const PROBE_BYTES_MAX: usize = 64 * 1024;

/// The application's token is asked for so often while nothing else does: it shows that the credential still works.
const TOKEN_LOOK: Duration = Duration::from_secs(15 * 60);

/// What the client knows of its reach.
pub(crate) struct Reaching {
    watch: Mutex<Watch>,
    shown: watch::Sender<Reach>,
    /// Somebody probes: only then may a destination that is down hold calls back, since nothing else would end that.
    kept: AtomicBool,
    noted: Notify,
    transport: Arc<Transport>,
    environment: GraphEnvironment,
}

impl Reaching {
    pub(crate) fn new(every: Duration, transport: Arc<Transport>, environment: GraphEnvironment) -> Self {
        let (now, wall) = (environment.timer.now(), environment.clock.now());
        let watch = Watch::new(every, now, wall);
        let shown = watch::Sender::new(watch.shown(now, None, |_| wall));
        let (kept, noted) = (AtomicBool::new(false), Notify::new());
        Self { watch: Mutex::new(watch), shown, kept, noted, transport, environment }
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Reach> {
        self.shown.subscribe()
    }

    /// May a call to `service` be made?
    pub(crate) fn gate(&self, service: MicrosoftService) -> Result<(), Gate> {
        let mut watch = self.lock();
        if self.kept.load(Ordering::Relaxed) && watch.graph.state() == MicrosoftReach::Down && !watch.graph.is_held() {
            let why = watch.graph.shown().why.unwrap_or_else(|| "Microsoft Graph does not answer".to_owned());
            return Err(Gate::Down(why));
        }
        watch.circuit(service).held_until(self.environment.timer.now()).map_or(Ok(()), |until| Err(Gate::Until(until)))
    }

    /// A probe or a call showed something about a destination.
    pub(crate) fn note(&self, destination: MicrosoftDestination, evidence: Evidence) {
        let (now, wall) = (self.environment.timer.now(), self.environment.clock.now());
        let jitter = self.environment.fraction();
        let changed = self.lock().machine(destination).note(evidence, now, wall, jitter);
        if changed {
            let shown = self.lock().machine(destination).shown();
            let (state, why) = (shown.state.as_str(), shown.why.unwrap_or_default());
            info!(destination = destination.as_str(), state, why, "the way to Microsoft 365 has changed");
        }
        self.noted.notify_one();
        self.publish();
    }

    /// Nothing may leave: that is known of both without a probe.
    fn note_held(&self, held: &HeldBecause) {
        for destination in [MicrosoftDestination::Entra, MicrosoftDestination::Graph] {
            self.note(destination, evidence(held.clone()));
        }
    }

    /// Is it known of both that nothing may leave?
    fn is_held(&self) -> bool {
        let watch = self.lock();
        watch.entra.is_held() && watch.graph.is_held()
    }

    /// A service behind Graph did its work, or met a fault of its own.
    pub(crate) fn note_service(&self, service: MicrosoftService, well: bool) {
        let now = self.environment.timer.now();
        self.lock().circuit(service).note(well, now);
        self.publish();
    }

    /// The application got a token, or was refused one.
    pub(crate) fn note_sign_in(&self, refused: Option<&crate::entra::EntraError>) {
        self.lock().sign_in = refused.map(ToString::to_string);
        let verdict = match refused {
            None => Verdict::ok("the application signs in"),
            Some(e) => Verdict::degraded(e.to_string(), next_step(e.advice)),
        };
        self.environment.health.report("microsoft-sign-in", verdict);
        self.publish();
    }

    fn publish(&self) {
        let (now, wall) = (self.environment.timer.now(), self.environment.clock.now());
        let ahead = self.transport.skew_seconds();
        let wall_of = |at: Duration| {
            let millis = i64::try_from(at.saturating_sub(now).as_millis()).unwrap_or(i64::MAX / 2);
            model::UnixMillis(wall.0.saturating_add(millis))
        };
        let reach = self.lock().shown(now, ahead, wall_of);
        for (destination, seen) in
            [(MicrosoftDestination::Entra, &reach.entra), (MicrosoftDestination::Graph, &reach.graph)]
        {
            self.environment.metrics.set_microsoft_reach(destination, seen.state);
            let name = format!("microsoft-{}", destination.as_str());
            let why = seen.why.as_deref().unwrap_or("it answers");
            let verdict = match seen.state {
                MicrosoftReach::Up => Verdict::ok("it answers"),
                MicrosoftReach::Probing => {
                    Verdict::degraded(format!("not known yet: {why}"), "wait for the next probes")
                }
                MicrosoftReach::Degraded => Verdict::degraded(format!("it answers now and then: {why}"), NOTHING_TO_DO),
                MicrosoftReach::Down => Verdict::degraded(format!("not reachable: {why}"), NOTHING_TO_DO),
            };
            self.environment.health.report(&name, verdict);
        }
        self.shown.send_if_modified(|shown| {
            let changed = *shown != reach;
            *shown = reach;
            changed
        });
    }

    fn lock(&self) -> MutexGuard<'_, Watch> {
        // Whatever a holder that panicked left is corrected by the next probe.
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const NOTHING_TO_DO: &str =
    "nothing is lost: delivery goes on by itself; check the uplink, proxy and [microsoft] if it should be up";

fn next_step(advice: Advice) -> &'static str {
    match advice {
        Advice::Retry => "wait: it is tried again",
        Advice::AskAPerson => {
            "have an administrator consent to the application, or somebody sign in: `holdfast m365 sign-in`"
        }
        Advice::FixConfiguration => "correct section [microsoft], then restart the node",
    }
}

/// Why a call is not made.
pub(crate) enum Gate {
    /// Graph is down.
    Down(String),
    /// The service failed; it is left alone until then.
    Until(Duration),
}

/// The service that a scope belongs to.
pub(crate) fn service_of(scope: &Scope) -> MicrosoftService {
    match scope {
        Scope::Channel { .. } | Scope::Chat(_) | Scope::Notifications => MicrosoftService::Teams,
        Scope::Mailbox(_) => MicrosoftService::Outlook,
        Scope::Drive(_) => MicrosoftService::SharePoint,
        Scope::Directory => MicrosoftService::Directory,
        Scope::Planner => MicrosoftService::Planner,
        Scope::Tenant => MicrosoftService::Other,
    }
}

impl Graph {
    /// What is known of the way to Microsoft 365, as it changes. Delivery runs while [`Reach::may_deliver`] says so.
    pub fn reach(&self) -> watch::Receiver<Reach> {
        self.0.reaching.subscribe()
    }

    /// Probes Entra and Graph until `stop`: about 6 KB each time over a connection of its own, seldom while calls show the
    /// same. Nothing is sent that the budget does not grant.
    pub async fn keep_reach(self, stop: CancellationToken) {
        let reaching = &self.0.reaching;
        reaching.kept.store(true, Ordering::Relaxed);
        let mut token_looked: Option<Duration> = None;
        while !stop.is_cancelled() {
            let noted = reaching.noted.notified();
            let (entra_due, graph_due) = {
                let watch = reaching.lock();
                (watch.entra.due(), watch.graph.due())
            };
            let now = self.now();
            let round = async {
                if entra_due <= now {
                    self.probe(MicrosoftDestination::Entra).await;
                }
                if graph_due <= now {
                    self.probe(MicrosoftDestination::Graph).await;
                }
                let up = reaching.shown.borrow().may_deliver();
                let due = token_looked.is_none_or(|at| now >= at + TOKEN_LOOK);
                if up && (due || self.0.entra.misses_keys()) {
                    token_looked = Some(now);
                    self.look_after_tokens().await;
                }
                if entra_due.min(graph_due) > now {
                    tokio::select! {
                        () = self.0.environment.timer.until(entra_due.min(graph_due)) => {}
                        () = noted => {}
                    }
                }
            };
            let silent = reaching.is_held();
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                held = self.0.transport.silenced(), if !silent => reaching.note_held(&held),
                () = round => {}
            }
        }
        reaching.kept.store(false, Ordering::Relaxed);
    }

    /// Asks for the application's token, and for new signing keys where people sign in with tokens.
    async fn look_after_tokens(&self) {
        match self.0.entra.token(&Who::App, PRECEDENCE, None).await {
            Ok(_) => self.0.reaching.note_sign_in(None),
            Err(NoToken::Refused(refusal)) => self.0.reaching.note_sign_in(Some(&refusal)),
            Err(NoToken::Held(_) | NoToken::Broken(_)) => {}
        }
        if self.0.entra.needs_keys()
            && let Err(e) = self.0.entra.refresh_keys(PRECEDENCE).await
        {
            debug!(error = %e, "Entra's signing keys were not fetched; those at hand stay in use");
        }
    }

    async fn probe(&self, destination: MicrosoftDestination) {
        let seen = match destination {
            MicrosoftDestination::Entra => self.probe_entra().await,
            MicrosoftDestination::Graph => self.probe_graph().await,
        };
        let outcome = match &seen {
            Evidence::Good => MicrosoftProbe::Good,
            Evidence::Bad(_) => MicrosoftProbe::Bad,
            Evidence::Held(_) => MicrosoftProbe::Held,
        };
        debug!(destination = destination.as_str(), outcome = outcome.as_str(), "probed");
        self.0.environment.metrics.microsoft_probes_total.inc((destination, outcome));
        self.0.reaching.note(destination, seen);
    }

    /// The tenant's own discovery document is what only the real Entra serves.
    async fn probe_entra(&self) -> Evidence {
        match self.0.entra.discover(PRECEDENCE).await {
            Ok(_) => Evidence::Good,
            Err(NoToken::Held(held)) => evidence(held),
            Err(NoToken::Refused(refusal)) => Evidence::Bad(refusal.to_string()),
            Err(NoToken::Broken(why)) => Evidence::Bad(why),
        }
    }

    /// Without a token Graph's front door answers 401 with a code and an id of its own.
    async fn probe_graph(&self) -> Evidence {
        let mut url = self.settings().hosts.graph.clone();
        url.set_path(&format!("{VERSION}/me"));
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        let (method, body) = (Method::GET, None);
        let out = Out { method, url, headers, body, precedence: PRECEDENCE, answer_bytes_max: PROBE_BYTES_MAX };
        let came = match self.0.transport.send(out).await {
            Ok(came) => came,
            Err(Lost::NotSent(held)) => return evidence(held),
            Err(Lost::Unknown(why)) => return Evidence::Bad(why),
            Err(Lost::TooLarge(_)) => return Evidence::Bad("what answers at the Graph host is not Graph".to_owned()),
        };
        let status = came.status.as_u16();
        let is_json = discovery::is_json(&came.headers);
        let refused = refusal(came, "probe", None);
        match status {
            401 if is_json && refused.has_code("InvalidAuthenticationToken") && refused.request_id.is_some() => {
                Evidence::Good
            }
            503 | 504 | 429 => Evidence::Bad(format!("Graph answers {status}")),
            _ => Evidence::Bad(format!("what answers at the Graph host is not Graph (status {status})")),
        }
    }

    /// What a call that ended without an answer of Graph shows.
    pub(super) fn note_failure(&self, failure: &Failure) {
        if let Failure::Held(HeldBecause::Unreachable(why)) | Failure::Unknown(why) = failure {
            self.0.reaching.note(MicrosoftDestination::Graph, Evidence::Bad(why.clone()));
        }
    }
}

fn evidence(held: HeldBecause) -> Evidence {
    match held {
        HeldBecause::Unreachable(why) => Evidence::Bad(why),
        HeldBecause::Emission => Evidence::Held("emission control forbids sending".to_owned()),
        HeldBecause::OverBudget => Evidence::Held("no budget is left".to_owned()),
    }
}
