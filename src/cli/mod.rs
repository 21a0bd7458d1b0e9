//! The command line: the only module that prints, exits or knows about terminals. One file per command.
//!
//! Data goes to stdout, everything else to stderr. `vhd diff` and `vhd-diff` are the same code, as are
//! `vhd apply` and `vhd-apply`.

// Printing belongs here.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Args as _, CommandFactory as _, Parser, Subcommand};

use crate::error::Result;
use crate::files::keep_journals_of_devices_in;
use crate::text::shown;

mod apply;
mod args;
mod azure;
mod backup;
mod change_report;
mod changed_files;
mod changes;
mod check;
mod cloud;
mod codes;
mod completions;
mod context;
mod convert;
mod create;
mod demo;
mod diff;
mod document;
mod exit;
mod far;
mod far_apply;
mod fetch;
mod files;
mod gpt;
mod hash;
mod help;
mod info;
mod json;
mod keys;
mod kinds;
mod listing;
mod man;
mod map;
mod merge;
mod message;
mod mount;
mod names;
mod output;
mod picture;
mod program;
mod progress;
mod rate;
mod rebase;
mod remedy;
mod remote;
mod resize;
mod role;
mod serve;
mod serve_azure;
mod serving;
mod several;
mod show;
mod signals;
mod size;
mod snapshot;
mod span;
mod squash;
mod stdin;
mod store_path;
mod take_back;
mod tree;
mod upload;
mod upload_disk;
mod usage;
mod when;

use args::Common;
use context::Context;
use exit::Outcome;
use program::Program;

pub use remedy::said;

/// Inspect, create, compare and patch disk images: VHD files and raw ones.
#[derive(Debug, Parser)]
#[command(
    name = "vhd",
    version,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = concat!(
        "Examples:\n",
        "  vhd info disk.vhd                         every field of an image\n",
        "  vhd convert disk.raw disk.vhd             a raw disk as a dynamic VHD\n",
        "  vhd diff monday.vhd tuesday.vhd -o d      what changed from monday to tuesday\n",
        "  vhd apply monday.vhd d -o restored.vhd    tuesday, rebuilt from monday and the diff\n",
        "  vhd demo                                  the whole workflow on small images\n\n",
        args::exit_codes!(),
    )
)]
struct Vhd {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

/// The commands of `vhd`.
#[derive(Debug, Subcommand)]
enum Command {
    Diff(diff::Args),
    Apply(apply::Args),
    Info(info::Args),
    Check(check::Args),
    Map(map::Args),
    Files(files::Args),
    Hash(hash::Args),
    Create(create::Args),
    Convert(convert::Args),
    Resize(resize::Args),
    Merge(merge::Args),
    Rebase(rebase::Args),
    Tree(tree::Args),
    Show(show::Args),
    #[command(alias = "snap")]
    Snapshot(snapshot::Args),
    Backup(backup::Args),
    Azure(azure::Args),
    Squash(squash::Args),
    Serve(serve::Args),
    Mount(mount::Args),
    Unmount(mount::UnmountArgs),
    Demo(demo::Args),
    Completions(completions::Args),
    Man(man::Args),
}

impl Command {
    fn run(&self, context: &Context) -> Result<Outcome> {
        match self {
            Self::Diff(args) => diff::run(args, context),
            Self::Apply(args) => apply::run(args, context),
            Self::Info(args) => info::run(args, context),
            Self::Check(args) => check::run(args, context),
            Self::Map(args) => map::run(args, context),
            Self::Files(args) => files::run(args, context),
            Self::Hash(args) => hash::run(args, context),
            Self::Create(args) => create::run(args, context),
            Self::Convert(args) if upload::is_wanted(args) => upload::run(args, context),
            Self::Convert(args) if upload_disk::is_wanted(args) => upload_disk::run(args, context),
            Self::Convert(args) => convert::run(args, context),
            Self::Resize(args) => resize::run(args, context),
            Self::Merge(args) => merge::run(args, context),
            Self::Rebase(args) => rebase::run(args, context),
            Self::Tree(args) => tree::run(args, context),
            Self::Show(args) => show::run(args, context),
            Self::Snapshot(args) => snapshot::run(args, context),
            Self::Azure(args) => azure::run(args, context),
            Self::Backup(args) => backup::run(args, context),
            Self::Squash(args) => squash::run(args, context),
            Self::Serve(args) => serve::run(args, context),
            Self::Mount(args) => mount::run(args, context),
            Self::Unmount(args) => mount::run_unmount(args),
            Self::Demo(args) => demo::run(args, context),
            Self::Completions(args) => completions::run(args, command_of),
            Self::Man(args) => man::run(args, command_of),
        }
    }
}

/// Runs `vhd`: what `src/bin/vhd.rs` calls.
pub fn vhd() -> ExitCode {
    start::<Vhd>(
        Program::Vhd,
        |vhd, context| vhd.command.run(context),
        |vhd| &vhd.common,
    )
}

/// Runs `vhd-diff`, which is `vhd diff`.
pub fn vhd_diff() -> ExitCode {
    start::<Single<diff::Args>>(
        Program::VhdDiff,
        |single, context| diff::run(&single.args, context),
        |single| &single.common,
    )
}

/// Runs `vhd-apply`, which is `vhd apply`.
pub fn vhd_apply() -> ExitCode {
    start::<Single<apply::Args>>(
        Program::VhdApply,
        |single, context| apply::run(&single.args, context),
        |single| &single.common,
    )
}

/// A program that consists of one command.
#[derive(Debug)]
struct Single<A> {
    common: Common,
    args: A,
}

impl<A: clap::Args> clap::FromArgMatches for Single<A> {
    fn from_arg_matches(matches: &clap::ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self {
            common: Common::from_arg_matches(matches)?,
            args: A::from_arg_matches(matches)?,
        })
    }

    fn update_from_arg_matches(&mut self, matches: &clap::ArgMatches) -> Result<(), clap::Error> {
        self.common.update_from_arg_matches(matches)?;
        self.args.update_from_arg_matches(matches)
    }
}

/// The one definition behind parsing, help, completions and man pages.
fn command_of(program: Program) -> clap::Command {
    help::shape(names::guard(match program {
        Program::Vhd => Vhd::command(),
        Program::VhdDiff => single::<diff::Args>(program),
        Program::VhdApply => single::<apply::Args>(program),
    }))
}

fn single<A: clap::Args>(program: Program) -> clap::Command {
    let command = clap::Command::new(program.name())
        .version(env!("CARGO_PKG_VERSION"))
        .max_term_width(100);
    // The common options come last: their heading would apply to everything after them.
    Common::augment_args(A::augment_args(command))
}

fn start<T: clap::FromArgMatches>(
    program: Program,
    run: impl FnOnce(&T, &Context) -> Result<Outcome>,
    common: impl FnOnce(&T) -> &Common,
) -> ExitCode {
    let name = program.name();
    let args: Vec<OsString> = std::env::args_os().collect();
    let mut options = args.iter().take_while(|arg| *arg != "--");
    let json = options.any(|arg| arg == "--json");
    let command = usage::called(&command_of(program), &args);
    if json {
        document::begin(&command);
    }
    let parsed = match parse::<T>(program, args.clone()) {
        Ok(parsed) => parsed,
        Err(mut error) => {
            if let Some(meant) = usage::explain(&mut error, &command_of(program), &args) {
                return exit::code(name, Err(meant));
            }
            // Unknown arguments are repeated in escaped form.
            let seen = args.iter().map(|arg| shown(arg).to_string().into());
            return match parse::<T>(program, seen) {
                Err(seen) => exit::from_clap(name, &seen),
                Ok(_) => exit::unreadable_arguments(name, &error),
            };
        }
    };
    if !json && asks_for_json(&parsed.1) {
        document::begin(&command);
    }
    let (parsed, matches) = parsed;
    let meant = kinds::refuse_meaningless(&command_of(program), &matches);
    let common = common(&parsed);
    let named = common.journal_dir.clone();
    let named = named.or_else(|| std::env::var_os("VHDKIT_STATE_DIR").map(Into::into));
    if let Some(folder) = named.filter(|folder| !folder.as_os_str().is_empty()) {
        // A command started in another folder must find it by the path in a message.
        keep_journals_of_devices_in(std::path::absolute(&folder).unwrap_or(folder));
    }
    keys::offer(name, &common.keys);
    let context = Context::new(name, common);
    let result = signals::watch(name)
        .and(meant)
        .and_then(|()| run(&parsed, &context));
    take_back::end(name);
    if result.is_ok() {
        context.tell_time();
    }
    exit::code(name, result)
}

fn parse<T: clap::FromArgMatches>(
    program: Program,
    args: impl IntoIterator<Item = OsString>,
) -> Result<(T, clap::ArgMatches), clap::Error> {
    // Usage lines contain the name of the program, whatever the name of the link that was used to start it.
    let args: Vec<OsString> = std::iter::once(program.name().into())
        .chain(args.into_iter().skip(1))
        .collect();
    let mut command = command_of(program);
    let matches = command.try_get_matches_from_mut(args)?;
    names::watch_outputs(&command, &matches);
    let parsed = T::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
    Ok((parsed, matches))
}

/// Returns whether a command lists its findings as JSON without the `--json` option.
fn asks_for_json(matches: &clap::ArgMatches) -> bool {
    let format = matches.try_get_one::<change_report::ListFormat>("format");
    matches!(format, Ok(Some(change_report::ListFormat::Json)))
        || matches
            .subcommand()
            .is_some_and(|(_, inner)| asks_for_json(inner))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definitions_are_sound() {
        for program in Program::ALL {
            command_of(program).debug_assert();
        }
    }

    #[test]
    fn every_command_prints_json_if_asked() {
        fn walk(command: &clap::Command, path: &str) {
            let inner: Vec<_> = command
                .get_subcommands()
                .filter(|c| c.get_name() != "help")
                .collect();
            if inner.is_empty() {
                let has = command
                    .get_arguments()
                    .any(|arg| arg.get_long() == Some("json"));
                assert!(has, "{path} has no --json");
            }
            for command in inner {
                walk(command, &format!("{path} {}", command.get_name()));
            }
        }
        for program in Program::ALL {
            walk(&command_of(program), program.name());
        }
    }

    #[test]
    fn every_command_has_examples_and_a_short_description() {
        for program in Program::ALL {
            let command = command_of(program);
            let all = command.get_subcommands().chain([&command]);
            for command in all.filter(|c| c.get_name() != "help") {
                let name = command.get_name();
                let after = command.get_after_help().map(ToString::to_string);
                assert!(after.unwrap_or_default().contains("Examples:"), "{name}");
                assert!(command.get_about().is_some(), "{name}");
            }
        }
    }
}
