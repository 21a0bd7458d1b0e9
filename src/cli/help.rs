//! The form of the help: short with `-h`, complete with `--help`, and every example on one line.

use clap::{Arg, Command};

use super::store_path::STORE_VARIABLE;

/// A placeholder for a space at which a line must not be broken, until the help is printed.
const UNBROKEN: char = '\u{a0}';

/// Headings whose options only the long help shows.
const LONG_ONLY: &[&str] = &["Parents of differencing VHDs", "Reading"];

/// Options that only the long help shows, whatever the command.
const RARE: &[&str] = &[
    "sku",
    "source_resource_id",
    "source_unique_id",
    "check_changes",
    "threads",
    "progress",
    "journal_dir",
];

/// Gives `command` and its subcommands a short and a long help.
pub(super) fn shape(command: Command) -> Command {
    let after = command.get_after_help().map(ToString::to_string);
    let after = after.unwrap_or_default();
    let (notes, rest) = after.split_once("Examples:\n").unwrap_or((&after, ""));
    let (examples, codes) = rest.split_once("\n\n").unwrap_or((rest, ""));
    let examples: Vec<String> = examples.lines().map(unbroken).collect();
    let examples = examples.join("\n");
    let (long, short) = if rest.is_empty() {
        (after.clone(), String::new())
    } else {
        (
            format!("{notes}Examples:\n{examples}\n\n{codes}"),
            format!(
                "Examples:\n{examples}\n\n--help has all options, the exit codes, and how it works."
            ),
        )
    };
    let command = command
        .mut_args(|arg| {
            let rare = is_rare(&arg) || arg.is_hide_short_help_set();
            arg.hide_short_help(rare)
        })
        .mut_subcommands(shape);
    if after.is_empty() {
        return command;
    }
    command.after_help(short).after_long_help(long)
}

fn is_rare(arg: &Arg) -> bool {
    let heading = arg.get_help_heading();
    heading.is_some_and(|heading| LONG_ONLY.contains(&heading))
        || RARE.contains(&arg.get_id().as_str())
}

fn unbroken(line: &str) -> String {
    line.replace(' ', &UNBROKEN.to_string())
}

/// The help in its printed form.
pub(super) fn printed(text: &str) -> String {
    text.replace(UNBROKEN, " ")
}

/// The manual's additional sections: name and text.
pub(super) fn sections(command: &Command) -> Vec<(&'static str, String)> {
    let mut environment = String::new();
    let store = command
        .get_arguments()
        .any(|arg| arg.get_env().is_some_and(|env| env == STORE_VARIABLE));
    if store || command.get_name() == "snapshot" {
        environment += "VHDKIT_STORE\n    The store, where --store isn't given.\n";
    }
    environment += "VHDKIT_PASSPHRASE_FILE, VHDKIT_KEY_FILE\n    The file with the passphrase, and the file with the key, of \
                    encrypted stores, where neither --passphrase-file nor --key-file is given.\n";
    environment += "VHDKIT_STATE_DIR\n    Where the undo journals of block devices are, where --journal-dir isn't given; \
                    else /var/lib/vhdkit.\n\
                    NO_COLOR\n    If it is set, nothing is coloured.";
    let files = "IMAGE.undo-journal\n    The way back while IMAGE is changed in place; if it was left, the apply was \
                 interrupted, and vhd-apply finishes it or takes it back.\n\
                 IMAGE.before-repair\n    What vhd check --repair replaced.\n\
                 .vhdkit-*.tmp\n    A file that isn't finished. What a killed command left may be removed.\n\
                 /var/lib/vhdkit\n    The undo journals of block devices.";
    vec![
        ("ENVIRONMENT", environment),
        ("FILES", files.to_owned()),
        (
            "SEE ALSO",
            "vhd(1), vhd-diff(1), vhd-apply(1), vhd-info(1), vhd-check(1), vhd-convert(1), vhd-snapshot(1)".to_owned(),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{command_of, program::Program};

    fn all(command: &Command, each: &mut impl FnMut(&Command)) {
        each(command);
        let own = command.get_subcommands().filter(|c| c.get_name() != "help");
        own.for_each(|inner| all(inner, each));
    }

    #[test]
    fn the_short_help_fits_and_examples_are_not_broken() {
        for program in Program::ALL {
            let mut program = command_of(program);
            program.build();
            all(&program, &mut |command| {
                let mut command = command.clone().term_width(60);
                let short = command.render_help().to_string();
                assert!(short.lines().count() <= 90, "{short}");
                let long = command.render_long_help().to_string();
                for help in [&short, &long] {
                    let examples = help.split("Examples:\n").nth(1).unwrap_or_default();
                    let examples = examples.split("\n\n").next().unwrap_or_default();
                    for line in printed(examples).lines() {
                        let begins = [
                            "vhd", "last=", "at=", "az ", "zstd ", "ssh ", "export ", "Get-",
                            "mount ",
                        ];
                        let begins = begins
                            .iter()
                            .any(|lead| line.trim_start().starts_with(lead));
                        assert!(begins, "{}: {line:?}", command.get_name());
                    }
                }
                assert!(
                    long.contains("Exit codes:") && !short.contains("Exit codes:"),
                    "{short}\n{long}"
                );
            });
        }
    }
}
