//! The `holdfast` binary: everything is in the rooms under `src/`.

use std::process::ExitCode;

fn main() -> ExitCode {
    operate::main()
}
