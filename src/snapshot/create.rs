//! Creates a new snapshot: from an image, or from a diff that was created elsewhere.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::disk::is_passing;
use super::doubts::doubts;
use super::layout::{NEW, PACKED};
use super::manifest::{FIRST_SCHEMA, LAST_SEQUENCE, hex};
use super::marked::STORE_VERSION;
use super::marker::{admit_likes, expect_store};
use super::packed::write_packed;
use super::point::side;
use super::windows::{self, MadeList};
use super::{
    BaseForm, Data, DataKind, Disk, Doubt, Family, Like, Manifest, Origin, OtherPoint,
    PointFileName, PointImage, State, Time, Work, check_name, partial,
};
use crate::diff::{
    Compression, DiffFile, DiffHeader, DiffOptions, Overlay, Side, update_window_hashes,
    write_diff_listed,
};
use crate::error::{Error, Result};
#[cfg(feature = "azure")]
use crate::files::Claim;
use crate::files::{Format, NewImage, NewImageOptions, Opened};
use crate::image::{
    ContentDigest, CopyOptions, Image, NoneShared, SharedExtents, WindowList, copy_hashed,
};
use crate::remedy::{Choice, Remedy, SnapshotJob, Step, Tool};
use crate::storage::{Audience, File, Overwrite, ReadAt, is_sealed};
use crate::text::shown;
use crate::text::without_secrets;
use crate::vhd::UniqueId;

/// The largest disk that a dynamic VHD can contain; larger bases are raw.
pub(super) const LARGEST_DYNAMIC: u64 = 2040 << 30;

/// Options for a new snapshot.
#[derive(Debug, Clone, Default)]
pub struct NewPoint {
    /// Its name.
    pub name: String,
    /// The time of its content; now, if `None`.
    pub time: Option<Time>,
    /// The disk to which it belongs, as far as known.
    pub family: Family,
    /// User-defined tags.
    pub tags: BTreeMap<String, String>,
    /// Whether it becomes a base.
    pub full: bool,
    /// The snapshot of another disk from which only what differs is stored, if it is the first of its disk.
    pub like: Option<OtherPoint>,
    /// What another program says of what changed since the newest snapshot, and a random number to check it by.
    #[cfg(feature = "azure")]
    pub claim: Option<(Claim, u64)>,
    /// The content digest that it must turn out to have, if that is known beforehand.
    pub expected: Option<ContentDigest>,
    /// What it is stored as if it is a base; what the version of its store has, if `None`.
    pub base: Option<BaseForm>,
    /// How its data is packed; level 3 of zstd if it is a base and level 1 if it is a diff, if `None`.
    pub compression: Option<Compression>,
    /// Limits who may access it. Nobody gets access who has none to the image, or to the newest snapshot of the disk.
    pub made_from: Audience,
}

/// A snapshot that was created.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Created {
    /// Its manifest.
    pub manifest: Manifest,
    /// Bytes updated since the previous snapshot; all data of a base.
    pub updated: u64,
    /// Bytes cleared since the previous snapshot.
    pub cleared: u64,
    /// The unique ids of the VHDs of the previous and this snapshot, if they differ and nothing else shows that both
    /// belong to one disk.
    pub other_unique_id: Option<[String; 2]>,
    /// Differences from the previous snapshot that may indicate a mistake.
    pub doubts: Vec<Doubt>,
}

/// Creates a snapshot of `image`. Only the image and those windows of the newest snapshot are read whose hashes differ
/// from the image's. The first snapshot, or a full one, is a base.
pub fn create(
    disk: &mut Disk,
    image: &dyn Opened,
    new: &NewPoint,
    work: Work<'_>,
) -> Result<Created> {
    let draft = Draft::of(disk, new, origin(&image.side()))?;
    disk.made_from(new.made_from.clone().and(Audience::of(image.files())?));
    if let Some(other) = &new.like {
        return add_like(disk, image, (other, new), draft, work);
    }
    match disk.newest().cloned() {
        Some(newest) if !new.full => {
            let compression = new.compression.unwrap_or_default();
            let before = Before {
                known: windows::of_newest(disk, &newest, work)?,
                image: disk.image(&newest)?,
                point: newest,
                like: None,
            };
            add_changes(disk, image, (before, new), (draft, compression), work)
        }
        #[cfg(feature = "azure")]
        _ if new.claim.is_some() => Err(Error::usage(
            "a list of changes needs a snapshot since which they were made",
        )
        .with_path(disk.folder())
        .with_hint("make the first snapshot, or a new base, without such a list")),
        _ => match new.base.map_or_else(|| base_form(disk), Ok)? {
            BaseForm::Packed => add_packed(disk, image, (draft, new.compression), work),
            BaseForm::Image => add_base(disk, image, draft, work),
        },
    }
}

/// The first snapshot of a disk as what differs from a snapshot of another one, which stays locked until it is complete.
fn add_like(
    disk: &mut Disk,
    image: &dyn Opened,
    (other, new): (&OtherPoint, &NewPoint),
    draft: Draft,
    work: Work<'_>,
) -> Result<Created> {
    let refuse = |what: &'static str| {
        let already = SnapshotJob::Rebase {
            like: Some(other.to_string()),
        };
        Err(Error::usage(what)
            .with_path(disk.folder())
            .with_found(other)
            .with_remedy(
                Remedy::new(
                    "add the snapshot without that; to store the first one as what differs",
                )
                .named(": ")
                .step(disk.step(already), ", rebase the disk"),
            ))
    };
    if disk.newest().is_some() {
        return refuse("only the first snapshot of a disk can begin as one of another disk");
    }
    if new.full {
        return Err(Error::usage(
            "a base doesn't begin as a snapshot of another disk",
        ));
    }
    #[cfg(feature = "azure")]
    if new.claim.is_some() {
        return Err(Error::usage(
            "a list of changes needs a snapshot of the same disk",
        ));
    }
    if base_form(disk)? == BaseForm::Image {
        // It says what to do about that.
        admit_likes(disk.store())?;
    }
    let (ground, point) = disk.choose_ground(other)?;
    let before = Before {
        known: windows::of_other(disk, (&ground, &point), work)?,
        image: ground.image(&point)?,
        like: Some(Like::new(ground.name(), &point)),
        point,
    };
    let compression = new.compression.unwrap_or(super::packed::BASE_COMPRESSION);
    add_changes(disk, image, (before, new), (draft, compression), work)
}

/// What a new snapshot is compared with.
struct Before {
    point: Manifest,
    image: PointImage,
    known: WindowList<File>,
    /// `point`, if it is of another disk.
    like: Option<Like>,
}

/// What bases are in the store of `disk`: one of the first version stays what older programs read.
fn base_form(disk: &Disk) -> Result<BaseForm> {
    let version = expect_store(disk.store(), Some(disk.name()))?;
    Ok(if version < STORE_VERSION {
        BaseForm::Image
    } else {
        BaseForm::Packed
    })
}

/// Creates a snapshot from a diff that was created elsewhere and comes from `stream`, called `name` in messages. It
/// must be based on the newest snapshot, and is stored unchanged.
pub fn add_diff(
    disk: &mut Disk,
    (stream, name): (&mut dyn Read, &Path),
    new: &NewPoint,
    work: Work<'_>,
) -> Result<Created> {
    let Some(newest) = disk.newest().cloned() else {
        return Err(
            Error::usage("there is no snapshot yet to which a diff could be added")
                .with_path(disk.folder())
                .with_hint("create the first snapshot from the image that the diff starts from"),
        );
    };
    check_name(&new.name)?;
    disk.made_from(new.made_from.clone());
    // The snapshot's name is known only now; the file is moved next to the others.
    let stem = next_stem(disk, &new.name)?;
    let file = format!("{stem}.vhddiff");
    let stored = disk.new_file(disk.path(&format!("{file}{NEW}")), &file)?;
    let mut out = stored.file().appender();
    out.take_all(stream)
        .map_err(|e| Error::io("cannot store the incoming diff", e).with_path(disk.folder()))?;
    drop(out);
    let len = stored.file().byte_len()?;
    work.progress.begin("verifying the diff", len);
    let named = Named(stored.file().another_handle(), name.to_path_buf());
    let diff = DiffFile::open_unpacking(named, work.workers, work.progress)?;
    let target_digest = continues(disk, &newest, &diff)?;
    let target = &diff.header().target;
    let told = NewPoint {
        time: new.time.or(target
            .time
            .filter(|_| target.snapshot.is_some())
            .map(Time::from_unix)),
        family: told_family(target).join(&new.family)?,
        ..new.clone()
    };
    let draft = Draft::of(disk, &told, origin(target))?;
    let data = Data {
        kind: DataKind::Diff,
        file,
        length: len,
        identity: Some(ContentDigest(*diff.digest())),
    };
    let size = diff.header().target_size;
    let (updated, cleared) = (diff.trailer().update_bytes, diff.trailer().clear_bytes);
    let manifest = draft.finish(Some(&newest), size, target_digest, data, len);
    let known = windows::of_newest(disk, &newest, work)?;
    let list = carried(disk, (&newest, &known), diff, target_digest, work)?;
    let windows = [known.windows_listed(), list.windows()?];
    stored.publish(Overwrite::Yes)?;
    let mut created = finish(disk, manifest, &newest, [updated, cleared], windows)?;
    if told.family.source_unique_id.is_some() {
        created.other_unique_id = None;
    }
    publish_list(list, &created.manifest)?;
    Ok(created)
}

/// Computes the window hashes of the result of applying `diff` to the newest snapshot, which proves that it leads to
/// its target.
fn carried(
    disk: &Disk,
    (newest, known): (&Manifest, &WindowList<File>),
    diff: DiffFile,
    expected: ContentDigest,
    work: Work<'_>,
) -> Result<MadeList> {
    let (name, size) = (diff.name().to_path_buf(), diff.header().target_size);
    let before = disk.image(newest)?;
    let after = Overlay::new(before, Some(newest.content_digest), vec![Arc::new(diff)])?;
    work.progress.begin("checking the result", size);
    let (list, ()) = windows::make(disk, size, |each| {
        update_window_hashes(
            known,
            after.diffs(),
            &after,
            work.workers,
            work.progress,
            each,
        )
    })?;
    if list.digest != expected {
        return Err(
            Error::damaged("this diff doesn't lead to its recorded target")
                .with_path(name)
                .with_field("target digest")
                .with_found(list.digest)
                .with_expected(expected)
                .with_remedy(
                    Remedy::new("create it again")
                        .named(" with ")
                        .step(Step::Use(Tool::Diff), ""),
                ),
        );
    }
    Ok(list)
}

/// A file under construction whose name in messages is that of its source.
struct Named(File, PathBuf);

impl ReadAt for Named {
    fn name(&self) -> &Path {
        &self.1
    }

    fn byte_len(&self) -> Result<u64> {
        self.0.byte_len()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.0.read_exact_at(buf, offset)
    }
}

/// Fails unless a diff is based on the newest snapshot. Returns the digest of its target.
fn continues(disk: &Disk, newest: &Manifest, diff: &DiffFile) -> Result<ContentDigest> {
    let (DiffHeader { base_size, .. }, trailer) = (diff.header(), diff.trailer());
    let (Some(base), Some(target)) = (trailer.base_digest, trailer.target_digest) else {
        return Err(Error::mismatch(
            "this diff doesn't contain the digests of its base and its target",
        )
        .with_path(diff.name())
        .with_remedy(
            Remedy::new("create it again ")
                .named("without ")
                .step(Step::Choose(Choice::NoDigests), "with content digests"),
        ));
    };
    if base != newest.content_digest || *base_size != newest.virtual_size {
        return Err(
            Error::mismatch("this diff doesn't continue the newest snapshot")
                .with_path(diff.name())
                .with_field("base digest")
                .with_found(format_args!("{base} of {base_size} bytes"))
                .with_expected(format_args!(
                    "{} of {} bytes, which is {}",
                    newest.content_digest,
                    newest.virtual_size,
                    shown(&disk.label(newest))
                ))
                .with_hint("add the diffs in the order in which they were made, without gaps"),
        );
    }
    Ok(target)
}

pub(super) fn told_family(side: &Side) -> Family {
    Family {
        source_resource_id: side.source_resource_id.clone(),
        source_unique_id: side.source_unique_id.clone(),
    }
}

pub(super) fn origin(side: &Side) -> Origin {
    Origin {
        // The diff may come from a program that didn't remove a signature.
        name: side
            .name
            .as_deref()
            .map(|name| without_secrets(name).into_owned()),
        format: side.format.clone().unwrap_or_else(|| "raw".to_owned()),
        unique_id: side.unique_id.map(|id| UniqueId(id).to_string()),
        footer: side.footer.as_deref().map(|footer| hex(footer)),
    }
}

fn next_stem(disk: &Disk, name: &str) -> Result<PointFileName> {
    let last = disk.newest().map_or(0, |point| point.sequence);
    if last >= LAST_SEQUENCE {
        return Err(
            Error::usage("there is no number left for another snapshot of this disk")
                .with_path(disk.folder())
                .with_field("sequence")
                .with_found(last)
                .with_remedy(
                    Remedy::new("continue under another name, with a new base")
                        .named(": ")
                        .step(Step::Choose(Choice::Disk), ""),
                ),
        );
    }
    Ok(PointFileName {
        sequence: last.saturating_add(1),
        name: name.to_owned(),
    })
}

/// Fails if a snapshot with this time can't be added: snapshots are in chronological order.
fn check_time(disk: &Disk, time: Time) -> Result<()> {
    let Some(newest) = disk.newest().filter(|newest| time < newest.time) else {
        return Ok(());
    };
    let error = Error::usage("snapshots are added in the order of their times")
        .with_path(disk.folder())
        .with_field("time")
        .with_found(time)
        .with_expected(format_args!("{} ({}) or later", newest.time, newest.name));
    if newest.time <= Time::now() {
        return Err(error.with_remedy(
            Remedy::new("give the right time")
                .named(" with ")
                .step(Step::Choose(Choice::Time), ""),
        ));
    }
    let delete = SnapshotJob::Delete {
        name: Some(newest.name.clone()),
        last: disk.points().len() == 1,
    };
    let why = format!(
        "the time of {} is in the future; if it is wrong, delete that snapshot",
        newest.name
    );
    Err(error.with_remedy(Remedy::new(why).named(": ").step(disk.step(delete), "")))
}

/// What is known about a new snapshot before its data is.
struct Draft {
    stem: PointFileName,
    time: Time,
    family: Family,
    source: Origin,
    tags: BTreeMap<String, String>,
    disk_id: String,
    /// Whether its disk is identified with certainty.
    told: bool,
    expected: Option<ContentDigest>,
}

impl Draft {
    /// Checks that such a snapshot may follow the existing ones.
    fn of(disk: &mut Disk, new: &NewPoint, source: Origin) -> Result<Self> {
        disk.check_writable()?;
        check_name(&new.name)?;
        if let Some(part) = disk.copying() {
            return Err(partial::incomplete(disk, part));
        }
        if disk.points.named(&new.name).is_some() {
            return Err(Error::usage("a snapshot of this name already exists")
                .with_path(disk.folder())
                .with_found(&new.name)
                .with_hint("choose another name, or delete that one first"));
        }
        let time = new.time.unwrap_or_else(Time::now);
        check_time(disk, time)?;
        let family = disk.family()?.join(&new.family);
        let family = family.map_err(|e| e.with_path(disk.folder()))?;
        Ok(Self {
            stem: next_stem(disk, &new.name)?,
            time,
            told: new.family.source_unique_id.is_some(),
            expected: new.expected,
            family,
            source,
            tags: new.tags.clone(),
            disk_id: disk
                .newest()
                .and_then(|newest| newest.disk_id.clone())
                .unwrap_or_else(|| UniqueId::random().to_string()),
        })
    }

    /// Fails if `image` was read as something else than it must be.
    fn check(&self, image: &dyn Opened, found: ContentDigest) -> Result<()> {
        match self.expected {
            Some(expected) if expected != found => Err(Error::damaged(
                "this snapshot doesn't hold what is recorded of it",
            )
            .with_path(image.path())
            .with_field("content digest")
            .with_found(found)
            .with_expected(expected)
            .with_hint("nothing was kept of it: verify the source, with all of its data")),
            _ => Ok(()),
        }
    }

    /// What a diff to it is told of it.
    fn side(&self, image: &dyn Opened) -> Side {
        Side {
            time: Some(self.time.to_unix()),
            snapshot: Some(self.stem.name.clone()),
            source_resource_id: self.family.source_resource_id.clone(),
            source_unique_id: self.family.source_unique_id.clone(),
            ..image.side()
        }
    }

    fn finish(
        self,
        parent: Option<&Manifest>,
        virtual_size: u64,
        content_digest: ContentDigest,
        data: Data,
        used_size: u64,
    ) -> Manifest {
        let mut manifest = Manifest {
            schema_version: FIRST_SCHEMA,
            name: self.stem.name,
            sequence: self.stem.sequence,
            id: UniqueId::random().to_string(),
            disk_id: Some(self.disk_id),
            parent: parent.map(|parent| parent.id.clone()),
            like: None,
            time: self.time,
            family: self.family,
            virtual_size,
            content_digest,
            source: self.source,
            data,
            used_size,
            tags: self.tags,
            state: State::Complete,
            completion_percent: 100,
        };
        manifest.schema_version = manifest.schema();
        manifest
    }
}

fn add_base(disk: &mut Disk, image: &dyn Opened, draft: Draft, work: Work<'_>) -> Result<Created> {
    if is_sealed(disk.store()) {
        return Err(images_are_not_encrypted(disk));
    }
    let size = image.virtual_size();
    let (format, ending) = if size <= LARGEST_DYNAMIC {
        (Format::Dynamic, "vhd")
    } else {
        (Format::Raw, "raw")
    };
    let file = format!("{}.{ending}", draft.stem);
    let path = disk.path(&format!("{file}{NEW}"));
    let mut base = NewImage::create(
        &path,
        &NewImageOptions {
            format,
            virtual_size: size,
            block_size: None,
            identity: image.footer().cloned(),
            parent: None,
            overwrite: Overwrite::No,
            made_from: disk.audience().clone(),
            dense: false,
        },
    )?;
    work.progress.begin("copying the base", size);
    let options = CopyOptions { work, digest: true };
    let (list, _) = windows::make(disk, size, |each| {
        copy_hashed(image, base.image_mut(), options, each)
    })?;
    draft.check(image, list.digest)?;
    image.check_unchanged()?;
    base.publish()?;
    let windows = [windows::count(disk), list.windows().ok()];
    let before = disk.newest().cloned();
    let (length, used) = lengths(&path)?;
    let data = Data {
        kind: DataKind::Base,
        file,
        length,
        identity: None,
    };
    let manifest = draft.finish(None, size, list.digest, data, used);
    let doubts = before.map_or_else(Vec::new, |before| doubts(&before, &manifest, windows));
    disk.commit(manifest.clone())?;
    publish_list(list, &manifest)?;
    Ok(Created {
        manifest,
        updated: used,
        cleared: 0,
        other_unique_id: None,
        doubts,
    })
}

/// The error for a base that would be an image in an encrypted store: these are written in no order.
pub(super) fn images_are_not_encrypted(disk: &Disk) -> Error {
    Error::mismatch("an encrypted store has packed bases only")
        .with_path(disk.folder())
        .with_found("an image as a base")
}

/// A base that is a diff from nothing.
fn add_packed(
    disk: &mut Disk,
    image: &dyn Opened,
    (draft, compression): (Draft, Option<Compression>),
    work: Work<'_>,
) -> Result<Created> {
    let size = image.virtual_size();
    let file = format!("{}{PACKED}", draft.stem);
    let stored = disk.new_file(disk.path(&format!("{file}{NEW}")), &file)?;
    work.progress.begin("packing the base", size);
    let target = draft.side(image);
    let out = stored.file().appender();
    let (list, written) = windows::make(disk, size, |each| {
        let out = (out, disk.path(&file));
        write_packed((image, target), out, compression, work, each)
    })?;
    draft.check(image, list.digest)?;
    let windows = [windows::count(disk), list.windows().ok()];
    let before = disk.newest().cloned();
    let data = Data {
        kind: DataKind::Base,
        file,
        length: written.len,
        identity: Some(ContentDigest(written.digest)),
    };
    let manifest = draft.finish(None, size, list.digest, data, written.len);
    let doubts = before.map_or_else(Vec::new, |before| doubts(&before, &manifest, windows));
    let updated = written.comparison.update_bytes;
    drop(written);
    stored.publish(Overwrite::Yes)?;
    disk.commit(manifest.clone())?;
    publish_list(list, &manifest)?;
    Ok(Created {
        manifest,
        updated,
        cleared: 0,
        other_unique_id: None,
        doubts,
    })
}

/// Publishes the window hashes of `point`, which is complete without them.
fn publish_list(list: MadeList, point: &Manifest) -> Result<()> {
    list.publish().map_err(|error| {
        error.override_hint(format!(
            "the snapshot {} is complete and needn't be created again; only its window hashes are missing, which the next one computes from the data",
            point.name
        ))
    })
}

/// The length of a file, and its allocated size.
pub(super) fn lengths(path: &Path) -> Result<(u64, u64)> {
    use std::os::unix::fs::MetadataExt as _;
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    let length = match file.byte_len() {
        // Whoever reads it will say what is wrong with it.
        Err(error) if !is_passing(&error) => metadata.len(),
        length => length?,
    };
    Ok((length, metadata.blocks().saturating_mul(512)))
}

/// Where the newest snapshot and `image` are the same, as another program says; its list is checked as far as that is wanted.
#[cfg(feature = "azure")]
fn claimed<'a>(
    new: &'a NewPoint,
    before: &dyn Image,
    image: &dyn Image,
    work: Work<'_>,
) -> Result<Box<dyn SharedExtents + 'a>> {
    let Some((claim, seed)) = &new.claim else {
        return Ok(Box::new(NoneShared));
    };
    claim.check(before, image, *seed, (work.workers, work.progress))?;
    Ok(claim.shared(before, image))
}

#[cfg(not(feature = "azure"))]
fn claimed<'a>(
    _: &'a NewPoint,
    _: &dyn Image,
    _: &dyn Image,
    _: Work<'_>,
) -> Result<Box<dyn SharedExtents + 'a>> {
    Ok(Box::new(NoneShared))
}

fn add_changes(
    disk: &mut Disk,
    image: &dyn Opened,
    (before, new): (Before, &NewPoint),
    (draft, compression): (Draft, Compression),
    work: Work<'_>,
) -> Result<Created> {
    let Before {
        point: newest,
        image: before,
        known,
        like,
    } = before;
    let equal = claimed(new, &before, image, work)?;
    let file = format!("{}.vhddiff", draft.stem);
    let stored = disk.new_file(disk.path(&format!("{file}{NEW}")), &file)?;
    work.progress.begin("comparing", image.virtual_size());
    let options = DiffOptions {
        work,
        compression,
        digests: true,
        equal: &*equal,
        confirm: &|| image.check_unchanged(),
    };
    let target = draft.side(image);
    let out = stored.file().appender();
    let (list, written) = windows::make(disk, image.virtual_size(), |each| {
        write_diff_listed(
            &known,
            (&before, side(&newest)),
            (image, target),
            (out, disk.path(&file)),
            options,
            each,
        )
    })?;
    draft.check(image, list.digest)?;
    let data = Data {
        kind: DataKind::Diff,
        file,
        length: written.len,
        identity: Some(ContentDigest(written.digest)),
    };
    let told = draft.told;
    let parent = Some(&newest).filter(|_| like.is_none());
    let manifest = draft.finish(parent, image.virtual_size(), list.digest, data, written.len);
    let (updated, cleared) = (
        written.comparison.update_bytes,
        written.comparison.clear_bytes,
    );
    let windows = [known.windows_listed(), list.windows()?];
    drop((written, before));
    stored.publish(Overwrite::Yes)?;
    if like.is_some() {
        admit_likes(disk.store())?;
        let manifest = manifest.standing_on(like);
        disk.commit(manifest.clone())?;
        publish_list(list, &manifest)?;
        return Ok(Created {
            manifest,
            updated,
            cleared,
            // It is another disk, and may differ in anything.
            other_unique_id: None,
            doubts: Vec::new(),
        });
    }
    let mut created = finish(disk, manifest, &newest, [updated, cleared], windows)?;
    if told {
        created.other_unique_id = None;
    }
    publish_list(list, &created.manifest)?;
    Ok(created)
}

fn finish(
    disk: &mut Disk,
    manifest: Manifest,
    newest: &Manifest,
    [updated, cleared]: [u64; 2],
    windows: [u64; 2],
) -> Result<Created> {
    disk.commit(manifest.clone())?;
    let ids = [&newest.source.unique_id, &manifest.source.unique_id].map(Clone::clone);
    let other_unique_id = match ids {
        [Some(before), Some(now)] if before != now => Some([before, now]),
        _ => None,
    };
    let doubts = doubts(newest, &manifest, windows.map(Some));
    Ok(Created {
        manifest,
        updated,
        cleared,
        other_unique_id,
        doubts,
    })
}
