//! The promises of every image, as assertions.
#![allow(dead_code)]

use vhdkit::image::{ExtentState, Image, whole};
use vhdkit::page::{PAGE_SIZE, PageRange};

/// Reads all bytes of an image.
pub(crate) fn read_all(image: &dyn Image) -> Vec<u8> {
    let mut bytes = vec![0xEE; usize::try_from(image.virtual_size()).unwrap()];
    image.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

/// Asserts that `image` reads as `model`, in one piece and in awkward ones, and keeps its promises about extents.
pub(crate) fn assert_reads_as(image: &dyn Image, model: &[u8]) {
    let len = model.len();
    assert_eq!(image.virtual_size(), len as u64);
    assert!(read_all(image) == model, "the content differs");
    for (start, end) in [
        (0, 1),
        (1, 1),
        (len - 1, len),
        (511.min(len), 514.min(len)),
        (4095.min(len), 4097.min(len)),
        (len / 3, len - len / 7),
        (len / 2, len),
    ] {
        let mut bytes = vec![0xEE; end - start];
        image.read_exact_at(&mut bytes, start as u64).unwrap();
        assert!(bytes == model[start..end], "{start}..{end}");
    }
    assert!(image.read_exact_at(&mut [0], len as u64).is_err());
    assert!(image.read_exact_at(&mut [0; 2], len as u64 - 1).is_err());
    assert!(image.read_exact_at(&mut [0], u64::MAX).is_err());
    let pages = len as u64 / PAGE_SIZE;
    for (start, end) in [
        (0, pages),
        (pages / 3, pages - pages / 5),
        (pages - 1, pages),
    ] {
        let within = PageRange::new(start * PAGE_SIZE, end * PAGE_SIZE).unwrap();
        assert_extents(image, within, model);
    }
    let beyond = PageRange::new(0, len as u64 + 4096).unwrap();
    let last = image.extents(beyond).last().unwrap().unwrap();
    assert_eq!(last.range.end(), len as u64);
    assert_eq!(whole(image).len(), len as u64);
}

/// Asserts order, no gaps, distinct neighbours, and that zero extents really are zero.
pub(crate) fn assert_extents(image: &dyn Image, within: PageRange, model: &[u8]) {
    let mut at = within.start();
    let mut last = None;
    for extent in image.extents(within) {
        let extent = extent.unwrap();
        assert_eq!(extent.range.start(), at);
        assert!(!extent.range.is_empty());
        assert_ne!(last, Some(extent.state), "not maximal at {at}");
        let (start, end) = (extent.range.start(), extent.range.end());
        let bytes = &model[usize::try_from(start).unwrap()..usize::try_from(end).unwrap()];
        if extent.state == ExtentState::Zero {
            assert!(
                bytes.iter().all(|b| *b == 0),
                "{:?} is not zero",
                extent.range
            );
        }
        at = end;
        last = Some(extent.state);
    }
    assert_eq!(at, within.end());
}
