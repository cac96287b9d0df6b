//! Holds the table of rooms against the manifests: which room may use which, and where heavy libraries may stand.
//!
//! The compiler already refuses what a manifest does not list. This test refuses the manifest.
//! The table is the one of docs/ARCHITECTURE.md; whoever changes one changes the other.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

/// Every room of the design with the rooms that it may use. A room comes with the work that fills it, so not
/// every row has a folder; a folder without a row is refused.
const ROOMS: &[(&str, Uses)] = &[
    ("model", Uses::These(&[])),
    ("telemetry", Uses::These(&["model"])),
    ("keys", Uses::These(&["model"])),
    ("wire", Uses::These(&["model", "keys"])),
    ("link", Uses::These(&["model", "wire"])),
    ("shaper", Uses::These(&["model"])),
    ("journal", Uses::These(&["model", "keys", "wire", "telemetry"])),
    ("carrier", Uses::These(&["model", "keys", "wire", "link", "shaper", "journal", "telemetry"])),
    ("mission", Uses::These(&["model", "telemetry"])),
    ("mattermost", Uses::These(&["model", "telemetry"])),
    ("microsoft", Uses::These(&["model", "telemetry"])),
    ("capture", Uses::These(&["model", "wire", "mission", "mattermost", "journal", "telemetry"])),
    ("apply", Uses::These(&["model", "wire", "journal", "mission", "mattermost", "microsoft", "telemetry"])),
    ("identity", Uses::These(&["model", "keys", "telemetry", "microsoft"])),
    ("gate", Uses::These(&["model", "keys", "telemetry", "identity"])),
    ("media", Uses::These(&["model", "telemetry"])),
    ("assist", Uses::These(&["model", "telemetry"])),
    ("comply", Uses::These(&["model", "wire", "journal", "telemetry"])),
    // A hub is a site that also listens: it is composed from an edge.
    ("edge", Uses::AllBut(&["hub", "operate", "simkit"])),
    ("hub", Uses::AllBut(&["operate", "simkit"])),
    ("operate", Uses::AllBut(&["simkit"])),
    // `keys` because a simulated node mints ids and names chunks as a real one does.
    ("simkit", Uses::These(&["model", "wire", "link", "shaper", "journal", "keys"])),
];

/// Libraries that decide how a room can be built, tested or swapped, and the only rooms that may name them.
const LEAVES: &[(&str, &[&str])] = &[
    ("webrtc", &["media"]),
    ("rtc", &["media"]),
    ("reqwest", &["microsoft", "mattermost", "assist", "mission"]),
    ("sled", &["journal"]),
    ("rusqlite", &["mission", "apply"]),
    ("quinn", &["carrier"]),
    ("rustls", &["gate", "mission", "operate", "carrier", "keys"]),
    ("hyper", &["gate", "mission", "operate", "carrier"]),
    ("hyper-util", &["gate", "mission", "operate", "carrier"]),
    ("axum", &["gate", "mission", "operate", "carrier"]),
    // Only measured against, so in no room: `benches` is none.
    ("fjall", &[]),
    ("redb", &[]),
];

/// Rooms that take time and bytes as arguments, so that a bad week on a link runs in milliseconds from a seed.
const PURE: &[&str] = &["model", "wire", "link", "shaper"];

/// What would bring sockets, timers or tasks into a pure room.
const ASYNC: &[&str] = &["tokio", "tokio-util", "tokio-tungstenite", "futures-util", "quinn", "hyper", "axum"];

/// The rooms that a room may use.
enum Uses {
    These(&'static [&'static str]),
    /// Compositions: every room of the table except these and itself.
    AllBut(&'static [&'static str]),
}

impl Uses {
    fn allow(&self, other: &str) -> bool {
        match self {
            Self::These(rooms) => rooms.contains(&other),
            Self::AllBut(rooms) => !rooms.contains(&other),
        }
    }
}

#[test]
fn every_room_uses_only_what_its_row_lists() {
    let complaints: Vec<String> =
        rooms().iter().flat_map(|(room, dir)| complaints(room, &manifest(&dir.join("Cargo.toml")))).collect();
    assert!(complaints.is_empty(), "the rooms' table is broken:\n{}", complaints.join("\n"));
}

#[test]
fn every_room_says_what_it_is_for() {
    for (room, dir) in rooms() {
        let text = fs::read_to_string(dir.join("src/lib.rs")).unwrap_or_default();
        assert!(text.starts_with("//! "), "src/{room}/src/lib.rs must open with a module comment: the map of the room");
    }
}

#[test]
fn no_room_is_empty() {
    for (room, dir) in rooms() {
        let text = fs::read_to_string(dir.join("src/lib.rs")).unwrap_or_default();
        let code = text.lines().filter(|l| !l.trim().is_empty() && !l.trim_start().starts_with("//")).count();
        assert!(code > 0, "src/{room} holds nothing; a room comes with the work that fills it");
    }
}

/// `benches` may use any room and any store; nothing may use `benches`.
#[test]
fn the_benchmarks_stay_outside() {
    let benches = manifest(&root().join("benches/Cargo.toml"));
    assert_eq!(benches["lints"]["workspace"].as_bool(), Some(true), "benches/Cargo.toml: `[lints] workspace = true`");
    let manifests = rooms().into_values().chain([root().to_owned()]).map(|dir| dir.join("Cargo.toml"));
    for path in manifests {
        let used = dependencies(&manifest(&path));
        assert!(used.iter().all(|(_, name)| name != "benches"), "{}: uses `benches`", path.display());
    }
}

/// `emulator` puts packets on links for tests and measurements, and nothing that is shipped may lean on it.
#[test]
fn the_emulator_of_links_is_for_tests_and_measurements() {
    let emulator = manifest(&root().join("tests/emulator/Cargo.toml"));
    assert_eq!(emulator["lints"]["workspace"].as_bool(), Some(true), "tests/emulator: `[lints] workspace = true`");
    let names: BTreeSet<&str> = ROOMS.iter().map(|(name, _)| *name).collect();
    for (section, used) in dependencies(&emulator) {
        assert!(!names.contains(used.as_str()), "tests/emulator/Cargo.toml: [{section}] uses the room `{used}`");
    }
    for path in rooms().into_values().chain([root().to_owned()]).map(|dir| dir.join("Cargo.toml")) {
        for (section, used) in dependencies(&manifest(&path)) {
            assert!(used != "emulator" || section == "dev-dependencies", "{}: [{section}] uses it", path.display());
        }
    }
}

/// `graphsim` plays Microsoft's services for tests. It knows nothing of Holdfast, so that it cannot agree with its mistakes, and
/// nothing that is shipped may lean on it.
#[test]
fn the_simulator_of_microsoft_is_for_tests_alone() {
    let simulator = manifest(&root().join("tests/graphsim/Cargo.toml"));
    assert_eq!(simulator["lints"]["workspace"].as_bool(), Some(true), "tests/graphsim: `[lints] workspace = true`");
    let names: BTreeSet<&str> = ROOMS.iter().map(|(name, _)| *name).collect();
    for (section, used) in dependencies(&simulator) {
        assert!(!names.contains(used.as_str()), "tests/graphsim/Cargo.toml: [{section}] uses the room `{used}`");
    }
    let dirs = rooms().into_values().chain([root().to_owned(), root().join("benches")]);
    for path in dirs.map(|dir| dir.join("Cargo.toml")) {
        for (section, used) in dependencies(&manifest(&path)) {
            assert!(used != "graphsim" || section == "dev-dependencies", "{}: [{section}] uses it", path.display());
        }
    }
}

#[test]
fn the_root_package_is_only_its_main() {
    let root = root();
    let files: BTreeSet<String> = fs::read_dir(root.join("src"))
        .unwrap()
        .map(|e| e.unwrap())
        .filter(|e| e.file_type().unwrap().is_file())
        .map(|e| e.file_name().into_string().unwrap())
        .collect();
    assert_eq!(files, BTreeSet::from(["main.rs".to_owned()]), "beside the rooms, src/ holds main.rs and nothing else");

    let manifest = manifest(&root.join("Cargo.toml"));
    let used: Vec<&String> = manifest["dependencies"].as_table().unwrap().keys().collect();
    assert_eq!(used, ["operate"], "the binary calls `operate`; everything else is in the rooms");
}

#[test]
fn a_manifest_within_its_row_is_accepted() {
    let manifest = made_up(
        "[lints]\nworkspace = true\n[dependencies]\nmodel.workspace = true\nwire = { path = \"../wire\" }\n\
         thiserror.workspace = true\n[dev-dependencies]\nsimkit.workspace = true\nproptest.workspace = true\n",
    );
    assert_eq!(complaints("link", &manifest), Vec::<String>::new());
}

#[test]
fn a_forbidden_arrow_is_refused_wherever_it_is_written() {
    for (at, text) in [
        ("dependencies", "[dependencies]\njournal.workspace = true\n"),
        ("dev-dependencies", "[dev-dependencies]\njournal.workspace = true\n"),
        ("build-dependencies", "[build-dependencies]\njournal.workspace = true\n"),
        ("a target's dependencies", "[target.'cfg(unix)'.dependencies]\njournal.workspace = true\n"),
        ("a path", "[dependencies]\njournal = { path = \"../journal\" }\n"),
        ("a rename", "[dependencies]\nlog = { path = \"../journal\", package = \"journal\" }\n"),
    ] {
        let manifest = made_up(&format!("[lints]\nworkspace = true\n{text}"));
        let said = complaints("link", &manifest).join("\n");
        assert!(said.contains("may not use `journal`"), "{at}: {said:?}");
    }
}

#[test]
fn a_heavy_library_away_from_its_leaf_is_refused() {
    for (room, library) in
        [("apply", "sled"), ("journal", "reqwest"), ("link", "rustls"), ("edge", "webrtc"), ("journal", "redb")]
    {
        let manifest = made_up(&format!("[lints]\nworkspace = true\n[dependencies]\n{library} = \"1\"\n"));
        let said = complaints(room, &manifest).join("\n");
        assert!(said.contains(&format!("`{library}` stays in")), "{room}: {said:?}");
    }
}

#[test]
fn a_pure_room_with_a_runtime_is_refused() {
    for room in PURE {
        let manifest = made_up("[lints]\nworkspace = true\n[dependencies]\ntokio.workspace = true\n");
        let said = complaints(room, &manifest).join("\n");
        assert!(said.contains("takes time and bytes as arguments"), "{room}: {said:?}");
    }
}

#[test]
fn a_room_without_the_shared_lints_or_without_a_row_is_refused() {
    assert!(complaints("link", &made_up("[dependencies]\n")).join("\n").contains("[lints] workspace = true"));
    let odd = made_up("[lints]\nworkspace = true\n");
    assert!(complaints("common", &odd).join("\n").contains("has no row"));
}

#[test]
fn the_table_itself_has_no_cycle() {
    // Rooms are listed bottom up except where a row names a later one; following rows must end.
    fn visit(room: &str, path: &mut Vec<String>) {
        assert!(!path.iter().any(|p| p == room), "cycle in the table: {path:?} -> {room}");
        path.push(room.to_owned());
        for (other, _) in ROOMS.iter().filter(|(other, _)| *other != room && uses(room).allow(other)) {
            visit(other, path);
        }
        path.pop();
    }
    for (room, _) in ROOMS {
        visit(room, &mut Vec::new());
    }
}

/// Everything that the manifest of `room` does against the table.
fn complaints(room: &str, manifest: &Table) -> Vec<String> {
    let names: BTreeSet<&str> = ROOMS.iter().map(|(name, _)| *name).collect();
    if !names.contains(room) {
        return vec![format!("src/{room} has no row in the table of rooms; docs/ARCHITECTURE.md explains the rooms")];
    }
    let mut found = Vec::new();
    let row = uses(room);
    for (section, used) in dependencies(manifest) {
        let simulated = used == "simkit" && section == "dev-dependencies";
        if names.contains(used.as_str()) && !row.allow(&used) && !simulated {
            found.push(format!("src/{room}/Cargo.toml: `{room}` may not use `{used}` ([{section}])"));
        }
        if let Some((_, rooms)) = LEAVES.iter().find(|(library, _)| *library == used)
            && !rooms.contains(&room)
        {
            let home = if rooms.is_empty() { "benches".to_owned() } else { rooms.join(", ") };
            found.push(format!("src/{room}/Cargo.toml: `{used}` stays in {home} ([{section}])"));
        }
        if PURE.contains(&room) && ASYNC.contains(&used.as_str()) {
            found.push(format!(
                "src/{room}/Cargo.toml: {room} takes time and bytes as arguments; `{used}` brings its own"
            ));
        }
    }
    let shares_lints = manifest.get("lints").and_then(|l| l.get("workspace")).and_then(Value::as_bool) == Some(true);
    if !shares_lints {
        found.push(format!("src/{room}/Cargo.toml: `[lints] workspace = true` is missing"));
    }
    found
}

fn uses(room: &str) -> &'static Uses {
    &ROOMS.iter().find(|(name, _)| *name == room).expect("asked only for rooms of the table").1
}

/// Every dependency by its package name, with the section that names it, targets included.
fn dependencies(manifest: &Table) -> Vec<(&'static str, String)> {
    const SECTIONS: [&str; 3] = ["dependencies", "dev-dependencies", "build-dependencies"];
    let targets = manifest.get("target").and_then(Value::as_table).into_iter().flat_map(|t| t.values());
    let tables = std::iter::once(manifest).chain(targets.filter_map(Value::as_table));
    let mut found = Vec::new();
    for table in tables {
        for section in SECTIONS {
            for (name, how) in table.get(section).and_then(Value::as_table).into_iter().flatten() {
                let package = how.get("package").and_then(Value::as_str).unwrap_or(name);
                found.push((section, package.to_owned()));
            }
        }
    }
    found
}

/// Folders under `src/` by name: the rooms that exist.
fn rooms() -> BTreeMap<String, PathBuf> {
    fs::read_dir(root().join("src"))
        .expect("src/ is readable")
        .map(|e| e.expect("an entry of src/").path())
        .filter(|p| p.is_dir())
        .map(|p| (p.file_name().expect("a name").to_string_lossy().into_owned(), p))
        .collect()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn manifest(path: &Path) -> Table {
    let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.parse().unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn made_up(text: &str) -> Table {
    text.parse().expect("the test wrote TOML")
}
