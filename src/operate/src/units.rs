//! The systemd units, held against the program and against systemd's own judgement.

use std::path::PathBuf;
use std::process::Command;

use crate::exit::Exit;

fn unit(role: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("../../systemd/holdfast-{role}.service"))
}

#[test]
fn a_unit_is_not_restarted_where_starting_again_would_end_the_same_way() {
    let codes =
        format!("RestartPreventExitStatus={} {} {}", Exit::Usage.code(), Exit::Config.code(), Exit::InUse.code());
    for role in ["edge", "hub"] {
        let text = std::fs::read_to_string(unit(role)).unwrap();
        assert!(text.lines().any(|l| l == codes), "{role}: {codes}");
        assert!(text.lines().any(|l| l == format!("ExecStart=/usr/bin/holdfast {role}")), "{role}");
    }
}

/// Exposure of at most 2.0 of 10, where systemd's tool is installed.
#[test]
fn systemd_calls_the_units_well_confined() {
    for role in ["edge", "hub"] {
        let mut tool = Command::new("systemd-analyze");
        tool.args(["security", "--offline=true", "--threshold=20", "--no-pager"]).arg(unit(role));
        let Ok(judged) = tool.output() else { return };
        assert!(judged.status.success(), "{}", String::from_utf8_lossy(&judged.stdout));
    }
}
