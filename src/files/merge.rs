//! Folding a differencing VHD into its parent, in place.
//!
//! ```text
//!   lock both ─► merge diff: parent to child, beside the parent ─► apply it in place ─► remove the merge diff
//! ```
//!
//! A merge is the apply of a diff: of the pages that the child stores and that differ in the parent. Were the diff
//! made again from a parent that is half written, it would be another one; so it is kept until the apply has ended,
//! and finishing an interrupted merge applies that very diff. A merge diff without an undo journal beside it is a
//! leftover: either the parent wasn't touched yet, or all is done.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::apply::ApplyOptions;
use super::diffs::{open_diff, side_of};
use super::in_place::{InPlace, Strategy, apply_in_place, apply_locked};
use super::parents::{ParentOptions, places};
use super::pending::{
    exists, journal_path, make_place_of, merge_diff_path, refuse_pending, remove_merge_diff,
};
use super::{Format, FormatChoice, OpenImage, OpenOptions, open_image};
use crate::diff::{BaseCheck, Chain, Compression, DiffOptions, Side, Written, write_diff};
use crate::error::{Error, ErrorKind, Result};
use crate::image::{ContentDigest, Image, NothingKnown};
use crate::parallel::Workers;
use crate::progress::Progress;
use crate::storage::{Access, AtomicFile, Audience, File, Overwrite, refuse_part_of_store, remove};
use crate::vhd::OnlyStored;

/// How to [`merge`].
#[derive(Clone, Copy)]
#[allow(clippy::struct_excessive_bools, reason = "each is a choice of its own")]
pub struct MergeOptions<'a> {
    /// The threads that read, compare and pack.
    pub workers: &'a Workers,
    /// Told how far the work is.
    pub progress: &'a dyn Progress,
    /// Where the parents of the child may be.
    pub parents: &'a ParentOptions,
    /// Whether to read all of both disks and compare content digests. Without it, what was written is read back and
    /// compared page by page.
    pub verify: bool,
    /// Look at everything, write nothing.
    pub dry_run: bool,
    /// Whether the parent's file has no holes in the end.
    pub dense: bool,
    /// Whether to remove the child once the merge is on stable storage.
    pub delete: bool,
    /// Told what is wrong with the images, but doesn't keep them from being merged.
    pub warn: &'a dyn Fn(&Error),
}

impl std::fmt::Debug for MergeOptions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut out = f.debug_struct("MergeOptions");
        out.field("verify", &self.verify)
            .field("dry_run", &self.dry_run)
            .field("delete", &self.delete)
            .field("dense", &self.dense)
            .finish_non_exhaustive()
    }
}

/// What became of a merge.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    /// Whether there was nothing to write: the parent holds the same as the child.
    pub same: bool,
    /// Content digest of the child and of the merged parent, if it was asked for.
    pub digest: Option<ContentDigest>,
    /// Whether a merge that had been interrupted was finished, or would be.
    pub finished_interrupted: bool,
    /// Whether the child was removed.
    pub deleted: bool,
}

/// Writes what the differencing VHD at `child` stores into its parent, so that the parent holds what the child reads
/// as. Crash-safe as an apply in place; run again, it finishes an interrupted merge. The parent keeps its identity,
/// and grows if the child is larger.
pub fn merge(child: &Path, options: MergeOptions<'_>) -> Result<Merged> {
    let finished = finish_interrupted(child, options)?;
    if let (Some(finished), true) = (&finished, options.dry_run) {
        return Ok(finished.clone());
    }
    // What was written to the child since is merged, too: usually nothing.
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

/// Finishes the merge of this child that left an undo journal beside its parent, if there is one.
fn finish_interrupted(child: &Path, options: MergeOptions<'_>) -> Result<Option<Merged>> {
    let Some((child_id, candidates)) = places(child, options.parents)? else {
        return Ok(None);
    };
    for parent in candidates {
        let merge_diff = merge_diff_path(&parent);
        if !exists(&journal_path(&parent)).unwrap_or(false) || !exists(&merge_diff)? {
            continue;
        }
        let diff = open_diff(&merge_diff, options.progress)?;
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
            remove_merge_diff(&parent)?;
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
            .path(child)
            .found(image.format())
            .expected(Format::Differencing)
            .hint("name the child; its parent is found by what the child says of it")
    })?;
    let path = parent.path().to_path_buf();
    let locks = Locks::take(&image, parent, options)?;
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
    };
    let format = parent.format();
    if options.dry_run {
        let written = write(&image, parent, io::sink(), Path::new("diff"), options)?;
        merged.count(&written);
        return Ok(merged);
    }
    let merge_diff = merge_diff_path(&path);
    make_place_of(&path)?;
    let files = image.chain().map(OpenImage::path);
    let file = AtomicFile::for_audience(&merge_diff, Audience::of(files)?)?;
    let out = file.file().appender();
    let written = write(&image, parent, out, &merge_diff, options)?;
    merged.count(&written);
    drop(written);
    if merged.same {
        drop(file);
        // Of a merge that was interrupted when all was done.
        remove_merge_diff(&path)?;
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
        remove_merge_diff(&path)?;
    }
    if options.delete {
        delete(&image)?;
        merged.deleted = true;
    }
    Ok(merged)
}

/// Applies the merge diff. If the parent wasn't touched, no trace stays behind of what failed.
fn apply(
    parent: &File,
    merge_diff: &Path,
    (format, dense): (Format, bool),
    options: ApplyOptions<'_>,
) -> Result<()> {
    let path = parent.path();
    let how = InPlace {
        format: Some(FormatChoice::Only(format)),
        dense,
        strategy: Some(Strategy::Journal),
        ..InPlace::default()
    };
    let applied = open_diff(merge_diff, options.progress)
        .and_then(|diff| apply_locked(parent, Chain::new(vec![diff])?, how, options));
    if applied.is_err() && !exists(&journal_path(path))? {
        remove_merge_diff(path)?;
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

/// Opens the chain without locks: they are taken all together afterwards.
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
    /// Locks the parent for writing and the rest of the chain for reading, and makes sure that nothing happened
    /// to them since they were opened.
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
            .path(parent.path())
            .hint("run the command again"));
        }
        for image in image.chain() {
            refuse_pending(image.path())?;
        }
        image.check_unchanged()?;
        Ok(Self { parent: file })
    }
}

/// Writes the diff from the parent to the child. It carries no footer: the parent keeps its identity.
fn write<W: Write>(
    image: &OpenImage,
    parent: &OpenImage,
    out: W,
    name: &Path,
    options: MergeOptions<'_>,
) -> Result<Written<W>> {
    let (progress, workers) = (options.progress, options.workers);
    progress.begin("comparing with the parent", image.virtual_size());
    let diff_options = DiffOptions {
        workers,
        progress,
        compression: Compression::default(),
        digests: options.verify,
        equal: &NothingKnown,
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
        Some(vhd) if !options.verify => {
            write(&OnlyStored::new(vhd, parent), &OnlyStored::new(vhd, image))
        }
        _ => write(parent, image),
    }
}

fn apply_options<'a>(options: MergeOptions<'a>, parents: &'a ParentOptions) -> ApplyOptions<'a> {
    ApplyOptions {
        workers: options.workers,
        progress: options.progress,
        // The diff was made from this very parent under the lock.
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

/// Removes the child itself, wherever a link to it lies, unless somebody wrote to it.
fn delete(image: &OpenImage) -> Result<()> {
    image.file().check_unchanged(image.stamp())?;
    let path = image.path();
    let file = fs::canonicalize(path).map_err(|e| Error::io("cannot find", e).path(path))?;
    remove(&file).map_err(|error| error.hint("the merge is done: the child isn't needed any more"))
}
