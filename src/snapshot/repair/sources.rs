//! Other sources for the content of a snapshot.

use std::path::Path;

use super::Job;
use crate::error::Result;
use crate::files::Opened;
use crate::snapshot::{Manifest, PointImage};

/// An image that should have the content of a snapshot; only its digest proves it.
pub(super) enum OtherCopy<'a> {
    /// A snapshot in another store.
    Point(Box<PointImage>),
    /// An image that the user specified.
    Given(&'a dyn Opened),
}

impl OtherCopy<'_> {
    pub(super) fn image(&self) -> &dyn Opened {
        match self {
            Self::Point(point) => &**point,
            Self::Given(image) => *image,
        }
    }

    pub(super) fn path(&self) -> &Path {
        self.image().path()
    }
}

impl<'a> Job<'a> {
    /// All images that should have the content of `point`.
    pub(super) fn elsewhere(&self, point: &Manifest) -> Vec<Result<OtherCopy<'a>>> {
        let means = self.means;
        let given = means.images.iter().filter(|(name, _)| *name == point.name);
        let given = given.map(|(_, image)| Ok(OtherCopy::Given(&**image)));
        let stored = means.stores.iter().filter_map(|disk| {
            let same = |other: &&Manifest| {
                other.content_digest == point.content_digest
                    && other.virtual_size == point.virtual_size
            };
            let other = disk.points().iter().find(same)?;
            let image = disk.image(other);
            Some(image.map(|image| OtherCopy::Point(Box::new(image))))
        });
        // One that is right although what it depends on isn't: its own diffs hide that.
        let own = self.proven.contains(&point.id) && !self.lying.is_empty();
        let own = own.then(|| {
            let image = self.disk.image(point);
            image.map(|image| OtherCopy::Point(Box::new(image)))
        });
        given.chain(stored).chain(own).collect()
    }
}
