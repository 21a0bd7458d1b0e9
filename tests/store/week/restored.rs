//! Whether a restored image is the disk as it was on a day.

use std::path::Path;

use crate::disk::{assert_same, command, run};
use crate::week::Day;

/// The same bytes, a file system without a fault, and in it every file with what it held.
pub(crate) fn assert_is(day: &Day, image: &Path) {
    run(&mut command!("cmp", image, &day.image));
    run(&mut command!("e2fsck", "-f", "-n", image));
    for (path, expected) in &day.files {
        let request = format!("cat {path}");
        let output = run(&mut command!("debugfs", "-R", request, image));
        assert_same(&output.stdout, expected, path);
    }
}
