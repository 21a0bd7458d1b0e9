//! `vhd man`: manual pages from the same definitions as the help.

use std::fs;
use std::io;
use std::path::PathBuf;

use clap_mangen::Man;

use super::Program;
use super::exit::Outcome;
use super::output::Output;
use crate::error::{Error, Result};
use crate::storage::{AtomicFile, Overwrite, WriteAt as _};

/// Print the manual page, or write the pages of all programs and commands.
#[derive(Debug, clap::Args)]
#[command(after_help = concat!(
    "Examples:\n",
    "  vhd man | man -l -\n",
    "  vhd man --dir ~/.local/share/man/man1\n\n",
    super::args::exit_codes!(),
))]
pub(super) struct Args {
    /// Write the pages of all programs and commands into this folder.
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
}

pub(super) fn run(args: &Args) -> Result<Outcome> {
    let Some(folder) = &args.dir else {
        let mut output = Output::text()?;
        output.bytes(&render(Program::Vhd.command())?)?;
        output.finish()?;
        return Ok(Outcome::Done);
    };
    fs::create_dir_all(folder)
        .map_err(|e| Error::io("cannot create the folder", e).path(folder))?;
    for (name, command) in pages() {
        let page = render(command)?;
        let file = AtomicFile::new(folder.join(format!("{name}.1")))?;
        file.file().write_all_at(&page, 0)?;
        file.publish(Overwrite::Yes)?;
    }
    Ok(Outcome::Done)
}

/// Every page by its name. `vhd diff` and `vhd apply` have the pages of the programs that they are.
fn pages() -> Vec<(String, clap::Command)> {
    let mut pages: Vec<(String, clap::Command)> = Program::ALL
        .iter()
        .map(|program| (program.name().to_owned(), program.command()))
        .collect();
    let mut vhd = Program::Vhd.command();
    vhd.build();
    for command in vhd
        .get_subcommands()
        .filter(|command| command.get_name() != "help")
    {
        let name = format!("vhd-{}", command.get_name());
        if pages.iter().all(|(taken, _)| *taken != name) {
            pages.push((name, command.clone().version(env!("CARGO_PKG_VERSION"))));
        }
    }
    pages
}

fn render(command: clap::Command) -> Result<Vec<u8>> {
    let mut page = Vec::new();
    Man::new(command)
        .render(&mut page)
        .map_err(|e: io::Error| Error::io("cannot write the manual page", e))?;
    Ok(page)
}
