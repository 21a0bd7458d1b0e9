//! Gives up snapshots that can't be repaired, so that the others can be used and new ones added.

use std::collections::{BTreeSet, HashSet};
use std::path::Path;

use super::Job;
use super::aside::move_aside;
use super::data::{ground_fault, sound};
use crate::error::{Error, ErrorKind, Result};
use crate::snapshot::disk::{is_passing, read_manifest};
use crate::snapshot::verify::is_missing;
use crate::snapshot::{DataKind, Manifest, PointFileName};

impl Job<'_> {
    /// Removes what is damaged. If a later point is available elsewhere, it is based on the last good one before; only
    /// what is in between is lost.
    ///
    /// # Errors
    ///
    /// Fails if a second look shows a different result, or if a possible source couldn't be read; nothing is given up
    /// then.
    pub(super) fn drop_broken(&mut self) -> Result<()> {
        self.look_again()?;
        if let Some(error) = self.unread.take().filter(|_| !self.faults.is_empty()) {
            return Err(error);
        }
        let (mut lost, mut whole) = (Vec::new(), self.whole());
        let mut before: Option<Manifest> = None;
        for point in self.disk.points().to_vec() {
            let is_whole = whole.contains(&point.sequence)
                || self
                    .disk
                    .parent_of(&point)
                    .is_some_and(|parent| whole.contains(&parent.sequence))
                    && !self.broken.contains(&point.id);
            if is_whole || self.tie(&point, before.as_ref())? {
                whole.insert(point.sequence);
                let known = self.disk.points.numbered(point.sequence).next();
                before = known.cloned();
            } else {
                lost.push(point);
            }
        }
        // Whatever was unavailable for rebasing a point may also be a temporary problem.
        if let Some(error) = self.unread.take().filter(|_| !lost.is_empty()) {
            return Err(error);
        }
        // The newest first: the rest is always consistent.
        for point in lost.iter().rev() {
            if !self.means.dry_run {
                move_aside(&self.disk.path(&point.stem().manifest()))?;
                move_aside(&self.disk.path(&point.data.file))?;
            }
            self.disk.take_out(point);
        }
        self.done.dropped = lost.iter().map(|point| point.name.clone()).collect();
        self.drop_strays()?;
        let points = self.disk.points();
        let broken = &self.broken;
        self.faults.retain(|(stem, _)| {
            points
                .iter()
                .any(|point| point.stem() == *stem && broken.contains(&point.id))
        });
        Ok(())
    }

    /// Reads what is about to be given up once more, through newly opened files: the result must be the same.
    fn look_again(&mut self) -> Result<()> {
        if self.faults.is_empty() {
            return Ok(());
        }
        self.disk.list_again()?;
        let differs = |path: &Path| {
            Error::new(
                ErrorKind::Io,
                "this was damaged at the first look, and isn't at the second",
            )
            .with_path(path)
            .with_hint("nothing was given up: the device or the memory may be failing")
        };
        let lying: HashSet<String> = if self.lying.is_empty() {
            HashSet::new()
        } else {
            let groundless = |point: &Manifest| ground_fault(self.disk, point).is_some();
            let broken = |point: &&Manifest| {
                self.broken.contains(&point.id)
                    && (!self.lying.contains(&point.id) || groundless(point))
            };
            let broken = self.disk.points().iter().filter(broken);
            let found = self.contents(&broken.map(|point| point.sequence).collect())?;
            found
                .wrong
                .into_iter()
                .map(|wrong| wrong.point.id)
                .collect()
        };
        for (stem, _) in &self.faults {
            let manifest = self.disk.path(&stem.manifest());
            let known = self.disk.points.numbered(stem.sequence);
            let mut known = known.filter(|point| point.stem() == *stem);
            let Some(point) = known.next() else {
                match read_manifest(&manifest, &manifest) {
                    Ok(_) => return Err(differs(&manifest)),
                    Err(error) if is_passing(&error) && !is_missing(self.disk, &error) => {
                        return Err(error);
                    }
                    Err(_) => continue,
                }
            };
            match sound(self.disk, point, self.work) {
                Ok(()) if lying.contains(&point.id) => {}
                Ok(()) if ground_fault(self.disk, point).is_some() => {}
                Ok(()) => return Err(differs(&self.disk.path(&point.data.file))),
                Err(error) => drop(self.finding(point, error)?),
            }
        }
        Ok(())
    }

    /// Sets aside files that have no manifest, and get none.
    fn drop_strays(&mut self) -> Result<()> {
        let known: HashSet<PointFileName> = self.disk.points().iter().map(Manifest::stem).collect();
        let lost = self.faults.iter().map(|(stem, _)| stem.clone());
        let lost: BTreeSet<PointFileName> = lost.filter(|stem| !known.contains(stem)).collect();
        if !self.means.dry_run {
            for name in self.disk.names.list() {
                if PointFileName::parse(&name).is_some_and(|(of, _)| lost.contains(&of)) {
                    move_aside(&self.disk.path(&name))?;
                }
            }
        }
        for stem in lost {
            if !self.done.dropped.contains(&stem.name) {
                self.done.dropped.push(stem.name);
            }
        }
        Ok(())
    }

    /// Bases `point` on `before`, or makes it a base, if it is available elsewhere.
    fn tie(&mut self, point: &Manifest, before: Option<&Manifest>) -> Result<bool> {
        let Some((mut made, how)) = self.make_from_elsewhere(point, before)? else {
            return Ok(false);
        };
        self.broken.remove(&point.id);
        // In a dry run it still is what it was.
        made.parent = before.map(|before| before.id.clone());
        made.like = None;
        made.data.kind = if before.is_some() {
            DataKind::Diff
        } else {
            DataKind::Base
        };
        let now = before.map_or_else(
            || "is a base now".to_owned(),
            |before| format!("starts from {} now", before.name),
        );
        self.say(&made.data.file, format!("{how}; {} {now}", point.name));
        self.disk.put(made);
        Ok(true)
    }
}
