//! Small file systems on loop devices, for tests that need what the file system of the temporary folder hasn't got.
//!
//! Used by a test with `#[path = "../support/mounts.rs"] mod mounts;`. Mounting needs root and the kernel's help; where
//! that isn't to be had, [`Mounted::new`] says so on stderr and gives `None`.

#![allow(
    dead_code,
    clippy::panic,
    clippy::unwrap_used,
    reason = "test helpers, of which each test uses some"
)]

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// Size of a file system in bytes; XFS needs at least 300 MiB. The file is sparse.
const SIZE: u64 = 400 << 20;

/// A mounted file system, unmounted and removed when dropped.
pub(crate) struct Mounted {
    kind: &'static str,
    folder: TempDir,
}

impl Mounted {
    /// Creates and mounts a file system of `kind`: `xfs`, `btrfs`, `ext4`, `ext3` with small inodes, `tmpfs` or
    /// `ramfs`.
    pub(crate) fn new(kind: &'static str) -> Option<Self> {
        Self::sized(kind, SIZE, &std::env::temp_dir())
    }

    /// Creates and mounts a file system of `size` bytes, in a file in a new folder in `folder`.
    pub(crate) fn sized(kind: &'static str, size: u64, folder: &Path) -> Option<Self> {
        let folder = tempfile::tempdir_in(folder).unwrap();
        let (image, place) = (folder.path().join("image"), folder.path().join("mounted"));
        fs::create_dir(&place).unwrap();
        let mut mount = Command::new("mount");
        if kind == "ramfs" {
            mount.args(["-t", kind, "none"]);
        } else if kind == "tmpfs" {
            mount.args(["-t", kind, "-o"]);
            mount.arg(format!("size={size}")).arg("none");
        } else {
            fs::File::create(&image).unwrap().set_len(size).unwrap();
            let mut mkfs = Command::new(format!("mkfs.{kind}"));
            if kind == "ext3" {
                // Small inodes, as in old file systems: times are whole seconds.
                mkfs.args(["-I", "128"]);
            }
            run(mkfs.arg("-q").arg(&image));
            mount.args(["-t", kind, "-o", "loop"]).arg(&image);
        }
        let mounted = output(mount.arg(&place));
        if !mounted.status.success() {
            let said = String::from_utf8_lossy(&mounted.stderr);
            say(&format!(
                "NOT TESTED on {kind}, which can't be mounted here: {}",
                said.trim()
            ));
            return None;
        }
        Some(Self { kind, folder })
    }

    /// Mounts the file system again with these options.
    pub(crate) fn with_options(self, options: &str) -> Self {
        run(Command::new("umount").arg(self.path()));
        run(Command::new("mount")
            .args(["-t", self.kind, "-o"])
            .arg(format!("loop,{options}"))
            .arg(self.folder.path().join("image"))
            .arg(self.path()));
        self
    }

    /// Mounts the file system again with other options, such as `ro`.
    pub(crate) fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        run(Command::new("mount")
            .args(["-o", &options])
            .arg(self.path()));
    }

    /// Returns those of `kinds` that can be mounted here, and reports which these are.
    pub(crate) fn all(kinds: &[&'static str]) -> Vec<Self> {
        let all: Vec<_> = kinds.iter().filter_map(|kind| Self::new(kind)).collect();
        let names: Vec<_> = all.iter().map(|mounted| mounted.kind).collect();
        say(&format!(
            "tested on {} of {} file systems: {}",
            names.len(),
            kinds.len(),
            names.join(", ")
        ));
        all
    }

    pub(crate) fn kind(&self) -> &'static str {
        self.kind
    }

    /// Returns the folder in which it is mounted.
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("mounted")
    }

    /// Returns the number of free bytes once everything is written.
    pub(crate) fn free(&self) -> u64 {
        run(Command::new("sync").arg("-f").arg(self.path()));
        let stat = rustix::fs::statvfs(self.path()).unwrap();
        stat.f_bfree * stat.f_frsize
    }
}

/// A file as a block device, detached when dropped.
pub(crate) struct Loop(PathBuf);

impl Loop {
    /// Attaches the file. This needs root and a free loop device; otherwise it reports that and returns `None`.
    pub(crate) fn attach(file: &Path) -> Option<Self> {
        let attached = output(Command::new("losetup").args(["--find", "--show"]).arg(file));
        if !attached.status.success() {
            let said = String::from_utf8_lossy(&attached.stderr);
            say(&format!("NOT TESTED on a block device: {}", said.trim()));
            return None;
        }
        let name = String::from_utf8(attached.stdout).unwrap();
        Some(Self(PathBuf::from(name.trim())))
    }

    /// Returns the path of the device.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        output(Command::new("losetup").arg("--detach").arg(&self.0));
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Lazily, in case a program still runs there: a failed test must not leave a mount.
        let unmounted = output(Command::new("umount").arg(self.path()));
        if !unmounted.status.success() {
            output(Command::new("umount").arg("--lazy").arg(self.path()));
        }
    }
}

/// Prints even where the test runner hides the output of passing tests; `tests/run` counts the skipped tests.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "\n{text}");
}

fn run(command: &mut Command) {
    let output = output(command);
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Runs a system command, which may not be in a user's `PATH`.
fn output(command: &mut Command) -> Output {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    let path = std::env::join_paths(folders).unwrap();
    let output = command.env("PATH", path).stdin(Stdio::null()).output();
    output.unwrap_or_else(|error| {
        panic!("{command:?}: {error}: run tests/run once, which installs what the tests need")
    })
}
