//! `vhd man`: manual pages, generated from the same definitions as the help.

use std::fs;
use std::io::{self, Write as _};
use std::path::PathBuf;

use clap_mangen::Man;
use serde::Serialize;

use super::exit::Outcome;
use super::help;
use super::output::Output;
use super::program::Program;
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
    /// Print JSON, with the page as one member, or the files that were written.
    #[arg(long)]
    json: bool,
}

/// The output of `--json`.
#[derive(Serialize)]
struct View {
    page: Option<String>,
    files: Vec<String>,
}

/// Prints the page, or writes the pages, of the commands that `command_of` defines.
pub(super) fn run(args: &Args, command_of: fn(Program) -> clap::Command) -> Result<Outcome> {
    let Some(folder) = &args.dir else {
        let mut output = Output::text()?;
        let page = render(command_of(Program::Vhd))?;
        if args.json {
            output.json(&View {
                page: Some(String::from_utf8_lossy(&page).into_owned()),
                files: Vec::new(),
            })?;
        } else {
            output.bytes(&page)?;
        }
        output.finish()?;
        return Ok(Outcome::Done);
    };
    fs::create_dir_all(folder)
        .map_err(|e| Error::io("cannot create the folder", e).with_path(folder))?;
    let mut files = Vec::new();
    for (name, command) in pages(command_of) {
        let page = render(command)?;
        let path = folder.join(format!("{name}.1"));
        files.push(path.to_string_lossy().into_owned());
        let file = AtomicFile::new(path)?;
        file.file().write_all_at(&page, 0)?;
        file.publish(Overwrite::Yes)?;
    }
    if args.json {
        let mut output = Output::text()?;
        output.json(&View { page: None, files })?;
        output.finish()?;
    }
    Ok(Outcome::Done)
}

/// All pages by name. `vhd diff` and `vhd apply` have the pages of the corresponding programs.
fn pages(command_of: fn(Program) -> clap::Command) -> Vec<(String, clap::Command)> {
    let mut pages: Vec<(String, clap::Command)> = Program::ALL
        .iter()
        .map(|program| (program.name().to_owned(), command_of(*program)))
        .collect();
    let mut vhd = command_of(Program::Vhd);
    vhd.build();
    for command in vhd
        .get_subcommands()
        .filter(|command| command.get_name() != "help")
    {
        let name = format!("vhd-{}", command.get_name());
        for inner in command.get_subcommands().filter(|c| c.get_name() != "help") {
            let name = format!("{name}-{}", inner.get_name());
            pages.push((name, inner.clone().version(env!("CARGO_PKG_VERSION"))));
        }
        if pages.iter().all(|(taken, _)| *taken != name) {
            pages.push((name, command.clone().version(env!("CARGO_PKG_VERSION"))));
        }
    }
    pages
}

fn render(command: clap::Command) -> Result<Vec<u8>> {
    let after = command.get_after_long_help().map(ToString::to_string);
    let after = help::printed(&after.unwrap_or_default());
    let more = help::sections(&command);
    let usage = command.clone().render_usage().to_string();
    let has_subcommands = command.has_subcommands();
    let man = Man::new(command).source(concat!("vhdkit ", env!("CARGO_PKG_VERSION")));
    let mut page = Vec::new();
    man.render_title(&mut page)
        .and_then(|()| man.render_name_section(&mut page))
        .and_then(|()| synopsis(&usage, &mut page))
        .and_then(|()| man.render_description_section(&mut page))
        .and_then(|()| man.render_options_section(&mut page))
        .and_then(|()| {
            if has_subcommands {
                man.render_subcommands_section(&mut page)
            } else {
                Ok(())
            }
        })
        .map_err(|e: io::Error| Error::io("cannot write the manual page", e))?;
    page.extend(after_sections(&after).into_bytes());
    for (name, text) in more {
        page.extend(format!(".SH \"{name}\"\n.nf\n{}\n.fi\n", roff(&text)).into_bytes());
    }
    Ok(page)
}

/// The usage as in the help, with values and in order.
fn synopsis(usage: &str, page: &mut Vec<u8>) -> io::Result<()> {
    let usage = usage.trim_start_matches("Usage: ");
    let lines: Vec<&str> = usage.lines().map(str::trim).collect();
    writeln!(page, ".SH SYNOPSIS\n.nf\n{}\n.fi", roff(&lines.join("\n")))
}

/// Converts the end of the help to sections: the text before the examples, the examples, the exit codes.
fn after_sections(after: &str) -> String {
    let (notes, rest) = after.split_once("Examples:\n").unwrap_or((after, ""));
    let (examples, codes) = rest.split_once("Exit codes:\n").unwrap_or((rest, ""));
    let as_typed = |text: &str| format!(".nf\n{}\n.fi", roff(text.trim_end()));
    let sections = [
        ("NOTES", notes, roff(notes.trim_end())),
        ("EXAMPLES", examples, as_typed(examples)),
        ("EXIT STATUS", codes, as_typed(codes)),
    ];
    let mut page = String::new();
    for (name, text, markup) in sections {
        if !text.trim().is_empty() {
            page += ".SH \"";
            page += name;
            page += "\"\n";
            page += &markup;
            page.push('\n');
        }
    }
    page
}

/// Escapes text for the formatter.
fn roff(text: &str) -> String {
    let escaped = text.replace('\\', "\\e").replace('-', "\\-");
    let lines = escaped.lines().map(|line| {
        let guard = if line.starts_with(['.', '\'']) {
            "\\&"
        } else {
            ""
        };
        format!("{guard}{line}")
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_program_and_command_has_one_page() {
        let pages = pages(crate::cli::command_of);
        let names: Vec<_> = pages.iter().map(|(name, _)| name.as_str()).collect();
        for name in ["vhd", "vhd-diff", "vhd-apply", "vhd-info", "vhd-man"] {
            assert_eq!(names.iter().filter(|n| **n == name).count(), 1, "{name}");
        }
        for (name, command) in pages {
            let page = String::from_utf8(render(command).unwrap()).unwrap();
            assert!(page.contains(".SH \"EXAMPLES\"\n.nf\n"), "{name}");
            assert!(page.contains(".SH \"EXIT STATUS\"\n.nf\n"), "{name}");
            for section in ["SYNOPSIS", "\"ENVIRONMENT\"", "\"FILES\"", "\"SEE ALSO\""] {
                assert!(
                    page.contains(&format!(".SH {section}\n")),
                    "{name}: {section}"
                );
            }
            assert!(!page.contains('\u{a0}'), "{name}");
        }
    }

    #[test]
    fn text_is_not_taken_for_markup() {
        assert_eq!(roff("a-b\n.c\n'd\\"), "a\\-b\n\\&.c\n\\&'d\\e");
    }
}
