//! Virtual disks as `std::io` streams, for crates that read partitions and file systems.

use std::io::{self, BufRead, Read, Seek, SeekFrom, Write};
use std::ops::Range;

use super::{Image, ImageMut, whole};
use crate::error::{Error, ErrorKind};
use crate::page::{PageRange, to_usize};

/// Bytes read and written at a time: enough to make single bytes cheap, and few enough for random access.
const ROOM: u64 = 64 << 10;

/// Presents a virtual disk as [`Read`], [`BufRead`] and [`Seek`], with any offset and length. The image itself is read
/// in aligned pieces of 64 KiB.
///
/// ```
/// use std::io::{Read, Seek, SeekFrom};
/// use vhdkit::image::{DiskReader, RawImage};
/// use vhdkit::storage::Memory;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let image = RawImage::open(Memory::new(vec![7; 4096]))?;
/// let mut disk = DiskReader::new(&image);
/// disk.seek(SeekFrom::End(-3))?;
/// let mut last = Vec::new();
/// disk.read_to_end(&mut last)?;
/// assert_eq!(last, [7, 7, 7]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct DiskReader<I> {
    image: I,
    place: Place,
    piece: Piece,
}

impl<I: Image> DiskReader<I> {
    /// Starts at the first byte of `image`. A `&image`, `Box` or `Arc` of an image is an image, too.
    pub fn new(image: I) -> Self {
        let place = Place::new(&image);
        Self {
            image,
            place,
            piece: Piece::default(),
        }
    }

    /// Returns the image.
    pub fn into_image(self) -> I {
        self.image
    }
}

impl<I: Image> BufRead for DiskReader<I> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.place.is_inside() && !self.piece.has(self.place.at) {
            self.piece.load(&self.image, self.place.at)?;
        }
        Ok(self.piece.rest(self.place.at))
    }

    fn consume(&mut self, bytes: usize) {
        self.place.advance(bytes);
    }
}

impl<I: Image> Read for DiskReader<I> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut there = self.fill_buf()?;
        let read = there.read(buf)?;
        self.consume(read);
        Ok(read)
    }
}

impl<I: Image> Seek for DiskReader<I> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.place.seek(to)
    }
}

/// Presents a virtual disk as [`Read`], [`Write`] and [`Seek`], with any offset and length. The image itself is read
/// and written in aligned pieces of at most 64 KiB.
///
/// As on a block device, a write at the end of the virtual disk writes 0 bytes. Data is on stable storage when
/// [`flush`](Write::flush) returns; dropping the stream without a flush may lose it.
///
/// ```
/// use std::io::{Read, Seek, SeekFrom, Write};
/// use vhdkit::image::{DiskWriter, RawImage};
/// use vhdkit::storage::Memory;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let image = RawImage::open(Memory::new(vec![0; 1 << 20]))?;
/// let mut disk = DiskWriter::new(image);
/// disk.seek(SeekFrom::Start(1000))?;
/// disk.write_all(b"across two pages of 512 bytes")?;
/// disk.flush()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct DiskWriter<I> {
    image: I,
    place: Place,
    piece: Piece,
    /// The pages of the piece that aren't written yet, if any.
    changed: Option<PageRange>,
}

impl<I: ImageMut> DiskWriter<I> {
    /// Starts at the first byte of `image`. A `&mut image` or `Box` of an image is an image, too.
    pub fn new(image: I) -> Self {
        let place = Place::new(&image);
        Self {
            image,
            place,
            piece: Piece::default(),
            changed: None,
        }
    }

    /// Flushes and returns the image.
    ///
    /// # Errors
    ///
    /// Fails if the changes can't be written.
    pub fn into_image(mut self) -> io::Result<I> {
        self.flush()?;
        Ok(self.image)
    }

    /// Loads the piece at the current position.
    fn load(&mut self) -> io::Result<()> {
        if self.place.is_inside() && !self.piece.has(self.place.at) {
            self.write_back()?;
            self.piece.load(&self.image, self.place.at)?;
        }
        Ok(())
    }

    fn write_back(&mut self) -> io::Result<()> {
        if let Some(changed) = self.changed {
            self.image.update(changed, self.piece.bytes_of(changed)?)?;
            // Cleared only now: after an error, the next flush tries again.
            self.changed = None;
        }
        Ok(())
    }
}

impl<I: ImageMut> Read for DiskWriter<I> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.load()?;
        let read = self.piece.rest(self.place.at).read(buf)?;
        self.place.advance(read);
        Ok(read)
    }
}

impl<I: ImageMut> Write for DiskWriter<I> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.load()?;
        let at = self.place.at;
        let written = self.piece.rest_mut(at).write(buf)?;
        if written > 0 {
            let pages = PageRange::covering(at, at + written as u64);
            self.changed = Some(self.changed.map_or(pages, |changed| changed.hull(pages)));
            self.place.advance(written);
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.write_back()?;
        Ok(self.image.flush()?)
    }
}

impl<I: ImageMut> Seek for DiskWriter<I> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.place.seek(to)
    }
}

/// A position on a disk.
#[derive(Debug)]
struct Place {
    at: u64,
    size: u64,
}

impl Place {
    fn new(image: &dyn Image) -> Self {
        Self {
            at: 0,
            size: image.virtual_size(),
        }
    }

    const fn is_inside(&self) -> bool {
        self.at < self.size
    }

    fn advance(&mut self, bytes: usize) {
        self.at = self.at.saturating_add(bytes as u64);
    }

    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let to = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.size.checked_add_signed(by),
        };
        self.at = to.ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                "a position before the first byte of the disk, or beyond all numbers",
            )
        })?;
        Ok(self.at)
    }
}

/// A piece of a disk in memory.
#[derive(Debug, Default)]
struct Piece {
    /// Its range; empty if nothing is loaded.
    range: PageRange,
    bytes: Vec<u8>,
}

impl Piece {
    const fn has(&self, at: u64) -> bool {
        self.range.start() <= at && at < self.range.end()
    }

    /// Loads the piece that contains `at`.
    fn load(&mut self, image: &dyn Image, at: u64) -> io::Result<()> {
        let start = at - at % ROOM;
        let range = PageRange::covering(start, start.saturating_add(ROOM)).cut_to(whole(image));
        // The range is empty while it is being read, so that bytes of the previous piece can't be taken for this one.
        self.range = PageRange::default();
        self.bytes.resize(range.buffer_len(), 0);
        image.read_exact_at(&mut self.bytes, range.start())?;
        self.range = range;
        Ok(())
    }

    /// The bytes of the piece from `at` on; empty if `at` isn't in it.
    fn rest(&self, at: u64) -> &[u8] {
        self.bytes.get(self.indexes(at)).unwrap_or_default()
    }

    fn rest_mut(&mut self, at: u64) -> &mut [u8] {
        let indexes = self.indexes(at);
        self.bytes.get_mut(indexes).unwrap_or_default()
    }

    fn indexes(&self, at: u64) -> Range<usize> {
        let end = self.range.buffer_len();
        if self.has(at) {
            to_usize(at - self.range.start())..end
        } else {
            end..end
        }
    }

    fn bytes_of(&self, range: PageRange) -> io::Result<&[u8]> {
        let start = range.start().saturating_sub(self.range.start());
        let bytes = self
            .bytes
            .get(to_usize(start)..to_usize(start) + range.buffer_len());
        bytes.ok_or_else(|| io::Error::other("the changed pages aren't in the buffer"))
    }
}

impl From<Error> for io::Error {
    /// Keeps the kind of an operating system error. The whole error becomes the source of the new one.
    fn from(error: Error) -> Self {
        let kind = match (error.io_kind(), error.kind()) {
            (Some(kind), _) => kind,
            (None, ErrorKind::Usage) => io::ErrorKind::InvalidInput,
            (None, ErrorKind::Damaged | ErrorKind::Mismatch) => io::ErrorKind::InvalidData,
            (None, ErrorKind::Unsupported) => io::ErrorKind::Unsupported,
            (None, ErrorKind::Locked | ErrorKind::Pending) => io::ErrorKind::ResourceBusy,
            // Not `Interrupted`, after which readers simply retry.
            _ => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

impl Error {
    /// Recovers this crate's error after it passed through [`std::io`], as from a file system on a [`DiskReader`]. Any
    /// other error becomes the cause of an [`ErrorKind::Io`] error with the message `doing`. There is no `From`
    /// implementation, so that `?` can't lose the file and offset of a system error.
    pub fn from_stream(doing: impl Into<String>, error: io::Error) -> Self {
        match error.downcast::<Self>() {
            Ok(ours) => ours,
            Err(error) => Self::io(doing, error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::RawImage;
    use crate::storage::Memory;
    use proptest::prelude::*;

    const SIZE: usize = 3 * 65536 + 1536;

    #[derive(Debug, Clone)]
    enum Step {
        Seek(u64),
        Back(i64),
        Read(usize),
        Write(usize, u8),
        Flush,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..SIZE as u64 + 2000).prop_map(Step::Seek),
            (0..198_144_i64).prop_map(Step::Back),
            (0..140_000_usize).prop_map(Step::Read),
            ((0..140_000_usize), any::<u8>()).prop_map(|(len, value)| Step::Write(len, value)),
            Just(Step::Flush),
        ]
    }

    #[test]
    fn nothing_is_written_at_the_end_without_an_error() {
        let mut disk = DiskWriter::new(RawImage::open(Memory::new(vec![0; 1 << 16])).unwrap());
        disk.seek(SeekFrom::Start(198_145)).unwrap();
        disk.write_all(&[]).unwrap();
        assert_eq!(disk.write(&[1]).unwrap(), 0);
    }

    proptest! {
        // A case that failed once is a test of its own above, so that no regression file is created in the project's
        // root.
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

        /// A disk behaves like a cursor over the same number of bytes.
        #[test]
        fn a_disk_is_a_stream_of_fixed_length(steps in prop::collection::vec(step(), 0..40)) {
            let start: Vec<u8> = (0..SIZE).map(|n| (n % 251).try_into().unwrap()).collect();
            let mut model = io::Cursor::new(start.clone().into_boxed_slice());
            let mut disk = DiskWriter::new(RawImage::open(Memory::new(start)).unwrap());
            for step in steps {
                match step {
                    Step::Seek(at) => {
                        prop_assert_eq!(disk.seek(SeekFrom::Start(at)).unwrap(), at);
                        model.set_position(at);
                    }
                    Step::Back(by) => {
                        let found = disk.seek(SeekFrom::End(-by)).unwrap();
                        prop_assert_eq!(found, model.seek(SeekFrom::End(-by)).unwrap());
                    }
                    Step::Read(len) => {
                        let (mut found, mut expected) = (Vec::new(), Vec::new());
                        Read::by_ref(&mut disk).take(len as u64).read_to_end(&mut found).unwrap();
                        Read::by_ref(&mut model).take(len as u64).read_to_end(&mut expected).unwrap();
                        prop_assert!(found == expected);
                    }
                    Step::Write(len, value) => {
                        let bytes = vec![value; len];
                        let done = disk.write_all(&bytes).map_err(|e| e.kind());
                        prop_assert_eq!(done, model.write_all(&bytes).map_err(|e| e.kind()));
                    }
                    Step::Flush => disk.flush().unwrap(),
                }
            }
            let image = disk.into_image().unwrap();
            let mut read = Vec::new();
            DiskReader::new(&image).read_to_end(&mut read).unwrap();
            prop_assert!(read == model.into_inner().into_vec());
        }
    }

    #[test]
    fn lines_of_text_are_read_across_pieces() {
        let mut text: Vec<u8> = (0..30_000)
            .flat_map(|n| format!("{n}\n").into_bytes())
            .collect();
        text.resize(text.len().next_multiple_of(512), b'\n');
        let image = RawImage::open(Memory::new(text)).unwrap();
        let lines = DiskReader::new(&image).lines().map(Result::unwrap);
        assert!(
            lines
                .take(30_000)
                .enumerate()
                .all(|(n, line)| line == n.to_string())
        );
    }

    #[test]
    fn an_error_comes_through_as_it_was() {
        let ours = Error::damaged("the block is truncated")
            .with_path("a.vhd")
            .with_offset(7);
        let text = ours.to_string();
        let through = io::Error::from(ours);
        assert_eq!(through.kind(), io::ErrorKind::InvalidData);
        let back = Error::from_stream("cannot read", through);
        assert_eq!((back.kind(), back.to_string()), (ErrorKind::Damaged, text));
        let stopped = io::Error::from(Error::interrupted());
        assert_ne!(stopped.kind(), io::ErrorKind::Interrupted);
    }

    #[test]
    fn a_position_before_the_disk_is_refused_and_the_old_one_kept() {
        let image = RawImage::open(Memory::new(vec![3; 1024])).unwrap();
        let mut disk = DiskReader::new(&image);
        disk.seek(SeekFrom::Start(1000)).unwrap();
        assert!(disk.seek(SeekFrom::Current(-1001)).is_err());
        assert_eq!(disk.stream_position().unwrap(), 1000);
        disk.seek(SeekFrom::Start(u64::MAX)).unwrap();
        assert_eq!(disk.read(&mut [0; 8]).unwrap(), 0);
    }
}
