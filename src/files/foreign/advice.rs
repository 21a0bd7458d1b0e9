//! The commands that convert a file from a foreign format, with real file names filled in.

use std::fs;
use std::path::{Path, PathBuf};

use super::kinds::{KINDS, Own, Way};
use super::marks;
use crate::files::shell_word::word;
use crate::files::split;
use crate::remedy::{Act, Remedy, Step, Tool};
use crate::storage::{ReadAt, free_name};
use crate::vhd::MAX_DYNAMIC_SIZE;

/// The advice for the file in `storage`, which starts with `head`.
pub(super) fn remedy<S: ReadAt>(way: Way, storage: &S, head: &[u8]) -> Remedy {
    let path = storage.name();
    let (lead, command) = match way {
        Way::Convert(command) => ("convert it first: ", command),
        Way::Unpack(command) => ("unpack it first: ", command),
        Way::Tell(text) => ("", text),
        Way::Ours(own) => return of_ours(own, path),
        Way::Answer => (
            "it may explain why there is no image: ",
            "head -c 500 {in}; then get the image again",
        ),
    };
    let mut command = command.to_owned();
    if marks::disk_size(storage, head).is_some_and(|size| size > MAX_DYNAMIC_SIZE) {
        // It doesn't fit into a dynamic VHD.
        command = command
            .replace("-O vpc -o subformat=dynamic,force_size=on", "-O raw")
            .replace("{vhd}", "{raw}");
    }
    let parts = split::parts(path);
    if parts.len() > 1 {
        let joined = format!("cat {} |", split::words(&parts));
        command = match command.split_once(" < {in}") {
            // A tool that reads a pipe needs no joined file.
            Some((tool, rest)) => format!("{joined} {tool}{rest}"),
            None => command,
        };
    }
    let first = parts.first().map_or(path, PathBuf::as_path);
    for (name, free) in places(first) {
        if command.contains(name) {
            command = command.replace(name, &word(&free()));
        }
    }
    Remedy::new(format!("{lead}{}", command.replace("{in}", &word(path))))
}

/// The advice for a file of our own that isn't an image.
fn of_ours(own: Own, path: &Path) -> Remedy {
    let with_it = |act| Step::Do(act, path.to_path_buf());
    match own {
        Own::Diff => Remedy::default()
            .step(Step::Use(Tool::Apply), "applying")
            .text(" takes the base image first, then its diffs; to see what this one changes: ")
            .step(with_it(Act::Show), "list its ranges"),
        Own::Stream => Remedy::new("take it into a store")
            .named(": ")
            .step(with_it(Act::Receive), ""),
        Own::SavedBytes => Remedy::new("put it back into its image")
            .named(" with ")
            .step(Step::Use(Tool::TakeRepairBack), ""),
    }
}

type Place<'a> = (&'static str, Box<dyn Fn() -> PathBuf + 'a>);

/// The placeholders for output names in a command.
fn places(path: &Path) -> [Place<'_>; 6] {
    let beside = beside(path);
    let stem = beside.with_extension("");
    let ending = |ending: &'static str| {
        let name = stem.clone();
        Box::new(move || free_name(&with_ending(&name, ending)))
    };
    [
        ("{vhd}", ending("vhd")),
        ("{raw}", ending("raw")),
        ("{vmdk}", Box::new(|| descriptor(path))),
        ("{slices}", Box::new(|| slices(path))),
        ("{dir}", {
            let stem = stem.clone();
            Box::new(move || free_name(&stem))
        }),
        ("{out}", Box::new(move || free_name(&unpacked(&beside)))),
    ]
}

/// The path of the file, or its name in the current folder if nothing should be written next to it, as in `/dev`.
fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().map(PathBuf::from);
    let is_file = fs::metadata(path).is_ok_and(|metadata| metadata.is_file());
    name.filter(|_| !is_file)
        .unwrap_or_else(|| path.to_path_buf())
}

fn with_ending(stem: &Path, ending: &str) -> PathBuf {
    let mut name = stem.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    PathBuf::from(name)
}

/// The name without the extension of a compressor: `disk.vhd.gz` becomes `disk.vhd`, `disk.tgz` becomes `disk.tar`.
fn unpacked(path: &Path) -> PathBuf {
    let stem = path.with_extension("");
    let is = |ending: &&str| {
        path.extension()
            .is_some_and(|e| e.eq_ignore_ascii_case(ending))
    };
    let tars = ["tgz", "txz", "tbz2"];
    if tars.iter().any(is) {
        return with_ending(&stem, "tar");
    }
    let mut known = KINDS.iter().flat_map(|kind| kind.extensions.iter());
    if known.any(is) {
        stem
    } else {
        with_ending(path, "unpacked")
    }
}

/// The descriptor of the split VMDK image to which `path` belongs: `disk-s001.vmdk` is part of `disk.vmdk`.
fn descriptor(path: &Path) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let whole = stem.rsplit_once('-').map_or(&*stem, |(whole, _)| whole);
    path.with_file_name(format!("{whole}.vmdk"))
}

/// dar's name for the archive to which the slice `path` belongs: `disk.1.dar` is part of `disk`.
fn slices(path: &Path) -> PathBuf {
    path.with_extension("").with_extension("")
}
