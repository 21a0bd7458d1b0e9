//! Changes the parent of a differencing VHD without changing its contents.
//!
//! ```text
//!   lock child and both chains ─► where they differ below the child, the child stores what it reads as ─► sync
//!                              ─► the child names the new parent
//! ```
//!
//! Data stored in the child hides its parent. So until the last step it reads the same with the old parent, and from
//! the first step on also with the new one: whenever it is interrupted, repeating it continues.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::child::{WindowsFolder, new_parent};
use super::create::same_file;
use super::open::{Mapped, open_image};
use super::options::ParentOptions;
use super::parents::MAX_CHAIN;
use super::pending::refuse_pending;
use super::relatives::Parent as Relative;
use super::state::remove_stamp;
use super::{Children, Format, OpenImage, OpenOptions};
use crate::error::{Error, ErrorKind, Result};
use crate::image::{CHUNK_SIZE, Extent, ExtentState, Image as _, ImageMut as _};
use crate::page::{PAGE_SIZE, PageRange, is_zero, part, part_mut, to_usize};
use crate::progress::Progress;
use crate::remedy::{Choice, Remedy, Step, Tool};
use crate::storage::{Access, File};
use crate::text::shown;
use crate::vhd::{NewParent, ParentPolicy, UniqueId, VhdImage};

/// Options for [`rebase`].
#[derive(Clone, Copy)]
#[allow(clippy::struct_excessive_bools, reason = "each is a choice of its own")]
pub struct RebaseOptions<'a> {
    /// Receives progress.
    pub progress: &'a dyn Progress,
    /// Where to look for the current parents of the child, and the parents of the new one.
    pub parents: &'a ParentOptions,
    /// The Windows path of the child's folder, if the child should record an absolute path.
    pub windows_folder: Option<&'a WindowsFolder>,
    /// Whether to change only the child's reference, whatever the new parent contains.
    pub blindly: bool,
    /// Check everything, but write nothing.
    pub dry_run: bool,
    /// Receives warnings about the images.
    pub warn: &'a dyn Fn(&Error),
}

impl std::fmt::Debug for RebaseOptions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RebaseOptions")
            .field("parents", &self.parents)
            .field("windows_folder", &self.windows_folder)
            .field("blindly", &self.blindly)
            .field("dry_run", &self.dry_run)
            .finish_non_exhaustive()
    }
}

/// How it was established that a child reads the same with its new parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Compared {
    /// The visible data of both parents was compared, and differences were stored in the child.
    Content,
    /// The new parent has the unique id that the child refers to; the current one couldn't be read.
    Id,
    /// Not at all, as requested.
    Nothing,
}

/// The outcome of a rebase.
#[derive(Debug)]
#[non_exhaustive]
pub struct Rebased {
    /// The previous parent, if it was found.
    pub old_parent: Option<PathBuf>,
    /// How the two were compared.
    pub compared: Compared,
    /// Bytes read from both parents.
    pub read: u64,
    /// Bytes of data that the child stores now because the new parent differs.
    pub updated: u64,
    /// Bytes of zeros that the child stores now because the new parent differs.
    pub cleared: u64,
    /// Whether the child already refers to this parent correctly, so that nothing had to be written.
    pub already: bool,
    /// Images that have the child as their parent, and read differently if the child does.
    pub children: Children,
}

/// Gives the differencing VHD at `child` the image at `parent` as its parent. Its contents don't change: where the new
/// parent differs from the current one, the child stores the data itself from then on. Repeating it finishes an
/// interrupted rebase.
///
/// # Errors
///
/// [`Usage`](ErrorKind::Usage) for a child that isn't one, and for a parent that is read through the child. The error
/// of opening the current parent if that can't be read, the new one has another id, and `blindly` isn't set.
pub fn rebase(child: &Path, parent: &Path, options: RebaseOptions<'_>) -> Result<Rebased> {
    let new = open_new(child, parent, options)?;
    let access = if options.dry_run {
        Access::Read
    } else {
        Access::Write
    };
    let file = File::open_locked(child, access)?;
    refuse_pending(child)?;
    let mut vhd = VhdImage::open_over(file.another_handle(), ParentPolicy::LeftOut)
        .map_err(|error| error.with_path(child))?;
    vhd.warnings().iter().for_each(options.warn);
    let named = new_parent(child, &new, options.windows_folder)?;
    vhd.check_parent(&named)?;
    let wanted = vhd.header().map(|header| header.parent_unique_id);
    let old = if options.blindly {
        None
    } else {
        old_parent(child, (wanted, &new), options)?
    };
    let mut rebased = Rebased {
        old_parent: old.as_ref().map(|old| old.path().to_path_buf()),
        compared: match &old {
            _ if options.blindly => Compared::Nothing,
            Some(_) => Compared::Content,
            None => Compared::Id,
        },
        read: 0,
        updated: 0,
        cleared: 0,
        already: false,
        children: Relative::at(child)?.children(options.parents, &[], &[]),
    };
    if !options.dry_run && old.is_some() {
        // The stamp depends on the current parents.
        remove_stamp(&file)?;
    }
    vhd.lay_over(named.parent.clone());
    if let Some(old) = &old {
        let below = Below { old, new: &new };
        below.carry(&mut vhd, &mut rebased, options)?;
        old.check_unchanged()?;
    }
    new.check_unchanged()?;
    rebased.already = rebased.updated + rebased.cleared == 0 && vhd.names_parent(&named);
    if options.dry_run || rebased.already {
        return Ok(rebased);
    }
    write(&file, vhd, &named)?;
    Ok(rebased)
}

/// Changes the reference of the child in `file`, which the caller has locked exclusively, to another parent that is
/// known to have the necessary contents.
pub(super) fn relink(
    file: &File,
    parent: &Arc<OpenImage>,
    windows: Option<&WindowsFolder>,
) -> Result<()> {
    let vhd = VhdImage::open_over(file.another_handle(), ParentPolicy::LeftOut)?;
    let named = new_parent(file.path(), parent, windows)?;
    write(file, vhd, &named)
}

fn write(file: &File, mut vhd: VhdImage<File>, named: &NewParent) -> Result<()> {
    remove_stamp(file)?;
    let written = vhd.flush().and_then(|()| vhd.set_parent(named));
    written.map_err(|error| match error.kind() {
        ErrorKind::Io => error.override_hint(
            "the image reads as before: remove the cause and run the same command again",
        ),
        _ => error,
    })?;
    // Somebody may remove the old parent as soon as this is done.
    let there = VhdImage::open_over(file.another_handle(), ParentPolicy::LeftOut)?;
    if there.names_parent(named) {
        return Ok(());
    }
    Err(Error::damaged("the data read back differs from the data written")
        .with_path(file.path())
        .with_field("header.parent_unique_id")
        .with_hint(
            "the device or the memory may be failing: check both, then run the same command again",
        ))
}

/// Opens the new parent, which must not be read through the child.
fn open_new(child: &Path, parent: &Path, options: RebaseOptions<'_>) -> Result<Arc<OpenImage>> {
    let image = open_image(
        parent,
        &OpenOptions {
            parents: ParentOptions {
                files: Vec::new(),
                ..options.parents.clone()
            },
            ..OpenOptions::default()
        },
    )?;
    for link in image.chain() {
        if same_file(link.path(), child)? {
            return Err(Error::usage("an image can't be read through itself")
                .with_path(child)
                .with_found(format_args!(
                    "{}, which is {}",
                    shown(parent),
                    if image.parent().is_none() || same_file(parent, child)? {
                        "the same file"
                    } else {
                        "read through this image"
                    }
                ))
                .with_expected("another image as the parent")
                .with_remedy(
                    Remedy::default()
                        .step(Step::Use(Tool::Tree), "a look at the folder's images")
                        .text(" shows which image has which parent"),
                ));
        }
    }
    let depth = image.chain().count();
    if depth >= MAX_CHAIN {
        return Err(Error::unsupported("the chain of parents would be too long")
            .with_path(child)
            .with_found(format_args!("{depth} images from {} on", shown(parent)))
            .with_expected(format_args!("less than {MAX_CHAIN}"))
            .with_hint("merge some of them first"));
    }
    if image.format() == Format::Raw && !options.parents.allow_raw {
        return Err(Error::usage(
            "a child can't name a raw image as its parent: nothing would show whether it is read over the right one",
        )
        .with_path(parent)
        .with_found(image.format())
        .with_expected("a VHD")
        .with_remedy(
            Remedy::new("convert it to a VHD first, or ")
                .named("give ")
                .step(Step::Choose(Choice::RawParent), "allow a raw parent")
                .text(", now and whenever the child is read"),
        ));
    }
    image
        .chain()
        .flat_map(OpenImage::warnings)
        .for_each(options.warn);
    Ok(Arc::new(image))
}

/// The current parent of the child. Returns `None` if it can't be read, but the new one has the id that the child
/// refers to.
fn old_parent(
    child: &Path,
    (wanted, new): (Option<UniqueId>, &OpenImage),
    options: RebaseOptions<'_>,
) -> Result<Option<Arc<OpenImage>>> {
    let opened = open_image(
        child,
        &OpenOptions {
            no_lock: true,
            parents: options.parents.clone(),
            ..OpenOptions::default()
        },
    );
    let id = new.vhd().map(|vhd| vhd.footer().unique_id);
    let same_id = id.is_some_and(|id| !id.is_nil() && wanted == Some(id));
    match opened {
        Ok(image) => {
            for parent in image.chain().skip(1) {
                parent.warnings().into_iter().for_each(options.warn);
            }
            Ok(image.parent().cloned())
        }
        Err(_) if same_id => Ok(None),
        // In use, or an interrupted apply: a temporary condition.
        Err(error) if matches!(error.kind(), ErrorKind::Locked | ErrorKind::Pending) => Err(error),
        Err(error) => Err(unproven(child, new, wanted, &error)),
    }
}

/// The error for a current parent that can't be read, so that the child's contents are unknown.
fn unproven(child: &Path, new: &OpenImage, wanted: Option<UniqueId>, cause: &Error) -> Error {
    let new_path = new.path();
    Error::new(
        cause.kind(),
        "nothing shows whether the new parent holds the same, because the present one can't be read",
    )
    .with_path(child)
    .with_field("header.parent_unique_id")
    .with_found(cause.path().filter(|file| *file != child).map_or_else(
        || cause.message().to_owned(),
        |file| format!("{}: {}", shown(file), cause.message()),
    ))
    .with_expected(format_args!(
        "an image with the unique id {}; {} is {}",
        wanted.unwrap_or_default(),
        shown(new_path),
        match new.vhd() {
            Some(vhd) => vhd.footer().unique_id.to_string(),
            None => "a raw image".to_owned(),
        }
    ))
    .with_remedy(
        Remedy::new("give the place of the present parent with ")
            .step(Step::Choose(Choice::OldParent), "its file")
            .text(" or ")
            .step(Step::Choose(Choice::ParentFolder), "its folder")
            .text(format!("; if {} is known to hold the same: ", shown(new_path)))
            .step(
                Step::Rebase {
                    child: child.to_path_buf(),
                    parent: Some(new_path.to_path_buf()),
                    unchecked: true,
                },
                "have it named without comparing them",
            ),
    )
}

/// The two parents of a child.
struct Below<'a> {
    old: &'a OpenImage,
    new: &'a OpenImage,
}

impl Below<'_> {
    /// Stores in `vhd` whatever it doesn't store and in which the two differ.
    fn carry(
        &self,
        vhd: &mut VhdImage<File>,
        rebased: &mut Rebased,
        options: RebaseOptions<'_>,
    ) -> Result<()> {
        let size = vhd.virtual_size();
        options.progress.begin("comparing the parents", size);
        let all = PageRange::covering(0, size);
        let mut bytes = [vec![0; CHUNK_SIZE], vec![0; CHUNK_SIZE]];
        for chunk in all.windows(CHUNK_SIZE as u64) {
            options.progress.check()?;
            for range in absent(vhd, chunk)? {
                for range in self.may_differ(range)? {
                    self.compare(range, &mut bytes, vhd, rebased, options.dry_run)?;
                }
            }
            options.progress.advance(chunk.len());
        }
        Ok(())
    }

    /// The parts of `range` that aren't known to be equal without being read.
    fn may_differ(&self, range: PageRange) -> Result<Vec<PageRange>> {
        let mut different = Vec::new();
        let mut sides = [Side::of(self.old, range), Side::of(self.new, range)];
        let mut at = range.start();
        while at < range.end() {
            let [old, new] = sides.each_mut().map(|side| side.at(at));
            let (old, new) = (old?, new?);
            let end = old.end.min(new.end);
            let same = match (old.place, new.place) {
                (Place::Zeros, Place::Zeros) => true,
                (Place::Data(a), Place::Data(b)) => a.stamp().same_file(b.stamp()),
                _ => false,
            };
            if !same {
                different.push(PageRange::covering(at, end));
            }
            at = end;
        }
        Ok(different)
    }

    fn compare(
        &self,
        range: PageRange,
        [old, new]: &mut [Vec<u8>; 2],
        vhd: &mut VhdImage<File>,
        rebased: &mut Rebased,
        dry_run: bool,
    ) -> Result<()> {
        let len = to_usize(range.len());
        let old = part_mut(old, ..len)?;
        let new = part_mut(new, ..len)?;
        read_or_zeros(self.old, old, range)?;
        read_or_zeros(self.new, new, range)?;
        rebased.read = rebased.read.saturating_add(range.len());
        let page = to_usize(PAGE_SIZE);
        let kind = |n: usize| {
            let at = n * page;
            let (was, is) = (old.get(at..at + page)?, new.get(at..at + page)?);
            Some(match (was == is, is_zero(was)) {
                (true, _) => Kind::Same,
                (false, true) => Kind::Cleared,
                (false, false) => Kind::Updated,
            })
        };
        let mut n = 0;
        while let Some(first) = kind(n) {
            let start = n;
            while kind(n) == Some(first) {
                n += 1;
            }
            let pages = PageRange::covering(
                range.start() + (start * page) as u64,
                range.start() + (n * page) as u64,
            );
            match first {
                Kind::Same => continue,
                Kind::Cleared => rebased.cleared += pages.len(),
                Kind::Updated => rebased.updated += pages.len(),
            }
            if dry_run {
                continue;
            }
            match first {
                Kind::Cleared => vhd.clear(pages)?,
                _ => vhd.update(pages, part(old, start * page..n * page)?)?,
            }
        }
        Ok(())
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Same,
    Updated,
    Cleared,
}

/// The parts of `chunk` that `vhd` doesn't store.
fn absent(vhd: &VhdImage<File>, chunk: PageRange) -> Result<Vec<PageRange>> {
    let runs = vhd.stored_runs(chunk);
    runs.filter_map(|run| match run {
        Ok(run) if run.is_stored() => None,
        Ok(run) => Some(Ok(run.range)),
        Err(error) => Some(Err(error)),
    })
    .collect()
}

/// The contents of a parent: its runs in order, with zeros after its end.
struct Side<'a> {
    image: &'a OpenImage,
    within: PageRange,
    runs: super::MappedExtents<'a>,
    now: Option<Mapped<'a>>,
}

/// The location of one run of a parent.
#[derive(Clone, Copy)]
struct Run<'a> {
    place: Place<'a>,
    end: u64,
}

#[derive(Clone, Copy)]
enum Place<'a> {
    Zeros,
    /// In the file of this image, at the same offset of its virtual disk.
    Data(&'a OpenImage),
}

impl<'a> Side<'a> {
    fn of(image: &'a OpenImage, within: PageRange) -> Self {
        Self {
            image,
            within,
            runs: image.mapped(within),
            now: None,
        }
    }

    /// The run that contains `at`, which never decreases.
    fn at(&mut self, at: u64) -> Result<Run<'a>> {
        while self.now.is_none_or(|now| now.extent.range.end() <= at) {
            self.now = self.runs.next().transpose()?;
            if self.now.is_none() {
                return Ok(Run {
                    place: Place::Zeros,
                    end: self.within.end(),
                });
            }
        }
        let Some(Mapped {
            extent: Extent { range, state },
            image,
            ..
        }) = self.now
        else {
            return Err(
                Error::damaged("the map of an image is too short").with_path(self.image.path())
            );
        };
        Ok(Run {
            place: match state {
                ExtentState::Zero => Place::Zeros,
                ExtentState::Data => Place::Data(image),
            },
            end: range.end(),
        })
    }
}

/// Reads a range of an image that may end before it.
fn read_or_zeros(image: &OpenImage, buf: &mut [u8], range: PageRange) -> Result<()> {
    let inside = image.virtual_size().clamp(range.start(), range.end()) - range.start();
    let (there, beyond) = buf
        .split_at_mut_checked(to_usize(inside))
        .unwrap_or_default();
    beyond.fill(0);
    if there.is_empty() {
        return Ok(());
    }
    image.read_exact_at(there, range.start())
}
