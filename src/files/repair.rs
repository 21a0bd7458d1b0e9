//! Checking and repairing files: locks, what is saved first, and the way back.

use std::path::{Path, PathBuf};

use super::ParentOptions;
use super::parent_lookup::ParentLookup;
use super::pending::refuse_pending;
use super::probe::refuse_foreign;
use super::saved::{self, Saved};
use crate::error::{Error, Result, quoted};
use crate::storage::{Access, File, refuse_part_of_store};
use crate::vhd::{CheckOptions, Fix, RepairPlan, Report, check};

/// Checks the file at `path`, and looks for the parents of a differencing VHD as `parents` allows. A raw image has
/// next to nothing to check.
///
/// # Errors
///
/// Only when the file can't be read, is in a format that is not read here, is locked by a writer or was changed
/// meanwhile.
pub fn check_file(
    path: &Path,
    options: &CheckOptions<'_>,
    parents: &ParentOptions,
) -> Result<Report> {
    let file = File::open_locked(path, Access::Read)?;
    refuse_pending(path)?;
    refuse_foreign(&file, None)?;
    let stamp = file.stamp()?;
    let chain = ParentLookup::new(path, parents);
    let options = CheckOptions {
        chain: Some(&chain),
        ..*options
    };
    let report = check(&file, &options)?;
    file.check_unchanged(&stamp)?;
    Ok(report)
}

/// What became of a repair.
#[derive(Debug)]
#[non_exhaustive]
pub struct Repaired {
    /// What was found before it.
    pub before: Report,
    /// What was mended, or would be.
    pub mends: Vec<Fix>,
    /// Where the replaced bytes are, if anything was mended.
    pub saved: Option<PathBuf>,
    /// What is found after it; `None` if nothing was written.
    pub after: Option<Report>,
}

/// Checks the file at `path` and mends what can be mended without loss; with `dry_run` it only says what it would
/// do. The bytes that are replaced are saved beside the file first, and brought to stable storage.
///
/// # Errors
///
/// When the file can't be read or written, or is in use. An interrupted repair is finished by the next one.
pub fn repair(
    path: &Path,
    options: &CheckOptions<'_>,
    parents: &ParentOptions,
    dry_run: bool,
) -> Result<Repaired> {
    let access = if dry_run { Access::Read } else { Access::Write };
    refuse_part_of_store(path)?;
    let file = File::open_locked(path, access)?;
    refuse_pending(path)?;
    refuse_foreign(&file, None)?;
    if file.is_block_device() && !dry_run {
        return Err(Error::usage(
            "a device is not repaired in place, for its length can't be changed",
        )
        .with_path(path)
        .with_hint("convert its content to a new file"));
    }
    let chain = ParentLookup::new(path, parents);
    let options = &CheckOptions {
        chain: Some(&chain),
        ..*options
    };
    let before = check(&file, options)?;
    let plan = RepairPlan::new(&before);
    let mut repaired = Repaired {
        before,
        mends: plan.mends().to_vec(),
        saved: None,
        after: None,
    };
    if plan.is_empty() || dry_run {
        return Ok(repaired);
    }
    let ranges = plan.old_ranges();
    let what = Saved {
        ranges: &ranges,
        old_len: plan.old_len(),
        new_len: plan.new_len(),
    };
    let saved = saved::save(&file, &what)?;
    plan.apply(&file).map_err(|error| {
        error.with_hint(format!(
            "run the same command again to finish the repair, or take it back with: vhd check --take-back {} {}",
            quoted(&saved),
            quoted(path)
        ))
    })?;
    repaired.saved = Some(saved);
    repaired.after = Some(check(&file, options)?);
    Ok(repaired)
}

/// Takes a repair of the file at `path` back: the bytes in the file `saved` are put where they were.
///
/// # Errors
///
/// [`Damaged`](crate::error::ErrorKind::Damaged) if `saved` isn't whole, [`Mismatch`](crate::error::ErrorKind::Mismatch)
/// if it doesn't fit the image; nothing is written then.
pub fn take_back(path: &Path, saved: &Path) -> Result<()> {
    let file = File::open_locked(path, Access::Write)?;
    refuse_pending(path)?;
    saved::put_back(&file, saved)
}
