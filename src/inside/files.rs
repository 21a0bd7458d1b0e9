//! The contents of a partition, and its files by path.

use super::ext::Ext;
use super::fat::Fat;
use super::model::{Entry, FileSystem, Node, NodeKind, Stored, read_content};
use super::ntfs::Ntfs;
use super::partitions::Partition;
use super::read::Volume;
use crate::error::{Error, Result};
use crate::image::Image;

/// The most names that are read in one folder, which bounds the memory of a listing.
const MOST_NAMES: usize = 2_000_000;

/// The longest path of a link.
const LONGEST_LINK: u64 = 64 << 10;

/// The contents of a partition.
#[derive(Debug)]
pub enum Contents<'a> {
    /// A file system that can be read.
    Files(Files<'a>),
    /// Something that isn't supported, with what it looks like (`unknown` if like nothing).
    NotRead(&'static str),
    /// A supported file system that is damaged.
    Damaged(&'static str, Error),
}

/// A file system that can be read.
#[derive(Debug)]
pub struct Files<'a> {
    pub(super) fs: Box<dyn FileSystem + 'a>,
}

/// Determines the contents of a partition.
///
/// # Errors
///
/// Fails if the disk can't be read. Problems with its contents are reported in [`Contents`].
pub fn contents<'a>(image: &'a dyn Image, partition: &Partition) -> Result<Contents<'a>> {
    let volume = || Volume::new(image, partition.range());
    let open = |name, found: Result<Box<dyn FileSystem + 'a>>| match found {
        Ok(fs) => Ok(Contents::Files(Files { fs })),
        Err(error) if super::read::is_damage(&error) => Ok(Contents::Damaged(name, error)),
        Err(error) => Err(error),
    };
    if let Some(what) = foreign(&volume())? {
        return Ok(Contents::NotRead(what));
    }
    if Ext::is_there(&volume())? {
        return open("ext", Ext::open(volume()).map(|fs| Box::new(fs) as _));
    }
    if Ntfs::is_there(&volume())? {
        return open("ntfs", Ntfs::open(volume()).map(|fs| Box::new(fs) as _));
    }
    if Fat::is_there(&volume())? {
        return open("fat", Fat::open(volume()).map(|fs| Box::new(fs) as _));
    }
    Ok(Contents::NotRead("unknown"))
}

/// Recognizes unsupported contents by their signature.
fn foreign(volume: &Volume<'_>) -> Result<Option<&'static str>> {
    const MARKS: &[(u64, &[u8], &str)] = &[
        (0, b"LUKS\xBA\xBE", "luks (encrypted)"),
        (3, b"-FVE-FS-", "bitlocker (encrypted)"),
        (3, b"ReFS\0\0\0\0", "refs"),
        (3, b"EXFAT   ", "exfat"),
        (0, b"XFSB", "xfs"),
        (0, b"hsqs", "squashfs"),
        (512, b"LABELONE", "lvm2"),
        (4086, b"SWAPSPACE2", "swap"),
        (4096, b"\xFC\x4E\x2B\xA9", "raid"),
        (0x1_0040, b"_BHRfS_M", "btrfs"),
        (32769, b"CD001", "iso9660"),
        (1024, b"H+\0\x04", "hfs+"),
        (1024, b"\x10\x20\xF5\xF2", "f2fs"),
        (1024, b"\xE2\xE1\xF5\xE0", "erofs"),
        (32, b"NXSB", "apfs"),
    ];
    for (at, mark, name) in MARKS {
        if at + mark.len() as u64 <= volume.len() && volume.bytes(*at, mark.len())? == *mark {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

impl Files<'_> {
    /// `ext4`, `fat32` and so on.
    pub fn name(&self) -> &'static str {
        self.fs.name()
    }

    /// The volume label, or an empty string.
    pub fn label(&self) -> String {
        self.fs.label()
    }

    /// Number of journal transactions that are treated as if they had been written.
    pub fn transactions(&self) -> u64 {
        self.fs.transactions()
    }

    /// Remarks about the file system.
    pub fn notes(&self) -> Vec<String> {
        self.fs.notes()
    }

    /// The root folder.
    pub fn root(&self) -> Result<Node> {
        self.fs.node(self.fs.root())
    }

    /// The node of a name.
    pub fn node(&self, entry: &Entry) -> Result<Node> {
        self.fs.node(entry.id)
    }

    /// The names in a folder, sorted.
    pub fn list(&self, folder: &Node) -> Result<Vec<Entry>> {
        list(&*self.fs, folder)
    }

    /// The node at a path from the root, or `None` if there is none. Links are not followed. Case is ignored where the
    /// file system ignores it.
    pub fn find(&self, path: &[u8]) -> Result<Option<Node>> {
        let fold = |name: &[u8]| {
            if self.fs.folds_case() {
                String::from_utf8_lossy(name).to_lowercase().into_bytes()
            } else {
                name.to_vec()
            }
        };
        let mut node = self.root()?;
        for part in path
            .split(|byte| *byte == b'/')
            .filter(|part| !part.is_empty() && *part != b".")
        {
            if node.kind != NodeKind::Folder {
                return Ok(None);
            }
            let wanted = fold(part);
            let mut found = None;
            self.fs.list(&node, &mut |entry| {
                if found.is_none() && fold(&entry.name) == wanted {
                    found = Some(entry.id);
                }
                Ok(())
            })?;
            match found {
                Some(id) => node = self.fs.node(id)?,
                None => return Ok(None),
            }
        }
        Ok(Some(node))
    }

    /// Reads the content of a node from its beginning, in pieces.
    pub fn read(&self, node: &Node, mut each: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        read_content(&*self.fs, node, &mut each)
    }

    /// The target of a symbolic link.
    pub fn link(&self, node: &Node) -> Result<Vec<u8>> {
        if node.size > LONGEST_LINK {
            return Err(self
                .fs
                .volume()
                .damaged("a link is impossibly long", 0)
                .with_found(node.size));
        }
        let mut target = Vec::new();
        self.read(node, |bytes| {
            target.extend_from_slice(bytes);
            Ok(())
        })?;
        Ok(target)
    }

    /// Returns why the content can't be read, or `None` if it can.
    pub fn unread(node: &Node) -> Option<&'static str> {
        match node.stored {
            Stored::NotRead(why) => Some(why),
            _ => None,
        }
    }
}

/// The names in a folder, sorted; of duplicate names only the first.
pub(super) fn list(fs: &dyn FileSystem, folder: &Node) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    fs.list(folder, &mut |entry| {
        if entries.len() == MOST_NAMES {
            return Err(Error::unsupported("a folder has more names than are read")
                .with_expected(format_args!("at most {MOST_NAMES}")));
        }
        entries.push(entry);
        Ok(())
    })?;
    entries.sort();
    entries.dedup_by(|a, b| a.name == b.name);
    Ok(entries)
}
