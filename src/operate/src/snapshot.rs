//! Output that programs and habits rely on, kept in `snapshots/`.

/// Compares with the kept file; HOLDFAST_UPDATE_DOCS=1 writes it.
pub(crate) fn assert(name: &str, text: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("snapshots").join(name);
    if std::env::var_os("HOLDFAST_UPDATE_DOCS").is_some() {
        std::fs::write(&path, format!("{text}\n")).unwrap();
    }
    let kept = std::fs::read_to_string(path).unwrap();
    assert_eq!(text, kept.trim_end_matches('\n'), "{name}: if the change is meant, run with HOLDFAST_UPDATE_DOCS=1");
}
