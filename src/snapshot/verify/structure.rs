//! Checks that the file of each snapshot exists and continues the previous one, without reading its data.

use std::collections::HashSet;
use std::path::Path;

use super::findings::Look;
use crate::error::{Error, Result};
use crate::files::{ParentOptions, check_file, open_image};
use crate::image::{ContentDigest, Image as _};
use crate::remedy::{Act, Choice, Remedy, SnapshotJob, Step};
use crate::snapshot::file_names::is_part;
use crate::snapshot::layout::{NEW, base_options};
use crate::snapshot::point::open_diff;
use crate::snapshot::{Disk, Manifest, PointFileName, Work};
use crate::storage::{File, ReadAt as _};
use crate::vhd::{CheckOptions, Severity};

/// Checks every snapshot's own file, and that what it depends on exists. Each is checked once.
pub(super) fn all(look: &mut Look<'_>, work: Work<'_>) -> Result<()> {
    let disk = look.disk;
    for point in disk.points() {
        work.progress.check()?;
        let whole = structure(disk, point).and_then(|()| {
            if let Some(like) = &point.like {
                return disk.below(like).map(drop);
            }
            // Its other dependencies were checked before it.
            if point.is_base() || disk.parent_of(point).is_some() {
                Ok(())
            } else {
                Err(disk.orphan(point))
            }
        });
        if let Err(error) = whole {
            look.add(point, error)?;
        }
    }
    Ok(())
}

/// Checks that the file of a snapshot exists and continues the previous one, if there is one, without reading its data.
pub(in crate::snapshot) fn structure(disk: &Disk, point: &Manifest) -> Result<()> {
    let path = disk.data_path(point)?;
    let file = File::open(&path)?;
    let len = file.byte_len()?;
    let cut = || {
        Error::damaged("the file doesn't have the length that its manifest gives")
            .with_path(&path)
            .with_found(format_args!("{len} bytes"))
            .with_expected(format_args!("{} bytes", point.data.length))
            .override_remedy(disk.repair_remedy())
    };
    if point.is_base() && !point.is_packed() {
        let image = open_image(&path, &base_options(&path))?;
        if image.virtual_size() != point.virtual_size || len != point.data.length {
            return Err(cut());
        }
        return check_base(&path);
    }
    if len != point.data.length {
        return Err(cut());
    }
    let diff = open_diff(disk, point)?;
    let Some(before) = disk.parent_of(point) else {
        return Ok(());
    };
    let expected = Some(before.content_digest);
    if diff.trailer().base_digest == expected {
        return Ok(());
    }
    let show = |digest: Option<ContentDigest>| {
        digest.map_or_else(|| "none".to_owned(), |digest| digest.to_string())
    };
    Err(
        Error::damaged("this diff isn't based on the previous snapshot")
            .with_path(&path)
            .with_field("base digest")
            .with_found(show(diff.trailer().base_digest))
            .with_expected(show(expected))
            .override_remedy(disk.repair_remedy()),
    )
}

/// Fails if the structures of a base are damaged.
pub(in crate::snapshot) fn check_base(path: &Path) -> Result<()> {
    if base_options(path).format.is_some() {
        // A raw image is nothing but its bytes.
        return Ok(());
    }
    let report = check_file(path, &CheckOptions::default(), &ParentOptions::default())?;
    let mut findings = report.findings.iter();
    match findings.find(|f| f.severity() != Severity::Warning) {
        None => Ok(()),
        Some(finding) => Err(Error::damaged("the base is damaged")
            .with_path(path)
            .with_field(&finding.field)
            .with_offset(finding.offset)
            .with_found(&finding.found)
            .with_expected(&finding.expected)
            .with_remedy(
                Remedy::new("for details: ")
                    .step(Step::Do(Act::Check, path.to_path_buf()), "check that file"),
            )),
    }
}

/// Reports files that don't belong to any snapshot.
pub(super) fn strays(look: &mut Look<'_>) {
    let disk = look.disk;
    let going: HashSet<PointFileName> = disk.going.iter().map(Manifest::stem).collect();
    for name in disk.names.iter() {
        let Some((stem, ending)) = PointFileName::parse(name) else {
            continue;
        };
        let manifest = stem.manifest();
        let known = ending == ".json"
            || ending.ends_with(NEW)
            || is_part(ending)
            || disk.names.contains(&format!("{manifest}.part"))
            || disk.names.contains(&manifest)
            || going.contains(&stem)
            // Its manifest is in what an interrupted command left.
            || disk.points.named(&stem.name).is_some_and(|point| point.stem() == stem);
        if !known {
            let error = Error::damaged("this file has no manifest")
                .with_path(disk.path(name))
                .with_remedy(
                    Remedy::new("rebuild the manifest, from another store")
                        .named(" (")
                        .step(Step::Choose(Choice::FromStore), "")
                        .named(")")
                        .text(" if necessary, or give the snapshot up")
                        .named(" with ")
                        .step(Step::Choose(Choice::Drop), "")
                        .text(": ")
                        .step(disk.step(SnapshotJob::Repair), "a repair does either"),
                );
            look.lacks_manifest = true;
            look.tell(error, vec![stem.name]);
        }
    }
}
