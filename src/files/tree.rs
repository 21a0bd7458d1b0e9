//! Determines the parent-child relations of the VHDs in a folder.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, ErrorKind as IoKind};
use std::path::{Path, PathBuf};

use super::folder::{Seen, is_unfinished};
use super::parents::MAX_CHAIN;
use super::places::Places;
use super::{Format, ParentOptions};
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::storage::{Stamp, is_endless_link};
use crate::vhd::{DiskType, ParentRequest, UniqueId};

/// The most entries that are inspected, in all folders together.
const MOST_ENTRIES: usize = 1 << 17;

/// The maximum depth of nested folders.
const DEEPEST: usize = 32;

/// Options for [`tree`].
#[derive(Clone, Copy)]
pub struct TreeOptions<'a> {
    /// Receives progress, and may stop the job.
    pub progress: &'a dyn Progress,
    /// Where else to look for parents.
    pub parents: &'a ParentOptions,
}

impl std::fmt::Debug for TreeOptions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TreeOptions")
            .field("parents", &self.parents)
            .finish_non_exhaustive()
    }
}

/// The VHDs of a folder and its subfolders.
#[derive(Debug)]
pub struct Tree {
    /// The VHDs, ordered by path.
    pub nodes: Vec<Node>,
    /// Errors for what couldn't be inspected.
    pub unread: Vec<Error>,
    /// Number of symbolic links, which aren't followed.
    pub links: usize,
}

/// A VHD.
#[derive(Debug)]
pub struct Node {
    /// Its file.
    pub path: PathBuf,
    /// Its format, if its footer reveals it.
    pub format: Option<Format>,
    /// `footer.unique_id`.
    pub unique_id: UniqueId,
    /// Size of the virtual disk in bytes.
    pub virtual_size: u64,
    /// Whether the checksums of its footer and, if there is one, of its header are correct.
    pub intact: bool,
    /// Its parent, if it is a differencing disk.
    pub parent: Option<Link>,
}

/// The parent of a differencing VHD.
#[derive(Debug)]
pub struct Link {
    /// The file name by which the child refers to it; may be empty.
    pub name: String,
    /// `header.parent_unique_id`.
    pub unique_id: UniqueId,
    /// The result of the search for it.
    pub found: Found,
}

/// The result of a search for a parent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// The node with this number, where the child looks for it.
    Node(usize),
    /// An image outside of the folder, where the options allow it.
    Outside(PathBuf),
    /// The node with this number has its id, but isn't where the child looks for it.
    Elsewhere(usize),
    /// A link that leads out of the folder, and wasn't followed.
    Unfollowed(PathBuf),
    /// This file may be it, but couldn't be inspected.
    Unread(PathBuf),
    /// A different disk has its name; with its file, and its id if it is a VHD.
    Another(PathBuf, Option<UniqueId>),
    /// Several files could be the parent.
    Ambiguous(Vec<PathBuf>),
    /// A raw image, which can't be identified.
    Raw,
    /// The node with this number, which is read through the child.
    Circle(usize),
    /// The node with this number, which is larger than the child.
    Larger(usize),
    /// The node with this number; the chain is too long to be read.
    TooDeep(usize),
    /// Not found.
    Missing,
}

impl Found {
    /// The node that has the parent's id, wherever it is.
    pub const fn node(&self) -> Option<usize> {
        match self {
            Self::Node(n)
            | Self::Elsewhere(n)
            | Self::Circle(n)
            | Self::Larger(n)
            | Self::TooDeep(n) => Some(*n),
            _ => None,
        }
    }

    /// Returns whether the child can be read, as far as was checked.
    pub const fn is_sound(&self) -> bool {
        matches!(
            self,
            Self::Node(_) | Self::Outside(_) | Self::Unfollowed(_) | Self::Unread(_) | Self::Raw
        )
    }
}

impl Tree {
    /// Returns whether every VHD is intact and has its parent.
    pub fn is_sound(&self) -> bool {
        self.unread.is_empty()
            && self.nodes.iter().all(|node| {
                node.intact
                    && node
                        .parent
                        .as_ref()
                        .is_none_or(|link| link.found.is_sound())
            })
    }

    /// The nodes that share an id with others, by id.
    pub fn duplicates(&self) -> Vec<(UniqueId, Vec<usize>)> {
        let mut by_id: BTreeMap<UniqueId, Vec<usize>> = BTreeMap::new();
        for (n, node) in self.nodes.iter().enumerate() {
            by_id.entry(node.unique_id).or_default().push(n);
        }
        by_id
            .into_iter()
            .filter(|(id, nodes)| !id.is_nil() && nodes.len() > 1)
            .collect()
    }
}

/// Inspects all VHDs in `folder` and its subfolders, and finds the parent of each differencing one. A few sectors of
/// each file are read. Symbolic links aren't followed, and at most 131072 entries are inspected.
///
/// # Errors
///
/// Fails if `folder` isn't a folder or can't be read, or if the work is cancelled.
pub fn tree(folder: &Path, options: TreeOptions<'_>) -> Result<Tree> {
    let root =
        fs::canonicalize(folder).map_err(|e| Error::io("cannot find", e).with_path(folder))?;
    let found =
        fs::metadata(&root).map_err(|e| Error::io("cannot look at", e).with_path(folder))?;
    if !found.is_dir() {
        return Err(Error::usage("this is not a folder")
            .with_path(folder)
            .with_hint("name the folder that contains the images"));
    }
    let mut walk = Walk {
        seen: Vec::new(),
        unread: Vec::new(),
        links: 0,
        left: MOST_ENTRIES,
    };
    options.progress.begin("looking at the files", 0);
    walk.folder(folder, 0, options)?;
    let Walk {
        seen,
        unread,
        links,
        ..
    } = walk;
    let allowed: Vec<PathBuf> = options
        .parents
        .folders
        .iter()
        .chain(&options.parents.files)
        .filter_map(|path| fs::canonicalize(path).ok())
        .chain([root])
        .collect();
    let finder = Finder {
        unread: RefCell::new(unread),
        by_id: numbered(&seen, Seen::id),
        by_inode: numbered(&seen, |seen| seen.stamp.inode()),
        seen: &seen,
        options: options.parents,
        allowed,
    };
    let mut nodes: Vec<Node> = seen.iter().map(|image| finder.node(image)).collect();
    let unread = finder.unread.into_inner();
    judge_chains(&mut nodes);
    Ok(Tree {
        nodes,
        unread,
        links,
    })
}

struct Walk {
    seen: Vec<Seen>,
    unread: Vec<Error>,
    links: usize,
    left: usize,
}

impl Walk {
    fn folder(&mut self, folder: &Path, depth: usize, options: TreeOptions<'_>) -> Result<()> {
        options.progress.check()?;
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(e) => {
                let error = Error::io("cannot look into the folder", e).with_path(folder);
                if depth == 0 {
                    return Err(error);
                }
                self.unread.push(error);
                return Ok(());
            }
        };
        let mut names = Vec::new();
        for entry in entries {
            if self.left == 0 {
                let error =
                    Error::usage("there are too many files to look at all").with_path(folder);
                self.unread
                    .push(error.with_expected(format_args!("at most {MOST_ENTRIES}")));
                break;
            }
            self.left -= 1;
            match entry {
                Ok(entry) => names.push(entry.file_name()),
                Err(e) => self
                    .unread
                    .push(Error::io("cannot read the folder", e).with_path(folder)),
            }
        }
        names.sort_unstable();
        for name in names.iter().filter(|name| !is_unfinished(name)) {
            let path = folder.join(name);
            let kind = match fs::symlink_metadata(&path) {
                Ok(found) => found.file_type(),
                Err(e) => {
                    self.unread
                        .push(Error::io("cannot look at", e).with_path(&path));
                    continue;
                }
            };
            if kind.is_symlink() {
                self.links += 1;
            } else if kind.is_dir() && depth < DEEPEST {
                self.folder(&path, depth + 1, options)?;
            } else if kind.is_dir() {
                let error =
                    Error::usage("the folders are too deep to look at all").with_path(&path);
                self.unread
                    .push(error.with_expected(format_args!("at most {DEEPEST}")));
            } else if kind.is_file() {
                match Seen::look(&path) {
                    Ok(image) => self.seen.extend(image),
                    Err(error) => self.unread.push(error),
                }
            }
        }
        Ok(())
    }
}

/// The numbers of the images with each key.
fn numbered<K: Ord>(seen: &[Seen], key: impl Fn(&Seen) -> K) -> BTreeMap<K, Vec<usize>> {
    let mut numbered: BTreeMap<K, Vec<usize>> = BTreeMap::new();
    for (n, image) in seen.iter().enumerate() {
        numbered.entry(key(image)).or_default().push(n);
    }
    numbered
}

/// Finds the parents of the VHDs.
struct Finder<'a> {
    seen: &'a [Seen],
    /// Errors for what couldn't be inspected.
    unread: RefCell<Vec<Error>>,
    by_id: BTreeMap<UniqueId, Vec<usize>>,
    by_inode: BTreeMap<u64, Vec<usize>>,
    options: &'a ParentOptions,
    /// Folders and files in which parents may be, with links resolved.
    allowed: Vec<PathBuf>,
}

/// The kind of a file that may be a parent.
enum Candidate {
    Missing,
    Unfollowed,
    Unread,
    Image(Stamp, Option<UniqueId>),
}

impl Finder<'_> {
    fn node(&self, image: &Seen) -> Node {
        let footer = &image.glance.footer;
        Node {
            path: image.path.clone(),
            format: match footer.disk_type {
                DiskType::Fixed => Some(Format::Fixed),
                DiskType::Dynamic => Some(Format::Dynamic),
                DiskType::Differencing => Some(Format::Differencing),
                DiskType::Other(_) => None,
            },
            unique_id: footer.unique_id,
            virtual_size: footer.current_size,
            intact: image.glance.intact,
            parent: image.ask(|request| Link {
                name: request.parent_name.to_owned(),
                unique_id: request.parent_id,
                found: self.find(request),
            }),
        }
    }

    fn find(&self, request: &ParentRequest<'_>) -> Found {
        let id = request.parent_id;
        if id.is_nil() {
            return Found::Raw;
        }
        let places = Places::of(request, self.options);
        let (mut another, mut unfollowed, mut unread) = (None, None, None);
        for path in &places.candidates {
            match self.look(path) {
                Candidate::Missing => {}
                Candidate::Unfollowed => unfollowed = unfollowed.or_else(|| Some(path.clone())),
                Candidate::Unread => unread = unread.or_else(|| Some(path.clone())),
                Candidate::Image(stamp, found) if found == Some(id) => {
                    return self.right(path, &stamp);
                }
                Candidate::Image(_, found) => {
                    another = another.or_else(|| Some((path.clone(), found)));
                }
            }
        }
        let mut alike: Vec<(PathBuf, Stamp)> = Vec::new();
        for path in places.ignoring_case() {
            match self.look(&path) {
                Candidate::Image(stamp, found) if found == Some(id) => {
                    if !alike.iter().any(|(_, known)| known.same_file(&stamp)) {
                        alike.push((path, stamp));
                    }
                }
                Candidate::Image(_, found) => another = another.or(Some((path, found))),
                Candidate::Unread => unread = unread.or(Some(path)),
                Candidate::Missing | Candidate::Unfollowed => {}
            }
        }
        match alike.as_slice() {
            [] => {}
            [(path, stamp)] => return self.right(path, stamp),
            more => return Found::Ambiguous(more.iter().map(|(path, _)| path.clone()).collect()),
        }
        if let Some(path) = unfollowed {
            return Found::Unfollowed(path);
        }
        if let Some(path) = unread {
            return Found::Unread(path);
        }
        if let Some(n) = self.by_id.get(&id).and_then(|nodes| nodes.first()) {
            return Found::Elsewhere(*n);
        }
        match another {
            Some((path, found)) => Found::Another(path, found),
            None => Found::Missing,
        }
    }

    fn look(&self, path: &Path) -> Candidate {
        self.try_look(path).unwrap_or_else(|error| {
            let mut unread = self.unread.borrow_mut();
            // The walk through the folder may have reported the same error.
            if !unread.iter().any(|known| known.path() == error.path()) {
                unread.push(error);
            }
            Candidate::Unread
        })
    }

    fn try_look(&self, path: &Path) -> Result<Candidate> {
        let missing = |e: &io::Error| matches!(e.kind(), IoKind::NotFound | IoKind::NotADirectory);
        let real = match fs::canonicalize(path) {
            Ok(real) => real,
            // Missing, or a loop of links.
            Err(e) if missing(&e) || is_endless_link(&e) => return Ok(Candidate::Missing),
            Err(e) => return Err(Error::io("cannot look at", e).with_path(path)),
        };
        if !self.allowed.iter().any(|allowed| real.starts_with(allowed)) {
            return Ok(Candidate::Unfollowed);
        }
        let found = match fs::metadata(&real) {
            Ok(found) => found,
            Err(e) if missing(&e) => return Ok(Candidate::Missing),
            Err(e) => return Err(Error::io("cannot look at", e).with_path(path)),
        };
        if !found.is_file() {
            return Ok(Candidate::Missing);
        }
        let stamp = Stamp::from(&found);
        let known = self.number(&stamp).and_then(|n| self.seen.get(n));
        let id = match known {
            Some(seen) => Some(seen.id()),
            None => Seen::look(&real)?.map(|seen| seen.id()),
        };
        Ok(Candidate::Image(stamp, id))
    }

    fn right(&self, path: &Path, stamp: &Stamp) -> Found {
        match self.number(stamp) {
            Some(n) => Found::Node(n),
            None => Found::Outside(path.to_path_buf()),
        }
    }

    /// The number of the image that is this file.
    fn number(&self, stamp: &Stamp) -> Option<usize> {
        let numbers = self.by_inode.get(&stamp.inode())?;
        let same = |n: &&usize| {
            self.seen
                .get(**n)
                .is_some_and(|seen| seen.stamp.same_file(stamp))
        };
        numbers.iter().find(same).copied()
    }
}

/// Marks links that form a loop, lead to a larger parent, or through too many images.
fn judge_chains(nodes: &mut [Node]) {
    let parent = |nodes: &[Node], n: usize| {
        let link = nodes.get(n)?.parent.as_ref()?;
        match link.found {
            Found::Node(parent) => Some(parent),
            _ => None,
        }
    };
    let mut verdicts = Vec::new();
    for n in 0..nodes.len() {
        let Some(first) = parent(nodes, n) else {
            continue;
        };
        let mut passed = BTreeSet::from([n]);
        let mut at = Some(first);
        let mut circle = false;
        while let Some(now) = at.filter(|_| passed.len() <= MAX_CHAIN) {
            if !passed.insert(now) {
                circle = now == n;
                break;
            }
            at = parent(nodes, now);
        }
        let size = |n: usize| nodes.get(n).map_or(0, |node| node.virtual_size);
        let verdict = if circle {
            Some(Found::Circle(first))
        } else if passed.len() > MAX_CHAIN {
            Some(Found::TooDeep(first))
        } else if size(first) > size(n) {
            Some(Found::Larger(first))
        } else {
            None
        };
        verdicts.extend(verdict.map(|verdict| (n, verdict)));
    }
    for (n, verdict) in verdicts {
        if let Some(link) = nodes.get_mut(n).and_then(|node| node.parent.as_mut()) {
            link.found = verdict;
        }
    }
}
