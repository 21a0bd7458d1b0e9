//! File metadata: extended attributes, owner and permissions.

use std::ffi::CStr;
use std::io;
use std::os::unix::fs::MetadataExt as _;

use rustix::fs::{fgetxattr, flistxattr};
use rustix::io::Errno;

use super::{File, system};
use crate::error::{Error, Result};

/// The largest attribute value, and the largest list of attribute names, that the system allows.
const LONGEST: usize = 64 << 10;

impl File {
    /// Returns the value of an extended attribute, or `None` if the file doesn't have it or the file system doesn't
    /// support them.
    pub fn attribute(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let mut value = vec![0; LONGEST];
        match fgetxattr(self.as_std(), name, &mut value[..]) {
            Ok(len) => {
                value.truncate(len);
                Ok(Some(value))
            }
            Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::PERM | Errno::ACCESS) => Ok(None),
            Err(e) => Err(self.failed_on("cannot read the extended attributes of", e)),
        }
    }

    /// Sets an extended attribute. Returns `Ok(false)` if the file system doesn't support attributes, has no room for
    /// it, or doesn't allow it.
    pub fn set_attribute(&self, name: &str, value: &[u8]) -> Result<bool> {
        match system::set_attribute(self.as_std(), self.path(), name.as_bytes(), value)
            .map_err(|e| errno(&e))
        {
            Ok(()) => Ok(true),
            Err(
                Errno::OPNOTSUPP
                | Errno::PERM
                | Errno::ACCESS
                | Errno::ROFS
                | Errno::NOSPC
                | Errno::DQUOT
                | Errno::TOOBIG
                | Errno::RANGE,
            ) => Ok(false),
            Err(e) => Err(self.failed_on("cannot set an extended attribute of", e)),
        }
    }

    /// Sets the modification time, in seconds since 1970 UTC and nanoseconds. Fails if the system can't represent the
    /// time.
    pub fn set_modified(&self, (seconds, nanos): (i64, u32)) -> Result<()> {
        let from = std::time::SystemTime::UNIX_EPOCH;
        let whole = std::time::Duration::from_secs(seconds.unsigned_abs());
        let time = if seconds < 0 {
            from.checked_sub(whole)
        } else {
            from.checked_add(whole)
        };
        let time = time.and_then(|time| time.checked_add(std::time::Duration::new(0, nanos)));
        let time = time.ok_or_else(|| {
            Error::damaged("the time of a file is impossible").with_found(seconds)
        })?;
        system::set_modified(self.as_std(), self.path(), time)
            .map_err(|error| Error::io("cannot set the time of", error).with_path(self.path()))
    }

    /// Removes an extended attribute, if the file has it.
    pub fn remove_attribute(&self, name: &str) -> Result<()> {
        match system::remove_attribute(self.as_std(), self.path(), name.as_bytes())
            .map_err(|e| errno(&e))
        {
            Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
            Err(e) => Err(self.failed_on("cannot remove an extended attribute of", e)),
        }
    }

    /// Copies owner, permissions and extended attributes, except for the attribute `except`, from `other`, which this
    /// file is about to replace. Returns descriptions of what couldn't be kept.
    pub fn take_attributes_of(&self, other: &Self, except: &str) -> Result<Vec<String>> {
        let mut lost = Vec::new();
        let (theirs, ours) = (other.metadata()?, self.metadata()?);
        let owner = (theirs.uid(), theirs.gid());
        if (ours.uid(), ours.gid()) != owner
            && system::set_owner(self.as_std(), self.path(), owner.0, owner.1).is_err()
        {
            lost.push(format!("its owner {} and group {}", owner.0, owner.1));
        }
        let wanted = other.attribute_names()?;
        // Files can inherit attributes from their folder that `other` doesn't have.
        for name in self.attribute_names()? {
            if !wanted.contains(&name)
                && system::remove_attribute(self.as_std(), self.path(), &name).is_err()
            {
                lost.push(format!("the absence of the attribute {}", shown(&name)));
            }
        }
        for name in wanted {
            if name != except.as_bytes() && !self.take_attribute(other, &name) {
                lost.push(format!("its extended attribute {}", shown(&name)));
            }
        }
        if self.metadata()?.mode() != theirs.mode()
            && system::set_permissions(self.as_std(), self.path(), theirs.permissions()).is_err()
        {
            lost.push(format!("its permissions {:o}", theirs.mode() & 0o7777));
        }
        Ok(lost)
    }

    fn take_attribute(&self, other: &Self, name: &[u8]) -> bool {
        let read = |file: &Self| {
            let mut value = vec![0; LONGEST];
            let len = fgetxattr(file.as_std(), name, &mut value[..]).ok()?;
            value.truncate(len);
            Some(value)
        };
        let Some(value) = read(other) else {
            return false;
        };
        read(self).is_some_and(|ours| ours == value)
            || system::set_attribute(self.as_std(), self.path(), name, &value).is_ok()
    }

    fn attribute_names(&self) -> Result<Vec<Vec<u8>>> {
        let mut list = vec![0; LONGEST];
        let len = match flistxattr(self.as_std(), &mut list[..]) {
            Ok(len) => len,
            Err(Errno::OPNOTSUPP) => 0,
            Err(e) => return Err(self.failed_on("cannot list the extended attributes of", e)),
        };
        let names = list.get(..len).unwrap_or_default();
        Ok(names
            .split_inclusive(|byte| *byte == 0)
            .filter_map(|name| CStr::from_bytes_with_nul(name).ok())
            .map(|name| name.to_bytes().to_vec())
            .collect())
    }

    fn failed_on(&self, doing: &str, error: Errno) -> Error {
        Error::io(doing, error.into()).with_path(self.path())
    }
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

/// Makes an attribute name safe to print: it comes from a file and may contain control characters.
fn shown(name: &[u8]) -> String {
    name.escape_ascii().to_string()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn attributes_are_set_read_and_removed_where_there_are_any() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, b"").unwrap();
        let file = File::open_writable(&path).unwrap();
        assert_eq!(file.attribute("user.test").unwrap(), None);
        file.remove_attribute("user.test").unwrap();
        if file.set_attribute("user.test", b"value").unwrap() {
            assert_eq!(
                file.attribute("user.test").unwrap().as_deref(),
                Some(&b"value"[..])
            );
            file.remove_attribute("user.test").unwrap();
            assert_eq!(file.attribute("user.test").unwrap(), None);
        }
    }

    #[test]
    fn a_file_takes_what_another_has() {
        let folder = tempfile::tempdir().unwrap();
        let make = |name: &str| {
            let path = folder.path().join(name);
            fs::write(&path, b"").unwrap();
            File::open_writable(path).unwrap()
        };
        let (old, new) = (make("old"), make("new"));
        fs::set_permissions(old.path(), fs::Permissions::from_mode(0o604)).unwrap();
        let has = old.set_attribute("user.a", b"1").unwrap();
        old.set_attribute("user.mine", b"2").unwrap();
        new.set_attribute("user.b", b"3").unwrap();
        let lost = new.take_attributes_of(&old, "user.mine").unwrap();
        assert!(lost.is_empty(), "{lost:?}");
        assert_eq!(new.metadata().unwrap().mode() & 0o7777, 0o604);
        assert_eq!(new.attribute("user.a").unwrap().is_some(), has);
        assert_eq!(new.attribute("user.b").unwrap(), None);
        assert_eq!(new.attribute("user.mine").unwrap(), None);
    }
}
