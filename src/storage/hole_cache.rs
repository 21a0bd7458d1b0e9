//! Caches which parts of a file are data and which are holes, so that the file system isn't queried for every window.
//!
//! To find the end of a run of data, a file system may walk through all of its extents; repeated for every window, that
//! would take longer than reading.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{OFlags, SeekFrom, fcntl_getfl, seek};
use rustix::io::Errno;

/// Stretches that are cached: more than there are threads working near each other in a file.
const KEPT: usize = 32;

/// The latest answers for one open file.
#[derive(Debug)]
pub(super) struct Runs {
    /// Whether holes may be cached too. Reading data that has become a hole is harmless, but a hole that was written
    /// since must not be skipped.
    read_only: bool,
    known: Mutex<VecDeque<Stretch>>,
}

/// A hole, which may be empty, and the run of data after it, which is empty after the last data.
#[derive(Debug, Clone, Copy)]
struct Stretch {
    hole: u64,
    data: u64,
    end: u64,
}

impl Runs {
    /// Creates a cache for `file`, as long as it is open.
    pub(super) fn new(file: &fs::File) -> Self {
        let flags = fcntl_getfl(file);
        Self {
            read_only: flags.is_ok_and(|flags| flags & OFlags::RWMODE == OFlags::RDONLY),
            known: Mutex::default(),
        }
    }

    /// Returns the first run of data within `within`, or `None` if all of it is a hole.
    pub(super) fn first_within(
        &self,
        file: &fs::File,
        within: &Range<u64>,
    ) -> io::Result<Option<Range<u64>>> {
        let at = within.start;
        let known = self
            .known()
            .iter()
            .find(|s| s.hole <= at && at < s.end)
            .copied();
        let Stretch { data, end, .. } = known.map_or_else(|| self.find(file, at), Ok)?;
        let (start, end) = (data.max(at), end.min(within.end));
        Ok((start < end).then_some(start..end))
    }

    /// Queries the file system.
    fn find(&self, file: &fs::File, at: u64) -> io::Result<Stretch> {
        let data = match seek(file, SeekFrom::Data(at)) {
            Ok(data) => data,
            // There is no data up to the end of the file.
            Err(Errno::NXIO) => u64::MAX,
            Err(e) if knows_no_holes(e) => at,
            Err(e) => return Err(e.into()),
        };
        let end = match seek(file, SeekFrom::Hole(data)) {
            Ok(end) if end > data => end,
            Err(e) if e != Errno::NXIO && !knows_no_holes(e) => return Err(e.into()),
            _ => u64::MAX,
        };
        let hole = if self.read_only { at } else { data };
        let stretch = Stretch { hole, data, end };
        let mut known = self.known();
        if known.len() >= KEPT {
            known.pop_front();
        }
        known.push_back(stretch);
        Ok(stretch)
    }

    fn known(&self) -> MutexGuard<'_, VecDeque<Stretch>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns whether an error means that the file system or device doesn't report holes, which is optional. Any other
/// error says nothing about holes: a failing device isn't full of data.
fn knows_no_holes(error: Errno) -> bool {
    matches!(
        error,
        Errno::INVAL
            | Errno::OPNOTSUPP
            | Errno::NOSYS
            | Errno::NOTTY
            | Errno::SPIPE
            | Errno::OVERFLOW
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

    use super::*;

    const PIECE: u64 = 64 << 10;

    /// Every third piece holds data.
    fn sparse(pieces: u64) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(pieces * PIECE).unwrap();
        for n in (1..pieces).step_by(3) {
            file.as_file().write_all_at(&[7; 4096], n * PIECE).unwrap();
        }
        file
    }

    #[test]
    fn what_is_remembered_is_what_the_file_system_says() {
        let pieces = 200;
        let file = sparse(pieces);
        let read_only = fs::File::open(file.path()).unwrap();
        let remembering = Runs::new(&read_only);
        // Far apart and close together, forwards and backwards, twice.
        for n in (0..pieces * 2).map(|n| n * 77 % pieces) {
            for len in [1, PIECE / 2, PIECE * 2, u64::MAX - pieces * PIECE] {
                let within = n * PIECE + 512..n * PIECE + 512 + len;
                let fresh = Runs::new(&read_only);
                assert_eq!(
                    remembering.first_within(&read_only, &within).unwrap(),
                    fresh.first_within(&read_only, &within).unwrap(),
                    "{within:?}"
                );
            }
        }
        assert!(remembering.known().len() <= KEPT);
    }

    #[test]
    fn a_hole_that_is_written_by_who_may_write_is_data() {
        let file = sparse(9);
        let writable = file.as_file();
        let runs = Runs::new(writable);
        let hole = 3 * PIECE..4 * PIECE;
        assert_eq!(runs.first_within(writable, &hole).unwrap(), None);
        writable.write_all_at(&[1; 4096], hole.start).unwrap();
        assert!(runs.first_within(writable, &hole).unwrap().is_some());
    }
}
