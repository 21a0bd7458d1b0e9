//! Snapshots of other disks as which disks begin: how they are named, and how they are shown.

use serde::Serialize;

use super::stores::refuse_address;
use crate::error::Result;
use crate::snapshot::{Like, OtherPoint};

/// A snapshot of another disk of the same store.
pub(super) fn parse_like(text: &str) -> Result<OtherPoint> {
    refuse_address(text)?;
    text.parse()
}

/// A snapshot of another disk, as it was called.
#[derive(Debug, Clone, Serialize)]
pub(super) struct LikeView {
    disk: String,
    snapshot: String,
    content_digest: String,
}

impl std::fmt::Display for LikeView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}", self.disk, self.snapshot)
    }
}

impl LikeView {
    /// Calls it what it is called by now.
    pub(super) fn call(&mut self, now: &OtherPoint) {
        self.disk.clone_from(&now.disk);
        if let Some(snapshot) = &now.snapshot {
            self.snapshot.clone_from(snapshot);
        }
    }

    pub(super) fn of(like: Option<&Like>) -> Option<Self> {
        like.map(|like| Self {
            disk: like.disk.clone(),
            snapshot: like.snapshot.clone(),
            content_digest: like.content_digest.to_string(),
        })
    }
}
