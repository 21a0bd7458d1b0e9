//! Reads the data of the snapshots and verifies that it is unchanged since they were created; if not, finds out where.

use std::collections::HashSet;

use super::contents::{base_changed, contents, wrong_base};
use super::findings::{Look, ReadData};
use crate::diff::DiffFile;
use crate::error::{Error, ErrorKind, Reason, Result};
use crate::files::open_image;
use crate::image::{DIGEST_WINDOW, Image, ListedWindow, WINDOW_SIZE, WindowList, content_digest};
use crate::remedy::{Remedy, SnapshotJob};
use crate::snapshot::layout::base_options;
use crate::snapshot::{Disk, Manifest, Work};
use crate::storage::{File, ReadAt as _};
use crate::vhd::UniqueId;

/// Reads the data of all snapshots that aren't known to be `bad`.
pub(super) fn data(
    look: &mut Look<'_>,
    read: ReadData,
    list: Option<&WindowList<File>>,
    work: Work<'_>,
) -> Result<()> {
    let disk = look.disk;
    let bad: HashSet<u32> = look.bad.clone();
    let mut dice = Dice(u64::from_be_bytes(
        UniqueId::random()
            .0
            .first_chunk()
            .copied()
            .unwrap_or_default(),
    ));
    let chosen = |dice: &mut Dice| match read {
        ReadData::Nothing => false,
        ReadData::Percent(percent) => dice.roll(percent),
        ReadData::All => true,
    };
    for point in disk.points() {
        // What an image holds is computed below, or looked at in part with the newest snapshot.
        let is_image = point.is_base() && !point.is_packed();
        if bad.contains(&point.sequence) || is_image || !chosen(&mut dice) {
            continue;
        }
        if let Err(error) = file_data(disk, point, work) {
            look.add(point, error)?;
        }
    }
    if read == ReadData::All && is_proven(look, work)? {
        return Ok(());
    }
    match (disk.newest(), list) {
        (Some(newest), Some(list)) if !bad.contains(&newest.sequence) => {
            let windows = list.windows().filter(|_| chosen(&mut dice));
            newest_windows(look, newest, windows, work)
        }
        _ => Ok(()),
    }
}

/// Verifies what the snapshots hold that aren't known to be bad. Returns whether the newest one holds what it should.
fn is_proven(look: &mut Look<'_>, work: Work<'_>) -> Result<bool> {
    let disk = look.disk;
    let found = contents(disk, &look.bad, work)?;
    for wrong in found.wrong {
        look.tell(wrong.error, wrong.affected);
    }
    for (point, error) in found.failed {
        look.add(&point, error)?;
    }
    Ok(disk
        .newest()
        .is_some_and(|newest| found.right.contains(&newest.id)))
}

/// Reads the windows of the newest snapshot individually, so that damage can be located.
fn newest_windows(
    look: &mut Look<'_>,
    newest: &Manifest,
    windows: impl Iterator<Item = Result<ListedWindow>>,
    work: Work<'_>,
) -> Result<()> {
    let disk = look.disk;
    let image = match disk.image(newest) {
        Ok(image) => image,
        Err(error) => return look.add_unless_known(newest, error),
    };
    work.progress
        .begin("verifying the newest", newest.virtual_size);
    let (mut first, mut places) = (None, 0_u64);
    let workers = work.workers;
    workers.ordered_within(
        (workers.room(), usize::MAX),
        |_| 2 * WINDOW_SIZE,
        windows,
        |window| {
            work.progress.check()?;
            Ok(first_wrong(&image, &window))
        },
        |result: Result<Option<u64>>| {
            if let Some(wrong) = result.transpose() {
                places = places.saturating_add(1);
                first.get_or_insert(wrong);
            }
            Ok(())
        },
    )?;
    let place = match first {
        None => return Ok(()),
        Some(Ok(place)) => place,
        // A damaged file was found before.
        Some(Err(error)) => return look.add_unless_known(newest, error),
    };
    let at_place = |error: Error| {
        error
            .with_field("virtual disk")
            .with_offset(place)
            .with_found(format_args!("another hash of this window ({places} such)"))
    };
    // Damage to a base can't be located by itself: its only digest is that of the whole disk. The base is what is wrong
    // here.
    if let Some(base) = disk.chain(newest)?.first() {
        let base = disk.path(&base.data.file);
        let mut known = look.found.findings.iter_mut();
        if let Some(known) = known.find(|finding| {
            finding.error.path() == Some(&base)
                && finding.error.reason() == Some(Reason::WrongContent)
        }) {
            known.error = at_place(base_changed(disk, &base));
            return Ok(());
        }
    }
    let error =
        Error::damaged("the content of the disk has changed since the snapshot was created")
            .with_path(disk.label(newest))
            .with_remedy(
                Remedy::new("a file of the store is damaged; this finds it: ").step(
                    disk.step(SnapshotJob::Verify { read_data: true }),
                    "a verification that reads all data",
                ),
            );
    look.add(newest, at_place(error))
}

/// Reads all of a snapshot's own file.
pub(in crate::snapshot) fn file_data(disk: &Disk, point: &Manifest, work: Work<'_>) -> Result<()> {
    if point.is_base() && !point.is_packed() {
        base_data(disk, point, work)
    } else {
        diff_data(disk, point, work)
    }
}

fn base_data(disk: &Disk, point: &Manifest, work: Work<'_>) -> Result<()> {
    let path = disk.data_path(point)?;
    let image = open_image(&path, &base_options(&path))?;
    work.progress
        .begin("verifying a base", image.virtual_size());
    let digest = content_digest(&image, work.workers, work.progress)?;
    if digest == point.content_digest {
        return Ok(());
    }
    Err(wrong_base(disk, point, digest))
}

fn diff_data(disk: &Disk, point: &Manifest, work: Work<'_>) -> Result<()> {
    let file = File::open(disk.data_path(point)?)?;
    work.progress.begin("verifying a diff", file.byte_len()?);
    let read = DiffFile::open_unpacking(file, work.workers, work.progress).map(drop);
    read.map_err(|error| match error.kind() {
        ErrorKind::Damaged => error.override_remedy(disk.repair_remedy()),
        _ => error,
    })
}

/// The first byte of the first digest window that doesn't match the list.
fn first_wrong(image: &dyn Image, window: &ListedWindow) -> Result<Option<u64>> {
    let size = image.virtual_size();
    let mut buffer = Vec::new();
    let starts = (window.start..window.start.saturating_add(WINDOW_SIZE)).step_by(1 << 20);
    for (start, hash) in starts.zip(window.hashes) {
        let len = size.saturating_sub(start).min(DIGEST_WINDOW);
        buffer.resize(usize::try_from(len).map_err(too_long)?, 0);
        image.read_exact_at(&mut buffer, start.min(size))?;
        let right = match hash {
            Some(hash) => *blake3::hash(&buffer).as_bytes() == hash,
            None => buffer.iter().all(|byte| *byte == 0),
        };
        if !right {
            return Ok(Some(start));
        }
    }
    Ok(None)
}

fn too_long(error: std::num::TryFromIntError) -> Error {
    Error::usage("a window doesn't fit into memory").with_source(error)
}

/// Unpredictable numbers, for choosing what is read.
struct Dice(u64);

impl Dice {
    /// Returns `true` in about `percent` of a hundred cases.
    fn roll(&mut self, percent: u8) -> bool {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % 100 < u64::from(percent)
    }
}
