//! FAT12, FAT16 and FAT32.
//!
//! A file is identified by its directory entry: the id of a node is the location of that entry, and 0 is the root.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use super::model::{
    Entry, FileSystem, Node, NodeId, NodeKind, Owner, Owners, Run, Stored, own_run,
};
use super::read::{Fields, Volume, utf16};
use crate::error::{Error, Result};
use crate::page::to_usize;

/// Length of an entry.
const ENTRY: u64 = 32;
const ROOT: NodeId = 0;

const FOLDER: u8 = 0x10;
const LABEL: u8 = 0x08;
const READ_ONLY: u8 = 0x01;
const LONG_NAME: u8 = 0x0F;

/// The longest folder that is read: 65,536 entries, and more, since some programs write more.
const LONGEST_FOLDER: u64 = 64 << 20;

/// Characters 128 to 255 of short names: code page 437.
const HIGH: &str = "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀\
                    αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u{a0}";

/// A FAT file system.
#[derive(Debug)]
pub(super) struct Fat<'a> {
    volume: Volume<'a>,
    shape: Shape,
    /// Clusters that may still be followed in this pass: a sound file system doesn't share them.
    left: AtomicU64,
}

/// The layout of the file system.
#[derive(Debug, Clone)]
struct Shape {
    bits: u8,
    sector: u64,
    cluster: u64,
    clusters: u64,
    reserved: u64,
    root: Range<u64>,
    root_cluster: u64,
    data: u64,
    label: String,
}

impl Shape {
    fn read(f: &Fields, len: u64) -> Result<Option<Self>> {
        let sector = u64::from(f.u16(11)?);
        let per_cluster = u64::from(f.u8(13)?);
        let reserved = u64::from(f.u16(14)?) * sector;
        let fats = u64::from(f.u8(16)?);
        let root_len = u64::from(f.u16(17)?) * ENTRY;
        let sectors = match f.u16(19)? {
            0 => f.u32(32)?.into(),
            short => u64::from(short),
        };
        let fat = match f.u16(22)? {
            0 => u64::from(f.u32(36)?),
            short => short.into(),
        } * sector;
        let media = f.u8(21)?;
        if !matches!(sector, 512 | 1024 | 2048 | 4096)
            || !per_cluster.is_power_of_two()
            || reserved == 0
            || !matches!(fats, 1..=4)
            || !matches!(media, 0xF0 | 0xF8..=0xFF)
            || fat == 0
            || sectors.saturating_mul(sector) > len
            || f.part(510, 2)? != [0x55, 0xAA]
        {
            return Ok(None);
        }
        let root = reserved + fats * fat;
        let data = root + root_len.next_multiple_of(sector);
        let cluster = per_cluster * sector;
        let Some(clusters) = (sectors * sector)
            .checked_sub(data)
            .map(|bytes| bytes / cluster)
        else {
            return Ok(None);
        };
        let bits = match clusters {
            _ if f.u16(22)? == 0 => 32,
            0..4085 => 12,
            4085..65525 => 16,
            _ => return Ok(None),
        };
        if (clusters + 2) * u64::from(bits) > fat * 8 || (bits == 32) != (root_len == 0) {
            return Ok(None);
        }
        let label = f.part(if bits == 32 { 71 } else { 43 }, 11)?;
        Ok(Some(Self {
            bits,
            sector,
            cluster,
            clusters,
            reserved,
            root: root..root + root_len,
            root_cluster: if bits == 32 { f.u32(44)?.into() } else { 0 },
            data,
            label: String::from_utf8_lossy(label).trim().replace("NO NAME", ""),
        }))
    }
}

/// Returns whether the first sector of a disk of `len` bytes is a FAT boot sector: then the disk isn't partitioned.
pub(super) fn is_boot_sector(sector: &Fields, len: u64) -> bool {
    matches!(Shape::read(sector, len), Ok(Some(_)))
}

impl<'a> Fat<'a> {
    pub(super) fn is_there(volume: &Volume<'_>) -> Result<bool> {
        if volume.len() < 512 {
            return Ok(false);
        }
        Ok(Shape::read(&volume.fields(0, 512)?, volume.len())?.is_some())
    }

    pub(super) fn open(volume: Volume<'a>) -> Result<Self> {
        let shape = Shape::read(&volume.fields(0, 512)?, volume.len())?;
        let shape = shape.ok_or_else(|| volume.damaged("the boot sector of FAT is damaged", 0))?;
        let fat = Self {
            volume,
            shape,
            left: AtomicU64::new(0),
        };
        fat.begin_pass();
        Ok(fat)
    }

    fn begin_pass(&self) {
        let most = self.shape.clusters.saturating_add(1024);
        self.left.store(most, Ordering::Relaxed);
    }

    fn is_cluster(&self, cluster: u64) -> bool {
        (2..self.shape.clusters + 2).contains(&cluster)
    }

    fn place(&self, cluster: u64) -> u64 {
        self.shape.data + (cluster - 2) * self.shape.cluster
    }

    /// The next cluster of a chain, or `None` at its end.
    fn next(&self, cluster: u64) -> Result<Option<u64>> {
        let fat = self.shape.reserved;
        let (value, end) = match self.shape.bits {
            12 => {
                let pair = self.volume.fields(fat + cluster + cluster / 2, 2)?.u16(0)?;
                let value = if cluster.is_multiple_of(2) {
                    pair & 0xFFF
                } else {
                    pair >> 4
                };
                (u64::from(value), 0xFF8)
            }
            16 => (
                u64::from(self.volume.fields(fat + cluster * 2, 2)?.u16(0)?),
                0xFFF8,
            ),
            _ => (
                u64::from(self.volume.fields(fat + cluster * 4, 4)?.u32(0)? & 0xFFF_FFFF),
                0xFFF_FFF8,
            ),
        };
        if value >= end {
            return Ok(None);
        }
        if !self.is_cluster(value) {
            return Err(self
                .volume
                .damaged("a chain of clusters is damaged", fat)
                .with_found(format_args!("{value} after cluster {cluster}")));
        }
        Ok(Some(value))
    }

    /// Passes the runs of a chain to `each`.
    fn chain(&self, first: u64, each: &mut dyn FnMut(Run) -> Result<()>) -> Result<()> {
        if first == 0 {
            return Ok(());
        }
        if !self.is_cluster(first) {
            return Err(self
                .volume
                .damaged("a file begins beyond the end", 0)
                .with_found(first));
        }
        let size = self.shape.cluster;
        let mut run = Run {
            logical: 0,
            place: self.place(first),
            len: size,
            written: true,
        };
        let (mut at, mut count) = (first, 1);
        loop {
            let left = self
                .left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                    left.checked_sub(1)
                });
            if left.is_err() || count > self.shape.clusters {
                return Err(self
                    .volume
                    .damaged("chains of clusters are endless, or share clusters", 0));
            }
            let Some(next) = self.next(at)? else { break };
            let (logical, place) = (count * size, self.place(next));
            if place == run.place + run.len {
                run.len += size;
            } else {
                each(run)?;
                run = Run {
                    logical,
                    place,
                    len: size,
                    written: true,
                };
            }
            (at, count) = (next, count + 1);
        }
        each(run)
    }

    fn entry(&self, id: NodeId) -> Result<Fields> {
        if id < self.shape.reserved {
            return Err(self.volume.damaged("no entry of a folder is here", id));
        }
        self.volume.fields(id, to_usize(ENTRY))
    }

    fn first(&self, id: NodeId) -> Result<u64> {
        if id == ROOT {
            return Ok(self.shape.root_cluster);
        }
        let f = self.entry(id)?;
        let high = if self.shape.bits == 32 {
            u64::from(f.u16(20)?) << 16
        } else {
            0
        };
        Ok(high | u64::from(f.u16(26)?))
    }

    /// Passes the locations of a folder's entries to `each`.
    fn folder_runs(&self, id: NodeId, each: &mut dyn FnMut(Run) -> Result<()>) -> Result<()> {
        let root = &self.shape.root;
        if id == ROOT && self.shape.bits != 32 {
            return each(Run {
                logical: 0,
                place: root.start,
                len: root.end - root.start,
                written: true,
            });
        }
        self.chain(self.first(id)?, each)
    }

    fn names(&self, id: NodeId, each: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()> {
        let mut long = LongName::default();
        let (mut ended, mut bytes) = (false, 0);
        self.folder_runs(id, &mut |run| {
            let mut at = run.place;
            while at < run.place + run.len && !ended {
                bytes += ENTRY;
                if bytes > LONGEST_FOLDER {
                    return Err(self.volume.damaged("a folder is impossibly long", at));
                }
                let f = self.volume.fields(at, to_usize(ENTRY))?;
                let (id, attributes) = (at, f.u8(11)?);
                at += ENTRY;
                match f.u8(0)? {
                    0 => {
                        ended = true;
                        break;
                    }
                    0xE5 => {
                        long = LongName::default();
                        continue;
                    }
                    _ => {}
                }
                if attributes & 0x3F == LONG_NAME {
                    long.push(&f)?;
                    continue;
                }
                let long = std::mem::take(&mut long);
                if attributes & LABEL != 0 {
                    continue;
                }
                let name = match long.finish(&f)? {
                    Some(name) => name,
                    None => short_name(&f)?,
                };
                if name != "." && name != ".." {
                    let folder = Some(attributes & FOLDER != 0);
                    each(Entry {
                        name: name.into_bytes(),
                        id,
                        folder,
                    })?;
                }
            }
            Ok(())
        })
    }
}

/// A long name, assembled from the entries before the short one.
#[derive(Debug, Default)]
struct LongName {
    parts: Vec<Vec<u8>>,
    sum: u8,
}

impl LongName {
    fn push(&mut self, f: &Fields) -> Result<()> {
        let number = f.u8(0)?;
        if number & 0x40 != 0 {
            self.parts.clear();
            self.sum = f.u8(13)?;
        } else if self.sum != f.u8(13)? || self.parts.len() >= 20 {
            self.parts.clear();
            return Ok(());
        }
        self.parts
            .push([f.part(1, 10)?, f.part(14, 12)?, f.part(28, 4)?].concat());
        Ok(())
    }

    /// The name, if it belongs to this short one.
    fn finish(self, f: &Fields) -> Result<Option<String>> {
        let sum = f
            .part(0, 11)?
            .iter()
            .fold(0_u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte));
        if self.parts.is_empty() || self.sum != sum {
            return Ok(None);
        }
        let units: Vec<u8> = self.parts.into_iter().rev().flatten().collect();
        let end = units
            .chunks_exact(2)
            .position(|unit| unit == [0, 0])
            .unwrap_or(units.len() / 2);
        let name = utf16(units.get(..end * 2).unwrap_or_default());
        Ok(Some(name.replace('/', "\u{2215}")))
    }
}

fn short_name(f: &Fields) -> Result<String> {
    let case = f.u8(12)?;
    let part = |bytes: &[u8], lower: bool| -> String {
        let chars = bytes.iter().map(|byte| match byte {
            // The mark of a removed file, as part of a name.
            0x05 => 'σ',
            b'/' => '\u{2215}',
            0..0x80 => char::from(*byte),
            high => HIGH
                .chars()
                .nth(usize::from(high - 0x80))
                .unwrap_or(char::REPLACEMENT_CHARACTER),
        });
        let text: String = chars.collect();
        let text = text.trim_end();
        if lower {
            text.to_lowercase()
        } else {
            text.to_owned()
        }
    };
    let base = part(f.part(0, 8)?, case & 0x08 != 0);
    let extension = part(f.part(8, 3)?, case & 0x10 != 0);
    Ok(if extension.is_empty() {
        base
    } else {
        format!("{base}.{extension}")
    })
}

/// Converts a DOS date and time to seconds since 1970, treated as UTC: the file system doesn't record its time zone.
pub(super) fn dos_time(date: u16, time: u16) -> i64 {
    let (year, month, day) = (
        i64::from(date >> 9) + 1980,
        i64::from(date >> 5 & 15),
        i64::from(date & 31),
    );
    let seconds =
        i64::from(time >> 11) * 3600 + i64::from(time >> 5 & 63) * 60 + i64::from(time & 31) * 2;
    // Days of the civil calendar, in years that begin in March.
    let (year, month) = if month <= 2 {
        (year - 1, month + 9)
    } else {
        (year, month - 3)
    };
    let days =
        year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1 - 719_468;
    days * 86400 + seconds
}

impl FileSystem for Fat<'_> {
    fn name(&self) -> &'static str {
        match self.shape.bits {
            12 => "fat12",
            16 => "fat16",
            _ => "fat32",
        }
    }

    fn label(&self) -> String {
        self.shape.label.clone()
    }

    fn root(&self) -> NodeId {
        ROOT
    }

    fn volume(&self) -> &Volume<'_> {
        &self.volume
    }

    fn folds_case(&self) -> bool {
        true
    }

    fn node(&self, id: NodeId) -> Result<Node> {
        let mut node = Node {
            id,
            identity: 0,
            kind: NodeKind::Folder,
            size: 0,
            mode: 0o755,
            uid: 0,
            gid: 0,
            modified: (0, 0),
            stored: Stored::Runs,
        };
        if id == ROOT {
            return Ok(node);
        }
        let f = self.entry(id)?;
        let attributes = f.u8(11)?;
        let first = self.first(id)?;
        let place = u128::from(id) << 64;
        node.identity = if first == 0 { place } else { first.into() };
        node.modified = (dos_time(f.u16(24)?, f.u16(22)?), 0);
        if attributes & FOLDER == 0 {
            node.kind = NodeKind::File;
            node.size = f.u32(28)?.into();
            node.mode = 0o644;
            if first == 0 && node.size > 0 {
                return Err(f.damaged("a file has a size, and no clusters"));
            }
        }
        if attributes & READ_ONLY != 0 {
            node.mode &= 0o555;
        }
        Ok(node)
    }

    fn record(&self, id: NodeId) -> Option<Range<u64>> {
        if id == ROOT {
            Some(0..self.shape.sector)
        } else {
            Some(id..id + ENTRY)
        }
    }

    fn list(&self, node: &Node, each: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()> {
        if node.kind != NodeKind::Folder {
            return Err(self.volume.damaged("this is not a folder", node.id));
        }
        self.begin_pass();
        self.names(node.id, each)
    }

    fn runs(&self, node: &Node, each: &mut dyn FnMut(Run) -> Result<()>) -> Result<()> {
        self.begin_pass();
        match node.kind {
            NodeKind::Folder => self.folder_runs(node.id, each),
            _ => self.chain(self.first(node.id)?, each),
        }
    }

    fn owners(&self, each: &mut Owners<'_>, wrong: &mut dyn FnMut(Error)) -> Result<()> {
        let shape = &self.shape;
        each(0..shape.reserved, Owner::Area("boot sectors"))?;
        each(
            shape.reserved..shape.root.start,
            Owner::Area("file allocation tables"),
        )?;
        self.begin_pass();
        let mut folders = vec![ROOT];
        let mut seen = HashSet::from([shape.root_cluster]);
        while let Some(id) = folders.pop() {
            let mut inside = Vec::new();
            let own = |id: NodeId, node: &Node, each: &mut Owners<'_>| {
                let own = &mut |run| own_run(node, run, each);
                if node.kind == NodeKind::Folder {
                    self.folder_runs(id, own)
                } else {
                    self.chain(self.first(id)?, own)
                }
            };
            let folder = self.node(id).and_then(|node| own(id, &node, each));
            let listed = folder.and_then(|()| {
                self.names(id, &mut |entry| {
                    inside.push(entry.id);
                    Ok(())
                })
            });
            let listed = std::iter::once(listed);
            let files = inside.iter().map(|id| {
                let node = self.node(*id)?;
                if node.kind != NodeKind::Folder {
                    return own(*id, &node, each);
                }
                if seen.insert(self.first(*id)?) {
                    folders.push(*id);
                }
                Ok(())
            });
            for done in files.collect::<Vec<_>>().into_iter().chain(listed) {
                match done {
                    Err(error) if super::read::is_damage(&error) => wrong(error),
                    done => done?,
                }
            }
        }
        Ok(())
    }
}
