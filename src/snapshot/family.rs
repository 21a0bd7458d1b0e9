//! Whether two snapshots are of one and the same disk.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The cloud's ids of the disk that snapshots are of. Snapshots are one family when both agree: a disk that was
/// deleted and made again has the same resource id and another unique id.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Family {
    /// `SourceResourceId`: which disk, by its place; upper and lower case are the same.
    pub source_resource_id: Option<String>,
    /// `SourceUniqueId`: which disk for certain.
    pub source_unique_id: Option<String>,
}

impl Family {
    /// What is known of the family when `newer` joins it. An id that isn't known on either side says nothing.
    ///
    /// # Errors
    ///
    /// [`Mismatch`](crate::ErrorKind::Mismatch) with both ids when they are of different disks.
    pub fn join(&self, newer: &Self) -> Result<Self> {
        let join = |field: &str, old: &Option<String>, new: &Option<String>| match (old, new) {
            (Some(old), Some(new)) if !old.eq_ignore_ascii_case(new) => {
                Err(Error::mismatch("this is a snapshot of another disk")
                    .with_field(field)
                    .with_found(new)
                    .with_expected(format_args!("{old}, as in the snapshots that are there"))
                    .with_hint("keep each disk under a name of its own: --disk NAME"))
            }
            (old, new) => Ok(old.clone().or_else(|| new.clone())),
        };
        // The unique id first: it is the one that decides.
        let unique = join(
            "source unique id",
            &self.source_unique_id,
            &newer.source_unique_id,
        )?;
        Ok(Self {
            source_resource_id: join(
                "source resource id",
                &self.source_resource_id,
                &newer.source_resource_id,
            )?,
            source_unique_id: unique,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn family(resource: &str, unique: &str) -> Family {
        let id = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Family {
            source_resource_id: id(resource),
            source_unique_id: id(unique),
        }
    }

    #[test]
    fn only_what_is_known_and_different_parts() {
        let known = family("/disks/web", "11");
        assert_eq!(known.join(&family("/DISKS/Web", "11")).unwrap(), known);
        assert_eq!(known.join(&Family::default()).unwrap(), known);
        assert_eq!(Family::default().join(&known).unwrap(), known);
        let error = known
            .join(&family("/disks/web", "12"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("found 12, expected 11"), "{error}");
        assert!(known.join(&family("/disks/db", "11")).is_err());
    }
}
