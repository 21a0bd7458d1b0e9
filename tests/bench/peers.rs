//! Command lines of the peers.

use std::ffi::OsString;
use std::path::Path;

use super::Result;
use super::run::{Step, remove};

/// `qemu-img` with `words`; paths follow with [`Step::arg`].
pub(crate) fn qemu(words: &str) -> Step {
    Step::new("qemu-img").words(words)
}

/// Makes a qcow2 overlay that holds what turns `base` into `target`: begun as an empty overlay of the target, then
/// moved over to the base.
pub(crate) fn qemu_overlay(base: &Path, target: &Path, overlay: &Path) -> [Step; 2] {
    [
        qemu("create -q -f qcow2 -F raw -b")
            .arg(target)
            .arg(overlay),
        qemu("rebase -f qcow2 -F raw -b").arg(base).arg(overlay),
    ]
}

/// Fails unless the two images, each with its format, present the same disk.
pub(crate) fn qemu_compare(a: &Path, a_format: &str, b: &Path, b_format: &str) -> Result<()> {
    qemu("compare -q --image-opts")
        .arg(image(a, a_format))
        .arg(image(b, b_format))
        .run()
}

fn image(path: &Path, format: &str) -> OsString {
    // Versions before 10 take the size of unknown creators from the geometry, which rounds down.
    let size = if format == "vpc" {
        "force_size_calc=current_size,"
    } else {
        ""
    };
    let mut options = OsString::from(format!("driver={format},{size}file.filename="));
    options.push(path);
    options
}

/// Forces what was written to stable storage, as ours always does.
pub(crate) fn sync(path: &Path) -> Step {
    Step::new("sync").arg("--data").arg(path)
}

/// Copies a file with its holes to stable storage, replacing what is there.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<()> {
    remove(to)?;
    Step::new("cp")
        .arg("--sparse=auto")
        .arg(from)
        .arg(to)
        .run()?;
    sync(to).run()
}
