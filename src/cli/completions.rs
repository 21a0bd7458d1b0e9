//! `vhd completions`: what a shell needs to complete the command line.

use clap_complete::Shell;

use super::Program;
use super::exit::Outcome;
use super::output::Output;
use crate::error::Result;

/// Print a script that completes the command line in a shell.
#[derive(Debug, clap::Args)]
#[command(after_help = concat!(
    "Examples:\n",
    "  vhd completions bash > ~/.local/share/bash-completion/completions/vhd\n",
    "  vhd completions zsh --program vhd-diff > ~/.zfunc/_vhd-diff\n\n",
    super::args::exit_codes!(),
))]
pub(super) struct Args {
    /// The shell.
    shell: Shell,
    /// The program to complete.
    #[arg(long, value_name = "NAME", default_value = "vhd")]
    program: Program,
}

pub(super) fn run(args: &Args) -> Result<Outcome> {
    let mut script = Vec::new();
    let mut command = args.program.command();
    clap_complete::generate(args.shell, &mut command, args.program.name(), &mut script);
    let mut output = Output::text()?;
    output.bytes(&script)?;
    output.finish()?;
    Ok(Outcome::Done)
}
