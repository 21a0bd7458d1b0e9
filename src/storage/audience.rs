//! Who may read and write a new file: nobody who couldn't do so with the files that it is made from.

use std::fs::{self, Metadata};
use std::io::ErrorKind as IoKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::{fgetxattr, getxattr};

use super::{File, on_disk};
use crate::error::{Error, Result};

/// The attribute of a file that has an access control list besides the nine bits of its mode.
const LIST: &str = "system.posix_acl_access";

/// The most permissive access that a new file may get: what every file it is made from grants. By default there are no
/// such files, and the umask alone decides.
///
/// The owner isn't limited: whoever creates the file owns it, and could read what it is made from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Audience(Vec<Grant>);

/// The access that one file grants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Grant {
    group: u32,
    /// Access of that group, as the lowest three bits.
    to_group: u32,
    /// Access of everybody else, as the lowest three bits.
    to_others: u32,
}

impl Grant {
    fn new(metadata: &Metadata, has_list: bool) -> Self {
        let mode = metadata.mode();
        let to_others = mode & 0o7;
        Self {
            group: metadata.gid(),
            // With an access control list, these bits are its mask, and the group may have less.
            to_group: if has_list { to_others } else { mode >> 3 & 0o7 },
            to_others,
        }
    }
}

impl Audience {
    /// The audience of a file made from the files at `paths`.
    pub fn of<P: AsRef<Path>>(paths: impl IntoIterator<Item = P>) -> Result<Self> {
        let mut audience = Self::default();
        for path in paths {
            let path = path.as_ref();
            let place = on_disk(path);
            let looked = fs::metadata(&place);
            let metadata = looked.map_err(|e| Error::io("cannot look at", e).with_path(path))?;
            let has_list = getxattr(&*place, LIST, &mut [0; 0][..]).is_ok();
            audience.0.push(Grant::new(&metadata, has_list));
        }
        Ok(audience)
    }

    /// An audience that excludes everybody but the owner.
    pub fn nobody_else() -> Self {
        Self(vec![Grant {
            group: 0,
            to_group: 0,
            to_others: 0,
        }])
    }

    /// The audience of a file made from an open file.
    pub fn of_file(file: &File) -> Result<Self> {
        let has_list = fgetxattr(file.as_std(), LIST, &mut [0; 0][..]).is_ok();
        Ok(Self(vec![Grant::new(&file.metadata()?, has_list)]))
    }

    /// The audience of a file made from the files of both.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// Adds the file at `path`, if there is one, which the new file will replace.
    pub(super) fn and_replaced(self, path: &Path) -> Result<Self> {
        match fs::metadata(on_disk(path)) {
            Ok(_) => Ok(self.and(Self::of([path])?)),
            Err(e) if e.kind() == IoKind::NotFound => Ok(self),
            Err(e) => Err(Error::io("cannot look at", e).with_path(path)),
        }
    }

    /// As [`limit`](Self::limit) for a folder: whoever may read it may also look up names in it.
    pub(super) fn limit_folder(&self, group: u32) -> u32 {
        let mode = self.limit(0o666, group);
        0o700 | mode & 0o077 | (mode & 0o044) >> 2
    }

    /// Returns the part of `mode` that is allowed to a new file of group `group`.
    pub(super) fn limit(&self, mode: u32, group: u32) -> u32 {
        self.0.iter().fold(mode, |mode, grant| {
            // From the other file's point of view, members of a different group could be anybody.
            let to_group = if grant.group == group {
                grant.to_group
            } else {
                grant.to_others
            };
            mode & (!0o77 | to_group << 3 | grant.to_others)
        })
    }
}

/// The user id under which this process acts.
pub fn own_user() -> u32 {
    rustix::process::geteuid().as_raw()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(group: u32, mode: u32) -> Grant {
        Grant {
            group,
            to_group: mode >> 3 & 7,
            to_others: mode & 7,
        }
    }

    #[test]
    fn no_file_is_open_to_more_people_than_any_that_it_is_made_from() {
        for (from, group, mode) in [
            (&[][..], 5, 0o666),
            (&[grant(5, 0o644)], 5, 0o644),
            (&[grant(5, 0o640)], 5, 0o640),
            (&[grant(5, 0o600)], 5, 0o600),
            (&[grant(5, 0o400)], 5, 0o600),
            // The group differs: its members had the access of others.
            (&[grant(6, 0o640)], 5, 0o600),
            (&[grant(6, 0o644)], 5, 0o644),
            (&[grant(6, 0o604)], 5, 0o644),
            // Each of several files counts.
            (&[grant(5, 0o640), grant(5, 0o604)], 5, 0o600),
            (&[grant(5, 0o664), grant(6, 0o644)], 5, 0o644),
        ] {
            let audience = Audience(from.to_vec());
            assert_eq!(audience.limit(0o666, group), mode, "{from:?}");
            assert_eq!(audience.limit(0o600, group), 0o600);
            let folder = audience.limit_folder(group);
            assert_eq!(folder & 0o700, 0o700);
            assert_eq!((folder & 0o044) >> 2, folder & 0o011);
            assert_eq!(folder & 0o066, mode & 0o066);
        }
    }
}
