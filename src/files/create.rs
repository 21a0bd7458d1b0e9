//! Creating an image: a new file that appears complete or not at all, or a block device that is written in place.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::child::{WindowsFolder, new_parent};
use super::fetched::{Begun, FetchedFrom, Fetching, Form, fetched_path};
use super::file_image::FileImage;
use super::open::open_file;
use super::pending::refuse_pending;
use super::relatives::refuse_orphans_of;
use super::state::set_stamp;
use super::{Format, FormatChoice, OpenImage, OpenOptions, ParentOptions};
use crate::error::{Error, Result};
use crate::image::{ContentDigest, CopyOptions, Image, ImageMut, MAX_VIRTUAL_SIZE, RawImage, copy};
use crate::page::PAGE_SIZE;
use crate::progress::{Progress, Silent};
use crate::remedy::{Choice, Remedy, Step, Tool, overwrite};
use crate::storage::{
    Access, AtomicFile, Audience, Caching, File, Overwrite, ReadAt as _, WriteAt as _, on_disk,
    refuse_part_of_store,
};
use crate::text::shown;
use crate::vhd::{CreateOptions, DiskType, Footer, VhdImage};

/// Options for a [new image](NewImage).
#[derive(Debug, Clone)]
pub struct NewImageOptions {
    /// The format.
    pub format: Format,
    /// Size of the virtual disk in bytes: whole pages, at least one.
    pub virtual_size: u64,
    /// Bytes in a data block of a VHD with blocks, if not the format's default.
    pub block_size: Option<u32>,
    /// The footer of the VHD whose identity a new VHD adopts.
    pub identity: Option<Footer>,
    /// The parent of a differencing VHD.
    pub parent: Option<ChildOf>,
    /// Whether an existing file is replaced. A block device is written only if so.
    pub overwrite: Overwrite,
    /// The files from which the data comes: nobody gets access to the image who has none to them.
    pub made_from: Audience,
    /// Whether to fill all holes of the file at the end.
    pub dense: bool,
}

impl NewImageOptions {
    /// A new, empty image that replaces nothing and may be sparse.
    pub fn new(format: Format, virtual_size: u64) -> Self {
        Self {
            format,
            virtual_size,
            block_size: None,
            identity: None,
            parent: None,
            overwrite: Overwrite::No,
            made_from: Audience::default(),
            dense: false,
        }
    }
}

/// The parent of a new differencing VHD.
#[derive(Debug, Clone)]
pub struct ChildOf {
    /// The parent.
    pub image: Arc<OpenImage>,
    /// The Windows path of the child's folder, if known: then the child also records the absolute path of its parent.
    pub windows_folder: Option<WindowsFolder>,
}

impl From<Arc<OpenImage>> for ChildOf {
    fn from(image: Arc<OpenImage>) -> Self {
        Self {
            image,
            windows_folder: None,
        }
    }
}

impl From<OpenImage> for ChildOf {
    fn from(image: OpenImage) -> Self {
        Arc::new(image).into()
    }
}

/// An image that is being written. It reads as zeros, or as its parent, where nothing was written. Unless it is
/// [published](NewImage::publish), nothing remains of it, except on a block device.
#[derive(Debug)]
pub struct NewImage {
    stored: FileImage,
    place: Place,
    overwrite: Overwrite,
    parent: Option<ChildOf>,
    /// Whether its holes are still to be filled.
    to_fill: bool,
    /// The record of what was fetched, if that is kept.
    fetching: Option<Fetching>,
}

#[derive(Debug)]
enum Place {
    /// A file that gets its name at the end. The file it replaces stays locked until then.
    File {
        file: Box<AtomicFile>,
        replaced: Option<File>,
    },
    /// A block device, which is written directly.
    Device,
}

impl NewImage {
    /// Begins an image at `path`.
    ///
    /// # Errors
    ///
    /// [`Usage`](crate::ErrorKind::Usage) if the name is taken and may not be overwritten, or the format doesn't allow
    /// the size; [`Locked`](crate::ErrorKind::Locked) or [`Pending`](crate::ErrorKind::Pending) if the file to be
    /// replaced is in use or an apply to it was interrupted.
    pub fn create(path: impl AsRef<Path>, options: &NewImageOptions) -> Result<Self> {
        let path = path.as_ref();
        check_size(path, options.virtual_size)?;
        let existing = find(path, options.overwrite)?;
        let (place, file) = match existing {
            Some((target, true)) => (Place::Device, open_device(&target, options)?),
            existing => begin_file(path, existing.map(|(target, _)| target), options)?,
        };
        let stored = new_stored(path, file, options).map_err(|error| error.with_path(path))?;
        if options.dense {
            // For an image with blocks, the final size isn't known yet.
            stored.file().reserve(stored.file().byte_len()?)?;
        }
        Ok(Self {
            stored,
            place,
            overwrite: options.overwrite,
            parent: options.parent.clone(),
            to_fill: options.dense,
            fetching: None,
        })
    }

    /// As [`create`](Self::create), for an image that is fetched from elsewhere: if it isn't published, what was
    /// [filled](Self::fill) in so far is kept, and the next download from the same source to the same file goes on with it.
    /// On a device nothing is kept.
    ///
    /// # Errors
    ///
    /// As `create`; also [`Locked`](crate::ErrorKind::Locked) if another command fetches to the same file.
    pub fn fetch(
        path: impl AsRef<Path>,
        options: &NewImageOptions,
        from: &FetchedFrom,
    ) -> Result<Self> {
        let path = path.as_ref();
        check_size(path, options.virtual_size)?;
        let target = match find(path, options.overwrite)? {
            Some((_, true)) => return Self::create(path, options),
            _ if options.format == Format::Differencing => return Self::create(path, options),
            existing => existing.map(|(target, _)| target),
        };
        let replaced = target.as_ref().map(|_| lock_target(path)).transpose()?;
        let target = target.unwrap_or_else(|| path.to_path_buf());
        let owner = replaced.as_ref().map(File::metadata).transpose()?;
        let owner = owner.map(|metadata| metadata.uid());
        let under = fetched_path(&target);
        let mut new = AtomicFile::kept(&target, &under, options.made_from.clone(), owner)?;
        let image = new.file().another_handle();
        let form = Form {
            format: options.format,
            virtual_size: options.virtual_size,
            block_size: options.block_size,
            identity: options.identity.as_ref(),
        };
        let mut fetching = Fetching::open(&target, image, (from, form), owner)?;
        if let Some(replaced) = &replaced {
            new.take_place_of(replaced)?;
        }
        let handle = || {
            if options.dense {
                new.file().keeping_space()
            } else {
                new.file().another_handle()
            }
        };
        let mut stored = None;
        if fetching.begun() == Begun::Resumed {
            stored = reopened(&fetching, handle(), options);
            if stored.is_none() {
                fetching.begin_afresh("it was damaged when it was interrupted")?;
            }
        }
        let stored = match stored {
            Some(stored) => stored,
            None => new_stored(path, handle(), options).map_err(|error| error.with_path(path))?,
        };
        if options.dense {
            stored.file().reserve(stored.file().byte_len()?)?;
        }
        Ok(Self {
            stored,
            place: Place::File {
                file: Box::new(new),
                replaced,
            },
            overwrite: options.overwrite,
            parent: None,
            to_fill: options.dense,
            fetching: Some(fetching),
        })
    }

    /// What an earlier download left.
    pub fn begun(&self) -> Begun {
        self.fetching.as_ref().map_or(Begun::New, Fetching::begun)
    }

    /// Where what was fetched will be kept if the image isn't published.
    pub fn kept(&self) -> Option<&Path> {
        self.fetching.as_ref().and_then(Fetching::kept)
    }

    /// Fills it with the content of `source`, which may be smaller. Returns the content digest if it is requested, or known
    /// in any case. Of an image that is [fetched](Self::fetch), what is there already isn't read from `source` again; it is
    /// compared with the hashes that it had, and at the end with the digest of all.
    pub fn fill(
        &mut self,
        source: &dyn Image,
        options: CopyOptions<'_>,
    ) -> Result<Option<ContentDigest>> {
        match &mut self.fetching {
            None => copy(source, self.stored.image_mut(), options),
            Some(fetching) => {
                let to = self.stored.image_mut();
                fetching.fill(source, to, options.work).map(Some)
            }
        }
    }

    /// Discards it with everything that was fetched, because it isn't what it should be.
    pub fn discard(mut self) {
        if let Some(fetching) = &mut self.fetching {
            fetching.is_useless();
        }
    }

    /// As [`create`](Self::create), but the image begins as a clone of `base`, with which it shares data until it is
    /// overwritten. Returns `None` if that isn't possible: on a device, for a different format or virtual size, for a
    /// base with a parent or a problem, and if the file system can't clone between the two.
    pub fn clone_of(
        base: &OpenImage,
        path: impl AsRef<Path>,
        options: &NewImageOptions,
    ) -> Result<Option<Self>> {
        let path = path.as_ref();
        let alike = (base.format(), base.virtual_size()) == (options.format, options.virtual_size);
        let on_device = base.file().is_block_device();
        if !alike || on_device || base.parent().is_some() || !base.warnings().is_empty() {
            return Ok(None);
        }
        let existing = match find(path, options.overwrite)? {
            Some((_, true)) => return Ok(None),
            existing => existing.map(|(target, _)| target),
        };
        let (place, file) = begin_file(path, existing, options)?;
        if !file.clone_from_file(base.file())? {
            return Ok(None);
        }
        Ok(Some(Self {
            stored: cloned_stored(file, options).map_err(|error| error.with_path(path))?,
            place,
            overwrite: options.overwrite,
            parent: None,
            to_fill: options.dense,
            fetching: None,
        }))
    }

    /// The image in its current state.
    pub fn image(&self) -> &dyn Image {
        self.stored.image()
    }

    /// The image to write to.
    pub fn image_mut(&mut self) -> &mut dyn ImageMut {
        self.stored.image_mut()
    }

    /// Sets how the file is written. By default, large writes go past the page cache.
    pub fn written(&self, caching: Caching) {
        if let (Place::File { file, .. }, Caching::Buffered) = (&self.place, caching) {
            file.file().write_through_cache();
        }
    }

    /// Syncs the image and, if it should have no holes, fills them. To be called before the image is read back or
    /// published.
    pub fn complete(&mut self, progress: &dyn Progress) -> Result<()> {
        self.stored.image_mut().flush()?;
        if self.to_fill {
            self.stored.file().fill_holes(progress)?;
            self.to_fill = false;
        }
        Ok(())
    }

    /// Syncs the file and gives it its name.
    pub fn publish(self) -> Result<()> {
        let overwrite = self.overwrite;
        let Some((file, fetching)) = self.finished()? else {
            return Ok(());
        };
        file.publish(overwrite)?;
        fetching.map_or(Ok(()), Fetching::completed)
    }

    /// As [`publish`](Self::publish), and [stamps](set_stamp) the image, whose contents are certain to have this
    /// `digest`. Returns whether it has a stamp now.
    pub fn publish_stamped(self, digest: ContentDigest) -> Result<bool> {
        let format = self.stored.format();
        let parent = self.parent.clone();
        let overwrite = self.overwrite;
        let Some((file, fetching)) = self.finished()? else {
            return Ok(false);
        };
        let (file, written) = file.publish_settled(overwrite)?;
        fetching.map_or(Ok(()), Fetching::completed)?;
        // Existing readers must not see it change, and it must still be the file that was written here.
        if file.lock_exclusive().is_err() {
            return Ok(false);
        }
        let options = OpenOptions {
            format: Some(FormatChoice::Only(format)),
            no_lock: true,
            parents: ParentOptions {
                files: parent
                    .iter()
                    .flat_map(|parent| parent.image.chain())
                    .map(|image| image.path().to_path_buf())
                    .collect(),
                allow_raw: true,
                no_lock: true,
                ..ParentOptions::default()
            },
            settle: true,
            ..OpenOptions::default()
        };
        let image = open_file(file, &options)?;
        if image.stamp().modified() != written.modified() {
            return Ok(false);
        }
        set_stamp(&image, digest)
    }

    /// Returns the completed file before it gets its name; `None` for a device.
    fn finished(mut self) -> Result<Option<(Box<AtomicFile>, Option<Fetching>)>> {
        self.complete(&Silent)?;
        match self.place {
            Place::File { file, replaced } => {
                if let Some(replaced) = replaced {
                    file.check_replaces(&replaced)?;
                }
                Ok(Some((file, self.fetching)))
            }
            Place::Device => Ok(None),
        }
    }
}

/// Opens an image that was fetched in part; `None` if it isn't one of these options any more.
fn reopened(fetching: &Fetching, file: File, options: &NewImageOptions) -> Option<FileImage> {
    let size = options.virtual_size;
    if options.format == Format::Raw {
        file.set_len(size).ok()?;
        return Some(FileImage::Raw(RawImage::with_size(file, size)));
    }
    if options.format == Format::Dynamic && !fetching.rewind().ok()? {
        return None;
    }
    let image = FileImage::from_vhd(VhdImage::open(file).ok()?).ok()?;
    let is_sound = image.vhd().is_some_and(|vhd| vhd.warnings().is_empty());
    let is_same = image.format() == options.format && image.image().virtual_size() == size;
    (is_sound && is_same).then_some(image)
}

/// Checks, without writing anything, whether a [new image](NewImage) can be created at `path`.
pub fn check_output(path: &Path, overwrite: Overwrite) -> Result<()> {
    match find(path, overwrite)? {
        Some(_) => lock_target(path).map(drop),
        None => AtomicFile::new(path).map(drop),
    }
}

/// Fails if `output` is the same file as one of `inputs` under any name, through symbolic links, hard links or device
/// nodes, or if it is part of a store, where no output may go.
pub fn refuse_same_file(output: &Path, inputs: &[&Path]) -> Result<()> {
    refuse_part_of_store(output)?;
    for input in inputs {
        if same_file(output, input)? {
            let input = shown(&input);
            return Err(
                Error::usage(format!("the output is the same file as the input {input}"))
                    .with_path(output)
                    .with_hint("choose another name for the output"),
            );
        }
    }
    Ok(())
}

/// Returns whether two paths lead to the same existing file or device.
pub fn same_file(a: &Path, b: &Path) -> Result<bool> {
    Ok(match identity(a)? {
        Some(identity) => Some(identity) == self::identity(b)?,
        None => false,
    })
}

/// The identity of a file: a device's number, or a file's device and inode. Returns `None` if there is no file.
fn identity(path: &Path) -> Result<Option<(bool, u64, u64)>> {
    match fs::metadata(on_disk(path)) {
        Ok(m) if m.file_type().is_block_device() => Ok(Some((true, m.rdev(), 0))),
        Ok(m) => Ok(Some((false, m.dev(), m.ino()))),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io("cannot look at", e).with_path(path)),
    }
}

fn check_size(path: &Path, size: u64) -> Result<()> {
    if size > 0 && size.is_multiple_of(PAGE_SIZE) && size <= MAX_VIRTUAL_SIZE {
        return Ok(());
    }
    let hint = match size.max(1).checked_next_multiple_of(PAGE_SIZE) {
        Some(nearest) if nearest <= MAX_VIRTUAL_SIZE => format!("use {nearest}"),
        _ => "use a smaller size".to_owned(),
    };
    Err(Error::usage("a virtual disk can't have this size")
        .with_path(path)
        .with_found(format_args!("{size} bytes"))
        .with_expected("a multiple of 512, not zero, at most 1 PiB")
        .with_hint(hint))
}

fn taken(path: &Path) -> Error {
    Error::usage("the file already exists")
        .with_path(path)
        .with_remedy(overwrite())
}

/// Finds the file to be replaced, if any. Fails if it may not be.
fn find(path: &Path, overwrite: Overwrite) -> Result<Option<(PathBuf, bool)>> {
    refuse_pending(path)?;
    match fs::symlink_metadata(path) {
        Ok(_) => {
            let found = existing_target(path)?;
            match overwrite {
                Overwrite::No => return Err(taken(path)),
                Overwrite::Yes if !matches!(found, Some((_, true))) => refuse_orphans_of(path)?,
                Overwrite::Yes | Overwrite::EvenAParent => {}
            }
            Ok(found)
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io("cannot look at", e).with_path(path)),
    }
}

/// The file to which `path` leads, and whether it is a block device. Returns `None` for a dangling link.
fn existing_target(path: &Path) -> Result<Option<(PathBuf, bool)>> {
    let looked = fs::canonicalize(path).and_then(|target| {
        let kind = fs::metadata(&target)?.file_type();
        Ok((target, kind))
    });
    match looked {
        Ok((target, kind)) if kind.is_file() || kind.is_block_device() => {
            Ok(Some((target, kind.is_block_device())))
        }
        Ok((_, kind)) => Err(Error::usage("this can't be replaced by an image")
            .with_path(path)
            .with_found(if kind.is_dir() {
                "a folder"
            } else {
                "a pipe, a socket or a character device"
            })
            .with_expected("a file or a block device")
            .with_hint(if kind.is_dir() {
                "name a file in it"
            } else {
                "name a file"
            })),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io("cannot look at", e).with_path(path)),
    }
}

/// Locks the file to be replaced, so that no other command reads or writes it meanwhile.
fn lock_target(path: &Path) -> Result<File> {
    File::open_locked(path, Access::Replace)
}

/// Creates the temporary file for `path` or, if that is a link, for the file it leads to.
fn begin_file(
    path: &Path,
    existing: Option<PathBuf>,
    options: &NewImageOptions,
) -> Result<(Place, File)> {
    let replaced = existing.as_ref().map(|_| lock_target(path)).transpose()?;
    let target = existing.unwrap_or_else(|| path.to_path_buf());
    let mut new = AtomicFile::for_audience(target, options.made_from.clone())?;
    if let Some(replaced) = &replaced {
        new.take_place_of(replaced)?;
    }
    let file = if options.dense {
        new.file().keeping_space()
    } else {
        new.file().another_handle()
    };
    let place = Place::File {
        file: Box::new(new),
        replaced,
    };
    Ok((place, file))
}

/// Opens a device for a raw image and makes it read as zeros.
fn open_device(path: &Path, options: &NewImageOptions) -> Result<File> {
    if options.format != Format::Raw {
        return Err(Error::usage("a block device can hold a raw image only")
            .with_path(path)
            .with_found(options.format)
            .with_expected(Format::Raw)
            .with_remedy(
                Remedy::default()
                    .named("use ")
                    .step(Step::Choose(Choice::OutputRaw), "choose the format raw")
                    .text(", or write to a file"),
            ));
    }
    let device = File::open_locked(path, Access::Write)?;
    // This fails if the device is too small.
    device.set_len(options.virtual_size)?;
    let size = device.byte_len()?;
    device.write_zeros_at(0..size)?;
    Ok(device)
}

fn new_stored(path: &Path, file: File, options: &NewImageOptions) -> Result<FileImage> {
    match options.format {
        Format::Raw => {
            file.set_len(options.virtual_size)?;
            let image = RawImage::with_size(file, options.virtual_size);
            Ok(FileImage::Raw(image))
        }
        Format::Fixed => vhd(path, file, DiskType::Fixed, options),
        Format::Dynamic => vhd(path, file, DiskType::Dynamic, options),
        Format::Differencing => vhd(path, file, DiskType::Differencing, options),
    }
}

/// Opens the image in a file that is a clone of a similar one.
fn cloned_stored(file: File, options: &NewImageOptions) -> Result<FileImage> {
    if options.format == Format::Raw {
        // The last page of the original may have been truncated.
        file.set_len(options.virtual_size)?;
        let image = RawImage::with_size(file, options.virtual_size);
        return Ok(FileImage::Raw(image));
    }
    let mut image = VhdImage::open(file)?;
    let (disk_type, like) = (image.disk_type(), options.identity.as_ref());
    image.set_footer(&Footer::for_disk(disk_type, options.virtual_size, like));
    FileImage::from_vhd(image)
}

fn vhd(
    path: &Path,
    file: File,
    disk_type: DiskType,
    options: &NewImageOptions,
) -> Result<FileImage> {
    let mut create = CreateOptions::new(disk_type, options.virtual_size);
    create.block_size = options.block_size.unwrap_or(create.block_size);
    create.identity.clone_from(&options.identity);
    if disk_type == DiskType::Differencing {
        let parent = options.parent.as_ref().ok_or_else(|| {
            Error::usage("a differencing VHD needs a parent").with_remedy(
                Remedy::new("create one ")
                    .named("with ")
                    .step(Step::Use(Tool::CreateChild), "over an image")
                    .text(", or ")
                    .named("with ")
                    .step(Step::Use(Tool::Apply), "by applying diffs"),
            )
        })?;
        let windows = parent.windows_folder.as_ref();
        create.parent = Some(new_parent(path, &parent.image, windows)?);
    }
    FileImage::from_vhd(VhdImage::create(file, &create)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::files::journal_path;
    use crate::page::PageRange;

    fn options(format: Format, virtual_size: u64) -> NewImageOptions {
        NewImageOptions {
            format,
            virtual_size,
            block_size: None,
            identity: None,
            parent: None,
            overwrite: Overwrite::No,
            made_from: Audience::default(),
            dense: false,
        }
    }

    fn kind(path: &Path, options: &NewImageOptions) -> ErrorKind {
        NewImage::create(path, options).unwrap_err().kind()
    }

    #[test]
    fn a_raw_image_appears_when_published_and_not_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new.raw");
        let mut image = NewImage::create(&path, &options(Format::Raw, 4096)).unwrap();
        let page = PageRange::new(512, 1024).unwrap();
        image.image_mut().update(page, &[3; 512]).unwrap();
        assert!(!path.exists());
        image.publish().unwrap();
        let bytes = fs::read(&path).unwrap();
        assert_eq!(
            (bytes.len(), bytes[511], bytes[512], bytes[1024]),
            (4096, 0, 3, 0)
        );
    }

    #[test]
    fn a_taken_name_is_kept_unless_told_otherwise() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("taken");
        fs::write(&path, b"old").unwrap();
        let mut options = options(Format::Raw, 512);
        assert_eq!(kind(&path, &options), ErrorKind::Usage);
        options.overwrite = Overwrite::Yes;
        drop(NewImage::create(&path, &options).unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"old");
        NewImage::create(&path, &options)
            .unwrap()
            .publish()
            .unwrap();
        assert_eq!(fs::read(&path).unwrap(), [0; 512]);
    }

    #[test]
    fn the_permissions_of_what_is_replaced_stay() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("private");
        fs::write(&path, b"old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let mut options = options(Format::Raw, 512);
        options.overwrite = Overwrite::Yes;
        let image = NewImage::create(&path, &options).unwrap();
        image.publish().unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn through_a_link_the_file_itself_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("file"), folder.path().join("link"));
        fs::write(&path, b"old").unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let mut options = options(Format::Raw, 512);
        options.overwrite = Overwrite::Yes;
        NewImage::create(&link, &options)
            .unwrap()
            .publish()
            .unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read(&path).unwrap(), [0; 512]);
    }

    #[test]
    fn a_file_in_use_or_in_the_middle_of_an_apply_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("busy");
        fs::write(&path, b"old").unwrap();
        let mut options = options(Format::Raw, 512);
        options.overwrite = Overwrite::Yes;
        let reader = File::open(&path).unwrap();
        reader.lock_shared().unwrap();
        assert_eq!(kind(&path, &options), ErrorKind::Locked);
        drop(reader);
        fs::write(journal_path(&path), b"").unwrap();
        assert_eq!(kind(&path, &options), ErrorKind::Pending);
        fs::remove_file(&path).unwrap();
        assert_eq!(kind(&path, &options), ErrorKind::Pending);
    }

    #[test]
    fn impossible_sizes_are_refused_with_a_possible_one() {
        let path = Path::new("never");
        for size in [0, 1, 511, 513, u64::MAX, u64::MAX - 511] {
            assert_eq!(
                kind(path, &options(Format::Raw, size)),
                ErrorKind::Usage,
                "{size}"
            );
        }
        let error = NewImage::create(path, &options(Format::Raw, 513)).unwrap_err();
        assert_eq!(error.hint(), Some("use 1024"));
    }

    #[test]
    fn one_file_by_two_names_is_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let names = ["file", "soft", "hard", "other", "none"].map(|n| folder.path().join(n));
        let [file, soft, hard, other, none] = &names;
        fs::write(file, b"").unwrap();
        fs::write(other, b"").unwrap();
        std::os::unix::fs::symlink(file, soft).unwrap();
        fs::hard_link(file, hard).unwrap();
        for name in [file, soft, hard] {
            assert!(refuse_same_file(name, &[other, file]).is_err());
        }
        refuse_same_file(other, &[file, soft]).unwrap();
        refuse_same_file(none, &[file, other]).unwrap();
    }
}
