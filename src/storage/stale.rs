//! Recognizes and removes what a killed command left next to an image.
//!
//! The temporary files of an in-place apply carry the name of their image, `.vhdkit-NAME-XXXXXX.tmp`, and are locked
//! while in use. They are created by whoever holds the image's lock; its next holder may remove those that nobody has
//! locked.

use std::ffi::OsStr;
use std::fs::{self, DirEntry, OpenOptions};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::fs::OFlags;

use super::paths::{RANDOM, SUFFIX, folder_of, prefix_of};
use super::{Stamp, system};

/// Removes the files that killed in-place applies left for the image at `path`, and returns their number. The caller
/// holds the image's exclusive lock, and `path` is not a symbolic link. Files that can't be inspected are kept.
pub fn remove_leftovers(path: &Path) -> usize {
    let prefix = prefix_of(path);
    let Ok(entries) = fs::read_dir(folder_of(path)) else {
        return 0;
    };
    entries
        .flatten()
        .filter(|entry| is_ours(&entry.file_name(), &prefix) && remove_unused(entry).is_some())
        .count()
}

fn is_ours(name: &OsStr, prefix: &OsStr) -> bool {
    let random = name
        .as_bytes()
        .strip_prefix(prefix.as_bytes())
        .and_then(|rest| rest.strip_suffix(SUFFIX.as_bytes()));
    random.is_some_and(|random| {
        random.len() == RANDOM && random.iter().all(u8::is_ascii_alphanumeric)
    })
}

fn remove_unused(entry: &DirEntry) -> Option<()> {
    if !entry.file_type().ok()?.is_file() {
        return None;
    }
    let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits()).ok()?;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(entry.path())
        .ok()?;
    file.try_lock().ok()?;
    let (ours, there) = (file.metadata().ok()?, entry.path().symlink_metadata().ok()?);
    if !Stamp::from(&ours).same_file(&Stamp::from(&there)) {
        return None;
    }
    system::remove(&entry.path()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_ours_and_unused_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let long = "x".repeat(240);
        let ours = [".vhdkit-disk.raw-aB3dE6.tmp", ".vhdkit-disk.raw-000000.tmp"];
        let others = [
            ".vhdkit-disk.raw-aB3dE.tmp",
            ".vhdkit-disk.raw-aB3-E6.tmp",
            ".vhdkit-disk.raw-2-aB3dE6.tmp",
            ".vhdkit-aB3dE6.tmp",
            ".vhdkit-disk.vhd-aB3dE6.tmp",
            "vhdkit-disk.raw-aB3dE6.tmp",
            "disk.raw",
        ];
        for name in ours.iter().chain(&others) {
            fs::write(path(name), b"").unwrap();
        }
        fs::create_dir(path(".vhdkit-disk.raw-folder.tmp")).unwrap();
        std::os::unix::fs::symlink(path("disk.raw"), path(".vhdkit-disk.raw-link00.tmp")).unwrap();
        let used = fs::File::open(path(ours[1])).unwrap();
        used.lock().unwrap();
        assert_eq!(remove_leftovers(&path("disk.raw")), 1);
        assert!(!path(ours[0]).exists() && path(ours[1]).exists());
        drop(used);
        assert_eq!(remove_leftovers(&path("disk.raw")), 1);
        for name in others {
            assert!(path(name).exists(), "{name}");
        }
        assert!(path(".vhdkit-disk.raw-folder.tmp").exists());
        assert!(path(".vhdkit-disk.raw-link00.tmp").is_symlink());
        let name = prefix_of(&path(&long));
        assert!(name.len() < 100, "{name:?}");
        assert_eq!(remove_leftovers(Path::new("no/such/folder")), 0);
    }
}
