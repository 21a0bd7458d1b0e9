//! Gives a snapshot another name. Its files are called by it, so this is carried out as a deletion of nothing: recorded,
//! and finished by the next command that changes the disk, whatever interrupts it.

use super::delete::carry_out;
use super::intent::Intent;
use super::{Disk, Manifest, Work, check_name, partial};
use crate::error::{Error, Result};

/// Renames the snapshot called `name` to `new`. Its id stays, by which copies know it. Returns it as it is now; what is
/// called so already isn't written.
///
/// # Errors
///
/// [`Usage`](crate::ErrorKind::Usage) if there is no such snapshot, or another one is called `new`.
pub fn rename_point(disk: &mut Disk, name: &str, new: &str, work: Work<'_>) -> Result<Manifest> {
    disk.check_writable()?;
    check_name(new)?;
    if let Some(part) = disk.copying() {
        return Err(partial::incomplete(disk, part));
    }
    let old = disk.find(name)?.clone();
    if name == new {
        return Ok(old);
    }
    if disk.points.named(new).is_some() {
        return Err(Error::usage("another snapshot is called so")
            .with_path(disk.folder())
            .with_found(new)
            .with_hint("choose another name, or rename that one first"));
    }
    let mut renamed = Manifest {
        name: new.to_owned(),
        ..old.clone()
    };
    let stem = old.stem().to_string();
    let ending = old.data.file.strip_prefix(&stem).ok_or_else(|| {
        Error::damaged("the data isn't called as its snapshot is")
            .with_path(disk.folder())
            .with_field("data.file")
            .with_found(&old.data.file)
            .with_expected(&stem)
    })?;
    renamed.data.file = format!("{}{ending}", renamed.stem());
    let intent = Intent::new(Vec::new(), Some([old, renamed.clone()]), false);
    carry_out(disk, &intent, work)?;
    Ok(renamed)
}
