//! `vhd files`: the files in an image, without mounting it.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde::Serialize;

use super::args::{Parents, SaidFormat, overwrite};
use super::changed_files::path_bytes;
use super::context::{Context, Reading, refuse_files};
use super::message::Topic;
use super::output::{JsonList, Output};
use super::role::Role;
use super::size::Short;
use super::{exit::Outcome, names};
use crate::error::{Error, Result, quoted};
use crate::files::Opened;
use crate::inside::{Contents, Files, Node, NodeKind, Partition, contents, partitions, tar};
use crate::storage::{AtomicFile, Audience};
use crate::text::shown;

/// List, find and copy files in an image or a point in time, without mounting it.
///
/// WHAT is an image or a point in time of a store, then :NUMBER for a partition if the path is in several, then the
/// path.
#[derive(Debug, clap::Args)]
#[command(subcommand_required = true, arg_required_else_help = true, after_help = concat!(
    "Nothing is mounted or written, and no privileges are needed except to read the image. Journals are read, so that a \
     snapshot of a running machine shows its newest state. What is read: ext2, ext3, ext4, NTFS, FAT12, FAT16 and FAT32, in \
     MBR and GPT partitions or on the whole disk.\n\n",
    "Examples:\n",
    "  vhd files ls disk.vhd                               the partitions\n",
    "  vhd files ls disk.vhd/etc\n",
    "  vhd files get /backup::web@tue:2/etc/fstab          to stdout\n",
    "  vhd files get disk.vhd/home/ann -o ann.tar          a whole folder\n",
    "  vhd files find disk.vhd/etc --name '*.conf'\n\n",
    super::args::exit_codes!(),
))]
pub(super) struct Args {
    #[command(subcommand)]
    command: FilesCommand,
}

#[derive(Debug, Subcommand)]
enum FilesCommand {
    /// List a folder, or the partitions of a disk.
    #[command(after_help = concat!(
        "Examples:\n  vhd files ls disk.vhd\n  vhd files ls disk.vhd:2/etc\n\n",
        super::args::exit_codes!(),
    ))]
    Ls(Ls),
    /// Copy a file to stdout or to a file; a folder as a tar archive.
    #[command(after_help = concat!(
        "Examples:\n  vhd files get disk.vhd/etc/fstab\n  vhd files get disk.vhd/home/ann | tar x\n\n",
        super::args::exit_codes!(),
    ))]
    Get(Get),
    /// List all paths in a folder and the folders in it.
    #[command(after_help = concat!(
        "Examples:\n  vhd files find disk.vhd/etc --name '*.conf'\n\n",
        super::args::exit_codes!(),
    ))]
    Find(Find),
}

#[derive(Debug, clap::Args)]
struct Ls {
    /// Image, partition and path.
    what: OsString,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    parents: Parents,
}

#[derive(Debug, clap::Args)]
struct Get {
    /// Image, partition and path.
    what: OsString,
    /// Write to this file; - is stdout. The modification time of a file is preserved.
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    output: PathBuf,
    /// Replace the output if it exists.
    #[arg(long)]
    force: bool,
    /// Print a JSON summary; the content goes to a file then.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    parents: Parents,
}

#[derive(Debug, clap::Args)]
struct Find {
    /// Image, partition and path.
    what: OsString,
    /// Only names that match this pattern, with * and ? as wildcards.
    #[arg(long, value_name = "PATTERN")]
    name: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    parents: Parents,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<Outcome> {
    match &args.command {
        FilesCommand::Ls(args) => ls(args, context),
        FilesCommand::Get(args) => get(args, context),
        FilesCommand::Find(args) => find(args, context),
    }
}

/// An image, a partition and a path in it, as specified by the user.
#[derive(Debug, PartialEq, Eq)]
struct Named {
    image: PathBuf,
    partition: Option<u32>,
    /// `None` if only the image is given.
    path: Option<Vec<u8>>,
}

impl Named {
    /// Splits `what`: the image is the longest prefix for which `is_image` holds.
    fn parse(what: &Path, is_image: impl Fn(&Path) -> bool) -> Self {
        let bytes = what.as_os_str().as_bytes();
        // The path begins with the slash after the image; for a store, with the slash after the name of the disk.
        let point = bytes.windows(2).position(|two| two == b"::");
        let whole = std::iter::once(bytes.len());
        let slashes = bytes
            .iter()
            .enumerate()
            .filter(|(at, byte)| **byte == b'/' && point.is_none_or(|p| *at > p + 1));
        let cuts = slashes.map(|(at, _)| at).chain(whole);
        let cuts: Vec<usize> = if point.is_some() {
            cuts.collect()
        } else {
            cuts.collect::<Vec<_>>().into_iter().rev().collect()
        };
        for cut in cuts {
            let (image, path) = bytes.split_at(cut);
            let path = (!path.is_empty()).then(|| path.to_vec());
            let (stem, partition) = numbered(image, point.map_or(0, |point| point + 2));
            for (image, partition) in [(image, None), (stem, partition)] {
                if point.is_some()
                    && partition.is_none()
                    && numbered(image, point.map_or(0, |p| p + 2)).1.is_some()
                {
                    continue;
                }
                let image = PathBuf::from(OsStr::from_bytes(image));
                if point.is_some() || is_image(&image) {
                    return Self {
                        image,
                        partition,
                        path,
                    };
                }
            }
        }
        Self {
            image: what.to_path_buf(),
            partition: None,
            path: None,
        }
    }
}

/// Splits `disk.vhd:2` into `disk.vhd` and 2, if the colon is after `from`.
fn numbered(image: &[u8], from: usize) -> (&[u8], Option<u32>) {
    let colon = image
        .iter()
        .rposition(|byte| *byte == b':')
        .filter(|at| *at >= from);
    let parts = colon.map(|at| image.split_at(at));
    let number =
        parts.and_then(|(_, number)| std::str::from_utf8(number.get(1..)?).ok()?.parse().ok());
    match (parts, number) {
        (Some((stem, _)), Some(number)) => (stem, Some(number)),
        _ => (image, None),
    }
}

fn open(what: &Path, parents: &Parents, context: &Context) -> Result<(Named, Box<dyn Opened>)> {
    let is_image = |path: &Path| std::fs::metadata(path).is_ok_and(|found| !found.is_dir());
    let named = Named::parse(what, is_image);
    names::admit(Role::Image, &named.image)?;
    let image =
        context.open_source(&named.image, SaidFormat::NEVER, parents, Reading::default())?;
    Ok((named, image))
}

/// A path that was found.
struct Place<'a> {
    partition: Partition,
    files: Files<'a>,
    node: Node,
    path: Vec<u8>,
}

/// Finds a path in the only partition that has it.
fn place<'a>(named: &Named, image: &'a dyn Opened) -> Result<Place<'a>> {
    let path = named.path.clone().unwrap_or_else(|| b"/".to_vec());
    let table = partitions(image)?;
    let mut found = Vec::new();
    let mut unread = Vec::new();
    let wanted = |partition: &&Partition| {
        named
            .partition
            .is_none_or(|number| number == partition.number)
    };
    for partition in table.partitions.iter().filter(wanted) {
        match contents(image, partition)? {
            Contents::Files(files) => {
                if let Some(node) = files.find(&path)? {
                    found.push(Place {
                        partition: partition.clone(),
                        files,
                        node,
                        path: path.clone(),
                    });
                }
            }
            Contents::NotRead(what) => unread.push(format!(
                "partition {} is {what}, which is not read",
                partition.number
            )),
            Contents::Damaged(what, error) => {
                unread.push(format!(
                    "partition {} is {what}, damaged: {error}",
                    partition.number
                ));
            }
        }
    }
    let numbers: Vec<String> = found
        .iter()
        .map(|place| place.partition.number.to_string())
        .collect();
    let list = format!("vhd files ls {}", quoted(&named.image));
    match (found.pop(), numbers.len()) {
        (Some(place), 1) => Ok(place),
        (Some(_), _) => Err(Error::usage("the path is in several partitions")
            .with_path(&named.image)
            .with_found(format_args!(
                "{} in partitions {}",
                shown(OsStr::from_bytes(&path)),
                numbers.join(", ")
            ))
            .with_hint(format!(
                "name one, as in IMAGE:{}/PATH; {list} lists them",
                numbers.first().map_or("1", |n| n)
            ))),
        (None, _) => {
            let error = match (unread.is_empty(), named.partition) {
                (true, Some(number))
                    if !table.partitions.iter().any(|own| own.number == number) =>
                {
                    Error::usage(format!("there is no partition {number}"))
                }
                (true, _) => Error::usage("there is no such file or folder in the image"),
                (false, _) => {
                    Error::unsupported(format!("the path was not found; {}", unread.join("; ")))
                }
            };
            Err(error
                .with_path(&named.image)
                .with_found(shown(OsStr::from_bytes(&path)))
                .with_hint(format!("{list} lists the partitions")))
        }
    }
}

/// Nothing follows the list.
#[derive(Serialize)]
struct NoMore {}

#[derive(Serialize)]
struct Head {
    image: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    partition: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
}

#[derive(Serialize)]
struct Item {
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_bytes: Option<String>,
    kind: &'static str,
    size: u64,
    mode: String,
    uid: u32,
    gid: u32,
    modified: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    link: Option<String>,
}

#[derive(Serialize)]
struct PartitionItem {
    partition: u32,
    name: String,
    start: u64,
    length: u64,
    file_system: &'static str,
    label: String,
    state: &'static str,
    notes: Vec<String>,
}

/// Counts of the copied files.
#[derive(Serialize)]
struct Got {
    image: String,
    partition: u32,
    output: String,
    entry: Item,
}

fn time(modified: (i64, u32)) -> Option<String> {
    let stamp = jiff::Timestamp::from_second(modified.0).ok()?;
    Some(stamp.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

fn item(files: &Files<'_>, node: &Node, path: &[u8]) -> Item {
    let link = (node.kind == NodeKind::Link).then(|| files.link(node));
    let link = link.and_then(Result::ok);
    Item {
        path: String::from_utf8_lossy(path).into_owned(),
        path_bytes: path_bytes(path),
        kind: node.kind.name(),
        size: node.size,
        mode: format!("{:04o}", node.mode),
        uid: node.uid,
        gid: node.gid,
        modified: time(node.modified),
        link: link.map(|link| String::from_utf8_lossy(&link).into_owned()),
    }
}

fn print(output: &mut Output, item: &Item) -> Result<()> {
    let kind = match item.kind {
        "folder" => 'd',
        "link" => 'l',
        "file" => '-',
        _ => '?',
    };
    let link = item
        .link
        .as_ref()
        .map_or_else(String::new, |link| format!(" -> {link}"));
    let slash = if kind == 'd' { "/" } else { "" };
    output.line(format_args!(
        "{kind}{} {:>5} {:>5} {:>12} {:<20} {}{slash}{link}",
        item.mode,
        item.uid,
        item.gid,
        item.size,
        item.modified.as_deref().unwrap_or("-"),
        item.path,
    ))
}

fn list_partitions(named: &Named, image: &dyn Opened, json: bool) -> Result<()> {
    let table = partitions(image)?;
    let mut output = Output::text()?;
    let head = Head {
        image: named.image.to_string_lossy().into_owned(),
        partition: None,
        path: None,
    };
    let mut list = if json {
        Some(JsonList::begin(&mut output, &head, "partitions")?)
    } else {
        None
    };
    for partition in &table.partitions {
        let (file_system, label, state, note) = match contents(image, partition)? {
            Contents::Files(files) => (files.name(), files.label(), "read", None),
            Contents::NotRead(what) => (what, String::new(), "not read", None),
            Contents::Damaged(what, error) => {
                (what, String::new(), "damaged", Some(error.to_string()))
            }
        };
        let item = PartitionItem {
            partition: partition.number,
            name: partition.name.clone(),
            start: partition.start,
            length: partition.len,
            file_system,
            label,
            state,
            notes: note.into_iter().collect(),
        };
        match &mut list {
            Some(list) => list.item(&mut output, &item)?,
            None => output.line(format_args!(
                "{:>3}  {:<10}  {:>10}  {:<8}  {}{}",
                item.partition,
                item.file_system,
                Short(item.length).to_string(),
                item.state,
                if item.label.is_empty() {
                    &item.name
                } else {
                    &item.label
                },
                item.notes
                    .first()
                    .map_or_else(String::new, |note| format!("  ({note})")),
            ))?,
        }
    }
    if let Some(note) = &table.note {
        output.line(format_args!("note: {note}"))?;
    }
    if let Some(list) = list {
        list.end_with(&mut output, &NoMore {})?;
    }
    output.finish()
}

fn ls(args: &Ls, context: &Context) -> Result<Outcome> {
    let (named, image) = open(Path::new(&args.what), &args.parents, context)?;
    if named.path.is_none() && named.partition.is_none() {
        list_partitions(&named, &*image, args.json)?;
        image.check_unchanged()?;
        return Ok(Outcome::Done);
    }
    let place = place(&named, &*image)?;
    let mut output = Output::text()?;
    let mut list = begin(&mut output, &named, &place, args.json)?;
    let mut damaged = false;
    let mut each = |node: &Node, path: &[u8]| {
        let item = item(&place.files, node, path);
        match &mut list {
            Some(list) => list.item(&mut output, &item),
            None => print(&mut output, &item),
        }
    };
    if place.node.kind == NodeKind::Folder {
        for entry in place.files.list(&place.node)? {
            match place.files.node(&entry) {
                Ok(node) => each(&node, &entry.name)?,
                Err(error) => {
                    context.report(&error);
                    damaged = true;
                }
            }
        }
    } else {
        each(&place.node, &place.path)?;
    }
    end(list, output)?;
    image.check_unchanged()?;
    if damaged {
        return Err(Error::damaged("some of the folder can't be read").with_path(&named.image));
    }
    Ok(Outcome::Done)
}

fn begin(
    output: &mut Output,
    named: &Named,
    place: &Place<'_>,
    json: bool,
) -> Result<Option<JsonList>> {
    let head = Head {
        image: named.image.to_string_lossy().into_owned(),
        partition: Some(place.partition.number),
        path: Some(String::from_utf8_lossy(&place.path).into_owned()),
    };
    json.then(|| JsonList::begin(output, &head, "entries"))
        .transpose()
}

fn end(list: Option<JsonList>, mut output: Output) -> Result<()> {
    if let Some(list) = list {
        list.end_with(&mut output, &NoMore {})?;
    }
    output.finish()
}

fn find(args: &Find, context: &Context) -> Result<Outcome> {
    let (named, image) = open(Path::new(&args.what), &args.parents, context)?;
    let place = place(&named, &*image)?;
    let mut output = Output::text()?;
    let mut list = begin(&mut output, &named, &place, args.json)?;
    let (mut found, mut damaged) = (false, false);
    let mut start = place.path.clone();
    while start.last() == Some(&b'/') {
        start.pop();
    }
    let mut seen = std::collections::HashSet::new();
    let mut stack = vec![(place.node.clone(), start)];
    while let Some((node, path)) = stack.pop() {
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        if !path.is_empty()
            && args
                .name
                .as_ref()
                .is_none_or(|pattern| is_like(name, pattern.as_bytes()))
        {
            found = true;
            match &mut list {
                Some(list) => list.item(&mut output, &item(&place.files, &node, &path))?,
                None => output.line(shown(OsStr::from_bytes(&path)))?,
            }
        }
        // A folder with two names would lead to an endless walk.
        if node.kind != NodeKind::Folder || !seen.insert(node.id) {
            continue;
        }
        let inside = place.files.list(&node).map(|entries| {
            let nodes = entries.into_iter().rev().map(|entry| {
                let path = [&path, &b"/"[..], &entry.name].concat();
                place.files.node(&entry).map(|node| (node, path))
            });
            nodes.collect::<Vec<_>>()
        });
        let inside = inside.unwrap_or_else(|error| vec![Err(error)]);
        for node in inside {
            match node {
                Ok(node) => stack.push(node),
                Err(error) => {
                    context.report(&error);
                    damaged = true;
                }
            }
        }
    }
    end(list, output)?;
    image.check_unchanged()?;
    if damaged {
        return Err(Error::damaged("some of the folders can't be read").with_path(&named.image));
    }
    Ok(if found { Outcome::Done } else { Outcome::No })
}

/// Returns whether a name matches a pattern with * and ?.
fn is_like(name: &[u8], pattern: &[u8]) -> bool {
    // Where to continue if the last star has to match more.
    let (mut n, mut p, mut star) = (0, 0, None);
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(byte) if *byte == b'?' || Some(byte) == name.get(n) => {
                n += 1;
                p += 1;
            }
            _ => match star {
                Some((at, from)) => {
                    (p, n) = (at + 1, from + 1);
                    star = Some((at, from + 1));
                }
                None => return false,
            },
        }
    }
    pattern.iter().skip(p).all(|byte| *byte == b'*')
}

fn get(args: &Get, context: &Context) -> Result<Outcome> {
    if args.json && args.output == Path::new("-") {
        return Err(
            Error::usage("the content and the JSON summary can't both go to stdout")
                .with_hint("write the content to a file with -o FILE"),
        );
    }
    let (named, image) = open(Path::new(&args.what), &args.parents, context)?;
    let place = place(&named, &*image)?;
    if args.output == Path::new("-") {
        let mut output = if place.node.kind == NodeKind::Folder {
            Output::binary()?
        } else {
            Output::text()?
        };
        let whole = write(&place, &mut output, context)?;
        output.finish()?;
        image.check_unchanged()?;
        return whole;
    }
    refuse_files(&args.output, &*image)?;
    let overwrite = overwrite(args.force);
    let file = AtomicFile::begin(&args.output, overwrite, Audience::of(image.files())?)?;
    let whole = {
        let mut out = std::io::BufWriter::with_capacity(1 << 20, file.file().appender());
        let whole = write(&place, &mut out, context)?;
        std::io::Write::flush(&mut out)
            .map_err(|error| Error::io("cannot write", error).with_path(&args.output))?;
        whole
    };
    if place.node.kind != NodeKind::Folder {
        file.file().set_modified(place.node.modified)?;
    }
    image.check_unchanged()?;
    file.publish(overwrite)?;
    if args.json {
        let mut output = Output::text()?;
        output.json(&Got {
            image: named.image.to_string_lossy().into_owned(),
            partition: place.partition.number,
            output: args.output.to_string_lossy().into_owned(),
            entry: item(&place.files, &place.node, &place.path),
        })?;
        output.finish()?;
        return whole;
    }
    context.note(format_args!(
        "{}: {}",
        shown(&args.output),
        shown(OsStr::from_bytes(&place.path))
    ));
    whole
}

/// Writes a file, or a folder as tar. The inner result tells whether all of it was read.
fn write(
    place: &Place<'_>,
    out: &mut dyn std::io::Write,
    context: &Context,
) -> Result<Result<Outcome>> {
    if place.node.kind == NodeKind::Folder {
        let name = place
            .path
            .split(|byte| *byte == b'/')
            .rfind(|part| !part.is_empty())
            .unwrap_or(b".");
        let summary = tar(&place.files, &place.node, name, out)?;
        for (path, why) in &summary.left_out {
            context.warn(
                Topic::LeftOut,
                format_args!("{}: left out: {why}", shown(OsStr::from_bytes(path))),
            );
        }
        return Ok(if summary.left_out.is_empty() {
            Ok(Outcome::Done)
        } else {
            Err(
                Error::unsupported("not all of the folder is in the archive")
                    .with_found(format_args!("{} left out", summary.left_out.len())),
            )
        });
    }
    if place.node.kind == NodeKind::Other {
        return Err(Error::usage("a device, a pipe or a socket has no content")
            .with_path(OsStr::from_bytes(&place.path)));
    }
    place.files.read(&place.node, |bytes| {
        out.write_all(bytes)
            .map_err(|error| Error::io("cannot write", error))
    })?;
    Ok(Ok(Outcome::Done))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart() {
        let is_image = |path: &Path| {
            ["a/disk.vhd", "odd:3"]
                .iter()
                .any(|known| path.as_os_str() == *known)
        };
        for (what, image, partition, path) in [
            ("a/disk.vhd", "a/disk.vhd", None, None),
            ("a/disk.vhd/", "a/disk.vhd", None, Some("/")),
            ("a/disk.vhd:2", "a/disk.vhd", Some(2), None),
            (
                "a/disk.vhd:2/etc/a:1/x",
                "a/disk.vhd",
                Some(2),
                Some("/etc/a:1/x"),
            ),
            ("odd:3/x", "odd:3", None, Some("/x")),
            ("odd:3:1/x", "odd:3", Some(1), Some("/x")),
            ("/s/t::web@tue", "/s/t::web@tue", None, None),
            (
                "/s/t::web@tue/etc/b:1",
                "/s/t::web@tue",
                None,
                Some("/etc/b:1"),
            ),
            (
                "/s/t::web@tue:2/etc",
                "/s/t::web@tue",
                Some(2),
                Some("/etc"),
            ),
            ("::web@tue:2", "::web@tue", Some(2), None),
            ("missing/etc", "missing/etc", None, None),
        ] {
            let named = Named::parse(Path::new(what), is_image);
            assert_eq!(named.image, Path::new(image), "{what}");
            assert_eq!(named.partition, partition, "{what}");
            assert_eq!(named.path.as_deref(), path.map(str::as_bytes), "{what}");
        }
    }

    #[test]
    fn patterns_are_those_of_a_shell() {
        for (name, pattern, like) in [
            ("a.conf", "*.conf", true),
            ("a.conf", "?.conf", true),
            ("ab.conf", "?.conf", false),
            ("abcabc", "*abc", true),
            ("abcab", "*abc", false),
            ("", "*", true),
            ("x", "", false),
        ] {
            assert_eq!(
                is_like(name.as_bytes(), pattern.as_bytes()),
                like,
                "{name} {pattern}"
            );
        }
    }
}
