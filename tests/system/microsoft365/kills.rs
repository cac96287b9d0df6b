//! The delivering node is killed again and again. Most kills are aimed: the simulator holds a request of a chosen kind after it
//! committed what it asks for, or before it did anything, and the node dies while it waits for that answer.

use std::time::Duration;

use graphsim::{Failure, FaultRule, Limits, What};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::time::Instant;

use super::Tenant;
use super::writers::{PLACES, Writers, official_client_is_here};
use crate::node::{Node, Role};
use crate::world::{World, seed};

/// Kills of the delivering node: one for each row of [`AIMS`]. `HOLDFAST_KILLS=50` is the full number, with moments drawn at
/// random among them.
const KILLS: usize = AIMS.len();

/// The answer is held until long after the kill.
const HELD_MS: u64 = 120_000;

/// Longest wait until the request that is aimed at is made: what another kill left open may be looked for first.
const AIMED_TIME_MAX: Duration = Duration::from_secs(90);

/// A request that the node waits for when it is killed.
struct Aim {
    is_committed: bool,
    method: &'static str,
    /// Part of its path; `OPS` and `DIGEST` stand for the channels.
    path: &'static str,
    by: Write,
}

/// What leads to the request.
#[derive(Clone, Copy)]
enum Write {
    Post,
    Reply,
    File,
    Edit,
    Reaction,
    Removal,
}

/// Those of which nothing was done come first, because it takes longest to be sure of that.
const AIMS: [Aim; 12] = [
    Aim { is_committed: false, method: "POST", path: "OPS/messages", by: Write::Post },
    Aim { is_committed: false, method: "POST", path: "/sendMail", by: Write::Post },
    Aim { is_committed: true, method: "POST", path: "OPS/messages", by: Write::Post },
    Aim { is_committed: true, method: "POST", path: "DIGEST/messages", by: Write::Post },
    Aim { is_committed: true, method: "POST", path: "/replies", by: Write::Reply },
    Aim { is_committed: true, method: "PUT", path: ".bin:/content", by: Write::File },
    Aim { is_committed: true, method: "PATCH", path: "OPS/messages/", by: Write::Edit },
    Aim { is_committed: true, method: "POST", path: "/sendMail", by: Write::Post },
    Aim { is_committed: true, method: "PUT", path: ".html:/content", by: Write::Post },
    Aim { is_committed: true, method: "POST", path: "/setReaction", by: Write::Reaction },
    Aim { is_committed: true, method: "POST", path: "/softDelete", by: Write::Removal },
    Aim { is_committed: true, method: "POST", path: "/sendActivityNotification", by: Write::Post },
];

impl Aim {
    fn rule(&self, tenant: &Tenant) -> FaultRule {
        let [ops, digest] = ["Ops", "Digest"].map(|name| &tenant.team.channels[name]);
        let path = self.path.replace("OPS", ops).replace("DIGEST", digest);
        let failure = match self.is_committed {
            true => Failure::StallAfterCommit { for_ms: HELD_MS },
            false => Failure::Stall { for_ms: HELD_MS },
        };
        FaultRule::new(failure).at("graph").on(self.method, &path)
    }
}

impl Write {
    /// `root` stands in Teams already.
    async fn carry_out(self, writers: &mut Writers, lane: usize, root: &str) {
        match self {
            Self::Post => drop(writers.says(lane).await),
            Self::Reply => drop(writers.replies(lane, root).await),
            Self::File => writers.shares(lane, 30_000).await,
            Self::Edit => writers.edits(root).await,
            Self::Reaction => writers.reacts(root).await,
            Self::Removal => writers.removes(root).await,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn official_client_writes_while_the_delivering_node_is_killed_again_and_again_and_nothing_is_doubled_or_missing()
{
    if !official_client_is_here() {
        return;
    }
    let seed = seed();
    let kills = std::env::var("HOLDFAST_KILLS").map_or(KILLS, |n| n.parse().expect("a number"));
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut world = World::start_with_rate("10Mbit/s").await;
    let limits = Limits { answer_after_ms: 50, ..Limits::default() };
    let tenant = Tenant::new(graphsim::Settings { limits, ..graphsim::Settings::seeded(seed) });
    world.hub.stop().await;
    tenant.configure(&world.hub, "");
    world.hub.start().await;
    tenant.sign_in(&world.hub);
    let mut writers = Writers::found(&world.edge).await;
    let mut roots = Vec::new();
    for lane in 0..PLACES.len() {
        roots.push(writers.says(lane).await);
    }
    tenant.receives(&world.hub, &writers.written).await;

    let resets = FaultRule::new(Failure::ResetAfterCommit).at("graph").times(u32::MAX).chance(0.15);
    for round in 0..kills {
        // Not where something else is still looked for, as far as that can be had.
        let (aim, lane) = (&AIMS[round % AIMS.len()], (round + round / PLACES.len()) % PLACES.len());
        tenant.sim.heal();
        let is_aimed = round < AIMS.len() || round % 2 == 1;
        let before = tenant.held_answers();
        // Before the resets, which might take the request that is aimed at.
        if is_aimed {
            tenant.sim.fail(aim.rule(&tenant));
        }
        if round >= AIMS.len() {
            tenant.sim.fail(resets.clone());
        }
        // What was edited, removed or has its reaction gives no more such requests: the lane goes on with another.
        let write = async |writers: &mut Writers, root: &mut String| {
            aim.by.carry_out(writers, lane, root).await;
            if matches!(aim.by, Write::Edit | Write::Reaction | Write::Removal) {
                *root = writers.says(lane).await;
            }
        };
        if !is_aimed {
            let moment = Duration::from_millis(rng.random_range(100..2_500));
            let killing = async {
                tokio::time::sleep(moment).await;
                world.hub.kill();
            };
            tokio::join!(killing, write(&mut writers, &mut roots[lane]));
        } else {
            write(&mut writers, &mut roots[lane]).await;
            let deadline = Instant::now() + AIMED_TIME_MAX;
            while tenant.held_answers() == before {
                let at = format!("{} {} was not made; SEED={seed}", aim.method, aim.path);
                assert!(Instant::now() < deadline, "{at}\n{}", world.hub.last_words());
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            world.hub.kill();
        }
        world.hub.start().await;
    }
    tenant.sim.heal();
    let posted = tenant.sim.oracle().of(What::MessagePosted).count();
    println!(
        "{kills} kills, {} of them while an answer was held; {posted} messages posted by then; {} posts written",
        tenant.held_answers(),
        writers.written.len()
    );
    tenant.receives(&world.hub, &writers.written).await;
}

impl Tenant {
    /// Answers that were held back so far, before or after the commit.
    fn held_answers(&self) -> usize {
        self.sim.happened("stall") + self.sim.happened("stallAfterCommit")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn official_client_shares_a_large_file_whose_upload_goes_on_where_a_kill_stopped_it() {
    /// Three pieces of at most 10 MiB.
    const BYTES: usize = 24_000_000;
    if !official_client_is_here() {
        return;
    }
    let tenant = Tenant::new(graphsim::Settings::seeded(9));
    let mut edge = Node::init(Role::Edge, "alpha", "1Mbit/s");
    tenant.configure(&edge, "");
    edge.start().await;
    tenant.sign_in(&edge);
    let mut writers = Writers::found(&edge).await;
    // Both the archive and the channel's folder get it; the third piece of all is held.
    let third = FaultRule::new(Failure::Stall { for_ms: HELD_MS }).at("upload").on("PUT", "/").after(2);
    tenant.sim.fail(third);
    writers.shares(0, BYTES).await;
    let deadline = Instant::now() + AIMED_TIME_MAX;
    while tenant.held_answers() == 0 {
        assert!(Instant::now() < deadline, "no third piece\n{}", edge.last_words());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    edge.kill();
    edge.start().await;
    tenant.receives(&edge, &writers.written).await;
    let oracle = tenant.sim.oracle();
    assert_eq!(oracle.of(What::UploadStarted).count(), 2, "an upload was begun anew");
    let pieces = oracle.requests.iter().filter(|seen| seen.host == "upload" && seen.method == "PUT");
    let taken: usize = pieces.filter(|seen| (200..300).contains(&seen.status)).map(|seen| seen.body_bytes).sum();
    assert_eq!(taken, 2 * BYTES, "a range that was there was sent again");
}
