//! Applying diffs to a base in place, such that one command always suffices to reach the old or the new point in time.
//!
//! ```text
//!   lock ─► check everything ─┬─► by the undo journal (journal.rs)
//!                             │     journal: write, sync, name, sync ─► base: write, sync ─► journal: remove, sync
//!                             │              └──────── while it stands, every command refuses the base ────────┘
//!                             └─► by replacing the base (replace.rs)
//!                                   clone or copy: make, write, sync ─► name it as the base, sync
//! ```
//!
//! | file | has |
//! | --- | --- |
//! | `device.rs` | what can be applied to a block device |
//! | `journal.rs` | applying behind an undo journal: a diff from the new point in time back to the old one |
//! | `replace.rs` | applying to a clone or a copy that then replaces the base |
//! | `recover.rs` | finishing what was interrupted while a journal stands, or taking it back |
//! | `undo.rs` | the inverse diff, which serves as the journal and for `--undo` |
//! | `redo.rs` | writing an image so that it holds the result, and reading it back |
//!
//! All writing goes through [`redo`](redo::redo), which only writes data of the result, so it can be repeated from any
//! intermediate state.

use std::cell::RefCell;
use std::path::Path;

use super::apply::{Applied, ApplyOptions};
use super::base_match::{BaseMatch, fit};
use super::kept::{self, NewList};
use super::open::{beginning_of, open_file};
use super::pending::{
    exists, journal_of, journal_path, merge_diff_path, refuse_foreign, refuse_pending,
};
use super::relatives::{Orphans, refuse_orphans};
use super::state::set_stamp;
use super::{BaseChecked, Format, FormatChoice, OpenImage, OpenOptions};
use crate::diff::{Chain, Touched};
use crate::error::{Error, Result};
use crate::image::ContentDigest;
use crate::storage::{Access, File, ReadAt as _, refuse_part_of_store};

mod device;
mod journal;
mod recover;
mod redo;
mod replace;
mod undo;

pub use recover::roll_back;

/// Options specific to an in-place apply.
#[derive(Clone, Copy, Default)]
pub struct InPlace<'a> {
    /// The format of the base, unless it is to be detected.
    pub format: Option<FormatChoice>,
    /// How it is done. By default on a clone if that loses nothing, otherwise with an undo journal.
    pub strategy: Option<Strategy>,
    /// Where to keep the diff that undoes the apply.
    pub undo: Option<&'a Path>,
    /// Check everything, but write nothing.
    pub dry_run: bool,
    /// Whether to fill all holes of the file at the end.
    pub dense: bool,
    /// What to do if other images have the base as their parent. An interrupted apply is finished in any case.
    pub orphans: Orphans,
    /// Receives warnings about the base or its parents.
    pub warn: Option<&'a (dyn Fn(&Error) + Sync)>,
}

impl std::fmt::Debug for InPlace<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InPlace")
            .field("format", &self.format)
            .field("strategy", &self.strategy)
            .field("undo", &self.undo)
            .field("dry_run", &self.dry_run)
            .field("dense", &self.dense)
            .field("orphans", &self.orphans)
            .finish_non_exhaustive()
    }
}

/// How an in-place apply ensures that the base can always be brought to the old or the new point in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    /// The diffs are applied to a clone, which then replaces the base.
    Clone,
    /// As [`Clone`](Self::Clone), with a full copy.
    Copy,
    /// The base itself is written, with an undo journal.
    Journal,
}

impl Strategy {
    /// `clone`, `copy` or `journal`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Clone => "clone",
            Self::Copy => "copy",
            Self::Journal => "journal",
        }
    }
}

/// The input of all strategies: a checked base, and diffs for it.
struct Job<'a> {
    base: OpenImage,
    /// The base's file, with the lock.
    lock: &'a File,
    /// The part of the chain that is still to be applied.
    chain: Chain,
    found: BaseMatch,
    /// The list of the window hashes of the result, if one is kept.
    list: RefCell<Option<NewList>>,
    how: InPlace<'a>,
    options: ApplyOptions<'a>,
}

/// The outcome of a strategy.
struct Done {
    strategy: Strategy,
    checked: BaseChecked,
    updated: u64,
    cleared: u64,
    verified: bool,
    stamped: bool,
    lost: Vec<String>,
}

/// Applies `chain` to the image at `path` in place, or finishes the same apply after an interruption.
pub fn apply_in_place(
    path: &Path,
    chain: Chain,
    how: InPlace<'_>,
    options: ApplyOptions<'_>,
) -> Result<Applied> {
    how.undo.map_or(Ok(()), |place| {
        undo::check_place(place, &journal_path(path), &chain)
    })?;
    let access = if how.dry_run {
        Access::Read
    } else {
        Access::Write
    };
    refuse_part_of_store(path)?;
    let lock = File::open_locked(path, access)?;
    apply_locked(&lock, chain, how, options)
}

/// Locks the image at `path` and applies the diffs that `make` returns for it, or nothing if that is `None`. An
/// interrupted apply is undone first; an interrupted merge is refused. If the image is on a device larger than `size`,
/// only the beginning of the device is used.
pub fn apply_made_in_place(
    path: &Path,
    size: u64,
    make: impl FnOnce(&OpenImage) -> Result<Option<Chain>>,
    how: InPlace<'_>,
    options: ApplyOptions<'_>,
) -> Result<Option<Applied>> {
    if exists(&journal_path(path))? {
        if exists(&merge_diff_path(path))? {
            refuse_pending(path)?;
        }
        roll_back(path, options)?;
    }
    let lock = File::open_locked(path, Access::Write)?;
    refuse_pending(path)?;
    let base = beginning_of(open_settled(&lock, how.format, options)?, size)?;
    let chain = make(&base)?;
    drop(base);
    chain
        .map(|chain| apply_locked(&lock, chain, how, options))
        .transpose()
}

/// As [`apply_in_place`], for a caller that holds the lock on the base.
pub(super) fn apply_locked(
    lock: &File,
    chain: Chain,
    how: InPlace<'_>,
    options: ApplyOptions<'_>,
) -> Result<Applied> {
    let keeping = how.dense.then(|| lock.keeping_space());
    let lock = keeping.as_ref().unwrap_or(lock);
    let journal = journal_of(lock)?;
    if !how.dry_run {
        refuse_foreign(lock)?;
    }
    if exists(&journal)? {
        return recover::finish(lock, &journal, chain, how, options);
    }
    if !how.dry_run {
        replace::remove_leftovers_of(lock);
    }
    let mut base = open_settled(lock, how.format, options)?;
    if let Some(warn) = how.warn {
        base.chain().flat_map(OpenImage::warnings).for_each(warn);
    }
    let part = device::part(&base, &chain)?;
    let behind = match &part {
        Some(part) => base.file().byte_len()? - part.byte_len()?,
        None => 0,
    };
    if let Some(part) = &part {
        base = open(part, Some(FormatChoice::Only(Format::Raw)), false, options)?;
    }
    let lock = part.as_ref().unwrap_or(lock);
    // An existing list is kept up to date.
    let mut list = if how.dry_run {
        None
    } else {
        kept::find(&base).and_then(|_| NewList::begin(&base, chain.target_size()))
    };
    let found = fit(&base, &chain, options, &mut list)?;
    let diffs = chain.diffs().len();
    let applied = Applied {
        target_digest: chain
            .target_digest()
            .or(found.target)
            .or(found.digest.filter(|_| found.already == diffs)),
        behind,
        ..Applied::nothing(found.already, found.checked, &chain)
    };
    let Some(chain) = chain.without_first(found.already) else {
        return Ok(applied);
    };
    let job = Job {
        base,
        lock,
        chain,
        found,
        list: RefCell::new(list),
        how,
        options,
    };
    let nothing_to_do = Applied {
        already: diffs,
        ..applied.clone()
    };
    if how.dry_run {
        let (updated, cleared, touched) = redo::count(&job)?;
        return Ok(match job.settle(&touched)? {
            None => nothing_to_do,
            Some(checked) => {
                job.refuse_orphans()?;
                Applied {
                    checked,
                    updated,
                    cleared,
                    ..applied
                }
            }
        });
    }
    job.refuse_orphans()?;
    job.base.check_unchanged()?;
    if let Some(vhd) = job.base.vhd() {
        vhd.check_resize(job.chain.target_size())?;
    }
    if job.how.dense {
        // A lower bound: the number of new blocks isn't known yet.
        let len = job.lock.byte_len()?;
        let flat = matches!(job.base.format(), Format::Raw | Format::Fixed);
        let size = job.chain.target_size();
        job.lock
            .check_room_for(if flat { len.max(size) } else { len })?;
    }
    let Some(done) = job.run()? else {
        return Ok(nothing_to_do);
    };
    Ok(Applied {
        strategy: Some(done.strategy),
        checked: done.checked,
        updated: done.updated,
        cleared: done.cleared,
        verified: done.verified,
        stamped: done.stamped,
        lost: done.lost,
        ..applied
    })
}

impl Job<'_> {
    /// Returns `None` if the base already holds the result.
    fn run(&self) -> Result<Option<Done>> {
        match self.how.strategy {
            Some(Strategy::Journal) => journal::apply(self),
            Some(strategy) => {
                let new = replace::begin(self, strategy)?;
                replace::apply(self, strategy, new)
            }
            None => match replace::begin_if_nothing_is_lost(self)? {
                Some(new) => replace::apply(self, Strategy::Clone, new),
                None => journal::apply(self),
            },
        }
    }

    /// Fails if other images have the base as their parent, unless that is allowed.
    fn refuse_orphans(&self) -> Result<()> {
        match self.how.orphans {
            Orphans::Refuse => refuse_orphans(&self.base, self.options.parents),
            Orphans::Allow => Ok(()),
        }
    }

    /// Returns whether the data under the changed pages still has to be compared with what the diffs expect.
    fn check(&self) -> bool {
        self.found.is_open()
    }

    /// Returns how the base was checked, after that comparison; `None` if it already holds the result.
    fn settle(&self, touched: &Touched) -> Result<Option<BaseChecked>> {
        self.found.settle(&self.base, &self.chain, touched)
    }

    /// The digest that the result has for certain: that of the data read back if it was `verified`, or the one
    /// predicted when the base was read.
    fn certain_digest(&self, verified: bool) -> Option<ContentDigest> {
        let read_back = self.chain.target_digest().filter(|_| verified);
        read_back.or(self.found.target)
    }

    /// Stamps the result in `file`, which is on stable storage, if its digest is certain, and publishes the list of its
    /// window hashes.
    fn stamp(&self, file: &File, verified: bool) -> Result<bool> {
        let list = self.list.borrow_mut().take();
        let digest = self.certain_digest(verified);
        stamp(file, self.base.format(), digest, self.options, list)
    }
}

/// Opens the image in `file`. The caller holds the lock on it, or on the file that it will replace. A journal next to
/// it is this module's own.
fn open(
    file: &File,
    format: Option<FormatChoice>,
    writable: bool,
    options: ApplyOptions<'_>,
) -> Result<OpenImage> {
    open_file(
        file.another_handle(),
        &OpenOptions {
            writable,
            ..open_options(format, options)
        },
    )
}

/// As [`open`], for reading, in a [settled](File::settle) state.
fn open_settled(
    file: &File,
    format: Option<FormatChoice>,
    options: ApplyOptions<'_>,
) -> Result<OpenImage> {
    open_file(
        file.another_handle(),
        &OpenOptions {
            settle: true,
            ..open_options(format, options)
        },
    )
}

fn open_options(format: Option<FormatChoice>, options: ApplyOptions<'_>) -> OpenOptions {
    OpenOptions {
        format,
        no_lock: true,
        ignore_journal: true,
        parents: options.parents.clone(),
        ..OpenOptions::default()
    }
}

/// Stamps the image in `file`, which is on stable storage, if it is certain to hold the disk with `digest`.
fn stamp(
    file: &File,
    format: Format,
    digest: Option<ContentDigest>,
    options: ApplyOptions<'_>,
    list: Option<NewList>,
) -> Result<bool> {
    let Some(digest) = digest else {
        return Ok(false);
    };
    let image = open_settled(file, Some(FormatChoice::Only(format)), options)?;
    let stamped = set_stamp(&image, digest)?;
    if let Some(list) = list.filter(|_| stamped) {
        list.publish(&image);
    }
    Ok(stamped)
}
