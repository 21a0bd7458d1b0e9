//! Repairs lost or damaged bases and diffs.

use std::collections::HashSet;
use std::path::Path;

use super::Job;
use super::aside::move_aside;
use super::sources::OtherCopy;
use crate::diff::{Compression, DiffFile, DiffOptions, write_diff};
use crate::error::{Error, ErrorKind, Result};
use crate::files::{Format, NewImage, NewImageOptions, Opened};
use crate::image::{ContentDigest, CopyOptions, NoneShared, copy};
use crate::remedy::{Choice, Remedy, Step};
use crate::snapshot::base::{start_of, starts_from_nothing};
use crate::snapshot::create::{LARGEST_DYNAMIC, lengths};
use crate::snapshot::layout::{BASE_ENDINGS, NEW, PACKED};
use crate::snapshot::packed::write_packed;
use crate::snapshot::plain::check_plain;
use crate::snapshot::point::side;
use crate::snapshot::verify::{Contents, Wrong, contents, file_data, finding, structure};
use crate::snapshot::{Disk, Finding, Manifest, Work};
use crate::storage::{File, Overwrite, rename};
use crate::text::shown;

impl Job<'_> {
    /// Reads the data of all snapshots, without changing anything. Returns those whose data is lost or damaged.
    pub(super) fn look(&mut self) -> Result<Vec<(Manifest, Finding)>> {
        let (mut damaged, mut bad) = (Vec::new(), HashSet::new());
        for point in self.disk.points() {
            // What an image holds is computed below.
            let found = if point.is_base() && !point.is_packed() {
                structure(self.disk, point)
            } else {
                sound(self.disk, point, self.work)
            };
            if let Err(error) = found {
                bad.insert(point.sequence);
                damaged.push((point.clone(), self.finding(point, error)?));
            } else if let Some(error) = ground_fault(self.disk, point) {
                // Its own file is sound, and no help.
                bad.insert(point.sequence);
                self.lying.insert(point.id.clone());
                damaged.push((point.clone(), self.finding(point, error)?));
            }
        }
        let found = self.contents(&bad)?;
        for Wrong {
            point,
            error,
            affected,
        } in found.wrong
        {
            self.lying.insert(point.id.clone());
            damaged.push((point, Finding { error, affected }));
        }
        self.proven = found.right;
        damaged.sort_by_key(|(point, _)| point.sequence);
        Ok(damaged)
    }

    /// What the snapshots hold, except the bad ones.
    pub(super) fn contents(&self, bad: &HashSet<u32>) -> Result<Contents> {
        let mut found = contents(self.disk, bad, self.work)?;
        match found.failed.pop() {
            None => Ok(found),
            Some((_, error)) => Err(error),
        }
    }

    /// The problem with a snapshot's own file. Fails if it couldn't be read.
    pub(super) fn finding(&self, point: &Manifest, error: Error) -> Result<Finding> {
        // The journal can restore the base, so it isn't lost.
        if error.kind() == ErrorKind::Pending {
            return Err(error);
        }
        finding(self.disk, point, error)
    }

    /// Rebuilds lost or damaged data files, oldest first, so that later ones can be rebuilt from them.
    pub(super) fn data(&mut self, damaged: Vec<(Manifest, Finding)>) -> Result<()> {
        for (point, fault) in damaged {
            let before = self.before(&point);
            if self.adopt(&point, before.as_ref())?
                || before.is_none() && self.adopt_base(&point)?
            {
                continue;
            }
            if let Some((_, how)) = self.make_again(&point, before.as_ref())? {
                self.say(&point.data.file, how);
            } else if !self.adopt_base(&point)? {
                self.broken.insert(point.id.clone());
                self.faults.push((point.stem(), fault));
            }
        }
        self.bases_of_deletions()
    }

    /// Uses a base that a deletion may have created for the next snapshot, if the deletion's record is lost: it serves
    /// a snapshot whose diff has no intact base.
    fn bases_of_deletions(&mut self) -> Result<()> {
        for point in self.disk.points().to_vec() {
            let before = self.disk.parent_of(&point);
            let on_sound = before.is_some_and(|before| self.is_whole(before));
            if !point.is_base() && !on_sound && self.adopt_base(&point)? {
                self.broken.remove(&point.id);
                self.faults.retain(|(stem, _)| *stem != point.stem());
            }
        }
        Ok(())
    }

    /// Adopts a base next to the diff of a snapshot, or in its place, with the same content: the manifest becomes that
    /// of a base.
    fn adopt_base(&mut self, point: &Manifest) -> Result<bool> {
        if point.is_base() {
            return Ok(false);
        }
        for ending in BASE_ENDINGS {
            let file = format!("{}.{ending}", point.stem());
            let path = self.disk.path(&file);
            if !self.disk.names.contains(&file) || check_plain(&path).is_err() {
                continue;
            }
            let (length, used) = lengths(&path)?;
            let known = if PACKED.ends_with(ending) {
                let diff = File::open(&path).and_then(DiffFile::open_indexed);
                let diff = match diff {
                    Ok(diff) if starts_from_nothing(&diff) => diff,
                    Ok(_) => continue,
                    Err(error) => {
                        self.finding(point, error)?;
                        continue;
                    }
                };
                let identity = Some(ContentDigest(*diff.digest()));
                point.stored_as(None, file, (length, length), identity)
            } else {
                point.stored_as(None, file, (length, used), None)
            };
            if let Err(error) = sound(self.disk, &known, self.work) {
                self.finding(point, error)?;
                continue;
            }
            if !self.means.dry_run {
                self.disk.write_manifest(&known, Overwrite::Yes)?;
                if known.data.file != point.data.file {
                    move_aside(&self.disk.path(&point.data.file))?;
                }
            }
            let how = "its data is a base: a deletion that was interrupted had made it";
            self.say(&point.stem().manifest(), how);
            self.disk.put(known);
            return Ok(true);
        }
        Ok(false)
    }

    /// Adopts a file that differs from the one in the manifest but has the right content: the manifest is updated.
    fn adopt(&mut self, point: &Manifest, before: Option<&Manifest>) -> Result<bool> {
        if !self.disk.names.contains(&point.data.file) || self.lying.contains(&point.id) {
            return Ok(false);
        }
        let path = self.disk.path(&point.data.file);
        if check_plain(&path).is_err() {
            return Ok(false);
        }
        let (length, used) = lengths(&path)?;
        let mut known = point.clone();
        known.data.length = length;
        known.used_size = if point.data.identity.is_some() {
            length
        } else {
            used
        };
        if point.data.identity.is_some() {
            if before.is_none() && !point.is_base() {
                return Ok(false);
            }
            let diff = File::open(&path).and_then(|file| DiffFile::open(file, self.work.progress));
            let diff = match diff {
                Ok(diff) => diff,
                Err(error) => return self.finding(point, error).map(|_| false),
            };
            let starts =
                before.map_or_else(|| start_of(point, &diff), |before| before.content_digest);
            if diff.trailer().base_digest != Some(starts) {
                return Ok(false);
            }
            known.data.identity = Some(ContentDigest(*diff.digest()));
        }
        if let Err(error) = sound(self.disk, &known, self.work) {
            return self.finding(point, error).map(|_| false);
        }
        if !self.means.dry_run {
            self.disk.write_manifest(&known, Overwrite::Yes)?;
        }
        let file = point.stem().manifest();
        self.say(&file, "from the data, which has the right content");
        self.disk.put(known);
        Ok(true)
    }

    /// Rebuilds the data of `point` on top of `before`, from the first source that proves to have its content. Returns
    /// the updated manifest.
    fn make_again(
        &mut self,
        point: &Manifest,
        before: Option<&Manifest>,
    ) -> Result<Option<(Manifest, String)>> {
        if let Some(how) = self.copy_diff(point)? {
            return Ok(Some((point.clone(), how)));
        }
        if before.is_none() && !point.is_base() {
            return Ok(None);
        }
        self.make_from_elsewhere(point, before)
    }

    /// As [`make_again`](Self::make_again), from an image of the whole disk at that time.
    pub(super) fn make_from_elsewhere(
        &mut self,
        point: &Manifest,
        before: Option<&Manifest>,
    ) -> Result<Option<(Manifest, String)>> {
        for target in self.elsewhere(point) {
            let target = match target {
                Ok(target) => target,
                Err(error) => {
                    self.refuse(error)?;
                    continue;
                }
            };
            let how = format!("from {}", shown(target.path()));
            if self.means.dry_run {
                return Ok(Some((point.clone(), how)));
            }
            let made = match before {
                None => self.new_base(point, &target),
                Some(before) => self.new_diff(point, before, &target),
            };
            match made {
                Ok(made) => {
                    // No other source helps here: an error is about the store itself.
                    self.replace(point, &made)?;
                    return Ok(Some((made, how)));
                }
                Err(error) => self.refuse(error)?,
            }
        }
        Ok(None)
    }

    /// Copies the very same diff from another store.
    fn copy_diff(&mut self, point: &Manifest) -> Result<Option<String>> {
        // The same file would make the same.
        if point.data.identity.is_none() || self.lying.contains(&point.id) {
            return Ok(None);
        }
        let means = self.means;
        for store in &means.stores {
            let points = store.points().iter();
            let mut same = points.filter(|other| other.data.identity == point.data.identity);
            let Some(other) = same.next() else {
                continue;
            };
            let from = store.path(&other.data.file);
            let opened =
                sound(store, other, self.work).and_then(|()| File::open(store.data_path(other)?));
            let from_file = match opened {
                Ok(file) => file,
                Err(error) => {
                    self.refuse(error)?;
                    continue;
                }
            };
            if !self.means.dry_run {
                let new = new_path(self.disk, point);
                let file = self.disk.new_file(new, &point.data.file)?;
                let mut out = file.file().appender();
                out.take_all(&mut from_file.reader())
                    .map_err(|e| Error::io("cannot copy the diff", e).with_path(&from))?;
                drop(out);
                file.publish(Overwrite::Yes)?;
                self.replace(point, point)?;
            }
            return Ok(Some(format!(
                "the same file in {}",
                shown(&store.label(other))
            )));
        }
        Ok(None)
    }

    /// A base that holds what `target` does, complete under its provisional name: an image in a disk that has such.
    fn new_base(&self, point: &Manifest, target: &OtherCopy<'_>) -> Result<Manifest> {
        let mut points = self.disk.points().iter();
        if !points.any(|point| point.is_base() && !point.is_packed()) {
            return self.new_packed(point, target);
        }
        let (format, ending) = if point.virtual_size <= LARGEST_DYNAMIC {
            (Format::Dynamic, "vhd")
        } else {
            (Format::Raw, "raw")
        };
        let file = format!("{}.{ending}", point.stem());
        let mut made = point.stored_as(None, file, (0, 0), None);
        let path = new_path(self.disk, &made);
        let image = target.image();
        let mut base = NewImage::create(
            &path,
            &NewImageOptions {
                format,
                virtual_size: image.virtual_size(),
                block_size: None,
                identity: point.source.footer(),
                parent: None,
                overwrite: Overwrite::EvenAParent,
                made_from: self.disk.audience().clone(),
                dense: false,
            },
        )?;
        self.work
            .progress
            .begin("copying the base", point.virtual_size);
        let options = CopyOptions {
            work: self.work,
            digest: true,
        };
        let found = copy(image, base.image_mut(), options)?;
        check(image.path(), "content digest", found, point)?;
        image.check_unchanged()?;
        base.publish()?;
        (made.data.length, made.used_size) = lengths(&path)?;
        Ok(made)
    }

    /// The same, packed.
    fn new_packed(&self, point: &Manifest, target: &OtherCopy<'_>) -> Result<Manifest> {
        let file = format!("{}{PACKED}", point.stem());
        let draft = point.stored_as(None, file.clone(), (0, 0), None);
        let stored = self.disk.new_file(new_path(self.disk, &draft), &file)?;
        let image = target.image();
        self.work
            .progress
            .begin("packing the base", point.virtual_size);
        let written = write_packed(
            (image, side(point)),
            (stored.file().appender(), self.disk.path(&file)),
            None,
            self.work,
            &mut |_, _| Ok(()),
        )?;
        let found = written.comparison.target_digest;
        check(image.path(), "content digest", found, point)?;
        let (len, digest) = (written.len, ContentDigest(written.digest));
        drop(written);
        stored.publish(Overwrite::Yes)?;
        Ok(point.stored_as(None, file, (len, len), Some(digest)))
    }

    /// As [`new_base`](Self::new_base), a diff on top of `before`.
    fn new_diff(
        &self,
        point: &Manifest,
        before: &Manifest,
        target: &OtherCopy<'_>,
    ) -> Result<Manifest> {
        if self.is_whole(before) {
            let base = self.disk.image(before)?;
            return self.diff_over(point, (before, &base), target);
        }
        let mut last = Error::damaged("the base of this diff can't be read")
            .with_path(self.disk.label(before))
            .with_remedy(
                Remedy::new("specify an image or a store that has it")
                    .named(": ")
                    .step(Step::Choose(Choice::FromImage), "")
                    .named(", ")
                    .step(Step::Choose(Choice::FromStore), ""),
            );
        for base in self.elsewhere(before) {
            let made = base.and_then(|base| self.diff_over(point, (before, base.image()), target));
            match made {
                Ok(made) => return Ok(made),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn diff_over(
        &self,
        point: &Manifest,
        (before, base): (&Manifest, &dyn Opened),
        target: &OtherCopy<'_>,
    ) -> Result<Manifest> {
        let file = format!("{}{PACKED}", point.stem());
        let parent = Some(before.id.clone());
        let made = point.stored_as(parent.clone(), file.clone(), (0, 0), None);
        let stored = self.disk.new_file(new_path(self.disk, &made), &file)?;
        let image = target.image();
        self.work.progress.begin("comparing", point.virtual_size);
        let options = DiffOptions {
            work: self.work,
            compression: Compression::default(),
            digests: true,
            equal: &NoneShared,
            confirm: &|| {
                base.check_unchanged()?;
                image.check_unchanged()
            },
        };
        let out = stored.file().appender();
        let written = write_diff(
            (base, side(before)),
            (image, side(point)),
            out,
            self.disk.path(&file),
            options,
        )?;
        let found = &written.comparison;
        check(base.path(), "content digest", found.base_digest, before)?;
        check(image.path(), "content digest", found.target_digest, point)?;
        let (len, digest) = (written.len, ContentDigest(written.digest));
        drop(written);
        stored.publish(Overwrite::Yes)?;
        Ok(point.stored_as(parent, file, (len, len), Some(digest)))
    }

    /// Replaces the damaged file, which is set aside, by the one that is complete under its provisional name. A crash
    /// in between leaves a file that the next command renames, and for which the next repair writes the manifest.
    fn replace(&mut self, old: &Manifest, made: &Manifest) -> Result<()> {
        move_aside(&self.disk.path(&old.data.file))?;
        if made != old {
            self.disk.write_manifest(made, Overwrite::Yes)?;
        }
        let new = new_path(self.disk, made);
        rename(&new, &self.disk.path(&made.data.file))?;
        self.disk.names.insert(made.data.file.clone());
        self.disk.put(made.clone());
        Ok(())
    }
}

fn new_path(disk: &Disk, point: &Manifest) -> std::path::PathBuf {
    disk.path(&format!("{}{NEW}", point.data.file))
}

/// What is wrong with the snapshot of another disk as which `point` begins, if anything.
pub(super) fn ground_fault(disk: &Disk, point: &Manifest) -> Option<Error> {
    let like = point.like.as_ref()?;
    disk.below(like).err()
}

/// Reads all of a snapshot's own file.
pub(super) fn sound(disk: &Disk, point: &Manifest, work: Work<'_>) -> Result<()> {
    structure(disk, point)?;
    file_data(disk, point, work)
}

fn check(path: &Path, field: &str, found: Option<ContentDigest>, point: &Manifest) -> Result<()> {
    if found == Some(point.content_digest) {
        return Ok(());
    }
    let found = found.map_or_else(|| "none".to_owned(), |digest| digest.to_string());
    Err(
        Error::mismatch("this image doesn't have the content of the snapshot")
            .with_path(path)
            .with_field(field)
            .with_found(found)
            .with_expected(format_args!(
                "{}, as in {}",
                point.content_digest, point.name
            )),
    )
}
