//! A differencing disk over a parent of any content: every read agrees with a second reader that knows both.

use std::sync::Arc;

use super::disk::Disk;
use super::image::check;
use super::image_sealed::seal;
use super::input::Input;

/// Where the disk's type stands in a footer.
const DISK_TYPE: usize = 60;

pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let flags = input.u8();
    let mut parent = Disk::new(input.below(256) * 512);
    let mut program = Input(input.take(16));
    parent.scribble(&mut program, 4);
    parent.coarse = flags & 128 != 0;
    let mut file = input.0.to_vec();
    if let Some(at) = file.len().checked_sub(512 - DISK_TYPE) {
        file[at..at + 4].copy_from_slice(&[0, 0, 0, 4]);
    }
    // Both footers right and alike, a right header; sizes and places made sensible as the flags say.
    seal(flags & 0x70 | 0xD, &mut file);
    check(&file, data, Some(&Arc::new(parent)));
}
