//! The high-level interface: the main jobs in one call each, with defaults that suit most uses.
//!
//! Everything here is built on the modules below, which offer all options.

mod apply;
mod diff;
mod open;
#[cfg(feature = "store")]
mod store;

use std::num::NonZeroUsize;

pub use apply::Apply;
pub use diff::{Changes, Diff, WrittenDiff};
pub use open::{Opener, PointName};
#[cfg(feature = "store")]
pub use store::{Store, StoredDisk};

use crate::error::Result;
use crate::parallel::Workers;
use crate::progress::{Progress, Silent};

/// The settings that all jobs have in common.
#[derive(Clone, Copy)]
struct Running<'a> {
    threads: Option<NonZeroUsize>,
    progress: &'a dyn Progress,
}

impl Default for Running<'_> {
    fn default() -> Self {
        Self {
            threads: None,
            progress: &Silent,
        }
    }
}

impl std::fmt::Debug for Running<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running")
            .field("threads", &self.threads)
            .finish_non_exhaustive()
    }
}

impl Running<'_> {
    fn workers(&self) -> Result<Workers> {
        Workers::new(self.threads)
    }
}
