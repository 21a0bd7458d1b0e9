//! `vhd demo`.

use super::context::Context;
use super::exit::Outcome;
use crate::error::{Error, Result};

/// Walk the whole path on small images, made for it.
#[derive(Debug, clap::Args)]
#[command(after_help = concat!(
    "Examples:\n",
    "  vhd demo\n\n",
    super::args::exit_codes!(),
))]
pub(super) struct Args {}

pub(super) fn run(_args: &Args, _context: &Context) -> Result<Outcome> {
    Err(Error::unsupported("this command is still to come"))
}
