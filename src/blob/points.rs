//! The snapshots of a blob that is open.

use std::sync::Arc;

use super::failure::{Done, Failure};
use super::file::{BlobFile, MAKER};
use super::store::{BlobId, BlobsAsked, Conditions, Deleted, Listed, Metadata};
use crate::error::{Error, Result};

/// Answers that a list of the snapshots of one blob takes at most, because other blobs may have names that begin alike.
const LONGEST: usize = 1000;

impl BlobFile {
    /// Lists the snapshots of the blob, oldest first. Takes the right to list its container.
    pub fn snapshots(&self) -> Result<Vec<Listed>> {
        let mut asked = BlobsAsked {
            prefix: self.blob().name.clone(),
            snapshots: true,
            ..BlobsAsked::default()
        };
        let mut found = Vec::new();
        for _ in 0..LONGEST {
            let answer = self.retry().run(|| self.store().blobs(&asked));
            let blobs = answer.map_err(Failure::into_error)?;
            let ours = blobs.list.into_iter().filter(|listed| {
                listed.id.name == self.blob().name && listed.id.snapshot.is_some()
            });
            found.extend(ours);
            match blobs.marker {
                Some(marker) if asked.marker.as_ref() != Some(&marker) => {
                    asked.marker = Some(marker);
                }
                _ => {
                    // The order of a list is no promise; times are written so that their order is that of their letters.
                    found.sort_by(|a, b| a.id.cmp(&b.id));
                    return Ok(found);
                }
            }
        }
        Err(Error::unsupported(
            "too many blobs have names that begin like this one to find its snapshots",
        )
        .with_path(self.store().shown(self.blob()))
        .with_hint("move it to a container of its own"))
    }

    /// Takes a snapshot of the blob, which is open to be written, with everything that was written; gives its time. The
    /// snapshot carries `metadata`.
    pub fn take_snapshot(&self, metadata: &Metadata) -> Result<String> {
        let only_if = Conditions {
            lease: self.drained()?,
            ..Conditions::default()
        };
        let maker = uuid::Uuid::new_v4().to_string();
        let mut metadata = metadata.clone();
        metadata.insert(MAKER.to_owned(), maker.clone());
        let mut attempts = self.retry().begin();
        loop {
            let failure = match self.store().snapshot(self.blob(), &metadata, &only_if) {
                Ok(time) => return Ok(time),
                Err(failure) => attempts.wait(failure).map_err(Failure::into_error)?,
            };
            // It may have been taken. Where that can't be found out, another one does no harm.
            if failure.done() == Done::Perhaps {
                let ours = |listed: &Listed| listed.properties.metadata.get(MAKER) == Some(&maker);
                let taken = self.snapshots().unwrap_or_else(|_| Vec::new());
                if let Some(time) = taken.into_iter().find(ours).and_then(|it| it.id.snapshot) {
                    return Ok(time);
                }
            }
        }
    }

    /// Deletes the snapshot of that time. One that isn't there any more is no error.
    pub fn delete_snapshot(&self, time: &str) -> Result<()> {
        let (id, any) = (self.blob().at(time), Conditions::default());
        let answer = self
            .retry()
            .run(|| self.store().delete(&id, Deleted::Itself, &any));
        match answer {
            Err(failure) if failure.status() != Some(404) => Err(failure.into_error()),
            _ => Ok(()),
        }
    }

    /// Deletes the blob, which is open to be written, with all of its snapshots.
    pub fn delete_with_snapshots(self) -> Result<()> {
        let only_if = Conditions {
            lease: self.drained()?,
            ..Conditions::default()
        };
        let answer = self.retry().run(|| {
            self.store()
                .delete(self.blob(), Deleted::WithSnapshots, &only_if)
        });
        match answer {
            Err(failure) if failure.status() != Some(404) => Err(failure.into_error()),
            _ => Ok(()),
        }
    }

    /// Opens the snapshot of that time.
    pub fn at(&self, time: &str) -> Result<Self> {
        let id = BlobId::live(&self.blob().name).at(time);
        Self::open(Arc::clone(self.store()), id, self.retry().clone())
    }
}
