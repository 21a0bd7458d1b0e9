//! The steps that follow with an image: opening, reading, checking, applying, as a user would.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::LazyLock;

use vhdkit::diff::{BaseCheck, Chain, Compression, DiffOptions, write_diff};
use vhdkit::error::ErrorKind;
use vhdkit::files::{
    ApplyOptions, ChildOf, Format, InPlace, NewImage, NewImageOptions, OpenImage, OpenOptions,
    ParentOptions, apply_in_place, check_file, open_diff, open_image, refuse_pending, repair,
    roll_back, side_of,
};
use vhdkit::image::{CopyOptions, Image as _, RawImage, copy};
use vhdkit::parallel::{Work, Workers};
use vhdkit::progress::Silent;
use vhdkit::storage::{AtomicFile, Audience, Memory, Overwrite};
use vhdkit::vhd::CheckOptions;
use vhdkit::{Error, Result};

use crate::disk::{is_kept, is_temporary};
use crate::explore::{Folder, Ground, Judged, Outcome, Run};
use crate::recorder::Files;

/// Returns an error as text.
pub(crate) type Whole = std::result::Result<(), String>;

/// Checks whether a file is as expected.
pub(crate) type IsWhole = Box<dyn Fn(&Path) -> Whole + Send + Sync>;

/// Returns the bytes of a virtual disk.
pub(crate) type Disk = Vec<u8>;

/// One thread, so that reads come in the same order each time.
pub(crate) static WORKERS: LazyLock<Workers> =
    LazyLock::new(|| Workers::new(NonZeroUsize::new(1)).unwrap());
static PARENTS: LazyLock<ParentOptions> = LazyLock::new(ParentOptions::default);

/// The block size of new VHDs: small, so that small disks have many blocks.
pub(crate) const BLOCK: u32 = 4096;

pub(crate) fn parents() -> &'static ParentOptions {
    &PARENTS
}

pub(crate) fn apply_options() -> ApplyOptions<'static> {
    ApplyOptions {
        work: Work::new(&WORKERS, &Silent),
        check: BaseCheck::Full,
        verify: true,
        parents: parents(),
    }
}

pub(crate) fn new_options(format: Format, virtual_size: u64) -> NewImageOptions {
    let blocks = matches!(format, Format::Dynamic | Format::Differencing);
    NewImageOptions {
        format,
        virtual_size,
        block_size: blocks.then_some(BLOCK),
        identity: None,
        parent: None,
        overwrite: Overwrite::No,
        made_from: Audience::default(),
        dense: false,
    }
}

pub(crate) fn open(path: &Path) -> Result<OpenImage> {
    open_image(path, &OpenOptions::default())
}

/// Creates an image that holds `disk`, over `parent` if there is one.
pub(crate) fn make(path: &Path, format: Format, disk: &[u8], parent: Option<&Path>) -> Result<()> {
    let mut options = new_options(format, disk.len() as u64);
    options.parent = parent
        .map(|parent| open(parent).map(ChildOf::from))
        .transpose()?;
    fill(path, &options, disk)
}

/// Creates a new image and writes all of `disk` to it.
pub(crate) fn fill(path: &Path, options: &NewImageOptions, disk: &[u8]) -> Result<()> {
    let mut new = NewImage::create(path, options)?;
    let source = RawImage::open(Memory::new(disk.to_vec()))?;
    if let Some(parent) = &options.parent {
        // Only the differences, so that the child leaves pages to its parent.
        let mut below = vec![0; disk.len()];
        let shared = below
            .len()
            .min(usize::try_from(parent.image.virtual_size()).unwrap());
        parent.image.read_exact_at(&mut below[..shared], 0)?;
        for (n, (page, old)) in (0..).zip(disk.chunks(512).zip(below.chunks(512))) {
            if page != old {
                let range = vhdkit::page::PageRange::from_len(n * 512, 512)?;
                new.image_mut().update(range, page)?;
            }
        }
    } else {
        let options = CopyOptions {
            work: Work::new(&WORKERS, &Silent),
            digest: false,
        };
        copy(&source, new.image_mut(), options)?;
    }
    new.publish()
}

/// Writes the diff from one image to another.
pub(crate) fn diff(base: &Path, target: &Path, out: &Path, overwrite: Overwrite) -> Result<()> {
    let (base, target) = (open(base)?, open(target)?);
    let file = AtomicFile::begin(out, overwrite, Audience::default())?;
    let unchanged = || {
        base.check_unchanged()
            .and_then(|()| target.check_unchanged())
    };
    let options = DiffOptions {
        work: Work::new(&WORKERS, &Silent),
        compression: Compression::default(),
        digests: true,
        equal: &vhdkit::image::NoneShared,
        confirm: &unchanged,
    };
    let sides = (
        (&base as _, side_of(&base)),
        (&target as _, side_of(&target)),
    );
    let _ = write_diff(sides.0, sides.1, file.file().appender(), out, options)?;
    file.publish(overwrite)
}

pub(crate) fn chain(folder: &Path, name: &str) -> Result<Chain> {
    Chain::new(vec![open_diff(&folder.join(name), &Silent)?])
}

/// Applies the file `diff` to the file `base` of a folder.
pub(crate) fn apply(folder: &Path, how: InPlace<'_>, options: ApplyOptions<'_>) -> Result<()> {
    apply_in_place(&folder.join("base"), chain(folder, "diff")?, how, options).map(drop)
}

pub(crate) fn content(path: &Path) -> Result<Disk> {
    let image = open(path)?;
    let mut bytes = vec![0; usize::try_from(image.virtual_size()).unwrap()];
    image.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

fn text(error: &Error) -> String {
    format!("{error}")
}

/// Returns an error unless the file at `path` is an image without findings that holds `disk`.
pub(crate) fn holds(path: &Path, disk: &[u8]) -> Whole {
    let name = path.file_name().unwrap().to_string_lossy();
    let found = content(path).map_err(|e| text(&e))?;
    if found != disk {
        let pages = found.chunks(512).zip(disk.chunks(512));
        let first = pages.into_iter().position(|(a, b)| a != b);
        return Err(format!(
            "{name} holds something else: {} bytes, {} expected, first other page {first:?}",
            found.len(),
            disk.len()
        ));
    }
    let report = check_file(path, &CheckOptions::default(), parents()).map_err(|e| text(&e))?;
    if report.errors > 0 || report.repairable > 0 {
        return Err(format!("{name} has faults: {:?}", report.findings));
    }
    Ok(())
}

/// Repairs the image with `vhd check --repair` first, then checks it in the same way.
pub(crate) fn holds_after_repair(path: &Path, disk: &[u8]) -> Whole {
    let mended = repair(path, &CheckOptions::default(), parents(), false);
    mended.map_err(|e| text(&e))?;
    holds(path, disk)
}

/// Returns an error if the folder has files that don't belong there. Temporary files may be left over.
pub(crate) fn only(folder: &Folder, names: &[&str]) -> Whole {
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if !names.contains(&name.as_str()) && !is_temporary(&name) && !is_kept(&name) {
            return Err(format!("{name} is left"));
        }
    }
    Ok(())
}

/// The allowed states of an image that is changed in place.
pub(crate) struct InPlaceJudge {
    /// The file that is changed.
    pub(crate) image: &'static str,
    pub(crate) old: Disk,
    pub(crate) new: Disk,
    /// Continues to the new state.
    pub(crate) again: Run,
    /// Files that may be in the folder in the end.
    pub(crate) names: Vec<&'static str>,
}

impl InPlaceJudge {
    pub(crate) fn judge(&self, ground: &Ground<'_>) -> Judged {
        let folder = ground.fresh();
        let image = folder.path().join(self.image);
        let outcome = match refuse_pending(&image) {
            Err(error) if error.kind() == ErrorKind::Pending => {
                let back = ground.fresh();
                let image = back.path().join(self.image);
                roll_back(&image, apply_options()).map_err(|e| format!("rollback: {e}"))?;
                holds(&image, &self.old).map_err(|e| format!("rolled back: {e}"))?;
                only(&back, &self.names)?;
                Outcome::Between
            }
            Err(error) => return Err(text(&error)),
            Ok(()) if ground.may_need_repair => {
                return holds_after_repair(&image, &self.new).map(|()| Outcome::New);
            }
            Ok(()) if holds(&image, &self.new).is_ok() => Outcome::New,
            Ok(()) => {
                holds(&image, &self.old)?;
                Outcome::Old
            }
        };
        (self.again)(folder.path()).map_err(|e| format!("{outcome:?}, again: {e}"))?;
        holds(&image, &self.new).map_err(|e| format!("{outcome:?}, again: {e}"))?;
        only(&folder, &self.names)?;
        Ok(outcome)
    }
}

/// A new file that appears whole or not at all, and may replace an old one.
pub(crate) struct NewFileJudge {
    pub(crate) name: &'static str,
    /// Whether the file is as expected.
    pub(crate) whole: IsWhole,
    pub(crate) before: Files,
    pub(crate) again: Run,
}

impl NewFileJudge {
    pub(crate) fn judge(&self, ground: &Ground<'_>) -> Judged {
        let old = self.before.get(self.name);
        for (name, bytes) in &self.before {
            if name != self.name && !is_kept(name) && ground.files.get(name) != Some(bytes) {
                return Err(format!("{name} was changed"));
            }
        }
        let folder = ground.fresh();
        let path = folder.path().join(self.name);
        let outcome = match (ground.files.get(self.name), old) {
            (None, None) => Outcome::Old,
            (found, Some(_)) if found == old => Outcome::Old,
            (None, Some(_)) => return Err(format!("{} is gone", self.name)),
            (Some(_), _) => {
                (self.whole)(&path)?;
                Outcome::New
            }
        };
        if outcome == Outcome::Old {
            (self.again)(folder.path()).map_err(|e| format!("again: {e}"))?;
            (self.whole)(&path).map_err(|e| format!("again: {e}"))?;
        }
        let mut names: Vec<&str> = self.before.keys().map(String::as_str).collect();
        names.push(self.name);
        only(&folder, &names)?;
        Ok(outcome)
    }
}
