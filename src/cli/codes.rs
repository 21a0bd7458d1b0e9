//! The exit codes of errors.

use crate::error::ErrorKind;

/// The exit code of an error.
pub(super) const fn code_of(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::Damaged | ErrorKind::Unsupported => 3,
        ErrorKind::Mismatch => 4,
        ErrorKind::Locked | ErrorKind::Pending => 5,
        ErrorKind::Interrupted => 130,
        ErrorKind::Usage | ErrorKind::Io | ErrorKind::Changed | ErrorKind::Internal => 2,
    }
}
