//! A point in time as an image.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Disk, Manifest};
use crate::diff::{DiffFile, Overlay, Side};
use crate::error::{Error, Result};
use crate::files::{Format, OpenImage, OpenOptions, Source, open_image};
use crate::image::{ContentDigest, Extents, Image};
use crate::page::PageRange;
use crate::storage::{File, Stamp};
use crate::vhd::{Footer, VhdImage};

/// A point in time: the base with the diffs up to it. It keeps the lock of its disk.
#[derive(Debug)]
pub struct PointImage {
    label: PathBuf,
    chain: Vec<Manifest>,
    manifest: Manifest,
    footer: Option<Footer>,
    overlay: Overlay<OpenImage>,
    base_file: PathBuf,
    stamps: Vec<(PathBuf, Stamp)>,
    _lock: Arc<File>,
}

impl PointImage {
    pub(super) fn open(disk: &Disk, point: &Manifest) -> Result<Self> {
        let chain = disk.chain(point)?;
        let Some((base, later)) = chain.split_first() else {
            return Err(Error::damaged("a snapshot without a base").path(disk.folder()));
        };
        let base_file = disk.path(&base.data.file);
        let image = open_image(&base_file, &OpenOptions::default())?;
        if image.virtual_size() != base.virtual_size {
            return Err(Error::damaged("the base is not what its manifest says")
                .path(base_file)
                .field("virtual size")
                .found(format_args!("{} bytes", image.virtual_size()))
                .expected(format_args!("{} bytes", base.virtual_size)));
        }
        let mut stamps = vec![(base_file.clone(), *image.stamp())];
        let mut diffs = Vec::with_capacity(later.len());
        for part in later {
            let path = disk.path(&part.data.file);
            diffs.push(Arc::new(open_diff(disk, &path, part)?));
            stamps.push((path.clone(), File::open(&path)?.stamp()?));
        }
        Ok(Self {
            label: disk.label(point),
            footer: point.source.footer(),
            manifest: point.clone(),
            chain: chain.iter().map(|part| (*part).clone()).collect(),
            overlay: Overlay::new(image, Some(base.content_digest), diffs)?,
            base_file,
            stamps,
            _lock: Arc::clone(disk.lock()),
        })
    }

    /// What is known of it.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// What is known of the snapshots that it is made of: a base, then the diffs up to it.
    pub fn chain(&self) -> &[Manifest] {
        &self.chain
    }

    /// The diffs that lie over the base, in order.
    pub fn diffs(&self) -> &[Arc<DiffFile>] {
        self.overlay.diffs()
    }

    /// The base.
    pub fn base(&self) -> &OpenImage {
        self.overlay.base()
    }
}

/// Opens the diff of a snapshot by its ends, which must be those that the manifest says.
pub(super) fn open_diff(disk: &Disk, path: &Path, point: &Manifest) -> Result<DiffFile> {
    let diff = DiffFile::open_indexed(disk.handles().open(path)?)?;
    let identity = ContentDigest(*diff.digest());
    let wrong = |field: &str, found: String, expected: String| {
        Err(Error::damaged("this diff is not the one that the manifest says")
            .path(path)
            .field(field)
            .found(found)
            .expected(expected)
            .hint("vhd snapshot verify says what is damaged; take the file from a copy of the store"))
    };
    let show =
        |digest: Option<ContentDigest>| digest.map_or_else(|| "none".to_owned(), |d| d.to_string());
    if point.data.identity != Some(identity) {
        return wrong("digest", identity.to_string(), show(point.data.identity));
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
    Ok(diff)
}

impl Image for PointImage {
    fn virtual_size(&self) -> u64 {
        self.overlay.virtual_size()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.overlay.read_exact_at(buf, offset)
    }

    fn extents(&self, within: PageRange) -> Extents<'_> {
        self.overlay.extents(within)
    }
}

impl Source for PointImage {
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
        let size = self.base().vhd().and_then(VhdImage::block_size);
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
        for (path, stamp) in &self.stamps {
            File::open(path)?.check_unchanged(stamp)?;
        }
        Ok(())
    }

    fn side(&self) -> Side {
        side(&self.manifest)
    }
}

/// What a diff is told of a snapshot.
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
