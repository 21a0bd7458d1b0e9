//! `vhd tree`: shows parents and children among the images of a folder.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::context::Context;
use super::exit::Outcome;
use super::message::Warning;
use super::output::Output;
use super::size::Size;
use crate::error::{Error, ErrorKind, Result, quoted};
use crate::files::{Format, Found, Link, MAX_CHAIN, Node, ParentOptions, Tree, TreeOptions, tree};
use crate::text::shown;

/// Show the parent of each VHD in a folder, and which parents are missing.
#[derive(Debug, clap::Args)]
#[command(after_help = concat!(
    "All VHDs in the folder and below it are inspected, whatever their names; symbolic links aren't followed. A parent \
     counts as found if reading the child finds it: by its unique id, where the child says, in the child's folder or \
     below. One that is somewhere else is named, with the command that has the child find it. Only a few sectors of each \
     file are read: vhd check checks a file completely.\n\n",
    "Examples:\n",
    "  vhd tree .\n",
    "  vhd tree /srv/vms --parent-path /srv/templates\n",
    "  vhd tree /srv/vms -q || echo 'a parent is missing'\n\n",
    super::args::exit_codes!(),
))]
pub(super) struct Args {
    /// The folder.
    folder: PathBuf,
    /// Also look for parents in this folder, by their file names.
    #[arg(long = "parent-path", value_name = "DIR")]
    parent_path: Vec<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<Outcome> {
    let progress = context.progress();
    let parents = ParentOptions {
        folders: args.parent_path.clone(),
        ..ParentOptions::default()
    };
    let options = TreeOptions {
        progress: &*progress,
        parents: &parents,
    };
    let mut tree = tree(&args.folder, options)?;
    drop(progress);
    if args.json {
        print_json(args, &tree)?;
    } else if !context.is_quiet() || !tree.is_sound() {
        print(args, &tree)?;
    }
    // Read errors end the command, as nothing is known then; everything else is reported before.
    let is_unread = |error: &Error| error.kind() == ErrorKind::Io;
    let first = tree.unread.iter().position(is_unread);
    let first = first.map(|at| tree.unread.remove(at));
    for error in &tree.unread {
        context.warn_of(&Warning::of(error));
    }
    if tree.links > 0 {
        let links = tree.links;
        let were = if links == 1 { "link was" } else { "links were" };
        context.note(format_args!("{links} symbolic {were} not followed"));
    }
    match first {
        Some(error) => Err(error),
        None if tree.is_sound() => Ok(Outcome::Done),
        None => Ok(Outcome::No),
    }
}

/// A path relative to the folder.
fn name(args: &Args, path: &Path) -> String {
    let within = path.strip_prefix(&args.folder).unwrap_or(path);
    shown(within).to_string()
}

/// Prints a tree, with the children of each image below it.
fn print(args: &Args, tree: &Tree) -> Result<()> {
    let mut output = Output::text()?;
    let count = tree.nodes.len();
    let mut children: Vec<Vec<usize>> = vec![Vec::new(); count];
    let mut roots = Vec::new();
    for (n, node) in tree.nodes.iter().enumerate() {
        let above = node.parent.as_ref().and_then(|link| match link.found {
            Found::Circle(_) => None,
            ref found => found.node(),
        });
        match above.and_then(|above| children.get_mut(above)) {
            Some(below) => below.push(n),
            None => roots.push(n),
        }
    }
    // Each node, the marks before it, and those before its children.
    let mut next: Vec<(usize, String, String)> = Vec::new();
    next.extend(
        roots
            .iter()
            .rev()
            .map(|n| (*n, String::new(), String::new())),
    );
    while let Some((n, before, below)) = next.pop() {
        let Some(node) = tree.nodes.get(n) else {
            continue;
        };
        output.line(format_args!("{before}{}", line(args, node)))?;
        if let Some(remark) = remark(args, tree, node) {
            output.line(format_args!("{below}  ! {remark}"))?;
        }
        let own = children.get(n).map(Vec::as_slice).unwrap_or_default();
        // Deeper chains aren't read, and their marks would fill the screen.
        let deep = below.chars().count() >= MAX_CHAIN * 3;
        for (k, child) in own.iter().enumerate().rev() {
            let last = k + 1 == own.len();
            let (mark, under) = match (deep, last) {
                (true, _) => ("", ""),
                (false, true) => ("└─ ", "   "),
                (false, false) => ("├─ ", "│  "),
            };
            next.push((*child, format!("{below}{mark}"), format!("{below}{under}")));
        }
    }
    for (id, nodes) in tree.duplicates() {
        let names = nodes.iter().filter_map(|n| tree.nodes.get(*n));
        let names: Vec<String> = names.map(|node| name(args, &node.path)).collect();
        output.line(format_args!("one unique id, {id}: {}", names.join(", ")))?;
    }
    let broken = tree.nodes.iter().filter(|node| {
        !node.intact
            || node
                .parent
                .as_ref()
                .is_some_and(|link| !link.found.is_sound())
    });
    let summary = match broken.count() {
        0 => String::new(),
        1 => ", 1 of which can't be read as it is".to_owned(),
        n => format!(", {n} of which can't be read as they are"),
    };
    output.line(format_args!("{}{summary}", counted(count)))?;
    output.finish()
}

fn counted(n: usize) -> String {
    match n {
        0 => "no VHD here".to_owned(),
        1 => "1 VHD".to_owned(),
        n => format!("{n} VHDs"),
    }
}

fn line(args: &Args, node: &Node) -> String {
    let format = node
        .format
        .map_or("of an unknown type", |format| format.name());
    let damaged = if node.intact { "" } else { ", damaged" };
    format!(
        "{}  {format}, {}{damaged}",
        name(args, &node.path),
        Size(node.virtual_size)
    )
}

/// Obstacles to reading an image, or doubts about it.
fn remark(args: &Args, tree: &Tree, node: &Node) -> Option<String> {
    let link = match &node.parent {
        Some(link) => link,
        None if node.intact => return None,
        None => {
            return Some(format!(
                "for what is wrong: vhd check {}",
                quoted(&node.path)
            ));
        }
    };
    let parent = match link.name.as_str() {
        "" => "its parent".to_owned(),
        name => format!("its parent {}", shown(name)),
    };
    let node_of = |n: &usize| tree.nodes.get(*n).map(|node| node.path.as_path());
    let id = link.unique_id;
    Some(match &link.found {
        Found::Node(_) => return None,
        Found::Outside(path) => format!("{parent} is {}", shown(path)),
        Found::Elsewhere(n) => {
            let there = node_of(n)?;
            format!(
                "{parent} isn't where the child looks for it: it is {}; fix it with: vhd rebase {} --parent {}",
                name(args, there),
                quoted(&node.path),
                quoted(there)
            )
        }
        Found::Unfollowed(path) => {
            format!(
                "{parent} is behind a link, which was not followed: {}",
                name(args, path)
            )
        }
        Found::Unread(path) => format!(
            "{parent} may be {}, which couldn't be read",
            name(args, path)
        ),
        Found::Another(path, found) => format!(
            "{parent} (unique id {id}) is missing: {} is another disk ({})",
            name(args, path),
            found.map_or_else(|| "no VHD id".to_owned(), |id| format!("unique id {id}"))
        ),
        Found::Ambiguous(paths) => {
            let names: Vec<String> = paths.iter().map(|path| name(args, path)).collect();
            format!(
                "{parent} (unique id {id}) may be any of {}",
                names.join(", ")
            )
        }
        Found::Raw => {
            format!(
                "{parent} is a raw image: nothing shows whether it is the right one (--raw-parent)"
            )
        }
        Found::Circle(n) => format!(
            "{parent}, {}, is read through this image",
            name(args, node_of(n)?)
        ),
        Found::Larger(n) => {
            let there = node_of(n)?;
            format!(
                "it is smaller than {}: if that was resized alone, vhd resize {} --size {} takes it back",
                name(args, there),
                quoted(there),
                node.virtual_size
            )
        }
        Found::TooDeep(_) => format!("its chain has more than {MAX_CHAIN} images"),
        Found::Missing => format!("{parent} (unique id {id}) is missing"),
    })
}

#[derive(Serialize)]
struct Listing {
    folder: String,
    /// Whether every VHD is intact and has its parent.
    sound: bool,
    images: Vec<Image>,
    /// Images that share a unique id.
    duplicates: Vec<Duplicate>,
    /// Files that couldn't be inspected.
    unread: Vec<String>,
    links_not_followed: usize,
}

#[derive(Serialize)]
#[expect(clippy::struct_field_names, reason = "the names of the JSON")]
struct Image {
    image: String,
    format: Option<&'static str>,
    virtual_size: u64,
    unique_id: String,
    intact: bool,
    parent_link: Option<Parent>,
}

#[derive(Serialize)]
struct Parent {
    /// `found`, `outside`, `elsewhere`, `link_not_followed`, `unread`, `another_disk`, `ambiguous`, `raw`, `circle`, `larger`,
    /// `too_deep` or `missing`.
    state: &'static str,
    /// The file name by which the child refers to it.
    name: String,
    unique_id: String,
    /// Its file, or the different disk that has its name.
    image: Option<String>,
}

#[derive(Serialize)]
struct Duplicate {
    unique_id: String,
    images: Vec<String>,
}

fn print_json(args: &Args, tree: &Tree) -> Result<()> {
    let path = |n: usize| {
        tree.nodes
            .get(n)
            .map(|node| node.path.to_string_lossy().into_owned())
    };
    let images = tree.nodes.iter().map(|node| Image {
        image: node.path.to_string_lossy().into_owned(),
        format: node.format.map(Format::name),
        virtual_size: node.virtual_size,
        unique_id: node.unique_id.to_string(),
        intact: node.intact,
        parent_link: node.parent.as_ref().map(|link| Parent {
            state: state(link),
            name: link.name.clone(),
            unique_id: link.unique_id.to_string(),
            image: match &link.found {
                Found::Outside(path)
                | Found::Unfollowed(path)
                | Found::Unread(path)
                | Found::Another(path, _) => Some(path.to_string_lossy().into_owned()),
                found => found.node().and_then(path),
            },
        }),
    });
    let duplicates = tree.duplicates().into_iter().map(|(id, nodes)| Duplicate {
        unique_id: id.to_string(),
        images: nodes.into_iter().filter_map(path).collect(),
    });
    let mut output = Output::text()?;
    output.json(&Listing {
        folder: args.folder.to_string_lossy().into_owned(),
        sound: tree.is_sound(),
        images: images.collect(),
        duplicates: duplicates.collect(),
        unread: tree.unread.iter().map(ToString::to_string).collect(),
        links_not_followed: tree.links,
    })?;
    output.finish()
}

fn state(link: &Link) -> &'static str {
    match link.found {
        Found::Node(_) => "found",
        Found::Outside(_) => "outside",
        Found::Elsewhere(_) => "elsewhere",
        Found::Unfollowed(_) => "link_not_followed",
        Found::Unread(_) => "unread",
        Found::Another(..) => "another_disk",
        Found::Ambiguous(_) => "ambiguous",
        Found::Raw => "raw",
        Found::Circle(_) => "circle",
        Found::Larger(_) => "larger",
        Found::TooDeep(_) => "too_deep",
        Found::Missing => "missing",
    }
}
