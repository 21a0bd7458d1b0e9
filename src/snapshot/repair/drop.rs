//! Snapshots that can't be mended go, so that the others can be used and added to.

use super::{Job, move_aside};
use crate::error::Result;
use crate::snapshot::disk::file_names;
use crate::snapshot::{DataKind, Manifest, Stem};

impl Job<'_> {
    /// Takes out what can't be read. Where a later point is known elsewhere, it is tied to the last good one before; only
    /// what lies between is lost.
    pub(super) fn drop_broken(&mut self) -> Result<()> {
        let mut lost: Vec<Manifest> = Vec::new();
        for point in self.disk.points().to_vec() {
            if self.is_whole(&point) {
                continue;
            }
            let before = self.disk.points().iter().rev();
            let mut before = before.filter(|p| p.sequence < point.sequence && self.is_whole(p));
            let before = before.next().cloned();
            if !self.tie(&point, before.as_ref())? {
                lost.push(point);
            }
        }
        // The newest first: what is left always hangs together.
        for point in lost.iter().rev() {
            if !self.means.dry_run {
                move_aside(&self.disk.path(&point.stem().manifest()))?;
                move_aside(&self.disk.path(&point.data.file))?;
            }
            self.disk.take_out(&point.id);
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

    /// What has no manifest, and gets none.
    fn drop_strays(&mut self) -> Result<()> {
        let lost: Vec<Stem> = self.faults.iter().map(|(stem, _)| stem.clone()).collect();
        let known: Vec<Stem> = self.disk.points().iter().map(Manifest::stem).collect();
        let lost = lost.into_iter().filter(|stem| !known.contains(stem));
        for stem in lost {
            if !self.means.dry_run {
                for name in file_names(self.disk.folder())? {
                    if Stem::parse(&name).is_some_and(|(of, _)| of == stem) {
                        move_aside(&self.disk.path(&name))?;
                    }
                }
            }
            if !self.done.dropped.contains(&stem.name) {
                self.done.dropped.push(stem.name);
            }
        }
        Ok(())
    }

    /// Makes `point` start from `before`, or be a base, if it is known elsewhere.
    fn tie(&mut self, point: &Manifest, before: Option<&Manifest>) -> Result<bool> {
        let Some((mut made, how)) = self.make_from_elsewhere(point, before)? else {
            return Ok(false);
        };
        self.broken.remove(&point.id);
        made.parent = before.map(|before| before.id.clone());
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
