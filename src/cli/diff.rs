//! `vhd diff`.

use super::context::Context;
use super::exit::Outcome;
use crate::error::{Error, Result};

/// Say what changed from one image to another: list it, or write a diff.
#[derive(Debug, clap::Args)]
#[command(after_help = concat!(
    "Examples:\n",
    "  vhd-diff monday.vhd tuesday.vhd\n\n",
    super::args::exit_codes!(),
))]
pub(super) struct Args {
    /// The image that the diff starts from.
    base: std::path::PathBuf,
    /// The image that the diff leads to.
    target: std::path::PathBuf,
}

pub(super) fn run(_args: &Args, _context: &Context) -> Result<Outcome> {
    Err(Error::unsupported("this command is still to come"))
}
