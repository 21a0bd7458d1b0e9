//! A file system of its own, on a loop device. Needs root, and a kernel that knows it.
//!
//! Tests that use it are marked `#[ignore]`: `tests/run` runs them where it can, and counts them where not.

#![allow(clippy::unwrap_used, reason = "test helpers")]

use std::path::{Path, PathBuf};
use std::process::Command;

/// A new file system, mounted until dropped.
pub(crate) struct Mounted {
    folder: tempfile::TempDir,
}

impl Mounted {
    /// Makes one of `kind`, `xfs` or `btrfs`, of 400 MiB, and mounts it with `options`.
    pub(crate) fn new(kind: &str, options: &str) -> Self {
        let mounted = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        let device = mounted.folder.path().join("device");
        let file = std::fs::File::create(&device).unwrap();
        file.set_len(400 << 20).unwrap();
        run(Command::new(format!("mkfs.{kind}")).arg("-q").arg(&device));
        std::fs::create_dir(mounted.root()).unwrap();
        let options = format!("loop,{options}");
        run(Command::new("mount")
            .arg("-o")
            .arg(options.trim_end_matches(','))
            .arg(&device)
            .arg(mounted.root()));
        mounted
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("mounted")
    }

    /// The path of `name` on it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.root()).status();
    }
}

/// Makes `to` a clone of `from`, or fails.
pub(crate) fn clone(from: &Path, to: &Path) {
    run(Command::new("cp").arg("--reflink=always").arg(from).arg(to));
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {stderr}");
}
