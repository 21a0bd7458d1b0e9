//! The toolbox: look at, make, compare and patch disk images.

use std::process::ExitCode;

fn main() -> ExitCode {
    vhdkit::cli::vhd()
}
