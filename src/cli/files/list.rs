//! `vhd files ls`, and how files are listed.

use std::ffi::OsString;
use std::path::Path;

use serde::Serialize;

use super::place::{Named, Place, open, place};
use crate::cli::args::Parents;
use crate::cli::changed_files::path_bytes;
use crate::cli::context::Context;
use crate::cli::exit::Outcome;
use crate::cli::output::{JsonList, Output};
use crate::cli::size::Short;
use crate::error::{Error, Result};
use crate::files::Opened;
use crate::inside::{Contents, Files, Node, NodeKind, contents, partitions};

#[derive(Debug, clap::Args)]
pub(super) struct Ls {
    /// Image, partition and path.
    what: OsString,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    parents: Parents,
}

/// Nothing follows the list.
#[derive(Serialize)]
pub(super) struct NoMore {}

#[derive(Serialize)]
pub(super) struct Head {
    image: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    partition: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
}

#[derive(Serialize)]
pub(super) struct Item {
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
pub(super) struct PartitionItem {
    partition: u32,
    name: String,
    start: u64,
    length: u64,
    file_system: &'static str,
    label: String,
    state: &'static str,
    notes: Vec<String>,
}

pub(super) fn time(modified: (i64, u32)) -> Option<String> {
    let stamp = jiff::Timestamp::from_second(modified.0).ok()?;
    Some(stamp.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

pub(super) fn item(files: &Files<'_>, node: &Node, path: &[u8]) -> Item {
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

pub(super) fn print(output: &mut Output, item: &Item) -> Result<()> {
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

pub(super) fn list_partitions(named: &Named, image: &dyn Opened, json: bool) -> Result<()> {
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

pub(super) fn ls(args: &Ls, context: &Context) -> Result<Outcome> {
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

pub(super) fn begin(
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

pub(super) fn end(list: Option<JsonList>, mut output: Output) -> Result<()> {
    if let Some(list) = list {
        list.end_with(&mut output, &NoMore {})?;
    }
    output.finish()
}
