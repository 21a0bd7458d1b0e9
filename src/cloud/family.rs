//! The snapshots of one disk, in the order of their creation.

use super::manager::Cloud;
use super::name::{ResourceKind, ResourceName};
use super::resource::Resource;
use crate::blob::Failure;
use crate::error::{Error, Result};

/// A disk and its snapshots.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Family {
    /// The disk, if it still exists.
    pub disk: Option<Resource>,
    /// Its resource id.
    pub disk_id: String,
    /// The id of this instance of it.
    pub unique_id: Option<String>,
    /// Its incremental snapshots in this region, oldest first.
    pub snapshots: Vec<Resource>,
    /// Its regular snapshots, oldest first: there are no lists of changes between those.
    pub regular: Vec<Resource>,
    /// Snapshots of other disks that had the same name before or after.
    pub others: usize,
    /// Copies of the incremental snapshots, in any region and group that the identity can see.
    pub copies: Vec<Resource>,
}

impl Cloud {
    /// Finds the snapshots of the disk called `name`, wherever in its subscription they are; without the right to see all of it, in
    /// the group of the disk.
    ///
    /// # Errors
    ///
    /// [`Usage`](crate::ErrorKind::Usage) if there is neither such a disk nor a snapshot of it nor, in its group, a copy of one; or
    /// if the disk is gone and several had its name.
    pub fn family(&self, name: &ResourceName) -> Result<Family> {
        if name.kind() == Some(ResourceKind::Snapshot) {
            return Err(
                Error::usage("this is a snapshot, not a disk with its snapshots")
                    .with_path(name.shown())
                    .with_hint("name the disk that it is of"),
            );
        }
        let subscription = match name.subscription() {
            Some(id) => id,
            None => self.subscription()?,
        };
        self.clean_up();
        let disk_id = name.id(subscription, ResourceKind::Disk);
        let disk = self.get(name, ResourceKind::Disk)?;
        let all = match self.snapshots(subscription, None) {
            Err(failure) if failure.status() == Some(403) => {
                self.snapshots(subscription, Some(name.group()))
            }
            answer => answer,
        };
        let all = all.map_err(Failure::into_error)?;
        let of_disk = |snapshot: &Resource| {
            let source = snapshot.source_id.as_deref().unwrap_or("");
            source.trim_end_matches('/').eq_ignore_ascii_case(&disk_id)
        };
        let (mut ours, rest): (Vec<Resource>, Vec<Resource>) = all.into_iter().partition(of_disk);
        let mut others = Vec::new();
        let mut disk_id = disk_id.clone();
        if disk.is_none() && ours.is_empty() {
            // Where snapshots were copied to, the copies stand for them.
            if let Some((id, copies)) = Family::of_copies(name, &rest) {
                (disk_id, ours) = (id, copies);
            }
        }
        let unique_id = match &disk {
            Some(disk) => disk.unique_id.clone(),
            None => the_only_one(name, &ours)?,
        };
        if unique_id.is_some() {
            (ours, others) = ours.into_iter().partition(|snapshot| {
                let of = snapshot.source_unique_id.as_deref().unwrap_or("");
                unique_id
                    .as_deref()
                    .is_some_and(|id| id.eq_ignore_ascii_case(of))
            });
        }
        ours.sort_by(|a, b| a.created.cmp(&b.created).then_with(|| a.name.cmp(&b.name)));
        let (snapshots, regular): (Vec<Resource>, Vec<Resource>) =
            ours.into_iter().partition(|snapshot| snapshot.incremental);
        let copies = rest
            .into_iter()
            .filter(|one| snapshots.iter().any(|snapshot| one.is_copy_of(snapshot)))
            .collect();
        Ok(Family {
            disk_id: disk.as_ref().map_or(disk_id, |disk| disk.id.clone()),
            disk,
            unique_id,
            snapshots,
            regular,
            others: others.len(),
            copies,
        })
    }
}

/// The instance that all snapshots of a deleted disk belong to.
fn the_only_one(name: &ResourceName, snapshots: &[Resource]) -> Result<Option<String>> {
    let mut ids: Vec<String> = snapshots
        .iter()
        .filter_map(|snapshot| snapshot.source_unique_id.as_deref())
        .map(str::to_ascii_lowercase)
        .collect();
    ids.sort();
    ids.dedup();
    if snapshots.is_empty() {
        return Err(
            Error::usage("there is no disk of this name, and no snapshot of one")
                .with_path(name.shown())
                .with_hint("check the names of group and disk, and the subscription"),
        );
    }
    if ids.len() > 1 {
        return Err(Error::usage(
            "the disk is gone, and its snapshots are of several disks of that name",
        )
        .with_path(name.shown())
        .with_field("sourceUniqueId")
        .with_found(ids.join(", "))
        .with_hint("name the snapshots themselves, by their resource ids"));
    }
    Ok(ids.pop())
}

impl Family {
    /// The family of a deleted disk with this id.
    #[cfg(test)]
    pub(crate) fn of(disk_id: &str, unique_id: &str, snapshots: Vec<Resource>) -> Self {
        Self {
            disk: None,
            disk_id: disk_id.to_owned(),
            unique_id: Some(unique_id.to_owned()),
            snapshots,
            regular: Vec::new(),
            others: 0,
            copies: Vec::new(),
        }
    }

    /// The snapshot called `name`, incremental or regular.
    pub fn find(&self, name: &str) -> Option<&Resource> {
        let mut all = self.snapshots.iter().chain(&self.regular);
        all.find(|snapshot| snapshot.name.eq_ignore_ascii_case(name))
    }
}
