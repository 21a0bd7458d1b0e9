//! NTFS: files are records in one table. Names are read from the indexes of folders, and the ownership of clusters from
//! the records in order, without following attribute lists.

mod reader;
mod record;

use std::ops::Range;

use crate::error::{Error, Result};
use crate::inside::model::{
    Entry, FileSystem, Node, NodeId, NodeKind, Owner, Owners, Run, Stored, own_run,
};
use crate::inside::read::{Fields, Volume, utf16};
use crate::page::to_usize;
use record::{Attribute, NUMBER, Value, kind, put_right};

const ROOT: NodeId = 5;
const EXTEND: NodeId = 11;
/// Lower record numbers belong to the file system itself.
const FIRST_FILE: NodeId = 16;

/// The name of the file name index.
const NAMES: &str = "$I30";

/// An NTFS file system.
#[derive(Debug)]
pub(super) struct Ntfs<'a> {
    volume: Volume<'a>,
    cluster: u64,
    clusters: u64,
    record: u64,
    /// The location of the file table.
    table: Vec<Run>,
    records: u64,
    label: String,
}

impl<'a> Ntfs<'a> {
    pub(super) fn is_there(volume: &Volume<'_>) -> Result<bool> {
        Ok(volume.len() >= 512 && volume.fields(0, 512)?.part(3, 8)? == b"NTFS    ")
    }

    pub(super) fn open(volume: Volume<'a>) -> Result<Self> {
        let f = volume.fields(0, 512)?;
        let sector = u64::from(f.u16(11)?);
        let per_cluster = match f.u8(13)? {
            n @ 0..=128 => u64::from(n),
            n => 1_u64.checked_shl(u32::from(n.wrapping_neg())).unwrap_or(0),
        };
        let cluster = sector.saturating_mul(per_cluster);
        let record = match f.u8(64)? {
            n @ 0..=127 => u64::from(n).saturating_mul(cluster),
            n => 1_u64.checked_shl(u32::from(n.wrapping_neg())).unwrap_or(0),
        };
        let clusters = f
            .u64(40)?
            .saturating_mul(sector)
            .checked_div(cluster)
            .unwrap_or(0);
        if !matches!(sector, 256..=4096)
            || !cluster.is_power_of_two()
            || !(256..=(2 << 20)).contains(&cluster)
            || !record.is_power_of_two()
            || !(256..=(64 << 10)).contains(&record)
            || clusters.saturating_mul(cluster) > volume.len()
            || clusters == 0
        {
            return Err(f.damaged("the boot sector of NTFS is damaged: impossible sizes"));
        }
        let at = f.u64(48)?.saturating_mul(cluster);
        let mut ntfs = Self {
            volume,
            cluster,
            clusters,
            record,
            table: vec![Run {
                logical: 0,
                place: at,
                len: record * 16,
                written: true,
            }],
            records: 16,
            label: String::new(),
        };
        ntfs.read_table()?;
        if let Ok(file) = ntfs.file(3) {
            let label = file
                .attributes
                .iter()
                .find(|attribute| attribute.kind == 0x60);
            if let Some(Value::Resident(f)) = label.map(|attribute| &attribute.value) {
                ntfs.label = utf16(&f.bytes);
            }
        }
        ntfs.file(ROOT)?;
        Ok(ntfs)
    }

    /// Locates the file table itself: its first part is in its first record, others may be in records listed there.
    fn read_table(&mut self) -> Result<()> {
        let f = self.fields(0)?;
        let mut parts = self.attributes(&f)?;
        let data = |parts: &[Attribute]| {
            let data = parts
                .iter()
                .filter(|part| part.kind == kind::DATA && part.name.is_empty());
            let mut runs: Vec<Run> = Vec::new();
            let mut size = 0;
            for part in data {
                if let Value::Runs {
                    first,
                    size: own,
                    runs: own_runs,
                    ..
                } = &part.value
                {
                    if *first == 0 {
                        size = *own;
                    }
                    runs.extend(own_runs);
                }
            }
            runs.sort_by_key(|run| run.logical);
            (runs, size)
        };
        let (runs, size) = data(&parts);
        if runs.is_empty() {
            return Err(f.damaged("the file table has no location"));
        }
        self.table = runs;
        self.records = size / self.record;
        for number in self.other_records(0, &parts)? {
            let f = self.fields(number)?;
            parts.extend(self.attributes(&f)?);
        }
        (self.table, _) = data(&parts);
        Ok(())
    }

    fn record_place(&self, number: u64) -> Result<u64> {
        let at = number.checked_mul(self.record);
        let found = at.filter(|_| number < self.records).and_then(|at| {
            let run = self
                .table
                .partition_point(|run| run.logical + run.len <= at);
            let run = self
                .table
                .get(run)
                .filter(|run| run.logical <= at && run.written)?;
            Some(run.place + (at - run.logical))
        });
        found.ok_or_else(|| {
            self.volume
                .damaged("there is no record of this number", 0)
                .with_found(number)
        })
    }
}

/// Converts a time in 100 ns since 1601 to seconds and nanoseconds since 1970.
fn time(ticks: u64) -> (i64, u32) {
    const SECOND: u64 = 10_000_000;
    let seconds = i64::try_from(ticks / SECOND).unwrap_or(i64::MAX);
    let nanos = u32::try_from(ticks % SECOND * 100).unwrap_or(0);
    (seconds.saturating_sub(11_644_473_600), nanos)
}

/// Passes on the names of an index with their record numbers, without the short DOS names of files that have a long
/// one.
fn entries(
    f: &Fields,
    start: usize,
    end: usize,
    each: &mut dyn FnMut(Entry) -> Result<()>,
) -> Result<()> {
    let mut at = start;
    while at + 16 <= end {
        let (len, key, flags) = (
            usize::from(f.u16(at + 8)?),
            usize::from(f.u16(at + 10)?),
            f.u16(at + 12)?,
        );
        if flags & 2 != 0 {
            break;
        }
        if len < 16 || at + len > end {
            return Err(f.damaged("an index of names is damaged"));
        }
        let id = f.u64(at)? & NUMBER;
        if key >= 66 {
            let name = f.sub(at + 16, key)?;
            let space = name.u8(65)?;
            let text = utf16(name.part(66, 2 * usize::from(name.u8(64)?))?);
            let attributes = name.u32(56)?;
            let hidden = id < FIRST_FILE && id != EXTEND;
            if space != 2 && !hidden && text != "." {
                // Links are also marked as folders.
                let folder = (attributes & 0x400 == 0).then_some(attributes & 0x1000_0000 != 0);
                each(Entry {
                    name: text.replace('/', "\u{2215}").into_bytes(),
                    id,
                    folder,
                })?;
            }
        }
        at += len;
    }
    Ok(())
}

impl FileSystem for Ntfs<'_> {
    fn name(&self) -> &'static str {
        "ntfs"
    }

    fn label(&self) -> String {
        self.label.clone()
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
        let file = self.file(id)?;
        let folder = file.base.u16(22)? & 2 != 0;
        let sequence = file.base.u16(16)?;
        let standard = file.parts(kind::STANDARD, "").next();
        let (modified, attributes) = match standard.map(|part| &part.value) {
            Some(Value::Resident(f)) => (time(f.u64(8)?), f.u32(32)?),
            _ => ((0, 0), 0),
        };
        let mut node = Node {
            id,
            identity: u128::from(id) << 16 | u128::from(sequence),
            kind: if folder {
                NodeKind::Folder
            } else {
                NodeKind::File
            },
            size: 0,
            mode: if folder { 0o755 } else { 0o644 },
            uid: 0,
            gid: 0,
            modified,
            stored: Stored::Runs,
        };
        if attributes & 1 != 0 && !folder {
            node.mode = 0o444;
        }
        let reparse = file.parts(kind::REPARSE, "").next();
        if let Some(Value::Resident(f)) = reparse.map(|part| &part.value) {
            // A symbolic link, or a mount point.
            if matches!(f.u32(0)?, 0xA000_000C | 0xA000_0003) {
                let head = if f.u32(0)? == 0xA000_000C { 20 } else { 16 };
                let (at, len) = (usize::from(f.u16(12)?), usize::from(f.u16(14)?));
                let link = utf16(f.part(head + at, len)?).into_bytes();
                (node.kind, node.size) = (NodeKind::Link, link.len() as u64);
                node.stored = Stored::Inline(link);
                return Ok(node);
            }
            node.stored = Stored::NotRead("in a form of its own (a reparse point)");
        }
        if folder {
            return Ok(node);
        }
        let data = file.parts(kind::DATA, "").next();
        match data.map(|part| &part.value) {
            Some(Value::Resident(f)) => {
                node.size = f.bytes.len() as u64;
                if node.stored == Stored::Runs {
                    node.stored = Stored::Inline(f.bytes.clone());
                }
            }
            Some(Value::Runs { .. }) => {
                (_, node.size, _) = file.runs(kind::DATA, "")?;
                let flags = file
                    .parts(kind::DATA, "")
                    .fold(0, |all, part| all | part.flags);
                if flags & 0x4000 != 0 {
                    node.stored = Stored::NotRead("encrypted");
                } else if flags & 0xFF != 0 {
                    node.stored = Stored::NotRead("compressed");
                }
            }
            None => {}
        }
        Ok(node)
    }

    fn record(&self, id: NodeId) -> Option<Range<u64>> {
        let at = self.record_place(id).ok()?;
        Some(at..at + self.record)
    }

    fn list(&self, node: &Node, each: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()> {
        let file = self.file(node.id)?;
        let root = file
            .parts(kind::INDEX_ROOT, NAMES)
            .next()
            .map(|part| &part.value);
        let Some(Value::Resident(f)) = root else {
            return Err(file.base.damaged("this is not a folder"));
        };
        let block = u64::from(f.u32(8)?);
        let first = to_usize(u64::from(f.u32(16)?)).saturating_add(16);
        entries(f, first, f.bytes.len(), each)?;
        let (runs, size, _) = file.runs(kind::INDEX, NAMES)?;
        if runs.is_empty() {
            return Ok(());
        }
        if !block.is_power_of_two()
            || !(512..=(64 << 10)).contains(&block)
            || size > self.volume.len()
        {
            return Err(f.damaged("an index of names has impossible sizes"));
        }
        let used = match file
            .parts(kind::BITMAP, NAMES)
            .next()
            .map(|part| &part.value)
        {
            Some(Value::Resident(f)) => f.bytes.clone(),
            Some(Value::Runs { size, .. }) => {
                let (runs, ..) = file.runs(kind::BITMAP, NAMES)?;
                let mut bytes = Vec::new();
                for run in runs {
                    let left = to_usize(*size).saturating_sub(bytes.len());
                    bytes.extend(self.volume.bytes(run.place, to_usize(run.len).min(left))?);
                }
                bytes
            }
            None => return Err(f.damaged("an index of names has no bitmap")),
        };
        for number in 0..size / block {
            let byte = used.get(to_usize(number / 8)).copied().unwrap_or(0);
            if byte >> (number % 8) & 1 == 0 {
                continue;
            }
            // A block may span several runs if clusters are small.
            let (mut bytes, mut place) = (Vec::new(), 0);
            while (bytes.len() as u64) < block {
                let at = number * block + bytes.len() as u64;
                let run = runs
                    .iter()
                    .find(|run| (run.logical..run.logical + run.len).contains(&at));
                let run = run.ok_or_else(|| f.damaged("an index of names has a hole"))?;
                let within = at - run.logical;
                let len = (run.len - within).min(block - bytes.len() as u64);
                place = run.place + within;
                bytes.extend(self.volume.bytes(place, to_usize(len))?);
            }
            let node = Fields {
                bytes,
                at: self.volume.on_disk(place),
            };
            let node = put_right(node, *b"INDX")?;
            let first = to_usize(u64::from(node.u32(24)?)).saturating_add(24);
            let end = to_usize(u64::from(node.u32(28)?)).saturating_add(24);
            entries(&node, first, end.min(node.bytes.len()), each)?;
        }
        Ok(())
    }

    fn runs(&self, node: &Node, each: &mut dyn FnMut(Run) -> Result<()>) -> Result<()> {
        let file = self.file(node.id)?;
        if node.kind == NodeKind::Folder {
            return file
                .runs(kind::INDEX, NAMES)?
                .0
                .into_iter()
                .try_for_each(each);
        }
        let (runs, _, written) = file.runs(kind::DATA, "")?;
        for mut run in runs {
            // Everything after the initialized length reads as zeros.
            let content = written.saturating_sub(run.logical).min(run.len);
            if content == 0 {
                run.written = false;
                each(run)?;
                continue;
            }
            each(Run {
                len: content,
                ..run
            })?;
            if content < run.len {
                let rest = run.len - content;
                each(Run {
                    logical: run.logical + content,
                    place: run.place + content,
                    len: rest,
                    written: false,
                })?;
            }
        }
        Ok(())
    }

    fn owners(&self, each: &mut Owners<'_>, wrong: &mut dyn FnMut(Error)) -> Result<()> {
        each(0..self.cluster.max(8192), Owner::Area("boot sectors"))?;
        for number in 0..self.records {
            let Ok(place) = self.record_place(number) else {
                continue;
            };
            // Most of a file table that was created for more files is zeros.
            let head = self.volume.fields(place, 4)?;
            if head.u32(0)? == 0 {
                continue;
            }
            match self.own_record(number, place, each) {
                Err(error) if super::read::is_damage(&error) => wrong(error),
                done => done?,
            }
        }
        self.table
            .iter()
            .try_for_each(|run| each(run.place..run.place + run.len, Owner::Area("file table")))
    }
}

impl Ntfs<'_> {
    fn own_record(&self, number: u64, place: u64, each: &mut Owners<'_>) -> Result<()> {
        let f = self.fields(number)?;
        if f.u16(22)? & 1 == 0 {
            return Ok(());
        }
        let base = f.u64(32)? & NUMBER;
        let id = if base == 0 { number } else { base };
        let area = match id {
            0 => Some("file table"),
            1 => Some("copy of the file table"),
            2 => Some("journal"),
            6 => Some("bitmaps"),
            7 => Some("boot sectors"),
            ROOT | EXTEND => None,
            id if id < FIRST_FILE => Some("system files"),
            _ => None,
        };
        if base != 0 && area.is_none() {
            each(place..place + self.record, Owner::Map(id))?;
        }
        for part in self.attributes(&f)? {
            let Value::Runs { runs, .. } = &part.value else {
                continue;
            };
            for run in runs {
                let range = run.place..run.place + run.len;
                let owner = match (area, part.kind) {
                    (Some(area), _) => Owner::Area(area),
                    (None, kind::DATA) => {
                        let node = Node {
                            id,
                            identity: 0,
                            kind: NodeKind::File,
                            // In further records, the length of the content is unknown.
                            size: match &part.value {
                                Value::Runs { first: 0, size, .. } => *size,
                                _ => u64::MAX,
                            },
                            mode: 0,
                            uid: 0,
                            gid: 0,
                            modified: (0, 0),
                            stored: Stored::Runs,
                        };
                        own_run(&node, *run, each)?;
                        continue;
                    }
                    (None, kind::INDEX | kind::BITMAP) => Owner::Area(super::model::FOLDERS),
                    (None, kind::LIST) => Owner::Map(id),
                    (None, _) => Owner::Area("other attributes"),
                };
                each(range, owner)?;
            }
        }
        Ok(())
    }
}
