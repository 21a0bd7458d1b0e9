//! The front door: the main jobs in one call each, with defaults that are right for most.
//!
//! Everything here is made of the modules below, which have all the options.

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

/// How the work is done, whatever it is.
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
