//! Mounts of file systems that this program itself serves: `/dev/fuse`, and the calls that mount and unmount them.

use std::ffi::{CString, OsString};
use std::fs;
use std::io;
use std::io::{IoSlice, Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::error::{Error, ErrorKind, Result};
use crate::remedy::{Remedy, Step, Tool};

/// The type of these file systems in lists of mounts.
const KIND: &str = "fuse.vhdkit";

/// The program that mounts for unprivileged users.
const HELPER: &str = "fusermount3";

/// The connection to the kernel, which sends requests and receives replies. Many threads may use it at once.
#[derive(Debug)]
pub struct FuseDevice(fs::File);

impl FuseDevice {
    /// Mounts a read-only file system at the folder `place` and returns the device by which its requests are served.
    /// `name` is shown as its source. Only the caller's user can access it, unless `allow_other`.
    ///
    /// # Errors
    ///
    /// [`Unsupported`](ErrorKind::Unsupported) if there is no `/dev/fuse`, otherwise [`Io`](ErrorKind::Io).
    pub fn mount(place: &Path, name: &str, allow_other: bool) -> Result<Self> {
        let mut options = fs::OpenOptions::new();
        let file = options.read(true).write(true).open("/dev/fuse");
        let file = match file {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(
                    Error::unsupported("this system has no FUSE: there is no /dev/fuse")
                        .with_remedy(
                            instead("load the module fuse as root").text(", which needs neither"),
                        ),
                );
            }
            Err(e) => {
                return Err(Error::io("cannot open", e)
                    .with_path("/dev/fuse")
                    .with_remedy(instead("run it as root").text(", which needs no rights")));
            }
            Ok(file) => file,
        };
        let flags =
            MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        let (user, group) = own_ids();
        let other = if allow_other { ",allow_other" } else { "" };
        let data = format!(
            "fd={},rootmode=40000,user_id={user},group_id={group},default_permissions{other}",
            file.as_raw_fd(),
        );
        let data = CString::new(data).map_err(io::Error::from);
        let source = name.replace('\0', "");
        let mounted = data.and_then(|data| {
            mount(source.as_str(), place, KIND, flags, data.as_c_str()).map_err(io::Error::from)
        });
        match mounted {
            Ok(()) => Ok(Self(file)),
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                drop(file);
                by_helper(place, &source, allow_other).map(Self)
            }
            Err(e) => Err(Error::io("cannot mount at", e).with_path(place)),
        }
    }

    /// Whatever this file is, in place of the kernel.
    #[cfg(test)]
    pub fn over(file: fs::File) -> Self {
        Self(file)
    }

    /// Waits for the next request. Returns `None` once the file system is unmounted.
    pub fn next(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        loop {
            match (&self.0).read(buffer) {
                Ok(0) => return Ok(None),
                Ok(len) => return Ok(Some(len)),
                Err(e) => match Errno::from_io_error(&e) {
                    // The request was withdrawn, or a signal arrived.
                    Some(Errno::NOENT | Errno::INTR | Errno::AGAIN) => {}
                    Some(Errno::NODEV) => return Ok(None),
                    _ => return Err(e),
                },
            }
        }
    }

    /// Sends a reply, in one piece.
    pub fn answer(&self, parts: &[&[u8]]) -> io::Result<()> {
        let parts: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
        match (&self.0).write_vectored(&parts) {
            Ok(_) => Ok(()),
            // Nobody is waiting for it any more.
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(e),
        }
    }
}

/// The user and group ids of this process.
pub fn own_ids() -> (u32, u32) {
    let (user, group) = (rustix::process::getuid(), rustix::process::getgid());
    (user.as_raw(), group.as_raw())
}

/// Mounts through the privileged helper, which sends the device over a socket.
fn by_helper(place: &Path, name: &str, allow_other: bool) -> Result<fs::File> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    let failed = |e: io::Error| Error::io(format!("cannot run {HELPER}"), e);
    let (ours, theirs) = socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        // The helper inherits its end.
        SocketFlags::empty(),
        None,
    )
    .map_err(|e| failed(e.into()))?;
    let name = name.replace(['\\', ','], "_");
    let mut options =
        format!("ro,nosuid,nodev,noexec,default_permissions,subtype=vhdkit,fsname={name}");
    if allow_other {
        options += ",allow_other";
    }
    let output = Command::new(HELPER)
        .arg("-o")
        .arg(options)
        .arg("--")
        .arg(place)
        .env("_FUSE_COMMFD", theirs.as_raw_fd().to_string())
        .output()
        .map_err(|e| {
            failed(e).with_remedy(
                instead("install the package fuse3, run it as root")
                    .text(", which needs no rights"),
            )
        })?;
    drop(theirs);
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(Error::new(ErrorKind::Io, "cannot mount at")
            .with_path(place)
            .with_source(said)
            .with_remedy(instead("run it as root").text(", which needs no rights")));
    }
    receive(&ours)
        .map_err(|e| failed(e.into()))?
        .map(fs::File::from)
        .ok_or_else(|| failed(io::ErrorKind::UnexpectedEof.into()))
}

/// Receives an open file.
fn receive(socket: &OwnedFd) -> rustix::io::Result<Option<OwnedFd>> {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    recvmsg(
        socket.as_fd(),
        &mut [io::IoSliceMut::new(&mut byte)],
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    let messages = ancillary.drain();
    let files = messages.filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(files) => Some(files),
        _ => None,
    });
    Ok(files.flatten().next())
}

/// The mount at a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mounted {
    /// Nothing.
    Nothing,
    /// A file system of this program.
    Ours,
    /// Another one.
    Other,
}

/// Resolves all links in the parents of `place`. The folder itself isn't accessed, because a dead mount can't be.
pub fn mount_place(place: &Path) -> Result<PathBuf> {
    let failed = |e| Error::io("cannot look at", e).with_path(place);
    let place = std::path::absolute(place).map_err(failed)?;
    match (place.canonicalize(), place.parent(), place.file_name()) {
        (Ok(real), _, _) => Ok(real),
        (Err(_), Some(folder), Some(name)) => Ok(folder.canonicalize().map_err(failed)?.join(name)),
        (Err(e), _, _) => Err(failed(e)),
    }
}

/// Determines what is mounted at a [place](mount_place).
pub fn mounted_at(place: &Path) -> Result<Mounted> {
    let path = "/proc/self/mountinfo";
    let all = fs::read(path).map_err(|e| Error::io("cannot read", e).with_path(path))?;
    let mut found = Mounted::Nothing;
    for line in all.split(|byte| *byte == b'\n') {
        let mut fields = line.split(|byte| *byte == b' ');
        if fields.nth(4).is_none_or(|at| unescaped(at) != place) {
            continue;
        }
        let kind = fields.skip_while(|field| *field != b"-").nth(1);
        // The last entry is on top.
        found = match kind {
            Some(kind) if kind == KIND.as_bytes() => Mounted::Ours,
            _ => Mounted::Other,
        };
    }
    Ok(found)
}

/// Decodes a path in a list of mounts, which has some characters escaped as `\040`.
fn unescaped(text: &[u8]) -> OsString {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..3).filter(|_| *first == b'\\');
        let code = digits
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        rest = if let Some(code) = code {
            out.push(code);
            after.get(3..).unwrap_or_default()
        } else {
            out.push(*first);
            after
        };
    }
    OsString::from_vec(out)
}

/// Returns whether an error is that of a mount whose program has died.
pub fn is_dead_mount(error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::NOTCONN)
}

/// Unmounts what is mounted at `place`. With `lazily`, a mount in use is detached, and goes when its last user has
/// gone.
///
/// # Errors
///
/// [`Locked`](ErrorKind::Locked) if it is in use.
pub fn unmount_at(place: &Path, lazily: bool) -> Result<()> {
    let flags = if lazily {
        UnmountFlags::DETACH
    } else {
        UnmountFlags::empty()
    };
    match unmount(place, flags | UnmountFlags::NOFOLLOW) {
        Ok(()) => Ok(()),
        Err(Errno::BUSY) => Err(busy(place)),
        Err(Errno::PERM) => {
            let lazy = if lazily { "-uz" } else { "-u" };
            let output = Command::new(HELPER)
                // The program says only by its message why it failed.
                .env("LC_ALL", "C")
                .arg(lazy)
                .arg("--")
                .arg(place)
                .output();
            let output = output
                .map_err(|e| Error::io(format!("cannot run {HELPER}"), e).with_path(place))?;
            if output.status.success() {
                return Ok(());
            }
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            if said.contains("busy") {
                return Err(busy(place));
            }
            Err(Error::new(ErrorKind::Io, "cannot unmount")
                .with_path(place)
                .with_source(said))
        }
        Err(e) => Err(Error::io("cannot unmount", e.into()).with_path(place)),
    }
}

/// The advice where nothing can be mounted, beginning with `text`.
fn instead(text: &'static str) -> Remedy {
    Remedy::new(text)
        .text(", or use ")
        .step(Step::Use(Tool::Serve), "a server without a mount")
}

fn busy(place: &Path) -> Error {
    let users = format!(
        "stop the programs that use it, which fuser -vm {} lists; or let it go when they end",
        crate::error::quoted(place)
    );
    Error::new(ErrorKind::Locked, "it is in use, so it is not unmounted")
        .with_path(place)
        .with_remedy(
            Remedy::new(users)
                .named(": ")
                .step(Step::UnmountLater(place.to_path_buf()), ""),
        )
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;

    use super::*;

    #[test]
    fn places_are_found_as_the_system_lists_them() {
        for (listed, path) in [
            ("/mnt/a", "/mnt/a"),
            (r"/mnt/a\040b\134c", r"/mnt/a b\c"),
            (r"/x\", r"/x\"),
            (r"/x\9", r"/x\9"),
        ] {
            assert_eq!(unescaped(listed.as_bytes()), OsStr::new(path));
        }
        assert_eq!(mounted_at(Path::new("/")).unwrap(), Mounted::Other);
        let folder = tempfile::tempdir().unwrap();
        let place = mount_place(folder.path()).unwrap();
        assert_eq!(mounted_at(&place).unwrap(), Mounted::Nothing);
        assert!(place.as_os_str().as_bytes().starts_with(b"/"));
    }
}
