//! File systems of our own, on loop devices over files in memory.
//!
//! Used by a test with `#[path = "support/mount.rs"] mod mount;`, beside `disk`.

#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "test helpers, of which each test uses some"
)]

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::disk::{memory, program};

/// A new file system, mounted; gone when dropped.
#[derive(Debug)]
pub(crate) struct Mount {
    place: PathBuf,
    // Dropped last: it holds the file system and the folder it is mounted on.
    folder: tempfile::TempDir,
}

impl Mount {
    /// Makes a file system of `bytes` and mounts it with `options`, which may be empty. It fails where this needs
    /// rights or a kernel that aren't there, and says so; a missing program ends the test.
    pub(crate) fn new(kind: &str, bytes: u64, options: &str) -> Result<Self, String> {
        let folder = tempfile::tempdir_in(memory()).unwrap();
        let (image, place) = (folder.path().join("image"), folder.path().join("mounted"));
        fs::create_dir(&place).unwrap();
        let mut mount = program("mount");
        if kind == "ramfs" {
            mount.args(["-t", "ramfs", "none"]);
        } else {
            fs::File::create(&image).unwrap().set_len(bytes).unwrap();
            done(
                program(&format!("mkfs.{kind}"))
                    .args(quiet(kind))
                    .arg(&image),
            )?;
            let options = ["loop", options].join(",");
            mount.args(["-t", kind, "-o", options.trim_end_matches(',')]);
            mount.arg(&image);
        }
        done(mount.arg(&place))?;
        Ok(Self { place, folder })
    }

    /// The same; where it fails that is said, also beside tests that pass.
    pub(crate) fn or_say(kind: &str, bytes: u64, options: &str) -> Option<Self> {
        let failed = |why| {
            // Not captured by the test runner, and counted by tests/run.
            let _ = writeln!(
                std::io::stderr(),
                "\nNOT TRIED on {kind}, which can't be mounted here: {why}"
            );
        };
        Self::new(kind, bytes, options).map_err(failed).ok()
    }

    /// The folder where it is mounted.
    pub(crate) fn path(&self) -> &Path {
        &self.place
    }

    /// Mounts it anew with other options, such as `ro`.
    pub(crate) fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        done(program("mount").args(["-o", &options]).arg(&self.place)).unwrap();
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let mut umount = program("umount");
        umount.arg(&self.place);
        if done(&mut umount).is_err() {
            // Something still uses it: it goes away with its last user.
            let _ = done(umount.arg("-l"));
        }
    }
}

fn quiet(kind: &str) -> &'static [&'static str] {
    match kind {
        "ext4" | "ext2" => &["-q", "-F", "-m", "0"],
        _ => &["-q"],
    }
}

fn done(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|e| e.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let program = Path::new(command.get_program()).file_name();
    Err(format!(
        "{}: {}",
        program.unwrap_or_default().display(),
        said.trim()
    ))
}
