//! Repairs lost or damaged manifests.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use super::Job;
use super::aside::copy_aside;
use crate::diff::{DiffFile, Side};
use crate::error::{Error, Result};
use crate::files::open_image;
use crate::image::{ContentDigest, Image as _, content_digest};
use crate::snapshot::base::{open_base, start_of, starts_from_nothing};
use crate::snapshot::create::{lengths, origin, told_family};
use crate::snapshot::disk::is_passing;
use crate::snapshot::layout::{BASE_ENDINGS, PACKED, base_options};
use crate::snapshot::manifest::{FIRST_SCHEMA, LONGEST};
use crate::snapshot::plain::{check_plain, read_limited};
use crate::snapshot::verify::is_missing;
use crate::snapshot::{Data, DataKind, Manifest, PointFileName, State, Time};
use crate::storage::{File, Overwrite};
use crate::text::shown;
use crate::vhd::UniqueId;

impl Job<'_> {
    /// Rebuilds every lost or damaged manifest, oldest first, without writing them yet.
    pub(super) fn manifests(&mut self) -> Result<()> {
        for stem in self.without_manifest() {
            let Some((manifest, how)) = self.manifest_of(&stem)? else {
                self.lost(&stem);
                continue;
            };
            self.say(&stem.manifest(), how);
            self.manifests.push(manifest.clone());
            self.disk.put(manifest);
        }
        Ok(())
    }

    /// Writes them.
    pub(super) fn write_manifests(&mut self) -> Result<()> {
        for manifest in std::mem::take(&mut self.manifests) {
            if !self.means.dry_run {
                copy_aside(&self.disk.path(&manifest.stem().manifest()))?;
                self.disk.write_manifest(&manifest, Overwrite::Yes)?;
            }
        }
        Ok(())
    }

    /// The snapshots with files but without a readable manifest.
    fn without_manifest(&self) -> Vec<PointFileName> {
        let points = self.disk.points().iter();
        let known: HashSet<PointFileName> = points.map(Manifest::stem).collect();
        let names = self.disk.names.iter();
        let mut stems: Vec<PointFileName> = names
            .filter_map(|name| PointFileName::parse(name))
            .map(|(stem, _)| stem)
            .filter(|stem| !known.contains(stem) && !self.disk.is_going(stem))
            .collect();
        stems.sort_unstable();
        stems.dedup();
        stems
    }

    fn manifest_of(&mut self, stem: &PointFileName) -> Result<Option<(Manifest, String)>> {
        let path = self.disk.path(&stem.manifest());
        let not_one = || Error::damaged("this is not a manifest").with_path(&path);
        let bytes = match read_limited(&path, LONGEST, not_one) {
            Ok(bytes) => bytes,
            Err(error) if is_passing(&error) => return Err(error),
            Err(_) => None,
        };
        if let Some(bytes) = bytes
            && let Some(manifest) = Manifest::decode_mended(&bytes, &path)
        {
            let how = "one byte was wrong; with the right one its checksum fits";
            return Ok(Some((manifest, how.to_owned())));
        }
        for store in &self.means.stores {
            let Ok(other) = store.find(&stem.name) else {
                continue;
            };
            if let Some(manifest) = self.taken_over(stem, other)? {
                let how = format!("from {}", shown(&store.label(other)));
                return Ok(Some((manifest, how)));
            }
        }
        match self.derived(stem) {
            Ok(found) => Ok(found),
            // The files of the disk itself must be readable; their content may be wrong.
            Err(error) if is_passing(&error) && !is_missing(self.disk, &error) => Err(error),
            Err(error) => self.refuse(error).map(|()| None),
        }
    }

    /// Takes over the manifest of a snapshot from another store, if its neighbours are the same.
    fn taken_over(&self, stem: &PointFileName, other: &Manifest) -> Result<Option<Manifest>> {
        let orphan = self.orphan_after(stem);
        if orphan.is_some_and(|orphan| orphan.parent.as_ref() != Some(&other.id)) {
            return Ok(None);
        }
        let before = match &other.parent {
            None => None,
            Some(id) => match self.disk.points.with_id_before(id, stem.sequence) {
                None => return Ok(None),
                before => before,
            },
        };
        let mut manifest = other.clone();
        manifest.sequence = stem.sequence;
        let Some(ending) = other.data.file.rsplit('.').next() else {
            return Ok(None);
        };
        manifest.data.file = format!("{stem}.{ending}");
        if other.is_base() && other.like.is_none() && !self.disk.names.contains(&manifest.data.file)
        {
            manifest = self.in_form_here(stem, manifest);
        }
        if !self.disk.names.contains(&manifest.data.file) {
            // Only its name shows that it is the same.
            let is_unknown = manifest.is_base() && orphan.is_none();
            return Ok((!is_unknown).then_some(manifest));
        }
        let path = self.disk.data_path(&manifest)?;
        let by_itself = manifest.is_base() && manifest.like.is_none();
        if by_itself && orphan.is_none() && !self.holds(&path, other)? {
            return Ok(None);
        }
        // The file here may have been rewritten since, with the same content.
        let (length, used) = lengths(&path)?;
        let diff = judged(File::open(&path).and_then(DiffFile::open_indexed))?;
        let target = diff.as_ref().and_then(|diff| diff.trailer().target_digest);
        if target.is_some_and(|target| target != other.content_digest) {
            return Ok(None);
        }
        let same = diff.as_ref().is_some_and(|diff| {
            let starts = if manifest.is_base() {
                Some(start_of(&manifest, diff))
            } else {
                before.map(|before| before.content_digest)
            };
            target.is_some() && diff.trailer().base_digest == starts
        });
        if manifest.is_packed() && !same {
            return Ok(None);
        }
        if (manifest.is_base() || same) && length != manifest.data.length {
            (manifest.data.length, manifest.used_size) = (length, used);
        }
        if let Some(diff) = diff.filter(|_| same) {
            manifest.data.identity = Some(ContentDigest(*diff.digest()));
            manifest.used_size = length;
        }
        Ok(Some(manifest))
    }

    /// The manifest of a base for the form in which the base is here: another store may have it in the other one.
    fn in_form_here(&self, stem: &PointFileName, manifest: Manifest) -> Manifest {
        let here = BASE_ENDINGS.map(|ending| format!("{stem}.{ending}"));
        let Some(file) = here.into_iter().find(|file| self.disk.names.contains(file)) else {
            return manifest;
        };
        // The identity is that of the file, which is looked at next.
        let any = ContentDigest([0; 32]);
        let identity = file.ends_with(PACKED).then_some(any);
        manifest.stored_as(None, file, (0, 0), identity)
    }

    /// Returns whether a base has the content of a snapshot.
    fn holds(&self, path: &Path, point: &Manifest) -> Result<bool> {
        let image = open_base(path);
        let digest =
            image.and_then(|image| content_digest(&image, self.work.workers, self.work.progress));
        Ok(judged(digest)? == Some(point.content_digest))
    }

    /// The first snapshot after `stem` whose parent is missing: it was based on the lost one.
    fn orphan_after(&self, stem: &PointFileName) -> Option<&Manifest> {
        let later = self
            .disk
            .points
            .from(stem.sequence.saturating_add(1))
            .first()?;
        let is_orphan = later.parent.is_some() && self.disk.parent_of(later).is_none();
        is_orphan.then_some(later)
    }

    /// Derives a manifest from the data and from what the next diff records about it.
    fn derived(&self, stem: &PointFileName) -> Result<Option<(Manifest, String)>> {
        let after = self.orphan_after(stem);
        let after_diff = after
            .map(|after| {
                let path = self.disk.data_path(after)?;
                judged(File::open(path).and_then(DiffFile::open_indexed))
            })
            .transpose()?
            .flatten();
        let mut files = self.disk.names.of(stem).filter_map(|name| {
            let (of, ending) = PointFileName::parse(name)?;
            (of == *stem && matches!(ending, ".vhd" | ".raw" | ".vhddiff")).then_some(name)
        });
        let (Some(file), None) = (files.next(), files.next()) else {
            return Ok(None);
        };
        let path = self.disk.path(file);
        check_plain(&path)?;
        let (length, used) = lengths(&path)?;
        self.work
            .progress
            .begin("reading what has no manifest", length);
        let (side, size, digest, identity, before): (Side, u64, _, _, _);
        let mut like = None;
        if file.ends_with(".vhddiff") {
            let diff = DiffFile::open(File::open(&path)?, self.work.progress)?;
            let base = diff.trailer().base_digest;
            let points = self.disk.points.before(stem.sequence);
            before = points.last().filter(|p| Some(p.content_digest) == base);
            if before.is_none() && points.is_empty() && !starts_from_nothing(&diff) {
                like = base.and_then(|base| self.disk.like_with(base, diff.header().base_size));
            }
            let starts = before.is_some() || like.is_some() || starts_from_nothing(&diff);
            let Some(target) = diff.trailer().target_digest.filter(|_| starts) else {
                return Ok(None);
            };
            (digest, size) = (target, diff.header().target_size);
            identity = Some(ContentDigest(*diff.digest()));
            side = diff.header().target.clone();
        } else {
            let image = open_image(&path, &base_options(&path))?;
            size = image.virtual_size();
            digest = content_digest(&image, self.work.workers, self.work.progress)?;
            (identity, before) = (None, None);
            // Only the next diff contains its time and its origin.
            let Some(next) = &after_diff else {
                return Ok(None);
            };
            side = next.header().base.clone();
        }
        let follows = after_diff
            .as_ref()
            .is_none_or(|next| next.trailer().base_digest == Some(digest));
        let named = side.snapshot.as_ref().is_none_or(|name| *name == stem.name);
        let (Some(time), true, true) = (side.time, follows, named) else {
            return Ok(None);
        };
        let id = after.and_then(|after| after.parent.clone());
        let how = if id.is_some() {
            "from its data and the next diff; tags are lost"
        } else {
            "from its data, with a new id; tags are lost"
        };
        let manifest = Manifest {
            schema_version: FIRST_SCHEMA,
            name: stem.name.clone(),
            sequence: stem.sequence,
            id: id.unwrap_or_else(|| UniqueId::random().to_string()),
            disk_id: self
                .disk
                .points()
                .iter()
                .find_map(|point| point.disk_id.clone()),
            parent: before.map(|before| before.id.clone()),
            like: None,
            time: Time::from_unix(time),
            family: told_family(&side),
            virtual_size: size,
            content_digest: digest,
            source: origin(&side),
            data: Data {
                kind: DataKind::Base,
                file: file.clone(),
                length,
                identity,
            },
            used_size: 0,
            tags: BTreeMap::new(),
            state: State::Complete,
            completion_percent: 100,
        };
        let used = if identity.is_some() { length } else { used };
        let parent = manifest.parent.clone();
        let mut manifest = manifest.stored_as(parent, file.clone(), (length, used), identity);
        if like.is_some() {
            manifest = manifest.standing_on(like);
        }
        manifest.check(&self.disk.path(&stem.manifest()))?;
        Ok(Some((manifest, how.to_owned())))
    }
}

/// The value that was read; `None` if it is damaged. Fails if it couldn't be read.
fn judged<T>(read: Result<T>) -> Result<Option<T>> {
    match read {
        Err(error) if is_passing(&error) => Err(error),
        read => Ok(read.ok()),
    }
}
