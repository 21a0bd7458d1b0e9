//! The common ground of all strategies of an in-place apply: the checked base, the diffs for it, and the outcome.

use std::cell::RefCell;
use std::path::Path;

use crate::diff::{Chain, Touched};
use crate::error::{Error, Result};
use crate::files::apply::base_match::BaseMatch;
use crate::files::apply::options::{ApplyOptions, BaseChecked, Strategy};
use crate::files::kept::NewList;
use crate::files::open::open_file;
use crate::files::relatives::{Orphans, refuse_orphans};
use crate::files::state::set_stamp;
use crate::files::{Format, FormatChoice, OpenImage, OpenOptions};
use crate::image::ContentDigest;
use crate::storage::File;

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
    /// How to treat other images that have the base as their parent. An interrupted apply is finished in any case.
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

/// The input of all strategies: a checked base, and diffs for it.
pub(super) struct Job<'a> {
    pub(super) base: OpenImage,
    /// The base's file, with the lock.
    pub(super) lock: &'a File,
    /// The part of the chain that is still to be applied.
    pub(super) chain: Chain,
    pub(super) found: BaseMatch,
    /// The list of the window hashes of the result, if one is kept.
    pub(super) list: RefCell<Option<NewList>>,
    pub(super) how: InPlace<'a>,
    pub(super) options: ApplyOptions<'a>,
}

/// The outcome of a strategy.
pub(super) struct Done {
    pub(super) strategy: Strategy,
    pub(super) checked: BaseChecked,
    pub(super) updated: u64,
    pub(super) cleared: u64,
    pub(super) verified: bool,
    pub(super) stamped: bool,
    pub(super) lost: Vec<String>,
}

impl Job<'_> {
    /// Fails if other images have the base as their parent, unless that is allowed.
    pub(super) fn refuse_orphans(&self) -> Result<()> {
        match self.how.orphans {
            Orphans::Refuse => refuse_orphans(&self.base, self.options.parents),
            Orphans::Allow => Ok(()),
        }
    }

    /// Returns whether the data under the changed pages still has to be compared with what the diffs expect.
    pub(super) fn check(&self) -> bool {
        self.found.is_open()
    }

    /// Returns how the base was checked, after that comparison; `None` if it already holds the result.
    pub(super) fn settle(&self, touched: &Touched) -> Result<Option<BaseChecked>> {
        self.found.settle(&self.base, &self.chain, touched)
    }

    /// The digest that the result has for certain: that of the data read back if it was `verified`, or the one
    /// predicted when the base was read.
    pub(super) fn certain_digest(&self, verified: bool) -> Option<ContentDigest> {
        let read_back = self.chain.target_digest().filter(|_| verified);
        read_back.or(self.found.target)
    }

    /// Stamps the result in `file`, which is on stable storage, if its digest is certain, and publishes the list of its
    /// window hashes.
    pub(super) fn stamp(&self, file: &File, verified: bool) -> Result<bool> {
        let list = self.list.borrow_mut().take();
        let digest = self.certain_digest(verified);
        stamp(file, self.base.format(), digest, self.options, list)
    }
}

/// Opens the image in `file`. The caller holds the lock on it, or on the file that it will replace. A journal next to
/// it is this module's own.
pub(super) fn open(
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
pub(super) fn open_settled(
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
pub(super) fn stamp(
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
