//! Which snapshots of a managed disk a resource group lacks in a region, so that the service copies them there.

use super::plan::incomplete;
use crate::cloud::{Family, Resource};
use crate::error::{Error, Result};

/// What to do for one snapshot: start a copy, or find one that the service is making; then wait for it.
#[derive(Debug, Clone)]
pub struct RegionalStep {
    /// The snapshot.
    pub source: Resource,
    /// The copy under way; `None` if it has to be started.
    pub copy: Option<Resource>,
    /// The name of the copy.
    pub name: String,
    /// Whether that copy is one to somewhere else, which has to end first: the service copies one snapshot of a disk at a time.
    pub elsewhere: bool,
}

impl RegionalStep {
    fn follow(source: &Resource, copy: &Resource, elsewhere: bool) -> Self {
        Self {
            source: source.clone(),
            name: copy.name.clone(),
            copy: Some(copy.clone()),
            elsewhere,
        }
    }
}

/// Returns what brings all snapshots of `disk` to a resource group that has the snapshots `there`, in order of creation: those newer
/// than the newest one that was copied to `region`. The second value is what ends the list early: a snapshot that isn't complete
/// yet, or a copy that the service gave up.
pub fn plan_regional(
    disk: &Family,
    there: &[Resource],
    region: &str,
) -> Result<(Vec<RegionalStep>, Option<Error>)> {
    let copy_of = |source: &Resource| {
        let copies = || {
            there
                .iter()
                .filter(|one| one.incremental && one.is_in(region) && one.is_copy_of(source))
        };
        copies()
            .find(|one| one.is_complete())
            .or_else(|| copies().next())
            .cloned()
    };
    let all: Vec<(&Resource, Option<Resource>)> = disk
        .snapshots
        .iter()
        .map(|source| (source, copy_of(source)))
        .collect();
    let newest = all.iter().rposition(|(_, copy)| copy.is_some());
    let mut steps = Vec::new();
    let mut stopped = None;
    for (place, (source, copy)) in all.iter().enumerate() {
        match copy {
            Some(copy) if copy.copy_error.is_some() => stopped = copy_failed(copy),
            Some(copy) if copy.is_complete() => {}
            Some(copy) => steps.push(RegionalStep::follow(source, copy, false)),
            None if newest.is_some_and(|newest| place < newest) => {}
            None if !source.is_complete() => stopped = Some(incomplete(source)),
            None => steps.push(RegionalStep {
                source: (*source).clone(),
                copy: None,
                name: name_of(source, there, region)?,
                elsewhere: false,
            }),
        }
        if stopped.is_some() {
            break;
        }
    }
    if steps.iter().any(|step| step.copy.is_none()) {
        let here = |copy: &Resource| {
            steps
                .iter()
                .any(|step| step.copy.as_ref().is_some_and(|known| known.is(&copy.id)))
        };
        let elsewhere = all.iter().flat_map(|(source, _)| {
            disk.copies
                .iter()
                .filter(|copy| copy.is_copy_of(source) && copy.is_being_copied() && !here(copy))
                .map(|copy| RegionalStep::follow(source, copy, true))
        });
        let first: Vec<RegionalStep> = elsewhere.collect();
        steps.splice(0..0, first);
    }
    Ok((steps, stopped))
}

/// Returns the error for a copy that the service gave up, if it did.
pub fn copy_failed(copy: &Resource) -> Option<Error> {
    let said = copy.copy_error.as_ref()?;
    Some(
        Error::new(
            crate::error::ErrorKind::Io,
            "the service gave up copying the snapshot",
        )
        .with_path(&copy.id)
        .with_found(said)
        .with_hint("delete this incomplete copy, and run the command again, which copies it anew"),
    )
}

/// The name of a copy: that of the snapshot, followed by the region if another snapshot of the group has it.
fn name_of(source: &Resource, there: &[Resource], region: &str) -> Result<String> {
    let region: String = region
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .collect::<String>()
        .to_ascii_lowercase();
    let short: String = source
        .name
        .chars()
        .take(79_usize.saturating_sub(region.len()))
        .collect();
    [source.name.clone(), format!("{short}-{region}")]
        .into_iter()
        .find(|name| {
            !there
                .iter()
                .any(|known| known.name.eq_ignore_ascii_case(name))
        })
        .ok_or_else(|| {
            Error::usage("other snapshots of the group have the names that the copy could get")
                .with_path(&source.id)
                .with_found(format_args!("{}, {short}-{region}", source.name))
                .with_hint("copy to another resource group")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: &str = "/subscriptions/s/resourceGroups";

    fn snapshot(name: &str, created: i64, percent: f64) -> Resource {
        let id = format!("{GROUP}/g/providers/Microsoft.Compute/snapshots/{name}");
        Resource::snapshot(&id, &format!("id-{name}"), created, percent, 1)
    }

    fn copy(group: &str, name: &str, percent: f64) -> Resource {
        let id = format!("{GROUP}/{group}/providers/Microsoft.Compute/snapshots/{name}");
        let mut copy = Resource::snapshot(&id, &format!("copy-{name}"), 1000, percent, 1);
        copy.create_option = Some("CopyStart".into());
        copy.source_id = Some(snapshot(name, 0, 0.0).id);
        copy
    }

    fn disk(copies: Vec<Resource>) -> Family {
        let snapshots = [("a", 100.0), ("b", 100.0), ("c", 100.0), ("d", 30.0)];
        let list = snapshots
            .iter()
            .zip(1..)
            .map(|((name, percent), time)| snapshot(name, time * 100, *percent));
        let mut disk = Family::of("/d", "u", list.collect());
        disk.copies = copies;
        disk
    }

    fn planned(disk: &Family, there: &[Resource], region: &str) -> (Vec<String>, Option<String>) {
        let (steps, stopped) = plan_regional(disk, there, region).unwrap();
        let said = |step: &RegionalStep| {
            let what = if step.copy.is_some() {
                "follow"
            } else {
                "start"
            };
            let elsewhere = if step.elsewhere { " elsewhere" } else { "" };
            format!("{what} {}{elsewhere}", step.name)
        };
        (
            steps.iter().map(said).collect(),
            stopped.map(|error| error.kind().name().to_owned()),
        )
    }

    #[test]
    fn what_a_group_lacks_is_copied_in_order() {
        let pending = Some("pending".to_owned());
        let texts = |list: &[&str]| {
            list.iter()
                .map(|text| (*text).to_owned())
                .collect::<Vec<_>>()
        };
        let all = disk(vec![]);
        assert_eq!(
            planned(&all, &[], "eastus"),
            (texts(&["start a", "start b", "start c"]), pending.clone())
        );
        // One under way is followed; an older one that was deleted stays away.
        assert_eq!(
            planned(&all, &[copy("dr", "b", 40.0)], "East US"),
            (texts(&["follow b", "start c"]), pending.clone())
        );
        assert_eq!(
            planned(
                &all,
                &[copy("dr", "a", 100.0), copy("dr", "c", 100.0)],
                "eastus"
            ),
            (vec![], pending.clone())
        );
        // Copies in another region don't count, and their names are taken.
        assert_eq!(
            planned(&all, &[copy("dr", "a", 100.0)], "West US").0[0],
            "start a-westus"
        );
        // Only one at a time, wherever the others go.
        let busy = disk(vec![copy("else", "c", 10.0)]);
        assert_eq!(
            planned(&busy, &[], "eastus").0[..2],
            texts(&["follow c elsewhere", "start a"])
        );
        assert!(
            planned(&busy, &[copy("dr", "c", 100.0)], "eastus")
                .0
                .is_empty()
        );
        let mut failed = copy("dr", "b", 10.0);
        failed.copy_error = Some("CopySourceNotFound".into());
        assert_eq!(
            planned(&all, &[copy("dr", "a", 100.0), failed], "eastus"),
            (vec![], Some("io".to_owned()))
        );
    }
}
