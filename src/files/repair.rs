//! Checking and repairing files: locks, saving the replaced data first, and undoing.

use std::path::{Path, PathBuf};

use super::ParentOptions;
use super::parent_lookup::ParentLookup;
use super::pending::refuse_pending;
use super::probe::refuse_foreign;
use super::saved::{self, Saved};
use crate::error::{Error, Result};
use crate::remedy::{Remedy, Step};
use crate::storage::{Access, File, refuse_part_of_store};
use crate::vhd::{CheckOptions, Fix, RepairPlan, Report, check};

/// Checks the file at `path`, and looks for the parents of a differencing VHD as `parents` allows. A raw image has
/// hardly anything to check.
///
/// # Errors
///
/// Fails only if the file can't be read, has an unsupported format, is locked by a writer or was changed meanwhile.
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

/// The outcome of a repair.
#[derive(Debug)]
#[non_exhaustive]
pub struct Repaired {
    /// The findings before it.
    pub before: Report,
    /// The repairs that were made, or would be.
    pub mends: Vec<Fix>,
    /// The file with the replaced bytes, if anything was repaired.
    pub saved: Option<PathBuf>,
    /// The findings after it; `None` if nothing was written.
    pub after: Option<Report>,
}

/// Checks the file at `path` and repairs what can be repaired without loss. With `dry_run`, only reports what it would
/// do. The replaced bytes are saved to a file next to the image first, on stable storage.
///
/// # Errors
///
/// Fails if the file can't be read or written, or is in use. Repeating an interrupted repair finishes it.
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
        let back = Step::TakeRepairBack {
            saved: saved.clone(),
            image: path.to_path_buf(),
        };
        error.override_remedy(
            Remedy::new("run the same command again to finish the repair, or take it back")
                .named(" with: ")
                .step(back, " by the bytes that it saved"),
        )
    })?;
    repaired.saved = Some(saved);
    repaired.after = Some(check(&file, options)?);
    Ok(repaired)
}

/// Undoes a repair of the file at `path` by restoring the bytes in the file `saved`.
///
/// # Errors
///
/// [`Damaged`](crate::error::ErrorKind::Damaged) if `saved` isn't intact, [`Mismatch`](crate::error::ErrorKind::Mismatch)
/// if it doesn't fit the image, [`Usage`](crate::error::ErrorKind::Usage) if it belongs to somebody who may not write
/// the image; nothing is written in these cases.
pub fn take_back(path: &Path, saved: &Path) -> Result<()> {
    refuse_part_of_store(path)?;
    let file = File::open_locked(path, Access::Write)?;
    refuse_pending(path)?;
    saved::put_back(&file, saved)
}
