//! Renaming files, also to another file system.

use std::io::ErrorKind as IoKind;
use std::path::Path;

use super::directory::{remove, sync_folder_of};
use super::paths::folder_of;
use super::stored::refuse_part_of_store;
use super::{AtomicFile, Audience, File, Overwrite, on_disk, system};
use crate::error::{Error, Result};

/// Renames a file durably, by copying it if `to` is on another file system. The new name is durable before the old one
/// is removed.
pub fn rename(from: &Path, to: &Path) -> Result<()> {
    refuse_part_of_store(from)?;
    refuse_part_of_store(to)?;
    match system::rename(&on_disk(from), &on_disk(to)) {
        Ok(()) => sync_folder_of(to)?,
        Err(e) if e.kind() == IoKind::CrossesDevices => {
            let source = File::open(from)?;
            let mut copy = AtomicFile::for_audience(to, Audience::default())?;
            copy.take_place_of(&source)?;
            let mut out = copy.file().appender();
            out.take_all(&mut source.reader())
                .map_err(|e| Error::io("cannot copy", e).with_path(to))?;
            copy.publish(Overwrite::No)?;
            return remove(from);
        }
        Err(e) => return Err(Error::io("cannot rename", e).with_path(from)),
    }
    if folder_of(from) == folder_of(to) {
        return Ok(());
    }
    sync_folder_of(from)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::storage::remove_if_there;

    #[test]
    fn a_file_changes_its_name_and_goes() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (folder.path().join("a"), folder.path().join("b"));
        fs::write(&a, b"it").unwrap();
        rename(&a, &b).unwrap();
        assert!(!a.exists());
        assert_eq!(fs::read(&b).unwrap(), b"it");
        assert!(
            rename(&a, &b)
                .unwrap_err()
                .to_string()
                .contains("cannot rename")
        );
        assert!(remove_if_there(&b).unwrap());
        assert!(!remove_if_there(&b).unwrap());
        assert!(
            remove(&b)
                .unwrap_err()
                .to_string()
                .contains("cannot remove")
        );
    }
}
