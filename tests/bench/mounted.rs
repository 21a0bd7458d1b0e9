//! File systems of their own, on a loop device.

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Result;
use super::run::Step;

/// What only root can do here.
#[derive(Debug)]
pub(crate) struct NeedsRoot(pub(crate) String);

impl fmt::Display for NeedsRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NeedsRoot {}

/// A new file system in a file, mounted beside it until dropped.
#[derive(Debug)]
pub(crate) struct Mounted(PathBuf);

impl Mounted {
    /// Makes one of `kind` and `size`.
    pub(crate) fn new(kind: &str, device: &Path, size: u64) -> Result<Self> {
        File::create(device)?.set_len(size)?;
        let root = device.with_extension("mounted");
        std::fs::create_dir_all(&root)?;
        let make = Step::new(format!("mkfs.{kind}")).arg("-q").arg(device);
        let mount = Step::new("mount").words("-o loop").arg(device).arg(&root);
        let done = make.run().and_then(|()| mount.run());
        done.map_err(|e| NeedsRoot(format!("it needs to mount a file system: {e}")))?;
        Ok(Self(root))
    }

    /// The path of `name` on it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}
