//! Errors of one disk among several.

use crate::cli::context::Context;
use crate::error::{Error, Result};

/// Errors that don't keep the other disks from being worked on.
#[derive(Debug, Default)]
pub(super) struct Failures(pub(super) Vec<Error>);

impl Failures {
    /// All are told; the first one says how the command ends.
    pub(super) fn end(self, context: &Context) -> Result<()> {
        let mut errors = self.0.into_iter();
        let first = errors.next();
        for error in errors {
            context.report(&error);
        }
        first.map_or(Ok(()), Err)
    }
}
