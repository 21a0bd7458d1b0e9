//! `vhd completions`: completion scripts for shells.

use clap_complete::Shell;
use serde::Serialize;

use super::exit::Outcome;
use super::output::Output;
use super::program::Program;
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
    /// Print JSON, with the script as one member.
    #[arg(long)]
    json: bool,
}

/// The output of `--json`.
#[derive(Serialize)]
struct View {
    program: &'static str,
    shell: String,
    script: String,
}

/// Completes files in bash where a command takes them: the generated script offers nothing but options until a letter
/// is typed. What is left to the shell is completed and quoted as usual.
fn with_files(script: &str) -> String {
    let mut lines = Vec::new();
    let mut leaf = false;
    let mut in_options = false;
    for line in script.lines() {
        let text = line.trim_start();
        if let Some(words) = text
            .strip_prefix("opts=\"")
            .and_then(|text| text.strip_suffix('"'))
        {
            in_options = false;
            // A command with subcommands has them among its words.
            leaf = !words.is_empty()
                && words
                    .split(' ')
                    .all(|word| word.starts_with(['-', '<', '[']));
        }
        in_options |= text.starts_with("case \"${prev}\" in");
        let line = if leaf && text.starts_with("if [[ ${cur} == -* || ${COMP_CWORD} -eq ") {
            line.split(" || ").next().unwrap_or(line).to_owned() + " ]] ; then"
        } else if leaf
            && in_options
            && text == "COMPREPLY=( $(compgen -W \"${opts}\" -- \"${cur}\") )"
        {
            in_options = false;
            line.replace(text, "COMPREPLY=()")
        } else {
            line.to_owned()
        };
        lines.push(line);
    }
    lines.join("\n") + "\n"
}

/// Prints the script for the command that `command_of` defines.
pub(super) fn run(args: &Args, command_of: fn(Program) -> clap::Command) -> Result<Outcome> {
    let mut script = Vec::new();
    let mut command = command_of(args.program);
    clap_complete::generate(args.shell, &mut command, args.program.name(), &mut script);
    if args.shell == Shell::Bash {
        script = with_files(&String::from_utf8_lossy(&script)).into_bytes();
    }
    let mut output = Output::text()?;
    if args.json {
        output.json(&View {
            program: args.program.name(),
            shell: args.shell.to_string(),
            script: String::from_utf8_lossy(&script).into_owned(),
        })?;
    } else {
        output.bytes(&script)?;
    }
    output.finish()?;
    Ok(Outcome::Done)
}
