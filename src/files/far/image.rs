//! Images in page blobs, to be read.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::marks::{digest_of, refuse_unfinished};
use crate::blob::{BlobFile, BlobId, Since};
use crate::error::{Error, Result};
use crate::files::probe::{Probed, probe, refuse_foreign};
use crate::files::{FetchedFrom, Format, FormatChoice, Opened};
use crate::image::{ContentDigest, Extents, Image, Ranges, RawImage, SharedExtents};
use crate::page::{PageList, PageRange};
use crate::storage::ReadAt as _;
use crate::vhd::{CheckOptions, DiskType, Footer, Report, VhdImage, check};

/// The image in a page blob or in a snapshot of one, for reading.
#[derive(Debug)]
pub struct BlobImage {
    stored: Stored,
    doubts: Vec<Error>,
    /// Its content digest, if it is known from elsewhere than the blob.
    known: Option<ContentDigest>,
    /// The reason for which the service didn't list the changes when last asked.
    refusal: Mutex<Option<Error>>,
}

#[derive(Debug)]
enum Stored {
    Raw(Box<RawImage<BlobFile>>),
    Vhd(Format, Box<VhdImage<BlobFile>>),
}

impl BlobImage {
    /// Detects the format of `blob`, unless `format` specifies it. `option` is the name of the corresponding option for
    /// hints.
    ///
    /// # Errors
    ///
    /// [`Unsupported`](crate::ErrorKind::Unsupported) for formats that aren't supported, and for a differencing VHD,
    /// whose parent would have to be found.
    pub fn open(
        blob: BlobFile,
        format: Option<FormatChoice>,
        option: Option<&str>,
    ) -> Result<Self> {
        refuse_unfinished(&blob)?;
        let name = blob.name().to_path_buf();
        let probed = match format {
            Some(FormatChoice::Only(Format::Raw)) => Probed::Raw(Vec::new()),
            Some(_) => Probed::Vhd,
            None => probe(&blob, option)?,
        };
        let (stored, doubts) = match probed {
            Probed::Raw(doubts) => (Stored::Raw(Box::new(RawImage::open(blob)?)), doubts),
            Probed::Vhd => {
                let vhd = VhdImage::open(blob)?;
                let format = match vhd.disk_type() {
                    DiskType::Fixed => Format::Fixed,
                    DiskType::Dynamic => Format::Dynamic,
                    other => {
                        return Err(Error::unsupported(
                            "a VHD of this type is not read from a blob",
                        )
                        .with_path(name)
                        .with_found(other)
                        .with_expected("a fixed or dynamic VHD, or a raw disk")
                        .with_hint("download it beside its parent, and convert it there"));
                    }
                };
                (Stored::Vhd(format, Box::new(vhd)), Vec::new())
            }
        };
        let image = Self {
            known: None,
            refusal: Mutex::default(),
            stored,
            doubts: doubts
                .into_iter()
                .map(|doubt| doubt.warning(&name, option))
                .collect(),
        };
        match format {
            Some(choice) if !choice.allows(image.format()) => {
                Err(Error::usage("the image doesn't have the specified format")
                    .with_path(name)
                    .with_found(image.format())
                    .with_expected(choice))
            }
            _ => Ok(image),
        }
    }

    /// Sets the content digest, which is known.
    #[must_use]
    pub(super) fn with_digest(self, known: Option<ContentDigest>) -> Self {
        Self { known, ..self }
    }

    /// The blob.
    pub fn blob(&self) -> &BlobFile {
        match &self.stored {
            Stored::Raw(image) => image.storage(),
            Stored::Vhd(_, image) => image.storage(),
        }
    }

    /// The VHD, if it is one.
    pub fn vhd(&self) -> Option<&VhdImage<BlobFile>> {
        match &self.stored {
            Stored::Raw(_) => None,
            Stored::Vhd(_, image) => Some(image),
        }
    }

    /// Problems with the image that don't prevent reading it.
    pub fn warnings(&self) -> Vec<&Error> {
        let of_vhd = self.vhd().map_or(&[][..], VhdImage::warnings);
        of_vhd.iter().chain(&self.doubts).collect()
    }

    fn image(&self) -> &dyn Image {
        match &self.stored {
            Stored::Raw(image) => &**image,
            Stored::Vhd(_, image) => &**image,
        }
    }
}

/// Checks the image in a blob, as [`check_file`](crate::files::check_file) does in a file.
///
/// # Errors
///
/// Fails only if the blob can't be read, has an unsupported format, or was changed meanwhile.
pub fn check_blob(blob: &BlobFile, options: &CheckOptions<'_>) -> Result<Report> {
    refuse_unfinished(blob)?;
    refuse_foreign(blob, None)?;
    let report = check(blob, options)?;
    blob.check_unchanged()?;
    Ok(report)
}

/// The pages of `this` that were written since `earlier` was taken, according to the service. Returns `None` unless the
/// two are a blob and a snapshot of it, or snapshots of one blob.
///
/// # Errors
///
/// Fails if the service can't determine them.
fn changes_between(this: &BlobFile, earlier: &BlobFile) -> Option<Result<PageList>> {
    if this.store().is_managed_disk() && earlier.store().is_managed_disk() {
        // Which of the two is earlier only the service knows: the base should be.
        let since = Since::Disk(Box::new(earlier.granted()?.clone()));
        return Some(this.changes_since(&since));
    }
    let time = earlier_time(this.blob(), earlier.blob())?;
    let container = |blob: &BlobFile| blob.store().shown(&BlobId::live(""));
    let same = this.blob().name == earlier.blob().name && container(this) == container(earlier);
    same.then(|| this.changes_since(&Since::Snapshot(time)))
}

/// The time of `other`, if it is an earlier snapshot than `this`.
fn earlier_time(this: &BlobId, other: &BlobId) -> Option<String> {
    let time = other.snapshot.clone()?;
    match &this.snapshot {
        // The service writes times such that alphabetical order is chronological.
        Some(this) if *this <= time => None,
        _ => Some(time),
    }
}

impl Image for BlobImage {
    fn virtual_size(&self) -> u64 {
        self.image().virtual_size()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.image().read_exact_at(buf, offset)
    }

    fn extents(&self, within: PageRange) -> Extents<'_> {
        self.image().extents(within)
    }
}

impl Opened for BlobImage {
    fn path(&self) -> &Path {
        self.blob().name()
    }

    fn format(&self) -> Format {
        match &self.stored {
            Stored::Raw(_) => Format::Raw,
            Stored::Vhd(format, _) => *format,
        }
    }

    fn footer(&self) -> Option<&Footer> {
        self.vhd().map(VhdImage::footer)
    }

    fn block_size(&self) -> Option<u32> {
        let size = self.vhd().and_then(VhdImage::block_size);
        size.and_then(|size| u32::try_from(size).ok())
    }

    fn files(&self) -> Vec<&Path> {
        Vec::new()
    }

    fn check_unchanged(&self) -> Result<()> {
        self.blob().check_unchanged()
    }

    fn as_blob(&self) -> Option<&BlobFile> {
        Some(self.blob())
    }

    fn fetched_from(&self) -> Option<FetchedFrom> {
        let blob = self.blob();
        let version = match &blob.blob().snapshot {
            // A snapshot doesn't change, and its name has its time.
            Some(_) => String::new(),
            None => blob.properties().etag.clone(),
        };
        Some(FetchedFrom {
            source: blob.name().to_string_lossy().into_owned(),
            version,
        })
    }

    fn doubts(&self) -> Vec<&Error> {
        self.warnings()
    }

    fn noted_digest(&self) -> Option<ContentDigest> {
        self.known
            .or_else(|| digest_of(self.blob().blob(), self.blob().properties()))
    }

    fn why_nothing_is_shared(&self) -> Option<Error> {
        let mut refusal = self.refusal.lock().unwrap_or_else(PoisonError::into_inner);
        refusal.take()
    }

    fn told_changes(&self, earlier: &dyn Opened) -> Option<PageList> {
        changes_between(self.blob(), earlier.as_blob()?)?.ok()
    }

    fn shared_with<'a>(&'a self, other: &'a dyn Opened) -> Option<Box<dyn SharedExtents + 'a>> {
        let (this, blob) = (self.blob(), other.as_blob()?);
        // Only for these formats are the bytes of the virtual disk at the same offsets in the blob.
        if self.format() == Format::Dynamic || other.format() == Format::Dynamic {
            return None;
        }
        let changes = changes_between(this, blob).or_else(|| changes_between(blob, this))?;
        let changes = match changes {
            Ok(changes) => changes,
            // Then everything is read.
            Err(error) => {
                *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                return None;
            }
        };
        let size = self.virtual_size().min(other.virtual_size());
        Some(Box::new(Unchanged { changes, size }))
    }
}

/// Everything except the changes.
pub(super) struct Unchanged {
    pub(super) changes: PageList,
    pub(super) size: u64,
}

impl SharedExtents for Unchanged {
    fn equal_ranges(&self) -> Ranges<'_> {
        let whole = PageRange::covering(0, self.size);
        let ends = self.changes.iter().map(|change| change.range.end());
        let starts = self.changes.iter().map(|change| change.range.start());
        let gaps = std::iter::once(0)
            .chain(ends)
            .zip(starts.chain([self.size]));
        Box::new(
            gaps.filter(|(start, end)| start < end)
                .filter_map(move |(start, end)| PageRange::covering(start, end).intersect(whole)),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::{Change, ChangeKind};

    #[test]
    fn what_did_not_change_is_everything_else() {
        let list = |changes: &[(u64, u64)]| {
            let mut list = PageList::new();
            for (start, end) in changes {
                let range = PageRange::covering(*start, *end);
                list.push(Change {
                    range,
                    kind: ChangeKind::Update,
                })
                .unwrap();
            }
            list
        };
        for (changes, size, equal) in [
            (&[][..], 4096, &[(0, 4096)][..]),
            (&[(0, 4096)], 4096, &[]),
            (
                &[(0, 512), (1024, 2048)],
                4096,
                &[(512, 1024), (2048, 4096)],
            ),
            // A change beyond the end of the smaller one, such as in the footer.
            (
                &[(512, 1024), (4096, 4608)],
                4096,
                &[(0, 512), (1024, 4096)],
            ),
            (&[(512, 8192)], 4096, &[(0, 512)]),
        ] {
            let known = Unchanged {
                changes: list(changes),
                size,
            };
            let found: Vec<_> = known.equal_ranges().map(|r| (r.start(), r.end())).collect();
            assert_eq!(found, equal);
        }
    }

    #[test]
    fn only_an_earlier_snapshot_is_compared_with() {
        let live = BlobId::live("b");
        let (monday, tuesday) = (live.at("2026-11-23T"), live.at("2026-11-24T"));
        assert_eq!(
            earlier_time(&tuesday, &monday).as_deref(),
            Some("2026-11-23T")
        );
        assert_eq!(
            earlier_time(&live, &tuesday).as_deref(),
            Some("2026-11-24T")
        );
        assert_eq!(earlier_time(&monday, &tuesday), None);
        assert_eq!(earlier_time(&monday, &monday), None);
        assert_eq!(earlier_time(&monday, &live), None);
    }
}
