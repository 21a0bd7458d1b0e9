//! `vhd apply`.

use super::context::Context;
use super::exit::Outcome;
use crate::error::{Error, Result};

/// Turn a base into the target of a diff, in place or as a new image.
#[derive(Debug, clap::Args)]
#[command(after_help = concat!(
    "Examples:\n",
    "  vhd-apply monday.vhd tuesday.vhddiff -o restored.vhd\n\n",
    super::args::exit_codes!(),
))]
pub(super) struct Args {
    /// The image to bring to the target.
    base: std::path::PathBuf,
    /// The diffs, in order; - is stdin.
    #[arg(value_name = "DIFF")]
    diffs: Vec<std::path::PathBuf>,
}

pub(super) fn run(_args: &Args, _context: &Context) -> Result<Outcome> {
    Err(Error::unsupported("this command is still to come"))
}
