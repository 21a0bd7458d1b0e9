//! Copies of whole files: clones, which share their blocks until one of the two is written, and sparse copies.

use rustix::io::Errno;

use super::{File, ReadAt as _, WriteAt as _, system};
use crate::error::{Error, Result};
use crate::page::{part_mut, to_usize};
use crate::progress::Progress;
use crate::remedy::{Choice, Remedy, Step};

/// Bytes copied at a time.
const PIECE: u64 = 1 << 20;

impl File {
    /// Makes this empty file a clone of `source`. Returns `Ok(false)` if the file system can't clone, or can't clone
    /// between these two files.
    pub fn clone_from_file(&self, source: &Self) -> Result<bool> {
        if self.is_sealed() || source.is_sealed() {
            return Ok(false);
        }
        match system::clone(self.as_std(), self.path(), source.as_std())
            .map_err(|e| (Errno::from_io_error(&e), e))
        {
            Ok(()) => Ok(true),
            Err((
                Some(
                    Errno::OPNOTSUPP
                    | Errno::NOTTY
                    | Errno::XDEV
                    | Errno::INVAL
                    | Errno::NOSYS
                    | Errno::PERM,
                ),
                _,
            )) => Ok(false),
            Err((_, e)) => Err(Error::io("cannot clone into", e)
                .with_path(self.path())
                .with_remedy(
                    Remedy::new("use ")
                        .step(Step::Choose(Choice::InPlaceByJournal), "an undo journal")
                        .text(", which doesn't need a clone"),
                )),
        }
    }

    /// Returns whether this file and `other` have the same contents.
    pub fn holds_the_same_as(&self, other: &Self) -> Result<bool> {
        let len = self.byte_len()?;
        if other.byte_len()? != len {
            return Ok(false);
        }
        let [mut ours, mut theirs] = [Vec::new(), Vec::new()];
        let mut at = 0;
        while at < len {
            let piece = to_usize((len - at).min(PIECE));
            for (file, bytes) in [(self, &mut ours), (other, &mut theirs)] {
                bytes.resize(piece, 0);
                file.read_exact_at(bytes, at)?;
            }
            if ours != theirs {
                return Ok(false);
            }
            at += piece as u64;
        }
        Ok(true)
    }

    /// Copies `source` into this empty file and preserves its holes.
    pub fn copy_from_file(&self, source: &Self, progress: &dyn Progress) -> Result<()> {
        let len = source.byte_len()?;
        progress.begin("copying", len);
        self.set_len(len)?;
        let mut buffer = vec![0; to_usize(PIECE)];
        let mut at = 0;
        while let Some(data) = source.data_range(at..len)? {
            progress.advance(data.start - at);
            at = data.start;
            while at < data.end {
                progress.check()?;
                let now = (data.end - at).min(PIECE);
                let piece = part_mut(&mut buffer, ..to_usize(now))?;
                source.read_exact_at(piece, at)?;
                self.write_all_at(piece, at)?;
                progress.advance(now);
                at += now;
            }
        }
        progress.advance(len - at);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt as _;

    use super::*;
    use crate::progress::Silent;

    #[test]
    fn a_copy_has_the_same_bytes_and_holes() {
        let folder = tempfile::tempdir().unwrap();
        let make = |name: &str| {
            let path = folder.path().join(name);
            fs::write(&path, b"").unwrap();
            File::open_writable(path).unwrap()
        };
        let (from, to) = (make("from"), make("to"));
        from.set_len((8 << 20) + 3).unwrap();
        from.write_all_at(&vec![7; 2 << 20], 3 << 20).unwrap();
        from.write_all_at(&[9; 3], 8 << 20).unwrap();
        to.copy_from_file(&from, &Silent).unwrap();
        let read = |name: &str| fs::read(folder.path().join(name)).unwrap();
        assert!(read("from") == read("to"));
        assert!(to.metadata().unwrap().blocks() <= from.metadata().unwrap().blocks());
        assert!(to.holds_the_same_as(&from).unwrap());
        to.write_all_at(&[8], 8 << 20).unwrap();
        assert!(!to.holds_the_same_as(&from).unwrap());
        to.copy_from_file(&from, &Silent).unwrap();
        to.set_len((8 << 20) + 4).unwrap();
        assert!(!to.holds_the_same_as(&from).unwrap());
    }
}
