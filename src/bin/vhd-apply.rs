//! Turns one disk image into another with the help of a diff.

use std::process::ExitCode;

fn main() -> ExitCode {
    vhdkit::cli::vhd_apply()
}
