//! Determines whether two snapshots belong to the same disk.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::remedy::{Choice, Remedy, Step};

/// The cloud's ids of the disk of a snapshot. Snapshots are of one family if both agree: a disk that was deleted and
/// created again has the same resource id and another unique id.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Family {
    /// `SourceResourceId`: identifies the disk by its location; case is ignored.
    pub source_resource_id: Option<String>,
    /// `SourceUniqueId`: identifies the disk with certainty.
    pub source_unique_id: Option<String>,
}

impl Family {
    /// The combined knowledge about the family when `newer` joins it. An id that is unknown on one side doesn't matter.
    ///
    /// # Errors
    ///
    /// [`Mismatch`](crate::ErrorKind::Mismatch) with both ids if they belong to different disks.
    pub fn join(&self, newer: &Self) -> Result<Self> {
        let join = |field: &str, old: &Option<String>, new: &Option<String>| match (old, new) {
            (Some(old), Some(new)) if !old.eq_ignore_ascii_case(new) => {
                Err(Error::mismatch("this is a snapshot of another disk")
                    .with_field(field)
                    .with_found(new)
                    .with_expected(format_args!("{old}, as in the existing snapshots"))
                    .with_remedy(
                        Remedy::new("keep each disk under its own name")
                            .named(": ")
                            .step(Step::Choose(Choice::Disk), ""),
                    ))
            }
            (old, new) => Ok(old.clone().or_else(|| new.clone())),
        };
        // The unique id first: it is the decisive one.
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
