//! The common model of file systems: nodes, names, locations of content, and ownership of bytes.

use std::ops::Range;

use super::read::Volume;
use crate::error::{Error, Result};
use crate::page::to_usize;

/// The id of a file or folder: an inode number, a file record number, or the location of a directory entry.
pub type NodeId = u64;

/// The kind of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NodeKind {
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// A symbolic link, whose content is where it leads to.
    Link,
    /// A device, a pipe, a socket or another special file.
    Other,
}

impl NodeKind {
    /// `file`, `folder`, `link` or `other`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Folder => "folder",
            Self::Link => "link",
            Self::Other => "other",
        }
    }
}

/// How the content of a node is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stored {
    /// In runs of the disk.
    Runs,
    /// In the node itself.
    Inline(Vec<u8>),
    /// In an unsupported form, described by a word: "compressed", "encrypted".
    NotRead(&'static str),
}

/// A file or folder, without its names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its number.
    pub id: NodeId,
    /// Distinguishes it from another node that had the same id at another time.
    pub identity: u128,
    /// The kind of node.
    pub kind: NodeKind,
    /// Length of its content in bytes.
    pub size: u64,
    /// Unix permissions; derived from attributes if the file system has none.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time: seconds since 1970 UTC, and nanoseconds.
    pub modified: (i64, u32),
    /// How its content is stored.
    pub stored: Stored,
}

/// A name in a folder.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// The name as bytes, in UTF-8 if the file system stores characters.
    pub name: Vec<u8>,
    /// The node it refers to.
    pub id: NodeId,
    /// Whether it is a folder, if the directory entry says so.
    pub folder: Option<bool>,
}

/// A run of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Offset within the content, in bytes.
    pub logical: u64,
    /// Offset within the partition, in bytes.
    pub place: u64,
    /// Length in bytes.
    pub len: u64,
    /// Whether it holds content, as opposed to allocated space that reads as zeros.
    pub written: bool,
}

/// The owner of bytes in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// A part of the file system itself, by name.
    Area(&'static str),
    /// The content of a node.
    Content(NodeId),
    /// The map that locates the content of a node.
    Map(NodeId),
}

/// Receives ranges of the partition and their owners.
pub(super) type Owners<'a> = dyn FnMut(Range<u64>, Owner) -> Result<()> + 'a;

/// Space of files after their end, or allocated in advance.
pub(super) const AFTER_END: &str = "space after the end of files";
/// The content of folders.
pub(super) const FOLDERS: &str = "folders";
/// Blocks that locate content.
pub(super) const MAPS: &str = "maps of files";

/// A supported file system.
pub(super) trait FileSystem: Send + Sync + std::fmt::Debug {
    /// `ext4`, `ntfs`.
    fn name(&self) -> &'static str;

    /// The volume label, if any.
    fn label(&self) -> String;

    /// The root folder.
    fn root(&self) -> NodeId;

    /// The volume that contains it.
    fn volume(&self) -> &Volume<'_>;

    /// Returns whether names are case-insensitive.
    fn folds_case(&self) -> bool {
        false
    }

    /// Remarks from opening it.
    fn notes(&self) -> Vec<String> {
        Vec::new()
    }

    /// Number of transactions replayed from its journal.
    fn transactions(&self) -> u64 {
        0
    }

    /// Reads a node by its id.
    fn node(&self, id: NodeId) -> Result<Node>;

    /// The location of everything that [`node`](Self::node) reads: if none of its bytes changed, the node didn't.
    fn record(&self, id: NodeId) -> Option<Range<u64>>;

    /// The names in a folder, except for itself and its parent, in any order.
    fn list(&self, node: &Node, each: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()>;

    /// The runs of a node in ascending order of its content; for a folder, the location of its names.
    fn runs(&self, node: &Node, each: &mut dyn FnMut(Run) -> Result<()>) -> Result<()>;

    /// Reports the owners of all ranges. If ranges overlap, the first owner counts. Damage is reported to `wrong` and
    /// skipped.
    fn owners(&self, each: &mut Owners<'_>, wrong: &mut dyn FnMut(Error)) -> Result<()>;
}

/// Reports the owner of a node's run: its content, the space after the end, or folders.
pub(super) fn own_run(node: &Node, run: Run, each: &mut Owners<'_>) -> Result<()> {
    let all = run.place..run.place.saturating_add(run.len);
    if node.kind == NodeKind::Folder {
        return each(all, Owner::Area(FOLDERS));
    }
    // Changes have page granularity: the page with the last byte counts as content.
    let end = node.size.div_ceil(512).saturating_mul(512);
    let content = if run.written {
        end.saturating_sub(run.logical).min(run.len)
    } else {
        0
    };
    let cut = all.start.saturating_add(content);
    if content > 0 {
        each(all.start..cut, Owner::Content(node.id))?;
    }
    if cut < all.end {
        each(cut..all.end, Owner::Area(AFTER_END))?;
    }
    Ok(())
}

/// Reads the content of a node in order, in pieces of at most 1 MiB, with holes as zeros.
pub(super) fn read_content(
    fs: &dyn FileSystem,
    node: &Node,
    each: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    const STEP: u64 = 1 << 20;
    match &node.stored {
        Stored::Inline(bytes) => return each(bytes),
        Stored::NotRead(why) => {
            return Err(Error::unsupported(format!(
                "the content of this file is {why}, which is not read"
            )));
        }
        Stored::Runs => {}
    }
    let mut buf = vec![0; to_usize(node.size.min(STEP))];
    let mut done = 0;
    let zeros = |from: &mut u64, to: u64, each: &mut dyn FnMut(&[u8]) -> Result<()>| {
        let zeros = vec![0; to_usize(to.saturating_sub(*from).min(STEP))];
        while *from < to {
            let len = (to - *from).min(STEP);
            each(zeros.get(..to_usize(len)).unwrap_or_default())?;
            *from += len;
        }
        Ok(())
    };
    fs.runs(node, &mut |run| {
        if run.logical >= node.size || !run.written {
            return Ok(());
        }
        if run.logical < done {
            return Err(fs.volume().damaged("the runs of a file overlap", run.place));
        }
        zeros(&mut done, run.logical, each)?;
        let end = run.logical.saturating_add(run.len).min(node.size);
        while done < end {
            let len = (end - done).min(STEP);
            let part = buf.get_mut(..to_usize(len)).unwrap_or_default();
            fs.volume().read(part, run.place + (done - run.logical))?;
            each(part)?;
            done += len;
        }
        Ok(())
    })?;
    zeros(&mut done, node.size, each)
}
