//! One disk of a store on a service as a target.

use std::path::PathBuf;

use super::target::{AddedPoint, HeldPoint, PointTarget};
use crate::error::{Error, ErrorKind, Result};
use crate::files::{Opened, PointNote};
use crate::snapshot::far::{FarPoint, FarStore, NewFarPoint};
use crate::snapshot::{Family, NewPoint, Time, Work};

/// One disk of a store on a service, such as a container of page blobs.
#[derive(Debug)]
pub struct FarTarget {
    store: Box<dyn FarStore>,
    disk: String,
}

impl FarTarget {
    /// Refers to the disk called `disk` of `store`, which needn't be there yet.
    pub fn new(store: Box<dyn FarStore>, disk: &str) -> Self {
        Self {
            store,
            disk: disk.to_owned(),
        }
    }

    /// Its points, after what an interrupted change left was finished.
    fn far_points(&self) -> Result<Vec<FarPoint>> {
        let mut found = self.store.disks(Some(&self.disk))?.pop();
        if let Some(disk) = found.as_ref().filter(|disk| disk.unfinished.is_some()) {
            self.store.settle(disk)?;
            found = self.store.disks(Some(&self.disk))?.pop();
        }
        Ok(found.map_or_else(Vec::new, |disk| disk.points))
    }
}

fn held(point: &FarPoint) -> HeldPoint {
    HeldPoint {
        name: point.name.clone(),
        id: point.key.clone(),
        time: point.time.unwrap_or_else(Time::now),
        family: Family {
            source_resource_id: point.note.resource.clone(),
            source_unique_id: point.note.unique.clone(),
        },
        tags: point.note.tags.clone(),
        size: point.size,
    }
}

impl PointTarget for FarTarget {
    fn shown(&self) -> PathBuf {
        self.store.shown().join(&self.disk)
    }

    fn points(&self) -> Result<Vec<HeldPoint>> {
        Ok(self.far_points()?.iter().map(held).collect())
    }

    fn check_ready(&self) -> Result<()> {
        // What was interrupted is finished by that, which needs the lease.
        self.far_points().map(drop)
    }

    fn add(
        &mut self,
        after: Option<&str>,
        image: &dyn Opened,
        new: &NewPoint,
        work: Work<'_>,
    ) -> Result<AddedPoint> {
        let newest = self.far_points()?.pop();
        if newest.as_ref().map(|newest| newest.key.as_str()) != after {
            return Err(Error::new(
                ErrorKind::Changed,
                "another command added or deleted a snapshot meanwhile",
            )
            .with_path(self.shown())
            .with_hint("run the command again, which goes on from what is there now"));
        }
        if let (Some((claim, seed)), Some(newest)) = (&new.claim, &newest)
            && claim.check.is_some()
        {
            let disk = self.store.disk(&self.disk)?;
            let before = self.store.image(&disk, newest)?;
            claim.check(&*before, image, *seed, (work.workers, work.progress))?;
        }
        let note = PointNote {
            name: Some(new.name.clone()),
            time: new.time.map(|time| time.to_string()),
            id: Some(uuid::Uuid::new_v4().to_string()),
            resource: new.family.source_resource_id.clone(),
            unique: new.family.source_unique_id.clone(),
            tags: new.tags.clone(),
            ..PointNote::default()
        };
        let point = NewFarPoint {
            image,
            note: &note,
            since: newest.as_ref(),
            changed: new.claim.as_ref().map(|(claim, _)| claim.list.ranges()),
        };
        let added = self.store.add(&self.disk, point, work)?;
        Ok(AddedPoint {
            name: added.point.name.clone(),
            content_digest: added.point.digest(),
            updated: added.updated,
            cleared: added.cleared,
            stored: added.updated,
        })
    }
}
