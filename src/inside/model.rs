//! What all file systems have in common: nodes, names, where content is, and who owns which bytes.

use std::ops::Range;

use super::read::Volume;
use crate::error::{Error, Result};
use crate::page::to_usize;

/// The number of a file or folder: an inode, a file record, the place of a directory entry.
pub type NodeId = u64;

/// What a node is.
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

/// Where the content of a node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stored {
    /// In runs of the disk.
    Runs,
    /// In the node itself.
    Inline(Vec<u8>),
    /// In a form that isn't read here, as a word: "compressed", "encrypted".
    NotRead(&'static str),
}

/// A file or folder, without its names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its number.
    pub id: NodeId,
    /// What tells it from another node that has the same number at another time.
    pub identity: u128,
    /// What it is.
    pub kind: NodeKind,
    /// Bytes of its content.
    pub size: u64,
    /// Unix permissions; made up from attributes where the file system has none.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Time of the last change of the content: seconds since 1970 UTC, and nanoseconds.
    pub modified: (i64, u32),
    /// Where its content is.
    pub stored: Stored,
}

/// A name in a folder.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// The name, as bytes; UTF-8 where the file system stores characters.
    pub name: Vec<u8>,
    /// The node that has it.
    pub id: NodeId,
    /// Whether it is a folder, where the folder that has the name tells.
    pub folder: Option<bool>,
}

/// A run of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// The first byte within the content.
    pub logical: u64,
    /// The first byte within the partition.
    pub place: u64,
    /// Bytes.
    pub len: u64,
    /// Whether it holds content; allocated space that reads as zeros doesn't.
    pub written: bool,
}

/// Who owns bytes of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// The file system itself: a part of it, by name.
    Area(&'static str),
    /// The content of a node.
    Content(NodeId),
    /// What says where the content of a node is.
    Map(NodeId),
}

/// Takes ranges of the partition and their owners.
pub(super) type Owners<'a> = dyn FnMut(Range<u64>, Owner) -> Result<()> + 'a;

/// Space of files after their end, or allocated in advance.
pub(super) const AFTER_END: &str = "space after the end of files";
/// The content of folders.
pub(super) const FOLDERS: &str = "folders";
/// Blocks that say where content is.
pub(super) const MAPS: &str = "maps of files";

/// A file system that can be read.
pub(super) trait FileSystem: Send + Sync + std::fmt::Debug {
    /// `ext4`, `ntfs`.
    fn name(&self) -> &'static str;

    /// The name that its owner gave it, if any.
    fn label(&self) -> String;

    /// The folder of all.
    fn root(&self) -> NodeId;

    /// The bytes that it is in.
    fn volume(&self) -> &Volume<'_>;

    /// Whether names that differ in case only are one.
    fn folds_case(&self) -> bool {
        false
    }

    /// What was done or found when it was opened.
    fn notes(&self) -> Vec<String> {
        Vec::new()
    }

    /// Transactions of its journal that were replayed.
    fn transactions(&self) -> u64 {
        0
    }

    /// A node by its number.
    fn node(&self, id: NodeId) -> Result<Node>;

    /// The places of what [`node`](Self::node) reads: if none of its bytes changed, the node didn't.
    fn record(&self, id: NodeId) -> Option<Range<u64>>;

    /// The names in a folder, without itself and its parent, in any order.
    fn list(&self, node: &Node, each: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()>;

    /// The runs of a node in ascending order of its content; of a folder, where its names are.
    fn runs(&self, node: &Node, each: &mut dyn FnMut(Run) -> Result<()>) -> Result<()>;

    /// Tells who owns what. What is told first counts; what is damaged is told to `wrong` and left out.
    fn owners(&self, each: &mut Owners<'_>, wrong: &mut dyn FnMut(Error)) -> Result<()>;
}

/// Tells the owner of a run of a node: its content, what is after the end, folders.
pub(super) fn own_run(node: &Node, run: Run, each: &mut Owners<'_>) -> Result<()> {
    let all = run.place..run.place.saturating_add(run.len);
    if node.kind == NodeKind::Folder {
        return each(all, Owner::Area(FOLDERS));
    }
    // A page is the smallest part that changes: the one with the last byte is content.
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

/// Reads the content of a node in order, in pieces of at most 1 MiB; holes come as zeros.
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
