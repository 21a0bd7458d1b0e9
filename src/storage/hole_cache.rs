//! Where a file has data and where holes, so that the file system is asked once and not for every window.
//!
//! To find where data ends, a file system may walk through all of its extents; asked anew for every window, that
//! takes longer than reading.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{OFlags, SeekFrom, fcntl_getfl, seek};
use rustix::io::Errno;

/// Stretches that are remembered: more than there are threads near each other in a file.
const KEPT: usize = 32;

/// What was found last of one open file.
#[derive(Debug)]
pub(super) struct Runs {
    /// Whether holes may be remembered too. Data that became a hole may be read all the same, but a hole that was
    /// written since may not be left out.
    read_only: bool,
    known: Mutex<VecDeque<Stretch>>,
}

/// A hole, which may be empty, and the run of data that ends it; that is empty behind the last data.
#[derive(Debug, Clone, Copy)]
struct Stretch {
    hole: u64,
    data: u64,
    end: u64,
}

impl Runs {
    /// Of `file`, as long as it is open.
    pub(super) fn of(file: &fs::File) -> Self {
        let flags = fcntl_getfl(file);
        Self {
            read_only: flags.is_ok_and(|flags| flags & OFlags::RWMODE == OFlags::RDONLY),
            known: Mutex::default(),
        }
    }

    /// The first run of data within `within`, or `None` if all of that is a hole.
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

    /// Asks the file system.
    fn find(&self, file: &fs::File, at: u64) -> io::Result<Stretch> {
        let data = match seek(file, SeekFrom::Data(at)) {
            Ok(data) => data,
            // No data up to the end of the file.
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

/// Whether an error is the answer of a file system or a device that doesn't know its holes, as none has to. Any other
/// says nothing: a device that fails isn't full of data.
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
        let remembering = Runs::of(&read_only);
        // Far and near, back and forth, twice.
        for n in (0..pieces * 2).map(|n| n * 77 % pieces) {
            for len in [1, PIECE / 2, PIECE * 2, u64::MAX - pieces * PIECE] {
                let within = n * PIECE + 512..n * PIECE + 512 + len;
                let fresh = Runs::of(&read_only);
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
        let runs = Runs::of(writable);
        let hole = 3 * PIECE..4 * PIECE;
        assert_eq!(runs.first_within(writable, &hole).unwrap(), None);
        writable.write_all_at(&[1; 4096], hole.start).unwrap();
        assert!(runs.first_within(writable, &hole).unwrap().is_some());
    }
}
