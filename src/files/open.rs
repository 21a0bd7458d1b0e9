//! Opening an image: detects its format, locks it, and refuses what can't be read safely.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::file_image::FileImage;
use super::options::{OpenOptions, ParentOptions, parent_options};
use super::parents::{Finder, Trail};
use super::pending::refuse_pending;
use super::probe::{Doubt, Probed, probe, refuse_not_disk};
use super::{Format, FormatChoice};
use crate::error::{Error, Result};
use crate::image::{
    Extent, Extents, Image, ImageMut, IoHints, MAX_VIRTUAL_SIZE, RawImage, whole, zeros,
};
use crate::page::PageRange;
use crate::remedy::{Act, Conversion, ReadAs, Remedy, Step};
use crate::storage::{Access, File, ReadAt as _, Stamp};
use crate::vhd::{DiskType, Parent, ParentPolicy, ParentRequest, StoredRun, VhdImage};

/// An image that was opened from a path.
#[derive(Debug)]
pub struct OpenImage {
    path: PathBuf,
    stored: FileImage,
    /// Reasons why a raw image may be something else.
    doubts: Vec<Error>,
    has_footer_inside: bool,
    stamp: Stamp,
    writable: bool,
    parent: Option<Arc<OpenImage>>,
}

/// A run of a virtual disk, and the image of a chain that determines its contents.
#[derive(Debug, Clone, Copy)]
pub struct Mapped<'a> {
    /// The range, and whether it may hold data.
    pub extent: Extent,
    /// The depth of that image in the chain; 0 for the opened image itself.
    pub depth: usize,
    /// That image.
    pub image: &'a OpenImage,
}

/// Mapped extents, in order and without gaps.
pub type MappedExtents<'a> = Box<dyn Iterator<Item = Result<Mapped<'a>>> + 'a>;

fn failed<'a>(error: Error) -> MappedExtents<'a> {
    Box::new(std::iter::once(Err(error)))
}

/// Opens the image at `path`, a file or a block device.
///
/// # Errors
///
/// [`Locked`] if another command is using it, [`Pending`] after an interrupted apply, [`Usage`] for a folder or a pipe,
/// [`Unsupported`] for unsupported formats (including diffs), [`Damaged`] for a violation of its format.
///
/// [`Locked`]: crate::ErrorKind::Locked
/// [`Pending`]: crate::ErrorKind::Pending
/// [`Usage`]: crate::ErrorKind::Usage
/// [`Unsupported`]: crate::ErrorKind::Unsupported
/// [`Damaged`]: crate::ErrorKind::Damaged
///
/// The parents of a differencing VHD are opened with it, for reading and with shared locks.
pub fn open_image(path: impl AsRef<Path>, options: &OpenOptions) -> Result<OpenImage> {
    let mut trail = Trail::default();
    let image = open_link(path.as_ref(), options, &mut trail)?;
    check_used(&trail, &image, &options.parents)?;
    Ok(image)
}

/// Opens an image with its parents; the images above it are in `trail`.
fn open_link(path: &Path, options: &OpenOptions, trail: &mut Trail) -> Result<OpenImage> {
    let file = open_readied(path, options)?;
    open_in(file, options, trail)
}

/// Opens the parent described by `request`, with its own parents.
pub(super) fn open_parent(
    request: &ParentRequest<'_>,
    options: &ParentOptions,
    trail: &mut Trail,
) -> Result<OpenImage> {
    let (path, raw) = Finder::new(options, trail).find(request)?;
    let child = OpenOptions {
        parents: options.clone(),
        ..OpenOptions::default()
    };
    open_link(&path, &parent_options(&child, raw), trail)
}

/// Fails if parents were specified for `image`, which has one, and none of them was it.
fn check_used(trail: &Trail, image: &OpenImage, options: &ParentOptions) -> Result<()> {
    let parent = image.parent().map(|parent| {
        let id = parent.vhd().map(|vhd| vhd.footer().unique_id);
        (parent.path(), id)
    });
    trail.check_used(image.path(), parent, options)
}

/// Opens and locks the file of an image.
fn open_readied(path: &Path, options: &OpenOptions) -> Result<File> {
    let file = match (options.no_lock, options.writable) {
        (true, true) => File::open_writable(path)?,
        (true, false) => File::open(path)?,
        (false, true) => File::open_locked(path, Access::Write)?,
        (false, false) => File::open_locked(path, Access::Read)?,
    };
    let file = file.with_policy(options.io);
    // Checked only now, because whoever writes a journal holds the lock.
    if !options.ignore_journal {
        refuse_pending(path)?;
    }
    Ok(file)
}

/// Opens the image in a file that the caller has opened and, if necessary, locked.
pub(super) fn open_file(file: File, options: &OpenOptions) -> Result<OpenImage> {
    let mut trail = Trail::default();
    let image = open_in(file, options, &mut trail)?;
    check_used(&trail, &image, &options.parents)?;
    Ok(image)
}

/// Returns the first `size` bytes of a raw image on a larger device, or the image itself: the target of a diff may be
/// on a larger device.
pub fn beginning_of(image: OpenImage, size: u64) -> Result<OpenImage> {
    let larger = image.file().is_block_device() && image.virtual_size() > size;
    if !larger || image.format() != Format::Raw {
        return Ok(image);
    }
    let options = OpenOptions {
        format: Some(FormatChoice::Only(Format::Raw)),
        no_lock: true,
        ..OpenOptions::default()
    };
    open_file(image.file().part_of_device(size), &options)
}

/// Opens the image in `file` and its parents, one after the other: the length of a chain is up to its files, and the
/// stack isn't.
fn open_in(file: File, options: &OpenOptions, trail: &mut Trail) -> Result<OpenImage> {
    let mut image = open_alone(file, options, trail)?;
    let mut children = Vec::new();
    if !options.parents.leave_out {
        while let Some((path, raw)) = find_parent(&image, options, trail)? {
            let options = parent_options(options, raw);
            let file = open_readied(&path, &options)?;
            children.push(image);
            image = open_alone(file, &options, trail)?;
        }
    }
    while let Some(mut child) = children.pop() {
        child.attach(Arc::new(image))?;
        image = child;
    }
    Ok(image)
}

/// The file of the parent of a differencing VHD, and whether it is a raw image.
fn find_parent(
    image: &OpenImage,
    options: &OpenOptions,
    trail: &mut Trail,
) -> Result<Option<(PathBuf, bool)>> {
    let Some(vhd) = image.vhd() else {
        return Ok(None);
    };
    vhd.with_parent_request(|request| Finder::new(&options.parents, trail).find(request))
}

/// Opens the image in `file` without its parents.
fn open_alone(file: File, options: &OpenOptions, trail: &mut Trail) -> Result<OpenImage> {
    let path = file.path().to_path_buf();
    let path = path.as_path();
    // The settled stamp is the one that counts: a store right after it makes a page dirty, and further ones wouldn't
    // show.
    let stamp = if options.settle {
        file.settle()?
    } else {
        file.stamp()?
    };
    trail.push(path, stamp);
    let (stored, doubts) = open_stored(file, options)?;
    refuse_endless(path, stored.image().virtual_size())?;
    if let Some(choice) = options.format
        && !choice.allows(stored.format())
    {
        let error = Error::usage("the image doesn't have the specified format")
            .with_path(path)
            .with_found(stored.format())
            .with_expected(choice);
        return Err(match options.format_option {
            Some(option) => error.with_hint(format!("omit {option} to have the format detected")),
            None => error,
        });
    }
    Ok(OpenImage {
        path: path.to_path_buf(),
        stored,
        has_footer_inside: doubts
            .iter()
            .any(|doubt| matches!(doubt, Doubt::FooterInside(_))),
        doubts: doubts
            .into_iter()
            .map(|doubt| doubt.warning(path, options.format_option))
            .collect(),
        stamp,
        writable: options.writable,
        parent: None,
    })
}

fn refuse_endless(path: &Path, virtual_size: u64) -> Result<()> {
    if virtual_size <= MAX_VIRTUAL_SIZE {
        return Ok(());
    }
    Err(
        Error::unsupported("the virtual disk is larger than this program supports")
            .with_path(path)
            .with_found(format_args!("{virtual_size} bytes"))
            .with_expected(format_args!("at most {MAX_VIRTUAL_SIZE} bytes (1 PiB)")),
    )
}

/// The image without its parent, and reasons why it may be something else.
fn open_stored(file: File, options: &OpenOptions) -> Result<(FileImage, Vec<Doubt>)> {
    let probed = match options.format {
        Some(FormatChoice::Only(Format::Raw)) => Probed::Raw(Vec::new()),
        Some(_) => {
            refuse_without_footer(&file, options)?;
            Probed::Vhd
        }
        None => probe(&file, options.format_option)?,
    };
    if let Probed::Raw(doubts) = probed {
        return Ok((FileImage::Raw(RawImage::open(file)?), doubts));
    }
    let told = match options.format {
        Some(FormatChoice::Only(Format::Fixed)) => Some(DiskType::Fixed),
        Some(FormatChoice::Only(Format::Dynamic)) => Some(DiskType::Dynamic),
        Some(FormatChoice::Only(Format::Differencing)) => Some(DiskType::Differencing),
        Some(FormatChoice::Only(Format::Raw) | FormatChoice::AnyVhd) | None => None,
    };
    let image = if options.salvage && !options.writable {
        VhdImage::salvage_as(file, ParentPolicy::LeftOut, told)?
    } else {
        VhdImage::open_as(file, ParentPolicy::LeftOut, told)?
    };
    if image.is_told() && options.writable {
        return Err(refuse_told(&image));
    }
    Ok((FileImage::from_vhd(image)?, Vec::new()))
}

/// An open image as the parent of another.
pub(super) fn as_parent(image: &Arc<OpenImage>) -> Parent {
    Parent {
        name: image.path.clone(),
        unique_id: image.vhd().map(|vhd| vhd.footer().unique_id),
        image: Arc::<OpenImage>::clone(image),
    }
}

/// The error if the footer has a different type, on which writes would depend.
fn refuse_told(image: &VhdImage<File>) -> Error {
    let path = image.storage().path();
    let copy = |read_as| {
        let step = Step::Do(
            Act::Convert(Conversion::reading(read_as)),
            path.to_path_buf(),
        );
        Remedy::new("copy it first").named(": ").step(step, "")
    };
    Error::usage(
        "the footer has a different type than specified, so the image can be read but not changed in place",
    )
    .with_path(path)
    .with_remedy(match image.disk_type() {
        DiskType::Fixed => copy(ReadAs::Fixed),
        DiskType::Dynamic => copy(ReadAs::Dynamic),
        DiskType::Differencing => copy(ReadAs::Differencing),
        DiskType::Other(_) => Remedy::new("copy it first"),
    })
}

/// Fails if a file specified as a VHD has no trace of one.
fn refuse_without_footer(file: &File, options: &OpenOptions) -> Result<()> {
    if file.byte_len()? == 0 || VhdImage::probe(file)?.is_some() {
        return Ok(());
    }
    refuse_not_disk(file, options.format_option)?;
    let raw = options.format_option;
    let raw = raw.map_or_else(String::new, |option| {
        format!("; if it is a raw disk, use {option} raw")
    });
    Err(Error::damaged(
        "there is no VHD footer at the end of the file, nor a copy of one at its beginning",
    )
    .with_path(file.path())
    .with_hint(format!("if it was truncated, copy it again{raw}")))
}

impl OpenImage {
    /// The path by which it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its format.
    pub fn format(&self) -> Format {
        self.stored.format()
    }

    /// The VHD, if it is one.
    pub fn vhd(&self) -> Option<&VhdImage<File>> {
        self.stored.vhd()
    }

    /// The VHD for changing its footer, if it is one and was opened for writing.
    pub fn vhd_mut(&mut self) -> Option<&mut VhdImage<File>> {
        self.stored.vhd_mut().filter(|_| self.writable)
    }

    /// Problems with the file that don't prevent reading it.
    pub fn warnings(&self) -> Vec<&Error> {
        let of_vhd = self.vhd().map_or(&[][..], VhdImage::warnings);
        of_vhd.iter().chain(&self.doubts).collect()
    }

    /// Returns whether it is read as a raw image although there is a footer of a fixed VHD before its end.
    pub fn has_footer_inside(&self) -> bool {
        self.has_footer_inside
    }

    /// The ranges of the virtual disk that a damaged VHD has lost, in order.
    pub fn lost(&self) -> &[PageRange] {
        self.vhd().map_or(&[], VhdImage::lost)
    }

    /// Gives a differencing VHD that was opened without its parent `parent` to read from.
    fn attach(&mut self, parent: Arc<OpenImage>) -> Result<()> {
        if let Some(vhd) = self.stored.vhd_mut() {
            vhd.attach_parent(as_parent(&parent))?;
        }
        self.parent = Some(parent);
        Ok(())
    }

    /// The parent of a differencing VHD.
    pub fn parent(&self) -> Option<&Arc<OpenImage>> {
        self.parent.as_ref()
    }

    /// The images from which the virtual disk is read: this one, its parent, that one's parent and so on.
    pub fn chain(&self) -> impl Iterator<Item = &OpenImage> {
        std::iter::successors(Some(self), |image| image.parent.as_deref())
    }

    /// The extents of `within`, each with the image of the chain that it comes from, in order and without gaps. An
    /// extent may be divided into several parts.
    pub fn mapped(&self, within: PageRange) -> MappedExtents<'_> {
        self.mapped_at(within.cut_to(whole(self)), 0)
    }

    fn mapped_at(&self, within: PageRange, depth: usize) -> MappedExtents<'_> {
        match (self.vhd(), &self.parent) {
            (Some(vhd), Some(parent)) => Box::new(vhd.stored_runs(within).flat_map(move |run| {
                let StoredRun { range, at } = match run {
                    Ok(run) => run,
                    Err(error) => return failed(error),
                };
                if at.is_some() {
                    return self.own(vhd.extents(range), depth);
                }
                // The parent may be smaller.
                let end = parent.virtual_size().clamp(range.start(), range.end());
                let inside = PageRange::covering(range.start(), end);
                let beyond = PageRange::covering(end, range.end());
                let zeros = self.own(zeros(beyond), depth);
                Box::new(parent.mapped_at(inside, depth + 1).chain(zeros))
            })),
            _ => self.own(self.extents(within), depth),
        }
    }

    /// Extents that this image itself determines.
    fn own<'a>(&'a self, extents: Extents<'a>, depth: usize) -> MappedExtents<'a> {
        Box::new(extents.map(move |extent| {
            extent.map(|extent| Mapped {
                extent,
                depth,
                image: self,
            })
        }))
    }

    /// Offset in the file of the byte at `offset` of the virtual disk, or `None` if this file doesn't store it.
    pub fn locate(&self, offset: u64) -> Result<Option<u64>> {
        match self.vhd() {
            Some(vhd) => vhd.locate(offset),
            None => Ok((offset < self.virtual_size()).then_some(offset)),
        }
    }

    /// The underlying file, which holds the lock.
    pub fn file(&self) -> &File {
        self.stored.file()
    }

    /// Returns whether most reads will have to wait for the device.
    pub fn is_mostly_cold(&self) -> bool {
        self.chain().any(|image| image.file().is_mostly_cold())
    }

    /// The stamp of the file when it was opened.
    pub fn stamp(&self) -> &Stamp {
        &self.stamp
    }

    /// Fails with [`Changed`](crate::ErrorKind::Changed) if another program wrote to the file or one of its parents
    /// since it was opened: the data read may then be a mixture of two states.
    pub fn check_unchanged(&self) -> Result<()> {
        self.chain()
            .try_for_each(|image| image.file().check_unchanged(&image.stamp))
    }

    fn writer(&mut self) -> Result<&mut dyn ImageMut> {
        if self.writable {
            return Ok(self.stored.image_mut());
        }
        Err(Error::usage("the image was opened only for reading").with_path(&self.path))
    }
}

impl Image for OpenImage {
    fn virtual_size(&self) -> u64 {
        self.stored.image().virtual_size()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let read = self.stored.image().read_exact_at(buf, offset);
        read.map_err(|error| error.with_path(&self.path))
    }

    fn extents(&self, within: PageRange) -> Extents<'_> {
        self.stored.image().extents(within)
    }

    fn io(&self) -> IoHints {
        self.stored.image().io()
    }
}

impl ImageMut for OpenImage {
    fn update(&mut self, range: PageRange, data: &[u8]) -> Result<()> {
        self.writer()?.update(range, data)
    }

    fn clear(&mut self, range: PageRange) -> Result<()> {
        self.writer()?.clear(range)
    }

    fn flush(&mut self) -> Result<()> {
        self.writer()?.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::error::ErrorKind;
    use crate::files::{NewImage, NewImageOptions, journal_path};
    use crate::storage::IoPolicy;
    use crate::storage::{Audience, Overwrite, WriteAt as _};

    fn file(bytes: &[u8]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), bytes).unwrap();
        file
    }

    fn kind(result: Result<OpenImage>) -> ErrorKind {
        result.unwrap_err().kind()
    }

    const READ: OpenOptions = OpenOptions {
        format: None,
        format_option: None,
        writable: false,
        no_lock: false,
        ignore_journal: false,
        salvage: false,
        parents: ParentOptions {
            files: Vec::new(),
            folders: Vec::new(),
            allow_raw: false,
            no_lock: false,
            leave_out: false,
        },
        io: IoPolicy {
            caching: crate::storage::Caching::Buffered,
            ignore_holes: false,
        },
        settle: false,
    };

    #[test]
    fn a_raw_image_is_read_and_written() {
        let file = file(&[7; 1024]);
        let mut image = open_image(file.path(), &READ).unwrap();
        assert_eq!((image.format(), image.virtual_size()), (Format::Raw, 1024));
        let mut page = [0; 512];
        image.read_exact_at(&mut page, 512).unwrap();
        assert_eq!(page, [7; 512]);
        let range = PageRange::new(0, 512).unwrap();
        assert_eq!(image.clear(range).unwrap_err().kind(), ErrorKind::Usage);
        drop(image);
        let options = OpenOptions {
            writable: true,
            ..READ
        };
        let mut image = open_image(file.path(), &options).unwrap();
        image.clear(range).unwrap();
        assert_eq!(
            image.check_unchanged().unwrap_err().kind(),
            ErrorKind::Changed
        );
        assert_eq!(
            fs::read(file.path()).unwrap()[..513],
            [&[0; 512][..], &[7]].concat()
        );
    }

    #[test]
    fn readers_share_and_a_writer_is_alone() {
        let file = file(&[0; 512]);
        let write = OpenOptions {
            writable: true,
            ..READ
        };
        let readers = [&READ, &READ].map(|options| open_image(file.path(), options).unwrap());
        assert_eq!(kind(open_image(file.path(), &write)), ErrorKind::Locked);
        drop(readers);
        let writer = open_image(file.path(), &write).unwrap();
        assert_eq!(kind(open_image(file.path(), &READ)), ErrorKind::Locked);
        let unlocked = OpenOptions {
            no_lock: true,
            ..READ
        };
        open_image(file.path(), &unlocked).unwrap();
        drop(writer);
        open_image(file.path(), &READ).unwrap();
    }

    #[test]
    fn a_journal_beside_the_file_bars_it_even_through_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("disk.raw");
        fs::write(&image, [0; 512]).unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let link = elsewhere.path().join("link");
        std::os::unix::fs::symlink(&image, &link).unwrap();
        let journal = journal_path(&link);
        assert_eq!(journal.file_name().unwrap(), "disk.raw.undo-journal");
        fs::write(&journal, b"").unwrap();
        for path in [&image, &link] {
            assert_eq!(kind(open_image(path, &READ)), ErrorKind::Pending);
            let options = OpenOptions {
                ignore_journal: true,
                ..READ
            };
            open_image(path, &options).unwrap();
        }
    }

    #[test]
    fn what_is_no_image_is_refused_by_its_kind() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(kind(open_image(folder.path(), &READ)), ErrorKind::Usage);
        assert_eq!(kind(open_image("/dev/null", &READ)), ErrorKind::Usage);
        assert_eq!(
            kind(open_image(folder.path().join("none"), &READ)),
            ErrorKind::Io
        );
        assert_eq!(
            kind(open_image(file(&[]).path(), &READ)),
            ErrorKind::Damaged
        );
        assert_eq!(
            kind(open_image(file(&[1; 700]).path(), &READ)),
            ErrorKind::Damaged
        );
        assert_eq!(
            kind(open_image(file(b"\x89VHDDIF\n").path(), &READ)),
            ErrorKind::Unsupported
        );
    }

    #[test]
    fn a_bitmap_in_a_hole_reads_as_if_it_were_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk.vhd");
        let options = NewImageOptions {
            format: Format::Dynamic,
            virtual_size: 8 << 20,
            block_size: None,
            identity: None,
            parent: None,
            overwrite: Overwrite::No,
            made_from: Audience::default(),
            dense: false,
        };
        let mut new = NewImage::create(&path, &options).unwrap();
        for start in [0, 4 << 20] {
            let range = PageRange::new(start, start + 8192).unwrap();
            new.image_mut().update(range, &[5; 8192]).unwrap();
        }
        new.publish().unwrap();
        let data = open_image(&path, &READ).unwrap().locate(4 << 20).unwrap();
        let data = data.unwrap();
        let file = File::open_writable(&path).unwrap();
        file.write_zeros_at(data - 4096..data).unwrap();
        let [trusting, reading] = [false, true].map(|ignore_holes| {
            let mut options = READ;
            options.io.ignore_holes = ignore_holes;
            let image = open_image(&path, &options).unwrap();
            let mut bytes = vec![1; 8 << 20];
            image.read_exact_at(&mut bytes, 0).unwrap();
            let extents: Vec<Extent> = image.extents(whole(&image)).map(Result::unwrap).collect();
            (bytes, extents)
        });
        assert!(trusting.0 == reading.0);
        assert_eq!(trusting.1, reading.1);
        assert!(reading.0[..8192] == [5; 8192] && reading.0[8192..].iter().all(|b| *b == 0));
    }
}
