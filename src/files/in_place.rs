//! Applying diffs to a base in place, so that it is always one command away from the old or the new point in time.
//!
//! ```text
//!   lock ─► check everything ─► undo journal: write, sync, name, sync ─► base: write, sync ─► journal: remove, sync
//!                               └────────── while it stands, every command refuses the base ──────────┘
//! ```
//!
//! The undo journal is a diff from the new point in time back to the old one. Writing the base goes through
//! [`redo`] in all three cases: the first time, when an interrupted apply is finished, and when it is taken back.
//! It only ever writes what the result shall hold, so it may be repeated from any state in between.

use std::fs;
use std::io::{BufWriter, ErrorKind as IoKind};
use std::path::Path;

use super::apply::{Applied, ApplyOptions, BaseChecked, fit, identity, read_back, write_changes};
use super::diffs::{format_of, open_diff, side_of, target_footer};
use super::pending::{exists, how_to_go_on, journal_path, merge_diff_path, remove_merge_diff};
use super::{Format, FormatChoice, OpenImage, OpenOptions, open_image};
use crate::diff::{
    Chain, Compression, DiffHeader, DiffWriter, Layers, PROGRAM, WindowChange, pack,
};
use crate::error::{Error, ErrorKind, Result};
use crate::image::{ContentDigest, Image, ImageMut, RawImage, content_digest};
use crate::page::ChangeKind;
use crate::storage::{
    AtomicFile, File, IoPolicy, Overwrite, ReadAt as _, WriteAt as _, sync_folder_of,
};
use crate::vhd::{DiskType, FOOTER_SIZE, Footer};

/// What only an apply in place can be told.
#[derive(Debug, Clone, Copy, Default)]
pub struct InPlace<'a> {
    /// The format of the base, when it shall not be probed.
    pub format: Option<FormatChoice>,
    /// Where the diff that undoes the apply is kept.
    pub undo: Option<&'a Path>,
    /// Check everything, write nothing.
    pub dry_run: bool,
}

/// Applies `chain` to the image at `path` in place, or finishes the same apply that was interrupted.
pub fn apply_in_place(
    path: &Path,
    chain: Chain,
    how: InPlace<'_>,
    options: ApplyOptions<'_>,
) -> Result<Applied> {
    how.undo
        .map_or(Ok(()), |undo| check_undo(undo, &journal_path(path)))?;
    let _lock = lock(path, how.dry_run)?;
    apply_locked(path, chain, how, options)
}

/// As [`apply_in_place`], when the caller holds the lock.
pub(super) fn apply_locked(
    path: &Path,
    chain: Chain,
    how: InPlace<'_>,
    options: ApplyOptions<'_>,
) -> Result<Applied> {
    let journal = journal_path(path);
    if exists(&journal)? {
        return finish(path, &journal, chain, how, options);
    }
    let base = open(path, how.format, false, options)?;
    let found = fit(&base, &chain, options)?;
    let diffs = chain.diffs().len();
    let applied = Applied {
        already: found.already,
        diffs,
        checked: found.checked,
        target_size: chain.target_size(),
        target_digest: chain
            .target_digest()
            .or(found.digest.filter(|_| found.already == diffs)),
        updated: 0,
        cleared: 0,
        verified: false,
        finished_interrupted: false,
    };
    let Some(chain) = chain.without_first(found.already) else {
        return Ok(applied);
    };
    if how.dry_run {
        let (updated, cleared) = count(&base, &chain, options)?;
        return Ok(Applied {
            updated,
            cleared,
            ..applied
        });
    }
    base.check_unchanged()?;
    if let Some(vhd) = base.vhd() {
        vhd.check_resize(chain.target_size())?;
    }
    let footer = identity(&chain, base.vhd().map(|vhd| vhd.footer().clone()))?;
    let merge_diff = merge_diff_path(path);
    if !chain.diffs().iter().any(|diff| diff.name() == merge_diff) {
        // A leftover of an older merge: beside this journal it would tell a wrong story.
        remove_merge_diff(path)?;
    }
    write_journal(&journal, &base, &chain, found.digest, options)?;
    let (format, size) = (base.format(), base.virtual_size());
    drop(base);
    let (updated, cleared) = redo(path, format, size, &chain, footer, options)
        .map_err(|error| unfinished(error, path))?;
    let verified = options.verify && verify(path, format, &chain, chain.target_digest(), options)?;
    close_journal(&journal, how.undo)?;
    Ok(Applied {
        updated,
        cleared,
        verified,
        ..applied
    })
}

/// Takes an interrupted apply back: the image at `path` holds the old point in time again. Returns its digest,
/// if the journal knows it; it was checked then.
pub fn roll_back(path: &Path, options: ApplyOptions<'_>) -> Result<Option<ContentDigest>> {
    let _lock = lock(path, false)?;
    let journal_path = journal_path(path);
    if !exists(&journal_path)? {
        return Err(Error::usage(
            "there is nothing to roll back: no undo journal stands beside this image",
        )
        .path(path)
        .hint("to undo a finished apply, apply the diff that --undo kept"));
    }
    let (journal, format) = open_journal(&journal_path, options)?;
    let footer = journal
        .last()
        .map(|diff| target_footer(diff.header()))
        .transpose()?
        .flatten();
    redo(path, format, journal.base_size(), &journal, footer, options).map_err(|error| {
        error.hint("the undo journal still stands: remove the cause, then roll back again")
    })?;
    verify(path, format, &journal, journal.target_digest(), options)?;
    close_journal(&journal_path, None)?;
    remove_merge_diff(path)?;
    Ok(journal.target_digest())
}

/// Finishes the apply that left `journal_path`, if it was of these diffs.
fn finish(
    path: &Path,
    journal_path: &Path,
    chain: Chain,
    how: InPlace<'_>,
    options: ApplyOptions<'_>,
) -> Result<Applied> {
    let (journal, format) = open_journal(journal_path, options)?;
    let undoes = journal
        .first()
        .map(|diff| diff.header().undoes.clone())
        .unwrap_or_default();
    let diffs = chain.diffs().len();
    if undoes.is_empty() || !chain.identities().ends_with(&undoes) {
        return Err(Error::new(
            ErrorKind::Pending,
            "an apply of other diffs to this image was interrupted",
        )
        .path(path)
        .found(format_args!("the undo journal {}", journal_path.display()))
        .hint(how_to_go_on(path)));
    }
    let mut applied = Applied {
        already: diffs - undoes.len(),
        diffs,
        checked: BaseChecked::Full,
        target_size: chain.target_size(),
        target_digest: chain.target_digest(),
        updated: 0,
        cleared: 0,
        verified: false,
        finished_interrupted: true,
    };
    let Some(chain) = chain.without_first(applied.already) else {
        return Ok(applied);
    };
    if how.dry_run {
        return Ok(applied);
    }
    let before = journal
        .last()
        .map(|diff| target_footer(diff.header()))
        .transpose()?
        .flatten();
    let footer = identity(&chain, before)?;
    (applied.updated, applied.cleared) =
        redo(path, format, chain.base_size(), &chain, footer, options)
            .map_err(|error| unfinished(error, path))?;
    // A base that was checked only under the changed pages needn't become the target elsewhere; the journal knows.
    applied.verified = verify(path, format, &chain, journal.base_digest(), options)?;
    close_journal(journal_path, how.undo)?;
    Ok(applied)
}

/// Says how to go on after a failure between the old and the new point in time.
fn unfinished(error: Error, path: &Path) -> Error {
    error.hint(format!(
        "the image is between two points in time and its undo journal stands: remove the cause and {}",
        how_to_go_on(path)
    ))
}

/// Makes the image hold the chain's result, whatever part of it it holds already, and durably so. Returns the
/// bytes updated and cleared. `base_size` is the virtual size that it had, or has, before.
fn redo(
    path: &Path,
    format: Format,
    base_size: u64,
    chain: &Chain,
    footer: Option<Footer>,
    options: ApplyOptions<'_>,
) -> Result<(u64, u64)> {
    match format {
        Format::Raw => redo_flat(path, base_size, chain, None, options),
        Format::Fixed => {
            let footer = Footer::for_disk(DiskType::Fixed, chain.target_size(), footer.as_ref());
            redo_flat(path, base_size, chain, Some(footer), options)
        }
        Format::Dynamic | Format::Differencing => {
            let mut image = open(path, Some(FormatChoice::Only(format)), true, options)?;
            if let Some(vhd) = image.vhd_mut() {
                vhd.resize(chain.target_size())?;
            }
            let reader = open(path, Some(FormatChoice::Only(format)), false, options)?;
            let disk_type = match format {
                Format::Differencing => DiskType::Differencing,
                _ => DiskType::Dynamic,
            };
            let counts = write_changes(&reader, &mut image, chain, options)?;
            if let (Some(footer), Some(vhd)) = (footer, image.vhd_mut()) {
                vhd.set_footer(&Footer::for_disk(
                    disk_type,
                    chain.target_size(),
                    Some(&footer),
                ));
            }
            image.flush()?;
            Ok(counts)
        }
    }
}

/// Raw images and fixed VHDs: the file is opened as plain bytes, because a crash may have left it without a
/// footer where it is looked for.
fn redo_flat(
    path: &Path,
    base_size: u64,
    chain: &Chain,
    footer: Option<Footer>,
    options: ApplyOptions<'_>,
) -> Result<(u64, u64)> {
    let file = File::open_writable(path)?;
    let (len, size) = (file.byte_len()?, chain.target_size());
    if len < size {
        file.set_len(size)?;
    }
    if footer.is_some() && base_size < size {
        // Where the old footer stood, and whatever there was before it, there is disk now.
        file.write_zeros_at(base_size..size.min(len).max(base_size))?;
    }
    let reader = RawImage::with_size(file.try_clone()?, size);
    let mut image = RawImage::with_size(&file, size);
    let counts = write_changes(&reader, &mut image, chain, options)?;
    match footer {
        None => file.set_len(size)?,
        Some(footer) => {
            // A disk of the same size keeps its footer where it was, even with slack before it.
            let at = if base_size == size {
                last_page(len).max(size)
            } else {
                size
            };
            file.write_all_at(&footer.encode(), at)?;
            file.set_len(at + FOOTER_SIZE as u64)?;
        }
    }
    file.sync()?;
    Ok(counts)
}

/// Where the last page begins in a file of `len` bytes; footers of 511 bytes occur.
fn last_page(len: u64) -> u64 {
    let last = len.saturating_sub(1);
    last - last % FOOTER_SIZE as u64
}

fn count(base: &dyn Image, chain: &Chain, options: ApplyOptions<'_>) -> Result<(u64, u64)> {
    let (mut updated, mut cleared) = (0, 0);
    options
        .progress
        .begin("counting", base.virtual_size().max(chain.target_size()));
    Layers::new(base, chain, options.workers, options.progress).changes(
        Ok,
        |change: WindowChange| {
            updated += change.changes.bytes(ChangeKind::Update);
            cleared += change.changes.bytes(ChangeKind::Clear);
            Ok(())
        },
    )?;
    Ok((updated, cleared))
}

/// Reads the result back: all of it if its `digest` is known. `Ok(true)` if it is right, `Ok(false)` never: what is wrong is an error.
fn verify(
    path: &Path,
    format: Format,
    chain: &Chain,
    digest: Option<ContentDigest>,
    options: ApplyOptions<'_>,
) -> Result<bool> {
    let hint = format!(
        "the journal still stands: take the apply back with: vhd-apply --rollback {}",
        path.display()
    );
    let image = open(path, Some(FormatChoice::Only(format)), false, options)?;
    if let Some(expected) = digest {
        options.progress.begin("verifying", image.virtual_size());
        let found = content_digest(&image, options.workers, options.progress)?;
        return read_back(path, found, expected)
            .map(|()| true)
            .map_err(|error| error.hint(hint));
    }
    // Without a digest, what the diffs change is compared page by page.
    if count(&image, chain, options)? == (0, 0) {
        return Ok(true);
    }
    Err(Error::damaged("what was read back is not what was written")
        .path(path)
        .hint(hint))
}

fn write_journal(
    journal: &Path,
    base: &OpenImage,
    chain: &Chain,
    digest: Option<ContentDigest>,
    options: ApplyOptions<'_>,
) -> Result<()> {
    let file = AtomicFile::new(journal)?;
    write_inverse(&file, base, chain, digest, options)?;
    file.publish(Overwrite::No)
}

/// Writes the diff from the chain's result back to the base.
fn write_inverse(
    file: &AtomicFile,
    base: &OpenImage,
    chain: &Chain,
    digest: Option<ContentDigest>,
    options: ApplyOptions<'_>,
) -> Result<()> {
    let header = DiffHeader {
        base_size: chain.target_size(),
        target_size: base.virtual_size(),
        program: Some(PROGRAM.to_owned()),
        base: chain
            .last()
            .map(|diff| diff.header().target.clone())
            .unwrap_or_default(),
        target: side_of(base),
        undoes: chain.identities(),
    };
    // It holds what the base held: nobody else may read it.
    file.file().take_permissions_of(base.file())?;
    let out = BufWriter::with_capacity(1 << 20, file.file().appender());
    let mut writer = DiffWriter::new(out, file.file().path(), &header)?;
    options.progress.begin(
        "writing the undo journal",
        base.virtual_size().max(chain.target_size()),
    );
    Layers::new(base, chain, options.workers, options.progress).inverse(
        |change| pack(change, Compression::default()),
        |frame| writer.push(&frame),
    )?;
    // Only from the right base does the chain lead to its target.
    let result = chain.target_digest().filter(|_| digest.is_some());
    writer.finish(result, digest)?;
    Ok(())
}

fn open_journal(path: &Path, options: ApplyOptions<'_>) -> Result<(Chain, Format)> {
    let journal = open_diff(path, options.progress).map_err(|error| match error.kind() {
        ErrorKind::Damaged | ErrorKind::Usage => error.hint(
            "the undo journal can't be used, and the image may be between two points in time: make it again from a \
             good copy, then remove the journal",
        ),
        _ => error,
    })?;
    let format = format_of(&journal.header().target).ok_or_else(|| {
        Error::damaged("the undo journal doesn't say what format its image has").path(path)
    })?;
    Ok((Chain::new(vec![journal])?, format))
}

/// Keeps or removes the journal: from now on the new point in time is what the image holds.
fn close_journal(journal: &Path, undo: Option<&Path>) -> Result<()> {
    if let Some(undo) = undo {
        match fs::rename(journal, undo) {
            Ok(()) => sync_folder_of(undo)?,
            Err(e) if e.kind() == IoKind::CrossesDevices => {
                let copy = AtomicFile::new(undo)?;
                let mut source = fs::File::open(journal)
                    .map_err(|e| Error::io("cannot open", e).path(journal))?;
                std::io::copy(&mut source, &mut copy.file().appender())
                    .map_err(|e| Error::io("cannot copy the undo diff", e).path(undo))?;
                copy.publish(Overwrite::No)?;
                remove(journal)?;
            }
            Err(e) => return Err(Error::io("cannot keep the undo diff", e).path(undo)),
        }
    } else {
        remove(journal)?;
    }
    sync_folder_of(journal)
}

fn remove(path: &Path) -> Result<()> {
    fs::remove_file(path).map_err(|e| Error::io("cannot remove the undo journal", e).path(path))
}

/// Finds out before anything is written whether the undo diff can be kept at `undo`.
fn check_undo(undo: &Path, journal: &Path) -> Result<()> {
    let hint = "choose another name or remove it first";
    if fs::symlink_metadata(undo).is_ok() {
        return Err(Error::usage("the file for the undo diff exists already")
            .path(undo)
            .hint(hint));
    }
    let folder = undo
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let folder = fs::canonicalize(folder.unwrap_or(Path::new("."))).ok();
    let place = folder
        .zip(undo.file_name())
        .map(|(folder, name)| folder.join(name));
    if place.as_deref() == Some(journal) {
        return Err(
            Error::usage("the undo diff can't have the name of the undo journal")
                .path(undo)
                .hint("choose another name"),
        );
    }
    // The journal becomes the undo diff at the very end, which is too late to find out that it can't.
    AtomicFile::begin(undo, Overwrite::No).map(drop)
}

fn lock(path: &Path, shared: bool) -> Result<File> {
    let file = if shared {
        File::open(path)?
    } else {
        File::open_writable(path)?
    };
    if shared {
        file.lock_shared()?;
    } else {
        file.lock_exclusive()?;
    }
    Ok(file)
}

fn open(
    path: &Path,
    format: Option<FormatChoice>,
    writable: bool,
    options: ApplyOptions<'_>,
) -> Result<OpenImage> {
    // The lock is held by whoever calls, and the journal is this module's own.
    open_image(
        path,
        &OpenOptions {
            format,
            writable,
            no_lock: true,
            ignore_journal: true,
            parents: options.parents.clone(),
            io: IoPolicy::default(),
        },
    )
}
