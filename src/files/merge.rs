//! Merges a differencing VHD into its parent, in place.
//!
//! ```text
//!   lock all ─► merge diff: parent to child, beside the parent ─► apply it in place ─► remove the merge diff
//!            ─► its own children get the parent as theirs ─► remove the child
//! ```
//!
//! Other children of the parent would read differently afterwards, so there must be none. Children of the child are
//! fine: once the parent holds what the child reads as, it doesn't matter which of the two they use. So each step
//! leaves every image readable, and repeating everything continues where it stopped. ([`relatives`](super::relatives)
//! finds both.)
//!
//! A merge is the apply of a diff with the pages that the child stores and that differ in the parent. A diff created
//! again from a half-written parent would be a different one, so it is kept until the apply has finished, and an
//! interrupted merge is finished with that very diff. A merge diff without an undo journal next to it is a leftover:
//! either the parent wasn't changed yet, or everything is done.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::apply::ApplyOptions;
use super::apply::in_place::apply_locked;
use super::child::{WindowsFolder, new_parent};
use super::diffs::{open_diff, side_of};
use super::open::open_file;
use super::options::ParentOptions;
use super::parents::places;
use super::pending::{
    exists, journal_of, journal_path, make_place_of_open, merge_diff_of, merge_diff_path,
    refuse_pending, remove_merge_diff,
};
use super::places::folder_of;
use super::rebase::relink;
use super::relatives::{Children, Orphans, Parent};
use super::{Format, FormatChoice, OpenImage, OpenOptions, open_image};
use super::{InPlace, Strategy, apply_in_place};
use crate::diff::{BaseCheck, Chain, Compression, DiffOptions, Side, Written, write_diff};
use crate::error::{Error, ErrorKind, Result};
use crate::image::{ContentDigest, Image, Masked, NoneShared};
use crate::parallel::Work;
use crate::remedy::{Choice, Remedy, Step};
use crate::storage::{
    Access, AtomicFile, Audience, File, Overwrite, refuse_part_of_store, remove, remove_if_there,
};
use crate::text::shown;
use crate::vhd::{ParentPolicy, VhdImage};

/// Options for [`merge`].
#[derive(Clone, Copy)]
#[allow(clippy::struct_excessive_bools, reason = "each is a choice of its own")]
pub struct MergeOptions<'a> {
    /// The threads, and the receiver of progress.
    pub work: Work<'a>,
    /// Where to look for the parents of the child.
    pub parents: &'a ParentOptions,
    /// Whether to read all of both disks and compare content digests. Otherwise, the written data is read back and
    /// compared page by page.
    pub verify: bool,
    /// Check everything, but write nothing.
    pub dry_run: bool,
    /// Whether to fill all holes of the parent's file at the end.
    pub dense: bool,
    /// Whether to remove the child once the merge is on stable storage and the child's own children refer to the
    /// parent.
    pub delete: bool,
    /// How to treat other children of the parent.
    pub orphans: Orphans,
    /// The Windows path of the images' folder, for children that get another parent.
    pub windows_folder: Option<&'a WindowsFolder>,
    /// Receives warnings about the images.
    pub warn: &'a dyn Fn(&Error),
}

impl std::fmt::Debug for MergeOptions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut out = f.debug_struct("MergeOptions");
        out.field("verify", &self.verify)
            .field("dry_run", &self.dry_run)
            .field("delete", &self.delete)
            .field("dense", &self.dense)
            .field("orphans", &self.orphans)
            .finish_non_exhaustive()
    }
}

/// The outcome of a merge.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Merged {
    /// The parent that was merged into.
    pub parent: PathBuf,
    /// Its virtual size before.
    pub old_size: u64,
    /// Its virtual size now: that of the child.
    pub virtual_size: u64,
    /// Bytes of the virtual disk written with data.
    pub updated: u64,
    /// Bytes of the virtual disk made zero.
    pub cleared: u64,
    /// Whether there was nothing to write because the parent already had the same contents as the child.
    pub same: bool,
    /// Content digest of the child and of the merged parent, if requested.
    pub digest: Option<ContentDigest>,
    /// Whether an interrupted merge was finished, or would be.
    pub finished_interrupted: bool,
    /// Whether the child was removed.
    pub deleted: bool,
    /// Other children of the parent, which read differently if anything was written to it.
    pub siblings: Vec<PathBuf>,
    /// Children of the child. If it was removed, or would be, they get its parent as theirs.
    pub grandchildren: Vec<PathBuf>,
    /// Where children were looked for, as text.
    pub looked_in: String,
}

/// Writes the data of the differencing VHD at `child` to its parent, so that the parent has the same contents as the
/// child. As crash-safe as an in-place apply; repeating it finishes an interrupted merge. The parent keeps its
/// identity, and grows if the child is larger.
///
/// # Errors
///
/// [`Usage`](ErrorKind::Usage), before anything is written, if the parent has other children and doesn't have the same
/// contents already; [`Locked`](ErrorKind::Locked) if an image involved is in use.
pub fn merge(child: &Path, options: MergeOptions<'_>) -> Result<Merged> {
    let finished = finish_interrupted(child, options)?;
    if let (Some(finished), true) = (&finished, options.dry_run) {
        return Ok(finished.clone());
    }
    // Anything written to the child meanwhile is merged as well; usually there is nothing.
    let merged = merge_open(child, options)?;
    Ok(match finished {
        Some(finished) => Merged {
            finished_interrupted: true,
            old_size: finished.old_size,
            updated: finished.updated + merged.updated,
            cleared: finished.cleared + merged.cleared,
            same: false,
            ..merged
        },
        None => merged,
    })
}

/// Finishes the merge of this child that left an undo journal next to its parent, if there is one.
fn finish_interrupted(child: &Path, options: MergeOptions<'_>) -> Result<Option<Merged>> {
    let Some((child_id, candidates)) = places(child, options.parents)? else {
        return Ok(None);
    };
    for parent in candidates {
        let merge_diff = merge_diff_path(&parent);
        if !exists(&journal_path(&parent)).unwrap_or(false) || !exists(&merge_diff)? {
            continue;
        }
        let diff = open_diff(&merge_diff, options.work.progress)?;
        if diff.header().target.unique_id != Some(child_id.0) {
            continue;
        }
        let old_size = diff.header().base_size;
        let below = without(options.parents, &parent);
        let how = InPlace {
            dry_run: options.dry_run,
            dense: options.dense,
            strategy: Some(Strategy::Journal),
            ..InPlace::default()
        };
        let chain = Chain::new(vec![diff])?;
        let applied = apply_in_place(&parent, chain, how, apply_options(options, &below))?;
        if !options.dry_run {
            remove_if_there(&merge_diff)?;
        }
        return Ok(Some(Merged {
            parent,
            old_size,
            virtual_size: applied.target_size,
            updated: applied.updated,
            cleared: applied.cleared,
            same: false,
            digest: applied.target_digest,
            finished_interrupted: true,
            deleted: false,
            siblings: Vec::new(),
            grandchildren: Vec::new(),
            looked_in: String::new(),
        }));
    }
    Ok(None)
}

fn merge_open(child: &Path, options: MergeOptions<'_>) -> Result<Merged> {
    let image = open_child(child, options)?;
    image
        .chain()
        .flat_map(OpenImage::warnings)
        .for_each(options.warn);
    let parent = image.parent().ok_or_else(|| {
        Error::usage("there is nothing to merge into: this image has no parent")
            .with_path(child)
            .with_found(image.format())
            .with_expected(Format::Differencing)
            .with_hint("name the child; its parent is found by the child's own references")
    })?;
    let path = parent.path().to_path_buf();
    let locks = Locks::take(&image, parent, options)?;
    let relatives = Relatives::find(&image, parent, options)?;
    let heirs = Heirs::take(&relatives, &image, parent, options)?;
    let mut merged = Merged {
        old_size: parent.virtual_size(),
        virtual_size: image.virtual_size(),
        parent: path.clone(),
        updated: 0,
        cleared: 0,
        same: true,
        digest: None,
        finished_interrupted: false,
        deleted: false,
        siblings: relatives.siblings.paths(),
        grandchildren: relatives.grandchildren.paths(),
        looked_in: relatives.siblings.looked_in(),
    };
    let format = parent.format();
    if options.dry_run {
        let written = write(&image, parent, io::sink(), Path::new("diff"), options)?;
        merged.count(&written);
        relatives.check(&merged, options)?;
        return Ok(merged);
    }
    let merge_diff = merge_diff_of(&locks.parent)?;
    make_place_of_open(&locks.parent)?;
    let files = image.chain().map(OpenImage::path);
    let file = AtomicFile::for_audience(&merge_diff, Audience::of(files)?)?;
    let out = file.file().appender();
    let written = write(&image, parent, out, &merge_diff, options)?;
    merged.count(&written);
    drop(written);
    relatives.check(&merged, options)?;
    if merged.same {
        drop(file);
        // The remains of a merge that was interrupted after everything was done.
        remove_merge_diff(&locks.parent)?;
    } else {
        if let Some(vhd) = parent.vhd() {
            vhd.check_resize(image.virtual_size())?;
        }
        file.publish(Overwrite::Yes)?;
        let files = image
            .chain()
            .skip(2)
            .map(|image| image.path().to_path_buf());
        let below = ParentOptions {
            files: files.collect(),
            ..options.parents.clone()
        };
        apply(
            &locks.parent,
            &merge_diff,
            (format, options.dense),
            apply_options(options, &below),
        )?;
        remove_merge_diff(&locks.parent)?;
    }
    if options.delete {
        heirs.inherit(&locks.parent, &image, options)?;
        delete(&image)?;
        merged.deleted = true;
    }
    Ok(merged)
}

/// The children of the two images of a merge.
struct Relatives {
    siblings: Children,
    grandchildren: Children,
}

impl Relatives {
    fn find(image: &OpenImage, parent: &OpenImage, options: MergeOptions<'_>) -> Result<Self> {
        let [above, below] = [image, parent].map(|image| folder_of(image.path()));
        let own = [image.stamp(), parent.stamp()];
        let look =
            |of: &OpenImage| Parent::of(of).children(options.parents, &[&above, &below], &own);
        let siblings = look(parent).sure(options.orphans)?;
        let grandchildren = look(image);
        let grandchildren = if options.delete {
            // Any that aren't given another parent would be lost.
            grandchildren.certain(options.orphans)?
        } else {
            grandchildren
        };
        siblings.unread.iter().for_each(options.warn);
        Ok(Self {
            siblings,
            grandchildren,
        })
    }

    /// Fails if the merge changes what other children of the parent read as.
    fn check(&self, merged: &Merged, options: MergeOptions<'_>) -> Result<()> {
        if merged.same || options.orphans == Orphans::Allow {
            return Ok(());
        }
        self.siblings.refuse(&merged.parent)
    }
}

/// The children of an image that is about to be removed, locked.
struct Heirs(Vec<File>);

impl Heirs {
    /// Locks them if necessary, and checks that each can be given the new parent. Those whose parent an interrupted
    /// merge was changing refer to the parent already, and count as well.
    fn take(
        relatives: &Relatives,
        image: &OpenImage,
        parent: &Arc<OpenImage>,
        options: MergeOptions<'_>,
    ) -> Result<Self> {
        let mut files = Vec::new();
        if !options.delete {
            return Ok(Self(files));
        }
        let access = if options.dry_run {
            Access::Read
        } else {
            Access::Write
        };
        for path in relatives.grandchildren.paths() {
            let file = File::open_locked(&path, access).and_then(|file| {
                refuse_pending(&path)?;
                let vhd = VhdImage::open_over(file.another_handle(), ParentPolicy::LeftOut)?;
                let new = new_parent(&path, parent, options.windows_folder)?;
                vhd.check_parent(&new)?;
                Ok(file)
            });
            let file = file.map_err(|error| {
                let why = format!(
                    "{} has {} as its parent, which can be removed only if that is changed; ",
                    shown(&path),
                    shown(image.path())
                );
                error.override_remedy(
                    Remedy::new(why)
                        .named("omit ")
                        .step(Step::Choose(Choice::DeleteChild), "don't remove it")
                        .text(" to keep both"),
                )
            })?;
            files.push(file);
        }
        for path in relatives.siblings.paths() {
            let is_between = File::open(&path)
                .and_then(|file| VhdImage::open_over(file, ParentPolicy::LeftOut))
                // Problems with an image that isn't needed don't matter.
                .is_ok_and(|vhd| vhd.is_between_parents());
            if is_between {
                files.push(File::open_locked(&path, access)?);
            }
        }
        Ok(Self(files))
    }

    /// Gives each of them the merged parent.
    fn inherit(&self, parent: &File, image: &OpenImage, options: MergeOptions<'_>) -> Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        let below = image
            .chain()
            .skip(2)
            .map(|image| image.path().to_path_buf());
        let merged = open_file(
            parent.another_handle(),
            &OpenOptions {
                format: image
                    .parent()
                    .map(|parent| FormatChoice::Only(parent.format())),
                no_lock: true,
                parents: ParentOptions {
                    files: below.collect(),
                    no_lock: true,
                    ..options.parents.clone()
                },
                ..OpenOptions::default()
            },
        )?;
        let merged = Arc::new(merged);
        for file in &self.0 {
            relink(file, &merged, options.windows_folder).map_err(|error| {
                error.override_hint("the merge is done; run the same command again to continue with the children of the child")
            })?;
        }
        Ok(())
    }
}

/// Applies the merge diff. If the parent wasn't changed, a failure leaves nothing behind.
fn apply(
    parent: &File,
    merge_diff: &Path,
    (format, dense): (Format, bool),
    options: ApplyOptions<'_>,
) -> Result<()> {
    let how = InPlace {
        format: Some(FormatChoice::Only(format)),
        dense,
        strategy: Some(Strategy::Journal),
        // They were looked for already.
        orphans: Orphans::Allow,
        ..InPlace::default()
    };
    let applied = open_diff(merge_diff, options.work.progress)
        .and_then(|diff| apply_locked(parent, Chain::new(vec![diff])?, how, options));
    if applied.is_err() && !exists(&journal_of(parent)?)? {
        remove_merge_diff(parent)?;
    }
    applied.map(|_| ())
}

impl Merged {
    fn count<W>(&mut self, written: &Written<W>) {
        self.same = written.comparison.is_same();
        self.updated = written.trailer.update_bytes;
        self.cleared = written.trailer.clear_bytes;
        self.digest = written.trailer.target_digest;
    }
}

/// Opens the chain without locks, which are taken together afterwards.
fn open_child(child: &Path, options: MergeOptions<'_>) -> Result<OpenImage> {
    open_image(
        child,
        &OpenOptions {
            no_lock: true,
            settle: true,
            parents: ParentOptions {
                no_lock: true,
                ..options.parents.clone()
            },
            ..OpenOptions::default()
        },
    )
}

/// The parent's exclusive lock; the others are held by the open images.
struct Locks {
    parent: File,
}

impl Locks {
    /// Locks the parent for writing and the rest of the chain for reading, and checks that they haven't changed since
    /// they were opened.
    fn take(image: &OpenImage, parent: &OpenImage, options: MergeOptions<'_>) -> Result<Self> {
        let access = if options.dry_run {
            Access::Read
        } else {
            Access::Write
        };
        refuse_part_of_store(parent.path())?;
        if options.delete {
            refuse_part_of_store(image.path())?;
        }
        let file = File::open_locked(parent.path(), access)?;
        if options.delete && !options.dry_run {
            image.file().lock_exclusive()?;
        } else {
            image.file().lock_shared()?;
        }
        for other in image.chain().skip(2) {
            other.file().lock_shared()?;
        }
        if !file.stamp()?.same_file(parent.stamp()) {
            return Err(Error::new(
                ErrorKind::Changed,
                "the parent was replaced by another file",
            )
            .with_path(parent.path())
            .with_hint("run the command again"));
        }
        for image in image.chain() {
            refuse_pending(image.path())?;
        }
        image.check_unchanged()?;
        Ok(Self { parent: file })
    }
}

/// Writes the diff from the parent to the child. It contains no footer: the parent keeps its identity.
fn write<W: Write>(
    image: &OpenImage,
    parent: &OpenImage,
    out: W,
    name: &Path,
    options: MergeOptions<'_>,
) -> Result<Written<W>> {
    let (progress, workers) = (options.work.progress, options.work.workers);
    progress.begin("comparing with the parent", image.virtual_size());
    let diff_options = DiffOptions {
        work: Work::new(workers, progress),
        compression: Compression::default(),
        digests: options.verify,
        equal: &NoneShared,
        confirm: &|| image.check_unchanged(),
    };
    let target = Side {
        footer: None,
        ..side_of(image)
    };
    let write = |base: &dyn Image, child: &dyn Image| {
        write_diff(
            (base, side_of(parent)),
            (child, target),
            out,
            name,
            diff_options,
        )
    };
    match image.vhd() {
        // Digests are of whole disks.
        Some(vhd) if !options.verify => write(&Masked::new(parent, vhd), &Masked::new(image, vhd)),
        _ => write(parent, image),
    }
}

fn apply_options<'a>(options: MergeOptions<'a>, parents: &'a ParentOptions) -> ApplyOptions<'a> {
    ApplyOptions {
        work: options.work,
        // The diff was made from this very parent, under the lock.
        check: BaseCheck::Touched,
        verify: true,
        parents,
    }
}

/// The options for opening the parent itself.
fn without(options: &ParentOptions, parent: &Path) -> ParentOptions {
    let same = |file: &PathBuf| match (fs::canonicalize(file), fs::canonicalize(parent)) {
        (Ok(a), Ok(b)) => a == b,
        _ => file == parent,
    };
    let mut options = options.clone();
    options.files.retain(|file| !same(file));
    options
}

/// Removes the child itself, not a link to it, unless it was changed meanwhile.
fn delete(image: &OpenImage) -> Result<()> {
    image.file().check_unchanged(image.stamp())?;
    let path = image.path();
    let file = fs::canonicalize(path).map_err(|e| Error::io("cannot find", e).with_path(path))?;
    remove(&file)
        .map_err(|error| error.override_hint("the merge is done: the child isn't needed any more"))
}
