//! The `holdfast` binary: everything is in the rooms under `src/`.

fn main() {}
