//! Writing what a chain of diffs changes, and checking the result.

use std::path::Path;

use super::options::ApplyOptions;
use crate::diff::{Applier, Chain, ChangeMap, Touched, WindowChange};
use crate::error::{Error, Result};
use crate::files::diffs::target_footer;
use crate::image::{ContentDigest, Image, ImageMut};
use crate::page::ChangeKind;
use crate::remedy::{Choice, Remedy, Step};
use crate::vhd::Footer;

/// How the pages to change are determined.
pub(in crate::files) enum Changes<'a> {
    /// By comparing the pages of the diffs with `base` or, if that is `None`, with the image being written. With
    /// `check`, these pages are also compared with what the diffs expect, and the caller examines the outcome.
    Compared {
        /// Another image with the same contents.
        base: Option<&'a dyn Image>,
        /// Whether to compare them with what the diffs expect.
        check: bool,
    },
    /// An earlier pass determined and checked them; only the diffs are read.
    Known(ChangeMap),
}

/// Writes the chain's changes to `image`, which `itself` reads. Returns the bytes updated and cleared and, if
/// requested, the result of comparing the base with what the diffs expect.
pub(in crate::files) fn write_changes(
    itself: &dyn Image,
    image: &mut dyn ImageMut,
    chain: &Chain,
    which: Changes<'_>,
    options: ApplyOptions<'_>,
) -> Result<(u64, u64, Touched)> {
    let (mut updated, mut cleared) = (0, 0);
    let write = |change: WindowChange| {
        updated += change.changes.bytes(ChangeKind::Update);
        cleared += change.changes.bytes(ChangeKind::Clear);
        change.write_to(image)
    };
    let base = match which {
        Changes::Compared { base, .. } => base.unwrap_or(itself),
        Changes::Known(_) => itself,
    };
    options
        .work
        .progress
        .begin("applying", base.virtual_size().max(chain.target_size()));
    let layers = Applier::new(base, chain, options.work.workers, options.work.progress);
    let touched = match which {
        Changes::Compared { check, .. } => layers.checking(check).changes(Ok, write)?,
        Changes::Known(known) => {
            layers.change_map(known, write)?;
            Touched::default()
        }
    };
    Ok((updated, cleared, touched))
}

/// The bytes that the chain updates and clears in `base`, and with `check` what looking under them showed.
pub(in crate::files) fn count_changes(
    base: &dyn Image,
    chain: &Chain,
    check: bool,
    options: ApplyOptions<'_>,
) -> Result<(u64, u64, Touched)> {
    let (mut updated, mut cleared) = (0, 0);
    options
        .work
        .progress
        .begin("counting", base.virtual_size().max(chain.target_size()));
    let touched = Applier::new(base, chain, options.work.workers, options.work.progress)
        .checking(check)
        .changes(Ok, |change: WindowChange| {
            updated += change.changes.bytes(ChangeKind::Update);
            cleared += change.changes.bytes(ChangeKind::Clear);
            Ok(())
        })?;
    Ok((updated, cleared, touched))
}

/// The footer whose identity the result adopts: that of the target, otherwise that of the base.
pub(in crate::files) fn identity(chain: &Chain, before: Option<Footer>) -> Result<Option<Footer>> {
    let Some(last) = chain.last() else {
        return Ok(before);
    };
    let footer = target_footer(last.header()).map_err(|error| error.with_path(last.name()))?;
    Ok(footer.or(before))
}

/// Compares the result with the last diff's target.
pub(in crate::files) fn check_result(
    path: &Path,
    chain: &Chain,
    found: ContentDigest,
) -> Result<()> {
    match chain.target_digest() {
        Some(expected) if expected != found => {
            Err(Error::damaged("the result is not the target of the diff")
                .with_path(path)
                .with_field("content digest")
                .with_found(found)
                .with_expected(expected)
                .with_remedy(
                    Remedy::new(
                        "nothing was written; the base differs outside the changed pages (",
                    )
                    .named("check it without ")
                    .step(Step::Choose(Choice::CheckTouched), "have all of it checked")
                    .text("), or the memory of this machine is failing"),
                ))
        }
        _ => Ok(()),
    }
}

/// Compares the data read back with the data written.
pub(in crate::files) fn read_back(
    path: &Path,
    found: ContentDigest,
    expected: ContentDigest,
) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(
        Error::damaged("the data read back differs from the data written")
            .with_path(path)
            .with_field("content digest")
            .with_found(found)
            .with_expected(expected)
            .with_hint("the device or the memory may be failing: check both before trying again"),
    )
}
