//! One check for the paths that the arguments of every command may refer to.
//!
//! `-` is a pipe, `STORE::DISK@SNAPSHOT` a point in time, and an address of another machine is never treated as a file
//! or folder of that name: someone who writes to `backup@nas:/srv/web` must not find out later that it was a folder
//! next to the data. Each argument that is a path has a [`Role`]; unsuitable values are refused before anything else
//! happens.

use std::path::{Path, PathBuf};

use clap::builder::{PathBufValueParser, TypedValueParser as _};
use clap::{ArgMatches, Command, ValueHint};

use super::remote::Remote;
use super::role::Role;
use super::signals;
use super::store_path::STORE_VARIABLE;
use super::{cloud, far, kinds};
use crate::api::PointName;
use crate::error::{Error, ErrorKind, Result, quoted};
use crate::snapshot::{MARKER, disks};
use crate::storage::{is_beside_stored, refuse_part_of_store};

/// The role of the argument `id` of `command`, which is the name of a subcommand or of a program. Returns `None` for an
/// unknown argument; a test finds those.
fn role(command: &str, id: &str) -> Option<Role> {
    Some(match (command, id) {
        ("check" | "merge" | "resize", "images" | "image" | "child")
        | ("rebase", "child" | "parent" | "old_parent")
        | (_, "from_child")
        | ("create" | "restore", "parent") => Role::ImageFile,
        ("serve" | "mount", "what") => Role::Served,
        (_, "base" | "target" | "image" | "images" | "source" | "files") => Role::Image,
        (_, "diff" | "diffs" | "list" | "changes" | "after_status") => Role::Input,
        (
            _,
            "base_digests" | "take_back" | "passphrase_file" | "new_passphrase_file" | "key_file",
        ) => Role::InputFile,
        ("create", "path") | (_, "undo" | "windows" | "socket" | "recovery_key") => {
            Role::OutputFile
        }
        (_, "output" | "destination") => Role::Output,
        ("azure", "store")
        | (_, "folder" | "folders" | "parent_path" | "journal_dir" | "dir" | "keep") => {
            Role::Folder
        }
        (_, "store" | "from") => Role::Store,
        (_, "to") => Role::StoreTo,
        _ => return None,
    })
}

/// Attaches the check for its role to every path among the arguments of `command` and of its subcommands.
pub(super) fn guard(command: Command) -> Command {
    let name = command.get_name().trim_start_matches("vhd-").to_owned();
    command
        .mut_args(|arg| {
            if !arg.get_action().takes_values() {
                return arg;
            }
            if !is_path(&arg) {
                // Its value isn't a file.
                return arg.value_hint(ValueHint::Other);
            }
            // An empty variable doesn't specify a store, as if it weren't set.
            let variable = arg.get_env().and_then(std::env::var_os);
            let arg = if variable.is_some_and(|value| value.is_empty()) {
                arg.env(None::<&str>)
            } else {
                arg
            };
            // An argument without a role gets the narrowest one.
            let role = role(&name, arg.get_id().as_str()).unwrap_or(Role::ImageFile);
            let id = arg.get_id().as_str();
            let stores = kinds::taken(&name, id);
            let creates = creates_disks(&name, id);
            let blobs = match stores {
                Some(taken) => taken.contains(&kinds::Kind::Container),
                None => takes_blobs(&name, id),
            };
            let arg = match stores {
                Some(taken) => {
                    let help = kinds::help(id, taken);
                    arg.help(help)
                }
                None => arg,
            };
            let (command, filled) = (name.clone(), is_filled(&name, arg.get_id().as_str()));
            let check = move |path: PathBuf| {
                stores.map_or(Ok(()), |taken| kinds::admit(&command, taken, &path))?;
                let path = take(role, blobs, creates, path)?;
                if filled {
                    refuse_folder_of_store(&path)?;
                }
                Ok::<_, Error>(path)
            };
            let hint = match role {
                Role::Store | Role::StoreTo | Role::Folder => ValueHint::DirPath,
                _ => ValueHint::FilePath,
            };
            arg.value_parser(PathBufValueParser::new().try_map(check))
                .value_hint(hint)
        })
        .mut_subcommands(guard)
}

/// Returns whether the argument `id` of `command`, which isn't a store, may be the address of a page blob, or a managed disk.
fn takes_blobs(command: &str, id: &str) -> bool {
    matches!(
        (command, id),
        ("backup" | "check", "source")
            | ("info" | "hash" | "check", "images")
            | ("map" | "create", "image")
            | ("convert", "source" | "destination")
            | ("diff", "base" | "target")
            | ("apply", "base" | "output")
            | ("restore", "output")
    )
}

/// Returns whether the argument `id` of `command` may be the name of a new managed disk.
fn creates_disks(command: &str, id: &str) -> bool {
    matches!(
        (command, id),
        ("convert", "destination") | ("restore", "output")
    )
}

/// Resolves a path, and refuses what it can't be. `blobs`: whether it may be an address, or the name of a managed disk; `creates`:
/// whether an output may be one.
fn take(role: Role, blobs: bool, creates: bool, path: PathBuf) -> Result<PathBuf> {
    let reads = matches!(role, Role::Image | Role::Served);
    let path = if blobs || reads {
        far::from_file(path)?
    } else {
        path
    };
    if let Some((store, point)) = far::split_point(&path) {
        let store = far::admit_store(&store)?;
        let mut name = store.clone().into_os_string();
        name.push("::");
        name.push(&point);
        let path = PathBuf::from(name);
        return match PointName::parse(&path) {
            Some(point) if !reads => refuse_point(role, &path, &point).map(|()| path),
            _ => Ok(path),
        };
    }
    if !blobs {
        return admit(role, &path).map(|()| path);
    }
    if (creates || !matches!(role, Role::Output | Role::OutputFile)) && cloud::is_name(&path) {
        return cloud::admit(role, &path).map(|()| path);
    }
    // A store can't be reached like this.
    if far::is_address(&path) && PointName::parse(&path).is_none() {
        return match role {
            Role::Store | Role::StoreTo => far::admit_store(&path),
            _ => far::admit(&path),
        };
    }
    admit(role, &path).map(|()| path)
}

/// Records which files and stores the command will write, so that their state can be reported if it is interrupted.
pub(super) fn watch_outputs(command: &Command, matches: &ArgMatches) {
    let name = command.get_name().trim_start_matches("vhd-");
    for arg in command.get_arguments().filter(|arg| is_path(arg)) {
        let id = arg.get_id().as_str();
        let paths = matches.try_get_many::<PathBuf>(id).ok().flatten();
        for path in paths.into_iter().flatten() {
            match role(name, id) {
                Some(Role::Output | Role::OutputFile) if path != Path::new("-") => {
                    signals::writes(path);
                }
                Some(Role::StoreTo) if !cloud::is_group(path) => signals::writes_store(path),
                Some(Role::Store)
                    if id == "store" && !cloud::is_name(path) && WRITE_STORES.contains(&name) =>
                {
                    signals::writes_store(path);
                }
                _ => {}
            }
        }
    }
    if let Some((name, matches)) = matches.subcommand()
        && let Some(inner) = command.find_subcommand(name)
    {
        watch_outputs(inner, matches);
    }
}

/// The commands that change the given store.
const WRITE_STORES: &[&str] = &[
    "init", "create", "receive", "delete", "prune", "repair", "upgrade",
];

fn is_path(arg: &clap::Arg) -> bool {
    arg.get_action().takes_values()
        && arg.get_value_parser().type_id() == std::any::TypeId::of::<PathBuf>()
}

/// Fails if `path` refers to something that an argument in this role can't be.
pub(super) fn admit(role: Role, path: &Path) -> Result<()> {
    if path == Path::new("-") {
        return refuse_pipe(role);
    }
    if role == Role::StoreTo {
        return Ok(());
    }
    if let Some(remote) = Remote::of(path) {
        return Err(remote.refusal(role, path));
    }
    if let Some(point) = PointName::parse(path) {
        if let Some(remote) = Remote::of(Path::new(point.store)) {
            return Err(remote.refusal(Role::Store, Path::new(point.store)));
        }
        return refuse_point(role, path, &point);
    }
    match role {
        Role::Image | Role::ImageFile => refuse_bare_point(path).and_then(|()| refuse_store(path)),
        Role::Output | Role::OutputFile => check_place(path),
        _ => Ok(()),
    }
}

/// Returns whether there is a folder at `path`. That it can't be looked at doesn't mean that there is none.
fn is_folder(path: &Path) -> Result<bool> {
    use std::io::ErrorKind::{InvalidFilename, InvalidInput, NotADirectory, NotFound};
    match std::fs::metadata(path) {
        Ok(found) => Ok(found.is_dir()),
        Err(e)
            if matches!(
                e.kind(),
                NotFound | NotADirectory | InvalidInput | InvalidFilename
            ) =>
        {
            Ok(false)
        }
        Err(e) => Err(Error::io("cannot look at", e).with_path(path)),
    }
}

/// Returns whether there is a store at `path`. One that can't be read isn't taken for another folder.
pub(super) fn is_store(path: &Path) -> Result<bool> {
    if !is_folder(path)? {
        return Ok(false);
    }
    match disks(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::Usage => Ok(false),
        Err(error) => Err(error),
    }
}

/// Refuses a store in place of an image.
fn refuse_store(path: &Path) -> Result<()> {
    if !is_store(path)? {
        return Ok(());
    }
    let mut point = path.as_os_str().to_owned();
    point.push("::DISK@SNAPSHOT");
    Err(Error::usage("this is a store, not an image")
        .with_path(path)
        .with_hint(format!(
            "name a point in time of it, as in {}: vhd snapshot list --store {} lists them",
            quoted(point),
            quoted(path)
        )))
}

/// Fails if a file can't be created at `path` because that is a folder or its folder doesn't exist, before anything is
/// read.
fn check_place(path: &Path) -> Result<()> {
    if path.file_name().is_some_and(|name| name == MARKER) {
        return Err(Error::usage(
            "this is the name of a store's marker, which only the store writes",
        )
        .with_path(path)
        .with_hint("choose another name"));
    }
    let slash = path.as_os_str().as_encoded_bytes().ends_with(b"/");
    if path.is_dir() || slash {
        return Err(
            Error::usage("this is a folder, where the name of a file is needed")
                .with_path(path)
                .with_hint(format!(
                    "use the name of a file in it, as in {}",
                    quoted(path.join("disk.vhd"))
                )),
        );
    }
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() && !folder.is_dir() => {
            let there = std::fs::symlink_metadata(folder).is_ok();
            let (message, hint) = if there {
                (
                    "this isn't a folder, so no file can be created in it",
                    "check the name".into(),
                )
            } else {
                (
                    "there is no such folder",
                    format!("create it first: mkdir -p {}", quoted(folder)),
                )
            };
            Err(Error::usage(message).with_path(folder).with_hint(hint))
        }
        _ => refuse_in_store(path),
    }
}

/// Fails if a new file at `path` would be in the folder of a store or of one of its disks: only the store knows what belongs
/// there.
fn refuse_in_store(path: &Path) -> Result<()> {
    refuse_part_of_store(path)?;
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    // What was there before the folder became a store stays what it is.
    let beside_disks = !path.exists() && folder.join(MARKER).exists();
    if !beside_disks && !is_beside_stored(path)? {
        return Ok(());
    }
    let name = path.file_name().unwrap_or_default();
    let elsewhere = std::env::current_dir().is_ok_and(|here| {
        !here.join(MARKER).exists()
            && is_beside_stored(&here.join(name)).is_ok_and(|beside| !beside)
    });
    let hint = if elsewhere && folder != Path::new(".") {
        format!(
            "choose another folder, as in {}",
            quoted(Path::new(".").join(name))
        )
    } else {
        "choose another folder; vhd snapshot create adds an image to a store".to_owned()
    };
    Err(
        Error::usage("this is in the folder of a store, where only the store makes files")
            .with_path(path)
            .with_hint(hint),
    )
}

/// Fails if the folder `path`, in which the command makes files, belongs to a store.
fn refuse_folder_of_store(path: &Path) -> Result<()> {
    if !path.join(MARKER).exists() && !is_beside_stored(&path.join("new"))? {
        return Ok(());
    }
    Err(
        Error::usage("this is the folder of a store, where only the store makes files")
            .with_path(path)
            .with_hint("choose another folder"),
    )
}

/// The arguments that name a folder in which the command makes files.
fn is_filled(command: &str, id: &str) -> bool {
    matches!(
        (command, id),
        ("man", "dir") | ("demo", "keep") | ("azure", "store") | (_, "journal_dir")
    )
}

fn refuse_pipe(role: Role) -> Result<()> {
    let (message, hint) = match role {
        Role::Input | Role::Output => return Ok(()),
        Role::Image | Role::ImageFile | Role::Served => (
            "an image can't be read from a pipe, because it isn't read sequentially",
            "save it to a file first; ./- is a file of that name",
        ),
        Role::InputFile => (
            "this can't be read from a pipe",
            "save it to a file first; ./- is a file of that name",
        ),
        Role::OutputFile => (
            "this can't be written to a pipe, because it isn't written sequentially",
            "name a file; ./- is a file of that name",
        ),
        Role::Store | Role::StoreTo => (
            "a store is a folder, not a pipe",
            "snapshots go through a pipe with vhd snapshot send and vhd snapshot receive",
        ),
        Role::Folder => ("a folder is needed, not a pipe", "name a folder"),
    };
    Err(Error::usage(message).with_path("-").with_hint(hint))
}

fn refuse_point(role: Role, path: &Path, point: &PointName<'_>) -> Result<()> {
    // A new file of such a name can be requested explicitly.
    let explicit = path.as_os_str().as_encoded_bytes().starts_with(b"./");
    let store = if point.store.is_empty() {
        String::new()
    } else {
        format!(" --store {}", quoted(point.store))
    };
    let disk = quoted(point.disk);
    let name = point.snapshot.unwrap_or("newest");
    let whole = match point.snapshot {
        Some(name) => quoted(format!("{}@{name}", point.disk)),
        None => format!("--disk {disk}"),
    };
    let (message, hint) = match role {
        Role::Image | Role::Served => return Ok(()),
        Role::Output | Role::OutputFile if explicit => return Ok(()),
        Role::ImageFile | Role::InputFile => (
            "a point in time of a store isn't a file",
            format!(
                "create an image from it first: vhd snapshot restore{store} {whole} -o {}",
                quoted(format!("{name}.vhd"))
            ),
        ),
        Role::Input => (
            "a point in time of a store isn't a diff",
            format!(
                "create a diff between two points first: vhd snapshot diff{store} --disk {disk}"
            ),
        ),
        Role::Output | Role::OutputFile => (
            "a point in time of a store can't be created by using it as an output",
            format!(
                "add one with vhd snapshot create{store} --disk {disk}; {} is a file of that name",
                quoted(Path::new(".").join(path))
            ),
        ),
        Role::Store | Role::StoreTo => (
            "this is a point in time of a store, not a store",
            format!("specify them separately:{store} --disk {disk}"),
        ),
        Role::Folder => (
            "a folder is needed, not a point in time of a store",
            "name a folder".to_owned(),
        ),
    };
    Err(Error::usage(message).with_path(path).with_hint(hint))
}

/// Refuses `DISK@SNAPSHOT` as an image if the store is given by the environment: two colons are missing.
fn refuse_bare_point(path: &Path) -> Result<()> {
    let Some(text) = path.to_str() else {
        return Ok(());
    };
    let point = text.split_once('@').is_some_and(|(disk, snapshot)| {
        !disk.is_empty() && !snapshot.is_empty() && !text.contains(['/', ':'])
    });
    let named = std::env::var_os(STORE_VARIABLE).is_some_and(|store| !store.is_empty());
    if !point || !named || std::fs::symlink_metadata(path).is_ok() {
        return Ok(());
    }
    Err(Error::usage("there is no such file")
        .with_path(path)
        .with_hint(format!(
            "if this is a snapshot in the store that {STORE_VARIABLE} names, write {}",
            quoted(format!("::{text}"))
        )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{command_of, program::Program};

    fn paths(command: &Command, found: &mut Vec<(String, String)>) {
        let name = command.get_name().trim_start_matches("vhd-").to_owned();
        for arg in command.get_arguments().filter(|arg| is_path(arg)) {
            found.push((name.clone(), arg.get_id().to_string()));
        }
        command.get_subcommands().for_each(|c| paths(c, found));
    }

    #[test]
    fn every_path_of_every_command_has_a_role() {
        let mut found = Vec::new();
        for program in Program::ALL {
            paths(&command_of(program), &mut found);
        }
        assert!(found.len() > 40, "{}", found.len());
        for (command, id) in found {
            assert!(role(&command, &id).is_some(), "{command}: {id}");
        }
    }

    #[test]
    fn a_pipe_is_what_the_role_allows() {
        use Role::{
            Folder, Image, ImageFile, Input, InputFile, Output, OutputFile, Store, StoreTo,
        };
        for role in [Input, Output] {
            assert!(admit(role, Path::new("-")).is_ok());
        }
        for role in [
            Image, ImageFile, InputFile, OutputFile, Store, StoreTo, Folder,
        ] {
            let error = admit(role, Path::new("-")).unwrap_err();
            assert!(error.hint().is_some(), "{error}");
            assert!(admit(role, Path::new("./-")).is_ok());
        }
    }
}
