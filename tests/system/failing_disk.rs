//! A disk that stops syncing under a running node.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use crate::world::{Mission, World, say};

/// How long until an operator's alarm may ring; the measured time is printed.
const ALARM_TIME_MAX: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_whose_disk_stops_syncing_says_so_at_once_and_loses_nothing() {
    let preload = ["/usr/lib/fiu/fiu_run_preload.so", "/usr/lib/fiu/fiu_posix_preload.so"];
    if !preload.iter().all(|library| Path::new(library).exists()) {
        println!("skipped: libfiu is not installed (Debian package libfiu0)");
        return;
    }
    let mut world = World::start().await;
    let mission = Mission::found(&world.edge_admin, &world.edge).await;
    world.settle(&mission.channels()).await;
    world.hub.stop().await;
    let fifo = world.hub.path_for("fiu");
    world.hub.environment =
        vec![("LD_PRELOAD".to_owned(), preload.join(" ")), ("FIU_CTRL_FIFO".to_owned(), fifo.display().to_string())];
    world.hub.start().await;
    say(&mission.anna, &mission.channel, "before the fault").await.unwrap();
    world.settle(&mission.channels()).await;

    control(&fifo, world.hub.pid(), "enable name=posix/io/sync/*,failinfo=5");
    say(&mission.anna, &mission.channel, "during the fault").await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    // The log line is written where the sync fails.
    while !world.hub.logged("the journal stopped") {
        assert!(Instant::now() < deadline, "the hub did not notice\n{}", world.hub.last_words());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let noticed = Instant::now();
    while world.hub.is_healthy().await {
        assert!(noticed.elapsed() < ALARM_TIME_MAX, "no alarm\n{}", world.hub.last_words());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    println!("the health check failed {:?} after the fault was logged", noticed.elapsed());

    // The operator replaces the disk and restarts the node. What the hub never acknowledged comes again.
    world.hub.kill();
    world.hub.environment.clear();
    world.hub.start().await;
    let seen = world.settle(&mission.channels()).await;
    for message in ["before the fault", "during the fault"] {
        assert_eq!(seen.values().filter(|o| o["message"] == message).count(), 1, "{message}");
    }
}

/// Sends a command to libfiu in the process and waits for its answer.
fn control(fifo: &Path, pid: u32, command: &str) {
    let path = |end: &str| format!("{}-{pid}.{end}", fifo.display());
    let mut pipe = fs::OpenOptions::new().write(true).open(path("in")).unwrap();
    pipe.write_all(format!("{command}\n").as_bytes()).unwrap();
    drop(pipe);
    let answer = fs::read_to_string(path("out")).unwrap();
    assert_eq!(answer.trim(), "0", "libfiu refused `{command}`");
}
