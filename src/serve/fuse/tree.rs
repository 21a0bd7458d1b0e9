//! The files, by number.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::content::Content;
use super::wire::{Attributes, errno};
use super::{Faults, PointEntry, Served, Shelf};
use crate::error::{Error, ErrorKind};
use crate::page::PageRange;

/// The number of the root folder.
pub(super) const ROOT: u64 = 1;

/// The object that an inode number refers to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Node {
    Root,
    /// The folder of a disk.
    Disk(String),
    /// A snapshot of a disk: its name and id.
    Point(String, String, String),
    /// One of the fixed files of an image.
    Fixed(usize),
}

/// An entry of a folder.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) node: u64,
    pub(super) name: String,
    pub(super) is_folder: bool,
}

/// The files for the contents of a shelf.
#[derive(Debug)]
pub(super) struct Tree {
    shelf: Shelf,
    faults: Arc<Faults>,
    /// The files of an image.
    fixed: Vec<(String, Content)>,
    owner: (u32, u32),
    begun: u64,
    numbers: Mutex<Numbers>,
}

/// Numbers are assigned once, and never reused.
#[derive(Debug, Default)]
struct Numbers {
    nodes: Vec<Node>,
    known: HashMap<Node, u64>,
    /// Bytes of data by number, which never change.
    stored: HashMap<u64, u64>,
}

impl Numbers {
    fn of(&mut self, node: &Node) -> u64 {
        if let Some(known) = self.known.get(node) {
            return *known;
        }
        self.nodes.push(node.clone());
        let number = self.nodes.len() as u64;
        self.known.insert(node.clone(), number);
        number
    }
}

/// The error number that the kernel receives instead of an answer.
pub(super) type Refusal = i32;

impl Tree {
    pub(super) fn new(
        shelf: Shelf,
        faults: Arc<Faults>,
        parts: &[(u32, PageRange)],
        owner: (u32, u32),
        begun: u64,
    ) -> Self {
        let mut fixed = Vec::new();
        if let Some(image) = shelf.image() {
            fixed.push(("disk.raw".to_owned(), Content::Raw(Arc::clone(image))));
            fixed.push(("disk.vhd".to_owned(), Content::vhd(image)));
            for (number, range) in parts {
                let part = Content::Part(Arc::clone(image), range.start(), range.len());
                fixed.push((format!("p{number}.raw"), part));
            }
        }
        let mut numbers = Numbers::default();
        numbers.of(&Node::Root);
        Self {
            shelf,
            faults,
            fixed,
            owner,
            begun,
            numbers: Mutex::new(numbers),
        }
    }

    fn number(&self, node: &Node) -> u64 {
        let mut numbers = self.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        numbers.of(node)
    }

    fn node(&self, number: u64) -> Result<Node, Refusal> {
        let numbers = self.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        let at = usize::try_from(number.wrapping_sub(1)).map_err(|_| errno::NOENT)?;
        numbers.nodes.get(at).cloned().ok_or(errno::NOENT)
    }

    /// Reports an error, and returns its number.
    pub(super) fn refusal(&self, error: &Error) -> Refusal {
        match error.kind() {
            ErrorKind::Usage => errno::NOENT,
            // Another command is changing the disk; this is temporary.
            ErrorKind::Locked | ErrorKind::Pending => errno::BUSY,
            _ => {
                self.faults.note(error);
                errno::IO
            }
        }
    }

    fn points(&self, disk: &str) -> Result<Arc<[PointEntry]>, Refusal> {
        self.shelf
            .points(disk)
            .map_err(|error| self.refusal(&error))
    }

    fn point(disk: &str, point: &PointEntry) -> Node {
        Node::Point(disk.to_owned(), point.name.clone(), point.id.clone())
    }

    /// The disk whose snapshots a folder contains.
    fn disk_of<'a>(&'a self, folder: &'a Node) -> Option<&'a str> {
        match folder {
            Node::Root => self.shelf.disk(),
            Node::Disk(disk) => Some(disk),
            Node::Point(..) | Node::Fixed(_) => None,
        }
    }

    /// Looks up `name` in a folder.
    pub(super) fn find(&self, folder: u64, name: &[u8]) -> Result<Attributes, Refusal> {
        let folder = self.node(folder)?;
        let name = std::str::from_utf8(name).map_err(|_| errno::NOENT)?;
        let node = if let Some(disk) = self.disk_of(&folder) {
            let name = name.strip_suffix(".raw").ok_or(errno::NOENT)?;
            let points = self.points(disk)?;
            let point = points.iter().find(|point| point.name == name);
            Self::point(disk, point.ok_or(errno::NOENT)?)
        } else if folder != Node::Root {
            return Err(errno::NOENT);
        } else if self.shelf.image().is_some() {
            let at = self.fixed.iter().position(|(known, _)| known == name);
            Node::Fixed(at.ok_or(errno::NOENT)?)
        } else {
            let disks = self.shelf.disks().map_err(|error| self.refusal(&error))?;
            let disk = disks.into_iter().find(|disk| disk == name);
            Node::Disk(disk.ok_or(errno::NOENT)?)
        };
        self.attributes(self.number(&node))
    }

    /// The entries of a folder.
    pub(super) fn list(&self, folder: u64) -> Result<Vec<Entry>, Refusal> {
        let node = self.node(folder)?;
        let entry = |node: &Node, name: String, is_folder| Entry {
            node: self.number(node),
            name,
            is_folder,
        };
        if let Some(disk) = self.disk_of(&node) {
            let points = self.points(disk)?;
            let points = points.iter();
            return Ok(points
                .map(|point| {
                    entry(
                        &Self::point(disk, point),
                        format!("{}.raw", point.name),
                        false,
                    )
                })
                .collect());
        }
        if self.shelf.image().is_some() {
            let files = self.fixed.iter().enumerate();
            return Ok(files
                .map(|(n, (name, _))| entry(&Node::Fixed(n), name.clone(), false))
                .collect());
        }
        let disks = self.shelf.disks().map_err(|error| self.refusal(&error))?;
        let disks = disks.into_iter();
        Ok(disks
            .map(|disk| entry(&Node::Disk(disk.clone()), disk, true))
            .collect())
    }

    /// The content of a file.
    pub(super) fn open(&self, number: u64) -> Result<Content, Refusal> {
        match self.node(number)? {
            Node::Root | Node::Disk(_) => Err(errno::INVAL),
            Node::Fixed(n) => {
                let file = self.fixed.get(n).ok_or(errno::NOENT)?;
                Ok(file.1.clone())
            }
            Node::Point(disk, name, id) => {
                let served = self.open_point(&disk, &name, &id)?;
                Ok(Content::Raw(served))
            }
        }
    }

    fn open_point(&self, disk: &str, name: &str, id: &str) -> Result<Arc<Served>, Refusal> {
        let points = self.points(disk)?;
        // Another snapshot may have its name by now.
        if !points
            .iter()
            .any(|point| point.id == id && point.name == name)
        {
            return Err(errno::NOENT);
        }
        let opened = self.shelf.open(disk, Some(name));
        opened.map_err(|error| self.refusal(&error))
    }

    /// The result of `stat`.
    pub(super) fn attributes(&self, number: u64) -> Result<Attributes, Refusal> {
        let folder = Attributes {
            node: number,
            is_folder: true,
            size: 0,
            stored: 0,
            time: self.begun,
            owner: self.owner,
        };
        if matches!(self.node(number)?, Node::Root | Node::Disk(_)) {
            return Ok(folder);
        }
        let content = self.open(number)?;
        let known = {
            let numbers = self.numbers.lock().unwrap_or_else(PoisonError::into_inner);
            numbers.stored.get(&number).copied()
        };
        let stored = if let Some(stored) = known {
            stored
        } else {
            let stored = content.stored().map_err(|error| self.refusal(&error))?;
            let mut numbers = self.numbers.lock().unwrap_or_else(PoisonError::into_inner);
            numbers.stored.insert(number, stored);
            stored
        };
        Ok(Attributes {
            is_folder: false,
            size: content.size(),
            stored,
            time: match content.time() {
                0 => self.begun,
                time => time,
            },
            ..folder
        })
    }
}
