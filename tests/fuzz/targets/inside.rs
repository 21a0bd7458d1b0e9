//! Any bytes as a disk with file systems: looking inside never fails but with an error, and every changed byte has one
//! owner.
//!
//! The input is the size of a disk in units of 64 KiB, and pieces of it: where, in units of 16 bytes (three bytes), how
//! long, in the same units (one byte), and the bytes. The other disk lacks the last piece.

use vhdkit::image::{Image, RawImage};
use vhdkit::inside::{ChangedBytes, Contents, contents, file_changes, partitions, tar};
use vhdkit::page::PageRange;
use vhdkit::storage::Memory;

use super::diff::ok;

pub fn run(data: &[u8]) {
    let Some((size, mut rest)) = data.split_first() else {
        return;
    };
    let mut disk = vec![0; (usize::from(size % 64) + 1) << 16];
    let mut before = disk.clone();
    while let Some((head, after)) = rest.split_at_checked(4) {
        before.clone_from(&disk);
        let at = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let at = at * 16 % disk.len();
        let len = (usize::from(head[3]) + 1) * 16;
        let len = len.min(after.len()).min(disk.len() - at);
        disk[at..at + len].copy_from_slice(&after[..len]);
        rest = &after[len..];
    }
    let mut changed = ChangedBytes::default();
    for (n, (old, new)) in before.chunks(512).zip(disk.chunks(512)).enumerate() {
        if old != new {
            let start = n as u64 * 512;
            changed.push(PageRange::new(start, start + 512).unwrap_or_default());
        }
    }
    let [before, disk] = [before, disk].map(|bytes| ok(RawImage::open(Memory::new(bytes))));
    for (base, target) in [(&before, &disk), (&disk, &before)] {
        let found = ok(file_changes(base, target, &changed));
        assert_eq!(found.accounted(), changed.total());
    }
    read_all(&disk);
}

fn read_all(disk: &dyn Image) {
    for partition in ok(partitions(disk)).partitions.iter().take(4) {
        if let Contents::Files(files) = ok(contents(disk, partition))
            && let Ok(root) = files.root()
        {
            // A file may say that it is as large as it likes: as much as a disk can hold is looked at.
            let mut out = Bounded(64 << 20);
            let _ = tar(&files, &root, b"all", &mut out);
        }
    }
}

/// Takes so many bytes.
struct Bounded(usize);

impl std::io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self.0.checked_sub(bytes.len()) {
            Some(left) => {
                self.0 = left;
                Ok(bytes.len())
            }
            None => Err(std::io::ErrorKind::StorageFull.into()),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
