//! Turns one disk image into another by applying diffs.

use std::process::ExitCode;

fn main() -> ExitCode {
    vhdkit::cli::vhd_apply()
}
