//! Bringing snapshots of a managed disk to a target.

use std::collections::BTreeMap;
use std::path::Path;

use super::plan::{Step, Way, family_of};
use super::target::{AddedPoint, PointTarget, SNAPSHOT_ID};
use crate::blob::{BlobFile, Since};
use crate::cloud::{Access, Cloud, Family, Resource};
use crate::error::{Error, ErrorKind, Result};
use crate::files::{BlobImage, ChangedRanges, Claim, Format, Opened as _};
use crate::page::PageRange;
use crate::snapshot::{NewPoint, Work};

/// The longest request.
const REQUEST: u64 = 4 << 20;

/// Gaps that are read with what is around them.
const GAP: u64 = 128 << 10;

/// A snapshot that was brought.
#[derive(Debug)]
pub struct BroughtPoint {
    /// The point.
    pub point: AddedPoint,
    /// Bytes that the service listed as changed; `None` if everything was read.
    pub listed: Option<u64>,
    /// Why everything was read and compared, although there was a point before.
    pub compared: Option<String>,
}

/// What bringing a snapshot will take, approximately.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Needed {
    /// Bytes that are read.
    pub bytes: u64,
    /// Requests for them.
    pub requests: u64,
}

/// Brings these snapshots in their order, which is that of [`plan`](super::plan). Each is told to `brought` when it is there. What
/// was brought before an error stays.
///
/// `check` is the part of what the service doesn't list as changed that is compared all the same.
pub fn bring(
    cloud: &Cloud,
    (family, steps): (&Family, &[Step]),
    target: &mut dyn PointTarget,
    check: Option<f64>,
    work: Work<'_>,
    mut brought: impl FnMut(BroughtPoint),
) -> Result<()> {
    for step in steps {
        work.progress.check()?;
        let shown = Path::new(&step.snapshot.id);
        // It may have been deleted since it was listed.
        let now = still_there(cloud, &step.snapshot)?;
        let image = BlobImage::open(cloud.open(&now, Access::Read, shown)?, None, None)?;
        let (changes, compared) = changes(cloud, step, &image)?;
        let listed = changes.as_ref().map(bytes_of);
        let claim = changes.map(|list| (Claim { list, check }, seed()));
        let new = NewPoint {
            name: step.name.clone(),
            time: Some(step.time),
            family: family_of(family),
            tags: tags_of(&step.snapshot),
            claim,
            ..NewPoint::default()
        };
        let after = target.points()?.pop();
        let after = after.map(|point| point.id);
        let point = target.add(after.as_deref(), &image, &new, work)?;
        brought(BroughtPoint {
            point,
            listed,
            compared,
        });
    }
    Ok(())
}

/// Requests the current description of a snapshot that was listed before.
///
/// # Errors
///
/// [`Changed`](ErrorKind::Changed) if it was deleted meanwhile.
pub fn still_there(cloud: &Cloud, snapshot: &Resource) -> Result<Resource> {
    cloud.refresh(snapshot).map_err(|error| match error.kind() {
        ErrorKind::Usage => Error::new(ErrorKind::Changed, "the snapshot was deleted since it was listed")
            .with_path(&snapshot.id)
            .with_hint("what was copied before it is there: run the command again, which goes on with those that are left"),
        _ => error,
    })
}

/// What changed since the snapshot before, as the service lists it; and why it doesn't.
fn changes(
    cloud: &Cloud,
    step: &Step,
    image: &BlobImage,
) -> Result<(Option<ChangedRanges>, Option<String>)> {
    let Some(before) = &step.before else {
        return Ok((None, step.way.reason().map(str::to_owned)));
    };
    if image.format() == Format::Dynamic {
        return Ok((None, Some("the image isn't a fixed VHD".to_owned())));
    }
    match list(cloud, before, image.blob()) {
        Ok(list) => Ok((Some(list), None)),
        // The service knows that it can't tell; or the one before has gone meanwhile.
        Err(error) if matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::Usage) => {
            Ok((None, Some(error.to_string())))
        }
        Err(error) => Err(error),
    }
}

/// Access to the snapshot before is granted for as long as it takes to list the changes.
fn list(cloud: &Cloud, before: &Resource, this: &BlobFile) -> Result<ChangedRanges> {
    let now = cloud.refresh(before)?;
    let before = cloud.open(&now, Access::Read, Path::new(&before.id))?;
    let name = before.granted().cloned().ok_or_else(|| {
        Error::internal("a managed disk that is open was granted").with_path(&now.id)
    })?;
    let pages = this.changes_since(&Since::Disk(Box::new(name)))?;
    Ok(ChangedRanges::of_ranges(
        pages.iter().map(|change| change.range).collect(),
    ))
}

fn bytes_of(list: &ChangedRanges) -> u64 {
    list.ranges()
        .iter()
        .map(|range| range.len())
        .fold(0, u64::saturating_add)
}

fn tags_of(snapshot: &Resource) -> BTreeMap<String, String> {
    let mut tags = BTreeMap::from([("azure-snapshot".to_owned(), snapshot.id.clone())]);
    if let Some(id) = &snapshot.unique_id {
        tags.insert(SNAPSHOT_ID.to_owned(), id.clone());
    }
    tags
}

fn seed() -> u64 {
    uuid::Uuid::new_v4().as_u64_pair().1
}

/// What bringing a snapshot will take. Access to it, and to the one before, is granted for a moment.
pub fn needed(cloud: &Cloud, step: &Step) -> Result<Needed> {
    let shown = Path::new(&step.snapshot.id);
    let image = BlobImage::open(cloud.open(&step.snapshot, Access::Read, shown)?, None, None)?;
    if step.way == Way::Changes
        && let (Some(changes), _) = changes(cloud, step, &image)?
    {
        return Ok(Needed {
            bytes: bytes_of(&changes),
            requests: requests(changes.ranges()),
        });
    }
    let bytes = image.blob().stored_bytes()?;
    Ok(Needed {
        bytes,
        requests: bytes.div_ceil(REQUEST),
    })
}

/// The requests that read these ranges: small gaps are read, too, and each window by itself.
fn requests(ranges: &[PageRange]) -> u64 {
    let (mut count, mut last): (u64, Option<(u64, u64)>) = (0, None);
    for range in ranges {
        let mut start = range.start();
        while start < range.end() {
            let window = start / REQUEST;
            let end = range.end().min((window + 1).saturating_mul(REQUEST));
            let joins =
                last.is_some_and(|(of, until)| of == window && start.saturating_sub(until) <= GAP);
            count += u64::from(!joins);
            last = Some((window, end));
            start = end;
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_windows_and_gaps() {
        let range = |start: u64, end: u64| PageRange::covering(start, end);
        for (ranges, expected) in [
            (vec![], 0),
            (vec![range(0, 512)], 1),
            (vec![range(0, 512), range(GAP, GAP + 512)], 1),
            (vec![range(0, 512), range(2 * GAP, 3 * GAP)], 2),
            (vec![range(REQUEST - 512, REQUEST + 512)], 2),
            (vec![range(0, 3 * REQUEST)], 3),
        ] {
            assert_eq!(requests(&ranges), expected, "{ranges:?}");
        }
    }
}
