//! Bringing a disk of the first version to the newest: its bases that are images are packed.
//!
//! ```text
//! 000001-mon.vhddiff.new    complete; without its manifest it goes again
//! 000001-mon.json           names it: from here on it is the base
//! 000001-mon.vhddiff        gets its name
//! 000001-mon.vhd            goes
//! ```

use super::layout::{BASE_ENDINGS, NEW, PACKED};
use super::packed::pack_point;
use super::plain::is_absent;
use super::{Disk, Manifest, Work, partial};
use crate::error::Result;
use crate::image::Image as _;
use crate::storage::{Overwrite, remove_if_there, rename};

/// What an upgrade of a disk did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Upgraded {
    /// The names of the snapshots whose bases were packed.
    pub packed: Vec<String>,
    /// Bytes that these bases took before, and take now.
    pub used: [u64; 2],
}

/// Packs every base of `disk` that is an image; all snapshots stay what they are. What was interrupted is finished by
/// the same again.
///
/// # Errors
///
/// [`Damaged`](crate::ErrorKind::Damaged) if a base doesn't hold what its manifest says; it stays as it is then.
pub fn upgrade(disk: &mut Disk, work: Work<'_>) -> Result<Upgraded> {
    disk.check_writable()?;
    if let Some(part) = disk.copying() {
        return Err(partial::incomplete(disk, part));
    }
    let mut done = Upgraded::default();
    for point in disk.points().to_vec() {
        if !point.is_base() {
            continue;
        }
        if !point.is_packed() {
            let packed = pack(disk, &point, work)?;
            for (sum, bytes) in done
                .used
                .iter_mut()
                .zip([point.used_size, packed.used_size])
            {
                *sum = sum.saturating_add(bytes);
            }
            done.packed.push(point.name.clone());
        }
        remove_image(disk, &point)?;
    }
    Ok(done)
}

fn pack(disk: &mut Disk, point: &Manifest, work: Work<'_>) -> Result<Manifest> {
    let image = disk.image(point)?;
    let file = format!("{}{PACKED}", point.stem());
    let new = disk.path(&format!("{file}{NEW}"));
    let stored = disk.new_file(new.clone(), &point.data.file)?;
    work.progress.begin("packing a base", image.virtual_size());
    let (len, digest) = pack_point(&image, (stored.file(), disk.path(&file)), work)?;
    drop(image);
    stored.publish(Overwrite::Yes)?;
    let packed = point.stored_as(None, file.clone(), (len, len), Some(digest));
    disk.write_manifest(&packed, Overwrite::Yes)?;
    rename(&new, &disk.path(&file))?;
    disk.names.insert(file);
    disk.put(packed.clone());
    Ok(packed)
}

/// Removes the image that a packed base has replaced, perhaps in a run that was interrupted.
fn remove_image(disk: &mut Disk, point: &Manifest) -> Result<()> {
    let stem = point.stem();
    for ending in BASE_ENDINGS
        .iter()
        .filter(|ending| !PACKED.ends_with(**ending))
    {
        let file = format!("{stem}.{ending}");
        if !is_absent(&disk.path(&file)) {
            remove_if_there(&disk.path(&file))?;
            disk.names.remove(&file);
        }
    }
    Ok(())
}
