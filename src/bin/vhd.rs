//! The toolbox: inspects, creates, compares and patches disk images.

use std::process::ExitCode;

fn main() -> ExitCode {
    vhdkit::cli::vhd()
}
