//! `vhd show`.

use super::context::Context;
use super::exit::Outcome;
use crate::error::{Error, Result};

/// Look into a diff, verifying it.
#[derive(Debug, clap::Args)]
#[command(after_help = concat!(
    "Examples:\n",
    "  vhd show tuesday.vhddiff\n\n",
    super::args::exit_codes!(),
))]
pub(super) struct Args {
    /// The diff to look into.
    diff: std::path::PathBuf,
}

pub(super) fn run(_args: &Args, _context: &Context) -> Result<Outcome> {
    Err(Error::unsupported("this command is still to come"))
}
