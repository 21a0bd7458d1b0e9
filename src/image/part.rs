//! A part of a disk, presented as a disk of its own.

use super::{Extent, Extents, Image, ImageMut, IoHints, check_update, check_within, whole};
use crate::error::{Error, Result};
use crate::page::PageRange;

/// A range of a virtual disk, such as a partition, as an image that begins at 0.
#[derive(Debug)]
pub struct Part<I> {
    image: I,
    range: PageRange,
}

impl<I: Image> Part<I> {
    /// Presents the `range` of `image` as an image.
    ///
    /// # Errors
    ///
    /// [`Usage`](crate::ErrorKind::Usage) if the range is empty or ends beyond the image.
    pub fn new(image: I, range: PageRange) -> Result<Self> {
        if range.is_empty() || range.end() > image.virtual_size() {
            return Err(Error::usage("there is no such part of the virtual disk")
                .with_found(format_args!("bytes {} to {}", range.start(), range.end()))
                .with_expected(format_args!(
                    "a range within its {} bytes",
                    image.virtual_size()
                )));
        }
        Ok(Self { image, range })
    }

    /// Converts `range` of the part to a range of the whole.
    fn in_whole(&self, range: PageRange) -> PageRange {
        PageRange::covering(
            self.range.start() + range.start(),
            self.range.start() + range.end(),
        )
    }
}

impl<I: Image> Image for Part<I> {
    fn virtual_size(&self) -> u64 {
        self.range.len()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        check_within(self.virtual_size(), offset, buf.len())?;
        self.image.read_exact_at(buf, self.range.start() + offset)
    }

    fn extents(&self, within: PageRange) -> Extents<'_> {
        let start = self.range.start();
        let within = self.in_whole(within.cut_to(whole(self)));
        Box::new(self.image.extents(within).map(move |extent| {
            extent.map(|Extent { range, state }| Extent {
                range: PageRange::covering(range.start() - start, range.end() - start),
                state,
            })
        }))
    }

    fn io(&self) -> IoHints {
        self.image.io()
    }
}

impl<I: ImageMut> ImageMut for Part<I> {
    fn update(&mut self, range: PageRange, data: &[u8]) -> Result<()> {
        check_update(self.virtual_size(), range, data)?;
        let range = self.in_whole(range);
        self.image.update(range, data)
    }

    fn clear(&mut self, range: PageRange) -> Result<()> {
        check_within(self.virtual_size(), range.start(), range.buffer_len())?;
        let range = self.in_whole(range);
        self.image.clear(range)
    }

    fn flush(&mut self) -> Result<()> {
        self.image.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;
    use crate::image::RawImage;
    use crate::storage::Memory;

    fn range(start: u64, end: u64) -> PageRange {
        PageRange::new(start, end).unwrap()
    }

    #[test]
    fn a_part_is_what_the_whole_has_there() {
        let bytes: Vec<u8> = (0..=255).flat_map(|byte| [byte; 16]).collect();
        let mut whole_disk = RawImage::open(Memory::new(bytes.clone())).unwrap();
        let mut part = Part::new(&mut whole_disk, range(1024, 3072)).unwrap();
        assert_eq!(part.virtual_size(), 2048);
        let mut read = vec![0; 2048];
        part.read_exact_at(&mut read, 0).unwrap();
        assert_eq!(read, bytes[1024..3072]);
        part.update(range(512, 1024), &[7; 512]).unwrap();
        part.clear(range(1536, 2048)).unwrap();
        let extents: Vec<Extent> = part.extents(range(0, 2048)).map(Result::unwrap).collect();
        assert_eq!(extents.first().unwrap().range.start(), 0);
        assert_eq!(extents.last().unwrap().range.end(), 2048);

        let mut expected = bytes;
        expected[1536..2048].fill(7);
        expected[2560..3072].fill(0);
        assert_eq!(whole_disk.storage().to_vec(), expected);
    }

    #[test]
    fn nothing_outside_of_the_part_is_reached() {
        let mut disk = RawImage::open(Memory::new(vec![1; 4096])).unwrap();
        assert!(Part::new(&disk, range(512, 4608)).is_err());
        assert!(Part::new(&disk, range(512, 512)).is_err());
        let mut part = Part::new(&mut disk, range(512, 1024)).unwrap();
        let outside = part.read_exact_at(&mut [0; 1024], 0).unwrap_err();
        assert_eq!(outside.kind(), ErrorKind::Usage);
        assert!(part.update(range(0, 1024), &[0; 1024]).is_err());
        assert!(part.clear(range(0, 1024)).is_err());
        assert!(disk.storage().to_vec()[1024..] == [1; 3072]);
    }
}
