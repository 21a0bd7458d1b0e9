//! Which snapshots of a managed disk a target lacks, and how each of them is brought.

use super::target::HeldPoint;
use crate::cloud::{Family as Disk, Resource};
use crate::error::{Error, ErrorKind, Result};
use crate::snapshot::{Family, Time};

/// The service lists no changes between sizes on both sides of this.
const BOUNDARY: u64 = 4 << 40;

/// How a snapshot is brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// All of its data: it is the first.
    Base,
    /// What the service lists as changed since the one before.
    Changes,
    /// All of its data is read, and compared with the newest point of the target: the snapshot that this was brought from isn't
    /// there any more.
    ComparedWithoutPrevious,
    /// The same: the service lists no changes, as the disk grew past 4 TiB in between.
    ComparedPastBoundary,
}

impl Way {
    /// Why everything is read, if there is something to compare with.
    pub const fn reason(self) -> Option<&'static str> {
        match self {
            Self::Base | Self::Changes => None,
            Self::ComparedWithoutPrevious => Some(
                "the snapshot that the newest point of the target was brought from isn't there any more",
            ),
            Self::ComparedPastBoundary => {
                Some("the service lists no changes between sizes on both sides of 4 TiB")
            }
        }
    }
}

/// One snapshot to be brought.
#[derive(Debug, Clone)]
pub struct Step {
    /// The snapshot.
    pub snapshot: Resource,
    /// The one before, since which changes are listed.
    pub before: Option<Resource>,
    /// How it is brought.
    pub way: Way,
    /// The name of the point.
    pub name: String,
    /// Its time.
    pub time: Time,
}

/// The ids of a managed disk, as a store keeps them.
pub(super) fn family_of(disk: &Disk) -> Family {
    Family {
        source_resource_id: Some(disk.disk_id.clone()),
        source_unique_id: disk.unique_id.clone(),
    }
}

/// The snapshots of `disk` that a target with these points lacks, in the order of their creation. The second value is what ends
/// the list early: a snapshot that isn't complete yet.
///
/// # Errors
///
/// [`Mismatch`](ErrorKind::Mismatch) if the points are of another disk.
pub fn plan(disk: &Disk, held: &[HeldPoint]) -> Result<(Vec<Step>, Option<Error>)> {
    let newest = held.last();
    if let Some(newest) = newest {
        newest.family.join(&family_of(disk))?;
    }
    let place = newest.and_then(|newest| {
        let id = newest.snapshot_id()?;
        let same = |one: &Resource| one.unique_id.as_deref() == Some(id);
        disk.snapshots.iter().position(same)
    });
    let mut before: Option<&Resource> = place.and_then(|place| disk.snapshots.get(place));
    let first = place.map_or(0, |place| place + 1);
    let mut steps = Vec::new();
    for snapshot in disk.snapshots.iter().skip(first) {
        let created = snapshot.created.ok_or_else(|| {
            Error::unsupported("the service doesn't say when this snapshot was made")
                .with_path(&snapshot.id)
        })?;
        let time = Time::from_unix(created.as_second());
        // Points have whole seconds: of two snapshots of one second, the one that isn't held is the later one.
        let is_held = || {
            let id = snapshot.unique_id.as_deref();
            id.is_some() && held.iter().any(|point| point.snapshot_id() == id)
        };
        let is_later = place.is_some()
            || newest.is_none_or(|newest| time > newest.time || time == newest.time && !is_held());
        if !is_later {
            continue;
        }
        if !snapshot.is_complete() {
            return Ok((steps, Some(incomplete(snapshot))));
        }
        let way = match (before, newest) {
            (Some(before), _) if past_boundary(before, snapshot) => Way::ComparedPastBoundary,
            (Some(_), _) => Way::Changes,
            (None, Some(_)) => Way::ComparedWithoutPrevious,
            (None, None) => Way::Base,
        };
        steps.push(Step {
            name: name_of(snapshot, time, held, &steps),
            snapshot: snapshot.clone(),
            before: before.cloned().filter(|_| way == Way::Changes),
            way,
            time,
        });
        before = Some(snapshot);
    }
    Ok((steps, None))
}

fn past_boundary(before: &Resource, after: &Resource) -> bool {
    matches!((before.size, after.size), (Some(old), Some(new)) if (old < BOUNDARY) != (new < BOUNDARY))
}

pub(super) fn incomplete(snapshot: &Resource) -> Error {
    let percent = snapshot.percent.unwrap_or(0.0);
    Error::new(
        ErrorKind::Pending,
        "the snapshot isn't complete yet, so neither it nor a later one is copied",
    )
    .with_path(&snapshot.id)
    .with_found(format_args!("{percent:.0} %"))
    .with_expected("100 %")
    .with_hint("the service is still copying: run the command again later")
}

/// The name of the point: that of the snapshot, unless another point has it.
fn name_of(snapshot: &Resource, time: Time, held: &[HeldPoint], steps: &[Step]) -> String {
    let name = snapshot
        .name
        .trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
    let name: String = name
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || "._-".contains(*c))
        .collect();
    let taken = |name: &str| {
        let mut all = held
            .iter()
            .map(|point| point.name.as_str())
            .chain(steps.iter().map(|step| step.name.as_str()));
        all.any(|known| known == name)
    };
    if !name.is_empty() && !taken(&name) {
        return name;
    }
    // A snapshot that was deleted and made again under its name.
    let stamp = time.to_string().replace(['-', ':'], "");
    let short: String = name.chars().take(60).collect();
    if short.is_empty() {
        stamp
    } else {
        format!("{short}-{stamp}")
    }
}

#[cfg(test)]
mod tests {
    use super::super::target::SNAPSHOT_ID;
    use super::*;
    use std::collections::BTreeMap;

    fn disk(snapshots: &[(&str, f64, u64)]) -> Disk {
        let id = |name: &str| {
            format!(
                "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/snapshots/{name}"
            )
        };
        crate::cloud::Family::of(
            "/d",
            "u",
            snapshots
                .iter()
                .enumerate()
                .map(|(n, (name, percent, size))| {
                    Resource::snapshot(
                        &id(name),
                        &format!("id-{name}"),
                        i64::try_from(n + 1).unwrap() * 100,
                        *percent,
                        *size,
                    )
                })
                .collect(),
        )
    }

    fn held(name: &str, id: &str, time: i64) -> HeldPoint {
        HeldPoint {
            name: name.into(),
            id: name.into(),
            time: Time::from_unix(time),
            family: Family::default(),
            tags: BTreeMap::from([(SNAPSHOT_ID.to_owned(), id.to_owned())]),
            size: 1,
        }
    }

    fn planned(disk: &Disk, held: &[HeldPoint]) -> (Vec<(String, Way)>, bool) {
        let (steps, stopped) = plan(disk, held).unwrap();
        let steps = steps
            .into_iter()
            .map(|step| (step.name, step.way))
            .collect();
        (steps, stopped.is_some())
    }

    #[test]
    fn what_is_lacking_is_brought_in_order() {
        let all = disk(&[
            ("a", 100.0, 1),
            ("b", 100.0, 1),
            ("c", 42.0, 1),
            ("d", 100.0, 1),
        ]);
        let step = |name: &str, way| (name.to_owned(), way);
        assert_eq!(
            planned(&all, &[]),
            (vec![step("a", Way::Base), step("b", Way::Changes)], true)
        );
        assert_eq!(
            planned(&all, &[held("a", "id-a", 100)]),
            (vec![step("b", Way::Changes)], true)
        );
        assert_eq!(planned(&all, &[held("b", "id-b", 200)]), (vec![], true));
        // The snapshot of the newest point is gone.
        let later = disk(&[("a", 100.0, 1), ("b", 100.0, 1)]);
        assert_eq!(
            planned(&later, &[held("x", "id-x", 150)]),
            (vec![step("b", Way::ComparedWithoutPrevious)], false)
        );
        assert_eq!(planned(&later, &[held("b", "id-b", 200)]), (vec![], false));
        // One of the same name was brought before.
        let (steps, _) = planned(&later, &[held("a", "id-0", 50)]);
        assert_eq!(
            steps[0],
            step("a-19700101T000140Z", Way::ComparedWithoutPrevious)
        );
    }

    #[test]
    fn nothing_is_listed_past_4_tib() {
        let grown = disk(&[
            ("a", 100.0, 1 << 42),
            ("b", 100.0, 1 << 30),
            ("c", 100.0, 5 << 40),
        ]);
        let ways: Vec<Way> = planned(&grown, &[])
            .0
            .into_iter()
            .map(|(_, way)| way)
            .collect();
        assert_eq!(
            ways,
            [
                Way::Base,
                Way::ComparedPastBoundary,
                Way::ComparedPastBoundary
            ]
        );
    }

    #[test]
    fn points_of_another_disk_are_refused() {
        let mut other = held("a", "id-a", 100);
        other.family.source_unique_id = Some("v".into());
        let error = plan(&disk(&[("a", 100.0, 1)]), &[other]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Mismatch);
    }
}
