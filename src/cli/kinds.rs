//! Kinds of stores: which command takes which, and which of its options mean something there.

use std::path::Path;

use clap::parser::ValueSource;
use clap::{ArgMatches, Command};

use super::{cloud, far};
use crate::error::{Error, Result, quoted};

/// A kind of store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A folder.
    Folder,
    /// A container of page blobs.
    Container,
    /// A managed disk with its snapshots.
    Managed,
    /// A resource group, to which the service copies snapshots.
    Group,
}

use Kind::{Container, Folder, Group, Managed};

impl Kind {
    /// The kind of what is named `path`.
    pub(super) fn of(path: &Path) -> Self {
        if cloud::is_group(path) {
            Group
        } else if cloud::is_name(path) {
            Managed
        } else if far::is_address(path) {
            Container
        } else {
            Folder
        }
    }

    /// What is said of an option that means nothing for it.
    const fn refusal(self) -> &'static str {
        match self {
            Folder => "this option isn't for a store in a folder",
            Container => "with a container of page blobs, this isn't possible",
            Managed => "this option isn't for snapshots of a managed disk",
            Group => "this option isn't for copies that the service makes",
        }
    }
}

/// The kinds that the argument `id` of `command` may be, if it names a store.
pub(super) fn taken(command: &str, id: &str) -> Option<&'static [Kind]> {
    Some(match (command, id) {
        (
            "create" | "list" | "show" | "diff" | "restore" | "delete" | "prune" | "copy",
            "store",
        ) => &[Folder, Container, Managed],
        ("verify" | "tag" | "hold", "store") | ("backup", "to") => &[Folder, Container],
        ("copy", "to") => &[Folder, Container, Group],
        // The state of the server is in a folder that isn't a store.
        ("azure", _) => return None,
        (_, "store") => &[Folder],
        _ => return None,
    })
}

/// The description of an argument that may be these kinds.
pub(super) fn help(id: &str, kinds: &[Kind]) -> String {
    let what = if id == "to" {
        "The store to copy to"
    } else {
        "The store"
    };
    let container = "the address of a container of page blobs, with a prefix";
    let named = match kinds {
        [Folder] => "a folder".to_owned(),
        [Folder, Container] => format!("a folder, or {container}"),
        [Folder, Container, Group] => {
            format!("a folder, or {container}; with --managed a resource group, as azure:GROUP")
        }
        _ => format!("a folder, {container}, or a managed disk, as azure:GROUP/DISK"),
    };
    format!("{what}: {named}")
}

/// Fails if the store at `path` isn't of a kind that this argument may be.
pub(super) fn admit(command: &str, kinds: &[Kind], path: &Path) -> Result<()> {
    let kind = Kind::of(path);
    let admitted = match kind {
        Folder | Container => true,
        Managed => kinds.contains(&Managed),
        // In place of a disk it is refused as the name of one.
        Group => kinds.contains(&Group) || kinds.contains(&Managed),
    };
    if admitted {
        return Ok(());
    }
    let (places, one) = if kinds.contains(&Container) {
        ("stores in folders and containers", "STORE")
    } else {
        ("stores in folders", "FOLDER")
    };
    let hint = match command {
        "copy" => {
            "name a folder or a container; or with --managed a resource group, as azure:GROUP"
                .to_owned()
        }
        "init" | "receive" | "backup" => format!("this is for {places}: name one"),
        _ => {
            let source = cloud::name(path).is_ok();
            let source = if source {
                quoted(path)
            } else {
                "azure:GROUP/DISK".to_owned()
            };
            format!(
                "this command is for {places}: name one, or copy the snapshots there first: \
                 vhd snapshot copy --store {source} --to {one} --init"
            )
        }
    };
    let what = if kind == Group {
        "this is the name of a resource group, which this command doesn't take here"
    } else {
        "this is the name of a managed disk, which this command doesn't take here"
    };
    Err(Error::usage(what).with_path(path).with_hint(hint))
}

/// The options of `command` that mean nothing for a store of this kind.
fn meaningless(command: &str, id: &str, kind: Kind) -> &'static [&'static str] {
    match (command, id, kind) {
        ("list", "store", Folder | Container) => &["no_changes"],
        ("create", "store", Folder) => &["sku"],
        ("create", "store", Container) => {
            &["also", "diff", "full", "like", "init", "compress", "sku"]
        }
        ("create", "store", Managed) => &[
            "disk",
            "image",
            "diff",
            "like",
            "also",
            "time",
            "source_resource_id",
            "source_unique_id",
            "changes",
            "check_changes",
            "compress",
            "init",
            "existing",
            "lock_timeout",
            "limit_rate",
            "files",
            "folders",
            "raw_parent",
            "format",
        ],
        ("show", "store", Managed) => &["disk", "at"],
        ("list", "store", Managed) => &["disk"],
        ("diff", "store", Container) => &["lock_timeout"],
        ("copy", "store", Managed) => &["lock_timeout", "unencrypted"],
        ("diff" | "prune", "store", Managed) => &["disk", "lock_timeout"],
        ("restore", "store", Container) => &[
            "in_place",
            "changes",
            "check_changes",
            "parent",
            "parent_path",
            "raw_parent",
            "windows_dir",
            "lock_timeout",
        ],
        ("restore", "store", Managed) => &[
            "disk",
            "at",
            "in_place",
            "changes",
            "check_changes",
            "parent",
            "parent_path",
            "raw_parent",
            "windows_dir",
            "lock_timeout",
        ],
        ("delete", "store", Managed) => &["disk", "release_hold", "lock_timeout"],
        ("copy", "store", Folder) => &["check_changes", "managed", "region"],
        ("copy", "store", Container) => &["check_changes", "managed", "region", "unencrypted"],
        ("copy", "to", Group) => &[
            "init",
            "disk",
            "jobs",
            "check_changes",
            "limit_rate",
            "unencrypted",
        ],
        ("verify", "store", Container) => &["read_data_subset", "max_age"],
        _ => &[],
    }
}

/// Fails if an option is given that means nothing for the kind of store that the command works with: it would be ignored,
/// and whoever gave it would believe that it wasn't.
pub(super) fn refuse_meaningless(command: &Command, matches: &ArgMatches) -> Result<()> {
    if let Some((name, matches)) = matches.subcommand()
        && let Some(inner) = command.find_subcommand(name)
    {
        return refuse_meaningless(inner, matches);
    }
    let name = command.get_name();
    for store in command.get_arguments() {
        let id = store.get_id().as_str();
        if taken(name, id).is_none() {
            continue;
        }
        let Some(path) = matches.get_one::<std::path::PathBuf>(id) else {
            continue;
        };
        let kind = Kind::of(path);
        for option in meaningless(name, id, kind) {
            let given = matches.value_source(option) == Some(ValueSource::CommandLine);
            let Some(arg) = command.get_arguments().find(|arg| arg.get_id() == option) else {
                continue;
            };
            if given {
                return Err(refused(name, kind, &displayed(arg), path));
            }
        }
    }
    Ok(())
}

/// An option as it is written on the command line, or what stands for an argument in the usage.
fn displayed(arg: &clap::Arg) -> String {
    match arg.get_long() {
        Some(long) => format!("--{long}"),
        None => arg.get_id().as_str().to_uppercase(),
    }
}

fn refused(command: &str, kind: Kind, option: &str, store: &Path) -> Error {
    let hint = match (command, kind, option) {
        ("copy", _, "--check-changes") => {
            format!(
                "omit {option}: everything that is copied from a store is verified by its digest"
            )
        }
        ("restore", Container | Managed, "--in-place" | "--parent") => {
            let store = quoted(store);
            format!(
                "omit {option}; or copy the disk to a folder first: vhd snapshot copy --store {store} --to FOLDER --init"
            )
        }
        _ => format!("omit {option}"),
    };
    Error::usage(kind.refusal())
        .with_path(store)
        .with_found(option)
        .with_hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{command_of, program::Program};

    /// Options that mean something whatever the kind of store, or that aren't about the store.
    const ALWAYS: &[&str] = &[
        "store",
        "to",
        "json",
        "help",
        "dry_run",
        "snapshots",
        "snapshot",
    ];

    /// The options that mean something, for each command and kind of store but a folder. An option that is in neither list was
    /// never thought of.
    fn meant(command: &str, kind: Kind) -> &'static [&'static str] {
        match (command, kind) {
            ("create", Container) => &[
                "disk",
                "image",
                "name",
                "time",
                "source_resource_id",
                "source_unique_id",
                "tag",
                "changes",
                "check_changes",
                "existing",
                "format",
                "files",
                "folders",
                "raw_parent",
                "lock_timeout",
                "limit_rate",
            ],
            ("create", Managed) => &["name", "tag", "full", "sku"],
            ("list", Container) => &["disk"],
            ("list", Managed) => &["no_changes"],
            ("show", Container) => &["disk", "at"],
            ("diff", Container) => &[
                "from", "disk", "output", "format", "by_file", "all", "compress", "force",
            ],
            ("diff", Managed) => &[
                "from", "output", "format", "by_file", "all", "compress", "force",
            ],
            ("restore", Container) => &[
                "disk",
                "at",
                "output",
                "output_format",
                "force",
                "dense",
                "limit_rate",
            ],
            ("restore", Managed) => &["output", "output_format", "force", "dense", "limit_rate"],
            ("delete", Container) => &["disk", "last", "release_hold", "lock_timeout"],
            ("delete", Managed) => &["last"],
            ("prune", Container) => &["disk", "lock_timeout", "rules"],
            ("prune", Managed) => &["rules"],
            // The number of requests, of a container.
            ("copy", Container) => &["init", "disk", "jobs", "lock_timeout", "limit_rate"],
            ("copy", Managed) => &[
                "init",
                "disk",
                "jobs",
                "check_changes",
                "limit_rate",
                "managed",
                "region",
            ],
            ("verify", Container) => &["disk", "read_data", "limit_rate"],
            ("tag", Container) => &["disk", "set", "remove", "lock_timeout"],
            ("hold", Container) => &["disk", "reason", "release", "lock_timeout"],
            _ => &[],
        }
    }

    #[test]
    fn each_option_means_something_for_a_kind_of_store_or_is_refused() {
        let program = command_of(Program::Vhd);
        let snapshot = program.find_subcommand("snapshot").unwrap();
        let mut seen = 0;
        for command in snapshot.get_subcommands() {
            let name = command.get_name();
            let Some(kinds) = taken(name, "store") else {
                continue;
            };
            for kind in kinds.iter().filter(|kind| **kind != Folder) {
                let (no, yes) = (meaningless(name, "store", *kind), meant(name, *kind));
                for arg in command.get_arguments() {
                    let id = arg.get_id().as_str();
                    let id = if id.starts_with("keep_") { "rules" } else { id };
                    if ALWAYS.contains(&id) {
                        continue;
                    }
                    let decided = [no.contains(&id), yes.contains(&id)];
                    assert!(
                        decided[0] != decided[1],
                        "{name}, {kind:?}: {id} {decided:?}"
                    );
                    seen += 1;
                }
            }
            for kind in [Folder, Container, Managed] {
                for option in meaningless(name, "store", kind) {
                    let known = command.get_arguments().any(|arg| arg.get_id() == option);
                    assert!(known, "{name}: {option}");
                }
            }
        }
        assert!(seen > 90, "{seen}");
    }

    #[test]
    fn the_help_of_a_store_names_what_the_command_takes() {
        let program = command_of(Program::Vhd);
        let snapshot = program.find_subcommand("snapshot").unwrap();
        for command in snapshot.get_subcommands() {
            let Some(kinds) = taken(command.get_name(), "store") else {
                continue;
            };
            let Some(arg) = command.get_arguments().find(|arg| arg.get_id() == "store") else {
                continue;
            };
            let said = arg.get_help().map(ToString::to_string).unwrap_or_default();
            for (kind, word) in [(Container, "container"), (Managed, "managed disk")] {
                let (name, takes) = (command.get_name(), kinds.contains(&kind));
                assert_eq!(said.contains(word), takes, "{name}: {said}");
            }
        }
    }
}
