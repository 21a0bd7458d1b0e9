//! `--changes LIST`: what another program says of what changed.

use std::path::Path;

use super::stdin::{self, Expected, STDIN};
use crate::error::Result;
use crate::files::{ChangedRanges, Claim};

/// Reads the list at `path`, where - is stdin; `check` is the value of `--check-changes`.
pub(super) fn claim(path: &Path, check: Option<f64>) -> Result<Claim> {
    let list = if path == Path::new("-") {
        ChangedRanges::read(stdin::open(Expected::Changes)?, Path::new(STDIN))?
    } else {
        ChangedRanges::open(path)?
    };
    Ok(Claim { list, check })
}

/// A number that nobody can foresee, for the places where a list is checked.
pub(super) fn random() -> u64 {
    uuid::Uuid::new_v4().as_u64_pair().1
}
