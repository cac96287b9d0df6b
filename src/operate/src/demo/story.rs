//! The course of events: together, apart, together again, compared.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::client::{Api, Meter};
use super::local::Local;
use super::page::Page;
use super::relay::{Direction, Relay};
use super::report::{LinkFacts, PerDirection, Report, SCHEMA, Waiting, human_bytes, with_etas};
use super::script::{Content, Plan, Player, Volume};
use super::watch::Watch;
use super::{Console, DemoError, Options, Side, Sites, compare, interrupted};
use crate::output;

/// How often figures are read while waiting.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// How often an awaited post is looked for: the resolution of the urgent message's time.
const GLANCE_EVERY: Duration = Duration::from_millis(50);

/// Progress is printed after this long, then ever less often, so that a slow link does not fill the screen.
const PROGRESS_AFTER: Duration = Duration::from_secs(4);

/// Bytes on the wire after which the file is taken to be crossing: about two seconds of the default link.
const BULK_IS_FLOWING_BYTES: u64 = 64_000;

/// If that much has not crossed by then, the urgent message is written anyway.
const BULK_WAIT_MAX: Duration = Duration::from_secs(20);

/// Time to settle beyond twice what the backlog needs at the link's rate: set-up, idle probes, busy machines.
const SETTLE_GRACE: Duration = Duration::from_secs(180);

/// Differences that are printed; the count says how many there are.
const DIFFERENCES_SHOWN: usize = 10;

/// The mission in progress, with everything that looks at it.
pub(super) struct Stage {
    pub(super) console: Console,
    pub(super) sites: Arc<dyn Sites>,
    pub(super) relay: Relay,
    pub(super) watch: Watch,
    plan: Plan,
    /// Set once an equation was seen not to hold.
    unbalanced: AtomicBool,
}

/// When the link was cut and when it came back.
struct Outage {
    cut_at: Instant,
    restored_at: Instant,
}

/// How long things took once the link was back.
struct Recovery {
    urgent_seconds: f64,
    urgent_after_outage_seconds: f64,
    bulk_seconds: f64,
}

/// Plays the whole story. Tasks go into `tasks` and end with `stop`.
pub(super) async fn tell(
    options: &Options,
    console: Console,
    page: Option<Page>,
    local: &Arc<Local>,
    tasks: &mut JoinSet<()>,
    stop: &CancellationToken,
) -> Result<Report, DemoError> {
    let (volume, outage_at_least) = match options.quick {
        true => (Volume::QUICK, Duration::from_secs(5)),
        false => (Volume::FULL, Duration::from_secs(8)),
    };
    let controls = local.relay.controls();
    console.say(&format!(
        "An edge (tactical) and a hub (enterprise), joined by a link of {}, {} ms one way, {:.1} % loss.",
        controls.rate,
        controls.delay.as_millis(),
        controls.loss * 100.0
    ));
    let stage = Arc::new(Stage {
        console,
        sites: Arc::clone(local) as Arc<dyn Sites>,
        relay: local.relay.clone(),
        watch: Watch::default(),
        plan: Plan::new(options.seed, volume),
        unbalanced: AtomicBool::new(false),
    });

    let mission = Meter::default();
    let apis: BTreeMap<Side, Api> =
        Side::BOTH.into_iter().map(|side| (side, Api::new(stage.sites.api(side), mission.clone()))).collect();
    let mut player = Player::enlist(&apis, Meter::default()).await?;
    local.enroll().await?;
    for side in Side::BOTH {
        let listener = player.member_of_all(side).metered_by(Meter::default());
        stage.watch.follow(side, listener, tasks, stop.child_token());
    }
    if let Some(page) = page {
        console.say(&format!("Watch it live: {}", page.url()));
        page.serve(Arc::clone(&stage), &player, tasks, stop.child_token());
    }

    stage.together(&mut player).await?;
    let cut_at = stage.apart(&mut player, outage_at_least).await?;
    let restored_at = Instant::now();
    let recovery = stage.restore(&mut player, restored_at).await?;
    let report = stage.conclude(&player, mission.bytes(), Outage { cut_at, restored_at }, recovery).await?;
    if options.json {
        output::json(&report);
    } else {
        output::line(report.to_text());
    }
    if options.hold {
        console.say("Both sites keep running for the page. Stop with Ctrl-C.");
        interrupted().await;
    }
    Ok(report)
}

impl Stage {
    /// The link is up: accounts, team, channels, and a first conversation across it.
    async fn together(&self, player: &mut Player) -> Result<(), DemoError> {
        self.console
            .say("1. LINK UP. The edge is enrolled; it builds a team with five channels; people at the hub join in.");
        player.assemble().await?;
        for act in &self.plan.together {
            player.play(&self.plan, act).await?;
        }
        self.settle().await?;
        self.console.say("   Both sides wrote in threads, edited, deleted and reacted; nothing is held.");
        Ok(())
    }

    /// The link is cut and both sides go on. Says when it was cut.
    async fn apart(&self, player: &mut Player, at_least: Duration) -> Result<Instant, DemoError> {
        let cut_at = Instant::now();
        self.relay.switch(false);
        self.console.say("2. LINK CUT. Both sides go on writing, and both change the same post.");
        for act in &self.plan.apart {
            player.play(&self.plan, act).await?;
        }
        self.console.say(&format!(
            "   The edge attached a file of {}, the same file again and an edited copy, then wrote something urgent.",
            human_bytes(self.plan.content(Content::Original).len() as u64)
        ));
        sleep_until(cut_at + at_least).await;
        self.console.say(&format!("   {}", self.progress()?));
        Ok(cut_at)
    }

    /// The link returns and the backlog crosses, most urgent first.
    async fn restore(&self, player: &mut Player, restored_at: Instant) -> Result<Recovery, DemoError> {
        self.relay.switch(true);
        self.console.say("3. LINK UP AGAIN. The backlog crosses, most urgent first.");
        let wire_before = self.relay.counters(Direction::Up).wire_bytes;
        let urgent_at = self.visible_at_hub(player, player.post_id(self.plan.urgent_apart_key)).await?;
        let urgent_after_outage_seconds = (urgent_at - restored_at).as_secs_f64();
        self.console.say(&format!(
            "   The urgent message of the outage is at the hub after {urgent_after_outage_seconds:.1} s."
        ));

        self.until_bulk_flows(wire_before).await;
        player.play(&self.plan, &self.plan.urgent).await?;
        let accepted_at = Instant::now();
        let urgent_at = self.visible_at_hub(player, player.post_id(self.plan.urgent_key)).await?;
        // The WebSocket may tell the hub's client before the edge's API call has returned here.
        let urgent_seconds = urgent_at.saturating_duration_since(accepted_at).as_secs_f64();
        self.console.say(&format!(
            "   An urgent message overtook the files on their way: at the hub after {urgent_seconds:.1} s."
        ));

        let (files_at, ()) = tokio::try_join!(self.files_readable_at_hub(player), self.settle())?;
        self.console.say("   All files can be read at the hub; nothing is held on either side.");
        let bulk_seconds = (files_at - restored_at).as_secs_f64();
        Ok(Recovery { urgent_seconds, urgent_after_outage_seconds, bulk_seconds })
    }

    /// Compares what both sides show, and counts.
    async fn conclude(
        &self,
        player: &Player,
        api_bytes: u64,
        outage: Outage,
        recovery: Recovery,
    ) -> Result<Report, DemoError> {
        self.console.say("4. COMPARE every object that both APIs show, field by field, files by their hash.");
        let (mut edge, mut hub) = (compare::read(player, Side::Edge).await?, compare::read(player, Side::Hub).await?);
        edge.put_stored(&self.sites.stored(Side::Edge)?);
        hub.put_stored(&self.sites.stored(Side::Hub)?);
        let comparison = compare::compare(&edge, &hub);
        let per_direction = self.ledgers()?;
        let (up, down) = (self.relay.counters(Direction::Up), self.relay.counters(Direction::Down));
        let controls = self.relay.controls();
        Ok(Report {
            schema: SCHEMA,
            equal: comparison.equal(),
            total: per_direction.total(),
            balanced_throughout: !self.unbalanced.load(Ordering::Relaxed),
            duplicates: edge.duplicates() + hub.duplicates() + self.watch.repeated(),
            api_bytes,
            wire_bytes_up: up.wire_bytes,
            wire_bytes_down: down.wire_bytes,
            wire_to_api_ratio: (up.wire_bytes + down.wire_bytes) as f64 / api_bytes.max(1) as f64,
            urgent_seconds: recovery.urgent_seconds,
            urgent_after_outage_seconds: recovery.urgent_after_outage_seconds,
            bulk_seconds: recovery.bulk_seconds,
            outage_seconds: (outage.restored_at - outage.cut_at).as_secs_f64(),
            seconds: self.console.started.elapsed().as_secs_f64(),
            objects: comparison.objects,
            objects_by_kind: comparison.by_kind,
            differences: comparison.differences.len(),
            first_differences: comparison.differences.iter().take(DIFFERENCES_SHOWN).map(ToString::to_string).collect(),
            per_direction,
            link: LinkFacts {
                rate_bits_per_second: controls.rate.0,
                delay_ms_one_way: controls.delay.as_millis().try_into().unwrap_or(u64::MAX),
                loss: controls.loss,
                datagrams_up: up.wire_datagrams,
                datagrams_down: down.wire_datagrams,
                lost_up: up.lost_datagrams,
                lost_down: down.lost_datagrams,
                overflowed_up: up.overflowed_datagrams,
                overflowed_down: down.overflowed_datagrams,
            },
        })
    }

    /// Both equations; one that does not hold is remembered.
    pub(super) fn ledgers(&self) -> Result<PerDirection, DemoError> {
        let ledgers =
            PerDirection { edge_to_hub: self.sites.ledger(Side::Edge)?, hub_to_edge: self.sites.ledger(Side::Hub)? };
        if !(ledgers.edge_to_hub.balances() && ledgers.hub_to_edge.balances()) {
            tracing::warn!(?ledgers, "an equation does not hold");
            self.unbalanced.store(true, Ordering::Relaxed);
        }
        Ok(ledgers)
    }

    /// What waits at a side, with the time at which each class should have crossed.
    pub(super) fn backlog(&self, from: Side) -> Result<Vec<Waiting>, DemoError> {
        let controls = self.relay.controls();
        // Every lost datagram is sent again.
        let bytes_per_second = controls.up.then_some(controls.rate.0 as f64 / 8.0 * (1.0 - controls.loss));
        Ok(with_etas(self.sites.backlog(from)?, bytes_per_second))
    }

    /// One line: what is held, by class, and what crossed.
    fn progress(&self) -> Result<String, DemoError> {
        let ledgers = self.ledgers()?;
        let side = |from: Side, held: u64| -> Result<String, DemoError> {
            let classes: Vec<String> = self.backlog(from)?.iter().map(describe).collect();
            Ok(match classes.is_empty() {
                true => format!("{from} holds {held}"),
                false => format!("{from} holds {held} ({})", classes.join(", ")),
            })
        };
        Ok(format!(
            "{} | {} | wire {} up, {} down",
            side(Side::Edge, ledgers.edge_to_hub.held)?,
            side(Side::Hub, ledgers.hub_to_edge.held)?,
            human_bytes(self.relay.counters(Direction::Up).wire_bytes),
            human_bytes(self.relay.counters(Direction::Down).wire_bytes),
        ))
    }

    /// Waits until nothing is held on either side, and shows progress.
    async fn settle(&self) -> Result<(), DemoError> {
        let started = Instant::now();
        let bytes: u64 = [Side::Edge, Side::Hub]
            .into_iter()
            .map(|side| Ok(self.backlog(side)?.iter().map(|waiting| waiting.bytes).sum::<u64>()))
            .sum::<Result<u64, DemoError>>()?;
        let wait_max = SETTLE_GRACE + Duration::from_secs(2 * bytes * 8 / self.relay.controls().rate.0);
        let mut print_at = started + PROGRESS_AFTER;
        loop {
            let held = self.ledgers()?.total().held;
            let now = Instant::now();
            if held == 0 {
                return Ok(());
            }
            if now >= started + wait_max {
                return Err(DemoError::NotSettled { held, waited: wait_max });
            }
            if now >= print_at {
                self.console.say(&format!("   {}", self.progress()?));
                print_at = now + PROGRESS_AFTER.max((now - started) / 6);
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until a client at the hub sees a post, by its WebSocket or by asking. Says when.
    async fn visible_at_hub(&self, player: &Player, post_id: &str) -> Result<Instant, DemoError> {
        let look = async {
            loop {
                if let Some(at) = self.watch.seen_at(Side::Hub, post_id) {
                    return at;
                }
                sleep(GLANCE_EVERY).await;
            }
        };
        let path = format!("/posts/{post_id}");
        tokio::select! {
            at = look => Ok(at),
            asked = player.arrived(Side::Hub, &path) => asked.map(|()| Instant::now()),
        }
    }

    /// Waits until the files have clearly begun to cross.
    async fn until_bulk_flows(&self, wire_before: u64) {
        let flows = async {
            while self.relay.counters(Direction::Up).wire_bytes < wire_before + BULK_IS_FLOWING_BYTES {
                sleep(LOOK_EVERY).await;
            }
        };
        // On a slow link the message goes without waiting for that; the figure is then only less impressive.
        let _ = timeout(BULK_WAIT_MAX, flows).await;
    }

    /// Waits until a client at the hub can read every file. Says when. Ends with `settle`, which has the deadline.
    async fn files_readable_at_hub(&self, player: &Player) -> Result<Instant, DemoError> {
        let mut missing: Vec<&str> = player.file_ids().iter().map(String::as_str).collect();
        while let Some(file_id) = missing.last() {
            match player.observer(Side::Hub).download(file_id).await {
                Ok(_) => drop(missing.pop()),
                Err(error) if error.status().is_some() => sleep(LOOK_EVERY).await,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Instant::now())
    }
}

/// "deferred 3, 1.30 MB, 41 s".
fn describe(waiting: &Waiting) -> String {
    let eta = waiting.eta_seconds.map_or_else(|| "no link".to_owned(), |seconds| format!("{seconds:.0} s"));
    format!("{} {}, {}, {eta}", waiting.class, waiting.entries, human_bytes(waiting.bytes))
}
