//! Paths as words of commands in advice.

use std::ffi::OsString;
use std::path::Path;

use crate::error::quoted;

/// Quotes `path` as a single word for a shell, such that no program takes it for the address of another machine.
pub(super) fn word(path: &Path) -> String {
    let bytes = path.as_os_str().as_encoded_bytes();
    let first = bytes.split(|byte| *byte == b'/').next();
    if first.is_some_and(|first| first.contains(&b':')) {
        let mut local = OsString::from("./");
        local.push(path);
        return quoted(local);
    }
    quoted(path)
}
