//! A file in chunks, without its holes and zeros, for copies and streams.

use super::remedies::lists;
use crate::error::{Error, Result};
use crate::page::{is_zero, to_usize};
use crate::progress::Progress;
use crate::storage::{File, ReadAt as _};

/// The maximum length of a chunk, and the alignment of their starts.
pub(super) const PIECE: u64 = 1 << 20;

/// Passes the contents of `file` from `from` on to `sink`, with offsets, in order. Chunks of zeros are skipped. The
/// file must have `len` bytes.
pub(super) fn pieces(
    file: &File,
    from: u64,
    len: u64,
    progress: &dyn Progress,
    mut sink: impl FnMut(u64, &[u8]) -> Result<()>,
) -> Result<()> {
    let found = file.byte_len()?;
    if found != len {
        return Err(
            Error::damaged("the file doesn't have the length that its manifest gives")
                .with_path(file.path())
                .with_found(format_args!("{found} bytes"))
                .with_expected(format_args!("{len} bytes"))
                .with_remedy(lists("what else is damaged in this store")),
        );
    }
    let mut buffer = Vec::new();
    let (mut at, mut told) = (from, from);
    while let Some(data) = file.data_range(at..len)? {
        at = data.start;
        while at < data.end {
            progress.check()?;
            let end = (at - at % PIECE).saturating_add(PIECE).min(data.end);
            buffer.resize(to_usize(end - at), 0);
            file.read_exact_at(&mut buffer, at)?;
            if !is_zero(&buffer) {
                sink(at, &buffer)?;
            }
            progress.advance(end - told);
            (at, told) = (end, end);
        }
    }
    progress.advance(len.saturating_sub(told));
    Ok(())
}

/// The offset up to which two files, both at least `len` bytes long, are equal; a multiple of the chunk size, or `len`.
pub(super) fn same_until(a: &File, b: &File, len: u64) -> Result<u64> {
    let [mut of_a, mut of_b] = [Vec::new(), Vec::new()];
    let mut at = 0;
    loop {
        let ranges = [a.data_range(at..len)?, b.data_range(at..len)?];
        let starts = ranges.into_iter().flatten().map(|range| range.start);
        let Some(start) = starts.min() else {
            return Ok(len);
        };
        let end = (start - start % PIECE).saturating_add(PIECE).min(len);
        for (file, bytes) in [(a, &mut of_a), (b, &mut of_b)] {
            bytes.resize(to_usize(end - start), 0);
            file.read_exact_at(bytes, start)?;
        }
        if of_a != of_b {
            return Ok(start - start % PIECE);
        }
        at = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Silent;
    use crate::storage::WriteAt as _;

    #[test]
    fn all_but_the_zeros_comes_in_order_from_any_offset() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let mut bytes = vec![0; (3 << 20) + 77];
        for at in [0, 4096, (1 << 20) - 1, (1 << 20) + 5, (3 << 20) + 76] {
            bytes[at] = 7;
        }
        std::fs::write(&path, []).unwrap();
        let file = File::open_writable(&path).unwrap();
        file.set_len(bytes.len() as u64).unwrap();
        file.write_all_at(&bytes[..8192], 0).unwrap();
        file.write_all_at(&bytes[(1 << 20) - 4096..], (1 << 20) - 4096)
            .unwrap();
        for from in [0, 1, 1 << 20, (3 << 20) + 77] {
            let mut found = vec![0; bytes.len()];
            found[..from].copy_from_slice(&bytes[..from]);
            let mut end = from as u64;
            pieces(
                &file,
                from as u64,
                bytes.len() as u64,
                &Silent,
                |at, piece| {
                    assert!(at >= end && piece.len() as u64 <= PIECE && !is_zero(piece));
                    end = at + piece.len() as u64;
                    let at = usize::try_from(at).unwrap();
                    found[at..at + piece.len()].copy_from_slice(piece);
                    Ok(())
                },
            )
            .unwrap();
            assert!(found == bytes, "{from}");
        }
        assert!(pieces(&file, 0, 5, &Silent, |_, _| Ok(())).is_err());
        // Compared with a copy without holes, which first differs at one place or the other.
        let other = folder.path().join("other");
        std::fs::write(&other, &bytes).unwrap();
        let len = bytes.len() as u64;
        let other = File::open_writable(&other).unwrap();
        assert_eq!(same_until(&file, &other, len).unwrap(), len);
        assert_eq!(same_until(&other, &file, 70).unwrap(), 70);
        for at in [len - 1, 2 << 20, (1 << 20) - 1, 5] {
            other.write_all_at(&[9], at).unwrap();
            for (a, b) in [(&file, &other), (&other, &file)] {
                assert_eq!(same_until(a, b, len).unwrap(), at - at % PIECE, "{at}");
            }
        }
    }
}
