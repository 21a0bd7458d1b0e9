//! A point in time as an image.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::base::{Ground, start_of};
use super::disk::Link;
use super::layout::base_options;
use super::lock::DiskLock;
use super::{Disk, Manifest};
use crate::diff::{DiffFile, Overlay, Side};
use crate::error::{Error, ErrorKind, Result};
use crate::files::{EmptyDisk, Format, OpenImage, OpenOptions, Opened, open_image};
use crate::image::{ContentDigest, Extents, Image, IoHints, Resized};
use crate::page::PageRange;
use crate::remedy::Remedy;
use crate::storage::{PooledFile, Stamp, check_unchanged_at, room_for_files};
use crate::vhd::{Footer, VhdImage};

/// A point in time: the base with the diffs up to it, some of which may be of another disk. It keeps the lock of its
/// disk, unless it [holds its files](PointImage::hold_files).
#[derive(Debug)]
pub struct PointImage {
    label: PathBuf,
    /// How many snapshots it depends on, including itself, and their size in bytes.
    chain: (usize, u64),
    /// The names of the others that it depends on, the base first.
    earlier: Vec<String>,
    manifest: Manifest,
    footer: Option<Footer>,
    /// On top of the base with the size that it had when its snapshot was created. A base that is being rolled forward
    /// may have another size already: the truncated part reads as zeros, and everything beyond the old end is hidden,
    /// so that the diffs still fit.
    overlay: Overlay<Ground>,
    base_file: PathBuf,
    /// Of a base that is an image; a packed one is the first of the diffs.
    base_stamp: Option<Stamp>,
    /// Whether an interrupted deletion was changing the base.
    base_changes: bool,
    diffs: Vec<Arc<OpenDiff>>,
    /// The advice about damage in the files of each folder; the last is its own.
    repairs: Vec<(PathBuf, Remedy)>,
    /// Of its own disk first. `None` if it holds its files.
    locks: Option<Vec<Arc<DiskLock>>>,
}

/// A diff of a snapshot, of which only the ends have been read.
#[derive(Debug)]
pub(super) struct OpenDiff {
    pub(super) diff: Arc<DiffFile>,
    path: PathBuf,
    pub(super) file: PooledFile,
    identity: Option<ContentDigest>,
}

/// The open diffs of a disk, by file name: folding a thousand snapshots needs each of them many times.
#[derive(Debug, Default)]
pub(super) struct OpenDiffs(Mutex<HashMap<String, Arc<OpenDiff>>>);

impl OpenDiffs {
    pub(super) fn get(&self, disk: &Disk, point: &Manifest) -> Result<Arc<OpenDiff>> {
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = lock().get(&point.data.file).map(Arc::clone);
        // An open file was a plain file when it was opened; whether it still has its name is checked at the end.
        if let Some(known) = known
            && known.identity == point.data.identity
            && known.path == disk.data_name(point)
        {
            return Ok(known);
        }
        let path = disk.data_path(point)?;
        let opened = Arc::new(OpenDiff::open(disk, &path, point)?);
        lock().insert(point.data.file.clone(), Arc::clone(&opened));
        Ok(opened)
    }

    /// Closes a diff whose file is replaced or removed.
    pub(super) fn forget(&self, file: &str) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.remove(file);
    }
}

impl OpenDiff {
    fn open(disk: &Disk, path: &Path, point: &Manifest) -> Result<Self> {
        let file = disk.handles().open(path)?;
        let diff =
            DiffFile::open_indexed(file.clone()).map_err(|error| with_repair(disk, error))?;
        check_ends(disk, path, point, &diff)?;
        Ok(Self {
            diff: Arc::new(diff),
            path: path.to_path_buf(),
            file,
            identity: point.data.identity,
        })
    }
}

/// What is below a packed base.
fn empty_below(disk: &Disk, base: &Manifest) -> Result<EmptyDisk> {
    let open = disk.open_diffs().get(disk, base)?;
    Ok(EmptyDisk::new(open.diff.header().base_size))
}

impl PointImage {
    pub(super) fn open(disk: &Disk, point: &Manifest) -> Result<Self> {
        let chain = disk.links(point)?;
        let Some(Link {
            disk: of,
            point: base,
        }) = chain.first().copied()
        else {
            return Err(Error::damaged("a snapshot without a base").with_path(disk.folder()));
        };
        let base_file = of.data_path(base)?;
        if base.is_packed() {
            return Self::over(
                disk,
                &chain,
                point,
                (Ground::Nothing(empty_below(of, base)?), base_file),
            );
        }
        // Whatever part of it has been rolled forward, the diffs on top determine the content.
        let is_going = of.going.iter().any(|gone| gone == base);
        let options = OpenOptions {
            ignore_journal: is_going,
            ..base_options(&base_file)
        };
        let image = open_image(&base_file, &options).map_err(|error| with_repair(of, error))?;
        if image.virtual_size() != base.virtual_size && !is_going {
            return Err(Error::damaged("the base doesn't match its manifest")
                .with_path(base_file)
                .with_field("virtual size")
                .with_found(format_args!("{} bytes", image.virtual_size()))
                .with_expected(format_args!("{} bytes", base.virtual_size))
                .override_remedy(of.repair_remedy()));
        }
        let stamp = *image.stamp();
        let ground = Ground::Image(Box::new(Resized::new(image, base.virtual_size)));
        let mut point = Self::over(disk, &chain, point, (ground, base_file))?;
        point.base_stamp = Some(stamp);
        point.base_changes = is_going;
        Ok(point)
    }

    /// The diffs of `chain` over what is below them.
    fn over(
        disk: &Disk,
        chain: &[Link<'_>],
        point: &Manifest,
        (ground, base_file): (Ground, PathBuf),
    ) -> Result<Self> {
        let digest = match &ground {
            Ground::Nothing(empty) => Some(ContentDigest::of_empty(empty.virtual_size())),
            Ground::Image(_) => chain.first().map(|base| base.point.content_digest),
        };
        let diffs = chain
            .iter()
            .filter(|part| part.point.data.identity.is_some())
            .map(|part| part.disk.open_diffs().get(part.disk, part.point))
            .collect::<Result<Vec<_>>>()?;
        let overlaid = diffs.iter().map(|open| Arc::clone(&open.diff)).collect();
        let used = chain.iter().map(|part| part.point.used_size);
        let disks = disk.disks_below();
        let folder = |disk: &Disk| (disk.folder().to_path_buf(), disk.repair_remedy());
        Ok(Self {
            label: disk.label(point),
            footer: point.source.footer(),
            manifest: point.clone(),
            chain: (chain.len(), used.fold(0, u64::saturating_add)),
            earlier: {
                let others = chain.split_last().map_or(&[][..], |(_, others)| others);
                others.iter().map(|part| part.name_in(disk)).collect()
            },
            overlay: Overlay::new(ground, digest, overlaid)?,
            base_file,
            base_stamp: None,
            base_changes: false,
            diffs,
            repairs: disks
                .iter()
                .copied()
                .map(folder)
                .chain([folder(disk)])
                .collect(),
            locks: Some(
                [disk]
                    .iter()
                    .chain(&disks)
                    .map(|disk| Arc::clone(disk.lock()))
                    .collect(),
            ),
        })
    }

    /// Holds all of its files open and releases the lock of the disk: other commands may then add, delete and prune
    /// snapshots, including this one, and what it reads stays the same, because no command changes a file of a store
    /// that somebody has open. Space freed by a deletion returns to the file system when this is dropped.
    ///
    /// Returns whether that was possible. It keeps the lock if there are more files than a process may have open, or if
    /// an interrupted deletion was changing the base.
    pub fn hold_files(&mut self) -> Result<bool> {
        if self.locks.is_none() {
            return Ok(true);
        }
        if self.base_changes || self.diffs.len() > room_for_files() {
            return Ok(false);
        }
        self.diffs.iter().try_for_each(|open| open.file.hold())?;
        self.locks = None;
        Ok(true)
    }

    /// Its manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// How many snapshots it depends on, including itself.
    pub fn chain_length(&self) -> usize {
        self.chain.0
    }

    /// The names of the snapshots that it depends on, the base first, without its own; those of another disk as
    /// `DISK@SNAPSHOT`. Each leads to the next one, and the last to this, by one of the [diffs](Self::diffs).
    pub fn earlier(&self) -> &[String] {
        &self.earlier
    }

    /// Their total size in bytes.
    pub fn chain_used_size(&self) -> u64 {
        self.chain.1
    }

    /// The diffs on top of the base, in order.
    pub fn diffs(&self) -> &[Arc<DiffFile>] {
        let below = usize::from(matches!(self.overlay.base(), Ground::Nothing(_)));
        self.overlay.diffs().get(below..).unwrap_or_default()
    }

    /// The file of the base.
    pub fn base_file(&self) -> &Path {
        &self.base_file
    }

    /// The base, if it is an image.
    fn base_image(&self) -> Option<&OpenImage> {
        match self.overlay.base() {
            Ground::Image(image) => Some(image.inner()),
            Ground::Nothing(_) => None,
        }
    }
}

/// Adds how to rebuild a damaged file of a store: code that reads only that file knows nothing about the store.
pub(super) fn with_repair(disk: &Disk, error: Error) -> Error {
    match error.kind() {
        ErrorKind::Damaged => error.override_remedy(disk.repair_remedy()),
        _ => error,
    }
}

impl PointImage {
    /// As [`with_repair`], for errors while it is being read.
    fn with_repair(&self, error: Error) -> Error {
        let folder = error.path().and_then(Path::parent);
        let mut own = self.repairs.iter();
        let own = own.find(|(of, _)| Some(of.as_path()) == folder);
        match own.or(self.repairs.last()) {
            Some((_, repair)) if error.kind() == ErrorKind::Damaged => {
                error.override_remedy(repair.clone())
            }
            _ => error,
        }
    }
}

/// Opens the diff of a snapshot by its ends, which must match the manifest.
pub(super) fn open_diff(disk: &Disk, point: &Manifest) -> Result<DiffFile> {
    let path = disk.data_path(point)?;
    let diff = DiffFile::open_indexed(disk.handles().open(&path)?)
        .map_err(|error| with_repair(disk, error))?;
    check_ends(disk, &path, point, &diff).map(|()| diff)
}

fn check_ends(disk: &Disk, path: &Path, point: &Manifest, diff: &DiffFile) -> Result<()> {
    let identity = ContentDigest(*diff.digest());
    let wrong = |field: &str, found: String, expected: String| {
        Err(Error::damaged("this diff doesn't match its manifest")
            .with_path(path)
            .with_field(field)
            .with_found(found)
            .with_expected(expected)
            .override_remedy(disk.repair_remedy()))
    };
    let show =
        |digest: Option<ContentDigest>| digest.map_or_else(|| "none".to_owned(), |d| d.to_string());
    if point.data.identity != Some(identity) {
        return wrong("digest", identity.to_string(), show(point.data.identity));
    }
    if point.is_packed() && diff.trailer().base_digest != Some(start_of(point, diff)) {
        let of = point.like.as_ref();
        let of = of.map_or_else(|| "an empty disk".to_owned(), ToString::to_string);
        return wrong(
            "base digest",
            show(diff.trailer().base_digest),
            format!("{}, of {of}", start_of(point, diff)),
        );
    }
    let target = diff.trailer().target_digest;
    if target != Some(point.content_digest) {
        return wrong(
            "target digest",
            show(target),
            point.content_digest.to_string(),
        );
    }
    let size = diff.header().target_size;
    if size != point.virtual_size {
        return wrong(
            "target size",
            size.to_string(),
            point.virtual_size.to_string(),
        );
    }
    Ok(())
}

impl Image for PointImage {
    fn virtual_size(&self) -> u64 {
        self.overlay.virtual_size()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let read = self.overlay.read_exact_at(buf, offset);
        read.map_err(|error| self.with_repair(error))
    }

    fn extents(&self, within: PageRange) -> Extents<'_> {
        let extents = self.overlay.extents(within);
        Box::new(extents.map(|extent| extent.map_err(|error| self.with_repair(error))))
    }

    fn io(&self) -> IoHints {
        self.overlay.io()
    }
}

impl Opened for PointImage {
    fn path(&self) -> &Path {
        &self.label
    }

    fn format(&self) -> Format {
        self.manifest.source.format()
    }

    fn footer(&self) -> Option<&Footer> {
        self.footer.as_ref()
    }

    fn block_size(&self) -> Option<u32> {
        let size = self.base_image()?.vhd().and_then(VhdImage::block_size);
        size.and_then(|size| u32::try_from(size).ok())
    }

    fn files(&self) -> Vec<&Path> {
        let diffs = self.diffs().iter().map(|diff| diff.name());
        [self.base_file.as_path()]
            .into_iter()
            .chain(diffs)
            .collect()
    }

    fn check_unchanged(&self) -> Result<()> {
        match (self.base_image(), &self.base_stamp) {
            (Some(base), Some(stamp)) if self.locks.is_none() => {
                base.file().check_content_unchanged(stamp)?;
            }
            (_, Some(stamp)) => check_unchanged_at(&self.base_file, stamp)?,
            // It is one of the diffs.
            (_, None) => {}
        }
        self.diffs
            .iter()
            .try_for_each(|open| open.file.check_unchanged())
    }

    fn side(&self) -> Side {
        side(&self.manifest)
    }
}

/// The information about a snapshot that is recorded in a diff.
pub(super) fn side(point: &Manifest) -> Side {
    let footer = point.source.footer();
    Side {
        name: point.source.name.clone(),
        format: Some(point.source.format.clone()),
        unique_id: footer.as_ref().map(|footer| footer.unique_id.0),
        time: Some(point.time.to_unix()),
        snapshot: Some(point.name.clone()),
        source_resource_id: point.family.source_resource_id.clone(),
        source_unique_id: point.family.source_unique_id.clone(),
        footer: footer.map(|footer| Box::new(footer.encode())),
    }
}
