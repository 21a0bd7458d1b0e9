//! The names by which clients request what is on a shelf.

use std::sync::Arc;

use super::super::{PointEntry, Served, Shelf};
use crate::error::{Error, ErrorKind, Result};

/// The exports of a server: NBD names for the contents of a [`Shelf`].
#[derive(Debug)]
pub(super) struct Exports(pub(super) Shelf);

impl Exports {
    /// The export that a client requests.
    pub(super) fn open(&self, name: &[u8]) -> Result<Arc<Served>> {
        let unknown = || {
            Error::usage("there is no such export")
                .with_found(format_args!("\"{}\"", String::from_utf8_lossy(name)))
        };
        let name = std::str::from_utf8(name).map_err(|_| unknown())?;
        if let Some(image) = self.0.image() {
            let known = name.is_empty() || name == Self::name_of(image);
            return known.then(|| Arc::clone(image)).ok_or_else(unknown);
        }
        let (disk, snapshot) = match name.split_once('@') {
            Some((disk, snapshot)) => (disk, Some(snapshot)),
            None => (name, None),
        };
        match (disk, self.0.disk()) {
            ("", Some(only)) => self.0.open(only, snapshot),
            ("", None) => Err(unknown()),
            (disk, _) => self.0.open(disk, snapshot),
        }
    }

    fn name_of(image: &Served) -> String {
        let path = image.image().path();
        let name = path.file_name().unwrap_or(path.as_os_str());
        crate::text::shown(name).to_string()
    }

    /// The listed name for what a client requests as `name`.
    pub(super) fn canonical(&self, name: &[u8]) -> String {
        match self.0.image() {
            Some(image) => Self::name_of(image),
            None => String::from_utf8_lossy(name).into_owned(),
        }
    }

    pub(super) fn description(export: &Served) -> String {
        let path = crate::text::shown(export.image().path()).to_string();
        match export.time() {
            Some(time) => format!("{path}, {time}"),
            None => path,
        }
    }

    /// Names and descriptions of all exports, except those of a disk that another command is changing.
    ///
    /// # Errors
    ///
    /// If the store can't be read: no list is better than one that lacks something.
    pub(super) fn list(&self) -> Result<Vec<(String, String)>> {
        if let Some(image) = self.0.image() {
            return Ok(vec![(Self::name_of(image), Self::description(image))]);
        }
        let mut all = Vec::new();
        for disk in self.0.disks()? {
            let points = match self.0.points(&disk) {
                Err(error) if error.kind() == ErrorKind::Locked => continue,
                points => points?,
            };
            let name =
                |point: &PointEntry| (format!("{disk}@{}", point.name), point.time.to_string());
            all.extend(points.iter().map(name));
        }
        Ok(all)
    }
}
