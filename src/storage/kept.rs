//! Files under construction that outlive an interruption: they have a fixed name, and whoever opens them next finds what
//! was written.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::{File, Stamp, own_user, system};
use crate::error::{Error, ErrorKind, Result, quoted};

/// How often a file is reopened if it got another name before it was locked.
const TRIES: usize = 5;

/// Opens the file at `path` for reading and writing, or creates an empty one that nobody else can read, and locks it.
/// Error messages name `name`.
///
/// The name can be foreseen, so in a folder that others may write somebody else may have used it: the file must be a plain
/// one, and belong to this user or to `owner`, and nobody else may be able to write to it.
///
/// # Errors
///
/// [`Locked`](ErrorKind::Locked) if another command has it open, [`Usage`](ErrorKind::Usage) if it belongs to somebody
/// else.
pub fn open_kept(path: &Path, name: &Path, owner: Option<u32>) -> Result<File> {
    let failed = |e| Error::io("cannot open", e).with_path(path);
    for _ in 0..TRIES {
        let opened = system::open_or_create_private(path).map_err(failed)?;
        let found = opened.metadata().map_err(failed)?;
        if let Some(what) = stranger(&found, owner) {
            return Err(
                Error::usage("data from an interrupted command would be kept under a name that is taken")
                    .with_path(path)
                    .with_found(what)
                    .with_expected("a file that only you may write")
                    .with_hint(format!(
                        "look at it, and remove it if it isn't needed (rm {}), or choose another name for the output",
                        quoted(path)
                    )),
            );
        }
        let file = File::from_std(opened, name)?;
        file.lock_exclusive().map_err(|error| match error.kind() {
            ErrorKind::Locked => {
                Error::new(ErrorKind::Locked, "another command is writing this file")
                    .with_path(name)
                    .with_hint("wait until it has ended, or choose another name for the output")
            }
            _ => error,
        })?;
        match fs::symlink_metadata(path) {
            Ok(named) if Stamp::from(&named).same_file(&Stamp::from(&found)) => return Ok(file),
            // The command that had it has just completed it.
            _ => {}
        }
    }
    Err(Error::new(
        ErrorKind::Locked,
        "the file kept being replaced while waiting for its lock",
    )
    .with_path(name)
    .with_hint("wait until the other commands have ended, then run this one again"))
}

/// Returns why a file can't be trusted to hold what this user wrote.
fn stranger(found: &Metadata, owner: Option<u32>) -> Option<String> {
    if !found.is_file() || found.nlink() != 1 {
        return Some("not a plain file with one name".to_owned());
    }
    let user = found.uid();
    if user != own_user() && owner != Some(user) {
        return Some(format!("a file of the user with number {user}"));
    }
    (found.mode() & 0o022 != 0).then(|| {
        format!(
            "a file that others may write: permissions {:o}",
            found.mode() & 0o7777
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{ReadAt as _, WriteAt as _};
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn what_was_written_is_found_again_by_one_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kept");
        let file = open_kept(&path, &path, None).unwrap();
        assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o600);
        file.write_all_at(b"some", 0).unwrap();
        let busy = open_kept(&path, Path::new("output"), None).unwrap_err();
        assert_eq!(busy.kind(), ErrorKind::Locked);
        drop(file);
        let file = open_kept(&path, &path, None).unwrap();
        assert_eq!(file.byte_len().unwrap(), 4);
    }

    #[test]
    fn what_others_may_have_written_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in ["open", "two"] {
            fs::write(path(name), b"").unwrap();
        }
        fs::set_permissions(path("open"), fs::Permissions::from_mode(0o666)).unwrap();
        fs::set_permissions(path("two"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::hard_link(path("two"), path("other")).unwrap();
        for name in ["open", "two"] {
            let path = path(name);
            let error = open_kept(&path, &path, None).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Usage, "{name}");
        }
        std::os::unix::fs::symlink(path("nowhere"), path("link")).unwrap();
        assert!(open_kept(&path("link"), Path::new("x"), None).is_err());
        assert!(!path("nowhere").exists());
    }
}
