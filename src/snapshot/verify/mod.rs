//! Finds damage: in which file and where, and which points in time it affects.
//!
//! | file | looks at |
//! | --- | --- |
//! | `findings.rs` | (collects what the others find) |
//! | `structure.rs` | each snapshot's own file: that it is there, and continues the one before it |
//! | `history.rs` | all snapshots together: ids, names, times, and what says that there were more |
//! | `data.rs` | the bytes |
//! | `contents.rs` | what the bytes make: the content of each snapshot |
//!
//! Only what was read and found wrong is a finding. Anything that couldn't be read is reported as such.

mod contents;
mod data;
mod findings;
mod history;
mod structure;

use std::collections::HashSet;

pub(super) use contents::{Contents, Wrong, contents};
pub(super) use data::file_data;
use findings::Look;
pub use findings::{Finding, ReadData, Verified};
pub(super) use findings::{finding, is_missing};
pub(super) use history::check_footer;
pub(super) use structure::{check_base, structure};

use super::disk::is_passing;
use super::{Disk, PointFileName, Work, windows};
use crate::error::{Error, ErrorKind, Result};
use crate::image::WindowList;
use crate::storage::File;

/// Checks everything that belongs to the disk, and reads as much of its data as `read` specifies. Read errors don't
/// prevent checking the rest.
///
/// # Errors
///
/// Fails if the user stops it.
pub fn verify(disk: &mut Disk, read: ReadData, work: Work<'_>) -> Result<Verified> {
    let damaged = disk.take_damaged();
    let mut look = Look {
        disk,
        found: Verified::default(),
        bad: HashSet::new(),
        lacks_manifest: !damaged.is_empty(),
    };
    for error in damaged {
        let affected = after_damage(look.disk, &error);
        look.tell(error, affected);
    }
    structure::all(&mut look, work)?;
    history::all(&mut look);
    structure::strays(&mut look);
    let list = list(&mut look)?;
    if read != ReadData::Nothing {
        data::data(&mut look, read, list.as_ref(), work)?;
    }
    Ok(look.found)
}

/// The snapshots affected by an unreadable manifest: its own and all up to the next base.
fn after_damage(disk: &Disk, error: &Error) -> Vec<String> {
    let name = error.path().and_then(|path| path.file_name()?.to_str());
    let Some((stem, _)) = name.and_then(PointFileName::parse) else {
        return Vec::new();
    };
    let later = disk.points().iter().filter(|p| p.sequence > stem.sequence);
    let later = later.take_while(|point| !point.is_base());
    let later = later.map(|point| point.name.clone());
    [stem.name.clone()].into_iter().chain(later).collect()
}

/// The window hashes of the newest snapshot, if they exist and are right. Problems with them only cost the time to
/// compute them again.
fn list(look: &mut Look<'_>) -> Result<Option<WindowList<File>>> {
    match windows::open(look.disk) {
        Ok(Some(list)) => {
            history::check_list(look, list.digest());
            let newest = look.disk.newest().map(|newest| newest.content_digest);
            Ok(Some(list).filter(|list| newest == Some(list.digest())))
        }
        Ok(None) => Ok(None),
        Err(error) if error.kind() == ErrorKind::Interrupted => Err(error),
        Err(error) if is_passing(&error) => {
            look.found.unread.push(error);
            Ok(None)
        }
        Err(error) => {
            let hint = "it is rebuilt with the next snapshot; or remove it";
            look.tell(error.override_hint(hint), Vec::new());
            Ok(None)
        }
    }
}
