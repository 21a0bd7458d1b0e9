//! Limits of this process, however much room there is.

use rustix::process::{Resource, getrlimit};

use super::File;
use crate::error::{Error, ErrorKind, Result};

impl File {
    /// An error if this process may not write the file up to `len` bytes. Devices have no such limit. To be asked before
    /// anything is written that would have to be finished.
    pub fn check_limit(&self, len: u64) -> Result<()> {
        let limit = getrlimit(Resource::Fsize).current;
        let Some(limit) = limit.filter(|limit| *limit < len && !self.is_block_device()) else {
            return Ok(());
        };
        Err(Error::new(
            ErrorKind::Io,
            "a limit of this process keeps the file from becoming that long",
        )
        .with_path(self.path())
        .with_field("length")
        .with_found(format_args!("{len} bytes"))
        .with_expected(format_args!("at most {limit} bytes"))
        .with_hint("nothing was changed: lift the limit of the shell (ulimit -f) and run the command again"))
    }
}
