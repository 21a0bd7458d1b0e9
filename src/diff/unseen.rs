//! A diff from a base that isn't here: only its window hashes are known.

use std::io::Write;
use std::path::PathBuf;

use super::format::Side;
use super::make::{DiffOptions, Written, write_diff_from_list};
use crate::error::Result;
use crate::image::{Extent, ExtentState, Extents, Image, WindowList, check_within, whole};
use crate::page::PageRange;
use crate::storage::ReadAt;

/// Differs from `target` in every byte, so that each page of a window that may have changed is listed as changed.
struct Unseen<'a> {
    target: &'a dyn Image,
    size: u64,
}

impl Image for Unseen<'_> {
    fn virtual_size(&self) -> u64 {
        self.size
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        check_within(self.size, offset, buf.len())?;
        buf.fill(0);
        let within = self.target.virtual_size().saturating_sub(offset);
        let within = usize::try_from(within).unwrap_or(usize::MAX);
        let (inside, _) = buf.split_at_mut(within.min(buf.len()));
        if !inside.is_empty() {
            self.target.read_exact_at(inside, offset)?;
        }
        for byte in buf {
            *byte = !*byte;
        }
        Ok(())
    }

    fn extents(&self, within: PageRange) -> Extents<'_> {
        let range = within.cut_to(whole(self));
        let data = (!range.is_empty()).then_some(Ok(Extent {
            range,
            state: ExtentState::Data,
        }));
        Box::new(data.into_iter())
    }
}

/// As [`write_diff_listed`](super::write_diff_listed), for a base of which nothing but its window hashes is at hand.
/// Every page of a mebibyte with another hash is listed, whether or not it changed, and what the base holds there isn't
/// recorded: the content digest identifies the base.
pub fn write_diff_unseen<W: Write, S: ReadAt>(
    list: &WindowList<S>,
    base: Side,
    target: (&dyn Image, Side),
    (out, name): (W, PathBuf),
    options: DiffOptions<'_>,
) -> Result<Written<W>> {
    let unseen = Unseen {
        target: target.0,
        size: list.virtual_size(),
    };
    let forget = |change| super::WindowChange {
        base_hash: [0; 32],
        ..change
    };
    write_diff_from_list(
        list,
        (&unseen, base),
        target,
        (out, name),
        options,
        (forget, |_, _| Ok(())),
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::diff::{Compression, DiffFile, Overlay};
    use crate::image::{ContentDigest, NoneShared, WindowListWriter, window_hashes};
    use crate::parallel::{Work, Workers};
    use crate::progress::Silent;
    use crate::storage::Memory;

    const WINDOW: usize = 1 << 20;

    struct Bytes(Vec<u8>);

    impl Image for Bytes {
        fn virtual_size(&self) -> u64 {
            self.0.len() as u64
        }

        fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
            let at = usize::try_from(offset).unwrap();
            buf.copy_from_slice(&self.0[at..at + buf.len()]);
            Ok(())
        }

        fn extents(&self, within: PageRange) -> Extents<'_> {
            let range = within.cut_to(whole(self));
            let state = ExtentState::Data;
            let data = (!range.is_empty()).then_some(Ok(Extent { range, state }));
            Box::new(data.into_iter())
        }
    }

    fn disk(windows: &[u8], more: usize) -> Bytes {
        let mut bytes: Vec<u8> = windows.iter().flat_map(|n| vec![*n; WINDOW]).collect();
        bytes.resize(bytes.len() + more, 7);
        Bytes(bytes)
    }

    #[test]
    fn it_leads_from_the_listed_disk_to_the_target_and_lists_only_windows_that_differ() {
        let workers = Workers::new(Some(std::num::NonZeroUsize::MIN)).unwrap();
        let work = Work::new(&workers, &Silent);
        let confirm = || Ok(());
        let options = DiffOptions {
            work,
            compression: Compression::None,
            digests: true,
            equal: &NoneShared,
            confirm: &confirm,
        };
        let disks = [
            disk(&[1, 2, 0, 4, 5, 6, 7, 8, 9], 0),
            disk(&[1, 3, 0, 0, 5, 6, 7, 8, 9], 0),
            disk(&[1, 3, 0, 0, 5], 512),
            disk(&[1, 3, 0, 0, 5, 6, 7, 8, 9, 0, 1], 1024),
            disk(&[0, 0, 0], 0),
        ];
        for base in &disks {
            let mut list = Vec::new();
            let mut writer = WindowListWriter::new(&mut list, "list", base.virtual_size()).unwrap();
            window_hashes(base, &workers, &Silent, |at, hashes| {
                writer.push(at, hashes)
            })
            .unwrap();
            let digest = writer.finish().unwrap();
            let list = WindowList::open(Memory::new(list)).unwrap();
            for target in &disks {
                let mut out = Vec::new();
                let sides = (Side::default(), (target as &dyn Image, Side::default()));
                write_diff_unseen(&list, sides.0, sides.1, (&mut out, "d".into()), options)
                    .unwrap();
                let changed = (0..target.0.len())
                    .step_by(WINDOW)
                    .filter(|at| base.0.get(*at..*at + 512) != target.0.get(*at..*at + 512))
                    .count();
                assert!(
                    out.len() <= 1024 + changed * (WINDOW + 512) + 1024,
                    "{}",
                    out.len()
                );
                let diff = DiffFile::open_indexed(Memory::new(out)).unwrap();
                assert_eq!(diff.trailer().base_digest, Some(digest));
                let reached: Option<ContentDigest> = diff.trailer().target_digest;
                let made = Overlay::new(Bytes(base.0.clone()), Some(digest), vec![Arc::new(diff)])
                    .unwrap();
                let mut bytes = vec![0; target.0.len()];
                made.read_exact_at(&mut bytes, 0).unwrap();
                assert!(bytes == target.0);
                let found = window_hashes(target, &workers, &Silent, |_, _| Ok(())).unwrap();
                assert_eq!(reached, Some(found));
            }
        }
    }
}
