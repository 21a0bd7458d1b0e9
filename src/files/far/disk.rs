//! Writing an image to a new managed disk.
//!
//! ```text
//! created for an upload, tagged as incomplete ─► access granted ─► data, then the footer ─► access revoked ─► tag removed
//! ```
//!
//! An error deletes what was created. After a kill or a signal the tag remains, and the next upload to that name replaces the disk:
//! the service doesn't allow continuing an upload whose access has ended.

use std::collections::BTreeMap;

use super::image::BlobImage;
use crate::cloud::{Access, Cloud, NewDisk, Resource, ResourceKind, ResourceName};
use crate::error::{Error, ErrorKind, Result};
use crate::image::{ImageMut, RawImage};
use crate::page::PAGE_SIZE;
use crate::storage::WriteAt as _;
use crate::vhd::Footer;

/// The tag of a disk whose upload isn't complete.
const TAG: (&str, &str) = ("vhdkit-upload", "incomplete");

/// A managed disk to be created from an image.
#[derive(Debug, Clone, Copy)]
pub struct NewManagedDisk<'a> {
    /// Its name.
    pub name: &'a ResourceName,
    /// Its region.
    pub region: &'a str,
    /// Bytes of the virtual disk, a whole number of MiB.
    pub virtual_size: u64,
    /// The footer of the fixed VHD that is uploaded.
    pub footer: &'a Footer,
}

/// Creates a managed disk: `write` writes the virtual disk, which is zero at first; `check` may read it back when it is complete.
/// Access is revoked in any case. Returns the disk.
///
/// # Errors
///
/// [`Usage`](ErrorKind::Usage) if there is a disk with that name, [`Locked`](ErrorKind::Locked) if an incomplete one is in use. What
/// was created is deleted after an error.
pub fn upload_disk(
    cloud: &Cloud,
    new: NewManagedDisk<'_>,
    write: impl FnOnce(&mut dyn ImageMut) -> Result<()>,
    check: impl FnOnce(BlobImage) -> Result<()>,
) -> Result<Resource> {
    remove_incomplete(cloud, new.name)?;
    let tags = BTreeMap::from([(TAG.0.to_owned(), TAG.1.to_owned())]);
    let bytes = new.virtual_size.checked_add(PAGE_SIZE).ok_or_else(|| {
        Error::usage("a managed disk can't have this size").with_path(new.name.shown())
    })?;
    let made = cloud.create_disk(
        new.name,
        &NewDisk {
            region: new.region,
            bytes,
            sku: None,
            tags: &tags,
        },
    )?;
    match fill(cloud, new, &made, write, check) {
        Ok(()) => cloud.refresh(&made),
        Err(error) => Err(discarded(cloud, &made, error)),
    }
}

fn fill(
    cloud: &Cloud,
    new: NewManagedDisk<'_>,
    made: &Resource,
    write: impl FnOnce(&mut dyn ImageMut) -> Result<()>,
    check: impl FnOnce(BlobImage) -> Result<()>,
) -> Result<()> {
    let shown = new.name.shown();
    let blob = cloud.open(made, Access::Write, shown)?;
    let mut image = RawImage::with_size(blob, new.virtual_size);
    write(&mut image)?;
    image.flush()?;
    let blob = image.storage();
    blob.write_all_at(&new.footer.encode(), new.virtual_size)?;
    blob.sync()?;
    drop(image);
    let uploaded = cloud.refresh(made)?;
    if uploaded.is_granted() {
        return Err(Error::new(
            ErrorKind::Locked,
            "the access for the upload couldn't be revoked, so the disk isn't complete",
        )
        .with_path(shown));
    }
    check(BlobImage::open(
        cloud.open(&uploaded, Access::Read, shown)?,
        None,
        None,
    )?)?;
    cloud.set_tags(&uploaded, &BTreeMap::new())
}

/// Deletes the disk called `name` if an interrupted upload left it.
fn remove_incomplete(cloud: &Cloud, name: &ResourceName) -> Result<()> {
    cloud.clean_up();
    let Some(found) = cloud.get(name, ResourceKind::Disk)? else {
        return Ok(());
    };
    if found.tags.get(TAG.0).map(String::as_str) != Some(TAG.1) {
        return Err(Error::usage("there is a disk of this name already")
            .with_path(name.shown())
            .with_hint("choose another name: a disk that is there is never overwritten"));
    }
    let attached = found
        .state
        .as_deref()
        .is_some_and(|state| state.eq_ignore_ascii_case("Attached"));
    if found.is_granted() || attached {
        return Err(Error::new(
            ErrorKind::Locked,
            "an upload to this disk isn't complete, and the disk is in use",
        )
        .with_path(name.shown())
        .with_hint("wait for the command that writes to it; if there is none, revoke the access to the disk or detach it"));
    }
    cloud.delete(&found)
}

/// The error, after what was created was deleted.
fn discarded(cloud: &Cloud, made: &Resource, error: Error) -> Error {
    match cloud.delete(made) {
        Ok(()) => error.with_hint("the incomplete disk was deleted: run the command again"),
        Err(_) => error.with_hint(
            "the incomplete disk is still there: run the command again, which replaces it",
        ),
    }
}
