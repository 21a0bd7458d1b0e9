//! Shows what changed from one disk image to another.

use std::process::ExitCode;

fn main() -> ExitCode {
    vhdkit::cli::vhd_diff()
}
